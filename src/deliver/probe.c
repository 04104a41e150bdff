/*
 * deliver/probe.c - looking at a road; see probe.h
 *
 * The loop's thread only.  A probe is a session that says MAIL, RCPT and RSET in its last stage
 * instead of carrying mail.  It has one attempt, of an envelope that exists nowhere else, and owns
 * it; it frees itself and its session when the round is over, after done has been called.
 */
#include "deliver/probe.h"

#include <stdio.h>
#include <stdlib.h>

#include "deliver/session.h"
#include "deliver/verdict.h"
#include "mail/address.h"
#include "util/clock.h"
#include "util/mem.h"

struct probe {
    struct watch watch; /* of the session: watch is the first member */
    struct probe_ask ask;
    char *sender, *rcpt;
    enum txn_command at; /* the command that waits for its reply */
    bool passed;         /* the dialogue went through */
    bool refused;        /* it did not, and no other host may be asked */
};

static struct probe *probe_of(const struct dsess *s) {
    return (struct probe *)(void *)s->watch;
}

static const char *probe_stage_name(enum txn_command command) {
    return command == TXN_MAIL ? "mail" : command == TXN_RCPT ? "rcpt" : "rset";
}

/* -- the dialogue -- */

static enum step probe_say_rset(struct dsess *s) {
    probe_of(s)->at = TXN_RSET;
    sbuf_add_c(&s->line, "RSET");
    session_say(s);
    session_deadline(s, s->p->smtp_rset_timeout);
    return STEP_WAIT;
}

/* The host did not take the command; what it puts off is given to the next one, as mail is, and
 * waits if that has not taken it either: the driver notes it. */
static enum step probe_refused(struct dsess *s, enum txn_command at) {
    s->stage_name = probe_stage_name(at);
    if (s->now.status == MAIL_DEFERRED && session_more_hosts(s))
        return STEP_NEXT_HOST;
    watch_failed(s, s->stage_name, &s->now);
    mailerr_free(&s->now);
    probe_of(s)->refused = true;
    return probe_say_rset(s);
}

static enum step probe_say_path(struct dsess *s, enum txn_command command, const char *verb,
                                const char *addr, const char *param, int64_t timeout) {
    probe_of(s)->at = command;
    sbuf_printf(&s->line, "%s:<", verb);
    addr_external(&s->line, str_of(addr));
    sbuf_printf(&s->line, ">%s", param);
    if (!session_say(s)) {
        session_note(s, MAIL_BOUNCED, BLAME_MESSAGE, CAUSE_ADDRESS, "5.1.3",
                     "the address has a control character");
        return probe_refused(s, command);
    }
    session_deadline(s, timeout);
    return STEP_WAIT;
}

/* Mail with these addresses has asked for SMTPUTF8. */
static enum step probe_begin(struct dsess *s) {
    const struct probe *p = probe_of(s);
    bool utf8 = !str_is_ascii(str_of(p->sender)) || !str_is_ascii(str_of(p->rcpt));
    if (utf8 && (s->caps & CAP_SMTPUTF8) == 0) {
        session_note(s, MAIL_BOUNCED, BLAME_MESSAGE, CAUSE_NO_SMTPUTF8, "5.6.7", NO_SMTPUTF8,
                     s->where);
        return probe_refused(s, TXN_MAIL);
    }
    return probe_say_path(s, TXN_MAIL, "MAIL FROM", p->sender, utf8 ? " SMTPUTF8" : "",
                          s->p->smtp_mail_timeout);
}

/* What mail would make of the reply. */
static enum verdict probe_verdict(const struct dsess *s, enum txn_command at) {
    return verdict_of(at, s->reply.code, CONTENT_NONE, !session_target(s)->own_mx,
                      s->cfg->p.soft_bounce);
}

/* The connection is of no more use.  Mail that has not been taken goes to the next host then. */
static enum step probe_malformed(struct dsess *s) {
    s->mute = true;
    session_take_error(s);
    if (probe_of(s)->at != TXN_RSET && session_more_hosts(s))
        return STEP_NEXT_HOST;
    probe_of(s)->refused = true;
    return STEP_ROUND_OVER;
}

static enum step probe_reply(struct dsess *s) {
    struct probe *p = probe_of(s);
    enum txn_command at = p->at;
    enum verdict v = probe_verdict(s, at);
    if (session_reply_is_early(s) || (at == TXN_RSET && v != VERDICT_OK)) {
        host_out_of_step(s);
        return probe_malformed(s);
    }
    if (at != TXN_RSET && v != VERDICT_OK) {
        char dsn[12];
        dsn_from_reply(dsn, s->reply.code, smtp_reply_last(&s->reply));
        dsn[0] = v == VERDICT_REFUSED ? '5' : '4';
        struct sbuf said = {0};
        smtp_reply_line(&s->reply, &said);
        session_note(s, v == VERDICT_REFUSED ? MAIL_BOUNCED : MAIL_DEFERRED, BLAME_MESSAGE,
                     CAUSE_UNSET, dsn, "host %s said: %s (in reply to %s command)", s->where,
                     said.p, verdict_command_name(at));
        mailerr_remote(&s->now, session_target(s)->host, sbuf_str(&said));
        sbuf_free(&said);
        return probe_refused(s, at);
    }
    struct sbuf said = {0};
    smtp_reply_line(&s->reply, &said);
    watch_ok(s, probe_stage_name(at), "%s", said.p);
    sbuf_free(&said);
    if (at == TXN_MAIL && p->rcpt[0] != '\0')
        return probe_say_path(s, TXN_RCPT, "RCPT TO", p->rcpt, "", s->p->smtp_rcpt_timeout);
    if (at == TXN_MAIL)
        watch_ok(s, "rcpt", "not tried: no recipient was given");
    if (at != TXN_RSET)
        return probe_say_rset(s);
    p->passed = !p->refused;
    return STEP_ROUND_OVER;
}

static const char *probe_doing(const struct dsess *s) {
    enum txn_command at = probe_of(s)->at;
    return at == TXN_MAIL   ? "sending MAIL FROM"
           : at == TXN_RCPT ? "sending RCPT TO"
                            : "sending RSET";
}

static enum step probe_lost(struct dsess *s, bool timeout) {
    session_note(s, MAIL_DEFERRED, BLAME_SITE, timeout ? CAUSE_TIMEOUT : CAUSE_LOST, "4.4.2",
                 "%s with %s %s %s", timeout ? "conversation" : "lost connection", s->where,
                 timeout ? "timed out while" : "while", probe_doing(s));
    return probe_malformed(s);
}

/* -- start and end -- */

static void probe_over(struct dsess *s) {
    struct probe *p = probe_of(s);
    struct dl *n;
    while ((n = dl_pop(&s->todo)) != NULL)
        attempt_free(DL_OWNER(n, struct attempt, link));
    bool good = p->ask.connect ? p->passed : p->watch.reached;
    if (!good && !p->refused)
        watch_verdict(s);
    p->ask.done(p->ask.arg, good);
    s->watch = NULL;
    free(p->sender);
    free(p->rcpt);
    free(p);
    dsess_release(s);
}

static const struct stage probe_stage = {.name = "mail",
                                         .phase = PHASE_MAIL,
                                         .connects = true,
                                         .begin = probe_begin,
                                         .reply = probe_reply,
                                         .lost = probe_lost,
                                         .malformed = probe_malformed,
                                         .tells_doing = probe_doing,
                                         .over = probe_over};

static struct attempt *make_attempt(const struct probe_ask *ask) {
    struct attempt *a = MEM_NEW(struct attempt);
    struct rcpt to = {.addr = ask->rcpt};
    struct envelope e = {.sender = ask->sender, .rcpts = &to, .n_rcpts = 1};
    snprintf(e.qid, sizeof e.qid, "NOQUEUE");
    a->cfg = config_ref((struct config *)(uintptr_t)ask->cfg);
    a->transport = ask->route->transport;
    a->nexthop = str_dup(sbuf_str(&ask->route->nexthop));
    a->record = str_dup(sbuf_str(&ask->route->record));
    a->configured = ask->route->configured;
    a->env = envelope_make(&e);
    a->n = 1;
    a->idx = mem_zalloc(sizeof *a->idx);
    a->res = mem_zalloc(sizeof *a->res);
    a->tried = mem_zalloc(sizeof *a->tried);
    return a;
}

void probe_start(struct deliver *d, const struct probe_ask *ask) {
    struct dsess *s = session_new(d, NULL, &probe_stage);
    struct probe *p = MEM_NEW(struct probe);
    p->watch =
        (struct watch){.trace = ask->trace, .connects = ask->connect, .stage_us = clock_wall_us()};
    p->ask = *ask;
    p->sender = str_dup(ask->sender);
    p->rcpt = str_dup(ask->rcpt);
    s->watch = &p->watch;
    dl_push(&s->todo, &make_attempt(ask)->link);
    session_begin(s);
}
