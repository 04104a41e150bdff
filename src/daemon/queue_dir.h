/*
 * daemon/queue_dir.h - queue_directory, as the supervisor enters it at the start
 *
 * The folder is mail_owner's, so what is opened in it here is never followed to anywhere else, nor
 * believed.  Each function but one says what is wrong, on standard error or in the log, and exits
 * then.
 */
#ifndef PH_DAEMON_QUEUE_DIR_H
#define PH_DAEMON_QUEUE_DIR_H

#include "config/config.h"

/* The current directory is queue_directory, made if need be and mail_owner's: everything in it is
 * opened relative to it. */
void queue_enter(const struct config *cfg);
/* One daemon a queue: the lock on master.pid is held as long as the supervisor lives, that on log/
 * as long as the relay process does. */
void queue_lock(const struct config *cfg);
/* Before a restart by exec: can the next supervisor do that, too?  If not, the log says why. */
bool queue_may_restart(const struct config *cfg);
/* A move of mail that has not ended (transfer/transfer.h) ends the start: a message that was sent
 * now could be taken over once more. */
void queue_refuse_half_moved(void);

#endif
