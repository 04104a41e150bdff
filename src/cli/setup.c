/*
 * cli/setup.c - posthouse setup beside-postfix: a place for Posthouse on a machine that has a
 * Postfix
 *
 * One thread.  beside-postfix writes Posthouse's own configuration from Postfix's and says which
 * line Postfix needs; with --apply it sets that line, has Postfix take it up and looks whether it
 * has; with --undo it puts back what was there.  A file that is there is never written over.  What
 * was changed in Postfix's directory is noted in beside-postfix.undo before it is changed: what the
 * line was, which directory it stands in, and what it became.  Killed between two steps, --apply
 * goes on from there or asks for --undo.  replace-postfix is in replace.c.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/beside.h"
#include "cli/cli.h"
#include "cli/config_edit.h"
#include "cli/front.h"
#include "cli/replace.h"
#include "util/fs.h"

#define NAME      "default_transport"
#define FILE_MAX  (8U << 20)
#define GREETS_MS 5000

struct setup {
    const char *dir;    /* Posthouse's configuration directory */
    const char *front;  /* Postfix's */
    uint16_t port;      /* where Postfix finds Posthouse */
    struct config *cfg; /* Postfix's configuration */
    struct sbuf hop;    /* the value that NAME needs there */
    bool own_transport; /* hop names a transport that master.cf there needs */
};

static int setup_fatal(const char *what, const char *why) {
    fprintf(stderr, "posthouse: fatal: %s: %s\n", what, why);
    return 1;
}

/* -- files -- */

static char *setup_path(const char *dir, const char *name) {
    struct sbuf path = {0};
    sbuf_printf(&path, "%s/%s", dir, name);
    return sbuf_take(&path);
}

/* As fs_write_whole; 0, or 1 after saying why. */
static int setup_write(const char *path, struct str text, mode_t mode, const struct stat *was) {
    int rc = fs_write_whole(path, text, mode, was);
    return rc < 0 ? setup_fatal(path, strerror(-rc)) : 0;
}

/* master.cf, unless a setup that was killed behind it has written the same. */
static int setup_master(const char *path, struct str text) {
    struct sbuf there = {0};
    bool same = fs_read(path, &there, FILE_MAX) == 0 && str_eq(sbuf_str(&there), text);
    sbuf_free(&there);
    return same ? 0 : setup_write(path, text, 0644, NULL);
}

/* Who may read Postfix's main.cf may read ours: there can be a password in both. */
static mode_t setup_mode(const struct setup *s) {
    char *path = setup_path(s->front, "main.cf");
    struct stat st = {0};
    mode_t mode = stat(path, &st) < 0 ? 0600 : (st.st_mode & 0644) | 0600;
    free(path);
    return mode;
}

/* Posthouse's main.cf and master.cf, unless they are there. */
static int setup_files(const struct setup *s) {
    struct sbuf main = {0}, master = {0};
    char *main_path = setup_path(s->dir, "main.cf"), *master_path = setup_path(s->dir, "master.cf");
    int rc = 0;
    if (access(main_path, F_OK) == 0) {
        printf("posthouse: %s is there already, and stays as it is\n", main_path);
    } else {
        beside_main(&main, s->cfg, s->port);
        beside_master(&master, s->port);
        rc = fs_mkdir(s->dir, 0755) < 0 && errno != EEXIST ? setup_fatal(s->dir, strerror(errno))
                                                           : 0;
        if (rc == 0)
            rc = setup_master(master_path, sbuf_str(&master));
        if (rc == 0)
            rc = setup_write(main_path, sbuf_str(&main), setup_mode(s), NULL);
        if (rc == 0)
            printf("posthouse: wrote %s and %s\n", main_path, master_path);
    }
    free(main_path);
    free(master_path);
    sbuf_free(&main);
    sbuf_free(&master);
    return rc;
}

/* -- Postfix -- */

/* Sets or takes out NAME (value NULL) in Postfix's main.cf. */
static int front_set(const struct setup *s, const char *value) {
    struct sbuf word = {0};
    sbuf_printf(&word, NAME "%s%s", value == NULL ? "" : "=", value == NULL ? "" : value);
    int rc = config_edit(s->front, value == NULL ? 'X' : 'e', 1, &word.p);
    sbuf_free(&word);
    return rc;
}

/* Is it the line of a transport that has our name? */
static bool transport_is_named(struct str line) {
    size_t n = sizeof BESIDE_NAME - 1;
    return line.n > n && memcmp(line.p, BESIDE_NAME, n) == 0 &&
           (line.p[n] == ' ' || line.p[n] == '\t');
}

/* All lines of text but those of Posthouse's transport, with what was put below it, and its line at
 * the end where it is wanted.  False: a transport of that name is another's. */
static bool transport_lines(struct sbuf *out, struct str text, bool wanted) {
    bool ours = false, free_name = true;
    while (text.n > 0) {
        const char *lf = memchr(text.p, '\n', text.n);
        struct str line = str_make(text.p, lf == NULL ? text.n : (size_t)(lf - text.p) + 1);
        text = str_from(text, line.n);
        bool begins = strchr(" \t\n#", line.p[0]) == NULL;
        if (begins || line.p[0] == '#')
            ours = str_istarts(line, BESIDE_OURS);
        if (transport_is_named(line) && !ours)
            free_name = false;
        if (!ours)
            sbuf_add_str(out, line);
    }
    if (wanted && out->n > 0 && out->p[out->n - 1] != '\n')
        sbuf_add_c(out, "\n");
    if (wanted)
        beside_transport(out);
    return free_name || !wanted;
}

/* Puts the line of Posthouse's transport into Postfix's master.cf, or takes it out. */
static int front_transport(const struct setup *s, bool wanted) {
    char *name = setup_path(s->front, "master.cf"), *path = realpath(name, NULL);
    struct sbuf text = {0}, out = {0};
    struct stat st = {0};
    int rc = path == NULL || stat(path, &st) < 0 ? -errno : fs_read(path, &text, FILE_MAX);
    if (rc < 0)
        rc = setup_fatal(name, strerror(-rc));
    else if (!transport_lines(&out, sbuf_str(&text), wanted))
        rc = setup_fatal(name, "it has another transport by the name of " BESIDE_NAME);
    else if (!str_eq(sbuf_str(&out), sbuf_str(&text)))
        rc = setup_write(path, sbuf_str(&out), 0600, &st);
    free(name);
    free(path);
    sbuf_free(&text);
    sbuf_free(&out);
    return rc;
}

/* A Postfix that runs takes up what was changed; one that does not, when it starts. */
static int front_take_up(const struct setup *s) {
    enum front_state state = front_state(s->cfg);
    if (state == FRONT_UNKNOWN)
        return setup_fatal(s->front, FRONT_UNKNOWN_SAYS);
    if (state == FRONT_RESTS) {
        puts("posthouse: Postfix is not running: it begins with the new setting");
        return 0;
    }
    return front_postfix(s->cfg, "reload", FRONT_RELOAD_MS) == 0
               ? 0
               : setup_fatal(s->front, "Postfix does not take up its configuration");
}

/* What is needed there, for an administrator who does it by hand. */
static void setup_say(const struct setup *s) {
    struct sbuf notes = {0}, line = {0};
    beside_notes(&notes, s->cfg, s->own_transport);
    beside_transport(&line);
    printf("\nPostfix needs this line in %s/main.cf:\n\n    " NAME " = %s\n\n", s->front, s->hop.p);
    if (s->own_transport)
        printf("and, because its own client is told what is meant for other hosts, this one in "
               "%s/master.cf:\n\n    %s\n",
               s->front, line.p);
    printf("then: postfix -c %s reload.  Or: posthouse setup beside-postfix --postfix %s --port %u "
           "--apply\n",
           s->front, s->front, s->port);
    fputs(notes.n == 0 ? "" : notes.p, stdout);
    sbuf_free(&notes);
    sbuf_free(&line);
}

/* -- the change, and the way back -- */

/* Is Posthouse there for Postfix?  Otherwise all mail would wait in Postfix's queue. */
static bool setup_is_served(const struct setup *s) {
    struct netaddr addr;
    netaddr_parse(&addr, STR_LIT("127.0.0.1"), s->port);
    return front_greets(&addr, GREETS_MS);
}

/* Notes what NAME was, "=value" or nothing, Postfix's directory, and what NAME becomes, a line
 * each. */
static int setup_note_undo(const struct setup *s) {
    const struct cfg_entry *was = cfg_file_find(&s->cfg->main, STR_LIT(NAME));
    char *path = setup_path(s->dir, "beside-postfix.undo");
    struct sbuf note = {0};
    sbuf_printf(&note, "%s%s\n%s\n%s\n", was == NULL ? "" : "=", was == NULL ? "" : was->value,
                s->front, s->hop.p);
    int rc = access(path, F_OK) == 0
                 ? setup_fatal(path, "an earlier --apply is noted there: --undo comes first")
                 : setup_write(path, sbuf_str(&note), 0644, NULL);
    free(path);
    sbuf_free(&note);
    return rc;
}

/* A line that was changed since --apply is the administrator's, and stays, with what it needs. */
static int setup_put_back(const struct setup *s, struct str was, struct str became) {
    struct config *cfg = config_build(cfg_source_new(s->front));
    const struct cfg_entry *entry = cfg_file_find(&cfg->main, STR_LIT(NAME));
    struct str now = str_of(entry == NULL ? "" : entry->value);
    char *value = was.n == 0 ? NULL : str_dup(str_from(was, 1));
    int rc = 0;
    if (str_eq(now, became))
        rc = front_set(s, value);
    else
        printf("posthouse: " NAME " is not what --apply made of it, and stays as it is: %s\n",
               entry == NULL ? "not set" : entry->value);
    if (rc == 0 && (str_eq(now, became) || !str_istarts(now, BESIDE_NAME ":")))
        rc = front_transport(s, false);
    free(value);
    config_unref(cfg);
    return rc;
}

static int setup_undo_noted(const struct setup *s, struct str note) {
    struct str was = STR_NONE, front = STR_NONE, became = STR_NONE;
    const char *lf = memchr(note.p, '\n', note.n);
    if (lf != NULL) {
        was = str_trim(str_make(note.p, (size_t)(lf - note.p)));
        note = str_from(note, (size_t)(lf - note.p) + 1);
    }
    str_split(&note, "\n", &front);
    str_split(&note, "\n", &became);
    if (str_eq_c(front, s->front))
        return setup_put_back(s, was, became);
    fprintf(stderr,
            "posthouse: fatal: what was applied is Postfix's in %.*s, and not in %s: --postfix "
            "says which\n",
            (int)front.n, front.p, s->front);
    return 1;
}

/* Where Posthouse has no main.cf any more, it has no records. */
static bool setup_may_undo(const struct setup *s) {
    struct config *cfg = cli_config_with_mistakes("posthouse", s->dir);
    bool may = cfg == NULL || cli_records_may_stay(cfg, "--undo");
    config_unref(cfg);
    return may;
}

static int setup_undo(const struct setup *s, bool without_records) {
    char *path = setup_path(s->dir, "beside-postfix.undo");
    struct sbuf note = {0};
    int rc = fs_read(path, &note, FILE_MAX);
    if (rc < 0)
        rc = setup_fatal(path, rc == -ENOENT ? "nothing was applied that could be undone"
                                             : strerror(-rc));
    if (rc == 0 && !without_records && !setup_may_undo(s))
        rc = setup_fatal(s->dir, "nothing was changed");
    if (rc == 0)
        rc = setup_undo_noted(s, sbuf_str(&note));
    if (rc == 0 && !front_is_ours(s->cfg)) /* the package posthouse-mta has come since */
        rc = front_take_up(s);
    if (rc == 0 && unlink(path) < 0)
        rc = setup_fatal(path, strerror(errno));
    if (rc == 0 && front_is_ours(s->cfg))
        printf("posthouse: %s is as it was; no Postfix is here that reads it\n", s->front);
    else if (rc == 0)
        puts("posthouse: Postfix sends its mail itself again; what Posthouse has taken it still "
             "sends (posthouse queue list)");
    free(path);
    sbuf_free(&note);
    return rc;
}

static bool setup_is_applied(const struct setup *s) {
    char *now = config_value(s->cfg, NAME, NULL);
    bool is = now != NULL && strcmp(now, s->hop.p) == 0;
    free(now);
    return is;
}

static int setup_take_up(const struct setup *s) {
    int rc = s->own_transport ? front_transport(s, true) : 0;
    return rc == 0 ? front_take_up(s) : rc;
}

static int setup_change(const struct setup *s) {
    int rc = s->own_transport ? front_transport(s, true) : 0;
    if (rc == 0)
        rc = front_set(s, s->hop.p);
    return rc == 0 ? front_take_up(s) : rc;
}

static int setup_apply(const struct setup *s) {
    char *check[] = {(char *)(uintptr_t) "check", NULL};
    if (setup_is_applied(s)) { /* but by what was killed before Postfix took it up, perhaps */
        printf("posthouse: Postfix has " NAME " = %s already\n", s->hop.p);
        return setup_take_up(s);
    }
    if (cli_check(s->dir, 1, check) > 1)
        return setup_fatal(s->dir, "correct the errors first; Postfix was not changed");
    if (!setup_is_served(s)) {
        fprintf(stderr,
                "posthouse: fatal: no Posthouse greets at 127.0.0.1:%u: start it first (systemctl "
                "start posthouse); Postfix was not changed\n",
                s->port);
        return 1;
    }
    if (setup_note_undo(s) != 0)
        return 1;
    if (setup_change(s) != 0) {
        setup_undo(s, true);
        return 1;
    }
    struct sbuf notes = {0};
    beside_notes(&notes, s->cfg, s->own_transport);
    printf("posthouse: Postfix gives what leaves this machine to Posthouse at 127.0.0.1:%u; back: "
           "posthouse setup beside-postfix --undo\n%s",
           s->port, notes.n == 0 ? "" : notes.p);
    sbuf_free(&notes);
    return 0;
}

/* -- the command -- */

static int setup_usage(void) {
    fputs(
        "usage: posthouse setup beside-postfix [--postfix DIR] [--port PORT] [--apply|--undo "
        "[--without-records]]\n"
        "       posthouse [-c DIR] setup replace-postfix [--postfix DIR] [--apply|--undo "
        "[--without-records]]\n"
        "beside-postfix writes a configuration for a Posthouse that relays for the Postfix of DIR "
        "(" PH_POSTFIX_DIR
        "), and says\nwhich line that Postfix needs.  --apply sets it, --undo puts "
        "back what was there.\n"
        "replace-postfix says what the move into that Postfix's place would change; --apply does "
        "it: the queue moves, and\nPosthouse starts with Postfix's main.cf, or that of -c DIR.  "
        "--undo goes back, with the mail that waits then.\n"
        "Where there are relay records, which Postfix does not know, --undo says so and "
        "changes "
        "nothing, but for --without-records.\n",
        stderr);
    return EX_USAGE_;
}

/* Reads Postfix's configuration; 0, or 1 after saying why not. */
static int setup_front(struct setup *s, char **full) {
    char *ours = realpath(s->dir, NULL), *main = setup_path(s->front, "main.cf");
    int rc = access(main, R_OK) < 0 ? setup_fatal(main, strerror(errno)) : 0;
    *full = rc == 0 ? realpath(s->front, NULL) : NULL;
    if (rc == 0 && *full == NULL)
        rc = setup_fatal(s->front, strerror(errno));
    else if (rc == 0 && ours != NULL && strcmp(ours, *full) == 0)
        rc = setup_fatal(ours, "is Posthouse's configuration, too: it is in Postfix's place, and "
                               "not beside it");
    if (rc == 0) {
        s->front = *full;
        s->cfg = config_build(cfg_source_new(*full));
        s->own_transport = beside_hop(&s->hop, s->cfg, s->port);
    }
    free(ours);
    free(main);
    return rc;
}

struct setup_words {
    const char *front; /* NULL: not said */
    const char *port;  /* NULL: not said */
    bool apply, undo, without_records;
};

static int setup_beside(struct setup *s, const struct setup_words *w) {
    char *full = NULL;
    int rc = setup_front(s, &full);
    if (rc == 0 && w->undo)
        rc = setup_undo(s, w->without_records);
    else if (rc == 0)
        rc = setup_files(s);
    if (rc == 0 && w->apply)
        rc = setup_apply(s);
    else if (rc == 0 && !w->undo)
        setup_say(s);
    config_unref(s->cfg);
    sbuf_free(&s->hop);
    free(full);
    return rc;
}

static bool setup_options(int argc, char **argv, struct setup_words *w) {
    static const struct option options[] = {
        {"postfix", required_argument, NULL, 'p'},   {"port", required_argument, NULL, 'n'},
        {"apply", no_argument, NULL, 'a'},           {"undo", no_argument, NULL, 'u'},
        {"without-records", no_argument, NULL, 'w'}, {0}};
    int opt;
    optind = 1;
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (opt == 'p')
            w->front = optarg;
        else if (opt == 'n')
            w->port = optarg;
        else if (opt == 'a')
            w->apply = true;
        else if (opt == 'u')
            w->undo = true;
        else if (opt == 'w')
            w->without_records = true;
        else
            return false;
    }
    return optind + 1 == argc && !(w->apply && w->undo) && (w->undo || !w->without_records);
}

/* Without a directory of its own Posthouse has Postfix's. */
static int setup_replace(const char *dir, const struct setup_words *w) {
    const char *env = getenv("MAIL_CONFIG"), *front = w->front == NULL ? PH_POSTFIX_DIR : w->front;
    if (w->port != NULL)
        return setup_usage();
    return replace_postfix(dir != NULL   ? dir
                           : env != NULL ? env
                                         : front,
                           front,
                           w->apply  ? REPLACE_APPLY
                           : w->undo ? REPLACE_UNDO
                                     : REPLACE_SAY,
                           w->without_records);
}

static bool setup_is_postfixs(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "beside-postfix") == 0 || strcmp(argv[i], "replace-postfix") == 0)
            return true;
    return false;
}

int cli_setup(const char *dir, int argc, char **argv) {
    struct setup_words w = {0};
    struct setup s = {.dir = cli_dir(dir), .front = PH_POSTFIX_DIR};
    uint64_t port = 10587;
    umask(022); /* users' programs read what is written */
    if (!setup_is_postfixs(argc, argv))
        return cli_first(dir, argc, argv);
    if (!setup_options(argc, argv, &w))
        return setup_usage();
    if (strcmp(argv[optind], "replace-postfix") == 0)
        return setup_replace(dir, &w);
    if (strcmp(argv[optind], "beside-postfix") != 0)
        return setup_usage();
    if (w.port != NULL && !str_u64(str_of(w.port), &port))
        port = 0;
    if (port == 0 || port > UINT16_MAX)
        return setup_fatal("--port", "a number from 1 to 65535 is wanted");
    if (w.front != NULL)
        s.front = w.front;
    s.port = (uint16_t)port;
    return setup_beside(&s, &w);
}
