/*
 * tests/wire/policies.c - a policy service; see policies.h
 */
#include "policies.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scene.h"

#define POLICY_ADDR   "10.2.0.9"
#define POLICY_PORT   9998
#define POLICY_TEXT   80
#define POLICY_LATE_S 15 /* the time limit is 10 */

struct policy_peer {
    struct wire_peer peer;
    struct wire_end *end;
    struct scene *s;
    struct bytes in;
    bool over;
    char late[POLICY_TEXT]; /* an answer for which it is too late */
};

static enum ledger_policy said_of(const struct scene *s, unsigned mail) {
    return mail < SCENE_MAILS ? s->policy_says[mail] : LEDGER_PASSES;
}

/* What access(5) has for it. */
static void action_of(enum ledger_policy says, unsigned mail, char text[POLICY_TEXT]) {
    static const char *const passes[] = {"DUNNO", "OK", "INFO seen", "permit_mynetworks"};
    switch (says) {
    case LEDGER_REFUSES:
        snprintf(text, POLICY_TEXT, "%s", mail % 2 == 0 ? "REJECT no" : "DEFER_IF_PERMIT later");
        break;
    case LEDGER_HOLDS:
        snprintf(text, POLICY_TEXT, "HOLD");
        break;
    case LEDGER_DISCARDS:
        snprintf(text, POLICY_TEXT, "DISCARD");
        break;
    case LEDGER_REDIRECTS:
        snprintf(text, POLICY_TEXT, "REDIRECT m%ur15@near.example", mail);
        break;
    case LEDGER_COPIES:
        snprintf(text, POLICY_TEXT, "BCC m%ur14@near.example", mail);
        break;
    case LEDGER_PREPENDS:
        snprintf(text, POLICY_TEXT, "PREPEND X-Policy: m%u", mail);
        break;
    default:
        snprintf(text, POLICY_TEXT, "%s", passes[mail % 4]);
        break;
    }
}

void policy_tell(const struct scene *s, struct ledger_mail *m, unsigned mail, bool last) {
    char text[POLICY_TEXT];
    if (!s->policed)
        return;
    action_of(said_of(s, mail), mail, text);
    const char *what = strchr(text, ' ');
    ledger_policy(m, said_of(s, mail), what == NULL ? "" : what + 1, last);
}

/* -- the dialogue -- */

static void policy_ends(struct policy_peer *p, bool reset) {
    if (p->over)
        return;
    p->over = true;
    if (reset)
        wire_reset(p->end);
    else
        wire_close(p->end);
}

static void policy_send(struct policy_peer *p, const char *text) {
    wire_send(p->end, text, strlen(text));
}

static void policy_answers(struct policy_peer *p, const char *recipient) {
    char text[POLICY_TEXT], answer[POLICY_TEXT + 16];
    unsigned mail = ledger_mail_of(recipient);
    action_of(said_of(p->s, mail), mail, text);
    snprintf(answer, sizeof answer, "action=%s\n\n", text);
    policy_send(p, answer);
    ledger_answered(p->s->ledger, recipient);
}

static void policy_is_long(struct policy_peer *p) {
    struct bytes b = {0};
    bytes_text(&b, "action=OK");
    bytes_fill(&b, ' ', 9000);
    wire_send(p->end, b.p, b.n);
    bytes_free(&b);
}

static void policy_request(struct policy_peer *p, const char *recipient) {
    struct scene *s = p->s;
    bool twisted = s->policy_times == 0 || s->policy_requests < s->policy_times;
    s->policy_requests++;
    switch (twisted ? s->policy_twist : POLICY_WELL) {
    case POLICY_SILENT:
        break;
    case POLICY_HANGS_UP:
        policy_ends(p, false);
        break;
    case POLICY_RESETS:
        policy_ends(p, true);
        break;
    case POLICY_GARBAGE:
        policy_send(p, "what=OK\nthis is no action=OK\n\n");
        break;
    case POLICY_HALF:
        policy_send(p, "action=OK\n");
        policy_ends(p, false);
        break;
    case POLICY_LATE:
        snprintf(p->late, sizeof p->late, "action=OK\n\n");
        wire_after(p->end, POLICY_LATE_S * 1000);
        break;
    case POLICY_LONG:
        policy_is_long(p);
        break;
    case POLICY_SPLIT:
        wire_split(p->end);
        policy_answers(p, recipient);
        break;
    default:
        policy_answers(p, recipient);
        break;
    }
}

/* The value of "recipient=" in the n bytes of a request, in memory of its own. */
static char *recipient_in(const char *p, size_t n) {
    const char *at = bytes_find(p, n, "\nrecipient=");
    if (at == NULL)
        return bytes_copy("", 0);
    at += 11;
    return bytes_copy(at, (size_t)((const char *)memchr(at, '\n', n - (size_t)(at - p)) - at));
}

static void policy_input(struct wire_peer *peer, const char *bytes, size_t n) {
    struct policy_peer *p = (struct policy_peer *)(void *)peer;
    const char *end;
    bytes_add(&p->in, bytes, n);
    while (!p->over && (end = bytes_find(p->in.p, p->in.n, "\n\n")) != NULL) {
        size_t used = (size_t)(end - p->in.p) + 2;
        char *recipient = recipient_in(p->in.p, used);
        if (bytes_find(p->in.p, used, "request=smtpd_access_policy\n") != p->in.p)
            ledger_fail(p->s->ledger, "a policy service is asked something else");
        bytes_drop(&p->in, used);
        policy_request(p, recipient);
        free(recipient);
    }
}

static void policy_opened(struct wire_peer *peer, struct wire_end *e) {
    ((struct policy_peer *)(void *)peer)->end = e;
}

static void policy_eof(struct wire_peer *peer) {
    policy_ends((struct policy_peer *)(void *)peer, false);
}

static void policy_timer(struct wire_peer *peer) {
    struct policy_peer *p = (struct policy_peer *)(void *)peer;
    if (!p->over)
        policy_send(p, p->late);
}

static const struct wire_peer_ops policy_ops = {
    .opened = policy_opened, .input = policy_input, .eof = policy_eof, .timer = policy_timer};

static struct wire_peer *policy_new(void *arg, const struct netaddr *to) {
    struct policy_peer *p = calloc(1, sizeof *p);
    (void)to;
    if (p == NULL)
        abort();
    p->peer.ops = &policy_ops;
    p->s = arg;
    return &p->peer;
}

/* -- the scene -- */

void policies_configure(struct scene *s, enum policy_twist twist, unsigned times) {
    s->policed = true;
    s->policy_twist = twist;
    s->policy_times = times;
    ledger_rules(s->ledger)->policed = true;
    wire_host(s->world, POLICY_ADDR, POLICY_PORT, WIRE_LISTENS, policy_new, s);
    wire_main_cf(s->world,
                 "smtpd_recipient_restrictions = check_policy_service inet:%s:%d, permit\n"
                 "smtpd_policy_service_timeout = 10s\n",
                 POLICY_ADDR, POLICY_PORT);
}

void policy_says(struct scene *s, const struct client_mail *m, enum ledger_policy says) {
    if (m->number < SCENE_MAILS)
        s->policy_says[m->number] = says;
}

void policy_draw(struct scene *s, const struct client_mail *m) {
    struct dice *d = &s->dice;
    char name[32];
    enum ledger_policy says =
        dice_says(d, 40) ? LEDGER_PASSES : (enum ledger_policy)dice_roll(d, LEDGER_POLICIES);
    snprintf(name, sizeof name, "m%ur0@", m->number);
    bool plain = m->n_rcpts == 1 && m->rcpts[0].list == NULL && m->rcpts[0].stands == NULL &&
                 strncmp(m->rcpts[0].addr, name, strlen(name)) == 0;
    policy_says(s, m, says == LEDGER_REDIRECTS && !plain ? LEDGER_HOLDS : says);
}
