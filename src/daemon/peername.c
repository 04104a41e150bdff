/*
 * daemon/peername.c - host names of clients; see peername.h
 *
 * A name counts only if it leads back to the address, as in Postfix.  Loopback is "localhost"
 * without asking (RFC 6761).  Names that were found are kept for five minutes, in a fixed number of
 * places.  Where there is none, or name servers fail, the name is looked for each time again.
 */
#include "daemon/peername.h"

#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "util/mem.h"

#define PLACES  1024U
#define KEEP_MS 300000

struct place {
    char addr[INET6_ADDRSTRLEN];
    char *name; /* NULL: the place is free */
    int64_t until_ms;
};

struct peername {
    struct resolver *r;
    struct loop *loop;
    struct place places[PLACES];
};

struct search {
    struct peername *p;
    struct netaddr addr;
    char *name; /* that the address has; NULL: none yet */
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
                                       verified == CLIENT_NAME_FOUND ? s->name : NULL};
    if (found.name != NULL)
        place_keep(s->p, &s->addr, found.name);
    s->done(s->ctx, &found);
    free(s->name);
    free(s);
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
    resolver_ask(s->p->r, RESOLVE_NATIVE, s->name, on_back, s);
}

struct peername *peername_new(struct resolver *r, struct loop *l) {
    struct peername *p = MEM_NEW(struct peername);
    p->r = r;
    p->loop = l;
    return p;
}

void peername_find(struct peername *p, const struct netaddr *addr, client_named_fn done,
                   void *ctx) {
    char ip[INET6_ADDRSTRLEN];
    struct client_names known = {CLIENT_NAME_FOUND, CLIENT_NAME_FOUND, "localhost"};
    struct netaddr one;
    netaddr_parse(&one, STR_LIT("127.0.0.1"), 0);
    if (netaddr_same(addr, &one) ||
        (addr->u.sa.sa_family == AF_INET6 && netaddr_is_loopback(addr))) {
        done(ctx, &known);
        return;
    }
    const struct place *k = place_of(p, netaddr_text(addr, ip));
    if (k->name != NULL && strcmp(k->addr, ip) == 0 && k->until_ms > p->loop->now_ms) {
        known.name = k->name;
        done(ctx, &known);
        return;
    }
    struct search *s = MEM_NEW(struct search);
    *s = (struct search){.p = p, .addr = *addr, .done = done, .ctx = ctx};
    resolver_ask_name(p->r, addr, on_name, s);
}

void peername_forget(struct peername *p) {
    for (size_t i = 0; i < PLACES; i++) {
        free(p->places[i].name);
        p->places[i].name = NULL;
    }
}
