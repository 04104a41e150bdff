/*
 * daemon/unreadable.h - messages of the spool that this version cannot read
 *
 * They are kept for a version that can, listed, and neither sent nor given orders about.  The list
 * is filled before other threads begin, and read-only from then on.
 */
#ifndef PH_DAEMON_UNREADABLE_H
#define PH_DAEMON_UNREADABLE_H

#include "mail/envelope.h"
#include "schedule/schedule.h"

struct unreadable {
    uint64_t id;
    struct envelope *env; /* a reference; NULL: that is what cannot be read */
};

struct unreadable_list {
    struct unreadable *v;
    size_t n;
};

/* Takes the reference to env, which may be NULL. */
void unreadable_add(struct unreadable_list *l, uint64_t id, struct envelope *env);
/* Appends a line for each that fits f, as overview_message.  Conditions that only the scheduler can
 * judge fit none. */
void unreadable_show(struct sbuf *b, const struct unreadable_list *l, const struct sched_filter *f);

#endif
