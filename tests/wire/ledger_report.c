/*
 * tests/wire/ledger_report.c - the ledger reads reports (RFC 3464)
 *
 * A report says of each recipient what was said of that recipient and of nobody else; it goes to
 * the sender; and no line of it has been written by somebody who only had a parameter to fill.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ledger_inside.h"

/* The part with the fields of RFC 3464, or of RFC 6533 for an international sender; 0 bytes: there
 * is none. */
static struct bytes status_part(const struct bytes *b) {
    struct bytes out = {0};
    const char *at = bytes_find(b->p, b->n, "Content-Type: message/delivery-status\r\n");
    if (at == NULL)
        at = bytes_find(b->p, b->n, "Content-Type: message/global-delivery-status\r\n");
    if (at == NULL)
        return out;
    size_t left = b->n - (size_t)(at - b->p);
    const char *end = bytes_find(at, left, "\r\n\r\n--");
    if (end == NULL)
        end = bytes_find(at, left, "\r\n--");
    bytes_add(&out, at, end == NULL ? left : (size_t)(end - at) + 2);
    return out;
}

/* Everything but the original message must be without control characters. */
static void check_lines(struct ledger_take *t) {
    const char *p = t->content.p,
               *end = bytes_find(p, t->content.n, "Content-Description: Undelivered Message");
    size_t n = end == NULL ? t->content.n : (size_t)(end - p);
    for (size_t i = 0; i < n;) {
        const char *lf = memchr(p + i, '\n', n - i);
        size_t len = lf == NULL ? n - i : (size_t)(lf - p) - i;
        size_t text = len > 0 && p[i + len - 1] == '\r' ? len - 1 : len;
        int c = control_in(p + i, text);
        if (c >= 0)
            ledger_fail(t->c->l, "a line of a report has the control character %d: %.*s", c,
                        (int)text, p + i);
        i += len + 1;
    }
}

/* The value of a field in one group of fields (to the next empty line), unfolded; the caller's. */
static char *field(const char *group, size_t n, const char *name) {
    struct bytes out = {0};
    size_t len = strlen(name);
    for (size_t i = 0; i < n;) {
        const char *lf = memchr(group + i, '\n', n - i);
        size_t line = lf == NULL ? n - i : (size_t)(lf - group) - i + 1;
        bool mine = line > len && memcmp(group + i, name, len) == 0 && group[i + len] == ':';
        size_t from = i + len + 1;
        i += line;
        if (!mine)
            continue;
        while (i < n && (group[i] == ' ' || group[i] == '\t')) {
            lf = memchr(group + i, '\n', n - i);
            i = lf == NULL ? n : (size_t)(lf - group) + 1;
        }
        while (from < i && group[from] == ' ')
            from++;
        bytes_add(&out, group + from, i - from);
        break;
    }
    while (out.n > 0 && (out.p[out.n - 1] == '\n' || out.p[out.n - 1] == '\r'))
        out.p[--out.n] = '\0';
    return out.p == NULL ? bytes_copy("", 0) : out.p;
}

/* A reply that the report quotes was said of this recipient, of its message, or of no message. */
static void check_quote(struct ledger *l, const struct ledger_mail *m, const struct rcpt_entry *r,
                        const char *text, bool failed) {
    unsigned token = token_in(text, strlen(text));
    if (token == 0 || token >= l->n_said)
        return;
    const struct said *s = &l->said[token];
    if (s->code == 421 || s->of_all || s->code / 100 == 3 ||
        strstr(text, "temporarily suspended") != NULL)
        return; /* it is said of all that was on its way, or of the host */
    bool other = s->t != NULL &&
                 (!said_is_about(s, m) || (s->stage == STAGE_RCPT && s->t->rcpts[s->rcpt] != r));
    if ((s->c->crime & (CRIME_EXTRA | CRIME_FEWER)) != 0)
        return;
    if (other)
        ledger_fail(l, "the report about <%s> of message %u quotes what was said of another: %s",
                    r->addr, m->number, text);
    else if (failed && !m->expired && !said_permits_bounce(s, m, r))
        ledger_fail(l, "the report about <%s> of message %u quotes what ends nothing: %s", r->addr,
                    m->number, text);
}

/* The sender is warned of a delay once. */
static void check_warning(struct ledger *l, struct ledger_mail *m, const struct ledger_take *t) {
    if (m->warned && m->warned_by != t && !forgotten_after(l, m->warned_ms))
        ledger_fail(l, "the sender of message %u is warned of its delay twice", m->number);
    if (!m->warned)
        m->warned_ms = l->rules.now_ms(l->rules.arg);
    m->warned = true;
    m->warned_by = t;
}

/* What the report has as the whole message, behind Return-Path and our Received field; 0 bytes: it
 * says that it has the header only. */
static struct bytes original_part(struct ledger_mail *m, const struct bytes *b) {
    static const char whole[] = "\r\nContent-Type: message/rfc822\r\n", boundary[] = "\r\n--";
    struct bytes out = {0};
    const char *end = b->p + b->n, *p = bytes_find(b->p, b->n, whole), *last = NULL;
    if (p == NULL || (p = bytes_find(p, (size_t)(end - p), "\r\n\r\nReturn-Path: ")) == NULL)
        return out;
    p = bytes_find(p + 4, (size_t)(end - p) - 4, "\r\n") + 2;
    p += list_head(m, p, (size_t)(end - p));
    for (const char *at = p; (at = bytes_find(at, (size_t)(end - at), boundary)) != NULL; at++)
        last = at;
    bytes_add(&out, p, (size_t)((last == NULL ? end : last) - p));
    return out;
}

static void check_original(const struct ledger_take *t, struct ledger_mail *m) {
    struct ledger *l = t->c->l;
    struct bytes part = original_part(m, &t->content);
    char where[600];
    const char *why = part.n == 0 ? NULL
                                  : content_differs(&m->content, part.p, part.n,
                                                    l->rules.line_limit, where, sizeof where);
    if (why != NULL)
        ledger_fail(l, "the report about message %u has it as a whole, and it is not: %s",
                    m->number, why);
    bytes_free(&part);
}

/* The fields of one recipient. */
static void check_group(struct ledger_take *t, struct ledger_mail *m, const char *p, size_t n) {
    struct ledger *l = t->c->l;
    unsigned mail, num;
    char *final = field(p, n, "Final-Recipient"), *action = field(p, n, "Action");
    char *code = field(p, n, "Diagnostic-Code"), *original = field(p, n, "Original-Recipient");
    const char *semi = strchr(final, ';');
    bool failed = strcmp(action, "failed") == 0;
    if (strcmp(action, "delayed") == 0)
        check_warning(l, m, t);
    struct rcpt_entry *r = NULL;
    if (semi != NULL && address_numbers(semi, &mail, &num) && mail == m->number)
        r = mail_rcpt(m, num);
    if (r != NULL && strcmp(action, "expanded") == 0)
        changes_expanded(m, r);
    if (r == NULL) {
        ledger_fail(l, "the report about message %u names a recipient that it has not: %s",
                    m->number, final);
    } else {
        check_quote(l, m, r, code, failed);
        if (r->orcpt.n > 0 && strcmp(original, bytes_str(&r->orcpt)) != 0 &&
            control_in(r->orcpt.p, r->orcpt.n) < 0 && strchr(original, '+') == NULL)
            ledger_fail(l, "the report about <%s> of message %u has Original-Recipient %s, not %s",
                        r->addr, m->number, original, bytes_str(&r->orcpt));
        if (failed && r->reported && !forgotten_after(l, r->reported_ms) &&
            !forgotten_after(l, m->notified_ms))
            ledger_fail(l, "<%s> of message %u is reported twice", r->addr, m->number);
        if (failed && !r->reported)
            r->reported_ms = l->rules.now_ms(l->rules.arg);
        r->reported = r->reported || failed;
        if (failed && !r->bounced && !m->expired)
            ledger_fail(l, "the report about <%s> of message %u: failed, but the log does not",
                        r->addr, m->number);
        if (failed && !report_is_due(m, r))
            ledger_fail(l, "<%s> of message %u is reported, and NOTIFY forbids it", r->addr,
                        m->number);
    }
    free(final);
    free(action);
    free(code);
    free(original);
}

static void check_groups(struct ledger_take *t, struct ledger_mail *m, const struct bytes *part) {
    const char *p = part->p, *end = p + part->n;
    while (p < end) {
        const char *next = bytes_find(p, (size_t)(end - p), "\r\n\r\n");
        size_t n = next == NULL ? (size_t)(end - p) : (size_t)(next - p) + 2;
        if (bytes_find(p, n, "Final-Recipient:") != NULL)
            check_group(t, m, p, n);
        p = next == NULL ? end : next + 4;
    }
}

/* The message whose recipient is named first; its client may not have heard its queue ID. */
static struct ledger_mail *mail_of_recipient(struct ledger_take *t) {
    unsigned mail, num;
    char *final = field(t->content.p, t->content.n, "Final-Recipient");
    const char *semi = strchr(final, ';');
    bool known = semi != NULL && address_numbers(semi, &mail, &num);
    free(final);
    return known ? mail_by_number(t->c->l, mail) : NULL;
}

void report_taken(struct ledger_take *t, const char *qid) {
    struct ledger *l = t->c->l;
    char about[32] = "";
    struct report_entry *r = report_by_qid(l, qid);
    const char *id = bytes_find(t->content.p, t->content.n, "\r\nX-Postfix-Queue-ID: ");
    if (id != NULL)
        word_at(id + 22, about);
    struct ledger_mail *m = mail_by_qid(l, about);
    if (m == NULL && (m = mail_of_recipient(t)) != NULL && m->qid[0] != '\0')
        m = NULL;
    if (m == NULL) {
        ledger_fail(l, "host %u: a report (%s) about %s, which no client gave", t->c->host, qid,
                    about);
        return;
    }
    if (r == NULL)
        r = report_new(l, qid, m);
    if (strcmp(t->addrs[0], m->reports_to == NULL ? m->sender : m->reports_to) != 0)
        ledger_fail(l, "the report about message %u from <%s> came to <%s>", m->number, m->sender,
                    t->addrs[0]);
    struct ledger_road road = l->rules.road(l->rules.arg, "", t->addrs[0], 0);
    if ((road.hosts >> t->c->host & 1) == 0)
        ledger_fail(l, "the report to <%s> came to host %u: a wrong relay", t->addrs[0],
                    t->c->host);
    if (r->delivered > 0 && !ledger_down_since(l, r->last_ms) && r->last_conn->crime == 0)
        ledger_fail(l, "the report %s about message %u was delivered twice", qid, m->number);
    struct bytes part = status_part(&t->content);
    check_lines(t);
    if (r->delivered++ == 0) {
        check_groups(t, m, &part);
        check_original(t, m);
    }
    r->last_conn = t->c;
    r->last_ms = l->rules.now_ms(l->rules.arg);
    bytes_free(&part);
    secrets_look(l, "a report", t->content.p, t->content.n);
}
