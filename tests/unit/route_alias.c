/*
 * tests/unit/route_alias.c - a table of aliases and a recipient in; addresses with their senders
 * out
 *
 * As in route.c, the tables are real, and what comes of them is the same however they answer.
 */
#include "route_rig.h"

#include "mail/address.h"
#include "route/alias.h"
#include "route/keys.h"

/* -- the parts of a value -- */

static void test_items(void **state) {
    static const struct {
        const char *value;
        struct {
            const char *text; /* NULL: there are no more */
            enum alias_kind kind;
        } items[4];
    } rows[] = {
        {"", {{0}}},
        {" , ,\t,", {{0}}},
        {"a@x.test,, b c ", {{"a@x.test", ALIAS_ADDRESSES}, {"b c", ALIAS_ADDRESSES}}},
        {"\"a,b\"@x.test, c (d, e), <f@x.test>",
         {{"\"a,b\"@x.test", ALIAS_ADDRESSES},
          {"c (d, e)", ALIAS_ADDRESSES},
          {"<f@x.test>", ALIAS_ADDRESSES}}},
        {"/f, \"/f, g\", ~/f",
         {{"/f", ALIAS_FILE}, {"\"/f, g\"", ALIAS_FILE}, {"~/f", ALIAS_HOME}}},
        {"|c, \"|c d\", \\ann",
         {{"|c", ALIAS_COMMAND}, {"\"|c d\"", ALIAS_COMMAND}, {"\\ann", ALIAS_MAILBOX}}},
        {":Include:/f, \":include:/f\"",
         {{":Include:/f", ALIAS_INCLUDE}, {"\":include:/f\"", ALIAS_INCLUDE}}},
        {"a:b, a@[ipv6:::1], a:b@[192.0.2.1]",
         {{"a:b", ALIAS_NOTHING},
          {"a@[ipv6:::1]", ALIAS_ADDRESSES},
          {"a:b@[192.0.2.1]", ALIAS_NOTHING}}},
        {"\"", {{"\"", ALIAS_ADDRESSES}}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct str rest = str_of(rows[i].value), item;
        size_t n = 0;
        for (; alias_item_next(&rest, &item); n++) {
            assert_non_null(rows[i].items[n].text);
            assert_str(item, rows[i].items[n].text);
            assert_int_equal(alias_item_kind(item), rows[i].items[n].kind);
        }
        assert_null(rows[i].items[n].text);
    }
    assert_int_equal(alias_item_kind(STR_NONE), ALIAS_ADDRESSES);
    for (int kind = ALIAS_FILE; kind <= ALIAS_NOTHING; kind++)
        assert_non_null(alias_kind_text((enum alias_kind)kind));
    assert_null(alias_kind_text(ALIAS_ADDRESSES));
}

static void test_names_without_extensions(void **state) {
    static const struct {
        const char *delimiters;
        bool owners;
        const char *local, *bare;
    } rows[] = {
        {"", true, "ann+x", ""},
        {"+", true, "ann+x", "ann"},
        {"+", true, "ann", ""},
        {"+-", true, "ann-x", "ann"},
        {"-", true, "owner-list", ""},
        {"-", true, "Owner-list", ""},
        {"-", true, "list-Request", ""},
        {"-", true, "a-b-c-d-e-f", "a"},
        {"-", true, "-request", ""},
        {"-", false, "owner-list", "owner"},
        {"-", false, "list-request", "list"},
        {"+", true, "owner-list+x", "owner-list"},
        {"-", true, "double-bounce", ""},
        {"-", true, "MAILER-DAEMON", ""},
        {"t", true, "postmaster", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct params p = {.recipient_delimiter = (char *)(uintptr_t)rows[i].delimiters,
                           .owner_request_special = rows[i].owners};
        struct str bare = keys_bare(&p, str_of(rows[i].local));
        if (!str_eq_c(bare, rows[i].bare))
            fail_msg("%s: %.*s", rows[i].local, STR_FMT(bare));
    }
}

/* -- what a name stands for -- */

struct expanded {
    unsigned times;
    struct sbuf text; /* "owner: address, address; …", "waits: …" or "failed" */
};

static void add_groups(struct sbuf *out, struct alias_graph *g) {
    struct alias_groups groups;
    alias_walk(g, NULL, NULL, &groups);
    for (uint32_t i = 0; i < groups.n; i++) {
        sbuf_printf(out, "%s%s:", i == 0 ? "" : "; ",
                    groups.v[i].owner == NULL ? "-" : groups.v[i].owner);
        for (uint32_t k = 0; k < groups.v[i].n; k++)
            sbuf_printf(out, " %s", groups.v[i].addrs[k]);
    }
    alias_groups_free(&groups);
}

static void on_expanded(void *arg, struct alias_result *r) {
    struct expanded *e = arg;
    e->times++;
    assert_int_not_equal(r->rc, ALIAS_UNSET);
    if (r->rc == ALIAS_OK)
        add_groups(&e->text, r->graph);
    else if (r->rc == ALIAS_FAILED)
        sbuf_add_c(&e->text, "failed");
    else
        sbuf_printf(&e->text, "waits: %s", r->why.p);
}

static void emit(void *arg, json_t *step) {
    ++*(unsigned *)arg;
    json_decref(step);
}

/* The same however the answers come. */
static void expand(const char *main, const char *rcpt, const char *want) {
    struct config *c = configure(main);
    for (int way = 0; way < 3; way++) {
        struct lookup k = {.how = way == 0 ? ANSWERS_NOW : ANSWERS_LATER};
        struct expanded e = {0};
        unsigned steps = 0;
        struct trace t = {emit, &steps};
        alias_expand(c, &k, str_of(rcpt), way == 2 ? &t : NULL, on_expanded, &e);
        assert_int_equal(e.times, 0); /* never before it returns */
        while (turn(&k))
            ;
        assert_int_equal(e.times, 1);
        assert_true(way != 2 || steps > 0);
        if (!str_eq_c(sbuf_str(&e.text), want))
            fail_msg("%s, way %d: %s", rcpt, way, e.text.p);
        sbuf_free(&e.text);
    }
    config_unref(c);
}

#define NO_BOX   ", and Posthouse has no mailboxes"
#define NOTHING  "it is no address"
#define ASKS_BOX "it asks for a mailbox, and Posthouse has none"

static void test_what_names_stand_for(void **state) {
    static const struct {
        const char *main, *table, *local, *want;
    } rows[] = {
        {"", "ann b@y.test", "ann", "-: b@y.test"},
        {"", "ann b@y.test", "Ann", "-: b@y.test"},
        {"", "ann b@y.test, (a comment) c@y.test,\n d@y.test, b@y.test", "ann",
         "-: b@y.test c@y.test d@y.test"},
        {"", "ann bob, c@y.test\nbob d@y.test, carol\ncarol c@y.test", "ann",
         "-: d@y.test c@y.test"},
        {"", "ann ann", "ann", "waits: alias \"ann\": \"ann@mta.example\": " ASKS_BOX},
        {"", "ann bob\nbob ann", "ann",
         "waits: alias \"ann\": the aliases that it stands for name each other, and no address"},
        {"", "bob x", "ann", "waits: there is no alias \"ann\"" NO_BOX},
        {"", "ann bob", "ann", "waits: alias \"ann\": there is no alias \"bob\"" NO_BOX},
        {"", "ann ,", "ann", "waits: alias \"ann\": it stands for nothing"},
        {"", "ann <>", "ann", "waits: alias \"ann\": there is no alias \"mailer-daemon\"" NO_BOX},
        {"empty_address_recipient = z@y.test", "ann <>", "ann", "-: z@y.test"},
        {"empty_address_recipient = zoe", "ann <>\nzoe c@y.test", "ann", "-: c@y.test"},
        {"", "ann (nothing)", "ann", "waits: alias \"ann\": \"(nothing)\": " NOTHING},
        {"", "ann b@y.test, c:d", "ann", "waits: alias \"ann\": \"c:d\": " NOTHING},
        {"", "ann b@y..test c@y.test", "ann",
         "waits: alias \"ann\": \"b@y..test c@y.test\": " NOTHING},
        {"", "ann <|b@y.test>", "ann", "waits: alias \"ann\": \"<|b@y.test>\": " NOTHING},
        {"", "ann \"|b c\"", "ann",
         "waits: alias \"ann\": \"\"|b c\"\": delivery to a command is not implemented"},
        /* completed as local(8) does it */
        {"mydomain = d.test\nappend_dot_mydomain = yes", "ann b@short, c@[192.0.2.1], d@y.test",
         "ann", "-: b@short.d.test c@[192.0.2.1] d@y.test"},
        {"append_dot_mydomain = no", "ann b@short", "ann", "-: b@short"},
        /* extensions */
        {"recipient_delimiter = +\npropagate_unmatched_extensions = alias", "ann b@y.test", "ann+x",
         "-: b+x@y.test"},
        {"recipient_delimiter = +\npropagate_unmatched_extensions = alias",
         "ann b@y.test\nann+x c@y.test", "ann+x", "-: c@y.test"},
        {"recipient_delimiter = +\npropagate_unmatched_extensions =", "ann b@y.test", "ann+x",
         "-: b@y.test"},
        /* lists */
        {"", "list b@y.test\nowner-list o@y.test", "list", "owner-list@mta.example: b@y.test"},
        {"", "ann list, c@y.test\nlist b@y.test\nowner-list o@y.test", "ann",
         "-: c@y.test; owner-list@mta.example: b@y.test"},
        {"owner_request_special = no", "list b@y.test\nowner-list o@y.test", "list", "-: b@y.test"},
        /* where it goes */
        {"transport_maps = fail:x", "ann b@y.test", "ann", "failed"},
        {"transport_maps = inline:{y.test=nosuch:z}", "ann b@y.test", "ann", "-: b@y.test"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char main[400], rcpt[100];
        file_write("aliases", rows[i].table);
        snprintf(main, sizeof main, "alias_maps = texthash:%s/aliases\n%s", dir, rows[i].main);
        snprintf(rcpt, sizeof rcpt, "%s@mta.example", rows[i].local);
        expand(main, rcpt, rows[i].want);
    }
    expand("alias_maps = fail:x", "ann@mta.example", "failed");
    expand("alias_maps =", "ann@mta.example",
           "waits: alias_maps is empty" NO_BOX ": there is no place for \"ann\"");
}

/* Many addresses, few that are named often, and aliases in each other: each has its bound. */
static void test_bounds(void **state) {
    struct sbuf table = {0};
    char main[100];
    (void)state;
    snprintf(main, sizeof main, "alias_maps = texthash:%s/aliases", dir);
    sbuf_add_c(&table, "ann ");
    for (int i = 0; i < 10002; i++)
        sbuf_printf(&table, "b%d@y.test,", i);
    file_write("aliases", table.p);
    expand(main, "ann@mta.example", "waits: alias \"ann\": more than 10000 addresses");
    sbuf_reset(&table);
    sbuf_add_c(&table, "ann ");
    for (int i = 0; i < 11; i++)
        sbuf_printf(&table, "l%d,", i);
    for (int i = 0; i < 11; i++) {
        sbuf_printf(&table, "\nl%d ", i);
        for (int k = 0; k < 9500; k++)
            sbuf_printf(&table, "b%d@y.test,", k);
    }
    file_write("aliases", table.p);
    expand(main, "ann@mta.example", "waits: alias \"l10\": more than 10000 addresses");
    sbuf_reset(&table);
    for (int i = 0; i < 30; i++)
        sbuf_printf(&table, "l%d l%d\n", i, i + 1);
    file_write("aliases", table.p);
    expand(main, "l0@mta.example", "waits: alias \"l24\": more than 25 aliases in each other");
    sbuf_free(&table);
}

/* An answer is from another process: the key that it names may be none of those that were asked. */
static void test_an_answer_of_a_key_that_there_is_not(void **state) {
    char main[100];
    struct expanded e = {0};
    struct lookup k = {.how = ANSWERS_LATER};
    (void)state;
    file_write("aliases", "ann b@y.test\n");
    snprintf(main, sizeof main, "alias_maps = texthash:%s/aliases", dir);
    struct config *c = configure(main);
    alias_expand(c, &k, STR_LIT("ann@mta.example"), NULL, on_expanded, &e);
    k.answer.key = 77;
    while (turn(&k))
        ;
    assert_str(sbuf_str(&e.text), "-: b@y.test");
    sbuf_free(&e.text);
    config_unref(c);
}

/* Cancelled after any number of answers: nothing is called back. */
static void test_cancelled_expansions(void **state) {
    char main[100];
    bool whole = false;
    unsigned answers = 0;
    (void)state;
    file_write("aliases", "list ann, b@y.test\nann c@y.test\nowner-list o@y.test\n");
    snprintf(main, sizeof main, "alias_maps = texthash:%s/aliases", dir);
    struct config *c = configure(main);
    for (; !whole; answers++) {
        struct lookup k = {.how = ANSWERS_LATER};
        struct expanded e = {0};
        struct alias_query *q =
            alias_expand(c, &k, STR_LIT("list@mta.example"), NULL, on_expanded, &e);
        for (unsigned i = 0; i < answers && e.times == 0; i++)
            turn(&k);
        whole = e.times > 0;
        if (!whole)
            alias_cancel(q);
        assert_int_equal(k.cancelled, !whole);
        assert_int_equal(turn(&k), false);
        assert_int_equal(e.times, whole);
        sbuf_free(&e.text);
    }
    assert_in_range(answers, 5, 50);
    struct lookup k = {.how = ANSWERS_NOW};
    struct expanded e = {0};
    config_unref(c);
    c = configure("alias_maps =");
    alias_cancel(alias_expand(c, &k, STR_LIT("ann@mta.example"), NULL, on_expanded, &e));
    assert_true(turn(&k)); /* it was to be given already */
    assert_int_equal(e.times, 0);
    alias_cancel(NULL);
    config_unref(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items),
        cmocka_unit_test(test_names_without_extensions),
        cmocka_unit_test(test_what_names_stand_for),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_an_answer_of_a_key_that_there_is_not),
        cmocka_unit_test(test_cancelled_expansions),
    };
    return cmocka_run_group_tests(tests, dir_make, dir_remove);
}
