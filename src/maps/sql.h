/*
 * maps/sql.h - what mysql:, pgsql: and sqlite: tables have in common, and what each backend gives
 *
 * map_sql.c has the table file, the templates, the hosts and their failures, and the idle
 * connections; a backend connects, quotes and asks.  A connection is used by one thread at a time.
 */
#ifndef PH_MAPS_SQL_H
#define PH_MAPS_SQL_H

#include "maps/pool.h"
#include "util/str.h"

/* One value of a row, in order of rows and columns; p == NULL: NULL. */
typedef void (*sql_value_fn)(void *arg, struct str value);

#define SQL_ALL_COLUMNS (-1000)

struct sql_ops {
    struct pool_ops pool;
    const char *host; /* what hosts is when it is not given; NULL: no servers but a file */
    void (*quote)(void *conn, struct str text, struct sbuf *out);
    /* Calls fn for each value.  *sets: how many result sets there were; SQL_ALL_COLUMNS before:
     * also of SQLite's further columns.  *why unless REMOTE_OK. */
    enum remote_rc (*ask)(void *conn, const char *query, sql_value_fn fn, void *arg, int *sets,
                          char **why);
    /* Appends the query so that it finds nothing but what has the letters of its texts, and no
     * accents that they do not have.  NULL: the database does not find anything else. */
    void (*exact)(void *conn, const char *query, struct sbuf *out);
};

extern const struct sql_ops sql_mysql, sql_pgsql, sql_sqlite;

#endif
