/*
 * daemon/inherit.h - descriptors that a supervisor has left to the next one
 *
 * They come as systemd's file descriptor store gives them back (sd_listen_fds(3): LISTEN_PID,
 * LISTEN_FDS, LISTEN_FDNAMES), or across an exec in the same way (handover.h).  One thread, the
 * supervisor's, before it has children.
 */
#ifndef PH_DAEMON_INHERIT_H
#define PH_DAEMON_INHERIT_H

#include <stdbool.h>

/* What a descriptor is, as its name says. */
#define INHERIT_LISTENER "smtpd"         /* a listening socket of services */
#define INHERIT_CONFIG   "configuration" /* the bundle that was in use: handover.h */
#define INHERIT_REFUSED  "refused"       /* the bundle with which the last start failed */

#define INHERIT_LOCK  "lock"  /* master.pid, locked; from an exec only */
#define INHERIT_ASKER "asker" /* who has asked for the restart; the same */

/* The first descriptor that is passed: sd_listen_fds(3). */
#define INHERIT_FIRST 3

/* Takes what was passed to this process and marks it close-on-exec; the environment does not name
 * it any more. */
void inherit_begin(void);
/* One of that name, which belongs to the caller from now on; -1: there is none. */
int inherit_take(const char *name);
/* Closes what was not taken. */
void inherit_end(void);

#endif
