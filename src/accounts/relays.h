/*
 * accounts/relays.h - writing Posthouse's relay records (maps/map_relays.c reads them)
 *
 * A record is hosts in order, TLS mode, mechanisms and account of a relay, found from a relayhost
 * value as it is, by those who may use it.  Secrets go in sealed and never come out here: the
 * private key is not needed to write.  Calls block; one thread at a time per handle.  *why is the
 * caller's to free.
 */
#ifndef PH_ACCOUNTS_RELAYS_H
#define PH_ACCOUNTS_RELAYS_H

#include "accounts/values.h"

struct relays;

#define RELAY_EVERYBODY "everybody"

struct relay_fields {
    const char *name;
    const char *nexthop; /* the relayhost value that means it; "": its hosts, as they stand */
    const char *users; /* who may use it: RELAY_EVERYBODY, "user@domain, @domain", or "": only mail
                        * with a next hop that main.cf names, or a table in a file; such mail, too,
                        * where RELAYS_NAMED_TOO is in the list */
    const char *hosts;
    const char *tls;
    const char *mechanisms;
    const char *user;
    const char *owner;    /* the domain that the record belongs to; "": it is the server's */
    const char *password; /* write only; NULL when read, and when it stays as it is */
    bool has_secret;
    int64_t modified;            /* read: when it was written last, in seconds */
    char version[VALUE_VERSION]; /* read: other for every state; "" when it is not known */
    bool fresh;                  /* write: it is to be a new record */
};

/* Does the record of that owner belong to who asks?  by: a domain; NULL: the server. */
bool relay_belongs(const char *owner, const char *by);
/* May mail of account (user@domain, @domain or <>; "": anybody's) use it, if no file of this
 * machine's administrator has the mail's next hop? */
bool relay_is_for(const struct relay_fields *f, const char *account);
/* True if mail of all that narrow is for would be wide's if narrow were not there. */
bool relay_covers(const struct relay_fields *wide, const struct relay_fields *narrow);

/* create: makes the database and the key file when they are not there; *made says whether.  A
 * database that is gone while its key is there is not made anew: the records that it had are not
 * forgotten by accident. */
struct relays *relays_open(const char *database, const char *key_file, bool create, bool *made,
                           char **why);
void relays_close(struct relays *r);
/* Does the key in that file open what is sealed for these records?  -ENOENT and others: the file
 * cannot be read; -EBADMSG: it is another key. */
int relays_key_fits(const struct relays *r, const char *key_file);
/* Calls fn for each record, by name; fields are valid during the call.  False: *why. */
bool relays_each(struct relays *r, void (*fn)(void *arg, const struct relay_fields *f), void *arg,
                 char **why);
enum relays_rc {
    RELAYS_UNSET,
    RELAYS_DONE,
    RELAYS_BAD,  /* *why */
    RELAYS_STALE /* version is that of an older state, or a new record is there already; *why */
};

/* Adds a record or sets the fields that are not NULL of the one of that name.  RELAYS_BAD also for
 * values that cannot be used, and when hosts or user change while the password is not given again.
 * Where users is not given, a record that gets an account is only for mail with a next hop
 * that main.cf names, and a domain's for that domain.  version "": whatever the record has become.
 * A domain's record is changed for the server only where owner or version is given: its name may
 * have been taken by chance.
 * by: the record must belong to this domain; NULL: it may belong to any. */
enum relays_rc relays_set(struct relays *r, const struct relay_fields *f, const char *by,
                          char **why);
/* What the record's next hop becomes by f: the caller frees.  *old: what it is now, or NULL for a
 * record that is not there. */
char *relays_next_hop(struct relays *r, const struct relay_fields *f, char **old);

enum relay_use {
    RELAY_USE_UNSET,
    RELAY_NO_RECORD, /* the value means none */
    RELAY_MAY,
    RELAY_MAY_NOT, /* it means one with an account of others: *name */
    RELAY_UNKNOWN  /* *why */
};

/* What a relay host value of that account ("": of anybody, as in a transport) would mean.  *name is
 * the caller's to free. */
enum relay_use relays_use(struct relays *r, struct str value, const char *account, char **name,
                          char **why);
/* Puts account on the list of those who may use the record: mail that might use it still may. */
bool relays_let(struct relays *r, const char *name, const char *account, char **why);
/* Takes it off that list again. */
bool relays_unlet(struct relays *r, const char *name, const char *account, char **why);
/* False: *why, or there is none that is by's (*why NULL). */
bool relays_delete(struct relays *r, const char *name, const char *by, char **why);

#endif
