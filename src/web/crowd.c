/*
 * web/crowd.c - requests of one administrator at a time; see crowd.h
 */
#include "web/crowd.h"

#include <pthread.h>

#include "util/str.h"
#include "web/http.h"

/* The administrators with requests that are being answered; one with n == 0 is free.  Each has a
 * connection, so there are never more. */
static struct crowd {
    uint64_t who; /* hash of the administrator's address */
    unsigned n;
} crowds[WEB_CONNECTIONS];
static pthread_mutex_t crowds_lock = PTHREAD_MUTEX_INITIALIZER;

/* Under the lock.  NULL: there is none, and no room for one. */
static struct crowd *crowd_of(const char *admin) {
    uint64_t who = str_hash(str_of(admin));
    struct crowd *room = NULL;
    for (unsigned i = 0; i < WEB_CONNECTIONS; i++) {
        if (crowds[i].n > 0 && crowds[i].who == who)
            return &crowds[i];
        if (crowds[i].n == 0)
            room = &crowds[i];
    }
    if (room != NULL)
        room->who = who;
    return room;
}

bool crowd_enter(const char *admin) {
    pthread_mutex_lock(&crowds_lock);
    struct crowd *c = crowd_of(admin);
    bool room = c != NULL && c->n < CROWD_MAX;
    if (room)
        c->n++;
    pthread_mutex_unlock(&crowds_lock);
    return room;
}

void crowd_leave(const char *admin) {
    pthread_mutex_lock(&crowds_lock);
    struct crowd *c = crowd_of(admin);
    if (c != NULL && c->n > 0)
        c->n--;
    pthread_mutex_unlock(&crowds_lock);
}
