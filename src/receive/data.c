/*
 * receive/data.c - message content in: DATA, BDAT, header, spooling, 250
 *
 * Content is decoded into memory.  When it gets large it goes to a file of the spool in chunks, one
 * at a time: the client is not read from while a chunk is being written, so a sender of any size
 * costs one chunk.  When all sessions together hold a quarter of message_memory_limit, chunks and
 * reads become small, and tiny at a half: everybody goes on, at the pace of the disk.  250 is
 * sent from the spool's completion.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "receive/session.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/tls.h"

#define CHUNK       65536U
#define SMALL_CHUNK 4096U
#define TINY_CHUNK  1024U

static _Atomic uint64_t receiving; /* bytes of content held by all sessions */

/* A commit or a chunk on its way through the spool. */
struct data_op {
    struct spool_op op;
    struct task back; /* to the session's loop */
    struct session *s;
    struct loop *loop;
    struct envelope *env;
    const struct receive_ops *ops;
};

/* How much content a session may gather before it goes to the file. */
static uint32_t chunk_size(const struct session *s) {
    uint64_t held = atomic_load_explicit(&receiving, memory_order_relaxed);
    uint64_t quarter = (uint64_t)s->cfg->p.message_memory_limit / 4;
    return held > 2 * quarter ? TINY_CHUNK : held > quarter ? SMALL_CHUNK : CHUNK;
}

/* writing: bytes on their way to the file. */
static void count_memory(struct session *s, size_t writing) {
    uint64_t now = s->content.cap + writing;
    if (now >= s->counted_mem)
        atomic_fetch_add_explicit(&receiving, now - s->counted_mem, memory_order_relaxed);
    else
        atomic_fetch_sub_explicit(&receiving, s->counted_mem - now, memory_order_relaxed);
    s->counted_mem = now;
    uint32_t chunk = chunk_size(s);
    s->r->loop->read_max = chunk == CHUNK ? LOOP_SCRATCH : chunk;
}

static void drop_done(struct spool_op *op) {
    free(DL_OWNER(op, struct data_op, op));
}

static void drop_file(struct spool *sp, uint64_t id) {
    struct data_op *o = MEM_NEW(struct data_op);
    o->op.kind = SPOOL_BODY_DROP;
    o->op.id = id;
    o->op.done = drop_done;
    spool_submit(sp, &o->op);
}

void data_discard(struct session *s) {
    if (s->in_file && !s->writing)
        drop_file(s->r->spool, s->id);
    s->in_file = s->ended = s->too_big = s->failed = s->hdr_done = false;
    s->file_at = s->size = 0;
    s->file_crc = 0;
    s->fail_rc = 0;
    s->in = (struct content_in){0};
    sbuf_free(&s->content);
    count_memory(s, 0);
    header_scan_free(&s->hdr);
    s->hdr = (struct header_scan){0};
}

static const char *protocol(const struct session *s) {
    if (!s->esmtp)
        return "SMTP";
    bool utf8 = (s->flags & ENV_SMTPUTF8) != 0;
    static const char *const names[2][2][2] = {
        {{"ESMTP", "ESMTPA"}, {"ESMTPS", "ESMTPSA"}},
        {{"UTF8SMTP", "UTF8SMTPA"}, {"UTF8SMTPS", "UTF8SMTPSA"}}};
    return names[utf8][s->tls_on][s->sasl_user != NULL]; /* RFC 3848, RFC 6531 */
}

/* Postfix's Received: header field. */
static void add_received(struct session *s) {
    struct sbuf *b = &s->content;
    if (s->local) {
        sbuf_printf(b, "Received: by %s (%s, from userid %u)\r\n\tid %s; ", s->cfg->p.myhostname,
                    s->cfg->p.mail_name, s->uid, s->qid);
    } else {
        sbuf_printf(b, "Received: from %s (%s [%s%s])\r\n", s->helo == NULL ? s->name : s->helo,
                    s->name, strchr(s->addr, ':') != NULL ? "IPv6:" : "", s->addr);
        if (s->tls_on && s->p->smtpd_tls_received_header) {
            sbuf_add_c(b, "\t(using ");
            tls_describe(conn_ssl(s->conn), b);
            sbuf_add_c(b, ")\r\n\t(No client certificate requested)\r\n");
        }
        if (s->sasl_user != NULL && s->p->smtpd_sasl_authenticated_header)
            sbuf_printf(b, "\t(Authenticated sender: %s)\r\n", s->sasl_user);
        sbuf_printf(b, "\tby %s (%s) with %s id %s\r\n\t", s->cfg->p.myhostname,
                    s->cfg->p.mail_name, protocol(s), s->qid);
        if (s->n_rcpts == 1) {
            sbuf_add_c(b, "for <");
            addr_external(b, str_make(s->texts.p + s->rcpts[0].addr_at, s->rcpts[0].addr_n));
            sbuf_add_c(b, ">; ");
        } else {
            b->n -= 3; /* "\r\n\t": the date follows on the same line */
            sbuf_add_c(b, ";\r\n\t");
        }
    }
    clock_add_rfc5322(b, s->arrival_us);
    sbuf_add_c(b, "\r\n");
}

void data_begin(struct session *s) {
    data_discard(s);
    s->mode = MODE_DATA;
    add_received(s);
    s->size = 0;
    conn_printf(s->conn, "354 End data with <CR><LF>.<CR><LF>\r\n"); /* counted at its end */
}

/* Does this client get missing header fields added?  permit_inet_interfaces, permit_mynetworks. */
static bool completes_headers(struct session *s) {
    const char *who = s->p->local_header_rewrite_clients;
    if (s->local || s->p->always_add_missing_headers)
        return true;
    if (session_word(who, "permit_mynetworks") && access_is_ours(s, s->p->mynetworks))
        return true;
    if (!session_word(who, "permit_inet_interfaces"))
        return false;
    struct str own = str_of(cfg_source_fact(s->cfg->source, "system_addresses")), w;
    while (str_split(&own, " ", &w))
        if (str_eq_c(w, s->addr))
            return true;
    return false;
}

/* Fields that are missing, to be put at the end of the header section. */
static void missing_fields(struct session *s, struct sbuf *add) {
    const struct header_scan *h = &s->hdr;
    if (completes_headers(s)) {
        if (!h->has_message_id)
            sbuf_printf(add, "Message-Id: <%s@%s>\r\n", s->qid, s->cfg->p.myhostname);
        if (!h->has_date) {
            sbuf_add_c(add, "Date: ");
            clock_add_rfc5322(add, s->arrival_us);
            sbuf_add_c(add, "\r\n");
        }
        if (!h->has_from) {
            sbuf_add_c(add, "From: ");
            if (s->sender_n == 0)
                sbuf_printf(add, "MAILER-DAEMON@%s", s->cfg->p.myorigin);
            else
                addr_external(add, command_sender(s));
            sbuf_add_c(add, "\r\n");
        }
        if (!h->has_message_id)
            sbuf_printf(&s->hdr.message_id, "<%s@%s>", s->qid, s->cfg->p.myhostname);
    }
    if (h->no_separator)
        sbuf_add_c(add, "\r\n");
}

/* Looks at new header lines; at the end of the section, completes it. */
static void scan_header(struct session *s, bool last) {
    struct sbuf add = {0};
    if (s->hdr_done)
        return;
    header_scan(&s->hdr, sbuf_str(&s->content), last);
    if (!s->hdr.ended)
        return;
    s->hdr_done = true;
    missing_fields(s, &add);
    if (add.n > 0) {
        size_t at = s->hdr.end, tail = s->content.n - at;
        sbuf_room(&s->content, add.n);
        memmove(s->content.p + at + add.n, s->content.p + at, tail);
        memcpy(s->content.p + at, add.p, add.n);
        sbuf_advance(&s->content, add.n);
    }
    sbuf_free(&add);
}

static void finish(struct session *s);

/* The spool has answered a chunk or the opening of the file: back on the session's loop. */
static void chunk_back(struct task *t) {
    struct data_op *o = DL_OWNER(t, struct data_op, back);
    struct session *s = o->s;
    s->writing = false;
    s->file_crc = o->op.crc;
    if (o->op.rc < 0 && !s->failed) {
        s->failed = true;
        s->fail_rc = o->op.rc;
    }
    sbuf_free(&o->op.chunk);
    count_memory(s, 0);
    free(o);
    if (s->gone) {
        s->in_file = true;
        data_discard(s);
    } else {
        s->waiting = false;
        if (s->ended)
            finish(s);
        else
            session_go(s);
    }
    session_unhold(s);
}

static void chunk_done(struct spool_op *op) {
    struct data_op *o = DL_OWNER(op, struct data_op, op);
    o->back.run = chunk_back;
    loop_post(o->loop, &o->back);
}

/* Of the gathered content, what may go to the file: a header section that is not complete keeps the
 * line that has not been judged, so that fields can still be put before it. */
static size_t writable(const struct session *s) {
    return s->hdr_done || s->too_big || s->failed ? s->content.n : s->hdr.at;
}

static void submit_chunk(struct session *s) {
    size_t n = writable(s);
    struct sbuf rest = {0};

    struct data_op *o = MEM_NEW(struct data_op);
    o->s = s;
    o->loop = s->r->loop;
    o->op.kind = SPOOL_BODY_WRITE;
    o->op.id = s->id;
    o->op.done = chunk_done;
    o->op.off = s->file_at;
    o->op.crc = s->file_crc;
    o->op.chunk = s->content;
    if (n < s->content.n)
        sbuf_add(&rest, s->content.p + n, s->content.n - n);
    if (!s->hdr_done)
        header_drop(&s->hdr, n < s->hdr.at ? n : s->hdr.at);
    o->op.chunk.n = n;
    s->file_at += n;
    s->content = rest;
    count_memory(s, o->op.chunk.cap);
    s->writing = true;
    s->holds++;
    spool_submit(s->r->spool, &o->op);
}

/* Moves large content to its file; true if the session has to wait for the spool. */
static bool spill(struct session *s) {
    uint32_t chunk = chunk_size(s);
    uint64_t limit =
        chunk < CHUNK && s->hdr_done ? chunk : (uint64_t)s->cfg->p.spool_body_file_size;
    if (s->writing)
        return true;
    if (!s->in_file) {
        if (s->content.n < limit)
            return false;
        s->in_file = true;
    }
    size_t ready = writable(s);
    if (ready == 0 || (ready < chunk && !s->ended))
        return false;
    submit_chunk(s);
    return true;
}

/* What is too big or failed is read to its end, but not kept. */
static void check_size(struct session *s, size_t before) {
    int64_t limit = s->cfg->p.message_size_limit;
    s->size += s->content.n - before;
    if (limit > 0 && s->size > (uint64_t)limit)
        s->too_big = true;
    if (s->too_big || s->failed)
        s->content.n = before;
}

size_t data_input(struct session *s, const char *p, size_t n) {
    size_t used = 0, before = s->content.n;
    bool end = content_data(&s->in, str_make(p, n), &s->content, &used);
    check_size(s, before);
    count_memory(s, 0);
    if (!s->too_big)
        scan_header(s, end);
    if (end) {
        s->verb = VERB_DATA;
        s->ended = true;
        s->mode = MODE_COMMAND;
        finish(s);
    } else if (spill(s)) {
        session_wait(s);
    }
    return used;
}

static void bdat_end_chunk(struct session *s) {
    s->mode = MODE_COMMAND;
    if (s->bdat_last) {
        size_t before = s->content.n;
        content_bdat_end(&s->in, &s->content);
        check_size(s, before);
        if (!s->too_big)
            scan_header(s, true);
        s->ended = true;
        finish(s);
    } else if (spill(s)) {
        session_reply(s, true, "250 2.0.0 Ok: %llu bytes", (unsigned long long)s->bdat_size);
        session_wait(s);
    } else {
        session_reply(s, true, "250 2.0.0 Ok: %llu bytes", (unsigned long long)s->bdat_size);
    }
}

/* A refused chunk is over; the last one ends the transaction too. */
static void bdat_skipped(struct session *s) {
    s->mode = MODE_COMMAND;
    if (s->bdat_last)
        session_reset(s);
}

/* The chunk of a BDAT that is refused must still be read (RFC 3030 section 2). */
void data_bdat_refuse(struct session *s) {
    s->bdat_refused = true;
    s->mode = MODE_BDAT;
    if (s->bdat_left == 0)
        bdat_skipped(s);
}

static void bdat_skip(struct session *s, const char *reply) {
    session_reply(s, false, "%s", reply);
    data_bdat_refuse(s);
}

static void bdat_go_on(struct session *s) {
    s->mode = MODE_BDAT;
    if (s->bdat_size == 0)
        bdat_end_chunk(s);
}

void data_bdat_begin(struct session *s) {
    data_discard(s);
    s->bdat_begun = true;
    add_received(s);
    s->size = 0;
    bdat_go_on(s);
}

/* "count [LAST]"; what follows anything else cannot be told from commands. */
static bool bdat_args(struct session *s, struct str args) {
    struct str w, last = STR_NONE;
    uint64_t size;
    if (!str_split(&args, " \t", &w) || !str_u64(w, &size) ||
        (str_split(&args, " \t", &last) && !str_ieq_c(last, "LAST")) || str_split(&args, " \t", &w))
        return false;
    s->bdat_left = s->bdat_size = size;
    s->bdat_last = last.n > 0;
    return true;
}

void data_bdat(struct session *s, struct str args) {
    if (!bdat_args(s, args)) {
        session_reply(s, false, "521 5.5.4 Syntax: BDAT count [LAST]");
        session_close(s, NULL);
    } else if (s->bdat_refused) {
        session_reply(s, false, "551 5.0.0 Discarded %llu bytes after earlier error",
                      (unsigned long long)s->bdat_size);
        data_bdat_refuse(s);
    } else if (s->bdat_size == 0 && !s->bdat_last) {
        bdat_skip(s, "551 5.7.1 Null BDAT request");
    } else if (s->n_rcpts == 0) {
        bdat_skip(s, s->in_mail ? "554 5.5.1 Error: no valid recipients"
                                : "503 5.5.1 Error: need RCPT command");
    } else if (s->bdat_begun) {
        bdat_go_on(s);
    } else if (s->p->smtpd_data_restrictions[0] == '\0') {
        data_bdat_begin(s);
    } else {
        access_begin(s, true);
        if (s->access != NULL)
            session_wait(s);
    }
}

size_t data_bdat_input(struct session *s, const char *p, size_t n) {
    size_t take = n < s->bdat_left ? n : (size_t)s->bdat_left, before = s->content.n;
    s->bdat_left -= take;
    if (s->bdat_refused) {
        if (s->bdat_left == 0)
            bdat_skipped(s);
        return take;
    }
    content_bdat(&s->in, str_make(p, take), &s->content);
    check_size(s, before);
    count_memory(s, 0);
    if (!s->too_big)
        scan_header(s, false);
    s->verb = VERB_BDAT;
    if (s->bdat_left == 0)
        bdat_end_chunk(s);
    else if (spill(s))
        session_wait(s);
    return take;
}

static struct envelope *make_envelope(struct session *s) {
    struct sbuf from = {0};
    struct rcpt *rcpts = mem_alloc(s->n_rcpts * sizeof *rcpts);
    for (size_t i = 0; i < s->n_rcpts; i++)
        rcpts[i] = (struct rcpt){str_make(s->texts.p + s->rcpts[i].addr_at, s->rcpts[i].addr_n),
                                 str_make(s->texts.p + s->rcpts[i].orcpt_at, s->rcpts[i].orcpt_n),
                                 s->rcpts[i].notify};
    session_from(s, &from);
    struct envelope t = {
        .id = s->id,
        .arrival_us = s->arrival_us,
        .size = s->in_file ? s->file_at : s->content.n,
        .flags = s->flags | (s->in.has_8bit ? ENV_8BIT : 0U) | (s->in.has_dots ? ENV_DOTS : 0U) |
                 (s->in.has_long ? ENV_LONG_LINES : 0U) | (s->local ? ENV_LOCAL : 0U),
        .sender = command_sender(s),
        .envid = sbuf_str(&s->envid),
        .client = sbuf_str(&from),
        .sasl_user = str_of(s->sasl_user == NULL ? "" : s->sasl_user),
        .rcpts = rcpts,
        .n_rcpts = (uint32_t)s->n_rcpts};
    memcpy(t.qid, s->qid, sizeof t.qid);
    struct envelope *e = envelope_make(&t);
    free(rcpts);
    sbuf_free(&from);
    return e;
}

/* The commit's answer, on the session's loop: the one place that says 250 to a message. */
static void commit_back(struct task *t) {
    struct data_op *o = DL_OWNER(t, struct data_op, back);
    struct session *s = o->s;
    s->waiting = false;
    if (!s->gone) {
        if (o->op.rc == 0)
            session_reply(s, true, "250 2.0.0 Ok: queued as %s", o->env->qid);
        else if (o->op.rc == -ENOSPC || o->op.rc == -EFBIG || o->op.rc == -EDQUOT)
            session_reply(s, false, "452 4.3.1 Insufficient system storage");
        else
            session_reply(s, false, "451 4.3.0 Error: queue file write error");
        if (o->op.rc < 0)
            log_warn("smtpd", "%s: queue write error: %s", o->env->qid, strerror(-o->op.rc));
        session_reset(s);
        session_go(s);
    }
    envelope_unref(o->env);
    free(o);
    session_unhold(s);
}

static void commit_done(struct spool_op *op) {
    struct data_op *o = DL_OWNER(op, struct data_op, op);
    sbuf_free(&op->meta);
    if (op->rc == 0)
        o->ops->accepted(o->ops->arg, envelope_ref(o->env), op->body);
    else
        body_unref(op->body);
    o->back.run = commit_back;
    loop_post(o->loop, &o->back);
}

static void commit(struct session *s) {
    struct data_op *o = MEM_NEW(struct data_op);
    o->s = s;
    o->loop = s->r->loop;
    o->ops = &s->r->ops;
    o->env = make_envelope(s);
    o->op.kind = SPOOL_NEW;
    o->op.id = s->id;
    o->op.done = commit_done;
    envelope_encode(o->env, &o->op.meta);
    o->op.body = s->in_file ? body_from_file(s->file_at, s->file_crc) : body_from_buf(&s->content);
    s->in_file = false; /* the file is the spool's now */
    s->content = (struct sbuf){0};
    count_memory(s, 0);
    s->holds++;
    if (!s->waiting)
        session_wait(s);
    session_expect(s, false);
    spool_submit(s->r->spool, &o->op);
}

static void log_message_id(const struct session *s) {
    const struct sbuf *id = &s->hdr.message_id;
    if (s->local) {
        struct sbuf b = {0};
        sbuf_printf(&b, "%s: uid=%u from=<", s->qid, s->uid);
        addr_external(&b, command_sender(s));
        log_info("pickup", "%s>", b.p);
        sbuf_free(&b);
    }
    log_info("cleanup", "%s: message-id=%s", s->qid, id->n == 0 ? "<>" : id->p);
}

static bool refuse_content(struct session *s) {
    if (s->failed) {
        session_reply(s, false,
                      s->fail_rc == -ENOSPC ? "452 4.3.1 Insufficient system storage"
                                            : "451 4.3.0 Error: queue file write error");
    } else if (s->too_big) {
        command_log_reject(s, "END-OF-MESSAGE", "552 5.3.4 Error: message file too big");
        session_reply(s, false, "552 5.3.4 Error: message file too big");
    } else if (s->hdr.received > (unsigned)s->cfg->p.hopcount_limit) {
        command_log_reject(s, "END-OF-MESSAGE", "554 5.4.0 Error: too many hops");
        session_reply(s, false, "554 5.4.0 Error: too many hops");
    } else {
        return false;
    }
    return true;
}

/* The content is complete: the rest of it to its file, then the commit. */
static void finish(struct session *s) {
    bool waited = s->waiting;
    if (!s->failed && !s->too_big && (s->in_file || s->writing) && spill(s)) {
        if (!s->waiting)
            session_wait(s);
        return;
    }
    if (s->writing) { /* refused while a chunk is on its way: wait for it */
        if (!s->waiting)
            session_wait(s);
        return;
    }
    if (refuse_content(s)) {
        session_reset(s);
        if (waited || conn_pending(s->conn) > 0)
            session_go(s);
        return;
    }
    log_message_id(s);
    commit(s);
}
