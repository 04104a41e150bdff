/*
 * spool: what has ended stays so; on a real directory.
 */
#include "spool_rig.h"

#include "spool/log.h"
#include "spool/newest.h"

/* The end of a message that was found at start may be in memory only: its process was killed before
 * the sync.  It is made durable where it is, if not at once then later. */
static void test_what_is_found_is_made_durable(void **state) {
    (void)state;
    io.pwritev = odd_write;
    io.datasync = turn_sync;
    for (int i = 0; i < 3; i++) {
        struct seen seen;
        struct turn t = {0};
        write_rc = 1;
        struct spool *s = turn_open(&seen);
        turn_new(s, &t, 1, 700, 0, "");
        turn_new(s, &t, 2, 700, 0, "");
        spool_turn(s);
        turn_note(s, &t, SPOOL_DONE, 1, "");
        spool_turn(s);
        spool_close(s);
        write_rc = i == 1 ? -EROFS : 1;
        turn_syncs = 0;
        turn_bad_sync = i == 2;
        s = turn_open(&seen);
        assert_int_equal(seen.n, 1);
        const struct segment *g = DL_OWNER(s->segments.next, struct segment, link);
        assert_int_equal(turn_syncs, i != 1);
        assert_int_equal(g->synced == g->used, i == 0);
        turn_new(s, &t, 3, 10, 0, "");
        spool_turn(s);
        assert_int_equal(g->synced, g->used);
        assert_false(s->rescue);
        assert_ptr_equal(((const struct entry *)itab_get(&s->index, 2))->seg, g);
        spool_close(s);
        empty_spool();
    }
}

/* Content of a message in a file. */
static void put_content(unsigned id) {
    char path[128];
    snprintf(path, sizeof path, "%s/body/%016x", dir, id);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    close(fd);
}

/* A start that finds the end of a message and cannot make it durable does not take its content from
 * the message: a power cut may bring that back. */
static void test_content_of_what_may_come_back(void **state) {
    struct seen seen;
    struct turn t = {0};
    (void)state;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put_file(s, 0x21, 3000), 0);
    spool_close(s);
    s = turn_open(&seen);
    turn_note(s, &t, SPOOL_DONE, 0x21, "");
    spool_turn(s);
    spool_close(s);
    put_content(0x21);
    io.pwritev = odd_write;
    write_rc = -EROFS;
    s = turn_open(&seen);
    assert_int_equal(seen.n, 0);
    spool_close(s);
    assert_true(exists("body/%016x", 0x21));
    s = turn_open(&seen);
    spool_close(s);
    assert_false(exists("body/%016x", 0x21));
}

/* An end that is in the log and counts as failed, because something before it failed, is written
 * again.  Until then its message is not copied on: behind its end it would be there again, and
 * where the copy breaks off without what had been noted of it. */
static void test_what_ends_is_not_copied_on(void **state) {
    struct seen seen;
    struct turn t = {0};
    (void)state;
    io.allocate = no_room;
    allocate_rc = 0;
    struct spool *s = turn_open(&seen);
    turn_new(s, &t, 1, 10000, 0, "");
    turn_new(s, &t, 2, 100, 0, "");
    turn_note(s, &t, SPOOL_PROGRESS, 1, "waits");
    spool_turn(s);
    const struct entry *e = itab_get(&s->index, 1);
    const struct segment *first = e->seg;
    s->st.live_bytes += 1U << 20; /* not worth copying yet */
    for (uint64_t id = 3; id < 9; id++)
        turn_come_and_go(s, &t, id);
    s->st.live_bytes -= 1U << 20;
    allocate_rc = -ENOSPC;
    size_t refused = turn_long_note(s, &t, SPOOL_PROGRESS, 2, 70000);
    size_t end = turn_note(s, &t, SPOOL_DONE, 1, "");
    turns(s, 3);
    assert_true(t.told[refused] == 1 && t.told[end] == 1);
    assert_ptr_equal(e->seg, first);
    allocate_rc = 0;
    turns(s, 3);
    assert_true(t.told[refused] == 0 && t.told[end] == 0);
    assert_true(((const struct entry *)itab_get(&s->index, 2))->seg->no > 1);
    spool_close(s);
}

static bool refuses_unlink;
static int refusing_unlink(void *arg, const char *path) {
    return refuses_unlink ? -EIO : spool_io_disk.unlink(arg, path);
}

/* On a full disk, a segment that nothing needs goes at the next start, also while progress waits
 * for the room that it gives: where nothing is copied on, nothing can come behind an end. */
static void test_room_is_made_for_what_waits(void **state) {
    struct seen seen;
    struct turn t = {0};
    (void)state;
    io.allocate = no_room;
    io.unlink = refusing_unlink;
    allocate_rc = 0;
    refuses_unlink = true;
    struct spool *s = turn_open(&seen);
    turn_come_and_go(s, &t, 1);
    turn_new(s, &t, 2, 45000, 0, "");
    spool_turn(s);
    spool_close(s);
    assert_true(exists("log/%016x", 1));
    allocate_rc = -ENOSPC;
    refuses_unlink = false;
    s = turn_open(&seen);
    assert_int_equal(seen.n, 1);
    size_t noted = turn_long_note(s, &t, SPOOL_PROGRESS, 2, 30000);
    spool_turn(s);
    assert_int_equal(t.told[noted], 1);
    assert_false(exists("log/%016x", 1));
    allocate_rc = 0;
    turns(s, 2);
    assert_int_equal(t.told[noted], 0);
    spool_close(s);
}

/* The file of the log that says that a message has ended is removed.  The older one that has the
 * message goes, too, if not at once then later, without further mail. */
static void test_the_file_of_an_end_is_removed(void **state) {
    struct seen seen;
    struct turn t = {0};
    char path[128];
    (void)state;
    io.unlink = refusing_unlink;
    struct spool *s = turn_open(&seen);
    turn_new(s, &t, 1, 20000, 0, "");
    turn_new(s, &t, 2, 20000, 0, "");
    spool_turn(s);
    turn_new(s, &t, 3, 45000, 0, "");
    spool_turn(s);
    turn_note(s, &t, SPOOL_DONE, 1, "");
    spool_turn(s);
    log_file(path, 2);
    assert_int_equal(unlink(path), 0);
    refuses_unlink = true;
    spool_turn(s);
    assert_true(exists("log/%016x", 1));
    refuses_unlink = false;
    spool_turn(s);
    assert_false(exists("log/%016x", 1));
    spool_close(s);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 2);
    spool_close(s);
}

static bool fails_sync_dir;
static int failing_sync_dir(void *arg, const char *path) {
    return fails_sync_dir ? -EIO : spool_io_disk.sync_dir(arg, path);
}

/* The spool removes a segment's file, and cannot make that durable.  The file counts neither as
 * removed by others, nor as the oldest of the log when a new segment tells which that is: a start
 * that finds the file gone would say that mail is lost. */
static void test_a_file_whose_removal_is_not_durable(void **state) {
    struct seen seen;
    struct turn t = {0};
    (void)state;
    io.sync_dir = failing_sync_dir;
    struct spool *s = turn_open(&seen);
    for (uint64_t id = 1; id <= 2; id++) {
        turn_new(s, &t, id, 45000, 0, "");
        spool_turn(s);
    }
    fails_sync_dir = true;
    turn_note(s, &t, SPOOL_DONE, 1, "");
    spool_turn(s);
    assert_false(exists("log/%016x", 1));
    assert_false(log_find_removed(s));
    fails_sync_dir = false;
    newest_is(s, s->head); /* as a new segment does */
    spool_close(s);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 1);
    assert_int_equal(damage_count(s), 0);
    spool_close(s);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, dir_remove)
    const struct CMUnitTest tests[] = {
        T(test_what_is_found_is_made_durable), T(test_content_of_what_may_come_back),
        T(test_what_ends_is_not_copied_on),    T(test_room_is_made_for_what_waits),
        T(test_the_file_of_an_end_is_removed), T(test_a_file_whose_removal_is_not_durable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
