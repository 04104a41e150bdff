/*
 * schedule/content.h - the content of queued messages, for as long as something needs it
 */
#ifndef PH_SCHEDULE_CONTENT_H
#define PH_SCHEDULE_CONTENT_H

#include "schedule/inside.h"

/* A report quotes the message, and what is made of it copies it: the content must be in memory.
 * True if it is being fetched: then is called afterwards, and may end m.  False: it is there, or
 * cannot be read in this round.  What is fetched counts until the round ends or goes on without it;
 * when it is much, the next messages wait for theirs. */
bool msg_fetch(struct msg *m, void (*then)(struct msg *m));
/* How many bytes of content are kept in memory: what is more is read from the disk as it is sent.
 */
uint64_t content_memory_max(const struct sched *s);
/* Nothing needs its content now. */
void msg_drop_body(struct msg *m);
/* Its content waits for a session now: where memory or descriptors are short it is let go, and read
 * again when one has its turn. */
void msg_spare_body(struct msg *m);

#endif
