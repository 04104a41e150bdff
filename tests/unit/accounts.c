/*
 * Stored passwords, sealed secrets, keys that tables are asked, what answers stay fresh.
 */
#include "unit.h"

#include "accounts/browse.h"
#include "accounts/password.h"
#include "accounts/values.h"
#include "maps/recent.h"
#include "maps/tabconf.h"
#include "route/keys.h"
#include "route/nexthop.h"
#include "route/record.h"
#include "util/clock.h"
#include "util/mem.h"
#include "util/seal.h"

static void test_passwords(void **state) {
    static const struct {
        const char *stored, *password;
        enum password_rc rc;
    } cases[] = {
        {"{SSHA512}"
         "jOcGSlKEz95VeuLGecbL0MwJKy0yWY9foj6UlUVfZ2O2SNkEExU3n42YJLXDbLnu3ghnIRBkwDMsM31q7OI0jY5B/"
         "5E=",
         "123456", PASSWORD_YES},
        {"{SSHA}OuCrqL2yWwQIu8a9uvyOQ5V/ZKfL7LJD", "123", PASSWORD_YES},
        {"{SSHA.B64}OuCrqL2yWwQIu8a9uvyOQ5V/ZKfL7LJD", "123", PASSWORD_YES},
        {"{SSHA}OuCrqL2yWwQIu8a9uvyOQ5V/ZKfL7LJD", "124", PASSWORD_NO},
        {"{SSHA}", "", PASSWORD_NO},
        {"{SSHA}not base64!", "x", PASSWORD_NO},
        {"{SSHA}AAAA", "x", PASSWORD_NO},
        {"900150983cd24fb0d6963f7d28e17f72", "abc", PASSWORD_YES},
        {"{PLAIN-MD5}900150983cd24fb0d6963f7d28e17f7z", "abc", PASSWORD_NO},
        {"$1$GfHYI7OE$vlXqMZSyJOSPXAmbXHq250", "123", PASSWORD_YES},
        {"{CRYPT}*", "*", PASSWORD_NO},
        {"{CRYPT}", "", PASSWORD_NO},
        {"", "", PASSWORD_NO},
        {"{PLAIN}abc", "abc", PASSWORD_YES},
        {"{PLAIN}", "", PASSWORD_NO},
        {"{plain}abc", "abd", PASSWORD_NO},
        {"{NTLM}E0FBA38268D0EC66EF1CB452D5885E53", "abc", PASSWORD_UNKNOWN},
        {"{unclosed", "{unclosed", PASSWORD_NO},
    };
    struct sbuf h = {0};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(password_check(cases[i].stored, cases[i].password), cases[i].rc);
    assert_true(password_hash("a password", &h));
    assert_int_equal(password_check(h.p, "a password"), PASSWORD_YES);
    assert_int_equal(password_check(h.p, "A password"), PASSWORD_NO);
    /* many rounds: what is stolen cannot be guessed through at the speed of one digest */
    assert_memory_equal(h.p, "{CRYPT}$y$", 10);
    password_pretend("a password"); /* for whom there is no user: nothing is learnt */
    sbuf_reset(&h);
    char *longer = mem_zalloc(PASSWORD_MAX + 2);
    memset(longer, 'x', PASSWORD_MAX);
    assert_true(password_hash(longer, &h));
    longer[PASSWORD_MAX] = 'x';
    assert_int_equal(password_check(h.p, longer), PASSWORD_NO);
    assert_false(password_hash(longer, &h));
    free(longer);
    sbuf_free(&h);
}

static void test_sealed(void **state) {
    unsigned char priv[SEAL_KEY], pub[SEAL_KEY], other[SEAL_KEY], ignored[SEAL_KEY];
    struct sbuf a = {0}, b = {0}, out = {0};
    (void)state;
    assert_true(seal_keys(priv, pub) && seal_keys(other, ignored));
    assert_true(seal_close(pub, STR_LIT("secret"), STR_LIT("hosts\nuser"), &a));
    assert_true(seal_close(pub, STR_LIT("secret"), STR_LIT("hosts\nuser"), &b));
    assert_memory_not_equal(a.p, b.p, a.n); /* the same twice does not look the same */
    assert_true(seal_open(priv, sbuf_str(&a), STR_LIT("hosts\nuser"), &out));
    assert_str(sbuf_str(&out), "secret");
    assert_false(seal_open(priv, sbuf_str(&a), STR_LIT("thief\nuser"), &out));
    assert_false(seal_open(other, sbuf_str(&a), STR_LIT("hosts\nuser"), &out));
    for (size_t i = 0; i < a.n; i++) { /* any bit that changes shows */
        a.p[i] ^= 1;
        assert_false(seal_open(priv, sbuf_str(&a), STR_LIT("hosts\nuser"), &out));
        a.p[i] ^= 1;
    }
    for (size_t n = 0; n < a.n; n++)
        assert_false(seal_open(priv, str_make(a.p, n), STR_LIT("hosts\nuser"), &out));
    assert_int_equal(out.n, 6);
    sbuf_free(&a);
    sbuf_free(&b);
    sbuf_free(&out);
}

static void keys_are(struct keys *k, const char *want) {
    struct sbuf b = {0};
    for (size_t i = 0; i < k->n; i++)
        sbuf_printf(&b, "%s%s%s", i > 0 ? " " : "", k->v[i].partial ? "~" : "", k->v[i].key.p);
    assert_str(sbuf_str(&b), want);
    sbuf_free(&b);
    keys_clear(k);
}

static void test_keys(void **state) {
    struct params p = {.recipient_delimiter = "+",
                       .myorigin = "my.example",
                       .mydestination = "host.example, Local.example",
                       .parent_domain_matches_subdomains = ""};
    struct keys k = {.n = 0};
    (void)state;
    keys_sender(&k, &p, STR_LIT("User+ext@Dom.example"));
    keys_are(&k, "User+ext@Dom.example ~User@Dom.example ~@Dom.example");
    keys_sender(&k, &p, STR_LIT("a b@x.example"));
    keys_are(&k, "\"a b\"@x.example a b@x.example ~@x.example");
    keys_local_sender(&k, &p, STR_LIT("u+e@my.example"));
    keys_are(&k, "u+e@my.example ~u@my.example ~u+e ~u ~@my.example");
    keys_local_sender(&k, &p, STR_LIT("u@local.example"));
    keys_are(&k, "u@local.example ~u ~@local.example");
    keys_sender(&k, &p, STR_LIT(""));
    keys_are(&k, "");
    keys_recipient(&k, &p, STR_LIT("u+e@a.b.example"));
    keys_are(&k, "u+e@a.b.example ~u@a.b.example ~a.b.example ~.b.example ~.example *");
    p.parent_domain_matches_subdomains = "x transport_maps";
    p.recipient_delimiter = "";
    keys_recipient(&k, &p, STR_LIT("u+e@b.example"));
    keys_are(&k, "u+e@b.example ~b.example ~example *");
    for (int i = 0; i < KEYS_MAX + 5; i++) {
        char text[16];
        snprintf(text, sizeof text, "k%d", i);
        keys_add(&k, false, "", str_of(text), STR_NONE);
    }
    assert_int_equal(k.n, KEYS_MAX);
    keys_clear(&k);
}

static void strip(const char *in, const char *want, bool cut) {
    struct sbuf b = {0};
    assert_int_equal(nexthop_without_transport(str_of(in), &b), cut);
    assert_str(sbuf_str(&b), want);
    sbuf_free(&b);
}

static void test_transport_names(void **state) {
    (void)state;
    strip("smtp:[192.168.1.2]:25", "[192.168.1.2]:25", true);
    strip("relay:host.example:587", "host.example:587", true);
    strip("SMTP:[a.example], [b.example]:2", "[a.example], [b.example]:2", true);
    strip("smtp:25", "smtp:25", false);
    strip("[a.example]:25,[b.example]", "[a.example]:25,[b.example]", false);
    strip("lmtp:[a.example]", "lmtp:[a.example]", false);
    strip("smtp:[", "smtp:[", false);
    strip("", "", false);
}

static void test_record(void **state) {
    struct record r;
    (void)state;
    assert_true(record_parse(
        &r, STR_LIT("{\"id\": \"1\", \"name\": \"n\", \"hosts\": \"h\", \"tls\": \"may\", "
                    "\"mechanisms\": \"\", \"user\": \"u\", \"account\": \"\"}")));
    assert_string_equal(r.user, "u");
    record_free(&r);
    assert_false(record_parse(&r, STR_LIT("{\"id\": 1}")));
    assert_false(record_parse(&r, STR_LIT("nothing")));
    record_free(&r);
}

static void test_recent(void **state) {
    static struct recent *r; /* a process keeps it for life */
    struct sbuf b = {0};
    int64_t now = clock_mono_ms();
    (void)state;
    r = recent_new();
    assert_false(recent_get(r, STR_LIT("q"), &b));
    recent_put(r, STR_LIT("q"), STR_LIT("a"), now);
    assert_true(recent_get(r, STR_LIT("q"), &b));
    assert_str(sbuf_str(&b), "a");
    recent_put(r, STR_LIT("q"), STR_LIT("b"), now - RECENT_MS - 1);
    assert_false(recent_get(r, STR_LIT("q"), &b));
    for (int i = 0; i < 3000; i++) { /* what is too old makes room */
        char text[16];
        snprintf(text, sizeof text, "q%d", i);
        recent_put(r, str_of(text), STR_LIT("x"), now - RECENT_MS - 1);
    }
    recent_put(r, STR_LIT("q"), STR_LIT("c"), now);
    recent_clear(r);
    assert_false(recent_get(r, STR_LIT("q"), &b));
    sbuf_free(&b);
}

/* Who asks chooses questions, and who makes aliases the size of answers: what is kept is bounded.
 */
static void test_recent_is_bounded(void **state) {
    static struct recent *r;
    struct sbuf b = {0}, big = {0}, huge = {0};
    struct task task;
    char text[16];
    size_t known = 0;
    int64_t now = clock_mono_ms(), later = now + 100000;
    (void)state;
    sbuf_room(&big, 1 << 20);
    memset(big.p, 'x', 1 << 20);
    sbuf_advance(&big, 1 << 20);
    r = recent_new();
    for (int i = 0; i < 10; i++) { /* what is too old makes room for what is not */
        snprintf(text, sizeof text, "old%d", i);
        recent_put(r, str_of(text), sbuf_str(&big), now - RECENT_MS - 1);
    }
    for (int i = 0; i < 60; i++) {
        snprintf(text, sizeof text, "q%d", i);
        recent_put(r, str_of(text), sbuf_str(&big), later);
    }
    for (int i = 0; i < 60; i++) {
        snprintf(text, sizeof text, "q%d", i);
        known += recent_get(r, str_of(text), &b);
        sbuf_reset(&b);
    }
    assert_in_range(known, 4, RECENT_BYTES >> 20);
    assert_int_equal(recent_find(r, STR_LIT("asked"), &task, &b), RECENT_ASK);
    for (int i = 0; i < 17; i++)
        sbuf_add_str(&huge, sbuf_str(&big));
    assert_null(recent_done(r, STR_LIT("asked"), sbuf_str(&huge), true));
    assert_false(recent_get(r, STR_LIT("asked"), &b));
    sbuf_free(&b);
    sbuf_free(&big);
    sbuf_free(&huge);
}

static void test_recent_after_a_change(void **state) {
    static struct recent *r;
    struct sbuf b = {0};
    struct task first, second, third;
    (void)state;
    r = recent_new();
    assert_int_equal(recent_find(r, STR_LIT("q"), &first, &b), RECENT_ASK);
    assert_int_equal(recent_find(r, STR_LIT("q"), &second, &b), RECENT_JOINED);
    recent_clear(r);
    /* What is on its way was asked before: a question now is one of its own. */
    assert_int_equal(recent_find(r, STR_LIT("q"), &third, &b), RECENT_ALONE);
    assert_ptr_equal(recent_done(r, STR_LIT("q"), STR_LIT("old"), true), &second);
    assert_false(recent_get(r, STR_LIT("q"), &b));
    recent_put(r, STR_LIT("p"), STR_LIT("old"), clock_mono_ms() - 1);
    recent_clear(r);
    recent_put(r, STR_LIT("p"), STR_LIT("old"),
               clock_mono_ms() - 1); /* asked before, answered after */
    assert_false(recent_get(r, STR_LIT("p"), &b));
    recent_put(r, STR_LIT("p"), STR_LIT("new"), clock_mono_ms() + 1);
    assert_true(recent_get(r, STR_LIT("p"), &b));
    sbuf_free(&b);
}

static const char *relayhost(const char *text) {
    struct str bad;
    return value_relayhost_bad(str_of(text), &bad);
}

static const char *transport(const char *text) {
    struct str bad;
    return value_transport_bad(str_of(text), &bad);
}

static void test_values(void **state) {
    static const char *const good[] = {"[a.example]:587",   "a.example",      "[1.2.3.4]",
                                       "smtp:[1.2.3.4]:25", "[a]:25, [b]:25", "DUNNO"};
    static const char *const hops[] = {"dovecot",
                                       "lmtp:unix:private/dovecot-lmtp",
                                       "discard:",
                                       "lmtp:inet:127.0.0.1:24",
                                       "smtp:[x.example]:25",
                                       ":[x]:25",
                                       "mlmmj:example.com/list"};
    char *line = NULL;
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_null(relayhost(good[i]));
    for (size_t i = 0; i < sizeof hops / sizeof hops[0]; i++)
        assert_null(transport(hops[i]));
    assert_non_null(relayhost("[a"));
    assert_non_null(relayhost(""));
    assert_non_null(relayhost(" "));
    assert_non_null(relayhost("[a]:25\n[b]:25"));
    assert_non_null(relayhost("smtp:[a"));
    assert_non_null(transport(""));
    assert_non_null(transport("a b"));
    assert_non_null(transport("smtp:[x"));
    assert_non_null(transport("a/b:c"));
    assert_non_null(transport("lmtp:unix:"));
    line = malloc(300);
    memset(line, 'a', 299);
    line[299] = '\0';
    assert_non_null(relayhost(line));
    assert_non_null(transport(line));
    free(line);
    assert_true(value_account_ok(STR_LIT("@a.example")) &&
                value_account_ok(STR_LIT("u@a.example")) && value_account_ok(STR_LIT("<>")));
    assert_false(value_account_ok(STR_LIT("a.example")) ||
                 value_account_ok(STR_LIT("u @a.example")) || value_account_ok(STR_LIT("")) ||
                 value_account_ok(STR_LIT("@")));
}

static void test_disabled_profiles(void **state) {
    const char *s = "default_user_quota:1024;disabled_domain_profiles:bcc,relay;x:y;";
    (void)state;
    assert_true(settings_disable(s, "disabled_domain_profiles", "relay"));
    assert_true(settings_disable(s, "disabled_domain_profiles", "bcc"));
    assert_false(settings_disable(s, "disabled_domain_profiles", "rela"));
    assert_false(settings_disable(s, "disabled_user_profiles", "relay"));
    assert_false(settings_disable("", "disabled_user_profiles", "relay"));
    assert_false(
        settings_disable("disabled_user_profiles;relay", "disabled_user_profiles", "relay"));
}

static char *from_main(void *arg, const char *name) {
    return strcmp(name, "foo_query") == 0 ? strdup(arg) : NULL;
}

static void test_parameters_of_main(void **state) {
    char text[] = "SELECT 1";
    (void)state;
    assert_null(tabconf_main("foo_query"));
    assert_null(tabconf_legacy("foo"));
    tabconf_use_main(from_main, text);
    struct tabconf *c = tabconf_legacy("foo");
    assert_non_null(c);
    assert_string_equal(tabconf_str(c, "query", ""), "SELECT 1");
    tabconf_set(c, "query", "SELECT 2");
    assert_string_equal(tabconf_str(c, "query", ""), "SELECT 2");
    tabconf_free(c);
    assert_null(tabconf_legacy("bar"));
    tabconf_use_main(NULL, NULL);
}

static void shown(const char *spec, const char *want) {
    struct sbuf b = {0};
    maps_show(spec, &b);
    assert_str(sbuf_str(&b), want);
    sbuf_free(&b);
}

static void test_what_is_shown(void **state) {
    (void)state;
    shown("hash:/a, proxy:mysql:/b", "hash:/a, proxy:mysql:/b");
    shown("static:user:password", "static:(hidden)");
    shown("inline:{ { relay = user:pass word } } hash:/x", "inline:(hidden), hash:/x");
    shown("unionmap:{static:u:p,hash:/x}", "unionmap:{static:(hidden), hash:/x}");
    shown("", "");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_passwords),
                                       cmocka_unit_test(test_sealed),
                                       cmocka_unit_test(test_keys),
                                       cmocka_unit_test(test_transport_names),
                                       cmocka_unit_test(test_record),
                                       cmocka_unit_test(test_recent),
                                       cmocka_unit_test(test_recent_is_bounded),
                                       cmocka_unit_test(test_recent_after_a_change),
                                       cmocka_unit_test(test_values),
                                       cmocka_unit_test(test_disabled_profiles),
                                       cmocka_unit_test(test_parameters_of_main),
                                       cmocka_unit_test(test_what_is_shown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
