/*
 * How often passwords may be guessed, on a clock of the test's own.
 */
#include "unit.h"

#include "util/clock.h"
#include "web/throttle.h"

static int64_t now_ms = 1000000;

int64_t clock_mono_ms(void) {
    return now_ms;
}

int64_t clock_wall_us(void) {
    return now_ms * 1000;
}

/* Guesses for one account until there is a long wait; ends where a moment of it has passed. */
static void guess_until_it_waits(const char *client, const char *account) {
    unsigned wait;
    for (int i = 0; i < 10; i++)
        while ((wait = throttle_begin(client, account)) > 0)
            now_ms += wait * 1000;
    now_ms += 1;
}

static void test_what_is_refused_makes_no_room(void **state) {
    char account[32];
    (void)state;
    guess_until_it_waits("192.0.2.1", "boss@a.example");
    unsigned wait = throttle_begin("192.0.2.1", "boss@a.example");
    assert_in_range(wait, 10, 40);
    for (int i = 0; i < 9000; i++) {
        snprintf(account, sizeof account, "%d@a.example", i);
        if (throttle_begin("192.0.2.1", account) == 0)
            fail_msg("guess %d is looked at", i);
    }
    assert_int_equal(throttle_begin("192.0.2.1", "boss@a.example"), wait);
    assert_int_not_equal(throttle_begin("192.0.2.2", "boss@a.example"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_is_refused_makes_no_room)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
