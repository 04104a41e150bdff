/*
 * receive/rewrite.h - is this client's mail completed like local mail?
 *
 * The loop's thread of the session.  Goes through local_header_rewrite_clients (postconf(5)) before
 * content comes; the answer stands in the transaction, which cancels an open question when it ends.
 */
#ifndef PH_RECEIVE_REWRITE_H
#define PH_RECEIVE_REWRITE_H

#include "receive/transaction.h"

/* Finds out tx->local_headers, or that it is tx->local_unknown because a table cannot be asked, and
 * goes on with then.  Returns what then says, or CMD_WAIT: then is called from the loop, and what
 * it says goes to smtpd_answered. */
enum cmd rewrite_ask(struct session *s, enum cmd (*then)(struct session *s));

#endif
