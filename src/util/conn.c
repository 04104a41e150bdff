/*
 * util/conn.c - stream sockets on a loop; see conn.h
 *
 * The poll set is left alone as far as possible: UV_READABLE is taken out only when input comes
 * for an owner that takes none (most pauses end before that; the kernel's window then pushes back
 * on the peer), and UV_WRITABLE is in only while connecting and after the kernel refused to take
 * more.  A request and its reply cost one read and one write.
 *
 * Two functions call the owner: on_poll, when the loop says that the descriptor is ready (input,
 * CONN_CONNECTED, CONN_TLS_UP), and conn_turn, before the loop sleeps (kept input and everything
 * else).  After each call of the owner `closing` and `detached` may be set.
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
/* How long a peer that goes on talking is heard out, and at most so many of a loop at a time. */
#define HEAR_OUT_MS  1000
#define HEAR_OUT_MAX 256U
/* Reads of one connection before others have their turn. */
#define READS_A_TURN 4
/* What conn_fetch reads at most. */
#define FETCH_MAX 4096U
/* Reads of a connection that cannot be written to any more. */
#define READS_OF_BROKEN 32U
/* Capacity of a buffer that an idle connection may keep. */
#define IDLE_BUF 4096U

enum conn_tls {
    CONN_CLEAR,  /* no TLS, or not yet */
    CONN_TO_TLS, /* conn_tls was called, output in clear is still to be written */
    CONN_SHAKING,
    CONN_SECURE
};

struct conn {
    uv_poll_t poll;
    struct later turn;       /* conn_turn is wanted */
    struct loop_alarm alarm; /* the deadline */
    struct loop *loop;
    const struct conn_ops *ops;
    void *arg;
    int fd;
    int watched; /* UV_READABLE, UV_WRITABLE: what the poll handle waits for */
    SSL *ssl;    /* NULL: conn_tls was not called */
    enum conn_tls tls;
    bool tls_server;
    bool connecting;
    bool paused;
    bool closing;    /* conn_close was called: the owner is gone, the memory goes soon */
    bool detached;   /* conn_close_after_write was called: the owner is gone */
    bool offering;   /* the owner's input is on the stack */
    bool input_due;  /* c->in or the TLS layer has bytes that the owner has not been offered */
    bool drain_due;  /* CONN_DRAINED is owed */
    bool ended;      /* nothing more is read: err says why */
    bool told;       /* CONN_CLOSED was raised */
    bool wipes;      /* ops->wipes, which may be gone */
    bool answers;    /* ops->answers, likewise */
    bool talks;      /* detached though its peer goes on talking: see hear_out */
    bool may_talk;   /* detached, and what the kernel holds for reading is not known */
    bool hears_out;  /* input is read and dropped until the peer closes */
    bool want_write; /* the kernel or TLS waits for a writable descriptor */
    bool secret;     /* the output is wiped when it is written */
    bool io_eof;     /* the last read below TLS found that the peer has ended its side */
    int io_err;      /* negative errno of the last read or write below TLS; 0: it went well */
    int err;         /* negative errno; 0: none */
    int broken; /* negative errno of a write that failed, 0: none did; what the peer said before
                 * that is read, then the connection fails with it */
    unsigned broken_reads; /* reads since then */
    char tls_err[160];
    struct sbuf in;    /* read but not used */
    struct sbuf out;   /* not yet written, from out_at on */
    size_t out_at;     /* bytes of out that are written */
    size_t clear_left; /* CONN_TO_TLS: bytes of out from out_at on that go out in clear */
};

static void on_poll(uv_poll_t *h, int status, int events);
static void conn_turn(struct later *t);

/* -- what is waited for -- */

/* Is there an owner that takes input now? */
static bool takes_input(const struct conn *c) {
    if (c->paused || c->closing || c->detached || c->ended || c->connecting)
        return false;
    if (c->tls == CONN_TO_TLS || c->tls == CONN_SHAKING)
        return false;
    return !c->ops->answers || conn_pending(c) <= CONN_OUT_MAX;
}

static void watch_for(struct conn *c, int want) {
    if (want == c->watched || c->closing)
        return;
    c->watched = want;
    if (want == 0)
        uv_poll_stop(&c->poll);
    else
        uv_poll_start(&c->poll, want, on_poll);
}

static int wants_writable(const struct conn *c) {
    return c->want_write || c->connecting ? UV_WRITABLE : 0;
}

/* Adds what is waited for; UV_READABLE stays where it is. */
static void watch(struct conn *c) {
    bool reads = takes_input(c) || c->tls == CONN_SHAKING || c->hears_out;
    watch_for(c, (reads ? UV_READABLE : c->watched & UV_READABLE) | wants_writable(c));
}

/* Input has come that the owner does not take now. */
static void unwatch_input(struct conn *c) {
    watch_for(c, wants_writable(c));
}

/* Overwrites input that has been used. */
static void forget_input(const struct conn *c, const char *p, size_t n) {
    if (c->wipes && n > 0)
        mem_wipe((char *)(uintptr_t)p, n);
}

static void drop_input(struct conn *c) {
    forget_input(c, c->in.p, c->in.cap);
    sbuf_free(&c->in);
}

/* -- begin and end -- */

/* NULL, and fd closed, if the system refuses. */
static struct conn *conn_make(struct loop *l, int fd, bool connecting, const struct conn_ops *ops,
                              void *arg) {
    struct conn *c = MEM_NEW(struct conn);
    c->loop = l;
    c->fd = fd;
    c->ops = ops;
    c->wipes = ops->wipes;
    c->answers = ops->answers;
    c->arg = arg;
    c->connecting = connecting;
    if (uv_poll_init(&l->uv, &c->poll, fd) != 0) {
        free(c);
        sock_close(fd);
        return NULL;
    }
    c->poll.data = c;
    c->turn.run = conn_turn;
    loop_alarm_add(l, &c->alarm, &c->turn);
    watch(c);
    return c;
}

struct conn *conn_new(struct loop *l, int fd, const struct conn_ops *ops, void *arg) {
    return conn_make(l, fd, false, ops, arg);
}

struct conn *conn_connect(struct loop *l, const struct netaddr *to, const struct netaddr *from,
                          const struct conn_ops *ops, void *arg, int *err) {
    int fd = sock_connect(to, from);
    struct conn *c = fd < 0 ? NULL : conn_make(l, fd, true, ops, arg);
    if (c == NULL)
        *err = fd < 0 ? fd : -EMFILE;
    return c;
}

static void on_closed(uv_handle_t *h) {
    struct conn *c = h->data;
    SSL_free(c->ssl);
    sock_close(c->fd);
    if (c->secret)
        mem_wipe(c->out.p, c->out.cap);
    drop_input(c);
    sbuf_free(&c->out);
    free(c);
}

void conn_close(struct conn *c) {
    if (c->closing)
        return;
    c->closing = true;
    if (c->detached)
        c->loop->n_last--;
    loop_alarm_remove(&c->alarm);
    loop_never(&c->turn);
    if (c->tls == CONN_SECURE && c->err == 0 && !c->hears_out)
        SSL_shutdown(c->ssl);
    ERR_clear_error();
    uv_close((uv_handle_t *)&c->poll, on_closed);
}

static bool output_is_stuck(const struct conn *c) {
    return c->connecting || c->err != 0 || c->tls == CONN_TO_TLS || c->tls == CONN_SHAKING;
}

void conn_close_after_write(struct conn *c) {
    if (conn_pending(c) == 0 || output_is_stuck(c)) {
        conn_close(c);
        return;
    }
    c->detached = true;
    c->loop->n_last++;
    c->may_talk = !c->offering; /* else offer finds out */
    c->talks = c->may_talk && c->in.n > 0;
    if (!c->offering)
        drop_input(c);
    conn_deadline(c, CLOSE_LINGER_MS);
    loop_later(c->loop, &c->turn);
}

static void raise_event(struct conn *c, enum conn_event ev) {
    if (!c->closing && !c->detached)
        c->ops->event(c->arg, ev);
}

/* -- failing -- */

static void tls_explain(struct conn *c, const char *what, int err) {
    unsigned long e = ERR_peek_last_error();
    const char *reason = e == 0 ? NULL : ERR_reason_error_string(e);
    long verify = c->ssl == NULL ? X509_V_OK : SSL_get_verify_result(c->ssl);
    if (ERR_GET_LIB(e) == ERR_LIB_SSL && ERR_GET_REASON(e) == SSL_R_DH_KEY_TOO_SMALL)
        reason = "dh key too small or too large"; /* see util/tls.c */
    if (verify != X509_V_OK && reason != NULL && strstr(reason, "certificate verify") != NULL)
        reason = X509_verify_cert_error_string(verify);
    snprintf(c->tls_err, sizeof c->tls_err, "%s: %s", what,
             reason != NULL ? reason
             : err != 0     ? strerror(-err)
                            : "connection closed");
    ERR_clear_error();
}

static void output_written(struct conn *c);

/* Notes how the connection ended; conn_turn tells the owner. */
static void conn_fail(struct conn *c, int err) {
    if (c->ended && (c->err != 0 || err == 0))
        return;
    c->ended = true;
    c->err = err;
    if ((c->tls == CONN_TO_TLS || c->tls == CONN_SHAKING) && c->tls_err[0] == '\0')
        tls_explain(c, "TLS handshake", err);
    if (err != 0) { /* the peer does not read what is still to be written */
        output_written(c);
        c->drain_due = false;
    }
    loop_later(c->loop, &c->turn);
}

/* Notes that nothing more can be written; conn_turn reads what has come, and lets it fail. */
static void conn_break(struct conn *c, int err) {
    if (c->closing)
        return;
    if (c->broken == 0)
        c->broken = err;
    loop_later(c->loop, &c->turn);
}

/* -- what TLS reads and writes through: the same functions as without it -- */

static BIO_METHOD *wire_method;

/* A session that was up does not learn of a write that failed: it is still to be read from. */
static int wire_write(BIO *b, const char *p, int n) {
    struct conn *c = BIO_get_data(b);
    ssize_t done = sock_send(c->fd, p, (size_t)n);
    bool breaks = done < 0 && done != -EAGAIN && c->tls == CONN_SECURE;
    BIO_clear_retry_flags(b);
    c->io_err = done < 0 ? (int)done : 0;
    if (breaks)
        conn_break(c, (int)done);
    if (done == -EAGAIN || breaks)
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
    if (b == NULL) {
        conn_fail(c, -ENOMEM);
        return;
    }
    BIO_set_data(b, c);
    BIO_set_init(b, 1);
    SSL_set_bio(c->ssl, b, b);
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
    int err = e == SSL_ERROR_ZERO_RETURN ? 0 : e == SSL_ERROR_SYSCALL ? c->io_err : -EPROTO;
    if (e != SSL_ERROR_ZERO_RETURN)
        tls_explain(c, what, err);
    conn_fail(c, err);
    return false;
}

static void tls_begin_call(struct conn *c) {
    ERR_clear_error();
    c->io_err = 0;
}

static void tls_shake(struct conn *c) {
    tls_begin_call(c);
    c->want_write = false;
    int rc = c->tls_server ? SSL_accept(c->ssl) : SSL_connect(c->ssl);
    if (tls_result(c, rc, "TLS handshake")) {
        c->tls = CONN_SECURE;
        loop_later(c->loop, &c->turn); /* output may have waited for it */
        raise_event(c, CONN_TLS_UP);
    }
    watch(c);
}

void conn_tls(struct conn *c, SSL *ssl, bool server) {
    c->ssl = ssl;
    c->tls = CONN_TO_TLS;
    c->tls_server = server;
    c->clear_left = conn_pending(c);
    c->input_due = false;
    if (!c->offering) /* else offer drops it, when the owner has returned */
        drop_input(c);
    if (ssl == NULL)
        conn_fail(c, -ENOMEM);
    loop_later(c->loop, &c->turn);
}

/* Everything in clear is written: the handshake. */
static void tls_start(struct conn *c) {
    c->tls = CONN_SHAKING;
    tls_wire(c);
    if (!c->tls_server && !c->ended)
        tls_shake(c);
}

/* -- output -- */

/* A buffer that once was large is not kept by an idle connection. */
static void trim(struct sbuf *b) {
    if (b->cap > IDLE_BUF)
        sbuf_free(b);
    else
        sbuf_reset(b);
}

/* All output is in the kernel, or is dropped. */
static void output_written(struct conn *c) {
    c->out_at = 0;
    if (c->secret)
        mem_wipe(c->out.p, c->out.cap);
    c->secret = false;
    c->want_write = false;
    trim(&c->out);
}

/* Writes a piece; the bytes taken, or 0 when the kernel takes none now or writing has failed. */
static size_t write_some(struct conn *c, const char *p, size_t n) {
    if (c->tls == CONN_SECURE) {
        tls_begin_call(c);
        int done = SSL_write(c->ssl, p, (int)(n > 16384 ? 16384 : n));
        return tls_result(c, done, "TLS write") ? (size_t)done : 0;
    }
    ssize_t done = sock_send(c->fd, p, n);
    if (done >= 0)
        return (size_t)done;
    if (done == -EAGAIN)
        c->want_write = true;
    else
        conn_break(c, (int)done);
    return 0;
}

/* What may be written now. */
static size_t writable(const struct conn *c) {
    if (c->connecting || c->err != 0 || c->broken != 0 || c->tls == CONN_SHAKING)
        return 0;
    return c->tls == CONN_TO_TLS ? c->clear_left : conn_pending(c);
}

/* Writes what the kernel takes. */
static void write_out(struct conn *c) {
    size_t n, done;
    while ((n = writable(c)) > 0) {
        done = write_some(c, c->out.p + c->out_at, n);
        if (done == 0)
            break;
        c->out_at += done;
        if (c->tls == CONN_TO_TLS)
            c->clear_left -= done;
        if (c->out_at == c->out.n)
            output_written(c);
    }
    if (c->out_at > CONN_OUT_MAX) { /* a peer that is never up to date does not make it grow */
        sbuf_drop(&c->out, c->out_at);
        c->out_at = 0;
    }
}

void conn_touch(struct conn *c) {
    if (c->err != 0)
        output_written(c);
    if (conn_pending(c) == 0)
        return;
    c->drain_due = true;
    if (!c->closing)
        loop_later(c->loop, &c->turn);
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

/* -- input -- */

/* What the owner has not used is kept: the bytes of c->in behind those, or of the n at p. */
static void keep_unused(struct conn *c, const char *p, size_t n, size_t used) {
    if (c->in.n > 0)
        sbuf_drop(&c->in, used);
    else if (used < n)
        sbuf_add(&c->in, p + used, n - used);
    forget_input(c, c->in.p + c->in.n, c->in.cap - c->in.n);
    if (c->in.n == 0)
        trim(&c->in);
    else
        c->input_due = !takes_input(c);
}

/* Offers the bytes until the owner uses no more or takes none now; returns how many it used. */
static size_t offer_bytes(struct conn *c, const char *p, size_t n) {
    size_t used = 0, k = 1;
    c->offering = true;
    while (used < n && k > 0 && takes_input(c)) {
        k = c->ops->input(c->arg, p + used, n - used);
        used += k;
    }
    c->offering = false;
    return used;
}

/* Offers kept input and n new bytes, which may be overwritten. */
static void offer(struct conn *c, char *p, size_t n) {
    bool kept = c->in.n > 0;
    enum conn_tls before = c->tls;
    if (kept)
        sbuf_add(&c->in, p, n);
    size_t all = kept ? c->in.n : n;
    size_t used = offer_bytes(c, kept ? c->in.p : p, all);
    c->talks = c->talks || (c->detached && (used < all || n == c->loop->read_max));
    if (c->tls != before || c->closing || c->detached) /* what came in clear is not kept */
        drop_input(c);
    else
        keep_unused(c, p, n, used);
    forget_input(c, p, n);
}

/* Returns the bytes read; 0 or less when there are none now or reading has ended. */
static ssize_t read_some(struct conn *c, char *buf, size_t n) {
    if (c->tls == CONN_SECURE) {
        tls_begin_call(c);
        int rc = SSL_read(c->ssl, buf, (int)n);
        return tls_result(c, rc, "TLS read") ? rc : -1;
    }
    ssize_t got = sock_recv(c->fd, buf, n);
    if (got <= 0 && got != -EAGAIN)
        conn_fail(c, (int)got);
    return got;
}

/* Kept input first, then what the descriptor has. */
static void read_ready(struct conn *c) {
    bool more = true;
    if (c->input_due && c->in.n > 0) {
        c->input_due = false;
        offer(c, c->loop->scratch, 0);
    }
    for (int i = 0; i < READS_A_TURN && more && takes_input(c); i++) {
        size_t max = c->loop->read_max;
        ssize_t n = read_some(c, c->loop->scratch, max);
        if (n <= 0)
            return;
        offer(c, c->loop->scratch, (size_t)n);
        more = c->tls == CONN_SECURE ? SSL_pending(c->ssl) > 0 : (size_t)n == max;
    }
    if (!c->closing && c->tls == CONN_SECURE && SSL_pending(c->ssl) > 0) {
        c->input_due = true; /* the descriptor does not announce what the TLS layer holds */
        loop_later(c->loop, &c->turn);
    }
}

bool conn_fetch(struct conn *c) {
    bool up = c->tls != CONN_TO_TLS && c->tls != CONN_SHAKING;
    if (!c->closing && !c->ended && !c->connecting && up && c->in.n == 0) {
        ssize_t n = read_some(c, sbuf_room(&c->in, FETCH_MAX), FETCH_MAX);
        sbuf_advance(&c->in, n > 0 ? (size_t)n : 0);
    }
    return c->in.n > 0;
}

void conn_pause(struct conn *c) {
    c->paused = true;
}

void conn_resume(struct conn *c) {
    if (!c->paused)
        return;
    c->paused = false;
    c->input_due = c->input_due || c->in.n > 0;
    if (!c->offering)
        loop_later(c->loop, &c->turn);
}

/* -- what the loop calls -- */

static void connect_ready(struct conn *c) {
    int err = sock_error(c->fd);
    c->connecting = false;
    if (err != 0) {
        conn_fail(c, err);
        return;
    }
    watch_for(c, UV_READABLE);
    loop_later(c->loop, &c->turn); /* output may have waited for it */
    raise_event(c, CONN_CONNECTED);
}

/* Reads what the peer still sends, and drops it; true if there was any.  At the end of it the
 * connection is closed. */
static bool drop_arriving(struct conn *c) {
    ssize_t n = 1;
    int i = 0;
    for (; i < READS_A_TURN && n > 0; i++) {
        n = sock_recv(c->fd, c->loop->scratch, c->loop->read_max);
        if (n > 0)
            forget_input(c, c->loop->scratch, (size_t)n);
    }
    if (n <= 0 && n != -EAGAIN)
        conn_close(c);
    return i > 1;
}

static void on_poll(uv_poll_t *h, int status, int events) {
    struct conn *c = h->data;
    c->loop->now_ms = clock_mono_ms();
    if (status < 0) /* an error of the socket, and libuv has stopped the handle */
        c->watched = 0;
    if (c->connecting) {
        connect_ready(c);
    } else if (c->tls == CONN_SHAKING) {
        tls_shake(c);
    } else if ((events & UV_WRITABLE) != 0) {
        c->want_write = false;
        c->input_due = c->input_due || c->tls == CONN_SECURE; /* reading may have waited for it */
        loop_later(c->loop, &c->turn);
    }
    if (takes_input(c))
        read_ready(c);
    else if (c->hears_out && !c->closing)
        (void)drop_arriving(c);
    else if ((events & UV_READABLE) != 0 && c->tls != CONN_SHAKING)
        unwatch_input(c);
    if (status < 0 && !c->closing && !c->ended) {
        int err = sock_error(c->fd);
        conn_break(c, err == 0 ? -ECONNRESET : err);
    }
}

/* Writing has failed.  An owner that asks is offered what its peer answered before that, within
 * bounds: a reply that has come is not lost.  An owner that answers could tell its peer nothing. */
static void fail_broken(struct conn *c) {
    ssize_t n = c->ops->answers ? 0 : 1;
    for (int i = 0; i < READS_A_TURN && n > 0; i++) {
        n = takes_input(c) && c->broken_reads++ < READS_OF_BROKEN
                ? read_some(c, c->loop->scratch, c->loop->read_max)
                : 0;
        if (n > 0)
            offer(c, c->loop->scratch, (size_t)n);
    }
    if (c->closing)
        return;
    if (n > 0)
        loop_later(c->loop, &c->turn);
    else
        conn_fail(c, c->broken);
}

static void tell_ended(struct conn *c) {
    if (c->told)
        return;
    c->told = true;
    raise_event(c, CONN_CLOSED);
}

/* A socket that is closed with unread input is reset, and what was written last may be lost with
 * it: a peer that goes on talking is heard out for a moment. */
static void hear_out(struct conn *c) {
    c->hears_out = true;
    if (c->tls == CONN_SECURE)
        SSL_shutdown(c->ssl);
    ERR_clear_error();
    sock_shut(c->fd);
    conn_deadline(c, HEAR_OUT_MS);
}

/* All output is written. */
static void linger_written(struct conn *c) {
    bool can = c->answers && !c->ended && c->loop->n_last <= HEAR_OUT_MAX;
    if (c->hears_out)
        return;
    if (can && c->may_talk && drop_arriving(c))
        c->talks = true;
    if (c->closing)
        return;
    if (can && c->talks)
        hear_out(c);
    else
        conn_close(c);
}

/* A connection without an owner: closed when its output is written or cannot be. */
static void linger(struct conn *c) {
    bool late = c->alarm.at_ms != 0 && c->alarm.at_ms <= c->loop->now_ms;
    if (late || c->err != 0)
        conn_close(c);
    else if (conn_pending(c) == 0)
        linger_written(c);
}

/* The events that are due, now that output is written as far as possible. */
static void raise_due(struct conn *c) {
    if (c->input_due && takes_input(c))
        read_ready(c);
    if (c->closing || c->detached)
        return;
    if (c->ended) {
        tell_ended(c);
        return;
    }
    if (c->drain_due && conn_pending(c) == 0) {
        c->drain_due = false;
        raise_event(c, CONN_DRAINED);
    }
    if (c->alarm.at_ms != 0 && c->alarm.at_ms <= c->loop->now_ms && !c->closing) {
        c->alarm.at_ms = 0;
        raise_event(c, CONN_TIMEOUT);
    }
}

static void conn_turn(struct later *t) {
    struct conn *c = DL_OWNER(t, struct conn, turn);
    write_out(c);
    if (c->broken != 0 && !c->ended)
        fail_broken(c);
    if (c->closing)
        return;
    if (c->tls == CONN_TO_TLS && c->clear_left == 0 && !c->ended)
        tls_start(c);
    if (c->detached)
        linger(c);
    else
        raise_due(c);
    watch(c);
}

void conn_deadline(struct conn *c, int64_t ms) {
    c->alarm.at_ms = ms == 0 ? 0 : c->loop->now_ms + ms;
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
