/* smtp: content on the wire, replies, mechanisms. */
#include "unit.h"

#include <time.h>

#include "smtp/command.h"
#include "smtp/content.h"
#include "smtp/reply.h"
#include "smtp/sasl.h"
#include "smtp/withhold.h"
#include "util/codec.h"

/* Decodes DATA that arrives in pieces of the given size; returns whether the end was seen. */
static bool decode(const char *wire, size_t n, size_t piece, struct sbuf *out, size_t *left) {
    struct content_in in = {0};
    struct sbuf held = {0};
    bool end = false;
    size_t at = 0;
    while (at < n && !end) {
        size_t k = n - at < piece ? n - at : piece, used;
        sbuf_add(&held, wire + at, k);
        at += k;
        end = content_data(&in, sbuf_str(&held), out, &used);
        sbuf_drop(&held, used);
    }
    *left = held.n + (n - at);
    sbuf_free(&held);
    return end;
}

static void test_data(void **state) {
    static const struct {
        const char *wire, *content;
        size_t left; /* bytes after the end */
    } cases[] = {
        {"a\r\n.\r\n", "a\r\n", 0},
        {".\r\n", "", 0},
        {"..\r\n.x\r\n.\r\nQUIT\r\n", ".\r\nx\r\n", 6},
        {"a\nb\n.\r\nc\r\n.\r\n", "a\r\nb\r\n.\r\nc\r\n", 0},   /* LF . CRLF is content */
        {"a\r\n.\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", 0},           /* CRLF . LF is content */
        {"a\rb\r\r\n.\r\n", "a b\r\n", 0},                      /* stray CR becomes a blank */
        {"a\r\r\n\r\r\r\nb\r\r\r\n.\r\n", "a\r\n\r\nb\r\n", 0}, /* but not before the line's end */
        {"a\r\r\rb\r\n.\r\r\n..\r\r\n.\r\n", "a   b\r\n\r\n.\r\n", 0},
        {"\r.\r\n\r\n.\r\n", " .\r\n\r\n", 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t piece = 1; piece < 20; piece++) {
            struct sbuf out = {0};
            size_t left;
            assert_true(decode(cases[i].wire, strlen(cases[i].wire), piece, &out, &left));
            assert_str(sbuf_str(&out), cases[i].content);
            if (piece > 1)
                assert_true(left >= cases[i].left);
            sbuf_free(&out);
        }
}

/* CRs without end are content soon, and not only when the line's end shows what they are. */
static void test_many_crs(void **state) {
    static char wire[100000];
    (void)state;
    memset(wire, '\r', sizeof wire);
    for (int bdat = 0; bdat < 2; bdat++) {
        struct content_in in = {0};
        struct sbuf out = {0};
        size_t used = 0;
        for (size_t at = 0; at < sizeof wire; at += bdat ? 1000 : used) {
            struct str piece =
                str_make(wire + at, at + 1000 < sizeof wire ? 1000 : sizeof wire - at);
            if (bdat)
                content_bdat(&in, piece, &out);
            else
                assert_false(content_data(&in, piece, &out, &used));
            if (!bdat && used == 0)
                break; /* the last one is left for what follows it */
            assert_true(in.crs + out.n + 1001 > at && in.crs <= CONTENT_CRS_MAX);
        }
        if (bdat)
            content_bdat(&in, STR_LIT("\n"), &out);
        else
            assert_false(content_data(&in, STR_LIT("\r\n"), &out, &used));
        assert_true(out.n > sizeof wire - CONTENT_CRS_MAX && out.n <= sizeof wire + 2);
        assert_memory_equal(out.p + out.n - 3, " \r\n", 3);
        assert_true(in.has_long && !in.has_bare);
        sbuf_free(&out);
    }
}

/* Lines longer than the decoder waits for, cut at every place near a CR. */
static void test_long_lines(void **state) {
    size_t n = 30000;
    char *wire = malloc(n + 8);
    (void)state;
    memset(wire, 'x', n);
    wire[0] = wire[1] = '.';
    memcpy(wire + n, "\r\n.\r\n", 6);
    for (size_t piece = 8190; piece < 8200; piece++) {
        struct sbuf out = {0};
        size_t left;
        assert_true(decode(wire, n + 5, piece, &out, &left));
        assert_int_equal(out.n, n - 1 + 2);
        assert_true(out.p[0] == '.' && out.p[1] == 'x' &&
                    memchr(out.p, '\r', out.n) == out.p + n - 1);
        sbuf_free(&out);
    }
    free(wire);
}

/* A look at decoded content says what the decoder says, wherever the content is cut. */
static void test_look(void **state) {
    struct sbuf text = {0};
    (void)state;
    for (size_t n = 996; n <= 1000; n++) {
        sbuf_reset(&text);
        memset(sbuf_room(&text, n), 'x', n);
        sbuf_advance(&text, n);
        sbuf_add_c(&text, "\r\nshort\r\n");
        for (size_t cut = 0; cut <= text.n; cut++) {
            struct content_in in = {0};
            content_look(&in, str_make(text.p, cut));
            content_look(&in, str_from(sbuf_str(&text), cut));
            assert_int_equal(in.has_long, n > 998);
            assert_false(in.has_8bit);
        }
    }
    struct content_in in = {0};
    content_look(&in, STR_LIT("gr\xc3\xbcn\r\n"));
    assert_true(in.has_8bit && !in.has_long);
    sbuf_free(&text);
}

static void test_bdat(void **state) {
    static const char *wire = "a\r\nb\nc\rd\r\n.\r\ne";
    (void)state;
    for (size_t cut = 0; cut <= strlen(wire); cut++) {
        struct content_in in = {0};
        struct sbuf out = {0};
        content_bdat(&in, str_make(wire, cut), &out);
        content_bdat(&in, str_of(wire + cut), &out);
        content_bdat_end(&in, &out);
        assert_str(sbuf_str(&out), "a\r\nb\r\nc d\r\n.\r\ne\r\n");
        assert_true(in.has_dots);
        sbuf_free(&out);
    }
}

/* What is stuffed and decoded again is the same, however it is cut; long lines are folded. */
static void test_stuff(void **state) {
    static const char *text = ".\r\n..\r\nx.\r\n\r\n.y\r\n";
    (void)state;
    for (size_t cut = 0; cut <= strlen(text); cut++) {
        struct content_out o = {0};
        struct sbuf wire = {0}, back = {0};
        size_t left;
        content_stuff(&o, str_make(text, cut), 998, &wire);
        content_stuff(&o, str_of(text + cut), 998, &wire);
        sbuf_add_c(&wire, ".\r\n");
        assert_true(decode(wire.p, wire.n, 1000, &back, &left));
        assert_str(sbuf_str(&back), text);
        sbuf_free(&wire);
        sbuf_free(&back);
    }
    struct content_out o = {0};
    struct sbuf out = {0};
    content_fold(&o, str_of("0123456789abc\r\nshort\r\n"), 10, &out);
    assert_str(sbuf_str(&out), "0123456789\r\n abc\r\nshort\r\n");
    sbuf_reset(&out);
    o = (struct content_out){0};
    content_fold(&o, str_of("12345678\xc3\xa4\xc3\xa4\r\n"), 9, &out); /* not inside a character */
    assert_str(sbuf_str(&out), "12345678\r\n \xc3\xa4\xc3\xa4\r\n");
    sbuf_free(&out);
}

static enum reply_rc feed(struct smtp_reply *r, const char *text) {
    size_t used;
    smtp_reply_reset(r);
    return smtp_reply_feed(r, str_of(text), &used);
}

/* Whatever the limit, the text comes out whole, and no line is longer unless it cannot be shorter.
 */
static void test_narrow_lines(void **state) {
    (void)state;
    for (size_t max = 1; max < 12; max++) {
        struct content_out out = {0};
        struct sbuf b = {0}, back = {0};
        content_fold(&out, str_of("abcdefghij"), max, &b);
        content_fold(&out, str_of("klm\r\n\r\nno\r\n"), max, &b);
        struct str rest = sbuf_str(&b), line;
        while (str_split(&rest, "\r\n", &line)) {
            assert_true(line.n <= (max < 2 ? 2 : max));
            sbuf_add_str(&back, line.p[0] == ' ' ? str_from(line, 1) : line);
        }
        assert_str(sbuf_str(&back), "abcdefghijklmno");
        sbuf_free(&b);
        sbuf_free(&back);
    }
}

/* What is shown of a reply does not grow with it; what it means is in its last line all the same.
 */
static void test_long_replies(void **state) {
    struct smtp_reply r = {0};
    struct sbuf said = {0}, line = {0};
    size_t used;
    (void)state;
    for (int i = 0; i < 200; i++)
        sbuf_printf(&said, "451-4.3.%d %0100d\r\n", i % 10, i);
    sbuf_add_c(&said, "552 5.3.4 too long\r\n");
    assert_int_equal(smtp_reply_feed(&r, sbuf_str(&said), &used), REPLY_DONE);
    assert_int_equal(used, said.n);
    assert_int_equal(r.code, 552);
    assert_str(smtp_reply_last(&r), "5.3.4 too long");
    smtp_reply_line(&r, &line);
    assert_int_equal(line.n, 2048);
    assert_memory_equal(line.p, said.p, 100);
    smtp_reply_free(&r);
    sbuf_free(&said);
    sbuf_free(&line);
}

static void test_replies(void **state) {
    struct smtp_reply r = {0};
    struct sbuf line = {0};
    size_t used;
    (void)state;
    assert_int_equal(feed(&r, "250-a\r\n250 b\r\n"), REPLY_DONE);
    assert_int_equal(r.code, 250);
    assert_str(sbuf_str(&r.text), "a\nb");
    smtp_reply_line(&r, &line);
    assert_str(sbuf_str(&line), "250-a 250 b");
    assert_int_equal(feed(&r, "250\r\n"), REPLY_DONE);
    assert_int_equal(feed(&r, "250-a\r\n"), REPLY_MORE);
    assert_int_equal(feed(&r, "250-5.1.0 a\r\n550 5.2.0 b\r\n"), REPLY_DONE); /* the last counts */
    assert_int_equal(r.code, 550);
    assert_str(smtp_reply_last(&r), "5.2.0 b");
    sbuf_reset(&line);
    smtp_reply_line(&r, &line);
    assert_str(sbuf_str(&line), "250-5.1.0 a 550 5.2.0 b");
    smtp_reply_withhold(&r, "5.2.0 secret");
    assert_str(smtp_reply_last(&r), "5.2.0 secret");
    sbuf_reset(&line);
    smtp_reply_line(&r, &line);
    assert_str(sbuf_str(&line), "550 5.2.0 secret");
    assert_int_equal(feed(&r, "450 caf\xe9 \xc3\xa9 \xed\xa0\x80 \xf0\x9f\x92\r\n"), REPLY_DONE);
    sbuf_reset(&line);
    smtp_reply_line(&r, &line);
    assert_str(sbuf_str(&line), "450 caf? \xc3\xa9 ??? ???");
    assert_int_equal(feed(&r, "250\r\r\n"), REPLY_DONE);
    assert_int_equal(feed(&r, "250\tfine\r\r\r\n"), REPLY_DONE);
    assert_str(smtp_reply_last(&r), "fine");
    assert_int_equal(feed(&r, "550-5.1.1 a\r\n550  5.2.0 b\r\n"), REPLY_DONE);
    assert_str(smtp_reply_last(&r), "5.2.0 b");
    assert_int_equal(feed(&r, "hello\r\n"), REPLY_BAD);
    assert_int_equal(feed(&r, "999 x\r\n"), REPLY_BAD);
    assert_int_equal(feed(&r, "250_x\r\n"), REPLY_BAD);
    assert_int_equal(feed(&r, "25\r\n"), REPLY_BAD);
    assert_int_equal(feed(&r, "2 0 x\r\n"), REPLY_BAD);
    assert_int_equal(feed(&r, "100 x\r\n"), REPLY_BAD);
    assert_int_equal(feed(&r, "\n"), REPLY_BAD);
    assert_int_equal(feed(&r, "250 a\rb\n"), REPLY_DONE);
    sbuf_reset(&line);
    smtp_reply_line(&r, &line);
    assert_str(sbuf_str(&line), "250 a b");
    struct sbuf big = {0}; /* endless replies are cut off */
    for (int i = 0; i < 1000; i++)
        sbuf_add_c(&big, "250-more\r\n");
    smtp_reply_reset(&r);
    assert_int_equal(smtp_reply_feed(&r, sbuf_str(&big), &used), REPLY_BAD);
    sbuf_reset(&big);
    for (int i = 0; i < 10000; i++)
        sbuf_add_ch(&big, 'x');
    smtp_reply_reset(&r);
    assert_int_equal(smtp_reply_feed(&r, sbuf_str(&big), &used), REPLY_BAD);
    sbuf_add_c(&big, "\r\n");
    memcpy(big.p, "250 ", 4);
    smtp_reply_reset(&r);
    assert_int_equal(smtp_reply_feed(&r, sbuf_str(&big), &used), REPLY_BAD);
    sbuf_reset(&big); /* … and many lines that are long */
    for (int i = 0; i < 100; i++) {
        sbuf_add_c(&big, "250-");
        for (int k = 0; k < 1900; k++)
            sbuf_add_ch(&big, 'x');
        sbuf_add_c(&big, "\r\n");
    }
    smtp_reply_reset(&r);
    assert_int_equal(smtp_reply_feed(&r, sbuf_str(&big), &used), REPLY_BAD);
    sbuf_free(&big);
    sbuf_free(&line);
    smtp_reply_free(&r);
}

static void test_commands(void **state) {
    struct str args, key, value;
    (void)state;
    assert_int_equal(smtp_verb_parse(str_of("mail FROM:<a>"), &args), VERB_MAIL);
    assert_str(args, "FROM:<a>");
    assert_string_equal(smtp_verb_name(VERB_MAIL, false), "mail");
    assert_string_equal(smtp_verb_name(VERB_MAIL, true), "MAIL");
    assert_int_equal(smtp_verb_parse(str_of("mailx"), &args), VERB_UNKNOWN);
    assert_int_equal(smtp_verb_parse(str_of(""), &args), VERB_UNKNOWN);
    args = str_of(" SIZE=10 SMTPUTF8");
    assert_true(smtp_param_next(&args, &key, &value));
    assert_str(key, "SIZE");
    assert_str(value, "10");
    assert_true(smtp_param_next(&args, &key, &value));
    assert_str(value, "");
    assert_false(smtp_param_next(&args, &key, &value));
}

static void test_mechanisms(void **state) {
    struct sbuf out = {0};
    unsigned flags;
    struct str bad;
    (void)state;
    sasl_filter(str_of("PLAIN LOGIN CRAM-MD5"), str_of("!plain, static:rest"), &out);
    assert_str(sbuf_str(&out), "LOGIN CRAM-MD5");
    sbuf_reset(&out);
    sasl_filter(str_of("PLAIN=CRAM-MD5,LOGIN"), str_of("login"), &out);
    assert_str(sbuf_str(&out), "LOGIN");
    assert_true(sasl_options_parse(str_of("noplaintext, noanonymous"), &flags, &bad));
    assert_null(sasl_choose(str_of("PLAIN LOGIN"), flags));
    assert_string_equal(sasl_choose(str_of("PLAIN CRAM-MD5"), flags), "CRAM-MD5");
    assert_true(sasl_options_parse(str_of(""), &flags, &bad));
    assert_string_equal(sasl_choose(str_of("LOGIN plain"), flags), "PLAIN");
    assert_false(sasl_options_parse(str_of("noanonymous x"), &flags, &bad));
    sbuf_free(&out);
}

static bool repeats(const struct withhold *w, const char *text) {
    return withhold_matches(w, str_of(text));
}

/* Every place where 20 bytes of a password can stand inside base64 is known, and no other text. */
static void test_login_is_recognised(void **state) {
    static const char password[] = "Tr0ub4dor&3-staple%q";
    struct withhold w = {0};
    (void)state;
    assert_false(repeats(&w, "anything"));
    withhold_add_password(&w, str_of(password));
    assert_true(repeats(&w, "bad password: tr0ub4DOR&3-STAPLE%Q"));
    assert_true(repeats(&w, "begins with Tr0ub4do"));
    assert_true(repeats(&w, "in two lines: Tr0ub4\n5.7.8 dor&3-s"));
    assert_false(
        repeats(&w, "5.7.8 Authentication credentials invalid; see https://x.example/12345678"));
    assert_false(repeats(&w, "Tr0ub4d"));
    for (size_t before = 0; before < 6; before++) {
        struct sbuf plain = {0}, coded = {0};
        sbuf_add(&plain, "abcdef", before);
        sbuf_add_c(&plain, password);
        base64_encode(&coded, sbuf_str(&plain));
        assert_true(repeats(&w, coded.p));
        sbuf_free(&plain);
        sbuf_free(&coded);
    }
    withhold_clear(&w);
    withhold_add(&w, str_of("AHNob3AAcHc="));
    withhold_add(&w, str_of("pw"));
    assert_true(repeats(&w, "500 unknown command AUTH PLAIN AHNob3AA"));
    assert_true(repeats(&w, "no such password <pw>") && repeats(&w, "PW"));
    assert_false(repeats(&w, "pwd"));
    withhold_clear(&w);
    withhold_add_password(&w, str_of("m0 rn9"));
    assert_true(repeats(&w, "user=joe,password=m0 rn9,") && repeats(&w, "joe:M0rn9@x"));
    assert_true(repeats(&w, "am9lAG0wIHJuOQ==") && repeats(&w, "not XG0wIHJuOQ"));
    assert_false(repeats(&w, "m0rn8, rn9 and m0 rm9"));
    withhold_clear(&w);
    assert_false(repeats(&w, "pw"));
}

/* A long reply is looked through for a long login in little time: else the owner of the host and of
 * its record could hold up all other connections of the thread for seconds, again and again. */
static void test_long_login_costs_little(void **state) {
    struct withhold w = {0};
    struct sbuf password = {0}, text = {0};
    (void)state;
    for (unsigned i = 0; i < 60000; i++) {
        sbuf_add_ch(&password, (char)('!' + (i * 2654435761U >> 20) % 89));
        if (i < 32000)
            sbuf_add_ch(&text, (char)('a' + (i * 2246822519U >> 20) % 23));
    }
    withhold_add_password(&w, sbuf_str(&password));
    clock_t begun = clock();
    assert_false(withhold_matches(&w, sbuf_str(&text)));
    assert_true(clock() - begun < CLOCKS_PER_SEC / 2);
    sbuf_add(&text, password.p + 59000, 8);
    assert_true(withhold_matches(&w, sbuf_str(&text)));
    withhold_clear(&w);
    sbuf_free(&password);
    sbuf_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_data),
        cmocka_unit_test(test_many_crs),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_look),
        cmocka_unit_test(test_bdat),
        cmocka_unit_test(test_stuff),
        cmocka_unit_test(test_narrow_lines),
        cmocka_unit_test(test_long_replies),
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_mechanisms),
        cmocka_unit_test(test_login_is_recognised),
        cmocka_unit_test(test_long_login_costs_little),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
