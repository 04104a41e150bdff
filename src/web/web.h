/*
 * web/web.h - what all of posthouse-web shares
 *
 * Made by main.c before the first request; read-only from then on, but for cfg, which SIGHUP
 * replaces (what was there stays in memory).
 */
#ifndef PH_WEB_WEB_H
#define PH_WEB_WEB_H

#include "accounts/browse.h"
#include "config/config.h"
#include "web/state.h"

/* Channels to the helper: of audits, one of which goes on at a time, and of what takes no time. */
enum { HELPER_AUDITS, HELPER_FILES, HELPER_CHANNELS };

struct web {
    struct config *_Atomic cfg;
    struct store *store;
    struct state *state;
    int listen_fd;
    int helper[HELPER_CHANNELS]; /* to the process that reads what only root may (helper.c) */
};

/* What a token may be for. */
enum scope {
    SCOPE_PUBLIC = 0,   /* of a route: anybody */
    SCOPE_READ = 1,     /* look at accounts, relays, dashboard */
    SCOPE_ACCOUNTS = 2, /* change where accounts relay */
    SCOPE_RELAYS = 4,   /* change relay records */
    SCOPE_QUEUE = 8,    /* look at the queue and act on it */
    SCOPE_TEST = 16,    /* explain and test */
    SCOPE_METRICS = 32,
    SCOPE_ADMIN = 64, /* tokens and log: sessions only */
    SCOPE_ALL = 127
};

#endif
