/*
 * deliver/session.c - the driver of a delivery session: stages, hosts, the connection
 *
 * Its loop's thread only, but for dsess_new, dsess_give, dsess_recall and dsess_release.  A session
 * is a round through the hosts of its next hop: whatever goes wrong with one leads to the next, and
 * when none is left, the error that says most stands for all.
 *
 * drive takes one step after the other until one waits.  It is entered from the loop only (a
 * connection's event or input, an answer, a task) and never from inside itself.  turn and what it
 * calls are the only functions that change the stage, the host and the connection.
 *
 * What may free what.  Attempts given to a session are its own until they go to deliver_ops.result.
 * The session is freed by dsess_release's task, from the loop, never inside drive.  After
 * connection_close no event of that connection comes; after resolver_cancel and auth_cancel, which
 * it calls too, no answer.
 */
#include "deliver/session.h"
#include "deliver/txn.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "route/own.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"

/* Seconds that a connection has where smtp_connect_timeout or lmtp_connect_timeout is 0, which
 * leaves the time to the kernel: the kernel's own time is shorter. */
#define CONNECT_MOST_S 300

static size_t session_on_input(void *arg, const char *p, size_t n);
static void session_on_event(void *arg, enum conn_event ev);
static const struct conn_ops session_conn_ops = {.input = session_on_input,
                                                 .event = session_on_event};

static enum step connect_begin(struct dsess *s);
static enum step connect_lost(struct dsess *s, bool timeout);

/* The order of a session.  The last stage is dsess.mail: transactions, or a probe's dialogue. */
static const struct stage stages[] = {
    {.name = "connect"}, /* nothing to do */
    {.name = "dns", .phase = PHASE_DNS, .begin = dns_begin},
    {.name = "tls policy", .phase = PHASE_POLICY, .begin = policy_begin},
    {.name = "connect",
     .phase = PHASE_CONNECT,
     .connects = true,
     .begin = connect_begin,
     .lost = connect_lost},
    {.name = "tls",
     .phase = PHASE_TLS,
     .connects = true,
     .doing = "performing the TLS handshake",
     .begin = tls_wrapped_begin,
     .lost = tls_lost},
    {.name = "greeting",
     .phase = PHASE_GREETING,
     .connects = true,
     .doing = "receiving the initial server greeting",
     .begin = greeting_begin,
     .reply = greeting_reply},
    {.name = "ehlo",
     .phase = PHASE_EHLO,
     .connects = true,
     .doing = "performing the EHLO handshake",
     .begin = ehlo_begin,
     .reply = ehlo_reply},
    {.name = "tls",
     .phase = PHASE_STARTTLS,
     .connects = true,
     .doing = "performing the TLS handshake",
     .begin = starttls_begin,
     .reply = starttls_reply},
    {.name = "tls",
     .phase = PHASE_TLS,
     .connects = true,
     .doing = "performing the TLS handshake",
     .begin = tls_begin,
     .lost = tls_lost},
    {.name = "ehlo",
     .phase = PHASE_EHLO,
     .connects = true,
     .doing = "performing the EHLO handshake",
     .begin = ehlo_secure_begin,
     .reply = ehlo_reply},
    {.name = "credentials",
     .phase = PHASE_CREDENTIALS,
     .doing = "performing the SASL handshake",
     .begin = credentials_begin},
    {.name = "auth",
     .phase = PHASE_AUTH,
     .connects = true,
     .doing = "performing the SASL handshake",
     .begin = auth_begin,
     .reply = auth_reply},
};
#define STAGE_COLD 0U
#define STAGE_DNS  1U
#define STAGE_MAIL (sizeof stages / sizeof stages[0])

static const struct stage *stage_of(const struct dsess *s, size_t i) {
    return i == STAGE_MAIL ? s->mail : &stages[i];
}

static const char *doing(const struct dsess *s) {
    const struct stage *stage = stage_of(s, s->stage);
    return stage->doing != NULL ? stage->doing : stage->tells_doing(s);
}

/* -- the connection -- */

static enum mail_cause connect_cause(int err) {
    switch (err) {
    case ECONNREFUSED:
        return CAUSE_REFUSED;
    case EHOSTUNREACH:
    case ENETUNREACH:
        return CAUSE_UNREACHABLE;
    case ETIMEDOUT:
        return CAUSE_TIMEOUT;
    default:
        return CAUSE_UNCONNECTED;
    }
}

/* What this system lacks says nothing about the host. */
static bool is_lack_of_ours(int err) {
    return err == EMFILE || err == ENFILE || err == ENOMEM || err == ENOBUFS ||
           err == EADDRNOTAVAIL;
}

/* err: a positive errno. */
static enum step connect_failed(struct dsess *s, int err) {
    enum mail_blame blame = is_lack_of_ours(err) ? BLAME_OURSELVES : BLAME_SITE;
    return host_failed(s, blame, connect_cause(err), "4.4.1", "connect to %s: %s", s->relay,
                       strerror(err));
}

/* Connects from there; NULL: from the only address that we listen on, as Postfix does: hosts know
 * us by it.  On failure s->conn is NULL; *err is as of conn_connect. */
static void connect_from(struct dsess *s, const struct netaddr *from, int *err) {
    const struct netaddr *to = &session_target(s)->addr;
    struct netaddr only;
    bool implied =
        from == NULL && !netaddr_is_unix(to) && own_only_address(s->p, to->u.sa.sa_family, &only);
    s->conn = conn_connect(s->d->loop, to, implied ? &only : from, &session_conn_ops, s, err);
    if (s->conn != NULL || !implied || *err != -EADDRNOTAVAIL)
        return;
    char text[INET6_ADDRSTRLEN]; /* as Postfix */
    if (s->watch == NULL)
        log_warn("smtp", "bind %s: %s", netaddr_text(&only, text), strerror(-*err));
    s->conn = conn_connect(s->d->loop, to, NULL, &session_conn_ops, s, err);
}

static enum step connect_begin(struct dsess *s) {
    int family = session_target(s)->addr.u.sa.sa_family;
    struct netaddr from;
    int err = 0;
    const char *text = family == AF_INET    ? s->p->smtp_bind_address
                       : family == AF_INET6 ? s->p->smtp_bind_address6
                                            : "";
    bool bound = text[0] != '\0';
    if (bound && (!netaddr_parse(&from, str_of(text), 0) ||
                  from.u.sa.sa_family != family)) /* never from another address */
        return host_failed(s, BLAME_OURSELVES, CAUSE_SETTING, "4.3.5",
                           "bad value of smtp_bind_address: %s", text);
    connect_from(s, bound ? &from : NULL, &err);
    if (s->conn == NULL)
        return connect_failed(s, -err);
    session_deadline(s,
                     s->p->smtp_connect_timeout > 0 ? s->p->smtp_connect_timeout : CONNECT_MOST_S);
    return STEP_WAIT;
}

static enum step connect_lost(struct dsess *s, bool timeout) {
    return connect_failed(s, timeout ? ETIMEDOUT : -conn_error(s->conn));
}

/* Closes the connection, politely if it can still be written to. */
static void connection_close(struct dsess *s) {
    struct conn *c = s->conn;
    bool quit = c != NULL && !s->mute && s->phase > PHASE_GREETING && s->phase != PHASE_TLS &&
                conn_error(c) == 0;
    resolver_cancel(s->query);
    s->query = NULL;
    filter_cancel(s);
    auth_cancel(s);
    if (quit) {
        sbuf_reset(&s->line);
        sbuf_add_c(&s->line, "QUIT");
        session_say(s);
        conn_close_after_write(c);
    } else if (c != NULL) {
        conn_close(c);
    }
    s->conn = NULL;
}

/* Nothing is known of the next connection. */
static void connection_forget(struct dsess *s) {
    smtp_reply_reset(&s->reply);
    s->reply_begun = false;
    sbuf_reset(&s->line);
    withhold_clear(&s->sent);
    free(s->mechs);
    s->mechs = NULL;
    free(s->auth_sender);
    s->auth_sender = NULL;
    s->fifo_n = s->fifo_at = 0;
    s->caps = 0;
    s->size_limit = 0;
    s->uses = 0;
    s->names = false;
    s->out_total = 0;
    s->tls_on = s->tls_verified = s->tls_agreed = false;
    s->leaving = s->parting = s->mute = s->helo = false;
}

/* -- the driver -- */

/* The queue ID that a line about the connection is logged with. */
static const char *current_qid(const struct dsess *s) {
    if (!dl_empty(&s->txns))
        return DL_OWNER(s->txns.next, struct txn, link)->a->env->qid;
    if (!dl_empty(&s->todo))
        return DL_OWNER(s->todo.next, struct attempt, link)->env->qid;
    return NULL;
}

static void log_host_failed(const struct dsess *s) {
    const char *qid = current_qid(s);
    if (s->now.status == MAIL_UNSET || s->watch != NULL)
        return;
    if (s->now.phase == PHASE_CONNECT)
        log_as(s->svc->log_name, session_program(s), "%s", s->now.text);
    else if (qid != NULL && session_more_hosts(s))
        log_as(s->svc->log_name, session_program(s), "%s: %s", qid, s->now.text);
}

/* A road that is only explained goes from what does not connect to the next host. */
static enum step enter_stage(struct dsess *s, size_t stage) {
    const struct stage *to = stage_of(s, stage);
    if (s->d->tells)
        log_as(s->svc->log_name, session_program(s), "session %p: %s -> %s", (void *)s,
               stage_of(s, s->stage)->name, to->name);
    s->stage = stage;
    s->phase = to->phase;
    s->stage_name = to->name;
    if (to->begin == NULL)
        return STEP_WAIT;
    if (!to->connects || watch_connects(s))
        return to->begin(s);
    s->watch->reached = s->watch->reached || s->stage == STAGE_MAIL;
    return s->stage < STAGE_MAIL ? STEP_DONE : STEP_NEXT_HOST;
}

/* Takes the settings of the first waiting attempt; a session follows them from connect to QUIT. */
static void adopt(struct dsess *s, const struct attempt *a) {
    config_unref(s->cfg);
    s->cfg = config_ref(a->cfg);
    s->svc = a->transport;
    s->p = &a->transport->p;
    s->configured = a->configured;
    s->tls_optional = a->tls_optional;
    s->filter = a->filter;
    free(s->nexthop);
    s->nexthop = mem_strdup(a->nexthop);
    free(s->record);
    s->record = mem_strdup(a->record);
    record_free(&s->rec);
    if (a->record[0] != '\0')
        record_parse(&s->rec, str_of(a->record));
}

/* What waits begins with the first host, or there is nothing to do. */
static enum step round_begin(struct dsess *s) {
    txn_return_recalled(s);
    if (dl_empty(&s->todo))
        return enter_stage(s, STAGE_COLD);
    adopt(s, DL_OWNER(s->todo.next, struct attempt, link));
    s->begin_us = clock_wall_us();
    s->plain_retry = false;
    targets_begin(s);
    return enter_stage(s, STAGE_DNS);
}

/* No host is left. */
static enum step round_over(struct dsess *s) {
    enum step step = enter_stage(s, STAGE_COLD);
    s->mail->over(s);
    targets_free(s);
    return dl_empty(&s->todo) ? step : STEP_RECONNECT;
}

/* The connection is over; so was the host, unless it is to be tried again. */
static enum step next_host(struct dsess *s, bool same) {
    txn_return_recalled(s);
    if (dl_empty(&s->todo))
        return enter_stage(s, STAGE_COLD);
    s->plain_retry = same && s->plain_retry;
    s->at += same ? 0 : 1;
    return enter_stage(s, STAGE_DNS);
}

/* Does what a stage asks for; returns what became of the stage that was entered. */
static enum step turn(struct dsess *s, enum step step) {
    assert(step != STEP_UNSET && step != STEP_WAIT);
    if (step == STEP_DONE)
        return enter_stage(s, s->stage + 1);
    if (step == STEP_AGAIN)
        return enter_stage(s, s->stage);
    s->moved = s->moved || (step == STEP_NEXT_HOST && s->stage == STAGE_MAIL);
    if (step == STEP_HOST_FAILED)
        log_host_failed(s);
    session_take_error(s);
    connection_close(s);
    connection_forget(s);
    if (step == STEP_ROUND_OVER)
        return round_over(s);
    if (step == STEP_RECONNECT)
        return round_begin(s);
    return next_host(s, step == STEP_SAME_HOST);
}

static void drive(struct dsess *s, enum step step) {
    assert(!s->driving);
    s->driving = true;
    while (step != STEP_WAIT)
        step = turn(s, step);
    s->driving = false;
}

void session_begin(struct dsess *s) {
    if (s->stage == STAGE_COLD)
        drive(s, STEP_RECONNECT);
    else if (s->stage == STAGE_MAIL && s->mail->more != NULL)
        drive(s, s->mail->more(s));
}

/* -- what the connection tells -- */

/* CONN_CLOSED or CONN_TIMEOUT. */
static enum step connection_lost(struct dsess *s, bool timeout) {
    const struct stage *stage = stage_of(s, s->stage);
    s->mute = s->stage != STAGE_MAIL;
    if (stage->lost != NULL)
        return stage->lost(s, timeout);
    if (timeout)
        return host_failed(s, BLAME_SITE,
                           s->phase == PHASE_GREETING ? CAUSE_NO_GREETING : CAUSE_TIMEOUT, "4.4.2",
                           "conversation with %s timed out while %s", s->where, doing(s));
    return host_failed(s, BLAME_SITE, CAUSE_LOST, "4.4.2", "lost connection with %s while %s",
                       s->where, doing(s));
}

/* The connection is over.  A receipt that a filter is being asked about has come before that, and
 * counts as the host has said it.  False: with it the session has left the connection. */
static bool take_receipt(struct dsess *s);

static enum step connected(struct dsess *s) {
    s->sessions++;
    watch_ok(s, "connect", "%s", s->relay);
    return STEP_DONE;
}

static void session_on_event(void *arg, enum conn_event ev) {
    struct dsess *s = arg;
    enum step step = STEP_WAIT;
    if ((ev == CONN_CLOSED || ev == CONN_TIMEOUT) && !take_receipt(s))
        return;
    if (ev == CONN_CONNECTED)
        step = connected(s);
    else if (ev == CONN_TLS_UP)
        step = tls_up(s);
    else if (ev == CONN_DRAINED && s->stage == STAGE_MAIL && s->mail->drained != NULL)
        step = s->mail->drained(s);
    else if (ev == CONN_CLOSED || ev == CONN_TIMEOUT)
        step = connection_lost(s, ev == CONN_TIMEOUT);
    drive(s, step);
}

/* What a peer says after AUTH began may repeat the login: then its text is not kept, but for the
 * enhanced status code.  A challenge that was waited for is input of the mechanism and is shown
 * nowhere. */
static void withhold_login(struct dsess *s) {
    char dsn[12], text[80];
    bool asked = !session_reply_is_early(s) && s->sasl_work == NULL;
    bool challenge = s->phase == PHASE_AUTH && s->reply.code == 334 && asked;
    if (challenge || !withhold_matches(&s->sent, sbuf_str(&s->reply.text)))
        return;
    dsn_from_reply(dsn, s->reply.code, smtp_reply_last(&s->reply));
    snprintf(text, sizeof text, "%s (text withheld: it repeats what was sent at login)", dsn);
    smtp_reply_withhold(&s->reply, text);
}

/* A whole reply has come.  No reply is owed while the question has not left. */
static enum step take_reply(struct dsess *s) {
    const struct stage *stage = stage_of(s, s->stage);
    withhold_login(s);
    if (s->stage == STAGE_MAIL)
        return stage->reply(s);
    if (s->reply.code == 421 && s->phase != PHASE_GREETING)
        return host_refused(s, s->phase == PHASE_EHLO ? "refused to talk to me:" : "said:");
    if (stage->reply == NULL || session_reply_is_early(s))
        return host_out_of_step(s);
    return stage->reply(s);
}

static enum step take_malformed(struct dsess *s) {
    s->mute = true;
    host_failed(s, BLAME_SITE, CAUSE_PROTOCOL, "4.5.0",
                "host %s sent a malformed or endless reply while %s", s->where, doing(s));
    return s->stage == STAGE_MAIL ? s->mail->malformed(s) : STEP_HOST_FAILED;
}

/* A reply has been read, or more of it has to come. */
static void reply_read(struct dsess *s, enum reply_rc rc) {
    if (rc == REPLY_MORE)
        return;
    enum step step = rc == REPLY_BAD ? take_malformed(s) : take_reply(s);
    smtp_reply_reset(&s->reply);
    /* The next one may be here already, before anything more is written. */
    s->reply_begun = s->input_more;
    s->reply_gone = s->input_gone;
    drive(s, step);
}

/* A host that has taken the content is not given it again for a table that cannot be asked. */
static bool is_receipt(const struct dsess *s) {
    struct str line = sbuf_str(&s->filter_line);
    return s->stage == STAGE_MAIL && transact_content_due(s) && line.n > 0 && line.p[0] == '2';
}

static bool take_receipt(struct dsess *s) {
    const struct conn *conn = s->conn;
    size_t used;
    if (s->filter_tag == 0 || !is_receipt(s))
        return true;
    filter_cancel(s);
    sbuf_add_ch(&s->filter_line, '\n');
    reply_read(s, smtp_reply_feed(&s->reply, sbuf_str(&s->filter_line), &used));
    return s->conn == conn;
}

/* A line of a reply has come through the filter, or cannot: then the connection is over. */
static void reply_filtered(struct dsess *s, bool known) {
    size_t used;
    if (known || is_receipt(s)) {
        reply_read(s, smtp_reply_feed(&s->reply, sbuf_str(&s->filter_line), &used));
        return;
    }
    s->mute = true;
    host_failed(s, BLAME_OURSELVES, CAUSE_LOOKUP, "4.3.0", "local data error while talking to %s",
                s->where);
    drive(s, s->stage == STAGE_MAIL ? s->mail->malformed(s) : STEP_HOST_FAILED);
}

/* At most one reply a call, or one line that goes through a filter: what follows it is offered
 * again. */
static size_t session_on_input(void *arg, const char *p, size_t n) {
    struct dsess *s = arg;
    size_t used;
    s->input_gone = s->out_total - conn_pending(s->conn);
    if (!s->reply_begun)
        s->reply_gone = s->input_gone;
    s->reply_begun = true;
    if (filter_has_replies(s)) {
        used = filter_reply(s, str_make(p, n));
        s->input_more = used < n;
        return used;
    }
    enum reply_rc rc = smtp_reply_feed(&s->reply, str_make(p, n), &used);
    s->input_more = used < n;
    reply_read(s, rc);
    return rc == REPLY_BAD ? n : used;
}

/* -- life -- */

struct dsess *session_new(struct deliver *d, void *slot, const struct stage *mail) {
    struct dsess *s = MEM_NEW(struct dsess);
    s->d = d;
    s->slot = slot;
    s->mail = mail;
    s->resume = drive;
    s->filtered = reply_filtered;
    s->stage_name = stages[STAGE_COLD].name;
    dl_init(&s->todo);
    dl_init(&s->txns);
    return s;
}

struct dsess *dsess_new(struct deliver *d, void *slot) {
    return session_new(d, slot, &transact_stage);
}

static void run_give(struct task *t) {
    struct attempt *a = DL_OWNER(t, struct attempt, task);
    struct dsess *s = (struct dsess *)(void *)a->task_session;
    dl_push(&s->todo, &a->link);
    session_begin(s);
}

void dsess_give(struct dsess *s, struct attempt *a) {
    a->task.run = run_give;
    a->task_session = s;
    loop_post(s->d->loop, &a->task);
}

struct recall_task {
    struct task task;
    struct dsess *s;
};

/* With nothing left to connect for, the session connects no further.  What was held may begin. */
static void run_recall(struct task *t) {
    struct recall_task *r = DL_OWNER(t, struct recall_task, task);
    struct dsess *s = r->s;
    bool had = !dl_empty(&s->todo);
    free(r);
    txn_return_recalled(s);
    if (had && dl_empty(&s->todo) && s->stage != STAGE_MAIL && s->stage != STAGE_COLD)
        drive(s, STEP_RECONNECT);
    else if (s->stage == STAGE_MAIL)
        session_begin(s);
}

void dsess_recall(struct dsess *s) {
    struct recall_task *r = MEM_NEW(struct recall_task);
    r->s = s;
    r->task.run = run_recall;
    loop_post(s->d->loop, &r->task);
}

static void session_free(struct dsess *s) {
    assert(!s->driving);
    connection_close(s);
    connection_forget(s);
    targets_free(s);
    smtp_reply_free(&s->reply);
    sbuf_free(&s->line);
    sbuf_free(&s->filter_line);
    mailerr_free(&s->now);
    mailerr_free(&s->err);
    config_unref(s->cfg);
    record_free(&s->rec);
    free(s->record);
    free(s->nexthop);
    tls_policy_clear(&s->policy);
    free(s->fifo);
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
    d->chosen = resolver_new(l, cfg);
    d->resolver = resolver_new(l, cfg);
    d->tells = getenv("POSTHOUSE_STAGES") != NULL;
    dl_init(&d->results);
    return d;
}

void deliver_reload(struct deliver *d, const struct config *cfg) {
    secure_clear(d);
    resolver_reload(d->chosen, cfg);
    resolver_reload(d->resolver, cfg);
    config_unref(d->cfg);
    d->cfg = config_ref((struct config *)(uintptr_t)cfg);
}

struct config *deliver_config(struct deliver *d) {
    return d->cfg;
}
