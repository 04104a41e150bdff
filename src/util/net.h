/*
 * util/net.h - IP addresses: parsing, printing, networks
 *
 * Any thread; never blocks (no name look-ups here).
 */
#ifndef PH_UTIL_NET_H
#define PH_UTIL_NET_H

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "util/str.h"

struct netaddr {
    union {
        struct sockaddr sa;
        struct sockaddr_in in4;
        struct sockaddr_in6 in6;
        struct sockaddr_un un;
        struct sockaddr_storage ss;
    } u;
};

/* Numeric address; IPv6 may have an "ipv6:" prefix (any case).  Brackets are not accepted. */
bool netaddr_parse(struct netaddr *a, struct str s, uint16_t port);
/* A Unix socket; false if the path is longer than one can have. */
bool netaddr_unix(struct netaddr *a, const char *path);
bool netaddr_is_unix(const struct netaddr *a);
/* IPv4-mapped IPv6 becomes IPv4: an address is compared and shown in one form only. */
void netaddr_unmap(struct netaddr *a);
/* Numeric text without port. */
const char *netaddr_text(const struct netaddr *a, char buf[INET6_ADDRSTRLEN]);
/* Who has an address, as far as counting goes: an address of IPv4 as it is, of IPv6 its network of
 * so many bits, in buf. */
const char *netaddr_network(const char *addr, unsigned bits, char buf[INET6_ADDRSTRLEN]);
uint16_t netaddr_port(const struct netaddr *a); /* 0: a Unix socket's */
void netaddr_set_port(struct netaddr *a, uint16_t port);
socklen_t netaddr_len(const struct netaddr *a);
/* Same address, or the same path; ports are not compared. */
bool netaddr_same(const struct netaddr *a, const struct netaddr *b);
bool netaddr_is_loopback(const struct netaddr *a);
bool netaddr_is_any(const struct netaddr *a); /* 0.0.0.0 or :: */
/* The name under in-addr.arpa or ip6.arpa. */
void netaddr_arpa(const struct netaddr *a, struct sbuf *out);

/* A network, "10.0.0.0/8", "[fd00::]/64", "[::1]" or "127.0.0.1". */
struct netblock {
    struct netaddr base;
    unsigned bits;
};

/* False if it is no network; *why says what is wrong where it looks like one ("non-null host
 * address bits"), else NULL. */
bool netblock_parse(struct netblock *b, struct str s, const char **why);
bool netblock_has(const struct netblock *b, const struct netaddr *a);

#endif
