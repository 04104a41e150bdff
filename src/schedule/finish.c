/*
 * schedule/finish.c - the end of a round: reports, settling, next attempt
 *
 * A failed recipient is settled in the same spool record batch as the report that tells the sender,
 * so neither can be lost without the other; so is the mark that the sender was warned of a delay.
 * A delivered recipient is settled at once, and the report of success that is owed is kept as its
 * state: if that report cannot be queued, the report is tried again and not the delivery.
 */
#include "schedule/finish.h"

#include <stdlib.h>
#include <string.h>

#include "clean/virtual.h"
#include "report/dsn.h"
#include "report/logline.h"
#include "schedule/content.h"
#include "schedule/forward.h"
#include "schedule/msg.h"
#include "schedule/rcpt.h"
#include "schedule/timers.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"

/* Nothing is left to do; noted: the spool knows it already. */
static void msg_remove(struct msg *m, bool noted) {
    if (!noted)
        spool_note(m->s->spool, SPOOL_DONE, m->env->id, NULL);
    logline_removed(m->env->qid);
    msg_free(m);
}

static int64_t lifetime_us(const struct msg *m) {
    const struct params *p = &m->s->cfg->p;
    int64_t s = m->env->sender.n == 0 ? p->bounce_queue_lifetime : p->maximal_queue_lifetime;
    return s * 1000000;
}

static int64_t age_us(const struct msg *m, int64_t now) {
    return now - m->env->arrival_us - m->shift_us;
}

/* What a reload or an order has taken back before it was tried does not end for its age: its next
 * round begins at once, or when it is released. */
static bool too_old(const struct msg *m, int64_t now) {
    bool tried = !m->at_once && (m->flags & PROGRESS_HOLD) == 0;
    return tried && age_us(m, now) >= lifetime_us(m);
}

/* now + the message's age, between the two back-off times (qmgr(8)). */
static void set_next(struct msg *m, int64_t now) {
    const struct params *p = &m->s->cfg->p;
    int64_t wait = age_us(m, now);
    if (wait < p->minimal_backoff_time * 1000000)
        wait = p->minimal_backoff_time * 1000000;
    if (wait > p->maximal_backoff_time * 1000000)
        wait = p->maximal_backoff_time * 1000000;
    m->next_us = now + wait;
}

/* Of what is due the oldest goes first: what changes take back again and again does not keep the
 * rest from its turn. */
static void msg_defer(struct msg *m) {
    if (m->at_once)
        m->next_us = due_since(m->s->changed_us, clock_wall_us());
    else
        set_next(m, clock_wall_us());
    msg_set_queue(m, (m->flags & PROGRESS_HOLD) != 0 ? QUEUE_HOLD : QUEUE_DEFERRED);
    msg_set_busy(m, m->at_once && m->queue == QUEUE_DEFERRED);
    msg_set_again(m, false);
    msg_count_reasons(m, true);
    msg_save_progress(m);
    msg_drop_body(m);
    if (m->queue == QUEUE_DEFERRED)
        heap_put(m->s, m);
}

static void msg_settle_all(struct msg *m, uint8_t from, uint8_t to) {
    for (uint32_t i = 0; i < m->env->n_rcpts; i++)
        if (m->rcpts[i].state == from)
            msg_set_state(m, i, to);
}

/* What follows may take a while: after a crash what a relay host has taken must not be sent again.
 */
static void msg_note_taken(struct msg *m) {
    if (m->partial)
        msg_save_part(m);
}

struct report_op {
    struct spool_op op;
    struct task back;
    struct sched *s;
    struct envelope *env; /* of the report */
    uint64_t about;
    char about_qid[QID_MAX];
    enum dsn_kind kind;
    struct sbuf content; /* until it is the spool's */
    bool settles_all;    /* the record of the report is the end of the message, too */
};

/* What each kind of report is about, but for that of a delay, and what its record settles. */
static const struct {
    uint8_t state;
    enum settle what;
} report_about[] = {[DSN_FAILED] = {RCPT_FAILED, SETTLE_FAILED},
                    [DSN_DELAYED] = {RCPT_WAITS, SETTLE_WARNED},
                    [DSN_RELAYED] = {RCPT_REPORT, SETTLE_REPORTED},
                    [DSN_EXPANDED] = {RCPT_EXPANDED, SETTLE_EXPANDED},
                    [DSN_LISTED] = {RCPT_LISTED, SETTLE_LISTED}};

static const enum dsn_kind reports_of_success[] = {DSN_RELAYED, DSN_EXPANDED, DSN_LISTED};

static uint32_t msg_count_state(const struct msg *m, uint8_t state) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->env->n_rcpts; i++)
        n += m->rcpts[i].state == state;
    return n;
}

/* The report is durable, and with it that it was made. */
static void report_made(struct msg *m, const struct report_op *r) {
    if (r->kind == DSN_DELAYED)
        m->flags |= PROGRESS_WARNED;
    else
        msg_settle_all(m, report_about[r->kind].state, RCPT_DONE);
    if (r->settles_all && !m->deleted)
        msg_remove(m, true);
    else
        msg_finish(m);
}

/* The report could not be queued.  Recipients that failed are tried again; a delivered one is not:
 * its report is. */
static void report_failed(struct msg *m) {
    msg_settle_all(m, RCPT_FAILED, RCPT_WAITS);
    m->no_report = true;
    msg_finish(m);
}

static void report_back(struct task *t) {
    struct report_op *r = DL_OWNER(t, struct report_op, back);
    struct sched *s = r->s;
    struct msg *m = itab_get(&s->msgs, r->about);
    if (r->op.rc == 0) {
        log_info("bounce", "%s: %s: %s", r->about_qid, dsn_log_name(r->kind), r->env->qid);
        s->add(s, envelope_ref(r->env), r->op.body);
    } else if (r->op.rc == -ECANCELED) {
        log_info("bounce", "%s: a report is given up", r->about_qid);
    } else {
        body_unref(r->op.body);
        log_warn("bounce", "%s: cannot queue a report: %s", r->about_qid, strerror(-r->op.rc));
    }
    if (m != NULL) {
        m->finishing = false;
        if (r->op.rc == 0)
            report_made(m, r);
        else
            report_failed(m);
    }
    sbuf_free(&r->content);
    sbuf_free(&r->op.meta);
    sbuf_free(&r->op.settled);
    envelope_unref(r->env);
    free(r);
}

static void report_done(struct spool_op *op) {
    struct report_op *r = DL_OWNER(op, struct report_op, op);
    r->back.run = report_back;
    loop_post(r->s->loop, &r->back);
}

/* What the report's record says of the message, in the same breath. */
static void report_settles(struct msg *m, struct report_op *r) {
    uint32_t rest = m->left + m->reporting;
    if (r->kind != DSN_DELAYED)
        rest -= msg_count_state(m, report_about[r->kind].state);
    r->op.settles = m->env->id;
    r->settles_all = rest == 0;
    if (!r->settles_all)
        msg_encode(m, report_about[r->kind].what, &r->op.settled);
}

static void report_submit(struct report_op *r) {
    r->op.kind = SPOOL_NEW;
    r->op.id = r->env->id;
    r->op.body = body_from_buf(&r->content);
    r->op.done = report_done;
    envelope_encode(r->env, &r->op.meta);
    spool_submit(r->s->spool, &r->op);
}

/* The sender is an alias: the report goes to what that stands for. */
static void report_to_aliases(void *arg, const struct virtual_result *aliases) {
    struct report_op *r = arg;
    struct envelope t = *r->env, *old = r->env;
    const struct msg *m = itab_get(&r->s->msgs, r->about);
    bool deleted = m == NULL || m->deleted;     /* while they were asked for */
    if (aliases->rc != VIRTUAL_OK || deleted) { /* as if the disk had been full */
        r->op.rc = deleted ? -ECANCELED : -EAGAIN;
        report_back(&r->back);
        return;
    }
    t.rcpts = aliases->rcpts;
    t.n_rcpts = aliases->n;
    r->env = envelope_make(&t);
    envelope_unref(old);
    report_submit(r);
}

static void report_send(struct msg *m, enum dsn_kind kind, const struct dsn_rcpt *rcpts, size_t n) {
    struct report_op *r = MEM_NEW(struct report_op);
    struct sbuf tmp = {0}, message_id = {0};
    size_t max = (size_t)m->s->cfg->p.bounce_size_limit;
    struct str orig =
        m->body == NULL ? STR_LIT("") : body_view(m->body, 0, max < 4096 ? 4096 : max, &tmp);
    struct dsn d = {.kind = kind,
                    .cfg = m->s->cfg,
                    .env = m->env,
                    .rcpts = rcpts,
                    .n = n,
                    .original = orig,
                    .original_whole = m->body != NULL && orig.n == m->body->size,
                    .expires_us = m->env->arrival_us + m->shift_us + lifetime_us(m)};
    r->s = m->s;
    r->kind = kind;
    r->env = dsn_build(&d, &r->content);
    r->about = m->env->id;
    memcpy(r->about_qid, m->env->qid, QID_MAX);
    report_settles(m, r);
    qid_message_id(&message_id, r->env->qid, r->env->arrival_us, m->s->cfg->p.myhostname);
    log_info("cleanup", "%s: message-id=%s", r->env->qid, message_id.p);
    sbuf_free(&message_id);
    m->finishing = true;
    sbuf_free(&tmp);
    if (virtual_is_idle(m->s->cfg, NULL)) {
        report_submit(r);
        return;
    }
    msg_note_taken(m); /* the table may be slow */
    virtual_expand(m->s->cfg, m->s->lookup, r->env->qid, r->env->rcpts, r->env->n_rcpts, NULL,
                   report_to_aliases, r);
}

/* Does the sender of the message want to hear that of this recipient (RFC 3461 NOTIFY)? */
static bool is_wanted(const struct msg *m, uint32_t rcpt, enum dsn_kind kind) {
    uint32_t notify = m->env->rcpts[rcpt].notify;
    if (m->env->sender.n == 0)
        return false;
    if (kind != DSN_FAILED && kind != DSN_DELAYED)
        return (notify & NOTIFY_SUCCESS) != 0;
    return notify == 0 || (notify & (kind == DSN_FAILED ? NOTIFY_FAILURE : NOTIFY_DELAY)) != 0;
}

/* Reports on every recipient that the kind is about, each with its own error.  True if a report is
 * on its way; false if none is wanted. */
static bool report_state(struct msg *m, enum dsn_kind kind) {
    static const struct mailerr nothing = {.status = MAIL_DEFERRED, .dsn = "4.0.0"};
    struct dsn_rcpt *list = mem_alloc(m->env->n_rcpts * sizeof *list);
    size_t n = 0;
    for (uint32_t i = 0; i < m->env->n_rcpts; i++) {
        const struct reason *why = m->rcpts[i].why;
        if (m->rcpts[i].state == report_about[kind].state && is_wanted(m, i, kind))
            list[n++] = (struct dsn_rcpt){&m->env->rcpts[i], why == NULL ? &nothing : &why->err};
    }
    if (n > 0)
        report_send(m, kind, list, n);
    free(list);
    return n > 0;
}

/* Recipients that are still waiting when the message is too old bounce with their last error. */
static void msg_expire(struct msg *m, bool forced) {
    struct mailerr e = {0};
    logline_expired(m->env, forced);
    mailerr_set(&e, MAIL_BOUNCED, "4.4.7", "message expired");
    mailerr_blame(&e, PHASE_ROUTE, BLAME_MESSAGE);
    e.cause = CAUSE_EXPIRED;
    for (uint32_t i = 0; i < m->env->n_rcpts; i++) {
        if (m->rcpts[i].state != RCPT_WAITS)
            continue;
        if (m->rcpts[i].why == NULL)
            msg_set_reason(m, i, &e);
        msg_set_state(m, i, RCPT_FAILED);
    }
    mailerr_free(&e);
}

/* "Delayed Mail" is due: once, after delay_warning_time. */
static bool is_warning_due(const struct msg *m, int64_t now) {
    int64_t after = m->s->cfg->p.delay_warning_time * 1000000;
    return m->left > m->failed && after > 0 && age_us(m, now) >= after &&
           (m->flags & PROGRESS_WARNED) == 0;
}

/* One report at a time; when it is durable msg_finish is called again.  True if one is on its way.
 */
static bool msg_report(struct msg *m, int64_t now) {
    if (m->failed > 0) {
        if (report_state(m, DSN_FAILED))
            return true;
        msg_settle_all(m, RCPT_FAILED, RCPT_DONE); /* it is not wanted */
    }
    for (size_t i = 0; m->reporting > 0 && i < 3; i++)
        if (report_state(m, reports_of_success[i]))
            return true;
    if (is_warning_due(m, now)) {
        if (report_state(m, DSN_DELAYED))
            return true;
        m->flags |= PROGRESS_WARNED;
    }
    return false;
}

/* What aliases stand for goes on, unless an order or a reload came first.  True if a message is on
 * its way. */
static bool msg_forward(struct msg *m) {
    bool reloaded = m->settings != m->s->settings;
    if (m->expansions == NULL)
        return false;
    if (reloaded || (m->flags & (PROGRESS_HOLD | PROGRESS_EXPIRE)) != 0) {
        forward_forget(m);
        m->at_once = m->at_once || reloaded;
        m->overtaken = m->overtaken || reloaded;
        return false;
    }
    msg_note_taken(m); /* the content is read and copied */
    return msg_fetch(m, msg_finish) || forward_next(m, msg_finish);
}

void msg_finish(struct msg *m) {
    sched_watch_clock(m->s); /* the message may be no older than it seems */
    int64_t now = clock_wall_us();
    /* What goes on hold is expired by an order when it is released, as what is on hold already. */
    bool forced = (m->flags & (PROGRESS_EXPIRE | PROGRESS_HOLD)) == PROGRESS_EXPIRE;
    bool old = forced || too_old(m, now);
    if (m->finishing)
        return;
    if (m->deleted) {
        msg_free(m);
        return;
    }
    if (msg_forward(m))
        return;
    if (!m->no_report) {
        bool reports =
            m->failed > 0 || m->reporting > 0 || (old && m->left > 0) || is_warning_due(m, now);
        if (reports && m->env->sender.n > 0 && m->body == NULL)
            msg_note_taken(m); /* other contents may have to be let go before this is read */
        if (reports && m->env->sender.n > 0 && msg_fetch(m, msg_finish))
            return;
        if (old && m->left > m->failed)
            msg_expire(m, forced);
        if (msg_report(m, now))
            return;
    } else if (m->reporting > 0 && m->left == 0 && old) {
        log_warn("bounce", "%s: given up: the report of success", m->env->qid);
        for (size_t i = 0; i < 3; i++)
            msg_settle_all(m, report_about[reports_of_success[i]].state, RCPT_DONE);
    }
    if (m->left + m->reporting == 0)
        msg_remove(m, m->ended);
    else
        msg_defer(m);
}

void msg_recipients_back(struct msg *m, uint32_t n) {
    m->open -= n;
    if (m->open == 0)
        msg_finish(m);
    else if (m->partial) /* others go on: after a crash these must not be sent again */
        msg_save_part(m);
}
