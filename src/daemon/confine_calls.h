/*
 * daemon/confine_calls.h - the system calls that a confined process may make
 */
#ifndef PH_DAEMON_CONFINE_CALLS_H
#define PH_DAEMON_CONFINE_CALLS_H

#include <stdbool.h>

/* From here on every other system call is answered EPERM, in this thread and those it starts.
 * network: sockets of the Internet families too, not only those it was handed and the log's. */
void confine_calls(const char *who, bool relay, bool network);

#endif
