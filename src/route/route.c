/*
 * route/route.c - transport and next hop; see route.h
 *
 * A query is a list of steps, each of which either goes on at once or asks the lookup process and
 * goes on in the answer: address class, sender-dependent transport, relay host, transport table.
 */
#include "route/route.h"

#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "route/nexthop.h"
#include "util/log.h"
#include "util/mem.h"

#define KEYS_MAX 40

enum step { STEP_CLASS, STEP_SENDER_TRANSPORT, STEP_RELAYHOST, STEP_TRANSPORT, STEP_END };

struct route_query {
    struct config *cfg; /* reference: a reload may drop the asker's */
    struct lookup *lookup;
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
    struct maps_key keys[KEYS_MAX];
    char *key_texts[KEYS_MAX];
    size_t n_keys;
};

static void run(struct route_query *q);

static void keys_clear(struct route_query *q) {
    for (size_t i = 0; i < q->n_keys; i++)
        free(q->key_texts[i]);
    q->n_keys = 0;
}

static void key_add(struct route_query *q, bool partial, const char *prefix, struct str a,
                    struct str b) {
    struct sbuf t = {0};
    if (q->n_keys == KEYS_MAX)
        return;
    sbuf_printf(&t, "%s%.*s%.*s", prefix, STR_FMT(a), STR_FMT(b));
    for (size_t i = 0; i < q->n_keys; i++)
        if (str_eq(q->keys[i].key, sbuf_str(&t))) {
            sbuf_free(&t);
            return;
        }
    q->key_texts[q->n_keys] = sbuf_take(&t);
    q->keys[q->n_keys] = (struct maps_key){str_of(q->key_texts[q->n_keys]), partial};
    q->n_keys++;
}

static void query_free(struct route_query *q) {
    keys_clear(q);
    sbuf_free(&q->transport);
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

static void fail_lookup(struct route_query *q, const char *param) {
    log_warn("trivial-rewrite", "%s lookup failure", param);
    sbuf_printf(&q->r.why, "%s lookup failure", param);
    finish(q, ROUTE_FAILED);
}

/* Keys of mail_addr_find(3): whole address, without extension, @domain. */
static void sender_keys(struct route_query *q, const char *null_key) {
    struct str a = str_of(q->sender), local = addr_local(a), domain = addr_domain(a);
    const char *delim = q->cfg->p.recipient_delimiter;
    struct sbuf ext = {0};
    keys_clear(q);
    if (a.n == 0) {
        key_add(q, false, "", str_of(null_key), STR_NONE);
        return;
    }
    struct str bare = delim[0] == '\0' ? STR_NONE : addr_strip_ext(local, delim);
    struct str at_domain = str_from(a, local.n);
    addr_external(&ext, a);
    key_add(q, false, "", sbuf_str(&ext), STR_NONE);
    key_add(q, false, "", a, STR_NONE);
    if (bare.n > 0)
        key_add(q, true, "", bare, at_domain);
    if (str_ieq_c(domain, q->cfg->p.myorigin)) {
        key_add(q, true, "", local, STR_NONE);
        if (bare.n > 0)
            key_add(q, true, "", bare, STR_NONE);
    }
    if (domain.n > 0)
        key_add(q, true, "@", domain, STR_NONE);
    sbuf_free(&ext);
}

static void class_next(struct route_query *q);

static void on_class(void *arg, enum match_rc rc) {
    struct route_query *q = arg;
    q->tag = 0;
    if (rc == MATCH_ERROR) {
        static const char *names[] = {"mydestination", "virtual_alias_domains",
                                      "virtual_mailbox_domains", "relay_domains"};
        fail_lookup(q, names[q->class]);
        return;
    }
    if (rc == MATCH_YES) {
        q->step = STEP_SENDER_TRANSPORT;
        run(q);
        return;
    }
    q->class ++;
    class_next(q);
}

static bool has_word(const char *list, const char *word) {
    struct str rest = str_of(list), w;
    while (str_split(&rest, ", \t", &w))
        if (str_eq_c(w, word))
            return true;
    return false;
}

static void class_next(struct route_query *q) {
    const struct params *p = &q->cfg->p;
    const char *lists[] = {p->mydestination, p->virtual_alias_domains, p->virtual_mailbox_domains,
                           p->relay_domains};
    if (q->class == CLASS_DEFAULT) {
        q->step = STEP_SENDER_TRANSPORT;
        run(q);
        return;
    }
    bool parents =
        q->class == CLASS_RELAY && has_word(p->parent_domain_matches_subdomains, "relay_domains");
    uint32_t tag = lookup_match(q->lookup, "trivial-rewrite", lists[q->class], MATCH_DOMAIN,
                                parents, addr_domain(str_of(q->rcpt)), on_class, q);
    if (tag != 0)
        q->tag = tag;
}

static bool is_dunno(struct str v) {
    return str_ieq_c(v, "DUNNO");
}

/* An empty or DUNNO answer means no override; true if a usable value is there. */
static bool usable(const struct maps_answer *a, const char *param, struct str key) {
    struct str v = str_trim(sbuf_str(&a->value));
    if (a->rc != MAP_FOUND || is_dunno(v))
        return false;
    if (v.n == 0)
        log_warn("trivial-rewrite", "%s: ignoring null lookup result for %.*s", param,
                 STR_FMT(key));
    return v.n > 0;
}

static void on_sender_transport(void *arg, const struct maps_answer *a) {
    struct route_query *q = arg;
    const char *param = "sender_dependent_default_transport_maps";
    q->tag = 0;
    if (a->rc == MAP_ERROR) {
        fail_lookup(q, param);
        return;
    }
    sbuf_reset(&q->transport);
    if (usable(a, param, q->keys[a->key].key))
        sbuf_add_str(&q->transport, str_trim(sbuf_str(&a->value)));
    else
        sbuf_add_c(&q->transport, q->cfg->p.default_transport);
    q->step = STEP_RELAYHOST;
    run(q);
}

static void step_sender_transport(struct route_query *q) {
    const struct params *p = &q->cfg->p;
    const char *own[] = {p->local_transport, "error:5.1.1 User unknown in virtual alias table",
                         p->virtual_transport, p->relay_transport, p->default_transport};
    if (q->class != CLASS_DEFAULT || p->sender_dependent_default_transport_maps[0] == '\0') {
        sbuf_add_c(&q->transport, own[q->class]);
        q->step = STEP_RELAYHOST;
        run(q);
        return;
    }
    sender_keys(q, p->empty_address_default_transport_maps_lookup_key);
    q->tag = lookup_maps(q->lookup, "trivial-rewrite", p->sender_dependent_default_transport_maps,
                         q->keys, q->n_keys, on_sender_transport, q);
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
        fail_lookup(q, param);
        return;
    }
    if (usable(a, param, q->keys[a->key].key))
        set_nexthop(q, str_trim(sbuf_str(&a->value)), param);
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
            sender_keys(q, p->empty_address_relayhost_maps_lookup_key);
            q->tag = lookup_maps(q->lookup, "trivial-rewrite", p->sender_dependent_relayhost_maps,
                                 q->keys, q->n_keys, on_relayhost, q);
            return;
        }
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
    if (hop.n > 0)
        set_nexthop(q, hop, "default_transport or relay_transport");
    q->transport.n = (size_t)colon;
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
            sbuf_reset(&q->r.nexthop);
            sbuf_add_str(&q->r.nexthop, addr_domain(str_of(q->rcpt)));
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
        fail_lookup(q, "transport_maps");
        return;
    }
    if (a->rc == MAP_FOUND)
        apply_table(q, str_trim(sbuf_str(&a->value)));
    q->step = STEP_END;
    run(q);
}

/* Keys of transport(5): address, without extension, domain, parents, "*". */
static void transport_keys(struct route_query *q) {
    struct str a = str_of(q->rcpt), local = addr_local(a), domain = addr_domain(a);
    const char *delim = q->cfg->p.recipient_delimiter;
    bool bare_parents = has_word(q->cfg->p.parent_domain_matches_subdomains, "transport_maps");
    struct sbuf ext = {0};
    keys_clear(q);
    addr_external(&ext, a);
    key_add(q, false, "", sbuf_str(&ext), STR_NONE);
    key_add(q, false, "", a, STR_NONE);
    struct str bare = delim[0] == '\0' ? STR_NONE : addr_strip_ext(local, delim);
    if (bare.n > 0)
        key_add(q, true, "", bare, str_from(a, local.n));
    key_add(q, true, "", domain, STR_NONE);
    for (ptrdiff_t dot; (dot = str_chr(domain, '.')) >= 0;) {
        domain = str_from(domain, (size_t)dot + 1);
        key_add(q, true, bare_parents ? "" : ".", domain, STR_NONE);
    }
    key_add(q, false, "*", STR_NONE, STR_NONE);
    sbuf_free(&ext);
}

static void step_transport(struct route_query *q) {
    apply_main_transport(q);
    q->step = STEP_END;
    /* The virtual alias class is not looked up (transport(5)). */
    if (q->cfg->p.transport_maps[0] == '\0' || q->class == CLASS_ALIAS) {
        run(q);
        return;
    }
    transport_keys(q);
    q->tag = lookup_maps(q->lookup, "trivial-rewrite", q->cfg->p.transport_maps, q->keys, q->n_keys,
                         on_transport, q);
}

static void bad(struct route_query *q, const char *text) {
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
    default:
        step_end(q);
        break;
    }
}

struct route_query *route_resolve(const struct config *cfg, struct lookup *k, struct str sender,
                                  struct str recipient, route_fn fn, void *arg) {
    struct route_query *q = MEM_NEW(struct route_query);
    q->cfg = config_ref((struct config *)(uintptr_t)cfg);
    q->lookup = k;
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
    run(q);
    if (q->finished) {
        query_free(q);
        return NULL;
    }
    q->returned = true;
    return q;
}

void route_cancel(struct route_query *q) {
    if (q == NULL)
        return;
    lookup_cancel(q->lookup, q->tag);
    query_free(q);
}
