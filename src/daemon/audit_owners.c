/*
 * daemon/audit_owners.c - posthouse check: relay records that belong to a domain that is gone
 *
 * A record knows its domain by name: where another domain gets that name later, its administrators
 * have the record, with its account.  Where records or accounts cannot be asked, nothing is said.
 */
#include <stdlib.h>

#include "accounts/relays.h"
#include "accounts/store.h"
#include "daemon/audit.h"

struct owners_look {
    const struct config *c;
    struct domains_look domains;
    struct diags *d;
    size_t said;
    bool silent; /* the store does not answer */
};

static void owners_take(void *arg, const struct relay_fields *f) {
    struct owners_look *l = arg;
    char *why = NULL;
    if (f->owner[0] == '\0' || l->silent || l->said >= AUDIT_SHOWN)
        return;
    enum store_rc rc = domains_look_has(&l->domains, f->owner, &why);
    l->silent = rc == STORE_ERROR;
    if (rc == STORE_NO) {
        struct sbuf name = {0};
        sbuf_add_safe(&name, str_of(f->name));
        l->said++;
        diag_add(l->d, DIAG_WARN, l->c->p.relays_database, 0,
                 "the relay record \"%s\" belongs to the domain %s, which accounts_store does not "
                 "have: where a domain gets that name later, its administrators have the record "
                 "with its account; \"posthouse record delete NAME\" removes it, and \"posthouse "
                 "record set NAME owner=\" makes it the server's",
                 name.p, f->owner);
        sbuf_free(&name);
    }
    free(why);
}

void audit_owners(const struct config *c, struct diags *d) {
    struct owners_look l = {.c = c, .d = d};
    char *why = NULL;
    bool made;
    if (c->relays_spec[0] == '\0' || c->p.accounts_store[0] == '\0')
        return;
    struct store *st = store_open(c->p.accounts_store, c->dir, false, &why);
    struct relays *r =
        st == NULL ? NULL
                   : relays_open(c->p.relays_database, c->p.relays_key_file, false, &made, &why);
    l.domains.st = st;
    if (r != NULL)
        relays_each(r, owners_take, &l, &why);
    relays_close(r);
    domains_look_end(&l.domains);
    store_close(st);
    free(why);
}
