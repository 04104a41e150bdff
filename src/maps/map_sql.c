/*
 * maps/map_sql.c - tables in SQL databases: mysql, pgsql, sqlite
 *
 * As mysql_table(5), pgsql_table(5) and sqlite_table(5) have it.  Any number of threads ask at
 * once: each takes an idle connection or makes one.  A host that fails rests for retry_interval
 * while another one answers; when none does, the question fails, and is never "not found".
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "maps/dbtable.h"
#include "maps/maps.h"
#include "maps/sql.h"
#include "maps/template.h"
#include "util/mem.h"

struct sql {
    const struct sql_ops *ops;
    struct map *m;
    struct tabconf *conf;
    struct pool *pool;
    char *query;
    const char *result_format;
    struct matchlist *domains; /* NULL: all */
    int64_t expansion_limit;
    bool require_result_set;
};

/* Query of the time before "query": table, select_field, where_field, additional_conditions. */
static char *legacy_query(const struct tabconf *c, const struct sql_ops *ops) {
    struct sbuf b = {0};
    const char *function = tabconf_str(c, "select_function", NULL);
    const char *table = tabconf_str(c, "table", NULL),
               *field = tabconf_str(c, "select_field", NULL);
    const char *where = tabconf_str(c, "where_field", NULL);
    if (function != NULL && ops == &sql_pgsql)
        sbuf_printf(&b, "SELECT %s('%%s')", function);
    else if (table != NULL && field != NULL && where != NULL)
        sbuf_printf(&b, "SELECT %s FROM %s WHERE %s = '%%s' %s", field, table, where,
                    tabconf_str(c, "additional_conditions", ""));
    return sbuf_take(&b);
}

/* NULL, or what is wrong with the file. */
static const char *sql_map_take_conf(struct sql *q, const char **bad) {
    const struct tabconf *c = q->conf;
    const char *query = tabconf_str(c, "query", NULL);
    bool local = q->ops->host == NULL;
    int64_t idle = tabconf_int(c, "idle_interval", 60, bad);
    int64_t retry = local ? 0 : tabconf_int(c, "retry_interval", 60, bad);
    q->query = query != NULL ? mem_strdup(query) : legacy_query(c, q->ops);
    q->result_format = tabconf_str(c, "result_format", "%s");
    q->expansion_limit = tabconf_int(c, "expansion_limit", 0, bad);
    q->require_result_set = tabconf_bool(c, "require_result_set", true, bad);
    q->domains = dbtable_domains(c);
    q->pool = pool_new(&q->ops->pool, c, q->m->spec,
                       local ? tabconf_str(c, "dbpath", "") : tabconf_str(c, "hosts", q->ops->host),
                       local ? 0 : 1000 * idle, 1000 * retry); /* the file may be another one */
    if (q->query == NULL || *q->query == '\0')
        return "it has no \"query\"";
    if (pool_hosts(q->pool) == 0)
        return local ? "it has no \"dbpath\"" : "it has no \"hosts\"";
    const char *why = matchlist_unopened(q->domains);
    why = why != NULL ? why : template_check(q->query);
    return why != NULL ? why : template_check(q->result_format);
}

static void sql_shut(struct map *m) {
    struct sql *q = m->state;
    pool_free(q->pool);
    matchlist_close(q->domains);
    free(q->query);
    tabconf_free(q->conf);
    free(q);
}

static int sql_open(struct map *m, const struct sql_ops *ops) {
    const char *bad = NULL;
    struct tabconf *c = dbtable_conf(m);
    if (c == NULL)
        return -ENOENT;
    struct sql *q = MEM_NEW(struct sql);
    q->ops = ops;
    q->m = m;
    q->conf = c;
    m->state = q;
    const char *wrong = sql_map_take_conf(q, &bad);
    int rc = dbtable_check(m, wrong, bad);
    if (rc < 0)
        sql_shut(m);
    return rc;
}

static int mysql_open(struct map *m) {
    return sql_open(m, &sql_mysql);
}

static int pgsql_open(struct map *m) {
    return sql_open(m, &sql_pgsql);
}

static int sqlite_open(struct map *m) {
    return sql_open(m, &sql_sqlite);
}

struct ask {
    struct sql *q;
    struct dbvalues values;
};

static void take_value(void *arg, struct str value) {
    dbvalues_add(arg, value);
}

struct quoting {
    const struct sql_ops *ops;
    void *conn;
};

static void quote(void *arg, struct str text, struct sbuf *out) {
    const struct quoting *g = arg;
    g->ops->quote(g->conn, text, out);
}

static enum remote_rc sql_map_ask_once(struct ask *a, void *conn, const char *query, char **why) {
    int sets = 0;
    dbvalues_reset(&a->values);
    enum remote_rc rc = a->q->ops->ask(conn, query, take_value, &a->values, &sets, why);
    if (rc == REMOTE_OK && sets == 0 && a->q->require_result_set) {
        *why = mem_strdup("the query gave no result set (require_result_set)");
        rc = REMOTE_FAILED;
    } else if (rc == REMOTE_OK && sets > 1) {
        *why = mem_strdup("the query gave more than one result set");
        rc = REMOTE_FAILED;
    }
    return rc;
}

/* One question over one connection.  An exact one may find its row without an index: only what was
 * found is asked for so. */
static enum remote_rc sql_map_ask_conn(void *arg, void *conn, char **why) {
    struct ask *a = arg;
    struct sql *q = a->q;
    struct sbuf query = {0}, exact = {0};
    struct quoting g = {q->ops, conn};
    template_query(q->query, a->values.key, quote, &g, &query);
    enum remote_rc rc = sql_map_ask_once(a, conn, query.p, why);
    if (rc == REMOTE_OK && a->values.n > 0 && q->ops->exact != NULL &&
        !str_is_ascii(a->values.key)) {
        q->ops->exact(conn, query.p, &exact);
        rc = sql_map_ask_once(a, conn, exact.p, why);
    }
    sbuf_free(&query);
    sbuf_free(&exact);
    return rc;
}

static bool has_parts(const struct sql *q, struct str key) {
    struct sbuf dry = {0};
    bool ok = template_query(q->query, key, NULL, NULL, &dry);
    sbuf_free(&dry);
    return ok;
}

static bool sql_asks(struct map *m, struct str key) {
    struct sql *q = m->state;
    return has_parts(q, key) && dbtable_may_ask(key, q->domains);
}

/* MAP_FOUND: the database is asked for key. */
static enum map_rc sql_has_key(struct map *m, struct str key) {
    const struct sql *q = m->state;
    return has_parts(q, key) ? dbtable_has_key(m, key, q->domains) : MAP_NOT_FOUND;
}

static enum map_rc sql_get(struct map *m, struct str key, struct sbuf *value) {
    struct sql *q = m->state;
    struct ask a = {.q = q, .values = {.key = key, .format = q->result_format}};
    char *why = NULL;
    enum map_rc asked = sql_has_key(m, key);
    if (asked != MAP_FOUND)
        return asked;
    enum remote_rc rc = pool_ask(q->pool, sql_map_ask_conn, &a, &why);
    return dbvalues_end(&a.values, m, rc, why, q->expansion_limit, value);
}

static void quote_shown(void *arg, struct str text, struct sbuf *out) {
    (void)arg;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == '\'')
            sbuf_add_ch(out, '\'');
        sbuf_add_ch(out, text.p[i]);
    }
}

/* The statement; with its database, but never with the user that asks. */
static void sql_where(struct map *m, struct str key, struct sbuf *out) {
    const struct sql *q = m->state;
    struct sbuf query = {0};
    bool local = q->ops->host == NULL;
    if (sql_has_key(m, key) != MAP_FOUND) {
        dbtable_add_not_asked("query", out);
        return;
    }
    template_query(q->query, key, quote_shown, NULL, &query);
    sbuf_printf(out, "%s%s: %s", local ? "" : "database ",
                tabconf_str(q->conf, local ? "dbpath" : "dbname", ""), query.p);
    sbuf_free(&query);
}

const struct map_ops map_mysql = {.type = "mysql",
                                  .suffix = "",
                                  .fixed = true,
                                  .shared = true,
                                  .remote = true,
                                  .open = mysql_open,
                                  .close = sql_shut,
                                  .get = sql_get,
                                  .where = sql_where,
                                  .asks = sql_asks};

const struct map_ops map_pgsql = {.type = "pgsql",
                                  .suffix = "",
                                  .fixed = true,
                                  .shared = true,
                                  .remote = true,
                                  .open = pgsql_open,
                                  .close = sql_shut,
                                  .get = sql_get,
                                  .where = sql_where,
                                  .asks = sql_asks};

const struct map_ops map_sqlite = {.type = "sqlite",
                                   .suffix = "",
                                   .fixed = true,
                                   .shared = true,
                                   .remote = true,
                                   .open = sqlite_open,
                                   .close = sql_shut,
                                   .get = sql_get,
                                   .where = sql_where,
                                   .asks = sql_asks};
