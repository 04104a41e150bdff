/*
 * deliver/transact.c - mail transactions of a delivery session
 *
 * With PIPELINING, MAIL, RCPT and DATA go in one packet; and the end of one message's content
 * travels with the next message's MAIL, RCPT and DATA (RFC 2920 section 3.1: content may begin a
 * group), so a busy session needs one round trip a message.  With CHUNKING, and enhanced status
 * codes, small content for one recipient follows RCPT without waiting for 354.
 *
 * Every command that waits for its reply is in s->fifo, and verdict.c says what a reply to it
 * means. A peer may give one reply too many or too few, and then every later reply is taken for
 * another command's.  354 shows that for DATA.  For all else RSET does: a transaction that no final
 * dot ends is ended by RSET, and its results count when that reply has come and was 2xx.  A reply
 * that comes before its command has left, or that no command waits for, or that its command cannot
 * have, makes the session suspect: nothing that was not given back by then counts.
 *
 * RSET cannot tell its 2xx from a surplus one to the chunk before it.  The enhanced status codes
 * can: those of MAIL and RCPT are about addresses (X.1.X, RFC 3463), those of content are not, so
 * replies that have shifted show.  A host that named one transaction so may have the next MAIL
 * behind RSET, and is out of step when a later reply does not name its command.  A host that does
 * not announce them is given DATA; one that announces them and has none, from its second
 * transaction on (traits.h).
 *
 * 250 to the last chunk is the host's acceptance (RFC 3030 section 2).  When no 2xx to RSET
 * confirms that it was the reply to the chunk (the host refuses RSET or has gone), the enhanced
 * status codes may.  Without them the mail waits.  In either case, and whenever it was out of step,
 * the host is given DATA from then on, so that this happens once.
 *
 * The session's loop only.  A transaction owns its attempt from txn_new until it is given back
 * (deliver_ops.result) or put back into s->todo; txn_free frees the transaction alone.  Functions
 * that return a step leave the connection as it is: the session's driver closes it.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "deliver/session.h"
#include "deliver/traits.h"
#include "mail/address.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"

/* Transactions begun on one connection at a time. */
#define TXNS_MAX   3U
#define CHUNK      65536U
#define OUT_HIGH   262144U
#define BDAT_EAGER 65536U

/* -- what is expected -- */

static void expect(struct dsess *s, enum txn_command command, struct txn *t, uint32_t rcpt) {
    if (s->fifo_at > 0 && s->fifo_at + s->fifo_n == s->fifo_cap) {
        memmove(s->fifo, s->fifo + s->fifo_at, s->fifo_n * sizeof *s->fifo);
        s->fifo_at = 0;
    }
    if (s->fifo_at + s->fifo_n == s->fifo_cap) {
        s->fifo_cap = s->fifo_cap == 0 ? 16 : s->fifo_cap * 2;
        s->fifo = mem_realloc(s->fifo, s->fifo_cap * sizeof *s->fifo);
    }
    s->fifo[s->fifo_at + s->fifo_n] = (struct expected){
        .command = command, .t = t, .rcpt = rcpt, .out_end = s->out_total, .piped = s->fifo_n > 0};
    s->fifo_n++;
}

static bool awaits_reply(const struct dsess *s, const struct txn *t) {
    for (size_t i = 0; i < s->fifo_n; i++)
        if (s->fifo[s->fifo_at + i].t == t)
            return true;
    return false;
}

/* As the reply that is being judged can know it. */
static enum txn_content content_state(const struct dsess *s, const struct txn *t) {
    if (t->accepted == 0 || !t->begun)
        return CONTENT_NONE;
    return t->whole && s->reply_gone >= t->content_end ? CONTENT_WHOLE : CONTENT_PART;
}

static int64_t time_limit(const struct dsess *s) {
    if (s->fifo_n == 0)
        return dl_empty(&s->txns) ? s->p->smtp_connection_cache_time_limit
                                  : s->p->smtp_data_xfer_timeout;
    const struct expected *e = &s->fifo[s->fifo_at];
    switch (e->command) {
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

static const char *transact_doing(const struct dsess *s) {
    static const char *const doing[TXN_COMMANDS] = {
        [TXN_MAIL] = "sending MAIL FROM",
        [TXN_RCPT] = "sending RCPT TO",
        [TXN_DATA] = "sending DATA command",
        [TXN_CONTENT] = "sending end of data -- message may be sent more than once",
        [TXN_RSET] = "sending RSET"};
    if (s->fifo_n == 0)
        return "sending message body";
    const struct expected *e = &s->fifo[s->fifo_at];
    if (e->command == TXN_CONTENT && e->t->sent == SENT_PART)
        return "sending message body";
    return doing[e->command];
}

/* -- transactions and their results -- */

/* The k-th recipient of the transaction. */
static const struct rcpt *txn_rcpt(const struct txn *t, uint32_t k) {
    return &t->a->env->rcpts[t->a->idx[t->rcpts[k]]];
}

static void txn_free(struct txn *t) {
    dl_remove(&t->link);
    free(t->rcpts);
    free(t->ok);
    free(t);
}

static bool has_trait(const struct dsess *s, enum host_trait trait) {
    return host_trait_has(trait, &session_target(s)->addr, session_target(s)->dest);
}

static struct txn *txn_new(struct dsess *s, struct attempt *a) {
    struct txn *t = MEM_NEW(struct txn);
    t->a = a;
    t->rcpts = mem_alloc(a->n * sizeof *t->rcpts);
    t->ok = mem_zalloc(a->n * sizeof *t->ok);
    for (uint32_t i = 0; i < a->n; i++)
        if (!a->tried[i])
            t->rcpts[t->n_rcpts++] = i;
    if (a->begin_us == 0)
        a->begin_us = s->uses == 0 ? s->begin_us : clock_wall_us();
    a->conn_us = s->uses == 0 ? s->conn_us : a->begin_us;
    atomic_store(&a->whole, false);
    a->remote_dsn = (s->caps & CAP_DSN) != 0;
    t->data_only = has_trait(s, HOST_DATA_ONLY);
    s->uses++;
    dl_push(&s->txns, &t->link);
    return t;
}

/* The end of an attempt in this session: every recipient has a result. */
static void give_back(struct dsess *s, struct attempt *a, unsigned uses) {
    for (uint32_t i = 0; i < a->n; i++)
        assert(a->tried[i] && a->res[i].status != MAIL_UNSET);
    a->outcome = ATTEMPT_TRIED;
    a->cert_until = s->cert_until;
    filter_results(s, a, uses);
}

void transact_return_recalled(struct dsess *s) {
    DL_EACH_SAFE (it, &s->todo) {
        struct attempt *a = DL_OWNER(it, struct attempt, link);
        if (!atomic_load(&a->recalled))
            continue;
        dl_remove(&a->link);
        a->outcome = ATTEMPT_RETURNED;
        filter_results(s, a, 0); /* what an earlier host refused for good */
    }
}

static void set_result(struct attempt *a, uint32_t i, const struct mailerr *e) {
    mailerr_copy(&a->res[i], e);
    a->tried[i] = true;
}

/* Does what an earlier host said of the recipient say more than e, the error of the round?  What
 * was said of other mail is no result for it. */
static bool keeps_own(const struct mailerr *own, const struct mailerr *e) {
    bool both_said = own->phase == PHASE_MAIL && e->phase == PHASE_MAIL;
    return error_outweighs(own, e->status, e->phase) ||
           (own->status == MAIL_DEFERRED && e->status == MAIL_DEFERRED && both_said);
}

/* Gives e as the result of every recipient that has none, or keeps its own if that says more. */
static void fill_untried(struct attempt *a, const struct mailerr *e) {
    for (uint32_t i = 0; i < a->n; i++)
        if (!a->tried[i] && keeps_own(&a->res[i], e))
            a->tried[i] = true;
        else if (!a->tried[i])
            set_result(a, i, e);
}

static bool has_all_results(const struct attempt *a) {
    for (uint32_t i = 0; i < a->n; i++)
        if (!a->tried[i])
            return false;
    return true;
}

/* The current reply as a recipient's result. */
static void reply_result(struct dsess *s, struct txn *t, uint32_t i, enum txn_command command,
                         enum verdict v) {
    struct sbuf line = {0};
    struct mailerr *e = &t->a->res[i];
    char dsn[12];
    smtp_reply_line(&s->reply, &line);
    dsn_from_reply(dsn, s->reply.code, smtp_reply_last(&s->reply));
    if (v == VERDICT_SENT) {
        mailerr_set(e, MAIL_SENT, dsn, "%s", line.p);
    } else {
        bool softened = s->cfg->p.soft_bounce && s->reply.code / 100 == 5;
        dsn[0] = v == VERDICT_LATER && !softened ? '4' : '5';
        mailerr_set(e, v == VERDICT_LATER ? MAIL_DEFERRED : MAIL_BOUNCED, dsn,
                    "host %s said: %s (in reply to %s command)", s->where, line.p,
                    verdict_command_name(command));
    }
    mailerr_blame(e, PHASE_MAIL, command == TXN_RCPT ? BLAME_RECIPIENT : BLAME_MESSAGE);
    mailerr_remote(e, session_target(s)->host, sbuf_str(&line));
    t->a->tried[i] = true;
    sbuf_free(&line);
}

static void all_results(struct dsess *s, struct txn *t, enum txn_command command, enum verdict v) {
    for (uint32_t k = 0; k < t->n_rcpts; k++)
        if (command == TXN_MAIL || t->ok[t->rcpts[k]])
            reply_result(s, t, t->rcpts[k], command, v);
}

/* If another host is left, forgets temporary refusals so that they are tried there, whatever went
 * out of the content: the host has said that it did not take it.  True if there were any. */
static bool try_elsewhere(struct dsess *s, struct txn *t) {
    bool any = false;
    if (!session_more_hosts(s))
        return false;
    for (uint32_t k = 0; k < t->n_rcpts; k++) {
        uint32_t i = t->rcpts[k];
        if (t->a->tried[i] && t->a->res[i].status == MAIL_DEFERRED) {
            log_as(s->svc->log_name, "smtp", "%s: %s", t->a->env->qid, t->a->res[i].text);
            t->a->tried[i] = false;
            any = true;
        }
    }
    if (any && s->now.status == MAIL_UNSET) /* other mail goes to the next host too, and may wait */
        session_note(s, MAIL_DEFERRED, BLAME_OURSELVES, CAUSE_OTHER_MAIL, "4.4.0",
                     "host %s put off other mail, and no further host took this", s->where);
    return any;
}

static bool attempt_has_sent(const struct attempt *a) {
    for (uint32_t i = 0; i < a->n; i++)
        if (a->tried[i] && a->res[i].status == MAIL_SENT)
            return true;
    return false;
}

/* Some recipients have results, the others are to be tried with another host.  They wait in s->todo
 * for it, unless the message was taken for one of them: that is noted at once, and the scheduler
 * has the others tried anew. */
static void attempt_goes_on(struct dsess *s, struct attempt *a, unsigned uses) {
    if (attempt_has_sent(a)) {
        a->outcome = ATTEMPT_RETURNED;
        filter_results(s, a, uses);
        return;
    }
    s->leaving = true;
    atomic_store(&a->whole, false);
    dl_push_front(&s->todo, &a->link);
}

/* Every recipient has its result: the attempt is given back, or goes on with the next host.
 * What counts as sent went out whole and was answered so. */
static void txn_over(struct dsess *s, struct txn *t) {
    struct attempt *a = t->a;
    unsigned uses = s->uses;
    for (uint32_t k = 0; k < t->n_rcpts; k++)
        assert(a->res[t->rcpts[k]].status != MAIL_SENT || (t->taken && t->whole));
    bool again = try_elsewhere(s, t);
    attempt_set_relay(a, s->relay);
    txn_free(t);
    if (again)
        attempt_goes_on(s, a, uses);
    else
        give_back(s, a, uses);
}

/* -- sending -- */

/* Must the host have SMTPUTF8?  Not for mail that did not ask for it (strict_smtputf8 = no). */
static bool needs_utf8(const struct envelope *e, const struct txn *t) {
    if ((e->flags & ENV_SMTPUTF8) == 0)
        return false;
    if ((e->flags & ENV_UTF8_HEADER) != 0 || !addr_is_ascii(e->sender))
        return true;
    for (uint32_t k = 0; k < t->n_rcpts; k++)
        if (!addr_is_ascii(txn_rcpt(t, k)->addr))
            return true;
    return false;
}

/* Ends a transaction of which nothing was sent. */
static void txn_refuse(struct dsess *s, struct txn *t, const struct mailerr *e) {
    fill_untried(t->a, e);
    attempt_set_relay(t->a, s->relay);
    struct attempt *a = t->a;
    txn_free(t);
    give_back(s, a, s->uses);
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
        mailerr_set(&err, MAIL_BOUNCED, "5.6.7",
                    "SMTPUTF8 is required, but was not offered by host %s", s->where);
    if (err.text == NULL)
        return false;
    mailerr_blame(&err, PHASE_MAIL, BLAME_MESSAGE);
    err.cause = large ? CAUSE_TOO_LARGE : CAUSE_NO_SMTPUTF8;
    txn_refuse(s, t, &err);
    mailerr_free(&err);
    return true;
}

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
    expect(s, TXN_MAIL, t, 0);
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

static void send_rcpt(struct dsess *s, struct txn *t) {
    uint32_t i = t->rcpts[t->sent_rcpts];
    const struct rcpt *r = txn_rcpt(t, t->sent_rcpts++);
    struct sbuf *line = &s->line;
    sbuf_add_c(line, "RCPT TO:<");
    addr_external(line, r->addr);
    sbuf_add_ch(line, '>');
    if ((s->caps & CAP_DSN) != 0) {
        add_notify(line, r->notify);
        ptrdiff_t semi = str_chr(r->orcpt, ';');
        if (semi > 0) {
            sbuf_printf(line, " ORCPT=%.*s;", (int)semi, r->orcpt.p);
            xtext_encode(line, str_from(r->orcpt, (size_t)semi + 1));
        }
    }
    if (session_say(s)) {
        expect(s, TXN_RCPT, t, i);
    } else {
        control_character(&t->a->res[i], BLAME_RECIPIENT);
        t->a->tried[i] = true;
    }
}

static void send_command(struct dsess *s, struct txn *t, enum txn_command command,
                         const char *text) {
    sbuf_add_c(&s->line, text);
    session_say(s);
    expect(s, command, t, 0);
}

/* Content that can go as it is: no dots to stuff (or BDAT), no lines to break. */
static bool verbatim(const struct dsess *s, const struct txn *t, bool bdat) {
    uint32_t f = t->a->env->flags;
    int64_t limit = s->p->smtp_line_length_limit;
    bool fold = limit > 0 && (limit < (int64_t)CONTENT_LONG_LINE || (f & ENV_LONG_LINES) != 0);
    return !fold && (bdat || (f & ENV_DOTS) == 0);
}

/* BDAT is used where it saves a round trip, and where a reply too many would show: the host says
 * that its replies have enhanced status codes.  Anywhere else DATA costs no more, and 354 shows
 * whether the replies of several recipients have shifted, which BDAT cannot. */
static bool use_bdat(const struct dsess *s, const struct txn *t) {
    unsigned need = CAP_CHUNKING | CAP_PIPELINING | CAP_CODES;
    return (s->caps & need) == need && !t->data_only && t->n_rcpts == 1 &&
           t->a->body->size <= BDAT_EAGER && verbatim(s, t, true);
}

/* Writes content while the output buffer is not too full; false if it cannot be read. */
static bool stream_content(struct dsess *s, struct txn *t) {
    struct sbuf tmp = {0};
    bool ok = true, plain = verbatim(s, t, use_bdat(s, t));
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
        if (!use_bdat(s, t))
            conn_write_c(s->conn, ".\r\n");
        t->sent = SENT_CONTENT;
        t->whole = true;
        atomic_store(&t->a->whole, true);
    }
    s->out_total += conn_pending(s->conn) - before;
    t->content_end = s->out_total;
    return ok;
}

static enum step drop(struct dsess *s, bool suspect);

static enum step content_unreadable(struct dsess *s) {
    session_note(s, MAIL_DEFERRED, BLAME_OURSELVES, CAUSE_CONTENT, "4.3.0",
                 "local error reading the message content");
    return drop(s, false);
}

static enum step begin_content(struct dsess *s, struct txn *t) {
    t->sent = SENT_PART;
    if (use_bdat(s, t)) {
        sbuf_printf(&s->line, "BDAT %llu LAST", (unsigned long long)t->a->body->size);
        session_say(s);
    }
    t->begun = true;
    expect(s, TXN_CONTENT, t, 0);
    if (!use_bdat(s, t))
        s->fifo[s->fifo_at + s->fifo_n - 1].out_end++; /* a reply is about content that has left */
    return stream_content(s, t) ? STEP_DONE : content_unreadable(s);
}

/* 354, but every recipient was refused: an empty message ends it (RFC 2920 section 3.1). */
static void send_empty_content(struct dsess *s, struct txn *t) {
    t->empty = true;
    t->sent = SENT_CONTENT;
    send_command(s, t, TXN_CONTENT, ".");
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
    if (use_bdat(s, t))
        return begin_content(s, t);
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
    if (t->sent == SENT_NOTHING)
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
    bool dot = t->sent == SENT_CONTENT && (t->empty || !use_bdat(s, t));
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

/* May this connection carry that attempt?  Never with another sender's login or old settings, nor
 * where other mail has left the host before this one, which would have taken it. */
static bool fits(const struct dsess *s, const struct attempt *a) {
    if (s->moved && a->begin_us == 0)
        return false;
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

/* May another transaction begin behind the last one?  Behind the RSET of BDAT only when a reply too
 * many would show. */
static bool may_follow(const struct dsess *s) {
    const struct txn *last = DL_OWNER(s->txns.prev, struct txn, link);
    return (s->caps & CAP_PIPELINING) != 0 && s->p->smtp_pipeline_transactions && !is_alone(s) &&
           txn_count(s) < TXNS_MAX && (s->names || !use_bdat(s, last));
}

/* Begins the next waiting attempt if the connection can take it now. */
static enum step begin_next(struct dsess *s) {
    transact_return_recalled(s);
    if ((s->leaving || s->parting) && !dl_empty(&s->txns))
        return STEP_WAIT;
    if (s->leaving || s->parting)
        return s->leaving ? STEP_NEXT_HOST : STEP_RECONNECT;
    if (dl_empty(&s->todo))
        return STEP_WAIT;
    struct attempt *a = DL_OWNER(s->todo.next, struct attempt, link);
    if (!fits(s, a) || worn_out(s))
        return dl_empty(&s->txns) ? STEP_RECONNECT : STEP_WAIT;
    if (!dl_empty(&s->txns) && !may_follow(s))
        return STEP_WAIT;
    dl_remove(&a->link);
    refuse_early(s, txn_new(s, a));
    return STEP_DONE;
}

static enum step transact_pump(struct dsess *s) {
    enum step step = STEP_DONE;
    while (step == STEP_DONE) {
        struct txn *t = sending_txn(s);
        step = t == NULL ? begin_next(s) : send_next(s, t);
    }
    if (step != STEP_WAIT)
        return step;
    if (dl_empty(&s->txns) && dl_empty(&s->todo) && worn_out(s))
        return STEP_RECONNECT;
    conn_deadline(s->conn, time_limit(s) * 1000);
    return STEP_WAIT;
}

static enum step transact_drained(struct dsess *s) {
    struct txn *t = sending_txn(s);
    if (t != NULL && t->sent == SENT_PART && !stream_content(s, t))
        return content_unreadable(s);
    return transact_pump(s);
}

/* -- replies -- */

/* The host is given DATA from now on, unless the trouble was ours. */
static void use_data_only(const struct dsess *s) {
    if (s->now.blame != BLAME_OURSELVES)
        host_trait_add(HOST_DATA_ONLY, &session_target(s)->addr, session_target(s)->dest);
}

/* The connection is of no more use, and s->now says why.  May t be sent again in this attempt? */
static bool may_repeat(const struct dsess *s, const struct txn *t, bool to_blame) {
    bool maybe_sent = t->whole && (t->accepted > 0 || to_blame);
    return !maybe_sent && (!to_blame || session_more_hosts(s));
}

static void forget_results(struct txn *t) {
    for (uint32_t k = 0; k < t->n_rcpts; k++) {
        mailerr_free(&t->a->res[t->rcpts[k]]);
        t->a->tried[t->rcpts[k]] = false;
    }
}

/* Does the reply, which is positive, not say by its enhanced status code which command it answers?
 * A refusal may be about anything, and RSET is not asked: hosts say 2.0.0 or 2.1.5 to it. */
static bool reply_misnames(const struct dsess *s, enum txn_command command) {
    char dsn[12];
    if (s->reply.code / 100 != 2 || command == TXN_RSET)
        return false;
    bool there = dsn_from_reply(dsn, s->reply.code, smtp_reply_last(&s->reply));
    bool about_address = strncmp(dsn + 1, ".1.", 3) == 0;
    return !there || about_address != (command == TXN_MAIL || command == TXN_RCPT);
}

/* Notes what the reply to e says of its own command.  False if it belongs to another one: the host
 * has named its replies so far, or it is the reply to a chunk and about an address. */
static bool reply_fits(struct dsess *s, const struct expected *e) {
    char dsn[12];
    if (!reply_misnames(s, e->command))
        return true;
    e->t->misnamed = true;
    if (!use_bdat(s, e->t))
        return true;
    bool there = dsn_from_reply(dsn, s->reply.code, smtp_reply_last(&s->reply));
    return !s->names && !(e->command == TXN_CONTENT && there);
}

/* The connection is of no more use: may the results of t stand that no RSET has confirmed?  What is
 * taken by BDAT may not, unless the replies themselves say that they have not shifted. */
static bool results_stand(const struct dsess *s, const struct txn *t, bool suspect) {
    if (!t->taken)
        return !suspect && has_all_results(t->a);
    use_data_only(s);
    return !t->misnamed;
}

/* One transaction of a connection that is of no more use. */
static void txn_dropped(struct dsess *s, struct txn *t, bool suspect, bool to_blame,
                        struct dl *again) {
    struct attempt *a = t->a;
    if (results_stand(s, t, suspect)) {
        txn_over(s, t);
        return;
    }
    if (suspect || t->taken)
        forget_results(t);
    bool repeat = may_repeat(s, t, to_blame);
    attempt_set_relay(a, s->relay);
    txn_free(t);
    if (repeat) {
        if (!to_blame)
            a->begin_us = 0; /* the loss is none of its own: as if it had not begun */
        dl_push(again, &a->link);
    } else {
        fill_untried(a, &s->now);
        give_back(s, a, s->uses);
    }
}

/* Is the host itself at fault when the connection dies?  One that had carried mail before, and dies
 * before it answered, is merely old. */
static bool host_is_failing(const struct dsess *s) {
    if (dl_empty(&s->txns))
        return true;
    return DL_OWNER(s->txns.next, struct txn, link)->answered || s->uses <= txn_count(s);
}

/* Ends all transactions of a connection that is of no more use.  A failing host is left for the
 * next one, else the same host is tried again.  A message whose end was sent is never sent again in
 * this attempt. */
static enum step drop_all(struct dsess *s, bool suspect, bool failing) {
    bool first = true;
    struct dl again;
    dl_init(&again);
    s->mute = true;
    if (suspect)
        use_data_only(s);
    while (!dl_empty(&s->txns)) { /* only the first has anything to do with the loss */
        txn_dropped(s, DL_OWNER(s->txns.next, struct txn, link), suspect, first && failing, &again);
        first = false;
    }
    bool next_host = s->leaving || (failing && !dl_empty(&again) && session_more_hosts(s));
    if (next_host && !dl_empty(&again))
        log_as(s->svc->log_name, "smtp", "%s: %s",
               DL_OWNER(again.next, struct attempt, link)->env->qid, s->now.text);
    while (!dl_empty(&again)) { /* in their old order, before what waits */
        struct dl *n = again.prev;
        dl_remove(n);
        dl_push_front(&s->todo, n);
    }
    return next_host ? STEP_NEXT_HOST : STEP_RECONNECT;
}

/* suspect: the host is out of step. */
static enum step drop(struct dsess *s, bool suspect) {
    return drop_all(s, suspect, suspect || host_is_failing(s));
}

/* From now on the host gets its commands one by one. */
static void use_one_by_one(const struct dsess *s, const char *why) {
    const struct target *t = session_target(s);
    if (host_trait_add(HOST_ONE_BY_ONE, &t->addr, t->dest))
        log_as(s->svc->log_name, "smtp", "%s %s: from now on they go one by one", s->relay, why);
}

/* The host has not answered in time: perhaps it drops what is pipelined. */
static void learn_one_by_one(const struct dsess *s) {
    if (s->fifo_n > 0 && s->fifo[s->fifo_at].piped)
        use_one_by_one(
            s, "does not answer a command that was sent before the reply to the one before");
}

static enum step transact_lost(struct dsess *s, bool timeout) {
    if (timeout && dl_empty(&s->txns)) /* unused for smtp_connection_cache_time_limit */
        return STEP_RECONNECT;
    session_note(s, MAIL_DEFERRED, BLAME_MESSAGE, timeout ? CAUSE_TIMEOUT : CAUSE_LOST, "4.4.2",
                 "%s with %s %s %s", timeout ? "conversation" : "lost connection", s->where,
                 timeout ? "timed out while" : "while", transact_doing(s));
    if (timeout)
        learn_one_by_one(s);
    return drop(s, false);
}

static enum step transact_malformed(struct dsess *s) {
    return drop(s, true);
}

/* The reply makes no sense where it stands: which commands the ones before it belonged to is not
 * known either. */
static enum step out_of_step(struct dsess *s, const struct expected *e) {
    session_note_out_of_step(s, e == NULL ? "no" : verdict_command_name(e->command));
    return drop(s, true);
}

/* 421: the host ends the session; e is the command that it answers, or NULL when none waits. */
static void note_closing(struct dsess *s, const struct expected *e) {
    struct sbuf line = {0};
    char dsn[12];
    smtp_reply_line(&s->reply, &line);
    dsn_from_reply(dsn, s->reply.code, smtp_reply_last(&s->reply));
    if (e == NULL)
        session_note(s, MAIL_DEFERRED, BLAME_MESSAGE, CAUSE_UNSET, dsn, "host %s said: %s",
                     s->where, line.p);
    else
        session_note(s, MAIL_DEFERRED, BLAME_MESSAGE, CAUSE_UNSET, dsn,
                     "host %s said: %s (in reply to %s command)", s->where, line.p,
                     verdict_command_name(e->command));
    mailerr_remote(&s->now, session_target(s)->host, sbuf_str(&line));
    sbuf_free(&line);
}

static enum step closing(struct dsess *s, const struct expected *e) {
    note_closing(s, e);
    return drop(s, false);
}

static void on_refusal(struct dsess *s, const struct expected *e, enum verdict v) {
    struct txn *t = e->t;
    if (t->disputed) { /* no refusal counts: txn_answered has the mail go once more */
        t->accepted = 0;
        return;
    }
    if (e->command == TXN_RCPT) {
        if (!t->refused)
            reply_result(s, t, e->rcpt, TXN_RCPT, v);
        return;
    }
    all_results(s, t, e->command, v);
    t->refused = t->refused || e->command == TXN_MAIL || e->command == TXN_DATA;
}

/* Is the reply to some chunk still to come? */
static bool chunk_is_out(const struct dsess *s) {
    for (size_t i = 0; i < s->fifo_n; i++) {
        const struct expected *e = &s->fifo[s->fifo_at + i];
        if (e->command == TXN_CONTENT && use_bdat(s, e->t))
            return true;
    }
    return false;
}

/* Does the host that says 421 have chunks whose replies are read all the same?  It may neither hang
 * up nor stop reading, and what it takes then is not sent again. */
static bool parts_slowly(const struct dsess *s, const struct expected *e) {
    bool early = e->out_end > s->reply_gone;
    return !early && content_state(s, e->t) != CONTENT_PART && chunk_is_out(s);
}

/* 421, and replies of the host are waited for: to e it is a refusal for now. */
static void host_parts(struct dsess *s, const struct expected *e) {
    struct dl again;
    dl_init(&again);
    note_closing(s, e);
    s->parting = true;
    if (e->command != TXN_RSET)
        on_refusal(s, e, VERDICT_LATER);
    else
        txn_dropped(s, e->t, false, true, &again);
    assert(dl_empty(&again)); /* what RSET was sent behind has its result or was whole */
}

/* All that is to come of replies to t has come.  What a host that contradicted itself has not taken
 * goes to it once more. */
static void txn_answered(struct dsess *s, struct txn *t) {
    struct attempt *a = t->a;
    if (!t->disputed || t->taken) {
        txn_over(s, t);
        return;
    }
    a->begin_us = 0; /* as if it had not begun */
    atomic_store(&a->whole, false);
    txn_free(t);
    dl_push_front(&s->todo, &a->link);
}

/* The last reply to t has come, and the connection goes on. */
static void txn_ended(struct dsess *s, struct txn *t) {
    if (t->misnamed && use_bdat(s, t))
        use_data_only(s);
    s->names = s->names || (t->taken && !t->misnamed);
    txn_answered(s, t);
}

static enum step on_verdict(struct dsess *s, const struct expected *e, enum verdict v) {
    struct txn *t = e->t;
    bool part = content_state(s, t) == CONTENT_PART;
    if (v == VERDICT_CLOSING) {
        host_parts(s, e);
        return STEP_DONE;
    }
    if (v == VERDICT_LATER || v == VERDICT_REFUSED) {
        on_refusal(s, e, v);
    } else if (v == VERDICT_SENT) {
        t->taken = true;
        all_results(s, t, TXN_CONTENT, v);
    } else if (v == VERDICT_GO) {
        if (t->accepted == 0)
            send_empty_content(s, t);
        else
            return begin_content(s, t);
    } else if (e->command == TXN_RCPT && !t->refused) {
        t->ok[e->rcpt] = true;
        t->accepted++;
    }
    if (e->command == TXN_CONTENT && part) { /* the rest of it cannot be taken back */
        txn_answered(s, t);
        return drop(s, false);
    }
    bool dot = e->command == TXN_CONTENT && (t->empty || !use_bdat(s, t));
    if (e->command == TXN_RSET || dot)
        txn_ended(s, t);
    return STEP_DONE;
}

/* Does the host take a recipient of a sender that it has refused, or content for which it has taken
 * no recipient?  Either it takes no notice of what went before, or the refusal answered something
 * else. */
static bool contradicts(const struct expected *e, enum verdict v) {
    return v == VERDICT_OK &&
           (e->command == TXN_CONTENT || (e->command == TXN_RCPT && e->t->refused));
}

/* The host contradicts itself: its refusals in this transaction are not believed.  What it says to
 * content that went out whole counts: what it takes is sent (RFC 5321 section 6.1), anything else
 * goes to it once more, one command at a time, where each reply is that of its command.  False if
 * nothing of the content went out: then the connection is of no more use, for to wait for 354 would
 * be to owe the host content, or to give it a lone dot for mail that it has taken. */
static bool txn_dispute(struct dsess *s, const struct expected *e) {
    struct txn *t = e->t;
    session_note_out_of_step(s, verdict_command_name(e->command));
    s->now.blame = BLAME_MESSAGE;
    assert((s->caps & CAP_PIPELINING) != 0); /* else nothing is sent behind a refusal */
    use_one_by_one(s, "takes what comes behind a sender or a recipient that it refused");
    if (!t->begun && !t->empty)
        return false;
    forget_results(t);
    t->refused = false;
    t->disputed = true;
    s->parting = true;
    return true;
}

bool transact_content_due(const struct dsess *s) {
    return s->fifo_n > 0 && s->fifo[s->fifo_at].command == TXN_CONTENT;
}

static enum step transact_reply(struct dsess *s) {
    if (s->fifo_n == 0) {
        /* Nothing waits: the host may leave at any time, and says so. */
        return s->reply.code == 421 ? closing(s, NULL) : out_of_step(s, NULL);
    }
    struct expected e = s->fifo[s->fifo_at];
    enum verdict v = verdict_of(e.command, s->reply.code, content_state(s, e.t),
                                !session_target(s)->own_mx, s->cfg->p.soft_bounce);
    if (v == VERDICT_CLOSING && !parts_slowly(s, &e))
        return closing(s, &e);
    if (v == VERDICT_SUSPECT || e.out_end > s->reply_gone || !reply_fits(s, &e))
        return out_of_step(s, &e);
    if (contradicts(&e, v) && !txn_dispute(s, &e))
        return drop_all(s, true, false);
    s->fifo_at++;
    s->fifo_n--;
    e.t->answered = e.t->answered || e.command != TXN_RSET;
    enum step step = on_verdict(s, &e, v);
    return step == STEP_DONE ? transact_pump(s) : step;
}

/* No host is left: s->err is the result of what waits.  What it is no result for stays, and begins
 * with the first host. */
static void transact_over(struct dsess *s) {
    if (s->err.status == MAIL_UNSET) {
        session_note(s, MAIL_DEFERRED, BLAME_SITE, CAUSE_NO_HOST, "4.4.4",
                     "unable to find primary relay for %s", s->nexthop);
        session_take_error(s);
    }
    if (s->moved && s->err.blame == BLAME_SITE)
        s->err.blame = BLAME_MESSAGE; /* a host of the site works: other mail need not wait */
    bool reached = s->err.phase != PHASE_CONNECT && s->sessions > 0;
    DL_EACH_SAFE (it, &s->todo) {
        struct attempt *a = DL_OWNER(it, struct attempt, link);
        if (!fits(s, a)) /* none of the round's errors is its own */
            continue;
        dl_remove(&a->link);
        if (a->begin_us == 0)
            a->begin_us = s->begin_us;
        a->conn_us = 0;
        fill_untried(a, &s->err);
        attempt_set_relay(a, reached ? s->relay : "");
        give_back(s, a, 0);
    }
}

static enum step transact_begin(struct dsess *s) {
    s->hop_sessions++;
    s->ready_ms = s->d->loop->now_ms;
    s->conn_us = clock_wall_us();
    if (has_trait(s, HOST_ONE_BY_ONE))
        s->caps &= ~(unsigned)CAP_PIPELINING;
    return transact_pump(s);
}

const struct stage transact_stage = {.name = "mail",
                                     .phase = PHASE_MAIL,
                                     .connects = true,
                                     .begin = transact_begin,
                                     .more = transact_pump,
                                     .reply = transact_reply,
                                     .lost = transact_lost,
                                     .drained = transact_drained,
                                     .malformed = transact_malformed,
                                     .tells_doing = transact_doing,
                                     .over = transact_over};
