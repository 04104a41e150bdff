/*
 * route/local.h - is a domain local, so that a table is asked for local parts alone, too?
 *
 * Postfix's mail_addr_find(3) asks so for a sender at myorigin, at a domain of mydestination, and
 * at one of this system's own addresses.  The thread of the loop of its struct lookup; nothing is
 * kept.
 */
#ifndef PH_ROUTE_LOCAL_H
#define PH_ROUTE_LOCAL_H

#include "config/config.h"
#include "maps/query.h"

/* Is the domain an address of this system or of a proxy before it (proxy_interfaces), as an address
 * has it, "[192.0.2.1]" or "[IPv6:2001:db8::1]" (RFC 5321 section 4.1.3)? */
bool local_is_own_literal(const struct config *cfg, struct str domain);
/* Is the domain of a sender local?  p: of the service that asks; service is the name that a warning
 * is logged under.  As lookup_match_now: 0, and *now is the answer, which is then no error; or a
 * tag, and fn is called. */
uint32_t local_sender_now(struct lookup *k, const char *service, const struct config *cfg,
                          const struct params *p, struct str sender, enum match_rc *now,
                          lookup_match_fn fn, void *arg);

#endif
