/*
 * daemon/check_words.c - words of the configuration that are none, and services without an address
 *
 * As daemon/check.c, which calls it.  A program of Postfix's that reads such a value does not
 * start, so mail waits there; here the configuration is not put to use, and what was in use goes
 * on.
 */
#include "daemon/check_words.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/setting.h"
#include "route/own.h"
#include "util/net.h"

/* Extensions that a server or a client has, here or in Postfix. */
static const char keywords[] = "pipelining size vrfy etrn auth starttls enhancedstatuscodes "
                               "8bitmime dsn smtputf8 chunking xclient xforward verp "
                               "silent-discard";
static const char passed_over[] = ": it counts for nothing, as with Postfix";

/* Parameters that take a word, or a list of words. */
static const struct words {
    const char *name, *words;
    bool alone;            /* one word and no list */
    bool empty;            /* it may be empty */
    enum diag_level level; /* of a word that is none */
    const char *otherwise; /* what is done then; "": nothing is */
} all_words[] = {
    {"smtp_host_lookup", "dns native", false, false, DIAG_ERROR, ""},
    {"smtp_dns_support_level", "disabled enabled dnssec", true, true, DIAG_ERROR, ""},
    {"smtp_address_preference", "any ipv4 ipv6", true, false, DIAG_ERROR, ""},
    {"receive_override_options",
     "no_unknown_recipient_checks no_address_mappings no_header_body_checks no_milters", false,
     true, DIAG_ERROR, ""},
    {"propagate_unmatched_extensions", "canonical virtual alias forward include generic", false,
     true, DIAG_ERROR, ""},
    {"prepend_delivered_header", "command file forward", false, true, DIAG_WARN,
     ": it counts for nothing (with Postfix, mail that comes to local waits)"},
    {"smtputf8_autodetect_classes", "sendmail smtpd qmqpd forward bounce notify verify all", false,
     true, DIAG_ERROR, ""},
    {"smtpd_discard_ehlo_keywords", keywords, false, true, DIAG_NOTE, passed_over},
    {"smtp_discard_ehlo_keywords", keywords, false, true, DIAG_NOTE, passed_over},
    {"log_format", "postfix json", true, false, DIAG_WARN, ": it is taken for postfix"},
};

static void say_word(const struct setting_place *at, const struct words *row, struct str word,
                     struct diags *d) {
    diag_add(d, row->level, at->file, at->line, "%s: \"%.*s\" is none of %s%s", at->name,
             STR_FMT(word), row->words, row->otherwise);
}

/* The value of one parameter, in main.cf (svc NULL) or as the service has it. */
static void words_check_value(const struct config *cfg, const struct service *svc,
                              const struct words *row, struct diags *d) {
    const struct param_info *info = param_find(row->name, strlen(row->name));
    const char *value = params_text_at(svc == NULL ? &cfg->p : &svc->p, info->offset);
    struct str rest = str_of(value), word = rest;
    struct setting_place at = setting_place(cfg, svc, row->name);
    bool any = false;
    while (row->alone ? !any && rest.n > 0 : str_split(&rest, ", \t\r\n", &word)) {
        char *text = str_dup(word);
        if (strpbrk(text, ", \t") != NULL || !list_has_word(str_of(row->words), text))
            say_word(&at, row, word, d);
        free(text);
        any = true;
    }
    if (!any && !row->empty)
        say_word(&at, row, str_of(""), d);
}

static void words_check_row(const struct config *cfg, const struct words *row, struct diags *d) {
    words_check_value(cfg, NULL, row, d);
    for (size_t i = 0; i < cfg->n_services; i++)
        words_check_value(cfg, cfg->services[i], row, d);
}

/* The style counts only where mynetworks is made of it. */
static void check_style(const struct config *cfg, struct diags *d) {
    static const struct words style = {
        "mynetworks_style", "host subnet class", true, false, DIAG_ERROR, ""};
    if (cfg_file_find(&cfg->main, STR_LIT("mynetworks")) == NULL)
        words_check_value(cfg, NULL, &style, d);
}

void check_words(const struct config *cfg, struct diags *d) {
    for (size_t i = 0; i < sizeof all_words / sizeof all_words[0]; i++)
        words_check_row(cfg, &all_words[i], d);
    check_style(cfg, d);
}

/* -- addresses to listen on -- */

static bool family_is_on(const struct config *cfg, const struct netaddr *a) {
    struct str protocols = str_of(cfg->p.inet_protocols);
    return list_has_word(protocols, "all") ||
           list_has_word(protocols, a->u.sa.sa_family == AF_INET ? "ipv4" : "ipv6");
}

/* Of a list of addresses: none of them is of a protocol that is on. */
static bool leaves_none(const struct config *cfg, struct str list) {
    struct str word;
    bool any = false;
    while (str_split(&list, ", \t\r\n", &word)) {
        struct netaddr a;
        if (!own_address_parse(&a, word, 0) || family_is_on(cfg, &a))
            return false;
        any = true;
    }
    return any;
}

void check_listeners(const struct config *cfg, struct diags *d) {
    for (size_t i = 0; i < cfg->n_services; i++) {
        const struct service *svc = cfg->services[i];
        struct str host;
        uint16_t port;
        if (svc->kind != SERVICE_SMTPD ||
            nexthop_of_service(str_of(svc->name), &host, &port) != NULL)
            continue;
        struct str list = host.n > 0 ? host : str_of(own_interfaces(cfg));
        if (leaves_none(cfg, list))
            diag_add(d, DIAG_ERROR, svc->line > 0 ? "master.cf" : NULL, svc->line,
                     "%s: it would listen on %.*s, and inet_protocols = %s leaves that out: no "
                     "client could connect",
                     svc->name, STR_FMT(list), cfg->p.inet_protocols);
    }
}
