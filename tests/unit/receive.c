/* The SMTP server's parts: restriction lists, counts of clients, content as it comes in, the lines
 * to Dovecot. */
#include "unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "config/config.h"
#include "receive/access.h"
#include "receive/anvil.h"
#include "receive/dovecot.h"
#include "receive/intake.h"
#include "receive/serve.h"
#include "route/alias.h"
#include "util/codec.h"
#include "util/mem.h"

static struct loop *loop;

/* Every clock but the one on the wall is this much ahead, for libuv's timers too. */
static time_t ahead_s;

int clock_gettime(clockid_t id, struct timespec *t) {
    int rc = (int)syscall(SYS_clock_gettime, id, t);
    t->tv_sec += id == CLOCK_REALTIME ? 0 : ahead_s;
    return rc;
}

static void turn(void) {
    uv_run(&loop->uv, UV_RUN_NOWAIT);
    uv_run(&loop->uv, UV_RUN_NOWAIT);
}

/* -- a spool in memory: what is submitted is done when the test says so -- */

static struct spool_op *submitted[16];
static size_t n_submitted, n_dropped;
static struct sbuf file;
static int file_rc;

void spool_submit(struct spool *s, struct spool_op *op) {
    (void)s;
    submitted[n_submitted++] = op;
}

static void spool_answers(void) {
    for (size_t i = 0; i < n_submitted; i++) {
        struct spool_op *op = submitted[i];
        if (op->kind == SPOOL_BODY_WRITE) {
            assert_int_equal(op->off, file.n);
            sbuf_add(&file, op->chunk.p, op->chunk.n);
            op->crc = crc32c(op->crc, op->chunk.p, op->chunk.n);
            op->rc = file_rc;
        } else {
            assert_int_equal(op->kind, SPOOL_BODY_DROP);
            n_dropped++;
        }
        op->done(op);
    }
    n_submitted = 0;
    turn();
}

/* -- intake -- */

static struct params small = {.message_memory_limit = 1 << 20, .spool_body_file_size = 3000};
static size_t n_ready;

static void is_ready(void *arg) {
    (void)arg;
    n_ready++;
}

static void adds_a_field(void *arg, struct header_scan *h, struct sbuf *add) {
    (void)arg;
    if (!h->has_date)
        sbuf_add_c(add, "Date: now\r\n");
    if (h->no_separator)
        sbuf_add_c(add, "\r\n");
}

static const struct intake_ops plain_ops = {
    .size_limit = 20000, .ready = is_ready, .missing = adds_a_field, .rules = {.drop = ""}};

static struct intake *begin(enum intake_kind kind) {
    struct sbuf received = {0};
    struct intake *in = intake_new(kind, loop, NULL, &small, 7, &plain_ops);
    if (kind != INTAKE_REFUSED) {
        sbuf_add_c(&received, "Received: x\r\n");
        intake_begin(in, &received);
    }
    sbuf_reset(&file);
    n_ready = n_dropped = 0;
    file_rc = 0;
    return in;
}

/* Answers the spool until the intake wants no more waiting. */
static enum intake_rc wait_out(struct intake *in, enum intake_rc rc) {
    while (rc == INTAKE_WAIT || in->writing != NULL) {
        size_t before = n_ready;
        spool_answers();
        assert_int_equal(n_ready, before + 1);
        enum intake_rc now = intake_ready(in);
        rc = rc == INTAKE_WAIT ? now : rc;
    }
    return rc;
}

/* Gives all of text in pieces; what is not used is given again with the next piece. */
static enum intake_rc feed(struct intake *in, struct str text, size_t piece) {
    enum intake_rc rc = INTAKE_MORE;
    size_t at = 0, have = 0;
    while (rc == INTAKE_MORE) {
        assert_true(have < text.n || at < have);
        have = have + piece < text.n ? have + piece : text.n;
        at += intake_take(in, text.p + at, have - at, &rc);
        rc = wait_out(in, rc);
    }
    assert_int_equal(at, text.n);
    return rc;
}

static void take_body(struct intake *in, struct sbuf *out) {
    uint64_t size = 0;
    if (in->in_file) {
        assert_int_equal(in->file_crc, crc32c(0, file.p, file.n));
        sbuf_add_str(out, sbuf_str(&file));
    } else {
        sbuf_add_str(out, sbuf_str(&in->content));
    }
    struct body *b = intake_body(in, &size);
    assert_int_equal(size, out->n);
    intake_body_settled(b);
    body_unref(b);
}

static void make_content(struct sbuf *text, size_t lines) {
    for (size_t i = 0; i < lines; i++)
        sbuf_printf(text, "X-Field-%zu: %0*d\r\n", i, (int)(i * 7 % 60 + 1), 0);
    sbuf_add_c(text, "\r\n.first\r\nsecond\r\n");
}

/* DATA and BDAT, small and large, in pieces of every kind: the same content. */
static void test_intake(void **state) {
    static const size_t sizes[] = {0, 1, 40, 60, 70, 110}, pieces[] = {1, 2, 3, 700, 4000, 100000};
    (void)state;
    for (size_t i = 0; i < 6; i++)
        for (size_t p = 0; p < 6; p++)
            for (int chunked = 0; chunked < 2; chunked++) {
                struct sbuf text = {0}, wire = {0}, got = {0}, want = {0};
                make_content(&text, sizes[i]);
                const char *body = strstr(text.p, "\r\n.first");
                sbuf_printf(&want, "Received: x\r\n%.*sDate: now\r\n%s", (int)(body - text.p),
                            text.p, body);
                struct intake *in = begin(chunked ? INTAKE_BDAT : INTAKE_DATA);
                if (chunked) {
                    assert_int_equal(intake_chunk(in, text.n, true), INTAKE_MORE);
                    assert_int_equal(feed(in, sbuf_str(&text), pieces[p]), INTAKE_END);
                } else {
                    sbuf_printf(&wire, "%.*s\r\n.%s.\r\n", (int)(body - text.p), text.p, body + 2);
                    assert_int_equal(feed(in, sbuf_str(&wire), pieces[p]), INTAKE_END);
                }
                assert_false(intake_open(in));
                take_body(in, &got);
                assert_str(sbuf_str(&got), want.p);
                assert_true((file.n > 0) == (want.n >= 3000));
                intake_free(in);
                spool_answers();
                assert_int_equal(n_dropped, 0);
                sbuf_free(&text);
                sbuf_free(&wire);
                sbuf_free(&got);
                sbuf_free(&want);
            }
}

/* Chunks of BDAT, some of them empty or with half a line end. */
static void test_intake_chunks(void **state) {
    static const char *const chunks[] = {"Subject: x\r", "\n\r", "\nbody",
                                         " goes on\r\n", "\r",   "x"};
    struct sbuf got = {0};
    (void)state;
    struct intake *in = begin(INTAKE_BDAT);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(intake_chunk(in, strlen(chunks[i]), false), INTAKE_MORE);
        assert_int_equal(feed(in, str_of(chunks[i]), 1), INTAKE_CHUNK);
    }
    assert_int_equal(intake_chunk(in, 0, true), INTAKE_END);
    take_body(in, &got);
    assert_str(sbuf_str(&got),
               "Received: x\r\nSubject: x\r\nDate: now\r\n\r\nbody goes on\r\n x\r\n");
    sbuf_free(&got);
    intake_free(in);
    in = begin(INTAKE_REFUSED);
    assert_int_equal(intake_chunk(in, 5, false), INTAKE_MORE);
    assert_int_equal(feed(in, STR_LIT("12345"), 2), INTAKE_CHUNK);
    assert_int_equal(intake_chunk(in, 0, false), INTAKE_CHUNK);
    assert_int_equal(intake_chunk(in, 3, true), INTAKE_MORE);
    assert_true(intake_open(in));
    assert_int_equal(feed(in, STR_LIT("678"), 9), INTAKE_END);
    assert_true(in->content.n == 0 && !intake_open(in));
    intake_free(in);
}

/* What is too big or cannot be written is read to its end, and nothing of it stays. */
static void test_intake_fails(void **state) {
    struct sbuf text = {0};
    (void)state;
    make_content(&text, 600);
    sbuf_add_c(&text, ".\r\n");
    struct intake *in = begin(INTAKE_DATA);
    assert_int_equal(feed(in, sbuf_str(&text), 500), INTAKE_END);
    assert_true(in->too_big && in->failed == 0 && file.n <= 20000 + 4096);
    intake_free(in);
    spool_answers();
    assert_int_equal(n_dropped, 1);
    in = begin(INTAKE_DATA);
    file_rc = -28;
    text.n = 12000;
    while (text.p[text.n - 1] != '\n')
        text.n--;
    sbuf_add_c(&text, ".\r\n");
    assert_int_equal(feed(in, sbuf_str(&text), 500), INTAKE_END);
    assert_true(!in->too_big && in->failed == -28);
    intake_free(in);
    spool_answers();
    assert_int_equal(n_dropped, 1);
    sbuf_free(&text);
}

/* The owner goes while a chunk is with the spool: the file goes when the chunk is back. */
static void test_intake_is_left(void **state) {
    struct sbuf text = {0};
    enum intake_rc rc = INTAKE_MORE;
    (void)state;
    make_content(&text, 110);
    small.message_memory_limit = 1; /* chunks are small */
    struct intake *in = begin(INTAKE_DATA);
    size_t at = 0;
    while (rc == INTAKE_MORE && at + 500 < text.n)
        at += intake_take(in, text.p + at, 500, &rc);
    assert_true(rc == INTAKE_WAIT && n_submitted == 1);
    intake_free(in);
    spool_answers();
    assert_true(n_ready == 0 && n_submitted == 1);
    spool_answers();
    assert_int_equal(n_dropped, 1);
    intake_free(NULL);
    sbuf_free(&text);
    small.message_memory_limit = 1 << 20;
}

/* What the log has not got yet takes the room of what comes: behind a slow disk content goes to its
 * file early, and waits for it. */
static void test_content_on_its_way_is_counted(void **state) {
    struct sbuf text = {0}, taken = {0};
    struct body *waits[40];
    uint64_t size, in_memory = 0;
    size_t n_files = 0;
    (void)state;
    make_content(&text, 52);
    sbuf_add_c(&text, ".\r\n");
    small.message_memory_limit = 32000;
    for (size_t i = 0; i < 40; i++) {
        struct intake *in = begin(INTAKE_DATA);
        assert_int_equal(feed(in, sbuf_str(&text), 300), INTAKE_END);
        n_files += in->in_file;
        waits[i] = intake_body(in, &size);
        in_memory += body_memory_of(waits[i]);
        intake_free(in);
    }
    assert_true(n_files > 10 && in_memory < 32000);
    for (size_t i = 0; i < 40; i++) {
        intake_body_settled(waits[i]);
        body_unref(waits[i]);
    }
    struct intake *in = begin(INTAKE_DATA);
    assert_int_equal(feed(in, sbuf_str(&text), 300), INTAKE_END);
    assert_false(in->in_file);
    take_body(in, &taken);
    intake_free(in);
    assert_true(size > 2000 && taken.n == size);
    small.message_memory_limit = 1 << 20;
    sbuf_free(&text);
    sbuf_free(&taken);
}

/* The owner's configuration may be gone before the chunk is back: a client leaves after a reload.
 */
static void test_intake_is_left_without_a_configuration(void **state) {
    struct sbuf text = {0};
    enum intake_rc rc = INTAKE_MORE;
    (void)state;
    make_content(&text, 300);
    struct params *p =
        mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    *p = small;
    p->message_memory_limit = 1;
    sbuf_reset(&file);
    n_dropped = 0;
    file_rc = 0;
    struct intake *in = intake_new(INTAKE_DATA, loop, NULL, p, 8, &plain_ops);
    for (size_t at = 0; rc == INTAKE_MORE && at + 700 < text.n;)
        at += intake_take(in, text.p + at, 700, &rc);
    assert_true(rc == INTAKE_WAIT && n_submitted == 1);
    intake_free(in);
    munmap(p, sizeof *p);
    spool_answers();
    spool_answers();
    assert_int_equal(n_dropped, 1);
    sbuf_free(&text);
}

/* -- anvil -- */

static int64_t clock_ms;

static int64_t fake_clock(void) {
    return clock_ms;
}

static void test_anvil_counts(void **state) {
    (void)state;
    anvil_set_clock(fake_clock);
    clock_ms = 1000;
    for (int i = 0; i < 3; i++)
        assert_true(anvil_connect("192.0.2.1", 3, 5, 60));
    assert_false(anvil_connect("192.0.2.1", 3, 5, 60)); /* four are open */
    assert_true(anvil_connect("192.0.2.2", 3, 5, 60));
    for (int i = 0; i < 4; i++)
        anvil_disconnect("192.0.2.1");
    assert_true(anvil_connect("192.0.2.1", 3, 5, 60));
    assert_false(anvil_connect("192.0.2.1", 3, 5, 60)); /* the sixth in a minute */
    assert_true(anvil_connect("192.0.2.1", 0, 0, 60));
    for (int i = 0; i < 3; i++)
        anvil_disconnect("192.0.2.1");
    assert_int_equal(anvil_event("192.0.2.1", ANVIL_RCPT, 60), 1);
    assert_int_equal(anvil_event("192.0.2.1", ANVIL_RCPT, 60), 2);
    assert_int_equal(anvil_event("192.0.2.1", ANVIL_AUTH, 60), 1);
    clock_ms += 60000;
    assert_int_equal(anvil_event("192.0.2.1", ANVIL_RCPT, 60), 1);
    assert_true(anvil_connect("192.0.2.1", 1, 1, 60));
    anvil_disconnect("192.0.2.1");
    anvil_disconnect("192.0.2.1"); /* one too many */
    anvil_disconnect("192.0.2.77");
    anvil_disconnect("192.0.2.2");
}

/* Who has no connection and whose interval is over is forgotten; who is too many, too. */
static void test_anvil_forgets(void **state) {
    char addr[40];
    (void)state;
    anvil_set_clock(fake_clock);
    clock_ms += 1000000;
    anvil_connect("198.51.100.1", 0, 0, 60); /* stays */
    for (int i = 0; i < 5000; i++) {
        snprintf(addr, sizeof addr, "10.%d.%d.1", i / 250, i % 250);
        anvil_connect(addr, 0, 0, 60);
        anvil_event(addr, ANVIL_MESSAGE, 60);
        anvil_disconnect(addr);
    }
    assert_true(anvil_clients() >= 5001);
    clock_ms += 60001;
    for (int i = 0; i < 2600; i++)
        anvil_event("10.0.0.1", ANVIL_MESSAGE, 60);
    assert_true(anvil_clients() <= 3);
    for (int i = 0; i < 60000; i++) {
        snprintf(addr, sizeof addr, "11.%d.%d.%d", i / 62500, i / 250 % 250, i % 250);
        anvil_event(addr, ANVIL_MESSAGE, 60);
        assert_true(anvil_clients() <= ANVIL_IDLE_MAX + 4);
    }
    assert_int_equal(anvil_event("11.0.239.249", ANVIL_MESSAGE, 60), 2); /* not the last one */
    assert_false(anvil_connect("198.51.100.1", 1, 0, 60));               /* and not who is here */
    anvil_disconnect("198.51.100.1");
    anvil_disconnect("198.51.100.1");
    clock_ms += 100000000;
    for (size_t i = 0; i < ANVIL_IDLE_MAX; i++)
        anvil_event("11.0.0.0", ANVIL_MESSAGE, 60);
    assert_true(anvil_clients() <= 2);
}

/* A network of IPv6 is one client. */
static void test_anvil_networks(void **state) {
    (void)state;
    anvil_set_clock(fake_clock);
    clock_ms += 100000000;
    assert_int_equal(anvil_event("2001:db8::1", ANVIL_RCPT, 60), 1);
    assert_int_equal(anvil_event("2001:db8::fff:ffff", ANVIL_RCPT, 60), 2);
    assert_int_equal(anvil_event("2001:db8::0fff:ffff:ffff", ANVIL_RCPT, 60), 3);
    assert_int_equal(anvil_event("2001:db8::1000:0:1", ANVIL_RCPT, 60), 1);
    assert_int_equal(anvil_event("2001:db8:1::1", ANVIL_RCPT, 60), 1);
    assert_true(anvil_connect("2001:db8:9::1", 1, 0, 60));
    assert_false(anvil_connect("2001:db8:9::2", 1, 0, 60));
    anvil_disconnect("2001:db8:9::2");
    anvil_disconnect("2001:db8:9::1");
    assert_true(anvil_connect("2001:db8:9::3", 1, 0, 60));
    anvil_disconnect("2001:db8:9::3");
    anvil_set_clock(NULL);
}

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

static struct config *configure(const char *main) {
    char path[100];
    snprintf(path, sizeof path, "%s/main.cf", dir);
    FILE *f = fopen(path, "w");
    fprintf(f, "myhostname = mta.example\n%s\n", main);
    fclose(f);
    struct config *cfg = config_build(cfg_source_new(dir));
    assert_non_null(cfg);
    return cfg;
}

/* -- a lookup process in memory: it says what the test says -- */

static struct maps_answer table_says; /* to every table */
static enum match_rc network_says;    /* to a list with a table in it */
static char
    asked_keys[1000]; /* of the last question, each with a blank; a shortened one with '~' */

static struct {
    lookup_maps_fn fn;
    lookup_match_fn match;
    void *arg;
} asking;

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

uint32_t lookup_maps(struct lookup *k, const char *svc, const char *spec,
                     const struct maps_key *keys, size_t n, lookup_maps_fn fn, void *arg) {
    size_t at = 0;
    (void)k;
    (void)svc;
    (void)spec;
    asked_keys[0] = '\0';
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(asked_keys + at, sizeof asked_keys - at, "%s%.*s ",
                               keys[i].partial ? "~" : "", STR_FMT(keys[i].key));
    asking.fn = fn;
    asking.arg = arg;
    return 5;
}

uint32_t lookup_match_now(struct lookup *k, const char *svc, const char *spec, enum match_kind kind,
                          bool parents, struct str key, enum match_rc *now, lookup_match_fn fn,
                          void *arg) {
    char *err = NULL;
    (void)k;
    (void)svc;
    if (!matchlist_has_tables(spec)) {
        struct matchlist *l = matchlist_open(spec, NULL, kind, parents);
        *now = matchlist_has(l, key, &err);
        matchlist_close(l);
        return 0;
    }
    asking.match = fn;
    asking.arg = arg;
    return 6;
}

void lookup_cancel(struct lookup *k, uint32_t tag) {
    (void)k;
    if (tag != 0) {
        asking.fn = NULL;
        asking.match = NULL;
    }
}

/* What a list says of a client: "" if it allows it, else the reply. */
static void ask(const char *main, struct access_facts f, enum access_stage stage,
                const char *want) {
    struct config *cfg = configure(main);
    struct asked a = {0};
    struct client nobody = {.addr = "192.0.2.9"};
    f.loop = loop;
    f.cfg = cfg;
    f.p = &cfg->p;
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
    ask(RECIPIENT
        "reject_unverified_sender, check_policy_service unix:x, sleep 5, reject_unlisted_recipient",
        f, ACCESS_RCPT, "");
    ask(RECIPIENT "no_such_word", f, ACCESS_RCPT, "451 4.3.5 Server configuration error");
    ask(RELAY "check_policy_service unix:x, defer", f, ACCESS_RCPT,
        "450 4.3.2 <b@short>: Recipient address rejected: Try again later");
    ask(RECIPIENT "warn_if_reject defer, reject_non_fqdn_recipient", f, ACCESS_RCPT,
        "504 5.5.2 <b@short>: Recipient address rejected: need fully-qualified address");
    ask(RECIPIENT "warn_if_reject, no_such_word", f, ACCESS_RCPT, "");
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
        {"DUNNO", ""},
        {"REJECT", "554 5.7.1 <a@x.example>: Sender address rejected: Access denied"},
        {"reject  not you", "554 5.7.1 <a@x.example>: Sender address rejected: not you"},
        {"REJECT 5.7.9 no", "554 5.7.9 <a@x.example>: Sender address rejected: no"},
        {"REJECT x.7.9 no", "554 5.7.1 <a@x.example>: Sender address rejected: x.7.9 no"},
        {"REJECT 5.7 no", "554 5.7.1 <a@x.example>: Sender address rejected: 5.7 no"},
        {"DEFER", "450 4.7.1 <a@x.example>: Sender address rejected: Access denied"},
        {"DEFER 4.3.9 later", "450 4.3.9 <a@x.example>: Sender address rejected: later"},
        {"450 wait", "450 4.7.1 <a@x.example>: Sender address rejected: wait"},
        {"521 5.1.2 gone", "521 5.1.2 <a@x.example>: Sender address rejected: gone"},
        {"521 a\tb\001c", "521 5.7.1 <a@x.example>: Sender address rejected: a?b?c"},
        {"321 what", "451 4.3.5 Server configuration error"},
        {"PREPEND X: y", "451 4.3.5 Server configuration error"},
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
    for (size_t key = 4; key < 100; key += 12) { /* nobody asked for so many */
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

static void test_access_logins(void **state) {
    static const char maps[] = "smtpd_sender_login_maps = hash:l\n" CLOSED;
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
    ask(main_cf, f, ACCESS_RCPT, "451 4.3.0 Temporary lookup failure");
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
    ask("smtpd_data_restrictions = check_policy_service unix:x", f, ACCESS_DATA, "");
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

/* -- Dovecot -- */

static int listener = -1, service = -1;
static char socket_path[100];

static void service_listens(void) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(socket_path, sizeof socket_path, "%s/auth", dir);
    memcpy(a.sun_path, socket_path, strlen(socket_path) + 1);
    unlink(socket_path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(listener, 5), 0);
}

/* Runs the loop until the service has been sent something, and returns it. */
static const char *service_hears(void) {
    static char text[1000];
    ssize_t n = 0;
    for (int i = 0; i < 1000 && n <= 0; i++) {
        turn();
        if (service < 0)
            service = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        n = service < 0 ? 0 : read(service, text, sizeof text - 1);
        if (n <= 0)
            usleep(1000);
    }
    text[n < 0 ? 0 : n] = '\0';
    return text;
}

static void service_says(const char *text) {
    assert_int_equal(write(service, text, strlen(text)), strlen(text));
    for (int i = 0; i < 20; i++) {
        turn();
        usleep(1000);
    }
}

static size_t n_told;

static void is_told(void *arg) {
    (void)arg;
    n_told++;
}

struct login_answer {
    enum dovecot_rc rc;
    char text[100];
    int times;
};

static void on_login(void *arg, enum dovecot_rc rc, struct str text, struct str user) {
    struct login_answer *a = arg;
    (void)user;
    a->rc = rc;
    a->times++;
    snprintf(a->text, sizeof a->text, "%.*s", STR_FMT(text));
}

static void service_greets(struct dovecot *d) {
    struct dovecot_wait w = {.fn = is_told};
    n_told = 0;
    assert_false(dovecot_ready(d));
    dovecot_await(d, &w);
    assert_int_equal(n_told, 0);
    assert_non_null(strstr(service_hears(), "VERSION\t1\t"));
    service_says("VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tX\tprivate\nMECH\tCRAM-"
                 "MD5\tdictionary\nSPID\t1\nDONE\n");
    assert_true(dovecot_ready(d) && n_told == 1);
}

/* Every text that is sent, with every character that would make a line or a field of its own. */
static void test_dovecot_lines(void **state) {
    static const char bad[] = {'\t', '\n', '\r', '\0'};
    struct login_answer a = {0};
    struct sbuf mechs = {0};
    (void)state;
    service_listens();
    struct dovecot *d = dovecot_new(loop, socket_path);
    struct dovecot_login l = {"PLAIN", "smtp", "192.0.2.1", "192.0.2.2", true, STR_LIT("AGE=")};
    assert_int_equal(dovecot_begin(d, &l, on_login, &a), 0); /* not connected */
    assert_false(dovecot_continue(d, 1, STR_LIT("AGE=")));
    service_greets(d);
    dovecot_mechs(d, 0, &mechs);
    assert_string_equal(mechs.p, "PLAIN CRAM-MD5");
    sbuf_free(&mechs);
    for (size_t i = 0; i < sizeof bad; i++) {
        char text[4] = {'a', bad[i], 'b', '\0'};
        struct dovecot_login evil = l;
        evil.resp = str_make(text, 3);
        assert_int_equal(dovecot_begin(d, &evil, on_login, &a), 0);
        if (bad[i] == '\0')
            continue; /* the others are texts of C */
        const char **fields[] = {&evil.mech, &evil.service, &evil.local_addr, &evil.client_addr};
        for (size_t k = 0; k < 4; k++) {
            evil = l;
            *(k == 0   ? &evil.mech
              : k == 1 ? &evil.service
              : k == 2 ? &evil.local_addr
                       : &evil.client_addr) = text;
            (void)fields;
            assert_int_equal(dovecot_begin(d, &evil, on_login, &a), 0);
        }
    }
    uint32_t id = dovecot_begin(d, &l, on_login, &a);
    char want[200];
    snprintf(want, sizeof want,
             "AUTH\t%u\tPLAIN\tservice=smtp\tnologin\tlip=192.0.2.1\trip=192.0.2.2\tsecured\tresp="
             "AGE=\n",
             id);
    assert_string_equal(service_hears(), want); /* and nothing of the others */
    snprintf(want, sizeof want, "CONT\t%u\tcQ==\n", id);
    service_says(want);
    assert_true(a.times == 1 && a.rc == DOVECOT_MORE);
    assert_string_equal(a.text, "cQ==");
    assert_true(dovecot_continue(d, id, STR_LIT("YQ==")));
    snprintf(want, sizeof want, "CONT\t%u\tYQ==\n", id);
    assert_string_equal(service_hears(), want);
    assert_false(dovecot_continue(d, id, str_make("a\tb", 3))); /* over, and the service is told */
    snprintf(want, sizeof want, "CANCEL\t%u\n", id);
    assert_string_equal(service_hears(), want);
    assert_false(dovecot_continue(d, id, STR_LIT("YQ==")));
    l.local_addr = "";
    l.secured = false;
    l.resp = STR_NONE;
    id = dovecot_begin(d, &l, on_login, &a);
    snprintf(want, sizeof want, "AUTH\t%u\tPLAIN\tservice=smtp\tnologin\trip=192.0.2.2\n", id);
    assert_string_equal(service_hears(), want);
    close(service);
    for (int i = 0; i < 20; i++) {
        turn();
        usleep(1000);
    }
    assert_true(a.times == 2 && a.rc == DOVECOT_TEMP && !dovecot_ready(d));
    close(listener);
    dovecot_free(d);
    turn();
}

/* A client that thinks about a challenge is no service that does not answer: the connection, which
 * is that of all clients, stays.  A service that is silent is given up. */
static void test_dovecot_silence(void **state) {
    static const struct dovecot_login l = {"LOGIN", "smtp", "", "192.0.2.2", true, {NULL, 0}};
    struct login_answer a = {0};
    char said[100];
    (void)state;
    service = -1;
    service_listens();
    struct dovecot *d = dovecot_new(loop, socket_path);
    service_greets(d);
    uint32_t id = dovecot_begin(d, &l, on_login, &a);
    assert_non_null(strstr(service_hears(), "LOGIN"));
    snprintf(said, sizeof said, "CONT\t%u\tVXNlcm5hbWU6\n", id);
    service_says(said);
    assert_int_equal(a.times, 1);
    for (int i = 0; i < 10; i++) {
        ahead_s += 30;
        turn();
    }
    assert_true(a.times == 1 && dovecot_ready(d));
    assert_true(dovecot_continue(d, id, STR_LIT("YQ==")));
    for (int i = 0; i < 10; i++) {
        ahead_s += 30;
        turn();
    }
    assert_true(a.times == 2 && a.rc == DOVECOT_TEMP && !dovecot_ready(d));
    close(listener);
    close(service);
    dovecot_free(d);
    turn();
}

/* A question that the service never answers fails alone, as long as it answers others. */
static void test_dovecot_forgets_one(void **state) {
    static const struct dovecot_login l = {"LOGIN", "smtp", "", "192.0.2.2", true, {NULL, 0}};
    struct login_answer lost = {0}, good = {0};
    char said[100];
    (void)state;
    service = -1;
    service_listens();
    struct dovecot *d = dovecot_new(loop, socket_path);
    service_greets(d);
    uint32_t id = dovecot_begin(d, &l, on_login, &lost);
    assert_non_null(strstr(service_hears(), "LOGIN"));
    for (int i = 1; i <= 5; i++) {
        uint32_t other = dovecot_begin(d, &l, on_login, &good);
        assert_non_null(strstr(service_hears(), "AUTH\t"));
        snprintf(said, sizeof said, "FAIL\t%u\tuser=u\n", other);
        service_says(said);
        assert_true(good.times == i && good.rc == DOVECOT_FAIL);
        ahead_s += 20;
        turn();
    }
    assert_true(lost.times == 1 && lost.rc == DOVECOT_TEMP && dovecot_ready(d));
    snprintf(said, sizeof said, "OK\t%u\tuser=u\n", id);
    service_says(said); /* too late */
    assert_true(lost.times == 1 && dovecot_ready(d));
    close(listener);
    close(service);
    dovecot_free(d);
    turn();
}

/* No service makes us remember more than there can be mechanisms. */
static void test_dovecot_names_too_many(void **state) {
    struct dovecot_wait w = {.fn = is_told};
    struct sbuf greeting = {0};
    (void)state;
    n_told = 0;
    service = -1;
    service_listens();
    struct dovecot *d = dovecot_new(loop, socket_path);
    dovecot_await(d, &w);
    assert_non_null(strstr(service_hears(), "VERSION\t1\t"));
    for (int i = 0; i < 100; i++)
        sbuf_printf(&greeting, "MECH\tM%d\n", i);
    sbuf_add_c(&greeting, "DONE\n");
    service_says(greeting.p);
    assert_true(!dovecot_ready(d) && n_told == 1);
    sbuf_free(&greeting);
    close(listener);
    close(service);
    dovecot_free(d);
    turn();
}

/* A service that never completes the connection (a full queue, a firewall) is as absent as one that
 * does not greet: clients that say EHLO wait seconds for its list, not until the kernel gives up.
 */
static void test_dovecot_never_connects(void **state) {
    struct dovecot_wait w = {.fn = is_told};
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    char path[64];
    int others[4];
    (void)state;
    n_told = 0;
    int full = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(full, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(full, 0), 0);
    assert_int_equal(getsockname(full, (struct sockaddr *)&a, &n), 0);
    for (size_t i = 0; i < 4; i++) {
        others[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(others[i], (struct sockaddr *)&a, sizeof a);
    }
    snprintf(path, sizeof path, "inet:127.0.0.1:%d", ntohs(a.sin_port));
    struct dovecot *d = dovecot_new(loop, path);
    dovecot_await(d, &w);
    turn();
    assert_int_equal(n_told, 0);
    for (int i = 0; i < 4; i++) {
        ahead_s += 5;
        turn();
    }
    assert_int_equal(n_told, 1);
    for (size_t i = 0; i < 4; i++)
        close(others[i]);
    close(full);
    dovecot_free(d);
    turn();
}

static int loop_make(void **state) {
    loop = loop_new(0);
    return loop == NULL || dir_make(state) != 0;
}

/* -- what a whole session needs besides; these tests do not come so far -- */

int64_t spool_space(const struct spool *s) {
    (void)s;
    fail();
    return 0;
}

void spool_expect(struct spool *s, int n) {
    (void)s;
    (void)n;
    fail();
}

bool spool_is_full(int rc) {
    (void)rc;
    fail();
    return false;
}

uint32_t lookup_verify(struct lookup *k, struct str user, struct str password, bool secure,
                       const char *client, lookup_maps_fn fn, void *arg) {
    (void)k;
    (void)user;
    (void)password;
    (void)secure;
    (void)client;
    (void)fn;
    (void)arg;
    fail();
    return 0;
}

struct route_query *route_resolve(const struct config *cfg, struct lookup *k, struct str sender,
                                  struct str recipient, struct trace *trace, route_fn fn,
                                  void *arg) {
    (void)cfg;
    (void)k;
    (void)sender;
    (void)recipient;
    (void)trace;
    (void)fn;
    (void)arg;
    fail();
    return NULL;
}

const struct mailerr *route_refuses(const struct route *r) {
    (void)r;
    return NULL;
}

void route_cancel(struct route_query *q) {
    (void)q;
}

struct alias_query *alias_expand(const struct config *cfg, struct lookup *k, struct str rcpt,
                                 struct trace *trace, alias_fn fn, void *arg) {
    (void)cfg;
    (void)k;
    (void)rcpt;
    (void)trace;
    (void)fn;
    (void)arg;
    fail();
    return NULL;
}

void alias_cancel(struct alias_query *q) {
    (void)q;
}

/* -- clients whose name servers do not answer -- */

static client_named_fn named;
static void *named_ctx[8];
static size_t n_named;

static void find_name_later(void *arg, const struct netaddr *addr, client_named_fn done,
                            void *ctx) {
    (void)arg;
    (void)addr;
    named = done;
    named_ctx[n_named++] = ctx;
}

/* A connection from 192.0.2.7; the client's end of it. */
static int connect_client(struct receive *r, struct service_load *load) {
    int pair[2];
    struct netaddr peer;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    assert_true(netaddr_parse(&peer, STR_LIT("192.0.2.7"), 25));
    serve_client(r, pair[0], &peer, r->cfg->services[0], load, false);
    turn();
    return pair[1];
}

static void assert_hears(int fd, const char *want) {
    char said[200] = "";
    ssize_t n = recv(fd, said, sizeof said - 1, 0);
    said[n < 0 ? 0 : n] = '\0';
    assert_string_equal(said, want);
}

#define TOO_MANY "421 4.7.0 mta.example Error: too many connections from 192.0.2.7\r\n"
#define SHUTTING "421 4.3.2 mta.example Service shutting down\r\n"

/* They count from the first moment; one that is over its limit is not asked for; a name that comes
 * when the client has gone is for nobody. */
static void test_clients_without_names(void **state) {
    (void)state;
    struct receive_ops ops = {.peername = find_name_later};
    struct config *cfg = configure("smtpd_client_connection_count_limit = 2\nmynetworks = \n");
    struct receive *r = receive_new(loop, NULL, NULL, cfg, &ops);
    struct service_load load = {.svc_name = (char *)(uintptr_t) "smtp"};
    int one = connect_client(r, &load), two = connect_client(r, &load);
    assert_hears(one, "");
    assert_int_equal(n_named, 2);
    for (int i = 0; i < 3; i++) {
        int more = connect_client(r, &load);
        assert_hears(more, TOO_MANY);
        close(more);
    }
    assert_int_equal(n_named, 2);
    assert_int_equal(receive_sessions(r), 2);
    named(named_ctx[0],
          &(struct client_names){CLIENT_NAME_FOUND, CLIENT_NAME_FOUND, "mx.far.example"});
    turn();
    assert_hears(one, "220 mta.example ESMTP Posthouse\r\n");
    receive_stop(r);
    turn();
    assert_hears(one, SHUTTING);
    assert_hears(two, SHUTTING);
    assert_int_equal(receive_sessions(r), 0);
    named(named_ctx[1], &(struct client_names){CLIENT_NAME_FOUND, CLIENT_NAME_NONE, NULL});
    turn();
    close(one);
    close(two);
    config_unref(cfg);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_intake),
        cmocka_unit_test(test_intake_chunks),
        cmocka_unit_test(test_intake_fails),
        cmocka_unit_test(test_intake_is_left),
        cmocka_unit_test(test_intake_is_left_without_a_configuration),
        cmocka_unit_test(test_content_on_its_way_is_counted),
        cmocka_unit_test(test_anvil_counts),
        cmocka_unit_test(test_anvil_forgets),
        cmocka_unit_test(test_anvil_networks),
        cmocka_unit_test(test_access_who),
        cmocka_unit_test(test_access_where),
        cmocka_unit_test(test_access_words),
        cmocka_unit_test(test_access_data),
        cmocka_unit_test(test_access_tables),
        cmocka_unit_test(test_access_keys),
        cmocka_unit_test(test_clients_without_names),
        cmocka_unit_test(test_access_logins),
        cmocka_unit_test(test_access_networks),
        cmocka_unit_test(test_dovecot_lines),
        cmocka_unit_test(test_dovecot_silence),
        cmocka_unit_test(test_dovecot_forgets_one),
        cmocka_unit_test(test_dovecot_names_too_many),
        cmocka_unit_test(test_dovecot_never_connects),
    };
    return cmocka_run_group_tests(tests, loop_make, dir_remove);
}
