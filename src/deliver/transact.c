/*
 * deliver/transact.c - mail transactions of a delivery session: replies, and the stage "mail"
 *
 * txn_send.c sends, txn.c has the transactions and their ends.  Every command that waits for its
 * reply is in s->fifo, and verdict.c says what a reply to it means. A peer may give one reply too
 * many or too few, and then every later reply is taken for another command's.  354 shows that for
 * DATA.  For all else RSET does: a transaction that no final dot ends is ended by RSET, and its
 * results count when that reply has come and was 2xx.  A reply that comes before its command has
 * left, or that no command waits for, or that its command cannot have, makes the session suspect:
 * nothing that was not given back by then counts.
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
 * The session's loop only.  Functions that return a step leave the connection as it is: the
 * session's driver closes it.
 */
#include <assert.h>
#include <string.h>

#include "deliver/traits.h"
#include "deliver/txn.h"
#include "util/clock.h"
#include "util/log.h"

/* As the reply that is being judged can know it. */
static enum txn_content content_state(const struct dsess *s, const struct txn *t) {
    if (t->accepted == 0 || !t->begun)
        return CONTENT_NONE;
    return t->whole && s->reply_gone >= t->content_end ? CONTENT_WHOLE : CONTENT_PART;
}

static const char *transact_doing(const struct dsess *s) {
    static const char *const doing[TXN_COMMANDS] = {
        [TXN_XFORWARD] = "sending XFORWARD",
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
    if (!txn_uses_bdat(s, e->t))
        return true;
    bool there = dsn_from_reply(dsn, s->reply.code, smtp_reply_last(&s->reply));
    return !s->names && !(e->command == TXN_CONTENT && there);
}

/* From now on the host gets its commands one by one. */
static void use_one_by_one(const struct dsess *s, const char *why) {
    const struct target *t = session_target(s);
    if (host_trait_add(HOST_ONE_BY_ONE, &t->addr, t->dest))
        log_as(s->svc->log_name, session_program(s), "%s %s: from now on they go one by one",
               s->relay, why);
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
    return txn_drop(s, false);
}

static enum step transact_malformed(struct dsess *s) {
    return txn_drop(s, true);
}

/* The reply makes no sense where it stands: which commands the ones before it belonged to is not
 * known either. */
static enum step out_of_step(struct dsess *s, const struct expected *e) {
    session_note_out_of_step(s, e == NULL ? "no" : verdict_command_name(e->command));
    return txn_drop(s, true);
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
    return txn_drop(s, false);
}

/* What the host says of the content: of one recipient by LMTP, of all that it took else, and where
 * not all of the content has left for it. */
static void content_results(struct dsess *s, const struct expected *e, enum verdict v) {
    if (e->t->owed == 0 || content_state(s, e->t) == CONTENT_PART) {
        txn_all_results(s, e->t, TXN_CONTENT, v);
        return;
    }
    e->t->owed--;
    txn_rcpt_result(s, e->t, e->rcpt, TXN_CONTENT, v);
}

static void on_refusal(struct dsess *s, const struct expected *e, enum verdict v) {
    struct txn *t = e->t;
    if (t->disputed) { /* no refusal counts: txn_answered has the mail go once more */
        t->accepted = 0;
        return;
    }
    if (e->command == TXN_RCPT) {
        if (!t->refused)
            txn_rcpt_result(s, t, e->rcpt, TXN_RCPT, v);
        return;
    }
    if (e->command == TXN_CONTENT)
        content_results(s, e, v);
    else
        txn_all_results(s, t, e->command, v);
    t->refused = t->refused || e->command != TXN_CONTENT;
}

/* Is the reply to some chunk still to come? */
static bool chunk_is_out(const struct dsess *s) {
    for (size_t i = 0; i < s->fifo_n; i++) {
        const struct expected *e = &s->fifo[s->fifo_at + i];
        if (e->command == TXN_CONTENT && txn_uses_bdat(s, e->t))
            return true;
    }
    return false;
}

/* Does the host that says 421 have chunks with replies that are read all the same?  It may neither
 * hang up nor stop reading, and what it takes then is not sent again. */
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

/* The last reply to t has come, and the connection goes on. */
static void txn_ended(struct dsess *s, struct txn *t) {
    if (t->misnamed && txn_uses_bdat(s, t))
        txn_use_data_only(s);
    s->names = s->names || (t->taken && !t->misnamed);
    txn_answered(s, t);
}

/* An LMTP server says 354 where no recipient was taken: it would not answer a lone dot. */
static enum step content_for_none(struct dsess *s, struct txn *t) {
    session_note_out_of_step(s, verdict_command_name(TXN_DATA));
    txn_answered(s, t);
    return txn_drop(s, false);
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
        content_results(s, e, v);
    } else if (v == VERDICT_GO) {
        if (t->accepted > 0)
            return txn_begin_content(s, t);
        if (session_is_lmtp(s))
            return content_for_none(s, t);
        txn_send_empty(s, t);
    } else if (e->command == TXN_RCPT && !t->refused) {
        t->ok[e->rcpt] = true;
        t->accepted++;
    }
    if (e->command == TXN_CONTENT && part) { /* the rest of it cannot be taken back */
        txn_answered(s, t);
        return txn_drop(s, false);
    }
    bool dot = e->command == TXN_CONTENT && (t->empty || !txn_uses_bdat(s, t));
    if (e->command == TXN_RSET || (dot && t->owed == 0))
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
    if ((!t->begun && !t->empty) || session_is_lmtp(s))
        return false;
    txn_forget_results(t);
    t->refused = false;
    t->disputed = true;
    s->parting = true;
    return true;
}

bool transact_content_due(const struct dsess *s) {
    return s->fifo_n > 0 && s->fifo[s->fifo_at].command == TXN_CONTENT;
}

static void note_not_told(const struct dsess *s) {
    struct sbuf line = {0};
    smtp_reply_line(&s->reply, &line);
    log_warn("smtp", "host %s said: %s (in reply to XFORWARD command)", s->where, line.p);
    sbuf_free(&line);
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
        return txn_drop_all(s, true, false);
    if (e.command == TXN_XFORWARD && s->reply.code / 100 != 2)
        note_not_told(s);
    s->fifo_at++;
    s->fifo_n--;
    e.t->answered = e.t->answered || e.command != TXN_RSET;
    enum step step = on_verdict(s, &e, v);
    return step == STEP_DONE ? txn_pump(s) : step;
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
        if (!txn_fits(s, a)) /* none of the round's errors is its own */
            continue;
        dl_remove(&a->link);
        if (a->begin_us == 0)
            a->begin_us = s->begin_us;
        a->conn_us = 0;
        txn_fill_untried(a, &s->err);
        attempt_set_relay(a, reached ? s->relay : "");
        tls_fate_name(s->err_tls, a->tls);
        txn_give_back(s, a, 0);
    }
}

static enum step transact_begin(struct dsess *s) {
    s->hop_sessions++;
    s->ready_ms = s->asked_ms = s->d->loop->now_ms;
    s->conn_us = clock_wall_us();
    if (session_has_trait(s, HOST_ONE_BY_ONE))
        s->caps &= ~(unsigned)CAP_PIPELINING;
    return txn_pump(s);
}

const struct stage transact_stage = {.name = "mail",
                                     .phase = PHASE_MAIL,
                                     .connects = true,
                                     .begin = transact_begin,
                                     .more = txn_more,
                                     .reply = transact_reply,
                                     .lost = transact_lost,
                                     .drained = txn_drained,
                                     .malformed = transact_malformed,
                                     .tells_doing = transact_doing,
                                     .over = transact_over};
