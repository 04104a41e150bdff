/*
 * schedule/wait.h - waiting until orders are durable; see schedule.h for the rest
 */
#ifndef PH_SCHEDULE_WAIT_H
#define PH_SCHEDULE_WAIT_H

#include "schedule/inside.h"

/* Orders that were owed for the message are noted now, or it ends. */
void msg_orders_noted(struct msg *m);

#endif
