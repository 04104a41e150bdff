/*
 * maps/tabconf.h - the file behind a table in a database: "name = value" lines
 *
 * main.cf's lines (continuation, comments, the last one of a name counts), but a '$' is a '$'
 * (mysql_table(5), pgsql_table(5), sqlite_table(5), ldap_table(5)).  Holds passwords: wiped when
 * freed. One thread makes it; any thread may read it after that.
 */
#ifndef PH_MAPS_TABCONF_H
#define PH_MAPS_TABCONF_H

#include "util/str.h"

struct tabconf;

/* The file at path.  NULL with *why (the caller frees): it cannot be read. */
struct tabconf *tabconf_read(const char *path, char **why);
struct tabconf *tabconf_parse(struct str text);
void tabconf_free(struct tabconf *c);
/* The value of name, or otherwise. */
const char *tabconf_str(const struct tabconf *c, const char *name, const char *otherwise);
/* The same as a number or a yes or no; *bad becomes the name of one that is neither. */
int64_t tabconf_int(const struct tabconf *c, const char *name, int64_t otherwise, const char **bad);
bool tabconf_bool(const struct tabconf *c, const char *name, bool otherwise, const char **bad);

#endif
