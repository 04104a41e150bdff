/*
 * util/queue.c - tasks for a plain thread; see queue.h
 */
#include "util/queue.h"

#include <errno.h>
#include <time.h>

void queue_init(struct queue *q) {
    pthread_condattr_t attr;
    pthread_mutex_init(&q->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&q->wake, &attr);
    pthread_condattr_destroy(&attr);
    q->head = NULL;
    q->tail = &q->head;
    q->closed = false;
}

void queue_push(struct queue *q, struct task *t) {
    t->next = NULL;
    pthread_mutex_lock(&q->lock);
    bool first = q->head == NULL;
    *q->tail = t;
    q->tail = &t->next;
    pthread_mutex_unlock(&q->lock);
    if (first)
        pthread_cond_signal(&q->wake);
}

void queue_close(struct queue *q) {
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    pthread_mutex_unlock(&q->lock);
    pthread_cond_broadcast(&q->wake);
}

/* With the lock held: waits until something is there, the time is up or the queue is closed. */
static void wait_some(struct queue *q, int64_t wait_ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += wait_ms / 1000;
    until.tv_nsec += wait_ms % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    while (q->head == NULL && !q->closed) {
        int rc = wait_ms < 0 ? pthread_cond_wait(&q->wake, &q->lock)
                             : pthread_cond_timedwait(&q->wake, &q->lock, &until);
        if (rc == ETIMEDOUT)
            return;
    }
}

struct task *queue_take(struct queue *q, int64_t wait_ms) {
    pthread_mutex_lock(&q->lock);
    if (q->head == NULL && wait_ms != 0)
        wait_some(q, wait_ms);
    struct task *all = q->head;
    q->head = NULL;
    q->tail = &q->head;
    pthread_mutex_unlock(&q->lock);
    return all;
}

struct task *queue_take_one(struct queue *q) {
    pthread_mutex_lock(&q->lock);
    if (q->head == NULL)
        wait_some(q, -1);
    struct task *t = q->head;
    if (t != NULL) {
        q->head = t->next;
        if (q->head == NULL)
            q->tail = &q->head;
        else
            pthread_cond_signal(&q->wake);
    }
    pthread_mutex_unlock(&q->lock);
    return t;
}
