/*
 * tests/wire/relay.c - relay hosts of the wire simulator; see relay.h
 */
#include "relay.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* So long RSET is waited for (smtp_rset_timeout). */
#define RSET_S 20
/* Each byte is a step: after so many connections it has been seen. */
#define SPLIT_CONNS 20

enum relay_mode { MODE_LINE, MODE_TEXT, MODE_CHUNK, MODE_REPLIES, MODE_DEAF };

struct relay {
    struct wire_peer peer;
    struct relay_host *host;
    struct wire_end *end;
    struct ledger_conn *conn;
    struct bytes in;
    size_t at;        /* in in: what is done with */
    int64_t since_ms; /* when the first byte came that is not done with */
    enum relay_mode mode;
    bool paused, closed, tls, quit, logged_in, esmtp;
    bool close_after;   /* when what was said has been said */
    struct bytes later; /* a slow reply */
    unsigned seen[STAGE_COUNT];
    unsigned nth; /* of the host's connections, from 1 */
    bool healed;
    /* the transaction */
    struct ledger_take *take;
    unsigned accepted;
    unsigned boxes[LEDGER_RCPTS]; /* LMTP: which recipients were */
    unsigned replied;             /* … and for how many of them the content has its reply */
    bool in_chunks, spoilt;       /* BDAT has begun; one of them failed */
    struct bytes content;
    uint64_t chunk_left;
    bool chunk_last, chunk_valid, answered; /* answered: the final reply was sent early */
    bool early; /* a reply to the content was said before the content had come */
    const struct relay_twist *body_twist;
    /* AUTH */
    char mech[16];
    unsigned auth_step;
    struct bytes user;
};

static void relay_run(struct relay *r);

/* What it can now. */
static unsigned relay_can(const struct relay *r) {
    return r->host->plan.can & ~(r->tls ? r->host->plan.sheds : 0U);
}

static const struct relay_twist *twist_of(const struct relay *r, enum ledger_stage stage,
                                          unsigned nth) {
    for (unsigned i = 0; i < r->host->plan.n_twists && !r->healed; i++) {
        const struct relay_twist *t = &r->host->plan.twists[i];
        bool here = t->conn == 0 || t->conn == r->nth;
        if (here && t->stage == stage && nth >= t->nth &&
            (t->times == 0 || nth < t->nth + t->times))
            return t;
    }
    return NULL;
}

static void hang_up(struct relay *r, bool reset) {
    if (r->closed)
        return;
    r->closed = true;
    r->mode = MODE_DEAF;
    if (reset)
        wire_reset(r->end);
    else
        wire_close(r->end);
}

static void put(struct relay *r, const struct bytes *b) {
    if (!r->closed && b->n > 0)
        wire_send(r->end, b->p, b->n);
}

/* Subject and detail of the enhanced status code of a reply to a command of that stage. */
static const char *stage_about(enum ledger_stage stage) {
    return stage == STAGE_MAIL ? "1.0" : stage == STAGE_RCPT ? "1.5" : "0.0";
}

/* One reply as it ought to be, to a command of that stage. */
static void reply_text(const struct relay *r, struct bytes *out, enum ledger_stage stage, int code,
                       unsigned token, const char *words) {
    char dsn[16] = "";
    if (!r->host->plan.bare)
        snprintf(dsn, sizeof dsn, "%d.%s ", code / 100, stage_about(stage));
    if (r->host->plan.lines)
        bytes_printf(out, "%d-%sseveral lines\r\n%d-%sand one more\r\n", code, dsn, code, dsn);
    bytes_printf(out, "%d %s%s w%u\r\n", code, dsn, words, token);
}

/* What is being answered. */
struct answer {
    enum ledger_stage stage;
    int code;          /* the right one */
    const char *words; /* of the reply */
    unsigned rcpt;
    const char *heard;   /* the command, for an echo */
    struct bytes *whole; /* EHLO: the reply's lines; NULL: made here */
};

static unsigned told(struct relay *r, const struct answer *a, int code) {
    struct ledger_take *t = a->stage >= STAGE_MAIL && a->stage <= STAGE_BODY ? r->take : NULL;
    return ledger_say(r->conn, a->stage, code, t, a->rcpt);
}

static void say_right(struct relay *r, const struct answer *a, struct bytes *out) {
    unsigned token = told(r, a, a->code);
    if (a->whole != NULL)
        bytes_add(out, a->whole->p, a->whole->n);
    else
        reply_text(r, out, a->stage, a->code, token, a->words);
}

/* What has to leave the product before it can take an early reply for the one to its content. */
struct early {
    struct ledger_take *take;
    struct bytes had; /* of the content, when the reply was said */
    bool bdat, tls;
    uint64_t chunk_left; /* BDAT: all that is to come */
};

/* The product reads the first byte of an early reply; inside TLS its content cannot be told. */
static void early_is_read(void *arg, const char *p, size_t n) {
    struct early *e = arg;
    bytes_add(&e->had, p, n);
    bool left =
        e->bdat ? e->had.n >= e->chunk_left : bytes_find(e->had.p, e->had.n, "\r\n.\r\n") != NULL;
    if (left || e->tls)
        ledger_take_left(e->take);
    bytes_free(&e->had);
}

/* A reply to the content is about to be said before the content has come, behind ahead bytes. */
static void early_watch(struct relay *r, size_t ahead) {
    struct early *e = calloc(1, sizeof *e);
    if (e == NULL)
        abort();
    *e = (struct early){
        .take = r->take, .bdat = r->mode == MODE_CHUNK, .tls = r->tls, .chunk_left = r->chunk_left};
    bytes_add(&e->had, r->in.p + r->at, r->in.n - r->at);
    wire_when_read(r->end, ahead, early_is_read, e);
    r->early = true;
}

/* One more reply than was asked for. */
static void say_extra(struct relay *r, const struct answer *a, int code, struct bytes *out) {
    ledger_conn_crime(r->conn, code == 0 ? CRIME_GARBAGE : CRIME_EXTRA);
    if (code == 0) {
        bytes_text(out, "what is this\r\n");
        return;
    }
    /* Behind 354 it may come when the content has left: then it is the answer to that. */
    bool early = a->stage == STAGE_DATA && r->take != NULL;
    unsigned token = ledger_say(r->conn, early ? STAGE_BODY : STAGE_OTHER, code,
                                early ? r->take : NULL, LEDGER_NOBODY);
    if (early)
        early_watch(r, out->n);
    reply_text(r, out, a->stage, code, token, "once more");
}

static void say_lines(struct relay *r, const struct answer *a, bool mixed, struct bytes *out) {
    unsigned token = told(r, a, a->code);
    const char *about = stage_about(a->stage);
    for (int i = 0; i < 20; i++)
        bytes_printf(out, "%d-%d.%s line %d of many\r\n", mixed && i > 3 ? a->code + 100 : a->code,
                     a->code / 100, about, i);
    bytes_printf(out, "%d %d.%s %s w%u\r\n", a->code, a->code / 100, about, a->words, token);
    if (mixed)
        ledger_conn_crime(r->conn, CRIME_GARBAGE);
}

static void say_echo(struct relay *r, const struct answer *a, int code, struct bytes *out) {
    unsigned token = told(r, a, code);
    /* A positive reply that names another command than its own has the mail sent again. */
    bytes_printf(out, "%d %d.%s w%u you said: %.900s\r\n", code, code / 100,
                 code / 100 == 2 ? stage_about(a->stage) : "7.0", token,
                 a->heard == NULL ? "" : a->heard);
}

/* What is in r->later is said then. */
static void relay_waits(struct relay *r, enum ledger_stage stage, int seconds) {
    r->paused = true;
    if (stage == STAGE_RSET && seconds >= RSET_S)
        ledger_conn_crime(r->conn, CRIME_RSET);
    if (seconds >= 60)
        ledger_conn_crime(r->conn, CRIME_LOST);
    wire_after(r->end, (int64_t)seconds * 1000);
}

/* What the ledger must allow for: a reply after which the other side may hang up, whatever it had
 * under way. */
static unsigned crime_of(enum ledger_stage stage, const struct relay_twist *t) {
    bool third = t->code / 100 == 3 && stage != STAGE_DATA && stage != STAGE_AUTH;
    if (stage == STAGE_RSET && t->code / 100 != 2)
        return CRIME_RSET;
    return (third ? CRIME_LOST : 0) | (third && t->code == 354 ? CRIME_GO : 0);
}

/* Puts the reply of a twist into out; the code that counts for what happens next (0: none). */
static int say_twist(struct relay *r, const struct answer *a, const struct relay_twist *t,
                     struct bytes *out) {
    switch (t->act) {
    case ACT_CODE_CLOSE:
        /* As behind ACT_CLOSE_AFTER; replies that were not read yet are lost, too. */
        if ((relay_can(r) & CAN_PIPELINING) != 0)
            ledger_conn_crime(r->conn, CRIME_LOST);
        reply_text(r, out, a->stage, t->code, told(r, a, t->code), "as I like it");
        r->close_after = true;
        ledger_conn_crime(r->conn, crime_of(a->stage, t));
        return t->code;
    case ACT_CODE:
        reply_text(r, out, a->stage, t->code, told(r, a, t->code), "as I like it");
        ledger_conn_crime(r->conn, crime_of(a->stage, t));
        return t->code;
    case ACT_CODE_ON:
        reply_text(r, out, a->stage, t->code, told(r, a, t->code), "and on");
        ledger_conn_crime(r->conn, crime_of(a->stage, t));
        return a->code;
    case ACT_EXTRA:
        say_right(r, a, out);
        say_extra(r, a, t->code, out);
        return a->code;
    case ACT_NONE:
        ledger_conn_crime(r->conn, CRIME_FEWER | CRIME_LOST);
        return a->code;
    case ACT_SILENT:
        ledger_conn_crime(r->conn, CRIME_LOST);
        r->mode = MODE_DEAF;
        return 0;
    case ACT_CLOSE:
    case ACT_RESET:
        ledger_conn_crime(r->conn, CRIME_LOST);
        hang_up(r, t->act == ACT_RESET);
        return 0;
    case ACT_CLOSE_AFTER:
        /* What was sent behind it breaks the connection, and takes the reply with it. */
        if ((relay_can(r) & CAN_PIPELINING) != 0)
            ledger_conn_crime(r->conn, CRIME_LOST);
        say_right(r, a, out);
        r->close_after = true;
        return a->code;
    case ACT_RESET_AFTER:
        ledger_conn_crime(r->conn, CRIME_LOST);
        say_right(r, a, out);
        put(r, out);
        bytes_clear(out);
        hang_up(r, true);
        return a->code;
    case ACT_GARBAGE:
        ledger_conn_crime(r->conn, CRIME_GARBAGE | CRIME_LOST);
        bytes_text(out, "\x01\xff no reply at all\r\n");
        return 0;
    case ACT_MULTI:
    case ACT_MIXED:
        say_lines(r, a, t->act == ACT_MIXED, out);
        return a->code;
    case ACT_ENDLESS:
        ledger_conn_crime(r->conn, CRIME_GARBAGE | CRIME_LOST);
        bytes_printf(out, "%d-", a->code);
        bytes_fill(out, 'x', r->host->plan.split ? 4500 : 300000); /* byte by byte is a step each */
        r->mode = MODE_DEAF;
        return 0;
    case ACT_ECHO:
        ledger_conn_crime(r->conn, crime_of(a->stage, t));
        say_echo(r, a, t->code, out);
        return t->code;
    case ACT_LATER:
        reply_text(r, &r->later, a->stage, t->code, told(r, a, t->code), "as I like it");
        relay_waits(r, a->stage, RELAY_LATE_S);
        return t->code;
    case ACT_SLOW:
        say_right(r, a, &r->later);
        relay_waits(r, a->stage, t->code);
        return a->code;
    default:
        say_right(r, a, out);
        return a->code;
    }
}

static const char *const act_names[ACT_COUNT] = {
    "it should",         "a code",  "a code and close", "a code, and on", "one too many",
    "no reply",          "silence", "a close",          "a reset",        "right, then close",
    "right, then reset", "garbage", "many lines",       "mixed lines",    "an endless one",
    "an echo",           "early",   "in the middle",    "a stall",        "late",
    "a code, late"};

/* Answers; the code that the dialogue goes on with. */
static int answer(struct relay *r, const struct answer *a) {
    struct bytes out = {0};
    const struct relay_twist *t = twist_of(r, a->stage, r->seen[a->stage]++);
    int code = a->code;
    if (t == NULL)
        say_right(r, a, &out);
    else
        code = say_twist(r, a, t, &out);
    if (t != NULL || r->tls)
        wire_note(r->host->world, "host %u at stage %d, as %s: %.*s", r->host->number,
                  (int)a->stage, t == NULL ? "it should" : act_names[t->act],
                  (int)(out.n > 100 ? 100 : out.n), bytes_str(&out));
    put(r, &out);
    bytes_free(&out);
    if (r->close_after) {
        if (a->stage == STAGE_BODY) /* RSET, where one is to follow, is not answered */
            ledger_conn_crime(r->conn, CRIME_RSET);
        hang_up(r, false);
    }
    return code;
}

static int answer_simply(struct relay *r, enum ledger_stage stage, int code, const char *words,
                         const char *heard) {
    return answer(r, &(struct answer){stage, code, words, LEDGER_NOBODY, heard, NULL});
}

/* ---- the transaction ---- */

static void forget(struct relay *r) {
    r->take = NULL;
    r->accepted = r->replied = 0;
    r->in_chunks = r->spoilt = r->answered = r->early = false;
    bytes_clear(&r->content);
}

/* "<addr>" at the start of text, with quotes; what is behind it, or NULL. */
static const char *path_of(const char *text, char **addr) {
    bool quoted = false;
    if (*text != '<')
        return NULL;
    for (const char *p = text + 1; *p != '\0'; p++) {
        if (*p == '\\' && quoted && p[1] != '\0')
            p++;
        else if (*p == '"')
            quoted = !quoted;
        else if (*p == '>' && !quoted) {
            *addr = bytes_copy(text + 1, (size_t)(p - text) - 1);
            return p + 1;
        }
    }
    return NULL;
}

/* The next " KEY=value" of *rest; false at the end. */
static bool param_next(const char **rest, char key[32], char *value, size_t value_n) {
    while (**rest == ' ')
        (*rest)++;
    size_t n = strcspn(*rest, " ");
    if (n == 0)
        return false;
    size_t k = strcspn(*rest, "= ");
    snprintf(key, 32, "%.*s", (int)(k > 31 ? 31 : k), *rest);
    value[0] = '\0';
    if (k < n)
        snprintf(value, value_n, "%.*s", (int)(n - k - 1), *rest + k + 1);
    *rest += n;
    return true;
}

static bool mail_params(struct relay *r, const char *rest, struct ledger_envelope *e) {
    char key[32], value[2500];
    while (param_next(&rest, key, value, sizeof value)) {
        unsigned can = relay_can(r);
        if (strcmp(key, "SIZE") == 0 && (can & CAN_SIZE) != 0) {
            e->size = strtoull(value, NULL, 10);
            e->has_size = true;
        } else if (strcmp(key, "BODY") == 0 && (can & CAN_8BITMIME) != 0) {
            e->body8 = strcmp(value, "8BITMIME") == 0;
        } else if (strcmp(key, "SMTPUTF8") == 0 && (can & CAN_SMTPUTF8) != 0) {
            e->utf8 = true;
        } else if (strcmp(key, "RET") == 0 && (can & CAN_DSN) != 0) {
            e->ret = value[0];
        } else if (strcmp(key, "ENVID") == 0 && (can & CAN_DSN) != 0) {
            e->has_envid = xtext_get(&e->envid, value, strlen(value));
            if (!e->has_envid)
                return false;
        } else {
            return false;
        }
    }
    return true;
}

static unsigned notify_of(const char *value) {
    static const char *const words[] = {"NEVER", "SUCCESS", "FAILURE", "DELAY"};
    unsigned mask = 0;
    for (unsigned i = 0; i < 4; i++)
        if (strstr(value, words[i]) != NULL)
            mask |= 1U << i;
    return mask;
}

static bool rcpt_params(struct relay *r, const char *rest, unsigned *notify, struct bytes *orcpt) {
    char key[32], value[2500];
    while (param_next(&rest, key, value, sizeof value)) {
        if ((relay_can(r) & CAN_DSN) == 0)
            return false;
        const char *semi = strchr(value, ';');
        if (strcmp(key, "NOTIFY") == 0) {
            *notify = notify_of(value);
        } else if (strcmp(key, "ORCPT") == 0 && semi != NULL) {
            bytes_add(orcpt, value, (size_t)(semi - value) + 1);
            if (!xtext_get(orcpt, semi + 1, strlen(semi + 1)))
                return false;
        } else {
            return false;
        }
    }
    return true;
}

static void on_mail(struct relay *r, const char *args, const char *line) {
    struct ledger_envelope e = {0};
    char *addr = NULL;
    const char *rest = strncasecmp(args, "FROM:", 5) == 0 ? path_of(args + 5, &addr) : NULL;
    if (r->take != NULL) {
        ledger_conn_nonsense(r->conn, line);
        answer_simply(r, STAGE_MAIL, 503, "nested MAIL", line);
        return;
    }
    if (rest == NULL || !mail_params(r, rest, &e)) {
        ledger_conn_nonsense(r->conn, line);
        answer_simply(r, STAGE_MAIL, 501, "syntax", line);
        return;
    }
    forget(r);
    e.can8 = (relay_can(r) & CAN_8BITMIME) != 0 && r->esmtp;
    r->take =
        ledger_take(r->conn, r->since_ms, addr, &e, (relay_can(r) & CAN_DSN) != 0 && r->esmtp);
    if (answer_simply(r, STAGE_MAIL, 250, "sender", line) / 100 != 2)
        forget(r);
}

static void on_rcpt(struct relay *r, const char *args, const char *line) {
    char *addr = NULL;
    unsigned notify = 0;
    struct bytes orcpt = {0};
    const char *rest = strncasecmp(args, "TO:", 3) == 0 ? path_of(args + 3, &addr) : NULL;
    if (rest == NULL || !rcpt_params(r, rest, &notify, &orcpt)) {
        ledger_conn_nonsense(r->conn, line);
        answer_simply(r, STAGE_RCPT, 501, "syntax", line);
        return;
    }
    if (r->take == NULL) {
        answer_simply(r, STAGE_OTHER, 503, "need MAIL", line);
        return;
    }
    unsigned rcpt = ledger_take_rcpt(r->take, addr, notify, &orcpt);
    if (answer(r, &(struct answer){STAGE_RCPT, 250, "recipient", rcpt, line, NULL}) / 100 == 2)
        r->boxes[r->accepted++] = rcpt;
}

static bool take_middle(struct relay *r) {
    const struct relay_twist *t = r->body_twist;
    if (t == NULL || (t->act != ACT_MIDDLE && t->act != ACT_STALL))
        return false;
    ledger_conn_crime(r->conn, CRIME_LOST);
    if (r->early)
        ledger_take_given_up(r->take);
    if (t->act == ACT_STALL) {
        r->mode = MODE_DEAF;
        wire_stall(r->end, true);
        return true;
    }
    if (t->code > 0) {
        struct bytes out = {0};
        ledger_conn_crime(r->conn, CRIME_EXTRA);
        reply_text(r, &out, STAGE_BODY, t->code,
                   ledger_say(r->conn, STAGE_OTHER, t->code, r->take, LEDGER_NOBODY), "enough");
        put(r, &out);
        bytes_free(&out);
    }
    hang_up(r, t->code == 0);
    return true;
}

/* Of whom a reply to the content is that comes before it: by LMTP of the first recipient. */
static unsigned early_rcpt(const struct relay *r) {
    return r->host->lmtp ? r->boxes[0] : LEDGER_NOBODY;
}

/* The final reply, before the content. */
static void answer_early(struct relay *r, int code) {
    struct bytes out = {0};
    ledger_conn_crime(r->conn, CRIME_EXTRA);
    early_watch(r, 0);
    reply_text(r, &out, STAGE_BODY, code,
               ledger_say(r->conn, STAGE_BODY, code, r->take, early_rcpt(r)), "before the end");
    put(r, &out);
    bytes_free(&out);
    r->answered = true;
}

static void on_data(struct relay *r, const char *line) {
    if (r->take == NULL || r->accepted == 0 || r->in_chunks) {
        int code = r->take == NULL ? 503 : 554;
        if (answer_simply(r, STAGE_DATA, code, "no valid recipients", line) == 354)
            r->mode = MODE_TEXT;
        return;
    }
    const struct relay_twist *t = twist_of(r, STAGE_DATA, r->seen[STAGE_DATA]);
    if (answer_simply(r, STAGE_DATA, 354, "go on", line) != 354)
        return;
    r->mode = r->mode == MODE_DEAF ? MODE_DEAF : MODE_TEXT;
    r->body_twist = twist_of(r, STAGE_BODY, r->seen[STAGE_BODY]);
    if (t != NULL && t->act == ACT_EARLY)
        answer_early(r, t->code);
}

/* The content is whole: the reply that counts. */
static void content_ends(struct relay *r, bool bdat) {
    if (r->take == NULL || r->accepted == 0) { /* 354 was said all the same */
        answer_simply(r, STAGE_OTHER, 554, "no valid recipients", NULL);
        forget(r);
        return;
    }
    ledger_take_content(r->take, bytes_str(&r->content), r->content.n, bdat);
    bool said = r->answered;
    if (r->host->lmtp) {
        r->mode = MODE_REPLIES;
        return;
    }
    int code = said ? 0 : answer_simply(r, STAGE_BODY, 250, "taken", NULL);
    if (said) /* what it had said before counts for no recipient; it takes the mail all the same */
        ledger_say(r->conn, STAGE_BODY, 250, r->take, LEDGER_NOBODY);
    if (bdat && !said && code / 100 != 2) {
        r->spoilt = true;
        return;
    }
    forget(r);
}

/* LMTP: the content is whole, and the next recipient has its reply. */
static bool next_box(struct relay *r) {
    unsigned rcpt = r->boxes[r->replied];
    if (r->replied == r->accepted) {
        forget(r);
        r->mode = MODE_LINE;
        return true;
    }
    if (r->replied++ == 0 && r->answered) /* as in content_ends */
        ledger_say(r->conn, STAGE_BODY, 250, r->take, rcpt);
    else
        answer(r, &(struct answer){STAGE_BODY, 250, "saved", rcpt, NULL, NULL});
    return true;
}

/* ---- content ---- */

/* One line of DATA; false if its end has not come. */
static bool take_text_line(struct relay *r) {
    const char *p = r->in.p + r->at;
    size_t left = r->in.n - r->at;
    const char *lf = left == 0 ? NULL : memchr(p, '\n', left);
    if (lf == NULL)
        return false;
    size_t n = (size_t)(lf - p) + 1;
    r->at += n;
    if (n < 2 || p[n - 2] != '\r' || (n > 2 && memchr(p, '\r', n - 2) != NULL))
        ledger_fail(r->host->ledger, "content for host %u has a CR or LF alone: %.*s",
                    r->host->number, (int)(n > 80 ? 80 : n), p);
    if (n == 3 && p[0] == '.') {
        r->mode = MODE_LINE;
        content_ends(r, false);
    } else if (p[0] == '.') {
        bytes_add(&r->content, p + 1, n - 1);
    } else {
        bytes_add(&r->content, p, n);
    }
    return true;
}

static void check_ends(struct relay *r) {
    for (size_t i = 0; i < r->content.n; i++) {
        char c = r->content.p[i];
        bool bad = (c == '\n' && (i == 0 || r->content.p[i - 1] != '\r')) ||
                   (c == '\r' && (i + 1 == r->content.n || r->content.p[i + 1] != '\n'));
        if (bad) {
            ledger_fail(r->host->ledger, "a chunk for host %u has a CR or LF alone at %zu",
                        r->host->number, i);
            return;
        }
    }
}

static void chunk_ends(struct relay *r) {
    r->mode = r->mode == MODE_DEAF ? MODE_DEAF : MODE_LINE;
    if (!r->chunk_valid) {
        answer_simply(r, STAGE_OTHER, r->take == NULL ? 503 : 554, "no transaction", NULL);
        if (r->take != NULL)
            r->spoilt = true;
    } else if (r->chunk_last) {
        check_ends(r);
        content_ends(r, true);
    } else if (answer_simply(r, STAGE_BODY, 250, "chunk", NULL) / 100 != 2) {
        r->spoilt = true;
    }
}

static bool take_chunk(struct relay *r) {
    size_t left = r->in.n - r->at, n = left < r->chunk_left ? left : (size_t)r->chunk_left;
    if (r->chunk_valid)
        bytes_add(&r->content, r->in.p + r->at, n);
    r->at += n;
    r->chunk_left -= n;
    if (r->chunk_left > 0)
        return false;
    chunk_ends(r);
    return true;
}

static void on_bdat(struct relay *r, const char *args, const char *line) {
    unsigned long long size;
    char last[8] = "";
    int got = sscanf(args, "%llu %7s", &size, last);
    if (got < 1 || (got == 2 && strcasecmp(last, "LAST") != 0) ||
        (relay_can(r) & CAN_CHUNKING) == 0) {
        ledger_conn_nonsense(r->conn, line);
        answer_simply(r, STAGE_OTHER, 501, "syntax", line);
        return;
    }
    r->chunk_left = size;
    r->chunk_last = got == 2;
    r->chunk_valid = r->take != NULL && r->accepted > 0 && !r->spoilt;
    r->in_chunks = r->in_chunks || r->chunk_valid;
    r->mode = MODE_CHUNK;
    r->body_twist = twist_of(r, STAGE_BODY, r->seen[STAGE_BODY]);
    if (r->chunk_valid && r->chunk_last && r->body_twist != NULL && r->body_twist->act == ACT_EARLY)
        answer_early(r, r->body_twist->code);
    if (size == 0)
        chunk_ends(r);
}

/* ---- greeting, EHLO, TLS, AUTH ---- */

static void greet(struct relay *r) {
    struct bytes out = {0};
    bytes_printf(&out, "220 host%u.wire.example ESMTP w0\r\n", r->host->number);
    answer(r, &(struct answer){STAGE_GREETING, 220, "hello", LEDGER_NOBODY, NULL, &out});
    bytes_free(&out);
}

static void on_ehlo(struct relay *r, bool extended, const char *line) {
    const struct relay_plan *p = &r->host->plan;
    static const struct {
        unsigned can;
        const char *word;
    } words[] = {{CAN_PIPELINING, "PIPELINING"},
                 {CAN_CHUNKING, "CHUNKING"},
                 {CAN_DSN, "DSN"},
                 {CAN_8BITMIME, "8BITMIME"},
                 {CAN_SMTPUTF8, "SMTPUTF8"},
                 {CAN_XFORWARD, "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"}};
    struct bytes out = {0};
    forget(r);
    if (!extended) {
        r->esmtp = false;
        answer_simply(r, STAGE_EHLO, 250, "hello", line);
        return;
    }
    bytes_printf(&out, "250-host%u.wire.example\r\n", r->host->number);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if ((relay_can(r) & words[i].can) != 0)
            bytes_printf(&out, "250-%s\r\n", words[i].word);
    if ((relay_can(r) & CAN_SIZE) != 0)
        bytes_printf(&out, "250-SIZE %llu\r\n", (unsigned long long)p->size);
    if ((relay_can(r) & CAN_STARTTLS) != 0 && !r->tls)
        bytes_text(&out, "250-STARTTLS\r\n");
    if ((relay_can(r) & CAN_STARTTLS) != 0)
        ledger_conn_offers_tls(r->conn);
    if ((relay_can(r) & CAN_AUTH) != 0 && (r->tls || !p->tls_auth))
        bytes_printf(&out, "250-AUTH %s\r\n", p->mechs);
    bytes_text(&out, "250 ENHANCEDSTATUSCODES\r\n");
    const struct relay_twist *t = twist_of(r, STAGE_EHLO, r->seen[STAGE_EHLO]);
    int code = answer(r, &(struct answer){STAGE_EHLO, 250, "hello", LEDGER_NOBODY, line, &out});
    bool listed =
        t == NULL || (t->act != ACT_MULTI && t->act != ACT_MIXED && t->act != ACT_ECHO &&
                      t->act != ACT_CODE && t->act != ACT_CODE_CLOSE && t->act != ACT_LATER);
    r->esmtp = code / 100 == 2 && listed; /* what was not offered is not expected */
    bytes_free(&out);
}

static void on_starttls(struct relay *r, const char *line) {
    if ((r->host->plan.can & CAN_STARTTLS) == 0 || r->tls) {
        ledger_conn_nonsense(r->conn, line);
        answer_simply(r, STAGE_STARTTLS, 502, "no TLS here", line);
        return;
    }
    if (answer_simply(r, STAGE_STARTTLS, 220, "go ahead", line) / 100 != 2 || r->closed ||
        r->mode == MODE_DEAF)
        return;
    forget(r);
    r->esmtp = false;
    r->paused = true;
    wire_tls(r->end, true);
}

static void login_ends(struct relay *r, const char *user, const char *password, const char *line) {
    r->mech[0] = '\0';
    ledger_conn_login(r->conn, user, password);
    r->logged_in = answer_simply(r, STAGE_AUTH, 235, "logged in", line) / 100 == 2;
    if (r->logged_in)
        ledger_conn_user(r->conn, user);
}

/* "\0user\0password". */
static void plain_comes(struct relay *r, const char *text, const char *line) {
    struct bytes b = {0};
    const char *user = NULL, *password = NULL;
    if (base64_get(&b, text, strlen(text)) && b.n > 0) {
        user = memchr(b.p, '\0', b.n);
        password = user == NULL ? NULL : memchr(user + 1, '\0', b.n - (size_t)(user + 1 - b.p));
    }
    if (password == NULL) {
        r->mech[0] = '\0';
        ledger_conn_nonsense(r->conn, line);
        answer_simply(r, STAGE_AUTH, 501, "syntax", line);
        return;
    }
    login_ends(r, user + 1, password + 1, line);
}

static void challenge(struct relay *r, const char *text, const char *line) {
    struct bytes out = {0};
    bytes_printf(&out, "334 %s\r\n", text);
    int code = answer(r, &(struct answer){STAGE_AUTH, 334, "go on", LEDGER_NOBODY, line, &out});
    if (code != 334)
        r->mech[0] = '\0'; /* the dialogue is over */
    if (code / 100 == 2)
        ledger_conn_user(r->conn, NULL);
    bytes_free(&out);
}

static void on_quit(struct relay *r, const char *line);

static void auth_goes_on(struct relay *r, const char *line) {
    struct bytes b = {0};
    if (strcmp(line, "*") == 0) {
        r->mech[0] = '\0';
        answer_simply(r, STAGE_AUTH, 501, "cancelled", line);
    } else if (strcmp(line, "QUIT") == 0) { /* it was waited for in vain */
        on_quit(r, line);
    } else if (strcmp(r->mech, "PLAIN") == 0) {
        plain_comes(r, line, line);
    } else if (strcmp(r->mech, "LOGIN") == 0 && r->auth_step++ == 0) {
        bytes_clear(&r->user);
        base64_get(&r->user, line, strlen(line));
        challenge(r, "UGFzc3dvcmQ6", line);
    } else if (strcmp(r->mech, "LOGIN") == 0) {
        base64_get(&b, line, strlen(line));
        login_ends(r, bytes_str(&r->user), bytes_str(&b), line);
    } else { /* CRAM-MD5: "user digest"; whatever the answer is, it hides the password */
        r->mech[0] = '\0';
        base64_get(&b, line, strlen(line));
        r->logged_in = answer_simply(r, STAGE_AUTH, 235, "logged in", line) / 100 == 2;
        char *user = bytes_copy(bytes_str(&b), strcspn(bytes_str(&b), " "));
        if (r->logged_in)
            ledger_conn_user(r->conn, user);
        free(user);
    }
}

static void on_auth(struct relay *r, const char *args, const char *line) {
    char first[4096] = "";
    r->auth_step = 0;
    if (sscanf(args, "%15s %4095s", r->mech, first) < 1 || (r->host->plan.can & CAN_AUTH) == 0 ||
        strstr(r->host->plan.mechs, r->mech) == NULL || (r->host->plan.tls_auth && !r->tls)) {
        r->mech[0] = '\0';
        ledger_conn_nonsense(r->conn, line);
        answer_simply(r, STAGE_AUTH, 504, "no such mechanism", line);
    } else if (strcmp(r->mech, "PLAIN") == 0 && first[0] != '\0') {
        plain_comes(r, first, line);
    } else if (strcmp(r->mech, "PLAIN") == 0) {
        challenge(r, "", line);
    } else if (strcmp(r->mech, "LOGIN") == 0) {
        challenge(r, "VXNlcm5hbWU6", line);
    } else {
        challenge(r, "PDEyMzRAd2lyZS5leGFtcGxlPg==", line);
    }
}

/* ---- lines ---- */

/* "XFORWARD NAME=… ADDR=…": only what was offered, no value empty, and before MAIL alone. */
static void on_xforward(struct relay *r, const char *args, const char *line) {
    static const char names[] = " NAME ADDR PORT PROTO HELO IDENT SOURCE ";
    char key[32], value[2500], name[40];
    bool right = (relay_can(r) & CAN_XFORWARD) != 0 && r->take == NULL && *args != '\0';
    while (right && param_next(&args, key, value, sizeof value)) {
        snprintf(name, sizeof name, " %s ", key);
        right = strstr(names, name) != NULL && value[0] != '\0';
    }
    if (!right)
        ledger_conn_nonsense(r->conn, line);
    answer_simply(r, STAGE_XFORWARD, right ? 250 : 501, "forwarded", line);
}

static void on_rset(struct relay *r, const char *line) {
    forget(r);
    answer_simply(r, STAGE_RSET, 250, "reset", line);
}

static void on_quit(struct relay *r, const char *line) {
    r->quit = true;
    answer_simply(r, STAGE_QUIT, 221, "bye", line);
    hang_up(r, false);
}

static bool is_hello(const struct relay *r, const char *verb) {
    return r->host->lmtp ? strcasecmp(verb, "LHLO") == 0
                         : strcasecmp(verb, "EHLO") == 0 || strcasecmp(verb, "HELO") == 0;
}

static void on_line(struct relay *r, char *line) {
    char verb[12] = "";
    if (r->mech[0] != '\0') {
        auth_goes_on(r, line);
        return;
    }
    sscanf(line, "%11[A-Za-z]", verb);
    const char *args = line + strlen(verb);
    while (*args == ' ')
        args++;
    if (is_hello(r, verb))
        on_ehlo(r, strcasecmp(verb, "HELO") != 0, line);
    else if (strcasecmp(verb, "MAIL") == 0)
        on_mail(r, args, line);
    else if (strcasecmp(verb, "RCPT") == 0)
        on_rcpt(r, args, line);
    else if (strcasecmp(verb, "DATA") == 0)
        on_data(r, line);
    else if (strcasecmp(verb, "BDAT") == 0)
        on_bdat(r, args, line);
    else if (strcasecmp(verb, "XFORWARD") == 0)
        on_xforward(r, args, line);
    else if (strcasecmp(verb, "RSET") == 0)
        on_rset(r, line);
    else if (strcasecmp(verb, "STARTTLS") == 0)
        on_starttls(r, line);
    else if (strcasecmp(verb, "AUTH") == 0)
        on_auth(r, args, line);
    else if (strcasecmp(verb, "QUIT") == 0)
        on_quit(r, line);
    else if (strcasecmp(verb, "NOOP") == 0) {
        answer_simply(r, STAGE_OTHER, 250, "ok", line);
    } else {
        ledger_conn_nonsense(r->conn, line);
        answer_simply(r, STAGE_OTHER, 500, "what", line);
    }
}

/*
 * A reply too many can be taken for the one to STARTTLS: then a handshake comes though STARTTLS was
 * refused.  To the host that is nonsense, and it goes.
 */
static bool is_handshake(struct relay *r, const char *p, size_t n) {
    if (r->tls || n < 2 || memcmp(p, "\x16\x03", 2) != 0)
        return false;
    ledger_conn_nonsense(r->conn, "a handshake of TLS");
    hang_up(r, false);
    return true;
}

static bool take_line(struct relay *r) {
    const char *p = r->in.p + r->at;
    size_t left = r->in.n - r->at;
    if (is_handshake(r, p, left))
        return false;
    const char *lf = left == 0 ? NULL : memchr(p, '\n', left);
    if (lf == NULL)
        return false;
    size_t n = (size_t)(lf - p);
    bool crlf = n > 0 && p[n - 1] == '\r';
    r->at += n + 1;
    char *line = bytes_copy(p, crlf ? n - 1 : n);
    ledger_conn_line(r->conn, line, crlf ? n - 1 : n, crlf);
    on_line(r, line);
    free(line);
    return true;
}

static void relay_run(struct relay *r) {
    bool more = true;
    while (more && !r->paused && !r->closed && r->mode != MODE_DEAF) {
        if ((r->mode == MODE_TEXT || r->mode == MODE_CHUNK) && r->at < r->in.n && take_middle(r))
            break;
        more = r->mode == MODE_LINE      ? take_line(r)
               : r->mode == MODE_TEXT    ? take_text_line(r)
               : r->mode == MODE_REPLIES ? next_box(r)
                                         : take_chunk(r);
    }
    bytes_drop(&r->in, r->at);
    r->at = 0;
}

/* ---- events ---- */

static void relay_opened(struct wire_peer *p, struct wire_end *e) {
    struct relay *r = (struct relay *)(void *)p;
    r->end = e;
    if (r->host->plan.split && r->host->conns <= SPLIT_CONNS)
        wire_split(e);
    if (r->host->plan.wrapped) {
        r->paused = true;
        wire_tls(e, true);
    } else {
        greet(r);
    }
}

static void relay_input(struct wire_peer *p, const char *bytes, size_t n) {
    struct relay *r = (struct relay *)(void *)p;
    if (r->closed || r->mode == MODE_DEAF)
        return;
    if (r->in.n == 0)
        r->since_ms = wire_now_ms(r->host->world);
    bytes_add(&r->in, bytes, n);
    relay_run(r);
}

/* A fault of the world took the connection: what was said may not have been heard. */
static void note_loss(struct relay *r) {
    if (!r->quit && wire_faulted(r->host->world))
        ledger_conn_crime(r->conn, CRIME_LOST);
}

static void relay_eof(struct wire_peer *p) {
    struct relay *r = (struct relay *)(void *)p;
    note_loss(r);
    hang_up(r, false);
}

static void relay_reset(struct wire_peer *p) {
    struct relay *r = (struct relay *)(void *)p;
    note_loss(r);
    r->closed = true;
}

static void relay_timer(struct wire_peer *p) {
    struct relay *r = (struct relay *)(void *)p;
    put(r, &r->later);
    bytes_clear(&r->later);
    r->paused = false;
    relay_run(r);
}

static void relay_tls_up(struct wire_peer *p, bool ok) {
    struct relay *r = (struct relay *)(void *)p;
    r->paused = false;
    if (!ok) {
        hang_up(r, false);
        return;
    }
    r->tls = true;
    ledger_conn_tls(r->conn);
    if (r->host->plan.wrapped)
        greet(r);
    relay_run(r);
}

static const struct wire_peer_ops relay_ops = {relay_opened, relay_input, relay_eof,
                                               relay_reset,  relay_timer, relay_tls_up};

struct wire_peer *relay_peer_new(void *arg, const struct netaddr *to) {
    struct relay_host *host = arg;
    struct relay *r = calloc(1, sizeof *r);
    (void)to;
    if (r == NULL)
        abort();
    r->peer.ops = &relay_ops;
    r->host = host;
    r->conn = ledger_conn(host->ledger, host->number);
    if (host->plan.bare)
        ledger_conn_bare(r->conn);
    r->healed = host->plan.heals > 0 && host->conns >= host->plan.heals;
    r->nth = ++host->conns;
    return &r->peer;
}
