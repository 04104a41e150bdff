/*
 * schedule/timers.h - when the next attempt is due
 */
#ifndef PH_SCHEDULE_TIMERS_H
#define PH_SCHEDULE_TIMERS_H

#include "schedule/inside.h"

/* Since when what is to be tried at once has been due: since_us, unless that is still to come. */
int64_t due_since(int64_t since_us, int64_t now_us);
void heap_put(struct sched *s, struct msg *m);
void heap_del(struct sched *s, struct msg *m);
/* When the clock was set, what waits goes on waiting as long as it would have, and nothing is older
 * or younger for it.  Called before anything is judged by its age. */
void sched_watch_clock(struct sched *s);

#endif
