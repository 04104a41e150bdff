/*
 * web/throttle.h - how often passwords may be guessed
 *
 * In memory, per client address and per account: five failures are free, then each one doubles a
 * wait of one second, up to a quarter of an hour for an address and half a minute for an account; a
 * success or an hour's rest forgets.  The table is bounded: when it is full, the oldest entry makes
 * room.  Any thread.
 */
#ifndef PH_WEB_THROTTLE_H
#define PH_WEB_THROTTLE_H

#include <stdbool.h>

/* Seconds that this client, or anybody for this account, has to wait; 0: none. */
unsigned throttle_wait(const char *client, const char *account);
void throttle_note(const char *client, const char *account, bool good);

#endif
