/*
 * web/token.h - the scopes of bearer tokens (the rest is in session.h)
 */
#ifndef PH_WEB_TOKEN_H
#define PH_WEB_TOKEN_H

#include "util/str.h"

/* The bit of one scope's name (enum scope); 0: there is no such scope. */
unsigned scope_named(struct str name);
/* enum scope's bits of a list such as "read, queue"; unknown words count for nothing. */
unsigned token_scopes(const char *list);

#endif
