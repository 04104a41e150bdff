/*
 * deliver/targets.c - what to connect to: next hops, MX, addresses
 *
 * Destinations of the next hop list are resolved one after the other, only when the ones before
 * have failed.  [host] means its addresses, host its mail exchangers (RFC 5321 section 5).
 */
#include <stdlib.h>
#include <string.h>

#include "deliver/session.h"
#include "util/mem.h"

static void add_target(struct dsess *s, const char *host, const struct netaddr *a) {
    int64_t max = s->p->smtp_mx_address_limit;
    if (max > 0 && s->hop_targets >= max)
        return;
    s->hop_targets++;
    s->targets = mem_realloc(s->targets, (s->n_targets + 1) * sizeof *s->targets);
    struct target *t = &s->targets[s->n_targets++];
    *t = (struct target){.host = mem_strdup(host), .dest = str_dup(s->hop.dest), .addr = *a};
    t->own_mx = !s->configured;
    t->fallback = s->fallback_added;
    netaddr_set_port(&t->addr, s->hop.port);
}

static void mx_free(struct dsess *s) {
    for (size_t i = 0; s->mx != NULL && i < s->n_mx; i++)
        free(s->mx[i].name);
    free(s->mx);
    s->mx = NULL;
    s->n_mx = s->mx_at = 0;
}

void targets_free(struct dsess *s) {
    for (size_t i = 0; i < s->n_targets; i++) {
        free(s->targets[i].host);
        free(s->targets[i].dest);
    }
    free(s->targets);
    s->targets = NULL;
    s->n_targets = s->at = 0;
    mx_free(s);
    free(s->hops);
    s->hops = NULL;
    s->hops_left = STR_NONE;
}

void targets_begin(struct dsess *s) {
    targets_free(s);
    s->hops = mem_strdup(s->nexthop);
    s->hops_left = str_of(s->hops);
    s->fallback_added = false;
    s->sessions = 0;
    mailerr_free(&s->err);
}

bool target_is_self(const struct dsess *s, const struct netaddr *a) {
    struct str own = str_of(cfg_source_fact(s->cfg->source, "system_addresses")), w;
    const char *proxies = s->p->proxy_interfaces;
    bool ours = false;
    while (!ours && str_split(&own, " ", &w)) {
        struct netaddr o;
        ours = netaddr_parse(&o, w, 0) && netaddr_same(&o, a);
    }
    own = str_of(proxies);
    while (!ours && str_split(&own, ", \t", &w)) {
        struct netaddr o;
        ours = netaddr_parse(&o, w, 0) && netaddr_same(&o, a);
    }
    if (!ours)
        return false;
    for (size_t i = 0; i < s->cfg->n_services; i++) {
        const struct service *svc = s->cfg->services[i];
        struct nexthop n;
        struct str name = str_of(svc->name);
        ptrdiff_t colon = str_rchr(name, ':');
        struct sbuf b = {0};
        if (svc->kind != SERVICE_SMTPD)
            continue;
        sbuf_printf(&b, "h:%.*s", STR_FMT(str_from(name, (size_t)(colon + 1))));
        bool match = nexthop_parse(&n, sbuf_str(&b), 0) == NULL && n.port == netaddr_port(a);
        struct netaddr bound;
        bool one = colon > 0 && netaddr_parse(&bound, str_make(name.p, (size_t)colon), 0);
        sbuf_free(&b);
        if (match && (!one || netaddr_same(&bound, a)))
            return true;
    }
    return false;
}

static void shuffle(struct dsess *s, struct netaddr *v, size_t n) {
    for (size_t i = n; i > 1 && s->p->smtp_randomize_addresses; i--) {
        size_t k = (size_t)random() % i;
        struct netaddr t = v[i - 1];
        v[i - 1] = v[k];
        v[k] = t;
    }
}

/* Preferred family first, as smtp_address_preference says. */
static bool wrong_family(const struct dsess *s, const struct netaddr *a) {
    const char *pref = s->p->smtp_address_preference;
    return (strcmp(pref, "ipv4") == 0 && a->u.sa.sa_family != AF_INET) ||
           (strcmp(pref, "ipv6") == 0 && a->u.sa.sa_family != AF_INET6);
}

static void add_addresses(struct dsess *s, const char *host, const struct resolve_answer *a) {
    shuffle(s, a->addrs, a->n_addrs);
    for (int late = 0; late < 2; late++)
        for (size_t i = 0; i < a->n_addrs; i++)
            if (wrong_family(s, &a->addrs[i]) == (late == 1))
                add_target(s, host, &a->addrs[i]);
}

/* A host that has no address is an error of the destination, kept in case all others fail too. */
static void no_address(struct dsess *s, const char *host, enum resolve_rc rc) {
    bool own = s->configured;
    s->site_err = true;
    if (rc == RESOLVE_FAILED)
        session_fail(s, MAIL_DEFERRED, "4.4.3",
                     "Host or domain name not found. Name service error "
                     "for name=%s type=A: Host not found, try again",
                     host);
    else if (own)
        session_fail(s, MAIL_DEFERRED, "4.3.5",
                     "Host or domain name not found. Name service error "
                     "for name=%s type=A: Host not found",
                     host);
    else
        session_fail(s, MAIL_BOUNCED, "5.4.4",
                     "Host or domain name not found. Name service error "
                     "for name=%s type=A: Host not found",
                     host);
    probe_failed(s);
}

static void on_host(void *arg, const struct resolve_answer *a) {
    struct dsess *s = arg;
    bool from_mx = s->mx != NULL;
    const char *host = from_mx ? s->mx[s->mx_at].name : NULL;
    char *name = host != NULL ? mem_strdup(host) : str_dup(s->hop.host);
    s->query = NULL;
    if (a->rc == RESOLVE_OK)
        add_addresses(s, name, a);
    else
        no_address(s, name, a->rc);
    if (from_mx)
        s->mx_at++;
    free(name);
    targets_next(s);
}

static void ask_host(struct dsess *s, const char *host) {
    struct resolver_query *q = resolver_ask(s->d->resolver, RESOLVE_ADDR, host, on_host, s);
    if (q != NULL)
        s->query = q;
}

/* Is the exchanger we would go to ourselves?  Then nothing after it may be used (RFC 5321 5.1). */
static void on_mx(void *arg, const struct resolve_answer *a) {
    struct dsess *s = arg;
    char *domain = str_dup(s->hop.host);
    s->query = NULL;
    s->site_err = true;
    if (a->rc == RESOLVE_OK && a->null_mx && a->n_mx == 0) {
        session_fail(s, s->configured ? MAIL_DEFERRED : MAIL_BOUNCED,
                     s->configured ? "4.3.5" : "5.1.0", "Domain %s does not accept mail (nullMX)",
                     domain);
        probe_failed(s);
        targets_next(s);
    } else if (a->rc == RESOLVE_OK) {
        s->mx = mem_zalloc(a->n_mx * sizeof *s->mx);
        s->n_mx = a->n_mx;
        for (size_t i = 0; i < a->n_mx; i++)
            s->mx[i] = (struct resolve_mx){mem_strdup(a->mx[i].name), a->mx[i].pref};
        probe_ok(s, "dns", "%s has %zu mail exchanger%s, first %s", domain, a->n_mx,
                 a->n_mx == 1 ? "" : "s", s->mx[0].name);
        targets_next(s);
    } else if (a->rc == RESOLVE_NOTFOUND || s->p->ignore_mx_lookup_error) {
        ask_host(s, domain);
    } else {
        session_fail(s, MAIL_DEFERRED, "4.4.3",
                     "Host or domain name not found. Name service error "
                     "for name=%s type=MX: Host not found, try again",
                     domain);
        probe_failed(s);
        targets_next(s);
    }
    free(domain);
}

static void begin_hop(struct dsess *s) {
    s->hop_targets = 0;
    struct netaddr a;
    char *host = str_dup(s->hop.host);
    struct resolver_query *q = NULL;
    if (netaddr_parse(&a, s->hop.host, s->hop.port)) {
        add_target(s, host, &a);
        targets_next(s);
    } else if (s->hop.bracketed || strcmp(s->p->smtp_dns_support_level, "disabled") == 0) {
        ask_host(s, host);
    } else {
        q = resolver_ask(s->d->resolver, RESOLVE_MX, host, on_mx, s);
        if (q != NULL)
            s->query = q;
    }
    free(host);
}

/* After the last destination: smtp_fallback_relay. */
static bool add_fallback(struct dsess *s) {
    if (s->fallback_added || s->p->smtp_fallback_relay[0] == '\0')
        return false;
    s->fallback_added = true;
    s->hops_left = str_of(s->p->smtp_fallback_relay);
    s->configured = true;
    return true;
}

static void next_hop(struct dsess *s) {
    struct str one;
    mx_free(s);
    if (!nexthop_split(&s->hops_left, &one) &&
        (!add_fallback(s) || !nexthop_split(&s->hops_left, &one))) {
        targets_ready(s, false);
        return;
    }
    const char *why = nexthop_parse(&s->hop, one, 25);
    if (why != NULL) {
        s->site_err = true;
        session_fail(s, MAIL_DEFERRED, "4.3.5", "bad next hop \"%.*s\": %s", STR_FMT(one), why);
        probe_failed(s);
        next_hop(s);
        return;
    }
    begin_hop(s);
}

void targets_next(struct dsess *s) {
    s->phase = DSESS_RESOLVE;
    if (s->at < s->n_targets)
        targets_ready(s, true);
    else if (s->mx != NULL && s->mx_at < s->n_mx)
        ask_host(s, s->mx[s->mx_at].name);
    else
        next_hop(s);
}
