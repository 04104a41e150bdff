/*
 * receive/serve.h - serving one client: its connection, its states, its end
 *
 * The loop's thread.  A session frees itself when its client leaves or is told to.
 */
#ifndef PH_RECEIVE_SERVE_H
#define PH_RECEIVE_SERVE_H

#include "receive/session.h"

/* Serves the client of fd, which is taken over, as a service of r->cfg says.  The client has
 * taken a place in load, which is given back with the session. */
void serve_client(struct receive *r, int fd, const struct netaddr *peer, const struct service *svc,
                  struct service_load *load, bool local);
/* The daemon is being stopped: the client is told so (421 4.3.2) and let go, unless it may finish
 * what it has begun, as r->stop says.  Then that happens as soon as it has.  s may be gone when
 * this returns. */
void serve_stop(struct session *s);

#endif
