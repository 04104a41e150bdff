/*
 * mail/missing.h - the header fields that a message must have (RFC 5322 section 3.6)
 *
 * No state; any thread.
 */
#ifndef PH_MAIL_MISSING_H
#define PH_MAIL_MISSING_H

#include "mail/header.h"

/* What the fields are made of. */
struct missing {
    const char *qid;
    int64_t arrival_us; /* since 1970 */
    const char *host;   /* the right side of a Message-Id: */
    struct str author;  /* as From: has it; a line's end in it is followed by a blank */
};

/* Appends, each as a line, what h has not: Message-Id:, Date: and From:, or, of a message that is
 * sent again (section 3.6.6), the Resent- fields of these names.  A Message-Id: that is made is
 * h->message_id then. */
void missing_add(struct header_scan *h, const struct missing *m, struct sbuf *out);

#endif
