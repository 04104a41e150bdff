/*
 * schedule/dispatch.h - jobs go to sessions, and results come back
 */
#ifndef PH_SCHEDULE_DISPATCH_H
#define PH_SCHEDULE_DISPATCH_H

#include "schedule/inside.h"

/* Gives what is queued there to sessions, as many as are allowed now; what cannot go is deferred or
 * routed anew.  Messages may be gone after any of these. */
void dest_dispatch(struct sched *s, struct dest *d);
/* The same where an order has made a session free. */
void dest_dispatch_stirred(struct sched *s);
/* What is queued anywhere is routed anew. */
void dest_route_all_anew(struct sched *s);
/* What is on the relay host counts as sent at once; the attempt comes back later. */
void dest_taken(const struct attempt_taken *t);
/* An attempt is back. */
void dest_result(struct sched *s, struct slot *slot, struct attempt *a);
/* Also what a rate delay held back goes. */
void dispatch_tick(struct sched *s, int64_t now_ms);

#endif
