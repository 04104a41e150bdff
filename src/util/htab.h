/*
 * util/htab.h - hash table from text to pointer
 *
 * Open addressing with linear probing, by a hash with a key that only this process knows
 * (str_hash).
 * Keys are not copied: the value must keep them alive.
 * One thread per table.
 */
#ifndef PH_UTIL_HTAB_H
#define PH_UTIL_HTAB_H

#include "util/str.h"

struct htab_slot {
    struct str key;
    void *val; /* NULL: empty */
};

struct htab {
    struct htab_slot *slots;
    size_t cap; /* power of two, or 0 */
    size_t n;
};

void *htab_get(const struct htab *t, struct str key);
/* Sets or replaces; val is not NULL. */
void htab_put(struct htab *t, struct str key, void *val);
/* Returns what was there, or NULL. */
void *htab_del(struct htab *t, struct str key);
/* Iterates: *pos starts at 0; returns NULL at the end.  The table must not change meanwhile. */
void *htab_next(const struct htab *t, size_t *pos);
void htab_free(struct htab *t);

/* The same with 64-bit keys. */
struct itab_slot {
    uint64_t key;
    void *val;
};

struct itab {
    struct itab_slot *slots;
    size_t cap;
    size_t n;
};

void *itab_get(const struct itab *t, uint64_t key);
void itab_put(struct itab *t, uint64_t key, void *val);
void *itab_del(struct itab *t, uint64_t key);
void *itab_next(const struct itab *t, size_t *pos);
void itab_free(struct itab *t);

#endif
