/*
 * receive/message.h - DATA and BDAT: the content of a transaction, and its way into the spool
 *
 * The loop's thread.  A message that was handed to the spool is the spool's: it is kept also if the
 * client leaves before it hears of it.
 */
#ifndef PH_RECEIVE_MESSAGE_H
#define PH_RECEIVE_MESSAGE_H

#include "receive/session.h"

enum cmd message_data(struct session *s, struct str args);
enum cmd message_bdat(struct session *s, struct str args);
/* Takes bytes of content; returns how many were used. */
size_t message_input(struct session *s, const char *p, size_t n, enum cmd *rc);
/* The session ends: the answer of a commit is for no session any more. */
void message_forget(struct session *s);

#endif
