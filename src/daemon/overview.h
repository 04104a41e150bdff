/*
 * daemon/overview.h - the queue, relay hosts and senders as lines of JSON, for the control socket
 *
 * On the scheduler's loop.  Everything that was counted is the scheduler's (schedule/tally.h).
 */
#ifndef PH_DAEMON_OVERVIEW_H
#define PH_DAEMON_OVERVIEW_H

#include <jansson.h>

#include "schedule/schedule.h"

/* Appends one message: postqueue -j's members, then ours. */
void overview_message(struct sbuf *b, const struct sched_view *v);
/* A message that is shown piece by piece: it may have a million recipients. */
struct overview_line {
    bool open;        /* some of it is still to be shown */
    uint32_t rcpt;    /* the next one to be looked at */
    bool begun;       /* one was shown */
    struct sbuf tail; /* what stands behind the recipients, as it was at the beginning */
};
/* Begins one; then appends some dozen kilobytes of it, at a time.  v NULL: there is no such message
 * any more, and the line ends. */
void overview_begin(struct sbuf *b, const struct sched_view *v, struct overview_line *line);
void overview_go_on(struct sbuf *b, const struct sched_view *v, struct overview_line *line);
/* The same of a message that this version cannot read, with the reason; env may be NULL. */
void overview_unreadable(struct sbuf *b, struct str qid, uint64_t id, const struct envelope *env);
/* Appends all that is known of a message but its content and what became of it, as one line. */
void overview_envelope(struct sbuf *b, const struct sched_view *v);
/* Appends totals, the oldest message, the queues' lengths. */
void overview_stats(struct sbuf *b, const struct sched *s, struct spool *sp);
/* Appends a line for each relay host; direct delivery has an empty nexthop. */
void overview_relays(struct sbuf *b, const struct sched *s, int64_t now_ms);
/* Appends a line for each of the max busiest senders. */
void overview_senders(struct sbuf *b, const struct sched *s, size_t max);

/* Appends the queue's lengths with the relay hosts and the reasons that mail waits for, as one
 * line. */
void overview_counts(struct sbuf *b, const struct sched *s, size_t max);

/* The first of a request's conditions that is none (of another type, a queue that does not exist, a
 * member that nothing reads), or NULL. */
const char *overview_filter_wrong(json_t *req);
/* What a request asks for: "queue", "queues" (an array), "relay" (with "record"), "sender",
 * "recipient", "reason", "site" (the domain of a recipient), "ids" (an array of queue IDs) or "id"
 * (one, or ALL).  The texts stay req's.  False: it names no message
 * at all. */
bool overview_filter(json_t *req, struct sched_filter *f, struct htab *ids);

#endif
