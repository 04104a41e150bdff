/*
 * config/config.c - configuration snapshots; see config.h
 *
 * Every value is expanded when the snapshot is built, once per service, because -o overrides may
 * change what another value refers to.  Mistakes are remarks with file and line; a snapshot with
 * errors is never put to use.
 */
#include "config/config.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/master_cf.h"
#include "config/secret.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/net.h"

struct scope {
    const struct config *c;
    const struct service *svc; /* NULL: main.cf alone */
    struct sbuf *used;         /* notes the names asked for; may be NULL */
};

/* The entry that sets a name, and the file's name for remarks; NULL, both: the name is not set. */
static const struct cfg_entry *config_entry(const struct config *c, const struct service *svc,
                                            struct str name, const char **file) {
    const struct cfg_entry *e = svc == NULL ? NULL : cfg_file_find(&svc->overrides, name);
    if (e != NULL) {
        *file = "master.cf";
        return e;
    }
    e = cfg_file_find(&c->main, name);
    *file = e == NULL ? NULL : c->main.path;
    return e;
}

/* What a name stands for that a program of Postfix knows of itself; of a value of main.cf that is
 * no service's, the program is Posthouse. */
static const char *process_fact(const struct service *svc, struct str name) {
    static _Thread_local char id[16];
    if (str_eq_c(name, "service_name") && svc != NULL) /* master(5): the line's first field */
        return svc->name;
    if (str_eq_c(name, "process_name"))
        return svc == NULL ? "posthouse" : svc->postscreen ? "smtpd" : svc->command;
    if (!str_eq_c(name, "process_id"))
        return NULL;
    snprintf(id, sizeof id, "%lld", (long long)getpid());
    return id;
}

/* -o, main.cf, the table's default, a fact about the machine; NULL if none. */
static const char *scope_lookup(void *arg, struct str name) {
    const struct scope *s = arg;
    const char *file;
    const struct cfg_entry *e = config_entry(s->c, s->svc, name, &file);
    if (s->used != NULL)
        sbuf_printf(s->used, "%.*s\n", STR_FMT(name));
    if (e != NULL)
        return e->value;
    const struct param_info *info = param_find(name.p, name.n);
    if (info != NULL)
        return info->def;
    const char *own = process_fact(s->svc, name);
    if (own != NULL)
        return own;
    char text[64];
    if (name.n >= sizeof text)
        return NULL;
    memcpy(text, name.p, name.n);
    text[name.n] = '\0';
    return cfg_source_fact(s->c->source, text);
}

/* Blanks at the ends of a value are none of it, also where they stood between braces. */
static char *value_trimmed(struct sbuf *out) {
    char *text = str_dup(str_trim(sbuf_str(out)));
    sbuf_wipe(out);
    return text;
}

char *config_expand(const struct config *c, const struct service *svc, const char *text) {
    struct scope s = {c, svc, NULL};
    struct sbuf out = {0};
    const char *why;
    if (cfg_expand(&out, str_of(text), scope_lookup, &s, &why, NULL) < 0) {
        sbuf_free(&out);
        return NULL;
    }
    return value_trimmed(&out);
}

char *config_value(const struct config *c, const char *name, const struct service *svc) {
    struct scope s = {c, svc, NULL};
    const char *raw = scope_lookup(&s, str_of(name));
    return raw == NULL ? NULL : config_expand(c, svc, raw);
}

static size_t digits_of(struct str s) {
    size_t n = 0;
    while (n < s.n && s.p[n] >= '0' && s.p[n] <= '9')
        n++;
    return n;
}

bool config_time(struct str s, char unit, int64_t *seconds) {
    uint64_t v;
    int64_t mult = 1;
    size_t digits = digits_of(s);
    if (digits < s.n)
        unit = s.p[digits];
    switch (unit) {
    case 'w':
        mult = 604800;
        break;
    case 'd':
        mult = 86400;
        break;
    case 'h':
        mult = 3600;
        break;
    case 'm':
        mult = 60;
        break;
    case 's':
        break;
    default:
        return false;
    }
    if (!str_u64(str_make(s.p, digits), &v) || v > (uint64_t)(INT32_MAX / mult))
        return false;
    *seconds = (int64_t)v * mult;
    return true;
}

/* Where a name was set, for remarks. */
static const char *config_place(const struct config *c, const struct service *svc, const char *name,
                                int *line) {
    const char *file;
    const struct cfg_entry *e = config_entry(c, svc, str_of(name), &file);
    *line = e == NULL ? 0 : e->line;
    return file;
}

static const char *config_text_keep(struct config *c, char *text) {
    c->texts = mem_realloc(c->texts, (c->n_texts + 1) * sizeof(char *));
    c->texts[c->n_texts++] = text;
    return text;
}

/* "1h30m" is an hour, as with Postfix. */
static void time_check_rest(struct config *c, const char *file, int line, const char *name,
                            const char *text, int64_t seconds) {
    if (strlen(text) > digits_of(str_of(text)) + 1)
        diag_add(&c->diags, DIAG_WARN, file, line,
                 "%s: \"%s\" is %lld seconds: what stands behind the first unit counts for "
                 "nothing, as with Postfix",
                 name, text, (long long)seconds);
}

static bool is_time(const struct param_info *info) {
    return info->type != PARAM_STR && info->type != PARAM_BOOL && info->type != PARAM_INT;
}

static bool bool_parse(const char *s, bool *v) {
    *v = str_ieq_c(str_of(s), "yes");
    return *v || str_ieq_c(str_of(s), "no");
}

static char time_unit(enum param_type t) {
    return t == PARAM_TIME_D ? 'd' : t == PARAM_TIME_H ? 'h' : 's';
}

/* Stores one expanded value; false if its syntax is wrong. */
static bool value_store(struct config *c, const struct param_info *info, void *at, char *text) {
    uint64_t u;
    bool ok = true;
    switch (info->type) {
    case PARAM_STR:
        *(const char **)at = config_text_keep(c, text);
        return true;
    case PARAM_BOOL:
        ok = bool_parse(text, at);
        break;
    case PARAM_INT:
        ok = str_u64(str_of(text), &u) && u <= (uint64_t)param_most(info);
        *(int64_t *)at = ok ? (int64_t)u : 0;
        break;
    default:
        ok = config_time(str_of(text), time_unit(info->type), at);
        break;
    }
    return ok;
}

static const char *type_hint(enum param_type t) {
    return t == PARAM_BOOL  ? "yes or no"
           : t == PARAM_INT ? "a number"
                            : "a number and s, m, h, d or w";
}

/* Of a number that is too small: in Postfix no program that reads it starts. */
static void number_check(struct config *c, const char *file, int line,
                         const struct param_info *info, const void *at, const char *text) {
    if (info->type == PARAM_STR || info->type == PARAM_BOOL)
        return;
    int64_t least = param_least(info), is = *(const int64_t *)at;
    if (is_time(info))
        time_check_rest(c, file, line, info->name, text, is);
    if (is < least)
        diag_add(&c->diags, DIAG_ERROR, file, line, "%s = %s is too small: at least %lld%s%s",
                 info->name, text, (long long)least, is_time(info) ? " s" : "",
                 strcmp(info->name, "line_length_limit") == 0 ? " (RFC 5321 section 4.5.3.1)" : "");
}

static void param_fill(struct config *c, const struct service *svc, struct params *p,
                       const struct param_info *info) {
    struct scope s = {c, svc, svc == NULL ? &c->used_names : NULL};
    struct sbuf out = {0}, undefined = {0};
    const char *why;
    const char *file;
    void *at = (char *)p + info->offset;
    const struct cfg_entry *set = config_entry(c, svc, str_make(info->name, info->name_n), &file);
    const char *raw = set == NULL ? info->def : set->value;
    int line = set == NULL ? 0 : set->line;
    bool first_seen = svc == NULL || info->lmtp || /* else it was judged as main.cf's */
                      cfg_file_find(&svc->overrides, str_of(info->name)) != NULL;
    if (cfg_expand(&out, str_of(raw), scope_lookup, &s, &why, &undefined) < 0) {
        diag_add(&c->diags, DIAG_ERROR, file, line, "%s: %s in \"%s\"", info->name, why,
                 secret_quote_value(info->name, raw));
        sbuf_reset(&out);
    } else if (undefined.n > 0 && first_seen) {
        diag_add(&c->diags, DIAG_WARN, file, line, "%s: undefined parameter: %s", info->name,
                 secret_quote_undefined(info->name, sbuf_str(&out), undefined.p));
    }
    sbuf_free(&undefined);
    char *text = value_trimmed(&out);
    if (!value_store(c, info, at, text))
        diag_add(&c->diags, DIAG_ERROR, file, line, "bad %s configuration: %s = %s (must be %s)",
                 info->type == PARAM_BOOL  ? "boolean"
                 : info->type == PARAM_INT ? "numerical"
                                           : "time",
                 info->name, text, type_hint(info->type));
    else if (first_seen)
        number_check(c, file, line, info, at, text);
    if (info->type != PARAM_STR)
        free(text);
}

static bool slash_path(const char *s) {
    return s[0] == '/' && strpbrk(s, " \t,") == NULL;
}

/* myorigin may name a file, and its first line is the value then (Debian: /etc/mailname). */
static void origin_fill(struct config *c, struct params *p) {
    if (!slash_path(p->myorigin))
        return;
    int err, line;
    struct str text = cfg_source_file(c->source, p->myorigin, &err), first;
    if (err < 0 || !str_split(&text, "\n", &first)) {
        const char *file = config_place(c, NULL, "myorigin", &line);
        diag_add(&c->diags, DIAG_WARN, file, line, "myorigin: cannot read %s: %s; using %s",
                 p->myorigin, err < 0 ? cfg_source_why(err) : "it is empty", p->myhostname);
        p->myorigin = p->myhostname;
        return;
    }
    p->myorigin = config_text_keep(c, str_dup(str_trim(first)));
}

/* A system that has a name without a domain is in mydomain. */
static void host_default(struct config *c) {
    const char *label = cfg_source_fact(c->source, "system_label");
    if (label == NULL || cfg_file_find(&c->main, STR_LIT("mydomain")) == NULL ||
        cfg_file_find(&c->main, STR_LIT("myhostname")) != NULL)
        return;
    char *domain = config_value(c, "mydomain", NULL);
    if (domain != NULL && domain[0] != '\0') {
        struct sbuf full = {0};
        sbuf_printf(&full, "%s.%s", label, domain);
        cfg_file_set(&c->main, STR_LIT("myhostname"), sbuf_str(&full), 0);
        sbuf_free(&full);
    }
    free(domain);
}

/* mydomain defaults to myhostname without its first label. */
static void domain_default(struct config *c) {
    if (cfg_file_find(&c->main, STR_LIT("mydomain")) != NULL)
        return;
    char *host = config_value(c, "myhostname", NULL);
    const char *dot = host == NULL ? NULL : strchr(host, '.');
    if (dot != NULL)
        cfg_file_set(&c->main, STR_LIT("mydomain"), str_of(dot + 1), 0);
    free(host);
}

/* -- mynetworks where nothing sets it -- */

/* Is it an address that word, of inet_interfaces, names?  0.0.0.0 and :: are all of their kind. */
static bool networks_word_is(struct str word, const struct netaddr *a) {
    struct netaddr one;
    if (word.n > 2 && word.p[0] == '[')
        word = str_make(word.p + 1, word.n - 2);
    if (str_eq_c(word, "all"))
        return true;
    if (str_eq_c(word, "loopback-only") || str_ieq_c(word, "localhost"))
        return netaddr_is_loopback(a);
    if (!netaddr_parse(&one, word, 0) || one.u.sa.sa_family != a->u.sa.sa_family)
        return false;
    return netaddr_is_any(&one) || netaddr_same(&one, a);
}

/* Do inet_interfaces and inet_protocols leave the address in? */
static bool networks_serve(const char *interfaces, const char *protocols, const struct netaddr *a) {
    struct str rest = str_of(interfaces), families = str_of(protocols), word;
    bool served = false;
    while (!served && str_split(&rest, ", \t\r\n", &word))
        served = networks_word_is(word, a);
    return served && (list_has_word(families, "all") ||
                      list_has_word(families, a->u.sa.sa_family == AF_INET ? "ipv4" : "ipv6"));
}

/* Notes system_networks: of the networks of this machine, in the style that main.cf names, those
 * with an address that is served.  Postfix trusts no others: mail of a network that has no listener
 * may come in by another interface.  Each network has the place of its address.  A bundle of
 * another process, or a copy of it, has them noted. */
static void networks_note(struct config *c) {
    if (cfg_source_fact(c->source, "system_networks") != NULL)
        return;
    char *style = config_value(c, "mynetworks_style", NULL);
    char *interfaces = config_value(c, "inet_interfaces", NULL);
    char *protocols = config_value(c, "inet_protocols", NULL);
    const char *fact = style != NULL && strcmp(style, "subnet") == 0  ? "system_networks_subnet"
                       : style != NULL && strcmp(style, "class") == 0 ? "system_networks_class"
                                                                      : "system_networks_host";
    struct str networks = str_of(cfg_source_fact(c->source, fact)), network;
    struct str own = str_of(cfg_source_fact(c->source, "system_addresses")), word;
    struct sbuf served = {0};
    struct netaddr a;
    sbuf_add_c(&served, "");
    while (str_split(&networks, " ", &network) && str_split(&own, " ", &word))
        if (interfaces != NULL && protocols != NULL && netaddr_parse(&a, word, 0) &&
            networks_serve(interfaces, protocols, &a))
            sbuf_printf(&served, "%s%.*s", served.n > 0 ? " " : "", STR_FMT(network));
    cfg_source_fact_add(c->source, "system_networks", served.p);
    sbuf_free(&served);
    free(style);
    free(interfaces);
    free(protocols);
}

const char *const config_file_lists[] = {"mynetworks",
                                         "relay_domains",
                                         "mydestination",
                                         "virtual_alias_domains",
                                         "virtual_mailbox_domains",
                                         "smtpd_client_event_limit_exceptions",
                                         "smtpd_sasl_exceptions_networks",
                                         "smtpd_authorized_xforward_hosts",
                                         "smtpd_sasl_mechanism_filter",
                                         "smtp_sasl_mechanism_filter",
                                         "smtpd_forbid_bare_newline_exclusions",
                                         "authorized_submit_users",
                                         "authorized_mailq_users",
                                         "authorized_flush_users",
                                         NULL};

#define LIST_FILES_DEEP 10 /* a file that names itself is no list */

static void list_add(struct config *c, struct str list, bool negated, int deep, struct sbuf *out);

/* The file's patterns, without comments.  One that cannot be read becomes a table that fails, as
 * with Postfix: what is asked about it waits, and everything else goes on. */
static void list_file_add(struct config *c, const char *path, bool negated, int deep,
                          struct sbuf *out) {
    int err;
    struct str text = config_file(c, path, &err), one;
    if (err < 0 || deep == LIST_FILES_DEEP) {
        sbuf_printf(out, " %s" CONFIG_UNREAD "%s", negated ? "!" : "", path);
        return;
    }
    while (str_split(&text, "\n", &one)) {
        one = str_trim(one);
        if (one.n > 0 && one.p[0] != '#')
            list_add(c, one, negated, deep + 1, out);
    }
}

const char *config_unread_why(const struct config *c, const char *path) {
    int err;
    config_file(c, path, &err);
    return err < 0 ? cfg_source_why(err) : "it is named by itself, or by too many files";
}

/* Appends the patterns; what stands in a file behind an exclamation mark is negated, each one. */
static void list_add(struct config *c, struct str list, bool negated, int deep, struct sbuf *out) {
    struct str one;
    while (str_split_braces(&list, ", \t\r\n", &one)) {
        bool not = negated;
        for (; one.n > 1 && one.p[0] == '!'; one = str_from(one, 1))
            not = !not ;
        char *path = str_dup(one);
        if (path[0] == '/')
            list_file_add(c, path, not, deep, out);
        else
            sbuf_printf(out, " %s%s", not ? "!" : "", path);
        free(path);
    }
}

static void list_fill(struct config *c, struct params *p, const char *name) {
    const char **at = (void *)((char *)p + param_find(name, strlen(name))->offset);
    struct sbuf out = {0};
    if (strchr(*at, '/') == NULL)
        return;
    list_add(c, str_of(*at), false, 0, &out);
    *at = config_text_keep(c, sbuf_take(&out));
}

/* A store counts once it is there, and from then on: one that is gone is asked all the same, so
 * that mail waits.  mark is a file that is made with it.  *gone: the store is not there any more.
 */
static bool store_counts(struct config *c, const char *path, const char *mark, bool *gone) {
    bool there = cfg_source_may_exist(c->source, path);
    *gone = !there && cfg_source_exists(c->source, mark);
    return there || *gone;
}

const char *config_store_file(const struct config *c) {
    static const char type[] = "sqlite:";
    const char *store = c->p.accounts_store;
    return strncmp(store, type, sizeof type - 1) == 0 ? store + sizeof type - 1 : NULL;
}

/* With an accounts store, senders' relay hosts come from it unless main.cf says otherwise. */
static void accounts_fill(struct config *c, struct params *p) {
    struct sbuf b = {0}, mark = {0};
    bool gone = false;
    sbuf_printf(&b, "%s/accounts.db", p->data_directory);
    sbuf_printf(&mark, "%s/" CONFIG_ACCOUNTS_MARK, p->queue_directory);
    if (p->accounts_store[0] == '\0' && store_counts(c, b.p, mark.p, &gone)) {
        struct sbuf spec = {0};
        sbuf_printf(&spec, "sqlite:%s", b.p);
        p->accounts_store = config_text_keep(c, sbuf_take(&spec));
        c->embedded = true;
        c->accounts_gone = gone;
    }
    sbuf_free(&mark);
    sbuf_reset(&b);
    if (p->accounts_store[0] != '\0' &&
        cfg_file_find(&c->main, STR_LIT("sender_dependent_relayhost_maps")) == NULL) {
        sbuf_printf(&b, "accounts:%s", p->accounts_store);
        p->sender_dependent_relayhost_maps = config_text_keep(c, mem_strdup(b.p));
    }
    sbuf_free(&b);
}

static void relays_fill(struct config *c) {
    struct sbuf b = {0};
    if (store_counts(c, c->p.relays_database, c->p.relays_key_file, &c->relays_gone))
        sbuf_printf(&b, "relays:%s", c->p.relays_database);
    c->relays_spec = config_text_keep(c, sbuf_take(&b));
}

/* The alias file that Postfix has by default counts where it is there: a machine without one has no
 * aliases, and its tables lie in fewer folders. */
static void aliases_fill(const struct config *c, struct params *p) {
    struct str spec = str_of(p->alias_maps);
    ptrdiff_t colon = str_chr(spec, ':');
    struct sbuf path = {0};
    if (cfg_file_find(&c->main, STR_LIT("alias_maps")) != NULL || colon < 0)
        return;
    sbuf_printf(&path, "%s.db", spec.p + colon + 1);
    if (!cfg_source_may_exist(c->source, path.p)) {
        p->alias_maps = "";
        if (cfg_file_find(&c->main, STR_LIT("local_recipient_maps")) == NULL)
            p->local_recipient_maps = "proxy:unix:passwd.byname";
    }
    sbuf_free(&path);
}

/* A name below queue_directory that Dovecot made there: Postfix's, where that is the one meant. */
static void sasl_path_fill(struct config *c, struct params *p) {
    const char *path = p->smtpd_sasl_path + (strncmp(p->smtpd_sasl_path, "unix:", 5) == 0 ? 5 : 0);
    struct sbuf b = {0};
    if (c->socket_folder == NULL || path[0] == '/' || strncmp(path, "inet:", 5) == 0)
        return;
    sbuf_printf(&b, "%s/%s", c->socket_folder, path);
    p->smtpd_sasl_path = config_text_keep(c, sbuf_take(&b));
}

/* The old names of TLS levels count where none is set, as with Postfix: the default "may", which
 * Postfix does not have, is weaker than smtp_enforce_tls. */
static void levels_fill(const struct config *c, const struct service *svc, struct params *p) {
    const char *file;
    bool lmtp = svc != NULL && svc->kind == SERVICE_LMTP;
    bool set =
        config_entry(c, svc, str_of(lmtp ? "lmtp_tls_security_level" : "smtp_tls_security_level"),
                     &file) != NULL;
    const char *enforced = p->smtp_tls_enforce_peername ? "verify" : "encrypt";
    if (p->smtp_tls_security_level[0] == '\0' || (!set && p->smtp_enforce_tls))
        p->smtp_tls_security_level = p->smtp_enforce_tls ? enforced
                                     : p->smtp_use_tls   ? "may"
                                                         : "none";
    if (p->smtpd_tls_security_level[0] == '\0')
        p->smtpd_tls_security_level = p->smtpd_enforce_tls ? "encrypt"
                                      : p->smtpd_use_tls   ? "may"
                                                           : "";
}

static void params_fill(struct config *c, const struct service *svc, struct params *p) {
    size_t n = svc != NULL && svc->kind == SERVICE_LMTP ? param_total : param_count;
    for (size_t i = 0; i < n; i++)
        param_fill(c, svc, p, &param_table[i]);
    accounts_fill(c, p);
    origin_fill(c, p);
    sasl_path_fill(c, p);
    aliases_fill(c, p);
    for (size_t i = 0; config_file_lists[i] != NULL; i++)
        list_fill(c, p, config_file_lists[i]);
    levels_fill(c, svc, p);
    if (p->smtp_dns_support_level[0] == '\0' && p->disable_dns_lookups)
        p->smtp_dns_support_level = "disabled";
}

static char *path_in(const struct config *c, const char *name) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s/%s", c->dir, name);
    return sbuf_take(&b);
}

/* Is there a file or folder of that name in the directory that the parameter names? */
static bool directory_has(const struct config *c, const char *param, const char *name) {
    char *dir = config_value(c, param, NULL);
    struct sbuf path = {0};
    sbuf_printf(&path, "%s/%s", dir == NULL ? "" : dir, name);
    bool has = dir != NULL && cfg_source_exists(c->source, path.p);
    sbuf_free(&path);
    free(dir);
    return has;
}

/* A directory that belongs to Postfix is neither used nor changed, whatever main.cf says: both
 * programs stay whole, and there is a way back. */
static void directory_is_foreign(struct config *c, const char *param) {
    char *dir = config_value(c, param, NULL);
    char *own = config_expand(c, NULL, param_find(param, strlen(param))->def);
    int line;
    const char *file = config_place(c, NULL, param, &line);
    assert(dir != NULL && own != NULL); /* both have a default */
    if (strcmp(param, "queue_directory") == 0)
        c->foreign_queue = config_text_keep(c, mem_strdup(dir));
    cfg_file_set(&c->main, str_of(param), str_of(own), line);
    diag_add(&c->diags, DIAG_WARN, file, line,
             "%s: %s belongs to Postfix: Posthouse does not touch it, and has %s for its own",
             param, dir, own);
    if (strcmp(own, dir) == 0)
        diag_add(&c->diags, DIAG_ERROR, file, line, "%s: %s belongs to Postfix", param, dir);
    free(own);
    free(dir);
}

/* A folder called postfix is Postfix's, also when it was never used. */
static bool directory_is_postfixs(const struct config *c, const char *param) {
    char *dir = config_value(c, param, NULL);
    const char *last = dir == NULL ? NULL : strrchr(dir, '/');
    bool is = last != NULL && strcmp(last, "/postfix") == 0;
    free(dir);
    return is;
}

/* Postfix's own configuration has Dovecot's sockets below Postfix's queue directory, also where it
 * leaves that to the default; unless Posthouse's has such a folder. */
static void sockets_fill(struct config *c) {
    bool defaults = strcmp(c->dir, PH_POSTFIX_DIR) == 0 &&
                    cfg_file_find(&c->main, STR_LIT("queue_directory")) == NULL &&
                    !directory_has(c, "queue_directory", "private");
    c->socket_folder = defaults ? CONFIG_POSTFIX_QUEUE : c->foreign_queue;
}

static void load_directories(struct config *c) {
    if (directory_is_postfixs(c, "queue_directory") ||
        (directory_has(c, "queue_directory", "deferred") &&
         directory_has(c, "queue_directory", "active") &&
         directory_has(c, "queue_directory", "maildrop")))
        directory_is_foreign(c, "queue_directory");
    if (directory_is_postfixs(c, "data_directory") ||
        directory_has(c, "data_directory", "master.lock") ||
        directory_has(c, "data_directory", "prng_exch"))
        directory_is_foreign(c, "data_directory");
    sockets_fill(c);
}

/* Some editors begin a file so.  As in Postfix the mark is part of the first name. */
static void say_mark(struct config *c, const char *path, struct str text) {
    if (str_istarts(text, BYTE_ORDER_MARK))
        diag_add(&c->diags, DIAG_WARN, path, 1,
                 "it begins with a byte order mark, which makes another name of the first one: "
                 "take it out");
}

static void load_main(struct config *c) {
    char *path = path_in(c, "main.cf");
    int err;
    struct str text = cfg_source_file(c->source, path, &err);
    if (err < 0)
        diag_add(&c->diags, DIAG_ERROR, path, 0, "cannot read: %s", cfg_source_why(err));
    say_mark(c, path, text);
    cfg_file_parse(&c->main, path, text, &c->diags);
    host_default(c);
    domain_default(c);
    networks_note(c);
    free(path);
}

static void load_master(struct config *c) {
    const char *path = c->master_path = config_text_keep(c, path_in(c, "master.cf"));
    int err;
    struct str text = cfg_source_file(c->source, path, &err);
    c->no_master = err == -ENOENT;
    if (c->no_master)
        master_cf_defaults(c);
    else if (err < 0)
        diag_add(&c->diags, DIAG_ERROR, path, 0, "cannot read: %s", cfg_source_why(err));
    else
        master_cf_parse(c, path, text);
    say_mark(c, path, text);
    if (c->n_services == 0 && err == 0)
        diag_add(&c->diags, DIAG_ERROR, path, 0, "it has no services");
    master_cf_builtin(c);
}

static char *scope_expand(void *arg, const char *text) {
    const struct scope *s = arg;
    return config_expand(s->c, s->svc, text);
}

/* A line of master.cf that in Postfix takes part in all mail that comes in, or in sendmail's; or
 * that counts clients. */
static bool every_mail_passes(const struct service *svc, bool sendmail) {
    static const char *const commands[] = {"cleanup", "trivial-rewrite", "qmgr", "oqmgr", "bounce"};
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(svc->command, commands[i]) == 0)
            return true;
    return strcmp(svc->command, sendmail ? "pickup" : "anvil") == 0;
}

/* What the service (NULL: sendmail's mail) asks for and does not get. */
static void refusals_of(struct config *c, struct service *svc) {
    struct scope s = {c, svc, NULL};
    struct refusal_asker who = {.main = &c->main, .p = &c->p, .expand = scope_expand, .arg = &s};
    if (svc != NULL) {
        who.own = &svc->overrides;
        who.p = &svc->p;
        who.receives = svc->kind == SERVICE_SMTPD;
        who.sends = svc->kind == SERVICE_SMTP;
        who.lmtp = svc->kind == SERVICE_LMTP;
        who.expands = svc->kind == SERVICE_LOCAL;
        who.postscreen = svc->postscreen;
    }
    if (svc != NULL && !who.receives && !who.sends && !who.lmtp && !who.expands)
        return;
    struct refusals *to = svc == NULL ? &c->refusals : &svc->refusals;
    refusals_fill(to, &who);
    if (svc != NULL && svc->has_stray_word)
        refusals_add_stray_word(to, c->master_path, svc->line);
    for (size_t i = 0; !who.sends && !who.lmtp && !who.expands && i < c->n_services; i++)
        if (every_mail_passes(c->services[i], svc == NULL))
            refusals_add_line(to, &who, &c->services[i]->overrides);
}

/* A value that was frozen when it was in use already: it has no errors.  An -o is not about it. */
static void frozen_store(struct config *c, const struct param_info *info, const char *value) {
    for (size_t i = 0; i <= c->n_services; i++) {
        struct service *svc = i == 0 ? NULL : c->services[i - 1];
        struct params *p = svc == NULL ? &c->p : &svc->p;
        if (svc != NULL && cfg_file_find(&svc->overrides, str_of(info->name)) != NULL)
            continue;
        char *text = mem_strdup(value);
        value_store(c, info, (char *)p + info->offset, text);
        if (info->type != PARAM_STR)
            free(text);
    }
}

static void frozen_fill(struct config *c) {
    struct sbuf fact = {0};
    for (size_t i = 0; i < param_count; i++) {
        sbuf_reset(&fact);
        sbuf_printf(&fact, "frozen %s", param_table[i].name);
        const char *value = cfg_source_fact(c->source, fact.p);
        if (value != NULL)
            frozen_store(c, &param_table[i], value);
    }
    sbuf_free(&fact);
}

void config_freeze(struct config *c, const char *name, const char *value) {
    struct sbuf fact = {0};
    sbuf_printf(&fact, "frozen %s", name);
    cfg_source_fact_add(c->source, fact.p, value);
    sbuf_free(&fact);
    frozen_store(c, param_find(name, strlen(name)), value);
}

/* Ten thousand connections.  LOCAL_USER_MAX (receive/serve.c) alone would not leave descriptors to
 * clients: a user may have many user IDs (user_namespaces(7)). */
#define SENDMAIL_MAXPROC 100

/* What pickup(8) reads of its line in master.cf, of what Posthouse has. */
static void pickup_take(struct config *c, const struct service *pickup) {
    c->sendmail.p.content_filter = pickup->p.content_filter;
    c->sendmail.p.receive_override_options = pickup->p.receive_override_options;
}

/* Programs get what main.cf says, and nothing of the line that a port has in master.cf. */
static void sendmail_fill(struct config *c) {
    c->sendmail = (struct service){.kind = SERVICE_SMTPD,
                                   .name = "sendmail",
                                   .command = "pickup",
                                   .log_name = (char *)(uintptr_t)c->p.syslog_name,
                                   .p = c->p,
                                   .maxproc = SENDMAIL_MAXPROC};
    for (size_t i = 0; i < c->n_services; i++)
        if (strcmp(c->services[i]->command, "pickup") == 0)
            pickup_take(c, c->services[i]);
}

/* The row of a setting of one of our transports; NULL: the name is none. */
static const struct transport_param *transport_setting(const struct config *c, const char *name) {
    const struct transport_param *row = transport_param_find(name);
    if (row == NULL || !row->read)
        return NULL;
    const struct service *s =
        config_transport(c, str_make(name, strlen(name) - strlen(row->suffix)));
    return s != NULL && service_is_client(s) ? row : NULL;
}

/* The settings of transports have no row in the table of parameters: a value that is none would
 * count as 0, which is no limit and no delay. */
static void check_transport_values(struct config *c) {
    for (size_t i = 0; i < c->main.n; i++) {
        const struct cfg_entry *e = &c->main.v[i];
        const struct transport_param *row = transport_setting(c, e->name);
        char *text = row == NULL ? NULL : config_value(c, e->name, NULL);
        bool time = row != NULL && row->type == PARAM_TIME_S;
        uint64_t number;
        int64_t seconds = 0;
        if (text != NULL && !(time ? config_time(str_of(text), 's', &seconds)
                                   : str_u64(str_of(text), &number) && number <= INT32_MAX))
            diag_add(&c->diags, DIAG_ERROR, c->main.path, e->line,
                     "bad %s configuration: %s = %s (must be %s)", time ? "time" : "numerical",
                     e->name, text, type_hint(row->type));
        else if (text != NULL && time)
            time_check_rest(c, c->main.path, e->line, e->name, text, seconds);
        free(text);
    }
}

/* A word that is no protocol would leave no address to listen on: in Postfix nothing starts then.
 */
static void check_protocols(struct config *c) {
    struct str rest = str_of(c->p.inet_protocols), word;
    int line, known = 0;
    const char *file = config_place(c, NULL, "inet_protocols", &line);
    while (str_split(&rest, ", \t\r\n", &word)) {
        if (!str_eq_c(word, "all") && !str_eq_c(word, "ipv4") && !str_eq_c(word, "ipv6"))
            diag_add(&c->diags, DIAG_ERROR, file, line,
                     "inet_protocols: there is no protocol \"%.*s\": ipv4, ipv6 or all",
                     STR_FMT(word));
        known++;
    }
    if (known == 0)
        diag_add(&c->diags, DIAG_ERROR, file, line,
                 "inet_protocols: it names no protocol: ipv4, ipv6 or all");
    if (c->p.inet_interfaces[0] == '\0')
        diag_add(&c->diags, DIAG_WARN, config_place(c, NULL, "inet_interfaces", &line), line,
                 "inet_interfaces: it names no address: only services of master.cf that have an "
                 "address of their own can be connected to");
}

struct config *config_build(struct cfg_source *src) {
    struct config *c = MEM_NEW(struct config);
    atomic_store(&c->refs, 1);
    c->source = src;
    c->dir = mem_strdup(cfg_source_dir(src));
    load_main(c);
    load_directories(c);
    load_master(c);
    params_fill(c, NULL, &c->p);
    relays_fill(c);
    for (size_t i = 0; i < c->n_services; i++) {
        struct service *s = c->services[i];
        params_fill(c, s, &s->p);
        s->log_name = mem_strdup(s->p.syslog_name);
        c->sends_origin =
            c->sends_origin || (service_is_client(s) && s->p.smtp_send_xforward_command);
        refusals_of(c, s);
    }
    refusals_of(c, NULL);
    check_transport_values(c);
    check_protocols(c);
    frozen_fill(c);
    sendmail_fill(c);
    return c;
}

static void preload_one(struct config *c, const char *paths) {
    struct str rest = str_of(paths), one;
    int err;
    while (str_split(&rest, ", \t", &one)) {
        char *path = str_dup(one);
        config_file(c, path, &err);
        free(path);
    }
}

static void preload_params(struct config *c, const struct params *p) {
    const char *names[] = {
        p->smtpd_tls_cert_file,        p->smtpd_tls_key_file, p->smtpd_tls_chain_files,
        p->smtp_tls_cert_file,         p->smtp_tls_key_file,  p->smtp_tls_CAfile,
        p->smtp_tls_chain_files,       p->resolver_file,      p->resolver_hosts_file,
        p->smtp_tls_trust_anchor_file, p->smtpd_tls_CAfile};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        preload_one(c, names[i]);
    const char *folders[] = {p->smtp_tls_CApath, p->smtpd_tls_CApath};
    for (size_t i = 0; i < 2; i++) {
        int err;
        if (folders[i][0] != '\0')
            config_folder(c, folders[i], &err);
    }
}

void config_preload(struct config *c) {
    preload_params(c, &c->p);
    preload_one(c, CONFIG_SYSTEM_ANCHORS);
    for (size_t i = 0; i < c->n_services; i++)
        preload_params(c, &c->services[i]->p);
}

#define BEFORE_MAX 4

void config_follows(struct config *c, struct config *before) {
    if (cfg_source_same(c->source, before->source)) {
        c->before = before->before == NULL ? NULL : config_ref(before->before);
        config_unref(before);
        return;
    }
    c->before = before;
    for (unsigned i = 1; before != NULL && i < BEFORE_MAX; i++)
        before = before->before;
    if (before == NULL)
        return;
    config_unref(before->before);
    before->before = NULL;
}

struct config *config_ref(struct config *c) {
    atomic_fetch_add(&c->refs, 1);
    return c;
}

void config_unref(struct config *c) {
    if (c == NULL || atomic_fetch_sub(&c->refs, 1) != 1)
        return;
    for (size_t i = 0; i < c->n_services; i++) {
        free(c->services[i]->name);
        free(c->services[i]->command);
        free(c->services[i]->log_name);
        cfg_file_free(&c->services[i]->overrides);
        refusals_free(&c->services[i]->refusals);
        free(c->services[i]);
    }
    for (size_t i = 0; i < c->n_texts; i++)
        free(c->texts[i]);
    free(c->texts);
    free(c->services);
    free(c->dir);
    cfg_file_free(&c->main);
    cfg_source_free(c->source);
    diag_free(&c->diags);
    refusals_free(&c->refusals);
    config_unref(c->before);
    sbuf_free(&c->used_names);
    free(c);
}

const struct service *config_transport(const struct config *c, struct str name) {
    return master_cf_transport(c, name);
}

int64_t config_transport_int(const struct config *c, const char *transport, const char *suffix) {
    char name[160];
    int64_t v = 0;
    snprintf(name, sizeof name, "%s_%s", transport, suffix);
    char *text = config_value(c, name, NULL);
    if (text == NULL) {
        snprintf(name, sizeof name, "default_%s", suffix);
        text = config_value(c, name, NULL);
    }
    if (text == NULL || !config_time(str_of(text), 's', &v))
        v = 0;
    free(text);
    return v;
}

bool config_name_used(const struct config *c, const char *name) {
    size_t n = strlen(name);
    if (param_find(name, n) != NULL)
        return true;
    if (transport_setting(c, name) != NULL)
        return true;
    struct str rest = sbuf_str(&c->used_names), used;
    while (str_split(&rest, "\n", &used))
        if (str_eq_c(used, name))
            return true;
    return false;
}

bool cfg_is_own_address(const struct config *c, const char *addr) {
    struct str own = str_of(cfg_source_fact(c->source, "system_addresses")), w;
    while (str_split(&own, " ", &w))
        if (str_eq_c(w, addr))
            return true;
    return false;
}

struct str config_file(const struct config *c, const char *path, int *err) {
    if (path[0] == '/')
        return cfg_source_file(c->source, path, err);
    char *full = path_in(c, path);
    struct str text = cfg_source_file(c->source, full, err);
    free(full);
    return text;
}

struct str config_folder(const struct config *c, const char *path, int *err) {
    char *full = path[0] == '/' ? mem_strdup(path) : path_in(c, path);
    struct str text = cfg_source_folder(c->source, full, err);
    free(full);
    return text;
}

static char *rows_name(const char *param, const char *spec) {
    struct sbuf name = {0};
    sbuf_printf(&name, "rows of %s = %s", param, spec);
    return sbuf_take(&name);
}

struct str config_rows(const struct config *c, const char *param, const char *spec) {
    char *name = rows_name(param, spec);
    struct str text = cfg_source_kept(c->source, name);
    free(name);
    return text;
}

void config_rows_keep(struct config *c, const char *param, const char *spec, struct sbuf *text) {
    char *name = rows_name(param, spec);
    cfg_source_keep(c->source, name, text);
    free(name);
}

void config_rows_take(struct config *c, const struct config *from, const char *param,
                      const char *spec) {
    char *name = rows_name(param, spec);
    cfg_source_take(c->source, from->source, name);
    free(name);
}

int config_open_log(const struct config *c) {
    struct log_conf lc = {.name = c->p.syslog_name,
                          .file = c->p.maillog_file,
                          .facility = c->p.syslog_facility,
                          .hostname = c->p.myhostname,
                          .json = strcmp(c->p.log_format, "json") == 0};
    return log_open(&lc);
}
