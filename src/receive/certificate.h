/*
 * receive/certificate.h - the TLS context of the SMTP server, from what main.cf names
 *
 * Any thread; nothing is kept.
 */
#ifndef PH_RECEIVE_CERTIFICATE_H
#define PH_RECEIVE_CERTIFICATE_H

#include <openssl/ssl.h>

#include "config/config.h"

/* smtpd_tls_security_level; what is none of its words counts as none. */
enum server_tls { SERVER_TLS_NONE = 1, SERVER_TLS_MAY, SERVER_TLS_MUST };
enum server_tls server_tls_level(const struct params *p);

/* The context for cfg's certificate and key; the caller frees it.  NULL with *why NULL: no
 * certificate is configured.  NULL with *why set (the caller frees it): the one that is configured
 * cannot be loaded, for the reason that *why says. */
SSL_CTX *certificate_load(const struct config *cfg, char **why);
/* Says what certificate_load would say. */
void certificate_check(const struct config *cfg, struct diags *d);

#endif
