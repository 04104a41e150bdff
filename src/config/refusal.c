/*
 * config/refusal.c - unread.def applied to one configuration; see refusal.h
 *
 * Asks of each name that main.cf or an -o sets whether Postfix would do something by it that
 * Posthouse does not do.  Only while a snapshot is built, on that thread.
 */
#include "config/refusal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "config/unread.h"
#include "util/mem.h"

const char *const refusal_lists[REFUSAL_LISTS] = {
    "smtpd_client_restrictions",     "smtpd_helo_restrictions",      "smtpd_sender_restrictions",
    "smtpd_relay_restrictions",      "smtpd_recipient_restrictions", "smtpd_data_restrictions",
    "smtpd_end_of_data_restrictions"};

/* Is a row of that kind about the asker?  own: it is its own setting. */
static bool where_concerns(const struct refusal_asker *who, enum unread_where where, bool own) {
    bool sendmail = who->own == NULL || who->line_of_sendmail;
    switch (where) {
    case UNREAD_MAIL:
        return who->receives || sendmail;
    case UNREAD_SMTPD:
        return who->receives;
    case UNREAD_POSTSCREEN:
        return who->receives && who->postscreen;
    case UNREAD_SENDMAIL:
        return sendmail;
    case UNREAD_ALIAS:
        return who->receives || sendmail || (who->expands && own);
    case UNREAD_CLIENT: /* what goes out wrong is not taken in */
        return who->sends || own == who->lmtp;
    case UNREAD_LMTP:
        return who->lmtp;
    case UNREAD_BOTH:
        return who->sends || who->lmtp || who->receives || sendmail;
    default:
        return false;
    }
}

/* Is the value one that asks for nothing? */
static bool value_is_idle(const struct refusal_asker *who, const char *value, const char *idle) {
    char *now = who->expand(who->arg, value);
    bool same = false;
    for (const char *at = idle; !same; at++) {
        size_t n = strcspn(at, "|");
        char *one = str_dup(str_make(at, n));
        char *text = who->expand(who->arg, one);
        same = now != NULL && text != NULL && strcmp(now, text) == 0;
        free(one);
        free(text);
        at += n;
        if (*at == '\0')
            break;
    }
    free(now);
    return same;
}

static void refusal_add(struct refusals *to, const struct refusal_asker *who, struct refusal x) {
    for (size_t i = 0; i < to->n; i++)
        if (strcmp(to->v[i].name, x.name) == 0)
            return;
    x.accepted = list_has_word(str_of(who->p->accept_unimplemented), x.name);
    to->v = mem_realloc(to->v, (to->n + 1) * sizeof x);
    to->v[to->n++] = x;
}

static void refuse_entry(struct refusals *to, const struct refusal_asker *who,
                         const struct cfg_entry *e, bool own) {
    const struct unread *u = unread_find(e->name);
    if (u == NULL || u->where == UNREAD_NOWHERE || param_find(e->name, strlen(e->name)) != NULL ||
        !where_concerns(who, u->where, own) || value_is_idle(who, e->value, u->idle) ||
        (who->lmtp && strncmp(e->name, "smtp_", 5) == 0)) /* lmtp(8) does not read it */
        return;
    refusal_add(to, who,
                (struct refusal){e->name, NULL, u->text, own ? who->own->path : who->main->path,
                                 e->line, own, false});
}

/* Parameters that are read from main.cf alone: an -o of a client or a server with another value
 * would not be done. */
static const char *const main_only[] = {"myhostname",
                                        "mydomain",
                                        "myorigin",
                                        "inet_protocols",
                                        "proxy_interfaces",
                                        "enable_idna2003_compatibility",
                                        "soft_bounce",
                                        "mydestination",
                                        "relay_domains",
                                        "virtual_mailbox_domains",
                                        "virtual_alias_domains",
                                        "relayhost",
                                        "transport_maps",
                                        "sender_dependent_relayhost_maps",
                                        "default_transport",
                                        "relay_transport",
                                        "local_transport",
                                        "alias_maps",
                                        "owner_request_special",
                                        "prepend_delivered_header",
                                        "propagate_unmatched_extensions",
                                        "always_bcc",
                                        "sender_bcc_maps",
                                        "recipient_bcc_maps",
                                        "virtual_maps",
                                        "virtual_alias_maps",
                                        "virtual_alias_recursion_limit",
                                        "virtual_alias_expansion_limit",
                                        "virtual_alias_address_length_limit",
                                        "enable_original_recipient",
                                        "virtual_transport",
                                        "sender_dependent_default_transport_maps",
                                        "maximal_queue_lifetime",
                                        "bounce_queue_lifetime",
                                        "message_drop_headers",
                                        "hopcount_limit"};

static bool is_main_only(const char *name) {
    for (size_t i = 0; i < sizeof main_only / sizeof main_only[0]; i++)
        if (strcmp(main_only[i], name) == 0)
            return true;
    return false;
}

/* What local(8) takes from its own line with Postfix; aliases are expanded by main.cf alone. */
static bool is_of_aliases(const char *name) {
    static const char *const names[] = {"alias_maps", "recipient_delimiter",
                                        "owner_request_special", "prepend_delivered_header",
                                        "propagate_unmatched_extensions"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* The value of a name that main.cf does not set; the caller frees it. */
static char *default_of(const char *name) {
    const struct param_info *info = param_find(name, strlen(name));
    struct sbuf text = {0};
    if (info != NULL)
        return mem_strdup(info->def);
    assert(transport_param_find(name) != NULL);
    sbuf_printf(&text, "$default%s", transport_param_find(name)->suffix);
    return sbuf_take(&text);
}

/* Does the -o say something else than main.cf or, if that is silent, than the default? */
static bool differs_from_main(const struct refusal_asker *who, const struct cfg_entry *e) {
    const struct cfg_entry *all = cfg_file_find(who->main, str_of(e->name));
    char *def = default_of(e->name);
    char *own = who->expand(who->arg, e->value);
    char *now = who->expand(who->arg, all != NULL ? all->value : def);
    bool differs = own == NULL || now == NULL || strcmp(own, now) != 0;
    free(def);
    free(own);
    free(now);
    return differs;
}

/* Is it a parameter that Posthouse has, and that changes mail by the line of a service that every
 * mail passes in Postfix?  There is no such service here. */
static bool changes_all_mail(const char *name) {
    static const char *const log[] = {"syslog_name", "syslog_facility", "maillog_file"};
    for (size_t i = 0; i < sizeof log / sizeof log[0]; i++)
        if (strcmp(log[i], name) == 0)
            return false;
    if (transport_param_find(name) != NULL)
        return unread_find(name) == NULL || unread_find(name)->where == UNREAD_NOWHERE;
    return param_find(name, strlen(name)) != NULL && strncmp(name, "smtp_", 5) != 0 &&
           strncmp(name, "lmtp_", 5) != 0 && strncmp(name, "smtpd_", 6) != 0;
}

/* Does sendmail's mail have it from pickup's line (config.c, pickup_take)? */
static bool is_of_pickup(const char *name) {
    return strcmp(name, "content_filter") == 0 || strcmp(name, "receive_override_options") == 0;
}

/* Is the parameter, in the line, read from main.cf all the same?  elsewhere: the line is of another
 * service, which every mail passes in Postfix. */
static bool is_read_elsewhere(const struct refusal_asker *who, const char *name, bool elsewhere) {
    if (elsewhere)
        return changes_all_mail(name) && !(who->line_of_sendmail && is_of_pickup(name));
    return who->expands ? is_of_aliases(name) : is_main_only(name);
}

static void refuse_main_only(struct refusals *to, const struct refusal_asker *who,
                             const struct cfg_file *line, bool elsewhere) {
    for (size_t i = 0; i < line->n; i++)
        if (is_read_elsewhere(who, line->v[i].name, elsewhere) &&
            differs_from_main(who, &line->v[i]))
            refusal_add(to, who,
                        (struct refusal){line->v[i].name, NULL,
                                         "it is read from main.cf alone, and not from an -o",
                                         line->path, line->v[i].line, true, false});
}

void refusals_add_line(struct refusals *to, const struct refusal_asker *who,
                       const struct cfg_file *line) {
    struct refusal_asker as = *who;
    as.own = line;
    as.receives = true;
    as.line_of_sendmail = who->own == NULL;
    for (size_t i = 0; i < line->n; i++) {
        as.sends =
            transport_param_find(line->v[i].name) != NULL; /* it is qmgr's, and no client's */
        refuse_entry(to, &as, &line->v[i], true);
    }
    refuse_main_only(to, &as, line, true);
}

static void refuse_words(struct refusals *to, const struct refusal_asker *who, const char *list) {
    const struct param_info *info = param_find(list, strlen(list));
    const char *value = params_text_at(who->p, info->offset);
    const struct cfg_entry *e = cfg_file_find(who->own, str_of(list));
    bool own = e != NULL;
    if (e == NULL)
        e = cfg_file_find(who->main, str_of(list));
    for (struct str rest = str_of(value), w; str_split_braces(&rest, ", \t\r\n", &w);) {
        const struct unread_word *u = unread_word_find(w);
        if (u != NULL && u->refused)
            refusal_add(to, who,
                        (struct refusal){u->name, list, u->text,
                                         own ? who->own->path : who->main->path,
                                         e == NULL ? 0 : e->line, own, false});
    }
}

/* Mechanisms are compared with the words of the filter, and no table is asked for them. */
static const char server_filter[] = "smtpd_sasl_mechanism_filter";
static const char client_filter[] = "smtp_sasl_mechanism_filter";

static void refuse_filter_tables(struct refusals *to, const struct refusal_asker *who) {
    const char *name = who->receives ? server_filter : client_filter;
    struct str rest = str_of(who->receives ? who->p->smtpd_sasl_mechanism_filter
                                           : who->p->smtp_sasl_mechanism_filter);
    const struct cfg_entry *e = who->own == NULL ? NULL : cfg_file_find(who->own, str_of(name));
    bool own = e != NULL;
    if (!(who->receives ? who->p->smtpd_sasl_auth_enable : who->p->smtp_sasl_auth_enable))
        return;
    if (e == NULL)
        e = cfg_file_find(who->main, str_of(name));
    for (struct str w; str_split_braces(&rest, ", \t\r\n", &w);)
        if (str_chr(w, ':') > 0 && !str_istarts(w, "static:") && !str_istarts(w, "!static:"))
            refusal_add(to, who,
                        (struct refusal){name, NULL,
                                         "mechanisms are compared with the names that stand in it, "
                                         "and no table is asked",
                                         own ? who->own->path : who->main->path,
                                         e == NULL ? 0 : e->line, own, false});
}

void refusals_fill(struct refusals *to, const struct refusal_asker *who) {
    for (size_t i = 0; who->own != NULL && i < who->own->n; i++)
        refuse_entry(to, who, &who->own->v[i], true);
    if (who->own != NULL)
        refuse_main_only(to, who, who->own, false);
    for (size_t i = 0; !who->expands && i < who->main->n; i++)
        if (who->own == NULL || cfg_file_find(who->own, str_of(who->main->v[i].name)) == NULL)
            refuse_entry(to, who, &who->main->v[i], false);
    for (size_t i = 0; who->receives && i < REFUSAL_LISTS; i++)
        refuse_words(to, who, refusal_lists[i]);
    if (!who->expands)
        refuse_filter_tables(to, who);
}

bool refusals_may_have(struct str name) {
    char *text = str_dup(name);
    bool may = unread_is_refused(name) || is_main_only(text) || is_of_aliases(text) ||
               changes_all_mail(text) || strcmp(text, server_filter) == 0 ||
               strcmp(text, client_filter) == 0;
    free(text);
    return may;
}

void refusals_add_stray_word(struct refusals *to, const char *file, int line) {
    to->v = mem_realloc(to->v, (to->n + 1) * sizeof to->v[0]);
    to->v[to->n++] =
        (struct refusal){.name = "a word that belongs to no option",
                         .text = "a blank ends the value of an -o, unless all of it stands between "
                                 "braces, as in -o { name = one, two }; with Postfix such a "
                                 "service does not start",
                         .file = file,
                         .line = line,
                         .own = true,
                         .for_good = true};
}

void refusals_free(struct refusals *r) {
    free(r->v);
    r->v = NULL;
    r->n = 0;
}

const struct refusal *refusals_first(const struct refusals *r) {
    for (size_t i = 0; i < r->n; i++)
        if (!r->v[i].accepted)
            return &r->v[i];
    return NULL;
}
