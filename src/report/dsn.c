/*
 * report/dsn.c - delivery status notifications; see dsn.h
 */
#include "report/dsn.h"

#include <stdarg.h>
#include <string.h>

#include "mail/address.h"
#include "smtp/content.h"
#include "util/clock.h"

const char *dsn_log_name(enum dsn_kind k) {
    return k == DSN_FAILED    ? "sender non-delivery notification"
           : k == DSN_DELAYED ? "sender delay notification"
                              : "sender delivery status notification";
}

static const char *subject(enum dsn_kind k) {
    return k == DSN_FAILED    ? "Undelivered Mail Returned to Sender"
           : k == DSN_DELAYED ? "Delayed Mail (still being retried)"
                              : "Successful Mail Delivery Report";
}

static const char *action(const struct dsn *d) {
    static const char *const actions[] = {[DSN_FAILED] = "failed",
                                          [DSN_DELAYED] = "delayed",
                                          [DSN_RELAYED] = "relayed",
                                          [DSN_EXPANDED] = "expanded",
                                          [DSN_LISTED] = "delivered"};
    return actions[d->kind];
}

/* A report being written.  All text but the original message goes through report_line and
 * report_fold, which cannot emit a control character: no text from outside ends a line. */
struct report {
    const struct dsn *d;
    struct sbuf text; /* as it is written; normalised at the end */
    char qid[QID_MAX];
    char *boundary; /* owned */
    int64_t now_us;
    bool utf8; /* the original asked for SMTPUTF8: the form of RFC 6533 */
};

/* Where text is folded at a blank, and where without one. */
#define FOLD_AT  79U
#define BREAK_AT 900U

/* Appends one line; fmt has no line end. */
static void report_line(struct report *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void report_line(struct report *r, const char *fmt, ...) {
    struct sbuf line = {0};
    va_list ap;
    va_start(ap, fmt);
    sbuf_vprintf(&line, fmt, ap);
    va_end(ap);
    sbuf_add_safe(&r->text, sbuf_str(&line));
    sbuf_add_c(&r->text, "\r\n");
    sbuf_free(&line);
}

/* How much of a word fits into a line of its own; never the half of a UTF-8 character. */
static size_t piece_of(struct str word) {
    size_t n = word.n < BREAK_AT ? word.n : BREAK_AT;
    while (n < word.n && n > BREAK_AT - 4 && ((unsigned char)word.p[n] & 0xc0U) == 0x80)
        n--;
    return n;
}

/* Appends start and text as one logical line: folded at blanks to lines of about FOLD_AT, four
 * blanks in front of each but the first; words that are too long are broken. */
static void report_fold(struct report *r, struct str start, struct str text) {
    struct str word;
    size_t col = start.n;
    bool first = true;
    sbuf_add_safe(&r->text, start);
    while (str_split(&text, " \r\n\t", &word)) {
        while (word.n > 0) {
            size_t n = piece_of(word);
            if (!first && col + n + 1 > FOLD_AT) {
                sbuf_add_c(&r->text, "\r\n    ");
                col = 4;
            } else if (!first) {
                sbuf_add_ch(&r->text, ' ');
                col++;
            }
            sbuf_add_safe(&r->text, str_make(word.p, n));
            col += n;
            first = false;
            word = str_from(word, n);
        }
    }
    sbuf_add_c(&r->text, "\r\n");
}

/* "Name: value" with an address after the value. */
static void report_address(struct report *r, const char *start, struct str addr, const char *end) {
    struct sbuf shown = {0};
    addr_external(&shown, addr);
    report_line(r, "%s%.*s%s", start, STR_FMT(sbuf_str(&shown)), end);
    sbuf_free(&shown);
}

static void report_time(struct report *r, const char *start, int64_t us) {
    struct sbuf when = {0};
    clock_add_rfc5322(&when, us);
    report_line(r, "%s%s", start, when.p);
    sbuf_free(&when);
}

static void report_part(struct report *r, const char *description, const char *type) {
    report_line(r, "--%s", r->boundary);
    report_line(r, "Content-Description: %s", description);
    report_line(r, "Content-Type: %s", type);
}

static void add_header(struct report *r) {
    const struct params *p = &r->d->cfg->p;
    report_line(r, "Received: by %s (%s)", p->myhostname, p->mail_name);
    struct sbuf id = {0};
    sbuf_add_ch(&r->text, '\t');
    sbuf_printf(&id, "id %s; ", r->qid);
    report_time(r, id.p, r->now_us);
    sbuf_free(&id);
    report_time(r, "Date: ", r->now_us);
    report_line(r, "From: Mail Delivery System <MAILER-DAEMON@%s>", p->myorigin);
    report_line(r, "Subject: %s", subject(r->d->kind));
    report_address(r, "To: ", r->d->env->sender, "");
    if ((r->d->env->flags & ENV_TLS_OPTIONAL) != 0)
        report_line(r, "TLS-Required: no");
    report_line(r, "Auto-Submitted: auto-replied");
    report_line(r, "MIME-Version: 1.0");
    report_line(r, "Content-Type: multipart/report; report-type=%sdelivery-status;",
                r->utf8 ? "global-" : "");
    sbuf_add_ch(&r->text, '\t');
    report_line(r, "boundary=\"%s\"", r->boundary);
    report_line(r, "Content-Transfer-Encoding: 8bit");
    struct sbuf message_id = {0};
    qid_message_id(&message_id, r->qid, r->now_us, p->myhostname);
    report_line(r, "Message-Id: %s", message_id.p);
    sbuf_free(&message_id);
    report_line(r, "%s", "");
    report_line(r, "This is a MIME-encapsulated message.");
    report_line(r, "%s", "");
}

static struct str text_of_error(const struct mailerr *e) {
    return str_of(e->text == NULL ? "" : e->text);
}

static void add_warning(struct report *r) {
    static const char rule[] =
        "####################################################################";
    const struct params *p = &r->d->cfg->p;
    report_line(r, "%s", rule);
    report_line(r, "# THIS IS A WARNING ONLY.  YOU DO NOT NEED TO RESEND YOUR MESSAGE. #");
    report_line(r, "%s", rule);
    report_line(r, "%s", "");
    report_line(r, "Your message could not be delivered for more than %lld hour(s).",
                (long long)p->delay_warning_time / 3600);
    report_line(r, "It will be retried until it is %lld day(s) old.",
                (long long)p->maximal_queue_lifetime / 86400);
    report_line(r, "%s", "");
}

static void add_words(struct report *r) {
    const struct dsn *d = r->d;
    static const char *failed =
        "I'm sorry to have to inform you that your message could not\r\n"
        "be delivered to one or more recipients. It's attached below.\r\n\r\n"
        "For further assistance, please send mail to postmaster.\r\n\r\n"
        "If you do so, please include this problem report. You can\r\n"
        "delete your own text from the attached returned message.\r\n\r\n"
        "                   The mail system\r\n";
    static const char *delayed = "For further assistance, please send mail to postmaster.\r\n\r\n"
                                 "If you do so, please include this problem report. You can\r\n"
                                 "delete your own text from the attached returned message.\r\n\r\n"
                                 "                   The mail system\r\n";
    static const char *relayed =
        "Your message was handed over to the mail system named below, which\r\n"
        "does not report on deliveries: no further notice will come from there.\r\n\r\n"
        "                   The mail system\r\n";
    static const char *expanded =
        "Your message was successfully delivered to the destination(s)\r\n"
        "listed below. If the message was delivered to mailbox you will\r\n"
        "receive no further notifications. Otherwise you may still receive\r\n"
        "notifications of mail delivery errors from other systems.\r\n\r\n"
        "                   The mail system\r\n";
    report_line(r, "This is the mail system at host %s.", d->cfg->p.myhostname);
    report_line(r, "%s", "");
    if (d->kind == DSN_DELAYED)
        add_warning(r);
    sbuf_add_c(&r->text, d->kind == DSN_FAILED    ? failed
                         : d->kind == DSN_DELAYED ? delayed
                         : d->kind == DSN_RELAYED ? relayed
                                                  : expanded);
    for (size_t i = 0; i < d->n; i++) {
        struct sbuf who = {0};
        sbuf_add_ch(&who, '<');
        addr_external(&who, d->rcpts[i].rcpt->addr);
        sbuf_add_c(&who, ">: ");
        report_line(r, "%s", "");
        report_fold(r, sbuf_str(&who), text_of_error(d->rcpts[i].err));
        sbuf_free(&who);
    }
    report_line(r, "%s", "");
}

/* "Name: type;text" with what a client gave for reports.  These fields are ASCII (RFC 3464 section
 * 2.1.1): a text that is not is written as it was given, in xtext. */
static void report_given(struct report *r, const char *start, struct str type, struct str text) {
    struct sbuf coded = {0};
    if (!str_is_ascii(text)) {
        xtext_encode(&coded, text);
        text = sbuf_str(&coded);
    }
    report_line(r, "%s%.*s%.*s", start, STR_FMT(type), STR_FMT(text));
    sbuf_free(&coded);
}

static void report_original(struct report *r, struct str addr) {
    report_address(
        r, str_is_ascii(addr) ? "Original-Recipient: rfc822;" : "Original-Recipient: utf-8;", addr,
        "");
}

static void add_rcpt_status(struct report *r, const struct dsn_rcpt *rcpt) {
    const struct mailerr *e = rcpt->err;
    struct str addr = rcpt->rcpt->addr, orig = rcpt->rcpt->orig;
    report_line(r, "%s", "");
    report_address(r, str_is_ascii(addr) ? "Final-Recipient: rfc822; " : "Final-Recipient: utf-8; ",
                   addr, "");
    size_t type_n = (size_t)(str_chr(rcpt->rcpt->orcpt, ';') + 1);
    if (rcpt->rcpt->orcpt.n > 0)
        report_given(r, "Original-Recipient: ", str_make(rcpt->rcpt->orcpt.p, type_n),
                     str_from(rcpt->rcpt->orcpt, type_n));
    else
        report_original(r, orig.n > 0 ? orig : addr);
    report_line(r, "Action: %s", action(r->d));
    report_line(r, "Status: %s", e->dsn);
    if (e->mta != NULL)
        report_line(r, "Remote-MTA: dns; %s", e->mta);
    if (e->mta != NULL && e->reply != NULL)
        report_fold(r, STR_LIT("Diagnostic-Code: smtp; "), str_of(e->reply));
    else
        report_fold(r, STR_LIT("Diagnostic-Code: X-Postfix; "), text_of_error(e));
    if (r->d->kind == DSN_DELAYED)
        report_time(r, "Will-Retry-Until: ", r->d->expires_us);
}

static void add_status(struct report *r) {
    const struct envelope *env = r->d->env;
    report_line(r, "Reporting-MTA: dns; %s", r->d->cfg->p.myhostname);
    if (env->envid.n > 0)
        report_given(r, "Original-Envelope-Id: ", STR_NONE, env->envid);
    report_line(r, "X-Postfix-Queue-ID: %s", env->qid);
    report_address(
        r, str_is_ascii(env->sender) ? "X-Postfix-Sender: rfc822; " : "X-Postfix-Sender: utf-8; ",
        env->sender, "");
    report_time(r, "Arrival-Date: ", env->arrival_us);
    for (size_t i = 0; i < r->d->n; i++)
        add_rcpt_status(r, &r->d->rcpts[i]);
}

/* The header section of content, its blank line excluded. */
static struct str header_part(struct str content) {
    const char *end = content.n == 0 ? NULL : memmem(content.p, content.n, "\r\n\r\n", 4);
    return end == NULL ? content : str_make(content.p, (size_t)(end - content.p) + 2);
}

static void add_original(struct report *r) {
    const struct dsn *d = r->d;
    bool full = d->kind == DSN_FAILED && d->original_whole && (d->env->flags & ENV_RET_HDRS) == 0 &&
                d->env->size <= (uint64_t)d->cfg->p.bounce_size_limit;
    const char *type = full      ? r->utf8 ? "message/global" : "message/rfc822"
                       : r->utf8 ? "message/global-headers"
                                 : "text/rfc822-headers";
    bool undelivered = d->kind == DSN_FAILED || d->kind == DSN_DELAYED;
    report_part(r,
                full          ? "Undelivered Message"
                : undelivered ? "Undelivered Message Headers"
                              : "Message Headers",
                type);
    report_line(r, "Content-Transfer-Encoding: 8bit");
    report_line(r, "%s", "");
    report_address(r, "Return-Path: <", d->env->sender, ">");
    sbuf_add_str(&r->text, full ? d->original : header_part(d->original));
}

static void report_write(struct report *r) {
    add_header(r);
    report_part(r, "Notification", "text/plain; charset=utf-8");
    report_line(r, "Content-Transfer-Encoding: 8bit");
    report_line(r, "%s", "");
    add_words(r);
    report_part(r, "Delivery report",
                r->utf8 ? "message/global-delivery-status" : "message/delivery-status");
    if (r->utf8)
        report_line(r, "Content-Transfer-Encoding: 8bit");
    report_line(r, "%s", "");
    add_status(r);
    report_line(r, "%s", "");
    add_original(r);
    report_line(r, "%s", "");
    report_line(r, "--%s--", r->boundary);
}

/* What the content says of itself decides how it is sent, whatever the original was; it is always
 * declared as 8-bit, as Postfix's is. */
static uint32_t report_flags(const struct report *r, const struct content_in *in) {
    return ENV_LOCAL | ENV_8BIT | (r->d->env->flags & ENV_TLS_OPTIONAL) |
           (in->has_dots ? ENV_DOTS : 0U) | (in->has_long ? ENV_LONG_LINES : 0U) |
           (r->utf8 ? ENV_SMTPUTF8 : 0U);
}

struct envelope *dsn_build(const struct dsn *d, struct sbuf *content) {
    struct report r = {.d = d, .now_us = clock_wall_us()};
    struct envelope t = {.client = STR_LIT("local")};
    struct rcpt to = {.addr = d->env->sender};
    struct content_in in = {0};
    struct sbuf boundary = {0};
    qid_next(d->cfg->p.enable_long_queue_ids, &t.id, t.qid);
    memcpy(r.qid, t.qid, sizeof r.qid);
    sbuf_printf(&boundary, "%s.%lld/%s", d->env->qid, (long long)(r.now_us / 1000000),
                d->cfg->p.myhostname);
    r.boundary = boundary.p;
    r.utf8 = (d->env->flags & ENV_SMTPUTF8) != 0;
    report_write(&r);
    content_bdat(&in, sbuf_str(&r.text), content);
    content_bdat_end(&in, content);
    t.flags = report_flags(&r, &in);
    t.arrival_us = r.now_us;
    t.size = content->n;
    t.rcpts = &to;
    t.n_rcpts = 1;
    sbuf_free(&r.text);
    sbuf_free(&boundary);
    return envelope_make(&t);
}
