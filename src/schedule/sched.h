/*
 * schedule/sched.h - rounds of queued messages; see schedule.h for the rest
 */
#ifndef PH_SCHEDULE_SCHED_H
#define PH_SCHEDULE_SCHED_H

#include "schedule/inside.h"

/* Begins a round.  The message may be gone after this. */
void msg_activate(struct msg *m);
/* Activates what is due, for a few milliseconds; what is left comes after whatever else waits. */
void sched_run_due(struct sched *s);
/* Takes back every recipient that is not on the wire, wherever it is: an order of the
 * administrator.  The message may be gone after this; dest_dispatch_stirred ends a series. */
void msg_recall(struct msg *m);

#endif
