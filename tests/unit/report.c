/*
 * tests/unit/report.c - reports and log lines: whatever a peer, a client or a table has said
 */
#include "../fuzz/bundle.h"
#include "mail/address.h"
#include "report/dsn.h"
#include "report/logline.h"
#include "unit.h"
#include "util/log.h"

#define HOSTILE "x\r\n.\r\nMAIL FROM:<boss@firm.example>\rRSET\nQUIT\x7f\x0b\x0c\tend"
#define CONTENT "Subject: s\r\nFrom: a@b\r\n\r\nthe text\r\n"

static struct config *cfg;

static int config_make(void **state) {
    (void)state;
    cfg = bundle_config(STR_LIT("myhostname = mta.example\n"), STR_LIT(""));
    return cfg == NULL;
}

static int config_drop(void **state) {
    (void)state;
    config_unref(cfg);
    return 0;
}

struct case_report {
    struct envelope *report;
    struct sbuf text;
};

static struct rcpt rcpt = {.addr = STR_LIT("to@far.example")};
static struct mailerr err;

static struct case_report build(enum dsn_kind kind, struct envelope t, struct str original,
                                bool whole) {
    struct case_report c = {0};
    t.id = 1;
    strcpy(t.qid, "ABC");
    t.n_rcpts = 1;
    t.rcpts = &rcpt;
    t.size = original.n;
    struct envelope *env = envelope_make(&t);
    struct dsn_rcpt list = {&env->rcpts[0], &err};
    struct dsn d = {.kind = kind,
                    .cfg = cfg,
                    .env = env,
                    .rcpts = &list,
                    .n = 1,
                    .original = original,
                    .original_whole = whole};
    c.report = dsn_build(&d, &c.text);
    envelope_unref(env);
    assert_true(c.report->size == c.text.n && c.report->n_rcpts == 1);
    return c;
}

static void drop(struct case_report *c) {
    envelope_unref(c->report);
    sbuf_free(&c->text);
}

static bool has(const struct case_report *c, const char *text) {
    return memmem(c->text.p, c->text.n, text, strlen(text)) != NULL;
}

/* Every CR is followed by LF and every LF comes after CR; no other control character but TAB. */
static void assert_clean(const struct case_report *c) {
    for (size_t i = 0; i < c->text.n; i++) {
        unsigned char ch = (unsigned char)c->text.p[i];
        if (ch == '\r')
            assert_true(i + 1 < c->text.n && c->text.p[i + 1] == '\n');
        else if (ch == '\n')
            assert_true(i > 0 && c->text.p[i - 1] == '\r');
        else
            assert_true((ch >= ' ' && ch != 0x7f) || ch == '\t');
    }
}

static void test_hostile_texts(void **state) {
    (void)state;
    for (int field = 0; field < 6; field++) {
        struct envelope t = {.sender = STR_LIT("s@client.example")};
        rcpt = (struct rcpt){.addr = STR_LIT("to@far.example")};
        mailerr_set(&err, MAIL_BOUNCED, "5.1.1", "%s", field == 0 ? HOSTILE : "no such user");
        if (field == 1 || field == 2)
            mailerr_remote(&err, field == 1 ? HOSTILE : "mx.far.example",
                           field == 2 ? STR_LIT(HOSTILE) : STR_LIT("550 no"));
        if (field == 3)
            rcpt.orcpt = STR_LIT("rfc822;" HOSTILE);
        if (field == 4)
            t.envid = STR_LIT(HOSTILE);
        if (field == 5)
            rcpt.addr = STR_LIT(HOSTILE "@far.example");
        struct case_report c = build(DSN_FAILED, t, STR_LIT(CONTENT), true);
        assert_clean(&c);
        assert_false(has(&c, "\r\nMAIL FROM") || has(&c, "\r\n.\r\n") || has(&c, "\r\nQUIT"));
        assert_true(has(&c, "MAIL FROM:<boss@firm.example>"));
        drop(&c);
        mailerr_free(&err);
    }
    rcpt = (struct rcpt){.addr = STR_LIT("to@far.example")};
}

/* An original recipient and an envelope ID are ASCII in a report whatever a client hid in them. */
static void test_what_a_client_gave_is_ascii(void **state) {
    (void)state;
    struct envelope t = {.sender = STR_LIT("s@client.example"), .envid = STR_LIT("id\xff+=")};
    mailerr_set(&err, MAIL_BOUNCED, "5.1.1", "no");
    rcpt.orcpt = STR_LIT("rfc822;j\xc3\xb6rg+x@far.example");
    struct case_report c = build(DSN_FAILED, t, STR_LIT(CONTENT), true);
    assert_true(has(&c, "\r\nOriginal-Recipient: rfc822;j+C3+B6rg+2Bx@far.example\r\n"));
    assert_true(has(&c, "\r\nOriginal-Envelope-Id: id+FF+2B+3D\r\n"));
    assert_true(str_is_ascii(sbuf_str(&c.text)));
    drop(&c);
    rcpt.orcpt = STR_LIT("utf-8;j\\x{F6}rg+x@far.example");
    c = build(DSN_FAILED, t, STR_LIT(CONTENT), true);
    assert_true(has(&c, "\r\nOriginal-Recipient: utf-8;j\\x{F6}rg+x@far.example\r\n"));
    drop(&c);
    mailerr_free(&err);
    rcpt = (struct rcpt){.addr = STR_LIT("to@far.example")};
}

/* What the report's envelope says is what the report is, not what the original was. */
static void test_flags(void **state) {
    (void)state;
    static const struct {
        const char *original;
        uint32_t was, is;
    } cases[] = {{CONTENT, 0, 0},
                 {CONTENT, ENV_DOTS | ENV_LONG_LINES | ENV_8BIT, 0},
                 {"S: x\r\n\r\n.dot\r\n", 0, ENV_DOTS},
                 {"S: x\r\n\r\n\xc3\xb6\r\n", 0, 0},
                 {CONTENT, ENV_SMTPUTF8, ENV_SMTPUTF8}};
    struct envelope t = {.sender = STR_LIT("s@client.example")};
    mailerr_set(&err, MAIL_BOUNCED, "5.1.1", "no");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        t.flags = cases[i].was;
        struct case_report c = build(DSN_FAILED, t, str_of(cases[i].original), true);
        assert_int_equal(c.report->flags, cases[i].is | ENV_LOCAL | ENV_8BIT);
        drop(&c);
    }
    struct sbuf big = {0};
    sbuf_add_c(&big, "S: x\r\n\r\n");
    for (int i = 0; i < 1200; i++)
        sbuf_add_ch(&big, 'w');
    sbuf_add_c(&big, "\r\n");
    t.flags = 0;
    struct case_report c = build(DSN_FAILED, t, sbuf_str(&big), true);
    assert_int_equal(c.report->flags, ENV_LONG_LINES | ENV_LOCAL | ENV_8BIT);
    drop(&c);
    c = build(DSN_DELAYED, t, sbuf_str(&big), true); /* the header section only */
    assert_int_equal(c.report->flags, ENV_LOCAL | ENV_8BIT);
    drop(&c);
    sbuf_free(&big);
    mailerr_free(&err);
}

/* RFC 6533 for senders and mail that need it. */
static void test_global(void **state) {
    (void)state;
    struct envelope t = {.sender = STR_LIT("j\xc3\xb6rg@client.example"), .flags = ENV_SMTPUTF8};
    mailerr_set(&err, MAIL_BOUNCED, "5.1.1", "no");
    struct case_report c = build(DSN_FAILED, t, STR_LIT(CONTENT), true);
    assert_true((c.report->flags & (ENV_SMTPUTF8 | ENV_8BIT)) == (ENV_SMTPUTF8 | ENV_8BIT));
    assert_true(has(&c, "report-type=global-delivery-status"));
    assert_true(has(&c, "Content-Type: message/global-delivery-status\r\n"));
    assert_true(has(&c, "Content-Type: message/global\r\n"));
    assert_true(has(&c, "X-Postfix-Sender: utf-8; j\xc3\xb6rg@client.example\r\n"));
    drop(&c);
    t.flags = 0; /* it did not ask for the extension, and no host needs it for the report */
    c = build(DSN_FAILED, t, STR_LIT(CONTENT), true);
    assert_true((c.report->flags & ENV_SMTPUTF8) == 0 && has(&c, "=delivery-status"));
    drop(&c);
    t.sender = STR_LIT("s@client.example");
    c = build(DSN_FAILED, t, STR_LIT(CONTENT), true);
    assert_true(has(&c, "Content-Type: message/delivery-status\r\n"));
    assert_true(has(&c, "Content-Type: message/rfc822\r\n"));
    assert_true(has(&c, "X-Postfix-Sender: rfc822; s@client.example\r\n"));
    drop(&c);
    mailerr_free(&err);
}

static void test_kinds(void **state) {
    (void)state;
    struct envelope t = {.sender = STR_LIT("s@client.example"), .flags = ENV_RET_HDRS};
    mailerr_set(&err, MAIL_DEFERRED, "4.2.2", "full");
    struct case_report c = build(DSN_FAILED, t, STR_LIT(CONTENT), true);
    assert_true(has(&c, "Action: failed\r\n") && has(&c, "text/rfc822-headers"));
    assert_true(has(&c, "Diagnostic-Code: X-Postfix; full\r\n") && !has(&c, "the text"));
    assert_true(has(&c, "Status: 4.2.2\r\n") && !has(&c, "Remote-MTA"));
    drop(&c);
    mailerr_remote(&err, "mx.far.example", STR_LIT("452 4.2.2 full"));
    c = build(DSN_DELAYED, t, STR_LIT(CONTENT), true);
    assert_true(has(&c, "Action: delayed\r\n") && has(&c, "Will-Retry-Until: "));
    assert_true(has(&c, "Remote-MTA: dns; mx.far.example\r\n"));
    assert_true(has(&c, "Diagnostic-Code: smtp; 452 4.2.2 full\r\n"));
    drop(&c);
    struct mailerr rests = {0};
    mailerr_suspend(&rests, &err);
    mailerr_copy(&err, &rests);
    c = build(DSN_DELAYED, t, STR_LIT(CONTENT), true); /* other mail got the reply */
    assert_true(has(&c, "Diagnostic-Code: X-Postfix; delivery temporarily suspended: full\r\n"));
    assert_true(!has(&c, "Remote-MTA") && !has(&c, "452 4.2.2 full"));
    drop(&c);
    mailerr_free(&rests);
    c = build(DSN_RELAYED, t, STR_LIT(""), false); /* the content could not be read */
    assert_true(has(&c, "Action: relayed\r\n") && has(&c, "Successful Mail Delivery Report"));
    drop(&c);
    mailerr_free(&err);
    static const enum dsn_kind kinds[] = {DSN_FAILED, DSN_DELAYED, DSN_RELAYED};
    for (size_t i = 0; i < 3; i++)
        assert_non_null(strstr(dsn_log_name(kinds[i]), "notification"));
}

/* A reply that is one endless word is broken, and never inside a character. */
static void test_long_words(void **state) {
    (void)state;
    struct envelope t = {.sender = STR_LIT("s@client.example")};
    struct sbuf text = {0};
    for (int i = 0; i < 1500; i++)
        sbuf_add_c(&text, "\xe2\x82\xac");
    mailerr_set(&err, MAIL_BOUNCED, "5.0.0", "%s", text.p);
    struct case_report c = build(DSN_FAILED, t, STR_LIT(CONTENT), true);
    assert_int_equal(c.report->flags & ENV_LONG_LINES, 0);
    assert_true(str_is_utf8(sbuf_str(&c.text)));
    drop(&c);
    sbuf_free(&text);
    mailerr_free(&err);
}

static char *log_text(const char *path) {
    static char text[4096];
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    return text;
}

/* One line each, whatever stands in it. */
static void test_log_lines(void **state) {
    (void)state;
    char path[100];
    snprintf(path, sizeof path, "%s/log", dir);
    struct log_conf conf = {.name = "postfix", .file = path};
    assert_int_equal(log_open(&conf), 0);
    struct logline_times times = {1, 2000000, 3000000, 0, 4000000, NULL};
    mailerr_set(&err, MAIL_DEFERRED, "4.4.1", "%s", HOSTILE);
    struct rcpt hostile = {.addr = str_make("a\0b\nc@d", 7)};
    logline_delivery("postfix", "smtp", "ABC", &hostile, "h[1.2.3.4]:25", 3, &times, &err);
    struct envelope t = {.sender = STR_LIT("x\r\ny@z"), .size = 5};
    strcpy(t.qid, "ABC");
    logline_active(&t, 2);
    logline_expired(&t, true);
    logline_removed("ABC");
    char *text = log_text(path), *line = strtok(text, "\n");
    assert_non_null(strstr(line, "conn_use=3, "));
    assert_non_null(strstr(line, "to=<\"a?b?c\"@d>"));
    assert_non_null(strstr(line, "dsn=4.4.1, status=deferred (x??.??MAIL FROM"));
    assert_non_null(strstr(line = strtok(NULL, "\n"), "size=5, nrcpt=2 (queue active)"));
    assert_non_null(strstr(line = strtok(NULL, "\n"), "status=force-expired, returned to sender"));
    assert_non_null(strstr(line = strtok(NULL, "\n"), "ABC: removed"));
    assert_null(strtok(NULL, "\n"));
    mailerr_free(&err);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hostile_texts),
        cmocka_unit_test(test_what_a_client_gave_is_ascii),
        cmocka_unit_test(test_flags),
        cmocka_unit_test(test_global),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_long_words),
        cmocka_unit_test_setup_teardown(test_log_lines, dir_make, dir_remove)};
    return cmocka_run_group_tests(tests, config_make, config_drop);
}
