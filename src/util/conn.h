/*
 * util/conn.h - a non-blocking stream socket on a loop, plain or TLS
 *
 * Belongs to one loop and is used on that loop's thread only.
 *
 * When the owner is called.  conn_ops are called by the loop, never from inside a conn_* function:
 * an owner that writes, resumes, starts TLS or closes is not called back before it has returned to
 * the loop.  What a call finds out (a write that fails, input that is kept) is noted, and raised
 * later in the same turn of the loop.  Calls for one connection do not nest.
 *
 * In what order.  CONN_CONNECTED comes before everything else on a connection that conn_connect
 * made.  Bytes are offered in the order in which they came, and all of them before CONN_CLOSED
 * says that the peer has ended its side, or that writing has failed (to an owner that asks: up to
 * 32 reads of loop->read_max).  An error may overtake bytes that a paused owner has not taken.
 * CONN_CLOSED comes at most once, and nothing comes after it: the owner then closes.
 *
 * Who may free what.  conn_close and conn_close_after_write may be called at any time, also from
 * inside input and event, also for another connection.  No call of the owner follows either of
 * them, so the owner may free itself and what ops and arg point to.  The memory of the connection,
 * and the bytes that input was given, stay until that input has returned.
 *
 * What conn_close_after_write detaches.  The connection then has no owner: it writes what it
 * has, and is gone when that is done, when writing fails, or after ten seconds.  A peer of an owner
 * that answers and that goes on talking is told that this is all, and what it says is dropped until
 * it closes, for a second at most: a socket with unread input would be reset, and the last replies
 * lost.
 * Where output cannot be written (while connecting, between conn_tls and CONN_TLS_UP, after an
 * error) it is gone at once.
 *
 * What is bounded.  For an owner that answers its peer (ops->answers) no input is offered, and
 * soon none is read, while more than CONN_OUT_MAX bytes of output are pending: a peer that does not
 * read costs this much and what one offer adds.  Other owners bound their output by
 * conn_pending and CONN_DRAINED.  Input that is kept is at most what the owner left of one offer
 * and one read of loop->read_max.  Output to a connection that has failed is dropped.
 *
 * Output is gathered and written once before the loop sleeps.  Nothing here raises SIGPIPE.
 */
#ifndef PH_UTIL_CONN_H
#define PH_UTIL_CONN_H

#include <openssl/ssl.h>

#include "util/loop.h"
#include "util/net.h"
#include "util/str.h"

/* Bytes of pending output above which an owner that answers is offered no input. */
#define CONN_OUT_MAX 65536U

struct conn;

enum conn_event {
    CONN_CONNECTED = 1, /* conn_connect succeeded */
    CONN_TLS_UP,        /* the handshake is done */
    CONN_DRAINED,       /* all output is in the kernel */
    CONN_CLOSED,        /* the peer ended its side, or an error: conn_error says which */
    CONN_TIMEOUT        /* the deadline has passed; there is none any more */
};

struct conn_ops {
    /* Takes input; returns how much it used, at most n.  The rest is offered again with what
     * follows.  The bytes may be overwritten. */
    size_t (*input)(void *arg, const char *p, size_t n);
    void (*event)(void *arg, enum conn_event ev);
    bool answers; /* the peer asks, the owner answers: see what is bounded */
    bool wipes;   /* input may be secret: each copy of it is overwritten once it has been used */
};

/* Takes over a connected descriptor.  NULL if the system refuses; the descriptor is closed then. */
struct conn *conn_new(struct loop *l, int fd, const struct conn_ops *ops, void *arg);
/* Starts to connect, from the local address unless it is NULL.  NULL with *err (negative errno) if
 * that fails at once; else CONN_CONNECTED or CONN_CLOSED follows. */
struct conn *conn_connect(struct loop *l, const struct netaddr *to, const struct netaddr *from,
                          const struct conn_ops *ops, void *arg, int *err);
/* Output that is not in the kernel yet is lost. */
void conn_close(struct conn *c);
/* Closes once all output has been written; the owner is detached at once. */
void conn_close_after_write(struct conn *c);
void conn_write(struct conn *c, const void *p, size_t n);
void conn_write_c(struct conn *c, const char *text);
void conn_printf(struct conn *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Where replies are built in place; call conn_touch afterwards. */
struct sbuf *conn_out(struct conn *c);
void conn_touch(struct conn *c);
/* What is to be written now holds a secret: it is overwritten once it has been sent. */
void conn_wipe_output(struct conn *c);
/* Bytes not yet in the kernel. */
size_t conn_pending(const struct conn *c);
/* Stops and restarts the delivery of input.  What was read meanwhile is offered after conn_resume,
 * by the loop.  While paused, CONN_CLOSED comes for an error and not for the end of input. */
void conn_pause(struct conn *c);
void conn_resume(struct conn *c);
/* Has anything come that the owner, which is paused, has not been offered?  It is read and kept. */
bool conn_fetch(struct conn *c);
/* Milliseconds from now, at the loop's tick; 0: none.  Replaces the one that was set. */
void conn_deadline(struct conn *c, int64_t ms);
/* Starts TLS on ssl (taken over), from the loop, when all that was written before is in the
 * kernel; what is written afterwards goes through TLS.  Input that arrived in clear and was not
 * used is discarded: a command sent together with STARTTLS never runs inside TLS (CVE-2011-0411).
 * CONN_TLS_UP or CONN_CLOSED follows.  ssl NULL: as a handshake that fails. */
void conn_tls(struct conn *c, SSL *ssl, bool server);
/* NULL before conn_tls. */
SSL *conn_ssl(const struct conn *c);
/* Negative errno; 0 while all is well and after an orderly close. */
int conn_error(const struct conn *c);
/* What went wrong with TLS; "" if nothing did. */
const char *conn_tls_error(const struct conn *c);
int conn_fd(const struct conn *c);

#endif
