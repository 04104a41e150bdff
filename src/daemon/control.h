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

/* Takes over the listening sockets: fd for those who may do everything, all for every user, who may
 * list the queue and have it tried at once, as authorized_mailq_users and authorized_flush_users
 * say. */
struct control *control_new(struct loop *l, int fd, int all, struct sched *s, struct spool *sp,
                            struct lookup *lookup, const struct explain_at *at);

#endif
