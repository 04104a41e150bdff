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
    SUP_REOPEN = 4, /* the log file, opened again: a descriptor */
    SUP_LISTEN = 5, /* to the relay: a listening socket, with enum listen_kind, loop and service */
    SUP_RENEW = 7,  /* to the relay: the bundle in use, with certificates that were renewed */
    SUP_DEAF = 6    /* to the relay: it listens at no socket any more */
};

/* Messages from them to the supervisor, once in their life. */
enum {
    CHILD_READY = 1, /* the process does its work from now on */
    CHILD_FAILS = 2  /* it cannot, and ends: service and text of its last log line */
};

#define LOOPS_MAX 63

enum listen_kind { LISTEN_SMTPD = 1, LISTEN_SENDMAIL, LISTEN_CONTROL, LISTEN_QUEUE };

/* The relay's life; never returns.  sup: channel to the supervisor; lookups: loops + 1 channels to
 * the lookup process.  Sockets come with SUP_LISTEN, after CHILD_READY. */
_Noreturn void relay_main(struct config *cfg, size_t loops, int sup, const int *lookups);
/* The lookup process's life; never returns. */
_Noreturn void lookup_main(struct config *cfg, size_t loops, int sup, const int *lookups);

/* Number of loops that cfg asks for. */
size_t daemon_loops(const struct config *cfg);
/* What is wrong with a configuration beyond its syntax (also `posthouse check`): restrictions, next
 * hops, networks, and, once it was preloaded, its size.  waits: the level of what lets mail wait
 * and no more, as it does in Postfix. */
void daemon_check(const struct config *cfg, enum diag_level waits, struct diags *d);
/* Warns of stores that were there and are gone. */
void daemon_check_stores(const struct config *cfg, struct diags *d);

#endif
