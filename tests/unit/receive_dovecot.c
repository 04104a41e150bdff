/* The lines to and from Dovecot's auth service. */
#include "receive_rig.h"

/* -- Dovecot -- */

static int listener = -1, service = -1;
static char socket_path[100];

static void service_listens(void) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(socket_path, sizeof socket_path, "%s/auth", dir);
    memcpy(a.sun_path, socket_path, strlen(socket_path) + 1);
    unlink(socket_path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(listener, 5), 0);
}

/* Runs the loop until the service has been sent something, and returns it. */
static const char *service_hears(void) {
    static char text[1000];
    ssize_t n = 0;
    for (int i = 0; i < 1000 && n <= 0; i++) {
        turn();
        if (service < 0)
            service = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        n = service < 0 ? 0 : read(service, text, sizeof text - 1);
        if (n <= 0)
            usleep(1000);
    }
    text[n < 0 ? 0 : n] = '\0';
    return text;
}

static void service_says(const char *text) {
    assert_int_equal(write(service, text, strlen(text)), strlen(text));
    for (int i = 0; i < 20; i++) {
        turn();
        usleep(1000);
    }
}

static size_t n_told;

static void is_told(void *arg) {
    (void)arg;
    n_told++;
}

struct login_answer {
    enum dovecot_rc rc;
    char text[100];
    int times;
};

static void on_login(void *arg, enum dovecot_rc rc, struct str text, struct str user) {
    struct login_answer *a = arg;
    (void)user;
    a->rc = rc;
    a->times++;
    snprintf(a->text, sizeof a->text, "%.*s", STR_FMT(text));
}

static void service_greets(struct dovecot *d) {
    struct dovecot_wait w = {.fn = is_told};
    n_told = 0;
    assert_false(dovecot_ready(d));
    dovecot_await(d, &w);
    assert_int_equal(n_told, 0);
    assert_non_null(strstr(service_hears(), "VERSION\t1\t"));
    service_says("VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tX\tprivate\nMECH\tCRAM-"
                 "MD5\tdictionary\nSPID\t1\nDONE\n");
    assert_true(dovecot_ready(d) && n_told == 1);
}

/* Every text that is sent, with every character that would make a line or a field of its own. */
static void test_dovecot_lines(void **state) {
    static const char bad[] = {'\t', '\n', '\r', '\0'};
    struct login_answer a = {0};
    struct sbuf mechs = {0};
    (void)state;
    service_listens();
    struct dovecot *d = dovecot_new(loop, socket_path);
    struct dovecot_login l = {"PLAIN", "smtp", "192.0.2.1", "192.0.2.2", true, STR_LIT("AGE=")};
    assert_int_equal(dovecot_begin(d, &l, on_login, &a), 0); /* not connected */
    assert_false(dovecot_continue(d, 1, STR_LIT("AGE=")));
    service_greets(d);
    dovecot_mechs(d, 0, &mechs);
    assert_string_equal(mechs.p, "PLAIN CRAM-MD5");
    sbuf_free(&mechs);
    for (size_t i = 0; i < sizeof bad; i++) {
        char text[4] = {'a', bad[i], 'b', '\0'};
        struct dovecot_login evil = l;
        evil.resp = str_make(text, 3);
        assert_int_equal(dovecot_begin(d, &evil, on_login, &a), 0);
        if (bad[i] == '\0')
            continue; /* the others are texts of C */
        const char **fields[] = {&evil.mech, &evil.service, &evil.local_addr, &evil.client_addr};
        for (size_t k = 0; k < 4; k++) {
            evil = l;
            *(k == 0   ? &evil.mech
              : k == 1 ? &evil.service
              : k == 2 ? &evil.local_addr
                       : &evil.client_addr) = text;
            (void)fields;
            assert_int_equal(dovecot_begin(d, &evil, on_login, &a), 0);
        }
    }
    uint32_t id = dovecot_begin(d, &l, on_login, &a);
    char want[200];
    snprintf(want, sizeof want,
             "AUTH\t%u\tPLAIN\tservice=smtp\tnologin\tlip=192.0.2.1\trip=192.0.2.2\tsecured\tresp="
             "AGE=\n",
             id);
    assert_string_equal(service_hears(), want); /* and nothing of the others */
    snprintf(want, sizeof want, "CONT\t%u\tcQ==\n", id);
    service_says(want);
    assert_true(a.times == 1 && a.rc == DOVECOT_MORE);
    assert_string_equal(a.text, "cQ==");
    assert_true(dovecot_continue(d, id, STR_LIT("YQ==")));
    snprintf(want, sizeof want, "CONT\t%u\tYQ==\n", id);
    assert_string_equal(service_hears(), want);
    assert_false(dovecot_continue(d, id, str_make("a\tb", 3))); /* over, and the service is told */
    snprintf(want, sizeof want, "CANCEL\t%u\n", id);
    assert_string_equal(service_hears(), want);
    assert_false(dovecot_continue(d, id, STR_LIT("YQ==")));
    l.local_addr = "";
    l.secured = false;
    l.resp = STR_NONE;
    id = dovecot_begin(d, &l, on_login, &a);
    snprintf(want, sizeof want, "AUTH\t%u\tPLAIN\tservice=smtp\tnologin\trip=192.0.2.2\n", id);
    assert_string_equal(service_hears(), want);
    close(service);
    for (int i = 0; i < 20; i++) {
        turn();
        usleep(1000);
    }
    assert_true(a.times == 2 && a.rc == DOVECOT_TEMP && !dovecot_ready(d));
    close(listener);
    dovecot_free(d);
    turn();
}

/* A client that thinks about a challenge is no service that does not answer: the connection, which
 * is that of all clients, stays.  A service that is silent is given up. */
static void test_dovecot_silence(void **state) {
    static const struct dovecot_login l = {"LOGIN", "smtp", "", "192.0.2.2", true, {NULL, 0}};
    struct login_answer a = {0};
    char said[100];
    (void)state;
    service = -1;
    service_listens();
    struct dovecot *d = dovecot_new(loop, socket_path);
    service_greets(d);
    uint32_t id = dovecot_begin(d, &l, on_login, &a);
    assert_non_null(strstr(service_hears(), "LOGIN"));
    snprintf(said, sizeof said, "CONT\t%u\tVXNlcm5hbWU6\n", id);
    service_says(said);
    assert_int_equal(a.times, 1);
    for (int i = 0; i < 10; i++) {
        ahead_s += 30;
        turn();
    }
    assert_true(a.times == 1 && dovecot_ready(d));
    assert_true(dovecot_continue(d, id, STR_LIT("YQ==")));
    for (int i = 0; i < 10; i++) {
        ahead_s += 30;
        turn();
    }
    assert_true(a.times == 2 && a.rc == DOVECOT_TEMP && !dovecot_ready(d));
    close(listener);
    close(service);
    dovecot_free(d);
    turn();
}

/* A question that the service never answers fails alone, as long as it answers others. */
static void test_dovecot_forgets_one(void **state) {
    static const struct dovecot_login l = {"LOGIN", "smtp", "", "192.0.2.2", true, {NULL, 0}};
    struct login_answer lost = {0}, good = {0};
    char said[100];
    (void)state;
    service = -1;
    service_listens();
    struct dovecot *d = dovecot_new(loop, socket_path);
    service_greets(d);
    uint32_t id = dovecot_begin(d, &l, on_login, &lost);
    assert_non_null(strstr(service_hears(), "LOGIN"));
    for (int i = 1; i <= 5; i++) {
        uint32_t other = dovecot_begin(d, &l, on_login, &good);
        assert_non_null(strstr(service_hears(), "AUTH\t"));
        snprintf(said, sizeof said, "FAIL\t%u\tuser=u\n", other);
        service_says(said);
        assert_true(good.times == i && good.rc == DOVECOT_FAIL);
        ahead_s += 20;
        turn();
    }
    assert_true(lost.times == 1 && lost.rc == DOVECOT_TEMP && dovecot_ready(d));
    snprintf(said, sizeof said, "OK\t%u\tuser=u\n", id);
    service_says(said); /* too late */
    assert_true(lost.times == 1 && dovecot_ready(d));
    close(listener);
    close(service);
    dovecot_free(d);
    turn();
}

/* No service makes us remember more than there can be mechanisms. */
static void test_dovecot_names_too_many(void **state) {
    struct dovecot_wait w = {.fn = is_told};
    struct sbuf greeting = {0};
    (void)state;
    n_told = 0;
    service = -1;
    service_listens();
    struct dovecot *d = dovecot_new(loop, socket_path);
    dovecot_await(d, &w);
    assert_non_null(strstr(service_hears(), "VERSION\t1\t"));
    for (int i = 0; i < 100; i++)
        sbuf_printf(&greeting, "MECH\tM%d\n", i);
    sbuf_add_c(&greeting, "DONE\n");
    service_says(greeting.p);
    assert_true(!dovecot_ready(d) && n_told == 1);
    sbuf_free(&greeting);
    close(listener);
    close(service);
    dovecot_free(d);
    turn();
}

/* A service that never completes the connection (a full queue, a firewall) is as absent as one that
 * does not greet: clients that say EHLO wait seconds for its list, not until the kernel gives up.
 */
static void test_dovecot_never_connects(void **state) {
    struct dovecot_wait w = {.fn = is_told};
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    char path[64];
    int others[4];
    (void)state;
    n_told = 0;
    int full = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(full, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(full, 0), 0);
    assert_int_equal(getsockname(full, (struct sockaddr *)&a, &n), 0);
    for (size_t i = 0; i < 4; i++) {
        others[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(others[i], (struct sockaddr *)&a, sizeof a);
    }
    snprintf(path, sizeof path, "inet:127.0.0.1:%d", ntohs(a.sin_port));
    struct dovecot *d = dovecot_new(loop, path);
    dovecot_await(d, &w);
    turn();
    assert_int_equal(n_told, 0);
    for (int i = 0; i < 4; i++) {
        ahead_s += 5;
        turn();
    }
    assert_int_equal(n_told, 1);
    for (size_t i = 0; i < 4; i++)
        close(others[i]);
    close(full);
    dovecot_free(d);
    turn();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dovecot_lines),
        cmocka_unit_test(test_dovecot_silence),
        cmocka_unit_test(test_dovecot_forgets_one),
        cmocka_unit_test(test_dovecot_names_too_many),
        cmocka_unit_test(test_dovecot_never_connects),
    };
    return cmocka_run_group_tests(tests, loop_make, dir_remove);
}
