/*
 * spool: content that is sent from the log's file; on a real directory.
 */
#include "spool_rig.h"

static struct body *read_with(struct spool *s, uint64_t id, uint64_t memory_max) {
    struct waiter w = {.op = {.kind = SPOOL_READ, .id = id, .memory_max = memory_max}};
    int rc = run(s, &w);
    assert_int_equal(rc, 0);
    return w.op.body;
}

/* Where content takes much memory, more of it is read from the log's file as it is sent: also when
 * that has been removed since, and from memory where it was removed before. */
static void test_content_stays_on_the_disk(void **state) {
    struct seen seen;
    struct sbuf tmp = {0};
    char path[128];
    (void)state;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put(s, 1, "first", 100), 0);
    assert_int_equal(put(s, 2, "second", 70000), 0);
    struct body *small = read_with(s, 1, 100 + body_memory()), *large = read_with(s, 2, 70099);
    assert_true(small->p != NULL && large->p == NULL && large->size == 70000);
    log_file(path, 1);
    assert_int_equal(unlink(path), 0);
    struct str v = body_view(large, 69990, 100, &tmp);
    assert_true(v.n == 10 && v.p[0] == 'c' && v.p[9] == 'c');
    v = body_view(large, 0, 70000, &tmp);
    assert_true(v.n == 70000 && v.p[0] == 'c');
    struct body *again = read_with(s, 2, 1);
    assert_true(again->p != NULL && again->p[69999] == 'c');
    body_unref(small);
    body_unref(large);
    body_unref(again);
    sbuf_free(&tmp);
    spool_close(s);
}

static unsigned discards;
static void counting_discard(void *arg, int fd) {
    discards++;
    spool_io_disk.discard(arg, fd);
}

/* A file of the log from which content is being sent is removed, and is not cut short then: a
 * session would find the rest of its message gone. */
static void test_content_that_is_sent_is_not_cut_short(void **state) {
    struct seen seen;
    (void)state;
    io.discard = counting_discard;
    discards = 0;
    for (int sending = 1; sending >= 0; sending--) {
        struct spool *s = open_spool(&seen);
        assert_int_equal(put(s, 1, "sent", 70000), 0);
        struct body *body = read_with(s, 1, sending ? 1 : 1U << 30);
        assert_true((body->p == NULL) == sending);
        assert_int_equal(put(s, 2, "next", 1000000), 0);
        note(s, SPOOL_DONE, 1, "");
        note(s, SPOOL_DONE, 2, "");
        assert_int_equal(put(s, 3, "last", 1000000), 0);
        note(s, SPOOL_DONE, 3, "");
        spool_close(s); /* the reader thread has run what it had to */
        assert_int_equal(discards > 0, !sending);
        body_unref(body);
        empty_spool();
    }
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, dir_remove)
    const struct CMUnitTest tests[] = {
        T(test_content_stays_on_the_disk),
        T(test_content_that_is_sent_is_not_cut_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
