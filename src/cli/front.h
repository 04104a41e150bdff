/*
 * cli/front.h - the Postfix of this machine, and other programs that a setup runs
 *
 * One thread; each function waits for what it has started.  The caller owns everything.
 */
#ifndef PH_CLI_FRONT_H
#define PH_CLI_FRONT_H

#include "config/config.h"
#include "util/net.h"

#define FRONT_STATUS_MS 10000  /* it says at once what it knows */
#define FRONT_RELOAD_MS 300000 /* it goes through all of the active queue */
#define FRONT_TIMED_OUT 256    /* no exit status */

/* Runs argv[0], which is looked for in PATH unless it is a path, in a process group of its own. Its
 * exit status; 127: it could not be run, which has been said; FRONT_TIMED_OUT: it was killed after
 * limit_ms milliseconds, which has been said, too.  quiet: what it says is not shown. */
int front_run(char *const *argv, int limit_ms, bool quiet);
/* Postfix's queue_directory; front: Postfix's configuration as Posthouse reads it (its
 * queue_directory is Posthouse's own), or NULL: none can be read.  The caller frees. */
char *front_queue(const struct config *front);
/* The path of Postfix's own postfix(1) by the configuration front.  The caller frees. */
char *front_program(const struct config *front);
/* Is that this program, under another name, as the package posthouse-mta has it?  No Postfix is
 * here then. */
bool front_is_ours(const struct config *front);
/* Runs that with the configuration and one word; as front_run.  What "status" says is not shown. */
int front_postfix(const struct config *front, const char *word, int limit_ms);
/* Does that Postfix run?  FRONT_UNKNOWN: "status" gives no answer, or says that it does not run
 * while its lock is held.  Where there is no such program, the lock says it. */
enum front_state { FRONT_UNKNOWN, FRONT_RUNS, FRONT_RESTS };
/* What is said of FRONT_UNKNOWN. */
#define FRONT_UNKNOWN_SAYS                                                                         \
    "whether that Postfix runs is not known: postfix status gives no answer, or the lock of its "  \
    "queue is held by another program"
enum front_state front_state(const struct config *front);
/* Does an SMTP server at addr say 220 within wait_ms milliseconds? */
bool front_greets(const struct netaddr *addr, int wait_ms);
/* Does a server let clients in at addr, also one that waits until they speak? */
bool front_listens(const struct netaddr *addr, int wait_ms);

#endif
