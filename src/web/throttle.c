/*
 * web/throttle.c - how often passwords may be guessed; see throttle.h
 */
#include "web/throttle.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "util/clock.h"

#define ENTRIES    4096U
#define FREE       5U
#define WAIT_MAX   900U /* of an address */
#define SHARED_MAX 30U  /* of an account: nobody locks its owner out for longer */
#define FORGET_MS  3600000

struct entry {
    char key[300]; /* "": free */
    unsigned failures;
    int64_t last_ms;
};

static struct entry table[ENTRIES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct entry *find(const char *kind, const char *who, bool make) {
    char key[sizeof table[0].key];
    struct entry *oldest = &table[0];
    int64_t now = clock_mono_ms();
    snprintf(key, sizeof key, "%s %s", kind, who);
    for (size_t i = 0; i < ENTRIES; i++) {
        if (table[i].key[0] != '\0' && now - table[i].last_ms > FORGET_MS)
            table[i].key[0] = '\0';
        if (strcmp(table[i].key, key) == 0)
            return &table[i];
        if (table[i].key[0] == '\0' ? oldest->key[0] != '\0' : oldest->last_ms > table[i].last_ms)
            oldest = &table[i];
    }
    if (!make)
        return NULL;
    *oldest = (struct entry){.last_ms = now};
    memcpy(oldest->key, key, sizeof key);
    return oldest;
}

static unsigned wait_of(const struct entry *e, unsigned most) {
    if (e == NULL || e->failures < FREE)
        return 0;
    unsigned doubled = e->failures - FREE, wait = doubled > 9 ? most : 1U << doubled;
    int64_t left = e->last_ms + (wait > most ? most : wait) * 1000 - clock_mono_ms();
    return left <= 0 ? 0 : (unsigned)(left / 1000 + 1);
}

unsigned throttle_wait(const char *client, const char *account) {
    pthread_mutex_lock(&lock);
    unsigned a = wait_of(find("from", client, false), WAIT_MAX);
    unsigned b = wait_of(find("for", account, false), SHARED_MAX);
    pthread_mutex_unlock(&lock);
    return a > b ? a : b;
}

static void note(struct entry *e, bool good) {
    if (e == NULL)
        return;
    e->failures = good ? 0 : e->failures + 1;
    e->last_ms = clock_mono_ms();
}

void throttle_note(const char *client, const char *account, bool good) {
    pthread_mutex_lock(&lock);
    note(find("from", client, !good), good);
    note(find("for", account, !good), good);
    pthread_mutex_unlock(&lock);
}
