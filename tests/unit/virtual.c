/*
 * tests/unit/virtual.c - what the expansion of recipients by virtual(5) costs: who makes aliases is
 * often no administrator of this machine
 */
#include "route_rig.h"

#include "clean/virtual.h"
#include "mail/held.h"

#define MAIN                                                                                       \
    "virtual_alias_domains = alias.test\n"                                                         \
    "virtual_alias_maps = texthash:%s/virtual\n"                                                   \
    "queue_memory_limit = 1000000\n"                                                               \
    "recipient_delimiter = +\n"

/* What became of a query. */
struct end {
    bool came;
    enum virtual_rc rc;
    uint32_t n;
    bool found;
};

static void on_end(void *arg, const struct virtual_result *r) {
    *(struct end *)arg = (struct end){true, r->rc, r->n, r->found};
}

/* Adds a row: the first address, and n others. */
static void add_row(struct sbuf *b, const char *name, const char *first, unsigned n) {
    sbuf_printf(b, "%s@alias.test %s@alias.test", name, first);
    for (unsigned i = 0; i < n; i++)
        sbuf_printf(b, ", m%u@far.test", i);
    sbuf_add_ch(b, '\n');
}

static struct config *configure_rows(struct sbuf *rows) {
    struct sbuf conf = {0};
    file_write("virtual", rows->p);
    sbuf_free(rows);
    sbuf_printf(&conf, MAIN, dir);
    struct config *c = configure(conf.p);
    sbuf_free(&conf);
    return c;
}

/* The number of turns of the loop until the result has come. */
static unsigned turns(struct lookup *k, const struct end *end) {
    unsigned n = 0;
    for (; !end->came; n++)
        assert_true(turn(k));
    return n;
}

/* Each round added all members once more: a thousand rounds, and as many questions, before it was
 * too much. */
static void test_names_that_lead_to_each_other(void **state) {
    struct sbuf rows = {0};
    (void)state;
    add_row(&rows, "a", "b", 700);
    add_row(&rows, "b", "a", 700);
    struct config *cfg = configure_rows(&rows);
    for (enum answers how = ANSWERS_NOW; how <= ANSWERS_LATER; how++) {
        struct lookup k = {.how = how};
        struct end end = {.came = false};
        struct rcpt r = {.addr = STR_LIT("a@alias.test")};
        virtual_expand(cfg, &k, "X", &r, 1, NULL, on_end, &end);
        turns(&k, &end);
        assert_int_equal(end.rc, VIRTUAL_ENDLESS);
        assert_in_range(k.asked, 1, 60);
    }
    config_unref(cfg);
}

/* What is remembered is answered without waiting: other sessions have their turns all the same. */
static void test_many_names_take_turns(void **state) {
    struct sbuf rows = {0};
    struct rcpt r[20];
    char text[20][32];
    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        snprintf(text[i], sizeof text[i], "l%u", i);
        add_row(&rows, text[i], "m", 199);
        snprintf(text[i], sizeof text[i], "l%u@alias.test", i);
        r[i] = (struct rcpt){.addr = str_of(text[i])};
    }
    struct config *cfg = configure_rows(&rows);
    struct lookup k = {.how = ANSWERS_NOW};
    struct end end = {.came = false};
    virtual_expand(cfg, &k, "X", r, 20, NULL, on_end, &end);
    assert_in_range(turns(&k, &end), 20, 4000);
    assert_int_equal(end.rc, VIRTUAL_OK);
    assert_int_equal(end.n, 20 * 200);

    struct virtual_query *q = virtual_expand(cfg, &k, "X", r, 20, NULL, on_end, &end);
    turn(&k);
    end.came = false;
    virtual_cancel(q); /* between two turns */
    while (turn(&k)) {
    }
    assert_false(end.came);
    config_unref(cfg);
}

/* A name that stands for many is named many times: clients that do so at a time take no more than
 * the queue may. */
static void test_memory_of_what_names_stand_for(void **state) {
    struct sbuf rows = {0};
    struct rcpt r[30];
    char text[30][32];
    (void)state;
    add_row(&rows, "list", "m", 900);
    for (unsigned i = 0; i < 30; i++) {
        snprintf(text[i], sizeof text[i], "list+%u@alias.test", i);
        r[i] = (struct rcpt){.addr = str_of(text[i])};
    }
    struct config *cfg = configure_rows(&rows);
    struct lookup k = {.how = ANSWERS_NOW};
    for (int bounded = 0; bounded <= 1; bounded++) {
        struct end end = {.came = false};
        uint64_t before = held_bytes();
        struct virtual_query *q = virtual_expand(cfg, &k, "X", r, 30, NULL, on_end, &end);
        if (bounded)
            virtual_bound(q);
        turns(&k, &end);
        assert_int_equal(end.rc, bounded ? VIRTUAL_FULL : VIRTUAL_OK);
        assert_true(held_bytes() == before);
    }
    held_add(1000000);
    struct end end = {.came = false};
    virtual_bound(virtual_expand(cfg, &k, "X", r, 1, NULL, on_end, &end)); /* little is taken */
    turns(&k, &end);
    assert_int_equal(end.rc, VIRTUAL_OK);
    held_remove(1000000);
    config_unref(cfg);
}

static void test_a_name_is_found_with_one_question(void **state) {
    struct sbuf rows = {0};
    (void)state;
    add_row(&rows, "list", "m", 900);
    struct config *cfg = configure_rows(&rows);
    for (enum answers how = ANSWERS_NOW; how <= ANSWERS_LATER; how++) {
        struct lookup k = {.how = how};
        struct end end = {.came = false};
        struct rcpt r = {.addr = STR_LIT("list@alias.test")},
                    other = {.addr = STR_LIT("x@far.test")};
        virtual_find(cfg, &k, "X", &r, on_end, &end);
        turns(&k, &end);
        assert_int_equal(end.rc, VIRTUAL_OK);
        assert_true(end.found);
        assert_in_range(k.asked, 1, 2); /* whether the domain is local, and the table */
        end.came = false;
        virtual_find(cfg, &k, "X", &other, on_end, &end);
        turns(&k, &end);
        assert_false(end.found);
    }
    config_unref(cfg);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_names_that_lead_to_each_other),
                                       cmocka_unit_test(test_many_names_take_turns),
                                       cmocka_unit_test(test_memory_of_what_names_stand_for),
                                       cmocka_unit_test(test_a_name_is_found_with_one_question)};
    return cmocka_run_group_tests(tests, dir_make, dir_remove);
}
