/*
 * schedule/rcpt.c - recipients of a queued message: their states, and why they wait
 *
 * Every recipient has its own last error.  Recipients that wait for the same share one struct
 * reason, however many messages they are of; it is freed with its last user.
 */
#include "schedule/rcpt.h"

#include <stdlib.h>
#include <string.h>

#include "mail/held.h"
#include "report/logline.h"
#include "schedule/wait.h"
#include "util/clock.h"
#include "util/mem.h"

/* Of each text of an error, so that a relay host's words cannot fill memory or spool. */
#define TEXT_MAX 1000U
/* The same where the queue has taken half of its memory: what hosts say of mail that is queued is
 * not refused there, as new mail is. */
#define TEXT_SHORT 100U
/* Of all errors in one record of progress; what is beyond it is not kept over a restart. */
#define ERRORS_BYTES_MAX 262144U
/* What the spool puts before a record, about. */
#define STEP_HEAD 40U

static struct str text_of(const char *text, size_t most) {
    struct str t = str_of(text == NULL ? "" : text);
    if (t.n > most)
        t.n = most;
    return t;
}

static size_t text_most(const struct sched *s) {
    return held_is_full(s->cfg->p.queue_memory_limit / 2) ? TEXT_SHORT : TEXT_MAX;
}

struct reason_key {
    const struct mailerr *e;
    size_t most; /* of its texts, how much is kept */
};

static bool reason_same(const void *val, const void *key) {
    const struct mailerr *a = &((const struct reason *)val)->err;
    const struct reason_key *k = key;
    const struct mailerr *b = k->e;
    return a->cause == b->cause && strcmp(a->dsn, b->dsn) == 0 &&
           str_eq(text_of(a->text, TEXT_MAX), text_of(b->text, k->most)) &&
           str_eq(text_of(a->mta, TEXT_MAX), text_of(b->mta, TEXT_MAX)) &&
           str_eq(text_of(a->reply, TEXT_MAX), text_of(b->reply, k->most));
}

static char *text_keep(const char *text, size_t most) {
    return text == NULL ? NULL : str_dup(text_of(text, most));
}

static size_t kept_bytes(const char *text) {
    return text == NULL ? 0 : strlen(text) + 1;
}

static size_t reason_bytes(const struct reason *r) {
    const struct mailerr *e = &r->err;
    return sizeof *r + kept_bytes(e->text) + kept_bytes(e->mta) + kept_bytes(e->reply);
}

static struct reason *reason_get(struct sched *s, const struct mailerr *e) {
    const struct reason_key key = {e, text_most(s)};
    uint64_t hash = kset_mix(KSET_SEED, str_of(e->dsn));
    hash = kset_mix(kset_mix(hash, text_of(e->text, key.most)), text_of(e->mta, TEXT_MAX));
    hash = kset_mix(hash, text_of(e->reply, key.most));
    struct reason *r = kset_get(&s->reasons, hash, reason_same, &key);
    if (r == NULL) {
        r = MEM_NEW(struct reason);
        r->hash = hash;
        r->err = *e;
        r->err.text = text_keep(e->text == NULL ? "" : e->text, key.most);
        r->err.mta = text_keep(e->mta, TEXT_MAX);
        r->err.reply = text_keep(e->reply, key.most);
        held_add(reason_bytes(r));
        kset_add(&s->reasons, hash, r);
    }
    r->users++;
    return r;
}

static void reason_unuse(struct sched *s, struct reason *r) {
    if (r == NULL || --r->users > 0)
        return;
    kset_remove(&s->reasons, r->hash, r);
    held_remove(reason_bytes(r));
    mailerr_free(&r->err);
    free(r);
}

void msg_set_reason(struct msg *m, uint32_t rcpt, const struct mailerr *e) {
    struct reason *old = m->rcpts[rcpt].why;
    m->rcpts[rcpt].why = e == NULL ? NULL : reason_get(m->s, e);
    reason_unuse(m->s, old);
}

void msg_drop_reasons(struct msg *m) {
    msg_count_reasons(m, false);
    for (uint32_t i = 0; i < m->env->n_rcpts; i++)
        msg_set_reason(m, i, NULL);
}

/* Reasons and states do not change while they are counted: taking the count back meets the same. */
void msg_count_reasons(struct msg *m, bool on) {
    if (m->counted == on)
        return;
    m->counted = on;
    m->s->counting++;
    for (uint32_t i = 0; i < m->env->n_rcpts; i++) {
        struct reason *r = m->rcpts[i].why;
        if (r == NULL || m->rcpts[i].state != RCPT_WAITS || r->seen == m->s->counting)
            continue;
        r->seen = m->s->counting;
        r->messages += on ? 1 : (size_t)-1;
    }
}

static bool is_left(uint8_t state) {
    return state == RCPT_WAITS || state == RCPT_FAILED || state == RCPT_FORWARD;
}

static bool is_reporting(uint8_t state) {
    return state == RCPT_REPORT || state == RCPT_EXPANDED || state == RCPT_LISTED;
}

void unsaved_free(struct msg *m) {
    if (m->unsaved != NULL)
        free(m->unsaved->rcpts);
    free(m->unsaved);
    m->unsaved = NULL;
}

/* Where there is more to say than all recipients have, all is saved next time. */
static void unsaved_add(struct msg *m, uint32_t rcpt) {
    struct unsaved *u = m->unsaved;
    if (u == NULL)
        return;
    if (u->n > m->env->n_rcpts) {
        unsaved_free(m);
        return;
    }
    if (u->n == u->cap) {
        u->cap = u->cap == 0 ? 8 : u->cap * 2;
        u->rcpts = mem_realloc(u->rcpts, u->cap * sizeof *u->rcpts);
    }
    u->rcpts[u->n++] = rcpt;
}

/* All of it was saved. */
static void unsaved_begin(struct msg *m, size_t whole) {
    if (whole < m->s->steps_from) {
        unsaved_free(m);
        return;
    }
    if (m->unsaved == NULL)
        m->unsaved = MEM_NEW(struct unsaved);
    m->unsaved->whole = whole;
    m->unsaved->behind = m->unsaved->n = 0;
}

void msg_set_state(struct msg *m, uint32_t rcpt, uint8_t state) {
    uint8_t old = m->rcpts[rcpt].state;
    unsaved_add(m, rcpt);
    m->left -= is_left(old);
    m->failed -= old == RCPT_FAILED;
    m->reporting -= is_reporting(old);
    m->rcpts[rcpt].state = state;
    m->left += is_left(state);
    m->failed += state == RCPT_FAILED;
    m->reporting += is_reporting(state);
    if (state == RCPT_DONE)
        msg_set_reason(m, rcpt, NULL);
}

void msg_result(struct msg *m, uint32_t rcpt, const struct mailerr *e, bool report) {
    if (m->rcpts[rcpt].state == RCPT_REPORT && e->status == MAIL_SENT) {
        msg_set_reason(m, rcpt, e); /* noted before its filter was asked: these are its words */
        unsaved_add(m, rcpt);
    }
    if (m->rcpts[rcpt].state != RCPT_WAITS)
        return;
    if (e->status == MAIL_SENT) {
        if (report)
            msg_set_reason(m, rcpt, e);
        msg_set_state(m, rcpt, report ? RCPT_REPORT : RCPT_DONE);
        m->partial = true;
        return;
    }
    msg_set_reason(m, rcpt, e);
    if (e->status == MAIL_BOUNCED)
        msg_set_state(m, rcpt, RCPT_FAILED);
}

void msg_untried(struct msg *m, uint32_t rcpt, const struct service *svc, const struct mailerr *e) {
    int64_t now = clock_wall_us();
    struct mailerr soft = {0};
    if (m->s->cfg->p.soft_bounce && e->status == MAIL_BOUNCED) {
        mailerr_copy(&soft, e);
        mailerr_soften(&soft);
        e = &soft;
    }
    struct logline_times t = {m->env->arrival_us, m->active_us, now, 0, now, NULL};
    bool discards = svc != NULL && svc->kind == SERVICE_DISCARD;
    logline_delivery(svc == NULL ? NULL : svc->log_name, discards ? "discard" : "error",
                     m->env->qid, &m->env->rcpts[rcpt], "none", 0, &t, e);
    tally_result(&m->s->tally, NULL, m->env->sender, e);
    msg_result(m, rcpt, e, false);
    mailerr_free(&soft);
}

/* The state that a record says, if the report of that kind is in the same breath. */
static uint8_t settled_state(uint8_t state, enum settle what) {
    switch (state) {
    case RCPT_FORWARD:
        return what == SETTLE_SPLIT ? RCPT_DONE : RCPT_WAITS;
    case RCPT_FAILED:
        return what == SETTLE_FAILED ? RCPT_DONE : RCPT_WAITS;
    case RCPT_REPORT:
        return what == SETTLE_REPORTED ? RCPT_DONE : state;
    case RCPT_EXPANDED:
        return what == SETTLE_EXPANDED ? RCPT_DONE : state;
    case RCPT_LISTED:
        return what == SETTLE_LISTED ? RCPT_DONE : state;
    default:
        return state;
    }
}

static size_t error_bytes(const struct mailerr *e) {
    return text_of(e->text, TEXT_MAX).n + text_of(e->mta, TEXT_MAX).n +
           text_of(e->reply, TEXT_MAX).n + sizeof e->dsn + 16;
}

static struct rcpt_error error_of(const struct mailerr *e) {
    return (struct rcpt_error){str_of(e->dsn), str_of(e->text), text_of(e->mta, TEXT_MAX),
                               text_of(e->reply, TEXT_MAX), e->cause};
}

/* The different reasons of recipients that are not done, each once: r->seen tells what was met. */
static void collect_errors(const struct msg *m, struct progress *p) {
    struct sched *s = m->s;
    uint64_t first = s->counting + 1;
    size_t bytes = 0;
    s->counting += m->env->n_rcpts + 1; /* seen - first is a reason's place */
    for (uint32_t i = 0; i < p->n; i++) {
        struct reason *r = m->rcpts[i].why;
        if (r == NULL || p->done[i] == RCPT_DONE)
            continue;
        if (r->seen < first && (bytes += error_bytes(&r->err)) <= ERRORS_BYTES_MAX) {
            r->seen = first + p->n_errors;
            p->errors[p->n_errors++] = error_of(&r->err);
        }
        if (r->seen >= first)
            p->error_of[i] = (uint32_t)(r->seen - first) + 1;
    }
}

void msg_encode(const struct msg *m, enum settle what, struct sbuf *out) {
    uint32_t n = m->env->n_rcpts;
    struct progress p = {.done = mem_alloc(n),
                         .n = n,
                         .attempts = m->attempts,
                         .next_us = m->next_us,
                         .last_us = clock_wall_us(),
                         .flags = m->flags | (what == SETTLE_WARNED ? PROGRESS_WARNED : 0),
                         .errors = mem_alloc(n * sizeof *p.errors),
                         .error_of = mem_zalloc(n * sizeof *p.error_of)};
    for (uint32_t i = 0; i < n; i++)
        p.done[i] = what == SETTLE_FORWARDED && i == m->forwarding
                        ? m->forwarded_as
                        : settled_state(m->rcpts[i].state, what);
    collect_errors(m, &p);
    progress_encode(&p, out);
    progress_free(&p);
}

void msg_save_progress(struct msg *m) {
    struct sbuf b = {0};
    m->partial = false;
    if (m->deleted)
        return;
    msg_encode(m, SETTLE_NOTHING, &b);
    unsaved_begin(m, b.n);
    spool_note(m->s->spool, SPOOL_PROGRESS, m->env->id, &b);
    msg_orders_noted(m);
}

static void msg_save_step(struct msg *m) {
    struct unsaved *u = m->unsaved;
    struct progress_step *v = mem_alloc(u->n * sizeof *v);
    struct sbuf b = {0};
    size_t n = 0;
    for (uint32_t i = 0; i < u->n; i++) {
        const struct msg_rcpt *r = &m->rcpts[u->rcpts[i]];
        uint8_t state = settled_state(r->state, SETTLE_NOTHING);
        struct progress_step step = {.rcpt = u->rcpts[i], .state = state};
        if (state == RCPT_WAITS)
            continue;
        if (state != RCPT_DONE && r->why != NULL)
            step.error = error_of(&r->why->err);
        v[n++] = step;
    }
    progress_encode_step(m->env->n_rcpts, v, n, &b);
    u->n = 0;
    u->behind += b.n + STEP_HEAD;
    spool_note(m->s->spool, SPOOL_STEP, m->env->id, &b);
    free(v);
}

void msg_save_part(struct msg *m) {
    const struct unsaved *u = m->unsaved;
    if (m->deleted || m->owed || u == NULL || u->behind >= u->whole) {
        msg_save_progress(m);
        return;
    }
    m->partial = false;
    msg_save_step(m);
}

static void restore_error(struct msg *m, uint32_t rcpt, const struct rcpt_error *from) {
    struct mailerr e = {.status = MAIL_DEFERRED};
    mailerr_set(&e, MAIL_DEFERRED, "4.0.0", "%.*s", STR_FMT(from->text));
    if (from->dsn.n > 0 && from->dsn.n < sizeof e.dsn) {
        memcpy(e.dsn, from->dsn.p, from->dsn.n);
        e.dsn[from->dsn.n] = '\0';
    }
    e.cause = mail_cause_numbered(from->cause);
    e.mta = from->mta.n == 0 ? NULL : str_dup(from->mta);
    e.reply = from->reply.n == 0 ? NULL : str_dup(from->reply);
    msg_set_reason(m, rcpt, &e);
    mailerr_free(&e);
}

void msg_restore(struct msg *m, const struct progress *p) {
    for (uint32_t i = 0; i < m->env->n_rcpts; i++) {
        if (p->done[i] != RCPT_WAITS)
            msg_set_state(m, i, p->done[i]);
        if (p->done[i] != RCPT_DONE && p->error_of != NULL && p->error_of[i] > 0)
            restore_error(m, i, &p->errors[p->error_of[i] - 1]);
    }
    m->attempts = p->attempts;
    m->flags = p->flags;
}
