/*
 * deliver/transact.c - mail transactions of a delivery session
 *
 * With PIPELINING, MAIL, RCPT and DATA go in one packet; and the end of one message's content
 * travels with the next message's MAIL, RCPT and DATA (RFC 2920 section 3.1: content may begin a
 * group), so a busy session needs one round trip a message.  With CHUNKING content follows RCPT
 * without waiting for 354.  Every command waiting for its reply is in s->fifo.
 */
#include <stdlib.h>
#include <string.h>

#include "deliver/session.h"
#include "mail/address.h"
#include "report/logline.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"

/* Transactions begun on one connection at a time. */
#define TXNS_MAX   3U
#define CHUNK      65536U
#define OUT_HIGH   262144U
#define BDAT_EAGER 65536U

static void expect(struct dsess *s, enum expect what, struct txn *t, uint32_t rcpt) {
    if (s->fifo_at > 0 && s->fifo_at + s->fifo_n == s->fifo_cap) {
        memmove(s->fifo, s->fifo + s->fifo_at, s->fifo_n * sizeof *s->fifo);
        s->fifo_at = 0;
    }
    if (s->fifo_at + s->fifo_n == s->fifo_cap) {
        s->fifo_cap = s->fifo_cap == 0 ? 16 : s->fifo_cap * 2;
        s->fifo = mem_realloc(s->fifo, s->fifo_cap * sizeof *s->fifo);
    }
    s->fifo[s->fifo_at + s->fifo_n++] = (struct expected){what, t, rcpt};
}

static bool awaits_reply(const struct dsess *s, const struct txn *t);

static int64_t time_limit(const struct dsess *s) {
    if (s->fifo_n == 0)
        return dl_empty(&s->txns) ? s->p->smtp_connection_cache_time_limit
                                  : s->p->smtp_data_xfer_timeout;
    switch (s->fifo[s->fifo_at].what) {
    case EXPECT_MAIL:
        return s->p->smtp_mail_timeout;
    case EXPECT_RCPT:
        return s->p->smtp_rcpt_timeout;
    case EXPECT_DATA:
        return s->p->smtp_data_init_timeout;
    case EXPECT_BODY:
        return s->fifo[s->fifo_at].t->body_ended ? s->p->smtp_data_done_timeout
                                                 : s->p->smtp_data_xfer_timeout;
    default:
        return s->p->smtp_rset_timeout;
    }
}

static void set_deadline(struct dsess *s) {
    conn_deadline(s->conn, time_limit(s) * 1000);
}

static void txn_free(struct txn *t) {
    dl_remove(&t->link);
    free(t->rcpts);
    free(t->ok);
    free(t);
}

static struct txn *txn_new(struct dsess *s, struct attempt *a) {
    struct txn *t = MEM_NEW(struct txn);
    t->a = a;
    t->rcpts = mem_alloc(a->n * sizeof *t->rcpts);
    t->ok = mem_zalloc(a->n * sizeof *t->ok);
    for (uint32_t i = 0; i < a->n; i++)
        if (!a->tried[i])
            t->rcpts[t->todo_rcpts++] = i;
    if (a->begin_us == 0)
        a->begin_us = s->uses == 0 ? s->begin_us : clock_wall_us();
    a->conn_us = s->uses == 0 ? s->conn_us : a->begin_us;
    a->remote_dsn = (s->caps & CAP_DSN) != 0;
    s->uses++;
    dl_push(&s->txns, &t->link);
    return t;
}

static void log_attempt(const struct dsess *s, const struct attempt *a, unsigned uses) {
    struct logline_times times = {a->env->arrival_us, a->active_us, a->begin_us, a->conn_us,
                                  clock_wall_us()};
    const char *service = a->transport->kind == SERVICE_LMTP ? "lmtp" : "smtp";
    for (uint32_t i = 0; i < a->n; i++)
        logline_delivery(s->svc->log_name, service, a->env->qid, a->env->rcpts[a->idx[i]].addr,
                         a->relay[0] == '\0' ? "none" : a->relay, uses, &times, &a->res[i]);
}

static void give_back(struct dsess *s, struct attempt *a, enum attempt_outcome outcome,
                      unsigned uses) {
    a->outcome = outcome;
    a->cert_until = s->cert_until;
    if (outcome != ATTEMPT_RETURNED)
        log_attempt(s, a, uses);
    s->d->ops->result(s->slot, a);
}

static void set_result(struct attempt *a, uint32_t i, const struct mailerr *e) {
    mailerr_copy(&a->res[i], e);
    a->tried[i] = true;
}

/* 503 is about the order of our commands, never about the message: it must not bounce it. */
static bool soft(const struct dsess *s, int code) {
    return code / 100 == 4 || code == 503 || (code / 100 == 5 && s->cfg->p.soft_bounce);
}

/* The current reply as a recipient's result. */
static void reply_result(struct dsess *s, struct txn *t, uint32_t i, const char *cmd) {
    struct sbuf line = {0};
    struct mailerr *e = &t->a->res[i];
    char dsn[12];
    int code = s->reply.code;
    smtp_reply_line(&s->reply, &line);
    dsn_from_reply(dsn, code, sbuf_str(&s->reply.text));
    if (code / 100 == 2) {
        mailerr_set(e, MAIL_SENT, dsn, "%s", line.p);
    } else {
        bool wait = soft(s, code);
        if (code / 100 == 3)
            memcpy(dsn, "5.0.0", 6);
        if (wait)
            dsn[0] = '4';
        mailerr_set(e, wait ? MAIL_DEFERRED : MAIL_BOUNCED, dsn,
                    "host %s said: %s (in reply to %s command)", s->where, line.p, cmd);
    }
    mailerr_blame(e, PHASE_MAIL, strcmp(cmd, "RCPT TO") == 0 ? BLAME_RECIPIENT : BLAME_MESSAGE);
    mailerr_remote(e, s->targets[s->at].host, sbuf_str(&line));
    t->a->tried[i] = true;
    sbuf_free(&line);
}

/* Recipients that only a 4xx stands against may fare better at the next host. */
static bool try_elsewhere(struct dsess *s, struct txn *t) {
    bool any = false;
    if (!session_more_hosts(s) || t->body_ended)
        return false;
    for (uint32_t k = 0; k < t->todo_rcpts; k++) {
        uint32_t i = t->rcpts[k];
        if (t->a->tried[i] && t->a->res[i].status == MAIL_DEFERRED) {
            log_as(s->svc->log_name, "smtp", "%s: %s", t->a->env->qid, t->a->res[i].text);
            t->a->tried[i] = false;
            any = true;
        }
    }
    return any;
}

/* Puts what stands in res of untried recipients in order: they get e. */
static void fill_untried(struct attempt *a, const struct mailerr *e) {
    for (uint32_t i = 0; i < a->n; i++)
        if (!a->tried[i])
            set_result(a, i, e);
}

static void go_to_next_host(struct dsess *s) {
    s->at++;
    session_disconnect(s, true);
    targets_next(s);
}

/* A transaction has all its replies. */
static void txn_over(struct dsess *s, struct txn *t) {
    struct attempt *a = t->a;
    unsigned uses = s->uses;
    bool again = !t->body_ended && try_elsewhere(s, t);
    memcpy(a->relay, s->relay, sizeof a->relay - 1);
    if (!t->body_ended)
        s->need_rset = true;
    txn_free(t);
    if (again) {
        dl_push_front(&s->todo, &a->link);
        if (dl_empty(&s->txns))
            go_to_next_host(s);
        return;
    }
    give_back(s, a, ATTEMPT_TRIED, uses);
}

static bool needs_utf8(const struct envelope *e, const struct txn *t) {
    if (!addr_is_ascii(e->sender))
        return true;
    for (uint32_t k = 0; k < t->todo_rcpts; k++)
        if (!addr_is_ascii(e->rcpts[t->a->idx[t->rcpts[k]]].addr))
            return true;
    return false;
}

/* Reasons not to send at all; true if the transaction is over before it began. */
static bool refuse_early(struct dsess *s, struct txn *t) {
    const struct envelope *e = t->a->env;
    struct mailerr err = {0};
    if ((s->caps & CAP_SIZE) != 0 && s->size_limit > 0 && e->size > s->size_limit)
        mailerr_set(&err, MAIL_BOUNCED, "5.3.4",
                    "message size %llu exceeds size limit %llu of server %s",
                    (unsigned long long)e->size, (unsigned long long)s->size_limit, s->where);
    else if (needs_utf8(e, t) && (s->caps & CAP_SMTPUTF8) == 0)
        mailerr_set(&err, MAIL_BOUNCED, "5.6.7",
                    "SMTPUTF8 is required, but was not offered by host %s", s->where);
    if (err.text == NULL)
        return false;
    fill_untried(t->a, &err);
    mailerr_free(&err);
    struct attempt *a = t->a;
    memcpy(a->relay, s->relay, sizeof a->relay - 1);
    txn_free(t);
    give_back(s, a, ATTEMPT_TRIED, s->uses);
    return true;
}

static void add_dsn_mail(struct dsess *s, const struct envelope *e) {
    struct sbuf *o = conn_out(s->conn);
    if ((e->flags & (ENV_RET_FULL | ENV_RET_HDRS)) != 0)
        sbuf_add_c(o, (e->flags & ENV_RET_FULL) != 0 ? " RET=FULL" : " RET=HDRS");
    if (e->envid.n > 0) {
        sbuf_add_c(o, " ENVID=");
        xtext_encode(o, e->envid);
    }
}

static void send_mail(struct dsess *s, struct txn *t) {
    const struct envelope *e = t->a->env;
    struct sbuf *o = conn_out(s->conn);
    sbuf_add_c(o, "MAIL FROM:<");
    addr_external(o, e->sender);
    sbuf_add_ch(o, '>');
    if ((s->caps & CAP_SIZE) != 0)
        sbuf_printf(o, " SIZE=%llu", (unsigned long long)e->size);
    if ((s->caps & CAP_8BITMIME) != 0 && (e->flags & ENV_8BIT) != 0)
        sbuf_add_c(o, " BODY=8BITMIME");
    if ((s->caps & CAP_SMTPUTF8) != 0 && (e->flags & ENV_SMTPUTF8) != 0)
        sbuf_add_c(o, " SMTPUTF8");
    if ((s->caps & CAP_DSN) != 0)
        add_dsn_mail(s, e);
    sbuf_add_c(o, "\r\n");
    t->mail_sent = true;
    expect(s, EXPECT_MAIL, t, 0);
}

static void add_notify(struct sbuf *o, uint32_t notify) {
    static const struct {
        uint32_t bit;
        const char *word;
    } words[] = {{NOTIFY_NEVER, "NEVER"},
                 {NOTIFY_SUCCESS, "SUCCESS"},
                 {NOTIFY_FAILURE, "FAILURE"},
                 {NOTIFY_DELAY, "DELAY"}};
    const char *sep = " NOTIFY=";
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if ((notify & words[i].bit) != 0) {
            sbuf_add_c(o, sep);
            sbuf_add_c(o, words[i].word);
            sep = ",";
        }
}

static void send_rcpt(struct dsess *s, struct txn *t) {
    uint32_t i = t->rcpts[t->sent_rcpts++];
    const struct rcpt *r = &t->a->env->rcpts[t->a->idx[i]];
    struct sbuf *o = conn_out(s->conn);
    sbuf_add_c(o, "RCPT TO:<");
    addr_external(o, r->addr);
    sbuf_add_ch(o, '>');
    if ((s->caps & CAP_DSN) != 0) {
        add_notify(o, r->notify);
        ptrdiff_t semi = str_chr(r->orcpt, ';');
        if (semi > 0) {
            sbuf_printf(o, " ORCPT=%.*s;", (int)semi, r->orcpt.p);
            xtext_encode(o, str_from(r->orcpt, (size_t)semi + 1));
        }
    }
    sbuf_add_c(o, "\r\n");
    expect(s, EXPECT_RCPT, t, i);
}

/* Content that can go as it is: no dots to stuff (or BDAT), no lines to break. */
static bool verbatim(const struct dsess *s, const struct txn *t) {
    uint32_t f = t->a->env->flags;
    bool fold = (f & ENV_LONG_LINES) != 0 && s->p->smtp_line_length_limit > 0;
    return !fold && ((s->caps & CAP_CHUNKING) != 0 || (f & ENV_DOTS) == 0);
}

static bool use_bdat(const struct dsess *s, const struct txn *t) {
    return (s->caps & CAP_CHUNKING) != 0 && verbatim(s, t);
}

static void end_body(struct dsess *s, struct txn *t) {
    t->body_ended = true;
    if (!use_bdat(s, t))
        conn_write_c(s->conn, ".\r\n");
}

/* Writes content while the output buffer is not too full; false if it cannot be read. */
static bool stream_body(struct dsess *s, struct txn *t) {
    struct sbuf tmp = {0};
    bool ok = true, plain = verbatim(s, t);
    while (ok && t->off < t->a->body->size && conn_pending(s->conn) < OUT_HIGH) {
        struct str v = body_view(t->a->body, t->off, CHUNK, &tmp);
        ok = v.p != NULL && v.n > 0;
        if (!ok)
            break;
        if (plain)
            conn_write(s->conn, v.p, v.n);
        else
            content_stuff(&t->out, v, (size_t)s->p->smtp_line_length_limit, conn_out(s->conn));
        t->off += v.n;
    }
    conn_touch(s->conn);
    sbuf_free(&tmp);
    if (ok && t->off == t->a->body->size)
        end_body(s, t);
    return ok;
}

static void begin_body(struct dsess *s, struct txn *t) {
    t->body_begun = true;
    expect(s, EXPECT_BODY, t, 0);
    if (use_bdat(s, t)) {
        conn_printf(s->conn, "BDAT %llu LAST\r\n", (unsigned long long)t->a->body->size);
        /* A BDAT that fails leaves the transaction open (RFC 3030 section 2): whatever follows it
         * begins with RSET. */
        s->need_rset = true;
    }
    if (!stream_body(s, t))
        transact_lost(s, "local error reading the message content");
}

/* The last transaction that still has something to send, or NULL. */
static struct txn *sender(const struct dsess *s) {
    if (dl_empty(&s->txns))
        return NULL;
    struct txn *t = DL_OWNER(s->txns.prev, struct txn, link);
    return t->body_ended || t->ended ? NULL : t;
}

/* Sends the next command of t; false if it has to wait for a reply first. */
static bool send_next(struct dsess *s, struct txn *t) {
    bool pipe = (s->caps & CAP_PIPELINING) != 0;
    if (!pipe && s->fifo_n > 0)
        return false;
    if (s->need_rset && !t->mail_sent) { /* before a transaction, never inside one */
        s->need_rset = false;
        conn_write_c(s->conn, "RSET\r\n");
        expect(s, EXPECT_RSET, t, 0);
    } else if (!t->mail_sent) {
        send_mail(s, t);
    } else if (t->sent_rcpts < t->todo_rcpts) {
        send_rcpt(s, t);
    } else if (use_bdat(s, t)) {
        bool eager = pipe && t->todo_rcpts == 1 && t->a->body->size <= BDAT_EAGER;
        if (t->body_begun || (!eager && (awaits_reply(s, t) || t->accepted == 0)))
            return false;
        begin_body(s, t);
    } else if (!t->data_sent) {
        t->data_sent = true;
        conn_write_c(s->conn, "DATA\r\n");
        expect(s, EXPECT_DATA, t, 0);
    } else {
        return false;
    }
    if (s->conn != NULL)
        conn_touch(s->conn);
    return s->conn != NULL;
}

static bool worn_out(const struct dsess *s) {
    int64_t count = s->p->smtp_connection_reuse_count_limit;
    int64_t age = s->d->loop->now_ms - s->ready_ms;
    return s->uses > 0 &&
           (age > s->p->smtp_connection_reuse_time_limit * 1000 ||
            (count > 0 && s->uses >= (uint64_t)count) || !s->p->smtp_connection_cache_on_demand);
}

/* May this connection carry that attempt?  Never with another sender's login or old settings. */
static bool fits(const struct dsess *s, const struct attempt *a) {
    if (a->cfg != s->cfg || a->transport != s->svc || strcmp(a->nexthop, s->nexthop) != 0 ||
        strcmp(a->record, s->record) != 0)
        return false;
    return s->auth_sender == NULL || str_eq_c(a->env->sender, s->auth_sender);
}

static unsigned txn_count(const struct dsess *s) {
    unsigned n = 0;
    DL_EACH (it, &s->txns)
        n++;
    return n;
}

/* Begins the next waiting attempt if the connection can take it now. */
static bool begin_next(struct dsess *s) {
    if (dl_empty(&s->todo))
        return false;
    struct attempt *a = DL_OWNER(s->todo.next, struct attempt, link);
    if (!fits(s, a) || worn_out(s)) {
        if (dl_empty(&s->txns)) {
            session_disconnect(s, true);
            session_start(s);
        }
        return false;
    }
    bool ahead = (s->caps & CAP_PIPELINING) != 0 && s->p->smtp_pipeline_transactions;
    if (!dl_empty(&s->txns) && (!ahead || txn_count(s) >= TXNS_MAX))
        return false;
    dl_remove(&a->link);
    return !refuse_early(s, txn_new(s, a)) || !dl_empty(&s->todo);
}

void transact_pump(struct dsess *s) {
    while (s->conn != NULL && s->phase == DSESS_READY) {
        struct txn *t = sender(s);
        if (t == NULL ? !begin_next(s) : !send_next(s, t))
            break;
    }
    if (s->conn == NULL || s->phase != DSESS_READY)
        return;
    if (dl_empty(&s->txns) && dl_empty(&s->todo) && s->uses > 0 && worn_out(s))
        session_disconnect(s, true);
    else
        set_deadline(s);
}

void transact_drained(struct dsess *s) {
    struct txn *t = sender(s);
    if (t != NULL && t->body_begun && !t->body_ended && !stream_body(s, t)) {
        transact_lost(s, "local error reading the message content");
        return;
    }
    transact_pump(s);
}

static void on_mail(struct dsess *s, struct txn *t) {
    if (s->reply.code / 100 == 2)
        return;
    t->mail_failed = true;
    for (uint32_t k = 0; k < t->todo_rcpts; k++)
        reply_result(s, t, t->rcpts[k], "MAIL FROM");
}

static void on_rcpt(struct dsess *s, struct txn *t, uint32_t i) {
    if (t->mail_failed)
        return;
    if (s->reply.code / 100 == 2) {
        t->ok[i] = true;
        t->accepted++;
    } else {
        reply_result(s, t, i, "RCPT TO");
    }
}

static void accepted_result(struct dsess *s, struct txn *t, const char *cmd) {
    for (uint32_t k = 0; k < t->todo_rcpts; k++)
        if (t->ok[t->rcpts[k]])
            reply_result(s, t, t->rcpts[k], cmd);
}

/* 354, but every recipient was refused: an empty message ends it (RFC 2920 section 3.1). */
static void abort_data(struct dsess *s, struct txn *t) {
    t->body_begun = t->body_ended = true;
    conn_write_c(s->conn, ".\r\n");
    expect(s, EXPECT_BODY, t, 0);
}

static void on_data(struct dsess *s, struct txn *t) {
    if (s->reply.code == 354) {
        if (t->accepted > 0)
            begin_body(s, t);
        else
            abort_data(s, t);
        return;
    }
    accepted_result(s, t, "DATA");
    t->ended = true;
}

static bool awaits_reply(const struct dsess *s, const struct txn *t) {
    for (size_t i = 0; i < s->fifo_n; i++)
        if (s->fifo[s->fifo_at + i].t == t)
            return true;
    return false;
}

/* Nothing more will be sent or come for t. */
static bool is_over(const struct dsess *s, const struct txn *t) {
    if (awaits_reply(s, t))
        return false;
    if (t->ended)
        return true;
    bool asked = t->mail_failed || (t->mail_sent && t->sent_rcpts == t->todo_rcpts);
    return asked && t->accepted == 0 && !t->body_begun;
}

void transact_reply(struct dsess *s) {
    if (s->fifo_n == 0) { /* 421 while idle, or nonsense: the connection is of no more use */
        transact_lost(s, "unexpected reply");
        return;
    }
    struct expected e = s->fifo[s->fifo_at];
    if (s->reply.code == 421 && e.what != EXPECT_BODY) {
        struct sbuf b = {0}, line = {0};
        smtp_reply_line(&s->reply, &line);
        sbuf_printf(&b, "host %s said: %s", s->where, line.p);
        transact_lost(s, b.p);
        sbuf_free(&b);
        sbuf_free(&line);
        return;
    }
    s->fifo_at++;
    s->fifo_n--;
    e.t->answered = e.t->answered || e.what != EXPECT_RSET;
    if (e.what == EXPECT_MAIL)
        on_mail(s, e.t);
    else if (e.what == EXPECT_RCPT)
        on_rcpt(s, e.t, e.rcpt);
    else if (e.what == EXPECT_DATA)
        on_data(s, e.t);
    else if (e.what == EXPECT_BODY)
        accepted_result(s, e.t, "end of DATA");
    if (s->conn == NULL || s->phase != DSESS_READY)
        return;
    if (e.what == EXPECT_BODY)
        e.t->ended = true;
    if (is_over(s, e.t))
        txn_over(s, e.t);
    if (s->conn != NULL && s->phase == DSESS_READY)
        transact_pump(s);
}

/* One transaction of a lost connection: true if its attempt may simply be sent again. */
static bool lost_txn(struct dsess *s, struct txn *t, const char *what, bool fresh) {
    struct mailerr e = {0};
    bool maybe_sent = t->body_ended && (t->accepted > 0 || fresh);
    bool again = !maybe_sent && (!fresh || session_more_hosts(s));
    mailerr_set(&e, MAIL_DEFERRED, "4.4.2", "%s", what);
    if (!again)
        for (uint32_t k = 0; k < t->todo_rcpts; k++)
            if (!t->a->tried[t->rcpts[k]])
                set_result(t->a, t->rcpts[k], &e);
    mailerr_free(&e);
    return again;
}

/* A connection that had carried mail before and dies before it answered is merely old: the same
 * host again.  A fresh one that dies is a failing host: the next one.  A message whose end was
 * sent is never sent again in this attempt. */
void transact_lost(struct dsess *s, const char *text) {
    char *what = mem_strdup(text); /* it may be s->err's */
    bool first = true, fresh = true;
    unsigned uses = s->uses;
    struct dl again;
    char relay[sizeof s->relay];
    dl_init(&again);
    memcpy(relay, s->relay, sizeof relay);
    if (!dl_empty(&s->txns)) {
        struct txn *t = DL_OWNER(s->txns.next, struct txn, link);
        fresh = t->answered || uses <= txn_count(s);
    }
    session_fail(s, MAIL_DEFERRED, "4.4.2", "%s", what);
    while (!dl_empty(&s->txns)) {
        struct txn *t = DL_OWNER(s->txns.next, struct txn, link);
        struct attempt *a = t->a;
        /* Only the first transaction has anything to do with the loss. */
        bool retry = lost_txn(s, t, what, first && fresh);
        memcpy(a->relay, relay, sizeof a->relay - 1);
        txn_free(t);
        if (retry)
            dl_push(&again, &a->link);
        else
            give_back(s, a, ATTEMPT_TRIED, uses);
        first = false;
    }
    bool next_host = fresh && !dl_empty(&again) && session_more_hosts(s);
    if (next_host)
        log_as(s->svc->log_name, "smtp", "%s: %s",
               DL_OWNER(again.next, struct attempt, link)->env->qid, s->err.text);
    session_disconnect(s, false);
    while (!dl_empty(&again)) { /* in their old order, before what waits */
        struct dl *n = again.prev;
        dl_remove(n);
        dl_push_front(&s->todo, n);
    }
    free(what);
    if (dl_empty(&s->todo))
        return;
    if (next_host) {
        s->at++;
        targets_next(s);
    } else {
        session_start(s);
    }
}

void transact_fail_all(struct dsess *s) {
    struct dl *n;
    if (s->err.text == NULL)
        session_fail(s, MAIL_DEFERRED, "4.4.4", "unable to find primary relay for %s", s->nexthop);
    bool site = s->site_err;
    while ((n = dl_pop(&s->todo)) != NULL) {
        struct attempt *a = DL_OWNER(n, struct attempt, link);
        if (a->begin_us == 0)
            a->begin_us = s->begin_us;
        a->conn_us = 0;
        fill_untried(a, &s->err);
        bool reached = s->err.phase != PHASE_CONNECT && s->sessions > 0;
        memcpy(a->relay, reached ? s->relay : "", reached ? sizeof a->relay - 1 : 1);
        give_back(s, a, site ? ATTEMPT_SITE : ATTEMPT_TRIED, 0);
    }
    targets_free(s);
}
