/*
 * tests/wire/net.c - simulated TCP: the product's sockets (util/sock.h) and the peers' ends
 *
 * A stream has a pipe in each direction.  What the product sends lies in its pipe until chance
 * gives it to the peer, as a whole or in pieces; what a peer sends becomes readable in pieces in
 * the same way.  The product's pipe takes no more than a window: then its socket is not writable.
 */
#include "world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/sock.h"

#define WINDOW_MAX 65536U

enum stream_state {
    STREAM_OPENING, /* the peer does not know it yet */
    STREAM_OPEN
};

struct wire_end {
    struct stream *s;
    struct wire_peer *peer; /* NULL: not called any more */
    struct tls_end *tls;
    int64_t timer_us; /* 0: none */
    bool closed;      /* the peer has closed it: it gets nothing */
    bool shut;        /* the peer sends no more */
    bool split;
    bool stalled;
};

struct stream {
    struct dl link;  /* world->streams */
    struct dl queue; /* listening->queue */
    struct wire_world *w;
    unsigned no;
    struct netaddr addr; /* the peer's */
    bool inbound;        /* a client's */
    enum stream_state state;
    int fd;            /* the product's; -1: not accepted yet, or closed */
    bool accepted;     /* the product has had a descriptor */
    bool product_done; /* the product has closed, or is gone */
    bool unread;       /* it closed with input unread: the peer sees a reset */
    int error;         /* of connecting or of the stream: negative errno */
    bool broken;
    bool told_peer; /* it knows that the stream is over */
    bool silent;
    struct sbuf out; /* from the product, not yet with the peer */
    struct sbuf in;  /* to the product; the first ready bytes can be read */
    size_t in_at, ready;
    bool fin; /* after what is in `in` the peer has closed */
    bool fin_ready;
    size_t window;         /* what out may hold; doubled each time it was full */
    wire_read_fn *read_fn; /* of wire_when_read; NULL: no peer waits */
    void *read_arg;
    size_t read_after; /* bytes of the peer that the product reads before that */
    struct sbuf sent;  /* since then, and what was in out */
    struct wire_end end;
};

/* ---- descriptors ---- */

int fd_new(struct wire_world *w, struct stream *s) {
    for (int i = 0; i < 600; i++)
        if (w->fds[i] == NULL) {
            w->fds[i] = s;
            w->fds_open++;
            return FD_FIRST + i;
        }
    return -EMFILE;
}

static bool fd_is_ours(int fd) {
    return W != NULL && fd >= FD_FIRST && fd < FD_FIRST + 600 && W->fds[fd - FD_FIRST] != NULL;
}

static void fd_free(int fd) {
    if (!fd_is_ours(fd)) {
        wire_fail(W, "a descriptor was closed that is not open: %d", fd);
        return;
    }
    W->fds[fd - FD_FIRST] = NULL;
    W->fds_open--;
}

static struct stream *stream_of(int fd) {
    if (!fd_is_ours(fd) || W->fds[fd - FD_FIRST] == FD_OTHER) {
        wire_fail(W, "descriptor %d is used and is no stream", fd);
        return NULL;
    }
    return W->fds[fd - FD_FIRST];
}

/* ---- streams ---- */

static struct stream *stream_new(struct wire_world *w, const struct netaddr *addr, bool inbound) {
    static const size_t windows[] = {WINDOW_MAX, WINDOW_MAX, WINDOW_MAX, WINDOW_MAX,
                                     4096,       512,        20,         1};
    struct stream *s = calloc(1, sizeof *s);
    s->w = w;
    s->no = ++w->last_stream;
    s->addr = *addr;
    s->inbound = inbound;
    s->fd = -1;
    s->window = windows[wire_rnd(&w->chance, 8)];
    s->end.s = s;
    dl_push(&w->streams, &s->link);
    return s;
}

static const char *stream_name(const struct stream *s) {
    static char text[80];
    char ip[INET6_ADDRSTRLEN];
    snprintf(text, sizeof text, "%s%u %s:%u", s->inbound ? "client" : "relay", s->no,
             netaddr_text(&s->addr, ip), netaddr_port(&s->addr));
    return text;
}

/* A fault takes the stream.  The peer knows at once, so that the ledger knows what may not have
 * been heard; the product learns it as the fault has it. */
static void stream_lose(struct stream *s) {
    struct wire_peer *p = s->end.peer;
    s->end.peer = NULL;
    s->end.closed = true;
    s->end.timer_us = 0;
    s->told_peer = true;
    wire_note(s->w, "%s: lost", stream_name(s));
    if (p != NULL && p->ops->reset != NULL)
        p->ops->reset(p);
}

static void stream_break(struct stream *s, int err) {
    s->broken = true;
    if (s->error == 0)
        s->error = err;
    sbuf_reset(&s->in);
    s->in_at = s->ready = 0;
}

/* ---- the product's side: util/sock.h ---- */

static const struct host *host_find(const struct wire_world *w, const struct netaddr *to) {
    char ip[INET6_ADDRSTRLEN];
    netaddr_text(to, ip);
    for (const struct host *h = w->hosts; h != NULL; h = h->next)
        if (h->port == netaddr_port(to) && strcmp(h->addr, ip) == 0)
            return h;
    return NULL;
}

static int connect_begin(const struct netaddr *to) {
    enum wire_fault f = call_begin(CALL_CONNECT);
    if (W->dying)
        return -EIO;
    if (f == FAULT_REFUSED)
        return -ENETUNREACH;
    if (f == FAULT_NO_FILES)
        return -EMFILE;
    struct stream *s = stream_new(W, to, false);
    s->silent = s->told_peer = f == FAULT_SILENCE;
    s->fd = fd_new(W, s);
    s->accepted = true;
    wire_note(W, "%s: the product connects", stream_name(s));
    return s->fd;
}

int sock_connect(const struct netaddr *to, const struct netaddr *from) {
    enum heap_side side = heap_switch(HEAP_WORLD);
    (void)from;
    int fd = connect_begin(to);
    heap_switch(side);
    return fd;
}

static struct listening *listening_of(int fd) {
    DL_EACH (n, &W->listening) {
        struct listening *l = DL_OWNER(n, struct listening, link);
        if (l->fd == fd)
            return l;
    }
    return NULL;
}

static int accept_one(int listener, struct netaddr *peer) {
    struct listening *l = listening_of(listener);
    if (l == NULL) {
        wire_fail(W, "descriptor %d is accepted from and does not listen", listener);
        return -EINVAL;
    }
    if (dl_empty(&l->queue)) /* to look is no call that a fault could hit */
        return -EAGAIN;
    enum wire_fault f = call_begin(CALL_ACCEPT);
    if (W->dying)
        return -EIO;
    if (f == FAULT_NO_FILES)
        return -EMFILE;
    if (f == FAULT_BLOCKED)
        return -EAGAIN;
    struct stream *s = DL_OWNER(dl_pop(&l->queue), struct stream, queue);
    if (f == FAULT_RESET) {
        stream_break(s, -ECONNRESET);
        s->product_done = true;
        return -ECONNABORTED;
    }
    s->fd = fd_new(W, s);
    s->accepted = true;
    if (peer != NULL)
        *peer = s->addr;
    return s->fd;
}

int sock_accept(int listener, struct netaddr *peer) {
    enum heap_side side = heap_switch(HEAP_WORLD);
    int fd = accept_one(listener, peer);
    heap_switch(side);
    return fd;
}

static size_t shortened(enum wire_fault f, size_t n) {
    if (f == FAULT_ONE_BYTE && n > 1)
        return 1;
    return f == FAULT_SHORT_BY_ONE && n > 0 ? n - 1 : n;
}

/* The faults that end a stream. */
static void take_fault(struct stream *s, enum wire_fault f) {
    if (f != FAULT_RESET && f != FAULT_SILENCE && f != FAULT_END)
        return;
    stream_lose(s);
    s->silent = f == FAULT_SILENCE;
    if (f == FAULT_RESET)
        stream_break(s, -ECONNRESET);
    if (f == FAULT_END) {
        sbuf_reset(&s->in);
        s->in_at = s->ready = 0;
        s->fin = s->fin_ready = true;
    }
}

static bool is_connected(const struct stream *s) {
    return s->state == STREAM_OPEN || s->inbound;
}

static ssize_t send_some(int fd, const void *p, size_t n) {
    enum wire_fault f = call_begin(CALL_SEND);
    struct stream *s = stream_of(fd);
    if (W->dying || s == NULL)
        return -EIO;
    take_fault(s, f);
    if (s->broken || (s->end.closed && s->out.n > 0 && !s->silent))
        return s->error == -ECONNRESET ? -ECONNRESET : -EPIPE;
    if (!is_connected(s) || f == FAULT_BLOCKED)
        return -EAGAIN;
    size_t room = s->out.n < s->window ? s->window - s->out.n : 0;
    if (room == 0 && s->window < WINDOW_MAX)
        s->window *= 2;
    n = shortened(f, n < room ? n : room);
    if (n == 0)
        return -EAGAIN;
    sbuf_add(&s->out, p, n);
    if (s->read_fn != NULL)
        sbuf_add(&s->sent, p, n);
    return (ssize_t)n;
}

ssize_t sock_send(int fd, const void *p, size_t n) {
    enum heap_side side = heap_switch(HEAP_WORLD);
    ssize_t rc = send_some(fd, p, n);
    heap_switch(side);
    return rc;
}

/* The product has read n bytes: tells the peer that waits for it. */
static void note_read(struct stream *s, size_t n) {
    wire_read_fn *fn = s->read_fn;
    if (fn == NULL)
        return;
    if (n <= s->read_after) {
        s->read_after -= n;
        return;
    }
    s->read_fn = NULL;
    fn(s->read_arg, s->sent.p, s->sent.n);
}

static ssize_t recv_some(int fd, void *p, size_t n) {
    enum wire_fault f = call_begin(CALL_RECV);
    struct stream *s = stream_of(fd);
    if (W->dying || s == NULL)
        return -EIO;
    take_fault(s, f);
    if (s->broken)
        return s->error != 0 ? s->error : -ECONNRESET;
    if (f == FAULT_BLOCKED)
        return -EAGAIN;
    if (s->ready == 0)
        return s->fin_ready ? 0 : -EAGAIN;
    n = n < s->ready ? n : s->ready;
    n = shortened(f, n);
    if (n == 0)
        return -EAGAIN;
    memcpy(p, s->in.p + s->in_at, n);
    s->in_at += n;
    s->ready -= n;
    if (s->in_at == s->in.n) {
        sbuf_reset(&s->in);
        s->in_at = 0;
    }
    note_read(s, n);
    return (ssize_t)n;
}

ssize_t sock_recv(int fd, void *p, size_t n) {
    enum heap_side side = heap_switch(HEAP_WORLD);
    ssize_t rc = recv_some(fd, p, n);
    heap_switch(side);
    return rc;
}

int sock_error(int fd) {
    enum heap_side side = heap_switch(HEAP_WORLD);
    enum wire_fault f = call_begin(CALL_ERROR);
    struct stream *s = stream_of(fd);
    if (s != NULL)
        take_fault(s, f);
    int rc = s == NULL || W->dying ? -EIO : s->error;
    heap_switch(side);
    return rc;
}

void sock_nodelay(int fd) {
    (void)fd;
}

/* The peer learns of it when the product has closed. */
void sock_shut(int fd) {
    (void)fd;
}

void sock_close(int fd) {
    enum heap_side side = heap_switch(HEAP_WORLD);
    struct stream *s = fd_is_ours(fd) ? W->fds[fd - FD_FIRST] : NULL;
    struct listening *l = listening_of(fd);
    fd_free(fd);
    if (l != NULL) {
        dl_remove(&l->link);
    } else if (s != NULL && s != FD_OTHER) {
        s->fd = -1;
        s->product_done = true;
        s->unread = s->ready > 0;
        W->busy++;
    }
    heap_switch(side);
}

/* A spare descriptor is got by fcntl and given back by close; other descriptors are the process's.
 * Both names of fcntl, because large files may be on. */
static int fcntl_any(int fd, int cmd, uintptr_t arg) {
    if (cmd == 1030 /* F_DUPFD_CLOEXEC */ && W != NULL)
        return fd_new(W, FD_OTHER);
    if (fd_is_ours(fd))
        return 0;
    return (int)syscall(SYS_fcntl, fd, cmd, arg);
}

int fcntl_small(int fd, int cmd, ...) __asm__("fcntl");
int fcntl_small(int fd, int cmd, ...) {
    va_list ap;
    va_start(ap, cmd);
    uintptr_t arg = va_arg(ap, uintptr_t);
    va_end(ap);
    return fcntl_any(fd, cmd, arg);
}

int fcntl_large(int fd, int cmd, ...) __asm__("fcntl64");
int fcntl_large(int fd, int cmd, ...) {
    va_list ap;
    va_start(ap, cmd);
    uintptr_t arg = va_arg(ap, uintptr_t);
    va_end(ap);
    return fcntl_any(fd, cmd, arg);
}

int close(int fd) {
    if (fd_is_ours(fd)) {
        sock_close(fd);
        return 0;
    }
    return (int)syscall(SYS_close, fd);
}

unsigned net_ready(int fd) {
    struct listening *l = listening_of(fd);
    if (l != NULL)
        return dl_empty(&l->queue) ? 0 : SEEN_IN;
    struct stream *s = fd_is_ours(fd) ? W->fds[fd - FD_FIRST] : NULL;
    if (s == NULL || s == FD_OTHER)
        return 0;
    if (s->broken)
        return SEEN_BROKEN | SEEN_IN | SEEN_OUT;
    unsigned ready = s->ready > 0 || s->fin_ready ? SEEN_IN : 0;
    if (is_connected(s) && s->out.n < s->window)
        ready |= SEEN_OUT;
    return ready;
}

void net_listen(struct wire_world *w, int fd, uint16_t port) {
    struct listening *l = calloc(1, sizeof *l);
    l->fd = fd;
    l->port = port;
    dl_init(&l->queue);
    dl_push(&w->listening, &l->link);
}

/* ---- the peers' side ---- */

bool wire_is_open(const struct wire_end *e) {
    return e->peer != NULL && !e->s->told_peer;
}

struct wire_world *wire_world_of(const struct wire_end *e) {
    return e->s->w;
}

static bool end_is_over(const struct wire_end *e) {
    return e->closed || e->s->told_peer || e->s->broken;
}

static void put_in(struct stream *s, const void *p, size_t n) {
    if (s->broken || s->fin || s->product_done)
        return;
    s->w->stream_bytes += n;
    sbuf_add(&s->in, p, n);
}

void wire_send(struct wire_end *e, const void *p, size_t n) {
    struct sbuf wire = {0};
    if (end_is_over(e) || e->shut)
        return;
    if (e->tls == NULL) {
        put_in(e->s, p, n);
        return;
    }
    tls_end_send(e->tls, p, n, &wire);
    put_in(e->s, wire.p, wire.n);
    sbuf_free(&wire);
}

static void end_finish(struct wire_end *e) {
    struct sbuf wire = {0};
    if (e->tls != NULL)
        tls_end_close(e->tls, &wire);
    put_in(e->s, wire.p, wire.n);
    sbuf_free(&wire);
    e->s->fin = true;
    e->shut = true;
}

void wire_shut(struct wire_end *e) {
    if (!end_is_over(e) && !e->shut)
        end_finish(e);
}

void wire_close(struct wire_end *e) {
    if (end_is_over(e))
        return;
    if (!e->shut)
        end_finish(e);
    e->closed = true;
    e->peer = NULL;
    e->timer_us = 0;
}

void wire_reset(struct wire_end *e) {
    if (end_is_over(e))
        return;
    e->closed = true;
    e->peer = NULL;
    e->timer_us = 0;
    stream_break(e->s, -ECONNRESET);
    sbuf_reset(&e->s->out);
}

void wire_when_read(struct wire_end *e, size_t skip, wire_read_fn *fn, void *arg) {
    struct stream *s = e->s;
    s->read_fn = fn;
    s->read_arg = arg;
    s->read_after = s->in.n - s->in_at + skip;
    sbuf_reset(&s->sent);
    sbuf_add(&s->sent, s->out.p, s->out.n);
}

void wire_after(struct wire_end *e, int64_t ms) {
    e->timer_us = ms == 0 ? 0 : e->s->w->now_us + ms * 1000;
}

void wire_split(struct wire_end *e) {
    e->split = true;
}

void wire_stall(struct wire_end *e, bool on) {
    e->stalled = on;
}

void wire_tls(struct wire_end *e, bool server) {
    struct sbuf wire = {0}, plain = {0};
    int up;
    bool eof;
    if (end_is_over(e) || e->tls != NULL)
        return;
    e->tls = tls_end_new(server);
    tls_end_input(e->tls, NULL, 0, &plain, &wire, &up, &eof);
    put_in(e->s, wire.p, wire.n);
    sbuf_free(&wire);
    sbuf_free(&plain);
}

struct wire_end *wire_client_connect(struct wire_world *w, struct wire_peer *client,
                                     const char *from, uint16_t port) {
    struct netaddr addr;
    if (!netaddr_parse(&addr, str_of(from), (uint16_t)(20000 + wire_rnd(&w->chance, 40000))))
        abort();
    struct stream *s = stream_new(w, &addr, true);
    s->end.peer = client;
    s->error = (int)port; /* until it is opened */
    return &s->end;
}

void wire_host(struct wire_world *w, const char *addr, uint16_t port, enum wire_host_is is,
               struct wire_peer *(*relay_new)(void *arg, const struct netaddr *to), void *arg) {
    struct host *h = w->hosts;
    while (h != NULL && (h->port != port || strcmp(h->addr, addr) != 0))
        h = h->next;
    if (h == NULL) {
        h = calloc(1, sizeof *h);
        h->next = w->hosts;
        w->hosts = h;
    }
    snprintf(h->addr, sizeof h->addr, "%s", addr);
    h->port = port;
    h->is = is;
    h->relay_new = relay_new;
    h->arg = arg;
}

/* ---- what happens ---- */

static void peer_over(struct stream *s, bool in_order) {
    struct wire_peer *p = s->end.peer;
    s->told_peer = true;
    s->end.timer_us = 0;
    if (p == NULL)
        return;
    wire_note(s->w, "%s: %s", stream_name(s), in_order ? "end" : "reset");
    if (in_order && p->ops->eof != NULL)
        p->ops->eof(p);
    else if (!in_order && p->ops->reset != NULL)
        p->ops->reset(p);
}

static void peer_opened(struct stream *s) {
    struct wire_peer *p = s->end.peer;
    s->state = STREAM_OPEN;
    if (p->ops->opened != NULL)
        p->ops->opened(p, &s->end);
}

/* The product listens or not. */
static void open_inbound(struct stream *s) {
    uint16_t port = (uint16_t)s->error;
    s->error = 0;
    DL_EACH (n, &s->w->listening) {
        struct listening *l = DL_OWNER(n, struct listening, link);
        if (l->port != port)
            continue;
        dl_push(&l->queue, &s->queue);
        wire_note(s->w, "%s: connects to port %u", stream_name(s), port);
        peer_opened(s);
        return;
    }
    s->state = STREAM_OPEN;
    s->product_done = true;
    stream_break(s, -ECONNREFUSED);
    peer_over(s, false);
}

/* There is a host or not. */
static void open_outbound(struct stream *s) {
    const struct host *h = host_find(s->w, &s->addr);
    enum wire_host_is is = h == NULL ? WIRE_REFUSES : h->is;
    if (s->product_done) {
        s->told_peer = true;
        return;
    }
    if (is == WIRE_LISTENS && (s->end.peer = h->relay_new(h->arg, &s->addr)) == NULL)
        is = WIRE_REFUSES;
    if (is == WIRE_LISTENS) {
        peer_opened(s);
    } else if (is == WIRE_SILENT) {
        s->silent = s->told_peer = true;
    } else {
        s->told_peer = true;
        s->state = STREAM_OPEN;
        stream_break(s, is == WIRE_REFUSES ? -ECONNREFUSED : -EHOSTUNREACH);
        wire_note(s->w, "%s: %s", stream_name(s), strerror(-s->error));
    }
}

static void step_open(void *arg) {
    struct stream *s = arg;
    s->w->busy++;
    if (s->inbound)
        open_inbound(s);
    else
        open_outbound(s);
}

static size_t some_of(struct stream *s, size_t n) {
    uint64_t k = wire_rnd(&s->w->chance, 8);
    if (k < 5 || n == 1)
        return n;
    return 1 + (size_t)wire_rnd(&s->w->chance, k == 7 ? (n < 4 ? n : 4) : n);
}

/* Bytes of the peer become readable, or its end is seen. */
static void step_arrive(void *arg) {
    struct stream *s = arg;
    size_t left = s->in.n - s->in_at - s->ready;
    s->w->busy++;
    if (left > 0) {
        size_t n = s->end.split ? 1 : some_of(s, left);
        if (s->w->verbose)
            note_bytes(s->w, stream_name(s), s->in.p + s->in_at + s->ready, n);
        s->ready += n;
        return;
    }
    s->fin_ready = true;
    wire_note(s->w, "%s: has closed", stream_name(s));
}

static void peer_tls_input(struct stream *s, const char *p, size_t n) {
    struct wire_end *e = &s->end;
    struct sbuf plain = {0}, wire = {0};
    int up;
    bool eof;
    tls_end_input(e->tls, p, n, &plain, &wire, &up, &eof);
    put_in(s, wire.p, wire.n);
    if (up != 0 && e->peer != NULL && e->peer->ops->tls_up != NULL)
        e->peer->ops->tls_up(e->peer, up > 0);
    if (plain.n > 0 && s->w->verbose)
        note_bytes(s->w, "  product (TLS)", plain.p, plain.n);
    if (plain.n > 0 && e->peer != NULL && e->peer->ops->input != NULL)
        e->peer->ops->input(e->peer, plain.p, plain.n);
    sbuf_free(&plain);
    sbuf_free(&wire);
}

/* Bytes of the product reach the peer. */
static void step_give(void *arg) {
    struct stream *s = arg;
    struct wire_end *e = &s->end;
    size_t n = some_of(s, s->out.n);
    struct sbuf got = {0};
    s->w->busy++;
    sbuf_add(&got, s->out.p, n);
    sbuf_drop(&s->out, n);
    if (e->peer == NULL) {
        if (e->closed && !s->broken) /* nobody reads any more */
            stream_break(s, -ECONNRESET);
    } else if (e->tls != NULL) {
        peer_tls_input(s, got.p, got.n);
    } else {
        if (s->w->verbose)
            note_bytes(s->w, "  product", got.p, got.n);
        if (e->peer->ops->input != NULL)
            e->peer->ops->input(e->peer, got.p, got.n);
    }
    sbuf_free(&got);
}

static void step_over(void *arg) {
    struct stream *s = arg;
    s->w->busy++;
    peer_over(s, !s->broken && !s->unread);
}

static void step_timer(void *arg) {
    struct stream *s = arg;
    struct wire_peer *p = s->end.peer;
    s->w->busy++;
    s->end.timer_us = 0;
    if (p != NULL && p->ops->timer != NULL)
        p->ops->timer(p);
}

static void stream_collect(struct stream *s, struct choices *c) {
    if (s->end.timer_us != 0 && s->end.timer_us <= s->w->now_us)
        choice_add(c, step_timer, s);
    if (s->silent && !s->broken)
        return;
    if (s->state == STREAM_OPENING) {
        choice_add(c, step_open, s);
        return;
    }
    if (!s->broken && !s->product_done && s->in_at + s->ready < s->in.n)
        choice_add(c, step_arrive, s);
    else if (!s->broken && !s->product_done && s->fin && !s->fin_ready)
        choice_add(c, step_arrive, s);
    if (s->out.n > 0 && !s->told_peer && !s->end.stalled)
        choice_add(c, step_give, s);
    else if ((s->product_done || s->broken) && !s->told_peer)
        choice_add(c, step_over, s);
}

void net_collect(struct wire_world *w, struct choices *c) {
    DL_EACH_SAFE (n, &w->streams) {
        struct stream *s = DL_OWNER(n, struct stream, link);
        if (s->told_peer && s->product_done && s->end.timer_us == 0)
            dl_remove(&s->link); /* nothing can happen to it any more */
        else
            stream_collect(s, c);
    }
}

int64_t net_next(const struct wire_world *w) {
    int64_t at = INT64_MAX;
    DL_EACH (n, &w->streams) {
        const struct stream *s = DL_OWNER(n, struct stream, link);
        if (s->end.timer_us != 0 && s->end.timer_us < at)
            at = s->end.timer_us;
    }
    return at;
}

unsigned net_open(const struct wire_world *w) {
    unsigned n = 0;
    DL_EACH (it, &w->streams)
        n += !DL_OWNER(it, struct stream, link)->product_done;
    return n;
}

/* The kernel of a process that is killed still sends what it has taken; without power it does not.
 */
static void stream_drop(struct stream *s, bool power) {
    s->unread = s->ready > 0;
    s->silent = false;
    if (!power)
        return;
    sbuf_reset(&s->out);
    stream_break(s, -ECONNRESET);
}

void net_drop(struct wire_world *w) {
    DL_EACH (n, &w->streams) {
        struct stream *s = DL_OWNER(n, struct stream, link);
        if (s->state == STREAM_OPENING && s->inbound)
            continue;
        s->product_done = true;
        s->fd = -1;
        if (s->state == STREAM_OPENING)
            s->told_peer = true;
        else if (!s->told_peer)
            stream_drop(s, w->down_how == WIRE_POWER);
    }
    dl_init(&w->listening);
    memset(w->fds, 0, sizeof w->fds);
    w->fds_open = 0;
}
