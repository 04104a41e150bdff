/*
 * tests/unit/schedule.c - counting what becomes of mail; destinations and reasons, which are
 * bounded
 */
#include "unit.h"

#include <errno.h>
#include <unistd.h>

#include "../fuzz/bundle.h"
#include "mail/address.h"
#include "schedule/dest.h"
#include "schedule/dispatch.h"
#include "schedule/forward.h"
#include "schedule/msg.h"
#include "schedule/rcpt.h"
#include "schedule/sched.h"
#include "spool/inside.h"
#include "spool/spool.h"
#include "util/clock.h"
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

/* ---- a scheduler with a spool and sessions that the test plays ---- */

#define RIG_GIVEN 64

struct rig {
    struct sched *s;
    struct spool *spool;
    struct attempt *given[RIG_GIVEN]; /* with a session, in the order of giving */
    size_t n_given;
    size_t n_sessions;
    size_t n_recalls;
};

struct rig_session {
    struct rig *rig;
    void *slot;
};

static void *rig_session_new(void *arg, void *slot) {
    struct rig_session *x = MEM_NEW(struct rig_session);
    x->rig = arg;
    x->slot = slot;
    x->rig->n_sessions++;
    return x;
}

static void rig_session_give(void *session, struct attempt *a) {
    struct rig_session *x = session;
    a->task_session = x->slot;
    x->rig->given[x->rig->n_given++] = a;
}

static void rig_session_release(void *session) {
    struct rig_session *x = session;
    x->rig->n_sessions--;
    free(x);
}

static void rig_session_recall(void *session) {
    ((struct rig_session *)session)->rig->n_recalls++;
}

static bool rig_no_sync; /* the disk makes nothing durable */
static int rig_sync(void *arg, int fd) {
    return rig_no_sync ? -EIO : spool_io_disk.datasync(arg, fd);
}

static void rig_found(void *arg, const struct spool_found *f) {
    struct rig *r = arg;
    struct envelope *env = envelope_decode(f->meta);
    assert_non_null(env);
    assert_true(sched_recover(r->s, env, f->progress));
}

static struct config *rig_config(const char *main_cf) {
    struct sbuf b = {0};
    sbuf_printf(&b, "myhostname = mta.example\nsender_dependent_relayhost_maps =\n%s", main_cf);
    struct config *cfg = bundle_config(
        sbuf_str(&b), STR_LIT("smtp unix - - n - - smtp\nslow unix - - n - - smtp\n"
                              "few unix - - n - 2 smtp\none unix - - n - 1 smtp\n"
                              "error unix - - n - - error\ndiscard unix - - n - - discard\nretry "
                              "unix - - n - - error\nbounce unix - - n - 0 bounce\n"));
    sbuf_free(&b);
    return cfg;
}

/* What the spool in dir has is found again. */
static void rig_open(struct rig *r, const char *main_cf) {
    struct sched_ops ops = {.session_new = rig_session_new,
                            .session_give = rig_session_give,
                            .session_release = rig_session_release,
                            .session_recall = rig_session_recall,
                            .arg = r};
    struct spool_conf conf = {dir, 1U << 20};
    static struct spool_io io;
    struct loop *loop = loop_new(0);
    char *why;
    io = spool_io_disk;
    io.datasync = rig_sync;
    rig_no_sync = false;
    *r = (struct rig){0};
    r->s = sched_new(loop, lookup_new(loop), rig_config(main_cf), &ops);
    assert_int_equal(spool_open(&r->spool, &conf, &io, rig_found, r, &why), 0);
    sched_set_spool(r->s, r->spool);
    r->s->drift_us = clock_wall_us() - clock_mono_ms() * 1000;
}

static void rig_loop(struct rig *r) {
    for (int i = 0; i < 20; i++)
        uv_run(&r->s->loop->uv, UV_RUN_NOWAIT);
}

/* Until nothing is left to do at once. */
static void rig_turn(struct rig *r) {
    for (int i = 0; i < 10; i++) {
        rig_loop(r);
        spool_turn(r->spool);
    }
    rig_loop(r);
}

static uint64_t rig_id(void) {
    uint64_t id;
    char qid[QID_MAX];
    qid_next(false, &id, qid);
    return id;
}

static void rig_new_done(struct spool_op *op) {
    assert_int_equal(op->rc, 0);
}

static uint32_t rig_notify; /* of each recipient of the next message */

/* A message to those addresses (separated by blanks), stored and queued; the message, if it is
 * queued still when nothing more happens by itself. */
static struct msg *rig_mail(struct rig *r, const char *sender, const char *rcpts) {
    struct rcpt list[8] = {0};
    struct envelope tmpl = {.id = rig_id(), .arrival_us = clock_wall_us(), .size = 9};
    struct sbuf content = {0};
    struct str rest = str_of(rcpts), word;
    tmpl.sender = str_of(sender);
    tmpl.rcpts = list;
    while (str_split(&rest, " ", &word))
        list[tmpl.n_rcpts++] = (struct rcpt){.addr = word, .notify = rig_notify};
    rig_notify = 0;
    snprintf(tmpl.qid, sizeof tmpl.qid, "%llX", (unsigned long long)tmpl.id);
    sbuf_add_c(&content, "S: x\r\n\r\ny\r\n");
    struct spool_op op = {.kind = SPOOL_NEW, .id = tmpl.id, .done = rig_new_done};
    struct envelope *env = envelope_make(&tmpl);
    envelope_encode(env, &op.meta);
    op.body = body_from_buf(&content);
    spool_submit(r->spool, &op);
    spool_turn(r->spool);
    sbuf_free(&op.meta);
    sched_add(r->s, env, op.body);
    rig_turn(r);
    return itab_get(&r->s->msgs, tmpl.id);
}

struct rig_result {
    enum mail_status status;
    enum mail_blame blame;
    const char *dsn, *text;
};

/* The oldest attempt comes back, with a result for each of its recipients. */
static void rig_answer(struct rig *r, const struct rig_result *results) {
    struct attempt *a = r->given[0];
    assert_true(r->n_given > 0);
    memmove(r->given, r->given + 1, --r->n_given * sizeof(struct attempt *));
    for (uint32_t i = 0; i < a->n; i++) {
        mailerr_set(&a->res[i], results[i].status, results[i].dsn, "%s", results[i].text);
        mailerr_blame(&a->res[i], PHASE_CONNECT, results[i].blame);
        a->tried[i] = true;
    }
    a->outcome = ATTEMPT_TRIED;
    sched_result(r->s, a->task_session, a);
    rig_turn(r);
}

/* The oldest attempt comes back as it was given. */
static void rig_return(struct rig *r) {
    struct attempt *a = r->given[0];
    memmove(r->given, r->given + 1, --r->n_given * sizeof(struct attempt *));
    a->outcome = ATTEMPT_RETURNED;
    sched_result(r->s, a->task_session, a);
    rig_turn(r);
}

/* The process ends as if it were killed: only what is in the spool counts. */
static void rig_close(struct rig *r) {
    spool_close(r->spool);
}

static const char *why_waits(const struct msg *m, uint32_t i) {
    assert_non_null(m->rcpts[i].why);
    return m->rcpts[i].why->err.text;
}

static const struct rig_result sent = {MAIL_SENT, BLAME_MESSAGE, "2.0.0", "250 ok"};
static const struct rig_result gone = {MAIL_BOUNCED, BLAME_RECIPIENT, "5.1.1",
                                       "host said: 550 no ann@away.example here"};
static const struct rig_result refused = {MAIL_DEFERRED, BLAME_SITE, "4.4.1",
                                          "connect to far.example: Connection refused"};

/* A destination rests with what is said of the site, not with what was said of a recipient. */
static void test_rests_with_the_sites_error(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "relayhost = [far.example]:2525\ninitial_destination_concurrency = 1\n");
    rig_mail(&r, "", "ann@away.example bob@away.example");
    rig_answer(&r, (const struct rig_result[]){gone, refused});
    const struct msg *m = rig_mail(&r, "carl@here.example", "dora@away.example");
    assert_int_equal(r.n_given, 0); /* it was not tried */
    assert_string_equal(
        why_waits(m, 0),
        "delivery temporarily suspended: connect to far.example: Connection refused");
    assert_true(m->rcpts[0].why->err.blame == BLAME_SITE);
    assert_string_equal(m->rcpts[0].why->err.dsn, "4.4.1");
    rig_close(&r);
}

/* How many mails one after the other the destination takes that are all refused, of at most 30. */
static int refused_until_rest(struct rig *r) {
    for (int n = 0; n < 30; n++) {
        rig_mail(r, "", "ann@away.example");
        if (r->n_given == 0)
            return n;
        rig_answer(r, &refused);
    }
    return 30;
}

/* One session of many that is refused is no reason to rest: as many failures as there may be
 * sessions are, each weighed by how many there might be then, with no success between them. */
static void test_a_cohort_has_to_fail(void **state) {
    static const struct {
        const char *settings;
        int until;
    } rows[] = {{"initial_destination_concurrency = 1\n", 1},
                {"", 4}, /* 1/5 + 1/4 + 1/3 + 1/2 */
                {"initial_destination_concurrency = 3\n", 3},
                {"smtp_destination_concurrency_limit = 2\n", 2},
                {"smtp_destination_concurrency_limit = 1\n"
                 "default_destination_concurrency_failed_cohort_limit = 3\n",
                 3},
                {"default_destination_concurrency_failed_cohort_limit = 0\n", 30}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct rig r;
        struct sbuf main = {0};
        sbuf_printf(&main, "relayhost = [far.example]:2525\n%s", rows[i].settings);
        rig_open(&r, main.p);
        assert_int_equal(refused_until_rest(&r), rows[i].until);
        sbuf_free(&main);
        rig_close(&r);
    }
    struct rig r;
    rig_open(&r, "relayhost = [far.example]:2525\n");
    for (int i = 0; i < 40; i++) { /* the host turns away what is too much for it */
        rig_mail(&r, "", "ann@away.example");
        assert_int_equal(r.n_given, 1);
        rig_answer(&r, i % 2 == 0 ? &sent : &refused);
    }
    rig_close(&r);
}

/* What makes the site's mail bounce is no reason to rest: the next one bounces, too. */
static void test_a_bounce_is_no_rest(void **state) {
    static const struct rig_result nowhere = {MAIL_BOUNCED, BLAME_SITE, "5.4.4",
                                              "Host or domain name not found"};
    struct rig r;
    (void)state;
    rig_open(&r, "");
    rig_mail(&r, "", "ann@nowhere.example");
    rig_answer(&r, &nowhere);
    rig_mail(&r, "", "bob@nowhere.example");
    assert_int_equal(r.n_given, 1);
    rig_close(&r);
}

/* What was met with settings that a reload has replaced does not make the destination rest; nor
 * does it count as the site's success or failure. */
static void test_old_settings_teach_nothing(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "relayhost = [far.example]:2525\n");
    rig_mail(&r, "", "ann@away.example");
    rig_mail(&r, "", "bob@away.example");
    rig_answer(&r, &refused); /* of five sessions four are left */
    sched_reload(r.s, rig_config("relayhost = [far.example]:2525\n"));
    const struct msg *waits = rig_mail(&r, "", "carl@away.example");
    rig_answer(&r, &refused); /* bob, with the old settings */
    assert_int_equal(r.n_given, 1);
    rig_mail(&r, "", "dora@away.example");
    assert_int_equal(r.n_given, 2);
    rig_answer(&r, &refused); /* carl, with the new ones: 1/4 */
    assert_string_equal(why_waits(waits, 0), refused.text);
    rig_answer(&r, &refused); /* dora: 1/3 */
    assert_int_equal(refused_until_rest(&r), 1);
    rig_close(&r);
}

/* A fault on our side says nothing of the site: failures in a row stay in a row. */
static void test_our_faults_teach_nothing(void **state) {
    static const struct rig_result ours = {MAIL_DEFERRED, BLAME_OURSELVES, "4.3.0", "no table"};
    struct rig r;
    (void)state;
    rig_open(&r, "relayhost = [far.example]:2525\n"
                 "initial_destination_concurrency = 1\n"
                 "default_destination_concurrency_failed_cohort_limit = 2\n");
    static const struct rig_result *const results[] = {&refused, &ours, &refused};
    for (int i = 0; i < 3; i++) {
        rig_mail(&r, "", "ann@away.example");
        rig_answer(&r, results[i]);
    }
    rig_mail(&r, "", "bob@away.example");
    assert_int_equal(r.n_given, 0);
    rig_close(&r);
}

static size_t order_one(struct rig *r, enum sched_act act, const struct msg *m) {
    struct htab ids = {0};
    struct sched_filter f = SCHED_ALL;
    htab_put(&ids, str_of(m->env->qid), r);
    f.ids = &ids;
    size_t n = sched_act(r->s, act, &f, NULL);
    htab_free(&ids);
    return n;
}

static void given_to(const struct rig *r, size_t i, const char *rcpt) {
    const struct attempt *a = r->given[i];
    assert_true(i < r->n_given);
    assert_str(a->env->rcpts[a->idx[0]].addr, rcpt);
}

/* master.cf's process limit counts the sessions of a transport, whatever their destinations; an
 * idle one makes room for another destination. */
static void test_process_limit_of_a_transport(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "default_transport = few\n");
    for (int i = 0; i < 5; i++) {
        char rcpt[40];
        snprintf(rcpt, sizeof rcpt, "u@d%d.example", i);
        rig_mail(&r, "", rcpt);
    }
    assert_true(r.n_given == 2 && r.n_sessions == 2);
    for (int left = 5; left > 0; left--) {
        assert_true(r.n_given == (left < 2 ? 1U : 2U) && r.n_sessions == 2);
        rig_answer(&r, &sent);
    }
    assert_int_equal(r.s->msgs.n, 0);
    rig_close(&r);
}

/* … each in its turn: the backlog of one does not keep the only session from the others. */
static void test_turns_under_a_process_limit(void **state) {
    static const char *const order[] = {"1@a.example", "2@a.example", "4@b.example", "5@c.example",
                                        "3@a.example"};
    struct rig r;
    (void)state;
    rig_open(&r, "default_transport = one\n");
    rig_mail(&r, "", "1@a.example");
    rig_mail(&r, "", "2@a.example");
    rig_mail(&r, "", "3@a.example");
    rig_mail(&r, "", "4@b.example");
    struct msg *gone_again = rig_mail(&r, "", "6@d.example");
    rig_mail(&r, "", "5@c.example");
    order_one(&r, ACT_DELETE, gone_again);
    for (size_t i = 0; i < 5; i++) {
        assert_true(r.n_given == 1 && r.n_sessions == 1);
        given_to(&r, 0, order[i]);
        rig_answer(&r, &sent);
    }
    rig_mail(&r, "", "1@a.example");
    rig_mail(&r, "", "4@b.example");
    assert_int_equal(r.n_given, 1);
    sched_reload(r.s, rig_config("default_transport = one\n"));
    sched_run_due(r.s); /* what waits is routed anew */
    rig_turn(&r);
    assert_int_equal(r.n_given, 1);
    rig_answer(&r, &sent);
    rig_turn(&r);
    given_to(&r, 0, "4@b.example");
    rig_close(&r);
}

/* A session gave back what it had not begun: another one gets what has no result yet. */
static void test_a_returned_attempt_goes_on(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "relayhost = [far.example]:2525\n");
    struct msg *m = rig_mail(&r, "", "ann@away.example bob@away.example");
    mailerr_set(&r.given[0]->res[0], MAIL_BOUNCED, "5.1.1", "no");
    r.given[0]->tried[0] = true;
    rig_return(&r);
    assert_true(r.n_given == 1 && r.given[0]->n == 1 && r.given[0]->idx[0] == 1);
    assert_true(m->failed == 1 && m->open == 1);
    rig_answer(&r, &sent);
    assert_int_equal(r.s->msgs.n, 0);
    rig_close(&r);
}

/* Progress of a newer version, or of another number of recipients, says that somebody may have the
 * mail: it is not sent again, and what the spool has of it stays. */
static void test_unknown_progress_is_not_none(void **state) {
    static uint8_t done[3] = {RCPT_DONE, RCPT_WAITS, RCPT_WAITS};
    struct rcpt rcpts[2] = {{.addr = STR_LIT("a@x")}, {.addr = STR_LIT("b@x")}};
    struct envelope t = {.id = 77, .n_rcpts = 2, .rcpts = rcpts};
    struct rig r;
    (void)state;
    rig_open(&r, "relayhost = [far.example]:2525\n");
    for (int i = 0; i < 4; i++) {
        struct progress p = {.n = i == 1 ? 3 : i == 2 ? 1 : 2, .done = done};
        struct sbuf b = {0};
        done[1] = i == 3 ? 9 : RCPT_WAITS;
        progress_encode(&p, &b);
        if (i == 0)
            b.p[0] = 99; /* the version */
        assert_false(sched_recover(r.s, envelope_make(&t), sbuf_str(&b)));
        sbuf_free(&b);
    }
    sched_run_due(r.s);
    rig_turn(&r);
    assert_true(r.n_given == 0 && r.s->msgs.n == 0);
    rig_close(&r);
}

static void order_durable(void *arg, int rc) {
    *(int *)arg = rc;
}

/* An order is called done when it is durable, and not before; also that the disk does not take it
 * is said. */
static void test_an_order_is_done_when_it_is_durable(void **state) {
    static const enum sched_act acts[] = {ACT_HOLD, ACT_RELEASE, ACT_EXPIRE, ACT_DELETE};
    struct rig r;
    int told = 1;
    (void)state;
    rig_open(&r, "relayhost = [far.example]:2525\n");
    for (size_t i = 0; i < 4; i++) { /* on the wire */
        const struct msg *m = rig_mail(&r, "", "ann@away.example");
        assert_int_equal(order_one(&r, acts[i], m), 1);
        told = 1;
        sched_when_durable(r.s, order_durable, &told);
        rig_loop(&r);
        assert_int_equal(told, 1);
        spool_turn(r.spool);
        rig_loop(&r);
        assert_int_equal(told, 0);
    }
    const struct msg *m = rig_mail(&r, "", "bob@away.example");
    rig_no_sync = true;
    order_one(&r, ACT_DELETE, m);
    sched_when_durable(r.s, order_durable, &told);
    rig_turn(&r);
    assert_int_equal(told, -EIO);
    rig_no_sync = false;
    sched_when_durable(r.s, order_durable, &told);
    rig_turn(&r);
    assert_int_equal(told, 0);
    rig_close(&r);
    rig_open(&r, "");
    assert_int_equal(r.s->msgs.n, 3); /* the deleted ones are not there */
    rig_close(&r);
}

/* While a report is being written an order is noted behind it, and done after that. */
static void test_an_order_during_a_report(void **state) {
    struct rig r;
    int told = 1, too = 1;
    (void)state;
    rig_open(&r, "relayhost = [far.example]:2525\n");
    const struct msg *m = rig_mail(&r, "carl@here.example", "ann@away.example bob@away.example");
    struct attempt *a = r.given[0];
    for (uint32_t i = 0; i < 2; i++) {
        const struct rig_result *x = i == 0 ? &gone : &refused;
        mailerr_set(&a->res[i], x->status, x->dsn, "%s", x->text);
        mailerr_blame(&a->res[i], PHASE_CONNECT, x->blame);
        a->tried[i] = true;
    }
    a->outcome = ATTEMPT_TRIED;
    sched_result(r.s, a->task_session, a);
    rig_loop(&r);
    assert_true(m->finishing);
    assert_int_equal(order_one(&r, ACT_HOLD, m), 1);
    sched_when_durable(r.s, order_durable, &told);
    spool_turn(r.spool); /* the report */
    rig_loop(&r);
    assert_true(m->queue == QUEUE_HOLD && told == 1);
    spool_turn(r.spool); /* the progress */
    rig_loop(&r);
    assert_true(told == 0 && r.s->n_owed == 0);
    /* The order may be owed longer than a sync takes. */
    struct msg *x = itab_get(&r.s->msgs, m->env->id);
    x->owed = true;
    r.s->n_owed++;
    sched_when_durable(r.s, order_durable, &too);
    rig_turn(&r);
    assert_int_equal(too, 1);
    msg_save_progress(x);
    rig_loop(&r);
    assert_int_equal(too, 1);
    rig_turn(&r);
    assert_int_equal(too, 0);
    rig_close(&r);
}

/* Content that comes back from the disk when the daemon is stopping goes to no session. */
static void test_nothing_is_given_after_stop(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "relayhost = [far.example]:2525\n");
    rig_mail(&r, "ann@here.example", "bob@away.example");
    assert_int_equal(r.n_given, 1);
    rig_close(&r);
    rig_open(&r, "relayhost = [far.example]:2525\n");
    sched_run_due(r.s);
    rig_loop(&r); /* routed; the content is asked for */
    assert_int_equal(r.n_given, 0);
    assert_true(sched_stop(r.s));
    rig_turn(&r);
    assert_int_equal(r.n_given, 0);
    rig_close(&r);
    rig_open(&r, "relayhost = [far.example]:2525\n");
    sched_run_due(r.s);
    rig_turn(&r);
    assert_int_equal(r.n_given, 1);
    rig_answer(&r, &sent);
    assert_int_equal(r.s->msgs.n, 0);
    rig_close(&r);
}

/* The content of a queued message changes on the disk. */
static void damage(struct rig *r, const struct msg *m) {
    const struct entry *e = itab_get(&r->spool->index, m->env->id);
    off_t at = (off_t)(entry_off(e) + sizeof(struct rec_head) + e->meta_len);
    assert_int_equal(pwrite(e->seg->fd, "?", 1, at), 1);
}

/* Content that cannot be read back makes its message wait, and in the end a report without it. */
static void test_unreadable_content(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "relayhost = [far.example]:2525\n");
    const struct msg *m = rig_mail(&r, "carl@here.example", "ann@away.example");
    rig_answer(&r, &refused);
    damage(&r, m);
    assert_int_equal(sched_flush(r.s), 1);
    rig_turn(&r);
    assert_string_equal(why_waits(m, 0), "cannot read the message content: it was damaged on disk");
    assert_int_equal(r.n_given, 0);
    assert_int_equal(order_one(&r, ACT_EXPIRE, m), 1);
    rig_turn(&r);
    assert_true(r.s->msgs.n == 1 && r.n_given == 1);
    given_to(&r, 0, "carl@here.example");
    rig_close(&r);
}

/* Orders for a message whose content is just being read back, for a session or for a report. */
static void test_orders_while_content_is_read(void **state) {
    static const enum sched_act acts[] = {ACT_HOLD, ACT_DELETE};
    struct rig r;
    (void)state;
    rig_open(&r, "relayhost = [far.example]:2525\n");
    for (size_t i = 0; i < 2; i++) {
        const struct msg *m = rig_mail(&r, "", "ann@away.example");
        uint64_t id = m->env->id;
        rig_answer(&r, &refused);
        sched_flush(r.s);
        rig_loop(&r);
        assert_true(m->reading);
        assert_int_equal(order_one(&r, acts[i], m), 1);
        rig_turn(&r);
        assert_int_equal(r.n_given, 0);
        m = itab_get(&r.s->msgs, id);
        assert_true(acts[i] == ACT_DELETE ? m == NULL : m->queue == QUEUE_HOLD);
        sched_flush(r.s); /* nothing of it is left at the destination */
    }
    const struct msg *m = rig_mail(&r, "carl@here.example", "ann@away.example");
    rig_answer(&r, &refused);
    order_one(&r, ACT_EXPIRE, m);
    assert_true(m->finishing);
    order_one(&r, ACT_DELETE, m);
    rig_turn(&r);
    assert_true(r.s->msgs.n == 1 && r.n_given == 0); /* no report of what was deleted */
    rig_close(&r);
}

static void test_limits_of_a_destination(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "default_destination_concurrency_limit = 0\ninitial_destination_concurrency = 0\n"
                 "default_destination_recipient_limit = 1\n");
    rig_mail(&r, "", "ann@away.example bob@away.example");
    assert_int_equal(r.n_given, 2);
    assert_true(dest_of(r.s, "away.example", "", false)->max_window == 1000 &&
                dest_of(r.s, "away.example", "", false)->window == 1000);
    rig_close(&r);
    rig_open(&r, "default_destination_concurrency_limit = 1\n"
                 "default_destination_recipient_limit = 0\n");
    for (int i = 0; i < 5; i++) /* three at a time in one session */
        rig_mail(&r, "", "ann@near.example bob@near.example");
    assert_true(r.n_given == 3 && r.n_sessions == 1 && r.given[0]->n == 2);
    rig_close(&r);
}

static void test_rate_delay(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "default_destination_rate_delay = 3s\n");
    for (int i = 0; i < 2; i++)
        rig_mail(&r, "", "ann@away.example");
    assert_int_equal(r.n_given, 1);
    rig_answer(&r, &sent);
    dispatch_tick(r.s, r.s->loop->now_ms);
    assert_int_equal(r.n_given, 0);
    r.s->loop->now_ms += 3000;
    dispatch_tick(r.s, r.s->loop->now_ms);
    assert_int_equal(r.n_given, 1);
    rig_mail(&r, "", "ann@away.example");
    dest_wake_all(r.s);
    rig_answer(&r, &sent);
    r.s->loop->now_ms += 3000;
    dispatch_tick(r.s, r.s->loop->now_ms);
    assert_int_equal(r.n_given, 1);
    rig_answer(&r, &sent);
    r.s->loop->now_ms += 11000; /* the idle session goes */
    dispatch_tick(r.s, r.s->loop->now_ms);
    assert_int_equal(r.n_sessions, 0);
    rig_close(&r);
}

/* With sender-dependent authentication a session is one sender's, until it has nothing to do. */
static void test_sessions_of_senders(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "smtp_sender_dependent_authentication = yes\n"
                 "default_destination_concurrency_limit = 1\n");
    rig_mail(&r, "ann@here.example", "x@away.example");
    rig_mail(&r, "bob@here.example", "y@away.example");
    rig_mail(&r, "ann@here.example", "z@away.example");
    assert_int_equal(r.n_given, 1);
    rig_answer(&r, &sent);
    assert_true(r.n_given == 1 && r.n_sessions == 1);
    rig_answer(&r, &sent);
    assert_true(r.n_given == 1 && r.n_sessions == 1);
    rig_close(&r);
}

/* What no session tries: transports that answer by themselves, and those that wait for a flush. */
static void test_without_a_session(void **state) {
    static const struct {
        const char *conf, *text; /* text NULL: the mail is gone */
    } cases[] = {
        {"default_transport = error:5.7.1 not this way\nsoft_bounce = yes\n", "not this way"},
        {"default_transport = retry:4.7.2 later\n", "later"},
        {"default_transport = discard:x\n", NULL},
        {"defer_transports = smtp\n", "deferred transport"},
        {"default_transport = nowhere\n",
         "mail transport unavailable: nowhere is not a transport of Posthouse"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rig r;
        rig_open(&r, cases[i].conf);
        struct msg *m = rig_mail(&r, "", "ann@away.example");
        assert_true((m == NULL) == (cases[i].text == NULL) && r.n_given == 0);
        if (m != NULL) {
            assert_string_equal(why_waits(m, 0), cases[i].text);
            order_one(&r, ACT_DELETE, m);
            rig_turn(&r);
        }
        rig_close(&r);
    }
}

/* A session that gives no result, or one without a text: the mail waits. */
static void test_a_result_is_missing(void **state) {
    struct rig r;
    char text[3001];
    (void)state;
    rig_open(&r, "");
    const struct msg *m = rig_mail(&r, "", "ann@away.example bob@away.example");
    memset(text, 'x', 3000);
    text[3000] = '\0';
    struct attempt *a = r.given[0];
    mailerr_set(&a->res[1], MAIL_DEFERRED, "4.2.0", "%s", text);
    mailerr_blame(&a->res[1], PHASE_MAIL, BLAME_RECIPIENT);
    a->tried[1] = true;
    a->outcome = ATTEMPT_TRIED;
    sched_result(r.s, a->task_session, a);
    rig_turn(&r);
    assert_string_equal(why_waits(m, 0), "internal error: no result");
    assert_int_equal(strlen(why_waits(m, 1)), 1000);
    rig_close(&r);
}

/* A delivery whose report of success cannot be queued: the report is tried again, and given up with
 * the message's age. */
static void test_report_of_success(void **state) {
    struct rig r;
    (void)state;
    for (int old = 0; old < 2; old++) {
        rig_open(&r, old ? "maximal_queue_lifetime = 0\n" : "");
        rig_notify = NOTIFY_SUCCESS;
        struct msg *m = rig_mail(&r, "carl@here.example", "ann@away.example");
        uint64_t id = m->env->id;
        rig_no_sync = true;
        rig_answer(&r, &sent);
        m = itab_get(&r.s->msgs, id);
        assert_true(r.n_given == 0 && (m == NULL) == old);
        rig_no_sync = false;
        if (!old) {
            assert_true(m->reporting == 1 && m->left == 0);
            order_one(&r, ACT_RETRY, m);
            rig_turn(&r);
            given_to(&r, 0, "carl@here.example");
            rig_answer(&r, &sent);
        }
        rig_turn(&r);
        assert_int_equal(r.s->msgs.n, 0);
        rig_close(&r);
    }
}

/* The recipient turned out to be an alias of that address. */
static void rig_alias(struct msg *m, uint32_t rcpt, const char *addr) {
    struct alias_result res = {.rc = ALIAS_OK, .graph = MEM_NEW(struct alias_graph)};
    alias_graph_add(res.graph, 0, m->env->rcpts[rcpt].addr);
    alias_graph_add(res.graph, 0, str_of(addr));
    res.graph->v[0]->name = mem_strdup("alias");
    forward_keep(m, rcpt, &res);
}

/* What a relay host has taken is noted before what an alias stands for is copied: the copy may take
 * its time, or find no room. */
static void test_delivered_is_noted_before_aliases_go_on(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "relayhost = [far.example]:2525\nspool_body_file_size = 1\n");
    struct msg *m = rig_mail(&r, "carl@here.example", "ann@away.example root@here.example");
    uint64_t id = m->env->id;
    rig_alias(m, 1, "bob@away.example");
    struct attempt *a = r.given[0];
    mailerr_set(&a->res[0], MAIL_SENT, "2.0.0", "250 ok");
    a->tried[0] = true;
    a->outcome = ATTEMPT_TRIED;
    a->n = 1;
    sched_result(r.s, a->task_session, a);
    rig_loop(&r);
    assert_true(m->finishing);
    spool_turn(r.spool);
    rig_close(&r); /* before the new message is made */
    rig_open(&r, "");
    m = itab_get(&r.s->msgs, id);
    assert_true(m->rcpts[0].state == RCPT_DONE && m->rcpts[1].state == RCPT_WAITS);
    rig_close(&r);
}

/* The recipient turned out to be an alias of an address and of two lists, of one address each. */
static void rig_lists(struct msg *m, uint32_t rcpt) {
    static const char *const names[] = {"crew", "dock"};
    struct alias_result res = {.rc = ALIAS_OK, .graph = MEM_NEW(struct alias_graph)};
    struct alias_graph *g = res.graph;
    alias_graph_add(g, 0, m->env->rcpts[rcpt].addr);
    alias_graph_add(g, 0, STR_LIT("eve@away.example"));
    g->v[0]->name = mem_strdup("all");
    for (uint32_t i = 0; i < 2; i++) {
        struct sbuf text = {0};
        uint32_t at = alias_graph_add(g, 0, str_of(names[i]));
        g->v[at]->name = mem_strdup(names[i]);
        sbuf_printf(&text, "owner-%s@here.example", names[i]);
        g->v[at]->owner = sbuf_take(&text);
        sbuf_printf(&text, "%s@away.example", names[i]);
        alias_graph_add(g, at, sbuf_str(&text));
        sbuf_free(&text);
    }
    forward_keep(m, rcpt, &res);
}

/* A message whose second recipient is to go on; its first one is delivered, so its round ends.
 * `turns` turns of the loop and the spool follow. */
static void rig_mail_to_lists(struct rig *r, int turns) {
    struct msg *m = rig_mail(r, "carl@here.example", "ann@away.example all@here.example");
    rig_lists(m, 1);
    struct attempt *a = r->given[0];
    mailerr_set(&a->res[0], MAIL_SENT, "2.0.0", "250 ok");
    a->tried[0] = true;
    a->outcome = ATTEMPT_TRIED;
    a->n = 1;
    r->n_given = 0;
    sched_result(r->s, a->task_session, a);
    for (int i = 0; i < turns; i++) {
        uv_run(&r->s->loop->uv, UV_RUN_NOWAIT);
        spool_turn(r->spool);
    }
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Who sends to whom in all attempts, in order. */
static void rig_given(const struct rig *r, struct sbuf *out) {
    char *lines[32];
    size_t n = 0;
    for (size_t i = 0; i < r->n_given; i++)
        for (uint32_t k = 0; k < r->given[i]->n; k++) {
            const struct envelope *env = r->given[i]->env;
            struct sbuf line = {0};
            sbuf_printf(&line, "%.*s>%.*s ", STR_FMT(addr_local(env->sender)),
                        STR_FMT(addr_local(env->rcpts[r->given[i]->idx[k]].addr)));
            assert_true(n < 32);
            lines[n++] = sbuf_take(&line);
        }
    qsort(lines, n, sizeof *lines, by_text);
    sbuf_reset(out);
    for (size_t i = 0; i < n; i++) {
        sbuf_add_c(out, lines[i]);
        free(lines[i]);
    }
}

#define LISTS_GO_ON "carl>eve owner-crew>crew owner-dock>dock "

/* Lists in an alias: wherever the process is killed, each address has the mail once, from the owner
 * of its list, or all of it is still to be done. */
static void test_lists_are_split_off(void **state) {
    struct rig r;
    struct sbuf given = {0};
    int whole = 0, ended = 0;
    for (int file = 0; file < 2; file++)
        for (int turns = 0; turns < 40; turns++) {
            const char *main_cf = file ? "relayhost = [far.example]\nspool_body_file_size = 1\n"
                                       : "relayhost = [far.example]\n";
            rig_open(&r, main_cf);
            rig_mail_to_lists(&r, turns);
            rig_close(&r);
            rig_open(&r, main_cf);
            sched_run_due(r.s);
            rig_turn(&r);
            rig_given(&r, &given);
            bool before =
                strcmp(given.p, "carl>all ") == 0 || strcmp(given.p, "carl>all carl>ann ") == 0;
            whole += before;
            ended += !before;
            if (!before)
                assert_string_equal(given.p, LISTS_GO_ON);
            rig_close(&r);
            dir_remove(state);
            dir_make(state);
        }
    assert_true(whole > 1 && ended > 40);
    sbuf_free(&given);
}

/* The message with the addresses of all lists, or NULL. */
static struct msg *rig_to_be_split(const struct rig *r) {
    size_t pos = 0;
    struct msg *m;
    while ((m = itab_next(&r->s->msgs, &pos)) != NULL && m->env->n_rcpts != 3) {
    }
    return m;
}

/* What has no room is split off later, and nothing is sent with another sender meanwhile. */
static void test_a_list_that_cannot_be_split_off_waits(void **state) {
    struct rig r;
    struct sbuf given = {0};
    (void)state;
    rig_open(&r, "relayhost = [far.example]\n");
    rig_mail_to_lists(&r, 0);
    struct msg *m = NULL;
    while ((m = rig_to_be_split(&r)) == NULL) {
        spool_turn(r.spool);
        uv_run(&r.s->loop->uv, UV_RUN_NOWAIT);
    }
    rig_no_sync = true;
    rig_turn(&r);
    rig_given(&r, &given);
    assert_string_equal(given.p, "carl>eve ");
    rig_answer(&r, &sent);
    assert_true(rig_to_be_split(&r) == m && m->left == 2 && m->queue == QUEUE_DEFERRED);
    assert_non_null(strstr(why_waits(m, 1), "cannot queue what the alias stands for"));
    rig_no_sync = false;
    order_one(&r, ACT_RETRY, m);
    rig_turn(&r);
    rig_given(&r, &given);
    assert_string_equal(given.p, "owner-crew>crew owner-dock>dock ");
    rig_close(&r);
    sbuf_free(&given);
}

/* A backlog of failures does not rest before its limit, and a reload takes the transport from what
 * is queued, read and given. */
static void test_a_transport_goes(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "default_transport = one\n");
    rig_mail(&r, "", "a@a.example");
    const struct msg *waits = rig_mail(&r, "", "b@b.example");
    struct config *cfg =
        bundle_config(STR_LIT("myhostname = mta.example\ndefault_transport = one\n"
                              "sender_dependent_relayhost_maps =\n"),
                      STR_LIT("smtp unix - - n - - smtp\nretry unix - - n - - error\n"));
    sched_reload(r.s, cfg);
    assert_int_equal(r.n_recalls, 1);
    rig_return(&r); /* to no other session */
    rig_turn(&r);
    sched_run_due(r.s);
    rig_turn(&r);
    assert_int_equal(r.n_given, 0);
    assert_string_equal(why_waits(waits, 0),
                        "mail transport unavailable: one is not a transport of Posthouse");
    rig_close(&r);
}

/* The queue as an administrator looks at it. */
static void test_what_is_found(void **state) {
    struct rig r;
    struct sched_filter f = SCHED_ALL;
    struct sched_view v;
    struct sched_stats st;
    const struct mailerr *e;
    uint64_t ids[4];
    size_t n;
    (void)state;
    rig_open(&r, "relayhost = [far.example]:2525\n"
                 "default_destination_concurrency_failed_cohort_limit = 9\n");
    for (int i = 0; i < 5; i++) {
        rig_mail(&r, i < 3 ? "ann@here.example" : "bob@here.example",
                 i % 2 == 0 ? "x@even.example" : "y@odd.example");
        if (i < 3)
            rig_answer(&r, i == 0 ? &refused
                                  : &(struct rig_result){MAIL_DEFERRED, BLAME_RECIPIENT, "4.2.2",
                                                         "mailbox full"});
    }
    sched_stats(r.s, &st);
    assert_true(st.active == 2 && st.deferred == 3 && st.hold == 0);
    assert_int_equal(sched_find(r.s, &f, 0, ids, 4), 4);
    assert_true(ids[0] == sched_oldest(r.s) && ids[0] < ids[1] && ids[2] < ids[3]);
    assert_int_equal(sched_find(r.s, &f, ids[2], ids, 4), 2);
    f.queues = 1U << QUEUE_DEFERRED;
    f.sender = STR_LIT("ANN@");
    f.rcpt = STR_LIT("odd.");
    assert_int_equal(sched_find(r.s, &f, 0, ids, 4), 1);
    f.rcpt = STR_NONE;
    f.reason = STR_LIT("FULL");
    assert_int_equal(sched_find(r.s, &f, 0, ids, 4), 2);
    f.reason = STR_LIT("nothing of that kind");
    assert_int_equal(sched_find(r.s, &f, 0, ids, 4), 0);
    f = SCHED_ALL;
    f.by_hop = true;
    f.nexthop = STR_LIT("[FAR.example]:2525");
    assert_int_equal(sched_find(r.s, &f, 0, ids, 4), 4);
    f.record = STR_LIT("another");
    assert_int_equal(sched_find(r.s, &f, 0, ids, 4), 0);
    f.nexthop = STR_LIT("[near.example]");
    assert_int_equal(sched_find(r.s, &f, 0, ids, 4), 0);
    struct sched_reason *why = sched_reasons(r.s, &n);
    assert_true(n == 2 && why[0].messages == 2);
    assert_string_equal(why[0].text, "mailbox full");
    free(why);
    uint64_t *all = sched_ids(r.s, &n);
    assert_true(n == 5 && all[0] == sched_oldest(r.s));
    assert_true(sched_view(r.s, all[4], &v) && v.queue == QUEUE_ACTIVE && !v.hold_ordered);
    assert_true(sched_view_rcpt(&v, 0, &e) && e == NULL);
    const struct msg *m = itab_get(&r.s->msgs, all[4]);
    assert_int_equal(order_one(&r, ACT_HOLD, m), 1);
    assert_true(sched_view(r.s, all[4], &v) && v.hold_ordered);
    assert_int_equal(order_one(&r, ACT_RETRY, m), 1); /* that changes nothing */
    assert_int_equal(order_one(&r, ACT_RELEASE, m), 1);
    assert_int_equal(order_one(&r, ACT_RELEASE, m), 1);
    m = itab_get(&r.s->msgs, all[0]);
    assert_int_equal(order_one(&r, ACT_HOLD, m), 1);
    assert_int_equal(order_one(&r, ACT_EXPIRE, m), 1); /* it is, when it is released */
    rig_turn(&r);
    assert_true(m->queue == QUEUE_HOLD);
    assert_false(sched_view(r.s, 1, &v));
    free(all);
    rig_close(&r);
}

#define RIG(test) cmocka_unit_test_setup_teardown(test, dir_make, dir_remove)

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hops),
                                       cmocka_unit_test(test_senders),
                                       cmocka_unit_test(test_dest_identity),
                                       cmocka_unit_test(test_dests_bounded),
                                       cmocka_unit_test(test_reasons),
                                       cmocka_unit_test(test_owed_report),
                                       RIG(test_rests_with_the_sites_error),
                                       RIG(test_a_cohort_has_to_fail),
                                       RIG(test_a_bounce_is_no_rest),
                                       RIG(test_old_settings_teach_nothing),
                                       RIG(test_our_faults_teach_nothing),
                                       RIG(test_nothing_is_given_after_stop),
                                       RIG(test_unreadable_content),
                                       RIG(test_orders_while_content_is_read),
                                       RIG(test_limits_of_a_destination),
                                       RIG(test_rate_delay),
                                       RIG(test_sessions_of_senders),
                                       RIG(test_without_a_session),
                                       RIG(test_a_result_is_missing),
                                       RIG(test_report_of_success),
                                       RIG(test_delivered_is_noted_before_aliases_go_on),
                                       RIG(test_lists_are_split_off),
                                       RIG(test_a_list_that_cannot_be_split_off_waits),
                                       RIG(test_a_transport_goes),
                                       RIG(test_what_is_found),
                                       RIG(test_process_limit_of_a_transport),
                                       RIG(test_turns_under_a_process_limit),
                                       RIG(test_a_returned_attempt_goes_on),
                                       RIG(test_unknown_progress_is_not_none),
                                       RIG(test_an_order_is_done_when_it_is_durable),
                                       RIG(test_an_order_during_a_report)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
