/*
 * tests/wire/script.c - scenarios drawn by chance, and what the world asks of every scenario
 *
 * A seed below scripts_count() is a named script; any other one draws roads, settings, relay hosts,
 * clients, orders and restarts.  Nothing here decides what is right: that is the ledger's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "filters.h"
#include "scene.h"

static unsigned pick_of(struct dice *d, const unsigned *v, size_t n) {
    return v[dice_roll(d, (unsigned)n)];
}

/* ---- settings ---- */

#define SOFT_BOUNCE   "soft_bounce = yes\n"
#define LOGIN_BOUNCES "smtp_sasl_auth_soft_bounce = no\n"

static const char *const settings[] = {
    "default_destination_concurrency_limit = 1\n",
    "initial_destination_concurrency = 1\n",
    "smtp_pipeline_transactions = no\n",
    "smtp_connection_cache_on_demand = no\n",
    "smtp_connection_reuse_count_limit = 2\n",
    "smtp_tls_security_level = none\n",
    "smtp_tls_security_level = encrypt\n",
    "smtp_discard_ehlo_keywords = chunking\n",
    "smtp_discard_ehlo_keywords = pipelining\n",
    "smtp_never_send_ehlo = yes\n",
    "spool_segment_size = 262144\n",
    "spool_segment_size = 1048576\nspool_body_file_size = 262144\n",
    "spool_body_file_size = 4096\n",
    "message_memory_limit = 1048576\n",
    "message_size_limit = 300000\n",
    "message_size_limit = 0\n",
    "bounce_size_limit = 1000\n",
    "delay_warning_time = 10m\n",
    "default_destination_recipient_limit = 1\n",
    SOFT_BOUNCE,
    LOGIN_BOUNCES,
    "smtpd_soft_error_limit = 2\nsmtpd_hard_error_limit = 6\n",
    "always_add_missing_headers = yes\n",
    "smtpd_timeout = 20s\nsmtpd_starttls_timeout = 5s\n",
    "smtp_destination_rate_delay = 1s\n",
    "smtp_mx_address_limit = 1\n",
    "enable_long_queue_ids = yes\n",
    "smtp_randomize_addresses = no\n",
    "strict_rfc821_envelopes = yes\n",
    "default_destination_concurrency_failed_cohort_limit = 3\n",
    "smtpd_delay_reject = no\n"};

static void draw_settings(struct scene *s) {
    struct ledger_rules *rules = ledger_rules(s->ledger);
    unsigned n = dice_roll(&s->dice, 4);
    for (unsigned i = 0; i < n; i++) {
        const char *line = settings[dice_roll(&s->dice, sizeof settings / sizeof settings[0])];
        wire_main_cf(s->world, "%s", line);
        rules->soft = rules->soft || strcmp(line, SOFT_BOUNCE) == 0;
        rules->login_bounces = rules->login_bounces || strcmp(line, LOGIN_BOUNCES) == 0;
    }
    wire_main_cf(s->world, "minimal_backoff_time = 60s\nmaximal_backoff_time = 600s\n");
}

/* ---- relay hosts ---- */

static int draw_code(struct dice *d, enum ledger_stage stage) {
    static const unsigned codes[] = {250, 251, 299, 334, 354, 399, 421, 450, 451, 452,
                                     500, 501, 502, 503, 530, 535, 550, 552, 554};
    if (stage == STAGE_DATA && dice_says(d, 30))
        return 250;
    return (int)pick_of(d, codes, sizeof codes / sizeof codes[0]);
}

static struct relay_twist draw_twist(struct dice *d) {
    static const unsigned stages[] = {STAGE_GREETING, STAGE_EHLO, STAGE_STARTTLS, STAGE_AUTH,
                                      STAGE_MAIL,     STAGE_MAIL, STAGE_RCPT,     STAGE_RCPT,
                                      STAGE_RCPT,     STAGE_DATA, STAGE_DATA,     STAGE_BODY,
                                      STAGE_BODY,     STAGE_BODY, STAGE_RSET,     STAGE_QUIT};
    static const unsigned slow[] = {1, 5, 30, 100, 400, 1000};
    struct relay_twist t = {
        .stage = (enum ledger_stage)pick_of(d, stages, sizeof stages / sizeof stages[0])};
    t.act = dice_says(d, 40) ? ACT_CODE : (enum relay_act)(1 + dice_roll(d, ACT_COUNT - 1));
    if (t.act == ACT_CODE_ON && t.stage != STAGE_MAIL && t.stage != STAGE_RCPT)
        t.act = ACT_CODE;
    t.nth = dice_roll(d, 3);
    t.times = dice_says(d, 30) ? 0 : 1 + dice_roll(d, 2);
    t.code = t.act == ACT_SLOW ? (int)pick_of(d, slow, 6) : draw_code(d, t.stage);
    if (t.act == ACT_MIDDLE && t.code < 300) /* it is not to be told from the right reply */
        t.code = 0;
    if ((t.act == ACT_EXTRA || t.act == ACT_MIDDLE) && dice_says(d, 20))
        t.code = 0;
    if ((t.act == ACT_EXTRA || t.act == ACT_EARLY) && dice_says(d, 40))
        t.code = 250;
    return t;
}

static void draw_host(struct scene *s, struct relay_plan *p) {
    struct dice *d = &s->dice;
    static const char *const mechs[] = {"PLAIN LOGIN", "LOGIN",          "PLAIN",
                                        "CRAM-MD5",    "LOGIN CRAM-MD5", "XOAUTH2 NTLM"};
    static const unsigned sizes[] = {0, 1000, 20000, 262144, 10240000};
    p->can = dice_roll(d, CAN_ALL + 1);
    if (dice_says(d, 40))
        p->can |= CAN_PIPELINING | CAN_CHUNKING;
    if (dice_says(d, 60))
        p->can |= CAN_SIZE | CAN_8BITMIME | CAN_DSN;
    if (s->login != LOGIN_NONE && dice_says(d, 80))
        p->can |= CAN_AUTH | CAN_STARTTLS;
    if (dice_says(d, 60))
        p->can &= ~(unsigned)CAN_STARTTLS; /* handshakes cost more than all the rest */
    if (dice_says(d, 8))
        p->is = (enum wire_host_is)(WIRE_REFUSES + dice_roll(d, 3));
    p->size = pick_of(d, sizes, 5);
    p->mechs = mechs[dice_says(d, 70) ? 0 : dice_roll(d, 6)];
    p->tls_auth = dice_says(d, 50);
    p->split = dice_says(d, 15);
    p->lines = dice_says(d, 15);
    p->bare = dice_says(d, 20);
    p->heals = dice_says(d, 80) ? 1 + dice_roll(d, 4) : 0;
    p->n_twists = dice_says(d, 35) ? 0 : 1 + dice_roll(d, 3);
    for (unsigned i = 0; i < p->n_twists; i++)
        p->twists[i] = draw_twist(d);
}

/* ---- messages ---- */

static const char *const hostile_envids[] = {"a\r\nMAIL FROM:<forged@evil.example>\r\n",
                                             "tab\there",
                                             "nul\1\2\3\x7f",
                                             "x y",
                                             "=+=",
                                             "\x0b\x0c vertical",
                                             "end\r",
                                             "\nbegin"};
static const char *const mail_extras[] = {
    " BODY=8BITMIME",    " BODY=7BIT", " SIZE=100",    " SMTPUTF8", " SIZE=0",
    " size=99999999999", " AUTH=<>",   " BODY=BINARY", " X=Y",      "  BODY=8BITMIME SMTPUTF8"};
static const char *const hostile_extras[] = {" ENVID=a+0D+0ARCPT+20TO+3A<forged@far.example>",
                                             " ENVID=\rDATA",
                                             " RET=FULL\rDATA",
                                             " BODY=8BITMIME\t",
                                             " SIZE=1\x01",
                                             " ENVID=\x7f",
                                             " ENVID=+FF",
                                             " ENVID=+0",
                                             " RET=",
                                             " ENVID=",
                                             " AUTH=\x0b"};
static const char *const hostile_orcpts[] = {
    " ORCPT=rfc822;a+0D+0A+2E+0D+0AMAIL+20FROM+3A<forged@evil.example>+0D+0A",
    " ORCPT=x\rDATA\r;y",
    " ORCPT=a\tb;c",
    " ORCPT=\x0b;z",
    " ORCPT=rfc822;+00+01+7F",
    " ORCPT=;empty",
    " ORCPT=rfc822",
    " NOTIFY=NEVER,SUCCESS",
    " NOTIFY=",
    " NOTIFY=SUCCESS\r",
    " ORCPT=rfc 822;x"};

static void draw_envid(struct dice *d, struct client_mail *m) {
    if (dice_says(d, 20))
        bytes_printf(&m->envid, "id+%u=<x y>", dice_roll(d, 1000));
    else if (dice_says(d, 10))
        bytes_text(&m->envid, hostile_envids[dice_roll(d, 8)]);
    if (dice_says(d, 20))
        m->ret = dice_says(d, 50) ? 'F' : 'H';
    if (dice_says(d, 25))
        m->more = mail_extras[dice_roll(d, 10)];
    else if (dice_says(d, 10))
        m->more = hostile_extras[dice_roll(d, 11)];
}

static void draw_rcpt(struct dice *d, struct client_rcpt *r) {
    static const unsigned notifies[] = {LEDGER_NEVER,
                                        LEDGER_SUCCESS,
                                        LEDGER_FAILURE,
                                        LEDGER_DELAY,
                                        LEDGER_SUCCESS | LEDGER_FAILURE,
                                        LEDGER_SUCCESS | LEDGER_FAILURE | LEDGER_DELAY};
    if (dice_says(d, 25))
        r->notify = notifies[dice_roll(d, 6)];
    if (dice_says(d, 20))
        bytes_printf(&r->orcpt, "rfc822;old+%u=x@far.example", dice_roll(d, 100));
    else if (dice_says(d, 8))
        r->more = hostile_orcpts[dice_roll(d, 11)];
}

static char *joined(const char *a, const char *b, const char *c) {
    struct bytes out = {0};
    bytes_printf(&out, "%s%s%s", a, b, c);
    return out.p;
}

/* Another way to write the same address, or a strange one. */
static const char *draw_spelling(struct dice *d, const char *addr) {
    const char *at = strchr(addr, '@');
    char *local = bytes_copy(addr, (size_t)(at - addr));
    switch (dice_roll(d, 24)) {
    case 0:
        return joined("\"", local, joined("\"", at, ""));
    case 1:
        return joined("\"odd ", local, joined("\\\"\"", at, ""));
    case 2:
        return joined(addr, ".", "");
    case 3:
        return joined("@relay.example:", addr, "");
    case 4:
        return joined("\"", joined(local, "@x", "\""), at);
    case 5:
        return joined("\"", joined(local, "\tx", "\""), at);
    case 6:
        return joined(local, "%x", at);
    case 7:
        return joined("=", addr, "");
    case 8:
        return joined(local, "\xc3\xa4", at);
    default:
        return addr;
    }
}

static const char *draw_domain(struct dice *d, bool sender) {
    static const char *const senders[] = {"alpha.example", "beta.example", "gamma.example"};
    if (sender)
        return dice_says(d, 8) ? "" : senders[dice_roll(d, 3)];
    return scene_domain(dice_roll(d, dice_says(d, 75) ? 2 : scene_domains()));
}

static struct client_mail draw_mail(struct scene *s) {
    struct dice *d = &s->dice;
    unsigned n = dice_says(d, 60) ? 1 : 1 + dice_roll(d, 5);
    const char *from = draw_domain(d, true);
    struct client_mail m = scene_mail(s, from, n, draw_domain(d, false));
    if (dice_says(d, 30))
        scene_spread(&m);
    draw_envid(d, &m);
    if (m.sender[0] != '\0' && dice_says(d, 30))
        m.sender = draw_spelling(d, m.sender);
    for (unsigned i = 0; i < n; i++) {
        draw_rcpt(d, &m.rcpts[i]);
        if (dice_says(d, 20))
            m.rcpts[i].addr = draw_spelling(d, m.rcpts[i].addr);
        if (s->lists && dice_says(d, 60))
            list_draw(s, &m, i);
    }
    if (s->virtuals && m.rcpts[0].list == NULL && dice_says(d, 60))
        virtual_draw(s, &m);
    if (s->policed)
        policy_draw(s, &m);
    return m;
}

static void draw_content(struct dice *d, bool data, struct bytes *out) {
    if (dice_says(d, 12)) {
        content_smuggle(dice_roll(d, content_vectors()), data, out);
        return;
    }
    enum content_head head =
        dice_says(d, 60) ? HEAD_USUAL : (enum content_head)dice_roll(d, HEAD_COUNT);
    enum content_text text =
        dice_says(d, 50) ? TEXT_LINES : (enum content_text)dice_roll(d, TEXT_COUNT);
    content_make(d, head, text, content_size(d), data, out);
}

static int compare_sizes(const void *a, const void *b) {
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return x < y ? -1 : x > y;
}

static void draw_bdat(struct scene *s, struct client *c, struct client_mail *m, unsigned how) {
    struct dice *d = &s->dice;
    size_t cuts[6], n = dice_roll(d, 6);
    for (size_t i = 0; i < n; i++)
        cuts[i] = dice_roll(d, (unsigned)m->content.n + 1);
    qsort(cuts, n, sizeof cuts[0], compare_sizes);
    client_bdat(c, m, how, cuts, n, dice_says(d, 25));
}

/* ---- clients ---- */

static const char *const idle_lines[] = {
    "NOOP", "RSET", "VRFY <x@far.example>", "noop  words", "HELP", "EXPN x", "ETRN x",
    "vrfy", "AUTH", "AUTH PLAIN =",         "AUTH NOSUCH", "DATA", "BDAT 0", "BDAT x"};
static const char *const hostile_lines[] = {"MAIL FROM:<a\tb@far.example>",
                                            "MAIL FROM:<a\rb@far.example>",
                                            "RCPT TO:<forged@far.example>",
                                            "EHLO a\tb",
                                            "HELO \x01\x02",
                                            "MAIL FROM:<>\r",
                                            "\r",
                                            "",
                                            "AUTH PLAIN AGEAYg==\tmaster-user=root",
                                            "AUTH PLAIN \x7f",
                                            "\xff\xfe",
                                            "MAIL FROM:<\"a\rb\"@x.example>",
                                            "EHLO",
                                            "MAIL",
                                            "RCPT TO:<>",
                                            "VRFY \"a\tb\"@x",
                                            "STARTTLS now",
                                            "GET / HTTP/1.0x"};

static void draw_chatter(struct scene *s, struct client *c) {
    struct dice *d = &s->dice;
    switch (dice_roll(d, 8)) {
    case 0:
        client_line(c, hostile_lines[dice_roll(d, 18)], false);
        break;
    case 1:
        client_raw(c, "MAIL FROM:<a\0b@x.example>\r\n", 27, 1);
        break;
    case 2: {
        struct bytes b = {0};
        bytes_fill(&b, 'x', 2040 + dice_roll(d, 20));
        client_line(c, b.p, false);
        bytes_free(&b);
        break;
    }
    case 3:
        client_wait(c, 1 + dice_roll(d, 3000));
        break;
    case 4:
        client_hello(c, dice_says(d, 70));
        break;
    default:
        client_line(c, idle_lines[dice_roll(d, 13)], dice_says(d, 20));
        break;
    }
}

/* Many lines at once, as one packet. */
static void draw_flood(struct scene *s, struct client *c) {
    struct dice *d = &s->dice;
    static const char *const lines[] = {"NONSENSE\r\n",
                                        "EHLO flood\r\n",
                                        "NOOP\r\n",
                                        "RSET\r\n",
                                        "MAIL FROM:<flood@alpha.example>\r\n",
                                        "BDAT 0\r\n"};
    const char *line = lines[dice_roll(d, 6)];
    unsigned n = dice_says(d, 70) ? 5 + dice_roll(d, 30) : 2000;
    struct bytes b = {0};
    for (unsigned i = 0; i < n; i++)
        bytes_text(&b, line);
    if (n == 2000)
        client_stall(c, true);
    client_raw(c, b.p, b.n, n);
    client_line(c, "RSET", false);
    bytes_free(&b);
}

static void draw_message(struct scene *s, struct client *c, bool first) {
    struct dice *d = &s->dice;
    unsigned how =
        (dice_says(d, 50) ? CLIENT_TOGETHER : 0U) | (!first && dice_says(d, 50) ? CLIENT_NEXT : 0U);
    bool bdat = dice_says(d, 40);
    struct client_mail m = draw_mail(s);
    draw_content(d, !bdat, &m.content);
    if (dice_says(d, 8))
        client_given_up(c, &m);
    else if (bdat)
        draw_bdat(s, c, &m, how);
    else
        client_data(c, &m, how);
    if (!bdat && dice_says(d, 4))
        client_cut(c);
}

static void draw_end(struct scene *s, struct client *c) {
    struct dice *d = &s->dice;
    if (dice_says(d, 65)) {
        client_ends(c, CLIENT_QUITS, 0);
        return;
    }
    enum client_end how = (enum client_end)dice_roll(d, 5);
    client_ends(c, how, dice_says(d, 60) ? 1 + dice_roll(d, client_steps(c)) : 0);
    if (dice_says(d, 40))
        client_ends_late(c, 1 + (int64_t)dice_roll(d, dice_says(d, 50) ? 20 : 1000));
}

static const char *const hello_names[] = {
    "evil.example (forged by", "a(b)c;d", "[10.1.0.7]",
    "<a@b.example>",           "a\\b\"c", "h\xc3\xb6st.example"};
static const char *const client_names[] = {
    "client.wire.example", "evil) (x", "a..b", "x;y@z", "-dash-.example", "bad\r\nX-Forged: yes"};

static void draw_hello(struct dice *d, struct client *c) {
    client_hello_as(c, dice_says(d, 85),
                    dice_says(d, 85) ? "client.wire.example" : hello_names[dice_roll(d, 6)]);
}

static void draw_client(struct scene *s) {
    struct dice *d = &s->dice;
    struct client *c = scene_client(s);
    bool inside = dice_says(d, 15), login = inside && dice_says(d, 60), wrong = dice_says(d, 30);
    bool wrapped = inside && dice_says(d, 30);
    draw_hello(d, c);
    if (inside && !wrapped) {
        client_starttls(c, dice_says(d, 20) ? 1 + (int64_t)dice_roll(d, 400000) : 0,
                        dice_says(d, 20) ? "NOOP\r\nEHLO injected\r\n" : NULL);
        client_hello(c, true);
    }
    if (login)
        client_login(c, dice_says(d, 50) ? "PLAIN" : "LOGIN", "user@alpha.example",
                     wrong ? "wrong-Secret-6" : "client-Secret-5", !wrong);
    if (dice_says(d, 6))
        draw_flood(s, c);
    for (unsigned i = 0, n = dice_says(d, 50) ? 1 : 1 + dice_roll(d, 4); i < n; i++) {
        while (dice_says(d, 15)) {
            draw_chatter(s, c);
            client_line(c, "RSET", false);
        }
        draw_message(s, c, i == 0);
    }
    draw_end(s, c);
    const char *from = dice_says(d, 85) ? "10.1.0.7" : "10.3.0.7";
    scene_begin(s, c, (int64_t)dice_roll(d, dice_says(d, 70) ? 50 : 600000), from,
                wrapped ? 465
                : login ? 587
                        : 25);
}

/* ---- what happens ---- */

static void draw_events(struct scene *s) {
    struct dice *d = &s->dice;
    s->cuts_orders = dice_says(d, 25);
    while (dice_says(d, 30)) {
        enum scene_event e = (enum scene_event)dice_roll(d, EVENT_KINDS);
        int64_t ms = (int64_t)dice_roll(d, dice_says(d, 50) ? 2000 : 1000000);
        unsigned which = dice_roll(d, 6);
        scene_event(s, e, ms, which);
        if (e == EVENT_HOLD_ALL)
            scene_event(s, EVENT_RELEASE_ALL, ms + 900000, 0);
        else if (e == EVENT_HOLD)
            scene_event(s, EVENT_RELEASE, ms + 900000, which);
    }
}

/* A disk or a table that is out of order for a while. */
static void draw_trouble(struct scene *s) {
    static const char *const tables[] = {"senders", "transport", "passwords", "aliases"};
    struct dice *d = &s->dice;
    int64_t ms = (int64_t)dice_roll(d, dice_says(d, 50) ? 2000 : 600000);
    if (dice_says(d, 8)) {
        wire_full_disk(s->world, ms, ms + 1 + (int64_t)dice_roll(d, 100000));
        ledger_rules(s->ledger)->fills = true;
    }
    if (dice_says(d, s->lists || s->filters != 0 ? 30 : 8)) {
        const char *table = s->filters != 0 && dice_says(d, 50) ? filters_table(s)
                            : s->virtuals && dice_says(d, 50)   ? "virtual"
                            : s->lists                          ? tables[3]
                                                                : tables[dice_roll(d, 3)];
        wire_table_fails(s->world, table, 1 + (int64_t)dice_roll(d, 200000));
        ledger_rules(s->ledger)->gaps = true;
    }
}

static void draw_filters(struct scene *s) {
    static const unsigned kinds[] = {FILTER_SOFTENS, FILTER_HARDENS,
                                     FILTER_SOFTENS | FILTER_RESULTS,
                                     FILTER_HARDENS | FILTER_RESULTS, FILTER_RECORDS};
    filters_configure(s, pick_of(&s->dice, kinds, 5) |
                             (dice_says(&s->dice, 30) ? FILTER_RECORDS : 0U));
}

static void draw_scene(struct wire_world *w, uint64_t seed) {
    struct dice d = dice_new(seed, 0);
    struct dice boxes = dice_new(seed, 2);
    struct dice scan = dice_new(seed, 3);
    enum road_kind road = (enum road_kind)dice_roll(&d, ROAD_DRAWN);
    enum login_kind login =
        dice_says(&d, 65) ? LOGIN_NONE : (enum login_kind)dice_roll(&d, LOGIN_KINDS);
    size_t limit = dice_says(&d, 85) ? 998 : dice_says(&d, 50) ? 0 : 200 + dice_roll(&d, 900);
    int64_t lifetime_s = dice_says(&d, 30) ? 432000 : 3600;
    if (dice_says(&boxes, 8))
        road = ROAD_BOXES;
    if (dice_says(&scan, 8))
        road = ROAD_SCAN;
    struct scene *s = scene_new(w, seed, road, login, limit, lifetime_s, dice_says(&d, 3));
    draw_settings(s);
    if (dice_says(&d, 20) && road != ROAD_SCAN) /* they are expanded behind a filter */
        lists_configure(s);
    if (dice_says(&boxes, 20))
        virtuals_configure(s);
    if (dice_says(&boxes, 20))
        policies_configure(s, (enum policy_twist)dice_roll(&boxes, POLICY_TWISTS),
                           1 + dice_roll(&boxes, 6));
    if (dice_says(&d, 15) && road != ROAD_BOXES) /* they are of transports by SMTP */
        draw_filters(s);
    if (dice_says(&d, 15))
        wire_slow_disk(w, 1 + (int64_t)dice_roll(&d, 400));
    if (dice_says(&d, 30))
        wire_dns_ptr(w, "10.1.0.7", client_names[dice_roll(&d, 6)]);
    wire_account(w, "user@alpha.example", "client-Secret-5");
    ledger_secret(s->ledger, "user@alpha.example", "client-Secret-5", 0, true);
    for (unsigned i = 0; i < SCENE_HOSTS; i++)
        draw_host(s, &s->hosts[i].plan);
    if (road == ROAD_SCAN && dice_says(&scan, 80))
        s->hosts[0].plan.can |= CAN_XFORWARD;
    if (road == ROAD_SCAN && dice_says(&scan, 30) && s->hosts[0].plan.n_twists > 0)
        s->hosts[0].plan.twists[0].stage = STAGE_XFORWARD;
    scene_open(s);
    for (unsigned i = 0, n = 1 + dice_roll(&s->dice, dice_says(&s->dice, 70) ? 3 : 8); i < n; i++)
        draw_client(s);
    draw_events(s);
    draw_trouble(s);
    s->ends_ms =
        dice_says(&s->dice, 60) ? 600000 + (int64_t)dice_roll(&s->dice, 3600000) : 14400000;
}

/* ---- asked by the world ---- */

uint64_t script_count(void) {
    return scripts_count();
}

const char *script_name(uint64_t seed) {
    return seed < scripts_count() ? scripts_name((unsigned)seed) : "random";
}

void script_setup(struct wire_world *w, uint64_t seed) {
    if (seed < scripts_count())
        scripts_setup(w, (unsigned)seed);
    else
        draw_scene(w, seed);
}

bool script_over(struct wire_world *w) {
    const struct scene *s = wire_user(w);
    return wire_now_ms(w) >= s->ends_ms;
}

static void note_queued(void *arg, const struct wire_queued *q) {
    struct scene *s = arg;
    for (size_t i = 0; i < q->n_rcpts; i++)
        ledger_queued(s->ledger, q->qid, q->sender, q->rcpts[i], strcmp(q->queue, "deferred") == 0);
}

void script_check(struct wire_world *w) {
    struct scene *s = wire_user(w);
    wire_queue(w, note_queued, s);
    ledger_end(s->ledger);
    unsigned accepted, delivered, bounced;
    ledger_counts(s->ledger, &accepted, &delivered, &bounced);
    if (delivered < s->must_send && !wire_faulted(w))
        wire_fail(w, "%u deliveries, and the script has %u", delivered, s->must_send);
    if (delivered > s->may_send && s->may_send > 0 && !wire_faulted(w))
        wire_fail(w, "%u deliveries, and the script has %u at most", delivered, s->may_send);
}
