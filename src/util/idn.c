/*
 * util/idn.c - internationalised domain names by libidn2; see idn.h
 */
#include "util/idn.h"

#include <idn2.h>
#include <stdlib.h>
#include <string.h>

/* Has it ß, final sigma or a joiner, which IDNA2003 and IDNA2008 take differently? */
static bool idn_deviates(const char *text) {
    static const char *const deviations[] = {"\u00df", "\u1e9e", "\u03c2", "\u200c", "\u200d"};
    for (size_t i = 0; i < sizeof deviations / sizeof deviations[0]; i++)
        if (strstr(text, deviations[i]) != NULL)
            return true;
    return false;
}

/* The processing of UTS 46 that is not transitional.  libidn2 then refuses what IDNA2008 forbids as
 * well; transitional it does not, and gives the same for names without deviations. */
static int idn_convert(const char *text, bool idna2003, char **ascii) {
    const uint8_t *in = (const uint8_t *)text;
    int rc =
        idn2_lookup_u8(in, (uint8_t **)ascii, idna2003 ? IDN2_TRANSITIONAL : IDN2_NONTRANSITIONAL);
    if (rc != IDN2_OK && !idna2003 && !idn_deviates(text))
        rc = idn2_lookup_u8(in, (uint8_t **)ascii, IDN2_TRANSITIONAL);
    return rc;
}

static bool ends_with_dot(struct str s) {
    return s.n > 0 && s.p[s.n - 1] == '.';
}

/* What was converted may have become other characters (a wide slash is a slash), an address in
 * digits, or longer than DNS allows.  A dot at its end was a dot when it was written: another
 * character that becomes one (U+3002) would make a second name of the domain, which tables and
 * owners do not know. */
static bool idn_is_domain(struct str s, struct str written) {
    size_t label = 0;
    bool numeric = true;
    if (ends_with_dot(s) && !ends_with_dot(written))
        return false;
    if (ends_with_dot(s))
        s.n--;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool digit = c >= '0' && c <= '9';
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
        numeric = numeric && (digit || c == '.');
        if ((!digit && !letter && c != '.') || (c == '.' && label == 0) || label > 63)
            return false;
        label = c == '.' ? 0 : label + 1;
    }
    return label > 0 && label <= 63 && s.n <= 253 && !numeric;
}

bool idn_to_ascii(struct str domain, bool idna2003, struct sbuf *out, const char **why) {
    const char *unused, **says = why == NULL ? &unused : why;
    if (str_is_ascii(domain)) {
        sbuf_add_str(out, domain);
        return true;
    }
    char *text = str_dup(domain), *ascii = NULL;
    int rc = memchr(domain.p, '\0', domain.n) != NULL ? IDN2_ENCODING_ERROR
                                                      : idn_convert(text, idna2003, &ascii);
    bool ok = rc == IDN2_OK && idn_is_domain(str_of(ascii), domain);
    if (ok)
        sbuf_add_c(out, ascii);
    else
        *says = rc == IDN2_OK ? "it has a character that no host name has" : idn2_strerror(rc);
    idn2_free(ascii);
    free(text);
    return ok;
}

/* The host of a hop. */
static struct str idn_host_of(struct str hop) {
    size_t from = hop.n > 0 && hop.p[0] == '[' ? 1 : 0;
    ptrdiff_t end = from > 0 ? str_chr(hop, ']') : str_rchr(hop, ':');
    return str_make(hop.p + from, (end < 0 ? hop.n : (size_t)end) - from);
}

/* Appends hop with another host. */
static void idn_add_hop(struct sbuf *out, struct str hop, struct str old, struct str host) {
    size_t at = (size_t)(old.p - hop.p);
    sbuf_add(out, hop.p, at);
    sbuf_add_str(out, host);
    sbuf_add_str(out, str_from(hop, at + old.n));
}

bool idn_hop_to_ascii(struct str hop, bool idna2003, struct sbuf *out, const char **why) {
    struct str host = idn_host_of(hop);
    struct sbuf ascii = {0};
    bool ok = idn_to_ascii(host, idna2003, &ascii, why);
    if (ok)
        idn_add_hop(out, hop, host, sbuf_str(&ascii));
    sbuf_free(&ascii);
    return ok;
}

static bool idn_has_a_label(struct str host) {
    for (size_t i = 0; i + 4 <= host.n; i++)
        if ((i == 0 || host.p[i - 1] == '.') && str_istarts(str_from(host, i), "xn--"))
            return true;
    return false;
}

bool idn_to_unicode(struct str hop, struct sbuf *out) {
    struct str host = idn_host_of(hop);
    char *unicode = NULL;
    if (!str_is_ascii(hop) || !idn_has_a_label(host))
        return false;
    char *text = str_dup(host);
    bool ok = idn2_to_unicode_8z8z(text, &unicode, 0) == IDN2_OK && strcmp(text, unicode) != 0;
    if (ok)
        idn_add_hop(out, hop, host, str_of(unicode));
    idn2_free(unicode);
    free(text);
    return ok;
}

void idn_spellings(struct str hop, bool idna2003, struct sbuf *other, struct sbuf *plain) {
    if (str_is_ascii(hop))
        idn_to_unicode(hop, other);
    else if (idn_hop_to_ascii(hop, idna2003, other, NULL))
        idn_to_unicode(sbuf_str(other), plain);
}

/* The last hop that was brought into A-labels: a long list is often of one domain. */
struct plain_hop {
    struct str hop;
    struct sbuf ascii;
    bool ok;
};

static void idn_plain_word(struct str word, bool idna2003, struct plain_hop *last,
                           struct sbuf *out) {
    size_t from = (size_t)(str_rchr(word, '@') + 1), at = out->n;
    struct str hop = str_from(word, from);
    bool ascii = str_is_ascii(hop);
    sbuf_add(out, word.p, from);
    if (!ascii && !str_eq(hop, last->hop)) {
        sbuf_reset(&last->ascii);
        last->hop = hop;
        last->ok = idn_hop_to_ascii(hop, idna2003, &last->ascii, NULL);
    }
    sbuf_add_str(out, !ascii && last->ok ? sbuf_str(&last->ascii) : hop);
    str_lower(out->p + at, out->n - at);
}

void idn_plain(struct str text, bool idna2003, struct sbuf *out) {
    static const char seps[] = ", \t";
    struct plain_hop last = {.ok = false};
    while (text.n > 0) {
        size_t n = 0;
        bool sep = strchr(seps, text.p[0]) != NULL;
        while (n < text.n && (strchr(seps, text.p[n]) != NULL) == sep)
            n++;
        if (sep)
            sbuf_add(out, text.p, n);
        else
            idn_plain_word(str_make(text.p, n), idna2003, &last, out);
        text = str_from(text, n);
    }
    sbuf_free(&last.ascii);
}

bool idn_same(struct str a, struct str b, bool idna2003) {
    struct sbuf x = {0}, y = {0};
    if (str_ieq(a, b))
        return true;
    if (str_is_ascii(a) && str_is_ascii(b))
        return false;
    idn_plain(a, idna2003, &x);
    idn_plain(b, idna2003, &y);
    bool same = str_eq(sbuf_str(&x), sbuf_str(&y));
    sbuf_free(&x);
    sbuf_free(&y);
    return same;
}
