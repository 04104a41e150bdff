/*
 * web/owners.h - what of relaying who administers a domain may see and change
 *
 * Any thread; blocks on the store.
 */
#ifndef PH_WEB_OWNERS_H
#define PH_WEB_OWNERS_H

#include "accounts/browse.h"
#include "web/http.h"

/* May the administrator who asks see the Relay tab?  dom is the account's domain; user: the account
 * is one of its users. */
bool owners_tab_shown(const struct req *r, const struct account *dom, bool user);
/* May the administrator who asks have relay records for that domain?  Without a reply; a store that
 * does not answer says no. */
bool owners_may_relay(const struct req *r, const char *domain);

#endif
