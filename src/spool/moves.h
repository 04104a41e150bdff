/*
 * spool/moves.h - messages that were copied on, with copies that are not durable yet
 */
#ifndef PH_SPOOL_MOVES_H
#define PH_SPOOL_MOVES_H

#include "spool/inside.h"

/* e follows the copy when that is durable. */
void moves_add(struct spool *s, struct entry *e, const struct move *m);
/* The index follows the copies that are durable now; those that are lost are made again. */
void moves_settle(struct spool *s);

#endif
