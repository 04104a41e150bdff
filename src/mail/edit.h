/*
 * mail/edit.h - what is changed in the header section of mail that comes in
 *
 * Fields that must not leave are dropped, lines of mbox files are given a field name, and addresses
 * of local mail get their domain.  Fed as the content arrives; a field of any size costs one
 * unfinished line of HEADER_LINE_MAX.  No state but the struct; any thread.
 */
#ifndef PH_MAIL_EDIT_H
#define PH_MAIL_EDIT_H

#include "util/str.h"

struct edit_rules {
    const char *drop;   /* names of fields to leave out, postconf(5) message_drop_headers */
    const char *origin; /* appended to an address without a domain, behind '@'; NULL: nothing */
    const char *domain; /* appended to a domain without a dot, behind '.'; NULL: nothing */
};

struct header_edit {
    bool begun;    /* a line of the section was seen */
    bool mbox;     /* a line of an mbox file was seen */
    bool mid_line; /* what comes next belongs to a line that was judged already */
    bool dropping; /* the field that it belongs to is left out */
    bool ended;    /* the section is over: nothing is changed any more */
    size_t due_n;  /* bytes of raw: with less, what waits for its end is not looked at again */
};

/* Moves what is decided from raw to out, where the changed section grows; what cannot be decided
 * yet stays in raw, and some bytes behind it: a field that comes in small pieces would be looked at
 * from its start with each.  last: nothing follows.  Once the section is over all of raw is moved.
 * Returns the bytes of the section that were added to out. */
size_t header_edit(struct header_edit *e, const struct edit_rules *rules, struct sbuf *raw,
                   bool last, struct sbuf *out);

#endif
