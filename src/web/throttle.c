/*
 * web/throttle.c - how often passwords may be guessed; see throttle.h
 */
#include "web/throttle.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "util/clock.h"
#include "util/net.h"
#include "util/str.h"

#define ENTRIES    4096U
#define FREE       5U
#define WAIT_MAX   900U /* of an address */
#define SHARED_MAX 30U  /* of an account */
#define FORGET_MS  3600000

struct entry {
    char key[300];     /* "": free */
    unsigned failures; /* and guesses that are being looked at */
    int64_t last_ms;   /* of the last one's beginning */
    int64_t before_ms; /* of the one before */
    uint64_t account;  /* of an address: the hash of the account that was guessed for last */
    unsigned run;      /* how many of failures were for it, one after the other */
    unsigned looking;  /* guesses that are being looked at; of an account, from known addresses */
};

static struct entry table[ENTRIES];
static unsigned guesses[2]; /* that are being looked at; of strangers, and of known addresses */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Is entry a to make room before entry b?  An entry stays while guesses of it are being looked at.
 */
static bool entry_goes_first(const struct entry *a, const struct entry *b) {
    bool a_free = a->key[0] == '\0', b_free = b->key[0] == '\0';
    if (a->looking > 0 || b->looking > 0)
        return a->looking == 0;
    return a_free ? !b_free : !b_free && b->last_ms > a->last_ms;
}

static struct entry *entry_find(const char *kind, const char *who, bool make) {
    char key[sizeof table[0].key];
    struct entry *oldest = &table[0];
    int64_t now = clock_mono_ms();
    snprintf(key, sizeof key, "%s %s", kind, who);
    for (size_t i = 0; i < ENTRIES; i++) {
        if (table[i].looking == 0 && now - table[i].last_ms > FORGET_MS)
            table[i].key[0] = '\0';
        if (strcmp(table[i].key, key) == 0)
            return &table[i];
        if (entry_goes_first(&table[i], oldest))
            oldest = &table[i];
    }
    if (!make)
        return NULL;
    *oldest = (struct entry){.last_ms = now, .before_ms = now};
    memcpy(oldest->key, key, sizeof key);
    return oldest;
}

static void entry_begin(struct entry *e, const char *account) {
    uint64_t hash = str_hash(str_of(account));
    e->run = e->account == hash ? e->run + 1 : 1;
    e->account = hash;
    e->failures++;
    e->before_ms = e->last_ms;
    e->last_ms = clock_mono_ms();
}

/* Forgives the guesses for account that were made one after the other, or the last one. */
static void entry_forgive(struct entry *e, const char *account, bool all) {
    unsigned n = all && e->account == str_hash(str_of(account)) ? e->run : 1;
    e->failures -= n < e->failures ? n : e->failures;
    e->run -= n < e->run ? n : e->run;
    e->last_ms = e->before_ms;
}

/* Seconds until another guess may be made. */
static unsigned wait_of(const struct entry *e, unsigned most) {
    if (e->failures < FREE)
        return 0;
    unsigned doubled = e->failures - FREE, wait = doubled > 9 ? most : 1U << doubled;
    int64_t left = e->last_ms + (wait > most ? most : wait) * 1000 - clock_mono_ms();
    return left <= 0 ? 0 : (unsigned)(left / 1000 + 1);
}

/* What is right is forgiven, also what is being looked at yet: that has a bound of its own. */
static bool is_looked_at(const struct entry *e) {
    return e != NULL && e->looking >= FREE;
}

unsigned throttle_begin(const char *client, const char *account, bool known) {
    char key[INET6_ADDRSTRLEN];
    client = netaddr_network(client, THROTTLE_NETWORK, key);
    pthread_mutex_lock(&lock);
    struct entry *from = entry_find("from", client, false), *to = entry_find("for", account, false);
    unsigned a = from == NULL ? 0 : wait_of(from, WAIT_MAX);
    unsigned b = to == NULL || known ? 0 : wait_of(to, SHARED_MAX);
    bool full = guesses[known] == THROTTLE_GUESSES || is_looked_at(from) || is_looked_at(to);
    full = a == 0 && b == 0 && full;
    if (a == 0 && b == 0 && !full) { /* what is refused has no entry made, for which others go */
        from = entry_find("from", client, true);
        entry_begin(from, account);
        from->looking++;
        to = entry_find("for", account, true);
        entry_begin(to, account);
        to->looking += known;
        guesses[known]++;
    }
    pthread_mutex_unlock(&lock);
    return full ? THROTTLE_FULL : a > b ? a : b;
}

void throttle_end(const char *client, const char *account, bool known, enum throttle_end how) {
    char key[INET6_ADDRSTRLEN];
    bool right = how == THROTTLE_RIGHT;
    client = netaddr_network(client, THROTTLE_NETWORK, key);
    pthread_mutex_lock(&lock); /* an account's entry may have made room for another one meanwhile */
    struct entry *from = entry_find("from", client, false), *to = entry_find("for", account, false);
    guesses[known]--;
    if (from != NULL && from->looking > 0)
        from->looking--;
    if (to != NULL && to->looking > 0 && known)
        to->looking--;
    if (from != NULL && how != THROTTLE_WRONG)
        entry_forgive(from, account, right);
    if (to != NULL && how != THROTTLE_WRONG)
        entry_forgive(to, account, right);
    pthread_mutex_unlock(&lock);
}
