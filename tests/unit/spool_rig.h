/* What the unit tests of the spool share: a spool on a real directory whose calls can fail, and
 * batches run by hand. */
#ifndef PH_TESTS_SPOOL_RIG_H
#define PH_TESTS_SPOOL_RIG_H

#include "unit.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spool/index.h"
#include "spool/segment.h"
#include "spool/spool.h"
#include "util/codec.h"
#include "util/mem.h"

/* A program uses a part of what follows. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-variable"

static struct spool_io io;
static int fail_sync, fail_write; /* how many of the next calls fail */

static int flaky_sync(void *arg, int fd) {
    (void)arg;
    if (fail_sync > 0 && fail_sync-- > 0)
        return -EIO;
    return spool_io_disk.datasync(NULL, fd);
}

static ssize_t flaky_write(void *arg, int fd, const struct iovec *iov, int n, uint64_t off) {
    (void)arg;
    if (fail_write > 0 && fail_write-- > 0)
        return -ENOSPC;
    struct iovec one = {iov[0].iov_base,
                        iov[0].iov_len > 5 ? 5 : iov[0].iov_len}; /* always short */
    return n > 1 && iov[0].iov_len > 5 ? spool_io_disk.pwritev(NULL, fd, &one, 1, off)
                                       : spool_io_disk.pwritev(NULL, fd, iov, n, off);
}

struct waiter {
    struct spool_op op;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool over;
};

static void on_done(struct spool_op *op) {
    struct waiter *w = op->arg;
    pthread_mutex_lock(&w->lock);
    w->over = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

static int run(struct spool *s, struct waiter *w) {
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    w->op.done = on_done;
    w->op.arg = w;
    spool_submit(s, &w->op);
    pthread_mutex_lock(&w->lock);
    while (!w->over)
        pthread_cond_wait(&w->wake, &w->lock);
    pthread_mutex_unlock(&w->lock);
    return w->op.rc;
}

static int put(struct spool *s, uint64_t id, const char *meta, size_t size) {
    struct waiter w = {.op = {.kind = SPOOL_NEW, .id = id}};
    struct sbuf body = {0};
    memset(sbuf_room(&body, size), 'a' + (int)(id % 26), size);
    sbuf_advance(&body, size);
    sbuf_add_c(&w.op.meta, meta);
    w.op.body = body_from_buf(&body);
    int rc = run(s, &w);
    body_unref(w.op.body);
    sbuf_free(&w.op.meta);
    return rc;
}

static int put_file(struct spool *s, uint64_t id, size_t size) {
    struct waiter c = {.op = {.kind = SPOOL_BODY_WRITE, .id = id}};
    memset(sbuf_room(&c.op.chunk, size), 'f', size);
    sbuf_advance(&c.op.chunk, size);
    assert_int_equal(run(s, &c), 0);
    sbuf_free(&c.op.chunk);
    struct waiter n = {.op = {.kind = SPOOL_NEW, .id = id}};
    sbuf_add_c(&n.op.meta, "file");
    n.op.body = body_from_file(size, c.op.crc);
    int rc = run(s, &n);
    body_unref(n.op.body);
    sbuf_free(&n.op.meta);
    return rc;
}

static void note(struct spool *s, enum spool_kind kind, uint64_t id, const char *text) {
    struct sbuf b = {0};
    sbuf_add_c(&b, text);
    spool_note(s, kind, id, &b);
    spool_flush(s);
}

struct seen {
    uint64_t ids[64];
    char meta[64][32], progress[64][32];
    size_t n;
};

static void on_found(void *arg, const struct spool_found *f) {
    struct seen *s = arg;
    s->ids[s->n] = f->id;
    snprintf(s->meta[s->n], 32, "%.*s", STR_FMT(f->meta));
    snprintf(s->progress[s->n], 32, "%.*s", STR_FMT(f->progress));
    s->n++;
}

static struct spool *open_spool(struct seen *seen) {
    struct spool *s;
    char *why;
    struct spool_conf conf = {dir, 1U << 20};
    *seen = (struct seen){0};
    assert_int_equal(spool_open(&s, &conf, &io, on_found, seen, &why), 0);
    assert_int_equal(spool_start(s), 0);
    return s;
}

static size_t index_of(const struct seen *s, uint64_t id) {
    for (size_t i = 0; i < s->n; i++)
        if (s->ids[i] == id)
            return i;
    fail_msg("message %d is missing", (int)id);
    return 0;
}

/* A new spool can begin in dir; content in files stays there. */
static void empty_spool(void) {
    char cmd[200];
    snprintf(cmd, sizeof cmd, "cd %s && rm -rf log lock damaged", dir);
    assert_int_equal(system(cmd), 0);
}

static int setup(void **state) {
    io = spool_io_disk;
    fail_sync = fail_write = 0;
    return dir_make(state);
}

/* ---- batches that are run by hand: spool_turn() ---- */

static int turn_syncs, turn_bad_sync; /* calls of datasync; the one that fails */
static int turn_sync(void *arg, int fd) {
    return ++turn_syncs == turn_bad_sync ? -EIO : spool_io_disk.datasync(arg, fd);
}

#define TURN_OPS 40
#define BEGIN    ((off_t)(sizeof(struct rec_head) + sizeof(struct rec_begin)))

/* Operations of one batch, and what their done() was told. */
struct turn {
    struct spool_op ops[TURN_OPS];
    int told[TURN_OPS]; /* 1: nothing yet */
    size_t n;
};

static void turn_done(struct spool_op *op) {
    *(int *)op->arg = op->rc;
    if (op->kind == SPOOL_NEW)
        body_unref(op->body);
    sbuf_free(&op->meta);
    sbuf_free(&op->settled);
}

static size_t turn_op(struct spool *s, struct turn *t, const struct spool_op *op) {
    assert_true(t->n < TURN_OPS);
    t->ops[t->n] = *op;
    t->told[t->n] = 1;
    t->ops[t->n].done = turn_done;
    t->ops[t->n].arg = &t->told[t->n];
    spool_submit(s, &t->ops[t->n]);
    return t->n++;
}

static size_t turn_new(struct spool *s, struct turn *t, uint64_t id, size_t size, uint64_t settles,
                       const char *settled) {
    struct spool_op op = {.kind = SPOOL_NEW, .id = id, .settles = settles};
    struct sbuf body = {0};
    memset(sbuf_room(&body, size), 'm', size);
    sbuf_advance(&body, size);
    sbuf_add_c(&op.meta, "meta");
    sbuf_add_c(&op.settled, settled);
    op.body = body_from_buf(&body);
    return turn_op(s, t, &op);
}

static size_t turn_note(struct spool *s, struct turn *t, enum spool_kind kind, uint64_t id,
                        const char *text) {
    struct spool_op op = {.kind = kind, .id = id};
    sbuf_add_c(&op.meta, text);
    return turn_op(s, t, &op);
}

/* A note of n bytes, each "p". */
static size_t turn_long_note(struct spool *s, struct turn *t, enum spool_kind kind, uint64_t id,
                             size_t n) {
    struct spool_op op = {.kind = kind, .id = id};
    memset(sbuf_room(&op.meta, n), 'p', n);
    sbuf_advance(&op.meta, n);
    return turn_op(s, t, &op);
}

static struct spool *turn_open(struct seen *seen) {
    struct spool *s;
    char *why;
    struct spool_conf conf = {dir, 64U << 10};
    *seen = (struct seen){0};
    assert_int_equal(spool_open(&s, &conf, &io, on_found, seen, &why), 0);
    return s;
}

static void turns(struct spool *s, int n) {
    while (n-- > 0)
        spool_turn(s);
}

/* A message that fills most of a segment comes, and ends in the next batch. */
static void turn_come_and_go(struct spool *s, struct turn *t, uint64_t id) {
    turn_new(s, t, id, 45000, 0, "");
    spool_turn(s);
    turn_note(s, t, SPOOL_DONE, id, "");
    spool_turn(s);
}

/* The path of a segment: the salt in it is chance. */
static void log_file(char path[128], unsigned no) {
    char pattern[128];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/log/%016x-????????????????", dir, no);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    snprintf(path, 128, "%s", found.gl_pathv[0]);
    globfree(&found);
}

/* ---- failing disks ---- */

static int allocate_rc;
static int no_room(void *arg, int fd, uint64_t size) {
    return allocate_rc < 0 ? allocate_rc : spool_io_disk.allocate(arg, fd, size);
}

static ssize_t write_rc; /* what the next write says instead of writing; 1: writes */
static ssize_t odd_write(void *arg, int fd, const struct iovec *iov, int n, uint64_t off) {
    ssize_t rc = write_rc;
    write_rc = 1;
    return rc == 1 ? spool_io_disk.pwritev(arg, fd, iov, n, off) : rc;
}

static uint64_t bad_from, bad_to; /* bytes of files that cannot be read */
static ssize_t bad_blocks(void *arg, int fd, void *buf, size_t n, uint64_t off) {
    return off < bad_to && off + n > bad_from ? -EIO : spool_io_disk.pread(arg, fd, buf, n, off);
}

static void overwrite(const char *path, uint64_t off, const void *p, size_t n) {
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, p, n, (off_t)off), n);
    close(fd);
}

static int read_rc(struct spool *s, uint64_t id) {
    struct waiter w = {.op = {.kind = SPOOL_READ, .id = id}};
    int rc = run(s, &w);
    if (rc == 0)
        body_unref(w.op.body);
    return rc;
}

/* How many files of the spool have names that begin so. */
static size_t file_count(const char *format, unsigned no) {
    char pattern[200], name[64];
    glob_t found;
    snprintf(name, sizeof name, format, no);
    snprintf(pattern, sizeof pattern, "%s/%s*", dir, name);
    size_t n = glob(pattern, 0, NULL, &found) == 0 ? found.gl_pathc : 0;
    globfree(&found);
    return n;
}

static bool exists(const char *format, unsigned no) {
    return file_count(format, no) > 0;
}

static uint64_t damage_count(struct spool *s) {
    struct spool_stats st;
    spool_stats(s, &st);
    return st.damaged;
}

static int bad_fd = -1; /* reads from bad_from of that file fail, below bad_to */
static uint64_t bad_from, bad_to;
static ssize_t bad_place(void *arg, int fd, void *buf, size_t n, uint64_t off) {
    if (fd == bad_fd && off < bad_to && off + n > bad_from)
        return -EIO;
    return spool_io_disk.pread(arg, fd, buf, n, off);
}

#pragma GCC diagnostic pop

#endif
