/*
 * daemon/explain.h - `posthouse explain` and `posthouse test`, run by the relay itself
 *
 * Route and probe run on a worker's loop with the worker's own configuration, lookup client and
 * delivery code; each step comes back to the loop that asked, as a line of JSON.
 */
#ifndef PH_DAEMON_EXPLAIN_H
#define PH_DAEMON_EXPLAIN_H

#include "deliver/deliver.h"

/* Where it runs. */
struct explain_at {
    struct loop *loop;
    struct lookup *lookup;
    struct deliver *deliver;
};

struct explain;

/* Called on home's thread: line is a step (with its newline); the last one has over set. */
typedef void (*explain_fn)(void *arg, struct str line, bool over);

struct explain_ask {
    const char *sender;
    const char *rcpt; /* "": none given */
    const char *via;  /* this relay host, whatever the rules say; NULL: what they say */
    bool connect;     /* test instead of explain */
};

struct explain *explain_start(struct loop *home, const struct explain_at *at,
                              const struct explain_ask *ask, explain_fn fn, void *arg);
/* On home's thread: fn is not called any more; it ends by itself, behind the address that it is at.
 */
void explain_forget(struct explain *x);

#endif
