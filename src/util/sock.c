/*
 * util/sock.c - stream sockets; see sock.h
 */
#include "util/sock.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "util/fs.h"

/* Gives up a socket after a call that failed; the error. */
static int sock_fail(int fd) {
    int err = -errno;
    close(fd);
    return err;
}

int sock_connect(const struct netaddr *to, const struct netaddr *from) {
    int fd = socket(to->u.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (fs_is_reserved(fd)) {
        close(fd);
        return -EMFILE;
    }
    if (!netaddr_is_unix(to))
        sock_nodelay(fd);
    if (from != NULL && from->u.sa.sa_family == to->u.sa.sa_family &&
        bind(fd, &from->u.sa, netaddr_len(from)) < 0)
        return sock_fail(fd);
    if (connect(fd, &to->u.sa, netaddr_len(to)) < 0 && errno != EINPROGRESS)
        return sock_fail(fd);
    return fd;
}

int sock_accept(int listener, struct netaddr *peer) {
    struct netaddr from = {0};
    socklen_t len = sizeof from.u;
    int fd = accept4(listener, &from.u.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return -errno;
    netaddr_unmap(&from);
    if (peer != NULL)
        *peer = from;
    return fd;
}

ssize_t sock_send(int fd, const void *p, size_t n) {
    ssize_t done;
    do
        done = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (done < 0 && errno == EINTR);
    return done < 0 ? -errno : done;
}

ssize_t sock_recv(int fd, void *p, size_t n) {
    ssize_t got;
    do
        got = recv(fd, p, n, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

int sock_error(int fd) {
    int err = 0;
    socklen_t len = sizeof err;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
        return -errno;
    return -err;
}

void sock_nodelay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

void sock_shut(int fd) {
    shutdown(fd, SHUT_WR);
}

void sock_close(int fd) {
    close(fd);
}
