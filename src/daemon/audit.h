/*
 * daemon/audit.h - every mistake in a configuration and its tables, for posthouse check and the
 * page
 *
 * Blocks: files are read and servers asked.  One thread.
 */
#ifndef PH_DAEMON_AUDIT_H
#define PH_DAEMON_AUDIT_H

#include "config/config.h"

/* Beyond c->diags: unused parameters, tables that cannot be opened, credentials that match nothing,
 * loops, rows that never match. */
void audit(const struct config *c, struct diags *d);
/* Part of that: rows and keys in tables that people fill by hand. */
void audit_rows(const struct config *c, struct diags *d);
/* Tables that are opened from now on may use c's parameters (mysql:NAME); NULL: none. */
void audit_tables_of(const struct config *c);

#endif
