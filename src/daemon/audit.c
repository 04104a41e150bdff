/*
 * daemon/audit.c - every mistake in a configuration, with file and line; see audit.h
 *
 * What tables there are is looked at in audit_tables.c, and what stands in them in audit_creds.c,
 * audit_rows.c and audit_tls.c.
 */
#include "daemon/audit.h"

#include <openssl/pem.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/secret.h"
#include "daemon/daemon.h"
#include "daemon/foreign.h"
#include "daemon/listen.h"
#include "daemon/unread_say.h"
#include "daemon/uses.h"
#include "maps/maps.h"
#include "maps/tabconf.h"
#include "receive/sni.h"
#include "route/nexthop.h"
#include "route/own.h"
#include "util/mem.h"
#include "util/net.h"
#include "util/os.h"
#include "util/tls.h"

#define CERT_DAYS 14

/* Is it a line that has Postfix's own processes done what Posthouse does in its own? */
static bool is_internal(const struct service *s) {
    static const char *const commands[] = {
        "anvil",           "bounce", "cleanup", "defer",    "dnsblog",  "flush",
        "nqmgr",           "oqmgr",  "pickup",  "postlogd", "qmgr",     "proxymap",
        "trivial-rewrite", "scache", "showq",   "tlsmgr",   "tlsproxy", "verify"};
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(s->command, commands[i]) == 0)
            return true;
    return false;
}

/* A port that is in master.cf and is not opened. */
static void check_unopened(const struct config *c, struct diags *d) {
    for (size_t i = 0; i < c->n_services; i++) {
        const struct service *s = c->services[i];
        if (s->kind == SERVICE_UNUSED && s->inet)
            diag_add(d, DIAG_ERROR, c->master_path, s->line,
                     "%s: Posthouse has no server \"%s\": the port is not opened", s->name,
                     s->command);
    }
}

/* Lines of master.cf that no process of Posthouse serves, in one remark. */
static void check_unused(const struct config *c, bool internal, struct diags *d) {
    struct sbuf names = {0};
    size_t n = 0;
    int line = 0;
    for (size_t i = 0; i < c->n_services; i++) {
        const struct service *s = c->services[i];
        if (s->kind != SERVICE_UNUSED || s->inet || is_internal(s) != internal)
            continue;
        sbuf_add_c(&names, n++ > 0 ? ", " : "");
        secret_quote(str_of(s->name), &names);
        sbuf_add_c(&names, " (");
        secret_quote(str_of(s->command), &names);
        sbuf_add_c(&names, ")");
        line = n == 1 ? s->line : 0;
    }
    if (n > 0)
        diag_add(d, DIAG_NOTE, c->master_path, line, "%s (%zu): %s",
                 internal ? "harmless: Posthouse does without these processes" : "not used", n,
                 names.p);
    sbuf_free(&names);
}

static void check_services(const struct config *c, struct diags *d) {
    check_unopened(c, d);
    check_unused(c, false, d);
    check_unused(c, true, d);
    for (size_t i = 0; i < c->n_services; i++) {
        const struct service *s = c->services[i];
        if (s->kind == SERVICE_SMTPD && s->p.smtpd_tls_wrappermode &&
            s->p.smtpd_tls_cert_file[0] == '\0' && s->p.smtpd_tls_chain_files[0] == '\0')
            diag_add(d, DIAG_ERROR, s->line > 0 ? c->master_path : NULL, s->line,
                     "%s: smtpd_tls_wrappermode without smtpd_tls_cert_file", s->name);
    }
}

/* -- next hops that are this system -- */

struct loops {
    const struct config *c;
    struct diags *d;
    struct sbuf said; /* "where: hop", a line each: said once */
};

/* By their own names these go nowhere: what stands behind the colon is no host. */
static bool leads_nowhere(const char *where) {
    return strcmp(where, "local_transport") == 0 || strcmp(where, "virtual_transport") == 0;
}

static void check_self(void *arg, struct str text, const char *where) {
    struct loops *l = arg;
    struct str one;
    const struct cfg_entry *e = cfg_file_find(&l->c->main, str_make(where, strcspn(where, " ")));
    while (!leads_nowhere(where) && nexthop_split(&text, &one)) {
        struct nexthop hop;
        struct sbuf line = {0};
        const struct service *svc =
            nexthop_parse(&hop, one, 25) == NULL ? own_service_of(l->c, &hop) : NULL;
        sbuf_printf(&line, "%s: %.*s\n", where, STR_FMT(one));
        if (svc != NULL && (l->said.n == 0 || strstr(l->said.p, line.p) == NULL)) {
            diag_add(l->d, DIAG_ERROR, l->c->main.path, e == NULL ? 0 : e->line,
                     "%s: %.*s is this system itself (service %s): mail would loop", where,
                     STR_FMT(one), svc->name);
            sbuf_add_str(&l->said, sbuf_str(&line));
        }
        sbuf_free(&line);
    }
}

static void check_loops(const struct config *c, struct diags *d) {
    struct loops l = {.c = c, .d = d};
    uses_each(c, check_self, &l);
    check_self(&l, str_of(c->p.smtp_fallback_relay), "smtp_fallback_relay");
    sbuf_free(&l.said);
}

/* -- certificates: expired, or about to -- */

struct cert_use {
    const struct config *c;
    struct diags *d;
    const char *who;         /* the service, or the parameter that names it */
    enum diag_level expired; /* what it is then */
};

static void check_certificate(const struct cert_use *u, const char *file) {
    struct sbuf path = {0};
    struct sbuf what = {0};
    bool over = false;
    int err;
    if (file[0] != '/')
        sbuf_printf(&path, "%s/", u->c->dir);
    sbuf_add_c(&path, file);
    struct str pem = config_file(u->c, file, &err);
    BIO *b = BIO_new_mem_buf(pem.p, (int)pem.n);
    X509 *cert = b == NULL ? NULL : PEM_read_bio_X509(b, NULL, tls_no_password, NULL);
    if (cert != NULL && tls_cert_ends(cert, CERT_DAYS, &over, &what))
        diag_add(u->d, over ? u->expired : DIAG_WARN, path.p, 0, "%s: %s", u->who, what.p);
    sbuf_free(&what);
    X509_free(cert);
    BIO_free(b);
    sbuf_free(&path);
}

/* chains is used instead of file. */
static void check_certificate_files(const struct cert_use *u, const char *chains,
                                    const char *file) {
    struct str rest = str_of(chains[0] != '\0' ? chains : file), one;
    /* one file's name may have blanks in it */
    const char *between = chains[0] != '\0' ? ", \t\r\n" : "";
    while (str_split(&rest, between, &one)) {
        char *name = str_dup(one);
        if (strcmp(name, "none") != 0)
            check_certificate(u, name);
        free(name);
    }
}

/* Have they been looked at, for an earlier service with the same ones? */
static bool certificate_was_looked_at(const struct config *c, size_t at) {
    const struct params *p = &c->services[at]->p;
    for (size_t i = 0; i < at; i++) {
        const struct params *q = &c->services[i]->p;
        if (c->services[i]->kind == SERVICE_SMTPD &&
            strcmp(q->smtpd_tls_chain_files, p->smtpd_tls_chain_files) == 0 &&
            strcmp(q->smtpd_tls_cert_file, p->smtpd_tls_cert_file) == 0)
            return true;
    }
    return false;
}

/* What relay hosts are shown.  Most do not look at it, so mail that goes by it need not wait. */
static void check_client_certificate(const struct config *c, const struct params *p,
                                     struct diags *d) {
    bool chains = p->smtp_tls_chain_files[0] != '\0';
    struct cert_use u = {c, d, chains ? "smtp_tls_chain_files" : "smtp_tls_cert_file", DIAG_WARN};
    check_certificate_files(&u, p->smtp_tls_chain_files, p->smtp_tls_cert_file);
}

static void check_certificates(const struct config *c, struct diags *d) {
    check_client_certificate(c, &c->p, d);
    for (size_t i = 0; i < c->n_services; i++) {
        const struct service *s = c->services[i];
        struct cert_use u = {c, d, s->name, DIAG_ERROR};
        if (s->kind == SERVICE_SMTPD && !certificate_was_looked_at(c, i))
            check_certificate_files(&u, s->p.smtpd_tls_chain_files, s->p.smtpd_tls_cert_file);
        else if (s->kind == SERVICE_SMTP)
            check_client_certificate(c, &s->p, d);
    }
}

static char *audit_from_main(void *arg, const char *name) {
    return config_value(arg, name, NULL);
}

void audit_tables_of(const struct config *c) {
    tabconf_use_main(c == NULL ? NULL : audit_from_main, (void *)(uintptr_t)c);
}

/* The relay records, if there are any that can be read. */
static void check_relays(const struct config *c, struct diags *d) {
    char *why = NULL;
    bool made;
    struct relays *r =
        c->relays_spec[0] == '\0'
            ? NULL
            : relays_open(c->p.relays_database, c->p.relays_key_file, false, &made, &why);
    if (r != NULL) {
        audit_owners(c, r, d);
        audit_records(c, r, d);
    }
    relays_close(r);
    free(why);
}

void audit(struct config *c, struct diags *d) {
    config_preload(c);
    daemon_check(c, DIAG_ERROR, d);
    if (getpwnam(c->p.mail_owner) == NULL)
        diag_add(d, DIAG_ERROR, c->main.path, 0,
                 "mail_owner = %s: no such user: the daemon does not start", c->p.mail_owner);
    if (getpwnam(c->p.lookup_owner) == NULL)
        diag_add(d, DIAG_ERROR, c->main.path, 0,
                 "lookup_owner = %s: no such user: the daemon does not start", c->p.lookup_owner);
    listen_check(c, d);
    unread_say_refused(c, DIAG_ERROR, d);
    daemon_check_stores(c, d);
    foreign_check(c, d);
    unread_say_rest(c, d);
    check_services(c, d);
    audit_tables(c, d);
    audit_credentials(c, d);
    audit_places(c, d);
    audit_sockets(c, d);
    check_relays(c, d);
    check_loops(c, d);
    check_certificates(c, d);
    sni_check_dates(c, CERT_DAYS, d);
    audit_rows(c, d);
    audit_senders(c, d);
    audit_aliases(c, d);
    audit_tls(c, d);
    if (os_left_out() != NULL)
        diag_add(d, DIAG_NOTE, NULL, 0,
                 "this build has no %s: a process that was broken into would be held by its user "
                 "alone",
                 os_left_out());
}
