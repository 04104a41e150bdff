/*
 * cli/listing.h - messages of the queue as the commands list them
 *
 * One thread.  Functions that take a json_t with "stolen" in their comment free it.
 */
#ifndef PH_CLI_LISTING_H
#define PH_CLI_LISTING_H

#include <jansson.h>

#include "cli/cli.h"

/* The member of a message, or "". */
const char *listing_text(json_t *msg, const char *name);
/* Asks for the messages that fit filter (members of a queue-list request, stolen; NULL: all),
 * oldest first.  0 with *msgs, an array of the caller's; else an exit status, after saying why. */
int listing_fetch(const char *who, const struct config *cfg, json_t *filter, json_t **msgs);
/* Prints messages as postqueue -p does. */
void listing_print(const struct config *cfg, json_t *msgs);
/* Prints messages as postqueue -j does. */
void listing_print_json(json_t *msgs);
/* Prints messages as postqueue -j does, as they come; an exit status.  filter: as above. */
int listing_stream(const char *who, const struct config *cfg, json_t *filter);
/* All of the queue as postqueue -p prints it; an exit status. */
int listing_run(const char *who, const struct config *cfg);

#endif
