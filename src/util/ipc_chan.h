/*
 * util/ipc_chan.h - one end of a message channel on an event loop
 *
 * Wraps a socket of a pair in a conn.  Used on the loop's thread only.
 */
#ifndef PH_UTIL_IPC_CHAN_H
#define PH_UTIL_IPC_CHAN_H

#include "util/conn.h"
#include "util/ipc.h"

struct ipc_chan;

struct ipc_chan_ops {
    /* A whole message; fields is valid during the call. */
    void (*message)(void *arg, const struct ipc_head *head, struct str fields);
    /* The peer is gone or broke the protocol.  The channel is to be freed by its owner. */
    void (*closed)(void *arg);
};

/* Takes over fd. */
struct ipc_chan *ipc_chan_new(struct loop *l, int fd, const struct ipc_chan_ops *ops, void *arg);
/* Where a message is written with ipc_begin … ipc_end; then ipc_chan_send. */
struct sbuf *ipc_chan_out(struct ipc_chan *c);
void ipc_chan_send(struct ipc_chan *c);
/* The same for a message with a secret: overwritten once it is sent. */
void ipc_chan_send_secret(struct ipc_chan *c);
void ipc_chan_free(struct ipc_chan *c);

#endif
