/*
 * deliver/dataonly.c - relay hosts that are given content by DATA; see dataonly.h
 *
 * One ring under one lock, which owns its next hops.  While it is empty, which it nearly always is,
 * the lock is not taken.
 */
#include "deliver/dataonly.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "util/mem.h"

struct data_only_host {
    struct netaddr addr;
    char *nexthop;
};

static pthread_mutex_t data_only_lock = PTHREAD_MUTEX_INITIALIZER;
static struct data_only_host data_only_hosts[DATA_ONLY_MAX];
static size_t data_only_next;     /* place of the next host */
static atomic_size_t data_only_n; /* hosts that are known */

static bool data_only_at(const struct data_only_host *known, const struct netaddr *host) {
    return netaddr_same(&known->addr, host) && netaddr_port(&known->addr) == netaddr_port(host);
}

/* With both: known by address and by next hop; else one is enough. */
static bool data_only_find(const struct netaddr *host, const char *nexthop, bool both) {
    for (size_t i = 0; i < data_only_n; i++) {
        bool at = data_only_at(&data_only_hosts[i], host);
        bool of = strcmp(data_only_hosts[i].nexthop, nexthop) == 0;
        if (both ? at && of : at || of)
            return true;
    }
    return false;
}

void data_only_add(const struct netaddr *host, const char *nexthop) {
    pthread_mutex_lock(&data_only_lock);
    if (!data_only_find(host, nexthop, true)) {
        struct data_only_host *place = &data_only_hosts[data_only_next];
        free(place->nexthop);
        *place = (struct data_only_host){*host, mem_strdup(nexthop)};
        data_only_next = (data_only_next + 1) % DATA_ONLY_MAX;
        if (data_only_n < DATA_ONLY_MAX)
            data_only_n++;
    }
    pthread_mutex_unlock(&data_only_lock);
}

bool data_only_has(const struct netaddr *host, const char *nexthop) {
    if (atomic_load(&data_only_n) == 0)
        return false;
    pthread_mutex_lock(&data_only_lock);
    bool found = data_only_find(host, nexthop, false);
    pthread_mutex_unlock(&data_only_lock);
    return found;
}
