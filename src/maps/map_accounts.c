/*
 * maps/map_accounts.c - accounts: the accounts store's relay host of a sender
 *
 * "accounts:sqlite:/file", "accounts:mysql:/table-file" and so on: what `posthouse relay set` and
 * the page write, in iRedMail's tables or tree (iRedMail's own lookup files ask the same).  In a
 * directory a key with a local part is asked of the user alone and @domain of the domain alone, so
 * that a user's own setting is always the stronger one.
 */
#include <errno.h>
#include <stdlib.h>

#include "maps/map.h"
#include "maps/tabconf.h"
#include "util/mem.h"

#define QUERY "SELECT relayhost FROM sender_relayhost WHERE account='%s' LIMIT 1"
#define USER_FILTER                                                                                \
    "(&(objectClass=mailUser)(mail=%s)(accountStatus=active)(!(domainStatus=disabled))"            \
    "(enabledService=mail))"
#define DOMAIN_FILTER                                                                              \
    "(&(objectClass=mailDomain)(accountStatus=active)(enabledService=mail)"                        \
    "(|(domainName=%d)(domainAliasName=%d)))"

struct accounts {
    struct map *user; /* of everything but a directory: of both */
    struct map *domain;
};

/* NULL with m's error set. */
static struct tabconf *accounts_map_conf_of(struct map *m, const struct map_ops *ops,
                                            struct str where) {
    char *path = str_dup(where), *why = NULL;
    struct tabconf *c = NULL;
    if (ops == &map_sqlite) {
        c = tabconf_parse(STR_LIT(""));
        tabconf_set(c, "dbpath", path);
    } else if ((c = tabconf_read(path, &why)) == NULL) {
        map_set_error(m, "%s", why);
    }
    free(path);
    free(why);
    return c;
}

static void aim_at_directory(struct tabconf *c, const char *below, const char *filter) {
    struct sbuf base = {0};
    sbuf_printf(&base, "%s%s", below, tabconf_str(c, "search_base", ""));
    tabconf_set(c, "search_base", base.p);
    tabconf_set(c, "scope", "one");
    tabconf_set(c, "query_filter", filter);
    tabconf_set(c, "result_attribute", "senderRelayHost");
    sbuf_free(&base);
}

/* NULL with m's error set. */
static struct map *map_of(struct map *m, const struct map_ops *ops, struct str where, bool domain) {
    struct tabconf *c = accounts_map_conf_of(m, ops, where);
    if (c == NULL)
        return NULL;
    if (ops != &map_ldap)
        tabconf_set(c, "query", QUERY);
    else if (domain)
        aim_at_directory(c, "", DOMAIN_FILTER);
    else
        aim_at_directory(c, "ou=Users,domainName=%d,", USER_FILTER);
    return map_open_conf(ops, m->spec, c, m->values);
}

static void accounts_shut(struct map *m) {
    struct accounts *a = m->state;
    map_close(a->user);
    map_close(a->domain);
    free(a);
}

static int accounts_open(struct map *m) {
    struct str s = str_of(m->name);
    ptrdiff_t colon = str_chr(s, ':');
    const struct map_ops *ops = colon <= 0 ? NULL : map_type(str_make(s.p, (size_t)colon));
    struct str where = str_from(s, (size_t)(colon + 1));
    if (ops != &map_sqlite && ops != &map_mysql && ops != &map_pgsql && ops != &map_ldap) {
        map_set_error(m,
                      "bad accounts store \"%s\": need sqlite:FILE, mysql:FILE, pgsql:FILE or "
                      "ldap:FILE",
                      m->name);
        return -EINVAL;
    }
    struct accounts *a = MEM_NEW(struct accounts);
    m->state = a;
    a->user = map_of(m, ops, where, false);
    if (ops == &map_ldap && a->user != NULL)
        a->domain = map_of(m, ops, where, true);
    struct map *bad = a->user != NULL && !a->user->opened       ? a->user
                      : a->domain != NULL && !a->domain->opened ? a->domain
                                                                : NULL;
    if (bad != NULL)
        map_set_error(m, "%s", bad->err);
    if (a->user != NULL && bad == NULL)
        return 0;
    accounts_shut(m);
    return -EINVAL;
}

static struct map *map_for(const struct map *m, struct str key) {
    const struct accounts *a = m->state;
    return a->domain != NULL && key.n > 0 && key.p[0] == '@' ? a->domain : a->user;
}

static enum map_rc accounts_get(struct map *m, struct str key, struct sbuf *value) {
    struct map *of = map_for(m, key);
    enum map_rc rc = map_get(of, key, value);
    if (rc == MAP_ERROR)
        map_take_error(m, of, "");
    return rc;
}

static void accounts_where(struct map *m, struct str key, struct sbuf *out) {
    map_where(map_for(m, key), key, out);
}

const struct map_ops map_accounts = {.type = "accounts",
                                     .fixed = true,
                                     .shared = true,
                                     .remote = true,
                                     .open = accounts_open,
                                     .close = accounts_shut,
                                     .get = accounts_get,
                                     .where = accounts_where};
