/*
 * daemon/certrows.c - certificates that rows of tables name, or hold; see certrows.h
 *
 * What is noted of smtp_tls_policy_maps are the names of files, a line each; of tls_server_sni_maps
 * all rows (enum config_row).  Keys and certificates are in files, or in the rows.
 */
#include "daemon/certrows.h"

#include <stdlib.h>
#include <string.h>

#include "maps/maps.h"
#include "util/fs.h"

#define SNI_MAPS         "tls_server_sni_maps"
#define POLICY_MAPS      "smtp_tls_policy_maps"
#define POLICY_TABLE_MAX (8U << 20)

/* Calls fn with the path of a file that a row names. */
static void visit_file(const struct config *cfg, struct str file,
                       void (*fn)(void *arg, const char *file), void *arg) {
    struct sbuf path = {0};
    sbuf_printf(&path, "%s%s%.*s", file.p[0] == '/' ? "" : cfg->dir, file.p[0] == '/' ? "" : "/",
                STR_FMT(file));
    fn(arg, path.p);
    sbuf_free(&path);
}

/* -- smtp_tls_policy_maps -- */

struct policy_scan {
    struct config *cfg;
    struct sbuf files;
};

/* Notes and reads each file behind tafile= in a text. */
static void policy_scan_text(struct policy_scan *scan, struct str text) {
    struct str word;
    int err;
    while (str_split(&text, ", \t\r\n{}", &word)) {
        if (!str_istarts(word, "tafile=") || word.n == 7)
            continue;
        char *file = str_dup(str_from(word, 7));
        config_file(scan->cfg, file, &err);
        sbuf_printf(&scan->files, "%s\n", file);
        free(file);
    }
}

static int policy_scan_row(void *arg, struct str key, struct str value) {
    (void)key;
    policy_scan_text(arg, value);
    return 0;
}

/* A table of patterns cannot be listed: its text is looked through. */
static void policy_scan_table(struct policy_scan *scan, struct map *m) {
    struct sbuf text = {0};
    policy_scan_text(scan, str_of(m->spec));
    if (m->ops->remote)
        return;
    if (m->ops->each != NULL && m->opened)
        map_each(m, policy_scan_row, scan);
    else if (m->ops->each == NULL && m->name[0] == '/' &&
             fs_read(m->name, &text, POLICY_TABLE_MAX) == 0)
        policy_scan_text(scan, sbuf_str(&text));
    sbuf_free(&text);
}

static void policy_rows_read(struct config *cfg, const char *spec) {
    struct policy_scan scan = {.cfg = cfg};
    struct maps *m = maps_open(spec, cfg->dir);
    for (size_t i = 0; i < m->n; i++)
        policy_scan_table(&scan, m->v[i]);
    maps_close(m);
    config_rows_keep(cfg, POLICY_MAPS, spec, &scan.files);
}

static void policy_rows_files(const struct config *cfg, const char *spec,
                              void (*fn)(void *arg, const char *file), void *arg) {
    struct str rest = config_rows(cfg, POLICY_MAPS, spec), one;
    while (str_split(&rest, "\n", &one))
        visit_file(cfg, one, fn, arg);
}

/* -- tls_server_sni_maps -- */

struct sni_scan {
    struct config *cfg;
    enum config_row kind; /* of the table's rows */
    struct sbuf rows;
};

static void sni_note(struct sni_scan *scan, enum config_row kind, struct str key,
                     struct str value) {
    ipc_put_u32(&scan->rows, (uint32_t)kind);
    ipc_put_str(&scan->rows, key);
    ipc_put_str(&scan->rows, value);
}

static int sni_scan_row(void *arg, struct str key, struct str value) {
    struct sni_scan *scan = arg;
    struct str rest = value, one;
    int err;
    sni_note(scan, scan->kind, key, value);
    while (scan->kind == CONFIG_ROW_FILES && str_split(&rest, ", \t\r\n", &one)) {
        char *file = str_dup(one);
        config_file(scan->cfg, file, &err);
        free(file);
    }
    return 0;
}

/* False: the table cannot be asked. */
static bool sni_scan_table(struct sni_scan *scan, struct map *m) {
    scan->kind =
        m->ops == &map_texthash || m->ops == &map_inline ? CONFIG_ROW_FILES : CONFIG_ROW_PEM;
    sni_note(scan, CONFIG_ROW_TABLE, str_of(m->spec), STR_NONE);
    if (!m->opened || m->ops->remote || m->ops->each == NULL) {
        const char *why = m->opened ? "its rows cannot be listed: use a table that postmap -F "
                                      "makes, or texthash"
                                    : m->err;
        sni_note(scan, CONFIG_ROW_END, STR_NONE, str_of(why));
        return false;
    }
    if (map_each(m, sni_scan_row, scan) == 0)
        return true;
    char *why = map_error(m);
    sni_note(scan, CONFIG_ROW_END, STR_NONE, str_of(why));
    free(why);
    return false;
}

static void sni_rows_read(struct config *cfg, const char *spec) {
    struct sni_scan scan = {.cfg = cfg};
    struct maps *m = maps_open(spec, cfg->dir);
    for (size_t i = 0; i < m->n && sni_scan_table(&scan, m->v[i]); i++)
        ;
    maps_close(m);
    config_rows_keep(cfg, SNI_MAPS, spec, &scan.rows);
}

static void sni_rows_files(const struct config *cfg, const char *spec,
                           void (*fn)(void *arg, const char *file), void *arg) {
    struct ipc_reader r = {config_rows(cfg, SNI_MAPS, spec), false};
    while (r.rest.n > 0 && !r.bad) {
        enum config_row kind = (enum config_row)ipc_get_u32(&r);
        ipc_get_str(&r);
        struct str files = ipc_get_str(&r), one;
        while (kind == CONFIG_ROW_FILES && str_split(&files, ", \t\r\n", &one))
            visit_file(cfg, one, fn, arg);
    }
}

/* -- the files of tables -- */

static void table_file(const struct map_ops *ops, struct str name,
                       void (*fn)(void *arg, const char *file), void *arg) {
    struct sbuf path = {0};
    if (ops == NULL || ops->remote || name.n == 0 || name.p[0] != '/')
        return;
    sbuf_printf(&path, "%.*s%s", STR_FMT(name), ops->suffix == NULL ? "" : ops->suffix);
    fn(arg, path.p);
    sbuf_free(&path);
}

static void spec_tables(const char *spec, void (*fn)(void *arg, const char *file), void *arg) {
    struct str rest = str_of(spec), one;
    while (str_split_braces(&rest, ", \t\r\n", &one)) {
        if (str_istarts(one, "proxy:"))
            one = str_from(one, 6);
        ptrdiff_t colon = str_chr(one, ':');
        if (colon > 0)
            table_file(map_type(str_make(one.p, (size_t)colon)), str_from(one, (size_t)colon + 1),
                       fn, arg);
    }
}

/* -- both sides -- */

static const struct params *certrows_params(const struct config *cfg, size_t at) {
    return at == 0 ? &cfg->p : &cfg->services[at - 1]->p;
}

static const char *certrows_spec(const struct params *p, bool server) {
    return server ? p->tls_server_sni_maps : p->smtp_tls_policy_maps;
}

/* Calls fn for each side of main.cf, and of each service that has other tables. */
static void certrows_each(const struct config *cfg,
                          void (*fn)(void *arg, const char *spec, bool server), void *arg) {
    for (size_t i = 0; i <= cfg->n_services; i++)
        for (int server = 0; server < 2; server++) {
            const char *spec = certrows_spec(certrows_params(cfg, i), server == 1);
            bool other = i == 0 || strcmp(spec, certrows_spec(&cfg->p, server == 1)) != 0;
            if (spec[0] != '\0' && other)
                fn(arg, spec, server == 1);
        }
}

static void certrows_read_one(void *arg, const char *spec, bool server) {
    (server ? sni_rows_read : policy_rows_read)(arg, spec);
}

void certrows_read(struct config *cfg) {
    certrows_each(cfg, certrows_read_one, cfg);
}

void certrows_files(const struct config *cfg, const struct params *p, bool server,
                    void (*fn)(void *arg, const char *file), void *arg) {
    (server ? sni_rows_files : policy_rows_files)(cfg, certrows_spec(p, server), fn, arg);
}

struct tables_visit {
    void (*fn)(void *arg, const char *file);
    void *arg;
};

static void certrows_tables_one(void *arg, const char *spec, bool server) {
    struct tables_visit *visit = arg;
    (void)server;
    spec_tables(spec, visit->fn, visit->arg);
}

void certrows_tables(const struct config *cfg, void (*fn)(void *arg, const char *file), void *arg) {
    struct tables_visit visit = {fn, arg};
    certrows_each(cfg, certrows_tables_one, &visit);
}

void certrows_take(struct config *next, const struct config *now, const struct params *p,
                   bool server) {
    config_rows_take(next, now, server ? SNI_MAPS : POLICY_MAPS, certrows_spec(p, server));
}
