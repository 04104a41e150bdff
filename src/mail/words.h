/*
 * mail/words.h - a name of a person that is not ASCII, in a header field (RFC 2047)
 *
 * Any thread; nothing is kept.
 */
#ifndef PH_MAIL_WORDS_H
#define PH_MAIL_WORDS_H

#include "util/str.h"

/* Can charset stand in an encoded word?  It has letters, digits, '-', '_', '.' and '+' alone, one
 * to forty of them. */
bool words_charset_ok(struct str charset);
/* Appends name as encoded words of a phrase (RFC 2047 section 5), of at most 75 bytes each, "\n\t"
 * between them, in that charset, which words_charset_ok.  No character of UTF-8 is parted. */
void words_add(struct sbuf *out, struct str name, struct str charset);

#endif
