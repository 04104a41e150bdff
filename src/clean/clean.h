/*
 * clean/clean.h - from the recipients that a message came with to those that it is queued for
 *
 * As Postfix's cleanup(8): copies (sender_bcc_maps, recipient_bcc_maps, always_bcc), then what all
 * of them stand for by virtual(5).  The thread of the loop of its struct lookup.
 */
#ifndef PH_CLEAN_CLEAN_H
#define PH_CLEAN_CLEAN_H

#include "clean/virtual.h"

struct clean_ask {
    const struct config *cfg;
    const struct params *p; /* of the service that takes the mail */
    struct lookup *lookup;
    const char *qid; /* for the log */
    struct str sender;
    const struct rcpt *rcpts;
    uint32_t n;
};

struct clean_query;

/* Is the message queued for the recipients that it came with? */
bool clean_is_idle(const struct config *cfg, const struct params *p);
/* The texts of ask, and its recipients, stay until fn is called or clean_cancel.  fn is called
 * once, from the loop, never before this returns; the result is valid until fn returns. */
struct clean_query *clean_begin(const struct clean_ask *ask, virtual_fn fn, void *arg);
/* fn is not called any more; q may be NULL. */
void clean_cancel(struct clean_query *q);

#endif
