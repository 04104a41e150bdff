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

#endif
