/*
 * daemon/peername.c - host names of clients; see peername.h
 *
 * A name counts only if it leads back to the address, as in Postfix.  Loopback is "localhost"
 * without asking (RFC 6761).  Answers are kept for five minutes, in a fixed number of places.
 */
#include "daemon/peername.h"

#include <stdlib.h>
#include <string.h>

#include "util/mem.h"

#define PLACES  1024U
#define KEEP_MS 300000

struct place {
    char addr[INET6_ADDRSTRLEN];
    char *name; /* NULL: has none */
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
    char *name;
    void (*done)(void *ctx, const char *name);
    void *ctx;
};

static struct place *place_of(struct peername *p, const char *addr) {
    return &p->places[str_hash(str_of(addr)) % PLACES];
}

static void peername_finish(struct search *s, const char *name) {
    char ip[INET6_ADDRSTRLEN];
    struct place *k = place_of(s->p, netaddr_text(&s->addr, ip));
    free(k->name);
    k->name = name == NULL ? NULL : mem_strdup(name);
    memcpy(k->addr, ip, sizeof ip);
    k->until_ms = s->p->loop->now_ms + KEEP_MS;
    s->done(s->ctx, name);
    free(s->name);
    free(s);
}

static void on_back(void *arg, const struct resolve_answer *a) {
    struct search *s = arg;
    bool same = false;
    for (size_t i = 0; i < a->n_addrs; i++)
        same = same || netaddr_same(&a->addrs[i], &s->addr);
    peername_finish(s, same ? s->name : NULL);
}

static void on_ptr(void *arg, const struct resolve_answer *a) {
    struct search *s = arg;
    if (a->rc != RESOLVE_OK) {
        peername_finish(s, NULL);
        return;
    }
    s->name = mem_strdup(a->name);
    resolver_ask(s->p->r, RESOLVE_ADDR, s->name, on_back, s);
}

struct peername *peername_new(struct resolver *r, struct loop *l) {
    struct peername *p = MEM_NEW(struct peername);
    p->r = r;
    p->loop = l;
    return p;
}

void peername_find(struct peername *p, const struct netaddr *addr,
                   void (*done)(void *ctx, const char *name), void *ctx) {
    char ip[INET6_ADDRSTRLEN];
    struct netaddr one;
    struct sbuf arpa = {0};
    netaddr_parse(&one, STR_LIT("127.0.0.1"), 0);
    if (netaddr_same(addr, &one) ||
        (addr->u.sa.sa_family == AF_INET6 && netaddr_is_loopback(addr))) {
        done(ctx, "localhost");
        return;
    }
    struct place *k = place_of(p, netaddr_text(addr, ip));
    if (strcmp(k->addr, ip) == 0 && k->until_ms > p->loop->now_ms) {
        done(ctx, k->name);
        return;
    }
    struct search *s = MEM_NEW(struct search);
    *s = (struct search){.p = p, .addr = *addr, .done = done, .ctx = ctx};
    netaddr_arpa(addr, &arpa);
    resolver_ask(p->r, RESOLVE_PTR, arpa.p, on_ptr, s);
    sbuf_free(&arpa);
}
