/*
 * tests/unit/deliver.c - what replies mean, and which error of several counts
 */
#include "unit.h"

#include "deliver/probe.h"
#include "deliver/session.h"
#include "deliver/verdict.h"

/* The rules once more, as sentences of RFC 5321 and docs/differences.md instead of as a table. */
static enum verdict ruled(enum txn_command command, int code, enum txn_content content,
                          bool configured, bool soft_bounce) {
    bool waits_for_content = command == TXN_DATA;
    if (code == 421) {
        if (command == TXN_CONTENT && content == CONTENT_WHOLE)
            return VERDICT_LATER;
        return VERDICT_CLOSING;
    }
    if (code >= 300 && code < 400)
        return waits_for_content && code == 354 ? VERDICT_GO : VERDICT_SUSPECT;
    if (command == TXN_RSET)
        return code < 300 ? VERDICT_OK : VERDICT_SUSPECT;
    if (code < 300) {
        if (waits_for_content || (command == TXN_CONTENT && content == CONTENT_PART))
            return VERDICT_SUSPECT;
        return command == TXN_CONTENT && content == CONTENT_WHOLE ? VERDICT_SENT : VERDICT_OK;
    }
    bool login = code == 530 || code == 534 || code == 535 || code == 538;
    if (code < 500 || soft_bounce || code == 503 || (configured && login))
        return VERDICT_LATER;
    return VERDICT_REFUSED;
}

/* Each command, each code, each state of the content, configured or not, soft_bounce or not. */
static void test_every_reply_to_every_command(void **state) {
    unsigned sent = 0;
    (void)state;
    for (int command = 0; command < TXN_COMMANDS; command++)
        for (int code = 200; code < 600; code++)
            for (int content = CONTENT_NONE; content <= CONTENT_WHOLE; content++)
                for (int how = 0; how < 4; how++) {
                    enum txn_command c = (enum txn_command)command;
                    enum txn_content k = (enum txn_content)content;
                    bool configured = (how & 1) != 0, soft = (how & 2) != 0;
                    enum verdict v = verdict_of(c, code, k, configured, soft);
                    if (v != ruled(c, code, k, configured, soft))
                        fail_msg("%s, %d, content %d: %d", verdict_command_name(c), code, content,
                                 (int)v);
                    assert_true(v != VERDICT_UNSET);
                    if (v == VERDICT_SENT) {
                        assert_true(c == TXN_CONTENT && code / 100 == 2 && k == CONTENT_WHOLE);
                        sent++;
                    }
                    if (v == VERDICT_REFUSED)
                        assert_true(code / 100 == 5 && !soft);
                }
    assert_int_equal(sent, 4 * 100);
}

static void test_names_of_commands(void **state) {
    (void)state;
    assert_string_equal(verdict_command_name(TXN_CONTENT), "end of DATA");
    for (int command = 0; command < TXN_COMMANDS; command++)
        assert_true(verdict_command_name((enum txn_command)command)[0] != '\0');
}

static struct mailerr error_of(enum mail_status status, enum mail_phase phase) {
    return (struct mailerr){.status = status, .phase = phase};
}

/* Mail is given up only when each host gave it up; a name says less than a host. */
static void test_which_error_stands_for_all_hosts(void **state) {
    struct mailerr none = error_of(MAIL_UNSET, PHASE_UNSET);
    struct mailerr refused = error_of(MAIL_DEFERRED, PHASE_CONNECT);
    struct mailerr servfail = error_of(MAIL_DEFERRED, PHASE_DNS);
    struct mailerr nx = error_of(MAIL_BOUNCED, PHASE_DNS);
    (void)state;
    for (int status = MAIL_DEFERRED; status <= MAIL_BOUNCED; status++)
        for (int phase = PHASE_ROUTE; phase <= PHASE_MAIL; phase++) {
            enum mail_status st = (enum mail_status)status;
            enum mail_phase ph = (enum mail_phase)phase;
            assert_false(error_outweighs(&none, st, ph));
            assert_false(error_outweighs(&nx, st, ph));
            assert_int_equal(error_outweighs(&refused, st, ph),
                             st == MAIL_BOUNCED || ph == PHASE_DNS);
            assert_int_equal(error_outweighs(&servfail, st, ph), st == MAIL_BOUNCED);
        }
}

/* Rows of smtp_tls_policy_maps; what Debian's Postfix makes of the same is in compat/test_tls.py.
 */
static void test_tls_policies(void **state) {
    static const struct {
        const char *row, *why; /* why NULL: good */
        enum tls_level level;
        const char *match, *servername;
    } rows[] = {
        {"none", NULL, LEVEL_NONE, NULL, NULL},
        {" may ", NULL, LEVEL_MAY, NULL, NULL},
        {"ENCRYPT", NULL, LEVEL_ENCRYPT, NULL, NULL},
        {"none, match=a strange", NULL, LEVEL_NONE, NULL, NULL},
        {"verify match=a.test", NULL, LEVEL_VERIFY, "a.test", NULL},
        {"secure match=a.test match=.b.test", NULL, LEVEL_SECURE, "a.test:.b.test", NULL},
        {"secure Match=a:b,match=nexthop\tMATCH=c", NULL, LEVEL_SECURE, "a:b:nexthop:c", NULL},
        {"encrypt servername=sni.test", NULL, LEVEL_ENCRYPT, NULL, "sni.test"},
        {"may servername=nexthop connection_reuse=YES", NULL, LEVEL_MAY, NULL, "nexthop"},
        {"may connection_reuse=no connection_reuse=yes", NULL, LEVEL_MAY, NULL, NULL},
        {"", "it is empty", 0, NULL, NULL},
        {" , ", "it is empty", 0, NULL, NULL},
        {"must", "there is no level \"must\"", 0, NULL, NULL},
        {"encrypt: match=a", "there is no level \"encrypt:\"", 0, NULL, NULL},
        {"may match=a.test", "match is not for level may", 0, NULL, NULL},
        {"encrypt match=a.test", "match is not for level encrypt", 0, NULL, NULL},
        {"secure match=a match=", "match is empty", 0, NULL, NULL},
        {"secure match = a", "\"match\" is no attribute=value", 0, NULL, NULL},
        {"secure =a", "\"=a\" is no attribute=value", 0, NULL, NULL},
        {"secure servername=a.test servername=a.test", "servername is given twice", 0, NULL, NULL},
        {"may servername=", "servername= is no host name", 0, NULL, NULL},
        {"may servername=127.0.0.1", "servername=127.0.0.1 is no host name", 0, NULL, NULL},
        {"may connection_reuse=perhaps", "connection_reuse=perhaps is neither yes nor no", 0, NULL,
         NULL},
        {"may connection_reuse", "\"connection_reuse\" is no attribute=value", 0, NULL, NULL},
        {"secure tafile=/a", "the attribute tafile is not known", 0, NULL, NULL},
    };
    struct tls_policy p = {.level = LEVEL_NONE};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sbuf why = {0};
        bool good = tls_policy_parse(&p, str_of(rows[i].row), &why);
        bool same = good == (rows[i].why == NULL);
        same = same && (good ? why.n == 0 && p.level == rows[i].level : true);
        if (!same || (!good && !str_eq_c(sbuf_str(&why), rows[i].why)))
            fail_msg("%s: %s", rows[i].row, why.n > 0 ? why.p : "good");
        for (int k = 0; good && k < 2; k++) {
            const char *want = k == 0 ? rows[i].match : rows[i].servername;
            const char *got = k == 0 ? p.match : p.servername;
            if ((want == NULL) != (got == NULL) || (want != NULL && strcmp(want, got) != 0))
                fail_msg("%s: %s", rows[i].row, got == NULL ? "nothing" : got);
        }
        sbuf_free(&why);
    }
    tls_policy_clear(&p);
    assert_null(p.match);
    for (int level = LEVEL_NONE; level <= LEVEL_SECURE; level++) {
        enum tls_level back;
        assert_true(tls_level_parse(str_of(tls_level_name((enum tls_level)level)), &back));
        assert_int_equal(back, level);
    }
}

static struct dsess session_on(const struct stage *mail, struct params *p) {
    struct dsess s = {.mail = mail, .p = p, .phase = PHASE_CONNECT, .stage_name = "connect"};
    return s;
}

static void test_error_of_a_round(void **state) {
    struct params p = {0};
    struct dsess s = session_on(NULL, &p);
    (void)state;
    session_take_error(&s); /* nothing has happened */
    assert_true(s.err.status == MAIL_UNSET);
    assert_int_equal(host_failed(&s, BLAME_SITE, "4.4.1", "connect to %s", "a"), STEP_HOST_FAILED);
    assert_true(s.now.phase == PHASE_CONNECT && s.now.blame == BLAME_SITE);
    session_take_error(&s);
    assert_true(s.now.status == MAIL_UNSET && s.now.text == NULL);
    s.phase = PHASE_DNS;
    session_note(&s, MAIL_BOUNCED, BLAME_SITE, "5.4.4", "no such name");
    session_take_error(&s);
    assert_string_equal(s.err.text, "connect to a");
    s.phase = PHASE_AUTH;
    host_failed(&s, BLAME_MESSAGE, "4.7.0", "after: %s", s.err.text);
    session_take_error(&s);
    assert_string_equal(s.err.text, "after: connect to a");
    assert_true(s.err.status == MAIL_DEFERRED && s.err.phase == PHASE_AUTH);
    mailerr_free(&s.err);
}

/* The record is about its own hosts; 465 is TLS from the first byte. */
static void test_host_in_use(void **state) {
    struct params p = {.smtp_fallback_relay = ""};
    struct target targets[2] = {{.host = (char *)(uintptr_t) "a"},
                                {.host = (char *)(uintptr_t) "b", .fallback = true}};
    struct dsess s = session_on(NULL, &p);
    (void)state;
    s.targets = targets;
    s.n_targets = 2;
    netaddr_parse(&targets[0].addr, STR_LIT("127.0.0.1"), 465);
    netaddr_parse(&targets[1].addr, STR_LIT("127.0.0.1"), 587);
    assert_false(session_uses_record(&s));
    s.rec.id = (char *)(uintptr_t) "1";
    assert_true(session_uses_record(&s) && session_wrapped(&s) && session_more_hosts(&s));
    s.at = 1;
    assert_false(session_uses_record(&s));
    assert_false(session_wrapped(&s));
    assert_false(session_more_hosts(&s));
    p.smtp_tls_wrappermode = true;
    assert_true(session_wrapped(&s));
    s.hops_left = STR_LIT("[c]:25");
    assert_true(session_more_hosts(&s));
    s.hops_left = STR_LIT(" ");
    assert_false(session_more_hosts(&s));
    p.smtp_fallback_relay = "[d]:25";
    assert_true(session_more_hosts(&s));
    /* The limit is of one destination's hosts: others, and the fallback, come after it. */
    p.smtp_mx_session_limit = 2;
    s.hops_left = STR_NONE;
    s.uses = 1;
    s.hop_sessions = 2;
    assert_true(session_more_hosts(&s));
    s.fallback_added = true;
    assert_false(session_more_hosts(&s));
    s.at = 0;
    assert_false(session_more_hosts(&s));
    s.hop_sessions = 1;
    assert_true(session_more_hosts(&s));
}

/* Texts as they stand in queue listings, with what the advice has to say; NULL: nothing. */
static void test_advice(void **state) {
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"Server certificate not verified", "certificate"},
        {"host a[b] said: 554 Message rejected: Email address is not verified. (in reply to end of "
         "DATA command)",
         "Amazon SES"},
        {"host a[b] said: 550 sender not verified", "verify the address"},
        {"SASL authentication failed; server a[b] said: 535 5.7.139 Authentication unsuccessful, "
         "the user credentials were incorrect. [X]",
         "password is wrong"},
        {"SASL authentication failed; server a[b] said: 535 5.7.139 Authentication unsuccessful, "
         "basic authentication is disabled. [X]",
         "switched off"},
        {"SASL authentication failed; server a[b] said: 535-5.7.8 Username and Password not "
         "accepted.",
         "password is wrong"},
        {"SASL authentication failed; server a[b] said: 534-5.7.9 Application-specific password "
         "required.",
         "application password"},
        {"SASL authentication failed; server a[b] said: 454 4.7.0 Too many login attempts, please "
         "try again later.",
         "Too many logins"},
        {"SASL authentication failed; server a[b] said: 454 4.7.0 Temporary authentication failure",
         "cannot check logins"},
        {"SASL authentication failed; cannot authenticate to server a[b]: no mechanism available",
         "no login that may be used"},
        {"host a[b] said: 421-4.7.28 Gmail has detected an unusual rate of mail",
         "limits how much mail"},
        {"host a[b] said: 450 4.7.1 <x@y>: Recipient address rejected: Greylisted",
         "tried again by itself"},
        {"host a[b] said: 550 5.1.1 no such user", NULL},
        {"host a[b] said: 451 4.4.0 connect to backend: Connection refused", NULL},
        {"connect to a[b]:25: Connection refused", "Nothing listens"},
        {"delivery temporarily suspended: connect to a[b]:25: Connection refused",
         "Nothing listens"},
        {"Host or domain name not found. Name service error for name=a type=A: Host not found",
         "does not exist"},
        {"Host or domain name not found. Name service error for name=a type=A: Host not found, try "
         "again",
         "DNS servers"},
        {"535 5.7.8 bad", "password is wrong"},
        {"", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *got = advice_for(str_of(cases[i].text));
        bool good = cases[i].says == NULL
                        ? got == NULL
                        : got != NULL && str_icontains(str_of(got), str_of(cases[i].says));
        if (!good)
            fail_msg("%s: %s", cases[i].text, got == NULL ? "nothing" : got);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_reply_to_every_command),
        cmocka_unit_test(test_names_of_commands),
        cmocka_unit_test(test_which_error_stands_for_all_hosts),
        cmocka_unit_test(test_error_of_a_round),
        cmocka_unit_test(test_tls_policies),
        cmocka_unit_test(test_host_in_use),
        cmocka_unit_test(test_advice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
