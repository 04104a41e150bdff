/*
 * schedule/tally.c - what became of mail; see tally.h
 */
#include "schedule/tally.h"

#include <stdlib.h>
#include <string.h>

#include "util/clock.h"
#include "util/mem.h"

#define DAY_US 86400000000LL

struct hop_key {
    struct str nexthop; /* ASCII case makes no difference */
    struct str record;
};

static bool hop_same(const void *val, const void *key) {
    const struct hop *h = val;
    const struct hop_key *k = key;
    return str_ieq(str_of(h->nexthop), k->nexthop) && str_eq_c(k->record, h->record);
}

static struct hop *hop_new(const struct hop_key *k) {
    struct hop *h = MEM_NEW(struct hop);
    h->nexthop = str_dup(k->nexthop);
    str_lower(h->nexthop, k->nexthop.n);
    h->record = str_dup(k->record);
    return h;
}

struct hop *tally_hop(struct tally *t, struct str nexthop, struct str record) {
    struct hop_key key = {nexthop, record}, others = {STR_LIT("(others)"), STR_LIT("")};
    uint64_t hash = kset_mix(kset_mix_folded(KSET_SEED, nexthop), record);
    struct hop *h = kset_get(&t->hops, hash, hop_same, &key);
    if (h != NULL)
        return h;
    if (t->hops.n >= HOPS_MAX) {
        if (t->rest == NULL)
            t->rest = hop_new(&others);
        return t->rest;
    }
    h = hop_new(&key);
    kset_add(&t->hops, hash, h);
    return h;
}

static void count_sender(struct tally *t, struct str sender, enum mail_status status) {
    struct sender_count *c = htab_get(&t->senders, sender);
    if (c == NULL && t->senders.n >= SENDERS_MAX)
        return;
    if (c == NULL) {
        c = MEM_NEW(struct sender_count);
        c->sender = str_dup(sender);
        htab_put(&t->senders, str_make(c->sender, sender.n), c);
    }
    c->count[status]++;
}

void tally_result(struct tally *t, struct hop *hop, struct str sender, const struct mailerr *e) {
    t->count[e->status]++;
    count_sender(t, sender, e->status);
    if (hop == NULL)
        return;
    hop->count[e->status]++;
    if (e->status == MAIL_SENT) {
        hop->ok_us = clock_wall_us();
        return;
    }
    hop->err_us = clock_wall_us();
    mailerr_copy(&hop->err, e);
}

void tally_tick(struct tally *t, int64_t now_us) {
    size_t pos = 0;
    if (t->since_us == 0)
        t->since_us = now_us;
    if (now_us - t->since_us < DAY_US)
        return;
    for (struct sender_count *c; (c = htab_next(&t->senders, &pos)) != NULL;) {
        free(c->sender);
        free(c);
    }
    htab_free(&t->senders);
    t->senders = (struct htab){0};
    t->since_us = now_us;
}

static uint64_t total(const struct sender_count *c) {
    return c->count[MAIL_SENT] + c->count[MAIL_DEFERRED] + c->count[MAIL_BOUNCED];
}

static int by_total(const void *a, const void *b) {
    const struct sender_count *const *x = a, *const *y = b;
    return total(*x) < total(*y) ? 1 : total(*x) > total(*y) ? -1 : 0;
}

const struct sender_count **tally_busiest(const struct tally *t, size_t *n) {
    size_t pos = 0, have = 0;
    const struct sender_count **all =
        mem_alloc((t->senders.n + 1) * sizeof(const struct sender_count *));
    for (const struct sender_count *c; (c = htab_next(&t->senders, &pos)) != NULL;)
        all[have++] = c;
    qsort(all, have, sizeof(const struct sender_count *), by_total);
    if (*n > have)
        *n = have;
    return all;
}
