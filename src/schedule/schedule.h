/*
 * schedule/schedule.h - when, and how many at once
 *
 * One scheduler, on its own loop, owns all queued messages.  It asks the route of each recipient,
 * groups recipients by destination (transport and next hop), and hands attempts to delivery
 * sessions within the destination's concurrency.  Inside a destination every sender has its own
 * queue, served in turn by size (deficit round robin): one sender's flood delays only that sender.
 */
#ifndef PH_SCHEDULE_SCHEDULE_H
#define PH_SCHEDULE_SCHEDULE_H

#include "config/config.h"
#include "maps/query.h"
#include "route/attempt.h"
#include "schedule/tally.h"
#include "spool/spool.h"

struct sched;

struct sched_ops {
    /* A delivery session on one of the loops; slot comes back with every result. */
    void *(*session_new)(void *arg, void *slot);
    void (*session_give)(void *session, struct attempt *a);
    void (*session_release)(void *session);
    /* Attempts with the mark recalled come back at once, but for those that are on the wire. */
    void (*session_recall)(void *session);
    void *arg;
};

struct sched *sched_new(struct loop *l, struct lookup *k, struct config *cfg,
                        const struct sched_ops *ops);
/* The spool is opened after the scheduler is made: recovery fills it. */
void sched_set_spool(struct sched *s, struct spool *sp);
/* Before the loop runs: a message that the spool had, with its progress (empty: it was never
 * tried).  Takes the envelope's reference.  False if the progress cannot be read or is not the
 * envelope's: the message is not queued, for some of its recipients may have it already. */
bool sched_recover(struct sched *s, struct envelope *env, struct str progress);
/* Any thread: a new durable message; takes both references. */
void sched_add(struct sched *s, struct envelope *env, struct body *body);
/* Any thread: what is on the relay host of an attempt that a session gives back later; takes it. */
void sched_taken(struct sched *s, struct attempt_taken *t);
/* Any thread: an attempt that a session gives back. */
void sched_result(struct sched *s, void *slot, struct attempt *a);

/* The rest is called on the scheduler's loop. */

void sched_start(struct sched *s);
void sched_reload(struct sched *s, struct config *cfg);
/* What waits in a queue is routed anew, and what a session has not begun comes back if its route is
 * another one now: what it was looked up in may have changed. */
void sched_route_anew(struct sched *s);
/* True while routes of mail that a change has overtaken are asked for once more, or wait for being
 * asked for: the next change would begin these questions anew. */
bool sched_asks_again(const struct sched *s);
/* Gives nothing more to sessions, and takes back what they have not begun.  True when no message
 * waits for a relay host's answer to its whole content: call it again until then, for a while. */
bool sched_stop(struct sched *s);
/* What attempts are made with from now on. */
const struct config *sched_config(const struct sched *s);

enum sched_queue { QUEUE_ACTIVE, QUEUE_DEFERRED, QUEUE_HOLD };

struct msg;

struct sched_view {
    const struct envelope *env;
    enum sched_queue queue;
    bool forced_expire;
    bool deleted;          /* on the wire still; gone when that ends */
    bool hold_ordered;     /* on the wire still; on hold when that ends */
    const struct hop *hop; /* where it was last tried, or NULL */
    int64_t next_us;
    uint32_t attempts;
    const struct msg *msg; /* for sched_view_rcpt */
};

/* The ids of all queued messages, oldest first; caller frees. */
uint64_t *sched_ids(const struct sched *s, size_t *n);
/* False if that message is no longer queued. */
bool sched_view(const struct sched *s, uint64_t id, struct sched_view *v);
/* What recipient i of the view's message ended with the last time: *e is NULL if it was not tried
 * yet.  False if nothing is left to do for it. */
bool sched_view_rcpt(const struct sched_view *v, uint32_t i, const struct mailerr **e);
/* All deferred mail now, and all resting destinations awake again. */
size_t sched_flush(struct sched *s);
enum sched_act {
    ACT_RETRY, /* the next attempt at once */
    ACT_DELETE,
    ACT_HOLD,
    ACT_RELEASE, /* no longer on hold; the next attempt at once */
    ACT_EXPIRE,
    ACT_REQUEUE /* as a new message: neither on hold nor expired, the next attempt at once */
};
/* Which messages: all that every set member fits. */
struct sched_filter {
    const struct htab *ids; /* keys are queue IDs; NULL: any */
    unsigned queues;        /* bits 1 << enum sched_queue; 0: any */
    bool by_hop;            /* last tried at nexthop, record (struct hop's) */
    struct str nexthop, record;
    struct str sender, rcpt, reason; /* contain this, in any case; empty: any */
    bool whole;                      /* in sender and rcpt user@domain and @domain are all of it */
    struct str site;                 /* the domain of a recipient that waits; empty: any */
};
#define SCHED_ALL ((struct sched_filter){.queues = 0})
/* What an order has changed: what is on hold already is not put on hold. */
struct sched_changes {
    size_t n;
    void (*fn)(void *arg, const char *qid); /* for each message, before it may be gone; or NULL */
    void *arg;
};
/* The order, oldest messages first.  Returns how many were found; *changes (NULL: not asked for)
 * says how many were not so before. */
size_t sched_act(struct sched *s, enum sched_act act, const struct sched_filter *f,
                 struct sched_changes *changes);
/* Does the filter fit the view's message? */
bool sched_fits(const struct sched_view *v, const struct sched_filter *f);
/* Calls fn once, from the loop and never before this returns, when every order that was given by
 * now is durable (rc 0: no power cut undoes it), or could not be written (negative errno: it counts
 * as long as the process lives, and is written again until that succeeds). */
void sched_when_durable(struct sched *s, void (*fn)(void *arg, int rc), void *arg);
/* The max oldest ids above after, oldest first; how many. */
size_t sched_find(const struct sched *s, const struct sched_filter *f, uint64_t after,
                  uint64_t *ids, size_t max);
/* The oldest message's id; 0: none. */
uint64_t sched_oldest(const struct sched *s);
struct sched_reason {
    const char *text;
    size_t messages;
};
/* Why messages wait, the most frequent first; the caller frees the array only. */
struct sched_reason *sched_reasons(const struct sched *s, size_t *n);
const struct tally *sched_tally(const struct sched *s);
struct sched_stats {
    uint64_t active, deferred, hold;
    uint64_t busy;   /* recipients of what is active, or is again as soon as possible */
    bool halted;     /* nothing is sent: the disk does not take down what becomes of mail */
    uint64_t memory; /* bytes that envelopes take */
    bool crowded;    /* no new mail is taken: they take queue_memory_limit or more */
};
void sched_stats(const struct sched *s, struct sched_stats *st);

#endif
