/*
 * deliver/origin.c - XFORWARD: a content filter is told who brought the message
 *
 * XFORWARD_README of Postfix.  The host names the attributes that it wants in its reply to EHLO; a
 * message has them in its envelope, as its client or an earlier filter said them.  The session's
 * loop only.
 */
#include "deliver/origin.h"

#include "mail/address.h"

/* The attributes, in the order in which they are said. */
enum {
    ORIGIN_NAME,
    ORIGIN_ADDR,
    ORIGIN_PORT,
    ORIGIN_PROTO,
    ORIGIN_HELO,
    ORIGIN_IDENT,
    ORIGIN_SOURCE,
    ORIGINS
};

static const char *const attributes[ORIGINS] = {"NAME", "ADDR",  "PORT",  "PROTO",
                                                "HELO", "IDENT", "SOURCE"};

unsigned origin_wanted(struct str offer) {
    struct str word;
    unsigned wanted = 0;
    while (str_split(&offer, " \t", &word))
        for (unsigned i = 0; i < ORIGINS; i++)
            if (str_ieq_c(word, attributes[i]))
                wanted |= 1U << i;
    return wanted;
}

static struct str origin_value(const struct envelope *e, unsigned attribute) {
    const struct origin *o = &e->origin;
    const struct str values[ORIGINS] = {
        o->name,  o->addr, o->port, o->proto, o->helo, o->ident.n > 0 ? o->ident : str_of(e->qid),
        o->source};
    return values[attribute];
}

bool origin_line(const struct envelope *e, unsigned wanted, unsigned half, struct sbuf *out) {
    size_t before = out->n;
    unsigned from = half == 0 ? ORIGIN_NAME : ORIGIN_PROTO;
    unsigned to = half == 0 ? ORIGIN_PROTO : ORIGINS;
    for (unsigned i = from; i < to; i++) {
        struct str value = origin_value(e, i);
        if ((wanted & 1U << i) == 0 || value.n == 0)
            continue;
        sbuf_printf(out, "%s %s=", out->n == before ? "XFORWARD" : "", attributes[i]);
        xtext_encode(out, value);
    }
    return out->n > before;
}
