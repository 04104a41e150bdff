/*
 * tests/wire/scene.c - what scenarios are made of; see scene.h
 */
#include "scene.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOST(n) (1ULL << (n))

static bool has_domain(const char *addr, const char *domain) {
    const char *at = strrchr(addr, '@');
    return at != NULL && strcmp(at + 1, domain) == 0;
}

static struct ledger_road direct_road(const char *rcpt) {
    uint64_t hosts = has_domain(rcpt, "far.example")    ? HOST(0) | HOST(1)
                     : has_domain(rcpt, "near.example") ? HOST(2)
                     : has_domain(rcpt, "none.example") ? 0
                                                        : HOST(3);
    return (struct ledger_road){.hosts = hosts};
}

/* Where mail may go: the rules of the configuration that road_configure makes, said again. */
static struct ledger_road road_of(const struct scene *s, const char *sender, const char *rcpt) {
    bool alpha = has_domain(sender, "alpha.example");
    switch (s->road) {
    case ROAD_LIST:
    case ROAD_FALLBACK:
    case ROAD_RECORD:
        return (struct ledger_road){.hosts = HOST(0) | HOST(1), .configured = true};
    case ROAD_SENDERS:
        return (struct ledger_road){.hosts = alpha ? HOST(1) : HOST(0), .configured = true};
    case ROAD_TRANSPORT:
        return (struct ledger_road){.hosts = has_domain(rcpt, "near.example") ? HOST(1) : HOST(0),
                                    .configured = true};
    case ROAD_DIRECT:
        return direct_road(rcpt);
    case ROAD_NOWHERE:
        return alpha ? (struct ledger_road){.configured = true} : direct_road(rcpt);
    case ROAD_BOTH:
        return alpha ? (struct ledger_road){.hosts = HOST(2), .configured = true}
                     : direct_road(rcpt);
    default:
        return (struct ledger_road){.hosts = HOST(0), .configured = true};
    }
}

static struct ledger_road scene_road(void *arg, const char *sender, const char *rcpt) {
    const struct scene *s = arg;
    struct ledger_road r = road_of(s, sender, rcpt);
    if (s->road == ROAD_RECORD) {
        r.user = "shop";
        r.elsewhere = s->login == LOGIN_SENDER ? NULL : "";
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
    return r;
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
    wire_dns_mx(w, "far.example", 10, names[0]);
    wire_dns_mx(w, "far.example", 20, names[1]);
    wire_dns_mx(w, "far.example", 30, "stale.far.example");
    wire_dns_mx(w, "near.example", 10, names[2]);
    wire_dns_mx(w, "alpha.example", 10, names[3]);
    wire_dns_mx(w, "beta.example", 10, names[3]);
    wire_dns_mx(w, "gamma.example", 10, names[3]);
    wire_dns_mx(w, "posthouse.test", 10, names[3]);
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
        [ROAD_RECORD] = "relayhost = provider\nsmtp_fallback_relay = [10.2.0.2]\n"};
    wire_main_cf(w, "%s", lines[s->road]);
    if (s->road == ROAD_SENDERS)
        wire_table(w, "senders", "@alpha.example", "[10.2.0.2]");
    if (s->road == ROAD_BOTH || s->road == ROAD_NOWHERE)
        wire_table(w, "senders", "@alpha.example",
                   s->road == ROAD_BOTH ? "near.example" : "none.example");
    if (s->road == ROAD_TRANSPORT)
        wire_table(w, "transport", "near.example", "smtp:[10.2.0.2]");
    if (s->road == ROAD_RECORD) {
        wire_record(w, "provider", "[10.2.0.1]", "shop", "record-Secret-1");
        ledger_secret(s->ledger, "shop", "record-Secret-1", HOST(0), true);
    }
    if (s->road != ROAD_RECORD)
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
    uint64_t hosts = s->road == ROAD_SINGLE ? HOST(0) : UINT64_MAX; /* a sender's go everywhere */
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
                 "smtp_line_length_limit = %zu\nmaximal_queue_lifetime = %llds\n"
                 "bounce_queue_lifetime = %llds\nsmtpd_tls_cert_file = /w/cert.pem\n"
                 "smtpd_tls_key_file = /w/key.pem\n",
                 line_limit, (long long)lifetime_s, (long long)lifetime_s);
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
        wire_host(s->world, addr, 25, WIRE_LISTENS, relay_peer_new, &s->hosts[i]);
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

struct client *scene_client(struct scene *s) {
    if (s->n_clients == SCENE_CLIENTS)
        abort();
    return s->clients[s->n_clients++] = client_new(s->world, s->ledger);
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
        ledger_stopping(e->s->ledger);
        wire_restart(w, WIRE_STOPPED, 1000);
        break;
    case EVENT_RELOAD:
        wire_reload(w);
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
