/* mail: addresses, envelopes, header sections, status codes; route: next hops. */
#include "unit.h"

#include <time.h>

#include "util/ipc.h"

#include "mail/address.h"
#include "mail/addrlist.h"
#include "mail/edit.h"
#include "mail/envelope.h"
#include "mail/header.h"
#include "mail/mailerr.h"
#include "report/dsn.h"
#include "route/nexthop.h"

static void list_note(void *arg, const struct addrlist_item *item) {
    sbuf_printf(arg, "[%.*s]%zu-%zu%s ", STR_FMT(item->addr), item->at, item->end,
                item->has_domain ? "" : "!");
}

static void test_lists(void **state) {
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"", ""},
        {" , ;, ", ""},
        {"a@b.example", "[a@b.example]0-11 "},
        {"a, b@c", "[a]0-1! [b@c]3-6 "},
        {"a b@c d", "[a]0-1! [b@c]2-5 [d]6-7! "},
        {"Joe (x, (y)) <a@b>, c", "[a@b]14-17 [c]20-21! "},
        {"\"A, B\" <a@b>", "[a@b]8-11 "},
        {"\"a \\\"b\"@c", "[a \"b@c]0-9 "},
        {"a . b @ c . d", "[a.b@c.d]0-13 "},
        {"g: a@b, <c@d>; e@f", "[a@b]3-6 [c@d]9-12 [e@f]15-18 "},
        {"g:;", ""},
        {"<>", "[]0-0! "},
        {"<@x,@y:a@b>", "[a@b]7-10 "},
        {"a@[IPv6:::1], b@[1.2.3.4]", "[a@[IPv6:::1]]0-12 [b@[1.2.3.4]]14-25 "},
        {"a@b (open", "[a@b]0-3 "},
        {"<a@b> <c@d>", "[a@b]1-4 [c@d]7-10 "},
        {"A <a@b> c@d, e", "[a@b]3-6 [c@d]8-11 [e]13-14! "},
        {"<a@b, c@d", "[a@b]1-4 [c@d]6-9 "},
        {"\"open@b", "[open@b]0-7! "},
        {"a@[open", "[a@[open]0-7 "},
        {"<a@b", "[a@b]1-4 "},
        {"a\r\n b@c\t", "[a]0-1! [b@c]4-7 "},
        {"a@b@c", "[a@b@c]0-5 "},
        {"a\\,b@c", "[a,b@c]0-6 "},
        {"\\", "[\\]0-1! "},
        {"@", "[@]0-1 "},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sbuf out = {0};
        addrlist_each(str_of(cases[i].in), list_note, &out);
        assert_string_equal(out.p == NULL ? "" : out.p, cases[i].out);
        sbuf_free(&out);
    }
}

static const struct edit_rules edit_rules = {"bcc, content-length resent-bcc", "o.example",
                                             "d.example"};

/* Edits text that comes in pieces of that many bytes. */
static void edit(struct str text, size_t piece, struct sbuf *out) {
    struct header_edit e = {0};
    struct sbuf raw = {0};
    for (size_t at = 0; at < text.n || !e.ended; at += piece) {
        bool last = at + piece >= text.n;
        sbuf_add(&raw, text.p + at, last ? text.n - at : piece);
        header_edit(&e, &edit_rules, &raw, last, out);
        if (last)
            break;
    }
    assert_int_equal(raw.n, 0);
    sbuf_free(&raw);
}

/* A field of 10,000 lines that came byte by byte was looked at from its start with each: that took
 * seconds. */
static void test_edit_of_many_pieces(void **state) {
    struct sbuf text = {0}, whole = {0}, pieces = {0};
    (void)state;
    sbuf_add_c(&text, "To: a");
    for (int i = 0; i < 10000; i++)
        sbuf_add_c(&text, ",\r\n b");
    sbuf_add_c(&text, "\r\nSubject: s\r\n\r\nbody\r\n");
    edit(sbuf_str(&text), text.n, &whole);
    clock_t begun = clock();
    edit(sbuf_str(&text), 1, &pieces);
    assert_true(clock() - begun < CLOCKS_PER_SEC / 4);
    assert_string_equal(pieces.p, whole.p);
    assert_non_null(strstr(whole.p, "b@o.example\r\nSubject: s\r\n\r\nbody"));
    sbuf_free(&text);
    sbuf_free(&whole);
    sbuf_free(&pieces);
}

static void test_edit(void **state) {
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"", ""},
        {"\r\nBcc: x\r\n", "\r\nBcc: x\r\n"},
        {"Subject: a\r\nBCC : x,\r\n y\r\n\tz\r\nX: b\r\n\r\nBcc: kept\r\n",
         "Subject: a\r\nX: b\r\n\r\nBcc: kept\r\n"},
        {"Bcc: x\r\n", ""},
        {"Bcc: x\r\nno header\r\n", "no header\r\n"},
        {"Bcc-Not: x\r\nContent-Length: 9\r\n", "Bcc-Not: x\r\n"},
        {"From a@b Mon Jan 1\r\n>>From c\r\nSubject: s\r\nFrom x\r\n",
         "X-Mailbox-Line: From a@b Mon Jan 1\r\nX-Mailbox-Line: >>From c\r\nSubject: s\r\nFrom "
         "x\r\n"},
        {" From a: b\r\nBcc: x\r\n", " From a: b\r\nBcc: x\r\n"},
        {"From joe\r\n cont\r\nBcc: x\r\n", "X-Mailbox-Line: From joe\r\n\r\n cont\r\nBcc: x\r\n"},
        {"To: root (Cron)\r\nFrom: \"A, B\" <joe@host>, c@d.example\r\n\r\nx\r\n",
         "To: root@o.example (Cron)\r\nFrom: \"A, B\" <joe@host.d.example>, "
         "c@d.example\r\n\r\nx\r\n"},
        {"Cc: a,\r\n b <c>,\r\n\td@[1.2.3.4]\r\nTo:\r\n",
         "Cc: a@o.example,\r\n b <c@o.example>,\r\n\td@[1.2.3.4]\r\nTo:\r\n"},
        {"Subject: root\r\nTo: <>, team: x;\r\n",
         "Subject: root\r\nTo: <>, team: x@o.example;\r\n"},
        {"To: a", "To: a@o.example"},
        {"To: \"a b\r\nSubject: s\r\n", "To: \"a b\"@o.example\r\nSubject: s\r\n"},
        {"Cc: \"a\\\"\r\n c\\\r\nX: y\r\n", "Cc: \"a\\\"\r\n c\\\"@o.example\r\nX: y\r\n"},
        {"To: a\\\r\nTo: [\r\n", "To: a\\@o.example\r\nTo: [@o.example\r\n"},
        {"To: <@x,@y:a>, b@c.e., <d@e.>\r\n", "To: <a@o.example>, b@c.e, <d@e>\r\n"},
        {"From: a@b.e b@c.e <c@d.e> d@e.f\r\n", "From: a@b.e b@c.e <c@d.e> d@e.f\r\n"},
        {"From: a b@c.e d\r\n e\r\n", "From: a@o.example, b@c.e, d@o.example,\r\n e@o.example\r\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t piece = 1; piece < 60; piece++) {
            struct sbuf out = {0};
            edit(str_of(cases[i].in), piece, &out);
            assert_string_equal(out.p == NULL ? "" : out.p, cases[i].out);
            sbuf_free(&out);
        }
}

/* A field that is too long to be looked at as a whole goes through, or goes, as it is. */
static void test_edit_of_large_fields(void **state) {
    static const char *const names[] = {"To: ", "Bcc: ", "X: "};
    (void)state;
    for (size_t i = 0; i < 3; i++)
        for (int lines = 0; lines < 2; lines++) {
            struct sbuf in = {0}, out = {0};
            sbuf_add_c(&in, names[i]);
            while (in.n < 3 * HEADER_LINE_MAX)
                sbuf_add_c(&in, lines == 0 ? "abc, " : "abc,\r\n ");
            size_t field = in.n;
            sbuf_add_c(&in, "\r\nCc: a\r\n\r\n");
            edit(sbuf_str(&in), 1000, &out);
            static const char rest[] = "\r\nCc: a@o.example\r\n\r\n";
            size_t n = sizeof rest - 1 - (i == 1 ? 2 : 0);
            assert_int_equal(out.n, (i == 1 ? 0 : field) + n);
            assert_memory_equal(out.p, in.p + (i == 1 ? field + 2 : 0), i == 1 ? 5 : field);
            assert_string_equal(out.p + out.n - n, rest + sizeof rest - 1 - n);
            sbuf_free(&in);
            sbuf_free(&out);
        }
}

static void test_paths(void **state) {
    static const struct {
        const char *in, *internal; /* NULL: refused */
    } cases[] = {
        {"<a@b.example>", "a@b.example"},
        {"<>", ""},
        {" <a@b> SIZE=1", "a@b"},
        {"a@b.example", "a@b.example"},
        {"<\"a b\"@c>", "a b@c"},
        {"<\"a\\\"b\"@c>", "a\"b@c"},
        {"<@x,@y:a@b>", "a@b"},
        {"<a@[127.0.0.1]>", "a@[127.0.0.1]"},
        {"<user>", "user"},
        {"<\"a@b.example\">", "a@b.example"}, /* as with Postfix */
        {"<\"a@[127.0.0.1]\">", "a@[127.0.0.1]"},
        {"<\"a@.b\">", NULL},
        {"<\"@b\">", NULL},
        {"<\"a@\">", NULL},
        {"<\"\"@b>", NULL},
        {"<\"a\\", NULL},
        {"<\"a\\\n\"@b>", NULL},
        {"<\"a\x7f\"@b>", NULL},
        {"<.a..b@c>", ".a..b@c"},
        {"<@[127.0.0.1]:a@b>", "a@b"},
        {"<@x,a@b>", NULL},
        {"<@x", NULL},
        {"<@x,", NULL},
        {"<@", NULL},
        {"<a@[>", NULL},
        {"<a@[]>", NULL},
        {"<a@[x_y]>", NULL},
        {"<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]"},
        {"<a@[1", NULL},
        {"<A.Z0-9+x_y@Host-1.example.> SIZE", "A.Z0-9+x_y@Host-1.example"}, /* as with Postfix */
        {"<\"a@b.example.\">", "a@b.example"},
        {"<user.>", "user."},
        {"<a@b.example..>", NULL},
        {"<a@.b>", NULL},
        {"<a@b.!>", NULL},
        {"   ", NULL},
        {"<", NULL},
        {"<a@b", NULL},
        {"<a@>", NULL},
        {"<a@b@c>", NULL},
        {"<@x:>", NULL},
        {"<a b@c>", NULL},
        {"<a@b>x", NULL},
        {"<a@-b..c>", NULL},
        {"<\"a\nb\"@c>", NULL},
        {"<\xc3\xa4@b>", NULL},
        {"", NULL},
    };
    (void)state;
    struct addr_opts o = {.allow_empty = true};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sbuf out = {0};
        size_t len;
        enum addr_rc rc = addr_parse(str_of(cases[i].in), &o, &out, &len);
        if ((rc == ADDR_OK) != (cases[i].internal != NULL))
            fail_msg("%s: %d", cases[i].in, rc);
        if (rc == ADDR_OK)
            assert_str(sbuf_str(&out), cases[i].internal);
        sbuf_free(&out);
    }
}

/* Queue IDs never come again, whatever the clock says. */
static void test_future_queue_ids(void **state) {
    uint64_t id, second = 4000000000;
    char qid[QID_MAX];
    (void)state;
    qid_after(second * 1000000 - 1);
    qid_after(1);
    qid_next(true, &id, qid);
    assert_int_equal(id, second * 1000000);
    assert_memory_equal(qid + 6, "0000z", 5);
    qid_next(false, &id, qid);
    assert_int_equal(id, second * 1000000 + 1);
    assert_string_equal(qid, "00001B2800"); /* microseconds, then the low bits of the second */
}

static void test_report_names(void **state) {
    (void)state;
    assert_string_equal(dsn_log_name(DSN_FAILED), "sender non-delivery notification");
    assert_string_equal(dsn_log_name(DSN_DELAYED), "sender delay notification");
    assert_string_equal(dsn_log_name(DSN_RELAYED), "sender delivery status notification");
}

/* Too long for any command line. */
static void test_long_path(void **state) {
    struct addr_opts o = {.allow_empty = true};
    struct sbuf in = {0}, out = {0};
    size_t len;
    (void)state;
    sbuf_add_ch(&in, '<');
    for (size_t i = 0; i <= ADDR_MAX; i++)
        sbuf_add_ch(&in, 'x');
    sbuf_add_c(&in, "@b>");
    assert_int_equal(addr_parse(sbuf_str(&in), &o, &out, &len), ADDR_TOO_LONG);
    sbuf_free(&in);
    sbuf_free(&out);
}

static void test_external(void **state) {
    static const char *cases[][2] = {
        {"a@b", "a@b"},        {"a b@c", "\"a b\"@c"},   {"a\"b@c", "\"a\\\"b\"@c"},
        {".a@c", "\".a\"@c"},  {"a..b@c", "\"a..b\"@c"}, {"@c", "\"\"@c"},
        {"a@b@c", "\"a@b\"@c"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sbuf out = {0};
        addr_external(&out, str_of(cases[i][0]));
        assert_string_equal(out.p, cases[i][1]);
        sbuf_free(&out);
    }
}

static void test_uxtext(void **state) {
    (void)state;
    static const struct {
        const char *given, *ascii; /* NULL: refused */
    } cases[] = {{"a@x.example", "a@x.example"},
                 {"", ""},
                 {"a+b=c", "a\\x{2B}b\\x{3D}c"},
                 {"j\xc3\xb6@x", "j\\x{F6}@x"},
                 {"\xe2\x82\xac\xf0\x9f\x93\xa7", "\\x{20AC}\\x{1F4E7}"},
                 {"a\\x{E4}\\x{10FFFF}\\b", "a\\x{E4}\\x{10FFFF}\\b"},
                 {"\\x{110000}", NULL},
                 {"\\x{FFFFFFFFFFFFFFFFFF}", NULL},
                 {"\\x{}", NULL},
                 {"\\x{4G}", NULL},
                 {"\\x{41", NULL},
                 {"\\x{", NULL},
                 {"\xff", NULL},
                 {"\xc3", NULL},
                 {"a\nb", NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sbuf b = {0};
        assert_int_equal(uxtext_ascii(&b, str_of(cases[i].given)), cases[i].ascii != NULL);
        if (cases[i].ascii != NULL)
            assert_string_equal(b.p == NULL ? "" : b.p, cases[i].ascii);
        sbuf_free(&b);
    }
}

static void test_xtext(void **state) {
    (void)state;
    struct sbuf b = {0}, c = {0};
    assert_true(xtext_decode(&b, str_of("a+2Bb+3Dc")));
    assert_string_equal(b.p, "a+b=c");
    xtext_encode(&c, sbuf_str(&b));
    assert_string_equal(c.p, "a+2Bb+3Dc");
    assert_false(xtext_decode(&b, str_of("a+2")));
    assert_false(xtext_decode(&b, str_of("a+zz")));
    assert_false(xtext_decode(&b, str_of("a\x7f")));
    sbuf_reset(&b);
    assert_true(xtext_decode(&b, str_of("a=b+2b+fF")));
    assert_string_equal(b.p, "a=b+\xff");
    for (int code = 0; code < 256; code++) {
        char text[8];
        snprintf(text, sizeof text, "a+%02Xb", (unsigned)code);
        assert_int_equal(xtext_decode(&b, str_of(text)), code >= ' ' && code != 0x7f);
    }
    assert_true(addr_is_atom(str_of("rfc822")) && addr_is_atom(str_of("x-{a}!#$%&'*+-/=?^_`|~9")));
    for (const char *bad = "()<>[]:;@\\,.\" \t\r\x7f\x80\xff"; *bad != '\0'; bad++) {
        char text[4] = {'a', *bad, 'b', '\0'};
        assert_false(addr_is_atom(str_of(text)));
    }
    assert_false(addr_is_atom(str_of("")) || addr_is_atom(str_make("a\0b", 3)));
    sbuf_free(&b);
    sbuf_free(&c);
}

/* Every truncation of an encoded envelope is refused, and what is whole comes back as it was. */
static void test_envelope(void **state) {
    (void)state;
    struct rcpt rcpts[2] = {
        {.addr = STR_LIT("b@y"), .orcpt = STR_LIT("rfc822;o@y"), .notify = NOTIFY_FAILURE},
        {.addr = STR_LIT("c@y")}};
    struct envelope t = {.id = 77,
                         .arrival_us = 5,
                         .size = 9,
                         .flags = ENV_8BIT,
                         .sender = STR_LIT("a@x"),
                         .envid = STR_LIT("e"),
                         .client = STR_LIT("h[1]"),
                         .rcpts = rcpts,
                         .n_rcpts = 2};
    strcpy(t.qid, "ABC");
    for (int owners = 0; owners < 2; owners++) { /* what has none is as older versions read it */
        rcpts[1].owner = owners ? STR_LIT("owner-c@y") : STR_NONE;
        struct sbuf b = {0};
        envelope_encode(&t, &b);
        assert_int_equal(b.p[0], owners ? 2 : 1);
        struct envelope *e = envelope_decode(sbuf_str(&b));
        assert_non_null(e);
        assert_true(e->id == 77 && e->n_rcpts == 2 && e->flags == ENV_8BIT);
        assert_str(e->rcpts[0].orcpt, "rfc822;o@y");
        assert_str(e->rcpts[1].addr, "c@y");
        assert_str(e->rcpts[1].owner, owners ? "owner-c@y" : "");
        assert_int_equal(e->rcpts[0].owner.n, 0);
        assert_ptr_equal(envelope_ref(e), e);
        envelope_unref(e);
        envelope_unref(e);
        envelope_unref(NULL);
        for (size_t n = 0; n < b.n; n++)
            assert_null(envelope_decode(str_make(b.p, n)));
        sbuf_add_ch(&b, 'x');
        assert_null(envelope_decode(sbuf_str(&b)));
        sbuf_free(&b);
    }
    t.flags |= ENV_HOLD; /* older versions, which would send it, cannot read it */
    struct sbuf b = {0};
    envelope_encode(&t, &b);
    assert_int_equal(b.p[0], 3);
    struct envelope *e = envelope_decode(sbuf_str(&b));
    assert_true(e != NULL && (e->flags & ENV_HOLD) != 0);
    envelope_unref(e);
    sbuf_free(&b);
}

static void test_envelope_with_a_filter(void **state) {
    struct rcpt rcpt = {.addr = STR_LIT("b@y"), .orig = STR_LIT("o@y"), .expanded = true};
    struct envelope t = {.qid = "ABC",
                         .sender = STR_LIT("a@x"),
                         .filter = STR_LIT("scan:[127.0.0.1]:10024"),
                         .origin = {.name = STR_LIT("h.example"),
                                    .addr = STR_LIT("IPV6:2001:db8::1"),
                                    .port = STR_LIT("7"),
                                    .proto = STR_LIT("ESMTP"),
                                    .helo = STR_LIT("helo"),
                                    .ident = STR_LIT("4XYZ"),
                                    .source = STR_LIT("REMOTE")},
                         .rcpts = &rcpt,
                         .n_rcpts = 1};
    struct sbuf b = {0};
    (void)state;
    envelope_encode(&t, &b);
    assert_int_equal(b.p[0], 4); /* an older version would send it unfiltered */
    struct envelope *e = envelope_decode(sbuf_str(&b));
    assert_non_null(e);
    assert_str(e->filter, "scan:[127.0.0.1]:10024");
    assert_str(e->origin.name, "h.example");
    assert_str(e->origin.addr, "IPV6:2001:db8::1");
    assert_str(e->origin.port, "7");
    assert_str(e->origin.proto, "ESMTP");
    assert_str(e->origin.helo, "helo");
    assert_str(e->origin.ident, "4XYZ");
    assert_str(e->origin.source, "REMOTE");
    assert_true(e->rcpts[0].expanded);
    envelope_unref(e);
    for (size_t n = 0; n < b.n; n++)
        assert_null(envelope_decode(str_make(b.p, n)));
    sbuf_reset(&b);
    t.filter = t.origin.source = STR_NONE; /* nobody is to be told */
    t.origin = (struct origin){0};
    envelope_encode(&t, &b);
    assert_int_equal(b.p[0], 3);
    sbuf_free(&b);
}

/* Errors without a cause are written as older versions read them. */
static void progress_test(uint32_t cause, uint32_t version) {
    uint8_t done[3] = {RCPT_DONE, RCPT_WAITS, RCPT_REPORT};
    struct rcpt_error errors[2] = {
        {STR_LIT("4.4.1"), STR_LIT("refused"), STR_LIT(""), STR_LIT("")},
        {STR_LIT("2.0.0"), STR_LIT("ok"), STR_LIT("mx.far"), STR_LIT("250 ok"), .cause = cause}};
    uint32_t error_of[3] = {0, 1, 2};
    struct progress p = {.done = done,
                         .n = 3,
                         .attempts = 4,
                         .next_us = 99,
                         .flags = PROGRESS_HOLD,
                         .errors = errors,
                         .n_errors = 2,
                         .error_of = error_of},
                    q;
    struct sbuf b = {0};
    progress_encode(&p, &b);
    assert_int_equal(b.p[0], version);
    assert_true(progress_decode(&q, sbuf_str(&b)));
    assert_true(q.n == 3 && q.attempts == 4 && q.next_us == 99 && q.flags == PROGRESS_HOLD);
    assert_memory_equal(q.done, done, 3);
    assert_memory_equal(q.error_of, error_of, sizeof error_of);
    assert_str(q.errors[0].text, "refused");
    assert_str(q.errors[1].mta, "mx.far");
    assert_str(q.errors[1].reply, "250 ok");
    assert_true(q.errors[0].cause == 0 && q.errors[1].cause == cause);
    progress_free(&q);
    for (size_t n = 0; n < b.n; n++)
        assert_false(progress_decode(&q, str_make(b.p, n)));
    b.p[b.n - 4] = 3; /* an error that is not there */
    assert_false(progress_decode(&q, sbuf_str(&b)));
    b.p[b.n - 4] = 2;
    b.p[0] = (char)(version + 2); /* of a newer version, or with more behind it */
    assert_false(progress_decode(&q, sbuf_str(&b)));
    b.p[0] = 0;
    assert_false(progress_decode(&q, sbuf_str(&b)));
    sbuf_free(&b);
}

static void test_progress(void **state) {
    (void)state;
    progress_test(CAUSE_UNSET, 2);
    progress_test(CAUSE_LOST, 3);
    progress_test(99999, 3); /* a newer version's: kept as it is */
}

static struct str steps_of(struct sbuf *b, uint32_t n, uint32_t rcpt, uint32_t state) {
    const struct progress_step v[] = {
        {.rcpt = 2, .state = RCPT_DONE},
        {.rcpt = rcpt,
         .state = (uint8_t)state,
         .error = {STR_LIT("2.0.0"), STR_LIT("sent"), STR_LIT("mx"), STR_LIT("250 ok"), 7}}};
    size_t at = b->n;
    progress_encode_step(n, v, 2, b);
    return str_from(sbuf_str(b), at);
}

/* Steps go on with what is before them, and the same ones twice are as good as once. */
static void test_progress_in_steps(void **state) {
    uint8_t done[] = {RCPT_WAITS, RCPT_DONE, RCPT_WAITS};
    uint32_t error_of[] = {1, 0, 0};
    struct rcpt_error error = {.dsn = STR_LIT("4.0.0"), .text = STR_LIT("later")};
    const struct progress p = {.done = done,
                               .n = 3,
                               .attempts = 5,
                               .flags = PROGRESS_HOLD,
                               .errors = &error,
                               .n_errors = 1,
                               .error_of = error_of};
    struct progress q;
    struct sbuf b = {0};
    (void)state;
    progress_encode(&p, &b);
    size_t whole = b.n;
    for (int i = 0; i < 2; i++) {
        steps_of(&b, 3, 0, RCPT_REPORT);
        assert_true(progress_decode(&q, sbuf_str(&b)));
        assert_true(q.n == 3 && q.attempts == 5 && q.flags == PROGRESS_HOLD);
        assert_true(q.done[0] == RCPT_REPORT && q.done[1] == RCPT_DONE && q.done[2] == RCPT_DONE);
        assert_str(q.errors[q.error_of[0] - 1].reply, "250 ok");
        assert_int_equal(q.errors[q.error_of[0] - 1].cause, 7);
        progress_free(&q);
    }
    for (size_t n = whole + 1; n < whole + (b.n - whole) / 2; n++)
        assert_false(progress_decode(&q, str_make(b.p, n)));
    assert_true(
        progress_decode(&q, str_from(sbuf_str(&b), whole))); /* what they followed is lost */
    assert_true(q.n == 3 && q.done[0] == RCPT_REPORT && q.done[1] == RCPT_WAITS);
    progress_free(&q);
    b.n = whole;
    steps_of(&b, 4, 0, RCPT_DONE);
    assert_false(progress_decode(&q, sbuf_str(&b)));
    b.n = whole;
    steps_of(&b, 3, 3, RCPT_DONE);
    assert_false(progress_decode(&q, sbuf_str(&b)));
    b.n = whole;
    steps_of(&b, 3, 0, 3);
    assert_false(progress_decode(&q, sbuf_str(&b)));
    sbuf_free(&b);
}

/* What the first version wrote: one reason for all. */
static void test_old_progress(void **state) {
    (void)state;
    struct progress q;
    struct sbuf b = {0};
    ipc_put_u32(&b, 1);
    ipc_put_u32(&b, 7);
    ipc_put_u64(&b, 99);
    ipc_put_u64(&b, 98);
    ipc_put_u32(&b, PROGRESS_WARNED);
    ipc_put_str(&b, str_make("\0\1", 2));
    size_t before = b.n;
    ipc_put_str(&b, STR_LIT("connect to old: refused"));
    assert_true(progress_decode(&q, sbuf_str(&b)));
    assert_true(q.n == 2 && q.attempts == 7 && q.n_errors == 1 && q.error_of[0] == 1);
    assert_str(q.errors[0].text, "connect to old: refused");
    assert_str(q.errors[0].dsn, "4.0.0");
    progress_free(&q);
    b.n = before;
    ipc_put_str(&b, STR_LIT(""));
    assert_true(progress_decode(&q, sbuf_str(&b)) && q.n_errors == 0 && q.error_of == NULL);
    progress_free(&q);
    sbuf_free(&b);
}

static void test_queue_ids(void **state) {
    (void)state;
    uint64_t id, last = 0;
    char qid[QID_MAX];
    for (int i = 0; i < 10000; i++) {
        qid_next(i % 2 == 0, &id, qid);
        assert_true(id > last);
        last = id;
        assert_int_equal(strspn(qid, "0123456789ABCDEFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"),
                         strlen(qid));
        if (i % 2 == 0)
            assert_non_null(strchr(qid, 'z'));
        assert_int_equal(qid_long_us(qid), i % 2 == 0 ? (int)(id % 1000000) : -1);
        assert_true(qid_ok(str_of(qid)));
    }
    assert_true(qid_ok(STR_LIT("a_Z")));
    assert_false(qid_ok(STR_LIT("")) || qid_ok(STR_LIT("4A/B")) || qid_ok(STR_LIT("4A\0")));
}

static void test_header(void **state) {
    static const char *text =
        "Received: a\r\nreceived: b\r\nMessage-ID:\r\n <x@y>\r\nFrom: me\r\n\r\nbody: no\r\n";
    (void)state;
    for (size_t cut = 0; cut <= strlen(text); cut++) { /* however it arrives */
        struct header_scan h = {0};
        header_scan(&h, str_make(text, cut), false);
        header_scan(&h, str_of(text), true);
        assert_true(h.ended && !h.no_separator && h.received == 2 && h.has_from && !h.has_date);
        assert_string_equal(h.message_id.p, "<x@y>");
        assert_int_equal(h.end, strstr(text, "\r\nbody") - text);
        header_scan_free(&h);
    }
    static const struct {
        const char *text;
        unsigned optional;
    } wishes[] = {{"TLS-Required: No\r\n", 1},
                  {"tls-required :\r\n\t\r\n nO\r\n", 1},
                  {"TLS-Required: no\r\nTo: a\r\n b\r\nTLS-Required: yes\r\n", 1},
                  {"TLS-Required: no\r\n sir\r\n", 0},
                  {"TLS-Required: no\r\n sir\r\n no\r\n", 0},
                  {"TLS-Required: no \r\nTo: no\r\nTLS-Required:\r\n\r\nno\r\n", 0}};
    for (size_t i = 0; i < sizeof wishes / sizeof wishes[0]; i++) {
        struct header_scan w = {0};
        header_scan(&w, str_of(wishes[i].text), true);
        assert_int_equal(w.tls_optional, wishes[i].optional);
        header_scan_free(&w);
    }
    struct header_scan h = {0};
    header_scan(&h, str_of("no header here\r\n"), true);
    assert_true(h.ended && h.no_separator && h.end == 0);
    header_scan_free(&h);
    static const struct {
        const char *text;
        bool from, date, id;
    } resent[] = {
        {"Resent-To: a\r\n", false, false, false},
        {"Resent-From: a\r\nResent-Date: b\r\n", true, true, false},
        {"resent-message-id: <a>\r\nResent-Message-ID: <b>\r\nResent-From: c\r\nResent-Date: d\r\n"
         "Resent-From: e\r\nResent-Date: f\r\nMessage-ID: <g>\r\nMessage-ID: <h>\r\n",
         true, true, true}};
    for (size_t i = 0; i < sizeof resent / sizeof resent[0]; i++) {
        struct header_scan r = {0};
        header_scan(&r, str_of(resent[i].text), true);
        assert_true(r.resent && r.has_resent_from == resent[i].from);
        assert_true(r.has_resent_date == resent[i].date && r.has_resent_id == resent[i].id);
        header_scan_free(&r);
    }
}

/* RFC 5322 section 3.2.5: what is no phrase of atoms is quoted. */
static void test_phrases(void **state) {
    static const char *const rows[][2] = {{"Ann Joe", "Ann Joe"},
                                          {"Joe, X", "\"Joe, X\""},
                                          {"a \"b\" \\ c", "\"a \\\"b\\\" \\\\ c\""},
                                          {"", ""}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sbuf out = {0};
        addr_phrase(&out, str_of(rows[i][0]));
        assert_str(sbuf_str(&out), rows[i][1]);
        sbuf_free(&out);
    }
}

/* A line longer than HEADER_LINE_MAX is judged by its beginning, however it arrives. */
static void test_header_long_lines(void **state) {
    static const char *const begins[] = {"Message-ID: <", "no_field_at_all ", "From:", " folded"};
    (void)state;
    for (size_t k = 0; k < 4; k++)
        for (size_t step = 1; step < 3 * HEADER_LINE_MAX; step = step * 3 + 40000) {
            struct sbuf text = {0};
            struct header_scan h = {0};
            size_t off = 0;
            sbuf_add_c(&text, "Received: x\r\n");
            size_t at = text.n;
            sbuf_add_c(&text, begins[k]);
            memset(sbuf_room(&text, HEADER_LINE_MAX + 9), 'v', HEADER_LINE_MAX + 9);
            sbuf_advance(&text, HEADER_LINE_MAX + 9);
            sbuf_add_c(&text, ":\r\nDate: x\r\n\r\nTo: y\r\n");
            for (size_t have = step; !h.ended; have += step) {
                bool last = have >= text.n;
                header_scan(&h, str_make(text.p + off, (last ? text.n : have) - off), last);
                if (!h.ended) {
                    off += h.at;
                    header_drop(&h, h.at);
                }
                assert_true(h.ended || have - off <= step + HEADER_LINE_MAX);
            }
            assert_int_equal(off + h.end, k == 1 ? at : text.n - 9);
            assert_true(h.no_separator == (k == 1) && h.has_date == (k != 1) && !h.has_to);
            assert_true(h.has_from == (k == 2) && h.received == 1);
            assert_int_equal(h.message_id.n, k == 0 ? HEADER_ID_MAX : 0);
            header_scan_free(&h);
            sbuf_free(&text);
        }
}

static void test_dsn(void **state) {
    char dsn[12];
    (void)state;
    dsn_from_reply(dsn, 550, str_of("5.1.1 no such user"));
    assert_string_equal(dsn, "5.1.1");
    dsn_from_reply(dsn, 550, str_of("4.1.1 class differs"));
    assert_string_equal(dsn, "5.0.0");
    dsn_from_reply(dsn, 451, str_of("4.1111.1 too long"));
    assert_string_equal(dsn, "4.0.0");
    dsn_from_reply(dsn, 250, str_of(""));
    assert_string_equal(dsn, "2.0.0");
}

/* A zeroed error says nothing: it is not "sent", and whatever was said before is forgotten. */
static void test_error_says_nothing_by_itself(void **state) {
    struct mailerr e = {0}, other = {0};
    (void)state;
    assert_true(e.status == MAIL_UNSET && e.status != MAIL_SENT && e.blame == BLAME_UNSET);
    assert_string_equal(mail_status_name(e.status), "deferred");
    mailerr_set(&e, MAIL_BOUNCED, "5.1.1", "no such user");
    mailerr_blame(&e, PHASE_MAIL, BLAME_RECIPIENT);
    mailerr_remote(&e, "mx.example", STR_LIT("550 5.1.1 no such user"));
    mailerr_copy(&other, &e);
    assert_true(other.remote && other.phase == PHASE_MAIL && other.blame == BLAME_RECIPIENT);
    mailerr_set(&e, MAIL_DEFERRED, "4.4.1", "connect: %s", e.text);
    assert_string_equal(e.text, "connect: no such user");
    assert_true(!e.remote && e.phase == PHASE_UNSET && e.blame == BLAME_UNSET && e.reply == NULL);
    assert_string_equal(mail_phase_name(other.phase), "mail");
    mailerr_free(&e);
    mailerr_free(&other);
}

static void test_nexthops(void **state) {
    static const struct {
        const char *in, *host; /* NULL: refused */
        bool bracketed;
        uint16_t port;
    } cases[] = {
        {"[relay.server]:587", "relay.server", true, 587},
        {"[relay_server]:25", "relay_server", true, 25},
        {"relay.server", "relay.server", false, 25},
        {"relay.server:submission", "relay.server", false, 587},
        {"[::1]:2525", "::1", true, 2525},
        {"[IPv6:::1]", "::1", true, 25},
        {"[37.61.54.158]:25", "37.61.54.158", true, 25},
        {"host:smtps", "host", false, 465},
        {"", NULL, false, 0},
        {"[", NULL, false, 0},
        {"[]:25", NULL, false, 0},
        {"[a]:", NULL, false, 0},
        {"[a]x", NULL, false, 0},
        {"a:0", NULL, false, 0},
        {"a:65536", NULL, false, 0},
        {"smtp:[a]:25", NULL, false, 0},
        {"a b", NULL, false, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nexthop n;
        const char *why = nexthop_parse(&n, str_of(cases[i].in), 25);
        if ((why == NULL) != (cases[i].host != NULL))
            fail_msg("%s: %s", cases[i].in, why == NULL ? "accepted" : why);
        if (why != NULL)
            continue;
        assert_str(n.host, cases[i].host);
        assert_true(n.bracketed == cases[i].bracketed && n.port == cases[i].port);
    }
}

static void test_dns_names(void **state) {
    static const char *const good[] = {"a",     "a.b",    "1a",     "a_b.example",
                                       "a-b.c", "x--y.z", "1.2.3.a"};
    static const char *const bad[] = {
        "",      "-a",    "a-",  "a.-b", "a-.b",         "a.",
        "a..b",  ".a",    "1",   "1.2",  "127.0.0.1",    "m\xc3\xbcller.de",
        "a b.c", "[a.b]", "a:1", "-",    "192.0.2.1.99", "a.b-"};
    char label[70];
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (!addr_is_dns_name(str_of(good[i])))
            fail_msg("%s is one", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (addr_is_dns_name(str_of(bad[i])))
            fail_msg("%s is none", bad[i]);
    memset(label, 'a', sizeof label);
    assert_true(addr_is_dns_name(str_make(label, 63)));
    assert_false(addr_is_dns_name(str_make(label, 64)));
}

static void test_complete(void **state) {
    static const struct {
        const char *addr, *origin, *domain, *whole;
    } cases[] = {{"joe", "o.example", "d.example", "joe@o.example"},
                 {"joe", "host", "d.example", "joe@host.d.example"},
                 {"joe", NULL, "d.example", "joe"},
                 {"joe@host", "o.example", NULL, "joe@host"},
                 {"joe@host", "o.example", "d.example", "joe@host.d.example"},
                 {"joe@a.b", "o.example", "d.example", "joe@a.b"},
                 {"joe@[1]", "o.example", "d.example", "joe@[1]"},
                 {"", "o.example", "d.example", ""}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sbuf b = {0};
        sbuf_add_c(&b, "ann@x");
        size_t begun = b.n;
        sbuf_add_c(&b, cases[i].addr);
        addr_complete(&b, begun, cases[i].origin, cases[i].domain);
        assert_str(str_from(sbuf_str(&b), begun), cases[i].whole);
        sbuf_free(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_edit),
        cmocka_unit_test(test_edit_of_many_pieces),
        cmocka_unit_test(test_edit_of_large_fields),
        cmocka_unit_test(test_long_path),
        cmocka_unit_test(test_future_queue_ids),
        cmocka_unit_test(test_report_names),
        cmocka_unit_test(test_external),
        cmocka_unit_test(test_xtext),
        cmocka_unit_test(test_uxtext),
        cmocka_unit_test(test_envelope),
        cmocka_unit_test(test_envelope_with_a_filter),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_progress_in_steps),
        cmocka_unit_test(test_old_progress),
        cmocka_unit_test(test_queue_ids),
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_phrases),
        cmocka_unit_test(test_header_long_lines),
        cmocka_unit_test(test_dsn),
        cmocka_unit_test(test_error_says_nothing_by_itself),
        cmocka_unit_test(test_nexthops),
        cmocka_unit_test(test_dns_names),
        cmocka_unit_test(test_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
