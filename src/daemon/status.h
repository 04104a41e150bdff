/*
 * daemon/status.h - what systemctl status shows: whether clients are let in, and what waits
 *
 * The relay process knows how much waits, and is not listened to once it takes input from outside.
 * So it writes two numbers into a page of memory that both processes have, and the supervisor
 * believes nothing more than that they are numbers.
 */
#ifndef PH_DAEMON_STATUS_H
#define PH_DAEMON_STATUS_H

#include "schedule/schedule.h"

/* In the supervisor, before it has children.  Without systemd there are no numbers. */
void status_begin(void);
/* In the relay, before its scheduler's loop runs: the numbers are kept up to date from there. */
void status_count(struct loop *l, const struct sched *s);
/* In the supervisor: sends lines ("READY=1\n" or "") with the status.  refused: the files have a
 * configuration that was not taken. */
void status_send(const char *lines, bool serving, bool refused);
/* Sends it again when the numbers have changed, and says after how many milliseconds it is to be
 * called again; -1: not before the next status_send. */
int status_watch(void);

#endif
