/*
 * util/list.h - intrusive doubly linked list
 *
 * The node lives in the object; DL_OWNER finds the object again.  One thread per list.
 */
#ifndef PH_UTIL_LIST_H
#define PH_UTIL_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct dl {
    struct dl *next;
    struct dl *prev;
};

#define DL_OWNER(node, type, field) ((type *)(void *)((char *)(node)-offsetof(type, field)))
#define DL_EACH(it, head)           for (struct dl *it = (head)->next; it != (head); it = it->next)
#define DL_EACH_SAFE(it, head)                                                                     \
    for (struct dl *it = (head)->next, *it##_n = it->next; it != (head);                           \
         it = it##_n, it##_n = it->next)

static inline void dl_init(struct dl *l) {
    l->next = l->prev = l;
}
static inline bool dl_empty(const struct dl *l) {
    return l->next == l;
}
static inline bool dl_linked(const struct dl *n) {
    return n->next != NULL && n->next != n;
}

static inline void dl_push(struct dl *l, struct dl *n) {
    n->prev = l->prev;
    n->next = l;
    l->prev->next = n;
    l->prev = n;
}

static inline void dl_push_front(struct dl *l, struct dl *n) {
    dl_push(l->next, n);
}

/* Safe on a node that is in no list. */
static inline void dl_remove(struct dl *n) {
    if (n->next == NULL)
        return;
    n->next->prev = n->prev;
    n->prev->next = n->next;
    n->next = n->prev = NULL;
}

static inline struct dl *dl_pop(struct dl *l) {
    struct dl *n = l->next;
    if (n == l)
        return NULL;
    dl_remove(n);
    return n;
}

#endif
