/*
 * daemon/check.c - mistakes in a configuration that its syntax does not show
 *
 * Used at start and reload (errors refuse the snapshot) and by `posthouse check`.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/check_words.h"
#include "daemon/confine.h"
#include "daemon/daemon.h"
#include "daemon/setting.h"
#include "daemon/unread_say.h"
#include "deliver/policy.h"
#include "mail/address.h"
#include "maps/maps.h"
#include "receive/receive.h"
#include "receive/sni.h"
#include "route/nexthop.h"
#include "smtp/sasl.h"
#include "util/idn.h"

static int check_line_of(const struct config *cfg, const char *name) {
    const struct cfg_entry *e = cfg_file_find(&cfg->main, str_of(name));
    return e == NULL ? 0 : e->line;
}

/* What every greeting and every completed address has; Postfix does not start with another.  The
 * machine's own name is not judged. */
static void check_own_name(const struct config *cfg, const char *name, const char *value,
                           struct diags *d) {
    int line = check_line_of(cfg, name); /* 0: of the machine, or made of myhostname */
    if (line > 0 && !addr_is_dns_name(str_of(value)))
        diag_add(d, DIAG_ERROR, cfg->main.path, line, "%s: \"%s\" is no host name", name, value);
}

static void check_hops(const struct config *cfg, const char *name, const char *value,
                       enum diag_level waits, struct diags *d) {
    struct str bad;
    const char *why = value[0] == '\0' ? NULL : nexthop_check(str_of(value), &bad);
    if (why != NULL)
        diag_add(d, waits, cfg->main.path, check_line_of(cfg, name),
                 "%s: \"%.*s\": %s: mail for it waits", name, STR_FMT(bad), why);
}

/* "transport:next hop" of a transport that speaks SMTP. */
static void check_transport_hop(const struct config *cfg, const char *name, const char *value,
                                enum diag_level waits, struct diags *d) {
    size_t n = strcspn(value, ":");
    const struct service *t = config_transport(cfg, str_make(value, n));
    if (t != NULL && t->kind == SERVICE_SMTP && value[n] == ':')
        check_hops(cfg, name, value + n + 1, waits, d);
}

/* A transport's own smtp_fallback_relay. */
static void check_fallback(const struct config *cfg, const struct service *svc,
                           enum diag_level waits, struct diags *d) {
    const char *value = svc->p.smtp_fallback_relay;
    struct str bad;
    const char *why = svc->kind != SERVICE_SMTP || value[0] == '\0' ||
                              strcmp(value, cfg->p.smtp_fallback_relay) == 0
                          ? NULL
                          : nexthop_check(str_of(value), &bad);
    if (why != NULL)
        diag_add(d, waits, "master.cf", svc->line,
                 "%s: smtp_fallback_relay: \"%.*s\": %s: mail for it waits", svc->name,
                 STR_FMT(bad), why);
}

/* Where each next hop that is set by name stands; those in tables are looked at by check alone. */
static void check_all_hops(const struct config *cfg, enum diag_level waits, struct diags *d) {
    const struct params *p = &cfg->p;
    check_hops(cfg, "relayhost", p->relayhost, waits, d);
    check_hops(cfg, "smtp_fallback_relay", p->smtp_fallback_relay, waits, d);
    check_transport_hop(cfg, "default_transport", p->default_transport, waits, d);
    check_transport_hop(cfg, "relay_transport", p->relay_transport, waits, d);
    check_transport_hop(cfg, "local_transport", p->local_transport, waits, d);
    check_transport_hop(cfg, "virtual_transport", p->virtual_transport, waits, d);
    for (size_t i = 0; i < cfg->n_services; i++)
        check_fallback(cfg, cfg->services[i], waits, d);
}

/* The filter of a service (NULL: main.cf's, which others have as long as they set no other one). */
static void check_filter(const struct config *cfg, const struct service *svc, enum diag_level waits,
                         struct diags *d) {
    const char *value = svc == NULL ? cfg->p.content_filter : svc->p.content_filter;
    int line = svc == NULL ? check_line_of(cfg, "content_filter") : svc->line;
    const char *file = svc == NULL ? cfg->main.path : "master.cf";
    struct str name = str_make(value, strcspn(value, ":")), bad;
    const struct service *t = config_transport(cfg, name);
    if (value[0] == '\0')
        return;
    if (t == NULL || t->kind == SERVICE_UNUSED)
        diag_add(
            d, waits, file, line,
            "content_filter: \"%.*s\" is not a transport that Posthouse has%s: mail for it waits",
            STR_FMT(name), t == NULL ? ", and master.cf has none of that name" : "");
    const char *hop = value + name.n + (value[name.n] == ':' ? 1 : 0);
    const char *why = t == NULL || t->kind != SERVICE_SMTP || hop[0] == '\0'
                          ? NULL
                          : nexthop_check(str_of(hop), &bad);
    if (why != NULL)
        diag_add(d, waits, file, line, "content_filter: \"%.*s\": %s: mail for it waits",
                 STR_FMT(bad), why);
}

/* What a filter gives back would go to it again, without end. */
static void check_filter_way_back(const struct config *cfg, struct diags *d) {
    bool filters = false, back = false;
    for (size_t i = 0; i < cfg->n_services; i++) {
        const struct service *svc = cfg->services[i];
        if (svc->kind != SERVICE_SMTPD)
            continue;
        filters = filters || svc->p.content_filter[0] != '\0';
        back = back || svc->p.content_filter[0] == '\0';
    }
    if (filters && !back)
        diag_add(d, DIAG_WARN, cfg->main.path, check_line_of(cfg, "content_filter"),
                 "content_filter: every service of master.cf has one: what the filter gives back "
                 "to them goes to it again; give one service -o content_filter=");
}

static void check_filters(const struct config *cfg, enum diag_level waits, struct diags *d) {
    check_filter(cfg, NULL, waits, d);
    for (size_t i = 0; i < cfg->n_services; i++)
        if (cfg_file_find(&cfg->services[i]->overrides, STR_LIT("content_filter")) != NULL)
            check_filter(cfg, cfg->services[i], waits, d);
    check_filter_way_back(cfg, d);
}

static void check_options(const struct config *cfg, const struct service *svc, const char *name,
                          const char *value, struct diags *d) {
    struct setting_place at = setting_place(cfg, svc, name);
    unsigned flags;
    struct str bad;
    if (!sasl_options_parse(str_of(value), &flags, &bad))
        diag_add(d, DIAG_ERROR, at.file, at.line, "%s: unknown word \"%.*s\"", at.name,
                 STR_FMT(bad));
}

/* Of the server: a level that it does not have counts as encrypt, and words that are none stop it.
 */
static void check_server_level(const struct config *cfg, struct diags *d) {
    const char *value = cfg->p.smtpd_tls_security_level;
    enum tls_level level;
    if (value[0] == '\0' || (tls_level_parse(str_of(value), &level) && level != LEVEL_FINGERPRINT))
        return;
    diag_add(d, DIAG_ERROR, cfg->main.path, check_line_of(cfg, "smtpd_tls_security_level"),
             "smtpd_tls_security_level: Posthouse does not have the level \"%s\"", value);
}

/* Of the client, with an override's svc or NULL: its mail waits, so it goes no less safely than it
 * should. */
static void check_client_level(const struct config *cfg, const struct service *svc,
                               enum diag_level waits, struct diags *d) {
    const struct params *p = svc == NULL ? &cfg->p : &svc->p;
    enum tls_level level;
    if (tls_level_parse(str_of(p->smtp_tls_security_level), &level))
        return;
    struct setting_place at = setting_place(cfg, svc, "smtp_tls_security_level");
    diag_add(d, waits, at.file, at.line,
             "%s%s%s: Posthouse does not have the level \"%s\": mail that goes "
             "by it waits (4.7.5)",
             svc == NULL ? "" : svc->name, svc == NULL ? "" : ": ", at.name,
             p->smtp_tls_security_level);
}

/* What stands before a remark about one service's setting; svc NULL: nothing does. */
static const char *of_service(const struct service *svc) {
    return svc == NULL ? "" : svc->name;
}

static const char *colon_of(const struct service *svc) {
    return svc == NULL ? "" : ": ";
}

static void check_servername(const struct config *cfg, const struct service *svc, const char *value,
                             struct diags *d) {
    struct setting_place at = setting_place(cfg, svc, "smtp_tls_servername");
    if (value[0] != '\0' && !server_name_ok(str_of(value)))
        diag_add(d, DIAG_WARN, at.file, at.line,
                 "%s%s%s: \"%s\" is neither hostname, nexthop nor a host name: mail that goes by "
                 "TLS waits",
                 of_service(svc), colon_of(svc), at.name, value);
}

static void check_helo_name(const struct config *cfg, const struct service *svc, const char *value,
                            struct diags *d) {
    struct setting_place at = setting_place(cfg, svc, "smtp_helo_name");
    struct sbuf ascii = {0};
    const char *why;
    if (!idn_to_ascii(str_of(value), false, &ascii, &why))
        diag_add(d, DIAG_WARN, at.file, at.line, "%s%s%s: \"%s\" is no host name: %s: mail waits",
                 of_service(svc), colon_of(svc), at.name, value, why);
    sbuf_free(&ascii);
}

/* Names would have to be looked up: what they stand for counts for nothing. */
static void check_own_addresses(const struct config *cfg, const struct service *svc,
                                const struct params *p, enum diag_level waits, struct diags *d) {
    const struct {
        const char *name, *value, *what;
    } all[] = {
        {"proxy_interfaces", p->proxy_interfaces, "is no address, and counts for no mail"},
        {"smtp_bind_address", p->smtp_bind_address, "is no IPv4 address: mail to those waits"},
        {"smtp_bind_address6", p->smtp_bind_address6, "is no IPv6 address: mail to those waits"}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct setting_place at = setting_place(cfg, svc, all[i].name);
        struct str rest = str_of(all[i].value), one;
        while (str_split(&rest, ", \t\r\n", &one)) {
            struct netaddr a;
            int family = i == 0 ? AF_UNSPEC : i == 1 ? AF_INET : AF_INET6;
            if (!netaddr_parse(&a, one, 0) || (family != AF_UNSPEC && a.u.sa.sa_family != family))
                diag_add(d, waits, at.file, at.line, "%s%s%s: \"%.*s\" %s", of_service(svc),
                         colon_of(svc), at.name, STR_FMT(one), all[i].what);
        }
    }
}

/* What the client's own line says otherwise than main.cf. */
static void check_client_line(const struct config *cfg, const struct service *svc,
                              enum diag_level waits, struct diags *d) {
    const struct params *p = &cfg->p, *own = &svc->p;
    if (strcmp(own->smtp_tls_security_level, p->smtp_tls_security_level) != 0)
        check_client_level(cfg, svc, waits, d);
    if (strcmp(own->smtp_tls_servername, p->smtp_tls_servername) != 0)
        check_servername(cfg, svc, own->smtp_tls_servername, d);
    if (strcmp(own->smtp_bind_address, p->smtp_bind_address) != 0 ||
        strcmp(own->smtp_bind_address6, p->smtp_bind_address6) != 0)
        check_own_addresses(cfg, svc, own, waits, d);
    if (strcmp(own->smtp_helo_name, p->smtp_helo_name) != 0)
        check_helo_name(cfg, svc, own->smtp_helo_name, d);
    check_options(cfg, svc, "smtp_sasl_security_options", own->smtp_sasl_security_options, d);
    check_options(cfg, svc, "smtp_sasl_tls_security_options", own->smtp_sasl_tls_security_options,
                  d);
    check_options(cfg, svc, "smtp_sasl_tls_verified_security_options",
                  own->smtp_sasl_tls_verified_security_options, d);
}

/* What the client says of itself, and asks for, by name. */
static void check_client_names(const struct config *cfg, enum diag_level waits, struct diags *d) {
    const struct params *p = &cfg->p;
    check_servername(cfg, NULL, p->smtp_tls_servername, d);
    check_helo_name(cfg, NULL, p->smtp_helo_name, d);
    check_own_addresses(cfg, NULL, p, waits, d);
    check_client_level(cfg, NULL, waits, d);
    for (size_t i = 0; i < cfg->n_services; i++)
        if (service_is_client(cfg->services[i]))
            check_client_line(cfg, cfg->services[i], waits, d);
}

/* AUTH from clients: warns where there is no server or store to ask. */
static void check_auth(const struct config *cfg, const struct service *svc, struct diags *d) {
    const struct params *p = &svc->p;
    const char *file = svc->line > 0 ? "master.cf" : NULL;
    bool dovecot = strcmp(p->smtpd_sasl_type, "dovecot") == 0;
    struct nexthop at;
    if (svc->kind != SERVICE_SMTPD || !p->smtpd_sasl_auth_enable)
        return;
    if (!dovecot && strcmp(p->smtpd_sasl_type, "accounts") != 0)
        diag_add(d, DIAG_ERROR, file, svc->line,
                 "%s: smtpd_sasl_type = %s: Posthouse has dovecot and accounts", svc->name,
                 p->smtpd_sasl_type);
    else if (!dovecot && p->accounts_store[0] == '\0')
        diag_add(d, DIAG_WARN, file, svc->line,
                 "%s: smtpd_sasl_auth_enable, but there is no accounts store: nobody can log in",
                 svc->name);
    if (dovecot && strncmp(p->smtpd_sasl_path, "inet:", 5) == 0 &&
        nexthop_parse(&at, str_of(p->smtpd_sasl_path + 5), 0) != NULL)
        diag_add(d, DIAG_ERROR, file, svc->line, "%s: smtpd_sasl_path = %s: need inet:address:port",
                 svc->name, p->smtpd_sasl_path);
    check_options(cfg, svc, "smtpd_sasl_security_options", p->smtpd_sasl_security_options, d);
    check_options(cfg, svc, "smtpd_sasl_tls_security_options", p->smtpd_sasl_tls_security_options,
                  d);
}

struct inside {
    const struct config *cfg;
    struct diags *d;
    bool said;
};

/* The lookup process may read whole folders: the spool should be in none of them. */
static void check_folder(void *arg, const char *dir) {
    struct inside *in = arg;
    const char *spool = in->cfg->p.queue_directory;
    size_t n = strlen(dir);
    bool inside = strncmp(spool, dir, n) == 0 && (spool[n] == '/' || spool[n] == '\0' || n == 1);
    if (inside && !in->said)
        diag_add(in->d, DIAG_NOTE, in->cfg->main.path, check_line_of(in->cfg, "queue_directory"),
                 "queue_directory lies inside %s, where tables are: the lookup process cannot be "
                 "kept from reading the spool",
                 dir);
    in->said = in->said || inside;
}

static bool has_transport(const struct config *cfg, const char *transport) {
    const struct service *t = config_transport(cfg, str_make(transport, strcspn(transport, ":")));
    return t != NULL && (service_is_client(t) || t->kind == SERVICE_LOCAL);
}

/* What cron and other programs send to "root" gets myorigin's name.  Without a line for local(8) in
 * master.cf, which expands aliases, there is no place where it can go. */
static void check_local_mail(const struct config *cfg, struct diags *d) {
    const struct params *p = &cfg->p;
    char *err = NULL;
    if (matchlist_has_tables(p->mydestination) || p->transport_maps[0] != '\0' ||
        has_transport(cfg, p->local_transport))
        return;
    struct matchlist *names = matchlist_open(p->mydestination, NULL, MATCH_DOMAIN,
                                             match_how_own(p->enable_idna2003_compatibility));
    if (matchlist_has(names, str_of(p->myorigin), &err) == MATCH_YES)
        diag_add(
            d, DIAG_NOTE, cfg->main.path, check_line_of(cfg, "mydestination"),
            "mail without a domain, such as cron's for root and any client's for <Postmaster>, is "
            "for root@%s, which mydestination names, and local_transport = %s is no transport of "
            "Posthouse: %sit waits in the queue (clients get 451) until it is too old; a line "
            "\"local unix - n "
            "n - - local\" in master.cf sends it where alias_maps says, an empty "
            "mydestination to the relay host",
            p->myorigin, p->local_transport,
            p->virtual_alias_maps[0] == '\0' ? ""
                                             : "unless virtual_alias_maps sends it elsewhere, ");
    free(err);
    matchlist_close(names);
}

void daemon_check_stores(const struct config *cfg, struct diags *d) {
    if (cfg->relays_gone)
        diag_add(
            d, DIAG_WARN, cfg->main.path, check_line_of(cfg, "relays_database"),
            "relays_database %s is gone, and %s says that there were relay records: mail waits "
            "until it is back (or until that key is removed too, and there are none)",
            cfg->p.relays_database, cfg->p.relays_key_file);
    if (cfg->accounts_gone)
        diag_add(d, DIAG_WARN, cfg->main.path, check_line_of(cfg, "data_directory"),
                 "the accounts store %s/accounts.db is gone, and %s/" CONFIG_ACCOUNTS_MARK
                 " says that it was used: mail waits until it is back (or until that file is "
                 "removed too, and there is no store)",
                 cfg->p.data_directory, cfg->p.queue_directory);
}

static void check_networks(const struct config *cfg, const struct service *svc,
                           enum diag_level waits, struct diags *d) {
    const char *value = svc == NULL ? cfg->p.mynetworks : svc->p.mynetworks;
    const char *file = svc == NULL ? cfg->main.path : "master.cf";
    const char *name = svc == NULL ? "" : svc->name, *colon = svc == NULL ? "" : ": ";
    int line = svc == NULL ? check_line_of(cfg, "mynetworks") : svc->line;
    struct str what;
    if (svc != NULL && strcmp(value, cfg->p.mynetworks) == 0)
        return;
    const char *why = matchlist_check_networks(value, &what);
    if (why != NULL)
        diag_add(d, waits, file, line,
                 "%s%smynetworks: %s: \"%.*s\": clients that nothing before it names get 451", name,
                 colon, why, STR_FMT(what));
    if (matchlist_wide_network(value, &what))
        diag_add(d, DIAG_WARN, file, line,
                 "%s%smynetworks: %.*s is a large part of the Internet: where permit_mynetworks "
                 "stands, all its hosts may send mail to anybody (an open relay, unless a firewall "
                 "keeps them away)",
                 name, colon, STR_FMT(what));
}

static const char *list_text(const struct params *p, const char *name) {
    const struct param_info *info = param_find(name, strlen(name));
    return params_text_at(p, info->offset);
}

/* Files of one list that could not be read.  svc: NULL, or a service that has its own list. */
static void check_list_files(const struct config *cfg, const struct service *svc, const char *name,
                             enum diag_level waits, struct diags *d) {
    struct str rest = str_of(list_text(svc == NULL ? &cfg->p : &svc->p, name)), one;
    while (str_split_braces(&rest, ", \t\r\n", &one)) {
        for (; one.n > 0 && one.p[0] == '!'; one = str_from(one, 1))
            ;
        if (!str_istarts(one, CONFIG_UNREAD))
            continue;
        char *path = str_dup(str_from(one, strlen(CONFIG_UNREAD)));
        diag_add(d, waits, svc == NULL ? cfg->main.path : "master.cf",
                 svc == NULL ? check_line_of(cfg, name) : svc->line,
                 "%s%s%s: cannot read %s: %s: what it is asked about waits",
                 svc == NULL ? "" : svc->name, svc == NULL ? "" : ": ", name, path,
                 config_unread_why(cfg, path));
        free(path);
    }
}

static void check_lists(const struct config *cfg, enum diag_level waits, struct diags *d) {
    for (size_t i = 0; config_file_lists[i] != NULL; i++) {
        const char *name = config_file_lists[i], *value = list_text(&cfg->p, name);
        check_list_files(cfg, NULL, name, waits, d);
        for (size_t k = 0; k < cfg->n_services; k++)
            if (strcmp(list_text(&cfg->services[k]->p, name), value) != 0)
                check_list_files(cfg, cfg->services[k], name, waits, d);
    }
}

/* A comment behind a value is none, in Postfix as here: only a line of its own is one. */
static void check_comments(const struct config *cfg, struct diags *d) {
    for (size_t i = 0; i < cfg->main.n; i++) {
        const struct cfg_entry *e = &cfg->main.v[i];
        struct str rest = str_of(e->line > 0 ? e->value : ""), word = STR_NONE;
        while (str_split_braces(&rest, " \t\r\n", &word) && word.p[0] != '#')
            ;
        if (word.n > 0 && word.p[0] == '#' && strstr(e->name, "banner") == NULL)
            diag_add(d, DIAG_WARN, cfg->main.path, e->line,
                     "%s: \"%.*s\" is part of the value and no comment: a comment stands on a line "
                     "of its own",
                     e->name, (int)strlen(word.p), word.p);
    }
}

/* All files go to the other processes as one message. */
static void check_bundle_size(const struct config *cfg, struct diags *d) {
    size_t all = cfg_source_size(cfg->source), most;
    const char *largest = cfg_source_largest(cfg->source, &most);
    if (all > IPC_MAX && largest != NULL)
        diag_add(d, DIAG_ERROR, largest, 0,
                 "this file, of %zu bytes, is the largest of those that the configuration is made "
                 "of; together they have %zu bytes, and at most %u are possible: the daemon does "
                 "not start; large lists belong into tables",
                 most, all, IPC_MAX);
}

void daemon_check(const struct config *cfg, enum diag_level waits, struct diags *d) {
    const struct params *p = &cfg->p;
    check_bundle_size(cfg, d);
    check_comments(cfg, d);
    check_words(cfg, d);
    check_listeners(cfg, d);
    check_own_name(cfg, "myhostname", p->myhostname, d);
    check_own_name(cfg, "mydomain", p->mydomain, d);
    check_networks(cfg, NULL, waits, d);
    for (size_t i = 0; i < cfg->n_services; i++)
        if (cfg->services[i]->kind == SERVICE_SMTPD)
            check_networks(cfg, cfg->services[i], waits, d);
    check_lists(cfg, waits, d);
    unread_check_accepted(cfg, d);
    check_local_mail(cfg, d);
    check_all_hops(cfg, waits, d);
    check_options(cfg, NULL, "smtp_sasl_security_options", p->smtp_sasl_security_options, d);
    check_options(cfg, NULL, "smtp_sasl_tls_security_options", p->smtp_sasl_tls_security_options,
                  d);
    check_server_level(cfg, d);
    check_client_names(cfg, waits, d);
    for (size_t i = 0; i < cfg->n_services; i++)
        check_auth(cfg, cfg->services[i], d);
    struct inside in = {cfg, d};
    confine_folders(cfg, check_folder, &in);
    check_filters(cfg, waits, d);
    receive_check(cfg, waits, d);
    sni_check(cfg, waits, d);
}
