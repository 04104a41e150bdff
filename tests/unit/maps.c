/*
 * Lookup tables that are text: what each kind of line gives, and what is said of lines that give
 * nothing.
 */
#include "unit.h"

#include "maps/map.h"
#include "util/codec.h"

static struct map *table(const char *type, const char *text) {
    char path[100], spec[120];
    snprintf(path, sizeof path, "%s/table", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    snprintf(spec, sizeof spec, "%s:%s", type, path);
    return map_open(spec, "/");
}

/* Asks; want: the value, or NULL for not found. */
static void ask(struct map *m, const char *key, const char *want) {
    struct sbuf v = {0};
    assert_int_equal(map_get(m, str_of(key), &v), want == NULL ? MAP_NOT_FOUND : MAP_FOUND);
    if (want != NULL)
        assert_str(sbuf_str(&v), want);
    sbuf_free(&v);
}

static void broken(const char *spec, const char *why) {
    struct map *m = map_open(spec, dir);
    struct sbuf v = {0};
    assert_int_equal(map_get(m, STR_LIT("k"), &v), MAP_ERROR);
    char *err = map_error(m);
    assert_non_null(strstr(err, why));
    free(err);
    sbuf_free(&v);
    map_close(m);
}

static void test_regexp(void **state) {
    (void)state;
    struct map *m = table("pcre", "# comment\n"
                                  "/^(user)\\+(.*)@(example)\\.com$/  $1@${3}.$(2) $$ $x $\n"
                                  "!/@/  local\n"
                                  "|^sl/ash$|  other delimiter\n"
                                  "/Case/i  exact case\n"
                                  "/a\\/b/  escaped\n"
                                  "/^m$/m  lines\n"
                                  "/^d.t$/s  no newline\n"
                                  "/ b l a n k /x  extended\n"
                                  "/anch/A  anchored\n"
                                  "/end$/E  end\n"
                                  "/^u(.+)(.*)u$/U  [$1][$2][$9]\n"
                                  "/opt(x)?@/  <$1>\n"
                                  "/folded@/  first\n"
                                  "   second\n");
    ask(m, "user+box@example.com", "user@example.box $ $x $");
    ask(m, "USER+box@EXAMPLE.com", "USER@EXAMPLE.box $ $x $");
    ask(m, "nothing", "local");
    ask(m, "@Case", "exact case");
    ask(m, "@case", NULL);
    ask(m, "@a/b", "escaped");
    ask(m, "@\nm\n", "lines");
    ask(m, "@blank", "extended");
    ask(m, "anch@", "anchored");
    ask(m, "@anch", NULL);
    ask(m, "@end", "end");
    ask(m, "u@abcu", "[@][abc][]");
    ask(m, "opt@", "<>");
    ask(m, "optx@", "<x>");
    ask(m, "folded@", "first   second");
    map_close(m);
}

static void test_regexp_blocks(void **state) {
    (void)state;
    struct map *m = table("regexp", "if /@a\\./\n"
                                    "if !/^x/\n"
                                    "/one/  1\n"
                                    "endif\n"
                                    "/two/  2\n"
                                    "endif\n"
                                    "if/three/\n"
                                    "/@/ 3\n"
                                    "ENDIF\n"
                                    "if!/three/\n"
                                    "/four/ 4\n"
                                    "endif\n"
                                    "if /open/\n"
                                    "/open/ 5\n");
    ask(m, "one@a.example", "1");
    ask(m, "xone@a.example", NULL);
    ask(m, "two@a.example", "2");
    ask(m, "one@b.example", NULL);
    ask(m, "three@b.example", "3");
    ask(m, "four@b.example", "4");
    ask(m, "open", "5");
    map_close(m);
}

/* Lines that mean nothing are skipped; the others count. */
static void test_bad_rules(void **state) {
    (void)state;
    struct map *m = table("pcre", "  leading blank\n"
                                  "word  value\n"
                                  "/\n"
                                  "/open\n"
                                  "/x\\\n"
                                  "/x/q  unknown flag\n"
                                  "/(/  bad\n"
                                  "/none/\n"
                                  "!\n"
                                  "1x1  digit\n"
                                  "/good/  value\n");
    ask(m, "good", "value");
    ask(m, "x", NULL);
    ask(m, "none", NULL);
    map_close(m);
    broken("pcre:/nonexistent/table", "No such file");
    broken("cidr:nonexistent", "No such file");
}

static void test_cidr(void **state) {
    (void)state;
    struct map *m = table("cidr", "192.0.2.0/24  net\n"
                                  "192.0.3.1  host\n"
                                  "192.0.4.1/24  host bits\n"
                                  "300.1.1.1  no address\n"
                                  "10.0.0.0/33  too long\n"
                                  "if !10.0.0.0/8\n"
                                  "198.51.100.0/24  outside\n"
                                  "endif\n"
                                  "if 10.0.0.0/8\n"
                                  "!10.1.0.0/16  not one\n"
                                  "endif\n"
                                  "2001:db8::/32  six\n"
                                  "! 172.16.0.0/12  elsewhere\n"
                                  "!\n"
                                  "172.16.0.1\n");
    ask(m, "192.0.2.77", "net");
    ask(m, "192.0.3.1", "host");
    ask(m, "198.51.100.9", "outside");
    ask(m, "10.2.0.1", "not one");
    ask(m, "10.1.0.1", "elsewhere");
    ask(m, "172.16.0.1", NULL);
    ask(m, "2001:db8::1", "six");
    ask(m, "2001:db9::1", NULL);
    ask(m, "name.example", NULL);
    map_close(m);
}

static int count(void *arg, struct str key, struct str value) {
    int *n = arg;
    assert_true(key.n > 0 && value.n > 0);
    return ++*n == 2;
}

static void test_memory_tables(void **state) {
    int n = 0;
    (void)state;
    struct map *m = table("texthash", "User@Example.com  [relay]:587\n"
                                      "user@example.com  again\n"
                                      "lonely\n"
                                      "  \n"
                                      "two  a\n  b\n"
                                      "three  c");
    ask(m, "user@example.com", "[relay]:587");
    ask(m, "USER@example.com", "[relay]:587");
    ask(m, "two", "a  b");
    ask(m, "lonely", NULL);
    assert_int_equal(map_each(m, count, &n), 0);
    assert_int_equal(n, 2); /* told to stop there */
    map_close(m);
    m = map_open("inline:{ A=1, { b = two words }, {c=3} }", "/");
    ask(m, "a", "1");
    ask(m, "b", "two words");
    ask(m, "c", "3");
    ask(m, "d", NULL);
    n = 1;
    assert_int_equal(map_each(m, count, &n), 0);
    n = 5;
    assert_int_equal(map_each(m, count, &n), 0);
    assert_int_equal(n, 8); /* all of them */
    map_close(m);
    m = map_open("static:{ all of it }", "/");
    ask(m, "any", "all of it");
    map_close(m);
    for (const char *const *v = (const char *const[]){"static:x", "static:{x", "static:", NULL};
         *v != NULL; v++) {
        m = map_open(*v, "/");
        ask(m, "any", *v + 7);
        map_close(m);
    }
    broken("inline:{}x", "bad syntax");
    broken("inline:x", "bad syntax");
    broken("inline:{", "bad syntax");
    broken("inline:{word}", "bad syntax");
    broken("inline:{=v}", "bad syntax");
    broken("inline:{{}}", "bad syntax");
    broken("fail:x", "always fails");
    broken("texthash:/nonexistent", "No such file");
    broken("nosuch:x", "nosuch");
}

/* Both ways to the same sum. */
static void test_crc(void **state) {
    uint8_t data[300];
    (void)state;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7);
    for (size_t n = 0; n < sizeof data; n += 13)
        assert_int_equal(crc32c(5, data, n), crc32c_soft(5, data, n));
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
}

static void test_base64(void **state) {
    static const char *const bad[] = {"a",    "ab",    "abc",  "ab=c", "a===",  "====", " abc",
                                      "ab c", "ab\nc", "ab!c", "=abc", "abcd=", NULL};
    struct sbuf out = {0};
    (void)state;
    for (const char *const *v = bad; *v != NULL; v++)
        assert_false(base64_decode(&out, str_of(*v)));
    sbuf_reset(&out);
    assert_true(base64_decode(&out, STR_LIT("")));
    assert_int_equal(out.n, 0);
    assert_true(base64_decode(&out, STR_LIT("AHUAcA==")));
    assert_memory_equal(out.p, "\0u\0p", 4);
    sbuf_reset(&out);
    assert_true(base64_decode(&out, STR_LIT("dXNlcjE=")));
    assert_str(sbuf_str(&out), "user1");
    sbuf_free(&out);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, dir_make, dir_remove)
    const struct CMUnitTest tests[] = {T(test_regexp), T(test_regexp_blocks), T(test_bad_rules),
                                       T(test_cidr),   T(test_memory_tables), T(test_crc),
                                       T(test_base64)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
