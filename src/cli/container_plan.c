/*
 * cli/container_plan.c - the environment of a container; see container.h
 *
 * The names are those that users of other images know: boky/postfix (RELAYHOST …, POSTFIX_name),
 * docker-mailserver (RELAY_HOST …, DEFAULT_RELAY_HOST), juanluisbaptiste/postfix (SMTP_SERVER …)
 * and catatnight/postfix (maildomain, smtp_user).  A name that is none of them but looks like one
 * is refused: what it asks for would silently not be done.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "accounts/values.h"
#include "cli/cli.h"
#include "cli/container.h"
#include "config/params.h"
#include "mail/address.h"
#include "route/nexthop.h"
#include "util/fs.h"
#include "util/mem.h"

#define SECRET_MAX (1U << 20)
#define FILE_END   "_FILE"
#define PARAMETER  "POSTFIX_"

/* -- variables -- */

/* Variables that are a line of main.cf by another name; param NULL: read below, or its secret is
 * also taken from a file that NAME_FILE names. */
static const struct variable {
    const char *name, *param;
    bool file;
} variables[] = {
    {"RELAYHOST", NULL, false},
    {"RELAYHOST_USERNAME", NULL, true},
    {"RELAYHOST_PASSWORD", NULL, true},
    {"SASL_RELAYHOST", NULL, false},
    {"RELAYHOST_TLS_LEVEL", "smtp_tls_security_level", false},
    {"RELAY_HOST", NULL, false},
    {"RELAY_PORT", NULL, false},
    {"RELAY_USER", NULL, true},
    {"RELAY_PASSWORD", NULL, true},
    {"DEFAULT_RELAY_HOST", NULL, false},
    {"SMTP_SERVER", NULL, false},
    {"SMTP_PORT", NULL, false},
    {"SMTP_USERNAME", NULL, true},
    {"SMTP_PASSWORD", NULL, true},
    {"SMTP_NETWORKS", NULL, false},
    {"SERVER_HOSTNAME", "myhostname", false},
    {"maildomain", "myhostname", false},
    {"MYNETWORKS", "mynetworks", false},
    {"MESSAGE_SIZE_LIMIT", "message_size_limit", false},
    {"ALWAYS_ADD_MISSING_HEADERS", "always_add_missing_headers", false},
    {"SMTPUTF8_ENABLE", "smtputf8_enable", false},
    {"ALLOWED_SENDER_DOMAINS", NULL, false},
    {"ALLOW_EMPTY_SENDER_DOMAINS", NULL, false},
    {"SMTPD_SASL_USERS", NULL, true},
    {"smtp_user", NULL, true},
    {"LOG_FORMAT", NULL, false},
    {"POSTHOUSE_PORTS", NULL, false},
};
#define N_VARIABLES (sizeof variables / sizeof variables[0])

/* What these images have and this one has not, by the names' beginnings. */
static const struct {
    const char *name, *why;
} missing[] = {
    {"MASQUERADED_DOMAINS", "addresses are not rewritten"},
    {"SMTP_HEADER_CHECKS", "header fields are not checked"},
    {"SMTP_HEADER_TAG", "no header field is added"},
    {"OVERWRITE_FROM", "addresses are not rewritten"},
    {"LOG_SUBJECT", "subjects are not logged"},
    {"DESTINATION", "the container has no mailboxes"},
    {"ANONYMIZE_EMAILS", "the log has addresses as they are"},
    {"AUTOSET_HOSTNAME", "no service on the network is asked; set POSTFIX_myhostname"},
    {"XOAUTH2_", "OAuth is not done"},
    {"DKIM_", "mail is not signed: let the relay host sign it"},
    {"OPENDKIM_", "mail is not signed: let the relay host sign it"},
    {"RSPAMD_", "mail is not signed: let the relay host sign it"},
    {"SASL_PASSWD", "use RELAY_USER and RELAY_PASSWORD"},
    {"POSTFIXMASTER_", "master.cf is made of POSTHOUSE_PORTS"},
};

/* A name that begins so is meant for this image. */
static const char *const families[] = {"RELAYHOST", "RELAY_",    "SASL_",        "SMTPD_",
                                       "SMTP_",     "ALLOWED_",  "ALLOW_EMPTY_", "DEFAULT_RELAY",
                                       PARAMETER,   "POSTHOUSE_"};

void container_plan_refuse(struct container_plan *plan, const char *variable, const char *why) {
    fprintf(stderr, "posthouse: fatal: %s: %s\n", variable, why);
    plan->wrong++;
}

/* The value of a variable that is set and not empty, or NULL. */
static const char *variable_get(const char *name) {
    const char *value = getenv(name);
    return value == NULL || value[0] == '\0' ? NULL : value;
}

/* NAME_FILE; the caller frees. */
static char *variable_file(const char *name) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s" FILE_END, name);
    return sbuf_take(&b);
}

static bool variable_is(struct str name, const struct variable *v) {
    size_t n = strlen(v->name);
    return str_eq_c(name, v->name) || (v->file && name.n == n + strlen(FILE_END) &&
                                       str_eq(str_make(name.p, n), str_make(v->name, n)) &&
                                       str_eq_c(str_from(name, n), FILE_END));
}

/* The text of NAME, or of the file that NAME_FILE names, without the end of its last line; NULL:
 * neither is set, or it was refused. */
static char *variable_secret(struct container_plan *plan, const char *name) {
    const char *value = variable_get(name);
    char *file = variable_file(name), *text = NULL, why[FS_WHY_MAX];
    const char *path = variable_get(file);
    struct sbuf content = {0};
    if (value != NULL && path != NULL)
        container_plan_refuse(plan, name, "it is set, and so is the variable of its file");
    else if (value != NULL)
        text = mem_strdup(value);
    else if (path != NULL) {
        int rc = fs_read(path, &content, SECRET_MAX);
        struct str all = sbuf_str(&content);
        while (all.n > 0 && (all.p[all.n - 1] == '\r' || all.p[all.n - 1] == '\n'))
            all.n--;
        if (rc < 0)
            container_plan_refuse(plan, file, fs_read_why(rc, SECRET_MAX, why));
        else if (all.n == 0)
            container_plan_refuse(plan, file, "the file is empty");
        else if (memchr(all.p, '\0', all.n) != NULL)
            container_plan_refuse(plan, file, "the file has a NUL byte");
        else
            text = str_dup(all);
    }
    sbuf_wipe(&content);
    free(file);
    return text;
}

/* -- what is unknown -- */

/* POSTFIX_ and the name of one. */
static bool is_parameter(struct str variable) {
    size_t n = strlen(PARAMETER);
    struct str name = str_from(variable, variable.n < n ? variable.n : n);
    return str_istarts(variable, PARAMETER) && param_find(name.p, name.n) != NULL;
}

/* What Kubernetes and links of containers set for a service that happens to be called smtp. */
static bool is_service_link(struct str name, const char *value) {
    static const char *const ends[] = {"_SERVICE_HOST", "_SERVICE_PORT", "_TCP", "_TCP_ADDR",
                                       "_TCP_PORT",     "_TCP_PROTO",    "_UDP", "_UDP_ADDR",
                                       "_UDP_PORT",     "_UDP_PROTO"};
    char *text = str_dup(name);
    bool is = strncmp(value, "tcp://", 6) == 0 || strncmp(value, "udp://", 6) == 0 ||
              str_end_of(text, ends, sizeof ends / sizeof ends[0]) >= 0 ||
              strstr(text, "_SERVICE_PORT_") != NULL;
    free(text);
    return is;
}

/* Also with letters of the other case, and after a slip of the hand. */
static bool is_of_family(struct str name) {
    char *low = str_dup(name);
    bool is = false;
    str_lower(low, strlen(low));
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        is = is || str_istarts(name, families[i]);
    for (size_t i = 0; i < N_VARIABLES; i++) {
        char *known = mem_strdup(variables[i].name);
        str_lower(known, strlen(known));
        is = is || strcmp(low, known) == 0 ||
             (strlen(known) > 8 && str_is_slip(str_of(low), str_of(known)));
        free(known);
    }
    free(low);
    return is;
}

/* Refuses what the image does not know, or does not do, and blanks for a value. */
static void plan_look(struct container_plan *plan, struct str name, const char *value) {
    char *text = str_dup(name);
    bool known = false;
    for (size_t i = 0; i < N_VARIABLES; i++)
        known = known || variable_is(name, &variables[i]);
    if (known && str_trim(str_of(value)).n == 0)
        container_plan_refuse(plan, text, "it has nothing but blanks");
    for (size_t i = 0; !known && i < sizeof missing / sizeof missing[0]; i++)
        if (strncmp(text, missing[i].name, strlen(missing[i].name)) == 0) {
            container_plan_refuse(plan, text, missing[i].why);
            known = true;
        }
    known = known || strncmp(text, PARAMETER, strlen(PARAMETER)) == 0;
    if (!known && is_of_family(name))
        container_plan_refuse(plan, text, "no variable of this image");
    free(text);
}

/* -- lines of main.cf -- */

static struct container_line *plan_line_find(const struct container_plan *plan, const char *name) {
    for (size_t i = 0; i < plan->n_lines; i++)
        if (strcmp(plan->lines[i].name, name) == 0)
            return &plan->lines[i];
    return NULL;
}

static void plan_line_put(struct container_plan *plan, const char *name, const char *value,
                          const char *by) {
    struct container_line *line = plan_line_find(plan, name);
    if (line == NULL) {
        plan->lines = mem_realloc(plan->lines, (plan->n_lines + 1) * sizeof *plan->lines);
        line = &plan->lines[plan->n_lines++];
        *line = (struct container_line){.name = mem_strdup(name)};
    }
    free(line->value);
    line->value = mem_strdup(value);
    line->by = by;
    line->verbatim = by == NULL || strncmp(by, PARAMETER, strlen(PARAMETER)) == 0;
    for (char *p = line->value; *p != '\0'; p++)
        if (*p == '\n' || *p == '\r' || *p == '\t')
            *p = ' ';
}

/* A variable asks for it; two that ask for the same contradict each other. */
static void plan_line_set(struct container_plan *plan, const char *name, const char *value,
                          const char *by) {
    const struct container_line *there = plan_line_find(plan, name);
    struct sbuf why = {0};
    if (there != NULL && there->by != NULL) {
        sbuf_printf(&why, "%s says already what %s is", there->by, name);
        container_plan_refuse(plan, by, why.p);
    } else {
        plan_line_put(plan, name, value, by);
        if (str_has_control(str_of(plan_line_find(plan, name)->value)))
            container_plan_refuse(plan, by, "control characters");
    }
    sbuf_free(&why);
}

void container_plan_default(struct container_plan *plan, const char *name, const char *value) {
    if (plan_line_find(plan, name) == NULL)
        plan_line_put(plan, name, value, NULL);
}

void container_plan_need(struct container_plan *plan, const char *name, const char *value,
                         const char *by) {
    const struct container_line *there = plan_line_find(plan, name);
    struct sbuf why = {0};
    if (there != NULL && there->by != NULL && strcmp(there->value, value) != 0) {
        sbuf_printf(&why, "%s needs another %s", by, name);
        container_plan_refuse(plan, there->by, why.p);
    }
    container_plan_default(plan, name, value);
    sbuf_free(&why);
}

/* POSTFIX_name=value; also POSTFIX_NAME.  by is kept. */
static void plan_parameter(struct container_plan *plan, const char *by, const char *value) {
    char *name = mem_strdup(by + strlen(PARAMETER)), *low = mem_strdup(name);
    str_lower(low, strlen(low));
    bool lowered = param_find(name, strlen(name)) == NULL && param_find(low, strlen(low)) != NULL;
    if (name[0] == '\0' || strpbrk(name, "=$#: \t\r\n") != NULL)
        container_plan_refuse(plan, by, "no name of a parameter");
    else
        plan_line_set(plan, lowered ? low : name, value, by);
    free(name);
    free(low);
}

/* -- the relay host -- */

/* One image's names for it. */
static const struct road {
    const char *host, *port, *user, *password;
    const char *usual; /* port, where host is a name alone; NULL: host is a next hop */
} roads[] = {
    {"RELAYHOST", NULL, "RELAYHOST_USERNAME", "RELAYHOST_PASSWORD", NULL},
    {"RELAY_HOST", "RELAY_PORT", "RELAY_USER", "RELAY_PASSWORD", "25"},
    {"SMTP_SERVER", "SMTP_PORT", "SMTP_USERNAME", "SMTP_PASSWORD", "587"},
    {"DEFAULT_RELAY_HOST", NULL, NULL, NULL, NULL},
};
#define N_ROADS (sizeof roads / sizeof roads[0])

/* "[host]:port"; the caller frees. */
static char *road_hop(const struct road *road, const char *host, const char *port) {
    struct sbuf b = {0};
    if (road->usual == NULL)
        return str_dup(str_trim(str_of(host)));
    sbuf_printf(&b, host[0] == '[' ? "%s:%s" : "[%s]:%s", host, port == NULL ? road->usual : port);
    return sbuf_take(&b);
}

/* A port that Kubernetes sets for a service of that name is none. */
static const char *road_port(const struct road *road) {
    const char *port = road->port == NULL ? NULL : variable_get(road->port);
    return port == NULL || strstr(port, "://") != NULL ? NULL : port;
}

static void plan_login(struct container_plan *plan, const struct road *road, const char *hop) {
    const char *key = variable_get("SASL_RELAYHOST");
    struct str bad = str_of(key == NULL ? "" : key);
    if (key != NULL && (strpbrk(key, ", \t\r\n") != NULL || nexthop_check(bad, &bad) != NULL))
        container_plan_refuse(plan, "SASL_RELAYHOST", "one host is wanted, as in RELAYHOST");
    plan->login_user = variable_secret(plan, road->user);
    plan->login_password = variable_secret(plan, road->password);
    if (plan->wrong > 0)
        return;
    if (plan->login_user != NULL && plan->login_password == NULL)
        container_plan_refuse(plan, road->user, "an account needs a password as well");
    if (plan->login_user == NULL && plan->login_password != NULL)
        container_plan_refuse(plan, road->password, "a password needs an account as well");
    if (plan->login_user == NULL || plan->login_password == NULL)
        return;
    if (strchr(plan->login_user, ':') != NULL || str_has_control(str_of(plan->login_user)) ||
        str_trim(str_of(plan->login_user)).n != strlen(plan->login_user))
        container_plan_refuse(plan, road->user,
                              "':', control characters, or blanks at its beginning or end");
    if (str_has_control(str_of(plan->login_password)) ||
        str_trim(str_of(plan->login_password)).n != strlen(plan->login_password))
        container_plan_refuse(plan, road->password,
                              "more than one line, or blanks at its beginning or end");
    plan->login_by = road->user;
    plan->login_key = mem_strdup(key == NULL ? hop : key);
}

/* What belongs to a relay host that is not set. */
static void road_refuse_parts(struct container_plan *plan, const struct road *road) {
    char *files[] = {road->user == NULL ? NULL : variable_file(road->user),
                     road->password == NULL ? NULL : variable_file(road->password)};
    const char *parts[] = {road->user, road->password, files[0], files[1]};
    struct sbuf why = {0};
    sbuf_printf(&why, "it needs %s", road->host);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (parts[i] != NULL && variable_get(parts[i]) != NULL)
            container_plan_refuse(plan, parts[i], why.p);
    if (road_port(road) != NULL)
        container_plan_refuse(plan, road->port, why.p);
    free(files[0]);
    free(files[1]);
    sbuf_free(&why);
}

static void plan_road(struct container_plan *plan, const struct road *road, const char *host) {
    char *hop = road_hop(road, host, road_port(road));
    struct str bad;
    const char *why = nexthop_check(str_of(hop), &bad);
    if (why != NULL)
        container_plan_refuse(plan, road->host, why);
    plan_line_set(plan, "relayhost", hop, road->host);
    if (road->user != NULL)
        plan_login(plan, road, hop);
    if (plan->login_key != NULL) {
        container_plan_need(plan, "smtp_sasl_auth_enable", "yes", road->user);
        container_plan_default(plan, "smtp_sasl_security_options", "noanonymous");
        container_plan_default(plan, "smtp_tls_security_level", "encrypt");
    }
    if (cli_hop_wraps(hop)) {
        container_plan_default(plan, "smtp_tls_wrappermode", "yes");
        container_plan_default(plan, "smtp_tls_security_level", "encrypt");
    }
    container_plan_default(plan, "smtp_tls_security_level", "may");
    free(hop);
}

static void plan_roads(struct container_plan *plan) {
    const char *key = variable_get("SASL_RELAYHOST");
    for (size_t i = 0; i < N_ROADS; i++) {
        const char *host = variable_get(roads[i].host);
        if (host != NULL)
            plan_road(plan, &roads[i], host);
        else
            road_refuse_parts(plan, &roads[i]);
    }
    if (key != NULL && plan->login_key == NULL && plan->wrong == 0)
        container_plan_refuse(plan, "SASL_RELAYHOST", "there is no account for it");
}

/* -- who may send -- */

static void plan_allowed(struct container_plan *plan) {
    const char *domains = variable_get("ALLOWED_SENDER_DOMAINS");
    struct str rest = str_of(domains), one;
    while (str_split(&rest, ", \t\r\n", &one)) {
        if (one.p[0] == '@')
            one = str_from(one, 1);
        if (addr_valid_host(one) || (str_chr(one, '@') > 0 && value_account_ok(one)))
            sbuf_printf(&plan->senders, "%.*s OK\n", STR_FMT(one));
        else
            container_plan_refuse(plan, "ALLOWED_SENDER_DOMAINS",
                                  "domains are wanted, with blanks between them");
    }
    if (domains != NULL && plan->senders.n == 0 && plan->wrong == 0)
        container_plan_refuse(plan, "ALLOWED_SENDER_DOMAINS", "there is no domain in it");
}

static void plan_users(struct container_plan *plan) {
    char *old = variable_secret(plan, "smtp_user");
    plan->users = variable_secret(plan, "SMTPD_SASL_USERS");
    plan->users_by = plan->users != NULL ? "SMTPD_SASL_USERS" : "smtp_user";
    if (plan->users != NULL && old != NULL)
        container_plan_refuse(plan, "smtp_user", "SMTPD_SASL_USERS says already who may log in");
    if (plan->users == NULL) {
        plan->users = old;
        return;
    }
    if (old != NULL)
        mem_wipe(old, strlen(old));
    free(old);
}

static void plan_networks(struct container_plan *plan) {
    const char *more = variable_get("SMTP_NETWORKS");
    struct sbuf b = {0};
    sbuf_add_c(&b, "127.0.0.0/8, [::1]/128, 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16");
    if (more != NULL) {
        sbuf_printf(&b, ", %s", more);
        plan_line_set(plan, "mynetworks", b.p, "SMTP_NETWORKS");
    } else {
        container_plan_default(plan, "mynetworks", b.p);
    }
    sbuf_free(&b);
}

/* -- the rest -- */

static void plan_names(struct container_plan *plan) {
    for (size_t i = 0; i < N_VARIABLES; i++) {
        const char *value = variable_get(variables[i].name);
        if (value != NULL && variables[i].param != NULL &&
            strcmp(variables[i].param, "myhostname") == 0 && !addr_is_dns_name(str_of(value)))
            container_plan_refuse(plan, variables[i].name, "it is no host name");
    }
}

/* Mail that goes by a level that is none of these waits. */
static void plan_level(struct container_plan *plan) {
    const char *level = variable_get("RELAYHOST_TLS_LEVEL");
    if (level != NULL &&
        !list_has_word(STR_LIT("none may encrypt fingerprint verify secure"), level))
        container_plan_refuse(plan, "RELAYHOST_TLS_LEVEL",
                              "none, may, encrypt, fingerprint, verify or secure");
}

static void plan_log(struct container_plan *plan) {
    const char *format = variable_get("LOG_FORMAT");
    if (format == NULL || strcmp(format, "json") == 0)
        container_plan_default(plan, "log_format", "json");
    else if (strcmp(format, "plain") == 0)
        plan_line_set(plan, "log_format", "postfix", "LOG_FORMAT");
    else
        container_plan_refuse(plan, "LOG_FORMAT", "json or plain");
    container_plan_default(plan, "maillog_file", "/dev/stdout");
}

static void plan_ports(struct container_plan *plan) {
    const char *text = variable_get("POSTHOUSE_PORTS");
    struct str rest = str_of(text == NULL ? "25 587" : text), one;
    uint64_t port;
    plan->ports = str_dup(rest);
    while (str_split(&rest, ", ", &one))
        if (!str_u64(one, &port) || port == 0 || port > UINT16_MAX)
            container_plan_refuse(plan, "POSTHOUSE_PORTS", "numbers from 1 to 65535 are wanted");
    if (plan->ports[strspn(plan->ports, ", ")] == '\0')
        container_plan_refuse(plan, "POSTHOUSE_PORTS", "there is no number in it");
}

void container_plan_read(struct container_plan *plan, char **environment) {
    for (char **at = environment; *at != NULL; at++) {
        const char *equals = strchr(*at, '=');
        struct str name = str_make(*at, equals == NULL ? 0 : (size_t)(equals - *at));
        if (equals == NULL || (!is_parameter(name) && is_service_link(name, equals + 1)))
            continue;
        if (equals[1] != '\0')
            plan_look(plan, name, equals + 1);
        if (name.n > strlen(PARAMETER) &&
            str_eq(str_make(name.p, strlen(PARAMETER)), STR_LIT(PARAMETER))) {
            char *by = str_dup(name); /* lives as long as the process */
            plan_parameter(plan, by, equals + 1);
        }
    }
    for (size_t i = 0; i < N_VARIABLES; i++)
        if (variables[i].param != NULL && variable_get(variables[i].name) != NULL)
            plan_line_set(plan, variables[i].param, variable_get(variables[i].name),
                          variables[i].name);
    plan_names(plan);
    plan_level(plan);
    plan_roads(plan);
    plan_allowed(plan);
    plan_users(plan);
    plan_networks(plan);
    plan_log(plan);
    plan_ports(plan);
}

void container_plan_free(struct container_plan *plan) {
    char *secrets[] = {plan->login_password, plan->users};
    for (size_t i = 0; i < 2; i++)
        if (secrets[i] != NULL)
            mem_wipe(secrets[i], strlen(secrets[i]));
    for (size_t i = 0; i < plan->n_lines; i++) {
        free(plan->lines[i].name);
        free(plan->lines[i].value);
    }
    free(plan->lines);
    free(plan->login_key);
    free(plan->login_user);
    free(plan->login_password);
    free(plan->users);
    free(plan->ports);
    sbuf_free(&plan->senders);
}
