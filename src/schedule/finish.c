/*
 * schedule/finish.c - the end of a round: reports, settling, next attempt
 *
 * A failed recipient is settled in the same spool record batch as the report that tells the sender,
 * so neither can be lost without the other.
 */
#include <stdlib.h>
#include <string.h>

#include "report/dsn.h"
#include "report/logline.h"
#include "schedule/sched.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"

static void remove_msg(struct msg *m, bool noted) {
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

static bool too_old(const struct msg *m, int64_t now) {
    return age_us(m, now) >= lifetime_us(m);
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

static void go_deferred(struct msg *m) {
    set_next(m, clock_wall_us());
    msg_set_queue(m, (m->flags & PROGRESS_HOLD) != 0 ? QUEUE_HOLD : QUEUE_DEFERRED);
    msg_note(m);
    body_unref(m->body);
    m->body = NULL;
    if (m->queue == QUEUE_DEFERRED)
        heap_put(m->s, m);
}

static void clear_outcomes(struct msg *m) {
    for (size_t i = 0; i < m->n_outcomes; i++)
        mailerr_free(&m->outcomes[i].err);
    m->n_outcomes = 0;
}

/* After the reports: done, or on to the next round. */
static void settle_or_defer(struct msg *m, bool done_noted) {
    clear_outcomes(m);
    if (m->left == 0)
        remove_msg(m, done_noted);
    else
        go_deferred(m);
}

struct report_op {
    struct spool_op op;
    struct task back;
    struct sched *s;
    struct envelope *env; /* of the report */
    uint64_t about;
    char about_qid[QID_MAX];
    enum dsn_kind kind;
    bool settles_all;
};

static void report_back(struct task *t) {
    struct report_op *r = DL_OWNER(t, struct report_op, back);
    struct sched *s = r->s;
    struct msg *m = itab_get(&s->msgs, r->about);
    if (r->op.rc == 0) {
        log_info("bounce", "%s: %s: %s", r->about_qid, dsn_log_name(r->kind), r->env->qid);
        sched_add(s, envelope_ref(r->env), r->op.body);
    } else {
        body_unref(r->op.body);
        log_warn("bounce", "%s: cannot queue a report: %s", r->about_qid, strerror(-r->op.rc));
    }
    if (m != NULL) {
        m->finishing = false;
        if (r->op.rc < 0) { /* nothing is settled: the recipients are tried again */
            for (size_t i = 0; i < m->n_outcomes; i++)
                if (m->done[m->outcomes[i].rcpt] != 0) {
                    m->done[m->outcomes[i].rcpt] = 0;
                    m->left++;
                }
        }
        settle_or_defer(m, r->settles_all && r->op.rc == 0);
    }
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

/* Which outcomes a report of this kind is about, with the recipient's NOTIFY (RFC 3461). */
static bool belongs(const struct msg *m, const struct outcome *o, enum dsn_kind kind) {
    uint32_t notify = m->env->rcpts[o->rcpt].notify;
    if (kind == DSN_RELAYED)
        return o->relayed;
    return !o->relayed && (notify == 0 || (notify & NOTIFY_FAILURE) != 0);
}

/* Queues a report about the chosen recipients; settled: they are done with it. */
static void report_send(struct msg *m, enum dsn_kind kind, const struct dsn_rcpt *rcpts, size_t n,
                        bool settle) {
    struct report_op *r = MEM_NEW(struct report_op);
    struct sbuf content = {0}, tmp = {0};
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
                    .expires_us = m->env->arrival_us + lifetime_us(m)};
    r->s = m->s;
    r->kind = kind;
    r->env = dsn_build(&d, &content);
    r->about = m->env->id;
    memcpy(r->about_qid, m->env->qid, QID_MAX);
    r->op.kind = SPOOL_NEW;
    r->op.id = r->env->id;
    r->op.body = body_from_buf(&content);
    r->op.done = report_done;
    envelope_encode(r->env, &r->op.meta);
    if (settle) {
        r->op.settles = m->env->id;
        r->settles_all = m->left == 0;
        if (!r->settles_all)
            msg_encode(m, &r->op.settled);
    }
    log_info("cleanup", "%s: message-id=<%s@%s>", r->env->qid, r->env->qid,
             m->s->cfg->p.myhostname);
    m->finishing = true;
    sbuf_free(&tmp);
    spool_submit(m->s->spool, &r->op);
}

/* Settles every outcome; sends one report if somebody is to be told.  True if one is on its way. */
static bool report_outcomes(struct msg *m) {
    enum dsn_kind kind = DSN_RELAYED;
    for (size_t i = 0; i < m->n_outcomes; i++)
        if (!m->outcomes[i].relayed)
            kind = DSN_FAILED;
    struct dsn_rcpt *list = mem_alloc(m->n_outcomes * sizeof *list);
    size_t n = 0;
    for (size_t i = 0; i < m->n_outcomes; i++) {
        struct outcome *o = &m->outcomes[i];
        msg_settle(m, o->rcpt);
        if (m->env->sender.n > 0 && belongs(m, o, kind))
            list[n++] = (struct dsn_rcpt){&m->env->rcpts[o->rcpt], &o->err};
    }
    if (n > 0)
        report_send(m, kind, list, n, true);
    free(list);
    return n > 0;
}

/* Recipients that are still waiting when the message is too old bounce with their last error. */
static void expire(struct msg *m, bool forced) {
    struct mailerr e = {0};
    logline_expired(m->env, forced);
    mailerr_set(&e, MAIL_BOUNCED, "4.4.7", "%s", msg_why(m, "message expired"));
    for (uint32_t i = 0; i < m->env->n_rcpts; i++) {
        bool has = m->done[i] != 0;
        for (size_t k = 0; k < m->n_outcomes && !has; k++)
            has = m->outcomes[k].rcpt == i;
        if (!has)
            msg_outcome(m, i, &e, false);
    }
    mailerr_free(&e);
}

/* "Delayed Mail": once, after delay_warning_time. */
static bool report_delay(struct msg *m, int64_t now) {
    int64_t after = m->s->cfg->p.delay_warning_time * 1000000;
    if (after == 0 || age_us(m, now) < after || (m->flags & PROGRESS_WARNED) != 0 ||
        m->env->sender.n == 0)
        return false;
    struct mailerr e = {0};
    mailerr_set(&e, MAIL_DEFERRED, "4.4.7", "%s", msg_why(m, "delayed"));
    struct dsn_rcpt *list = mem_alloc(m->env->n_rcpts * sizeof *list);
    size_t n = 0;
    for (uint32_t i = 0; i < m->env->n_rcpts; i++) {
        uint32_t notify = m->env->rcpts[i].notify;
        if (m->done[i] == 0 && (notify == 0 || (notify & NOTIFY_DELAY) != 0))
            list[n++] = (struct dsn_rcpt){&m->env->rcpts[i], &e};
    }
    m->flags |= PROGRESS_WARNED;
    if (n > 0)
        report_send(m, DSN_DELAYED, list, n, false);
    free(list);
    mailerr_free(&e);
    return n > 0;
}

struct fetch_op {
    struct spool_op op;
    struct task back;
    struct sched *s;
};

static void fetch_back(struct task *t) {
    struct fetch_op *f = DL_OWNER(t, struct fetch_op, back);
    struct msg *m = itab_get(&f->s->msgs, f->op.id);
    if (m == NULL) {
        body_unref(f->op.rc == 0 ? f->op.body : NULL);
    } else {
        m->finishing = false;
        if (f->op.rc == 0)
            m->body = f->op.body;
        m->no_body = f->op.rc < 0; /* a report without the original is better than none */
        msg_finish(m);
    }
    free(f);
}

static void fetch_done(struct spool_op *op) {
    struct fetch_op *f = DL_OWNER(op, struct fetch_op, op);
    f->back.run = fetch_back;
    loop_post(f->s->loop, &f->back);
}

/* A report quotes the message: its content must be in memory.  True if it is being fetched. */
static bool fetch_body(struct msg *m) {
    if (m->body != NULL || m->no_body)
        return false;
    struct fetch_op *f = MEM_NEW(struct fetch_op);
    f->s = m->s;
    f->op.kind = SPOOL_READ;
    f->op.id = m->env->id;
    f->op.done = fetch_done;
    m->finishing = true;
    spool_submit(m->s->spool, &f->op);
    return true;
}

void msg_finish(struct msg *m) {
    int64_t now = clock_wall_us();
    bool forced = (m->flags & PROGRESS_EXPIRE) != 0;
    if (m->finishing)
        return;
    if (m->deleted) {
        msg_free(m);
        return;
    }
    uint32_t waiting = m->left - (uint32_t)m->n_outcomes;
    bool old = waiting > 0 && (forced || too_old(m, now));
    int64_t warn = m->s->cfg->p.delay_warning_time * 1000000;
    bool may_warn =
        waiting > 0 && warn > 0 && age_us(m, now) >= warn && (m->flags & PROGRESS_WARNED) == 0;
    if ((m->n_outcomes > 0 || old || may_warn) && m->env->sender.n > 0 && fetch_body(m))
        return;
    if (old)
        expire(m, forced);
    if (m->n_outcomes > 0) {
        if (!report_outcomes(m))
            settle_or_defer(m, false);
        return;
    }
    if (m->left > 0 && report_delay(m, now))
        return;
    settle_or_defer(m, false);
}
