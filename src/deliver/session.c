/*
 * deliver/session.c - a delivery session: connect, greet, EHLO, and the end of it
 *
 * Its loop's thread only, but for dsess_new, dsess_give and dsess_release.  A session is a round
 * through the addresses of its next hop: whatever goes wrong with one leads to the next, and the
 * last error stands for all.
 */
#include "deliver/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"

static size_t on_input(void *arg, const char *p, size_t n);
static void on_event(void *arg, enum conn_event ev);
static const struct conn_ops session_conn_ops = {.input = on_input, .event = on_event};

static enum mail_phase mail_phase_of(const struct dsess *s) {
    static const enum mail_phase phases[] = {
        [DSESS_COLD] = PHASE_DNS,          [DSESS_RESOLVE] = PHASE_DNS,
        [DSESS_POLICY] = PHASE_POLICY,     [DSESS_CONNECT] = PHASE_CONNECT,
        [DSESS_GREETING] = PHASE_GREETING, [DSESS_EHLO] = PHASE_EHLO,
        [DSESS_HELO] = PHASE_EHLO,         [DSESS_STARTTLS] = PHASE_STARTTLS,
        [DSESS_TLS] = PHASE_TLS,           [DSESS_CREDENTIALS] = PHASE_CREDENTIALS,
        [DSESS_AUTH] = PHASE_AUTH,         [DSESS_READY] = PHASE_MAIL,
        [DSESS_CLOSED] = PHASE_UNSET};
    return phases[s->phase];
}

static void note_text(struct dsess *s, enum mail_status status, enum mail_blame blame,
                      const char *dsn, const char *fmt, va_list ap) {
    struct sbuf text = {0};
    sbuf_vprintf(&text, fmt, ap);
    mailerr_set(&s->err, status, dsn, "%s", text.p);
    mailerr_blame(&s->err, mail_phase_of(s), blame);
    sbuf_free(&text);
}

void session_fail(struct dsess *s, enum mail_status status, const char *dsn, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    note_text(s, status, s->site_err ? BLAME_SITE : BLAME_MESSAGE, dsn, fmt, ap);
    va_end(ap);
}

void session_note(struct dsess *s, enum mail_status status, enum mail_blame blame, const char *dsn,
                  const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    note_text(s, status, blame, dsn, fmt, ap);
    va_end(ap);
}

bool session_say(struct dsess *s) {
    struct str line = sbuf_str(&s->line);
    bool clean = !str_has_control(line);
    if (clean) {
        conn_write(s->conn, line.p, line.n);
        conn_write_c(s->conn, "\r\n");
        s->out_total += line.n + 2;
    }
    sbuf_reset(&s->line);
    return clean;
}

#define PROBE_PATIENCE_S 30

void session_deadline(struct dsess *s, int64_t seconds) {
    if (s->probe != NULL && seconds > PROBE_PATIENCE_S)
        seconds = PROBE_PATIENCE_S;
    conn_deadline(s->conn, seconds * 1000);
}

/* The queue ID that a line about the connection is logged with. */
static const char *current_qid(const struct dsess *s) {
    if (!dl_empty(&s->txns))
        return DL_OWNER(s->txns.next, struct txn, link)->a->env->qid;
    if (!dl_empty(&s->todo))
        return DL_OWNER(s->todo.next, struct attempt, link)->env->qid;
    return NULL;
}

static void log_skip(const struct dsess *s) {
    const char *qid = current_qid(s);
    if (s->err.text == NULL || s->probe != NULL)
        return;
    if (s->err.phase == PHASE_CONNECT)
        log_as(s->svc->log_name, "smtp", "%s", s->err.text);
    else if (qid != NULL && session_more_hosts(s))
        log_as(s->svc->log_name, "smtp", "%s: %s", qid, s->err.text);
}

static void connection_reset(struct dsess *s) {
    auth_cancel(s);
    smtp_reply_reset(&s->reply);
    s->fifo_n = s->fifo_at = 0;
    s->caps = 0;
    s->size_limit = 0;
    s->tls_on = s->tls_verified = s->leaving = s->mute = false;
    s->out_total = 0;
    s->uses = 0;
    free(s->mechs);
    s->mechs = NULL;
    free(s->auth_sender);
    s->auth_sender = NULL;
    withhold_clear(&s->sent);
}

void session_disconnect(struct dsess *s, bool quit) {
    struct conn *c = s->conn;
    s->conn = NULL;
    s->phase = DSESS_COLD;
    connection_reset(s);
    if (c == NULL)
        return;
    if (!quit) {
        conn_close(c);
        return;
    }
    conn_write_c(c, "QUIT\r\n");
    conn_close_after_write(c);
}

bool session_more_hosts(const struct dsess *s) {
    struct str rest = s->hops_left, one;
    if (s->p->smtp_mx_session_limit > 0 && s->hops_left.n == 0 && s->uses > 0 &&
        s->sessions >= s->p->smtp_mx_session_limit)
        return false;
    return s->at + 1 < s->n_targets || (s->mx != NULL && s->mx_at < s->n_mx) ||
           nexthop_split(&rest, &one) ||
           (!s->fallback_added && s->p->smtp_fallback_relay[0] != '\0');
}

static void next_target(struct dsess *s) {
    s->at++;
    targets_next(s);
}

void session_host_failed(struct dsess *s) {
    bool quit = s->conn != NULL && s->phase > DSESS_GREETING && conn_error(s->conn) == 0;
    log_skip(s);
    probe_failed(s);
    s->plain_retry = false;
    session_disconnect(s, quit);
    next_target(s);
}

void targets_ready(struct dsess *s, bool any) {
    if (!any) {
        s->phase = DSESS_COLD;
        if (s->probe != NULL)
            probe_over(s);
        else
            transact_fail_all(s);
        targets_free(s);
        return;
    }
    const struct target *t = &s->targets[s->at];
    char ip[INET6_ADDRSTRLEN];
    netaddr_text(&t->addr, ip);
    snprintf(s->where, sizeof s->where, "%s[%s]", t->host, ip);
    snprintf(s->relay, sizeof s->relay, "%s:%u", s->where, netaddr_port(&t->addr));
    if (target_is_self(s, &t->addr)) {
        s->site_err = true;
        session_fail(s, t->own_mx ? MAIL_BOUNCED : MAIL_DEFERRED, t->own_mx ? "5.4.6" : "4.3.5",
                     "mail for %s loops back to myself", t->dest);
        probe_failed(s);
        targets_free(s); /* exchangers after ourselves must not be used */
        targets_ready(s, false);
        return;
    }
    probe_ok(s, "dns", "%s (for %s)", s->relay, t->dest);
    secure_policy(s);
}

static bool local_address(const struct dsess *s, const struct netaddr *to, struct netaddr *from) {
    bool v4 = to->u.sa.sa_family == AF_INET;
    const char *text = v4 ? s->p->smtp_bind_address : s->p->smtp_bind_address6;
    return text[0] != '\0' && netaddr_parse(from, str_of(text), 0);
}

bool session_uses_record(const struct dsess *s) {
    return s->rec.id != NULL && !s->targets[s->at].fallback;
}

static bool wrapped(const struct dsess *s) {
    return s->p->smtp_tls_wrappermode || netaddr_port(&s->targets[s->at].addr) == 465;
}

static void connect_failed(struct dsess *s, int err) {
    s->site_err = true;
    session_fail(s, MAIL_DEFERRED, "4.4.1", "connect to %s: %s", s->relay, strerror(-err));
    session_host_failed(s);
}

void session_connect(struct dsess *s) {
    const struct netaddr *to = &s->targets[s->at].addr;
    struct netaddr from;
    int err = 0;
    bool bound = local_address(s, to, &from);
    if (!probe_connects(s)) {
        auth_begin(s);
        return;
    }
    s->phase = DSESS_CONNECT;
    s->conn = conn_connect(s->d->loop, to, bound ? &from : NULL, &session_conn_ops, s, &err);
    if (s->conn == NULL) {
        connect_failed(s, err);
        return;
    }
    session_deadline(s, s->p->smtp_connect_timeout);
}

/* Takes the settings of the first waiting attempt; a session follows them from connect to QUIT. */
static void adopt(struct dsess *s, const struct attempt *a) {
    config_unref(s->cfg);
    s->cfg = config_ref(a->cfg);
    s->svc = a->transport;
    s->p = &a->transport->p;
    s->configured = a->configured;
    free(s->nexthop);
    s->nexthop = mem_strdup(a->nexthop);
    free(s->record);
    s->record = mem_strdup(a->record);
    record_free(&s->rec);
    if (a->record[0] != '\0')
        record_parse(&s->rec, str_of(a->record));
}

void session_return_recalled(struct dsess *s) {
    DL_EACH_SAFE (it, &s->todo) {
        struct attempt *a = DL_OWNER(it, struct attempt, link);
        if (!atomic_load(&a->recalled))
            continue;
        dl_remove(&a->link);
        a->outcome = ATTEMPT_RETURNED;
        s->d->ops->result(s->slot, a);
    }
}

void session_start(struct dsess *s) {
    session_return_recalled(s);
    if (s->phase != DSESS_COLD || dl_empty(&s->todo))
        return;
    adopt(s, DL_OWNER(s->todo.next, struct attempt, link));
    s->begin_us = clock_wall_us();
    s->site_err = s->plain_retry = false;
    targets_begin(s);
    targets_next(s);
}

const char *session_stage(const struct dsess *s) {
    switch (s->phase) {
    case DSESS_GREETING:
        return "receiving the initial server greeting";
    case DSESS_EHLO:
    case DSESS_HELO:
        return "performing the EHLO handshake";
    case DSESS_STARTTLS:
    case DSESS_TLS:
        return "performing the TLS handshake";
    case DSESS_AUTH:
    case DSESS_CREDENTIALS:
        return "performing the SASL handshake";
    default:
        return transact_doing(s);
    }
}

/* The mail stage says what is next. */
static void after_mail(struct dsess *s, enum step step) {
    if (step == STEP_WAIT)
        return;
    session_disconnect(s, !s->mute && conn_error(s->conn) == 0);
    if (dl_empty(&s->todo))
        return;
    if (step == STEP_NEXT_HOST)
        next_target(s);
    else
        session_start(s);
}

static void conn_lost(struct dsess *s, bool timeout) {
    struct sbuf b = {0};
    if (timeout)
        sbuf_printf(&b, "conversation with %s timed out while %s", s->where, session_stage(s));
    else
        sbuf_printf(&b, "lost connection with %s while %s", s->where, session_stage(s));
    if (s->phase == DSESS_READY && s->probe != NULL) {
        probe_lost(s, b.p);
    } else if (s->phase == DSESS_READY) {
        after_mail(s, transact_lost(s, b.p));
    } else {
        s->site_err = true;
        session_fail(s, MAIL_DEFERRED, "4.4.2", "%s", b.p);
        session_host_failed(s);
    }
    sbuf_free(&b);
}

static void tls_failed(struct dsess *s) {
    bool may = s->level == LEVEL_MAY && !wrapped(s);
    log_as(s->svc->log_name, "smtp", "SSL_connect error to %s: %s", s->relay,
           conn_tls_error(s->conn));
    s->site_err = true;
    session_fail(s, MAIL_DEFERRED, "4.7.5", "Cannot start TLS: handshake failure");
    if (may && !s->plain_retry && !s->p->smtp_sasl_auth_enable) {
        s->plain_retry = true; /* opportunistic: the same host again, in clear */
        probe_failed(s);
        session_disconnect(s, false);
        s->at--;
        next_target(s);
        return;
    }
    session_host_failed(s);
}

static void send_ehlo(struct dsess *s, bool helo) {
    s->phase = helo ? DSESS_HELO : DSESS_EHLO;
    conn_printf(s->conn, "%s %s\r\n", helo ? "HELO" : "EHLO", s->p->smtp_helo_name);
    session_deadline(s, s->p->smtp_helo_timeout);
}

static void tls_up(struct dsess *s) {
    bool wrap = wrapped(s);
    if (!secure_check(s)) {
        session_host_failed(s);
        return;
    }
    s->tls_on = true;
    if (wrap) {
        s->phase = DSESS_GREETING;
        session_deadline(s, s->p->smtp_helo_timeout);
    } else {
        send_ehlo(s, false); /* what was said in clear is forgotten */
    }
}

static void begin_tls(struct dsess *s) {
    SSL *ssl = secure_new(s);
    if (ssl == NULL) {
        session_host_failed(s);
        return;
    }
    s->phase = DSESS_TLS;
    session_deadline(s, s->p->smtp_starttls_timeout);
    conn_tls(s->conn, ssl, false);
}

static void connected(struct dsess *s) {
    s->sessions++;
    probe_ok(s, "connect", "%s", s->relay);
    s->phase = DSESS_GREETING;
    session_deadline(s, s->p->smtp_helo_timeout);
    if (!wrapped(s))
        return;
    if (s->level < LEVEL_ENCRYPT)
        s->level = LEVEL_ENCRYPT;
    begin_tls(s);
}

static void on_event(void *arg, enum conn_event ev) {
    struct dsess *s = arg;
    switch (ev) {
    case CONN_CONNECTED:
        connected(s);
        break;
    case CONN_TLS_UP:
        tls_up(s);
        break;
    case CONN_DRAINED:
        if (s->phase == DSESS_READY && s->probe == NULL)
            after_mail(s, transact_drained(s));
        break;
    case CONN_CLOSED:
        if (s->phase == DSESS_CONNECT)
            connect_failed(s, conn_error(s->conn));
        else if (s->phase == DSESS_TLS)
            tls_failed(s);
        else
            conn_lost(s, false);
        break;
    case CONN_TIMEOUT:
        if (s->phase == DSESS_CONNECT)
            connect_failed(s, -ETIMEDOUT);
        else if (s->phase == DSESS_READY && dl_empty(&s->txns) && s->probe == NULL)
            session_disconnect(s, true); /* unused for smtp_connection_cache_time_limit */
        else
            conn_lost(s, true);
        break;
    }
}

static const char *reply_text(struct dsess *s, struct sbuf *b) {
    smtp_reply_line(&s->reply, b);
    return b->p;
}

/* "host X said: …" with the reply's own code; 5xx at this stage says nothing about the mail. */
static void refused(struct dsess *s, const char *fmt_said) {
    struct sbuf b = {0};
    char dsn[12];
    s->site_err = true;
    dsn_from_reply(dsn, 400 + s->reply.code % 100, STR_LIT(""));
    if (s->reply.code / 100 == 4)
        dsn_from_reply(dsn, s->reply.code, sbuf_str(&s->reply.text));
    session_fail(s, MAIL_DEFERRED, dsn, "host %s %s %s", s->where, fmt_said, reply_text(s, &b));
    mailerr_remote(&s->err, s->targets[s->at].host, sbuf_str(&b));
    sbuf_free(&b);
    session_host_failed(s);
}

static void greeting_reply(struct dsess *s) {
    if (s->reply.code / 100 != 2) {
        refused(s, "refused to talk to me:");
        return;
    }
    struct sbuf said = {0};
    if (s->probe != NULL)
        probe_ok(s, "greeting", "%s", reply_text(s, &said));
    sbuf_free(&said);
    send_ehlo(s, s->p->smtp_never_send_ehlo);
}

static const struct {
    const char *word;
    unsigned cap;
} keywords[] = {{"PIPELINING", CAP_PIPELINING}, {"SIZE", CAP_SIZE}, {"8BITMIME", CAP_8BITMIME},
                {"SMTPUTF8", CAP_SMTPUTF8},     {"DSN", CAP_DSN},   {"CHUNKING", CAP_CHUNKING},
                {"STARTTLS", CAP_STARTTLS},     {"AUTH", CAP_AUTH}};

static bool discarded(const struct dsess *s, const char *word) {
    struct str rest = str_of(s->p->smtp_discard_ehlo_keywords), w;
    while (str_split(&rest, ", \t", &w))
        if (str_ieq_c(w, word))
            return true;
    return false;
}

static void add_mechs(struct dsess *s, struct str list) {
    struct sbuf b = {0};
    if (s->mechs != NULL)
        sbuf_printf(&b, "%s ", s->mechs);
    sbuf_add_str(&b, str_trim(list));
    free(s->mechs);
    s->mechs = sbuf_take(&b);
}

static void ehlo_keyword(struct dsess *s, struct str line) {
    size_t n = 0;
    while (n < line.n && line.p[n] != ' ' && line.p[n] != '=')
        n++;
    struct str word = str_make(line.p, n), rest = str_trim(str_from(line, n + 1));
    for (size_t i = 0; i < sizeof keywords / sizeof keywords[0]; i++) {
        if (!str_ieq_c(word, keywords[i].word) || discarded(s, keywords[i].word))
            continue;
        s->caps |= keywords[i].cap;
        if (keywords[i].cap == CAP_SIZE)
            str_u64(rest, &s->size_limit);
        if (keywords[i].cap == CAP_AUTH)
            add_mechs(s, rest);
    }
}

static void parse_caps(struct dsess *s) {
    struct str rest = sbuf_str(&s->reply.text), line;
    bool first = true;
    s->caps = 0;
    free(s->mechs);
    s->mechs = NULL;
    while (str_split(&rest, "\n", &line)) {
        if (!first)
            ehlo_keyword(s, line);
        first = false;
    }
}

/* A server that greets us by our own name on port 25 is ourselves. */
static bool own_name(struct dsess *s) {
    struct str rest = sbuf_str(&s->reply.text), word;
    const struct target *t = &s->targets[s->at];
    if (netaddr_port(&t->addr) != 25 || !str_split(&rest, " \n", &word) ||
        !str_ieq_c(word, s->cfg->p.myhostname))
        return false;
    log_warn("smtp", "host %s replied to HELO/EHLO with my own hostname %s", s->relay,
             s->cfg->p.myhostname);
    s->site_err = true;
    session_fail(s, t->own_mx ? MAIL_BOUNCED : MAIL_DEFERRED, t->own_mx ? "5.4.6" : "4.3.5",
                 "mail for %s loops back to myself", t->dest);
    return true;
}

static void after_ehlo(struct dsess *s) {
    bool offered = (s->caps & CAP_STARTTLS) != 0;
    if (!s->tls_on && offered && s->level == LEVEL_NONE && s->p->smtp_tls_note_starttls_offer)
        log_as(s->svc->log_name, "smtp", "Host offered STARTTLS: [%s]", s->targets[s->at].host);
    if (!s->tls_on && offered && s->level >= LEVEL_MAY && !s->plain_retry) {
        s->phase = DSESS_STARTTLS;
        conn_write_c(s->conn, "STARTTLS\r\n");
        session_deadline(s, s->p->smtp_starttls_timeout);
        return;
    }
    if (!s->tls_on && s->level >= LEVEL_ENCRYPT) {
        s->site_err = true;
        session_fail(s, MAIL_DEFERRED, "4.7.4", "TLS is required, but was not offered by host %s",
                     s->where);
        session_host_failed(s);
        return;
    }
    auth_begin(s);
}

/* The extensions, as the remote lists them. */
static void probe_ehlo(struct dsess *s) {
    struct sbuf b = {0};
    struct str rest = sbuf_str(&s->reply.text), line;
    while (s->probe != NULL && str_split(&rest, "\n", &line))
        sbuf_printf(&b, "%s%.*s", b.n > 0 ? ", " : "", STR_FMT(line));
    probe_ok(s, "ehlo", "%s", b.p == NULL ? "" : b.p);
    sbuf_free(&b);
}

static void ehlo_reply(struct dsess *s) {
    if (s->reply.code / 100 == 2) {
        parse_caps(s);
        probe_ehlo(s);
        if (own_name(s))
            session_host_failed(s);
        else
            after_ehlo(s);
    } else if (s->phase == DSESS_EHLO && s->reply.code / 100 == 5 && !s->tls_on) {
        send_ehlo(s, true);
    } else {
        refused(s, "refused to talk to me:");
    }
}

static void starttls_reply(struct dsess *s) {
    if (s->reply.code / 100 == 2) {
        begin_tls(s);
    } else if (s->level >= LEVEL_ENCRYPT) {
        struct sbuf b = {0};
        s->site_err = true;
        session_fail(s, MAIL_DEFERRED, "4.7.4",
                     "TLS is required, but host %s refused to start TLS: %s", s->where,
                     reply_text(s, &b));
        sbuf_free(&b);
        session_host_failed(s);
    } else {
        auth_begin(s);
    }
}

void session_ready(struct dsess *s) {
    s->phase = DSESS_READY;
    s->ready_ms = s->d->loop->now_ms;
    s->conn_us = clock_wall_us();
    session_deadline(s, s->p->smtp_connection_cache_time_limit);
    if (s->probe != NULL)
        probe_ready(s);
    else
        after_mail(s, transact_pump(s));
}

/* What a peer says after AUTH began may repeat the login: then its text is not kept, but for the
 * enhanced status code.  A challenge is input of the mechanism and is shown nowhere. */
static void withhold_login(struct dsess *s) {
    char dsn[12];
    bool challenge = s->phase == DSESS_AUTH && s->reply.code / 100 == 3;
    if (challenge || !withhold_matches(&s->sent, sbuf_str(&s->reply.text)))
        return;
    dsn_from_reply(dsn, s->reply.code, sbuf_str(&s->reply.text));
    sbuf_wipe(&s->reply.text);
    sbuf_printf(&s->reply.text, "%s (text withheld: it repeats what was sent at login)", dsn);
}

static void reply_done(struct dsess *s) {
    withhold_login(s);
    if (s->reply.code == 421 && s->phase != DSESS_READY && s->phase != DSESS_GREETING) {
        refused(s, "said:");
        return;
    }
    switch (s->phase) {
    case DSESS_GREETING:
        greeting_reply(s);
        break;
    case DSESS_EHLO:
    case DSESS_HELO:
        ehlo_reply(s);
        break;
    case DSESS_STARTTLS:
        starttls_reply(s);
        break;
    case DSESS_AUTH:
        auth_reply(s);
        break;
    case DSESS_READY:
        if (s->probe != NULL)
            probe_reply(s);
        else
            after_mail(s, transact_reply(s));
        break;
    default: /* unasked for */
        break;
    }
}

static size_t on_input(void *arg, const char *p, size_t n) {
    struct dsess *s = arg;
    size_t used;
    enum reply_rc rc = smtp_reply_feed(&s->reply, str_make(p, n), &used);
    if (rc == REPLY_MORE)
        return used;
    if (rc == REPLY_BAD) {
        s->site_err = true;
        session_fail(s, MAIL_DEFERRED, "4.5.0",
                     "host %s sent a malformed or endless reply while %s", s->where,
                     session_stage(s));
        if (s->phase == DSESS_READY && s->probe != NULL)
            probe_lost(s, s->err.text);
        else if (s->phase == DSESS_READY)
            after_mail(s, transact_malformed(s));
        else
            session_host_failed(s);
        return n;
    }
    struct conn *c = s->conn;
    reply_done(s);
    if (s->conn == c)
        smtp_reply_reset(&s->reply);
    return used == 0 ? n : used;
}

struct dsess *dsess_new(struct deliver *d, void *slot) {
    struct dsess *s = MEM_NEW(struct dsess);
    s->d = d;
    s->slot = slot;
    dl_init(&s->todo);
    dl_init(&s->txns);
    return s;
}

static void run_give(struct task *t) {
    struct attempt *a = DL_OWNER(t, struct attempt, task);
    struct dsess *s = (struct dsess *)(void *)a->task_session;
    dl_push(&s->todo, &a->link);
    if (s->phase == DSESS_READY)
        after_mail(s, transact_pump(s));
    else
        session_start(s);
}

void dsess_give(struct dsess *s, struct attempt *a) {
    a->task.run = run_give;
    a->task_session = s;
    loop_post(s->d->loop, &a->task);
}

/* Nothing is left to connect for, or the session ends. */
static void session_give_up(struct dsess *s) {
    resolver_cancel(s->query);
    s->query = NULL;
    lookup_cancel(s->d->lookup, s->tag);
    s->tag = 0;
    session_disconnect(s, s->phase == DSESS_READY);
    targets_free(s);
}

struct recall_task {
    struct task task;
    struct dsess *s;
};

static void run_recall(struct task *t) {
    struct recall_task *r = DL_OWNER(t, struct recall_task, task);
    struct dsess *s = r->s;
    bool had = !dl_empty(&s->todo);
    free(r);
    session_return_recalled(s);
    if (had && dl_empty(&s->todo) && dl_empty(&s->txns) && s->phase != DSESS_READY)
        session_give_up(s);
}

void dsess_recall(struct dsess *s) {
    struct recall_task *r = MEM_NEW(struct recall_task);
    r->s = s;
    r->task.run = run_recall;
    loop_post(s->d->loop, &r->task);
}

static void session_free(struct dsess *s) {
    session_give_up(s);
    smtp_reply_free(&s->reply);
    mailerr_free(&s->err);
    config_unref(s->cfg);
    record_free(&s->rec);
    free(s->record);
    free(s->nexthop);
    free(s->match);
    free(s->fifo);
    sbuf_free(&s->line);
    free(s);
}

static void run_release(struct task *t) {
    session_free(DL_OWNER(t, struct dsess, release));
}

void dsess_release(struct dsess *s) {
    s->release.run = run_release;
    loop_post(s->d->loop, &s->release);
}

struct deliver *deliver_new(struct loop *l, struct lookup *k, const struct config *cfg,
                            const struct deliver_ops *ops) {
    struct deliver *d = MEM_NEW(struct deliver);
    d->loop = l;
    d->lookup = k;
    d->ops = ops;
    d->cfg = config_ref((struct config *)(uintptr_t)cfg);
    d->resolver = resolver_new(l, cfg);
    return d;
}

void deliver_reload(struct deliver *d, const struct config *cfg) {
    for (size_t i = 0; i < TLS_CONTEXTS; i++) {
        SSL_CTX_free(d->tls[i].ctx);
        d->tls[i] = (struct tls_slot){0};
    }
    config_unref(d->cfg);
    d->cfg = config_ref((struct config *)(uintptr_t)cfg);
}

struct config *deliver_config(struct deliver *d) {
    return d->cfg;
}

struct resolver *deliver_resolver(struct deliver *d) {
    return d->resolver;
}
