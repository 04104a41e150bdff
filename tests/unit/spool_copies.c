/*
 * spool: what is copied on before its segment is reclaimed, and what is written again; on a real
 * directory.
 */
#include "spool_rig.h"

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

/* A record that no segment of the usual size has room for gets one of its own: what follows it is
 * noted, too. */
static void test_progress_larger_than_a_segment(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    (void)state;
    struct spool *s = turn_open(&seen);
    turn_new(s, &t, 1, 100, 0, "");
    turn_new(s, &t, 2, 100, 0, "");
    turns(s, 1);
    turn_long_note(s, &t, SPOOL_PROGRESS, 1, 90000);
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
        off_t at; /* of four bytes that are changed in the first segment */
        uint64_t damage;
    } bytes[] = {{BEGIN + 42, 1},                     /* in the envelope */
                 {BEGIN + 1048 + 43, 1},              /* in the progress */
                 {BEGIN + 1048 + 48 + 1048 + 100, 1}, /* in what came with a report */
                 {BEGIN, 1}};                         /* the mark */
    char path[128];
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
        overwrite(path, (uint64_t)bytes[i].at, "????", 4);
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
        empty_spool();
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

/* What is copied on while the disk is full leaves room for notes: only they can empty it. */
static void test_copies_leave_room_for_notes(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    (void)state;
    io.allocate = no_room;
    allocate_rc = 0;
    struct spool *s = turn_open(&seen);
    for (uint64_t id = 1; id <= 120; id++, t.n = 0) {
        turn_new(s, &t, id, 360, 0, "");
        turns(s, 1);
    }
    for (uint64_t id = 201; id <= 206; id++, t.n = 0) {
        turn_new(s, &t, id, 15000, 0, "");
        turns(s, 1);
    }
    assert_int_equal(s->st.segments, 3);
    allocate_rc = -ENOSPC;
    for (uint64_t id = 201; id <= 206; id++, t.n = 0) {
        size_t done = turn_note(s, &t, SPOOL_DONE, id, "");
        turns(s, 2);
        assert_int_equal(t.told[done], 0);
    }
    for (uint64_t id = 1; id <= 120; id++, t.n = 0) {
        size_t done = turn_note(s, &t, SPOOL_DONE, id, "");
        turns(s, 1);
        assert_int_equal(t.told[done], 0);
    }
    assert_true(s->st.segments < 3);
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
        empty_spool();
    }
    part_rc = 0;
}

static int worn_fd = -1, worn_calls; /* a file that is written to no more, and calls that tried */
static ssize_t worn_write(void *arg, int fd, const struct iovec *iov, int n, uint64_t off) {
    if (fd != worn_fd)
        return spool_io_disk.pwritev(arg, fd, iov, n, off);
    worn_calls++;
    return worn_calls == 1   ? spool_io_disk.pwritev(arg, fd, iov, 1, off) - 8
           : worn_calls == 2 ? -ENOSPC
                             : -EIO;
}

/* A full disk, and then one that has room and gives an error where a write had failed: that place
 * is left, and mail goes on. */
static void test_a_place_that_cannot_be_used_again(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    (void)state;
    io.pwritev = worn_write;
    worn_calls = 0;
    worn_fd = -1;
    struct spool *s = turn_open(&seen);
    turn_new(s, &t, 1, 500, 0, "");
    turns(s, 1);
    worn_fd = s->head->fd;
    size_t refused = turn_new(s, &t, 2, 7000, 0, "");
    size_t noted = turn_note(s, &t, SPOOL_PROGRESS, 1, "waits");
    turns(s, 1);
    assert_int_equal(t.told[refused], -ENOSPC);
    size_t taken = turn_new(s, &t, 3, 700, 0, "");
    turns(s, 3);
    assert_int_equal(t.told[noted], 0);
    assert_int_equal(t.told[taken], 0);
    worn_fd = -1;
    spool_close(s);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 2);
    assert_string_equal(seen.progress[index_of(&seen, 1)], "waits");
    index_of(&seen, 3);
    assert_int_equal(damage_count(s), 0);
    spool_close(s);
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
        empty_spool();
    }
}

/* Segments have their room; nothing else has any. */
static int full_fd; /* a file of damaged/, while the disk is full; -1: none */
static int full_open(void *arg, const char *path, int flags, mode_t mode) {
    int fd = spool_io_disk.open(arg, path, flags, mode);
    if (allocate_rc < 0 && fd >= 0 && strstr(path, "/damaged/") != NULL)
        full_fd = fd;
    return fd;
}

static ssize_t full_write(void *arg, int fd, const struct iovec *iov, int n, uint64_t off) {
    return allocate_rc < 0 && full_fd == fd ? -ENOSPC : cut_write(arg, fd, iov, n, off);
}

/* The disk was full when the process was killed in the middle of a write: what is delivered is
 * noted nevertheless, or nothing would ever be sent again.  What was unfinished neither counts nor
 * becomes damage by what is written behind it, and stays where it is. */
static void test_full_behind_an_unfinished_write(void **state) {
    char path[128];
    (void)state;
    io.open = full_open;
    io.pwritev = full_write;
    io.allocate = no_room;
    for (int i = 0; i < 4; i++) {
        struct seen seen;
        struct turn t = {.n = 0};
        cut_after = 1000;
        allocate_rc = 0;
        full_fd = -1;
        struct spool *s = turn_open(&seen);
        turn_new(s, &t, 1, 10, 0, "");
        turn_new(s, &t, 2, 300, 0, "");
        turns(s, 1);
        uint64_t used = s->head->used;
        cut_after = 1; /* the message of a report, and not what it settles */
        if (i % 2 == 1)
            turn_new(s, &t, 3, 20000, 2, "");
        turns(s, 1);
        spool_close(s);
        cut_after = 1000;
        log_file(path, 1);
        if (i % 2 == 0)
            overwrite(path, used, "XXXX of a record that never was", 31);
        else if (i == 3)
            overwrite(path, used + 30000, "XXXX", 4);
        allocate_rc = -ENOSPC;
        s = turn_open(&seen);
        assert_int_equal(seen.n, 2);
        size_t refused = turn_new(s, &t, 4, 10, 0, "");
        size_t noted = turn_note(s, &t, SPOOL_DONE, 1, "");
        turn_note(s, &t, SPOOL_PROGRESS, 2, "waits");
        turns(s, 1);
        assert_int_equal(t.told[refused], -ENOSPC);
        assert_int_equal(t.told[noted], 0);
        spool_close(s);
        for (int start = 0; start < 3; start++) {
            allocate_rc = start == 0 ? -ENOSPC : 0;
            s = turn_open(&seen);
            assert_int_equal(seen.n, 1);
            assert_string_equal(seen.progress[index_of(&seen, 2)],
                                start == 0 ? "waits" : "waits on");
            assert_int_equal(damage_count(s), 0);
            turn_note(s, &t, SPOOL_PROGRESS, 2, "waits on");
            turns(s, 2);
            spool_close(s);
        }
        empty_spool();
    }
    allocate_rc = 0;
}

/* On a full disk the last segment takes no note if it is damaged, or if what a crash may have left
 * in memory cannot be written again or synced: then the note waits until there is room. */
static void test_full_and_the_last_segment_takes_nothing(void **state) {
    static const struct {
        size_t size; /* of the first message, in bytes */
        bool damaged;
        int write, sync; /* what the first write and the first sync on the full disk say */
        int told;        /* of the note, on the full disk; 1: nothing yet */
    } cases[] = {{700, true, 1, 0, 1},
                 {400000, false, -EIO, 0, 1},
                 {700, false, 1, -EIO, 1},
                 {400000, false, 1, 0, 0}};
    char path[128];
    (void)state;
    io.allocate = no_room;
    io.pwritev = odd_write;
    io.datasync = turn_sync;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct spool_conf conf = {dir, 1U << 20};
        struct spool *s;
        struct seen seen = {0};
        struct turn t = {.n = 0};
        char *why;
        allocate_rc = turn_bad_sync = turn_syncs = 0;
        write_rc = 1;
        assert_int_equal(spool_open(&s, &conf, &io, on_found, &seen, &why), 0);
        turn_new(s, &t, 1, cases[i].size, 0, "");
        turns(s, cases[i].damaged ? 1 : 0); /* or no record says that it was durable */
        turn_new(s, &t, 2, 300, 0, "");
        turns(s, 1);
        spool_close(s);
        log_file(path, 1);
        if (cases[i].damaged)
            overwrite(path, (uint64_t)BEGIN + 60, "????", 4);
        allocate_rc = -ENOSPC;
        assert_int_equal(spool_open(&s, &conf, &io, on_found, &seen, &why), 0);
        size_t noted = turn_note(s, &t, SPOOL_DONE, 2, "");
        write_rc = cases[i].write;
        turn_syncs = 0;
        turn_bad_sync = cases[i].sync < 0;
        turns(s, 1);
        assert_int_equal(t.told[noted], cases[i].told);
        if (cases[i].write == 1) { /* where writing worked nothing is tried a second time */
            turns(s, 2);
            assert_int_equal(t.told[noted], cases[i].told);
        }
        allocate_rc = 0;
        turns(s, 2);
        assert_int_equal(t.told[noted], 0);
        spool_close(s);
        seen = (struct seen){0};
        assert_int_equal(spool_open(&s, &conf, &io, on_found, &seen, &why), 0);
        assert_int_equal(seen.n, cases[i].damaged ? 0 : 1);
        spool_close(s);
        empty_spool();
    }
}

static int dir_syncs, bad_dir_syncs; /* of log/; how many of the next ones fail */
static int counting_sync_dir(void *arg, const char *path) {
    dir_syncs += strcmp(strrchr(path, '/'), "/log") == 0;
    return bad_dir_syncs > 0 && bad_dir_syncs-- > 0 ? -EIO : spool_io_disk.sync_dir(arg, path);
}

/* A process that is killed behind the rename leaves a segment with a name that a power cut may
 * take: nothing is noted in it before the name is durable. */
static void test_full_and_the_name_of_the_last_segment(void **state) {
    struct seen seen;
    (void)state;
    io.allocate = no_room;
    io.sync_dir = counting_sync_dir;
    for (int bad = 0; bad < 2; bad++) {
        struct turn t = {.n = 0};
        allocate_rc = 0;
        struct spool *s = turn_open(&seen);
        turn_new(s, &t, 1, 700, 0, "");
        turns(s, 1);
        spool_close(s);
        allocate_rc = -ENOSPC;
        s = turn_open(&seen);
        size_t noted = turn_note(s, &t, SPOOL_DONE, 1, "");
        dir_syncs = 0;
        bad_dir_syncs = bad;
        turns(s, 1);
        assert_int_equal(dir_syncs, 1);
        turns(s, 2); /* a sync that failed is not tried again */
        assert_int_equal(t.told[noted], bad);
        allocate_rc = 0;
        turns(s, 2);
        assert_int_equal(t.told[noted], 0);
        spool_close(s);
        empty_spool();
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
    assert_non_null(strstr(why, "none/lock: cannot be opened"));
    free(why);
    spool_close(s);
    io.mkdir = bad_mkdir;
    conf.dir = dir;
    assert_int_equal(spool_open(&s, &conf, &io, on_found, &seen, &why), -EROFS);
    assert_non_null(strstr(why, "/log: cannot make"));
    free(why);
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

/* Many at once, which are expected: batches wait for company, and end when it is there. */
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

/* Ends a spool behind a write that it has not finished: what was found cannot be called durable
 * where it is. */
static void close_unfinished(struct spool *s) {
    char path[128];
    uint64_t used = s->head->used;
    spool_close(s);
    log_file(path, 1);
    overwrite(path, used, "XXXX", 4);
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
    close_unfinished(s);
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
    close_unfinished(s);
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
    close_unfinished(s);
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

/* A copy that has lost its progress in a power cut: the message lies behind its progress, and the
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
        turn_new(s, &t, id, 30000, 0, "");
        turn_note(s, &t, SPOOL_DONE, id, "");
        spool_turn(s);
    }
    uint64_t records = s->st.records;
    for (uint64_t id = 0x100; id < 0x100 + 5 * TURN_OPS; id++)
        assert_true(((const struct entry *)itab_get(&s->index, id))->seg->no > 1);
    assert_true(records < 2 * 5 * TURN_OPS + 40 && s->cap_moves >= 5 * TURN_OPS);
    spool_close(s);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, dir_remove)
    const struct CMUnitTest tests[] = {
        T(test_write_fails),
        T(test_reclaims),
        T(test_odd_writes),
        T(test_large_record),
        T(test_limits),
        T(test_company),
        T(test_report_withdrawn),
        T(test_copies_in_steps),
        T(test_full_while_copying),
        T(test_copies_no_damage),
        T(test_write_fails_half_way),
        T(test_copies_leave_room_for_notes),
        T(test_a_place_that_cannot_be_used_again),
        T(test_killed_before_what_it_settles),
        T(test_full_behind_an_unfinished_write),
        T(test_full_and_the_last_segment_takes_nothing),
        T(test_full_and_the_name_of_the_last_segment),
        T(test_one_write_a_batch),
        T(test_progress_larger_than_a_segment),
        T(test_rescue_passes_over_what_is_unreadable),
        T(test_rescue_waits_for_a_place),
        T(test_rescue_passes_over_what_is_damaged),
        T(test_progress_before_its_message),
        T(test_many_copies),
        T(test_copying_without_a_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
