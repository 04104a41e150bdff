/*
 * deliver/resolver.c - names to addresses; see resolver.h
 *
 * A query frees itself after fn has returned, or, when it was cancelled, once libunbound has
 * nothing of it any more.
 */
#include "deliver/resolver.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unbound.h>

#include "mail/address.h"
#include "util/log.h"
#include "util/mem.h"

#define T_A    1
#define T_PTR  12
#define T_MX   15
#define T_AAAA 28

struct resolver {
    struct loop *loop;
    struct ub_ctx *ctx; /* NULL: no servers are configured */
    uv_poll_t poll;
    bool use_dns;
    bool use_hosts;
    bool v4, v6;
    char *hosts; /* text of the hosts file */
};

struct part {
    struct resolver_query *q;
    int id;
    bool open;
};

struct resolver_query {
    struct resolver *r;
    enum resolve_type type;
    resolve_fn fn; /* NULL: cancelled */
    void *arg;
    struct part parts[2];
    unsigned open;      /* questions without an answer */
    struct later known; /* gives an answer that was known at once */
    bool failed;
    struct resolve_answer a;
};

static void on_readable(uv_poll_t *h, int status, int events) {
    struct resolver *r = h->data;
    (void)status;
    (void)events;
    ub_process(r->ctx);
}

static bool word_in(const char *list, const char *word) {
    struct str rest = str_of(list), w;
    while (str_split(&rest, ", \t", &w))
        if (str_ieq_c(w, word))
            return true;
    return false;
}

/* Adds every server; false if there is none. */
static bool add_servers(struct resolver *r, const struct config *cfg) {
    struct str rest = str_of(cfg->p.resolver_servers), w, line;
    bool any = false;
    while (str_split(&rest, ", \t", &w)) {
        char *addr = str_dup(w);
        any = ub_ctx_set_fwd(r->ctx, addr) == 0 || any;
        free(addr);
    }
    if (cfg->p.resolver_servers[0] != '\0')
        return any;
    int err;
    rest = config_file(cfg, cfg->p.resolver_file, &err);
    while (str_split(&rest, "\n", &line)) {
        if (!str_split(&line, " \t", &w) || !str_eq_c(w, "nameserver") ||
            !str_split(&line, " \t", &w))
            continue;
        char *addr = str_dup(w);
        any = ub_ctx_set_fwd(r->ctx, addr) == 0 || any;
        free(addr);
    }
    return any;
}

static void set_option(struct resolver *r, const char *name, const char *value) {
    int rc = ub_ctx_set_option(r->ctx, name, value);
    if (rc != 0)
        log_warn("smtp", "resolver option %s %s: %s", name, value, ub_strerror(rc));
}

static bool start_dns(struct resolver *r, const struct config *cfg) {
    r->ctx = ub_ctx_create();
    if (r->ctx == NULL)
        return false;
    ub_ctx_debuglevel(r->ctx, 0);
    set_option(r, "do-not-query-localhost:", "no");
    set_option(r, "unblock-lan-zones:", "yes");
    set_option(r, "msg-cache-size:", "16m");
    set_option(r, "rrset-cache-size:", "32m");
    set_option(r, "cache-max-negative-ttl:", "60");
    set_option(r, "module-config:", "iterator");
    if (!add_servers(r, cfg) || ub_ctx_async(r->ctx, 1) != 0 || ub_fd(r->ctx) < 0) {
        ub_ctx_delete(r->ctx);
        r->ctx = NULL;
        return false;
    }
    /* What the servers say of a laboratory's names counts.  Last: it freezes the options. */
    ub_ctx_zone_remove(r->ctx, "test.");
    return true;
}

struct resolver *resolver_new(struct loop *l, const struct config *cfg) {
    struct resolver *r = MEM_NEW(struct resolver);
    const char *how = cfg->p.smtp_host_lookup, *proto = cfg->p.inet_protocols;
    int err;
    r->loop = l;
    r->use_dns = word_in(how, "dns") && !word_in(cfg->p.smtp_dns_support_level, "disabled");
    r->use_hosts = word_in(how, "native") || !r->use_dns;
    r->v4 = word_in(proto, "all") || word_in(proto, "ipv4");
    r->v6 = word_in(proto, "all") || word_in(proto, "ipv6");
    if (r->use_hosts)
        r->hosts = str_dup(config_file(cfg, cfg->p.resolver_hosts_file, &err));
    if (r->use_dns && !start_dns(r, cfg))
        log_warn("smtp", "no DNS server is configured in resolver_servers or %s",
                 cfg->p.resolver_file);
    if (r->ctx != NULL && uv_poll_init(&l->uv, &r->poll, ub_fd(r->ctx)) == 0) {
        r->poll.data = r;
        uv_poll_start(&r->poll, UV_READABLE, on_readable);
    }
    return r;
}

static void answer_clear(struct resolve_answer *a) {
    for (size_t i = 0; i < a->n_mx; i++)
        free(a->mx[i].name);
    free(a->mx);
    free(a->addrs);
    free(a->name);
    *a = (struct resolve_answer){0};
}

static void query_free(struct resolver_query *q) {
    answer_clear(&q->a);
    free(q);
}

static int cmp_mx(const void *a, const void *b) {
    return (int)((const struct resolve_mx *)a)->pref - (int)((const struct resolve_mx *)b)->pref;
}

static void conclude(struct resolver_query *q) {
    bool any = q->a.n_addrs > 0 || q->a.n_mx > 0 || q->a.name != NULL || q->a.null_mx;
    q->a.rc = any           ? RESOLVE_OK
              : q->a.bad_mx ? RESOLVE_MALFORMED
              : q->failed   ? RESOLVE_FAILED
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
    bool whole = n >= 3 && wire_name(p + 2, n - 2, &name);
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
    if (a->name == NULL && wire_name(p, n, &name) && addr_valid_host(sbuf_str(&name)))
        a->name = sbuf_take(&name);
    sbuf_free(&name);
}

static void take_result(struct resolver_query *q, const struct ub_result *res) {
    for (int i = 0; res->havedata && res->data[i] != NULL; i++) {
        size_t n = (size_t)res->len[i];
        if (res->qtype == T_A && n == 4)
            add_addr(&q->a, AF_INET, res->data[i]);
        else if (res->qtype == T_AAAA && n == 16)
            add_addr(&q->a, AF_INET6, res->data[i]);
        else if (res->qtype == T_MX)
            add_mx(&q->a, (const uint8_t *)res->data[i], n);
        else if (res->qtype == T_PTR)
            add_ptr(&q->a, (const uint8_t *)res->data[i], n);
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
    int rc =
        q->r->ctx == NULL ? -1 : ub_resolve_async(q->r->ctx, name, type, 1, p, on_result, &p->id);
    if (rc != 0) {
        p->open = false;
        q->open--;
        q->failed = true;
    }
}

/* Lines "address name name…". */
static void ask_hosts(struct resolver_query *q, const char *name) {
    struct str rest = str_of(q->r->hosts == NULL ? "" : q->r->hosts), line, addr, word;
    while (str_split(&rest, "\n", &line)) {
        ptrdiff_t hash = str_chr(line, '#');
        if (hash >= 0)
            line.n = (size_t)hash;
        struct netaddr a;
        if (!str_split(&line, " \t", &addr) || !netaddr_parse(&a, addr, 0))
            continue;
        bool wanted = a.u.sa.sa_family == AF_INET ? q->r->v4 : q->r->v6;
        while (wanted && str_split(&line, " \t", &word))
            if (str_ieq_c(word, name)) {
                q->a.addrs = mem_realloc(q->a.addrs, (q->a.n_addrs + 1) * sizeof(struct netaddr));
                q->a.addrs[q->a.n_addrs++] = a;
                break;
            }
    }
}

struct resolver_query *resolver_ask(struct resolver *r, enum resolve_type type, const char *name,
                                    resolve_fn fn, void *arg) {
    struct resolver_query *q = MEM_NEW(struct resolver_query);
    *q = (struct resolver_query){.r = r, .type = type, .fn = fn, .arg = arg};
    if (type == RESOLVE_MX && r->use_dns)
        ask_dns(q, 0, name, T_MX);
    if (type == RESOLVE_PTR && r->use_dns)
        ask_dns(q, 0, name, T_PTR);
    if (type == RESOLVE_ADDR) {
        if (r->use_hosts)
            ask_hosts(q, name);
        if (r->use_dns && q->a.n_addrs == 0) {
            if (r->v4)
                ask_dns(q, 0, name, T_A);
            if (r->v6)
                ask_dns(q, 1, name, T_AAAA);
        }
    }
    q->known.run = run_known;
    if (q->open == 0)
        loop_later(r->loop, &q->known);
    return q;
}

void resolver_cancel(struct resolver_query *q) {
    if (q == NULL)
        return;
    q->fn = NULL;
    loop_never(&q->known);
    for (size_t i = 0; i < 2; i++)
        if (q->parts[i].open && ub_cancel(q->r->ctx, q->parts[i].id) == 0) {
            q->parts[i].open = false;
            q->open--;
        }
    if (q->open == 0)
        query_free(q);
}
