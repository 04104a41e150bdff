/*
 * schedule/msg.c - a queued message as an object: made, counted, freed
 */
#include "schedule/msg.h"

#include <stdlib.h>

#include "mail/held.h"
#include "schedule/content.h"
#include "schedule/forward.h"
#include "schedule/rcpt.h"
#include "schedule/timers.h"
#include "schedule/wait.h"
#include "util/mem.h"

void msg_set_queue(struct msg *m, enum sched_queue q) {
    m->s->n_queue[m->queue]--;
    m->queue = q;
    m->s->n_queue[q]++;
}

void msg_set_busy(struct msg *m, bool busy) {
    if (m->busy == busy)
        return;
    m->busy = busy;
    m->s->busy += busy ? m->env->n_rcpts : -(size_t)m->env->n_rcpts;
}

void msg_set_again(struct msg *m, bool again) {
    if (m->again == again)
        return;
    m->again = again;
    m->s->n_again += again ? 1 : (size_t)-1;
}

void msg_set_hop(struct msg *m, struct hop *hop) {
    if (m->hop != NULL)
        m->hop->waiting--;
    m->hop = hop;
    if (hop != NULL)
        hop->waiting++;
}

static size_t msg_bytes(const struct envelope *env) {
    return sizeof(struct msg) + env->n_rcpts * sizeof(struct msg_rcpt);
}

/* What stood for others when the message came in is delivered with them, and its sender told. */
static void msg_take_expanded(struct msg *m) {
    struct mailerr e = {0};
    for (uint32_t i = 0; i < m->env->n_rcpts; i++) {
        if (!m->env->rcpts[i].expanded)
            continue;
        if (e.text == NULL)
            mailerr_set(&e, MAIL_SENT, "2.0.0", "delivery via none: alias expanded");
        msg_set_reason(m, i, &e);
        msg_set_state(m, i, RCPT_EXPANDED);
    }
    mailerr_free(&e);
}

struct msg *msg_new(struct sched *s, struct envelope *env, struct body *body) {
    struct msg *m = mem_zalloc(msg_bytes(env));
    held_add(msg_bytes(env));
    m->s = s;
    m->env = env;
    m->body = body;
    m->left = env->n_rcpts;
    m->flags = (env->flags & ENV_HOLD) != 0 ? PROGRESS_HOLD : 0U;
    m->queue = QUEUE_DEFERRED;
    dl_init(&m->jobs);
    s->n_queue[m->queue]++;
    itab_put(&s->msgs, env->id, m);
    msg_take_expanded(m);
    return m;
}

void msg_free(struct msg *m) {
    struct sched *s = m->s;
    heap_del(s, m);
    itab_del(&s->msgs, m->env->id);
    s->n_queue[m->queue]--;
    msg_orders_noted(m);
    free(m->routes);
    unsaved_free(m);
    msg_set_busy(m, false);
    msg_set_again(m, false);
    forward_forget(m);
    msg_drop_reasons(m);
    msg_set_hop(m, NULL);
    msg_drop_body(m);
    held_remove(msg_bytes(m->env));
    envelope_unref(m->env);
    free(m);
}
