/*
 * receive/session.c - what all parts of a session share; see session.h
 */
#include "receive/session.h"

#include <stdlib.h>

#include "receive/intake.h"
#include "util/log.h"

static const char *const state_names[SESSION_STATES] = {
    [SESSION_NEW] = "new",         [SESSION_TLS] = "tls",   [SESSION_COMMAND] = "command",
    [SESSION_AUTH] = "auth",       [SESSION_WAIT] = "wait", [SESSION_SLEEP] = "sleep",
    [SESSION_CONTENT] = "content",
};

const char *smtpd_state_name(enum session_state state) {
    return state_names[state];
}

/* For debugging: POSTHOUSE_TRACE=1 in the environment writes each change of a state to the log. */
static void trace_state(const struct session *s, enum session_state to) {
    static _Atomic int on; /* 0: not known yet */
    struct sbuf b = {0};
    if (on == 0)
        on = getenv("POSTHOUSE_TRACE") != NULL ? 1 : -1;
    if (on < 0 || s->state == to)
        return;
    log_as(s->svc->log_name, "smtpd", "trace: %s: %s -> %s", client_text(&s->client, &b),
           smtpd_state_name(s->state), smtpd_state_name(to));
    sbuf_free(&b);
}

/* Milliseconds that a state may last; 0: for ever. */
static int64_t state_limit(const struct session *s, enum session_state state) {
    switch (state) {
    case SESSION_TLS:
        return s->p->smtpd_starttls_timeout * 1000;
    case SESSION_SLEEP:
        return s->p->smtpd_error_sleep_time * 1000;
    case SESSION_WAIT:
    case SESSION_NEW:
        return 0;
    case SESSION_CONTENT:
        return s->left_ms > 0 ? s->left_ms : s->p->smtpd_timeout * 1000;
    default:
        return s->p->smtpd_timeout * 1000;
    }
}

void smtpd_enter(struct session *s, enum session_state to) {
    trace_state(s, to);
    s->state = to;
    if (to == SESSION_COMMAND || to == SESSION_AUTH)
        s->left_ms = 0;
    int64_t limit = state_limit(s, to);
    s->due_ms = s->r->loop->now_ms + limit;
    conn_deadline(s->conn, limit);
    if (to == SESSION_WAIT || to == SESSION_SLEEP || to == SESSION_NEW)
        conn_pause(s->conn);
    else
        conn_resume(s->conn);
}

void smtpd_content_came(struct session *s, size_t n) {
    int64_t most = s->p->smtpd_timeout * 1000, rate = s->p->smtpd_min_data_rate;
    if (!s->p->smtpd_per_request_deadline || rate <= 0)
        return;
    int64_t left = s->due_ms - s->r->loop->now_ms + (int64_t)n * 1000 / rate;
    s->left_ms = left < 1 ? 1 : left > most ? most : left;
}

void smtpd_answered(struct session *s, enum cmd rc) {
    s->answered(s, rc);
}

void smtpd_soften(const struct session *s, char *reply) {
    if (!s->p->soft_bounce || s->client.local || reply[0] != '5')
        return;
    reply[0] = '4';
    if (reply[1] != '\0' && reply[2] != '\0' && reply[3] == ' ' && reply[4] == '5')
        reply[4] = '4';
}

/* Every line to a client is written here: what others say in it (Dovecot, a table, the client
 * itself) cannot end it or hide anything. */
static void put_line(struct session *s, const char *fmt, va_list ap) {
    struct sbuf *out = conn_out(s->conn);
    size_t at = out->n;
    sbuf_vprintf(out, fmt, ap);
    smtpd_soften(s, out->p + at);
    for (; at < out->n; at++)
        if (is_control(out->p[at]))
            out->p[at] = '?';
    sbuf_add_c(out, "\r\n");
    conn_touch(s->conn);
}

void smtpd_reply(struct session *s, bool ok, const char *fmt, ...) {
    va_list ap;
    s->total[s->verb]++;
    if (ok)
        s->ok[s->verb]++;
    else
        s->errors++;
    va_start(ap, fmt);
    put_line(s, fmt, ap);
    va_end(ap);
}

void smtpd_say(struct session *s, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    put_line(s, fmt, ap);
    va_end(ap);
}

bool smtpd_discards(const struct session *s, const char *keyword) {
    return !s->client.local && list_has_word(str_of(s->p->smtpd_discard_ehlo_keywords), keyword);
}

const char *smtpd_last_verb(const struct session *s) {
    return s->verb == VERB_UNKNOWN && s->total[VERB_UNKNOWN] == 0 ? "CONNECT"
                                                                  : smtp_verb_name(s->verb, true);
}

bool smtpd_may_warn(const struct receive *r, int64_t *said_ms) {
    if (r->loop->now_ms - *said_ms < SMTPD_WARN_MS)
        return false;
    *said_ms = r->loop->now_ms;
    return true;
}

void smtpd_log_end(const struct session *s, const char *what) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s after %s", what, smtpd_last_verb(s));
    if (s->intake != NULL && intake_open(s->intake))
        sbuf_printf(&b, " (%llu bytes)", (unsigned long long)s->intake->size);
    sbuf_add_c(&b, " from ");
    client_text(&s->client, &b);
    log_as(s->svc->log_name, "smtpd", "%s", b.p);
    sbuf_free(&b);
}

static void smtpd_add_count(struct sbuf *b, const char *what, unsigned ok, unsigned total) {
    sbuf_add_ch(b, ' ');
    sbuf_add_c(b, what);
    sbuf_add_ch(b, '=');
    sbuf_add_u64(b, ok);
    if (ok != total || total == 0) {
        sbuf_add_ch(b, '/');
        sbuf_add_u64(b, total);
    }
}

void smtpd_log_counts(const struct session *s) {
    struct sbuf b = {0};
    unsigned ok = 0, total = 0;
    sbuf_add_c(&b, "disconnect from ");
    client_text(&s->client, &b);
    for (int i = 0; i < VERB_COUNT; i++) {
        /* "unknown" comes last, as in Postfix. */
        enum smtp_verb v = (enum smtp_verb)((i + 1) % VERB_COUNT);
        if (s->total[v] > 0)
            smtpd_add_count(&b, smtp_verb_name(v, false), s->ok[v], s->total[v]);
        ok += s->ok[v];
        total += s->total[v];
    }
    smtpd_add_count(&b, "commands", ok, total);
    if (s->came_bare && s->client.bare == BARE_NOTED)
        sbuf_add_c(&b, " notes=bare_lf");
    log_as(s->svc->log_name, "smtpd", "%s", b.p);
    sbuf_free(&b);
}
