/*
 * tests/wire/ledger_list.c - the ledger on names that stand for others (aliases(5), local(8))
 *
 * A list is a recipient of which a message is made: an entry of its own, with the members as its
 * recipients, so that all that holds for a client's message holds for it.  It is there as soon as
 * anything is seen of it.  What is said of the list itself is looked at here: that one message is
 * made of it and no second one, of what was accepted only, and that it waits for nothing but what
 * is out of order.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ledger_inside.h"

/* RFC 3461 section 5.2.7.1: the report of success is made where the alias is expanded. */
unsigned notify_of_members(unsigned notify) {
    unsigned rest = notify & ~(unsigned)LEDGER_SUCCESS;
    return notify != 0 && rest == 0 ? LEDGER_NEVER : rest;
}

struct ledger_mail *ledger_list(struct ledger_mail *m, unsigned rcpt, unsigned number,
                                const char *sender, const char *reports_to) {
    struct rcpt_entry *r = mail_rcpt(m, rcpt);
    struct ledger_mail *x =
        ledger_mail(m->l, number, sender == NULL ? "" : sender, &m->envid, m->ret);
    if (sender == NULL) { /* that of m is plain already */
        free(x->sender);
        x->sender = bytes_copy(m->sender, strlen(m->sender));
    }
    x->parent = m;
    x->of = r;
    x->reports_to = reports_to;
    x->begun_ms = m->begun_ms;
    r->list = x;
    return x;
}

void ledger_list_member(struct ledger_mail *x, unsigned number, const char *addr) {
    bool own = strcmp(x->sender, x->parent->sender) != 0; /* the list's owner's: a new message */
    struct bytes orcpt = {0};
    if (!own && x->of->orcpt.n > 0)
        bytes_add(&orcpt, x->of->orcpt.p, x->of->orcpt.n);
    else if (!own)
        bytes_printf(&orcpt, "rfc822;%s", x->of->addr);
    ledger_mail_rcpt(x, number, addr, notify_of_members(x->of->notify), &orcpt);
    x->rcpts[x->n_rcpts - 1].code = 250;
    bytes_free(&orcpt);
}

void list_seen(struct ledger_mail *m) {
    struct ledger_mail *from = m->parent;
    if (from == NULL || m->state == MAIL_ACCEPTED)
        return;
    list_seen(from);
    if (from->state == MAIL_OPEN)
        ledger_fail(m->l, "message %u is expanded, and its client has not ended it", from->number);
    if (from->state == MAIL_REFUSED &&
        (from->code / 100 == 5 || !forgotten_after(m->l, from->answer_ms)))
        ledger_fail(m->l, "message %u was refused with %d and is expanded", from->number,
                    from->code);
    if (m->of->code != 0 && m->of->code / 100 != 2)
        ledger_fail(m->l, "<%s> of message %u was refused with %d and is expanded", m->of->addr,
                    from->number, m->of->code);
    if (m->n_rcpts == 0)
        ledger_fail(m->l, "<%s> of message %u stands for nothing, and is expanded", m->of->addr,
                    from->number);
    m->state = MAIL_ACCEPTED;
    m->content = from->content;
    m->long_lines = from->long_lines;
    m->of->delivered = 1;
}

bool list_has_report(const struct ledger *l, const struct report_entry *r) {
    return l->downs > 0 && r->about != NULL && r->about->reports_to != NULL;
}

bool list_forwarded(const char *said, char qid[32]) {
    const char *at = strstr(said, "forwarded as ");
    return at != NULL && sscanf(at, "forwarded as %31[A-Za-z0-9]", qid) == 1;
}

void list_sent(const struct ledger_mail *m, struct rcpt_entry *r, const char *said) {
    char qid[32];
    struct ledger_mail *x = r->list;
    if (!list_forwarded(said, qid)) {
        ledger_fail(m->l, "the list <%s> of message %u is \"sent\", and not as another message: %s",
                    r->addr, m->number, said);
        return;
    }
    if (r->sent || (x->qid[0] != '\0' && strcmp(x->qid, qid) != 0))
        ledger_fail(m->l, "the list <%s> of message %u was expanded twice, as %s and as %s",
                    r->addr, m->number, x->qid, qid);
    snprintf(x->qid, sizeof x->qid, "%s", qid);
    list_seen(x);
    r->sent = true;
    r->sent_ms = m->l->rules.now_ms(m->l->rules.arg);
}

void list_waits(const struct ledger_mail *m, const struct rcpt_entry *r, const char *said) {
    const struct ledger_rules *rules = &m->l->rules;
    if (r->list->state == MAIL_ACCEPTED)
        ledger_fail(m->l, "the list <%s> of message %u was expanded and waits: %s", r->addr,
                    m->number, said);
    if (list_may_bounce(m, said)) /* soft_bounce */
        return;
    if (r->list->n_rcpts > 0 && !rules->faulted(rules->arg) && !rules->fills && !rules->gaps)
        ledger_fail(m->l, "the list <%s> of message %u waits, and nothing is out of order: %s",
                    r->addr, m->number, said);
}

/* Of Received fields in the content; the product's own is one more. */
static unsigned hops_of(const struct bytes *content) {
    unsigned n = 0;
    const char *p = content->p, *end = p + content->n;
    while (p != NULL && (p = bytes_find(p, (size_t)(end - p), "Received: ")) != NULL) {
        n++;
        p++;
    }
    return n;
}

bool list_may_bounce(const struct ledger_mail *m, const char *said) {
    return strstr(said, "too many hops") != NULL && hops_of(&m->content) >= 48;
}

/* The field, in any case, that names the list; its length, 0: it is not there. */
static size_t delivered_to(const struct rcpt_entry *r, const char *p, size_t n) {
    struct bytes line = {0};
    bytes_printf(&line, "Delivered-To: %s\r\n", r->addr);
    for (char *c = line.p + 14; *c != '\0'; c++)
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c + 32) : *c;
    size_t len = n >= line.n && memcmp(p, line.p, line.n) == 0 ? line.n : 0;
    bytes_free(&line);
    return len;
}

static bool is_made_here(const char *p, size_t n) {
    static const char by[] = "Received: by posthouse.test (";
    return n > sizeof by && memcmp(p, by, sizeof by - 1) == 0;
}

size_t list_head(struct ledger_mail *m, const char *p, size_t n) {
    char qid[32];
    size_t before = m->parent == NULL ? changes_head(m, p, n) : 0;
    p += before;
    n -= before;
    size_t head = received_field(p, n, qid), field = head;
    if (head == 0 || qid[0] == '\0' || (m->parent != NULL && !is_made_here(p, head))) {
        ledger_fail(m->l, "message %u came without a Received field of ours", m->number);
        return 0;
    }
    if (m->qid[0] == '\0')
        snprintf(m->qid, sizeof m->qid, "%s", qid);
    else if (strcmp(m->qid, qid) != 0)
        ledger_fail(m->l, "message %u is %s and came as %s", m->number, m->qid, qid);
    if (m->parent == NULL) {
        char *forged = received_forged(p, head);
        if (forged != NULL)
            ledger_fail(m->l, "message %u: a line of our Received field is not ours: %s", m->number,
                        forged);
        free(forged);
        return before + head;
    }
    field = delivered_to(m->of, p + head, n - head);
    if (field == 0) {
        ledger_fail(m->l, "message %u came without the Delivered-To field of <%s>", m->number,
                    m->of->addr);
        return 0;
    }
    head += field;
    field = list_head(m->parent, p + head, n - head);
    return field == 0 ? 0 : head + field;
}
