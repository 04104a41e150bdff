/*
 * util/conn.h - a non-blocking stream socket on a loop, plain or TLS
 *
 * Belongs to one loop and is used on that loop's thread only.  Output is gathered and written
 * once before the loop sleeps.  conn_close is the only way to free it; the memory goes after the
 * loop has let go of the descriptor, and no callback is made after conn_close.
 */
#ifndef PH_UTIL_CONN_H
#define PH_UTIL_CONN_H

#include <openssl/ssl.h>

#include "util/loop.h"
#include "util/net.h"
#include "util/str.h"

struct conn;

enum conn_event {
    CONN_CONNECTED, /* conn_connect succeeded */
    CONN_TLS_UP,    /* the handshake is done */
    CONN_DRAINED,   /* all output is in the kernel */
    CONN_CLOSED,    /* the peer closed, or an error: conn_error says which */
    CONN_TIMEOUT    /* the deadline passed */
};

struct conn_ops {
    /* Takes input; returns how much it used.  The rest is offered again with what follows. */
    size_t (*input)(void *arg, const char *p, size_t n);
    void (*event)(void *arg, enum conn_event ev);
};

/* Takes over a connected descriptor. */
struct conn *conn_new(struct loop *l, int fd, const struct conn_ops *ops, void *arg);
/* Starts to connect, from the local address unless it is NULL.  NULL with *err (negative errno) if
 * that fails at once. */
struct conn *conn_connect(struct loop *l, const struct netaddr *to, const struct netaddr *from,
                          const struct conn_ops *ops, void *arg, int *err);
void conn_close(struct conn *c);
/* Closes once all output has been written, or after ten seconds. */
void conn_close_after_write(struct conn *c);
void conn_write(struct conn *c, const void *p, size_t n);
void conn_write_c(struct conn *c, const char *text);
void conn_printf(struct conn *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Where replies are built in place; call conn_touch afterwards. */
struct sbuf *conn_out(struct conn *c);
void conn_touch(struct conn *c);
/* Tries to write now instead of before the loop sleeps. */
void conn_flush(struct conn *c);
/* What is to be written now holds a secret: it is overwritten once it has been sent. */
void conn_wipe_output(struct conn *c);
/* Bytes not yet in the kernel. */
size_t conn_pending(const struct conn *c);
/* Stops and restarts the delivery of input; what was read meanwhile is offered on resume. */
void conn_pause(struct conn *c);
void conn_resume(struct conn *c);
/* Milliseconds from now; 0: none. */
void conn_deadline(struct conn *c, int64_t ms);
/* Starts TLS on ssl (taken over).  Input that arrived in clear and was not used is discarded:
 * a command sent together with STARTTLS never runs inside TLS (CVE-2011-0411). */
void conn_tls(struct conn *c, SSL *ssl, bool server);
SSL *conn_ssl(const struct conn *c);
/* Negative errno, 0 for an orderly close; conn_tls_error has text when TLS failed. */
int conn_error(const struct conn *c);
const char *conn_tls_error(const struct conn *c);
int conn_fd(const struct conn *c);

/* Called by the loop. */
void conn_check_deadlines(struct loop *l);
void conn_flush_all(struct loop *l);

#endif
