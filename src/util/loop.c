/*
 * util/loop.c - event loops; see loop.h
 *
 * The mailbox is a stack pushed with compare-and-swap and taken whole, then reversed: a push that
 * finds it empty wakes the loop, later pushes ride along, so a burst costs one wake-up.
 */
#include "util/loop.h"

#include <stdlib.h>

#include "util/clock.h"
#include "util/conn.h"
#include "util/mem.h"

#define SOON_ROUNDS 8

static void on_wake(uv_async_t *a) {
    struct loop *l = a->data;
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

static void on_tick(uv_timer_t *t) {
    struct loop *l = t->data;
    l->now_ms = clock_mono_ms();
    conn_check_deadlines(l);
}

void loop_soon(struct loop *l, struct task *t) {
    t->next = NULL;
    *l->soon_end = t;
    l->soon_end = &t->next;
}

/* Tasks may ask for more tasks: a few rounds of them, so that sockets have their turn, too. */
static void loop_run_soon(struct loop *l) {
    for (int round = 0; round < SOON_ROUNDS && l->soon != NULL; round++) {
        struct task *now = l->soon;
        l->soon = NULL;
        l->soon_end = &l->soon;
        while (now != NULL) {
            struct task *next = now->next;
            now->run(now);
            now = next;
        }
    }
}

static void on_prepare(uv_prepare_t *p) {
    struct loop *l = p->data;
    loop_run_soon(l);
    conn_flush_all(l);
    if (l->soon != NULL) /* the loop must not sleep */
        uv_async_send(&l->wake);
}

struct loop *loop_new(size_t index) {
    struct loop *l = MEM_NEW(struct loop);
    if (uv_loop_init(&l->uv) != 0) {
        free(l);
        return NULL;
    }
    dl_init(&l->conns);
    dl_init(&l->dirty);
    l->soon_end = &l->soon;
    l->index = index;
    l->scratch = mem_alloc(LOOP_SCRATCH);
    l->read_max = LOOP_SCRATCH;
    l->now_ms = clock_mono_ms();
    uv_async_init(&l->uv, &l->wake, on_wake);
    uv_timer_init(&l->uv, &l->tick);
    uv_prepare_init(&l->uv, &l->prep);
    l->wake.data = l->tick.data = l->prep.data = l;
    uv_timer_start(&l->tick, on_tick, LOOP_TICK_MS, LOOP_TICK_MS);
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
        uv_async_send(&l->wake);
}

void loop_run(struct loop *l) {
    uv_run(&l->uv, UV_RUN_DEFAULT);
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
