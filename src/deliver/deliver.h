/*
 * deliver/deliver.h - the SMTP client: delivery sessions
 *
 * A session carries attempts to one next hop, one after the other, over a connection that it opens
 * when there is something to send and keeps for a short while.  It is made and given work by any
 * thread, lives on the loop of its struct deliver, and reports there.
 */
#ifndef PH_DELIVER_DELIVER_H
#define PH_DELIVER_DELIVER_H

#include "deliver/resolver.h"
#include "maps/query.h"
#include "route/attempt.h"

struct deliver;
struct dsess;

struct deliver_ops {
    /* This much of an attempt that comes back later is on the relay host; it is the receiver's.  On
     * the loop's thread, before result. */
    void (*taken)(struct attempt_taken *t);
    /* The attempt is over; it is the receiver's now.  On the loop's thread. */
    void (*result)(void *slot, struct attempt *a);
};

/* One per loop. */
struct deliver *deliver_new(struct loop *l, struct lookup *k, const struct config *cfg,
                            const struct deliver_ops *ops);
/* On the loop: TLS contexts are made anew from this snapshot, and names are looked up by it. */
void deliver_reload(struct deliver *d, const struct config *cfg);
/* On the loop: from now on results wait for no filter.  What was taken is so, and what would be
 * given up waits for the next start. */
void deliver_stop(struct deliver *d);
/* On the loop: the configuration of new sessions. */
struct config *deliver_config(struct deliver *d);
/* Any thread. */
struct dsess *dsess_new(struct deliver *d, void *slot);
/* Any thread: a further attempt, in order.  All attempts of a session have the same transport and
 * next hop. */
void dsess_give(struct dsess *s, struct attempt *a);
/* Any thread: attempts that are marked as recalled and not begun come back at once; those that were
 * held, and are no longer, may begin. */
void dsess_recall(struct dsess *s);
/* Any thread; only when every attempt given has come back.  Closes politely and frees. */
void dsess_release(struct dsess *s);

#endif
