/*
 * util/conn.c - stream sockets on a loop; see conn.h
 *
 * UV_READABLE stays on all the time, so a request and its reply cost one read, one write and no
 * change of the poll set; UV_WRITABLE is asked for only after the kernel refused to take more.
 * While paused, reading stops at the descriptor: the kernel's window pushes back on the peer.
 */
#include "util/conn.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/clock.h"
#include "util/mem.h"
#include "util/sock.h"

#define CLOSE_LINGER_MS 10000

enum tls_state { TLS_OFF, TLS_SHAKING, TLS_ON };

struct conn {
    uv_poll_t poll;
    struct dl link;  /* loop->conns */
    struct dl dirty; /* loop->dirty */
    struct loop *loop;
    const struct conn_ops *ops;
    void *arg;
    int fd;
    int events; /* what uv_poll watches */
    SSL *ssl;
    enum tls_state tls;
    bool tls_server;
    bool connecting;
    bool paused;
    bool closing;       /* conn_close was called */
    bool close_drained; /* close when the output is written */
    bool offering;      /* offer() is on the stack: resuming goes on there */
    bool eof;
    bool want_write; /* the kernel or TLS wants a writable descriptor */
    bool drain_due;  /* CONN_DRAINED is owed */
    bool secret;     /* the output is wiped when it is written */
    int err;
    int io_err;  /* negative errno of the last read or write below TLS; 0: it went well */
    bool io_eof; /* a read below TLS found that the peer has ended its side */
    char tls_err[160];
    int64_t deadline;
    struct sbuf in;  /* read but not used */
    struct sbuf out; /* not yet written, from out_at on */
    size_t out_at;
};

static void on_poll(uv_poll_t *h, int status, int events);

static void watch(struct conn *c) {
    int want = c->paused && c->tls != TLS_SHAKING ? 0 : UV_READABLE;
    if (c->want_write || c->connecting)
        want |= UV_WRITABLE;
    if (want == c->events || c->closing)
        return;
    c->events = want;
    if (want == 0) /* a peer that hangs up meanwhile is noticed when reading goes on */
        uv_poll_stop(&c->poll);
    else
        uv_poll_start(&c->poll, want, on_poll);
}

struct conn *conn_new(struct loop *l, int fd, const struct conn_ops *ops, void *arg) {
    struct conn *c = MEM_NEW(struct conn);
    c->loop = l;
    c->fd = fd;
    c->ops = ops;
    c->arg = arg;
    if (uv_poll_init(&l->uv, &c->poll, fd) != 0) {
        free(c);
        sock_close(fd);
        return NULL;
    }
    c->poll.data = c;
    dl_push(&l->conns, &c->link);
    watch(c);
    return c;
}

struct conn *conn_connect(struct loop *l, const struct netaddr *to, const struct netaddr *from,
                          const struct conn_ops *ops, void *arg, int *err) {
    int fd = sock_connect(to, from);
    if (fd < 0) {
        *err = fd;
        return NULL;
    }
    struct conn *c = conn_new(l, fd, ops, arg);
    if (c == NULL) {
        *err = -EMFILE;
        return NULL;
    }
    c->connecting = true;
    watch(c);
    return c;
}

static void on_closed(uv_handle_t *h) {
    struct conn *c = h->data;
    SSL_free(c->ssl);
    sock_close(c->fd);
    if (c->secret)
        mem_wipe(c->out.p, c->out.cap);
    sbuf_free(&c->in);
    sbuf_free(&c->out);
    free(c);
}

void conn_close(struct conn *c) {
    if (c->closing)
        return;
    c->closing = true;
    dl_remove(&c->link);
    dl_remove(&c->dirty);
    if (c->ssl != NULL && c->tls == TLS_ON)
        SSL_shutdown(c->ssl);
    ERR_clear_error();
    uv_poll_stop(&c->poll);
    uv_close((uv_handle_t *)&c->poll, on_closed);
}

static void raise_event(struct conn *c, enum conn_event ev) {
    if (!c->closing)
        c->ops->event(c->arg, ev);
}

static void tls_describe(struct conn *c, const char *what) {
    unsigned long e = ERR_peek_last_error();
    const char *reason = e == 0 ? NULL : ERR_reason_error_string(e);
    long verify = SSL_get_verify_result(c->ssl);
    if (verify != X509_V_OK && reason != NULL && strstr(reason, "certificate verify") != NULL)
        reason = X509_verify_cert_error_string(verify);
    snprintf(c->tls_err, sizeof c->tls_err, "%s: %s", what,
             reason != NULL ? reason
             : c->err != 0  ? strerror(-c->err)
                            : "connection closed");
    ERR_clear_error();
}

static void fail(struct conn *c, int err) {
    c->err = err;
    c->eof = true;
    if (c->close_drained)
        conn_close(c);
    else
        raise_event(c, CONN_CLOSED);
}

/* One SSL_* result: true to go on, false when it must wait or has failed. */
static bool tls_result(struct conn *c, int rc, const char *what) {
    if (rc > 0)
        return true;
    int e = SSL_get_error(c->ssl, rc);
    if (e == SSL_ERROR_WANT_READ)
        return false;
    if (e == SSL_ERROR_WANT_WRITE) {
        c->want_write = true;
        watch(c);
        return false;
    }
    if (e == SSL_ERROR_ZERO_RETURN) {
        fail(c, 0);
        return false;
    }
    c->err = e == SSL_ERROR_SYSCALL ? c->io_err : -EPROTO;
    tls_describe(c, what);
    fail(c, c->err);
    return false;
}

/* -- what TLS reads and writes through: the same functions as without it -- */

static BIO_METHOD *wire_method;

static int wire_write(BIO *b, const char *p, int n) {
    struct conn *c = BIO_get_data(b);
    ssize_t done = sock_send(c->fd, p, (size_t)n);
    BIO_clear_retry_flags(b);
    c->io_err = done < 0 ? (int)done : 0;
    if (done == -EAGAIN)
        BIO_set_retry_write(b);
    return done < 0 ? -1 : (int)done;
}

static int wire_read(BIO *b, char *p, int n) {
    struct conn *c = BIO_get_data(b);
    ssize_t got = sock_recv(c->fd, p, (size_t)n);
    BIO_clear_retry_flags(b);
    c->io_err = got < 0 ? (int)got : 0;
    c->io_eof = got == 0;
    if (got == -EAGAIN)
        BIO_set_retry_read(b);
    return got < 0 ? -1 : (int)got;
}

static long wire_ctrl(BIO *b, int cmd, long num, void *ptr) {
    const struct conn *c = BIO_get_data(b);
    (void)num;
    (void)ptr;
    if (cmd == BIO_CTRL_EOF)
        return c->io_eof;
    return cmd == BIO_CTRL_FLUSH; /* nothing is kept here */
}

static void wire_init(void) {
    wire_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "posthouse socket");
    BIO_meth_set_write(wire_method, wire_write);
    BIO_meth_set_read(wire_method, wire_read);
    BIO_meth_set_ctrl(wire_method, wire_ctrl);
}

/* The BIO belongs to c->ssl and goes with it. */
static void tls_wire(struct conn *c) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, wire_init);
    BIO *b = BIO_new(wire_method);
    BIO_set_data(b, c);
    BIO_set_init(b, 1);
    SSL_set_bio(c->ssl, b, b);
}

static void tls_shake(struct conn *c) {
    ERR_clear_error();
    c->io_err = 0;
    int rc = c->tls_server ? SSL_accept(c->ssl) : SSL_connect(c->ssl);
    if (!tls_result(c, rc, "TLS handshake"))
        return;
    c->tls = TLS_ON;
    watch(c);
    raise_event(c, CONN_TLS_UP);
}

void conn_tls(struct conn *c, SSL *ssl, bool server) {
    sbuf_free(&c->in);
    c->ssl = ssl;
    c->tls_server = server;
    c->tls = TLS_SHAKING;
    tls_wire(c);
    watch(c);
    if (!server)
        tls_shake(c);
}

/* Writes what it can; returns false once the connection has failed. */
static bool flush_some(struct conn *c) {
    while (c->out_at < c->out.n && c->tls != TLS_SHAKING && !c->connecting) {
        const char *p = c->out.p + c->out_at;
        size_t n = c->out.n - c->out_at;
        ssize_t w;
        if (c->tls == TLS_ON) {
            ERR_clear_error();
            c->io_err = 0;
            w = SSL_write(c->ssl, p, (int)(n > 16384 ? 16384 : n));
            if (!tls_result(c, (int)w, "TLS write"))
                return !c->eof && !c->closing;
        } else {
            w = sock_send(c->fd, p, n);
            if (w == -EAGAIN) {
                c->want_write = true;
                watch(c);
                return true;
            }
            if (w < 0) {
                fail(c, (int)w);
                return false;
            }
        }
        c->out_at += (size_t)w;
    }
    return true;
}

/* A buffer that once was large is not kept by an idle connection. */
static void trim(struct sbuf *b) {
    if (b->cap > 4096)
        sbuf_free(b);
    else
        sbuf_reset(b);
}

void conn_flush(struct conn *c) {
    dl_remove(&c->dirty);
    if (c->closing || c->eof || c->out_at >= c->out.n || !flush_some(c))
        return;
    if (c->out_at < c->out.n)
        return;
    c->out_at = 0;
    if (c->secret)
        mem_wipe(c->out.p, c->out.cap);
    c->secret = false;
    trim(&c->out);
    if (c->want_write && c->tls != TLS_SHAKING) {
        c->want_write = false;
        watch(c);
    }
    if (c->close_drained) {
        conn_close(c);
    } else if (c->drain_due) {
        c->drain_due = false;
        raise_event(c, CONN_DRAINED);
    }
}

void conn_flush_all(struct loop *l) {
    struct dl now, *n;
    dl_init(&now);
    while ((n = dl_pop(&l->dirty)) != NULL)
        dl_push(&now, n);
    while ((n = dl_pop(&now)) != NULL)
        conn_flush(DL_OWNER(n, struct conn, dirty));
    if (!dl_empty(&l->dirty)) /* who writes more once it is drained takes turns with the others */
        uv_async_send(&l->wake);
}

void conn_touch(struct conn *c) {
    c->drain_due = true;
    if (!c->closing && !dl_linked(&c->dirty))
        dl_push(&c->loop->dirty, &c->dirty);
}

struct sbuf *conn_out(struct conn *c) {
    return &c->out;
}

void conn_write(struct conn *c, const void *p, size_t n) {
    sbuf_add(&c->out, p, n);
    conn_touch(c);
}

void conn_write_c(struct conn *c, const char *text) {
    conn_write(c, text, strlen(text));
}

void conn_printf(struct conn *c, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    sbuf_vprintf(&c->out, fmt, ap);
    va_end(ap);
    conn_touch(c);
}

void conn_wipe_output(struct conn *c) {
    c->secret = true;
}

size_t conn_pending(const struct conn *c) {
    return c->out.n - c->out_at;
}

void conn_close_after_write(struct conn *c) {
    c->close_drained = true;
    c->paused = true;
    conn_deadline(c, CLOSE_LINGER_MS);
    if (conn_pending(c) == 0 || c->eof)
        conn_close(c);
    else
        conn_touch(c);
}

/* Offers input until the owner stops using it.  New bytes are in p; what is kept goes to c->in. */
static void offer(struct conn *c, const char *p, size_t n) {
    if (c->in.n > 0 || c->paused) {
        sbuf_add(&c->in, p, n);
        p = c->in.p;
        n = c->in.n;
    }
    bool kept = p == c->in.p;
    size_t used = 0;
    c->offering = true;
    enum tls_state before = c->tls;
    while (used < n && !c->paused && !c->closing && c->tls == before) {
        size_t k = c->ops->input(c->arg, p + used, n - used);
        if (k == 0)
            break;
        used += k;
    }
    c->offering = false;
    if (c->closing || c->tls != before) /* STARTTLS dropped the rest */
        return;
    if (kept) {
        sbuf_drop(&c->in, used);
        if (c->in.n == 0)
            trim(&c->in);
    } else if (used < n) {
        sbuf_add(&c->in, p + used, n - used);
    }
}

static ssize_t read_some(struct conn *c, char *buf, size_t n) {
    if (c->tls == TLS_ON) {
        ERR_clear_error();
        c->io_err = 0;
        int rc = SSL_read(c->ssl, buf, (int)n);
        return tls_result(c, rc, "TLS read") ? rc : -1;
    }
    ssize_t r = sock_recv(c->fd, buf, n);
    if (r < 0 && r != -EAGAIN)
        fail(c, (int)r);
    if (r == 0) {
        fail(c, 0);
        return -1;
    }
    return r;
}

static void read_ready(struct conn *c) {
    for (int turn = 0; turn < 4 && !c->closing && !c->paused && !c->eof; turn++) {
        char *buf = c->loop->scratch;
        size_t max = c->loop->read_max;
        ssize_t n = read_some(c, buf, max);
        if (n <= 0)
            return;
        offer(c, buf, (size_t)n);
        if (c->tls == TLS_SHAKING)
            return;
        /* TLS may hold decrypted bytes that the descriptor will not announce. */
        if (c->tls == TLS_ON ? SSL_pending(c->ssl) == 0 : (size_t)n < max)
            return;
    }
    if (c->tls == TLS_ON && !c->closing && !c->paused && SSL_pending(c->ssl) > 0)
        read_ready(c);
}

static void connect_ready(struct conn *c) {
    int err = sock_error(c->fd);
    c->connecting = false;
    if (err != 0) {
        fail(c, err);
        return;
    }
    watch(c);
    raise_event(c, CONN_CONNECTED);
}

static void on_poll(uv_poll_t *h, int status, int events) {
    struct conn *c = h->data;
    c->loop->now_ms = clock_mono_ms();
    if (c->connecting) {
        connect_ready(c);
    } else if (c->tls == TLS_SHAKING) {
        c->want_write = false;
        tls_shake(c);
        if (!c->closing && c->tls == TLS_ON)
            read_ready(c);
    } else if (status < 0) {
        fail(c, status);
    } else {
        if ((events & UV_WRITABLE) != 0 && c->out_at < c->out.n)
            conn_flush(c);
        if (!c->closing && (events & UV_READABLE) != 0) {
            if (c->paused)
                watch(c);
            else
                read_ready(c);
        }
    }
}

/* The poll set is changed only if input comes meanwhile: most pauses end before that. */
void conn_pause(struct conn *c) {
    c->paused = true;
}

void conn_resume(struct conn *c) {
    if (!c->paused || c->closing)
        return;
    c->paused = false;
    watch(c);
    if (c->offering)
        return;
    if (c->in.n > 0)
        offer(c, "", 0);
    if (!c->closing && !c->paused && c->tls == TLS_ON && SSL_pending(c->ssl) > 0)
        read_ready(c);
}

void conn_deadline(struct conn *c, int64_t ms) {
    c->deadline = ms == 0 ? 0 : c->loop->now_ms + ms;
}

void conn_check_deadlines(struct loop *l) {
    DL_EACH_SAFE (n, &l->conns) {
        struct conn *c = DL_OWNER(n, struct conn, link);
        if (c->deadline == 0 || c->deadline > l->now_ms)
            continue;
        c->deadline = 0;
        if (c->close_drained)
            conn_close(c);
        else
            raise_event(c, CONN_TIMEOUT);
    }
}

SSL *conn_ssl(const struct conn *c) {
    return c->ssl;
}

int conn_error(const struct conn *c) {
    return c->err;
}

const char *conn_tls_error(const struct conn *c) {
    return c->tls_err;
}

int conn_fd(const struct conn *c) {
    return c->fd;
}
