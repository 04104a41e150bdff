/* Connections to policy services: how many there are, who gets one, and what comes on one unasked.
 */
#include "receive_rig.h"

#include "receive/policyd.h"

/* -- a service, which answers when the test says so -- */

#define PEERS 20

static int listener = -1;
static char where[100];

/* The service's end of a connection. */
static struct peer {
    int fd;
    char asked[40]; /* what it has to answer; "": nothing */
    bool over;
} peers[PEERS];
static size_t n_peers;
static char heard[200]; /* each request, with a blank */

static void service_listens(void) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(where, sizeof where, "unix:%s/policy", dir);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", where + 5);
    unlink(a.sun_path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(listener, PEERS), 0);
    n_peers = 0;
    heard[0] = '\0';
}

static void service_stops(void) {
    for (size_t i = 0; i < n_peers; i++)
        if (!peers[i].over)
            close(peers[i].fd);
    close(listener);
}

static void peer_hears(struct peer *p) {
    char text[sizeof p->asked];
    ssize_t n = read(p->fd, text, sizeof text - 1);
    if (n > 2) { /* without the end of the request */
        snprintf(p->asked, sizeof p->asked, "%.*s", (int)n - 2, text);
        snprintf(heard + strlen(heard), sizeof heard - strlen(heard), "%s ", p->asked);
    } else if (n == 0) {
        p->over = true;
        close(p->fd);
    }
}

/* All that can go on without an answer does. */
static void run(void) {
    for (int i = 0; i < 50; i++) {
        int fd;
        turn();
        while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
            peers[n_peers++] = (struct peer){.fd = fd};
        for (size_t k = 0; k < n_peers; k++)
            if (!peers[k].over)
                peer_hears(&peers[k]);
        usleep(200);
    }
}

static void peer_says(struct peer *p, const char *text) {
    assert_int_equal(write(p->fd, text, strlen(text)), strlen(text));
    run();
}

/* The answer to that request repeats it. */
static void service_answers(const char *asked) {
    char text[100];
    for (size_t i = 0; i < n_peers; i++) {
        if (peers[i].over || strcmp(peers[i].asked, asked) != 0)
            continue;
        peers[i].asked[0] = '\0';
        snprintf(text, sizeof text, "action=%s\n\n", asked);
        peer_says(&peers[i], text);
        return;
    }
    fail_msg("%s was not asked", asked);
}

static size_t peers_open(void) {
    size_t n = 0;
    for (size_t i = 0; i < n_peers; i++)
        n += !peers[i].over;
    return n;
}

/* -- who asks -- */

struct call {
    struct policy_call *call;
    char said[40]; /* "none": the service did not answer */
    size_t times;
};

static void on_answer(void *arg, struct str action) {
    struct call *c = arg;
    c->times++;
    snprintf(c->said, sizeof c->said, "%.*s", STR_FMT(action.p == NULL ? STR_LIT("none") : action));
}

static struct policies *all;
static struct config *cfg;

/* The client is named by the first letter of what it asks. */
static void ask(struct call *c, const char *what) {
    char client[2] = {what[0], '\0'}, request[40];
    struct policy_how how = {.where = str_of(where),
                             .timeout_s = 100,
                             .max_idle_s = 300,
                             .max_ttl_s = 1000,
                             .try_limit = 2,
                             .retry_delay_s = 1};
    snprintf(request, sizeof request, "%s\n\n", what);
    *c = (struct call){.times = 0};
    c->call = policyd_ask(all, cfg, &how, str_of(request), client, on_answer, c);
}

static void begin(const char *main, size_t loops) {
    cfg = configure(main);
    all = policyd_new(loop, loops);
    service_listens();
}

static void end(void) {
    service_stops();
    run();
    config_unref(cfg);
    free(all);
}

/* -- the tests -- */

/* A client with many sessions waits for itself, and the service never has more connections. */
static void test_each_client_in_turn(void **state) {
    static const char *const asked[] = {"a1", "a2", "a3", "a4", "a5", "a6", "a7", "b1", "b2", "c1"};
    static const char *const order[] = {"a1", "a2", "a3", "a4", "b1", "c1", "a5", "b2", "a6", "a7"};
    struct call calls[10];
    (void)state;
    begin("default_process_limit = 3\n", 1);
    for (size_t i = 0; i < 10; i++)
        ask(&calls[i], asked[i]);
    run();
    assert_string_equal(heard, "a1 a2 a3 ");
    for (size_t i = 0; i < 10; i++)
        service_answers(order[i]);
    assert_string_equal(heard, "a1 a2 a3 a4 b1 c1 a5 b2 a6 a7 ");
    assert_int_equal(n_peers, 3);
    for (size_t i = 0; i < 10; i++) {
        assert_int_equal(calls[i].times, 1);
        assert_string_equal(calls[i].said, asked[i]);
    }
    end();
}

/* Who has waited for a connection as long as for an answer is told that there was none. */
static void test_the_wait_has_an_end(void **state) {
    struct call first, second, third;
    (void)state;
    begin("default_process_limit = 1\n", 1);
    ask(&first, "a1");
    run();
    ahead_s += 60;
    ask(&second, "b1");
    run();
    service_answers("a1");
    assert_string_equal(heard, "a1 b1 ");
    ask(&third, "c1");
    run();
    ahead_s += 99;
    run();
    assert_int_equal(second.times + third.times, 0);
    ahead_s += 2;
    run();
    assert_string_equal(third.said, "none");
    assert_string_equal(first.said, "a1");
    policyd_cancel(second.times == 0 ? second.call : NULL);
    end();
}

/* A client that goes makes room, in the line and at the service. */
static void test_who_goes_makes_room(void **state) {
    struct call calls[4];
    (void)state;
    begin("default_process_limit = 1\n", 1);
    ask(&calls[0], "a1");
    ask(&calls[1], "b1");
    ask(&calls[2], "c1");
    ask(&calls[3], "d1");
    run();
    policyd_cancel(calls[1].call);
    policyd_cancel(calls[0].call);
    run();
    assert_string_equal(heard, "a1 c1 ");
    service_answers("c1");
    service_answers("d1");
    assert_int_equal(calls[0].times + calls[1].times, 0);
    assert_string_equal(calls[3].said, "d1");
    assert_int_equal(peers_open(), 1);
    end();
}

/* Each of many loops has one, and they share what there is. */
static void test_loops_share(void **state) {
    struct call calls[4];
    (void)state;
    begin("default_process_limit = 5\n", 3);
    for (size_t i = 0; i < 4; i++)
        ask(&calls[i], "a1");
    run();
    assert_int_equal(n_peers, 2);
    for (size_t i = 0; i < 4; i++)
        service_answers("a1");
    end();
    begin("default_process_limit = 2\n", 16);
    ask(&calls[0], "a1");
    ask(&calls[1], "a2");
    run();
    assert_int_equal(n_peers, 1);
    service_answers("a1");
    service_answers("a2");
    end();
}

/* A service that goes away fails all that wait for it, and none of them twice. */
static void test_a_service_that_goes(void **state) {
    struct call calls[4];
    (void)state;
    begin("default_process_limit = 1\n", 1);
    ask(&calls[0], "a1");
    ask(&calls[1], "a2");
    ask(&calls[2], "b1");
    ask(&calls[3], "b2");
    run();
    service_stops();
    n_peers = 0;
    for (int i = 0; i < 20; i++) {
        ahead_s += 1;
        turn();
        turn();
    }
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(calls[i].times, 1);
        assert_string_equal(calls[i].said, "none");
    }
    listener = -1;
    config_unref(cfg);
    free(all);
}

/* What comes before it is asked for answers no request. */
static void test_what_comes_unasked(void **state) {
    static const char *const unasked[] = {"action=OK\n\n", "action=OK\n", "a", "\n"};
    struct call c;
    (void)state;
    begin("", 1);
    for (size_t i = 0; i < 4; i++) {
        ask(&c, "a1");
        run();
        service_answers("a1");
        peer_says(&peers[n_peers - 1], unasked[i]);
        assert_true(peers[n_peers - 1].over);
        ask(&c, "a2");
        run();
        assert_int_equal(c.times, 0);
        service_answers("a2");
        assert_string_equal(c.said, "a2");
        peer_says(&peers[n_peers - 1], "x");
    }
    assert_int_equal(n_peers, 8);
    end();
}

/* Nor does what comes behind an answer, where the next call waits for the connection. */
static void test_two_answers(void **state) {
    struct call calls[2];
    (void)state;
    begin("default_process_limit = 1\n", 1);
    ask(&calls[0], "a1");
    ask(&calls[1], "b1");
    run();
    peers[0].asked[0] = '\0';
    peer_says(&peers[0], "action=DUNNO\n\naction=OK\n\n");
    assert_string_equal(calls[0].said, "DUNNO");
    assert_int_equal(calls[1].times, 0);
    assert_true(peers[0].over);
    service_answers("b1");
    assert_string_equal(calls[1].said, "b1");
    end();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_client_in_turn), cmocka_unit_test(test_the_wait_has_an_end),
        cmocka_unit_test(test_who_goes_makes_room), cmocka_unit_test(test_loops_share),
        cmocka_unit_test(test_a_service_that_goes), cmocka_unit_test(test_what_comes_unasked),
        cmocka_unit_test(test_two_answers)};
    return cmocka_run_group_tests(tests, loop_make, dir_remove);
}
