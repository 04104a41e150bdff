/*
 * receive/serve.c - serving one client; see serve.h
 *
 * Input is taken a line at a time (commands, answers to challenges) or as it comes (content), and
 * each piece ends in serve_next, which alone decides what the session does then.  A command that
 * waits for an answer pauses the client until the answer is there, so replies are always in order.
 */
#include "receive/serve.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "mail/address.h"
#include "receive/anvil.h"
#include "receive/auth.h"
#include "receive/clientcert.h"
#include "receive/commands.h"
#include "receive/intake.h"
#include "receive/message.h"
#include "receive/sni.h"
#include "receive/transaction.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/os.h"
#include "util/tls.h"

static size_t serve_input(void *arg, const char *p, size_t n);
static void serve_event(void *arg, enum conn_event ev);
static const struct conn_ops serve_ops = {
    .input = serve_input, .event = serve_event, .answers = true, .wipes = true};

/* The question for the client's name cannot be cancelled: it outlives the session. */
struct name_query {
    struct session *s; /* NULL: the session is over */
};

static void smtpd_free(struct session *s) {
    config_unref(s->cfg);
    SSL_CTX_free(s->tls);
    client_clear(&s->client);
    auth_logout(s);
    free(s->helo);
    clientcert_free(s->cert);
    free(s);
}

/* A command that was begun and has no answer yet: data=0/1.  A chunk that was refused has one. */
static void count_unfinished(struct session *s) {
    if (s->intake != NULL && intake_open(s->intake) && s->intake->kind != INTAKE_REFUSED)
        s->total[s->verb]++;
}

/* The end of the session, which is gone when this returns.  what: why, for the log, or NULL.  What
 * was written is sent. */
static void serve_close(struct session *s, const char *what) {
    char key[CLIENT_KEY_MAX];
    /* Its places are free before the log says that the client has gone. */
    atomic_fetch_sub(&s->load->n_sessions, 1);
    if (s->client.counted)
        anvil_disconnect(client_key(&s->client, key));
    if (!s->client.local) {
        if (what != NULL)
            smtpd_log_end(s, what);
        count_unfinished(s);
        smtpd_log_counts(s);
    }
    transaction_reset(s);
    auth_leave(s);
    message_forget(s);
    if (s->naming != NULL)
        s->naming->s = NULL;
    lookup_cancel(s->r->lookup, s->asked);
    dl_remove(&s->link);
    s->r->n_sessions--;
    conn_close_after_write(s->conn);
    smtpd_free(s);
}

/* What the client is expected to send when all that came has been answered. */
static enum session_state serve_expects(const struct session *s) {
    if (auth_reading(s))
        return SESSION_AUTH;
    return s->intake != NULL && intake_open(s->intake) ? SESSION_CONTENT : SESSION_COMMAND;
}

/* Content has begun to come that will be taken, and the time for a stop is not over. */
static bool serve_may_finish(const struct session *s) {
    return s->r->stop != RECEIVE_LEAVES && s->intake != NULL && s->intake->kind != INTAKE_REFUSED;
}

/* A client that waits for TLS before anything else is told nothing in clear. */
static bool serve_may_say(const struct session *s) {
    return !s->wrapped || s->tls_on;
}

static void serve_shut_down(struct session *s) {
    if (serve_may_say(s))
        smtpd_say(s, "421 4.3.2 %s Service shutting down", s->cfg->p.myhostname);
    serve_close(s, NULL);
}

/* A client that has gone is owed no answer, and what it had asked is waited for no longer. */
void serve_stop(struct session *s) {
    bool asked = s->state == SESSION_WAIT && s->r->stop != RECEIVE_LEAVES;
    if (s->commit != NULL) /* serve_on sees to it, as below */
        return;
    if (s->gone)
        serve_close(s, "lost connection");
    else if (!asked && !serve_may_finish(s))
        serve_shut_down(s);
}

/* A client that has made too many mistakes is slowed down after each command, as long as it has no
 * message taken; content is not. */
static bool serve_is_slow(const struct session *s) {
    return !s->client.local && s->errors > s->p->smtpd_soft_error_limit &&
           s->p->smtpd_error_sleep_time > 0 && serve_expects(s) != SESSION_CONTENT;
}

/* After each command and each piece of content: is the daemon being stopped, has the client made
 * too many mistakes? */
static void serve_on(struct session *s) {
    if (s->r->stop != RECEIVE_SERVES && !serve_may_finish(s)) {
        serve_shut_down(s);
    } else if (!s->client.local && s->errors > 0 && s->errors >= s->p->smtpd_hard_error_limit) {
        smtpd_say(s, "421 4.7.0 %s Error: too many errors", s->cfg->p.myhostname);
        serve_close(s, "too many errors");
    } else {
        smtpd_enter(s, serve_is_slow(s) ? SESSION_SLEEP : serve_expects(s));
    }
}

/* NULL: there is no memory. */
static SSL *serve_ssl(struct session *s) {
    SSL *ssl = SSL_new(s->tls);
    if (ssl != NULL)
        SSL_set_app_data(ssl, s);
    return ssl;
}

/* What comes after a command; s may be gone when this returns. */
static void serve_next(struct session *s, enum cmd rc) {
    switch (rc) {
    case CMD_WAIT:
        smtpd_enter(s, SESSION_WAIT);
        break;
    case CMD_TLS:
        smtpd_enter(s, SESSION_TLS);
        conn_tls(s->conn, serve_ssl(s), true);
        break;
    case CMD_CLOSE:
        serve_close(s, NULL);
        break;
    default:
        serve_on(s);
        break;
    }
}

/* The answer that the session waited for. */
static void serve_answered(struct session *s, enum cmd rc) {
    if (s->gone && rc != CMD_WAIT)
        serve_close(s, "lost connection");
    else
        serve_next(s, rc);
}

/* -- input -- */

static void serve_line_too_long(struct session *s) {
    s->verb = VERB_UNKNOWN;
    smtpd_reply(s, false, "500 5.5.2 Error: line too long");
    serve_close(s, "line too long");
}

/* The end of the line at p, behind its LF; 0: it has not come.  A client that ends its lines in CR
 * LF has a bare LF inside them: it was put into an address, say, so that what follows becomes a
 * command of another's making.  *bare: there is one. */
static size_t serve_line_end(const struct session *s, const char *p, size_t n, bool *bare) {
    for (size_t at = 0; at < n;) {
        const char *nl = memchr(p + at, '\n', n - at);
        if (nl == NULL)
            return 0;
        at = (size_t)(nl - p) + 1;
        bool crlf = at > 1 && nl[-1] == '\r';
        *bare = *bare || !crlf;
        if (crlf || !s->ends_in_crlf || s->client.bare == BARE_REJECTED)
            return at;
    }
    return 0;
}

/* smtpd_forbid_bare_newline = reject: as in Postfix, that ends the session. */
static void serve_reject_bare(struct session *s) {
    struct sbuf text = {0};
    transaction_bare_newline(s, smtpd_last_verb(s), &text);
    s->verb = VERB_UNKNOWN;
    smtpd_reply(s, false, "%s", text.p);
    sbuf_free(&text);
    serve_close(s, NULL);
}

static void serve_bare_newline(struct session *s) {
    struct sbuf from = {0};
    log_warn("smtpd", "bare <LF> inside a command line from %s: refused",
             client_text(&s->client, &from));
    sbuf_free(&from);
    s->verb = VERB_UNKNOWN;
    smtpd_reply(s, false, "500 5.5.2 Error: bare <LF> received");
    serve_next(s, CMD_DONE);
}

/* Text of a client for the log, as Postfix writes it: control characters as in C. */
static void serve_add_escaped(struct sbuf *b, struct str text) {
    static const char names[] = "a\ab\bf\fn\nr\rt\tv\v\\\\";
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        const char *name = names;
        while (*name != '\0' && (unsigned char)name[1] != c)
            name += 2;
        if (*name != '\0')
            sbuf_printf(b, "\\%c", *name);
        else if (c < ' ' || c >= 0x7f)
            sbuf_printf(b, "\\%03o", c);
        else
            sbuf_add_ch(b, (char)c);
    }
}

/* What is shown of what came early: some of it, and nothing of a login. */
static struct str serve_early_shown(enum smtp_verb before, struct str rest) {
    struct str left = str_make(rest.p, rest.n < 100 ? rest.n : 100), line;
    size_t n = left.n;
    if (before == VERB_AUTH) /* answers to challenges follow it */
        return STR_LIT("");
    while (str_split(&left, "\r\n", &line)) {
        struct str word = str_trim(line);
        if (str_istarts(word, "AUTH"))
            return str_make(rest.p, (size_t)(word.p - rest.p) + strlen("AUTH"));
    }
    return str_make(rest.p, n);
}

/* A client that sends on before it has the answer to line, which RFC 2920 section 3.1 does not
 * permit, is logged once: fail2ban looks for such clients.  rest: what came behind line. */
static void serve_note_early(struct session *s, struct str line, struct str rest) {
    struct str args;
    if (rest.n == 0 || s->came_early || s->client.local)
        return;
    enum smtp_verb v = smtp_verb_parse(line, &args);
    bool waits = v == VERB_EHLO || v == VERB_HELO || v == VERB_NOOP || v == VERB_VRFY ||
                 v == VERB_DATA || !s->esmtp;
    if (v == VERB_UNKNOWN || !waits)
        return;
    struct sbuf from = {0}, text = {0};
    s->came_early = true;
    serve_add_escaped(&text, serve_early_shown(v, rest));
    log_info("smtpd", "improper command pipelining after %s from %s: %.*s", smtp_verb_name(v, true),
             client_text(&s->client, &from), STR_FMT(sbuf_str(&text)));
    sbuf_free(&from);
    sbuf_free(&text);
}

static size_t serve_line(struct session *s, const char *p, size_t n) {
    bool bare = false;
    size_t used = serve_line_end(s, p, n, &bare);
    bool answer = s->state == SESSION_AUTH;
    size_t limit = (size_t)(answer ? s->p->smtpd_sasl_response_limit : s->p->line_length_limit);
    if (used == 0 && n <= limit)
        return 0;
    if (used == 0 || used - 1 > limit) {
        serve_line_too_long(s);
        return n;
    }
    s->came_bare = s->came_bare || bare;
    struct str line = str_make(p, used - 1);
    if (line.n > 0 && line.p[line.n - 1] == '\r') {
        line.n--;
        s->ends_in_crlf = true;
    }
    if (bare && !answer && s->client.bare == BARE_REJECTED) {
        serve_reject_bare(s);
        return used;
    }
    if (bare && !answer && s->ends_in_crlf) {
        serve_bare_newline(s);
        return used;
    }
    if (!answer)
        serve_note_early(s, line, str_make(p + used, n - used));
    serve_next(s, answer ? auth_line(s, line) : command_line(s, line));
    return used;
}

static size_t serve_content(struct session *s, const char *p, size_t n) {
    enum cmd rc = CMD_DONE;
    size_t used = message_input(s, p, n, &rc);
    smtpd_content_came(s, used);
    serve_next(s, rc);
    return used;
}

static size_t serve_input(void *arg, const char *p, size_t n) {
    struct session *s = arg;
    switch (s->state) {
    case SESSION_COMMAND:
    case SESSION_AUTH:
        return serve_line(s, p, n);
    case SESSION_CONTENT:
        return serve_content(s, p, n);
    default:
        return 0;
    }
}

/* -- the connection -- */

static void serve_greet(struct session *s) {
    smtpd_say(s, "220 %s", s->p->smtpd_banner);
}

static void serve_log_tls(const struct session *s, SSL *ssl) {
    struct sbuf b = {0}, from = {0};
    bool named = sni_matched(ssl);
    client_text(&s->client, &from);
    tls_describe(ssl, " ", &b);
    if (s->cert != NULL && !s->cert->trusted)
        log_as(s->svc->log_name, "smtpd", "certificate verification failed for %s: %s", from.p,
               s->cert->why);
    log_as(s->svc->log_name, "smtpd", "%s TLS connection established from %s%s%s: %s",
           s->cert == NULL    ? "Anonymous"
           : s->cert->trusted ? "Trusted"
                              : "Untrusted",
           from.p, named ? " to " : "",
           named ? SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name) : "", b.p);
    sbuf_free(&b);
    sbuf_free(&from);
}

/* Has the client shown what it must?  It is told if not, also on a wrapped port. */
static bool serve_certified(struct session *s) {
    struct sbuf from = {0};
    if (!clientcert_needed(s->p) || (s->cert != NULL && s->cert->trusted))
        return true;
    const char *why =
        s->cert == NULL ? "No client certificate presented" : "Client certificate not trusted";
    log_as(s->svc->log_name, "smtpd", "NOQUEUE: abort: TLS from %s: %s",
           client_text(&s->client, &from), why);
    sbuf_free(&from);
    smtpd_say(s, "421 4.7.1 %s Error: %s", s->cfg->p.myhostname, why);
    return false;
}

static void serve_tls_up(struct session *s) {
    SSL *ssl = conn_ssl(s->conn);
    s->tls_on = true;
    s->cert = clientcert_of(ssl, s->p);
    if (s->p->smtpd_tls_loglevel >= 1)
        serve_log_tls(s, ssl);
    if (!serve_certified(s)) {
        serve_close(s, NULL);
        return;
    }
    if (s->wrapped)
        serve_greet(s);
    smtpd_enter(s, SESSION_COMMAND);
}

static void serve_timed_out(struct session *s) {
    if (s->state == SESSION_SLEEP) {
        smtpd_enter(s, serve_expects(s));
        return;
    }
    smtpd_say(s, "421 4.4.2 %s Error: timeout exceeded", s->cfg->p.myhostname);
    serve_close(s, "timeout");
}

/* A client that hangs up while something is asked for it keeps its place until that is answered, as
 * it keeps a process of Postfix's: an address has no more questions open than connections. */
static void serve_lost(struct session *s) {
    struct sbuf from = {0};
    s->gone = s->state == SESSION_WAIT;
    if (s->gone)
        return;
    if (conn_ssl(s->conn) != NULL && !s->tls_on)
        log_as(s->svc->log_name, "smtpd", "SSL_accept error from %s: %s",
               client_text(&s->client, &from), conn_tls_error(s->conn));
    sbuf_free(&from);
    serve_close(s, "lost connection");
}

static void serve_event(void *arg, enum conn_event ev) {
    struct session *s = arg;
    switch (ev) {
    case CONN_TLS_UP:
        serve_tls_up(s);
        break;
    case CONN_TIMEOUT:
        serve_timed_out(s);
        break;
    case CONN_CLOSED:
        serve_lost(s);
        break;
    default:
        break;
    }
}

/* -- the beginning -- */

/* Connections of one user's programs to the socket of sendmail. */
enum { LOCAL_USER_MAX = 500 };

/* Programs of one user take a part of the places alone; root's are not counted. */
static void count_local(struct client *c) {
    char key[CLIENT_KEY_MAX];
    c->counted = c->uid != 0;
    c->over = c->counted && !anvil_connect(client_key(c, key), LOCAL_USER_MAX, 0, 1);
}

/* Counts the connection; notes whether the client has too many. */
static void count_client(struct session *s) {
    const struct params *p = s->p;
    struct client *c = &s->client;
    if (c->local) {
        count_local(c);
        return;
    }
    c->counted = true;
    c->over = !anvil_connect(c->addr, p->smtpd_client_connection_count_limit,
                             p->smtpd_client_connection_rate_limit, p->anvil_rate_time_unit);
}

static bool has_room(struct session *s) {
    struct sbuf from = {0};
    if (!s->client.over || (s->client.limits_off && !s->client.local))
        return true;
    log_warn("smtpd", "Connection concurrency or rate limit exceeded from %s for service %s",
             client_text(&s->client, &from), s->svc->name);
    sbuf_free(&from);
    if (serve_may_say(s))
        smtpd_say(s, "421 4.7.0 %s Error: too many connections from %s", s->cfg->p.myhostname,
                  s->client.addr);
    return false;
}

static bool has_certificate(const struct session *s) {
    struct sbuf from = {0};
    if (!s->wrapped || s->tls != NULL)
        return true;
    log_warn("smtpd",
             "Wrapper-mode request dropped from %s for service %s: no TLS certificate is loaded",
             client_text(&s->client, &from), s->svc->name);
    sbuf_free(&from);
    return false;
}

/* The client has a name: it is greeted, or refused. */
static void serve_begin(struct session *s) {
    struct sbuf from = {0};
    if (!s->client.local)
        log_as(s->svc->log_name, "smtpd", "connect from %s", client_text(&s->client, &from));
    sbuf_free(&from);
    if (!has_room(s) || !has_certificate(s)) {
        serve_close(s, NULL);
    } else if (s->wrapped) {
        serve_next(s, CMD_TLS);
    } else {
        serve_greet(s);
        smtpd_enter(s, SESSION_COMMAND);
    }
}

/* What a list says of the client; one that cannot be asked is as one without it. */
static void limits_take(struct session *s, bool is_in) {
    s->client.limits_off = is_in;
}

static void auth_take(struct session *s, bool is_in) {
    s->client.no_auth = is_in;
}

static void forward_take(struct session *s, bool is_in) {
    s->client.may_forward = is_in;
}

static void bare_take(struct session *s, bool is_in) {
    s->client.bare = is_in ? BARE_TAKEN : bare_newline_of(s->p->smtpd_forbid_bare_newline);
}

static const char *limits_list(const struct params *p) {
    return p->smtpd_client_event_limit_exceptions;
}

static const char *auth_list(const struct params *p) {
    return p->smtpd_sasl_auth_enable ? p->smtpd_sasl_exceptions_networks : "";
}

static const char *forward_list(const struct params *p) {
    return p->smtpd_authorized_xforward_hosts;
}

static const char *bare_list(const struct params *p) {
    bool taken = bare_newline_of(p->smtpd_forbid_bare_newline) == BARE_TAKEN;
    return taken ? "" : p->smtpd_forbid_bare_newline_exclusions;
}

/* The lists of clients that are asked before a client's first line. */
static const struct {
    const char *name;
    const char *(*list)(const struct params *p);
    void (*take)(struct session *s, bool is_in);
} serve_lists[] = {{"smtpd_client_event_limit_exceptions", limits_list, limits_take},
                   {"smtpd_sasl_exceptions_networks", auth_list, auth_take},
                   {"smtpd_authorized_xforward_hosts", forward_list, forward_take},
                   {"smtpd_forbid_bare_newline_exclusions", bare_list, bare_take}};

static void serve_ask_lists(struct session *s);

static void serve_list_take(struct session *s, enum match_rc rc) {
    serve_lists[s->lists_asked++].take(s, rc == MATCH_YES);
}

static void on_serve_list(void *arg, enum match_rc rc) {
    struct session *s = arg;
    s->asked = 0;
    serve_list_take(s, rc);
    serve_ask_lists(s);
}

/* Asks the lists that are left, and begins. */
static void serve_ask_lists(struct session *s) {
    while (s->lists_asked < sizeof serve_lists / sizeof serve_lists[0]) {
        enum match_rc now;
        s->asked =
            client_match_now(&s->client, s->r->lookup, s->p, serve_lists[s->lists_asked].name,
                             serve_lists[s->lists_asked].list(s->p), &now, on_serve_list, s);
        if (s->asked != 0)
            return;
        serve_list_take(s, now);
    }
    serve_begin(s);
}

static void name_came(void *ctx, const struct client_names *found) {
    struct name_query *q = ctx;
    struct session *s = q->s;
    free(q);
    if (s == NULL)
        return;
    s->naming = NULL;
    s->client.reverse = found->reverse;
    s->client.verified = found->verified;
    if (found->name != NULL)
        s->client.name = mem_strdup(found->name);
    if (found->reverse_name != NULL)
        s->client.reverse_name = mem_strdup(found->reverse_name);
    serve_ask_lists(s);
}

/* The session goes by the certificates and anchors of the configuration that it began with: another
 * one's anchors may vouch for clients that its restrictions do not mean. */
static void session_keep_tls(struct session *s) {
    s->tls = certificates_of(&s->r->tls, s->cfg, s->svc);
    if (s->tls != NULL)
        SSL_CTX_up_ref(s->tls);
}

/* A user who may not submit mail is told so instead of being greeted. */
static void on_submits(void *arg, enum match_rc rc) {
    struct session *s = arg;
    s->asked = 0;
    s->client.bare = BARE_TAKEN;
    s->client.limits_off = true;
    if (rc == MATCH_YES) {
        s->client.name = mem_strdup("localhost");
        serve_begin(s);
        return;
    }
    if (rc == MATCH_NO)
        log_warn("postdrop", "user %u is not allowed to submit mail", s->client.uid);
    smtpd_say(s, rc == MATCH_NO ? "550 5.7.1 This user is not allowed to submit mail"
                                : "451 4.3.0 Whether this user may submit mail is not known now");
    serve_close(s, NULL);
}

/* A program of this machine. */
static void serve_local(struct session *s) {
    const char *list = s->cfg->p.authorized_submit_users;
    enum match_rc now = MATCH_YES;
    if (!lookup_users_all(list))
        s->asked =
            lookup_user_now(s->r->lookup, "postdrop", list, s->client.uid, &now, on_submits, s);
    if (s->asked == 0)
        on_submits(s, now);
}

static void set_client(struct session *s, const struct netaddr *peer, bool local) {
    struct client *c = &s->client;
    c->peer = *peer;
    c->local = local;
    if (!local) {
        netaddr_text(&c->peer, c->addr);
        return;
    }
    if (os_peer_uid(conn_fd(s->conn), &c->uid) < 0)
        c->uid = UINT_MAX; /* no user's */
    strcpy(c->addr, "127.0.0.1");
}

/* Has it too many connections, whatever its name is? */
static bool is_refused_unnamed(struct session *s) {
    const char *list = limits_list(s->p);
    enum match_rc now;
    if (!s->client.over || matchlist_has_names(list))
        return false;
    client_match_now(&s->client, s->r->lookup, s->p, serve_lists[0].name, list, &now, NULL, NULL);
    return now != MATCH_YES;
}

void serve_client(struct receive *r, int fd, const struct netaddr *peer, const struct service *svc,
                  struct service_load *load, bool local) {
    struct session *s = MEM_NEW(struct session);
    s->r = r;
    s->load = load;
    s->cfg = config_ref(r->cfg);
    s->svc = svc;
    s->p = &svc->p;
    session_keep_tls(s);
    s->answered = serve_answered;
    s->wrapped = s->p->smtpd_tls_wrappermode && !local;
    s->conn = conn_new(r->loop, fd, &serve_ops, s);
    if (s->conn == NULL) {
        atomic_fetch_sub(&load->n_sessions, 1);
        smtpd_free(s);
        return;
    }
    auth_keep_server(s);
    dl_push(&r->sessions, &s->link);
    r->n_sessions++;
    set_client(s, peer, local);
    smtpd_enter(s, SESSION_NEW);
    count_client(s); /* before its name servers are asked, which may take their time */
    if (local) {
        serve_local(s);
        return;
    }
    struct name_query *q = s->naming = MEM_NEW(struct name_query);
    q->s = s;
    static const struct client_names unknown = {CLIENT_NAME_UNSET, CLIENT_NAME_UNSET, NULL, NULL};
    if (!s->p->smtpd_peername_lookup || is_refused_unnamed(s))
        name_came(q, &unknown);
    else
        r->ops.peername(r->ops.arg, &s->client.peer, name_came, q);
}
