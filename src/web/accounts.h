/*
 * web/accounts.h - domains and users: lists, search, the Relay tab (handlers of routes.c)
 */
#ifndef PH_WEB_ACCOUNTS_H
#define PH_WEB_ACCOUNTS_H

#include "web/http.h"

void domains_list(struct req *r);    /* GET /api/domains */
void domain_show(struct req *r);     /* GET /api/domain/{domain} */
void domain_change(struct req *r);   /* PUT /api/domain/{domain} */
void users_list(struct req *r);      /* GET /api/users/{domain} */
void users_change(struct req *r);    /* PUT /api/users/{domain} */
void user_show(struct req *r);       /* GET /api/user/{mail} */
void user_change(struct req *r);     /* PUT /api/user/{mail} */
void accounts_search(struct req *r); /* GET /api/search */
void value_check(struct req *r);     /* GET /api/validate */
void relay_effective(struct req *r); /* GET /api/effective */

/* For routes.c, before the handler of a path that names a domain, or a user: makes the name in
 * r->arg lower case, and checks it and that the administrator manages the domain.  False after a
 * reply. */
bool accounts_named(struct req *r, bool user);
/* The same before a handler that changes how the domain in r->arg relays (or the user, or all users
 * of the domain): may the administrator see the Relay tab, users: that of users?  False after a
 * reply. */
bool accounts_tab(struct req *r, bool users);
/* May the administrator who asks look at the relaying of account (user@domain, or a domain)?  False
 * after a reply. */
bool accounts_may(struct req *r, const char *account);

#endif
