/*
 * daemon/relay.c - the relay process: wires receive, spool, schedule, deliver and report
 *
 * Loops 0 … n-1 serve SMTP in and out, loop n the scheduler and the control socket.  The main
 * thread listens to the supervisor.
 */
#include <errno.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/confine.h"
#include "daemon/control.h"
#include "daemon/daemon.h"
#include "daemon/peername.h"
#include "daemon/status.h"
#include "daemon/tell.h"
#include "deliver/deliver.h"
#include "receive/receive.h"
#include "schedule/schedule.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"

/* An orderly stop: for content and for the relay hosts' answers to it; then for the last replies.
 */
#define STOP_MS  5000
#define LEAVE_MS 2000
/* How long a process that is ending may still have the spool. */
#define SPOOL_WAIT_MS 5000

struct worker {
    struct loop *loop;
    struct lookup *lookup;
    struct deliver *deliver;
    struct receive *receive;
    struct peername *names;
    struct later last_turn; /* of a stop: the last replies are with the kernel */
    atomic_bool stopped;
};

static struct relay {
    struct config *cfg;
    size_t n;
    struct worker *w;     /* n of them */
    atomic_ulong reloads; /* that all loops have taken up */
    struct loop *sched_loop;
    struct lookup *sched_lookup;
    struct recent *memory; /* of routes, for all loops */
    struct sched *sched;
    struct spool *spool;
    struct unreadable_list kept;
    struct control *control;
    atomic_bool sched_stopped;
    size_t next_loop; /* where the next delivery session goes */
} relay;

static void on_accepted(void *arg, struct envelope *env, struct body *body) {
    (void)arg;
    sched_add(relay.sched, env, body);
}

static void find_name(void *arg, const struct netaddr *addr, client_named_fn done, void *ctx) {
    struct worker *w = arg;
    peername_find(w->names, addr, done, ctx);
}

static void relay_on_result(void *slot, struct attempt *a) {
    sched_result(relay.sched, slot, a);
}

static void relay_on_taken(struct attempt_taken *t) {
    sched_taken(relay.sched, t);
}

static const struct deliver_ops deliver_ops = {relay_on_taken, relay_on_result};

/* Sessions are spread over the loops in turn. */
static void *new_session(void *arg, void *slot) {
    (void)arg;
    return dsess_new(relay.w[relay.next_loop++ % relay.n].deliver, slot);
}

static void relay_give(void *session, struct attempt *a) {
    dsess_give(session, a);
}

static void release(void *session) {
    dsess_release(session);
}

static void recall(void *session) {
    dsess_recall(session);
}

static struct loop *relay_loop_new(size_t i) {
    struct loop *l = loop_new(i);
    if (l != NULL)
        return l;
    log_fatal("master", "cannot make its event loops: too many open files, or no memory");
    log_close();
    _exit(1);
}

static void worker_init(struct worker *w, size_t i, int lookup_fd) {
    w->loop = relay_loop_new(i);
    w->lookup = lookup_new(w->loop);
    lookup_remember(w->lookup, relay.memory);
    lookup_attach(w->lookup, lookup_fd);
    w->deliver = deliver_new(w->loop, w->lookup, relay.cfg, &deliver_ops);
    w->names = peername_new(w->loop, relay.cfg);
    struct receive_ops ops = {
        .peername = find_name, .accepted = on_accepted, .arg = w, .loops = relay.n};
    w->receive = receive_new(w->loop, w->lookup, relay.spool, relay.cfg, &ops);
}

/* What cannot be read whole is neither sent, perhaps again, nor deleted: another version may read
 * it. */
static void found_unreadable(uint64_t id, struct envelope *env, const char *what) {
    log_error("spool", "message %016llx has %s that this version cannot read: it is kept, not sent",
              (unsigned long long)id, what);
    unreadable_add(&relay.kept, id, env);
}

static void on_found(void *arg, const struct spool_found *f) {
    struct envelope *env = envelope_decode(f->meta);
    (void)arg;
    if (env == NULL)
        found_unreadable(f->id, NULL, "an envelope");
    else if (sched_recover(relay.sched, envelope_ref(env), f->progress))
        envelope_unref(env);
    else
        found_unreadable(f->id, env, "a record of progress");
}

/* Opens the spool.  A process that was killed may have it still, in the middle of a write, when its
 * successor starts: that is waited for. */
static int open_spool_in_turn(char **why) {
    struct spool_conf conf = {".", (uint64_t)relay.cfg->p.spool_segment_size};
    int64_t until = clock_mono_ms() + SPOOL_WAIT_MS;
    int rc;
    while ((rc = spool_open(&relay.spool, &conf, &spool_io_disk, on_found, NULL, why)) == -EAGAIN &&
           clock_mono_ms() < until) {
        free(*why);
        spool_close(relay.spool);
        nanosleep(&(struct timespec){0, 50000000}, NULL);
    }
    return rc;
}

static void open_spool(void) {
    char *why;
    struct spool_stats st;
    int64_t begun = clock_mono_ms();
    int rc = open_spool_in_turn(&why);
    if (rc < 0) {
        log_fatal("spool", "%s: %s: %s", relay.cfg->p.queue_directory, why, strerror(-rc));
        free(why);
        log_close();
        _exit(1);
    }
    spool_stats(relay.spool, &st);
    qid_after(st.last_id);
    log_info("spool", "recovered %llu messages from %llu segments in %lld ms",
             (unsigned long long)st.messages, (unsigned long long)st.segments,
             (long long)(clock_mono_ms() - begun));
    if (relay.kept.n > 0)
        log_error("spool", "%zu of them cannot be read and wait for a version that can",
                  relay.kept.n);
    rc = spool_start(relay.spool);
    if (rc < 0) {
        log_fatal("spool", "cannot start its threads: %s", strerror(-rc));
        log_close();
        _exit(1);
    }
}

struct loop_task {
    struct task task;
    struct worker *w; /* NULL: the scheduler's loop */
    int fd;
};

static void post(struct worker *w, void (*run)(struct task *t), int fd) {
    struct loop_task *t = MEM_NEW(struct loop_task);
    t->w = w;
    t->fd = fd;
    t->task.run = run;
    loop_post(w == NULL ? relay.sched_loop : w->loop, &t->task);
}

static void run_attach(struct task *t) {
    struct loop_task *x = DL_OWNER(t, struct loop_task, task);
    lookup_attach(x->w == NULL ? relay.sched_lookup : x->w->lookup, x->fd);
    free(x);
}

/* A configuration on its way to one of the loops.  The last one of them counts and frees left. */
struct reload_task {
    struct task task;
    struct worker *w; /* NULL: the scheduler's loop */
    struct config *cfg;
    atomic_size_t *left; /* loops that have yet to take it up */
    bool renewed;        /* only certificates: no reload that a program waits for */
};

static void run_reload(struct task *t) {
    struct reload_task *x = DL_OWNER(t, struct reload_task, task);
    if (x->w == NULL) {
        sched_reload(relay.sched, x->cfg);
    } else {
        receive_reload(x->w->receive, x->cfg);
        deliver_reload(x->w->deliver, x->cfg);
        peername_reload(x->w->names, x->cfg);
    }
    if (atomic_fetch_sub(x->left, 1) == 1) {
        atomic_fetch_add(&relay.reloads, x->renewed ? 0 : 1);
        free(x->left);
    }
    config_unref(x->cfg);
    free(x);
}

/* Replies are written at the end of a turn, before this runs. */
static void worker_stopped(struct later *l) {
    struct worker *w = DL_OWNER(l, struct worker, last_turn);
    atomic_store(&w->stopped, true);
}

static void worker_stop(struct worker *w, void (*how)(struct receive *r)) {
    how(w->receive);
    w->last_turn.run = worker_stopped;
    if (receive_sessions(w->receive) == 0 && w->loop->n_last == 0)
        loop_later(w->loop, &w->last_turn);
}

static void run_stop(struct task *t) {
    struct loop_task *x = DL_OWNER(t, struct loop_task, task);
    if (x->w == NULL) {
        atomic_store(&relay.sched_stopped, sched_stop(relay.sched));
    } else {
        deliver_stop(x->w->deliver);
        worker_stop(x->w, receive_stop);
    }
    free(x);
}

static void run_leave(struct task *t) {
    struct loop_task *x = DL_OWNER(t, struct loop_task, task);
    worker_stop(x->w, receive_leave);
    free(x);
}

static void relay_reload(struct str fields, bool renewed) {
    struct ipc_reader r = {.rest = fields};
    struct config *cfg = config_build(cfg_source_get(&r));
    atomic_size_t *left = MEM_NEW(atomic_size_t);
    atomic_store(left, relay.n + 1);
    for (size_t i = 0; i <= relay.n; i++) {
        struct reload_task *x = MEM_NEW(struct reload_task);
        *x = (struct reload_task){.task.run = run_reload,
                                  .w = i < relay.n ? &relay.w[i] : NULL,
                                  .cfg = config_ref(cfg),
                                  .left = left,
                                  .renewed = renewed};
        loop_post(i < relay.n ? x->w->loop : relay.sched_loop, &x->task);
    }
    config_unref(relay.cfg);
    relay.cfg = cfg;
    if (!renewed)
        log_info("master", "reload -- configuration %s", cfg->dir);
}

/* Asks the workers to run a task until none has a session any more. */
static bool workers_stop(void (*run)(struct task *t)) {
    bool all = true;
    for (size_t i = 0; i < relay.n; i++) {
        bool stopped = atomic_load(&relay.w[i].stopped);
        if (!stopped)
            post(&relay.w[i], run, -1);
        all = all && stopped;
    }
    return all;
}

/* No new mail, no new delivery; what is being received, and deliveries of which the relay host
 * has the whole content, may finish for a while.  Then the spool is closed in order, and clients
 * are told of the messages that are in it. */
_Noreturn static void stop(void) {
    int64_t until = clock_mono_ms() + STOP_MS;
    while (clock_mono_ms() < until) {
        bool workers = workers_stop(run_stop);
        post(NULL, run_stop, -1);
        if (workers && atomic_load(&relay.sched_stopped))
            break;
        usleep(20000);
    }
    spool_flush(relay.spool);
    until = clock_mono_ms() + LEAVE_MS;
    while (!workers_stop(run_leave) && clock_mono_ms() < until)
        usleep(20000);
    log_close();
    _exit(0);
}

/* -- listening sockets -- */

struct listen_task {
    struct task task;
    struct worker *w; /* NULL: the scheduler's loop */
    enum listen_kind kind;
    int fd;
    char *svc_name;
};

static void run_listen(struct task *t) {
    struct listen_task *x = DL_OWNER(t, struct listen_task, task);
    if (x->w == NULL)
        control_listen(relay.control, x->fd, x->kind == LISTEN_QUEUE);
    else
        receive_listen(x->w->receive, x->fd, x->svc_name, x->kind == LISTEN_SENDMAIL);
    free(x->svc_name);
    free(x);
}

/* A socket for one of the loops. */
static void relay_listen(struct str fields, int fd) {
    struct ipc_reader r = {.rest = fields};
    uint32_t kind = ipc_get_u32(&r), loop = ipc_get_u32(&r);
    struct str svc_name = ipc_get_str(&r);
    bool control = kind == LISTEN_CONTROL || kind == LISTEN_QUEUE;
    if (!ipc_done(&r) || loop >= relay.n) {
        close(fd);
        return;
    }
    struct listen_task *x = MEM_NEW(struct listen_task);
    x->task.run = run_listen;
    x->w = control ? NULL : &relay.w[loop];
    x->kind = (enum listen_kind)kind;
    x->fd = fd;
    x->svc_name = str_dup(svc_name);
    loop_post(control ? relay.sched_loop : x->w->loop, &x->task);
}

static void run_deaf(struct task *t) {
    struct loop_task *x = DL_OWNER(t, struct loop_task, task);
    if (x->w == NULL)
        control_deaf(relay.control);
    else
        receive_deaf(x->w->receive);
    free(x);
}

static void relay_deaf(void) {
    for (size_t i = 0; i < relay.n; i++)
        post(&relay.w[i], run_deaf, -1);
    post(NULL, run_deaf, -1);
}

/* How many descriptors belong to a message. */
static size_t fds_of(uint32_t type) {
    return type == SUP_LOOKUP ? relay.n + 1 : type == SUP_LISTEN ? 1 : 0;
}

/* A socket that could not be taken is not handed over again: its clients, or a loop's questions,
 * would wait for ever. */
_Noreturn static void relay_lacks_fds(void) {
    log_error("master", "no descriptors are left for what is handed over to the relay process: it "
                        "ends, and is started again");
    stop();
}

static void listen_to_supervisor(int sup) {
    struct sbuf buf = {0};
    struct ipc_head head;
    struct str fields;
    int fds[LOOPS_MAX + 1];
    size_t n;
    while (ipc_recv(sup, &buf, &head, &fields, fds, LOOPS_MAX + 1, &n) == 0) {
        if (n < fds_of(head.type))
            relay_lacks_fds();
        if (head.type == SUP_RELOAD || head.type == SUP_RENEW)
            relay_reload(fields, head.type == SUP_RENEW);
        else if (head.type == SUP_REOPEN && n == 1)
            log_replace(fds[0]);
        else if (head.type == SUP_LISTEN && n == 1)
            relay_listen(fields, fds[0]);
        else if (head.type == SUP_DEAF)
            relay_deaf();
        else if (head.type == SUP_STOP)
            stop();
        for (size_t i = 0; head.type == SUP_LOOKUP && i < n; i++)
            post(i < relay.n ? &relay.w[i] : NULL, run_attach, fds[i]);
    }
    _exit(1); /* the supervisor is gone: so are we; the spool is safe */
}

/* A loop that does not run would let its clients wait for ever, or the queue. */
static void relay_loop(struct loop *l) {
    int rc = loop_start(l);
    if (rc >= 0)
        return;
    log_fatal("master", "cannot start its threads: %s", strerror(-rc));
    log_close();
    _exit(1);
}

static void relay_serve(void) {
    struct explain_at at = {relay.w[0].loop, relay.w[0].lookup, relay.w[0].deliver};
    relay.control = control_new(relay.sched_loop, relay.sched, relay.spool, relay.sched_lookup,
                                &relay.kept, &at, &relay.reloads);
    sched_start(relay.sched);
    status_count(relay.sched_loop, relay.sched);
    for (size_t i = 0; i < relay.n; i++)
        relay_loop(relay.w[i].loop);
    relay_loop(relay.sched_loop);
}

/* What libraries read from files of the system, they read now. */
static void libraries_start(void) {
    tzset();
    OPENSSL_init_ssl(0, NULL);
    OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG | OPENSSL_INIT_ADD_ALL_CIPHERS, NULL);
}

_Noreturn void relay_main(struct config *cfg, size_t loops, int sup, const int *lookups) {
    tell_fatal_to(sup);
    libraries_start();
    confine_relay(cfg);
    log_start();
    relay.cfg = cfg;
    relay.n = loops;
    relay.w = mem_zalloc(loops * sizeof *relay.w);
    relay.sched_loop = relay_loop_new(loops);
    relay.sched_lookup = lookup_new(relay.sched_loop);
    relay.memory = recent_new();
    lookup_remember(relay.sched_lookup, relay.memory);
    lookup_attach(relay.sched_lookup, lookups[loops]);
    struct sched_ops ops = {new_session, relay_give, release, recall, NULL};
    relay.sched = sched_new(relay.sched_loop, relay.sched_lookup, cfg, &ops);
    open_spool();
    sched_set_spool(relay.sched, relay.spool);
    for (size_t i = 0; i < loops; i++)
        worker_init(&relay.w[i], i, lookups[i]);
    relay_serve();
    tell_ready(sup);
    listen_to_supervisor(sup);
    _exit(0);
}
