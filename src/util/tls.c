/*
 * util/tls.c - TLS contexts; see tls.h
 */
#include "util/tls.h"

#include <ctype.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <strings.h>

#include "util/clock.h"
#include "util/mem.h"

/* Bytes of all certificates that a client shows, and of its own. */
enum { CLIENT_CERTS_MAX = 32768, CLIENT_CERT_MAX = 8192 };

/* What verifying a client's certificates may cost: names that are compared with constraints, bits
 * of an RSA key's exponent, and of a DSA key. */
enum { NAME_CHECKS_MAX = 10000, EXPONENT_BITS_MAX = 33, DSA_BITS_MAX = 3072 };

/* Bytes of all certificates that a relay host shows together; of the host's own certificate, the
 * bytes of each of its two names and the number of its extensions. */
enum { HOST_CERTS_MAX = 65536, HOST_DN_MAX = 4096, HOST_EXTENSIONS_MAX = 64 };

/* Connections to hosts that no administrator chose, and bytes of all certificates that one may show
 * where there are more. */
enum { STRANGERS_MANY = 500, STRANGER_CERTS_MAX = 16384 };

/* Bits of the Diffie-Hellman group that a relay host may choose with TLS 1.2. */
enum { DH_BITS_MAX = 4096 };

static const struct {
    const char *name;
    int version;
    uint64_t off;
} versions[] = {{"SSLv2", 0, 0},
                {"SSLv3", SSL3_VERSION, SSL_OP_NO_SSLv3},
                {"TLSv1", TLS1_VERSION, SSL_OP_NO_TLSv1},
                {"TLSv1.1", TLS1_1_VERSION, SSL_OP_NO_TLSv1_1},
                {"TLSv1.2", TLS1_2_VERSION, SSL_OP_NO_TLSv1_2},
                {"TLSv1.3", TLS1_3_VERSION, SSL_OP_NO_TLSv1_3}};
#define VERSIONS (sizeof versions / sizeof versions[0])

static int version_index(struct str name) {
    for (size_t i = 0; i < VERSIONS; i++)
        if (str_ieq_c(name, versions[i].name))
            return (int)i;
    return -1;
}

bool tls_protocols_ok(const char *text, struct str *bad) {
    struct str rest = str_of(text);
    while (str_split(&rest, ", \t\r\n:", bad)) {
        bool bound = str_istarts(*bad, ">=") || str_istarts(*bad, "<=");
        if (version_index(str_from(*bad, bound ? 2 : bad->p[0] == '!' ? 1 : 0)) < 0)
            return false;
    }
    return true;
}

bool tls_protocols_left(const char *text) {
    struct str rest = str_of(text), w;
    size_t min = 0, max = VERSIONS - 1, oldest = (size_t)version_index(STR_LIT("TLSv1"));
    uint64_t included = 0, out = 0;
    while (str_split(&rest, ", \t\r\n:", &w)) {
        bool low = str_istarts(w, ">="), high = str_istarts(w, "<="), negated = w.p[0] == '!';
        size_t i = (size_t)version_index(str_from(w, low || high ? 2 : negated ? 1 : 0));
        if (low)
            min = i;
        else if (high)
            max = i;
        else if (negated)
            out |= versions[i].off;
        else
            included |= versions[i].off;
    }
    for (size_t i = min > oldest ? min : oldest; i <= max; i++)
        if ((out & versions[i].off) == 0 && (included == 0 || (included & versions[i].off) != 0))
            return true;
    return false;
}

/* New style ">=TLSv1.2", old style "!SSLv3" and "TLSv1.2, TLSv1.3"; false on an unknown name.  The
 * system's own lower bound counts for nothing. */
static bool set_protocols(SSL_CTX *ctx, const char *text) {
    struct str rest = str_of(text), w;
    uint64_t included = 0, all = 0;
    if (!tls_protocols_ok(text, &w))
        return false;
    SSL_CTX_set_min_proto_version(ctx, 0);
    for (size_t i = 0; i < VERSIONS; i++)
        all |= versions[i].off;
    while (str_split(&rest, ", \t\r\n:", &w)) {
        bool min = str_istarts(w, ">="), max = str_istarts(w, "<="), negated = w.p[0] == '!';
        int i = version_index(str_from(w, min || max ? 2 : negated ? 1 : 0));
        if (min)
            SSL_CTX_set_min_proto_version(ctx, versions[i].version);
        else if (max)
            SSL_CTX_set_max_proto_version(ctx, versions[i].version);
        else if (negated)
            SSL_CTX_set_options(ctx, versions[i].off);
        else
            included |= versions[i].off;
    }
    if (included != 0)
        SSL_CTX_set_options(ctx, all & ~included);
    return true;
}

bool tls_ciphers(struct sbuf *out, const char *grade, const char *high, const char *medium,
                 const char *excluded, struct str *bad) {
    static const char *const as_medium[] = {"medium", "low", "export"};
    struct str rest = str_of(excluded);
    const char *list = strcasecmp(grade, "high") == 0   ? high
                       : strcasecmp(grade, "null") == 0 ? "eNULL:!aNULL"
                                                        : NULL;
    for (size_t i = 0; i < 3; i++)
        if (strcasecmp(grade, as_medium[i]) == 0)
            list = medium;
    *bad = str_of(grade);
    if (list == NULL)
        return false;
    sbuf_add_c(out, list);
    while (str_split(&rest, ", \t\r\n:", bad)) {
        if (strchr("!+-@", bad->p[0]) != NULL)
            return false;
        sbuf_printf(out, ":!%.*s", STR_FMT(*bad));
    }
    return true;
}

static char *tls_reason(const char *what) {
    struct sbuf b = {0};
    unsigned long e = ERR_get_error();
    const char *text = e == 0 ? NULL : ERR_reason_error_string(e);
    sbuf_printf(&b, "%s%s%s", what, text == NULL ? "" : ": ", text == NULL ? "" : text);
    ERR_clear_error();
    return sbuf_take(&b);
}

bool tls_cert_ends(const X509 *cert, int days, bool *over, struct sbuf *what) {
    int left = 0, secs = 0;
    *over = false;
    if (ASN1_TIME_diff(&left, &secs, NULL, X509_get0_notAfter(cert)) != 1)
        return false;
    *over = left < 0 || secs < 0;
    if (*over)
        sbuf_add_c(what, "the certificate has expired");
    else if (left < days)
        sbuf_printf(what, "the certificate expires in %d day%s", left, left == 1 ? "" : "s");
    return *over || left < days;
}

int tls_no_password(char *buf, int size, int writing, void *arg) {
    (void)buf, (void)size, (void)writing, (void)arg;
    return -1;
}

static bool use_chain(SSL_CTX *ctx, struct str pem) {
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509 *x = PEM_read_bio_X509(bio, NULL, tls_no_password, NULL);
    bool ok = x != NULL && SSL_CTX_use_certificate(ctx, x) == 1;
    X509_free(x);
    while (ok && (x = PEM_read_bio_X509(bio, NULL, tls_no_password, NULL)) != NULL)
        ok = SSL_CTX_add0_chain_cert(ctx, x) == 1;
    BIO_free(bio);
    if (ok)
        ERR_clear_error(); /* the end of the file */
    return ok;
}

/* As when the names of key and certificate have changed places. */
static bool has_key_only(struct str pem) {
    static const char key[] = "PRIVATE KEY-----", cert[] = "BEGIN CERTIFICATE";
    return memmem(pem.p, pem.n, key, sizeof key - 1) != NULL &&
           memmem(pem.p, pem.n, cert, sizeof cert - 1) == NULL;
}

static bool is_encrypted(struct str pem) {
    static const char word[] = "ENCRYPTED";
    return memmem(pem.p, pem.n, word, sizeof word - 1) != NULL;
}

static bool use_key(SSL_CTX *ctx, struct str pem) {
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, tls_no_password, NULL);
    bool ok =
        key != NULL && SSL_CTX_use_PrivateKey(ctx, key) == 1 && SSL_CTX_check_private_key(ctx) == 1;
    EVP_PKEY_free(key);
    BIO_free(bio);
    return ok;
}

bool tls_has_certificate(struct str pem) {
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509 *x = bio == NULL ? NULL : PEM_read_bio_X509(bio, NULL, tls_no_password, NULL);
    bool has = x != NULL;
    X509_free(x);
    BIO_free(bio);
    ERR_clear_error();
    return has;
}

static void use_anchors(SSL_CTX *ctx, struct str pem) {
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    for (X509 *x; (x = PEM_read_bio_X509(bio, NULL, tls_no_password, NULL)) != NULL; X509_free(x))
        X509_STORE_add_cert(store, x);
    BIO_free(bio);
    ERR_clear_error();
}

static void name_authorities(SSL_CTX *ctx, struct str pem) {
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    for (X509 *x; (x = PEM_read_bio_X509(bio, NULL, tls_no_password, NULL)) != NULL; X509_free(x))
        SSL_CTX_add_client_CA(ctx, x);
    BIO_free(bio);
    ERR_clear_error();
}

/* The handshake goes on whatever a client shows; SSL_get_verify_result says what it is worth. */
static int on_client_chain(int ok, X509_STORE_CTX *chain) {
    (void)ok, (void)chain;
    return 1;
}

/* The certificate as it came: what OpenSSL reads of its extensions takes many times as much.  NULL:
 * it is larger than may be kept. */
static X509 *certificate_bare(X509 *shown, int max) {
    unsigned char *der = NULL;
    int n = i2d_X509(shown, &der);
    const unsigned char *at = der;
    X509 *bare = n > 0 && n <= max ? d2i_X509(NULL, &at, n) : NULL;
    OPENSSL_free(der);
    return bare;
}

/* The peer's session keeps its own certificate alone, as long as it lasts: of a chain, and of what
 * was read of it, a stranger could make a hundred times its size.  False: nothing may be kept, and
 * the handshake fails. */
static bool keep_own_alone(X509_STORE_CTX *chain, int max) {
    STACK_OF(X509) *shown = X509_STORE_CTX_get0_untrusted(chain);
    X509 *bare = certificate_bare(sk_X509_value(shown, 0), max);
    if (bare == NULL) {
        X509_STORE_CTX_set_error(chain, X509_V_ERR_CERT_REJECTED);
        return false;
    }
    X509_STORE_CTX_set0_verified_chain(chain, NULL);
    X509_STORE_CTX_set_cert(chain, bare);
    while (sk_X509_num(shown) > 0)
        X509_free(sk_X509_pop(shown));
    sk_X509_push(shown, bare);
    return true;
}

/* Does a check of a signature by the certificate's key take milliseconds? */
static bool key_is_costly(X509 *cert) {
    EVP_PKEY *key = X509_get0_pubkey(cert);
    BIGNUM *exponent = NULL;
    int kind = key == NULL ? NID_undef : EVP_PKEY_get_base_id(key);
    if (kind == EVP_PKEY_DSA)
        return EVP_PKEY_get_bits(key) > DSA_BITS_MAX;
    if (kind != EVP_PKEY_RSA && kind != EVP_PKEY_RSA_PSS)
        return false;
    bool costly = EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &exponent) != 1 ||
                  BN_num_bits(exponent) > EXPONENT_BITS_MAX;
    BN_free(exponent);
    return costly;
}

static size_t names_of(X509 *cert) {
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    int n = X509_NAME_entry_count(X509_get_subject_name(cert));
    n += names == NULL ? 0 : sk_GENERAL_NAME_num(names);
    GENERAL_NAMES_free(names);
    return (size_t)n;
}

static size_t constraints_of(X509 *cert) {
    NAME_CONSTRAINTS *c = X509_get_ext_d2i(cert, NID_name_constraints, NULL, NULL);
    int n = 0;
    if (c != NULL && c->permittedSubtrees != NULL)
        n += sk_GENERAL_SUBTREE_num(c->permittedSubtrees);
    if (c != NULL && c->excludedSubtrees != NULL)
        n += sk_GENERAL_SUBTREE_num(c->excludedSubtrees);
    NAME_CONSTRAINTS_free(c);
    return (size_t)n;
}

/* Would to verify the certificates take so long that a few strangers keep the thread from all other
 * connections?  Each name is compared with each constraint, and each signature is checked, before
 * it counts that no anchor vouches for them. */
static bool chain_is_costly(const X509_STORE_CTX *chain) {
    STACK_OF(X509) *shown = X509_STORE_CTX_get0_untrusted(chain);
    size_t names = 0, constraints = 0;
    for (int i = 0; i < sk_X509_num(shown); i++) {
        X509 *cert = sk_X509_value(shown, i);
        names += names_of(cert);
        constraints += constraints_of(cert);
        if (key_is_costly(cert))
            return true;
    }
    return names * constraints > NAME_CHECKS_MAX;
}

/* Verifies what a client has shown. */
static int on_client_certificates(X509_STORE_CTX *chain, void *arg) {
    (void)arg;
    if (!chain_is_costly(chain) && X509_verify_cert(chain) > 0)
        return keep_own_alone(chain, CLIENT_CERT_MAX);
    X509_STORE_CTX_set_error(chain, X509_V_ERR_CERT_REJECTED);
    return 0;
}

/* Is what OpenSSL makes of the certificate, but for what stands in its extensions, not much larger
 * than itself? */
static bool host_certificate_is_plain(const X509 *cert) {
    return i2d_X509_NAME(X509_get_subject_name(cert), NULL) <= HOST_DN_MAX &&
           i2d_X509_NAME(X509_get_issuer_name(cert), NULL) <= HOST_DN_MAX &&
           X509_get_ext_count(cert) <= HOST_EXTENSIONS_MAX;
}

/* Verifies what a relay host has shown.  The handshake goes on whatever that is worth, which
 * SSL_get_verify_result says. */
static int on_host_certificates(X509_STORE_CTX *chain, void *arg) {
    (void)arg;
    if (host_certificate_is_plain(X509_STORE_CTX_get0_cert(chain))) {
        X509_verify_cert(chain);
        return keep_own_alone(chain, HOST_CERTS_MAX);
    }
    X509_STORE_CTX_set_error(chain, X509_V_ERR_CERT_REJECTED);
    return 0;
}

static void bound_hosts(SSL_CTX *ctx) {
    SSL_CTX_set_max_cert_list(ctx, HOST_CERTS_MAX);
    SSL_CTX_set_cert_verify_callback(ctx, on_host_certificates, NULL);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
}

/* -- hosts that no administrator chose -- */

static atomic_size_t strangers;
static int stranger_index; /* of an SSL's own data: it is counted */

static void stranger_gone(void *ssl, void *counted, CRYPTO_EX_DATA *data, int index, long num,
                          void *ptr) {
    (void)ssl, (void)data, (void)index, (void)num, (void)ptr;
    if (counted != NULL)
        atomic_fetch_sub(&strangers, 1);
}

static void stranger_init(void) {
    stranger_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, stranger_gone);
}

void tls_bound_stranger(SSL *ssl) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, stranger_init);
    if (SSL_set_ex_data(ssl, stranger_index, &strangers) != 1)
        return;
    if (atomic_fetch_add(&strangers, 1) >= STRANGERS_MANY)
        SSL_set_max_cert_list(ssl, STRANGER_CERTS_MAX);
}

static void ask_clients(SSL_CTX *ctx, const struct tls_conf *c) {
    if (c->asked.n > 0)
        name_authorities(ctx, c->asked);
    SSL_CTX_set_max_cert_list(ctx, CLIENT_CERTS_MAX);
    SSL_CTX_set_cert_verify_callback(ctx, on_client_certificates, NULL);
    SSL_CTX_set_verify_depth(ctx, c->depth + 1); /* as Postfix */
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_CLIENT_ONCE, on_client_chain);
}

/* What was read of a PEM file's part, or NULL where it is of another kind. */
struct chain_part {
    char *name, *header;
    unsigned char *data;
    long n;
};

static void chain_part_free(struct chain_part *p) {
    OPENSSL_free(p->name);
    OPENSSL_free(p->header);
    OPENSSL_clear_free(p->data, (size_t)p->n);
}

/* Who shows a chain: all connections of a context, or one. */
struct chain_owner {
    SSL_CTX *ctx; /* NULL: ssl */
    SSL *ssl;
};

/* x is the owner's where that goes well. */
static bool chain_add(const struct chain_owner *to, X509 *x) {
    return to->ctx != NULL ? SSL_CTX_add0_chain_cert(to->ctx, x) == 1
                           : SSL_add0_chain_cert(to->ssl, x) == 1;
}

static bool chain_begin(const struct chain_owner *to, X509 *x, EVP_PKEY *key) {
    return to->ctx != NULL ? SSL_CTX_use_cert_and_key(to->ctx, x, key, NULL, 1) == 1
                           : SSL_use_cert_and_key(to->ssl, x, key, NULL, 1) == 1;
}

/* Takes a key, or a certificate behind one: the first is the key's own, the others its chain. */
static bool chain_take(const struct chain_owner *to, const struct chain_part *p, EVP_PKEY **key,
                       bool *own) {
    const unsigned char *at = p->data;
    if (strstr(p->name, "PRIVATE KEY") != NULL) {
        if (*key != NULL && !*own)
            return false; /* the key before has no certificate */
        EVP_PKEY_free(*key);
        *key = d2i_AutoPrivateKey(NULL, &at, p->n);
        *own = false;
        return *key != NULL;
    }
    if (strcmp(p->name, PEM_STRING_X509) != 0)
        return true; /* parameters and the like */
    X509 *x = *key == NULL ? NULL : d2i_X509(NULL, &at, p->n);
    if (x == NULL)
        return false; /* a certificate before any key */
    bool ok = *own ? chain_add(to, x) : chain_begin(to, x, *key);
    if (!*own || !ok)
        X509_free(x);
    *own = true;
    return ok;
}

/* Keys, each with its certificates behind it. */
static bool use_chains(const struct chain_owner *to, struct str pem) {
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    EVP_PKEY *key = NULL;
    struct chain_part p = {0};
    bool own = false, ok = true, any = false;
    while (ok && PEM_read_bio(bio, &p.name, &p.header, &p.data, &p.n) == 1) {
        ok = chain_take(to, &p, &key, &own);
        any = any || own;
        chain_part_free(&p);
        p = (struct chain_part){0};
    }
    ok = ok && any && own; /* a key without a certificate is a mistake */
    if (ok)
        ERR_clear_error(); /* the end of the file */
    EVP_PKEY_free(key);
    BIO_free(bio);
    return ok;
}

bool tls_show_chains(SSL *ssl, struct str pem) {
    struct chain_owner to = {NULL, ssl};
    SSL_certs_clear(ssl);
    bool ok = pem.n > 0 && use_chains(&to, pem);
    if (!ok)
        SSL_certs_clear(ssl);
    ERR_clear_error();
    return ok;
}

/* A finite-field group of TLS 1.3?  A client never needs one: each has the curve P-256 (RFC 8446
 * section 9.1).  Of those that a relay host may choose, the ones that Postfix has too are left. */
static bool group_is_costly(bool server, int nid) {
    return nid == NID_ffdhe4096 || nid == NID_ffdhe6144 || nid == NID_ffdhe8192 ||
           (server && (nid == NID_ffdhe2048 || nid == NID_ffdhe3072));
}

typedef int security_rule(const SSL *, const SSL_CTX *, int, int, int, void *, void *);

/* A key exchange in a large group takes a tenth of a second, or a whole one, of the thread that all
 * other connections wait for; the peer, which chooses it, need not compute anything.  usual is
 * OpenSSL's own rule. */
static int on_security(const SSL *ssl, const SSL_CTX *ctx, int op, int bits, int nid, void *other,
                       void *usual) {
    bool group = ((unsigned)op & SSL_SECOP_OTHER_TYPE) == SSL_SECOP_OTHER_CURVE;
    security_rule *rule;
    if (group && ssl != NULL && group_is_costly(SSL_is_server(ssl) == 1, nid))
        return 0;
    if (op == SSL_SECOP_TMP_DH && other != NULL && EVP_PKEY_get_bits(other) > DH_BITS_MAX)
        return 0;
    memcpy(&rule, &usual, sizeof rule);
    return rule(ssl, ctx, op, bits, nid, other, NULL);
}

static void limit_cost(SSL_CTX *ctx) {
    security_rule *rule = SSL_CTX_get_security_callback(ctx);
    void *usual;
    memcpy(&usual, &rule, sizeof usual);
    SSL_CTX_set0_security_ex_data(ctx, usual);
    SSL_CTX_set_security_callback(ctx, on_security);
}

SSL_CTX *tls_context(const struct tls_conf *c, char **why) {
    SSL_CTX *ctx = SSL_CTX_new(c->server ? TLS_server_method() : TLS_client_method());
    const char *what = NULL;
    if (ctx == NULL) {
        *why = tls_reason("TLS");
        return NULL;
    }
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* One message of TLS's own (a key update, a ticket) a call: a peer that sends them without end
     * would keep SSL_read busy, and the loop with all its other connections waiting. */
    SSL_CTX_clear_mode(ctx, SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF |
                                 SSL_OP_CLEANSE_PLAINTEXT);
    SSL_CTX_set_security_level(ctx, 0); /* as Postfix: the settings say what is good enough */
    limit_cost(ctx);
    if (SSL_CTX_set_cipher_list(ctx, c->ciphers) != 1)
        what = "no cipher is left";
    if (what == NULL && !set_protocols(ctx, c->protocols))
        what = "unknown TLS protocol name";
    if (what == NULL && c->chains.n > 0 &&
        !use_chains(&(struct chain_owner){ctx, NULL}, c->chains) &&
        !(use_chain(ctx, c->chains) && use_key(ctx, c->chains)))
        what = is_encrypted(c->chains)
                   ? "cannot use the keys and their certificates: a password is needed to read them"
                   : "cannot use the keys and their certificates";
    if (what == NULL && c->cert.n > 0 && !use_chain(ctx, c->cert))
        what = has_key_only(c->cert)
                   ? "cannot use the certificate: the file has a private key alone"
                   : "cannot use the certificate";
    if (what == NULL && c->cert.n > 0 && !use_key(ctx, c->key.n > 0 ? c->key : c->cert))
        what = is_encrypted(c->key.n > 0 ? c->key : c->cert)
                   ? "cannot use the private key: a password is needed to read it"
                   : "cannot use the private key";
    if (c->ca.n > 0)
        use_anchors(ctx, c->ca);
    if (c->asks)
        ask_clients(ctx, c);
    if (!c->server)
        bound_hosts(ctx);
    if (what == NULL && c->pinned && SSL_CTX_dane_enable(ctx) != 1)
        what = "cannot use trust anchors";
    if (what != NULL) {
        *why = tls_reason(what);
        SSL_CTX_free(ctx);
        return NULL;
    }
    if (c->server) { /* clients keep their sessions themselves, as tickets: here they would pile up
                      */
        SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"posthouse", 9);
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    }
    return ctx;
}

/* One object of a PEM file becomes records of RFC 6698 section 2.1: of usage 2, a trust anchor, and
 * of usage 3, the peer's own; it is a whole certificate (selector 0) or public key (selector 1). */
static const char *trust_one(SSL *ssl, const char *kind, const unsigned char *der, size_t n) {
    bool cert = strcmp(kind, PEM_STRING_X509) == 0 || strcmp(kind, PEM_STRING_X509_OLD) == 0;
    if (!cert && strcmp(kind, PEM_STRING_PUBLIC) != 0)
        return NULL;
    return SSL_dane_tlsa_add(ssl, 2, cert ? 0 : 1, 0, der, n) == 1 &&
                   SSL_dane_tlsa_add(ssl, 3, cert ? 0 : 1, 0, der, n) == 1
               ? NULL
               : "a certificate or a public key cannot be read";
}

bool tls_trust_begin(SSL *ssl) {
    return SSL_dane_enable(ssl, NULL) == 1;
}

const char *tls_trust(SSL *ssl, struct str pem) {
    BIO *bio = BIO_new_mem_buf(pem.p, (int)pem.n);
    struct chain_part part = {0};
    size_t objects = 0;
    const char *why = NULL;
    while (why == NULL && PEM_read_bio(bio, &part.name, &part.header, &part.data, &part.n) == 1) {
        why = trust_one(ssl, part.name, part.data, (size_t)part.n);
        objects++;
        chain_part_free(&part);
        part = (struct chain_part){0};
    }
    if (why == NULL && ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        why = "it is damaged";
    if (why == NULL && objects == 0)
        why = "it has neither a certificate nor a public key";
    BIO_free(bio);
    ERR_clear_error();
    return why;
}

/* "RSA-PSS (2048 bits)", "ECDSA (prime256v1)": a signature of that kind, by that key. */
static void describe_signature(const char *who, int kind, int digest, EVP_PKEY *key,
                               struct sbuf *out) {
    char curve[80] = "";
    bool ec = kind == EVP_PKEY_EC;
    sbuf_printf(out, "%s-signature %s", who,
                kind == EVP_PKEY_RSA       ? "RSA"
                : kind == EVP_PKEY_RSA_PSS ? "RSA-PSS"
                : ec                       ? "ECDSA"
                                           : OBJ_nid2sn(kind));
    if (ec)
        EVP_PKEY_get_group_name(key, curve, sizeof curve, NULL);
    if (curve[0] != '\0')
        sbuf_printf(out, " (%s)", curve);
    else if (kind == EVP_PKEY_RSA || kind == EVP_PKEY_RSA_PSS || kind == EVP_PKEY_DSA)
        sbuf_printf(out, " (%d bits)", EVP_PKEY_get_bits(key));
    if (digest != NID_undef)
        sbuf_printf(out, " %s-digest %s", who, OBJ_nid2sn(digest));
}

/* Keys that OpenSSL has no number for, as of X25519MLKEM768, have a name all the same. */
static const char *exchange_name(EVP_PKEY *key, int id) {
    const char *name = id > 0 ? OBJ_nid2sn(id) : EVP_PKEY_get0_type_name(key);
    return name == NULL ? "unknown" : name;
}

static void describe_exchange(EVP_PKEY *key, struct sbuf *out) {
    char curve[80] = "";
    int id = EVP_PKEY_get_base_id(key);
    sbuf_printf(out, "key-exchange %s",
                id == EVP_PKEY_EC   ? "ECDHE"
                : id == EVP_PKEY_DH ? "DHE"
                                    : exchange_name(key, id));
    if (id == EVP_PKEY_EC && EVP_PKEY_get_group_name(key, curve, sizeof curve, NULL) == 1)
        sbuf_printf(out, " (%s)", curve);
    if (id == EVP_PKEY_DH)
        sbuf_printf(out, " (%d bits)", EVP_PKEY_get_bits(key));
}

/* own: the signature of our side. */
static void describe_side(SSL *ssl, bool own, const char *who, const char *before,
                          struct sbuf *out) {
    X509 *cert = own ? SSL_get_certificate(ssl) : SSL_get0_peer_certificate(ssl);
    int kind = NID_undef, digest = NID_undef;
    bool have = own ? SSL_get_signature_type_nid(ssl, &kind) == 1
                    : SSL_get_peer_signature_type_nid(ssl, &kind) == 1;
    if (cert == NULL || !have || kind == NID_undef)
        return;
    if ((own ? SSL_get_signature_nid(ssl, &digest) : SSL_get_peer_signature_nid(ssl, &digest)) != 1)
        digest = NID_undef;
    sbuf_add_c(out, before);
    describe_signature(who, kind, digest, X509_get0_pubkey(cert), out);
}

void tls_describe(SSL *ssl, const char *fold, struct sbuf *out) {
    const SSL_CIPHER *c = SSL_get_current_cipher(ssl);
    bool server = SSL_is_server(ssl);
    int alg = 0, bits = SSL_CIPHER_get_bits(c, &alg);
    EVP_PKEY *tmp = NULL;
    sbuf_printf(out, "%s with cipher %s (%d/%d bits)", SSL_get_version(ssl), SSL_CIPHER_get_name(c),
                bits, alg);
    const char *before = fold;
    if (SSL_get_peer_tmp_key(ssl, &tmp) == 1 && tmp != NULL) {
        sbuf_add_c(out, fold);
        describe_exchange(tmp, out);
        EVP_PKEY_free(tmp);
        before = " ";
    }
    describe_side(ssl, server, "server", before, out);
    describe_side(ssl, !server, "client", fold, out);
}

bool tls_peer_has_name(SSL *ssl, const char *name) {
    X509 *cert = SSL_get0_peer_certificate(ssl);
    if (cert == NULL)
        return false;
    unsigned flags = name[0] == '.' ? 0 : X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS;
    if (X509_check_host(cert, name, strlen(name), flags, NULL) == 1)
        return true;
    return X509_check_ip_asc(cert, name, 0) == 1;
}

bool tls_digest_ok(const char *name) {
    return EVP_get_digestbyname(name) != NULL;
}

/* "ab:cd:…" of n bytes, compared without regard to case. */
static bool digest_is(struct str text, const unsigned char *md, unsigned n) {
    static const char hex[] = "0123456789abcdef";
    if (n == 0 || text.n != (size_t)n * 3 - 1)
        return false;
    for (unsigned i = 0; i < n; i++) {
        const char *p = text.p + (size_t)i * 3;
        if (tolower((unsigned char)p[0]) != hex[md[i] >> 4] ||
            tolower((unsigned char)p[1]) != hex[md[i] & 15] || (i + 1 < n && p[2] != ':'))
            return false;
    }
    return true;
}

/* False: the digest cannot be had. */
static bool peer_digests(X509 *cert, const EVP_MD *md, unsigned char *of_cert, unsigned *n_cert,
                         unsigned char *of_key, unsigned *n_key) {
    unsigned char *der = NULL;
    int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
    bool ok = X509_digest(cert, md, of_cert, n_cert) == 1 && n > 0 &&
              EVP_Digest(der, (size_t)n, of_key, n_key, md, NULL) == 1;
    OPENSSL_free(der);
    return ok;
}

bool tls_peer_has_digest(SSL *ssl, const char *digest, const char *list, const char *delims) {
    X509 *cert = SSL_get0_peer_certificate(ssl);
    const EVP_MD *md = EVP_get_digestbyname(digest);
    unsigned char of_cert[EVP_MAX_MD_SIZE], of_key[EVP_MAX_MD_SIZE];
    unsigned n_cert = 0, n_key = 0;
    struct str rest = str_of(list), one;
    bool found = false;
    if (cert == NULL || md == NULL || !peer_digests(cert, md, of_cert, &n_cert, of_key, &n_key))
        return false;
    while (!found && str_split(&rest, delims, &one))
        found = digest_is(one, of_cert, n_cert) || digest_is(one, of_key, n_key);
    return found;
}

static void digest_text(const unsigned char *md, unsigned n, struct sbuf *out) {
    for (unsigned i = 0; i < n; i++)
        sbuf_printf(out, "%s%02X", i > 0 ? ":" : "", md[i]);
}

bool tls_peer_digests(SSL *ssl, const char *digest, struct sbuf *of_cert, struct sbuf *of_key) {
    X509 *cert = SSL_get0_peer_certificate(ssl);
    const EVP_MD *md = EVP_get_digestbyname(digest);
    unsigned char cert_md[EVP_MAX_MD_SIZE], key_md[EVP_MAX_MD_SIZE];
    unsigned n_cert = 0, n_key = 0;
    if (cert == NULL || md == NULL || !peer_digests(cert, md, cert_md, &n_cert, key_md, &n_key))
        return false;
    digest_text(cert_md, n_cert, of_cert);
    digest_text(key_md, n_key, of_key);
    return true;
}

int64_t tls_peer_until(SSL *ssl) {
    X509 *cert = SSL_get0_peer_certificate(ssl);
    int days = 0, secs = 0;
    if (cert == NULL || ASN1_TIME_diff(&days, &secs, NULL, X509_get0_notAfter(cert)) != 1)
        return 0;
    return clock_wall_us() / 1000000 + (int64_t)days * 86400 + secs;
}
