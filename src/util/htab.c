/*
 * util/htab.c - hash tables; see htab.h
 *
 * Linear probing with backward-shift deletion: no tombstones, so a table that lives for months
 * with steady churn (the queue's index) never degrades.  Grows at 3/4 full.
 */
#include "util/htab.h"

#include <stdlib.h>

#include "util/mem.h"

static size_t htab_slot(const struct htab *t, struct str key) {
    size_t i = (size_t)str_hash(key) & (t->cap - 1);
    while (t->slots[i].val != NULL && !str_eq(t->slots[i].key, key))
        i = (i + 1) & (t->cap - 1);
    return i;
}

void *htab_get(const struct htab *t, struct str key) {
    return t->cap == 0 ? NULL : t->slots[htab_slot(t, key)].val;
}

static void htab_grow(struct htab *t) {
    struct htab old = *t;
    t->cap = old.cap == 0 ? 16 : old.cap * 2;
    t->slots = mem_zalloc(t->cap * sizeof *t->slots);
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i].val != NULL)
            t->slots[htab_slot(t, old.slots[i].key)] = old.slots[i];
    free(old.slots);
}

void htab_put(struct htab *t, struct str key, void *val) {
    if (t->n * 4 >= t->cap * 3)
        htab_grow(t);
    size_t i = htab_slot(t, key);
    if (t->slots[i].val == NULL)
        t->n++;
    t->slots[i] = (struct htab_slot){key, val};
}

void *htab_del(struct htab *t, struct str key) {
    if (t->cap == 0)
        return NULL;
    size_t hole = htab_slot(t, key), mask = t->cap - 1;
    void *val = t->slots[hole].val;
    if (val == NULL)
        return NULL;
    t->n--;
    for (size_t i = (hole + 1) & mask; t->slots[i].val != NULL; i = (i + 1) & mask) {
        size_t home = (size_t)str_hash(t->slots[i].key) & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            t->slots[hole] = t->slots[i];
            hole = i;
        }
    }
    t->slots[hole].val = NULL;
    return val;
}

void *htab_next(const struct htab *t, size_t *pos) {
    while (*pos < t->cap) {
        void *val = t->slots[(*pos)++].val;
        if (val != NULL)
            return val;
    }
    return NULL;
}

void htab_free(struct htab *t) {
    free(t->slots);
    *t = (struct htab){0};
}

/* Finalizer of MurmurHash3: message ids differ in their low bits only. */
static size_t itab_home(const struct itab *t, uint64_t k) {
    k ^= k >> 33;
    k *= 0xff51afd7ed558ccdULL;
    k ^= k >> 33;
    return (size_t)k & (t->cap - 1);
}

static size_t itab_slot(const struct itab *t, uint64_t key) {
    size_t i = itab_home(t, key);
    while (t->slots[i].val != NULL && t->slots[i].key != key)
        i = (i + 1) & (t->cap - 1);
    return i;
}

void *itab_get(const struct itab *t, uint64_t key) {
    return t->cap == 0 ? NULL : t->slots[itab_slot(t, key)].val;
}

static void itab_grow(struct itab *t) {
    struct itab old = *t;
    t->cap = old.cap == 0 ? 16 : old.cap * 2;
    t->slots = mem_zalloc(t->cap * sizeof *t->slots);
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i].val != NULL)
            t->slots[itab_slot(t, old.slots[i].key)] = old.slots[i];
    free(old.slots);
}

void itab_put(struct itab *t, uint64_t key, void *val) {
    if (t->n * 4 >= t->cap * 3)
        itab_grow(t);
    size_t i = itab_slot(t, key);
    if (t->slots[i].val == NULL)
        t->n++;
    t->slots[i] = (struct itab_slot){key, val};
}

void *itab_del(struct itab *t, uint64_t key) {
    if (t->cap == 0)
        return NULL;
    size_t hole = itab_slot(t, key), mask = t->cap - 1;
    void *val = t->slots[hole].val;
    if (val == NULL)
        return NULL;
    t->n--;
    for (size_t i = (hole + 1) & mask; t->slots[i].val != NULL; i = (i + 1) & mask) {
        size_t home = itab_home(t, t->slots[i].key);
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            t->slots[hole] = t->slots[i];
            hole = i;
        }
    }
    t->slots[hole].val = NULL;
    return val;
}

void *itab_next(const struct itab *t, size_t *pos) {
    while (*pos < t->cap) {
        void *val = t->slots[(*pos)++].val;
        if (val != NULL)
            return val;
    }
    return NULL;
}

void itab_free(struct itab *t) {
    free(t->slots);
    *t = (struct itab){0};
}
