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

static void beside_line(struct sbuf *out, const char *name, const char *value) {
    sbuf_printf(out, "%s =%s%s\n", name, value[0] == '\0' ? "" : " ", value);
}

static bool is_copied(const char *name) {
    if (strncmp(name, "smtp_", 5) == 0)
        return true;
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++)
        if (strcmp(name, copied[i]) == 0)
            return true;
    return false;
}

static void beside_copy(struct sbuf *out, const struct config *front) {
    for (size_t i = 0; i < front->main.n; i++) {
        const char *name = front->main.v[i].name;
        if (!is_copied(name) || !config_name_used(front, name))
            continue;
        char *value = config_value(front, name, NULL);
        if (value != NULL && (strncmp(name, "smtp_", 5) == 0 || value[0] != '\0'))
            beside_line(out, name, value);
        free(value);
    }
}

/* A parameter that front has no line of: what it has by default, under another name. */
static void beside_default(struct sbuf *out, const struct config *front, const char *name,
                           const char *value) {
    if (cfg_file_find(&front->main, str_of(name)) == NULL)
        beside_line(out, name, value);
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

/* The port at which front takes mail: that of its first smtpd service. */
static uint16_t front_port(const struct config *front) {
    for (size_t i = 0; i < front->n_services; i++) {
        struct sbuf probe = {0};
        struct nexthop own;
        const char *name = front->services[i]->name, *colon = strrchr(name, ':');
        sbuf_printf(&probe, "h:%s", colon == NULL ? name : colon + 1);
        bool is = front->services[i]->kind == SERVICE_SMTPD &&
                  nexthop_parse(&own, sbuf_str(&probe), 25) == NULL;
        sbuf_free(&probe);
        if (is)
            return own.port;
    }
    return 25;
}

void beside_main(struct sbuf *out, const struct config *front) {
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
    beside_default(out, front, "smtp_helo_name", host);
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
    sbuf_printf(out, "relay_transport = relay:[127.0.0.1]:%u\n", front_port(front));
    sbuf_add_c(out, "\n# As Postfix's client is told.\n");
    beside_copy(out, front);
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

bool beside_hop(struct sbuf *out, const struct config *front, uint16_t port) {
    bool own = front_wants_tls(front);
    sbuf_printf(out, "%s:[127.0.0.1]:%u", own ? "posthouse" : "smtp", port);
    return own;
}

void beside_passes_by(struct sbuf *out, const struct config *front) {
    static const char *const stronger[] = {"transport_maps",
                                           "sender_dependent_default_transport_maps"};
    for (size_t i = 0; i < sizeof stronger / sizeof stronger[0]; i++) {
        char *value = config_value(front, stronger[i], NULL);
        if (value != NULL && value[0] != '\0')
            sbuf_printf(out,
                        "note: %s of %s is stronger than default_transport: mail that it names "
                        "goes past Posthouse\n",
                        stronger[i], front->dir);
        free(value);
    }
}
