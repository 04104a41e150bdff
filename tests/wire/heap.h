/*
 * tests/wire/heap.h - memory of a simulated life: three heaps, statics that are put back
 *
 * malloc and free of the whole program come here.  Which heap an allocation is made in depends on
 * what is running: the process (main, OpenSSL, caches), the world (peers, ledger, the simulator),
 * or the product.  The world's heap ends with the scenario, the product's with its life: nothing in
 * them is freed one by one, so that killing the product costs nothing and needs no code of its own.
 * With sanitizers there is one heap only, theirs.  One thread.
 */
#ifndef PH_TESTS_WIRE_HEAP_H
#define PH_TESTS_WIRE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 0: a sanitizer's heap is used for all. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HEAP_OWN 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define HEAP_OWN 0
#endif
#endif
#ifndef HEAP_OWN
#define HEAP_OWN 1
#endif

/* Variables of the simulator that outlive a scenario. */
#define WIRE_KEEP __attribute__((section("wire_keep")))

enum heap_side { HEAP_PROCESS, HEAP_WORLD, HEAP_PRODUCT };

/* What runs from now on; returns what ran before. */
enum heap_side heap_switch(enum heap_side side);
/* What static variables hold now is what every life begins with. */
void heap_freeze(void);
/* Both heaps are empty, statics are as they were when frozen. */
void heap_begin_scenario(void);
/* The product's heap is empty, statics are as they were when frozen. */
void heap_begin_life(void);

/* Bytes that the product has and has not freed. */
size_t heap_product_bytes(void);
/* What is wrong with the product's heap, or NULL: memory that nothing points to any more, memory
 * written after it was freed. Only when
 * the product is not running. */
const char *heap_check(void);
/* Is that address the beginning of some live memory of the product? */
#endif
