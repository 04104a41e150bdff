/*
 * mail/address.c - mail addresses; see address.h
 */
#include "mail/address.h"

#include <ctype.h>
#include <string.h>

#include "util/codec.h"
#include "util/idn.h"
#include "util/net.h"

static bool is_atext(uint8_t c) {
    return c >= 0x80 || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9') || (c != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL);
}

bool addr_is_atom(struct str s) {
    for (size_t i = 0; i < s.n; i++)
        if ((uint8_t)s.p[i] >= 0x80 || !is_atext((uint8_t)s.p[i]))
            return false;
    return s.n > 0;
}

struct str addr_domain(struct str a) {
    ptrdiff_t at = str_rchr(a, '@');
    return at < 0 ? str_make(a.p, 0) : str_from(a, (size_t)at + 1);
}

struct str addr_local(struct str a) {
    ptrdiff_t at = str_rchr(a, '@');
    return at < 0 ? a : str_make(a.p, (size_t)at);
}

struct str addr_strip_ext(struct str local, const char *delimiters) {
    for (size_t i = 1; i < local.n; i++)
        if (local.p[i] != '\0' && strchr(delimiters, local.p[i]) != NULL)
            return str_make(local.p, i);
    return str_make(local.p, 0);
}

static bool valid_idn(struct str s) {
    struct sbuf ascii = {0};
    bool ok = idn_to_ascii(s, false, &ascii, NULL);
    sbuf_free(&ascii);
    return ok;
}

bool addr_valid_host(struct str s) {
    size_t label = 0;
    if (!str_is_ascii(s))
        return s.n <= ADDR_MAX && valid_idn(s);
    if (s.n == 0 || s.n > 255)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '_';
        if (c == '.') {
            if (label == 0)
                return false;
            label = 0;
        } else if (!ok || ++label > 63) {
            return false;
        }
    }
    return true;
}

bool addr_is_dns_name(struct str s) {
    bool numeric = true;
    if (!addr_valid_host(s) || !str_is_ascii(s) || s.p[s.n - 1] == '.')
        return false;
    for (size_t i = 0; i < s.n; i++) {
        bool edge = i == 0 || i + 1 == s.n || s.p[i - 1] == '.' || s.p[i + 1] == '.';
        if (s.p[i] == '-' && edge)
            return false;
        numeric = numeric && ((s.p[i] >= '0' && s.p[i] <= '9') || s.p[i] == '.');
    }
    return !numeric;
}

bool addr_is_literal(struct str s) {
    static const struct str tag = STR_LIT("IPv6:");
    struct netaddr parsed;
    if (s.n < 3 || s.p[0] != '[' || s.p[s.n - 1] != ']')
        return false;
    struct str ip = str_make(s.p + 1, s.n - 2);
    bool v6 = str_istarts(ip, tag.p);
    return netaddr_parse(&parsed, v6 ? str_from(ip, tag.n) : ip, 0) &&
           parsed.u.sa.sa_family == (v6 ? AF_INET6 : AF_INET);
}

/* The domain of an envelope address: a host name none of whose labels begins or ends with '-'
 * (RFC 1123 section 2.1), perhaps with a dot at its end, and no number: an address in digits stands
 * in brackets. */
static bool valid_domain(struct str s) {
    bool numeric = true;
    for (size_t i = 0; i < s.n; i++) {
        numeric = numeric && ((s.p[i] >= '0' && s.p[i] <= '9') || s.p[i] == '.');
        if (s.p[i] == '-' && (i == 0 || s.p[i - 1] == '.' || i + 1 == s.n || s.p[i + 1] == '.'))
            return false;
    }
    return !numeric && addr_valid_host(s);
}

/* A quoted local part at the start of s; its content without quoting goes to out. */
static size_t parse_quoted(struct str s, struct sbuf *out) {
    for (size_t i = 1; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        if (c == '"')
            return i + 1;
        if (c == '\\' && ++i < s.n)
            c = (uint8_t)s.p[i];
        if (c < ' ' || c == 0x7f)
            return 0;
        sbuf_add_ch(out, (char)c);
    }
    return 0;
}

/* Dots may stand anywhere, as with Postfix: there are providers that give such addresses. */
static size_t parse_atoms(struct str s, struct sbuf *out) {
    size_t i = 0;
    while (i < s.n && (is_atext((uint8_t)s.p[i]) || s.p[i] == '.'))
        i++;
    sbuf_add(out, s.p, i);
    return i;
}

static bool addr_is_blank(char c) {
    return c == ' ' || c == '\t';
}

/* Length of the domain at the start of s, 0 if there is none. */
static size_t parse_domain(struct str s) {
    size_t n = 0;
    if (s.n > 0 && s.p[0] == '[') {
        ptrdiff_t end = str_chr(s, ']');
        n = end < 0 ? 0 : (size_t)end + 1;
        return addr_is_literal(str_make(s.p, n)) ? n : 0;
    }
    while (n < s.n && s.p[n] != '>' && !addr_is_blank(s.p[n]) && s.p[n] != ':' && s.p[n] != ',')
        n++;
    return valid_domain(str_make(s.p, n)) ? n : 0;
}

/* Drops "@a,@b:" at the start; false if it is malformed. */
static bool skip_route(struct str *s) {
    while (s->n > 0 && s->p[0] == '@') {
        size_t n = parse_domain(str_from(*s, 1));
        if (n == 0)
            return false;
        *s = str_from(*s, n + 1);
        if (s->n > 0 && s->p[0] == ',') {
            *s = str_from(*s, 1);
            if (s->n == 0 || s->p[0] != '@')
                return false;
            continue;
        }
        if (s->n == 0 || s->p[0] != ':')
            return false;
        *s = str_from(*s, 1);
        break;
    }
    return true;
}

/* A quoted local part without a domain may hold an '@', which then divides it like any other
 * (resolve_dequoted_address): both parts must be some. */
static bool valid_dequoted(struct str a) {
    struct str domain = addr_domain(a);
    return str_chr(a, '@') < 0 ||
           (addr_local(a).n > 0 && (valid_domain(domain) || addr_is_literal(domain)));
}

/* "user@domain." is user@domain: tables, owners and logins must not take it for another address. */
static void drop_final_dot(struct sbuf *out, size_t begun) {
    struct str a = str_make(out->p + begun, out->n - begun);
    if (a.n > 0 && a.p[a.n - 1] == '.' && str_chr(a, '@') >= 0)
        out->p[--out->n] = '\0';
}

static enum addr_rc parse_mailbox(struct str *s, const struct addr_opts *o, struct sbuf *out) {
    size_t begun = out->n;
    if (s->n > 0 && s->p[0] == '>' && o->allow_empty)
        return ADDR_OK;
    if (!skip_route(s))
        return ADDR_SYNTAX;
    size_t n = s->n > 0 && s->p[0] == '"' ? parse_quoted(*s, out) : parse_atoms(*s, out);
    *s = str_from(*s, n);
    if (n == 0 || out->n == begun)
        return ADDR_SYNTAX;
    if (s->n > 0 && s->p[0] == '@') {
        n = parse_domain(str_from(*s, 1));
        if (n == 0)
            return ADDR_SYNTAX;
        sbuf_add(out, s->p, n + 1);
        *s = str_from(*s, n + 1);
    } else if (!valid_dequoted(str_make(out->p + begun, out->n - begun))) {
        return ADDR_SYNTAX;
    }
    drop_final_dot(out, begun);
    if (out->n - begun > ADDR_MAX)
        return ADDR_TOO_LONG;
    if (!o->utf8 && !str_is_ascii(str_make(out->p + begun, out->n - begun)))
        return ADDR_8BIT;
    return ADDR_OK;
}

enum addr_rc addr_parse(struct str text, const struct addr_opts *o, struct sbuf *out,
                        size_t *path_len) {
    struct str s = text;
    while (s.n > 0 && addr_is_blank(s.p[0]))
        s = str_from(s, 1);
    bool angle = s.n > 0 && s.p[0] == '<';
    if (!angle && (o->strict || s.n == 0))
        return ADDR_SYNTAX;
    if (angle)
        s = str_from(s, 1);
    enum addr_rc rc = parse_mailbox(&s, o, out);
    if (rc != ADDR_OK)
        return rc;
    if (angle) {
        if (s.n == 0 || s.p[0] != '>')
            return ADDR_SYNTAX;
        s = str_from(s, 1);
    }
    if (s.n > 0 && !addr_is_blank(s.p[0]))
        return ADDR_SYNTAX;
    *path_len = text.n - s.n;
    return ADDR_OK;
}

static bool needs_quotes(struct str local) {
    if (local.n == 0 || local.p[0] == '.' || local.p[local.n - 1] == '.')
        return true;
    for (size_t i = 0; i < local.n; i++) {
        if (local.p[i] == '.' && local.p[i - 1] == '.')
            return true;
        if (local.p[i] != '.' && !is_atext((uint8_t)local.p[i]))
            return true;
    }
    return false;
}

void addr_external(struct sbuf *out, struct str a) {
    struct str local = addr_local(a);
    if (a.n == 0)
        return;
    if (!needs_quotes(local)) {
        sbuf_add_str(out, a);
        return;
    }
    sbuf_add_ch(out, '"');
    for (size_t i = 0; i < local.n; i++) {
        if (local.p[i] == '"' || local.p[i] == '\\')
            sbuf_add_ch(out, '\\');
        sbuf_add_ch(out, local.p[i]);
    }
    sbuf_add_ch(out, '"');
    sbuf_add_str(out, str_from(a, local.n));
}

bool xtext_decode(struct sbuf *out, struct str in) {
    for (size_t i = 0; i < in.n; i++) {
        char c = in.p[i];
        if (c == '+') {
            int hi = i + 2 < in.n ? hex_digit(in.p[i + 1]) : -1;
            int lo = i + 2 < in.n ? hex_digit(in.p[i + 2]) : -1;
            if (hi < 0 || lo < 0)
                return false;
            c = (char)(hi * 16 + lo);
            i += 2;
        }
        if (is_control(c))
            return false;
        sbuf_add_ch(out, c);
    }
    return true;
}

/* Is it "\x{", digits of a character of Unicode, "}" that s begins with? */
static bool is_unicode_escape(struct str s) {
    uint32_t code = 0;
    for (size_t i = 3; i < s.n && s.p[i] != '}'; i++) {
        int digit = hex_digit(s.p[i]);
        code = digit < 0 || code > 0x10ffff ? UINT32_MAX : code * 16 + (uint32_t)digit;
    }
    return str_chr(s, '}') > 3 && code <= 0x10ffff;
}

/* The character that valid UTF-8 begins with; *n: its bytes. */
static uint32_t utf8_first(struct str s, size_t *n) {
    uint32_t c = (uint8_t)s.p[0];
    *n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    if (*n > 1)
        c &= 0x7fU >> *n;
    for (size_t i = 1; i < *n; i++)
        c = c << 6 | ((uint8_t)s.p[i] & 0x3fU);
    return c;
}

bool uxtext_ascii(struct sbuf *out, struct str in) {
    if (!str_is_utf8(in) || str_has_control(in))
        return false;
    for (size_t n = 1; in.n > 0; in = str_from(in, n)) {
        uint32_t c = utf8_first(in, &n);
        if (str_istarts(in, "\\x{") && !is_unicode_escape(in))
            return false;
        if (c < 0x80 && c != '+' && c != '=')
            sbuf_add_ch(out, (char)c);
        else
            sbuf_printf(out, "\\x{%02X}", c);
    }
    return true;
}

void xtext_encode(struct sbuf *out, struct str in) {
    for (size_t i = 0; i < in.n; i++) {
        uint8_t c = (uint8_t)in.p[i];
        if (c < '!' || c > '~' || c == '=' || c == '+')
            sbuf_printf(out, "+%02X", c);
        else
            sbuf_add_ch(out, (char)c);
    }
}

void addr_phrase(struct sbuf *out, struct str name) {
    bool plain = true;
    for (size_t i = 0; i < name.n && plain; i++)
        plain = memchr("()<>[]:;@\\,.\"", name.p[i], 13) == NULL;
    if (!plain)
        sbuf_add_ch(out, '"');
    for (size_t i = 0; i < name.n; i++) {
        if (!plain && (name.p[i] == '"' || name.p[i] == '\\'))
            sbuf_add_ch(out, '\\');
        sbuf_add_ch(out, name.p[i]);
    }
    if (!plain)
        sbuf_add_ch(out, '"');
}

void addr_complete(struct sbuf *b, size_t begun, const char *origin, const char *domain) {
    struct str addr = str_from(sbuf_str(b), begun);
    if (origin != NULL && addr.n > 0 && str_rchr(addr, '@') < 0)
        sbuf_printf(b, "@%s", origin);
    struct str has = addr_domain(str_from(sbuf_str(b), begun));
    if (domain != NULL && has.n > 0 && has.p[0] != '[' && str_chr(has, '.') < 0)
        sbuf_printf(b, ".%s", domain);
}
