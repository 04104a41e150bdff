/*
 * tests/wire/tls.c - TLS of the peers, and OpenSSL kept repeatable
 *
 * One key and certificate for the process, EC P-256; the peers speak through memory BIOs.  OpenSSL
 * allocates in the process's heap and draws its chance from the scenario.  SSL objects that the
 * product's life leaves behind are found by a list of all that live.
 */
#include "world.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "util/tls.h"

#define LIVING_MAX 65536

struct tls_end {
    SSL *ssl;
    BIO *from_product, *to_product;
    bool server, up, failed;
    struct sbuf early; /* to be sent when the handshake is over */
};

/* SSL and SSL_CTX objects made in the world's or the product's time. */
struct living {
    void *obj;
    bool is_ctx;
    enum heap_side side;
};

static struct living living[LIVING_MAX] WIRE_KEEP;
static size_t n_living WIRE_KEEP;
static SSL_CTX *ctx_server WIRE_KEEP, *ctx_client WIRE_KEEP;
static char *cert_pem WIRE_KEEP, *key_pem WIRE_KEEP;
static bool recording WIRE_KEEP;

static enum heap_side whose(void) {
    enum heap_side side = heap_switch(HEAP_PROCESS);
    heap_switch(side);
    return side;
}

static void on_new(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl, void *argp) {
    (void)ptr;
    (void)ad;
    (void)idx;
    (void)argp;
    if (!recording || whose() == HEAP_PROCESS)
        return;
    if (n_living == LIVING_MAX)
        abort();
    living[n_living++] = (struct living){parent, argl == 1, whose()};
}

static void on_free(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl, void *argp) {
    (void)ptr;
    (void)ad;
    (void)idx;
    (void)argl;
    (void)argp;
    for (size_t i = n_living; i-- > 0;) /* the objects that stay come first */
        if (living[i].obj == parent) {
            living[i] = living[--n_living];
            return;
        }
}

static void living_free(enum heap_side side) {
    for (int ctx = 0; ctx < 2; ctx++)
        for (size_t i = n_living; i-- > 0;) {
            struct living l = i < n_living ? living[i] : (struct living){0};
            if (l.obj == NULL || l.side != side || l.is_ctx != (ctx == 1))
                continue;
            if (l.is_ctx)
                SSL_CTX_free(l.obj);
            else
                SSL_free(l.obj);
        }
    ERR_clear_error();
}

void tls_drop(void) {
    enum heap_side side = heap_switch(HEAP_PRODUCT);
    living_free(HEAP_PRODUCT);
    heap_switch(side);
}

/* ---- repeatable chance ---- */

static int rand_bytes(unsigned char *p, int n) {
    static struct wire_rng alone WIRE_KEEP = {4711};
    struct wire_rng *r = W == NULL ? &alone : &W->keys;
    for (int i = 0; i < n; i++)
        p[i] = (unsigned char)wire_rnd(r, 256);
    return 1;
}

static int rand_status(void) {
    return 1;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
static void rand_ours(void) {
    static const RAND_METHOD method = {
        .bytes = rand_bytes, .pseudorand = rand_bytes, .status = rand_status};
    RAND_set_rand_method(&method);
}
#pragma GCC diagnostic pop

/* ---- key and certificate ---- */

static char *bio_text(BIO *b) {
    char *p;
    long n = BIO_get_mem_data(b, &p);
    char *text = malloc((size_t)n + 1);
    memcpy(text, p, (size_t)n);
    text[n] = '\0';
    BIO_free(b);
    return text;
}

static void extension(X509 *x, int nid, const char *value) {
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
}

static X509 *cert_make(EVP_PKEY *key) {
    X509 *x = X509_new();
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    ASN1_TIME_set_string_X509(X509_getm_notBefore(x), "20200101000000Z");
    ASN1_TIME_set_string_X509(X509_getm_notAfter(x), "20990101000000Z");
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)"wire.test", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    extension(x, NID_basic_constraints, "CA:TRUE");
    extension(x, NID_subject_alt_name, "DNS:wire.test, DNS:*.test, DNS:*.relay.test");
    X509_sign(x, key, EVP_sha256());
    return x;
}

static void contexts_make(EVP_PKEY *key, X509 *x) {
    ctx_server = SSL_CTX_new(TLS_server_method());
    ctx_client = SSL_CTX_new(TLS_client_method());
    SSL_CTX_use_certificate(ctx_server, x);
    SSL_CTX_use_PrivateKey(ctx_server, key);
    SSL_CTX_set_session_cache_mode(ctx_server, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx_server, 0);
}

void tls_process_init(void) {
    CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL, 0, NULL, on_new, NULL, on_free);
    CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL_CTX, 1, NULL, on_new, NULL, on_free);
    rand_ours(); /* the same key in every process */
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = cert_make(key);
    BIO *b = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(b, x);
    cert_pem = bio_text(b);
    b = BIO_new(BIO_s_mem());
    PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL);
    key_pem = bio_text(b);
    contexts_make(key, x);
    X509_free(x);
    EVP_PKEY_free(key);
    recording = true;
}

const char *tls_cert_pem(void) {
    return cert_pem;
}

const char *tls_key_pem(void) {
    return key_pem;
}

/* ---- a peer's end ---- */

struct tls_end *tls_end_new(bool server) {
    struct tls_end *t = calloc(1, sizeof *t);
    t->server = server;
    t->ssl = SSL_new(server ? ctx_server : ctx_client);
    t->from_product = BIO_new(BIO_s_mem());
    t->to_product = BIO_new(BIO_s_mem());
    SSL_set_bio(t->ssl, t->from_product, t->to_product);
    return t;
}

bool tls_end_is_up(const struct tls_end *t) {
    return t->up;
}

static void drain(struct tls_end *t, struct sbuf *wire) {
    char buf[4096];
    int n;
    while ((n = BIO_read(t->to_product, buf, sizeof buf)) > 0)
        sbuf_add(wire, buf, (size_t)n);
}

static bool wants_more(const SSL *ssl, int rc) {
    int e = SSL_get_error(ssl, rc);
    return e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE;
}

static void shake(struct tls_end *t, int *up) {
    int rc = t->server ? SSL_accept(t->ssl) : SSL_connect(t->ssl);
    if (rc == 1) {
        t->up = true;
        *up = 1;
        if (t->early.n > 0)
            SSL_write(t->ssl, t->early.p, (int)t->early.n);
    } else if (!wants_more(t->ssl, rc)) {
        t->failed = true;
        *up = -1;
    }
}

void tls_end_input(struct tls_end *t, const char *p, size_t n, struct sbuf *plain,
                   struct sbuf *wire, int *up, bool *eof) {
    char buf[4096];
    int k;
    *up = 0;
    *eof = false;
    if (n > 0)
        BIO_write(t->from_product, p, (int)n);
    if (!t->up && !t->failed)
        shake(t, up);
    while (t->up && (k = SSL_read(t->ssl, buf, sizeof buf)) > 0)
        sbuf_add(plain, buf, (size_t)k);
    *eof = t->up && (SSL_get_shutdown(t->ssl) & SSL_RECEIVED_SHUTDOWN) != 0;
    drain(t, wire);
    ERR_clear_error();
}

void tls_end_send(struct tls_end *t, const void *p, size_t n, struct sbuf *wire) {
    if (t->failed || n == 0)
        return;
    if (!t->up) {
        sbuf_add(&t->early, p, n);
        return;
    }
    SSL_write(t->ssl, p, (int)n);
    drain(t, wire);
    ERR_clear_error();
}

void tls_end_close(struct tls_end *t, struct sbuf *wire) {
    if (t->up)
        SSL_shutdown(t->ssl);
    drain(t, wire);
    ERR_clear_error();
}

/* ---- the product's contexts: read once for each text, because reading takes longer than the rest
 * of a scenario ---- */

#define CONTEXTS_MAX 64

struct known_context {
    bool server;
    uint64_t texts; /* hash of certificate, key, anchors, protocols, ciphers, chains */
    SSL_CTX *ctx;
};
static struct known_context contexts[CONTEXTS_MAX] WIRE_KEEP;
static size_t n_contexts WIRE_KEEP;

SSL_CTX *__real_tls_context(const struct tls_conf *c, char **why);
SSL_CTX *__wrap_tls_context(const struct tls_conf *c, char **why);

static uint64_t texts_hash(const struct tls_conf *c) {
    struct str texts[] = {c->cert,  c->key, c->ca, str_of(c->protocols), str_of(c->ciphers),
                          c->chains};
    uint64_t h = 1;
    for (size_t i = 0; i < 6; i++)
        h = h * 0x9e3779b97f4a7c15ULL + str_hash(texts[i]);
    return h;
}

SSL_CTX *__wrap_tls_context(const struct tls_conf *c, char **why) {
    uint64_t h = texts_hash(c);
    SSL_CTX *ctx = NULL;
    for (size_t i = 0; i < n_contexts && ctx == NULL; i++)
        if (contexts[i].texts == h && contexts[i].server == c->server)
            ctx = contexts[i].ctx;
    if (ctx == NULL) {
        enum heap_side side = heap_switch(HEAP_PROCESS);
        ctx = n_contexts < CONTEXTS_MAX ? __real_tls_context(c, why) : NULL;
        heap_switch(side);
        if (ctx == NULL) /* the product frees what it is told */
            return __real_tls_context(c, why);
        contexts[n_contexts++] = (struct known_context){c->server, h, ctx};
    }
    SSL_CTX_up_ref(ctx);
    return ctx;
}

void tls_scenario_end(void) {
    living_free(HEAP_WORLD);
    living_free(HEAP_PRODUCT);
    for (size_t i = 0; i < n_contexts; i++)
        SSL_CTX_flush_sessions(contexts[i].ctx, 0);
}
