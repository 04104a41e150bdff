/*
 * route/keys.c - the keys that a table is asked; see keys.h
 */
#include "route/keys.h"

#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "util/idn.h"
#include "util/mem.h"

void keys_clear(struct keys *k) {
    for (size_t i = 0; i < k->n; i++)
        free((char *)(uintptr_t)k->v[i].key.p);
    free(k->v);
    *k = (struct keys){.n = 0};
}

void keys_add(struct keys *k, bool partial, const char *prefix, struct str a, struct str b) {
    struct sbuf t = {0};
    bool there = k->n == KEYS_MAX;
    sbuf_add_c(&t, prefix);
    sbuf_add_str(&t, a);
    sbuf_add_str(&t, b);
    for (size_t i = 0; i < k->n && !there; i++)
        there = str_eq(k->v[i].key, sbuf_str(&t));
    if (there) {
        sbuf_free(&t);
        return;
    }
    if (k->n == k->cap) {
        k->cap = k->cap == 0 ? 8 : 2 * k->cap;
        k->v = mem_realloc(k->v, k->cap * sizeof k->v[0]);
    }
    size_t n = t.n;
    k->v[k->n++] = (struct maps_key){str_make(sbuf_take(&t), n), partial};
}

bool keys_has_word(const char *list, const char *word) {
    struct str rest = str_of(list), w;
    while (str_split(&rest, ", \t\r\n", &w))
        if (str_eq_c(w, word))
            return true;
    return false;
}

/* owner-NAME or NAME-request, which are whole where '-' is a delimiter? */
static bool is_name_of_list(const struct params *p, struct str local) {
    struct str end = local.n > 8 ? str_from(local, local.n - 8) : STR_NONE;
    return p->owner_request_special && strchr(p->recipient_delimiter, '-') != NULL &&
           (str_istarts(local, "owner-") || str_ieq_c(end, "-request"));
}

struct str keys_bare(const struct params *p, struct str local) {
    static const char *const whole[] = {"mailer-daemon", "postmaster", "double-bounce"};
    for (size_t i = 0; i < 3; i++)
        if (str_ieq_c(local, whole[i]))
            return STR_NONE;
    if (p->recipient_delimiter[0] == '\0' || is_name_of_list(p, local))
        return STR_NONE;
    return addr_strip_ext(local, p->recipient_delimiter);
}

bool keys_other_spelling(const struct params *p, struct str hop, struct sbuf *out) {
    if (str_is_ascii(hop))
        return idn_to_unicode(hop, out);
    return idn_hop_to_ascii(hop, p->enable_idna2003_compatibility, out, NULL);
}

/* A domain as it is written, and its other spellings (n 0: none), which are as long lists of
 * labels: the other one, and that of U-labels where what is written is an odd form of it. */
struct spellings {
    struct str domain, other, plain;
};

static void spellings_of(const struct params *p, struct str domain, struct sbuf *other,
                         struct sbuf *plain, struct spellings *s) {
    idn_spellings(domain, p->enable_idna2003_compatibility, other, plain);
    *s = (struct spellings){domain, sbuf_str(other), sbuf_str(plain)};
}

/* Keys of the other spellings are added behind those of the written one, while there is room for
 * all that are certain to be needed: a domain has 128 labels at most. */
#define SPELLINGS_MAX 16

static void add_spellings(struct keys *k, bool partial, const char *prefix, struct str head,
                          const struct spellings *s) {
    keys_add(k, partial, prefix, head, s->domain);
    if (s->other.n > 0 && k->n < SPELLINGS_MAX)
        keys_add(k, partial, prefix, head, s->other);
    if (s->plain.n > 0 && k->n < SPELLINGS_MAX)
        keys_add(k, partial, prefix, head, s->plain);
}

/* What stands before the domain of an address, with its @. */
static struct str before_domain(struct str address, struct str domain) {
    return str_make(address.p, address.n - domain.n);
}

/* The address as SMTP has it, then as it is; ext is given room for the former. */
static void add_address(struct keys *k, struct sbuf *ext, struct str address,
                        const struct spellings *all) {
    addr_external(ext, address);
    add_spellings(k, false, "", before_domain(sbuf_str(ext), all->domain), all);
    add_spellings(k, false, "", before_domain(address, all->domain), all);
}

/* The address without its extension. */
static void add_bare(struct keys *k, struct str bare, struct str address,
                     const struct spellings *all) {
    struct sbuf head = {0};
    sbuf_add_str(&head, bare);
    if (address.n > addr_local(address).n)
        sbuf_add_ch(&head, '@');
    add_spellings(k, true, "", sbuf_str(&head), all);
    sbuf_free(&head);
}

/* local_too: with the local part alone (mail_addr_find(3)). */
static void sender_keys_add(struct keys *k, const struct params *p, struct str sender,
                            bool local_too) {
    struct str local = addr_local(sender), domain = addr_domain(sender);
    struct sbuf ext = {0}, other = {0}, plain = {0};
    struct spellings all;
    if (sender.n == 0)
        return;
    struct str bare = keys_bare(p, local);
    spellings_of(p, domain, &other, &plain, &all);
    add_address(k, &ext, sender, &all);
    if (bare.n > 0)
        add_bare(k, bare, sender, &all);
    /* A quoted local part with an @ would be the key of another address, or of a domain. */
    if (local_too && str_chr(local, '@') < 0) {
        keys_add(k, true, "", local, STR_NONE);
        if (bare.n > 0)
            keys_add(k, true, "", bare, STR_NONE);
    }
    if (domain.n > 0)
        add_spellings(k, true, "@", STR_LIT(""), &all);
    sbuf_free(&ext);
    sbuf_free(&other);
    sbuf_free(&plain);
}

void keys_sender(struct keys *k, const struct params *p, struct str sender) {
    sender_keys_add(k, p, sender, false);
}

void keys_local_sender(struct keys *k, const struct params *p, struct str sender) {
    sender_keys_add(k, p, sender, true);
}

/* The domain without its first label; false if it has one only. */
static bool to_parent(struct str *domain) {
    ptrdiff_t dot = str_chr(*domain, '.');
    *domain = dot < 0 ? STR_NONE : str_from(*domain, (size_t)dot + 1);
    return dot >= 0;
}

static size_t dots_of(struct str domain) {
    size_t n = 0;
    for (size_t i = 0; i < domain.n; i++)
        n += domain.p[i] == '.';
    return n;
}

/* The parents of a domain: bare, or with a dot before them.  What is written with other dots
 * (U+3002 and its like) has none but those of its other spelling. */
static void add_parents(struct keys *k, bool bare, struct spellings *all) {
    if (all->other.n > 0 && dots_of(all->domain) != dots_of(all->other))
        *all = (struct spellings){all->other, all->plain, STR_NONE};
    while (to_parent(&all->domain)) {
        to_parent(&all->other);
        to_parent(&all->plain);
        add_spellings(k, true, bare ? "" : ".", STR_LIT(""), all);
    }
}

void keys_domain(struct keys *k, const struct params *p, struct str domain) {
    struct sbuf other = {0}, plain = {0};
    struct spellings all;
    if (domain.n == 0)
        return;
    spellings_of(p, domain, &other, &plain, &all);
    add_spellings(k, true, "", STR_LIT(""), &all);
    add_parents(k, keys_has_word(p->parent_domain_matches_subdomains, "smtpd_access_maps"), &all);
    sbuf_free(&other);
    sbuf_free(&plain);
}

/* A local part and @ before a domain, or before none: as SMTP has it, then as it is. */
static void add_local(struct keys *k, struct str local, const struct spellings *all) {
    struct sbuf head = {0}, ext = {0};
    sbuf_add_str(&head, local);
    sbuf_add_ch(&head, '@');
    addr_external(&ext, sbuf_str(&head));
    add_spellings(k, true, "", sbuf_str(&ext), all);
    add_spellings(k, true, "", sbuf_str(&head), all);
    sbuf_free(&head);
    sbuf_free(&ext);
}

void keys_access(struct keys *k, const struct params *p, struct str address) {
    static const struct spellings no_domain = {{NULL, 0}, {NULL, 0}, {NULL, 0}};
    struct str local = addr_local(address), domain = addr_domain(address);
    struct str bare = keys_bare(p, local);
    struct sbuf ext = {0}, other = {0}, plain = {0};
    struct spellings all;
    if (address.n == 0) {
        keys_add(k, false, "<>", STR_NONE, STR_NONE);
        return;
    }
    spellings_of(p, domain, &other, &plain, &all);
    add_address(k, &ext, address, &all);
    if (bare.n > 0 && domain.n > 0)
        add_local(k, bare, &all);
    else if (bare.n > 0)
        add_bare(k, bare, address, &all);
    keys_domain(k, p, domain);
    add_local(k, local, &no_domain);
    if (bare.n > 0)
        add_local(k, bare, &no_domain);
    sbuf_free(&ext);
    sbuf_free(&other);
    sbuf_free(&plain);
}

void keys_recipient(struct keys *k, const struct params *p, struct str rcpt) {
    struct str local = addr_local(rcpt), domain = addr_domain(rcpt);
    bool bare_parents = keys_has_word(p->parent_domain_matches_subdomains, "transport_maps");
    struct sbuf ext = {0}, other = {0}, plain = {0};
    struct spellings all;
    spellings_of(p, domain, &other, &plain, &all);
    add_address(k, &ext, rcpt, &all);
    struct str bare = keys_bare(p, local);
    if (bare.n > 0)
        add_bare(k, bare, rcpt, &all);
    add_spellings(k, true, "", STR_LIT(""), &all);
    add_parents(k, bare_parents, &all);
    keys_add(k, false, "*", STR_NONE, STR_NONE);
    sbuf_free(&ext);
    sbuf_free(&other);
    sbuf_free(&plain);
}
