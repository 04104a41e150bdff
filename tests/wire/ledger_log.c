/*
 * tests/wire/ledger_log.c - the ledger reads the product's log
 *
 * "sent" is true only of content that a relay host had whole and answered by 2xx; "bounced" only of
 * what a 5xx was said of, or what is the message's own fault; "removed" only when every recipient
 * has come to an end that its sender can know.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ledger_inside.h"

/* One "QID: to=<…>, relay=…, dsn=…, status=… (…)" line. */
struct line {
    char qid[32];
    struct ledger_mail *m;
    struct rcpt_entry *r;
    struct report_entry *report;
    char *addr; /* the recipient */
    char status[16];
    const char *said; /* what is between the last parentheses */
    struct said *token;
    const char *text;
};

static bool read_line(struct ledger *l, const char *text, struct line *out) {
    unsigned mail, rcpt;
    *out = (struct line){.text = text};
    const char *to = strstr(text, ": to=<"), *status = strstr(text, ", status=");
    if (to == NULL || status == NULL || sscanf(text, "%31[A-Za-z0-9]", out->qid) != 1)
        return false;
    const char *end = strstr(to, ">, relay="), *orig = strstr(to, ">, orig_to=<");
    if (end == NULL)
        return false;
    end = orig != NULL && orig < end ? orig : end;
    char *addr = bytes_copy(to + 6, (size_t)(end - to) - 6);
    if (address_numbers(addr, &mail, &rcpt) && (out->m = mail_by_number(l, mail)) != NULL)
        out->r = mail_rcpt(out->m, rcpt);
    out->addr = address_plain(addr, l->rules.origin);
    free(addr);
    if (out->r == NULL)
        out->report = report_by_qid(l, out->qid);
    sscanf(status, ", status=%15[a-z-]", out->status);
    const char *paren = strstr(status, " (");
    out->said = paren == NULL ? "" : paren + 2;
    unsigned token = token_in(out->said, strlen(out->said));
    out->token = token > 0 && token < l->n_said ? &l->said[token] : NULL;
    return true;
}

/* Was it said of this recipient alone, or of all? */
static bool said_to(const struct said *s, const struct rcpt_entry *r) {
    return s->rcpt == LEDGER_NOBODY || (s->rcpt < s->t->n && s->t->rcpts[s->rcpt] == r);
}

static bool names_rcpt(const struct said *s, const struct rcpt_entry *r) {
    for (unsigned i = 0; i < s->t->n; i++)
        if (s->t->rcpts[i] == r && s->t->codes[i] / 100 == 2)
            return said_to(s, r);
    return false;
}

/* What is wrong with this reply as the reason for "sent"; NULL: nothing. */
static const char *sent_is_wrong(const struct line *x) {
    const struct said *s = x->token;
    if (s == NULL)
        return "quotes no reply of a relay host";
    if (s->code / 100 != 2)
        return "quotes a reply that is no 2xx";
    if (cannot_be_told(s->c))
        return NULL; /* it says of one what is meant for another */
    if ((s->c->crime & CRIME_EXTRA) != 0 && x->r->delivered > 0 && x->r->last_conn == s->c)
        return NULL; /* a host that says one too many has taken it */
    if (s->stage != STAGE_BODY || s->t == NULL || s->t->mail != x->m)
        return "quotes a reply that was not to its content";
    if (!s->whole && (s->c->crime & CRIME_EXTRA) == 0)
        return "quotes a reply that was sent before the content had come whole";
    if (!s->whole && !s->t->left)
        return "quotes a reply that was read before the content had left";
    if (!names_rcpt(s, x->r))
        return "quotes a reply to content that was not for it";
    return NULL;
}

static void log_sent(struct ledger *l, struct line *x) {
    const struct said *s = x->token;
    if (x->r->list != NULL) {
        list_sent(x->m, x->r, x->said);
        return;
    }
    const char *why = sent_is_wrong(x);
    if (why != NULL)
        ledger_fail(l, "\"sent\" %s: %s", why, x->text);
    bool early = s != NULL && s->stage == STAGE_BODY && !s->whole;
    x->r->trusted = s != NULL && (cannot_be_told(s->c) || early);
    if (early)
        x->r->early = s->t; /* all of it must come yet */
    if (x->r->delivered == 0 && !x->r->trusted)
        ledger_fail(l, "\"sent\", and no relay host has it: %s", x->text);
    x->r->sent = true;
    x->r->sent_ms = l->rules.now_ms(l->rules.arg);
}

bool said_is_about(const struct said *s, const struct ledger_mail *m) {
    if (s->t == NULL)
        return false;
    return s->t->mail == m ||
           (s->stage == STAGE_MAIL && s->t->mail == NULL && strcmp(s->t->sender, m->sender) == 0);
}

bool said_permits_bounce(const struct said *s, const struct ledger_mail *m,
                         const struct rcpt_entry *r) {
    const struct ledger_rules *rules = &m->l->rules;
    bool dialogue = s->code == 503 || s->code == 530; /* says nothing of the message */
    if (s->stage == STAGE_AUTH)                       /* 503 is about the order of commands */
        return rules->login_bounces && s->code / 100 == 5 && s->code != 503;
    if (s->code / 100 != 5 || (dialogue && road_of_rcpt(m, r).configured))
        return false;
    if ((s->c->crime & (CRIME_EXTRA | CRIME_FEWER)) != 0)
        return true;
    if (!said_is_about(s, m))
        return false;
    if (s->rcpt != LEDGER_NOBODY && !s->of_all)
        return said_to(s, r);
    return s->stage == STAGE_MAIL || s->stage == STAGE_RCPT || s->stage == STAGE_DATA ||
           s->stage == STAGE_BODY;
}

/* Reasons of the message's own. */
static bool is_own_fault(const char *text, const struct ledger_road *road) {
    static const char *const always[] = {"size limit", "SMTPUTF8"};
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++)
        if (strstr(text, always[i]) != NULL)
            return true;
    return road->fault != NULL && strstr(text, road->fault) != NULL;
}

/* Is it returned after a host has taken it?  A host that departed from the protocol, or a fault,
 * can have taken its word from the product. */
static void check_not_taken(struct ledger *l, const struct line *x) {
    const struct rcpt_entry *r = x->r;
    if (r->delivered > 0 && r->last_conn->crime == 0 && !l->rules.faulted(l->rules.arg) &&
        !ledger_down_since(l, r->last_ms))
        ledger_fail(l, "bounced, and host %u has taken it: %s", r->last_conn->host, x->text);
}

static void log_bounced(struct ledger *l, struct line *x) {
    struct ledger_road road = road_of_rcpt(x->m, x->r);
    /* A reply that repeats the login is not shown, nor what it is known by. */
    bool list = x->r->list != NULL && list_may_bounce(x->m, x->said);
    bool hidden = l->rules.login_bounces && strstr(x->said, "(text withheld: ") != NULL;
    bool good = x->token != NULL ? said_permits_bounce(x->token, x->m, x->r)
                                 : list || hidden || is_own_fault(x->said, &road);
    if (!good)
        ledger_fail(l, "bounced, and no 5xx was said of it: %s", x->text);
    check_not_taken(l, x);
    if (l->rules.soft)
        ledger_fail(l, "bounced, and soft_bounce forbids it: %s", x->text);
    if (!x->r->bounced)
        x->r->bounced_ms = l->rules.now_ms(l->rules.arg);
    x->r->bounced = true;
    l->bounced++;
}

void report_of_old(struct ledger *l, const char *to) {
    for (unsigned i = 0; i < l->n_mails && l->downs > 0; i++)
        if (strcmp(l->mails[i]->sender, to) == 0)
            l->mails[i]->notified = true;
}

/* One fault of the disk may hit one reading of the content, and no more. */
static void log_unreadable(struct ledger *l, const struct line *x) {
    if (strstr(x->said, "reading the message content") == NULL &&
        strstr(x->said, "cannot read the message content") == NULL)
        return;
    int64_t now = l->rules.now_ms(l->rules.arg);
    if (x->m->unreadable_ms == 0)
        x->m->unreadable_ms = now;
    else if (now > x->m->unreadable_ms + 30000)
        ledger_fail(l, "message %u was accepted, and its content is lost: %s", x->m->number,
                    x->text);
}

/* What waits waits for what was said of it, or for the state of the destination: never for what was
 * said of other mail, or to a connection of settings that are not in use any more. */
static void log_deferred(struct ledger *l, const struct line *x) {
    const struct said *s = x->token;
    bool rests = strstr(x->said, "temporarily suspended") != NULL;
    log_unreadable(l, x);
    if (x->r->list != NULL)
        list_waits(x->m, x->r, x->said);
    if (x->r->put_off && strstr(x->said, "put off other mail") != NULL)
        ledger_fail(l, "deferred without what was said of the recipient: %s", x->text);
    if (s == NULL || (s->c->crime & (CRIME_EXTRA | CRIME_FEWER | CRIME_GARBAGE)) != 0)
        return;
    if (s->stage == STAGE_BODY && s->code / 100 == 2 && s->whole && s->c->crime == 0)
        ledger_fail(l, "deferred, and the host has taken it: %s", x->text);
    if (settings_are_old(s->c, x->m))
        ledger_fail(l, "deferred by a connection of old settings: %s", x->text);
    if (s->t == NULL || s->code == 421 || s->of_all || s->code / 100 == 3)
        return;
    if (rests || !said_is_about(s, x->m) || !said_to(s, x->r))
        ledger_fail(l, "deferred for what was said of another: %s", x->text);
}

/* The owner of a list is a name that stands for others: what goes on is a report of its own. */
static bool report_forwarded(struct ledger *l, const struct line *x) {
    char qid[32];
    if (strcmp(x->status, "sent") != 0 || !list_forwarded(x->said, qid))
        return false;
    if (x->report->forwarded || x->report->delivered > 0)
        ledger_fail(l, "a report goes on twice: %s", x->text);
    x->report->over = x->report->forwarded = true; /* deleted meanwhile, perhaps */
    if (report_by_qid(l, qid) == NULL)
        report_new(l, qid, x->report->about);
    return true;
}

static void log_delivery(struct ledger *l, struct line *x) {
    if (x->report != NULL && report_forwarded(l, x))
        return;
    if (x->report != NULL) {
        bool early = x->token != NULL && x->token->stage == STAGE_BODY && !x->token->whole;
        bool trusted = early || (x->token != NULL && cannot_be_told(x->token->c));
        x->report->over = x->report->over || trusted || strcmp(x->status, "bounced") == 0;
        if (strcmp(x->status, "sent") == 0 && x->report->delivered == 0 && !trusted)
            ledger_fail(l, "\"sent\", and no relay host has the report: %s", x->text);
        return;
    }
    if (x->r == NULL) {
        report_of_old(l, x->addr);
        return;
    }
    x->r->tried_ms = l->rules.now_ms(l->rules.arg);
    x->r->tries++;
    if (strcmp(x->status, "sent") == 0)
        log_sent(l, x);
    else if (strcmp(x->status, "bounced") == 0)
        log_bounced(l, x);
    else if (strcmp(x->status, "deferred") == 0)
        log_deferred(l, x);
    else
        ledger_fail(l, "an unknown status: %s", x->text);
    x->r->put_off = false;
}

static bool is_over(const struct ledger_mail *m, const struct rcpt_entry *r) {
    if (r->delivered > 0 || r->trusted || r->stands || r->code / 100 != 2)
        return true;
    /* What was made of a list can be durable, and nothing said of it yet. */
    if (r->list != NULL && m->l->downs > 0)
        return true;
    /* A report can be durable before the product goes down, and its line in the log be lost: the
     * end of the scenario says whether it comes. */
    bool unsaid = r->bounced && ledger_down_since(m->l, r->bounced_ms);
    return (r->bounced || m->expired) &&
           (!report_is_due(m, r) || m->notified || r->reported || unsaid);
}

static void log_removed(struct ledger *l, const char *qid) {
    struct ledger_mail *m = mail_by_qid(l, qid);
    struct report_entry *rep = report_by_qid(l, qid);
    if (rep != NULL && rep->delivered > 0)
        rep->over = true;
    if (rep != NULL && !rep->over && !list_has_report(l, rep)) {
        ledger_fail(l, "the report %s is removed, and nobody has it", qid);
        rep->over = true;
    }
    for (unsigned i = 0; m != NULL && !m->deleted && i < m->n_rcpts; i++)
        if (!is_over(m, &m->rcpts[i]))
            ledger_fail(l, "%s (message %u) is removed, and <%s> has neither it nor a report", qid,
                        m->number, m->rcpts[i].addr);
}

static void log_expired(struct ledger *l, const char *qid, const char *text) {
    struct ledger_mail *m = mail_by_qid(l, qid);
    if (m == NULL) {
        struct report_entry *rep = report_by_qid(l, qid);
        if (rep != NULL)
            rep->over = true;
        return;
    }
    int64_t age = l->rules.now_ms(l->rules.arg) - m->begun_ms;
    if (l->downs > 0) /* that the clock was set is not known after a restart */
        age += l->forward_ms;
    if (strstr(text, "force-expired") != NULL ? !m->forced : age < l->rules.lifetime_ms)
        ledger_fail(l, "message %u expired at the age of %lld ms: %s", m->number, (long long)age,
                    text);
    if (m->kept)
        ledger_fail(l, "message %u was put on hold when it came, and expired: %s", m->number, text);
    if (m->held && m->durable_ms != 0 && l->downs == 0)
        ledger_fail(l, "message %u is on hold and expired: %s", m->number, text);
    /* Was its alias looked up for more than a day? */
    bool late = l->rules.faulted(l->rules.arg) && age > 24 * 3600 * 1000;
    for (unsigned i = 0; i < m->n_rcpts && l->downs == 0 && !m->forced && !late; i++)
        if (m->rcpts[i].code / 100 == 2 && !m->rcpts[i].stands && m->rcpts[i].tried_ms == 0)
            ledger_fail(l, "message %u expired, and <%s> was never tried: %s", m->number,
                        m->rcpts[i].addr, text);
    m->expired = true;
}

static void note_notified(struct ledger *l, struct ledger_mail *m) {
    m->notified = true;
    m->notified_ms = l->rules.now_ms(l->rules.arg);
}

static void log_notified(struct ledger *l, const char *qid, const char *text) {
    char report[32];
    const char *at = strstr(text, " notification: ");
    if (at == NULL || sscanf(at, " notification: %31[A-Za-z0-9]", report) != 1)
        return;
    struct ledger_mail *m = mail_by_qid(l, qid);
    if (report_by_qid(l, report) == NULL)
        report_new(l, report, m);
    if (m == NULL || strstr(text, "non-delivery") == NULL)
        return;
    note_notified(l, m);
    for (unsigned i = 0; i < m->n_rcpts; i++)
        m->rcpts[i].told = m->rcpts[i].bounced;
}

/* The disk had no room for the report: what failed is tried again. */
static void log_no_report(struct ledger *l, const char *qid) {
    struct ledger_mail *m = mail_by_qid(l, qid);
    if (!l->rules.faulted(l->rules.arg) && !l->rules.fills)
        ledger_fail(l, "the disk works, and no report about %s can be queued", qid);
    for (unsigned i = 0; m != NULL && i < m->n_rcpts; i++)
        if (report_is_due(m, &m->rcpts[i]) && !m->rcpts[i].told)
            m->rcpts[i].bounced = false;
}

void ledger_log(struct ledger *l, const char *service, const char *text) {
    struct line x;
    char qid[32] = "", end[2] = "";
    secrets_look(l, "the log", text, strlen(text));
    if (strstr(text, "damaged on disk") != NULL)
        ledger_fail(l, "content that was accepted is not what was written: %s", text);
    if (read_line(l, text, &x)) {
        if (x.m != NULL)
            list_seen(x.m);
        if (x.m != NULL && x.m->qid[0] == '\0')
            snprintf(x.m->qid, sizeof x.m->qid, "%s", x.qid);
        log_delivery(l, &x);
    } else if (strstr(text, ": cannot queue a report: ") != NULL &&
               sscanf(text, "warning: %31[A-Za-z0-9]", qid) == 1) {
        log_no_report(l, qid);
    } else if (strcmp(service, "smtpd") == 0 ||
               sscanf(text, "%31[A-Za-z0-9]%1[:]", qid, end) != 2) {
        return;
    } else if (strstr(text, ": removed") != NULL) {
        log_removed(l, qid);
    } else if (strstr(text, "expired, returned to sender") != NULL) {
        log_expired(l, qid, text);
    } else if (strstr(text, ": sender ") != NULL) {
        log_notified(l, qid, text);
    }
}
