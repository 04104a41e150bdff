/*
 * accounts/store.c - opening a store, and what all of them share; see store.h
 */
#include "accounts/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "accounts/inside.h"
#include "maps/maps.h"
#include "maps/tabconf.h"
#include "util/fs.h"
#include "util/idn.h"
#include "util/mem.h"

#define IDLE_MS  60000
#define RETRY_MS 1000

static const struct {
    const char *type;
    const struct sql_ops *sql;
    const struct store_ops *ops;
} kinds[] = {{"sqlite", &sql_sqlite, &store_sql},
             {"mysql", &sql_mysql, &store_sql},
             {"pgsql", &sql_pgsql, &store_sql},
             {"ldap", NULL, &store_ldap}};

static char *path_from(struct str name, const char *dir) {
    struct sbuf b = {0};
    if (name.n > 0 && name.p[0] == '/')
        return str_dup(name);
    sbuf_printf(&b, "%s/%.*s", dir, STR_FMT(name));
    return sbuf_take(&b);
}

static struct tabconf *store_conf_of(const char *path, bool embedded, bool writable, char **why) {
    if (!embedded)
        return tabconf_read(path, why);
    struct tabconf *c = tabconf_parse(STR_LIT(""));
    tabconf_set(c, "dbpath", path);
    tabconf_set(c, "writable", writable ? "yes" : "no");
    return c;
}

struct store *store_open(const char *spec, const char *dir, bool writable, char **why) {
    struct str s = str_of(spec);
    ptrdiff_t colon = str_chr(s, ':');
    size_t k = 0, n = sizeof kinds / sizeof kinds[0];
    while (k < n && (colon <= 0 || !str_eq_c(str_make(s.p, (size_t)colon), kinds[k].type)))
        k++;
    if (k == n) {
        struct sbuf b = {0};
        sbuf_printf(
            &b, "accounts_store = %s: need sqlite:FILE, mysql:FILE, pgsql:FILE or ldap:FILE", spec);
        *why = sbuf_take(&b);
        return NULL;
    }
    char *path = path_from(str_from(s, (size_t)colon + 1), dir);
    struct tabconf *conf = store_conf_of(path, kinds[k].sql == &sql_sqlite, writable, why);
    if (conf == NULL) {
        free(path);
        return NULL;
    }
    struct store *st = MEM_NEW(struct store);
    *st = (struct store){.ops = kinds[k].ops, .sql = kinds[k].sql, .path = path, .conf = conf};
    st->spec = mem_strdup(spec);
    if (st->sql != NULL)
        st->pool =
            pool_new(&st->sql->pool, conf, st->spec,
                     st->sql->host == NULL ? path : tabconf_str(conf, "hosts", st->sql->host),
                     st->sql->host == NULL ? 0 : IDLE_MS, RETRY_MS);
    return st;
}

void store_close(struct store *st) {
    if (st == NULL)
        return;
    pool_free(st->pool);
    tabconf_free(st->conf);
    free(st->spec);
    free(st->path);
    free(st);
}

const char *store_name(const struct store *st) {
    return st->spec;
}

bool store_is_embedded(const struct store *st) {
    return st->sql == &sql_sqlite;
}

enum store_rc store_relay_each(struct store *st, const char *account, store_pair_fn fn, void *arg,
                               char **why) {
    return st->ops->relay_each(st, account, fn, arg, why);
}

enum store_rc store_relay_set(struct store *st, const char *account, const char *value,
                              char **why) {
    return st->ops->relay_set(st, account, value, why);
}

enum store_rc store_verify(struct store *st, const char *user, const char *password, bool secure,
                           const char *client, struct sbuf *name, char **why) {
    if (user[0] == '\0' || password[0] == '\0') { /* an empty password would be an anonymous bind */
        sbuf_add_c(name, "empty user name or password");
        return STORE_NO;
    }
    return st->ops->verify(st, user, password, secure, client, name, why);
}

static void has_end(const struct store *st, void *conn) {
    if (conn != NULL)
        st->ops->has_end(conn);
}

enum store_rc store_has(struct store *st, const char *account, char **why) {
    void *conn = NULL;
    enum store_rc rc = st->ops->has(st, account, &conn, why);
    has_end(st, conn);
    return rc;
}

/* -- which domains and users are there? -- */

struct seen_domain {
    char *name;
    bool there;
};

static enum store_rc domains_look_ask(struct domains_look *l, const char *name, char **why) {
    const char *at = strrchr(name, '@'), *domain = at == NULL ? name : at + 1;
    struct str user = str_make(name, at == NULL ? 0 : (size_t)(at - name));
    struct sbuf ways[3] = {{0}};
    enum store_rc rc = STORE_NO;
    sbuf_add_c(&ways[0], domain);
    idn_spellings(str_of(domain), false, &ways[1], &ways[2]);
    for (size_t i = 0; i < 3 && rc == STORE_NO; i++) {
        struct sbuf account = {0};
        if (ways[i].n == 0)
            continue;
        sbuf_printf(&account, "%.*s@%s", STR_FMT(user), ways[i].p);
        rc = l->st->ops->has(l->st, account.p, &l->conn, why);
        sbuf_free(&account);
    }
    for (size_t i = 0; i < 3; i++)
        sbuf_free(&ways[i]);
    return rc;
}

enum store_rc domains_look_has(struct domains_look *l, const char *account, char **why) {
    struct seen_domain *seen = htab_get(&l->seen, str_of(account));
    if (seen != NULL)
        return seen->there ? STORE_YES : STORE_NO;
    enum store_rc rc = domains_look_ask(l, account, why);
    if (rc == STORE_ERROR)
        return rc;
    seen = MEM_NEW(struct seen_domain);
    *seen = (struct seen_domain){mem_strdup(account), rc == STORE_YES};
    htab_put(&l->seen, str_of(seen->name), seen);
    return rc;
}

void domains_look_end(struct domains_look *l) {
    struct seen_domain *seen;
    size_t pos = 0;
    while ((seen = htab_next(&l->seen, &pos)) != NULL) {
        free(seen->name);
        free(seen);
    }
    htab_free(&l->seen);
    has_end(l->st, l->conn);
}
