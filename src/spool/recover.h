/*
 * spool/recover.h - reading the log at start
 */
#ifndef PH_SPOOL_RECOVER_H
#define PH_SPOOL_RECOVER_H

#include "spool/inside.h"

int log_recover(struct spool *s, void (*found)(void *arg, const struct spool_found *f), void *arg,
                char **why);

#endif
