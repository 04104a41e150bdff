/*
 * web/token.h - the scopes of bearer tokens (the rest is in session.h)
 */
#ifndef PH_WEB_TOKEN_H
#define PH_WEB_TOKEN_H

/* enum scope's bits of a list such as "read, queue"; unknown words count for nothing. */
unsigned token_scopes(const char *list);

#endif
