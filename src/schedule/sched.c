/*
 * schedule/sched.c - queued messages: arrival, routing, queues, what an administrator asks
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "report/logline.h"
#include "schedule/sched.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"

#define TICK_MS        200
#define SLICE_MS       5
#define JUMP_US        10000000LL /* less is the work of ntpd */
#define BODY_FILES_MAX 512U       /* descriptors that waiting messages may hold */

void msg_set_queue(struct msg *m, enum sched_queue q) {
    m->s->n_queue[m->queue]--;
    m->queue = q;
    m->s->n_queue[q]++;
}

void msg_free(struct msg *m) {
    struct sched *s = m->s;
    heap_del(s, m);
    itab_del(&s->msgs, m->env->id);
    s->n_queue[m->queue]--;
    for (size_t i = 0; i < m->n_outcomes; i++)
        mailerr_free(&m->outcomes[i].err);
    free(m->outcomes);
    free(m->queries);
    msg_reason(m, STR_LIT(""));
    msg_set_hop(m, NULL);
    body_unref(m->body);
    envelope_unref(m->env);
    free(m);
}

static struct msg *msg_new(struct sched *s, struct envelope *env, struct body *body) {
    struct msg *m = mem_zalloc(sizeof *m + env->n_rcpts);
    m->s = s;
    m->env = env;
    m->body = body;
    m->left = env->n_rcpts;
    m->queue = QUEUE_DEFERRED;
    dl_init(&m->waiting);
    s->n_queue[m->queue]++;
    itab_put(&s->msgs, env->id, m);
    return m;
}

static struct reason *reason_get(struct sched *s, struct str text) {
    struct reason *r = htab_get(&s->reasons, text);
    if (r == NULL) {
        r = MEM_NEW(struct reason);
        r->text = str_make(str_dup(text), text.n);
        htab_put(&s->reasons, r->text, r);
    }
    r->users++;
    return r;
}

static void reason_drop(struct sched *s, struct reason *r) {
    if (--r->users > 0)
        return;
    htab_del(&s->reasons, r->text);
    free((char *)r->text.p);
    free(r);
}

void msg_reason(struct msg *m, struct str text) {
    struct reason *old = m->reason;
    m->reason = text.n == 0 ? NULL : reason_get(m->s, text);
    if (old != NULL)
        reason_drop(m->s, old);
}

void msg_set_hop(struct msg *m, struct hop *hop) {
    if (m->hop != NULL)
        m->hop->waiting--;
    m->hop = hop;
    if (hop != NULL)
        hop->waiting++;
}

const char *msg_why(const struct msg *m, const char *otherwise) {
    return m->reason == NULL ? otherwise : m->reason->text.p;
}

void msg_settle(struct msg *m, uint32_t rcpt) {
    if (m->done[rcpt] != 0)
        return;
    m->done[rcpt] = 1;
    m->left--;
    m->partial = true;
}

void msg_outcome(struct msg *m, uint32_t rcpt, const struct mailerr *e, bool relayed) {
    m->outcomes = mem_realloc(m->outcomes, (m->n_outcomes + 1) * sizeof *m->outcomes);
    struct outcome *o = &m->outcomes[m->n_outcomes++];
    *o = (struct outcome){.rcpt = rcpt, .relayed = relayed};
    mailerr_copy(&o->err, e);
}

void msg_encode(struct msg *m, struct sbuf *out) {
    struct progress p = {.done = m->done,
                         .n = m->env->n_rcpts,
                         .attempts = m->attempts,
                         .next_us = m->next_us,
                         .last_us = clock_wall_us(),
                         .flags = m->flags,
                         .reason = str_of(msg_why(m, ""))};
    progress_encode(&p, out);
}

void msg_note(struct msg *m) {
    struct sbuf b = {0};
    msg_encode(m, &b);
    spool_note(m->s->spool, SPOOL_PROGRESS, m->env->id, &b);
    m->partial = false;
}

void msg_closed(struct msg *m, uint32_t n) {
    m->open -= n;
    if (m->open == 0)
        msg_finish(m);
    else if (m->partial) /* others go on: after a crash these must not be sent again */
        msg_note(m);
}

struct routing {
    struct msg *m;
    uint32_t rcpt;
    bool returned;
};

/* Transports that need no session: error, retry, discard. */
static void deliver_here(struct msg *m, uint32_t i, const struct route *r) {
    struct mailerr e = {0};
    int64_t now = clock_wall_us();
    struct logline_times t = {m->env->arrival_us, m->active_us, now, 0, now};
    struct str text = sbuf_str(&r->nexthop);
    char dsn[12];
    enum service_kind kind = r->transport->kind;
    bool soft = kind == SERVICE_RETRY || (text.n > 0 && text.p[0] == '4');
    dsn_from_reply(dsn, soft ? 400 : 500, text);
    if (text.n > strlen(dsn) && memcmp(text.p, dsn, strlen(dsn)) == 0)
        text = str_trim(str_from(text, strlen(dsn)));
    if (kind == SERVICE_DISCARD)
        mailerr_set(&e, MAIL_SENT, "2.0.0", "%.*s", STR_FMT(text));
    else
        mailerr_set(&e, soft ? MAIL_DEFERRED : MAIL_BOUNCED, dsn, "%.*s",
                    STR_FMT(text.n > 0 ? text : STR_LIT("Address is undeliverable")));
    logline_delivery(r->transport->log_name, kind == SERVICE_DISCARD ? "discard" : "error",
                     m->env->qid, m->env->rcpts[i].addr, "none", 0, &t, &e);
    tally_result(&m->s->tally, NULL, m->env->sender, &e);
    if (e.status == MAIL_SENT)
        msg_settle(m, i);
    else if (e.status == MAIL_BOUNCED)
        msg_outcome(m, i, &e, false);
    else
        msg_reason(m, str_of(e.text));
    mailerr_free(&e);
}

static void defer_here(struct msg *m, uint32_t i, const char *dsn, const char *text) {
    struct mailerr e = {0};
    int64_t now = clock_wall_us();
    struct logline_times t = {m->env->arrival_us, m->active_us, now, 0, now};
    mailerr_set(&e, MAIL_DEFERRED, dsn, "%s", text);
    logline_delivery(NULL, "error", m->env->qid, m->env->rcpts[i].addr, "none", 0, &t, &e);
    tally_result(&m->s->tally, NULL, m->env->sender, &e);
    msg_reason(m, str_of(text));
    mailerr_free(&e);
}

static bool is_deferred_transport(const struct sched *s, const char *name) {
    struct str rest = str_of(s->cfg->p.defer_transports), w;
    while (str_split(&rest, ", \t", &w))
        if (str_eq_c(w, name))
            return true;
    return false;
}

/* The job of this message for d that still has room, or a new one. */
static struct job *job_for(struct msg *m, struct dest *d, struct dl *jobs) {
    DL_EACH (it, jobs) {
        struct job *j = DL_OWNER(it, struct job, link);
        if (j->d != d)
            continue;
        int64_t max = config_transport_int(m->s->cfg, d->transport, "destination_recipient_limit");
        if (max <= 0 || j->n < (uint32_t)max)
            return j;
    }
    struct job *j = MEM_NEW(struct job);
    j->m = m;
    j->d = d;
    dl_push(jobs, &j->link);
    return j;
}

static void job_add(struct job *j, uint32_t rcpt) {
    if (j->n == j->cap) {
        j->cap = j->cap == 0 ? 1 : j->cap * 2;
        j->idx = mem_realloc(j->idx, j->cap * sizeof *j->idx);
    }
    j->idx[j->n++] = rcpt;
}

/* Every recipient has its route: the jobs may go. */
static void jobs_go(struct msg *m) {
    struct sched *s = m->s;
    struct dl *n;
    free(m->queries);
    m->queries = NULL;
    if (m->open == 0) {
        msg_finish(m);
        return;
    }
    struct dl jobs;
    dl_init(&jobs);
    while ((n = dl_pop(&m->waiting)) != NULL)
        dl_push(&jobs, n);
    m->open++; /* dispatching may give results at once: the message must outlive the loop */
    while ((n = dl_pop(&jobs)) != NULL) {
        struct job *j = DL_OWNER(n, struct job, link);
        struct dest *d = j->d;
        dest_queue(d, j);
        dest_dispatch(s, d);
    }
    msg_closed(m, 1);
}

static void on_route(void *arg, const struct route *r) {
    struct routing *g = arg;
    struct msg *m = g->m;
    uint32_t i = g->rcpt;
    struct sched *s = m->s;
    if (r->rc == ROUTE_FAILED) {
        defer_here(m, i, "4.3.0", "address resolver failure");
    } else if (r->rc == ROUTE_BAD) {
        defer_here(m, i, "4.3.5", r->why.p);
    } else if (r->transport->kind != SERVICE_SMTP) {
        deliver_here(m, i, r);
    } else if (is_deferred_transport(s, r->transport->name)) {
        defer_here(m, i, "4.3.2", "deferred transport");
    } else {
        struct dest *d = dest_get(s, r);
        job_add(job_for(m, d, &m->waiting), i);
        m->open++;
    }
    m->queries[i] = NULL;
    m->open--;
    bool last = --m->routing == 0;
    if (g->returned) {
        free(g);
        if (last)
            jobs_go(m);
    }
}

void msg_activate(struct msg *m) {
    struct sched *s = m->s;
    heap_del(s, m);
    msg_set_queue(m, QUEUE_ACTIVE);
    m->active_us = clock_wall_us();
    m->attempts++;
    msg_reason(m, STR_LIT(""));
    logline_active(m->env, m->left);
    if ((m->flags & PROGRESS_EXPIRE) != 0) { /* forced: no further attempt */
        msg_finish(m);
        return;
    }
    m->queries = mem_zalloc(m->env->n_rcpts * sizeof(struct route_query *));
    m->open = m->left;
    m->routing = m->left + 1; /* one is ours, so that nothing goes before all are asked */
    for (uint32_t i = 0; i < m->env->n_rcpts; i++) {
        if (m->done[i] != 0)
            continue;
        struct routing *g = MEM_NEW(struct routing);
        g->m = m;
        g->rcpt = i;
        struct route_query *q = route_resolve(s->cfg, s->lookup, m->env->sender,
                                              m->env->rcpts[i].addr, NULL, on_route, g);
        if (q == NULL) {
            free(g);
        } else {
            g->returned = true;
            m->queries[i] = q;
        }
    }
    if (--m->routing == 0)
        jobs_go(m);
}

struct add_task {
    struct task task;
    struct sched *s;
    struct envelope *env;
    struct body *body;
};

static void run_add(struct task *t) {
    struct add_task *a = DL_OWNER(t, struct add_task, task);
    struct sched *s = a->s;
    if (body_memory() > (uint64_t)s->cfg->p.message_memory_limit / 2 ||
        body_files() > BODY_FILES_MAX) { /* read again when it is sent */
        body_unref(a->body);
        a->body = NULL;
    }
    struct msg *m = msg_new(s, a->env, a->body);
    free(a);
    msg_activate(m);
}

void sched_add(struct sched *s, struct envelope *env, struct body *body) {
    struct add_task *a = MEM_NEW(struct add_task);
    a->s = s;
    a->env = env;
    a->body = body;
    a->task.run = run_add;
    loop_post(s->loop, &a->task);
}

static void run_result(struct task *t) {
    struct attempt *a = DL_OWNER(t, struct attempt, task);
    struct slot *k = a->task_session;
    dest_result(k->s, k, a);
}

void sched_result(struct sched *s, void *slot, struct attempt *a) {
    a->task_session = slot;
    a->task.run = run_result;
    loop_post(s->loop, &a->task);
}

void sched_recover(struct sched *s, struct envelope *env, struct str progress) {
    struct progress p;
    struct msg *m = msg_new(s, env, NULL);
    /* The clock may have been set back since. */
    int64_t latest = clock_wall_us() + s->cfg->p.maximal_backoff_time * 1000000;
    if (progress.n > 0 && progress_decode(&p, progress)) {
        for (uint32_t i = 0; i < env->n_rcpts && i < p.n; i++)
            if (p.done[i] != 0) {
                m->done[i] = 1;
                m->left--;
            }
        m->attempts = p.attempts;
        m->next_us = p.next_us < latest ? p.next_us : latest;
        m->flags = p.flags;
        msg_reason(m, p.reason);
        free(p.done);
    }
    if ((m->flags & PROGRESS_HOLD) != 0)
        msg_set_queue(m, QUEUE_HOLD);
    else
        heap_put(s, m);
}

static void on_more(uv_timer_t *t);

void sched_run_due(struct sched *s) {
    int64_t now = clock_wall_us(), end = clock_mono_ms() + SLICE_MS;
    for (unsigned i = 0; s->heap_n > 0 && s->heap[0]->next_us <= now; i++) {
        if (i % 64 == 63 && clock_mono_ms() >= end) {
            uv_timer_start(&s->more, on_more, 0, 0);
            return;
        }
        msg_activate(s->heap[0]);
    }
}

static void on_more(uv_timer_t *t) {
    sched_run_due(t->data);
}

/* When the clock is set, what waits goes on waiting as long as it would have, and nothing is older
 * or younger for it.  All keys of the heap move alike: its order stays. */
static void watch_clock(struct sched *s) {
    int64_t drift = clock_wall_us() - clock_mono_ms() * 1000, jump = drift - s->drift_us;
    size_t pos = 0;
    if (jump > -JUMP_US && jump < JUMP_US)
        return;
    s->drift_us = drift;
    log_warn("qmgr", "the clock was set %s by %lld s: waiting mail keeps its turn",
             jump < 0 ? "back" : "forward", (long long)((jump < 0 ? -jump : jump) / 1000000));
    for (struct msg *m; (m = itab_next(&s->msgs, &pos)) != NULL;) {
        m->next_us += jump;
        m->shift_us += jump;
    }
}

static void on_tick(uv_timer_t *t) {
    struct sched *s = t->data;
    watch_clock(s);
    sched_run_due(s);
    dest_tick(s, loop_now_ms(s->loop));
    tally_tick(&s->tally, clock_wall_us());
}

struct sched *sched_new(struct loop *l, struct lookup *k, struct config *cfg,
                        const struct sched_ops *ops) {
    struct sched *s = MEM_NEW(struct sched);
    s->loop = l;
    s->lookup = k;
    s->cfg = config_ref(cfg);
    s->ops = *ops;
    return s;
}

void sched_set_spool(struct sched *s, struct spool *sp) {
    s->spool = sp;
}

void sched_start(struct sched *s) {
    uv_timer_init(&s->loop->uv, &s->tick);
    uv_timer_init(&s->loop->uv, &s->more);
    s->tick.data = s->more.data = s;
    s->drift_us = clock_wall_us() - clock_mono_ms() * 1000;
    uv_timer_start(&s->tick, on_tick, 1, TICK_MS);
}

void sched_reload(struct sched *s, struct config *cfg) {
    config_unref(s->cfg);
    s->cfg = config_ref(cfg);
    dest_wake_all(s);
}

const struct config *sched_config(const struct sched *s) {
    return s->cfg;
}
