/*
 * schedule/timers.c - when the next attempt is due: a binary heap by wall clock, which may be set
 *
 * What has been due for longest goes first.  What a change of settings or tables takes back is due
 * since that change, and what an order has tried again since that order, unless it was due before:
 * were either due before all else, changes or orders that never end would keep all other mail
 * from its next attempt.  Of messages that are due since the same time the one that was
 * routed by older settings goes first, of those the ones of few recipients, and of these the one
 * that arrived first.
 */
#include "schedule/timers.h"

#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"

#define JUMP_US 10000000LL /* less is the work of ntpd */
#define MANY    50U        /* recipients: it waits for those that have fewer */

int64_t due_since(int64_t since_us, int64_t now_us) {
    return since_us < now_us ? since_us : now_us;
}

static void place(struct sched *s, struct msg *m, size_t i) {
    s->heap[i] = m;
    m->heap_at = i + 1;
}

static bool heap_before(const struct msg *a, const struct msg *b) {
    if (a->next_us != b->next_us)
        return a->next_us < b->next_us;
    if (a->settings != b->settings)
        return a->settings < b->settings;
    bool a_many = a->env->n_rcpts > MANY, b_many = b->env->n_rcpts > MANY;
    return a_many != b_many ? b_many : a->env->id < b->env->id;
}

static void sift_up(struct sched *s, struct msg *m, size_t i) {
    while (i > 0 && heap_before(m, s->heap[(i - 1) / 2])) {
        place(s, s->heap[(i - 1) / 2], i);
        i = (i - 1) / 2;
    }
    place(s, m, i);
}

static void sift_down(struct sched *s, struct msg *m, size_t i) {
    for (;;) {
        size_t k = 2 * i + 1;
        if (k >= s->heap_n)
            break;
        if (k + 1 < s->heap_n && heap_before(s->heap[k + 1], s->heap[k]))
            k++;
        if (!heap_before(s->heap[k], m))
            break;
        place(s, s->heap[k], i);
        i = k;
    }
    place(s, m, i);
}

void heap_put(struct sched *s, struct msg *m) {
    heap_del(s, m);
    if (s->heap_n == s->heap_cap) {
        s->heap_cap = s->heap_cap == 0 ? 64 : s->heap_cap * 2;
        s->heap = mem_realloc(s->heap, s->heap_cap * sizeof(struct msg *));
    }
    sift_up(s, m, s->heap_n++);
}

void heap_del(struct sched *s, struct msg *m) {
    if (m->heap_at == 0)
        return;
    size_t i = m->heap_at - 1;
    m->heap_at = 0;
    struct msg *last = s->heap[--s->heap_n];
    if (last == m)
        return;
    if (i > 0 && heap_before(last, s->heap[(i - 1) / 2]))
        sift_up(s, last, i);
    else
        sift_down(s, last, i);
}

/* All keys of the heap move alike: its order stays. */
void sched_watch_clock(struct sched *s) {
    int64_t now = clock_wall_us(), drift = now - clock_mono_ms() * 1000;
    int64_t jump = drift - s->drift_us;
    size_t pos = 0;
    if (jump > -JUMP_US && jump < JUMP_US)
        return;
    s->drift_us = drift;
    s->changed_us += jump;
    s->jump_us = jump;
    s->jump_middle_us = now - jump / 2;
    log_warn("qmgr", "the clock was set %s by %lld s: waiting mail keeps its turn",
             jump < 0 ? "back" : "forward", (long long)((jump < 0 ? -jump : jump) / 1000000));
    for (struct msg *m; (m = itab_next(&s->msgs, &pos)) != NULL;) {
        m->next_us += jump;
        m->shift_us += jump;
    }
}
