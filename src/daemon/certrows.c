/*
 * daemon/certrows.c - certificates that rows of tables name, or hold; see certrows.h
 *
 * What is noted of smtp_tls_policy_maps are the names of files, a line each.
 */
#include "daemon/certrows.h"

#include <stdlib.h>
#include <string.h>

#include "maps/maps.h"
#include "util/fs.h"

#define POLICY_MAPS      "smtp_tls_policy_maps"
#define POLICY_TABLE_MAX (8U << 20)

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
    while (str_split(&rest, "\n", &one)) {
        struct sbuf path = {0};
        sbuf_printf(&path, "%s%s%.*s", one.p[0] == '/' ? "" : cfg->dir, one.p[0] == '/' ? "" : "/",
                    STR_FMT(one));
        fn(arg, path.p);
        sbuf_free(&path);
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

void certrows_read(struct config *cfg) {
    for (size_t i = 0; i <= cfg->n_services; i++) {
        const char *policies = certrows_params(cfg, i)->smtp_tls_policy_maps;
        if (policies[0] != '\0' && (i == 0 || strcmp(policies, cfg->p.smtp_tls_policy_maps) != 0))
            policy_rows_read(cfg, policies);
    }
}

void certrows_files(const struct config *cfg, const struct params *p, bool server,
                    void (*fn)(void *arg, const char *file), void *arg) {
    if (!server)
        policy_rows_files(cfg, p->smtp_tls_policy_maps, fn, arg);
}

void certrows_tables(const struct config *cfg, void (*fn)(void *arg, const char *file), void *arg) {
    for (size_t i = 0; i <= cfg->n_services; i++) {
        const char *policies = certrows_params(cfg, i)->smtp_tls_policy_maps;
        if (i == 0 || strcmp(policies, cfg->p.smtp_tls_policy_maps) != 0)
            spec_tables(policies, fn, arg);
    }
}

void certrows_take(struct config *next, const struct config *now, const struct params *p,
                   bool server) {
    if (!server)
        config_rows_take(next, now, POLICY_MAPS, p->smtp_tls_policy_maps);
}
