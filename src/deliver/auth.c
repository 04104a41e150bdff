/*
 * deliver/auth.c - the stages credentials and auth of a delivery session (RFC 4954)
 *
 * Keys in Postfix's order: the sender (with smtp_sender_dependent_authentication), the host, the
 * next hop as written.  Unlike Postfix, credentials that are configured are used or the mail waits;
 * they are never left out because the remote did not offer AUTH.
 *
 * The session owns its sasl_login from the credentials' answer to the end of the dialogue; while a
 * slow step runs on a worker, the step has it, and frees it if the session has gone meanwhile
 * (auth_cancel).
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "deliver/session.h"
#include "deliver/verdict.h"
#include "maps/relays.h"
#include "route/keys.h"
#include "route/local.h"
#include "util/codec.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/threads.h"

#define WARN_MS      3600000
#define WORK_THREADS 4U /* that libuv starts */

struct slow_step {
    uv_work_t work;
    struct dsess *s; /* NULL: the session went away */
    struct sasl_login *sasl;
    struct sbuf challenge, answer;
    const char *why;
    bool first; /* the answer is the mechanism's initial response */
    int rc;
};

void auth_cancel(struct dsess *s) {
    lookup_cancel(s->d->lookup, s->tag);
    s->tag = 0;
    if (s->sasl_work != NULL) { /* the worker still uses the client: it frees it */
        ((struct slow_step *)s->sasl_work->data)->s = NULL;
        s->sasl_work = NULL;
        s->sasl = NULL;
    }
    sasl_login_free(s->sasl);
    s->sasl = NULL;
    sbuf_wipe(&s->first_answer);
}

/* Are logins looked up by sender here?  A sender's is for its relay host, and not for the content
 * filter before that. */
static bool logins_are_senders(const struct dsess *s) {
    return s->p->smtp_sender_dependent_authentication && !s->filter;
}

/* With credentials per sender, one sender's trouble is not the destination's.  A relay record has
 * one account for all. */
static enum mail_blame login_blame(const struct dsess *s) {
    bool of_sender = logins_are_senders(s) && !session_uses_record(s);
    return of_sender ? BLAME_MESSAGE : BLAME_SITE;
}

/* One line an hour per relay: without it mail silently goes unauthenticated. */
static void warn_no_credential(struct dsess *s) {
    struct deliver *d = s->d;
    size_t oldest = 0;
    if (s->watch != NULL)
        return;
    for (size_t i = 0; i < sizeof d->warned / sizeof d->warned[0]; i++) {
        struct warned *w = &d->warned[i];
        if (w->what != NULL && strcmp(w->what, s->relay) == 0) {
            if (d->loop->now_ms - w->at_ms < WARN_MS)
                return;
            oldest = i;
            break;
        }
        if (w->at_ms < d->warned[oldest].at_ms)
            oldest = i;
    }
    free(d->warned[oldest].what);
    d->warned[oldest] = (struct warned){mem_strdup(s->relay), d->loop->now_ms};
    struct sbuf tables = {0};
    maps_show(s->p->smtp_sasl_password_maps, &tables);
    log_warn("smtp", "relay %s offers AUTH, but no credential matched in %s; keys tried: %s%s, %s",
             s->relay, tables.p, logins_are_senders(s) ? "the sender, " : "",
             session_target(s)->host, session_target(s)->dest);
    sbuf_free(&tables);
}

static unsigned session_options(const struct dsess *s) {
    if (session_uses_record(
            s)) /* a record's password goes through TLS, or by a mechanism that hides it */
        return s->tls_on ? SASL_NOANONYMOUS : SASL_NOANONYMOUS | SASL_NOPLAINTEXT;
    const char *text = s->tls_verified ? s->p->smtp_sasl_tls_verified_security_options
                       : s->tls_on     ? s->p->smtp_sasl_tls_security_options
                                       : s->p->smtp_sasl_security_options;
    unsigned flags = 0;
    struct str bad;
    sasl_options_parse(str_of(text), &flags, &bad); /* checked when the snapshot was built */
    return flags;
}

/* A command line with its CR LF (RFC 5321 section 4.5.3.1.4). */
#define COMMAND_MAX 512

/* Writes what is in s->line, which holds a part of the login. */
static enum step say_secret(struct dsess *s) {
    bool said = session_say(s);
    conn_wipe_output(s->conn);
    mem_wipe(s->line.p, s->line.cap);
    if (!said)
        return host_failed(s, BLAME_OURSELVES, CAUSE_INTERNAL, "4.7.0",
                           "SASL answer with a control character");
    session_deadline(s, s->p->smtp_helo_timeout);
    return STEP_WAIT;
}

/* An answer to a challenge; with "AUTH MECH " before it, the initial response. */
static enum step say_answer(struct dsess *s, struct str answer, bool first) {
    sbuf_room(&s->line, answer.n + COMMAND_MAX); /* no copy of it is left behind */
    if (first)
        sbuf_printf(&s->line, "AUTH %s ", sasl_login_mech(s->sasl));
    if (first && answer.n == 0)
        sbuf_add_ch(&s->line, '=');
    sbuf_add_str(&s->line, answer);
    return say_secret(s);
}

static enum step say_auth(struct dsess *s) {
    sbuf_printf(&s->line, "AUTH %s", sasl_login_mech(s->sasl));
    return say_secret(s);
}

/* A step of the mechanism is done.  An initial response goes with AUTH, unless the line would be
 * too long: then AUTH goes alone and the answer after the first 334 (RFC 4954 section 4). */
static enum step answered(struct dsess *s, int rc, struct sbuf *answer, const char *why,
                          bool first) {
    if (rc != 0)
        return host_failed(s, login_blame(s), CAUSE_LOGIN_DIALOGUE, "4.7.0",
                           "SASL authentication failed; cannot authenticate to server %s: %s",
                           s->where, why);
    withhold_add(&s->sent, sbuf_str(answer));
    size_t line = strlen("AUTH  \r\n") + strlen(sasl_login_mech(s->sasl)) + answer->n;
    if (!first || line <= COMMAND_MAX)
        return say_answer(s, sbuf_str(answer), first);
    sbuf_wipe(&s->first_answer);
    s->first_answer = *answer;
    *answer = (struct sbuf){0};
    return say_auth(s);
}

static void slow_work(uv_work_t *w) {
    struct slow_step *x = w->data;
    x->rc = sasl_login_step(x->sasl, sbuf_str(&x->challenge), &x->answer, &x->why);
}

static void slow_done(uv_work_t *w, int status) {
    struct slow_step *x = w->data;
    struct dsess *s = x->s;
    enum step step = STEP_UNSET;
    (void)status;
    if (s == NULL) {
        sasl_login_free(x->sasl);
    } else {
        s->sasl_work = NULL;
        step = answered(s, x->rc, &x->answer, x->why, x->first);
    }
    sbuf_free(&x->challenge);
    sbuf_wipe(&x->answer);
    free(x);
    if (s != NULL)
        s->resume(s, step);
}

/* libuv starts its threads for the first slow step of the process, and ends the process where there
 * is no room for them. */
static bool slow_steps_have_threads(void) {
    static atomic_bool started;
    if (!atomic_load(&started) && threads_fit(WORK_THREADS))
        atomic_store(&started, true);
    return atomic_load(&started);
}

static enum step sasl_step(struct dsess *s, struct str challenge, bool first) {
    struct sbuf answer = {0};
    const char *why = "";
    if (!sasl_login_slow(s->sasl)) {
        int rc = sasl_login_step(s->sasl, challenge, &answer, &why);
        enum step step = answered(s, rc, &answer, why, first);
        sbuf_wipe(&answer);
        return step;
    }
    if (!slow_steps_have_threads())
        return host_failed(s, BLAME_OURSELVES, CAUSE_INTERNAL, "4.3.0",
                           "no thread can be started for a login at %s", s->where);
    struct slow_step *x = MEM_NEW(struct slow_step);
    x->s = s;
    x->sasl = s->sasl;
    x->first = first;
    x->work.data = x;
    sbuf_add_str(&x->challenge, challenge);
    s->sasl_work = &x->work;
    uv_queue_work(&s->d->loop->uv, &x->work, slow_work, slow_done);
    return STEP_WAIT;
}

static struct str filter_of(const struct dsess *s) {
    return str_of(session_uses_record(s) ? s->rec.mechanisms : s->p->smtp_sasl_mechanism_filter);
}

/* Chooses the mechanism; the dialogue is the next stage. */
static enum step choose_mechanism(struct dsess *s, struct str user, struct str password) {
    struct sbuf mechs = {0};
    sasl_filter(str_of(s->mechs), filter_of(s), &mechs);
    const char *mech = mechs.n == 0 ? NULL : sasl_choose(sbuf_str(&mechs), session_options(s));
    bool none = mechs.n == 0, offered = str_trim(str_of(s->mechs)).n > 0;
    sbuf_free(&mechs);
    if (none)
        return host_failed(s, login_blame(s), offered ? CAUSE_LOGIN_FILTERED : CAUSE_LOGIN_UNUSABLE,
                           "4.7.0",
                           "SASL authentication failed: server %s offered no compatible "
                           "authentication mechanisms for this type of connection security",
                           s->where);
    if (mech == NULL)
        return host_failed(s, login_blame(s), CAUSE_LOGIN_UNUSABLE, "4.7.0",
                           "SASL authentication failed; cannot authenticate to server %s: no "
                           "mechanism available",
                           s->where);
    watch_ok(s, "mechanism", "%s, of %s", mech, s->mechs);
    withhold_add_password(&s->sent, password);
    s->sasl = sasl_login_new(mech, user, password, session_target(s)->host);
    if (s->sasl == NULL)
        return host_failed(s, login_blame(s), CAUSE_INTERNAL, "4.7.0",
                           "SASL authentication failed: mechanism not available");
    return STEP_DONE;
}

/* Goes on without AUTH; why is shown by explain and test. */
static enum step go_without(struct dsess *s, const struct maps_answer *a, const char *why) {
    json_t *o = watch_step(s, "credentials", true);
    if (o != NULL && a != NULL)
        trace_asked(o, a->trace);
    trace_set(o, "result", str_of(why));
    watch_end_step(s, o);
    return STEP_DONE;
}

static enum step credentials_unknown(struct dsess *s, const struct maps_answer *a) {
    const struct attempt *first = DL_OWNER(s->todo.next, struct attempt, link);
    json_t *o = watch_step(s, "credentials", false);
    if (o != NULL)
        trace_asked(o, a->trace);
    trace_setf(o, "result", "the look-up failed: mail waits (4.3.0) and is never sent without: %s",
               a->err == NULL ? "" : a->err);
    watch_end_step(s, o);
    if (s->watch == NULL)
        log_warn("smtp", "%s: %s lookup error", first->env->qid,
                 session_uses_record(s) ? "relay record" : "smtp_sasl_password_maps");
    return lookup_failed(s, login_blame(s), a, "local data error while talking to", s->where);
}

/* The account; its password is never shown. */
static void note_account(struct dsess *s, const struct maps_answer *a, struct str user) {
    json_t *o = watch_step(s, "credentials", true);
    if (o == NULL)
        return;
    trace_asked(o, session_uses_record(s) ? NULL : a->trace);
    trace_set(o, "user", user);
    if (session_uses_record(s))
        trace_setf(o, "result", "account %.*s, of the relay record \"%s\"", STR_FMT(user),
                   s->rec.name);
    else if (a->trace != NULL && a->trace->n > 0)
        trace_setf(o, "result", "account %.*s, under the key %s", STR_FMT(user),
                   a->trace->v[a->trace->n - 1].key);
    watch_end_step(s, o);
}

/* What a table may have in front of the user, or behind it, is no part of its name; a password may
 * have blanks. */
static void split_value(const struct dsess *s, struct str v, struct str *user,
                        struct str *password) {
    bool record = session_uses_record(s);
    const char *delim = record ? "\n" : s->p->smtp_sasl_password_result_delimiter;
    ptrdiff_t at = delim[0] == '\0' ? -1 : str_chr(v, delim[0]);
    *user = at < 0 ? v : str_make(v.p, (size_t)at);
    *password = at < 0 ? STR_LIT("") : str_from(v, (size_t)at + 1);
    if (!record)
        *user = str_trim(*user);
}

static enum step take_credentials(struct dsess *s, const struct maps_answer *a) {
    if (a->rc == MAP_ERROR)
        return credentials_unknown(s, a);
    if (a->rc == MAP_NOT_FOUND) {
        if ((s->caps & CAP_AUTH) != 0)
            warn_no_credential(s);
        return go_without(s, a, "no entry: mail goes without AUTH");
    }
    struct str v = sbuf_str(&a->value), user, password;
    split_value(s, v, &user, &password);
    note_account(s, a, user);
    if (!watch_connects(s))
        return STEP_DONE;
    if ((s->caps & CAP_AUTH) == 0)
        return host_failed(
            s, login_blame(s), CAUSE_LOGIN_MISSING, "4.7.0",
            "credentials are configured for %s, but it did not offer AUTH%s", s->where,
            s->tls_on ? "" : " (perhaps only inside TLS: see smtp_tls_security_level)");
    return choose_mechanism(s, user, password);
}

static void on_credentials(void *arg, const struct maps_answer *a) {
    struct dsess *s = arg;
    s->tag = 0;
    s->login_mark = answer_mark(a);
    s->resume(s, take_credentials(s, a));
}

/* As Postfix, at EHLO time and whether or not a credential exists. */
static void warn_mechanisms(struct dsess *s) {
    struct sbuf mechs = {0};
    if ((s->caps & CAP_AUTH) == 0 || s->watch != NULL ||
        !(session_uses_record(s) || s->p->smtp_sasl_auth_enable))
        return;
    sasl_filter(str_of(s->mechs), filter_of(s), &mechs);
    if (mechs.n == 0)
        log_warn("smtp", "%s offered no supported AUTH mechanisms: '%s'", s->relay, s->mechs);
    sbuf_free(&mechs);
}

/* Credentials come from the relay record only, never from smtp_sasl_password_maps.  The question
 * carries the destination: the secret is opened for the record's own hosts and for no
 * other, and only while it is to be sent as the record says. */
static enum step begin_record(struct dsess *s) {
    struct keys keys = {.n = 0};
    struct sbuf question = {0};
    if (s->rec.user[0] == '\0')
        return go_without(s, NULL, "the relay record has no account: mail goes without AUTH");
    struct relays_question asked = {s->rec.id,   s->rec.tls,     s->rec.mechanisms,
                                    s->rec.user, s->rec.account, session_target(s)->dest};
    relays_ask_secret(&question, &asked);
    keys_add(&keys, false, "", sbuf_str(&question), STR_NONE);
    sbuf_free(&question);
    watch_ask(s, s->cfg->relays_spec, &keys, on_credentials);
    keys_clear(&keys);
    return STEP_WAIT;
}

static void add_host_key(struct keys *keys, const struct params *p, const char *host) {
    struct sbuf other = {0};
    keys_add(keys, false, "", str_of(host), STR_NONE);
    if (keys_other_spelling(p, str_of(host), &other))
        keys_add(keys, false, "", sbuf_str(&other), STR_NONE);
    sbuf_free(&other);
}

bool credentials_are_asked(const struct dsess *s) {
    return !session_uses_record(s) && !s->tls_relaxed && s->p->smtp_sasl_auth_enable &&
           s->p->smtp_sasl_password_maps[0] != '\0';
}

static void credentials_ask_at(struct dsess *s, bool sender_is_local) {
    struct keys keys = {.n = 0};
    if (s->auth_sender != NULL)
        (sender_is_local ? keys_local_sender : keys_sender)(&keys, s->p, str_of(s->auth_sender));
    add_host_key(&keys, s->p, session_target(s)->host);
    add_host_key(&keys, s->p, session_target(s)->dest);
    watch_ask(s, s->p->smtp_sasl_password_maps, &keys, s->credentials_fn);
    keys_clear(&keys);
}

static void on_sender_domain(void *arg, enum match_rc rc) {
    struct dsess *s = arg;
    s->tag = 0;
    if (rc == MATCH_ERROR)
        s->credentials_fn(s, &(struct maps_answer){.rc = MAP_ERROR});
    else
        credentials_ask_at(s, rc == MATCH_YES);
}

void credentials_ask(struct dsess *s, lookup_maps_fn fn) {
    enum match_rc now;
    struct str sender = s->auth_sender == NULL ? STR_NONE : str_of(s->auth_sender);
    s->credentials_fn = fn;
    s->tag =
        local_sender_now(s->d->lookup, "smtp", s->cfg, s->p, sender, &now, on_sender_domain, s);
    if (s->tag == 0)
        credentials_ask_at(s, now == MATCH_YES);
}

/* A login is asked for, and there is no table of logins: mail waits.  A host that wants a login may
 * refuse mail without one for good; with Postfix mail waits, too: its client does not start. */
static enum step credentials_nowhere(struct dsess *s) {
    static const char why[] = "smtp_sasl_auth_enable = yes, but smtp_sasl_password_maps is empty";
    json_t *o = watch_step(s, "credentials", false);
    trace_setf(o, "result", "%s: mail waits (4.3.5)", why);
    watch_end_step(s, o);
    return host_failed(s, BLAME_OURSELVES, CAUSE_SETTING, "4.3.5", "%s", why);
}

enum step credentials_begin(struct dsess *s) {
    const struct attempt *first = DL_OWNER(s->todo.next, struct attempt, link);
    warn_mechanisms(s);
    if (session_uses_record(s))
        return begin_record(s);
    if (s->tls_relaxed)
        return go_without(s, NULL, "the mail has TLS-Required: no: no AUTH");
    if (!s->p->smtp_sasl_auth_enable)
        return go_without(s, NULL, "smtp_sasl_auth_enable = no: no AUTH");
    if (s->p->smtp_sasl_password_maps[0] == '\0')
        return credentials_nowhere(s);
    if (logins_are_senders(s)) {
        free(s->auth_sender);
        s->auth_sender = str_dup(first->env->sender);
    }
    credentials_ask(s, on_credentials);
    return STEP_WAIT;
}

enum step auth_begin(struct dsess *s) {
    if (s->sasl == NULL)
        return STEP_DONE;
    return sasl_login_first(s->sasl) ? sasl_step(s, STR_LIT(""), true) : say_auth(s);
}

static enum step auth_refused(struct dsess *s) {
    char dsn[12];
    dsn_from_reply(dsn, s->reply.code, smtp_reply_last(&s->reply));
    /* A reply about the order of commands refuses no login, so that it returns no mail. */
    bool bounce = s->reply.code / 100 == 5 && !s->p->smtp_sasl_auth_soft_bounce &&
                  !verdict_is_about_session(s->reply.code, false);
    if (!bounce)
        dsn[0] = '4';
    session_note_reply(s, bounce ? MAIL_BOUNCED : MAIL_DEFERRED,
                       bounce ? BLAME_MESSAGE : login_blame(s), dsn,
                       "SASL authentication failed; server %s said:", s->where);
    return STEP_HOST_FAILED;
}

static enum step logged_in(struct dsess *s) {
    struct sbuf said = {0};
    if (!sasl_login_proven(s->sasl))
        return host_failed(s, login_blame(s), CAUSE_LOGIN_UNPROVEN, "4.7.0",
                           "SASL authentication failed; server %s did not prove that it knows the "
                           "password",
                           s->where);
    smtp_reply_line(&s->reply, &said);
    watch_ok(s, "auth", "%s", said.p);
    sbuf_free(&said);
    sasl_login_free(s->sasl);
    s->sasl = NULL;
    sbuf_wipe(&s->first_answer);
    return STEP_DONE;
}

enum step auth_reply(struct dsess *s) {
    /* Of 3xx only 334 asks for an answer (RFC 4954 section 4): the login is not told to another. */
    if (s->sasl_work != NULL || (s->reply.code / 100 == 3 && s->reply.code != 334))
        return host_out_of_step(s);
    if (s->reply.code / 100 == 2)
        return logged_in(s);
    if (s->reply.code / 100 != 3)
        return auth_refused(s);
    if (s->first_answer.n == 0)
        return sasl_step(s, str_trim(sbuf_str(&s->reply.text)), false);
    enum step step = say_answer(s, sbuf_str(&s->first_answer), false);
    sbuf_wipe(&s->first_answer);
    return step;
}
