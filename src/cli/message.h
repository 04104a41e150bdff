/*
 * cli/message.h - one queued message, printed as postcat(1) does
 */
#ifndef PH_CLI_MESSAGE_H
#define PH_CLI_MESSAGE_H

#include "cli/cli.h"

/* What of it is printed. */
enum {
    SHOW_ENVELOPE = 1,
    SHOW_HEADER = 2,
    SHOW_BODY = 4,
    SHOW_TYPES = 8,   /* of each line */
    SHOW_REASONS = 16 /* why it waits, and what that means */
};

/* Prints the message, from the daemon.  0; else an exit status, after saying why in the name of
 * who. */
int message_show(const char *who, const struct config *cfg, const char *qid, unsigned what);

#endif
