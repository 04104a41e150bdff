/*
 * tests/unit/schedule.c - counting what becomes of mail; destinations and reasons, which are
 * bounded
 */
#include "../fuzz/bundle.h"
#include "schedule/sched.h"
#include "unit.h"
#include "util/mem.h"

static void count(struct tally *t, struct hop *h, const char *sender, enum mail_status status,
                  const char *text) {
    struct mailerr e = {0};
    mailerr_set(&e, status, "4.4.1", "%s", text);
    tally_result(t, h, str_of(sender), &e);
    mailerr_free(&e);
}

static void test_hops(void **state) {
    static struct tally t; /* a process keeps it for life */
    (void)state;
    struct hop *a = tally_hop(&t, STR_LIT("[A.example]:25"), STR_LIT(""));
    assert_ptr_equal(a, tally_hop(&t, STR_LIT("[a.EXAMPLE]:25"), STR_LIT("")));
    assert_ptr_not_equal(a, tally_hop(&t, STR_LIT("[a.example]:25"), STR_LIT("record")));
    assert_string_equal(tally_hop(&t, STR_LIT(""), STR_LIT(""))->nexthop, "");
    count(&t, a, "s", MAIL_DEFERRED, "refused");
    count(&t, a, "s", MAIL_SENT, "ok");
    assert_true(a->count[MAIL_DEFERRED] == 1 && a->count[MAIL_SENT] == 1 && a->ok_us > 0);
    assert_string_equal(a->err, "refused");
    for (unsigned i = 0; i < HOPS_MAX + 10; i++) { /* bounded: the rest are one */
        char name[32];
        snprintf(name, sizeof name, "[h%u]", i);
        tally_hop(&t, str_of(name), STR_LIT(""));
    }
    assert_true(t.hops.n == HOPS_MAX && t.rest != NULL);
    assert_ptr_equal(tally_hop(&t, STR_LIT("[new]"), STR_LIT("")), t.rest);
}

static void test_senders(void **state) {
    static struct tally t; /* a process keeps it for life */
    size_t n = 2;
    (void)state;
    tally_tick(&t, 1000);
    count(&t, NULL, "few@x", MAIL_SENT, "");
    for (int i = 0; i < 5; i++)
        count(&t, NULL, "many@x", i == 0 ? MAIL_BOUNCED : MAIL_SENT, "");
    count(&t, NULL, "", MAIL_SENT, "");
    count(&t, NULL, "", MAIL_SENT, "");
    const struct sender_count **v = tally_busiest(&t, &n);
    assert_true(n == 2 && v[0]->count[MAIL_SENT] == 4 && v[0]->count[MAIL_BOUNCED] == 1);
    assert_string_equal(v[0]->sender, "many@x");
    assert_string_equal(v[1]->sender, "");
    free(v);
    tally_tick(&t, 1000 + 86400000000LL); /* a new day */
    n = 10;
    v = tally_busiest(&t, &n);
    assert_int_equal(n, 0);
    free(v);
    assert_true(t.count[MAIL_SENT] == 7);
}

static struct sched *sched_make(void) {
    static const struct sched_ops ops;
    struct config *cfg =
        bundle_config(STR_LIT("myhostname = mta.example\n"), STR_LIT("smtp unix - - n - - smtp\n"));
    return sched_new(loop_new(0), NULL, cfg, &ops);
}

static struct dest *dest_of(struct sched *s, const char *nexthop, const char *record,
                            bool configured) {
    struct route r = {.transport = config_transport(s->cfg, STR_LIT("smtp")),
                      .configured = configured};
    sbuf_add_c(&r.nexthop, nexthop);
    sbuf_add_c(&r.record, record);
    struct dest *d = dest_get(s, &r);
    sbuf_free(&r.nexthop);
    sbuf_free(&r.record);
    return d;
}

/* Every part of the key makes another destination; case of the next hop does not, and no separator
 * can stand inside a part. */
static void test_dest_identity(void **state) {
    (void)state;
    struct sched *s = sched_make();
    struct dest *d = dest_of(s, "[Far.example]:587", "", true);
    assert_ptr_equal(d, dest_of(s, "[far.EXAMPLE]:587", "", true));
    assert_ptr_not_equal(d, dest_of(s, "[far.example]:587", "", false));
    assert_ptr_not_equal(d, dest_of(s, "[far.example]:587", "x", true));
    assert_ptr_not_equal(d, dest_of(s, "[far.example]:588", "", true));
    assert_ptr_not_equal(dest_of(s, "a\nb", "c", true), dest_of(s, "a", "b\nc", true));
}

/* 20,000 domains that nothing waits for any more: only some are remembered, and in use is not idle.
 */
static void test_dests_bounded(void **state) {
    (void)state;
    struct sched *s = sched_make();
    int64_t now = s->loop->now_ms;
    struct dest *used = dest_of(s, "used.example", "", false);
    dest_use(used);
    for (int i = 0; i < 20000; i++) {
        char name[40];
        snprintf(name, sizeof name, "d%d.example", i);
        dest_of(s, name, "", false);
    }
    for (int i = 0; i < 40; i++)
        dest_tick(s, now);
    assert_true(s->dests.n <= 4097 && s->n_idle_dests <= 4096);
    assert_ptr_equal(used, dest_of(s, "used.example", "", false));
    for (int i = 0; i < 40; i++)
        dest_tick(s, now + 61000);
    assert_int_equal(s->dests.n, 1);
    dest_unuse(s, used);
    dest_tick(s, now + 61000 * 2);
    assert_int_equal(s->dests.n, 0);
}

/* Recipients that wait for the same share a reason; messages are counted once; nothing is left. */
static void test_reasons(void **state) {
    (void)state;
    struct sched *s = sched_make();
    struct rcpt rcpts[3] = {
        {.addr = STR_LIT("a@x")}, {.addr = STR_LIT("b@x")}, {.addr = STR_LIT("c@x")}};
    struct envelope t = {.id = 7, .n_rcpts = 3, .rcpts = rcpts};
    struct mailerr refused = {0}, full = {0};
    size_t n;
    mailerr_set(&refused, MAIL_DEFERRED, "4.4.1", "refused");
    mailerr_set(&full, MAIL_DEFERRED, "4.2.2", "full");
    mailerr_remote(&full, "mx", STR_LIT("452 full"));
    struct progress p = {.n = 3, .done = (uint8_t[]){0, 0, 0}};
    struct sbuf b = {0};
    progress_encode(&p, &b);
    sched_recover(s, envelope_make(&t), sbuf_str(&b));
    struct msg *m = itab_get(&s->msgs, 7);
    msg_count_reasons(m, false);
    msg_result(m, 0, &refused, false);
    msg_result(m, 1, &refused, false);
    msg_result(m, 2, &full, false);
    msg_count_reasons(m, true);
    struct sched_reason *v = sched_reasons(s, &n);
    assert_true(n == 2 && v[0].messages == 1 && v[1].messages == 1);
    free(v);
    sbuf_reset(&b);
    msg_encode(m, SETTLE_NOTHING, &b);
    struct progress q;
    assert_true(progress_decode(&q, sbuf_str(&b)));
    assert_true(q.n_errors == 2 && q.error_of[0] == 1 && q.error_of[1] == 1 && q.error_of[2] == 2);
    assert_str(q.errors[1].reply, "452 full");
    progress_free(&q);
    msg_free(m);
    assert_true(s->reasons.n == 0 && s->msgs.n == 0);
    mailerr_free(&refused);
    mailerr_free(&full);
    sbuf_free(&b);
}

/* A success whose report is owed is no longer to be delivered, in memory and in the record. */
static void test_owed_report(void **state) {
    (void)state;
    struct sched *s = sched_make();
    struct rcpt rcpts[2] = {{.addr = STR_LIT("a@x")}, {.addr = STR_LIT("b@x")}};
    struct envelope t = {.id = 8, .n_rcpts = 2, .rcpts = rcpts};
    struct mailerr sent = {0}, bad = {0};
    struct sbuf b = {0};
    struct progress q;
    mailerr_set(&sent, MAIL_SENT, "2.0.0", "ok");
    mailerr_set(&bad, MAIL_BOUNCED, "5.1.1", "no");
    sched_recover(s, envelope_make(&t), STR_NONE);
    struct msg *m = itab_get(&s->msgs, 8);
    msg_count_reasons(m, false);
    msg_result(m, 0, &sent, true);
    msg_result(m, 1, &bad, false);
    assert_true(m->left == 1 && m->failed == 1 && m->reporting == 1);
    static const struct {
        enum settle what;
        uint8_t first, second;
    } cases[] = {{SETTLE_NOTHING, RCPT_REPORT, RCPT_WAITS},
                 {SETTLE_FAILED, RCPT_REPORT, RCPT_DONE},
                 {SETTLE_REPORTED, RCPT_DONE, RCPT_WAITS}};
    for (size_t i = 0; i < 3; i++) {
        sbuf_reset(&b);
        msg_encode(m, cases[i].what, &b);
        assert_true(progress_decode(&q, sbuf_str(&b)));
        assert_true(q.done[0] == cases[i].first && q.done[1] == cases[i].second);
        progress_free(&q);
    }
    msg_result(m, 0, &bad, false); /* a second result changes nothing */
    assert_true(m->reporting == 1);
    msg_free(m);
    mailerr_free(&sent);
    mailerr_free(&bad);
    sbuf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hops),          cmocka_unit_test(test_senders),
        cmocka_unit_test(test_dest_identity), cmocka_unit_test(test_dests_bounded),
        cmocka_unit_test(test_reasons),       cmocka_unit_test(test_owed_report)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
