/*
 * spool/moves.h - messages that were copied on and whose copies are not durable yet
 */
#ifndef PH_SPOOL_MOVES_H
#define PH_SPOOL_MOVES_H

#include "spool/inside.h"

/* What follows the copy when it is durable. */
void moves_add(struct spool *s, const struct move *m);
/* The index follows the copies that are durable now; those that are lost are made again. */
void moves_settle(struct spool *s);

#endif
