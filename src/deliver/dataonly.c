/*
 * deliver/dataonly.c - relay hosts that are given content by DATA; see dataonly.h
 *
 * One ring under one lock.  While it is empty, which it nearly always is, the lock is not taken.
 */
#include "deliver/dataonly.h"

#include <pthread.h>
#include <stdatomic.h>

static pthread_mutex_t data_only_lock = PTHREAD_MUTEX_INITIALIZER;
static struct netaddr data_only_hosts[DATA_ONLY_MAX];
static size_t data_only_next;     /* place of the next host */
static atomic_size_t data_only_n; /* hosts that are known */

static bool data_only_find(const struct netaddr *host) {
    for (size_t i = 0; i < data_only_n; i++)
        if (netaddr_same(&data_only_hosts[i], host) &&
            netaddr_port(&data_only_hosts[i]) == netaddr_port(host))
            return true;
    return false;
}

void data_only_add(const struct netaddr *host) {
    pthread_mutex_lock(&data_only_lock);
    if (!data_only_find(host)) {
        data_only_hosts[data_only_next] = *host;
        data_only_next = (data_only_next + 1) % DATA_ONLY_MAX;
        if (data_only_n < DATA_ONLY_MAX)
            data_only_n++;
    }
    pthread_mutex_unlock(&data_only_lock);
}

bool data_only_has(const struct netaddr *host) {
    if (atomic_load(&data_only_n) == 0)
        return false;
    pthread_mutex_lock(&data_only_lock);
    bool found = data_only_find(host);
    pthread_mutex_unlock(&data_only_lock);
    return found;
}
