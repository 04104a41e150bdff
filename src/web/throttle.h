/*
 * web/throttle.h - how often passwords may be guessed
 *
 * In memory, per client address (of IPv6, its network of 64 bits) and per account.  A guess counts
 * from its beginning, so that many at once are not looked at either.  Five are free, then each one
 * doubles a wait of one second, up to a quarter of an hour for an address and half a minute for an
 * account.  The wait of an account is not for an address that its owner has come from: a few
 * strangers could keep the owner out for as long as they like.  The right password forgives an
 * account everything, an address what it guessed for that account last; an hour's rest forgives
 * both.  The table is bounded: when it is full, the oldest entry makes room.
 *
 * Strangers of many addresses may have many guesses looked at all the same, and each keeps a place
 * of the page until a database or a slow hash has answered: THROTTLE_GUESSES at a time, and as many
 * from where their accounts' owners have come from.  Of these, five of each address and five of
 * each account: a right password, which forgives, keeps no other owner's from being looked at.  Any
 * thread.
 */
#ifndef PH_WEB_THROTTLE_H
#define PH_WEB_THROTTLE_H

#include <limits.h>
#include <stdbool.h>

#define THROTTLE_NETWORK 64 /* bits of an address of IPv6: who has one has all of its network */

#define THROTTLE_GUESSES 32U
#define THROTTLE_FULL    UINT_MAX /* so many guesses are being looked at */

/* Seconds that this client, or anybody for this account, has to wait; 0: none, and a guess has
 * begun that throttle_end ends.  known: the account's owner has come from the client's address. */
unsigned throttle_begin(const char *client, const char *account, bool known);

enum throttle_end {
    THROTTLE_WRONG,
    THROTTLE_RIGHT,
    THROTTLE_UNKNOWN /* it could not be looked at */
};
void throttle_end(const char *client, const char *account, bool known, enum throttle_end how);

#endif
