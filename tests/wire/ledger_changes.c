/*
 * tests/wire/ledger_changes.c - the ledger on what becomes of an envelope on its way in
 *
 * A recipient may stand for others (virtual(5)): no mail goes to it, the message itself goes to
 * those, and what was said of it when it was named was said of them.  A policy service may have the
 * message put on hold, taken for nobody, sent elsewhere or to one more, or put a field before it;
 * no recipient is taken that the service was not asked about, or did not answer for.
 */
#include <stdio.h>
#include <string.h>

#include "ledger_inside.h"

void ledger_stands_for(struct ledger_mail *m, unsigned rcpt, unsigned number, const char *addr) {
    struct rcpt_entry *r = mail_rcpt(m, rcpt);
    struct bytes orcpt = {0};
    if (r->orcpt.n > 0)
        bytes_add(&orcpt, r->orcpt.p, r->orcpt.n);
    else
        bytes_printf(&orcpt, "rfc822;%s", r->addr);
    r->stands = true;
    ledger_mail_rcpt(m, number, addr, notify_of_members(r->notify), &orcpt);
    m->rcpts[m->n_rcpts - 1].stood_for_by = r;
    bytes_free(&orcpt);
}

void ledger_reports_to(struct ledger_mail *m, const char *addr) {
    m->reports_to = addr;
}

void changes_answer(struct ledger_mail *m, const struct rcpt_entry *r) {
    for (unsigned i = 0; i < m->n_rcpts; i++)
        if (m->rcpts[i].stood_for_by == r)
            m->rcpts[i].code = r->code;
}

void changes_check(const struct ledger_mail *m, const struct rcpt_entry *r, const char *what) {
    if (r->stands)
        ledger_fail(m->l, "<%s> of message %u stands for others, and %s", r->addr, m->number, what);
}

/* Has its sender asked to hear that it was expanded? */
static bool is_expansion_wanted(const struct ledger_mail *m, const struct rcpt_entry *r) {
    return r->stands && !r->redirected && !m->discarded && m->sender[0] != '\0' &&
           (r->notify & LEDGER_SUCCESS) != 0;
}

/* A report says that it was expanded. */
void changes_expanded(struct ledger_mail *m, struct rcpt_entry *r) {
    if (r->list != NULL) /* by alias_maps */
        return;
    if (!is_expansion_wanted(m, r))
        ledger_fail(m->l, "<%s> of message %u is said to be expanded, and that was not asked for",
                    r->addr, m->number);
    if (r->expanded && !forgotten_after(m->l, r->expanded_ms))
        ledger_fail(m->l, "<%s> of message %u is said to be expanded twice", r->addr, m->number);
    if (!r->expanded)
        r->expanded_ms = m->l->rules.now_ms(m->l->rules.arg);
    r->expanded = true;
}

/* The message is over: its sender has heard of it, or will. */
void changes_end(const struct ledger_mail *m, const struct rcpt_entry *r) {
    bool over = !m->deleted && !m->expired && !m->l->rules.fills && r->code / 100 == 2;
    for (unsigned i = 0; i < m->n_rcpts; i++)
        over = over && !m->rcpts[i].queued;
    for (unsigned i = 0; i < m->l->n_reports; i++)
        over = over && m->l->reports[i].about != m;
    if (over && is_expansion_wanted(m, r) && !r->expanded)
        ledger_fail(m->l, "<%s> of message %u was expanded, and its sender <%s> was not told",
                    r->addr, m->number, m->sender);
}

/* -- policy services -- */

unsigned ledger_mail_of(const char *addr) {
    unsigned mail, rcpt;
    return address_numbers(addr, &mail, &rcpt) ? mail : 0;
}

void ledger_answered(struct ledger *l, const char *addr) {
    unsigned mail, rcpt;
    if (!address_numbers(addr, &mail, &rcpt))
        return;
    for (unsigned i = 0; i < l->n_mails; i++) {
        struct rcpt_entry *r = l->mails[i]->number == mail ? mail_rcpt(l->mails[i], rcpt) : NULL;
        if (r != NULL)
            r->answered = true;
    }
}

/* Has the service answered for it?  Behind a recipient for which it has the message taken for
 * nobody it is asked no more. */
static bool is_answered(const struct ledger_mail *m, const struct rcpt_entry *r) {
    bool any = r->answered;
    for (unsigned i = 0; i < m->n_rcpts && m->discarded; i++)
        any = any || m->rcpts[i].answered;
    return any;
}

bool ledger_goes_nowhere(const struct ledger_mail *m) {
    return m->discarded;
}

void changes_taken(const struct ledger_mail *m, const struct rcpt_entry *r) {
    if (!m->l->rules.policed || r->code / 100 != 2)
        return;
    if (!is_answered(m, r))
        ledger_fail(m->l, "<%s> of message %u is taken, and its policy service has not answered",
                    r->addr, m->number);
    if (m->refused)
        ledger_fail(m->l, "<%s> of message %u is taken, and its policy service refuses it", r->addr,
                    m->number);
}

/* What is sent to addr in place of the only recipient. */
static void policy_redirects(struct ledger_mail *m, const char *addr) {
    unsigned rcpt, mail;
    m->rcpts[0].redirected = !m->rcpts[0].stands;
    if (address_numbers(addr, &mail, &rcpt))
        ledger_stands_for(m, m->rcpts[0].number, rcpt, addr);
    m->rcpts[m->n_rcpts - 1].notify = m->rcpts[0].notify;
}

static void policy_copies(struct ledger_mail *m, const char *addr) {
    static const struct bytes none;
    unsigned rcpt, mail;
    if (!address_numbers(addr, &mail, &rcpt))
        return;
    ledger_mail_rcpt(m, rcpt, addr, 0, &none);
    m->rcpts[m->n_rcpts - 1].code = 250;
}

void ledger_policy(struct ledger_mail *m, enum ledger_policy says, const char *text, bool last) {
    m->refused = says == LEDGER_REFUSES;
    m->kept = says == LEDGER_HOLDS;
    m->discarded = says == LEDGER_DISCARDS;
    if (says == LEDGER_REDIRECTS && last)
        policy_redirects(m, text);
    else if (says == LEDGER_COPIES && last)
        policy_copies(m, text);
    else if (says == LEDGER_PREPENDS)
        snprintf(m->before, sizeof m->before, "%s\r\n", text);
    for (unsigned i = 0; i < m->n_rcpts && m->discarded; i++)
        m->rcpts[i].stands = true;
}

/* Each answer puts the line there once; one that was lost on its way may have, too, or not. */
size_t changes_head(const struct ledger_mail *m, const char *p, size_t n) {
    size_t len = strlen(m->before), at = 0;
    while (len > 0 && n - at >= len && memcmp(p + at, m->before, len) == 0)
        at += len;
    if (len > 0 && at == 0)
        ledger_fail(m->l, "message %u came without the field of its policy service", m->number);
    return at;
}
