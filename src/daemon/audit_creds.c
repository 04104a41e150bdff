/*
 * daemon/audit_creds.c - posthouse check: credentials for relay hosts
 *
 * Is there one for each relay host, and if not, which row was meant?  Which rows cannot be what was
 * meant?  Where would a password go to a host that others choose, or in clear text?  Rows are
 * looked at in file tables only; passwords are never shown.
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/audit.h"
#include "deliver/policy.h"
#include "maps/maps.h"
#include "route/nexthop.h"
#include "smtp/sasl.h"
#include "util/mem.h"

static int creds_line_of(const struct config *c, const char *name) {
    const struct cfg_entry *e = cfg_file_find(&c->main, str_of(name));
    return e == NULL ? 0 : e->line;
}

/* Calls fn for each row of the tables of spec that are in files; fn returns 0. */
static void creds_each(const struct config *c, const char *spec, map_row_fn fn, void *arg) {
    struct maps *m = maps_open(spec, c->dir);
    for (size_t i = 0; i < m->n; i++)
        if (m->v[i]->fixed && !m->v[i]->ops->remote)
            map_each(m->v[i], fn, arg);
    maps_close(m);
}

/* -- rows that were meant for a relay host -- */

struct near {
    struct nexthop hop;
    struct str dest; /* as the relay host is written */
    bool slip;       /* no key has its host: one like it is looked for */
    struct sbuf what;
};

static struct str without_mark(struct str key) {
    return str_istarts(key, BYTE_ORDER_MARK) ? str_from(key, 3) : key;
}

/* "smtp:[host]:587", as transport tables have it: "[host]:587". */
static struct str without_transport(struct str key) {
    int64_t at = str_chr(key, ':');
    struct str rest = at > 0 ? str_from(key, (size_t)at + 1) : key;
    return rest.n > 0 && (rest.p[0] == '[' || str_chr(rest, ':') >= 0) ? rest : key;
}

/* Is that the host of the key, however the key is written?  *n gets its brackets and its port.
 * slip: true if another letter would make it that. */
static bool key_has_host(struct str key, struct str host, bool slip, struct nexthop *n) {
    struct sbuf text = {0};
    key = without_transport(str_trim(without_mark(key)));
    if (key.n > 0 && key.p[0] == '[' && str_chr(key, ']') < 0)
        key = str_from(key, 1);
    for (size_t i = 0; i < key.n; i++) /* a dot at the end of the name is left out */
        if (key.p[i] != '.' || (i + 1 < key.n && key.p[i + 1] != ']' && key.p[i + 1] != ':'))
            sbuf_add(&text, key.p + i, 1);
    bool has = nexthop_parse(n, sbuf_str(&text), 25) == NULL &&
               (slip ? str_is_slip(n->host, host) : str_ieq(n->host, host));
    n->host = (struct str){0};
    sbuf_free(&text);
    return has;
}

static int near_row(void *arg, struct str key, struct str value) {
    struct near *w = arg;
    struct nexthop n;
    struct sbuf shown = {0};
    const char *why = "is written in another way: both have to be alike";
    (void)value;
    if (w->what.n > 0 || !key_has_host(key, w->hop.host, w->slip, &n))
        return 0;
    if (w->slip)
        why = "looks like a slip of the pen";
    else if (str_istarts(key, BYTE_ORDER_MARK))
        why = "begins with a byte order mark, which is part of the key";
    else if (without_transport(str_trim(key)).n != str_trim(key).n)
        why = "begins with a transport, which is no part of the key";
    else if (n.bracketed != w->hop.bracketed)
        why = w->hop.bracketed ? "has no brackets, and the relay host has"
                               : "has brackets, and the relay host has none";
    else if (n.port != w->hop.port)
        why = "has another port than the relay host";
    sbuf_add_safe(&shown, key);
    sbuf_printf(&w->what, "; the table has \"%s\", which %s", shown.p, why);
    sbuf_free(&shown);
    return 0;
}

static int sender_row(void *arg, struct str key, struct str value) {
    struct sbuf *what = arg;
    (void)value;
    if (what->n == 0 && str_chr(key, '@') >= 0) {
        sbuf_add_c(what, "; the table has \"");
        sbuf_add_safe(what, key);
        sbuf_add_c(what, "\", which is a sender's key: it is asked with "
                         "smtp_sender_dependent_authentication = yes");
    }
    return 0;
}

static void near_miss(const struct config *c, struct near *w) {
    const char *spec = c->p.smtp_sasl_password_maps;
    creds_each(c, spec, near_row, w);
    w->slip = w->what.n == 0;
    if (w->slip)
        creds_each(c, spec, near_row, w);
    if (w->what.n == 0 && !c->p.smtp_sender_dependent_authentication)
        creds_each(c, spec, sender_row, &w->what);
}

/* None of the keys has a row. */
static void say_unmatched(const struct config *c, struct near *w, struct diags *d) {
    struct sbuf tables = {0};
    near_miss(c, w);
    maps_show(c->p.smtp_sasl_password_maps, &tables);
    diag_add(d, w->hop.bracketed || w->what.n > 0 ? DIAG_WARN : DIAG_NOTE, c->main.path,
             creds_line_of(c, "relayhost"),
             "smtp_sasl_auth_enable = yes, but no credential in %s matches the relay host "
             "%.*s; keys tried: \"%.*s\", \"%.*s\"%s%s%s",
             tables.p, STR_FMT(w->dest), STR_FMT(w->hop.host), STR_FMT(w->dest),
             w->hop.bracketed ? "" : " (and, at delivery, the names of its MX hosts)",
             c->p.smtp_sender_dependent_authentication ? " (senders' keys are asked first)" : "",
             w->what.n > 0 ? w->what.p : "");
    sbuf_free(&tables);
    sbuf_free(&w->what);
}

/* The keys that would be asked for one relay host: has any an answer, and is that one login?
 * Without brackets the names of its exchangers are asked, too, which are not known here.  service:
 * a transport with tables of its own, m, which need not know this relay host; "": main.cf's. */
static void check_credential(const struct config *c, struct maps *m, const char *service,
                             struct str dest, struct diags *d) {
    struct near w = {.dest = dest};
    struct maps_answer a;
    if (nexthop_parse(&w.hop, dest, 25) != NULL)
        return; /* said before */
    struct maps_key keys[2] = {{w.hop.host, false}, {dest, false}};
    maps_find(m, keys, 2, &a);
    if (a.rc == MAP_ERROR && a.several > 0)
        diag_add(d, DIAG_ERROR, c->main.path, creds_line_of(c, "smtp_sasl_password_maps"),
                 "%s%ssmtp_sasl_password_maps: %s: mail for it waits (4.3.0)", service,
                 service[0] == '\0' ? "" : ": ", a.err);
    else if (a.rc == MAP_NOT_FOUND && service[0] == '\0')
        say_unmatched(c, &w, d);
    maps_answer_free(&a);
}

/* For each of main.cf's relay hosts. */
static void check_hosts_logins(const struct config *c, const char *spec, const char *service,
                               struct diags *d) {
    struct str rest = str_of(c->p.relayhost), one;
    struct maps *m = maps_open_as(spec, c->dir, VALUES_ONE);
    while (nexthop_split(&rest, &one))
        check_credential(c, m, service, one, d);
    maps_close(m);
}

/* -- rows that cannot be what was meant -- */

struct cred_rows {
    const struct config *c;
    const struct params *p;    /* the one that names the table */
    const struct service *svc; /* with a table of its own; NULL: it is main.cf's */
    struct diags *d;
    size_t said;
    bool varies; /* it has rules of patterns */
};

static int cred_row(void *arg, struct str key, struct str value) {
    struct cred_rows *r = arg;
    const char *delim = r->p->smtp_sasl_password_result_delimiter;
    struct str v = str_trim(value);
    ptrdiff_t at = delim[0] == '\0' ? -1 : str_chr(v, delim[0]);
    const char *what = NULL;
    if (str_istarts(key, BYTE_ORDER_MARK))
        what = "the key begins with a byte order mark: it is never found";
    else if (at < 0)
        what = "no user:password, so all of it is the user and there is no password";
    else if (at == 0)
        what = "the user's name is empty";
    else if ((size_t)at + 1 == v.n)
        what = "the password is empty";
    bool part = r->varies && str_chr(v, '$') >= 0; /* a part of the key stands in it */
    if (what == NULL || part || ++r->said > AUDIT_SHOWN)
        return 0;
    struct sbuf shown = {0};
    sbuf_add_safe(&shown, key);
    diag_add(r->d, DIAG_WARN, r->svc != NULL ? r->c->master_path : r->c->main.path,
             r->svc != NULL ? r->svc->line : creds_line_of(r->c, "smtp_sasl_password_maps"),
             "%s%ssmtp_sasl_password_maps: the row of \"%s\": %s",
             r->svc != NULL ? r->svc->name : "", r->svc != NULL ? ": " : "",
             shown.p == NULL ? "" : shown.p, what);
    sbuf_free(&shown);
    return 0;
}

/* Those of files, of static: and of rules. */
static void check_cred_rows(const struct config *c, const struct service *svc, struct diags *d) {
    const struct params *p = svc != NULL ? &svc->p : &c->p;
    struct cred_rows rows = {.c = c, .p = p, .svc = svc, .d = d};
    struct maps *m = maps_open(p->smtp_sasl_password_maps, c->dir);
    for (size_t i = 0; i < m->n; i++) {
        rows.varies = !m->v[i]->fixed;
        map_rows(m->v[i], cred_row, &rows);
    }
    maps_close(m);
}

static void check_services_logins(const struct config *c, struct diags *d) {
    for (size_t i = 0; i < c->n_services; i++) {
        const struct service *s = c->services[i];
        const char *spec = s->p.smtp_sasl_password_maps;
        if (s->kind != SERVICE_SMTP || !s->p.smtp_sasl_auth_enable || spec[0] == '\0' ||
            strcmp(spec, c->p.smtp_sasl_password_maps) == 0)
            continue;
        check_hosts_logins(c, spec, s->name, d);
        check_cred_rows(c, s, d);
    }
}

/* -- where a password may go -- */

/* As Postfix: a sender's credentials are for whatever host the sender's mail goes to. */
static void check_strange_hosts(const struct config *c, struct diags *d) {
    const struct params *p = &c->p;
    const struct {
        bool is;
        const char *host;
    } ways[] = {
        {p->relayhost[0] == '\0', "recipients' mail exchangers"},
        {p->smtp_fallback_relay[0] != '\0', "smtp_fallback_relay"},
        {maps_are_remote(p->sender_dependent_relayhost_maps),
         "any host that is written into the tables of sender_dependent_relayhost_maps"},
        {maps_are_remote(p->sender_dependent_default_transport_maps),
         "any host that is written into the tables of sender_dependent_default_transport_maps"},
        {maps_are_remote(p->transport_maps),
         "any host that is written into the tables of transport_maps"},
    };
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++)
        if (p->smtp_sender_dependent_authentication && ways[i].is)
            diag_add(d, DIAG_NOTE, c->main.path,
                     creds_line_of(c, "smtp_sender_dependent_authentication"),
                     "smtp_sender_dependent_authentication = yes: a password that is found under a "
                     "sender is offered to %s; a relay record's is not",
                     ways[i].host);
}

/* A login for every host, as of "static:", is for those too that were not thought of. */
static void check_every_host(const struct config *c, struct diags *d) {
    const struct params *p = &c->p;
    const struct {
        bool is;
        const char *host;
    } ways[] = {
        {p->relayhost[0] == '\0', "recipients' mail exchangers, which others choose"},
        {p->smtp_fallback_relay[0] != '\0', "smtp_fallback_relay"},
        {p->sender_dependent_relayhost_maps[0] != '\0',
         "each host of sender_dependent_relayhost_maps"},
        {p->sender_dependent_default_transport_maps[0] != '\0',
         "each host of sender_dependent_default_transport_maps"},
        {p->transport_maps[0] != '\0', "each host of transport_maps"},
    };
    struct maps *m = maps_open_as(p->smtp_sasl_password_maps, c->dir, VALUES_ONE);
    struct maps_key nobody = {STR_LIT("a-host-that-nobody-has.invalid"), false};
    struct maps_answer a;
    maps_find(m, &nobody, 1, &a);
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++)
        if (a.rc == MAP_FOUND && ways[i].is)
            diag_add(d, i == 0 ? DIAG_WARN : DIAG_NOTE, c->main.path,
                     creds_line_of(c, "smtp_sasl_password_maps"),
                     "smtp_sasl_password_maps has a login for every host: it is offered to %s",
                     ways[i].host);
    maps_answer_free(&a);
    maps_close(m);
}

/* -- passwords in clear text -- */

static bool permits_clear(const struct params *p) {
    unsigned flags = 0;
    struct str bad;
    sasl_options_parse(str_of(p->smtp_sasl_security_options), &flags, &bad);
    return p->smtp_sasl_auth_enable && (flags & SASL_NOPLAINTEXT) == 0 && !p->smtp_tls_wrappermode;
}

/* Is TLS off, or up to the host? */
static bool level_is_open(const char *level) {
    return level[0] == '\0' || strcmp(level, "none") == 0 || strcmp(level, "may") == 0;
}

struct open_rows {
    const struct config *c;
    struct maps *logins;
    struct diags *d;
    size_t said;
};

static bool has_login(const struct open_rows *o, struct str dest) {
    struct nexthop n;
    struct maps_answer a;
    if (nexthop_parse(&n, dest, 25) != NULL)
        return false;
    struct maps_key keys[2] = {{n.host, false}, {dest, false}};
    maps_find(o->logins, keys, 2, &a);
    bool has = a.rc == MAP_FOUND;
    maps_answer_free(&a);
    return has;
}

/* A row of smtp_tls_policy_maps that has less than main.cf, for a host that has a login. */
static int open_row(void *arg, struct str key, struct str value) {
    struct open_rows *o = arg;
    struct tls_policy policy = {0};
    struct sbuf why = {0}, shown = {0};
    bool open = tls_policy_parse(&policy, value, &why) &&
                (policy.level == LEVEL_NONE ||
                 (policy.level == LEVEL_MAY && !level_is_open(o->c->p.smtp_tls_security_level)));
    if (open && has_login(o, key) && ++o->said <= AUDIT_SHOWN) {
        sbuf_add_safe(&shown, key);
        diag_add(o->d, DIAG_WARN, o->c->main.path, creds_line_of(o->c, "smtp_tls_policy_maps"),
                 "smtp_tls_policy_maps: the row of \"%s\" says %s, there is a login for it, and "
                 "smtp_sasl_security_options is without noplaintext: %s the password in clear text",
                 shown.p, tls_level_name(policy.level),
                 policy.level == LEVEL_NONE
                     ? "the host gets"
                     : "a host that does not offer TLS, or whoever hides that it does, gets");
    }
    tls_policy_clear(&policy);
    sbuf_free(&why);
    sbuf_free(&shown);
    return 0;
}

static void check_clear_rows(const struct config *c, struct diags *d) {
    struct open_rows o = {c, NULL, d, 0};
    if (!permits_clear(&c->p))
        return;
    o.logins = maps_open_as(c->p.smtp_sasl_password_maps, c->dir, VALUES_ONE);
    creds_each(c, c->p.smtp_tls_policy_maps, open_row, &o);
    maps_close(o.logins);
}

/* Passwords in clear: the options permit it, and TLS is off or up to the host. */
static void check_clear(const struct config *c, const struct params *p, const char *service,
                        struct diags *d) {
    const char *level = p->smtp_tls_security_level;
    bool none = strcmp(level, "none") == 0;
    if (!permits_clear(p) || !level_is_open(level))
        return;
    diag_add(
        d, DIAG_WARN, c->main.path, creds_line_of(c, "smtp_tls_security_level"),
        "%s%ssmtp_tls_security_level = %s, and smtp_sasl_security_options without noplaintext: "
        "passwords are sent in clear text%s",
        service, service[0] == '\0' ? "" : ": ", level,
        none ? "" : " to a host that does not offer TLS, or to whoever hides that it does");
}

/* Does the line of master.cf itself say whether there is a login, or where it stands? */
static bool says_login(const struct service *s) {
    return cfg_file_find(&s->overrides, STR_LIT("smtp_sasl_auth_enable")) != NULL ||
           cfg_file_find(&s->overrides, STR_LIT("smtp_sasl_password_maps")) != NULL;
}

/* A login is asked for, and no table has one: mail waits, but for that of a relay record. */
static void check_nowhere(const struct config *c, struct diags *d) {
    enum diag_level level = c->relays_spec[0] == '\0' ? DIAG_ERROR : DIAG_WARN;
    bool said = false;
    for (size_t i = 0; i < c->n_services; i++) {
        const struct service *s = c->services[i];
        bool own = says_login(s);
        if (s->kind != SERVICE_SMTP || !s->p.smtp_sasl_auth_enable ||
            s->p.smtp_sasl_password_maps[0] != '\0' || (said && !own))
            continue;
        diag_add(d, level, own ? c->master_path : c->main.path,
                 own ? s->line : creds_line_of(c, "smtp_sasl_auth_enable"),
                 "%s%ssmtp_sasl_auth_enable = yes, but smtp_sasl_password_maps is empty: mail "
                 "without a relay record waits",
                 own ? s->name : "", own ? ": " : "");
        said = said || !own;
    }
}

void audit_credentials(const struct config *c, struct diags *d) {
    check_clear(c, &c->p, "", d);
    for (size_t i = 0; i < c->n_services; i++) {
        const struct params *p = &c->services[i]->p;
        if (c->services[i]->kind == SERVICE_SMTP &&
            (strcmp(p->smtp_tls_security_level, c->p.smtp_tls_security_level) != 0 ||
             strcmp(p->smtp_sasl_security_options, c->p.smtp_sasl_security_options) != 0 ||
             p->smtp_sasl_auth_enable != c->p.smtp_sasl_auth_enable))
            check_clear(c, p, c->services[i]->name, d);
    }
    check_nowhere(c, d);
    check_services_logins(c, d);
    if (!c->p.smtp_sasl_auth_enable || c->p.smtp_sasl_password_maps[0] == '\0')
        return;
    check_hosts_logins(c, c->p.smtp_sasl_password_maps, "", d);
    check_cred_rows(c, NULL, d);
    check_strange_hosts(c, d);
    check_every_host(c, d);
    check_clear_rows(c, d);
}
