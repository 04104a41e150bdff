/*
 * daemon/control.h - the control socket: JSON objects, one a line
 *
 * On the scheduler's loop.  A request is {"cmd": …}; the answer is any number of lines and a last
 * one with "ok".
 */
#ifndef PH_DAEMON_CONTROL_H
#define PH_DAEMON_CONTROL_H

#include "daemon/explain.h"
#include "schedule/schedule.h"
#include "spool/spool.h"

struct control;

/* Takes over the listening socket. */
struct control *control_new(struct loop *l, int fd, struct sched *s, struct spool *sp,
                            struct lookup *lookup, const struct explain_at *at);

#endif
