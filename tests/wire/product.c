/*
 * tests/wire/product.c - the product's parts put together, as daemon/relay.c does it
 *
 * Two worker loops and the scheduler's loop, the spool on the simulated disk.  A life begins with
 * product_start and ends with product_end, which forgets all its memory at once.  Configurations
 * are built once for each text and kept by the process.
 */
#include "world.h"

#include <errno.h>
#include <gsasl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/peername.h"
#include "deliver/deliver.h"
#include "receive/receive.h"
#include "schedule/inside.h"
#include "smtp/sasl.h"
#include "spool/inside.h"
#include "spool/spool.h"
#include "util/clock.h"
#include "util/ipc.h"

#define WORKERS     2
#define CONFIGS     64
#define STOP_US     5000000
#define STOP_ASK_US 20000
#define LEAVE_US    2000000
#define SPOOL_RETRY 1000000

struct worker {
    struct loop *loop;
    struct lookup *lookup;
    struct deliver *deliver;
    struct receive *receive;
    struct peername *names;
};

struct product {
    struct config *cfg;
    struct worker w[WORKERS];
    struct loop *sched_loop;
    struct sched *sched;
    struct spool *spool;
    unsigned next_loop;
    int64_t due_us;   /* when the spool's threads come to what waits; 0: nothing waits */
    int64_t retry_us; /* when the spool tries again what failed; 0: nothing did */
    bool stopping, was_empty;
    int64_t stop_until_us, stop_asked_us;
};

/* ---- configurations ---- */

struct known_config {
    char *text;
    struct config *cfg;
};
static struct known_config configs[CONFIGS] WIRE_KEEP;
static unsigned next_config WIRE_KEEP;

static const char base_main_cf[] = "myhostname = posthouse.test\n"
                                   "mynetworks = 10.1.0.0/16\n"
                                   "smtpd_forbid_bare_newline_exclusions =\n"
                                   "mydestination =\n"
                                   "queue_directory = /w\n"
                                   "spool_segment_size = 65536\n"
                                   "spool_body_file_size = 40000\n"
                                   "data_directory = /w/data\n"
                                   "relays_database = /w/relays.db\n"
                                   "smtp_host_lookup = dns\n"
                                   "inet_protocols = ipv4\n"
                                   "smtpd_sasl_type = accounts\n"
                                   "accounts_store = sim:accounts\n"
                                   "sender_dependent_relayhost_maps =\n"
                                   "smtp_tls_CAfile = /w/cert.pem\n"
                                   "smtp_tls_security_level = may\n"
                                   "smtpd_tls_security_level = may\n";
static const char master_cf[] =
    "smtp inet n - n - - smtpd\n"
    "submission inet n - n - - smtpd -o smtpd_tls_security_level=encrypt"
    " -o smtpd_sasl_auth_enable=yes\n"
    "submissions inet n - n - - smtpd -o smtpd_tls_wrappermode=yes"
    " -o smtpd_sasl_auth_enable=yes\n"
    "smtp unix - - n - - smtp\n"
    "relay unix - - n - - smtp\n"
    "lmtp unix - - n - - lmtp\n"
    "local unix - n n - - local\n";

static void put_fact(struct sbuf *b, const char *name, const char *value) {
    ipc_put_str(b, str_of(name));
    ipc_put_str(b, str_of(value));
}

static void put_file(struct sbuf *b, const char *path, const char *text) {
    ipc_put_str(b, str_of(path));
    ipc_put_u32(b, 0);
    ipc_put_str(b, str_of(text));
}

static struct config *config_make(const char *text) {
    struct sbuf b = {0};
    ipc_put_str(&b, STR_LIT("/w"));
    ipc_put_u32(&b, 6);
    put_fact(&b, "system_hostname", "posthouse.test");
    put_fact(&b, "system_domain", "test");
    put_fact(&b, "system_networks_host", "127.0.0.1/32");
    put_fact(&b, "system_addresses", "10.9.9.9");
    put_fact(&b, "system_config_directory", "/w");
    put_fact(&b, "exists /w/relays.db", "yes");
    ipc_put_u32(&b, 4);
    put_file(&b, "/w/main.cf", text);
    put_file(&b, "/w/master.cf", master_cf);
    put_file(&b, "/w/cert.pem", tls_cert_pem());
    put_file(&b, "/w/key.pem", tls_key_pem());
    struct ipc_reader r = {.rest = sbuf_str(&b)};
    struct config *cfg = config_build(cfg_source_get(&r));
    for (size_t i = 0; i < cfg->diags.n; i++)
        if (cfg->diags.v[i].level == DIAG_ERROR)
            wire_fail(W, "configuration: %s", cfg->diags.v[i].text);
    sbuf_free(&b);
    return cfg;
}

/* The snapshot of the scenario's main.cf as it is now.  Owned by the process. */
static struct config *config_now(struct wire_world *w) {
    enum heap_side side = heap_switch(HEAP_PROCESS);
    struct sbuf text = {0};
    struct config *found = NULL;
    sbuf_add_c(&text, base_main_cf);
    sbuf_add_c(&text, w->main_cf == NULL ? "" : w->main_cf);
    for (unsigned i = 0; i < CONFIGS && found == NULL; i++)
        if (configs[i].text != NULL && strcmp(configs[i].text, text.p) == 0)
            found = configs[i].cfg;
    if (found == NULL) {
        struct known_config *k = &configs[next_config++ % CONFIGS];
        free(k->text); /* the old snapshot stays: a life may still have it */
        k->cfg = found = config_make(text.p);
        k->text = sbuf_take(&text);
    }
    sbuf_free(&text);
    heap_switch(side);
    return found;
}

void wire_main_cf(struct wire_world *w, const char *fmt, ...) {
    struct sbuf b = {0};
    va_list ap;
    sbuf_add_c(&b, w->main_cf == NULL ? "" : w->main_cf);
    va_start(ap, fmt);
    sbuf_vprintf(&b, fmt, ap);
    va_end(ap);
    free(w->main_cf);
    w->main_cf = sbuf_take(&b);
}

/* ---- the glue ---- */

static void on_accepted(void *arg, struct envelope *env, struct body *body) {
    (void)arg;
    sched_add(W->product->sched, env, body);
}

static void on_result(void *slot, struct attempt *a) {
    sched_result(W->product->sched, slot, a);
}

static void on_taken(struct attempt_taken *t) {
    sched_taken(W->product->sched, t);
}

static const struct deliver_ops deliver_ops = {on_taken, on_result};

static void *new_session(void *arg, void *slot) {
    struct product *p = W->product;
    (void)arg;
    return dsess_new(p->w[p->next_loop++ % WORKERS].deliver, slot);
}

static void give(void *session, struct attempt *a) {
    dsess_give(session, a);
}

static void release(void *session) {
    dsess_release(session);
}

static void recall(void *session) {
    dsess_recall(session);
}

static const struct sched_ops sched_ops = {.session_new = new_session,
                                           .session_give = give,
                                           .session_release = release,
                                           .session_recall = recall};
/* A function that is new in the real glue is missing here. */
_Static_assert(sizeof(struct sched_ops) == 5 * sizeof(void *), "sched_ops has grown");
_Static_assert(sizeof(struct deliver_ops) == 2 * sizeof(void *), "deliver_ops has grown");
_Static_assert(sizeof(struct receive_ops) == 4 * sizeof(void *), "receive_ops has grown");

static void find_name(void *arg, const struct netaddr *addr, client_named_fn done, void *ctx) {
    const struct worker *k = arg;
    peername_find(k->names, addr, done, ctx);
}

static void worker_start(struct product *p, struct worker *k, size_t i) {
    struct receive_ops ops = {
        .peername = find_name, .accepted = on_accepted, .arg = k, .loops = WORKERS};
    k->loop = loop_new(i);
    k->lookup = lookup_new(k->loop);
    k->deliver = deliver_new(k->loop, k->lookup, p->cfg, &deliver_ops);
    k->names = peername_new(k->loop, p->cfg);
    k->receive = receive_new(k->loop, k->lookup, p->spool, p->cfg, &ops);
}

static void on_found(void *arg, const struct spool_found *f) {
    struct product *p = arg;
    struct envelope *env = envelope_decode(f->meta);
    if (env == NULL) {
        wire_fail(W, "message %016llx has an unreadable envelope", (unsigned long long)f->id);
        return;
    }
    if (!sched_recover(p->sched, env, f->progress))
        wire_fail(W, "message %016llx has unreadable progress", (unsigned long long)f->id);
}

static bool open_spool(struct wire_world *w, struct product *p) {
    struct spool_conf conf = {"s", (uint64_t)p->cfg->p.spool_segment_size};
    char *why = NULL;
    int rc = spool_open(&p->spool, &conf, &w->io, on_found, p, &why);
    if (rc < 0 && !w->dying && !w->fault_done)
        wire_fail(w, "the spool cannot be opened: %s: %s", why == NULL ? "" : why, strerror(-rc));
    free(why);
    if (rc < 0)
        return false;
    struct spool_stats st;
    spool_stats(p->spool, &st);
    qid_after(st.last_id);
    return true;
}

/* Each worker listens on each port. */
static void listen_all(struct wire_world *w, struct product *p) {
    static const struct {
        const char *service;
        uint16_t port;
    } services[] = {{"smtp", 25}, {"submission", 587}, {"submissions", 465}};
    for (size_t i = 0; i < 3; i++) {
        enum heap_side side = heap_switch(HEAP_WORLD);
        int fd = fd_new(w, FD_OTHER);
        net_listen(w, fd, services[i].port);
        heap_switch(side);
        receive_listen(p->w[i % WORKERS].receive, fd, services[i].service, false);
    }
}

void product_start(struct wire_world *w) {
    struct product *p = calloc(1, sizeof *p);
    heap_begin_life();
    w->product = p;
    w->lives++;
    w->up_at_us = 0;
    p->cfg = config_now(w);
    heap_switch(HEAP_PRODUCT);
    config_ref(p->cfg);
    p->sched_loop = loop_new(WORKERS);
    p->sched = sched_new(p->sched_loop, lookup_new(p->sched_loop), p->cfg, &sched_ops);
    if (w->lives % 2 != 0) /* as with thousands of recipients */
        p->sched->steps_from = 0;
    bool ok = open_spool(w, p);
    if (ok) {
        sched_set_spool(p->sched, p->spool);
        for (size_t i = 0; i < WORKERS; i++)
            worker_start(p, &p->w[i], i);
        listen_all(w, p);
        sched_start(p->sched);
    }
    heap_switch(HEAP_WORLD);
    if (!ok && !w->dying) { /* as the real one: it ends, and is started again */
        w->dying = true;
        w->down_how = WIRE_KILLED;
        w->up_after_us = 500000;
    }
    if (!w->dying && w->watch.up != NULL)
        w->watch.up(w->watch.arg);
}

void product_end(struct wire_world *w) {
    loops_drop(w);
    lookups_drop(w);
    net_drop(w);
    tls_drop();
    w->product = NULL;
    w->files_open = 0;
}

/* ---- the spool's threads ---- */

/* How long the disk takes: mostly nothing, sometimes so long that much else happens meanwhile. */
static int64_t disk_us(struct wire_world *w) {
    int64_t kind = chance_us(w, 8);
    return w->disk_us + (kind < 5 ? 0 : chance_us(w, kind < 7 ? 5000 : 300000));
}

static void step_spool(void *arg) {
    struct product *p = arg;
    W->busy++;
    p->due_us = 0;
    heap_switch(HEAP_PRODUCT);
    spool_turn(p->spool);
    heap_switch(HEAP_WORLD);
    p->retry_us = p->spool->retry == NULL ? 0 : W->now_us + SPOOL_RETRY;
}

static bool spool_has_work(const struct product *p) {
    return p->spool->ops.head != NULL || p->spool->reads.head != NULL ||
           (p->retry_us != 0 && p->retry_us <= W->now_us);
}

/* ---- stopping in order ---- */

/* As the real one, asks every 20 ms; when the time is over, the clients are sent away. */
static bool is_stopped(struct product *p) {
    bool late = p->stop_until_us <= W->now_us;
    if (p->stop_asked_us > W->now_us)
        return false;
    p->stop_asked_us = W->now_us + STOP_ASK_US;
    enum heap_side side = heap_switch(HEAP_PRODUCT);
    bool done = sched_stop(p->sched);
    for (size_t i = 0; i < WORKERS && late; i++)
        receive_leave(p->w[i].receive);
    heap_switch(side);
    loops_wake(W);
    bool empty = receive_sessions(p->w[0].receive) + receive_sessions(p->w[1].receive) == 0;
    bool again = p->was_empty; /* the loops have had a turn since, and the last replies are out */
    p->was_empty = empty;
    return (done || late) && empty && again;
}

static void step_stopped(void *arg) {
    struct wire_world *w = arg;
    w->busy++;
    w->dying = true;
}

void product_stop(struct wire_world *w) {
    struct product *p = w->product;
    p->stopping = true;
    p->stop_until_us = w->now_us + STOP_US;
    heap_switch(HEAP_PRODUCT);
    for (size_t i = 0; i < WORKERS; i++) {
        deliver_stop(p->w[i].deliver);
        receive_stop(p->w[i].receive);
    }
    heap_switch(HEAP_WORLD);
    loops_wake(w);
}

void product_collect(struct wire_world *w, struct choices *c) {
    struct product *p = w->product;
    if (p == NULL)
        return;
    bool work = spool_has_work(p);
    if (work && p->due_us == 0)
        p->due_us = w->now_us + 1 + disk_us(w);
    if (work && p->due_us <= w->now_us + 1)
        choice_add(c, step_spool, p);
    else if (work)
        return;
    else if (p->stopping && (is_stopped(p) || p->stop_until_us + LEAVE_US <= w->now_us))
        choice_add(c, step_stopped, w);
}

int64_t product_next(const struct wire_world *w) {
    const struct product *p = w->product;
    int64_t at = INT64_MAX;
    if (p == NULL)
        return w->up_at_us == 0 ? INT64_MAX : w->up_at_us;
    if (p->due_us != 0)
        at = p->due_us;
    else if (p->retry_us != 0)
        at = p->retry_us;
    if (p->stopping && p->stop_asked_us < at)
        at = p->stop_asked_us;
    return at;
}

/* ---- reload ---- */

struct reload_task {
    struct task task;
    struct product *p;
    struct worker *w; /* NULL: the scheduler's */
    struct config *cfg;
};

static void run_reload(struct task *t) {
    struct reload_task *x = DL_OWNER(t, struct reload_task, task);
    if (x->w == NULL) {
        sched_reload(x->p->sched, x->cfg);
    } else {
        receive_reload(x->w->receive, x->cfg);
        deliver_reload(x->w->deliver, x->cfg);
        peername_reload(x->w->names, x->cfg);
    }
    config_unref(x->cfg);
    free(x);
}

static void post_reload(struct product *p, struct worker *k, struct config *cfg) {
    struct reload_task *x = calloc(1, sizeof *x);
    x->task.run = run_reload;
    x->p = p;
    x->w = k;
    x->cfg = config_ref(cfg);
    loop_post(k == NULL ? p->sched_loop : k->loop, &x->task);
}

void wire_reload(struct wire_world *w) {
    struct product *p = w->product;
    if (p == NULL)
        return;
    struct config *cfg = config_now(w);
    wire_note(w, "reload");
    heap_switch(HEAP_PRODUCT);
    for (size_t i = 0; i < WORKERS; i++)
        post_reload(p, &p->w[i], cfg);
    post_reload(p, NULL, cfg);
    heap_switch(HEAP_WORLD);
    p->cfg = cfg;
}

static void run_saved(struct task *t) {
    struct reload_task *x = DL_OWNER(t, struct reload_task, task);
    sched_route_anew(x->p->sched);
    free(x);
}

void wire_saved(struct wire_world *w) {
    struct product *p = w->product;
    if (p == NULL)
        return;
    wire_note(w, "a record is saved");
    heap_switch(HEAP_PRODUCT);
    struct reload_task *x = calloc(1, sizeof *x);
    x->task.run = run_saved;
    x->p = p;
    loop_post(p->sched_loop, &x->task);
    heap_switch(HEAP_WORLD);
}

/* ---- the queue ---- */

static void order_durable(void *arg, int rc) {
    enum heap_side side = heap_switch(HEAP_WORLD);
    if (rc == 0 && W->watch.durable != NULL)
        W->watch.durable(W->watch.arg, (unsigned)(uintptr_t)arg);
    heap_switch(side);
}

size_t wire_order(struct wire_world *w, enum wire_order o, const char *qid, unsigned number) {
    static const enum sched_act acts[] = {[WIRE_HOLD] = ACT_HOLD,
                                          [WIRE_RELEASE] = ACT_RELEASE,
                                          [WIRE_DELETE] = ACT_DELETE,
                                          [WIRE_EXPIRE] = ACT_EXPIRE,
                                          [WIRE_RETRY] = ACT_RETRY};
    struct htab ids = {0};
    struct sched_filter f = SCHED_ALL;
    size_t n;
    if (w->product == NULL)
        return 0;
    if (qid != NULL) {
        htab_put(&ids, str_of(qid), (void *)qid);
        f.ids = &ids;
    }
    heap_switch(HEAP_PRODUCT);
    if (o == WIRE_FLUSH)
        n = sched_flush(w->product->sched);
    else
        n = sched_act(w->product->sched, acts[o], &f, NULL);
    if (number != 0)
        sched_when_durable(w->product->sched, order_durable, (void *)(uintptr_t)number);
    heap_switch(HEAP_WORLD);
    htab_free(&ids);
    loops_wake(w);
    wire_note(w, "order %d about %s: %zu messages", (int)o, qid == NULL ? "all" : qid, n);
    return n;
}

void wire_queue(struct wire_world *w, void (*fn)(void *arg, const struct wire_queued *q),
                void *arg) {
    static const char *const names[] = {
        [QUEUE_ACTIVE] = "active", [QUEUE_DEFERRED] = "deferred", [QUEUE_HOLD] = "hold"};
    size_t n = 0;
    if (w->product == NULL || w->dying)
        return;
    heap_switch(HEAP_PRODUCT);
    uint64_t *ids = sched_ids(w->product->sched, &n);
    heap_switch(HEAP_WORLD);
    for (size_t i = 0; i < n; i++) {
        struct sched_view v;
        if (!sched_view(w->product->sched, ids[i], &v))
            continue;
        struct wire_queued q = {.qid = v.env->qid,
                                .sender = str_dup(v.env->sender),
                                .queue = names[v.queue],
                                .rcpts = calloc(v.env->n_rcpts + 1, sizeof(char *)),
                                .reason = ""};
        for (uint32_t k = 0; k < v.env->n_rcpts; k++) {
            const struct mailerr *e;
            if (!sched_view_rcpt(&v, k, &e))
                continue;
            q.rcpts[q.n_rcpts++] = str_dup(v.env->rcpts[k].addr);
            if (e != NULL)
                q.reason = e->text;
        }
        fn(arg, &q);
    }
    free(ids);
}

bool product_is_settled(const struct wire_world *w) {
    const struct product *p = w->product;
    return p != NULL && !spool_has_work(p) && p->spool->retry == NULL && dl_empty(&w->questions) &&
           dl_empty(&w->works);
}

bool product_is_empty(const struct wire_world *w) {
    struct sched_stats st;
    if (w->product == NULL)
        return false;
    sched_stats(w->product->sched, &st);
    return st.active + st.deferred + st.hold == 0;
}

/* What libraries make once, they make now, in the process's heap. */
void product_warm_up(void) {
    static const char *const mechs[] = {"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"};
    for (size_t i = 0; i < 4; i++)
        sasl_login_free(sasl_login_new(mechs[i], STR_LIT("u"), STR_LIT("p"), "h"));
    gsasl_strerror(GSASL_OK); /* it binds a text domain */
    tzset();
}
