/*
 * deliver/talk.c - what went wrong with a host, and what is said to it
 *
 * Leaves of a session, used by its stages: they set s->now and write to s->conn, and change nothing
 * else of the flow.
 */
#include <stdarg.h>
#include <stdio.h>

#include "deliver/session.h"
#include "util/log.h"

#define WATCHED_PATIENCE_S 30

static void note_text(struct dsess *s, enum mail_status status, enum mail_blame blame,
                      enum mail_cause cause, const char *dsn, const char *fmt, va_list ap) {
    struct sbuf text = {0};
    sbuf_vprintf(&text, fmt, ap);
    mailerr_set(&s->now, status, dsn, "%s", text.p);
    mailerr_blame(&s->now, s->phase, blame);
    s->now.cause = cause;
    sbuf_free(&text);
}

void session_note(struct dsess *s, enum mail_status status, enum mail_blame blame,
                  enum mail_cause cause, const char *dsn, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    note_text(s, status, blame, cause, dsn, fmt, ap);
    va_end(ap);
}

void session_note_reply(struct dsess *s, enum mail_status status, enum mail_blame blame,
                        const char *dsn, const char *fmt, ...) {
    struct sbuf said = {0}, text = {0};
    va_list ap;
    va_start(ap, fmt);
    sbuf_vprintf(&text, fmt, ap);
    va_end(ap);
    smtp_reply_line(&s->reply, &said);
    session_note(s, status, blame, CAUSE_UNSET, dsn, "%s %s", text.p, said.p);
    mailerr_remote(&s->now, session_target(s)->host, sbuf_str(&said));
    sbuf_free(&said);
    sbuf_free(&text);
}

enum step host_failed(struct dsess *s, enum mail_blame blame, enum mail_cause cause,
                      const char *dsn, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    note_text(s, MAIL_DEFERRED, blame, cause, dsn, fmt, ap);
    va_end(ap);
    return STEP_HOST_FAILED;
}

enum step lookup_failed(struct dsess *s, enum mail_blame blame, const struct maps_answer *a,
                        const char *what, const char *name) {
    if (a->several > 0)
        return host_failed(s, blame, CAUSE_SETTING, "4.3.0", "%s %s: %s", what, name, a->err);
    return host_failed(s, blame, CAUSE_LOOKUP, "4.3.0", "%s %s", what, name);
}

enum step host_refused(struct dsess *s, const char *what) {
    char dsn[12];
    dsn_from_reply(dsn, s->reply.code, smtp_reply_last(&s->reply));
    dsn[0] = '4'; /* what a host says of itself is never about the mail */
    session_note_reply(s, MAIL_DEFERRED, BLAME_SITE, dsn, "host %s %s", s->where, what);
    return STEP_HOST_FAILED;
}

void session_note_out_of_step(struct dsess *s, const char *command) {
    struct sbuf said = {0};
    smtp_reply_line(&s->reply, &said);
    if (s->watch == NULL)
        log_warn("smtp", "host %s is out of step: %s (in reply to %s command)", s->relay, said.p,
                 command);
    session_note(s, MAIL_DEFERRED, BLAME_SITE, CAUSE_PROTOCOL, "4.5.0",
                 "Protocol error: host %s said %d in reply to %s command", s->where, s->reply.code,
                 command);
    sbuf_free(&said);
}

enum step host_out_of_step(struct dsess *s) {
    session_note_out_of_step(s, "no");
    return STEP_HOST_FAILED;
}

bool error_outweighs(const struct mailerr *old, enum mail_status status, enum mail_phase phase) {
    return old->status == MAIL_DEFERRED &&
           (status == MAIL_BOUNCED || (phase == PHASE_DNS && old->phase != PHASE_DNS));
}

static bool is_about_tls(const struct dsess *s, const struct mailerr *e) {
    bool refused = s->phase == PHASE_STARTTLS && e->remote;
    return refused || e->cause == CAUSE_TLS_MISSING || e->cause == CAUSE_CERT_UNTRUSTED ||
           e->cause == CAUSE_CERT_NAME || e->cause == CAUSE_CERT_PRINT;
}

struct tls_fate session_tls_fate(const struct dsess *s, const struct mailerr *e) {
    struct tls_fate fate = {.level = s->policy.level};
    if (e != NULL && e->phase <= PHASE_POLICY)
        fate.what = TLS_FATE_UNSET;
    else if (e != NULL && is_about_tls(s, e))
        fate.what = TLS_FATE_REFUSED;
    else if (s->tls_on)
        fate.what = TLS_FATE_MET;
    else if (e != NULL && e->phase < PHASE_CREDENTIALS)
        fate.what = TLS_FATE_UNDECIDED;
    else if (s->policy.level == LEVEL_NONE || s->plain_retry)
        fate.what = TLS_FATE_CLEAR;
    else
        fate.what = TLS_FATE_DISABLED;
    return fate;
}

void session_take_error(struct dsess *s) {
    if (s->now.status == MAIL_UNSET)
        return;
    watch_failed(s, s->stage_name, &s->now);
    if (error_outweighs(&s->err, s->now.status, s->now.phase)) {
        mailerr_free(&s->now);
        return;
    }
    mailerr_free(&s->err);
    s->err_tls = session_tls_fate(s, &s->now);
    s->err = s->now;
    s->now = (struct mailerr){0};
}

bool session_say(struct dsess *s) {
    struct str line = sbuf_str(&s->line);
    bool clean = !str_has_control(line);
    if (clean) {
        conn_write(s->conn, line.p, line.n);
        conn_write_c(s->conn, "\r\n");
        s->out_total += line.n + 2;
    }
    sbuf_reset(&s->line);
    return clean;
}

void session_deadline(struct dsess *s, int64_t seconds) {
    if (s->watch != NULL && seconds > WATCHED_PATIENCE_S)
        seconds = WATCHED_PATIENCE_S;
    conn_deadline(s->conn, seconds * 1000);
}
