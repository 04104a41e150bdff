/*
 * tests/wire/scripts.c - the named scripts: small scenarios that are run with every fault at every
 * call, and without any fault as tests of their own
 */
#include "scripts.h"

#include <stdlib.h>
#include <string.h>

static const struct named_group *const groups[] = {
    &scripts_receive, &scripts_replies, &scripts_login,    &scripts_roads,  &scripts_queue,
    &scripts_lists,   &scripts_filters, &scripts_early,    &scripts_rights, &scripts_kills,
    &scripts_boxes,   &scripts_virtual, &scripts_policies, &scripts_steps,  &scripts_scan};
#define GROUPS (sizeof groups / sizeof groups[0])

unsigned scripts_count(void) {
    unsigned n = 0;
    for (size_t g = 0; g < GROUPS; g++)
        n += groups[g]->n;
    return n;
}

/* The i-th of all. */
static const struct named *script_row(unsigned i) {
    size_t g = 0;
    while (g + 1 < GROUPS && i >= groups[g]->n)
        i -= groups[g++]->n;
    return &groups[g]->rows[i];
}

const char *scripts_name(unsigned i) {
    return script_row(i)->name;
}

static void add_parameters(struct client_mail *m) {
    bytes_text(&m->envid, m->number % 2 == 0 ? "an id" : "an\r\nid");
    for (unsigned i = 0; i < m->n_rcpts; i++) {
        m->rcpts[i].notify = LEDGER_SUCCESS | LEDGER_FAILURE;
        bytes_text(&m->rcpts[i].orcpt, "rfc822;old@far.example");
    }
}

static void add_before(struct client *c, const struct named *n) {
    struct bytes b = {0};
    unsigned lines =
        (n->shape & SHAPE_FLOOD) != 0 ? 150000 : 12; /* of which the replies are 28 MB */
    if ((n->shape & (SHAPE_FLOOD | SHAPE_ERRORS)) == 0)
        return;
    for (unsigned i = 0; i < lines; i++)
        bytes_text(&b, (n->shape & SHAPE_FLOOD) != 0 ? "EHLO a\r\n" : "NONSENSE\r\n");
    if ((n->shape & SHAPE_FLOOD) != 0)
        client_stall(c, true);
    client_raw(c, b.p, b.n, lines);
    bytes_free(&b);
    client_raw(c, "NONSENSE\r\n", 10, 1);
}

static void add_mail(struct scene *s, struct client *c, const struct named *n, unsigned i) {
    static const char *const domains[] = {"alpha.example", "beta.example", "gamma.example"};
    unsigned first = n->road == ROAD_NOWHERE; /* so that direct mail comes first */
    const char *from = domains[(n->shape & SHAPE_MIXED) != 0 ? (i + first) % 3 : 0];
    bool bdat = (n->shape & SHAPE_BDAT) != 0;
    unsigned how = ((n->shape & SHAPE_TOGETHER) != 0 ? CLIENT_TOGETHER : 0U) |
                   ((n->shape & SHAPE_NEXT) != 0 && i > 0 ? CLIENT_NEXT : 0U);
    const char *to =
        n->road == ROAD_BOTH || (n->road == ROAD_TRANSPORT && (n->shape & SHAPE_SPREAD) == 0)
            ? "near.example"
        : n->road == ROAD_NOWHERE ? "none.example"
                                  : "far.example";
    if ((n->shape & SHAPE_DOMAINS) != 0)
        to = scene_domain(i);
    else if (n->to != NULL)
        to = n->to;
    struct client_mail m = scene_mail(s, from, n->rcpts, to);
    if ((n->shape & SHAPE_SPREAD) != 0)
        scene_spread(&m);
    if ((n->shape & SHAPE_NOTIFY) != 0)
        add_parameters(&m);
    if (n->members > 0)
        list_make(s, &m, 0, n->list, n->members, n->owner);
    if (n->virtuals > 0)
        virtual_make(s, &m, n->list, n->virtuals);
    if (n->chief)
        virtual_chief(s, &m);
    if (n->policed)
        policy_says(s, &m, n->says);
    content_make(&s->dice,
                 n->head != HEAD_USUAL ? n->head
                 : i % 2 == 0          ? HEAD_USUAL
                                       : HEAD_BARE,
                 n->text, n->size, !bdat, &m.content);
    if (!bdat) {
        client_data(c, &m, how);
        return;
    }
    size_t cuts[8], n_cuts = (n->shape & SHAPE_CUTS) != 0 ? 8 : 0;
    for (size_t k = 0; k < n_cuts; k++)
        cuts[k] = (k + 1) * m.content.n / 10;
    client_bdat(c, &m, how, cuts, n_cuts, n_cuts > 0);
}

static void add_client(struct scene *s, const struct named *n, int64_t ms) {
    struct client *c = scene_client(s);
    client_hello_as(c, true, n->hello == NULL ? "client.wire.example" : n->hello);
    if ((n->shape & SHAPE_TLS) != 0) {
        client_starttls(c, (n->shape & SHAPE_LATE) != 0 ? 7000 : 0,
                        (n->shape & SHAPE_BEHIND) != 0 ? "NOOP\r\nEHLO injected\r\n" : NULL);
        client_hello(c, true);
    }
    add_before(c, n);
    if ((n->shape & SHAPE_LOGIN) != 0)
        client_login(c, "PLAIN", "user@alpha.example",
                     (n->shape & SHAPE_WRONG) != 0 ? "wrong-Secret-6" : "client-Secret-5",
                     (n->shape & SHAPE_WRONG) == 0);
    for (unsigned i = 0; i < n->mails; i++)
        add_mail(s, c, n, i);
    if ((n->shape & SHAPE_CUT) != 0)
        client_cut(c);
    client_ends(c, n->end, n->after);
    client_ends_late(c, n->late_ms);
    scene_begin(s, c, ms, (n->shape & SHAPE_STRANGER) != 0 ? "10.3.0.7" : "10.1.0.7",
                (n->shape & SHAPE_LOGIN) != 0 ? 587 : 25);
}

/* What has to be delivered has been, long before a second attempt. */
static void look_early(struct wire_world *w, void *arg) {
    const struct scene *s = arg;
    unsigned accepted, delivered, bounced;
    ledger_counts(s->ledger, &accepted, &delivered, &bounced);
    if (delivered < s->must_send && !wire_faulted(w))
        wire_fail(w, "%u deliveries at the first attempt, and the script has %u", delivered,
                  s->must_send);
}

static void policy_configure(struct scene *s, const struct named *n) {
    struct ledger_rules *rules = ledger_rules(s->ledger);
    wire_main_cf(s->world, "smtp_tls_policy_maps = hash:policies\n");
    wire_table(s->world, "policies", "[10.2.0.1]", n->policy);
    *(n->strange ? &rules->strange : &rules->alone) = 1;
}

/* Only host 0 is no correct server, unless the script says so of all. */
static void plans_make(struct scene *s, const struct named *n) {
    for (unsigned k = 0; k < SCENE_HOSTS; k++) {
        s->hosts[k].plan.can = n->can;
        if (n->mechs != NULL)
            s->hosts[k].plan.mechs = n->mechs;
        s->hosts[k].plan.bare = n->bare;
        s->hosts[k].plan.split = n->split;
    }
    s->hosts[1].plan.is = n->host1;
    for (unsigned k = 0; k < (n->all ? SCENE_HOSTS : 1); k++) {
        struct relay_plan *p = &s->hosts[k].plan;
        p->twists[0] = n->twist;
        p->twists[1] = n->second;
        p->twists[2] = n->third;
        while (p->n_twists < 3 && p->twists[p->n_twists].act != ACT_NORMAL)
            p->n_twists++;
        p->sheds = n->sheds;
        p->heals = n->heals > 0 ? n->heals : n->twist.times == 0 ? 0 : 1;
    }
}

void scripts_setup(struct wire_world *w, unsigned i) {
    const struct named *n = script_row(i);
    struct scene *s =
        scene_new(w, i, n->road, n->login, 998, n->lifetime_s == 0 ? 3600 : n->lifetime_s,
                  (n->shape & SHAPE_REFUSED) != 0);
    wire_main_cf(w, "minimal_backoff_time = 60s\nmaximal_backoff_time = 600s\n%s",
                 n->conf == NULL ? "" : n->conf);
    if (n->members > 0)
        lists_configure(s);
    if (n->virtuals > 0)
        virtuals_configure(s);
    if (n->policed)
        policies_configure(s, n->twisted, n->twisted_times);
    if (n->filters != 0)
        filters_configure(s, n->filters);
    if ((n->shape & SHAPE_ACCESS) != 0)
        wire_table(w, "access", "m1r1@far.example", "REJECT");
    if (n->owners != NULL)
        wire_table(w, "owners", "s1.0@alpha.example", n->owners);
    ledger_rules(s->ledger)->never = n->never;
    if (n->policy != NULL)
        policy_configure(s, n);
    wire_slow_disk(w, n->disk_ms);
    if (n->full_ms > 0) {
        wire_full_disk(w, n->full_ms, n->full_ms + 100000);
        ledger_rules(s->ledger)->fills = true;
    }
    if (n->fails != NULL) {
        wire_table_fails(w, n->fails, 30000);
        ledger_rules(s->ledger)->gaps = true;
    }
    if (n->ptr != NULL)
        wire_dns_ptr(w, "10.1.0.7", n->ptr);
    wire_account(w, "user@alpha.example", "client-Secret-5");
    ledger_secret(s->ledger, "user@alpha.example", "client-Secret-5", 0, true);
    plans_make(s, n);
    scene_open(s);
    add_client(s, n, 0);
    if ((n->shape & SHAPE_MORE) != 0)
        add_client(s, n, n->more_ms == 0 ? 1000 : n->more_ms);
    s->cuts_orders = n->cut;
    if (n->event_ms > 0)
        scene_event(s, n->event, n->event_ms, 0);
    if (n->event2_ms > 0)
        scene_event(s, n->event2, n->event2_ms, 0);
    if (n->event == EVENT_HOLD_ALL)
        scene_event(s, EVENT_RELEASE_ALL, 200000, 0);
    s->must_send = n->must_send;
    s->may_send = n->may_send;
    if (n->by_ms > 0)
        wire_at(w, n->by_ms, look_early, s);
    s->ends_ms = 10000000;
}
