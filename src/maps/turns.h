/*
 * maps/turns.h - threads for questions to databases, in turn among the tables
 *
 * However many questions wait for one table, and however slow it is, TURNS_OWN questions of each
 * other table are always worked on at once; TURNS_SHARED more go to whichever table needs them.
 * Threads are started when they are needed and stay.  Any thread may push.
 */
#ifndef PH_MAPS_TURNS_H
#define PH_MAPS_TURNS_H

#include <stdbool.h>
#include <stddef.h>

#include "util/loop.h"
#include "util/str.h"

#define TURNS_OWN    2U
#define TURNS_SHARED 30U

struct turns;

struct turns *turns_new(void);
/* False: no thread could be started, and there is none; nothing was taken.  Else it runs the task
 * on one of the threads, after those of the same table that were pushed before have begun.  The
 * task's memory is the pusher's until then.  A table that was named is never forgotten: there may
 * be no more of them than a configuration names. */
bool turns_push(struct turns *t, struct str table, struct task *task);

#endif
