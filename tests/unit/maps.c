/*
 * Lookup tables that are text: what each kind of line gives, and what is said of lines that give
 * nothing.
 */
#include "unit.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "maps/cdb_check.h"
#include "maps/maps.h"
#include "maps/tabconf.h"
#include "maps/template.h"
#include "maps/turns.h"
#include "util/codec.h"
#include "util/fs.h"

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
                                  "/^(user)\\+(.*)@(example)\\.com$/  $1@${3}.$(2) $$ $$x\n"
                                  "!/@/  local\n"
                                  "|^sl/ash$|  other delimiter\n"
                                  "/Case/i  exact case\n"
                                  "/a\\/b/  escaped\n"
                                  "/^m$/m  lines\n"
                                  "/^d.t$/s  no newline\n"
                                  "/ b l a n k /x  extended\n"
                                  "/anch/A  anchored\n"
                                  "/end$/E  end\n"
                                  "/^u(.+)(.*)(x)?u$/U  [$1][$2][$3]\n"
                                  "/tab@/i\tby tab\n"
                                  "/half@/  ${0\n"
                                  "/opt(x)?@/  <$1>\n"
                                  "/folded@/  first\n"
                                  "   second\n");
    ask(m, "user+box@example.com", "user@example.box $ $x");
    ask(m, "USER+box@EXAMPLE.com", "USER@EXAMPLE.box $ $x");
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
    ask(m, "tab@", "by tab");
    ask(m, "half@", NULL);
    ask(m, "opt@", "<>");
    ask(m, "optx@", "<x>");
    ask(m, "folded@", "first   second");
    map_close(m);
}

/* The values of the rules, in a row; it ends behind a value "last". */
static int rule_seen(void *arg, struct str key, struct str value) {
    sbuf_printf(arg, "%.*s=%.*s;", STR_FMT(key), STR_FMT(value));
    return str_eq_c(value, "last");
}

/* What is compared with Postfix in compat/test_patterns.py, for POSIX's expressions. */
static void test_regexp_posix(void **state) {
    struct sbuf seen = {0};
    (void)state;
    struct map *m = table("regexp", "/^a(b)?(c)$/ <$1$2>\n"
                                    "/Case/i exact\n"
                                    "/one$/m line\n"
                                    "/b+/x plain\n"
                                    "/z/q unknown flag\n"
                                    "/(/ bad\n"
                                    "/p(.)/ $2\n"
                                    "/q/ $name\n"
                                    "/r/ $0 ${1}\n"
                                    "!/./ $1\n"
                                    "/s(.)/ ${1\n"
                                    "if /blk/ more\n"
                                    "/k1/ one\n"
                                    "endif more\n"
                                    "word\n"
                                    "/empty/\n"
                                    "/t(.)u_/ $(1)$1_\n"
                                    "/u/ last\n"
                                    "/v/ behind\n");
    ask(m, "ac", "<c>");
    ask(m, "abc", "<bc>");
    ask(m, "Case", "exact");
    ask(m, "case", NULL);
    ask(m, "one\ntwo", "line");
    ask(m, "b+", "plain");
    ask(m, "zz", NULL);
    ask(m, "pq", NULL);
    ask(m, "blk1", "one");
    ask(m, "empty", "");
    map_rows(m, rule_seen, &seen);
    assert_non_null(strstr(seen.p, "line 1=<$1$2>;line 2=exact;"));
    assert_non_null(strstr(seen.p, "=last;"));
    assert_null(strstr(seen.p, "behind"));
    sbuf_free(&seen);
    map_close(m);
    m = map_open("pcre:{{/^a(.*)$/ v$1}, {!/b/ none}}", dir);
    ask(m, "ax", "vx");
    ask(m, "b", NULL);
    map_close(m);
    broken("pcre:{/a/ x}", "bad syntax");
    broken("regexp:{{/a/ x} y}", "bad syntax");
    broken("pcre:{{/a/ x}, {", "bad syntax");
    broken("pcre:{", "bad syntax");
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
    ask(m, "none", "");
    map_close(m);
    broken("pcre:/tmp", "Is a directory");
    broken("pcre:/nonexistent/table", "No such file");
    broken("cidr:nonexistent", "No such file");
}

static void test_cidr(void **state) {
    (void)state;
    struct map *m = table("cidr", "192.0.2.0/24  net\n"
                                  "192.0.3.1\thost\n"
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

/* As an editor of another system writes them. */
static void test_lines_that_end_in_cr(void **state) {
    (void)state;
    struct map *m = table("texthash", "one  first\r\ntwo\r\n  second\r\nthree\v\fthird \t\r\n");
    ask(m, "one", "first");
    ask(m, "two", "second");
    ask(m, "three", "third");
    map_close(m);
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
    for (const char *const *v =
             (const char *const[]){"static:x", "static:xy", "static:x{y}", "static:x}", NULL};
         *v != NULL; v++) {
        m = map_open(*v, "/");
        ask(m, "any", *v + 7);
        map_close(m);
    }
    broken("static:", "bad syntax");
    broken("static:{x", "bad syntax");
    broken("static:{x}y}", "bad syntax");
    broken("static:{x} {y}", "bad syntax");
    broken("inline:{a=1} {b=2}", "bad syntax");
    broken("unionmap:{static:x} {static:y}", "bad syntax");
    broken("inline:{}x", "bad syntax");
    broken("inline:x", "bad syntax");
    broken("inline:xy}", "bad syntax");
    broken("inline:{", "bad syntax");
    broken("inline:{word}", "missing '='");
    broken("inline:{=v}", "no key");
    broken("inline:{{}}", "no key");
    broken("inline:{ }", "empty table");
    broken("inline:{ {a b = x} }", "missing '='");
    broken("inline:{ { a, b = x } }", "missing '='");
    broken("inline:{ a = x }", "missing '='");
    broken("inline:{ {a = x}{b = y} }", "after '}'");
    broken("inline:{ {a = x}y }", "after '}'");
    broken("inline:{ {\"a b = x} }", "unbalanced");
    broken("inline:{ {a\\} }", "missing '='");
    broken("pcre:{ {/a/ x}{/b/ y} }", "bad syntax");
    broken("cidr:{ {10.0.0.0/8 x}y }", "bad syntax");
    m = map_open("inline:{ {\"A = b\" = x}, {c\\ d=\ty z }, {e = f = g}, h= }", "/");
    ask(m, "\"a = b\"", "x");
    ask(m, "c\\ d", "y z");
    ask(m, "e", "f = g");
    ask(m, "h", "");
    map_close(m);
    broken("fail:x", "always fails");
    broken("texthash:/nonexistent", "No such file");
    broken("texthash:/tmp", "Is a directory");
    broken("nosuch:x", "nosuch");
}

static void fill(const char *t, const char *key, const char *want) {
    struct sbuf b = {0};
    assert_null(template_check(t));
    bool ok = template_query(t, str_of(key), NULL, NULL, &b);
    assert_int_equal(ok, want != NULL);
    if (ok)
        assert_str(sbuf_str(&b), want);
    sbuf_free(&b);
}

static void double_quotes(void *arg, struct str s, struct sbuf *out) {
    assert_int_equal(*(int *)arg, 7);
    for (size_t i = 0; i < s.n; i++)
        sbuf_printf(out, s.p[i] == '\'' ? "''" : "%c", s.p[i]);
}

/* What a key lacks is not asked for (mysql_table(5)). */
static void test_templates(void **state) {
    struct sbuf b = {0};
    int seven = 7;
    (void)state;
    fill("%s %u %d %% %S %U %D", "u@a.example",
         "u@a.example u a.example % u@a.example u a.example");
    fill("%1.%2.%3", "u@a.b.c", "c.b.a");
    fill("%3", "u@b.c", NULL);
    fill("%1", "u", NULL);
    fill("%1", "u@a..", "a");
    fill("%1", "u@..", NULL);
    fill("%u", "@b.c", NULL);
    fill("%u", "whole", "whole");
    fill("%d", "whole", NULL);
    fill("%D", "u@", NULL);
    fill("%s", "", NULL);
    fill("100%%", "k", "100%");
    assert_non_null(template_check("%"));
    assert_non_null(template_check("%x"));
    assert_non_null(template_check("%%%"));
    assert_true(template_is_dynamic("a%%b%s"));
    assert_false(template_is_dynamic("a%%b"));
    assert_true(template_query("'%s'", STR_LIT("o'n"), double_quotes, &seven, &b));
    assert_str(sbuf_str(&b), "'o''n'");
    sbuf_reset(&b);
    assert_false(template_result("%s", STR_LIT(""), STR_LIT("k"), &b));
    assert_false(template_result("%d", STR_LIT("plain"), STR_LIT("k"), &b));
    assert_true(template_result("%u of %U", STR_LIT("a@b"), STR_LIT("k@x"), &b));
    assert_true(template_result("%s", STR_LIT("c"), STR_LIT("k@x"), &b));
    assert_str(sbuf_str(&b), "a of k,c");
    sbuf_wipe(&b);
    sbuf_wipe(&b);
    char *err;
    struct matchlist *l = matchlist_open("example.com", NULL, MATCH_STRING, 0);
    assert_int_equal(template_key_has(STR_LIT("u@example.com"), l, &err), MATCH_YES);
    assert_int_equal(template_key_has(STR_LIT("u@other"), NULL, &err), MATCH_YES);
    assert_int_equal(template_key_has(STR_LIT("u@other"), l, &err), MATCH_NO);
    assert_int_equal(template_key_has(STR_LIT("@example.com"), l, &err), MATCH_NO);
    assert_int_equal(template_key_has(STR_LIT("u@"), l, &err), MATCH_NO);
    assert_int_equal(template_key_has(STR_LIT("u"), l, &err), MATCH_NO);
    assert_int_equal(template_key_has(STR_LIT("\xff@example.com"), l, &err), MATCH_NO);
    assert_int_equal(template_key_has(str_make("a\0b", 3), NULL, &err), MATCH_NO);
    matchlist_close(l);
}

/* A pattern that takes too many steps has neither matched nor not matched. */
static void test_patterns_without_end(void **state) {
    static const char *const rules[] = {"/^(a+)+$/  x\n/./  y\n", "!/^(a+)+$/  x\n",
                                        "if /^(a+)+$/\n/./  x\nendif\n/./  y\n",
                                        "if !/^(a+)+$/\n/./  x\nendif\n/./  y\n"};
    struct sbuf v = {0};
    (void)state;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        struct map *m = table("pcre", rules[i]);
        assert_int_equal(map_get(m, STR_LIT("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"), &v),
                         MAP_ERROR);
        char *err = map_error(m);
        assert_non_null(strstr(err, "line 1: match limit exceeded"));
        free(err);
        map_close(m);
    }
    assert_int_equal(v.n, 0);
}

static void write_rows(const char *path, const char *rows, time_t mtime) {
    const struct timespec times[2] = {{.tv_sec = mtime}, {.tv_sec = mtime}};
    int fd = open(path, O_WRONLY | O_TRUNC);
    assert_int_equal(write(fd, rows, strlen(rows)), (ssize_t)strlen(rows));
    futimens(fd, times);
    close(fd);
}

static void rows_become(const char *path, const char *rows, time_t mtime) {
    write_rows(path, rows, mtime);
    usleep(250000); /* a table is looked at every 200 ms */
}

/* A table that is written in place is not whole yet while its file is still new. */
static void test_a_text_that_is_being_written(void **state) {
    char path[100];
    const time_t later = time(NULL) + 3600, before = 1000000;
    (void)state;
    struct map *m = table("texthash", "a  one\nb  two\n");
    snprintf(path, sizeof path, "%s/table", dir);
    ask(m, "b", "two");
    rows_become(path, "", later);
    ask(m, "b", "two");
    rows_become(path, "a  three\n", later);
    ask(m, "a", "one");
    ask(m, "b", "two");
    rows_become(path, "a  three\nb  four\n", before);
    ask(m, "a", "three");
    ask(m, "b", "four");
    rows_become(path, "", before);
    ask(m, "b", NULL);
    rows_become(path, "a  five\n", later + 1);
    ask(m, "a", NULL);
    usleep(600000); /* whatever its time says: it was not written meanwhile */
    ask(m, "a", "five");
    unlink(path);
    usleep(250000);
    struct sbuf v = {0};
    assert_int_equal(map_get(m, STR_LIT("a"), &v), MAP_ERROR);
    map_close(m);
}

static void rows_begin(const char *path, const char *rows) {
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
    assert_int_equal(write(fd, rows, strlen(rows)), (ssize_t)strlen(rows));
    close(fd);
}

static void ask_in_vain(struct map *m, const char *key, const char *why) {
    struct sbuf v = {0};
    assert_int_equal(map_get(m, str_of(key), &v), MAP_ERROR);
    char *err = map_error(m);
    assert_non_null(strstr(err, why));
    free(err);
}

/* Nor is one that takes another's place and is written there. */
static void test_a_text_that_takes_anothers_place(void **state) {
    char path[100], fresh[110];
    (void)state;
    struct map *m = table("texthash", "a  one\nb  two\n");
    snprintf(path, sizeof path, "%s/table", dir);
    snprintf(fresh, sizeof fresh, "%s/fresh", dir);
    ask(m, "b", "two");
    rename(path, fresh); /* and stays there, so that the next file is another */
    rows_begin(path, "");
    usleep(250000);
    ask(m, "b", "two");
    chmod(path, 0640); /* before its rows are written */
    usleep(250000);
    ask(m, "b", "two");
    rows_become(path, "a  three\n", 1000000);
    ask(m, "a", "three");
    ask(m, "b", NULL);
    rename(path, fresh);
    rows_begin(path, "# made by a program\n");
    usleep(20000); /* a file's times may be a hundredth of a second apart */
    chmod(path, 0640);
    usleep(250000);
    ask(m, "a", "three");
    unlink(fresh);
    rows_begin(fresh, "a  four\n");
    rename(fresh, path);
    usleep(750000);
    ask(m, "a", "four");
    map_close(m);
}

/* Nor is one that is written where none was: mail waits until it is whole, as it did without. */
static void test_a_text_that_was_away(void **state) {
    char path[100];
    (void)state;
    struct map *m = table("texthash", "a  one\nb  two\n");
    snprintf(path, sizeof path, "%s/table", dir);
    ask(m, "b", "two");
    unlink(path);
    usleep(250000);
    ask_in_vain(m, "b", "No such file");
    rows_begin(path, "");
    ask_in_vain(m, "b", "it is being written");
    rows_become(path, "a  three\n", time(NULL) + 3600);
    ask_in_vain(m, "b", "it is being written");
    rows_become(path, "a  three\nb  four\n", time(NULL) + 3601);
    ask_in_vain(m, "b", "it is being written");
    usleep(750000);
    ask(m, "b", "four");
    map_close(m);
}

/* Nor is one that is being written when a process opens it for the first time. */
static void test_a_text_that_is_new_to_a_process(void **state) {
    char path[100], spec[120];
    const time_t later = time(NULL) + 3600;
    struct stat st;
    struct sbuf v = {0};
    (void)state;
    map_close(table("texthash", "a  one\n"));
    snprintf(path, sizeof path, "%s/table", dir);
    snprintf(spec, sizeof spec, "texthash:%s", path);
    pid_t pid = fork();
    if (pid == 0)
        for (time_t i = 0;; i++) /* without pause, also on a machine that is loaded */
            write_rows(path, "a  two\n", later + i);
    while (stat(path, &st) == 0 && st.st_mtime < later)
        usleep(1000);
    map_wait_for_texts();
    struct map *m = map_open(spec, "/");
    ask_in_vain(m, "b", "it is being written");
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    write_rows(path, "a  two\nb  three\n", later - 1);
    while (map_get(m, STR_LIT("b"), &v) != MAP_FOUND) { /* when the text has settled */
        assert_int_equal(v.n, 0);
        usleep(10000);
    }
    assert_str(sbuf_str(&v), "three");
    sbuf_free(&v);
    map_close(m);
    map_wait_for_texts();
    write_rows(path, "a  four\n", later);
    m = map_open(spec, "/"); /* waits until it has settled */
    ask(m, "a", "four");
    map_close(m);
}

/* A file may be written without that its size or the time of its content changes: by cp -p, or
 * twice in the same tick of the kernel's clock. */
static void test_a_change_that_the_time_does_not_show(void **state) {
    char path[100];
    struct stat st;
    (void)state;
    struct map *m = NULL;
    snprintf(path, sizeof path, "%s/table", dir);
    for (bool within = false; !within;) { /* until both were in one tick */
        map_close(m);
        m = table("texthash", "a  one\n");
        assert_int_equal(stat(path, &st), 0);
        within = !fs_is_unwritten(&st, &m->st); /* it is opened again when the tick is over */
    }
    rows_become(path, "a  two\n", 1000000);
    ask(m, "a", "two");
    usleep(250000);
    ask(m, "a", "two");
    assert_int_equal(stat(path, &st), 0);
    assert_true(fs_is_unwritten(&st, &m->st));
    rows_become(path, "a  six\n", 1000000);
    ask(m, "a", "six");
    map_close(m);
}

/* "domain" of a table: what it cannot be asked for is no domain that it does not have. */
static void test_domains_of_tables(void **state) {
    static const struct {
        const char *list;
        enum match_rc rc; /* for b.example */
    } all[] = {{"a.example, b.example", MATCH_YES},
               {"a.example", MATCH_NO},
               {"fail:x", MATCH_ERROR},
               {"a.example, hash:/nonexistent", MATCH_ERROR},
               {"b.example, fail:x", MATCH_YES},
               {"/nonexistent/list", MATCH_ERROR},
               {"!/nonexistent/list", MATCH_ERROR},
               {"inline:{b.example=x}", MATCH_YES},
               {"{fail}", MATCH_NO}};
    char path[] = "/tmp/unit-list-XXXXXX", list[64], *err;
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct matchlist *l = matchlist_of_table(all[i].list);
        assert_int_equal(template_key_has(STR_LIT("u@b.example"), l, &err), all[i].rc);
        assert_int_equal(err != NULL, all[i].rc == MATCH_ERROR);
        free(err);
        matchlist_close(l);
    }
    int fd = mkstemp(path);
    dprintf(fd, "# b.example\na.example\n  !c.example  d.example\n%s\n",
            path); /* itself, at last */
    close(fd);
    static const char *const domains[] = {"a.example", "c.example", "d.example", "b.example"};
    static const enum match_rc yes[] = {MATCH_YES, MATCH_NO, MATCH_YES, MATCH_ERROR},
                               no[] = {MATCH_NO, MATCH_YES, MATCH_NO, MATCH_ERROR};
    for (size_t i = 0; i < 8; i++) {
        snprintf(list, sizeof list, "%s%s", i < 4 ? "" : "!", path);
        struct matchlist *l = matchlist_of_table(list);
        assert_int_equal(matchlist_has(l, str_of(domains[i % 4]), &err),
                         i < 4 ? yes[i] : no[i % 4]);
        free(err);
        assert_false(matchlist_asks_server(l));
        matchlist_close(l);
    }
    unlink(path);
    struct matchlist *l = matchlist_of_table("a.example, unionmap:{hash:/x, tcp:localhost:1}");
    assert_true(matchlist_asks_server(l));
    matchlist_close(l);
    l = matchlist_of_table("a.example, fail:x");
    assert_null(matchlist_unopened(l));
    matchlist_close(l);
    l = matchlist_of_table("a.example, hash:/nonexistent");
    assert_non_null(strstr(matchlist_unopened(l), "open database /nonexistent.db: No such"));
    matchlist_close(l);
    l = matchlist_of_table("a.example, /nonexistent");
    assert_string_equal(matchlist_unopened(l), "open file /nonexistent: No such file or directory");
    matchlist_close(l);
}

static void test_table_files(void **state) {
    const char *bad = NULL;
    char *why;
    (void)state;
    struct tabconf *c = tabconf_parse(
        STR_LIT("  orphan\n# comment\nname = first\nno sign\n"
                "password = pa$$word#1 = \"x\"\nname = last\n"
                "long = a\n  b\nn = 12\nyes = YES\nno=no\nbig = 99999999999\nempty ="));
    assert_string_equal(tabconf_str(c, "name", "-"), "last");
    assert_string_equal(tabconf_str(c, "password", "-"), "pa$$word#1 = \"x\"");
    assert_string_equal(tabconf_str(c, "long", "-"), "a b");
    assert_string_equal(tabconf_str(c, "empty", "-"), "");
    assert_string_equal(tabconf_str(c, "none", "-"), "-");
    assert_int_equal(tabconf_int(c, "n", 5, &bad), 12);
    assert_int_equal(tabconf_int(c, "none", 5, &bad), 5);
    assert_true(tabconf_bool(c, "yes", false, &bad));
    assert_false(tabconf_bool(c, "no", true, &bad));
    assert_true(tabconf_bool(c, "none", true, &bad));
    assert_null(bad);
    assert_int_equal(tabconf_int(c, "name", 5, &bad), 5);
    assert_string_equal(bad, "name");
    assert_int_equal(tabconf_int(c, "big", 5, &bad), 5);
    assert_false(tabconf_bool(c, "n", false, &bad));
    assert_string_equal(bad, "n");
    tabconf_free(c);
    tabconf_free(NULL);
    assert_null(tabconf_read("/nonexistent/x.cf", &why));
    assert_string_equal(why, "open /nonexistent/x.cf: No such file or directory");
    free(why);
    c = tabconf_read("/dev/null", &why);
    assert_non_null(c);
    tabconf_free(c);
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
    memset(sbuf_room(&out, (1U << 20) + 4), 'A', (1U << 20) + 4);
    assert_false(base64_decode(&out, str_make(out.p, (1U << 20) + 4)));
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

/* A question: it says that it has begun, and ends when it is let go. */
struct slow {
    struct task task;
    atomic_int *begun;
    pthread_mutex_t *gate; /* held until then */
};

static void slow_run(struct task *t) {
    struct slow *s = DL_OWNER(t, struct slow, task);
    atomic_fetch_add(s->begun, 1);
    pthread_mutex_lock(s->gate);
    pthread_mutex_unlock(s->gate);
    atomic_fetch_sub(s->begun, 1);
}

static void begun_is(const atomic_int *begun, int want) {
    for (int i = 0; i < 10000 && atomic_load(begun) != want; i++)
        usleep(1000);
    assert_int_equal(atomic_load(begun), want);
}

/* Whatever waits for other tables, each has places of its own; and what waited is done in the end.
 */
static void test_turns(void **state) {
    static struct slow slow[3][200];
    static atomic_int begun[3];
    static pthread_mutex_t gates[3] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER,
                                       PTHREAD_MUTEX_INITIALIZER};
    static const char *const names[3] = {"mysql:/a", "mysql:/b", ""};
    struct turns *t = turns_new();
    (void)state;
    for (size_t n = 0; n < 3; n++) {
        pthread_mutex_lock(&gates[n]);
        for (size_t i = 0; i < 200; i++) {
            slow[n][i] = (struct slow){{NULL, slow_run}, &begun[n], &gates[n]};
            assert_true(turns_push(t, str_of(names[n]), &slow[n][i].task));
        }
        begun_is(&begun[n], n == 0 ? TURNS_OWN + TURNS_SHARED : TURNS_OWN);
    }
    pthread_mutex_unlock(&gates[1]); /* it has its own places alone: they are enough */
    begun_is(&begun[1], 0);
    pthread_mutex_unlock(&gates[0]);
    begun_is(&begun[2], TURNS_OWN + TURNS_SHARED);
    begun_is(&begun[0], 0);
    pthread_mutex_unlock(&gates[2]);
    begun_is(&begun[2], 0);
}

static void file_write(const char *path, const char *p, size_t n) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

static uint32_t number_at(const char *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v); /* the lowest byte first, as the tests' machines have it */
    return v;
}

/* A slot that is lost, or a table of them: the file does not answer "not found" for its keys, it is
 * refused. */
static void test_cdb_slots(void **state) {
    char path[100], keys[40][16];
    struct map_pair pairs[40];
    struct sbuf made = {0};
    const char *why;
    size_t lost = 0;
    (void)state;
    snprintf(path, sizeof path, "%s/slots.cdb", dir);
    for (size_t i = 0; i < 40; i++) {
        snprintf(keys[i], sizeof keys[i], "key%zu.example", i);
        pairs[i] = (struct map_pair){str_of(keys[i]), STR_LIT("value")};
    }
    assert_int_equal(map_cdb.build(path, pairs, 40, 0600, MAP_NUL_NO, &why), 0);
    assert_null(cdb_check(path));
    assert_int_equal(fs_read(path, &made, 1U << 20), 0);
    for (size_t head = 0; head < 2048; head += 8) {
        uint32_t at = number_at(made.p + head), slots = number_at(made.p + head + 4);
        char was[8];
        for (uint32_t i = 0; i <= slots; i++) { /* each slot, then the number of them */
            char *gone = i < slots ? made.p + at + i * 8 : made.p + head + 4;
            memcpy(was, gone, 8);
            memset(gone, 0, i < slots ? 8 : 4);
            file_write(path, made.p, made.n);
            bool used = i < slots ? number_at(was + 4) != 0 : slots > 0;
            assert_int_equal(cdb_check(path) != NULL, used);
            lost += used;
            memcpy(gone, was, 8);
        }
    }
    assert_true(lost > 40);
    sbuf_free(&made);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, dir_make, dir_remove)
    const struct CMUnitTest tests[] = {
        T(test_regexp), T(test_regexp_posix), T(test_regexp_blocks), T(test_bad_rules),
        T(test_cidr), T(test_memory_tables), T(test_templates), T(test_patterns_without_end),
        T(test_a_text_that_is_being_written), T(test_a_change_that_the_time_does_not_show),
        T(test_a_text_that_takes_anothers_place), T(test_a_text_that_was_away),
        T(test_domains_of_tables), T(test_table_files), T(test_crc), T(test_base64), T(test_turns),
        T(test_cdb_slots), T(test_lines_that_end_in_cr),
        /* the last one: from then on texts are waited for */
        T(test_a_text_that_is_new_to_a_process)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
