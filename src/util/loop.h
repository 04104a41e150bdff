/*
 * util/loop.h - an event loop with its thread, its mailbox and its turns
 *
 * A loop is a libuv loop plus a lock-free mailbox: any thread may post a task, which then runs on
 * the loop's own thread, in the order posted by each sender.  Everything else in here is called
 * on the loop's thread only.
 *
 * A turn of the loop is: callbacks of what has happened (sockets, timers, the mailbox), then what
 * those callbacks have put off with loop_later, then sleep.  What is put off runs when the call
 * that put it off has returned, so no caller is called back from inside its own call.
 */
#ifndef PH_UTIL_LOOP_H
#define PH_UTIL_LOOP_H

#include <stdatomic.h>
#include <stdint.h>
#include <uv.h>

#include "util/list.h"
#include "util/wake.h"

struct task {
    struct task *next;
    void (*run)(struct task *t);
};

/* Something to be done later in the same turn.  It is part of an object of the caller's, which
 * calls loop_never before it frees that object.  Zeroed, but for run, before its first use. */
struct later {
    struct dl link; /* loop->later; linked: it will run */
    void (*run)(struct later *l);
};

/* A time at which something is to be put off with loop_later, within LOOP_TICK_MS after it.  run
 * finds out by itself that the time has come: at_ms is not changed.  Part of an object of the
 * caller's, as struct later. */
struct loop_alarm {
    struct dl link;     /* loop->alarms */
    int64_t at_ms;      /* on the loop's clock; 0: none is set */
    struct later *then; /* of the same object */
};

struct loop {
    uv_loop_t uv;
    struct wake wake;  /* the mailbox has something */
    uv_timer_t tick;   /* every LOOP_TICK_MS: alarms */
    uv_prepare_t prep; /* before the loop sleeps: what was put off */
    _Atomic(struct task *) inbox;
    struct dl alarms; /* struct loop_alarm: all, in no order */
    struct dl later;  /* struct later: put off and not yet run */
    int64_t now_ms;   /* monotonic, of this turn */
    char *scratch;    /* LOOP_SCRATCH bytes for one read */
    size_t read_max;  /* how many of them a connection may use; fewer when memory is short */
    size_t index;     /* 0, 1, … as numbered by the owner */
    size_t n_last;    /* connections without an owner that have output to be written */
    void *owner;      /* whatever the daemon hangs on it */
    uv_thread_t thread;
};

#define LOOP_TICK_MS 250
#define LOOP_SCRATCH 65536U

/* Returns NULL if the system refuses (descriptors). */
struct loop *loop_new(size_t index);
int loop_start(struct loop *l);
/* Any thread.  The task's memory is the poster's until run() is called, then run()'s. */
void loop_post(struct loop *l, struct task *t);
/* Runs later->run once, before the loop sleeps and after the caller has returned to the loop.
 * Asking again before it has run changes nothing.  Costs no system call. */
void loop_later(struct loop *l, struct later *later);
/* It will not run, unless it is asked for again.  Safe when it was not asked for. */
void loop_never(struct later *later);
/* Adds an alarm that is not set; set it by its at_ms. */
void loop_alarm_add(struct loop *l, struct loop_alarm *a, struct later *then);
void loop_alarm_remove(struct loop_alarm *a);
/* Runs on the calling thread, as long as the process lives. */
void loop_run(struct loop *l);
/* One turn, on the calling thread: for a program that has no other use of the loop. */
void loop_turn(struct loop *l);
int64_t loop_now_ms(struct loop *l);

#endif
