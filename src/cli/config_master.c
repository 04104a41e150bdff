/*
 * cli/config_master.c - postconf -M, -F and -P; see config_master.h
 *
 * One thread.  Nothing is written before all of master.cf and all arguments have been read, so what
 * is wrong with one of them shows nothing.
 */
#include "cli/config_master.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/master_entry.h"
#include "config/config.h"
#include "config/secret.h"
#include "daemon/setting.h"
#include "util/fs.h"
#include "util/lines.h"
#include "util/mem.h"

#define MASTER_CF_MAX (8U << 20)
#define PARTS_MAX     3U
#define LINE_LIMIT    80U

/* One argument. */
struct request {
    const char *text;
    struct str parts[PARTS_MAX]; /* "*" for what is not there */
    enum master_field field;     /* of -F; MASTER_FIELDS: each */
    bool matched;
};

struct master_run {
    const struct master_show *show;
    char *path;
    struct master_entry *entries;
    size_t n;
    struct request *requests;
    size_t n_requests;
    struct config *config; /* with -x; else NULL */
    struct sbuf out;
    int failed;
};

static int master_fatal(const char *text, const char *what) {
    fprintf(stderr, "postconf: fatal: %s%s%s%s\n", text, what == NULL ? "" : ": \"",
            what == NULL ? "" : what, what == NULL ? "" : "\"");
    return 1;
}

static void master_line(void *arg, struct str line, int no) {
    struct master_run *run = arg;
    if (run->failed != 0)
        return;
    run->entries = mem_realloc(run->entries, (run->n + 1) * sizeof *run->entries);
    struct master_entry *e = &run->entries[run->n++];
    *e = (struct master_entry){.line = no};
    char *why = master_entry_parse(e, line);
    if (why == NULL)
        return;
    if (e->n < MASTER_FIELDS)
        fprintf(stderr, "postconf: fatal: file %s: line %d: %s\n", run->path, no, why);
    else
        fprintf(stderr, "postconf: fatal: %s\n", why);
    free(why);
    run->failed = 1;
}

static void master_orphan(void *arg, struct str line, int no) {
    const struct master_run *run = arg;
    struct sbuf shown = {0};
    (void)no;
    secret_quote(line, &shown);
    fprintf(stderr,
            "postconf: warning: %s: logical line must not start with whitespace: \"%.*s\"\n",
            run->path, STR_FMT(sbuf_str(&shown)));
    sbuf_free(&shown);
}

static int master_read(struct master_run *run) {
    static const struct lines_ops ops = {master_line, master_orphan};
    struct sbuf text = {0};
    char why[FS_WHY_MAX];
    int rc = fs_read(run->path, &text, MASTER_CF_MAX);
    if (rc == 0 && text.n > 0 && memchr(text.p, '\0', text.n) != NULL)
        rc = -EINVAL;
    if (rc < 0)
        fprintf(stderr, "postconf: fatal: open %s: %s\n", run->path,
                fs_read_why(rc, MASTER_CF_MAX, why));
    else
        lines_logical(sbuf_str(&text), false, &ops, run);
    sbuf_free(&text);
    return rc < 0 ? 1 : run->failed;
}

/* "service/type/…": false if there are other than 1 to max parts. */
static bool request_split(struct request *r, size_t max) {
    struct str rest = str_of(r->text), part;
    size_t n = 0;
    for (size_t i = 0; i < PARTS_MAX; i++)
        r->parts[i] = STR_LIT("*");
    if (r->text[0] == '/')
        return false;
    for (; str_split(&rest, "/", &part); n++) {
        if (n == max)
            return false;
        r->parts[n] = part;
    }
    return n > 0;
}

static int request_field(struct request *r) {
    for (r->field = MASTER_SERVICE; r->field < MASTER_FIELDS; r->field++)
        if (str_eq_c(r->parts[2], master_field_names[r->field]))
            return 0;
    if (str_eq_c(r->parts[2], "*"))
        return 0;
    char *name = str_dup(r->parts[2]);
    int rc = master_fatal("invalid service attribute name", name);
    free(name);
    return rc;
}

static int request_parse(struct master_run *run, const char *text) {
    struct request *r = &run->requests[run->n_requests++];
    char kind = run->show->kind;
    *r = (struct request){.text = text};
    if (!request_split(r, kind == 'M' ? 2 : 3))
        return master_fatal(kind == 'M'   ? "-M option requires service_name[/type]"
                            : kind == 'F' ? "-F option requires service_name[/type[/field]]"
                                          : "-P option requires service_name[/type[/parameter]]",
                            NULL);
    return kind == 'F' ? request_field(r) : 0;
}

static bool request_part_matches(struct str part, const char *word) {
    return str_eq_c(part, "*") || str_eq_c(part, word);
}

static bool request_matches(const struct request *r, const struct master_entry *e) {
    return request_part_matches(r->parts[0], e->words[MASTER_SERVICE]) &&
           request_part_matches(r->parts[1], e->words[MASTER_TYPE]);
}

static const struct service *service_at(const struct config *c, int line) {
    for (size_t i = 0; i < c->n_services; i++)
        if (c->services[i]->line == line)
            return c->services[i];
    return NULL;
}

/* A parameter's value without what is secret of it, of a listing of all. */
static char *master_hidden(struct str name, const char *value) {
    char *word = str_dup(name);
    struct sbuf out = {0};
    setting_show(word, value, &out);
    free(word);
    return sbuf_take(&out);
}

/* The value of a parameter that e sets, as it is shown; the caller frees. */
static char *master_value(const struct master_run *run, const struct master_entry *e,
                          struct str name, struct str value) {
    char *raw = str_dup(value), *text = NULL;
    if (run->config != NULL)
        text = config_expand(run->config, service_at(run->config, e->line), raw);
    char *shown = run->n_requests == 0 ? master_hidden(name, text == NULL ? raw : text)
                                       : mem_strdup(text == NULL ? raw : text);
    free(raw);
    free(text);
    return shown;
}

/* The same behind its -o. */
static char *master_pair(void *arg, const struct master_entry *e, size_t i) {
    const struct master_run *run = arg;
    struct str name, value;
    if ((run->config == NULL && run->n_requests > 0) || !master_entry_override(e, i, &name, &value))
        return NULL;
    char *shown = master_value(run, e, name, value);
    struct sbuf out = {0};
    sbuf_printf(&out, "%.*s=%s", STR_FMT(name), shown);
    free(shown);
    return sbuf_take(&out);
}

static struct master_print master_how(struct master_run *run) {
    return (struct master_print){run->show->fold, run->n_requests == 0, master_pair, run};
}

static void show_field(struct master_run *run, const struct master_entry *e,
                       enum master_field field) {
    struct master_print how = master_how(run);
    size_t start = run->out.n;
    if (!run->show->no_name)
        sbuf_printf(&run->out, "%s/%s/%s%s", e->words[MASTER_SERVICE], e->words[MASTER_TYPE],
                    master_field_names[field], run->show->no_value ? "\n" : " = ");
    if (!run->show->no_value)
        master_field_print(&run->out, e, field, start, &how);
}

/* Appends text as a line, its white space as single blanks. */
static void show_words(struct master_run *run, struct str text) {
    struct str word;
    size_t column = 0;
    while (str_split(&text, " \t\r\n", &word)) {
        bool fold = column > 0 && run->show->fold && column + word.n >= LINE_LIMIT;
        if (column > 0)
            sbuf_add_c(&run->out, fold ? "\n    " : " ");
        column = (fold ? 4 : column + (column > 0)) + word.n;
        sbuf_add_str(&run->out, word);
    }
    sbuf_add_ch(&run->out, '\n');
}

static void show_param(struct master_run *run, const struct master_entry *e, struct str name,
                       struct str value) {
    struct sbuf text = {0};
    char *shown = master_value(run, e, name, value);
    if (!run->show->no_name)
        sbuf_printf(&text, "%s/%s/%.*s%s", e->words[MASTER_SERVICE], e->words[MASTER_TYPE],
                    STR_FMT(name), run->show->no_value ? "" : " = ");
    if (!run->show->no_value)
        sbuf_add_c(&text, shown);
    show_words(run, sbuf_str(&text));
    free(shown);
    sbuf_free(&text);
}

struct override {
    struct str name, value;
};

static int override_order(const void *a, const void *b) {
    struct str x = ((const struct override *)a)->name, y = ((const struct override *)b)->name;
    int order = memcmp(x.p, y.p, x.n < y.n ? x.n : y.n);
    return order != 0 ? order : (x.n > y.n) - (x.n < y.n);
}

/* The parameters that e sets, in order of their names; the last value of each.  The caller frees.
 */
static struct override *overrides_of(const struct master_entry *e, size_t *count) {
    struct override *all = mem_alloc((e->n + 1) * sizeof *all);
    size_t n = 0, rest = master_entry_rest(e);
    for (size_t i = MASTER_FIELDS; i < rest; i += master_entry_has_value(e, i) ? 2 : 1) {
        struct override o;
        size_t k = 0;
        if (!master_entry_override(e, i, &o.name, &o.value))
            continue;
        while (k < n && !str_eq(all[k].name, o.name))
            k++;
        all[k] = o;
        n += k == n;
    }
    qsort(all, n, sizeof *all, override_order);
    *count = n;
    return all;
}

/* False if e sets none that matches. */
static bool show_params(struct master_run *run, const struct master_entry *e, struct str name) {
    size_t n;
    bool any = false;
    struct override *all = overrides_of(e, &n);
    for (size_t i = 0; i < n; i++)
        if (str_eq_c(name, "*") || str_eq(name, all[i].name)) {
            show_param(run, e, all[i].name, all[i].value);
            any = true;
        }
    free(all);
    return any;
}

static bool show_entry(struct master_run *run, const struct master_entry *e,
                       const struct request *r) {
    struct master_print how = master_how(run);
    if (run->show->kind == 'P')
        return show_params(run, e, r->parts[2]);
    if (run->show->kind == 'M')
        master_entry_print(&run->out, e, &how);
    else if (r->field < MASTER_FIELDS)
        show_field(run, e, r->field);
    else
        for (enum master_field f = MASTER_SERVICE; f < MASTER_FIELDS; f++)
            show_field(run, e, f);
    return true;
}

static void show_all(struct master_run *run) {
    static const struct request each = {.parts = {{"*", 1}, {"*", 1}, {"*", 1}},
                                        .field = MASTER_FIELDS};
    for (size_t i = 0; i < run->n; i++) {
        const struct master_entry *e = &run->entries[i];
        if (run->n_requests == 0)
            show_entry(run, e, &each);
        for (size_t k = 0; k < run->n_requests; k++) {
            struct request *r = &run->requests[k];
            if (request_matches(r, e) && show_entry(run, e, r))
                r->matched = true;
        }
    }
    fwrite(run->out.p == NULL ? "" : run->out.p, 1, run->out.n, stdout);
    for (size_t k = 0; k < run->n_requests; k++)
        if (!run->requests[k].matched)
            fprintf(stderr, "postconf: warning: unmatched request: \"%s\"\n",
                    run->requests[k].text);
}

static void master_free(struct master_run *run) {
    for (size_t i = 0; i < run->n; i++)
        master_entry_free(&run->entries[i]);
    free(run->entries);
    free(run->requests);
    free(run->path);
    sbuf_free(&run->out);
    if (run->config != NULL)
        config_unref(run->config);
}

int config_master(const char *dir, const struct master_show *show, int argc, char **argv) {
    struct master_run run = {.show = show};
    struct sbuf path = {0};
    sbuf_printf(&path, "%s/master.cf", cli_dir(dir));
    run.path = sbuf_take(&path);
    run.requests = mem_zalloc(((size_t)argc + 1) * sizeof *run.requests);
    int rc = master_read(&run);
    for (int i = 0; rc == 0 && i < argc; i++)
        rc = request_parse(&run, argv[i]);
    if (rc == 0 && show->expand && (run.config = cli_config_with_mistakes("postconf", dir)) == NULL)
        rc = 1;
    if (rc == 0)
        show_all(&run);
    master_free(&run);
    return rc;
}
