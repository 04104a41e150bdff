/*
 * accounts/inside.h - what a kind of store gives (store_sql.c, store_ldap.c)
 */
#ifndef PH_ACCOUNTS_INSIDE_H
#define PH_ACCOUNTS_INSIDE_H

#include "accounts/browse.h"
#include "maps/sql.h"

#include <ldap.h>

struct store_ops {
    enum store_rc (*relay_each)(struct store *st, const char *account, store_pair_fn fn, void *arg,
                                char **why);
    enum store_rc (*relay_set)(struct store *st, const char *account, const char *value,
                               char **why);
    enum store_rc (*verify)(struct store *st, const char *user, const char *password, bool secure,
                            const char *client, struct sbuf *name, char **why);
    /* *conn: a directory's connection, which is made if it is NULL, and stays until has_end. */
    enum store_rc (*has)(struct store *st, const char *account, void **conn, char **why);
    void (*has_end)(void *conn); /* not NULL */
    enum store_rc (*browse)(struct store *st, const struct browse *b, account_fn fn, void *arg,
                            char **why);
    enum store_rc (*search)(struct store *st, const char *text, const char *admin, unsigned limit,
                            account_fn fn, void *arg, char **why);
    enum store_rc (*account)(struct store *st, const char *name, account_fn fn, void *arg,
                             char **why);
    enum store_rc (*change)(struct store *st, const char *name, const struct account_change *c,
                            char **why);
    /* password NULL: not asked. */
    enum store_rc (*admin)(struct store *st, const char *user, const char *password,
                           struct admin *a, char **why);
    enum store_rc (*manages)(struct store *st, const char *user, const char *domain, char **why);
};

/* browse_sql.c, browse_ldap.c */
enum store_rc sql_browse(struct store *st, const struct browse *b, account_fn fn, void *arg,
                         char **why);
enum store_rc sql_search(struct store *st, const char *text, const char *admin, unsigned limit,
                         account_fn fn, void *arg, char **why);
enum store_rc sql_account(struct store *st, const char *name, account_fn fn, void *arg, char **why);
enum store_rc sql_change(struct store *st, const char *name, const struct account_change *c,
                         char **why);
enum store_rc sql_admin(struct store *st, const char *user, const char *password, struct admin *a,
                        char **why);
enum store_rc sql_manages(struct store *st, const char *user, const char *domain, char **why);
enum store_rc directory_browse(struct store *st, const struct browse *b, account_fn fn, void *arg,
                               char **why);
enum store_rc directory_search(struct store *st, const char *text, const char *admin,
                               unsigned limit, account_fn fn, void *arg, char **why);
enum store_rc directory_account(struct store *st, const char *name, account_fn fn, void *arg,
                                char **why);
enum store_rc directory_change(struct store *st, const char *name, const struct account_change *c,
                               char **why);
enum store_rc directory_admin(struct store *st, const char *user, const char *password,
                              struct admin *a, char **why);
enum store_rc directory_manages(struct store *st, const char *user, const char *domain, char **why);

/* run_ldap.c: a connection, what went wrong on it, an account's entry
 * ("@domain" or "user@domain"), is that the entry's password? */
LDAP *store_ldap_log_in(struct store *st, char **why);
enum store_rc store_ldap_failed(struct store *st, int rc, char **why);
void store_ldap_dn(const struct store *st, const char *account, struct sbuf *dn);
enum store_rc store_ldap_bind(struct store *st, const char *dn, const char *password, char **why);

struct store {
    const struct store_ops *ops;
    const struct sql_ops *sql; /* NULL: a directory */
    char *spec;
    char *path; /* table file, or the embedded file */
    struct tabconf *conf;
    struct pool *pool;
};

extern const struct store_ops store_sql, store_ldap;

/* run_sql.c: runs one statement and calls fn for each value; "?" in text stands for the next of
 * args, quoted.
 */
enum store_rc store_sql_run(struct store *st, const char *text, const char *const *args,
                            sql_value_fn fn, void *arg, char **why);
/* Runs a statement that asks for names, with name as its argument: STORE_YES if name is among them,
 * and not only what the database takes for equal.  name NULL: any is. */
enum store_rc store_sql_has(struct store *st, const char *text, const char *name, char **why);
/* Statements that answer nothing, in one transaction: all of them have an effect, or none. */
struct sql_statement {
    const char *text;
    const char *const *args;
};
enum store_rc store_sql_change(struct store *st, const struct sql_statement *list, size_t n,
                               char **why);
/* browse_sql.c: makes the statement that sets the relay host of account, or with value NULL takes
 * it away; its arguments are in args then.  STORE_NO: there is nothing to take away. */
enum store_rc store_sql_relay(struct store *st, const char *account, const char *value,
                              struct sql_statement *to, const char *args[2], char **why);

#endif
