/*
 * mail/header.h - what the relay must know of a message's header section (RFC 5322)
 *
 * Fed with the content as it arrives; notes Message-ID, counts Received:, sees what is missing and
 * where the header section ends.  No allocation but the message ID.
 */
#ifndef PH_MAIL_HEADER_H
#define PH_MAIL_HEADER_H

#include "util/str.h"

struct header_scan {
    size_t at;         /* content scanned so far */
    bool ended;        /* the end of the header section was seen */
    bool no_separator; /* it ended at a line that is no header field: a blank line is missing */
    size_t end;        /* where it ended: offset of the blank line or first body line */
    unsigned received; /* Received: fields */
    bool has_from, has_date, has_message_id, has_to;
    struct sbuf message_id; /* value of Message-ID:, trimmed */
    bool in_message_id;     /* the current field is Message-ID: (it may be folded) */
};

/* Scans the whole lines of content beyond h->at; last: nothing follows. */
void header_scan(struct header_scan *h, struct str content, bool last);
void header_scan_free(struct header_scan *h);

#endif
