/*
 * daemon/audit_alias.c - posthouse check: aliases(5)
 *
 * Which aliases ask for a file, a command, an :include: file or a mailbox, or name an alias that is
 * not there: their mail waits.  And root's: what cron sends has no other place.  Rows of tables in
 * files only.
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/audit.h"
#include "mail/address.h"
#include "mail/addrlist.h"
#include "maps/maps.h"
#include "route/alias.h"
#include "route/keys.h"
#include "util/mem.h"

struct alias_audit {
    const struct config *cfg;
    struct diags *d;
    struct maps *maps;      /* alias_maps */
    struct map *map;        /* of the row */
    struct str name;        /* of the row */
    struct matchlist *mine; /* mydestination; NULL: where a name goes cannot be seen from here */
    size_t said;
};

static void alias_say(struct alias_audit *a, struct str item, const char *what) {
    struct sbuf where = {0}, text = {0};
    if (++a->said > AUDIT_SHOWN)
        return;
    map_where(a->map, a->name, &where);
    sbuf_add_safe(&text, a->name);
    sbuf_add_c(&text, "\": \"");
    sbuf_add_safe(&text, item);
    diag_add(a->d, DIAG_ERROR, where.p, 0, "alias \"%s\": %s: mail for it waits", text.p, what);
    sbuf_free(&where);
    sbuf_free(&text);
}

/* Has alias_maps that name, or the part before its extension? */
static enum map_rc alias_has(const struct alias_audit *a, struct str local) {
    struct maps_answer found = {0};
    struct str bare = keys_bare(&a->cfg->p, local);
    struct maps_key keys[2] = {{local, false}, {bare, false}};
    maps_find(a->maps, keys, bare.n > 0 ? 2 : 1, &found);
    enum map_rc rc = found.rc;
    maps_answer_free(&found);
    return rc;
}

/* An address that is delivered here is a name that must be an alias. */
static void audit_address(void *arg, const struct addrlist_item *item) {
    struct alias_audit *a = arg;
    char *err = NULL;
    struct str domain = item->has_domain ? addr_domain(item->addr) : str_of(a->cfg->p.myorigin);
    char *local = str_dup(item->has_domain ? addr_local(item->addr) : item->addr);
    str_lower(local, strlen(local));
    if (a->mine == NULL || local[0] == '\0' || matchlist_has(a->mine, domain, &err) != MATCH_YES)
        ;
    else if (str_ieq_c(a->name, local))
        alias_say(a, str_of(local), alias_kind_text(ALIAS_MAILBOX));
    else if (alias_has(a, str_of(local)) == MAP_NOT_FOUND)
        alias_say(a, str_of(local),
                  "there is no alias of that name, and Posthouse has no mailboxes");
    free(local);
    free(err);
}

static int audit_alias_row(void *arg, struct str key, struct str value) {
    struct alias_audit *a = arg;
    struct str rest = value, item;
    a->name = key;
    if (str_eq_c(key, "@") || str_istarts(key, "YP_")) /* postalias's own */
        return 0;
    while (alias_item_next(&rest, &item)) {
        const char *wrong = alias_kind_text(alias_item_kind(item));
        if (wrong != NULL)
            alias_say(a, item, wrong);
        else
            addrlist_each(item, audit_address, a);
    }
    return 0;
}

/* Is mail for names of mydestination delivered by aliases in every case? */
static bool delivers_by_aliases(const struct config *cfg) {
    const char *name = cfg->p.local_transport;
    const struct service *t = config_transport(cfg, str_make(name, strcspn(name, ":")));
    return t != NULL && t->kind == SERVICE_LOCAL && cfg->p.transport_maps[0] == '\0' &&
           !matchlist_has_tables(cfg->p.mydestination);
}

/* Does virtual_alias_maps take mail for root before alias_maps is asked, or cannot say? */
static bool root_goes_on_before(const struct config *c) {
    struct sbuf whole = {0};
    sbuf_printf(&whole, "root@%s", c->p.myorigin);
    struct str root = sbuf_str(&whole);
    const struct maps_key keys[] = {
        {root, false}, {str_make(root.p, 4), false}, {str_from(root, 4), false}};
    struct maps *maps = maps_open(c->p.virtual_alias_maps, c->dir);
    struct maps_answer found = {0};
    maps_find(maps, keys, 3, &found);
    bool goes = found.rc != MAP_NOT_FOUND;
    maps_answer_free(&found);
    maps_close(maps);
    sbuf_free(&whole);
    return goes;
}

static void audit_root(const struct alias_audit *a) {
    const struct config *cfg = a->cfg;
    const struct cfg_entry *e = cfg_file_find(&cfg->main, STR_LIT("mydestination"));
    char *err = NULL;
    if (a->mine != NULL && matchlist_has(a->mine, str_of(cfg->p.myorigin), &err) == MATCH_YES &&
        alias_has(a, STR_LIT("root")) == MAP_NOT_FOUND && !root_goes_on_before(cfg))
        diag_add(
            a->d, DIAG_NOTE, cfg->main.path, e == NULL ? 0 : e->line,
            "mail without a domain, such as cron's for root, is for root@%s, which "
            "mydestination names: %s, and Posthouse has no mailboxes, so it waits in the queue "
            "(clients get 451) until it is too old; \"root: somebody@somewhere\" in "
            "/etc/aliases, and newaliases, sends it there, an empty mydestination to the relay "
            "host",
            cfg->p.myorigin,
            cfg->p.alias_maps[0] == '\0' ? "alias_maps is empty" : "alias_maps has no root");
    free(err);
}

void audit_aliases(const struct config *c, struct diags *d) {
    struct alias_audit a = {.cfg = c, .d = d, .maps = maps_open(c->p.alias_maps, c->dir)};
    if (delivers_by_aliases(c))
        a.mine = matchlist_open(c->p.mydestination, NULL, MATCH_DOMAIN,
                                match_how_own(c->p.enable_idna2003_compatibility));
    for (size_t i = 0; i < a.maps->n; i++) {
        a.map = a.maps->v[i];
        if (a.map->fixed && !a.map->ops->remote && a.map->opened)
            map_each(a.map, audit_alias_row, &a);
    }
    if (a.said > AUDIT_SHOWN)
        diag_add(d, DIAG_ERROR, NULL, 0, "alias_maps: %zu more aliases like these",
                 a.said - AUDIT_SHOWN);
    audit_root(&a);
    if (a.mine != NULL)
        matchlist_close(a.mine);
    maps_close(a.maps);
}
