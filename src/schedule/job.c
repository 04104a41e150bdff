/*
 * schedule/job.c - jobs: some recipients of one message on their way to one destination
 *
 * A job is formed while the message's recipients are routed, queued at its destination under its
 * sender, given a session, and made into an attempt when the content is in memory.  An order of the
 * administrator takes it back from any of these places; what the session has already begun to send
 * comes back by itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "schedule/sched.h"
#include "util/mem.h"

static bool job_has_room(const struct job *j, const struct msg *m, const struct dest *d) {
    if (j == NULL || j->at != JOB_FORMING || j->m != m || j->d != d)
        return false;
    int64_t max = config_transport_int(m->s->cfg, d->transport, "destination_recipient_limit");
    return max <= 0 || j->n < (uint32_t)max;
}

static struct job *job_find(struct msg *m, struct dest *d) {
    if (job_has_room(d->forming, m, d))
        return d->forming;
    DL_EACH (it, &m->jobs) {
        struct job *j = DL_OWNER(it, struct job, of_msg);
        if (job_has_room(j, m, d))
            return j;
    }
    return NULL;
}

static struct job *job_new(struct msg *m, struct dest *d) {
    struct job *j = MEM_NEW(struct job);
    j->m = m;
    j->d = d;
    j->at = JOB_FORMING;
    dl_push(&m->jobs, &j->of_msg);
    dest_use(d);
    return j;
}

void job_for(struct msg *m, uint32_t rcpt, struct dest *d) {
    struct job *j = job_find(m, d);
    if (j == NULL)
        j = job_new(m, d);
    d->forming = j;
    if (j->n == j->cap) {
        j->cap = j->cap == 0 ? 1 : j->cap * 2;
        j->idx = mem_realloc(j->idx, j->cap * sizeof *j->idx);
    }
    j->idx[j->n++] = rcpt;
}

static struct squeue *squeue_get(struct dest *d, struct str sender) {
    struct squeue *q = htab_get(&d->by_sender, sender);
    if (q != NULL)
        return q;
    q = MEM_NEW(struct squeue);
    q->d = d;
    q->sender = str_dup(sender);
    q->deficit = QUANTUM;
    dl_init(&q->jobs);
    htab_put(&d->by_sender, str_make(q->sender, sender.n), q);
    dl_push(&d->senders, &q->link);
    return q;
}

/* The job leaves its sender's queue, which ends with its last job. */
static void job_unqueue(struct job *j) {
    struct squeue *q = j->queue;
    dl_remove(&j->link);
    q->d->queued--;
    j->queue = NULL;
    if (!dl_empty(&q->jobs))
        return;
    dl_remove(&q->link);
    htab_del(&q->d->by_sender, j->m->env->sender);
    free(q->sender);
    free(q);
}

void job_enqueue(struct job *j) {
    struct dest *d = j->d;
    if (d->forming == j)
        d->forming = NULL;
    j->at = JOB_QUEUED;
    j->queue = squeue_get(d, j->m->env->sender);
    dl_push(&j->queue->jobs, &j->link);
    d->queued++;
    if (d->rate_delay_ms > 0 && !dl_linked(&d->paced))
        dl_push(&j->m->s->paced, &d->paced);
    msg_set_hop(j->m, d->hop);
}

struct job *squeue_take(struct squeue *q) {
    struct job *j = DL_OWNER(q->jobs.next, struct job, link);
    q->deficit -= (int64_t)j->m->env->size + 512;
    job_unqueue(j);
    return j;
}

void job_free(struct job *j) {
    if (j->at == JOB_QUEUED && j->queue != NULL)
        job_unqueue(j);
    if (j->d->forming == j)
        j->d->forming = NULL;
    dl_remove(&j->link);
    dl_remove(&j->of_msg);
    dest_unuse(j->m->s, j->d);
    free(j->idx);
    free(j);
}

uint32_t job_withdraw(struct job *j) {
    uint32_t n = j->n;
    struct dest *d = j->d;
    if (j->at == JOB_READING) {
        slot_release(j->slot);
        if (!dl_linked(&d->stirred))
            dl_push(&j->m->s->stirred, &d->stirred);
    }
    job_free(j);
    return n;
}

void job_untried(struct job *j, const struct mailerr *e) {
    struct msg *m = j->m;
    const struct service *svc = config_transport(m->s->cfg, STR_LIT("retry"));
    for (uint32_t i = 0; i < j->n; i++)
        msg_untried(m, j->idx[i], svc, e);
    msg_recipients_back(m, job_withdraw(j));
}

void job_route_anew(struct job *j) {
    struct msg *m = j->m;
    m->at_once = true;
    msg_recipients_back(m, job_withdraw(j));
}

static struct attempt *attempt_make(const struct job *j, const struct service *transport) {
    struct attempt *a = MEM_NEW(struct attempt);
    a->owner = (void *)(uintptr_t)j;
    a->cfg = config_ref(j->m->s->cfg);
    a->transport = transport;
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

/* Its content is in memory.  A reload may have taken the transport since the job was queued. */
static void job_give(struct job *j) {
    struct sched *s = j->m->s;
    struct dest *d = j->d;
    const struct service *t = dest_service(s, d);
    if (t != NULL) {
        j->at = JOB_GIVEN;
        j->given = attempt_make(j, t);
        dl_push(&s->given, &j->link);
        s->ops.session_give(j->slot->session, j->given);
        return;
    }
    job_route_anew(j);
    dest_dispatch(s, d);
}

/* The content of a message could not be read: the job's recipients wait. */
static void job_unreadable(struct job *j, int rc) {
    struct sched *s = j->m->s;
    struct dest *d = j->d;
    struct mailerr e = {0};
    mailerr_set(&e, MAIL_DEFERRED, "4.3.0", "cannot read the message content: %s",
                rc == -EBADMSG ? "it was damaged on disk" : strerror(-rc));
    mailerr_blame(&e, PHASE_ROUTE, BLAME_OURSELVES);
    job_untried(j, &e);
    dest_dispatch(s, d);
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
    r->op.id = r->id;
    r->op.done = job_read_done;
    m->reading = true;
    spool_submit(m->s->spool, &r->op);
}

void job_assign(struct job *j, struct slot *slot) {
    j->slot = slot;
    j->at = JOB_READING;
    if (j->m->body != NULL)
        job_give(j);
    else if (!j->m->reading)
        job_read(j->m);
}
