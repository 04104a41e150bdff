/*
 * How often passwords may be guessed, on a clock of the test's own; and a daemon that is silent.
 */
#include "unit.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/ask.h"
#include "util/clock.h"
#include "web/crowd.h"
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
    for (int i = 0; i < 10; i++) {
        while ((wait = throttle_begin(client, account, false)) > 0)
            now_ms += wait * 1000;
        throttle_end(client, account, false, THROTTLE_WRONG);
    }
    now_ms += 1;
}

static void test_what_is_refused_makes_no_room(void **state) {
    char account[32];
    (void)state;
    guess_until_it_waits("192.0.2.1", "boss@a.example");
    unsigned wait = throttle_begin("192.0.2.1", "boss@a.example", false);
    assert_in_range(wait, 10, 40);
    for (int i = 0; i < 9000; i++) {
        snprintf(account, sizeof account, "%d@a.example", i);
        if (throttle_begin("192.0.2.1", account, false) == 0)
            fail_msg("guess %d is looked at", i);
    }
    assert_int_equal(throttle_begin("192.0.2.1", "boss@a.example", false), wait);
    assert_int_not_equal(throttle_begin("192.0.2.2", "boss@a.example", false), 0);
    /* Where the owner has come from, others' guesses keep nobody waiting, and one's own do. */
    assert_int_equal(throttle_begin("192.0.2.1", "boss@a.example", true), wait);
    assert_int_equal(throttle_begin("192.0.2.2", "boss@a.example", true), 0);
    throttle_end("192.0.2.2", "boss@a.example", true, THROTTLE_WRONG);
}

/* The right password forgives those beside it, which are being looked at yet. */
static void test_of_one_account_few_are_looked_at(void **state) {
    char client[32];
    unsigned begun = 0;
    (void)state;
    for (unsigned i = 0; i < 2 * THROTTLE_GUESSES; i++) {
        begun += throttle_begin("203.0.113.8", "local@a.example", true) == 0;
        if (i % 5 == 4) {
            throttle_end("203.0.113.8", "local@a.example", true, THROTTLE_RIGHT);
            begun--;
        }
    }
    begun += throttle_begin("203.0.113.8", "local@a.example", true) == 0;
    for (unsigned i = 0; i < THROTTLE_GUESSES; i++) { /* the owner may have many addresses, too */
        snprintf(client, sizeof client, "192.0.2.%u", 100 + i);
        begun += throttle_begin(client, "local@a.example", true) == 0;
    }
    assert_int_equal(begun, 5);
    assert_int_equal(throttle_begin("203.0.113.9", "boss@a.example", true), 0);
    throttle_end("203.0.113.9", "boss@a.example", true, THROTTLE_RIGHT);
    while (begun-- > 0)
        throttle_end("203.0.113.8", "local@a.example", true, THROTTLE_RIGHT);
    assert_int_equal(throttle_begin("203.0.113.8", "local@a.example", true), 0);
    throttle_end("203.0.113.8", "local@a.example", true, THROTTLE_RIGHT);
}

/* However many addresses strangers have: those who guess keep no more places than that, and none of
 * those of owners where these have come from. */
static void test_so_many_guesses_are_looked_at(void **state) {
    char client[32], account[32];
    (void)state;
    for (unsigned i = 0; i < THROTTLE_GUESSES + 8; i++) {
        snprintf(client, sizeof client, "198.51.100.%u", i);
        snprintf(account, sizeof account, "x%u@a.example", i);
        unsigned wait = throttle_begin(client, account, false);
        assert_int_equal(wait, i < THROTTLE_GUESSES ? 0 : THROTTLE_FULL);
    }
    assert_int_equal(throttle_begin("203.0.113.1", "ann@a.example", true), 0);
    throttle_end("203.0.113.1", "ann@a.example", true, THROTTLE_RIGHT);
    throttle_end("198.51.100.1", "x1@a.example", false, THROTTLE_WRONG);
    assert_int_equal(throttle_begin("203.0.113.2", "bob@a.example", false), 0);
    assert_int_equal(throttle_begin("203.0.113.3", "cid@a.example", false), THROTTLE_FULL);
}

static unsigned enter_all(const char *admin) {
    unsigned n = 0;
    while (n < 1000 && crowd_enter(admin))
        n++;
    return n;
}

/* However many administrators of domains ask for all that they may, others have places left, and
 * each of them has a few. */
static void test_all_tenants_leave_places(void **state) {
    unsigned all = 0;
    char admin[32];
    (void)state;
    for (int i = 0; i < 50; i++) {
        snprintf(admin, sizeof admin, "local@%d.example", i);
        unsigned n = enter_all(admin);
        assert_in_range(n, CROWD_FEW, CROWD_MAX);
        all += n;
    }
    assert_in_range(all, 176, 240);
    assert_int_equal(enter_all("local@49.example"), 0);
    for (unsigned i = 0; i < 2 * CROWD_MAX; i++)
        crowd_leave(i % 2 == 0 ? "local@0.example" : "local@1.example");
    assert_in_range(enter_all("local@49.example"), 1, CROWD_MAX - CROWD_FEW);
}

/* It listens, and never answers: who asks is not held up for ever. */
static void test_a_silent_daemon_is_given_up(void **state) {
    char folder[] = "/tmp/unit-ask-XXXXXX", *why = NULL;
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(at.sun_path, sizeof at.sun_path, "%s/control.sock", folder);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(fd, 1), 0);
    ask_set_patience(50);
    assert_int_equal(ask_daemon(folder, "{}", NULL, NULL, NULL, &why), -ETIMEDOUT);
    assert_non_null(strstr(why, "silent"));
    free(why);
    close(fd);
    unlink(at.sun_path);
    rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_is_refused_makes_no_room),
                                       cmocka_unit_test(test_of_one_account_few_are_looked_at),
                                       cmocka_unit_test(test_so_many_guesses_are_looked_at),
                                       cmocka_unit_test(test_all_tenants_leave_places),
                                       cmocka_unit_test(test_a_silent_daemon_is_given_up)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
