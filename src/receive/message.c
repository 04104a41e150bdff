/*
 * receive/message.c - DATA, BDAT, the fields that are added, 250; see message.h
 *
 * Content comes into the intake.  When it is whole it is refused, or it goes to the spool together
 * with its envelope; 250 is said when the spool has answered that both are durable.
 */
#include "receive/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "mail/address.h"
#include "mail/missing.h"
#include "receive/clientcert.h"
#include "receive/forwarded.h"
#include "receive/intake.h"
#include "receive/rewrite.h"
#include "receive/transaction.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/tls.h"

/* A message on its way through the spool. */
struct commit {
    struct spool_op op;
    struct task back;  /* to the session's loop */
    struct session *s; /* NULL: the client is gone */
    struct loop *loop;
    struct envelope *env;
    const struct receive_ops *ops;
};

/* -- what is added -- */

/* RFC 3848, RFC 6531. */
static const char *protocol_name(const struct session *s) {
    if (!s->esmtp)
        return "SMTP";
    bool utf8 = (s->tx->flags & ENV_SMTPUTF8) != 0;
    static const char *const names[2][2][2] = {
        {{"ESMTP", "ESMTPA"}, {"ESMTPS", "ESMTPSA"}},
        {{"UTF8SMTP", "UTF8SMTPA"}, {"UTF8SMTPS", "UTF8SMTPSA"}}};
    return names[utf8][s->tls_on][s->sasl_user != NULL];
}

static void add_certificate(const struct session *s, struct sbuf *b) {
    if (s->cert != NULL)
        sbuf_printf(b, "\t(Client CN \"%s\", Issuer \"%s\" (%s))\r\n", s->cert->name,
                    s->cert->issuer, s->cert->trusted ? "verified OK" : "not verified");
    else
        sbuf_add_c(b, s->p->smtpd_tls_ask_ccert ? "\t(Client did not present a certificate)\r\n"
                                                : "\t(No client certificate requested)\r\n");
}

static void add_tls(const struct session *s, struct sbuf *b) {
    if (s->tls_on && s->p->smtpd_tls_received_header) {
        sbuf_add_c(b, "\t(using ");
        tls_describe(conn_ssl(s->conn), "\r\n\t ", b);
        sbuf_add_c(b, ")\r\n");
        add_certificate(s, b);
    }
    if (s->sasl_user != NULL && s->p->smtpd_sasl_authenticated_header)
        sbuf_printf(b, "\t(Authenticated sender: %s)\r\n", s->sasl_user);
}

/* One recipient is named; several need not know of each other. */
static void add_for(const struct transaction *tx, struct sbuf *b) {
    if (tx->n_rcpts != 1) {
        sbuf_add_c(b, ";\r\n\t");
        return;
    }
    sbuf_add_c(b, "\r\n\tfor <");
    addr_external(b, transaction_rcpt_addr(tx, &tx->rcpts[0]));
    sbuf_add_c(b, ">; ");
}

/* Postfix's Received: header field. */
static void add_received(const struct session *s, struct sbuf *b) {
    const struct transaction *tx = s->tx;
    const struct client *c = &s->client;
    const struct params *p = &s->cfg->p;
    if (c->local) {
        sbuf_printf(b, "Received: by %s (%s, from userid %u)\r\n\tid %s; ", p->myhostname,
                    s->p->mail_name, c->uid, tx->qid);
    } else if (s->p->smtpd_hide_client_session) {
        sbuf_printf(b, "Received: by %s (%s) id %s", p->myhostname, s->p->mail_name, tx->qid);
        add_for(tx, b);
    } else {
        sbuf_printf(b, "Received: from %s (%s [%s%s])\r\n",
                    s->helo == NULL ? client_name(c) : s->helo, client_name(c),
                    strchr(c->addr, ':') != NULL ? "IPv6:" : "", c->addr);
        add_tls(s, b);
        sbuf_printf(b, "\tby %s (%s) with %s id %s", p->myhostname, s->p->mail_name,
                    protocol_name(s), tx->qid);
        add_for(tx, b);
    }
    clock_add_rfc5322(b, tx->arrival_us);
    sbuf_add_c(b, "\r\n");
}

/* Does this client get missing header fields added? */
static bool completes_headers(const struct session *s) {
    return s->p->always_add_missing_headers || s->tx->local_headers;
}

static void sender_as_author(const struct transaction *tx, struct sbuf *b) {
    if (tx->sender_n == 0)
        sbuf_add_c(b, "MAILER-DAEMON");
    else
        addr_external(b, transaction_sender(tx));
}

/* Fields that are missing, to be put at the end of the header section. */
static void missing_fields(void *arg, struct header_scan *h, struct sbuf *add) {
    const struct session *s = arg;
    struct sbuf author = {0};
    if (completes_headers(s)) {
        sender_as_author(s->tx, &author);
        struct missing m = {s->tx->qid, s->tx->arrival_us, s->cfg->p.myhostname, sbuf_str(&author)};
        missing_add(h, &m, add);
    }
    if (h->no_separator)
        sbuf_add_c(add, "\r\n");
    sbuf_free(&author);
}

/* -- into the spool -- */

/* What the mail is known to need of every host that it goes to.  As Postfix detects it: by
 * addresses and header fields, from where smtputf8_autodetect_classes says. */
static uint32_t utf8_flags(const struct session *s, const struct rcpts *to) {
    const struct transaction *tx = s->tx;
    struct str classes = str_of(s->p->smtputf8_autodetect_classes);
    bool detects = list_has_word(classes, "all") ||
                   list_has_word(classes, s->client.local ? "sendmail" : "smtpd");
    bool utf8 = s->intake->hdr.is_utf8 || !str_is_ascii(transaction_sender(tx));
    for (size_t i = 0; i < to->n && detects && !utf8; i++)
        utf8 = !str_is_ascii(to->v[i].addr);
    return (s->intake->hdr.is_utf8 ? ENV_UTF8_HEADER : 0U) |
           (detects && utf8 && s->p->smtputf8_enable ? ENV_SMTPUTF8 : 0U);
}

/* Has a line that a row or a policy service puts before the message a dot in front? */
static bool prepends_dots(const struct transaction *tx) {
    struct str rest = sbuf_str(&tx->acts.prepend), line;
    while (str_split(&rest, "\r\n", &line))
        if (line.p[0] == '.')
            return true;
    return false;
}

/* What the content is like.  Addresses in our own field make it 8-bit only where SMTPUTF8 does not
 * say that already: Postfix declares BODY=8BITMIME then if the client did. */
static uint32_t content_flags(const struct session *s, const struct rcpts *to) {
    const struct content_in *in = &s->intake->in;
    uint32_t flags = s->tx->flags | utf8_flags(s, to);
    bool own_8bit = s->intake->own_8bit && (flags & ENV_SMTPUTF8) == 0;
    bool tls_optional = s->intake->hdr.tls_optional > 0 && s->cfg->p.tls_required_enable;
    return flags | (in->has_8bit || own_8bit ? ENV_8BIT : 0U) |
           (in->has_dots || prepends_dots(s->tx) ? ENV_DOTS : 0U) |
           (in->has_long ? ENV_LONG_LINES : 0U) | (tls_optional ? ENV_TLS_OPTIONAL : 0U);
}

/* Where the message goes first, instead of where its recipients are, or nothing.  A row's or a
 * policy service's filter is stronger than the service's own, and REDIRECT than both, as with
 * Postfix. */
static struct str message_filter(const struct session *s) {
    const struct access_acts *acts = &s->tx->acts;
    if (acts->redirect.n > 0)
        return STR_NONE;
    return acts->filter.n > 0 ? sbuf_str(&acts->filter) : str_of(s->p->content_filter);
}

/* Does some transport tell hosts who brought a message? */
static bool origin_is_kept(const struct session *s) {
    return message_filter(s).n > 0 || s->forwarded != NULL || s->cfg->sends_origin;
}

static struct envelope *make_envelope(const struct session *s, const struct rcpts *to,
                                      uint64_t size) {
    const struct transaction *tx = s->tx;
    struct sbuf from = {0}, scratch = {0};
    struct origin origin = {0};
    if (origin_is_kept(s))
        origin = forwarded_origin(s, tx->local_headers, &scratch);
    client_text(&s->client, &from);
    struct envelope t = {.id = tx->id,
                         .arrival_us = tx->arrival_us,
                         .size = size,
                         .flags = content_flags(s, to) | (s->client.local ? ENV_LOCAL : 0U) |
                                  (tx->acts.hold ? ENV_HOLD : 0U),
                         .sender = transaction_sender(tx),
                         .envid = sbuf_str(&tx->envid),
                         .client = sbuf_str(&from),
                         .sasl_user = str_of(s->sasl_user == NULL ? "" : s->sasl_user),
                         .filter = message_filter(s),
                         .origin = origin,
                         .rcpts = to->v,
                         .n_rcpts = to->n};
    memcpy(t.qid, tx->qid, sizeof t.qid);
    struct envelope *e = envelope_make(&t);
    sbuf_free(&from);
    sbuf_free(&scratch);
    return e;
}

/* The client may come again; the log says why it has to. */
static void message_not_written(struct session *s, const char *qid, int rc) {
    smtpd_reply(s, false,
                spool_is_full(rc) ? "452 4.3.1 Insufficient system storage"
                                  : "451 4.3.0 Error: queue file write error");
    log_warn("smtpd", "%s: queue write error: %s", qid, strerror(-rc));
}

static void message_taken(struct session *s, const char *qid) {
    smtpd_reply(s, true, "250 2.0.0 Ok: queued as %s", qid);
    s->errors = s->junk = 0; /* as Postfix: a client that gets mail through may err again */
}

/* A row or a policy service has said DISCARD, and the log that it did: the client hears what it
 * hears of any mail. */
static enum cmd message_discarded(struct session *s) {
    message_taken(s, s->tx->qid);
    transaction_end(s);
    return CMD_DONE;
}

static void commit_reply(struct session *s, const struct commit *c) {
    if (c->op.rc < 0)
        message_not_written(s, c->env->qid, c->op.rc);
    else
        message_taken(s, c->env->qid);
}

/* The commit's answer, on the session's loop: the one place that says 250 to a message, but for
 * message_discarded. */
static void commit_back(struct task *t) {
    struct commit *c = DL_OWNER(t, struct commit, back);
    struct session *s = c->s;
    if (s != NULL) {
        s->commit = NULL;
        commit_reply(s, c);
    }
    envelope_unref(c->env);
    free(c);
    if (s != NULL)
        smtpd_answered(s, CMD_DONE);
}

static void commit_done(struct spool_op *op) {
    struct commit *c = DL_OWNER(op, struct commit, op);
    sbuf_free(&op->meta);
    intake_body_settled(op->body);
    if (op->rc == 0)
        c->ops->accepted(c->ops->arg, envelope_ref(c->env), op->body);
    else
        body_unref(op->body);
    c->back.run = commit_back;
    loop_post(c->loop, &c->back);
}

/* Hands the message over; the transaction is over with that. */
static enum cmd commit(struct session *s, const struct rcpts *to) {
    struct commit *c = MEM_NEW(struct commit);
    uint64_t size;
    c->s = s;
    c->loop = s->r->loop;
    c->ops = &s->r->ops;
    c->op.kind = SPOOL_NEW;
    c->op.id = s->tx->id;
    c->op.done = commit_done;
    c->op.body = intake_body(s->intake, &size);
    c->env = make_envelope(s, to, size);
    envelope_encode(c->env, &c->op.meta);
    s->commit = c;
    transaction_end(s);
    spool_submit(s->r->spool, &c->op);
    return CMD_WAIT;
}

void message_forget(struct session *s) {
    if (s->commit != NULL)
        s->commit->s = NULL;
    s->commit = NULL;
}

/* -- who gets it -- */

/* What the recipients stand for is not known. */
static enum cmd clean_failed(struct session *s, enum virtual_rc rc) {
    transaction_reject(s, "END-OF-MESSAGE",
                       rc == VIRTUAL_ENDLESS ? "451 4.6.0 Alias expansion error"
                       : rc == VIRTUAL_FULL  ? "452 4.3.1 Insufficient system storage"
                                             : "451 4.3.0 Error: queue file write error");
    transaction_end(s);
    return CMD_DONE;
}

/* Below, at or above 0, as with memcmp. */
static int text_order(struct str a, struct str b, bool folded) {
    size_t n = a.n < b.n ? a.n : b.n;
    int order = folded ? strncasecmp(a.p, b.p, n) : memcmp(a.p, b.p, n);
    return order != 0 ? order : (a.n > b.n) - (a.n < b.n);
}

/* Postfix's order of recipients: by domain, whatever its case, then by address. */
static bool rcpt_is_before(const struct rcpt *a, const struct rcpt *b) {
    int domains = text_order(addr_domain(a->addr), addr_domain(b->addr), true);
    return domains < 0 || (domains == 0 && text_order(a->addr, b->addr, false) < 0);
}

/* A row or a policy service has said REDIRECT: one recipient is left, and goes there.  As with
 * Postfix it is the first one in its order, whose sender's wishes are kept, and the new address
 * stands for itself.  What was expanded is no recipient any more: its sender is told of that all
 * the same. */
static void redirect(struct rcpts *to, struct str addr) {
    struct rcpt one = {.addr = STR_NONE};
    uint32_t n = 0, given = 0;
    for (uint32_t i = 0; i < to->n; i++) {
        if (to->v[i].expanded)
            to->v[n++] = to->v[i];
        else if (given++ == 0 || rcpt_is_before(&to->v[i], &one))
            one = to->v[i];
    }
    if (given == 0)
        return;
    if (one.orig.n == 0 && !str_ieq(one.addr, addr))
        one.orig = one.addr;
    one.addr = addr;
    to->v[n++] = one;
    to->n = n;
}

static enum cmd commit_to(struct session *s, struct rcpts to) {
    if (s->tx->acts.redirect.n > 0)
        redirect(&to, sbuf_str(&s->tx->acts.redirect));
    return commit(s, &to);
}

static void on_clean(void *arg, const struct virtual_result *r) {
    struct session *s = arg;
    s->tx->clean = NULL;
    enum cmd rc =
        r->rc == VIRTUAL_OK ? commit_to(s, (struct rcpts){r->rcpts, r->n}) : clean_failed(s, r->rc);
    if (rc != CMD_WAIT)
        smtpd_answered(s, rc);
}

/* The message is as its client gave it. */
static enum cmd clean(struct session *s) {
    struct transaction *tx = s->tx;
    const struct rcpts to = transaction_rcpts(tx);
    if (clean_is_idle(s->cfg, s->p))
        return commit_to(s, to);
    const struct clean_ask ask = {.cfg = s->cfg,
                                  .p = s->p,
                                  .lookup = s->r->lookup,
                                  .qid = tx->qid,
                                  .sender = transaction_sender(tx),
                                  .rcpts = to.v,
                                  .n = to.n};
    tx->clean = clean_begin(&ask, on_clean, s);
    return CMD_WAIT;
}

/* -- the end of the content -- */

static void log_message_id(const struct session *s) {
    const struct transaction *tx = s->tx;
    const struct sbuf *id = &s->intake->hdr.message_id;
    if (s->client.local) {
        struct sbuf b = {0};
        sbuf_printf(&b, "%s: uid=%u from=<", tx->qid, s->client.uid);
        addr_external(&b, transaction_sender(tx));
        log_info("pickup", "%s>", b.p);
        sbuf_free(&b);
    }
    log_info("cleanup", "%s: message-id=%s", tx->qid, id->n == 0 ? "<>" : id->p);
}

static void intake_start(struct session *s, enum intake_kind kind);

static bool refuse_content(struct session *s) {
    const struct intake *in = s->intake;
    if (in->failed < 0)
        message_not_written(s, s->tx->qid, in->failed);
    else if (in->too_big)
        transaction_reject(s, "END-OF-MESSAGE", "552 5.3.4 Error: message file too big");
    else if (in->hdr.received >= (unsigned)s->cfg->p.hopcount_limit)
        transaction_reject(s, "END-OF-MESSAGE", "554 5.4.0 Error: too many hops");
    else if (transaction_is_crowded_out(s)) /* since MAIL */
        transaction_reject(s, "END-OF-MESSAGE", "452 4.3.1 Insufficient system storage");
    else
        return false;
    return true;
}

/* Has the content a bare LF that the service forbids? */
static bool content_is_bare(const struct session *s) {
    return s->intake->in.has_bare && s->client.bare == BARE_REJECTED;
}

static enum cmd content_refuse_bare(struct session *s, const char *stage) {
    struct sbuf text = {0};
    bool last = transaction_bare_newline(s, stage, &text);
    smtpd_reply(s, false, "%s", text.p);
    sbuf_free(&text);
    return last ? CMD_CLOSE : CMD_DONE;
}

/* Asks smtpd_end_of_data_restrictions, if there are any; CMD_DONE: there are none. */
static enum cmd ask_at_end(struct session *s, access_fn fn) {
    struct transaction *tx = s->tx;
    if (s->p->smtpd_end_of_data_restrictions[0] == '\0' || s->client.local)
        return CMD_DONE;
    bool alone = tx->n_rcpts + tx->n_repeated == 1;
    struct access_facts f = transaction_facts(s, alone ? &tx->rcpts[0] : NULL);
    tx->access = access_begin(&f, ACCESS_END, fn, s);
    return CMD_WAIT;
}

static void on_end_access(void *arg, enum verdict v, unsigned code, const char *text) {
    struct session *s = arg;
    enum cmd rc;
    s->tx->access = NULL;
    if (v == VERDICT_REJECT) {
        rc = transaction_refuse(s, "END-OF-MESSAGE", code, text);
        transaction_end(s);
    } else {
        log_message_id(s);
        rc = s->tx->acts.discard ? message_discarded(s) : clean(s);
    }
    if (rc != CMD_WAIT)
        smtpd_answered(s, rc);
}

/* The content is complete, or what is left of a refused one was read. */
static enum cmd message_end(struct session *s) {
    s->came_bare = s->came_bare || s->intake->in.has_bare;
    if (s->intake->kind != INTAKE_REFUSED && content_is_bare(s)) {
        enum cmd rc = content_refuse_bare(s, "END-OF-MESSAGE");
        transaction_end(s);
        return rc;
    }
    if (s->intake->kind == INTAKE_REFUSED || refuse_content(s)) {
        transaction_end(s);
        return CMD_DONE;
    }
    if (s->tx->acts.discard)
        return message_discarded(s);
    if (ask_at_end(s, on_end_access) == CMD_WAIT)
        return CMD_WAIT;
    log_message_id(s);
    return clean(s);
}

static enum cmd chunk_end(struct session *s) {
    const struct intake *in = s->intake;
    if (in->kind == INTAKE_REFUSED) /* it was answered when it was refused */
        return CMD_DONE;
    if (content_is_bare(s)) { /* so are those that follow, and are read all the same */
        enum cmd rc = content_refuse_bare(s, "BDAT content");
        intake_free(s->intake);
        intake_start(s, INTAKE_REFUSED);
        return rc;
    }
    smtpd_reply(s, true, "250 2.0.0 Ok: %llu bytes", (unsigned long long)in->chunk_n);
    return in->writing != NULL ? CMD_WAIT : CMD_DONE;
}

/* What the intake says becomes the end of the command, or a wait. */
static enum cmd message_follow(struct session *s, enum intake_rc rc) {
    switch (rc) {
    case INTAKE_WAIT:
        return CMD_WAIT;
    case INTAKE_CHUNK:
        return chunk_end(s);
    case INTAKE_END:
        return message_end(s);
    default:
        return CMD_DONE;
    }
}

static void message_ready(void *arg) {
    struct session *s = arg;
    smtpd_answered(s, message_follow(s, intake_ready(s->intake)));
}

size_t message_input(struct session *s, const char *p, size_t n, enum cmd *rc) {
    enum intake_rc what = INTAKE_MORE;
    size_t used = intake_take(s->intake, p, n, &what);
    *rc = message_follow(s, what);
    return used;
}

/* -- DATA -- */

/* Bytes that content may have: as in Postfix, where smtpd's -o does not raise what cleanup takes.
 */
static int64_t content_limit(const struct session *s) {
    int64_t own = s->p->message_size_limit, all = s->cfg->p.message_size_limit;
    return own == 0 || (all > 0 && all < own) ? all : own;
}

/* What rows and policy services put before the message is edited as its header section is. */
static void add_prepended(const struct session *s, const struct edit_rules *rules,
                          struct sbuf *out) {
    struct header_edit e = {0};
    struct sbuf lines = {0};
    sbuf_add_str(&lines, sbuf_str(&s->tx->acts.prepend));
    header_edit(&e, rules, &lines, true, out);
    sbuf_free(&lines);
}

static void intake_start(struct session *s, enum intake_kind kind) {
    const struct params *p = &s->cfg->p;
    bool local = s->tx != NULL && s->tx->local_headers;
    const struct intake_ops ops = {
        .ready = message_ready,
        .missing = missing_fields,
        .size_limit = content_limit(s),
        .rules = {.drop = p->message_drop_headers,
                  .origin = local && p->append_at_myorigin ? p->myorigin : NULL,
                  .domain = local && p->append_dot_mydomain ? p->mydomain : NULL},
        .arg = s};
    struct sbuf received = {0};
    uint64_t id = kind == INTAKE_REFUSED ? 0 : s->tx->id;
    s->intake = intake_new(kind, s->r->loop, s->r->spool, &s->cfg->p, id, &ops);
    s->intake->in.bare_ends = s->client.bare == BARE_TAKEN;
    if (kind == INTAKE_REFUSED)
        return;
    add_prepended(s, &ops.rules, &received);
    add_received(s, &received);
    intake_begin(s->intake, &received);
}

static enum cmd data_begin(struct session *s) {
    if (s->tx->local_unknown) {
        transaction_reject(s, "DATA", "451 4.3.0 Temporary lookup failure");
        return CMD_DONE;
    }
    intake_start(s, INTAKE_DATA);
    smtpd_say(s, "354 End data with <CR><LF>.<CR><LF>"); /* counted at its end */
    return CMD_DONE;
}

/* Asks smtpd_data_restrictions, if there are any; CMD_DONE: there are none. */
static enum cmd ask_restrictions(struct session *s, access_fn fn) {
    struct transaction *tx = s->tx;
    if (s->p->smtpd_data_restrictions[0] == '\0' || s->client.local || tx->acts.discard)
        return CMD_DONE;
    bool alone = tx->n_rcpts + tx->n_repeated == 1;
    struct access_facts f = transaction_facts(s, alone ? &tx->rcpts[0] : NULL);
    tx->access = access_begin(&f, ACCESS_DATA, fn, s);
    return CMD_WAIT;
}

static void on_data_access(void *arg, enum verdict v, unsigned code, const char *text) {
    struct session *s = arg;
    s->tx->access = NULL;
    enum cmd rc = v == VERDICT_REJECT ? transaction_refuse(s, "DATA", code, text)
                                      : rewrite_ask(s, data_begin);
    if (rc != CMD_WAIT)
        smtpd_answered(s, rc);
}

enum cmd message_data(struct session *s, struct str args) {
    if (s->intake != NULL)
        smtpd_reply(s, false, "503 5.5.1 Error: DATA after BDAT");
    else if (s->tx == NULL)
        smtpd_reply(s, false, "503 5.5.1 Error: need RCPT command");
    else if (s->tx->n_rcpts == 0)
        smtpd_reply(s, false, "554 5.5.1 Error: no valid recipients");
    else if (args.n > 0)
        smtpd_reply(s, false, "501 5.5.4 Syntax: DATA");
    else
        return ask_restrictions(s, on_data_access) == CMD_WAIT ? CMD_WAIT
                                                               : rewrite_ask(s, data_begin);
    return CMD_DONE;
}

/* -- BDAT -- */

struct chunk {
    uint64_t n; /* bytes */
    bool last;
};

/* "count [LAST]". */
static bool chunk_parse(struct str args, struct chunk *c) {
    struct str w, last = STR_NONE;
    if (!str_split(&args, " \t", &w) || !str_u64(w, &c->n))
        return false;
    c->last = str_split(&args, " \t", &last);
    return (!c->last || str_ieq_c(last, "LAST")) && !str_split(&args, " \t", &w);
}

/* A chunk that was refused must still be read (RFC 3030 section 2), and so must those after it. */
static enum cmd chunk_drop(struct session *s, struct chunk c) {
    if (s->intake == NULL)
        intake_start(s, INTAKE_REFUSED);
    return message_follow(s, intake_chunk(s->intake, c.n, c.last));
}

static enum cmd chunk_refuse(struct session *s, struct chunk c, const char *reply) {
    smtpd_reply(s, false, "%s", reply);
    if (s->intake != NULL) {
        intake_free(s->intake);
        s->intake = NULL;
    }
    return chunk_drop(s, c);
}

static enum cmd chunk_take(struct session *s, struct chunk c) {
    return message_follow(s, intake_chunk(s->intake, c.n, c.last));
}

static enum cmd chunk_first(struct session *s) {
    struct chunk c = {s->tx->chunk_n, s->tx->chunk_last};
    if (s->tx->local_unknown) {
        transaction_reject(s, "BDAT", "451 4.3.0 Temporary lookup failure");
        return chunk_drop(s, c);
    }
    intake_start(s, INTAKE_BDAT);
    return chunk_take(s, c);
}

static void on_bdat_access(void *arg, enum verdict v, unsigned code, const char *text) {
    struct session *s = arg;
    struct chunk c = {s->tx->chunk_n, s->tx->chunk_last};
    enum cmd rc;
    s->tx->access = NULL;
    if (v != VERDICT_REJECT)
        rc = rewrite_ask(s, chunk_first);
    else if ((rc = transaction_refuse(s, "BDAT", code, text)) == CMD_DONE)
        rc = chunk_drop(s, c);
    if (rc != CMD_WAIT)
        smtpd_answered(s, rc);
}

enum cmd message_bdat(struct session *s, struct str args) {
    struct chunk c = {0};
    if (smtpd_discards(s, "CHUNKING")) { /* a chunk may follow: it would be commands */
        smtpd_reply(s, false, "521 5.5.1 Error: command not implemented");
        return CMD_CLOSE;
    }
    if (!chunk_parse(args, &c)) { /* what follows cannot be told from commands */
        smtpd_reply(s, false, "521 5.5.4 Syntax: BDAT count [LAST]");
        return CMD_CLOSE;
    }
    if (s->intake != NULL && s->intake->kind == INTAKE_REFUSED) {
        smtpd_reply(s, false, "551 5.0.0 Discarded %llu bytes after earlier error",
                    (unsigned long long)c.n);
        return chunk_drop(s, c);
    }
    if (c.n == 0 && !c.last)
        return chunk_refuse(s, c, "551 5.7.1 Null BDAT request");
    if (s->tx == NULL)
        return chunk_refuse(s, c, "503 5.5.1 Error: need RCPT command");
    if (s->tx->n_rcpts == 0)
        return chunk_refuse(s, c, "554 5.5.1 Error: no valid recipients");
    if (s->intake != NULL)
        return chunk_take(s, c);
    s->tx->chunk_n = c.n;
    s->tx->chunk_last = c.last;
    return ask_restrictions(s, on_bdat_access) == CMD_WAIT ? CMD_WAIT : rewrite_ask(s, chunk_first);
}
