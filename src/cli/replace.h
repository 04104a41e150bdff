/*
 * cli/replace.h - posthouse setup replace-postfix: the move into Postfix's place, and back
 *
 * One thread.  See replace.c for what happens when it is killed.
 */
#ifndef PH_CLI_REPLACE_H
#define PH_CLI_REPLACE_H

#include "config/config.h"

enum replace_what { REPLACE_SAY, REPLACE_APPLY, REPLACE_UNDO };

/* dir: the configuration directory that Posthouse is to have; postfix: that of the Postfix.  Says
 * what would be done, does it, or undoes it; without_records: also where there are relay records,
 * which Postfix does not know.  The exit status: 0, 1, or 2 where posthouse check refuses
 * the configuration; what went wrong has been said. */
int replace_postfix(const char *dir, const char *postfix, enum replace_what what,
                    bool without_records);

#endif
