/*
 * cli/beside.h - the configuration of a Posthouse that relays for a Postfix on the same machine
 *
 * One thread.  The caller owns everything.
 */
#ifndef PH_CLI_BESIDE_H
#define PH_CLI_BESIDE_H

#include "config/config.h"

/* The first line of a main.cf that beside_main has made. */
#define BESIDE_MARK "# Made by posthouse setup beside-postfix"

/* Appends main.cf for Posthouse behind the Postfix of front: what front's SMTP client is told
 * (relay hosts, credentials, TLS), and mail for front's own domains goes back to it. */
void beside_main(struct sbuf *out, const struct config *front);
/* Appends master.cf: one service for front at that port of loopback, and the transports. */
void beside_master(struct sbuf *out, uint16_t port);
/* Appends the value of default_transport that front needs.  True: it names a transport of its own,
 * BESIDE_TRANSPORT's line in front's master.cf, because front's client asks every host for TLS. */
bool beside_hop(struct sbuf *out, const struct config *front, uint16_t port);
#define BESIDE_TRANSPORT                                                                           \
    "posthouse unix - - - - - smtp -o smtp_tls_security_level=none -o smtp_enforce_tls=no\n"
/* Appends what keeps mail from Posthouse though default_transport names it, a line for each. */
void beside_passes_by(struct sbuf *out, const struct config *front);

#endif
