/* Certificates: which one the server shows, what it makes of a client's, and what check says. */
#include "receive_rig.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "receive/sni.h"

#define DAY 86400

/* Who a certificate is for, and until when; its issuer is itself. */
struct who {
    struct str name; /* its common name; empty: it has none */
    const char *organisation;
    long lasts_s; /* 0: thirty days */
};

static X509 *cert_of(const struct who *who, EVP_PKEY *key) {
    X509 *cert = X509_new();
    X509_NAME *name = X509_get_subject_name(cert);
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -2 * DAY);
    X509_gmtime_adj(X509_getm_notAfter(cert), who->lasts_s == 0 ? 30 * DAY : who->lasts_s);
    if (who->name.n > 0)
        X509_NAME_add_entry_by_NID(name, NID_commonName, V_ASN1_UTF8STRING,
                                   (const unsigned char *)who->name.p, (int)who->name.n, -1, 0);
    if (who->organisation != NULL)
        X509_NAME_add_entry_by_NID(name, NID_organizationName, V_ASN1_UTF8STRING,
                                   (const unsigned char *)who->organisation, -1, -1, 0);
    X509_set_issuer_name(cert, name);
    X509_set_pubkey(cert, key);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    return cert;
}

/* A key with its certificate behind it. */
static void pem_make(const struct who *who, struct sbuf *pem) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = cert_of(who, key);
    BIO *bio = BIO_new(BIO_s_mem());
    char *text;
    assert_int_equal(PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(PEM_write_bio_X509(bio, cert), 1);
    long n = BIO_get_mem_data(bio, &text);
    sbuf_add(pem, text, (size_t)n);
    BIO_free(bio);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void pem_put(const char *file, const char *name) {
    struct sbuf pem = {0};
    pem_make(&(struct who){.name = str_of(name)}, &pem);
    file_put(file, sbuf_str(&pem));
    sbuf_free(&pem);
}

/* The files that every test may name. */
static int files_make(void **state) {
    if (dir_make(state) != 0)
        return 1;
    pem_put("own.pem", "own.example");
    pem_put("b.pem", "b.example");
    file_put("empty.pem", STR_NONE);
    return 0;
}

/* -- handshakes in memory -- */

static void client_shows(SSL *ssl, struct str pem) {
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    assert_int_equal(SSL_use_certificate(ssl, cert), 1);
    assert_int_equal(SSL_use_PrivateKey(ssl, key), 1);
    X509_free(cert);
    EVP_PKEY_free(key);
    BIO_free(bio);
}

/* The name of the certificate that the client is shown. */
static void shown_name(SSL *client, char name[64]) {
    X509 *cert = SSL_get0_peer_certificate(client);
    assert_non_null(cert);
    X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, name, 64);
}

/* A client asks for name (NULL: none) and shows the certificate of pem (empty: none).  The server's
 * end of it, which the caller frees; NULL: the handshake failed.  What the client saw is in shown.
 */
static SSL *shake_hands(SSL_CTX *ctx, struct session *s, const char *name, struct str pem,
                        char shown[64]) {
    SSL_CTX *client_ctx = SSL_CTX_new(TLS_client_method());
    SSL *server = SSL_new(ctx), *client = SSL_new(client_ctx);
    BIO *to_client, *to_server;
    int server_rc = 0, client_rc = 0;
    assert_int_equal(BIO_new_bio_pair(&to_client, 1 << 16, &to_server, 1 << 16), 1);
    SSL_set_bio(server, to_client, to_client);
    SSL_set_bio(client, to_server, to_server);
    SSL_set_app_data(server, s);
    SSL_set_accept_state(server);
    SSL_set_connect_state(client);
    if (name != NULL)
        assert_int_equal(SSL_set_tlsext_host_name(client, name), 1);
    if (pem.n > 0)
        client_shows(client, pem);
    for (int i = 0; i < 10 && (server_rc != 1 || client_rc != 1); i++) {
        client_rc = SSL_do_handshake(client);
        server_rc = SSL_do_handshake(server);
    }
    bool good = server_rc == 1 && client_rc == 1;
    if (good)
        shown_name(client, shown);
    SSL_free(client);
    SSL_CTX_free(client_ctx);
    if (good)
        return server;
    SSL_free(server);
    return NULL;
}

static void session_begin(struct session *s, const struct config *cfg) {
    *s = (struct session){.svc = cfg->services[0], .client = {.addr = "192.0.2.1"}};
}

static SSL_CTX *context_of(const struct config *cfg) {
    char *why;
    SSL_CTX *ctx = certificate_load(cfg, &cfg->p, &why);
    assert_null(why);
    assert_non_null(ctx);
    return ctx;
}

/* -- what the server shows -- */

#define MAPS "tls_server_sni_maps"
#define SNI  MAPS " = hash:t\nsmtpd_tls_chain_files = own.pem\n"

static void row_note(struct sbuf *rows, enum config_row kind, const char *key, struct str value) {
    ipc_put_u32(rows, kind);
    ipc_put_str(rows, str_of(key));
    ipc_put_str(rows, value);
}

/* A row with a certificate of its own, for name. */
static void row_note_pem(struct sbuf *rows, const char *key, const char *name, long lasts_s) {
    struct sbuf pem = {0}, coded = {0};
    pem_make(&(struct who){.name = str_of(name), .lasts_s = lasts_s}, &pem);
    base64_encode(&coded, sbuf_str(&pem));
    row_note(rows, CONFIG_ROW_PEM, key, sbuf_str(&coded));
    sbuf_free(&pem);
    sbuf_free(&coded);
}

struct asked_name {
    const char *name;  /* NULL: the client asks for none */
    const char *shown; /* NULL: the handshake fails */
    bool matched;
};

static void names_are_shown(const struct config *cfg, const struct asked_name *rows, size_t n) {
    SSL_CTX *ctx = context_of(cfg);
    struct session s;
    session_begin(&s, cfg);
    for (size_t i = 0; i < n; i++) {
        char shown[64] = "";
        SSL *ssl = shake_hands(ctx, &s, rows[i].name, STR_NONE, shown);
        if ((ssl == NULL) != (rows[i].shown == NULL) ||
            (ssl != NULL && strcmp(shown, rows[i].shown) != 0))
            fail_msg("%s: %s", rows[i].name, ssl == NULL ? "no handshake" : shown);
        if (ssl != NULL)
            assert_int_equal(sni_matched(ssl), rows[i].matched);
        SSL_free(ssl);
    }
    SSL_CTX_free(ctx);
}

/* A name's own row, then that of the nearest domain above; a broken one is no reason to show
 * another, and a name that is none asks for nothing. */
static void test_names_are_shown_their_certificates(void **state) {
    static const struct asked_name names[] = {
        {"A.Example", "a.example", true},
        {"x.far.example", "far.example", true},
        {"y.x.far.example", "far.example", true},
        {"far.example", "own.example", false},
        {"b.example", "b.example", true},
        {"short", "own.example", false},
        {"a..example", "own.example", false},
        {NULL, "own.example", false},
        {"coded.example", NULL, false},
        {"gone.example", NULL, false},
        {"half.example", NULL, false},
        {"empty.example", NULL, false},
    };
    struct sbuf rows = {0};
    struct config *cfg = configure(SNI);
    (void)state;
    row_note(&rows, CONFIG_ROW_TABLE, "hash:t", STR_NONE);
    row_note_pem(&rows, "a.example", "a.example", 0);
    row_note_pem(&rows, "a.example", "second.example", 0);
    row_note_pem(&rows, ".far.example", "far.example", 0);
    row_note(&rows, CONFIG_ROW_FILES, "b.example", STR_LIT("b.pem"));
    row_note(&rows, CONFIG_ROW_FILES, "gone.example", STR_LIT("gone.pem"));
    row_note(&rows, CONFIG_ROW_FILES, "half.example", STR_LIT("b.pem, gone.pem gone2.pem"));
    row_note(&rows, CONFIG_ROW_FILES, "empty.example", STR_NONE);
    row_note(&rows, CONFIG_ROW_PEM, "coded.example", STR_LIT("no base64"));
    config_rows_keep(cfg, MAPS, "hash:t", &rows);
    names_are_shown(cfg, names, sizeof names / sizeof names[0]);
    config_unref(cfg);
}

/* Rows that came before the table failed count; what might have come after it is refused. */
static void test_a_table_that_ends_early(void **state) {
    static const struct asked_name names[] = {{"a.example", "a.example", true},
                                              {"x.a.example", NULL, false},
                                              {NULL, "own.example", false}};
    struct sbuf rows = {0};
    struct config *cfg = configure(SNI);
    (void)state;
    row_note(&rows, CONFIG_ROW_TABLE, "hash:t", STR_NONE);
    row_note_pem(&rows, "a.example", "a.example", 0);
    row_note_pem(&rows, ".a.example", "above.example", 0);
    row_note(&rows, CONFIG_ROW_END, "", STR_LIT("it fell over"));
    row_note_pem(&rows, "b.example", "b.example", 0);
    config_rows_keep(cfg, MAPS, "hash:t", &rows);
    names_are_shown(cfg, names, sizeof names / sizeof names[0]);
    char *why = sni_broken(cfg, &cfg->p);
    assert_string_equal(why, MAPS ": hash:t: it fell over");
    free(why);
    config_unref(cfg);
    cfg = configure("smtpd_tls_chain_files = own.pem\n");
    assert_null(sni_broken(cfg, &cfg->p));
    names_are_shown(cfg, &(struct asked_name){"a.example", "own.example", false}, 1);
    config_unref(cfg);
}

/* -- what check says -- */

static void test_rows_are_checked(void **state) {
    static const char not_pem[] =
        "it is not a private key with its certificate and chain behind it";
    struct sbuf rows = {0}, more = {0}, good = {0};
    struct diags d = {0};
    char want[600];
    struct config *cfg = configure_services(
        SNI, "25 inet " LINE "\n26 inet " LINE "-o " MAPS "=hash:u\n27 inet " LINE "-o " MAPS
             "=\nrelay unix - - n - - smtp -o " MAPS "=hash:v\n");
    (void)state;
    row_note(&rows, CONFIG_ROW_TABLE, "hash:t", STR_NONE);
    row_note(&rows, CONFIG_ROW_FILES, "empty.example", STR_NONE);
    config_rows_keep(cfg, MAPS, "hash:t", &rows);
    row_note(&more, CONFIG_ROW_TABLE, "hash:u", STR_NONE);
    row_note_pem(&more, "old.example", "old.example", -DAY);
    row_note_pem(&more, "soon.example", "soon.example", 5 * DAY + 600);
    row_note_pem(&more, "other.example", "this.example", 0);
    row_note_pem(&more, ".far.example", "*.far.example", 0);
    row_note(&more, CONFIG_ROW_FILES, "b.example", STR_LIT("b.pem"));
    row_note(&more, CONFIG_ROW_END, "", STR_LIT("it fell over"));
    config_rows_keep(cfg, MAPS, "hash:u", &more);
    sni_check(cfg, DIAG_ERROR, &d);
    snprintf(want, sizeof want,
             "E " MAPS ": hash:t: the row of \"empty.example\": %s\n"
             "E 26: " MAPS ": hash:u: it fell over\n",
             not_pem);
    diags_are(&d, want);
    sni_check_dates(cfg, 20, &d);
    assert_int_equal(d.n, 3);
    for (size_t i = 0; i < d.n; i++) {
        bool old = strstr(d.v[i].text, "\"old.example\": the certificate has expired") != NULL;
        bool soon = strstr(d.v[i].text, "\"soon.example\": the certificate expires in 5 days");
        bool other = strstr(d.v[i].text, "\"other.example\": the certificate is for another name");
        assert_int_equal(old + soon + other, 1);
        assert_int_equal(d.v[i].level, DIAG_WARN);
    }
    diag_free(&d);
    char *why = sni_broken(cfg, &cfg->p);
    snprintf(want, sizeof want, MAPS ": hash:t: the row of \"empty.example\": %s", not_pem);
    assert_string_equal(why, want);
    free(why);
    row_note(&good, CONFIG_ROW_TABLE, "hash:t", STR_NONE);
    row_note(&good, CONFIG_ROW_FILES, "b.example", STR_LIT("b.pem"));
    config_rows_keep(cfg, MAPS, "hash:t", &good);
    assert_null(sni_broken(cfg, &cfg->p));
    config_unref(cfg);
}

#define CANNOT "cannot load the TLS certificate of "
#define CERT   "smtpd_tls_cert_file = own.pem\n"
#define ASKS   CERT "smtpd_tls_ask_ccert = yes\n"

static void test_what_cannot_be_loaded(void **state) {
    static const struct {
        const char *settings, *why; /* why NULL: nothing is wrong */
        bool loads;
    } rows[] = {
        {"", NULL, false},
        {"smtpd_tls_cert_file = none\n", NULL, false},
        {CERT, NULL, true},
        {"smtpd_tls_chain_files = own.pem, b.pem\n", NULL, true},
        {"smtpd_tls_cert_file = gone.pem\n", CANNOT "gone.pem: No such file or directory", false},
        {"smtpd_tls_cert_file = empty.pem\n", CANNOT "empty.pem: the file is empty", false},
        {CERT "smtpd_tls_key_file = empty.pem\n", CANNOT "empty.pem: the file is empty", false},
        {"smtpd_tls_chain_files = own.pem gone.pem empty.pem\n",
         CANNOT "gone.pem: No such file or directory", false},
        {CERT "smtpd_tls_ciphers = strong\n",
         "smtpd_tls_ciphers or its exclusions: there is no \"strong\"", false},
        {CERT "smtpd_tls_mandatory_ciphers = strong\n", NULL, true},
        {CERT "smtpd_tls_security_level = encrypt\nsmtpd_tls_mandatory_exclude_ciphers = !x\n",
         "smtpd_tls_mandatory_ciphers or its exclusions: there is no \"!x\"", false},
        {CERT "smtpd_tls_CAfile = gone.pem\n", NULL, true},
        {ASKS, NULL, true},
        {ASKS "smtpd_tls_CAfile = b.pem\n", NULL, true},
        {ASKS "smtpd_tls_CAfile = gone.pem\n",
         "cannot load smtpd_tls_CAfile = gone.pem: No such file or directory", false},
        {ASKS "smtpd_tls_CAfile = empty.pem\n",
         "cannot load smtpd_tls_CAfile = empty.pem: it has no certificate", false},
        {ASKS "smtpd_tls_CApath = gone\n",
         "cannot load smtpd_tls_CApath = gone: No such file or directory", false},
        {ASKS "smtpd_tls_CApath = .\n", "cannot load smtpd_tls_CApath = .: it has no certificate",
         false},
        {ASKS "smtpd_tls_CAfile = empty.pem\nsmtpd_tls_CApath = gone\n",
         "cannot load smtpd_tls_CAfile = empty.pem: it has no certificate", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *why;
        struct config *cfg = configure(rows[i].settings);
        SSL_CTX *ctx = certificate_load(cfg, &cfg->p, &why);
        bool same = (why == NULL) == (rows[i].why == NULL) && (ctx != NULL) == rows[i].loads;
        if (!same || (why != NULL && strcmp(why, rows[i].why) != 0))
            fail_msg("%s: %s", rows[i].settings, why == NULL ? "nothing is wrong" : why);
        free(why);
        SSL_CTX_free(ctx);
        config_unref(cfg);
    }
}

static void test_certificates_are_checked(void **state) {
    static const struct {
        const char *main, *master, *want;
    } rows[] = {
        {CERT, "25 inet " LINE "\n", ""},
        {"smtpd_tls_cert_file = gone.pem\n", "25 inet " LINE "\n",
         "W " CANNOT "gone.pem: No such file or directory\n"},
        {"smtpd_tls_cert_file = gone.pem\nsmtpd_tls_security_level = may\n", "25 inet " LINE "\n",
         "E " CANNOT "gone.pem: No such file or directory\n"},
        {"smtpd_tls_chain_files = empty.pem\n",
         "25 inet " LINE "\n26 inet " LINE "-o smtpd_tls_wrappermode=yes\n",
         "E " CANNOT "empty.pem: the file is empty\n"},
        {"smtpd_tls_chain_files = empty.pem\n",
         "25 inet " LINE "\n26 inet " LINE
         "-o smtpd_tls_wrappermode=yes -o smtpd_tls_chain_files=own.pem\n",
         "W " CANNOT "empty.pem: the file is empty\n"},
        {CERT "smtpd_tls_security_level = may\n",
         "25 inet " LINE "\n26 inet " LINE "-o smtpd_tls_key_file=empty.pem\n"
         "27 inet " LINE "-o smtpd_tls_key_file=empty.pem -o smtpd_tls_security_level=none\n",
         "E 26: " CANNOT "empty.pem: the file is empty\n"
         "E 27: " CANNOT "empty.pem: the file is empty\n"},
        {CERT, "25 inet " LINE "-o smtpd_tls_security_level=Verify\n",
         "W 25: unsupported TLS level \"Verify\", using \"encrypt\"\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct diags d = {0};
        struct config *cfg = configure_services(rows[i].main, rows[i].master);
        certificate_check(cfg, &d);
        diags_are(&d, rows[i].want);
        config_unref(cfg);
    }
}

/* Each setting that a service has for itself gives it a context of its own; what cannot be loaded
 * leaves it what it had. */
static void test_services_have_their_own(void **state) {
    static const char *const own[] = {"smtpd_tls_cert_file=b.pem",
                                      "smtpd_tls_security_level=encrypt",
                                      "smtpd_tls_ask_ccert=yes",
                                      "smtpd_tls_protocols=TLSv1.2",
                                      "smtpd_tls_ccert_verifydepth=1",
                                      "smtpd_tls_exclude_ciphers=aRSA",
                                      "smtpd_tls_mandatory_ciphers=high",
                                      "smtpd_tls_chain_files=b.pem",
                                      "smtpd_tls_mandatory_protocols=TLSv1",
                                      "tls_high_cipherlist=ECDHE",
                                      "tls_medium_cipherlist=ECDHE"};
    static struct certificates kept[sizeof own / sizeof own[0]]; /* they are never freed */
    (void)state;
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        char master[300];
        struct certificates *c = &kept[i];
        snprintf(master, sizeof master, "25 inet " LINE "\n26 inet " LINE "-o %s\n", own[i]);
        struct config *cfg = configure_services(CERT, master);
        certificates_load(c, cfg);
        SSL_CTX *first = certificates_of(c, cfg, cfg->services[0]);
        SSL_CTX *second = certificates_of(c, cfg, cfg->services[1]);
        assert_true(first != NULL && second != NULL && first != second);
        struct config *bad = configure_services("smtpd_tls_cert_file = gone.pem\n",
                                                "25 inet " LINE "\n26 inet " LINE
                                                "-o smtpd_tls_cert_file=empty.pem\n");
        certificates_load(c, bad);
        assert_ptr_equal(certificates_of(c, bad, bad->services[0]), first);
        assert_ptr_equal(certificates_of(c, bad, bad->services[1]), second);
        config_unref(bad);
        struct config *none = configure_services("", "25 inet " LINE "\n26 inet " LINE "\n");
        certificates_load(c, none);
        assert_null(certificates_of(c, none, none->services[0]));
        assert_null(certificates_of(c, none, none->services[1]));
        config_unref(none);
        config_unref(cfg);
    }
}

/* -- what clients show -- */

static void test_names_of_clients(void **state) {
    static const struct {
        struct who who;
        const char *name, *issuer;
    } rows[] = {
        {{.name = {"mx.example", 10}}, "mx.example", "mx.example"},
        {{.organisation = "Post (Berlin"}, "", "Post (Berlin)"},
        {{.name = {"a(b)c)d", 7}}, "a(b)c?d", "a(b)c?d"},
        {{.name = {"((a", 3}}, "((a))", "((a))"},
        {{.name = {"a\\b", 3}}, "a?b", "a?b"},
        {{.name = {"a\r\nX: y", 7}, .organisation = "Org"}, "", "Org"},
        {{.name = {"k\xc3\xb6ln", 5}}, "k??ln", "k??ln"},
        {{.name = {"a.example\0.evil", 15}}, "", ""},
        {{.name = {"a\0b", 3}, .organisation = "Org"}, "", "Org"},
        {{.organisation = NULL}, "", ""},
    };
    struct config *cfg = configure(ASKS "smtpd_tls_fingerprint_digest = sha256\n");
    SSL_CTX *ctx = context_of(cfg);
    struct session s;
    (void)state;
    session_begin(&s, cfg);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sbuf pem = {0};
        char shown[64];
        pem_make(&rows[i].who, &pem);
        SSL *ssl = shake_hands(ctx, &s, NULL, sbuf_str(&pem), shown);
        assert_non_null(ssl);
        struct clientcert *c = clientcert_of(ssl, &cfg->p);
        assert_string_equal(c->name, rows[i].name);
        assert_string_equal(c->issuer, rows[i].issuer);
        assert_true(!c->trusted && c->why != NULL);
        assert_int_equal(strlen(c->print), 32 * 3 - 1);
        assert_true(strlen(c->key_print) == 32 * 3 - 1 && strcmp(c->print, c->key_print) != 0);
        clientcert_free(c);
        SSL_free(ssl);
        sbuf_free(&pem);
    }
    SSL_CTX_free(ctx);
    config_unref(cfg);
}

static void test_which_client_is_trusted(void **state) {
    struct sbuf known = {0}, stranger = {0};
    struct session s;
    char shown[64];
    (void)state;
    pem_make(&(struct who){.name = STR_LIT("known.example")}, &known);
    pem_make(&(struct who){.name = STR_LIT("known.example")}, &stranger);
    file_put("anchors.pem", sbuf_str(&known));
    struct config *cfg =
        configure(ASKS "smtpd_tls_CAfile = anchors.pem\nsmtpd_tls_fingerprint_digest = nonesuch\n");
    SSL_CTX *ctx = context_of(cfg);
    session_begin(&s, cfg);
    for (int i = 0; i < 3; i++) {
        struct str pem = i == 0 ? STR_NONE : sbuf_str(i == 1 ? &known : &stranger);
        SSL *ssl = shake_hands(ctx, &s, NULL, pem, shown);
        assert_non_null(ssl);
        struct clientcert *c = clientcert_of(ssl, &cfg->p);
        assert_int_equal(c != NULL, i > 0);
        assert_int_equal(c != NULL && c->trusted, i == 1);
        if (c != NULL)
            assert_true((c->why == NULL) == c->trusted && c->print == NULL && c->key_print == NULL);
        clientcert_free(c);
        SSL_free(ssl);
    }
    SSL_CTX_free(ctx);
    config_unref(cfg);
    sbuf_free(&known);
    sbuf_free(&stranger);
}

#define IN_VAIN "no client is asked for the certificate that its restrictions look for\n"
#define UNSEEN  "no client can show the certificate that its restrictions look for\n"
#define PUBLIC                                                                                     \
    "W 25: smtpd_tls_CAfile: permit_tls_all_clientcerts permits everybody who has a certificate "  \
    "of some public authority\n"

static void test_settings_for_clients(void **state) {
    static const struct {
        const char *main, *options, *want;
    } rows[] = {
        {"", "", ""},
        {"smtpd_tls_req_ccert = yes\n", "",
         "W 25: smtpd_tls_req_ccert: it counts for nothing unless TLS is required\n"},
        {"smtpd_tls_req_ccert = yes\n", "-o smtpd_tls_wrappermode=yes",
         "W 25: smtpd_tls_req_ccert: no certificate is trusted without smtpd_tls_CAfile: no client "
         "is served\n"},
        {"smtpd_tls_CAfile = b.pem\nsmtpd_tls_security_level = encrypt\n",
         "-o smtpd_tls_req_ccert=yes", ""},
        {"smtpd_tls_CApath = .\nsmtpd_tls_security_level = encrypt\n", "-o smtpd_tls_req_ccert=yes",
         ""},
        {"smtpd_tls_ask_ccert = yes\n", "-o smtpd_tls_fingerprint_digest=crc",
         "W 25: smtpd_tls_fingerprint_digest: there is no such digest: what asks for a fingerprint "
         "is answered 451\n"},
        {"smtpd_tls_ask_ccert = yes\nsmtpd_tls_security_level = may\n"
         "smtpd_tls_CAfile = " CONFIG_SYSTEM_ANCHORS "\n"
         "smtpd_relay_restrictions = permit_tls_all_clientcerts, reject\n",
         "", PUBLIC},
        {"smtpd_tls_ask_ccert = yes\nsmtpd_tls_CApath = /etc/ssl/certs/\n"
         "smtpd_client_restrictions = permit_tls_all_clientcerts, reject\n",
         "-o smtpd_tls_wrappermode=yes", PUBLIC},
        {"smtpd_sender_restrictions = permit_tls_clientcerts\n", "",
         "W 25: smtpd_tls_ask_ccert: " IN_VAIN},
        {"smtpd_data_restrictions = check_ccert_access hash:t\nsmtpd_tls_ask_ccert = yes\n", "",
         "W 25: smtpd_tls_security_level: " UNSEEN},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct diags d = {0};
        char master[300];
        snprintf(master, sizeof master, "25 inet " LINE "%s\nrelay unix - - n - - smtp\n",
                 rows[i].options);
        struct config *cfg = configure_services(rows[i].main, master);
        clientcert_check(cfg, &d);
        diags_are(&d, rows[i].want);
        config_unref(cfg);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_are_shown_their_certificates),
        cmocka_unit_test(test_a_table_that_ends_early),
        cmocka_unit_test(test_rows_are_checked),
        cmocka_unit_test(test_what_cannot_be_loaded),
        cmocka_unit_test(test_certificates_are_checked),
        cmocka_unit_test(test_services_have_their_own),
        cmocka_unit_test(test_names_of_clients),
        cmocka_unit_test(test_which_client_is_trusted),
        cmocka_unit_test(test_settings_for_clients),
    };
    return cmocka_run_group_tests(tests, files_make, dir_remove);
}
