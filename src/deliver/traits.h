/*
 * deliver/traits.h - relay hosts that are spoken to in another way than they offer
 *
 * What a host offers may not be what it does.  HOST_DATA_ONLY: it said 250 to the last chunk of
 * BDAT, and what came behind it did not confirm that this was the answer to the content.  The mail
 * may have to wait, and then comes to the host twice; by DATA there is no such doubt.
 * HOST_ONE_BY_ONE: it offers PIPELINING and answers nothing that came behind a command of which the
 * reply was not there yet: each message would wait until a time-out; or it takes what comes behind
 * a sender or a recipient that it refused.  So either happens once, and not at each attempt.
 *
 * A host is known by its address and by its next hop: another address of the same next hop, which
 * may have many, is treated alike.  Any thread.  The process remembers the last HOST_TRAITS_MAX
 * hosts of each kind until it ends.
 */
#ifndef PH_DELIVER_TRAITS_H
#define PH_DELIVER_TRAITS_H

#include "util/net.h"

enum host_trait { HOST_DATA_ONLY, HOST_ONE_BY_ONE, HOST_TRAITS };

#define HOST_TRAITS_MAX 256U

/* From now on the host at this address and port, and all of its next hop, have the trait.  The next
 * hop is copied.  False if that was known. */
bool host_trait_add(enum host_trait trait, const struct netaddr *host, const char *nexthop);
/* Is the host known by its address and port, or by its next hop? */
bool host_trait_has(enum host_trait trait, const struct netaddr *host, const char *nexthop);

#endif
