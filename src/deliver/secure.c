/*
 * deliver/secure.c - the stage tls of a delivery session: context, server name, verification, log
 * line
 *
 * Contexts are kept for the transports of deliver.cfg, which holds the reference that makes a
 * service's address stand for it; a session of an older configuration makes its own.
 */
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "deliver/secure.h"
#include "deliver/session.h"
#include "mail/address.h"
#include "util/idn.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/tls.h"

static void tls_slot_free(struct tls_slot *slot) {
    SSL_CTX_free(slot->ctx);
    free(slot->key);
    *slot = (struct tls_slot){0};
}

/* What a context is made of, and what is made for it. */
struct client_tls {
    struct tls_conf conf;
    struct sbuf ciphers, chains, anchors;
    const char *param; /* that is wrong; a literal */
    char *why;         /* how; NULL: nothing is wrong */
};

static void client_tls_free(struct client_tls *t) {
    if (t->chains.p != NULL)
        mem_wipe(t->chains.p, t->chains.n);
    sbuf_free(&t->chains);
    sbuf_free(&t->ciphers);
    sbuf_free(&t->anchors);
    free(t->why);
}

static bool client_tls_bad(struct client_tls *t, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Always false. */
static bool client_tls_bad(struct client_tls *t, const char *param, const char *fmt, ...) {
    struct sbuf b = {0};
    va_list ap;
    va_start(ap, fmt);
    sbuf_vprintf(&b, fmt, ap);
    va_end(ap);
    t->param = param;
    t->why = sbuf_take(&b);
    return false;
}

/* An empty text would mean to OpenSSL that there is none. */
static bool client_file(struct client_tls *t, const struct config *cfg, const char *param,
                        const char *file, struct str *text) {
    int err = 0;
    *text = config_file(cfg, file, &err);
    return text->n > 0 || client_tls_bad(t, param, "%s: %s", file,
                                         err < 0 ? cfg_source_why(err) : "the file is empty");
}

static bool client_chains(struct client_tls *t, const struct config *cfg, const struct params *p) {
    struct str rest = str_of(p->smtp_tls_chain_files), one, text;
    bool ok = true;
    while (ok && str_split(&rest, ", \t\r\n", &one)) {
        char *file = str_dup(one);
        ok = client_file(t, cfg, "smtp_tls_chain_files", file, &text);
        sbuf_add_str(&t->chains, text);
        sbuf_add_c(&t->chains, "\n");
        free(file);
    }
    t->conf.chains = sbuf_str(&t->chains);
    return ok;
}

static bool client_certificate(struct client_tls *t, const struct config *cfg,
                               const struct params *p) {
    if (p->smtp_tls_chain_files[0] != '\0')
        return client_chains(t, cfg, p);
    const char *key = p->smtp_tls_key_file;
    return p->smtp_tls_cert_file[0] == '\0' ||
           (client_file(t, cfg, "smtp_tls_cert_file", p->smtp_tls_cert_file, &t->conf.cert) &&
            client_file(t, cfg, "smtp_tls_key_file", key, &t->conf.key));
}

/* Of a folder, behind those of smtp_tls_CAfile. */
static bool client_folder(struct client_tls *t, const struct config *cfg, const char *folder) {
    int err = 0;
    struct str more = config_folder(cfg, folder, &err);
    sbuf_add_str(&t->anchors, t->conf.ca);
    sbuf_add_ch(&t->anchors, '\n');
    sbuf_add_str(&t->anchors, more);
    t->conf.ca = sbuf_str(&t->anchors);
    return more.n > 0 ||
           client_tls_bad(t, "smtp_tls_CApath", "%s: %s", folder,
                          err < 0 ? cfg_source_why(err)
                                  : "no certificate has its hash for a name (see c_rehash(1))");
}

/* The files of trust anchors that stand instead of authorities; "": there are none. */
static const char *trust_files(const struct params *p, const struct tls_policy *policy) {
    if (policy->level < LEVEL_VERIFY)
        return "";
    return policy->anchors != NULL ? policy->anchors : p->smtp_tls_trust_anchor_file;
}

static const char *trust_param(const struct tls_policy *policy) {
    return policy->anchors != NULL ? "tafile" : "smtp_tls_trust_anchor_file";
}

static bool client_trust_one(struct client_tls *t, const struct config *cfg, const char *param,
                             const char *file, SSL *ssl) {
    struct str pem;
    if (!client_file(t, cfg, param, file, &pem))
        return false;
    const char *why = tls_trust(ssl, pem);
    return why == NULL || client_tls_bad(t, param, "%s: %s", file, why);
}

/* Tells ssl what it trusts, where that is not up to its context. */
static bool client_trust(struct client_tls *t, const struct config *cfg, const struct params *p,
                         const struct tls_policy *policy, SSL *ssl) {
    struct str rest = str_of(trust_files(p, policy)), one;
    bool ok = rest.n == 0 || tls_trust_begin(ssl) ||
              client_tls_bad(t, trust_param(policy), "out of memory");
    while (ok && str_split(&rest, ", \t\r\n", &one)) {
        char *file = str_dup(one);
        ok = client_trust_one(t, cfg, trust_param(policy), file, ssl);
        free(file);
    }
    return ok;
}

/* Those that main.cf names, or the system's. */
static bool client_all_anchors(struct client_tls *t, const struct config *cfg,
                               const struct params *p) {
    const char *file = p->smtp_tls_CAfile, *folder = p->smtp_tls_CApath;
    struct client_tls ignored = {.why = NULL};
    bool ok = true;
    if (file[0] != '\0')
        ok = client_file(t, cfg, "smtp_tls_CAfile", file, &t->conf.ca) &&
             (tls_has_certificate(t->conf.ca) ||
              client_tls_bad(t, "smtp_tls_CAfile", "%s: no certificate stands in it", file));
    else if (folder[0] == '\0')
        client_file(&ignored, cfg, "", CONFIG_SYSTEM_ANCHORS, &t->conf.ca);
    client_tls_free(&ignored);
    return ok && (folder[0] == '\0' || client_folder(t, cfg, folder));
}

/* Sessions that verify nothing do without anchors that cannot be read. */
static bool client_anchors(struct client_tls *t, const struct config *cfg, const struct params *p,
                           enum tls_level level, bool strict) {
    if (client_all_anchors(t, cfg, p))
        return true;
    if (strict || level >= LEVEL_VERIFY)
        return false;
    free(t->why);
    t->why = NULL;
    return true;
}

static const char *text_or(const char *given, const char *otherwise) {
    return given == NULL ? otherwise : given;
}

/* As Postfix: a row's exclusions stand instead of main.cf's, and what has no encryption, or no
 * certificate to be verified, is excluded besides. */
static bool client_ciphers(struct client_tls *t, const struct params *p,
                           const struct tls_policy *policy) {
    bool must = policy->level >= LEVEL_ENCRYPT;
    struct sbuf out = {0};
    struct str bad;
    const char *grade =
        text_or(policy->grade, must ? p->smtp_tls_mandatory_ciphers : p->smtp_tls_ciphers);
    sbuf_add_c(&out, text_or(policy->exclude, p->smtp_tls_exclude_ciphers));
    size_t of_all = out.n;
    if (must && policy->exclude == NULL)
        sbuf_printf(&out, " %s", p->smtp_tls_mandatory_exclude_ciphers);
    sbuf_add_c(&out, policy->level > LEVEL_ENCRYPT ? " aNULL" : must ? " eNULL" : "");
    bool ok = tls_ciphers(&t->ciphers, grade, p->tls_high_cipherlist, p->tls_medium_cipherlist,
                          out.n == 0 ? "" : out.p, &bad);
    if (!ok)
        client_tls_bad(t,
                       bad.p == grade ? must ? "smtp_tls_mandatory_ciphers" : "smtp_tls_ciphers"
                       : bad.p < out.p + of_all ? "smtp_tls_exclude_ciphers"
                                                : "smtp_tls_mandatory_exclude_ciphers",
                       "there is no \"%.*s\"", STR_FMT(bad));
    sbuf_free(&out);
    t->conf.ciphers = t->ciphers.p;
    return ok;
}

static bool client_protocols(struct client_tls *t, const struct params *p,
                             const struct tls_policy *policy) {
    bool must = policy->level >= LEVEL_ENCRYPT;
    struct str bad;
    t->conf.protocols =
        text_or(policy->protocols, must ? p->smtp_tls_mandatory_protocols : p->smtp_tls_protocols);
    return tls_protocols_ok(t->conf.protocols, &bad) ||
           client_tls_bad(t, must ? "smtp_tls_mandatory_protocols" : "smtp_tls_protocols",
                          "there is no TLS protocol \"%.*s\"", STR_FMT(bad));
}

/* strict: anchors that cannot be read are an error whatever the level. */
static SSL_CTX *client_context(struct client_tls *t, const struct config *cfg,
                               const struct params *p, const struct tls_policy *policy,
                               bool strict) {
    char *why = NULL;
    t->conf.pinned = trust_files(p, policy)[0] != '\0';
    if (!client_protocols(t, p, policy) || !client_ciphers(t, p, policy) ||
        !client_certificate(t, cfg, p) ||
        (!t->conf.pinned && !client_anchors(t, cfg, p, policy->level, strict)))
        return NULL;
    SSL_CTX *ctx = tls_context(&t->conf, &why);
    if (ctx == NULL)
        client_tls_bad(t,
                       p->smtp_tls_chain_files[0] != '\0' ? "smtp_tls_chain_files"
                       : t->conf.cert.n > 0               ? "smtp_tls_cert_file"
                                                          : "smtp_tls_ciphers",
                       "%s", why);
    else
        SSL_CTX_set_verify_depth(ctx, (int)p->smtp_tls_scert_verifydepth + 1); /* as Postfix */
    free(why);
    return ctx;
}

bool secure_check(const struct config *cfg, const struct params *p, const struct tls_policy *policy,
                  const char **param, char **why) {
    struct client_tls t = {.why = NULL};
    SSL_CTX *ctx = client_context(&t, cfg, p, policy, true);
    SSL *ssl = ctx == NULL ? NULL : SSL_new(ctx);
    bool ok = ssl != NULL && client_trust(&t, cfg, p, policy, ssl);
    SSL_free(ssl);
    *param = t.param;
    *why = t.why;
    t.why = NULL;
    client_tls_free(&t);
    SSL_CTX_free(ctx);
    return ok;
}

/* NULL with s->now set. */
static SSL_CTX *context_make(struct dsess *s) {
    struct client_tls t = {.why = NULL};
    SSL_CTX *ctx = client_context(&t, s->cfg, s->p, &s->policy, false);
    if (ctx == NULL)
        session_note(s, MAIL_DEFERRED, BLAME_OURSELVES, CAUSE_SETTING, "4.7.5",
                     "TLS client settings: %s: %s", t.param, t.why);
    client_tls_free(&t);
    return ctx;
}

/* The slot of the context, or an empty one for it. */
static struct tls_slot *context_slot(struct deliver *d, const struct service *svc,
                                     const char *key) {
    struct tls_slot *empty = NULL;
    for (size_t i = 0; i < TLS_CONTEXTS; i++) {
        struct tls_slot *slot = &d->tls[i];
        if (slot->ctx != NULL && slot->svc == svc && strcmp(slot->key, key) == 0)
            return slot;
        if (slot->ctx == NULL && empty == NULL)
            empty = slot;
    }
    if (empty == NULL) { /* more kinds of sessions than slots: one after the other makes room */
        empty = &d->tls[d->tls_turn++ % TLS_CONTEXTS];
        tls_slot_free(empty);
    }
    return empty;
}

/* What tells contexts of one transport apart. */
static char *context_key(const struct tls_policy *p) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%d\n%s\n%s\n%d\n%d%s", (int)p->level, text_or(p->protocols, ""),
                text_or(p->grade, ""), p->anchors != NULL, p->exclude != NULL,
                text_or(p->exclude, ""));
    return sbuf_take(&b);
}

/* A reference for the caller, or NULL with s->now set. */
static SSL_CTX *context_get(struct dsess *s) {
    if (s->cfg != s->d->cfg)
        return context_make(s);
    char *key = context_key(&s->policy);
    struct tls_slot *slot = context_slot(s->d, s->svc, key);
    if (slot->ctx != NULL) {
        free(key);
    } else {
        SSL_CTX *ctx = context_make(s);
        free(slot->key);
        *slot = (struct tls_slot){s->svc, key, ctx};
    }
    if (slot->ctx != NULL)
        SSL_CTX_up_ref(slot->ctx);
    return slot->ctx;
}

void secure_clear(struct deliver *d) {
    for (size_t i = 0; i < TLS_CONTEXTS; i++)
        tls_slot_free(&d->tls[i]);
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

/* False with s->now set. */
static bool trust_anchors(struct dsess *s, SSL *ssl) {
    struct client_tls t = {.why = NULL};
    bool ok = client_trust(&t, s->cfg, s->p, &s->policy, ssl);
    if (!ok)
        session_note(s, MAIL_DEFERRED, BLAME_OURSELVES, CAUSE_SETTING, "4.7.5",
                     "TLS client settings: %s: %s", t.param, t.why);
    client_tls_free(&t);
    return ok;
}

/* Begins the handshake. */
static enum step begin_handshake(struct dsess *s) {
    const char *own = s->p->smtp_tls_servername;
    if (s->policy.level == LEVEL_FINGERPRINT && s->policy.match == NULL &&
        s->p->smtp_tls_fingerprint_cert_match[0] == '\0')
        return host_failed(s, BLAME_OURSELVES, CAUSE_SETTING, "4.7.5",
                           "client TLS configuration problem: level fingerprint, and there is none "
                           "to match");
    if (s->policy.level == LEVEL_FINGERPRINT && !tls_digest_ok(s->p->smtp_tls_fingerprint_digest))
        return host_failed(s, BLAME_OURSELVES, CAUSE_SETTING, "4.7.5",
                           "client TLS configuration problem: smtp_tls_fingerprint_digest = %s",
                           s->p->smtp_tls_fingerprint_digest);
    if (s->policy.servername == NULL && own[0] != '\0' && !server_name_ok(str_of(own)))
        return host_failed(s, BLAME_OURSELVES, CAUSE_SETTING, "4.7.5",
                           "client TLS configuration problem: smtp_tls_servername = %s", own);
    SSL_CTX *ctx = context_get(s);
    if (ctx == NULL)
        return STEP_HOST_FAILED;
    SSL *ssl = SSL_new(ctx);
    SSL_CTX_free(ctx);
    if (ssl == NULL)
        return host_failed(s, BLAME_OURSELVES, CAUSE_INTERNAL, "4.7.5",
                           "TLS client settings: out of memory");
    if (!trust_anchors(s, ssl)) {
        SSL_free(ssl);
        return STEP_HOST_FAILED;
    }
    struct sbuf name = {0};
    idn_to_ascii(server_name(s), s->p->enable_idna2003_compatibility, &name, NULL);
    if (name.n > 0)
        SSL_set_tlsext_host_name(ssl, name.p);
    sbuf_free(&name);
    if (!s->configured)
        tls_bound_stranger(ssl);
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
    return !broken || s->tls_relaxed || !s->p->smtp_sasl_auth_enable;
}

enum step tls_lost(struct dsess *s, bool timeout) {
    (void)timeout;
    log_as(s->svc->log_name, session_program(s), "SSL_connect error to %s: %s", s->relay,
           conn_tls_error(s->conn));
    host_failed(s, BLAME_SITE, CAUSE_TLS_HANDSHAKE, "4.7.5", "Cannot start TLS: handshake failure");
    if (s->plain_retry || !secure_clear_is_left(s, true))
        return STEP_HOST_FAILED;
    s->plain_retry = true; /* opportunistic: the same host again, in clear */
    return STEP_SAME_HOST;
}

/* Is it for that name, or with a dot before it for a name below it?  Certificates have A-labels
 * (RFC 5280 section 7.2). */
static bool certificate_has(const struct dsess *s, SSL *ssl, const char *dot, struct str domain) {
    struct sbuf name = {0};
    sbuf_add_c(&name, dot);
    bool ok = idn_to_ascii(domain, s->p->enable_idna2003_compatibility, &name, NULL) &&
              name.n > 0 && tls_peer_has_name(ssl, name.p);
    sbuf_free(&name);
    return ok;
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
        if (str_ieq_c(w, "hostname"))
            w = str_of(session_target(s)->host);
        else if (str_ieq_c(w, "nexthop"))
            w = hop.host;
        bool any = str_ieq_c(w, "dot-nexthop")
                       ? certificate_has(s, ssl, ".", hop.host)
                       : certificate_has(s, ssl, w.p[0] == '.' ? "." : "",
                                         str_from(w, w.p[0] == '.' ? 1 : 0));
        if (any)
            return true;
    }
    return false;
}

static bool fingerprint_matches(struct dsess *s, SSL *ssl) {
    const char *own = s->policy.match;
    return tls_peer_has_digest(ssl, s->p->smtp_tls_fingerprint_digest,
                               own != NULL ? own : s->p->smtp_tls_fingerprint_cert_match,
                               own != NULL ? "|" : ", \t\r\n");
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
    tls_describe(ssl, " ", &text);
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
    tls_describe(ssl, " ", &b);
    if (s->policy.level >= LEVEL_VERIFY && !trusted)
        log_as(s->svc->log_name, session_program(s), "certificate verification failed for %s: %s",
               s->relay, X509_verify_cert_error_string(SSL_get_verify_result(ssl)));
    log_as(s->svc->log_name, session_program(s), "%s TLS connection established to %s: %s",
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
    bool prints = s->policy.level == LEVEL_FINGERPRINT;
    bool matched = prints ? fingerprint_matches(s, ssl)
                          : trusted && s->policy.level >= LEVEL_VERIFY && name_matches(s, ssl);
    s->tls_on = true;
    s->tls_verified = matched;
    s->cert_until = tls_peer_until(ssl);
    show_certificate(s, ssl, trusted, matched);
    log_certificate(s, ssl, trusted, matched);
    if (s->policy.level < LEVEL_FINGERPRINT || matched)
        return STEP_DONE;
    if (!trusted || prints)
        return host_failed(s, BLAME_SITE, prints ? CAUSE_CERT_PRINT : CAUSE_CERT_UNTRUSTED, "4.7.5",
                           "Server certificate not verified");
    return host_failed(s, BLAME_SITE, CAUSE_CERT_NAME, "4.7.5",
                       "Server certificate does not match the name %s", session_target(s)->host);
}
