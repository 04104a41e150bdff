/*
 * deliver/secure.c - the stage tls of a delivery session: context, server name, verification, log
 * line
 *
 * Contexts are kept for the transports of deliver.cfg, which holds the reference that makes a
 * service's address stand for it; a session of an older configuration makes its own.
 */
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "deliver/session.h"
#include "mail/address.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/tls.h"

/* NULL with s->now set. */
static SSL_CTX *context_make(struct dsess *s, bool mandatory) {
    const struct params *p = s->p;
    int err;
    struct tls_conf c = {.protocols =
                             mandatory ? p->smtp_tls_mandatory_protocols : p->smtp_tls_protocols,
                         .grade = mandatory ? p->smtp_tls_mandatory_ciphers : p->smtp_tls_ciphers};
    if (p->smtp_tls_cert_file[0] != '\0') {
        c.cert = config_file(s->cfg, p->smtp_tls_cert_file, &err);
        c.key = config_file(s->cfg, p->smtp_tls_key_file, &err);
    }
    const char *ca = p->smtp_tls_CAfile[0] != '\0' ? p->smtp_tls_CAfile : CONFIG_SYSTEM_ANCHORS;
    c.ca = config_file(s->cfg, ca, &err);
    char *why;
    SSL_CTX *ctx = tls_context(&c, &why);
    if (ctx == NULL) {
        session_note(s, MAIL_DEFERRED, BLAME_OURSELVES, "4.7.5", "TLS client settings: %s", why);
        free(why);
    }
    return ctx;
}

/* The slot of the context, or an empty one for it. */
static struct tls_slot *context_slot(struct deliver *d, const struct service *svc, bool mandatory) {
    struct tls_slot *empty = NULL;
    for (size_t i = 0; i < TLS_CONTEXTS; i++) {
        struct tls_slot *slot = &d->tls[i];
        if (slot->ctx != NULL && slot->svc == svc && slot->mandatory == mandatory)
            return slot;
        if (slot->ctx == NULL && empty == NULL)
            empty = slot;
    }
    if (empty == NULL) { /* more transports than slots: the first one makes room */
        empty = &d->tls[0];
        SSL_CTX_free(empty->ctx);
        *empty = (struct tls_slot){0};
    }
    return empty;
}

/* A reference for the caller, or NULL with s->now set. */
static SSL_CTX *context_get(struct dsess *s, bool mandatory) {
    if (s->cfg != s->d->cfg)
        return context_make(s, mandatory);
    struct tls_slot *slot = context_slot(s->d, s->svc, mandatory);
    if (slot->ctx == NULL)
        *slot = (struct tls_slot){s->svc, mandatory, context_make(s, mandatory)};
    if (slot->ctx != NULL)
        SSL_CTX_up_ref(slot->ctx);
    return slot->ctx;
}

void secure_clear(struct deliver *d) {
    for (size_t i = 0; i < TLS_CONTEXTS; i++) {
        SSL_CTX_free(d->tls[i].ctx);
        d->tls[i] = (struct tls_slot){0};
    }
}

/* The name for SNI, "" for none: hostname, nexthop or a name, as the policy or main.cf has it. */
static struct str server_name(const struct dsess *s) {
    const struct target *t = session_target(s);
    const char *how =
        s->policy.servername != NULL ? s->policy.servername : s->p->smtp_tls_servername;
    struct nexthop hop;
    struct netaddr a;
    struct str name = str_of(how);
    if (how[0] == '\0' || strcmp(how, "hostname") == 0)
        name = str_of(t->host);
    else if (strcmp(how, "nexthop") == 0)
        name = nexthop_parse(&hop, str_of(t->dest), 25) == NULL ? hop.host : STR_LIT("");
    else
        return name;
    return netaddr_parse(&a, name, 0) ? STR_LIT("") : name; /* RFC 6066 section 3 */
}

/* Begins the handshake. */
static enum step begin_handshake(struct dsess *s) {
    const char *own = s->p->smtp_tls_servername;
    if (s->policy.servername == NULL && own[0] != '\0' && !addr_is_dns_name(str_of(own)))
        return host_failed(s, BLAME_OURSELVES, "4.7.5",
                           "client TLS configuration problem: smtp_tls_servername = %s", own);
    SSL_CTX *ctx = context_get(s, s->policy.level >= LEVEL_ENCRYPT);
    if (ctx == NULL)
        return STEP_HOST_FAILED;
    SSL *ssl = SSL_new(ctx);
    SSL_CTX_free(ctx);
    if (ssl == NULL)
        return host_failed(s, BLAME_OURSELVES, "4.7.5", "TLS client settings: out of memory");
    char *name = str_dup(server_name(s));
    if (name[0] != '\0')
        SSL_set_tlsext_host_name(ssl, name);
    free(name);
    session_deadline(s, s->p->smtp_starttls_timeout);
    conn_tls(s->conn, ssl, false);
    return STEP_WAIT;
}

enum step tls_wrapped_begin(struct dsess *s) {
    if (!session_wrapped(s))
        return STEP_DONE;
    if (s->policy.level < LEVEL_ENCRYPT)
        s->policy.level = LEVEL_ENCRYPT;
    return begin_handshake(s);
}

enum step tls_begin(struct dsess *s) {
    return s->tls_agreed ? begin_handshake(s) : STEP_DONE;
}

bool secure_clear_is_left(const struct dsess *s, bool broken) {
    if (s->policy.level >= LEVEL_ENCRYPT || session_wrapped(s))
        return false;
    if (session_uses_record(s))
        return s->rec.user[0] == '\0';
    return !broken || !s->p->smtp_sasl_auth_enable;
}

enum step tls_lost(struct dsess *s, bool timeout) {
    (void)timeout;
    log_as(s->svc->log_name, "smtp", "SSL_connect error to %s: %s", s->relay,
           conn_tls_error(s->conn));
    host_failed(s, BLAME_SITE, "4.7.5", "Cannot start TLS: handshake failure");
    if (s->plain_retry || !secure_clear_is_left(s, true))
        return STEP_HOST_FAILED;
    s->plain_retry = true; /* opportunistic: the same host again, in clear */
    return STEP_SAME_HOST;
}

/* Names the certificate may have: hostname, nexthop, dot-nexthop or a literal name. */
static bool name_matches(struct dsess *s, SSL *ssl) {
    const char *spec = s->policy.match != NULL           ? s->policy.match
                       : s->policy.level == LEVEL_SECURE ? s->p->smtp_tls_secure_cert_match
                                                         : s->p->smtp_tls_verify_cert_match;
    struct str rest = str_of(spec), w;
    struct nexthop hop;
    if (nexthop_parse(&hop, str_of(session_target(s)->dest), 25) != NULL)
        return false;
    while (str_split(&rest, ",: \t", &w)) {
        struct sbuf name = {0};
        if (str_ieq_c(w, "hostname"))
            sbuf_add_c(&name, session_target(s)->host);
        else if (str_ieq_c(w, "nexthop"))
            sbuf_add_str(&name, hop.host);
        else if (str_ieq_c(w, "dot-nexthop"))
            sbuf_printf(&name, ".%.*s", STR_FMT(hop.host));
        else
            sbuf_add_str(&name, w);
        bool ok = tls_peer_has_name(ssl, name.p);
        sbuf_free(&name);
        if (ok)
            return true;
    }
    return false;
}

static void trace_x509_name(json_t *o, const char *field, const X509_NAME *name) {
    BIO *b = BIO_new(BIO_s_mem());
    char *p = NULL;
    X509_NAME_print_ex(b, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB);
    long n = BIO_get_mem_data(b, &p);
    trace_set(o, field, str_make(p, n < 0 ? 0 : (size_t)n));
    BIO_free(b);
}

static void show_certificate(struct dsess *s, SSL *ssl, bool trusted, bool matched) {
    struct sbuf text = {0};
    X509 *cert = SSL_get0_peer_certificate(ssl);
    json_t *o = watch_step(s, "tls", true);
    if (o == NULL)
        return;
    tls_describe(ssl, &text);
    trace_set(o, "result", sbuf_str(&text));
    sbuf_free(&text);
    if (cert != NULL) {
        int days = 0, secs = 0;
        trace_x509_name(o, "subject", X509_get_subject_name(cert));
        trace_x509_name(o, "issuer", X509_get_issuer_name(cert));
        if (ASN1_TIME_diff(&days, &secs, NULL, X509_get0_notAfter(cert)) == 1)
            json_object_set_new(o, "days_left", json_integer(days));
    }
    trace_set(o, "verifies",
              str_of(trusted ? (s->policy.level >= LEVEL_VERIFY
                                    ? matched ? "yes" : "no: it is for another name"
                                : tls_peer_has_name(ssl, session_target(s)->host)
                                    ? "yes"
                                    : "the issuer is trusted, but it is for another name")
                             : X509_verify_cert_error_string(SSL_get_verify_result(ssl))));
    watch_end_step(s, o);
}

static void log_certificate(struct dsess *s, SSL *ssl, bool trusted, bool matched) {
    struct sbuf b = {0};
    bool cert = SSL_get0_peer_certificate(ssl) != NULL;
    if (s->p->smtp_tls_loglevel < 1)
        return;
    tls_describe(ssl, &b);
    if (s->policy.level >= LEVEL_VERIFY && !trusted)
        log_as(s->svc->log_name, "smtp", "certificate verification failed for %s: %s", s->relay,
               X509_verify_cert_error_string(SSL_get_verify_result(ssl)));
    log_as(s->svc->log_name, "smtp", "%s TLS connection established to %s: %s",
           matched   ? "Verified"
           : trusted ? "Trusted"
           : cert    ? "Untrusted"
                     : "Anonymous",
           s->relay, b.p);
    sbuf_free(&b);
}

enum step tls_up(struct dsess *s) {
    SSL *ssl = conn_ssl(s->conn);
    bool cert = SSL_get0_peer_certificate(ssl) != NULL;
    bool trusted = cert && SSL_get_verify_result(ssl) == X509_V_OK;
    bool matched = trusted && s->policy.level >= LEVEL_VERIFY && name_matches(s, ssl);
    s->tls_on = true;
    s->tls_verified = matched;
    s->cert_until = tls_peer_until(ssl);
    show_certificate(s, ssl, trusted, matched);
    log_certificate(s, ssl, trusted, matched);
    if (s->policy.level < LEVEL_VERIFY || matched)
        return STEP_DONE;
    if (!trusted)
        return host_failed(s, BLAME_SITE, "4.7.5", "Server certificate not verified");
    return host_failed(s, BLAME_SITE, "4.7.5", "Server certificate does not match the name %s",
                       session_target(s)->host);
}
