/*
 * schedule/rcpt.h - recipients of a queued message: their states, and why they wait
 */
#ifndef PH_SCHEDULE_RCPT_H
#define PH_SCHEDULE_RCPT_H

#include "schedule/inside.h"

/* The result of one recipient's attempt.  A sent one is done, or its report is owed (report). */
void msg_result(struct msg *m, uint32_t rcpt, const struct mailerr *e, bool report);
void msg_set_state(struct msg *m, uint32_t rcpt, uint8_t state);
void msg_set_reason(struct msg *m, uint32_t rcpt, const struct mailerr *e);
/* Counts, or no longer counts, the message at each of its waiting recipients' reasons. */
void msg_count_reasons(struct msg *m, bool on);
/* Forgets all reasons: the message ends. */
void msg_drop_reasons(struct msg *m);
/* A recipient that no session has tried: log line, count and result. */
void msg_untried(struct msg *m, uint32_t rcpt, const struct service *svc, const struct mailerr *e);
void msg_encode(const struct msg *m, enum settle what, struct sbuf *out);
/* Its progress goes to the spool, unless it is deleted. */
void msg_save_progress(struct msg *m);
/* Likewise, or where that is long what became of recipients since it was saved: in all no more is
 * written than in proportion to their number. */
void msg_save_part(struct msg *m);
void unsaved_free(struct msg *m);
/* p is of as many recipients. */
void msg_restore(struct msg *m, const struct progress *p);

#endif
