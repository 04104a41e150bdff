/*
 * util/tls.h - TLS contexts from PEM text and Postfix's protocol and cipher settings
 *
 * The relay cannot open files, so certificates and keys come as text.  A context is shared by all
 * loops (OpenSSL counts references); building one takes milliseconds.
 */
#ifndef PH_UTIL_TLS_H
#define PH_UTIL_TLS_H

#include <openssl/ssl.h>

#include "util/str.h"

struct tls_conf {
    bool server;
    struct str cert;       /* PEM chain; empty: none */
    struct str key;        /* PEM; empty: in cert */
    struct str chains;     /* PEM, instead of both: keys, each with its chain behind
                            * it, or one key behind its chain */
    struct str ca;         /* PEM anchors; empty: none */
    bool asks;             /* a server: clients are asked for a certificate */
    struct str asked;      /* PEM: the authorities that they are told */
    int depth;             /* of a chain that clients show, at most */
    bool pinned;           /* each connection is told by tls_trust what it trusts */
    const char *protocols; /* ">=TLSv1.2", "!SSLv3 !TLSv1", "TLSv1.2 TLSv1.3" */
    const char *ciphers;   /* OpenSSL's list, as tls_ciphers makes it */
};

/* Appends the list of a grade (high, medium and the obsolete ones, which mean medium, or null), in
 * main.cf's own words, without the ciphers that are excluded.  False: *bad is a word of grade or
 * excluded that is none. */
bool tls_ciphers(struct sbuf *out, const char *grade, const char *high, const char *medium,
                 const char *excluded, struct str *bad);
/* False: *bad is the word that is no protocol's name. */
bool tls_protocols_ok(const char *text, struct str *bad);
/* Is a version left by a list that is ok? */
bool tls_protocols_left(const char *text);
/* Is that a digest that OpenSSL has? */
bool tls_digest_ok(const char *name);
/* Does the digest of the peer's certificate, or of its public key, stand in the list ("ab:cd…", any
 * of delims between)? */
bool tls_peer_has_digest(SSL *ssl, const char *digest, const char *list, const char *delims);

/* Appends "AB:CD:…", the digests of the peer's certificate and of its public key.  False: there is
 * no such digest, or no certificate. */
bool tls_peer_digests(SSL *ssl, const char *digest, struct sbuf *of_cert, struct sbuf *of_key);

/* Is the certificate over, or within so many days?  Appends that in words; *over: it is. */
bool tls_cert_ends(const X509 *cert, int days, bool *over, struct sbuf *what);
/* Does a certificate stand in it that can be read? */
bool tls_has_certificate(struct str pem);

/* For OpenSSL's readers of PEM, which would ask at the terminal, and wait there, for the password
 * of what is encrypted: there is none. */
int tls_no_password(char *buf, int size, int writing, void *arg);
/* NULL with *why (owned by the caller) on failure. */
SSL_CTX *tls_context(const struct tls_conf *c, char **why);
/* A server's connection, before it has chosen what to show: it shows the keys of pem, each with its
 * certificates behind it, and nothing that its context has.  False: it has nothing to show. */
bool tls_show_chains(SSL *ssl, struct str pem);
/* A connection with a pinned context, before its handshake: it trusts nothing from now on, and
 * then, for each tls_trust, chains that a certificate or a public key of pem has signed, wherever
 * that stands in them.  NULL, or why pem cannot be used (a literal). */
bool tls_trust_begin(SSL *ssl);
const char *tls_trust(SSL *ssl, struct str pem);
/* Counts a connection to a host that no administrator chose, from before its handshake until ssl is
 * freed.  Where there are many, what a further host may show is less: strangers, to whose hosts one
 * mail may go, fill no memory with certificates. */
void tls_bound_stranger(SSL *ssl);
/* "TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)" and key exchange, as Postfix logs;
 * fold stands where Postfix begins a line in a Received: field, " " for none. */
void tls_describe(SSL *ssl, const char *fold, struct sbuf *out);
/* When the peer's certificate expires, in seconds since 1970; 0: it has shown none. */
int64_t tls_peer_until(SSL *ssl);
/* Does the peer's certificate carry name (".name": a name below it)? */
bool tls_peer_has_name(SSL *ssl, const char *name);

#endif
