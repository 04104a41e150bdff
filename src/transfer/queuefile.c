/*
 * transfer/queuefile.c - a queue file of Postfix's, read and written; see queuefile.h
 *
 * What it does not know it refuses, and what Postfix would do that Posthouse cannot do: such a file
 * is better left to Postfix than sent otherwise than was asked for.
 */
#include "transfer/queuefile.h"

#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "smtp/content.h"
#include "util/mem.h"

/* Bytes of a text record: Postfix's line_length_limit, by default. */
#define TEXT_MAX 2048U
#define PIECE    65536U
/* Bits of trace_flags: the sender wants to know what would become of the mail (sendmail -bv). */
#define TRACE_VERIFY 0x300U
/* Bits of the sixth number of a size record.  The mail needs SMTPUTF8 if it was asked for and
 * another bit is set; of the recipients each is looked at for itself.  TLS_OPTIONAL is of Postfix
 * 3.10; older versions pass it over. */
#define UTF8_ASKED   1U
#define UTF8_HEADER  2U
#define UTF8_SENDER  4U
#define TLS_OPTIONAL 16U

enum group { GROUP_ENVELOPE, GROUP_CONTENT, GROUP_EXTRACTED, GROUP_END };

struct record {
    char type;
    struct str text;
};

struct queuefile_reader {
    struct queuefile *q;
    struct str file;
    size_t at;   /* offset of the next record */
    size_t used; /* bytes of all records read: more than the file has means a circle of pointers */
    enum group group;
    struct content_in in;
    struct queuefile_rcpt next; /* what the next recipient's record belongs to */
    size_t room;                /* members that q->rcpts has room for */
};

/* -- records -- */

/* The length comes in groups of seven bits, the lowest first; the high bit says that more follow.
 */
static const char *record_next(struct queuefile_reader *r, struct record *rec) {
    size_t at = r->at, n = 0;
    unsigned shift = 0;
    uint8_t b;
    if (at >= r->file.n)
        return "it ends before its last record";
    rec->type = r->file.p[at++];
    do {
        if (at >= r->file.n || shift > 28)
            return shift > 28 ? "a record has no length" : "it ends within a record";
        b = (uint8_t)r->file.p[at++];
        n |= (size_t)(b & 0x7f) << shift;
        shift += 7;
    } while ((b & 0x80) != 0);
    if (n > r->file.n - at)
        return "it ends within a record";
    rec->text = str_make(r->file.p + at, n);
    r->used += at + n - r->at;
    r->at = at + n;
    return r->used > r->file.n ? "its pointers go in a circle" : NULL;
}

/* The first number of text; *text goes on behind it. */
static bool number_next(struct str *text, uint64_t *v) {
    struct str word;
    return str_split(text, " ", &word) && str_u64(word, v);
}

static const char *reader_jump(struct queuefile_reader *r, struct str text) {
    uint64_t to;
    if (!number_next(&text, &to) || to > r->file.n)
        return "a pointer leads out of the file";
    if (to != 0)
        r->at = (size_t)to;
    return NULL;
}

/* -- the envelope -- */

static const char *take_size(struct queuefile *q, struct str text) {
    uint64_t v[6] = {0};
    for (size_t i = 0; i < 6 && number_next(&text, &v[i]); i++) {
    }
    q->has_size = true;
    if ((v[5] & UTF8_ASKED) != 0)
        q->flags |= ENV_SMTPUTF8;
    if ((v[5] & UTF8_HEADER) != 0)
        q->flags |= ENV_UTF8_HEADER;
    if ((v[5] & TLS_OPTIONAL) != 0)
        q->flags |= ENV_TLS_OPTIONAL;
    return NULL;
}

static const char *take_time(struct queuefile *q, struct str text) {
    uint64_t sec, us = 0;
    if (q->arrival_us >= 0)
        return NULL;
    if (!number_next(&text, &sec) || sec > INT64_MAX / 1000001)
        return "its time is no number";
    number_next(&text, &us);
    q->arrival_us = (int64_t)(sec * 1000000 + us % 1000000);
    return NULL;
}

static const char *take_rcpt(struct queuefile_reader *r, struct str addr, enum rcpt_state state) {
    struct queuefile *q = r->q;
    if (q->n_rcpts == ENVELOPE_RCPTS_MAX)
        return "it has too many recipients";
    if (q->n_rcpts == r->room) {
        r->room = r->room == 0 ? 4 : r->room * 2;
        q->rcpts = mem_realloc(q->rcpts, r->room * sizeof *q->rcpts);
    }
    r->next.r.addr = addr;
    r->next.state = state;
    q->rcpts[q->n_rcpts++] = r->next;
    r->next = (struct queuefile_rcpt){0};
    return str_has_control(addr) ? "an address has a control character" : NULL;
}

static const char *take_trace(struct str value) {
    uint64_t v;
    return str_u64(value, &v) && (v & TRACE_VERIFY) != 0
               ? "it asks what would become of mail, and is none (sendmail -bv)"
               : NULL;
}

static const char *take_notify(struct queuefile_reader *r, struct str value) {
    uint64_t v;
    if (!str_u64(value, &v) || v > 15)
        return "notify_flags is no number that is known";
    r->next.r.notify = (uint32_t)v;
    return NULL;
}

static const char *take_ret(struct queuefile *q, struct str value) {
    if ((q->flags & (ENV_RET_FULL | ENV_RET_HDRS)) == 0)
        q->flags |= str_eq_c(value, "1") ? ENV_RET_FULL : str_eq_c(value, "2") ? ENV_RET_HDRS : 0U;
    return NULL;
}

/* The attributes that are kept as text, and where. */
static struct str *attribute_place(struct queuefile_reader *r, struct str name) {
    const struct {
        const char *name;
        struct str *place;
    } places[] = {
        {"envelope_id", &r->q->envid},           {"log_ident", &r->q->ident},
        {"log_client_name", &r->q->client_name}, {"log_client_address", &r->q->client_addr},
        {"log_client_port", &r->q->client_port}, {"log_protocol_name", &r->q->client_proto},
        {"log_helo_name", &r->q->client_helo},   {"rewrite_context", &r->q->context},
        {"sasl_username", &r->q->sasl_user},     {"dsn_orig_rcpt", &r->next.r.orcpt}};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (str_eq_c(name, places[i].name))
            return places[i].place;
    return NULL;
}

static const char *take_attribute(struct queuefile_reader *r, struct str text) {
    ptrdiff_t eq = str_chr(text, '=');
    if (eq <= 0)
        return "an attribute has no name";
    struct str name = str_make(text.p, (size_t)eq), value = str_from(text, (size_t)eq + 1);
    struct str *place = attribute_place(r, name);
    if (place != NULL)
        *place = value;
    if (place != NULL && str_has_control(value))
        return "an attribute has a control character";
    if (str_eq_c(name, "encoding"))
        r->q->flags |= str_eq_c(value, "8bit") ? ENV_8BIT : 0U;
    else if (str_eq_c(name, "notify_flags"))
        return take_notify(r, value);
    else if (str_eq_c(name, "ret_flags"))
        return take_ret(r->q, value);
    else if (str_eq_c(name, "trace_flags"))
        return take_trace(value);
    return NULL;
}

static const char *take_text(struct str *place, struct str text) {
    *place = text;
    return str_has_control(text) ? "a text has a control character" : NULL;
}

static const char *take_sender(struct queuefile *q, struct str text) {
    if (q->has_sender)
        return NULL;
    q->has_sender = true;
    return take_text(&q->sender, text);
}

static const char *envelope_record(struct queuefile_reader *r, const struct record *rec) {
    struct queuefile *q = r->q;
    switch (rec->type) {
    case 'C':
        return take_size(q, rec->text);
    case 'T':
        return take_time(q, rec->text);
    case 'S':
        return take_sender(q, rec->text);
    case 'F':
        return take_text(&q->full_name, rec->text);
    case 'R':
        return take_rcpt(r, rec->text, RCPT_WAITS);
    case 'D':
        return take_rcpt(r, rec->text, RCPT_DONE);
    case '/': /* taken back by a filter */
        r->next = (struct queuefile_rcpt){0};
        return NULL;
    case 'O':
        return take_text(&r->next.orig, rec->text);
    case '>':
        return take_text(&q->redirect, rec->text);
    case 'A':
        return take_attribute(r, rec->text);
    case 'W':
        q->warned = str_eq_c(str_trim(rec->text), "0");
        return NULL;
    case 'L':
        return take_text(&q->filter, rec->text);
    case 'I':
        return "it is to go through an inspection that Posthouse does not have";
    case 'V':
        return "each recipient is to have another sender (VERP)";
    case 'c': /* when the file was made */
    case 'f':
    case 'd':
    case 'm':
    case 'r':
    case 'e':
    case 'P':
        return NULL;
    default:
        return "it has a record of a type that is not known";
    }
}

/* -- the content -- */

static const char *content_record(struct queuefile_reader *r, const struct record *rec) {
    if (rec->type != 'N' && rec->type != 'L')
        return "it has a record of a type that is not known";
    content_bdat(&r->in, rec->text, &r->q->content);
    if (rec->type == 'N')
        content_bdat(&r->in, STR_LIT("\n"), &r->q->content);
    return NULL;
}

static const char *reader_record(struct queuefile_reader *r, const struct record *rec) {
    static const char ends[] = {
        [GROUP_ENVELOPE] = 'M', [GROUP_CONTENT] = 'X', [GROUP_EXTRACTED] = 'E'};
    if (rec->type == 'p')
        return reader_jump(r, rec->text);
    if (rec->type == 'w' || rec->type == 'K') /* deleted */
        return NULL;
    if (rec->type == ends[r->group]) {
        r->group++;
        return NULL;
    }
    return r->group == GROUP_CONTENT ? content_record(r, rec) : envelope_record(r, rec);
}

static const char *queuefile_judge(const struct queuefile *q) {
    if (q->arrival_us < 0)
        return "it does not say when it came";
    if (!q->has_sender)
        return "it has no sender";
    if (q->n_rcpts == 0)
        return "it has no recipient";
    if (str_chr(q->client_addr, '[') >= 0 || str_chr(q->client_addr, ']') >= 0)
        return "the address of its client is none";
    return NULL;
}

const char *queuefile_read(struct queuefile *q, struct str file) {
    struct queuefile_reader r = {.q = q, .file = file};
    const char *why = NULL;
    *q = (struct queuefile){.arrival_us = -1};
    while (why == NULL && r.group != GROUP_END) {
        struct record rec;
        why = record_next(&r, &rec);
        if (why == NULL)
            why = reader_record(&r, &rec);
    }
    content_bdat_end(&r.in, &q->content);
    q->flags |= (r.in.has_8bit ? ENV_8BIT : 0U) | (r.in.has_dots ? ENV_DOTS : 0U) |
                (r.in.has_long ? ENV_LONG_LINES : 0U) | (q->client_addr.n == 0 ? ENV_LOCAL : 0U);
    return why == NULL ? queuefile_judge(q) : why;
}

void queuefile_free(struct queuefile *q) {
    free(q->rcpts);
    sbuf_free(&q->content);
    *q = (struct queuefile){0};
}

/* -- the envelope of it -- */

static uint32_t envelope_rcpts(const struct queuefile *q, struct rcpt *rcpts) {
    if (q->redirect.n > 0) { /* it goes there once, however many recipients it has */
        rcpts[0] = (struct rcpt){.addr = q->redirect, .notify = q->rcpts[0].r.notify};
        return 1;
    }
    for (size_t i = 0; i < q->n_rcpts; i++) {
        rcpts[i] = q->rcpts[i].r;
        if (q->rcpts[i].orig.n > 0 && !str_eq(q->rcpts[i].orig, rcpts[i].addr))
            rcpts[i].orig = q->rcpts[i].orig;
    }
    return (uint32_t)q->n_rcpts;
}

/* Who brought it, for its filter. */
static struct origin envelope_origin(const struct queuefile *q) {
    if (q->filter.n == 0)
        return (struct origin){0};
    return (struct origin){.name = q->client_name,
                           .addr = q->client_addr,
                           .port = q->client_port,
                           .proto = q->client_proto,
                           .helo = q->client_helo,
                           .source = str_eq_c(q->context, "remote") ? STR_LIT("REMOTE")
                                                                    : STR_LIT("LOCAL")};
}

struct envelope *queuefile_envelope(const struct queuefile *q, const char *qid) {
    struct rcpt *rcpts = mem_zalloc(q->n_rcpts * sizeof *rcpts);
    struct sbuf client = {0};
    if (q->client_addr.n > 0)
        sbuf_printf(&client, "%.*s[%.*s]", STR_FMT(q->client_name), STR_FMT(q->client_addr));
    struct envelope t = {.arrival_us = q->arrival_us,
                         .size = q->content.n,
                         .flags = q->flags,
                         .sender = q->sender,
                         .envid = q->envid,
                         .client = sbuf_str(&client),
                         .sasl_user = q->sasl_user,
                         .filter = q->redirect.n > 0 ? STR_NONE : q->filter,
                         .origin = envelope_origin(q),
                         .rcpts = rcpts,
                         .n_rcpts = envelope_rcpts(q, rcpts)};
    memcpy(t.qid, qid, strlen(qid));
    struct envelope *e = envelope_make(&t);
    free(rcpts);
    sbuf_free(&client);
    return e;
}

/* -- writing -- */

static void record_put(struct sbuf *out, char type, struct str text) {
    size_t n = text.n;
    sbuf_add_ch(out, type);
    for (; n >= 0x80; n >>= 7)
        sbuf_add_ch(out, (char)(n | 0x80));
    sbuf_add_ch(out, (char)n);
    sbuf_add_str(out, text);
}

static void attribute_put(struct sbuf *out, const char *name, struct str value) {
    struct sbuf text = {0};
    sbuf_printf(&text, "%s=", name);
    sbuf_add_str(&text, value);
    record_put(out, 'A', sbuf_str(&text));
    sbuf_free(&text);
}

static void attribute_put_number(struct sbuf *out, const char *name, uint32_t value) {
    struct sbuf text = {0};
    sbuf_add_u64(&text, value);
    attribute_put(out, name, sbuf_str(&text));
    sbuf_free(&text);
}

/* Content's bytes and offset, number of recipients, none of the flags, and what the mail asks of
 * hosts. */
static void size_put(struct sbuf *out, const struct envelope *env, uint64_t bytes, uint64_t at) {
    struct sbuf text = {0};
    unsigned asks = ((env->flags & ENV_SMTPUTF8) != 0 ? UTF8_ASKED : 0U) |
                    ((env->flags & ENV_UTF8_HEADER) != 0 ? UTF8_HEADER : 0U) |
                    ((env->flags & ENV_TLS_OPTIONAL) != 0 ? TLS_OPTIONAL : 0U) |
                    (str_is_ascii(env->sender) ? 0U : UTF8_SENDER);
    sbuf_printf(&text, "%15llu %15llu %15u %15u %15llu %15u", (unsigned long long)bytes,
                (unsigned long long)at, env->n_rcpts, 0U, (unsigned long long)bytes, asks);
    record_put(out, 'C', sbuf_str(&text));
    sbuf_free(&text);
}

static void client_put(struct sbuf *out, const struct envelope *env) {
    struct str c = env->client;
    ptrdiff_t open = str_rchr(c, '[');
    if (open < 0 || c.p[c.n - 1] != ']') {
        attribute_put(out, "log_message_origin", STR_LIT("local"));
        return;
    }
    struct str name = str_make(c.p, (size_t)open);
    struct str addr = str_make(c.p + open + 1, c.n - (size_t)open - 2);
    attribute_put(out, "log_client_name", name);
    attribute_put(out, "log_client_address", addr);
    attribute_put(out, "log_message_origin", c);
    attribute_put(out, "log_protocol_name", STR_LIT("ESMTP"));
    attribute_put(out, "client_name", name);
    attribute_put(out, "client_address", addr);
    attribute_put(out, "protocol_name", STR_LIT("ESMTP"));
}

/* The message's filter, and what that is told of the client beyond client_put. */
static void filter_put(struct sbuf *out, const struct envelope *env) {
    if (env->filter.n == 0)
        return;
    record_put(out, 'L', env->filter);
    if (env->origin.port.n > 0)
        attribute_put(out, "log_client_port", env->origin.port);
    if (env->origin.helo.n > 0)
        attribute_put(out, "log_helo_name", env->origin.helo);
}

static void sender_put(struct sbuf *out, const struct envelope *env) {
    struct sbuf time = {0};
    sbuf_printf(&time, "%lld %lld", (long long)(env->arrival_us / 1000000),
                (long long)(env->arrival_us % 1000000));
    record_put(out, 'T', sbuf_str(&time));
    sbuf_free(&time);
    attribute_put(out, "log_ident", str_of(env->qid));
    attribute_put(out, "rewrite_context",
                  str_eq_c(env->origin.source, "REMOTE") ? STR_LIT("remote") : STR_LIT("local"));
    if (env->envid.n > 0)
        attribute_put(out, "envelope_id", env->envid);
    if ((env->flags & (ENV_RET_FULL | ENV_RET_HDRS)) != 0)
        attribute_put_number(out, "ret_flags", (env->flags & ENV_RET_FULL) != 0 ? 1 : 2);
    record_put(out, 'S', env->sender);
    if ((env->flags & ENV_8BIT) != 0)
        attribute_put(out, "encoding", STR_LIT("8bit"));
    client_put(out, env);
    if (env->sasl_user.n > 0)
        attribute_put(out, "sasl_username", env->sasl_user);
    filter_put(out, env);
}

static void rcpt_put(struct sbuf *out, const struct rcpt *r, bool done) {
    ptrdiff_t semi = str_chr(r->orcpt, ';');
    if (r->notify != 0)
        attribute_put_number(out, "notify_flags", r->notify);
    if (r->orcpt.n > 0)
        attribute_put(out, "dsn_orig_rcpt", r->orcpt);
    if (r->orig.n > 0)
        record_put(out, 'O', r->orig);
    else if (semi > 0 && str_istarts(r->orcpt, "rfc822;"))
        record_put(out, 'O', str_from(r->orcpt, (size_t)semi + 1));
    record_put(out, done ? 'D' : 'R', r->addr);
}

/* One line without its end, in records of TEXT_MAX bytes. */
static void record_put_line(struct sbuf *out, struct str line) {
    while (line.n > TEXT_MAX) {
        record_put(out, 'L', str_make(line.p, TEXT_MAX));
        line = str_from(line, TEXT_MAX);
    }
    record_put(out, 'N', line);
}

static bool content_put(struct sbuf *out, const struct body *body) {
    struct sbuf tmp = {0}, line = {0};
    bool read = true;
    for (uint64_t at = 0; at < body->size && read;) {
        struct str piece = body_view(body, at, PIECE, &tmp);
        read = piece.p != NULL && piece.n > 0;
        at += piece.n;
        while (piece.n > 0) {
            ptrdiff_t nl = str_chr(piece, '\n');
            sbuf_add_str(&line, nl < 0 ? piece : str_make(piece.p, (size_t)nl));
            piece = nl < 0 ? STR_NONE : str_from(piece, (size_t)nl + 1);
            if (nl < 0)
                continue;
            if (line.n > 0 && line.p[line.n - 1] == '\r')
                line.n--;
            record_put_line(out, sbuf_str(&line));
            sbuf_reset(&line);
        }
    }
    if (line.n > 0)
        record_put_line(out, sbuf_str(&line));
    sbuf_free(&line);
    sbuf_free(&tmp);
    return read;
}

bool queuefile_write(struct sbuf *out, const struct envelope *env, const struct queuefile_state *st,
                     const struct body *body, uint64_t *offsets) {
    struct sbuf size = {0};
    size_t begin = out->n;
    size_put(out, env, 0, 0);
    sender_put(out, env);
    if (st->warned)
        record_put(out, 'W', STR_LIT("              0"));
    for (uint32_t i = 0; i < env->n_rcpts; i++) {
        rcpt_put(out, &env->rcpts[i], st->done != NULL && st->done[i] == RCPT_DONE);
        offsets[i] = out->n - begin - (env->rcpts[i].addr.n + (env->rcpts[i].addr.n < 128 ? 2 : 3));
    }
    record_put(out, 'M', STR_LIT(""));
    size_t content = out->n;
    bool read = content_put(out, body);
    size_put(&size, env, out->n - content, content - begin);
    memcpy(out->p + begin, size.p, size.n);
    sbuf_free(&size);
    record_put(out, 'X', STR_LIT(""));
    record_put(out, 'E', STR_LIT(""));
    return read;
}
