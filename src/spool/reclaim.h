/*
 * spool/reclaim.h - giving back what the log does not need any more
 */
#ifndef PH_SPOOL_RECLAIM_H
#define PH_SPOOL_RECLAIM_H

#include "spool/inside.h"

/* Removes the oldest segments that hold nothing, and copies on some of what is left in the oldest
 * one when most of the log is dead.  Called after a sync. */
void log_reclaim(struct spool *s);
/* Writes again what is not safe where it is: found at start, or in files that were removed.  0, or
 * the error that left something where it was: it is to be tried again. */
int log_rescue(struct spool *s);

#endif
