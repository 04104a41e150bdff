/*
 * accounts/store_ldap.c - iRedMail's tree in a directory; see store.h
 *
 * The table file has server_host, bind_dn, bind_pw, version and search_base (o=domains,…).  A
 * user's password is verified by binding as that user, over a connection of its own.
 */
#include <ldap.h>
#include <stdlib.h>
#include <string.h>

#include "accounts/inside.h"
#include "accounts/values.h"
#include "maps/directory.h"
#include "maps/tabconf.h"
#include "util/mem.h"

static void give_pair(LDAP *ld, LDAPMessage *e, store_pair_fn fn, void *arg) {
    struct sbuf account = {0};
    struct berval **mail = ldap_get_values_len(ld, e, "mail");
    struct berval **domain = ldap_get_values_len(ld, e, "domainName");
    struct berval **hop = ldap_get_values_len(ld, e, "senderRelayHost");
    if (mail != NULL && mail[0] != NULL)
        sbuf_add(&account, mail[0]->bv_val, mail[0]->bv_len);
    else if (domain != NULL && domain[0] != NULL)
        sbuf_printf(&account, "@%.*s", (int)domain[0]->bv_len, domain[0]->bv_val);
    for (size_t i = 0; hop != NULL && hop[i] != NULL; i++)
        fn(arg, sbuf_str(&account), str_make(hop[i]->bv_val, hop[i]->bv_len));
    ldap_value_free_len(mail);
    ldap_value_free_len(domain);
    ldap_value_free_len(hop);
    sbuf_free(&account);
}

static enum store_rc ldap_relay_each(struct store *st, const char *account, store_pair_fn fn,
                                     void *arg, char **why) {
    static char *attrs[] = {(char *)(uintptr_t) "mail", (char *)(uintptr_t) "domainName",
                            (char *)(uintptr_t) "senderRelayHost", NULL};
    struct sbuf dn = {0};
    LDAPMessage *res = NULL;
    LDAP *ld = store_ldap_log_in(st, why);
    if (ld == NULL)
        return STORE_ERROR;
    if (account[0] != '\0')
        store_ldap_dn(st, account, &dn);
    else
        sbuf_add_c(&dn, tabconf_str(st->conf, "search_base", ""));
    int rc = ldap_search_ext_s(ld, dn.p, account[0] != '\0' ? LDAP_SCOPE_BASE : LDAP_SCOPE_SUBTREE,
                               "(senderRelayHost=*)", attrs, 0, NULL, NULL, NULL, 0, &res);
    for (LDAPMessage *e = rc == LDAP_SUCCESS ? ldap_first_entry(ld, res) : NULL; e != NULL;
         e = ldap_next_entry(ld, e))
        give_pair(ld, e, fn, arg);
    ldap_msgfree(res);
    ldap_unbind_ext_s(ld, NULL, NULL);
    sbuf_free(&dn);
    return rc == LDAP_SUCCESS || rc == LDAP_NO_SUCH_OBJECT ? STORE_YES
                                                           : store_ldap_failed(st, rc, why);
}

static enum store_rc ldap_relay_set(struct store *st, const char *account, const char *value,
                                    char **why) {
    char *values[] = {(char *)(uintptr_t)value, NULL};
    LDAPMod mod = {.mod_op = value == NULL ? LDAP_MOD_DELETE : LDAP_MOD_REPLACE,
                   .mod_type = (char *)(uintptr_t) "senderRelayHost",
                   .mod_vals = {.modv_strvals = value == NULL ? NULL : values}};
    LDAPMod *mods[] = {&mod, NULL};
    struct sbuf dn = {0};
    LDAP *ld = store_ldap_log_in(st, why);
    if (ld == NULL)
        return STORE_ERROR;
    store_ldap_dn(st, account, &dn);
    int rc = ldap_modify_ext_s(ld, dn.p, mods, NULL, NULL);
    ldap_unbind_ext_s(ld, NULL, NULL);
    sbuf_free(&dn);
    if (rc == LDAP_NO_SUCH_OBJECT || rc == LDAP_NO_SUCH_ATTRIBUTE)
        return STORE_NO;
    return rc == LDAP_SUCCESS ? STORE_YES : store_ldap_failed(st, rc, why);
}

static enum store_rc ldap_has(struct store *st, const char *account, void **conn, char **why) {
    struct sbuf dn = {0};
    LDAPMessage *res = NULL;
    if (account[0] == '\0')
        return STORE_YES;
    if (*conn == NULL && (*conn = store_ldap_log_in(st, why)) == NULL)
        return STORE_ERROR;
    store_ldap_dn(st, account, &dn);
    int rc = ldap_search_ext_s(*conn, dn.p, LDAP_SCOPE_BASE, "(objectClass=*)", NULL, 1, NULL, NULL,
                               NULL, 1, &res);
    ldap_msgfree(res);
    sbuf_free(&dn);
    if (rc == LDAP_NO_SUCH_OBJECT)
        return STORE_NO;
    return rc == LDAP_SUCCESS ? STORE_YES : store_ldap_failed(st, rc, why);
}

static void ldap_has_end(void *conn) {
    ldap_unbind_ext_s(conn, NULL, NULL);
}

/* The one entry that may log in as user; its DN, its name and its allowed networks. */
static int find_user(struct store *st, LDAP *ld, const char *user, bool secure, struct sbuf *dn,
                     struct sbuf *name, struct sbuf *nets) {
    struct sbuf filter = {0}, q = {0};
    LDAPMessage *res = NULL;
    directory_quote_filter(str_of(user), &q);
    sbuf_printf(&filter,
                "(&(objectClass=mailUser)(accountStatus=active)(!(domainStatus=disabled))"
                "(enabledService=mail)(enabledService=%s)"
                "(|(mail=%s)(&(enabledService=shadowaddress)(shadowAddress=%s))))",
                secure ? "smtpsecured" : "smtp", q.p, q.p);
    int rc = ldap_search_ext_s(ld, tabconf_str(st->conf, "search_base", ""), LDAP_SCOPE_SUBTREE,
                               filter.p, NULL, 0, NULL, NULL, NULL, 2, &res);
    LDAPMessage *e =
        rc == LDAP_SUCCESS && ldap_count_entries(ld, res) == 1 ? ldap_first_entry(ld, res) : NULL;
    if (e != NULL) {
        char *text = ldap_get_dn(ld, e);
        sbuf_add_c(dn, text);
        ldap_memfree(text);
        struct berval **mail = ldap_get_values_len(ld, e, "mail");
        struct berval **allowed = ldap_get_values_len(ld, e, "allowNets");
        if (mail != NULL && mail[0] != NULL)
            sbuf_add(name, mail[0]->bv_val, mail[0]->bv_len);
        if (allowed != NULL && allowed[0] != NULL)
            sbuf_add(nets, allowed[0]->bv_val, allowed[0]->bv_len);
        ldap_value_free_len(mail);
        ldap_value_free_len(allowed);
    }
    ldap_msgfree(res);
    sbuf_free(&filter);
    sbuf_free(&q);
    return rc;
}

static enum store_rc ldap_verify(struct store *st, const char *user, const char *password,
                                 bool secure, const char *client, struct sbuf *name, char **why) {
    struct sbuf dn = {0}, nets = {0}, mail = {0};
    LDAP *ld = store_ldap_log_in(st, why);
    if (ld == NULL)
        return STORE_ERROR;
    int rc = find_user(st, ld, user, secure, &dn, &mail, &nets);
    enum store_rc out = STORE_NO;
    ldap_unbind_ext_s(ld, NULL, NULL);
    if (rc != LDAP_SUCCESS && rc != LDAP_NO_SUCH_OBJECT) {
        out = store_ldap_failed(st, rc, why);
    } else if (dn.n == 0) {
        sbuf_add_c(name, "no such user, or not active, or not allowed to send");
    } else if (!value_net_ok(nets.n > 0 ? nets.p : "", client)) {
        sbuf_add_c(name, "client address is not in the user's allowNets");
    } else {
        out = store_ldap_bind(st, dn.p, password, why);
        sbuf_add_str(name, out == STORE_YES ? sbuf_str(&mail) : STR_LIT("wrong password"));
    }
    sbuf_free(&dn);
    sbuf_free(&nets);
    sbuf_free(&mail);
    return out;
}

const struct store_ops store_ldap = {ldap_relay_each,  ldap_relay_set,    ldap_verify,
                                     ldap_has,         ldap_has_end,      directory_browse,
                                     directory_search, directory_account, directory_change,
                                     directory_admin,  directory_manages};
