/*
 * deliver/txn.c - mail transactions: what is expected, what became of them, how they end
 *
 * Called by txn_send.c, which sends them, and by transact.c, which judges the replies.  A
 * transaction owns its attempt from txn_new until it is given back (deliver_ops.result) or put back
 * into s->todo; what ends a transaction frees it, and no other part of the session has it.  The
 * session's loop only.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "deliver/traits.h"
#include "deliver/txn.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"

void txn_expect(struct dsess *s, enum txn_command command, struct txn *t, uint32_t rcpt) {
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

static void txn_free(struct txn *t) {
    dl_remove(&t->link);
    free(t->rcpts);
    free(t->ok);
    free(t);
}

struct txn *txn_new(struct dsess *s, struct attempt *a) {
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
    t->data_only = session_has_trait(s, HOST_DATA_ONLY);
    s->uses++;
    dl_push(&s->txns, &t->link);
    return t;
}

void txn_give_back(struct dsess *s, struct attempt *a, unsigned uses) {
    for (uint32_t i = 0; i < a->n; i++)
        assert(a->tried[i] && a->res[i].status != MAIL_UNSET);
    a->outcome = ATTEMPT_TRIED;
    a->cert_until = s->cert_until;
    filter_results(s, a, uses);
}

void txn_return_recalled(struct dsess *s) {
    DL_EACH_SAFE (it, &s->todo) {
        struct attempt *a = DL_OWNER(it, struct attempt, link);
        if (!atomic_load(&a->recalled))
            continue;
        dl_remove(&a->link);
        a->outcome = ATTEMPT_RETURNED;
        filter_results(s, a, 0); /* what an earlier host refused for good */
    }
}

/* -- results -- */

static void set_result(struct attempt *a, uint32_t i, const struct mailerr *e) {
    mailerr_copy(&a->res[i], e);
    attempt_forget_host(a, i);
    a->tried[i] = true;
}

/* Does what an earlier host said of the recipient say more than e, the error of the round?  What
 * was said of other mail is no result for it. */
static bool keeps_own(const struct mailerr *own, const struct mailerr *e) {
    bool both_said = own->phase == PHASE_MAIL && e->phase == PHASE_MAIL;
    return error_outweighs(own, e->status, e->phase) ||
           (own->status == MAIL_DEFERRED && e->status == MAIL_DEFERRED && both_said);
}

void txn_fill_untried(struct attempt *a, const struct mailerr *e) {
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

void txn_rcpt_result(struct dsess *s, struct txn *t, uint32_t i, enum txn_command command,
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
    attempt_forget_host(t->a, i);
    t->a->tried[i] = true;
    sbuf_free(&line);
}

void txn_all_results(struct dsess *s, struct txn *t, enum txn_command command, enum verdict v) {
    for (uint32_t k = 0; k < t->n_rcpts; k++)
        if (command <= TXN_MAIL || t->ok[t->rcpts[k]])
            txn_rcpt_result(s, t, t->rcpts[k], command, v);
}

void txn_forget_results(struct txn *t) {
    for (uint32_t k = 0; k < t->n_rcpts; k++) {
        mailerr_free(&t->a->res[t->rcpts[k]]);
        attempt_forget_host(t->a, t->rcpts[k]);
        t->a->tried[t->rcpts[k]] = false;
    }
}

/* -- the end of one -- */

/* The recipients that the host put off are to be tried with the next one.  True if there are any.
 */
static bool put_off_go_on(const struct dsess *s, struct txn *t) {
    bool any = false;
    for (uint32_t k = 0; k < t->n_rcpts; k++) {
        uint32_t i = t->rcpts[k];
        if (t->a->tried[i] && t->a->res[i].status == MAIL_DEFERRED) {
            log_as(s->svc->log_name, session_program(s), "%s: %s", t->a->env->qid,
                   t->a->res[i].text);
            t->a->tried[i] = false;
            any = true;
        }
    }
    return any;
}

/* If another host is left, forgets temporary refusals so that they are tried there, whatever went
 * out of the content: the host has said that it did not take it.  True if there were any. */
static bool try_elsewhere(struct dsess *s, struct txn *t) {
    bool any = session_more_hosts(s) && put_off_go_on(s, t);
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

/* For the log: the host in use is the one that has spoken last. */
static void note_host(const struct dsess *s, struct attempt *a) {
    attempt_set_relay(a, s->relay);
    tls_fate_name(session_tls_fate(s, NULL), a->tls);
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
    attempt_keep_host(a);
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
    note_host(s, a);
    txn_free(t);
    if (again)
        attempt_goes_on(s, a, uses);
    else
        txn_give_back(s, a, uses);
}

void txn_refuse(struct dsess *s, struct txn *t, const struct mailerr *e) {
    struct attempt *a = t->a;
    txn_fill_untried(a, e);
    note_host(s, a);
    txn_free(t);
    txn_give_back(s, a, s->uses);
}

void txn_answered(struct dsess *s, struct txn *t) {
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

/* -- the end of a connection -- */

void txn_use_data_only(const struct dsess *s) {
    if (s->now.blame != BLAME_OURSELVES)
        host_trait_add(HOST_DATA_ONLY, &session_target(s)->addr, session_target(s)->dest);
}

/* The connection is of no more use, and s->now says why.  May t be sent again in this attempt? */
static bool may_repeat(const struct dsess *s, const struct txn *t, bool to_blame) {
    bool maybe_sent = t->whole && (t->accepted > 0 || to_blame);
    return !maybe_sent && (!to_blame || session_more_hosts(s));
}

/* The connection is of no more use: may the results of t stand that no RSET has confirmed?  What is
 * taken by BDAT may not, unless the replies themselves say that they have not shifted. */
static bool results_stand(const struct dsess *s, const struct txn *t, bool suspect) {
    if (!t->taken)
        return !suspect && has_all_results(t->a);
    txn_use_data_only(s);
    return !t->misnamed;
}

/* An LMTP server has answered for some of its recipients: that stands, and the message is not sent
 * to the others again in this attempt. */
static void answered_in_part(struct dsess *s, struct txn *t) {
    struct attempt *a = t->a;
    note_host(s, a);
    txn_free(t);
    txn_fill_untried(a, &s->now);
    txn_give_back(s, a, s->uses);
}

void txn_dropped(struct dsess *s, struct txn *t, bool suspect, bool to_blame, struct dl *again) {
    struct attempt *a = t->a;
    if (t->owed > 0 && t->owed < t->accepted) {
        answered_in_part(s, t);
        return;
    }
    if (results_stand(s, t, suspect)) {
        txn_over(s, t);
        return;
    }
    if (suspect || t->taken)
        txn_forget_results(t);
    bool repeat = may_repeat(s, t, to_blame);
    note_host(s, a);
    if (repeat && to_blame) {
        put_off_go_on(s, t);
        attempt_keep_host(a);
    }
    txn_free(t);
    if (repeat) {
        if (!to_blame)
            a->begin_us = 0; /* the loss is none of its own: as if it had not begun */
        dl_push(again, &a->link);
    } else {
        txn_fill_untried(a, &s->now);
        txn_give_back(s, a, s->uses);
    }
}

unsigned txn_count(const struct dsess *s) {
    unsigned n = 0;
    DL_EACH (it, &s->txns)
        n++;
    return n;
}

/* Is the host itself at fault when the connection dies?  One that had carried mail before, and dies
 * before it answered, is merely old. */
static bool host_is_failing(const struct dsess *s) {
    if (dl_empty(&s->txns))
        return true;
    return DL_OWNER(s->txns.next, struct txn, link)->answered || s->uses <= txn_count(s);
}

enum step txn_drop_all(struct dsess *s, bool suspect, bool failing) {
    bool first = true;
    struct dl again;
    dl_init(&again);
    s->mute = true;
    if (suspect)
        txn_use_data_only(s);
    while (!dl_empty(&s->txns)) { /* only the first has anything to do with the loss */
        txn_dropped(s, DL_OWNER(s->txns.next, struct txn, link), suspect, first && failing, &again);
        first = false;
    }
    bool next_host = s->leaving || (failing && !dl_empty(&again) && session_more_hosts(s));
    if (next_host && !dl_empty(&again))
        log_as(s->svc->log_name, session_program(s), "%s: %s",
               DL_OWNER(again.next, struct attempt, link)->env->qid, s->now.text);
    while (!dl_empty(&again)) { /* in their old order, before what waits */
        struct dl *n = again.prev;
        dl_remove(n);
        dl_push_front(&s->todo, n);
    }
    return next_host ? STEP_NEXT_HOST : STEP_RECONNECT;
}

enum step txn_drop(struct dsess *s, bool suspect) {
    return txn_drop_all(s, suspect, suspect || host_is_failing(s));
}
