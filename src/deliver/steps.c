/*
 * deliver/steps.c - what `posthouse explain` and `posthouse test` show of a session
 *
 * Leaves of a session: they write to the trace of s->watch, and change nothing else but s->tag.
 */
#include <jansson.h>
#include <stdarg.h>

#include "config/secret.h"
#include "deliver/probe.h"
#include "deliver/session.h"
#include "route/keys.h"
#include "util/clock.h"

bool watch_connects(const struct dsess *s) {
    return s->watch == NULL || s->watch->connects;
}

void watch_ask(struct dsess *s, const char *spec, const struct keys *keys, lookup_maps_fn fn) {
    if (s->watch != NULL)
        s->tag = lookup_maps_traced(s->d->lookup, "smtp", spec, VALUES_ONE, keys->v, keys->n,
                                    secret_answers(s->cfg, s->p, spec), fn, s);
    else
        s->tag = lookup_maps(s->d->lookup, "smtp", spec, VALUES_ONE, keys->v, keys->n, fn, s);
}

json_t *watch_step(struct dsess *s, const char *stage, bool ok) {
    if (s->watch == NULL)
        return NULL;
    int64_t now = clock_wall_us();
    json_t *o = trace_step(s->watch->trace, stage);
    json_object_set_new(o, "pass", json_boolean(ok));
    json_object_set_new(o, "ms", json_real((double)(now - s->watch->stage_us) / 1000));
    s->watch->stage_us = now;
    return o;
}

void watch_end_step(struct dsess *s, json_t *o) {
    if (o != NULL)
        trace_end(s->watch->trace, o);
}

void watch_ok(struct dsess *s, const char *stage, const char *fmt, ...) {
    struct sbuf text = {0};
    va_list ap;
    if (s->watch == NULL)
        return;
    va_start(ap, fmt);
    sbuf_vprintf(&text, fmt, ap);
    va_end(ap);
    json_t *o = watch_step(s, stage, true);
    trace_set(o, "result", sbuf_str(&text));
    watch_end_step(s, o);
    sbuf_free(&text);
}

/* What becomes of mail with that error; the texts are e's. */
static struct mailerr watched_error(const struct dsess *s, const struct mailerr *e) {
    struct mailerr soft = *e;
    if (s->cfg->p.soft_bounce)
        mailerr_soften(&soft);
    return soft;
}

/* The code and the text of an error, with what becomes of the mail if that is known by it. */
static void watch_error(struct dsess *s, json_t *o, const struct mailerr *e, bool decides) {
    struct mailerr soft = watched_error(s, e);
    trace_set(o, "result", str_of(soft.text));
    trace_set(o, "dsn", str_of(soft.dsn));
    if (!decides)
        return;
    trace_set(o, "mail_would_be", str_of(mail_status_name(soft.status)));
    s->watch->said = soft.status;
}

void watch_failed(struct dsess *s, const char *stage, const struct mailerr *e) {
    if (s->watch == NULL || e->status == MAIL_UNSET)
        return;
    json_t *o = watch_step(s, stage, false);
    const char *advice = advice_for(e->cause, e->reply == NULL ? STR_NONE : str_of(e->reply));
    /* One name of several that leads nowhere decides nothing. */
    watch_error(s, o, e, e->phase != PHASE_DNS || (s->n_targets == 0 && !session_more_hosts(s)));
    if (advice != NULL)
        trace_set(o, "advice", str_of(advice));
    watch_end_step(s, o);
}

void watch_verdict(struct dsess *s) {
    if (s->err.status == MAIL_UNSET || watched_error(s, &s->err).status == s->watch->said)
        return;
    json_t *o = watch_step(s, "outcome", false);
    watch_error(s, o, &s->err, true);
    watch_end_step(s, o);
}
