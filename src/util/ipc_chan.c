/*
 * util/ipc_chan.c - a message channel on an event loop; see ipc_chan.h
 */
#include "util/ipc_chan.h"

#include <fcntl.h>
#include <stdlib.h>

#include "util/mem.h"

struct ipc_chan {
    struct conn *conn;
    const struct ipc_chan_ops *ops;
    void *arg;
};

static size_t chan_on_input(void *arg, const char *p, size_t n) {
    struct ipc_chan *c = arg;
    struct ipc_head head;
    struct str fields;
    int rc = ipc_peek(str_make(p, n), &head, &fields);
    if (rc < 0)
        c->ops->closed(c->arg);
    if (rc <= 0)
        return 0;
    c->ops->message(c->arg, &head, fields);
    mem_wipe((char *)(uintptr_t)p, sizeof head + head.len); /* answers may be passwords */
    return sizeof head + head.len;
}

static void chan_on_event(void *arg, enum conn_event ev) {
    struct ipc_chan *c = arg;
    if (ev == CONN_CLOSED)
        c->ops->closed(c->arg);
}

static const struct conn_ops chan_conn_ops = {.input = chan_on_input, .event = chan_on_event};

struct ipc_chan *ipc_chan_new(struct loop *l, int fd, const struct ipc_chan_ops *ops, void *arg) {
    struct ipc_chan *c = MEM_NEW(struct ipc_chan);
    int fl = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFL, fl | O_NONBLOCK);
    c->ops = ops;
    c->arg = arg;
    c->conn = conn_new(l, fd, &chan_conn_ops, c);
    return c;
}

struct sbuf *ipc_chan_out(struct ipc_chan *c) {
    return conn_out(c->conn);
}

void ipc_chan_send(struct ipc_chan *c) {
    conn_touch(c->conn);
}

void ipc_chan_send_secret(struct ipc_chan *c) {
    conn_wipe_output(c->conn);
    conn_touch(c->conn);
}

void ipc_chan_free(struct ipc_chan *c) {
    if (c == NULL)
        return;
    conn_close(c->conn);
    free(c);
}
