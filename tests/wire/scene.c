/*
 * tests/wire/scene.c - what scenarios are made of; see scene.h
 */
#include "scene.h"

#include "filters.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOST(n) (1ULL << (n))

static bool has_domain(const char *addr, const char *domain) {
    const char *at = strrchr(addr, '@');
    return at != NULL && strcmp(at + 1, domain) == 0;
}

/* Domains of recipients as the DNS has them, and what comes of direct mail for them. */
static const struct domain {
    const char *name;
    struct {
        unsigned pref;
        const char *host; /* NULL: no more; see wire_dns_mx */
    } mx[4];
    const char *addr;  /* of the name itself; NULL: none */
    uint64_t hosts;    /* that its mail may come to */
    uint64_t beyond;   /* … and where an exchanger's own name cannot be looked up */
    const char *fault; /* what its mail is returned for; NULL: nothing */
} domains[] = {
    {"far.example",
     {{10, "mx1.far.example"}, {20, "mx2.far.example"}, {20, "stale.far.example"}, {5, "!"}},
     .hosts = HOST(0) | HOST(1)},
    {"near.example", {{10, "mx.near.example"}}, .hosts = HOST(2)},
    {"none.example", .fault = "not found"},
    {"null.example", {{0, ""}}, .addr = "10.2.0.3", .fault = "does not accept mail"},
    {"bare.example", .addr = "10.2.0.3", .hosts = HOST(2)},
    {"bad.example", .addr = "?"},
    {"lost.example", {{0, "?"}}, .addr = "10.2.0.3"},
    {"stale.example",
     {{10, "stale.far.example"}, {20, "older.far.example"}},
     .addr = "10.2.0.3",
     .fault = "not found"},
    {"half.example", {{10, "stale.far.example"}, {20, "bad.example"}}, .addr = "10.2.0.3"},
    {"loop.example",
     {{10, "mx.own.example"}, {20, "mx.near.example"}},
     .beyond = HOST(2),
     .fault = "loops back"},
    {"back.example",
     {{10, "mx.near.example"}, {20, "mx.own.example"}, {30, "mx1.far.example"}},
     .hosts = HOST(2),
     .beyond = HOST(0)},
    {"number.example", {{10, "10.2.0.3"}}, .hosts = HOST(2)},
    {"broken.example", {{10, "!"}, {20, "!"}}, .addr = "10.2.0.3", .fault = "Malformed"},
    {"twice.example", {{10, "mx.near.example"}, {10, "bare.example"}}, .hosts = HOST(2)},
    {"equal.example",
     {{10, "mx.near.example"}, {10, "mx.own.example"}, {10, "bare.example"}},
     .beyond = HOST(2),
     .fault = "loops back"},
    {"mixed.example", {{10, "mx.mixed.example"}}, .fault = "loops back"},
    {"pool.example",
     {{10, "mx1.far.example"},
      {10, "mx2.far.example"},
      {10, "mx.near.example"},
      {10, "mx.other.example"}},
     .hosts = HOST(0) | HOST(1) | HOST(2) | HOST(4)},
};
#define DOMAINS (sizeof domains / sizeof domains[0])

const char *scene_domain(unsigned i) {
    return domains[i % DOMAINS].name;
}

unsigned scene_domains(void) {
    return DOMAINS;
}

static struct ledger_road direct_road(const struct scene *s, const char *rcpt) {
    uint64_t hidden = (s->filters & FILTER_RECORDS) != 0 ? HOST(1) : 0;
    for (size_t i = 0; i < DOMAINS; i++)
        if (has_domain(rcpt, domains[i].name))
            return (struct ledger_road){
                .hosts =
                    (domains[i].hosts | (wire_faulted(s->world) ? domains[i].beyond : 0)) & ~hidden,
                .fault = domains[i].fault};
    return (struct ledger_road){.hosts = HOST(3)};
}

/* Reports go to the senders of mail, and what a policy service redirects (policies.c) goes past the
 * filter, as with Postfix. */
static bool passes_filter(const char *rcpt) {
    const char *local = strchr(rcpt, 'r');
    return has_domain(rcpt, "alpha.example") || has_domain(rcpt, "beta.example") ||
           has_domain(rcpt, "gamma.example") || has_domain(rcpt, "posthouse.test") ||
           (local != NULL && strncmp(local, "r15@", 4) == 0);
}

static bool has_own_record(const char *sender) {
    return strcmp(sender, "s1.0@beta.example") == 0;
}

/* Where mail may go: the rules of the configuration that road_configure makes, said again. */
static struct ledger_road road_of(const struct scene *s, const char *sender, const char *rcpt,
                                  bool moved) {
    bool alpha = has_domain(sender, "alpha.example"), near = has_domain(rcpt, "near.example");
    uint64_t other = moved ? HOST(2) : HOST(1);
    switch (s->road) {
    case ROAD_LIST:
    case ROAD_FALLBACK:
    case ROAD_RECORD:
        return (struct ledger_road){.hosts = HOST(0) | HOST(1), .configured = true};
    case ROAD_ACCOUNTS:
        return (struct ledger_road){.hosts = alpha                    ? HOST(1)
                                             : has_own_record(sender) ? HOST(2)
                                                                      : HOST(0),
                                    .configured = true};
    case ROAD_SENDERS:
        return (struct ledger_road){.hosts = alpha ? other : HOST(0), .configured = true};
    case ROAD_TRANSPORT:
        return (struct ledger_road){.hosts = near ? other : HOST(0), .configured = true};
    case ROAD_BOXES:
        return (struct ledger_road){.hosts = has_domain(rcpt, "far.example") ? HOST(0) : HOST(1),
                                    .configured = true};
    case ROAD_SCAN: /* relayhost may move; what came before goes to its filter all the same */
        return (struct ledger_road){.hosts = passes_filter(rcpt) ? other : HOST(0),
                                    .configured = true};
    case ROAD_DIRECT:
        return direct_road(s, rcpt);
    case ROAD_NOWHERE:
        return alpha ? (struct ledger_road){.configured = true} : direct_road(s, rcpt);
    case ROAD_BOTH:
        return alpha ? (struct ledger_road){.hosts = HOST(2), .configured = true}
                     : direct_road(s, rcpt);
    default:
        return (struct ledger_road){.hosts = moved ? HOST(1) : HOST(0), .configured = true};
    }
}

/* Who has to be logged in for it. */
static void road_login(const struct scene *s, const char *sender, bool moved,
                       struct ledger_road *road) {
    struct ledger_road r = *road;
    if (s->road == ROAD_BOXES) { /* logins are those of transports by SMTP */
        r.user = "";
        r.elsewhere = s->login == LOGIN_SENDER ? NULL : "";
    } else if (s->road == ROAD_SCAN) { /* a filter has its own login, and no sender's */
        r.user = s->login == LOGIN_HOST || s->login == LOGIN_LONG ? "customer" : "";
        r.elsewhere = s->login == LOGIN_SENDER ? NULL : "";
    } else if (s->road == ROAD_RECORD) {
        r.user = moved ? "newshop" : "shop";
        r.elsewhere = s->login == LOGIN_SENDER ? NULL : "";
    } else if (s->road == ROAD_ACCOUNTS) {
        r.user = moved ? "newshop" : "shop";
        r.elsewhere = has_own_record(sender) ? "one" : "all";
    } else if (s->login == LOGIN_HOST || s->login == LOGIN_LONG) {
        r.user = s->road == ROAD_DIRECT || s->road == ROAD_BOTH || s->road == ROAD_NOWHERE
                     ? ""
                     : "customer";
        r.elsewhere = "";
    } else if (s->login == LOGIN_SENDER) {
        r.user = has_domain(sender, "alpha.example")  ? "ann"
                 : has_domain(sender, "beta.example") ? "bob"
                                                      : "";
    } else {
        r.user = r.elsewhere = "";
    }
    *road = r;
}

/* A change of a table has come to every part of the product by then, and no answer from before is
 * remembered. */
#define MOVE_MS 2000

/* The login became another one. */
static void road_renamed(const struct scene *s, int64_t since_ms, struct ledger_road *road) {
    if (s->login_ms == 0 || strcmp(road->user, "customer") != 0)
        return;
    road->user = "newcomer";
    road->before = since_ms <= s->login_ms + MOVE_MS ? "customer" : NULL;
}

static struct ledger_road scene_road(void *arg, const char *sender, const char *rcpt,
                                     int64_t since_ms) {
    const struct scene *s = arg;
    int64_t known_ms = s->road == ROAD_SINGLE ? 0 : MOVE_MS; /* main.cf is taken up at once */
    bool moved = s->moved_ms > 0, surely = moved && since_ms > s->moved_ms + known_ms;
    struct ledger_road road = road_of(s, sender, rcpt, moved);
    struct ledger_road old = road_of(s, sender, rcpt, false);
    road_login(s, sender, moved, &road);
    road_login(s, sender, false, &old);
    if (moved && !surely) {
        road.hosts |= old.hosts;
        road.before = old.user;
    }
    road_renamed(s, since_ms, &road);
    return road;
}

static void scene_failed(void *arg, const char *text) {
    wire_fail(((struct scene *)arg)->world, "%s", text);
}

static int64_t scene_now(void *arg) {
    return wire_now_ms(((struct scene *)arg)->world);
}

static bool scene_faulted(void *arg) {
    return wire_faulted(((struct scene *)arg)->world);
}

static void watch_log(void *arg, const char *service, const char *text) {
    ledger_log(((struct scene *)arg)->ledger, service, text);
}

static void watch_down(void *arg, enum wire_down how) {
    ledger_down(((struct scene *)arg)->ledger, how == WIRE_STOPPED);
}

static void watch_durable(void *arg, unsigned number) {
    struct scene *s = arg;
    ledger_durable(s->ledger, number);
    if (s->cuts_orders)
        wire_restart(s->world, WIRE_POWER, 1000);
}

static void names_of(struct wire_world *w) {
    static const char *const names[] = {"mx1.far.example", "mx2.far.example", "mx.near.example",
                                        "mx.senders.example", "mx.other.example"};
    char addr[20];
    for (unsigned i = 0; i < SCENE_HOSTS; i++) {
        snprintf(addr, sizeof addr, "10.2.0.%u", i + 1);
        wire_dns_addr(w, names[i], addr);
    }
    wire_dns_addr(w, "mx.own.example", "10.9.9.9"); /* system_addresses */
    for (unsigned i = 2; i < SCENE_HOSTS; i++) {
        snprintf(addr, sizeof addr, "10.2.0.%u", i + 1);
        wire_dns_addr(w, "mx.mixed.example", addr);
    }
    wire_dns_addr(w, "mx.mixed.example", "10.9.9.9");
    for (size_t i = 0; i < DOMAINS; i++) {
        const struct domain *d = &domains[i];
        for (size_t k = 0; k < 4 && d->mx[k].host != NULL; k++)
            wire_dns_mx(w, d->name, d->mx[k].pref, d->mx[k].host);
        if (d->addr != NULL)
            wire_dns_addr(w, d->name, d->addr);
    }
    wire_dns_mx(w, "alpha.example", 10, names[3]);
    wire_dns_mx(w, "beta.example", 10, names[3]);
    wire_dns_mx(w, "gamma.example", 10, names[3]);
    wire_dns_mx(w, "posthouse.test", 10, names[3]);
}

static void record_configure(struct scene *s, const char *account, const char *hosts,
                             const char *user, uint64_t mask) {
    char password[60];
    snprintf(password, sizeof password, "%s-record-Secret", user);
    wire_record(s->world, &(struct wire_record){"provider", account, hosts, user, password});
    ledger_secret(s->ledger, user, password, mask, true);
    ledger_secret_wary(s->ledger, user);
}

static void road_configure(struct scene *s) {
    struct wire_world *w = s->world;
    static const char *const lines[ROAD_COUNT] = {
        [ROAD_SINGLE] = "relayhost = [10.2.0.1]\n",
        [ROAD_LIST] = "relayhost = [10.2.0.1], [10.2.0.2]\n",
        [ROAD_SENDERS] = "relayhost = [10.2.0.1]\nsender_dependent_relayhost_maps = hash:senders\n",
        [ROAD_TRANSPORT] = "relayhost = [10.2.0.1]\ntransport_maps = hash:transport\n",
        [ROAD_DIRECT] = "relayhost =\n",
        [ROAD_BOTH] = "relayhost =\nsender_dependent_relayhost_maps = hash:senders\n",
        [ROAD_NOWHERE] = "relayhost =\nsender_dependent_relayhost_maps = hash:senders\n",
        [ROAD_FALLBACK] = "relayhost = [10.2.0.1]\nsmtp_fallback_relay = [10.2.0.2]\n",
        [ROAD_RECORD] = "relayhost = provider\nsmtp_fallback_relay = [10.2.0.2]\n",
        [ROAD_ACCOUNTS] = "relayhost = provider\n",
        [ROAD_BOXES] = "relayhost = [10.2.0.2]\ntransport_maps = hash:transport\n",
        [ROAD_SCAN] = ("relayhost = [10.2.0.2]\ncontent_filter = smtp:[10.2.0.1]\n"
                       "smtp_send_xforward_command = yes\n")};
    wire_main_cf(w, "%s", lines[s->road]);
    if (s->road == ROAD_SENDERS)
        wire_table(w, "senders", "@alpha.example", "[10.2.0.2]");
    if (s->road == ROAD_BOTH || s->road == ROAD_NOWHERE)
        wire_table(w, "senders", "@alpha.example",
                   s->road == ROAD_BOTH ? "near.example" : "none.example");
    if (s->road == ROAD_TRANSPORT)
        wire_table(w, "transport", "near.example", "smtp:[10.2.0.2]");
    if (s->road == ROAD_BOXES)
        wire_table(w, "transport", "far.example", "lmtp:inet:[10.2.0.1]:25");
    s->hosts[0].lmtp = s->road == ROAD_BOXES;
    if (s->road == ROAD_RECORD || s->road == ROAD_ACCOUNTS)
        record_configure(s, "", "[10.2.0.1]", "shop", HOST(0));
    if (s->road == ROAD_ACCOUNTS) {
        record_configure(s, "@alpha.example", "[10.2.0.2]", "all", HOST(1));
        record_configure(s, "s1.0@beta.example", "[10.2.0.3]", "one", HOST(2));
    }
    if (s->road != ROAD_RECORD && s->road != ROAD_ACCOUNTS)
        wire_main_cf(w, "relays_database =\n");
    names_of(w);
}

static void login_configure(struct scene *s) {
    struct wire_world *w = s->world;
    if (s->login == LOGIN_NONE)
        return;
    wire_main_cf(w, "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = hash:passwords\n"
                    "smtp_sasl_tls_security_options = noanonymous\n");
    if (s->login == LOGIN_HOST) {
        wire_table(w, "passwords", "[10.2.0.1]", "customer:host-Secret-2");
        ledger_secret(s->ledger, "customer", "host-Secret-2", HOST(0), true);
        return;
    }
    if (s->login == LOGIN_LONG) {
        struct bytes row = {0};
        bytes_text(&row, "customer:");
        bytes_fill(&row, 'S', 600);
        wire_table(w, "passwords", "[10.2.0.1]", row.p);
        ledger_secret(s->ledger, "customer", row.p + 9, HOST(0), true);
        return;
    }
    wire_main_cf(w, "smtp_sender_dependent_authentication = yes\n");
    wire_table(w, "passwords", "@alpha.example", "ann:ann-Secret-3");
    wire_table(w, "passwords", "@beta.example", "bob:bob-Secret-4");
    /* A sender's go everywhere; host 1 is where the road may move. */
    uint64_t hosts = s->road == ROAD_SINGLE ? HOST(0) | HOST(1) : UINT64_MAX;
    ledger_secret(s->ledger, "ann", "ann-Secret-3", hosts, true);
    ledger_secret(s->ledger, "bob", "bob-Secret-4", hosts, true);
}

struct scene *scene_new(struct wire_world *w, uint64_t seed, enum road_kind road,
                        enum login_kind login, size_t line_limit, int64_t lifetime_s,
                        bool refuses) {
    struct scene *s = calloc(1, sizeof *s);
    if (s == NULL)
        abort();
    struct ledger_rules rules = {.fail = scene_failed,
                                 .now_ms = scene_now,
                                 .faulted = scene_faulted,
                                 .backoff_ms = 600000,
                                 .road = scene_road,
                                 .arg = s,
                                 .origin = "posthouse.test",
                                 .line_limit = line_limit,
                                 .lifetime_ms = lifetime_s * 1000,
                                 .refuses = refuses};
    s->world = w;
    s->ledger = ledger_new(&rules);
    s->dice = dice_new(seed, 1);
    s->road = road;
    s->login = login;
    s->ends_ms = INT64_MAX;
    for (unsigned i = 0; i < SCENE_HOSTS; i++) {
        s->hosts[i] = (struct relay_host){.world = w, .ledger = s->ledger, .number = i};
        s->hosts[i].plan.can = CAN_ALL & ~(unsigned)(CAN_STARTTLS | CAN_AUTH);
        s->hosts[i].plan.mechs = "PLAIN LOGIN";
    }
    wire_main_cf(w,
                 "smtp_line_length_limit = %zu\nlmtp_line_length_limit = "
                 "%zu\nmaximal_queue_lifetime = %llds\n"
                 "bounce_queue_lifetime = %llds\nsmtpd_tls_cert_file = /w/cert.pem\n"
                 "smtpd_tls_key_file = /w/key.pem\n",
                 line_limit, line_limit, (long long)lifetime_s, (long long)lifetime_s);
    if (refuses)
        wire_main_cf(w, "smtpd_data_restrictions = reject\n");
    road_configure(s);
    login_configure(s);
    wire_set_user(w, s);
    struct wire_watch watch = {
        .log = watch_log, .down = watch_down, .durable = watch_durable, .arg = s};
    wire_watch(w, &watch);
    return s;
}

void scene_open(struct scene *s) {
    char addr[20];
    for (unsigned i = 0; i < SCENE_HOSTS; i++) {
        snprintf(addr, sizeof addr, "10.2.0.%u", i + 1);
        wire_host(s->world, addr, 25, s->hosts[i].plan.is, relay_peer_new, &s->hosts[i]);
    }
}

static char *text_of(const char *fmt, unsigned a, unsigned b, const char *c) {
    char buf[300];
    snprintf(buf, sizeof buf, fmt, a, b, c);
    return bytes_copy(buf, strlen(buf));
}

struct client_mail scene_mail(struct scene *s, const char *domain, unsigned rcpts, const char *to) {
    struct client_mail m = {.number = ++s->n_mails, .n_rcpts = rcpts};
    m.sender = domain[0] == '\0' ? "" : text_of("s%u.%u@%s", m.number % 3, 0, domain);
    for (unsigned i = 0; i < rcpts; i++)
        m.rcpts[i].addr = text_of("m%ur%u@%s", m.number, i, to);
    return m;
}

void scene_spread(struct client_mail *m) {
    for (unsigned i = 1; i < m->n_rcpts; i += 2)
        m->rcpts[i].addr = text_of("m%ur%u@%s", m->number, i, "near.example");
}

static void scene_named(void *arg, struct ledger_mail *entry, unsigned number, bool last) {
    policy_tell(arg, entry, number, last);
}

struct client *scene_client(struct scene *s) {
    if (s->n_clients == SCENE_CLIENTS)
        abort();
    struct client *c = client_new(s->world, s->ledger);
    client_when_named(c, scene_named, s);
    return s->clients[s->n_clients++] = c;
}

struct start_client {
    struct client *c;
    const char *from;
    uint16_t port;
};

static void start_now(struct wire_world *w, void *arg) {
    struct start_client *x = arg;
    (void)w;
    client_start(x->c, x->from, x->port);
}

void scene_begin(struct scene *s, struct client *c, int64_t ms, const char *from, uint16_t port) {
    struct start_client *x = calloc(1, sizeof *x);
    if (x == NULL)
        abort();
    *x = (struct start_client){c, from, port};
    wire_at(s->world, ms + 2, start_now, x); /* the product is up by then */
}

/* ---- events ---- */

struct event {
    struct scene *s;
    enum scene_event what;
    unsigned which;
};

static const struct {
    enum wire_order order;
    enum ledger_order told;
} orders[] = {{WIRE_DELETE, ORDER_DELETE},
              {WIRE_HOLD, ORDER_HOLD},
              {WIRE_RELEASE, ORDER_RELEASE},
              {WIRE_EXPIRE, ORDER_EXPIRE}};

/* Tells the ledger what an order is about, before it is given. */
struct order_told {
    struct ledger *ledger;
    enum ledger_order order;
    unsigned number;
    const char *qid; /* NULL: all */
};

static void tell_order(void *arg, const struct wire_queued *q) {
    const struct order_told *x = arg;
    if (q->n_rcpts > 0 && (x->qid == NULL || strcmp(x->qid, q->qid) == 0))
        ledger_order(x->ledger, x->order, x->number, q->qid, q->rcpts[0]);
}

static void order_now(struct scene *s, unsigned i, const char *qid) {
    struct order_told x = {s->ledger, orders[i].told, ++s->n_orders, qid};
    wire_queue(s->world, tell_order, &x);
    wire_order(s->world, orders[i].order, qid, x.number);
}

static void order_one(struct scene *s, unsigned i, unsigned which) {
    const char *qid = ledger_qid(s->ledger, which);
    if (qid != NULL)
        order_now(s, i, qid);
}

/* Settings that say nothing of where mail goes or what is returned. */
static const char *const changes[] = {
    "smtp_pipeline_transactions = no\n",       "default_destination_concurrency_limit = 1\n",
    "smtp_connection_cache_on_demand = no\n",  "smtpd_timeout = 100s\n",
    "smtp_discard_ehlo_keywords = chunking\n", "default_destination_recipient_limit = 1\n"};

static void change_now(struct scene *s, const char *line) {
    wire_main_cf(s->world, "%s", line);
    ledger_reload(s->ledger);
    wire_reload(s->world);
}

bool scene_moves(const struct scene *s) {
    return s->road == ROAD_SINGLE || s->road == ROAD_SENDERS || s->road == ROAD_TRANSPORT ||
           s->road == ROAD_RECORD || s->road == ROAD_ACCOUNTS;
}

static void clock_now(struct scene *s, int64_t ms) {
    ledger_clock(s->ledger, ms);
    wire_clock(s->world, ms);
}

static void move_now(struct scene *s) {
    struct wire_world *w = s->world;
    if (!scene_moves(s) || s->moved_ms > 0)
        return;
    s->moved_ms = wire_now_ms(w) + 1; /* it may be the first moment, and 0 says not yet */
    if (s->road == ROAD_SENDERS)
        wire_table(w, "senders", "@alpha.example", "[10.2.0.3]");
    else if (s->road == ROAD_TRANSPORT)
        wire_table(w, "transport", "near.example", "smtp:[10.2.0.3]");
    else if (s->road == ROAD_SINGLE)
        change_now(s, "relayhost = [10.2.0.2]\n");
    else
        record_configure(s, "", "[10.2.0.1]", "newshop", HOST(0));
}

static void rename_now(struct scene *s) {
    s->login_ms = wire_now_ms(s->world);
    wire_table(s->world, "passwords", "[10.2.0.1]", "newcomer:host-Secret-9");
    ledger_secret(s->ledger, "newcomer", "host-Secret-9", HOST(0), true);
}

static void event_now(struct wire_world *w, void *arg) {
    const struct event *e = arg;
    switch (e->what) {
    case EVENT_KILL:
        wire_restart(w, WIRE_KILLED, 1000);
        break;
    case EVENT_POWER:
        wire_restart(w, WIRE_POWER, 1000);
        break;
    case EVENT_STOP:
        if (wire_restart(w, WIRE_STOPPED, 1000))
            ledger_stopping(e->s->ledger);
        break;
    case EVENT_RELOAD:
        (e->which % 2 == 0 ? wire_reload : wire_saved)(w);
        break;
    case EVENT_SAVED:
        wire_saved(w);
        break;
    case EVENT_CHANGE:
        change_now(e->s, changes[e->which % (sizeof changes / sizeof changes[0])]);
        break;
    case EVENT_MOVE:
        move_now(e->s);
        break;
    case EVENT_CLOCK:
        clock_now(e->s, e->which % 2 == 0 ? 86400000 : -86400000);
        break;
    case EVENT_LOGIN:
        rename_now(e->s);
        break;
    case EVENT_FLUSH:
        wire_order(w, WIRE_FLUSH, NULL, 0);
        break;
    case EVENT_RETRY:
        wire_order(w, WIRE_RETRY, NULL, 0);
        break;
    default:
        if (e->what >= EVENT_DELETE)
            order_one(e->s, e->what - EVENT_DELETE, e->which);
        else
            order_now(e->s, e->what - EVENT_DELETE_ALL, NULL);
        break;
    }
}

void scene_event(struct scene *s, enum scene_event what, int64_t ms, unsigned which) {
    struct event *e = calloc(1, sizeof *e);
    if (e == NULL)
        abort();
    *e = (struct event){s, what, which};
    ledger_hurries(s->ledger);
    wire_at(s->world, ms, event_now, e);
}
