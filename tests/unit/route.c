/*
 * tests/unit/route.c - sender, recipient and configuration in; transport, next hop and record out
 *
 * Tables are real (inline:, regexp:, fail:, relay records in a file); the lookup process is not:
 * its answers come at once, or one turn later, or with a trace, and the route must be the same.
 */
#include "route_rig.h"

#include "accounts/relays.h"
#include "route/attempt.h"
#include "route/keys.h"
#include "route/local.h"
#include "route/nexthop.h"
#include "route/record.h"
#include "route/route.h"

/* -- what comes of a route -- */

struct outcome {
    unsigned times;
    char text[600]; /* "smtp hop class=default configured", "failed", "bad", … */
    char why[300];
    char *record;
};

static const char *status_word(enum mail_status s) {
    return s == MAIL_SENT ? "sent" : s == MAIL_BOUNCED ? "bounced" : "deferred";
}

static void on_route(void *arg, const struct route *r) {
    struct outcome *o = arg;
    const struct mailerr *refused = route_refuses(r);
    o->times++;
    snprintf(o->why, sizeof o->why, "%s", r->why.n == 0 ? "" : r->why.p);
    free(o->record);
    o->record = r->record.n == 0 ? NULL : str_dup(sbuf_str(&r->record));
    if (r->rc != ROUTE_OK)
        snprintf(o->text, sizeof o->text, "%s", r->rc == ROUTE_FAILED ? "failed" : "bad");
    else if (r->here.status != MAIL_UNSET) {
        snprintf(o->text, sizeof o->text, "%s %s %s %s", r->transport->name,
                 status_word(r->here.status), r->here.dsn, r->here.text);
        assert_true((refused == NULL) == (r->here.status == MAIL_SENT));
        assert_true(r->here.phase == PHASE_ROUTE && r->here.blame == BLAME_RECIPIENT);
    } else {
        snprintf(o->text, sizeof o->text, "%s %.*s %s%s", r->transport->name,
                 STR_FMT(sbuf_str(&r->nexthop)), route_class_name(r->address_class),
                 r->configured ? " configured" : "");
        assert_null(refused);
    }
}

static void emit(void *arg, json_t *step) {
    ++*(unsigned *)arg;
    assert_non_null(json_object_get(step, "step"));
    json_decref(step);
}

/* The outcome, which is the same however the answers come; the caller frees record. */
static struct outcome resolve(struct config *c, const char *sender, const char *rcpt) {
    struct outcome first = {0};
    for (int way = 0; way < 3; way++) {
        struct lookup k = {.how = way == 0 ? ANSWERS_NOW : ANSWERS_LATER};
        struct outcome o = {0};
        unsigned steps = 0;
        struct trace t = {emit, &steps};
        route_resolve(c, &k, str_of(sender), str_of(rcpt), way == 2 ? &t : NULL, on_route, &o);
        assert_int_equal(o.times, 0); /* never before it returns */
        while (turn(&k))
            ;
        assert_int_equal(o.times, 1);
        assert_true(way != 2 || steps > 0);
        if (way == 0) {
            first = o;
            continue;
        }
        if (strcmp(first.text, o.text) != 0 || strcmp(first.why, o.why) != 0)
            fail_msg("%s to %s: %s, then %s", sender, rcpt, first.text, o.text);
        free(o.record);
    }
    return first;
}

/* -- the table -- */

#define SDR   "sender_dependent_relayhost_maps = "
#define SDT   "sender_dependent_default_transport_maps = "
#define TM    "transport_maps = "
#define HOST  "relayhost = [all.test]\n"
#define WHERE "smtp [all.test] default configured"

static const struct {
    const char *main, *sender, *rcpt, *want;
    const char *why; /* a part of it; NULL: not looked at */
} roads[] = {
    /* classes (ADDRESS_CLASS_README) */
    {"", "a@x.test", "b@y.test", "smtp y.test default", NULL},
    {"", "a@x.test", "b@ours.test", "relay ours.test relay", NULL},
    {"", "a@x.test", "b@sub.ours.test", "relay sub.ours.test relay", NULL},
    {"parent_domain_matches_subdomains =", "a@x.test", "b@sub.ours.test",
     "smtp sub.ours.test default", NULL},
    {"local_transport = smtp:[own.test]", "a@x.test", "b@mta.example",
     "smtp [own.test] local configured", NULL},
    {"local_transport = smtp", "", "", "smtp mta.example local", NULL}, /* a report to nobody */
    {"empty_address_recipient = z@ours.test", "", "", "relay ours.test relay", NULL},
    {"", "a@x.test", "b@mta.example", "local mta.example local configured", NULL}, /* aliases */
    {"local_transport = virtual", "a@x.test", "b@mta.example", "bad", "mail transport unavailable"},
    {"virtual_alias_domains = y.test", "a@x.test", "b@y.test",
     "error bounced 5.1.1 User unknown in virtual alias table", NULL},
    {"virtual_mailbox_domains = y.test\nvirtual_transport = smtp:[v.test]:26", "a@x.test",
     "b@Y.test", "smtp [v.test]:26 virtual mailbox configured", NULL},
    {"relay_domains = fail:x", "a@x.test", "b@y.test", "failed", "relay_domains lookup failure"},
    {"mydestination = fail:x", "a@x.test", "b@y.test", "failed", "mydestination"},
    /* relay hosts: of all, of the sender */
    {HOST, "a@x.test", "b@y.test", WHERE, "relayhost"},
    {HOST, "a@x.test", "b@ours.test", "relay [all.test] relay configured", NULL},
    {HOST "local_transport = smtp", "a@x.test", "b@mta.example", "smtp mta.example local", NULL},
    {HOST SDR "inline:{a@x.test=[a.test],@x.test=[x.test]}", "a@x.test", "b@y.test",
     "smtp [a.test] default configured", "sender_dependent_relayhost_maps"},
    {HOST SDR "inline:{a@x.test=[a.test],@x.test=[x.test]}", "c@x.test", "b@y.test",
     "smtp [x.test] default configured", NULL},
    {HOST SDR "inline:{a@x.test=[a.test],@x.test=[x.test]}", "a@z.test", "b@y.test", WHERE, NULL},
    {HOST SDR "inline:{a@x.test=DUNNO,@x.test=[x.test]}", "a@x.test", "b@y.test", WHERE, NULL},
    {HOST SDR "inline:{{a@x.test = },@x.test=[x.test]}", "a@x.test", "b@y.test", "failed", NULL},
    {SDR "inline:{a@x.test=dunno}", "a@x.test", "b@y.test", "smtp y.test default", NULL},
    {SDR "inline:{a@x.test=smtp:[pre.test]:26}", "a@x.test", "b@y.test",
     "smtp [pre.test]:26 default configured", NULL},
    {HOST SDR "fail:x", "a@x.test", "b@y.test", "failed", "sender_dependent_relayhost_maps"},
    {HOST SDR "inline:{@x.test=[x.test]}, fail:x", "a@x.test", "b@y.test", "failed", NULL},
    {HOST SDR "inline:{a@x.test=[a.test]}, fail:x", "a@x.test", "b@y.test",
     "smtp [a.test] default configured", NULL},
    {HOST SDR "inline:{<>=[null.test]}", "", "b@y.test", "smtp [null.test] default configured",
     NULL},
    {HOST SDR "inline:{@x.test=[x.test]}", "", "b@y.test", WHERE, NULL},
    {HOST "recipient_delimiter = +\n" SDR "inline:{a@x.test=[a.test],@x.test=[x.test]}",
     "a+tag@x.test", "b@y.test", "smtp [a.test] default configured", NULL},
    {HOST SDR "inline:{a@x.test=[a.test],@x.test=[x.test]}", "a+tag@x.test", "b@y.test",
     "smtp [x.test] default configured", NULL},
    {HOST SDR "inline:{a=[own.test]}", "a@mta.example", "b@y.test",
     "smtp [own.test] default configured", NULL},
    {HOST SDR "inline:{a=[own.test]}", "a@x.test", "b@y.test", WHERE, NULL},
    {HOST SDR "static:[bad.test", "a@x.test", "b@y.test", "bad", "missing ']'"},
    /* transports by sender: for the default class alone */
    {SDT "inline:{@x.test=smtp:[t.test]}", "a@x.test", "b@y.test",
     "smtp [t.test] default configured", NULL},
    {SDT "inline:{@x.test=relay}", "a@x.test", "b@y.test", "relay y.test default", NULL},
    {SDT "inline:{@x.test=relay:}"
         "\n" HOST,
     "a@x.test", "b@y.test", "relay [all.test] default configured", NULL},
    {SDT "inline:{@x.test=smtp:[t.test]}", "a@x.test", "b@ours.test", "relay ours.test relay",
     NULL},
    {SDT "inline:{@x.test=DUNNO}", "a@x.test", "b@y.test", "smtp y.test default", NULL},
    {SDT "fail:x", "a@x.test", "b@y.test", "failed", "sender_dependent_default_transport_maps"},
    {HOST SDR "static:[s.test]\n" SDT "static:smtp:[t.test]", "a@x.test", "b@y.test",
     "smtp [t.test] default configured", NULL},
    {SDR "fail:x\n" SDT "static:smtp:[t.test]", "a@x.test", "b@y.test", "failed", NULL},
    /* transport(5) */
    {HOST TM "inline:{b@y.test=smtp:[one.test],y.test=smtp:[two.test]}", "a@x.test", "b@y.test",
     "smtp [one.test] default configured", "transport_maps"},
    {HOST TM "inline:{b@y.test=smtp:[one.test],y.test=smtp:[two.test]}", "a@x.test", "c@y.test",
     "smtp [two.test] default configured", NULL},
    {HOST TM "inline:{.test=smtp:[top.test]}", "a@x.test", "c@deep.y.test",
     "smtp [top.test] default configured", NULL},
    {HOST TM "inline:{y.test=smtp:[two.test]}", "a@x.test", "c@deep.y.test", WHERE, NULL},
    {HOST "parent_domain_matches_subdomains = transport_maps\n" TM
          "inline:{y.test=smtp:[two.test]}",
     "a@x.test", "c@deep.y.test", "smtp [two.test] default configured", NULL},
    {HOST TM "inline:{*=smtp:[any.test]}", "a@x.test", "c@y.test",
     "smtp [any.test] default configured", NULL},
    {HOST "recipient_delimiter = -\n" TM "inline:{c@y.test=smtp:[bare.test]}", "a@x.test",
     "c-tag@y.test", "smtp [bare.test] default configured", NULL},
    {HOST TM "inline:{y.test=:}", "a@x.test", "c@y.test", WHERE, "transport_maps"},
    {HOST TM "inline:{y.test=:[hop.test]}", "a@x.test", "c@y.test",
     "smtp [hop.test] default configured", NULL},
    {HOST TM "inline:{y.test=relay:}", "a@x.test", "c@y.test", "relay y.test default", NULL},
    {HOST TM "inline:{y.test=relay}", "a@x.test", "c@y.test", "relay y.test default", NULL},
    {HOST TM "inline:{y.test=lmtp:unix:/x}", "a@x.test", "c@y.test",
     "lmtp unix:/x default configured", "transport_maps"},
    {HOST TM "inline:{y.test=lmtp:unix:}", "a@x.test", "c@y.test", "bad", "no path after"},
    {HOST TM "inline:{y.test=lmtp:inet:[a.test}", "a@x.test", "c@y.test", "bad", "missing ']'"},
    {HOST TM "inline:{y.test=lmtp:}", "a@x.test", "c@y.test", "lmtp y.test default", NULL},
    {HOST TM "inline:{y.test=nowhere:}", "a@x.test", "c@y.test", "bad", "nowhere is not a"},
    {HOST TM "inline:{y.test=smtp:[h]:x}", "a@x.test", "c@y.test", "bad", "transport_maps"},
    {HOST TM "fail:x", "a@x.test", "b@y.test", "failed", "transport_maps lookup failure"},
    {"virtual_alias_domains = y.test\n" TM "fail:x", "a@x.test", "b@y.test",
     "error bounced 5.1.1 User unknown in virtual alias table", NULL},
    {HOST TM "regexp:{DIR/re}", "a@x.test", "c@deep.y.test", WHERE, NULL},
    {HOST TM "regexp:{DIR/re}", "a@x.test", "whole@y.test", "smtp [re.test] default configured",
     NULL},
    /* what becomes of a recipient here */
    {TM "inline:{y.test=discard:}", "a@x.test", "c@y.test", "discard sent 2.0.0 y.test", NULL},
    {TM "inline:{y.test=discard:quietly}", "a@x.test", "c@y.test", "discard sent 2.0.0 quietly",
     NULL},
    {TM "inline:{{y.test=error:5.7.1 not here}}", "a@x.test", "c@y.test",
     "error bounced 5.7.1 not here", NULL},
    {TM "inline:{{y.test=error:4.7.1 later}}", "a@x.test", "c@y.test", "error deferred 4.7.1 later",
     NULL},
    {TM "inline:{{y.test=error:no code}}", "a@x.test", "c@y.test", "error bounced 5.0.0 no code",
     NULL},
    {TM "inline:{{y.test=error:4.0.0001 is no code}}", "a@x.test", "c@y.test",
     "error bounced 5.0.0 4.0.0001 is no code", NULL},
    {TM "inline:{{y.test=error:5.0.0.9 is no code}}", "a@x.test", "c@y.test",
     "error bounced 5.0.0 5.0.0.9 is no code", NULL},
    {TM "inline:{{y.test=error:5.7.1}}", "a@x.test", "c@y.test",
     "error bounced 5.7.1 Address is undeliverable", NULL},
    {TM "inline:{y.test=error:}", "a@x.test", "c@y.test",
     "error bounced 5.0.0 Address is undeliverable", NULL},
    {TM "inline:{y.test=retry:}", "a@x.test", "c@y.test",
     "retry deferred 4.0.0 Address is undeliverable", NULL},
    {TM "inline:{{y.test=retry:5.7.1 soon}}", "a@x.test", "c@y.test", "retry deferred 4.7.1 soon",
     NULL},
    {"", "a@x.test", "nodomain", "bad", "no next hop"},
    /* internationalised domains: A-labels, or an error that names them */
    {"", "a@x.test", "b@W\u00e4lder.test", "smtp xn--wlder-gra.test default", NULL},
    {"enable_idna2003_compatibility = yes", "a@x.test", "b@gro\u00df.test",
     "smtp gross.test default", NULL},
    {"", "a@x.test", "b@gro\u00df.test", "smtp xn--gro-7ka.test default", NULL},
    {"relayhost = [w\u00e4lder.test]:26, w\u00e4ld.test", "a@x.test", "b@y.test",
     "smtp [xn--wlder-gra.test]:26, xn--wld-qla.test default configured", NULL},
    {"", "a@x.test", "b@w\u00e4..test",
     "smtp bounced 5.1.2 bad domain name w\u00e4..test: it has a character that no host name has",
     NULL},
    {"", "a@x.test", "b@\xe4.test",
     "smtp bounced 5.1.2 bad domain name \xe4.test: string encoding error", NULL},
    {TM "inline:{y.test=smtp:[w\u00e4\uff0fx.test]}", "a@x.test", "b@y.test", "bad",
     "no internationalised domain name"},
    {TM "inline:{xn--wlder-gra.test=smtp:[one.test]}", "a@x.test", "b@w\u00e4lder.test",
     "smtp [one.test] default configured", NULL},
    {TM "inline:{.w\u00e4lder.test=smtp:[one.test],.test=smtp:[two.test]}", "a@x.test",
     "b@sub.xn--wlder-gra.test", "smtp [one.test] default configured", NULL},
    {HOST SDR "inline:{@w\u00e4lder.test=[one.test]}", "a@xn--wlder-gra.test", "b@y.test",
     "smtp [one.test] default configured", NULL},
};

static void test_roads(void **state) {
    (void)state;
    char re[100], main[1000];
    snprintf(re, sizeof re, "%s/re", dir);
    file_write("re",
               "/^whole@/ smtp:[re.test]\n/^[.]?test$/ discard:part\n/^y.test$/ discard:part\n");
    for (size_t i = 0; i < sizeof roads / sizeof roads[0]; i++) {
        const char *at = strstr(roads[i].main, "{DIR/re}");
        snprintf(main, sizeof main, "%.*s%s", at == NULL ? 900 : (int)(at - roads[i].main),
                 roads[i].main, at == NULL ? "" : re);
        struct config *c = configure(main);
        struct outcome o = resolve(c, roads[i].sender, roads[i].rcpt);
        if (strcmp(o.text, roads[i].want) != 0 ||
            (roads[i].why != NULL && strstr(o.why, roads[i].why) == NULL))
            fail_msg("%s: %s to %s: %s (%s)", main, roads[i].sender, roads[i].rcpt, o.text, o.why);
        assert_null(o.record);
        config_unref(c);
    }
}

/* -- relay records -- */

static void refuse_a_long_password(struct relays *r) {
    char password[4098], *why = NULL;
    memset(password, 'x', sizeof password);
    password[4097] = '\0';
    struct relay_fields f = {.name = "long",
                             .hosts = "[a.test]:587",
                             .tls = "encrypt",
                             .mechanisms = "",
                             .user = "u",
                             .password = password};
    assert_int_equal(relays_set(r, &f, NULL, &why), RELAYS_BAD);
    assert_string_equal(why, "\"u\": a password has at most 4,096 bytes");
    free(why);
}

static void records_make(void) {
    static const struct relay_fields fields[] = {
        {.name = "office",
         .nexthop = "office",
         .users = "everybody",
         .hosts = "[a.test]:587, [b.test]"},
        {.name = "anns", .nexthop = "office", .users = "ann@x.test", .hosts = "[ann.test]:587"},
        {.name = "xs", .nexthop = "office", .users = "@x.test", .hosts = "[x.test]:587"},
        {.name = "one",
         .nexthop = "[one.test]:587",
         .users = "everybody",
         .hosts = "[one.test]:587"},
        {.name = "Ours", .hosts = "[ours.test]:587"},
        {.name = "Shop",
         .hosts = "[shop.test]:587",
         .users = "ann@x.test, @W.test, bob@v.test, <>"},
        {.name = "both", .hosts = "[both.test]:587", .users = "Main.cf, @let.test"},
    };
    char db[100], key[100], *why = NULL;
    bool made;
    snprintf(db, sizeof db, "%s/data/relays.db", dir);
    snprintf(key, sizeof key, "%s/relays.key", dir);
    struct relays *r = relays_open(db, key, true, &made, &why);
    assert_non_null(r);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        struct relay_fields f = fields[i];
        f.tls = "encrypt";
        f.mechanisms = "";
        f.user = "u";
        f.password = "sesame";
        if (relays_set(r, &f, NULL, &why) != RELAYS_DONE)
            fail_msg("%s", why);
    }
    refuse_a_long_password(r);
    relays_close(r);
}

static const struct {
    const char *main, *sender, *rcpt, *want, *record;
} recorded[] = {
    {"relayhost = office", "a@z.test", "b@y.test", "smtp [a.test]:587, [b.test] default configured",
     "office"},
    {"relayhost = OFFICE", "a@z.test", "b@y.test", "smtp [a.test]:587, [b.test] default configured",
     "office"},
    {"relayhost = office", "", "b@y.test", "smtp [a.test]:587, [b.test] default configured",
     "office"},
    {"relayhost = office", "ann@x.test", "b@y.test", "smtp [ann.test]:587 default configured",
     "anns"},
    {"relayhost = office", "bob@x.test", "b@y.test", "smtp [x.test]:587 default configured", "xs"},
    {"relayhost = office\nrecipient_delimiter = +", "ann+t@x.test", "b@y.test",
     "smtp [ann.test]:587 default configured", "anns"},
    {"relayhost = [one.test]:587", "a@z.test", "b@y.test", "smtp [one.test]:587 default configured",
     "one"},
    {"relayhost = [one.test]", "a@z.test", "b@y.test", "smtp [one.test] default configured", NULL},
    {TM "static:smtp:office", "a@z.test", "b@y.test",
     "smtp [a.test]:587, [b.test] default configured", "office"},
    /* an account that is for nobody by name: for what main.cf and its files name */
    {"relayhost = ours", "a@z.test", "b@y.test", "smtp [ours.test]:587 default configured", "Ours"},
    {"relayhost = [ours.test]:587", "", "b@y.test", "smtp [ours.test]:587 default configured",
     "Ours"},
    {"default_transport = smtp:ours", "a@z.test", "b@y.test",
     "smtp [ours.test]:587 default configured", "Ours"},
    {SDR "static:ours", "a@z.test", "b@y.test", "smtp [ours.test]:587 default configured", "Ours"},
    {TM "static:smtp:ours", "a@z.test", "b@y.test", "smtp [ours.test]:587 default configured",
     "Ours"},
    /* one that is for some */
    {"relayhost = shop", "ann@x.test", "b@y.test", "smtp [shop.test]:587 default configured",
     "Shop"},
    {"relayhost = SHOP", "bob@w.test", "b@y.test", "smtp [shop.test]:587 default configured",
     "Shop"},
    {"relayhost = shop", "", "b@y.test", "smtp [shop.test]:587 default configured", "Shop"},
    {"relayhost = [shop.test]:587", "bob@x.test", "b@y.test",
     "smtp [shop.test]:587 default configured", NULL},
    /* one that is for some, and for what main.cf names */
    {"relayhost = [both.test]:587", "a@z.test", "b@y.test",
     "smtp [both.test]:587 default configured", "both"},
    {"relayhost = both", "", "b@y.test", "smtp [both.test]:587 default configured", "both"},
    {"relayhost = both", "a@let.test", "b@y.test", "smtp [both.test]:587 default configured",
     "both"},
    /* a recipient's domain is no next hop that an administrator chose */
    {"", "a@z.test", "b@office", "smtp office default", NULL},
    {"relayhost = office\n" TM "inline:{office=relay:}", "a@z.test", "b@office",
     "relay office default", NULL},
};

static void test_records(void **state) {
    (void)state;
    records_make();
    for (size_t i = 0; i < sizeof recorded / sizeof recorded[0]; i++) {
        struct config *c = configure(recorded[i].main);
        struct outcome o = resolve(c, recorded[i].sender, recorded[i].rcpt);
        struct record rec = {0};
        bool has = o.record != NULL && record_parse(&rec, str_of(o.record));
        if (strcmp(o.text, recorded[i].want) != 0 || has != (recorded[i].record != NULL) ||
            (has && strcmp(rec.name, recorded[i].record) != 0))
            fail_msg("%s: %s to %s: %s, record %s", recorded[i].main, recorded[i].sender,
                     recorded[i].rcpt, o.text, has ? rec.name : "none");
        assert_true(o.record == NULL || strstr(o.record, "sesame") == NULL);
        record_free(&rec);
        free(o.record);
        config_unref(c);
    }
}

/* What a database says, which may be of one of many customers: its next hop takes nobody's account
 * but the sender's own.  NULL: no record, main.cf's own settings. */
static const struct {
    const char *answer, *sender, *record, *want;
} named_by_tenants[] = {
    {"[free.test]:587", "a@z.test", NULL, "smtp [free.test]:587 default configured"},
    {"office", "a@z.test", "office", "smtp [a.test]:587, [b.test] default configured"},
    {"Shop", "ann@x.test", "Shop", "smtp [shop.test]:587 default configured"},
    {"[SHOP.test]:587", "Bob@W.Test", "Shop", "smtp [shop.test]:587 default configured"},
    {"shop", "", "Shop", "smtp [shop.test]:587 default configured"},
    {"shop", "bob@x.test", NULL, "bad"},
    {"SHOP", "-@mta.example", NULL, "bad"},
    {"sHop", "\"ann@x.test,\"@z.test", NULL, "bad"},
    {"shop", "ann@x.test.z.test", NULL, "bad"},
    {"shop", "@w.test,bob@v.test", NULL, "bad"},
    {"shop", "ann@x.test,@w.test,bob@v.test", NULL, "bad"},
    {"ours", "a@z.test", NULL, "bad"},
    {"OURS", "-@mta.example", NULL, "bad"},
    {"[ours.test]:587", "a@z.test", NULL, "bad"},
    {"[OURS.test]:587", "", NULL, "bad"},
    {"[shop.test]:587", "bob@x.test", NULL, "smtp [shop.test]:587 default configured"},
    {"both", "a@let.test", "both", "smtp [both.test]:587 default configured"},
    {"both", "a@z.test", NULL, "bad"},
    {"[both.test]:587", "main.cf@z.test", NULL, "bad"},
    {"[both.test]:587", "\"main.cf\"", NULL, "bad"},
};

static void test_records_of_others(void **state) {
    (void)state;
    records_make();
    for (size_t i = 0; i < sizeof named_by_tenants / sizeof named_by_tenants[0]; i++)
        for (int way = 0; way < 3; way++) {
            char conf[300], line[200];
            snprintf(conf, sizeof conf, "dbpath = %s/data/relays.db\nquery = SELECT '%s%s'\n", dir,
                     way == 0 ? "" : "smtp:", named_by_tenants[i].answer);
            file_write("tenants.cf", conf);
            snprintf(line, sizeof line, "%ssqlite:%s/tenants.cf",
                     way == 0   ? SDR
                     : way == 1 ? TM
                                : SDT,
                     dir);
            struct config *c = configure(line);
            struct outcome o = resolve(c, named_by_tenants[i].sender, "b@y.test");
            struct record rec = {0};
            bool has = o.record != NULL && record_parse(&rec, str_of(o.record));
            const char *want = named_by_tenants[i].record;
            if (strncmp(o.text, named_by_tenants[i].want, strlen(named_by_tenants[i].want)) != 0 ||
                has != (want != NULL) || (has && strcmp(rec.name, want) != 0))
                fail_msg("%s: %s: %s, record %s", line, named_by_tenants[i].answer, o.text,
                         has ? rec.name : "none");
            record_free(&rec);
            free(o.record);
            config_unref(c);
        }
}

/* The file of the records is broken, gone, or says what is no record: mail waits. */
static void test_records_that_cannot_be_asked(void **state) {
    (void)state;
    char db[100];
    snprintf(db, sizeof db, "%s/data/relays.db", dir);
    for (int what = 0; what < 3; what++) {
        records_make();
        struct config *c = configure("relayhost = office");
        if (what == 0)
            file_write("data/relays.db", "no database, and long enough not to be taken for one");
        if (what == 1) {
            config_unref(c);
            remove(db);
            c = configure("relayhost = office");
            assert_true(c->relays_gone);
        }
        if (what == 2)
            c->relays_spec = "static:{not JSON}";
        struct outcome o = resolve(c, "a@z.test", "b@y.test");
        if (strcmp(o.text, "failed") != 0)
            fail_msg("%d: %s", what, o.text);
        assert_string_equal(o.why, "relay record lookup failure");
        struct outcome direct = resolve(c, "a@z.test", "b@ours.test");
        assert_string_equal(direct.text, "failed"); /* the relay host is that class's too */
        config_unref(c);
        c = configure("");
        struct outcome unconfigured = resolve(c, "a@z.test", "b@y.test");
        assert_string_equal(unconfigured.text, "smtp y.test default");
        config_unref(c);
        remove(db);
        snprintf(db, sizeof db, "%s/relays.key", dir);
        remove(db);
        snprintf(db, sizeof db, "%s/data/relays.db", dir);
    }
    struct config *c = configure("relayhost = [one.test]"); /* never made, or taken away whole */
    assert_string_equal(c->relays_spec, "");
    config_unref(c);
}

static void test_record_texts(void **state) {
    static const char *const bad[] = {"", "{}", "[]", "{\"id\": \"1\"}", "{\"id\": 1}", "x"};
    struct record r;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(record_parse(&r, str_of(bad[i])));
        record_free(&r);
    }
    assert_true(
        record_parse(&r, str_of("{\"id\":\"7\",\"name\":\"n\",\"hosts\":\"h\",\"tls\":\"may\","
                                "\"mechanisms\":\"\",\"user\":\"u\",\"account\":\"\"}")));
    assert_string_equal(r.id, "7");
    record_free(&r);
}

/* -- past every rule, and broken off -- */

static void test_via(void **state) {
    (void)state;
    struct config *c = configure(HOST TM "fail:x");
    struct lookup k = {.how = ANSWERS_LATER};
    struct outcome o = {0};
    route_resolve_via(c, &k, str_of("[via.test]:26"), str_of("a@x.test"), str_of("b@y.test"), NULL,
                      on_route, &o);
    while (turn(&k))
        ;
    assert_string_equal(o.text, "smtp [via.test]:26 default configured");
    route_resolve_via(c, &k, str_of("[via"), str_of(""), str_of("b@y.test"), NULL, on_route, &o);
    while (turn(&k))
        ;
    assert_string_equal(o.text, "bad");
    config_unref(c);
}

/* Cancelled after any number of answers: nothing is called back, and the question that is open is
 * cancelled with it. */
static void test_cancelled(void **state) {
    (void)state;
    struct config *c = configure(HOST SDR "inline:{@x.test=[x.test]}\n" SDT
                                          "inline:{@x.test=relay}\n" TM "inline:{y.test=:}\n");
    bool whole = false;
    unsigned cancelled = 0;
    for (unsigned answers = 0; !whole; answers++) {
        struct lookup k = {.how = ANSWERS_LATER};
        struct outcome o = {0};
        struct route_query *q =
            route_resolve(c, &k, str_of("a@x.test"), str_of("b@y.test"), NULL, on_route, &o);
        for (unsigned i = 0; i < answers && o.times == 0; i++)
            turn(&k);
        whole = o.times > 0;
        if (!whole)
            route_cancel(q);
        cancelled += k.cancelled;
        assert_true(whole || k.cancelled == 1);
        assert_int_equal(turn(&k), false);
        assert_int_equal(o.times, whole);
    }
    assert_int_equal(cancelled, 8); /* four classes, the sender's domain, three tables */
    struct lookup k = {.how = ANSWERS_NOW};
    struct outcome o = {0};
    route_cancel(route_resolve(c, &k, str_of("a@x.test"), str_of("b@y.test"), NULL, on_route, &o));
    assert_true(turn(&k)); /* it was to be given already */
    assert_int_equal(o.times, 0);
    route_cancel(NULL);
    config_unref(c);
}

/* -- keys -- */

static void test_keys(void **state) {
    static const struct {
        const char *main;
        bool rcpt;
        const char *address, *want;
    } cases[] = {
        {"", false, "Ann@x.test", "Ann@x.test\n@x.test (partial)\n"},
        {"recipient_delimiter = +-", false, "ann-b+c@x.test",
         "ann-b+c@x.test\nann@x.test (partial)\n@x.test (partial)\n"},
        {"recipient_delimiter = +-", false, "owner-list@x.test",
         "owner-list@x.test\n@x.test (partial)\n"},
        {"recipient_delimiter = -", true, "list-request@y.test",
         "list-request@y.test\ny.test (partial)\n.test (partial)\n*\n"},
        {"recipient_delimiter = -\nowner_request_special = no", true, "list-request@y.test",
         "list-request@y.test\nlist@y.test (partial)\ny.test (partial)\n.test (partial)\n*\n"},
        {"recipient_delimiter = -", false, "MAILER-DAEMON@x.test",
         "MAILER-DAEMON@x.test\n@x.test (partial)\n"},
        {"", false, "ann@mta.example", "ann@mta.example\nann (partial)\n@mta.example (partial)\n"},
        {"recipient_delimiter = +", false, "ann+b@mta.example",
         "ann+b@mta.example\nann@mta.example (partial)\nann+b (partial)\nann (partial)\n"
         "@mta.example (partial)\n"},
        {"mydestination = other.test", false, "ann@Other.test",
         "ann@Other.test\nann (partial)\n@Other.test (partial)\n"},
        {"", false, "a b@x.test", "\"a b\"@x.test\na b@x.test\n@x.test (partial)\n"},
        {"", false, "o@wn@mta.example",
         "\"o@wn\"@mta.example\no@wn@mta.example\n@mta.example (partial)\n"},
        {"", false, "alone", "alone\n"},
        {"", false, "", ""},
        {"", true, "b@deep.y.test",
         "b@deep.y.test\ndeep.y.test (partial)\n.y.test (partial)\n.test (partial)\n*\n"},
        {"parent_domain_matches_subdomains = transport_maps", true, "b@y.test",
         "b@y.test\ny.test (partial)\ntest (partial)\n*\n"},
        {"recipient_delimiter = +", true, "b+c@y.test",
         "b+c@y.test\nb@y.test (partial)\ny.test (partial)\n.test (partial)\n*\n"},
        {"recipient_delimiter = +", true, "b+c@a.\u00f6.test",
         "b+c@a.\u00f6.test\nb+c@a.xn--nda.test\nb@a.\u00f6.test (partial)\n"
         "b@a.xn--nda.test (partial)\na.\u00f6.test (partial)\na.xn--nda.test (partial)\n"
         ".\u00f6.test (partial)\n.xn--nda.test (partial)\n.test (partial)\n*\n"},
        {"", false, "a b@xn--nda.test",
         "\"a b\"@xn--nda.test\n\"a b\"@\u00f6.test\na b@xn--nda.test\na b@\u00f6.test\n"
         "@xn--nda.test (partial)\n@\u00f6.test (partial)\n"},
        /* neither spelling is the one that people write */
        {"", false, "a@o\u0308.test",
         "a@o\u0308.test\na@xn--nda.test\na@\u00f6.test\n@o\u0308.test (partial)\n"
         "@xn--nda.test (partial)\n@\u00f6.test (partial)\n"},
        {"", true, "b@\uff59.o\u0308.test",
         "b@\uff59.o\u0308.test\nb@y.xn--nda.test\nb@y.\u00f6.test\n"
         "\uff59.o\u0308.test (partial)\ny.xn--nda.test (partial)\ny.\u00f6.test (partial)\n"
         ".o\u0308.test (partial)\n.xn--nda.test (partial)\n.\u00f6.test (partial)\n"
         ".test (partial)\n*\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct config *c = configure(cases[i].main);
        struct keys k = {.n = 0};
        struct sbuf got = {0};
        struct str address = str_of(cases[i].address);
        struct lookup lookup = {.how = ANSWERS_NOW};
        enum match_rc local;
        assert_int_equal(local_sender_now(&lookup, "smtp", c, &c->p, address, &local, NULL, NULL),
                         0);
        (cases[i].rcpt        ? keys_recipient
         : local == MATCH_YES ? keys_local_sender
                              : keys_sender)(&k, &c->p, address);
        for (size_t j = 0; j < k.n; j++)
            sbuf_printf(&got, "%.*s%s\n", STR_FMT(k.v[j].key), k.v[j].partial ? " (partial)" : "");
        if (!str_eq_c(sbuf_str(&got), cases[i].want))
            fail_msg("%s: %s", cases[i].address, got.n > 0 ? got.p : "nothing");
        sbuf_free(&got);
        keys_clear(&k);
        config_unref(c);
    }
}

/* A set takes KEYS_MAX keys and no more; a domain of RFC 1035's 128 labels fits. */
static void test_keys_are_bounded(void **state) {
    struct keys k = {.n = 0};
    struct sbuf address = {0};
    struct config *c = configure("");
    (void)state;
    for (int i = 0; i < 128; i++)
        sbuf_printf(&address, i == 0 ? "b@a" : ".%c", 'a' + i % 26);
    keys_recipient(&k, &c->p, sbuf_str(&address));
    assert_int_equal(k.n, 1 + 128 + 1);
    assert_true(str_eq_c(k.v[k.n - 1].key, "*"));
    for (int i = 0; i < 100; i++) {
        char name[20];
        snprintf(name, sizeof name, "key %d", i);
        keys_add(&k, false, "", str_of(name), STR_NONE);
    }
    assert_int_equal(k.n, KEYS_MAX);
    keys_clear(&k);
    sbuf_reset(&address); /* in two spellings */
    for (int i = 0; i < 127; i++)
        sbuf_printf(&address, i == 0 ? "b@xn--nda" : ".%c", 'a' + i % 26);
    keys_recipient(&k, &c->p, sbuf_str(&address));
    assert_in_range(k.n, 1 + 127 + 2, KEYS_MAX - 1);
    assert_true(str_eq_c(k.v[k.n - 1].key, "*"));
    keys_clear(&k);
    assert_int_equal(k.n, 0);
    assert_true(keys_has_word("a, b\tc", "b") && !keys_has_word("ab, bc", "b"));
    sbuf_free(&address);
    config_unref(c);
}

static void test_attempt(void **state) {
    struct attempt *a = MEM_NEW(struct attempt);
    (void)state;
    a->n = 1;
    a->res = mem_alloc(sizeof *a->res);
    a->res[0] = (struct mailerr){.status = MAIL_UNSET};
    mailerr_set(&a->res[0], MAIL_DEFERRED, "4.0.0", "later");
    attempt_set_relay(a, "host[127.0.0.1]:25");
    assert_string_equal(a->relay, "host[127.0.0.1]:25");
    attempt_free(a);
}

/* -- next hops as they are written -- */

static void test_next_hops(void **state) {
    static const struct {
        const char *text, *host; /* host NULL: it cannot be used, and why */
        uint16_t port;
        const char *why;
    } rows[] = {
        {"a.example", "a.example", 7, NULL},
        {"a.example:26", "a.example", 26, NULL},
        {"[a.example]", "a.example", 7, NULL},
        {"[a.example]:submission", "a.example", 587, NULL},
        {"[a.example]:SMTPS", "a.example", 465, NULL},
        {"[192.0.2.1]:65535", "192.0.2.1", 65535, NULL},
        {"[2001:db8::1]:lmtp", "2001:db8::1", 24, NULL},
        {"[IPv6:2001:db8::1]:25", "2001:db8::1", 25, NULL},
        {"smtp:25", "smtp", 25, NULL},
        {"", NULL, 0, "no host name or address"},
        {"[]", NULL, 0, "no host name or address"},
        {"[ipv6:]:25", NULL, 0, "no host name or address"},
        {":25", NULL, 0, "no host name or address"},
        {"[a.example", NULL, 0, "missing ']'"},
        {"[a.example]25", NULL, 0, "garbage after ']'"},
        {"[a.example]:", NULL, 0, "no port after ':'"},
        {"a.example:", NULL, 0, "no port after ':'"},
        {"a.example:0", NULL, 0, "bad port or unknown service"},
        {"[a.example]:65536", NULL, 0, "bad port or unknown service"},
        {"[a.example]:mail", NULL, 0, "bad port or unknown service"},
        {"[a.example.]:587", NULL, 0, "a host name has no dot at its end"},
        {"a.example.", NULL, 0, "a host name has no dot at its end"},
        {"[IPv6:2001:db8::1.]:25", NULL, 0, "a host name has no dot at its end"},
        {"[a_b c]", NULL, 0, "valid hostname or network address required"},
        {"[k\u00f6ln..example]", NULL, 0, "it is no internationalised domain name"},
        {"relay:[a.example]", NULL, 0,
         "a transport name does not belong in a next hop: write only [host]:port"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct nexthop n;
        const char *why = nexthop_parse(&n, str_of(rows[i].text), 7);
        bool same = (why == NULL) == (rows[i].why == NULL) &&
                    (why == NULL ? str_eq_c(n.host, rows[i].host) && n.port == rows[i].port
                                 : strcmp(why, rows[i].why) == 0);
        if (!same)
            fail_msg("%s: %s", rows[i].text, why == NULL ? "it can be used" : why);
    }
}

/* Of a transport by LMTP: a path, or a host, and the name by which its credentials are known. */
static void test_next_hops_by_lmtp(void **state) {
    static const struct {
        const char *text, *host, *dest; /* host NULL: it cannot be used */
        uint16_t port;
        bool local;
    } rows[] = {
        {"unix:/run/lmtp", "/run/lmtp", "/run/lmtp", 0, true},
        {"UNIX:private/lmtp", "private/lmtp", "private/lmtp", 0, true},
        {"inet:[a.example]:26", "a.example", "[a.example]:26", 26, false},
        {"inet:a.example", "a.example", "a.example", 24, false},
        {"a.example:smtp", "a.example", "a.example:smtp", 25, false},
        {"inet:[2001:db8::1]", "2001:db8::1", "[2001:db8::1]", 24, false},
        {"unix:", NULL, NULL, 0, true},
        {"inet:", NULL, NULL, 0, false},
        {"inet:a.example:", NULL, NULL, 0, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct nexthop n;
        const char *why = nexthop_parse_lmtp(&n, str_of(rows[i].text), 24);
        bool same = (why == NULL) == (rows[i].host != NULL) &&
                    (why != NULL || (str_eq_c(n.host, rows[i].host) && n.port == rows[i].port &&
                                     str_eq_c(n.dest, rows[i].dest) && n.local == rows[i].local));
        if (!same)
            fail_msg("%s: %s", rows[i].text, why == NULL ? "it can be used" : why);
    }
}

/* In lists: what people write of a transport is cut, and names get the form that DNS has. */
static void test_lists_of_next_hops(void **state) {
    static const struct {
        const char *list, *without, *ascii;
    } rows[] = {
        {"smtp:[a.example]:587, [b.example]", "[a.example]:587, [b.example]", NULL},
        {"relay:[a.example]", "[a.example]", NULL},
        {"relay:c.example", "c.example", NULL},
        {"smtp:25,  [b.example]", NULL, NULL},
        {"relay:[a.example", NULL, NULL},
        {"lmtp:[a.example]", NULL, NULL},
        {"[k\u00f6ln.example]:26,\tb.example", NULL, "[xn--kln-sna.example]:26, b.example"},
        {"b.example [k\u00f6ln..example]", NULL, "b.example, [k\u00f6ln..example]"},
    };
    struct str bad;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sbuf out = {0};
        bool cut = nexthop_without_transport(str_of(rows[i].list), &out);
        assert_int_equal(cut, rows[i].without != NULL);
        assert_str(sbuf_str(&out), cut ? rows[i].without : rows[i].list);
        sbuf_reset(&out);
        nexthop_to_ascii(str_of(rows[i].list), false, &out);
        assert_str(sbuf_str(&out), rows[i].ascii == NULL ? rows[i].list : rows[i].ascii);
        sbuf_free(&out);
    }
    assert_null(nexthop_check(STR_LIT("[a.example], b.example:26"), &bad));
    assert_string_equal(nexthop_check(STR_LIT("[a.example], b.example:x, [c"), &bad),
                        "bad port or unknown service");
    assert_str(bad, "b.example:x");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roads),
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_records_of_others),
        cmocka_unit_test(test_records_that_cannot_be_asked),
        cmocka_unit_test(test_record_texts),
        cmocka_unit_test(test_via),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_keys_are_bounded),
        cmocka_unit_test(test_attempt),
        cmocka_unit_test(test_next_hops),
        cmocka_unit_test(test_next_hops_by_lmtp),
        cmocka_unit_test(test_lists_of_next_hops),
    };
    return cmocka_run_group_tests(tests, dir_make, dir_remove);
}
