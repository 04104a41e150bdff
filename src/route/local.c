/*
 * route/local.c - is a domain local, so that a table is asked for local parts alone, too? see
 * local.h
 */
#include "route/local.h"

#include <string.h>

#include "mail/address.h"
#include "util/idn.h"
#include "util/net.h"

bool local_is_own_literal(const struct config *cfg, struct str domain) {
    struct netaddr a;
    char text[INET6_ADDRSTRLEN];
    if (domain.n < 3 || domain.p[0] != '[' || domain.p[domain.n - 1] != ']')
        return false;
    struct str ip = str_make(domain.p + 1, domain.n - 2);
    bool v6 = str_istarts(ip, "IPv6:");
    if (v6)
        ip = str_from(ip, 5);
    if (v6 && strstr(cfg->p.inet_protocols, "6") == NULL &&
        strstr(cfg->p.inet_protocols, "all") == NULL)
        return false;
    return netaddr_parse(&a, ip, 0) && (cfg_is_own_address(cfg, netaddr_text(&a, text)) ||
                                        list_has_word(str_of(cfg->p.proxy_interfaces), text));
}

uint32_t local_sender_now(struct lookup *k, const char *service, const struct config *cfg,
                          const struct params *p, struct str sender, enum match_rc *now,
                          lookup_match_fn fn, void *arg) {
    struct str domain = addr_domain(sender);
    bool idna2003 = p->enable_idna2003_compatibility;
    *now = MATCH_NO;
    if (domain.n == 0)
        return 0;
    if (idn_same(domain, str_of(p->myorigin), idna2003) || local_is_own_literal(cfg, domain)) {
        *now = MATCH_YES;
        return 0;
    }
    return lookup_match_now(k, service, p->mydestination, MATCH_DOMAIN, match_how_own(idna2003),
                            domain, now, fn, arg);
}
