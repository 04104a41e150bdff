/* transfer: Postfix's queue files and what it notes beside them, record by record. */
#include "unit.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mail/envelope.h"
#include "transfer/ours.h"
#include "transfer/queuefile.h"
#include "transfer/reasons.h"
#include "util/mem.h"

static void put(struct sbuf *out, char type, const char *text) {
    size_t n = strlen(text);
    sbuf_add_ch(out, type);
    for (; n >= 0x80; n >>= 7)
        sbuf_add_ch(out, (char)(n | 0x80));
    sbuf_add_ch(out, (char)n);
    sbuf_add_c(out, text);
}

/* A file with the records of more, "TYPEtext" each, in its envelope, and with one line of content.
 */
static struct str file_of(struct sbuf *out, const char *const *more, size_t n) {
    sbuf_reset(out);
    put(out, 'C', "              8             100               1               0");
    put(out, 'T', "1700000000 5");
    put(out, 'S', "ann@here.example");
    for (size_t i = 0; i < n; i++)
        put(out, more[i][0], more[i] + 1);
    put(out, 'M', "");
    put(out, 'N', "Subject: x");
    put(out, 'X', "");
    put(out, 'E', "");
    return sbuf_str(out);
}

/* What must not be taken over, and the word that says why. */
static void test_refused(void **state) {
    static const struct {
        const char *record, *why;
    } cases[] = {{"Anotify_flags=16", "notify_flags"},
                 {"Anotify_flags=all", "notify_flags"},
                 {"Atrace_flags=256", "sendmail -bv"},
                 {"A=nameless", "no name"},
                 {"Lsmtp-\x01", "control"},
                 {"Ismtp-amavis", "inspection"},
                 {"V+=", "VERP"},
                 {"Zwhat", "not known"},
                 {"Rb\x01@there.example", "control"},
                 {"Oa\x7f@there.example", "control"},
                 {"Aenvelope_id=a\nb", "control"},
                 {"p99999", "out of the file"},
                 {"pnowhere", "out of the file"},
                 {"Alog_client_address=1.2.3.4]", "client"},
                 {"Alog_client_address=[1", "client"}};
    struct sbuf file = {0};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct queuefile q;
        const char *records[] = {"Rb@there.example", cases[i].record, "Rc@there.example"};
        const char *why = queuefile_read(&q, file_of(&file, records, 3));
        if (why == NULL || strstr(why, cases[i].why) == NULL)
            fail_msg("%s: %s", cases[i].record, why == NULL ? "taken" : why);
        queuefile_free(&q);
    }
    sbuf_free(&file);
}

/* Records that say nothing of interest, and those that are said twice. */
static void test_passed_over(void **state) {
    static const char *const records[] = {"c1700000000",
                                          "finspect",
                                          "d5",
                                          "mroot",
                                          "rnobody",
                                          "eerrors@here.example",
                                          "P24",
                                          "T1800000000 7",
                                          "Sben@here.example",
                                          "wdeleted",
                                          "Kdeleted",
                                          "Aret_flags=2",
                                          "Aret_flags=1",
                                          "Atrace_flags=0",
                                          "Atrace_flags=none",
                                          "Aencoding=7bit",
                                          "Aunknown=value",
                                          "W              0",
                                          "Obee@here.example",
                                          "Anotify_flags=15",
                                          "Rb@there.example",
                                          "Oc@there.example",
                                          "Dc@there.example"};
    struct sbuf file = {0};
    struct queuefile q;
    (void)state;
    assert_null(queuefile_read(&q, file_of(&file, records, sizeof records / sizeof records[0])));
    assert_int_equal(q.arrival_us, 1700000000000005);
    assert_true(str_eq_c(q.sender, "ann@here.example") && q.warned);
    assert_int_equal(q.flags & (ENV_RET_FULL | ENV_RET_HDRS), ENV_RET_HDRS);
    assert_int_equal(q.n_rcpts, 2);
    assert_int_equal(q.rcpts[1].state, RCPT_DONE);
    struct envelope *env = queuefile_envelope(&q, "4ABC");
    assert_true(str_eq_c(env->rcpts[0].orig, "bee@here.example"));
    assert_int_equal(env->rcpts[1].orig.n, 0); /* it is the address itself */
    assert_int_equal(env->rcpts[0].notify, 15);
    envelope_unref(env);
    queuefile_free(&q);
    sbuf_free(&file);
}

static struct envelope *envelope_of(uint32_t flags, const char *client) {
    static char far[200]; /* its record's length takes two bytes */
    memset(far, 'f', sizeof far - 1);
    memcpy(far + sizeof far - 14, "@there.example", 14);
    struct rcpt rcpts[] = {{.addr = STR_LIT("b@there.example"), .notify = 2},
                           {.addr = str_make(far, sizeof far)},
                           {.addr = STR_LIT("c@there.example"), .orcpt = STR_LIT("utf-8;c@x")}};
    struct envelope t = {.arrival_us = 1700000000000005,
                         .flags = flags,
                         .sender = STR_LIT("ann@here.example"),
                         .client = str_of(client),
                         .rcpts = rcpts,
                         .n_rcpts = 3};
    memcpy(t.qid, "4ABC", 5);
    return envelope_make(&t);
}

static struct str written(struct sbuf *out, const struct envelope *env, const char *content,
                          uint64_t *offsets) {
    struct sbuf text = {0};
    struct queuefile_state st = {0};
    sbuf_add_c(&text, content);
    struct body *body = body_from_buf(&text);
    sbuf_reset(out);
    assert_true(queuefile_write(out, env, &st, body, offsets));
    body_unref(body);
    return sbuf_str(out);
}

/* What is written is read again, whatever the content's last line and the client are. */
static void test_there_and_back(void **state) {
    static const struct {
        uint32_t flags;
        const char *client, *content, *back;
    } cases[] = {
        {ENV_RET_FULL, "h[192.0.2.1]", "Subject: x\r\n\r\nlast", "Subject: x\r\n\r\nlast\r\n"},
        {ENV_RET_HDRS, "", "a\nb\r\n\r\n\n", "a\r\nb\r\n\r\n\r\n"},
        {ENV_TLS_OPTIONAL, "no address]", "", ""},
        {0, "[open", "\r\n", "\r\n"}};
    struct sbuf file = {0};
    uint64_t offsets[3];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct queuefile q;
        struct envelope *env = envelope_of(cases[i].flags, cases[i].client);
        assert_null(queuefile_read(&q, written(&file, env, cases[i].content, offsets)));
        assert_true(str_eq_c(sbuf_str(&q.content), cases[i].back));
        uint32_t kept = ENV_RET_FULL | ENV_RET_HDRS | ENV_TLS_OPTIONAL;
        assert_int_equal(q.flags & kept, cases[i].flags);
        assert_int_equal(q.n_rcpts, 3);
        for (size_t k = 0; k < 3; k++) {
            assert_true(str_eq(q.rcpts[k].r.addr, env->rcpts[k].addr));
            assert_int_equal(file.p[offsets[k]], 'R');
        }
        queuefile_free(&q);
        envelope_unref(env);
    }
    sbuf_free(&file);
}

/* A filter stays one, and is told the same of the client; REDIRECT is stronger, as in Postfix. */
static void test_filter_there_and_back(void **state) {
    struct sbuf file = {0};
    uint64_t offsets[1];
    struct rcpt rcpt = {.addr = STR_LIT("b@there.example")};
    struct envelope t = {
        .arrival_us = 1700000000000005,
        .qid = "4ABC",
        .sender = STR_LIT("ann@here.example"),
        .client = STR_LIT("h[192.0.2.1]"),
        .filter = STR_LIT("scan:[127.0.0.1]:10024"),
        .origin = {.port = STR_LIT("7"), .helo = STR_LIT("helo"), .source = STR_LIT("REMOTE")},
        .rcpts = &rcpt,
        .n_rcpts = 1};
    struct envelope *env = envelope_make(&t);
    struct queuefile q;
    (void)state;
    assert_null(queuefile_read(&q, written(&file, env, "x\r\n", offsets)));
    struct envelope *back = queuefile_envelope(&q, "4ABC");
    assert_true(str_eq_c(back->filter, "scan:[127.0.0.1]:10024"));
    assert_true(str_eq_c(back->origin.name, "h") && str_eq_c(back->origin.addr, "192.0.2.1"));
    assert_true(str_eq_c(back->origin.port, "7") && str_eq_c(back->origin.proto, "ESMTP"));
    assert_true(str_eq_c(back->origin.helo, "helo") && str_eq_c(back->origin.source, "REMOTE"));
    envelope_unref(back);
    q.redirect = STR_LIT("other@there.example");
    back = queuefile_envelope(&q, "4ABC");
    assert_int_equal(back->filter.n, 0);
    envelope_unref(back);
    queuefile_free(&q);
    envelope_unref(env);
    sbuf_free(&file);
}

/* Each recipient's own reason; what is not the message's, or says nothing, is passed over. */
static void test_reasons(void **state) {
    static const char file[] = "<b@there.example>: first\n"
                               "recipient=b@there.example\nstatus=4.4.1\nreason=first\n\n"
                               "recipient=b@there.example\nstatus=4.2.2\ndiag_text=452 full\n"
                               "mta_mname=mx.there.example\nreason=said 452 full\n\n"
                               "recipient=c@there.example\nstatus=4.2.2\nreason=\n\n"
                               "recipient=c@there.example\nstatus=4.2.2\nreason=said 452 full\n\n"
                               "recipient=other@there.example\nstatus=4.0.0\nreason=no\n\n";
    struct envelope *env = envelope_of(0, "");
    struct progress p = {.n = 3, .done = mem_zalloc(3)}, again = {.n = 3, .done = mem_zalloc(3)};
    uint64_t offsets[3] = {10, 20, 30};
    struct sbuf text = {0};
    (void)state;
    p.done[1] = again.done[1] = RCPT_DONE;
    reasons_note(&p, env, str_of(file));
    assert_true(str_eq_c(p.errors[p.error_of[0] - 1].text, "said 452 full"));
    assert_true(str_eq_c(p.errors[p.error_of[0] - 1].mta, "mx.there.example"));
    assert_int_equal(p.error_of[1], 0);
    assert_int_not_equal(p.error_of[0], p.error_of[2]); /* the second has no host */
    reasons_write(&text, env, &p, offsets);
    assert_non_null(strstr(text.p, "offset=30\n"));
    reasons_note(&again, env, sbuf_str(&text));
    assert_true(str_eq_c(again.errors[again.error_of[0] - 1].reply, "452 full"));
    reasons_revive(&again, env, STR_LIT("recipient=other@x\n\n"));
    assert_int_equal(again.done[1], RCPT_DONE);
    progress_free(&p);
    progress_free(&again);
    envelope_unref(env);
    sbuf_free(&text);
}

static bool bad_sync;
int fdatasync(int fd) {
    if (bad_sync)
        errno = EIO;
    return bad_sync ? -1 : (int)syscall(SYS_fdatasync, fd);
}

/* What a run that was killed has written is not called known, and Postfix's file not removed for
 * it, before it is durable. */
static void test_what_is_known_is_durable(void **state) {
    struct config cfg = {0};
    struct ours o;
    struct sbuf content = {0}, progress = {0};
    char *why;
    cfg.p.queue_directory = dir;
    cfg.p.mail_owner = "root";
    cfg.p.spool_segment_size = 1 << 20;
    dir_make(state);
    assert_int_equal(ours_open(&o, &cfg, &why), 0);
    sbuf_add_c(&content, "text");
    ours_add(&o, envelope_of(0, ""), &content, &progress);
    assert_int_equal(ours_commit(&o), 0);
    ours_close(&o); /* no record says that the last one is durable */
    bad_sync = true;
    assert_int_equal(ours_open(&o, &cfg, &why), -EIO);
    assert_non_null(strstr(why, "cannot be made durable"));
    free(why);
    ours_close(&o);
    bad_sync = false;
    assert_int_equal(ours_open(&o, &cfg, &why), 0);
    assert_true(ours_has_qid(&o, "4ABC"));
    ours_close(&o);
    dir_remove(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),        cmocka_unit_test(test_passed_over),
        cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_filter_there_and_back),
        cmocka_unit_test(test_reasons),        cmocka_unit_test(test_what_is_known_is_durable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
