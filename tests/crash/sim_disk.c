/*
 * A disk in memory for the spool, with the bad habits of real ones.
 *
 * A file has what was written (now) and what would be there after a power cut (safe), compared in
 * sectors.  fdatasync makes them equal; a name is safe after the directory's fsync.  A failed sync
 * leaves its sectors dropped: readable, but not written by any later sync.
 */
#include "sim_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR     512U
#define FILES_MAX  256
#define FULL_CALLS 12
#define RO_CALLS   14
#define OUT_CALLS  9

struct file {
    char name[64], safe_name[64];
    bool named, safe_named; /* the name is there now; after a power cut */
    char *now, *safe;
    uint8_t *dropped; /* per sector */
    uint64_t size, safe_size, cap;
    int opens;
};

struct sim {
    struct spool_io io;
    uint64_t rnd;
    struct file f[FILES_MAX];
    unsigned calls, at, full, ro, out;
    enum fault fault, then;
    unsigned then_n;
    bool dead, sync_armed;
    bool killed; /* dead, but the kernel lives */
    bool tight;  /* no file gets longer */
};

uint64_t sim_rand(struct sim *d) {
    d->rnd ^= d->rnd << 13;
    d->rnd ^= d->rnd >> 7;
    d->rnd ^= d->rnd << 17;
    return d->rnd;
}

enum call {
    CALL_LOOK,
    CALL_ROOM, /* needs room */
    CALL_SYNC,
    CALL_FREE /* removes something */
};

static bool in_dir(const char *name, const char *dir) {
    size_t n = strlen(dir);
    return strncmp(name, dir, n) == 0 && name[n] == '/' && strchr(name + n + 1, '/') == NULL;
}

static bool is_segment(const struct file *f) {
    return f->named && in_dir(f->name, "s/log") && strcmp(f->name, "s/log/new") != 0;
}

/* A file of the log, drawn by chance, is removed. */
static void remove_some(struct sim *d) {
    unsigned n = 0;
    struct file *hit = NULL;
    for (int i = 0; i < FILES_MAX; i++) {
        struct file *f = &d->f[i];
        if (is_segment(f) && sim_rand(d) % ++n == 0)
            hit = f;
    }
    if (hit != NULL)
        hit->named = hit->safe_named = false;
}

/* The fault that is set happens now, at a call of this kind: 0, or the error that it gives. */
static int fault_now(struct sim *d, enum call kind, bool *shorten) {
    switch (d->fault) {
    case FAULT_CUT:
        d->dead = true;
        return -EIO;
    case FAULT_DIE:
        d->dead = d->killed = true;
        return -EIO;
    case FAULT_EIO:
        return -EIO;
    case FAULT_SHORT:
        if (shorten != NULL)
            *shorten = true;
        return 0;
    case FAULT_FULL:
        d->full = FULL_CALLS;
        return kind == CALL_ROOM ? -ENOSPC : 0;
    case FAULT_SYNC:
        d->sync_armed = kind != CALL_SYNC;
        return kind == CALL_SYNC ? -EIO : 0;
    case FAULT_RO:
        d->ro = RO_CALLS;
        return kind != CALL_LOOK ? -EROFS : 0;
    case FAULT_GONE:
        remove_some(d);
        return 0;
    case FAULT_OUT:
        d->out = OUT_CALLS;
        return -EIO;
    default:
        return 0;
    }
}

/* What happens at this call: 0, or the error it gives.  *shorten: do half of it. */
static int begin(struct sim *d, enum call kind, bool *shorten) {
    if (d->dead)
        return -EIO;
    unsigned call = d->calls++;
    if (d->full > 0 && d->full-- > 0 && kind == CALL_ROOM)
        return -ENOSPC;
    if (d->out > 0 && d->out-- > 0)
        return -EIO;
    if (d->ro > 0 && d->ro-- > 0 && kind != CALL_LOOK)
        return -EROFS;
    if (d->sync_armed && kind == CALL_SYNC) {
        d->sync_armed = false;
        return -EIO;
    }
    if (d->fault == FAULT_NONE || call != d->at)
        return 0;
    int rc = fault_now(d, kind, shorten);
    if (d->then != FAULT_NONE && d->fault != FAULT_AFTER && d->fault != FAULT_GONE) {
        d->fault = d->then;
        d->at = call + 1 + d->then_n;
        d->then = FAULT_NONE;
    }
    return rc;
}

static void after(struct sim *d) {
    if (d->fault == FAULT_AFTER && d->calls == d->at + 1)
        d->dead = true;
}

static struct file *find(struct sim *d, const char *path) {
    for (int i = 0; i < FILES_MAX; i++)
        if (d->f[i].named && strcmp(d->f[i].name, path) == 0)
            return &d->f[i];
    return NULL;
}

static struct file *slot(struct sim *d) {
    for (int i = 0; i < FILES_MAX; i++) {
        struct file *f = &d->f[i];
        if (f->named || f->safe_named || f->opens > 0)
            continue;
        free(f->now);
        free(f->safe);
        free(f->dropped);
        *f = (struct file){0};
        return f;
    }
    fprintf(stderr, "sim: too many files\n");
    abort();
}

static int sim_open(void *arg, const char *path, int flags, mode_t mode) {
    struct sim *d = arg;
    struct file *f = find(d, path);
    (void)mode;
    int rc = begin(d, f == NULL && (flags & O_CREAT) != 0 ? CALL_ROOM : CALL_LOOK, NULL);
    if (rc < 0)
        return rc;
    if ((flags & O_DIRECTORY) != 0) { /* directories are names of files: this one has no bytes */
        f = slot(d);
        f->opens++;
        return (int)(f - d->f);
    }
    if (f != NULL && (flags & O_EXCL) != 0)
        return -EEXIST;
    if (f == NULL && (flags & O_CREAT) == 0)
        return -ENOENT;
    if (f == NULL) {
        f = slot(d);
        snprintf(f->name, sizeof f->name, "%s", path);
        f->named = true;
    } else if ((flags & O_TRUNC) != 0) {
        f->size = 0;
    }
    f->opens++;
    after(d);
    return (int)(f - d->f);
}

static void sim_close(void *arg, int fd) {
    struct sim *d = arg;
    d->f[fd].opens--;
}

/* What a removed file occupies is given back before it is closed. */
static void sim_discard(void *arg, int fd) {
    struct sim *d = arg;
    if (!d->f[fd].named && d->f[fd].size > 4096)
        d->f[fd].size = 4096;
    sim_close(arg, fd);
}

static void *grow_bytes(void *p, uint64_t old, uint64_t n) {
    char *q = realloc(p, n);
    memset(q + old, 0, n - old);
    return q;
}

static void grow(struct file *f, uint64_t size) {
    uint64_t n = (size + SECTOR) / SECTOR * SECTOR;
    if (n > f->cap) {
        f->now = grow_bytes(f->now, f->cap, n);
        f->safe = grow_bytes(f->safe, f->cap, n);
        f->dropped = grow_bytes(f->dropped, f->cap / SECTOR, n / SECTOR);
        f->cap = n;
    }
    if (size > f->size) {
        memset(f->now + f->size, 0, size - f->size);
        f->size = size;
    }
}

static ssize_t sim_pwritev(void *arg, int fd, const struct iovec *iov, int n, uint64_t off) {
    struct sim *d = arg;
    struct file *f = &d->f[fd];
    size_t total = 0, left;
    bool half = false;
    int rc = begin(d, CALL_ROOM, &half);
    if (rc == 0 && d->tight && off >= f->size)
        return -ENOSPC;
    if (rc < 0) {
        if (n > 0 && iov[0].iov_len > 8 && !d->dead &&
            rc != -EROFS) { /* some of it may have been written */
            grow(f, off + 8);
            memcpy(f->now + off, iov[0].iov_base, 8);
        }
        return rc;
    }
    for (int i = 0; i < n; i++)
        total += iov[i].iov_len;
    left = half && total > 1 ? total / 2 : total;
    total = left;
    grow(f, off + total);
    for (int i = 0; i < n && left > 0; i++) {
        size_t k = iov[i].iov_len < left ? iov[i].iov_len : left;
        if (k == 0)
            continue;
        memcpy(f->now + off, iov[i].iov_base, k);
        memset(f->dropped + off / SECTOR, 0, (off + k - 1) / SECTOR - off / SECTOR + 1);
        off += k;
        left -= k;
    }
    after(d);
    return (ssize_t)total;
}

static ssize_t sim_pread(void *arg, int fd, void *buf, size_t n, uint64_t off) {
    struct sim *d = arg;
    struct file *f = &d->f[fd];
    bool half = false;
    int rc = begin(d, CALL_LOOK, &half);
    if (rc < 0)
        return rc;
    if (off >= f->size)
        return 0;
    if (n > f->size - off)
        n = (size_t)(f->size - off);
    if (half && n > 1)
        n /= 2;
    memcpy(buf, f->now + off, n);
    return (ssize_t)n;
}

static int sim_allocate(void *arg, int fd, uint64_t size) {
    struct sim *d = arg;
    int rc = begin(d, CALL_ROOM, NULL);
    if (rc == 0 && d->tight && size > d->f[fd].size)
        rc = -ENOSPC;
    if (rc < 0)
        return rc;
    grow(&d->f[fd], size);
    after(d);
    return 0;
}

static int sim_datasync(void *arg, int fd) {
    struct sim *d = arg;
    struct file *f = &d->f[fd];
    int rc = begin(d, CALL_SYNC, NULL);
    uint64_t n = (f->size + SECTOR - 1) / SECTOR;
    if (d->dead)
        return rc;
    for (uint64_t i = 0; i < n; i++) {
        char *now = f->now + i * SECTOR, *safe = f->safe + i * SECTOR;
        if (f->dropped[i] != 0 || memcmp(now, safe, SECTOR) == 0)
            continue;
        if (rc < 0 && sim_rand(d) % 4 != 0)
            f->dropped[i] = 1;
        else
            memcpy(safe, now, SECTOR);
    }
    if (rc == 0)
        f->safe_size = f->size;
    after(d);
    return rc == 0 && !f->named ? -ENOENT : rc;
}

static bool sim_is_removed(void *arg, int fd) {
    struct sim *d = arg;
    return !d->f[fd].named;
}

static int sim_sync_dir(void *arg, const char *dir) {
    struct sim *d = arg;
    int rc = begin(d, CALL_SYNC, NULL);
    if (rc < 0)
        return rc;
    for (int i = 0; i < FILES_MAX; i++) {
        struct file *f = &d->f[i];
        if (!in_dir(f->name, dir) && !in_dir(f->safe_name, dir))
            continue;
        f->safe_named = f->named;
        memcpy(f->safe_name, f->name, sizeof f->safe_name);
    }
    after(d);
    return 0;
}

static int sim_lock(void *arg, int fd) {
    (void)fd;
    return begin(arg, CALL_LOOK, NULL);
}

static int sim_unlink(void *arg, const char *path) {
    struct sim *d = arg;
    int rc = begin(d, CALL_FREE, NULL);
    if (rc < 0)
        return rc;
    struct file *f = find(d, path);
    if (f == NULL)
        return -ENOENT;
    f->named = false;
    after(d);
    return 0;
}

static int sim_rename(void *arg, const char *from, const char *to) {
    struct sim *d = arg;
    int rc = begin(d, CALL_ROOM, NULL);
    if (rc < 0)
        return rc;
    struct file *f = find(d, from), *gone = find(d, to);
    if (f == NULL)
        return -ENOENT;
    if (gone != NULL)
        gone->named = false;
    snprintf(f->name, sizeof f->name, "%s", to);
    after(d);
    return 0;
}

static int sim_mkdir(void *arg, const char *path) {
    (void)path;
    return begin(arg, CALL_ROOM, NULL);
}

static int sim_random(void *arg, void *buf, size_t n) {
    for (size_t i = 0; i < n; i++)
        ((uint8_t *)buf)[i] = (uint8_t)(sim_rand(arg) >> 11);
    return 0;
}

static int64_t sim_size(void *arg, int fd) {
    struct sim *d = arg;
    int rc = begin(d, CALL_LOOK, NULL);
    return rc < 0 ? rc : (int64_t)d->f[fd].size;
}

static int sim_list(void *arg, const char *dir, void (*fn)(void *ctx, const char *name),
                    void *ctx) {
    struct sim *d = arg;
    int rc = begin(d, CALL_LOOK, NULL);
    if (rc < 0)
        return rc;
    for (int i = 0; i < FILES_MAX; i++)
        if (d->f[i].named && in_dir(d->f[i].name, dir))
            fn(ctx, d->f[i].name + strlen(dir) + 1);
    return 0;
}

static int64_t sim_space(void *arg, const char *dir) {
    (void)arg;
    (void)dir;
    return 1 << 30;
}

static const struct spool_io calls = {.open = sim_open,
                                      .close = sim_close,
                                      .discard = sim_discard,
                                      .pwritev = sim_pwritev,
                                      .pread = sim_pread,
                                      .allocate = sim_allocate,
                                      .datasync = sim_datasync,
                                      .is_removed = sim_is_removed,
                                      .sync_dir = sim_sync_dir,
                                      .lock = sim_lock,
                                      .unlink = sim_unlink,
                                      .rename = sim_rename,
                                      .mkdir = sim_mkdir,
                                      .random = sim_random,
                                      .size = sim_size,
                                      .list = sim_list,
                                      .space = sim_space};

struct sim *sim_new(uint64_t seed) {
    struct sim *d = calloc(1, sizeof *d);
    d->io = calls;
    d->io.arg = d;
    d->rnd = seed * 0x9e3779b97f4a7c15ULL + 1;
    return d;
}

void sim_free(struct sim *d) {
    for (int i = 0; i < FILES_MAX; i++) {
        free(d->f[i].now);
        free(d->f[i].safe);
        free(d->f[i].dropped);
    }
    free(d);
}

static void *dup_bytes(const void *p, size_t n) {
    void *q = malloc(n + 1);
    memcpy(q, p, n);
    return q;
}

struct sim *sim_copy(const struct sim *d, uint64_t seed) {
    struct sim *c = sim_new(seed);
    for (int i = 0; i < FILES_MAX; i++) {
        const struct file *f = &d->f[i];
        c->f[i] = *f;
        c->f[i].opens = 0;
        if (f->now == NULL)
            continue;
        c->f[i].now = dup_bytes(f->now, f->cap);
        c->f[i].safe = dup_bytes(f->safe, f->cap);
        c->f[i].dropped = dup_bytes(f->dropped, f->cap / SECTOR);
    }
    return c;
}

const struct spool_io *sim_io(struct sim *d) {
    return &d->io;
}

void sim_fault(struct sim *d, enum fault f, unsigned n) {
    d->fault = f;
    d->at = n;
    d->calls = 0;
    d->full = d->ro = d->out = 0;
    d->sync_armed = false;
    d->then = FAULT_NONE;
}

void sim_fault_then(struct sim *d, enum fault f, unsigned n) {
    d->then = f;
    d->then_n = n;
}

void sim_tight(struct sim *d, bool tight) {
    d->tight = tight;
}

unsigned sim_calls(const struct sim *d) {
    return d->calls;
}

bool sim_is_dead(const struct sim *d) {
    return d->dead;
}

/* A file with bytes, by chance; log/ has most of them. */
static struct file *some_file(struct sim *d) {
    unsigned n = 0;
    struct file *hit = NULL;
    for (int i = 0; i < FILES_MAX; i++) {
        struct file *f = &d->f[i];
        if (f->named && f->size > 0 && !in_dir(f->name, "s/damaged") && sim_rand(d) % ++n == 0)
            hit = f;
    }
    return hit;
}

static bool is_newest(struct sim *d, const struct file *f) {
    for (int i = 0; i < FILES_MAX; i++)
        if (is_segment(&d->f[i]) && strcmp(d->f[i].name, f->name) > 0)
            return false;
    return in_dir(f->name, "s/log");
}

static void rot_older(struct file *f, const struct sim *older) {
    const struct file *was = find((struct sim *)(uintptr_t)older, f->name);
    if (was == NULL)
        return;
    f->size = 0;
    grow(f, was->size);
    memcpy(f->now, was->now, was->size);
}

bool sim_rot(struct sim *d, const struct sim *older, enum rot kind) {
    struct file *f = some_file(d);
    if (f == NULL)
        return false;
    bool newest = is_newest(d, f);
    uint64_t used = f->size, at;
    while (used > 0 && f->now[used - 1] == 0)
        used--;
    at = used == 0 ? 0 : sim_rand(d) % used;
    uint64_t sector = at / SECTOR * SECTOR,
             n = f->size - sector < SECTOR ? f->size - sector : SECTOR;
    if (kind == ROT_BIT)
        f->now[at] = (char)(f->now[at] ^ 1 << sim_rand(d) % 8);
    for (uint64_t i = 0; i < n && (kind == ROT_SECTOR || kind == ROT_ZEROS); i++)
        f->now[sector + i] = kind == ROT_ZEROS ? 0 : (char)sim_rand(d);
    if (kind == ROT_SHORT)
        f->size = at;
    if (kind == ROT_GONE)
        f->named = false;
    if (kind == ROT_OLDER)
        rot_older(f, older);
    f->safe_named = f->named;
    f->safe_size = f->size;
    if (f->size > 0)
        memcpy(f->safe, f->now, f->size);
    return newest;
}

static void lose_sectors(struct sim *d, struct file *f) {
    if (f->size != f->safe_size && sim_rand(d) % 2 == 0)
        f->size = f->safe_size;
    f->safe_size = f->size;
    for (uint64_t i = 0; i < (f->size + SECTOR - 1) / SECTOR; i++) {
        char *now = f->now + i * SECTOR, *safe = f->safe + i * SECTOR;
        if (memcmp(now, safe, SECTOR) == 0)
            continue;
        uint64_t r = sim_rand(d);
        size_t keep = r % 3 == 0 ? 0 : r % 3 == 1 ? SECTOR : (r >> 8) % SECTOR;
        memcpy(safe, now, keep);
        memcpy(now, safe, SECTOR);
    }
    if (f->dropped != NULL)
        memset(f->dropped, 0, f->cap / SECTOR);
}

void sim_power_on(struct sim *d) {
    for (int i = 0; i < FILES_MAX && !d->killed; i++) {
        struct file *f = &d->f[i];
        if (f->named != f->safe_named)
            f->named = f->safe_named = sim_rand(d) % 2 == 0;
        if (f->safe_name[0] != '\0' && sim_rand(d) % 2 == 0) /* the name that it had */
            memcpy(f->name, f->safe_name, sizeof f->name);
        memcpy(f->safe_name, f->name, sizeof f->safe_name);
        lose_sectors(d, f);
    }
    sim_restart(d);
}

void sim_restart(struct sim *d) {
    d->dead = d->killed = false;
    sim_fault(d, FAULT_NONE, 0);
    for (int i = 0; i < FILES_MAX; i++)
        d->f[i].opens = 0;
}
