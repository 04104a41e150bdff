/*
 * route/route.c - transport and next hop; see route.h
 *
 * A query is a list of steps, each of which either goes on at once or asks the lookup process and
 * goes on in the answer: address class, sender-dependent transport, relay host, transport table.
 */
#include "route/route.h"

#include <stdarg.h>
#include <stdlib.h>

#include "mail/address.h"
#include "route/keys.h"
#include "route/nexthop.h"
#include "route/record.h"
#include "util/log.h"
#include "util/mem.h"

enum step {
    STEP_CLASS,
    STEP_SENDER_TRANSPORT,
    STEP_RELAYHOST,
    STEP_TRANSPORT,
    STEP_RECORD,
    STEP_END
};

struct route_query {
    struct config *cfg; /* reference: a reload may drop the asker's */
    struct lookup *lookup;
    struct trace *trace; /* NULL: nobody watches */
    route_fn fn;
    void *arg;
    char *sender;
    char *rcpt;
    enum step step;
    enum route_class class; /* candidate while STEP_CLASS runs */
    uint32_t tag;
    bool returned; /* route_resolve has returned: answers come later */
    bool finished;
    struct sbuf transport; /* "smtp" or "smtp:nexthop" of main.cf */
    struct route r;
    struct keys keys;
};

static void run(struct route_query *q);

static void query_free(struct route_query *q) {
    keys_clear(&q->keys);
    sbuf_free(&q->transport);
    sbuf_free(&q->r.record);
    sbuf_free(&q->r.nexthop);
    sbuf_free(&q->r.why);
    free(q->sender);
    free(q->rcpt);
    config_unref(q->cfg);
    free(q);
}

static void finish(struct route_query *q, enum route_rc rc) {
    q->r.rc = rc;
    q->r.class = q->class;
    q->finished = true;
    q->fn(q->arg, &q->r);
    if (q->returned)
        query_free(q);
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

static void fail_lookup(struct route_query *q, const char *param, const struct maps_answer *a) {
    note(q, param, a,
         "the look-up failed: mail waits (4.3.0); no less specific rule is used instead");
    log_warn("trivial-rewrite", "%s lookup failure", param);
    sbuf_printf(&q->r.why, "%s lookup failure", param);
    finish(q, ROUTE_FAILED);
}

/* Asks for q->keys; with a trace in the answer if somebody watches (which shows the value of a
 * record elsewhere). */
static void ask(struct route_query *q, const char *spec, lookup_maps_fn fn) {
    uint32_t tag;
    if (q->trace != NULL)
        tag = lookup_maps_traced(q->lookup, "trivial-rewrite", spec, q->keys.v, q->keys.n,
                                 spec == q->cfg->relays_spec, fn, q);
    else
        tag = lookup_route(q->lookup, "trivial-rewrite", spec, q->keys.v, q->keys.n, fn, q);
    if (tag != 0) /* else it was answered, and q may be gone */
        q->tag = tag;
}

static void ask_sender(struct route_query *q, const char *spec, const char *null_key,
                       lookup_maps_fn fn) {
    struct str sender = str_of(q->sender);
    keys_clear(&q->keys);
    if (sender.n == 0)
        keys_add(&q->keys, false, "", str_of(null_key), STR_NONE);
    else
        keys_sender(&q->keys, &q->cfg->p, sender);
    ask(q, spec, fn);
}

static void class_next(struct route_query *q);

static const char *const class_lists[] = {"mydestination", "virtual_alias_domains",
                                          "virtual_mailbox_domains", "relay_domains"};

const char *route_class_name(enum route_class c) {
    static const char *const names[] = {"local", "virtual alias", "virtual mailbox", "relay",
                                        "default"};
    return names[c];
}

static void class_done(struct route_query *q) {
    struct str d = addr_domain(str_of(q->rcpt));
    if (q->class == CLASS_DEFAULT)
        trace_note(q->trace, "address class",
                   "default: %.*s is in none of mydestination, virtual_alias_domains, "
                   "virtual_mailbox_domains, relay_domains",
                   STR_FMT(d));
    else
        trace_note(q->trace, "address class", "%s: %.*s is in %s", route_class_name(q->class),
                   STR_FMT(d), class_lists[q->class]);
    q->step = STEP_SENDER_TRANSPORT;
    run(q);
}

static void on_class(void *arg, enum match_rc rc) {
    struct route_query *q = arg;
    q->tag = 0;
    if (rc == MATCH_ERROR) {
        fail_lookup(q, class_lists[q->class], NULL);
        return;
    }
    if (rc == MATCH_YES) {
        class_done(q);
        return;
    }
    q->class ++;
    class_next(q);
}

static void class_next(struct route_query *q) {
    const struct params *p = &q->cfg->p;
    const char *lists[] = {p->mydestination, p->virtual_alias_domains, p->virtual_mailbox_domains,
                           p->relay_domains};
    if (q->class == CLASS_DEFAULT) {
        class_done(q);
        return;
    }
    bool parents = q->class == CLASS_RELAY &&
                   keys_has_word(p->parent_domain_matches_subdomains, "relay_domains");
    uint32_t tag = lookup_match(q->lookup, "trivial-rewrite", lists[q->class], MATCH_DOMAIN,
                                parents, addr_domain(str_of(q->rcpt)), on_class, q);
    if (tag != 0)
        q->tag = tag;
}

static bool is_dunno(struct str v) {
    return str_ieq_c(v, "DUNNO");
}

/* An empty or DUNNO answer means no override; true if a usable value is there. */
static bool usable(const struct route_query *q, const struct maps_answer *a, const char *param) {
    struct str v = str_trim(sbuf_str(&a->value));
    if (a->rc != MAP_FOUND || is_dunno(v))
        return false;
    if (v.n == 0)
        log_warn("trivial-rewrite", "%s: ignoring null lookup result for %.*s", param,
                 STR_FMT(q->keys.v[a->key].key));
    return v.n > 0;
}

static void on_sender_transport(void *arg, const struct maps_answer *a) {
    struct route_query *q = arg;
    const char *param = "sender_dependent_default_transport_maps";
    q->tag = 0;
    if (a->rc == MAP_ERROR) {
        fail_lookup(q, param, a);
        return;
    }
    sbuf_reset(&q->transport);
    bool hit = usable(q, a, param);
    if (hit)
        sbuf_add_str(&q->transport, str_trim(sbuf_str(&a->value)));
    else
        sbuf_add_c(&q->transport, q->cfg->p.default_transport);
    note(q, param, a,
         hit ? "transport %s; default_transport is not used"
             : "nothing usable: default_transport = %s",
         q->transport.p);
    q->step = STEP_RELAYHOST;
    run(q);
}

static void step_sender_transport(struct route_query *q) {
    const struct params *p = &q->cfg->p;
    const char *own[] = {p->local_transport, "error:5.1.1 User unknown in virtual alias table",
                         p->virtual_transport, p->relay_transport, p->default_transport};
    if (q->class != CLASS_DEFAULT || p->sender_dependent_default_transport_maps[0] == '\0') {
        static const char *const names[] = {"local_transport", "virtual_alias_domains",
                                            "virtual_transport", "relay_transport",
                                            "default_transport"};
        sbuf_add_c(&q->transport, own[q->class]);
        trace_note(q->trace, names[q->class], "transport %s", own[q->class]);
        q->step = STEP_RELAYHOST;
        run(q);
        return;
    }
    ask_sender(q, p->sender_dependent_default_transport_maps,
               p->empty_address_default_transport_maps_lookup_key, on_sender_transport);
}

static void set_nexthop(struct route_query *q, struct str v, const char *rule) {
    sbuf_reset(&q->r.nexthop);
    sbuf_add_str(&q->r.nexthop, v);
    q->r.configured = true;
    sbuf_reset(&q->r.why);
    sbuf_add_c(&q->r.why, rule);
}

static void on_relayhost(void *arg, const struct maps_answer *a) {
    struct route_query *q = arg;
    const char *param = "sender_dependent_relayhost_maps";
    q->tag = 0;
    if (a->rc == MAP_ERROR) {
        fail_lookup(q, param, a);
        return;
    }
    if (usable(q, a, param)) {
        struct sbuf v = {0};
        bool cut = nexthop_without_transport(str_trim(sbuf_str(&a->value)), &v);
        set_nexthop(q, sbuf_str(&v), param);
        note(q, param, a, "next hop %s%s", v.p,
             cut ? " (the transport's name before it is not used)" : "");
        if (q->cfg->p.relayhost[0] != '\0')
            note(q, "relayhost", NULL, "not used: %s; %s is stronger", q->cfg->p.relayhost, param);
        sbuf_free(&v);
    } else {
        note(q, param, a, "%s: %s%s", a->rc == MAP_FOUND ? "DUNNO or empty" : "no entry",
             q->cfg->p.relayhost[0] != '\0' ? "relayhost = " : "no relayhost is set: direct to ",
             q->r.nexthop.p);
    }
    q->step = STEP_TRANSPORT;
    run(q);
}

static void step_relayhost(struct route_query *q) {
    const struct params *p = &q->cfg->p;
    struct str domain = addr_domain(str_of(q->rcpt));
    q->step = STEP_TRANSPORT;
    sbuf_reset(&q->r.nexthop);
    sbuf_add_str(&q->r.nexthop, domain);
    if (q->class == CLASS_RELAY || q->class == CLASS_DEFAULT) {
        if (p->relayhost[0] != '\0')
            set_nexthop(q, str_of(p->relayhost), "relayhost");
        /* A next hop in the transport beats the relay host tables, but a broken table fails all
         * mail in Postfix too. */
        if (p->sender_dependent_relayhost_maps[0] != '\0') {
            ask_sender(q, p->sender_dependent_relayhost_maps,
                       p->empty_address_relayhost_maps_lookup_key, on_relayhost);
            return;
        }
        note(q, "relayhost", NULL,
             p->relayhost[0] != '\0' ? "next hop %s"
                                     : "not set: direct to the recipient's domain %s",
             q->r.nexthop.p);
    }
    run(q);
}

/* Splits the chosen main.cf transport at its first colon; what follows is the next hop. */
static void apply_main_transport(struct route_query *q) {
    struct str t = sbuf_str(&q->transport);
    ptrdiff_t colon = str_chr(t, ':');
    if (colon < 0)
        return;
    struct str hop = str_from(t, (size_t)colon + 1);
    if (hop.n > 0) {
        set_nexthop(q, hop, "default_transport or relay_transport");
        trace_note(q->trace, "transport", "its own next hop %.*s is stronger", STR_FMT(hop));
    }
    q->transport.n = (size_t)colon;
    q->transport.p[colon] = '\0';
}

/* A transport(5) value: "transport:nexthop", either part may be empty. */
static void apply_table(struct route_query *q, struct str v) {
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
    if (hop.n > 0)
        set_nexthop(q, hop, "transport_maps");
    sbuf_reset(&q->r.why);
    sbuf_add_c(&q->r.why, "transport_maps");
}

static void on_transport(void *arg, const struct maps_answer *a) {
    struct route_query *q = arg;
    q->tag = 0;
    if (a->rc == MAP_ERROR) {
        fail_lookup(q, "transport_maps", a);
        return;
    }
    if (a->rc == MAP_FOUND)
        apply_table(q, str_trim(sbuf_str(&a->value)));
    note(q, "transport_maps", a, a->rc == MAP_FOUND ? "transport %s, next hop %s" : "no entry",
         q->transport.p, q->r.nexthop.n > 0 ? q->r.nexthop.p : "(none)");
    q->step = STEP_RECORD;
    run(q);
}

static void step_transport(struct route_query *q) {
    apply_main_transport(q);
    q->step = STEP_RECORD;
    /* The virtual alias class is not looked up (transport(5)). */
    if (q->cfg->p.transport_maps[0] == '\0' || q->class == CLASS_ALIAS) {
        run(q);
        return;
    }
    keys_clear(&q->keys);
    keys_recipient(&q->keys, &q->cfg->p, str_of(q->rcpt));
    ask(q, q->cfg->p.transport_maps, on_transport);
}

static void on_record(void *arg, const struct maps_answer *a) {
    struct route_query *q = arg;
    struct record rec;
    q->tag = 0;
    if (a->rc == MAP_ERROR) {
        fail_lookup(q, "relay record", a);
        return;
    }
    q->step = STEP_END;
    if (a->rc == MAP_FOUND && record_parse(&rec, sbuf_str(&a->value))) {
        note(q, "relay record", a, "\"%s\": %s%s%s", rec.name, rec.hosts,
             rec.user[0] != '\0' ? " as account " : ", without credentials", rec.user);
        sbuf_add_str(&q->r.record, sbuf_str(&a->value));
        sbuf_reset(&q->r.nexthop);
        sbuf_add_c(&q->r.nexthop, rec.hosts);
        record_free(&rec);
    } else if (a->rc == MAP_FOUND) {
        fail_lookup(q, "relay record", a);
        return;
    } else {
        note(q, "relay record", a,
             "none for this next hop: main.cf's credentials and TLS settings");
    }
    run(q);
}

/* Does a record of Posthouse's own stand behind the next hop as it is?  The sender's own first,
 * then its domain's, then everybody's. */
static void step_record(struct route_query *q) {
    const char *hop = q->r.nexthop.p;
    struct keys senders = {.n = 0};
    q->step = STEP_END;
    if (q->cfg->relays_spec[0] == '\0' || !q->r.configured || hop == NULL) {
        run(q);
        return;
    }
    keys_clear(&q->keys);
    keys_sender(&senders, &q->cfg->p, str_of(q->sender));
    for (size_t i = 0; i < senders.n; i++)
        keys_add(&q->keys, false, senders.texts[i], STR_LIT("\n"), str_of(hop));
    keys_add(&q->keys, false, "\n", str_of(hop), STR_NONE);
    keys_clear(&senders);
    ask(q, q->cfg->relays_spec, on_record);
}

static void bad(struct route_query *q, const char *text) {
    trace_note(q->trace, "route", "mail waits (4.3.5): %s", text);
    sbuf_reset(&q->r.why);
    sbuf_add_c(&q->r.why, text);
    finish(q, ROUTE_BAD);
}

static void step_end(struct route_query *q) {
    struct sbuf text = {0};
    struct str hop = sbuf_str(&q->r.nexthop), which;
    const struct service *t = config_transport(q->cfg, sbuf_str(&q->transport));
    q->r.transport = t;
    if (t == NULL || t->kind == SERVICE_UNUSED || t->kind == SERVICE_LMTP) {
        sbuf_printf(&text, "mail transport unavailable: %.*s is not a transport of Posthouse",
                    STR_FMT(sbuf_str(&q->transport)));
        bad(q, text.p);
    } else if (t->kind == SERVICE_SMTP && hop.n == 0) {
        bad(q, "no next hop: the recipient has no domain");
    } else {
        const char *why =
            t->kind == SERVICE_SMTP && q->r.configured ? nexthop_check(hop, &which) : NULL;
        if (why != NULL) {
            sbuf_printf(&text, "bad next hop \"%.*s\" (%s): %s", STR_FMT(which),
                        q->r.why.n > 0 ? q->r.why.p : "", why);
            bad(q, text.p);
        } else {
            finish(q, ROUTE_OK);
        }
    }
    sbuf_free(&text);
}

static void run(struct route_query *q) {
    switch (q->step) {
    case STEP_CLASS:
        class_next(q);
        break;
    case STEP_SENDER_TRANSPORT:
        step_sender_transport(q);
        break;
    case STEP_RELAYHOST:
        step_relayhost(q);
        break;
    case STEP_TRANSPORT:
        step_transport(q);
        break;
    case STEP_RECORD:
        step_record(q);
        break;
    default:
        step_end(q);
        break;
    }
}

static struct route_query *query_new(const struct config *cfg, struct lookup *k, struct str sender,
                                     struct str recipient, struct trace *trace, route_fn fn,
                                     void *arg) {
    struct route_query *q = MEM_NEW(struct route_query);
    q->cfg = config_ref((struct config *)(uintptr_t)cfg);
    q->lookup = k;
    q->trace = trace;
    q->fn = fn;
    q->arg = arg;
    q->sender = str_dup(sender);
    if (recipient.n == 0) {
        struct sbuf r = {0};
        sbuf_printf(&r, "%s@%s", cfg->p.empty_address_recipient, cfg->p.myhostname);
        q->rcpt = sbuf_take(&r);
    } else {
        q->rcpt = str_dup(recipient);
    }
    return q;
}

static struct route_query *start(struct route_query *q) {
    run(q);
    if (q->finished) {
        query_free(q);
        return NULL;
    }
    q->returned = true;
    return q;
}

struct route_query *route_resolve(const struct config *cfg, struct lookup *k, struct str sender,
                                  struct str recipient, struct trace *trace, route_fn fn,
                                  void *arg) {
    return start(query_new(cfg, k, sender, recipient, trace, fn, arg));
}

struct route_query *route_resolve_via(const struct config *cfg, struct lookup *k,
                                      struct str nexthop, struct str sender, struct str recipient,
                                      struct trace *trace, route_fn fn, void *arg) {
    struct route_query *q = query_new(cfg, k, sender, recipient, trace, fn, arg);
    sbuf_add_c(&q->transport, "smtp");
    set_nexthop(q, nexthop, "the relay host that was asked for");
    q->class = CLASS_DEFAULT;
    q->step = STEP_RECORD;
    return start(q);
}

void route_cancel(struct route_query *q) {
    if (q == NULL)
        return;
    lookup_cancel(q->lookup, q->tag);
    query_free(q);
}
