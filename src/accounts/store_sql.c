/*
 * accounts/store_sql.c - iRedMail's tables in SQLite, MariaDB, MySQL and PostgreSQL; see store.h
 */
#include <stdlib.h>
#include <string.h>

#include "accounts/inside.h"
#include "accounts/password.h"
#include "accounts/values.h"
#include "util/mem.h"

/* The values of one row, or of the last one. */
struct row {
    char *v[8];
    size_t n;
};

static void sql_take(void *arg, struct str value) {
    struct row *r = arg;
    if (r->n < 8)
        r->v[r->n++] = str_dup(value.p == NULL ? STR_LIT("") : value);
}

static void row_free(struct row *r) {
    for (size_t i = 0; i < r->n; i++) {
        mem_wipe(r->v[i], strlen(r->v[i]));
        free(r->v[i]);
    }
    r->n = 0;
}

/* -- relay hosts -- */

struct pairs {
    store_pair_fn fn;
    void *arg;
    char *account;
};

static void take_pair(void *arg, struct str value) {
    struct pairs *p = arg;
    if (value.p == NULL)
        value = STR_LIT("");
    if (p->account == NULL) {
        p->account = str_dup(value);
        return;
    }
    p->fn(p->arg, str_of(p->account), value);
    free(p->account);
    p->account = NULL;
}

static enum store_rc sql_relay_each(struct store *st, const char *account, store_pair_fn fn,
                                    void *arg, char **why) {
    struct pairs p = {fn, arg, NULL};
    const char *args[] = {account};
    enum store_rc rc = store_sql_run(
        st,
        account[0] == '\0' ? "SELECT account, relayhost FROM sender_relayhost ORDER BY account"
                           : "SELECT account, relayhost FROM sender_relayhost WHERE account = ?",
        args, take_pair, &p, why);
    free(p.account);
    return rc;
}

static enum store_rc sql_relay_set(struct store *st, const char *account, const char *value,
                                   char **why) {
    const char *args[2];
    struct sql_statement one;
    enum store_rc rc = store_sql_relay(st, account, value, &one, args, why);
    return rc == STORE_YES ? store_sql_run(st, one.text, one.args, NULL, NULL, why) : rc;
}

static enum store_rc sql_has(struct store *st, const char *account, void **conn, char **why) {
    (void)conn; /* the pool has them */
    return store_sql_has(st,
                         account[0] == '\0'  ? "SELECT domain FROM domain LIMIT 1"
                         : account[0] == '@' ? "SELECT domain FROM domain WHERE domain = ?"
                                             : "SELECT username FROM mailbox WHERE username = ?",
                         account[0] == '\0' ? NULL : account + (account[0] == '@'), why);
}

/* -- passwords -- */

#define LOGIN_QUERY(column)                                                                        \
    "SELECT mailbox.password, mailbox.username, mailbox.allow_nets FROM mailbox, domain"           \
    " WHERE mailbox.username = ? AND mailbox." column " = 1 AND mailbox.active = 1"                \
    " AND mailbox.domain = domain.domain AND domain.backupmx = 0 AND domain.active = 1"

static enum store_rc sql_verify(struct store *st, const char *user, const char *password,
                                bool secure, const char *client, struct sbuf *name, char **why) {
    struct row r = {.n = 0};
    char *lower = mem_strdup(user);
    str_lower(lower, strlen(lower));
    const char *args[] = {lower};
    enum store_rc rc =
        store_sql_run(st, secure ? LOGIN_QUERY("enablesmtpsecured") : LOGIN_QUERY("enablesmtp"),
                      args, sql_take, &r, why);
    if (rc == STORE_YES && r.n < 3) {
        password_pretend(password);
        sbuf_add_c(name, "no such user, or not active, or not allowed to send");
        rc = STORE_NO;
    } else if (rc == STORE_YES && !value_net_ok(r.v[2], client)) {
        sbuf_add_c(name, "client address is not in the user's allow_nets");
        rc = STORE_NO;
    } else if (rc == STORE_YES) {
        enum password_rc good = password_check(r.v[0], password);
        rc = good == PASSWORD_YES ? STORE_YES : STORE_NO;
        sbuf_add_c(name, good == PASSWORD_YES ? r.v[1]
                         : good == PASSWORD_NO
                             ? "wrong password"
                             : "the stored password has a scheme that is not known");
    }
    row_free(&r);
    free(lower);
    return rc;
}

const struct store_ops store_sql = {sql_relay_each, sql_relay_set, sql_verify, sql_has,
                                    NULL,           sql_browse,    sql_search, sql_account,
                                    sql_change,     sql_admin,     sql_manages};
