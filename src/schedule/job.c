/*
 * schedule/job.c - jobs: some recipients of one message on their way to one destination
 *
 * A job is formed while the message's recipients are routed, and queued at its destination under
 * its sender, until it is given a session (dispatch.c).  An order of the
 * administrator takes it back from any of these places; what the session has already begun to send
 * comes back by itself.
 */
#include "schedule/job.h"

#include <stdlib.h>

#include "route/keys.h"
#include "schedule/dest.h"
#include "schedule/finish.h"
#include "schedule/msg.h"
#include "schedule/rcpt.h"
#include "util/mem.h"

static bool job_has_room(const struct job *j) {
    int64_t max =
        config_transport_int(j->m->s->cfg, j->d->transport, "destination_recipient_limit");
    return max <= 0 || j->n < (uint32_t)max;
}

/* Is it one of the message's for that destination, to which a recipient can be added? */
static bool job_takes(const struct job *j, const struct msg *m, const struct dest *d) {
    return j->m == m && j->d == d && j->at == JOB_FORMING && dl_linked(&j->link);
}

/* It is among the message's jobs and among the destination's.  Either may have thousands of others:
 * where the shorter list ends there is none. */
static struct job *job_find(const struct msg *m, const struct dest *d) {
    const struct dl *of_dest = d->forming.next, *of_msg = m->jobs.next;
    while (of_dest != &d->forming && of_msg != &m->jobs) {
        struct job *j = DL_OWNER(of_dest, struct job, link);
        if (!job_takes(j, m, d))
            j = DL_OWNER(of_msg, struct job, of_msg);
        if (job_takes(j, m, d))
            return j;
        of_dest = of_dest->next;
        of_msg = of_msg->next;
    }
    return NULL;
}

static struct job *job_new(struct msg *m, struct dest *d) {
    struct job *j = MEM_NEW(struct job);
    j->m = m;
    j->d = d;
    j->at = JOB_FORMING;
    dl_push(&m->jobs, &j->of_msg);
    dl_push_front(&d->forming, &j->link);
    dest_use(d);
    return j;
}

void job_for(struct msg *m, uint32_t rcpt, struct dest *d) {
    struct job *j = job_find(m, d);
    if (j == NULL)
        j = job_new(m, d);
    if (j->n == j->cap) {
        j->cap = j->cap == 0 ? 1 : j->cap * 2;
        j->idx = mem_realloc(j->idx, j->cap * sizeof *j->idx);
    }
    j->idx[j->n++] = rcpt;
    if (!job_has_room(j))
        dl_remove(&j->link);
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
    dl_remove(&j->link);
    dl_remove(&j->of_msg); /* those that are forming come first */
    dl_push(&j->m->jobs, &j->of_msg);
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
    job_check_end(j);
    if (j->at == JOB_QUEUED && j->queue != NULL)
        job_unqueue(j);
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
        dest_stir(j->m->s, d);
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

void job_recall(const struct job *j) {
    atomic_store(&j->given->recalled, true);
    j->m->s->ops.session_recall(j->slot->session);
}

/* -- is it still the way? -- */

struct route_check {
    struct job *j;
    uint32_t at; /* index into j->idx: the recipient that is asked for */
    struct route_query *query;
};

void job_check_end(struct job *j) {
    if (j->check == NULL)
        return;
    route_cancel(j->check->query);
    j->m->s->n_again--;
    free(j->check);
    j->check = NULL;
}

static void check_next(struct route_check *c);

/* Would a recipient with that route be in the job? */
static bool job_has_route(const struct job *j, const struct route *r) {
    struct sched *s = j->m->s;
    return r->rc == ROUTE_OK && r->here.status == MAIL_UNSET && service_is_client(r->transport) &&
           !keys_has_word(s->cfg->p.defer_transports, r->transport->name) &&
           dest_get(s, r, j->m->env) == j->d;
}

static void check_on_route(void *arg, const struct route *r) {
    struct route_check *c = arg;
    struct job *j = c->j;
    c->query = NULL;
    if (!job_has_route(j, r)) {
        job_check_end(j);
        job_recall(j);
    } else if (++c->at < j->n) {
        check_next(c);
    } else {
        job_check_end(j);
        atomic_store(&j->given->held, false);
        j->m->s->ops.session_recall(j->slot->session); /* it looks again */
    }
}

static void check_next(struct route_check *c) {
    const struct msg *m = c->j->m;
    c->query = route_resolve_of(m->s->cfg, m->s->lookup, m->env,
                                m->env->rcpts[c->j->idx[c->at]].addr, check_on_route, c);
}

void job_check(struct job *j) {
    if (atomic_load(&j->given->recalled))
        return;
    job_check_end(j);
    atomic_store(&j->given->held, true);
    j->check = MEM_NEW(struct route_check);
    j->check->j = j;
    j->m->s->n_again++;
    check_next(j->check);
}
