/*
 * route/own.c - which addresses and ports are this system's own; see own.h
 */
#include "route/own.h"

#include <string.h>

static const char *interfaces_of(const struct params *p) {
    const char *v = p->inet_interfaces;
    if (strcmp(v, "all") == 0)
        return "0.0.0.0 ::";
    if (strcmp(v, "loopback-only") == 0)
        return "127.0.0.1 ::1";
    return v;
}

const char *own_interfaces(const struct config *cfg) {
    return interfaces_of(&cfg->p);
}

bool own_address_parse(struct netaddr *a, struct str word, uint16_t port) {
    if (word.n > 2 && word.p[0] == '[')
        word = str_make(word.p + 1, word.n - 2);
    return netaddr_parse(a, str_ieq_c(word, "localhost") ? STR_LIT("127.0.0.1") : word, port);
}

/* Is it an address of this machine?  All of 127.0.0.0/8 is. */
static bool own_is_here(const struct config *cfg, const struct netaddr *a) {
    char text[INET6_ADDRSTRLEN];
    return netaddr_is_loopback(a) || cfg_is_own_address(cfg, netaddr_text(a, text));
}

/* Is the address in a list?  Its words that are no address are passed over.  0.0.0.0 and :: are all
 * of this machine's addresses of their kind. */
static bool own_in(const struct config *cfg, struct str list, const struct netaddr *a) {
    struct str word;
    struct netaddr one;
    while (str_split(&list, ", \t\r\n", &word)) {
        if (!own_address_parse(&one, word, 0))
            continue;
        if (netaddr_same(&one, a) || (netaddr_is_any(&one) && own_is_here(cfg, a) &&
                                      one.u.sa.sa_family == a->u.sa.sa_family))
            return true;
    }
    return false;
}

bool own_only_address(const struct params *p, int family, struct netaddr *a) {
    struct str rest = str_of(interfaces_of(p)), word;
    struct netaddr one;
    bool any = false;
    while (str_split(&rest, ", \t\r\n", &word)) {
        if (!own_address_parse(&one, word, 0))
            return false; /* a name may have more of them */
        if (one.u.sa.sa_family != family)
            continue;
        if (any && !netaddr_same(&one, a))
            return false;
        *a = one;
        any = true;
    }
    return any && !netaddr_is_any(a) && !netaddr_is_loopback(a);
}

/* Can a proxy reach one of these addresses that are listened on?  Not a loopback address; one that
 * is a proxy's itself takes what is sent to that one alone. */
static bool own_behind_proxy(const struct config *cfg, struct str list, const char *proxies) {
    struct str word;
    struct netaddr one;
    while (str_split(&list, ", \t\r\n", &word))
        if (own_address_parse(&one, word, 0) && !netaddr_is_loopback(&one) &&
            !own_in(cfg, str_of(proxies), &one))
            return true;
    return false;
}

const struct service *own_service_at(const struct config *cfg, const char *proxies,
                                     const struct netaddr *a) {
    bool proxy = own_in(cfg, str_of(proxies), a);
    for (size_t i = 0; i < cfg->n_services; i++) {
        const struct service *svc = cfg->services[i];
        struct str host;
        uint16_t port;
        if (svc->kind != SERVICE_SMTPD ||
            nexthop_of_service(str_of(svc->name), &host, &port) != NULL || port != netaddr_port(a))
            continue;
        if (host.n == 0)
            host = str_of(own_interfaces(cfg));
        if (own_in(cfg, host, a) || (proxy && own_behind_proxy(cfg, host, proxies)))
            return svc;
    }
    return NULL;
}

static const struct service *own_service_in(const struct config *cfg, struct str addresses,
                                            uint16_t port, bool loopback) {
    const struct service *svc = NULL;
    struct str word;
    struct netaddr a;
    while (svc == NULL && str_split(&addresses, ", \t\r\n", &word))
        if (netaddr_parse(&a, word, port) && (loopback || !netaddr_is_loopback(&a)))
            svc = own_service_at(cfg, cfg->p.proxy_interfaces, &a);
    return svc;
}

const struct service *own_service_of(const struct config *cfg, const struct nexthop *hop) {
    struct netaddr a;
    if (netaddr_parse(&a, hop->host, hop->port))
        return own_service_at(cfg, cfg->p.proxy_interfaces, &a);
    if (str_ieq_c(hop->host, "localhost"))
        return own_service_in(cfg, STR_LIT("127.0.0.1 ::1"), hop->port, true);
    if (!str_ieq_c(hop->host, cfg->p.myhostname))
        return NULL;
    /* its addresses are not known: one that others reach, or that of Debian's /etc/hosts */
    const struct service *svc = own_service_in(
        cfg, str_of(cfg_source_fact(cfg->source, "system_addresses")), hop->port, false);
    return svc != NULL ? svc : own_service_in(cfg, STR_LIT("127.0.1.1"), hop->port, true);
}
