/*
 * daemon/content.c - a queued message with its content; see content.h
 *
 * The spool's reader thread reads the message back and posts it to the loop.  A reader that was
 * forgotten meanwhile is freed when it comes back.
 */
#include "daemon/content.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/overview.h"
#include "util/codec.h"
#include "util/mem.h"

#define PIECE_MAX 49152U /* of content in one line; a multiple of 3, so that no line is padded */

struct content_reader {
    struct loop *loop;
    struct spool_op op;
    struct task back;
    struct body *body; /* NULL: it is being read */
    uint64_t sent;     /* bytes of content */
    struct conn *conn; /* NULL: forgotten */
    void (*done)(void *arg);
    void *arg;
};

static void content_free(struct content_reader *r) {
    if (r->body != NULL)
        body_unref(r->body);
    free(r);
}

/* What the client is told last. */
static void content_end(struct content_reader *r, const char *error) {
    if (error == NULL)
        conn_write_c(r->conn, "{\"ok\": true}\n");
    else
        conn_printf(r->conn, "{\"ok\": false, \"error\": \"%s\"}\n", error);
    r->done(r->arg);
    content_free(r);
}

void content_more(struct content_reader *r) {
    struct sbuf tmp = {0}, b = {0};
    bool whole = true;
    if (r->body == NULL)
        return;
    while (r->sent < r->body->size && whole && conn_pending(r->conn) < PIECE_MAX) {
        struct str piece = body_view(r->body, r->sent, PIECE_MAX, &tmp);
        whole = piece.p != NULL && piece.n > 0;
        sbuf_reset(&b);
        sbuf_add_c(&b, "{\"content\": \"");
        base64_encode(&b, piece);
        sbuf_add_c(&b, "\"}\n");
        if (whole)
            conn_write(r->conn, b.p, b.n);
        r->sent += piece.n;
    }
    sbuf_free(&tmp);
    sbuf_free(&b);
    if (!whole)
        content_end(r, "the content cannot be read");
    else if (r->sent >= r->body->size)
        content_end(r, NULL);
}

static void content_back(struct task *t) {
    struct content_reader *r = DL_OWNER(t, struct content_reader, back);
    r->body = r->op.rc == 0 ? r->op.body : NULL;
    if (r->conn == NULL)
        content_free(r);
    else if (r->body == NULL)
        content_end(r, strerror(-r->op.rc));
    else
        content_more(r);
}

/* On the spool's reader thread. */
static void content_was_read(struct spool_op *op) {
    struct content_reader *r = DL_OWNER(op, struct content_reader, op);
    loop_post(r->loop, &r->back);
}

struct content_reader *content_reader_new(struct loop *l, struct spool *sp,
                                          const struct sched_view *v, struct conn *conn,
                                          void (*done)(void *arg), void *arg) {
    struct content_reader *r = MEM_NEW(struct content_reader);
    struct sbuf b = {0};
    *r = (struct content_reader){.loop = l, .conn = conn, .done = done, .arg = arg};
    overview_message(&b, v);
    overview_envelope(&b, v);
    conn_write(conn, b.p, b.n);
    sbuf_free(&b);
    r->op.kind = SPOOL_READ;
    r->op.id = v->env->id;
    r->op.done = content_was_read;
    r->back.run = content_back;
    spool_submit(sp, &r->op);
    return r;
}

void content_forget(struct content_reader *r) {
    if (r == NULL)
        return;
    r->conn = NULL;
    if (r->body != NULL)
        content_free(r);
}
