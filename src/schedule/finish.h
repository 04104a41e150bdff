/*
 * schedule/finish.h - the end of a round
 */
#ifndef PH_SCHEDULE_FINISH_H
#define PH_SCHEDULE_FINISH_H

#include "schedule/inside.h"

/* All recipients are back: report, settle, defer or remove.  The message may be gone after this. */
void msg_finish(struct msg *m);
/* n recipients came back from routing or delivery.  Ends the round with the last of them: the
 * message may be gone after this. */
void msg_recipients_back(struct msg *m, uint32_t n);
/* A report quotes the message, and what is made of it copies it: the content must be in memory.
 * True if it is being fetched: then is called afterwards, and may end m.  False: it is there, or
 * cannot be read in this round. */
bool msg_fetch(struct msg *m, void (*then)(struct msg *m));

#endif
