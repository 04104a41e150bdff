/*
 * util/loop.h - an event loop with its thread and its mailbox
 *
 * A loop is a libuv loop plus a lock-free mailbox: any thread may post a task, which then runs on
 * the loop's own thread, in the order posted by each sender.  Everything else in here is called
 * on the loop's thread only.
 */
#ifndef PH_UTIL_LOOP_H
#define PH_UTIL_LOOP_H

#include <stdatomic.h>
#include <stdint.h>
#include <uv.h>

#include "util/list.h"

struct task {
    struct task *next;
    void (*run)(struct task *t);
};

struct loop {
    uv_loop_t uv;
    uv_async_t wake;
    uv_timer_t tick;   /* every LOOP_TICK_MS: connection deadlines */
    uv_prepare_t prep; /* before the loop sleeps: flushes connections written to */
    _Atomic(struct task *) inbox;
    struct task *soon; /* tasks of loop_soon, oldest first; NULL: none */
    struct task **soon_end;
    struct dl conns; /* struct conn: all open */
    struct dl dirty; /* struct conn: with output not yet tried */
    int64_t now_ms;  /* monotonic, of this iteration */
    char *scratch;   /* LOOP_SCRATCH bytes for one read */
    size_t read_max; /* how many of them a connection may use; fewer when memory is short */
    size_t index;    /* 0, 1, … as numbered by the owner */
    void *owner;     /* whatever the daemon hangs on it */
    uv_thread_t thread;
};

#define LOOP_TICK_MS 250
#define LOOP_SCRATCH 65536U

/* Returns NULL if the system refuses (descriptors). */
struct loop *loop_new(size_t index);
int loop_start(struct loop *l);
/* Any thread.  The task's memory is the poster's until run() is called, then run()'s. */
void loop_post(struct loop *l, struct task *t);
/* On the loop's thread: the task runs before the loop sleeps, never inside this call, in the order
 * of the calls; it costs no system call.  This is how an answer that is known already is given. */
void loop_soon(struct loop *l, struct task *t);
/* Runs on the calling thread, as long as the process lives. */
void loop_run(struct loop *l);
int64_t loop_now_ms(struct loop *l);

#endif
