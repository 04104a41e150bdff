/*
 * daemon/audit_senders.c - posthouse check: keys of senders that no sender has
 *
 * Rows of the tables that are asked by sender, in file tables: a key in a form that is never asked,
 * and a key with a domain that is none of this server's and is one letter away from one of them.
 */
#include <stdlib.h>

#include "daemon/audit.h"
#include "mail/address.h"
#include "maps/maps.h"
#include "util/idn.h"
#include "util/mem.h"

#define DOMAINS_KNOWN  5000U /* more are not compared with */
#define DOMAIN_COMPARE 64U   /* bytes; a longer one is not compared */

/* Domains of this server, in one form. */
struct own_domains {
    char **v;
    size_t n;
};

struct sender_keys {
    const struct config *cfg;
    struct diags *d;
    const struct own_domains *own;
    const char *param;
    const char *spec; /* of the table, as it may be shown */
    size_t said;
};

static void own_domains_add(struct own_domains *own, struct str domain) {
    struct sbuf plain = {0};
    if (own->n == DOMAINS_KNOWN || str_chr(domain, '.') <= 0 || str_chr(domain, '@') >= 0)
        return;
    idn_plain(domain, false, &plain);
    own->v = mem_realloc(own->v, (own->n + 1) * sizeof *own->v);
    own->v[own->n++] = sbuf_take(&plain);
}

static int own_domains_row(void *arg, struct str key, struct str value) {
    (void)value;
    own_domains_add(arg, key);
    return 0;
}

/* The words of a list, and the keys of its tables that are in files. */
static void own_domains_list(struct own_domains *own, const struct config *c, const char *list) {
    struct str rest = str_of(list), one;
    while (str_split_braces(&rest, ", \t\r\n", &one)) {
        if (one.p[0] == '!')
            continue;
        if (!map_looks_like(one)) {
            own_domains_add(own, one);
            continue;
        }
        char *spec = str_dup(one);
        struct map *m = map_open(spec, c->dir);
        if (m->fixed && !m->ops->remote)
            map_each(m, own_domains_row, own);
        map_close(m);
        free(spec);
    }
}

static bool own_domains_have(const struct own_domains *own, const char *domain) {
    for (size_t i = 0; i < own->n; i++)
        if (str_eq_c(str_of(own->v[i]), domain))
            return true;
    return false;
}

/* The domain of this server that was perhaps meant, or NULL. */
static const char *own_domain_near(const struct own_domains *own, struct str domain) {
    struct sbuf plain = {0};
    const char *near = NULL;
    idn_plain(domain, false, &plain);
    bool compares = plain.n > 0 && plain.n <= DOMAIN_COMPARE && !own_domains_have(own, plain.p);
    for (size_t i = 0; compares && near == NULL && i < own->n; i++)
        if (str_is_slip(sbuf_str(&plain), str_of(own->v[i])))
            near = own->v[i];
    sbuf_free(&plain);
    return near;
}

/* NULL, or why a key is asked for no sender. */
static const char *key_form_bad(struct str key) {
    struct str domain = addr_domain(key);
    if (key.p[0] == '<' && !str_eq_c(key, "<>"))
        return "an address in angle brackets is no key: write it without them";
    if (str_istarts(key, "*@"))
        return "*@domain is no key: write @domain";
    if (domain.n > 0 && domain.p[0] == '.')
        return "subdomains have no key of their own kind: write @ and each one";
    if (domain.n > 0 && domain.p[domain.n - 1] == '.')
        return "a dot at the end is never asked: write the domain without it";
    return NULL;
}

static int sender_key_row(void *arg, struct str key, struct str value) {
    struct sender_keys *k = arg;
    struct sbuf shown = {0};
    const char *near = NULL, *bad;
    (void)value;
    if (key.n == 0 || str_chr(key, '@') < 0)
        return 0;
    bad = key_form_bad(key);
    if (bad == NULL)
        near = own_domain_near(k->own, addr_domain(key));
    if ((bad == NULL && near == NULL) || ++k->said > AUDIT_SHOWN)
        return 0;
    const struct cfg_entry *e = cfg_file_find(&k->cfg->main, str_of(k->param));
    sbuf_add_safe(&shown, key);
    if (bad != NULL)
        diag_add(k->d, DIAG_WARN, k->cfg->main.path, e == NULL ? 0 : e->line, "%s: %s: \"%s\": %s",
                 k->param, k->spec, shown.p, bad);
    else
        diag_add(
            k->d, DIAG_WARN, k->cfg->main.path, e == NULL ? 0 : e->line,
            "%s: %s: \"%s\": its domain is none of this server's, which has %s: is that meant?",
            k->param, k->spec, shown.p, near);
    sbuf_free(&shown);
    return 0;
}

static void sender_keys_of(struct sender_keys *k, const char *param, const char *value) {
    struct maps *m = maps_open(value, k->cfg->dir);
    k->param = param;
    for (size_t i = 0; i < m->n; i++) {
        struct sbuf shown = {0};
        maps_show(m->v[i]->spec, &shown);
        k->spec = shown.p;
        k->said = 0;
        if (m->v[i]->fixed && !m->v[i]->ops->remote)
            map_each(m->v[i], sender_key_row, k);
        sbuf_free(&shown);
    }
    maps_close(m);
}

void audit_senders(const struct config *c, struct diags *d) {
    const struct params *p = &c->p;
    struct own_domains own = {0};
    struct sender_keys k = {.cfg = c, .d = d, .own = &own};
    const char *lists[] = {p->mydestination, p->virtual_mailbox_domains, p->virtual_alias_domains,
                           p->relay_domains, p->myorigin};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        own_domains_list(&own, c, lists[i]);
    sender_keys_of(&k, "sender_dependent_relayhost_maps", p->sender_dependent_relayhost_maps);
    sender_keys_of(&k, "sender_dependent_default_transport_maps",
                   p->sender_dependent_default_transport_maps);
    sender_keys_of(&k, "smtpd_sender_login_maps", p->smtpd_sender_login_maps);
    if (p->smtp_sender_dependent_authentication)
        sender_keys_of(&k, "smtp_sasl_password_maps", p->smtp_sasl_password_maps);
    for (size_t i = 0; i < own.n; i++)
        free(own.v[i]);
    free(own.v);
}
