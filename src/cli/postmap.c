/*
 * cli/postmap.c - postmap(1): make, ask and list tables
 *
 * Files are always written whole beside the old one and renamed over it; -i and -d read the old
 * table, change it and do the same.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "daemon/audit.h"
#include "maps/map.h"
#include "util/codec.h"
#include "util/fs.h"
#include "util/htab.h"
#include "util/mem.h"

#define SOURCE_MAX (256U << 20)

struct pairs {
    struct map_pair *v;
    size_t n;
    struct htab seen; /* key -> index + 1 */
    const char *path; /* for warnings: the database */
    const char *source;
};

struct options {
    const char *query, *del;
    bool incremental, dump, no_fold, no_mode, replace, quiet_dup;
    bool files;        /* -F: a value names files, their content is stored in base64 */
    bool json;         /* -j */
    bool header, body; /* -h, -b: -q - reads a message */
    const char *dir;
};

_Noreturn static void postmap_fatal(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

_Noreturn static void postmap_fatal(const char *fmt, ...) {
    va_list ap;
    fputs("postmap: fatal: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

static void pair_set(struct pairs *p, struct str key, struct str value) {
    size_t at = (size_t)(uintptr_t)htab_get(&p->seen, key);
    if (at > 0) {
        p->v[at - 1].value = str_of(str_dup(value));
        return;
    }
    p->v = mem_realloc(p->v, (p->n + 1) * sizeof *p->v);
    p->v[p->n] = (struct map_pair){str_of(str_dup(key)), str_of(str_dup(value))};
    p->n++;
    htab_put(&p->seen, p->v[p->n - 1].key, (void *)(uintptr_t)p->n);
}

struct build {
    struct pairs *pairs;
    const struct options *o;
};

/* -F: the base64 of the named files' content, one after the other. */
static void files_value(struct str names, struct sbuf *out) {
    struct sbuf content = {0};
    struct str one;
    while (str_split(&names, ", \t", &one)) {
        char *path = str_dup(one);
        int rc = fs_read(path, &content, SOURCE_MAX);
        if (rc < 0)
            postmap_fatal("open %s: %s", path, strerror(-rc));
        free(path);
    }
    base64_encode(out, sbuf_str(&content));
    if (content.p != NULL)
        mem_wipe(content.p, content.n);
    sbuf_free(&content);
}

static void postmap_add_entry(struct build *b, struct str key, struct str value);

static void on_entry(void *arg, struct str key, struct str value, int line) {
    struct build *b = arg;
    struct sbuf content = {0};
    (void)line;
    if (b->o->files) {
        files_value(value, &content);
        value = sbuf_str(&content);
    }
    postmap_add_entry(b, key, value);
    sbuf_free(&content);
}

static void postmap_add_entry(struct build *b, struct str key, struct str value) {
    bool known = htab_get(&b->pairs->seen, key) != NULL;
    if (known && !b->o->replace) {
        if (!b->o->quiet_dup)
            fprintf(stderr, "postmap: warning: %s: duplicate entry: \"%.*s\"\n", b->pairs->path,
                    STR_FMT(key));
        return;
    }
    pair_set(b->pairs, key, value);
}

static void on_warn(void *arg, int line, const char *text) {
    struct build *b = arg;
    fprintf(stderr, "postmap: warning: %s, line %d: %s\n", b->pairs->source, line, text);
}

static int on_old(void *arg, struct str key, struct str value) {
    pair_set(arg, key, value);
    return 0;
}

static void read_stdin(struct sbuf *out) {
    ssize_t n;
    while ((n = read(0, sbuf_room(out, 65536), 65536)) > 0)
        sbuf_advance(out, (size_t)n);
}

static char *db_path(const struct map_ops *ops, const char *name) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s%s", name, ops->suffix == NULL ? "" : ops->suffix);
    return sbuf_take(&b);
}

/* Root acts as the source's owner, so that no user's file becomes root's. */
static void become_owner(const struct stat *st) {
    if (geteuid() == 0 && st->st_uid != 0 && (setgid(st->st_gid) < 0 || seteuid(st->st_uid) < 0))
        postmap_fatal("cannot become the owner of the source file: %s", strerror(errno));
}

static void write_table(const struct map_ops *ops, const char *path, const struct pairs *p,
                        mode_t mode) {
    const char *why;
    if (ops->build(path, p->v, p->n, mode, &why) < 0)
        postmap_fatal("write %s: %s", path, why);
}

static void load_old(const char *spec, const struct options *o, struct pairs *p) {
    struct map *m = map_open(spec, o->dir);
    if (m->opened)
        map_each(m, on_old, p);
    map_close(m);
}

/* What Postfix calls the table in a warning: its library for each type does it differently. */
static char *warn_name(const struct map_ops *ops, const char *spec, const char *name,
                       const char *path) {
    return mem_strdup(ops == &map_lmdb ? spec : ops == &map_cdb ? name : path);
}

static int run_build(const struct map_ops *ops, const char *spec, const char *name,
                     const struct options *o) {
    struct sbuf text = {0};
    struct stat st;
    char *path = db_path(ops, name);
    struct pairs p = {.path = warn_name(ops, spec, name, path),
                      .source = o->incremental ? "(stdin)" : name};
    struct build b = {&p, o};
    if (ops->build == NULL)
        postmap_fatal("table type %s does not support bulk-mode creation", ops->type);
    bool have = stat(name, &st) == 0;
    if (!o->incremental) {
        int rc = have ? fs_read(name, &text, SOURCE_MAX) : -errno;
        if (rc < 0)
            postmap_fatal("open %s: %s", name, strerror(-rc));
        become_owner(&st);
    } else {
        load_old(spec, o, &p);
        read_stdin(&text);
    }
    mode_t mode = have && !o->no_mode ? st.st_mode & 0777 : 0644;
    map_source_parse(sbuf_str(&text), !o->no_fold, on_entry, on_warn, &b);
    write_table(ops, path, &p, mode);
    free(path);
    return 0;
}

static void print_pair_json(struct str key, struct str value) {
    struct sbuf b = {0};
    sbuf_add_ch(&b, '{');
    sbuf_add_json(&b, key);
    sbuf_add_c(&b, ": ");
    sbuf_add_json(&b, value);
    sbuf_add_ch(&b, '}');
    puts(b.p);
    sbuf_free(&b);
}

/* One key; prints its value.  1 if found. */
static int postmap_ask(struct map *m, struct str key, bool with_key, const struct options *o) {
    struct sbuf v = {0}, plain = {0};
    enum map_rc rc = map_get(m, key, &v);
    if (rc == MAP_ERROR)
        postmap_fatal("table %s: query error: %s", m->spec, map_error(m));
    if (rc == MAP_FOUND && o->files && !base64_decode(&plain, sbuf_str(&v)))
        postmap_fatal("table %s: value is not base64: key %s", m->spec, str_dup(key));
    struct str value = o->files ? sbuf_str(&plain) : sbuf_str(&v);
    if (rc == MAP_FOUND && o->json)
        print_pair_json(key, value);
    else if (rc == MAP_FOUND && with_key)
        printf("%.*s\t%.*s\n", STR_FMT(key), STR_FMT(value));
    else if (rc == MAP_FOUND)
        printf("%.*s\n", STR_FMT(value));
    sbuf_free(&v);
    sbuf_free(&plain);
    return rc == MAP_FOUND;
}

/* The next key of standard input: a line, or with -h a header field with its continuation lines. */
static bool next_key(struct str *rest, bool header, struct str *key) {
    size_t end = 0;
    if (rest->n == 0)
        return false;
    do {
        const char *nl = memchr(rest->p + end, '\n', rest->n - end);
        end = nl == NULL ? rest->n : (size_t)(nl - rest->p) + 1;
    } while (header && end < rest->n && (rest->p[end] == ' ' || rest->p[end] == '\t'));
    *key = str_make(rest->p, end);
    while (key->n > 0 && (key->p[key->n - 1] == '\n' || key->p[key->n - 1] == '\r'))
        key->n--;
    *rest = str_from(*rest, end);
    return true;
}

static int ask_all(struct map **maps, size_t n, struct str key, const struct options *o) {
    int hit = 0;
    for (size_t i = 0; i < n && !hit; i++)
        hit = postmap_ask(maps[i], key, true, o);
    return hit;
}

static int run_query(struct map **maps, size_t n, const struct options *o) {
    int found = 0;
    if (strcmp(o->query, "-") != 0) {
        for (size_t i = 0; i < n && !found; i++)
            found = postmap_ask(maps[i], str_of(o->query), false, o);
        return found ? 0 : 1;
    }
    struct sbuf in = {0};
    read_stdin(&in);
    struct str rest = sbuf_str(&in), key;
    bool message = o->header || o->body, in_header = message;
    while (next_key(&rest, in_header, &key)) {
        if (in_header && key.n == 0)
            in_header = false; /* the body begins */
        else if (key.n > 0 && (!message || (in_header ? o->header : o->body)))
            found |= ask_all(maps, n, key, o);
    }
    sbuf_free(&in);
    return found ? 0 : 1;
}

static int postmap_print_pair(void *arg, struct str key, struct str value) {
    const struct options *o = arg;
    if (o->json)
        print_pair_json(key, value);
    else
        printf("%.*s\t%.*s\n", STR_FMT(key), STR_FMT(value));
    return 0;
}

/* Removes keys; true if any was there. */
static bool run_delete(const struct map_ops *ops, const char *spec, const char *name,
                       const struct options *o) {
    struct pairs p = {0}, keep = {0};
    struct sbuf in = {0};
    struct stat st;
    char *path = db_path(ops, name);
    bool hit = false;
    load_old(spec, o, &p);
    if (strcmp(o->del, "-") == 0)
        read_stdin(&in);
    else
        sbuf_add_c(&in, o->del);
    for (size_t i = 0; i < p.n; i++) {
        struct str rest = sbuf_str(&in), key;
        bool gone = false;
        while (str_split(&rest, "\r\n", &key))
            gone = gone || (o->no_fold ? str_eq(key, p.v[i].key) : str_ieq(key, p.v[i].key));
        hit = hit || gone;
        if (!gone)
            pair_set(&keep, p.v[i].key, p.v[i].value);
    }
    if (hit)
        write_table(ops, path, &keep, stat(path, &st) == 0 ? st.st_mode & 0777 : 0644);
    free(path);
    sbuf_free(&in);
    return hit;
}

static const char *default_type(const char *dir) {
    struct config *c = config_build(cfg_source_new(cli_dir(dir)));
    const char *t = mem_strdup(c->p.default_database_type);
    config_unref(c);
    return t;
}

static int run_tables(int argc, char **argv, const struct options *o) {
    struct map **maps = mem_zalloc((size_t)(argc + 1) * sizeof(struct map *));
    size_t n = 0;
    bool hit = false;
    for (int i = 0; i < argc; i++) {
        struct sbuf spec = {0};
        struct str s = str_of(argv[i]);
        if (!map_looks_like(s))
            sbuf_printf(&spec, "%s:", default_type(o->dir));
        sbuf_add_str(&spec, s);
        s = sbuf_str(&spec);
        if (str_istarts(s, "proxy:"))
            s = str_from(s, 6);
        ptrdiff_t colon = str_chr(s, ':');
        const struct map_ops *ops = map_type(str_make(s.p, (size_t)colon));
        if (ops == NULL)
            postmap_fatal("unsupported dictionary type: %.*s", (int)colon, s.p);
        const char *name = s.p + colon + 1;
        if (o->del != NULL) {
            hit = run_delete(ops, spec.p, name, o) || hit;
        } else if (o->query == NULL && !o->dump) {
            run_build(ops, spec.p, name, o);
        } else {
            if (ops->remote && strchr(name, '/') == NULL) /* its parameters are in main.cf */
                audit_tables_of(config_build(cfg_source_new(cli_dir(o->dir))));
            struct map *m = maps[n++] = map_open(spec.p, NULL);
            char *stale = map_stale(m);
            m->fold = !o->no_fold;
            if (!m->opened)
                postmap_fatal("%s", m->err);
            if (stale != NULL)
                fprintf(stderr, "postmap: warning: %s\n", stale);
            if (o->dump && map_each(m, postmap_print_pair, (void *)(uintptr_t)o) < 0)
                postmap_fatal("%s", map_error(m));
        }
    }
    if (o->query != NULL)
        return run_query(maps, n, o);
    return o->del != NULL ? !hit : 0;
}

int cli_postmap(const char *dir, int argc, char **argv) {
    struct options o = {.dir = dir};
    int opt;
    optind = 1;
    while ((opt = getopt(argc, argv, "c:d:fhbimnNopq:rsuUvwjF")) != -1) {
        switch (opt) {
        case 'c':
            o.dir = optarg;
            break;
        case 'd':
            o.del = optarg;
            break;
        case 'f':
            o.no_fold = true;
            break;
        case 'i':
            o.incremental = true;
            break;
        case 'p':
            o.no_mode = true;
            break;
        case 'q':
            o.query = optarg;
            break;
        case 'r':
            o.replace = true;
            break;
        case 's':
            o.dump = true;
            break;
        case 'w':
            o.quiet_dup = true;
            break;
        case 'b':
            o.body = true;
            break;
        case 'h':
            o.header = true;
            break;
        case 'j':
            o.json = true;
            break;
        case 'F':
            o.files = true;
            break;
        case 'm':
            fputs("postmap: fatal: option -m (MIME headers) is not implemented\n", stderr);
            return 1;
        case '?':
            fputs("usage: postmap [-bfFhijnNoprsuUvw] [-c config_dir] [-d key] [-q key] "
                  "[map_type:]file...\n",
                  stderr);
            return 1;
        default: /* -n -N -o -u -U -v: what they ask for is so anyway */
            break;
        }
    }
    if (optind >= argc) {
        fputs(
            "postmap: fatal: usage: postmap [-bfFhijnNoprsuUvw] [-c config_dir] [-d key] [-q key] "
            "[map_type:]file...\n",
            stderr);
        return 1;
    }
    return run_tables(argc - optind, argv + optind, &o);
}
