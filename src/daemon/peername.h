/*
 * daemon/peername.h - host names of clients: of an address, then back to the address
 *
 * One cache and one resolver per loop; used on that loop only.
 */
#ifndef PH_DAEMON_PEERNAME_H
#define PH_DAEMON_PEERNAME_H

#include "deliver/resolver.h"
#include "receive/client.h"

struct peername;

struct peername *peername_new(struct loop *l, const struct config *cfg);
/* done(ctx, what was found), perhaps before this returns, ten seconds later at most; what was found
 * is valid until done has returned. */
void peername_find(struct peername *p, const struct netaddr *addr, client_named_fn done, void *ctx);
/* Forgets all names: the hosts file and the name servers may be others now.  Searches that are open
 * go on as they began. */
void peername_reload(struct peername *p, const struct config *cfg);

#endif
