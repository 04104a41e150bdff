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
 * (relay hosts, credentials, TLS), and mail for front's own domains goes back to it.  A
 * default_transport that names port of loopback is Posthouse's own, and says nothing. */
void beside_main(struct sbuf *out, const struct config *front, uint16_t port);
/* Appends master.cf: one service for front at that port of loopback, and the transports. */
void beside_master(struct sbuf *out, uint16_t port);
/* Appends the value of default_transport that front needs.  True: it names BESIDE_NAME, a transport
 * that front's master.cf needs, because front's own client is told what is meant for other hosts.
 */
bool beside_hop(struct sbuf *out, const struct config *front, uint16_t port);
#define BESIDE_NAME "posthouse"
/* How the line of that transport begins. */
#define BESIDE_OURS BESIDE_NAME " unix - - - - - smtp -o smtp_tls_security_level=none "
/* Appends that line. */
void beside_transport(struct sbuf *out);
/* Appends what keeps mail from Posthouse though default_transport names it, or slows all of it
 * down, a line for each.  own_transport: as beside_hop said. */
void beside_notes(struct sbuf *out, const struct config *front, bool own_transport);

#endif
