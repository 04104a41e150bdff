/*
 * accounts/browse_ldap.c - looking through iRedMail's tree; see browse.h
 *
 * A directory has no pages by key: what fits is fetched (names and few attributes), sorted, and
 * cut.  What a directory gives at most is up to its size limit.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "accounts/inside.h"
#include "accounts/password.h"
#include "maps/directory.h"
#include "maps/tabconf.h"
#include "util/mem.h"

#define TEXT(s) ((char *)(uintptr_t)(s))

static char *attributes[] = {TEXT("mail"),
                             TEXT("domainName"),
                             TEXT("cn"),
                             TEXT("mtaTransport"),
                             TEXT("senderRelayHost"),
                             TEXT("accountStatus"),
                             TEXT("accountSetting"),
                             TEXT("domainBackupMX"),
                             TEXT("enabledService"),
                             TEXT("domainGlobalAdmin"),
                             NULL};

/* The first value, or NULL; the caller frees. */
static char *value(LDAP *ld, LDAPMessage *e, const char *name) {
    struct berval **v = ldap_get_values_len(ld, e, name);
    char *s = v != NULL && v[0] != NULL ? str_dup(str_make(v[0]->bv_val, v[0]->bv_len)) : NULL;
    ldap_value_free_len(v);
    return s;
}

static char *tree_text(LDAP *ld, LDAPMessage *e, const char *name) {
    char *s = value(ld, e, name);
    return s == NULL ? mem_strdup("") : s;
}

static bool has(LDAP *ld, LDAPMessage *e, const char *name, const char *want) {
    struct berval **v = ldap_get_values_len(ld, e, name);
    bool found = false;
    for (size_t i = 0; v != NULL && v[i] != NULL; i++)
        found = found || str_ieq_c(str_make(v[i]->bv_val, v[i]->bv_len), want);
    ldap_value_free_len(v);
    return found;
}

/* "disabledDomainProfile:relay" as the tables have it: "disabled_domain_profiles:relay;". */
static char *settings(LDAP *ld, LDAPMessage *e) {
    static const struct {
        const char *ours, *theirs;
    } kinds[] = {{"disabled_domain_profiles", "disabledDomainProfile:"},
                 {"disabled_user_profiles", "disabledUserProfile:"}};
    struct berval **v = ldap_get_values_len(ld, e, "accountSetting");
    struct sbuf out = {0};
    for (size_t i = 0; v != NULL && v[i] != NULL; i++)
        for (size_t k = 0; k < 2; k++) {
            struct str s = str_make(v[i]->bv_val, v[i]->bv_len);
            if (str_istarts(s, kinds[k].theirs))
                sbuf_printf(&out, "%s:%.*s;", kinds[k].ours,
                            STR_FMT(str_from(s, strlen(kinds[k].theirs))));
        }
    ldap_value_free_len(v);
    return sbuf_take(&out);
}

static struct account account_of(LDAP *ld, LDAPMessage *e, bool user) {
    struct account a = {.name = tree_text(ld, e, user ? "mail" : "domainName"),
                        .title = tree_text(ld, e, "cn"),
                        .transport = tree_text(ld, e, "mtaTransport"),
                        .relayhost = value(ld, e, "senderRelayHost"),
                        .settings = settings(ld, e),
                        .active = has(ld, e, "accountStatus", "active"),
                        .backup_mx = has(ld, e, "domainBackupMX", "yes"),
                        .admin = user && (has(ld, e, "enabledService", "domainadmin") ||
                                          has(ld, e, "domainGlobalAdmin", "yes")),
                        .users = -1};
    str_lower(a.name, strlen(a.name));
    return a;
}

static int tree_by_name(const void *x, const void *y) {
    const struct account *a = x, *b = y;
    return strcmp(a->name, b->name);
}

struct look {
    const char *base;
    int scope;
    const char *filter;
    bool users;
    const char *after;
    unsigned limit;
};

/* Accounts that were found, of one search or of several. */
struct found {
    struct account *v;
    size_t n;
};

/* Adds what fits, from below l->base. */
static int found_add(struct found *f, LDAP *ld, const struct look *l) {
    LDAPMessage *res = NULL;
    int rc = ldap_search_ext_s(ld, l->base, l->scope, l->filter, attributes, 0, NULL, NULL, NULL, 0,
                               &res);
    if (rc == LDAP_SIZELIMIT_EXCEEDED)
        rc = LDAP_SUCCESS;
    if (rc == LDAP_SUCCESS)
        f->v = mem_realloc(f->v, (f->n + (size_t)ldap_count_entries(ld, res) + 1) * sizeof *f->v);
    for (LDAPMessage *e = rc == LDAP_SUCCESS ? ldap_first_entry(ld, res) : NULL; e != NULL;
         e = ldap_next_entry(ld, e))
        f->v[f->n++] = account_of(ld, e, l->users);
    ldap_msgfree(res);
    return rc == LDAP_NO_SUCH_OBJECT ? LDAP_SUCCESS : rc;
}

/* How many were given; f is empty then. */
static size_t found_give(struct found *f, const struct look *l, account_fn fn, void *arg) {
    size_t out = 0;
    if (f->n > 0)
        qsort(f->v, f->n, sizeof *f->v, tree_by_name);
    for (size_t i = 0; i < f->n; i++) {
        if (strcmp(f->v[i].name, l->after) > 0 && out < l->limit) {
            fn(arg, &f->v[i]);
            out++;
        }
        account_free(&f->v[i]);
    }
    free(f->v);
    *f = (struct found){.n = 0};
    return out;
}

static enum store_rc look(struct store *st, const struct look *l, account_fn fn, void *arg,
                          size_t *given, char **why) {
    struct found f = {.n = 0};
    LDAP *ld = store_ldap_log_in(st, why);
    if (ld == NULL)
        return STORE_ERROR;
    int rc = found_add(&f, ld, l);
    ldap_unbind_ext_s(ld, NULL, NULL);
    *given = found_give(&f, l, fn, arg);
    return rc == LDAP_SUCCESS ? STORE_YES : store_ldap_failed(st, rc, why);
}

static void add_quoted(struct sbuf *b, const char *before, const char *t, const char *after) {
    sbuf_add_c(b, before);
    directory_quote_filter(str_of(t), b);
    sbuf_add_c(b, after);
}

static void domain_filter(struct sbuf *b, const struct browse *q) {
    sbuf_add_c(b, "(&(objectClass=mailDomain)");
    if (q->admin != NULL)
        add_quoted(b, "(domainAdmin=", q->admin, ")");
    if (q->text[0] != '\0') {
        add_quoted(b, "(|(domainName=*", q->text, "*)");
        add_quoted(b, "(cn=*", q->text, "*))");
    }
    sbuf_add_c(b, q->disabled_only ? "(!(accountStatus=active)))" : ")");
}

static void user_filter(struct sbuf *b, const struct browse *q) {
    sbuf_add_c(b, "(&(objectClass=mailUser)");
    if (q->text[0] != '\0') {
        add_quoted(b, "(|(mail=", q->text, "*)");
        add_quoted(b, "(cn=*", q->text, "*))");
    }
    sbuf_add_c(b, q->disabled_only ? "(!(accountStatus=active)))" : ")");
}

enum store_rc directory_browse(struct store *st, const struct browse *b, account_fn fn, void *arg,
                               char **why) {
    struct sbuf base = {0}, filter = {0}, at = {0};
    size_t n;
    if (b->domain == NULL) {
        sbuf_add_c(&base, tabconf_str(st->conf, "search_base", ""));
        domain_filter(&filter, b);
    } else {
        sbuf_printf(&at, "@%s", b->domain);
        sbuf_add_c(&base, "ou=Users,");
        store_ldap_dn(st, at.p, &base);
        user_filter(&filter, b);
    }
    struct look l = {base.p, LDAP_SCOPE_ONELEVEL, filter.p, b->domain != NULL, b->after, b->limit};
    enum store_rc rc = look(st, &l, fn, arg, &n, why);
    sbuf_free(&base);
    sbuf_free(&filter);
    sbuf_free(&at);
    return rc;
}

/* Adds the users below a domain's entry. */
static int found_add_users(struct found *f, LDAP *ld, LDAPMessage *domain, const struct look *l) {
    char *dn = ldap_get_dn(ld, domain);
    struct sbuf base = {0};
    sbuf_printf(&base, "ou=Users,%s", dn == NULL ? "" : dn);
    struct look own = *l;
    own.base = base.p;
    int rc = found_add(f, ld, &own);
    ldap_memfree(dn);
    sbuf_free(&base);
    return rc;
}

/* Users of the domains that admin manages.  Each is looked through on its own: what others have
 * neither costs such an administrator's search anything nor hides what it would find. */
static int found_add_managed(struct found *f, LDAP *ld, const struct look *l, const char *admin) {
    static char *none[] = {TEXT(LDAP_NO_ATTRS), NULL};
    struct browse own = {.admin = admin, .text = ""};
    struct sbuf filter = {0};
    LDAPMessage *res = NULL;
    domain_filter(&filter, &own);
    int rc = ldap_search_ext_s(ld, l->base, LDAP_SCOPE_ONELEVEL, filter.p, none, 0, NULL, NULL,
                               NULL, 0, &res);
    if (rc == LDAP_SIZELIMIT_EXCEEDED)
        rc = LDAP_SUCCESS;
    for (LDAPMessage *e = rc == LDAP_SUCCESS ? ldap_first_entry(ld, res) : NULL;
         e != NULL && rc == LDAP_SUCCESS; e = ldap_next_entry(ld, e))
        rc = found_add_users(f, ld, e, l);
    ldap_msgfree(res);
    sbuf_free(&filter);
    return rc;
}

enum store_rc directory_search(struct store *st, const char *wanted, const char *admin,
                               unsigned limit, account_fn fn, void *arg, char **why) {
    struct sbuf filter = {0};
    struct found f = {.n = 0};
    LDAP *ld = store_ldap_log_in(st, why);
    if (ld == NULL)
        return STORE_ERROR;
    add_quoted(&filter, "(&(objectClass=mailUser)(mail=", wanted, "*))");
    struct look l = {
        tabconf_str(st->conf, "search_base", ""), LDAP_SCOPE_SUBTREE, filter.p, true, "", limit};
    int rc = admin == NULL ? found_add(&f, ld, &l) : found_add_managed(&f, ld, &l, admin);
    ldap_unbind_ext_s(ld, NULL, NULL);
    found_give(&f, &l, fn, arg);
    sbuf_free(&filter);
    return rc == LDAP_SUCCESS ? STORE_YES : store_ldap_failed(st, rc, why);
}

/* "example.com" as store_ldap_dn wants it. */
static void name_dn(struct store *st, const char *name, struct sbuf *dn) {
    struct sbuf at = {0};
    sbuf_printf(&at, "%s%s", strchr(name, '@') == NULL ? "@" : "", name);
    store_ldap_dn(st, at.p, dn);
    sbuf_free(&at);
}

enum store_rc directory_account(struct store *st, const char *name, account_fn fn, void *arg,
                                char **why) {
    struct sbuf dn = {0};
    bool user = strchr(name, '@') != NULL;
    size_t n = 0;
    name_dn(st, name, &dn);
    struct look l = {dn.p,
                     LDAP_SCOPE_BASE,
                     user ? "(objectClass=mailUser)" : "(objectClass=mailDomain)",
                     user,
                     "",
                     1};
    enum store_rc rc = look(st, &l, fn, arg, &n, why);
    sbuf_free(&dn);
    return rc == STORE_YES && n == 0 ? STORE_NO : rc;
}

struct changes {
    LDAPMod mods[3], *list[4];
    char *v[3][2];
    size_t n;
};

static void changes_add(struct changes *m, const char *name, const char *value_or_empty) {
    LDAPMod *mod = m->list[m->n] = &m->mods[m->n];
    char **v = m->v[m->n++];
    v[0] = TEXT(value_or_empty);
    *mod = (LDAPMod){.mod_op = LDAP_MOD_REPLACE, .mod_type = TEXT(name)};
    mod->mod_vals.modv_strvals = value_or_empty[0] == '\0' ? NULL : v;
}

/* One entry, or with every each user below it. */
static int modify(LDAP *ld, const char *dn, bool every, LDAPMod **list) {
    static char *none[] = {TEXT(LDAP_NO_ATTRS), NULL};
    LDAPMessage *res = NULL;
    if (!every)
        return ldap_modify_ext_s(ld, dn, list, NULL, NULL);
    int rc = ldap_search_ext_s(ld, dn, LDAP_SCOPE_SUBTREE, "(objectClass=mailUser)", none, 0, NULL,
                               NULL, NULL, 0, &res);
    for (LDAPMessage *e = rc == LDAP_SUCCESS ? ldap_first_entry(ld, res) : NULL;
         e != NULL && rc == LDAP_SUCCESS; e = ldap_next_entry(ld, e)) {
        char *name = ldap_get_dn(ld, e);
        rc = ldap_modify_ext_s(ld, name, list, NULL, NULL);
        ldap_memfree(name);
    }
    ldap_msgfree(res);
    return rc;
}

enum store_rc directory_change(struct store *st, const char *name, const struct account_change *c,
                               char **why) {
    struct changes m = {.n = 0};
    struct sbuf dn = {0};
    if (c->transport != NULL)
        changes_add(&m, "mtaTransport", c->transport);
    if (c->backup_mx >= 0 && strchr(name, '@') == NULL)
        changes_add(&m, "domainBackupMX", c->backup_mx > 0 ? "yes" : "");
    if (c->relayhost != NULL)
        changes_add(&m, "senderRelayHost", c->relayhost);
    LDAP *ld = m.n == 0 ? NULL : store_ldap_log_in(st, why);
    if (ld == NULL)
        return m.n == 0 ? STORE_YES : STORE_ERROR;
    name_dn(st, name, &dn);
    int rc = modify(ld, dn.p, name[0] == '@', m.list);
    ldap_unbind_ext_s(ld, NULL, NULL);
    sbuf_free(&dn);
    return rc == LDAP_NO_SUCH_OBJECT ? STORE_NO
           : rc == LDAP_SUCCESS      ? STORE_YES
                                     : store_ldap_failed(st, rc, why);
}

/* -- administrators -- */

/* o=domainAdmins stands beside o=domains. */
static void admins_base(struct store *st, struct sbuf *b) {
    const char *base = tabconf_str(st->conf, "search_base", "");
    const char *comma = strchr(base, ',');
    sbuf_printf(b, "o=domainAdmins%s", comma == NULL ? "" : comma);
}

/* An entry that was deleted and made again has another UUID. */
static void take_born(LDAP *ld, LDAPMessage *e, struct admin *a) {
    char *uuid = value(ld, e, "entryUUID");
    if (uuid != NULL)
        password_mark(uuid, a->born, sizeof a->born);
    free(uuid);
}

/* The stored password is shown to those that the directory lets see it. */
static void take_mark(LDAP *ld, LDAPMessage *e, struct admin *a) {
    struct berval **stored = ldap_get_values_len(ld, e, "userPassword");
    if (stored != NULL && stored[0] != NULL) {
        char *text = str_dup(str_make(stored[0]->bv_val, stored[0]->bv_len));
        password_mark(text, a->mark, sizeof a->mark);
        mem_wipe(text, strlen(text));
        free(text);
    }
    ldap_value_free_len(stored);
}

/* The DN of the entry of an administrator: a standalone one's, else a mail user's that is marked.
 */
static int find_admin(struct store *st, LDAP *ld, const char *user, struct sbuf *dn,
                      struct admin *a) {
    static char *wanted[] = {TEXT("mail"), TEXT("domainGlobalAdmin"), TEXT("userPassword"),
                             TEXT("entryUUID"), NULL};
    struct sbuf base = {0}, filter = {0};
    int rc = LDAP_SUCCESS;
    admins_base(st, &base);
    for (int pass = 0; pass < 2 && dn->n == 0; pass++) {
        LDAPMessage *res = NULL;
        sbuf_reset(&filter);
        add_quoted(&filter, "(&(accountStatus=active)(mail=", user,
                   pass == 0 ? ")(objectClass=mailAdmin))"
                             : ")(objectClass=mailUser)(!(domainStatus=disabled))"
                               "(|(domainGlobalAdmin=yes)(enabledService=domainadmin)))");
        rc = ldap_search_ext_s(ld, pass == 0 ? base.p : tabconf_str(st->conf, "search_base", ""),
                               LDAP_SCOPE_SUBTREE, filter.p, wanted, 0, NULL, NULL, NULL, 2, &res);
        LDAPMessage *e = rc == LDAP_SUCCESS && ldap_count_entries(ld, res) == 1
                             ? ldap_first_entry(ld, res)
                             : NULL;
        /* To the directory a name with more blanks is the same one. */
        char *name = e == NULL || !has(ld, e, "mail", user) ? NULL : ldap_get_dn(ld, e);
        if (name != NULL) {
            sbuf_add_c(dn, name);
            a->global = has(ld, e, "domainGlobalAdmin", "yes");
            take_mark(ld, e, a);
            take_born(ld, e, a);
        }
        ldap_memfree(name);
        ldap_msgfree(res);
        if (rc == LDAP_NO_SUCH_OBJECT)
            rc = LDAP_SUCCESS;
    }
    sbuf_free(&base);
    sbuf_free(&filter);
    return rc;
}

/* Binds in vain: a name that no administrator has is refused after a bind, as a wrong password. */
static void refuse_late(struct store *st, const char *user, const char *password) {
    struct sbuf dn = {0};
    char *why = NULL;
    sbuf_add_c(&dn, "mail=");
    directory_quote_dn(str_of(user), &dn);
    sbuf_add_c(&dn, ",");
    admins_base(st, &dn);
    (void)store_ldap_bind(st, dn.p, password, &why);
    sbuf_free(&dn);
    free(why);
}

enum store_rc directory_admin(struct store *st, const char *user, const char *password,
                              struct admin *a, char **why) {
    struct sbuf dn = {0};
    *a = (struct admin){0};
    LDAP *ld = store_ldap_log_in(st, why);
    if (ld == NULL)
        return STORE_ERROR;
    int rc = find_admin(st, ld, user, &dn, a);
    enum store_rc out = rc != LDAP_SUCCESS ? store_ldap_failed(st, rc, why)
                        : dn.n == 0        ? STORE_NO
                                           : STORE_YES;
    ldap_unbind_ext_s(ld, NULL, NULL);
    if (out == STORE_YES && password != NULL)
        out = store_ldap_bind(st, dn.p, password, why);
    else if (out == STORE_NO && password != NULL)
        refuse_late(st, user, password);
    sbuf_free(&dn);
    return out;
}

enum store_rc directory_manages(struct store *st, const char *user, const char *domain,
                                char **why) {
    struct sbuf dn = {0}, filter = {0};
    LDAPMessage *res = NULL;
    LDAP *ld = store_ldap_log_in(st, why);
    if (ld == NULL)
        return STORE_ERROR;
    name_dn(st, domain, &dn);
    add_quoted(&filter, "(domainAdmin=", user, ")");
    int rc =
        ldap_search_ext_s(ld, dn.p, LDAP_SCOPE_BASE, filter.p, NULL, 1, NULL, NULL, NULL, 1, &res);
    bool found = rc == LDAP_SUCCESS && ldap_count_entries(ld, res) > 0;
    ldap_msgfree(res);
    ldap_unbind_ext_s(ld, NULL, NULL);
    sbuf_free(&dn);
    sbuf_free(&filter);
    if (rc != LDAP_SUCCESS && rc != LDAP_NO_SUCH_OBJECT)
        return store_ldap_failed(st, rc, why);
    return found ? STORE_YES : STORE_NO;
}
