/*
 * route/nexthop.c - next hop syntax; see nexthop.h
 */
#include "route/nexthop.h"

#include "mail/address.h"
#include "util/idn.h"
#include "util/net.h"

static const struct {
    const char *name;
    uint16_t port;
} services[] = {{"smtp", 25},         {"smtps", 465},      {"ssmtp", 465},
                {"submissions", 465}, {"submission", 587}, {"lmtp", 24}};

bool nexthop_port(struct str s, uint16_t *port) {
    uint64_t v;
    if (str_u64(s, &v)) {
        *port = (uint16_t)v;
        return v > 0 && v <= 65535;
    }
    for (size_t i = 0; i < sizeof services / sizeof services[0]; i++)
        if (str_ieq_c(s, services[i].name)) {
            *port = services[i].port;
            return true;
        }
    return false;
}

const char *nexthop_of_service(struct str name, struct str *host, uint16_t *port) {
    ptrdiff_t colon = str_rchr(name, ':');
    struct str service = str_from(name, (size_t)(colon + 1));
    *host = str_make(name.p, colon < 0 ? 0 : (size_t)colon);
    if (host->n > 2 && host->p[0] == '[')
        *host = str_make(host->p + 1, host->n - 2);
    if (service.n == 0)
        return "no port after ':'";
    return nexthop_port(service, port) ? NULL : "bad port or unknown service";
}

static const char *check_host(struct nexthop *n) {
    struct netaddr a;
    if (str_istarts(n->host, "ipv6:"))
        n->host = str_from(n->host, 5);
    if (n->host.n == 0)
        return "no host name or address";
    if (n->host.p[n->host.n - 1] == '.') /* credentials and TLS policies have it without */
        return "a host name has no dot at its end";
    if (netaddr_parse(&a, n->host, 0) || addr_valid_host(n->host))
        return NULL;
    return str_is_ascii(n->host) ? "valid hostname or network address required"
                                 : "it is no internationalised domain name";
}

/* What people write for a transport and Postfix takes for a host name. */
static const char *check_prefix(struct str text) {
    static const char *words[] = {"smtp:", "smtps:", "relay:", "lmtp:", "inet:", "unix:"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        struct str rest = str_from(text, str_of(words[i]).n);
        uint16_t port;
        if (str_istarts(text, words[i]) && !nexthop_port(rest, &port))
            return "a transport name does not belong in a next hop: write only [host]:port";
    }
    return NULL;
}

const char *nexthop_parse(struct nexthop *n, struct str text, uint16_t default_port) {
    *n = (struct nexthop){.dest = text, .port = default_port};
    const char *why = check_prefix(text);
    if (why != NULL)
        return why;
    struct str service = STR_NONE;
    if (text.n > 0 && text.p[0] == '[') {
        ptrdiff_t end = str_chr(text, ']');
        if (end < 0)
            return "missing ']'";
        n->bracketed = true;
        n->host = str_make(text.p + 1, (size_t)end - 1);
        struct str rest = str_from(text, (size_t)end + 1);
        if (rest.n > 0 && rest.p[0] != ':')
            return "garbage after ']'";
        if (rest.n > 0)
            service = str_from(rest, 1);
        if (rest.n == 1)
            return "no port after ':'";
    } else {
        ptrdiff_t colon = str_rchr(text, ':');
        n->host = colon < 0 ? text : str_make(text.p, (size_t)colon);
        if (colon >= 0) {
            service = str_from(text, (size_t)colon + 1);
            if (service.n == 0)
                return "no port after ':'";
        }
    }
    if (service.n > 0 && !nexthop_port(service, &n->port))
        return "bad port or unknown service";
    return check_host(n);
}

const char *nexthop_parse_lmtp(struct nexthop *n, struct str text, uint16_t default_port) {
    if (str_istarts(text, "unix:")) {
        *n = (struct nexthop){.dest = str_from(text, 5), .host = str_from(text, 5), .local = true};
        return n->host.n > 0 ? NULL : "no path after \"unix:\"";
    }
    const char *why =
        nexthop_parse(n, str_istarts(text, "inet:") ? str_from(text, 5) : text, default_port);
    n->bracketed = true;
    return why;
}

bool nexthop_split(struct str *rest, struct str *one) {
    return str_split(rest, ", \t\r\n", one);
}

bool nexthop_without_transport(struct str list, struct sbuf *out) {
    struct str one, whole = list;
    bool cut = false;
    while (nexthop_split(&list, &one)) {
        size_t n = str_istarts(one, "smtp:") ? 5 : str_istarts(one, "relay:") ? 6 : 0;
        struct nexthop hop;
        /* "smtp:25" is a host of that name, "smtp:[host]:25" is not. */
        bool is = n > 0 && nexthop_parse(&hop, one, 25) != NULL &&
                  nexthop_parse(&hop, str_from(one, n), 25) == NULL;
        if (out->n > 0)
            sbuf_add_c(out, ", ");
        sbuf_add_str(out, is ? str_from(one, n) : one);
        cut = cut || is;
    }
    if (!cut) {
        sbuf_reset(out);
        sbuf_add_str(out, whole);
    }
    return cut;
}

void nexthop_to_ascii(struct str list, bool idna2003, struct sbuf *out) {
    struct str one;
    if (str_is_ascii(list)) {
        sbuf_add_str(out, list);
        return;
    }
    while (nexthop_split(&list, &one)) {
        if (out->n > 0)
            sbuf_add_c(out, ", ");
        if (!idn_hop_to_ascii(one, idna2003, out, NULL))
            sbuf_add_str(out, one);
    }
}

typedef const char *(*nexthop_parse_fn)(struct nexthop *n, struct str text, uint16_t default_port);

static const char *check_each(struct str list, nexthop_parse_fn parse, struct str *bad) {
    struct nexthop n;
    const char *why = NULL;
    while (why == NULL && nexthop_split(&list, bad))
        why = parse(&n, *bad, 25);
    return why;
}

const char *nexthop_check(struct str list, struct str *bad) {
    return check_each(list, nexthop_parse, bad);
}

const char *nexthop_check_lmtp(struct str list, struct str *bad) {
    return check_each(list, nexthop_parse_lmtp, bad);
}
