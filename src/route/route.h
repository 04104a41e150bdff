/*
 * route/route.h - sender and recipient in; transport and next hop out
 *
 * Postfix's trivial-rewrite resolver (transport(5), postconf(5) relayhost and
 * sender_dependent_relayhost_maps, ADDRESS_CLASS_README).  Asked at RCPT and again at every
 * attempt; nothing is stored.  A failed look-up is a result of its own (ROUTE_FAILED) and never
 * falls through to a less specific rule.
 */
#ifndef PH_ROUTE_ROUTE_H
#define PH_ROUTE_ROUTE_H

#include "config/config.h"
#include "mail/envelope.h"
#include "mail/mailerr.h"
#include "maps/query.h"
#include "route/trace.h"

enum route_rc {
    ROUTE_OK,
    ROUTE_FAILED, /* a table could not be asked: defer, 4.3.0 */
    ROUTE_BAD     /* the rule that applies is wrong or cannot be served here: defer, 4.3.5 */
};

enum route_class { CLASS_LOCAL, CLASS_ALIAS, CLASS_VIRTUAL, CLASS_RELAY, CLASS_DEFAULT };

/* What a route says of a transport that is not there, or of a kind that is not served. */
#define ROUTE_NO_TRANSPORT "mail transport unavailable: %.*s is not a transport of Posthouse"

struct route {
    enum route_rc rc;
    enum route_class address_class;
    const struct service *transport; /* ROUTE_OK */
    struct sbuf nexthop;
    bool configured; /* the next hop is the administrator's, not the recipient's domain */
    bool filter;     /* transport and next hop are those of the message's content filter: no login
                      * of its sender's is meant for it */
    struct sbuf why; /* the rule that applied, or what is wrong */
    bool is_told;    /* ROUTE_FAILED: why names rows that are wrong, and is the mail's reason */
    /* The relay record that the next hop named (route/record.h), or empty; nexthop then has the
     * record's hosts. */
    struct sbuf record;
    /* ROUTE_OK, a transport without sessions (error, retry, discard): what becomes of the
     * recipient; else unset. */
    struct mailerr here;
    bool here_coded; /* the rule has an enhanced status code of its own */
};

typedef void (*route_fn)(void *arg, const struct route *r);

struct route_query;

/* Calls fn once, on the loop of k and never before this returns; *r is valid until fn returns.
 * trace (may be NULL) must live until then; its steps may be emitted before this returns. */
struct route_query *route_resolve(const struct config *cfg, struct lookup *k, struct str sender,
                                  struct str recipient, struct trace *trace, route_fn fn,
                                  void *arg);
/* Where mail of a message goes whose envelope is e: to its filter ("transport:destination"), which
 * is stronger than every rule, if it has one. */
struct route_query *route_resolve_of(const struct config *cfg, struct lookup *k,
                                     const struct envelope *e, struct str recipient, route_fn fn,
                                     void *arg);
/* The same past every rule, to nexthop (and the relay record that it names): for testing it. */
struct route_query *route_resolve_via(const struct config *cfg, struct lookup *k,
                                      struct str nexthop, struct str sender, struct str recipient,
                                      struct trace *trace, route_fn fn, void *arg);
/* ROUTE_FAILED: the reason that the mail waits for. */
const char *route_failure(const struct route *r);
const char *route_class_name(enum route_class c);
/* Why mail for this recipient is refused or deferred without asking any host (error:, retry:), or
 * NULL. */
const struct mailerr *route_refuses(const struct route *r);
/* fn is not called any more; q may be NULL. */
void route_cancel(struct route_query *q);

#endif
