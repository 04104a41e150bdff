/*
 * route/aliased.h - an address as it stands in the value of an alias, made one that mail can go to
 *
 * For aliases(5) and virtual(5).  Any thread; nothing is kept.
 */
#ifndef PH_ROUTE_ALIASED_H
#define PH_ROUTE_ALIASED_H

#include "config/params.h"
#include "mail/addrlist.h"

/* Appends the item's address in its internal form, completed as Postfix's rewriting does for what
 * is local, with the extension (empty: none) behind its local part.  False: it is no address. */
bool aliased_address(const struct params *p, const struct addrlist_item *item, struct str extension,
                     struct sbuf *out);

#endif
