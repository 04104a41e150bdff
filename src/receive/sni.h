/*
 * receive/sni.h - the certificate for the name that a client asks for (tls_server_sni_maps)
 *
 * The rows of the tables stand in the configuration (daemon/certrows.h); a context owns a copy of
 * those of its service.  Any thread may load and check; a handshake is on the thread of its loop.
 */
#ifndef PH_RECEIVE_SNI_H
#define PH_RECEIVE_SNI_H

#include <openssl/ssl.h>

#include "config/config.h"

/* From now on connections of ctx, with their struct session as app data, are shown the chain of
 * the row for the name that they ask for.  A name without a row, or none, changes nothing.  Where
 * the row cannot be used, or a table could not be asked, the handshake fails: another name's
 * certificate is never shown instead. */
void sni_use(SSL_CTX *ctx, const struct config *cfg, const struct params *p);
/* The handshake is over: was the client shown the chain of a row? */
bool sni_matched(SSL *ssl);
/* NULL: each row for the services with the parameters p can be used; else what is wrong with the
 * first that cannot (the caller frees). */
char *sni_broken(const struct config *cfg, const struct params *p);
/* Says which rows cannot be used, of main.cf and of each service. */
void sni_check(const struct config *cfg, enum diag_level broken, struct diags *d);
/* Says which rows have a certificate that has expired, or will in that many days, or that is for
 * another name. */
void sni_check_dates(const struct config *cfg, int days, struct diags *d);

#endif
