/*
 * daemon/audit_tables.c - posthouse check: the tables that a configuration names
 *
 * Is one missing or older than its source, are all its lines used, does a row of an access table
 * ask for what is not done?  The parameters of main.cf are looked at, and what a service of
 * master.cf has instead of them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/secret.h"
#include "daemon/audit.h"
#include "maps/maps.h"
#include "receive/access.h"
#include "util/net.h"

/* Where a list of tables stands. */
struct table_place {
    const struct config *c;
    struct diags *d;
    const char *name; /* of the parameter */
    const char *file;
    int line;
};

enum list_kind {
    LIST_NONE,        /* a parameter without tables */
    LIST_TABLES,      /* nothing else is in it */
    LIST_WORDS,       /* among names, addresses, networks; "!" may stand before one */
    LIST_RESTRICTIONS /* behind words that say what is looked up */
};

static enum list_kind list_kind_of(const char *name) {
    static const char *const restrictions[] = {"_restrictions", "_header_rewrite_clients"};
    static const char *const words[] = {"_exclusions", "_exceptions", "networks",
                                        "_domains",    "_users",      "destination"};
    static const char *const tables[] = {"_maps", "_reply_filter", "_status_filter",
                                         "_clientcerts"};
    if (str_end_of(name, restrictions, sizeof restrictions / sizeof restrictions[0]) >= 0)
        return LIST_RESTRICTIONS;
    if (str_end_of(name, words, sizeof words / sizeof words[0]) >= 0)
        return LIST_WORDS;
    if (str_end_of(name, tables, sizeof tables / sizeof tables[0]) >= 0)
        return LIST_TABLES;
    return LIST_NONE;
}

/* A word of a list that has nothing but tables. */
static void audit_bare_word(const struct table_place *at, struct str word) {
    bool hidden = secret_param(at->name) != SECRET_NOT && word.p[0] != '/';
    if (hidden)
        word = STR_LIT("(hidden)");
    diag_add(at->d, DIAG_ERROR, at->file, at->line,
             "%s: \"%.*s\" is no table: a type belongs before it (hash:%.*s)", at->name,
             STR_FMT(word), STR_FMT(word));
}

/* -- rows of access tables -- */

struct table_rows {
    const struct table_place *at;
    const struct map *table;
    bool addresses; /* it stands in a table of addresses, too */
    size_t said;
};

static int audit_action(void *arg, struct str key, struct str value) {
    struct table_rows *rows = arg;
    struct str word = access_action_unknown(str_trim(value));
    struct sbuf row = {0};
    if (word.n == 0 || word.p[0] == '$' || ++rows->said > AUDIT_SHOWN)
        return 0;
    sbuf_add_safe(&row, key);
    sbuf_add_c(&row, "\" -> \"");
    sbuf_add_safe(&row, str_trim(value));
    diag_add(rows->at->d, DIAG_ERROR, rows->at->file, rows->at->line,
             "%s: %s: \"%s\": Posthouse has no action \"%.*s\": what meets that row is refused, "
             "451 4.3.5",
             rows->at->name, rows->table->spec, row.p, STR_FMT(word));
    sbuf_free(&row);
    return 0;
}

static void audit_actions(const struct table_place *at, struct map *m) {
    struct table_rows rows = {.at = at, .table = m};
    map_rows(m, audit_action, &rows);
    if (rows.said > AUDIT_SHOWN)
        diag_add(at->d, DIAG_ERROR, at->file, at->line, "%s: %s: %zu more rows like these",
                 at->name, m->spec, rows.said - AUDIT_SHOWN);
}

/* -- keys that nothing asks for -- */

/* One file may hold domains and the addresses in them: "@domain" is a key of the latter. */
static bool table_has_addresses(const struct config *c, const char *spec) {
    static const char *const names[] = {"virtual_alias_maps", "virtual_mailbox_maps"};
    bool has = false;
    for (size_t i = 0; i < 2; i++) {
        char *value = config_value(c, names[i], NULL);
        struct str rest = str_of(value == NULL ? "" : value), one;
        while (!has && str_split_braces(&rest, ", \t\r\n", &one))
            has = str_eq_c(one, spec);
        free(value);
    }
    return has;
}

/* NULL, or why a key of a list of domains, or of an access table, is never asked.
 * addresses: keys with "@" are asked for another parameter. */
static const char *key_unasked(struct str key, bool access, bool addresses) {
    ptrdiff_t at = str_rchr(key, '@');
    if (at == 0 && key.n > 1 && !addresses)
        return "@domain is no key here: write the domain alone";
    if (key.n > 1 && key.p[key.n - 1] == '.' && (!access || at > 0))
        return "a dot at the end is never asked: write the domain without it";
    return NULL;
}

static int audit_key(void *arg, struct str key, struct str value) {
    struct table_rows *rows = arg;
    const struct table_place *at = rows->at;
    const char *why =
        key_unasked(key, list_kind_of(at->name) == LIST_RESTRICTIONS, rows->addresses);
    struct sbuf shown = {0}, table = {0};
    (void)value;
    if (why == NULL || ++rows->said > AUDIT_SHOWN)
        return 0;
    sbuf_add_safe(&shown, key);
    maps_show(rows->table->spec, &table);
    diag_add(at->d, DIAG_WARN, at->file, at->line, "%s: %s: \"%s\": %s", at->name, table.p, shown.p,
             why);
    sbuf_free(&shown);
    sbuf_free(&table);
    return 0;
}

static bool is_list_of_domains(const char *name) {
    static const char *const ends[] = {"_domains", "destination"};
    return str_end_of(name, ends, sizeof ends / sizeof ends[0]) >= 0;
}

static void audit_keys(const struct table_place *at, struct map *m, bool actions) {
    struct table_rows rows = {
        .at = at, .table = m, .addresses = table_has_addresses(at->c, m->spec)};
    if ((actions || is_list_of_domains(at->name)) && m->opened && m->fixed && !m->ops->remote)
        map_each(m, audit_key, &rows);
    if (rows.said > AUDIT_SHOWN)
        diag_add(at->d, DIAG_WARN, at->file, at->line, "%s: %s: %zu more keys like these", at->name,
                 m->spec, rows.said - AUDIT_SHOWN);
}

/* -- tables -- */

/* Editors of other systems put a byte order mark at the beginning of a file. */
static int audit_mark(void *arg, struct str key, struct str value) {
    const struct table_rows *rows = arg;
    (void)value;
    if (!str_istarts(key, BYTE_ORDER_MARK))
        return 0;
    struct str rest = str_from(key, 3);
    struct sbuf table = {0};
    maps_show(rows->table->spec, &table);
    diag_add(rows->at->d, DIAG_WARN, rows->at->file, rows->at->line,
             "%s: %s: the key \"%.*s\" begins with a byte order mark, which is part of it: the row "
             "counts for nothing",
             rows->at->name, table.p, STR_FMT(rest));
    sbuf_free(&table);
    return 1;
}

/* Of a table that stands in another place as well? */
static bool audit_was_said(const struct diags *d, const char *remark) {
    for (size_t i = 0; i < d->n; i++)
        if (d->v[i].level == DIAG_WARN && strstr(d->v[i].text, remark) != NULL)
            return true;
    return false;
}

/* The first of the lines that are not what they should be, and how many more there are. */
static void audit_remark(const struct table_place *at, const struct map *m) {
    struct sbuf more = {0};
    if (m->remarks > 1)
        sbuf_printf(&more, " (and %zu more lines with a mistake)", m->remarks - 1);
    diag_add(at->d, DIAG_WARN, at->file, at->line, "%s: %s%s", at->name, m->remark,
             more.n > 0 ? more.p : "");
    sbuf_free(&more);
}

static void audit_opened(const struct table_place *at, struct map *m, bool actions) {
    bool aliases = strcmp(at->name, "alias_maps") == 0;
    char *stale = map_stale(m);
    if (!m->opened)
        diag_add(at->d, DIAG_ERROR, at->file, at->line, "%s: %s%s", at->name, m->err,
                 m->path == NULL || m->ops->build == NULL || access(m->path, F_OK) == 0 ? ""
                 : aliases ? " (run newaliases)"
                           : " (run postmap on it)");
    if (stale != NULL)
        diag_add(at->d, DIAG_WARN, at->file, at->line, "%s: %s (run %s)", at->name, stale,
                 aliases ? "newaliases" : "postmap on it");
    if (m->opened && m->remark != NULL && !audit_was_said(at->d, m->remark))
        audit_remark(at, m);
    if (!aliases)
        audit_spellings(at->c, m, at->name, at->file, at->line, at->d);
    if (m->opened && m->fixed && !m->ops->remote && m->ops->each != NULL)
        map_each(m, audit_mark, &(struct table_rows){.at = at, .table = m});
    audit_keys(at, m, actions);
    if (actions)
        audit_actions(at, m);
    free(stale);
}

/* A table, or each of those that it is made of.  actions: its values are those of access(5). */
static void audit_table(const struct table_place *at, struct map *m, bool actions) {
    const struct maps *parts = map_parts(m);
    audit_opened(at, m, actions && (parts == NULL || m->ops == &map_pipe));
    for (size_t i = 0; parts != NULL && i < parts->n; i++)
        audit_table(at, parts->v[i], actions && m->ops != &map_pipe);
}

static void audit_spec(const struct table_place *at, struct str spec, bool actions) {
    char *text = str_dup(spec);
    struct map *m = map_open(text, at->c->dir);
    audit_table(at, m, actions);
    map_close(m);
    free(text);
}

/* Is a word of a list a table?  An address of IPv6 looks like one. */
static bool word_is_table(enum list_kind kind, struct str word, struct str before) {
    struct netblock net;
    const char *why = NULL;
    if (kind == LIST_RESTRICTIONS)
        return map_looks_like(word) && !str_ieq_c(before, "check_policy_service");
    return matchlist_names_table(word) && !netblock_parse(&net, word, &why) && why == NULL;
}

static void audit_list(const struct table_place *at, enum list_kind kind, const char *value) {
    struct str rest = str_of(value), one, before = STR_NONE;
    for (; str_split_braces(&rest, ", \t\r\n", &one); before = one) {
        bool actions = kind == LIST_RESTRICTIONS && !str_ieq_c(before, "check_address_map");
        while (kind != LIST_TABLES && one.n > 0 && one.p[0] == '!')
            one = str_from(one, 1);
        if (kind == LIST_TABLES && !map_looks_like(one))
            audit_bare_word(at, one);
        else if (str_istarts(one, CONFIG_UNREAD)) /* daemon_check has named it */
            continue;
        else if (kind == LIST_TABLES || word_is_table(kind, one, before))
            audit_spec(at, one, actions);
    }
}

/* What main.cf says, and the services that have something else. */
static void audit_parameter(const struct config *c, const struct param_info *info,
                            struct diags *d) {
    enum list_kind kind = list_kind_of(info->name);
    const char *value = params_text_at(&c->p, info->offset);
    const struct cfg_entry *e = cfg_file_find(&c->main, str_of(info->name));
    struct table_place at = {c, d, info->name, c->main.path, e == NULL ? 0 : e->line};
    bool repeats =
        e == NULL && strchr(info->def, '$') != NULL; /* another parameter's, named there */
    if (!repeats)
        audit_list(&at, kind, value);
    at.file = c->master_path;
    for (size_t i = 0; i < c->n_services; i++) {
        const struct service *s = c->services[i];
        const char *own = params_text_at(&s->p, info->offset);
        at.line = s->line;
        if ((s->kind == SERVICE_SMTPD || service_is_client(s)) && strcmp(own, value) != 0)
            audit_list(&at, kind, own);
    }
}

void audit_tables(const struct config *c, struct diags *d) {
    for (size_t i = 0; i < param_count; i++)
        if (param_table[i].type == PARAM_STR && list_kind_of(param_table[i].name) != LIST_NONE)
            audit_parameter(c, &param_table[i], d);
}
