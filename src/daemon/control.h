/*
 * daemon/control.h - the control socket: JSON objects, one a line
 *
 * On the scheduler's loop.  A request is {"cmd": …}; the answer is any number of lines and a last
 * one with "ok".
 */
#ifndef PH_DAEMON_CONTROL_H
#define PH_DAEMON_CONTROL_H

#include <stdatomic.h>

#include "daemon/explain.h"
#include "daemon/unreadable.h"
#include "schedule/schedule.h"
#include "spool/spool.h"

struct control;

/* Its sockets come with control_listen.  reloads: how many the whole process has taken up; it is
 * read as long as c lives. */
struct control *control_new(struct loop *l, struct sched *s, struct spool *sp,
                            struct lookup *lookup, const struct unreadable_list *kept,
                            const struct explain_at *at, const atomic_ulong *reloads);
/* Takes over the listening socket fd.  all: it is for every user, who may list the queue and have
 * it tried at once, as authorized_mailq_users and authorized_flush_users say; else for those who
 * may do everything. */
void control_listen(struct control *c, int fd, bool all);
/* Closes the listening sockets; requests in progress go on. */
void control_deaf(struct control *c);

#endif
