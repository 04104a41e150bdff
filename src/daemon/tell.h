/*
 * daemon/tell.h - what a child of the supervisor tells it: that it is ready, or why it is not
 *
 * In the child, before it has taken its first byte of input; blocks for as long as the supervisor
 * does not read.
 */
#ifndef PH_DAEMON_TELL_H
#define PH_DAEMON_TELL_H

/* From now on the child's fatal log lines go to the supervisor over its channel sup, which logs
 * them and, at the start, prints them. */
void tell_fatal_to(int sup);
/* The child does its work from now on; its fatal lines go to the log. */
void tell_ready(int sup);

#endif
