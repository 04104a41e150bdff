/*
 * maps/directory.h - connections to a directory, for ldap: tables and the accounts store
 *
 * c is a table file's: server_host, bind_dn, start_tls and so on (ldap_table(5)).  Calls block, no
 * longer than the file's timeout.
 */
#ifndef PH_MAPS_DIRECTORY_H
#define PH_MAPS_DIRECTORY_H

#include <ldap.h>

#include "maps/tabconf.h"

/* server_host and server_port as the library takes them ("host", "host:port" and URIs); the caller
 * frees. */
char *directory_uris(const struct tabconf *c, const char **bad);
/* Connected and logged in as the file says; uris NULL: its server_host.  *code (may be NULL) is the
 * library's error; NULL with *why. */
LDAP *directory_connect(const struct tabconf *c, const char *uris, int *code, char **why);
/* The same, logged in as dn with a simple bind. */
LDAP *directory_connect_as(const struct tabconf *c, const char *dn, const char *password, int *code,
                           char **why);
/* For a filter (RFC 4515) and for a DN (RFC 4514). */
void directory_quote_filter(struct str text, struct sbuf *out);
void directory_quote_dn(struct str text, struct sbuf *out);

#endif
