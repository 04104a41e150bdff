/*
 * smtp/withhold.h - texts of a peer that repeat what was sent at login
 *
 * A relay host may answer a login with a copy of it, and that answer goes into the log, the queue
 * listing, reports and tests.  What was sent is remembered by marks (keyed hashes of its parts),
 * never as it is, so the password itself does not stay in memory.  One thread at a time; zeroed is
 * valid and matches nothing.
 */
#ifndef PH_SMTP_WITHHOLD_H
#define PH_SMTP_WITHHOLD_H

#include "util/kset.h"

struct withhold {
    uint64_t key;      /* of the hashes; 0: nothing was added yet */
    struct kset marks; /* its hashes are the marks; its objects say nothing */
    unsigned lengths; /* bit i: there are marks of texts of i bytes; WITHHOLD_PART is the highest */
};

/* Adds a text as it was sent.  Any WITHHOLD_PART bytes of it in a row are recognised, in any case
 * and with blanks between; of a shorter one, all of it: inside other text too if it has
 * WITHHOLD_WHOLE bytes, else as a word. */
#define WITHHOLD_PART  8U
#define WITHHOLD_WHOLE 4U
void withhold_add(struct withhold *w, struct str sent);
/* Adds a password: as it is, and as it looks inside base64 whatever stands before it. */
void withhold_add_password(struct withhold *w, struct str password);
/* Does text repeat a part of anything that was added? */
bool withhold_matches(const struct withhold *w, struct str text);
void withhold_clear(struct withhold *w);

#endif
