/*
 * schedule/job.h - jobs: some recipients of one message on their way to one destination
 */
#ifndef PH_SCHEDULE_JOB_H
#define PH_SCHEDULE_JOB_H

#include "schedule/inside.h"

/* The recipient goes to that destination with others of the message, if there is room. */
void job_for(struct msg *m, uint32_t rcpt, struct dest *d);
void job_enqueue(struct job *j);
/* The next one of a sender's queue, which may be gone after this. */
struct job *squeue_take(struct squeue *q);
void job_free(struct job *j);
/* All recipients of a job that no session has tried get e; the job, and perhaps its message, is
 * gone after this. */
void job_untried(struct job *j, const struct mailerr *e);
/* The job's recipients have no result: the message's next round, which begins at once, routes them
 * by the configuration of then.  The job, and perhaps its message's round, is over after this. */
void job_route_anew(struct job *j);
/* Back from wherever it is but a session; returns how many recipients it had. */
uint32_t job_withdraw(struct job *j);
/* Its attempt comes back from the session, unless it is begun. */
void job_recall(const struct job *j);
/* The same if one of its recipients goes elsewhere now.  Until that is known the session begins
 * nothing of it, but goes on to make its connection: tables that change again and again, of other
 * mail too, keep no session from coming as far as mail. */
void job_check(struct job *j);
/* It is not asked any more. */
void job_check_end(struct job *j);

#endif
