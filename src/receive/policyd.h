/*
 * receive/policyd.h - policy services (Postfix's SMTPD_POLICY_README), spoken to without blocking
 *
 * A request is a list of attributes, the answer one action of access(5).  A connection carries one
 * request at a time and is kept for the next one; each loop has connections of its own.  The loop's
 * thread.
 */
#ifndef PH_RECEIVE_POLICYD_H
#define PH_RECEIVE_POLICYD_H

#include "config/config.h"
#include "util/loop.h"

/* How a service is asked (smtpd_policy_service_…, or what stands beside it between braces). */
struct policy_how {
    struct str where; /* "unix:path", "inet:host:port", or "host:port" */
    int64_t timeout_s, max_idle_s, max_ttl_s, request_limit, try_limit, retry_delay_s;
};

/* The connections of a loop, of which there are so many. */
struct policies;
struct policy_call;

/* action.p NULL: the service was asked as often as it may be, and the log says what came of it. */
typedef void (*policy_fn)(void *arg, struct str action);

struct policies *policyd_new(struct loop *l, size_t loops);
/* Is that a service that can be asked?  NULL, or what is wrong. */
const char *policyd_where_bad(struct str where);
/* Asks; request is copied, with its empty line at the end, and so is the client's address.  A
 * service has default_process_limit connections, all loops together, and an eighth of the
 * descriptors at most: beyond them calls wait for a connection, at most as long as for an answer,
 * each client's in turn.  fn is called once, from the loop, never before this returns; action is
 * valid until fn returns. */
struct policy_call *policyd_ask(struct policies *all, const struct config *cfg,
                                const struct policy_how *how, struct str request,
                                const char *client, policy_fn fn, void *arg);
/* fn is not called any more; safe with NULL. */
void policyd_cancel(struct policy_call *call);

#endif
