/*
 * accounts/inside.h - what a kind of store gives (store_sql.c, store_ldap.c)
 */
#ifndef PH_ACCOUNTS_INSIDE_H
#define PH_ACCOUNTS_INSIDE_H

#include "accounts/store.h"
#include "maps/sql.h"

struct store_ops {
    enum store_rc (*relay_each)(struct store *st, const char *account, store_pair_fn fn, void *arg,
                                char **why);
    enum store_rc (*relay_set)(struct store *st, const char *account, const char *value,
                               char **why);
    enum store_rc (*verify)(struct store *st, const char *user, const char *password, bool secure,
                            const char *client, struct sbuf *name, char **why);
    enum store_rc (*has)(struct store *st, const char *account, char **why);
};

struct store {
    const struct store_ops *ops;
    const struct sql_ops *sql; /* NULL: a directory */
    char *spec;
    char *path; /* table file, or the embedded file */
    struct tabconf *conf;
    struct pool *pool;
};

extern const struct store_ops store_sql, store_ldap;

/* Runs one statement and calls fn for each value; "?" in text stands for the next of args, quoted.
 */
enum store_rc store_sql_run(struct store *st, const char *text, const char *const *args,
                            sql_value_fn fn, void *arg, char **why);
/* May a user with this allow_nets ("": anybody) come from client? */
bool store_net_ok(const char *nets, const char *client);

#endif
