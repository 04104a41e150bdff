/*
 * deliver/traits.c - relay hosts that are spoken to in another way than they offer; see traits.h
 *
 * One ring a trait, all under one lock, which owns their next hops.  While a ring is empty, which
 * it nearly always is, the lock is not taken.
 */
#include "deliver/traits.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "util/mem.h"

struct known_host {
    struct netaddr addr;
    char *nexthop;
};

struct known_hosts {
    struct known_host v[HOST_TRAITS_MAX];
    size_t next;     /* place of the next host */
    atomic_size_t n; /* hosts that are known */
};

static pthread_mutex_t traits_lock = PTHREAD_MUTEX_INITIALIZER;
static struct known_hosts traits[HOST_TRAITS];

static bool known_at(const struct known_host *known, const struct netaddr *host) {
    return netaddr_same(&known->addr, host) && netaddr_port(&known->addr) == netaddr_port(host);
}

/* With both: known by address and by next hop; else one is enough. */
static bool traits_find(const struct known_hosts *k, const struct netaddr *host,
                        const char *nexthop, bool both) {
    for (size_t i = 0; i < k->n; i++) {
        bool at = known_at(&k->v[i], host);
        bool of = strcmp(k->v[i].nexthop, nexthop) == 0;
        if (both ? at && of : at || of)
            return true;
    }
    return false;
}

bool host_trait_add(enum host_trait trait, const struct netaddr *host, const char *nexthop) {
    struct known_hosts *k = &traits[trait];
    pthread_mutex_lock(&traits_lock);
    bool known = traits_find(k, host, nexthop, true);
    if (!known) {
        struct known_host *place = &k->v[k->next];
        free(place->nexthop);
        *place = (struct known_host){*host, mem_strdup(nexthop)};
        k->next = (k->next + 1) % HOST_TRAITS_MAX;
        if (k->n < HOST_TRAITS_MAX)
            k->n++;
    }
    pthread_mutex_unlock(&traits_lock);
    return !known;
}

bool host_trait_has(enum host_trait trait, const struct netaddr *host, const char *nexthop) {
    struct known_hosts *k = &traits[trait];
    if (atomic_load(&k->n) == 0)
        return false;
    pthread_mutex_lock(&traits_lock);
    bool found = traits_find(k, host, nexthop, false);
    pthread_mutex_unlock(&traits_lock);
    return found;
}
