/*
 * schedule/forward.h - what an alias stands for goes on as a message of its own
 *
 * As Postfix's local(8) forwards: new messages with the addresses of the alias, a Received: and a
 * Delivered-To: field before the content; one for each sender, which is owner-NAME where the list
 * NAME has such an alias, and the old one else.  All that an alias stands for goes on as one
 * message first.  Its record in the spool and the end of the recipient that it is made for are one:
 * a crash neither loses the mail nor has it twice.  Recipients that are to have another sender than
 * that message has (struct rcpt, owner) are split off before anything of it is delivered, a message
 * for each sender, each in one step in the same way; no table is asked any more.  The scheduler's
 * loop.
 */
#ifndef PH_SCHEDULE_FORWARD_H
#define PH_SCHEDULE_FORWARD_H

#include "route/alias.h"
#include "schedule/inside.h"

/* The recipient stands for those addresses (ALIAS_OK), which are taken out of r.  They go on at the
 * end of the round. */
void forward_keep(struct msg *m, uint32_t rcpt, struct alias_result *r);
/* The recipient waits, with that reason: a name that stands for nothing that goes on. */
void forward_defer(struct msg *m, uint32_t rcpt, enum mail_cause cause, const char *dsn,
                   const char *why);
/* What is not begun waits for the next round. */
void forward_forget(struct msg *m);
/* The next message, of content that is there unless it cannot be read.  True if it is on its way:
 * then is called when it is durable or was given up, and may end m.  False: there is none left. */
bool forward_next(struct msg *m, void (*then)(struct msg *m));
/* Has the recipient a sender of its own?  Then it is never delivered as the message's. */
bool forward_is_split_off(const struct msg *m, uint32_t rcpt);
/* Is there something to split off in this round? */
bool forward_has_split(const struct msg *m);
/* Splits off the recipients of one other sender; there are some.  True and then as above; false:
 * the content, which is there unless it cannot be read, could not be: they wait. */
bool forward_split(struct msg *m, void (*then)(struct msg *m));

#endif
