/*
 * util/sock.h - everything that is done to a stream socket
 *
 * Any thread.  The functions hold no state.  Nothing else in the product connects, accepts, reads
 * or writes on the sockets of mail, so a simulator replaces this one file.  Each function answers
 * with a negative errno on failure, never with errno itself.
 */
#ifndef PH_UTIL_SOCK_H
#define PH_UTIL_SOCK_H

#include <sys/types.h>

#include "util/net.h"

/* Begins to connect, from the local address unless from is NULL or of another family.  Returns a
 * descriptor that belongs to the caller, non-blocking, close-on-exec and without Nagle's delay.
 * Connecting may go on: the descriptor is writable when it has ended, and sock_error says how.
 * -EMFILE also while only the process's last descriptors are free (fs_is_reserved). */
int sock_connect(const struct netaddr *to, const struct netaddr *from);
/* Takes one client off the listener's queue.  Returns a descriptor that belongs to the caller,
 * non-blocking and close-on-exec; -EAGAIN when the queue is empty.  *peer (unless peer is NULL) is
 * the client's address; an IPv4 address that came mapped into IPv6 is given as IPv4. */
int sock_accept(int listener, struct netaddr *peer);
/* Returns the bytes that the kernel took, -EAGAIN when it takes none now.  Never raises SIGPIPE. */
ssize_t sock_send(int fd, const void *p, size_t n);
/* Returns the bytes read, 0 when the peer has ended its side, -EAGAIN when there are none yet. */
ssize_t sock_recv(int fd, void *p, size_t n);
/* What connecting ended with: 0 or a negative errno. */
int sock_error(int fd);
/* Small writes go out at once.  Clients accepted from a listener inherit the setting. */
void sock_nodelay(int fd);
/* The peer learns that nothing more is sent; it can still be read from. */
void sock_shut(int fd);
void sock_close(int fd);

#endif
