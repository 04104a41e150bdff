/*
 * schedule/forward.h - what an alias stands for goes on as a message of its own
 *
 * As Postfix's local(8) forwards: a new message with the addresses of the alias, a Received: and a
 * Delivered-To: field before the content, and owner-NAME for its sender if there is such an alias.
 * Its record in the spool and the end of the recipient that it is made for are one: a crash neither
 * loses the mail nor has it twice.  The scheduler's loop.
 */
#ifndef PH_SCHEDULE_FORWARD_H
#define PH_SCHEDULE_FORWARD_H

#include "route/alias.h"
#include "schedule/inside.h"

/* The recipient stands for those addresses (ALIAS_OK), which are taken out of r.  They go on at the
 * end of the round. */
void forward_keep(struct msg *m, uint32_t rcpt, struct alias_result *r);
/* The recipient waits, with that reason: a name that stands for nothing that goes on. */
void forward_defer(struct msg *m, uint32_t rcpt, const char *dsn, const char *why);
/* What is not begun waits for the next round. */
void forward_forget(struct msg *m);
/* The next message, of content that is there unless it cannot be read.  True if it is on its way:
 * then is called when it is durable or was given up, and may end m.  False: there is none left. */
bool forward_next(struct msg *m, void (*then)(struct msg *m));

#endif
