/*
 * receive/certificate.h - the TLS contexts of the SMTP server, from what main.cf and master.cf name
 *
 * A struct certificates that is all zero is valid and empty; it lives as long as the process, on
 * one thread.
 */
#ifndef PH_RECEIVE_CERTIFICATE_H
#define PH_RECEIVE_CERTIFICATE_H

#include <openssl/ssl.h>

#include "config/config.h"

/* smtpd_tls_security_level.  A level that an SMTP server does not have counts as encrypt: mail is
 * never taken in clear where more than that was asked for. */
enum server_tls { SERVER_TLS_NONE = 1, SERVER_TLS_MAY, SERVER_TLS_MUST };
enum server_tls server_tls_level(const struct params *p);
/* Is the level one that an SMTP server does not have? */
bool server_tls_overstated(const struct params *p);

/* Are clients asked for a certificate?  Must they have one that is trusted? */
bool clientcert_asked(const struct params *p);
bool clientcert_needed(const struct params *p);

/* main.cf's context, and those of services that have settings of their own. */
struct certificates {
    SSL_CTX *shared; /* NULL: no certificate was ever loaded */
    struct own_certificate *own;
};

/* Loads those of cfg.  One that cannot be loaded (a renewal may be half written) never takes away
 * the one that is in use; the log says so. */
void certificates_load(struct certificates *c, const struct config *cfg);
/* Of a service of cfg; NULL: it has none. */
SSL_CTX *certificates_of(const struct certificates *c, const struct config *cfg,
                         const struct service *svc);

/* The context for the certificate and key of p, of cfg; the caller frees it.  NULL with *why NULL:
 * no certificate is configured.  NULL with *why set (the caller frees it): the one that is
 * configured cannot be loaded, for the reason that *why says. */
SSL_CTX *certificate_load(const struct config *cfg, const struct params *p, char **why);
/* Says what certificate_load would say, of main.cf and of each service. */
void certificate_check(const struct config *cfg, struct diags *d);

#endif
