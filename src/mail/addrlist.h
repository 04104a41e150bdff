/*
 * mail/addrlist.h - lists of addresses as people write them (RFC 5322 section 3.4)
 *
 * For header fields and for the arguments of sendmail(1): names, comments, groups, routes and
 * missing commas are taken as Postfix takes them.  Any thread; nothing is kept.
 */
#ifndef PH_MAIL_ADDRLIST_H
#define PH_MAIL_ADDRLIST_H

#include "util/str.h"

struct addrlist_item {
    struct str addr; /* internal form (address.h); empty: "<>"; valid until fn returns */
    bool has_domain; /* there is an '@' */
    size_t at, end;  /* the bytes of the list from the first to behind the last word of it */
    size_t route;    /* the first byte of the route before it; at, if there is none */
    bool is_open;    /* it ends in a quoted string that is not closed */
};

/* Calls fn for each address of the list, in its order.  Control characters count as blanks. */
void addrlist_each(struct str list, void (*fn)(void *arg, const struct addrlist_item *item),
                   void *arg);

#endif
