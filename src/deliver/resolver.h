/*
 * deliver/resolver.h - names to addresses, on an event loop
 *
 * libunbound asks the servers of resolver_servers or resolver_file, and no others: without one it
 * refuses to start, because an unconfigured libunbound would ask the Internet's root servers.  One
 * resolver per loop; callbacks come on that loop, never before the call has returned.  It lives as
 * long as the process.  After a reload new questions are asked by the new settings and the new
 * hosts file; those that are open are answered by the old ones.
 */
#ifndef PH_DELIVER_RESOLVER_H
#define PH_DELIVER_RESOLVER_H

#include "config/config.h"
#include "util/loop.h"
#include "util/net.h"

struct resolver;
struct resolver_query;

enum resolve_rc {
    RESOLVE_OK,
    RESOLVE_NOTFOUND,
    RESOLVE_FAILED,    /* SERVFAIL, timeout */
    RESOLVE_MALFORMED, /* MX: there are records, and none names a host */
    /* Of smtp_dns_reply_filter (filter.c), never of the resolver. */
    RESOLVE_ALL_DROPPED,
    RESOLVE_UNFILTERED /* its table could not be asked, or has an action that is none */
};

/* Where records of one type came from. */
struct resolve_from {
    char *owner; /* behind all aliases; NULL: there are none */
    int ttl;     /* seconds */
};

struct resolve_mx {
    char *name;
    uint16_t pref;
};

struct resolve_answer {
    enum resolve_rc rc;
    struct netaddr *addrs; /* address queries */
    size_t n_addrs;
    struct resolve_mx *mx; /* MX queries, sorted by preference; malformed names are left out */
    size_t n_mx;
    char *name;                  /* of an address */
    bool null_mx;                /* a record says that the domain takes no mail (RFC 7505) */
    bool bad_mx;                 /* a malformed name was left out */
    bool from_file;              /* addresses: of the hosts file */
    struct resolve_from from[2]; /* of A or MX; of AAAA */
};

typedef void (*resolve_fn)(void *arg, const struct resolve_answer *a);

enum resolve_type { RESOLVE_ADDR, RESOLVE_MX, RESOLVE_NATIVE, RESOLVE_DNS, RESOLVE_BOTH };

/* May MX records be asked for? */
static inline bool resolver_may_ask_mx(const struct params *p) {
    return !list_has_word(str_of(p->smtp_dns_support_level), "disabled");
}

/* The type in whose place RESOLVE_ADDR is for a service with these parameters. */
static inline enum resolve_type resolver_address_type(const struct params *p) {
    struct str how = str_of(p->smtp_host_lookup);
    if (!list_has_word(how, "dns") || !resolver_may_ask_mx(p))
        return RESOLVE_NATIVE;
    return list_has_word(how, "native") ? RESOLVE_BOTH : RESOLVE_DNS;
}

struct resolver *resolver_new(struct loop *l, const struct config *cfg);
/* On the loop: new questions go by cfg.  What was remembered of old answers is kept if the settings
 * that concern the resolver are the same; inet_protocols stays as it was at the start. */
void resolver_reload(struct resolver *r, const struct config *cfg);
/* DNS: A and AAAA as inet_protocols says, from the DNS alone.  BOTH: from the hosts file, too, if
 * the DNS says that there are none.  NATIVE: from the hosts file, and from the DNS where that has
 * none. ADDR: the one of these that main.cf says.  fn is called once, from the loop; the query is
 * no more valid then. */
struct resolver_query *resolver_ask(struct resolver *r, enum resolve_type type, const char *name,
                                    resolve_fn fn, void *arg);
/* The name of an address, as NATIVE: any text without NUL, which may be no host name. */
struct resolver_query *resolver_ask_name(struct resolver *r, const struct netaddr *addr,
                                         resolve_fn fn, void *arg);
/* fn is not called any more.  NULL: nothing. */
void resolver_cancel(struct resolver_query *q);

#endif
