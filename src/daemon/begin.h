/*
 * daemon/begin.h - the start as a terminal sees it: errors, then the prompt
 *
 * A daemon that goes to the background keeps its standard error connected to the process that was
 * started, which ends only when the daemon serves (status 0) or has given up (the daemon's status).
 * The supervisor's one thread.
 */
#ifndef PH_DAEMON_BEGIN_H
#define PH_DAEMON_BEGIN_H

/* Goes to the background.  Returns in the daemon only; what it writes to standard error is printed
 * by the process that was started. */
void begin_in_background(void);
/* From now on fatal lines are printed, too; until begin_done. */
void begin_print_fatal(void);
/* The daemon serves: the terminal is given back. */
void begin_done(void);

#endif
