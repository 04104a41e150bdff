/* config: expansion, times, logical lines; maps: lists and match lists. */
#include "unit.h"

#include "../fuzz/bundle.h"
#include "config/config.h"
#include "config/secret.h"
#include "maps/maps.h"

static const char *lookup(void *arg, struct str name) {
    (void)arg;
    static const char *pairs[][2] = {
        {"a", "A"}, {"b", "$a$a"}, {"empty", ""}, {"loop", "$loop"}, {"void", "$empty"}};
    for (size_t i = 0; i < 5; i++)
        if (str_eq_c(name, pairs[i][0]))
            return pairs[i][1];
    return NULL;
}

static void test_expand(void **state) {
    static const char *cases[][2] = {
        {"$a-${b}-$(a)", "A-AA-A"},
        {"$$a", "$a"},
        {"${a?yes}", "yes"},
        {"${empty?yes}", ""},
        {"${loop?yes}", "yes"}, /* asked whether it is set, it is not expanded */
        {"${void?yes}${void:no}", "yes"},
        {"${{$void}=={}?{yes}:{no}}", "yes"},
        {"${empty:no}", "no"},
        {"${a?{x}:{y}}", "x"},
        {"${empty?{x}:{y}}", "y"},
        {"${{$a}=={A}?{eq}:{ne}}", "eq"},
        {"${{2}<{10}?{n}:{s}}", "n"},
        {"${{3.6}>=level{3.10}?{x}:{old}}", "old"},
        {"${{a}!={b}?{x}:{y}}", "x"},
        {"${{2}<={2}?{x}:{y}}", "x"},
        {"${{3}>{12}?{x}:{y}}", "y"},
        {"${{b}>{a}?{x}:{y}}", "x"},
        {"${{3.6}<level{3.10}?{x}}", "x"},
        {"${{3.6}<=level{3.6}?{x}}", "x"},
        {"${{3.6.1}>level{3.6}?{x}}", "x"},
        {"${{3}>level{3}?{x}:{y}}", "y"},
        {"${{3.6}==level{3.6}?{x}:{y}}", "x"},
        {"${{a} > {b}:{y}}", "y"},
        /* as in Postfix blanks between braces are part of what stands there */
        {"1${a?{ x }}2", "1 x 2"},
        {"1${a ? { x } : { y } }2", "1 x 2"},
        {"1${empty?{ x } : { y } }2", "1 y 2"},
        {"1${a? x }2", "1 x 2"},
        {"1${empty: x }2", "1 x 2"},
        {"1${empty?{x}: y }2", "1 y 2"},
        {"1${empty?{x} }2", "12"},
        {"1${{a}=={b} ? { x } : { y }}2", "1 y 2"},
        {"${{ a}=={a}?{x}:{y}}", "y"},
        {"${{ 2 }<{10}?{x}:{y}}", "x"},
        {"${{10 }<{9}?{x}:{y}}", "x"},
        {"${ {a}\t==\t{a} }", "true"},
        {"$undefined.", "."},
        {"plain # text", "plain # text"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sbuf out = {0};
        const char *why;
        if (cfg_expand(&out, str_of(cases[i][0]), lookup, NULL, &why, NULL) != 0)
            fail_msg("%s: %s", cases[i][0], why);
        assert_str(sbuf_str(&out), cases[i][1]);
        sbuf_free(&out);
    }
    static const char *bad[] = {
        "${a",          "$(a",        "$loop",           "$ x",
        "${}",          "${{a}?{b}}", "${a!x}",          "$",
        "${{a}=={b}x}", "${{a}=={b",  "${{a}<>{b}?{x}}", "${empty?{9}:{8} x}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct sbuf out = {0};
        const char *why = NULL;
        assert_true(cfg_expand(&out, str_of(bad[i]), lookup, NULL, &why, NULL) < 0);
        assert_non_null(why);
        sbuf_free(&out);
    }
}

/* Without a master.cf: the ports that can be served. */
static void test_no_master_cf(void **state) {
    static const struct {
        const char *main_cf;
        bool tls;
    } cases[] = {{"", false},
                 {"smtpd_tls_cert_file =\nsmtpd_tls_chain_files =\n", false},
                 {"smtpd_tls_cert_file = /c/cert.pem\n", true},
                 {"smtpd_tls_chain_files = /c/chain.pem\n", true}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct config *c = bundle_config(str_of(cases[i].main_cf), STR_NONE);
        bool submission = false;
        for (size_t k = 0; k < c->n_services; k++)
            submission = submission || strcmp(c->services[k]->name, "submission") == 0;
        assert_int_equal(submission, cases[i].tls);
        config_unref(c);
    }
}

static void test_times(void **state) {
    int64_t s;
    (void)state;
    assert_true(config_time(str_of("5"), 'd', &s) && s == 432000);
    assert_true(config_time(str_of("2h"), 's', &s) && s == 7200);
    assert_true(config_time(str_of("1w"), 's', &s) && s == 604800);
    assert_true(config_time(str_of("7days"), 's', &s) && s == 604800);
    assert_true(config_time(str_of("2h30m"), 's', &s) && s == 7200);
    assert_true(config_time(str_of("1s2"), 'd', &s) && s == 1);
    assert_false(config_time(str_of("days"), 's', &s));
    assert_false(config_time(str_of("1.5h"), 's', &s));
    assert_false(config_time(str_of("5 days"), 's', &s));
    assert_false(config_time(str_of("1y"), 's', &s));
    assert_false(config_time(str_of(""), 's', &s));
    assert_false(config_time(str_of("99999999999d"), 's', &s));
}

static bool has(const char *spec, enum match_kind kind, bool parents, const char *key) {
    char *err;
    struct matchlist *l = matchlist_open(spec, NULL, kind, match_how(parents, false));
    bool yes = matchlist_has(l, str_of(key), &err) == MATCH_YES;
    matchlist_close(l);
    return yes;
}

static void test_matchlists(void **state) {
    (void)state;
    assert_true(has("example.com, .sub.example", MATCH_DOMAIN, false, "EXAMPLE.com"));
    assert_false(has("example.com", MATCH_DOMAIN, false, "x.example.com"));
    assert_true(has("example.com", MATCH_DOMAIN, true, "x.example.com"));
    assert_false(has("example.com", MATCH_DOMAIN, true, "notexample.com"));
    assert_true(has(".sub.example", MATCH_DOMAIN, false, "x.sub.example"));
    assert_false(has(".sub.example", MATCH_DOMAIN, false, "sub.example"));
    assert_false(has("!a.example.com, example.com", MATCH_DOMAIN, true, "a.example.com"));
    assert_true(has("inline:{example.com=x}", MATCH_DOMAIN, true, "a.b.example.com"));
    assert_true(has("inline:{.example.com=x}", MATCH_DOMAIN, false, "a.b.example.com"));
    assert_true(has("10.0.0.0/8 [::1]", MATCH_NETWORK, false, "::1"));
    assert_false(has("!10.1.0.0/16 10.0.0.0/8", MATCH_NETWORK, false, "10.1.2.3"));
    assert_true(matchlist_has_tables("a, hash:/x"));
    assert_true(matchlist_has_tables("!127.0.0.1:25, 127.0.0.0/8"));
    assert_false(matchlist_has_tables("127.0.0.0/8 [::1]/128 fe80::/10"));
}

static void test_maps_order(void **state) {
    (void)state;
    struct maps *m = maps_open("inline:{b=2}, inline:{a=1 , b=3}", NULL);
    struct maps_key keys[2] = {{STR_LIT("A"), false}, {STR_LIT("b"), false}};
    struct maps_answer a;
    maps_find(m, keys, 2, &a); /* the first key in any table beats the second key */
    assert_int_equal(a.rc, MAP_FOUND);
    assert_str(sbuf_str(&a.value), "1");
    assert_true(a.key == 0 && a.table == 1);
    maps_answer_free(&a);
    maps_close(m);
    m = maps_open("fail:x, inline:{a=1}", NULL); /* an error ends the search */
    maps_find(m, keys, 2, &a);
    assert_int_equal(a.rc, MAP_ERROR);
    assert_non_null(a.err);
    maps_answer_free(&a);
    maps_close(m);
    m = maps_open("wat:x", NULL);
    maps_find(m, keys, 2, &a);
    assert_int_equal(a.rc, MAP_ERROR);
    maps_answer_free(&a);
    maps_close(m);
    m = maps_open("regexp:{{/a/}}, inline:{a=1}", NULL); /* and so does an answer of nothing */
    maps_find(m, keys, 2, &a);
    assert_int_equal(a.rc, MAP_ERROR);
    assert_non_null(strstr(a.err, "answers with nothing"));
    maps_answer_free(&a);
    maps_close(m);
    struct maps_key blank = {STR_LIT("a "), false};
    m = maps_open("regexp:{{/a( )/ $1}}", NULL); /* or of blanks */
    maps_find(m, &blank, 1, &a);
    assert_int_equal(a.rc, MAP_ERROR);
    assert_non_null(strstr(a.err, "answers with nothing"));
    maps_answer_free(&a);
    maps_close(m);
}

static void test_secrets(void **state) {
    (void)state;
    struct config c = {.relays_spec = "relays:/r"};
    struct params of_transport = {.smtp_sasl_password_maps = "hash:/other"};
    c.p.smtp_sasl_password_maps = "hash:/sasl";
    assert_int_equal(secret_param("smtp_sasl_password_maps"), SECRET_INLINE);
    assert_int_equal(secret_param("vmail_password"), SECRET_VALUE);
    assert_int_equal(secret_param("vmail_bind_pw"), SECRET_VALUE);
    assert_int_equal(secret_param("vmail_dbname"), SECRET_NOT);
    assert_int_equal(secret_param("relayhost"), SECRET_NOT);
    assert_true(secret_answers(&c, &c.p, "hash:/sasl"));
    assert_true(secret_answers(&c, &of_transport, "hash:/other"));
    assert_true(secret_answers(&c, &of_transport, "relays:/r"));
    assert_false(secret_answers(&c, &c.p, "hash:/policy"));
    c.relays_spec = "";
    assert_false(secret_answers(&c, &c.p, ""));
}

/* The 1 of a postscreen line is one process for all clients; the pass line counts those that serve
 * them. */
static void test_clients_of_a_postscreen(void **state) {
    static const struct {
        const char *pass;
        int64_t maxproc;
    } cases[] = {{"smtpd pass - - y - - smtpd\n", -1},
                 {"smtpd pass - - y - 7 smtpd\n", 7},
                 {"other pass - - y - 7 smtpd\n", -1},
                 {"", -1}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sbuf master = {0};
        sbuf_printf(&master, "smtp inet n - y - 1 postscreen\n%s", cases[i].pass);
        struct config *c = bundle_config(STR_LIT(""), sbuf_str(&master));
        assert_int_equal(c->services[0]->maxproc, cases[i].maxproc);
        config_unref(c);
        sbuf_free(&master);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_expand),
                                       cmocka_unit_test(test_no_master_cf),
                                       cmocka_unit_test(test_times),
                                       cmocka_unit_test(test_matchlists),
                                       cmocka_unit_test(test_maps_order),
                                       cmocka_unit_test(test_secrets),
                                       cmocka_unit_test(test_clients_of_a_postscreen)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
