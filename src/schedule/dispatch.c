/*
 * schedule/dispatch.c - jobs go from their destination's queue to sessions, and results come back
 *
 * Inside a destination each sender has its turn by bytes.  A job gets a session at once, and its
 * attempt when the content is in memory.  Whatever is given or deferred here may end its message.
 */
#include "schedule/dispatch.h"

#include <errno.h>
#include <string.h>

#include "schedule/content.h"
#include "schedule/dest.h"
#include "schedule/finish.h"
#include "schedule/job.h"
#include "schedule/rcpt.h"
#include "util/log.h"
#include "util/mem.h"

/* -- to a session -- */

static struct attempt *attempt_make(const struct job *j, const struct service *transport) {
    struct attempt *a = MEM_NEW(struct attempt);
    a->owner = (void *)(uintptr_t)j;
    a->cfg = config_ref(j->m->s->cfg);
    a->transport = transport;
    a->nexthop = mem_strdup(j->d->nexthop);
    a->record = mem_strdup(j->d->record);
    a->configured = j->d->configured;
    a->tls_optional = j->d->tls_optional;
    a->filter = j->d->filter;
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

/* Its content is in memory.  It goes by the settings of today: since the job was queued, a reload
 * may have given its mail another relay host or none. */
static void job_give(struct job *j) {
    struct sched *s = j->m->s;
    const struct service *t = dest_service(s, j->d);
    if (t != NULL && j->m->settings == s->settings) {
        j->at = JOB_GIVEN;
        j->given = attempt_make(j, t);
        dl_push(&s->given, &j->link);
        s->ops.session_give(j->slot->session, j->given);
        return;
    }
    job_route_anew(j);
    dest_dispatch_stirred(s);
}

/* The content of a message could not be read: the job's recipients wait. */
static void job_unreadable(struct job *j, int rc) {
    struct sched *s = j->m->s;
    struct mailerr e = {0};
    mailerr_set(&e, MAIL_DEFERRED, "4.3.0", "cannot read the message content: %s",
                rc == -EBADMSG ? "it was damaged on disk" : strerror(-rc));
    mailerr_blame(&e, PHASE_ROUTE, BLAME_OURSELVES);
    e.cause = CAUSE_CONTENT;
    job_untried(j, &e);
    dest_dispatch_stirred(s);
    mailerr_free(&e);
}

struct read_op {
    struct spool_op op;
    struct task back;
    struct sched *s;
    uint64_t id;
};

static struct job *job_reading(const struct msg *m) {
    DL_EACH (it, &m->jobs) {
        struct job *j = DL_OWNER(it, struct job, of_msg);
        if (j->at == JOB_READING)
            return j;
    }
    return NULL;
}

/* The message may have got its content, been deleted, or wait for nothing any more meanwhile. */
static void job_read_back(struct task *t) {
    struct read_op *r = DL_OWNER(t, struct read_op, back);
    struct msg *m = itab_get(&r->s->msgs, r->id);
    int rc = r->op.rc;
    struct body *body = rc == 0 ? r->op.body : NULL;
    free(r);
    if (m != NULL)
        m->reading = false;
    if (m == NULL || m->open == 0) {
        body_unref(body);
        return;
    }
    if (m->body == NULL)
        m->body = body;
    else
        body_unref(body);
    if (m->s->stopping)
        return; /* no session gets it any more: its next round is after the next start */
    m->open++;  /* the message must outlive the loop */
    for (struct job *j; (j = job_reading(m)) != NULL;) {
        if (m->body != NULL)
            job_give(j);
        else
            job_unreadable(j, rc == 0 ? -EIO : rc);
    }
    msg_recipients_back(m, 1);
}

static void job_read_done(struct spool_op *op) {
    struct read_op *r = DL_OWNER(op, struct read_op, op);
    r->back.run = job_read_back;
    loop_post(r->s->loop, &r->back);
}

static void job_read(struct msg *m) {
    struct read_op *r = MEM_NEW(struct read_op);
    r->s = m->s;
    r->id = m->env->id;
    r->op.kind = SPOOL_READ;
    r->op.memory_max = content_memory_max(m->s);
    r->op.id = r->id;
    r->op.done = job_read_done;
    m->reading = true;
    spool_submit(m->s->spool, &r->op);
}

static void job_assign(struct job *j, struct slot *slot) {
    j->slot = slot;
    j->at = JOB_READING;
    if (j->m->body != NULL)
        job_give(j);
    else if (!j->m->reading)
        job_read(j->m);
}

/* -- out of the queue -- */

/* The sender that has its turn: the first one, unless it has used up its share of bytes. */
static struct squeue *dest_turn(struct dest *d) {
    for (;;) {
        struct squeue *q = DL_OWNER(d->senders.next, struct squeue, link);
        if (q->link.next == q->link.prev && q->deficit <= 0) /* alone: there is nothing to share */
            q->deficit = QUANTUM;
        if (q->deficit > 0)
            return q;
        q->deficit += QUANTUM;
        dl_remove(&q->link);
        dl_push(&d->senders, &q->link);
    }
}

/* Everything queued for the destination waits for its next round, with that error. */
static void dest_defer_all(struct dest *d, const struct mailerr *e) {
    while (!dl_empty(&d->senders)) {
        struct squeue *q = DL_OWNER(d->senders.next, struct squeue, link);
        job_untried(squeue_take(q), e);
    }
}

static void dest_defer_resting(struct dest *d) {
    struct mailerr e = {0};
    mailerr_suspend(&e, &d->dead_err);
    dest_defer_all(d, &e);
    mailerr_free(&e);
}

static void dest_route_anew(struct dest *d) {
    while (!dl_empty(&d->senders))
        job_route_anew(squeue_take(DL_OWNER(d->senders.next, struct squeue, link)));
}

/* Can nothing go there now?  What waits is deferred if that will not change soon. */
static bool dest_is_closed(struct sched *s, struct dest *d) {
    if (dest_service(s, d) == NULL) {
        dest_route_anew(d);
        return true;
    }
    if (d->dead_until > s->loop->now_ms) {
        dest_defer_resting(d);
        return true;
    }
    return d->rate_delay_ms > 0 && (d->depth > 0 || d->not_before > s->loop->now_ms);
}

/* What is sent while that cannot be noted would be sent again after the next start, all of it. */
static bool sched_is_halted(struct sched *s) {
    if (spool_is_behind(s->spool) && !s->halted) {
        log_error("qmgr", "the disk does not take down what becomes of mail: no more is sent until "
                          "it does");
        s->halted = true;
    }
    return s->halted;
}

void dest_dispatch(struct sched *s, struct dest *d) {
    dl_remove(&d->stirred);
    while (d->queued > 0 && !s->stopping && !sched_is_halted(s) && !dest_is_closed(s, d)) {
        dest_wake(d);
        struct squeue *q = dest_turn(d);
        struct str sender = str_of(q->sender);
        struct slot *slot = dest_pick(s, d, sender);
        if (slot == NULL)
            break;
        slot_reserve(slot, sender);
        job_assign(squeue_take(q), slot);
    }
}

void dest_dispatch_stirred(struct sched *s) {
    struct dl *n;
    while ((n = dl_pop(&s->stirred)) != NULL) {
        struct dest *d = DL_OWNER(n, struct dest, stirred);
        dest_dispatch(s, d);
        load_stir(s, d->load); /* it may not have needed the session */
    }
}

void dest_route_all_anew(struct sched *s) {
    size_t pos = 0;
    for (struct dest *d; (d = kset_next(&s->dests, &pos)) != NULL;)
        dest_route_anew(d);
    dest_dispatch_stirred(s);
}

/* -- back from a session -- */

/* Success reports are ours to send where the remote does not take them over. */
static bool wants_relayed(const struct envelope *env, uint32_t rcpt, bool remote_dsn) {
    return env->sender.n > 0 && !remote_dsn && (env->rcpts[rcpt].notify & NOTIFY_SUCCESS) != 0;
}

void dest_taken(const struct attempt_taken *t) {
    const struct job *j = t->owner;
    struct msg *m = j->m;
    for (uint32_t i = 0; i < t->n; i++)
        msg_result(m, t->idx[i], &t->res[i], wants_relayed(m->env, t->idx[i], t->remote_dsn));
    if (m->partial)
        msg_save_part(m);
}

/* A recipient that a session forgot has no result, and waits. */
static const struct mailerr *attempt_result(struct attempt *a, uint32_t i) {
    if (!a->tried[i] || a->res[i].status == MAIL_UNSET) {
        log_error("qmgr", "%s: a delivery session gave no result", a->env->qid);
        mailerr_set(&a->res[i], MAIL_DEFERRED, "4.3.0", "internal error: no result");
        mailerr_blame(&a->res[i], PHASE_ROUTE, BLAME_OURSELVES);
        a->res[i].cause = CAUSE_INTERNAL;
    }
    return &a->res[i];
}

static void msg_take_results(struct msg *m, struct attempt *a, struct hop *hop) {
    if (a->cert_until != 0)
        hop->cert_until = a->cert_until;
    for (uint32_t i = 0; i < a->n; i++) {
        const struct mailerr *e = attempt_result(a, i);
        tally_result(&m->s->tally, hop, m->env->sender, e);
        msg_result(m, a->idx[i], e, wants_relayed(m->env, a->idx[i], a->remote_dsn));
    }
}

/* The job's session needs the content no more.  Where no other session has it or is about to, it
 * waits with those recipients of the message that are in queues. */
static void job_leaves_content(const struct job *j) {
    struct msg *m = j->m;
    if (m->body == NULL)
        return;
    DL_EACH (it, &m->jobs) {
        const struct job *other = DL_OWNER(it, struct job, of_msg);
        if (other != j && (other->at == JOB_READING || other->at == JOB_GIVEN))
            return;
    }
    msg_spare_body(m);
}

/* The attempt was not made, at least not for all recipients: the others go to another session,
 * unless an order has taken them back. */
static void job_returned(struct job *j, struct attempt *a) {
    struct msg *m = j->m;
    struct sched *s = m->s;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < a->n; i++) {
        if (!a->tried[i]) {
            j->idx[kept++] = a->idx[i];
            continue;
        }
        tally_result(&s->tally, j->d->hop, m->env->sender, &a->res[i]);
        msg_result(m, a->idx[i], &a->res[i], wants_relayed(m->env, a->idx[i], a->remote_dsn));
    }
    m->open -= j->n - kept;
    j->n = kept;
    if (kept == 0 || (atomic_load(&a->recalled) && !s->stopping)) {
        m->at_once = m->at_once || m->settings != s->settings;
        msg_recipients_back(m, job_withdraw(j));
        return;
    }
    if (m->partial)
        msg_save_part(m);
    dl_remove(&j->link);
    j->given = NULL;
    j->slot = NULL;
    job_leaves_content(j);
    job_enqueue(j);
}

void dest_result(struct sched *s, struct slot *slot, struct attempt *a) {
    struct job *j = a->owner;
    struct dest *d = slot->d;
    job_check_end(j);
    slot_release(slot);
    d->not_before = s->loop->now_ms + d->rate_delay_ms;
    if (a->outcome == ATTEMPT_RETURNED) {
        job_returned(j, a);
    } else {
        struct msg *m = j->m;
        dest_learn(s, d, a);
        msg_take_results(m, a, d->hop);
        if (m->open > j->n) /* else the round is over, and a report may quote it */
            job_leaves_content(j);
        msg_recipients_back(m, job_withdraw(j));
    }
    attempt_free(a);
    dest_dispatch_stirred(s);
    dest_dispatch(s, d);
}

/* -- in time -- */

/* What a rate delay held back may go. */
static void paced_tick(struct sched *s) {
    struct dl now, *n;
    dl_init(&now);
    while ((n = dl_pop(&s->paced)) != NULL)
        dl_push(&now, n);
    while ((n = dl_pop(&now)) != NULL) {
        struct dest *d = DL_OWNER(n, struct dest, paced);
        if (d->queued > 0) {
            dl_push(&s->paced, &d->paced);
            dest_dispatch(s, d);
        }
    }
}

static void halt_tick(struct sched *s) {
    size_t pos = 0;
    if (!s->halted || spool_is_behind(s->spool))
        return;
    log_info("qmgr", "the disk takes down again what becomes of mail: what waits is sent");
    s->halted = false;
    for (struct dest *d; !s->halted && (d = kset_next(&s->dests, &pos)) != NULL;)
        dest_dispatch(s, d);
}

void dispatch_tick(struct sched *s, int64_t now_ms) {
    dest_tick(s, now_ms);
    halt_tick(s);
    paced_tick(s);
}
