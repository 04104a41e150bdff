/*
 * daemon/confine_calls.h - the system calls that a confined process may make
 */
#ifndef PH_DAEMON_CONFINE_CALLS_H
#define PH_DAEMON_CONFINE_CALLS_H

enum calls {
    CALLS_FILES = 1,    /* to write, make and remove files: which ones is Landlock's part */
    CALLS_LOOPS = 2,    /* to serve: epoll, accept, waiting for signals */
    CALLS_CHILDREN = 8, /* to fork, and to change user and confinement in the child */
    CALLS_NETWORK = 4   /* sockets of the Internet families, not only those it was handed */
};

/* From here on every other system call is answered EPERM, in this thread and those it starts.
 * kinds: of enum calls. */
void confine_calls(const char *who, unsigned kinds);

#endif
