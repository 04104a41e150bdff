/*
 * schedule/dest.h - destinations and their sessions
 */
#ifndef PH_SCHEDULE_DEST_H
#define PH_SCHEDULE_DEST_H

#include "schedule/inside.h"

/* Where a mail with that envelope goes by that route. */
struct dest *dest_get(struct sched *s, const struct route *r, const struct envelope *e);
void dest_use(struct dest *d);
void dest_unuse(struct sched *s, struct dest *d);
/* The destination's transport; NULL: since a reload it is none that delivery sessions serve. */
const struct service *dest_service(const struct sched *s, const struct dest *d);
/* It rests no longer. */
void dest_wake(struct dest *d);
/* So does none, and limits are those of the configuration. */
void dest_wake_all(struct sched *s);
/* One session's outcome opens or narrows the window, or suspends the destination.  What came of
 * settings that a reload has replaced says nothing of the new ones. */
void dest_learn(struct sched *s, struct dest *d, const struct attempt *a);
/* A session for a mail of that sender: an idle one of the same sender; else a new one; else an idle
 * one of another sender (it logs in anew); else, with a backlog, the least loaded one.  NULL: none
 * is free, and no more are allowed. */
struct slot *dest_pick(struct sched *s, struct dest *d, struct str sender);
/* One attempt more, or less, for a session. */
void slot_reserve(struct slot *slot, struct str sender);
void slot_release(struct slot *slot);
/* It may have a session now: dest_dispatch_stirred follows. */
void dest_stir(struct sched *s, struct dest *d);
/* If a session of the transport is idle, the destination that has waited longest for one is
 * stirred. */
void load_stir(struct sched *s, struct transport_load *load);
/* Frees sessions and destinations that have been idle for long. */
void dest_tick(struct sched *s, int64_t now_ms);

#endif
