/*
 * cli/orders.h - orders about queued messages
 */
#ifndef PH_CLI_ORDERS_H
#define PH_CLI_ORDERS_H

#include <jansson.h>

#include "cli/cli.h"

#define IDS_AT_ONCE 500U /* in a request, which is one line of at most 64 KB */

/* Queue IDs; texts and array are the caller's to free with idlist_free. */
struct idlist {
    char **v;
    size_t n;
};

/* Is it what a queue ID can be? */
bool idlist_valid(const char *id);
/* Adds id, or for "-" each line of standard input.  What is no queue ID is warned of in the name of
 * who, and left out; false if there was any, or if standard input cannot be read. */
bool idlist_add(struct idlist *l, const char *who, const char *id);
/* An array of those of a request: IDS_AT_ONCE from the one at from on, or what there is. */
json_t *idlist_some(const struct idlist *l, size_t from);
void idlist_free(struct idlist *l);

struct order_result {
    long changed; /* messages */
    long matched; /* messages that the order was for */
};

/* Gives the daemon an order (a command of the control socket) for the messages in ids, or for all
 * (ids NULL), as far as they fit filter (members of a request, or NULL).  Adds to *res.  fn, if it
 * is not NULL, is called with the ID of each message that was named and changed.  An exit status,
 * after saying what went wrong. */
int order_give(const char *who, const struct config *cfg, const char *cmd, const struct idlist *ids,
               json_t *filter, void (*fn)(void *arg, const char *qid), void *arg,
               struct order_result *res);

#endif
