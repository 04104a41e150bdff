/*
 * accounts/run_sql.c - statements on a store in a database; see inside.h
 */
#include <stdlib.h>

#include "accounts/inside.h"
#include "util/mem.h"

struct statement {
    struct store *st;
    const char *text;
    const char *const *args;
    sql_value_fn fn;
    void *arg;
};

static void ignore(void *arg, struct str value) {
    (void)arg;
    (void)value;
}

static enum remote_rc run_conn(void *arg, void *conn, char **why) {
    const struct statement *s = arg;
    struct sbuf sql = {0};
    const char *const *a = s->args;
    int sets = SQL_ALL_COLUMNS;
    for (const char *p = s->text; *p != '\0'; p++) {
        if (*p != '?') {
            sbuf_add_ch(&sql, *p);
            continue;
        }
        sbuf_add_ch(&sql, '\'');
        s->st->sql->quote(conn, str_of(*a++), &sql);
        sbuf_add_ch(&sql, '\'');
    }
    enum remote_rc rc = s->st->sql->ask(conn, sql.p, s->fn, s->arg, &sets, why);
    sbuf_wipe(&sql);
    return rc;
}

/* Statements of one transaction. */
struct sql_work {
    struct store *st;
    const struct sql_statement *list;
    size_t n;
};

static enum remote_rc work_say(const struct sql_work *w, void *conn, const char *text,
                               const char *const *args, char **why) {
    struct statement s = {w->st, text, args, ignore, NULL};
    return run_conn(&s, conn, why);
}

/* Where ROLLBACK fails the connection is closed: then the server takes the change back. */
static enum remote_rc work_conn(void *arg, void *conn, char **why) {
    const struct sql_work *w = arg;
    char *unsaid = NULL;
    enum remote_rc rc = work_say(w, conn, "BEGIN", NULL, why);
    if (rc != REMOTE_OK)
        return rc;
    for (size_t i = 0; i < w->n && rc == REMOTE_OK; i++)
        rc = work_say(w, conn, w->list[i].text, w->list[i].args, why);
    if (rc == REMOTE_OK)
        rc = work_say(w, conn, "COMMIT", NULL, why);
    if (rc == REMOTE_FAILED && work_say(w, conn, "ROLLBACK", NULL, &unsaid) != REMOTE_OK)
        rc = REMOTE_LOST;
    free(unsaid);
    return rc;
}

static enum store_rc sql_use(struct store *st, enum remote_rc (*fn)(void *, void *, char **),
                             void *arg, char **why) {
    struct sbuf b = {0};
    char *e = NULL;
    if (pool_use(st->pool, fn, arg, &e) == REMOTE_OK)
        return STORE_YES;
    sbuf_printf(&b, "%s: %s", st->spec, e);
    free(e);
    *why = sbuf_take(&b);
    return STORE_ERROR;
}

enum store_rc store_sql_change(struct store *st, const struct sql_statement *list, size_t n,
                               char **why) {
    struct sql_work w = {st, list, n};
    return sql_use(st, work_conn, &w, why);
}

enum store_rc store_sql_run(struct store *st, const char *text, const char *const *args,
                            sql_value_fn fn, void *arg, char **why) {
    struct statement s = {st, text, args, fn == NULL ? ignore : fn, arg};
    return sql_use(st, run_conn, &s, why);
}

struct sought {
    const char *name; /* NULL: any */
    bool there;
};

static void take_sought(void *arg, struct str value) {
    struct sought *s = arg;
    s->there = s->there || s->name == NULL || str_ieq_c(value, s->name);
}

enum store_rc store_sql_has(struct store *st, const char *text, const char *name, char **why) {
    struct sought s = {name, false};
    const char *args[] = {name};
    enum store_rc rc = store_sql_run(st, text, args, take_sought, &s, why);
    return rc == STORE_YES && !s.there ? STORE_NO : rc;
}
