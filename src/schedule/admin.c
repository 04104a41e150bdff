/*
 * schedule/admin.c - what an administrator asks of the queue: listings, counts, actions
 *
 * On the scheduler's loop, for the control socket.  Nothing here is kept between calls: a queue of
 * a million messages is looked through once, and what is found is bounded by its caller.
 */
#include <stdlib.h>
#include <string.h>

#include "mail/held.h"
#include "schedule/dest.h"
#include "schedule/dispatch.h"
#include "schedule/msg.h"
#include "schedule/rcpt.h"
#include "schedule/sched.h"
#include "schedule/timers.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"

static int by_id(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

uint64_t *sched_ids(const struct sched *s, size_t *n) {
    uint64_t *ids = mem_alloc(s->msgs.n * sizeof *ids);
    size_t pos = 0;
    *n = 0;
    for (const struct msg *m; (m = itab_next(&s->msgs, &pos)) != NULL;)
        ids[(*n)++] = m->env->id;
    qsort(ids, *n, sizeof *ids, by_id);
    return ids;
}

bool sched_view(const struct sched *s, uint64_t id, struct sched_view *v) {
    const struct msg *m = itab_get(&s->msgs, id);
    if (m == NULL)
        return false;
    *v = (struct sched_view){.env = m->env,
                             .queue = m->queue,
                             .forced_expire = (m->flags & PROGRESS_EXPIRE) != 0,
                             .deleted = m->deleted,
                             .hold_ordered =
                                 m->queue == QUEUE_ACTIVE && (m->flags & PROGRESS_HOLD) != 0,
                             .hop = m->hop,
                             .next_us = m->next_us,
                             .attempts = m->attempts,
                             .msg = m};
    return true;
}

bool sched_view_rcpt(const struct sched_view *v, uint32_t i, const struct mailerr **e) {
    const struct msg_rcpt *r = &v->msg->rcpts[i];
    *e = r->why == NULL ? NULL : &r->why->err;
    return r->state == RCPT_WAITS || r->state == RCPT_FAILED || r->state == RCPT_FORWARD;
}

/* Whole: an order for the mail of a@shop.example is none for that of maria@shop.example. */
static bool addr_matches(struct str addr, struct str text, bool whole) {
    ptrdiff_t at = whole ? str_rchr(text, '@') : -1;
    if (at < 0 || (size_t)at + 1 == text.n)
        return str_icontains(addr, text);
    if (at == 0 && addr.n > text.n)
        addr = str_from(addr, addr.n - text.n);
    return str_ieq(addr, text);
}

static bool rcpt_matches(const struct msg *m, const struct sched_filter *f) {
    for (uint32_t i = 0; i < m->env->n_rcpts; i++)
        if (m->rcpts[i].state != RCPT_DONE &&
            addr_matches(m->env->rcpts[i].addr, f->rcpt, f->whole))
            return true;
    return false;
}

static bool site_matches(const struct msg *m, struct str domain) {
    for (uint32_t i = 0; i < m->env->n_rcpts; i++) {
        ptrdiff_t at = str_rchr(m->env->rcpts[i].addr, '@');
        if (m->rcpts[i].state != RCPT_DONE && at >= 0 &&
            str_ieq(str_from(m->env->rcpts[i].addr, (size_t)at + 1), domain))
            return true;
    }
    return false;
}

static bool reason_matches(const struct msg *m, struct str text) {
    for (uint32_t i = 0; i < m->env->n_rcpts; i++)
        if (m->rcpts[i].state != RCPT_DONE && m->rcpts[i].why != NULL &&
            str_icontains(str_of(m->rcpts[i].why->err.text), text))
            return true;
    return false;
}

static bool matches(const struct msg *m, const struct sched_filter *f) {
    if (f->ids != NULL && htab_get(f->ids, str_of(m->env->qid)) == NULL)
        return false;
    if (f->queues != 0 && (f->queues & 1U << m->queue) == 0)
        return false;
    if (f->by_hop && (m->hop == NULL || !str_ieq(str_of(m->hop->nexthop), f->nexthop) ||
                      !str_eq_c(f->record, m->hop->record)))
        return false;
    return (f->sender.n == 0 || addr_matches(m->env->sender, f->sender, f->whole)) &&
           (f->rcpt.n == 0 || rcpt_matches(m, f)) && (f->site.n == 0 || site_matches(m, f->site)) &&
           (f->reason.n == 0 || reason_matches(m, f->reason));
}

bool sched_fits(const struct sched_view *v, const struct sched_filter *f) {
    return matches(v->msg, f);
}

size_t sched_find(const struct sched *s, const struct sched_filter *f, uint64_t after,
                  uint64_t *ids, size_t max) {
    size_t n = 0;
    for (size_t i = 0; i < s->msgs.cap; i++) { /* most are ruled out by their key alone */
        const struct msg *m = s->msgs.slots[i].val;
        uint64_t id = s->msgs.slots[i].key;
        if (m == NULL || id <= after || (n == max && id >= ids[n - 1]) || !matches(m, f))
            continue;
        size_t at = n < max ? n++ : n - 1;
        for (; at > 0 && ids[at - 1] > id; at--)
            ids[at] = ids[at - 1];
        ids[at] = id;
    }
    return n;
}

uint64_t sched_oldest(const struct sched *s) {
    uint64_t oldest = 0;
    for (size_t i = 0; i < s->msgs.cap; i++)
        if (s->msgs.slots[i].val != NULL && (oldest == 0 || s->msgs.slots[i].key < oldest))
            oldest = s->msgs.slots[i].key;
    return oldest;
}

static int by_users(const void *a, const void *b) {
    const struct sched_reason *x = a, *y = b;
    return x->messages < y->messages   ? 1
           : x->messages > y->messages ? -1
                                       : strcmp(x->text, y->text);
}

struct sched_reason *sched_reasons(const struct sched *s, size_t *n) {
    struct sched_reason *all = mem_alloc((s->reasons.n + 1) * sizeof *all);
    size_t pos = 0;
    *n = 0;
    for (const struct reason *r; (r = kset_next(&s->reasons, &pos)) != NULL;)
        if (r->messages > 0)
            all[(*n)++] = (struct sched_reason){r->err.text, r->messages};
    qsort(all, *n, sizeof *all, by_users);
    return all;
}

const struct tally *sched_tally(const struct sched *s) {
    return &s->tally;
}

size_t sched_flush(struct sched *s) {
    int64_t now = clock_wall_us();
    size_t n = 0, pos = 0;
    dest_wake_all(s);
    for (struct msg *m; (m = itab_next(&s->msgs, &pos)) != NULL;)
        if (m->queue == QUEUE_DEFERRED) {
            m->next_us = due_since(m->next_us, now);
            heap_put(s, m);
            n++;
        }
    sched_run_due(s);
    return n;
}

struct delete_op {
    struct spool_op op;
    char qid[QID_MAX];
};

/* On the spool's thread.  The log says it when it is true. */
static void delete_done(struct spool_op *op) {
    struct delete_op *d = DL_OWNER(op, struct delete_op, op);
    if (op->rc == 0)
        log_info("postsuper", "%s: removed", d->qid);
    free(d);
}

static void act_delete(struct msg *m) {
    struct delete_op *d = MEM_NEW(struct delete_op);
    d->op.kind = SPOOL_DONE;
    d->op.id = m->env->id;
    d->op.done = delete_done;
    memcpy(d->qid, m->env->qid, QID_MAX);
    spool_submit(m->s->spool, &d->op);
    m->deleted = true; /* what is on the wire ends by itself */
    if (m->queue == QUEUE_ACTIVE)
        msg_recall(m);
    else
        msg_free(m);
}

/* An order for a message in the middle of a round is noted at once: it counts over a restart, too.
 * The record of a report that is being written already says more than this one would: the order is
 * noted behind it. */
static void act_note(struct msg *m) {
    if (!m->finishing) {
        msg_save_progress(m);
    } else if (!m->owed) {
        m->owed = true;
        m->s->n_owed++;
    }
}

static void act_hold(struct msg *m) {
    m->flags |= PROGRESS_HOLD;
    if (m->queue == QUEUE_ACTIVE) {
        act_note(m);
        msg_recall(m); /* then it goes on hold */
        return;
    }
    heap_del(m->s, m);
    msg_set_busy(m, false);
    msg_set_queue(m, QUEUE_HOLD);
    msg_save_progress(m);
}

/* Its next round begins at once, unless it is on hold. */
static void act_soon(struct msg *m) {
    if (m->queue == QUEUE_ACTIVE) {
        m->at_once = true;
        act_note(m);
        return;
    }
    m->next_us = due_since(m->next_us, clock_wall_us());
    msg_save_progress(m);
    if (m->queue == QUEUE_DEFERRED)
        heap_put(m->s, m);
}

static void act_release(struct msg *m) {
    m->flags &= ~(uint32_t)PROGRESS_HOLD;
    if (m->queue == QUEUE_HOLD)
        msg_set_queue(m, QUEUE_DEFERRED);
    act_soon(m);
}

static void act_requeue(struct msg *m) {
    m->flags &= ~(uint32_t)(PROGRESS_EXPIRE | PROGRESS_WARNED);
    act_release(m);
}

static void act_expire(struct msg *m) {
    m->flags |= PROGRESS_EXPIRE;
    if (m->queue == QUEUE_ACTIVE) {
        act_note(m);
        msg_recall(m);
    } else {
        act_soon(m);
    }
}

/* Is there anything that the order has to change? */
static bool act_changes(enum sched_act act, const struct msg *m) {
    switch (act) {
    case ACT_RETRY:
        return m->queue == QUEUE_DEFERRED;
    case ACT_HOLD:
        return (m->flags & PROGRESS_HOLD) == 0;
    case ACT_RELEASE:
        return (m->flags & PROGRESS_HOLD) != 0;
    case ACT_EXPIRE:
        return (m->flags & PROGRESS_EXPIRE) == 0;
    default:
        return true;
    }
}

static void act_one(enum sched_act act, struct msg *m) {
    switch (act) {
    case ACT_RETRY:
        act_soon(m);
        break;
    case ACT_DELETE:
        act_delete(m);
        break;
    case ACT_HOLD:
        act_hold(m);
        break;
    case ACT_RELEASE:
        act_release(m);
        break;
    case ACT_EXPIRE:
        act_expire(m);
        break;
    case ACT_REQUEUE:
        act_requeue(m);
        break;
    }
}

/* Ids first: what is done to one message may end another. */
size_t sched_act(struct sched *s, enum sched_act act, const struct sched_filter *f,
                 struct sched_changes *changes) {
    uint64_t *hits = mem_alloc((s->msgs.n + 1) * sizeof *hits);
    size_t n = 0, pos = 0;
    for (struct msg *m; (m = itab_next(&s->msgs, &pos)) != NULL;)
        if (!m->deleted && matches(m, f))
            hits[n++] = m->env->id;
    qsort(hits, n, sizeof *hits, by_id);
    for (size_t i = 0; i < n; i++) {
        struct msg *m = itab_get(&s->msgs, hits[i]);
        if (m == NULL || !act_changes(act, m))
            continue;
        if (changes != NULL && changes->fn != NULL)
            changes->fn(changes->arg, m->env->qid);
        if (changes != NULL)
            changes->n++;
        act_one(act, m);
    }
    free(hits);
    dest_dispatch_stirred(s);
    if (act != ACT_DELETE && act != ACT_HOLD) {
        dest_wake_all(s);
        sched_run_due(s);
    }
    return n;
}

void sched_stats(const struct sched *s, struct sched_stats *st) {
    *st = (struct sched_stats){s->n_queue[QUEUE_ACTIVE],
                               s->n_queue[QUEUE_DEFERRED],
                               s->n_queue[QUEUE_HOLD],
                               s->busy,
                               s->halted || spool_is_behind(s->spool),
                               held_bytes(),
                               held_is_full(s->cfg->p.queue_memory_limit)};
}
