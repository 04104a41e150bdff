/*
 * tests/wire/client.c - clients of the wire simulator; see client.h
 */
#include "client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Longer than the product's longest time-out: a client that waits so long is forgotten. */
#define PATIENCE_MS 3600000

enum step_kind {
    STEP_LINE, /* one reply, of no consequence */
    STEP_RAW,
    STEP_HELLO,
    STEP_STARTTLS,
    STEP_AUTH,
    STEP_MAIL,
    STEP_RCPT,
    STEP_DATA,
    STEP_TEXT, /* content after 354 */
    STEP_CHUNK,
    STEP_RESET, /* RSET, unless the content of txn was asked for */
    STEP_WAIT,
    STEP_STALL
};

/* A transaction of this client. */
struct client_txn {
    struct client_mail mail;
    struct ledger_mail *entry;
    bool go; /* DATA was answered by 354 */
};

struct client_step {
    enum step_kind kind;
    bool together;
    struct bytes out;
    struct client_txn *txn;
    unsigned number; /* of the recipient; of replies (STEP_RAW) */
    bool wrong;      /* STEP_AUTH: the password is */
    bool last;       /* of the chunks */
    int64_t ms;      /* STEP_WAIT, STEP_STARTTLS */
};

struct client {
    struct wire_peer peer;
    struct wire_world *world;
    struct ledger *ledger;
    struct wire_end *end;
    struct client_step *steps;
    unsigned n_steps, cap_steps;
    unsigned at; /* the next step to send */
    /* steps that wait for a reply, in order */
    const struct client_step **waits;
    unsigned n_waits, cap_waits, first_wait;
    bool stranger, logged_in; /* its mail is relayed only after a login */
    bool wrapped, greeted, over, quit_sent, waiting, handshake;
    enum client_end how;
    unsigned after;
    int64_t late_ms;         /* the end comes so long after the last step; 0: at once */
    bool leaving;            /* that time runs */
    bool cut;                /* the last content breaks off */
    struct client_txn *last; /* added; its content goes by DATA (last_data) */
    bool last_data;
    struct bytes in;
    struct bytes chunks; /* of the message that BDAT goes on with */
    client_named_fn *named;
    void *named_arg;
};

struct client *client_new(struct wire_world *w, struct ledger *l) {
    struct client *c = calloc(1, sizeof *c);
    if (c == NULL)
        abort();
    c->world = w;
    c->ledger = l;
    return c;
}

void client_when_named(struct client *c, client_named_fn *fn, void *arg) {
    c->named = fn;
    c->named_arg = arg;
}

static struct client_step *step_add(struct client *c, enum step_kind kind, bool together) {
    if (c->n_steps == c->cap_steps) {
        c->cap_steps = c->cap_steps == 0 ? 32 : c->cap_steps * 2;
        c->steps = realloc(c->steps, c->cap_steps * sizeof *c->steps);
        if (c->steps == NULL)
            abort();
    }
    struct client_step *s = &c->steps[c->n_steps++];
    *s = (struct client_step){.kind = kind, .together = together};
    return s;
}

void client_hello_as(struct client *c, bool extended, const char *name) {
    struct client_step *s = step_add(c, STEP_HELLO, false);
    bytes_printf(&s->out, "%s %s\r\n", extended ? "EHLO" : "HELO", name);
}

void client_hello(struct client *c, bool extended) {
    client_hello_as(c, extended, "client.wire.example");
}

void client_starttls(struct client *c, int64_t late_ms, const char *behind) {
    struct client_step *s = step_add(c, STEP_STARTTLS, false);
    bytes_printf(&s->out, "STARTTLS\r\n%s", behind == NULL ? "" : behind);
    s->ms = late_ms;
}

static void auth_line(struct client *c, const char *before, const char *p, size_t n) {
    struct client_step *s = step_add(c, STEP_AUTH, false);
    bytes_text(&s->out, before);
    base64_put(&s->out, p, n);
    bytes_text(&s->out, "\r\n");
}

void client_login(struct client *c, const char *mech, const char *user, const char *password,
                  bool right) {
    struct bytes b = {0};
    if (strcmp(mech, "PLAIN") == 0) {
        bytes_char(&b, '\0');
        bytes_text(&b, user);
        bytes_char(&b, '\0');
        bytes_text(&b, password);
        auth_line(c, "AUTH PLAIN ", b.p, b.n);
        c->steps[c->n_steps - 1].wrong = !right;
        bytes_free(&b);
        return;
    }
    struct client_step *s = step_add(c, STEP_AUTH, false);
    bytes_text(&s->out, "AUTH LOGIN\r\n");
    auth_line(c, "", user, strlen(user));
    auth_line(c, "", password, strlen(password));
    c->steps[c->n_steps - 1].wrong = !right;
}

static void add_mail_command(struct client *c, struct client_txn *t, bool together) {
    struct client_step *s = step_add(c, STEP_MAIL, together);
    s->txn = t;
    bytes_printf(&s->out, "MAIL FROM:<%s>", t->mail.sender);
    if (t->mail.envid.n > 0) {
        bytes_text(&s->out, " ENVID=");
        xtext_put(&s->out, t->mail.envid.p, t->mail.envid.n);
    }
    if (t->mail.ret != 0)
        bytes_printf(&s->out, " RET=%s", t->mail.ret == 'F' ? "FULL" : "HDRS");
    bytes_printf(&s->out, "%s\r\n", t->mail.more == NULL ? "" : t->mail.more);
}

static void add_notify(struct bytes *out, unsigned notify) {
    static const char *const words[] = {"NEVER", "SUCCESS", "FAILURE", "DELAY"};
    const char *sep = " NOTIFY=";
    for (unsigned i = 0; i < 4; i++)
        if ((notify >> i & 1) != 0) {
            bytes_printf(out, "%s%s", sep, words[i]);
            sep = ",";
        }
}

static void add_rcpt_command(struct client *c, struct client_txn *t, unsigned i, bool together) {
    struct client_step *s = step_add(c, STEP_RCPT, together);
    const struct client_rcpt *r = &t->mail.rcpts[i];
    s->txn = t;
    s->number = i;
    bytes_printf(&s->out, "RCPT TO:<%s>", r->addr);
    add_notify(&s->out, r->notify);
    const char *semi = r->orcpt.n == 0 ? NULL : memchr(r->orcpt.p, ';', r->orcpt.n);
    if (semi != NULL) {
        size_t type = (size_t)(semi - r->orcpt.p) + 1;
        bytes_text(&s->out, " ORCPT=");
        bytes_add(&s->out, r->orcpt.p, type);
        xtext_put(&s->out, semi + 1, r->orcpt.n - type);
    }
    bytes_printf(&s->out, "%s\r\n", r->more == NULL ? "" : r->more);
}

/* A transaction that failed is ended before the next one begins. */
static void add_reset(struct client *c, bool together) {
    if (c->last == NULL)
        return;
    struct client_step *s = step_add(c, STEP_RESET, together);
    s->txn = c->last_data ? c->last : NULL;
    bytes_text(&s->out, "RSET\r\n");
}

static struct client_txn *add_envelope(struct client *c, const struct client_mail *m,
                                       unsigned how) {
    struct client_txn *t = calloc(1, sizeof *t);
    if (t == NULL)
        abort();
    t->mail = *m;
    add_reset(c, (how & CLIENT_NEXT) != 0);
    c->last = t;
    add_mail_command(c, t, (how & CLIENT_NEXT) != 0);
    for (unsigned i = 0; i < m->n_rcpts; i++)
        add_rcpt_command(c, t, i, (how & CLIENT_TOGETHER) != 0);
    return t;
}

void client_data(struct client *c, const struct client_mail *m, unsigned how) {
    struct client_txn *t = add_envelope(c, m, how);
    struct client_step *s = step_add(c, STEP_DATA, (how & CLIENT_TOGETHER) != 0);
    bytes_text(&s->out, "DATA\r\n");
    s->txn = t;
    s = step_add(c, STEP_TEXT, false);
    s->txn = t;
    bytes_add(&s->out, m->content.p, m->content.n);
    c->last_data = true;
}

static void add_chunk(struct client *c, struct client_txn *t, size_t from, size_t to, bool last,
                      bool together) {
    struct client_step *s = step_add(c, STEP_CHUNK, together);
    s->txn = t;
    s->last = last;
    bytes_printf(&s->out, "BDAT %zu%s\r\n", to - from, last ? " LAST" : "");
    s->number = (unsigned)s->out.n;
    bytes_add(&s->out, bytes_str(&t->mail.content) + from, to - from);
}

void client_bdat(struct client *c, const struct client_mail *m, unsigned how, const size_t *cuts,
                 size_t n_cuts, bool empty_last) {
    struct client_txn *t = add_envelope(c, m, how);
    bool together = (how & CLIENT_TOGETHER) != 0;
    size_t from = 0;
    c->last_data = false;
    for (size_t i = 0; i < n_cuts; i++) {
        if (cuts[i] < from || cuts[i] > m->content.n)
            continue;
        add_chunk(c, t, from, cuts[i], false, together);
        from = cuts[i];
    }
    add_chunk(c, t, from, m->content.n, !empty_last, together);
    if (empty_last)
        add_chunk(c, t, m->content.n, m->content.n, true, together);
}

void client_given_up(struct client *c, const struct client_mail *m) {
    add_envelope(c, m, 0);
    c->last_data = false;
    client_line(c, "RSET", false);
}

void client_line(struct client *c, const char *line, bool together) {
    struct client_step *s = step_add(c, STEP_LINE, together);
    bytes_printf(&s->out, "%s\r\n", line);
}

void client_raw(struct client *c, const void *p, size_t n, unsigned replies) {
    struct client_step *s = step_add(c, STEP_RAW, false);
    bytes_add(&s->out, p, n);
    s->number = replies;
}

void client_wait(struct client *c, int64_t ms) {
    step_add(c, STEP_WAIT, false)->ms = ms;
}

void client_stall(struct client *c, bool on) {
    step_add(c, STEP_STALL, false)->last = on;
}

void client_ends(struct client *c, enum client_end how, unsigned after) {
    c->how = how;
    c->after = after == 0 || after > c->n_steps ? c->n_steps : after;
}

void client_ends_late(struct client *c, int64_t ms) {
    c->late_ms = ms;
}

void client_cut(struct client *c) {
    c->cut = c->n_steps > 0 && c->steps[c->n_steps - 1].kind == STEP_TEXT;
}

unsigned client_steps(const struct client *c) {
    return c->n_steps;
}

bool client_over(const struct client *c) {
    return c->over;
}

/* ---- the dialogue ---- */

static void wait_push(struct client *c, const struct client_step *s) {
    if (c->n_waits == c->cap_waits) {
        c->cap_waits = c->cap_waits == 0 ? 32 : c->cap_waits * 2;
        c->waits = realloc(c->waits, c->cap_waits * sizeof *c->waits);
        if (c->waits == NULL)
            abort();
    }
    c->waits[c->n_waits++] = s;
}

static bool has_waits(const struct client *c) {
    return c->first_wait < c->n_waits;
}

static void tell_rcpt(struct client *c, const struct client_step *s) {
    const struct client_rcpt *r = &s->txn->mail.rcpts[s->number];
    ledger_mail_rcpt(s->txn->entry, s->number, r->addr, r->notify, &r->orcpt);
    if (r->list != NULL)
        list_tell(r->list, s->txn->entry, s->number);
    if (r->stands != NULL)
        virtual_tell(r->stands, s->txn->entry);
    if (c->named != NULL)
        c->named(c->named_arg, s->txn->entry, s->txn->mail.number,
                 s->number + 1 == s->txn->mail.n_rcpts);
}

/* The ledger hears of it before the product does. */
static void tell_ledger(struct client *c, const struct client_step *s) {
    if (s->kind == STEP_MAIL)
        s->txn->entry = ledger_mail(c->ledger, s->txn->mail.number, s->txn->mail.sender,
                                    &s->txn->mail.envid, s->txn->mail.ret);
    else if (s->kind == STEP_RCPT)
        tell_rcpt(c, s);
    else if (s->kind == STEP_TEXT)
        ledger_mail_content(s->txn->entry, bytes_str(&s->out), s->out.n, true);
    if (s->kind != STEP_CHUNK)
        return;
    bytes_add(&c->chunks, s->out.p + s->number, s->out.n - s->number);
    if (s->last) {
        ledger_mail_content(s->txn->entry, bytes_str(&c->chunks), c->chunks.n, false);
        bytes_clear(&c->chunks);
    }
}

/* No client hears the answers that are still to come. */
static void client_leaves(const struct client *c) {
    for (unsigned i = c->first_wait; i < c->n_waits; i++)
        if (c->waits[i]->txn != NULL && c->waits[i]->txn->entry != NULL)
            ledger_mail_gone(c->waits[i]->txn->entry);
}

static void client_finish(struct client *c) {
    if (c->over || c->quit_sent)
        return;
    if (c->how != CLIENT_QUITS)
        client_leaves(c);
    switch (c->how) {
    case CLIENT_QUITS:
        c->quit_sent = true;
        wire_send(c->end, "QUIT\r\n", 6);
        break;
    case CLIENT_CLOSES:
        c->over = true;
        wire_close(c->end);
        break;
    case CLIENT_RESETS:
        c->over = true;
        wire_reset(c->end);
        break;
    case CLIENT_DEAF:
        c->over = true;
        wire_stall(c->end, true);
        break;
    default:
        c->over = true;
        break;
    }
}

static void send_step(struct client *c, const struct client_step *s) {
    if (c->cut && s->kind == STEP_TEXT && c->at == c->n_steps) {
        wire_send(c->end, s->out.p, s->out.n / 2);
        return;
    }
    tell_ledger(c, s);
    unsigned replies = s->kind == STEP_RAW ? s->number : 1;
    for (unsigned i = 0; i < replies; i++)
        wait_push(c, s);
    if (s->out.n > 0)
        wire_send(c->end, s->out.p, s->out.n);
    wire_after(c->end, PATIENCE_MS);
}

/* Content that was not asked for, RSET that is not needed. */
static bool step_is_idle(const struct client_step *s) {
    return s->kind == STEP_TEXT    ? !s->txn->go
           : s->kind == STEP_RESET ? s->txn != NULL && s->txn->go
                                   : false;
}

static void client_go(struct client *c) {
    while (c->greeted && !c->over && !c->quit_sent && !c->waiting && !c->handshake) {
        if (c->at >= c->n_steps || c->at >= c->after) {
            bool wait = has_waits(c) && (c->after == c->n_steps || c->how == CLIENT_QUITS);
            if (c->late_ms > 0 && !c->leaving) {
                c->leaving = true;
                wire_after(c->end, c->late_ms);
            } else if (c->late_ms == 0 && !wait) {
                client_finish(c);
            }
            return;
        }
        const struct client_step *s = &c->steps[c->at];
        if (!s->together && has_waits(c))
            return;
        c->at++;
        if (step_is_idle(s))
            continue;
        if (s->kind == STEP_WAIT) {
            c->waiting = true;
            wire_after(c->end, s->ms > 0 ? s->ms : 1);
        } else if (s->kind == STEP_STALL) {
            wire_stall(c->end, s->last);
        } else {
            send_step(c, s);
        }
    }
}

static void on_reply(struct client *c, const struct client_step *s, int code, const char *text) {
    switch (s->kind) {
    case STEP_STARTTLS:
        if (code / 100 != 2)
            break;
        c->handshake = true;
        if (s->ms == 0)
            wire_tls(c->end, false);
        else
            wire_after(c->end, s->ms);
        break;
    case STEP_MAIL:
        if (code / 100 != 2)
            ledger_mail_refused(s->txn->entry, code);
        break;
    case STEP_AUTH:
        c->logged_in = c->logged_in || code == 235;
        if (code == 235 && s->wrong)
            ledger_fail(c->ledger, "a client logged in with a wrong password");
        break;
    case STEP_RCPT:
        if (code / 100 == 2 && c->stranger && !c->logged_in &&
            s->txn->mail.rcpts[s->number].list == NULL &&
            !virtual_is_ours(s->txn->mail.rcpts[s->number].addr) &&
            !ledger_goes_nowhere(s->txn->entry))
            ledger_fail(c->ledger, "a stranger may relay: %s", text);
        ledger_mail_rcpt_answer(s->txn->entry, s->number, code);
        break;
    case STEP_DATA:
        s->txn->go = code == 354;
        break;
    case STEP_TEXT:
        ledger_mail_answer(s->txn->entry, code, text);
        break;
    case STEP_CHUNK:
        if (s->last)
            ledger_mail_answer(s->txn->entry, code, text);
        break;
    default:
        break;
    }
}

/* The last line of a reply. */
static void reply_ends(struct client *c, int code, const char *text) {
    if (!c->greeted) {
        c->greeted = true;
        if (code / 100 != 2)
            c->over = true;
        return;
    }
    if (code == 421 || (c->quit_sent && !has_waits(c))) { /* it hangs up */
        if (has_waits(c) && strstr(text, "timeout") != NULL && !wire_faulted(c->world) &&
            !c->waiting && !c->handshake)
            ledger_fail(c->ledger, "a client that waits for an answer is told: %s", text);
        c->over = true;
        return;
    }
    if (!has_waits(c)) {
        ledger_fail(c->ledger, "a client got a reply that it did not ask for: %d %s", code, text);
        return;
    }
    on_reply(c, c->waits[c->first_wait++], code, text);
    if (!has_waits(c) && !c->waiting && !c->handshake && !c->leaving)
        wire_after(c->end, PATIENCE_MS);
}

static void on_line(struct client *c, const char *p, size_t n) {
    int code = 0, used = 0;
    ledger_client_line(c->ledger, p, n);
    if (n < 3 || sscanf(p, "%3d%n", &code, &used) != 1 || used != 3 || code < 200 || code > 599 ||
        (n > 3 && p[3] != ' ' && p[3] != '-')) {
        ledger_fail(c->ledger, "a client got what is no reply: %.*s", (int)n, p);
        return;
    }
    if (n > 3 && p[3] == '-')
        return;
    char *text = bytes_copy(p, n);
    reply_ends(c, code, text);
    free(text);
}

static void client_opened(struct wire_peer *p, struct wire_end *e) {
    struct client *c = (struct client *)(void *)p;
    c->end = e;
    c->handshake = c->wrapped;
    if (c->wrapped)
        wire_tls(e, false);
    wire_after(e, PATIENCE_MS);
}

static void client_input(struct wire_peer *p, const char *bytes, size_t n) {
    struct client *c = (struct client *)(void *)p;
    size_t at = 0;
    bytes_add(&c->in, bytes, n);
    while (at < c->in.n) {
        const char *from = c->in.p + at, *lf = memchr(from, '\n', c->in.n - at);
        if (lf == NULL)
            break;
        size_t len = (size_t)(lf - from);
        at += len + 1;
        if (len == 0 || from[len - 1] != '\r')
            ledger_fail(c->ledger, "a reply does not end in CR LF: %.*s", (int)len, from);
        else if (!c->over)
            on_line(c, from, len - 1);
    }
    bytes_drop(&c->in, at);
    client_go(c);
}

static void client_eof(struct wire_peer *p) {
    struct client *c = (struct client *)(void *)p;
    c->over = true;
    wire_close(c->end);
}

static void client_reset(struct wire_peer *p) {
    ((struct client *)(void *)p)->over = true;
}

static void client_timer(struct wire_peer *p) {
    struct client *c = (struct client *)(void *)p;
    if (c->leaving) {
        client_finish(c);
    } else if (c->waiting) {
        c->waiting = false;
        wire_after(c->end, PATIENCE_MS);
        client_go(c);
    } else if (c->handshake && !c->wrapped) {
        wire_tls(c->end, false);
    } else if (!c->over) {
        if (!wire_faulted(c->world))
            ledger_fail(c->ledger, "a client has waited for an hour");
        client_leaves(c);
        c->over = true;
        wire_close(c->end);
    }
}

static void client_tls_up(struct wire_peer *p, bool ok) {
    struct client *c = (struct client *)(void *)p;
    c->handshake = false;
    if (!ok) {
        c->over = true;
        wire_close(c->end);
        return;
    }
    client_go(c);
}

static const struct wire_peer_ops client_ops = {client_opened, client_input, client_eof,
                                                client_reset,  client_timer, client_tls_up};

void client_start(struct client *c, const char *from, uint16_t port) {
    c->peer.ops = &client_ops;
    c->wrapped = port == 465;
    c->stranger = strncmp(from, "10.1.", 5) != 0; /* not in mynetworks */
    if (c->after == 0)
        c->after = c->n_steps;
    wire_client_connect(c->world, &c->peer, from, port);
}
