/*
 * deliver/secure.c - TLS of a delivery session: level, context, verification, log line
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deliver/session.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/tls.h"

static const struct {
    const char *name;
    enum tls_level level;
} levels[] = {{"none", LEVEL_NONE},
              {"may", LEVEL_MAY},
              {"encrypt", LEVEL_ENCRYPT},
              {"verify", LEVEL_VERIFY},
              {"secure", LEVEL_SECURE}};

static bool level_parse(struct str s, enum tls_level *level) {
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++)
        if (str_ieq_c(s, levels[i].name)) {
            *level = levels[i].level;
            return true;
        }
    return false;
}

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
        session_fail(s, MAIL_DEFERRED, "4.7.5", "TLS client settings: %s", why);
        free(why);
    }
    return ctx;
}

static SSL_CTX *context_get(struct dsess *s, bool mandatory) {
    struct tls_slot *free_slot = NULL;
    for (size_t i = 0; i < TLS_CONTEXTS; i++) {
        struct tls_slot *t = &s->d->tls[i];
        if (t->ctx != NULL && t->svc == s->svc && t->mandatory == mandatory)
            return t->ctx;
        if (t->ctx == NULL && free_slot == NULL)
            free_slot = t;
    }
    if (free_slot == NULL) { /* more transports than slots: the first one makes room */
        free_slot = &s->d->tls[0];
        SSL_CTX_free(free_slot->ctx);
        free_slot->ctx = NULL;
    }
    SSL_CTX *ctx = context_make(s, mandatory);
    if (ctx != NULL)
        *free_slot = (struct tls_slot){s->svc, mandatory, ctx};
    return ctx;
}

static const char *server_name(const struct dsess *s) {
    const char *how = s->p->smtp_tls_servername;
    if (how[0] == '\0' || strcmp(how, "hostname") == 0)
        return s->targets[s->at].host;
    return how;
}

SSL *secure_new(struct dsess *s) {
    SSL_CTX *ctx = context_get(s, s->level >= LEVEL_ENCRYPT);
    SSL *ssl = ctx == NULL ? NULL : SSL_new(ctx);
    struct netaddr a;
    if (ssl == NULL)
        return NULL;
    const char *name = server_name(s);
    if (!netaddr_parse(&a, str_of(name), 0))
        SSL_set_tlsext_host_name(ssl, name);
    return ssl;
}

/* Names the certificate may have: hostname, nexthop, dot-nexthop or a literal name. */
static bool name_matches(struct dsess *s, SSL *ssl) {
    const char *spec = s->match != NULL           ? s->match
                       : s->level == LEVEL_SECURE ? s->p->smtp_tls_secure_cert_match
                                                  : s->p->smtp_tls_verify_cert_match;
    struct str rest = str_of(spec), w;
    struct nexthop hop;
    if (nexthop_parse(&hop, str_of(s->targets[s->at].dest), 25) != NULL)
        return false;
    while (str_split(&rest, ",: \t", &w)) {
        struct sbuf name = {0};
        if (str_ieq_c(w, "hostname"))
            sbuf_add_c(&name, s->targets[s->at].host);
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

bool secure_check(struct dsess *s) {
    SSL *ssl = conn_ssl(s->conn);
    long rc = SSL_get_verify_result(ssl);
    bool cert = SSL_get0_peer_certificate(ssl) != NULL, trusted = cert && rc == X509_V_OK;
    bool matched = trusted && s->level >= LEVEL_VERIFY && name_matches(s, ssl);
    s->tls_verified = matched;
    s->cert_until = tls_peer_until(ssl);
    probe_tls(s, ssl, trusted, matched);
    if (s->p->smtp_tls_loglevel >= 1) {
        struct sbuf b = {0};
        tls_describe(ssl, &b);
        if (s->level >= LEVEL_VERIFY && !trusted)
            log_as(s->svc->log_name, "smtp", "certificate verification failed for %s: %s", s->relay,
                   X509_verify_cert_error_string(rc));
        log_as(s->svc->log_name, "smtp", "%s TLS connection established to %s: %s",
               matched   ? "Verified"
               : trusted ? "Trusted"
               : cert    ? "Untrusted"
                         : "Anonymous",
               s->relay, b.p);
        sbuf_free(&b);
    }
    if (s->level < LEVEL_VERIFY || matched)
        return true;
    s->site_err = true;
    if (!trusted)
        session_fail(s, MAIL_DEFERRED, "4.7.5", "Server certificate not verified");
    else
        session_fail(s, MAIL_DEFERRED, "4.7.5", "Server certificate does not match the name %s",
                     s->targets[s->at].host);
    return false;
}

/* "level attr=value …" of a policy table; false if it cannot be used. */
static bool policy_apply(struct dsess *s, struct str v) {
    struct str w;
    if (!str_split(&v, ", \t", &w) || !level_parse(w, &s->level))
        return false;
    while (str_split(&v, ", \t", &w)) {
        ptrdiff_t eq = str_chr(w, '=');
        struct str name = str_make(w.p, eq < 0 ? w.n : (size_t)eq);
        if (str_ieq_c(name, "match") && eq > 0) {
            free(s->match);
            s->match = str_dup(str_from(w, (size_t)eq + 1));
        } else if (!str_ieq_c(name, "connection_reuse")) {
            return false; /* a condition that is not understood is not met */
        }
    }
    return true;
}

static const char *level_name(enum tls_level level) {
    return levels[level].name;
}

static void note_level(struct dsess *s, const struct maps_answer *a, const char *from) {
    json_t *o = probe_step(s, "tls policy", true);
    if (o != NULL && a != NULL)
        trace_asked(o, a->trace);
    trace_setf(o, "result", "%s, from %s%s", level_name(s->level), from,
               s->p->smtp_tls_wrappermode || netaddr_port(&s->targets[s->at].addr) == 465
                   ? "; TLS from the first byte, so at least encrypt"
                   : "");
    probe_end_step(s, o);
}

static void on_policy(void *arg, const struct maps_answer *a) {
    struct dsess *s = arg;
    s->tag = 0;
    bool known = a->rc != MAP_FOUND || policy_apply(s, str_trim(sbuf_str(&a->value)));
    if (a->rc != MAP_ERROR && known)
        note_level(s, a, a->rc == MAP_FOUND ? "smtp_tls_policy_maps" : "smtp_tls_security_level");
    if (a->rc == MAP_ERROR) {
        session_fail(s, MAIL_DEFERRED, "4.3.0", "TLS policy lookup error for %s",
                     s->targets[s->at].dest);
        session_host_failed(s);
    } else if (!known) {
        session_fail(s, MAIL_DEFERRED, "4.7.5",
                     "client TLS configuration problem: invalid TLS "
                     "policy for %s",
                     s->targets[s->at].dest);
        session_host_failed(s);
    } else {
        session_connect(s);
    }
}

/* The record says it all. */
static bool record_policy(struct dsess *s) {
    if (level_parse(str_of(s->rec.tls), &s->level)) {
        note_level(s, NULL, "the relay record");
        return true;
    }
    session_fail(s, MAIL_DEFERRED, "4.7.5", "relay record \"%s\": unknown TLS mode %s", s->rec.name,
                 s->rec.tls);
    session_host_failed(s);
    return false;
}

void secure_policy(struct dsess *s) {
    s->level = LEVEL_MAY;
    s->phase = DSESS_POLICY;
    free(s->match);
    s->match = NULL;
    if (session_uses_record(s)) {
        if (record_policy(s))
            session_connect(s);
        return;
    }
    if (!level_parse(str_of(s->p->smtp_tls_security_level), &s->level)) {
        session_fail(s, MAIL_DEFERRED, "4.7.5",
                     "client TLS configuration problem: smtp_tls_security_level = %s",
                     s->p->smtp_tls_security_level);
        session_host_failed(s);
        return;
    }
    if (s->p->smtp_tls_policy_maps[0] == '\0') {
        note_level(s, NULL, "smtp_tls_security_level");
        session_connect(s);
        return;
    }
    struct maps_key keys[16];
    size_t n = 0;
    struct nexthop hop;
    struct str key = str_of(s->targets[s->at].dest);
    keys[n++] = (struct maps_key){key, false};
    /* Parents (".example.com") only for a plain domain. */
    if (nexthop_parse(&hop, key, 25) == NULL && !hop.bracketed && hop.host.n == key.n)
        for (ptrdiff_t dot; n < 16 && (dot = str_chr(str_from(key, 1), '.')) >= 0; n++) {
            key = str_from(key, (size_t)dot + 1);
            keys[n] = (struct maps_key){key, true};
        }
    if (s->probe != NULL)
        s->tag = lookup_maps_traced(s->d->lookup, "smtp", s->p->smtp_tls_policy_maps, keys, n,
                                    false, on_policy, s);
    else
        s->tag =
            lookup_maps(s->d->lookup, "smtp", s->p->smtp_tls_policy_maps, keys, n, on_policy, s);
}
