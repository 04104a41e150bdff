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
    " account TEXT NOT NULL DEFAULT ''," /* that may use it: RELAYS_NAMED, RELAYS_ALL or a list */ \
    " hosts TEXT NOT NULL,"              /* next hops in order */                                  \
    " tls TEXT NOT NULL DEFAULT 'encrypt',"                                                        \
    " mechanisms TEXT NOT NULL DEFAULT '',"                                                        \
    " username TEXT NOT NULL DEFAULT '',"                                                          \
    " secret BLOB," /* sealed: util/seal.h */                                                      \
    " modified INTEGER NOT NULL DEFAULT 0,"                                                        \
    " owner TEXT NOT NULL DEFAULT ''," /* the domain it belongs to, or empty */                    \
    " UNIQUE (nexthop, account));"                                                                 \
    "CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);"

/* What may use a record: all mail; only mail that has its next hop from main.cf itself or from a
 * table in a file; or else accounts, user@domain and @domain, with a comma between two, and
 * RELAYS_NAMED_TOO among them where mail of that other kind may use it, too. */
#define RELAYS_ALL       ""
#define RELAYS_NAMED     "-"
#define RELAYS_NAMED_TOO "main.cf"

/* Before the next hop of a question: the server's records alone are asked for. */
#define RELAYS_SERVERS "\t"

/* A file that an older version has made is read as it is, and gets this before it is written. */
#define RELAYS_ADD_OWNER "ALTER TABLE relay ADD COLUMN owner TEXT NOT NULL DEFAULT ''"
/* The owner stands behind the list, which may be long: without this, whose a record is cannot be
 * known before all of it has been read from the disk. */
#define RELAYS_INDEX "CREATE INDEX IF NOT EXISTS relay_owner ON relay (owner);"

/* For an account of a list: a record that has it.  For RELAYS_NAMED: one that is for what main.cf
 * names, or else one that has that name and an account of others, so that mail which may not use it
 * can be told so.  RELAYS_PLAIN gives what is written and what is asked for one form for every
 * spelling of a domain.  RELAYS_LISTED says whether a list has an account, which is in that form:
 * lists may be long, and each question passes all of a domain's, so they are not brought into it.
 */
#define RELAYS_PLAIN  "plain"
#define RELAYS_LISTED "listed"
#define RELAYS_FIND_WHERE(may, servers)                                                            \
    "SELECT id, name, hosts, tls, mechanisms, username, account, modified FROM relay"              \
    " WHERE " may "(plain(nexthop) = ?2 OR plain(name) = ?2) AND CASE ?1 WHEN '" RELAYS_ALL        \
    "' THEN account = "                                                                            \
    "'" RELAYS_ALL "' WHEN '" RELAYS_NAMED "' THEN account = '" RELAYS_NAMED "'"                   \
    " OR instr(',' || account || ',', '," RELAYS_NAMED_TOO ",') > 0"                               \
    " OR (username <> '' AND plain(name) = ?2" servers ")"                                         \
    " ELSE listed(account, ?1) END"                                                                \
    " ORDER BY plain(nexthop) = ?2 DESC, CASE ?1 WHEN '" RELAYS_NAMED "' THEN"                     \
    " instr(',' || account || ',', '," RELAYS_NAMED_TOO ",') > 0 OR account = '" RELAYS_NAMED "'"  \
    " ELSE instr(account, ',') = 0 AND plain(account) = ?1 END DESC, id LIMIT 1"
/* A domain's own record is for mail of that domain alone, and is none for the mail of others, or
 * where the server's alone are asked for (?3).  That is asked before all else: of the records of a
 * domain, which may be many and long, the mail of others neither reads anything nor brings names or
 * lists into one form. */
#define RELAYS_FIND                                                                                \
    RELAYS_FIND_WHERE("owner IN (SELECT owner FROM (SELECT DISTINCT owner FROM relay)"             \
                      " WHERE owner = '' OR (NOT ?3 AND plain(owner) ="                            \
                      " substr(?1, instr(?1, '@') + 1))) AND ",                                    \
                      " AND owner = ''")
/* The same where no record has an owner. */
#define RELAYS_FIND_UNOWNED RELAYS_FIND_WHERE("", "")
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
