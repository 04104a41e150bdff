/*
 * route/keys.h - the keys that a table is asked, in order
 *
 * Postfix's mail_addr_find(3) for senders, transport(5) for recipients; and each with the domain in
 * its other spellings, if it is internationalised.  One thread per set.
 */
#ifndef PH_ROUTE_KEYS_H
#define PH_ROUTE_KEYS_H

#include "config/params.h"
#include "maps/maps.h"

/* At most KEYS_MAX.  Zeroed is valid and empty.  The texts belong to it, and end in a NUL. */
struct keys {
    struct maps_key *v;
    size_t n, cap;
};

/* Appends prefix + a + b unless it is there already.  partial: a shortened form, not for tables of
 * patterns. */
void keys_add(struct keys *k, bool partial, const char *prefix, struct str a, struct str b);
/* The local part without its extension; empty: it has none.  As in Postfix some names are whole:
 * those that a mail system has for itself, and those of lists where a '-' may begin an extension.
 */
struct str keys_bare(const struct params *p, struct str local);
/* Whole address (as SMTP has it, then as it is), without extension, @domain.  Nothing for the null
 * sender. */
void keys_sender(struct keys *k, const struct params *p, struct str sender);
/* The same for a sender at a local domain (route/local.h): before @domain, the local part. */
void keys_local_sender(struct keys *k, const struct params *p, struct str sender);
/* Address, without extension, domain, its parents, "*". */
void keys_recipient(struct keys *k, const struct params *p, struct str rcpt);
/* access(5): a domain and its parents; nothing for an empty one. */
void keys_domain(struct keys *k, const struct params *p, struct str domain);
/* access(5): address, without extension, domain, its parents, local part with an @; "<>". */
void keys_access(struct keys *k, const struct params *p, struct str address);
/* Appends a domain or a destination in its other spelling: A-labels as people write them, or the
 * other way round (util/idn.h).  False if it has none.  Both stand for one domain, so tables are
 * asked for both, the written one first. */
bool keys_other_spelling(const struct params *p, struct str hop, struct sbuf *out);
/* Makes it empty, and gives its memory back. */
void keys_clear(struct keys *k);
/* Is the word in a list separated by commas or blanks? */
bool keys_has_word(const char *list, const char *word);

#endif
