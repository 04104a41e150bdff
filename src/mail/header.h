/*
 * mail/header.h - what the relay must know of a message's header section (RFC 5322)
 *
 * Fed with the content as it arrives; notes Message-ID, counts Received:, sees what is missing and
 * where the header section ends.  The caller may give up content that has been scanned, so a
 * section of any size costs one unfinished line.  No allocation but the message ID.  Any thread.
 */
#ifndef PH_MAIL_HEADER_H
#define PH_MAIL_HEADER_H

#include "util/str.h"

/* A line that is longer is judged by its beginning. */
#define HEADER_LINE_MAX 65536U
/* How much of a Message-ID is kept. */
#define HEADER_ID_MAX 900U

struct header_scan {
    size_t at;         /* bytes of content scanned so far, without what was dropped */
    bool begun;        /* a line was seen */
    bool mid_line;     /* what comes next belongs to a line that was judged already */
    bool ended;        /* the end of the header section was seen */
    bool no_separator; /* it ended at a line that is no header field: a blank line is missing */
    size_t end;        /* where it ended: offset of the blank line or first body line */
    unsigned received; /* Received: fields */
    bool has_from, has_date, has_message_id, has_to;
    bool is_utf8; /* a field is not in ASCII */
    bool resent;  /* there is a Resent- field (RFC 5322 section 3.6.6) */
    bool has_resent_from, has_resent_date, has_resent_id;
    unsigned tls_optional; /* fields "TLS-Required: no" (RFC 8689 section 5) */
    enum {
        TLS_FIELD_NONE,
        TLS_FIELD_EMPTY,
        TLS_FIELD_NO,
        TLS_FIELD_OTHER
    } tls_field; /* what the current field says, if it is TLS-Required: (it may be folded) */
    struct sbuf message_id; /* value of Message-ID:, trimmed, at most HEADER_ID_MAX bytes */
    bool in_message_id;     /* the current field is Message-ID: (it may be folded) */
};

/* The name of the field that line begins with, without the blanks before its colon (RFC 5322
 * section 4.5); empty: line is no beginning of a field. */
struct str header_field_name(struct str line);
/* Is line, or what begins with it, one that begins a message in an mbox file: "From " with any
 * number of '>' before it? */
bool header_is_mbox_line(struct str line);
/* The content begins with n bytes of a Received: field of our own.  What the client sent begins
 * behind it: its first line continues no field, even when that line begins with a blank. */
void header_skip_received(struct header_scan *h, size_t n);
/* Scans the whole lines of content beyond h->at; last: nothing follows.  An unfinished line that is
 * shorter than HEADER_LINE_MAX is left until more is there. */
void header_scan(struct header_scan *h, struct str content, bool last);
/* The first n bytes of content, h->at at most, are not in what will be scanned next. */
void header_drop(struct header_scan *h, size_t n);
void header_scan_free(struct header_scan *h);

#endif
