/*
 * receive/anvil.c - connections and events per client; see anvil.h
 *
 * One table and one list under one lock.  A client without a connection is in the list, the one
 * that was heard of last at its end; each call looks at the head of the list and forgets up to two
 * clients, so the list shrinks faster than it can grow and no caller waits for a sweep.
 */
#include "receive/anvil.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "util/clock.h"
#include "util/htab.h"
#include "util/list.h"
#include "util/mem.h"
#include "util/net.h"

#define IPV6_PREFIX 84 /* of a client's network, as in Postfix 3.8 */

struct anvil_client {
    struct dl link; /* idle: no connection is open */
    char *addr;
    int64_t until_ms; /* the end of its interval */
    int64_t open;
    int64_t connects; /* in the interval, as the events */
    int64_t events[ANVIL_EVENTS];
};

static pthread_mutex_t anvil_lock = PTHREAD_MUTEX_INITIALIZER;
static struct htab anvil_table;
static struct dl anvil_idle = {&anvil_idle, &anvil_idle};
static size_t anvil_n_idle;
static int64_t (*anvil_clock)(void) = clock_mono_ms;

static void anvil_forget(struct anvil_client *c) {
    dl_remove(&c->link);
    anvil_n_idle--;
    htab_del(&anvil_table, str_of(c->addr));
    free(c->addr);
    free(c);
}

/* Forgets up to two idle clients with an interval that is over, or that are too many. */
static void anvil_shrink(int64_t now) {
    for (int i = 0; i < 2 && !dl_empty(&anvil_idle); i++) {
        struct anvil_client *c = DL_OWNER(anvil_idle.next, struct anvil_client, link);
        if (now < c->until_ms && anvil_n_idle <= ANVIL_IDLE_MAX)
            return;
        anvil_forget(c);
    }
}

static void anvil_set_idle(struct anvil_client *c) {
    if (dl_linked(&c->link))
        dl_remove(&c->link);
    else
        anvil_n_idle++;
    dl_push(&anvil_idle, &c->link);
}

static void anvil_set_busy(struct anvil_client *c) {
    if (!dl_linked(&c->link))
        return;
    dl_remove(&c->link);
    anvil_n_idle--;
}

/* The client, known from now on; its counts begin anew with each interval. */
static struct anvil_client *anvil_get(const char *addr, int64_t unit_s) {
    char key[INET6_ADDRSTRLEN];
    int64_t now = anvil_clock();
    anvil_shrink(now);
    addr = netaddr_network(addr, IPV6_PREFIX, key);
    struct anvil_client *c = htab_get(&anvil_table, str_of(addr));
    if (c == NULL) {
        c = MEM_NEW(struct anvil_client);
        c->addr = mem_strdup(addr);
        htab_put(&anvil_table, str_of(c->addr), c);
    }
    if (now >= c->until_ms) {
        c->until_ms = now + unit_s * 1000;
        c->connects = 0;
        memset(c->events, 0, sizeof c->events);
    }
    if (c->open == 0)
        anvil_set_idle(c);
    return c;
}

bool anvil_connect(const char *addr, int64_t max_count, int64_t max_rate, int64_t unit_s) {
    pthread_mutex_lock(&anvil_lock);
    struct anvil_client *c = anvil_get(addr, unit_s);
    anvil_set_busy(c);
    c->open++;
    c->connects++;
    bool ok =
        (max_count == 0 || c->open <= max_count) && (max_rate == 0 || c->connects <= max_rate);
    pthread_mutex_unlock(&anvil_lock);
    return ok;
}

void anvil_disconnect(const char *addr) {
    char key[INET6_ADDRSTRLEN];
    pthread_mutex_lock(&anvil_lock);
    struct anvil_client *c =
        htab_get(&anvil_table, str_of(netaddr_network(addr, IPV6_PREFIX, key)));
    if (c != NULL && c->open > 0 && --c->open == 0)
        anvil_set_idle(c);
    anvil_shrink(anvil_clock());
    pthread_mutex_unlock(&anvil_lock);
}

int64_t anvil_event(const char *addr, enum anvil_what what, int64_t unit_s) {
    pthread_mutex_lock(&anvil_lock);
    int64_t n = ++anvil_get(addr, unit_s)->events[what];
    pthread_mutex_unlock(&anvil_lock);
    return n;
}

size_t anvil_clients(void) {
    pthread_mutex_lock(&anvil_lock);
    size_t n = anvil_table.n;
    pthread_mutex_unlock(&anvil_lock);
    return n;
}

void anvil_set_clock(int64_t (*now_ms)(void)) {
    pthread_mutex_lock(&anvil_lock);
    anvil_clock = now_ms == NULL ? clock_mono_ms : now_ms;
    pthread_mutex_unlock(&anvil_lock);
}
