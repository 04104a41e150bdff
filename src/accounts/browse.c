/*
 * accounts/browse.c - looking through any kind of store; see browse.h
 */
#include "accounts/browse.h"

#include <stdlib.h>
#include <string.h>

#include "accounts/inside.h"
#include "util/htab.h"
#include "util/idn.h"
#include "util/mem.h"

void account_copy(struct account *to, const struct account *from) {
    *to = *from;
    to->name = mem_strdup(from->name);
    to->title = mem_strdup(from->title);
    to->transport = mem_strdup(from->transport);
    to->relayhost = from->relayhost == NULL ? NULL : mem_strdup(from->relayhost);
    to->settings = mem_strdup(from->settings);
}

void account_free(struct account *a) {
    free(a->name);
    free(a->title);
    free(a->transport);
    free(a->relayhost);
    free(a->settings);
}

enum store_rc store_browse(struct store *st, const struct browse *b, account_fn fn, void *arg,
                           char **why) {
    return st->ops->browse(st, b, fn, arg, why);
}

enum store_rc store_search(struct store *st, const char *text, const char *admin, unsigned limit,
                           account_fn fn, void *arg, char **why) {
    return st->ops->search(st, text, admin, limit, fn, arg, why);
}

enum store_rc store_account(struct store *st, const char *name, account_fn fn, void *arg,
                            char **why) {
    return st->ops->account(st, name, fn, arg, why);
}

enum store_rc store_change(struct store *st, const char *name, const struct account_change *c,
                           char **why) {
    return st->ops->change(st, name, c, why);
}

enum store_rc store_admin_verify(struct store *st, const char *user, const char *password,
                                 struct admin *a, char **why) {
    if (user[0] == '\0' || password[0] == '\0') /* an empty password would be an anonymous bind */
        return STORE_NO;
    return st->ops->admin(st, user, password, a, why);
}

enum store_rc store_admin_find(struct store *st, const char *user, struct admin *a, char **why) {
    return st->ops->admin(st, user, NULL, a, why);
}

enum store_rc store_manages(struct store *st, const char *user, const char *domain, char **why) {
    return st->ops->manages(st, user, domain, why);
}

enum store_rc store_admin_password(struct store *st, const char *user, const char *hash,
                                   char **why) {
    const char *args[] = {hash, user};
    if (!store_is_embedded(st)) {
        *why = mem_strdup("its administrators sign in with the password that they have there");
        return STORE_ERROR;
    }
    return store_sql_run(
        st,
        "UPDATE admin SET password = ?, passwordlastchange = CURRENT_TIMESTAMP WHERE username = ?",
        args, NULL, NULL, why);
}

/* -- the accounts of a relay host -- */

struct uses {
    store_pair_fn fn;
    void *arg;
    struct str value;
    unsigned left;
    char *account; /* SQL: the value that follows is its */
};

static void use_pair(void *arg, struct str account, struct str value) {
    struct uses *u = arg;
    if (u->left == 0 || !idn_same(str_trim(value), u->value, false))
        return;
    u->left--;
    u->fn(u->arg, account, value);
}

static void use_value(void *arg, struct str value) {
    struct uses *u = arg;
    if (u->account == NULL) {
        u->account = str_dup(value.p == NULL ? STR_LIT("") : value);
        return;
    }
    use_pair(u, str_of(u->account), value.p == NULL ? STR_LIT("") : value);
    free(u->account);
    u->account = NULL;
}

enum store_rc store_relay_users(struct store *st, const char *value, unsigned limit,
                                store_pair_fn fn, void *arg, char **why) {
    struct uses u = {fn, arg, str_of(value), limit, NULL};
    if (st->sql == NULL)
        return store_relay_each(st, "", use_pair, &u, why);
    struct sbuf sql = {0}, other = {0}, plain = {0};
    char *low = mem_strdup(value);
    str_lower(low, strlen(low));
    idn_spellings(str_of(low), false, &other, &plain);
    const char *args[] = {low, other.n > 0 ? other.p : low, plain.n > 0 ? plain.p : low};
    sbuf_printf(&sql,
                "SELECT account, relayhost FROM sender_relayhost WHERE LOWER(relayhost) IN "
                "(?, ?, ?) ORDER BY account LIMIT %u",
                limit);
    enum store_rc rc = store_sql_run(st, sql.p, args, use_value, &u, why);
    free(u.account);
    free(low);
    sbuf_free(&sql);
    sbuf_free(&other);
    sbuf_free(&plain);
    return rc;
}

struct counts {
    store_count_fn fn;
    void *arg;
    struct htab seen; /* a directory's: "domain\tvalue" to its count */
    char *row[2];     /* SQL: domain and value, which the number that follows is of */
    size_t n;
};

struct count {
    char *key, *value; /* value: in key */
    long n;
};

static void count_pair(void *arg, struct str account, struct str value) {
    struct counts *c = arg;
    struct sbuf key = {0};
    ptrdiff_t at = str_rchr(account, '@');
    struct str domain = str_from(account, (size_t)(at + 1));
    sbuf_printf(&key, "%.*s\t%.*s", STR_FMT(domain), STR_FMT(value));
    struct count *one = htab_get(&c->seen, sbuf_str(&key));
    if (one == NULL) {
        one = MEM_NEW(struct count);
        one->key = sbuf_take(&key);
        one->value = one->key + domain.n + 1;
        htab_put(&c->seen, str_of(one->key), one);
    }
    sbuf_free(&key);
    one->n++;
}

static void count_value(void *arg, struct str value) {
    struct counts *c = arg;
    uint64_t n = 0;
    if (c->n < 2) {
        c->row[c->n++] = str_dup(value.p == NULL ? STR_LIT("") : value);
        return;
    }
    str_u64(value, &n);
    c->fn(c->arg, c->row[0], c->row[1], (long)n);
    while (c->n > 0)
        free(c->row[--c->n]);
}

static const char *count_query(const struct store *st) {
    if (st->sql == &sql_mysql)
        return "SELECT SUBSTRING_INDEX(account, '@', -1), relayhost, COUNT(*) FROM "
               "sender_relayhost GROUP BY 1, 2";
    if (st->sql == &sql_pgsql)
        return "SELECT SUBSTRING(account FROM POSITION('@' IN account) + 1), relayhost, COUNT(*) "
               "FROM sender_relayhost GROUP BY 1, 2";
    return "SELECT SUBSTR(account, INSTR(account, '@') + 1), relayhost, COUNT(*) FROM "
           "sender_relayhost GROUP BY 1, 2";
}

enum store_rc store_relay_counts(struct store *st, store_count_fn fn, void *arg, char **why) {
    struct counts c = {.fn = fn, .arg = arg};
    size_t pos = 0;
    enum store_rc rc = st->sql == NULL
                           ? store_relay_each(st, "", count_pair, &c, why)
                           : store_sql_run(st, count_query(st), NULL, count_value, &c, why);
    for (struct count *one; (one = htab_next(&c.seen, &pos)) != NULL;) {
        if (rc == STORE_YES) {
            one->value[-1] = '\0';
            fn(arg, one->key, one->value, one->n);
        }
        free(one->key);
        free(one);
    }
    htab_free(&c.seen);
    while (c.n > 0)
        free(c.row[--c.n]);
    return rc;
}

bool settings_disable(const char *settings, const char *kind, const char *profile) {
    struct str rest = str_of(settings), one;
    while (str_split(&rest, ";", &one)) {
        ptrdiff_t colon = str_chr(one, ':');
        if (colon < 0 || !str_eq_c(str_trim(str_make(one.p, (size_t)colon)), kind))
            continue;
        struct str list = str_from(one, (size_t)colon + 1), word;
        while (str_split(&list, ", ", &word))
            if (str_eq_c(word, profile))
                return true;
    }
    return false;
}
