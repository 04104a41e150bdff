/*
 * maps/template.c - templates of tables in databases; see template.h
 */
#include "maps/template.h"

#include <stdlib.h>
#include <string.h>

struct parts {
    struct str all, user, domain;
    bool has_at;
};

struct fill {
    struct parts lower, upper; /* what %s %u %d, and what %S %U %D and %1 … are parts of */
    template_quote_fn quote;
    void *arg;
    struct sbuf *out;
};

static struct parts parts_of(struct str s) {
    ptrdiff_t at = str_rchr(s, '@');
    if (at < 0)
        return (struct parts){.all = s, .user = s, .domain = STR_LIT("")};
    return (struct parts){s, str_make(s.p, (size_t)at), str_from(s, (size_t)at + 1), true};
}

const char *template_check(const char *t) {
    for (const char *p = strchr(t, '%'); p != NULL; p = strchr(p + 2, '%'))
        if (p[1] == '\0' || strchr("%sudSUD123456789", p[1]) == NULL)
            return "'%' must be followed by one of % s u d S U D 1 … 9";
    return NULL;
}

bool template_is_dynamic(const char *t) {
    for (const char *p = strchr(t, '%'); p != NULL; p = strchr(p + 2, '%'))
        if (p[1] != '%')
            return true;
    return false;
}

enum match_rc template_key_has(struct str key, struct matchlist *domains, char **err) {
    *err = NULL;
    if (memchr(key.p, '\0', key.n) != NULL || !str_is_utf8(key))
        return MATCH_NO;
    if (domains == NULL)
        return MATCH_YES;
    struct parts p = parts_of(key);
    if (!p.has_at || p.user.n == 0 || p.domain.n == 0)
        return MATCH_NO;
    return matchlist_has(domains, p.domain, err);
}

/* The n-th label of a domain from the right; false if it has fewer.  Empty ones do not count. */
static bool label_get(struct str domain, unsigned n, struct str *out) {
    for (;;) {
        while (domain.n > 0 && domain.p[domain.n - 1] == '.')
            domain.n--;
        if (domain.n == 0)
            return false;
        ptrdiff_t dot = str_rchr(domain, '.');
        *out = dot < 0 ? domain : str_from(domain, (size_t)dot + 1);
        if (--n == 0)
            return true;
        domain = dot < 0 ? STR_LIT("") : str_make(domain.p, (size_t)dot);
    }
}

/* "@domain" has no user, "user" no domain: what needs them is not filled in. */
static bool template_part_get(const struct parts *p, char what, struct str *out) {
    switch (what) {
    case 'u':
        *out = p->user;
        return !p->has_at || p->user.n > 0;
    case 'd':
        *out = p->domain;
        return p->domain.n > 0;
    default:
        *out = p->all;
        return true;
    }
}

static bool piece_get(const struct fill *f, char what, struct str *out) {
    if (what >= '1' && what <= '9')
        return label_get(f->upper.domain, (unsigned)(what - '0'), out);
    if (what >= 'A' && what <= 'Z')
        return template_part_get(&f->upper, (char)(what | 32), out);
    return template_part_get(&f->lower, what, out);
}

static bool can_fill(const struct fill *f, const char *t) {
    struct str piece;
    for (const char *p = strchr(t, '%'); p != NULL; p = strchr(p + 2, '%'))
        if (p[1] != '%' && !piece_get(f, p[1], &piece))
            return false;
    return true;
}

static void fill(const struct fill *f, const char *t) {
    for (const char *p = t; *p != '\0'; p++) {
        struct str piece;
        if (*p != '%') {
            sbuf_add_ch(f->out, *p);
        } else if (*++p == '%') {
            sbuf_add_ch(f->out, '%');
        } else if (piece_get(f, *p, &piece)) {
            if (f->quote != NULL)
                f->quote(f->arg, piece, f->out);
            else
                sbuf_add_str(f->out, piece);
        }
    }
}

bool template_query(const char *t, struct str key, template_quote_fn quote, void *arg,
                    struct sbuf *out) {
    struct fill f = {parts_of(key), parts_of(key), quote, arg, out};
    if (key.n == 0 || !can_fill(&f, t))
        return false;
    fill(&f, t);
    return true;
}

bool template_result(const char *t, struct str result, struct str key, struct sbuf *out) {
    struct fill f = {parts_of(result), parts_of(key), NULL, NULL, out};
    if (result.n == 0 || !can_fill(&f, t))
        return false;
    if (out->n > 0)
        sbuf_add_ch(out, ',');
    fill(&f, t);
    return true;
}
