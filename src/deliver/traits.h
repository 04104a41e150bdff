/*
 * deliver/dataonly.h - relay hosts that are given content by DATA, whatever they offer
 *
 * A host said 250 to the last chunk of BDAT, and what came behind it did not confirm that this was
 * the answer to the content.  The mail may have to wait, and then comes to the host twice.  By DATA
 * there is no such doubt, so it happens once and not at each attempt.  A host is known by its
 * address and by its next hop: another address of the same next hop, which may have many, is given
 * DATA too.  Any thread.  The process remembers the last DATA_ONLY_MAX hosts until it ends.
 */
#ifndef PH_DELIVER_DATAONLY_H
#define PH_DELIVER_DATAONLY_H

#include "util/net.h"

#define DATA_ONLY_MAX 256U

/* From now on the host at this address and port, and all of its next hop, are given DATA.  The next
 * hop is copied. */
void data_only_add(const struct netaddr *host, const char *nexthop);
/* Is the host known by its address and port, or by its next hop? */
bool data_only_has(const struct netaddr *host, const char *nexthop);

#endif
