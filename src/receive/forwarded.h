/*
 * receive/forwarded.h - XFORWARD: a content filter says who brought the message
 *
 * The loop's thread.  What was said holds for the next message alone (Postfix's XFORWARD_README).
 */
#ifndef PH_RECEIVE_FORWARDED_H
#define PH_RECEIVE_FORWARDED_H

#include "mail/envelope.h"
#include "receive/session.h"

/* The attributes, as EHLO offers them. */
#define FORWARDED_OFFER " NAME ADDR PROTO HELO SOURCE PORT IDENT"

/* May this client say so (smtpd_authorized_xforward_hosts)? */
bool forwarded_is_allowed(const struct session *s);
enum cmd forwarded_command(struct session *s, struct str args);
/* What was said is forgotten. */
void forwarded_end(struct session *s);
/* Has the client said whether the message is local (SOURCE)?  If so, *local says which. */
bool forwarded_source(const struct session *s, bool *local);
/* Who brought a message of this session, local if its header addresses are completed: what was
 * said, or the client itself.  The texts last as long as the session stands still, and scratch. */
struct origin forwarded_origin(const struct session *s, bool local, struct sbuf *scratch);
/* Appends ", orig_queue_id=…, orig_client=…", as far as it was said. */
void forwarded_add(const struct session *s, struct sbuf *b);

#endif
