/*
 * web/crowd.h - how much one administrator of some domains may ask for at a time
 *
 * A request keeps its connection and its thread for as long as a database, a name server or the
 * daemon takes, and all share WEB_CONNECTIONS of them.  Its answer stays in memory until the client
 * has taken it: one of relay records may have megabytes, and a client may read nothing.  Any
 * thread.
 */
#ifndef PH_WEB_CROWD_H
#define PH_WEB_CROWD_H

#include <stdbool.h>
#include <stddef.h>

#define CROWD_MAX   32U
#define CROWD_FEW   2U                  /* … where the others have as many as there should be */
#define CROWD_BYTES (32U * 1024 * 1024) /* of answers, if there is more than one */
#define CROWD_SMALL 65536U              /* an answer of no more is not counted */

/* Room for one more request of that administrator?  If true, crowd_leave gives it back. */
bool crowd_enter(const char *admin);
void crowd_leave(const char *admin);
/* Room for one more answer of n bytes?  If true, crowd_taken gives it back.  Before crowd_leave. */
bool crowd_answer(const char *admin, size_t n);
void crowd_taken(const char *admin, size_t n);
/* Of what takes much memory or a database's time while it is made an administrator has one at a
 * time.  Between crowd_enter and crowd_leave. */
void crowd_turn_begin(const char *admin);
void crowd_turn_end(const char *admin);

#endif
