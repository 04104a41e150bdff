/*
 * receive/transaction.c - MAIL and RCPT, in Postfix's words; see transaction.h
 */
#include "receive/transaction.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mail/address.h"
#include "mail/held.h"
#include "mail/mailerr.h"
#include "receive/anvil.h"
#include "receive/forwarded.h"
#include "receive/intake.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"

struct str transaction_sender(const struct transaction *tx) {
    return str_make(tx->texts.p == NULL ? "" : tx->texts.p, tx->sender_n);
}

struct str transaction_rcpt_addr(const struct transaction *tx, const struct rcpt_in *r) {
    return str_make(tx->texts.p + r->addr_at, r->addr_n);
}

struct rcpts transaction_rcpts(struct transaction *tx) {
    struct str copies = sbuf_str(&tx->acts.copies), one;
    uint32_t n = 0;
    tx->out = mem_realloc(tx->out, (tx->n_rcpts + tx->acts.n_copies) * sizeof *tx->out);
    for (size_t i = 0; i < tx->n_rcpts; i++) {
        const struct rcpt_in *r = &tx->rcpts[i];
        tx->out[n++] = (struct rcpt){.addr = transaction_rcpt_addr(tx, r),
                                     .orcpt = str_make(tx->texts.p + r->orcpt_at, r->orcpt_n),
                                     .notify = r->notify};
    }
    /* As with Postfix, the sender hears of the first of these if it fails, and of no other. */
    for (uint32_t notify = 0; str_split(&copies, "\n", &one); notify = NOTIFY_NEVER)
        tx->out[n++] = (struct rcpt){.addr = one, .notify = notify};
    return (struct rcpts){tx->out, n};
}

static struct str pending_addr(const struct transaction *tx) {
    return transaction_rcpt_addr(tx, &tx->pending);
}

/* May addresses be more than ASCII?  As in Postfix, undeclared too, unless strict_smtputf8; whether
 * mail of sendmail needs it is found when it is there. */
static bool takes_utf8(const struct session *s) {
    return s->client.local || (s->tx->flags & ENV_SMTPUTF8) != 0 || !s->p->smtputf8_enable ||
           !s->p->strict_smtputf8;
}

/* An envelope up to this size is taken whatever others hold. */
#define ENVELOPE_SMALL 16384U

/* Bytes of the recipients of all transactions of all loops. */
static _Atomic uint64_t envelope_memory;

/* Counts what the transaction holds now. */
static void envelope_count(struct transaction *tx) {
    size_t now = tx->texts.cap + tx->cap_rcpts * sizeof *tx->rcpts +
                 tx->named.cap * sizeof *tx->named.slots + tx->acts.prepend.cap +
                 tx->acts.copies.cap;
    atomic_fetch_add_explicit(&envelope_memory, (uint64_t)now - tx->counted_mem,
                              memory_order_relaxed);
    tx->counted_mem = now;
}

/* Is there no room for a further recipient?  Clients send the message to those that were taken, and
 * come again for the others (RFC 5321 section 4.5.3.1.10). */
static bool envelope_is_full(const struct session *s) {
    int64_t limit = s->cfg->p.message_memory_limit;
    if (s->tx->counted_mem <= ENVELOPE_SMALL ||
        atomic_load_explicit(&envelope_memory, memory_order_relaxed) <= (uint64_t)limit)
        return false;
    if (smtpd_may_warn(s->r, &s->r->crowded_ms))
        log_warn("smtpd",
                 "the recipients that clients have named take more than message_memory_limit (%lld "
                 "bytes): a client that has many is told to send to the rest later",
                 (long long)limit);
    return true;
}

static struct transaction *transaction_new(void) {
    return MEM_NEW(struct transaction);
}

void transaction_end(struct session *s) {
    struct transaction *tx = s->tx;
    intake_free(s->intake);
    s->intake = NULL;
    s->tx = NULL;
    if (tx == NULL)
        return;
    forwarded_end(s);
    route_cancel(tx->route);
    alias_cancel(tx->alias);
    virtual_cancel(tx->aliases);
    clean_cancel(tx->clean);
    access_cancel(tx->access);
    lookup_cancel(s->r->lookup, tx->rewrite_asked);
    if (tx->expected)
        spool_expect(s->r->spool, -1);
    sbuf_free(&tx->texts);
    sbuf_free(&tx->envid);
    sbuf_free(&tx->auth);
    access_acts_free(&tx->acts);
    mailerr_free(&tx->unlisted.why);
    mailerr_free(&tx->first.why);
    kset_free(&tx->named);
    free(tx->rcpts);
    free(tx->out);
    atomic_fetch_sub_explicit(&envelope_memory, tx->counted_mem, memory_order_relaxed);
    free(tx);
}

void transaction_reset(struct session *s) {
    transaction_end(s);
    forwarded_end(s);
}

struct access_facts transaction_facts(const struct session *s, const struct rcpt_in *r) {
    const struct transaction *tx = s->tx;
    struct access_facts f = {.loop = s->r->loop,
                             .lookup = s->r->lookup,
                             .policies = s->r->policies,
                             .fd = conn_fd(s->conn),
                             .ssl = s->tls_on ? conn_ssl(s->conn) : NULL,
                             .cfg = s->cfg,
                             .p = s->p,
                             .client = &s->client,
                             .helo = s->helo,
                             .esmtp = s->esmtp,
                             .sasl_user = s->sasl_user,
                             .sasl_method = s->sasl_method,
                             .encrypted = s->tls_on,
                             .cert = s->cert};
    if (tx == NULL)
        return f;
    f.qid = tx->qid;
    f.instance = tx->instance;
    f.size = s->intake != NULL ? s->intake->size : tx->said_size;
    f.acts = &s->tx->acts;
    f.sasl_sender = sbuf_str(&tx->auth);
    f.sender = transaction_sender(tx);
    f.rcpt = r == NULL ? STR_NONE : transaction_rcpt_addr(tx, r);
    f.sender_said = str_make(f.sender.p, tx->said_n);
    f.rcpt_said = r == NULL ? STR_NONE : str_make(f.rcpt.p, r->said_n);
    f.n_rcpts = tx->n_rcpts + tx->n_repeated;
    f.address_class = r == NULL ? CLASS_DEFAULT : r->address_class;
    f.aliased = r == NULL ? MATCH_NO : r->aliased;
    const struct unlisted *unlisted = r == &tx->pending ? &tx->unlisted : &tx->first;
    f.unlisted = r == NULL || unlisted->why.status == MAIL_UNSET ? NULL : unlisted;
    return f;
}

/* The recipient that a reject line names: the one that is decided about, or the only one. */
static const struct rcpt_in *rejected_rcpt(const struct session *s) {
    if (s->verb == VERB_RCPT)
        return &s->tx->pending;
    return s->tx->n_rcpts == 1 ? &s->tx->rcpts[0] : NULL;
}

/* r: the recipient to name; NULL: none. */
static void log_reject(struct session *s, const char *stage, const char *text,
                       const struct rcpt_in *r) {
    struct sbuf b = {0};
    struct access_facts f = transaction_facts(s, r);
    access_add_head(&f, "reject", stage, &b);
    size_t at = b.n;
    sbuf_printf(&b, "%s;", text);
    smtpd_soften(s, b.p + at);
    access_add_facts(&f, &b);
    log_as(s->svc->log_name, "smtpd", "%s", b.p);
    sbuf_free(&b);
}

void transaction_reject(struct session *s, const char *stage, const char *text) {
    log_reject(s, stage, text, rejected_rcpt(s));
    smtpd_reply(s, false, "%s", text);
}

bool transaction_bare_newline(struct session *s, const char *stage, struct sbuf *reply) {
    const struct transaction *tx = s->tx;
    log_reject(s, stage, "bare <LF> received",
               tx != NULL && tx->n_rcpts == 1 ? &tx->rcpts[0] : NULL);
    sbuf_printf(reply, "%lld 5.5.2 %s Error: bare <LF> received",
                (long long)s->p->smtpd_forbid_bare_newline_reject_code, s->cfg->p.myhostname);
    return s->p->smtpd_forbid_bare_newline_reject_code == 521;
}

enum cmd transaction_refuse(struct session *s, const char *stage, unsigned code, const char *text) {
    struct sbuf reply = {0};
    sbuf_printf(&reply, "%u %s", code, text);
    transaction_reject(s, stage, reply.p);
    sbuf_free(&reply);
    return code == 421 || code == 521 ? CMD_CLOSE : CMD_DONE; /* RFC 5321 3.8, RFC 7504 */
}

static enum cmd tx_say(struct session *s, bool ok, const char *text) {
    smtpd_reply(s, ok, "%s", text);
    return CMD_DONE;
}

/* -- parameters -- */

static bool mail_size(struct session *s, struct str value) {
    uint64_t size;
    int64_t limit = s->p->message_size_limit;
    if (!str_u64(value, &size)) {
        smtpd_reply(s, false, "501 5.5.4 Bad message size syntax");
        return false;
    }
    if (limit > 0 && size > (uint64_t)limit) {
        transaction_reject(s, "MAIL", "552 5.3.4 Message size exceeds fixed limit");
        return false;
    }
    s->tx->said_size = size;
    return true;
}

/* "<>" or xtext. */
static bool is_xtext(struct str value) {
    struct sbuf out = {0};
    bool ok = str_eq_c(value, "<>") || (value.n > 0 && xtext_decode(&out, value));
    sbuf_free(&out);
    return ok;
}

/* RFC 3461 section 4.4: what is decoded is printable ASCII, of at most 100 bytes before that. */
static bool take_envid(struct sbuf *envid, struct str value) {
    return value.n > 0 && value.n <= 100 && envid->n == 0 && xtext_decode(envid, value) &&
           str_is_ascii(sbuf_str(envid));
}

/* RFC 4954 section 5: who wrote it is for trusted clients to say; the log has it, and no more. */
static bool mail_auth(struct session *s, struct str value) {
    struct transaction *tx = s->tx;
    if (tx->auth.n > 0) {
        smtpd_reply(s, false, "503 5.5.4 Error: multiple AUTH= options");
        return false;
    }
    if (!str_eq_c(value, "<>"))
        sbuf_add_str(&tx->auth, value);
    return true;
}

/* Does the client ask for reports where smtpd_discard_ehlo_keywords lets none ask?  Then it has
 * been refused. */
static bool dsn_is_disabled(struct session *s, struct str key) {
    bool asks = str_ieq_c(key, "RET") || str_ieq_c(key, "ENVID") || str_ieq_c(key, "NOTIFY") ||
                str_ieq_c(key, "ORCPT");
    bool disabled = asks && smtpd_discards(s, "DSN");
    if (disabled)
        smtpd_reply(s, false, "501 5.7.1 DSN support is disabled");
    return disabled;
}

/* SMTPUTF8 is known, and offered. */
static bool may_ask_utf8(const struct session *s) {
    return s->p->smtputf8_enable && !smtpd_discards(s, "SMTPUTF8");
}

static bool mail_param(struct session *s, struct str key, struct str value) {
    if (dsn_is_disabled(s, key))
        return false;
    if (str_ieq_c(key, "SIZE"))
        return mail_size(s, value);
    if (str_ieq_c(key, "BODY") && (str_ieq_c(value, "8BITMIME") || str_ieq_c(value, "7BIT"))) {
        s->tx->flags |= str_ieq_c(value, "8BITMIME") ? ENV_8BIT : 0;
        return true;
    }
    if (str_ieq_c(key, "SMTPUTF8") && value.n == 0 && may_ask_utf8(s))
        return true; /* seen before the address was parsed */
    if (str_ieq_c(key, "AUTH") && s->p->smtpd_sasl_auth_enable && is_xtext(value))
        return mail_auth(s, value);
    if (str_ieq_c(key, "RET") && (s->tx->flags & (ENV_RET_FULL | ENV_RET_HDRS)) == 0 &&
        (str_ieq_c(value, "FULL") || str_ieq_c(value, "HDRS"))) {
        s->tx->flags |= str_ieq_c(value, "FULL") ? ENV_RET_FULL : ENV_RET_HDRS;
        return true;
    }
    if (s->client.local && str_ieq_c(key, "REWRITE") && str_ieq_c(value, "REMOTE"))
        return s->tx->is_remote = true;
    if (str_ieq_c(key, "ENVID") && take_envid(&s->tx->envid, value))
        return true;
    if (str_ieq_c(key, "RET") || str_ieq_c(key, "ENVID") ||
        (str_ieq_c(key, "AUTH") && s->p->smtpd_sasl_auth_enable)) {
        smtpd_reply(s, false, "501 5.5.4 Bad %.*s parameter syntax", STR_FMT(key));
        return false;
    }
    smtpd_reply(s, false, "555 5.5.4 Unsupported option: %.*s%s%.*s", STR_FMT(key),
                value.n > 0 ? "=" : "", STR_FMT(value));
    return false;
}

/* A disk that does not say how much is free may have it: writing says what is wrong. */
static bool has_space(const struct session *s) {
    int64_t space = spool_space(s->r->spool);
    int64_t most = s->p->message_size_limit;
    int64_t need = most > INT64_MAX / 3 ? INT64_MAX : most * 3 / 2;
    if (need < s->p->queue_minfree)
        need = s->p->queue_minfree;
    if (space > need || space < 0)
        return true;
    log_warn("smtpd", "not enough free space in mail queue: %lld bytes < 1.5*message size limit",
             (long long)space);
    return false;
}

bool transaction_is_crowded_out(struct session *s) {
    int64_t limit = s->cfg->p.queue_memory_limit;
    if (!held_is_full(limit))
        return false;
    if (smtpd_may_warn(s->r, &s->r->held_ms))
        log_warn("smtpd",
                 "the envelopes of queued mail take %llu bytes of memory, and queue_memory_limit "
                 "is %lld: new mail is put off",
                 (unsigned long long)held_bytes(), (long long)limit);
    return true;
}

/* Queued mail is on the disk, and has its envelope in memory: is there room for more? */
static bool queue_has_room(struct session *s) {
    if (has_space(s) && !transaction_is_crowded_out(s))
        return true;
    smtpd_reply(s, false, "452 4.3.1 Insufficient system storage");
    return false;
}

/* Adds @$myorigin to an address without a domain, .$mydomain to a domain without a dot. */
static void complete(struct session *s, size_t begun) {
    const struct params *own = &s->cfg->p;
    addr_complete(&s->tx->texts, begun, s->p->append_at_myorigin ? own->myorigin : NULL,
                  s->p->append_dot_mydomain ? own->mydomain : NULL);
}

static bool rate_exceeded(struct session *s, enum anvil_what what, int64_t limit) {
    if (limit == 0 || s->client.limits_off)
        return false;
    struct sbuf from = {0};
    int64_t n = anvil_event(s->client.addr, what, s->p->anvil_rate_time_unit);
    bool over = n > limit;
    if (over) {
        log_warn("smtpd", "%s rate limit exceeded: %lld from %s for service %s",
                 what == ANVIL_MESSAGE ? "Message delivery request" : "Recipient address",
                 (long long)n, client_text(&s->client, &from), s->svc->name);
        smtpd_reply(s, false, "450 4.7.1 Error: too %s from %s",
                    what == ANVIL_MESSAGE ? "much mail" : "many recipients", s->client.addr);
    }
    sbuf_free(&from);
    return over;
}

/* -- MAIL -- */

/* The configuration asks for something that mail would not get: the service takes none.  A user of
 * sendmail is told what it is, a stranger is not. */
static bool is_refused(struct session *s) {
    bool local = s->client.local;
    const struct refusal *r = refusals_first(local ? &s->cfg->refusals : &s->svc->refusals);
    struct sbuf from = {0};
    if (r == NULL)
        return false;
    log_warn("smtpd", "no mail is taken from %s for service %s: %s is not implemented: %s",
             client_text(&s->client, &from), local ? "sendmail" : s->svc->name, r->name, r->text);
    smtpd_reply(s, false, "451 4.3.5 Server configuration error%s%s%s%s", local ? ": " : "",
                local ? r->name : "", local ? " is not implemented: " : "", local ? r->text : "");
    sbuf_free(&from);
    return true;
}

static bool mail_allowed(struct session *s) {
    if (s->tx != NULL)
        smtpd_reply(s, false, "503 5.5.1 Error: nested MAIL command");
    else if (s->helo == NULL && s->p->smtpd_helo_required)
        smtpd_reply(s, false, "503 5.5.1 Error: send HELO/EHLO first");
    else if (!is_refused(s) &&
             !rate_exceeded(s, ANVIL_MESSAGE, s->p->smtpd_client_message_rate_limit))
        return true;
    return false;
}

/* Non-ASCII is allowed in the address if SMTPUTF8 is among the parameters. */
static bool asks_utf8(const struct session *s, struct str args) {
    struct str rest = args, w;
    while (may_ask_utf8(s) && str_split(&rest, " \t", &w))
        if (str_ieq_c(w, "SMTPUTF8"))
            return true;
    return false;
}

/* A local part that begins with '-' would be an option to whatever is run with it (postconf(5)
 * allow_min_user). */
static bool is_option(const struct session *s, size_t begun) {
    return !s->p->allow_min_user && s->tx->texts.n > begun && s->tx->texts.p[begun] == '-';
}

/* An address that a client has said, which has the syntax rc.  "user%domain" and "domain!user"
 * would be addresses of that domain for Postfix, and for tables that speak of it; a domain that is
 * not ASCII needs SMTPUTF8, as with Postfix: both are refused. */
static enum addr_rc client_address(const struct session *s, size_t begun, enum addr_rc rc) {
    struct str addr = str_from(sbuf_str(&s->tx->texts), begun), domain = addr_domain(addr);
    bool routed = str_chr(addr, '@') < 0 && (str_chr(addr, '%') >= 0 || str_chr(addr, '!') >= 0);
    bool undeclared = !str_is_ascii(domain) && (s->tx->flags & ENV_SMTPUTF8) == 0;
    return !s->client.local && (routed || undeclared) ? ADDR_SYNTAX : rc;
}

static enum cmd bad_address(struct session *s, enum addr_rc rc, const char *syntax) {
    return tx_say(s, false,
                  rc == ADDR_8BIT ? "553 5.6.7 Must declare SMTPUTF8 to send unicode address"
                                  : syntax);
}

/* Names the transaction for policy services: each message has a name of its own. */
static void transaction_name(struct transaction *tx) {
    static _Atomic uint64_t number;
    uint64_t n = atomic_fetch_add_explicit(&number, 1, memory_order_relaxed);
    int64_t now = clock_wall_us();
    snprintf(tx->instance, sizeof tx->instance, "%llx.%llx.%llx",
             (unsigned long long)(now / 1000000), (unsigned long long)(now % 1000000),
             (unsigned long long)n);
}

/* Reads the address and the parameters into the transaction; false if it was refused. */
static bool mail_parse(struct session *s, struct str args) {
    struct transaction *tx = s->tx;
    struct str key, value;
    size_t len = 0;
    if (asks_utf8(s, args))
        tx->flags |= ENV_SMTPUTF8;
    struct addr_opts o = {s->p->strict_rfc821_envelopes, takes_utf8(s), true};
    enum addr_rc rc = addr_parse(args, &o, &tx->texts, &len);
    rc = client_address(s, 0, rc);
    if (rc != ADDR_OK || is_option(s, 0)) {
        bad_address(s, rc, "501 5.1.7 Bad sender address syntax");
        return false;
    }
    tx->said_n = tx->texts.n;
    complete(s, 0);
    tx->sender_n = tx->texts.n;
    for (struct str rest = str_from(args, len); smtp_param_next(&rest, &key, &value);)
        if (!mail_param(s, key, value))
            return false;
    return queue_has_room(s);
}

enum cmd transaction_mail(struct session *s, struct str args) {
    if (!mail_allowed(s))
        return CMD_DONE;
    if (!str_istarts(args, "FROM:"))
        return tx_say(s, false, "501 5.5.4 Syntax: MAIL FROM:<address>");
    transaction_end(s); /* chunks of BDAT that were refused without one */
    s->tx = transaction_new();
    s->tx->loses_original = !s->cfg->p.enable_original_recipient;
    transaction_name(s->tx);
    if (!mail_parse(s, str_from(args, 5))) {
        transaction_end(s);
        return CMD_DONE;
    }
    s->tx->expected = true;
    spool_expect(s->r->spool, 1);
    s->tx->arrival_us = clock_wall_us();
    return tx_say(s, true, "250 2.1.0 Ok");
}

/* -- RCPT -- */

static bool notify_parse(struct str v, uint32_t *out) {
    struct str w;
    *out = 0;
    while (str_split(&v, ",", &w)) {
        if (str_ieq_c(w, "NEVER"))
            *out |= NOTIFY_NEVER;
        else if (str_ieq_c(w, "SUCCESS"))
            *out |= NOTIFY_SUCCESS;
        else if (str_ieq_c(w, "FAILURE"))
            *out |= NOTIFY_FAILURE;
        else if (str_ieq_c(w, "DELAY"))
            *out |= NOTIFY_DELAY;
        else
            return false;
    }
    return *out == NOTIFY_NEVER || (*out != 0 && (*out & NOTIFY_NEVER) == 0);
}

/* "type;address" (RFC 3461 section 4.2, RFC 6533 section 3). */
static bool take_orcpt(struct sbuf *texts, struct rcpt_in *r, struct str value) {
    ptrdiff_t semi = str_chr(value, ';');
    struct str type = str_make(value.p, semi < 0 ? 0 : (size_t)semi);
    if (r->orcpt_n > 0 || !addr_is_atom(type))
        return false;
    struct str addr = str_from(value, type.n + 1);
    r->orcpt_at = texts->n;
    sbuf_add(texts, value.p, type.n + 1);
    if (!(str_ieq_c(type, "utf-8") ? uxtext_ascii(texts, addr) : xtext_decode(texts, addr)))
        return false;
    r->orcpt_n = texts->n - r->orcpt_at;
    return true;
}

static bool rcpt_param(struct session *s, struct rcpt_in *r, struct str key, struct str value) {
    if (dsn_is_disabled(s, key))
        return false;
    if (str_ieq_c(key, "NOTIFY") && r->notify == 0 && notify_parse(value, &r->notify))
        return true;
    if (str_ieq_c(key, "ORCPT") && take_orcpt(&s->tx->texts, r, value))
        return true;
    if (str_ieq_c(key, "NOTIFY") || str_ieq_c(key, "ORCPT"))
        smtpd_reply(s, false, "501 5.5.4 Error: Bad %.*s parameter syntax", STR_FMT(key));
    else
        smtpd_reply(s, false, "555 5.5.4 Unsupported option: %.*s%s%.*s", STR_FMT(key),
                    value.n > 0 ? "=" : "", STR_FMT(value));
    return false;
}

static bool rcpt_is_same(const struct transaction *tx, const struct rcpt_in *a,
                         const struct rcpt_in *b) {
    if (a->key != b->key || !str_ieq(transaction_rcpt_addr(tx, a), transaction_rcpt_addr(tx, b)))
        return false;
    return tx->loses_original ||
           (a->notify == b->notify && str_ieq(str_make(tx->texts.p + a->orcpt_at, a->orcpt_n),
                                              str_make(tx->texts.p + b->orcpt_at, b->orcpt_n)));
}

static bool rcpt_is_pending(const void *number, const void *transaction) {
    const struct transaction *tx = transaction;
    return rcpt_is_same(tx, &tx->rcpts[(uintptr_t)number - 1], &tx->pending);
}

/* All that rcpt_is_same compares: a client may name one address with any number of ORCPT= values.
 */
static uint64_t rcpt_key(const struct transaction *tx, const struct rcpt_in *r) {
    if (tx->loses_original)
        return kset_mix_folded(KSET_SEED, transaction_rcpt_addr(tx, r));
    uint64_t key = kset_mix_folded(KSET_SEED + r->notify, transaction_rcpt_addr(tx, r));
    return kset_mix_folded(key, str_make(tx->texts.p + r->orcpt_at, r->orcpt_n));
}

/* Was the pending recipient named before?  It gets one copy, as Postfix's cleanup(8) has it, which
 * takes no notice of case. */
static bool rcpt_is_repeated(struct transaction *tx) {
    tx->pending.key = rcpt_key(tx, &tx->pending);
    return kset_get(&tx->named, tx->pending.key, rcpt_is_pending, tx) != NULL;
}

static enum cmd rcpt_accept(struct session *s) {
    struct transaction *tx = s->tx;
    struct sbuf from = {0};
    if (rcpt_is_repeated(tx)) {
        tx->n_repeated++;
        tx->texts.n = tx->pending.addr_at;
        return tx_say(s, true, "250 2.1.5 Ok");
    }
    if (tx->n_rcpts == tx->cap_rcpts) {
        tx->cap_rcpts = tx->cap_rcpts == 0 ? 4 : tx->cap_rcpts * 2;
        tx->rcpts = mem_realloc(tx->rcpts, tx->cap_rcpts * sizeof *tx->rcpts);
    }
    if (tx->n_rcpts == 0) {
        mailerr_copy(&tx->first.why, &tx->unlisted.why);
        tx->first.coded = tx->unlisted.coded;
    }
    tx->rcpts[tx->n_rcpts++] = tx->pending;
    kset_add(&tx->named, tx->pending.key, (void *)(uintptr_t)tx->n_rcpts);
    envelope_count(tx);
    if (tx->qid[0] == '\0') {
        qid_next(s->p->enable_long_queue_ids, &tx->id, tx->qid);
        client_text(&s->client, &from);
        if (s->sasl_user != NULL)
            sbuf_printf(&from, ", sasl_method=%s, sasl_username=%s", s->sasl_method, s->sasl_user);
        if (tx->auth.n > 0)
            sbuf_printf(&from, ", sasl_sender=%s", tx->auth.p);
        forwarded_add(s, &from);
        if (!s->client.local)
            log_as(s->svc->log_name, "smtpd", "%s: client=%s", tx->qid, from.p);
    }
    sbuf_free(&from);
    return tx_say(s, true, "250 2.1.5 Ok");
}

/* Refuses the pending recipient: "code <address>: text". */
static enum cmd rcpt_refuse(struct session *s, const char *code, struct str text) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s <", code);
    addr_external(&b, pending_addr(s->tx));
    sbuf_add_c(&b, ">: ");
    sbuf_add_str(&b, text);
    transaction_reject(s, "RCPT", b.p);
    sbuf_free(&b);
    s->tx->texts.n = s->tx->pending.addr_at;
    return CMD_DONE;
}

/* Access has nothing against the recipient. */
static enum cmd rcpt_allowed(struct session *s) {
    /* A transport that Posthouse does not have would keep the mail until it expires: better to say
     * so while the sender still has it. */
    if (s->tx->acts.discard) /* it goes nowhere */
        return rcpt_accept(s);
    if (!s->tx->served && s->tx->pending.aliased == MATCH_ERROR)
        return rcpt_refuse(s, "451 4.3.0", STR_LIT("Temporary lookup failure"));
    if (!s->tx->served)
        return rcpt_refuse(
            s, "451 4.3.5",
            s->tx->is_alias
                ? STR_LIT("mail transport unavailable: this alias asks for more than forwarding")
                : STR_LIT("mail transport unavailable: Posthouse relays only, see transport_maps"));
    return rcpt_accept(s);
}

static void on_rcpt_access(void *arg, enum verdict v, unsigned code, const char *text) {
    struct session *s = arg;
    enum cmd rc;
    s->tx->access = NULL;
    if (v == VERDICT_REJECT) {
        rc = transaction_refuse(s, "RCPT", code, text);
        s->tx->texts.n = s->tx->pending.addr_at;
    } else {
        rc = rcpt_allowed(s);
    }
    smtpd_answered(s, rc);
}

static void rcpt_ask_access(struct session *s) {
    struct access_facts f = transaction_facts(s, &s->tx->pending);
    s->tx->access = access_begin(&f, ACCESS_RCPT, on_rcpt_access, s);
}

/* A name that a local transport delivers is taken if it stands for addresses.  What is wrong with
 * an alias is for the log, and not for strangers. */
static void on_rcpt_alias(void *arg, struct alias_result *r) {
    struct session *s = arg;
    s->tx->alias = NULL;
    s->tx->served = r->rc == ALIAS_OK;
    s->tx->is_alias = r->is_named;
    if (r->rc == ALIAS_FAILED) {
        smtpd_answered(s, rcpt_refuse(s, "451 4.3.0", STR_LIT("Temporary lookup failure")));
        return;
    }
    if (r->rc == ALIAS_WAITS && r->is_named)
        log_warn("local", "mail is not taken: %s", r->why.p);
    rcpt_ask_access(s);
}

/* What goes on to others is no matter of the transport that the recipient has. */
static void rcpt_ask_alias(struct session *s) {
    struct transaction *tx = s->tx;
    bool aliased = tx->pending.aliased == MATCH_YES;
    tx->served = tx->served || aliased;
    if (tx->is_local && !aliased)
        tx->alias = alias_expand(s->cfg, s->r->lookup, pending_addr(tx), NULL, on_rcpt_alias, s);
    else
        rcpt_ask_access(s);
}

static void on_rcpt_virtual(void *arg, const struct virtual_result *r) {
    struct session *s = arg;
    s->tx->aliases = NULL;
    s->tx->pending.aliased = r->found                  ? MATCH_YES
                             : r->rc == VIRTUAL_FAILED ? MATCH_ERROR
                                                       : MATCH_NO;
    rcpt_ask_alias(s);
}

static void rcpt_ask_virtual(struct session *s) {
    struct transaction *tx = s->tx;
    if (s->cfg->p.virtual_alias_maps[0] ==
        '\0') { /* receive_override_options does not count here */
        rcpt_ask_alias(s);
        return;
    }
    tx->asked = (struct rcpt){.addr = pending_addr(tx)};
    tx->aliases = virtual_find(s->cfg, s->r->lookup, "NOQUEUE", &tx->asked, on_rcpt_virtual, s);
}

static void on_rcpt_route(void *arg, const struct route *r) {
    struct session *s = arg;
    struct transaction *tx = s->tx;
    const struct mailerr *refused = route_refuses(r);
    tx->route = NULL;
    tx->pending.address_class = r->address_class;
    tx->served = r->rc != ROUTE_BAD || (r->transport != NULL && service_is_client(r->transport) &&
                                        refusals_first(&r->transport->refusals) == NULL);
    tx->is_alias = false;
    tx->unlisted.coded = r->here_coded;
    mailerr_free(&tx->unlisted.why);
    if (refused != NULL)
        mailerr_copy(&tx->unlisted.why, refused);
    if (r->rc == ROUTE_FAILED) {
        smtpd_answered(s, rcpt_refuse(s, "451 4.3.0", STR_LIT("Temporary lookup failure")));
        return;
    }
    tx->is_local = r->rc == ROUTE_OK && r->transport->kind == SERVICE_LOCAL;
    rcpt_ask_virtual(s);
}

/* As Postfix: a client that has too many recipients for one message is told so for each, and is not
 * sent away for it until it has smtpd_recipient_overshoot_limit beyond the limit. */
static void rcpt_too_many(struct session *s) {
    bool counts = s->tx->n_beyond++ >= s->p->smtpd_recipient_overshoot_limit;
    tx_say(s, !counts, "452 4.5.3 Error: too many recipients");
}

/* sendmail(1) hands a message over whole. */
static bool rcpt_has_room(const struct session *s) {
    const struct transaction *tx = s->tx;
    size_t most = s->client.local ? SIZE_MAX : (size_t)s->p->smtpd_recipient_limit;
    return tx->n_rcpts < ENVELOPE_RCPTS_MAX && !envelope_is_full(s) &&
           tx->n_rcpts + tx->n_repeated < most;
}

/* May RCPT come now? */
static bool rcpt_expected(struct session *s, struct str args) {
    if (s->tx == NULL)
        tx_say(s, false, "503 5.5.1 Error: need MAIL command");
    else if (s->intake != NULL)
        tx_say(s, false, "503 5.5.1 Error: RCPT after BDAT"); /* RFC 3030 section 4.2 */
    else if (!str_istarts(args, "TO:"))
        tx_say(s, false, "501 5.5.4 Syntax: RCPT TO:<address>");
    else
        return !rate_exceeded(s, ANVIL_RCPT, s->p->smtpd_client_recipient_rate_limit);
    return false;
}

/* Reads the address and the parameters of a recipient; false if it was refused. */
static bool rcpt_parse(struct session *s, struct str args) {
    struct transaction *tx = s->tx;
    size_t len = 0, begun = tx->texts.n;
    struct str key, value;
    struct addr_opts o = {s->p->strict_rfc821_envelopes, takes_utf8(s), false};
    enum addr_rc rc = addr_parse(args, &o, &tx->texts, &len);
    rc = client_address(s, begun, rc);
    if (rc != ADDR_OK || is_option(s, begun)) {
        bad_address(s, rc, "501 5.1.3 Bad recipient address syntax");
        return false;
    }
    bool postmaster = str_ieq_c(str_make(tx->texts.p + begun, tx->texts.n - begun), "postmaster");
    size_t said_n = tx->texts.n - begun;
    complete(s, begun);
    tx->pending = (struct rcpt_in){.taken = postmaster || s->client.local,
                                   .addr_at = begun,
                                   .addr_n = tx->texts.n - begun,
                                   .said_n = said_n};
    for (struct str rest = str_from(args, len); smtp_param_next(&rest, &key, &value);)
        if (!rcpt_param(s, &tx->pending, key, value))
            return false;
    return true;
}

enum cmd transaction_rcpt(struct session *s, struct str args) {
    struct transaction *tx = s->tx;
    if (!rcpt_expected(s, args))
        return CMD_DONE;
    size_t begun = tx->texts.n;
    bool good = rcpt_parse(s, str_from(args, 3));
    if (good && !rcpt_has_room(s)) {
        rcpt_too_many(s);
        good = false;
    }
    if (!good) {
        tx->texts.n = begun;
        return CMD_DONE;
    }
    /* Postmaster is there for all clients (RFC 5321 section 4.5.1).  What a program hands to
     * sendmail is taken, and the queue says what becomes of it: cron and its like do not look at
     * the answer.  As with Postfix, restrictions are for clients. */
    mailerr_free(&tx->unlisted.why);
    if (tx->pending.taken)
        return rcpt_accept(s);
    tx->route = route_resolve(s->cfg, s->r->lookup, transaction_sender(tx), pending_addr(tx), NULL,
                              on_rcpt_route, s);
    return CMD_WAIT;
}
