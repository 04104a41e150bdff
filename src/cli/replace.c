/*
 * cli/replace.c - posthouse setup replace-postfix: Postfix's place, its queue, and the road back
 *
 * One thread.  There are two roads, and each begins with both mail systems stopped: forward takes
 * Postfix's queue over and starts Posthouse, back gives the queue back and starts Postfix.  --apply
 * goes forward and --undo goes back; where a road ends half-way, the other one is taken.  Each step
 * can be done again, so the same command goes on where a run was killed.
 *
 * What was there before is noted in replace-postfix.undo, in Posthouse's configuration directory,
 * before anything is changed; the note goes when Postfix runs again.  Until then --apply and --undo
 * know by its state which road was begun.
 */
#include "cli/replace.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/beside.h"
#include "cli/cli.h"
#include "cli/front.h"
#include "cli/switch.h"
#include "daemon/listen.h"
#include "transfer/pfqueue.h"
#include "util/clock.h"
#include "util/fs.h"
#include "util/mem.h"
#include "util/os.h"

#define OWN_PLACE     PH_CONFIG_DIR /* what posthouse.service and the commands read */
#define POSTFIX_PLACE PH_POSTFIX_DIR
#define NOTE_MAX      65536U
#define COMMAND_MS    120000 /* a program that starts or stops a mail system */
#define FREE_MS       10000  /* a port of a program that has ended is free by then */
#define SERVES_MS     30000
#define BEGINS_MS     2000 /* what started Postfix has waited for it already */
#define GREET_MS      10000
#define LOOK_MS       20

enum replace_state { REPLACE_NONE, REPLACE_APPLYING, REPLACE_APPLIED, REPLACE_UNDOING };

static const char *const state_names[] = {"", "applying", "applied", "undoing"};

struct replace {
    char *dir;            /* Posthouse's configuration directory, whole; owned */
    struct config *cfg;   /* owned */
    struct config *front; /* Postfix's configuration; owned */
    char *note_path;      /* owned */
    char *program;        /* this one; owned */
    bool own_unit;        /* systemd starts Posthouse */
    bool front_unit;      /* systemd starts Postfix */
    int64_t stopped_ms;   /* when Postfix was stopped, as clock_mono_ms; 0: it was not */
    int lock_fd;          /* of Postfix's configuration directory; -1: not locked */
    bool stays;           /* some mail was named that did not move */
    bool without_records; /* they are not looked for */
    bool had_mail;        /* Posthouse's queue, before the first step of a first --apply */
    /* What is noted. */
    enum replace_state state;
    bool ran;       /* Postfix ran, or this is not known: then nothing is begun */
    bool at_boot;   /* systemd starts Postfix with the machine, and can start Posthouse instead */
    bool placed;    /* OWN_PLACE was made */
    char *sendmail; /* the file that becomes a link to this program; empty: none; owned */
};

static int replace_fatal(const char *what, const char *why) {
    fprintf(stderr, "posthouse: fatal: %s: %s\n", what, why);
    return 1;
}

static void replace_step(const char *text) {
    printf("posthouse: %s\n", text);
    fflush(stdout);
}

/* -- the note -- */

/* The value of the line that begins with name and a blank; the caller frees. */
static char *note_value(struct str note, const char *name) {
    struct str line;
    size_t n = strlen(name);
    while (str_split(&note, "\n", &line))
        if (line.n > n && memcmp(line.p, name, n) == 0 && line.p[n] == ' ')
            return str_dup(str_from(line, n + 1));
    return mem_strdup("");
}

static bool note_yes(struct str note, const char *name) {
    char *value = note_value(note, name);
    bool yes = strcmp(value, "yes") == 0;
    free(value);
    return yes;
}

static int note_write(struct replace *r, enum replace_state state) {
    struct sbuf text = {0};
    struct stat st;
    bool there = lstat(r->note_path, &st) == 0;
    r->state = state;
    sbuf_printf(&text, "state %s\npostfix %s\nran %s\nboot %s\nplaced %s\nsendmail %s\n",
                state_names[state], r->front->dir, r->ran ? "yes" : "no", r->at_boot ? "yes" : "no",
                r->placed ? "yes" : "no", r->sendmail);
    int rc = fs_write_whole(r->note_path, sbuf_str(&text), 0644, there ? &st : NULL);
    sbuf_free(&text);
    return rc < 0 ? replace_fatal(r->note_path, strerror(-rc)) : 0;
}

static int note_remove(struct replace *r) {
    r->state = REPLACE_NONE;
    if (unlink(r->note_path) < 0 && errno != ENOENT)
        return replace_fatal(r->note_path, strerror(errno));
    fs_sync_dir(r->note_path);
    return 0;
}

static int note_take(struct replace *r, struct str note) {
    char *state = note_value(note, "state"), *front = note_value(note, "postfix");
    for (size_t i = REPLACE_APPLYING; i <= REPLACE_UNDOING; i++)
        if (strcmp(state, state_names[i]) == 0)
            r->state = (enum replace_state)i;
    int rc = 0;
    if (r->state == REPLACE_NONE)
        rc = replace_fatal(r->note_path, "it is not a note of replace-postfix");
    else if (strcmp(front, r->front->dir) != 0)
        rc = replace_fatal(r->note_path, "another Postfix was replaced: --postfix says which");
    r->ran = note_yes(note, "ran");
    r->at_boot = note_yes(note, "boot");
    r->placed = note_yes(note, "placed");
    free(r->sendmail);
    r->sendmail = note_value(note, "sendmail");
    free(state);
    free(front);
    return rc;
}

/* 0, also where nothing is noted, or 1 after saying why not. */
static int note_read(struct replace *r) {
    struct sbuf note = {0};
    int rc = fs_read(r->note_path, &note, NOTE_MAX);
    if (rc == 0)
        rc = note_take(r, sbuf_str(&note));
    else
        rc = rc == -ENOENT ? 0 : replace_fatal(r->note_path, strerror(-rc));
    sbuf_free(&note);
    return rc;
}

/* -- the two mail systems -- */

/* systemctl WORD UNIT; the exit status. */
static int unit_do(const char *word, const char *unit, bool quiet) {
    char *const argv[] = {(char *)(uintptr_t) "systemctl", (char *)(uintptr_t)word,
                          (char *)(uintptr_t)unit, NULL};
    return front_run(argv, COMMAND_MS, quiet);
}

static bool unit_is_there(const char *unit) {
    return access("/run/systemd/system", F_OK) == 0 && unit_do("cat", unit, true) == 0;
}

static bool front_runs(const struct replace *r) {
    return front_state(r->front) == FRONT_RUNS;
}

static int front_unknown(const struct replace *r) {
    return replace_fatal(r->front->dir, FRONT_UNKNOWN_SAYS);
}

/* However it was started: by hand, perhaps, and not by systemd. */
static enum front_state front_stop_it(const struct replace *r) {
    if (r->front_unit)
        unit_do("stop", "postfix.service", false);
    enum front_state state = r->front_unit ? front_state(r->front) : FRONT_RUNS;
    if (state != FRONT_RUNS)
        return state;
    front_postfix(r->front, "stop", COMMAND_MS);
    return front_state(r->front);
}

static int front_stop(struct replace *r) {
    enum front_state state = front_state(r->front);
    if (state == FRONT_RESTS)
        return 0;
    int64_t began_ms = clock_mono_ms();
    if (state == FRONT_RUNS)
        state = front_stop_it(r);
    if (state == FRONT_UNKNOWN)
        return front_unknown(r);
    if (state == FRONT_RUNS)
        return replace_fatal(r->front->dir, "Postfix does not stop");
    r->stopped_ms = began_ms;
    replace_step("Postfix is stopped");
    return 0;
}

static int front_begin(const struct replace *r) {
    return r->front_unit ? unit_do("start", "postfix.service", false)
                         : front_postfix(r->front, "start", COMMAND_MS);
}

static bool front_comes(const struct replace *r, int limit_ms) {
    int64_t until_ms = clock_mono_ms() + limit_ms;
    bool runs;
    while (!(runs = front_runs(r)) && clock_mono_ms() < until_ms)
        poll(NULL, 0, LOOK_MS);
    return runs;
}

/* At its first start Postfix gives queue files that were put there other names, and with a log in a
 * file of its own (maillog_file) it fails after that, because nothing may write there yet: only the
 * second call says whether it can start. */
static bool front_is_well(const struct replace *r) {
    return front_postfix(r->front, "check", COMMAND_MS) == 0 ||
           front_postfix(r->front, "check", COMMAND_MS) == 0;
}

/* As above; and what is started by systemd is a unit of Debian's that has started, whatever became
 * of Postfix. */
static int front_start(const struct replace *r) {
    if (!r->ran || front_runs(r))
        return 0;
    bool runs = front_begin(r) == 0 && front_comes(r, BEGINS_MS);
    if (!runs)
        runs = front_begin(r) == 0 && front_comes(r, SERVES_MS);
    if (!runs)
        return replace_fatal(r->front->dir, "Postfix does not start");
    replace_step("Postfix runs");
    return 0;
}

static int own_stop(const struct replace *r) {
    if (r->own_unit)
        unit_do("stop", "posthouse.service", false);
    int rc = cli_stop_daemon(r->cfg);
    if (rc == -ETIMEDOUT)
        return replace_fatal(r->dir, "Posthouse does not stop");
    if (rc < 0 && rc != -ESRCH)
        return replace_fatal(r->cfg->p.queue_directory, strerror(-rc));
    if (rc == 0)
        replace_step("Posthouse is stopped");
    return 0;
}

static int own_start(const struct replace *r) {
    const char *daemon =
        access(PH_SBINDIR "/posthoused", X_OK) == 0 ? PH_SBINDIR "/posthoused" : "posthoused";
    char *const argv[] = {(char *)(uintptr_t)daemon, (char *)(uintptr_t) "-c", r->dir, NULL};
    int rc = r->own_unit ? unit_do("start", "posthouse.service", false)
                         : front_run(argv, COMMAND_MS, false);
    return rc == 0 ? 0 : replace_fatal(r->dir, "Posthouse does not start");
}

/* With the machine, one of both is started: the one that has the mail, and before it is started
 * now, for the power may fail then. */
static int boots_with(const struct replace *r, bool ours) {
    int rc = 0;
    if (r->own_unit)
        rc = unit_do(ours ? "enable" : "disable", "posthouse.service", true);
    if (rc == 0 && r->at_boot)
        rc = unit_do(ours ? "disable" : "enable", "postfix.service", true);
    return rc == 0 ? 0 : replace_fatal("systemctl", "it does not say what starts with the machine");
}

/* -- addresses -- */

/* The first address that is not as it should be. */
struct address_look {
    bool served;    /* should a server greet there?  Else it should be free. */
    char text[128]; /* empty: all are well */
};

/* One with TLS from the first byte on waits for its client. */
static bool address_serves(const struct service *svc, const struct netaddr *a) {
    struct netaddr to = *a;
    char ip[INET6_ADDRSTRLEN];
    bool any = strcmp(netaddr_text(a, ip), "0.0.0.0") == 0;
    if (any || strcmp(ip, "::") == 0)
        netaddr_parse(&to, any ? STR_LIT("127.0.0.1") : STR_LIT("::1"), netaddr_port(a));
    return svc->p.smtpd_tls_wrappermode ? front_listens(&to, GREET_MS)
                                        : front_greets(&to, GREET_MS);
}

static void address_look(void *arg, const struct service *svc, const struct netaddr *a) {
    struct address_look *look = arg;
    char ip[INET6_ADDRSTRLEN];
    if (look->text[0] == '\0' &&
        !(look->served ? address_serves(svc, a) : listen_is_free(a) != -EADDRINUSE))
        snprintf(look->text, sizeof look->text, "%s port %u", netaddr_text(a, ip), netaddr_port(a));
}

/* Are the addresses of Posthouse's services all free, or served, within limit_ms?  text: which one
 * is not. */
static bool addresses_are(const struct replace *r, bool served, int limit_ms,
                          struct address_look *look) {
    int64_t until_ms = clock_mono_ms() + limit_ms;
    do {
        *look = (struct address_look){.served = served};
        listen_each(r->cfg, address_look, look);
        if (look->text[0] == '\0')
            return true;
        poll(NULL, 0, LOOK_MS);
    } while (clock_mono_ms() < until_ms);
    return false;
}

static int addresses_free(const struct replace *r, int limit_ms) {
    struct address_look look;
    if (addresses_are(r, false, limit_ms, &look))
        return 0;
    return replace_fatal(look.text, "another program listens there");
}

/* Does Posthouse greet at each address, and answer the commands? */
static int own_serves(const struct replace *r) {
    struct address_look look;
    struct ask_end end = {0};
    char *why = NULL;
    if (!addresses_are(r, true, SERVES_MS, &look))
        return replace_fatal(look.text, "Posthouse does not greet there");
    int rc = ask_daemon(r->cfg->p.queue_directory, "{\"cmd\": \"stats\"}", NULL, NULL, &end, &why);
    if (rc < 0)
        rc = replace_fatal(r->cfg->p.queue_directory, why);
    free(why);
    return rc;
}

/* -- the two roads -- */

/* Posthouse's unit and commands read OWN_PLACE; 0 or negative errno. */
static int place_make(const struct replace *r) {
    if (!r->placed)
        return 0;
    if (rmdir(OWN_PLACE) < 0 && errno != ENOENT && errno != ENOTDIR)
        return -errno;
    return symlink("postfix", OWN_PLACE) < 0 && errno != EEXIST ? -errno : 0;
}

static void place_remove(const struct replace *r) {
    char to[sizeof "postfix"] = "";
    if (r->placed && readlink(OWN_PLACE, to, sizeof to - 1) > 0 && strcmp(to, "postfix") == 0)
        unlink(OWN_PLACE);
}

static int sendmail_is(const struct replace *r, bool ours) {
    int rc = r->sendmail[0] == '\0' ? 0
             : ours                 ? switch_to(r->sendmail, r->program)
                                    : switch_back(r->sendmail, r->program);
    return rc < 0 ? replace_fatal(r->sendmail, strerror(-rc)) : 0;
}

/* What stays was named. */
static int mail_moves(struct replace *r, bool in) {
    int status = cli_transfer(r->dir, r->front->dir, in);
    r->stays = status == 1;
    return status == EX_OK_ || status == 1 ? 0 : 1;
}

/* Postfix is stopped. */
static int road_forward(struct replace *r) {
    int rc = own_stop(r);
    if (rc == 0)
        rc = addresses_free(r, FREE_MS);
    if (rc == 0) /* programs that send now wait for Posthouse */
        rc = sendmail_is(r, true);
    if (rc == 0)
        rc = mail_moves(r, true);
    int boots = rc == 0 ? boots_with(r, true) : 0;
    if (rc == 0)
        rc = own_start(r);
    if (rc == 0)
        rc = own_serves(r);
    if (rc != 0 || boots != 0)
        return 1;
    if (r->stopped_ms == 0)
        replace_step("Posthouse runs");
    else
        printf("posthouse: Posthouse runs, %.1f s after Postfix began to stop\n",
               (double)(clock_mono_ms() - r->stopped_ms) / 1000);
    rc = note_write(r, REPLACE_APPLIED);
    cli_transfer_sweep(r->dir, r->front->dir);
    return rc;
}

static int road_back(struct replace *r) {
    int rc = own_stop(r);
    if (rc == 0)
        rc = front_stop(r);
    if (rc == 0)
        rc = sendmail_is(r, false);
    if (rc == 0)
        rc = mail_moves(r, false);
    int boots = rc == 0 ? boots_with(r, false) : 0;
    if (rc == 0)
        rc = front_start(r);
    if (rc != 0 || boots != 0)
        return 1;
    place_remove(r);
    return note_remove(r);
}

static int road_is_lost(const struct replace *r, const char *again) {
    fprintf(stderr,
            "posthouse: fatal: neither goes now; no mail is lost: what is not in Postfix's queue "
            "is in %s.  Mend what is named above and give the command again, or the other one: "
            "posthouse setup replace-postfix %s\n",
            r->cfg->p.queue_directory, again);
    return 1;
}

/* -- what is there -- */

static size_t queue_count(const struct replace *r, const char *name) {
    struct pfqueue_list l = {0};
    char *dir = front_queue(r->front);
    struct pfqueue queue = {.dir = dir};
    pfqueue_list(&queue, name, &l);
    size_t n = l.n;
    pfqueue_list_free(&l);
    free(dir);
    return n;
}

static char *real_or_empty(const char *path) {
    char *real = realpath(path, NULL);
    return real == NULL ? mem_strdup("") : real;
}

/* The file of this command, or "". */
static char *own_program(void) {
    char path[PATH_MAX];
    return mem_strdup(os_program(path, sizeof path) ? path : "");
}

/* Do the units and commands read dir?  Then they will, if OWN_PLACE is made. */
static bool dir_is_placed(const struct replace *r) {
    char *own = real_or_empty(OWN_PLACE);
    bool is = strcmp(own, r->dir) == 0 || r->placed;
    free(own);
    return is;
}

/* OWN_PLACE is not there, or is an empty folder. */
static bool place_is_free(void) {
    struct stat st;
    char *main = realpath(OWN_PLACE "/main.cf", NULL);
    bool is = main == NULL && (lstat(OWN_PLACE, &st) < 0 || S_ISDIR(st.st_mode));
    free(main);
    return is;
}

/* The file that programs of this machine send with becomes Posthouse's where that one's sendmail
 * reads dir. */
static char *sendmail_wanted(const struct replace *r) {
    char *path = config_value(r->front, "sendmail_path", NULL);
    char *read = real_or_empty(cli_dir(NULL)), *real = NULL;
    bool named = cfg_file_find(&r->front->main, STR_LIT("sendmail_path")) != NULL;
    if (dir_is_placed(r) || (named && strcmp(read, r->dir) == 0))
        real = realpath(path == NULL || path[0] == '\0' ? "/usr/sbin/sendmail" : path, NULL);
    free(path);
    free(read);
    return real == NULL ? mem_strdup("") : real;
}

/* Before anything is changed. */
static void replace_look(struct replace *r) {
    r->placed = strcmp(r->dir, POSTFIX_PLACE) == 0 && place_is_free();
    r->own_unit = dir_is_placed(r) && unit_is_there("posthouse.service");
    r->front_unit = strcmp(r->front->dir, POSTFIX_PLACE) == 0 && unit_is_there("postfix.service");
    r->ran = front_state(r->front) != FRONT_RESTS;
    r->at_boot =
        r->own_unit && r->front_unit && unit_do("is-enabled", "postfix.service", true) == 0;
    r->sendmail = sendmail_wanted(r);
}

/* -- may it be done? -- */

/* A configuration for a Posthouse behind Postfix, or a Postfix that gives its mail to one. */
static bool stands_beside(const struct replace *r) {
    struct sbuf text = {0}, note = {0}, main = {0};
    sbuf_printf(&note, "%s/beside-postfix.undo", OWN_PLACE);
    sbuf_printf(&main, "%s/main.cf", r->dir);
    bool is = fs_read(main.p, &text, NOTE_MAX) == 0 && str_istarts(sbuf_str(&text), BESIDE_MARK);
    is = is || (strcmp(r->front->dir, POSTFIX_PLACE) == 0 && access(note.p, F_OK) == 0);
    sbuf_free(&text);
    sbuf_free(&note);
    sbuf_free(&main);
    return is;
}

/* Does systemd, or postmulti(1), start and stop that Postfix together with others?  Those would be
 * stopped with it, or it would be started with them. */
static bool front_is_of_several(const struct replace *r) {
    char *others = config_value(r->front, "multi_instance_directories", NULL);
    char *one = config_value(r->front, "multi_instance_enable", NULL);
    bool is =
        (others != NULL && others[0] != '\0') ||
        (one != NULL && strcasecmp(one, "yes") == 0 && strcmp(r->front->dir, POSTFIX_PLACE) != 0);
    free(others);
    free(one);
    return is;
}

/* 0, or the exit status after saying why not. */
static int replace_may(const struct replace *r) {
    char *check[] = {(char *)(uintptr_t) "check", NULL};
    if (front_is_of_several(r))
        return replace_fatal(
            r->front->dir, "it is one of several instances of Postfix (multi_instance_directories, "
                           "multi_instance_enable), which are started and stopped together: first "
                           "take the others out, or this one (postmulti -e disable, then -e "
                           "deport), or make the move by hand (posthouse import)");
    if (front_is_ours(r->front))
        return replace_fatal("postfix", "it is Posthouse's: no Postfix is here to be replaced "
                                        "(posthouse import takes over what its queue holds)");
    if (stands_beside(r))
        return replace_fatal(r->dir, "Posthouse stands beside Postfix: first give posthouse setup "
                                     "beside-postfix --undo, and name a configuration for it in "
                                     "Postfix's place with -c");
    if (!dir_is_placed(r) && strcmp(r->dir, POSTFIX_PLACE) == 0)
        return replace_fatal(OWN_PLACE, "it is another configuration, which posthouse.service and "
                                        "the commands read: move it away, or name it with -c");
    const char *why = r->sendmail[0] == '\0' ? NULL : switch_why_not(r->sendmail, r->program);
    if (why != NULL)
        return replace_fatal(r->sendmail, why);
    if (cli_check(r->dir, 1, check) > 1) {
        replace_fatal(r->dir, "correct the errors first; nothing was changed");
        return 2;
    }
    if (r->state == REPLACE_NONE && cli_daemon(r->cfg) != 0)
        return replace_fatal(r->cfg->p.queue_directory,
                             "a Posthouse runs with this configuration: stop it first");
    enum front_state now = front_state(r->front);
    if (now == FRONT_UNKNOWN)
        return front_unknown(r);
    return now == FRONT_RUNS || r->state != REPLACE_NONE ? 0 : addresses_free(r, 0);
}

/* -- the three commands -- */

static void say_address(void *arg, const struct service *svc, const struct netaddr *a) {
    struct sbuf *out = arg;
    (void)svc;
    char ip[INET6_ADDRSTRLEN];
    sbuf_printf(out, "%s%s port %u", out->n == 0 ? "" : ", ", netaddr_text(a, ip), netaddr_port(a));
}

/* How many messages Postfix's queues have; each, if it is not NULL, gets the numbers as text. */
static size_t queue_all(const struct replace *r, struct sbuf *each) {
    static const char *const names[] = {"maildrop", "incoming", "active", "deferred", "hold"};
    size_t all = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t n = queue_count(r, names[i]);
        if (each != NULL)
            sbuf_printf(each, "%s%zu in %s", i == 0 ? "" : ", ", n, names[i]);
        all += n;
    }
    return all;
}

static void say_queue(const struct replace *r) {
    struct sbuf each = {0};
    size_t all = queue_all(r, &each);
    printf("  its queue of %zu message%s (%s) goes to %s\n", all, all == 1 ? "" : "s", each.p,
           r->cfg->p.queue_directory);
    sbuf_free(&each);
}

static void say_sendmail(const struct replace *r) {
    if (r->sendmail[0] != '\0')
        printf("  %s, with which programs send, becomes Posthouse's, and Postfix's is kept as "
               "%s.postfix\n",
               r->sendmail, r->sendmail);
    else
        puts("  sendmail stays Postfix's: what programs send waits in its maildrop until --undo");
}

static bool apply_is_done(const struct replace *r) {
    struct address_look look;
    return r->state == REPLACE_APPLIED && front_state(r->front) == FRONT_RESTS &&
           queue_count(r, "maildrop") == 0 && cli_daemon(r->cfg) > 0 &&
           addresses_are(r, true, 0, &look);
}

static int replace_say(const struct replace *r) {
    struct sbuf addresses = {0};
    if (apply_is_done(r)) {
        puts("posthouse: Posthouse is in Postfix's place already; back: posthouse setup "
             "replace-postfix --undo");
        return 0;
    }
    int rc = replace_may(r);
    if (rc != 0)
        return rc;
    listen_each(r->cfg, say_address, &addresses);
    printf("\nposthouse setup replace-postfix --apply would do this:\n  Postfix of %s, which %s, "
           "is stopped%s%s\n",
           r->front->dir, r->ran ? "runs" : "does not run",
           r->front_unit ? " (systemctl stop postfix)" : "",
           r->at_boot ? ", and does not start with the machine any more" : "");
    say_queue(r);
    if (r->placed)
        puts("  " OWN_PLACE " becomes a link to " POSTFIX_PLACE);
    say_sendmail(r);
    printf("  Posthouse starts with %s%s and listens at %s\n", r->dir,
           r->own_unit ? " (systemctl enable --now posthouse)"
                       : ", but not with the machine (no unit of systemd's reads that),",
           addresses.n == 0 ? "no port" : addresses.p);
    puts("--undo goes back, with the mail that waits then.");
    sbuf_free(&addresses);
    return 0;
}

/* Postfix was not stopped: nothing has moved. */
static int replace_stay(struct replace *r, bool fresh) {
    int rc = front_start(r);
    if (rc == 0 && fresh) {
        place_remove(r);
        rc = note_remove(r);
    }
    if (rc == 0)
        fputs("posthouse: Postfix runs on; no mail was moved\n", stderr);
    return 1;
}

/* What is left in Postfix's queue is not sent.  A program that began to send with Postfix's
 * sendmail, a cron job perhaps, ends with its mail in the maildrop. */
static void say_left(const struct replace *r) {
    size_t n = queue_count(r, "maildrop");
    if (n > 0)
        fprintf(stderr,
                "posthouse: warning: %zu message%s in Postfix's maildrop, which nothing reads now: "
                "programs began to send with Postfix.  When they have ended, give posthouse setup "
                "replace-postfix --apply again\n",
                n, n == 1 ? " is" : "s are");
    else if (r->stays)
        fputs("posthouse: warning: the mail that is named above stays in Postfix's queue, where "
              "nothing sends it: correct what is named, stop Posthouse, give posthouse import, "
              "and start Posthouse again\n",
              stderr);
}

/* Postfix is of no use any more, an administrator may think. */
static void say_read(const struct replace *r) {
    if (strcmp(r->dir, POSTFIX_PLACE) == 0)
        puts("posthouse: it reads " POSTFIX_PLACE ", which a purge of the package postfix would "
             "remove, with the road back: leave that package as it is");
}

/* Postfix runs again, and what it could not be given is not sent. */
static void say_stays(const struct replace *r) {
    fprintf(stderr,
            "posthouse: warning: Postfix is in its place again, but the mail that is named above "
            "stays in %s, where nothing sends it: see there, and give posthouse setup "
            "replace-postfix --apply and, when it has gone, --undo again\n",
            r->cfg->p.queue_directory);
}

/* No road was gone to its end: mail may not have moved. */
static void say_waits(const struct replace *r) {
    size_t n = queue_all(r, NULL);
    if (n > 0)
        fprintf(stderr,
                "posthouse: warning: %zu message%s in Postfix's queue, where nothing sends %s: "
                "correct what is named above and give posthouse setup replace-postfix --apply "
                "again\n",
                n, n == 1 ? " is" : "s are", n == 1 ? "it" : "them");
}

/* A second --apply that fails: Posthouse was in its place, and Postfix was not asked for. */
static bool own_goes_on(const struct replace *r) {
    if (own_start(r) != 0 || own_serves(r) != 0)
        return false;
    boots_with(r, true); /* where it does not go that is said, and Posthouse runs all the same */
    fputs("posthouse: that does not go: Posthouse stays in Postfix's place\n", stderr);
    say_waits(r);
    return true;
}

/* was: the state before.  Where a road was begun then, power may have failed, and Posthouse been in
 * place since: its mail can be of relay records, which Postfix does not know, as can mail that
 * waited in its queue before a first --apply. */
static int apply_goes_back(struct replace *r, enum replace_state was) {
    bool again = was == REPLACE_APPLIED;
    if (again && own_goes_on(r))
        return 1;
    if ((was != REPLACE_NONE || r->had_mail) && !cli_records_may_stay(r->cfg, "--undo"))
        return !again && own_goes_on(r) ? 1 : road_is_lost(r, "--apply");
    fputs("posthouse: that does not go: back to Postfix\n", stderr);
    if (road_back(r) != 0)
        return road_is_lost(r, "--undo");
    if (r->stays)
        say_stays(r);
    else
        fputs("posthouse: Postfix is in its place again, with its mail\n", stderr);
    return 1;
}

/* The note says that Posthouse was in its place until it is not any more. */
static int replace_apply(struct replace *r) {
    enum replace_state was = r->state;
    bool fresh = was == REPLACE_NONE, again = was == REPLACE_APPLIED;
    if (apply_is_done(r)) {
        replace_step("Posthouse is in Postfix's place already");
        cli_transfer_sweep(r->dir, r->front->dir); /* what a run that was killed has left */
        return 0;
    }
    int rc = replace_may(r);
    if (rc != 0)
        return rc;
    if (fresh && cli_transfer_fits(r->dir, r->front->dir, &r->had_mail) != EX_OK_)
        return replace_fatal(r->cfg->p.queue_directory, "nothing was changed");
    rc = again ? 0 : note_write(r, REPLACE_APPLYING);
    if (rc != 0)
        return rc;
    rc = place_make(r);
    if (rc < 0)
        replace_fatal(OWN_PLACE, strerror(-rc));
    if (rc < 0 && again)
        return 1;
    if (rc < 0 || front_stop(r) != 0)
        return replace_stay(r, fresh);
    if (road_forward(r) == 0) {
        say_left(r);
        say_read(r);
        puts("posthouse: back: posthouse setup replace-postfix --undo");
        return 0;
    }
    return apply_goes_back(r, was);
}

static int replace_undo(struct replace *r) {
    if (r->state == REPLACE_NONE)
        return replace_fatal(r->note_path, "nothing was applied that could be undone");
    if (front_is_ours(r->front))
        return replace_fatal("postfix", "it is Posthouse's (the package posthouse-mta): no Postfix "
                                        "is here to go back to, and what its queue is given "
                                        "nothing would send; install Postfix first; nothing was "
                                        "changed");
    if (front_state(r->front) == FRONT_UNKNOWN)
        return front_unknown(r);
    if (r->state != REPLACE_UNDOING && !front_is_well(r))
        return replace_fatal(r->front->dir, "Postfix would not start: correct its errors first; "
                                            "nothing was changed");
    /* Whatever is noted: power may have failed long ago, and Posthouse been in place since. */
    if (!r->without_records && !cli_records_may_stay(r->cfg, "--undo"))
        return replace_fatal(r->dir, "nothing was changed");
    int rc = note_write(r, REPLACE_UNDOING);
    if (rc != 0)
        return rc;
    rc = road_back(r);
    if (r->state != REPLACE_NONE) {
        fputs("posthouse: that does not go: Posthouse stays in Postfix's place\n", stderr);
        if (front_stop(r) != 0 || road_forward(r) != 0)
            return road_is_lost(r, "--apply");
        return 1;
    }
    if (r->stays) {
        say_stays(r);
        return 1;
    }
    replace_step(r->ran ? "Postfix is in its place again, with the mail that waited"
                        : "Postfix is in its place again, with the mail that waited; it did not "
                          "run before the move and does not now: nothing sends that mail, and no "
                          "mail is taken, until it is started (systemctl start postfix)");
    return rc; /* Postfix runs, even where its note could not be removed */
}

/* A terminal that goes away ends no move. */
static void replace_hold_out(void) {
    static const int stays[] = {SIGHUP, SIGINT, SIGPIPE, SIGTERM};
    for (size_t i = 0; i < sizeof stays / sizeof stays[0]; i++)
        signal(stays[i], SIG_IGN);
}

/* Two at once would take each other's steps for failures.  0, or 1 after saying why not. */
static int replace_lock(struct replace *r, const char *main_path) {
    r->lock_fd = cli_lock_folder(main_path);
    if (r->lock_fd >= 0)
        return 0;
    return replace_fatal(r->front->dir, r->lock_fd == -EBUSY
                                            ? "another posthouse setup replace-postfix has not "
                                              "ended yet"
                                            : strerror(errno));
}

static int replace_open(struct replace *r, const char *dir, const char *postfix,
                        enum replace_what what) {
    struct sbuf note = {0}, main = {0};
    char *full = realpath(postfix, NULL);
    sbuf_printf(&main, "%s/main.cf", full == NULL ? postfix : full);
    int rc = full == NULL || access(main.p, R_OK) < 0 ? replace_fatal(main.p, strerror(errno)) : 0;
    if (rc == 0) {
        r->front = config_build(cfg_source_new(full));
        r->dir = realpath(dir, NULL);
        rc = r->dir == NULL ? replace_fatal(dir, strerror(errno)) : 0;
    }
    if (rc == 0 && what != REPLACE_SAY)
        rc = replace_lock(r, main.p);
    if (rc == 0) {
        r->cfg = cli_config("posthouse", r->dir);
        rc = r->cfg == NULL ? 2 : 0; /* the errors were said */
    }
    if (rc == 0) {
        sbuf_printf(&note, "%s/replace-postfix.undo", r->dir);
        r->note_path = sbuf_take(&note);
        r->program = own_program();
        replace_look(r);
        rc = note_read(r);
    }
    sbuf_free(&main);
    free(full);
    return rc;
}

int replace_postfix(const char *dir, const char *postfix, enum replace_what what,
                    bool without_records) {
    struct replace r = {.lock_fd = -1, .without_records = without_records};
    int rc = what != REPLACE_SAY && geteuid() != 0
                 ? replace_fatal("replace-postfix", "only root can do this")
                 : 0;
    if (rc == 0)
        rc = replace_open(&r, dir, postfix, what);
    if (rc == 0 && what != REPLACE_SAY)
        replace_hold_out();
    if (rc == 0)
        rc = what == REPLACE_SAY     ? replace_say(&r)
             : what == REPLACE_APPLY ? replace_apply(&r)
                                     : replace_undo(&r);
    if (r.lock_fd >= 0)
        close(r.lock_fd);
    config_unref(r.cfg);
    config_unref(r.front);
    free(r.dir);
    free(r.note_path);
    free(r.program);
    free(r.sendmail);
    return rc;
}
