/*
 * daemon/audit_rows.c - posthouse check: what stands in tables that people fill by hand
 *
 * Rows of sender_relayhost (SQL or directory) that never match, or that would make mail wait; keys
 * of file tables that the parameter does not ask, or with a domain in a form that no look-up has.
 * Values are shown as they are, control characters as '?'.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "accounts/store.h"
#include "daemon/audit.h"
#include "mail/address.h"
#include "maps/maps.h"
#include "maps/tabconf.h"
#include "route/nexthop.h"
#include "util/htab.h"
#include "util/idn.h"
#include "util/mem.h"

struct rows {
    const struct config *cfg;
    struct diags *d;
    struct store *st;
    const char *spec;
    bool no_orphans;
    struct htab seen; /* accounts, folded */
    size_t said[3];   /* by level */
};

static void rows_say(struct rows *r, enum diag_level level, struct str account, struct str value,
                     const char *what) {
    struct sbuf b = {0};
    if (++r->said[level] > AUDIT_SHOWN)
        return;
    sbuf_add_safe(&b, account);
    sbuf_add_c(&b, "\" -> \"");
    sbuf_add_safe(&b, value);
    diag_add(r->d, level, r->spec, 0, "sender_relayhost \"%s\": %s", b.p, what);
    sbuf_free(&b);
}

static bool has_upper(struct str s) {
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] >= 'A' && s.p[i] <= 'Z')
            return true;
    return false;
}

static void count_one(void *arg, struct str account, struct str value) {
    (void)account;
    (void)value;
    ++*(size_t *)arg;
}

/* Does the database find it all the same? */
static bool found_in_lower_case(struct rows *r, struct str account) {
    size_t n = 0;
    char *key = str_dup(account), *why = NULL;
    str_lower(key, account.n);
    store_relay_each(r->st, key, count_one, &n, &why);
    free(key);
    free(why);
    return n > 0;
}

static void check_account(struct rows *r, struct str account, struct str value) {
    if (account.n == 0 || (str_chr(account, '@') < 0 && !str_eq_c(account, "<>")))
        rows_say(r, DIAG_WARN, account, value,
                 "the account has no '@' and never matches: need user@domain or @domain");
    else if (str_has_control(account) || str_trim(account).n != account.n)
        rows_say(r, DIAG_WARN, account, value,
                 "blanks or control characters in the account: it never matches");
    else if (has_upper(account) && !found_in_lower_case(r, account))
        rows_say(r, DIAG_WARN, account, value,
                 "upper case in the account: senders are asked in lower case and it never matches");
}

static void check_value(struct rows *r, struct str account, struct str value) {
    struct sbuf plain = {0}, text = {0};
    struct str trimmed = str_trim(value), bad;
    if (trimmed.n == 0) {
        rows_say(r, DIAG_NOTE, account, value, "an empty relay host counts as none");
        return;
    }
    if (str_ieq_c(trimmed, "DUNNO"))
        return;
    if (nexthop_without_transport(trimmed, &plain))
        rows_say(r, DIAG_NOTE, account, value,
                 "the transport's name before the next hop is passed over (Postfix would defer)");
    const char *why = nexthop_check(sbuf_str(&plain), &bad);
    if (why != NULL) {
        sbuf_printf(&text, "mail of that sender waits: \"");
        sbuf_add_safe(&text, bad);
        sbuf_printf(&text, "\": %s", why);
        rows_say(r, DIAG_ERROR, account, value, text.p);
    } else if (str_has_control(trimmed)) {
        rows_say(r, DIAG_WARN, account, value,
                 "tabs or line breaks inside: what they separate are several relay hosts");
    }
    sbuf_free(&plain);
    sbuf_free(&text);
}

static void check_row(void *arg, struct str account, struct str value) {
    struct rows *r = arg;
    char *key = str_dup(account), *why = NULL;
    str_lower(key, account.n);
    check_account(r, account, value);
    check_value(r, account, value);
    if (htab_get(&r->seen, str_of(key)) != NULL) {
        rows_say(r, DIAG_WARN, account, value,
                 "a further row of the same account: which one counts is "
                 "left to the database");
        free(key);
        return;
    }
    htab_put(&r->seen, str_of(key), key);
    if (r->no_orphans || str_chr(account, '@') < 0)
        return;
    enum store_rc rc = store_has(r->st, key, &why);
    free(why);
    if (rc == STORE_ERROR) /* a database without the accounts' tables */
        r->no_orphans = true;
    else if (rc == STORE_NO)
        rows_say(r, DIAG_NOTE, account, value,
                 "no such user or domain any more: an orphan, or an outside sender");
}

static void check_store(const struct config *cfg, const char *spec, struct diags *d) {
    struct rows r = {.cfg = cfg, .d = d, .spec = spec};
    char *why = NULL, *key;
    size_t pos = 0;
    r.st = store_open(spec, cfg->dir, false, &why);
    r.no_orphans =
        r.st != NULL && store_has(r.st, "", &why) != STORE_YES; /* a store of relay hosts only */
    free(why);
    why = NULL;
    if (r.st == NULL || store_relay_each(r.st, "", check_row, &r, &why) == STORE_ERROR)
        diag_add(d, DIAG_WARN, NULL, 0, "%s: its rows cannot be looked at: %s", spec, why);
    for (size_t level = 0; level < 3; level++)
        if (r.said[level] > AUDIT_SHOWN)
            diag_add(d, (enum diag_level)level, spec, 0,
                     "sender_relayhost: %zu more rows like these", r.said[level] - AUDIT_SHOWN);
    free(why);
    while ((key = htab_next(&r.seen, &pos)) != NULL)
        free(key);
    htab_free(&r.seen);
    store_close(r.st);
}

/* Is that table one over sender_relayhost?  Then its server can list the rows. */
static bool is_relay_table(struct str type, const char *path) {
    char *why = NULL;
    struct tabconf *c = tabconf_read(path, &why);
    bool yes = false;
    if (c != NULL && str_eq_c(type, "ldap"))
        yes = strchr(tabconf_str(c, "search_base", "%"), '%') == NULL &&
              strcasecmp(tabconf_str(c, "result_attribute", ""), "senderRelayHost") == 0;
    else if (c != NULL)
        yes = strstr(tabconf_str(c, "query", tabconf_str(c, "table", "")), "sender_relayhost") !=
              NULL;
    free(why);
    tabconf_free(c);
    return yes;
}

/* The store's spec of a table of sender_dependent_relayhost_maps, or NULL; the caller frees. */
static char *store_of(const struct config *cfg, struct str table) {
    static const char *const types[] = {"mysql", "pgsql", "ldap"};
    struct sbuf path = {0}, spec = {0};
    if (str_istarts(table, "proxy:"))
        table = str_from(table, 6);
    ptrdiff_t colon = str_chr(table, ':');
    struct str type = str_make(table.p, colon < 0 ? 0 : (size_t)colon);
    struct str name = str_from(table, (size_t)(colon + 1));
    bool known = false;
    for (size_t i = 0; i < 3; i++)
        known = known || str_eq_c(type, types[i]);
    if (name.n > 0 && name.p[0] != '/')
        sbuf_printf(&path, "%s/", cfg->dir);
    sbuf_add_str(&path, name);
    if (known && path.p != NULL && is_relay_table(type, path.p))
        sbuf_printf(&spec, "%.*s:%s", STR_FMT(type), path.p);
    sbuf_free(&path);
    return spec.n == 0 ? NULL : sbuf_take(&spec);
}

static int rows_line_of(const struct config *c, const char *name) {
    const struct cfg_entry *e = cfg_file_find(&c->main, str_of(name));
    return e == NULL ? 0 : e->line;
}

/* -- keys that are never asked -- */

struct key_check {
    const struct config *cfg;
    struct diags *d;
    const char *param;
    const char *spec;
    bool senders;
    bool hops;  /* values are relay hosts; else transports */
    bool fixed; /* else rules of patterns */
    size_t said;
};

static int check_key(void *arg, struct str key, struct str value) {
    struct key_check *k = arg;
    struct sbuf b = {0};
    const char *what = NULL;
    (void)value;
    ptrdiff_t at = str_rchr(key, '@');
    if (k->senders && at < 0 && str_chr(key, '.') >= 0)
        what = "a domain alone is no key for senders: write @domain";
    else if (!k->senders && at == 0)
        what = "@domain is no key of transport_maps: write the domain alone";
    else if (!k->senders && key.n > 1 && key.p[key.n - 1] == '.')
        what = "a dot at the end is never asked: write the domain without it";
    if (what != NULL && ++k->said <= AUDIT_SHOWN) {
        sbuf_add_safe(&b, key);
        diag_add(k->d, DIAG_WARN, k->cfg->main.path, rows_line_of(k->cfg, k->param),
                 "%s: %s: \"%s\": %s", k->param, k->spec, b.p, what);
        sbuf_free(&b);
    }
    return 0;
}

/* -- keys with a domain in an odd form -- */

struct spelling_check {
    const struct config *cfg;
    struct diags *d;
    const char *param, *file;
    int line;
    const char *table; /* as it may be shown */
    size_t said;
};

/* A look-up asks for the domain as it is written, in A-labels, and in U-labels as those stand for.
 * Appends what to write instead; false: the key is one of these.  certain: it is a domain also
 * without a dot. */
static bool spelling_is_odd(const struct config *cfg, struct str domain, bool certain,
                            struct sbuf *instead) {
    struct sbuf ascii = {0}, unicode = {0};
    const char *why;
    if (!idn_hop_to_ascii(domain, cfg->p.enable_idna2003_compatibility, &ascii, &why)) {
        if (certain || str_chr(domain, '.') >= 0)
            sbuf_printf(instead, "its domain is none (%s): no mail asks for it", why);
    } else if (!certain && str_chr(sbuf_str(&ascii), '.') < 0) {
        /* a name of another kind, perhaps */
    } else if (!idn_to_unicode(sbuf_str(&ascii), &unicode) || !str_eq(sbuf_str(&unicode), domain)) {
        sbuf_add_c(instead,
                   "only mail that writes the domain in this very form asks for it: write ");
        if (unicode.n > 0)
            sbuf_printf(instead, "\"%.*s\" or ", STR_FMT(sbuf_str(&unicode)));
        sbuf_printf(instead, "\"%.*s\"", STR_FMT(sbuf_str(&ascii)));
    }
    sbuf_free(&ascii);
    sbuf_free(&unicode);
    return instead->n > 0;
}

static int check_spelling(void *arg, struct str key, struct str value) {
    struct spelling_check *k = arg;
    struct str domain = str_from(key, (size_t)(str_rchr(key, '@') + 1));
    struct sbuf instead = {0}, b = {0};
    (void)value;
    if (domain.n > 0 && domain.p[0] == '.')
        domain = str_from(domain, 1);
    if (str_is_ascii(domain) || str_istarts(domain, BYTE_ORDER_MARK) ||
        !spelling_is_odd(k->cfg, domain, domain.n < key.n, &instead) || ++k->said > AUDIT_SHOWN)
        goto out;
    sbuf_add_safe(&b, key);
    diag_add(k->d, DIAG_WARN, k->file, k->line, "%s: %s: \"%s\": %s", k->param, k->table, b.p,
             instead.p);
out:
    sbuf_free(&instead);
    sbuf_free(&b);
    return 0;
}

void audit_spellings(const struct config *cfg, struct map *m, const char *param, const char *file,
                     int line, struct diags *d) {
    struct sbuf table = {0};
    maps_show(m->spec, &table);
    struct spelling_check k = {cfg, d, param, file, line, table.p, 0};
    if (m->opened && m->fixed && !m->ops->remote && m->ops->each != NULL)
        map_each(m, check_spelling, &k);
    if (k.said > AUDIT_SHOWN)
        diag_add(d, DIAG_WARN, file, line, "%s: %s: %zu more keys like these", param, table.p,
                 k.said - AUDIT_SHOWN);
    sbuf_free(&table);
}

/* -- values that make mail wait -- */

/* NULL, or what is wrong with a value of a table of relay hosts; text to go behind it in *more. */
static const char *hop_value_bad(struct str value, struct sbuf *more) {
    struct sbuf plain = {0};
    struct str bad;
    nexthop_without_transport(value, &plain);
    const char *why = nexthop_check(sbuf_str(&plain), &bad);
    if (why != NULL)
        sbuf_printf(more, " (\"%.*s\")", STR_FMT(bad));
    sbuf_free(&plain);
    return why;
}

/* The same of "transport:next hop". */
static const char *transport_value_bad(const struct config *cfg, struct str value,
                                       const char *usual, struct sbuf *more) {
    ptrdiff_t colon = str_chr(value, ':');
    struct str name = str_make(value.p, colon < 0 ? value.n : (size_t)colon), bad;
    struct str hop = colon < 0 ? STR_LIT("") : str_from(value, (size_t)colon + 1);
    if (name.n == 0)
        name = str_make(usual, strcspn(usual, ":"));
    const struct service *t = config_transport(cfg, name);
    if (t == NULL || t->kind == SERVICE_UNUSED) {
        sbuf_printf(more, " (\"%.*s\")", STR_FMT(name));
        return "not a transport that Posthouse has";
    }
    const char *why = t->kind == SERVICE_SMTP   ? nexthop_check(hop, &bad)
                      : t->kind == SERVICE_LMTP ? nexthop_check_lmtp(hop, &bad)
                                                : NULL;
    if (why != NULL)
        sbuf_printf(more, " (\"%.*s\")", STR_FMT(bad));
    return why;
}

static int check_row_value(void *arg, struct str key, struct str value) {
    struct key_check *k = arg;
    struct sbuf more = {0}, b = {0};
    struct str v = str_trim(value);
    const char *why = NULL;
    bool varies = !k->fixed && str_chr(v, '$') >= 0; /* a part of the key stands in it */
    if (v.n > 0 && !str_ieq_c(v, "DUNNO") && !varies)
        why = k->hops ? hop_value_bad(v, &more)
                      : transport_value_bad(k->cfg, v, k->cfg->p.default_transport, &more);
    if (why != NULL && ++k->said <= AUDIT_SHOWN) {
        sbuf_add_safe(&b, key);
        sbuf_add_c(&b, "\" -> \"");
        sbuf_add_safe(&b, v);
        diag_add(k->d, DIAG_ERROR, k->cfg->main.path, rows_line_of(k->cfg, k->param),
                 "%s: %s: \"%s\": mail of that row waits: %s%s", k->param, k->spec, b.p, why,
                 more.n > 0 ? more.p : "");
    }
    sbuf_free(&more);
    sbuf_free(&b);
    return 0;
}

static void check_keys(const struct config *cfg, const char *param, const char *value, bool senders,
                       struct diags *d) {
    struct maps *m = maps_open(value, cfg->dir);
    for (size_t i = 0; i < m->n; i++) {
        bool hops = strcmp(param, "sender_dependent_relayhost_maps") == 0;
        struct key_check k = {cfg, d, param, m->v[i]->spec, senders, hops, m->v[i]->fixed, 0};
        if (m->v[i]->fixed && !m->v[i]->ops->remote)
            map_each(m->v[i], check_key, &k);
        k.said = 0;
        map_rows(m->v[i], check_row_value, &k);
    }
    maps_close(m);
}

void audit_rows(const struct config *cfg, struct diags *d) {
    const struct params *p = &cfg->p;
    struct str rest = str_of(p->sender_dependent_relayhost_maps), table;
    if (p->accounts_store[0] != '\0')
        check_store(cfg, p->accounts_store, d);
    while (p->accounts_store[0] == '\0' && str_split_braces(&rest, ", \t\r\n", &table)) {
        char *spec = store_of(cfg, table);
        if (spec != NULL)
            check_store(cfg, spec, d);
        free(spec);
    }
    check_keys(cfg, "sender_dependent_relayhost_maps", p->sender_dependent_relayhost_maps, true, d);
    check_keys(cfg, "sender_dependent_default_transport_maps",
               p->sender_dependent_default_transport_maps, true, d);
    check_keys(cfg, "transport_maps", p->transport_maps, false, d);
}
