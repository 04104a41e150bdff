/*
 * cli/beside.c - the configuration of a Posthouse that relays for a Postfix; see beside.h
 *
 * Postfix keeps its ports, aliases, filters and mailboxes, and gives what leaves the machine to
 * Posthouse, which chooses the relay host.  So content and addresses are Postfix's: here nothing is
 * rewritten, and no size is refused that Postfix has taken.
 */
#include "cli/beside.h"

#include <stdlib.h>
#include <string.h>

#include "route/nexthop.h"
#include "route/own.h"

/* Besides smtp_…, what Postfix's client and queue are told that Posthouse is told, too. */
static const char *const copied[] = {
    "relayhost",
    "sender_dependent_relayhost_maps",
    "inet_protocols",
    "recipient_delimiter",
    "maximal_queue_lifetime",
    "bounce_queue_lifetime",
    "minimal_backoff_time",
    "maximal_backoff_time",
    "delay_warning_time",
    "default_destination_concurrency_limit",
    "default_destination_rate_delay",
    "tls_medium_cipherlist",
    "tls_high_cipherlist",
    "tls_ssl_options",
};

/* Where Postfix's own recipients are: reports for its users go back to it. */
static const char *const own_domains[] = {"mydestination", "virtual_alias_domains",
                                          "virtual_mailbox_domains", "relay_domains"};

/* What Postfix's client is told about other hosts, and would do to mail on its way to Posthouse:
 * another sender (so another account), a host that is asked while Posthouse is down, TLS.  With the
 * value that BESIDE_NAME has instead. */
static const struct {
    const char *name, *value;
} meant_for_others[] = {
    {"smtp_tls_policy_maps", ""},
    {"smtp_tls_per_site", ""},
    {"smtp_generic_maps", ""},
    {"smtp_fallback_relay", ""},
    {"smtp_header_checks", ""},
    {"smtp_mime_header_checks", ""},
    {"smtp_nested_header_checks", ""},
    {"smtp_body_checks", ""},
    {"smtp_reply_filter", ""},
    {"smtp_discard_ehlo_keywords", ""},
    {"smtp_discard_ehlo_keyword_address_maps", ""},
    {"smtp_bind_address", "127.0.0.1"},
};

/* value is expanded: a $ in it is one. */
static void beside_line(struct sbuf *out, const char *name, const char *value) {
    sbuf_printf(out, "%s =%s", name, value[0] == '\0' ? "" : " ");
    for (const char *at = value; *at != '\0'; at++)
        sbuf_printf(out, "%s%c", *at == '$' ? "$" : "", *at);
    sbuf_add_c(out, "\n");
}

/* What mail leaves front by now. */
struct exit_road {
    const struct service *client; /* NULL: no SMTP client that front's master.cf has */
    char *hop;                    /* what default_transport names besides; "": nothing; owned */
};

/* Where default_transport names Posthouse already, it is what Postfix has by default. */
static struct exit_road front_road(const struct config *front, uint16_t port) {
    struct sbuf ours = {0};
    struct exit_road road = {0};
    char *value = config_value(front, "default_transport", NULL);
    struct str name = str_of(value == NULL ? "smtp" : value), hop = STR_NONE;
    const char *colon = memchr(name.p, ':', name.n);
    sbuf_printf(&ours, "[127.0.0.1]:%u", port);
    if (colon != NULL) {
        hop = str_from(name, (size_t)(colon - name.p) + 1);
        name.n = (size_t)(colon - name.p);
    }
    if (str_eq(hop, sbuf_str(&ours))) {
        hop = STR_NONE;
        name = STR_LIT("smtp");
    }
    road.client = config_transport(front, name);
    if (road.client != NULL && road.client->kind != SERVICE_SMTP)
        road.client = NULL;
    road.hop = str_dup(road.client == NULL ? STR_NONE : hop);
    free(value);
    sbuf_free(&ours);
    return road;
}

static bool is_copied(const char *name) {
    if (strncmp(name, "smtp_", 5) == 0)
        return true;
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++)
        if (strcmp(name, copied[i]) == 0)
            return true;
    return false;
}

static void beside_copy_one(struct sbuf *out, const struct config *front, const char *name,
                            const struct service *client) {
    char *value = config_value(front, name, client);
    if (value != NULL && (strncmp(name, "smtp_", 5) == 0 || value[0] != '\0'))
        beside_line(out, name, value);
    free(value);
}

/* main.cf's settings, as client's own line in master.cf changes them. */
static void beside_copy(struct sbuf *out, const struct config *front,
                        const struct service *client) {
    for (size_t i = 0; i < front->main.n; i++) {
        const char *name = front->main.v[i].name;
        if (is_copied(name) && config_name_used(front, name))
            beside_copy_one(out, front, name, client);
    }
    for (size_t i = 0; client != NULL && i < client->overrides.n; i++) {
        const char *name = client->overrides.v[i].name;
        if (is_copied(name) && config_name_used(front, name) &&
            cfg_file_find(&front->main, str_of(name)) == NULL)
            beside_copy_one(out, front, name, client);
    }
}

/* A parameter that front has no line of: what it has by default, under another name. */
static void beside_default(struct sbuf *out, const struct config *front,
                           const struct service *client, const char *name, const char *value) {
    if (cfg_file_find(&front->main, str_of(name)) == NULL &&
        (client == NULL || cfg_file_find(&client->overrides, str_of(name)) == NULL))
        beside_line(out, name, value);
}

/* Postfix's client connects from the only address that it listens on. */
static void beside_source(struct sbuf *out, const struct config *front,
                          const struct service *client, int family, const char *name) {
    struct netaddr only;
    char text[INET6_ADDRSTRLEN];
    if (own_only_address(client == NULL ? &front->p : &client->p, family, &only))
        beside_default(out, front, client, name, netaddr_text(&only, text));
}

static void beside_domains(struct sbuf *out, const struct config *front) {
    struct sbuf all = {0};
    for (size_t i = 0; i < sizeof own_domains / sizeof own_domains[0]; i++) {
        char *value = config_value(front, own_domains[i], NULL);
        if (value != NULL && value[0] != '\0')
            sbuf_printf(&all, "%s%s", all.n == 0 ? "" : ", ", value);
        free(value);
    }
    beside_line(out, "relay_domains", all.n == 0 ? "" : all.p);
    sbuf_free(&all);
}

/* Does a list of addresses that are listened on have one that loopback reaches?  *address: the
 * first of those, or of all. */
static bool list_has_loopback(struct str list, struct str *address) {
    struct str word;
    *address = STR_NONE;
    while (str_split(&list, ", \t\r\n", &word)) {
        struct netaddr a;
        bool known = own_address_parse(&a, word, 0);
        char text[INET6_ADDRSTRLEN] = "";
        if (known)
            netaddr_text(&a, text);
        if (strcmp(text, "0.0.0.0") == 0 || (known && netaddr_is_loopback(&a))) {
            *address = strcmp(text, "::1") == 0 ? STR_LIT("::1") : STR_LIT("127.0.0.1");
            return true;
        }
        if (address->n == 0)
            *address = word;
    }
    return false;
}

static bool front_has_loopback(const struct config *front) {
    struct str unused;
    return list_has_loopback(str_of(own_interfaces(front)), &unused);
}

/* Where front takes mail: the address and port of its first smtpd service. */
static void front_listener(struct sbuf *out, const struct config *front) {
    struct str address = STR_LIT("127.0.0.1");
    uint16_t port = 25;
    for (size_t i = 0; i < front->n_services; i++) {
        const struct service *s = front->services[i];
        struct str host;
        if (s->kind != SERVICE_SMTPD || nexthop_of_service(str_of(s->name), &host, &port) != NULL)
            continue;
        list_has_loopback(host.n > 0 ? host : str_of(own_interfaces(front)), &address);
        break;
    }
    if (address.n > 2 && address.p[0] == '[')
        address = str_make(address.p + 1, address.n - 2);
    sbuf_printf(out, "[%.*s]:%u", STR_FMT(address), port);
}

void beside_main(struct sbuf *out, const struct config *front, uint16_t port) {
    struct exit_road road = front_road(front, port);
    char *host = config_value(front, "myhostname", NULL);
    char *origin = config_value(front, "myorigin", NULL);
    sbuf_printf(out,
                BESIDE_MARK
                " from %s: yours to change.\n"
                "# Every parameter: posthouse-main.cf(5); is it right: posthouse check.\n\n"
                "# A name of its own, or its reports to Postfix would be taken for a loop; the\n"
                "# world sees the server's.\n",
                front->dir);
    sbuf_printf(out, "myhostname = relay.%s\n", host);
    beside_default(out, front, road.client, "smtp_helo_name", host);
    beside_line(out, "myorigin", origin);
    sbuf_printf(out, "front_config_directory = %s\n", front->dir);
    sbuf_add_c(
        out,
        "\n# Mail comes from Postfix alone, which has done all that is done to it.\n"
        "inet_interfaces = loopback-only\n"
        "mynetworks = 127.0.0.0/8 [::1]/128\n"
        "mydestination =\n"
        "message_size_limit = 0\n"
        "local_header_rewrite_clients =\n"
        "\n# Reports for users of this server go back to Postfix, and not out by a relay host.\n"
        "parent_domain_matches_subdomains =\n");
    beside_domains(out, front);
    sbuf_add_c(out, "relay_transport = relay:");
    front_listener(out, front);
    sbuf_add_c(out, "\n");
    sbuf_add_c(out, "\n# As Postfix's client is told.\n");
    beside_copy(out, front, road.client);
    beside_source(out, front, road.client, AF_INET, "smtp_bind_address");
    beside_source(out, front, road.client, AF_INET6, "smtp_bind_address6");
    if (road.hop[0] != '\0') {
        struct sbuf value = {0};
        sbuf_printf(&value, "smtp:%s", road.hop);
        beside_line(out, "default_transport", value.p);
        sbuf_free(&value);
    }
    free(road.hop);
    free(host);
    free(origin);
}

void beside_master(struct sbuf *out, uint16_t port) {
    sbuf_printf(out,
                BESIDE_MARK ".\n"
                            "127.0.0.1:%u inet n - n - - smtpd\n"
                            "smtp unix - - n - - smtp\n"
                            "relay unix - - n - - smtp\n",
                port);
}

/* Does front's client refuse a host without TLS? */
static bool front_wants_tls(const struct config *front) {
    char *level = config_value(front, "smtp_tls_security_level", NULL);
    char *enforce = config_value(front, "smtp_enforce_tls", NULL);
    bool wants = (level != NULL && level[0] != '\0' && strcmp(level, "none") != 0 &&
                  strcmp(level, "may") != 0) ||
                 (enforce != NULL && strcasecmp(enforce, "yes") == 0);
    free(level);
    free(enforce);
    return wants;
}

/* Is front's client told what is meant for other hosts?  Where it listens on no loopback address,
 * it sends from another one, too, and Posthouse would not know it. */
static bool front_has_own_ways(const struct config *front, uint16_t port) {
    struct exit_road road = front_road(front, port);
    bool has = road.client == NULL || strcmp(road.client->name, "smtp") != 0 ||
               road.client->overrides.n > 0 || front_wants_tls(front) || !front_has_loopback(front);
    free(road.hop);
    for (size_t i = 0; i < sizeof meant_for_others / sizeof meant_for_others[0] && !has; i++) {
        char *value = config_value(front, meant_for_others[i].name, NULL);
        has = value != NULL && value[0] != '\0';
        free(value);
    }
    return has;
}

void beside_transport(struct sbuf *out) {
    sbuf_add_c(out, BESIDE_OURS "-o smtp_enforce_tls=no -o smtp_tls_wrappermode=no");
    for (size_t i = 0; i < sizeof meant_for_others / sizeof meant_for_others[0]; i++)
        sbuf_printf(out, " -o %s=%s", meant_for_others[i].name, meant_for_others[i].value);
    sbuf_add_c(out, "\n");
}

bool beside_hop(struct sbuf *out, const struct config *front, uint16_t port) {
    bool own = front_has_own_ways(front, port);
    sbuf_printf(out, "%s:[127.0.0.1]:%u", own ? BESIDE_NAME : "smtp", port);
    return own;
}

/* A pause that front makes between mails to one destination, all of which is Posthouse. */
static void note_pause(struct sbuf *out, const struct config *front, const char *transport,
                       const char *suffix) {
    int64_t seconds = config_transport_int(front, transport, suffix);
    if (seconds > 0)
        sbuf_printf(out,
                    "note: %s_%s of %s is %lld s for what goes to Posthouse, which is one "
                    "destination: all mail waits for that pause, whoever it is for; %s_%s = 0s in "
                    "%s/main.cf leaves it to Posthouse\n",
                    transport, suffix, front->dir, (long long)seconds, transport, suffix,
                    front->dir);
}

void beside_notes(struct sbuf *out, const struct config *front, bool own_transport) {
    static const char *const stronger[] = {"transport_maps",
                                           "sender_dependent_default_transport_maps"};
    const char *transport = own_transport ? BESIDE_NAME : "smtp";
    for (size_t i = 0; i < sizeof stronger / sizeof stronger[0]; i++) {
        char *value = config_value(front, stronger[i], NULL);
        if (value != NULL && value[0] != '\0')
            sbuf_printf(out,
                        "note: %s of %s is stronger than default_transport: mail that it names "
                        "goes past Posthouse\n",
                        stronger[i], front->dir);
        free(value);
    }
    note_pause(out, front, transport, "destination_rate_delay");
    note_pause(out, front, transport, "transport_rate_delay");
}
