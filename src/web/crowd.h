/*
 * web/crowd.h - how many requests of one administrator of some domains are answered at a time
 *
 * A request keeps its connection and its thread for as long as a database, a name server or the
 * daemon takes, and all share WEB_CONNECTIONS of them.  Any thread.
 */
#ifndef PH_WEB_CROWD_H
#define PH_WEB_CROWD_H

#include <stdbool.h>

#define CROWD_MAX 32U

/* Room for one more request of that administrator?  If true, crowd_leave gives it back. */
bool crowd_enter(const char *admin);
void crowd_leave(const char *admin);

#endif
