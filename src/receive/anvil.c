/*
 * receive/anvil.c - connections and events per client, over all loops
 *
 * One table under one lock; an entry goes when the client has no connection and its interval is
 * over.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "receive/session.h"
#include "util/clock.h"
#include "util/htab.h"
#include "util/mem.h"

struct client {
    char *addr;
    int64_t since_ms; /* of the interval */
    int64_t open;
    int64_t connects;
    int64_t events[3];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct htab clients;

static struct client *client_get(const char *addr, int64_t unit_s) {
    struct client *c = htab_get(&clients, str_of(addr));
    int64_t now = clock_mono_ms();
    if (c == NULL) {
        c = MEM_NEW(struct client);
        c->addr = mem_strdup(addr);
        c->since_ms = now;
        htab_put(&clients, str_of(c->addr), c);
    }
    if (now - c->since_ms >= unit_s * 1000) {
        c->since_ms = now;
        c->connects = c->events[0] = c->events[1] = c->events[2] = 0;
    }
    return c;
}

bool anvil_connect(const char *addr, int64_t max_count, int64_t max_rate, int64_t unit_s) {
    pthread_mutex_lock(&lock);
    struct client *c = client_get(addr, unit_s);
    c->open++;
    c->connects++;
    bool ok =
        (max_count == 0 || c->open <= max_count) && (max_rate == 0 || c->connects <= max_rate);
    pthread_mutex_unlock(&lock);
    return ok;
}

void anvil_disconnect(const char *addr) {
    pthread_mutex_lock(&lock);
    struct client *c = htab_get(&clients, str_of(addr));
    if (c != NULL && --c->open == 0 && c->events[0] == 0 && c->events[1] == 0 &&
        c->events[2] == 0 && c->connects < 2) {
        htab_del(&clients, str_of(addr));
        free(c->addr);
        free(c);
    }
    pthread_mutex_unlock(&lock);
}

int64_t anvil_event(const char *addr, enum anvil_what what, int64_t unit_s) {
    pthread_mutex_lock(&lock);
    int64_t n = ++client_get(addr, unit_s)->events[what];
    pthread_mutex_unlock(&lock);
    return n;
}
