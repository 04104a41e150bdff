/*
 * daemon/audit_records.c - posthouse check: relay records that the next hop was perhaps meant for
 *
 * A record is found by the text of the next hop.  "[relay.example]:submission" and
 * "[relay.example]:587" are one host and two texts: mail would go there without the record's login.
 * So would that of everybody else where the records of relayhost's next hop are for some.
 * Next hops are looked at in main.cf and in file tables.  Where records cannot be read, nothing is
 * said here.
 */
#include <stdlib.h>
#include <string.h>

#include "accounts/relays.h"
#include "daemon/audit.h"
#include "maps/maps.h"
#include "maps/relays.h"
#include "route/nexthop.h"
#include "util/idn.h"
#include "util/mem.h"

#define RECORDS_KNOWN 2000U /* more are not compared with */

/* One for each record. */
struct known_record {
    char *name;
    char *hop;    /* the next hop that means the record, in one form (idn_plain) */
    bool is_all;  /* it is for all mail that main.cf names it for */
    bool is_some; /* it is the server's, and its login is for certain accounts alone */
};

struct records_look {
    const struct config *cfg;
    struct diags *d;
    const char *param; /* that has the next hop */
    struct known_record *v;
    size_t n;
    size_t said;
};

static char *plain_of(struct str text) {
    struct sbuf plain = {0};
    idn_plain(text, false, &plain);
    return sbuf_take(&plain);
}

static void record_known(void *arg, const struct relay_fields *f) {
    struct records_look *l = arg;
    if (l->n == RECORDS_KNOWN)
        return;
    l->v = mem_realloc(l->v, (l->n + 1) * sizeof *l->v);
    l->v[l->n].name = mem_strdup(f->name);
    l->v[l->n].is_all =
        f->owner[0] == '\0' && (f->users[0] == '\0' || strcmp(f->users, RELAY_EVERYBODY) == 0 ||
                                list_has_word(str_of(f->users), RELAYS_NAMED_TOO));
    l->v[l->n].is_some = f->owner[0] == '\0' && f->user[0] != '\0' && !l->v[l->n].is_all;
    l->v[l->n++].hop = plain_of(str_of(f->nexthop[0] != '\0' ? f->nexthop : f->hosts));
}

static bool is_one_host(struct str one, struct str other) {
    struct nexthop a, b;
    return nexthop_parse(&a, one, 25) == NULL && nexthop_parse(&b, other, 25) == NULL &&
           str_ieq(a.host, b.host) && a.port == b.port;
}

/* Do both lists have the same hosts and ports, whatever way they are written? */
static bool is_one_hop(struct str one, struct str other) {
    struct str a, b;
    bool more = nexthop_split(&one, &a), others = nexthop_split(&other, &b);
    while (more && others && is_one_host(a, b)) {
        more = nexthop_split(&one, &a);
        others = nexthop_split(&other, &b);
    }
    return !more && !others;
}

/* The record that was perhaps meant; NULL where a record has that next hop, or none is like it. */
static const struct known_record *record_near(const struct records_look *l, const char *hop) {
    const struct known_record *near = NULL;
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->v[i].hop, hop) == 0)
            return NULL;
        if (near == NULL && is_one_hop(str_of(l->v[i].hop), str_of(hop)))
            near = &l->v[i];
    }
    return near;
}

static void hop_look(struct records_look *l, struct str hop) {
    char *plain = plain_of(hop);
    const struct known_record *near = record_near(l, plain);
    if (near != NULL && ++l->said <= AUDIT_SHOWN) {
        const struct cfg_entry *e = cfg_file_find(&l->cfg->main, str_of(l->param));
        struct sbuf shown = {0};
        sbuf_add_safe(&shown, hop);
        sbuf_add_c(&shown, ": the relay record \"");
        sbuf_add_safe(&shown, str_of(near->name));
        sbuf_add_c(&shown, "\" is for \"");
        sbuf_add_safe(&shown, str_of(near->hop));
        diag_add(l->d, DIAG_WARN, l->cfg->main.path, e == NULL ? 0 : e->line,
                 "%s: the next hop %s\", which is written in another way: mail goes there without "
                 "the record; both have to be alike",
                 l->param, shown.p);
        sbuf_free(&shown);
    }
    free(plain);
}

/* The first record with that next hop, which main.cf names for all mail; NULL where there is none,
 * or where one is for all that main.cf names. */
static const struct known_record *record_of_some(const struct records_look *l, const char *hop) {
    const struct known_record *some = NULL;
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->v[i].hop, hop) != 0)
            continue;
        if (l->v[i].is_all)
            return NULL;
        if (some == NULL && l->v[i].is_some)
            some = &l->v[i];
    }
    return some;
}

/* main.cf has no login of its own that the others' mail could have. */
static void relayhost_look(struct records_look *l) {
    const struct cfg_entry *e = cfg_file_find(&l->cfg->main, STR_LIT("relayhost"));
    char *plain = plain_of(str_of(l->cfg->p.relayhost));
    const struct known_record *some =
        l->cfg->p.smtp_sasl_auth_enable ? NULL : record_of_some(l, plain);
    if (some != NULL) {
        struct sbuf shown = {0};
        sbuf_add_safe(&shown, str_of(some->name));
        diag_add(
            l->d, DIAG_WARN, l->cfg->main.path, e == NULL ? 0 : e->line,
            "relayhost: the login of the relay record \"%s\" is for some accounts alone: other "
            "mail goes there without a login; " RELAYS_NAMED_TOO
            " in the record's list (for=) makes it theirs, too",
            shown.p);
        sbuf_free(&shown);
    }
    free(plain);
}

static int hop_row(void *arg, struct str key, struct str value) {
    (void)key;
    hop_look(arg, str_trim(value));
    return 0;
}

static void look_at_tables(struct records_look *l, const char *param, const char *spec) {
    struct maps *m = maps_open(spec, l->cfg->dir);
    l->param = param;
    for (size_t i = 0; i < m->n; i++)
        if (m->v[i]->fixed && !m->v[i]->ops->remote)
            map_each(m->v[i], hop_row, l);
    maps_close(m);
}

void audit_records(const struct config *c, struct relays *r, struct diags *d) {
    struct records_look l = {.cfg = c, .d = d, .param = "relayhost"};
    char *why = NULL;
    relays_each(r, record_known, &l, &why);
    if (l.n > 0 && c->p.relayhost[0] != '\0') {
        hop_look(&l, str_of(c->p.relayhost));
        relayhost_look(&l);
    }
    if (l.n > 0)
        look_at_tables(&l, "sender_dependent_relayhost_maps", c->p.sender_dependent_relayhost_maps);
    for (size_t i = 0; i < l.n; i++) {
        free(l.v[i].name);
        free(l.v[i].hop);
    }
    free(l.v);
    free(why);
}
