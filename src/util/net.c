/*
 * util/net.c - IP addresses; see net.h
 */
#include "util/net.h"

#include <arpa/inet.h>
#include <string.h>

bool netaddr_parse(struct netaddr *a, struct str s, uint16_t port) {
    char text[INET6_ADDRSTRLEN + 1];
    if (str_istarts(s, "ipv6:"))
        s = str_from(s, 5);
    if (s.n == 0 || s.n >= sizeof text)
        return false;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    memset(a, 0, sizeof *a);
    if (inet_pton(AF_INET, text, &a->u.in4.sin_addr) == 1) {
        a->u.in4.sin_family = AF_INET;
        a->u.in4.sin_port = htons(port);
        return true;
    }
    if (inet_pton(AF_INET6, text, &a->u.in6.sin6_addr) == 1) {
        a->u.in6.sin6_family = AF_INET6;
        a->u.in6.sin6_port = htons(port);
        return true;
    }
    return false;
}

void netaddr_unmap(struct netaddr *a) {
    if (a->u.sa.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&a->u.in6.sin6_addr))
        return;
    struct netaddr b = {0};
    b.u.in4.sin_family = AF_INET;
    b.u.in4.sin_port = a->u.in6.sin6_port;
    memcpy(&b.u.in4.sin_addr, a->u.in6.sin6_addr.s6_addr + 12, 4);
    *a = b;
}

const char *netaddr_text(const struct netaddr *a, char buf[INET6_ADDRSTRLEN]) {
    const void *at = a->u.sa.sa_family == AF_INET ? (const void *)&a->u.in4.sin_addr
                                                  : (const void *)&a->u.in6.sin6_addr;
    if (a->u.sa.sa_family == AF_UNIX ||
        inet_ntop(a->u.sa.sa_family, at, buf, INET6_ADDRSTRLEN) == NULL)
        strcpy(buf, "unknown");
    return buf;
}

const char *netaddr_network(const char *addr, unsigned bits, char buf[INET6_ADDRSTRLEN]) {
    struct in6_addr a;
    if (strchr(addr, ':') == NULL || inet_pton(AF_INET6, addr, &a) != 1)
        return addr;
    for (unsigned i = bits; i < sizeof a.s6_addr * 8; i++)
        a.s6_addr[i / 8] &= (uint8_t) ~(0x80U >> i % 8);
    return inet_ntop(AF_INET6, &a, buf, INET6_ADDRSTRLEN);
}

bool netaddr_is_unix(const struct netaddr *a) {
    return a->u.sa.sa_family == AF_UNIX;
}

uint16_t netaddr_port(const struct netaddr *a) {
    if (netaddr_is_unix(a))
        return 0;
    return ntohs(a->u.sa.sa_family == AF_INET ? a->u.in4.sin_port : a->u.in6.sin6_port);
}

bool netaddr_unix(struct netaddr *a, const char *path) {
    size_t n = strlen(path);
    memset(a, 0, sizeof *a);
    a->u.un.sun_family = AF_UNIX;
    if (n >= sizeof a->u.un.sun_path)
        return false;
    memcpy(a->u.un.sun_path, path, n + 1);
    return true;
}

void netaddr_set_port(struct netaddr *a, uint16_t port) {
    if (a->u.sa.sa_family == AF_INET)
        a->u.in4.sin_port = htons(port);
    else if (a->u.sa.sa_family == AF_INET6)
        a->u.in6.sin6_port = htons(port);
}

socklen_t netaddr_len(const struct netaddr *a) {
    if (netaddr_is_unix(a))
        return sizeof a->u.un;
    return a->u.sa.sa_family == AF_INET ? sizeof a->u.in4 : sizeof a->u.in6;
}

/* The address bytes and their count. */
static const uint8_t *addr_bytes(const struct netaddr *a, size_t *n) {
    if (a->u.sa.sa_family == AF_INET) {
        *n = 4;
        return (const uint8_t *)&a->u.in4.sin_addr;
    }
    if (netaddr_is_unix(a)) {
        *n = strlen(a->u.un.sun_path);
        return (const uint8_t *)a->u.un.sun_path;
    }
    *n = 16;
    return a->u.in6.sin6_addr.s6_addr;
}

bool netaddr_same(const struct netaddr *a, const struct netaddr *b) {
    size_t na, nb;
    const uint8_t *pa = addr_bytes(a, &na), *pb = addr_bytes(b, &nb);
    return na == nb && memcmp(pa, pb, na) == 0;
}

bool netaddr_is_loopback(const struct netaddr *a) {
    if (a->u.sa.sa_family == AF_INET)
        return (ntohl(a->u.in4.sin_addr.s_addr) >> 24) == 127;
    return a->u.sa.sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&a->u.in6.sin6_addr);
}

bool netaddr_is_any(const struct netaddr *a) {
    return a->u.sa.sa_family == AF_INET ? a->u.in4.sin_addr.s_addr == INADDR_ANY
                                        : IN6_IS_ADDR_UNSPECIFIED(&a->u.in6.sin6_addr);
}

void netaddr_arpa(const struct netaddr *a, struct sbuf *out) {
    size_t n;
    const uint8_t *p = addr_bytes(a, &n);
    for (size_t i = n; i-- > 0;) {
        if (n == 4)
            sbuf_printf(out, "%u.", p[i]);
        else
            sbuf_printf(out, "%x.%x.", p[i] & 15U, p[i] >> 4);
    }
    sbuf_add_c(out, n == 4 ? "in-addr.arpa." : "ip6.arpa.");
}

/* True when all bits after the first `bits` are 0. */
static bool host_bits_null(const struct netblock *b) {
    size_t n;
    const uint8_t *p = addr_bytes(&b->base, &n);
    for (unsigned i = b->bits; i < n * 8; i++)
        if ((p[i / 8] >> (7 - i % 8) & 1) != 0)
            return false;
    return true;
}

/* Takes the brackets off "[address]/bits" or "[address/bits]": *s becomes the address, *bits
 * "/bits" or nothing.  False: they stand wrong. */
static bool brackets_take(struct str *s, struct str *bits) {
    ptrdiff_t end = str_chr(*s, ']');
    if (end < 0)
        return false;
    struct str behind = str_from(*s, (size_t)end + 1);
    *s = str_make(s->p + 1, (size_t)end - 1);
    if (behind.n > 0)
        *bits = behind;
    return behind.n == 0 || behind.p[0] == '/';
}

static void slash_take(struct str *s, struct str *bits) {
    ptrdiff_t slash = str_chr(*s, '/');
    if (slash < 0)
        return;
    *bits = str_from(*s, (size_t)slash);
    s->n = (size_t)slash;
}

/* What has no other letters, and begins with a bracket or has the length of a network ("10.1/16"),
 * is no name of a host, as in Postfix. */
static bool is_address_like(struct str s) {
    size_t n = 0;
    while (n < s.n && str_chr(STR_LIT("0123456789abcdefABCDEF:.[]/"), s.p[n]) >= 0)
        n++;
    bool length = str_chr(s, '/') > 0 && str_chr(s, ':') < 0;
    return n == s.n && n > 0 && (s.p[0] == '[' || length);
}

bool netblock_parse(struct netblock *b, struct str s, const char **why) {
    struct str bits = STR_NONE;
    bool bracket = s.n > 0 && s.p[0] == '[';
    *why = is_address_like(s) ? "bad network pattern" : NULL;
    if (bracket && !brackets_take(&s, &bits))
        return false;
    if (bits.n == 0)
        slash_take(&s, &bits);
    if (!netaddr_parse(&b->base, s, 0))
        return false;
    unsigned max = b->base.u.sa.sa_family == AF_INET ? 32 : 128;
    uint64_t v = max;
    if (bits.n > 0 && (!str_u64(str_from(bits, 1), &v) || v > max)) {
        *why = "bad network length";
        return false;
    }
    b->bits = (unsigned)v;
    if (!host_bits_null(b)) {
        *why = "non-null host address bits";
        return false;
    }
    *why = NULL;
    return true;
}

bool netblock_has(const struct netblock *b, const struct netaddr *a) {
    size_t nb, na;
    const uint8_t *pb = addr_bytes(&b->base, &nb), *pa = addr_bytes(a, &na);
    if (nb != na || b->base.u.sa.sa_family != a->u.sa.sa_family)
        return false;
    if (memcmp(pb, pa, b->bits / 8) != 0)
        return false;
    unsigned rest = b->bits % 8;
    return rest == 0 || ((pb[b->bits / 8] ^ pa[b->bits / 8]) >> (8 - rest)) == 0;
}
