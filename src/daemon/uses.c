/*
 * daemon/uses.c - which next hops a configuration names; see uses.h
 */
#include "daemon/uses.h"

#include <stddef.h>
#include <string.h>

#include "maps/maps.h"
#include "route/nexthop.h"
#include "util/idn.h"

enum use_kind { USE_HOP, USE_TRANSPORT, USE_HOP_TABLE, USE_TRANSPORT_TABLE };

static const struct {
    const char *name;
    size_t offset; /* in struct params */
    enum use_kind kind;
} places[] = {
#define PLACE(name, kind)                                                                          \
    { #name, offsetof(struct params, name), kind }
    PLACE(relayhost, USE_HOP),
    PLACE(default_transport, USE_TRANSPORT),
    PLACE(relay_transport, USE_TRANSPORT),
    PLACE(virtual_transport, USE_TRANSPORT),
    PLACE(local_transport, USE_TRANSPORT),
    PLACE(transport_maps, USE_TRANSPORT_TABLE),
    PLACE(sender_dependent_relayhost_maps, USE_HOP_TABLE),
    PLACE(sender_dependent_default_transport_maps, USE_TRANSPORT_TABLE),
#undef PLACE
};

struct uses {
    const struct config *cfg;
    uses_fn fn;
    void *arg;
    enum use_kind kind;
    const char *where;
};

/* A transport of that name takes mail to no host. */
static bool transport_has_no_host(const struct config *cfg, struct str name) {
    const struct service *t = config_transport(cfg, name);
    return t != NULL && (t->kind == SERVICE_ERROR || t->kind == SERVICE_RETRY ||
                         t->kind == SERVICE_DISCARD || t->kind == SERVICE_LOCAL);
}

/* A relay host, perhaps with a transport's name that is passed over; or transport:next hop. */
static void uses_take(const struct uses *u, struct str value) {
    struct sbuf plain = {0};
    struct str hop = str_trim(value);
    if (u->kind == USE_TRANSPORT || u->kind == USE_TRANSPORT_TABLE) {
        ptrdiff_t colon = str_chr(hop, ':');
        bool none = colon < 0 || transport_has_no_host(u->cfg, str_make(hop.p, (size_t)colon));
        hop = none ? STR_LIT("") : str_from(hop, (size_t)colon + 1);
    } else if (hop.n > 0) {
        nexthop_without_transport(hop, &plain);
        hop = sbuf_str(&plain);
    }
    if (hop.n > 0)
        u->fn(u->arg, hop, u->where);
    sbuf_free(&plain);
}

static int uses_take_row(void *arg, struct str key, struct str value) {
    (void)key;
    uses_take(arg, value);
    return 0;
}

static void uses_of_tables(struct uses *u, const char *param, const char *value) {
    struct maps *m = maps_open(value, u->cfg->dir);
    for (size_t i = 0; i < m->n; i++) {
        struct sbuf where = {0};
        sbuf_printf(&where, "%s (%s)", param, m->v[i]->spec);
        u->where = where.p;
        if (m->v[i]->fixed && !m->v[i]->ops->remote)
            map_each(m->v[i], uses_take_row, u);
        sbuf_free(&where);
    }
    maps_close(m);
}

/* Of one service; what it shares with main.cf was looked at already. */
static void uses_of_params(struct uses *u, const struct params *p, const struct params *seen) {
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        const char *value = params_text_at(p, places[i].offset);
        if (seen != NULL && strcmp(value, params_text_at(seen, places[i].offset)) == 0)
            continue;
        u->kind = places[i].kind;
        u->where = places[i].name;
        if (u->kind == USE_HOP || u->kind == USE_TRANSPORT)
            uses_take(u, str_of(value));
        else if (value[0] != '\0')
            uses_of_tables(u, places[i].name, value);
    }
}

void uses_each(const struct config *cfg, uses_fn fn, void *arg) {
    struct uses u = {.cfg = cfg, .fn = fn, .arg = arg};
    uses_of_params(&u, &cfg->p, NULL);
    for (size_t i = 0; i < cfg->n_services; i++)
        uses_of_params(&u, &cfg->services[i]->p, &cfg->p);
}

bool uses_mean(struct str hop, const char *name, const char *nexthop) {
    return (nexthop != NULL && idn_same(hop, str_of(nexthop), false)) ||
           idn_same(hop, str_of(name), false);
}
