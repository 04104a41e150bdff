/*
 * util/clock.h - time: wall clock in microseconds, monotonic in milliseconds
 *
 * Any thread; never fails.
 */
#ifndef PH_UTIL_CLOCK_H
#define PH_UTIL_CLOCK_H

#include <stdint.h>

#include "util/str.h"

/* Microseconds since 1970. */
int64_t clock_wall_us(void);
/* Milliseconds since some start; never jumps. */
int64_t clock_mono_ms(void);
/* Appends "Sun, 22 Nov 2026 10:41:05 +0000 (UTC)" (RFC 5322 section 3.3, with Postfix's zone). */
void clock_add_rfc5322(struct sbuf *b, int64_t wall_us);
/* Appends "20261122104105", in UTC. */
void clock_add_stamp(struct sbuf *b, int64_t wall_us);
/* Appends asctime's "Sun Nov 22 10:38:53 2026" in local time, without its newline. */
void clock_add_asctime(struct sbuf *b, int64_t wall_us);
/* Appends seconds the way Postfix's delay= shows them: two significant digits at most two
 * decimals, trailing zeros dropped. */
void clock_add_delay(struct sbuf *b, int64_t us);

#endif
