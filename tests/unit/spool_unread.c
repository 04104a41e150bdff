/*
 * spool: what the disk does not give back at one start stays where it is, and the next start finds
 * it; on a real directory.
 */
#include "spool_rig.h"

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

/* Reads of one segment fail, as often as that is said: the file is known when it is opened. */
static char bad_name[32];
static unsigned bad_times;
static int open_bad(void *arg, const char *path, int flags, mode_t mode) {
    int fd = spool_io_disk.open(arg, path, flags, mode);
    if (strstr(path, bad_name) != NULL)
        bad_fd = fd;
    return fd;
}

static ssize_t bad_for_a_while(void *arg, int fd, void *buf, size_t n, uint64_t off) {
    ssize_t rc = bad_times == 0 ? 0 : bad_place(arg, fd, buf, n, off);
    bad_times -= rc == -EIO;
    return rc < 0 ? rc : spool_io_disk.pread(arg, fd, buf, n, off);
}

static void refuse(unsigned no, uint64_t from, uint64_t to, unsigned times) {
    snprintf(bad_name, sizeof bad_name, "/log/%016x", no);
    bad_fd = -1;
    bad_from = from;
    bad_to = to;
    bad_times = times;
    io.open = open_bad;
    io.pread = bad_for_a_while;
}

/* A segment of which nothing can be read is kept where it is, with content in files that its
 * records may name, and read when that is possible. */
static void test_all_unreadable(void **state) {
    struct seen seen;
    (void)state;
    struct spool *s = open_spool(&seen);
    put(s, 1, "first", 2000);
    assert_int_equal(put_file(s, 2, 3000), 0);
    spool_close(s);
    refuse(1, 0, 1U << 20, 1000);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 0);
    assert_true(damage_count(s) > 0);
    put(s, 3, "third", 2000); /* batches change nothing of that */
    note(s, SPOOL_DONE, 3, "");
    assert_true(exists("body/%016x", 2));
    spool_close(s);
    bad_times = 0;
    s = open_spool(&seen);
    assert_int_equal(seen.n, 2);
    assert_int_equal(damage_count(s), 0);
    assert_int_equal(read_rc(s, 2), 0);
    note(s, SPOOL_DONE, 1, "");
    note(s, SPOOL_DONE, 2, "");
    spool_close(s);
    assert_false(exists("log/%016x", 1));
    assert_false(exists("damaged/", 0));
}

/* Where there is damage too, content goes with that: its segment is not there at the next start. */
static void test_unreadable_and_damaged(void **state) {
    struct seen seen;
    char path[128];
    (void)state;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put_file(s, 0x31, 3000), 0);
    for (uint64_t id = 1; id <= 3; id++)
        put(s, id, "m", 400000);
    spool_close(s);
    log_file(path, 1);
    overwrite(path, BEGIN + 41, "?", 1); /* the record of that content */
    refuse(2, 0, 1U << 20, 1000);
    s = open_spool(&seen);
    for (size_t i = 0; i < seen.n; i++)
        note(s, SPOOL_DONE, seen.ids[i], "");
    spool_close(s);
    assert_true(exists("damaged/log-%016x", 1));
    bad_times = 0;
    s = open_spool(&seen);
    spool_close(s);
    assert_true(exists("damaged/body-%016x", 0x31));
}

/* Four segments with three messages of 14,000 bytes each. */
#define SEGMENTS 4
#define MESSAGES 12

static void put_twelve(void) {
    struct seen seen;
    struct turn t = {.n = 0};
    struct spool *s = turn_open(&seen);
    for (uint64_t id = 1; id <= MESSAGES; id++) {
        turn_new(s, &t, id, 14000, 0, "");
        turns(s, 1);
    }
    spool_close(s);
}

/* Where the disk refuses, and how often; what that start does not find. */
static const struct refusal {
    unsigned no; /* of the segment */
    uint64_t from, to;
    unsigned times;
    size_t lost;
} refusals[] = {{1, 0, 1U << 16, 1000, 3}, {2, 0, 1U << 16, 1000, 3},  {4, 0, 1U << 16, 1000, 3},
                {3, 100, 101, 1000, 1},    {1, 20000, 20001, 1000, 1}, {4, 20000, 45000, 1000, 2},
                {2, 20000, 20001, 7, 1},   {4, 20000, 20001, 8, 1}};

/* The start that is refused something: what it finds ends, and more comes.  The disk is well again
 * by then. */
static void start_with_refusal(const struct refusal *refusal, struct seen *seen) {
    struct turn t = {.n = 0};
    char path[128];
    log_file(path, refusal->no);
    refuse(refusal->no, refusal->from, refusal->to, refusal->times);
    struct spool *s = turn_open(seen);
    bad_times = 0;
    print_message("segment %u from %d: %zu found\n", refusal->no, (int)refusal->from, seen->n);
    assert_int_equal(seen->n, MESSAGES - refusal->lost);
    assert_true(damage_count(s) > 0);
    for (size_t i = 0; i < seen->n; i++)
        turn_note(s, &t, SPOOL_DONE, seen->ids[i], "");
    turns(s, 2);
    for (uint64_t id = 20; id < 28; id++) {
        turn_new(s, &t, id, 14000, 0, "");
        turns(s, 1);
        turn_note(s, &t, SPOOL_DONE, id, "");
        turns(s, 2);
    }
    spool_close(s);
    assert_int_equal(access(path, F_OK), 0);
    assert_false(exists("damaged/", 0));
}

/* Whatever the disk does not give back for a moment: no mail is lost, none that has ended is back,
 * and once all can be read and has ended nothing is left. */
static void test_segment_that_is_refused_stays(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct seen first, seen;
        struct turn t = {.n = 0};
        put_twelve();
        start_with_refusal(&refusals[i], &first);
        struct spool *s = turn_open(&seen);
        assert_int_equal(seen.n, refusals[i].lost);
        assert_int_equal(damage_count(s), 0);
        for (size_t k = 0; k < seen.n; k++)
            turn_note(s, &t, SPOOL_DONE, seen.ids[k], "");
        turn_new(s, &t, 30, 100, 0, "");
        turns(s, 2);
        for (unsigned no = 1; no <= SEGMENTS; no++)
            assert_false(exists("log/%016x", no));
        assert_false(exists("damaged/", 0));
        spool_close(s);
        empty_spool();
    }
}

/* Somebody gives up a file that cannot be read, and removes it: the log is emptied again, without a
 * stop. */
static void test_refused_segment_is_removed(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    char path[128];
    (void)state;
    put_twelve();
    refuse(1, 0, 1U << 16, 1000);
    struct spool *s = turn_open(&seen);
    for (size_t i = 0; i < seen.n; i++)
        turn_note(s, &t, SPOOL_DONE, seen.ids[i], "");
    turn_new(s, &t, 20, 100, 0, "");
    turns(s, 2);
    log_file(path, 1);
    assert_int_equal(unlink(path), 0);
    s->space_ms = 0; /* a second is over */
    turn_note(s, &t, SPOOL_PROGRESS, 20, "tried");
    turns(s, 2);
    for (unsigned no = 1; no <= SEGMENTS; no++)
        assert_false(exists("log/%016x", no));
    spool_close(s);
}

/* Calls that fail while bad_dir says so. */
static bool bad_dir;
static int maybe_sync_dir(void *arg, const char *path) {
    return bad_dir && strstr(path, "/log") != NULL ? -EIO : spool_io_disk.sync_dir(arg, path);
}
static int maybe_unlink(void *arg, const char *path) {
    return bad_dir ? -EIO : spool_io_disk.unlink(arg, path);
}

/* Where the name of a segment can neither be made durable nor be taken back, the segment goes
 * before a newer one is made: else the newer one, when it has gone in its time, would be missed. */
static void test_a_segment_that_was_not_made(void **state) {
    struct seen seen;
    struct turn t = {0};
    (void)state;
    io.sync_dir = maybe_sync_dir;
    io.unlink = maybe_unlink;
    struct spool *s = turn_open(&seen);
    bad_dir = true;
    size_t refused = turn_new(s, &t, 1, 100, 0, "");
    spool_turn(s);
    assert_int_equal(t.told[refused], -EIO);
    assert_int_equal(file_count("log/%016x-", 1), 1);
    turns(s, 2);
    assert_int_equal(file_count("log/%x", 0), 1);
    bad_dir = false;
    for (uint64_t id = 2; id < 8; id++)
        turn_come_and_go(s, &t, id);
    assert_int_equal(file_count("log/%016x-", 1), 0);
    assert_int_equal(file_count("log/%x", 0), 1);
    spool_close(s);
    s = turn_open(&seen);
    assert_int_equal(damage_count(s), 0);
    spool_close(s);
}

/* A disk that refuses once to give back what is to be copied on pins the log for a minute, and not
 * until the next start. */
static void test_what_was_refused_is_tried_again(void **state) {
    struct seen seen;
    struct turn t = {0};
    (void)state;
    io.pread = bad_blocks;
    bad_from = BEGIN;
    bad_to = bad_from + 8;
    struct spool *s = turn_open(&seen);
    turn_new(s, &t, 1, 25000, 0, "");
    for (uint64_t id = 2; id < 9; id++) {
        turn_new(s, &t, id, 45000, 0, "");
        spool_turn(s);
        turn_note(s, &t, SPOOL_DONE, id, "");
        spool_turn(s);
    }
    struct segment *first = DL_OWNER(s->segments.next, struct segment, link);
    const struct entry *e = itab_get(&s->index, 1);
    assert_true(e->seg == first && first->refused && s->st.segments == 8);
    bad_to = bad_from;
    turn_note(s, &t, SPOOL_PROGRESS, 1, "early");
    turns(s, 2);
    assert_true(e->seg == first && s->st.segments == 8);
    first->refused_ms -= 60000;
    turn_note(s, &t, SPOOL_PROGRESS, 1, "in time");
    turns(s, 1);
    turn_note(s, &t, SPOOL_PROGRESS, 1, "and once more");
    turns(s, 1);
    assert_true(e->seg == s->head && s->st.segments == 1);
    spool_close(s);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 1);
    assert_string_equal(seen.progress[0], "and once more");
    spool_close(s);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, dir_remove)
    const struct CMUnitTest tests[] = {
        T(test_unreadable),
        T(test_all_unreadable),
        T(test_unreadable_and_damaged),
        T(test_segment_that_is_refused_stays),
        T(test_refused_segment_is_removed),
        T(test_a_segment_that_was_not_made),
        T(test_what_was_refused_is_tried_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
