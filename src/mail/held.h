/*
 * mail/held.h - how much memory the envelopes of queued mail take
 *
 * A block that stays as long as its message is queued is added when it is allocated, and the same
 * number of bytes is taken off when it is freed: envelopes (envelope.c), the scheduler's messages
 * and why their recipients wait (schedule/).  Any thread.
 */
#ifndef PH_MAIL_HELD_H
#define PH_MAIL_HELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void held_add(size_t n);
void held_remove(size_t n);
uint64_t held_bytes(void);
/* Is new mail put off, with this queue_memory_limit?  (0: never.) */
bool held_is_full(int64_t limit);

#endif
