/*
 * accounts/store.h - the accounts store: domains, users, admins, and where they relay
 *
 * iRedMail's tables in SQLite (the embedded default), MariaDB, MySQL or PostgreSQL, or its tree in
 * a directory.  Used by the posthouse command, and by the lookup process's workers to verify
 * passwords.  Calls block; any number of threads may use one store.  Every call that fails sets
 * *why (the caller frees).
 */
#ifndef PH_ACCOUNTS_STORE_H
#define PH_ACCOUNTS_STORE_H

#include "util/htab.h"
#include "util/str.h"

struct store;

enum store_rc { STORE_ERROR = -1, STORE_NO = 0, STORE_YES = 1 };

/* spec: "sqlite:FILE" or "mysql:FILE" and so on with a table file; NULL: *why.  Nothing is
 * connected yet. */
struct store *store_open(const char *spec, const char *dir, bool writable, char **why);
void store_close(struct store *st);
bool store_is_embedded(const struct store *st);
/* The spec that it was opened by. */
const char *store_name(const struct store *st);
/* The embedded store in that directory, writable; its folder, file and tables are made if they are
 * not there. */
struct store *store_embedded(const char *data_directory, char **why);

typedef void (*store_pair_fn)(void *arg, struct str account, struct str value);

/* Every sender that has a relay host, or those that concern account ("": all). */
enum store_rc store_relay_each(struct store *st, const char *account, store_pair_fn fn, void *arg,
                               char **why);
/* value NULL: takes it away.  STORE_NO: there was nothing to take away, or (a directory) no such
 * account. */
enum store_rc store_relay_set(struct store *st, const char *account, const char *value, char **why);

/* YES if the password is right and the user may send: *name becomes the canonical name; NO: *name
 * becomes the reason, for the log.  secure: over TLS.  client: the client's address, for
 * allow_nets. */
enum store_rc store_verify(struct store *st, const char *user, const char *password, bool secure,
                           const char *client, struct sbuf *name, char **why);

/* To the embedded store.  hash: as password_hash makes it.  NO: it is there already, or its domain
 * is not. */
enum store_rc store_add_domain(struct store *st, const char *domain, char **why);
enum store_rc store_add_user(struct store *st, const char *mail, const char *hash, char **why);
/* domain NULL: of everything. */
enum store_rc store_add_admin(struct store *st, const char *mail, const char *hash,
                              const char *domain, char **why);
/* Is the account there?  "": is there any? */
enum store_rc store_has(struct store *st, const char *account, char **why);
/* Looks which domains and users a store has, each asked for once, over one connection: begins as
 * {.st = st}; one thread uses it. */
struct domains_look {
    struct store *st;
    struct htab seen;
    void *conn; /* a directory's */
};
/* Is that domain, or user@domain, there, in any of its spellings?  An error is not remembered. */
enum store_rc domains_look_has(struct domains_look *l, const char *account, char **why);
void domains_look_end(struct domains_look *l);

#endif
