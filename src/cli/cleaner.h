/*
 * cli/cleaner.h - for whom a command queues a message: copies and aliases, as the daemon finds them
 *
 * The tables are asked by a lookup process of the command's own, with the daemon's walls and
 * rights.  One thread; blocks on the tables.  One cleaner in a process, which keeps it to its end.
 */
#ifndef PH_CLI_CLEANER_H
#define PH_CLI_CLEANER_H

#include "config/config.h"
#include "transfer/transfer.h"

/* Starts the process where the configuration has copies or aliases.  Before anything is locked: a
 * command that is killed leaves no lock to it.  False: there is no room for it. */
bool cleaner_start(struct config *cfg);
/* transfer.clean, with the configuration as its arg. */
const char *cleaner_ask(void *arg, const struct transfer_drop *drop, transfer_rcpts_fn fn,
                        void *fn_arg);
void cleaner_stop(void);

#endif
