/*
 * maps/map_lmdb.c - lmdb: files as Postfix's postmap writes them (no sub-directory, no lock file)
 */
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "maps/lmdb_check.h"
#include "maps/map.h"
#include "maps/newfile.h"
#include "util/fs.h"
#include "util/mem.h"

struct state {
    MDB_env *env;
    MDB_dbi dbi;
};

/* Opens the environment and its only database; an LMDB error code. */
static int env_open(struct state *s, const char *path, unsigned flags, size_t size, mode_t mode) {
    MDB_txn *txn;
    int rc = mdb_env_create(&s->env);
    if (rc != 0)
        return rc;
    if (size > 0)
        mdb_env_set_mapsize(s->env, size);
    rc = mdb_env_open(s->env, path, MDB_NOSUBDIR | MDB_NOLOCK | flags, mode);
    if (rc == 0)
        rc = mdb_txn_begin(s->env, NULL, flags & MDB_RDONLY, &txn);
    if (rc == 0) {
        rc = mdb_dbi_open(txn, NULL, 0, &s->dbi);
        int done = mdb_txn_commit(txn);
        rc = rc != 0 ? rc : done;
    }
    if (rc != 0)
        mdb_env_close(s->env);
    return rc;
}

static int lmdb_open(struct map *m) {
    const char *why = lmdb_check(m->path);
    if (why != NULL)
        return map_broken(m, why);
    struct state *s = MEM_NEW(struct state);
    int rc = env_open(s, m->path, MDB_RDONLY, 0, 0);
    if (rc != 0) {
        free(s);
        map_set_error(m, "open database %s: %s", m->path, mdb_strerror(rc));
        return -EIO;
    }
    m->state = s;
    return 0;
}

static void lmdb_shut(struct map *m) {
    struct state *s = m->state;
    mdb_env_close(s->env);
    free(s);
}

static struct str lmdb_no_nul(const MDB_val *v) {
    size_t n = v->mv_size;
    if (n > 0 && ((const char *)v->mv_data)[n - 1] == '\0')
        n--;
    return str_make(v->mv_data, n);
}

static enum map_rc lmdb_get(struct map *m, struct str key, struct sbuf *value) {
    struct state *s = m->state;
    MDB_txn *txn;
    MDB_val v = {0};
    MDB_val with_nul = {key.n + 1, (void *)(uintptr_t)key.p};
    MDB_val without = {key.n, (void *)(uintptr_t)key.p};
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);
    if (rc == 0) {
        rc = mdb_get(txn, s->dbi, &with_nul, &v);
        if (rc == MDB_NOTFOUND && key.n > 0)
            rc = mdb_get(txn, s->dbi, &without, &v);
        if (rc == 0)
            sbuf_add_str(value, lmdb_no_nul(&v));
        mdb_txn_abort(txn);
    }
    if (rc == 0)
        return MAP_FOUND;
    /* A key that is too long for the format is not in it. */
    if (rc == MDB_NOTFOUND || rc == MDB_BAD_VALSIZE)
        return MAP_NOT_FOUND;
    map_set_error(m, "error reading %s: %s", m->path, mdb_strerror(rc));
    return MAP_ERROR;
}

static int lmdb_each(struct map *m, int (*fn)(void *arg, struct str key, struct str value),
                     void *arg) {
    struct state *s = m->state;
    MDB_txn *txn;
    MDB_cursor *cur;
    MDB_val k, v;
    int stop = 0;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        return -EIO;
    rc = mdb_cursor_open(txn, s->dbi, &cur);
    if (rc == 0) {
        while (stop == 0 && (rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) == 0)
            stop = fn(arg, lmdb_no_nul(&k), lmdb_no_nul(&v));
        mdb_cursor_close(cur);
    }
    mdb_txn_abort(txn);
    return rc == 0 || rc == MDB_NOTFOUND ? 0 : -EIO;
}

static int lmdb_put_all(struct state *s, const struct map_pair *v, size_t n, bool with_nul) {
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, 0, &txn);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < n && rc == 0; i++) {
        char *key = str_dup(v[i].key), *val = str_dup(v[i].value);
        MDB_val k = {v[i].key.n + with_nul, key}, d = {v[i].value.n + with_nul, val};
        rc = mdb_put(txn, s->dbi, &k, &d, 0);
        mem_wipe(val, v[i].value.n);
        free(key);
        free(val);
    }
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

static int lmdb_build(const char *path, const struct map_pair *v, size_t n, mode_t mode,
                      enum map_nul nul, const char **why) {
    struct sbuf tmp = {0};
    struct state s = {0};
    size_t size = 1U << 20;
    for (size_t i = 0; i < n; i++)
        size += 4 * (v[i].key.n + v[i].value.n + 64);
    newfile_name(path, &tmp);
    int rc = env_open(&s, tmp.p, 0, size, mode);
    if (rc == 0) {
        rc = lmdb_put_all(&s, v, n, nul != MAP_NUL_NO);
        mdb_env_close(s.env);
    }
    *why = rc == 0 ? NULL : mdb_strerror(rc);
    if (rc == 0) {
        rc = fs_commit_named(tmp.p, path, mode);
        *why = rc == 0 ? NULL : strerror(-rc);
    } else {
        unlink(tmp.p);
    }
    sbuf_free(&tmp);
    return rc == 0 ? 0 : -EIO;
}

const struct map_ops map_lmdb = {.type = "lmdb",
                                 .suffix = ".lmdb",
                                 .fixed = true,
                                 .open = lmdb_open,
                                 .close = lmdb_shut,
                                 .get = lmdb_get,
                                 .each = lmdb_each,
                                 .build = lmdb_build};
