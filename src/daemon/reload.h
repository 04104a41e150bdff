/*
 * daemon/reload.h - being asked for a reload: the socket reload.sock in queue_directory
 *
 * A connection is the request; nothing is read from the connection.  The kernel says who connected,
 * so no process has to believe a number in a file.  Served by the supervisor, which has one thread.
 */
#ifndef PH_DAEMON_RELOAD_H
#define PH_DAEMON_RELOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"

#define RELOAD_SOCKET "reload.sock"
/* What the connection is told, as a line, when the reload is over. */
#define RELOAD_DONE    "reloaded"
#define RELOAD_REFUSED "refused"

/* The group that may connect besides root: web_owner's; -1: there is none. */
int64_t reload_group(const struct config *cfg);

/* Milliseconds until reload_serve may be called again; 0: now. */
int reload_wait_ms(void);
/* Takes the connections that wait at the listening socket fd, calls reload (true: the new
 * configuration is in use) once for all of them if one of their users may ask (root, ourselves,
 * web_owner), and answers. */
void reload_serve(int fd, const struct config *cfg, bool (*reload)(void));

#endif
