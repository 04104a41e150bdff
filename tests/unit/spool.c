/*
 * spool: batches, recovery, damage, reclaiming; on a real directory.
 *
 * Failing calls are put in front of the real ones through struct spool_io.
 */
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

static int setup(void **state) {
    io = spool_io_disk;
    fail_sync = fail_write = 0;
    return dir_make(state);
}

static void test_recovers(void **state) {
    struct seen seen;
    (void)state;
    struct spool *s = open_spool(&seen);
    for (uint64_t id = 1; id <= 10; id++)
        assert_int_equal(put(s, id, "meta", 1000 * id), 0);
    note(s, SPOOL_PROGRESS, 3, "old");
    note(s, SPOOL_PROGRESS, 3, "new");
    note(s, SPOOL_DONE, 4, "");
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 9);
    assert_string_equal(seen.progress[index_of(&seen, 3)], "new");
    assert_string_equal(seen.meta[index_of(&seen, 10)], "meta");
    struct waiter w = {.op = {.kind = SPOOL_READ, .id = 7}};
    assert_int_equal(run(s, &w), 0);
    assert_int_equal(w.op.body->size, 7000);
    assert_int_equal(w.op.body->p[6999], 'a' + 7);
    body_unref(w.op.body);
    struct waiter gone = {.op = {.kind = SPOOL_READ, .id = 4}};
    assert_int_equal(run(s, &gone), -ENOENT);
    spool_close(s);
}

/* A report and what it settles: together. */
static void test_settles(void **state) {
    struct seen seen;
    (void)state;
    struct spool *s = open_spool(&seen);
    put(s, 1, "one", 10);
    put(s, 2, "two", 10);
    for (uint64_t about = 1; about <= 2; about++) {
        struct waiter w = {.op = {.kind = SPOOL_NEW, .id = 10 + about, .settles = about}};
        struct sbuf body = {0};
        sbuf_add_c(&body, "report");
        sbuf_add_c(&w.op.meta, "report");
        w.op.body = body_from_buf(&body);
        if (about == 2)
            sbuf_add_c(&w.op.settled, "partly");
        assert_int_equal(run(s, &w), 0);
        body_unref(w.op.body);
        sbuf_free(&w.op.meta);
        sbuf_free(&w.op.settled);
    }
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 3);
    assert_string_equal(seen.progress[index_of(&seen, 2)], "partly");
    index_of(&seen, 11);
    index_of(&seen, 12);
    spool_close(s);
}

/* A failed sync is an error for those who waited, and the segment is not trusted again. */
static void test_sync_fails(void **state) {
    struct seen seen;
    (void)state;
    io.datasync = flaky_sync;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put(s, 1, "kept", 100), 0);
    fail_sync = 1;
    assert_int_equal(put(s, 2, "refused", 100), -EIO);
    assert_int_equal(put(s, 3, "kept", 100), 0);
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 2);
    index_of(&seen, 1);
    index_of(&seen, 3);
    spool_close(s);
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

/* One batch over many segments, and the n-th sync fails, for each n: who is told yes is there at
 * the next start, who is told no is not. */
static void test_sync_fails_in_long_batch(void **state) {
    char cmd[120];
    int failed = 0, taken = 0;
    (void)state;
    io.datasync = turn_sync;
    for (int bad = 1; bad < 14; bad++) {
        struct seen seen;
        struct turn t = {.n = 0};
        turn_syncs = turn_bad_sync = 0;
        struct spool *s = turn_open(&seen);
        turn_new(s, &t, 1, 500, 0, "");
        turns(s, 1);
        turn_syncs = 0;
        turn_bad_sync = bad;
        for (uint64_t id = 2; id <= 13; id++) /* three go into a segment */
            turn_new(s, &t, id, 15000, 0, "");
        turns(s, 1);
        spool_close(s);
        s = turn_open(&seen);
        for (size_t i = 0; i < t.n; i++) {
            bool found = false;
            for (size_t k = 0; k < seen.n; k++)
                found = found || seen.ids[k] == t.ops[i].id;
            assert_true(t.told[i] <= 0);
            failed += t.told[i] < 0;
            taken += t.told[i] == 0;
            if (t.told[i] == 0)
                assert_true(found);
        }
        spool_close(s);
        snprintf(cmd, sizeof cmd, "rm -rf %s/log", dir);
        assert_int_equal(system(cmd), 0);
    }
    assert_true(failed > 10 && taken > 10);
}

/* The bytes of a segment that could not be synced are gone after a power cut: nobody may have been
 * told that they are safe. */
static void test_durable_is_what_the_segment_says(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    (void)state;
    io.datasync = turn_sync;
    turn_syncs = turn_bad_sync = 0;
    struct spool *s = turn_open(&seen);
    turn_new(s, &t, 1, 500, 0, "");
    turns(s, 1);
    turn_bad_sync = turn_syncs + 1; /* of the segment that is left first */
    for (uint64_t id = 2; id <= 13; id++)
        turn_new(s, &t, id, 15000, 0, "");
    turns(s, 1);
    for (size_t i = 0; i < t.n; i++) {
        const struct spool_op *op = &t.ops[i];
        assert_true(t.told[i] < 0 || op->end <= op->seg->synced);
        assert_int_equal(t.told[i] < 0,
                         i >= 1 && i <= 4); /* three written there, one that rolled */
    }
    spool_close(s);
}

/* What is written again because its segment failed never takes the place of what came after it. */
static void test_order_after_failed_sync(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    (void)state;
    io.datasync = turn_sync;
    turn_syncs = turn_bad_sync = 0;
    struct spool *s = turn_open(&seen);
    for (uint64_t id = 1; id <= 3; id++)
        turn_new(s, &t, id, 500, 0, "");
    turns(s, 1);
    turn_bad_sync = turn_syncs + 1;
    turn_note(s, &t, SPOOL_PROGRESS, 1, "older"); /* in the segment that fails */
    turn_note(s, &t, SPOOL_PROGRESS, 2, "older");
    size_t report = turn_new(s, &t, 20, 500, 3, "by the first report");
    for (uint64_t id = 4; id <= 9; id++)
        turn_new(s, &t, id, 15000, 0, "");
    turn_note(s, &t, SPOOL_PROGRESS, 1, "newer"); /* in one that does not */
    turn_note(s, &t, SPOOL_DONE, 3, "");
    size_t second = turn_new(s, &t, 21, 500, 2, "by the second report");
    turns(s, 3);
    assert_true(t.told[report] < 0);
    assert_true(t.told[second] < 0);
    spool_close(s);
    s = turn_open(&seen);
    assert_string_equal(seen.progress[index_of(&seen, 1)], "newer");
    assert_string_equal(seen.progress[index_of(&seen, 2)], "older");
    for (size_t i = 0; i < seen.n; i++)
        assert_true(seen.ids[i] != 3 && seen.ids[i] != 20 && seen.ids[i] != 21);
    spool_close(s);
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

/* A torn end is dropped in silence about what nobody was promised; damage in the middle is set
 * aside and what follows it is kept. */
static void test_damage(void **state) {
    struct seen seen;
    char path[128], cmd[160];
    (void)state;
    struct spool *s = open_spool(&seen);
    for (uint64_t id = 1; id <= 5; id++)
        put(s, id, "m", 1000);
    spool_close(s);
    log_file(path, 1);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "XXXX", 4, 1064 + 200), 4); /* inside the second record */
    close(fd);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 4);
    struct spool_stats st;
    spool_stats(s, &st);
    assert_int_equal(st.damaged, 1);
    spool_close(s);
    snprintf(cmd, sizeof cmd, "test -s %s/damaged/*", dir);
    assert_int_equal(system(cmd), 0);
    fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, "XXXX", 4, 4 * 1048 + 272), 4); /* the last record: a torn end */
    close(fd);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 3);
    spool_close(s);
}

/* One stuck message does not pin the log: disk use follows what is queued. */
static void test_reclaims(void **state) {
    struct seen seen;
    struct spool_stats st;
    (void)state;
    struct spool *s = open_spool(&seen);
    put(s, 1, "stuck", 1000);
    note(s, SPOOL_PROGRESS, 1, "waits");
    for (uint64_t id = 2; id < 400; id++) {
        put(s, id, "m", 50000);
        spool_note(s, SPOOL_DONE, id, NULL);
    }
    put(s, 1000, "last", 10);
    spool_flush(s);
    spool_stats(s, &st);
    assert_int_equal(st.messages, 2);
    assert_true(st.segments <= 3);
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 2);
    assert_string_equal(seen.progress[index_of(&seen, 1)], "waits");
    struct waiter w = {.op = {.kind = SPOOL_READ, .id = 1}};
    assert_int_equal(run(s, &w), 0);
    assert_int_equal(w.op.body->size, 1000);
    body_unref(w.op.body);
    spool_close(s);
}

static void test_body_file(void **state) {
    struct seen seen;
    (void)state;
    struct spool *s = open_spool(&seen);
    struct waiter c = {.op = {.kind = SPOOL_BODY_WRITE, .id = 5}};
    sbuf_add_c(&c.op.chunk, "large ");
    assert_int_equal(run(s, &c), 0);
    sbuf_free(&c.op.chunk);
    struct waiter d = {.op = {.kind = SPOOL_BODY_WRITE, .id = 5, .off = 6, .crc = c.op.crc}};
    sbuf_add_c(&d.op.chunk, "content");
    assert_int_equal(run(s, &d), 0);
    sbuf_free(&d.op.chunk);
    struct waiter n = {.op = {.kind = SPOOL_NEW, .id = 5}};
    sbuf_add_c(&n.op.meta, "m");
    n.op.body = body_from_file(13, d.op.crc);
    assert_int_equal(run(s, &n), 0);
    body_unref(n.op.body);
    sbuf_free(&n.op.meta);
    struct waiter orphan = {.op = {.kind = SPOOL_BODY_WRITE, .id = 6}};
    sbuf_add_c(&orphan.op.chunk, "nobody's");
    assert_int_equal(run(s, &orphan), 0);
    sbuf_free(&orphan.op.chunk);
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 1);
    struct waiter r = {.op = {.kind = SPOOL_READ, .id = 5}};
    assert_int_equal(run(s, &r), 0);
    struct sbuf tmp = {0};
    assert_str(body_view(r.op.body, 0, 100, &tmp), "large content");
    assert_str(body_view(r.op.body, 6, 3, &tmp), "con");
    sbuf_free(&tmp);
    body_unref(r.op.body);
    char path[128];
    snprintf(path, sizeof path, "%s/body/%016x", dir, 6);
    assert_int_not_equal(access(path, F_OK), 0); /* the orphan is gone */
    note(s, SPOOL_DONE, 5, "");
    snprintf(path, sizeof path, "%s/body/%016x", dir, 5);
    assert_int_not_equal(access(path, F_OK), 0);
    spool_close(s);
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

static void nothing(void *ctx, const char *name) {
    (void)ctx;
    (void)name;
}

/* Every call of the real disk says what went wrong as negative errno. */
static void test_disk_errors(void **state) {
    const struct spool_io *d = &spool_io_disk;
    char nowhere[100];
    struct iovec iov = {nowhere, 1};
    (void)state;
    snprintf(nowhere, sizeof nowhere, "%s/none/none", dir);
    assert_int_equal(d->open(NULL, nowhere, O_RDONLY, 0), -ENOENT);
    assert_int_equal(d->pwritev(NULL, -1, &iov, 1, 0), -EBADF);
    assert_int_equal(d->pread(NULL, -1, nowhere, 1, 0), -EBADF);
    assert_int_equal(d->allocate(NULL, -1, 1), -EBADF);
    assert_int_equal(d->datasync(NULL, -1), -EBADF);
    assert_int_equal(d->sync_dir(NULL, nowhere), -ENOENT);
    assert_int_equal(d->sync_dir(NULL, "/proc/self/fd"), -EINVAL);
    assert_int_equal(d->unlink(NULL, nowhere), -ENOENT);
    assert_int_equal(d->mkdir(NULL, nowhere), -ENOENT);
    assert_int_equal(d->rename(NULL, nowhere, nowhere), -ENOENT);
    assert_int_equal(d->lock(NULL, -1), -EBADF);
    char chance[300]; /* more than is given at once */
    assert_int_equal(d->random(NULL, chance, sizeof chance), -EIO);
    assert_int_equal(d->size(NULL, -1), -EBADF);
    assert_int_equal(d->list(NULL, nowhere, nothing, NULL), -ENOENT);
    assert_int_equal(d->space(NULL, nowhere), -ENOENT);
    assert_true(d->space(NULL, dir) > 0);
    assert_true(d->space(NULL, "/proc") == 0); /* a file system that counts nothing */
    d->discard(NULL, -1);
}

/* What was removed is given back in pieces; what still has a name is never cut short. */
static void test_discard(void **state) {
    char path[100];
    struct stat st;
    (void)state;
    snprintf(path, sizeof path, "%s/file", dir);
    int fd = open(path, O_RDWR | O_CREAT, 0600), other = open(path, O_RDONLY);
    assert_int_equal(spool_io_disk.allocate(NULL, fd, 10U << 20), 0);
    spool_io_disk.discard(NULL, fd);
    assert_int_equal(fstat(other, &st), 0);
    assert_int_equal(st.st_size, 10 << 20);
    fd = open(path, O_RDWR);
    assert_int_equal(unlink(path), 0);
    spool_io_disk.discard(NULL, fd);
    assert_int_equal(fstat(other, &st), 0);
    assert_true(st.st_size < 4 << 20);
    spool_io_disk.discard(NULL, other); /* opened for reading: only closed */
}

/* On a disk that is full from the start, what is delivered is noted in the old segment. */
static void full_at_start(int full) {
    struct seen seen;
    char path[128];
    struct spool *s = open_spool(&seen);
    put(s, 1, "goes", 100);
    put(s, 2, "stays", 100);
    put(s, 3, "last", 100);
    spool_close(s);
    io.allocate = no_room;
    allocate_rc = full;
    s = open_spool(&seen);
    assert_int_equal(put(s, 4, "refused", 100), full);
    note(s, SPOOL_DONE, 1, "");
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 2);
    spool_close(s);
    log_file(path, 1);
    overwrite(path, 500, "XXXX", 4); /* behind damage nothing is written */
    s = open_spool(&seen);
    spool_note(s, SPOOL_DONE, seen.ids[0], NULL);
    assert_int_equal(put(s, 5, "refused", 100), full);
    allocate_rc = 0;
    assert_int_equal(put(s, 6, "taken", 100), 0);
    spool_close(s);
    s = open_spool(&seen);
    index_of(&seen, 6);
    spool_close(s);
}

static void test_full_at_start(void **state) {
    (void)state;
    full_at_start(-ENOSPC);
}

static void test_quota_at_start(void **state) {
    (void)state;
    full_at_start(-EDQUOT);
}

/* What the disk changed behind our back is not sent. */
static void test_changed_content(void **state) {
    struct seen seen;
    char path[128];
    (void)state;
    struct spool *s = open_spool(&seen);
    put(s, 1, "m", 1000);
    assert_int_equal(put_file(s, 2, 200000), 0);
    assert_int_equal(read_rc(s, 1), 0);
    assert_int_equal(read_rc(s, 2), 0);
    log_file(path, 1);
    overwrite(path, 500, "XXXX", 4);
    assert_int_equal(read_rc(s, 1), -EBADMSG);
    snprintf(path, sizeof path, "%s/body/%016x", dir, 2);
    overwrite(path, 100000, "XXXX", 4);
    assert_int_equal(read_rc(s, 2), -EBADMSG);
    assert_int_equal(truncate(path, 70000), 0);
    assert_int_equal(read_rc(s, 2), -EIO);
    unlink(path);
    assert_int_equal(read_rc(s, 2), -ENOENT);
    spool_close(s);
    s = open_spool(&seen); /* says that the file is missing, and that a record is damaged */
    struct spool_stats st;
    spool_stats(s, &st);
    assert_int_equal(st.damaged, 2);
    spool_close(s);
}

/* Content that was found damaged when it was read back is kept when its message ends: a file of its
 * own, and the segment of a record; what is whole goes. */
static void test_changed_content_is_set_aside(void **state) {
    struct seen seen;
    char path[128];
    (void)state;
    struct spool *s = open_spool(&seen);
    put(s, 0x11, "m", 3000);
    assert_int_equal(put_file(s, 0x12, 90000), 0);
    assert_int_equal(put_file(s, 0x13, 90000), 0);
    assert_int_equal(put_file(s, 0x14, 90000), 0);
    log_file(path, 1);
    overwrite(path, 700, "?", 1);
    snprintf(path, sizeof path, "%s/body/%016x", dir, 0x12);
    overwrite(path, 89999, "?", 1);
    snprintf(path, sizeof path, "%s/body/%016x", dir, 0x14);
    assert_int_equal(truncate(path, 60000), 0);
    assert_int_equal(read_rc(s, 0x11), -EBADMSG);
    assert_int_equal(read_rc(s, 0x12), -EBADMSG);
    assert_int_equal(read_rc(s, 0x13), 0);
    assert_int_equal(read_rc(s, 0x14), -EIO);
    for (uint64_t id = 0x11; id <= 0x14; id++)
        note(s, SPOOL_DONE, id, "");
    for (unsigned id = 0x12; id <= 0x14; id++)
        assert_false(exists("body/%016x", id));
    assert_true(exists("damaged/body-%016x", 0x12));
    assert_false(exists("damaged/body-%016x", 0x13));
    assert_true(exists("damaged/body-%016x", 0x14));
    for (uint64_t id = 0x20; id < 0x50; id++) {
        put(s, id, "m", 50000);
        note(s, SPOOL_DONE, id, "");
    }
    assert_true(exists("damaged/log-%016x", 1));
    assert_false(exists("damaged/log-%016x", 2));
    spool_close(s);
}

/* Files that are not ours, content without a message, content twice. */
static void test_strange_files(void **state) {
    struct seen seen;
    char cmd[400], path[128];
    (void)state;
    struct spool *s = open_spool(&seen);
    put(s, 1, "m", 1000);
    assert_int_equal(put_file(s, 2, 5000), 0);
    spool_close(s);
    snprintf(cmd, sizeof cmd,
             "cd %s && touch log/README log/0123456789abcdefg log/12 log/0123456789ABCDEF "
             "log/0123456789abcdef_0123456789abcdef log/0123456789abcdef-0123456789abcdeg "
             "log/0123456789abcdef-0123456789abcdef0 body/0000000000000009-0000000000000001 "
             "body/%016x body/%016x",
             dir, 1, 77);
    assert_int_equal(system(cmd), 0);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 2);
    assert_int_equal(read_rc(s, 1), 0);
    assert_int_equal(read_rc(s, 2), 0);
    snprintf(path, sizeof path, "%s/body/%016x", dir, 77);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_true(exists("body/0000000000000009-%016x", 1)); /* not one of ours */
    spool_close(s);
}

/* Heads that look like records and cannot be: each is a gap, and what follows is found. */
static void test_implausible_heads(void **state) {
    static const struct rec_head heads[] = {{.type = REC_MESSAGE, .meta_len = REC_META_MAX + 1},
                                            {.type = 0},
                                            {.type = REC_SETTLING + 1},
                                            {.type = REC_MESSAGE, .body_len = 1ULL << 40},
                                            {.type = REC_MESSAGE, .meta_len = 2U << 20},
                                            {.type = REC_MESSAGE, .body_len = (1U << 20) - 1},
                                            {.type = REC_MESSAGE, .body_len = (1U << 20) - 1124},
                                            {.type = REC_BEGIN, .meta_len = 3},
                                            {.type = REC_SETTLE, .meta_len = 3},
                                            {.type = REC_DONE, .id = 1}};
    char path[128];
    (void)state;
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        struct seen seen;
        struct spool *s = open_spool(&seen);
        put(s, 10 * i + 1, "first", 1000);
        put(s, 10 * i + 2, "second", 1000);
        put(s, 10 * i + 3, "third", 1000);
        spool_close(s);
        log_file(path, 1);
        struct rec_head h = heads[i];
        h.mark = rec_mark(strtoull(strrchr(path, '-') + 1, NULL, 16));
        overwrite(path, BEGIN + 1048, &h, sizeof h); /* behind BEGIN and the first one */
        s = open_spool(&seen);
        index_of(&seen, 10 * i + 1);
        index_of(&seen, 10 * i + 3);
        struct spool_stats st;
        spool_stats(s, &st);
        assert_int_equal(st.damaged, 1);
        spool_close(s);
        char cmd[200];
        snprintf(cmd, sizeof cmd, "rm -rf %s/log %s/damaged", dir, dir);
        assert_int_equal(system(cmd), 0);
    }
}

/* What the disk does not give back is reported, and does not hide what lies behind it. */
static void test_unreadable(void **state) {
    struct seen seen;
    struct spool_stats st;
    char path[128];
    (void)state;
    struct spool *s = open_spool(&seen);
    put(s, 1, "first", 20000);
    put(s, 2, "second", 20000);
    put(s, 3, "third", 20000);
    spool_close(s);
    io.pread = bad_blocks;
    bad_from = 30000; /* in the second's content */
    bad_to = 30001;
    s = open_spool(&seen);
    assert_int_equal(seen.n, 2);
    spool_stats(s, &st);
    assert_int_equal(st.damaged, 1);
    spool_close(s);
    io.pread = spool_io_disk.pread;
    s = open_spool(&seen); /* the disk thinks better of it: the message is still there */
    assert_int_equal(seen.n, 3);
    spool_close(s);
    log_file(path, 1);
    assert_int_equal(truncate(path, 50005), 0); /* an odd end, in the middle of the third */
    s = open_spool(&seen);
    assert_int_equal(seen.n, 2);
    spool_close(s);
}

static uint64_t damage_count(struct spool *s) {
    struct spool_stats st;
    spool_stats(s, &st);
    return st.damaged;
}

/* What a file system may give back instead of durable bytes: zeros, or a shorter file. */
static const struct loss {
    unsigned no; /* of the segment, 1 to 4; each has three messages of 14,000 bytes */
    off_t keep;  /* bytes that stay; in the middle of a record or at its end */
    bool cut;    /* the file is shorter; else there are zeros */
    size_t found, damage;
    bool aside; /* there is nothing in it: it goes to damaged/ at once */
} losses[] = {{2, 0, false, 9, 1, true},
              {2, 0, true, 9, 1, true},
              {2, BEGIN, true, 9, 1, false},
              {2, BEGIN + 14048, false, 10, 1, false},
              {3, BEGIN + 28096, true, 11, 1, false},
              {3, 30000, true, 11, 2, false},
              {3, 30000, false, 11, 2, false},
              {1, 0, false, 9, 1, true},
              {1, 40, true, 9, 2, true}};

/* A segment that has lost durable records is reported and kept, wherever the loss begins. */
static void test_lost_ends(void **state) {
    char path[128], cmd[200];
    (void)state;
    for (size_t i = 0; i < sizeof losses / sizeof losses[0]; i++) {
        const struct loss *l = &losses[i];
        struct seen seen;
        struct turn t = {.n = 0};
        struct spool *s = turn_open(&seen);
        for (uint64_t id = 1; id <= 12; id++) {
            turn_new(s, &t, id, 14000, 0, "");
            turns(s, 1);
        }
        turn_note(s, &t, SPOOL_PROGRESS, 12, "says that the twelfth is durable");
        turns(s, 1);
        spool_close(s);
        log_file(path, l->no);
        struct stat st;
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(truncate(path, l->keep), 0);
        if (!l->cut)
            assert_int_equal(truncate(path, st.st_size), 0);
        s = turn_open(&seen);
        print_message("segment %u, %d bytes: %zu found\n", l->no, (int)l->keep, seen.n);
        assert_int_equal(seen.n, l->found);
        assert_int_equal(damage_count(s), l->damage);
        assert_int_equal(exists("damaged/log-%016x", l->no), l->aside);
        for (size_t k = 0; k < seen.n; k++) /* the rest is delivered: the log is emptied */
            turn_note(s, &t, SPOOL_DONE, seen.ids[k], "");
        turn_new(s, &t, 20, 100, 0, "");
        turns(s, 2);
        assert_true(exists("damaged/log-%016x", l->no));
        assert_int_equal(access(path, F_OK), -1);
        spool_close(s);
        snprintf(cmd, sizeof cmd, "rm -rf %s/log %s/damaged", dir, dir);
        assert_int_equal(system(cmd), 0);
    }
}

/* Content in files of its own is kept when the record that names it may be among what is damaged.
 */
static void test_orphans_of_damage(void **state) {
    struct seen seen;
    char path[128];
    (void)state;
    struct spool *s = open_spool(&seen);
    put(s, 1, "before", 700);
    assert_int_equal(put_file(s, 0x2a, 300000), 0);
    put(s, 3, "behind", 700);
    spool_close(s);
    log_file(path, 1);
    overwrite(path, BEGIN + 744 + 41, "?", 1); /* in the envelope of the second */
    s = open_spool(&seen);
    assert_int_equal(seen.n, 2);
    assert_int_equal(damage_count(s), 1);
    assert_false(exists("body/%016x", 0x2a));
    struct stat st;
    snprintf(path, sizeof path, "%s/damaged/body-%016x", dir, 0x2a);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 300000);
    spool_close(s);
}

/* A disk that writes one record over another one of the same length: the copy is valid in itself,
 * and is no record in that place, neither while the spool is open nor at the next start. */
static void test_record_in_another_place(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    char path[128], copy[2000];
    (void)state;
    struct spool *s = turn_open(&seen);
    size_t one = turn_new(s, &t, 31, 1400, 0, ""), two = turn_new(s, &t, 32, 1400, 0, "");
    turn_new(s, &t, 33, 10, 0, "");
    turns(s, 1);
    turn_note(s, &t, SPOOL_PROGRESS, 33, "says that all is durable");
    turns(s, 1);
    log_file(path, 1);
    size_t n = (size_t)(t.ops[two].at - t.ops[one].at);
    int fd = open(path, O_RDONLY);
    assert_int_equal(pread(fd, copy, n, (off_t)t.ops[one].at), n);
    close(fd);
    overwrite(path, t.ops[two].at, copy, n);
    assert_int_equal(spool_start(s), 0);
    assert_int_equal(read_rc(s, 31), 0);
    assert_int_equal(read_rc(s, 32), -EBADMSG);
    spool_close(s);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 2);
    index_of(&seen, 31);
    index_of(&seen, 33);
    assert_int_equal(damage_count(s), 1);
    spool_close(s);
}

/* The C library's readdir, which fails where bad_readdir says so. */
static int bad_readdir; /* the entry that cannot be read; 0: none */
struct dirent *readdir(DIR *d) {
    struct dirent *(*real)(DIR * d) = (struct dirent * (*)(DIR *)) dlsym(RTLD_NEXT, "readdir64");
    if (bad_readdir > 0 && --bad_readdir == 0) {
        errno = EIO;
        return NULL;
    }
    return real(d);
}

/* A directory that cannot be read to its end is not taken for a short one: nothing is deleted. */
static void test_directory_cannot_be_read(void **state) {
    struct seen seen;
    char *why;
    (void)state;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put_file(s, 0x51, 70000), 0);
    spool_close(s);
    struct spool_conf conf = {dir, 1U << 20};
    for (int at = 1; at <= 3; at++) {
        bad_readdir = at;
        assert_int_equal(spool_open(&s, &conf, &io, on_found, &seen, &why), -EIO);
        bad_readdir = 0;
        assert_string_equal(why, "cannot list log/");
        free(why);
        spool_close(s);
        assert_true(exists("body/%016x", 0x51));
    }
    s = open_spool(&seen);
    assert_int_equal(seen.n, 1);
    assert_int_equal(read_rc(s, 0x51), 0);
    spool_close(s);
}

/* The only record is damaged, and nothing says that it was durable: the content is kept. */
static void test_orphans_of_the_last_record(void **state) {
    struct seen seen;
    char path[128];
    (void)state;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put_file(s, 0x61, 70000), 0);
    spool_close(s);
    log_file(path, 1);
    overwrite(path, BEGIN + 41, "?", 1);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 0);
    assert_true(exists("damaged/body-%016x", 0x61));
    spool_close(s);
}

static int renames_left;
static int last_renames(void *arg, const char *from, const char *to) {
    return renames_left-- > 0 ? spool_io_disk.rename(arg, from, to) : -EIO;
}

/* Recovery ends at any step, and begins again: a segment that says that something is missing is
 * not put away before the content that may belong to it is. */
static void test_setting_aside_is_interrupted(void **state) {
    struct seen seen;
    char path[128];
    (void)state;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put_file(s, 0x71, 70000), 0);
    spool_close(s);
    log_file(path, 1);
    assert_int_equal(truncate(path, 0), 0);
    io.rename = last_renames;
    renames_left = 1;
    s = open_spool(&seen);
    spool_close(s);
    io.rename = spool_io_disk.rename;
    s = open_spool(&seen);
    assert_true(exists("damaged/body-%016x", 0x71));
    assert_true(exists("damaged/log-%016x", 1));
    spool_close(s);
}

/* What was set aside is never replaced by what is set aside later, though segments are numbered
 * from 1 again when the log was empty. */
static void test_set_aside_twice(void **state) {
    char path[128];
    (void)state;
    for (size_t round = 1; round <= 2; round++) {
        struct seen seen;
        struct spool *s = open_spool(&seen);
        put(s, 1, "first", 700);
        put(s, 2, "second", 700);
        put(s, 3, "third", 700);
        spool_close(s);
        log_file(path, 1);
        overwrite(path, BEGIN + 748 + 50, "?", 1);
        s = open_spool(&seen);
        assert_int_equal(damage_count(s), 1);
        assert_int_equal(file_count("damaged/%016x", 1), round);
        note(s, SPOOL_DONE, 1, "");
        note(s, SPOOL_DONE, 3, "");
        spool_close(s);
        assert_int_equal(file_count("damaged/log-%016x", 1), round);
        s = open_spool(&seen);
        spool_flush(s);
        spool_close(s);
        assert_int_equal(file_count("log/%016x", 2), 0);
    }
}

/* A record that no segment of the usual size has room for gets one of its own: what follows it is
 * noted, too. */
static void test_progress_larger_than_a_segment(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    char *large = mem_zalloc(90001);
    (void)state;
    memset(large, 'p', 90000);
    struct spool *s = turn_open(&seen);
    turn_new(s, &t, 1, 100, 0, "");
    turn_new(s, &t, 2, 100, 0, "");
    turns(s, 1);
    turn_note(s, &t, SPOOL_PROGRESS, 1, large);
    turn_note(s, &t, SPOOL_DONE, 2, "");
    turns(s, 3);
    for (size_t i = 0; i < t.n; i++)
        assert_int_equal(t.told[i], 0);
    turn_new(s, &t, 3, 70000, 0, "");
    turns(s, 1);
    assert_int_equal(t.told[t.n - 1], 0);
    spool_close(s);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 2);
    size_t first = seen.ids[0] == 1 ? 0 : 1;
    assert_int_equal(seen.ids[first], 1);
    assert_int_equal(seen.ids[1 - first], 3);
    assert_int_equal(seen.progress[first][30], 'p');
    spool_close(s);
    free(large);
}

/* An envelope that would not be believed at the next start is not taken, and stops nobody else. */
static void test_envelope_larger_than_a_record_may_have(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    (void)state;
    struct spool *s = turn_open(&seen);
    for (uint64_t id = 1; id < 3; id++) {
        size_t n = REC_META_MAX + 1 - id % 2;
        struct spool_op op = {.kind = SPOOL_NEW, .id = id};
        struct sbuf body = {0};
        sbuf_add_c(&body, "content");
        memset(sbuf_room(&op.meta, n), 'm', n);
        sbuf_advance(&op.meta, n);
        op.body = body_from_buf(&body);
        turn_op(s, &t, &op);
    }
    turn_new(s, &t, 3, 100, 0, "");
    turns(s, 1);
    assert_true(t.told[0] == 0 && t.told[1] == -EFBIG && t.told[2] == 0);
    spool_close(s);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 2);
    index_of(&seen, 1);
    index_of(&seen, 3);
    spool_close(s);
}

static int bad_rename(void *arg, const char *from, const char *to) {
    return strstr(to, "/damaged/") != NULL ? -EXDEV : spool_io_disk.rename(arg, from, to);
}

/* What cannot be moved stays where it is. */
static void test_set_aside_fails(void **state) {
    struct seen seen;
    char path[128];
    (void)state;
    io.rename = bad_rename;
    struct spool *s = open_spool(&seen);
    put(s, 1, "before", 700);
    assert_int_equal(put_file(s, 2, 300000), 0);
    put(s, 3, "behind", 700);
    spool_close(s);
    log_file(path, 1);
    overwrite(path, BEGIN + 744 + 41, "?", 1);
    s = open_spool(&seen);
    note(s, SPOOL_DONE, 1, "");
    note(s, SPOOL_DONE, 3, "");
    note(s, SPOOL_DONE, 3, "");
    spool_close(s);
    assert_true(exists("body/%016x", 2));
    assert_int_equal(access(path, F_OK), 0);
}

/* A kernel that meets an error when it writes a file back, and tells it to descriptors that were
 * open at that time: once the last one is closed it is forgotten. */
static int body_fds[8], n_body_fds, write_back_rc;

static int forgetful_open(void *arg, const char *path, int flags, mode_t mode) {
    int fd = spool_io_disk.open(arg, path, flags, mode);
    if (fd >= 0 && strstr(path, "/body/") != NULL)
        body_fds[n_body_fds++] = fd;
    return fd;
}

static int body_fd(int fd) {
    for (int i = 0; i < n_body_fds; i++)
        if (body_fds[i] == fd)
            return i;
    return -1;
}

static void forgetful_close(void *arg, int fd) {
    int i = body_fd(fd);
    if (i >= 0)
        body_fds[i] = body_fds[--n_body_fds];
    if (n_body_fds == 0)
        write_back_rc = 0;
    spool_io_disk.close(arg, fd);
}

static int forgetful_sync(void *arg, int fd) {
    return body_fd(fd) >= 0 && write_back_rc < 0 ? write_back_rc : spool_io_disk.datasync(arg, fd);
}

static int put_chunk(struct spool *s, uint64_t id, uint64_t off, const char *text) {
    struct waiter w = {.op = {.kind = SPOOL_BODY_WRITE, .id = id, .off = off}};
    sbuf_add_c(&w.op.chunk, text);
    int rc = run(s, &w);
    sbuf_free(&w.op.chunk);
    return rc;
}

static int put_filed(struct spool *s, uint64_t id, uint64_t size) {
    struct waiter n = {.op = {.kind = SPOOL_NEW, .id = id, .body = body_from_file(size, 0)}};
    sbuf_add_c(&n.op.meta, "m");
    int rc = run(s, &n);
    body_unref(n.op.body);
    sbuf_free(&n.op.meta);
    return rc;
}

/* An error that the kernel meets between two chunks of a large message is an error for the message.
 */
static void test_write_back_error(void **state) {
    struct seen seen;
    (void)state;
    io.open = forgetful_open;
    io.close = forgetful_close;
    io.datasync = forgetful_sync;
    n_body_fds = write_back_rc = 0;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put_chunk(s, 1, 0, "first "), 0);
    write_back_rc = -EIO;
    assert_int_equal(put_chunk(s, 1, 6, "second"), 0);
    assert_int_equal(put_filed(s, 1, 12), -EIO);
    assert_int_equal(n_body_fds, 0);
    assert_int_equal(put_chunk(s, 2, 0, "first "), 0);
    assert_int_equal(put_filed(s, 2, 6), 0);
    assert_int_equal(n_body_fds, 0);              /* closed with the body */
    assert_int_equal(put_filed(s, 3, 6), -EBADF); /* of which nothing was written */
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 1);
    spool_close(s);
}

/* A chunk that failed is not made good by a later one; a file that is begun again is a new one. */
static void test_chunk_fails(void **state) {
    struct seen seen;
    (void)state;
    io.pwritev = odd_write;
    write_rc = 1;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put_chunk(s, 1, 0, "first "), 0);
    write_rc = -EDQUOT;
    assert_int_equal(put_chunk(s, 1, 6, "second"), -EDQUOT);
    assert_int_equal(put_chunk(s, 1, 12, "third"), -EDQUOT);
    assert_int_equal(put_filed(s, 1, 17), -EDQUOT);
    assert_int_equal(put_chunk(s, 2, 6, "second without a first"), -EBADF);
    assert_int_equal(put_chunk(s, 3, 0, "once"), 0);
    assert_int_equal(put_chunk(s, 3, 0, "again"), 0);
    struct waiter drop = {.op = {.kind = SPOOL_BODY_DROP, .id = 3}};
    assert_int_equal(run(s, &drop), 0);
    assert_false(exists("body/%016x", 3));
    assert_int_equal(put_chunk(s, 4, 0, "left when the spool is closed"), 0);
    spool_close(s);
}

/* ---- content that looks like records ---- */

/* The used bytes of a segment file. */
static void read_segment(const char *path, size_t n, struct sbuf *out) {
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(read(fd, sbuf_room(out, n), n), n);
    sbuf_advance(out, n);
    close(fd);
}

/* One record as it was before there were salts. */
static void old_record(struct sbuf *out, uint64_t no, uint32_t type, uint64_t id, struct str meta,
                       struct str body, uint64_t body_len) {
    uint32_t head[10] = {0x32524850U, 0, crc32c(0, body.p, body.n), (uint32_t)meta.n};
    memcpy(&head[4], &id, sizeof id);
    memcpy(&head[6], &body_len, sizeof body_len);
    head[8] = type;
    head[9] = (uint32_t)out->n / 8; /* all before it is durable */
    head[1] = crc32c(crc32c(crc32c(0, &no, sizeof no), &head[2], 32), meta.p, meta.n);
    sbuf_add(out, head, sizeof head);
    sbuf_add_str(out, meta);
    sbuf_add_str(out, body);
    sbuf_add(out, "\0\0\0\0\0\0\0", (8 - out->n % 8) % 8);
}

/* What an attacker can know: what a spool of his own writes for the end of message 5 and for a
 * message of his choice, and how it was written before there were salts. */
static void forged_records(bool old, struct sbuf *out) {
    char mine[64], theirs[64], path[128];
    struct seen seen;
    if (old) {
        old_record(out, 1, 3, 5, STR_NONE, STR_NONE, 0);
        old_record(out, 1, 1, 4711, STR_LIT("forged"), STR_LIT("content"), 7);
        return;
    }
    strcpy(theirs, dir);
    snprintf(mine, sizeof mine, "%.50s/mine", theirs);
    assert_int_equal(mkdir(mine, 0700), 0);
    strcpy(dir, mine);
    struct spool *s = open_spool(&seen);
    put(s, 5, "mine", 100);
    note(s, SPOOL_DONE, 5, "");
    put(s, 4711, "forged", 100);
    uint64_t used = s->head->used;
    spool_close(s);
    log_file(path, 1);
    read_segment(path, (size_t)used, out);
    snprintf(path, sizeof path, "rm -r %s", mine);
    assert_int_equal(system(path), 0);
    strcpy(dir, theirs);
}

/* Content that holds records, in every alignment, behind a record that is damaged: none is
 * believed. damage: the head is torn off, or a bit of the envelope is wrong. */
static void test_records_in_content(void **state) {
    char path[128], cmd[200];
    (void)state;
    for (int round = 0; round < 4; round++) {
        struct seen seen;
        struct sbuf forged = {0};
        forged_records(round % 2 == 0, &forged);
        struct spool *s = open_spool(&seen);
        put(s, 5, "victim", 900);
        struct waiter w = {.op = {.kind = SPOOL_NEW, .id = 6}};
        struct sbuf body = {0};
        for (int shift = 0; shift < 8; shift++) {
            sbuf_add(&body, "12345678", (size_t)(8 - body.n % 8 + (size_t)shift) % 8);
            sbuf_add_str(&body, sbuf_str(&forged));
        }
        sbuf_add_c(&w.op.meta, "carrier!");
        w.op.body = body_from_buf(&body);
        assert_int_equal(run(s, &w), 0);
        uint64_t at = w.op.at;
        body_unref(w.op.body);
        sbuf_free(&w.op.meta);
        put(s, 7, "behind", 900);
        spool_close(s);
        log_file(path, 1);
        char zeros[sizeof(struct rec_head)] = {0};
        if (round < 2)
            overwrite(path, at, zeros, sizeof zeros);
        else
            overwrite(path, at + sizeof zeros, "C", 1);
        s = open_spool(&seen);
        assert_int_equal(seen.n, 2);
        index_of(&seen, 5);
        index_of(&seen, 7);
        assert_int_equal(damage_count(s), 1);
        spool_close(s);
        sbuf_free(&forged);
        snprintf(cmd, sizeof cmd, "rm -rf %s/log %s/damaged", dir, dir);
        assert_int_equal(system(cmd), 0);
    }
}

/* Content full of heads that claim to be as long as can be does not make reading slow: only what
 * has the segment's mark is summed.  Counted, not timed: each byte is read a few times at most. */
static uint64_t read_bytes;
static ssize_t counting_read(void *arg, int fd, void *buf, size_t n, uint64_t off) {
    read_bytes += n;
    return spool_io_disk.pread(arg, fd, buf, n, off);
}

static void test_gap_of_heads(void **state) {
    struct seen seen;
    char path[128];
    struct rec_head h = {.mark = REC_MARK_OLD, .type = REC_MESSAGE, .meta_len = 700000};
    (void)state;
    struct spool *s = open_spool(&seen);
    put(s, 1, "first", 600);
    put(s, 2, "second", 200000);
    put(s, 3, "third", 600);
    spool_close(s);
    log_file(path, 1);
    for (uint64_t at = 1000; at < 150000; at += sizeof h)
        overwrite(path, at, &h, sizeof h);
    io.pread = counting_read;
    read_bytes = 0;
    s = open_spool(&seen);
    assert_int_equal(seen.n, 2);
    assert_true(read_bytes < 8U << 20);
    spool_close(s);
}

static void write_file(const char *name, const struct sbuf *content, off_t size) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(write(fd, content->p, content->n), content->n);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

/* A spool as versions before the salt have left it. */
static void make_old_spool(void) {
    static const char *const subs[] = {"log", "body"};
    struct sbuf one = {0}, two = {0}, file = {0};
    uint64_t begin[2] = {0, 0};
    char path[128];
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, subs[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    old_record(&one, 1, 5, 0, str_make((char *)begin, 16), STR_NONE, 0);
    old_record(&one, 1, 1, 11, STR_LIT("eleven"), STR_LIT("kkk"), 3);
    old_record(&one, 1, 1, 12, STR_LIT("twelve"), STR_LIT("lllll"), 5);
    old_record(&one, 1, 2, 11, STR_LIT("tried once"), STR_NONE, 0);
    begin[0] = 1;
    begin[1] = one.n;
    sbuf_add_c(&file, "content in a file");
    old_record(&two, 2, 5, 0, str_make((char *)begin, 16), STR_NONE, 0);
    old_record(&two, 2, 3, 12, STR_NONE, STR_NONE, 0);
    old_record(&two, 2, 1, 13, STR_LIT("thirteen"), STR_LIT("mmmmmmm"), 7);
    old_record(&two, 2, 1, 14, STR_LIT("fourteen"), sbuf_str(&file), file.n | 1ULL << 63);
    two.n -= (file.n + 7) & ~7ULL; /* what the file has is not in the record */
    write_file("log/0000000000000001", &one, 1 << 20);
    write_file("log/0000000000000002", &two, 1 << 20);
    write_file("body/000000000000000e", &file, (off_t)file.n);
    sbuf_free(&one);
    sbuf_free(&two);
    sbuf_free(&file);
}

static void test_spool_without_salt(void **state) {
    struct seen seen;
    char path[128];
    (void)state;
    make_old_spool();
    struct spool *s = open_spool(&seen);
    assert_int_equal(damage_count(s), 0);
    assert_int_equal(seen.n, 3);
    assert_string_equal(seen.meta[index_of(&seen, 13)], "thirteen");
    assert_string_equal(seen.progress[index_of(&seen, 11)], "tried once");
    assert_int_equal(read_rc(s, 11), 0);
    assert_int_equal(read_rc(s, 14), 0);
    put(s, 15, "new", 1000); /* and what is still queued is copied to where it is */
    note(s, SPOOL_DONE, 13, "");
    note(s, SPOOL_PROGRESS, 14, "tried");
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(damage_count(s), 0);
    assert_int_equal(seen.n, 3);
    assert_string_equal(seen.progress[index_of(&seen, 11)], "tried once");
    assert_string_equal(seen.progress[index_of(&seen, 14)], "tried");
    assert_int_equal(read_rc(s, 14), 0);
    for (size_t i = 0; i < 3; i++)
        note(s, SPOOL_DONE, seen.ids[i], "");
    put(s, 16, "last", 1000);
    note(s, SPOOL_DONE, 1, "");
    snprintf(path, sizeof path, "%s/log/0000000000000002", dir);
    assert_int_equal(access(path, F_OK), -1); /* nothing is left in it */
    spool_close(s);
}

/* On a full disk even such a segment is written to, in its own form. */
static void test_full_without_salt(void **state) {
    struct seen seen;
    (void)state;
    make_old_spool();
    io.allocate = no_room;
    allocate_rc = -ENOSPC;
    struct spool *s = open_spool(&seen);
    note(s, SPOOL_DONE, 11, "");
    spool_close(s);
    allocate_rc = 0;
    s = open_spool(&seen);
    assert_int_equal(seen.n, 2);
    assert_int_equal(damage_count(s), 0);
    spool_close(s);
}

static int bad_random(void *arg, void *buf, size_t n) {
    (void)arg;
    (void)buf;
    (void)n;
    return -ENOSYS;
}

/* Without chance there is no segment. */
static void test_no_random(void **state) {
    struct seen seen;
    (void)state;
    io.random = bad_random;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put(s, 1, "refused", 100), -ENOSYS);
    io.random = spool_io_disk.random;
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(put(s, 1, "taken", 100), 0);
    spool_close(s);
}

/* Short writes are completed; a full disk refuses, and goes on when there is room again. */
static void test_write_fails(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    (void)state;
    io.pwritev = flaky_write;
    struct spool *s = turn_open(&seen);
    size_t kept = turn_new(s, &t, 1, 5000, 0, "");
    turns(s, 1);
    fail_write = 1;
    size_t refused = turn_new(s, &t, 2, 100, 0, "");
    turns(s, 1);
    fail_write = 1;
    size_t done =
        turn_note(s, &t, SPOOL_DONE, 1, ""); /* fails, and is written with a later batch */
    size_t too = turn_new(s, &t, 3, 100, 0, "");
    turns(s, 1);
    assert_int_equal(t.told[done], 1);
    size_t last = turn_new(s, &t, 4, 100, 0, "");
    turns(s, 1);
    assert_int_equal(t.told[kept], 0);
    assert_int_equal(t.told[refused], -ENOSPC);
    assert_int_equal(t.told[too], -ENOSPC);
    assert_int_equal(t.told[done], 0);
    assert_int_equal(t.told[last], 0);
    assert_int_equal(s->st.segments, 1); /* the same place was used again */
    spool_close(s);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 1);
    index_of(&seen, 4);
    assert_int_equal(s->st.unfinished + s->st.damaged, 0);
    spool_close(s);
}

/* What the disk has changed is not made good by copying it on: neither an envelope nor progress
 * gets a new checksum, and its segment stays. */
static void test_copies_no_damage(void **state) {
    static const struct {
        off_t at; /* of the byte that is changed in the first segment */
        uint64_t damage;
    } bytes[] = {{BEGIN + 42, 1},                     /* in the envelope */
                 {BEGIN + 1048 + 43, 1},              /* in the progress */
                 {BEGIN + 1048 + 48 + 1048 + 100, 1}, /* in what came with a report */
                 {BEGIN + 1, 1}};                     /* in the mark */
    char path[128], cmd[200];
    (void)state;
    for (size_t i = 0; i < sizeof bytes / sizeof bytes[0]; i++) {
        struct seen seen;
        struct turn t = {.n = 0};
        struct spool *s = open_spool(&seen);
        put(s, 1, "stuck", 1000);
        note(s, SPOOL_PROGRESS, 1, "waits");
        put(s, 2, "stuck", 1000);
        turn_new(s, &t, 3, 8, 2, "partly");
        spool_flush(s);
        log_file(path, 1);
        overwrite(path, (uint64_t)bytes[i].at, "?", 1);
        for (uint64_t id = 10; id < 200; id++) {
            put(s, id, "m", 50000);
            spool_note(s, SPOOL_DONE, id, NULL);
        }
        spool_flush(s);
        spool_close(s);
        s = open_spool(&seen);
        assert_int_equal(damage_count(s), bytes[i].damage);
        for (size_t k = 0; k < seen.n; k++) {
            assert_null(strchr(seen.meta[k], '?'));
            assert_null(strchr(seen.progress[k], '?'));
        }
        assert_int_equal(access(path, F_OK), 0);
        spool_close(s);
        snprintf(cmd, sizeof cmd, "rm -rf %s/log %s/damaged", dir, dir);
        assert_int_equal(system(cmd), 0);
    }
}

static int turn_put(struct spool *s, struct turn *t, uint64_t id, size_t size) {
    size_t i = turn_new(s, t, id, size, 0, "");
    turns(s, 1);
    return t->told[i];
}

/* A place that cannot be written is left behind; a message larger than a segment is taken. */
static void test_odd_writes(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    (void)state;
    io.pwritev = odd_write;
    write_rc = 1;
    struct spool *s = turn_open(&seen);
    assert_int_equal(turn_put(s, &t, 1, 100), 0);
    write_rc = -EIO;
    assert_int_equal(turn_put(s, &t, 2, 100), -EIO);
    assert_int_equal(turn_put(s, &t, 3, 100), 0);
    write_rc = 0;
    assert_int_equal(turn_put(s, &t, 4, 100), -EIO);
    assert_int_equal(turn_put(s, &t, 5, 70000), 0);
    write_rc = -EDQUOT;
    assert_int_equal(turn_put(s, &t, 6, 100), -EDQUOT);
    assert_int_equal(turn_put(s, &t, 7, 100), 0);
    spool_close(s);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 4);
    spool_close(s);
}

static int full_copies; /* writes of 20,000 bytes of content until one finds no room; 0: never */
static ssize_t full_for_copies(void *arg, int fd, const struct iovec *iov, int n, uint64_t off) {
    if (n == 3 && iov[1].iov_len == 20000 && full_copies > 0 && --full_copies == 0)
        return -ENOSPC;
    return spool_io_disk.pwritev(arg, fd, iov, n, off);
}

/* The disk is full in the middle of copying on: what was copied and not written is copied again,
 * and nothing else takes its place. */
static void test_full_while_copying(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    (void)state;
    io.pwritev = full_for_copies;
    full_copies = 2; /* the message itself, and its first copy */
    struct spool *s = turn_open(&seen);
    turn_new(s, &t, 1, 500, 0, "");
    turn_note(s, &t, SPOOL_PROGRESS, 1, "waits");
    turn_new(s, &t, 2, 20000, 0, "");
    turns(s, 1);
    turn_note(s, &t, SPOOL_PROGRESS, 1, "waits on");
    for (uint64_t id = 10; id < 24; id++) {
        turn_new(s, &t, id, 15000, 0, "");
        turn_note(s, &t, SPOOL_DONE, id, "");
        turns(s, 1);
    }
    turns(s, 3);
    assert_int_equal(full_copies, 0);
    spool_close(s);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 2);
    assert_string_equal(seen.progress[index_of(&seen, 1)], "waits on");
    index_of(&seen, 2);
    assert_int_equal(damage_count(s), 0);
    spool_close(s);
}

static int part_calls, part_rc, part_wipe_rc; /* writes since part_rc was set; what the next say */
static size_t part_short;                     /* bytes that the first of them leaves out */

/* The first write is short, the second fails, and the third, which may wipe what the first has
 * left, says part_wipe_rc. */
static ssize_t part_write(void *arg, int fd, const struct iovec *iov, int n, uint64_t off) {
    struct sbuf all = {0};
    if (part_rc == 0 || ++part_calls > 3)
        return spool_io_disk.pwritev(arg, fd, iov, n, off);
    if (part_calls == 2)
        return part_rc;
    if (part_calls == 3 && part_wipe_rc < 0)
        return part_wipe_rc;
    for (int i = 0; i < n; i++)
        sbuf_add(&all, iov[i].iov_base, iov[i].iov_len);
    struct iovec some = {all.p, part_calls == 1 ? all.n - part_short : all.n};
    ssize_t rc = spool_io_disk.pwritev(arg, fd, &some, 1, off);
    sbuf_free(&all);
    return rc;
}

/* A write that fails after a part of it was done, even all but the padding, leaves nothing that
 * comes back: not at once, and not under what is written later. */
static void test_write_fails_half_way(void **state) {
    static const struct {
        int rc, wipe_rc;
        size_t left_out;
    } faults[] = {{-ENOSPC, 0, 3},       {-ENOSPC, 0, 400}, {-ENOSPC, -ENOSPC, 3},
                  {-EDQUOT, -EIO, 1200}, {-EIO, 0, 3},      {-EIO, 0, 1200}};
    char cmd[200];
    (void)state;
    io.pwritev = part_write;
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        struct seen seen;
        struct turn t = {.n = 0};
        part_rc = 0;
        struct spool *s = turn_open(&seen);
        turn_new(s, &t, 1, 500, 0, "");
        turns(s, 1);
        part_calls = 0;
        part_rc = faults[i].rc;
        part_wipe_rc = faults[i].wipe_rc;
        part_short = faults[i].left_out;
        size_t first = turn_new(s, &t, 2, 700, 0, "");
        size_t second = turn_new(s, &t, 3, 1001, 1, "settled by what never was");
        turns(s, 1);
        assert_int_equal(t.told[first], faults[i].rc);
        assert_int_equal(t.told[second], faults[i].rc);
        turn_new(s, &t, 4, 10, 0, "");
        turns(s, 2);
        spool_close(s);
        s = turn_open(&seen);
        assert_int_equal(seen.n, 2);
        assert_string_equal(seen.progress[index_of(&seen, 1)], "");
        index_of(&seen, 4);
        assert_int_equal(damage_count(s), 0);
        spool_close(s);
        snprintf(cmd, sizeof cmd, "rm -rf %s/log %s/damaged", dir, dir);
        assert_int_equal(system(cmd), 0);
    }
    part_rc = 0;
}

static int cut_after; /* writes that reach the disk before the process is killed */
static ssize_t cut_write(void *arg, int fd, const struct iovec *iov, int n, uint64_t off) {
    ssize_t all = 0;
    if (cut_after-- > 0)
        return spool_io_disk.pwritev(arg, fd, iov, n, off);
    for (int i = 0; i < n; i++)
        all += (ssize_t)iov[i].iov_len;
    return all;
}

/* Killed between a message of large content and what it settles: the one without the other never
 * counts, neither at the next start nor at the one after that, when more has been queued. */
static void test_killed_before_what_it_settles(void **state) {
    static const char *const settled[] = {"", "partly"};
    (void)state;
    io.pwritev = cut_write;
    for (int i = 0; i < 4; i++) {
        struct seen seen;
        struct turn t = {.n = 0};
        bool whole = i >= 2;
        char cmd[200];
        cut_after = 1000;
        struct spool *s = turn_open(&seen);
        turn_new(s, &t, 1, 10, 0, "");
        turns(s, 1);
        cut_after = whole ? 2 : 1;
        turn_new(s, &t, 2, 20000, 1, settled[i % 2]);
        turns(s, 1);
        spool_close(s);
        cut_after = 1000;
        for (uint64_t start = 0; start < 2; start++) {
            s = turn_open(&seen);
            assert_int_equal(seen.n, start + (whole && i % 2 == 1 ? 2 : 1));
            index_of(&seen, whole ? 2 : 1);
            if (i % 2 == 1)
                assert_string_equal(seen.progress[index_of(&seen, 1)], whole ? "partly" : "");
            turn_new(s, &t, 3 + start, 10, 0, "");
            turns(s, 1);
            spool_close(s);
        }
        snprintf(cmd, sizeof cmd, "rm -rf %s/log %s/damaged", dir, dir);
        assert_int_equal(system(cmd), 0);
    }
}

static int writes;
static ssize_t counting_write(void *arg, int fd, const struct iovec *iov, int n, uint64_t off) {
    writes++;
    return spool_io_disk.pwritev(arg, fd, iov, n, off);
}

/* A batch is one write, but for large content and for what needs another segment. */
static void test_one_write_a_batch(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    (void)state;
    io.pwritev = counting_write;
    struct spool *s = open_spool(&seen);
    put(s, 100, "a segment", 10);
    spool_close(s);
    struct spool_conf conf = {dir, 4U << 20};
    char *why;
    assert_int_equal(spool_open(&s, &conf, &io, on_found, &seen, &why), 0);
    turn_new(s, &t, 1, 10, 0, "");
    turns(s, 2);
    writes = 0;
    for (uint64_t id = 2; id < 12; id++)
        turn_new(s, &t, id, 4000, 0, "");
    turn_note(s, &t, SPOOL_DONE, 1, "");
    turns(s, 1);
    assert_int_equal(writes, 1);
    writes = 0;
    turn_new(s, &t, 12, 100000, 0, ""); /* from where it is */
    turns(s, 1);
    assert_int_equal(writes, 1);
    writes = 0;
    for (uint64_t id = 13; id < 35; id++)
        turn_new(s, &t, id, 15000, 0, ""); /* more than is gathered */
    turns(s, 1);
    assert_int_equal(writes, 2);
    for (size_t i = 0; i < t.n; i++)
        assert_int_equal(t.told[i], 0);
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 34);
    assert_int_equal(read_rc(s, 12), 0);
    assert_int_equal(read_rc(s, 34), 0);
    spool_close(s);
}

/* A record larger than what is read at a time. */
static void test_large_record(void **state) {
    struct seen seen;
    struct spool *s;
    char *why;
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct spool_conf conf = {dir, 4U << 20};
        seen = (struct seen){0};
        assert_int_equal(spool_open(&s, &conf, &io, on_found, &seen, &why), 0);
        assert_int_equal(spool_start(s), 0);
        if (i == 0) {
            put(s, 1, "small", 700000);
            put(s, 2, "large", 1500000);
        }
        assert_int_equal(read_rc(s, 2), 0);
        spool_close(s);
    }
    assert_int_equal(seen.n, 2);
}

static int bad_mkdir(void *arg, const char *path) {
    (void)arg;
    (void)path;
    return -EROFS;
}

/* Segment sizes beyond reason are brought within it; a directory that cannot be made is named. */
static void test_limits(void **state) {
    struct spool *s;
    struct seen seen = {0};
    char *why, nowhere[100];
    (void)state;
    uint64_t sizes[] = {1, 1ULL << 40};
    for (size_t i = 0; i < 2; i++) {
        struct spool_conf conf = {dir, sizes[i]};
        assert_int_equal(spool_open(&s, &conf, &io, on_found, &seen, &why), 0);
        assert_true(s->segment_size >= 1 << 16 && s->segment_size <= 1ULL << 34);
        spool_close(s);
    }
    snprintf(nowhere, sizeof nowhere, "%s/none", dir);
    struct spool_conf conf = {nowhere, 1U << 20};
    assert_int_equal(spool_open(&s, &conf, &io, on_found, &seen, &why), -ENOENT);
    assert_non_null(strstr(why, "none/lock: cannot be locked"));
    free(why);
    spool_close(s);
    io.mkdir = bad_mkdir;
    conf.dir = dir;
    assert_int_equal(spool_open(&s, &conf, &io, on_found, &seen, &why), -EROFS);
    assert_non_null(strstr(why, "/log: cannot make"));
    free(why);
    spool_close(s);
}

/* The end of a message may come in the batch that begins with it. */
static void test_done_at_once(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    (void)state;
    struct spool *s = turn_open(&seen);
    turn_new(s, &t, 1, 500, 0, "");
    turn_note(s, &t, SPOOL_PROGRESS, 1, "tried");
    turn_new(s, &t, 2, 500, 0, "");
    turn_note(s, &t, SPOOL_DONE, 2, "");
    turn_note(s, &t, SPOOL_DONE, 3, ""); /* of which nothing is known */
    turns(s, 1);
    spool_close(s);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 1);
    assert_string_equal(seen.progress[index_of(&seen, 1)], "tried");
    spool_close(s);
}

/* A report that settles all of a message, in a segment that could not be synced: the report never
 * was, and the message is there. */
static void test_report_withdrawn(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    (void)state;
    io.datasync = turn_sync;
    turn_syncs = turn_bad_sync = 0;
    struct spool *s = turn_open(&seen);
    turn_new(s, &t, 1, 500, 0, "");
    turn_note(s, &t, SPOOL_PROGRESS, 1, "half");
    turns(s, 1);
    turn_bad_sync = turn_syncs + 1;
    size_t report = turn_new(s, &t, 20, 500, 1, "");
    turns(s, 3);
    assert_int_equal(t.told[report], -EIO);
    spool_close(s);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 1);
    assert_string_equal(seen.progress[index_of(&seen, 1)], "half");
    spool_close(s);
}

/* A segment in the middle that is not there is damage; one that is older than all others was
 * removed in its time. */
static void test_missing_segment(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    char path[128];
    (void)state;
    struct spool *s = turn_open(&seen);
    for (uint64_t id = 1; id <= 12; id++) {
        turn_new(s, &t, id, 14000, 0, "");
        turns(s, 1);
    }
    spool_close(s);
    log_file(path, 1);
    unlink(path);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 9);
    assert_int_equal(damage_count(s), 0);
    spool_close(s);
    log_file(path, 3);
    unlink(path);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 6);
    assert_int_equal(damage_count(s), 1);
    spool_close(s);
}

/* A segment of which nothing can be read is kept where it is, and read when that is possible. */
static void test_all_unreadable(void **state) {
    struct seen seen;
    (void)state;
    struct spool *s = open_spool(&seen);
    put(s, 1, "first", 2000);
    spool_close(s);
    io.pread = bad_blocks;
    bad_from = 0;
    bad_to = 1U << 20;
    s = open_spool(&seen);
    assert_int_equal(seen.n, 0);
    assert_true(damage_count(s) > 0);
    spool_close(s);
    io.pread = spool_io_disk.pread;
    s = open_spool(&seen);
    assert_int_equal(seen.n, 1);
    assert_int_equal(damage_count(s), 0);
    spool_close(s);
}

/* A record larger than what is copied after one batch is copied as well; many small ones take
 * several batches. */
static void test_copies_in_steps(void **state) {
    struct seen seen;
    struct spool *s;
    char *why;
    struct spool_conf conf = {dir, 6U << 20};
    (void)state;
    seen = (struct seen){0};
    assert_int_equal(spool_open(&s, &conf, &io, on_found, &seen, &why), 0);
    assert_int_equal(spool_start(s), 0);
    for (uint64_t id = 1; id <= 40; id++)
        put(s, id, "stuck", 100000);
    put(s, 41, "stuck", 1500000);
    for (uint64_t id = 100; id < 130; id++) {
        put(s, id, "m", 1400000);
        note(s, SPOOL_DONE, id, "");
    }
    for (uint64_t id = 200; id < 210; id++) /* turns in which it may go on */
        note(s, SPOOL_DONE, id, "");
    assert_int_equal(read_rc(s, 41), 0);
    spool_close(s);
    seen = (struct seen){0};
    assert_int_equal(spool_open(&s, &conf, &io, on_found, &seen, &why), 0);
    assert_int_equal(seen.n, 41);
    spool_close(s);
}

/* A spool belongs to one process, or to one opening of it, at a time. */
static void test_one_owner(void **state) {
    struct spool *s, *other;
    struct seen seen;
    char *why;
    (void)state;
    s = open_spool(&seen);
    put(s, 1, "first", 100);
    struct spool_conf conf = {dir, 1U << 20};
    assert_int_equal(spool_open(&other, &conf, &io, on_found, &seen, &why), -EAGAIN);
    assert_non_null(strstr(why, "another process has the spool"));
    free(why);
    spool_close(other);
    put(s, 2, "second", 100);
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 2);
    spool_close(s);
}

/* A file that no spool can have made stops the start with its name. */
static void test_impossible_segment(void **state) {
    static const struct {
        const char *name;
        off_t size;
    } files[] = {{"ffffffffffffffff", 1000}, {"0000000000000001-00000000000000aa", 40LL << 30}};
    char cmd[200], *why;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct spool *s;
        struct seen seen;
        s = open_spool(&seen);
        spool_close(s);
        snprintf(cmd, sizeof cmd, "truncate -s %lld %s/log/%s", (long long)files[i].size, dir,
                 files[i].name);
        assert_int_equal(system(cmd), 0);
        struct spool_conf conf = {dir, 1U << 20};
        assert_int_equal(spool_open(&s, &conf, &io, on_found, &seen, &why), -EFBIG);
        assert_non_null(strstr(why, files[i].name));
        free(why);
        spool_close(s);
        snprintf(cmd, sizeof cmd, "rm %s/log/*", dir);
        assert_int_equal(system(cmd), 0);
    }
}

struct putter {
    struct spool *s;
    uint64_t from;
    int bad;
    pthread_t t;
};

static void *put_many(void *arg) {
    struct putter *p = arg;
    for (uint64_t id = p->from; id < p->from + 100; id++) {
        p->bad += put(p->s, id, "m", 500) != 0;
        spool_note(p->s, SPOOL_DONE, id, NULL);
    }
    return NULL;
}

/* Many at once, who are expected: batches wait for company, and end when it is there. */
static void test_company(void **state) {
    struct seen seen;
    struct spool_stats st;
    struct putter p[80];
    (void)state;
    struct spool *s = open_spool(&seen);
    spool_expect(s, 80);
    for (size_t i = 0; i < 80; i++) {
        p[i] = (struct putter){.s = s, .from = 1000 * (i + 1)};
        assert_int_equal(pthread_create(&p[i].t, NULL, put_many, &p[i]), 0);
    }
    for (size_t i = 0; i < 80; i++) {
        pthread_join(p[i].t, NULL);
        assert_int_equal(p[i].bad, 0);
    }
    spool_expect(s, -80);
    spool_flush(s);
    spool_flush(s); /* the figures are brought up to date after everybody was told */
    spool_stats(s, &st);
    assert_int_equal(st.messages, 0);
    assert_true(st.batches < 8000);
    assert_true(st.segments <= 2);
    spool_close(s);
}

/* What could not be noted before the end is done again: the message is still there. */
static void test_close_with_failures(void **state) {
    struct seen seen;
    (void)state;
    io.pwritev = flaky_write;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put(s, 1, "kept", 100), 0);
    fail_write = 1000;
    spool_note(s, SPOOL_DONE, 1, NULL);
    spool_close(s);
    fail_write = 0;
    s = open_spool(&seen);
    assert_int_equal(seen.n, 1);
    spool_close(s);
}

/* Bodies are shared; the last one out closes. */
static void test_bodies(void **state) {
    struct sbuf content = {0}, tmp = {0};
    char path[100];
    (void)state;
    body_unref(NULL);
    sbuf_add_c(&content, "content");
    struct body *b = body_from_buf(&content), *same = body_ref(b);
    assert_int_equal(body_memory(), 7);
    body_unref(b);
    assert_str(body_view(same, 3, 100, &tmp), "tent");
    assert_str(body_view(same, 8, 100, &tmp), "");
    body_unref(same);
    assert_int_equal(body_memory(), 0);
    snprintf(path, sizeof path, "%s/file", dir);
    b = body_from_file(10, 0);
    body_opened(b, &spool_io_disk, open(path, O_RDWR | O_CREAT, 0600));
    assert_int_equal(body_files(), 1);
    assert_str(body_view(b, 10, 100, &tmp), "");
    assert_null(body_view(b, 0, 100, &tmp).p); /* shorter than it should be */
    body_unref(b);
    assert_int_equal(body_files(), 0);
    sbuf_free(&tmp);
}

static int bad_fd = -1; /* reads from bad_from of that file fail, below bad_to */
static uint64_t bad_from, bad_to;
static ssize_t bad_place(void *arg, int fd, void *buf, size_t n, uint64_t off) {
    if (fd == bad_fd && off < bad_to && off + n > bad_from)
        return -EIO;
    return spool_io_disk.pread(arg, fd, buf, n, off);
}

/* What was found at start and may not be durable is written again; one message that the disk does
 * not give back any more keeps none of the others from it, nor the log from being emptied. */
static void test_rescue_passes_over_what_is_unreadable(void **state) {
    struct seen seen;
    struct turn t = {0};
    (void)state;
    struct spool *s = turn_open(&seen);
    for (uint64_t id = 0x31; id <= 0x3a; id++)
        turn_new(s, &t, id, 200, 0, "");
    spool_turn(s); /* one batch: no record says that another one is durable */
    spool_close(s);
    io.pread = bad_place;
    s = turn_open(&seen);
    assert_int_equal(seen.n, 10);
    const struct entry *bad = itab_get(&s->index, 0x34);
    bad_fd = bad->seg->fd;
    bad_from = entry_off(bad);
    bad_to = bad_from + 8;
    turn_new(s, &t, 0x40, 100, 0, "");
    spool_turn(s);
    for (uint64_t id = 0x31; id <= 0x3a; id++) {
        const struct entry *e = itab_get(&s->index, id);
        assert_true((e->seg == s->head) == (id != 0x34));
    }
    assert_false(s->rescue);
    bad_fd = -1;
    spool_close(s);
    s = turn_open(&seen); /* it can be read again: nothing was taken away */
    assert_int_equal(seen.n, 11);
    spool_close(s);
}

static bool no_allocation;
static int flaky_allocate(void *arg, int fd, uint64_t size) {
    return no_allocation ? -EIO : spool_io_disk.allocate(arg, fd, size);
}

static void turn_done_no_allocation(struct spool_op *op) {
    no_allocation = true; /* what comes behind the batch is copying */
    turn_done(op);
}

/* A copy that finds no place is no fault of the segment that it was read from: that one is emptied
 * when there is a place. */
static void test_copying_without_a_place(void **state) {
    struct seen seen;
    struct turn t = {0};
    (void)state;
    io.allocate = flaky_allocate;
    struct spool *s = turn_open(&seen);
    turn_new(s, &t, 1, 25000, 0, "");
    spool_turn(s);
    const struct segment *first = s->head;
    for (uint64_t id = 2; id < 8; id++) {
        no_allocation = false;
        t.ops[turn_new(s, &t, id, 45000, 0, "")].done = turn_done_no_allocation;
        spool_turn(s);
        assert_ptr_equal(first, DL_OWNER(s->segments.next, struct segment, link));
        assert_false(first->stuck);
        no_allocation = false;
        turn_note(s, &t, SPOOL_DONE, id, "");
        s->st.live_bytes += 1U << 20; /* not worth copying yet */
        spool_turn(s);
        s->st.live_bytes -= 1U << 20;
    }
    turns(s, 3);
    turn_note(s, &t, SPOOL_PROGRESS, 1, "p");
    spool_turn(s);
    assert_true(((const struct entry *)itab_get(&s->index, 1))->seg->no > 6);
    spool_close(s);
}

static int unlink_rc;
static int flaky_unlink(void *arg, const char *path) {
    return unlink_rc < 0 ? unlink_rc : spool_io_disk.unlink(arg, path);
}

/* Without a place for the copies everything stays as it is, until there is one. */
static void test_rescue_waits_for_a_place(void **state) {
    struct seen seen;
    struct turn t = {0};
    (void)state;
    struct spool *s = turn_open(&seen);
    for (uint64_t id = 0x51; id <= 0x54; id++)
        turn_new(s, &t, id, 300, 0, "");
    spool_turn(s);
    spool_close(s);
    io.allocate = flaky_allocate;
    s = turn_open(&seen);
    no_allocation = true;
    size_t refused = turn_new(s, &t, 0x60, 100, 0, "");
    spool_turn(s);
    assert_int_equal(t.told[refused], -EIO);
    assert_true(s->rescue && s->head == NULL);
    no_allocation = false;
    io.datasync = flaky_sync;
    turn_new(s, &t, 0x61, 100, 0, "");
    turn_note(s, &t, SPOOL_PROGRESS, 0x51, "p");
    spool_turn(s);
    assert_false(s->rescue);
    for (uint64_t id = 0x51; id <= 0x54; id++)
        assert_ptr_equal(((const struct entry *)itab_get(&s->index, id))->seg, s->head);
    spool_close(s);
}

/* What has changed on the disk since the start is passed over, too, and its segment set aside in
 * the end. */
static void test_rescue_passes_over_what_is_damaged(void **state) {
    struct seen seen;
    struct turn t = {0};
    char path[128];
    (void)state;
    struct spool *s = turn_open(&seen);
    for (uint64_t id = 0x51; id <= 0x54; id++)
        turn_new(s, &t, id, 300, 0, "");
    spool_turn(s);
    spool_close(s);
    s = turn_open(&seen);
    struct entry *e = itab_get(&s->index, 0x53);
    struct segment *old = e->seg;
    log_file(path, 1);
    overwrite(path, entry_off(e) + sizeof(struct rec_head), "x", 1);
    turn_new(s, &t, 0x61, 100, 0, "");
    spool_turn(s);
    assert_true(old->damaged && e->seg == old && old->live == 1);
    turn_note(s, &t, SPOOL_DONE, 0x53, "");
    spool_turn(s);
    assert_true(exists("damaged/log-%016x", 1));
    spool_close(s);
}

/* A copy whose progress was lost in a power cut: the message lies behind its progress, and the
 * segment of that may not go before both are together again. */
static void test_progress_before_its_message(void **state) {
    struct seen seen;
    struct turn t = {0};
    (void)state;
    io.unlink = flaky_unlink;
    unlink_rc = -EIO; /* the old segment is still there when power fails */
    struct spool *s = turn_open(&seen);
    turn_new(s, &t, 0x71, 300, 0, "");
    turn_note(s, &t, SPOOL_PROGRESS, 0x71, "some");
    spool_turn(s);
    const struct entry *e = itab_get(&s->index, 0x71);
    for (uint64_t id = 0x80; e->seg->no == 1; id++) {
        turn_new(s, &t, id, 45000, 0, "");
        turn_note(s, &t, SPOOL_DONE, id, "");
        spool_turn(s);
    }
    char *path = segment_path(s, e->seg->no, e->seg->salt);
    assert_true(e->prog_seg == e->seg && e->prog_off > e->off);
    turn_new(s, &t, 0x79, 100, 0, ""); /* says that the copy is durable */
    spool_turn(s);
    overwrite(path, entry_prog_off(e), "????", 4);
    free(path);
    spool_close(s);
    unlink_rc = 0;
    s = turn_open(&seen);
    assert_string_equal(seen.progress[index_of(&seen, 0x71)], "some");
    e = itab_get(&s->index, 0x71);
    assert_true(e->prog_seg->no < e->seg->no);
    turn_new(s, &t, 0x72, 100, 0, "");
    spool_turn(s);
    assert_true(e->prog_seg == s->head && e->seg == s->head);
    spool_close(s);
    s = turn_open(&seen);
    assert_string_equal(seen.progress[index_of(&seen, 0x71)], "some");
    spool_close(s);
}

/* Some hundred messages are copied on together, each once. */
static void test_many_copies(void **state) {
    struct seen seen;
    struct turn t = {0};
    (void)state;
    struct spool *s = turn_open(&seen);
    for (uint64_t id = 0x100; id < 0x100 + 5 * TURN_OPS; id++) {
        turn_new(s, &t, id, 60, 0, "");
        if (t.n < TURN_OPS)
            continue;
        spool_turn(s);
        t.n = 0;
    }
    const struct entry *e = itab_get(&s->index, 0x123);
    for (uint64_t id = 0x80; e->seg->no == 1; id++) {
        t.n = 0;
        turn_new(s, &t, id, 45000, 0, "");
        turn_note(s, &t, SPOOL_DONE, id, "");
        spool_turn(s);
    }
    uint64_t records = s->st.records;
    for (uint64_t id = 0x100; id < 0x100 + 5 * TURN_OPS; id++)
        assert_true(((const struct entry *)itab_get(&s->index, id))->seg->no > 1);
    assert_true(records < 2 * 5 * TURN_OPS + 40 && s->cap_moves >= 5 * TURN_OPS);
    spool_close(s);
}

/* Looking at the spool of a daemon that is down changes nothing, whatever a start would mend; one
 * that is in use is not looked at. */
static void test_only_looked_at(void **state) {
    struct spool_conf conf = {dir, 64U << 10};
    struct seen seen;
    struct spool *s, *look;
    struct turn t = {0};
    struct sbuf cmd = {0};
    char *why, path[128];
    (void)state;
    s = open_spool(&seen);
    put(s, 1, "one", 1000);
    put(s, 2, "two", 1000);
    assert_int_equal(put_file(s, 3, 300000), 0);
    assert_int_equal(spool_open(&look, &conf, &spool_io_look, on_found, &seen, &why), -EAGAIN);
    free(why);
    spool_close(look);
    spool_close(s);
    log_file(path, 1);
    overwrite(path, BEGIN + 60, "?", 1);
    snprintf(path, sizeof path, "%s/body/%016x", dir, 0x77); /* of no message */
    close(open(path, O_WRONLY | O_CREAT, 0600));
    sbuf_printf(&cmd, "cd %s && rm -rf ../was-%s && cp -rp . ../was-%s", dir, dir + 5, dir + 5);
    assert_int_equal(system(cmd.p), 0);
    seen = (struct seen){0};
    assert_int_equal(spool_open(&s, &conf, &spool_io_look, on_found, &seen, &why), 0);
    assert_int_equal(seen.n, 2);
    size_t noted = turn_note(s, &t, SPOOL_DONE, 2, "");
    turn_new(s, &t, 9, 100, 0, "");
    spool_turn(s);
    assert_int_equal(t.told[noted], 0);
    spool_close(s);
    sbuf_reset(&cmd);
    sbuf_printf(&cmd, "cd %s && diff -r . ../was-%s && rm -r ../was-%s", dir, dir + 5, dir + 5);
    assert_int_equal(system(cmd.p), 0);
    sbuf_free(&cmd);
    assert_int_equal(spool_io_look.list(NULL, "/nowhere/at/all", nothing, NULL), 0);
}

static void test_what_is_full(void **state) {
    (void)state;
    assert_true(spool_is_full(-ENOSPC) && spool_is_full(-EDQUOT) && spool_is_full(-EFBIG));
    assert_false(spool_is_full(-EIO) || spool_is_full(0));
}

/* A copy of the spool as it would be found after a power cut at that moment: when what ends a
 * message has just become durable. */
static bool cut_armed;
static int cut_after_sync(void *arg, int fd) {
    int rc = spool_io_disk.datasync(arg, fd);
    struct sbuf cmd = {0};
    if (cut_armed) {
        cut_armed = false;
        sbuf_printf(&cmd, "cd %s && rm -rf cut && mkdir cut && cp -r log body damaged cut", dir);
        assert_int_equal(system(cmd.p), 0);
    }
    sbuf_free(&cmd);
    return rc;
}

static void test_power_cut_behind_the_end_of_what_is_damaged(void **state) {
    static const uint64_t ended[] = {0x21, 0x22};
    struct seen seen;
    char path[128];
    (void)state;
    io.datasync = cut_after_sync;
    for (size_t i = 0; i < 2; i++) {
        struct spool *s = open_spool(&seen);
        assert_int_equal(put_file(s, ended[i], 70000), 0);
        snprintf(path, sizeof path, "%s/body/%016x", dir, (unsigned)ended[i]);
        overwrite(path, 1234, "?", 1);
        assert_int_equal(read_rc(s, ended[i]), -EBADMSG);
        cut_armed = true;
        if (i == 0) {
            note(s, SPOOL_DONE, ended[i], "");
        } else { /* by a report that settles it */
            struct waiter w = {.op = {.kind = SPOOL_NEW, .id = 0x29, .settles = ended[i]}};
            struct sbuf body = {0};
            sbuf_add_c(&body, "report");
            sbuf_add_c(&w.op.meta, "report");
            w.op.body = body_from_buf(&body);
            assert_int_equal(run(s, &w), 0);
            body_unref(w.op.body);
            sbuf_free(&w.op.meta);
        }
        assert_false(cut_armed);
        spool_close(s);
        assert_true(exists("damaged/body-%016x", (unsigned)ended[i]));
        strcat(dir, "/cut");
        s = open_spool(&seen);
        bool there = exists("damaged/body-%016x", (unsigned)ended[i]) ||
                     exists("body/%016x", (unsigned)ended[i]);
        spool_close(s);
        dir[strlen(dir) - 4] = '\0';
        assert_true(there);
    }
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, dir_remove)
    const struct CMUnitTest tests[] = {T(test_recovers),
                                       T(test_settles),
                                       T(test_sync_fails),
                                       T(test_write_fails),
                                       T(test_damage),
                                       T(test_reclaims),
                                       T(test_body_file),
                                       T(test_disk_errors),
                                       T(test_discard),
                                       T(test_full_at_start),
                                       T(test_quota_at_start),
                                       T(test_odd_writes),
                                       T(test_changed_content),
                                       T(test_changed_content_is_set_aside),
                                       T(test_strange_files),
                                       T(test_implausible_heads),
                                       T(test_unreadable),
                                       T(test_large_record),
                                       T(test_limits),
                                       T(test_company),
                                       T(test_close_with_failures),
                                       T(test_bodies),
                                       T(test_report_withdrawn),
                                       T(test_missing_segment),
                                       T(test_all_unreadable),
                                       T(test_copies_in_steps),
                                       T(test_done_at_once),
                                       T(test_full_while_copying),
                                       T(test_one_owner),
                                       T(test_impossible_segment),
                                       T(test_copies_no_damage),
                                       T(test_write_fails_half_way),
                                       T(test_killed_before_what_it_settles),
                                       T(test_one_write_a_batch),
                                       T(test_write_back_error),
                                       T(test_chunk_fails),
                                       T(test_records_in_content),
                                       T(test_gap_of_heads),
                                       T(test_spool_without_salt),
                                       T(test_full_without_salt),
                                       T(test_no_random),
                                       T(test_lost_ends),
                                       T(test_orphans_of_damage),
                                       T(test_set_aside_fails),
                                       T(test_record_in_another_place),
                                       T(test_directory_cannot_be_read),
                                       T(test_orphans_of_the_last_record),
                                       T(test_setting_aside_is_interrupted),
                                       T(test_set_aside_twice),
                                       T(test_progress_larger_than_a_segment),
                                       T(test_envelope_larger_than_a_record_may_have),
                                       T(test_sync_fails_in_long_batch),
                                       T(test_durable_is_what_the_segment_says),
                                       T(test_order_after_failed_sync),
                                       T(test_rescue_passes_over_what_is_unreadable),
                                       T(test_rescue_waits_for_a_place),
                                       T(test_rescue_passes_over_what_is_damaged),
                                       T(test_progress_before_its_message),
                                       T(test_what_is_full),
                                       T(test_only_looked_at),
                                       T(test_many_copies),
                                       T(test_copying_without_a_place),
                                       T(test_power_cut_behind_the_end_of_what_is_damaged)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
