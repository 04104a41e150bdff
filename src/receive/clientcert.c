/*
 * receive/clientcert.c - the certificate that a client has shown; see clientcert.h
 */
#include "receive/clientcert.h"

#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#include "receive/certificate.h"
#include "util/mem.h"
#include "util/tls.h"

/* Text of a certificate as a part of a comment (RFC 5322 section 3.2.2): what is not printable
 * ASCII, and backslashes and parentheses without a partner, become '?'. */
static void comment_add(struct sbuf *out, struct str text) {
    unsigned open = 0;
    for (size_t i = 0; i < text.n; i++) {
        char ch = text.p[i];
        bool bad = ch < ' ' || ch > '~' || ch == '\\' || (ch == ')' && open == 0);
        open += !bad && ch == '(' ? 1 : 0;
        open -= !bad && ch == ')' ? 1 : 0;
        sbuf_add_ch(out, bad ? '?' : ch);
    }
    for (; open > 0; open--)
        sbuf_add_ch(out, ')');
}

/* Bytes of a name; Postfix takes no longer ones either. */
#define NAME_MAX_N 255

/* The first entry of that kind, as UTF-8.  False: there is none, or it is no text of a line, or too
 * long. */
static bool name_entry(const X509_NAME *name, int kind, struct sbuf *out) {
    int at = X509_NAME_get_index_by_NID(name, kind, -1);
    unsigned char *utf8 = NULL;
    if (at < 0)
        return false;
    int n = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
    struct str text = str_make((const char *)utf8, n > 0 ? (size_t)n : 0);
    bool ok = text.n > 0 && text.n <= NAME_MAX_N && !str_has_control(text);
    if (ok)
        comment_add(out, text);
    OPENSSL_free(utf8);
    return ok;
}

static char *name_text(const X509_NAME *name, bool issuer) {
    struct sbuf out = {0};
    if (!name_entry(name, NID_commonName, &out) && issuer)
        name_entry(name, NID_organizationName, &out);
    sbuf_add_c(&out, "");
    return out.p == NULL ? mem_strdup("") : sbuf_take(&out);
}

struct clientcert *clientcert_of(SSL *ssl, const struct params *p) {
    X509 *cert = SSL_get0_peer_certificate(ssl);
    struct sbuf print = {0}, key_print = {0};
    if (cert == NULL)
        return NULL;
    struct clientcert *c = MEM_NEW(struct clientcert);
    long rc = SSL_get_verify_result(ssl);
    c->trusted = rc == X509_V_OK;
    c->why = c->trusted ? NULL : mem_strdup(X509_verify_cert_error_string(rc));
    if (tls_peer_digests(ssl, p->smtpd_tls_fingerprint_digest, &print, &key_print)) {
        c->print = sbuf_take(&print);
        c->key_print = sbuf_take(&key_print);
    }
    c->name = name_text(X509_get_subject_name(cert), false);
    c->issuer = name_text(X509_get_issuer_name(cert), true);
    return c;
}

void clientcert_free(struct clientcert *c) {
    if (c == NULL)
        return;
    free(c->why);
    free(c->print);
    free(c->key_print);
    free(c->name);
    free(c->issuer);
    free(c);
}

void clientcert_keys(const struct clientcert *c, struct keys *keys) {
    keys_add(keys, false, "", str_of(c->print), STR_NONE);
    keys_add(keys, false, "", str_of(c->key_print), STR_NONE);
}

uint32_t clientcert_ask(const struct clientcert *c, struct lookup *k, const struct params *p,
                        lookup_maps_fn fn, void *arg) {
    struct keys keys = {.n = 0};
    clientcert_keys(c, &keys);
    uint32_t tag =
        lookup_maps(k, "smtpd", p->relay_clientcerts, VALUES_JOINED, keys.v, keys.n, fn, arg);
    keys_clear(&keys);
    return tag;
}

/* -- mistakes in a configuration -- */

static void clientcert_say(const struct config *cfg, const struct service *svc,
                           enum diag_level level, const char *param, const char *text,
                           struct diags *d) {
    const struct cfg_entry *own = cfg_file_find(&svc->overrides, str_of(param));
    const struct cfg_entry *e = own != NULL ? own : cfg_file_find(&cfg->main, str_of(param));
    diag_add(d, level, own != NULL ? svc->overrides.path : cfg->main.path, e == NULL ? 0 : e->line,
             "%s: %s: %s", svc->name, param, text);
}

static bool restrictions_have(const struct params *p, const char *word) {
    for (size_t i = 0; i < REFUSAL_LISTS; i++) {
        const struct param_info *info = param_find(refusal_lists[i], strlen(refusal_lists[i]));
        if (list_has_word(str_of(params_text_at(p, info->offset)), word))
            return true;
    }
    return false;
}

static bool permits_by_certificate(const struct params *p) {
    return restrictions_have(p, "permit_tls_clientcerts") ||
           restrictions_have(p, "permit_tls_all_clientcerts") ||
           restrictions_have(p, "check_ccert_access");
}

/* Are the anchors those of all public authorities? */
static bool trusts_everybody(const struct params *p) {
    return strcmp(p->smtpd_tls_CAfile, CONFIG_SYSTEM_ANCHORS) == 0 ||
           strncmp(p->smtpd_tls_CApath, "/etc/ssl/certs", 14) == 0;
}

/* A file that cannot be read is said where the certificates are loaded. */
static bool anchors_have_certificate(const struct config *cfg, const struct params *p) {
    int err = 0;
    struct str pem =
        p->smtpd_tls_CAfile[0] == '\0' ? STR_NONE : config_file(cfg, p->smtpd_tls_CAfile, &err);
    return pem.n == 0 || tls_has_certificate(pem);
}

static void clientcert_check_one(const struct config *cfg, const struct service *svc,
                                 struct diags *d) {
    const struct params *p = &svc->p;
    bool no_anchors = p->smtpd_tls_CAfile[0] == '\0' && p->smtpd_tls_CApath[0] == '\0';
    if (p->smtpd_tls_req_ccert && !clientcert_needed(p))
        clientcert_say(cfg, svc, DIAG_WARN, "smtpd_tls_req_ccert",
                       "it counts for nothing unless TLS is required", d);
    if (clientcert_needed(p) && no_anchors)
        clientcert_say(cfg, svc, DIAG_WARN, "smtpd_tls_req_ccert",
                       "no certificate is trusted without smtpd_tls_CAfile: no client is served",
                       d);
    if (clientcert_asked(p) && !anchors_have_certificate(cfg, p))
        clientcert_say(cfg, svc, DIAG_ERROR, "smtpd_tls_CAfile", "no certificate stands in it", d);
    if (clientcert_asked(p) && !tls_digest_ok(p->smtpd_tls_fingerprint_digest))
        clientcert_say(cfg, svc, DIAG_WARN, "smtpd_tls_fingerprint_digest",
                       "there is no such digest: what asks for a fingerprint is answered 451", d);
    if (restrictions_have(p, "permit_tls_all_clientcerts") && trusts_everybody(p))
        clientcert_say(cfg, svc, DIAG_WARN, "smtpd_tls_CAfile",
                       "permit_tls_all_clientcerts permits everybody who has a certificate of some "
                       "public authority",
                       d);
    if (!clientcert_asked(p) && permits_by_certificate(p))
        clientcert_say(cfg, svc, DIAG_WARN, "smtpd_tls_ask_ccert",
                       "no client is asked for the certificate that its restrictions look for", d);
    else if (permits_by_certificate(p) && server_tls_level(p) == SERVER_TLS_NONE &&
             !p->smtpd_tls_wrappermode)
        clientcert_say(cfg, svc, DIAG_WARN, "smtpd_tls_security_level",
                       "no client can show the certificate that its restrictions look for", d);
}

void clientcert_check(const struct config *cfg, struct diags *d) {
    for (size_t i = 0; i < cfg->n_services; i++)
        if (cfg->services[i]->kind == SERVICE_SMTPD)
            clientcert_check_one(cfg, cfg->services[i], d);
}
