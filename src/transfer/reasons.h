/*
 * transfer/reasons.h - why recipients wait, as Postfix notes it beside a queue file
 *
 * The files of its folders defer and bounce: a row of lines for each attempt at a recipient, an
 * empty line behind each.  No state; any thread.
 */
#ifndef PH_TRANSFER_REASONS_H
#define PH_TRANSFER_REASONS_H

#include "mail/envelope.h"

struct reasons_entry {
    struct str addr; /* external form */
    struct rcpt_error err;
};

/* The next entry, in the rest of a file, that names its recipient; false: there is none. */
bool reasons_next(struct str *rest, struct reasons_entry *e);
/* Notes in p, which has done and n, what file says last of each recipient that waits.  p keeps
 * views into file. */
void reasons_note(struct progress *p, const struct envelope *env, struct str file);
/* file is one of the folder bounce: its recipients, which are marked as done, have failed, and the
 * sender was not told.  They wait again: what fails once more is reported. */
void reasons_revive(struct progress *p, const struct envelope *env, struct str file);
/* Appends such a file; offsets: of the recipients' records in the queue file. */
void reasons_write(struct sbuf *out, const struct envelope *env, const struct progress *p,
                   const uint64_t *offsets);

#endif
