/*
 * maps/map_ldap.c - ldap: tables
 *
 * As ldap_table(5) has it: search_base and query_filter with the key's parts, quoted for where they
 * stand (RFC 4514, RFC 4515); result attributes, DNs that are followed, leaf and terminal
 * attributes. A search base that depends on the key and does not exist means "not found"; a fixed
 * one that does not exist is an error.
 */
#include <errno.h>
#include <ldap.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "maps/dbtable.h"
#include "maps/directory.h"
#include "maps/maps.h"
#include "maps/template.h"
#include "util/mem.h"

#define DIR_IDLE_S 60

struct names {
    char **v; /* ends with NULL */
    size_t n;
};

struct ldap_table {
    struct map *m;
    struct tabconf *conf;
    struct pool *pool;
    char *uris;
    const char *base, *filter, *result_format;
    int scope;
    struct names results, special, leaf, terminal, all; /* attributes; all: what is asked for */
    struct matchlist *domains;
    int64_t expansion_limit, recursion_limit, size_limit, timeout;
};

struct ask {
    struct ldap_table *t;
    const char *base, *filter;
    struct dbvalues values;
};

static void names_split(struct names *l, const char *text) {
    struct str rest = str_of(text), w;
    l->v = mem_realloc(l->v, (l->n + 1) * sizeof *l->v);
    while (str_split(&rest, ", \t\r\n", &w)) {
        l->v[l->n++] = str_dup(w);
        l->v = mem_realloc(l->v, (l->n + 1) * sizeof *l->v);
    }
    l->v[l->n] = NULL;
}

static void names_free(struct names *l) {
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i]);
    free(l->v);
}

static void dir_close(void *conn) {
    ldap_unbind_ext_s(conn, NULL, NULL);
}

/* The library goes through the servers by itself: to the pool they are one host. */
static void *dir_connect(const char *uris, const struct tabconf *c, char **why) {
    char *list = mem_strdup(uris);
    for (char *p = list; *p != '\0'; p++)
        if (*p == '|')
            *p = ' ';
    LDAP *ld = directory_connect(c, list, NULL, why);
    free(list);
    return ld;
}

static const struct pool_ops dir_ops = {dir_connect, dir_close};

static char *ldap_map_failure(int rc) {
    return mem_strdup(ldap_err2string(rc));
}

/* -- opening -- */

static const char *take_attributes(struct ldap_table *t) {
    const struct tabconf *c = t->conf;
    struct names *lists[] = {&t->results, &t->special, &t->leaf, &t->terminal};
    const char *const texts[] = {tabconf_str(c, "result_attribute", "maildrop"),
                                 tabconf_str(c, "special_result_attribute", ""),
                                 tabconf_str(c, "leaf_result_attribute", ""),
                                 tabconf_str(c, "terminal_result_attribute", "")};
    for (size_t i = 0; i < 4; i++) {
        names_split(lists[i], texts[i]);
        names_split(&t->all, texts[i]);
    }
    return t->all.n == 0 ? "it has no \"result_attribute\"" : NULL;
}

static const char *take_scope(struct ldap_table *t) {
    const char *v = tabconf_str(t->conf, "scope", "sub");
    t->scope = strcmp(v, "one") == 0    ? LDAP_SCOPE_ONELEVEL
               : strcmp(v, "base") == 0 ? LDAP_SCOPE_BASE
                                        : LDAP_SCOPE_SUBTREE;
    return t->scope == LDAP_SCOPE_SUBTREE && strcmp(v, "sub") != 0 ? "\"scope\" is sub, one or base"
                                                                   : NULL;
}

/* NULL, or what is wrong with the file. */
static const char *ldap_map_take_conf(struct ldap_table *t, const char **bad) {
    const struct tabconf *c = t->conf;
    const char *bind = tabconf_str(c, "bind", "yes");
    t->base = tabconf_str(c, "search_base", "");
    t->filter = tabconf_str(c, "query_filter", "(mailacceptinggeneralid=%s)");
    t->result_format = tabconf_str(c, "result_format", tabconf_str(c, "result_filter", "%s"));
    t->expansion_limit = tabconf_int(c, "expansion_limit", 0, bad);
    t->recursion_limit = tabconf_int(c, "recursion_limit", 1000, bad);
    t->size_limit = tabconf_int(c, "size_limit", t->expansion_limit, bad);
    t->timeout = tabconf_int(c, "timeout", 10, bad);
    tabconf_bool(c, "start_tls", false, bad);
    t->domains = dbtable_domains(c);
    char *uris = t->uris = directory_uris(c, bad);
    for (char *p = uris; *p != '\0'; p++)
        if (*p == ' ') /* one host to the pool */
            *p = '|';
    static const char *const binds[] = {"yes", "simple", "sasl", "no", "none"};
    size_t b = 0;
    while (b < 5 && strcmp(bind, binds[b]) != 0)
        b++;
    if (b == 5)
        return "\"bind\" is yes, simple, sasl, no or none";
    const char *why = matchlist_unopened(t->domains);
    why = why != NULL ? why : take_attributes(t);
    why = why != NULL ? why : take_scope(t);
    why = why != NULL ? why : template_check(t->base);
    why = why != NULL ? why : template_check(t->filter);
    return why != NULL ? why : template_check(t->result_format);
}

static void dir_shut(struct map *m) {
    struct ldap_table *t = m->state;
    pool_free(t->pool);
    matchlist_close(t->domains);
    names_free(&t->results);
    names_free(&t->special);
    names_free(&t->leaf);
    names_free(&t->terminal);
    names_free(&t->all);
    free(t->uris);
    tabconf_free(t->conf);
    free(t);
}

static int dir_open(struct map *m) {
    const char *bad = NULL;
    struct tabconf *c = dbtable_conf(m);
    if (c == NULL)
        return -ENOENT;
    struct ldap_table *t = MEM_NEW(struct ldap_table);
    t->m = m;
    t->conf = c;
    m->state = t;
    const char *wrong = ldap_map_take_conf(t, &bad);
    int rc = dbtable_check(m, wrong, bad);
    if (rc < 0)
        dir_shut(m);
    else
        t->pool = pool_new(&dir_ops, c, m->spec, t->uris, 1000 * DIR_IDLE_S, 1000);
    return rc;
}

/* -- asking -- */

static void quote_filter(void *arg, struct str text, struct sbuf *out) {
    (void)arg;
    directory_quote_filter(text, out);
}

static void quote_dn(void *arg, struct str text, struct sbuf *out) {
    (void)arg;
    directory_quote_dn(text, out);
}

static bool names_have(const struct names *l, const char *name) {
    for (size_t i = 0; i < l->n; i++)
        if (str_ieq_c(str_of(l->v[i]), name))
            return true;
    return false;
}

static bool has_values(LDAP *ld, LDAPMessage *e, const struct names *l) {
    bool has = false;
    for (size_t i = 0; i < l->n && !has; i++) {
        struct berval **v = ldap_get_values_len(ld, e, l->v[i]);
        has = v != NULL && v[0] != NULL;
        ldap_value_free_len(v);
    }
    return has;
}

static int take_entries(struct ask *a, LDAP *ld, LDAPMessage *res, int64_t depth);

/* What is searched, and where: the question's own, or what a value of an entry says. */
struct search {
    const char *base, *filter;
    int scope;
    char **attributes; /* NULL: all */
};

static int search(struct ask *a, LDAP *ld, const struct search *s, int64_t depth) {
    struct timeval limit = {.tv_sec = a->t->timeout};
    LDAPMessage *res = NULL;
    int rc = ldap_search_ext_s(ld, s->base, s->scope, s->filter, s->attributes, 0, NULL, NULL,
                               &limit, (int)a->t->size_limit, &res);
    if (rc == LDAP_SUCCESS)
        rc = take_entries(a, ld, res, depth);
    ldap_msgfree(res);
    return rc;
}

/* A URL: what it finds in this directory, whatever its host; of the attributes that it names, if it
 * names any, those count that the table asks for (ldap_table(5)). */
static int follow_url(struct ask *a, LDAP *ld, const char *text, int64_t depth) {
    LDAPURLDesc *url = NULL;
    if (ldap_url_parse(text, &url) != LDAP_URL_SUCCESS)
        return LDAP_PARAM_ERROR;
    struct search s = {.base = url->lud_dn == NULL ? "" : url->lud_dn,
                       .filter = url->lud_filter == NULL ? "(objectClass=*)" : url->lud_filter,
                       .scope =
                           url->lud_scope == LDAP_SCOPE_DEFAULT ? LDAP_SCOPE_BASE : url->lud_scope,
                       .attributes = url->lud_attrs};
    int rc = search(a, ld, &s, depth);
    ldap_free_urldesc(url);
    return rc;
}

/* A value that is the name of a further entry, or a URL that finds some. */
static int follow(struct ask *a, LDAP *ld, const char *value, int64_t depth) {
    struct search s = {.base = value,
                       .filter = "(objectClass=*)",
                       .scope = LDAP_SCOPE_BASE,
                       .attributes = a->t->all.v};
    if (depth >= a->t->recursion_limit)
        return LDAP_LOOP_DETECT;
    int rc = ldap_is_ldap_url(value) ? follow_url(a, ld, value, depth + 1)
                                     : search(a, ld, &s, depth + 1);
    return rc == LDAP_NO_SUCH_OBJECT ? LDAP_SUCCESS : rc; /* a member that left */
}

enum use { USE_NOTHING, USE_VALUES, USE_FOLLOW };

/* Terminal attributes end it; leaf attributes count where nothing is to be followed. */
static enum use attribute_use(const struct ldap_table *t, const char *name, bool terminal,
                              bool leaf) {
    if (terminal)
        return names_have(&t->terminal, name) ? USE_VALUES : USE_NOTHING;
    if (names_have(&t->leaf, name))
        return leaf ? USE_VALUES : USE_NOTHING;
    if (names_have(&t->results, name))
        return USE_VALUES;
    return names_have(&t->special, name) ? USE_FOLLOW : USE_NOTHING;
}

static int ldap_take_attribute(struct ask *a, LDAP *ld, LDAPMessage *e, const char *name,
                               enum use use, int64_t depth) {
    int rc = LDAP_SUCCESS;
    struct berval **v = use == USE_NOTHING ? NULL : ldap_get_values_len(ld, e, name);
    for (size_t k = 0; v != NULL && v[k] != NULL && rc == LDAP_SUCCESS; k++) {
        if (use == USE_FOLLOW)
            rc = follow(a, ld, v[k]->bv_val, depth);
        else
            dbvalues_add(&a->values, str_make(v[k]->bv_val, v[k]->bv_len));
    }
    ldap_value_free_len(v);
    return rc;
}

/* The attributes of one entry, in the server's order. */
static int take_entry(struct ask *a, LDAP *ld, LDAPMessage *e, int64_t depth) {
    bool terminal = has_values(ld, e, &a->t->terminal), leaf = !has_values(ld, e, &a->t->special);
    BerElement *at = NULL;
    int rc = LDAP_SUCCESS;
    char *name = ldap_first_attribute(ld, e, &at);
    while (name != NULL && rc == LDAP_SUCCESS) {
        rc = ldap_take_attribute(a, ld, e, name, attribute_use(a->t, name, terminal, leaf), depth);
        ldap_memfree(name);
        name = ldap_next_attribute(ld, e, at);
    }
    ldap_memfree(name);
    ber_free(at, 0);
    return rc;
}

static int take_entries(struct ask *a, LDAP *ld, LDAPMessage *res, int64_t depth) {
    int rc = LDAP_SUCCESS;
    for (LDAPMessage *e = ldap_first_entry(ld, res); e != NULL && rc == LDAP_SUCCESS;
         e = ldap_next_entry(ld, e))
        rc = take_entry(a, ld, e, depth);
    return rc;
}

static enum remote_rc ldap_map_ask_conn(void *arg, void *conn, char **why) {
    struct ask *a = arg;
    dbvalues_reset(&a->values);
    struct search s = {a->base, a->filter, a->t->scope, a->t->all.v};
    int rc = search(a, conn, &s, 0);
    if (rc == LDAP_SUCCESS || (rc == LDAP_NO_SUCH_OBJECT && template_is_dynamic(a->t->base)))
        return REMOTE_OK;
    *why = ldap_map_failure(rc);
    return rc < 0 || rc == LDAP_UNAVAILABLE || rc == LDAP_BUSY ? REMOTE_LOST : REMOTE_FAILED;
}

static bool dir_asks(struct map *m, struct str key) {
    const struct ldap_table *t = m->state;
    struct sbuf dry = {0};
    bool asks = template_query(t->base, key, NULL, NULL, &dry) &&
                template_query(t->filter, key, NULL, NULL, &dry) &&
                dbtable_may_ask(key, t->domains);
    sbuf_free(&dry);
    return asks;
}

/* MAP_FOUND: the directory is asked for key, with this base and filter, which the caller frees. */
static enum map_rc dir_query(struct map *m, struct str key, struct sbuf *base,
                             struct sbuf *filter) {
    const struct ldap_table *t = m->state;
    enum map_rc rc = dbtable_has_key(m, key, t->domains);
    if (rc == MAP_FOUND && (!template_query(t->base, key, quote_dn, NULL, base) ||
                            !template_query(t->filter, key, quote_filter, NULL, filter)))
        rc = MAP_NOT_FOUND;
    return rc;
}

static enum map_rc dir_get(struct map *m, struct str key, struct sbuf *value) {
    struct ldap_table *t = m->state;
    struct sbuf base = {0}, filter = {0};
    struct ask a = {.t = t, .values = {.key = key, .format = t->result_format}};
    char *why = NULL;
    enum map_rc rc = dir_query(m, key, &base, &filter);
    if (rc == MAP_FOUND) {
        a.base = base.p == NULL ? "" : base.p;
        a.filter = filter.p;
        enum remote_rc asked = pool_use(t->pool, ldap_map_ask_conn, &a, &why);
        rc = dbvalues_end(&a.values, m, asked, why, t->expansion_limit, value);
    }
    sbuf_free(&base);
    sbuf_free(&filter);
    return rc;
}

/* The search. */
static void dir_where(struct map *m, struct str key, struct sbuf *out) {
    const struct ldap_table *t = m->state;
    struct sbuf base = {0}, filter = {0};
    if (dir_query(m, key, &base, &filter) == MAP_FOUND)
        sbuf_printf(out, "%s below \"%s\": %s", t->uris, base.p == NULL ? "" : base.p, filter.p);
    else
        dbtable_add_not_asked("search", out);
    sbuf_free(&base);
    sbuf_free(&filter);
}

const struct map_ops map_ldap = {.type = "ldap",
                                 .suffix = "",
                                 .fixed = true,
                                 .shared = true,
                                 .remote = true,
                                 .open = dir_open,
                                 .close = dir_shut,
                                 .get = dir_get,
                                 .where = dir_where,
                                 .asks = dir_asks};
