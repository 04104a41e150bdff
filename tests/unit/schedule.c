/*
 * tests/unit/schedule.c - counting what becomes of mail
 */
#include "schedule/tally.h"
#include "unit.h"
#include "util/mem.h"

static void count(struct tally *t, struct hop *h, const char *sender, enum mail_status status,
                  const char *text) {
    struct mailerr e = {0};
    mailerr_set(&e, status, "4.4.1", "%s", text);
    tally_result(t, h, str_of(sender), &e);
    mailerr_free(&e);
}

static void test_hops(void **state) {
    static struct tally t; /* a process keeps it for life */
    (void)state;
    struct hop *a = tally_hop(&t, STR_LIT("[A.example]:25"), STR_LIT(""));
    assert_ptr_equal(a, tally_hop(&t, STR_LIT("[a.EXAMPLE]:25"), STR_LIT("")));
    assert_ptr_not_equal(a, tally_hop(&t, STR_LIT("[a.example]:25"), STR_LIT("record")));
    assert_string_equal(tally_hop(&t, STR_LIT(""), STR_LIT(""))->nexthop, "");
    count(&t, a, "s", MAIL_DEFERRED, "refused");
    count(&t, a, "s", MAIL_SENT, "ok");
    assert_true(a->count[MAIL_DEFERRED] == 1 && a->count[MAIL_SENT] == 1 && a->ok_us > 0);
    assert_string_equal(a->err, "refused");
    for (unsigned i = 0; i < HOPS_MAX + 10; i++) { /* bounded: the rest are one */
        char name[32];
        snprintf(name, sizeof name, "[h%u]", i);
        tally_hop(&t, str_of(name), STR_LIT(""));
    }
    assert_true(t.hops.n == HOPS_MAX && t.rest != NULL);
    assert_ptr_equal(tally_hop(&t, STR_LIT("[new]"), STR_LIT("")), t.rest);
}

static void test_senders(void **state) {
    static struct tally t; /* a process keeps it for life */
    size_t n = 2;
    (void)state;
    tally_tick(&t, 1000);
    count(&t, NULL, "few@x", MAIL_SENT, "");
    for (int i = 0; i < 5; i++)
        count(&t, NULL, "many@x", i == 0 ? MAIL_BOUNCED : MAIL_SENT, "");
    count(&t, NULL, "", MAIL_SENT, "");
    count(&t, NULL, "", MAIL_SENT, "");
    const struct sender_count **v = tally_busiest(&t, &n);
    assert_true(n == 2 && v[0]->count[MAIL_SENT] == 4 && v[0]->count[MAIL_BOUNCED] == 1);
    assert_string_equal(v[0]->sender, "many@x");
    assert_string_equal(v[1]->sender, "");
    free(v);
    tally_tick(&t, 1000 + 86400000000LL); /* a new day */
    n = 10;
    v = tally_busiest(&t, &n);
    assert_int_equal(n, 0);
    free(v);
    assert_true(t.count[MAIL_SENT] == 7);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hops), cmocka_unit_test(test_senders)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
