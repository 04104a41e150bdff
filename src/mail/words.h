/*
 * mail/words.h - the name of a person in a header field (RFC 2047)
 *
 * Any thread; nothing is kept.
 */
#ifndef PH_MAIL_WORDS_H
#define PH_MAIL_WORDS_H

#include "util/str.h"

/* Appends name as it stands before an address.  One that is not ASCII becomes encoded words of a
 * phrase (RFC 2047 section 5), of at most 75 bytes each, with fold between them, a line's end and a
 * blank; no character of UTF-8 is parted.  Where charset, in which the name is, cannot stand in
 * such a word, the name stays as it is. */
void words_add_name(struct sbuf *out, struct str name, struct str charset, const char *fold);

#endif
