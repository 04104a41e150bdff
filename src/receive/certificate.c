/*
 * receive/certificate.c - the server's TLS contexts; see certificate.h
 */
#include "receive/certificate.h"

#include <stdlib.h>
#include <string.h>

#include "receive/sni.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/tls.h"

enum server_tls server_tls_level(const struct params *p) {
    const char *word = p->smtpd_tls_security_level;
    if (word[0] == '\0' || strcasecmp(word, "none") == 0)
        return SERVER_TLS_NONE;
    return strcasecmp(word, "may") == 0 ? SERVER_TLS_MAY : SERVER_TLS_MUST;
}

bool server_tls_overstated(const struct params *p) {
    return server_tls_level(p) == SERVER_TLS_MUST &&
           strcasecmp(p->smtpd_tls_security_level, "encrypt") != 0;
}

bool clientcert_needed(const struct params *p) {
    return p->smtpd_tls_req_ccert &&
           (p->smtpd_tls_wrappermode || server_tls_level(p) == SERVER_TLS_MUST);
}

bool clientcert_asked(const struct params *p) {
    return p->smtpd_tls_ask_ccert || clientcert_needed(p);
}

/* The file that holds the certificate, or NULL. */
static const char *certificate_file(const struct params *p) {
    const char *file =
        p->smtpd_tls_chain_files[0] != '\0' ? p->smtpd_tls_chain_files : p->smtpd_tls_cert_file;
    return file[0] == '\0' || strcmp(file, "none") == 0 ? NULL : file;
}

static char *cannot_load_anchors(const char *param, const char *file, int err) {
    struct sbuf b = {0};
    sbuf_printf(&b, "cannot load %s = %s: %s", param, file,
                err < 0 ? cfg_source_why(err) : "it has no certificate");
    return sbuf_take(&b);
}

static char *cannot_load(const char *file, const char *reason) {
    struct sbuf b = {0};
    sbuf_printf(&b, "cannot load the TLS certificate of %s: %s", file, reason);
    return sbuf_take(&b);
}

/* An empty text would mean to OpenSSL that there is no certificate: a context without one. */
static struct str read_pem(const struct config *cfg, const char *file, char **why) {
    int err = 0;
    struct str pem = config_file(cfg, file, &err);
    if (pem.n == 0)
        *why = cannot_load(file, err < 0 ? cfg_source_why(err) : "the file is empty");
    return pem;
}

/* OpenSSL's list for the clients of p; false: *why. */
static bool server_ciphers(const struct params *p, struct sbuf *list, char **why) {
    bool must = server_tls_level(p) == SERVER_TLS_MUST;
    struct sbuf out = {0}, text = {0};
    struct str bad;
    sbuf_printf(&out, "%s %s", p->smtpd_tls_exclude_ciphers,
                must ? p->smtpd_tls_mandatory_exclude_ciphers : "");
    bool ok = tls_ciphers(list, must ? p->smtpd_tls_mandatory_ciphers : p->smtpd_tls_ciphers,
                          p->tls_high_cipherlist, p->tls_medium_cipherlist, out.p, &bad);
    if (!ok) {
        sbuf_printf(&text, "smtpd_tls_%sciphers or its exclusions: there is no \"%.*s\"",
                    must ? "mandatory_" : "", STR_FMT(bad));
        *why = sbuf_take(&text);
    }
    sbuf_free(&out);
    return ok;
}

/* Files with keys and certificates; the caller wipes *pem. */
static bool read_chains(const struct config *cfg, const char *files, struct sbuf *pem, char **why) {
    struct str rest = str_of(files), one;
    while (*why == NULL && str_split(&rest, ", \t\r\n", &one)) {
        char *file = str_dup(one);
        sbuf_add_str(pem, read_pem(cfg, file, why));
        sbuf_add_c(pem, "\n");
        free(file);
    }
    return *why == NULL;
}

/* What clients' certificates are to be signed by; none where none is named. */
static bool client_anchors_read(const struct config *cfg, const struct params *p,
                                struct tls_conf *c, struct sbuf *anchors, char **why) {
    const char *file = p->smtpd_tls_CAfile, *folder = p->smtpd_tls_CApath;
    int err = 0;
    if (!clientcert_asked(p))
        return true;
    c->asks = true;
    c->depth = (int)p->smtpd_tls_ccert_verifydepth;
    if (file[0] != '\0')
        c->asked = config_file(cfg, file, &err);
    if (file[0] != '\0' && c->asked.n == 0)
        *why = cannot_load_anchors("smtpd_tls_CAfile", file, err);
    sbuf_add_str(anchors, c->asked);
    sbuf_add_ch(anchors, '\n');
    struct str more = folder[0] == '\0' ? STR_NONE : config_folder(cfg, folder, &err);
    if (folder[0] != '\0' && more.n == 0 && *why == NULL)
        *why = cannot_load_anchors("smtpd_tls_CApath", folder, err);
    sbuf_add_str(anchors, more);
    c->ca = sbuf_str(anchors);
    return *why == NULL;
}

SSL_CTX *certificate_load(const struct config *cfg, const struct params *p, char **why) {
    const char *file = certificate_file(p);
    bool must = server_tls_level(p) == SERVER_TLS_MUST;
    bool chain = p->smtpd_tls_chain_files[0] != '\0';
    struct tls_conf c = {.server = true,
                         .protocols =
                             must ? p->smtpd_tls_mandatory_protocols : p->smtpd_tls_protocols};
    struct sbuf ciphers = {0}, chains = {0}, anchors = {0};
    SSL_CTX *ctx = NULL;
    char *reason = NULL;
    *why = NULL;
    if (file == NULL)
        return NULL;
    if (chain && read_chains(cfg, file, &chains, why))
        c.chains = sbuf_str(&chains);
    if (!chain)
        c.cert = read_pem(cfg, file, why);
    if (!chain && *why == NULL)
        c.key = read_pem(cfg, p->smtpd_tls_key_file, why);
    if (*why == NULL && client_anchors_read(cfg, p, &c, &anchors, why) &&
        server_ciphers(p, &ciphers, why)) {
        c.ciphers = ciphers.p;
        ctx = tls_context(&c, &reason);
        if (ctx == NULL)
            *why = cannot_load(file, reason);
        else
            sni_use(ctx, cfg, p);
    }
    if (chains.p != NULL)
        mem_wipe(chains.p, chains.n);
    sbuf_free(&chains);
    sbuf_free(&ciphers);
    sbuf_free(&anchors);
    free(reason);
    return ctx;
}

/* Has a service with the parameters p a context of its own? */
static bool has_own_tls(const struct params *p, const struct params *shared) {
    static const size_t texts[] = {
        offsetof(struct params, smtpd_tls_cert_file),
        offsetof(struct params, smtpd_tls_key_file),
        offsetof(struct params, smtpd_tls_chain_files),
        offsetof(struct params, tls_server_sni_maps),
        offsetof(struct params, smtpd_tls_CAfile),
        offsetof(struct params, smtpd_tls_CApath),
        offsetof(struct params, smtpd_tls_protocols),
        offsetof(struct params, smtpd_tls_mandatory_protocols),
        offsetof(struct params, smtpd_tls_ciphers),
        offsetof(struct params, smtpd_tls_mandatory_ciphers),
        offsetof(struct params, smtpd_tls_exclude_ciphers),
        offsetof(struct params, smtpd_tls_mandatory_exclude_ciphers),
        offsetof(struct params, tls_high_cipherlist),
        offsetof(struct params, tls_medium_cipherlist),
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (strcmp(params_text_at(p, texts[i]), params_text_at(shared, texts[i])) != 0)
            return true;
    return clientcert_asked(p) != clientcert_asked(shared) ||
           p->smtpd_tls_ccert_verifydepth != shared->smtpd_tls_ccert_verifydepth ||
           (server_tls_level(p) == SERVER_TLS_MUST) !=
               (server_tls_level(shared) == SERVER_TLS_MUST);
}

struct own_certificate {
    char *svc_name;
    SSL_CTX *ctx;
    struct own_certificate *next;
};

static struct own_certificate *own_certificate_find(const struct certificates *c,
                                                    const char *svc_name) {
    struct own_certificate *o = c->own;
    while (o != NULL && strcmp(o->svc_name, svc_name) != 0)
        o = o->next;
    return o;
}

static void certificate_load_into(SSL_CTX **at, const struct config *cfg, const struct params *p) {
    char *why;
    SSL_CTX *ctx = certificate_load(cfg, p, &why);
    if (why != NULL)
        log_warn("smtpd", "%s; %s", why,
                 *at != NULL ? "the one that was loaded before stays in use"
                             : "STARTTLS is not offered, and services with "
                               "smtpd_tls_wrappermode are not served");
    if (why == NULL || ctx != NULL) {
        SSL_CTX_free(*at);
        *at = ctx;
    }
    free(why);
}

void certificates_load(struct certificates *c, const struct config *cfg) {
    certificate_load_into(&c->shared, cfg, &cfg->p);
    for (size_t i = 0; i < cfg->n_services; i++) {
        const struct service *s = cfg->services[i];
        if (s->kind != SERVICE_SMTPD || !has_own_tls(&s->p, &cfg->p))
            continue;
        struct own_certificate *o = own_certificate_find(c, s->name);
        if (o == NULL) {
            o = MEM_NEW(struct own_certificate);
            *o = (struct own_certificate){mem_strdup(s->name), NULL, c->own};
            c->own = o;
        }
        certificate_load_into(&o->ctx, cfg, &s->p);
    }
}

SSL_CTX *certificates_of(const struct certificates *c, const struct config *cfg,
                         const struct service *svc) {
    const struct own_certificate *o = own_certificate_find(c, svc->name);
    return o != NULL && has_own_tls(&svc->p, &cfg->p) ? o->ctx : c->shared;
}

/* Does a service with the same certificate as p offer TLS? */
static bool certificate_needed(const struct config *cfg, const struct params *p) {
    for (size_t i = 0; i < cfg->n_services; i++) {
        const struct service *svc = cfg->services[i];
        if (svc->kind == SERVICE_SMTPD && (&svc->p == p || !has_own_tls(&svc->p, p)) &&
            (svc->p.smtpd_tls_wrappermode || server_tls_level(&svc->p) != SERVER_TLS_NONE))
            return true;
    }
    return false;
}

/* A level that asks for TLS, and no certificate to have it with.  Those that are always inside TLS
 * are said elsewhere. */
static void certificate_check_missing(const struct config *cfg, const struct service *svc,
                                      struct diags *d) {
    const struct params *p = &svc->p;
    const char *cert = p->smtpd_tls_cert_file, *chains = p->smtpd_tls_chain_files;
    bool none = (cert[0] == '\0' || strcmp(cert, "none") == 0) &&
                (chains[0] == '\0' || strcmp(chains, "none") == 0);
    enum server_tls level = server_tls_level(p);
    if (svc->kind != SERVICE_SMTPD || p->smtpd_tls_wrappermode || !none || level == SERVER_TLS_NONE)
        return;
    const char *const names[] = {"smtpd_tls_security_level", "smtpd_enforce_tls", "smtpd_use_tls"};
    const struct cfg_entry *e = NULL;
    const char *file = cfg->main.path;
    for (size_t i = 0; i < 3 && e == NULL; i++) {
        e = cfg_file_find(&svc->overrides, str_of(names[i]));
        file = e != NULL ? svc->overrides.path : cfg->main.path;
        e = e != NULL ? e : cfg_file_find(&cfg->main, str_of(names[i]));
    }
    diag_add(d, DIAG_WARN, file, e == NULL ? 0 : e->line,
             "%s: TLS without smtpd_tls_cert_file or smtpd_tls_chain_files: STARTTLS is not "
             "offered%s",
             svc->name, level == SERVER_TLS_MUST ? ", and all mail is refused, 530" : "");
}

/* As with Postfix, STARTTLS is offered, and each handshake fails. */
static void certificate_check_versions(const struct config *cfg, const struct params *p,
                                       const char *svc_name, struct diags *d) {
    bool must = server_tls_level(p) == SERVER_TLS_MUST;
    const char *name = must ? "smtpd_tls_mandatory_protocols" : "smtpd_tls_protocols";
    const char *value = must ? p->smtpd_tls_mandatory_protocols : p->smtpd_tls_protocols;
    const struct cfg_entry *e = cfg_file_find(&cfg->main, str_of(name));
    struct str bad;
    if (server_tls_level(p) != SERVER_TLS_NONE && tls_protocols_ok(value, &bad) &&
        !tls_protocols_left(value))
        diag_add(d, DIAG_WARN, cfg->main.path, e == NULL ? 0 : e->line,
                 "%s%s%s: \"%s\" leaves no version of TLS: no client can use it%s", svc_name,
                 svc_name[0] == '\0' ? "" : ": ", name, value,
                 must ? ", and all mail is refused" : "");
}

static void certificate_check_one(const struct config *cfg, const struct params *p,
                                  const char *svc_name, struct diags *d) {
    char *why;
    certificate_check_versions(cfg, p, svc_name, d);
    SSL_CTX *ctx = certificate_load(cfg, p, &why);
    const char *name =
        p->smtpd_tls_chain_files[0] != '\0' ? "smtpd_tls_chain_files" : "smtpd_tls_cert_file";
    const struct cfg_entry *e = cfg_file_find(&cfg->main, str_of(name));
    if (why != NULL)
        diag_add(d, certificate_needed(cfg, p) ? DIAG_ERROR : DIAG_WARN, cfg->main.path,
                 e == NULL ? 0 : e->line, "%s%s%s", svc_name, svc_name[0] == '\0' ? "" : ": ", why);
    free(why);
    SSL_CTX_free(ctx);
    for (size_t i = 0; i < cfg->n_services; i++) {
        const struct service *svc = cfg->services[i];
        if (svc->kind == SERVICE_SMTPD && server_tls_overstated(&svc->p))
            diag_add(d, DIAG_WARN, svc->line > 0 ? "master.cf" : NULL, svc->line,
                     "%s: unsupported TLS level \"%s\", using \"encrypt\"", svc->name,
                     svc->p.smtpd_tls_security_level);
    }
}

void certificate_check(const struct config *cfg, struct diags *d) {
    certificate_check_one(cfg, &cfg->p, "", d);
    for (size_t i = 0; i < cfg->n_services; i++)
        if (cfg->services[i]->kind == SERVICE_SMTPD && has_own_tls(&cfg->services[i]->p, &cfg->p))
            certificate_check_one(cfg, &cfg->services[i]->p, cfg->services[i]->name, d);
    for (size_t i = 0; i < cfg->n_services; i++)
        certificate_check_missing(cfg, cfg->services[i], d);
}
