/*
 * web/changing.h - changes of one domain's accounts, one after the other
 *
 * What was read of an account is what is changed.  Changes of other domains go on meanwhile: a
 * change of all users of a domain may take as long as there are users.
 */
#ifndef PH_WEB_CHANGING_H
#define PH_WEB_CHANGING_H

#include "util/list.h"
#include "web/http.h"

struct changing {
    struct dl link;
    const char *domain; /* in lower case */
    bool users;         /* all of the domain's users are changed */
};

/* Waits until it is c's turn; c, with its domain, stays where it is until changing_end.  False
 * after a reply, with nothing to end: all users of the domain are being changed already, which one
 * change at a time may wait for. */
bool changing_begin(struct req *r, struct changing *c);
void changing_end(struct changing *c);

#endif
