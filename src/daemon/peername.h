/*
 * daemon/peername.h - host names of clients: PTR, then A/AAAA back to the address
 *
 * One cache per loop; used on that loop only.
 */
#ifndef PH_DAEMON_PEERNAME_H
#define PH_DAEMON_PEERNAME_H

#include "deliver/resolver.h"

struct peername;

struct peername *peername_new(struct resolver *r, struct loop *l);
/* done(ctx, name or NULL), perhaps before this returns. */
void peername_find(struct peername *p, const struct netaddr *addr,
                   void (*done)(void *ctx, const char *name), void *ctx);

#endif
