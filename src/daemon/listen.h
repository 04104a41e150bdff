/*
 * daemon/listen.h - the listening sockets: bound and kept by the supervisor, served by the relay
 *
 * A socket outlives the relay process: clients wait in the kernel's queue while another one is
 * started.  One thread, the supervisor's; the current directory is the spool.
 */
#ifndef PH_DAEMON_LISTEN_H
#define PH_DAEMON_LISTEN_H

#include "daemon/daemon.h"
#include "util/net.h"

/* The exit status of a first start where another program keeps a port.  systemd does not start
 * posthouse.service again then: Posthouse would have that port as soon as the other program is
 * restarted, and would keep it. */
#define LISTEN_TAKEN 69

struct listen_socket {
    char *svc_name; /* master.cf's; "" for a unix socket */
    int fd;
    size_t loop; /* which loop serves it */
    enum listen_kind kind;
    struct netaddr addr; /* of LISTEN_SMTPD */
    bool taken;          /* while the sockets are changed: the next set has it too */
};

/* Zeroed: no sockets. */
struct listen_set {
    struct listen_socket *v;
    size_t n;
    bool open;      /* clients are let in; else the addresses are only bound */
    bool inherited; /* these are the sockets of the supervisor before */
};

/* Before the first listen_bind: the set has a listening socket of the supervisor before, at which
 * clients may wait.  Takes fd; what is no such socket is closed. */
void listen_inherit(struct listen_set *set, int fd);
/* Binds every smtpd service of cfg, loops times each (SO_REUSEPORT).  Addresses that the set has
 * already keep their sockets, and with them the clients that wait there; those that cfg does not
 * have any more are closed.  Negative errno, and nothing is changed, when one cannot be bound: the
 * log says which. */
int listen_bind(struct listen_set *set, const struct config *cfg, size_t loops);
/* The same at the start.  first: no supervisor before has left sockets or a configuration.  A first
 * start by systemd waits for an address that another program has.  -EINTR: a signal to stop has
 * ended that; the signal is blocked and still pending. */
int listen_begin(struct listen_set *set, const struct config *cfg, size_t loops, bool first);
/* Mistakes for which listen_bind fails on any machine: what is no port or address, or there twice.
 */
void listen_check(const struct config *cfg, struct diags *d);
/* Calls fn for each service of cfg and each address of TCP that it listens on; none is bound. */
void listen_each(const struct config *cfg,
                 void (*fn)(void *arg, const struct service *svc, const struct netaddr *a),
                 void *arg);
/* Can a (with its port) be listened on now?  It is bound for a moment.  0 or negative errno:
 * -EADDRINUSE if any process, also one of ours, listens there. */
int listen_is_free(const struct netaddr *a);
/* Lets clients in, at the unix sockets too, which are bound now unless they are already.  Negative
 * errno after logging what failed: no client is let in then. */
int listen_open(struct listen_set *set, const struct config *cfg);
/* Turns clients away, as if no daemon ran; the addresses of services stay ours. */
void listen_shut(struct listen_set *set);
/* Removes the names of the unix sockets. */
void listen_unlink(void);
/* In a child: the sockets are not its. */
void listen_forget(struct listen_set *set);
/* A listening socket for requests to reload; the supervisor's own.  Negative errno after logging.
 */
int listen_reload(const struct config *cfg);
/* The same for requests to restart, of root and the daemon's own user only. */
int listen_restart(const struct config *cfg);

#endif
