/*
 * accounts/run_ldap.c - connections to a directory, names in it, binds; see inside.h
 */
#include <ldap.h>
#include <stdlib.h>
#include <string.h>

#include "accounts/inside.h"
#include "maps/directory.h"
#include "maps/tabconf.h"
#include "util/mem.h"

enum store_rc store_ldap_failed(struct store *st, int rc, char **why) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s: %s", st->spec, ldap_err2string(rc));
    *why = sbuf_take(&b);
    return STORE_ERROR;
}

LDAP *store_ldap_log_in(struct store *st, char **why) {
    char *e = NULL;
    LDAP *ld = directory_connect(st->conf, NULL, NULL, &e);
    if (ld == NULL) {
        struct sbuf b = {0};
        sbuf_printf(&b, "%s: %s", st->spec, e);
        *why = sbuf_take(&b);
    }
    free(e);
    return ld;
}

/* The account's entry: its domain's, or its own below that. */
void store_ldap_dn(const struct store *st, const char *account, struct sbuf *dn) {
    const char *at = strchr(account, '@');
    if (account[0] != '@') {
        sbuf_add_c(dn, "mail=");
        directory_quote_dn(str_of(account), dn);
        sbuf_add_c(dn, ",ou=Users,");
    }
    sbuf_add_c(dn, "domainName=");
    directory_quote_dn(str_of(at == NULL ? account : at + 1), dn);
    sbuf_printf(dn, ",%s", tabconf_str(st->conf, "search_base", ""));
}

enum store_rc store_ldap_bind(struct store *st, const char *dn, const char *password, char **why) {
    char *e = NULL;
    int refused = LDAP_SUCCESS;
    LDAP *ld = directory_connect_as(st->conf, dn, password, &refused, &e);
    if (ld != NULL)
        ldap_unbind_ext_s(ld, NULL, NULL);
    enum store_rc rc = ld != NULL                            ? STORE_YES
                       : refused == LDAP_INVALID_CREDENTIALS ? STORE_NO
                                                             : STORE_ERROR;
    if (rc == STORE_ERROR)
        *why = e;
    else
        free(e);
    return rc;
}
