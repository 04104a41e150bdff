/* Restriction lists: what they allow, what they refuse, and what they look up. */
#include "receive_rig.h"

/* -- access -- */

struct asked {
    enum verdict v;
    char text[400];
    size_t times;
};

static void on_verdict(void *arg, enum verdict v, unsigned code, const char *text) {
    struct asked *a = arg;
    a->v = v;
    a->times++;
    a->text[0] = '\0';
    if (v == VERDICT_REJECT)
        snprintf(a->text, sizeof a->text, "%u %s", code, text);
}

static void lookup_answers(void) {
    lookup_maps_fn fn = asking.fn;
    lookup_match_fn match = asking.match;
    asking.fn = NULL;
    asking.match = NULL;
    if (fn != NULL)
        fn(asking.arg, &table_says);
    else if (match != NULL)
        match(asking.arg, network_says);
}

static char run_keys[sizeof asked_keys]; /* asked_keys at the end of the last run that ended */

/* What a list says of a client: "" if it allows it, else the reply. */
static void ask(const char *main, struct access_facts f, enum access_stage stage,
                const char *want) {
    struct config *cfg = configure(main);
    struct asked a = {0};
    struct client nobody = {.addr = "192.0.2.9"};
    f.loop = loop;
    f.cfg = cfg;
    f.p = &cfg->p;
    if (f.sender_said.p == NULL)
        f.sender_said = f.sender;
    if (f.rcpt_said.p == NULL)
        f.rcpt_said = f.rcpt;
    if (f.client == NULL)
        f.client = &nobody;
    assert_non_null(access_begin(&f, stage, on_verdict, &a));
    assert_int_equal(a.times, 0); /* never before it has returned */
    for (int i = 0; i < 10 && a.times == 0; i++) {
        lookup_answers();
        turn();
    }
    assert_int_equal(a.times, 1);
    assert_string_equal(a.text, want);
    assert_int_equal(a.v, *want == '\0' ? VERDICT_ALLOW : VERDICT_REJECT);
    memcpy(run_keys, asked_keys, sizeof run_keys);
    access_cancel(access_begin(&f, stage, on_verdict, &a));
    turn();
    assert_int_equal(a.times, 1);
    client_clear(&nobody);
    config_unref(cfg);
}

#define RELAY     "smtpd_relay_restrictions = "
#define CLOSED    RELAY "reject_unauth_destination\n"
#define SENDER    "smtpd_sender_restrictions = "
#define RECIPIENT CLOSED "smtpd_recipient_restrictions = "
#define DENIED    "554 5.7.1 <b@y.example>: Relay access denied"

static struct access_facts facts(enum route_class address_class) {
    return (struct access_facts){.sender = STR_LIT("a@x.example"),
                                 .rcpt = STR_LIT("b@y.example"),
                                 .helo = "client.example",
                                 .address_class = address_class};
}

static void test_access_who(void **state) {
    struct client here = {.addr = "127.0.0.1"}, there = {.addr = "198.51.100.7"};
    struct client root = {.addr = "127.0.0.1", .local = true};
    struct access_facts f = facts(CLASS_DEFAULT);
    (void)state;
    ask(CLOSED, f, ACCESS_RCPT, DENIED);
    ask(RELAY "defer_unauth_destination", f, ACCESS_RCPT,
        "454 4.7.1 <b@y.example>: Relay access denied");
    ask(RELAY "permit_auth_destination, reject", f, ACCESS_RCPT,
        "554 5.7.1 <b@y.example>: Recipient address rejected: Access denied");
    ask(RELAY "permit_sasl_authenticated, reject_unauth_destination", f, ACCESS_RCPT, DENIED);
    /* warn_if_reject is about the words of its own list. */
    ask(RELAY "permit_sasl_authenticated, warn_if_reject\nsmtpd_recipient_restrictions = "
              "reject_unauth_destination",
        f, ACCESS_RCPT, DENIED);
    ask("smtpd_client_restrictions = warn_if_reject warn_if_reject\n" CLOSED, f, ACCESS_RCPT,
        DENIED);
    f.sasl_user = "u";
    ask(RELAY "permit_sasl_authenticated, reject_unauth_destination", f, ACCESS_RCPT, "");
    f.sasl_user = NULL;
    f.client = &there;
    ask("mynetworks = 198.51.100.0/24\n" RELAY "permit_mynetworks, reject", f, ACCESS_RCPT, "");
    ask("mynetworks = !198.51.100.7 198.51.100.0/24\n" CLOSED RELAY
        "permit_mynetworks, reject_unauth_destination",
        f, ACCESS_RCPT, DENIED);
    ask("smtpd_client_restrictions = reject_unknown_client_hostname\n" CLOSED, f, ACCESS_RCPT,
        "450 4.7.25 Client host rejected: cannot find your hostname, [198.51.100.7]");
    ask("smtpd_client_restrictions = reject_plaintext_session\n" CLOSED, f, ACCESS_RCPT,
        "450 4.7.1 Session encryption is required");
    f.encrypted = true;
    ask("smtpd_client_restrictions = reject_plaintext_session\n" CLOSED, f, ACCESS_RCPT, DENIED);
    f.client = &here;
    ask(RELAY "permit_inet_interfaces, reject_unauth_destination", f, ACCESS_RCPT, "");
    f.client = &root;
    ask("mynetworks =\n" RELAY "permit_mynetworks, reject", f, ACCESS_RCPT, "");
    ask(RELAY "permit_inet_interfaces, reject", f, ACCESS_RCPT, "");
}

static void test_access_where(void **state) {
    struct access_facts f = facts(CLASS_RELAY);
    (void)state;
    ask(CLOSED, f, ACCESS_RCPT, "");
    ask(RELAY "permit_auth_destination, reject", f, ACCESS_RCPT, "");
    ask(RELAY "defer_unauth_destination", f, ACCESS_RCPT, "");
    f.rcpt = STR_LIT("b%z@y.example");
    ask(CLOSED, f, ACCESS_RCPT, "554 5.7.1 <b%z@y.example>: Relay access denied");
    f.rcpt = STR_LIT("z!b@y.example");
    ask(CLOSED, f, ACCESS_RCPT, "554 5.7.1 <z!b@y.example>: Relay access denied");
    f.rcpt = STR_LIT("b@z@y.example");
    ask(CLOSED, f, ACCESS_RCPT, "554 5.7.1 <\"b@z\"@y.example>: Relay access denied");
}

static void test_access_words(void **state) {
    struct access_facts f = facts(CLASS_RELAY);
    (void)state;
    ask(SENDER "reject_non_fqdn_sender\n" RECIPIENT "reject_non_fqdn_recipient", f, ACCESS_RCPT,
        "");
    f.sender_said = f.rcpt_said = STR_LIT("c");
    ask(SENDER "reject_non_fqdn_sender\n" CLOSED, f, ACCESS_RCPT,
        "504 5.5.2 <c>: Sender address rejected: need fully-qualified address");
    ask(RECIPIENT "reject_non_fqdn_recipient\n", f, ACCESS_RCPT,
        "504 5.5.2 <c>: Recipient address rejected: need fully-qualified address");
    f.sender_said = f.rcpt_said = STR_NONE;
    f.sender = STR_LIT("a@short");
    ask(SENDER "reject_non_fqdn_sender\n" CLOSED, f, ACCESS_RCPT,
        "504 5.5.2 <a@short>: Sender address rejected: need fully-qualified address");
    ask(SENDER "permit, reject_non_fqdn_sender\n" CLOSED, f, ACCESS_RCPT, "");
    f.sender = STR_LIT("");
    ask(SENDER "reject_non_fqdn_sender\n" RECIPIENT "reject_multi_recipient_bounce", f, ACCESS_RCPT,
        "");
    f.n_rcpts = 1;
    ask(RECIPIENT "reject_multi_recipient_bounce", f, ACCESS_RCPT,
        "550 5.5.3 <b@y.example>: Recipient address rejected: Multi-recipient bounce");
    f.rcpt = STR_LIT("b@[192.0.2.1]");
    ask(RECIPIENT "reject_non_fqdn_recipient", f, ACCESS_RCPT, "");
    f.rcpt = STR_LIT("b@short");
    ask(RECIPIENT "reject_non_fqdn_recipient", f, ACCESS_RCPT,
        "504 5.5.2 <b@short>: Recipient address rejected: need fully-qualified address");
    ask(RECIPIENT "defer", f, ACCESS_RCPT,
        "450 4.3.2 <b@short>: Recipient address rejected: Try again later");
    ask(RECIPIENT "reject_unverified_sender, check_sender_mx_access hash:x, sleep 5, "
                  "reject_unlisted_recipient",
        f, ACCESS_RCPT, "");
    ask(RECIPIENT "no_such_word", f, ACCESS_RCPT, "451 4.3.5 Server configuration error");
    ask(RELAY "check_sender_mx_access hash:x, defer", f, ACCESS_RCPT,
        "450 4.3.2 <b@short>: Recipient address rejected: Try again later");
    ask(RECIPIENT "warn_if_reject defer, reject_non_fqdn_recipient", f, ACCESS_RCPT,
        "504 5.5.2 <b@short>: Recipient address rejected: need fully-qualified address");
    ask(RECIPIENT "warn_if_reject, no_such_word", f, ACCESS_RCPT,
        "451 4.3.5 Server configuration error");
    ask(RECIPIENT "warn_if_reject check_sender_access, reject", f, ACCESS_RCPT,
        "451 4.3.5 Server configuration error");
    ask(RECIPIENT "check_sender_access", f, ACCESS_RCPT, "451 4.3.5 Server configuration error");
    ask(SENDER "check_helo_access permit\n" CLOSED, f, ACCESS_RCPT,
        "451 4.3.5 Server configuration error");
    ask("smtpd_data_restrictions = hash:/nowhere", f, ACCESS_DATA,
        "451 4.3.5 Server configuration error");
    f.helo = NULL;
    ask("smtpd_helo_restrictions = reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname, "
        "check_helo_access "
        "texthash:/nowhere\n" CLOSED,
        f, ACCESS_RCPT, "");
    f.helo = "short";
    ask("smtpd_helo_restrictions = reject_non_fqdn_hostname\n" CLOSED, f, ACCESS_RCPT,
        "504 5.5.2 <short>: Helo command rejected: need fully-qualified hostname");
    f.helo = "no..name";
    ask("smtpd_helo_restrictions = reject_invalid_hostname\n" CLOSED, f, ACCESS_RCPT,
        "501 5.5.2 <no..name>: Helo command rejected: Invalid name");
    f.helo = "[192.0.2.3]";
    ask("smtpd_helo_restrictions = reject_invalid_hostname reject_non_fqdn_hostname\n" CLOSED, f,
        ACCESS_RCPT, "");
    ask(SENDER "reject_sender_login_mismatch\n" CLOSED, f, ACCESS_RCPT, ""); /* no maps */
}

/* A value of a table becomes a verdict. */
static void says(const char *value) {
    sbuf_reset(&table_says.value);
    sbuf_add_c(&table_says.value, value);
    table_says.rc = MAP_FOUND;
    table_says.key = 0;
}

static void test_access_tables(void **state) {
    static const struct {
        const char *value, *reply;
    } actions[] = {
        {"OK", ""},
        {"ok go", ""},
        {"permit", ""},
        {"1", ""},
        {"4123", ""},
        {"553", ""},
        {"DUNNO", ""},
        {"REJECT", "554 5.7.1 <a@x.example>: Sender address rejected: Access denied"},
        {"reject  not you", "554 5.7.1 <a@x.example>: Sender address rejected: not you"},
        {"REJECT 5.7.9 no", "554 5.7.9 <a@x.example>: Sender address rejected: no"},
        {"REJECT x.7.9 no", "554 5.7.1 <a@x.example>: Sender address rejected: x.7.9 no"},
        {"REJECT 5.7.1.2 no", "554 5.7.1 <a@x.example>: Sender address rejected: 5.7.1.2 no"},
        {"REJECT 9.7.1 no", "554 5.7.1 <a@x.example>: Sender address rejected: 9.7.1 no"},
        {"REJECT 5.7 no", "554 5.7.1 <a@x.example>: Sender address rejected: 5.7 no"},
        {"DEFER", "450 4.7.1 <a@x.example>: Sender address rejected: Access denied"},
        {"DEFER 4.3.9 later", "450 4.3.9 <a@x.example>: Sender address rejected: later"},
        {"450 wait", "450 4.7.1 <a@x.example>: Sender address rejected: wait"},
        {"521 5.1.2 gone", "521 5.1.8 <a@x.example>: Sender address rejected: gone"},
        {"521 a\tb\001c", "521 5.7.1 <a@x.example>: Sender address rejected: a?b?c"},
        {"321 what", "451 4.3.5 Server configuration error"},
        {"PREPEND X: y", "451 4.3.5 Server configuration error"}, /* there is no mail */
        {"RELAY", ""},
        {"DEFER_IF_PERMIT 4.2.1 wait", "450 4.2.1 <a@x.example>: Sender address rejected: wait"},
        {"INFO look", ""},
        {"permit_mynetworks, reject",
         "554 5.7.1 <a@x.example>: Sender address rejected: Access denied"},
        {"warn_if_reject reject", ""},
        {"permit_mynetworks, check_sender_access hash:t", "451 4.3.5 Server configuration error"},
        {"FILTER smtp:x", "451 4.3.5 Server configuration error"},
        {" ", "451 4.3.5 Server configuration error"},
    };
    static const char main_cf[] = SENDER "check_sender_access hash:t\n" CLOSED;
    struct access_facts f = facts(CLASS_RELAY);
    (void)state;
    for (size_t i = 0; i < sizeof actions / sizeof actions[0]; i++) {
        says(actions[i].value);
        ask(main_cf, f, ACCESS_RCPT, actions[i].reply);
    }
    table_says.rc = MAP_NOT_FOUND;
    ask(main_cf, f, ACCESS_RCPT, "");
    table_says.rc = MAP_ERROR;
    ask(main_cf, f, ACCESS_RCPT, "451 4.3.0 Temporary lookup failure");
    says("OK");
    for (size_t key = 4; key < 100; key += 12) { /* no question was for so many */
        table_says.key = key;
        ask(main_cf, f, ACCESS_RCPT, "451 4.3.0 Temporary lookup failure");
    }
    table_says.key = SIZE_MAX;
    ask(main_cf, f, ACCESS_RCPT, "451 4.3.0 Temporary lookup failure");
}

static void keys_are(const char *main, struct access_facts f, const char *want) {
    table_says.rc = MAP_NOT_FOUND;
    ask(main, f, ACCESS_RCPT, "");
    assert_string_equal(asked_keys, want);
}

static void test_access_keys(void **state) {
    struct client v6 = {.addr = "2001:db8::9", .name = mem_strdup("c.far.example")};
    struct client v4 = {.addr = "192.0.2.9"};
    struct access_facts f = facts(CLASS_RELAY);
    (void)state;
    keys_are(SENDER "check_sender_access hash:t\n" CLOSED, f,
             "a@x.example ~x.example ~example ~a@ ");
    keys_are("parent_domain_matches_subdomains =\n" SENDER "check_sender_access hash:t\n" CLOSED, f,
             "a@x.example ~x.example ~.example ~a@ ");
    keys_are(RECIPIENT "hash:t", f, "b@y.example ~y.example ~example ~b@ ");
    keys_are(RELAY "hash:t, reject_unauth_destination", f, "b@y.example ~y.example ~example ~b@ ");
    keys_are(SENDER "hash:t\n" CLOSED, f, "a@x.example ~x.example ~example ~a@ ");
    keys_are("smtpd_helo_restrictions = hash:t\n" CLOSED, f, "client.example ~example ");
    keys_are("smtpd_client_restrictions = hash:t\n" CLOSED, f,
             "unknown 192.0.2.9 ~192.0.2 ~192.0 ~192 ");
    f.rcpt = STR_LIT("b-c+d@y.example");
    keys_are("recipient_delimiter = +-\n" RECIPIENT "hash:t", f,
             "b-c+d@y.example ~b@y.example ~y.example ~example ~b-c+d@ ~b@ ");
    f.rcpt = STR_LIT("owner-b@y.example");
    keys_are("recipient_delimiter = +-\n" RECIPIENT "hash:t", f,
             "owner-b@y.example ~y.example ~example ~owner-b@ ");
    f.rcpt = STR_LIT("b c@y.example"); /* as SMTP has it, then as it is */
    keys_are(RECIPIENT "hash:t", f,
             "\"b c\"@y.example b c@y.example ~y.example ~example ~\"b c\"@ ~b c@ ");
    says("OK"); /* permits, but for a recipient that is routed through us */
    ask(RELAY "check_recipient_access hash:t, reject", f, ACCESS_RCPT, "");
    f.rcpt = STR_LIT("b%z@y.example");
    ask(RELAY "check_sender_access hash:t, reject", f, ACCESS_RCPT, "");
    ask(RELAY "check_recipient_access hash:t, reject", f, ACCESS_RCPT,
        "554 5.7.1 <b%z@y.example>: Recipient address rejected: Access denied");
    f.rcpt = STR_LIT("b@y.example");
    keys_are("smtpd_helo_restrictions = check_helo_access hash:t\n" CLOSED, f,
             "client.example ~example ");
    f.sender = STR_LIT("");
    keys_are(SENDER "check_sender_access hash:t\n" CLOSED, f, "<> ");
    f.client = &v4;
    keys_are("smtpd_client_restrictions = check_client_access hash:t\n" CLOSED, f,
             "unknown 192.0.2.9 ~192.0.2 ~192.0 ~192 ");
    f.client = &v6;
    keys_are("smtpd_client_restrictions = check_client_access hash:t\n" CLOSED, f,
             "c.far.example ~far.example ~example 2001:db8::9 ~2001:db8: ~2001:db8 "
             "~2001 ");
    f.sasl_user = "u@x.example";
    keys_are(SENDER "check_sasl_access hash:t\n" CLOSED, f, "u@x.example ");
    says("REJECT");
    ask(SENDER "check_sasl_access hash:t\n" CLOSED, f, ACCESS_RCPT,
        "554 5.7.1 <u@x.example>: SASL login name rejected: Access denied");
    ask("smtpd_client_restrictions = check_client_access hash:t\n" CLOSED, f, ACCESS_RCPT,
        "554 5.7.1 <c.far.example[2001:db8::9]>: Client host rejected: Access denied");
    ask("smtpd_helo_restrictions = check_helo_access hash:t\n" CLOSED, f, ACCESS_RCPT,
        "554 5.7.1 <client.example>: Helo command rejected: Access denied");
    ask(RECIPIENT "check_recipient_access hash:t", f, ACCESS_RCPT,
        "554 5.7.1 <b@y.example>: Recipient address rejected: Access denied");
    f.sasl_user = NULL;
    ask(SENDER "check_sasl_access hash:t\n" CLOSED, f, ACCESS_RCPT, ""); /* nothing to ask for */
    client_clear(&v6);
}

/* A table of mydestination says whether the sender's local part alone is asked for. */
static void test_access_local_senders(void **state) {
    static const char main_cf[] =
        "smtpd_sasl_auth_enable = yes\nsmtpd_sender_login_maps = hash:l\n" CLOSED SENDER
        "reject_known_sender_login_mismatch\nmydestination = hash:t\n";
    struct access_facts f = facts(CLASS_RELAY);
    (void)state;
    table_says.rc = MAP_NOT_FOUND;
    network_says = MATCH_YES;
    ask(main_cf, f, ACCESS_RCPT, "");
    assert_string_equal(run_keys, "a@x.example ~a ~@x.example ");
    network_says = MATCH_NO;
    ask(main_cf, f, ACCESS_RCPT, "");
    assert_string_equal(run_keys, "a@x.example ~@x.example ");
    network_says = MATCH_ERROR;
    ask(main_cf, f, ACCESS_RCPT, "451 4.3.0 <a@x.example>: Temporary lookup failure");
    network_says = MATCH_NO;
}

static void test_access_logins(void **state) {
    static const char maps[] =
        "smtpd_sasl_auth_enable = yes\nsmtpd_sender_login_maps = hash:l\n" CLOSED;
    struct access_facts f = facts(CLASS_RELAY);
    char main_cf[300];
    (void)state;
    static const struct {
        const char *word;
        const char *out, *in_other, *in_owner, *in_unowned, *out_unowned;
    } rows[] = {
        {"reject_sender_login_mismatch", "553", "553", "", "553", ""},
        {"reject_known_sender_login_mismatch", "553", "553", "", "", ""},
        {"reject_authenticated_sender_login_mismatch", "", "553", "", "553", ""},
        {"reject_unauthenticated_sender_login_mismatch", "553", "", "", "", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        snprintf(main_cf, sizeof main_cf, SENDER "%s\n%s", rows[i].word, maps);
        says("ann, Bob\tcarol");
        f.sasl_user = NULL;
        ask(main_cf, f, ACCESS_RCPT,
            *rows[i].out ? "553 5.7.1 <a@x.example>: Sender address rejected: not logged in" : "");
        f.sasl_user = "dave";
        ask(main_cf, f, ACCESS_RCPT,
            *rows[i].in_other
                ? "553 5.7.1 <a@x.example>: Sender address rejected: not owned by user dave"
                : "");
        f.sasl_user = "bob";
        ask(main_cf, f, ACCESS_RCPT, rows[i].in_owner);
        table_says.rc = MAP_NOT_FOUND;
        ask(main_cf, f, ACCESS_RCPT,
            *rows[i].in_unowned
                ? "553 5.7.1 <a@x.example>: Sender address rejected: not owned by user bob"
                : "");
        f.sasl_user = NULL;
        ask(main_cf, f, ACCESS_RCPT, rows[i].out_unowned);
    }
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) { /* without tables: no owners */
        snprintf(main_cf, sizeof main_cf, "smtpd_sasl_auth_enable = yes\n" CLOSED SENDER "%s\n",
                 rows[i].word);
        f.sasl_user = "bob";
        ask(main_cf, f, ACCESS_RCPT,
            *rows[i].in_unowned
                ? "553 5.7.1 <a@x.example>: Sender address rejected: not owned by user bob"
                : "");
        f.sasl_user = NULL;
        ask(main_cf, f, ACCESS_RCPT, "");
    }
    table_says.rc = MAP_ERROR;
    snprintf(main_cf, sizeof main_cf, SENDER "%s\n%s", rows[0].word, maps);
    ask(main_cf, f, ACCESS_RCPT, "451 4.3.0 <a@x.example>: Temporary lookup failure");
    f.sender = STR_LIT(""); /* has no owner to ask for */
    ask(main_cf, f, ACCESS_RCPT, "");
}

static void test_access_networks(void **state) {
    static const char main_cf[] =
        "mynetworks = hash:n\n" RELAY "permit_mynetworks, reject_unauth_destination\n";
    struct access_facts f = facts(CLASS_DEFAULT);
    (void)state;
    network_says = MATCH_YES;
    ask(main_cf, f, ACCESS_RCPT, "");
    network_says = MATCH_NO;
    ask(main_cf, f, ACCESS_RCPT, DENIED);
    network_says = MATCH_ERROR;
    ask(main_cf, f, ACCESS_RCPT, "451 4.3.0 <b@y.example>: Temporary lookup failure");
}

static void test_access_data(void **state) {
    struct access_facts f = facts(CLASS_DEFAULT);
    (void)state;
    f.n_rcpts = 1;
    ask("", f, ACCESS_DATA, "");
    ask("smtpd_data_restrictions = permit, reject", f, ACCESS_DATA, "");
    ask("smtpd_data_restrictions = reject", f, ACCESS_DATA,
        "554 5.7.1 <DATA>: Data command rejected: Access denied");
    ask("smtpd_data_restrictions = defer", f, ACCESS_DATA,
        "450 4.3.2 <DATA>: Data command rejected: Try again later");
    ask("smtpd_data_restrictions = check_sender_mx_access hash:x", f, ACCESS_DATA, "");
    f.sender = STR_LIT("");
    ask("smtpd_data_restrictions = reject_multi_recipient_bounce", f, ACCESS_DATA, "");
    f.n_rcpts = 2;
    f.rcpt = STR_NONE;
    ask("smtpd_data_restrictions = reject_multi_recipient_bounce", f, ACCESS_DATA,
        "550 5.5.3 <DATA>: Data command rejected: Multi-recipient bounce");
    ask("smtpd_data_restrictions = check_recipient_access texthash:/nowhere, "
        "reject_non_fqdn_recipient",
        f, ACCESS_DATA, "");
}

/* What a list refuses is said in the words of that list. */
static void test_access_subjects(void **state) {
    struct client there = {.addr = "198.51.100.7"}, root = {.addr = "127.0.0.1", .local = true};
    struct access_facts f = facts(CLASS_RELAY);
    (void)state;
    f.client = &there;
    ask("smtpd_client_restrictions = reject\n" CLOSED, f, ACCESS_RCPT,
        "554 5.7.1 <unknown[198.51.100.7]>: Client host rejected: Access denied");
    ask("smtpd_helo_restrictions = defer\n" CLOSED, f, ACCESS_RCPT,
        "450 4.3.2 <client.example>: Helo command rejected: Try again later");
    ask(SENDER "reject\n" CLOSED, f, ACCESS_RCPT,
        "554 5.7.1 <a@x.example>: Sender address rejected: Access denied");
    ask(RELAY "permit_inet_interfaces, reject", f, ACCESS_RCPT,
        "554 5.7.1 <b@y.example>: Recipient address rejected: Access denied");
    f.helo = NULL;
    ask("smtpd_helo_restrictions = reject\n" CLOSED, f, ACCESS_RCPT, "");
    ask("smtpd_helo_restrictions = permit\n" SENDER "reject\n" CLOSED, f, ACCESS_RCPT,
        "554 5.7.1 <a@x.example>: Sender address rejected: Access denied");
    ask("reject_code = 250\n" RECIPIENT "reject", f, ACCESS_RCPT, "450 4.7.1 Service unavailable");
    ask("reject_code = 600\n" RECIPIENT "reject", f, ACCESS_RCPT, "450 4.7.1 Service unavailable");
    ask("smtpd_data_restrictions = warn_if_reject reject", f, ACCESS_DATA, "");
    f.client = &root;
    ask("smtpd_client_restrictions = reject_unknown_client_hostname, "
        "reject_unknown_reverse_client_hostname\n" CLOSED,
        f, ACCESS_RCPT, "");
    f.client = &there;
    f.sender = STR_LIT("");
    f.rcpt = STR_NONE;
    ask("smtpd_data_restrictions = warn_if_reject reject", f, ACCESS_DATA, "");
}

/* Name servers that fail are no reason to refuse for good. */
static void test_access_names_of_clients(void **state) {
    static const char names[] = "smtpd_client_restrictions = reject_unknown_client_hostname\n"
                                "unknown_client_reject_code = 550\n" CLOSED;
    static const char reverse[] =
        "smtpd_client_restrictions = reject_unknown_reverse_client_hostname\n"
        "unknown_client_reject_code = 550\n" CLOSED;
    struct client there = {
        .addr = "198.51.100.7", .reverse = CLIENT_NAME_FOUND, .verified = CLIENT_NAME_FAILED};
    struct access_facts f = facts(CLASS_RELAY);
    (void)state;
    f.client = &there;
    ask(reverse, f, ACCESS_RCPT, "");
    ask(names, f, ACCESS_RCPT,
        "450 4.7.25 Client host rejected: cannot find your hostname, [198.51.100.7]");
    there.reverse = there.verified = CLIENT_NAME_NONE;
    ask(names, f, ACCESS_RCPT,
        "550 5.7.25 Client host rejected: cannot find your hostname, [198.51.100.7]");
    ask(reverse, f, ACCESS_RCPT,
        "550 5.7.1 Client host rejected: cannot find your reverse hostname, [198.51.100.7]");
    there.verified = CLIENT_NAME_FOUND;
    ask(names, f, ACCESS_RCPT, "");
}

static void test_access_helo_names(void **state) {
    static const char invalid[] = "smtpd_helo_restrictions = reject_invalid_helo_hostname\n" CLOSED;
    static const char table[] = "smtpd_helo_restrictions = check_helo_access hash:t\n" CLOSED;
    static const char *const good[] = {"", "client.example.", "192.0.2.1", "2001:db8::1",
                                       "[IPv6:2001:db8::1]"};
    struct access_facts f = facts(CLASS_RELAY);
    char name[300], want[400];
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        f.helo = good[i];
        ask(invalid, f, ACCESS_RCPT, "");
    }
    f.helo = "[client]";
    ask(invalid, f, ACCESS_RCPT, "501 5.5.2 <[client]>: Helo command rejected: invalid ip address");
    f.helo = ".";
    ask(invalid, f, ACCESS_RCPT, "501 5.5.2 <.>: Helo command rejected: Invalid name");
    f.helo = name; /* longer than a domain: what is above its first labels is asked for */
    snprintf(name, sizeof name, "%0*d.b.example", 250, 0);
    snprintf(want, sizeof want, "%s ~b.example ~example ", name);
    keys_are(table, f, want);
    snprintf(name, sizeof name, "%0*d", 270, 0);
    snprintf(want, sizeof want, "%s ", name);
    keys_are(table, f, want);
    f.helo = f.sasl_user = "";
    says("REJECT");
    ask(table, f, ACCESS_RCPT, ""); /* there is nothing to ask for */
    ask(SENDER "check_sasl_access hash:t, reject_sender_login_mismatch\n" CLOSED, f, ACCESS_RCPT,
        "");
    f.n_rcpts = 2;
    ask(RECIPIENT "reject_multi_recipient_bounce", f, ACCESS_RCPT, "");
}

#define PRINTS "relay_clientcerts = hash:c\n" RELAY "permit_tls_clientcerts, reject\n"
#define ALL    RELAY "permit_tls_all_clientcerts, reject\n"
#define CCERT  RELAY "check_ccert_access hash:c, reject\n"

/* A fingerprint is asked for in a table, the issuer is trusted or not; neither counts without a
 * certificate, and a digest that there is not refuses. */
static void test_access_certificates(void **state) {
    static const char no[] = "554 5.7.1 <b@y.example>: Recipient address rejected: Access denied";
    struct clientcert cert = {.print = mem_strdup("AB:CD"),
                              .key_print = mem_strdup("EF:01"),
                              .name = mem_strdup("c.example")};
    struct clientcert no_digest = {.name = cert.name};
    struct access_facts f = facts(CLASS_DEFAULT);
    (void)state;
    says("x");
    ask(PRINTS, f, ACCESS_RCPT, no);
    ask(ALL, f, ACCESS_RCPT, no);
    ask(CCERT, f, ACCESS_RCPT, no);
    f.cert = &cert;
    ask(PRINTS, f, ACCESS_RCPT, "");
    assert_string_equal(asked_keys, "AB:CD EF:01 ");
    ask(RELAY "permit_tls_clientcerts, reject", f, ACCESS_RCPT, no); /* no table */
    ask(ALL, f, ACCESS_RCPT, no);
    table_says.rc = MAP_NOT_FOUND;
    ask(PRINTS, f, ACCESS_RCPT, no);
    ask(CCERT, f, ACCESS_RCPT, no);
    table_says.rc = MAP_ERROR;
    ask(PRINTS, f, ACCESS_RCPT, "451 4.3.0 <b@y.example>: Temporary lookup failure");
    ask(CCERT, f, ACCESS_RCPT, "451 4.3.0 Temporary lookup failure");
    says("REJECT go away");
    ask(CCERT, f, ACCESS_RCPT, "554 5.7.1 <c.example>: Client certificate rejected: go away");
    says("OK");
    ask(CCERT, f, ACCESS_RCPT, "");
    says("DUNNO"); /* then its key may say more */
    ask(CCERT, f, ACCESS_RCPT, no);
    assert_string_equal(run_keys, "EF:01 ");
    table_says.key = 1; /* it was the key that said so */
    ask(CCERT, f, ACCESS_RCPT, no);
    assert_string_equal(run_keys, "AB:CD EF:01 ");
    cert.trusted = true;
    ask(ALL, f, ACCESS_RCPT, "");
    f.cert = &no_digest;
    ask(PRINTS, f, ACCESS_RCPT, "451 4.3.5 Server configuration error");
    ask(ALL, f, ACCESS_RCPT, "451 4.3.5 Server configuration error");
    ask(CCERT, f, ACCESS_RCPT, "451 4.3.5 Server configuration error");
    free(cert.print);
    free(cert.key_print);
    free(cert.name);
}

/* -- what check says of lists -- */

#define OPEN                                                                                       \
    "open relay: in parameter smtpd_relay_restrictions or smtpd_recipient_restrictions, specify "  \
    "at least one working instance of: reject_unauth_destination, defer_unauth_destination, "      \
    "reject or defer\n"
#define NO_OWNERS " compares senders with logins, but smtpd_sender_login_maps is empty\n"
#define NO_LOGINS                                                                                  \
    " compares senders with logins, but smtpd_sasl_auth_enable is off: it is passed over, as "     \
    "Postfix does\n"
#define NO_TABLE " needs a table: mail that comes to it is refused, 451 4.3.5\n"

static void test_lists_are_checked(void **state) {
    static const struct {
        const char *main, *options, *want;
    } rows[] = {
        {"", "", ""},
        {RELAY "\n", "", "E 25: " OPEN},
        {RELAY "permit_mynetworks\n", "-o smtpd_recipient_restrictions=reject", ""},
        {RELAY "permit_mynetworks\n", "-o smtpd_client_restrictions=defer", ""},
        {RELAY "permit\n", "-o smtpd_relay_restrictions=defer_unauth_destination", ""},
        {RELAY "permit_mynetworks, permit, reject_unauth_destination\n", "", "E 25: " OPEN},
        {RELAY "permit_mynetworks, warn_if_reject, reject_unauth_destination\n", "", "E 25: " OPEN},
        {RELAY "warn_if_reject warn_if_reject reject\n", "", "E 25: " OPEN},
        {RELAY "warn_if_reject check_sender_access hash:t PERMIT, defer\n", "", "E 25: " OPEN},
        {RELAY "check_sender_access warn_if_reject permit\n", "",
         "W 25: smtpd_relay_restrictions: check_sender_access" NO_TABLE},
        {RELAY "warn_if_reject reject, check_sender_access hash:permit, Reject\n", "", ""},
        {RELAY "permit\n", "-o { smtpd_client_restrictions=permit_mynetworks, permit, reject }",
         "E 25: " OPEN},
        {SENDER "check_sender_access\n", "",
         "W 25: smtpd_sender_restrictions: check_sender_access" NO_TABLE},
        {SENDER "check_sender_access permit\n", "",
         "W 25: smtpd_sender_restrictions: check_sender_access" NO_TABLE},
        {SENDER
         "check_sender_access hash:t, hash:u, warn_if_reject, check_sender_mx_access hash:x\n",
         "", ""},
        {RELAY "warn_if_reject\n", "-o smtpd_recipient_restrictions=reject", ""},
        {"smtpd_data_restrictions = nosuch, hash:t, check_helo_access\n", "",
         "E 25: smtpd_data_restrictions: unknown restriction \"nosuch\": mail that comes to it is "
         "refused, 451 4.3.5\n"
         "W 25: smtpd_data_restrictions: a table needs a restriction before it: mail that comes to "
         "it is refused, 451 4.3.5\n"
         "W 25: smtpd_data_restrictions: check_helo_access" NO_TABLE},
        {SENDER "nosuch hash:t\n", "",
         "E 25: smtpd_sender_restrictions: unknown restriction \"nosuch\": mail that comes to it "
         "is "
         "refused, 451 4.3.5\n"},
        {SENDER "reject_sender_login_mismatch\n", "", "W 25: smtpd_sender_restrictions" NO_OWNERS},
        {SENDER "permit_mynetworks reject_known_sender_login_mismatch\n", "",
         "W 25: smtpd_sender_restrictions" NO_OWNERS},
        {RECIPIENT "reject_authenticated_sender_login_mismatch\n", "",
         "W 25: smtpd_recipient_restrictions" NO_OWNERS},
        {RECIPIENT "nosuch2, reject_unauthenticated_sender_login_mismatch\n", "",
         "E 25: smtpd_recipient_restrictions: unknown restriction \"nosuch2\": mail that comes to "
         "it is "
         "refused, 451 4.3.5\n"
         "W 25: smtpd_recipient_restrictions" NO_OWNERS},
        {SENDER "reject_sender_login_mismatch\nsmtpd_sasl_auth_enable = yes\n",
         "-o smtpd_sender_login_maps=hash:l", ""},
        {SENDER "reject_sender_login_mismatch\n", "-o smtpd_sender_login_maps=hash:l",
         "W 25: smtpd_sender_restrictions" NO_LOGINS},
        {"local_header_rewrite_clients = permit_mynetworks, hash:t, nosuch\n", "",
         "W 25: local_header_rewrite_clients: there is no \"nosuch\": it is passed over\n"},
        {"smtpd_forbid_bare_newline = perhaps\n", "",
         "E 25: smtpd_forbid_bare_newline: \"perhaps\" is none of no, yes, normalize, note, "
         "reject\n"},
        {"", "-o smtpd_forbid_bare_newline_reject_code=499",
         "E 25: smtpd_forbid_bare_newline_reject_code: 499 is not between 500 and 599\n"},
        {"", "-o smtpd_forbid_bare_newline_reject_code=600",
         "E 25: smtpd_forbid_bare_newline_reject_code: 600 is not between 500 and 599\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct diags d = {0};
        char master[300];
        snprintf(master, sizeof master, "25 inet " LINE "%s\nrelay unix - - n - - smtp\n",
                 rows[i].options);
        struct config *cfg = configure_services(rows[i].main, master);
        receive_check(cfg, DIAG_ERROR, &d);
        diags_are(&d, rows[i].want);
        config_unref(cfg);
    }
}

/* Services that no master.cf has have no line to name. */
static void test_built_in_services_are_checked(void **state) {
    struct diags d = {0};
    struct config *cfg = configure(RELAY "nosuch\nlocal_header_rewrite_clients = nosuch\n" SENDER
                                         "check_helo_access, reject_sender_login_mismatch\n");
    (void)state;
    receive_check(cfg, DIAG_ERROR, &d);
    assert_true(d.errors >= 2 && d.warnings >= 2);
    for (size_t i = 0; i < d.n; i++)
        assert_true(d.v[i].file == NULL && d.v[i].line == 0);
    diag_free(&d);
    config_unref(cfg);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_access_who),
        cmocka_unit_test(test_access_where),
        cmocka_unit_test(test_access_words),
        cmocka_unit_test(test_access_data),
        cmocka_unit_test(test_access_tables),
        cmocka_unit_test(test_access_keys),
        cmocka_unit_test(test_access_local_senders),
        cmocka_unit_test(test_access_logins),
        cmocka_unit_test(test_access_networks),
        cmocka_unit_test(test_access_subjects),
        cmocka_unit_test(test_access_names_of_clients),
        cmocka_unit_test(test_access_helo_names),
        cmocka_unit_test(test_access_certificates),
        cmocka_unit_test(test_lists_are_checked),
        cmocka_unit_test(test_built_in_services_are_checked),
    };
    return cmocka_run_group_tests(tests, loop_make, dir_remove);
}
