/*
 * maps/map_db.c - hash and btree: Berkeley DB files as Postfix's postmap writes them
 *
 * Keys and values end with a NUL there; files of other writers may lack it, so both forms are
 * tried and the first that answers is kept (Postfix's try0null and try1null).  New files are
 * written beside the old one and renamed over it.
 */
#include <db.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "maps/btree_check.h"
#include "maps/hash_check.h"
#include "maps/map.h"
#include "util/fs.h"
#include "util/mem.h"

struct state {
    DB *db;
    bool try_null;  /* keys with NUL */
    bool try_plain; /* keys without */
};

static int db_start(DB **db, const char *path, DBTYPE type, uint32_t flags, int mode) {
    int rc = db_create(db, NULL, 0);
    if (rc != 0)
        return rc;
    (*db)->set_errfile(*db, NULL);
    rc = (*db)->open(*db, NULL, path, NULL, type, flags, mode);
    if (rc != 0)
        (*db)->close(*db, 0);
    return rc;
}

static int open_type(struct map *m, DBTYPE type) {
    const char *why = type == DB_HASH ? hash_check(m->path) : btree_check(m->path);
    if (why != NULL)
        return map_broken(m, why);
    struct state *s = MEM_NEW(struct state);
    int rc = db_start(&s->db, m->path, type, DB_RDONLY, 0);
    if (rc != 0) {
        free(s);
        map_set_error(m, "open database %s: %s", m->path, db_strerror(rc));
        return -EIO;
    }
    s->try_null = s->try_plain = true;
    m->state = s;
    return 0;
}

static int hash_open(struct map *m) {
    return open_type(m, DB_HASH);
}

static int btree_open(struct map *m) {
    return open_type(m, DB_BTREE);
}

static void db_shut(struct map *m) {
    struct state *s = m->state;
    s->db->close(s->db, 0);
    free(s);
}

/* data is the library's own memory until the next call; a secret is not left there by us. */
static enum map_rc db_ask(struct map *m, const char *key, size_t n, struct sbuf *value) {
    struct state *s = m->state;
    DBT k = {.data = (void *)(uintptr_t)key, .size = (uint32_t)n}, v = {0};
    int rc = s->db->get(s->db, NULL, &k, &v, 0);
    if (rc == DB_NOTFOUND)
        return MAP_NOT_FOUND;
    if (rc != 0) {
        map_set_error(m, "error reading %s: %s", m->path, db_strerror(rc));
        return MAP_ERROR;
    }
    size_t len = v.size;
    if (len > 0 && ((char *)v.data)[len - 1] == '\0')
        len--;
    sbuf_add(value, v.data, len);
    return MAP_FOUND;
}

static enum map_rc db_get(struct map *m, struct str key, struct sbuf *value) {
    struct state *s = m->state;
    enum map_rc rc = MAP_NOT_FOUND;
    if (s->try_null) {
        rc = db_ask(m, key.p, key.n + 1, value); /* map_get's copy ends with a NUL */
        if (rc == MAP_FOUND)
            s->try_plain = false;
    }
    if (rc == MAP_NOT_FOUND && s->try_plain) {
        rc = db_ask(m, key.p, key.n, value);
        if (rc == MAP_FOUND)
            s->try_null = false;
    }
    return rc;
}

static struct str db_no_nul(const DBT *d) {
    size_t n = d->size;
    if (n > 0 && ((const char *)d->data)[n - 1] == '\0')
        n--;
    return str_make(d->data, n);
}

static int db_each(struct map *m, int (*fn)(void *arg, struct str key, struct str value),
                   void *arg) {
    struct state *s = m->state;
    DBC *cur;
    DBT k = {0}, v = {0};
    int stop = 0, rc = s->db->cursor(s->db, NULL, &cur, 0);
    if (rc != 0)
        return -EIO;
    while (stop == 0 && (rc = cur->get(cur, &k, &v, DB_NEXT)) == 0)
        stop = fn(arg, db_no_nul(&k), db_no_nul(&v));
    cur->close(cur);
    return rc == 0 || rc == DB_NOTFOUND ? 0 : -EIO;
}

static int db_put_all(DB *db, const struct map_pair *v, size_t n, bool with_nul) {
    for (size_t i = 0; i < n; i++) {
        char *key = str_dup(v[i].key), *val = str_dup(v[i].value);
        DBT k = {.data = key, .size = (uint32_t)(v[i].key.n + with_nul)};
        DBT d = {.data = val, .size = (uint32_t)(v[i].value.n + with_nul)};
        int rc = db->put(db, NULL, &k, &d, 0);
        mem_wipe(val, v[i].value.n);
        free(key);
        free(val);
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int build_type(const char *path, const struct map_pair *v, size_t n, mode_t mode,
                      enum map_nul nul, const char **why, DBTYPE type) {
    struct sbuf tmp = {0};
    DB *db;
    sbuf_printf(&tmp, "%s.tmp.%d", path, getpid());
    unlink(tmp.p);
    int rc = db_start(&db, tmp.p, type, DB_CREATE | DB_EXCL, (int)mode);
    if (rc == 0) {
        rc = db_put_all(db, v, n, nul != MAP_NUL_NO);
        int closed = db->close(db, 0);
        rc = rc != 0 ? rc : closed;
    }
    *why = rc == 0 ? NULL : db_strerror(rc);
    if (rc == 0) {
        rc = fs_commit_named(tmp.p, path, mode);
        *why = rc == 0 ? NULL : strerror(-rc);
    } else {
        unlink(tmp.p);
    }
    sbuf_free(&tmp);
    return rc == 0 ? 0 : -EIO;
}

static int hash_build(const char *path, const struct map_pair *v, size_t n, mode_t mode,
                      enum map_nul nul, const char **why) {
    return build_type(path, v, n, mode, nul, why, DB_HASH);
}

static int btree_build(const char *path, const struct map_pair *v, size_t n, mode_t mode,
                       enum map_nul nul, const char **why) {
    return build_type(path, v, n, mode, nul, why, DB_BTREE);
}

const struct map_ops map_hash = {.type = "hash",
                                 .suffix = ".db",
                                 .fixed = true,
                                 .open = hash_open,
                                 .close = db_shut,
                                 .get = db_get,
                                 .each = db_each,
                                 .build = hash_build};

const struct map_ops map_btree = {.type = "btree",
                                  .suffix = ".db",
                                  .fixed = true,
                                  .open = btree_open,
                                  .close = db_shut,
                                  .get = db_get,
                                  .each = db_each,
                                  .build = btree_build};
