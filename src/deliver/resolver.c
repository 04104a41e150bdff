/*
 * deliver/resolver.c - names to addresses; see resolver.h
 *
 * A query frees itself after fn has returned, or, when it was cancelled, once libunbound has
 * nothing of it any more.  It keeps the settings that it was asked with (struct ways): they are
 * freed when a reload has replaced them and the last such query is gone, never inside libunbound.
 * What could not be started (no descriptor was left) is started by a later question.
 */
#include "deliver/resolver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unbound.h>

#include "mail/address.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/threads.h"

#define T_A    1
#define T_PTR  12
#define T_MX   15
#define T_AAAA 28

#define RESTART_MS 1000 /* so long no start is tried again */

/* How names are looked up, by one configuration. */
struct ways {
    size_t users;       /* open queries, and the resolver while they are its own */
    struct ub_ctx *ctx; /* NULL: it could not be started yet, or no servers are configured */
    uv_poll_t poll;     /* of ctx; in use while ctx is not NULL */
    struct sbuf servers;
    int64_t restart_ms; /* loop's time of the next try to start, or to say that none works */
    bool asked;         /* ctx was asked something, and so has its thread */
    enum resolve_type addresses; /* what ADDR is */
    char *hosts;                 /* text of the hosts file */
    struct sbuf about;           /* all settings that they were made of */
};

struct resolver {
    struct loop *loop;
    bool v4, v6;
    struct ways *ways; /* of new queries */
};

struct part {
    struct resolver_query *q;
    int id;
    bool open;
};

struct resolver_query {
    struct resolver *r;
    struct ways *ways;
    resolve_fn fn; /* NULL: cancelled */
    void *arg;
    struct part parts[2];
    char *in_hosts;     /* is looked for in the hosts file if the DNS has it not; NULL: nothing */
    unsigned open;      /* questions without an answer */
    struct later known; /* gives an answer that was known at once */
    bool failed;
    struct resolve_answer a;
};

static void on_readable(uv_poll_t *h, int status, int events) {
    struct ways *w = h->data;
    (void)status;
    (void)events;
    ub_process(w->ctx);
}

/* The servers of resolver_servers, or of resolver_file, each with a blank. */
static void list_servers(const struct config *cfg, struct sbuf *out) {
    struct str rest = str_of(cfg->p.resolver_servers), word, line;
    int err;
    while (str_split(&rest, ", \t", &word))
        sbuf_printf(out, "%.*s ", STR_FMT(word));
    if (cfg->p.resolver_servers[0] != '\0')
        return;
    rest = config_file(cfg, cfg->p.resolver_file, &err);
    while (str_split(&rest, "\n", &line))
        if (str_split(&line, " \t", &word) && str_eq_c(word, "nameserver") &&
            str_split(&line, " \t", &word))
            sbuf_printf(out, "%.*s ", STR_FMT(word));
}

/* Adds every server; false if there is none. */
static bool add_servers(struct ub_ctx *ctx, struct str servers) {
    struct str one;
    bool any = false;
    while (str_split(&servers, " ", &one)) {
        char *addr = str_dup(one);
        any = ub_ctx_set_fwd(ctx, addr) == 0 || any;
        free(addr);
    }
    return any;
}

static void set_option(struct ub_ctx *ctx, const char *name, const char *value) {
    int rc = ub_ctx_set_option(ctx, name, value);
    if (rc != 0)
        log_warn("smtp", "resolver option %s %s: %s", name, value, ub_strerror(rc));
}

/* Zones that libunbound would answer by itself.  What the servers say of a home's, a laboratory's
 * or a hidden network's names counts. */
static const char *const reserved[] = {"test.", "invalid.", "onion.", "home.arpa.",
                                       "127.in-addr.arpa."};

/* NULL if there is no server to be asked. */
static struct ub_ctx *dns_new(struct str servers) {
    struct ub_ctx *ctx = ub_ctx_create();
    if (ctx == NULL)
        return NULL;
    ub_ctx_debuglevel(ctx, 0);
    set_option(ctx, "do-not-query-localhost:", "no");
    set_option(ctx, "unblock-lan-zones:", "yes");
    set_option(ctx, "msg-cache-size:", "16m");
    set_option(ctx, "rrset-cache-size:", "32m");
    set_option(ctx, "cache-max-negative-ttl:", "60");
    set_option(ctx, "module-config:", "iterator");
    /* Names that the servers do not answer hold up no other: each question has a socket of its own,
     * and what is known of a server is soon forgotten, or it would count as dead for a quarter of
     * an hour after some questions in a row without an answer. */
    set_option(ctx, "outgoing-range:", "512");
    set_option(ctx, "num-queries-per-thread:", "4096");
    set_option(ctx, "outgoing-num-tcp:", "32");
    set_option(ctx, "infra-host-ttl:", "1");
    if (!add_servers(ctx, servers) || ub_ctx_async(ctx, 1) != 0 || ub_fd(ctx) < 0) {
        ub_ctx_delete(ctx);
        return NULL;
    }
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++)
        ub_ctx_zone_remove(ctx, reserved[i]); /* last: it freezes the options */
    return ctx;
}

static bool ways_try_dns(struct loop *l, struct ways *w) {
    w->ctx = dns_new(sbuf_str(&w->servers));
    if (w->ctx == NULL)
        return false;
    if (uv_poll_init(&l->uv, &w->poll, ub_fd(w->ctx)) != 0) {
        ub_ctx_delete(w->ctx);
        w->ctx = NULL;
        return false;
    }
    w->poll.data = w;
    uv_poll_start(&w->poll, UV_READABLE, on_readable);
    return true;
}

/* There are servers, and nothing asks them. */
static bool ways_lack_dns(const struct ways *w) {
    return w->ctx == NULL && w->servers.n > 0;
}

static void say_unasked(const struct ways *w) {
    log_warn("smtp", "the DNS servers %scannot be asked for now: names are not resolved",
             w->servers.p);
}

static void ways_start_dns(struct loop *l, struct ways *w, const char *file) {
    w->restart_ms = l->now_ms + RESTART_MS;
    if (w->servers.n == 0 && w->addresses != RESOLVE_NATIVE)
        log_warn("smtp", "no DNS server is configured in resolver_servers or %s", file);
    else if (w->servers.n > 0 && !ways_try_dns(l, w))
        say_unasked(w);
}

/* A later question finds what was lacking. */
static void ways_restart_dns(struct loop *l, struct ways *w) {
    if (!ways_lack_dns(w) || l->now_ms < w->restart_ms)
        return;
    w->restart_ms = l->now_ms + RESTART_MS;
    if (ways_try_dns(l, w))
        log_info("smtp", "the DNS servers %sare asked again", w->servers.p);
}

/* libunbound starts its thread at the first question, and does not say that it could not: neither
 * that question nor any other would be answered, and ub_ctx_delete() would wait for ever. */
static bool ways_may_ask(struct loop *l, struct ways *w) {
    if (w->ctx == NULL || w->asked || threads_fit(1))
        return w->ctx != NULL;
    if (l->now_ms >= w->restart_ms) {
        w->restart_ms = l->now_ms + RESTART_MS;
        say_unasked(w);
    }
    return false;
}

/* The settings, without what they begin. */
static struct ways *ways_of(const struct config *cfg) {
    struct ways *w = MEM_NEW(struct ways);
    int err;
    w->users = 1;
    w->addresses = resolver_address_type(&cfg->p);
    w->hosts = str_dup(config_file(cfg, cfg->p.resolver_hosts_file, &err));
    list_servers(cfg, &w->servers);
    sbuf_printf(&w->about, "%d %s\n%s", (int)w->addresses, w->servers.n > 0 ? w->servers.p : "",
                w->hosts);
    return w;
}

static void ways_free(struct ways *w) {
    sbuf_free(&w->about);
    sbuf_free(&w->servers);
    free(w->hosts);
    free(w);
}

/* The loop has let go of the descriptor, and no function of libunbound is running. */
static void ways_closed(uv_handle_t *h) {
    struct ways *w = h->data;
    ub_ctx_delete(w->ctx);
    ways_free(w);
}

static void ways_unuse(struct ways *w) {
    if (--w->users > 0)
        return;
    if (w->ctx != NULL)
        uv_close((uv_handle_t *)&w->poll, ways_closed);
    else
        ways_free(w);
}

void resolver_reload(struct resolver *r, const struct config *cfg) {
    struct ways *w = ways_of(cfg);
    if (r->ways != NULL && str_eq(sbuf_str(&w->about), sbuf_str(&r->ways->about))) {
        ways_free(w);
        return;
    }
    ways_start_dns(r->loop, w, cfg->p.resolver_file);
    if (r->ways != NULL)
        ways_unuse(r->ways);
    r->ways = w;
}

struct resolver *resolver_new(struct loop *l, const struct config *cfg) {
    struct resolver *r = MEM_NEW(struct resolver);
    struct str proto = str_of(cfg->p.inet_protocols);
    r->loop = l;
    r->v4 = list_has_word(proto, "all") || list_has_word(proto, "ipv4");
    r->v6 = list_has_word(proto, "all") || list_has_word(proto, "ipv6");
    resolver_reload(r, cfg);
    return r;
}

static void answer_clear(struct resolve_answer *a) {
    for (size_t i = 0; i < a->n_mx; i++)
        free(a->mx[i].name);
    free(a->mx);
    free(a->addrs);
    free(a->name);
    free(a->from[0].owner);
    free(a->from[1].owner);
    *a = (struct resolve_answer){0};
}

static void query_free(struct resolver_query *q) {
    answer_clear(&q->a);
    free(q->in_hosts);
    ways_unuse(q->ways);
    free(q);
}

static int cmp_mx(const void *a, const void *b) {
    return (int)((const struct resolve_mx *)a)->pref - (int)((const struct resolve_mx *)b)->pref;
}

static void ask_hosts(struct resolver_query *q, const char *name);

static void conclude(struct resolver_query *q) {
    if (q->in_hosts != NULL && q->a.n_addrs == 0 && !q->failed)
        ask_hosts(q, q->in_hosts);
    bool any = q->a.n_addrs > 0 || q->a.n_mx > 0 || q->a.name != NULL || q->a.null_mx;
    q->a.rc = any           ? RESOLVE_OK
              : q->failed   ? RESOLVE_FAILED
              : q->a.bad_mx ? RESOLVE_MALFORMED
                            : RESOLVE_NOTFOUND;
    if (q->a.n_mx > 1)
        qsort(q->a.mx, q->a.n_mx, sizeof *q->a.mx, cmp_mx);
    if (q->fn != NULL)
        q->fn(q->arg, &q->a);
    query_free(q);
}

static void run_known(struct later *l) {
    conclude(DL_OWNER(l, struct resolver_query, known));
}

static void add_addr(struct resolve_answer *a, int family, const void *data) {
    a->addrs = mem_realloc(a->addrs, (a->n_addrs + 1) * sizeof *a->addrs);
    struct netaddr *n = &a->addrs[a->n_addrs++];
    memset(n, 0, sizeof *n);
    n->u.sa.sa_family = (sa_family_t)family;
    if (family == AF_INET)
        memcpy(&n->u.in4.sin_addr, data, 4);
    else
        memcpy(&n->u.in6.sin6_addr, data, 16);
}

/* A domain name in wire format as text without the final dot; false if it is malformed, or has a
 * label that the text could not show. */
static bool wire_name(const uint8_t *p, size_t n, struct sbuf *out) {
    while (n > 0 && p[0] != 0) {
        size_t k = p[0];
        if (k > 63 || k + 1 > n || memchr(p + 1, '.', k) != NULL)
            return false;
        if (out->n > 0)
            sbuf_add_ch(out, '.');
        sbuf_add(out, p + 1, k);
        p += k + 1;
        n -= k + 1;
    }
    return n > 0;
}

/* Some domains name an address in digits where a host belongs; it is used, as Postfix does. */
static bool names_exchanger(struct str name) {
    struct netaddr a;
    return addr_is_dns_name(name) || netaddr_parse(&a, name, 0);
}

static void add_mx(struct resolve_answer *a, const uint8_t *p, size_t n) {
    struct sbuf name = {0};
    bool whole = wire_name(p + 2, n - 2, &name);
    if (whole && name.n == 0) {
        a->null_mx = true;
    } else if (whole && names_exchanger(sbuf_str(&name))) {
        a->mx = mem_realloc(a->mx, (a->n_mx + 1) * sizeof *a->mx);
        a->mx[a->n_mx++] = (struct resolve_mx){sbuf_take(&name), (uint16_t)(p[0] << 8 | p[1])};
    } else {
        a->bad_mx = true;
    }
    sbuf_free(&name);
}

static void add_ptr(struct resolve_answer *a, const uint8_t *p, size_t n) {
    struct sbuf name = {0};
    if (a->name == NULL && wire_name(p, n, &name))
        a->name = sbuf_take(&name);
    sbuf_free(&name);
}

/* Do labels and an empty one at their end fill n bytes? */
static bool wire_is_whole(const uint8_t *p, size_t n) {
    size_t at = 0;
    while (at < n && p[at] != 0 && p[at] <= 63)
        at += p[at] + 1U;
    return at + 1 == n && p[at] == 0;
}

/* A record that is cut off says nothing: neither what there is nor that there is nothing. */
static bool record_is_whole(int type, const uint8_t *p, size_t n) {
    switch (type) {
    case T_A:
        return n == 4;
    case T_AAAA:
        return n == 16;
    case T_MX:
        return n > 2 && wire_is_whole(p + 2, n - 2);
    default:
        return true;
    }
}

/* Without the dot at its end. */
static struct str owner_of(const struct ub_result *res) {
    const char *given =
        res->canonname != NULL && res->canonname[0] != '\0' ? res->canonname : res->qname;
    struct str name = str_of(given);
    if (name.n > 1 && name.p[name.n - 1] == '.')
        name.n--;
    return name;
}

static void take_result(struct resolver_query *q, const struct ub_result *res) {
    struct resolve_from *from = &q->a.from[res->qtype == T_AAAA];
    if (res->havedata && from->owner == NULL)
        *from = (struct resolve_from){str_dup(owner_of(res)), res->ttl};
    for (int i = 0; res->havedata && res->data[i] != NULL; i++) {
        size_t n = (size_t)res->len[i];
        const uint8_t *data = (const uint8_t *)res->data[i];
        if (!record_is_whole(res->qtype, data, n))
            q->failed = true;
        else if (res->qtype == T_A)
            add_addr(&q->a, AF_INET, data);
        else if (res->qtype == T_AAAA)
            add_addr(&q->a, AF_INET6, data);
        else if (res->qtype == T_MX)
            add_mx(&q->a, data, n);
        else if (res->qtype == T_PTR)
            add_ptr(&q->a, data, n);
    }
    if (!res->havedata && res->rcode != 0 && !res->nxdomain)
        q->failed = true;
}

static void on_result(void *arg, int err, struct ub_result *res) {
    struct part *p = arg;
    struct resolver_query *q = p->q;
    p->open = false;
    if (err != 0 || res == NULL)
        q->failed = true;
    else
        take_result(q, res);
    ub_resolve_free(res);
    if (--q->open == 0)
        conclude(q);
}

static void ask_dns(struct resolver_query *q, size_t i, const char *name, int type) {
    struct part *p = &q->parts[i];
    p->q = q;
    p->open = true;
    q->open++;
    struct ways *w = q->ways;
    bool may = ways_may_ask(q->r->loop, w);
    int rc = may ? ub_resolve_async(w->ctx, name, type, 1, p, on_result, &p->id) : -1;
    w->asked = w->asked || rc == 0;
    if (rc != 0) {
        p->open = false;
        q->open--;
        q->failed = true;
    }
}

static void ask_addresses(struct resolver_query *q, const char *name) {
    if (q->r->v4)
        ask_dns(q, 0, name, T_A);
    if (q->r->v6)
        ask_dns(q, 1, name, T_AAAA);
}

/* The next line of the hosts file, "address name name…": its address, and the names behind it. */
static bool hosts_line(struct str *rest, struct str *addr, struct str *names) {
    while (str_split(rest, "\n", names)) {
        ptrdiff_t hash = str_chr(*names, '#');
        if (hash >= 0)
            names->n = (size_t)hash;
        if (str_split(names, " \t", addr))
            return true;
    }
    return false;
}

static void ask_hosts(struct resolver_query *q, const char *name) {
    struct str rest = str_of(q->ways->hosts), addr, names, word;
    struct netaddr a;
    while (hosts_line(&rest, &addr, &names)) {
        if (!netaddr_parse(&a, addr, 0))
            continue;
        bool wanted = a.u.sa.sa_family == AF_INET ? q->r->v4 : q->r->v6;
        while (wanted && str_split(&names, " \t", &word))
            if (str_ieq_c(word, name)) {
                q->a.addrs = mem_realloc(q->a.addrs, (q->a.n_addrs + 1) * sizeof(struct netaddr));
                q->a.addrs[q->a.n_addrs++] = a;
                q->a.from_file = true;
                break;
            }
    }
}

/* Most lines are other addresses: they are told by their text. */
static void ask_hosts_name(struct resolver_query *q, const struct netaddr *of) {
    struct str rest = str_of(q->ways->hosts), addr, names, word;
    char text[INET6_ADDRSTRLEN];
    struct netaddr a;
    netaddr_text(of, text);
    while (q->a.name == NULL && hosts_line(&rest, &addr, &names)) {
        bool same = str_ieq_c(addr, text) ||
                    (str_chr(addr, ':') >= 0 && netaddr_parse(&a, addr, 0) && netaddr_same(&a, of));
        if (same && str_split(&names, " \t", &word))
            q->a.name = str_dup(word);
    }
}

static struct resolver_query *query_new(struct resolver *r, resolve_fn fn, void *arg) {
    struct resolver_query *q = MEM_NEW(struct resolver_query);
    *q = (struct resolver_query){.r = r, .ways = r->ways, .fn = fn, .arg = arg};
    q->known.run = run_known;
    q->ways->users++;
    ways_restart_dns(r->loop, q->ways);
    return q;
}

/* An answer that is there already is given in the loop's turn. */
static struct resolver_query *query_begun(struct resolver_query *q) {
    if (q->open == 0)
        loop_later(q->r->loop, &q->known);
    return q;
}

struct resolver_query *resolver_ask(struct resolver *r, enum resolve_type type, const char *name,
                                    resolve_fn fn, void *arg) {
    struct resolver_query *q = query_new(r, fn, arg);
    struct ways *w = q->ways;
    if (type == RESOLVE_MX)
        ask_dns(q, 0, name, T_MX);
    if (type == RESOLVE_ADDR)
        type = w->addresses;
    if (type == RESOLVE_NATIVE)
        ask_hosts(q, name);
    else if (type == RESOLVE_BOTH)
        q->in_hosts = mem_strdup(name);
    if (type != RESOLVE_MX && q->a.n_addrs == 0)
        ask_addresses(q, name);
    return query_begun(q);
}

struct resolver_query *resolver_ask_name(struct resolver *r, const struct netaddr *addr,
                                         resolve_fn fn, void *arg) {
    struct resolver_query *q = query_new(r, fn, arg);
    ask_hosts_name(q, addr);
    if (q->a.name == NULL) {
        struct sbuf arpa = {0};
        netaddr_arpa(addr, &arpa);
        ask_dns(q, 0, arpa.p, T_PTR);
        sbuf_free(&arpa);
    }
    return query_begun(q);
}

void resolver_cancel(struct resolver_query *q) {
    if (q == NULL)
        return;
    q->fn = NULL;
    loop_never(&q->known);
    for (size_t i = 0; i < 2; i++)
        if (q->parts[i].open && ub_cancel(q->ways->ctx, q->parts[i].id) == 0) {
            q->parts[i].open = false;
            q->open--;
        }
    if (q->open == 0)
        query_free(q);
}
