/*
 * schedule/wait.c - waiting until orders are durable
 *
 * An order is noted by a record of progress or by the end of its message.  A sync that is submitted
 * behind the record tells when it is durable.  While a report about the message is being written
 * the record is owed: those that wait then stay in sched->waits until it is noted.
 */
#include "schedule/wait.h"

#include <stdlib.h>

#include "util/mem.h"

struct sched_wait {
    struct dl link; /* sched->waits; in no list while op is with the spool */
    struct spool_op op;
    struct task back;
    struct sched *s;
    bool owed; /* orders were owed when op was submitted: once they are noted it is again */
    void (*fn)(void *arg, int rc);
    void *arg;
};

static void wait_done(struct spool_op *op) {
    struct sched_wait *w = DL_OWNER(op, struct sched_wait, op);
    loop_post(w->s->loop, &w->back);
}

/* Everything that was noted when it was submitted is durable then. */
static void wait_submit(struct sched_wait *w) {
    w->owed = w->s->n_owed > 0;
    spool_submit(w->s->spool, &w->op);
}

static void wait_back(struct task *t) {
    struct sched_wait *w = DL_OWNER(t, struct sched_wait, back);
    if (w->owed && w->s->n_owed > 0) {
        dl_push(&w->s->waits, &w->link);
    } else if (w->owed) {
        wait_submit(w);
    } else {
        w->fn(w->arg, w->op.rc);
        free(w);
    }
}

void msg_orders_noted(struct msg *m) {
    struct sched *s = m->s;
    struct dl *n;
    if (!m->owed)
        return;
    m->owed = false;
    s->n_owed--;
    while (s->n_owed == 0 && (n = dl_pop(&s->waits)) != NULL)
        wait_submit(DL_OWNER(n, struct sched_wait, link));
}

void sched_when_durable(struct sched *s, void (*fn)(void *arg, int rc), void *arg) {
    struct sched_wait *w = MEM_NEW(struct sched_wait);
    w->s = s;
    w->fn = fn;
    w->arg = arg;
    w->op.kind = SPOOL_SYNC;
    w->op.done = wait_done;
    w->back.run = wait_back;
    wait_submit(w);
}
