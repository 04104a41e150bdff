/*
 * receive/certificate.c - the server's TLS context; see certificate.h
 */
#include "receive/certificate.h"

#include <stdlib.h>
#include <string.h>

#include "util/mem.h"
#include "util/tls.h"

enum server_tls server_tls_level(const struct params *p) {
    const char *word = p->smtpd_tls_security_level;
    if (strcmp(word, "encrypt") == 0)
        return SERVER_TLS_MUST;
    return strcmp(word, "may") == 0 ? SERVER_TLS_MAY : SERVER_TLS_NONE;
}

/* The file that holds the certificate, or NULL. */
static const char *certificate_file(const struct params *p) {
    const char *file =
        p->smtpd_tls_chain_files[0] != '\0' ? p->smtpd_tls_chain_files : p->smtpd_tls_cert_file;
    return file[0] == '\0' || strcmp(file, "none") == 0 ? NULL : file;
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
        *why = cannot_load(file, err < 0 ? strerror(-err) : "the file is empty");
    return pem;
}

SSL_CTX *certificate_load(const struct config *cfg, char **why) {
    const struct params *p = &cfg->p;
    const char *file = certificate_file(p);
    bool must = server_tls_level(p) == SERVER_TLS_MUST;
    bool chain = p->smtpd_tls_chain_files[0] != '\0';
    struct tls_conf c = {.server = true,
                         .protocols =
                             must ? p->smtpd_tls_mandatory_protocols : p->smtpd_tls_protocols,
                         .grade = "medium"};
    *why = NULL;
    if (file == NULL)
        return NULL;
    c.cert = read_pem(cfg, file, why);
    c.key = *why != NULL || chain ? c.cert : read_pem(cfg, p->smtpd_tls_key_file, why);
    if (*why != NULL)
        return NULL;
    char *reason = NULL;
    SSL_CTX *ctx = tls_context(&c, &reason);
    if (ctx == NULL)
        *why = cannot_load(file, reason);
    free(reason);
    return ctx;
}

void certificate_check(const struct config *cfg, struct diags *d) {
    char *why;
    SSL_CTX *ctx = certificate_load(cfg, &why);
    const char *name =
        cfg->p.smtpd_tls_chain_files[0] != '\0' ? "smtpd_tls_chain_files" : "smtpd_tls_cert_file";
    const struct cfg_entry *e = cfg_file_find(&cfg->main, str_of(name));
    if (why != NULL)
        diag_add(d, DIAG_WARN, cfg->main.path, e == NULL ? 0 : e->line,
                 "%s; STARTTLS is not offered, and services with smtpd_tls_wrappermode are not "
                 "served",
                 why);
    free(why);
    SSL_CTX_free(ctx);
}
