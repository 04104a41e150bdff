/*
 * receive/commands.h - the SMTP commands of a session (RFC 5321)
 *
 * The loop's thread.
 */
#ifndef PH_RECEIVE_COMMANDS_H
#define PH_RECEIVE_COMMANDS_H

#include "receive/session.h"

/* Runs a command line, without its line end. */
enum cmd command_line(struct session *s, struct str line);

#endif
