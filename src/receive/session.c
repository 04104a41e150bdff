/*
 * receive/session.c - an SMTP server session: its connection, its life, listeners
 *
 * Input is taken a line at a time (commands) or as it comes (content).  A command that needs an
 * answer from elsewhere (names, tables, the spool) pauses the connection until it is there, so
 * replies are always in order.
 */
#include "receive/session.h"

#include "receive/certificate.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/accept.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/sock.h"
#include "util/tls.h"

/* master.cf's maxproc counts processes; a session here costs kilobytes, not a process. */
#define SESSIONS_PER_PROC 100

static size_t on_input(void *arg, const char *p, size_t n);
static void on_event(void *arg, enum conn_event ev);
static const struct conn_ops session_conn_ops = {
    .input = on_input, .event = on_event, .answers = true};

bool session_word(const char *list, const char *word) {
    struct str rest = str_of(list), w;
    while (str_split(&rest, ", \t\r\n", &w))
        if (str_ieq_c(w, word))
            return true;
    return false;
}

const char *session_from(const struct session *s, struct sbuf *b) {
    sbuf_printf(b, "%s[%s]", s->name == NULL ? "unknown" : s->name, s->addr);
    return b->p;
}

static void session_free(struct session *s) {
    config_unref(s->cfg);
    sbuf_free(&s->texts);
    sbuf_free(&s->envid);
    sbuf_free(&s->content);
    header_scan_free(&s->hdr);
    sbuf_free(&s->route_text);
    free(s->rcpts);
    free(s->name);
    free(s->helo);
    free(s->sasl_user);
    free(s->sasl_method);
    free(s);
}

void session_unhold(struct session *s) {
    if (--s->holds == 0 && s->gone)
        session_free(s);
}

void session_expect(struct session *s, bool on) {
    if (s->expected != on)
        spool_expect(s->r->spool, on ? 1 : -1);
    s->expected = on;
}

void session_reset(struct session *s) {
    access_cancel(s);
    route_cancel(s->route);
    s->route = NULL;
    data_discard(s);
    session_expect(s, false);
    s->in_mail = false;
    sbuf_reset(&s->texts);
    sbuf_reset(&s->envid);
    s->sender_n = s->n_rcpts = 0;
    s->flags = 0;
    s->qid[0] = '\0';
    s->bdat_begun = s->bdat_refused = false;
}

static void log_disconnect(const struct session *s) {
    struct sbuf b = {0};
    unsigned ok = 0, total = 0;
    sbuf_add_c(&b, "disconnect from ");
    session_from(s, &b);
    for (int i = 0; i < VERB_COUNT; i++) {
        /* "unknown" comes last, as in Postfix. */
        enum smtp_verb v = (enum smtp_verb)((i + 1) % VERB_COUNT);
        if (s->total[v] == 0)
            continue;
        if (s->ok[v] == s->total[v])
            sbuf_printf(&b, " %s=%u", smtp_verb_name(v, false), s->ok[v]);
        else
            sbuf_printf(&b, " %s=%u/%u", smtp_verb_name(v, false), s->ok[v], s->total[v]);
        ok += s->ok[v];
        total += s->total[v];
    }
    if (ok == total && total > 0)
        sbuf_printf(&b, " commands=%u", total);
    else
        sbuf_printf(&b, " commands=%u/%u", ok, total);
    log_as(s->svc->log_name, "smtpd", "%s", b.p);
    sbuf_free(&b);
}

/* The connection goes; the session stays until its last callback has come back. */
static void session_end(struct session *s) {
    session_reset(s);
    auth_drop(s);
    if (!s->local) {
        log_disconnect(s);
        if (s->counted)
            anvil_disconnect(s->addr);
    }
    dl_remove(&s->link);
    s->r->n_sessions--;
    s->gone = true;
    s->mode = MODE_CLOSING;
    s->conn = NULL;
    if (s->holds == 0)
        session_free(s);
}

/* "lost connection after DATA (123 bytes) from host[addr]". */
static void log_stage(const struct session *s, const char *what) {
    struct sbuf b = {0};
    bool body = s->mode == MODE_DATA || s->mode == MODE_BDAT;
    const char *verb = s->verb == VERB_UNKNOWN && s->total[VERB_UNKNOWN] == 0
                           ? "CONNECT"
                           : smtp_verb_name(s->verb, true);
    sbuf_printf(&b, "%s after %s", what, verb);
    if (body)
        sbuf_printf(&b, " (%llu bytes)", (unsigned long long)s->size);
    sbuf_add_c(&b, " from ");
    session_from(s, &b);
    log_as(s->svc->log_name, "smtpd", "%s", b.p);
    sbuf_free(&b);
}

/* what: why, for the log, or NULL.  Output written so far is sent. */
void session_close(struct session *s, const char *what) {
    struct conn *c = s->conn;
    if (what != NULL && !s->local)
        log_stage(s, what);
    if (s->mode == MODE_DATA) /* begun and not ended: data=0/1 */
        s->total[VERB_DATA]++;
    if (s->mode == MODE_BDAT && !s->bdat_refused) /* a refused one is counted already */
        s->total[VERB_BDAT]++;
    s->mode = MODE_CLOSING;
    session_end(s);
    conn_close_after_write(c);
}

void session_reply(struct session *s, bool ok, const char *fmt, ...) {
    va_list ap;
    struct sbuf *o = conn_out(s->conn);
    s->total[s->verb]++;
    if (ok)
        s->ok[s->verb]++;
    else
        s->errors++;
    va_start(ap, fmt);
    sbuf_vprintf(o, fmt, ap);
    va_end(ap);
    sbuf_add_c(o, "\r\n");
    conn_touch(s->conn);
}

void session_wait(struct session *s) {
    s->waiting = true;
    conn_pause(s->conn);
    conn_deadline(s->conn, 0);
}

/* Too many errors: slow down, then hang up.  True if the session is over. */
static bool punish(struct session *s) {
    if (s->errors == s->errors_seen || s->mode == MODE_CLOSING)
        return s->mode == MODE_CLOSING;
    s->errors_seen = s->errors;
    if (s->errors >= s->p->smtpd_hard_error_limit) {
        conn_printf(s->conn, "421 4.7.0 %s Error: too many errors\r\n", s->cfg->p.myhostname);
        session_close(s, "too many errors");
        return true;
    }
    if (s->errors > s->p->smtpd_soft_error_limit && s->p->smtpd_error_sleep_time > 0 &&
        !s->waiting) {
        s->sleeping = true;
        conn_pause(s->conn);
        conn_deadline(s->conn, s->p->smtpd_error_sleep_time * 1000);
    }
    return false;
}

void session_go(struct session *s) {
    s->waiting = false;
    if (s->gone || s->mode == MODE_CLOSING)
        return;
    s->holds++;
    if (!punish(s) && !s->sleeping) {
        conn_deadline(s->conn, s->p->smtpd_timeout * 1000);
        conn_resume(s->conn);
    }
    session_unhold(s);
}

static size_t take_line(struct session *s, const char *p, size_t n) {
    const char *nl = memchr(p, '\n', n);
    bool answer = auth_reading(s);
    size_t limit = (size_t)(answer ? s->p->smtpd_sasl_response_limit : s->p->line_length_limit);
    if (nl == NULL && n <= limit)
        return 0;
    if (nl == NULL || (size_t)(nl - p) > limit) {
        s->verb = VERB_UNKNOWN;
        session_reply(s, false, "500 5.5.2 Error: line too long");
        session_close(s, "line too long");
        return n;
    }
    size_t used = (size_t)(nl - p) + 1;
    struct str line = str_make(p, used - 1);
    if (line.n > 0 && line.p[line.n - 1] == '\r')
        line.n--;
    s->holds++;
    conn_deadline(s->conn, s->p->smtpd_timeout * 1000);
    if (answer)
        auth_line(s, line);
    else
        command_line(s, line);
    if (answer || s->verb == VERB_AUTH) /* may be a password */
        mem_wipe((char *)(uintptr_t)p, used);
    if (!s->gone)
        punish(s);
    session_unhold(s);
    return used;
}

static size_t on_input(void *arg, const char *p, size_t n) {
    struct session *s = arg;
    size_t used = n;
    if (s->mode == MODE_COMMAND)
        return take_line(s, p, n);
    s->holds++;
    if (s->mode == MODE_DATA)
        used = data_input(s, p, n);
    else if (s->mode == MODE_BDAT)
        used = data_bdat_input(s, p, n);
    if (!s->gone && !s->waiting)
        conn_deadline(s->conn, s->p->smtpd_timeout * 1000);
    session_unhold(s);
    return used;
}

static void tls_is_up(struct session *s) {
    struct sbuf b = {0}, from = {0};
    s->tls_on = true;
    if (s->p->smtpd_tls_loglevel >= 1) {
        tls_describe(conn_ssl(s->conn), &b);
        log_as(s->svc->log_name, "smtpd", "Anonymous TLS connection established from %s: %s",
               session_from(s, &from), b.p);
    }
    sbuf_free(&b);
    sbuf_free(&from);
    conn_deadline(s->conn, s->p->smtpd_timeout * 1000);
    if (s->wrapped)
        command_greet(s);
}

static void on_event(void *arg, enum conn_event ev) {
    struct session *s = arg;
    struct sbuf from = {0};
    switch (ev) {
    case CONN_TLS_UP:
        tls_is_up(s);
        break;
    case CONN_TIMEOUT:
        if (s->sleeping) {
            s->sleeping = false;
            session_go(s);
            break;
        }
        conn_printf(s->conn, "421 4.4.2 %s Error: timeout exceeded\r\n", s->cfg->p.myhostname);
        session_close(s, "timeout");
        break;
    case CONN_CLOSED:
        if (conn_ssl(s->conn) != NULL && !s->tls_on)
            log_as(s->svc->log_name, "smtpd", "SSL_accept error from %s: %s",
                   session_from(s, &from), conn_tls_error(s->conn));
        session_close(s, "lost connection");
        break;
    default:
        break;
    }
    sbuf_free(&from);
}

/* STARTTLS or a wrapped listener. */
void session_start_tls(struct session *s) {
    SSL *ssl = SSL_new(s->r->tls);
    conn_deadline(s->conn, s->p->smtpd_starttls_timeout * 1000);
    conn_tls(s->conn, ssl, true);
}

static void begin(struct session *s) {
    struct sbuf from = {0};
    const struct params *p = s->p;
    if (!s->local)
        log_as(s->svc->log_name, "smtpd", "connect from %s", session_from(s, &from));
    sbuf_reset(&from);
    s->trusted_limits = access_is_ours(s, p->smtpd_client_event_limit_exceptions);
    s->counted = !s->local;
    bool ok = s->local ||
              anvil_connect(s->addr, s->trusted_limits ? 0 : p->smtpd_client_connection_count_limit,
                            s->trusted_limits ? 0 : p->smtpd_client_connection_rate_limit,
                            p->anvil_rate_time_unit);
    if (!ok) {
        log_warn("smtpd", "Connection concurrency or rate limit exceeded from %s for service %s",
                 session_from(s, &from), s->svc->name);
        conn_printf(s->conn, "421 4.7.0 %s Error: too many connections from %s\r\n",
                    s->cfg->p.myhostname, s->addr);
        session_close(s, NULL);
    } else if (s->wrapped && s->r->tls == NULL) {
        log_warn(
            "smtpd",
            "Wrapper-mode request dropped from %s for service %s: no TLS certificate is loaded",
            session_from(s, &from), s->svc->name);
        session_close(s, NULL);
    } else if (s->wrapped) {
        session_start_tls(s);
        conn_resume(s->conn);
    } else {
        command_greet(s);
        conn_resume(s->conn);
    }
    sbuf_free(&from);
}

static void on_name(void *ctx, const char *name) {
    struct session *s = ctx;
    s->waiting = false;
    if (!s->gone) {
        s->name = mem_strdup(name == NULL ? "unknown" : name);
        conn_deadline(s->conn, s->p->smtpd_timeout * 1000);
        begin(s);
    }
    session_unhold(s);
}

static void local_peer(struct session *s) {
    struct ucred cred = {0};
    socklen_t len = sizeof cred;
    getsockopt(conn_fd(s->conn), SOL_SOCKET, SO_PEERCRED, &cred, &len);
    s->uid = cred.uid;
    strcpy(s->addr, "127.0.0.1");
}

static const struct service *find_service(const struct config *cfg, const char *name) {
    for (size_t i = 0; i < cfg->n_services; i++)
        if (cfg->services[i]->kind == SERVICE_SMTPD &&
            (name == NULL || strcmp(cfg->services[i]->name, name) == 0))
            return cfg->services[i];
    return NULL;
}

static bool too_many(const struct receive *r, const struct service *svc) {
    int64_t procs = svc->maxproc < 0 ? svc->p.default_process_limit : svc->maxproc;
    return procs > 0 && r->n_sessions >= (size_t)procs * SESSIONS_PER_PROC;
}

/* Out of descriptors: the client is told to come later, and the log, once a minute. */
static void listener_full(void *arg, int fd) {
    struct listener *ln = arg;
    struct receive *r = ln->r;
    static const char busy[] = "421 4.3.2 Too many connections, try again later\r\n";
    if (r->loop->now_ms - r->full_ms >= 60000) {
        r->full_ms = r->loop->now_ms;
        log_warn("smtpd", "too many open files (limit %d): new clients are refused for now",
                 r->fd_max);
    }
    if (fd < 0)
        return;
    sock_send(fd, busy, sizeof busy - 1); /* or it does not take it: closed all the same */
    sock_close(fd);
}

static void listener_client(void *arg, int fd, const struct netaddr *peer) {
    struct listener *ln = arg;
    struct receive *r = ln->r;
    const struct service *svc = find_service(r->cfg, ln->local ? NULL : ln->svc_name);
    if (fd > r->fd_max) {
        listener_full(ln, fd);
        return;
    }
    if (svc == NULL || r->stopping || too_many(r, svc)) {
        static const char busy[] = "421 4.3.2 Service not available, try again later\r\n";
        if (sock_send(fd, busy, sizeof busy - 1) < 0)
            log_warn("smtpd", "connection refused: too many sessions");
        sock_close(fd);
        return;
    }
    struct session *s = MEM_NEW(struct session);
    s->r = r;
    s->cfg = config_ref(r->cfg);
    s->svc = svc;
    s->p = &svc->p;
    s->local = ln->local;
    s->peer = *peer;
    s->wrapped = svc->p.smtpd_tls_wrappermode && !ln->local;
    s->conn = conn_new(r->loop, fd, &session_conn_ops, s);
    if (s->conn == NULL) {
        session_free(s);
        return;
    }
    dl_push(&r->sessions, &s->link);
    r->n_sessions++;
    if (ln->local)
        local_peer(s);
    else
        netaddr_text(&s->peer, s->addr);
    conn_pause(s->conn);
    s->holds++;
    if (ln->local)
        on_name(s, "localhost");
    else if (!s->p->smtpd_peername_lookup)
        on_name(s, NULL);
    else
        r->ops.peername(r->ops.arg, &s->peer, on_name, s);
}

static const struct accept_ops listener_ops = {listener_client, listener_full};

void receive_listen(struct receive *r, int fd, const char *svc_name, bool local) {
    struct listener *ln = MEM_NEW(struct listener);
    ln->r = r;
    ln->local = local;
    ln->svc_name = mem_strdup(svc_name);
    ln->acceptor = acceptor_new(r->loop, fd, &listener_ops, ln);
    dl_push(&r->listeners, &ln->link);
}

/* The certificate of the configuration.  One that cannot be loaded (a renewal may be half written)
 * never takes away the one that is in use. */
static void load_certificate(struct receive *r) {
    char *why;
    SSL_CTX *ctx = certificate_load(r->cfg, &why);
    if (why != NULL)
        log_warn("smtpd", "%s; %s", why,
                 r->tls != NULL ? "the one that was loaded before stays in use"
                                : "STARTTLS is not offered, and services with "
                                  "smtpd_tls_wrappermode are not served");
    if (why == NULL || ctx != NULL) {
        SSL_CTX_free(r->tls);
        r->tls = ctx;
    }
    free(why);
}

struct receive *receive_new(struct loop *l, struct lookup *k, struct spool *sp, struct config *cfg,
                            const struct receive_ops *ops) {
    struct receive *r = MEM_NEW(struct receive);
    r->loop = l;
    r->lookup = k;
    r->spool = sp;
    r->cfg = config_ref(cfg);
    r->ops = *ops;
    dl_init(&r->listeners);
    dl_init(&r->sessions);
    load_certificate(r);
    struct rlimit rl = {.rlim_cur = 1024};
    getrlimit(RLIMIT_NOFILE, &rl);
    uint64_t limit = rl.rlim_cur > INT_MAX ? INT_MAX : rl.rlim_cur;
    r->fd_max = (int)(limit - limit / 10 - 32);
    r->full_ms = -60000;
    auth_reload(r);
    return r;
}

void receive_reload(struct receive *r, struct config *cfg) {
    config_unref(r->cfg);
    r->cfg = config_ref(cfg);
    load_certificate(r);
    auth_reload(r);
}

void receive_stop(struct receive *r) {
    struct dl *n;
    r->stopping = true;
    while ((n = dl_pop(&r->listeners)) != NULL) {
        struct listener *ln = DL_OWNER(n, struct listener, link);
        acceptor_close(ln->acceptor);
        free(ln->svc_name);
        free(ln);
    }
    DL_EACH_SAFE (it, &r->sessions) {
        struct session *s = DL_OWNER(it, struct session, link);
        if (s->waiting || s->mode != MODE_COMMAND || s->in_mail)
            continue; /* lets a message that is on its way finish */
        conn_printf(s->conn, "421 4.3.2 %s Service shutting down\r\n", s->cfg->p.myhostname);
        session_close(s, NULL);
    }
}

size_t receive_sessions(const struct receive *r) {
    return r->n_sessions;
}
