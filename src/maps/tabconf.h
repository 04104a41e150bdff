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
/* Sets or replaces one. */
void tabconf_set(struct tabconf *c, const char *name, const char *value);
/* How parameters of main.cf are asked for ("mysql:foo" with foo_hosts, foo_query, …; also the file
 * names that tables of Posthouse's own need).  fn gives a copy that the caller frees, or NULL.
 * Before any table is opened, once a process. */
void tabconf_use_main(char *(*fn)(void *arg, const char *name), void *arg);
/* A copy of main.cf's value, or NULL. */
char *tabconf_main(const char *name);
/* The parameters "name_…" of main.cf, or NULL if there is none. */
struct tabconf *tabconf_legacy(const char *name);
void tabconf_free(struct tabconf *c);
/* The value of name, or otherwise. */
const char *tabconf_str(const struct tabconf *c, const char *name, const char *otherwise);
/* The same as a number or a yes or no; *bad becomes the name of one that is neither. */
int64_t tabconf_int(const struct tabconf *c, const char *name, int64_t otherwise, const char **bad);
bool tabconf_bool(const struct tabconf *c, const char *name, bool otherwise, const char **bad);

#endif
