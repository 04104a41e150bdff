/*
 * util/accept.c - listening sockets on a loop; see accept.h
 */
#include "util/accept.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "util/mem.h"
#include "util/sock.h"

/* Clients taken at a time. */
#define BATCH_MAX 64U

struct acceptor {
    uv_poll_t poll;
    int fd;
    int spare;      /* the descriptor in reserve; -1: none could be had */
    unsigned batch; /* clients to take next time: more while they come faster than the loop turns */
    const struct accept_ops *ops;
    void *arg;
};

static void acceptor_full(struct acceptor *a) {
    if (a->spare >= 0)
        close(a->spare);
    int fd = sock_accept(a->fd, NULL);
    a->ops->full(a->arg, fd < 0 ? -1 : fd);
    a->spare = fcntl(a->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        usleep(1000); /* another thread took the descriptor: not in a circle */
}

/* A single client costs no second call that finds the queue empty; a crowd is taken in batches. */
static void acceptor_ready(uv_poll_t *h, int status, int events) {
    struct acceptor *a = h->data;
    (void)status;
    (void)events;
    for (unsigned i = 0; i < a->batch; i++) {
        struct netaddr peer;
        int fd = sock_accept(a->fd, &peer);
        if (fd < 0)
            a->batch = 1;
        if (fd == -EMFILE || fd == -ENFILE)
            acceptor_full(a);
        if (fd == -EINVAL) /* the owner of the socket has shut it down */
            uv_poll_stop(h);
        if (fd < 0)
            return;
        a->ops->client(a->arg, fd, &peer);
    }
    if (a->batch < BATCH_MAX)
        a->batch *= 2;
}

struct acceptor *acceptor_new(struct loop *l, int fd, const struct accept_ops *ops, void *arg) {
    struct acceptor *a = MEM_NEW(struct acceptor);
    *a = (struct acceptor){.fd = fd, .batch = 1, .ops = ops, .arg = arg};
    if (uv_poll_init(&l->uv, &a->poll, fd) != 0) {
        free(a);
        close(fd);
        return NULL;
    }
    a->spare = fcntl(2, F_DUPFD_CLOEXEC, 0);
    sock_nodelay(fd); /* clients inherit it */
    a->poll.data = a;
    uv_poll_start(&a->poll, UV_READABLE, acceptor_ready);
    return a;
}

static void acceptor_closed(uv_handle_t *h) {
    struct acceptor *a = h->data;
    close(a->fd);
    if (a->spare >= 0)
        close(a->spare);
    free(a);
}

void acceptor_close(struct acceptor *a) {
    if (a != NULL)
        uv_close((uv_handle_t *)&a->poll, acceptor_closed);
}
