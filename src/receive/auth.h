/*
 * receive/auth.h - AUTH from clients (RFC 4954)
 *
 * The loop's thread.  A dialogue belongs to its session, from AUTH to the answer to it.
 */
#ifndef PH_RECEIVE_AUTH_H
#define PH_RECEIVE_AUTH_H

#include "receive/session.h"

enum cmd auth_command(struct session *s, struct str args);
/* The client's answer to a challenge. */
enum cmd auth_line(struct session *s, struct str line);
/* Is the client's next line such an answer? */
bool auth_reading(const struct session *s);
/* The mechanisms to offer, separated by blanks; empty: no AUTH. */
void auth_mechanisms(const struct session *s, struct sbuf *mechs);
/* True if the list of mechanisms is not there yet: fn is called by the loop when it is, or when it
 * cannot be had. */
bool auth_await(struct session *s, void (*fn)(struct session *s));
/* Once, when the session has its service: it keeps the Dovecot that the service asks until
 * auth_leave, also when a reload takes that path away. */
void auth_keep_server(struct session *s);
/* Once, when the session ends: ends a dialogue, and waiting. */
void auth_leave(struct session *s);
/* Forgets the login of the client. */
void auth_logout(struct session *s);
/* A new configuration: each smtpd_sasl_path has a connection to Dovecot of its own, and keeps the
 * one that it has; one that it does not name goes with the last session that keeps it. */
void auth_reload(struct receive *r);

#endif
