/*
 * util/ipc.c - typed messages between the processes; see ipc.h
 *
 * Byte order is the machine's: both ends are always the same machine and build.
 */
#include "util/ipc.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/clock.h"

size_t ipc_begin(struct sbuf *b, uint32_t type, uint32_t tag) {
    size_t at = b->n;
    struct ipc_head h = {0, type, tag};
    sbuf_add(b, &h, sizeof h);
    return at;
}

void ipc_put_u32(struct sbuf *b, uint32_t v) {
    sbuf_add(b, &v, sizeof v);
}

void ipc_put_u64(struct sbuf *b, uint64_t v) {
    sbuf_add(b, &v, sizeof v);
}

void ipc_put_str(struct sbuf *b, struct str s) {
    ipc_put_u32(b, (uint32_t)s.n);
    sbuf_add(b, s.p, s.n);
}

void ipc_end(struct sbuf *b, size_t begun) {
    uint32_t len = (uint32_t)(b->n - begun - sizeof(struct ipc_head));
    memcpy(b->p + begun, &len, sizeof len);
}

static bool get_bytes(struct ipc_reader *r, void *out, size_t n) {
    if (r->bad || r->rest.n < n) {
        r->bad = true;
        memset(out, 0, n);
        return false;
    }
    memcpy(out, r->rest.p, n);
    r->rest = str_from(r->rest, n);
    return true;
}

uint32_t ipc_get_u32(struct ipc_reader *r) {
    uint32_t v;
    get_bytes(r, &v, sizeof v);
    return v;
}

uint64_t ipc_get_u64(struct ipc_reader *r) {
    uint64_t v;
    get_bytes(r, &v, sizeof v);
    return v;
}

struct str ipc_get_str(struct ipc_reader *r) {
    uint32_t n = ipc_get_u32(r);
    if (r->bad || r->rest.n < n) {
        r->bad = true;
        return STR_LIT("");
    }
    struct str s = str_make(r->rest.p, n);
    r->rest = str_from(r->rest, n);
    return s;
}

bool ipc_done(const struct ipc_reader *r) {
    return !r->bad && r->rest.n == 0;
}

int ipc_peek(struct str buf, struct ipc_head *head, struct str *fields) {
    if (buf.n < sizeof *head)
        return 0;
    memcpy(head, buf.p, sizeof *head);
    if (head->len > IPC_MAX)
        return -EPROTO;
    if (buf.n - sizeof *head < head->len)
        return 0;
    *fields = str_make(buf.p + sizeof *head, head->len);
    return 1;
}

/* Waits until fd may take more; for ever where until_ms is negative. */
static int ipc_wait(int fd, int64_t until_ms) {
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int64_t left_ms = until_ms < 0 ? -1 : until_ms - clock_mono_ms();
    if (until_ms >= 0 && left_ms <= 0)
        return -ETIMEDOUT;
    return poll(&p, 1, (int)left_ms) < 0 && errno != EINTR ? -errno : 0;
}

int ipc_send_until(int fd, struct str msg, const int *fds, size_t n_fds, int64_t until_ms) {
    union {
        char buf[CMSG_SPACE(64 * sizeof(int))];
        struct cmsghdr align;
    } ctl;
    if (n_fds > 64)
        return -EINVAL;
    int rc = 0;
    while (msg.n > 0 && rc == 0) {
        struct iovec iov = {(void *)(uintptr_t)msg.p, msg.n};
        struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
        if (n_fds > 0) {
            memset(&ctl, 0, sizeof ctl);
            mh.msg_control = ctl.buf;
            mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
            struct cmsghdr *c = CMSG_FIRSTHDR(&mh);
            c->cmsg_level = SOL_SOCKET;
            c->cmsg_type = SCM_RIGHTS;
            c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
            memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
        }
        ssize_t n = sendmsg(fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            rc = ipc_wait(fd, until_ms);
        else if (n < 0 && errno != EINTR)
            rc = -errno;
        if (n < 0)
            continue;
        n_fds = 0; /* the descriptors went with the first bytes */
        msg = str_from(msg, (size_t)n);
    }
    return rc;
}

int ipc_send(int fd, struct str msg, const int *fds, size_t n_fds) {
    return ipc_send_until(fd, msg, fds, n_fds, -1);
}

static void take_fds(struct msghdr *mh, int *fds, size_t max_fds, size_t *n_fds) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c != NULL; c = CMSG_NXTHDR(mh, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
            if (*n_fds < max_fds)
                fds[(*n_fds)++] = fd;
            else
                close(fd);
        }
    }
}

/* Reads until buf holds want bytes. */
static int recv_until(int fd, struct sbuf *buf, size_t want, int *fds, size_t max_fds,
                      size_t *n_fds) {
    union {
        char buf[CMSG_SPACE(64 * sizeof(int))];
        struct cmsghdr align;
    } ctl;
    while (buf->n < want) {
        char *at = sbuf_room(buf, want - buf->n);
        struct iovec iov = {at, want - buf->n};
        struct msghdr mh = {.msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = ctl.buf,
                            .msg_controllen = sizeof ctl.buf};
        ssize_t n = recvmsg(fd, &mh, MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EPIPE;
        take_fds(&mh, fds, max_fds, n_fds);
        sbuf_advance(buf, (size_t)n);
    }
    return 0;
}

int ipc_recv(int fd, struct sbuf *buf, struct ipc_head *head, struct str *fields, int *fds,
             size_t max_fds, size_t *n_fds) {
    size_t none = 0;
    if (n_fds == NULL)
        n_fds = &none;
    *n_fds = 0;
    sbuf_reset(buf);
    int rc = recv_until(fd, buf, sizeof *head, fds, max_fds, n_fds);
    if (rc < 0)
        return rc;
    memcpy(head, buf->p, sizeof *head);
    if (head->len > IPC_MAX)
        return -EPROTO;
    rc = recv_until(fd, buf, sizeof *head + head->len, fds, max_fds, n_fds);
    if (rc < 0)
        return rc;
    *fields = str_make(buf->p + sizeof *head, head->len);
    return 0;
}
