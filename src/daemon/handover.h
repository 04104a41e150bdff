/*
 * daemon/handover.h - what a supervisor leaves to the next one: listening sockets, and the
 * configuration that was in use
 *
 * Systemd keeps both in its file descriptor store while the service is restarted, so clients wait
 * in the sockets' queues.  A restart cannot be refused as a reload is: systemd stops the daemon
 * first.  So a start that fails leaves the files that it failed with, and a start that finds the
 * same ones goes on with the configuration that was in use before.  The supervisor's, on its one
 * thread.
 */
#ifndef PH_DAEMON_HANDOVER_H
#define PH_DAEMON_HANDOVER_H

#include "daemon/listen.h"

/* At the start, once: set gets the listening sockets of before, and the result is the configuration
 * of before, as a reference of the caller's, if the last start failed with the files that are in
 * dir now; NULL: begin with those.  dir and set are kept.  From now on, unless handover_begun is
 * called, the process's exit is that of a start that has failed. */
struct config *handover_begin(const char *dir, bool verbose, struct listen_set *set);
/* Until handover_begun: has a supervisor before left sockets or a configuration? */
bool handover_left(void);
/* The locked master.pid; -1: none was left. */
int handover_lock(void);
/* Another one, which is kept for the next supervisor; one that was left is closed. */
void handover_set_lock(int fd);
/* In a child: what is left to the next supervisor is none of its descriptors, and its exit is that
 * of no start. */
void handover_forget(void);
/* The start is over, or it is stopped by order. */
void handover_begun(void);
/* Becomes the next supervisor by exec, when no child runs any more; asker waits for its answer.
 * Returns only if there is no such program. */
void handover_restart(const struct config *cfg, int asker);
/* Puts the sockets of set and the configuration in use into systemd's store, in the place of what
 * was put there before.  Without systemd nothing happens. */
void handover_leave(const struct listen_set *set, const struct config *cfg);

#endif
