/*
 * accounts/relays.h - writing Posthouse's relay records (maps/map_relays.c reads them)
 *
 * A record is hosts in order, TLS mode, mechanisms and account of a relay, found from a relayhost
 * value as it is.  Secrets go in sealed and never come out here: the private key is not needed to
 * write.  Calls block; one thread at a time per handle.  *why is the caller's to free.
 */
#ifndef PH_ACCOUNTS_RELAYS_H
#define PH_ACCOUNTS_RELAYS_H

#include "util/str.h"

struct relays;

struct relay_fields {
    const char *name;
    const char *nexthop; /* the relayhost value that means it */
    const char *account; /* "user@domain" or "@domain" that it is for; "": all */
    const char *hosts;
    const char *tls;
    const char *mechanisms;
    const char *user;
    const char *password; /* write only; NULL when read, and when it stays as it is */
    bool has_secret;
};

/* True if mail that narrow is for would be wide's if narrow were not there: the same next hop, for
 * everybody, or for the domain of narrow's user. */
bool relay_covers(const struct relay_fields *wide, const struct relay_fields *narrow);

/* create: makes the database and the key file when they are not there; *made says whether.  A
 * database that is gone while its key is there is not made anew: the records that it had are not
 * forgotten by accident. */
struct relays *relays_open(const char *database, const char *key_file, bool create, bool *made,
                           char **why);
void relays_close(struct relays *r);
/* Calls fn for each record, by name; fields are valid during the call.  False: *why. */
bool relays_each(struct relays *r, void (*fn)(void *arg, const struct relay_fields *f), void *arg,
                 char **why);
/* Adds a record or sets the fields that are not NULL of the one of that name.  False: *why, also
 * for values that cannot be used, and when hosts or user change while the password is not given
 * again. */
bool relays_set(struct relays *r, const struct relay_fields *f, char **why);
/* False: *why, or there is none (*why NULL). */
bool relays_delete(struct relays *r, const char *name, char **why);

#endif
