/*
 * deliver/probe.h - looking at a road without sending mail on it (`posthouse explain` and `test`)
 *
 * A probe is a delivery session like any other, with the same settings, source address, TLS policy,
 * credentials and code; it notes its steps in a trace.  One that does not connect stops before each
 * host and says with which TLS policy and login it would be used; one that does goes as far as
 * RCPT and then takes it all back.  Started and ended on the loop of its struct deliver.
 */
#ifndef PH_DELIVER_PROBE_H
#define PH_DELIVER_PROBE_H

#include "deliver/deliver.h"
#include "route/route.h"

struct probe_ask {
    const struct config *cfg;
    const struct route *route; /* ROUTE_OK, to an SMTP transport */
    struct str sender;
    struct str rcpt; /* empty: RCPT is not tried */
    bool connect;
    struct trace *trace; /* must outlive the probe */
    /* It is over; ok: everything passed. */
    void (*done)(void *arg, bool ok);
    void *arg;
};

void probe_start(struct deliver *d, const struct probe_ask *ask);

/* What a failure means and what to do, in a sentence: of the cause, or, where that is unset, of the
 * remote's reply, which may be empty.  NULL: nothing to add. */
const char *advice_for(enum mail_cause cause, struct str reply);

#endif
