/*
 * daemon/peername.c - host names of clients; see peername.h
 *
 * A name counts only if it leads back to the address, as in Postfix.  Loopback is "localhost"
 * without asking (RFC 6761).  Names that were found are kept for five minutes, in a fixed number of
 * places.  Where there is none, or name servers fail, the name is looked for each time again.
 *
 * The questions go through a resolver of their own: libunbound has few questions on the wire at a
 * time and rests servers that do not answer, so addresses without a name server would hold up the
 * names of relay hosts.  For the same reason a search has an end, and there are not many at a time:
 * beyond them a client has the result of name servers that fail.  A network that has many of them
 * gives one up for a client of another: one stranger has all addresses of a network.
 */
#include "daemon/peername.h"

#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "util/log.h"
#include "util/mem.h"

#define PLACES  1024U
#define KEEP_MS 300000
/* Searches at a time of one loop, and how long each may take. */
#define SEARCHES_MAX 100U
#define SEARCH_MS    10000
/* The log says at most so often that there are too many. */
#define TELL_MS 60000

struct place {
    char addr[INET6_ADDRSTRLEN];
    char *name; /* NULL: the place is free */
    int64_t until_ms;
};

struct peername {
    struct resolver *r;
    struct loop *loop;
    struct dl searches; /* struct search */
    size_t n_searches;
    int64_t told_ms; /* when the log said that there are too many; on the loop's clock */
    struct place places[PLACES];
};

/* For one address.  A search frees itself when those that wait for it have been told. */
struct search {
    struct dl link; /* peername->searches */
    struct peername *p;
    struct netaddr addr;
    bool given_up; /* it ends in this turn of the loop, and is not counted any more */
    char *name;    /* that the address has; NULL: none yet */
    struct resolver_query *query; /* the open one */
    struct loop_alarm alarm;      /* the end of its time */
    struct later late;
    struct dl waiters; /* struct waiter */
};

struct waiter {
    struct dl link;
    client_named_fn done;
    void *ctx;
};

static struct place *place_of(struct peername *p, const char *addr) {
    return &p->places[str_hash(str_of(addr)) % PLACES];
}

static void place_keep(struct peername *p, const struct netaddr *addr, const char *name) {
    char ip[INET6_ADDRSTRLEN];
    struct place *k = place_of(p, netaddr_text(addr, ip));
    free(k->name);
    k->name = mem_strdup(name);
    memcpy(k->addr, ip, sizeof ip);
    k->until_ms = p->loop->now_ms + KEEP_MS;
}

/* The search is over: reverse is what became of the address, verified of its name. */
static void peername_finish(struct search *s, enum client_naming reverse,
                            enum client_naming verified) {
    const struct client_names found = {reverse, verified,
                                       reverse == CLIENT_NAME_FOUND ? s->name : NULL,
                                       verified == CLIENT_NAME_FOUND ? s->name : NULL};
    struct dl *n;
    dl_remove(&s->link);
    s->p->n_searches -= s->given_up ? 0 : 1;
    loop_alarm_remove(&s->alarm);
    loop_never(&s->late);
    if (found.name != NULL)
        place_keep(s->p, &s->addr, found.name);
    while ((n = dl_pop(&s->waiters)) != NULL) {
        struct waiter *w = DL_OWNER(n, struct waiter, link);
        w->done(w->ctx, &found);
        free(w);
    }
    free(s->name);
    free(s);
}

static void search_late(struct later *late) {
    struct search *s = DL_OWNER(late, struct search, late);
    resolver_cancel(s->query);
    peername_finish(s, s->name == NULL ? CLIENT_NAME_FAILED : CLIENT_NAME_FOUND,
                    CLIENT_NAME_FAILED);
}

static enum client_naming naming_of(enum resolve_rc rc) {
    return rc == RESOLVE_OK         ? CLIENT_NAME_FOUND
           : rc == RESOLVE_NOTFOUND ? CLIENT_NAME_NONE
                                    : CLIENT_NAME_FAILED;
}

static void on_back(void *arg, const struct resolve_answer *a) {
    struct search *s = arg;
    bool same = false;
    for (size_t i = 0; i < a->n_addrs; i++)
        same = same || netaddr_same(&a->addrs[i], &s->addr);
    enum client_naming found = naming_of(a->rc);
    peername_finish(s, CLIENT_NAME_FOUND,
                    found == CLIENT_NAME_FOUND && !same ? CLIENT_NAME_NONE : found);
}

/* The DNS may hold any bytes, and the name goes into Received:. */
static void on_name(void *arg, const struct resolve_answer *a) {
    struct search *s = arg;
    enum client_naming found = naming_of(a->rc);
    if (found == CLIENT_NAME_FOUND && !addr_is_dns_name(str_of(a->name)))
        found = CLIENT_NAME_NONE;
    if (found != CLIENT_NAME_FOUND) {
        peername_finish(s, found, found);
        return;
    }
    s->name = mem_strdup(a->name);
    s->query = resolver_ask(s->p->r, RESOLVE_NATIVE, s->name, on_back, s);
}

struct peername *peername_new(struct loop *l, const struct config *cfg) {
    struct peername *p = MEM_NEW(struct peername);
    p->r = resolver_new(l, cfg);
    p->loop = l;
    p->told_ms = -TELL_MS;
    dl_init(&p->searches);
    return p;
}

/* The search for that address; NULL: there is none. */
static struct search *search_of(const struct peername *p, const struct netaddr *addr) {
    DL_EACH (it, &p->searches) {
        struct search *s = DL_OWNER(it, struct search, link);
        if (netaddr_same(&s->addr, addr))
            return s;
    }
    return NULL;
}

static struct search *search_begin(struct peername *p, const struct netaddr *addr) {
    struct search *s = MEM_NEW(struct search);
    s->p = p;
    s->addr = *addr;
    dl_init(&s->waiters);
    dl_push(&p->searches, &s->link);
    p->n_searches++;
    s->late.run = search_late;
    loop_alarm_add(p->loop, &s->alarm, &s->late);
    s->alarm.at_ms = p->loop->now_ms + SEARCH_MS;
    s->query = resolver_ask_name(p->r, addr, on_name, s);
    return s;
}

/* Of IPv4 the first 24 bits, of IPv6 the first 32: what one stranger may have all of. */
static bool is_same_network(const struct netaddr *a, const struct netaddr *b) {
    if (a->u.sa.sa_family != b->u.sa.sa_family)
        return false;
    return a->u.sa.sa_family == AF_INET ? memcmp(&a->u.in4.sin_addr, &b->u.in4.sin_addr, 3) == 0
                                        : memcmp(&a->u.in6.sin6_addr, &b->u.in6.sin6_addr, 4) == 0;
}

/* The searches for addresses of that one's network. */
static size_t searches_of_network(const struct peername *p, const struct netaddr *addr) {
    size_t n = 0;
    DL_EACH (it, &p->searches) {
        const struct search *s = DL_OWNER(it, struct search, link);
        n += !s->given_up && is_same_network(&s->addr, addr) ? 1 : 0;
    }
    return n;
}

/* Gives up the oldest search of the network that has most, for one more of addr's; false: addr's
 * network would have as many. */
static bool searches_make_room(struct peername *p, const struct netaddr *addr) {
    size_t most = searches_of_network(p, addr) + 1;
    struct search *gives = NULL;
    DL_EACH (it, &p->searches) {
        struct search *s = DL_OWNER(it, struct search, link);
        size_t n = s->given_up ? 0 : searches_of_network(p, &s->addr);
        if (n <= most)
            continue;
        most = n;
        gives = s;
    }
    if (gives == NULL)
        return false;
    gives->given_up = true;
    p->n_searches--;
    loop_later(p->loop, &gives->late);
    return true;
}

static void tell_too_many(struct peername *p) {
    if (p->loop->now_ms - p->told_ms < TELL_MS)
        return;
    p->told_ms = p->loop->now_ms;
    log_warn("smtpd", "name servers do not answer for %zu clients: others have no name for now",
             p->n_searches);
}

void peername_find(struct peername *p, const struct netaddr *addr, client_named_fn done,
                   void *ctx) {
    char ip[INET6_ADDRSTRLEN];
    struct client_names known = {CLIENT_NAME_FOUND, CLIENT_NAME_FOUND, "localhost", "localhost"};
    struct netaddr one;
    netaddr_parse(&one, STR_LIT("127.0.0.1"), 0);
    if (netaddr_same(addr, &one) ||
        (addr->u.sa.sa_family == AF_INET6 && netaddr_is_loopback(addr))) {
        done(ctx, &known);
        return;
    }
    const struct place *k = place_of(p, netaddr_text(addr, ip));
    if (k->name != NULL && strcmp(k->addr, ip) == 0 && k->until_ms > p->loop->now_ms) {
        known.name = known.reverse_name = k->name;
        done(ctx, &known);
        return;
    }
    struct search *s = search_of(p, addr);
    bool is_full = s == NULL && p->n_searches >= SEARCHES_MAX;
    if (is_full)
        tell_too_many(p);
    if (is_full && !searches_make_room(p, addr)) {
        static const struct client_names failed = {CLIENT_NAME_FAILED, CLIENT_NAME_FAILED, NULL,
                                                   NULL};
        done(ctx, &failed);
        return;
    }
    struct waiter *w = MEM_NEW(struct waiter);
    w->done = done;
    w->ctx = ctx;
    dl_push(&(s == NULL ? search_begin(p, addr) : s)->waiters, &w->link);
}

void peername_reload(struct peername *p, const struct config *cfg) {
    resolver_reload(p->r, cfg);
    for (size_t i = 0; i < PLACES; i++) {
        free(p->places[i].name);
        p->places[i].name = NULL;
    }
}
