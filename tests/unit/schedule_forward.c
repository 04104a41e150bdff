/* What an alias stands for goes on as a new message: what it says, and what becomes of it when the
 * disk fails or the message is deleted meanwhile. */
#include "schedule_rig.h"

#include "mail/held.h"
#include "route/alias.h"

#define RELAYED "relayhost = [far.example]\n"

/* The recipient turned out to be an alias of that address. */
static void alias_found(struct msg *m, uint32_t rcpt, const char *addr) {
    struct alias_result res = {.rc = ALIAS_OK, .graph = MEM_NEW(struct alias_graph)};
    alias_graph_add(res.graph, 0, m->env->rcpts[rcpt].addr);
    alias_graph_add(res.graph, 0, str_of(addr));
    res.graph->v[0]->name = mem_strdup("alias");
    forward_keep(m, rcpt, &res);
}

/* A message to Ann, who has it, and to an alias of target: its round ends.  Returns its id. */
static uint64_t goes_on(struct rig *r, const char *content, const char *alias, const char *target) {
    struct sbuf rcpts = {0};
    rig_content = content;
    sbuf_printf(&rcpts, "ann@away.example %s", alias);
    struct msg *m = rig_mail(r, "carl@here.example", rcpts.p);
    alias_found(m, 1, target);
    struct attempt *a = r->given[0];
    mailerr_set(&a->res[0], MAIL_SENT, "2.0.0", "250 ok");
    a->tried[0] = true;
    a->outcome = ATTEMPT_TRIED;
    a->n = 1;
    r->n_given = 0;
    uint64_t id = m->env->id;
    sched_result(r->s, a->task_session, a);
    sbuf_free(&rcpts);
    rig_content = NULL;
    return id;
}

/* The message that the alias was made to, or NULL. */
static struct msg *new_one(const struct rig *r, uint64_t old) {
    size_t pos = 0;
    struct msg *m;
    while ((m = itab_next(&r->s->msgs, &pos)) != NULL && m->env->id == old) {
    }
    return m;
}

static char *long_local(size_t n) {
    struct sbuf b = {0};
    for (size_t i = 0; i < n; i++)
        sbuf_add_ch(&b, 'l');
    sbuf_add_c(&b, "@here.example");
    return sbuf_take(&b);
}

static void test_what_goes_on(void **state) {
    char *far = long_local(950);
    const struct {
        const char *main, *content, *alias, *target;
        uint32_t flags;
        const char *orcpt;
        bool says; /* Delivered-To: stands before the content */
    } rows[] = {
        {"", "S: x\r\n\r\ny\r\n", "Root@here.example", "bob@away.example", 0,
         "rfc822;Root@here.example", true},
        {"prepend_delivered_header = command\n", "S: x\r\n\r\ny\r\n", "root@here.example",
         "bob@away.example", 0, "rfc822;root@here.example", false},
        {"", "S: x", "root@here.example", "bob@away.example", 0, "rfc822;root@here.example", true},
        {"", "Delivered-To\r\nDelivered-To: root@here.example\r\n\r\n", "boot@here.example",
         "bob@away.example", 0, "rfc822;boot@here.example", true},
        {"", "S: x\r\n\r\nDelivered-To: root@here.example\r\n", "root@here.example",
         "bob@away.example", 0, "rfc822;root@here.example", true},
        {"", "S: x\r\n\r\n", "k\u00f6nig@here.example", "bob@away.example", 0, "", true},
        {"", "S: x\r\n\r\n", "root@here.example", "bj\u00f6rn@away.example", ENV_SMTPUTF8,
         "rfc822;root@here.example", true},
        {"smtputf8_enable = no\n", "S: x\r\n\r\n", "root@here.example", "bj\u00f6rn@away.example",
         0, "rfc822;root@here.example", true},
        {"", "S: x\r\n\r\n", far, "bob@away.example", ENV_LONG_LINES, NULL, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int file = 0; file < 2; file++) {
            struct rig r;
            struct sbuf main = {0}, tmp = {0}, want = {0};
            sbuf_printf(&main, RELAYED "%s%s", rows[i].main,
                        file ? "spool_body_file_size = 1\n" : "");
            rig_open(&r, main.p);
            uint64_t old = goes_on(&r, rows[i].content, rows[i].alias, rows[i].target);
            rig_turn(&r);
            struct msg *m = new_one(&r, old);
            assert_true(m != NULL && r.s->msgs.n == 1);
            assert_str(m->env->rcpts[0].addr, rows[i].target);
            assert_str(m->env->sender, "carl@here.example");
            if (rows[i].orcpt != NULL)
                assert_str(m->env->rcpts[0].orcpt, rows[i].orcpt);
            assert_int_equal(m->env->flags & (ENV_SMTPUTF8 | ENV_LONG_LINES), rows[i].flags);
            struct str all = body_view(r.given[0]->body, 0, 10000, &tmp);
            sbuf_printf(&want, "\r\n%s", rows[i].says ? "Delivered-To: " : "");
            if (rows[i].says)
                sbuf_printf(&want, "%s\r\n", rows[i].alias);
            str_lower(want.p, want.n);
            if (rows[i].says)
                memcpy(want.p + 2, "Delivered-To: ", 14);
            sbuf_add_c(&want, rows[i].content);
            assert_true(str_istarts(all, "Received: by mta.example (Posthouse)\r\n\tid "));
            assert_true(all.n > want.n);
            assert_str(str_from(all, all.n - want.n), want.p);
            rig_close(&r);
            sbuf_free(&main);
            sbuf_free(&tmp);
            sbuf_free(&want);
            dir_remove(state);
            dir_make(state);
        }
    free(far);
}

/* What has been delivered to the alias already is refused, or waits with soft_bounce. */
static void test_what_does_not_go_on(void **state) {
    static const struct {
        const char *main, *content, *why; /* why NULL: it was returned */
    } rows[] = {
        {"soft_bounce = yes\n", "S: x\r\ndelivered-to : ROOT@here.example\r\n\r\n",
         "mail forwarding loop for root@here.example"},
        {"soft_bounce = yes\nhopcount_limit = 2\n", "Received: a\r\nReceived: b\r\n\r\n",
         "too many hops"},
        {"", "Delivered-To: root@here.example\r\n\r\n", NULL},
        {"hopcount_limit = 2\n", "Received: a\r\n\r\n", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct rig r;
        struct sbuf main = {0};
        sbuf_printf(&main, RELAYED "%s", rows[i].main);
        rig_open(&r, main.p);
        uint64_t id = goes_on(&r, rows[i].content, "root@here.example", "bob@away.example");
        rig_turn(&r);
        struct msg *m = itab_get(&r.s->msgs, id);
        if (rows[i].why != NULL) {
            assert_non_null(m);
            assert_string_equal(why_waits(m, 1), rows[i].why);
            assert_null(new_one(&r, id));
        } else {
            assert_null(m);
            m = new_one(&r, id); /* the report */
            assert_true(m != NULL && m->env->sender.n == 0);
            assert_str(m->env->rcpts[0].addr, "carl@here.example");
        }
        rig_close(&r);
        sbuf_free(&main);
        dir_remove(state);
        dir_make(state);
    }
}

/* The message that goes on for an alias is counted as any other, and when it is sent nothing is
 * counted of it, nor of the message that it was made of. */
static void test_memory_of_aliases(void **state) {
    (void)state;
    struct rig r;
    uint64_t none = held_bytes();
    rig_open(&r, RELAYED);
    uint64_t id = goes_on(&r, "S: x\r\n\r\ny\r\n", "list@here.example", "bob@away.example");
    rig_turn(&r);
    struct msg *m = new_one(&r, id);
    assert_non_null(m);
    assert_int_equal(r.s->msgs.n, 1);
    assert_int_equal(held_bytes() - none, m->env->held + sizeof *m + sizeof m->rcpts[0]);
    rig_answer(&r, (struct rig_result[]){sent});
    assert_int_equal(r.s->msgs.n, 0);
    assert_int_equal(held_bytes(), none);
    rig_close(&r);
}

/* Files of the spool, but for those of log/. */
static size_t files_in_dir(void) {
    char cmd[200];
    size_t n = 0;
    snprintf(cmd, sizeof cmd, "find %s -type f ! -path '*/log/*' | wc -l", dir);
    FILE *p = popen(cmd, "r");
    assert_int_equal(fscanf(p, "%zu", &n), 1);
    pclose(p);
    return n;
}

/* Content that is longer than a piece is copied whole. */
static void test_long_content(void **state) {
    struct rig r;
    struct sbuf content = {0}, tmp = {0};
    (void)state;
    sbuf_add_c(&content, "S: x\r\n\r\n");
    for (int i = 0; i < 30000; i++)
        sbuf_printf(&content, "%07d\r\n", i);
    for (int file = 0; file < 2; file++) {
        rig_open(&r, file ? RELAYED "spool_body_file_size = 1\n" : RELAYED);
        goes_on(&r, content.p, "root@here.example", "bob@away.example");
        rig_turn(&r);
        rig_turn(&r);
        assert_int_equal(r.n_given, 1);
        struct str all = body_view(r.given[0]->body, 0, 1 << 20, &tmp);
        assert_true(all.n > content.n && all.n < content.n + 300);
        assert_memory_equal(all.p + all.n - content.n, content.p, content.n);
        rig_close(&r);
        dir_remove(state);
        dir_make(state);
    }
    sbuf_free(&content);
    sbuf_free(&tmp);
}

/* A disk that takes no more, or makes nothing durable, leaves nothing behind, and the next round
 * does it. */
static void test_disks_that_fail(void **state) {
    for (int file = 0; file < 2; file++)
        for (int full = 0; full < 2; full++) {
            struct rig r;
            rig_open(&r, file ? RELAYED "spool_body_file_size = 1\n" : RELAYED);
            uint64_t id = goes_on(&r, NULL, "root@here.example", "bob@away.example");
            struct msg *m = itab_get(&r.s->msgs, id);
            for (int i = 0; i < 50 && !m->finishing; i++) {
                spool_turn(r.spool);
                uv_run(&r.s->loop->uv, UV_RUN_NOWAIT);
            }
            assert_true(m->finishing);
            size_t before = files_in_dir();
            *(full ? &rig_no_room : &rig_no_sync) = true;
            rig_turn(&r);
            assert_int_equal(r.n_given, 0);
            assert_ptr_equal(itab_get(&r.s->msgs, id), m);
            assert_non_null(strstr(why_waits(m, 1), "cannot queue what the alias stands for: "));
            rig_no_sync = rig_no_room = false;
            rig_turn(&r);
            assert_true(files_in_dir() <= before);
            order_one(&r, ACT_RETRY, m);
            rig_turn(&r);
            given_to(&r, 0, "root@here.example");
            rig_close(&r);
            dir_remove(state);
            dir_make(state);
        }
}

/* Deleted at any moment: what goes on has gone on, or nothing does; no file of it stays. */
static void test_deleted_on_the_way(void **state) {
    int ended = 0, went = 0;
    for (int file = 0; file < 2; file++)
        for (int turns = 0; turns < 25; turns++) {
            struct rig r;
            rig_open(&r, file ? RELAYED "spool_body_file_size = 1\n" : RELAYED);
            size_t before = files_in_dir();
            uint64_t id = goes_on(&r, NULL, "root@here.example", "bob@away.example");
            for (int i = 0; i < turns; i++) {
                if (i % 2 == 0)
                    uv_run(&r.s->loop->uv, UV_RUN_NOWAIT);
                else
                    spool_turn(r.spool);
            }
            struct msg *m = itab_get(&r.s->msgs, id);
            if (m != NULL)
                order_one(&r, ACT_DELETE, m);
            rig_turn(&r);
            rig_turn(&r);
            assert_null(itab_get(&r.s->msgs, id));
            assert_int_equal(r.n_given, r.s->msgs.n);
            if (r.n_given == 0) {
                ended++;
                assert_int_equal(files_in_dir(), before);
            } else {
                went++;
                given_to(&r, 0, "bob@away.example");
            }
            rig_close(&r);
            dir_remove(state);
            dir_make(state);
        }
    assert_true(ended > 1 && went > 1);
}

static void test_content_that_cannot_be_read(void **state) {
    struct rig r;
    (void)state;
    rig_open(&r, RELAYED);
    struct msg *m = rig_mail(&r, "carl@here.example", "root@here.example");
    alias_found(m, 0, "bob@away.example");
    struct body *kept = m->body;
    m->body = NULL;
    assert_false(forward_next(m, NULL));
    assert_string_equal(why_waits(m, 0), "cannot read the message content");
    assert_true(m->rcpts[0].state == RCPT_WAITS && !m->finishing);
    m->body = kept;
    alias_found(m, 0, "bob@away.example");
    alias_found(m, 0, "eve@away.example");
    forward_forget(m);
    assert_true(m->expansions == NULL && m->rcpts[0].state == RCPT_WAITS);
    rig_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        RIG(test_memory_of_aliases),
        RIG(test_what_goes_on),
        RIG(test_what_does_not_go_on),
        RIG(test_long_content),
        RIG(test_disks_that_fail),
        RIG(test_deleted_on_the_way),
        RIG(test_content_that_cannot_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
