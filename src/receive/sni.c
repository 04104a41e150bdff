/*
 * receive/sni.c - the certificate for the name that a client asks for; see sni.h
 *
 * The key and the chain of a row are read from its PEM text in each handshake that asks for it, as
 * Postfix does: contexts for thousands of names would cost more than that.
 */
#include "receive/sni.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "receive/session.h"
#include "util/codec.h"
#include "util/htab.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/tls.h"

#define SNI_MAPS "tls_server_sni_maps"

struct sni_row {
    char *key;
    struct str table; /* its spec, a view into sni_rows.text */
    struct sbuf pem;
    char *why; /* it cannot be read; NULL: it can */
};

struct sni_rows {
    struct htab by_key;
    struct str table; /* that is being read */
    char *end;        /* a table cannot be asked, and this is why; NULL: all can */
};

static void sni_rows_free(struct sni_rows *rows) {
    size_t pos = 0;
    struct sni_row *row;
    while ((row = htab_next(&rows->by_key, &pos)) != NULL) {
        if (row->pem.p != NULL)
            mem_wipe(row->pem.p, row->pem.n);
        sbuf_free(&row->pem);
        free(row->key);
        free(row->why);
        free(row);
    }
    htab_free(&rows->by_key);
    free(rows->end);
    free(rows);
}

static void sni_row_bad(struct sni_row *row, const char *file, const char *text) {
    struct sbuf why = {0};
    sbuf_printf(&why, "%s%s%s", file, file[0] == '\0' ? "" : ": ", text);
    free(row->why);
    row->why = sbuf_take(&why);
}

static void sni_row_files(struct sni_row *row, const struct config *cfg, struct str files) {
    struct str one;
    while (str_split(&files, ", \t\r\n", &one)) {
        int err = 0;
        char *file = str_dup(one);
        struct str pem = config_file(cfg, file, &err);
        if (err < 0)
            sni_row_bad(row, file, cfg_source_why(err));
        sbuf_add_str(&row->pem, pem);
        sbuf_add_ch(&row->pem, '\n');
        free(file);
    }
}

/* The first row of a key counts. */
static void sni_row_add(struct sni_rows *rows, const struct config *cfg, enum config_row kind,
                        struct str key, struct str value) {
    if (htab_get(&rows->by_key, key) != NULL)
        return;
    struct sni_row *row = MEM_NEW(struct sni_row);
    row->key = str_dup(key);
    row->table = rows->table;
    htab_put(&rows->by_key, str_of(row->key), row);
    if (kind == CONFIG_ROW_FILES)
        sni_row_files(row, cfg, value);
    else if (!base64_decode(&row->pem, value))
        sni_row_bad(row, "", "its value is not base64: postmap -F makes such a table");
}

/* What certrows_read has noted; the tables' specs are views into cfg. */
static struct sni_rows *sni_rows_load(const struct config *cfg, const struct params *p) {
    struct sni_rows *rows = MEM_NEW(struct sni_rows);
    struct ipc_reader r = {config_rows(cfg, SNI_MAPS, p->tls_server_sni_maps), false};
    while (r.rest.n > 0 && !r.bad && rows->end == NULL) {
        enum config_row kind = (enum config_row)ipc_get_u32(&r);
        struct str key = ipc_get_str(&r), value = ipc_get_str(&r);
        if (kind == CONFIG_ROW_TABLE)
            rows->table = key;
        else if (kind == CONFIG_ROW_END)
            rows->end = str_dup(value);
        else
            sni_row_add(rows, cfg, kind, key, value);
    }
    return rows;
}

/* The row for a name in lower case: its own, or that of the nearest domain above (".domain"). */
static struct sni_row *sni_row_of(const struct sni_rows *rows, struct str name) {
    struct sni_row *row = htab_get(&rows->by_key, name);
    while (row == NULL && rows->end == NULL) {
        ptrdiff_t dot = str_chr(str_from(name, 1), '.');
        if (dot < 0)
            break;
        name = str_from(name, (size_t)dot + 1);
        row = htab_get(&rows->by_key, name);
    }
    return row;
}

/* NULL: ssl shows the row's chain now. */
static const char *sni_row_show(const struct sni_row *row, SSL *ssl) {
    if (row->why != NULL)
        return row->why;
    return tls_show_chains(ssl, sbuf_str(&row->pem))
               ? NULL
               : "it is not a private key with its certificate and chain behind it";
}

/* -- a handshake -- */

static int rows_at = -1; /* of a context's extra data */
static pthread_once_t rows_once = PTHREAD_ONCE_INIT;

static void context_rows_free(void *ctx, void *rows, CRYPTO_EX_DATA *ad, int at, long argl,
                              void *argp) {
    (void)ctx, (void)ad, (void)at, (void)argl, (void)argp;
    if (rows != NULL)
        sni_rows_free(rows);
}

static void context_rows_begin(void) {
    rows_at = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, context_rows_free);
}

static int sni_refuse(int *alert) {
    *alert = SSL_AD_INTERNAL_ERROR;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static int sni_answer(SSL *ssl, const struct session *s, const struct sni_rows *rows,
                      struct str name, int *alert) {
    struct sbuf from = {0};
    const struct sni_row *row = sni_row_of(rows, name);
    const char *why = row == NULL ? rows->end : sni_row_show(row, ssl);
    client_text(&s->client, &from);
    if (why != NULL)
        log_as(s->svc->log_name, "smtpd",
               "warning: TLS SNI %.*s from %s: " SNI_MAPS "%s%s%s: %s: the handshake is refused",
               STR_FMT(name), from.p, row == NULL ? "" : ": the row of \"",
               row == NULL ? "" : row->key, row == NULL ? "" : "\"", why);
    else if (row == NULL)
        log_as(s->svc->log_name, "smtpd", "TLS SNI %.*s from %s not matched, using default chain",
               STR_FMT(name), from.p);
    sbuf_free(&from);
    return why != NULL ? sni_refuse(alert) : row == NULL ? SSL_TLSEXT_ERR_NOACK : SSL_TLSEXT_ERR_OK;
}

/* OpenSSL has read the client's first message. */
static int on_server_name(SSL *ssl, int *alert, void *arg) {
    const char *asked = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    const struct session *s = SSL_get_app_data(ssl);
    struct sbuf from = {0};
    if (asked == NULL || asked[0] == '\0')
        return SSL_TLSEXT_ERR_NOACK;
    if (!addr_is_dns_name(str_of(asked))) {
        log_as(s->svc->log_name, "smtpd", "warning: TLS SNI from %s is invalid: %s",
               client_text(&s->client, &from), asked);
        sbuf_free(&from);
        return SSL_TLSEXT_ERR_NOACK;
    }
    char *name = mem_strdup(asked);
    str_lower(name, strlen(name));
    int rc = sni_answer(ssl, s, arg, str_of(name), alert);
    free(name);
    return rc;
}

void sni_use(SSL_CTX *ctx, const struct config *cfg, const struct params *p) {
    if (p->tls_server_sni_maps[0] == '\0')
        return;
    pthread_once(&rows_once, context_rows_begin);
    struct sni_rows *rows = sni_rows_load(cfg, p);
    SSL_CTX_set_ex_data(ctx, rows_at, rows);
    SSL_CTX_set_tlsext_servername_callback(ctx, on_server_name);
    SSL_CTX_set_tlsext_servername_arg(ctx, rows);
}

bool sni_matched(SSL *ssl) {
    const char *asked = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    const struct sni_rows *rows =
        rows_at < 0 ? NULL : SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), rows_at);
    if (rows == NULL || asked == NULL)
        return false;
    char *name = mem_strdup(asked);
    str_lower(name, strlen(name));
    bool matched = sni_row_of(rows, str_of(name)) != NULL;
    free(name);
    return matched;
}

/* -- before one -- */

/* What is wrong with a row is said to fn, until it returns false. */
static void sni_each_broken(const struct config *cfg, const struct params *p,
                            bool (*fn)(void *arg, struct str table, const char *key,
                                       const char *why),
                            void *arg) {
    struct sni_rows *rows = sni_rows_load(cfg, p);
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    struct sni_row *row;
    size_t pos = 0;
    bool more = rows->end == NULL || fn(arg, rows->table, "", rows->end);
    SSL_CTX_set_security_level(ctx, 0);
    while (more && (row = htab_next(&rows->by_key, &pos)) != NULL) {
        SSL *ssl = SSL_new(ctx);
        const char *why = sni_row_show(row, ssl);
        more = why == NULL || fn(arg, row->table, row->key, why);
        SSL_free(ssl);
    }
    SSL_CTX_free(ctx);
    sni_rows_free(rows);
}

static void sni_text(struct sbuf *out, struct str table, const char *key, const char *why) {
    sbuf_printf(out, SNI_MAPS ": %.*s: ", STR_FMT(table));
    if (key[0] != '\0') {
        sbuf_add_c(out, "the row of \"");
        sbuf_add_safe(out, str_of(key));
        sbuf_add_c(out, "\": ");
    }
    sbuf_add_c(out, why);
}

static bool sni_first(void *arg, struct str table, const char *key, const char *why) {
    sni_text(arg, table, key, why);
    return false;
}

char *sni_broken(const struct config *cfg, const struct params *p) {
    struct sbuf text = {0};
    if (p->tls_server_sni_maps[0] != '\0')
        sni_each_broken(cfg, p, sni_first, &text);
    return text.n == 0 ? NULL : sbuf_take(&text);
}

struct sni_audit {
    const struct config *cfg;
    const char *svc_name; /* "": of main.cf */
    enum diag_level level;
    int days;
    struct diags *d;
};

static bool sni_say(void *arg, struct str table, const char *key, const char *why) {
    struct sni_audit *a = arg;
    const struct cfg_entry *e = cfg_file_find(&a->cfg->main, STR_LIT(SNI_MAPS));
    struct sbuf text = {0};
    sni_text(&text, table, key, why);
    diag_add(a->d, a->level, a->cfg->main.path, e == NULL ? 0 : e->line, "%s%s%s", a->svc_name,
             a->svc_name[0] == '\0' ? "" : ": ", text.p);
    sbuf_free(&text);
    return true;
}

/* Calls fn for main.cf and for each service with other tables. */
static void sni_each_list(struct sni_audit *a,
                          void (*fn)(struct sni_audit *a, const struct params *p)) {
    const struct config *cfg = a->cfg;
    if (cfg->p.tls_server_sni_maps[0] != '\0')
        fn(a, &cfg->p);
    for (size_t i = 0; i < cfg->n_services; i++) {
        const struct service *svc = cfg->services[i];
        const char *maps = svc->p.tls_server_sni_maps;
        a->svc_name = svc->name;
        if (svc->kind == SERVICE_SMTPD && maps[0] != '\0' &&
            strcmp(maps, cfg->p.tls_server_sni_maps) != 0)
            fn(a, &svc->p);
    }
}

static void sni_check_list(struct sni_audit *a, const struct params *p) {
    sni_each_broken(a->cfg, p, sni_say, a);
}

void sni_check(const struct config *cfg, enum diag_level broken, struct diags *d) {
    struct sni_audit a = {.cfg = cfg, .svc_name = "", .level = broken, .d = d};
    sni_each_list(&a, sni_check_list);
}

static bool sni_is_for(X509 *cert, const char *key) {
    struct sbuf name = {0};
    sbuf_printf(&name, "%s%s", key[0] == '.' ? "any" : "", key);
    bool is = X509_check_host(cert, name.p, name.n, 0, NULL) == 1;
    sbuf_free(&name);
    return is;
}

static void sni_check_date(struct sni_audit *a, const struct sni_row *row, X509 *cert) {
    struct sbuf text = {0};
    bool over;
    if (tls_cert_ends(cert, a->days, &over, &text))
        sni_say(a, row->table, row->key, text.p);
    if (!sni_is_for(cert, row->key))
        sni_say(a, row->table, row->key, "the certificate is for another name");
    sbuf_free(&text);
}

static void sni_check_list_dates(struct sni_audit *a, const struct params *p) {
    struct sni_rows *rows = sni_rows_load(a->cfg, p);
    struct sni_row *row;
    size_t pos = 0;
    while ((row = htab_next(&rows->by_key, &pos)) != NULL) {
        BIO *bio = BIO_new_mem_buf(row->pem.n == 0 ? "" : row->pem.p, (int)row->pem.n);
        X509 *cert = PEM_read_bio_X509(bio, NULL, tls_no_password, NULL);
        if (cert != NULL)
            sni_check_date(a, row, cert);
        X509_free(cert);
        BIO_free(bio);
    }
    sni_rows_free(rows);
}

void sni_check_dates(const struct config *cfg, int days, struct diags *d) {
    struct sni_audit a = {.cfg = cfg, .svc_name = "", .level = DIAG_WARN, .days = days, .d = d};
    sni_each_list(&a, sni_check_list_dates);
}
