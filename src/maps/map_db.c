/*
 * maps/map_db.c - hash and btree: Berkeley DB files as Postfix's postmap writes them
 *
 * Keys and values end with a NUL there; files of other writers may lack it, so both forms are
 * tried and the first that answers is kept (Postfix's try0null and try1null).  New files are
 * written beside the old one and renamed over it.  Postfix's postmap writes into the old one: an
 * answer counts only if the file was not changed before it was complete, and else the file is
 * opened and asked again.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "maps/db_btree.h"
#include "maps/db_hash.h"
#include "maps/map.h"
#include "maps/newfile.h"
#include "util/fs.h"
#include "util/mem.h"

/* How often a file that changes while it is asked is opened again for the same question. */
#define CHANGES_MAX 3

struct db_table {
    enum db_magic magic;
    union {
        struct db_hash hash;
        struct db_btree btree;
    } u;
    struct db_file *f; /* of either */
    bool try_null;     /* keys with NUL */
    bool try_plain;    /* keys without */
};

static enum map_rc db_is_written(struct map *m) {
    map_set_error(m, "open database %s: " DB_WRITTEN, m->path);
    return MAP_ERROR;
}

/* Opens the file for the table; m's error is set where that fails.  A file that was opened again is
 * the one that map.c compares with what is there: it is not read a second time. */
static int db_table_open(struct map *m, struct db_table *t) {
    const char *why = t->magic == DB_MAGIC_HASH ? db_hash_open(&t->u.hash, m->path)
                                                : db_btree_open(&t->u.btree, m->path);
    if (why == NULL) {
        map_read_from(m, &t->f->st);
        return 0;
    }
    if (t->f->err != 0)
        map_set_error(m, "open database %s: %s", m->path, why);
    else if (t->f->written)
        db_is_written(m);
    else
        return map_broken(m, why);
    return -EIO;
}

static int db_map_open(struct map *m, enum db_magic magic) {
    struct db_table *t = MEM_NEW(struct db_table);
    t->magic = magic;
    t->f = magic == DB_MAGIC_HASH ? &t->u.hash.f : &t->u.btree.f;
    t->try_null = t->try_plain = true;
    if (db_table_open(m, t) < 0) {
        free(t);
        return -EIO;
    }
    m->state = t;
    return 0;
}

static int hash_map_open(struct map *m) {
    return db_map_open(m, DB_MAGIC_HASH);
}

static int btree_map_open(struct map *m) {
    return db_map_open(m, DB_MAGIC_BTREE);
}

static void db_map_shut(struct map *m) {
    struct db_table *t = m->state;
    db_file_close(t->f);
    free(t);
}

static enum map_rc db_ask(struct db_table *t, const char *key, size_t n, struct sbuf *value) {
    struct str k = str_make(key, n);
    return t->magic == DB_MAGIC_HASH ? db_hash_get(&t->u.hash, k, value)
                                     : db_btree_get(&t->u.btree, k, value);
}

static enum map_rc db_ask_both(struct db_table *t, struct str key, struct sbuf *value) {
    enum map_rc rc = MAP_NOT_FOUND;
    if (t->try_null) {
        rc = db_ask(t, key.p, key.n + 1, value);
        if (rc == MAP_FOUND)
            t->try_plain = false;
    }
    if (rc == MAP_NOT_FOUND && t->try_plain) {
        rc = db_ask(t, key.p, key.n, value);
        if (rc == MAP_FOUND)
            t->try_null = false;
    }
    return rc;
}

static enum map_rc db_map_get(struct map *m, struct str key, struct sbuf *value) {
    struct db_table *t = m->state;
    size_t before = value->n;
    for (int i = 0; i < CHANGES_MAX; i++) {
        if (t->f->fd < 0 && db_table_open(m, t) < 0)
            return MAP_ERROR;
        enum map_rc rc = db_ask_both(t, key, value);
        if (db_unchanged(t->f)) {
            if (rc == MAP_ERROR)
                map_broken(m, DB_DAMAGED);
            if (rc == MAP_FOUND && value->n > before && value->p[value->n - 1] == '\0')
                value->n--;
            return rc;
        }
        value->n = before;
        t->try_null = t->try_plain = true;
        db_file_close(t->f);
    }
    return db_is_written(m);
}

struct db_listing {
    int (*fn)(void *arg, struct str key, struct str value);
    void *arg;
    struct sbuf key, value;
    bool bad;
};

static struct str db_without_nul(struct sbuf *b) {
    return str_make(b->p, b->n > 0 && b->p[b->n - 1] == '\0' ? b->n - 1 : b->n);
}

static bool db_list_row(void *arg, struct db_file *f, const struct db_row *row) {
    struct db_listing *l = arg;
    l->key.n = l->value.n = 0;
    l->bad = !db_item_text(f, &row->key, &l->key) || !db_item_text(f, &row->value, &l->value);
    return !l->bad && l->fn(l->arg, db_without_nul(&l->key), db_without_nul(&l->value)) == 0;
}

static int db_map_each(struct map *m, int (*fn)(void *arg, struct str key, struct str value),
                       void *arg) {
    struct db_table *t = m->state;
    struct db_listing l = {.fn = fn, .arg = arg};
    if (t->f->fd >= 0 && !db_unchanged(t->f))
        db_file_close(t->f);
    bool ok = (t->f->fd >= 0 || db_table_open(m, t) == 0) &&
              (t->magic == DB_MAGIC_HASH ? db_hash_each(&t->u.hash, db_list_row, &l)
                                         : db_btree_each(&t->u.btree, db_list_row, &l)) &&
              !l.bad;
    sbuf_wipe(&l.key);
    sbuf_wipe(&l.value);
    if (t->f->fd >= 0 && !db_unchanged(t->f)) {
        db_is_written(m);
        ok = false;
    } else if (!ok && t->f->fd >= 0) {
        map_broken(m, DB_DAMAGED);
    }
    return ok ? 0 : -EIO;
}

typedef int (*db_writer_fn)(int fd, const struct map_pair *v, size_t n, bool with_nul);

static int db_map_build(const char *path, const struct map_pair *v, size_t n, mode_t mode,
                        enum map_nul nul, const char **why, db_writer_fn write_rows) {
    struct sbuf tmp = {0};
    newfile_name(path, &tmp);
    int fd = open(tmp.p, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int rc = fd < 0 ? -errno : write_rows(fd, v, n, nul != MAP_NUL_NO);
    if (rc == 0 && fchmod(fd, mode) < 0)
        rc = -errno;
    if (rc == 0)
        rc = fs_commit(fd, tmp.p, path);
    if (fd >= 0)
        close(fd);
    if (rc != 0 && fd >= 0)
        unlink(tmp.p);
    *why = rc == 0 ? NULL : strerror(-rc);
    sbuf_free(&tmp);
    return rc;
}

static int hash_map_build(const char *path, const struct map_pair *v, size_t n, mode_t mode,
                          enum map_nul nul, const char **why) {
    return db_map_build(path, v, n, mode, nul, why, db_hash_write);
}

static int btree_map_build(const char *path, const struct map_pair *v, size_t n, mode_t mode,
                           enum map_nul nul, const char **why) {
    return db_map_build(path, v, n, mode, nul, why, db_btree_write);
}

const struct map_ops map_hash = {.type = "hash",
                                 .suffix = ".db",
                                 .fixed = true,
                                 .open = hash_map_open,
                                 .close = db_map_shut,
                                 .get = db_map_get,
                                 .each = db_map_each,
                                 .build = hash_map_build};

const struct map_ops map_btree = {.type = "btree",
                                  .suffix = ".db",
                                  .fixed = true,
                                  .open = btree_map_open,
                                  .close = db_map_shut,
                                  .get = db_map_get,
                                  .each = db_map_each,
                                  .build = btree_map_build};
