/*
 * daemon/daemon.h - the processes: supervisor, relay, lookup
 */
#ifndef PH_DAEMON_DAEMON_H
#define PH_DAEMON_DAEMON_H

#include "config/config.h"

/* Messages from the supervisor to the others. */
enum {
    SUP_RELOAD = 1, /* to the relay: a configuration bundle */
    SUP_LOOKUP = 2, /* new channels between relay and lookup process, one a loop */
    SUP_STOP = 3,
    SUP_REOPEN = 4 /* the log file, opened again: a descriptor */
};

#define LOOPS_MAX 63

/* A listening socket, bound by the supervisor and kept over restarts of the relay. */
struct listen_socket {
    char *service; /* master.cf name */
    int fd;
    size_t loop; /* which loop serves it */
    bool local;  /* sendmail's unix socket */
};

struct listen_set {
    struct listen_socket *v;
    size_t n;
    int control; /* control socket, the relay's */
    int queue;   /* the same for all users: listings and flushing */
    int reload;  /* reload.sock, the supervisor's own */
};

/* Binds every smtpd service, loops times each (SO_REUSEPORT), and the unix sockets in the current
 * directory.  Negative errno after logging what could not be bound. */
int listen_bind(struct listen_set *set, const struct config *cfg, size_t loops);

/* The relay's life; never returns.  sup: channel to the supervisor; lookups: loops + 1 channels to
 * the lookup process. */
_Noreturn void relay_main(struct config *cfg, const struct listen_set *set, size_t loops, int sup,
                          const int *lookups);
/* The lookup process's life; never returns. */
_Noreturn void lookup_main(struct config *cfg, size_t loops, int sup, const int *lookups);

/* Number of loops that cfg asks for. */
size_t daemon_loops(const struct config *cfg);
/* What is wrong with a configuration beyond its syntax (also `posthouse check`): restrictions, next
 * hops, networks. */
void daemon_check(const struct config *cfg, struct diags *d);
/* Warns of stores that were there and are gone. */
void daemon_check_stores(const struct config *cfg, struct diags *d);

#endif
