/*
 * receive/serve.h - serving one client: its connection, its states, its end
 *
 * The loop's thread.  A session frees itself when its client leaves or is told to.
 */
#ifndef PH_RECEIVE_SERVE_H
#define PH_RECEIVE_SERVE_H

#include "receive/session.h"

/* Serves the client of fd, which is taken over, as a service of r->cfg says; it counts in load. */
void serve_client(struct receive *r, int fd, const struct netaddr *peer, const struct service *svc,
                  struct service_load *load, bool local);
/* The daemon is being stopped: an idle client is told so and let go; one with a message on its way
 * may finish.  s may be gone when this returns. */
void serve_stop(struct session *s);

#endif
