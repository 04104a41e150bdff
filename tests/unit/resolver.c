/*
 * tests/unit/resolver.c - deliver/resolver.h against a name server on loopback that says what the
 * test says; libunbound is the real one
 */
#include "unit.h"

#include <dirent.h>
#include <sys/resource.h>
#include <uv.h>

#include "deliver/resolver.h"
#include "util/clock.h"

#define TYPE_A    1
#define TYPE_PTR  12
#define TYPE_MX   15
#define TYPE_AAAA 28

/* Bytes, and a name's bytes with the empty label at its end. */
#define RAW(text)                                                                                  \
    { sizeof(text) - 1, text }
#define NAME(text)                                                                                 \
    { sizeof(text), text }

/* What the name server says; a name and type that are not here do not exist. */
static const struct says {
    const char *name;
    int type;
    int rcode;
    struct {
        size_t n; /* 0: no more */
        const char *bytes;
    } data[5];
} zone[] = {
    {"many.example",
     TYPE_MX,
     0,
     {NAME("\0\x14\1b\7example"), NAME("\0\x0a\1a\7example"), NAME("\0\1\3x y\7example"),
      NAME("\0\1\3x.y\7example"), NAME("\0\1\1-\7example")}},
    {"bad.example", TYPE_MX, 0, {NAME("\0\1\3x y\7example"), NAME("\0\2\2-a\7example")}},
    {"null.example", TYPE_MX, 0, {NAME("\0\0"), NAME("\0\x0a\1a\7example")}},
    {"digits.example", TYPE_MX, 0, {NAME("\0\5\003192\0010\0012\0019")}},
    {"cut.example", TYPE_MX, 0, {RAW("\0\1"), NAME("\0\1\3x y\7example")}},
    {"cut.example", TYPE_A, 0, {RAW("\xc6\x33\x64")}},
    {"cut.example", TYPE_AAAA, 0, {RAW("\x20\1\x0d")}},
    {"half.example", TYPE_MX, 0, {RAW("\0\1"), NAME("\0\2\1a\7example")}},
    {"half.example", TYPE_A, 0, {RAW("\xc6\x33"), RAW("\xc6\x33\x64\6")}},
    {"two.example", TYPE_A, 0, {RAW("\xc6\x33\x64\1")}},
    {"two.example", TYPE_AAAA, 0, {RAW("\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\5")}},
    {"one.example", TYPE_AAAA, 0, {RAW("\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\6")}},
    {"broken.example", TYPE_A, 2, {{0, NULL}}},
    {"broken.example", TYPE_AAAA, 2, {{0, NULL}}},
    {"smart.home.arpa", TYPE_A, 0, {RAW("\xc6\x33\x64\2")}},
    {"mail.onion", TYPE_A, 0, {RAW("\xc6\x33\x64\3")}},
    {"lab.invalid", TYPE_A, 0, {RAW("\xc6\x33\x64\4")}},
    {"4.3.2.1.in-addr.arpa", TYPE_PTR, 0, {NAME("\3two\5names")}},
    {"5.3.2.1.in-addr.arpa", TYPE_PTR, 0, {NAME("\3a b\5names")}},
    {"6.3.2.1.in-addr.arpa", TYPE_PTR, 0, {NAME("\0011\0012\0013\0014")}},
    {"7.3.2.1.in-addr.arpa", TYPE_PTR, 2, {{0, NULL}}},
};

static struct loop *loop;
static uv_udp_t server;
static unsigned port, heard;
static bool deaf; /* it does not answer */

static void put16(struct sbuf *b, unsigned v) {
    sbuf_add_ch(b, (char)(v >> 8));
    sbuf_add_ch(b, (char)v);
}

/* The name at p, with dots; what is behind it. */
static size_t name_at(const char *p, struct sbuf *name) {
    size_t at = 0;
    for (size_t k; (k = (unsigned char)p[at]) != 0; at += k + 1) {
        if (name->n > 0)
            sbuf_add_ch(name, '.');
        sbuf_add(name, p + at + 1, k);
    }
    return at + 1;
}

static const struct says *says_of(struct str name, int type) {
    for (size_t i = 0; i < sizeof zone / sizeof zone[0]; i++)
        if (zone[i].type == type && str_ieq_c(name, zone[i].name))
            return &zone[i];
    return NULL;
}

static void server_answers(const char *question, const struct sockaddr *to) {
    struct sbuf name = {0}, out = {0};
    size_t end = 12 + name_at(question + 12, &name);
    const struct says *s = says_of(sbuf_str(&name), (unsigned char)question[end] << 8 |
                                                        (unsigned char)question[end + 1]);
    unsigned n = 0;
    while (s != NULL && n < 5 && s->data[n].n > 0)
        n++;
    sbuf_add(&out, question, 2);
    put16(&out, 0x8180U | (s == NULL ? 3U : (unsigned)s->rcode));
    put16(&out, 1);
    put16(&out, n);
    put16(&out, 0);
    put16(&out, 0);
    sbuf_add(&out, question + 12, end + 4 - 12);
    for (unsigned i = 0; i < n; i++) {
        put16(&out, 0xc00c);
        put16(&out, (unsigned)s->type);
        put16(&out, 1);
        put16(&out, 0);
        put16(&out, 60);
        put16(&out, (unsigned)s->data[i].n);
        sbuf_add(&out, s->data[i].bytes, s->data[i].n);
    }
    uv_buf_t buf = uv_buf_init(out.p, (unsigned)out.n);
    assert_true(uv_udp_try_send(&server, &buf, 1, to) > 0);
    sbuf_free(&name);
    sbuf_free(&out);
}

static void server_buffer(uv_handle_t *h, size_t n, uv_buf_t *buf) {
    static char bytes[4096];
    (void)h;
    (void)n;
    *buf = uv_buf_init(bytes, sizeof bytes);
}

static void server_hears(uv_udp_t *h, ssize_t n, const uv_buf_t *buf, const struct sockaddr *from,
                         unsigned flags) {
    (void)h;
    (void)flags;
    if (n <= 12 || from == NULL)
        return;
    heard++;
    if (!deaf)
        server_answers(buf->base, from);
}

static void server_start(void) {
    struct netaddr a;
    int len = sizeof a.u;
    netaddr_parse(&a, STR_LIT("127.0.0.1"), 0);
    uv_udp_init(&loop->uv, &server);
    assert_int_equal(uv_udp_bind(&server, &a.u.sa, 0), 0);
    uv_udp_getsockname(&server, &a.u.sa, &len);
    port = netaddr_port(&a);
    uv_udp_recv_start(&server, server_buffer, server_hears);
}

static void write_file(const char *name, const char *text) {
    char path[100];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
}

/* The name server is this test's, and no other is ever asked. */
static struct config *config_of(const char *more) {
    char main[600];
    snprintf(main, sizeof main,
             "myhostname = mta.example\nresolver_servers = 127.0.0.1@%u\n"
             "resolver_hosts_file = %s/hosts\nresolver_file = %s/resolv.conf\n%s",
             port, dir, dir, more);
    write_file("main.cf", main);
    return config_build(cfg_source_new(dir));
}

static struct sbuf got;

static void note_answer(void *arg, const struct resolve_answer *a) {
    static const char *const how[] = {"ok", "none", "failed", "malformed"};
    char ip[INET6_ADDRSTRLEN];
    (void)arg;
    sbuf_reset(&got);
    sbuf_add_c(&got, how[a->rc]);
    for (size_t i = 0; i < a->n_addrs; i++)
        sbuf_printf(&got, " %s", netaddr_text(&a->addrs[i], ip));
    for (size_t i = 0; i < a->n_mx; i++)
        sbuf_printf(&got, " %u:%s", a->mx[i].pref, a->mx[i].name);
    sbuf_printf(&got, "%s%s%s%s", a->name == NULL ? "" : " ", a->name == NULL ? "" : a->name,
                a->null_mx ? " null" : "", a->bad_mx ? " bad" : "");
}

static void expect_answer(struct resolver *r, enum resolve_type type, const char *name,
                          const char *want) {
    sbuf_reset(&got);
    resolver_ask(r, type, name, note_answer, NULL);
    assert_int_equal(got.n, 0); /* never before the call has returned */
    while (got.n == 0)
        uv_run(&loop->uv, UV_RUN_ONCE);
    assert_str(sbuf_str(&got), want);
}

static void expect_name(struct resolver *r, const char *addr, const char *want) {
    struct netaddr a;
    assert_true(netaddr_parse(&a, str_of(addr), 0));
    sbuf_reset(&got);
    resolver_ask_name(r, &a, note_answer, NULL);
    assert_int_equal(got.n, 0);
    while (got.n == 0)
        uv_run(&loop->uv, UV_RUN_ONCE);
    assert_str(sbuf_str(&got), want);
}

static struct resolver *resolver_of(const char *more) {
    struct config *cfg = config_of(more);
    struct resolver *r = resolver_new(loop, cfg);
    config_unref(cfg);
    return r;
}

static void reload(struct resolver *r, const char *more) {
    struct config *cfg = config_of(more);
    resolver_reload(r, cfg);
    config_unref(cfg);
}

static void test_exchangers(void **state) {
    struct resolver *r = resolver_of("");
    (void)state;
    expect_answer(r, RESOLVE_MX, "many.example", "ok 10:a.example 20:b.example bad");
    expect_answer(r, RESOLVE_MX, "bad.example", "malformed bad");
    expect_answer(r, RESOLVE_MX, "null.example", "ok 10:a.example null");
    expect_answer(r, RESOLVE_MX, "digits.example", "ok 5:192.0.2.9");
    expect_answer(r, RESOLVE_MX, "two.example", "none");
}

/* They are a failure for a while, as with Postfix, and beside whole ones they are not counted. */
static void test_records_that_are_cut_off(void **state) {
    struct resolver *both = resolver_of("inet_protocols = all\n"),
                    *v4 = resolver_of("inet_protocols = ipv4\n");
    (void)state;
    expect_answer(v4, RESOLVE_MX, "cut.example", "failed bad");
    expect_answer(v4, RESOLVE_ADDR, "cut.example", "failed");
    expect_answer(both, RESOLVE_ADDR, "cut.example", "failed");
    expect_answer(v4, RESOLVE_MX, "half.example", "ok 2:a.example");
    expect_answer(v4, RESOLVE_ADDR, "half.example", "ok 198.51.100.6");
}

static void test_addresses(void **state) {
    struct resolver *both = resolver_of("inet_protocols = all\n"),
                    *v4 = resolver_of("inet_protocols = ipv4\n"),
                    *v6 = resolver_of("inet_protocols = ipv6\n");
    (void)state;
    expect_answer(v4, RESOLVE_ADDR, "two.example", "ok 198.51.100.1");
    expect_answer(v6, RESOLVE_ADDR, "two.example", "ok 2001:db8::5");
    expect_answer(both, RESOLVE_ADDR, "nowhere.example", "none");
    expect_answer(both, RESOLVE_ADDR, "broken.example", "failed");
    expect_answer(both, RESOLVE_ADDR, "one.example", "ok 2001:db8::6");
    sbuf_reset(&got);
    resolver_ask(both, RESOLVE_ADDR, "TWO.example", note_answer, NULL);
    while (got.n == 0)
        uv_run(&loop->uv, UV_RUN_ONCE);
    assert_non_null(strstr(got.p, " 198.51.100.1")); /* in whichever order they came */
    assert_non_null(strstr(got.p, " 2001:db8::5"));
}

/* What RFC 8375 and its like reserve is what the servers make of it. */
static void test_reserved_names(void **state) {
    struct resolver *r = resolver_of("inet_protocols = ipv4\n");
    (void)state;
    expect_answer(r, RESOLVE_ADDR, "smart.home.arpa", "ok 198.51.100.2");
    expect_answer(r, RESOLVE_ADDR, "mail.onion", "ok 198.51.100.3");
    expect_answer(r, RESOLVE_ADDR, "lab.invalid", "ok 198.51.100.4");
    expect_answer(r, RESOLVE_ADDR, "none.home.arpa", "none");
}

static void test_names_of_addresses(void **state) {
    struct resolver *r = resolver_of("");
    (void)state;
    expect_name(r, "1.2.3.4", "ok two.names");
    expect_name(r, "1.2.3.5", "ok a b.names");
    expect_name(r, "1.2.3.6", "ok 1.2.3.4");
    expect_name(r, "1.2.3.8", "none");
    expect_name(r, "1.2.3.7", "failed");
    write_file("hosts", "1.2.3.4 # nameless\n1.2.3.44 x.hosts\n1.2.3.4 four.hosts other.hosts\n"
                        "2001:db8:0::5 five.hosts\n");
    reload(r, "smtp_host_lookup = dns\n"); /* of mail */
    unsigned before = heard;
    expect_name(r, "1.2.3.4", "ok four.hosts");
    expect_name(r, "2001:db8::5", "ok five.hosts");
    expect_answer(r, RESOLVE_NATIVE, "Other.hosts", "ok 1.2.3.4");
    assert_int_equal(heard, before);
    expect_answer(r, RESOLVE_NATIVE, "one.example", "ok 2001:db8::6");
}

static void test_hosts_file(void **state) {
    (void)state;
    write_file("hosts", "# 198.51.100.9 two.example\n\nno.address two.example\n198.51.100.7\n"
                        "198.51.100.8 other.example\tTwo.Example # two.example\n"
                        "2001:db8::8 two.example\n198.51.100.9 two.example two.example\n");
    struct resolver *r = resolver_of("smtp_host_lookup = native\ninet_protocols = ipv4\n");
    unsigned before = heard;
    expect_answer(r, RESOLVE_ADDR, "two.example", "ok 198.51.100.8 198.51.100.9");
    assert_int_equal(heard, before);
    expect_answer(r, RESOLVE_ADDR, "one.example", "none"); /* it has an IPv6 address alone */
    expect_answer(r, RESOLVE_ADDR, "broken.example", "failed");
    expect_answer(r, RESOLVE_MX, "many.example", "ok 10:a.example 20:b.example bad");
    expect_name(r, "1.2.3.4", "ok two.names");
    write_file("hosts", "198.51.100.8 other.example\n");
    reload(r, "smtp_host_lookup = native\ninet_protocols = all\n"); /* families stay */
    expect_answer(r, RESOLVE_ADDR, "two.example", "ok 198.51.100.1");
    expect_answer(r, RESOLVE_ADDR, "other.example", "ok 198.51.100.8");
}

/* Both, in whichever order they are written: what the DNS has not is looked for in the file. */
static void test_hosts_file_behind_the_dns(void **state) {
    static const char *const both[] = {"smtp_host_lookup = dns, native\n",
                                       "smtp_host_lookup = native, dns\n"};
    (void)state;
    write_file("hosts", "198.51.100.8 two.example nowhere.example broken.example\n");
    struct resolver *r = resolver_of("inet_protocols = ipv4\n");
    for (int i = 0; i < 2; i++) {
        expect_answer(r, RESOLVE_ADDR, "nowhere.example", "none");
        reload(r, both[i]);
        expect_answer(r, RESOLVE_ADDR, "two.example", "ok 198.51.100.1");
        expect_answer(r, RESOLVE_ADDR, "nowhere.example", "ok 198.51.100.8");
        expect_answer(r, RESOLVE_ADDR, "broken.example", "failed");
        expect_answer(r, RESOLVE_MX, "many.example", "ok 10:a.example 20:b.example bad");
        reload(r, "");
    }
}

/* Without a server nothing is asked at all: libunbound alone would ask the root servers. */
static void test_servers(void **state) {
    char text[100];
    unsigned before = heard;
    (void)state;
    write_file("resolv.conf", "search example\nnameserver\noptions edns0\n");
    struct resolver *r = resolver_of("resolver_servers =\n");
    expect_answer(r, RESOLVE_ADDR, "two.example", "failed");
    expect_answer(r, RESOLVE_MX, "many.example", "failed");
    reload(r, "resolver_servers = no.address\n");
    expect_answer(r, RESOLVE_ADDR, "two.example", "failed");
    assert_int_equal(heard, before);
    snprintf(text, sizeof text, "search example\nnameserver 127.0.0.1@%u\n", port);
    write_file("resolv.conf", text);
    reload(r, "resolver_servers =\n");
    expect_answer(r, RESOLVE_MX, "digits.example", "ok 5:192.0.2.9");
    assert_true(heard > before);
    before = heard;
    reload(r, "resolver_servers =\n"); /* the same: what is remembered is kept */
    expect_answer(r, RESOLVE_MX, "digits.example", "ok 5:192.0.2.9");
    assert_int_equal(heard, before);
}

/* At a start and at a reload no descriptor was left for libunbound: it is not given up. */
static void test_no_descriptors_for_a_while(void **state) {
    struct rlimit before, none;
    (void)state;
    getrlimit(RLIMIT_NOFILE, &before);
    none = before;
    none.rlim_cur = 3;
    struct config *cfg = config_of("smtp_host_lookup = dns\n");
    for (int at_reload = 0; at_reload < 2; at_reload++) {
        struct resolver *r = at_reload == 1 ? resolver_of("smtp_host_lookup = native\n") : NULL;
        setrlimit(RLIMIT_NOFILE, &none);
        if (r == NULL)
            r = resolver_new(loop, cfg);
        else
            resolver_reload(r, cfg);
        expect_answer(r, RESOLVE_MX, "digits.example", "failed");
        setrlimit(RLIMIT_NOFILE, &before);
        do { /* a start is not tried all the time */
            sbuf_reset(&got);
            resolver_ask(r, RESOLVE_MX, "digits.example", note_answer, NULL);
            while (got.n == 0)
                uv_run(&loop->uv, UV_RUN_ONCE);
        } while (str_eq_c(sbuf_str(&got), "failed"));
        assert_str(sbuf_str(&got), "ok 5:192.0.2.9");
    }
    config_unref(cfg);
}

static void never_called(void *arg, const struct resolve_answer *a) {
    (void)arg;
    (void)a;
    fail();
}

static size_t count_descriptors(void) {
    size_t n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

/* Questions that get no answer do not wait for each other, nor does any other wait for them. */
static void test_silent_servers(void **state) {
    struct resolver *r = resolver_of("inet_protocols = ipv4\n");
    struct resolver_query *open[100];
    (void)state;
    size_t before = count_descriptors();
    deaf = true;
    for (int i = 0; i < 100; i++) {
        char name[40];
        snprintf(name, sizeof name, "silent%d.example", i);
        open[i] = resolver_ask(r, RESOLVE_ADDR, name, note_answer, NULL);
    }
    int64_t end = clock_mono_ms() + 30000;
    while (count_descriptors() < before + 100) { /* libunbound's thread opens them */
        assert_true(clock_mono_ms() < end);
        uv_run(&loop->uv, UV_RUN_NOWAIT);
    }
    deaf = false;
    for (int i = 0; i < 100; i++)
        resolver_cancel(open[i]);
    expect_answer(r, RESOLVE_ADDR, "two.example", "ok 198.51.100.1");
}

/* Cancelled before the answer, after it is known, and while a reload takes the ways away. */
static void test_cancelled(void **state) {
    struct resolver *r = resolver_of("");
    struct resolver_query *open[3];
    (void)state;
    resolver_cancel(NULL);
    deaf = true;
    for (int i = 0; i < 3; i++)
        open[i] =
            resolver_ask(r, i == 1 ? RESOLVE_MX : RESOLVE_ADDR, "slow.example", never_called, NULL);
    for (unsigned before = heard; heard == before;)
        uv_run(&loop->uv, UV_RUN_ONCE);
    resolver_cancel(open[0]);
    reload(r, "smtp_host_lookup = native\n");
    resolver_cancel(open[1]);
    resolver_cancel(resolver_ask(r, RESOLVE_ADDR, "other.example", never_called, NULL));
    resolver_cancel(open[2]);
    deaf = false;
    for (int i = 0; i < 5; i++)
        uv_run(&loop->uv, UV_RUN_NOWAIT);
    reload(r, "");
    expect_answer(r, RESOLVE_MX, "null.example", "ok 10:a.example null");
}

static int start(void **state) {
    int rc = dir_make(state);
    loop = loop_new(0);
    server_start();
    return rc;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exchangers),
        cmocka_unit_test(test_records_that_are_cut_off),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_reserved_names),
        cmocka_unit_test(test_names_of_addresses),
        cmocka_unit_test(test_hosts_file),
        cmocka_unit_test(test_hosts_file_behind_the_dns),
        cmocka_unit_test(test_servers),
        cmocka_unit_test(test_no_descriptors_for_a_while),
        cmocka_unit_test(test_silent_servers),
        cmocka_unit_test(test_cancelled),
    };
    return cmocka_run_group_tests(tests, start, dir_remove);
}
