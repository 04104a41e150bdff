/* The SMTP server's parts: counts of clients, content as it comes in, clients without names. */
#include "receive_rig.h"

#include "clean/clean.h"

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

/* A client without a connection is forgotten when its interval is over; one too many is, too. */
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

bool clean_is_idle(const struct config *cfg, const struct params *p) {
    (void)cfg;
    (void)p;
    return true;
}

struct virtual_query *virtual_find(const struct config *cfg, struct lookup *k, const char *qid,
                                   const struct rcpt *rcpt, virtual_fn fn, void *arg) {
    (void)cfg;
    (void)k;
    (void)qid;
    (void)rcpt;
    (void)fn;
    (void)arg;
    fail_msg("no test has aliases of virtual(5)");
    return NULL;
}

struct clean_query *clean_begin(const struct clean_ask *ask, virtual_fn fn, void *arg) {
    (void)ask;
    (void)fn;
    (void)arg;
    fail_msg("no test has copies or aliases");
    return NULL;
}

void clean_cancel(struct clean_query *q) {
    (void)q;
}

void virtual_cancel(struct virtual_query *q) {
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

/* -- clients with name servers that do not answer -- */

static client_named_fn named;
static void *named_ctx[16];
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
 * when the client has gone is for no session. */
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
    named(named_ctx[0], &(struct client_names){CLIENT_NAME_FOUND, CLIENT_NAME_FOUND,
                                               "mx.far.example", "mx.far.example"});
    turn();
    assert_hears(one, "220 mta.example ESMTP Posthouse\r\n");
    receive_stop(r);
    turn();
    assert_hears(one, SHUTTING);
    assert_hears(two, SHUTTING);
    assert_int_equal(receive_sessions(r), 0);
    named(named_ctx[1], &(struct client_names){CLIENT_NAME_FOUND, CLIENT_NAME_NONE, NULL, NULL});
    turn();
    close(one);
    close(two);
    config_unref(cfg);
}

/* -- listeners -- */

/* A listener of the service; *path is where a client reaches it. */
static void listen_at(struct receive *r, const char *svc_name, bool local, struct sockaddr_un *at) {
    static unsigned n;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    *at = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(at->sun_path, sizeof at->sun_path, "%s/listener%u", dir, n++);
    assert_int_equal(bind(fd, (struct sockaddr *)at, sizeof *at), 0);
    assert_int_equal(listen(fd, 10), 0);
    receive_listen(r, fd, svc_name, local);
}

static int connect_listener(const struct sockaddr_un *at) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)at, sizeof *at), 0);
    turn();
    return fd;
}

/* What a client that comes there is told before its name is known. */
static void assert_told(const struct sockaddr_un *at, const char *want) {
    int fd = connect_listener(at);
    assert_hears(fd, want);
    close(fd);
    turn();
}

static struct config *configure_service(const char *main, const char *master) {
    struct config *cfg = configure_services(main, master);
    assert_int_equal(cfg->diags.errors, 0);
    return cfg;
}

#define UNAVAILABLE "421 4.3.2 Service not available, try again later\r\n"
#define FULL        "421 4.3.2 Too many connections, try again later\r\n"

/* A service that a reload has taken away, one that is full and a process without descriptors say
 * so, but never in clear on a port where TLS comes first. */
static void test_listeners_refuse(void **state) {
    struct receive_ops ops = {.peername = find_name_later};
    struct config *cfg = configure_service(
        "smtpd_tls_cert_file = none\n",
        "25 inet n - n - 1 smtpd\n26 inet n - n - 0 smtpd\n27 inet n - n - - smtpd\n"
        "465 inet n - n - - smtpd -o smtpd_tls_wrappermode=yes\n");
    struct config *fewer = configure_service("", "26 inet n - n - 0 smtpd\n");
    struct config *none = configure_service("", "relay unix - - n - - smtp\n");
    struct receive *r = receive_new(loop, NULL, NULL, cfg, &ops);
    struct sockaddr_un one, any, usual, wrapped, local;
    (void)state;
    listen_at(r, "25", false, &one);
    listen_at(r, "26", false, &any);
    listen_at(r, "27", false, &usual);
    listen_at(r, "465", false, &wrapped);
    listen_at(r, "25", true, &local);
    size_t before = n_named;
    assert_told(&any, "");
    assert_told(&usual, "");
    assert_told(&one, "");
    assert_int_equal(n_named, before + 3); /* they are served, each when its name is known */
    int fd = connect_listener(&one);
    struct service_load *load = DL_OWNER(r->sessions.prev, struct session, link)->load;
    assert_string_equal(load->svc_name, "25");
    atomic_fetch_add(&load->n_sessions, 100);
    assert_told(&one, UNAVAILABLE);
    assert_told(&any, "");
    atomic_fetch_sub(&load->n_sessions, 100);
    close(fd);
    receive_reload(r, fewer);
    assert_told(&one, UNAVAILABLE);
    assert_told(&wrapped, UNAVAILABLE);
    receive_reload(r, none);
    assert_told(&any, UNAVAILABLE);
    assert_told(&local, "220 mta.example ESMTP Posthouse\r\n"); /* programs need no port */
    receive_reload(r, cfg);
    r->fd_max = 0;
    assert_told(&one, FULL);
    assert_told(&local, FULL);
    assert_told(&wrapped, "");
    receive_stop(r);
    turn();
    for (; before < n_named; before++)
        named(named_ctx[before],
              &(struct client_names){CLIENT_NAME_FOUND, CLIENT_NAME_NONE, NULL, NULL});
    turn();
    assert_int_equal(receive_sessions(r), 0);
    config_unref(cfg);
    config_unref(fewer);
    config_unref(none);
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
        cmocka_unit_test(test_clients_without_names),
        cmocka_unit_test(test_listeners_refuse),
    };
    return cmocka_run_group_tests(tests, loop_make, dir_remove);
}
