/*
 * route/keys.c - the keys that a table is asked; see keys.h
 */
#include "route/keys.h"

#include <stdlib.h>

#include "mail/address.h"

void keys_clear(struct keys *k) {
    for (size_t i = 0; i < k->n; i++)
        free(k->texts[i]);
    k->n = 0;
}

void keys_add(struct keys *k, bool partial, const char *prefix, struct str a, struct str b) {
    struct sbuf t = {0};
    if (k->n == KEYS_MAX)
        return;
    sbuf_add_c(&t, prefix);
    sbuf_add_str(&t, a);
    sbuf_add_str(&t, b);
    for (size_t i = 0; i < k->n; i++)
        if (str_eq(k->v[i].key, sbuf_str(&t))) {
            sbuf_free(&t);
            return;
        }
    k->texts[k->n] = sbuf_take(&t);
    k->v[k->n] = (struct maps_key){str_of(k->texts[k->n]), partial};
    k->n++;
}

bool keys_has_word(const char *list, const char *word) {
    struct str rest = str_of(list), w;
    while (str_split(&rest, ", \t\r\n", &w))
        if (str_eq_c(w, word))
            return true;
    return false;
}

/* Do local parts alone count for this domain (mail_addr_find(3))? */
static bool is_local_domain(const struct params *p, struct str domain) {
    struct str rest = str_of(p->mydestination), w;
    if (domain.n == 0 || str_ieq_c(domain, p->myorigin))
        return domain.n > 0;
    while (str_split(&rest, ", \t\r\n", &w))
        if (str_ieq(w, domain))
            return true;
    return false;
}

static struct str without_extension(const struct params *p, struct str local) {
    const char *delim = p->recipient_delimiter;
    return delim[0] == '\0' ? STR_NONE : addr_strip_ext(local, delim);
}

void keys_sender(struct keys *k, const struct params *p, struct str sender) {
    struct str local = addr_local(sender), domain = addr_domain(sender);
    struct sbuf ext = {0};
    if (sender.n == 0)
        return;
    struct str bare = without_extension(p, local);
    addr_external(&ext, sender);
    keys_add(k, false, "", sbuf_str(&ext), STR_NONE);
    keys_add(k, false, "", sender, STR_NONE);
    if (bare.n > 0)
        keys_add(k, true, "", bare, str_from(sender, local.n));
    /* A quoted local part with an @ would be the key of another address, or of a domain. */
    if (is_local_domain(p, domain) && str_chr(local, '@') < 0) {
        keys_add(k, true, "", local, STR_NONE);
        if (bare.n > 0)
            keys_add(k, true, "", bare, STR_NONE);
    }
    if (domain.n > 0)
        keys_add(k, true, "@", domain, STR_NONE);
    sbuf_free(&ext);
}

void keys_recipient(struct keys *k, const struct params *p, struct str rcpt) {
    struct str local = addr_local(rcpt), domain = addr_domain(rcpt);
    bool bare_parents = keys_has_word(p->parent_domain_matches_subdomains, "transport_maps");
    struct sbuf ext = {0};
    addr_external(&ext, rcpt);
    keys_add(k, false, "", sbuf_str(&ext), STR_NONE);
    keys_add(k, false, "", rcpt, STR_NONE);
    struct str bare = without_extension(p, local);
    if (bare.n > 0)
        keys_add(k, true, "", bare, str_from(rcpt, local.n));
    keys_add(k, true, "", domain, STR_NONE);
    for (ptrdiff_t dot; (dot = str_chr(domain, '.')) >= 0;) {
        domain = str_from(domain, (size_t)dot + 1);
        keys_add(k, true, bare_parents ? "" : ".", domain, STR_NONE);
    }
    keys_add(k, false, "*", STR_NONE, STR_NONE);
    sbuf_free(&ext);
}
