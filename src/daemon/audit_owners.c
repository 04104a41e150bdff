/*
 * daemon/audit_owners.c - posthouse check: relay records that have lost their domain or their key
 *
 * A record knows its domain by name: where another domain gets that name later, its administrators
 * have the record, with its account.  Where records or accounts cannot be asked, nothing is said.
 */
#include <errno.h>
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

static void sealed_take(void *arg, const struct relay_fields *f) {
    *(bool *)arg = f->has_secret || *(bool *)arg;
}

/* A key that is gone, or of another backup than the records: a password that is only set again is
 * sealed for the lost one. */
static void check_records_key(const struct config *c, struct relays *r, struct diags *d) {
    char *why = NULL;
    bool sealed = false;
    int rc = relays_each(r, sealed_take, &sealed, &why) && sealed
                 ? relays_key_fits(r, c->p.relays_key_file)
                 : 0;
    if (rc == -ENOENT || rc == -EBADMSG)
        diag_add(
            d, DIAG_ERROR, c->p.relays_key_file, 0,
            "%s, and the passwords of the relay records in %s are sealed for the one that they "
            "were set with: their mail waits until that key is back (docs/operate.md says what "
            "to do where it is lost)",
            rc == -ENOENT ? "there is no such key" : "it is another key", c->p.relays_database);
    free(why);
}

void audit_owners(const struct config *c, struct relays *r, struct diags *d) {
    struct owners_look l = {.c = c, .d = d};
    char *why = NULL;
    check_records_key(c, r, d);
    if (c->p.accounts_store[0] == '\0')
        return;
    struct store *st = store_open(c->p.accounts_store, c->dir, false, &why);
    l.domains.st = st;
    if (st != NULL)
        relays_each(r, owners_take, &l, &why);
    domains_look_end(&l.domains);
    store_close(st);
    free(why);
}
