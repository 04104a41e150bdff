/*
 * transfer/moving.h - what comes before the first message of a move, in either direction
 *
 * A move that has nothing to do needs no room on the disk: on a full one the mail system that had
 * the mail is started again, with what it has.  One thread; blocks on the disk.
 */
#ifndef PH_TRANSFER_MOVING_H
#define PH_TRANSFER_MOVING_H

#include "transfer/transfer.h"

/* Makes PFQUEUE_FOLDER and the mark; once.  0 or negative errno. */
int moving_begin(struct transfer *t);
/* Is there room for files with so many bytes, on the file system of dir?  0, or -ENOSPC with *why,
 * which the caller frees. */
int moving_has_room(const char *dir, uint64_t bytes, uint64_t files, char **why);

#endif
