/*
 * util/chance.c - chance from the kernel; see chance.h
 */
#include "util/chance.h"

#include "util/os.h"

uint32_t chance_below(uint32_t n) {
    uint32_t v = 0;
    if (!os_random(&v, sizeof v, false))
        return 0; /* early after the system's start there is none */
    return (uint32_t)((uint64_t)v * n >> 32);
}
