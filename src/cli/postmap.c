/*
 * cli/postmap.c - postmap(1) and postalias(1): make, ask and list tables
 *
 * Files are always written whole beside the old one and renamed over it; -i and -d read the old
 * table, change it and do the same.  A symbolic link stays one: the file that it names is replaced.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/mimekeys.h"
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
    bool mime;         /* -m: of several parts */
    bool keep_root;    /* -o */
    bool any_bytes;    /* -u: keys and values need not be UTF-8 */
    bool alias;        /* postalias: a source is aliases(5) */
    enum map_nul nul;  /* -n, -N */
    const char *dir;
};

/* The command's name. */
static const char *postmap_who = "postmap";

_Noreturn static void postmap_fatal(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

_Noreturn static void postmap_fatal(const char *fmt, ...) {
    va_list ap;
    fprintf(stderr, "%s: fatal: ", postmap_who);
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

/* -F: the base64 of the named files' content, with a line's end between two. */
static void files_value(struct str names, struct sbuf *out) {
    struct sbuf content = {0};
    struct str one;
    while (str_split(&names, ", \t", &one)) {
        char *path = str_dup(one);
        struct sbuf text = {0};
        char why[FS_WHY_MAX];
        int rc = fs_read(path, &text, SOURCE_MAX);
        if (rc < 0)
            postmap_fatal("open %s: %s", path, fs_read_why(rc, SOURCE_MAX, why));
        sbuf_add_c(&content, content.n > 0 ? "\n" : "");
        sbuf_add_str(&content, sbuf_str(&text));
        if (text.p != NULL)
            mem_wipe(text.p, text.n);
        sbuf_free(&text);
        free(path);
    }
    base64_encode(out, sbuf_str(&content));
    if (content.p != NULL)
        mem_wipe(content.p, content.n);
    sbuf_free(&content);
}

static void postmap_add_entry(struct build *b, struct str key, struct str value);

static void on_warn(void *arg, int line, const char *text) {
    struct build *b = arg;
    fprintf(stderr, "%s: warning: %s, line %d: %s\n", postmap_who, b->pairs->source, line, text);
}

/* The entry is left out.  The value of one that is no alias may be a password. */
static void warn_bytes(struct build *b, struct str key, struct str value, int line) {
    struct sbuf text = {0};
    struct str shown = b->o->alias ? value : STR_LIT("(hidden)");
    sbuf_printf(&text, "non-UTF-8 input \"%.*s%s%.*s\" -- ignoring this line", STR_FMT(key),
                b->o->alias ? ": " : " ", STR_FMT(shown));
    for (size_t i = 0; i < text.n; i++)
        if ((unsigned char)text.p[i] < ' ' || (unsigned char)text.p[i] >= 0x7f)
            text.p[i] = '?';
    on_warn(b, line, text.p);
    sbuf_free(&text);
}

static void on_entry(void *arg, struct str key, struct str value, int line) {
    struct build *b = arg;
    struct sbuf content = {0};
    if (!b->o->any_bytes && (!str_is_utf8(key) || !str_is_utf8(value))) {
        warn_bytes(b, key, value, line);
        return;
    }
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
            fprintf(stderr, "%s: warning: %s: duplicate entry: \"%.*s\"\n", postmap_who,
                    b->pairs->path, STR_FMT(key));
        return;
    }
    pair_set(b->pairs, key, value);
}

static int on_old(void *arg, struct str key, struct str value) {
    pair_set(arg, key, value);
    return 0;
}

static void read_stdin(struct sbuf *out) {
    ssize_t n;
    while ((n = read(0, sbuf_room(out, 65536), 65536)) > 0)
        sbuf_advance(out, (size_t)n);
    if (n < 0)
        postmap_fatal("cannot read standard input: %s", strerror(errno));
}

static char *db_path(const struct map_ops *ops, const char *name) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s%s", name, ops->suffix == NULL ? "" : ops->suffix);
    return sbuf_take(&b);
}

/* Root acts as the source's owner, so that no user's file becomes root's. */
static void become_owner(const struct stat *st) {
    if (geteuid() == 0 && st->st_uid != 0 && (setegid(st->st_gid) < 0 || seteuid(st->st_uid) < 0))
        postmap_fatal("cannot become the owner of the source file: %s", strerror(errno));
}

/* Before the next table, which may be another owner's. */
static void become_root(void) {
    if (getuid() == 0 && geteuid() != 0 && (seteuid(0) < 0 || setegid(getgid()) < 0))
        postmap_fatal("cannot become root again: %s", strerror(errno));
}

/* Where the table at path is written; the caller frees. */
static char *table_target(const char *path) {
    char *file = fs_followed(path);
    if (file == NULL)
        postmap_fatal("write %s: %s", path,
                      errno == EPERM ? "it is a symbolic link that another user has made"
                                     : strerror(errno));
    return file;
}

static void write_table(const struct map_ops *ops, const char *path, const struct pairs *p,
                        mode_t mode, enum map_nul nul) {
    const char *why;
    if (ops->build(path, p->v, p->n, mode, nul, &why) < 0)
        postmap_fatal("write %s: %s", path, why);
}

/* Of two that change a table's rows the second one finds what the first one has made. */
static int table_lock(const char *path) {
    int lock = cli_lock_folder(path);
    if (lock == -EBUSY)
        postmap_fatal("another program holds a lock on the directory: %s", path);
    return lock;
}

/* The rows that the table has.  One that cannot be read is not written anew: the rows that it had
 * would be lost.  may_miss: it need not be there. */
static void load_old(const char *spec, const char *path, bool may_miss, struct pairs *p) {
    struct stat st;
    if (may_miss && lstat(path, &st) < 0 && errno == ENOENT)
        return;
    struct map *m = map_open(spec, NULL);
    if (!m->opened)
        postmap_fatal("%s", m->err);
    if (map_each(m, on_old, p) < 0)
        postmap_fatal("%s", map_error(m));
    map_close(m);
}

/* The changed table has the mode and the owner that it had. */
static void rewrite_table(const struct map_ops *ops, const char *path, const struct pairs *p,
                          mode_t otherwise, enum map_nul nul) {
    struct stat was;
    bool had = stat(path, &was) == 0 && S_ISREG(was.st_mode);
    write_table(ops, path, p, had ? was.st_mode & 0777 : otherwise, nul);
    int rc = had ? fs_give(path, was.st_uid, was.st_gid) : 0;
    if (rc < 0)
        postmap_fatal("%s: its owner is not what it was: %s", path, strerror(-rc));
}

static void must_be_writable(const struct map_ops *ops) {
    if (ops->build == NULL)
        postmap_fatal("unsupported dictionary type: %s does not support bulk-mode creation.",
                      ops->type);
}

/* What Postfix calls the table in a warning: its library for each type does it differently. */
static char *warn_name(const struct map_ops *ops, const char *spec, const char *name,
                       const char *path) {
    return mem_strdup(ops == &map_lmdb ? spec : ops == &map_cdb ? name : path);
}

static void alias_mark(struct build *b, const char *key, const char *value) {
    pair_set(b->pairs, str_of(key), str_of(value));
}

/* What NIS and Sendmail look for in an alias database. */
static void alias_marks(struct build *b) {
    char now[32];
    char *host = config_value(config_build(cfg_source_new(cli_dir(b->o->dir))), "myhostname", NULL);
    snprintf(now, sizeof now, "%lld", (long long)time(NULL));
    alias_mark(b, "@", "@");
    alias_mark(b, "YP_LAST_MODIFIED", now);
    alias_mark(b, "YP_MASTER_NAME", host == NULL ? "" : host);
    free(host);
}

static int run_build(const struct map_ops *ops, const char *spec, const char *name,
                     const struct options *o) {
    struct sbuf text = {0};
    struct stat st;
    char *path = db_path(ops, name);
    struct pairs p = {.path = warn_name(ops, spec, name, path),
                      .source = o->incremental ? "(stdin)" : name};
    struct build b = {&p, o};
    bool have = stat(name, &st) == 0;
    int lock = -1;
    if (!o->incremental) {
        char why[FS_WHY_MAX];
        int rc = have ? fs_read(name, &text, SOURCE_MAX) : -errno;
        if (rc < 0)
            postmap_fatal("open %s: %s", name, fs_read_why(rc, SOURCE_MAX, why));
        if (!o->keep_root)
            become_owner(&st);
    }
    must_be_writable(ops);
    if (o->incremental)
        read_stdin(&text);
    char *file = table_target(path);
    if (o->incremental) {
        lock = table_lock(file);
        load_old(spec, file, true, &p);
    }
    mode_t mode = have && !o->no_mode ? st.st_mode & 0777 : 0644;
    (o->alias ? alias_source_parse : map_source_parse)(sbuf_str(&text), !o->no_fold, on_entry,
                                                       on_warn, &b);
    if (o->alias && !o->incremental)
        alias_marks(&b);
    if (o->incremental)
        rewrite_table(ops, file, &p, mode, o->nul);
    else
        write_table(ops, file, &p, mode, o->nul);
    if (lock >= 0)
        close(lock);
    free(file);
    free(path);
    return 0;
}

static void print_pair(const struct options *o, struct str key, struct str value) {
    printf("%.*s%s\t%.*s\n", STR_FMT(key), o->alias ? ":" : "", STR_FMT(value));
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
        cli_print_pair(key, value);
    else if (rc == MAP_FOUND && with_key)
        print_pair(o, key, value);
    else if (rc == MAP_FOUND)
        printf("%.*s\n", STR_FMT(value));
    sbuf_free(&v);
    sbuf_free(&plain);
    return rc == MAP_FOUND;
}

static int ask_all(struct map **maps, size_t n, struct str key, const struct options *o) {
    int hit = 0;
    for (size_t i = 0; i < n && !hit; i++)
        hit = postmap_ask(maps[i], key, true, o);
    return hit;
}

struct asking {
    struct map **maps;
    size_t n;
    const struct options *o;
    int found;
};

static void ask_key(void *arg, struct str key, bool in_header) {
    struct asking *a = arg;
    bool message = a->o->header || a->o->body;
    if (!message || (in_header ? a->o->header : a->o->body))
        a->found |= ask_all(a->maps, a->n, key, a->o);
}

static int run_query(struct map **maps, size_t n, const struct options *o) {
    struct asking a = {maps, n, o, 0};
    if (strcmp(o->query, "-") != 0) {
        for (size_t i = 0; i < n && !a.found; i++)
            a.found = postmap_ask(maps[i], str_of(o->query), false, o);
        return a.found ? 0 : 1;
    }
    struct sbuf in = {0};
    read_stdin(&in);
    struct str rest = sbuf_str(&in), key;
    if (o->header || o->body)
        mimekeys_each(rest, o->mime, ask_key, &a);
    while (!o->header && !o->body && rest.n > 0) {
        const char *nl = memchr(rest.p, '\n', rest.n);
        key = str_make(rest.p, nl == NULL ? rest.n : (size_t)(nl - rest.p));
        rest = str_from(rest, key.n + (nl != NULL));
        if (key.n > 0 && key.p[key.n - 1] == '\r')
            key.n--;
        ask_key(&a, key, false);
    }
    sbuf_free(&in);
    return a.found ? 0 : 1;
}

static int postmap_print_pair(void *arg, struct str key, struct str value) {
    const struct options *o = arg;
    struct sbuf plain = {0};
    if (o->files && !base64_decode(&plain, value))
        postmap_fatal("value is not base64: key %s", str_dup(key));
    if (o->files)
        value = sbuf_str(&plain);
    if (o->json)
        cli_print_pair(key, value);
    else
        print_pair(o, key, value);
    sbuf_free(&plain);
    return 0;
}

/* Removes keys; true if any was there. */
static bool run_delete(const struct map_ops *ops, const char *spec, const char *name,
                       const struct options *o) {
    struct pairs p = {0}, keep = {0};
    struct sbuf in = {0};
    char *path = db_path(ops, name);
    bool hit = false;
    must_be_writable(ops);
    if (strcmp(o->del, "-") == 0)
        read_stdin(&in);
    else
        sbuf_add_c(&in, o->del);
    char *file = table_target(path);
    int lock = table_lock(file);
    load_old(spec, file, false, &p);
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
        rewrite_table(ops, file, &keep, 0644, o->nul);
    if (lock >= 0)
        close(lock);
    free(file);
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
        become_root();
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
                fprintf(stderr, "%s: warning: %s\n", postmap_who, stale);
            if (o->dump && map_each(m, postmap_print_pair, (void *)(uintptr_t)o) < 0)
                postmap_fatal("%s", map_error(m));
        }
    }
    if (o->query != NULL)
        return run_query(maps, n, o);
    return o->del != NULL ? !hit : 0;
}

/* The value of smtputf8_enable, without which keys and values may be any bytes. */
static bool checks_utf8(const char *dir) {
    struct config *c = config_build(cfg_source_new(cli_dir(dir)));
    bool on = c->p.smtputf8_enable;
    config_unref(c);
    return on;
}

/* False: it is none. */
static bool postmap_option(struct options *o, int opt, const char *arg) {
    switch (opt) {
    case 'c':
        o->dir = arg;
        if (access(arg, F_OK) < 0)
            postmap_fatal("open %s/main.cf: %s", arg, strerror(errno));
        return true;
    case 'd':
        o->del = arg;
        return true;
    case 'f':
        return o->no_fold = true;
    case 'i':
        return o->incremental = true;
    case 'm':
        return o->mime = true;
    case 'n':
        o->nul = MAP_NUL_NO;
        return true;
    case 'N':
        o->nul = MAP_NUL_YES;
        return true;
    case 'o':
        return o->keep_root = true;
    case 'p':
        return o->no_mode = true;
    case 'q':
        o->query = arg;
        return true;
    case 'r':
        return o->replace = true;
    case 's':
        return o->dump = true;
    case 'u':
        return o->any_bytes = true;
    case 'w':
        return o->quiet_dup = true;
    case 'b':
        return o->body = true;
    case 'h':
        return o->header = true;
    case 'j':
        return o->json = true;
    case 'F':
        return o->files = true;
    default:
        return opt != '?'; /* -v, -U: nothing is asked for that is not so anyway */
    }
}

static int postmap_run(struct options *o, const char *letters, const char *use, int argc,
                       char **argv) {
    int opt;
    bool good = true;
    optind = 1;
    while (good && (opt = getopt(argc, argv, letters)) != -1)
        good = postmap_option(o, opt, optarg);
    if (!good || optind >= argc)
        postmap_fatal("usage: %s %s [map_type:]file...", postmap_who, use);
    if ((o->query != NULL) + (o->del != NULL) + o->dump > 1)
        postmap_fatal("specify only one of -s %sq or -d", o->alias ? "or -" : "-");
    if ((o->header || o->body || o->mime) && (o->query == NULL || strcmp(o->query, "-") != 0))
        postmap_fatal("specify -b -h or -m only with \"-q -\"");
    if (o->mime && !o->header && !o->body)
        fprintf(stderr, "%s: warning: ignoring -m option without -b or -h\n", postmap_who);
    o->any_bytes = o->any_bytes || !checks_utf8(o->dir);
    return run_tables(argc - optind, argv + optind, o);
}

int cli_postmap(const char *dir, int argc, char **argv) {
    struct options o = {.dir = dir};
    return postmap_run(&o, "+c:d:fhbimnNopq:rsuUvwjF",
                       "[-bfFhimnNoprsuUvw] [-c config_dir] [-d key] [-q key]", argc, argv);
}

int cli_postalias(const char *dir, int argc, char **argv) {
    struct options o = {.dir = dir, .alias = true};
    postmap_who = "postalias";
    return postmap_run(&o, "+Nc:d:fijnopq:rsuvw",
                       "[-Nfinoprsuvw] [-c config_dir] [-d key] [-q key]", argc, argv);
}
