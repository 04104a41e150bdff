/*
 * maps/relays.h - what the reader and the writer of the relay records agree on
 *
 * accounts/relays.c writes the file, map_relays.c reads it in the lookup process.
 */
#ifndef PH_MAPS_RELAYS_H
#define PH_MAPS_RELAYS_H

#include "util/seal.h"
#include "util/str.h"

#define RELAYS_SCHEMA                                                                              \
    "CREATE TABLE IF NOT EXISTS relay ("                                                           \
    " id INTEGER PRIMARY KEY AUTOINCREMENT,"                                                       \
    " name TEXT NOT NULL UNIQUE,"        /* for people */                                          \
    " nexthop TEXT NOT NULL,"            /* the relayhost value that means it, lower case */       \
    " account TEXT NOT NULL DEFAULT ''," /* user@domain or @domain that it is for; '': all */      \
    " hosts TEXT NOT NULL,"              /* next hops in order */                                  \
    " tls TEXT NOT NULL DEFAULT 'encrypt',"                                                        \
    " mechanisms TEXT NOT NULL DEFAULT '',"                                                        \
    " username TEXT NOT NULL DEFAULT '',"                                                          \
    " secret BLOB," /* sealed: util/seal.h */                                                      \
    " modified INTEGER NOT NULL DEFAULT 0,"                                                        \
    " UNIQUE (nexthop, account));"                                                                 \
    "CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);"

#define RELAYS_FIND                                                                                \
    "SELECT id, name, hosts, tls, mechanisms, username, account, modified FROM relay"              \
    " WHERE account = ?1 AND (nexthop = ?2 OR lower(name) = ?2) ORDER BY nexthop = ?2 DESC LIMIT " \
    "1"
#define RELAYS_SECRET                                                                              \
    "SELECT hosts, username, secret, tls, mechanisms, account FROM relay WHERE id = ?1"

/* The text that a record's secret is bound to. */
void relays_bound(struct sbuf *out, const char *hosts, const char *user);
/* What a record was when the mail was routed, and the next hop that is spoken to, as the record's
 * hosts have it. */
struct relays_question {
    const char *id, *tls, *mechanisms, *user, *account, *nexthop;
};

/* The question about a record's secret, which is answered only while the record is what it was.  It
 * begins with two line breaks, as no question about a record does: those are "account\nnext hop".
 */
void relays_ask_secret(struct sbuf *out, const struct relays_question *q);
/* Reads relays_key_file: base64 of 32 bytes.  Negative errno. */
int relays_key_read(const char *path, unsigned char key[SEAL_KEY]);

#endif
