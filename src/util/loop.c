/*
 * util/loop.c - event loops; see loop.h
 *
 * The mailbox is a stack pushed with compare-and-swap and taken whole, then reversed: a push that
 * finds it empty wakes the loop, later pushes ride along, so a burst costs one wake-up.
 */
#include "util/loop.h"

#include <stdlib.h>

#include "util/clock.h"
#include "util/mem.h"

/* How often in one turn what was put off may put off more, before sockets are looked at again. */
#define LATER_ROUNDS 4

static void loop_woken(struct wake *w) {
    struct loop *l = DL_OWNER(w, struct loop, wake);
    struct task *t = atomic_exchange_explicit(&l->inbox, NULL, memory_order_acquire);
    struct task *fifo = NULL;
    l->now_ms = clock_mono_ms();
    while (t != NULL) {
        struct task *next = t->next;
        t->next = fifo;
        fifo = t;
        t = next;
    }
    while (fifo != NULL) {
        struct task *next = fifo->next;
        fifo->run(fifo);
        fifo = next;
    }
}

/* Nothing is called from within the walk, so the list cannot change meanwhile. */
static void loop_on_tick(uv_timer_t *t) {
    struct loop *l = t->data;
    l->now_ms = clock_mono_ms();
    DL_EACH (it, &l->alarms) {
        const struct loop_alarm *a = DL_OWNER(it, struct loop_alarm, link);
        if (a->at_ms != 0 && a->at_ms <= l->now_ms)
            loop_later(l, a->then);
    }
}

/* Runs what is put off now; what it puts off is for the next round.  loop_never takes an entry off
 * either list. */
static void run_round(struct loop *l) {
    struct dl round, *n;
    dl_init(&round);
    while ((n = dl_pop(&l->later)) != NULL)
        dl_push(&round, n);
    while ((n = dl_pop(&round)) != NULL) {
        struct later *later = DL_OWNER(n, struct later, link);
        later->run(later);
    }
}

static void on_prepare(uv_prepare_t *p) {
    struct loop *l = p->data;
    for (int i = 0; i < LATER_ROUNDS && !dl_empty(&l->later); i++)
        run_round(l);
    if (!dl_empty(&l->later))
        wake_send(&l->wake);
}

struct loop *loop_new(size_t index) {
    struct loop *l = MEM_NEW(struct loop);
    if (uv_loop_init(&l->uv) != 0) {
        free(l);
        return NULL;
    }
    if (wake_init(&l->uv, &l->wake, loop_woken) != 0) {
        uv_loop_close(&l->uv);
        free(l);
        return NULL;
    }
    dl_init(&l->alarms);
    dl_init(&l->later);
    l->index = index;
    l->scratch = mem_alloc(LOOP_SCRATCH);
    l->read_max = LOOP_SCRATCH;
    l->now_ms = clock_mono_ms();
    uv_timer_init(&l->uv, &l->tick);
    uv_prepare_init(&l->uv, &l->prep);
    l->tick.data = l->prep.data = l;
    uv_timer_start(&l->tick, loop_on_tick, LOOP_TICK_MS, LOOP_TICK_MS);
    uv_prepare_start(&l->prep, on_prepare);
    return l;
}

void loop_post(struct loop *l, struct task *t) {
    struct task *head = atomic_load_explicit(&l->inbox, memory_order_relaxed);
    do {
        t->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&l->inbox, &head, t, memory_order_release,
                                                    memory_order_relaxed));
    if (head == NULL)
        wake_send(&l->wake);
}

void loop_later(struct loop *l, struct later *later) {
    if (!dl_linked(&later->link))
        dl_push(&l->later, &later->link);
}

void loop_never(struct later *later) {
    dl_remove(&later->link);
}

void loop_alarm_add(struct loop *l, struct loop_alarm *a, struct later *then) {
    *a = (struct loop_alarm){.then = then};
    dl_push(&l->alarms, &a->link);
}

void loop_alarm_remove(struct loop_alarm *a) {
    dl_remove(&a->link);
}

void loop_run(struct loop *l) {
    uv_run(&l->uv, UV_RUN_DEFAULT);
}

void loop_turn(struct loop *l) {
    uv_run(&l->uv, UV_RUN_ONCE);
}

static void thread_main(void *arg) {
    loop_run(arg);
}

int loop_start(struct loop *l) {
    return uv_thread_create(&l->thread, thread_main, l);
}

int64_t loop_now_ms(struct loop *l) {
    l->now_ms = clock_mono_ms();
    return l->now_ms;
}
