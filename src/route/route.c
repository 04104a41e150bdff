/*
 * route/route.c - transport and next hop; see route.h
 *
 * A query is a list of steps, each of which either goes on at once or asks the lookup process:
 * address class, that of the sender's domain, sender-dependent transport, relay host, transport
 * table, relay record.  route_run takes them in a loop.  Runs on the thread of the loop of its
 * struct lookup.  The query owns all that is in its result; it frees itself after the asker's
 * callback has returned, or in route_cancel.
 */
#include "route/route.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "config/secret.h"
#include "mail/address.h"
#include "maps/relays.h"
#include "route/keys.h"
#include "route/local.h"
#include "route/nexthop.h"
#include "route/record.h"
#include "util/idn.h"
#include "util/log.h"
#include "util/mem.h"

enum step {
    STEP_CLASS,
    STEP_SENDER_DOMAIN,
    STEP_SENDER_TRANSPORT,
    STEP_RELAYHOST,
    STEP_TRANSPORT,
    STEP_RECORD,
    STEP_END
};

enum went {
    WENT_ON, /* q->step says what is next */
    WENT_ASKING,
    WENT_OVER /* q->r is the result */
};

struct route_query {
    struct config *cfg; /* reference: a reload may drop the asker's */
    struct lookup *lookup;
    struct trace *trace; /* NULL: nothing is explained */
    route_fn fn;         /* NULL: cancelled while give was posted */
    void *arg;
    char *sender;
    char *rcpt;
    bool sender_is_local; /* tables are asked for its local part alone, too */
    enum step step;
    uint32_t tag; /* of the question that is open; 0: none */
    /* What goes on with its answer. */
    enum went (*take)(struct route_query *q, const struct maps_answer *a);
    struct later give;
    bool posted;
    struct sbuf transport; /* "smtp" or "smtp:nexthop" of main.cf */
    bool transport_ours;   /* main.cf or a table in a file has that transport */
    bool hop_ours;         /* main.cf or a table in a file has r.nexthop, no database of accounts */
    bool of_transport;     /* r.nexthop came with a transport: no relay host of the sender's */
    struct route r;        /* r.address_class: the candidate while STEP_CLASS runs */
    struct keys keys;
};

static void route_query_free(struct route_query *q) {
    keys_clear(&q->keys);
    sbuf_free(&q->transport);
    sbuf_free(&q->r.record);
    sbuf_free(&q->r.nexthop);
    sbuf_free(&q->r.why);
    mailerr_free(&q->r.here);
    free(q->sender);
    free(q->rcpt);
    config_unref(q->cfg);
    free(q);
}

/* What a table said about the question that is named param. */
static void note(struct route_query *q, const char *param, const struct maps_answer *a,
                 const char *fmt, ...) __attribute__((format(printf, 4, 5)));

static void note(struct route_query *q, const char *param, const struct maps_answer *a,
                 const char *fmt, ...) {
    json_t *step = trace_step(q->trace, param);
    struct sbuf text = {0};
    va_list ap;
    if (step == NULL)
        return;
    va_start(ap, fmt);
    sbuf_vprintf(&text, fmt, ap);
    va_end(ap);
    const struct cfg_entry *e = cfg_file_find(&q->cfg->main, str_of(param));
    if (e != NULL && e->line > 0)
        trace_setf(step, "set_at", "%s, line %d", q->cfg->main.path, e->line);
    trace_asked(step, a == NULL ? NULL : a->trace);
    trace_set(step, "result", sbuf_str(&text));
    trace_end(q->trace, step);
    sbuf_free(&text);
}

static enum went route_failed(struct route_query *q, const char *param,
                              const struct maps_answer *a) {
    bool several = a != NULL && a->several > 0;
    note(q, param, a,
         "the look-up failed: mail waits (4.3.0); no less specific rule is used instead%s%s",
         several ? ": " : "", several ? a->err : "");
    log_warn("trivial-rewrite", "%s lookup failure", param);
    sbuf_reset(&q->r.why);
    sbuf_printf(&q->r.why, "%s lookup failure", param);
    if (several)
        sbuf_printf(&q->r.why, ": %s", a->err);
    q->r.is_told = several;
    q->r.rc = ROUTE_FAILED;
    return WENT_OVER;
}

static enum went route_run(struct route_query *q, enum went went);

/* Calls the asker back; ends the query. */
static void route_give(struct route_query *q) {
    if (q->fn != NULL)
        q->fn(q->arg, &q->r);
    route_query_free(q);
}

static void route_on_answer(void *arg, const struct maps_answer *a) {
    struct route_query *q = arg;
    q->tag = 0;
    if (route_run(q, q->take(q, a)) == WENT_OVER)
        route_give(q);
}

/* Asks for q->keys.  When explaining, asks for a trace. */
static enum went route_ask(struct route_query *q, const char *spec, enum map_values values,
                           enum went (*take)(struct route_query *q, const struct maps_answer *a)) {
    struct maps_answer now = {0};
    q->take = take;
    if (q->trace != NULL)
        q->tag =
            lookup_maps_traced(q->lookup, "trivial-rewrite", spec, values, q->keys.v, q->keys.n,
                               secret_answers(q->cfg, &q->cfg->p, spec), route_on_answer, q);
    else
        q->tag = lookup_route(q->lookup, "trivial-rewrite", spec, values, q->keys.v, q->keys.n,
                              &now, route_on_answer, q);
    if (q->tag != 0)
        return WENT_ASKING;
    enum went went = take(q, &now);
    maps_answer_free(&now);
    return went;
}

static enum went route_ask_sender(struct route_query *q, const char *spec, enum map_values values,
                                  const char *null_key,
                                  enum went (*take)(struct route_query *q,
                                                    const struct maps_answer *a)) {
    struct str sender = str_of(q->sender);
    keys_clear(&q->keys);
    if (sender.n == 0)
        keys_add(&q->keys, false, "", str_of(null_key), STR_NONE);
    else
        (q->sender_is_local ? keys_local_sender : keys_sender)(&q->keys, &q->cfg->p, sender);
    return route_ask(q, spec, values, take);
}

static const char *const class_lists[] = {"mydestination", "virtual_alias_domains",
                                          "virtual_mailbox_domains", "relay_domains"};

const char *route_failure(const struct route *r) {
    return r->is_told ? r->why.p : "address resolver failure";
}

const char *route_class_name(enum route_class c) {
    static const char *const names[] = {"local", "virtual alias", "virtual mailbox", "relay",
                                        "default"};
    return names[c];
}

static enum went class_done(struct route_query *q) {
    struct str d = addr_domain(str_of(q->rcpt));
    if (q->r.address_class == CLASS_DEFAULT)
        trace_note(q->trace, "address class",
                   "default: %.*s is in none of mydestination, virtual_alias_domains, "
                   "virtual_mailbox_domains, relay_domains",
                   STR_FMT(d));
    else
        trace_note(q->trace, "address class", "%s: %.*s is in %s",
                   route_class_name(q->r.address_class), STR_FMT(d),
                   class_lists[q->r.address_class]);
    q->step = STEP_SENDER_DOMAIN;
    return WENT_ON;
}

static enum went take_class(struct route_query *q, enum match_rc rc) {
    if (rc == MATCH_ERROR)
        return route_failed(q, class_lists[q->r.address_class], NULL);
    if (rc == MATCH_YES)
        return class_done(q);
    q->r.address_class++;
    return WENT_ON;
}

static void route_on_class(void *arg, enum match_rc rc) {
    struct route_query *q = arg;
    q->tag = 0;
    if (route_run(q, take_class(q, rc)) == WENT_OVER)
        route_give(q);
}

/* One list of domains; the next one is the same step again. */
static enum went step_class(struct route_query *q) {
    const struct params *p = &q->cfg->p;
    const char *lists[] = {p->mydestination, p->virtual_alias_domains, p->virtual_mailbox_domains,
                           p->relay_domains};
    enum route_class at = q->r.address_class;
    enum match_rc now;
    if (at == CLASS_DEFAULT ||
        (at == CLASS_LOCAL && local_is_own_literal(q->cfg, addr_domain(str_of(q->rcpt)))))
        return class_done(q);
    bool parents = at == CLASS_RELAY && lists[at][0] != '\0' &&
                   keys_has_word(p->parent_domain_matches_subdomains, "relay_domains");
    unsigned how = at == CLASS_RELAY ? match_how(parents, p->enable_idna2003_compatibility)
                                     : match_how_own(p->enable_idna2003_compatibility);
    q->tag = lookup_match_now(q->lookup, "trivial-rewrite", lists[at], MATCH_DOMAIN, how,
                              addr_domain(str_of(q->rcpt)), &now, route_on_class, q);
    return q->tag != 0 ? WENT_ASKING : take_class(q, now);
}

static enum went take_sender_domain(struct route_query *q, enum match_rc rc) {
    if (rc == MATCH_ERROR)
        return route_failed(q, "mydestination", NULL);
    q->sender_is_local = rc == MATCH_YES;
    q->step = STEP_SENDER_TRANSPORT;
    return WENT_ON;
}

static void route_on_sender_domain(void *arg, enum match_rc rc) {
    struct route_query *q = arg;
    q->tag = 0;
    if (route_run(q, take_sender_domain(q, rc)) == WENT_OVER)
        route_give(q);
}

/* Is the sender's domain local?  Tables of senders alone want to know. */
static enum went step_sender_domain(struct route_query *q) {
    const struct params *p = &q->cfg->p;
    enum match_rc now;
    bool to_relays = q->r.address_class == CLASS_RELAY || q->r.address_class == CLASS_DEFAULT;
    if (!to_relays || (p->sender_dependent_default_transport_maps[0] == '\0' &&
                       p->sender_dependent_relayhost_maps[0] == '\0'))
        return take_sender_domain(q, MATCH_NO);
    q->tag = local_sender_now(q->lookup, "trivial-rewrite", q->cfg, p, str_of(q->sender), &now,
                              route_on_sender_domain, q);
    return q->tag != 0 ? WENT_ASKING : take_sender_domain(q, now);
}

static bool is_dunno(struct str v) {
    return str_ieq_c(v, "DUNNO");
}

/* A DUNNO means no override; true if a usable value is there. */
static bool usable(const struct maps_answer *a) {
    return a->rc == MAP_FOUND && !is_dunno(str_trim(sbuf_str(&a->value)));
}

static enum went take_sender_transport(struct route_query *q, const struct maps_answer *a) {
    const char *param = "sender_dependent_default_transport_maps";
    if (a->rc == MAP_ERROR)
        return route_failed(q, param, a);
    sbuf_reset(&q->transport);
    bool hit = usable(a);
    q->transport_ours =
        !hit || maps_table_is_ours(q->cfg->p.sender_dependent_default_transport_maps, a->table);
    if (hit)
        sbuf_add_str(&q->transport, str_trim(sbuf_str(&a->value)));
    else
        sbuf_add_c(&q->transport, q->cfg->p.default_transport);
    note(q, param, a,
         hit ? "transport %s; default_transport is not used"
             : "nothing usable: default_transport = %s",
         q->transport.p);
    q->step = STEP_RELAYHOST;
    return WENT_ON;
}

static enum went step_sender_transport(struct route_query *q) {
    const struct params *p = &q->cfg->p;
    const char *own[] = {p->local_transport,
                         p->show_user_unknown_table_name
                             ? "error:5.1.1 User unknown in virtual alias table"
                             : "error:5.1.1 User unknown",
                         p->virtual_transport, p->relay_transport, p->default_transport};
    if (q->r.address_class != CLASS_DEFAULT ||
        p->sender_dependent_default_transport_maps[0] == '\0') {
        static const char *const names[] = {"local_transport", "virtual_alias_domains",
                                            "virtual_transport", "relay_transport",
                                            "default_transport"};
        enum route_class at = q->r.address_class;
        sbuf_add_c(&q->transport, own[at]);
        trace_note(q->trace, names[at], "transport %s", own[at]);
        q->step = STEP_RELAYHOST;
        return WENT_ON;
    }
    return route_ask_sender(q, p->sender_dependent_default_transport_maps, VALUES_ONE,
                            p->empty_address_default_transport_maps_lookup_key,
                            take_sender_transport);
}

static void set_nexthop(struct route_query *q, struct str v, bool ours, const char *rule) {
    sbuf_reset(&q->r.nexthop);
    sbuf_add_str(&q->r.nexthop, v);
    q->r.configured = true;
    q->hop_ours = ours;
    sbuf_reset(&q->r.why);
    sbuf_add_c(&q->r.why, rule);
}

static enum went take_relayhost(struct route_query *q, const struct maps_answer *a) {
    const char *param = "sender_dependent_relayhost_maps";
    if (a->rc == MAP_ERROR)
        return route_failed(q, param, a);
    if (usable(a)) {
        struct sbuf v = {0};
        bool cut = nexthop_without_transport(str_trim(sbuf_str(&a->value)), &v);
        set_nexthop(q, sbuf_str(&v),
                    maps_table_is_ours(q->cfg->p.sender_dependent_relayhost_maps, a->table), param);
        note(q, param, a, "next hop %s%s", v.p,
             cut ? " (the transport's name before it is not used)" : "");
        if (q->cfg->p.relayhost[0] != '\0')
            note(q, "relayhost", NULL, "not used: %s; %s is stronger", q->cfg->p.relayhost, param);
        sbuf_free(&v);
    } else {
        note(q, param, a, "%s: %s%s", a->rc == MAP_FOUND ? "DUNNO" : "no entry",
             q->cfg->p.relayhost[0] != '\0' ? "relayhost = " : "no relayhost is set: direct to ",
             q->r.nexthop.p);
    }
    q->step = STEP_TRANSPORT;
    return WENT_ON;
}

static enum went step_relayhost(struct route_query *q) {
    const struct params *p = &q->cfg->p;
    struct str domain = addr_domain(str_of(q->rcpt));
    q->step = STEP_TRANSPORT;
    sbuf_reset(&q->r.nexthop);
    sbuf_add_str(&q->r.nexthop, domain);
    if (q->r.address_class == CLASS_RELAY || q->r.address_class == CLASS_DEFAULT) {
        if (p->relayhost[0] != '\0')
            set_nexthop(q, str_of(p->relayhost), true, "relayhost");
        /* A next hop in the transport beats the relay host tables, but a broken table fails all
         * mail in Postfix too. */
        if (p->sender_dependent_relayhost_maps[0] != '\0')
            /* A list of hosts is tried in its order. */
            return route_ask_sender(q, p->sender_dependent_relayhost_maps, VALUES_JOINED,
                                    p->empty_address_relayhost_maps_lookup_key, take_relayhost);
        note(q, "relayhost", NULL,
             p->relayhost[0] != '\0' ? "next hop %s"
                                     : "not set: direct to the recipient's domain %s",
             q->r.nexthop.p);
    }
    return WENT_ON;
}

/* Splits the chosen main.cf transport at its first colon; what follows is the next hop. */
static void apply_main_transport(struct route_query *q) {
    struct str t = sbuf_str(&q->transport);
    ptrdiff_t colon = str_chr(t, ':');
    if (colon < 0)
        return;
    struct str hop = str_from(t, (size_t)colon + 1);
    if (hop.n > 0) {
        set_nexthop(q, hop, q->transport_ours, "default_transport or relay_transport");
        q->of_transport = true;
        trace_note(q->trace, "transport", "its own next hop %.*s is stronger", STR_FMT(hop));
    }
    q->transport.n = (size_t)colon;
    q->transport.p[colon] = '\0';
}

/* A transport(5) value: "transport:nexthop", either part may be empty. */
static void apply_table(struct route_query *q, struct str v, bool ours) {
    ptrdiff_t colon = str_chr(v, ':');
    struct str name = colon < 0 ? v : str_make(v.p, (size_t)colon);
    struct str hop = colon < 0 ? str_from(v, v.n) : str_from(v, (size_t)colon + 1);
    if (name.n > 0) {
        sbuf_reset(&q->transport);
        sbuf_add_str(&q->transport, name);
        if (hop.n == 0) {
            bool refuses = str_eq_c(name, "error") || str_eq_c(name, "retry");
            sbuf_reset(&q->r.nexthop);
            sbuf_add_str(&q->r.nexthop, refuses ? STR_LIT("Address is undeliverable")
                                                : addr_domain(str_of(q->rcpt)));
            q->r.configured = false;
        }
    }
    if (hop.n > 0) {
        set_nexthop(q, hop, ours, "transport_maps");
        q->of_transport = true;
    }
    sbuf_reset(&q->r.why);
    sbuf_add_c(&q->r.why, "transport_maps");
}

static enum went take_transport(struct route_query *q, const struct maps_answer *a) {
    if (a->rc == MAP_ERROR)
        return route_failed(q, "transport_maps", a);
    if (a->rc == MAP_FOUND)
        apply_table(q, str_trim(sbuf_str(&a->value)),
                    maps_table_is_ours(q->cfg->p.transport_maps, a->table));
    note(q, "transport_maps", a, a->rc == MAP_FOUND ? "transport %s, next hop %s" : "no entry",
         q->transport.p, q->r.nexthop.n > 0 ? q->r.nexthop.p : "(none)");
    q->step = STEP_RECORD;
    return WENT_ON;
}

static enum went step_transport(struct route_query *q) {
    apply_main_transport(q);
    q->step = STEP_RECORD;
    /* The virtual alias class is not looked up (transport(5)). */
    if (q->cfg->p.transport_maps[0] == '\0' || q->r.address_class == CLASS_ALIAS)
        return WENT_ON;
    keys_clear(&q->keys);
    keys_recipient(&q->keys, &q->cfg->p, str_of(q->rcpt));
    return route_ask(q, q->cfg->p.transport_maps, VALUES_ONE, take_transport);
}

static enum went route_bad(struct route_query *q, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static enum went route_bad(struct route_query *q, const char *fmt, ...) {
    struct sbuf text = {0};
    va_list ap;
    va_start(ap, fmt);
    sbuf_vprintf(&text, fmt, ap); /* before why goes: it may be an argument */
    va_end(ap);
    trace_note(q->trace, "route", "mail waits (4.3.5): %s", text.p);
    sbuf_free(&q->r.why);
    q->r.why = text;
    q->r.rc = ROUTE_BAD;
    return WENT_OVER;
}

/* May this mail use the record that was found?  The last key finds records that are not for its
 * sender: those for the mail that has its next hop from main.cf, and others of that name. */
static bool record_is_for(const struct route_query *q, const struct record *rec, size_t key) {
    bool named = strcmp(rec->account, RELAYS_NAMED) == 0 ||
                 list_has_word(str_of(rec->account), RELAYS_NAMED_TOO);
    return key + 1 < q->keys.n || (q->hop_ours && named);
}

static enum went record_apply(struct route_query *q, const struct maps_answer *a,
                              const struct record *rec) {
    if (!record_is_for(q, rec, a->key)) {
        q->r.transport = config_transport(q->cfg, sbuf_str(&q->transport));
        return route_bad(q, "relay record \"%s\" is not for mail from <%s>", rec->name, q->sender);
    }
    note(q, "relay record", a, "\"%s\": %s%s%s", rec->name, rec->hosts,
         rec->user[0] != '\0' ? " as account " : ", without credentials", rec->user);
    sbuf_add_str(&q->r.record, sbuf_str(&a->value));
    sbuf_reset(&q->r.nexthop);
    sbuf_add_c(&q->r.nexthop, rec->hosts);
    return WENT_ON;
}

static enum went take_record(struct route_query *q, const struct maps_answer *a) {
    struct record rec;
    q->step = STEP_END;
    if (a->rc == MAP_NOT_FOUND) {
        note(q, "relay record", a,
             "none for this next hop: main.cf's credentials and TLS settings");
        return WENT_ON;
    }
    if (a->rc == MAP_ERROR || !record_parse(&rec, sbuf_str(&a->value)))
        return route_failed(q, "relay record", a);
    enum went went = record_apply(q, a, &rec);
    record_free(&rec);
    return went;
}

/* Does a record of Posthouse's own stand behind the next hop as it is, that this mail may use?
 * One for the sender first, then one for its domain, then one for all mail.  A local part alone is
 * no account.  Who administers the sender's domain chooses its relay host, and no other route: a
 * domain's own record takes no mail from the next hop of a transport. */
static enum went step_record(struct route_query *q) {
    const char *hop = q->r.nexthop.p;
    struct str sep = str_of(q->of_transport ? "\n" RELAYS_SERVERS : "\n");
    struct keys senders = {.n = 0};
    q->step = STEP_END;
    if (q->cfg->relays_spec[0] == '\0' || !q->r.configured || hop == NULL)
        return WENT_ON;
    keys_clear(&q->keys);
    keys_sender(&senders, &q->cfg->p, str_of(q->sender));
    for (size_t i = 0; i < senders.n; i++)
        if (strchr(senders.v[i].key.p, '@') != NULL)
            keys_add(&q->keys, false, senders.v[i].key.p, sep, str_of(hop));
    keys_clear(&senders);
    if (q->sender[0] == '\0')
        keys_add(&q->keys, false, "<>", sep, str_of(hop));
    keys_add(&q->keys, false, RELAYS_ALL, sep, str_of(hop));
    keys_add(&q->keys, false, RELAYS_NAMED, sep, str_of(hop));
    return route_ask(q, q->cfg->relays_spec, VALUES_ONE, take_record);
}

/* error:, retry: and discard: have a text where others have a next hop; "4.x.x" before it defers.
 */
static void decide_here(struct route_query *q, enum service_kind kind) {
    struct str text = sbuf_str(&q->r.nexthop);
    bool soft = text.n > 0 && text.p[0] == '4';
    char dsn[12];
    q->r.here_coded = dsn_from_reply(dsn, soft ? 400 : 500, text);
    soft = kind == SERVICE_RETRY || (soft && q->r.here_coded);
    if (q->r.here_coded)
        text = str_trim(str_from(text, strlen(dsn)));
    if (text.n == 0)
        text = STR_LIT("Address is undeliverable");
    dsn[0] = soft ? '4' : '5';
    if (kind == SERVICE_DISCARD)
        mailerr_set(&q->r.here, MAIL_SENT, "2.0.0", "%.*s", STR_FMT(text));
    else
        mailerr_set(&q->r.here, soft ? MAIL_DEFERRED : MAIL_BOUNCED, dsn, "%.*s", STR_FMT(text));
    mailerr_blame(&q->r.here, PHASE_ROUTE, BLAME_RECIPIENT);
    q->r.here.cause = CAUSE_TRANSPORT_SAYS;
}

/* Both spellings of a domain are one destination: that of A-labels.  A recipient at what is no
 * domain name is refused for good; an administrator's next hop has been checked. */
static void hop_to_ascii(struct route_query *q) {
    struct sbuf ascii = {0};
    const char *why;
    struct str domain = sbuf_str(&q->r.nexthop);
    bool idna2003 = q->cfg->p.enable_idna2003_compatibility;
    if (q->r.configured && str_is_ascii(domain))
        return;
    if (q->r.configured) {
        nexthop_to_ascii(domain, idna2003, &ascii);
    } else if (!idn_to_ascii(domain, idna2003, &ascii, &why)) {
        mailerr_set(&q->r.here, MAIL_BOUNCED, "5.1.2", "bad domain name %.*s: %s", STR_FMT(domain),
                    why);
        mailerr_blame(&q->r.here, PHASE_ROUTE, BLAME_RECIPIENT);
        q->r.here.cause = CAUSE_ADDRESS;
        return;
    }
    sbuf_free(&q->r.nexthop);
    q->r.nexthop = ascii;
}

/* What is wrong with the transport's next hop (*which), or NULL. */
static const char *hop_bad(const struct service *t, struct str hop, struct str *which) {
    return t->kind == SERVICE_SMTP   ? nexthop_check(hop, which)
           : t->kind == SERVICE_LMTP ? nexthop_check_lmtp(hop, which)
                                     : NULL;
}

static enum went step_end(struct route_query *q) {
    struct str hop = sbuf_str(&q->r.nexthop), which;
    const struct service *t = config_transport(q->cfg, sbuf_str(&q->transport));
    q->r.transport = t;
    if (t == NULL || t->kind == SERVICE_UNUSED)
        return route_bad(q, ROUTE_NO_TRANSPORT, STR_FMT(sbuf_str(&q->transport)));
    const struct refusal *refused = refusals_first(&t->refusals);
    if (refused != NULL)
        return route_bad(q, "transport %s: %s is not implemented: %s", t->name, refused->name,
                         refused->text);
    if (service_is_client(t) && hop.n == 0)
        return route_bad(q, "no next hop: the recipient has no domain");
    const char *why = q->r.configured ? hop_bad(t, hop, &which) : NULL;
    if (why != NULL)
        return route_bad(q, "bad next hop \"%.*s\" (%s): %s", STR_FMT(which),
                         q->r.why.n > 0 ? q->r.why.p : "", why);
    if (service_is_client(t))
        hop_to_ascii(q);
    else if (t->kind != SERVICE_LOCAL)
        decide_here(q, t->kind);
    q->r.rc = ROUTE_OK;
    return WENT_OVER;
}

/* Takes steps until one waits for an answer or the result is known. */
static enum went route_run(struct route_query *q, enum went went) {
    static enum went (*const steps[])(struct route_query *) = {
        [STEP_CLASS] = step_class,
        [STEP_SENDER_DOMAIN] = step_sender_domain,
        [STEP_SENDER_TRANSPORT] = step_sender_transport,
        [STEP_RELAYHOST] = step_relayhost,
        [STEP_TRANSPORT] = step_transport,
        [STEP_RECORD] = step_record,
        [STEP_END] = step_end};
    while (went == WENT_ON)
        went = steps[q->step](q);
    return went;
}

const struct mailerr *route_refuses(const struct route *r) {
    return r->rc == ROUTE_OK && r->here.status != MAIL_UNSET && r->here.status != MAIL_SENT
               ? &r->here
               : NULL;
}

static struct route_query *route_query_new(const struct config *cfg, struct lookup *k,
                                           struct str sender, struct str recipient,
                                           struct trace *trace, route_fn fn, void *arg) {
    struct route_query *q = MEM_NEW(struct route_query);
    q->cfg = config_ref((struct config *)(uintptr_t)cfg);
    q->lookup = k;
    q->trace = trace;
    q->transport_ours = true;
    q->fn = fn;
    q->arg = arg;
    q->sender = str_dup(sender);
    if (recipient.n == 0) {
        struct sbuf r = {0};
        sbuf_add_c(&r, cfg->p.empty_address_recipient);
        if (str_chr(sbuf_str(&r), '@') < 0)
            sbuf_printf(&r, "@%s", cfg->p.myhostname);
        q->rcpt = sbuf_take(&r);
    } else {
        q->rcpt = str_dup(recipient);
    }
    return q;
}

static void route_give_later(struct later *t) {
    route_give(DL_OWNER(t, struct route_query, give));
}

/* A result that needs no answer is given from the loop, too. */
static struct route_query *route_start(struct route_query *q) {
    if (route_run(q, WENT_ON) == WENT_OVER) {
        q->posted = true;
        q->give.run = route_give_later;
        lookup_later(q->lookup, &q->give);
    }
    return q;
}

struct route_query *route_resolve(const struct config *cfg, struct lookup *k, struct str sender,
                                  struct str recipient, struct trace *trace, route_fn fn,
                                  void *arg) {
    return route_start(route_query_new(cfg, k, sender, recipient, trace, fn, arg));
}

/* As with Postfix: neither tables nor classes are asked, and no relay record is meant. */
static void route_to_filter(struct route_query *q, struct str filter) {
    ptrdiff_t colon = str_chr(filter, ':');
    struct str hop = colon < 0 ? STR_NONE : str_from(filter, (size_t)colon + 1);
    if (hop.n == 0)
        hop = str_of(q->cfg->p.default_filter_nexthop);
    sbuf_add_str(&q->transport, colon < 0 ? filter : str_make(filter.p, (size_t)colon));
    if (hop.n > 0)
        set_nexthop(q, hop, true, "content_filter");
    else
        sbuf_add_str(&q->r.nexthop, addr_domain(str_of(q->rcpt)));
    q->r.address_class = CLASS_DEFAULT;
    q->r.filter = true;
    q->step = STEP_END;
}

struct route_query *route_resolve_of(const struct config *cfg, struct lookup *k,
                                     const struct envelope *e, struct str recipient, route_fn fn,
                                     void *arg) {
    struct route_query *q = route_query_new(cfg, k, e->sender, recipient, NULL, fn, arg);
    if (e->filter.n > 0)
        route_to_filter(q, e->filter);
    return route_start(q);
}

struct route_query *route_resolve_via(const struct config *cfg, struct lookup *k,
                                      struct str nexthop, struct str sender, struct str recipient,
                                      struct trace *trace, route_fn fn, void *arg) {
    struct route_query *q = route_query_new(cfg, k, sender, recipient, trace, fn, arg);
    sbuf_add_c(&q->transport, "smtp");
    set_nexthop(q, nexthop, true, "the relay host that was asked for");
    q->r.address_class = CLASS_DEFAULT;
    q->step = STEP_RECORD;
    return route_start(q);
}

void route_cancel(struct route_query *q) {
    if (q == NULL)
        return;
    if (q->posted) {
        q->fn = NULL;
        return;
    }
    lookup_cancel(q->lookup, q->tag);
    route_query_free(q);
}
