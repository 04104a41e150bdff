/*
 * route/nexthop.h - next hop syntax: "[host]:port", "domain:service", lists of them
 */
#ifndef PH_ROUTE_NEXTHOP_H
#define PH_ROUTE_NEXTHOP_H

#include "util/str.h"

struct nexthop {
    struct str dest; /* as written: "[relay.server]:587"; by LMTP without "inet:" or "unix:" */
    struct str host; /* "relay.server"; an address without "ipv6:" */
    bool bracketed;  /* no MX look-up */
    bool local;      /* a Unix socket: host is its path */
    uint16_t port;
};

/* Is it a port: a number, or a service that is known? */
bool nexthop_port(struct str text, uint16_t *port);
/* The port that a service's name in master.cf has ("smtp", "127.0.0.1:10025"), and the host before
 * it, without brackets; no host: empty.  NULL, or what is wrong with the port. */
const char *nexthop_of_service(struct str name, struct str *host, uint16_t *port);
/* Parses one destination; NULL, or what is wrong with it. */
const char *nexthop_parse(struct nexthop *n, struct str text, uint16_t default_port);
/* The same of a transport by LMTP, lmtp(8): "unix:path", "inet:host:port", or a host; there is no
 * MX look-up. */
const char *nexthop_parse_lmtp(struct nexthop *n, struct str text, uint16_t default_port);
/* The next destination of a list separated by commas or blanks. */
bool nexthop_split(struct str *rest, struct str *one);
/* Appends a table's next hops without the transport name that people write before them
 * ("smtp:[192.168.1.2]:25", as iRedAdmin-Pro's manual has it); true if there was one. */
bool nexthop_without_transport(struct str list, struct sbuf *out);
/* Appends a list with its hosts in A-labels (util/idn.h); a list in ASCII, and a destination that
 * is none, as they are. */
void nexthop_to_ascii(struct str list, bool idna2003, struct sbuf *out);
/* What is wrong with the first bad destination of a list (*bad), or NULL. */
const char *nexthop_check(struct str list, struct str *bad);
const char *nexthop_check_lmtp(struct str list, struct str *bad);

#endif
