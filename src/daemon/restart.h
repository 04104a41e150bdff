/*
 * daemon/restart.h - what a reload would change and only a restart does
 */
#ifndef PH_DAEMON_RESTART_H
#define PH_DAEMON_RESTART_H

#include "daemon/daemon.h"

/* Warns in the log of each parameter that has another value in now than in begun, the configuration
 * that the daemon was started with, and that a reload does not take up. */
void restart_say(const struct config *begun, const struct config *now);
/* Those parameters have the values of begun in now, too: a child that is started again goes on with
 * them.  Before now is in use. */
void restart_freeze(const struct config *begun, struct config *now);
/* Errors of a configuration that are errors only because the one in use is another: what looks like
 * a file that is being written. */
void restart_check(const struct config *now, const struct config *next, struct diags *d);

#endif
