/*
 * daemon/foreign.h - mail that Postfix still has, where Posthouse takes its place
 */
#ifndef PH_DAEMON_FOREIGN_H
#define PH_DAEMON_FOREIGN_H

#include "config/config.h"

/* Warns of messages in Postfix's queue, if main.cf names that queue: they are not delivered while
 * Posthouse runs in its place. */
void foreign_check(const struct config *cfg, struct diags *d);

#endif
