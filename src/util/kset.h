/*
 * util/kset.h - hash set of structs with keys that are compared field by field
 *
 * The caller computes a key's hash (kset_mix over its fields) and says with a function whether an
 * object has a key: no text is glued together, so no separator can stand inside a field.  The set
 * keeps pointers only; it owns and frees nothing but its own slots.  One thread per set.
 */
#ifndef PH_UTIL_KSET_H
#define PH_UTIL_KSET_H

#include "util/str.h"

struct kset_slot {
    uint64_t hash;
    void *val; /* NULL: empty */
};

struct kset {
    struct kset_slot *slots;
    size_t cap; /* power of two, or 0 */
    size_t n;
};

/* Does the object val have this key? */
typedef bool (*kset_same_fn)(const void *val, const void *key);

#define KSET_SEED 0x9e3779b97f4a7c15ULL
/* The hash of the fields before, with one field more. */
uint64_t kset_mix(uint64_t hash, struct str field);
/* The same for a field in which ASCII case makes no difference. */
uint64_t kset_mix_folded(uint64_t hash, struct str field);
/* The object with that key, or NULL. */
void *kset_get(const struct kset *t, uint64_t hash, kset_same_fn same, const void *key);
/* Adds val, which is not NULL and has a key that is not in the set. */
void kset_add(struct kset *t, uint64_t hash, void *val);
/* Removes val, which was added with that hash; nothing happens if it is not there. */
void kset_remove(struct kset *t, uint64_t hash, const void *val);
/* Iterates: *pos starts at 0; returns NULL at the end.  The set must not change meanwhile. */
void *kset_next(const struct kset *t, size_t *pos);
/* Frees the slots, not what they point to. */
void kset_free(struct kset *t);

#endif
