/*
 * daemon/main.c - posthoused: the supervisor
 *
 * Reads the configuration, binds the sockets, starts the relay and the lookup process and starts
 * them again when they end.  Single-threaded; takes signals: HUP reloads, USR1 opens the log again,
 * TERM and INT stop; and requests for a reload (reload.h).  The spool's folder is mail_owner's, so
 * what is opened in it here is never followed to anywhere else, nor believed.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/begin.h"
#include "daemon/certrows.h"
#include "daemon/confine.h"
#include "daemon/foreign.h"
#include "daemon/handover.h"
#include "daemon/listen.h"
#include "daemon/queue_dir.h"
#include "daemon/reexec.h"
#include "daemon/reload.h"
#include "daemon/renew.h"
#include "daemon/restart.h"
#include "daemon/status.h"
#include "daemon/unread_say.h"
#include "util/clock.h"
#include "util/fs.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/notify.h"
#include "util/os.h"

/* A child that ends at once is not started again at once; one that cannot start, less and less
 * often up to this. */
#define RESTART_MS     500
#define RESTART_MAX_MS 60000
/* What keeps clients out although both children are ready, a full disk or a program that took a
 * port meanwhile, passes: that is seen after so long. */
#define SERVE_AGAIN_MS 10000
/* A child that has not taken a message after so long is killed: it hangs.  The time is for all
 * messages of one turn, to both children; a healthy one has SEND_LEAST_MS in any case. */
#define SEND_MS       20000
#define SEND_LEAST_MS 2000
/* What hangs at a stop is killed after so long; the lookup process, which has nothing to finish
 * once the relay has gone, sooner. */
#define STOP_KILL_MS   15000
#define STOP_LOOKUP_MS 5000
/* … and is not waited for after this: the kernel holds it, for instance in a disk that hangs. */
#define STOP_LEAVE_MS 5000
#define STOP_LOOK_US  20000
/* A start that reads a large queue takes as long as it takes: systemd is told so in time. */
#define START_TELL_MS 20000
#define START_TELL    "EXTEND_TIMEOUT_USEC=90000000\nSTATUS=starting: the queue is read"
#define RETIRED_MAX   16U

struct child {
    const char *name;
    pid_t pid;      /* 0: it does not run */
    uid_t uid;      /* of the user that it becomes; 0: it stays the supervisor's */
    int chan;       /* -1: none */
    bool ready;     /* it has said so */
    bool silent;    /* nothing more is to be read from it */
    bool lost;      /* it did not take a message, and was killed */
    unsigned fails; /* how often it ended before it was ready, since it was last */
    int64_t started_ms;
    int64_t again_ms; /* not started again before */
};

/* A lookup process that was told to go because another one has taken over. */
struct retired {
    pid_t pid;        /* 0: none */
    uid_t uid;        /* of its user */
    int64_t until_ms; /* then it is killed */
};

static struct {
    const char *dir;
    bool foreground;
    struct config *cfg;
    struct config *begun; /* what it was started with */
    struct listen_set set;
    int reload;             /* reload.sock; -1: not yet */
    int restart;            /* restart.sock; the same */
    bool reload_due;        /* SIGHUP asked for one */
    int64_t send_until_ms;  /* messages of this turn are waited for so long */
    bool started;           /* both children have been ready once: the start is over */
    bool serving;           /* the relay has the listening sockets */
    int64_t serve_again_ms; /* clients could not be let in: not tried again before */
    bool refused;           /* the files have another configuration, which was not taken */
    bool bears;             /* what was loaded last has mistakes that mail or clients wait for */
    char *last_failure;     /* why a child could not start, as it said last; NULL: nothing */
    size_t loops;
    struct child relay, lookup;
    struct retired retired[RETIRED_MAX];
    sigset_t mask;
} sup;

size_t daemon_loops(const struct config *cfg) {
    long n = cfg->p.relay_threads > 0 ? (long)cfg->p.relay_threads : sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > LOOPS_MAX ? LOOPS_MAX : (size_t)n;
}

static void sup_usage(FILE *to) {
    fputs("usage: posthoused [-c DIR] [-f] [-t] [-v] [-V]\n"
          "  -c DIR  configuration directory (default " PH_CONFIG_DIR ")\n"
          "  -f      stay in the foreground\n"
          "  -t      look for what would stop a start, and exit\n"
          "  -v      say at start what the configuration leaves unused\n"
          "  -V      print the version and exit\n",
          to);
}

/* A remark as a line of the log, at start and reload: nothing reads standard error then. */
static void sup_log(void (*line)(const char *tag, const char *fmt, ...), const struct diag *d) {
    if (d->file != NULL && d->line > 0)
        line("master", "%s, line %d: %s", d->file, d->line, d->text);
    else if (d->file != NULL)
        line("master", "%s: %s", d->file, d->text);
    else
        line("master", "%s", d->text);
}

/* Remarks at start and reload: errors and warnings to standard error; false if there are errors. */
static bool sup_report(const struct config *cfg, const struct diags *more, bool verbose) {
    const struct diags *lists[] = {&cfg->diags, more};
    bool ok = true;
    for (size_t l = 0; l < 2; l++)
        for (size_t i = 0; i < lists[l]->n; i++) {
            const struct diag *d = &lists[l]->v[i];
            ok = ok && d->level != DIAG_ERROR;
            if (d->level == DIAG_ERROR && sup.cfg != NULL) /* a reason to refuse a reload */
                sup_log(log_error, d);
            if (d->level == DIAG_NOTE && !verbose)
                continue;
            const char *kind = d->level == DIAG_ERROR  ? "fatal"
                               : d->level == DIAG_WARN ? "warning"
                                                       : "note";
            if (d->file != NULL && d->line > 0)
                fprintf(stderr, "posthoused: %s: %s, line %d: %s\n", kind, d->file, d->line,
                        d->text);
            else if (d->file != NULL)
                fprintf(stderr, "posthoused: %s: %s: %s\n", kind, d->file, d->text);
            else
                fprintf(stderr, "posthoused: %s: %s\n", kind, d->text);
        }
    return ok;
}

/* Errors of the users that the daemon is to become.  mail_owner is the one of the start. */
static void check_users(const struct config *cfg, struct diags *d) {
    if (geteuid() != 0)
        return;
    if (sup.cfg == NULL && getpwnam(cfg->p.mail_owner) == NULL)
        diag_add(d, DIAG_ERROR, NULL, 0, "mail_owner = %s: no such user", cfg->p.mail_owner);
    if (getpwnam(cfg->p.lookup_owner) == NULL)
        diag_add(d, DIAG_ERROR, NULL, 0, "lookup_owner = %s: no such user", cfg->p.lookup_owner);
}

/* Mistakes that mail or a client waits for stop no start, which goes on where Postfix does.  A
 * reload has something better to go on with, unless what is in use has the same mistakes. */
static bool sup_bears(const struct diags *mistakes) {
    struct diags before = {0};
    if (sup.cfg == NULL)
        return true;
    daemon_check(sup.cfg, DIAG_ERROR, &before);
    size_t i = 0;
    while (i < mistakes->n &&
           (mistakes->v[i].level != DIAG_ERROR || diag_has_error(&before, &mistakes->v[i])))
        i++;
    diag_free(&before);
    return i == mistakes->n;
}

/* Certificates are read for it, so it is done once where nothing is wrong. */
static void sup_check(const struct config *cfg, struct diags *d) {
    daemon_check(cfg, DIAG_ERROR, d);
    sup.bears = d->errors > 0 && sup_bears(d);
    if (!sup.bears)
        return;
    diag_free(d);
    daemon_check(cfg, DIAG_WARN, d);
}

static struct config *sup_load(bool verbose) {
    struct config *cfg = config_build(cfg_source_new(sup.dir));
    struct diags more = {0};
    config_preload(cfg);
    certrows_read(cfg);
    sup_check(cfg, &more);
    if (sup.cfg != NULL)
        restart_check(sup.cfg, cfg, &more);
    check_users(cfg, &more);
    unread_say_refused(cfg, DIAG_WARN, &more);
    daemon_check_stores(cfg, &more);
    foreign_check(cfg, &more);
    bool ok = sup_report(cfg, &more, verbose);
    diag_free(&more);
    if (ok)
        return cfg;
    config_unref(cfg);
    return NULL;
}

static void sup_start_log(const struct config *cfg) {
    int rc = config_open_log(cfg);
    if (rc < 0) {
        fprintf(stderr, "posthoused: fatal: maillog_file %s: %s\n", cfg->p.maillog_file,
                strerror(-rc));
        exit(1);
    }
}

static void raise_limits(void) {
    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = rl.rlim_max;
        setrlimit(RLIMIT_NOFILE, &rl);
    }
}

static bool pair(int fds[2]) {
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0)
        return true;
    log_error("master", "socketpair: %s", strerror(errno));
    return false;
}

/* In a child: the supervisor's things are not its. */
static void child_begin(void) {
    sigset_t none;
    os_end_with_parent();
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
}

/* No message of a child that hangs is waited for longer than that. */
static void chan_bound(int fd) {
    struct timeval tv = {.tv_sec = SEND_MS / 1000};
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv) < 0)
        log_warn("master", "setsockopt: %s", strerror(errno));
}

/* Root without CAP_KILL reaches a process of another user only as that user. */
static void process_kill(pid_t pid, uid_t uid) {
    if (kill(pid, SIGKILL) == 0 || errno != EPERM || seteuid(uid) < 0)
        return;
    kill(pid, SIGKILL);
    if (seteuid(0) < 0)
        log_error("master", "cannot be root again: %s", strerror(errno));
}

/* What a child was to be told did not go out, or not whole: it is of no more use, and is started
 * again when it has ended. */
static void child_send(struct child *c, struct str msg, const int *fds, size_t n) {
    int64_t until_ms = clock_mono_ms() + SEND_LEAST_MS;
    if (until_ms < sup.send_until_ms)
        until_ms = sup.send_until_ms;
    int rc = c->pid <= 0 || c->lost ? 0 : ipc_send_until(c->chan, msg, fds, n, until_ms);
    if (rc == 0)
        return;
    c->lost = true;
    log_warn("master", "cannot reach the %s process: %s; it is killed", c->name, strerror(-rc));
    process_kill(c->pid, c->uid);
}

/* In a child: the supervisor's end of a channel is not its. */
static void child_forget(struct child *c) {
    if (c->chan >= 0)
        close(c->chan);
    c->chan = -1;
}

/* Of the user that a child becomes; 0: it becomes none. */
static uid_t user_id(const char *name) {
    const struct passwd *pw = geteuid() == 0 ? getpwnam(name) : NULL;
    return pw == NULL ? 0 : pw->pw_uid;
}

/* False: the system has no room for it now. */
static bool spawn(struct child *c, const int *lookups) {
    int chan[2];
    if (!pair(chan))
        return false;
    pid_t pid = fork();
    if (pid == 0) {
        child_begin();
        close(chan[0]);
        close(sup.reload);
        close(sup.restart);
        listen_forget(&sup.set);
        handover_forget();
        child_forget(&sup.relay);
        child_forget(&sup.lookup);
        if (c == &sup.relay)
            relay_main(sup.cfg, sup.loops, chan[1], lookups);
        lookup_main(sup.cfg, sup.loops, chan[1], lookups);
    }
    close(chan[1]);
    if (pid < 0) {
        log_error("master", "cannot start the %s process: %s", c->name, strerror(errno));
        close(chan[0]);
        return false;
    }
    if (c->chan >= 0)
        close(c->chan);
    c->chan = chan[0];
    chan_bound(c->chan);
    c->pid = pid;
    c->uid = user_id(c == &sup.relay ? sup.cfg->p.mail_owner : sup.cfg->p.lookup_owner);
    c->ready = c->silent = c->lost = false;
    c->started_ms = clock_mono_ms();
    return true;
}

static void send_fds(struct child *to, const int *fds) {
    struct sbuf b = {0};
    ipc_end(&b, ipc_begin(&b, SUP_LOOKUP, 0));
    child_send(to, sbuf_str(&b), fds, sup.loops + 1);
    sbuf_free(&b);
}

/* Starts what is not running, and then gives the other side new channels. */
static bool start_with(const int *relay_ends, const int *lookup_ends) {
    bool relay_new = sup.relay.pid == 0, lookup_new = sup.lookup.pid == 0;
    if (lookup_new && !spawn(&sup.lookup, lookup_ends))
        return false;
    if (relay_new && !spawn(&sup.relay, relay_ends))
        return false;
    if (!lookup_new)
        send_fds(&sup.lookup, lookup_ends);
    if (!relay_new)
        send_fds(&sup.relay, relay_ends);
    return true;
}

/* False: something could not be started, and is to be tried again. */
static bool start_both(void) {
    int a[LOOPS_MAX + 1], b[LOOPS_MAX + 1];
    size_t n = 0;
    for (int fds[2]; n <= sup.loops && pair(fds); n++) {
        a[n] = fds[0];
        b[n] = fds[1];
    }
    bool started = n > sup.loops && start_with(a, b);
    for (size_t i = 0; i < n; i++) {
        close(a[i]);
        close(b[i]);
    }
    return started;
}

/* Milliseconds until a child that does not run is started again; 0: now, or it runs. */
static int64_t child_waits_ms(const struct child *c, int64_t now_ms) {
    return c->pid != 0 || c->again_ms <= now_ms ? 0 : c->again_ms - now_ms;
}

/* Milliseconds until it is to be called again; -1: both run. */
static int start_children(void) {
    int64_t now_ms = clock_mono_ms(), relay_ms = child_waits_ms(&sup.relay, now_ms),
            lookup_ms = child_waits_ms(&sup.lookup, now_ms);
    if (sup.relay.pid != 0 && sup.lookup.pid != 0)
        return -1;
    if (relay_ms > 0 || lookup_ms > 0)
        return (int)(relay_ms > lookup_ms ? relay_ms : lookup_ms);
    return start_both() ? -1 : RESTART_MS;
}

/* A child's end that was not ordered, or not in order. */
static void log_death(const struct child *c, pid_t pid, int status) {
    if (WIFSIGNALED(status))
        log_warn("master", "process %s pid %d killed by signal %d", c->name, pid, WTERMSIG(status));
    else
        log_warn("master", "process %s pid %d exit status %d", c->name, pid, WEXITSTATUS(status));
}

static void retired_kill(struct retired *r) {
    log_warn("master", "process lookup pid %d has not gone in %d s: it is killed", r->pid,
             STOP_KILL_MS / 1000);
    process_kill(r->pid, r->uid);
    r->pid = 0;
}

/* A free place, or that of the one that has had most time. */
static struct retired *retired_place(void) {
    struct retired *oldest = &sup.retired[0];
    for (size_t i = 0; i < RETIRED_MAX; i++) {
        if (sup.retired[i].pid == 0)
            return &sup.retired[i];
        if (sup.retired[i].until_ms < oldest->until_ms)
            oldest = &sup.retired[i];
    }
    return oldest;
}

/* It was told to go; when there are too many of them, one goes now. */
static void retired_add(pid_t pid, uid_t uid) {
    struct retired *r = retired_place();
    if (pid <= 0)
        return;
    if (r->pid != 0)
        retired_kill(r);
    *r = (struct retired){pid, uid, clock_mono_ms() + STOP_KILL_MS};
}

static void retired_gone(pid_t pid) {
    for (size_t i = 0; i < RETIRED_MAX; i++)
        if (sup.retired[i].pid == pid)
            sup.retired[i].pid = 0;
}

/* Kills those that have had their time; milliseconds until the next one has, or -1. */
static int retired_watch(void) {
    int64_t now = clock_mono_ms(), next = -1;
    for (size_t i = 0; i < RETIRED_MAX; i++) {
        struct retired *r = &sup.retired[i];
        if (r->pid != 0 && r->until_ms <= now)
            retired_kill(r);
        if (r->pid != 0 && (next < 0 || r->until_ms - now < next))
            next = r->until_ms - now;
    }
    return (int)next;
}

static void tell(struct child *c, uint32_t type, const struct cfg_source *src) {
    struct sbuf b = {0};
    size_t at = ipc_begin(&b, type, 0);
    if (src != NULL)
        cfg_source_put(src, &b);
    ipc_end(&b, at);
    child_send(c, sbuf_str(&b), NULL, 0);
    mem_wipe(b.p, b.n);
    sbuf_free(&b);
}

/* The log file, opened by the one who may. */
static void reopen_log(void) {
    struct child *to[] = {&sup.relay, &sup.lookup};
    struct sbuf b = {0};
    int fd = log_reopen();
    if (fd < 0)
        return;
    ipc_end(&b, ipc_begin(&b, SUP_REOPEN, 0));
    for (size_t i = 0; i < 2; i++)
        child_send(to[i], sbuf_str(&b), &fd, 1);
    sbuf_free(&b);
}

/* The next start knows that there was an accounts store. */
static void mark_accounts(void) {
    if (!sup.cfg->embedded || sup.cfg->accounts_gone)
        return;
    int fd = fs_open_only(CONFIG_ACCOUNTS_MARK, O_WRONLY | O_CREAT, 0644);
    if (fd < 0)
        log_warn("master", "cannot make %s/" CONFIG_ACCOUNTS_MARK ": %s",
                 sup.cfg->p.queue_directory, strerror(-fd));
    else
        close(fd);
}

/* True if the child has ended by then. */
static bool child_ends(struct child *c, int64_t until_ms) {
    int status = 0;
    pid_t ended;
    while ((ended = waitpid(c->pid, &status, WNOHANG)) == 0 && clock_mono_ms() < until_ms)
        usleep(STOP_LOOK_US);
    if (ended == c->pid && status != 0)
        log_death(c, c->pid, status);
    return ended != 0;
}

/* What the spool has is safe, however the child ends.  Neither telling it nor waiting for it takes
 * longer than ms.  False: it cannot be killed. */
static bool stop_child(struct child *c, int64_t ms) {
    int64_t until_ms = clock_mono_ms() + ms;
    if (c->pid <= 0)
        return true;
    sup.send_until_ms = until_ms;
    tell(c, SUP_STOP, NULL);
    if (child_ends(c, until_ms))
        return true;
    log_warn("master", "process %s pid %d has not stopped in %d s: it is killed", c->name, c->pid,
             (int)(ms / 1000));
    process_kill(c->pid, c->uid);
    if (child_ends(c, clock_mono_ms() + STOP_LEAVE_MS))
        return true;
    log_error("master", "process %s pid %d cannot be killed: it is left behind", c->name, c->pid);
    return false;
}

static bool stop_children(void) {
    bool relay = stop_child(&sup.relay, STOP_KILL_MS);
    bool lookup = stop_child(&sup.lookup, STOP_LOOKUP_MS);
    for (size_t i = 0; i < RETIRED_MAX; i++)
        if (sup.retired[i].pid != 0)
            process_kill(sup.retired[i].pid, sup.retired[i].uid);
    listen_unlink();
    unlink(RELOAD_SOCKET);
    unlink(RESTART_SOCKET);
    return relay && lookup;
}

/* -- children that begin, and end -- */

static void relay_gets_sockets(void) {
    tell(&sup.relay, SUP_DEAF, NULL);
    for (size_t i = 0; i < sup.set.n; i++) {
        const struct listen_socket *sock = &sup.set.v[i];
        struct sbuf b = {0};
        size_t at = ipc_begin(&b, SUP_LISTEN, 0);
        ipc_put_u32(&b, sock->kind);
        ipc_put_u32(&b, (uint32_t)sock->loop);
        ipc_put_str(&b, str_of(sock->svc_name));
        ipc_end(&b, at);
        child_send(&sup.relay, sbuf_str(&b), &sock->fd, 1);
        sbuf_free(&b);
    }
    sup.serving = true;
    handover_leave(&sup.set, sup.cfg);
}

/* The end of a start that did not come so far: children are stopped in order. */
_Noreturn static void sup_give_up(void) {
    stop_children();
    exit(1);
}

static void sup_status(const char *lines) {
    status_send(lines, sup.serving, sup.refused);
}

/* Both children do their work: clients are let in. */
static void sup_serve(void) {
    if (sup.serving || !sup.relay.ready || !sup.lookup.ready)
        return;
    if (listen_open(&sup.set, sup.cfg) < 0) {
        if (!sup.started)
            sup_give_up();
        sup.serve_again_ms = clock_mono_ms() + SERVE_AGAIN_MS;
        sup_status("");
        return;
    }
    relay_gets_sockets();
    if (sup.started) {
        sup_status("");
        return;
    }
    sup.started = true;
    handover_begun();
    mark_accounts();
    log_info("master", "daemon started -- version " PH_VERSION ", configuration %s", sup.dir);
    begin_done();
    sup_status("READY=1\n");
}

/* Where they could not be let in it is tried again; milliseconds until then, -1: they are, or a
 * child is not ready. */
static int sup_serve_again(void) {
    if (sup.serving || !sup.started || !sup.relay.ready || !sup.lookup.ready)
        return -1;
    if (sup.serve_again_ms <= clock_mono_ms())
        sup_serve();
    int64_t left = sup.serve_again_ms - clock_mono_ms();
    return sup.serving ? -1 : left <= 0 ? 0 : (int)left;
}

/* Why a child cannot start, said once for as long as it is the same. */
static void child_fails(struct child *c, struct str fields) {
    struct ipc_reader r = {.rest = fields};
    char *service = str_dup(ipc_get_str(&r)), *text = str_dup(ipc_get_str(&r));
    if (sup.last_failure == NULL || strcmp(sup.last_failure, text) != 0)
        log_fatal(service, "%s", text);
    else
        c->silent = true;
    free(sup.last_failure);
    sup.last_failure = text;
    free(service);
}

static void child_is_ready(struct child *c) {
    if (c->fails > 1)
        log_info("master", "the %s process could be started", c->name);
    c->ready = true;
    c->fails = 0;
    free(sup.last_failure);
    sup.last_failure = NULL;
    sup_serve();
}

/* What a child says before it has taken any input from outside. */
static void child_says(struct child *c) {
    struct sbuf buf = {0};
    struct ipc_head head;
    struct str fields;
    int rc = ipc_recv(c->chan, &buf, &head, &fields, NULL, 0, NULL);
    if (rc == 0 && head.type == CHILD_READY)
        child_is_ready(c);
    else if (rc == 0 && head.type == CHILD_FAILS)
        child_fails(c, fields);
    else
        c->silent = true; /* it has ended; SIGCHLD says how */
    sbuf_free(&buf);
}

/* A child has ended before it was ready.  From the second time on it counts as one that cannot
 * start, and no client is let in to wait for it. */
static void child_cannot_start(struct child *c) {
    int64_t wait_ms = RESTART_MS;
    for (unsigned i = 0; i < c->fails && wait_ms < RESTART_MAX_MS; i++)
        wait_ms *= 2;
    if (wait_ms > RESTART_MAX_MS)
        wait_ms = RESTART_MAX_MS;
    c->again_ms = clock_mono_ms() + wait_ms;
    if (++c->fails != 2)
        return;
    log_error("master",
              "the %s process cannot start: no client is let in until it can; it is tried again, "
              "at last once in %d s, and at a reload",
              c->name, RESTART_MAX_MS / 1000);
    tell(&sup.relay, SUP_DEAF, NULL);
    listen_shut(&sup.set);
    sup.serving = false;
    sup_status("");
}

static void child_ended(struct child *c, int status) {
    pid_t pid = c->pid;
    c->pid = 0;
    while (!c->ready && !c->silent) /* its last words */
        child_says(c);
    if (c->ready || c->fails < 2)
        log_death(c, pid, status);
    if (c == &sup.relay)
        sup.serving = false;
    if (!c->ready && !sup.started) {
        log_fatal("master", "the %s process could not be started", c->name);
        sup_give_up();
    }
    if (!c->ready)
        child_cannot_start(c);
    else if (clock_mono_ms() - c->started_ms < RESTART_MS)
        c->again_ms = clock_mono_ms() + RESTART_MS;
    c->ready = false;
}

static void reap(void) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == sup.relay.pid)
            child_ended(&sup.relay, status);
        else if (pid == sup.lookup.pid)
            child_ended(&sup.lookup, status);
        else
            retired_gone(pid);
    }
}

/* A lookup process for the new configuration, confined to the new tables' folders, takes over; what
 * the old one was asked and has not answered, the relay asks again. */
static void replace_lookup(void) {
    tell(&sup.lookup, SUP_STOP, NULL);
    retired_add(sup.lookup.pid, sup.lookup.uid);
    sup.lookup.pid = 0;
    start_children();
}

/* What the log says at start and reload; of mistakes, those that mail or a client waits for. */
static void log_remarks(void) {
    struct diags d = {0}, mistakes = {0};
    if (sup.bears)
        daemon_check(sup.cfg, DIAG_ERROR, &mistakes);
    unread_say_refused(sup.cfg, DIAG_WARN, &d);
    daemon_check_stores(sup.cfg, &d);
    foreign_check(sup.cfg, &d);
    for (size_t i = 0; i < mistakes.n; i++)
        if (mistakes.v[i].level == DIAG_ERROR)
            sup_log(log_warn, &mistakes.v[i]);
    for (size_t i = 0; i < d.n; i++)
        sup_log(log_warn, &d.v[i]);
    diag_free(&mistakes);
    diag_free(&d);
}

/* A lookup process that was told to go, and another one that cannot be made, would leave mail and
 * clients without answers: what runs goes on. */
static bool reload_has_process(void) {
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        return waitpid(pid, NULL, 0) == pid;
    log_error("master",
              "reload refused: no process can be started: %s; the old configuration stays in use",
              strerror(errno));
    return false;
}

/* False: the new configuration has errors, its ports cannot be had, or there is no room for a
 * process; the old one stays. */
static bool reload_all(void) {
    if (!reload_has_process())
        return false;
    struct config *cfg = sup_load(false);
    if (cfg != NULL)
        restart_freeze(sup.begun, cfg); /* it says which addresses are to be bound, too */
    if (cfg != NULL && listen_bind(&sup.set, cfg, sup.loops) < 0) {
        config_unref(cfg);
        cfg = NULL;
    }
    if (cfg == NULL) {
        log_error("master",
                  "reload refused: run \"posthouse -c %s check\"; the old configuration "
                  "stays in use",
                  sup.dir);
        return false;
    }
    config_follows(cfg, sup.cfg);
    sup.cfg = cfg;
    mark_accounts();
    log_remarks();
    renew_begin(cfg);
    restart_say(sup.begun, cfg);
    sup.relay.again_ms = sup.lookup.again_ms = 0;
    replace_lookup();
    if (sup.relay.ready)
        tell(&sup.relay, SUP_RELOAD, cfg->source);
    else /* it has been, or will be, started with the new one */
        log_info("master", "reload -- configuration %s", cfg->dir);
    if (sup.serving)
        relay_gets_sockets();
    return true;
}

static bool sup_reload(void) {
    notify_reloading();
    sup.refused = !reload_all();
    sup_status("READY=1\n");
    return !sup.refused;
}

/* It reads the queue, and nothing that it is told: a configuration, which is larger than a socket
 * holds, would keep us until it had to be killed. */
static bool relay_begins(void) {
    return sup.relay.pid != 0 && !sup.relay.ready;
}

static void sup_reload_soon(void) {
    sup.reload_due = true;
    if (relay_begins())
        log_info("master", "the reload waits until the relay process has begun");
}

static void sup_stop(void) {
    handover_begun();
    log_info("master", "terminating on signal 15");
    notify_send("STOPPING=1\nSTATUS=stopping: deliveries end, new mail waits");
    stop_children();
    exit(0);
}

/* Tells systemd, if it asks, that the supervisor is not stuck; it is to be told again after so many
 * milliseconds. */
static int sup_tell_alive(void) {
    int every_ms = notify_watchdog_ms();
    if (every_ms > 0)
        notify_send("WATCHDOG=1");
    return every_ms;
}

/* What the files and the program have become is looked at first: this supervisor goes on where the
 * next one would not begin.  Two relay processes never have one spool.  Either part may take most
 * of the time that systemd allows between two signs of life. */
static void sup_restart(void) {
    int asker = reexec_asked(sup.restart);
    if (asker < 0)
        return;
    sup_tell_alive();
    bool good = reexec_try(sup.dir) && queue_may_restart(sup.cfg);
    sup_tell_alive();
    if (!good) {
        reexec_answer(asker, true);
        return;
    }
    log_info("master", "restarting");
    notify_reloading();
    if (!stop_children())
        exit(1);
    handover_restart(sup.cfg, asker);
    exit(1);
}

static void on_signal(int signo) {
    if (signo == SIGTERM || signo == SIGINT)
        sup_stop();
    if (signo == SIGHUP)
        sup_reload_soon();
    if (signo == SIGUSR1)
        reopen_log();
    if (signo == SIGCHLD)
        reap();
}

/* Certificates that were renewed are in use at once; everything else stays. */
static void sup_renew(void) {
    struct config *cfg = renew_look(sup.cfg);
    if (cfg == NULL)
        return;
    config_follows(cfg, sup.cfg);
    sup.cfg = cfg;
    log_info("master", "certificate files have changed, and are in use now");
    tell(&sup.relay, SUP_RENEW, cfg->source);
    if (sup.serving)
        handover_leave(&sup.set, cfg);
}

/* Milliseconds until it is to be called again; -1: not before something else happens. */
static int sup_renewal(void) {
    if (relay_begins())
        return -1;
    if (renew_wait_ms() == 0)
        sup_renew();
    return renew_wait_ms();
}

static int sooner_ms(int a, int b) {
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

/* Tells systemd in time that the supervisor is not stuck; milliseconds until it must be told again,
 * -1: it does not ask. */
static int sup_alive(void) {
    static int64_t due_ms;
    int64_t now_ms = clock_mono_ms();
    if (notify_watchdog_ms() == 0)
        return -1;
    if (now_ms >= due_ms)
        due_ms = now_ms + sup_tell_alive();
    return (int)(due_ms - now_ms);
}

/* The same while a start goes on. */
static int sup_begins(void) {
    static int64_t due_ms;
    int64_t now_ms = clock_mono_ms();
    if (sup.started)
        return -1;
    if (now_ms >= due_ms) {
        notify_send(START_TELL);
        due_ms = now_ms + START_TELL_MS;
    }
    return (int)(due_ms - now_ms);
}

/* A child is listened to until it is ready: only then does it take input from outside. */
static struct pollfd child_poll(const struct child *c) {
    bool listen_to = c->pid != 0 && !c->ready && !c->silent;
    return (struct pollfd){.fd = listen_to ? c->chan : -1, .events = POLLIN};
}

_Noreturn static void supervise(void) {
    int sfd = os_signals_open(&sup.mask);
    for (;;) {
        sup.send_until_ms = clock_mono_ms() + SEND_MS;
        if (sup.reload_due && !relay_begins()) {
            sup.reload_due = false;
            sup_reload();
        }
        int most_ms = sooner_ms(start_children(), retired_watch()), wait_ms = reload_wait_ms();
        most_ms = sooner_ms(sooner_ms(most_ms, sup_alive()), sup_serve_again());
        most_ms = sooner_ms(sooner_ms(most_ms, sup_begins()), sup_renewal());
        most_ms = sooner_ms(most_ms, status_watch());
        struct pollfd p[] = {
            {.fd = sfd, .events = POLLIN},
            {.fd = wait_ms > 0 || relay_begins() ? -1 : sup.reload, .events = POLLIN},
            {.fd = relay_begins() ? -1 : sup.restart, .events = POLLIN},
            child_poll(&sup.relay),
            child_poll(&sup.lookup)};
        most_ms = sooner_ms(most_ms, wait_ms > 0 ? wait_ms : -1);
        if (poll(p, 5, most_ms) <= 0)
            continue;
        sup.send_until_ms = clock_mono_ms() + SEND_MS;
        if (p[3].revents != 0)
            child_says(&sup.relay);
        if (p[4].revents != 0)
            child_says(&sup.lookup);
        int came = p[0].revents != 0 ? os_signals_next(sfd) : 0;
        if (came != 0)
            on_signal(came);
        if (p[1].revents != 0)
            reload_serve(sup.reload, sup.cfg, sup_reload);
        if (p[2].revents != 0)
            sup_restart();
    }
}

static void sup_block_signals(void) {
    sigemptyset(&sup.mask);
    sigaddset(&sup.mask, SIGTERM);
    sigaddset(&sup.mask, SIGINT);
    sigaddset(&sup.mask, SIGHUP);
    sigaddset(&sup.mask, SIGUSR1);
    sigaddset(&sup.mask, SIGCHLD);
    sigprocmask(SIG_BLOCK, &sup.mask, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* what is too large for a file is an error: the children too */
}

static void sup_listen(void) {
    bool first = !handover_left();
    int rc = listen_begin(&sup.set, sup.cfg, sup.loops, first);
    if (rc == -EINTR)
        sup_stop();
    if (rc < 0)
        exit(first && rc == -EADDRINUSE ? LISTEN_TAKEN : 1);
}

int main(int argc, char **argv) {
    const char *env = getenv("MAIL_CONFIG");
    bool verbose = false, test = false;
    int opt;
    fs_open_standard();
    sup.dir = env != NULL ? env : PH_CONFIG_DIR;
    sup.relay = (struct child){.name = "relay", .chan = -1};
    sup.lookup = (struct child){.name = "lookup", .chan = -1};
    while ((opt = getopt(argc, argv, "c:ftvVh")) != -1) {
        if (opt == 'c') {
            sup.dir = optarg;
        } else if (opt == 'f') {
            sup.foreground = true;
        } else if (opt == 't') {
            test = true;
        } else if (opt == 'v') {
            verbose = true;
        } else if (opt == 'V') {
            puts("posthoused " PH_VERSION);
            return 0;
        } else {
            sup_usage(opt == 'h' ? stdout : stderr);
            return opt == 'h' ? 0 : 2;
        }
    }
    char *full = realpath(sup.dir, NULL);
    if (full == NULL) {
        fprintf(stderr, "posthoused: fatal: %s: %s\n", sup.dir, strerror(errno));
        return 1;
    }
    sup.dir = full;
    sup.cfg = test ? NULL : handover_begin(sup.dir, verbose, &sup.set);
    sup.refused = sup.cfg != NULL;
    if (sup.cfg == NULL)
        sup.cfg = sup_load(verbose);
    if (test)
        return sup.cfg == NULL ? 1 : 0;
    if (sup.cfg == NULL)
        return 1;
    sup.begun = config_ref(sup.cfg);
    renew_begin(sup.cfg);
    sup_start_log(sup.cfg);
    queue_enter(sup.cfg);
    sup.loops = daemon_loops(sup.cfg);
    raise_limits();
    if (!sup.foreground)
        begin_in_background();
    begin_print_fatal();
    queue_lock(sup.cfg);
    queue_refuse_half_moved();
    sup_block_signals();
    os_no_dumps(); /* keys of certificates */
    status_begin();
    sup.reload = sup.restart = -1;
    sup_listen();
    if ((sup.reload = listen_reload(sup.cfg)) < 0 || (sup.restart = listen_restart(sup.cfg)) < 0)
        return 1;
    if (sup.refused)
        log_error("master",
                  "the start was refused: run \"posthouse -c %s check\"; the configuration that "
                  "was in use before it is in use again",
                  sup.dir);
    log_remarks();
    supervise();
}
