/*
 * receive/anvil.h - connections and events per client, over all loops
 *
 * Any thread.  Clients of IPv6 are counted by network (the first 84 bits, as Postfix 3.8 and
 * later), because each of them has more addresses than anything here could hold.  What is kept is
 * bounded: an entry goes when the client has no connection and its interval is over, and, above
 * ANVIL_IDLE_MAX clients without a connection, the one that was heard of least recently.
 */
#ifndef PH_RECEIVE_ANVIL_H
#define PH_RECEIVE_ANVIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ANVIL_IDLE_MAX 20000U

enum anvil_what { ANVIL_MESSAGE, ANVIL_RCPT, ANVIL_AUTH, ANVIL_EVENTS };

/* addr: the address as text.  Counts a connection that begins; false if it is one too many: more
 * than max_count are open, or more than max_rate began in unit_s seconds (0: no limit). */
bool anvil_connect(const char *addr, int64_t max_count, int64_t max_rate, int64_t unit_s);
/* A connection that was counted, allowed or not, has ended. */
void anvil_disconnect(const char *addr);
/* One more event; how many there were in the client's interval of unit_s seconds. */
int64_t anvil_event(const char *addr, enum anvil_what what, int64_t unit_s);
/* How many clients are known. */
size_t anvil_clients(void);
/* For tests: the clock, in milliseconds; NULL: the real one. */
void anvil_set_clock(int64_t (*now_ms)(void));

#endif
