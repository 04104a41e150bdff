/*
 * maps/map_cdb.c - cdb: D. J. Bernstein's constant database, by tinycdb
 */
#include <cdb.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "maps/cdb_check.h"
#include "maps/map.h"
#include "maps/newfile.h"
#include "util/fs.h"
#include "util/mem.h"

struct state {
    struct cdb cdb;
    int fd;
};

static int cdb_map_open(struct map *m) {
    const char *why = cdb_check(m->path);
    if (why != NULL)
        return map_broken(m, why);
    struct state *s = MEM_NEW(struct state);
    s->fd = open(m->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (s->fd < 0 || cdb_init(&s->cdb, s->fd) != 0) {
        map_set_error(m, "open database %s: %s", m->path, strerror(errno));
        if (s->fd >= 0)
            close(s->fd);
        free(s);
        return -EIO;
    }
    m->state = s;
    return 0;
}

static void cdb_map_shut(struct map *m) {
    struct state *s = m->state;
    cdb_free(&s->cdb);
    close(s->fd);
    free(s);
}

static struct str cdb_no_nul(const void *p, unsigned n) {
    const char *c = p;
    return str_make(c, n > 0 && c[n - 1] == '\0' ? n - 1 : n);
}

static enum map_rc cdb_map_get(struct map *m, struct str key, struct sbuf *value) {
    struct state *s = m->state;
    int rc = cdb_find(&s->cdb, key.p, (unsigned)key.n);
    if (rc == 0)
        rc = cdb_find(&s->cdb, key.p, (unsigned)key.n + 1);
    if (rc == 0)
        return MAP_NOT_FOUND;
    const void *v = rc < 0 ? NULL : cdb_getdata(&s->cdb);
    if (v == NULL) {
        map_set_error(m, "error reading %s: damaged file", m->path);
        return MAP_ERROR;
    }
    sbuf_add_str(value, cdb_no_nul(v, cdb_datalen(&s->cdb)));
    return MAP_FOUND;
}

static int cdb_map_each(struct map *m, int (*fn)(void *arg, struct str key, struct str value),
                        void *arg) {
    struct state *s = m->state;
    unsigned pos;
    int rc, stop = 0;
    cdb_seqinit(&pos, &s->cdb);
    while (stop == 0 && (rc = cdb_seqnext(&pos, &s->cdb)) > 0) {
        const void *k = cdb_getkey(&s->cdb), *v = cdb_getdata(&s->cdb);
        if (k == NULL || v == NULL)
            return -EIO;
        stop = fn(arg, cdb_no_nul(k, cdb_keylen(&s->cdb)), cdb_no_nul(v, cdb_datalen(&s->cdb)));
    }
    return stop != 0 || rc == 0 ? 0 : -EIO;
}

static int cdb_put(struct cdb_make *mk, const struct map_pair *v, bool with_nul) {
    char *key = str_dup(v->key), *val = str_dup(v->value);
    int rc = cdb_make_add(mk, key, (unsigned)(v->key.n + with_nul), val,
                          (unsigned)(v->value.n + with_nul)) != 0
                 ? -errno
                 : 0;
    mem_wipe(val, v->value.n);
    free(key);
    free(val);
    return rc;
}

static int cdb_map_build(const char *path, const struct map_pair *v, size_t n, mode_t mode,
                         enum map_nul nul, const char **why) {
    struct sbuf tmp = {0};
    struct cdb_make mk;
    newfile_name(path, &tmp);
    int fd = open(tmp.p, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    int rc = fd < 0 ? -errno : 0;
    if (rc == 0) {
        fchmod(fd, mode);
        cdb_make_start(&mk, fd);
        for (size_t i = 0; i < n && rc == 0; i++)
            rc = cdb_put(&mk, &v[i], nul == MAP_NUL_YES);
        if (cdb_make_finish(&mk) != 0 && rc == 0)
            rc = -errno;
        if (rc == 0)
            rc = fs_commit(fd, tmp.p, path);
        close(fd);
    }
    if (rc != 0)
        unlink(tmp.p);
    *why = rc == 0 ? NULL : strerror(-rc);
    sbuf_free(&tmp);
    return rc;
}

const struct map_ops map_cdb = {.type = "cdb",
                                .suffix = ".cdb",
                                .fixed = true,
                                .open = cdb_map_open,
                                .close = cdb_map_shut,
                                .get = cdb_map_get,
                                .each = cdb_map_each,
                                .build = cdb_map_build};
