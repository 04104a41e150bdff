/*
 * route/own.h - which addresses and ports are this system's own
 *
 * What is sent to one of them comes back.  By the configuration alone, so it says the same before
 * the daemon runs; no name is looked up.  Any thread.
 */
#ifndef PH_ROUTE_OWN_H
#define PH_ROUTE_OWN_H

#include "config/config.h"
#include "route/nexthop.h"
#include "util/net.h"

/* inet_interfaces with "all" and "loopback-only" as addresses, separated by blanks or commas. */
const char *own_interfaces(const struct config *cfg);
/* One word of it, or the host of a service's name: an address, perhaps in brackets, or "localhost".
 */
bool own_address_parse(struct netaddr *a, struct str word, uint16_t port);
/* The only address of that family in inet_interfaces, which a client may have an -o for; false:
 * there is none, there are others too, or it is a loopback address. */
bool own_only_address(const struct params *p, int family, struct netaddr *a);
/* The service that takes what is sent to that address and port, by the addresses that it listens on
 * or by proxies (a list as proxy_interfaces), which lead to all that others can reach; NULL: none.
 */
const struct service *own_service_at(const struct config *cfg, const char *proxies,
                                     const struct netaddr *a);
/* The same for a next hop: an address, "localhost" or myhostname. */
const struct service *own_service_of(const struct config *cfg, const struct nexthop *hop);

#endif
