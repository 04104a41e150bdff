/* schedule, spool: progress of a message of many recipients, a step at a time */
#include "schedule_rig.h"

#include "util/ipc.h"

#define FEW 300U

static const char one_by_one[] = "relayhost = [relay.example]\n"
                                 "smtp_destination_recipient_limit = 1\n"
                                 "smtp_destination_concurrency_limit = 20\n";

/* A message to so many recipients, all at one relay host, each on its own. */
static uint64_t mail_to_many(struct rig *r, uint32_t n, uint32_t notify) {
    struct envelope tmpl = {.id = rig_id(), .arrival_us = clock_wall_us(), .n_rcpts = n};
    struct sbuf content = {0}, addrs = {0};
    tmpl.sender = STR_LIT("me@shop.example");
    tmpl.rcpts = mem_zalloc(n * sizeof *tmpl.rcpts);
    sbuf_make_room(&addrs, n * 20);
    for (uint32_t i = 0; i < n; i++) {
        size_t at = addrs.n;
        sbuf_printf(&addrs, "a@d%06u.example", i);
        tmpl.rcpts[i] = (struct rcpt){.addr = str_from(sbuf_str(&addrs), at), .notify = notify};
    }
    snprintf(tmpl.qid, sizeof tmpl.qid, "%llX", (unsigned long long)tmpl.id);
    sbuf_add_c(&content, "S: x\r\n\r\ny\r\n");
    tmpl.size = content.n;
    struct spool_op op = {.kind = SPOOL_NEW, .id = tmpl.id, .done = rig_new_done};
    struct envelope *env = envelope_make(&tmpl);
    envelope_encode(env, &op.meta);
    op.body = body_from_buf(&content);
    spool_submit(r->spool, &op);
    spool_turn(r->spool);
    sbuf_free(&op.meta);
    sched_add(r->s, env, op.body);
    rig_turn(r);
    free(tmpl.rcpts);
    sbuf_free(&addrs);
    return tmpl.id;
}

static uint64_t bytes_written(struct rig *r) {
    struct spool_stats st;
    spool_stats(r->spool, &st);
    return st.bytes_written;
}

/* What is written while each recipient is answered for, but the last one. */
static uint64_t bytes_of_results(struct rig *r, uint32_t n) {
    uint64_t before = bytes_written(r);
    for (uint32_t i = 1; i < n; i++)
        rig_answer(r, &sent);
    return bytes_written(r) - before;
}

/* However many recipients a message has, each result costs the disk about as much. */
static void test_cost_of_many_recipients(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, one_by_one);
    r.s->steps_from = 256;
    mail_to_many(&r, FEW, 0);
    uint64_t few = bytes_of_results(&r, FEW);
    rig_answer(&r, &sent);
    assert_int_equal(r.s->msgs.n, 0);
    mail_to_many(&r, 4 * FEW, 0);
    uint64_t many = bytes_of_results(&r, 4 * FEW);
    rig_answer(&r, &sent);
    assert_int_equal(r.s->msgs.n, 0);
    rig_close(&r);
    assert_true(few > 0);
    if (many > 6 * few)
        fail_msg("%llu bytes for %u recipients, %llu for %u", (unsigned long long)few, FEW,
                 (unsigned long long)many, 4 * FEW);
}

static uint32_t count_state(const struct msg *m, uint8_t state) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->env->n_rcpts; i++)
        n += m->rcpts[i].state == state;
    return n;
}

/* Those who have the mail have it after a kill, too, also when the segments that said so are gone.
 */
static void test_steps_outlive_a_kill(void **state) {
    struct rig r;
    struct msg *m;
    (void)state;
    rig_open(&r, one_by_one);
    r.s->steps_from = 64;
    uint64_t id = mail_to_many(&r, 30, 0);
    for (unsigned i = 0; i < 17; i++)
        rig_answer(&r, &sent);
    assert_non_null(((struct entry *)itab_get(&r.spool->index, id))->steps);
    rig_close(&r);
    rig_open(&r, one_by_one);
    m = itab_get(&r.s->msgs, id);
    assert_true(m != NULL && m->left == 13 && count_state(m, RCPT_DONE) == 17);
    assert_non_null(((struct entry *)itab_get(&r.spool->index, id))->steps);
    uint64_t other = 0;
    static char large[120001];
    memset(large, 'x', sizeof large - 1);
    rig_content = large;
    for (unsigned i = 0; i < 40; i++) { /* the log goes on, and what is dead in it is given back */
        struct msg *x = rig_mail(&r, "you@shop.example", "b@y.example");
        other = x == NULL ? other : x->env->id;
        if (x != NULL)
            order_one(&r, ACT_DELETE, x);
        rig_turn(&r);
    }
    rig_content = NULL;
    assert_true(other > id);
    const struct entry *e = itab_get(&r.spool->index, id);
    assert_true(e->steps == NULL && e->prog_len > 0 && e->seg->no > 1);
    rig_close(&r);
    rig_open(&r, one_by_one);
    m = itab_get(&r.s->msgs, id);
    assert_true(m != NULL && m->left == 13 && count_state(m, RCPT_DONE) == 17);
    rig_close(&r);
}

/* A report of success is owed after a kill with the words that it is to quote. */
static void test_a_step_keeps_what_a_report_quotes(void **state) {
    struct rig r;
    struct msg *m;
    static const struct rig_result words = {MAIL_SENT, BLAME_MESSAGE, "2.6.0", "250 taken as 4711"};
    (void)state;
    rig_open(&r, one_by_one);
    r.s->steps_from = 64;
    uint64_t id = mail_to_many(&r, 30, NOTIFY_SUCCESS);
    for (unsigned i = 0; i < 9; i++)
        rig_answer(&r, i == 8 ? &words : &sent);
    rig_close(&r);
    rig_open(&r, one_by_one);
    m = itab_get(&r.s->msgs, id);
    assert_true(m != NULL && count_state(m, RCPT_REPORT) == 9);
    unsigned quoted = 0;
    for (uint32_t i = 0; i < 30; i++)
        quoted += m->rcpts[i].state == RCPT_REPORT &&
                  strcmp(why_waits(m, i), "250 taken as 4711") == 0 &&
                  strcmp(m->rcpts[i].why->err.dsn, "2.6.0") == 0;
    assert_int_equal(quoted, 1);
    rig_close(&r);
}

/* An order in the middle is not shadowed by the steps that follow it. */
static void test_an_order_among_steps(void **state) {
    struct rig r;
    struct msg *m;
    (void)state;
    rig_open(&r, one_by_one);
    r.s->steps_from = 64;
    uint64_t id = mail_to_many(&r, 30, 0);
    for (unsigned i = 0; i < 4; i++)
        rig_answer(&r, &sent);
    size_t on_the_wire = r.n_given;
    assert_true(on_the_wire > 2);
    assert_int_equal(order_one(&r, ACT_HOLD, itab_get(&r.s->msgs, id)), 1);
    for (unsigned i = 0; i + 1 < on_the_wire; i++)
        rig_answer(&r, &sent);
    rig_close(&r);
    rig_open(&r, one_by_one);
    m = itab_get(&r.s->msgs, id);
    assert_true(m != NULL && m->queue == QUEUE_HOLD);
    assert_int_equal(count_state(m, RCPT_DONE), 4 + on_the_wire - 1);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        RIG(test_cost_of_many_recipients), RIG(test_steps_outlive_a_kill),
        RIG(test_a_step_keeps_what_a_report_quotes), RIG(test_an_order_among_steps)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
