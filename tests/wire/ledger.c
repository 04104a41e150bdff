/*
 * tests/wire/ledger.c - the oracle of the wire simulator; see ledger.h
 */
#include "ledger.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ledger_inside.h"

/* What is on the wire when an order comes may still go: so long does the wire take at most. */
#define WIRE_MS 5000
/* So long what has happened may be unknown to the disk. */
#define NOTE_MS 2000
/* A reload has come to every part of the product by then. */
#define RELOAD_MS 1000
/* Less than minimal_backoff_time, which is a minute in every scenario. */
#define ATTEMPT_MS 30000

static void *zeroed(size_t n) {
    void *p = calloc(1, n);
    if (p == NULL)
        abort();
    return p;
}

struct ledger *ledger_new(const struct ledger_rules *rules) {
    struct ledger *l = zeroed(sizeof *l);
    l->rules = *rules;
    l->n_said = 1; /* token 0 is none */
    l->cap_said = 64;
    l->said = zeroed(l->cap_said * sizeof *l->said);
    return l;
}

struct ledger_rules *ledger_rules(struct ledger *l) {
    return &l->rules;
}

void ledger_hurries(struct ledger *l) {
    l->rules.hurries = true;
}

void ledger_fail(struct ledger *l, const char *fmt, ...) {
    char text[1200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    l->failed = true;
    l->rules.fail(l->rules.arg, text);
}

void ledger_secret(struct ledger *l, const char *user, const char *password, uint64_t hosts,
                   bool tls) {
    if (l->n_secrets == sizeof l->secrets / sizeof l->secrets[0])
        abort();
    struct secret_entry *s = &l->secrets[l->n_secrets++];
    struct bytes one = {0}, two = {0}, plain = {0};
    base64_put(&one, password, strlen(password));
    bytes_char(&plain, '\0');
    bytes_text(&plain, user);
    bytes_char(&plain, '\0');
    bytes_text(&plain, password);
    base64_put(&two, plain.p, plain.n);
    *s = (struct secret_entry){bytes_copy(password, strlen(password)),
                               {bytes_copy(password, strlen(password)), one.p, two.p},
                               hosts,
                               tls,
                               NULL};
}

void secrets_look(struct ledger *l, const char *where, const char *p, size_t n) {
    for (unsigned i = 0; i < l->n_secrets; i++)
        for (int k = 0; k < 3; k++)
            if (bytes_find(p, n, l->secrets[i].forms[k]) != NULL)
                ledger_fail(l, "a password (%s) stands in %s: %.*s", l->secrets[i].password, where,
                            (int)(n > 300 ? 300 : n), p);
}

struct ledger_mail *mail_by_number(struct ledger *l, unsigned number) {
    for (unsigned i = 0; i < l->n_mails; i++)
        if (l->mails[i]->number == number)
            return l->mails[i];
    return NULL;
}

struct ledger_mail *mail_by_qid(struct ledger *l, const char *qid) {
    for (unsigned i = 0; i < l->n_mails && qid[0] != '\0'; i++)
        if (strcmp(l->mails[i]->qid, qid) == 0)
            return l->mails[i];
    return NULL;
}

struct rcpt_entry *mail_rcpt(struct ledger_mail *m, unsigned number) {
    for (unsigned i = 0; i < m->n_rcpts; i++)
        if (m->rcpts[i].number == number)
            return &m->rcpts[i];
    return NULL;
}

struct report_entry *report_by_qid(struct ledger *l, const char *qid) {
    for (unsigned i = 0; i < l->n_reports; i++)
        if (strcmp(l->reports[i].qid, qid) == 0)
            return &l->reports[i];
    return NULL;
}

struct report_entry *report_new(struct ledger *l, const char *qid, struct ledger_mail *about) {
    if (l->n_reports == l->cap_reports) {
        l->cap_reports = l->cap_reports == 0 ? 16 : l->cap_reports * 2;
        l->reports = realloc(l->reports, l->cap_reports * sizeof *l->reports);
        if (l->reports == NULL)
            abort();
    }
    struct report_entry *r = &l->reports[l->n_reports++];
    *r = (struct report_entry){.about = about};
    snprintf(r->qid, sizeof r->qid, "%s", qid);
    return r;
}

/* ---- clients ---- */

struct ledger_mail *ledger_mail(struct ledger *l, unsigned number, const char *sender,
                                const struct bytes *envid, char ret) {
    if (l->n_mails == LEDGER_MAILS)
        abort();
    struct ledger_mail *m = zeroed(sizeof *m);
    m->l = l;
    m->number = number;
    m->begun_ms = l->rules.now_ms(l->rules.arg);
    m->sender = address_plain(sender, l->rules.origin);
    bytes_add(&m->envid, envid->p, envid->n);
    m->ret = ret;
    l->mails[l->n_mails++] = m;
    return m;
}

void ledger_mail_rcpt(struct ledger_mail *m, unsigned number, const char *addr, unsigned notify,
                      const struct bytes *orcpt) {
    if (m->n_rcpts == LEDGER_RCPTS)
        abort();
    struct rcpt_entry *r = &m->rcpts[m->n_rcpts++];
    *r = (struct rcpt_entry){
        .number = number, .addr = address_plain(addr, m->l->rules.origin), .notify = notify};
    bytes_add(&r->orcpt, orcpt->p, orcpt->n);
}

void ledger_mail_refused(struct ledger_mail *m, int code) {
    m->state = MAIL_REFUSED;
    m->code = code;
    m->answer_ms = m->l->rules.now_ms(m->l->rules.arg);
}

void ledger_mail_rcpt_answer(struct ledger_mail *m, unsigned number, int code) {
    struct rcpt_entry *r = mail_rcpt(m, number);
    r->code = code;
    changes_answer(m, r);
    changes_taken(m, r);
    if (code / 100 == 2 && m->l->rules.never != NULL && strcmp(r->addr, m->l->rules.never) == 0)
        ledger_fail(m->l, "<%s> of message %u is taken, and a restriction forbids it", r->addr,
                    m->number);
    if (code / 100 != 2 && r->delivered > 0)
        ledger_fail(m->l, "<%s> of message %u was refused with %d and was delivered", r->addr,
                    m->number, code);
}

void ledger_mail_content(struct ledger_mail *m, const char *p, size_t n, bool data) {
    bytes_clear(&m->content);
    content_normal(p, n, data, &m->content);
    size_t line = 0;
    for (size_t i = 0; i < m->content.n; i++) {
        line = m->content.p[i] == '\n' ? 0 : line + 1;
        m->long_lines = m->long_lines || line > m->l->rules.line_limit + 1;
    }
    if (m->state == MAIL_OPEN)
        m->state = MAIL_ENDED;
}

void ledger_mail_answer(struct ledger_mail *m, int code, const char *text) {
    struct ledger *l = m->l;
    if (m->state == MAIL_OPEN)
        ledger_fail(l, "message %u was answered with %d before its content had ended", m->number,
                    code);
    if (m->state == MAIL_REFUSED && code / 100 == 2)
        ledger_fail(l, "content of message %u was accepted, and its sender was not", m->number);
    m->code = code;
    if (code / 100 == 2 && l->stopping_ms > 0 && m->begun_ms > l->stopping_ms)
        ledger_fail(l, "message %u was begun when the product was being stopped, and taken",
                    m->number);
    m->answer_ms = l->rules.now_ms(l->rules.arg);
    m->state = code / 100 == 2 ? MAIL_ACCEPTED : MAIL_REFUSED;
    if (m->state == MAIL_REFUSED)
        return;
    if (l->rules.refuses && !m->discarded) /* then nothing else is asked, as with Postfix */
        ledger_fail(l, "message %u was accepted, and smtpd_data_restrictions forbid it", m->number);
    l->accepted++;
    const char *as = strstr(text, "queued as ");
    char qid[32] = "";
    if (as != NULL)
        sscanf(as, "queued as %31[A-Za-z0-9]", qid);
    if (m->qid[0] != '\0' && strcmp(m->qid, qid) != 0)
        ledger_fail(l, "message %u was said to be queued as %s and is %s", m->number, qid, m->qid);
    snprintf(m->qid, sizeof m->qid, "%s", qid);
}

void ledger_mail_gone(struct ledger_mail *m) {
    m->gone = true;
}

void ledger_client_line(struct ledger *l, const char *p, size_t n) {
    int c = control_in(p, n);
    if (c >= 0)
        ledger_fail(l, "a reply to a client has the control character %d: %.*s", c, (int)n, p);
    if (!l->rules.faulted(l->rules.arg) && !l->rules.fills &&
        (bytes_find(p, n, "queue file write error") != NULL ||
         bytes_find(p, n, "Insufficient system storage") != NULL))
        ledger_fail(l, "the disk works, and a client is told: %.*s", (int)n, p);
    if (l->rules.soft && n > 0 && p[0] == '5')
        ledger_fail(l, "a client is refused for good, and soft_bounce forbids it: %.*s", (int)n, p);
    secrets_look(l, "a reply to a client", p, n);
}

/* ---- relay hosts ---- */

struct ledger_conn *ledger_conn(struct ledger *l, unsigned host) {
    struct ledger_conn *c = zeroed(sizeof *c);
    c->l = l;
    c->host = host;
    c->at_ms = l->rules.now_ms(l->rules.arg);
    c->user = bytes_copy("", 0);
    return c;
}

void ledger_conn_tls(struct ledger_conn *c) {
    c->tls = true;
}

void ledger_conn_offers_tls(struct ledger_conn *c) {
    c->tls_offered = true;
}

void ledger_secret_wary(struct ledger *l, const char *user) {
    l->secrets[l->n_secrets - 1].wary = bytes_copy(user, strlen(user));
}

void ledger_conn_user(struct ledger_conn *c, const char *user) {
    for (unsigned i = 0; i < c->l->n_secrets && user != NULL; i++)
        if (c->l->secrets[i].wary != NULL && strcmp(c->l->secrets[i].wary, user) == 0 &&
            c->tls_offered && !c->tls)
            ledger_fail(c->l, "%s logs in at host %u without TLS, which was offered", user,
                        c->host);

    c->user = user == NULL ? NULL : bytes_copy(user, strlen(user));
}

void ledger_conn_bare(struct ledger_conn *c) {
    c->bare = true;
}

void ledger_conn_crime(struct ledger_conn *c, unsigned crime) {
    c->crime |= crime;
    c->extras += (crime & CRIME_EXTRA) != 0;
}

void ledger_conn_line(struct ledger_conn *c, const char *p, size_t n, bool crlf) {
    int found = control_in(p, n);
    if (found >= 0)
        ledger_fail(c->l, "a command to host %u has the control character %d: %.*s", c->host, found,
                    (int)(n > 300 ? 300 : n), p);
    if (!crlf)
        ledger_fail(c->l, "a command to host %u does not end in CR LF: %.*s", c->host,
                    (int)(n > 300 ? 300 : n), p);
}

void ledger_conn_nonsense(struct ledger_conn *c, const char *line) {
    if ((c->crime & (CRIME_EXTRA | CRIME_FEWER | CRIME_GARBAGE)) == 0)
        ledger_fail(c->l, "host %u was sent what is no command: %.300s", c->host, line);
}

void ledger_conn_login(struct ledger_conn *c, const char *user, const char *password) {
    struct ledger *l = c->l;
    for (unsigned i = 0; i < l->n_secrets; i++) {
        struct secret_entry *s = &l->secrets[i];
        if (strcmp(s->password, password) != 0)
            continue;
        if ((s->hosts >> c->host & 1) == 0)
            ledger_fail(l, "the password %s (user %s) came to host %u, for which it is not",
                        password, user, c->host);
        else if (s->tls && !c->tls)
            ledger_fail(l, "the password %s came to host %u without TLS", password, c->host);
        return;
    }
    ledger_fail(l, "host %u was sent a password that nobody set: %.100s", c->host, password);
}

/* A transaction begins: may it, on that connection? */
static void check_connection(struct ledger_conn *c) {
    const struct ledger_rules *rules = &c->l->rules;
    if ((rules->strange >> c->host & 1) != 0)
        ledger_fail(c->l, "mail came to host %u, whose certificate is not trusted", c->host);
    if (c->takes++ > 0 && c->tls && (rules->alone >> c->host & 1) != 0)
        ledger_fail(c->l, "a second message came to host %u over one connection", c->host);
}

struct ledger_take *ledger_take(struct ledger_conn *c, int64_t at_ms, const char *sender,
                                const struct ledger_envelope *e, bool dsn) {
    struct ledger_take *t = zeroed(sizeof *t);
    t->c = c;
    t->sender = address_plain(sender, c->l->rules.origin);
    t->e = *e;
    t->e.can8 = e->can8 && (c->crime & (CRIME_EXTRA | CRIME_FEWER | CRIME_GARBAGE)) == 0;
    t->dsn = dsn && (c->crime & (CRIME_EXTRA | CRIME_FEWER | CRIME_GARBAGE)) == 0;
    t->at_ms = at_ms;
    check_connection(c);
    return t;
}

/* What MAIL said must be what the client said. */
static void check_sender(struct ledger_take *t, const struct ledger_mail *m) {
    struct ledger *l = t->c->l;
    if (strcmp(t->sender, m->sender) != 0)
        ledger_fail(l, "message %u is from <%s> and came from <%s>", m->number, m->sender,
                    t->sender);
    if (!t->dsn)
        return;
    if (t->e.ret != m->ret)
        ledger_fail(l, "message %u has RET %c and came with %c", m->number, m->ret, t->e.ret);
    if (!bytes_equal(&t->e.envid, &m->envid))
        ledger_fail(l, "message %u has ENVID %s and came with %s", m->number, bytes_str(&m->envid),
                    bytes_str(&t->e.envid));
}

/* An order that was called done is obeyed by what comes up after the product went down. */
static bool binds_new_life(const struct ledger *l, const struct ledger_mail *m, int64_t at_ms) {
    for (unsigned i = 0; i < l->downs && i < sizeof l->down_ms / sizeof l->down_ms[0]; i++)
        if (m->durable_ms != 0 && l->down_ms[i] >= m->durable_ms && l->down_ms[i] < at_ms)
            return true;
    return false;
}

/* An order that was given before this transaction began is obeyed. */
static void check_orders(struct ledger_take *t, const struct ledger_mail *m) {
    const struct ledger *l = t->c->l;
    if (m->kept)
        ledger_fail(t->c->l, "message %u was put on hold when it came, and goes to host %u",
                    m->number, t->c->host);
    bool late = t->at_ms > m->ordered_ms + WIRE_MS && !forgotten_after(l, m->ordered_ms);
    if ((m->deleted || m->held || m->forced) && (late || binds_new_life(l, m, t->at_ms)))
        ledger_fail(t->c->l, "message %u was %s at %lld ms, and came to host %u at %lld ms",
                    m->number,
                    m->deleted ? "deleted"
                    : m->held  ? "put on hold"
                               : "expired",
                    (long long)m->ordered_ms, t->c->host, (long long)t->at_ms);
}

/* When the product went down last; 0: never. */
static int64_t last_down_ms(const struct ledger *l) {
    unsigned n = sizeof l->down_ms / sizeof l->down_ms[0];
    n = l->downs < n ? l->downs : n;
    return n == 0 ? 0 : l->down_ms[n - 1];
}

static int64_t later_of(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* When the recipient was routed last, or later. */
static int64_t routed_ms(const struct ledger_mail *m, const struct rcpt_entry *r) {
    return later_of(later_of(m->begun_ms, r->tried_ms), last_down_ms(m->l));
}

struct ledger_road road_of_rcpt(const struct ledger_mail *m, const struct rcpt_entry *r) {
    return m->l->rules.road(m->l->rules.arg, m->sender, r->addr, routed_ms(m, r));
}

/* Is the login on that connection one of those that the road has? */
static bool login_is_right(const struct ledger_conn *c, const struct ledger_road *road,
                           const char *user) {
    if (user == NULL)
        return true;
    if (c->user == NULL) /* it is somebody, where somebody has to be */
        return user[0] != '\0';
    return strcmp(user, c->user) == 0 ||
           (road->before != NULL && strcmp(road->before, c->user) == 0);
}

/* The road of a recipient in this transaction: what has not begun when the configuration becomes
 * another one is routed anew. */
static struct ledger_road road_in(const struct ledger_take *t, const struct ledger_mail *m,
                                  const struct rcpt_entry *r) {
    const struct ledger *l = m->l;
    int64_t since = routed_ms(m, r);
    for (unsigned i = 0; i < l->n_reloads; i++)
        if (t->at_ms > l->reload_ms[i] + WIRE_MS)
            since = later_of(since, l->reload_ms[i] + 1);
    return l->rules.road(l->rules.arg, m->sender, r->addr, since);
}

static void check_rcpt(struct ledger_take *t, struct ledger_mail *m, struct rcpt_entry *r,
                       const char *plain) {
    struct ledger *l = t->c->l;
    if (strcmp(plain, r->addr) != 0)
        ledger_fail(l, "recipient %u of message %u is <%s> and came as <%s>", r->number, m->number,
                    r->addr, plain);
    if (t->mail != NULL && t->mail != m)
        ledger_fail(l, "recipients of messages %u and %u in one transaction", t->mail->number,
                    m->number);
    changes_check(m, r, "came itself");
    struct ledger_road road = road_in(t, m, r);
    if (!r->stands && (road.hosts >> t->c->host & 1) == 0)
        ledger_fail(l, "recipient <%s> of message %u (from <%s>) came to host %u: a wrong relay",
                    r->addr, m->number, m->sender, t->c->host);
    const char *user = t->c->host == 0 ? road.user : road.elsewhere;
    if (!login_is_right(t->c, &road, user))
        ledger_fail(l, "message %u (from <%s>) came to host %u under the login \"%s\", not \"%s\"",
                    m->number, m->sender, t->c->host, t->c->user == NULL ? "?" : t->c->user, user);
    list_seen(m);
    if (m->state == MAIL_OPEN)
        ledger_fail(l, "message %u is being sent, and its client has not ended it", m->number);
}

/* Has the host asked for content where it reads commands?  One reply too many or too few has hidden
 * that, and each line of the content is a command to it. */
static bool reads_content_as_commands(const struct ledger_conn *c) {
    return (c->crime & CRIME_GO) != 0 && (c->crime & (CRIME_EXTRA | CRIME_FEWER)) != 0;
}

unsigned ledger_take_rcpt(struct ledger_take *t, const char *addr, unsigned notify,
                          const struct bytes *orcpt) {
    struct ledger *l = t->c->l;
    unsigned mail, rcpt;
    if (t->n == LEDGER_RCPTS) {
        ledger_fail(l, "host %u: more than %u recipients", t->c->host, LEDGER_RCPTS);
        return LEDGER_RCPTS - 1;
    }
    char *plain = address_plain(addr, l->rules.origin);
    t->addrs[t->n] = plain;
    struct ledger_mail *m = address_numbers(plain, &mail, &rcpt) ? mail_by_number(l, mail) : NULL;
    struct rcpt_entry *r = m == NULL ? NULL : mail_rcpt(m, rcpt);
    if (r != NULL) {
        check_rcpt(t, m, r, plain);
        if (t->mail == NULL) {
            check_sender(t, m);
            check_orders(t, m);
            if (settings_are_old(t->c, m))
                ledger_fail(l, "message %u came to host %u over a connection of old settings",
                            m->number, t->c->host);
        }
        t->mail = m;
        if (t->dsn && (notify != r->notify || !bytes_equal(orcpt, &r->orcpt)))
            ledger_fail(l, "<%s> has NOTIFY %u ORCPT \"%s\" and came with %u \"%s\"", r->addr,
                        r->notify, bytes_str(&r->orcpt), notify, bytes_str(orcpt));
    } else if (t->sender[0] != '\0' && !reads_content_as_commands(t->c)) {
        ledger_fail(l, "host %u: mail from <%s> for <%s>, which no client asked for", t->c->host,
                    t->sender, plain);
    }
    t->rcpts[t->n] = r;
    return t->n++;
}

static bool has_8bit(const struct bytes *b) {
    for (size_t i = 0; i < b->n; i++)
        if ((unsigned char)b->p[i] > 127)
            return true;
    return false;
}

static void compare_content(struct ledger_take *t) {
    struct ledger *l = t->c->l;
    struct ledger_mail *m = t->mail;
    char where[600];
    size_t head = list_head(m, t->content.p, t->content.n);
    if (head == 0)
        return;
    if (t->e.can8 && !t->e.body8 && has_8bit(&m->content))
        ledger_fail(l, "message %u has bytes above 127, and came to host %u without BODY=8BITMIME",
                    m->number, t->c->host);
    const char *why = content_differs(&m->content, t->content.p + head, t->content.n - head,
                                      l->rules.line_limit, where, sizeof where);
    if (why != NULL)
        ledger_fail(l, "message %u (%s) came changed to host %u: %s", m->number, m->qid, t->c->host,
                    why);
    if (t->e.has_size && !m->long_lines && t->e.size != t->content.n)
        ledger_fail(l, "message %u came with SIZE=%llu and has %zu bytes", m->number,
                    (unsigned long long)t->e.size, t->content.n);
}

/* Was some recipient taken?  Else the content is an empty message behind 354, or for no recipient.
 */
static bool take_is_for_some(const struct ledger_take *t) {
    for (unsigned i = 0; i < t->n; i++)
        if (t->codes[i] / 100 == 2)
            return true;
    return false;
}

void ledger_take_content(struct ledger_take *t, const char *p, size_t n, bool bdat) {
    bytes_clear(&t->content);
    bytes_add(&t->content, p, n);
    t->bdat = bdat;
    t->whole = true;
    if (t->mail != NULL && take_is_for_some(t))
        compare_content(t);
}

void ledger_take_left(struct ledger_take *t) {
    t->left = true;
}

void ledger_take_given_up(struct ledger_take *t) {
    t->given_up = true;
}

/* A reply too many shows when the transaction ends, or by its enhanced status code.  Without codes
 * two hide each other; where each recipient has a reply to the content (LMTP), it is that of the
 * next one. */
bool cannot_be_told(const struct ledger_conn *c) {
    return (c->crime & CRIME_FEWER) != 0 || (c->bare && c->extras > 1) ||
           (c->each && c->extras > 0);
}

bool forgotten_after(const struct ledger *l, int64_t ms) {
    for (unsigned i = 0; i < l->downs && i < sizeof l->down_ms / sizeof l->down_ms[0]; i++)
        if (l->down_ms[i] >= ms &&
            (l->down_ms[i] <= ms + NOTE_MS || l->rules.faulted(l->rules.arg)))
            return true;
    return false;
}

bool ledger_down_since(const struct ledger *l, int64_t ms) {
    for (unsigned i = 0; i < l->downs && i < sizeof l->down_ms / sizeof l->down_ms[0]; i++)
        if (l->down_ms[i] >= ms - WIRE_MS)
            return true;
    return false;
}

/* May what was delivered be delivered again, by t?  Before the product knows: after a loss, or when
 * it went down.  After that: only if it went down before it could note it.  A host that refuses
 * RSET behind a chunk has shown it the first time, and is given no chunk again; nor are the other
 * hosts of the same domain. */
static bool repeat_is_excused(const struct ledger_take *t, const struct rcpt_entry *r) {
    const struct ledger *l = t->c->l;
    if (r->sent)
        return forgotten_after(l, r->sent_ms);
    if (ledger_down_since(l, r->last_ms) || (r->last_conn->crime & ~(unsigned)CRIME_RSET) != 0)
        return true;
    if (r->last_conn->crime != 0 && l->rules.faulted(l->rules.arg))
        return true; /* a fault behind the host's own end may have taken its last words */
    bool known = t->c->host == r->last_conn->host || !road_of_rcpt(t->mail, r).configured;
    return r->last_conn->crime != 0 && r->last_bdat && !(t->bdat && known);
}

static void deliver_rcpt(struct ledger_take *t, struct rcpt_entry *r) {
    struct ledger *l = t->c->l;
    struct ledger_mail *m = t->mail;
    if (m->state == MAIL_REFUSED && (m->code / 100 == 5 || !forgotten_after(l, m->answer_ms)))
        ledger_fail(l, "message %u was refused with %d and was delivered", m->number, m->code);
    if (r->code != 0 && r->code / 100 != 2)
        ledger_fail(l, "<%s> of message %u was refused with %d and was delivered", r->addr,
                    m->number, r->code);
    if (m->untold && m->state == MAIL_ENDED && !l->rules.faulted(l->rules.arg))
        ledger_fail(l,
                    "message %u was taken, and an orderly stop left its client without an answer",
                    m->number);
    if (r->delivered > 0 && r->early != t && !repeat_is_excused(t, r))
        ledger_fail(l, "<%s> of message %u was delivered twice", r->addr, m->number);
    bool tells_little = (t->c->crime & (CRIME_EXTRA | CRIME_FEWER | CRIME_GARBAGE)) != 0;
    if (r->bounced && l->downs == 0 && !tells_little && !l->rules.faulted(l->rules.arg))
        ledger_fail(l, "<%s> of message %u was bounced and then delivered", r->addr, m->number);
    if (r->reported && !forgotten_after(l, r->reported_ms - NOTE_MS))
        ledger_fail(l, "<%s> of message %u was returned to its sender and then delivered", r->addr,
                    m->number);
    int64_t now = l->rules.now_ms(l->rules.arg);
    /* A host that says it will not take the content, and then takes it, sends the mail to the next
     * one at once. */
    bool refused = r->delivered > 0 && (r->last_conn->crime & CRIME_EXTRA) != 0;
    if (r->delivered > 0 && !ledger_down_since(l, r->last_ms) && !l->rules.hurries &&
        !r->last_bdat && !refused && now < r->last_ms + ATTEMPT_MS)
        ledger_fail(l, "<%s> of message %u was delivered twice within one attempt", r->addr,
                    m->number);
    r->delivered++;
    l->delivered++;
    r->last_ms = now;
    r->last_bdat = t->bdat;
    r->last_conn = t->c;
    r->sent = false;
}

static void deliver(struct ledger_take *t, unsigned rcpt) {
    char qid[32];
    for (unsigned i = 0; i < t->n; i++)
        if (t->rcpts[i] != NULL && t->codes[i] / 100 == 2 && (rcpt == LEDGER_NOBODY || rcpt == i))
            deliver_rcpt(t, t->rcpts[i]);
    if (t->mail != NULL || !take_is_for_some(t) || t->sender[0] != '\0')
        return;
    if (received_field(t->content.p, t->content.n, qid) == 0)
        ledger_fail(t->c->l, "host %u: mail from <> for <%s> without a Received field of ours",
                    t->c->host, t->addrs[0]);
    else
        report_taken(t, qid);
}

unsigned ledger_say(struct ledger_conn *c, enum ledger_stage stage, int code, struct ledger_take *t,
                    unsigned rcpt) {
    struct ledger *l = c->l;
    if (l->n_said == l->cap_said) {
        l->cap_said *= 2;
        l->said = realloc(l->said, l->cap_said * sizeof *l->said);
        if (l->said == NULL)
            abort();
    }
    bool whole = t != NULL && t->whole;
    c->each = c->each || (stage == STAGE_BODY && rcpt != LEDGER_NOBODY);
    l->said[l->n_said] =
        (struct said){c, stage, code, t, rcpt, whole, l->rules.now_ms(l->rules.arg)};
    if (t != NULL && stage == STAGE_RCPT && rcpt < t->n) {
        t->codes[rcpt] = code;
        if (t->rcpts[rcpt] != NULL && code / 100 == 4 && c->crime == 0)
            t->rcpts[rcpt]->put_off = true;
    }
    if (stage == STAGE_BODY && code / 100 == 2 && whole)
        deliver(t, rcpt);
    return l->n_said++;
}

void ledger_restated(struct ledger *l, unsigned token, int code) {
    if (token == 0 || token >= l->n_said)
        return;
    struct said *s = &l->said[token];
    s->of_all = s->of_all || s->code == 421;
    s->code = code;
    if (s->t != NULL && s->stage == STAGE_RCPT && s->rcpt < s->t->n && s->t->rcpts[s->rcpt] != NULL)
        s->t->rcpts[s->rcpt]->put_off = code / 100 == 4 && s->c->crime == 0;
}

/* ---- orders and the end ---- */

void ledger_reload(struct ledger *l) {
    if (l->n_reloads < sizeof l->reload_ms / sizeof l->reload_ms[0])
        l->reload_ms[l->n_reloads++] = l->rules.now_ms(l->rules.arg);
}

void ledger_clock(struct ledger *l, int64_t ms) {
    l->forward_ms += ms > 0 ? ms : 0;
}

void ledger_stopping(struct ledger *l) {
    if (l->stopping_ms == 0)
        l->stopping_ms = l->rules.now_ms(l->rules.arg);
}

bool settings_are_old(const struct ledger_conn *c, const struct ledger_mail *m) {
    for (unsigned i = 0; i < m->l->n_reloads; i++)
        if (c->at_ms < m->l->reload_ms[i] && m->begun_ms > m->l->reload_ms[i] + RELOAD_MS)
            return true;
    return false;
}

void ledger_down(struct ledger *l, bool orderly) {
    for (unsigned i = 0; i < l->n_mails && orderly; i++)
        l->mails[i]->untold = l->mails[i]->state == MAIL_ENDED && !l->mails[i]->gone;
    l->stopping_ms = 0;
    if (l->downs < sizeof l->down_ms / sizeof l->down_ms[0])
        l->down_ms[l->downs] = l->rules.now_ms(l->rules.arg);
    l->downs++;
}

static void order_mail(struct ledger_mail *m, enum ledger_order o, unsigned number) {
    if (m->state == MAIL_OPEN || m->deleted)
        return;
    m->order = number;
    m->durable_ms = 0;
    if (o == ORDER_RELEASE) {
        m->held = m->kept = false;
        m->released_ms = m->l->rules.now_ms(m->l->rules.arg);
        return;
    }
    m->deleted = o == ORDER_DELETE;
    m->held = m->held || o == ORDER_HOLD;
    m->forced = m->forced || o == ORDER_EXPIRE;
    m->ordered_ms = m->l->rules.now_ms(m->l->rules.arg);
}

void ledger_durable(struct ledger *l, unsigned number) {
    for (unsigned i = 0; i < l->n_mails; i++)
        if (l->mails[i]->order == number)
            l->mails[i]->durable_ms = l->rules.now_ms(l->rules.arg);
}

void ledger_order(struct ledger *l, enum ledger_order o, unsigned number, const char *qid,
                  const char *rcpt) {
    struct report_entry *rep = report_by_qid(l, qid);
    unsigned mail, num;
    char *plain = address_plain(rcpt, l->rules.origin);
    struct ledger_mail *m = address_numbers(plain, &mail, &num) ? mail_by_number(l, mail) : NULL;
    free(plain);
    if (m != NULL && m->qid[0] == '\0')
        snprintf(m->qid, sizeof m->qid, "%s", qid);
    if (m != NULL)
        list_seen(m);
    if (m != NULL)
        order_mail(m, o, number);
    else if (rep != NULL)
        rep->over = rep->over || o == ORDER_DELETE;
}

/* When the attempt of which r was a part was over: a message waits as a whole, from the answer to
 * its last recipient on. */
static int64_t attempt_over_ms(const struct ledger_mail *m, const struct rcpt_entry *r) {
    int64_t over = r->tried_ms;
    for (unsigned i = 0; i < m->n_rcpts; i++)
        if (m->rcpts[i].tries <= r->tries) /* not in a later round */
            over = later_of(over, m->rcpts[i].tried_ms);
    return over;
}

/* What waits has its next attempt within maximal_backoff_time; where nothing happens, time goes on
 * in steps of half of what has gone by. */
static void check_turn(struct ledger *l, const struct ledger_mail *m, const struct rcpt_entry *r) {
    int64_t since = later_of(later_of(attempt_over_ms(m, r), m->released_ms), last_down_ms(l));
    int64_t waits = l->rules.now_ms(l->rules.arg) - since;
    if (!m->expired && r->tried_ms > 0 && waits > 2 * l->rules.backoff_ms &&
        !l->rules.faulted(l->rules.arg))
        ledger_fail(l, "<%s> of message %u has not been tried for %lld ms", r->addr, m->number,
                    (long long)waits);
}

/* Has a recipient of m not had its turn since r was refused?  The report is made when the round is
 * over, and a slow host can make others wait long for their turn. */
static bool round_goes_on(const struct ledger_mail *m, const struct rcpt_entry *r) {
    for (unsigned i = 0; i < m->n_rcpts; i++) {
        const struct rcpt_entry *o = &m->rcpts[i];
        if (o->code / 100 == 2 && !o->stands && !o->bounced && !o->sent &&
            o->tried_ms < r->bounced_ms)
            return true;
    }
    return false;
}

void ledger_queued(struct ledger *l, const char *qid, const char *sender, const char *rcpt,
                   bool deferred) {
    struct report_entry *rep = report_by_qid(l, qid);
    struct ledger_mail *m = NULL;
    struct rcpt_entry *r = NULL;
    unsigned mail, num;
    char *plain = address_plain(rcpt, l->rules.origin);
    if (rep != NULL) {
        rep->queued = true;
        return;
    }
    if (address_numbers(plain, &mail, &num) && (m = mail_by_number(l, mail)) != NULL)
        r = mail_rcpt(m, num);
    if (r != NULL) {
        list_seen(m);
        changes_check(m, r, "is queued itself");
        r->queued = true;
        if (deferred)
            check_turn(l, m, r);
        struct ledger_road road = road_of_rcpt(m, r);
        if (deferred && road.fault != NULL && !l->rules.soft && !l->rules.gaps &&
            !l->rules.faulted(l->rules.arg))
            ledger_fail(l, "<%s> of message %u waits, and its domain takes no mail (%s)", r->addr,
                        m->number, road.fault);
        if (r->bounced && !l->rules.faulted(l->rules.arg) && last_down_ms(l) < r->bounced_ms &&
            l->rules.now_ms(l->rules.arg) > r->bounced_ms + 2 * l->rules.backoff_ms &&
            !round_goes_on(m, r))
            ledger_fail(l, "<%s> of message %u was bounced, and its sender is not told", r->addr,
                        m->number);
        if (m->deleted && (m->durable_ms != 0 || l->downs == 0))
            ledger_fail(l, "message %u (%s) was deleted and is queued", m->number, qid);
        return;
    }
    if (sender[0] != '\0') {
        ledger_fail(l, "%s from <%s> for <%s> is queued, and no client gave it", qid, sender, rcpt);
        return;
    }
    report_of_old(l, plain);
}

bool report_is_due(const struct ledger_mail *m, const struct rcpt_entry *r) {
    return m->sender[0] != '\0' && (r->notify == 0 || (r->notify & LEDGER_FAILURE) != 0);
}

static void end_rcpt(struct ledger *l, const struct ledger_mail *m, const struct rcpt_entry *r) {
    if (r->early != NULL && !r->early->whole && r->delivered == 0 && !r->early->given_up &&
        !l->rules.faulted(l->rules.arg))
        ledger_fail(l, "<%s> of message %u is \"sent\", and its content never came whole", r->addr,
                    m->number);
    changes_end(m, r);
    if (r->delivered > 0 || r->queued || r->trusted || m->deleted || r->stands ||
        r->code / 100 != 2)
        return;
    if (!r->bounced && !m->expired)
        ledger_fail(l,
                    "<%s> of message %u (%s): accepted, and neither delivered, returned nor "
                    "queued",
                    r->addr, m->number, m->qid);
    else if (report_is_due(m, r) && !r->reported && !m->notified)
        ledger_fail(l, "<%s> of message %u (%s) failed, and its sender <%s> was not told", r->addr,
                    m->number, m->qid, m->sender);
}

void ledger_end(struct ledger *l) {
    for (unsigned i = 0; i < l->n_mails; i++)
        for (unsigned k = 0; k < l->mails[i]->n_rcpts; k++)
            if (l->mails[i]->state == MAIL_ACCEPTED)
                end_rcpt(l, l->mails[i], &l->mails[i]->rcpts[k]);
    for (unsigned i = 0; i < l->n_reports; i++) {
        struct report_entry *r = &l->reports[i];
        if (r->delivered == 0 && !r->over && !r->queued && !list_has_report(l, r))
            ledger_fail(l, "the report %s about message %u: neither delivered nor queued", r->qid,
                        r->about == NULL ? 0 : r->about->number);
    }
}

const char *ledger_qid(const struct ledger *l, unsigned n) {
    for (unsigned i = 0; i < l->n_mails; i++)
        if (l->mails[i]->state == MAIL_ACCEPTED && n-- == 0)
            return l->mails[i]->qid;
    return NULL;
}

void ledger_counts(const struct ledger *l, unsigned *accepted, unsigned *delivered,
                   unsigned *bounced) {
    *accepted = l->accepted;
    *delivered = l->delivered;
    *bounced = l->bounced;
}
