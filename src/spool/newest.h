/*
 * spool/newest.h - which segments are the newest and the oldest, as a file beside the log has it
 */
#ifndef PH_SPOOL_NEWEST_H
#define PH_SPOOL_NEWEST_H

#include "spool/inside.h"

/* Reads what the file has, before the log is read. */
void newest_read(struct spool *s);
/* Says if the log, which has been read, lacks the newest segment, or the one before its oldest. */
void newest_check(struct spool *s);
/* g has been made, and its name is durable. */
void newest_is(struct spool *s, const struct segment *g);
/* g is about to be removed: it will not be missing.  0, or the error with which the disk has not
 * taken that down. */
int newest_goes(struct spool *s, const struct segment *g);

#endif
