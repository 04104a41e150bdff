/*
 * receive/auth.c - AUTH from clients (RFC 4954, in Postfix's words)
 *
 * Who knows the passwords is either Dovecot's auth service, which carries on the dialogue itself,
 * or the accounts store: then PLAIN and LOGIN are spoken here and the lookup process verifies.  The
 * session is paused while somebody else thinks.  What the client sent is overwritten at once.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "receive/dovecot.h"
#include "receive/session.h"
#include "smtp/sasl.h"
#include "util/codec.h"
#include "util/log.h"
#include "util/mem.h"

#define USERNAME_PROMPT "VXNlcm5hbWU6" /* "Username:" */
#define PASSWORD_PROMPT "UGFzc3dvcmQ6" /* "Password:" */

/* What Postfix says where its backend says nothing. */
#define NO_REASON "(reason unavailable)"

enum step { STEP_PLAIN, STEP_USER, STEP_PASSWORD, STEP_DOVECOT };

struct auth {
    struct session *s;
    char *method;
    enum step step;
    bool reading; /* the client's next line is an answer */
    bool lost;    /* Dovecot went away while the client was to answer */
    uint32_t id;  /* Dovecot's */
    uint32_t tag; /* the lookup process's */
    struct sbuf user;
};

/* EHLO waits for the list of mechanisms. */
struct auth_ehlo {
    struct dovecot_wait wait;
    struct session *s;
    char *name;
};

static bool by_dovecot(const struct session *s) {
    return strcmp(s->p->smtpd_sasl_type, "dovecot") == 0;
}

/* Is AUTH for this client at all? */
static bool is_active(struct session *s) {
    const char *not = s->p->smtpd_sasl_exceptions_networks;
    return s->p->smtpd_sasl_auth_enable && !s->local && (*not == '\0' || !access_is_ours(s, not ));
}

static void auth_free(struct session *s) {
    struct auth *a = s->auth;
    s->auth = NULL;
    if (a == NULL)
        return;
    free(a->method);
    sbuf_wipe(&a->user);
    free(a);
}

void auth_drop(struct session *s) {
    if (s->auth != NULL && s->auth->id != 0 && s->r->dovecot != NULL)
        dovecot_cancel(s->r->dovecot, s->auth->id);
    if (s->auth != NULL)
        lookup_cancel(s->r->lookup, s->auth->tag);
    auth_free(s);
    if (s->ehlo_wait != NULL) {
        dl_remove(&s->ehlo_wait->wait.link);
        free(s->ehlo_wait->name);
        free(s->ehlo_wait);
        s->ehlo_wait = NULL;
    }
}

bool auth_reading(const struct session *s) {
    return s->auth != NULL && s->auth->reading;
}

/* -- which mechanisms -- */

static unsigned options(const struct session *s) {
    unsigned flags = 0;
    struct str bad;
    sasl_options_parse(str_of(s->tls_on ? s->p->smtpd_sasl_tls_security_options
                                        : s->p->smtpd_sasl_security_options),
                       &flags, &bad);
    return flags;
}

/* What is offered now; nothing where passwords wait for TLS. */
static void mechanisms(struct session *s, struct sbuf *out) {
    struct sbuf all = {0};
    if (!is_active(s) || (s->p->smtpd_tls_auth_only && !s->tls_on))
        return;
    if (by_dovecot(s) && s->r->dovecot != NULL)
        dovecot_mechs(s->r->dovecot, options(s), &all);
    else if (!by_dovecot(s) && (options(s) & SASL_NOPLAINTEXT) == 0)
        sbuf_add_c(&all, "PLAIN LOGIN");
    if (all.n > 0)
        sasl_filter(sbuf_str(&all), str_of(s->p->smtpd_sasl_mechanism_filter), out);
    sbuf_free(&all);
}

static void ehlo_goes_on(void *arg) {
    struct session *s = arg;
    struct auth_ehlo *e = s->ehlo_wait;
    bool waited = s->waiting;
    s->ehlo_wait = NULL;
    command_ehlo(s, str_of(e->name));
    free(e->name);
    free(e);
    if (waited)
        session_go(s);
}

bool auth_ehlo_waits(struct session *s, struct str name) {
    struct dovecot *d = s->r->dovecot;
    if (!is_active(s) || !by_dovecot(s) || d == NULL || dovecot_ready(d) || s->ehlo_asked)
        return false;
    struct auth_ehlo *e = MEM_NEW(struct auth_ehlo);
    *e = (struct auth_ehlo){.wait = {.fn = ehlo_goes_on, .arg = s}, .s = s, .name = str_dup(name)};
    s->ehlo_wait = e;
    s->ehlo_asked = true; /* once a command */
    session_wait(s);
    dovecot_await(d, &e->wait);
    return true;
}

void auth_offer(struct session *s, struct sbuf *mechs) {
    s->ehlo_asked = false;
    mechanisms(s, mechs);
}

/* -- how it ends -- */

static void succeed(struct session *s, struct str user) {
    struct sbuf name = {0};
    sbuf_add_safe(&name, user);
    s->sasl_user = sbuf_take(&name);
    s->sasl_method = mem_strdup(s->auth->method);
    auth_free(s);
    session_reply(s, true, "235 2.7.0 Authentication successful");
}

/* The words that fail2ban's filters look for. */
static void log_failure(struct session *s, const char *why, struct str user) {
    struct sbuf from = {0};
    if (user.n == 0)
        user = STR_LIT("(unavailable)");
    log_warn_as(s->svc->log_name, "smtpd",
                "%s: SASL %s authentication failed: %s, sasl_username=%.*s", session_from(s, &from),
                s->auth->method, why, STR_FMT(user));
    sbuf_free(&from);
}

static void fail(struct session *s, const char *why, struct str user) {
    if (*why == '\0')
        why = NO_REASON;
    log_failure(s, why, user);
    auth_free(s);
    session_reply(s, false, "535 5.7.8 Error: authentication failed: %s", why);
}

/* Nobody's fault: not in the words of log_failure, which a client is banned for. */
static void fail_for_now(struct session *s, const char *why) {
    struct sbuf from = {0};
    log_warn_as(s->svc->log_name, "smtpd", "%s: SASL %s authentication is not possible now: %s",
                session_from(s, &from), s->auth->method, why);
    sbuf_free(&from);
    auth_free(s);
    session_reply(s, false, "454 4.7.0 Temporary authentication failure: %s", why);
}

static void ask_client(struct session *s, const char *challenge) {
    s->auth->reading = true;
    conn_printf(s->conn, "334 %s\r\n", challenge);
}

/* -- Dovecot -- */

static void on_dovecot(void *arg, enum dovecot_rc rc, struct str text, struct str user) {
    struct session *s = arg;
    char *t = str_dup(text);
    bool waited = s->waiting;
    if (rc != DOVECOT_MORE)
        s->auth->id = 0;
    if (!waited) /* the client is to speak: it is told when it has */
        s->auth->lost = true;
    else if (rc == DOVECOT_OK && text.n > 0)
        succeed(s, text);
    else if (rc == DOVECOT_MORE)
        ask_client(s, t);
    else if (rc == DOVECOT_FAIL)
        fail(s, t, user);
    else
        fail_for_now(s, rc == DOVECOT_OK ? "no user name" : t);
    free(t);
    if (waited)
        session_go(s);
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

static void begin_dovecot(struct session *s, struct str resp) {
    char ip[INET6_ADDRSTRLEN];
    struct dovecot_login login = {.mech = s->auth->method,
                                  .service = s->p->smtpd_sasl_service,
                                  .local_addr = local_end(s, ip),
                                  .client_addr = s->addr,
                                  .secured = s->tls_on,
                                  .resp = resp};
    if (!is_base64(resp)) {
        fail(s, "Invalid base64 data in initial response", STR_NONE);
        return;
    }
    s->auth->step = STEP_DOVECOT;
    s->auth->id = dovecot_begin(s->r->dovecot, &login, on_dovecot, s);
    if (s->auth->id == 0)
        fail_for_now(s, "the authentication server cannot be asked");
    else
        session_wait(s);
}

/* -- the accounts store -- */

static void on_verified(void *arg, const struct maps_answer *ans) {
    struct session *s = arg;
    struct str value = sbuf_str(&ans->value);
    s->auth->tag = 0;
    if (ans->rc == MAP_FOUND) {
        succeed(s, value);
    } else if (ans->rc == MAP_NOT_FOUND) {
        /* The reason is for the log only: a stranger is not told who exists. */
        char *why = str_dup(value), *user = str_dup(sbuf_str(&s->auth->user));
        log_failure(s, why, str_of(user));
        auth_free(s);
        session_reply(s, false, "535 5.7.8 Error: authentication failed: " NO_REASON);
        free(why);
        free(user);
    } else {
        fail_for_now(s, "the accounts store does not answer");
    }
    session_go(s);
}

static void verify(struct session *s, struct str user, struct str password) {
    struct auth *a = s->auth;
    const char *domain = s->p->smtpd_sasl_local_domain;
    struct sbuf name = {0};
    sbuf_add_str(&name, user);
    if (str_chr(user, '@') < 0 && *domain != '\0')
        sbuf_printf(&name, "@%s", domain);
    sbuf_wipe(&a->user);
    a->user = name;
    session_wait(s);
    a->tag = lookup_verify(s->r->lookup, sbuf_str(&a->user), password, s->tls_on, s->addr,
                           on_verified, s);
}

/* "authzid NUL user NUL password" (RFC 4616). */
static void take_plain(struct session *s, struct str text) {
    ptrdiff_t a = str_chr(text, '\0');
    struct str rest = str_from(text, (size_t)(a + 1));
    ptrdiff_t b = a < 0 ? -1 : str_chr(rest, '\0');
    struct str user = str_make(rest.p, b < 0 ? 0 : (size_t)b);
    struct str password = b < 0 ? STR_NONE : str_from(rest, (size_t)b + 1);
    if (b < 0 || str_chr(password, '\0') >= 0)
        fail(s, "malformed PLAIN response", STR_NONE);
    else
        verify(s, user, password);
}

static void take_answer(struct session *s, struct str line) {
    struct auth *a = s->auth;
    struct sbuf raw = {0};
    if (!base64_decode(&raw, line)) {
        fail(s, "Invalid base64 data in response", STR_NONE);
    } else if (a->step == STEP_PLAIN) {
        take_plain(s, sbuf_str(&raw));
    } else if (a->step == STEP_USER) {
        sbuf_add_str(&a->user, sbuf_str(&raw));
        a->step = STEP_PASSWORD;
        ask_client(s, PASSWORD_PROMPT);
    } else if (raw.n > 0 && memchr(raw.p, '\0', raw.n) != NULL) {
        fail(s, "malformed LOGIN response", STR_NONE);
    } else {
        char *user = str_dup(sbuf_str(&a->user));
        verify(s, str_of(user), sbuf_str(&raw));
        free(user);
    }
    sbuf_wipe(&raw);
}

static void begin_store(struct session *s, struct str resp) {
    bool plain = strcmp(s->auth->method, "PLAIN") == 0;
    s->auth->step = plain ? STEP_PLAIN : STEP_USER;
    if (resp.p != NULL)
        take_answer(s, str_eq_c(resp, "=") ? STR_LIT("") : resp);
    else
        ask_client(s, plain ? "" : USERNAME_PROMPT);
}

/* -- what the client says -- */

static bool allowed(struct session *s, struct str mech, struct str rest) {
    struct sbuf from = {0};
    struct str more;
    if (s->helo == NULL)
        session_reply(s, false, "503 5.5.1 Error: send HELO/EHLO first");
    else if (!is_active(s))
        session_reply(s, false, "503 5.5.1 Error: authentication not enabled");
    else if (s->in_mail)
        session_reply(s, false, "503 5.5.1 Error: MAIL transaction in progress");
    else if (s->p->smtpd_tls_auth_only && !s->tls_on)
        session_reply(s, false,
                      "538 5.7.11 Encryption required for requested authentication mechanism");
    else if (s->sasl_user != NULL)
        session_reply(s, false, "503 5.5.1 Error: already authenticated");
    else if (mech.n == 0 || (str_split(&rest, " \t", &more) && str_split(&rest, " \t", &more)))
        session_reply(s, false, "501 5.5.4 Syntax: AUTH mechanism");
    else if (s->p->smtpd_client_auth_rate_limit > 0 && !s->trusted_limits &&
             anvil_event(s->addr, ANVIL_AUTH, s->p->anvil_rate_time_unit) >
                 s->p->smtpd_client_auth_rate_limit) {
        log_warn_as(s->svc->log_name, "smtpd",
                    "AUTH command rate limit exceeded: from %s for service %s",
                    session_from(s, &from), s->svc->name);
        session_reply(s, false, "450 4.7.1 Error: too many AUTH commands from %s", s->addr);
    } else {
        sbuf_free(&from);
        return true;
    }
    sbuf_free(&from);
    return false;
}

static bool offered(struct session *s, const char *method) {
    struct sbuf mechs = {0};
    mechanisms(s, &mechs);
    bool yes = mechs.n > 0 && session_word(mechs.p, method);
    sbuf_free(&mechs);
    return yes;
}

void auth_command(struct session *s, struct str args) {
    struct str rest = args, mech = STR_NONE, resp = STR_NONE;
    str_split(&rest, " \t", &mech);
    if (!allowed(s, mech, rest))
        return;
    str_split(&rest, " \t", &resp);
    struct auth *a = s->auth = MEM_NEW(struct auth);
    a->s = s;
    a->method = str_dup(mech);
    for (char *p = a->method; *p != '\0'; p++)
        *p = *p >= 'a' && *p <= 'z' ? (char)(*p - 32) : (unsigned char)*p <= ' ' ? '?' : *p;
    if (by_dovecot(s) && (s->r->dovecot == NULL || !dovecot_ready(s->r->dovecot)))
        fail_for_now(s, "the authentication server is not there");
    else if (!offered(s, a->method))
        fail(s, "Invalid authentication mechanism", STR_NONE);
    else if (by_dovecot(s))
        begin_dovecot(s, resp);
    else
        begin_store(s, resp);
}

void auth_line(struct session *s, struct str line) {
    struct auth *a = s->auth;
    a->reading = false;
    if (str_eq_c(line, "*")) {
        if (a->id != 0)
            dovecot_cancel(s->r->dovecot, a->id);
        auth_free(s);
        session_reply(s, false, "501 5.7.0 Authentication aborted");
    } else if (a->step != STEP_DOVECOT) {
        take_answer(s, line);
    } else if (!is_base64(line)) {
        dovecot_cancel(s->r->dovecot, a->id);
        fail(s, "Invalid base64 data in continued response", STR_NONE);
    } else if (a->lost || !dovecot_continue(s->r->dovecot, a->id, line)) {
        fail_for_now(s, "Connection lost to authentication server");
    } else {
        session_wait(s);
    }
}

void auth_reload(struct receive *r) {
    const char *path = NULL;
    for (size_t i = 0; i < r->cfg->n_services && path == NULL; i++) {
        const struct service *svc = r->cfg->services[i];
        if (svc->kind == SERVICE_SMTPD && svc->p.smtpd_sasl_auth_enable &&
            strcmp(svc->p.smtpd_sasl_type, "dovecot") == 0)
            path = svc->p.smtpd_sasl_path;
    }
    if (path != NULL && r->dovecot != NULL && strcmp(path, r->dovecot_path) == 0)
        return;
    dovecot_free(r->dovecot);
    free(r->dovecot_path);
    r->dovecot = path == NULL ? NULL : dovecot_new(r->loop, path);
    r->dovecot_path = path == NULL ? NULL : mem_strdup(path);
}
