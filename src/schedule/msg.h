/*
 * schedule/msg.h - a queued message as an object
 */
#ifndef PH_SCHEDULE_MSG_H
#define PH_SCHEDULE_MSG_H

#include "schedule/inside.h"

/* Takes both references; body may be NULL: it is in the spool only. */
struct msg *msg_new(struct sched *s, struct envelope *env, struct body *body);
void msg_free(struct msg *m);
void msg_set_queue(struct msg *m, enum sched_queue q);
/* Is it in a round, or about to be? */
void msg_set_busy(struct msg *m, bool busy);
/* Is the next change to wait for it? */
void msg_set_again(struct msg *m, bool again);
void msg_set_hop(struct msg *m, struct hop *hop);

#endif
