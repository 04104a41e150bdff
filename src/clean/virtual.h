/*
 * clean/virtual.h - what the recipients of a message stand for, by virtual(5)
 *
 * virtual_alias_maps is asked for each recipient, and for what is found in its turn, as Postfix's
 * cleanup(8) does: an address that stands for itself is kept, each address is taken once.  The
 * message is queued with what they stand for.  The thread of the loop of its struct lookup.
 */
#ifndef PH_CLEAN_VIRTUAL_H
#define PH_CLEAN_VIRTUAL_H

#include "config/config.h"
#include "mail/envelope.h"
#include "maps/query.h"
#include "route/trace.h"

enum virtual_rc {
    VIRTUAL_UNSET,
    VIRTUAL_OK,
    VIRTUAL_FAILED,  /* a table could not be asked: try again later */
    VIRTUAL_ENDLESS, /* more aliases than the limits allow, or an address that is too long */
    VIRTUAL_FULL,    /* there is no memory for so many: try again later */
    VIRTUAL_UNSHOWN  /* of an explanation: it would take more look-ups than are shown */
};

struct virtual_result {
    enum virtual_rc rc;
    struct rcpt *rcpts; /* VIRTUAL_OK; the texts last as long as the result */
    uint32_t n;
    bool found; /* a table has some of them */
};

typedef void (*virtual_fn)(void *arg, const struct virtual_result *r);

struct virtual_query;

/* Is there nothing that a recipient could stand for?  p: of the service that takes the mail, which
 * may leave aliases out (receive_override_options); NULL: the mail is made here. */
bool virtual_is_idle(const struct config *cfg, const struct params *p);
/* Asks for n recipients, whose texts stay until fn is called or virtual_cancel.  qid names the
 * message in the log.  trace may be NULL.  fn is called once, from the loop, never before this
 * returns; the result is valid until fn returns. */
struct virtual_query *virtual_expand(const struct config *cfg, struct lookup *k, const char *qid,
                                     const struct rcpt *rcpts, uint32_t n, struct trace *trace,
                                     virtual_fn fn, void *arg);
/* The expansion, which has just begun, ends when it and the envelopes of queued mail take
 * queue_memory_limit. */
void virtual_bound(struct virtual_query *q);
/* Asks for the recipient alone, and not for what it stands for: the result says whether it is
 * found, and has no recipients.  So the cost of RCPT does not grow with the aliases behind a name.
 */
struct virtual_query *virtual_find(const struct config *cfg, struct lookup *k, const char *qid,
                                   const struct rcpt *rcpt, virtual_fn fn, void *arg);
/* fn is not called any more; q may be NULL. */
void virtual_cancel(struct virtual_query *q);

#endif
