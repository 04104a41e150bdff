/*
 * report/dsn.c - delivery status notifications; see dsn.h
 */
#include "report/dsn.h"

#include <string.h>

#include "mail/address.h"
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
    return d->kind == DSN_FAILED ? "failed" : d->kind == DSN_DELAYED ? "delayed" : "relayed";
}

static void crlf(struct sbuf *b, const char *line) {
    sbuf_add_c(b, line);
    sbuf_add_c(b, "\r\n");
}

static void add_header(const struct dsn *d, const char *qid, const char *boundary, int64_t now,
                       struct sbuf *b) {
    const struct params *p = &d->cfg->p;
    sbuf_printf(b, "Received: by %s (%s)\r\n\tid %s; ", p->myhostname, p->mail_name, qid);
    clock_add_rfc5322(b, now);
    sbuf_add_c(b, "\r\nDate: ");
    clock_add_rfc5322(b, now);
    sbuf_printf(b, "\r\nFrom: Mail Delivery System <MAILER-DAEMON@%s>\r\n", p->myorigin);
    sbuf_printf(b, "Subject: %s\r\nTo: ", subject(d->kind));
    addr_external(b, d->env->sender);
    sbuf_printf(b,
                "\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n"
                "Content-Type: multipart/report; report-type=delivery-status;\r\n"
                "\tboundary=\"%s\"\r\nContent-Transfer-Encoding: 8bit\r\n"
                "Message-Id: <%s@%s>\r\n\r\n",
                boundary, qid, p->myhostname);
    crlf(b, "This is a MIME-encapsulated message.\r\n");
}

/* Folds text at blanks to lines of about 78, four blanks in front of each but the first. */
static void add_folded(struct sbuf *b, struct str text, size_t col) {
    struct str w;
    bool first = true;
    while (str_split(&text, " \r\n\t", &w)) {
        if (!first && col + w.n + 1 > 78) {
            sbuf_add_c(b, "\r\n    ");
            col = 4;
        } else if (!first) {
            sbuf_add_ch(b, ' ');
            col++;
        }
        sbuf_add_safe(b, w);
        col += w.n;
        first = false;
    }
    sbuf_add_c(b, "\r\n");
}

static void add_words(const struct dsn *d, struct sbuf *b) {
    static const char *failed =
        "I'm sorry to have to inform you that your message could not\r\n"
        "be delivered to one or more recipients. It's attached below.\r\n\r\n"
        "For further assistance, please send mail to postmaster.\r\n\r\n"
        "If you do so, please include this problem report. You can\r\n"
        "delete your own text from the attached returned message.\r\n\r\n"
        "                   The mail system\r\n";
    static const char *delayed =
        "####################################################################\r\n"
        "# THIS IS A WARNING ONLY.  YOU DO NOT NEED TO RESEND YOUR MESSAGE. #\r\n"
        "####################################################################\r\n\r\n"
        "Your message has not been delivered yet to one or more recipients.\r\n"
        "It will be retried until it is delivered or too old.\r\n\r\n"
        "                   The mail system\r\n";
    static const char *relayed =
        "Your message was handed over to the mail system named below, which\r\n"
        "does not report on deliveries: no further notice will come from there.\r\n\r\n"
        "                   The mail system\r\n";
    sbuf_printf(b, "This is the mail system at host %s.\r\n\r\n", d->cfg->p.myhostname);
    sbuf_add_c(b, d->kind == DSN_FAILED ? failed : d->kind == DSN_DELAYED ? delayed : relayed);
    for (size_t i = 0; i < d->n; i++) {
        size_t begun = b->n + 2;
        sbuf_add_c(b, "\r\n<");
        addr_external(b, d->rcpts[i].rcpt->addr);
        sbuf_add_c(b, ">: ");
        add_folded(b, str_of(d->rcpts[i].err->text == NULL ? "" : d->rcpts[i].err->text),
                   b->n - begun);
    }
    sbuf_add_c(b, "\r\n");
}

static void add_address(struct sbuf *b, const char *field, struct str addr) {
    sbuf_printf(b, "%s: %s; ", field, addr_is_ascii(addr) ? "rfc822" : "utf-8");
    addr_external(b, addr);
    sbuf_add_c(b, "\r\n");
}

static void add_rcpt_status(const struct dsn *d, const struct dsn_rcpt *r, struct sbuf *b) {
    add_address(b, "\r\nFinal-Recipient", r->rcpt->addr);
    if (r->rcpt->orcpt.n > 0)
        sbuf_printf(b, "Original-Recipient: %.*s\r\n", STR_FMT(r->rcpt->orcpt));
    else {
        sbuf_add_c(b, "Original-Recipient: rfc822;");
        addr_external(b, r->rcpt->addr);
        sbuf_add_c(b, "\r\n");
    }
    sbuf_printf(b, "Action: %s\r\nStatus: %s\r\n", action(d), r->err->dsn);
    if (r->err->mta != NULL)
        sbuf_printf(b, "Remote-MTA: dns; %s\r\n", r->err->mta);
    const char *text = r->err->reply != NULL ? r->err->reply : r->err->text;
    size_t begun = b->n;
    sbuf_add_c(b,
               r->err->reply != NULL ? "Diagnostic-Code: smtp; " : "Diagnostic-Code: X-Postfix; ");
    add_folded(b, str_of(text == NULL ? "" : text), b->n - begun);
    if (d->kind == DSN_DELAYED) {
        sbuf_add_c(b, "Will-Retry-Until: ");
        clock_add_rfc5322(b, d->expires_us);
        sbuf_add_c(b, "\r\n");
    }
}

static void add_status(const struct dsn *d, struct sbuf *b) {
    sbuf_printf(b, "Reporting-MTA: dns; %s\r\n", d->cfg->p.myhostname);
    if (d->env->envid.n > 0)
        sbuf_printf(b, "Original-Envelope-Id: %.*s\r\n", STR_FMT(d->env->envid));
    sbuf_printf(b, "X-Postfix-Queue-ID: %s\r\n", d->env->qid);
    add_address(b, "X-Postfix-Sender", d->env->sender);
    sbuf_add_c(b, "Arrival-Date: ");
    clock_add_rfc5322(b, d->env->arrival_us);
    sbuf_add_c(b, "\r\n");
    for (size_t i = 0; i < d->n; i++)
        add_rcpt_status(d, &d->rcpts[i], b);
}

/* The header section of content, its blank line excluded. */
static struct str header_part(struct str content) {
    const char *end = content.n == 0 ? NULL : memmem(content.p, content.n, "\r\n\r\n", 4);
    return end == NULL ? content : str_make(content.p, (size_t)(end - content.p) + 2);
}

static void add_original(const struct dsn *d, struct sbuf *b) {
    bool full = d->kind == DSN_FAILED && d->original_whole && (d->env->flags & ENV_RET_HDRS) == 0 &&
                d->env->size <= (uint64_t)d->cfg->p.bounce_size_limit;
    sbuf_printf(b,
                "Content-Description: Undelivered Message%s\r\nContent-Type: %s\r\n"
                "Content-Transfer-Encoding: 8bit\r\n\r\nReturn-Path: <",
                full ? "" : " Headers", full ? "message/rfc822" : "text/rfc822-headers");
    addr_external(b, d->env->sender);
    sbuf_add_c(b, ">\r\n");
    sbuf_add_str(b, full ? d->original : header_part(d->original));
}

struct envelope *dsn_build(const struct dsn *d, struct sbuf *b) {
    struct envelope t = {.flags =
                             ENV_8BIT | ENV_LOCAL | (d->env->flags & (ENV_DOTS | ENV_LONG_LINES)),
                         .client = STR_LIT("local")};
    struct sbuf boundary = {0};
    struct rcpt to = {.addr = d->env->sender};
    int64_t now = clock_wall_us();
    qid_next(d->cfg->p.enable_long_queue_ids, &t.id, t.qid);
    sbuf_printf(&boundary, "%s.%lld/%s", d->env->qid, (long long)(now / 1000000),
                d->cfg->p.myhostname);
    add_header(d, t.qid, boundary.p, now, b);
    sbuf_printf(b,
                "--%s\r\nContent-Description: Notification\r\nContent-Type: text/plain; "
                "charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
                boundary.p);
    add_words(d, b);
    sbuf_printf(b,
                "--%s\r\nContent-Description: Delivery report\r\n"
                "Content-Type: message/delivery-status\r\n\r\n",
                boundary.p);
    add_status(d, b);
    sbuf_printf(b, "\r\n--%s\r\n", boundary.p);
    add_original(d, b);
    sbuf_printf(b, "\r\n--%s--\r\n", boundary.p);
    sbuf_free(&boundary);
    t.arrival_us = now;
    t.size = b->n;
    t.rcpts = &to;
    t.n_rcpts = 1;
    return envelope_make(&t);
}
