/*
 * spool: batches, recovery, damage, reclaiming; on a real directory.
 *
 * Failing calls are put in front of the real ones through struct spool_io.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spool/spool.h"
#include "util/mem.h"

static char dir[64];
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
    (void)state;
    io = spool_io_disk;
    fail_sync = fail_write = 0;
    strcpy(dir, "/tmp/posthouse-unit-XXXXXX");
    return mkdtemp(dir) == NULL;
}

static int teardown(void **state) {
    char cmd[100];
    (void)state;
    snprintf(cmd, sizeof cmd, "rm -r %s", dir);
    return system(cmd);
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

/* Short writes are completed; a full disk refuses, and goes on when there is room again. */
static void test_write_fails(void **state) {
    struct seen seen;
    (void)state;
    io.pwritev = flaky_write;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put(s, 1, "kept", 5000), 0);
    fail_write = 1;
    assert_int_equal(put(s, 2, "refused", 100), -ENOSPC);
    fail_write = 2;
    spool_note(s, SPOOL_DONE, 1, NULL); /* fails, and is written with a later batch */
    assert_int_equal(put(s, 3, "refused", 100), -ENOSPC);
    assert_int_equal(put(s, 4, "kept", 100), 0);
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 1);
    index_of(&seen, 4);
    spool_close(s);
}

static void log_file(char path[128], unsigned no) {
    snprintf(path, 128, "%s/log/%016x", dir, no);
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
    assert_int_equal(pwrite(fd, "XXXX", 4, 1040 + 200), 4); /* inside the second record */
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
    assert_int_equal(pwrite(fd, "XXXX", 4, 4 * 1040 + 200), 4); /* the last record: a torn end */
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

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(test_recovers),    T(test_settles), T(test_sync_fails),
                                       T(test_write_fails), T(test_damage),  T(test_reclaims),
                                       T(test_body_file)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
