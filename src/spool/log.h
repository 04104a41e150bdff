/*
 * spool/log.h - writing to the end of the log
 */
#ifndef PH_SPOOL_LOG_H
#define PH_SPOOL_LOG_H

#include "spool/inside.h"

/* Makes sure that span bytes fit into the head, in a new segment if need be; without
 * may_use_reserve some room is left for PROGRESS and DONE, so that a full disk can be emptied. What
 * is larger than a segment gets one as large as it needs; -EFBIG: that would be above SEGMENT_MAX.
 */
int log_room(struct spool *s, uint64_t span, bool may_use_reserve);
/* The same for what is copied on, which gives room back when it is all copied, and none before: a
 * half of the reserve is left to PROGRESS and DONE. */
int log_room_for_copy(struct spool *s, uint64_t span);
/* Adds one record at the head's end; what r points to is not needed after it returns.  *off is
 * where it begins. */
int log_write(struct spool *s, const struct rec *r, uint64_t *off);
/* Writes what was gathered and makes it durable.  The segment keeps what went wrong; after a failed
 * sync it is never written or synced again. */
int log_sync(struct spool *s);
/* Is a file of the log removed, though it is in use?  What lies in it is still read through its
 * descriptor; s->rescue is set for what is newly found, which is logged. */
bool log_find_removed(struct spool *s);
/* Makes durable, where it is, what was found at start and may not be: the end of a message, too, of
 * which nothing is left to be written again elsewhere.  The newest first, for it may say that
 * something older does not count. */
int log_harden(struct spool *s);
/* Is there something that log_harden has not made durable yet? */
bool log_is_soft(const struct spool *s);
/* When each operation of a batch has ended: what could not be written is given up, and after a full
 * disk the same place may be used again. */
void log_after_batch(struct spool *s);

#endif
