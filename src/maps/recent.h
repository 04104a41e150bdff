/*
 * maps/recent.h - answers of databases that are less than a second old
 *
 * A burst of mail from one sender asks the same questions again and again.  A question that is
 * being asked already waits for that answer, and for a moment the answer is given again.  Errors
 * are not kept, nor is what there is no room for: who asks chooses questions, and who makes aliases
 * the size of answers.  Any thread.
 */
#ifndef PH_MAPS_RECENT_H
#define PH_MAPS_RECENT_H

#include "util/queue.h"
#include "util/str.h"

/* How old an answer may be, from when it was asked: a change counts a second later at most. */
#define RECENT_MS 950
/* Bytes of all answers that are kept. */
#define RECENT_BYTES (16U << 20)

struct recent;

enum recent_rc {
    RECENT_KNOWN,  /* the answer was appended */
    RECENT_JOINED, /* t comes back with that answer, from recent_done */
    RECENT_ASK,    /* ask, and call recent_done */
    RECENT_ALONE   /* ask only: what is being asked already was asked before recent_clear */
};

struct recent *recent_new(void);
enum recent_rc recent_find(struct recent *r, struct str question, struct task *t,
                           struct sbuf *answer);
/* Without asking and joining: appends an answer that is fresh; puts one that was asked for at
 * asked_ms (monotonic); forgets all, also what is being asked now. */
bool recent_get(struct recent *r, struct str question, struct sbuf *answer);
void recent_put(struct recent *r, struct str question, struct str answer, int64_t asked_ms);
void recent_clear(struct recent *r);
/* The tasks that joined, linked by next; good: the answer may be given again. */
struct task *recent_done(struct recent *r, struct str question, struct str answer, bool good);

#endif
