/*
 * maps/sql_sqlite.c - SQLite behind sqlite: tables; see sql.h
 */
#include <stdlib.h>
#include <string.h>

#include "maps/sql.h"
#include "util/lite.h"
#include "util/mem.h"

static void *lite_connect(const char *host, const struct tabconf *c, char **why) {
    sqlite3 *db = NULL;
    const char *bad = NULL;
    bool rw = tabconf_bool(c, "writable", false, &bad); /* the accounts store's, never a table's */
    int rc = rw ? lite_open(host, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX)
                : sqlite3_open_v2(host, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc != SQLITE_OK) {
        *why = mem_strdup(db == NULL ? sqlite3_errstr(rc) : sqlite3_errmsg(db));
        sqlite3_close(db);
        return NULL;
    }
    sqlite3_busy_timeout(db, 1000 * REMOTE_CONNECT_S);
    lite_sort_in_memory(db);
    return db;
}

static void lite_close(void *conn) {
    sqlite3_close(conn);
}

static void lite_quote(void *conn, struct str text, struct sbuf *out) {
    (void)conn;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '\'')
            sbuf_add_ch(out, '\'');
        sbuf_add_ch(out, text.p[i]);
    }
}

/* Of a table only the first column counts (sqlite_table(5)). */
static void take_row(sqlite3_stmt *st, sql_value_fn fn, void *arg, bool all) {
    for (int i = 0; i < (all ? sqlite3_column_count(st) : 1); i++) {
        const char *p = (const char *)sqlite3_column_text(st, i);
        size_t n = (size_t)sqlite3_column_bytes(st, i);
        fn(arg, p == NULL ? STR_NONE : str_make(p, n));
    }
}

static enum remote_rc lite_ask(void *conn, const char *query, sql_value_fn fn, void *arg, int *sets,
                               char **why) {
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(conn, query, -1, &st, NULL);
    bool all = *sets == SQL_ALL_COLUMNS;
    *sets = 1;
    while (rc == SQLITE_OK && st != NULL) {
        int step = sqlite3_step(st);
        if (step == SQLITE_ROW)
            take_row(st, fn, arg, all);
        else if (step == SQLITE_DONE)
            break;
        else
            rc = step;
    }
    if (rc != SQLITE_OK)
        *why = mem_strdup(sqlite3_errmsg(conn));
    sqlite3_finalize(st);
    if (rc == SQLITE_OK)
        return REMOTE_OK;
    return rc == SQLITE_ERROR || rc == SQLITE_CONSTRAINT ? REMOTE_FAILED : REMOTE_LOST;
}

const struct sql_ops sql_sqlite = {
    .pool = {lite_connect, lite_close}, .quote = lite_quote, .ask = lite_ask};
