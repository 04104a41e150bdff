/*
 * util/chance.h - chance where nothing secret depends on it
 *
 * Any thread; no state.  A simulator replaces this one file, and repeats what happened.
 */
#ifndef PH_UTIL_CHANCE_H
#define PH_UTIL_CHANCE_H

#include <stdint.h>

/* A number from 0 to n - 1; n is 1 or more. */
uint32_t chance_below(uint32_t n);

#endif
