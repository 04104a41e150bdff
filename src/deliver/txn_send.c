/*
 * deliver/txn_send.c - mail transactions: what is sent
 *
 * With PIPELINING, MAIL, RCPT and DATA go in one packet; and the end of one message's content
 * travels with the next message's MAIL, RCPT and DATA (RFC 2920 section 3.1: content may begin a
 * group), so a busy session needs one round trip a message.  With CHUNKING, and enhanced status
 * codes, small content for one recipient follows RCPT without waiting for 354.
 *
 * Called by transact.c when something may be sent: new attempts wait, a reply has come, the output
 * has drained.  What is sent is noted in s->fifo with the command that the reply will answer.
 * Functions that return a step leave the connection as it is: the session's driver closes it.  The
 * session's loop only; see txn.c for what owns a transaction.
 */
#include <string.h>

#include "deliver/origin.h"
#include "deliver/txn.h"
#include "mail/address.h"
#include "util/log.h"

/* Transactions begun on one connection at a time. */
#define TXNS_MAX   3U
#define CHUNK      65536U
#define OUT_HIGH   262144U
#define BDAT_EAGER 65536U

/* -- commands -- */

static void control_character(struct mailerr *e, enum mail_blame blame) {
    mailerr_set(e, MAIL_BOUNCED, "5.1.3", "the envelope has a control character: it is not sent");
    mailerr_blame(e, PHASE_MAIL, blame);
    e->cause = CAUSE_ADDRESS;
}

static void add_dsn_mail(struct sbuf *line, const struct envelope *e) {
    if ((e->flags & (ENV_RET_FULL | ENV_RET_HDRS)) != 0)
        sbuf_add_c(line, (e->flags & ENV_RET_FULL) != 0 ? " RET=FULL" : " RET=HDRS");
    if (e->envid.n > 0) {
        sbuf_add_c(line, " ENVID=");
        xtext_encode(line, e->envid);
    }
}

static void send_mail(struct dsess *s, struct txn *t) {
    const struct envelope *e = t->a->env;
    struct sbuf *line = &s->line;
    sbuf_add_c(line, "MAIL FROM:<");
    addr_external(line, e->sender);
    sbuf_add_ch(line, '>');
    if ((s->caps & CAP_SIZE) != 0)
        sbuf_printf(line, " SIZE=%llu", (unsigned long long)e->size);
    if ((s->caps & CAP_8BITMIME) != 0 && (e->flags & ENV_8BIT) != 0)
        sbuf_add_c(line, " BODY=8BITMIME");
    if ((s->caps & CAP_SMTPUTF8) != 0 && (e->flags & ENV_SMTPUTF8) != 0)
        sbuf_add_c(line, " SMTPUTF8");
    if ((s->caps & CAP_DSN) != 0)
        add_dsn_mail(line, e);
    if (!session_say(s)) {
        struct mailerr err = {0};
        control_character(&err, BLAME_MESSAGE);
        txn_refuse(s, t, &err);
        mailerr_free(&err);
        return;
    }
    t->sent = SENT_MAIL;
    txn_expect(s, TXN_MAIL, t, 0);
}

/* Tells the host who brought the message, as far as it asks for that, before MAIL.  False: there is
 * nothing more to tell.  A sender that cannot be said ends the transaction with nothing sent. */
static bool send_origin(struct dsess *s, struct txn *t) {
    const struct envelope *e = t->a->env;
    bool wanted = s->p->smtp_send_xforward_command && !str_has_control(e->sender);
    while (t->sent < SENT_ORIGIN) {
        unsigned half = t->sent++ == SENT_NOTHING ? 0 : 1;
        if (!wanted || !origin_line(e, s->origin_wanted, half, &s->line))
            continue;
        session_say(s);
        txn_expect(s, TXN_XFORWARD, t, 0);
        return true;
    }
    return false;
}

static void add_notify(struct sbuf *line, uint32_t notify) {
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
            sbuf_add_c(line, sep);
            sbuf_add_c(line, words[i].word);
            sep = ",";
        }
}

/* The k-th recipient of the transaction. */
static const struct rcpt *txn_rcpt(const struct txn *t, uint32_t k) {
    return &t->a->env->rcpts[t->a->idx[t->rcpts[k]]];
}

/* ORCPT as the client gave it, or the address that this one was made of. */
static void add_orcpt(struct sbuf *line, const struct rcpt *r) {
    ptrdiff_t semi = str_chr(r->orcpt, ';');
    struct sbuf orig = {0};
    if (semi > 0) {
        sbuf_printf(line, " ORCPT=%.*s;", (int)semi, r->orcpt.p);
        xtext_encode(line, str_from(r->orcpt, (size_t)semi + 1));
    } else if (r->orig.n > 0 && str_is_ascii(r->orig)) {
        sbuf_add_c(line, " ORCPT=rfc822;");
        addr_external(&orig, r->orig);
        xtext_encode(line, sbuf_str(&orig));
    }
    sbuf_free(&orig);
}

static void send_rcpt(struct dsess *s, struct txn *t) {
    uint32_t i = t->rcpts[t->sent_rcpts];
    const struct rcpt *r = txn_rcpt(t, t->sent_rcpts++);
    struct sbuf *line = &s->line;
    sbuf_add_c(line, "RCPT TO:<");
    addr_external(line, r->addr);
    sbuf_add_ch(line, '>');
    if ((s->caps & CAP_DSN) != 0) {
        add_notify(line, r->notify);
        add_orcpt(line, r);
    }
    if (session_say(s)) {
        txn_expect(s, TXN_RCPT, t, i);
    } else {
        control_character(&t->a->res[i], BLAME_RECIPIENT);
        t->a->tried[i] = true;
    }
}

static void send_command(struct dsess *s, struct txn *t, enum txn_command command,
                         const char *text) {
    sbuf_add_c(&s->line, text);
    session_say(s);
    txn_expect(s, command, t, 0);
}

/* -- content -- */

/* Content that can go as it is: no dots to stuff (or BDAT), no lines to break. */
static bool verbatim(const struct dsess *s, const struct txn *t, bool bdat) {
    uint32_t f = t->a->env->flags;
    int64_t limit = s->p->smtp_line_length_limit;
    bool fold = limit > 0 && (limit < (int64_t)CONTENT_LONG_LINE || (f & ENV_LONG_LINES) != 0);
    return !fold && (bdat || (f & ENV_DOTS) == 0);
}

bool txn_uses_bdat(const struct dsess *s, const struct txn *t) {
    unsigned need = CAP_CHUNKING | CAP_PIPELINING | CAP_CODES;
    return (s->caps & need) == need && !t->data_only && !session_is_lmtp(s) && t->n_rcpts == 1 &&
           t->a->body->size <= BDAT_EAGER && verbatim(s, t, true);
}

/* Writes content while the output buffer is not too full; false if it cannot be read. */
static bool stream_content(struct dsess *s, struct txn *t) {
    struct sbuf tmp = {0};
    bool ok = true, plain = verbatim(s, t, txn_uses_bdat(s, t));
    size_t before = conn_pending(s->conn);
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
    sbuf_free(&tmp);
    conn_touch(s->conn);
    if (ok && t->off == t->a->body->size) {
        if (!txn_uses_bdat(s, t))
            conn_write_c(s->conn, ".\r\n");
        t->sent = SENT_CONTENT;
        t->whole = true;
        atomic_store(&t->a->whole, true);
    }
    s->out_total += conn_pending(s->conn) - before;
    t->content_end = s->out_total;
    return ok;
}

static enum step content_unreadable(struct dsess *s) {
    session_note(s, MAIL_DEFERRED, BLAME_OURSELVES, CAUSE_CONTENT, "4.3.0",
                 "local error reading the message content");
    return txn_drop(s, false);
}

/* A reply is about content that has left.  By LMTP there is one for each recipient that was taken,
 * in their order (RFC 2033 section 4.2). */
static void expect_content(struct dsess *s, struct txn *t) {
    if (txn_uses_bdat(s, t)) {
        txn_expect(s, TXN_CONTENT, t, 0);
        return;
    }
    uint32_t n = session_is_lmtp(s) ? t->n_rcpts : 1;
    for (uint32_t k = 0; k < n; k++) {
        if (session_is_lmtp(s) && !t->ok[t->rcpts[k]])
            continue;
        txn_expect(s, TXN_CONTENT, t, t->rcpts[k]);
        s->fifo[s->fifo_at + s->fifo_n - 1].out_end++;
    }
    t->owed = session_is_lmtp(s) ? t->accepted : 0;
}

enum step txn_begin_content(struct dsess *s, struct txn *t) {
    t->sent = SENT_PART;
    if (txn_uses_bdat(s, t)) {
        sbuf_printf(&s->line, "BDAT %llu LAST", (unsigned long long)t->a->body->size);
        session_say(s);
    }
    t->begun = true;
    expect_content(s, t);
    return stream_content(s, t) ? STEP_DONE : content_unreadable(s);
}

void txn_send_empty(struct dsess *s, struct txn *t) {
    t->empty = true;
    t->sent = SENT_CONTENT;
    send_command(s, t, TXN_CONTENT, ".");
}

/* -- what comes next -- */

static bool awaits_reply(const struct dsess *s, const struct txn *t) {
    for (size_t i = 0; i < s->fifo_n; i++)
        if (s->fifo[s->fifo_at + i].t == t)
            return true;
    return false;
}

/* Is RSET all that is left to be said?  Not while the reply to DATA may still be 354. */
static bool rset_is_next(const struct dsess *s, const struct txn *t) {
    if (t->whole)
        return true;
    bool none_taken = t->sent == SENT_MAIL && t->sent_rcpts == t->n_rcpts && t->accepted == 0;
    return (t->refused || none_taken) && !awaits_reply(s, t);
}

static enum step send_rset(struct dsess *s, struct txn *t) {
    t->sent = SENT_RSET;
    send_command(s, t, TXN_RSET, "RSET");
    return STEP_DONE;
}

/* BDAT, or DATA, when MAIL and all RCPT have been sent. */
static enum step send_content(struct dsess *s, struct txn *t) {
    if (txn_uses_bdat(s, t))
        return txn_begin_content(s, t);
    if (t->sent == SENT_DATA)
        return STEP_WAIT;
    t->sent = SENT_DATA;
    send_command(s, t, TXN_DATA, "DATA");
    return STEP_DONE;
}

/* Sends the next command of t: STEP_DONE; STEP_WAIT if a reply has to come first. */
static enum step send_next(struct dsess *s, struct txn *t) {
    bool pipe = (s->caps & CAP_PIPELINING) != 0;
    if (t->sent == SENT_PART || (!pipe && s->fifo_n > 0))
        return STEP_WAIT;
    if (t->sent < SENT_ORIGIN && send_origin(s, t))
        return STEP_DONE;
    if (t->sent == SENT_ORIGIN)
        send_mail(s, t);
    else if (rset_is_next(s, t))
        return send_rset(s, t);
    else if (t->sent_rcpts < t->n_rcpts)
        send_rcpt(s, t);
    else
        return send_content(s, t);
    return STEP_DONE;
}

/* The last transaction, while it still has something to send, or NULL. */
static struct txn *sending_txn(const struct dsess *s) {
    if (dl_empty(&s->txns))
        return NULL;
    struct txn *t = DL_OWNER(s->txns.prev, struct txn, link);
    bool dot = t->sent == SENT_CONTENT && (t->empty || !txn_uses_bdat(s, t));
    return dot || t->sent == SENT_RSET ? NULL : t;
}

/* A row of smtp_tls_policy_maps has one message go over a connection. */
static bool is_alone(const struct dsess *s) {
    return s->tls_on && s->policy.alone;
}

static bool worn_out(const struct dsess *s) {
    int64_t count = s->p->smtp_connection_reuse_count_limit;
    int64_t age = s->d->loop->now_ms - s->ready_ms;
    return s->uses > 0 && (age > s->p->smtp_connection_reuse_time_limit * 1000 ||
                           (count > 0 && s->uses >= (uint64_t)count) ||
                           !s->p->smtp_connection_cache_on_demand || is_alone(s));
}

/* Was the host before this one left without it? */
static bool is_left_behind(const struct dsess *s, const struct attempt *a) {
    return s->moved && a->begin_us == 0;
}

bool txn_fits(const struct dsess *s, const struct attempt *a) {
    if (is_left_behind(s, a))
        return false;
    if (a->cfg != s->cfg || a->transport != s->svc || strcmp(a->nexthop, s->nexthop) != 0 ||
        strcmp(a->record, s->record) != 0 || a->tls_optional != s->tls_optional ||
        a->filter != s->filter)
        return false;
    return s->auth_sender == NULL || str_eq_c(a->env->sender, s->auth_sender);
}

/* May another transaction begin behind the last one?  Behind the RSET of BDAT only when a reply too
 * many would show.  Not by LMTP: of a server that owes a reply the one to MAIL would be taken for
 * it, and a recipient would count as served who is not. */
static bool may_follow(const struct dsess *s) {
    const struct txn *last = DL_OWNER(s->txns.prev, struct txn, link);
    return (s->caps & CAP_PIPELINING) != 0 && s->p->smtp_pipeline_transactions && !is_alone(s) &&
           !session_is_lmtp(s) && txn_count(s) < TXNS_MAX && (s->names || !txn_uses_bdat(s, last));
}

/* Must the host have SMTPUTF8?  Not for mail that did not ask for it (strict_smtputf8 = no). */
static bool needs_utf8(const struct envelope *e, const struct txn *t) {
    if ((e->flags & ENV_SMTPUTF8) == 0)
        return false;
    if ((e->flags & ENV_UTF8_HEADER) != 0 || !str_is_ascii(e->sender))
        return true;
    for (uint32_t k = 0; k < t->n_rcpts; k++)
        if (!str_is_ascii(txn_rcpt(t, k)->addr))
            return true;
    return false;
}

/* Reasons not to send at all; true if the transaction is over before it began. */
static bool refuse_early(struct dsess *s, struct txn *t) {
    const struct envelope *e = t->a->env;
    struct mailerr err = {0};
    bool large = (s->caps & CAP_SIZE) != 0 && s->size_limit > 0 && e->size > s->size_limit;
    if (large)
        mailerr_set(&err, MAIL_BOUNCED, "5.3.4",
                    "message size %llu exceeds size limit %llu of server %s",
                    (unsigned long long)e->size, (unsigned long long)s->size_limit, s->where);
    else if (needs_utf8(e, t) && (s->caps & CAP_SMTPUTF8) == 0)
        mailerr_set(&err, MAIL_BOUNCED, "5.6.7", NO_SMTPUTF8, s->where);
    if (err.text == NULL)
        return false;
    mailerr_blame(&err, PHASE_MAIL, BLAME_MESSAGE);
    err.cause = large ? CAUSE_TOO_LARGE : CAUSE_NO_SMTPUTF8;
    txn_refuse(s, t, &err);
    mailerr_free(&err);
    return true;
}

/* The next attempt that waits: first of all one that has come to this host.  If it had to wait for
 * one that has not, both would begin with the first host again, and send each other back without
 * end. */
static struct attempt *next_waiting(const struct dsess *s) {
    DL_EACH (it, &s->todo) {
        struct attempt *a = DL_OWNER(it, struct attempt, link);
        if (!is_left_behind(s, a))
            return a;
    }
    return DL_OWNER(s->todo.next, struct attempt, link);
}

/* Begins the next waiting attempt if the connection can take it now. */
static enum step begin_next(struct dsess *s) {
    txn_return_recalled(s);
    if (s->tag != 0 || ((s->leaving || s->parting) && !dl_empty(&s->txns)))
        return STEP_WAIT;
    if (s->leaving || s->parting)
        return s->leaving ? STEP_NEXT_HOST : STEP_RECONNECT;
    if (dl_empty(&s->todo))
        return STEP_WAIT;
    struct attempt *a = next_waiting(s);
    if (atomic_load(&a->held)) /* dsess_recall follows */
        return STEP_WAIT;
    if (!txn_fits(s, a) || worn_out(s))
        return dl_empty(&s->txns) ? STEP_RECONNECT : STEP_WAIT;
    bool due = again_is_due(s);
    if (!dl_empty(&s->txns) && (due || !may_follow(s)))
        return STEP_WAIT;
    if (due)
        return again_begin(s);
    dl_remove(&a->link);
    refuse_early(s, txn_new(s, a));
    return STEP_DONE;
}

static int64_t time_limit(const struct dsess *s) {
    bool held = !dl_empty(&s->todo) && atomic_load(&next_waiting(s)->held);
    if (s->tag != 0 || (held && s->fifo_n == 0)) /* with mail that waits for a table */
        return s->p->smtp_rset_timeout;
    if (s->fifo_n == 0)
        return dl_empty(&s->txns) ? s->p->smtp_connection_cache_time_limit
                                  : s->p->smtp_data_xfer_timeout;
    const struct expected *e = &s->fifo[s->fifo_at];
    switch (e->command) {
    case TXN_XFORWARD:
        return s->p->smtp_xforward_timeout;
    case TXN_MAIL:
        return s->p->smtp_mail_timeout;
    case TXN_RCPT:
        return s->p->smtp_rcpt_timeout;
    case TXN_DATA:
        return s->p->smtp_data_init_timeout;
    case TXN_CONTENT:
        return e->t->sent == SENT_PART ? s->p->smtp_data_xfer_timeout
                                       : s->p->smtp_data_done_timeout;
    default:
        return s->p->smtp_rset_timeout;
    }
}

/* anew: what is waited for is something else than before. */
static enum step pump(struct dsess *s, bool anew) {
    enum step step = STEP_DONE;
    while (step == STEP_DONE) {
        struct txn *t = sending_txn(s);
        step = t == NULL ? begin_next(s) : send_next(s, t);
    }
    if (step != STEP_WAIT)
        return step;
    if (dl_empty(&s->txns) && dl_empty(&s->todo) && worn_out(s))
        return STEP_RECONNECT;
    if (anew)
        conn_deadline(s->conn, time_limit(s) * 1000);
    return STEP_WAIT;
}

enum step txn_pump(struct dsess *s) {
    return pump(s, true);
}

/* A reply that is waited for has no more time because there is more mail, or tables have changed:
 * else a host that never answers would never be left. */
enum step txn_more(struct dsess *s) {
    return pump(s, s->fifo_n == 0);
}

enum step txn_drained(struct dsess *s) {
    struct txn *t = sending_txn(s);
    if (t != NULL && t->sent == SENT_PART && !stream_content(s, t))
        return content_unreadable(s);
    return txn_pump(s);
}
