/*
 * receive/clientcert.h - the certificate that a client has shown, and what it permits
 *
 * A client is asked for one where smtpd_tls_ask_ccert, or smtpd_tls_req_ccert with mandatory TLS,
 * is on; the handshake goes on whatever it shows.  The thread of the session's loop.
 */
#ifndef PH_RECEIVE_CLIENTCERT_H
#define PH_RECEIVE_CLIENTCERT_H

#include <openssl/ssl.h>

#include "config/config.h"
#include "maps/query.h"
#include "route/keys.h"

struct clientcert {
    bool trusted; /* it verifies by smtpd_tls_CAfile and smtpd_tls_CApath, now */
    char *why;    /* not trusted: why, for people; NULL if it is */
    char *print;  /* "AB:CD:…", by smtpd_tls_fingerprint_digest; NULL: there is no such digest */
    char *key_print; /* the same of its public key */
    char *name;      /* its common name, fit for a comment of RFC 5322; may be "" */
    char *issuer;    /* that of its issuer or, without one, its organisation; likewise */
};

/* Of a handshake that is over; NULL: the client has shown none.  The caller frees it. */
struct clientcert *clientcert_of(SSL *ssl, const struct params *p);
void clientcert_free(struct clientcert *c);
/* Asks relay_clientcerts, which is not empty, for c, which has fingerprints; as lookup_maps. */
uint32_t clientcert_ask(const struct clientcert *c, struct lookup *k, const struct params *p,
                        lookup_maps_fn fn, void *arg);
/* Adds the keys that tables of certificates are asked for: its fingerprint, then its key's. */
void clientcert_keys(const struct clientcert *c, struct keys *keys);
/* Says what in the configuration asks for certificates in vain. */
void clientcert_check(const struct config *cfg, struct diags *d);

#endif
