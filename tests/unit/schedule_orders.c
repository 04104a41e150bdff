/*
 * tests/unit/schedule_orders.c - what an administrator orders, what is reported, and what is noted
 * on the disk before that
 */
#include "schedule_rig.h"

#include "mail/held.h"

/* Every block that a queued message has is counted while it is there, whatever is ordered, and read
 * back the same; nothing is counted of what is gone. */
static void test_memory_is_counted(void **state) {
    (void)state;
    struct rig r, again;
    uint64_t none = held_bytes();
    rig_open(&r, "relayhost = [far.example]\n");
    struct msg *a = rig_mail(&r, "carl@here.example", "ann@away.example bob@away.example");
    uint64_t one = held_bytes() - none;
    assert_int_equal(one, a->env->held + sizeof *a + 2 * sizeof a->rcpts[0]);
    assert_true(a->env->held > sizeof *a->env + 2 * sizeof a->env->rcpts[0]);
    rig_answer(&r, (struct rig_result[]){refused, refused});
    uint64_t why = held_bytes() - none - one;
    assert_int_equal(why, sizeof(struct reason) + strlen(refused.text) + 1);
    sched_reload(r.s, rig_config("relayhost = [far.example]\nqueue_memory_limit = 1\n"));
    assert_true(order_one(&r, ACT_HOLD, a) == 1 && order_one(&r, ACT_REQUEUE, a) == 1);
    rig_turn(&r);
    struct msg *b = rig_mail(&r, "carl@here.example", "ann@away.example bob@away.example");
    while (r.n_given > 0)
        rig_answer(&r, (struct rig_result[]){refused, refused});
    assert_int_equal(held_bytes() - none, 2 * one + why); /* they wait for the same */
    assert_true(order_one(&r, ACT_HOLD, a) == 1 && order_one(&r, ACT_HOLD, b) == 1);
    struct sched_stats st;
    sched_stats(r.s, &st);
    assert_true(st.crowded && st.memory == held_bytes());
    uint64_t first = held_bytes();
    rig_close(&r);
    rig_open(&again, "relayhost = [far.example]\nqueue_memory_limit = 1\n");
    assert_int_equal(again.s->msgs.n, 2); /* the limit is for new mail */
    assert_int_equal(held_bytes() - first, 2 * one + why);
    size_t n = sched_act(again.s, ACT_DELETE, &SCHED_ALL, NULL);
    assert_int_equal(n, 2);
    assert_int_equal(held_bytes(), first);
    rig_close(&again);
    assert_int_equal(held_bytes(), none + 2 * one + why); /* of the scheduler that was killed */
}

/* What a host says of mail that is queued already is cut where memory is short: each recipient may
 * have a text of its own. */
static void test_memory_of_what_hosts_say(void **state) {
    struct rig r;
    char text[901];
    (void)state;
    memset(text, 'x', 900);
    text[900] = '\0';
    const struct rig_result wordy = {MAIL_DEFERRED, BLAME_RECIPIENT, "4.2.1",
                                     text,          CAUSE_UNSET,     text};
    rig_open(&r, "relayhost = [far.example]\nqueue_memory_limit = 1000000\n");
    struct msg *m = rig_mail(&r, "carl@here.example", "ann@away.example");
    uint64_t before = held_bytes();
    held_add(600000);
    rig_answer(&r, (struct rig_result[]){wordy});
    assert_in_range(held_bytes() - before - 600000, sizeof(struct reason) + 202,
                    sizeof(struct reason) + 300);
    held_remove(600000);
    assert_int_equal(strlen(m->rcpts[0].why->err.text), 100);
    assert_int_equal(order_one(&r, ACT_DELETE, m), 1);
    rig_turn(&r);
    m = rig_mail(&r, "carl@here.example", "ann@away.example");
    rig_answer(&r, (struct rig_result[]){wordy});
    assert_int_equal(strlen(m->rcpts[0].why->err.text), 900);
    assert_int_equal(order_one(&r, ACT_DELETE, m), 1);
    rig_close(&r);
}

/* A report of our own is made whatever the limit says, and is counted until it has gone. */
static void test_memory_of_reports(void **state) {
    (void)state;
    struct rig r;
    uint64_t none = held_bytes();
    rig_open(&r, "relayhost = [far.example]\nqueue_memory_limit = 1\n");
    rig_mail(&r, "carl@here.example", "ann@away.example");
    rig_answer(&r, (struct rig_result[]){gone});
    assert_int_equal(r.s->msgs.n, 1);
    given_to(&r, 0, "carl@here.example");
    assert_true(held_bytes() > none);
    rig_answer(&r, (struct rig_result[]){sent});
    assert_int_equal(r.s->msgs.n, 0);
    assert_int_equal(held_bytes(), none);
    rig_close(&r);
}

/* A success with a report that is owed is no longer to be delivered, in memory and in the record.
 */
static void test_owed_report(void **state) {
    (void)state;
    struct sched *s = sched_make();
    struct rcpt rcpts[2] = {{.addr = STR_LIT("a@x")}, {.addr = STR_LIT("b@x")}};
    struct envelope t = {.id = 8, .n_rcpts = 2, .rcpts = rcpts};
    struct mailerr success = {0}, bad = {0};
    struct sbuf b = {0};
    struct progress q;
    mailerr_set(&success, MAIL_SENT, "2.0.0", "ok");
    mailerr_set(&bad, MAIL_BOUNCED, "5.1.1", "no");
    sched_recover(s, envelope_make(&t), STR_NONE);
    struct msg *m = itab_get(&s->msgs, 8);
    msg_count_reasons(m, false);
    msg_result(m, 0, &success, true);
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
    static const struct {
        uint8_t state;
        enum settle what;
        uint8_t noted;
    } owed[] = {{RCPT_EXPANDED, SETTLE_NOTHING, RCPT_EXPANDED},
                {RCPT_EXPANDED, SETTLE_REPORTED, RCPT_EXPANDED},
                {RCPT_EXPANDED, SETTLE_EXPANDED, RCPT_DONE},
                {RCPT_LISTED, SETTLE_EXPANDED, RCPT_LISTED},
                {RCPT_LISTED, SETTLE_LISTED, RCPT_DONE},
                {RCPT_FORWARD, SETTLE_FAILED, RCPT_WAITS},
                {RCPT_FORWARD, SETTLE_SPLIT, RCPT_DONE},
                {RCPT_WAITS, SETTLE_FAILED, RCPT_WAITS}};
    for (size_t i = 0; i < sizeof owed / sizeof owed[0]; i++) {
        sbuf_reset(&b);
        msg_set_state(m, 0, owed[i].state);
        assert_int_equal(m->reporting,
                         owed[i].state != RCPT_FORWARD && owed[i].state != RCPT_WAITS);
        assert_int_equal(m->left, m->reporting ? 1 : 2);
        msg_encode(m, owed[i].what, &b);
        assert_true(progress_decode(&q, sbuf_str(&b)));
        assert_int_equal(q.done[0], owed[i].noted);
        progress_free(&q);
    }
    msg_free(m);
    mailerr_free(&success);
    mailerr_free(&bad);
    sbuf_free(&b);
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

/* While the disk does not take down that mail was sent no other mail is: the next start would send
 * all of that again.  It goes on by itself. */
static void test_nothing_is_sent_that_cannot_be_noted(void **state) {
    bool *const faults[] = {&rig_no_sync, &rig_no_room};
    (void)state;
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        struct rig r;
        struct sched_stats st;
        rig_open(&r, "smtp_destination_concurrency_limit = 1\n");
        for (int n = 0; n < 12; n++)
            rig_mail(&r, "", "ann@away.example");
        *faults[i] = true;
        while (r.n_given > 0)
            rig_answer(&r, &sent);
        assert_true(r.s->msgs.n > 0);
        dispatch_tick(r.s, r.s->loop->now_ms);
        rig_turn(&r);
        assert_int_equal(r.n_given, 0);
        sched_stats(r.s, &st);
        assert_true(st.halted);
        *faults[i] = false;
        rig_turn(&r);
        dispatch_tick(r.s, r.s->loop->now_ms);
        rig_turn(&r);
        assert_true(r.n_given > 0);
        sched_stats(r.s, &st);
        assert_false(st.halted);
        while (r.n_given > 0)
            rig_answer(&r, &sent);
        assert_int_equal(r.s->msgs.n, 0);
        rig_close(&r);
        rig_open(&r, "");
        assert_int_equal(r.s->msgs.n, 0);
        rig_close(&r);
    }
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

/* Recipients that wait for a slow destination keep no content in memory, nor a file open, once a
 * session has been done with it and memory is short. */
static void test_content_of_what_waits_is_let_go(void **state) {
    static const char slowly[] = "default_transport = slow:[far.example]\n"
                                 "slow_destination_recipient_limit = 1\n"
                                 "slow_destination_rate_delay = 100s\n";
    struct rig r;
    struct sbuf short_of_memory = {0};
    (void)state;
    for (int is_short = 0; is_short < 2; is_short++) {
        sbuf_reset(&short_of_memory);
        sbuf_printf(&short_of_memory, "%s%s", slowly, is_short ? "message_memory_limit = 1\n" : "");
        uint64_t none = body_memory();
        rig_open(&r, short_of_memory.p);
        struct msg *m = rig_mail(&r, "carl@here.example", "ann@away.example bob@away.example");
        assert_int_equal(r.n_given, 1);
        rig_answer(&r, &sent);
        assert_true(r.n_given == 0 && m->open == 1);
        assert_true(is_short == (m->body == NULL) && is_short == (body_memory() == none));
        assert_int_equal(order_one(&r, ACT_DELETE, m), 1);
        rig_turn(&r);
        assert_int_equal(body_memory(), none);
        rig_close(&r);
    }
    sbuf_free(&short_of_memory);
}

static size_t with_content(const struct rig *r) {
    size_t n = 0, pos = 0;
    for (const struct msg *m; (m = itab_next(&r->s->msgs, &pos)) != NULL;)
        n += m->env->sender.n > 0 && m->body != NULL;
    return n;
}

/* However many messages are to be reported at a time, the content of a few is in memory. */
static void test_contents_are_fetched_in_turn(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, "relayhost = [far.example]\nmessage_memory_limit = 1\n");
    for (int i = 0; i < 5; i++) {
        rig_mail(&r, "carl@here.example", "ann@away.example");
        if (r.n_given > 0)
            rig_answer(&r, &refused);
    }
    assert_int_equal(r.s->n_queue[QUEUE_DEFERRED], 5);
    assert_int_equal(sched_act(r.s, ACT_EXPIRE, &SCHED_ALL, NULL), 5);
    for (int i = 0; i < 100; i++) {
        uv_run(&r.s->loop->uv, UV_RUN_NOWAIT);
        assert_true(with_content(&r) <= 1);
        spool_turn(r.spool);
    }
    assert_int_equal(r.s->msgs.n, 5); /* the reports */
    assert_true(r.s->fetched == 0 && r.s->msgs.n == r.spool->st.messages);
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

/* Orders for a message while its content is read back, for a session or for a report. */
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

/* A delivery with a report of success that cannot be queued: the report is tried again, and given
 * up with the message's age. */
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

/* A message goes on to its second recipient; its first one is delivered, so its round ends.
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

/* Mails to the lists, and waits for the message with the addresses of all of them; that one. */
static struct msg *rig_mail_to_be_split(struct rig *r) {
    struct msg *m;
    rig_mail_to_lists(r, 0);
    while ((m = rig_to_be_split(r)) == NULL) {
        spool_turn(r->spool);
        uv_run(&r->s->loop->uv, UV_RUN_NOWAIT);
    }
    return m;
}

/* What has no room is split off later, and nothing is sent with another sender meanwhile. */
static void test_a_list_that_cannot_be_split_off_waits(void **state) {
    struct rig r;
    struct sbuf given = {0};
    (void)state;
    rig_open(&r, "relayhost = [far.example]\n");
    struct msg *m = rig_mail_to_be_split(&r);
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

/* An order that comes while the content is read, for a message that is sent then, does not wait for
 * the relay host; nor do the others that are given meanwhile. */
static void test_an_order_before_lists_are_split_off(void **state) {
    struct rig r;
    struct sbuf given = {0};
    int told = 1;
    (void)state;
    rig_open(&r, "relayhost = [far.example]\n");
    rig_mail_to_be_split(&r);
    rig_close(&r);
    rig_open(&r, "relayhost = [far.example]\n");
    sched_run_due(r.s);
    const struct msg *m = rig_to_be_split(&r);
    assert_true(m != NULL && m->finishing);
    assert_int_equal(order_one(&r, ACT_REQUEUE, m), 1);
    sched_when_durable(r.s, order_durable, &told);
    for (int i = 0; i < 4; i++)
        rig_turn(&r);
    rig_given(&r, &given);
    assert_non_null(strstr(given.p, "carl>eve "));
    assert_int_equal(told, 0);
    rig_close(&r);
    sbuf_free(&given);
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
    f.site = STR_LIT("EVEN.example");
    assert_int_equal(sched_find(r.s, &f, 0, ids, 4), 3);
    f.site = STR_LIT("ven.example"); /* a site is named whole */
    assert_int_equal(sched_find(r.s, &f, 0, ids, 4), 0);
    f = SCHED_ALL;
    assert_int_equal(sched_find(r.s, &f, 0, ids, 2), 2); /* the oldest */
    assert_true(ids[0] == sched_oldest(r.s) && ids[1] > ids[0]);
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

/* What is done of a message is neither found nor shown as waiting. */
static void test_what_is_done_is_not_found(void **state) {
    struct rig r;
    struct sched_filter f = SCHED_ALL;
    struct sched_view v;
    const struct mailerr *e;
    uint64_t ids[4];
    size_t n;
    static const struct rig_result results[] = {
        {MAIL_SENT, BLAME_MESSAGE, "2.0.0", "250 ok"},
        {MAIL_DEFERRED, BLAME_RECIPIENT, "4.2.2", "mailbox full"}};
    (void)state;
    rig_open(&r, "relayhost = [far.example]:2525\n");
    struct msg *m = rig_mail(&r, "ann@here.example", "one@first.example two@second.example");
    rig_answer(&r, results);
    assert_int_equal(m->queue, QUEUE_DEFERRED);
    f.rcpt = STR_LIT("one@");
    assert_int_equal(sched_find(r.s, &f, 0, ids, 4), 0);
    f.rcpt = STR_LIT("TWO@");
    assert_int_equal(sched_find(r.s, &f, 0, ids, 4), 1);
    f = SCHED_ALL;
    f.site = STR_LIT("first.example");
    assert_int_equal(sched_find(r.s, &f, 0, ids, 4), 0);
    f.site = STR_LIT("second.example");
    assert_int_equal(sched_find(r.s, &f, 0, ids, 4), 1);
    f = SCHED_ALL;
    f.reason = STR_LIT("250 ok");
    assert_int_equal(sched_find(r.s, &f, 0, ids, 4), 0);
    assert_true(sched_view(r.s, ids[0], &v) || sched_view(r.s, m->env->id, &v));
    assert_false(sched_view_rcpt(&v, 0, &e));
    assert_true(sched_view_rcpt(&v, 1, &e) && e != NULL);
    assert_string_equal(e->text, "mailbox full");
    msg_set_state(m, 1, RCPT_FAILED); /* its report is still to come: it is in the queue */
    assert_true(sched_view_rcpt(&v, 1, &e) && e != NULL);
    msg_set_state(m, 1, RCPT_WAITS);
    assert_int_equal(order_one(&r, ACT_REQUEUE, m), 1);
    struct sched_reason *why = sched_reasons(r.s, &n);
    free(why);
    assert_int_equal(order_one(&r, ACT_EXPIRE, m), 1);
    assert_int_equal(m->flags & PROGRESS_EXPIRE, PROGRESS_EXPIRE);
    assert_int_equal(order_one(&r, ACT_REQUEUE, m), 1); /* begins again: it does not expire */
    assert_int_equal(m->flags & (PROGRESS_EXPIRE | PROGRESS_WARNED), 0);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        RIG(test_memory_is_counted),
        RIG(test_memory_of_what_hosts_say),
        RIG(test_memory_of_reports),
        cmocka_unit_test(test_owed_report),
        RIG(test_nothing_is_given_after_stop),
        RIG(test_content_of_what_waits_is_let_go),
        RIG(test_contents_are_fetched_in_turn),
        RIG(test_unreadable_content),
        RIG(test_orders_while_content_is_read),
        RIG(test_without_a_session),
        RIG(test_a_result_is_missing),
        RIG(test_report_of_success),
        RIG(test_delivered_is_noted_before_aliases_go_on),
        RIG(test_lists_are_split_off),
        RIG(test_a_list_that_cannot_be_split_off_waits),
        RIG(test_an_order_before_lists_are_split_off),
        RIG(test_what_is_found),
        RIG(test_what_is_done_is_not_found),
        RIG(test_unknown_progress_is_not_none),
        RIG(test_an_order_is_done_when_it_is_durable),
        RIG(test_nothing_is_sent_that_cannot_be_noted),
        RIG(test_an_order_during_a_report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
