/*
 * daemon/reexec.h - a restart without systemd: the supervisor becomes the next one, by exec
 *
 * The process, its number and its lock on the queue stay, and so do the listening sockets, at which
 * clients wait meanwhile.  They are passed as systemd's store would pass them (inherit.h).  Asked
 * for over the socket restart.sock in queue_directory, by root or the daemon's own user: a
 * connection is the request, and it is answered by the supervisor after the exec.
 */
#ifndef PH_DAEMON_REEXEC_H
#define PH_DAEMON_REEXEC_H

#include "daemon/listen.h"

#define RESTART_SOCKET "restart.sock"
/* What the connection is told, as a line, when the restart is over. */
#define RESTART_DONE    "restarted"
#define RESTART_REFUSED "refused"

/* At the start: which program this is.  An upgrade puts another one in its place. */
void reexec_begin(void);
/* Takes a connection that waits at the listening socket fd, if its user may ask; -1: none. */
int reexec_asked(int fd);
/* Has the program, as it is on the disk now, look at the configuration in dir.  False, after
 * logging, if it finds errors; takes up to half a minute. */
bool reexec_try(const char *dir);
/* What the next supervisor gets. */
struct reexec {
    const char *dir;
    const struct listen_set *set;
    int lock, asker; /* -1: none */
    int bundle;      /* of the configuration in use; -1: none */
    int refused;     /* the bundle that a start has failed with; -1: none */
    bool verbose;
};
/* No child runs any more.  Returns only if there is no such program. */
void reexec_now(const struct reexec *next);
/* Tells the one who has asked, and closes that connection. */
void reexec_answer(int asker, bool refused);

#endif
