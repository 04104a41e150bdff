/*
 * spool/read.h - content back from disk
 */
#ifndef PH_SPOOL_READ_H
#define PH_SPOOL_READ_H

#include "spool/inside.h"

/* Has the reader thread, which runs what is in s->reads, read the content of a message. */
void spool_read(struct spool *s, struct spool_op *op);

#endif
