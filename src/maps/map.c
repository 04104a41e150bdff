/*
 * maps/map.c - lookup tables: opening, following changes, the source syntax; see map.h
 */
#include "maps/map.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "maps/tabconf.h"
#include "util/clock.h"
#include "util/fs.h"
#include "util/lines.h"
#include "util/log.h"
#include "util/mem.h"

/* How often a file is looked at for changes. */
#define CHECK_MS 200
/* Files that are written within one tick of the kernel's clock, up to 10 ms, get the same time. */
#define SAME_TIME_US 50000
#define NO_SIZE      (-1) /* of no file */
/* A text that is written in place counts when nothing was written for this long, and one that was
 * emptied, which is the beginning of most writing, when it stays so. */
#define SETTLED_MS 500
#define EMPTIED_MS 10000
/* Texts that are being written when they are opened for the first time are waited for so long, all
 * of them together: others wait behind them. */
#define FIRST_WAIT_MS 1500
#define FIRST_LOOK_MS 50
/* Postfix calls a table stale only if its source is older than this. */
#define STALE_GRACE_S 100
/* A source larger than this is not read to find a line in it. */
#define SOURCE_MAX (64U << 20)

static const struct map_ops *const types[] = {
    &map_hash,   &map_btree,    &map_lmdb,   &map_cdb,   &map_texthash, &map_inline,
    &map_static, &map_regexp,   &map_pcre,   &map_cidr,  &map_fail,     &map_mysql,
    &map_pgsql,  &map_sqlite,   &map_ldap,   &map_union, &map_pipe,     &map_socket,
    &map_tcp,    &map_accounts, &map_relays, &map_unix,
};

const struct map_ops *map_type(struct str type) {
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (str_eq_c(type, types[i]->type))
            return types[i];
    return NULL;
}

bool map_looks_like(struct str spec) {
    size_t n = 0;
    while (n < spec.n &&
           ((spec.p[n] >= 'a' && spec.p[n] <= 'z') || (spec.p[n] >= '0' && spec.p[n] <= '9')))
        n++;
    return n > 0 && n < spec.n && spec.p[n] == ':';
}

static void map_keep_error(struct map *m, struct sbuf *text, size_t several) {
    pthread_mutex_lock(&m->err_lock);
    free(m->err);
    m->err = sbuf_take(text);
    m->several = several;
    pthread_mutex_unlock(&m->err_lock);
}

void map_set_error(struct map *m, const char *fmt, ...) {
    struct sbuf b = {0};
    va_list ap;
    va_start(ap, fmt);
    sbuf_vprintf(&b, fmt, ap);
    va_end(ap);
    map_keep_error(m, &b, 0);
}

void map_set_several(struct map *m, const char *shown, size_t n) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s: %zu values for one key, and only one is allowed", shown, n);
    map_keep_error(m, &b, n);
}

void map_take_error(struct map *m, struct map *part, const char *named) {
    struct sbuf b = {0};
    size_t several;
    char *why = map_fault(part, &several);
    if (several == 0 && named[0] != '\0')
        sbuf_printf(&b, "%s: ", named);
    sbuf_add_c(&b, why);
    map_keep_error(m, &b, several);
    free(why);
}

int map_broken(struct map *m, const char *why) {
    map_set_error(m,
                  "open database %s: %s; it has to be made again (postmap, or for aliases "
                  "newaliases)",
                  m->path, why);
    return -EIO;
}

char *map_error(struct map *m) {
    size_t several;
    return map_fault(m, &several);
}

char *map_fault(struct map *m, size_t *several) {
    pthread_mutex_lock(&m->err_lock);
    *several = m->several;
    char *e = mem_strdup(m->err == NULL ? "unknown error" : m->err);
    pthread_mutex_unlock(&m->err_lock);
    return e;
}

static bool remarks_are_logged = true;

void map_log_no_remarks(void) {
    remarks_are_logged = false;
}

void map_remark(struct map *m, const char *text) {
    if (remarks_are_logged)
        log_warn("maps", "%s", text);
    if (m->remarks++ == 0)
        m->remark = mem_strdup(text);
}

/* Rules of patterns may stand between braces instead of in a file. */
static bool holds_its_rules(const struct map *m) {
    bool patterns = m->ops == &map_regexp || m->ops == &map_pcre || m->ops == &map_cidr;
    return patterns && m->name[0] == '{';
}

static void map_path(struct map *m, const char *dir) {
    struct sbuf b = {0};
    if (m->ops->suffix == NULL || holds_its_rules(m))
        return;
    if (m->ops->remote && strchr(m->name, '/') == NULL &&
        (m->given = tabconf_legacy(m->name)) != NULL)
        return;
    if (m->name[0] != '/' && dir != NULL) {
        sbuf_printf(&b, "%s/%s", dir, m->name);
        free(m->name);
        m->name = sbuf_take(&b);
    }
    sbuf_printf(&b, "%s%s", m->name, m->ops->suffix);
    m->path = sbuf_take(&b);
}

void map_read_from(struct map *m, const struct stat *st) {
    m->st = *st;
    int64_t written_us = 1000000 * (int64_t)st->st_ctim.tv_sec + st->st_ctim.tv_nsec / 1000;
    if (llabs(clock_wall_us() - written_us) < SAME_TIME_US)
        m->st.st_size = NO_SIZE;
}

static void try_open(struct map *m) {
    struct stat st;
    m->checked_ms = clock_mono_ms();
    if (m->path != NULL && stat(m->path, &st) == 0) {
        map_read_from(m, &st);
    } else if (m->path != NULL) {
        const char *why = strerror(errno), *brace = strchr(m->spec, '{');
        map_set_error(m, "open database %s: %s", brace == NULL ? m->path : "{(hidden)}", why);
        return;
    }
    m->opened = m->ops->open(m) == 0;
}

/* What a spec of a type we do not have becomes.  What is no file's name may be the login of a row
 * that was written here, and is not shown. */
static int refuse_open(struct map *m) {
    const char *colon = strchr(m->spec, ':');
    int type = colon == NULL ? 0 : (int)(colon - m->spec) + 1;
    bool shown = m->spec[type] == '/';
    if (shown && strncmp(m->spec, "non-existent:", (size_t)type) == 0) /* CONFIG_UNREAD */
        map_set_error(m, "file %s could not be read with the configuration", m->spec + type);
    else
        map_set_error(m, "unsupported dictionary type: %.*s%s", type, m->spec,
                      shown ? m->spec + type : "(hidden)");
    return -EOPNOTSUPP;
}

static const struct map_ops map_unknown = {.type = "unknown", .open = refuse_open, .fixed = true};

static struct map *map_new(const char *spec, enum map_values values) {
    struct map *m = MEM_NEW(struct map);
    m->values = values;
    pthread_rwlock_init(&m->lock, NULL);
    pthread_mutex_init(&m->err_lock, NULL);
    m->spec = mem_strdup(spec);
    m->fold = true;
    return m;
}

/* Is the table a file that a postmap makes of a source? */
static bool is_made(const struct map *m) {
    return m->ops->build != NULL;
}

/* Is the table a text that is read whole when it is opened?  The relay records' file is none. */
static bool is_text(const struct map *m) {
    return !is_made(m) && m->ops != &map_relays;
}

/* Has a text been left alone for so long?  By its own time, or, as that may be anything, by ours.
 */
static bool text_is_old(struct map *m, const struct stat *st, int64_t now, int64_t wait) {
    int64_t age = clock_wall_us() / 1000 - 1000 * (int64_t)st->st_mtim.tv_sec -
                  (int64_t)st->st_mtim.tv_nsec / 1000000;
    pthread_mutex_lock(&m->err_lock);
    if (!fs_is_unwritten(st, &m->seen)) {
        m->seen = *st;
        m->seen_ms = now;
    }
    bool old = age >= wait || now - m->seen_ms >= wait;
    pthread_mutex_unlock(&m->err_lock);
    return old;
}

static bool text_has_settled(struct map *m, const struct stat *st, int64_t now) {
    return text_is_old(m, st, now, st->st_size == 0 ? EMPTIED_MS : SETTLED_MS);
}

static void text_is_written(struct map *m) {
    map_set_error(m, "open database %s: it is being written", m->path);
}

static atomic_int first_wait_ms; /* what is left of it; 0: nothing is waited for */
static bool first_open_waits;    /* set before there are threads */

void map_wait_for_texts(void) {
    first_open_waits = true;
    atomic_store(&first_wait_ms, FIRST_WAIT_MS);
}

/* False: the table is a text that is still being written.  It is asked nothing, as one that was not
 * there. */
static bool await_text(struct map *m) {
    struct stat st;
    if (!first_open_waits || m->path == NULL || !is_text(m))
        return true;
    for (;;) {
        if (stat(m->path, &st) < 0 || !S_ISREG(st.st_mode) ||
            text_is_old(m, &st, clock_mono_ms(), SETTLED_MS))
            return true;
        if (atomic_load(&first_wait_ms) <= 0)
            break;
        atomic_fetch_sub(&first_wait_ms, FIRST_LOOK_MS);
        usleep(FIRST_LOOK_MS * 1000);
    }
    text_is_written(m);
    return false;
}

struct map *map_open_as(const char *spec, const char *dir, enum map_values values) {
    struct map *m = map_new(spec, values);
    struct str s = str_of(spec);
    if (str_istarts(s, "proxy:"))
        s = str_from(s, 6);
    ptrdiff_t colon = str_chr(s, ':');
    m->name = str_dup(str_trim(str_from(s, (size_t)(colon + 1))));
    m->ops = colon < 0 ? NULL : map_type(str_make(s.p, (size_t)colon));
    if (m->ops == NULL)
        m->ops = &map_unknown;
    m->fixed = m->ops->fixed;
    m->dir = dir == NULL ? NULL : mem_strdup(dir);
    map_path(m, dir);
    if (await_text(m))
        try_open(m);
    return m;
}

struct map *map_open(const char *spec, const char *dir) {
    return map_open_as(spec, dir, VALUES_JOINED);
}

struct map *map_open_conf(const struct map_ops *ops, const char *spec, struct tabconf *conf,
                          enum map_values values) {
    struct map *m = map_new(spec, values);
    m->name = mem_strdup(spec);
    m->ops = ops;
    m->fixed = ops->fixed;
    m->given = conf;
    try_open(m);
    return m;
}

static void shut(struct map *m) {
    if (m->opened && m->ops->close != NULL)
        m->ops->close(m);
    m->opened = false;
    m->state = NULL;
    free(m->remark);
    m->remark = NULL;
    m->remarks = 0;
}

void map_close(struct map *m) {
    if (m == NULL)
        return;
    shut(m);
    pthread_rwlock_destroy(&m->lock);
    pthread_mutex_destroy(&m->err_lock);
    if (m->name != NULL)
        mem_wipe(m->name, strlen(m->name)); /* inline and static hold values */
    tabconf_free(m->given);
    free(m->spec);
    free(m->name);
    free(m->dir);
    free(m->path);
    free(m->err);
    free(m);
}

/* Is another file there than the one that was opened, or one where none could be opened, and has
 * it settled?  That it has another name or mode than when it was written says nothing: its first
 * line may have been written before.  A look every CHECK_MS is enough. */
static bool has_changed(struct map *m) {
    struct stat st;
    int64_t now = clock_mono_ms();
    if (m->path == NULL || (m->opened && now - m->checked_ms < CHECK_MS))
        return false;
    m->checked_ms = now;
    if (stat(m->path, &st) < 0)
        return true;
    bool another = st.st_ino != m->st.st_ino || st.st_dev != m->st.st_dev;
    if (m->opened && !another && fs_is_unwritten(&st, &m->st))
        return false;
    if (!is_text(m) || !S_ISREG(st.st_mode) || text_has_settled(m, &st, now))
        return true;
    if (!m->opened)
        text_is_written(m);
    return false;
}

static void open_again(struct map *m) {
    shut(m);
    try_open(m);
}

/* Does the table, as it was opened, answer for key without its server? */
static bool answers_alone(struct map *m, struct str key) {
    return m->opened && m->ops->asks != NULL && !m->ops->asks(m, key);
}

/* Locks the table to ask for key, on the file that is there now.  While questions wait for its
 * server the table cannot be opened anew: a question that needs no server is answered as before the
 * change, and so is one that may not wait. */
static void lock_followed(struct map *m, struct str key, bool may_wait) {
    if (!m->ops->shared) {
        pthread_rwlock_wrlock(&m->lock);
        if (has_changed(m))
            open_again(m);
        return;
    }
    pthread_rwlock_rdlock(&m->lock);
    if (!has_changed(m))
        return;
    pthread_rwlock_unlock(&m->lock);
    if (pthread_rwlock_trywrlock(&m->lock) != 0) {
        pthread_rwlock_rdlock(&m->lock);
        if (!may_wait || answers_alone(m, key))
            return;
        pthread_rwlock_unlock(&m->lock);
        pthread_rwlock_wrlock(&m->lock); /* waits for questions that are being answered */
    }
    open_again(m);
    pthread_rwlock_unlock(&m->lock);
    pthread_rwlock_rdlock(&m->lock);
}

/* The line of a table's source that has key; the source may be gone, or newer. */
struct source_find {
    struct str key;
    int line;
    struct source_find *also; /* another key to look for, or NULL */
};

static void source_match(void *arg, struct str key, struct str value, int line) {
    (void)value;
    for (struct source_find *f = arg; f != NULL; f = f->also)
        if (f->line == 0 && str_eq(key, f->key))
            f->line = line;
}

static bool source_has_all(const struct source_find *f) {
    while (f != NULL && f->line > 0)
        f = f->also;
    return f == NULL;
}

static void source_quiet(void *arg, int line, const char *text) {
    (void)arg;
    (void)line;
    (void)text;
}

/* False: there is no source that can be read. */
static bool source_find(struct map *m, struct source_find *f) {
    struct sbuf text = {0};
    bool there = fs_read(m->name, &text, SOURCE_MAX) == 0;
    if (there)
        map_source_parse(sbuf_str(&text), m->fold, source_match, source_quiet, f);
    if (!source_has_all(f) && text.n > 0) /* it may be an alias file */
        alias_source_parse(sbuf_str(&text), m->fold, source_match, source_quiet, f);
    sbuf_wipe(&text);
    return there;
}

/* Is the row that was found under the folded key the row of key?  It is, if the source has a row of
 * key and none of the folded key. */
static enum map_rc source_says(struct map *m, struct str key, struct str folded) {
    struct source_find other = {.key = folded}, own = {.key = key, .also = &other};
    if (source_find(m, &own) && (own.line > 0) != (other.line > 0))
        return own.line > 0 ? MAP_FOUND : MAP_NOT_FOUND;
    map_set_error(m,
                  "%s: Postfix's postmap has put \"%.*s\" and \"%.*s\" under one key, and the "
                  "source does not say whose row it is; make the table again with Posthouse's",
                  m->path, STR_FMT(key), STR_FMT(folded));
    return MAP_ERROR;
}

/* Postfix's postmap folds keys further than str_lower does: it puts the row of straße.test under
 * strasse.test, and writes the sigma at the end of a word as the other sigma.  Whether a row under
 * strasse.test is that of straße.test, only the source says. */
static enum map_rc get_folded(struct map *m, struct str key, struct sbuf *value) {
    struct sbuf folded = {0}, found = {0};
    enum map_rc rc = MAP_NOT_FOUND;
    if (str_casefold(key, &folded) && !str_eq(sbuf_str(&folded), key))
        rc = m->ops->get(m, sbuf_str(&folded), &found);
    if (rc == MAP_FOUND)
        rc = source_says(m, key, sbuf_str(&folded));
    if (rc == MAP_FOUND)
        sbuf_add_str(value, sbuf_str(&found));
    sbuf_wipe(&found);
    sbuf_free(&folded);
    return rc;
}

enum map_rc map_get(struct map *m, struct str key, struct sbuf *value) {
    enum map_rc rc = MAP_ERROR;
    char small[256], *folded = key.n < sizeof small ? small : mem_alloc(key.n + 1);
    memcpy(folded, key.p, key.n);
    folded[key.n] = '\0';
    if (m->fold && m->fixed)
        str_lower(folded, key.n);
    lock_followed(m, str_make(folded, key.n), true);
    if (m->opened)
        rc = m->ops->get(m, str_make(folded, key.n), value);
    if (rc == MAP_NOT_FOUND && m->fold && is_made(m) && !str_is_ascii(key))
        rc = get_folded(m, str_make(folded, key.n), value);
    pthread_rwlock_unlock(&m->lock);
    if (folded != small)
        free(folded);
    return rc;
}

static void source_where(struct map *m, struct str key, struct sbuf *out) {
    struct source_find f = {.key = key};
    source_find(m, &f);
    if (f.line > 0)
        sbuf_printf(out, "%s, line %d", m->name, f.line);
    else
        sbuf_printf(out, "%s", m->path);
}

bool map_asks(struct map *m, struct str key) {
    if (!m->ops->remote || m->ops->asks == NULL)
        return m->ops->remote;
    lock_followed(m, key, false);
    bool asks = !m->opened || m->ops->asks(m, key);
    pthread_rwlock_unlock(&m->lock);
    return asks;
}

void map_where(struct map *m, struct str key, struct sbuf *out) {
    char *folded = str_dup(key);
    if (m->fold && m->fixed)
        str_lower(folded, key.n);
    key = str_make(folded, key.n);
    lock_followed(m, key, true);
    if (m->opened && m->ops->where != NULL)
        m->ops->where(m, key, out);
    else if (m->opened && m->path != NULL && m->ops->fixed && !m->ops->remote)
        source_where(m, key, out);
    pthread_rwlock_unlock(&m->lock);
    free(folded);
}

int map_each(struct map *m, int (*fn)(void *arg, struct str key, struct str value), void *arg) {
    int rc = -EOPNOTSUPP;
    lock_followed(m, STR_NONE, true);
    if (m->opened && m->ops->each != NULL)
        rc = m->ops->each(m, fn, arg);
    else if (m->opened)
        map_set_error(m, "table %s: sequence operation is not supported", m->spec);
    pthread_rwlock_unlock(&m->lock);
    return rc;
}

void map_rows(struct map *m, map_row_fn fn, void *arg) {
    lock_followed(m, STR_NONE, true);
    if (m->opened && m->ops->rules != NULL)
        m->ops->rules(m, fn, arg);
    else if (m->opened && !m->ops->remote && m->ops->each != NULL)
        m->ops->each(m, fn, arg);
    pthread_rwlock_unlock(&m->lock);
}

const struct maps *map_parts(const struct map *m) {
    bool composed = m->ops == &map_union || m->ops == &map_pipe;
    return composed && m->opened ? m->state : NULL;
}

char *map_stale(const struct map *m) {
    struct stat src, db;
    if (!is_made(m) || stat(m->name, &src) < 0 || stat(m->path, &db) < 0)
        return NULL;
    if (src.st_mtime <= db.st_mtime || src.st_mtime >= time(NULL) - STALE_GRACE_S)
        return NULL;
    struct sbuf b = {0};
    sbuf_printf(&b, "database %s is older than source file %s", m->path, m->name);
    return sbuf_take(&b);
}

struct source {
    bool fold;
    void (*fn)(void *arg, struct str key, struct str value, int line);
    void (*warn)(void *arg, int line, const char *text);
    void *arg;
};

/* Length of the key: to the first blank outside double quotes and behind no backslash. */
static size_t key_span(struct str line) {
    size_t i = 0;
    while (i < line.n && !isspace((unsigned char)line.p[i]))
        i = str_token_end(line, i, "\"\"");
    return i;
}

static void source_line(void *arg, struct str line, int no) {
    struct source *s = arg;
    struct str all = str_trim(line);
    size_t n = key_span(all);
    struct str value = str_trim(str_from(all, n));
    if (value.n == 0) {
        s->warn(s->arg, no, "expected format: key whitespace value");
        return;
    }
    if (all.p[n - 1] == ':')
        s->warn(s->arg, no, "record is in \"key: value\" format; is this an alias file?");
    if (s->fold)
        str_lower((char *)(uintptr_t)all.p, n);
    s->fn(s->arg, str_make(all.p, n), value, no);
}

static void source_orphan(void *arg, struct str line, int no) {
    struct source *s = arg;
    (void)line;
    s->warn(s->arg, no, "line begins with whitespace but continues nothing");
}

static const struct lines_ops source_ops = {source_line, source_orphan};

void map_source_parse(struct str text, bool fold,
                      void (*fn)(void *arg, struct str key, struct str value, int line),
                      void (*warn)(void *arg, int line, const char *text), void *arg) {
    struct source s = {fold, fn, warn, arg};
    lines_logical(text, false, &source_ops, &s);
}
