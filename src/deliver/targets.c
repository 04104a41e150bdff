/*
 * deliver/targets.c - the stage dns: what to connect to; next hops, MX, addresses
 *
 * Destinations of the next hop list are resolved one after the other, only when the ones before
 * have failed.  [host] means its addresses, host its mail exchangers (RFC 5321 section 5); the
 * addresses of all those of one preference come in an order of chance, and are known before the
 * first is used.  The stage begins again with each answer, until the target s->at is known or
 * nothing is left.
 *
 * The targets of the destination in use are, in this order: up to n_targets, what is used; up to
 * group_at, what is in its order, while must_look_on; up to n_known, what comes of the preference
 * that is being resolved.
 *
 * The session owns targets and names until targets_free; s->query is open from the question until
 * its answer or resolver_cancel.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deliver/session.h"
#include "route/own.h"
#include "util/chance.h"
#include "util/log.h"
#include "util/mem.h"

/* Of a domain's exchangers, the best ones, and of the addresses of a name: the owner of a name can
 * give it thousands. */
#define EXCHANGERS_MAX 100U
#define ADDRESSES_MAX  100U

static void add_target(struct dsess *s, const char *host, const struct netaddr *a) {
    s->targets = mem_realloc(s->targets, (s->n_known + 1) * sizeof *s->targets);
    struct target *t = &s->targets[s->n_known++];
    *t = (struct target){.host = mem_strdup(host), .dest = str_dup(s->hop.dest), .addr = *a};
    t->own_mx = !s->configured;
    t->fallback = s->fallback_added;
    netaddr_set_port(&t->addr, s->hop.port);
}

/* Forgets the targets that are known from there on. */
static void drop_targets(struct dsess *s, size_t from) {
    while (s->n_known > from) {
        struct target *t = &s->targets[--s->n_known];
        free(t->host);
        free(t->dest);
    }
}

static void mx_free(struct dsess *s) {
    for (size_t i = 0; s->mx != NULL && i < s->n_mx; i++)
        free(s->mx[i].name);
    free(s->mx);
    s->mx = NULL;
    s->n_mx = s->mx_at = 0;
    s->mx_self = false;
}

void targets_free(struct dsess *s) {
    drop_targets(s, 0);
    free(s->targets);
    s->targets = NULL;
    s->n_targets = s->at = s->hop_at = s->group_at = 0;
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
    s->moved = false;
    mailerr_free(&s->now);
    mailerr_free(&s->err);
}

/* Is it an address and a port that we listen on? */
static bool target_is_self(const struct dsess *s, const struct netaddr *a) {
    return own_service_at(s->cfg, s->p->proxy_interfaces, a) != NULL;
}

static bool target_is_v4(const struct target *t) {
    return t->addr.u.sa.sa_family == AF_INET;
}

static void swap_targets(struct dsess *s, size_t i, size_t k) {
    struct target keep = s->targets[i];
    s->targets[i] = s->targets[k];
    s->targets[k] = keep;
}

/* Each order of the targets that are known from there on is as likely as the others. */
static void shuffle_targets(struct dsess *s, size_t from) {
    for (size_t i = s->n_known; i > from + 1 && s->p->smtp_randomize_addresses; i--)
        swap_targets(s, i - 1, from + chance_below((uint32_t)(i - from)));
}

/* Not of the family that smtp_address_preference has first. */
static bool wrong_family(const struct dsess *s, const struct target *t) {
    const char *pref = s->p->smtp_address_preference;
    return (strcmp(pref, "ipv4") == 0 && !target_is_v4(t)) ||
           (strcmp(pref, "ipv6") == 0 && target_is_v4(t));
}

/* Those of the preferred family go before the others, which else stay in their order.  There may be
 * thousands: none is moved past the others one by one. */
static void prefer_family(struct dsess *s, size_t from) {
    size_t n = s->n_known - from, right = from;
    if (n == 0)
        return;
    struct target *others = mem_alloc(n * sizeof *others);
    size_t n_others = 0;
    for (size_t i = from; i < s->n_known; i++)
        if (wrong_family(s, &s->targets[i]))
            others[n_others++] = s->targets[i];
        else
            s->targets[right++] = s->targets[i];
    memcpy(s->targets + right, others, n_others * sizeof *others);
    free(others);
}

/* Exchangers of one preference take turns (RFC 5321 section 5.1), each address for itself, those
 * of the preferred family first.  None of them is used where one is ourselves. */
static void close_group(struct dsess *s) {
    if (s->mx_self)
        drop_targets(s, s->group_at);
    shuffle_targets(s, s->group_at);
    prefer_family(s, s->group_at);
    s->group_at = s->n_known;
}

/* Addresses of each family. */
struct quota {
    size_t v4, v6;
};

/* Of the destination that is being resolved, up to that target. */
static struct quota count_families(const struct dsess *s, size_t end) {
    struct quota q = {0, 0};
    for (size_t i = s->hop_at; i < end; i++)
        *(target_is_v4(&s->targets[i]) ? &q.v4 : &q.v6) += 1;
    return q;
}

static size_t address_limit(const struct dsess *s) {
    int64_t limit = s->p->smtp_mx_address_limit;
    return limit <= 0 ? SIZE_MAX : (size_t)limit;
}

/* How many are used where smtp_mx_address_limit does not let in all: half and half, of which the
 * family of the first address has the odd one, and more where the other family has less. */
static struct quota quota_of(const struct dsess *s, struct quota q) {
    size_t max = address_limit(s), half = max / 2;
    if (!s->p->smtp_balance_inet_protocols || q.v4 == 0 || q.v6 == 0 || q.v4 + q.v6 <= max)
        return q;
    size_t *first = target_is_v4(&s->targets[s->hop_at]) ? &q.v4 : &q.v6;
    size_t *other = first == &q.v4 ? &q.v6 : &q.v4;
    size_t least = *other < half ? *other : half;
    *first = *first < max - least ? *first : max - least;
    *other = *other < max - *first ? *other : max - *first;
    return q;
}

/* Does which of the known addresses are used hang on exchangers of a later preference?  They may
 * have the other family. */
static bool must_look_on(const struct dsess *s) {
    struct quota q = count_families(s, s->n_known);
    size_t half = address_limit(s) / 2;
    return s->n_known > s->n_targets && s->mx != NULL && s->mx_at < s->n_mx && !s->mx_self &&
           s->p->smtp_balance_inet_protocols && (q.v4 > half || q.v6 > half);
}

/* Decides which of the known addresses are used. */
static void settle_targets(struct dsess *s) {
    struct quota max = quota_of(s, count_families(s, s->n_known));
    for (size_t i = s->n_targets; i < s->n_known; i++) {
        struct quota used = count_families(s, s->n_targets);
        bool room = target_is_v4(&s->targets[i]) ? used.v4 < max.v4 : used.v6 < max.v6;
        if (room && s->n_targets - s->hop_at < address_limit(s))
            swap_targets(s, s->n_targets++, i);
    }
    drop_targets(s, s->n_targets);
    s->group_at = s->n_known;
}

/* Notes whether the address of an exchanger is ours. */
static void note_self(struct dsess *s, const struct netaddr *a) {
    struct netaddr to = *a;
    netaddr_set_port(&to, s->hop.port);
    s->mx_self = s->mx_self || (s->mx != NULL && target_is_self(s, &to));
}

static void add_addresses(struct dsess *s, const char *host, const struct resolve_answer *a) {
    for (size_t i = 0; i < a->n_addrs && i < ADDRESSES_MAX; i++) {
        note_self(s, &a->addrs[i]);
        add_target(s, host, &a->addrs[i]);
    }
}

/* A name of the destination leads nowhere: kept in case that all other hosts fail too. */
static void name_failed(struct dsess *s, const char *name, const char *type, enum resolve_rc rc) {
    bool ours = s->configured; /* a name that an administrator wrote never bounces mail */
    if (rc == RESOLVE_FAILED)
        session_note(s, MAIL_DEFERRED, BLAME_SITE, CAUSE_NAME_LATER, "4.4.3",
                     "Host or domain name not found. Name service error for name=%s type=%s: Host "
                     "not found, try again",
                     name, type);
    else if (rc == RESOLVE_ALL_DROPPED)
        session_note(s, MAIL_DEFERRED, BLAME_SITE, CAUSE_NAME_FILTERED, "4.7.0",
                     "Error looking up name=%s type=%s: DNS reply filter drops all results", name,
                     type);
    else if (rc == RESOLVE_UNFILTERED)
        session_note(s, MAIL_DEFERRED, BLAME_OURSELVES, CAUSE_SETTING, "4.4.3",
                     "Error looking up name=%s type=%s: Invalid DNS reply filter syntax", name,
                     type);
    else
        session_note(s, ours ? MAIL_DEFERRED : MAIL_BOUNCED, BLAME_SITE, CAUSE_NAME_UNKNOWN,
                     ours ? "4.3.5" : "5.4.4",
                     "Host or domain name not found. Name service error for name=%s type=%s: Host "
                     "not found",
                     name, type);
    session_take_error(s);
}

static void on_host(void *arg, const struct resolve_answer *a) {
    struct dsess *s = arg;
    bool from_mx = s->mx != NULL;
    const char *host = from_mx ? s->mx[s->mx_at].name : NULL;
    char *name = host != NULL ? mem_strdup(host) : str_dup(s->hop.host);
    s->query = NULL;
    if (from_mx)
        s->mx_at++;
    if (a->rc == RESOLVE_OK)
        add_addresses(s, name, a);
    else
        name_failed(s, name, "A", a->rc);
    free(name);
    s->resume(s, STEP_AGAIN);
}

static enum step ask_host(struct dsess *s, const char *host) {
    filter_ask_names(s, RESOLVE_ADDR, host, on_host);
    return STEP_WAIT;
}

static void take_exchangers(struct dsess *s, const char *domain, const struct resolve_answer *a) {
    s->n_mx = a->n_mx < EXCHANGERS_MAX ? a->n_mx : EXCHANGERS_MAX;
    s->mx = mem_zalloc(s->n_mx * sizeof *s->mx);
    for (size_t i = 0; i < s->n_mx; i++)
        s->mx[i] = (struct resolve_mx){mem_strdup(a->mx[i].name), a->mx[i].pref};
    watch_ok(s, "dns", "%s has %zu mail exchanger%s, first %s", domain, a->n_mx,
             a->n_mx == 1 ? "" : "s", s->mx[0].name);
}

/* The domain's own MX records forbid delivery: its address is no way round them (RFC 5321 section
 * 5.1). */
static void domain_failed(struct dsess *s, enum mail_cause cause, const char *dsn, const char *why,
                          const char *domain, const char *more) {
    bool ours = s->configured;
    session_note(s, ours ? MAIL_DEFERRED : MAIL_BOUNCED, BLAME_SITE, cause, ours ? "4.3.5" : dsn,
                 "%s%s%s", why, domain, more);
    session_take_error(s);
}

static void on_mx(void *arg, const struct resolve_answer *a) {
    struct dsess *s = arg;
    char *domain = str_dup(s->hop.host);
    s->query = NULL;
    if (a->null_mx)
        domain_failed(s, CAUSE_NULL_MX, "5.1.0", "Domain ", domain,
                      " does not accept mail (nullMX)");
    else if (a->rc == RESOLVE_OK)
        take_exchangers(s, domain, a);
    else if (a->rc == RESOLVE_ALL_DROPPED)
        name_failed(s, domain, "MX", a->rc);
    else if (a->rc == RESOLVE_NOTFOUND || s->p->ignore_mx_lookup_error)
        ask_host(s, domain);
    else if (a->rc == RESOLVE_MALFORMED)
        domain_failed(s, CAUSE_NAME_MALFORMED, "5.4.4", "Name service error for name=", domain,
                      " type=MX: Malformed or unexpected name server reply");
    else
        name_failed(s, domain, "MX", a->rc);
    free(domain);
    if (s->query == NULL)
        s->resume(s, STEP_AGAIN);
}

/* A path that does not begin with a slash is below queue_directory, as in Postfix: below Postfix's
 * own, where that is the one meant. */
static enum step begin_socket(struct dsess *s, const char *path) {
    struct sbuf whole = {0};
    struct netaddr a;
    if (path[0] != '/' && s->cfg->socket_folder != NULL)
        sbuf_printf(&whole, "%s/", s->cfg->socket_folder);
    sbuf_add_c(&whole, path);
    bool fits = netaddr_unix(&a, whole.p);
    if (fits)
        add_target(s, s->cfg->p.myhostname, &a);
    sbuf_free(&whole);
    if (fits)
        return STEP_AGAIN;
    session_note(s, MAIL_DEFERRED, BLAME_SITE, CAUSE_SETTING, "4.3.5",
                 "the path of a socket is too long: %s", path);
    session_take_error(s);
    return STEP_AGAIN;
}

/* Begins with the destination s->hop: its address is known, or it is asked for. */
static enum step begin_hop(struct dsess *s) {
    struct netaddr a;
    enum step step = STEP_WAIT;
    s->hop_at = s->group_at = s->n_known;
    s->hop_sessions = 0;
    char *host = str_dup(s->hop.host);
    if (s->hop.local) {
        step = begin_socket(s, host);
    } else if (netaddr_parse(&a, s->hop.host, s->hop.port)) {
        add_target(s, host, &a);
        step = STEP_AGAIN;
    } else if (s->hop.bracketed || !resolver_may_ask_mx(s->p)) {
        step = ask_host(s, host);
    } else {
        filter_ask_names(s, RESOLVE_MX, host, on_mx);
    }
    free(host);
    return step;
}

/* The next exchanger: it is an address, or its addresses are asked for. */
static enum step begin_exchanger(struct dsess *s) {
    struct netaddr a;
    const char *host = s->mx[s->mx_at].name;
    if (!netaddr_parse(&a, str_of(host), s->hop.port))
        return ask_host(s, host);
    s->mx_at++;
    if (s->watch == NULL)
        log_warn("smtp", "numeric domain name in resource data of MX record for %.*s: %s",
                 STR_FMT(s->hop.host), host);
    note_self(s, &a);
    add_target(s, host, &a);
    return STEP_AGAIN;
}

/* After the last destination: smtp_fallback_relay. */
static bool add_fallback(struct dsess *s) {
    if (!session_has_fallback(s))
        return false;
    struct sbuf hops = {0};
    nexthop_to_ascii(str_of(s->p->smtp_fallback_relay), s->p->enable_idna2003_compatibility, &hops);
    free(s->hops);
    s->hops = sbuf_take(&hops);
    s->fallback_added = true;
    s->hops_left = str_of(s->hops);
    s->configured = true;
    return true;
}

static enum step next_hop(struct dsess *s) {
    struct str one;
    mx_free(s);
    if (!nexthop_split(&s->hops_left, &one) &&
        (!add_fallback(s) || !nexthop_split(&s->hops_left, &one)))
        return STEP_ROUND_OVER;
    uint16_t port;
    const char *why = !nexthop_port(str_of(s->p->smtp_tcp_port), &port) ? "smtp_tcp_port is no port"
                      : session_is_lmtp(s) ? nexthop_parse_lmtp(&s->hop, one, port)
                                           : nexthop_parse(&s->hop, one, port);
    if (why == NULL)
        return begin_hop(s);
    session_note(s, MAIL_DEFERRED, BLAME_SITE, CAUSE_SETTING, "4.3.5", "bad next hop \"%.*s\": %s",
                 STR_FMT(one), why);
    session_take_error(s);
    return STEP_AGAIN;
}

/* It is ourselves: no exchanger of the same preference or after it may be used (RFC 5321 section
 * 5.1). */
static enum step loops_back(struct dsess *s, struct str dest, bool own_mx) {
    session_note(s, own_mx ? MAIL_BOUNCED : MAIL_DEFERRED, BLAME_SITE, CAUSE_LOOP,
                 own_mx ? "5.4.6" : "4.3.5", "mail for %.*s loops back to myself", STR_FMT(dest));
    session_take_error(s);
    return STEP_ROUND_OVER;
}

/* Has the next exchanger the preference of the one before it? */
static bool shares_preference(const struct dsess *s) {
    return s->mx != NULL && s->mx_at > 0 && s->mx_at < s->n_mx &&
           s->mx[s->mx_at].pref == s->mx[s->mx_at - 1].pref;
}

/* The target is known.  Is it ourselves? */
static enum step use_target(struct dsess *s) {
    const struct target *t = session_target(s);
    char ip[INET6_ADDRSTRLEN];
    if (netaddr_is_unix(&t->addr)) {
        snprintf(s->where, sizeof s->where, "%s[%s]", t->host, t->dest);
        snprintf(s->relay, sizeof s->relay, "%s", s->where);
        watch_ok(s, "dns", "%s (for %s)", s->relay, t->dest);
        return STEP_DONE;
    }
    netaddr_text(&t->addr, ip);
    snprintf(s->where, sizeof s->where, "%s[%s]", t->host, ip);
    snprintf(s->relay, sizeof s->relay, "%s:%u", s->where, netaddr_port(&t->addr));
    if (target_is_self(s, &t->addr))
        return loops_back(s, str_of(t->dest), t->own_mx);
    watch_ok(s, "dns", "%s (for %s)", s->relay, t->dest);
    return STEP_DONE;
}

/* May an exchanger of a later preference be of use? */
static bool has_exchangers_left(const struct dsess *s) {
    return s->mx != NULL && s->mx_at < s->n_mx && s->n_targets - s->hop_at < address_limit(s);
}

enum step dns_begin(struct dsess *s) {
    if (shares_preference(s))
        return begin_exchanger(s);
    close_group(s);
    if (must_look_on(s))
        return begin_exchanger(s);
    settle_targets(s);
    if (session_hop_is_over(s)) {
        s->at = s->n_targets;
        return next_hop(s);
    }
    if (s->at < s->n_targets)
        return use_target(s);
    if (s->mx_self)
        return loops_back(s, s->hop.dest, !s->configured);
    if (has_exchangers_left(s))
        return begin_exchanger(s);
    return next_hop(s);
}
