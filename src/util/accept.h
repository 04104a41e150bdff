/*
 * util/accept.h - a listening socket on a loop
 *
 * Belongs to one loop and is used on that loop's thread only.  A process that has run out of
 * descriptors cannot take a client off the queue, and the listener would be readable for ever: a
 * descriptor is kept in reserve to take the client off with, and to refuse it.
 */
#ifndef PH_UTIL_ACCEPT_H
#define PH_UTIL_ACCEPT_H

#include "util/loop.h"
#include "util/net.h"

struct acceptor;

struct accept_ops {
    /* A client; its descriptor is the callee's.  peer lives as long as the call. */
    void (*client)(void *arg, int fd, const struct netaddr *peer);
    /* The process is out of descriptors: the callee refuses the client and closes fd.  fd is -1
     * when there was no client to refuse. */
    void (*full)(void *arg, int fd);
};

/* Takes over the listening, non-blocking fd.  NULL if the system refuses; fd is closed then. */
struct acceptor *acceptor_new(struct loop *l, int fd, const struct accept_ops *ops, void *arg);
/* Stops listening; ops are not called any more.  Not from inside ops.  Safe with NULL. */
void acceptor_close(struct acceptor *a);

#endif
