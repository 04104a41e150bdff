/*
 * tests/unit/schedule.c - counting what becomes of mail; destinations and reasons, which are
 * bounded
 */
#include "schedule_rig.h"

#include "schedule/timers.h"

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
    assert_string_equal(a->err.text, "refused");
    count(&t, a, "s", MAIL_DEFERRED, "refused");
    count(&t, a, "s", MAIL_BOUNCED, "no such user");
    assert_true(a->count[MAIL_DEFERRED] == 2 && a->count[MAIL_BOUNCED] == 1);
    assert_string_equal(a->err.text, "no such user");
    tally_result(&t, a, STR_LIT("s"), &(struct mailerr){.status = MAIL_DEFERRED, .dsn = "4.4.2"});
    assert_null(a->err.text);
    assert_string_equal(a->err.dsn, "4.4.2");
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
    for (unsigned i = 0; i < SENDERS_MAX + 5; i++) { /* bounded: the rest are not told apart */
        char name[32];
        snprintf(name, sizeof name, "%u@y", i);
        count(&t, NULL, name, MAIL_DEFERRED, "");
    }
    n = SENDERS_MAX + 5;
    v = tally_busiest(&t, &n);
    assert_int_equal(n, SENDERS_MAX);
    assert_string_equal(v[0]->sender, "many@x");
    for (size_t i = 1; i < n; i++)
        assert_true(v[i]->count[MAIL_SENT] + v[i]->count[MAIL_DEFERRED] <=
                    v[i - 1]->count[MAIL_SENT] + v[i - 1]->count[MAIL_DEFERRED] +
                        v[i - 1]->count[MAIL_BOUNCED]);
    free(v);
    assert_int_equal(t.count[MAIL_DEFERRED], SENDERS_MAX + 5);
    tally_tick(&t, 1000 + 86400000000LL); /* a new day */
    n = 10;
    v = tally_busiest(&t, &n);
    assert_int_equal(n, 0);
    free(v);
    assert_true(t.count[MAIL_SENT] == 7);
}

static struct dest *dest_of_flags(struct sched *s, const char *nexthop, const char *record,
                                  bool configured, uint32_t flags) {
    struct route r = {.transport = config_transport(s->cfg, STR_LIT("smtp")),
                      .configured = configured};
    sbuf_add_c(&r.nexthop, nexthop);
    sbuf_add_c(&r.record, record);
    struct dest *d = dest_get(s, &r, &(struct envelope){.flags = flags});
    sbuf_free(&r.nexthop);
    sbuf_free(&r.record);
    return d;
}

static struct dest *dest_of(struct sched *s, const char *nexthop, const char *record,
                            bool configured) {
    return dest_of_flags(s, nexthop, record, configured, 0);
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
    assert_ptr_equal(d, dest_of_flags(s, "[far.example]:587", "", true, ENV_TLS_OPTIONAL));
    assert_ptr_not_equal(dest_of(s, "far.example", "", false),
                         dest_of_flags(s, "far.example", "", false, ENV_TLS_OPTIONAL));
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
    struct mailerr no_answer = {0}, full = {0};
    size_t n;
    mailerr_set(&no_answer, MAIL_DEFERRED, "4.4.1", "no_answer");
    no_answer.cause = CAUSE_TIMEOUT;
    mailerr_set(&full, MAIL_DEFERRED, "4.2.2", "full");
    mailerr_remote(&full, "mx", STR_LIT("452 full"));
    struct progress p = {.n = 3, .done = (uint8_t[]){0, 0, 0}};
    struct sbuf b = {0};
    progress_encode(&p, &b);
    sched_recover(s, envelope_make(&t), sbuf_str(&b));
    struct msg *m = itab_get(&s->msgs, 7);
    msg_count_reasons(m, false);
    msg_result(m, 0, &no_answer, false);
    msg_result(m, 1, &no_answer, false);
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
    mailerr_free(&no_answer);
    mailerr_free(&full);
    sbuf_free(&b);
}

/* The oldest attempt comes back as it was given. */
static void rig_return(struct rig *r) {
    struct attempt *a = r->given[0];
    memmove(r->given, r->given + 1, --r->n_given * sizeof(struct attempt *));
    a->outcome = ATTEMPT_RETURNED;
    sched_result(r->s, a->task_session, a);
    rig_turn(r);
}

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
    assert_true(m->rcpts[0].why->err.cause == CAUSE_REFUSED);
    rig_close(&r);
}

/* What a host said to other mail is known of the mail that rests for it, and is not its own reply:
 * no host is named. */
static void test_rests_with_the_sites_reply(void **state) {
    static const struct rig_result turned_away = {MAIL_DEFERRED, BLAME_SITE,
                                                  "4.3.2",       "host said: 421 4.3.2 too many",
                                                  CAUSE_UNSET,   "421 4.3.2 too many"};
    struct rig r;
    (void)state;
    rig_open(&r, "relayhost = [far.example]:2525\ninitial_destination_concurrency = 1\n");
    rig_mail(&r, "", "ann@away.example");
    rig_answer(&r, &turned_away);
    const struct mailerr *e = &rig_mail(&r, "", "dora@away.example")->rcpts[0].why->err;
    assert_string_equal(e->text, "delivery temporarily suspended: host said: 421 4.3.2 too many");
    assert_string_equal(e->reply, "421 4.3.2 too many");
    assert_true(e->mta == NULL && !e->remote && e->cause == CAUSE_UNSET);
    rig_close(&r);
}

/* The cause is in the spool, as data; one of a newer version is none. */
static void test_cause_is_kept(void **state) {
    struct sched *s = sched_make();
    struct rcpt rcpts[3] = {
        {.addr = STR_LIT("a@x")}, {.addr = STR_LIT("b@x")}, {.addr = STR_LIT("c@x")}};
    struct rcpt_error errors[3] = {
        {.dsn = STR_LIT("4.7.5"), .text = STR_LIT("same"), .cause = CAUSE_CERT_NAME},
        {.dsn = STR_LIT("4.7.5"), .text = STR_LIT("same"), .cause = CAUSE_CERT_PRINT},
        {.dsn = STR_LIT("4.7.5"), .text = STR_LIT("same"), .cause = 4000}};
    struct envelope t = {.id = 8, .n_rcpts = 3, .rcpts = rcpts};
    struct progress q, p = {.n = 3,
                            .done = (uint8_t[]){0, 0, 0},
                            .errors = errors,
                            .n_errors = 3,
                            .error_of = (uint32_t[]){1, 2, 3}};
    struct sbuf b = {0};
    (void)state;
    progress_encode(&p, &b);
    sched_recover(s, envelope_make(&t), sbuf_str(&b));
    struct msg *m = itab_get(&s->msgs, 8);
    assert_true(m->rcpts[0].why->err.cause == CAUSE_CERT_NAME);
    assert_true(m->rcpts[1].why->err.cause == CAUSE_CERT_PRINT);
    assert_true(m->rcpts[2].why->err.cause == CAUSE_UNSET);
    sbuf_reset(&b);
    msg_encode(m, SETTLE_NOTHING, &b);
    assert_true(progress_decode(&q, sbuf_str(&b)));
    assert_true(q.n_errors == 3 && q.errors[q.error_of[1] - 1].cause == CAUSE_CERT_PRINT);
    progress_free(&q);
    msg_free(m);
    assert_true(s->reasons.n == 0 && s->msgs.n == 0);
    sbuf_free(&b);
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

/* Mails to n hosts. */
static void mail_to_hosts(struct rig *r, int n) {
    for (int i = 0; i < n; i++) {
        char rcpt[40];
        snprintf(rcpt, sizeof rcpt, "u@d%d.example", i);
        rig_mail(r, "", rcpt);
    }
}

/* master.cf's process limit counts the sessions of a transport, whatever their destinations; an
 * idle one makes room for another destination. */
static void test_process_limit_of_a_transport(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "default_transport = few\n");
    mail_to_hosts(&r, 5);
    assert_true(r.n_given == 2 && r.n_sessions == 2);
    for (int left = 5; left > 0; left--) {
        assert_true(r.n_given == (left < 2 ? 1U : 2U) && r.n_sessions == 2);
        rig_answer(&r, &sent);
    }
    assert_int_equal(r.s->msgs.n, 0);
    rig_close(&r);
}

/* A transport that master.cf gives no number has a limit all the same: hosts that never answer are
 * as many as a sender likes, and each takes a descriptor. */
static void test_default_limit_of_a_transport(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "default_process_limit = 1\n");
    r.s->slots_max = 1000;
    mail_to_hosts(&r, 77);
    assert_true(r.n_given == 75 && r.n_sessions == 75);
    rig_answer(&r, &sent);
    assert_true(r.n_given == 75 && r.n_sessions == 75);
    given_to(&r, 74, "u@d75.example");
    sched_reload(r.s, rig_config("default_process_limit = 1\nrelayhost = [far.example]\n"));
    rig_mail(&r, "", "u@other.example"); /* goes by a host that is chosen */
    given_to(&r, r.n_given - 1, "u@other.example");
    assert_int_equal(r.n_sessions, 76);
    rig_close(&r);
}

/* Hosts that never answer, and mail that waits for more of them, take no idle session from a host
 * that is chosen: each mail would make a connection of its own. */
static void test_a_chosen_host_keeps_its_session(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "default_process_limit = 1\nrelay_domains = chosen.example\n"
                 "relay_transport = smtp:[far.example]\n");
    r.s->slots_max = 8;
    rig_mail(&r, "", "u@chosen.example");
    void *session = r.given[0]->task_session;
    mail_to_hosts(&r, 9);
    assert_true(r.n_given == 7 && r.n_sessions == 7);
    for (int i = 0; i < 3; i++) {
        rig_answer(&r, &sent); /* to the chosen host's mail, which is the oldest */
        assert_true(r.n_given == 6 && r.n_sessions == 7);
        rig_mail(&r, "", "u@chosen.example");
        given_to(&r, 6, "u@chosen.example");
        assert_ptr_equal(r.given[6]->task_session, session);
        struct attempt *chosen = r.given[6];
        memmove(r.given + 1, r.given, 6 * sizeof(struct attempt *));
        r.given[0] = chosen;
    }
    rig_close(&r);
}

/* … nor does any number take the descriptors that clients need. */
static void test_sessions_leave_descriptors(void **state) {
    static const char *const transports[] = {"smtp", "few", "unlimited"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct rig r;
        char main_cf[60];
        snprintf(main_cf, sizeof main_cf, "default_transport = %s\n", transports[i]);
        rig_open(&r, main_cf);
        assert_true(r.s->slots_max >= 64); /* of 1,024 descriptors 256 */
        r.s->slots_max = 6;
        mail_to_hosts(&r, 8);
        assert_int_equal(r.n_sessions, strcmp(transports[i], "few") == 0 ? 2 : 5);
        rig_answer(&r, &refused);
        given_to(&r, r.n_given - 1, r.n_given == 2 ? "u@d2.example" : "u@d5.example");
        rig_close(&r);
        dir_remove(state);
        dir_make(state);
    }
}

/* How many sessions have something to do. */
static size_t busy_sessions(const struct rig *r) {
    size_t n = 0;
    for (size_t i = 0; i < r->n_given; i++) {
        size_t k = 0;
        while (k < i && r->given[k]->task_session != r->given[i]->task_session)
            k++;
        n += k == i;
    }
    return n;
}

/* A limit that a reload lowers counts for sessions that there are, also while they always have more
 * to do. */
static void test_a_reload_with_lower_limits(void **state) {
    (void)state;
    for (int which = 0; which < 2; which++) {
        struct rig r;
        rig_open(&r, "initial_destination_concurrency = 5\n"
                     "default_destination_concurrency_limit = 5\n");
        for (int k = 0; k < 40; k++)
            rig_mail(&r, "", "u@far.example");
        assert_true(busy_sessions(&r) == 5 && r.n_given == 15);
        if (which == 1) /* as if the transport had a process limit now */
            r.s->slots_max = 2;
        sched_reload(r.s, rig_config(which == 0 ? "default_destination_concurrency_limit = 2\n"
                                                : "default_destination_concurrency_limit = 5\n"));
        sched_run_due(r.s);
        rig_turn(&r);
        for (int k = 0; k < 15; k++)
            rig_answer(&r, &sent);
        assert_int_equal(busy_sessions(&r), 2);
        while (r.n_given > 0) {
            assert_true(busy_sessions(&r) <= 2);
            rig_answer(&r, &sent);
        }
        assert_int_equal(r.s->msgs.n, 0);
        rig_close(&r);
        dir_remove(state);
        dir_make(state);
    }
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

/* … also where a destination has the backlog, and one session that would take more than one mail at
 * a time: it is served, and so are the others, in turn. */
static void test_turns_under_both_limits(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "default_transport = one\ndefault_destination_concurrency_limit = 1\n");
    for (int i = 0; i < 4; i++)
        rig_mail(&r, "", "1@a.example");
    rig_mail(&r, "", "2@b.example");
    for (int i = 0; i < 6; i++) {
        assert_true(r.n_given > 0);
        if (str_eq_c(r.given[0]->env->rcpts[0].addr, "2@b.example"))
            break;
        rig_answer(&r, &sent);
        rig_mail(&r, "", "1@a.example"); /* its backlog never ends */
    }
    given_to(&r, 0, "2@b.example");
    rig_answer(&r, &sent);
    for (int i = 0; i < 9 && r.n_given > 0; i++) {
        given_to(&r, 0, "1@a.example");
        rig_answer(&r, &sent);
    }
    assert_int_equal(r.s->msgs.n, 0);
    rig_close(&r);
}

/* … and where hosts that are chosen always have a backlog: recipients' own exchangers have their
 * turn, too. */
static void test_turns_of_both_kinds(void **state) {
    struct rig r;
    bool had = false;
    (void)state;
    rig_open(&r,
             "default_transport = one\nrelay_domains = a.example\nmydestination = b.example\n"
             "relay_transport = one:[a.hosts.example]\nlocal_transport = one:[b.hosts.example]\n");
    for (int i = 0; i < 3; i++) {
        rig_mail(&r, "", "1@a.example");
        rig_mail(&r, "", "2@b.example");
    }
    rig_mail(&r, "", "3@direct.example");
    for (int i = 0; i < 20 && !had; i++) {
        assert_int_equal(r.n_given, 1);
        struct str rcpt = r.given[0]->env->rcpts[0].addr;
        const char *more = str_eq_c(rcpt, "1@a.example") ? "1@a.example" : "2@b.example";
        had = str_eq_c(rcpt, "3@direct.example");
        rig_answer(&r, &sent);
        rig_mail(&r, "", more);
    }
    assert_true(had);
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

static void test_limits_of_a_destination(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r,
             "default_destination_concurrency_limit = 0\ninitial_destination_concurrency = 1000\n"
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

static void time_passes(struct rig *r, int64_t ms) {
    r->s->loop->now_ms += ms;
    dispatch_tick(r->s, r->s->loop->now_ms);
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
    time_passes(&r, 3000);
    assert_int_equal(r.n_given, 1);
    rig_mail(&r, "", "ann@away.example");
    dest_wake_all(r.s);
    rig_answer(&r, &sent);
    time_passes(&r, 3000);
    assert_int_equal(r.n_given, 1);
    rig_answer(&r, &sent);
    time_passes(&r, 11000); /* the idle session goes */
    assert_int_equal(r.n_sessions, 0);
    rig_close(&r);
}

/* A long delay counts also for a destination that nothing waited for meanwhile. */
static void test_a_long_rate_delay(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "default_destination_rate_delay = 10m\n");
    rig_mail(&r, "", "ann@away.example");
    rig_answer(&r, &sent);
    for (int i = 0; i < 9; i++)
        time_passes(&r, 60000);
    rig_mail(&r, "", "ann@away.example");
    assert_int_equal(r.n_given, 0);
    time_passes(&r, 600000);
    assert_int_equal(r.n_given, 1);
    rig_answer(&r, &sent);
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

/* A message of n recipients that the spool has had. */
static struct msg *recovered(struct rig *r, uint64_t id, uint32_t n) {
    struct rcpt rcpts[100];
    struct envelope t = {.id = id, .arrival_us = clock_wall_us(), .n_rcpts = n, .rcpts = rcpts};
    for (uint32_t i = 0; i < n; i++)
        rcpts[i] = (struct rcpt){.addr = STR_LIT("ann@away.example")};
    assert_true(sched_recover(r->s, envelope_make(&t), STR_NONE));
    return itab_get(&r->s->msgs, id);
}

/* However many recipients are due at a time, the routes of some are asked for, so that new mail is
 * not behind all of them; each message has its turn. */
static void test_routes_are_asked_for_in_turn(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "defer_transports = smtp\n");
    sched_start(r.s);
    for (uint64_t id = 1; id <= 40; id++)
        recovered(&r, id, 100);
    sched_run_due(r.s);
    assert_in_range(r.s->routing, 250, 349);
    assert_true(r.s->busy == r.s->routing && r.s->due_waits);
    for (int i = 0; i < 2000 && (r.s->busy > 0 || r.s->heap[0]->next_us == 0); i++) {
        uv_run(&r.s->loop->uv, UV_RUN_NOWAIT);
        assert_in_range(r.s->routing, 0, 349);
    }
    for (uint64_t id = 1; id <= 40; id++)
        assert_string_equal(why_waits(itab_get(&r.s->msgs, id), 99), "deferred transport");
    assert_true(r.s->routing == 0 && r.s->busy == 0 && !r.s->due_waits);
    rig_close(&r);
}

/* Mail that is routed anew again and again, while more comes back than can be, goes in turn. */
static void test_routed_anew_in_turn(void **state) {
    struct sched_filter all = SCHED_ALL;
    struct rig r;
    (void)state;
    rig_open(&r, "default_transport = one:[far.example]\n");
    rig_mail(&r, "", "a@a.example"); /* has the session */
    struct msg *older = rig_mail(&r, "", "b@b.example");
    const struct msg *newer = rig_mail(&r, "", "c@c.example");
    assert_int_equal(r.s->busy, 3);
    older->settings++; /* it has had its turn since the last change */
    sched_route_anew(r.s);
    assert_true(r.s->busy == 3 && r.s->heap_n == 2);
    assert_true(r.s->heap[0] == newer && r.s->heap[1] == older);
    sched_act(r.s, ACT_HOLD, &all, NULL);
    assert_int_equal(r.s->busy, 1); /* only the one that a session has */
    rig_close(&r);
}

/* Mail whose next attempt has been due for longer goes before what a change takes back, and before
 * what an order has tried again: neither may keep it from its turn by being repeated. */
static void test_what_is_due_has_its_turn(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "default_transport = one:[far.example]\n");
    rig_mail(&r, "", "a@a.example"); /* has the session */
    const struct msg *back = rig_mail(&r, "", "b@b.example");
    struct msg *due = recovered(&r, 1, 1), *later = recovered(&r, 2, 1);
    heap_del(r.s, due);
    heap_del(r.s, later);
    due->next_us = clock_wall_us() - 1000000;
    later->next_us = due->next_us + 3600000000LL;
    heap_put(r.s, due);
    heap_put(r.s, later);
    sched_route_anew(r.s);
    assert_true(back->heap_at != 0 && back->next_us <= clock_wall_us());
    assert_ptr_equal(r.s->heap[0], due);
    r.s->routing += 1000; /* nothing goes now */
    assert_int_equal(sched_flush(r.s), 3);
    assert_true(later->next_us <= clock_wall_us() && r.s->heap[0] == due);
    r.s->routing -= 1000;
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hops),
        cmocka_unit_test(test_senders),
        cmocka_unit_test(test_dest_identity),
        cmocka_unit_test(test_dests_bounded),
        cmocka_unit_test(test_reasons),
        RIG(test_rests_with_the_sites_error),
        RIG(test_rests_with_the_sites_reply),
        cmocka_unit_test(test_cause_is_kept),
        RIG(test_a_cohort_has_to_fail),
        RIG(test_a_bounce_is_no_rest),
        RIG(test_old_settings_teach_nothing),
        RIG(test_our_faults_teach_nothing),
        RIG(test_limits_of_a_destination),
        RIG(test_rate_delay),
        RIG(test_a_long_rate_delay),
        RIG(test_sessions_of_senders),
        RIG(test_a_transport_goes),
        RIG(test_process_limit_of_a_transport),
        RIG(test_default_limit_of_a_transport),
        RIG(test_a_chosen_host_keeps_its_session),
        RIG(test_sessions_leave_descriptors),
        RIG(test_a_reload_with_lower_limits),
        RIG(test_turns_under_a_process_limit),
        RIG(test_turns_under_both_limits),
        RIG(test_turns_of_both_kinds),
        RIG(test_a_returned_attempt_goes_on),
        RIG(test_routes_are_asked_for_in_turn),
        RIG(test_routed_anew_in_turn),
        RIG(test_what_is_due_has_its_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
