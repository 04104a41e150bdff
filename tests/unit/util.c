/* util: text, tables, codecs, networks, messages between processes. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "util/clock.h"
#include "util/codec.h"
#include "util/fs.h"
#include "util/htab.h"
#include "util/ipc.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/net.h"

static void test_split_braces(void **state) {
    (void)state;
    struct str rest = str_of("hash:/a, inline:{x=y, {b = c d}} , {static:e f}"), piece;
    assert_true(str_split_braces(&rest, ", ", &piece));
    assert_str(piece, "hash:/a");
    assert_true(str_split_braces(&rest, ", ", &piece));
    assert_str(piece, "inline:{x=y, {b = c d}}");
    assert_true(str_split_braces(&rest, ", ", &piece));
    assert_str(piece, "{static:e f}");
    assert_false(str_split_braces(&rest, ", ", &piece));
}

static void test_unbrace(void **state) {
    static const char *const none[] = {"", "a", "{", "}", "{a", "a}", "{a}b", "{a}{b}", " {a}"};
    struct str s = STR_LIT("{ {a} b }"), empty = STR_LIT("{}");
    (void)state;
    assert_true(str_unbrace(&s));
    assert_str(s, " {a} b ");
    assert_true(str_unbrace(&empty));
    assert_str(empty, "");
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        s = str_of(none[i]);
        assert_false(str_unbrace(&s));
        assert_str(s, none[i]);
    }
}

static void test_numbers(void **state) {
    uint64_t v;
    (void)state;
    assert_true(str_u64(str_of("18446744073709551615"), &v) && v == UINT64_MAX);
    assert_false(str_u64(str_of("18446744073709551616"), &v));
    assert_false(str_u64(str_of(""), &v));
    assert_false(str_u64(str_of("12x"), &v));
}

static void test_json(void **state) {
    (void)state;
    struct sbuf b = {0};
    sbuf_add_json(&b, str_make("a\"\\\n\0\xc3\xa4\xff\xed\xa0\x80z", 12));
    assert_string_equal(
        b.p,
        "\"a\\\"\\\\\\u000a\\u0000\xc3\xa4\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\"");
    sbuf_free(&b);
}

static void test_tables(void **state) {
    (void)state;
    struct itab t = {0};
    int vals[1000];
    for (uint64_t i = 0; i < 1000; i++)
        itab_put(&t, i * 7919, &vals[i]);
    for (uint64_t i = 0; i < 1000; i += 2)
        assert_ptr_equal(itab_del(&t, i * 7919), &vals[i]);
    for (uint64_t i = 0; i < 1000; i++)
        assert_ptr_equal(itab_get(&t, i * 7919), i % 2 == 0 ? NULL : (void *)&vals[i]);
    assert_int_equal(t.n, 500);
    itab_free(&t);
    struct htab h = {0};
    char keys[300][8];
    for (int i = 0; i < 300; i++) {
        snprintf(keys[i], sizeof keys[i], "k%d", i);
        htab_put(&h, str_of(keys[i]), keys[i]);
    }
    for (int i = 0; i < 300; i += 3)
        assert_ptr_equal(htab_del(&h, str_of(keys[i])), keys[i]);
    for (int i = 0; i < 300; i++)
        assert_ptr_equal(htab_get(&h, str_of(keys[i])), i % 3 == 0 ? NULL : keys[i]);
    htab_free(&h);
}

/* FNV-1a, with which anybody can look for texts that collide. */
static uint64_t known_hash(struct str s) {
    uint64_t h = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ (uint8_t)s.p[i]) * 0x100000001b3ULL;
    return h ^ (h >> 32);
}

/* Senders that a stranger has chosen because they all come to the same place of a table. */
static void test_chosen_keys(void **state) {
    (void)state;
    enum { CHOSEN = 200, MASK = 0xfff };
    static bool seen[MASK + 1];
    char key[40];
    size_t chosen = 0, places = 0;
    for (unsigned i = 0; chosen < CHOSEN; i++) {
        snprintf(key, sizeof key, "%u@chosen.example", i);
        if ((known_hash(str_of(key)) & MASK) != 0)
            continue;
        chosen++;
        size_t place = (size_t)str_hash(str_of(key)) & MASK;
        places += !seen[place];
        seen[place] = true;
    }
    assert_true(places > CHOSEN / 2);
}

/* The empty text of the reference's vectors; another key, another hash. */
static void test_keyed_hash(void **state) {
    (void)state;
    const char *text = "someone@there.example";
    str_hash_key(0x0706050403020100ULL, 0x0f0e0d0c0b0a0908ULL);
    uint64_t one = str_hash(str_of(text));
    assert_true(str_hash(str_of("")) == 0xabac0158050fc4dcULL);
    str_hash_key(1, 2);
    assert_true(str_hash(str_of(text)) != one);
    assert_true(str_hash(str_make(text, 20)) != str_hash(str_of(text)));
}

static void test_codecs(void **state) {
    (void)state;
    struct sbuf b = {0};
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
    base64_encode(&b, str_of("user:pass"));
    assert_string_equal(b.p, "dXNlcjpwYXNz");
    sbuf_reset(&b);
    assert_true(base64_decode(&b, str_of("dXNlcg==")));
    assert_string_equal(b.p, "user");
    assert_false(base64_decode(&b, str_of("dXN")));
    assert_false(base64_decode(&b, str_of("dX==Nlcg")));
    assert_false(base64_decode(&b, str_of("dXNl\n   ")));
    sbuf_reset(&b);
    assert_true(hex_decode(&b, str_of("4a4B")));
    assert_string_equal(b.p, "JK");
    assert_false(hex_decode(&b, str_of("4a4")));
    assert_false(hex_decode(&b, str_of("4g")));
    sbuf_reset(&b);
    assert_true(percent_decode(&b, str_of("%2Fa%20b+c%2f")));
    assert_string_equal(b.p, "/a b+c/");
    assert_false(percent_decode(&b, str_of("a%2")));
    assert_false(percent_decode(&b, str_of("%zz")));
    sbuf_free(&b);
}

static void test_networks(void **state) {
    (void)state;
    struct netblock n;
    struct netaddr a;
    const char *why;
    assert_true(netblock_parse(&n, str_of("10.128.0.0/9"), &why));
    assert_true(netaddr_parse(&a, str_of("10.200.1.1"), 0) && netblock_has(&n, &a));
    assert_true(netaddr_parse(&a, str_of("10.1.1.1"), 0) && !netblock_has(&n, &a));
    assert_true(netblock_parse(&n, str_of("[fd00::]/65"), &why));
    assert_true(netaddr_parse(&a, str_of("IPv6:fd00::1"), 0) && netblock_has(&n, &a));
    assert_true(netblock_parse(&n, str_of("[10.0.0.0/8]"), &why) && n.bits == 8);
    assert_true(netblock_parse(&n, str_of("[::1]"), &why) && n.bits == 128);
    static const char *const bad[] = {"[10.0.0.0/8", "[10.0.0.0]0/8", "[10.0.0.0/8]/8", "[",
                                      "[]",          "[10.0.0.0]/",   "[[::1]]"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_true(!netblock_parse(&n, str_of(bad[i]), &why) && why != NULL);
    assert_true(!netblock_parse(&n, str_of("[10.0.0.0]x/8"), &why) && why == NULL);
    assert_false(netblock_parse(&n, str_of("10.0.0.1/8"), &why));
    assert_string_equal(why, "non-null host address bits");
    assert_false(netblock_parse(&n, str_of("example.com"), &why));
    assert_null(why);
    assert_true(netaddr_parse(&a, str_of("::ffff:127.0.0.1"), 25));
    netaddr_unmap(&a);
    assert_true(netaddr_is_loopback(&a) && netaddr_port(&a) == 25);
}

/* Postfix's delay= format: whole seconds, or two digits that count (log_adhoc). */
static void test_delays(void **state) {
    static const struct {
        int64_t us;
        const char *want;
    } cases[] = {
        {0, "0"},         {4000, "0"},    {50000, "0.05"},  {110000, "0.11"},     {100000, "0.1"},
        {4100000, "4.1"}, {1000000, "1"}, {12400000, "12"}, {3600000000, "3600"}, {-5, "0"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sbuf b = {0};
        clock_add_delay(&b, cases[i].us);
        assert_string_equal(b.p, cases[i].want);
        sbuf_free(&b);
    }
}

static void test_ipc(void **state) {
    (void)state;
    struct sbuf b = {0};
    struct ipc_head h;
    struct str fields;
    size_t at = ipc_begin(&b, 7, 42);
    ipc_put_str(&b, str_of("key"));
    ipc_put_u64(&b, 5);
    ipc_end(&b, at);
    for (size_t n = 0; n < b.n; n++)
        assert_int_equal(ipc_peek(str_make(b.p, n), &h, &fields), 0);
    assert_int_equal(ipc_peek(sbuf_str(&b), &h, &fields), 1);
    assert_true(h.type == 7 && h.tag == 42);
    struct ipc_reader r = {.rest = fields};
    assert_str(ipc_get_str(&r), "key");
    assert_int_equal(ipc_get_u64(&r), 5);
    assert_true(ipc_done(&r));
    ipc_get_u32(&r); /* one field too many */
    assert_false(ipc_done(&r));
    uint32_t huge = IPC_MAX + 1;
    memcpy(b.p, &huge, 4);
    assert_true(ipc_peek(sbuf_str(&b), &h, &fields) < 0);
    struct ipc_reader bad = {.rest = str_make("\xff\xff\xff\xff", 4)};
    assert_str(ipc_get_str(&bad), "");
    assert_true(bad.bad);
    sbuf_free(&b);
}

static void test_ipc_fds(void **state) {
    (void)state;
    int s[2], p[2], got[4];
    size_t n;
    struct sbuf b = {0}, in = {0};
    struct ipc_head h;
    struct str fields;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    assert_int_equal(pipe(p), 0);
    ipc_end(&b, ipc_begin(&b, 2, 0));
    assert_int_equal(ipc_send(s[0], sbuf_str(&b), p, 2), 0);
    assert_int_equal(ipc_recv(s[1], &in, &h, &fields, got, 4, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(write(got[1], "x", 1), 1);
    char c;
    assert_int_equal(read(p[0], &c, 1), 1);
    close(s[0]);
    assert_int_equal(ipc_recv(s[1], &in, &h, &fields, got, 4, &n), -EPIPE);
    close(s[1]);
    close(p[0]);
    close(p[1]);
    close(got[0]);
    close(got[1]);
    sbuf_free(&b);
    sbuf_free(&in);
}

/* What a peer that has lost its mind may do. */
static void test_ipc_errors(void **state) {
    int s[2], p[65] = {0}, got[1];
    size_t n;
    struct sbuf b = {0}, in = {0};
    struct ipc_head h;
    struct str fields;
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    size_t at = ipc_begin(&b, 2, 0);
    ipc_put_str(&b, STR_LIT("field"));
    ipc_end(&b, at);
    assert_int_equal(ipc_send(s[0], sbuf_str(&b), p, 65), -EINVAL);
    assert_int_equal(ipc_send(s[0], sbuf_str(&b), NULL, 0), 0);
    assert_int_equal(ipc_recv(s[1], &in, &h, &fields, NULL, 0, NULL), 0);
    assert_int_equal(ipc_send(s[0], sbuf_str(&b), p, 3), 0); /* more descriptors than are taken */
    assert_int_equal(ipc_recv(s[1], &in, &h, &fields, got, 1, &n), 0);
    assert_int_equal(n, 1);
    close(got[0]);
    assert_int_equal(write(s[0], b.p, b.n - 2), b.n - 2); /* ends in the middle */
    close(s[0]);
    assert_int_equal(ipc_recv(s[1], &in, &h, &fields, got, 1, &n), -EPIPE);
    assert_int_equal(ipc_send(s[1], sbuf_str(&b), NULL, 0), -EPIPE);
    close(s[1]);
    assert_int_equal(ipc_recv(s[1], &in, &h, &fields, got, 1, &n), -EBADF);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    uint32_t huge = IPC_MAX + 1;
    memcpy(b.p, &huge, 4);
    assert_int_equal(write(s[0], b.p, b.n), b.n);
    assert_int_equal(ipc_recv(s[1], &in, &h, &fields, got, 1, &n), -EPROTO);
    close(s[0]);
    close(s[1]);
    sbuf_free(&b);
    sbuf_free(&in);
}

static void on_alarm(int sig) {
    (void)sig;
}

static void *other_end(void *arg) {
    const int *s = arg;
    struct sbuf b = {0}, in = {0};
    struct ipc_head h;
    struct str fields;
    sigset_t alarm; /* for the other thread only */
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm, NULL);
    usleep(50000);
    ipc_end(&b, ipc_begin(&b, 1, 0));
    ipc_send(s[0], sbuf_str(&b), NULL, 0);
    usleep(50000);
    ipc_recv(s[0], &in, &h, &fields, NULL, 0, NULL);
    sbuf_free(&b);
    sbuf_free(&in);
    return NULL;
}

/* Signals in the middle of either are nothing. */
/* A peer that does not read is waited for no longer than is said, though a part went out. */
static void test_ipc_until(void **state) {
    int s[2];
    struct sbuf b = {0};
    char *text = mem_zalloc(4U << 20);
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    size_t at = ipc_begin(&b, 1, 0);
    ipc_put_str(&b, str_make(text, 4U << 20));
    ipc_end(&b, at);
    assert_int_equal(ipc_send_until(s[0], sbuf_str(&b), NULL, 0, clock_mono_ms() + 20), -ETIMEDOUT);
    assert_true(recv(s[1], text, 4U << 20, MSG_DONTWAIT) > 0);
    sbuf_reset(&b);
    ipc_end(&b, ipc_begin(&b, 1, 0));
    assert_int_equal(ipc_send_until(s[0], sbuf_str(&b), NULL, 0, 0), 0); /* there is room */
    close(s[0]);
    close(s[1]);
    sbuf_free(&b);
    free(text);
}

static void test_ipc_signals(void **state) {
    struct sigaction on = {.sa_handler = on_alarm}, old;
    struct itimerval often = {{0, 5000}, {0, 5000}}, never = {{0, 0}, {0, 0}};
    struct sbuf b = {0}, in = {0};
    struct ipc_head h;
    struct str fields;
    pthread_t t;
    int s[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    sigaction(SIGALRM, &on, &old);
    assert_int_equal(pthread_create(&t, NULL, other_end, s), 0);
    setitimer(ITIMER_REAL, &often, NULL);
    assert_int_equal(ipc_recv(s[1], &in, &h, &fields, NULL, 0, NULL), 0);
    size_t at = ipc_begin(&b, 1, 0), size = 4U << 20; /* more than the socket holds */
    ipc_put_u32(&b, (uint32_t)size);
    memset(sbuf_room(&b, size), 'x', size);
    sbuf_advance(&b, size);
    ipc_end(&b, at);
    assert_int_equal(ipc_send(s[1], sbuf_str(&b), NULL, 0), 0);
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &old, NULL);
    pthread_join(t, NULL);
    close(s[0]);
    close(s[1]);
    sbuf_free(&b);
    sbuf_free(&in);
}

static void test_utf8(void **state) {
    static const char *const good[] = {
        "", "plain", "k\xc3\xa4se", "\xe2\x82\xac", "\xf0\x9f\x98\x80", NULL};
    static const char *const bad[] = {"\x80",
                                      "\xc3",
                                      "\xc3(",
                                      "\xc0\xaf",
                                      "\xe0\x80\xaf",
                                      "\xed\xa0\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xff",
                                      "a\xe2\x82",
                                      NULL};
    (void)state;
    for (const char *const *v = good; *v != NULL; v++)
        assert_true(str_is_utf8(str_of(*v)));
    for (const char *const *v = bad; *v != NULL; v++)
        assert_false(str_is_utf8(str_of(*v)));
}

/* What a terminal obeys: C0, DEL and C1, as characters or as bytes that are none. */
static void test_controls_are_hidden(void **state) {
    static const char *const rows[][2] = {{"a\x1b[1m\tb\x7f", "a?[1m?b?"},
                                          {"\xc2\x9b"
                                           "2J\xc2\x85",
                                           "??2J??"},
                                          {"\x9b"
                                           "2J \x85",
                                           "?2J ?"},
                                          {"k\xc3\x9f \xe2\x82\x80 \xf0\x9f\x98\x80", NULL},
                                          {"\xc2\xa0\xe9 \xc2", NULL},
                                          {"\xe2\x82\x9b\x9b", "\xe2\x82\x9b?"},
                                          {"\xe2\xc2\x9b", "\xe2??"},
                                          {"", NULL}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sbuf b = {0};
        sbuf_add_ch(&b, '\n');
        sbuf_add_safe(&b, str_of(rows[i][0]));
        assert_string_equal(b.p + 1, rows[i][1] == NULL ? rows[i][0] : rows[i][1]);
        assert_int_equal(b.p[0], '\n');
        sbuf_free(&b);
    }
}

static void test_lower_case(void **state) {
    static const char *const texts[][2] = {
        {"", ""},
        {"MiXed@Case.09-_", "mixed@case.09-_"},
        {"GRÜN@MÜNZE", "grün@münze"},
        {"ΛΌΓΟΣ", "λόγοσ"},
        {"ЖУК.Ł", "жук.ł"},
        {"\U00010400Ａ", "\U00010428ａ"},
        /* what is in lower case, has none, or would be longer or shorter */
        {"straße λόγος 東京 ×÷ ſ", "straße λόγος 東京 ×÷ ſ"},
        {"\u0130\u1e9e\u212a", "\u0130\u1e9e\u212a"},
        /* no UTF-8 */
        {"A\xc3", "a\xc3"},
        {"\x9cÄ\xff\xfe\xc0\x80Z", "\x9cä\xff\xfe\xc0\x80z"}};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char *text = str_dup(str_of(texts[i][0]));
        str_lower(text, strlen(text));
        assert_string_equal(text, texts[i][1]);
        free(text);
    }
}

/* -- the log -- */

static char *log_text(const char *path) {
    struct sbuf b = {0};
    assert_int_equal(fs_read(path, &b, 100U << 20), 0);
    return sbuf_take(&b);
}

static size_t lines_with(const char *text, const char *what) {
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, what)) != NULL; p++)
        n++;
    return n;
}

/* Lines that could not be written are counted, and the next one says how many there were. */
static void test_lost_lines_are_said(void **state) {
    char path[] = "/tmp/posthouse-log-XXXXXX";
    struct log_conf conf = {.name = "t", .file = "/dev/full", .hostname = "h"};
    int fd = mkstemp(path);
    (void)state;
    assert_int_equal(log_open(&conf), 0);
    for (int i = 0; i < 7; i++)
        log_info("unit", "lost %d", i);
    log_replace(open(path, O_WRONLY | O_APPEND));
    log_info("unit", "kept");
    log_info("unit", "kept too");
    char *text = log_text(path);
    assert_int_equal(lines_with(text, "warning: 7 log lines were lost"), 1);
    assert_true(strstr(text, "7 log lines") < strstr(text, "kept"));
    assert_int_equal(lines_with(text, "\n"), 3);
    free(text);
    close(fd);
    unlink(path);
}

struct drain {
    int fd;
    size_t lines;
    unsigned long long said;
    struct sbuf line;
};

static void *drain_main(void *arg) {
    struct drain *d = arg;
    char buf[65536];
    ssize_t n;
    while ((n = read(d->fd, buf, sizeof buf)) > 0)
        for (ssize_t i = 0; i < n; i++) {
            const char *at;
            if (buf[i] != '\n') {
                sbuf_add_ch(&d->line, buf[i]);
                continue;
            }
            if ((at = strstr(d->line.p, "warning: ")) != NULL)
                d->said += strtoull(at + 9, NULL, 10);
            else
                d->lines++;
            sbuf_reset(&d->line);
        }
    return NULL;
}

/* A reader that is away for a while: what does not fit is left out, and nothing is unaccounted for.
 * The lines are more than twice what the log holds: its thread may have taken as much, whenever it
 * began, and is stuck with that. */
static void test_a_slow_log_says_what_it_lost(void **state) {
    enum { LINES = 70000 };
    struct log_conf conf = {.name = "t", .file = "/dev/full", .hostname = "h"};
    struct drain d = {0};
    pthread_t reader;
    int ends[2];
    char *body = mem_zalloc(1001);
    (void)state;
    memset(body, 'b', 1000);
    assert_int_equal(log_open(&conf), 0);
    assert_int_equal(pipe(ends), 0);
    log_replace(ends[1]);
    log_start();
    for (int i = 0; i < LINES; i++)
        log_info("unit", "%s", body);
    d.fd = ends[0];
    pthread_create(&reader, NULL, drain_main, &d);
    log_close();
    log_info("unit", "the last one"); /* also says what is not said yet */
    log_replace(open("/dev/null", O_WRONLY));
    pthread_join(reader, NULL);
    assert_true(d.said > 0);
    assert_int_equal(d.lines + d.said, LINES + 1);
    sbuf_free(&d.line);
    close(ends[0]);
    free(body);
}

static void test_a_line_has_an_end(void **state) {
    char path[] = "/tmp/posthouse-log-XXXXXX";
    struct log_conf conf = {.name = "t", .file = path, .hostname = "h"};
    char *body = mem_zalloc(300001);
    close(mkstemp(path));
    (void)state;
    memset(body, 'b', 300000);
    assert_int_equal(log_open(&conf), 0);
    log_info("unit", "message-id=%s", body);
    char *text = log_text(path);
    assert_true(strlen(text) < 50000 && strcmp(text + strlen(text) - 5, " ...\n") == 0);
    free(text);
    free(body);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split_braces),
        cmocka_unit_test(test_unbrace),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_chosen_keys),
        cmocka_unit_test(test_keyed_hash),
        cmocka_unit_test(test_codecs),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_delays),
        cmocka_unit_test(test_ipc),
        cmocka_unit_test(test_ipc_fds),
        cmocka_unit_test(test_ipc_errors),
        cmocka_unit_test(test_ipc_until),
        cmocka_unit_test(test_ipc_signals),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_controls_are_hidden),
        cmocka_unit_test(test_lower_case),
        cmocka_unit_test(test_lost_lines_are_said),
        cmocka_unit_test(test_a_slow_log_says_what_it_lost),
        cmocka_unit_test(test_a_line_has_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
