/*
 * deliver/auth.c - credentials of a delivery session and the AUTH dialogue (RFC 4954)
 *
 * Keys in Postfix's order: the sender (with smtp_sender_dependent_authentication), the host, the
 * next hop as written.  What Postfix gets wrong is right here: credentials that are configured are
 * used or the mail waits; they are never left out because the remote did not offer AUTH.
 */
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "deliver/session.h"
#include "maps/relays.h"
#include "route/keys.h"
#include "util/codec.h"
#include "util/log.h"
#include "util/mem.h"

#define WARN_MS 3600000

struct slow_step {
    uv_work_t work;
    struct dsess *s; /* NULL: the session went away */
    struct sasl_login *sasl;
    struct sbuf challenge, answer;
    const char *why;
    bool first; /* the answer is the mechanism's initial response */
    int rc;
};

void auth_cancel(struct dsess *s) {
    lookup_cancel(s->d->lookup, s->tag);
    s->tag = 0;
    if (s->sasl_work != NULL) { /* the worker still uses the client: it frees it */
        ((struct slow_step *)s->sasl_work->data)->s = NULL;
        s->sasl_work = NULL;
        s->sasl = NULL;
    }
    sasl_login_free(s->sasl);
    s->sasl = NULL;
    sbuf_wipe(&s->first_answer);
}

static void auth_failed(struct dsess *s, enum mail_status st, const char *dsn, const char *text) {
    /* With credentials per sender, one sender's trouble is not the destination's. */
    s->site_err = !s->p->smtp_sender_dependent_authentication;
    session_fail(s, st, dsn, "%s", text);
    session_host_failed(s);
}

/* One line an hour per relay: without it mail silently goes unauthenticated. */
static void warn_no_credential(struct dsess *s) {
    struct deliver *d = s->d;
    size_t oldest = 0;
    if (s->probe != NULL)
        return;
    for (size_t i = 0; i < sizeof d->warned / sizeof d->warned[0]; i++) {
        struct warned *w = &d->warned[i];
        if (w->what != NULL && strcmp(w->what, s->relay) == 0) {
            if (d->loop->now_ms - w->at_ms < WARN_MS)
                return;
            oldest = i;
            break;
        }
        if (w->at_ms < d->warned[oldest].at_ms)
            oldest = i;
    }
    free(d->warned[oldest].what);
    d->warned[oldest] = (struct warned){mem_strdup(s->relay), d->loop->now_ms};
    struct sbuf tables = {0};
    maps_show(s->p->smtp_sasl_password_maps, &tables);
    log_warn("smtp", "relay %s offers AUTH, but no credential matched in %s; keys tried: %s%s, %s",
             s->relay, tables.p, s->p->smtp_sender_dependent_authentication ? "the sender, " : "",
             s->targets[s->at].host, s->targets[s->at].dest);
    sbuf_free(&tables);
}

static unsigned session_options(const struct dsess *s) {
    if (session_uses_record(
            s)) /* a record's password goes through TLS, or by a mechanism that hides it */
        return s->tls_on ? SASL_NOANONYMOUS : SASL_NOANONYMOUS | SASL_NOPLAINTEXT;
    const char *text = s->tls_verified ? s->p->smtp_sasl_tls_verified_security_options
                       : s->tls_on     ? s->p->smtp_sasl_tls_security_options
                                       : s->p->smtp_sasl_security_options;
    unsigned flags = 0;
    struct str bad;
    sasl_options_parse(str_of(text), &flags, &bad); /* checked when the snapshot was built */
    return flags;
}

/* A command line with its CR LF (RFC 5321 section 4.5.3.1.4). */
#define COMMAND_MAX 512

/* An initial response goes with AUTH, unless the line would be too long: then AUTH goes alone and
 * the answer after the first 334 (RFC 4954 section 4). */
static void send_answer(struct dsess *s, struct sbuf *answer, bool first) {
    struct conn *c = s->conn;
    size_t line = strlen("AUTH  \r\n") + strlen(sasl_login_mech(s->sasl)) + answer->n;
    withhold_add(&s->sent, sbuf_str(answer));
    if (first && line > COMMAND_MAX) {
        conn_printf(c, "AUTH %s\r\n", sasl_login_mech(s->sasl));
        sbuf_wipe(&s->first_answer);
        s->first_answer = *answer;
        *answer = (struct sbuf){0};
    } else if (first) {
        conn_printf(c, "AUTH %s %s\r\n", sasl_login_mech(s->sasl),
                    answer->n == 0 ? "=" : answer->p);
    } else {
        conn_printf(c, "%s\r\n", answer->p == NULL ? "" : answer->p);
    }
    conn_wipe_output(c);
    if (answer->p != NULL)
        mem_wipe(answer->p, answer->n);
    session_deadline(s, s->p->smtp_helo_timeout);
}

static void step_done(struct dsess *s, int rc, struct sbuf *answer, const char *why, bool first) {
    struct sbuf b = {0};
    if (rc == 0) {
        send_answer(s, answer, first);
        return;
    }
    sbuf_printf(&b, "SASL authentication failed; cannot authenticate to server %s: %s", s->where,
                why);
    auth_failed(s, MAIL_DEFERRED, "4.7.0", b.p);
    sbuf_free(&b);
}

static void slow_work(uv_work_t *w) {
    struct slow_step *x = w->data;
    x->rc = sasl_login_step(x->sasl, sbuf_str(&x->challenge), &x->answer, &x->why);
}

static void slow_done(uv_work_t *w, int status) {
    struct slow_step *x = w->data;
    (void)status;
    if (x->s == NULL) {
        sasl_login_free(x->sasl);
    } else {
        x->s->sasl_work = NULL;
        step_done(x->s, x->rc, &x->answer, x->why, x->first);
    }
    sbuf_free(&x->challenge);
    sbuf_wipe(&x->answer);
    free(x);
}

static void sasl_step(struct dsess *s, struct str challenge, bool first) {
    struct sbuf answer = {0};
    const char *why = "";
    if (!sasl_login_slow(s->sasl)) {
        int rc = sasl_login_step(s->sasl, challenge, &answer, &why);
        step_done(s, rc, &answer, why, first);
        sbuf_wipe(&answer);
        return;
    }
    struct slow_step *x = MEM_NEW(struct slow_step);
    x->s = s;
    x->sasl = s->sasl;
    x->first = first;
    x->work.data = x;
    sbuf_add_str(&x->challenge, challenge);
    s->sasl_work = &x->work;
    uv_queue_work(&s->d->loop->uv, &x->work, slow_work, slow_done);
}

static struct str filter_of(const struct dsess *s) {
    return str_of(session_uses_record(s) ? s->rec.mechanisms : s->p->smtp_sasl_mechanism_filter);
}

static void begin_dialogue(struct dsess *s, struct str user, struct str password) {
    struct sbuf mechs = {0};
    char text[600];
    sasl_filter(str_of(s->mechs), filter_of(s), &mechs);
    const char *mech = mechs.n == 0 ? NULL : sasl_choose(sbuf_str(&mechs), session_options(s));
    bool none = mechs.n == 0;
    sbuf_free(&mechs);
    if (mech == NULL) {
        if (none)
            snprintf(text, sizeof text,
                     "SASL authentication failed: server %s offered no compatible authentication "
                     "mechanisms for this type of connection security",
                     s->where);
        else
            snprintf(text, sizeof text,
                     "SASL authentication failed; cannot authenticate to server %s: no mechanism "
                     "available",
                     s->where);
        auth_failed(s, MAIL_DEFERRED, "4.7.0", text);
        return;
    }
    probe_ok(s, "mechanism", "%s, of %s", mech, s->mechs);
    withhold_add_password(&s->sent, password);
    s->sasl = sasl_login_new(mech, user, password, s->targets[s->at].host);
    s->phase = DSESS_AUTH;
    if (s->sasl == NULL) {
        auth_failed(s, MAIL_DEFERRED, "4.7.0",
                    "SASL authentication failed: mechanism not available");
        return;
    }
    if (sasl_login_first(s->sasl)) {
        sasl_step(s, STR_LIT(""), true);
    } else {
        conn_printf(s->conn, "AUTH %s\r\n", mech);
        session_deadline(s, s->p->smtp_helo_timeout);
    }
}

/* Nobody logs in here; why, for who watches. */
static void go_without(struct dsess *s, const struct maps_answer *a, const char *why) {
    json_t *o = probe_step(s, "credentials", true);
    if (o != NULL && a != NULL)
        trace_asked(o, a->trace);
    trace_set(o, "result", str_of(why));
    probe_end_step(s, o);
    if (probe_connects(s))
        session_ready(s);
    else
        probe_next(s);
}

static void credentials_unknown(struct dsess *s, const struct maps_answer *a) {
    const struct attempt *first = DL_OWNER(s->todo.next, struct attempt, link);
    char text[600];
    json_t *o = probe_step(s, "credentials", false);
    if (o != NULL)
        trace_asked(o, a->trace);
    trace_setf(o, "result", "the look-up failed: mail waits (4.3.0) and is never sent without: %s",
               a->err == NULL ? "" : a->err);
    probe_end_step(s, o);
    if (s->probe == NULL)
        log_warn("smtp", "%s: %s lookup error", first->env->qid,
                 session_uses_record(s) ? "relay record" : "smtp_sasl_password_maps");
    snprintf(text, sizeof text, "local data error while talking to %s", s->where);
    auth_failed(s, MAIL_DEFERRED, "4.3.0", text);
}

/* The account; its password is never shown. */
static void note_account(struct dsess *s, const struct maps_answer *a, struct str user) {
    json_t *o = probe_step(s, "credentials", true);
    if (o == NULL)
        return;
    trace_asked(o, session_uses_record(s) ? NULL : a->trace);
    trace_set(o, "user", user);
    if (session_uses_record(s))
        trace_setf(o, "result", "account %.*s, of the relay record \"%s\"", STR_FMT(user),
                   s->rec.name);
    else if (a->trace != NULL && a->trace->n > 0)
        trace_setf(o, "result", "account %.*s, under the key %s", STR_FMT(user),
                   a->trace->v[a->trace->n - 1].key);
    probe_end_step(s, o);
}

static void split_value(const struct dsess *s, struct str v, struct str *user,
                        struct str *password) {
    const char *delim = session_uses_record(s) ? "\n" : s->p->smtp_sasl_password_result_delimiter;
    ptrdiff_t at = delim[0] == '\0' ? -1 : str_chr(v, delim[0]);
    *user = at < 0 ? v : str_make(v.p, (size_t)at);
    *password = at < 0 ? STR_LIT("") : str_from(v, (size_t)at + 1);
}

static void on_credentials(void *arg, const struct maps_answer *a) {
    struct dsess *s = arg;
    char text[600];
    s->tag = 0;
    if (a->rc == MAP_ERROR) {
        credentials_unknown(s, a);
        return;
    }
    if (a->rc == MAP_NOT_FOUND) {
        if ((s->caps & CAP_AUTH) != 0)
            warn_no_credential(s);
        go_without(s, a, "no entry: mail goes without AUTH");
        return;
    }
    struct str v = sbuf_str(&a->value), user, password;
    split_value(s, session_uses_record(s) ? v : str_trim(v), &user, &password);
    note_account(s, a, user);
    if (!probe_connects(s)) {
        probe_next(s);
        return;
    }
    if ((s->caps & CAP_AUTH) == 0) {
        snprintf(text, sizeof text,
                 "credentials are configured for %s, but it did not offer AUTH%s", s->where,
                 s->tls_on ? "" : " (perhaps only inside TLS: see smtp_tls_security_level)");
        auth_failed(s, MAIL_DEFERRED, "4.7.0", text);
        return;
    }
    begin_dialogue(s, user, password);
}

static void ask_credentials(struct dsess *s, const char *spec, const struct keys *keys) {
    s->phase = DSESS_CREDENTIALS;
    if (s->probe != NULL)
        s->tag = lookup_maps_traced(s->d->lookup, "smtp", spec, keys->v, keys->n, true,
                                    on_credentials, s);
    else
        s->tag = lookup_maps(s->d->lookup, "smtp", spec, keys->v, keys->n, on_credentials, s);
}

/* As Postfix, at EHLO time and whether or not a credential exists. */
static void warn_mechanisms(struct dsess *s) {
    struct sbuf mechs = {0};
    sasl_filter(str_of(s->mechs), filter_of(s), &mechs);
    if (mechs.n == 0 && s->probe == NULL)
        log_warn("smtp", "%s offered no supported AUTH mechanisms: '%s'", s->relay, s->mechs);
    sbuf_free(&mechs);
}

/* Credentials come from the relay record only, never from smtp_sasl_password_maps.  The question
 * carries the destination: the secret is opened for the record's own hosts and for no other. */
static void begin_record(struct dsess *s) {
    struct keys keys = {.n = 0};
    struct sbuf question = {0};
    if (s->rec.user[0] == '\0') {
        go_without(s, NULL, "the relay record has no account: mail goes without AUTH");
        return;
    }
    relays_ask_secret(&question, s->rec.id, s->targets[s->at].dest);
    keys_add(&keys, false, "", sbuf_str(&question), STR_NONE);
    sbuf_free(&question);
    ask_credentials(s, s->cfg->relays_spec, &keys);
    keys_clear(&keys);
}

void auth_begin(struct dsess *s) {
    struct keys keys = {.n = 0};
    const struct target *t = &s->targets[s->at];
    const struct attempt *first = DL_OWNER(s->todo.next, struct attempt, link);
    if ((s->caps & CAP_AUTH) != 0 && s->mechs != NULL &&
        (session_uses_record(s) || s->p->smtp_sasl_auth_enable))
        warn_mechanisms(s);
    if (session_uses_record(s)) {
        begin_record(s);
        return;
    }
    if (!s->p->smtp_sasl_auth_enable || s->p->smtp_sasl_password_maps[0] == '\0') {
        go_without(s, NULL,
                   s->p->smtp_sasl_auth_enable ? "smtp_sasl_password_maps is empty: no AUTH"
                                               : "smtp_sasl_auth_enable = no: no AUTH");
        return;
    }
    if (s->p->smtp_sender_dependent_authentication) {
        s->auth_sender = str_dup(first->env->sender);
        keys_sender(&keys, s->p, first->env->sender);
    }
    keys_add(&keys, false, "", str_of(t->host), STR_NONE);
    keys_add(&keys, false, "", str_of(t->dest), STR_NONE);
    ask_credentials(s, s->p->smtp_sasl_password_maps, &keys);
    keys_clear(&keys);
}

static void auth_refused(struct dsess *s) {
    struct sbuf b = {0}, line = {0};
    char dsn[12];
    smtp_reply_line(&s->reply, &line);
    dsn_from_reply(dsn, s->reply.code, sbuf_str(&s->reply.text));
    bool hard = s->reply.code / 100 == 5;
    enum mail_status st = hard && !s->p->smtp_sasl_auth_soft_bounce ? MAIL_BOUNCED : MAIL_DEFERRED;
    if (st == MAIL_DEFERRED)
        dsn[0] = '4';
    sbuf_printf(&b, "SASL authentication failed; server %s said: %s", s->where, line.p);
    s->site_err = st == MAIL_DEFERRED && !s->p->smtp_sender_dependent_authentication;
    session_fail(s, st, dsn, "%s", b.p);
    mailerr_remote(&s->err, s->targets[s->at].host, sbuf_str(&line));
    sbuf_free(&b);
    sbuf_free(&line);
    session_host_failed(s);
}

void auth_reply(struct dsess *s) {
    if (s->sasl_work != NULL || s->sasl == NULL) /* the remote speaks out of turn */
        return;
    if (s->reply.code / 100 == 3 && s->first_answer.n > 0) {
        send_answer(s, &s->first_answer, false);
        sbuf_wipe(&s->first_answer);
    } else if (s->reply.code / 100 == 3) {
        sasl_step(s, str_trim(sbuf_str(&s->reply.text)), false);
    } else if (s->reply.code / 100 == 2) {
        struct sbuf said = {0};
        if (s->probe != NULL)
            smtp_reply_line(&s->reply, &said);
        probe_ok(s, "auth", "%s", said.p == NULL ? "" : said.p);
        sbuf_free(&said);
        sasl_login_free(s->sasl);
        s->sasl = NULL;
        session_ready(s);
    } else {
        auth_refused(s);
    }
}
