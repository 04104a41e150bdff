/*
 * util/threads.c - is there room for threads?  See threads.h
 */
#include "util/threads.h"

#include <pthread.h>

/* Ends when the lock is free: all of the threads are there at the same time. */
static void *thread_fits(void *lock) {
    pthread_mutex_lock(lock);
    pthread_mutex_unlock(lock);
    return NULL;
}

bool threads_fit(unsigned n) {
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_t threads[THREADS_FIT_MAX];
    unsigned made = 0;
    pthread_mutex_lock(&lock);
    while (made < n && made < THREADS_FIT_MAX &&
           pthread_create(&threads[made], NULL, thread_fits, &lock) == 0)
        made++;
    pthread_mutex_unlock(&lock);
    for (unsigned i = 0; i < made; i++)
        pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&lock);
    return made == n;
}
