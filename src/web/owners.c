/*
 * web/owners.c - what of relaying who administers a domain may see and change; see owners.h
 */
#include "web/owners.h"

#include <stdlib.h>

#include "util/idn.h"
#include "web/session.h"

bool owners_tab_shown(const struct req *r, const struct account *dom, bool user) {
    return r->who.global ||
           !settings_disable(dom->settings,
                             user ? "disabled_user_profiles" : "disabled_domain_profiles", "relay");
}

static void owners_take_copy(void *arg, const struct account *a) {
    account_copy(arg, a);
}

static bool owners_may(const struct req *r, const char *domain) {
    char *why = NULL;
    struct account dom = {0};
    bool may = session_manages(r, domain, &why) == STORE_YES &&
               store_account(r->w->store, domain, owners_take_copy, &dom, &why) == STORE_YES &&
               owners_tab_shown(r, &dom, false);
    account_free(&dom);
    free(why);
    return may;
}

bool owners_may_relay(const struct req *r, const char *domain) {
    struct sbuf other = {0}, plain = {0};
    bool may = owners_may(r, domain);
    idn_spellings(str_of(domain), false, &other, &plain);
    may = may || (other.n > 0 && owners_may(r, other.p));
    may = may || (plain.n > 0 && owners_may(r, plain.p));
    sbuf_free(&other);
    sbuf_free(&plain);
    return may;
}
