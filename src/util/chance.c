/*
 * util/chance.c - chance from the kernel; see chance.h
 */
#include "util/chance.h"

#include <sys/random.h>

uint32_t chance_below(uint32_t n) {
    uint32_t v = 0;
    if (getrandom(&v, sizeof v, GRND_NONBLOCK) != (ssize_t)sizeof v)
        return 0; /* early after the system's start there is none */
    return (uint32_t)((uint64_t)v * n >> 32);
}
