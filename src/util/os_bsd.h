/*
 * util/os_bsd.h - what FreeBSD and OpenBSD do alike; included by os_freebsd.c and os_openbsd.c
 * alone
 */
#ifndef PH_UTIL_OS_BSD_H
#define PH_UTIL_OS_BSD_H

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "util/os.h"

#define ZEROS_AT_ONCE 65536U

int os_peer_uid(int fd, uid_t *uid) {
    gid_t gid;
    return getpeereid(fd, uid, &gid) < 0 ? -errno : 0;
}

void os_title(const char *name) {
    setproctitle("-%s", name);
}

/* There is no right to read everything apart from being root: tables must be readable for the user.
 */
int os_become(uid_t uid, gid_t gid, bool keep_read) {
    (void)keep_read;
    return setgroups(1, &gid) < 0 || setgid(gid) < 0 || setuid(uid) < 0 ? -1 : 0;
}

int os_root_keeps_files(void) {
    return -ENOSYS;
}

/* Signals are written to a pipe by their handlers. */
static int signal_pipe[2] = {-1, -1};

static void signal_write(int number) {
    int kept = errno;
    unsigned char c = (unsigned char)number;
    (void)!write(signal_pipe[1], &c, 1);
    errno = kept;
}

int os_signals_open(const sigset_t *mask) {
    struct sigaction act = {.sa_handler = signal_write, .sa_flags = SA_RESTART};
    if (pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    act.sa_mask = *mask;
    for (int number = 1; number < NSIG; number++)
        if (sigismember(mask, number) == 1 && sigaction(number, &act, NULL) < 0)
            return -errno;
    return sigprocmask(SIG_UNBLOCK, mask, NULL) < 0 ? -errno : signal_pipe[0];
}

int os_signals_next(int fd) {
    unsigned char c;
    return read(fd, &c, 1) == 1 ? c : 0;
}

int os_wake_open(int *to) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    *to = ends[1];
    return ends[0];
}

void os_wake_clear(int fd) {
    char bytes[256];
    while (read(fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes) {
    }
}

void os_wake_send(int to) {
    (void)!write(to, "", 1); /* fails where the pipe is full: it can be read */
}

/* For a file system that cannot be asked for space: it is written to. */
static int allocate_by_writing(int fd, uint64_t size) {
    static const char zeros[ZEROS_AT_ONCE];
    off_t at = lseek(fd, 0, SEEK_END);
    while (at >= 0 && (uint64_t)at < size) {
        uint64_t left = size - (uint64_t)at;
        ssize_t n = pwrite(fd, zeros, left < sizeof zeros ? (size_t)left : sizeof zeros, at);
        if (n < 0 && errno != EINTR)
            return -errno;
        at += n < 0 ? 0 : n;
    }
    return at < 0 ? -errno : 0;
}

bool os_random(void *p, size_t n, bool wait) {
    (void)wait; /* both systems have chance before they have processes */
    return getentropy(p, n) == 0;
}

#endif
