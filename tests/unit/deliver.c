/*
 * tests/unit/deliver.c - what replies mean, and which error of several counts
 */
#include "unit.h"

#include <time.h>
#include <unistd.h>

#include "../fuzz/bundle.h"
#include "deliver/probe.h"
#include "deliver/secure.h"
#include "deliver/session.h"
#include "deliver/verdict.h"
#include "util/chance.h"

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
    if (command == TXN_XFORWARD) /* the mail goes, whatever the host says of its client */
        return VERDICT_OK;
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
        {"secure tafile=/a match=x tafile=/b", NULL, LEVEL_SECURE, "x", NULL},
        {"verify tafile=", "tafile is empty", 0, NULL, NULL},
        {"fingerprint tafile=/a", "tafile is not for level fingerprint", 0, NULL, NULL},
        {"encrypt tafile=/a", "tafile is not for level encrypt", 0, NULL, NULL},
        {"fingerprint match=00:11|22 match=33:44", NULL, LEVEL_FINGERPRINT, "00:11|22|33:44", NULL},
        {"dane", "there is no level \"dane\"", 0, NULL, NULL},
        {"encrypt protocols=TLSv1.2:>=TLSv1.2 ciphers=high exclude=aRSA", NULL, LEVEL_ENCRYPT, NULL,
         NULL},
        {"encrypt protocols=TLSv1.2,protocols=TLSv1.3", "protocols is given twice", 0, NULL, NULL},
        {"may protocols=TLSv9", "there is no TLS protocol \"TLSv9\"", 0, NULL, NULL},
        {"may ciphers=strong", "ciphers=strong: there is no \"strong\"", 0, NULL, NULL},
        {"may ciphers=high ciphers=high", "ciphers is given twice", 0, NULL, NULL},
        {"may exclude=a exclude=b", "exclude is given twice", 0, NULL, NULL},
        {"may servername=k\u00f6ln.test", NULL, LEVEL_MAY, NULL, "k\u00f6ln.test"},
        {"may servername=k\u00f6ln..test", "servername=k\u00f6ln..test is no host name", 0, NULL,
         NULL},
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

/* Which parameter is wrong, and how: `posthouse check` and the mail that waits say it. */
static void test_client_settings(void **state) {
    static const struct {
        const char *settings, *param, *why;
        enum tls_level level;
    } rows[] = {
        {"", NULL, NULL, LEVEL_MAY},
        {"smtp_tls_protocols = TLSv9\n", "smtp_tls_protocols", "there is no TLS protocol \"TLSv9\"",
         LEVEL_MAY},
        {"smtp_tls_protocols = TLSv9\n", NULL, NULL, LEVEL_ENCRYPT},
        {"smtp_tls_mandatory_protocols = !x\n", "smtp_tls_mandatory_protocols",
         "there is no TLS protocol \"!x\"", LEVEL_SECURE},
        {"smtp_tls_ciphers = strong\n", "smtp_tls_ciphers", "there is no \"strong\"", LEVEL_MAY},
        {"smtp_tls_mandatory_ciphers = good\n", "smtp_tls_mandatory_ciphers",
         "there is no \"good\"", LEVEL_ENCRYPT},
        {"smtp_tls_exclude_ciphers = aNULL, !x\n", "smtp_tls_exclude_ciphers", "there is no \"!x\"",
         LEVEL_MAY},
        {"smtp_tls_exclude_ciphers = aNULL, !x\n", "smtp_tls_exclude_ciphers", "there is no \"!x\"",
         LEVEL_ENCRYPT},
        {"smtp_tls_exclude_ciphers = aRSA\nsmtp_tls_mandatory_exclude_ciphers = !y\n",
         "smtp_tls_mandatory_exclude_ciphers", "there is no \"!y\"", LEVEL_ENCRYPT},
        {"smtp_tls_mandatory_exclude_ciphers = !y\n", NULL, NULL, LEVEL_MAY},
        {"smtp_tls_cert_file = /gone.pem\n", "smtp_tls_cert_file",
         "/gone.pem: No such file or directory", LEVEL_MAY},
        {"smtp_tls_chain_files = /one.pem /two.pem\n", "smtp_tls_chain_files",
         "/one.pem: No such file or directory", LEVEL_MAY},
        {"smtp_tls_CAfile = /gone.pem\n", "smtp_tls_CAfile", "/gone.pem: No such file or directory",
         LEVEL_MAY},
        {"smtp_tls_CApath = /gone\n", "smtp_tls_CApath", "/gone: No such file or directory",
         LEVEL_VERIFY},
        {"smtp_tls_trust_anchor_file = /gone.pem\n", "smtp_tls_trust_anchor_file",
         "/gone.pem: No such file or directory", LEVEL_VERIFY},
        {"smtp_tls_trust_anchor_file = /gone.pem\n", NULL, NULL, LEVEL_ENCRYPT}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct config *cfg = bundle_config(str_of(rows[i].settings), STR_NONE);
        const char *param = NULL;
        char *why = NULL;
        bool good =
            secure_check(cfg, &cfg->p, &(struct tls_policy){.level = rows[i].level}, &param, &why);
        if (good != (rows[i].param == NULL) || (!good && strcmp(param, rows[i].param) != 0) ||
            (!good && strcmp(why, rows[i].why) != 0))
            fail_msg("%s at %s: %s: %s", rows[i].settings, tls_level_name(rows[i].level),
                     good ? "good" : param, good ? "" : why);
        free(why);
        config_unref(cfg);
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
    assert_int_equal(host_failed(&s, BLAME_SITE, CAUSE_REFUSED, "4.4.1", "connect to %s", "a"),
                     STEP_HOST_FAILED);
    assert_true(s.now.phase == PHASE_CONNECT && s.now.blame == BLAME_SITE);
    assert_true(s.now.cause == CAUSE_REFUSED);
    session_take_error(&s);
    assert_true(s.now.status == MAIL_UNSET && s.now.text == NULL);
    s.phase = PHASE_DNS;
    session_note(&s, MAIL_BOUNCED, BLAME_SITE, CAUSE_NAME_UNKNOWN, "5.4.4", "no such name");
    session_take_error(&s);
    assert_string_equal(s.err.text, "connect to a");
    assert_true(s.err.cause == CAUSE_REFUSED);
    s.phase = PHASE_AUTH;
    host_failed(&s, BLAME_MESSAGE, CAUSE_LOGIN_MISSING, "4.7.0", "after: %s", s.err.text);
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

/* Replies as errors keep them, with what the advice has to say; NULL: nothing. */
static void test_advice(void **state) {
    static const struct {
        const char *reply, *says;
    } cases[] = {
        {"554 Message rejected: Email address is not verified. (in reply to end of DATA command)",
         "Amazon SES"},
        {"550 sender domain not verified", "verify the address"},
        {"535 5.7.139 Authentication unsuccessful, the user credentials were incorrect. [X]",
         "password is wrong"},
        {"535 5.7.139 Authentication unsuccessful, basic authentication is disabled. [X]",
         "switched off"},
        {"535-5.7.8 Username and Password not accepted.", "password is wrong"},
        {"534-5.7.9 Application-specific password required.", "application password"},
        {"454 4.7.0 Too many login attempts, please try again later.", "Too many logins"},
        {"454 4.7.0 Temporary authentication failure", "cannot check logins"},
        {"421-4.7.28 Gmail has detected an unusual rate of mail", "limits how much mail"},
        {"450 4.7.1 <x@y>: Recipient address rejected: Greylisted", "tried again by itself"},
        {"550 5.1.1 no such user", NULL},
        {"451 4.4.0 connect to backend: Connection refused", NULL},
        {"535 5.7.8 bad", "password is wrong"},
        /* Of a phrase that goes on in the next line; another code, or none, parts it. */
        {"550-5.7.1 sender domain not 550-5.7.1 verified", "verify the address"},
        {"550-5.7.1 sender domain not 550 verified", "verify the address"},
        {"550-5.7.1 sender domain not 540-5.7.1 verified", NULL},
        {"550-5.7.1 sender domain not 551-5.7.1 verified", NULL},
        {"550-5.7.1 sender domain not 650-5.7.1 verified", NULL},
        {"550-5.7.1 sender domain not 550: verified", NULL},
        {"550-5.7.1 sender domain not verified 550 5.7.1", "verify the address"},
        {"sender domain not verified", "verify the address"},
        {"150 sender domain not verified", "verify the address"},
        {"no", NULL},
        {"250 sender", NULL},
        {"750 sender", NULL},
        {"", NULL},
        {"connect to a[b]:25: Connection refused", NULL}, /* none of our texts is looked at */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *got = advice_for(CAUSE_UNSET, str_of(cases[i].reply));
        bool good = cases[i].says == NULL
                        ? got == NULL
                        : got != NULL && str_icontains(str_of(got), str_of(cases[i].says));
        if (!good)
            fail_msg("%s: %s", cases[i].reply, got == NULL ? "nothing" : got);
    }
}

/* Every cause, by the number that queues on disk have, with its name in JSON and words of its
 * sentence; NULL: it has none, by decision. */
static void test_advice_of_causes(void **state) {
    static const struct {
        const char *name, *says;
    } causes[] = {
        {"", NULL},
        {"connection refused", "Nothing listens there"},
        {"unreachable", "does not lead there"},
        {"no connection", NULL},
        {"timeout", "did not answer in time"},
        {"no greeting", "port 465"},
        {"connection lost", NULL},
        {"protocol", NULL},
        {"name server", "for now"},
        {"name unknown", "does not exist"},
        {"name malformed", "in disorder"},
        {"name filtered", "smtp_dns_reply_filter"},
        {"null mx", "takes no mail"},
        {"no host", NULL},
        {"loop", "this system itself"},
        {"tls missing", "offers no TLS"},
        {"tls handshake", "handshake failed"},
        {"certificate untrusted", "authority"},
        {"certificate name", "another name"},
        {"certificate fingerprint", "fingerprints"},
        {"login missing", "no login on this port"},
        {"login unusable", "no login that may be used"},
        {"login filtered", "mechanism filter"},
        {"login unproven", "not the one"},
        {"login dialogue", NULL},
        {"table", "log says which"},
        {"setting", NULL},
        {"too large", "larger than the relay host takes"},
        {"no smtputf8", "beyond ASCII"},
        {"address", NULL},
        {"content", "cannot be read from the queue"},
        {"queue", "cannot be written"},
        {"other mail", NULL},
        {"forwarding loop", "in a circle"},
        {"transport says", NULL},
        {"transport waits", "defer_transports"},
        {"expired", NULL},
        {"internal", NULL},
    };
    (void)state;
    assert_int_equal(sizeof causes / sizeof causes[0], MAIL_CAUSES);
    for (uint32_t i = 0; i < MAIL_CAUSES; i++) {
        enum mail_cause cause = mail_cause_numbered(i);
        const char *got = advice_for(cause, i == 0 ? STR_NONE : STR_LIT("535 5.7.8 not asked"));
        assert_int_equal(cause, i);
        assert_string_equal(mail_cause_name(cause), causes[i].name);
        assert_int_equal(mail_cause_named(str_of(causes[i].name)), i);
        if (causes[i].says == NULL ? got != NULL
                                   : got == NULL || strstr(got, causes[i].says) == NULL)
            fail_msg("%s: %s", causes[i].name, got == NULL ? "nothing" : got);
    }
    assert_int_equal(mail_cause_numbered(MAIL_CAUSES), CAUSE_UNSET); /* of a newer version */
    assert_int_equal(mail_cause_numbered(UINT32_MAX), CAUSE_UNSET);
    assert_int_equal(mail_cause_named(STR_LIT("of a newer version")), CAUSE_UNSET);
}

static bool advice_says(const char *reply, const char *says) {
    const char *got = advice_for(CAUSE_UNSET, str_of(reply));
    return strcmp(says, "-") == 0 ? got == NULL
                                  : got != NULL && str_icontains(str_of(got), str_of(says));
}

/* Replies as providers give them: the sentence of each, and none where none is certain. */
static void test_advice_for_replies(void **state) {
    char line[1024], reply[1024] = "";
    unsigned replies = 0, providers = 0;
    FILE *f = fopen(REPLIES, "r");
    (void)state;
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '#' && reply[0] == '\0') {
            providers += line[1] == ' ';
        } else if (line[0] == '\t') {
            replies++;
            const char *got = advice_for(CAUSE_UNSET, str_of(reply));
            if (!advice_says(reply, line + 1))
                fail_msg("%s: not \"%s\" but %s", reply, line + 1, got == NULL ? "nothing" : got);
            reply[0] = '\0';
        } else {
            snprintf(reply, sizeof reply, "%s", line);
        }
    }
    fclose(f);
    assert_true(replies >= 60 && providers >= 10);
}

/* -- where to connect to: a resolver and a chance in memory -- */

/* A name's records: addresses of a host, or exchangers of a domain. */
struct zone {
    const char *name;
    const char *addrs; /* blanks between them; NULL: there are none */
    const char *mx;    /* "10 a, 20 b"; "?" is malformed, "." takes no mail; NULL: there are none */
};

static const struct zone *zones;
static struct {
    resolve_fn fn;
    void *arg;
    enum resolve_type type;
    char name[100];
    unsigned questions;
} asked;
static uint32_t (*chance)(uint32_t n);
static enum step resumed;

static uint32_t chance_none(uint32_t n) {
    return n - 1; /* everything stays where it is */
}

static uint32_t chance_first(uint32_t n) {
    (void)n;
    return 0;
}

uint32_t chance_below(uint32_t n) {
    return chance(n);
}

struct resolver *resolver_new(struct loop *l, const struct config *cfg) {
    (void)l;
    (void)cfg;
    return NULL;
}

void resolver_reload(struct resolver *r, const struct config *cfg) {
    (void)r;
    (void)cfg;
}

struct resolver_query *resolver_ask(struct resolver *r, enum resolve_type type, const char *name,
                                    resolve_fn fn, void *arg) {
    (void)r;
    asked.fn = fn;
    asked.arg = arg;
    asked.type = type;
    asked.questions++;
    snprintf(asked.name, sizeof asked.name, "%s", name);
    return (struct resolver_query *)(void *)&asked;
}

void resolver_cancel(struct resolver_query *q) {
    (void)q;
}

static void note_resumed(struct dsess *s, enum step step) {
    (void)s;
    resumed = step;
}

/* Of a name in the zones. */
#define MX_MAX    300
#define ADDRS_MAX 200

static void zone_mx(const struct zone *z, struct resolve_answer *a, struct resolve_mx mx[MX_MAX]) {
    struct str rest = str_of(z->mx == NULL ? "" : z->mx), one;
    while (str_split(&rest, ",", &one)) {
        struct str pref, host;
        one = str_trim(one);
        str_split(&one, " ", &pref);
        host = str_trim(one);
        a->null_mx = a->null_mx || str_eq_c(host, ".");
        a->bad_mx = a->bad_mx || str_eq_c(host, "?");
        if (host.p[0] != '.' && host.p[0] != '?')
            mx[a->n_mx++] = (struct resolve_mx){str_dup(host), (uint16_t)atoi(pref.p)};
    }
    a->mx = mx;
}

/* Answers the open question out of the zones; "fails" at the beginning of a name is a failure. */
static void answer_from_zones(void) {
    struct resolve_mx mx[MX_MAX];
    struct netaddr addrs[ADDRS_MAX];
    struct resolve_answer a = {.rc = RESOLVE_NOTFOUND, .addrs = addrs};
    for (const struct zone *z = zones; z->name != NULL; z++) {
        struct str rest = str_of(z->addrs == NULL ? "" : z->addrs), one;
        if (strcmp(z->name, asked.name) != 0)
            continue;
        while (asked.type != RESOLVE_MX && str_split(&rest, " ", &one))
            assert_true(netaddr_parse(&addrs[a.n_addrs++], one, 0));
        if (asked.type == RESOLVE_MX)
            zone_mx(z, &a, mx);
    }
    a.rc = a.n_addrs + a.n_mx > 0 || a.null_mx        ? RESOLVE_OK
           : a.bad_mx                                 ? RESOLVE_MALFORMED
           : str_istarts(str_of(asked.name), "fails") ? RESOLVE_FAILED
                                                      : RESOLVE_NOTFOUND;
    resumed = STEP_UNSET;
    asked.fn(asked.arg, &a);
    assert_int_equal(resumed == STEP_UNSET ? STEP_AGAIN : resumed, STEP_AGAIN);
    for (size_t i = 0; i < a.n_mx; i++)
        free(mx[i].name);
}

static struct config *config_of(const char *main) {
    char path[100];
    snprintf(path, sizeof path, "%s/main.cf", dir);
    FILE *f = fopen(path, "w");
    fprintf(f, "myhostname = mta.example\n%s\n", main);
    fclose(f);
    struct config *cfg = config_build(cfg_source_new(dir));
    return cfg;
}

/* Goes on to the next target of the session, and is false when there is none. */
static bool next_target(struct dsess *s) {
    enum step step = STEP_AGAIN;
    while (step == STEP_AGAIN || step == STEP_WAIT) {
        step = dns_begin(s);
        while (step == STEP_WAIT && s->query != NULL)
            answer_from_zones();
    }
    return step == STEP_DONE;
}

static void session_of(struct dsess *s, struct deliver *d, struct config *cfg,
                       const char *nexthop) {
    static const struct service smtp = {.name = (char *)(uintptr_t) "smtp", .kind = SERVICE_SMTP};
    *s = (struct dsess){.d = d, .cfg = cfg, .p = &cfg->p, .phase = PHASE_DNS, .stage_name = "dns"};
    s->svc = &smtp;
    s->nexthop = (char *)(uintptr_t)nexthop;
    s->resume = note_resumed;
    asked.questions = 0;
    targets_begin(s);
}

/* The targets that a session meets one after the other, each with a blank; then how it ended. */
static void expect_targets(const char *main, bool configured, const char *nexthop,
                           const char *want) {
    struct deliver d = {0};
    struct config *cfg = config_of(main);
    struct dsess s;
    struct sbuf got = {0};
    session_of(&s, &d, cfg, nexthop);
    for (s.configured = configured; next_target(&s); s.at++)
        sbuf_printf(&got, "%s ", s.where);
    if (s.err.status != MAIL_UNSET)
        sbuf_printf(&got, "%s %s", s.err.dsn, s.err.text);
    assert_str(sbuf_str(&got), want);
    sbuf_free(&got);
    targets_free(&s);
    mailerr_free(&s.err);
    config_unref(cfg);
}

static size_t count_targets(struct config *cfg, const char *nexthop) {
    struct deliver d = {0};
    struct dsess s;
    size_t n = 0;
    session_of(&s, &d, cfg, nexthop);
    for (; next_target(&s); s.at++)
        n++;
    targets_free(&s);
    mailerr_free(&s.err);
    return n;
}

static const struct zone mail_zones[] = {
    {"bad.example", "198.51.100.66", "10 ?, 20 ?"},
    {"half.example", "198.51.100.66", "10 ?, 20 a.example"},
    {"null.example", "198.51.100.66", "0 ., 20 a.example"},
    {"digits.example", "198.51.100.66", "10 198.51.100.9, 20 a.example"},
    {"plain.example", "198.51.100.7", NULL},
    {"fails.example", "198.51.100.66", NULL},
    {"turns.example", NULL, "10 a.example, 10 b.example, 10 c.example, 20 d.example"},
    {"literal.example", NULL, "10 b.example, 10 198.51.100.77, 10 c.example"},
    {"wide.example", NULL, "10 many.example, 10 more.example, 20 d.example"},
    {"six.example", NULL, "10 v6.example, 10 w6.example, 20 x6.example, 30 more.example"},
    {"mixed.example", NULL, "10 one.example, 10 other.example, 20 a.example"},
    {"own.example", NULL, "10 v6.example, 20 a.example, 20 b.example, 30 c.example"},
    {"many.example", "198.51.100.11 198.51.100.12 198.51.100.13", NULL},
    {"more.example", "198.51.100.21 198.51.100.22 198.51.100.23", NULL},
    {"v6.example", "2001:db8::1 2001:db8::2", NULL},
    {"w6.example", "2001:db8::3 2001:db8::4", NULL},
    {"x6.example", "2001:db8::5", NULL},
    {"one.example", "198.51.100.31 2001:db8::31", NULL},
    {"other.example", "198.51.100.32 2001:db8::32", NULL},
    {"a.example", "198.51.100.1", NULL},
    {"b.example", "198.51.100.2", NULL},
    {"c.example", "198.51.100.3", NULL},
    {"d.example", "198.51.100.4", NULL},
    {"both.example", "2001:db8::1 2001:db8::2 2001:db8::3 2001:db8::4 198.51.100.1 198.51.100.2",
     NULL},
    {"few.example", "2001:db8::1 198.51.100.1 198.51.100.2 198.51.100.3 198.51.100.4", NULL},
    {"six.example", "2001:db8::11 2001:db8::12 2001:db8::13 2001:db8::14", NULL},
    {"four.example", "198.51.100.11 198.51.100.12 198.51.100.13", NULL},
    {NULL, NULL, NULL}};

#define MALFORMED(name)                                                                            \
    "Name service error for name=" name " type=MX: Malformed or unexpected name server reply"
#define NO_MAIL "Domain null.example does not accept mail (nullMX)"

/* MX records that cannot be used are an error, and the domain's address no way round them. */
static void test_unusable_exchangers(void **state) {
    (void)state;
    zones = mail_zones;
    chance = chance_none;
    expect_targets("", false, "bad.example", "5.4.4 " MALFORMED("bad.example"));
    assert_int_equal(asked.questions, 1);
    expect_targets("", true, "bad.example", "4.3.5 " MALFORMED("bad.example"));
    expect_targets("ignore_mx_lookup_error = yes\n", false, "bad.example",
                   "bad.example[198.51.100.66] ");
    expect_targets("smtp_tcp_port = nowhere\n", true, "[a.example]",
                   "4.3.5 bad next hop \"[a.example]\": smtp_tcp_port is no port");
    expect_targets("", false, "half.example", "a.example[198.51.100.1] ");
    expect_targets("", false, "null.example", "5.1.0 " NO_MAIL);
    expect_targets("", true, "null.example", "4.3.5 " NO_MAIL);
    expect_targets("ignore_mx_lookup_error = yes\n", false, "null.example", "5.1.0 " NO_MAIL);
    expect_targets("", false, "digits.example",
                   "198.51.100.9[198.51.100.9] a.example[198.51.100.1] ");
    expect_targets("", false, "plain.example", "plain.example[198.51.100.7] ");
    expect_targets("", false, "fails.example",
                   "4.4.3 Host or domain name not found. Name service error for "
                   "name=fails.example type=MX: Host not found, try again");
    expect_targets("ignore_mx_lookup_error = yes\n", false, "fails.example",
                   "fails.example[198.51.100.66] ");
    expect_targets("smtp_dns_support_level = disabled\n", false, "bad.example",
                   "bad.example[198.51.100.66] ");
}

/* The owner of a domain can give it thousands of exchangers and addresses. */
static void test_endless_exchangers(void **state) {
    struct sbuf mx = {0}, addrs = {0};
    (void)state;
    for (int i = 0; i < MX_MAX; i++)
        sbuf_printf(&mx, "%s%d crowd.example", i == 0 ? "" : ", ", i < 7 ? i : 7);
    for (int i = 0; i < ADDRS_MAX; i++)
        sbuf_printf(&addrs, "198.51.100.%d ", i + 1);
    const struct zone crowd[] = {{"crowd.example", addrs.p, mx.p}, {NULL, NULL, NULL}};
    zones = crowd;
    chance = chance_none;
    struct config *cfg = config_of("smtp_mx_address_limit = 0\n");
    assert_int_equal(count_targets(cfg, "[crowd.example]"), 100);
    assert_int_equal(count_targets(cfg, "crowd.example"), 100 * 100);
    assert_int_equal(asked.questions, 101);
    config_unref(cfg);
    cfg = config_of("");
    assert_int_equal(count_targets(cfg, "crowd.example"), 5);
    config_unref(cfg);
    sbuf_free(&mx);
    sbuf_free(&addrs);
}

/* The least processor time that a session took for crowd.example. */
static clock_t time_of_crowd(const char *main) {
    struct config *cfg = config_of(main);
    clock_t least = 0;
    for (int i = 0; i < 5; i++) {
        clock_t begun = clock();
        assert_int_equal(count_targets(cfg, "crowd.example"), 5);
        clock_t used = clock() - begun;
        least = i == 0 || used < least ? used : least;
    }
    config_unref(cfg);
    return least;
}

/* Of thousands of addresses, to have those of one family first is not what takes the time; and
 * those that do not count are not compared with our own. */
static void test_order_of_endless_addresses(void **state) {
    struct sbuf mx = {0}, four = {0}, six = {0};
    (void)state;
    for (int i = 0; i < 100; i++)
        sbuf_printf(&mx, "%s7 %s.example", i == 0 ? "" : ", ", i < 50 ? "four" : "six");
    for (int i = 1; i <= ADDRS_MAX; i++) {
        sbuf_printf(&four, i < 150 ? "198.51.100.%d " : "127.0.0.%d ", i);
        sbuf_printf(&six, "2001:db8::%x ", (unsigned)i);
    }
    const struct zone crowd[] = {{"crowd.example", NULL, mx.p},
                                 {"four.example", four.p, NULL},
                                 {"six.example", six.p, NULL},
                                 {NULL, NULL, NULL}};
    zones = crowd;
    chance = chance_none;
    clock_t plain = time_of_crowd(""), ordered = time_of_crowd("smtp_address_preference = ipv6\n");
    assert_true(ordered < 10 * (plain + CLOCKS_PER_SEC / 1000));
    sbuf_free(&mx);
    sbuf_free(&four);
    sbuf_free(&six);
}

static void test_turns_of_exchangers(void **state) {
    (void)state;
    zones = mail_zones;
    chance = chance_none;
    expect_targets("", false, "turns.example",
                   "a.example[198.51.100.1] b.example[198.51.100.2] c.example[198.51.100.3] "
                   "d.example[198.51.100.4] ");
    chance = chance_first;
    expect_targets("", false, "turns.example",
                   "b.example[198.51.100.2] c.example[198.51.100.3] a.example[198.51.100.1] "
                   "d.example[198.51.100.4] ");
    expect_targets("smtp_randomize_addresses = no\n", false, "turns.example",
                   "a.example[198.51.100.1] b.example[198.51.100.2] c.example[198.51.100.3] "
                   "d.example[198.51.100.4] ");
}

/* Where not all addresses may be used, both families are. */
static void test_balance_of_families(void **state) {
    (void)state;
    zones = mail_zones;
    chance = chance_none;
    expect_targets(
        "smtp_mx_address_limit = 3\nsmtp_address_preference = ipv6\n", false, "[both.example]",
        "both.example[2001:db8::1] both.example[2001:db8::2] both.example[198.51.100.1] ");
    expect_targets(
        "smtp_mx_address_limit = 3\nsmtp_address_preference = ipv6\n"
        "smtp_balance_inet_protocols = no\n",
        false, "[both.example]",
        "both.example[2001:db8::1] both.example[2001:db8::2] both.example[2001:db8::3] ");
    expect_targets("smtp_mx_address_limit = 4\nsmtp_address_preference = ipv4\n", false,
                   "[few.example]",
                   "few.example[198.51.100.1] few.example[198.51.100.2] few.example[198.51.100.3] "
                   "few.example[2001:db8::1] ");
    expect_targets("smtp_mx_address_limit = 2\n", false, "[both.example], [few.example]:587",
                   "both.example[2001:db8::1] both.example[198.51.100.1] few.example[2001:db8::1] "
                   "few.example[198.51.100.1] ");
    expect_targets(
        "smtp_mx_address_limit = 3\n", false, "[six.example]",
        "six.example[2001:db8::11] six.example[2001:db8::12] six.example[2001:db8::13] ");
    expect_targets("smtp_mx_address_limit = 2\n", false, "[four.example]",
                   "four.example[198.51.100.11] four.example[198.51.100.12] ");
    expect_targets("smtp_mx_address_limit = 5\n", false, "[few.example]",
                   "few.example[2001:db8::1] few.example[198.51.100.1] few.example[198.51.100.2] "
                   "few.example[198.51.100.3] few.example[198.51.100.4] ");
    expect_targets("smtp_mx_address_limit = 5\n", false, "[both.example]",
                   "both.example[2001:db8::1] both.example[2001:db8::2] both.example[2001:db8::3] "
                   "both.example[198.51.100.1] both.example[198.51.100.2] ");
    expect_targets("smtp_mx_address_limit = 0\n", false, "[few.example]",
                   "few.example[2001:db8::1] few.example[198.51.100.1] few.example[198.51.100.2] "
                   "few.example[198.51.100.3] few.example[198.51.100.4] ");
}

/* Chance and limit are about all addresses of all exchangers, as in Postfix; a later preference is
 * looked up early only where it may have the family that the first ones lack. */
static void test_addresses_of_exchangers(void **state) {
    (void)state;
    zones = mail_zones;
    chance = chance_first;
    expect_targets("smtp_mx_address_limit = 4\n", false, "wide.example",
                   "many.example[198.51.100.12] many.example[198.51.100.13] "
                   "more.example[198.51.100.21] more.example[198.51.100.22] ");
    assert_int_equal(asked.questions, 4);
    chance = chance_none;
    expect_targets("smtp_mx_address_limit = 4\nsmtp_address_preference = ipv6\n", false,
                   "six.example",
                   "v6.example[2001:db8::1] v6.example[2001:db8::2] more.example[198.51.100.21] "
                   "more.example[198.51.100.22] ");
    expect_targets("smtp_mx_address_limit = 4\nsmtp_balance_inet_protocols = no\n", false,
                   "six.example",
                   "v6.example[2001:db8::1] v6.example[2001:db8::2] w6.example[2001:db8::3] "
                   "w6.example[2001:db8::4] ");
    assert_int_equal(asked.questions, 3);
    expect_targets("smtp_mx_address_limit = 3\nsmtp_address_preference = ipv4\n", false,
                   "mixed.example",
                   "one.example[198.51.100.31] other.example[198.51.100.32] "
                   "one.example[2001:db8::31] ");
    expect_targets("smtp_address_preference = ipv6\n", false, "mixed.example",
                   "one.example[2001:db8::31] other.example[2001:db8::32] "
                   "one.example[198.51.100.31] other.example[198.51.100.32] "
                   "a.example[198.51.100.1] ");
    expect_targets("smtp_mx_address_limit = 2\nproxy_interfaces = 198.51.100.2\n", false,
                   "own.example",
                   "v6.example[2001:db8::1] v6.example[2001:db8::2] 5.4.6 mail for own.example "
                   "loops back to myself");
}

static void test_hops_one_after_the_other(void **state) {
    (void)state;
    zones = mail_zones;
    chance = chance_none;
    expect_targets(
        "smtp_fallback_relay = [d.example]:26\n", true,
        "[none.example]:25, [a.example]:1, [198.51.100.5]",
        "a.example[198.51.100.1] 198.51.100.5[198.51.100.5] d.example[198.51.100.4] 4.3.5 Host or "
        "domain name not found. Name service error for name=none.example type=A: Host "
        "not found");
    expect_targets("", true, "[a.example]:no",
                   "4.3.5 bad next hop \"[a.example]:no\": bad port or unknown service");
    expect_targets("", true, ",", "");
    expect_targets("smtp_fallback_relay = ,\n", true, "[a.example]", "a.example[198.51.100.1] ");
    expect_targets("smtp_fallback_relay = [a.example\n", true, "[b.example]",
                   "b.example[198.51.100.2] 4.3.5 bad next hop \"[a.example\": missing ']'");
}

/* No exchanger behind ourselves is used; who is meant by an administrator does not bounce. */
static void test_loops_to_ourselves(void **state) {
    (void)state;
    zones = mail_zones;
    chance = chance_none;
    expect_targets("proxy_interfaces = 203.0.113.1 198.51.100.4\n", false, "turns.example",
                   "a.example[198.51.100.1] b.example[198.51.100.2] c.example[198.51.100.3] "
                   "5.4.6 mail for turns.example loops back to myself");
    chance = chance_first; /* nor one of the same preference, whatever its turn */
    for (const char *const *limit = (const char *const[]){"0", "1", "5", NULL}; *limit; limit++) {
        char conf[200];
        snprintf(conf, sizeof conf,
                 "proxy_interfaces = 198.51.100.1 198.51.100.77\nsmtp_mx_address_limit = %s\n",
                 *limit);
        expect_targets(conf, false, "turns.example",
                       "5.4.6 mail for turns.example loops back to myself");
        expect_targets(conf, false, "literal.example",
                       "5.4.6 mail for literal.example loops back to myself");
    }
    chance = chance_none;
    expect_targets("proxy_interfaces = 198.51.100.3\n", true, "turns.example",
                   "4.3.5 mail for turns.example loops back to myself");
    expect_targets("proxy_interfaces = 198.51.100.3\n", false, "[d.example], turns.example",
                   "d.example[198.51.100.4] "
                   "5.4.6 mail for turns.example loops back to myself");
    expect_targets("proxy_interfaces = 198.51.100.1\n", true, "[a.example]",
                   "4.3.5 mail for [a.example] loops back to myself");
    expect_targets("proxy_interfaces = 198.51.100.1\n", true, "[a.example]:26",
                   "a.example[198.51.100.1] ");
}

/* A service is of the address before its port, of whichever family; without one, of all of ours. */
static void test_loops_by_what_listens(void **state) {
    static const char ours[] =
        "proxy_interfaces = our.example 198.51.100.1, 198.51.100.2 2001:db8::11 2001:db8::12\n";
    char path[100];
    (void)state;
    zones = mail_zones;
    chance = chance_none;
    snprintf(path, sizeof path, "%s/master.cf", dir);
    FILE *f = fopen(path, "w");
    fputs("smtp unix - - n - - smtp\n"
          "198.51.100.1:2525 inet n - n - - smtpd\n"
          "[2001:db8::11]:2626 inet n - n - - smtpd\n"
          "localhost:2727 inet n - n - - smtpd\n"
          "nowhere inet n - n - - smtpd\n"
          "submission inet n - n - - smtpd\n",
          f);
    fclose(f);
    expect_targets(ours, true, "[a.example]:2525",
                   "4.3.5 mail for [a.example]:2525 loops back to myself");
    expect_targets(ours, true, "[b.example]:2525", "b.example[198.51.100.2] ");
    expect_targets(ours, true, "[2001:db8::11]:2626",
                   "4.3.5 mail for [2001:db8::11]:2626 loops back to myself");
    expect_targets(ours, true, "[2001:db8::12]:2626", "2001:db8::12[2001:db8::12] ");
    expect_targets(ours, true, "[127.0.0.1]:2727",
                   "4.3.5 mail for [127.0.0.1]:2727 loops back to myself");
    expect_targets(ours, true, "[b.example]:2727", "b.example[198.51.100.2] ");
    expect_targets(ours, true, "[b.example]:587",
                   "4.3.5 mail for [b.example]:587 loops back to myself");
    expect_targets(ours, true, "[c.example]:587", "c.example[198.51.100.3] ");
    assert_int_equal(unlink(path), 0);
}

/* Files that are there, and are not what they are to be. */
static void test_client_files(void **state) {
    static const struct {
        const char *settings, *param, *why; /* why: what it contains */
    } rows[] = {
        {"smtp_tls_cert_file = $config_directory/nothing\n", "smtp_tls_cert_file",
         "the file is empty"},
        {"smtp_tls_cert_file = $config_directory/words\nsmtp_tls_key_file = "
         "$config_directory/nothing\n",
         "smtp_tls_key_file", "the file is empty"},
        {"smtp_tls_cert_file = $config_directory/words\nsmtp_tls_key_file = "
         "$config_directory/words\n",
         "smtp_tls_cert_file", ""},
        {"smtp_tls_chain_files = $config_directory/words\n", "smtp_tls_chain_files", ""},
        {"smtp_tls_chain_files = $config_directory/words, $config_directory/nothing\n",
         "smtp_tls_chain_files", "the file is empty"},
        {"smtp_tls_CAfile = $config_directory/nothing\n", "smtp_tls_CAfile", "the file is empty"},
        {"smtp_tls_CApath = $config_directory\n", "smtp_tls_CApath",
         "no certificate has its hash for a name"},
    };
    (void)state;
    for (int i = 0; i < 2; i++) {
        char path[100];
        snprintf(path, sizeof path, "%s/%s", dir, i == 0 ? "nothing" : "words");
        FILE *f = fopen(path, "w");
        fputs(i == 0 ? "" : "no certificate\n", f);
        fclose(f);
    }
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *param = NULL;
        char *why = NULL;
        struct config *cfg = config_of(rows[i].settings);
        assert_false(
            secure_check(cfg, &cfg->p, &(struct tls_policy){.level = LEVEL_VERIFY}, &param, &why));
        if (strcmp(param, rows[i].param) != 0 || strstr(why, rows[i].why) == NULL)
            fail_msg("%s: %s: %s", rows[i].settings, param, why);
        free(why);
        config_unref(cfg);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_reply_to_every_command),
        cmocka_unit_test(test_names_of_commands),
        cmocka_unit_test(test_which_error_stands_for_all_hosts),
        cmocka_unit_test(test_error_of_a_round),
        cmocka_unit_test(test_tls_policies),
        cmocka_unit_test(test_client_settings),
        cmocka_unit_test(test_host_in_use),
        cmocka_unit_test(test_advice),
        cmocka_unit_test(test_advice_of_causes),
        cmocka_unit_test(test_advice_for_replies),
        cmocka_unit_test(test_unusable_exchangers),
        cmocka_unit_test(test_endless_exchangers),
        cmocka_unit_test(test_order_of_endless_addresses),
        cmocka_unit_test(test_turns_of_exchangers),
        cmocka_unit_test(test_balance_of_families),
        cmocka_unit_test(test_addresses_of_exchangers),
        cmocka_unit_test(test_hops_one_after_the_other),
        cmocka_unit_test(test_loops_to_ourselves),
        cmocka_unit_test(test_loops_by_what_listens),
        cmocka_unit_test(test_client_files),
    };
    return cmocka_run_group_tests(tests, dir_make, dir_remove);
}
