/*
 * maps/sql_pgsql.c - PostgreSQL behind pgsql: tables; see sql.h
 *
 * The non-blocking calls of libpq and poll, so that a server that stops answering is noticed.
 */
#include <libpq-fe.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "maps/sql.h"
#include "util/clock.h"
#include "util/mem.h"

#define BAD_URI "a malformed postgresql:// address in hosts (percent-encode the password)"

static char *pgsql_message(PGconn *db) {
    struct str text = str_trim(str_of(PQerrorMessage(db)));
    char *copy = str_dup(text.n > 0 ? text : STR_LIT("no answer"));
    for (char *p = copy; *p != '\0'; p++)
        if (*p == '\n')
            *p = ' ';
    return copy;
}

static bool connect_done(PGconn *db) {
    int64_t until = clock_mono_ms() + 1000 * REMOTE_CONNECT_S;
    for (;;) {
        switch (PQconnectPoll(db)) {
        case PGRES_POLLING_OK:
            return true;
        case PGRES_POLLING_READING:
            if (!pool_wait(PQsocket(db), POLLIN, until))
                return false;
            break;
        case PGRES_POLLING_WRITING:
            if (!pool_wait(PQsocket(db), POLLOUT, until))
                return false;
            break;
        default:
            return false;
        }
    }
}

static bool is_uri(const char *name) {
    struct str host = str_of(name);
    return str_istarts(host, "postgresql://") || str_istarts(host, "postgres://");
}

static void add_option(struct sbuf *b, const PQconninfoOption *options, const char *keyword,
                       const char *before) {
    for (const PQconninfoOption *o = options; o->keyword != NULL; o++)
        if (strcmp(o->keyword, keyword) == 0 && o->val != NULL)
            sbuf_printf(b, "%s%s", before, o->val);
}

/* Where a URI leads to, without user and password. */
static char *pg_show(const char *name) {
    struct sbuf b = {0};
    if (!is_uri(name))
        return NULL;
    PQconninfoOption *options = PQconninfoParse(name, NULL);
    if (options == NULL)
        return mem_strdup(BAD_URI);
    add_option(&b, options, "host", "postgresql://");
    add_option(&b, options, "port", ":");
    add_option(&b, options, "dbname", "/");
    PQconninfoFree(options);
    return sbuf_take(&b);
}

/* "host", "host:port", "inet:host:port", "unix:/directory" as parts; "postgresql://…" is a whole
 * connection string. */
static PGconn *pgsql_start(const char *name, const struct tabconf *c) {
    struct str host = str_of(name), port = STR_LIT("");
    if (is_uri(name))
        return PQconnectStart(name);
    if (str_istarts(host, "unix:") || str_istarts(host, "inet:"))
        host = str_from(host, 5);
    ptrdiff_t colon = str_rchr(host, ':');
    if (colon >= 0 && host.p[0] != '/') {
        port = str_from(host, (size_t)colon + 1);
        host = str_make(host.p, (size_t)colon);
    }
    char *h = str_dup(host), *p = str_dup(port);
    const char *const keys[] = {"host", "port", "dbname", "user", "password", "client_encoding",
                                NULL};
    const char *const values[] = {h,
                                  p,
                                  tabconf_str(c, "dbname", ""),
                                  tabconf_str(c, "user", ""),
                                  tabconf_str(c, "password", ""),
                                  tabconf_str(c, "encoding", "UTF8"),
                                  NULL};
    PGconn *db = PQconnectStartParams(keys, values, 0);
    free(h);
    free(p);
    return db;
}

static void *pg_connect(const char *host, const struct tabconf *c, char **why) {
    PQconninfoOption *options = is_uri(host) ? PQconninfoParse(host, NULL) : NULL;
    if (is_uri(host) && options == NULL) { /* libpq's own words would quote the password */
        *why = mem_strdup(BAD_URI);
        return NULL;
    }
    PQconninfoFree(options);
    PGconn *db = pgsql_start(host, c);
    if (db != NULL && PQstatus(db) != CONNECTION_BAD && connect_done(db)) {
        PQsetnonblocking(db, 1);
        return db;
    }
    *why = db == NULL ? mem_strdup("out of memory") : pgsql_message(db);
    PQfinish(db);
    return NULL;
}

static void pg_close(void *conn) {
    PQfinish(conn);
}

static void pg_quote(void *conn, struct str text, struct sbuf *out) {
    char *at = sbuf_room(out, 2 * text.n + 1);
    sbuf_advance(out, PQescapeStringConn(conn, at, text.p, text.n, NULL));
}

static void pgsql_take_rows(const PGresult *r, sql_value_fn fn, void *arg) {
    for (int i = 0; i < PQntuples(r); i++)
        for (int k = 0; k < PQnfields(r); k++) {
            bool null = PQgetisnull(r, i, k) != 0;
            fn(arg, null ? STR_NONE : str_make(PQgetvalue(r, i, k), (size_t)PQgetlength(r, i, k)));
        }
}

/* Sends the query and waits until a result can be taken without blocking. */
static bool pg_wait(PGconn *db, int64_t until) {
    for (int rc = 1; rc > 0;) {
        rc = PQflush(db);
        if (rc < 0 || (rc > 0 && !pool_wait(PQsocket(db), POLLOUT, until)))
            return false;
    }
    while (PQisBusy(db) != 0)
        if (!pool_wait(PQsocket(db), POLLIN, until) || PQconsumeInput(db) == 0)
            return false;
    return true;
}

/* A query that copies rows (COPY) would go on for ever: its connection is of no use. */
static enum remote_rc pgsql_result_check(PGconn *db, const PGresult *r, char **why) {
    ExecStatusType status = PQresultStatus(r);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
        return REMOTE_OK;
    free(*why);
    if (status == PGRES_BAD_RESPONSE || status == PGRES_NONFATAL_ERROR ||
        status == PGRES_FATAL_ERROR || status == PGRES_EMPTY_QUERY) {
        *why = pgsql_message(db);
        return PQstatus(db) == CONNECTION_BAD ? REMOTE_LOST : REMOTE_FAILED;
    }
    *why = mem_strdup("the query gives no rows: it has to be a SELECT");
    return REMOTE_LOST;
}

/* Of several statements the last one counts, as in Postfix, unless one of them fails. */
static enum remote_rc pg_ask(void *conn, const char *query, sql_value_fn fn, void *arg, int *sets,
                             char **why) {
    PGconn *db = conn;
    PGresult *last = NULL, *r = NULL;
    enum remote_rc rc = REMOTE_OK;
    int64_t until = clock_mono_ms() + 1000 * REMOTE_ANSWER_S;
    if (PQsendQuery(db, query) == 0)
        rc = REMOTE_LOST;
    while (rc != REMOTE_LOST) {
        if (!pg_wait(db, until)) {
            rc = REMOTE_LOST;
            break;
        }
        if ((r = PQgetResult(db)) == NULL)
            break;
        enum remote_rc one = pgsql_result_check(db, r, why);
        rc = rc == REMOTE_OK || one == REMOTE_LOST ? one : rc;
        PQclear(last);
        last = r;
    }
    if (rc == REMOTE_LOST && *why == NULL)
        *why = pgsql_message(db);
    if (rc == REMOTE_OK && PQresultStatus(last) == PGRES_TUPLES_OK) {
        pgsql_take_rows(last, fn, arg);
        ++*sets;
    }
    PQclear(last);
    return rc;
}

const struct sql_ops sql_pgsql = {
    .host = "localhost", .pool = {pg_connect, pg_close, pg_show}, .quote = pg_quote, .ask = pg_ask};
