/*
 * util/idn.h - internationalised domain names: U-labels (as people write them) and A-labels (as
 * DNS, TLS and EHLO have them, "xn--…")
 *
 * IDNA as Postfix does it (UTS 46): names that IDNA2008 forbids and UTS 46 does not, such as one of
 * symbols, are converted too.  Any thread; nothing is kept.
 */
#ifndef PH_UTIL_IDN_H
#define PH_UTIL_IDN_H

#include "util/str.h"

/* Appends the domain in A-labels, in lower case; a domain in ASCII is appended as it is.  A dot at
 * its end stays.  idna2003: as enable_idna2003_compatibility (ß is written as ss).  False if it is
 * no domain name: *why (may be NULL) says so, and out is as it was. */
bool idn_to_ascii(struct str domain, bool idna2003, struct sbuf *out, const char **why);
/* The same for "[host]:port", "host:port" and "host". */
bool idn_hop_to_ascii(struct str hop, bool idna2003, struct sbuf *out, const char **why);
/* Appends a domain or a hop in ASCII with its labels as people write them; false if it has no
 * A-label, or one that stands for nothing. */
bool idn_to_unicode(struct str hop, struct sbuf *out);
/* The other spellings of a domain or hop, each appended as long as there is one: other is that of
 * A-labels, or for one in A-labels that of U-labels; plain that of U-labels where what is written
 * is an odd form of it. */
void idn_spellings(struct str hop, bool idna2003, struct sbuf *other, struct sbuf *plain);
/* Appends the one form of all texts that mean the same: in lower case, and with A-labels for the
 * domain of an address, of a hop or alone.  What is kept for longer than a configuration is in
 * the form of IDNA2008.  text may be a list of them, separated
 * by commas and blanks, which stay.  What is no domain name is in lower case only. */
void idn_plain(struct str text, bool idna2003, struct sbuf *out);
/* Have both one form? */
bool idn_same(struct str a, struct str b, bool idna2003);

#endif
