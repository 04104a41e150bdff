/*
 * daemon/uses.h - which next hops a configuration names, in main.cf, master.cf and their tables
 *
 * For those who take a relay record away: mail to the record's next hop would go on without its
 * account.  What stands behind error:, retry:, discard: and local: is none.  Tables in files are
 * read row by row; what a pattern or a server would answer cannot be listed.  Blocks on the disk;
 * one thread at a time for a configuration.
 */
#ifndef PH_DAEMON_USES_H
#define PH_DAEMON_USES_H

#include "config/config.h"

/* where: the parameter, with the table if it has one; both are valid during the call. */
typedef void (*uses_fn)(void *arg, struct str hop, const char *where);

/* Calls fn with each next hop, as it is written but for a transport's name before it.  The same one
 * may come more than once. */
void uses_each(const struct config *cfg, uses_fn fn, void *arg);

/* True if hop (of uses_each, or of an account) means the record of that name and next hop (NULL: by
 * its name alone). */
bool uses_mean(struct str hop, const char *name, const char *nexthop);

#endif
