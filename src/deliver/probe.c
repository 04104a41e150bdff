/*
 * deliver/probe.c - looking at a road; see probe.h
 *
 * The loop's thread only.  The session carries one attempt of an envelope that exists nowhere else.
 */
#include "deliver/probe.h"

#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deliver/session.h"
#include "mail/address.h"
#include "util/clock.h"
#include "util/mem.h"
#include "util/tls.h"

enum probe_at { AT_MAIL, AT_RCPT, AT_RSET };

struct probe {
    struct probe_ask ask;
    char *sender, *rcpt;
    int64_t stage_us; /* when the stage began */
    enum probe_at at;
    bool passed,
        refused; /* the dialogue went through; it did not, and no other host may be asked */
};

static const char *const phase_names[] = {
    [DSESS_COLD] = "connect",      [DSESS_RESOLVE] = "dns",
    [DSESS_POLICY] = "tls policy", [DSESS_CONNECT] = "connect",
    [DSESS_GREETING] = "greeting", [DSESS_EHLO] = "ehlo",
    [DSESS_HELO] = "ehlo",         [DSESS_STARTTLS] = "tls",
    [DSESS_TLS] = "tls",           [DSESS_CREDENTIALS] = "credentials",
    [DSESS_AUTH] = "auth",         [DSESS_READY] = "mail",
    [DSESS_CLOSED] = "connect"};

struct trace *probe_trace(const struct dsess *s) {
    return s->probe == NULL ? NULL : s->probe->ask.trace;
}

bool probe_connects(const struct dsess *s) {
    return s->probe == NULL || s->probe->ask.connect;
}

json_t *probe_step(struct dsess *s, const char *stage, bool ok) {
    struct probe *p = s->probe;
    if (p == NULL)
        return NULL;
    int64_t now = clock_wall_us();
    json_t *o = trace_step(p->ask.trace, stage);
    json_object_set_new(o, "pass", json_boolean(ok));
    json_object_set_new(o, "ms", json_real((double)(now - p->stage_us) / 1000));
    p->stage_us = now;
    return o;
}

void probe_end_step(struct dsess *s, json_t *o) {
    if (o != NULL)
        trace_end(s->probe->ask.trace, o);
}

void probe_ok(struct dsess *s, const char *stage, const char *fmt, ...) {
    struct sbuf text = {0};
    va_list ap;
    if (s->probe == NULL)
        return;
    va_start(ap, fmt);
    sbuf_vprintf(&text, fmt, ap);
    va_end(ap);
    json_t *o = probe_step(s, stage, true);
    trace_set(o, "result", sbuf_str(&text));
    probe_end_step(s, o);
    sbuf_free(&text);
}

static void add_failure(json_t *o, const struct mailerr *e) {
    const char *advice = advice_for(str_of(e->text == NULL ? "" : e->text));
    trace_set(o, "result", str_of(e->text == NULL ? "" : e->text));
    trace_set(o, "dsn", str_of(e->dsn));
    trace_set(o, "mail_would_be", str_of(e->status == MAIL_BOUNCED ? "bounced" : "deferred"));
    if (advice != NULL)
        trace_set(o, "advice", str_of(advice));
}

void probe_failed(struct dsess *s) {
    if (s->probe == NULL || s->err.text == NULL)
        return;
    json_t *o = probe_step(s, phase_names[s->phase], false);
    add_failure(o, &s->err);
    probe_end_step(s, o);
}

static void set_name(json_t *o, const char *field, const X509_NAME *name) {
    BIO *b = BIO_new(BIO_s_mem());
    char *p = NULL;
    X509_NAME_print_ex(b, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
    long n = BIO_get_mem_data(b, &p);
    trace_set(o, field, str_make(p, n < 0 ? 0 : (size_t)n));
    BIO_free(b);
}

void probe_tls(struct dsess *s, SSL *ssl, bool trusted, bool matched) {
    struct sbuf text = {0};
    X509 *cert = SSL_get0_peer_certificate(ssl);
    json_t *o = probe_step(s, "tls", true);
    if (o == NULL)
        return;
    tls_describe(ssl, &text);
    trace_set(o, "result", sbuf_str(&text));
    sbuf_free(&text);
    if (cert != NULL) {
        int days = 0, secs = 0;
        set_name(o, "subject", X509_get_subject_name(cert));
        set_name(o, "issuer", X509_get_issuer_name(cert));
        if (ASN1_TIME_diff(&days, &secs, NULL, X509_get0_notAfter(cert)) == 1)
            json_object_set_new(o, "days_left", json_integer(days));
    }
    trace_set(
        o, "verifies",
        str_of(trusted ? (s->level >= LEVEL_VERIFY ? matched ? "yes" : "no: it is for another name"
                          : tls_peer_has_name(ssl, s->targets[s->at].host)
                              ? "yes"
                              : "the issuer is trusted, but it is for another name")
                       : X509_verify_cert_error_string(SSL_get_verify_result(ssl))));
    probe_end_step(s, o);
}

/* -- the end -- */

void probe_over(struct dsess *s) {
    struct probe *p = s->probe;
    struct dl *n;
    if (p == NULL)
        return;
    while ((n = dl_pop(&s->todo)) != NULL)
        attempt_free(DL_OWNER(n, struct attempt, link));
    bool ok = p->ask.connect ? p->passed : !p->refused;
    p->ask.done(p->ask.arg, ok);
    s->probe = NULL;
    free(p->sender);
    free(p->rcpt);
    free(p);
    dsess_release(s);
}

/* -- explanations: the next host, without having connected to this one -- */

void probe_next(struct dsess *s) {
    s->at++;
    targets_next(s);
}

/* -- the dialogue -- */

static void say_mail(struct dsess *s) {
    struct sbuf b = {0};
    addr_external(&b, str_of(s->probe->sender));
    s->probe->at = AT_MAIL;
    conn_printf(s->conn, "MAIL FROM:<%s>\r\n", b.p == NULL ? "" : b.p);
    session_deadline(s, s->p->smtp_mail_timeout);
    sbuf_free(&b);
}

static void say_rcpt(struct dsess *s) {
    struct sbuf b = {0};
    addr_external(&b, str_of(s->probe->rcpt));
    s->probe->at = AT_RCPT;
    conn_printf(s->conn, "RCPT TO:<%s>\r\n", b.p);
    session_deadline(s, s->p->smtp_rcpt_timeout);
    sbuf_free(&b);
}

static void say_rset(struct dsess *s) {
    s->probe->at = AT_RSET;
    conn_write_c(s->conn, "RSET\r\n");
    session_deadline(s, s->p->smtp_rset_timeout);
}

void probe_ready(struct dsess *s) {
    say_mail(s);
}

static void finish(struct dsess *s) {
    session_disconnect(s, true);
    targets_free(s);
    probe_over(s);
}

/* MAIL or RCPT was refused: by what it says about the mail, not about the host, when it is 5xx. */
static void refused(struct dsess *s, const char *stage, struct str line) {
    struct probe *p = s->probe;
    char dsn[12];
    dsn_from_reply(dsn, s->reply.code, sbuf_str(&s->reply.text));
    session_fail(s, s->reply.code / 100 == 5 ? MAIL_BOUNCED : MAIL_DEFERRED, dsn,
                 "host %s said: %.*s (in reply to %s command)", s->where, STR_FMT(line),
                 p->at == AT_MAIL ? "MAIL FROM" : "RCPT TO");
    json_t *o = probe_step(s, stage, false);
    add_failure(o, &s->err);
    probe_end_step(s, o);
    p->refused = true;
    say_rset(s);
}

void probe_reply(struct dsess *s) {
    static const char *const stages[] = {"mail", "rcpt", "rset"};
    struct probe *p = s->probe;
    struct sbuf line = {0};
    smtp_reply_line(&s->reply, &line);
    bool ok = s->reply.code / 100 == 2;
    if (p->at == AT_RSET) {
        probe_ok(s, "rset", "%s", line.p);
        p->passed = !p->refused;
        finish(s);
    } else if (!ok) {
        refused(s, stages[p->at], sbuf_str(&line));
    } else {
        probe_ok(s, stages[p->at], "%s", line.p);
        if (p->at == AT_MAIL && p->rcpt[0] != '\0') {
            say_rcpt(s);
        } else {
            if (p->at == AT_MAIL)
                probe_ok(s, "rcpt", "not tried: no recipient was given");
            say_rset(s);
        }
    }
    sbuf_free(&line);
}

/* The connection ended in the dialogue. */
void probe_lost(struct dsess *s, const char *what) {
    session_fail(s, MAIL_DEFERRED, "4.4.2", "%s", what);
    probe_failed(s);
    s->probe->refused = true;
    finish(s);
}

/* -- the start -- */

static struct attempt *make_attempt(const struct probe_ask *ask) {
    struct attempt *a = MEM_NEW(struct attempt);
    struct rcpt to = {.addr = ask->rcpt};
    struct envelope e = {.sender = ask->sender, .rcpts = &to, .n_rcpts = 1};
    snprintf(e.qid, sizeof e.qid, "NOQUEUE");
    a->cfg = config_ref((struct config *)(uintptr_t)ask->cfg);
    a->transport = ask->route->transport;
    a->nexthop = str_dup(sbuf_str(&ask->route->nexthop));
    a->record = str_dup(sbuf_str(&ask->route->record));
    a->configured = ask->route->configured;
    a->env = envelope_make(&e);
    a->n = 1;
    a->idx = mem_zalloc(sizeof *a->idx);
    a->res = mem_zalloc(sizeof *a->res);
    a->tried = mem_zalloc(sizeof *a->tried);
    return a;
}

void probe_start(struct deliver *d, const struct probe_ask *ask) {
    struct dsess *s = dsess_new(d, NULL);
    struct probe *p = s->probe = MEM_NEW(struct probe);
    p->ask = *ask;
    p->sender = str_dup(ask->sender);
    p->rcpt = str_dup(ask->rcpt);
    p->stage_us = clock_wall_us();
    dl_push(&s->todo, &make_attempt(ask)->link);
    session_start(s);
}
