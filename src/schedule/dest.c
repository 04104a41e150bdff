/*
 * schedule/dest.c - destinations: fairness among senders, concurrency, rest after failure
 *
 * A destination that fails as a whole (nobody answers, login refused) rests for
 * minimal_backoff_time; what is queued for it is deferred with "delivery temporarily suspended",
 * and no other destination notices.  postqueue -f wakes it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/logline.h"
#include "route/record.h"
#include "schedule/sched.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"

#define QUANTUM      4096 /* bytes a sender may send in one turn */
#define DEPTH        3U   /* attempts per session when there is more work than sessions */
#define SLOT_IDLE_MS 10000
#define DEST_IDLE_MS 60000

static void dest_limits(struct sched *s, struct dest *d) {
    int64_t limit = config_transport_int(s->cfg, d->transport, "destination_concurrency_limit");
    int64_t delay = config_transport_int(s->cfg, d->transport, "destination_rate_delay");
    d->max_window = limit <= 0 ? 1000 : (unsigned)limit;
    d->rate_delay_ms = delay * 1000;
    if (delay > 0)
        d->max_window = 1;
}

static unsigned first_window(struct sched *s, const struct dest *d) {
    int64_t w = s->cfg->p.initial_destination_concurrency;
    return w <= 0 || w > d->max_window ? d->max_window : (unsigned)w;
}

/* All direct delivery is one: its next hops are the world's domains. */
static struct hop *dest_hop(struct sched *s, const struct dest *d) {
    struct record rec;
    if (!d->configured)
        return tally_hop(&s->tally, STR_LIT(""), STR_LIT(""));
    if (d->record[0] == '\0' || !record_parse(&rec, str_of(d->record)))
        return tally_hop(&s->tally, str_of(d->nexthop), STR_LIT(""));
    struct hop *h = tally_hop(&s->tally, str_of(d->nexthop), str_of(rec.name));
    record_free(&rec);
    return h;
}

/* Nothing is tried there until then; 0: it is. */
static void dest_rest(struct dest *d, int64_t until_ms) {
    d->dead_until = until_ms;
    if (d->configured) /* of direct delivery, each destination rests for itself */
        d->hop->resting_ms = until_ms;
}

static uint64_t dest_hash(const struct dest_key *k) {
    uint64_t h = kset_mix(KSET_SEED + k->configured, str_of(k->transport));
    return kset_mix(kset_mix_folded(h, k->nexthop), k->record);
}

static bool dest_same(const void *val, const void *key) {
    const struct dest *d = val;
    const struct dest_key *k = key;
    return d->configured == k->configured && strcmp(d->transport, k->transport) == 0 &&
           str_ieq(str_of(d->nexthop), k->nexthop) && str_eq_c(k->record, d->record);
}

static struct dest *dest_new(struct sched *s, const struct dest_key *k, uint64_t hash) {
    struct dest *d = MEM_NEW(struct dest);
    d->hash = hash;
    d->transport = mem_strdup(k->transport);
    d->nexthop = str_dup(k->nexthop);
    d->record = str_dup(k->record);
    d->configured = k->configured;
    dl_init(&d->senders);
    dl_init(&d->slots);
    d->hop = dest_hop(s, d);
    dest_limits(s, d);
    d->window = first_window(s, d);
    kset_add(&s->dests, hash, d);
    return d;
}

struct dest *dest_get(struct sched *s, const struct route *r) {
    struct dest_key key = {r->transport->name, sbuf_str(&r->nexthop), sbuf_str(&r->record),
                           r->configured};
    uint64_t hash = dest_hash(&key);
    struct dest *d = kset_get(&s->dests, hash, dest_same, &key);
    if (d == NULL)
        d = dest_new(s, &key, hash);
    d->used_ms = s->loop->now_ms;
    return d;
}

static void dest_free(struct sched *s, struct dest *d) {
    kset_remove(&s->dests, d->hash, d);
    htab_free(&d->by_sender);
    mailerr_free(&d->dead_err);
    free(d->transport);
    free(d->nexthop);
    free(d->record);
    free(d);
}

void dest_queue(struct dest *d, struct job *j) {
    struct str sender = j->m->env->sender;
    struct squeue *q = htab_get(&d->by_sender, sender);
    if (q == NULL) {
        q = MEM_NEW(struct squeue);
        q->sender = str_dup(sender);
        dl_init(&q->jobs);
        htab_put(&d->by_sender, str_make(q->sender, sender.n), q);
        dl_push(&d->senders, &q->link);
        q->deficit = QUANTUM;
    }
    dl_push(&q->jobs, &j->link);
    d->queued++;
    msg_set_hop(j->m, d->hop);
}

static void squeue_free(struct dest *d, struct squeue *q) {
    dl_remove(&q->link);
    htab_del(&d->by_sender, str_of(q->sender));
    free(q->sender);
    free(q);
}

/* The job whose turn it is: the first sender's, unless it has used up its share of bytes. */
static struct squeue *turn(struct dest *d) {
    for (;;) {
        struct squeue *q = DL_OWNER(d->senders.next, struct squeue, link);
        if (q->link.next == q->link.prev && q->deficit <= 0) /* alone: nobody to share with */
            q->deficit = QUANTUM;
        if (q->deficit > 0)
            return q;
        q->deficit += QUANTUM;
        dl_remove(&q->link);
        dl_push(&d->senders, &q->link);
    }
}

static struct job *take(struct dest *d, struct squeue *q) {
    struct job *j = DL_OWNER(dl_pop(&q->jobs), struct job, link);
    d->queued--;
    q->deficit -= (int64_t)j->m->env->size + 512;
    if (dl_empty(&q->jobs))
        squeue_free(d, q);
    return j;
}

void job_free(struct job *j) {
    dl_remove(&j->link);
    free(j->idx);
    free(j);
}

/* A log line and a deferral for every recipient of a job that is not tried at all. */
static void job_defer(struct job *j, const struct mailerr *e) {
    struct msg *m = j->m;
    int64_t now = clock_wall_us();
    struct logline_times t = {m->env->arrival_us, m->active_us, now, 0, now};
    const struct service *svc = config_transport(m->s->cfg, str_of("retry"));
    for (uint32_t i = 0; i < j->n; i++) {
        tally_result(&m->s->tally, NULL, m->env->sender, e);
        logline_delivery(svc == NULL ? NULL : svc->log_name, "error", m->env->qid,
                         m->env->rcpts[j->idx[i]].addr, "none", 0, &t, e);
    }
    msg_reason(m, str_of(e->text));
    uint32_t n = j->n;
    job_free(j);
    msg_closed(m, n);
}

/* Gives up a job for which a session was reserved. */
static void job_give_up(struct job *j, const struct mailerr *e) {
    struct slot *slot = j->slot;
    if (slot != NULL) {
        slot->depth--;
        slot->d->depth--;
        slot->idle_ms = slot->s->loop->now_ms;
    }
    job_defer(j, e);
}

void job_unreadable(struct job *j, int rc) {
    struct mailerr e = {0};
    mailerr_set(&e, MAIL_DEFERRED, "4.3.0", "cannot read the message content: %s",
                rc == -EBADMSG ? "it was damaged on disk" : strerror(-rc));
    mailerr_blame(&e, PHASE_ROUTE, BLAME_OURSELVES);
    job_give_up(j, &e);
    mailerr_free(&e);
}

/* Everything queued for the destination waits for its next round, with that error. */
static void dest_defer_all(struct dest *d, const struct mailerr *e) {
    while (!dl_empty(&d->senders)) {
        struct squeue *q = DL_OWNER(d->senders.next, struct squeue, link);
        job_defer(take(d, q), e);
    }
}

static void dest_defer_resting(struct dest *d) {
    struct mailerr e = {0};
    mailerr_set(&e, MAIL_DEFERRED, d->dead_err.dsn, "delivery temporarily suspended: %s",
                d->dead_err.text);
    mailerr_blame(&e, PHASE_ROUTE, BLAME_SITE);
    dest_defer_all(d, &e);
    mailerr_free(&e);
}

/* A reload may have taken the transport away. */
static void no_transport(const struct dest *d, struct mailerr *e) {
    mailerr_set(e, MAIL_DEFERRED, "4.3.5", ROUTE_NO_TRANSPORT, STR_FMT(str_of(d->transport)));
    mailerr_blame(e, PHASE_ROUTE, BLAME_OURSELVES);
}

static void dest_defer_unserved(struct dest *d) {
    struct mailerr e = {0};
    no_transport(d, &e);
    dest_defer_all(d, &e);
    mailerr_free(&e);
}

/* Whose session it is; NULL while sessions are shared by all senders. */
static bool per_sender(const struct sched *s, const struct dest *d) {
    const struct service *t = config_transport(s->cfg, str_of(d->transport));
    /* A relay record has one account, whoever sends. */
    return t != NULL && t->p.smtp_sender_dependent_authentication && d->record[0] == '\0';
}

static bool slot_fits(const struct slot *k, struct str sender) {
    return k->sender == NULL || str_eq_c(sender, k->sender);
}

static struct slot *slot_new(struct sched *s, struct dest *d) {
    struct slot *k = MEM_NEW(struct slot);
    k->d = d;
    k->s = s;
    k->session = s->ops.session_new(s->ops.arg, k);
    dl_push(&d->slots, &k->link);
    d->n_slots++;
    return k;
}

static void slot_free(struct slot *k) {
    k->s->ops.session_release(k->session);
    dl_remove(&k->link);
    k->d->n_slots--;
    free(k->sender);
    free(k);
}

/* An idle session of the same sender; else a new one; else an idle one of somebody else (it logs in
 * anew); else, with a backlog, the least loaded one. */
static struct slot *pick(struct sched *s, struct dest *d, struct str sender) {
    struct slot *other = NULL, *least = NULL;
    DL_EACH (it, &d->slots) {
        struct slot *k = DL_OWNER(it, struct slot, link);
        if (k->depth == 0 && slot_fits(k, sender))
            return k;
        if (k->depth == 0)
            other = k;
        else if (slot_fits(k, sender) && k->depth < DEPTH &&
                 (least == NULL || k->depth < least->depth))
            least = k;
    }
    if (d->n_slots < d->window)
        return slot_new(s, d);
    if (other != NULL)
        return other;
    return d->rate_delay_ms == 0 && d->window == d->max_window ? least : NULL;
}

static struct attempt *attempt_make(struct sched *s, struct job *j, const struct service *t) {
    struct attempt *a = MEM_NEW(struct attempt);
    a->owner = j;
    a->cfg = config_ref(s->cfg);
    a->transport = t;
    a->nexthop = mem_strdup(j->d->nexthop);
    a->record = mem_strdup(j->d->record);
    a->configured = j->d->configured;
    a->env = envelope_ref(j->m->env);
    a->body = body_ref(j->m->body);
    a->n = j->n;
    a->idx = mem_alloc(j->n * sizeof *a->idx);
    memcpy(a->idx, j->idx, j->n * sizeof *a->idx);
    a->res = mem_zalloc(j->n * sizeof *a->res);
    a->tried = mem_zalloc(j->n * sizeof *a->tried);
    a->active_us = j->m->active_us;
    return a;
}

void job_ready(struct job *j) {
    struct sched *s = j->m->s;
    const struct service *t = config_transport(s->cfg, str_of(j->d->transport));
    struct mailerr e = {0};
    if (t != NULL) {
        s->ops.session_give(j->slot->session, attempt_make(s, j, t));
        return;
    }
    no_transport(j->d, &e);
    job_give_up(j, &e);
    mailerr_free(&e);
}

struct read_op {
    struct spool_op op;
    struct task back;
    struct sched *s;
    uint64_t id;
};

static void read_back(struct task *t) {
    struct read_op *r = DL_OWNER(t, struct read_op, back);
    struct msg *m = itab_get(&r->s->msgs, r->id);
    struct dl *n;
    if (m == NULL) {
        body_unref(r->op.rc == 0 ? r->op.body : NULL);
        free(r);
        return;
    }
    m->reading = false;
    if (r->op.rc == 0)
        m->body = r->op.body;
    int rc = r->op.rc;
    free(r);
    struct dl ready;
    dl_init(&ready);
    while ((n = dl_pop(&m->waiting)) != NULL)
        dl_push(&ready, n);
    while ((n = dl_pop(&ready)) != NULL) {
        struct job *j = DL_OWNER(n, struct job, link);
        if (rc == 0)
            job_ready(j);
        else
            job_unreadable(j, rc);
    }
}

static void read_done(struct spool_op *op) {
    struct read_op *r = DL_OWNER(op, struct read_op, op);
    r->back.run = read_back;
    loop_post(r->s->loop, &r->back);
}

/* Gives a job to a session, when its content is there. */
static void assign(struct sched *s, struct slot *k, struct job *j) {
    k->depth++;
    k->d->depth++;
    j->slot = k;
    free(k->sender);
    k->sender = per_sender(s, k->d) ? str_dup(j->m->env->sender) : NULL;
    if (j->m->body != NULL) {
        job_ready(j);
        return;
    }
    dl_push(&j->m->waiting, &j->link);
    if (j->m->reading)
        return;
    struct read_op *r = MEM_NEW(struct read_op);
    r->s = s;
    r->id = j->m->env->id;
    r->op.kind = SPOOL_READ;
    r->op.id = r->id;
    r->op.done = read_done;
    j->m->reading = true;
    spool_submit(s->spool, &r->op);
}

void dest_dispatch(struct sched *s, struct dest *d) {
    while (d->queued > 0) {
        if (config_transport(s->cfg, str_of(d->transport)) == NULL) {
            dest_defer_unserved(d);
            return;
        }
        if (d->dead_until > s->loop->now_ms) {
            dest_defer_resting(d);
            return;
        }
        dest_rest(d, 0);
        if (d->rate_delay_ms > 0 && (d->depth > 0 || d->not_before > s->loop->now_ms))
            return;
        struct squeue *q = turn(d);
        struct slot *k = pick(s, d, str_of(q->sender));
        if (k == NULL)
            return;
        assign(s, k, take(d, q));
    }
}

static void feedback(struct sched *s, struct dest *d, const struct attempt *a) {
    if (a->outcome == ATTEMPT_TRIED) {
        d->failures = 0;
        if (d->window < d->max_window)
            d->window++;
        return;
    }
    if (a->outcome != ATTEMPT_SITE)
        return;
    int64_t limit =
        config_transport_int(s->cfg, d->transport, "destination_concurrency_failed_cohort_limit");
    if (d->window > 1)
        d->window--;
    if (++d->failures < (limit <= 0 ? 1 : limit) || d->dead_until > s->loop->now_ms)
        return;
    dest_rest(d, s->loop->now_ms + s->cfg->p.minimal_backoff_time * 1000);
    mailerr_copy(&d->dead_err, &a->res[0]);
    d->window = first_window(s, d);
    d->failures = 0;
}

/* Success reports are ours to send where the remote does not take them over. */
static bool wants_relayed(const struct attempt *a, uint32_t i) {
    return (a->env->rcpts[a->idx[i]].notify & NOTIFY_SUCCESS) != 0 && !a->remote_dsn;
}

static void take_results(struct msg *m, const struct attempt *a, struct hop *hop) {
    if (a->cert_until != 0)
        hop->cert_until = a->cert_until;
    for (uint32_t i = 0; i < a->n; i++) {
        const struct mailerr *e = &a->res[i];
        tally_result(&m->s->tally, hop, m->env->sender, e);
        if (e->status == MAIL_SENT) {
            if (wants_relayed(a, i))
                msg_outcome(m, a->idx[i], e, true);
            else
                msg_settle(m, a->idx[i]);
        } else if (e->status == MAIL_BOUNCED) {
            msg_outcome(m, a->idx[i], e, false);
        } else {
            msg_reason(m, str_of(e->text));
        }
    }
}

void dest_result(struct sched *s, struct slot *k, struct attempt *a) {
    struct job *j = a->owner;
    struct dest *d = k->d;
    struct msg *m = j->m;
    uint32_t n = j->n;
    k->depth--;
    d->depth--;
    k->idle_ms = s->loop->now_ms;
    d->used_ms = s->loop->now_ms;
    d->not_before = s->loop->now_ms + d->rate_delay_ms;
    if (a->outcome == ATTEMPT_RETURNED) {
        dest_queue(d, j);
    } else {
        feedback(s, d, a);
        take_results(m, a, d->hop);
        job_free(j);
        msg_closed(m, n);
    }
    attempt_free(a);
    dest_dispatch(s, d);
}

void dest_wake_all(struct sched *s) {
    size_t pos = 0;
    for (struct dest *d; (d = kset_next(&s->dests, &pos)) != NULL;) {
        dest_rest(d, 0);
        d->failures = 0;
        dest_limits(s, d);
        if (d->window > d->max_window)
            d->window = d->max_window;
    }
}

static void slots_tick(struct dest *d, int64_t now_ms) {
    DL_EACH_SAFE (it, &d->slots) {
        struct slot *k = DL_OWNER(it, struct slot, link);
        if (k->depth == 0 && now_ms - k->idle_ms > SLOT_IDLE_MS)
            slot_free(k);
    }
}

/* Lets idle sessions and destinations go; wakes what a rate delay held back. */
void dest_tick(struct sched *s, int64_t now_ms) {
    struct dest *old = NULL;
    size_t pos = 0;
    for (struct dest *d; (d = kset_next(&s->dests, &pos)) != NULL;) {
        slots_tick(d, now_ms);
        if (d->queued > 0 && d->rate_delay_ms > 0)
            dest_dispatch(s, d);
        if (d->queued == 0 && d->n_slots == 0 && d->dead_until < now_ms &&
            now_ms - d->used_ms > DEST_IDLE_MS)
            old = d;
    }
    if (old != NULL) /* one a tick: the table must not change while it is walked */
        dest_free(s, old);
}
