/*
 * receive/auth.c - AUTH from clients, in Postfix's words; see auth.h
 *
 * The passwords are known to Dovecot's auth service, which carries on the dialogue itself, or to
 * the accounts store: then PLAIN and LOGIN are spoken here, and the lookup process verifies.
 *
 * What overwrites the secrets of a client's login as soon as they are used, however it ends:
 *   the bytes of a line, whole or cut off    util/conn.c (serve_ops.wipes)
 *   a text that was moved because it grew    util/str.c
 *   the initial response, while it waits     auth_start and auth_free
 *   the decoded answer                       take_answer
 *   the question to the lookup process       maps/query.c, util/ipc_chan.c
 *   and, in that process                     maps/server.c
 *   the line to Dovecot                      dovecot.c (send_line), then util/conn.c
 *   what TLS has decrypted                   OpenSSL (SSL_OP_CLEANSE_PLAINTEXT)
 */
#include "receive/auth.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "receive/anvil.h"
#include "receive/dovecot.h"
#include "smtp/sasl.h"
#include "util/codec.h"
#include "util/log.h"
#include "util/mem.h"

#define USERNAME_PROMPT "VXNlcm5hbWU6" /* "Username:" */
#define PASSWORD_PROMPT "UGFzc3dvcmQ6" /* "Password:" */

/* What Postfix says where its backend says nothing. */
#define NO_REASON "(reason unavailable)"

/* What the client's next answer is. */
enum auth_step {
    AUTH_START,    /* no answer yet: the service is being waited for */
    AUTH_PLAIN,    /* authorization, user and password */
    AUTH_USER,     /* LOGIN: the user */
    AUTH_PASSWORD, /* LOGIN: the password */
    AUTH_DOVECOT   /* for Dovecot to understand */
};

struct auth {
    char *method;
    enum auth_step step;
    bool reading;     /* the client's next line is an answer */
    bool lost;        /* Dovecot went away meanwhile: the client is told when it has spoken */
    uint32_t id;      /* of the question to Dovecot; 0: none */
    uint32_t tag;     /* of the question to the lookup process; 0: none */
    bool has_resp;    /* AUTH had an initial response */
    struct sbuf resp; /* it, while the service is being waited for */
    struct sbuf user; /* LOGIN, and while it is verified */
};

/* Waiting for Dovecot's list of mechanisms. */
struct auth_wait {
    struct dovecot_wait wait;
    struct session *s;
    void (*fn)(struct session *s);
};

static bool by_dovecot(const struct params *p) {
    return strcmp(p->smtpd_sasl_type, "dovecot") == 0;
}

/* A smtpd_sasl_path that services have, with its connection.  A session keeps the one that it began
 * with, whatever a reload brings. */
struct auth_server {
    struct dl link; /* receive->auth_servers */
    char *path;
    struct dovecot *dovecot;
    bool wanted;         /* the configuration of new sessions has it */
    size_t n_sessions;   /* that keep it */
    struct later unused; /* the last one has ended */
};

static struct auth_server *auth_server_find(const struct dl *servers, const char *path) {
    DL_EACH (it, servers) {
        struct auth_server *server = DL_OWNER(it, struct auth_server, link);
        if (strcmp(server->path, path) == 0)
            return server;
    }
    return NULL;
}

/* The one that the session's service asks; NULL: it asks none. */
static struct dovecot *auth_dovecot(const struct session *s) {
    return s->auth_server == NULL ? NULL : s->auth_server->dovecot;
}

/* Frees the server if nothing uses it any more.  Not from inside a call of its connection. */
static void auth_server_settle(struct auth_server *server) {
    if (server->wanted || server->n_sessions > 0)
        return;
    loop_never(&server->unused);
    dl_remove(&server->link);
    dovecot_free(server->dovecot);
    free(server->path);
    free(server);
}

static void auth_server_unused(struct later *later) {
    auth_server_settle(DL_OWNER(later, struct auth_server, unused));
}

void auth_keep_server(struct session *s) {
    if (!s->p->smtpd_sasl_auth_enable || !by_dovecot(s->p))
        return;
    s->auth_server = auth_server_find(&s->r->auth_servers, s->p->smtpd_sasl_path);
    if (s->auth_server != NULL)
        s->auth_server->n_sessions++;
}

static bool dovecot_there(const struct session *s) {
    return auth_dovecot(s) != NULL && dovecot_ready(auth_dovecot(s));
}

/* Is AUTH for this client at all? */
static bool auth_is_active(const struct session *s) {
    return s->p->smtpd_sasl_auth_enable && !s->client.local && !s->client.no_auth &&
           !smtpd_discards(s, "AUTH");
}

/* Ends a dialogue; an answer of Dovecot's that is still to come is for no session any more. */
static void auth_free(struct session *s) {
    struct auth *a = s->auth;
    s->auth = NULL;
    if (a == NULL)
        return;
    if (a->id != 0 && auth_dovecot(s) != NULL)
        dovecot_cancel(auth_dovecot(s), a->id);
    free(a->method);
    sbuf_wipe(&a->resp);
    sbuf_wipe(&a->user);
    free(a);
}

void auth_leave(struct session *s) {
    if (s->auth != NULL)
        lookup_cancel(s->r->lookup, s->auth->tag);
    auth_free(s);
    if (s->auth_wait != NULL)
        dl_remove(&s->auth_wait->wait.link);
    free(s->auth_wait);
    s->auth_wait = NULL;
    struct auth_server *server = s->auth_server;
    s->auth_server = NULL;
    if (server == NULL)
        return;
    server->n_sessions--;
    if (server->n_sessions == 0 && !server->wanted)
        loop_later(s->r->loop, &server->unused);
}

void auth_logout(struct session *s) {
    free(s->sasl_user);
    free(s->sasl_method);
    s->sasl_user = s->sasl_method = NULL;
}

bool auth_reading(const struct session *s) {
    return s->auth != NULL && s->auth->reading;
}

/* -- which mechanisms -- */

static unsigned sasl_options(const struct session *s) {
    unsigned flags = 0;
    struct str bad;
    sasl_options_parse(str_of(s->tls_on ? s->p->smtpd_sasl_tls_security_options
                                        : s->p->smtpd_sasl_security_options),
                       &flags, &bad);
    return flags;
}

/* Nothing where passwords wait for TLS. */
void auth_mechanisms(const struct session *s, struct sbuf *mechs) {
    struct sbuf all = {0};
    unsigned options = sasl_options(s);
    if (!auth_is_active(s) || (s->p->smtpd_tls_auth_only && !s->tls_on))
        return;
    if (by_dovecot(s->p) && auth_dovecot(s) != NULL)
        dovecot_mechs(auth_dovecot(s), options, &all);
    else if (!by_dovecot(s->p) && (options & SASL_NOPLAINTEXT) == 0)
        sbuf_add_c(&all, "PLAIN LOGIN");
    if (all.n > 0)
        sasl_filter(sbuf_str(&all), str_of(s->p->smtpd_sasl_mechanism_filter), mechs);
    sbuf_free(&all);
}

static void auth_wait_over(void *arg) {
    struct auth_wait *w = arg;
    struct session *s = w->s;
    void (*fn)(struct session *) = w->fn;
    s->auth_wait = NULL;
    free(w);
    fn(s);
}

bool auth_await(struct session *s, void (*fn)(struct session *s)) {
    if (!auth_is_active(s) || !by_dovecot(s->p) || auth_dovecot(s) == NULL || dovecot_there(s))
        return false;
    struct auth_wait *w = MEM_NEW(struct auth_wait);
    *w = (struct auth_wait){.wait = {.fn = auth_wait_over, .arg = w}, .s = s, .fn = fn};
    s->auth_wait = w;
    dovecot_await(auth_dovecot(s), &w->wait);
    return true;
}

/* -- how it ends -- */

static enum cmd succeed(struct session *s, struct str user) {
    struct sbuf name = {0};
    auth_logout(s);
    sbuf_add_safe(&name, user);
    s->sasl_user = sbuf_take(&name);
    s->sasl_method = mem_strdup(s->auth->method);
    auth_free(s);
    smtpd_reply(s, true, "235 2.7.0 Authentication successful");
    return CMD_DONE;
}

/* The words that fail2ban's filters look for. */
static void log_failure(struct session *s, const char *why, struct str user) {
    struct sbuf from = {0};
    if (user.n == 0)
        user = STR_LIT("(unavailable)");
    log_warn_as(s->svc->log_name, "smtpd",
                "%s: SASL %s authentication failed: %s, sasl_username=%.*s",
                client_text(&s->client, &from), s->auth->method, why, STR_FMT(user));
    sbuf_free(&from);
}

static enum cmd auth_fail(struct session *s, const char *why, struct str user) {
    if (*why == '\0')
        why = NO_REASON;
    log_failure(s, why, user);
    auth_free(s);
    smtpd_reply(s, false, "535 5.7.8 Error: authentication failed: %s", why);
    return CMD_DONE;
}

/* Not the client's fault: not in the words of log_failure, for which clients are banned. */
static enum cmd fail_for_now(struct session *s, const char *why) {
    struct sbuf from = {0};
    log_warn_as(s->svc->log_name, "smtpd", "%s: SASL %s authentication is not possible now: %s",
                client_text(&s->client, &from), s->auth->method, why);
    sbuf_free(&from);
    auth_free(s);
    smtpd_reply(s, false, "454 4.7.0 Temporary authentication failure: %s", why);
    return CMD_DONE;
}

static enum cmd ask_client(struct session *s, const char *challenge) {
    s->auth->reading = true;
    smtpd_say(s, "334 %s", challenge);
    return CMD_DONE;
}

/* -- Dovecot -- */

static enum cmd dovecot_said(struct session *s, enum dovecot_rc rc, const char *text,
                             struct str user) {
    switch (rc) {
    case DOVECOT_MORE:
        return ask_client(s, text);
    case DOVECOT_OK:
        return *text != '\0' ? succeed(s, str_of(text)) : fail_for_now(s, "no user name");
    case DOVECOT_FAIL:
        return auth_fail(s, text, user);
    default:
        return fail_for_now(s, text);
    }
}

static void on_dovecot(void *arg, enum dovecot_rc rc, struct str text, struct str user) {
    struct session *s = arg;
    if (rc != DOVECOT_MORE)
        s->auth->id = 0;
    if (s->auth->reading) { /* an answer now would be taken for the answer to the next line */
        s->auth->lost = true;
        return;
    }
    char *copy = str_dup(text);
    enum cmd what = dovecot_said(s, rc, copy, user);
    free(copy);
    smtpd_answered(s, what);
}

/* The address that the client came to. */
static const char *local_end(struct session *s, char ip[INET6_ADDRSTRLEN]) {
    struct netaddr a = {0};
    socklen_t n = sizeof a.u;
    if (getsockname(conn_fd(s->conn), &a.u.sa, &n) < 0)
        return "";
    netaddr_unmap(&a);
    return netaddr_text(&a, ip);
}

/* Digits of base64, then '='; whether their number is right, Dovecot says. */
static bool is_base64(struct str s) {
    for (int pad = 0; pad < 2 && s.n > 0 && s.p[s.n - 1] == '='; pad++)
        s.n--;
    for (size_t i = 0; i < s.n; i++)
        if (!isalnum((unsigned char)s.p[i]) && s.p[i] != '+' && s.p[i] != '/')
            return false;
    return true;
}

static enum cmd begin_dovecot(struct session *s, struct str resp) {
    char ip[INET6_ADDRSTRLEN];
    struct auth *a = s->auth;
    struct dovecot_login login = {.mech = a->method,
                                  .service = s->p->smtpd_sasl_service,
                                  .local_addr = local_end(s, ip),
                                  .client_addr = s->client.addr,
                                  .secured = s->tls_on,
                                  .resp = resp};
    if (!is_base64(resp))
        return auth_fail(s, "Invalid base64 data in initial response", STR_NONE);
    a->step = AUTH_DOVECOT;
    a->id = dovecot_begin(auth_dovecot(s), &login, on_dovecot, s);
    return a->id != 0 ? CMD_WAIT : fail_for_now(s, "the authentication server cannot be asked");
}

/* -- the accounts store -- */

/* The reason is for the log only: a stranger is not told who exists. */
static enum cmd not_verified(struct session *s, struct str why) {
    char *text = str_dup(why);
    log_failure(s, text, sbuf_str(&s->auth->user));
    free(text);
    auth_free(s);
    smtpd_reply(s, false, "535 5.7.8 Error: authentication failed: " NO_REASON);
    return CMD_DONE;
}

static void on_verified(void *arg, const struct maps_answer *ans) {
    struct session *s = arg;
    struct str value = sbuf_str(&ans->value);
    enum cmd rc;
    s->auth->tag = 0;
    if (ans->rc == MAP_FOUND)
        rc = succeed(s, value);
    else if (ans->rc == MAP_NOT_FOUND)
        rc = not_verified(s, value);
    else
        rc = fail_for_now(s, "the accounts store does not answer");
    smtpd_answered(s, rc);
}

static enum cmd verify(struct session *s, struct str user, struct str password) {
    struct auth *a = s->auth;
    const char *domain = s->p->smtpd_sasl_local_domain;
    struct sbuf name = {0};
    sbuf_add_str(&name, user);
    if (str_chr(user, '@') < 0 && *domain != '\0')
        sbuf_printf(&name, "@%s", domain);
    sbuf_wipe(&a->user);
    a->user = name;
    a->tag = lookup_verify(s->r->lookup, sbuf_str(&a->user), password, s->tls_on, s->client.addr,
                           on_verified, s);
    return CMD_WAIT;
}

/* "authzid NUL user NUL password" (RFC 4616). */
static enum cmd take_plain(struct session *s, struct str text) {
    ptrdiff_t a = str_chr(text, '\0');
    struct str rest = str_from(text, (size_t)(a + 1));
    ptrdiff_t b = a < 0 ? -1 : str_chr(rest, '\0');
    struct str user = str_make(rest.p, b < 0 ? 0 : (size_t)b);
    struct str password = b < 0 ? STR_NONE : str_from(rest, (size_t)b + 1);
    if (b < 0 || str_chr(password, '\0') >= 0)
        return auth_fail(s, "malformed PLAIN response", STR_NONE);
    return verify(s, user, password);
}

static enum cmd take_password(struct session *s, struct str password) {
    if (str_chr(password, '\0') >= 0)
        return auth_fail(s, "malformed LOGIN response", STR_NONE);
    char *user = str_dup(sbuf_str(&s->auth->user));
    enum cmd rc = verify(s, str_of(user), password);
    free(user);
    return rc;
}

static enum cmd take_decoded(struct session *s, struct str answer) {
    if (s->auth->step == AUTH_PLAIN)
        return take_plain(s, answer);
    if (s->auth->step == AUTH_PASSWORD)
        return take_password(s, answer);
    sbuf_add_str(&s->auth->user, answer);
    s->auth->step = AUTH_PASSWORD;
    return ask_client(s, PASSWORD_PROMPT);
}

static enum cmd take_answer(struct session *s, struct str line) {
    struct sbuf raw = {0};
    enum cmd rc = base64_decode(&raw, line)
                      ? take_decoded(s, sbuf_str(&raw))
                      : auth_fail(s, "Invalid base64 data in response", STR_NONE);
    sbuf_wipe(&raw);
    return rc;
}

static enum cmd begin_store(struct session *s, struct str resp) {
    bool plain = strcmp(s->auth->method, "PLAIN") == 0;
    s->auth->step = plain ? AUTH_PLAIN : AUTH_USER;
    if (resp.p != NULL)
        return take_answer(s, str_eq_c(resp, "=") ? STR_LIT("") : resp);
    return ask_client(s, plain ? "" : USERNAME_PROMPT);
}

/* -- what the client says -- */

static bool rate_allows(struct session *s) {
    struct sbuf from = {0};
    int64_t limit = s->p->smtpd_client_auth_rate_limit;
    if (limit == 0 || s->client.limits_off)
        return true;
    int64_t n = anvil_event(s->client.addr, ANVIL_AUTH, s->p->anvil_rate_time_unit);
    if (n <= limit)
        return true;
    log_warn_as(s->svc->log_name, "smtpd",
                "AUTH command rate limit exceeded: %lld from %s for service %s", (long long)n,
                client_text(&s->client, &from), s->svc->name);
    sbuf_free(&from);
    smtpd_reply(s, false, "450 4.7.1 Error: too many AUTH commands from %s", s->client.addr);
    return false;
}

/* May AUTH come now?  Else it has been answered.  rest: what follows the mechanism. */
static bool auth_allowed(struct session *s, struct str mech, struct str rest) {
    struct str more;
    bool too_many = str_split(&rest, " \t", &more) && str_split(&rest, " \t", &more);
    if (s->helo == NULL)
        smtpd_reply(s, false, "503 5.5.1 Error: send HELO/EHLO first");
    else if (!auth_is_active(s))
        smtpd_reply(s, false, "503 5.5.1 Error: authentication not enabled");
    else if (s->tx != NULL)
        smtpd_reply(s, false, "503 5.5.1 Error: MAIL transaction in progress");
    else if (s->p->smtpd_tls_auth_only && !s->tls_on)
        smtpd_reply(s, false,
                    "538 5.7.11 Encryption required for requested authentication mechanism");
    else if (s->sasl_user != NULL)
        smtpd_reply(s, false, "503 5.5.1 Error: already authenticated");
    else if (mech.n == 0 || too_many)
        smtpd_reply(s, false, "501 5.5.4 Syntax: AUTH mechanism");
    else
        return rate_allows(s);
    return false;
}

static bool is_offered(const struct session *s, const char *method) {
    struct sbuf mechs = {0};
    auth_mechanisms(s, &mechs);
    bool yes = mechs.n > 0 && list_has_word(sbuf_str(&mechs), method);
    sbuf_free(&mechs);
    return yes;
}

/* resp: the initial response, or STR_NONE. */
static enum cmd auth_open(struct session *s, struct str resp) {
    if (by_dovecot(s->p) && !dovecot_there(s))
        return fail_for_now(s, "the authentication server is not there");
    if (!is_offered(s, s->auth->method))
        return auth_fail(s, "Invalid authentication mechanism", STR_NONE);
    return by_dovecot(s->p) ? begin_dovecot(s, resp) : begin_store(s, resp);
}

/* The service is there, or it is known that it is not. */
static enum cmd auth_start(struct session *s) {
    struct sbuf resp = s->auth->resp;
    s->auth->resp = (struct sbuf){0};
    enum cmd rc = auth_open(s, s->auth->has_resp ? sbuf_str(&resp) : STR_NONE);
    sbuf_wipe(&resp);
    return rc;
}

static void auth_service_came(struct session *s) {
    smtpd_answered(s, auth_start(s));
}

enum cmd auth_command(struct session *s, struct str args) {
    struct str rest = args, mech = STR_NONE, resp = STR_NONE;
    str_split(&rest, " \t", &mech);
    if (!auth_allowed(s, mech, rest))
        return CMD_DONE;
    struct auth *a = s->auth = MEM_NEW(struct auth);
    a->method = str_dup(mech);
    for (char *p = a->method; *p != '\0'; p++)
        *p = *p >= 'a' && *p <= 'z' ? (char)(*p - 32) : *p;
    a->has_resp = str_split(&rest, " \t", &resp);
    sbuf_add_str(&a->resp, resp);
    return auth_await(s, auth_service_came) ? CMD_WAIT : auth_start(s);
}

static enum cmd dovecot_answer(struct session *s, struct str line) {
    struct auth *a = s->auth;
    if (!is_base64(line))
        return auth_fail(s, "Invalid base64 data in continued response", STR_NONE);
    if (a->lost || !dovecot_continue(auth_dovecot(s), a->id, line))
        return fail_for_now(s, "Connection lost to authentication server");
    return CMD_WAIT;
}

enum cmd auth_line(struct session *s, struct str line) {
    struct auth *a = s->auth;
    a->reading = false;
    if (!str_eq_c(line, "*"))
        return a->step == AUTH_DOVECOT ? dovecot_answer(s, line) : take_answer(s, line);
    auth_free(s);
    smtpd_reply(s, false, "501 5.7.0 Authentication aborted");
    return CMD_DONE;
}

static void auth_server_want(struct receive *r, const char *path) {
    struct auth_server *server = auth_server_find(&r->auth_servers, path);
    if (server == NULL) {
        server = MEM_NEW(struct auth_server);
        server->path = mem_strdup(path);
        server->dovecot = dovecot_new(r->loop, path);
        server->unused.run = auth_server_unused;
        dl_push(&r->auth_servers, &server->link);
    }
    server->wanted = true;
}

void auth_reload(struct receive *r) {
    DL_EACH (it, &r->auth_servers)
        DL_OWNER(it, struct auth_server, link)->wanted = false;
    for (size_t i = 0; i < r->cfg->n_services; i++) {
        const struct service *svc = r->cfg->services[i];
        if (svc->kind == SERVICE_SMTPD && svc->p.smtpd_sasl_auth_enable && by_dovecot(&svc->p))
            auth_server_want(r, svc->p.smtpd_sasl_path);
    }
    DL_EACH_SAFE (it, &r->auth_servers)
        auth_server_settle(DL_OWNER(it, struct auth_server, link));
}
