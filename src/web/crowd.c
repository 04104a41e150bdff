/*
 * web/crowd.c - requests of one administrator at a time; see crowd.h
 */
#include "web/crowd.h"

#include <pthread.h>

#include "util/str.h"
#include "web/http.h"

/* The administrators with requests that are being answered, or answers that are not taken yet; one
 * that has neither is free.  Each has a connection, so there are never more. */
static struct crowd {
    uint64_t who; /* hash of the administrator's address */
    unsigned n;
    size_t bytes; /* of answers */
    bool turn;    /* a request has it */
} crowds[WEB_CONNECTIONS];
static unsigned crowds_n; /* requests of all of them */
static pthread_mutex_t crowds_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t crowds_turn = PTHREAD_COND_INITIALIZER;

static bool crowd_is_free(const struct crowd *c) {
    return c->n == 0 && c->bytes == 0;
}

/* Under the lock.  NULL: there is none, and no room for one. */
static struct crowd *crowd_of(const char *admin) {
    uint64_t who = str_hash(str_of(admin));
    struct crowd *room = NULL;
    for (unsigned i = 0; i < WEB_CONNECTIONS; i++) {
        if (!crowd_is_free(&crowds[i]) && crowds[i].who == who)
            return &crowds[i];
        if (crowd_is_free(&crowds[i]))
            room = &crowds[i];
    }
    if (room != NULL)
        room->who = who;
    return room;
}

/* How many an administrator may have: fewer, the more all of them have, so that fifty who ask for
 * all that they may leave places to others. */
static unsigned crowd_share(void) {
    return crowds_n < 64 ? CROWD_MAX : crowds_n < 128 ? 8 : crowds_n < 176 ? 4 : CROWD_FEW;
}

bool crowd_enter(const char *admin) {
    pthread_mutex_lock(&crowds_lock);
    struct crowd *c = crowd_of(admin);
    bool room = c != NULL && c->n < crowd_share();
    if (room) {
        c->n++;
        crowds_n++;
    }
    pthread_mutex_unlock(&crowds_lock);
    return room;
}

void crowd_leave(const char *admin) {
    pthread_mutex_lock(&crowds_lock);
    struct crowd *c = crowd_of(admin);
    if (c != NULL && c->n > 0) {
        c->n--;
        crowds_n--;
    }
    pthread_mutex_unlock(&crowds_lock);
}

bool crowd_answer(const char *admin, size_t n) {
    pthread_mutex_lock(&crowds_lock);
    struct crowd *c = crowd_of(admin);
    bool room = c != NULL && (c->bytes == 0 || c->bytes + n <= CROWD_BYTES);
    if (room)
        c->bytes += n;
    pthread_mutex_unlock(&crowds_lock);
    return room;
}

void crowd_taken(const char *admin, size_t n) {
    pthread_mutex_lock(&crowds_lock);
    struct crowd *c = crowd_of(admin);
    if (c != NULL)
        c->bytes -= n < c->bytes ? n : c->bytes;
    pthread_mutex_unlock(&crowds_lock);
}

void crowd_turn_begin(const char *admin) {
    pthread_mutex_lock(&crowds_lock);
    struct crowd *c = crowd_of(admin); /* stays where it is until crowd_leave */
    while (c != NULL && c->turn)
        pthread_cond_wait(&crowds_turn, &crowds_lock);
    if (c != NULL)
        c->turn = true;
    pthread_mutex_unlock(&crowds_lock);
}

void crowd_turn_end(const char *admin) {
    pthread_mutex_lock(&crowds_lock);
    struct crowd *c = crowd_of(admin);
    if (c != NULL)
        c->turn = false;
    pthread_cond_broadcast(&crowds_turn);
    pthread_mutex_unlock(&crowds_lock);
}
