/*
 * accounts/run_sql.c - one statement on a store in a database; see inside.h
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

static void ignore(void *arg, struct str value) {
    (void)arg;
    (void)value;
}

enum store_rc store_sql_run(struct store *st, const char *text, const char *const *args,
                            sql_value_fn fn, void *arg, char **why) {
    struct statement s = {st, text, args, fn == NULL ? ignore : fn, arg};
    char *e = NULL;
    if (pool_use(st->pool, run_conn, &s, &e) == REMOTE_OK)
        return STORE_YES;
    struct sbuf b = {0};
    sbuf_printf(&b, "%s: %s", st->spec, e);
    free(e);
    *why = sbuf_take(&b);
    return STORE_ERROR;
}
