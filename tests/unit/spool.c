/*
 * spool: batches, recovery, damage, reclaiming; on a real directory.
 *
 * Failing calls are put in front of the real ones through struct spool_io.
 */
#include "spool_rig.h"

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

static uint64_t last_id(struct spool *s) {
    struct spool_stats st;
    spool_stats(s, &st);
    return st.last_id;
}

/* An ID outlives its message and the segment of its message, however often the spool is opened. */
static void test_ids_are_remembered(void **state) {
    struct seen seen;
    (void)state;
    struct spool *s = open_spool(&seen);
    assert_int_equal(last_id(s), 0);
    put(s, 40, "the largest", 10);
    put(s, 7, "a small one", 10);
    note(s, SPOOL_DONE, 40, "");
    note(s, SPOOL_DONE, 7, "");
    spool_close(s);
    for (uint64_t id = 3; id <= 5; id++) {
        s = open_spool(&seen);
        assert_int_equal(seen.n, 0);
        assert_int_equal(last_id(s), 40);
        spool_close(s);
        s = open_spool(&seen);
        assert_int_equal(last_id(s), 40);
        put(s, id, "a message of a clock that was set back", 10);
        note(s, SPOOL_DONE, id, "");
        spool_close(s);
    }
}

static int bad_unlink(void *arg, const char *path) {
    (void)arg;
    (void)path;
    return -EIO;
}

/* Of segments that hold nothing more, the last one stays for the ID that it knows. */
static void test_the_last_segment_stays(void **state) {
    struct seen seen;
    (void)state;
    io.unlink = bad_unlink;
    struct spool *s = open_spool(&seen);
    put(s, 8, "in the first", 900000);
    put(s, 9, "in the second", 900000);
    note(s, SPOOL_DONE, 8, "");
    note(s, SPOOL_DONE, 9, "");
    spool_close(s);
    assert_true(exists("log/%016x", 1) && exists("log/%016x", 2));
    io.unlink = spool_io_disk.unlink;
    s = open_spool(&seen);
    spool_flush(s);
    spool_close(s);
    assert_true(!exists("log/%016x", 1) && exists("log/%016x", 2));
    s = open_spool(&seen);
    assert_int_equal(last_id(s), 9);
    spool_close(s);
}

/* The first segment, in which nothing waits, gets damaged, and is set aside. */
static void first_segment_goes(void) {
    struct seen seen;
    char path[128];
    log_file(path, 1);
    overwrite(path, BEGIN + 50, "?", 1);
    struct spool *s = open_spool(&seen);
    spool_flush(s);
    spool_close(s);
    assert_true(!exists("log/%016x", 1) && exists("damaged/log-%016x", 1));
}

/* A damaged one does not: its bytes are wanted for a look. */
static void test_a_damaged_last_segment_goes(void **state) {
    struct seen seen;
    (void)state;
    struct spool *s = open_spool(&seen);
    put(s, 8, "the first", 700);
    put(s, 9, "the second", 700);
    note(s, SPOOL_DONE, 8, "");
    note(s, SPOOL_DONE, 9, "");
    spool_close(s);
    first_segment_goes();
}

/* The newest segment is missing: no record of another one tells of it, and content in files may be
 * of mail that was queued in it.  What it was given is not used again. */
static void test_missing_newest_segment(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    char path[128], cmd[400];
    (void)state;
    struct spool *s = turn_open(&seen);
    for (uint64_t id = 1; id <= 4; id++) {
        turn_new(s, &t, id, 40000, 0, "");
        turns(s, 1);
    }
    spool_close(s);
    log_file(path, 4);
    snprintf(cmd, sizeof cmd, "mv %s %s/away; : >%s/body/%016x", path, dir, dir, 4);
    assert_int_equal(system(cmd), 0);
    for (int i = 0; i < 2; i++) { /* until there is a newer one */
        s = turn_open(&seen);
        assert_int_equal(seen.n, 3);
        assert_int_equal(damage_count(s), 1);
        assert_true(exists("damaged/body-%016x", 4));
        spool_close(s);
    }
    s = turn_open(&seen);
    turn_new(s, &t, 5, 100, 0, "");
    turns(s, 1);
    assert_int_equal(t.told[t.n - 1], 0);
    spool_close(s);
    assert_false(exists("log/%016x", 4));
    log_file(path, 5);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 4);
    assert_int_equal(damage_count(s), 0);
    spool_close(s);
}

/* A newest segment that was set aside is not missing; neither is one where the disk did not take
 * down which one is the newest. */
static void test_newest_segment_went_in_its_time(void **state) {
    struct seen seen;
    struct spool_stats st;
    char cmd[200];
    (void)state;
    struct spool *s = open_spool(&seen);
    put(s, 1, "all that there is", 700);
    note(s, SPOOL_DONE, 1, "");
    spool_close(s);
    first_segment_goes();
    static const char *const ways[] = {"", "echo nonsense >%s/lock", ": >%s/lock"};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        snprintf(cmd, sizeof cmd, ways[i], dir);
        assert_int_equal(system(cmd), 0);
        s = open_spool(&seen);
        spool_stats(s, &st);
        assert_int_equal(st.damaged + st.unfinished, 0);
        spool_close(s);
    }
}

/* How many of the next calls fail; the first one of a start is on the lock file. */
static int size_fails;
static int64_t flaky_size(void *arg, int fd) {
    return size_fails > 0 && size_fails-- > 0 ? -EIO : spool_io_disk.size(arg, fd);
}

/* Nor is one missing that was set aside by a start that could not read which one is the newest, or
 * that read of an older one. */
static void test_newest_segment_went_unknown(void **state) {
    char path[128], cmd[400];
    (void)state;
    io.size = flaky_size;
    for (int stale = 0; stale < 2; stale++) {
        struct seen seen;
        struct spool *s = open_spool(&seen);
        put(s, 1, "in the first", 900000);
        spool_flush(s);
        snprintf(cmd, sizeof cmd, "cp %s/lock %s/lock.was", dir, dir);
        assert_int_equal(system(cmd), 0);
        put(s, 2, "in the second", 900000);
        note(s, SPOOL_DONE, 1, "");
        note(s, SPOOL_DONE, 2, "");
        spool_close(s);
        log_file(path, 2);
        overwrite(path, BEGIN + 50, "?", 1);
        snprintf(cmd, sizeof cmd, "cd %s && %s", dir,
                 stale != 0 ? "cat lock.was >lock" : "rm lock.was");
        assert_int_equal(system(cmd), 0);
        size_fails = 1 - stale;
        s = open_spool(&seen);
        spool_flush(s);
        spool_close(s);
        assert_true(!exists("log/%016x", 2) && exists("damaged/log-%016x", 2));
        s = open_spool(&seen);
        assert_int_equal(damage_count(s), 0);
        spool_close(s);
        empty_spool();
    }
}

/* A second file with the number of a segment, under another salt, is damage and no harm. */
static void test_two_segments_of_one_number(void **state) {
    struct seen seen;
    char path[128], cmd[512];
    (void)state;
    struct spool *s = open_spool(&seen);
    put(s, 8, "once", 10);
    spool_close(s);
    log_file(path, 1);
    snprintf(cmd, sizeof cmd,
             "cd %s/log; for salt in 1 f; do cp %s "
             "0000000000000001-$salt${salt}0000000000000$salt; done",
             dir, path);
    assert_int_equal(system(cmd), 0);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 1);
    struct spool_stats st;
    spool_stats(s, &st);
    assert_true(st.damaged + st.unfinished > 0);
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

/* A failed sync is an error for all that waited, and the segment is not trusted again. */
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

/* One batch over many segments, and the n-th sync fails, for each n: what was told yes is there at
 * the next start, what was told no is not. */
static void test_sync_fails_in_long_batch(void **state) {
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
        empty_spool();
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

static int refused_moves; /* how many of the next renames to damaged/ fail */
static int refusing_rename(void *arg, const char *from, const char *to) {
    if (strstr(to, "/damaged/") != NULL && refused_moves > 0 && refused_moves-- > 0)
        return -ENOSPC;
    return spool_io_disk.rename(arg, from, to);
}

/* Damaged content that cannot be moved to damaged/ when its message ends is moved there at the next
 * start, or at a later one. */
static void test_damaged_content_that_cannot_be_moved(void **state) {
    struct seen seen;
    (void)state;
    io.rename = refusing_rename;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put_chunk(s, 0x21, 0, "content with another sum"), 0);
    assert_int_equal(put_filed(s, 0x21, 24), 0);
    put(s, 0x22, "stays", 100);
    assert_int_equal(read_rc(s, 0x21), -EBADMSG);
    refused_moves = 100;
    note(s, SPOOL_DONE, 0x21, "");
    spool_close(s);
    for (int start = 0; start < 3; start++) {
        refused_moves = start == 0 ? 100 : 0;
        s = open_spool(&seen);
        assert_int_equal(seen.n, 1);
        spool_close(s);
        assert_int_equal(file_count("body/%016x", 0x21), start == 0);
        assert_int_equal(file_count("damaged/body-%016x", 0x21), start > 0);
    }
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

/* A log file that is removed while it is in use: nobody is told that its mail is safe, and what lay
 * in it is written again. */
static void test_segment_is_removed(void **state) {
    struct seen seen;
    char path[128], was[128];
    (void)state;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put(s, 1, "first", 100), 0);
    note(s, SPOOL_PROGRESS, 1, "tried");
    log_file(path, 1);
    assert_int_equal(unlink(path), 0);
    int rc = put(s, 2, "nowhere", 100);
    assert_true(rc == -ENOENT || rc == 0); /* that was noticed before: once a second it is */
    assert_int_equal(put(s, 3, "after", 100), 0);
    assert_int_equal(read_rc(s, 1), 0);
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(seen.n, rc == 0 ? 3 : 2);
    assert_string_equal(seen.progress[index_of(&seen, 1)], "tried");
    assert_string_equal(seen.meta[index_of(&seen, 3)], "after");
    log_file(path, 2);
    snprintf(was, sizeof was, "%s/log.was", dir);
    snprintf(path, sizeof path, "%s/log", dir);
    assert_int_equal(rename(path, was), 0);
    assert_int_equal(put(s, 4, "no log/", 100), -ENOENT);
    assert_int_equal(rename(was, path), 0);
    assert_int_equal(put(s, 5, "log/ again", 100), 0);
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(seen.n, rc == 0 ? 4 : 3);
    spool_close(s);
}

/* All files of the log are removed, not only the one that is written to. */
static void test_segments_are_removed(void **state) {
    struct seen seen;
    char cmd[160];
    (void)state;
    struct spool *s = open_spool(&seen);
    for (uint64_t id = 1; id <= 5; id++)
        assert_int_equal(put(s, id, "m", 500000), 0);
    assert_true(file_count("log/%016x", 3) > 0);
    snprintf(cmd, sizeof cmd, "rm %s/log/*", dir);
    assert_int_equal(system(cmd), 0);
    int rc = put(s, 6, "nowhere", 100);
    assert_true(rc == -ENOENT || rc == 0);
    assert_int_equal(put(s, 7, "after", 100), 0);
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(seen.n, rc == 0 ? 7 : 6);
    spool_close(s);
}

/* A file of the log that is not the one that is written to is removed, and nothing else happens. */
static void test_an_older_segment_is_removed(void **state) {
    struct seen seen;
    char path[128];
    (void)state;
    struct spool *s = open_spool(&seen);
    for (uint64_t id = 1; id <= 5; id++)
        assert_int_equal(put(s, id, "m", 500000), 0);
    log_file(path, 1);
    assert_int_equal(unlink(path), 0);
    struct spool_stats st;
    spool_flush(s);
    spool_stats(s, &st);
    uint64_t before = st.records;
    for (int i = 0; i < 600 && st.records == before; i++) {
        nanosleep(&(struct timespec){0, 100000000}, NULL);
        spool_stats(s, &st);
    }
    assert_true(st.records > before);
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 5);
    spool_close(s);
}

static int fail_dir_sync; /* how many of the next calls fail */
static int flaky_dir_sync(void *arg, const char *path) {
    return fail_dir_sync > 0 && fail_dir_sync-- > 0 ? -EIO : spool_io_disk.sync_dir(arg, path);
}

/* The name of a file that was there when a sync of its directory failed may be lost, whatever the
 * next sync says. */
static void test_directory_sync_fails(void **state) {
    struct seen seen;
    (void)state;
    io.sync_dir = flaky_dir_sync;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put_chunk(s, 1, 0, "one"), 0);
    assert_int_equal(put_chunk(s, 2, 0, "two"), 0);
    fail_dir_sync = 1;
    assert_int_equal(put_filed(s, 1, 3), -EIO);
    assert_int_equal(put_filed(s, 2, 3), -EIO);
    assert_int_equal(put_chunk(s, 3, 0, "three"), 0);
    assert_int_equal(put_filed(s, 3, 5), 0);
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 1);
    assert_false(exists("body/%016x", 1));
    assert_false(exists("body/%016x", 2));
    spool_close(s);
}

/* A record of a kind that a newer version has: its meaning may be that mail is done, or is not. */
static void test_record_of_a_newer_version(void **state) {
    struct seen seen;
    struct spool_conf conf = {dir, 1U << 20};
    char path[128], *why;
    uint64_t salt;
    (void)state;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put(s, 1, "m", 100), 0);
    spool_close(s);
    log_file(path, 1);
    salt = strtoull(strrchr(path, '-') + 1, NULL, 16);
    struct segment g = {.no = 1, .salt = salt, .used = (uint64_t)BEGIN + rec_span(1, 100)};
    struct rec r = {.type = REC_STEP + 1, .id = 1, .meta = STR_LIT("?")};
    struct rec_head h = rec_head_of(&g, &r);
    overwrite(path, g.used, &h, sizeof h);
    overwrite(path, g.used + sizeof h, "?", 1);
    assert_int_equal(spool_open(&s, &conf, &io, on_found, &seen, &why), -ENOTSUP);
    assert_non_null(strstr(why, "newer version"));
    free(why);
    spool_close(s);
    assert_false(exists("damaged/%016x", 1));
    h.crc++; /* damage: of no version */
    overwrite(path, g.used, &h, sizeof h);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 1);
    spool_close(s);
}

/* What is said when the spool cannot be had. */
static void test_lock_says_why(void **state) {
    struct seen seen;
    struct spool_conf conf = {dir, 1U << 20};
    struct spool *s, *other;
    char path[128], *why;
    (void)state;
    s = open_spool(&seen);
    assert_int_equal(spool_open(&other, &conf, &io, on_found, &seen, &why), -EAGAIN);
    assert_non_null(strstr(why, "another process"));
    free(why);
    spool_close(other);
    snprintf(path, sizeof path, "%s/lock", dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(spool_open(&other, &conf, &io, on_found, &seen, &why), -EAGAIN);
    assert_non_null(strstr(why, "another process"));
    free(why);
    spool_close(other);
    spool_close(s);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0); /* cannot be opened, by root neither */
    assert_int_equal(spool_open(&other, &conf, &io, on_found, &seen, &why), -EISDIR);
    assert_non_null(strstr(why, "cannot be opened"));
    free(why);
    spool_close(other);
}

/* The log is gone, and content is there: it may be that of queued mail. */
static void test_content_without_a_log(void **state) {
    struct seen seen;
    char cmd[160];
    (void)state;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put_chunk(s, 1, 0, "large"), 0);
    assert_int_equal(put_filed(s, 1, 5), 0);
    spool_close(s);
    snprintf(cmd, sizeof cmd, "rm %s/log/*", dir);
    assert_int_equal(system(cmd), 0);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 0);
    assert_true(exists("damaged/body-%016x", 1));
    assert_int_equal(put(s, 2, "m", 10), 0);
    assert_int_equal(put_chunk(s, 3, 0, "given up"), 0);
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 1);
    assert_false(exists("body/%016x", 3));
    assert_false(exists("damaged/body-%016x", 3));
    spool_close(s);
}

static void test_what_is_full(void **state) {
    (void)state;
    assert_true(spool_is_full(-ENOSPC) && spool_is_full(-EDQUOT) && spool_is_full(-EFBIG));
    assert_false(spool_is_full(-EIO) || spool_is_full(0));
}

/* An envelope that would not be believed at the next start is not taken, and stops no other. */
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
    size_t last = turn_new(s, &t, 4, 100, 1, ""); /* the same of what it settles */
    memset(sbuf_room(&t.ops[last].settled, REC_META_MAX), 'p', REC_META_MAX);
    sbuf_advance(&t.ops[last].settled, REC_META_MAX);
    turns(s, 1);
    assert_true(t.told[0] == 0 && t.told[1] == -EFBIG && t.told[2] == 0 && t.told[3] == -EFBIG);
    spool_close(s);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 2);
    assert_string_equal(seen.progress[index_of(&seen, 1)], "");
    index_of(&seen, 3);
    spool_close(s);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, dir_remove)
    const struct CMUnitTest tests[] = {
        T(test_recovers),
        T(test_envelope_larger_than_a_record_may_have),
        T(test_ids_are_remembered),
        T(test_the_last_segment_stays),
        T(test_a_damaged_last_segment_goes),
        T(test_missing_newest_segment),
        T(test_newest_segment_went_in_its_time),
        T(test_newest_segment_went_unknown),
        T(test_two_segments_of_one_number),
        T(test_settles),
        T(test_sync_fails),
        T(test_body_file),
        T(test_discard),
        T(test_full_at_start),
        T(test_quota_at_start),
        T(test_close_with_failures),
        T(test_bodies),
        T(test_done_at_once),
        T(test_one_owner),
        T(test_write_back_error),
        T(test_damaged_content_that_cannot_be_moved),
        T(test_chunk_fails),
        T(test_sync_fails_in_long_batch),
        T(test_durable_is_what_the_segment_says),
        T(test_order_after_failed_sync),
        T(test_what_is_full),
        T(test_content_without_a_log),
        T(test_segment_is_removed),
        T(test_segments_are_removed),
        T(test_an_older_segment_is_removed),
        T(test_directory_sync_fails),
        T(test_record_of_a_newer_version),
        T(test_lock_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
