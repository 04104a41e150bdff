/*
 * util/queue.h - tasks for a plain thread: many senders, one receiver that may sleep
 *
 * The counterpart of a loop's mailbox for threads that block (spool, scheduler, lookup workers).
 */
#ifndef PH_UTIL_QUEUE_H
#define PH_UTIL_QUEUE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/loop.h"

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct task *head;
    struct task **tail;
    bool closed;
};

void queue_init(struct queue *q);
void queue_push(struct queue *q, struct task *t);
/* No more waiting: queue_take returns NULL once it is empty. */
void queue_close(struct queue *q);
/* All that is queued, oldest first, linked by next; waits at most wait_ms (-1: for ever, 0: not at
 * all).  NULL on time-out or when closed and empty. */
struct task *queue_take(struct queue *q, int64_t wait_ms);
/* One task; for several receivers on one queue. */
struct task *queue_take_one(struct queue *q);

#endif
