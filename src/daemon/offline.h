/*
 * daemon/offline.h - the queue of a daemon that is not running
 *
 * For the posthouse command.  Blocks; one thread.  The spool is read and not changed.  What was
 * taken for that is freed when the process ends.
 */
#ifndef PH_DAEMON_OFFLINE_H
#define PH_DAEMON_OFFLINE_H

#include "config/config.h"
#include "daemon/ask.h"

/* Answers a request of the control socket that asks what there is: queue-list and queue-read, as
 * ask_daemon does.  dir: the configuration's directory.  -EAGAIN: a daemon has the spool;
 * -EOPNOTSUPP: the request is another one; other negative errno: the spool cannot be read.  *why is
 * then the caller's to free. */
int offline_ask(const char *dir, const char *request, ask_line_fn fn, void *arg, char **why);

#endif
