/*
 * daemon/audit.h - every mistake in a configuration and its tables, for posthouse check and the
 * page
 *
 * Blocks: files are read and servers asked.  One thread.
 */
#ifndef PH_DAEMON_AUDIT_H
#define PH_DAEMON_AUDIT_H

#include "accounts/relays.h"
#include "config/config.h"
#include "maps/map.h"

/* So many remarks of one kind about the rows of a table are shown. */
#define AUDIT_SHOWN 20U

/* c's certificates' tables have been read (certrows.h; confine_audit does it).  Beyond c->diags:
 * unused parameters, tables that cannot be opened, credentials that match nothing, loops, rows that
 * never match. */
void audit(struct config *c, struct diags *d);
/* Parts of that: tables that cannot be opened, are out of date or have lines that mean nothing; */
void audit_tables(const struct config *c, struct diags *d);
/* credentials for relay hosts; */
void audit_credentials(const struct config *c, struct diags *d);
/* what TLS needs: files, protocols, the rows of smtp_tls_policy_maps; */
void audit_tls(const struct config *c, struct diags *d);
/* rows and keys in tables that people fill by hand; */
void audit_rows(const struct config *c, struct diags *d);
/* keys of m with a domain in a form that no look-up asks for; param names the table m in line of
 * file; */
void audit_spellings(const struct config *cfg, struct map *m, const char *param, const char *file,
                     int line, struct diags *d);
/* keys of senders that no sender has; */
void audit_senders(const struct config *c, struct diags *d);
/* aliases that ask for what is not done, and where root's mail goes. */
void audit_aliases(const struct config *c, struct diags *d);
/* relay records of domains that are gone, or sealed for another key; r: all records; */
void audit_owners(const struct config *c, struct relays *r, struct diags *d);
/* next hops that are a record's, but for the way that they are written; */
void audit_records(const struct config *c, struct relays *r, struct diags *d);
/* who owns and may read the spool, keys and passwords; transports; Postfix in front. */
void audit_places(const struct config *c, struct diags *d);
/* sockets of Dovecot and policy services that mail_owner may not open, where root asks. */
void audit_sockets(const struct config *c, struct diags *d);
/* Tables that are opened from now on may use c's parameters (mysql:NAME); NULL: none. */
void audit_tables_of(const struct config *c);

#endif
