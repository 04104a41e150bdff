/*
 * cli/mimekeys.h - the lines of a message as keys, for postmap -h, -b and -m
 */
#ifndef PH_CLI_MIMEKEYS_H
#define PH_CLI_MIMEKEYS_H

#include "util/str.h"

/* Calls fn for each header field (with its continuation lines) and each line of the body, as
 * header_checks(5) and body_checks(5) see them.  mime: the header sections of parts and of messages
 * within are header sections, too. */
void mimekeys_each(struct str message, bool mime,
                   void (*fn)(void *arg, struct str key, bool in_header), void *arg);

#endif
