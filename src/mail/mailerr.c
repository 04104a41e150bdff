/*
 * mail/mailerr.c - what happened to a mail; see mailerr.h
 */
#include "mail/mailerr.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/mem.h"

void mailerr_free(struct mailerr *e) {
    free(e->text);
    free(e->mta);
    free(e->reply);
    *e = (struct mailerr){0};
}

void mailerr_set(struct mailerr *e, enum mail_status status, const char *dsn, const char *fmt,
                 ...) {
    struct sbuf b = {0};
    va_list ap;
    va_start(ap, fmt);
    sbuf_vprintf(&b, fmt, ap); /* before the old text goes: it may be an argument */
    va_end(ap);
    mailerr_free(e);
    e->status = status;
    snprintf(e->dsn, sizeof e->dsn, "%s", dsn);
    e->text = sbuf_take(&b);
}

void mailerr_blame(struct mailerr *e, enum mail_phase phase, enum mail_blame blame) {
    e->phase = phase;
    e->blame = blame;
}

void mailerr_suspend(struct mailerr *e, const struct mailerr *of) {
    mailerr_set(e, MAIL_DEFERRED, of->dsn, "delivery temporarily suspended: %s", of->text);
    mailerr_blame(e, PHASE_ROUTE, BLAME_SITE);
    e->cause = of->cause;
    e->reply = of->reply == NULL ? NULL : mem_strdup(of->reply);
}

void mailerr_remote(struct mailerr *e, const char *mta, struct str reply) {
    free(e->mta);
    free(e->reply);
    e->mta = mem_strdup(mta);
    e->reply = str_dup(reply);
    e->remote = true;
}

void mailerr_soften(struct mailerr *e) {
    if (e->status != MAIL_BOUNCED)
        return;
    e->status = MAIL_DEFERRED;
    e->dsn[0] = '4';
}

void mailerr_restate(struct mailerr *e, struct str dsn, struct str text) {
    snprintf(e->dsn, sizeof e->dsn, "%.*s", STR_FMT(dsn));
    char *old = e->text; /* may be what text is of */
    e->text = str_dup(text);
    free(old);
    e->status = dsn.p[0] == '2' ? MAIL_SENT : dsn.p[0] == '4' ? MAIL_DEFERRED : MAIL_BOUNCED;
}

void mailerr_copy(struct mailerr *to, const struct mailerr *from) {
    mailerr_free(to);
    *to = *from;
    to->text = from->text == NULL ? NULL : mem_strdup(from->text);
    to->mta = from->mta == NULL ? NULL : mem_strdup(from->mta);
    to->reply = from->reply == NULL ? NULL : mem_strdup(from->reply);
}

const char *mail_status_name(enum mail_status s) {
    return s == MAIL_SENT ? "sent" : s == MAIL_BOUNCED ? "bounced" : "deferred";
}

const char *mail_phase_name(enum mail_phase phase) {
    static const char *const names[] = {
        [PHASE_UNSET] = "",          [PHASE_ROUTE] = "route",
        [PHASE_DNS] = "dns",         [PHASE_POLICY] = "tls policy",
        [PHASE_CONNECT] = "connect", [PHASE_GREETING] = "greeting",
        [PHASE_EHLO] = "ehlo",       [PHASE_STARTTLS] = "starttls",
        [PHASE_TLS] = "tls",         [PHASE_CREDENTIALS] = "credentials",
        [PHASE_AUTH] = "auth",       [PHASE_MAIL] = "mail",
    };
    return names[phase];
}

static const char *const cause_names[MAIL_CAUSES] = {
    [CAUSE_UNSET] = "",
    [CAUSE_REFUSED] = "connection refused",
    [CAUSE_UNREACHABLE] = "unreachable",
    [CAUSE_UNCONNECTED] = "no connection",
    [CAUSE_TIMEOUT] = "timeout",
    [CAUSE_NO_GREETING] = "no greeting",
    [CAUSE_LOST] = "connection lost",
    [CAUSE_PROTOCOL] = "protocol",
    [CAUSE_NAME_LATER] = "name server",
    [CAUSE_NAME_UNKNOWN] = "name unknown",
    [CAUSE_NAME_MALFORMED] = "name malformed",
    [CAUSE_NAME_FILTERED] = "name filtered",
    [CAUSE_NULL_MX] = "null mx",
    [CAUSE_NO_HOST] = "no host",
    [CAUSE_LOOP] = "loop",
    [CAUSE_TLS_MISSING] = "tls missing",
    [CAUSE_TLS_HANDSHAKE] = "tls handshake",
    [CAUSE_CERT_UNTRUSTED] = "certificate untrusted",
    [CAUSE_CERT_NAME] = "certificate name",
    [CAUSE_CERT_PRINT] = "certificate fingerprint",
    [CAUSE_LOGIN_MISSING] = "login missing",
    [CAUSE_LOGIN_UNUSABLE] = "login unusable",
    [CAUSE_LOGIN_FILTERED] = "login filtered",
    [CAUSE_LOGIN_UNPROVEN] = "login unproven",
    [CAUSE_LOGIN_DIALOGUE] = "login dialogue",
    [CAUSE_LOOKUP] = "table",
    [CAUSE_SETTING] = "setting",
    [CAUSE_TOO_LARGE] = "too large",
    [CAUSE_NO_SMTPUTF8] = "no smtputf8",
    [CAUSE_ADDRESS] = "address",
    [CAUSE_CONTENT] = "content",
    [CAUSE_QUEUE] = "queue",
    [CAUSE_OTHER_MAIL] = "other mail",
    [CAUSE_FORWARD_LOOP] = "forwarding loop",
    [CAUSE_TRANSPORT_SAYS] = "transport says",
    [CAUSE_TRANSPORT_WAITS] = "transport waits",
    [CAUSE_EXPIRED] = "expired",
    [CAUSE_INTERNAL] = "internal",
};

const char *mail_cause_name(enum mail_cause cause) {
    return cause_names[mail_cause_numbered(cause)];
}

enum mail_cause mail_cause_named(struct str name) {
    for (uint32_t i = 0; i < MAIL_CAUSES; i++)
        if (str_eq_c(name, cause_names[i]))
            return (enum mail_cause)i;
    return CAUSE_UNSET;
}

enum mail_cause mail_cause_numbered(uint32_t number) {
    return number < MAIL_CAUSES ? (enum mail_cause)number : CAUSE_UNSET;
}

size_t dsn_length(struct str s) {
    size_t i = 0;
    for (int part = 0; part < 3; part++) {
        size_t digits = 0;
        if (part > 0 && (i >= s.n || s.p[i++] != '.'))
            return 0;
        while (i < s.n && s.p[i] >= '0' && s.p[i] <= '9') {
            digits++;
            i++;
        }
        if (digits == 0 || digits > (part == 0 ? 1U : 3U))
            return 0;
    }
    return i < s.n && s.p[i] != ' ' ? 0 : i;
}

bool dsn_from_reply(char dsn[12], int code, struct str text) {
    size_t n = dsn_length(text);
    bool own = n > 0 && n < 12 && text.p[0] == '0' + code / 100;
    if (!own) {
        snprintf(dsn, 12, "%d.0.0", code / 100 % 10);
        return false;
    }
    memcpy(dsn, text.p, n);
    dsn[n] = '\0';
    return true;
}
