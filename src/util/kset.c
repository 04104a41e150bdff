/*
 * util/kset.c - hash set of structs; see kset.h
 *
 * Linear probing with backward-shift deletion, as util/htab.c.  The whole hash is kept in each
 * slot, so that keys are compared only when their hashes are equal.
 */
#include "util/kset.h"

#include <stdlib.h>

#include "util/mem.h"

uint64_t kset_mix(uint64_t hash, struct str field) {
    hash = (hash ^ str_hash(field)) * 0xff51afd7ed558ccdULL;
    return hash ^ (hash >> 32);
}

uint64_t kset_mix_folded(uint64_t hash, struct str field) {
    char folded[256];
    uint64_t at = hash;
    do { /* in pieces: a field may be longer than the buffer */
        size_t n = field.n < sizeof folded ? field.n : sizeof folded;
        for (size_t i = 0; i < n; i++)
            folded[i] = field.p[i];
        str_lower(folded, n);
        at = kset_mix(at, str_make(folded, n));
        field = str_from(field, n);
    } while (field.n > 0);
    return at;
}

/* Where an object with that key is, or the empty slot where it would be. */
static size_t kset_slot_of(const struct kset *t, uint64_t hash, kset_same_fn same,
                           const void *key) {
    size_t i = (size_t)hash & (t->cap - 1);
    while (t->slots[i].val != NULL && (t->slots[i].hash != hash || !same(t->slots[i].val, key)))
        i = (i + 1) & (t->cap - 1);
    return i;
}

void *kset_get(const struct kset *t, uint64_t hash, kset_same_fn same, const void *key) {
    return t->cap == 0 ? NULL : t->slots[kset_slot_of(t, hash, same, key)].val;
}

static void kset_place(struct kset *t, uint64_t hash, void *val) {
    size_t i = (size_t)hash & (t->cap - 1);
    while (t->slots[i].val != NULL)
        i = (i + 1) & (t->cap - 1);
    t->slots[i] = (struct kset_slot){hash, val};
}

static void kset_grow(struct kset *t) {
    struct kset old = *t;
    t->cap = old.cap == 0 ? 16 : old.cap * 2;
    t->slots = mem_zalloc(t->cap * sizeof *t->slots);
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i].val != NULL)
            kset_place(t, old.slots[i].hash, old.slots[i].val);
    free(old.slots);
}

void kset_add(struct kset *t, uint64_t hash, void *val) {
    if (t->n * 4 >= t->cap * 3)
        kset_grow(t);
    kset_place(t, hash, val);
    t->n++;
}

void kset_remove(struct kset *t, uint64_t hash, const void *val) {
    size_t mask = t->cap - 1, hole = (size_t)hash & mask;
    if (t->cap == 0)
        return;
    while (t->slots[hole].val != val) {
        if (t->slots[hole].val == NULL)
            return;
        hole = (hole + 1) & mask;
    }
    t->n--;
    for (size_t i = (hole + 1) & mask; t->slots[i].val != NULL; i = (i + 1) & mask)
        if (((i - (size_t)t->slots[i].hash) & mask) >= ((i - hole) & mask)) {
            t->slots[hole] = t->slots[i];
            hole = i;
        }
    t->slots[hole].val = NULL;
}

void *kset_next(const struct kset *t, size_t *pos) {
    while (*pos < t->cap) {
        void *val = t->slots[(*pos)++].val;
        if (val != NULL)
            return val;
    }
    return NULL;
}

void kset_free(struct kset *t) {
    free(t->slots);
    *t = (struct kset){0};
}
