/*
 * maps/directory.c - connections to a directory; see directory.h
 */
#include "maps/directory.h"

#include <sasl/sasl.h>
#include <stdlib.h>
#include <string.h>

#include "util/mem.h"

char *directory_uris(const struct tabconf *c, const char **bad) {
    struct sbuf b = {0};
    struct str rest = str_of(tabconf_str(c, "server_host", "localhost")), w;
    int64_t port = tabconf_int(c, "server_port", 389, bad);
    while (str_split(&rest, ", \t\r\n", &w)) {
        const char *blank = b.n > 0 ? " " : "";
        if (str_istarts(w, "ldap:") || str_istarts(w, "ldaps:") || str_istarts(w, "ldapi:"))
            sbuf_printf(&b, "%s%.*s", blank, STR_FMT(w));
        else if (str_rchr(w, ':') > str_rchr(w, ']'))
            sbuf_printf(&b, "%sldap://%.*s", blank, STR_FMT(w));
        else
            sbuf_printf(&b, "%sldap://%.*s:%d", blank, STR_FMT(w), (int)port);
    }
    return sbuf_take(&b);
}

static int directory_set_tls(LDAP *ld, const struct tabconf *c) {
    static const struct {
        const char *name;
        int option;
    } files[] = {{"tls_ca_cert_file", LDAP_OPT_X_TLS_CACERTFILE},
                 {"tls_ca_cert_dir", LDAP_OPT_X_TLS_CACERTDIR},
                 {"tls_cert", LDAP_OPT_X_TLS_CERTFILE},
                 {"tls_key", LDAP_OPT_X_TLS_KEYFILE},
                 {"tls_cipher_suite", LDAP_OPT_X_TLS_CIPHER_SUITE}};
    const char *bad = NULL, *v;
    int rc = LDAP_OPT_SUCCESS, fresh = 0;
    int demand = tabconf_bool(c, "tls_require_cert", false, &bad) ? LDAP_OPT_X_TLS_DEMAND
                                                                  : LDAP_OPT_X_TLS_ALLOW;
    for (size_t i = 0; i < sizeof files / sizeof files[0] && rc == LDAP_OPT_SUCCESS; i++)
        if ((v = tabconf_str(c, files[i].name, NULL)) != NULL)
            rc = ldap_set_option(ld, files[i].option, v);
    if (rc == LDAP_OPT_SUCCESS)
        rc = ldap_set_option(ld, LDAP_OPT_X_TLS_REQUIRE_CERT, &demand);
    return rc == LDAP_OPT_SUCCESS ? ldap_set_option(ld, LDAP_OPT_X_TLS_NEWCTX, &fresh) : rc;
}

static int directory_set_options(LDAP *ld, const struct tabconf *c) {
    const char *bad = NULL;
    int version = (int)tabconf_int(c, "version", 2, &bad);
    int deref = (int)tabconf_int(c, "dereference", 0, &bad);
    bool chase = tabconf_int(c, "chase_referrals", 0, &bad) != 0;
    struct timeval limit = {.tv_sec = tabconf_int(c, "timeout", 10, &bad)};
    ldap_set_option(ld, LDAP_OPT_PROTOCOL_VERSION, &version);
    ldap_set_option(ld, LDAP_OPT_DEREF, &deref);
    ldap_set_option(ld, LDAP_OPT_REFERRALS, chase ? LDAP_OPT_ON : LDAP_OPT_OFF);
    ldap_set_option(ld, LDAP_OPT_TIMEOUT, &limit);
    return ldap_set_option(ld, LDAP_OPT_NETWORK_TIMEOUT, &limit);
}

/* What a SASL mechanism asks for, from the table file. */
static int sasl_answer(LDAP *ld, unsigned flags, void *arg, void *in) {
    const struct tabconf *c = arg;
    (void)ld;
    (void)flags;
    for (sasl_interact_t *i = in; i->id != SASL_CB_LIST_END; i++) {
        const char *v = i->id == SASL_CB_GETREALM   ? tabconf_str(c, "sasl_realm", "")
                        : i->id == SASL_CB_AUTHNAME ? tabconf_str(c, "bind_dn", "")
                        : i->id == SASL_CB_PASS     ? tabconf_str(c, "bind_pw", "")
                        : i->id == SASL_CB_USER     ? tabconf_str(c, "sasl_authz_id", "")
                                                    : "";
        i->result = v;
        i->len = (unsigned)strlen(v);
    }
    return LDAP_SUCCESS;
}

static int sasl_log_in(LDAP *ld, const struct tabconf *c) {
    struct sbuf props = {0};
    const char *bad = NULL;
    int64_t min = tabconf_int(c, "sasl_minssf", 0, &bad);
    int rc = LDAP_SUCCESS;
    if (min > 0) {
        sbuf_printf(&props, "minssf=%lld", (long long)min);
        rc = ldap_set_option(ld, LDAP_OPT_X_SASL_SECPROPS, props.p);
    }
    if (rc == LDAP_SUCCESS)
        rc = ldap_sasl_interactive_bind_s(ld, NULL, tabconf_str(c, "sasl_mechs", NULL), NULL, NULL,
                                          LDAP_SASL_QUIET, sasl_answer, (void *)(uintptr_t)c);
    sbuf_free(&props);
    return rc;
}

static int log_in_as(LDAP *ld, const char *dn, const char *pw) {
    struct berval cred = {.bv_val = (char *)(uintptr_t)pw, .bv_len = strlen(pw)};
    return ldap_sasl_bind_s(ld, dn, LDAP_SASL_SIMPLE, &cred, NULL, NULL, NULL);
}

static int log_in(LDAP *ld, const struct tabconf *c) {
    const char *how = tabconf_str(c, "bind", "yes");
    if (strcmp(how, "no") == 0 || strcmp(how, "none") == 0)
        return LDAP_SUCCESS;
    if (strcmp(how, "sasl") == 0)
        return sasl_log_in(ld, c);
    return log_in_as(ld, tabconf_str(c, "bind_dn", ""), tabconf_str(c, "bind_pw", ""));
}

static LDAP *directory_prepare(const struct tabconf *c, const char *uris, int *rc) {
    const char *bad = NULL;
    bool start = tabconf_bool(c, "start_tls", false, &bad);
    LDAP *ld = NULL;
    *rc = ldap_initialize(&ld, uris);
    if (*rc == LDAP_SUCCESS)
        *rc = directory_set_options(ld, c);
    if (*rc == LDAP_SUCCESS && (start || strstr(uris, "ldaps:") != NULL))
        *rc = directory_set_tls(ld, c);
    if (*rc == LDAP_SUCCESS && start)
        *rc = ldap_start_tls_s(ld, NULL, NULL);
    return ld;
}

static LDAP *directory_finish(LDAP *ld, int rc, int *code, char **why) {
    if (code != NULL)
        *code = rc;
    if (rc == LDAP_SUCCESS)
        return ld;
    *why = mem_strdup(ldap_err2string(rc));
    if (ld != NULL)
        ldap_unbind_ext_s(ld, NULL, NULL);
    return NULL;
}

LDAP *directory_connect(const struct tabconf *c, const char *uris, int *code, char **why) {
    const char *bad = NULL;
    char *own = uris == NULL ? directory_uris(c, &bad) : NULL;
    int rc;
    LDAP *ld = directory_prepare(c, uris == NULL ? own : uris, &rc);
    if (rc == LDAP_SUCCESS)
        rc = log_in(ld, c);
    free(own);
    return directory_finish(ld, rc, code, why);
}

LDAP *directory_connect_as(const struct tabconf *c, const char *dn, const char *password, int *code,
                           char **why) {
    const char *bad = NULL;
    char *uris = directory_uris(c, &bad);
    int rc;
    LDAP *ld = directory_prepare(c, uris, &rc);
    if (rc == LDAP_SUCCESS)
        rc = log_in_as(ld, dn, password);
    free(uris);
    return directory_finish(ld, rc, code, why);
}

/* RFC 4515, section 3. */
void directory_quote_filter(struct str text, struct sbuf *out) {
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (c == '*' || c == '(' || c == ')' || c == '\\' || c == '\0')
            sbuf_printf(out, "\\%02x", (unsigned char)c);
        else
            sbuf_add_ch(out, c);
    }
}

/* RFC 4514, section 2.4. */
void directory_quote_dn(struct str text, struct sbuf *out) {
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        bool edge = (i == 0 && (c == ' ' || c == '#')) || (i + 1 == text.n && c == ' ');
        if (edge || strchr(",+\"\\<>;=", c) != NULL)
            sbuf_add_ch(out, '\\');
        sbuf_add_ch(out, c);
    }
}
