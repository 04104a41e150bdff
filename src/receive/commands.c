/*
 * receive/commands.c - the SMTP commands, in Postfix's words (RFC 5321, postfix smtpd(8))
 */
#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "mail/mailerr.h"
#include "receive/session.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"

static bool wants_utf8(const struct session *s) {
    return (s->flags & ENV_SMTPUTF8) != 0;
}

struct str command_sender(const struct session *s) {
    return str_make(s->texts.p == NULL ? "" : s->texts.p, s->sender_n);
}

void command_greet(struct session *s) {
    conn_printf(s->conn, "220 %s\r\n", s->p->smtpd_banner);
}

/* "NOQUEUE: reject: RCPT from h[ip]: text; from=<> to=<> proto=ESMTP helo=<>". */
void command_log_reject(struct session *s, const char *stage, const char *text) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s: reject: %s from ", s->qid[0] == '\0' ? "NOQUEUE" : s->qid, stage);
    session_from(s, &b);
    sbuf_printf(&b, ": %s;", text);
    if (s->in_mail || s->verb == VERB_MAIL) {
        sbuf_add_c(&b, " from=<");
        addr_external(&b, command_sender(s));
        sbuf_add_ch(&b, '>');
    }
    bool rcpt = s->verb == VERB_RCPT;
    if (rcpt || s->n_rcpts == 1) {
        const struct rcpt_in *r = rcpt ? &s->pending : &s->rcpts[0];
        sbuf_add_c(&b, " to=<");
        addr_external(&b, str_make(s->texts.p + r->addr_at, r->addr_n));
        sbuf_add_ch(&b, '>');
    }
    sbuf_printf(&b, " proto=%s", s->esmtp ? "ESMTP" : "SMTP");
    if (s->helo != NULL)
        sbuf_printf(&b, " helo=<%s>", s->helo);
    log_as(s->svc->log_name, "smtpd", "%s", b.p);
    sbuf_free(&b);
}

static void reject(struct session *s, const char *stage, const char *text) {
    command_log_reject(s, stage, text);
    session_reply(s, false, "%s", text);
}

static void set_helo(struct session *s, struct str name) {
    free(s->helo);
    s->helo = str_dup(name);
    for (char *p = s->helo; *p != '\0'; p++)
        if ((unsigned char)*p <= ' ' || *p == 0x7f)
            *p = '?';
}

static void cmd_helo(struct session *s, struct str name) {
    if (name.n == 0) {
        session_reply(s, false, "501 Syntax: HELO hostname");
        return;
    }
    session_reset(s);
    set_helo(s, name);
    s->esmtp = false;
    session_reply(s, true, "250 %s", s->cfg->p.myhostname);
}

static bool offers_tls(const struct session *s) {
    const char *level = s->p->smtpd_tls_security_level;
    bool on = strcmp(level, "may") == 0 || strcmp(level, "encrypt") == 0;
    return s->r->tls != NULL && on && !s->tls_on && !s->local;
}

static bool must_tls(const struct session *s) {
    return strcmp(s->p->smtpd_tls_security_level, "encrypt") == 0 && !s->tls_on && !s->local;
}

static void ehlo_add(struct session *s, const char *words[], size_t *n, const char *keyword) {
    if (!session_word(s->p->smtpd_discard_ehlo_keywords, keyword))
        words[(*n)++] = keyword;
}

/* "AUTH PLAIN LOGIN" and, for old clients, "AUTH=PLAIN LOGIN". */
static void ehlo_add_auth(struct session *s, const char *words[], size_t *n, struct sbuf *text) {
    struct sbuf mechs = {0};
    auth_offer(s, &mechs);
    if (mechs.n > 0) {
        sbuf_printf(text, "AUTH %s", mechs.p);
        sbuf_add_ch(text, '\0');
        sbuf_printf(text, "AUTH=%s", mechs.p);
        if (!session_word(s->p->smtpd_discard_ehlo_keywords, "AUTH")) {
            words[(*n)++] = text->p;
            if (s->p->broken_sasl_auth_clients)
                words[(*n)++] = text->p + strlen(text->p) + 1;
        }
    }
    sbuf_free(&mechs);
}

/* In Postfix's order. */
void command_ehlo(struct session *s, struct str name) {
    const char *words[16];
    size_t n = 0;
    struct sbuf auth = {0};
    if (name.n == 0) {
        session_reply(s, false, "501 Syntax: EHLO hostname");
        return;
    }
    if (auth_ehlo_waits(s, name))
        return;
    session_reset(s);
    set_helo(s, name);
    s->esmtp = true;
    ehlo_add(s, words, &n, "PIPELINING");
    ehlo_add(s, words, &n, "SIZE");
    if (!s->p->disable_vrfy_command)
        ehlo_add(s, words, &n, "VRFY");
    if (offers_tls(s))
        ehlo_add(s, words, &n, "STARTTLS");
    ehlo_add_auth(s, words, &n, &auth);
    ehlo_add(s, words, &n, "ENHANCEDSTATUSCODES");
    ehlo_add(s, words, &n, "8BITMIME");
    ehlo_add(s, words, &n, "DSN");
    if (s->p->smtputf8_enable)
        ehlo_add(s, words, &n, "SMTPUTF8");
    ehlo_add(s, words, &n, "CHUNKING");
    s->total[VERB_EHLO]++;
    s->ok[VERB_EHLO]++;
    conn_printf(s->conn, "250%c%s\r\n", n > 0 ? '-' : ' ', s->cfg->p.myhostname);
    for (size_t i = 0; i < n; i++) {
        char sep = i + 1 < n ? '-' : ' ';
        if (strcmp(words[i], "SIZE") == 0)
            conn_printf(s->conn, "250%cSIZE %lld\r\n", sep,
                        (long long)s->cfg->p.message_size_limit);
        else
            conn_printf(s->conn, "250%c%s\r\n", sep, words[i]);
    }
    sbuf_free(&auth);
}

static bool mail_size(struct session *s, struct str value) {
    uint64_t size;
    int64_t limit = s->cfg->p.message_size_limit;
    if (!str_u64(value, &size)) {
        session_reply(s, false, "501 5.5.4 Bad message size syntax");
        return false;
    }
    if (limit > 0 && size > (uint64_t)limit) {
        reject(s, "MAIL", "552 5.3.4 Message size exceeds fixed limit");
        return false;
    }
    return true;
}

/* "<>" or xtext. */
static bool is_xtext(struct str value) {
    struct sbuf out = {0};
    bool ok = str_eq_c(value, "<>") || (value.n > 0 && xtext_decode(&out, value));
    sbuf_free(&out);
    return ok;
}

static bool mail_param(struct session *s, struct str key, struct str value) {
    if (str_ieq_c(key, "SIZE"))
        return mail_size(s, value);
    if (str_ieq_c(key, "BODY") && (str_ieq_c(value, "8BITMIME") || str_ieq_c(value, "7BIT"))) {
        s->flags |= str_ieq_c(value, "8BITMIME") ? ENV_8BIT : 0;
        return true;
    }
    if (str_ieq_c(key, "SMTPUTF8") && value.n == 0 && s->p->smtputf8_enable)
        return true; /* seen before the address was parsed */
    if (str_ieq_c(key, "AUTH") && s->p->smtpd_sasl_auth_enable && is_xtext(value))
        return true; /* RFC 4954 section 5: who wrote it is for trusted clients to say; not used */
    if (str_ieq_c(key, "RET") && (str_ieq_c(value, "FULL") || str_ieq_c(value, "HDRS"))) {
        s->flags |= str_ieq_c(value, "FULL") ? ENV_RET_FULL : ENV_RET_HDRS;
        return true;
    }
    if (str_ieq_c(key, "ENVID") && value.n > 0 && value.n <= 100 && s->envid.n == 0 &&
        xtext_decode(&s->envid, value))
        return true;
    if (str_ieq_c(key, "RET") || str_ieq_c(key, "ENVID") || str_ieq_c(key, "BODY") ||
        (str_ieq_c(key, "AUTH") && s->p->smtpd_sasl_auth_enable)) {
        session_reply(s, false, "501 5.5.4 Bad %.*s parameter syntax", STR_FMT(key));
        return false;
    }
    session_reply(s, false, "555 5.5.4 Unsupported option: %.*s%s%.*s", STR_FMT(key),
                  value.n > 0 ? "=" : "", STR_FMT(value));
    return false;
}

static bool has_space(struct session *s) {
    int64_t need = s->cfg->p.message_size_limit * 3 / 2;
    if (need < s->cfg->p.queue_minfree)
        need = s->cfg->p.queue_minfree;
    if (spool_space(s->r->spool) > need)
        return true;
    log_warn("smtpd", "not enough free space in mail queue: %lld bytes < 1.5*message size limit",
             (long long)spool_space(s->r->spool));
    session_reply(s, false, "452 4.3.1 Insufficient system storage");
    return false;
}

/* Adds @$myorigin to an address without a domain, .$mydomain to a domain without a dot; takes the
 * dot from the end of a domain.  Every table and every rule then sees one name for one domain. */
static void complete(struct session *s, size_t begun) {
    struct str a = str_make(s->texts.p + begun, s->texts.n - begun);
    if (a.n > 0 && str_rchr(a, '@') < 0 && s->p->append_at_myorigin)
        sbuf_printf(&s->texts, "@%s", s->cfg->p.myorigin);
    a = str_make(s->texts.p + begun, s->texts.n - begun);
    struct str domain = addr_domain(a);
    if (domain.n > 0 && domain.p[0] != '[' && str_chr(domain, '.') < 0 && s->p->append_dot_mydomain)
        sbuf_printf(&s->texts, ".%s", s->cfg->p.mydomain);
    a = str_make(s->texts.p + begun, s->texts.n - begun);
    domain = addr_domain(a);
    if (domain.n > 1 && domain.p[domain.n - 1] == '.' && domain.p[domain.n - 2] != '.')
        s->texts.p[--s->texts.n] = '\0';
}

static bool rate_exceeded(struct session *s, enum anvil_what what, int64_t limit,
                          const char *text) {
    if (limit == 0 || s->trusted_limits)
        return false;
    struct sbuf from = {0};
    int64_t n = anvil_event(s->addr, what, s->p->anvil_rate_time_unit);
    bool over = n > limit;
    if (over) {
        log_warn("smtpd", "%s delivery request rate limit exceeded: %lld from %s for service %s",
                 what == ANVIL_MESSAGE ? "Message" : "Recipient", (long long)n,
                 session_from(s, &from), s->svc->name);
        session_reply(s, false, "450 4.7.1 Error: too much mail from %s%s", s->addr, text);
    }
    sbuf_free(&from);
    return over;
}

static bool mail_allowed(struct session *s) {
    if (s->in_mail)
        session_reply(s, false, "503 5.5.1 Error: nested MAIL command");
    else if (must_tls(s))
        session_reply(s, false, "530 5.7.0 Must issue a STARTTLS command first");
    else if (s->helo == NULL && s->p->smtpd_helo_required)
        session_reply(s, false, "503 5.5.1 Error: send HELO/EHLO first");
    else if (!rate_exceeded(s, ANVIL_MESSAGE, s->p->smtpd_client_message_rate_limit, ""))
        return true;
    return false;
}

/* Non-ASCII is allowed in the address if SMTPUTF8 is among the parameters. */
static bool asks_utf8(const struct session *s, struct str args) {
    struct str rest = args, w;
    while (s->p->smtputf8_enable && str_split(&rest, " ", &w))
        if (str_ieq_c(w, "SMTPUTF8"))
            return true;
    return false;
}

static void cmd_mail(struct session *s, struct str args) {
    size_t len = 0;
    struct str key, value;
    if (!mail_allowed(s))
        return;
    if (!str_istarts(args, "FROM:")) {
        session_reply(s, false, "501 5.5.4 Syntax: MAIL FROM:<address>");
        return;
    }
    session_reset(s);
    args = str_from(args, 5);
    if (asks_utf8(s, args))
        s->flags |= ENV_SMTPUTF8;
    struct addr_opts o = {s->p->strict_rfc821_envelopes, wants_utf8(s) || !s->p->smtputf8_enable,
                          true};
    enum addr_rc rc = addr_parse(args, &o, &s->texts, &len);
    if (rc != ADDR_OK) {
        sbuf_reset(&s->texts);
        session_reply(s, false,
                      rc == ADDR_8BIT ? "553 5.6.7 Must declare SMTPUTF8 to send unicode address"
                                      : "501 5.1.7 Bad sender address syntax");
        return;
    }
    complete(s, 0);
    s->sender_n = s->texts.n;
    for (struct str rest = str_from(args, len); smtp_param_next(&rest, &key, &value);)
        if (!mail_param(s, key, value)) {
            session_reset(s);
            return;
        }
    if (!has_space(s)) {
        session_reset(s);
        return;
    }
    s->in_mail = true;
    session_expect(s, true);
    s->arrival_us = clock_wall_us();
    session_reply(s, true, "250 2.1.0 Ok");
}

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

static bool rcpt_param(struct session *s, struct rcpt_in *r, struct str key, struct str value) {
    if (str_ieq_c(key, "NOTIFY") && notify_parse(value, &r->notify))
        return true;
    ptrdiff_t semi = str_chr(value, ';');
    if (str_ieq_c(key, "ORCPT") && semi > 0 && addr_is_atom(str_make(value.p, (size_t)semi))) {
        r->orcpt_at = s->texts.n;
        sbuf_add(&s->texts, value.p, (size_t)semi + 1);
        if (xtext_decode(&s->texts, str_from(value, (size_t)semi + 1))) {
            r->orcpt_n = s->texts.n - r->orcpt_at;
            return true;
        }
    }
    if (str_ieq_c(key, "NOTIFY") || str_ieq_c(key, "ORCPT"))
        session_reply(s, false, "501 5.5.4 Error: Bad %.*s parameter syntax", STR_FMT(key));
    else
        session_reply(s, false, "555 5.5.4 Unsupported option: %.*s%s%.*s", STR_FMT(key),
                      value.n > 0 ? "=" : "", STR_FMT(value));
    return false;
}

static void rcpt_accept(struct session *s) {
    struct sbuf from = {0};
    if (s->n_rcpts == s->cap_rcpts) {
        s->cap_rcpts = s->cap_rcpts == 0 ? 4 : s->cap_rcpts * 2;
        s->rcpts = mem_realloc(s->rcpts, s->cap_rcpts * sizeof *s->rcpts);
    }
    s->rcpts[s->n_rcpts++] = s->pending;
    if (s->qid[0] == '\0') {
        qid_next(s->cfg->p.enable_long_queue_ids, &s->id, s->qid);
        session_from(s, &from);
        if (s->sasl_user != NULL)
            sbuf_printf(&from, ", sasl_method=%s, sasl_username=%s", s->sasl_method, s->sasl_user);
        if (!s->local)
            log_as(s->svc->log_name, "smtpd", "%s: client=%s", s->qid, from.p);
    }
    sbuf_free(&from);
    session_reply(s, true, "250 2.1.5 Ok");
}

/* A transport that Posthouse does not have would keep the mail until it expires: better to say so
 * while the sender still has it. */
static void rcpt_unserved(struct session *s) {
    struct sbuf b = {0};
    sbuf_add_c(&b, "451 4.3.5 <");
    addr_external(&b, str_make(s->texts.p + s->pending.addr_at, s->pending.addr_n));
    sbuf_add_c(&b, ">: mail transport unavailable: Posthouse relays only, see transport_maps");
    reject(s, "RCPT", b.p);
    sbuf_free(&b);
}

/* "error:5.1.1 no such place": the sender still has the mail, and learns it now. */
static void rcpt_refused(struct session *s) {
    struct sbuf b = {0};
    struct str text = sbuf_str(&s->route_text);
    char dsn[12];
    dsn_from_reply(dsn, s->route_refuses, text);
    if (text.n > strlen(dsn) && memcmp(text.p, dsn, strlen(dsn)) == 0)
        text = str_trim(str_from(text, strlen(dsn)));
    else
        memcpy(dsn, s->route_refuses == 450 ? "4.1.1" : "5.1.1", 6);
    sbuf_printf(&b, "%d %s <", s->route_refuses, dsn);
    addr_external(&b, str_make(s->texts.p + s->pending.addr_at, s->pending.addr_n));
    sbuf_printf(&b, ">: Recipient address rejected: %.*s", STR_FMT(text));
    reject(s, "RCPT", b.p);
    sbuf_free(&b);
}

void access_done(struct session *s, enum verdict v, const char *text) {
    bool waited = s->waiting;
    if (s->verb == VERB_DATA) {
        if (v == VERDICT_REJECT)
            reject(s, "DATA", text);
        else
            data_begin(s);
    } else if (s->verb == VERB_BDAT && v == VERDICT_REJECT) {
        reject(s, "BDAT", text);
        data_bdat_refuse(s);
    } else if (s->verb == VERB_BDAT) {
        data_bdat_begin(s);
    } else if (v == VERDICT_REJECT) {
        reject(s, "RCPT", text);
        s->texts.n = s->pending.addr_at;
    } else if (!s->route_served) {
        rcpt_unserved(s);
        s->texts.n = s->pending.addr_at;
    } else if (s->route_refuses != 0) {
        rcpt_refused(s);
        s->texts.n = s->pending.addr_at;
    } else {
        rcpt_accept(s);
    }
    if (waited)
        session_go(s);
}

static void on_route(void *arg, const struct route *r) {
    struct session *s = arg;
    struct sbuf b = {0};
    bool waited = s->waiting;
    s->route = NULL;
    s->route_class = r->address_class;
    s->route_served =
        r->rc != ROUTE_BAD || (r->transport != NULL && r->transport->kind == SERVICE_SMTP);
    s->route_refuses = 0;
    if (r->rc == ROUTE_OK && s->p->smtpd_reject_unlisted_recipient &&
        (r->transport->kind == SERVICE_ERROR || r->transport->kind == SERVICE_RETRY)) {
        bool soft =
            r->transport->kind == SERVICE_RETRY || (r->nexthop.n > 0 && *r->nexthop.p == '4');
        s->route_refuses = soft ? 450 : 550;
        sbuf_reset(&s->route_text);
        sbuf_add_str(&s->route_text, sbuf_str(&r->nexthop));
    }
    if (r->rc != ROUTE_FAILED) {
        access_begin(s, false);
        if (s->access != NULL && !s->waiting)
            session_wait(s);
        return;
    }
    sbuf_add_c(&b, "451 4.3.0 <");
    addr_external(&b, str_make(s->texts.p + s->pending.addr_at, s->pending.addr_n));
    sbuf_add_c(&b, ">: Temporary lookup failure");
    reject(s, "RCPT", b.p);
    s->texts.n = s->pending.addr_at;
    sbuf_free(&b);
    if (waited)
        session_go(s);
}

static void rcpt_decide(struct session *s) {
    struct str rcpt = str_make(s->texts.p + s->pending.addr_at, s->pending.addr_n);
    s->route = route_resolve(s->cfg, s->r->lookup, command_sender(s), rcpt, NULL, on_route, s);
    if (s->route != NULL && !s->waiting)
        session_wait(s);
}

static void cmd_rcpt(struct session *s, struct str args) {
    size_t len = 0, begun = s->texts.n;
    struct str key, value;
    struct addr_opts o = {s->p->strict_rfc821_envelopes, wants_utf8(s) || !s->p->smtputf8_enable,
                          false};
    if (!s->in_mail) {
        session_reply(s, false, "503 5.5.1 Error: need MAIL command");
        return;
    }
    if (s->bdat_begun || s->bdat_refused) {
        session_reply(s, false, "503 5.5.1 Error: RCPT after BDAT");
        return;
    }
    if (!str_istarts(args, "TO:")) {
        session_reply(s, false, "501 5.5.4 Syntax: RCPT TO:<address>");
        return;
    }
    if (s->n_rcpts >= (size_t)s->p->smtpd_recipient_limit) {
        session_reply(s, false, "452 4.5.3 Error: too many recipients");
        return;
    }
    if (rate_exceeded(s, ANVIL_RCPT, s->p->smtpd_client_recipient_rate_limit, ""))
        return;
    args = str_from(args, 3);
    enum addr_rc rc = addr_parse(args, &o, &s->texts, &len);
    if (rc != ADDR_OK) {
        s->texts.n = begun;
        session_reply(s, false,
                      rc == ADDR_8BIT ? "553 5.6.7 Must declare SMTPUTF8 to send unicode address"
                                      : "501 5.1.3 Bad recipient address syntax");
        return;
    }
    complete(s, begun);
    s->pending = (struct rcpt_in){.addr_at = begun, .addr_n = s->texts.n - begun};
    for (struct str rest = str_from(args, len); smtp_param_next(&rest, &key, &value);)
        if (!rcpt_param(s, &s->pending, key, value)) {
            s->texts.n = begun;
            return;
        }
    rcpt_decide(s);
}

static void cmd_data(struct session *s, struct str args) {
    if (s->bdat_begun || s->bdat_refused)
        session_reply(s, false, "503 5.5.1 Error: DATA after BDAT");
    else if (s->n_rcpts == 0)
        session_reply(s, false,
                      s->in_mail ? "554 5.5.1 Error: no valid recipients"
                                 : "503 5.5.1 Error: need RCPT command");
    else if (args.n > 0)
        session_reply(s, false, "501 5.5.4 Syntax: DATA");
    else if (s->p->smtpd_data_restrictions[0] == '\0')
        data_begin(s);
    else {
        access_begin(s, true);
        if (s->access != NULL)
            session_wait(s);
    }
}

static void cmd_vrfy(struct session *s, struct str args) {
    struct sbuf out = {0};
    size_t len;
    struct addr_opts o = {.utf8 = s->p->smtputf8_enable};
    if (s->p->disable_vrfy_command)
        session_reply(s, false, "502 5.5.1 VRFY command is disabled");
    else if (args.n == 0)
        session_reply(s, false, "501 5.5.4 Syntax: VRFY address");
    else if (addr_parse(args, &o, &out, &len) != ADDR_OK || len != args.n)
        session_reply(s, false, "501 5.1.3 Bad recipient address syntax");
    else
        session_reply(s, true, "252 2.0.0 %.*s", STR_FMT(args));
    sbuf_free(&out);
}

static void cmd_starttls(struct session *s, struct str args) {
    if (args.n > 0)
        session_reply(s, false, "501 5.5.4 Syntax: STARTTLS");
    else if (s->tls_on)
        session_reply(s, false, "554 5.5.1 Error: TLS already active");
    else if (!offers_tls(s))
        session_reply(s, false, "502 5.5.1 Error: command not implemented");
    else {
        session_reply(s, true, "220 2.0.0 Ready to start TLS");
        session_reset(s);
        free(s->helo);
        s->helo = NULL;
        s->esmtp = false;
        free(s->sasl_user); /* what was said in clear is forgotten */
        s->sasl_user = NULL;
        session_start_tls(s);
    }
}

/* NOOP, VRFY and RSET without mail in between are junk after a while. */
static void count_junk(struct session *s) {
    if (++s->junk > s->p->smtpd_junk_command_limit)
        s->errors++;
}

/* A browser or a header field: somebody confused a mail server. */
static bool is_forbidden(struct str line) {
    static const char *words[] = {"CONNECT ", "GET ", "POST "};
    for (size_t i = 0; i < 3; i++)
        if (str_istarts(line, words[i]))
            return true;
    size_t n = 0;
    while (n < line.n && line.p[n] > ' ' && line.p[n] != ':')
        n++;
    return n > 0 && n < line.n && line.p[n] == ':';
}

static void forbidden(struct session *s, struct str line) {
    struct sbuf from = {0};
    log_warn("smtpd", "non-SMTP command from %s: %.*s", session_from(s, &from),
             (int)(line.n > 100 ? 100 : line.n), line.p);
    sbuf_free(&from);
    session_reply(s, false, "221 2.7.0 Error: I can break rules, too. Goodbye.");
    session_close(s, NULL);
}

static void run_verb(struct session *s, enum smtp_verb v, struct str args) {
    switch (v) {
    case VERB_HELO:
        cmd_helo(s, args);
        break;
    case VERB_EHLO:
        command_ehlo(s, args);
        break;
    case VERB_MAIL:
        s->junk = 0;
        cmd_mail(s, args);
        break;
    case VERB_RCPT:
        cmd_rcpt(s, args);
        break;
    case VERB_DATA:
        cmd_data(s, args);
        break;
    case VERB_BDAT:
        data_bdat(s, args);
        break;
    case VERB_RSET:
        count_junk(s);
        session_reset(s);
        session_reply(s, true, "250 2.0.0 Ok");
        break;
    case VERB_NOOP:
        count_junk(s);
        session_reply(s, true, "250 2.0.0 Ok");
        break;
    case VERB_VRFY:
        count_junk(s);
        cmd_vrfy(s, args);
        break;
    case VERB_STARTTLS:
        cmd_starttls(s, args);
        break;
    case VERB_AUTH:
        auth_command(s, args);
        break;
    case VERB_QUIT:
        session_reply(s, true, "221 2.0.0 Bye");
        session_close(s, NULL);
        break;
    default:
        session_reply(s, false, "500 5.5.2 Error: command not recognized");
        break;
    }
}

/* An SMTP command is text (RFC 5321 section 2.3.8): blanks and TABs divide it, no other control
 * character has a place in any command. */
static bool is_malformed(struct str line) {
    if (str_trim(line).n == 0)
        return true;
    for (size_t i = 0; i < line.n; i++)
        if (line.p[i] != '\t' && str_has_control(str_make(line.p + i, 1)))
            return true;
    return false;
}

static void refuse_line(struct session *s, enum smtp_verb v) {
    if (v != VERB_BDAT)
        s->verb = VERB_UNKNOWN;
    session_reply(s, false, "%s 5.5.2 Error: bad syntax", v == VERB_BDAT ? "521" : "500");
    if (v == VERB_BDAT) /* the chunk that follows cannot be told from commands */
        session_close(s, NULL);
}

void command_line(struct session *s, struct str line) {
    struct str args;
    enum smtp_verb v = smtp_verb_parse(line, &args);
    s->verb = v;
    if (is_malformed(line)) {
        refuse_line(s, v);
        return;
    }
    if (v == VERB_UNKNOWN && is_forbidden(line)) {
        forbidden(s, line);
        return;
    }
    bool free_before_tls = v == VERB_EHLO || v == VERB_HELO || v == VERB_NOOP || v == VERB_QUIT ||
                           v == VERB_STARTTLS || v == VERB_UNKNOWN;
    if (must_tls(s) && !free_before_tls) {
        session_reply(s, false, "530 5.7.0 Must issue a STARTTLS command first");
        return;
    }
    run_verb(s, v, args);
}
