/*
 * mail/held.c - how much memory the envelopes of queued mail take; see held.h
 */
#include "mail/held.h"

#include <stdatomic.h>

static _Atomic uint64_t bytes_held;

void held_add(size_t n) {
    atomic_fetch_add_explicit(&bytes_held, n, memory_order_relaxed);
}

void held_remove(size_t n) {
    atomic_fetch_sub_explicit(&bytes_held, n, memory_order_relaxed);
}

uint64_t held_bytes(void) {
    return atomic_load_explicit(&bytes_held, memory_order_relaxed);
}

bool held_is_full(int64_t limit) {
    return limit > 0 && held_bytes() >= (uint64_t)limit;
}
