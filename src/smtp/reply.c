/*
 * smtp/reply.c - SMTP replies; see reply.h
 */
#include "smtp/reply.h"

#include <string.h>

#define REPLY_MAX_BYTES 32768U
#define REPLY_MAX_LINES 256U
/* Of a reply in log and reports, where it stands once for each recipient: as in Postfix. */
#define REPLY_SHOWN_MAX 2048U

void smtp_reply_reset(struct smtp_reply *r) {
    r->code = 0;
    r->lines = 0;
    r->last = 0;
    sbuf_reset(&r->text);
    sbuf_reset(&r->shown);
}

void smtp_reply_free(struct smtp_reply *r) {
    sbuf_free(&r->text);
    sbuf_free(&r->shown);
    *r = (struct smtp_reply){0};
}

/* As in Postfix: a question mark stands for each byte from there on that is not UTF-8. */
static void shown_make_utf8(struct sbuf *shown, size_t at) {
    while (at < shown->n) {
        size_t n = str_utf8_span(str_from(sbuf_str(shown), at));
        if (n == 0)
            shown->p[at] = '?';
        at += n == 0 ? 1 : n;
    }
}

/* Appends the line while there is room.  A carriage return inside it becomes a blank. */
static void reply_show(struct smtp_reply *r, struct str line) {
    if (r->shown.n >= REPLY_SHOWN_MAX)
        return;
    if (r->lines > 1)
        sbuf_add_ch(&r->shown, ' ');
    size_t begun = r->shown.n, room = REPLY_SHOWN_MAX - begun;
    sbuf_add(&r->shown, line.p, line.n < room ? line.n : room);
    for (size_t i = begun; i < r->shown.n; i++)
        if (r->shown.p[i] == '\r')
            r->shown.p[i] = ' ';
    shown_make_utf8(&r->shown, begun);
}

struct str smtp_reply_chop(struct str line) {
    while (line.n > 0 && line.p[line.n - 1] == '\r')
        line.n--;
    return line;
}

/* What may stand behind the code of a line that is the last one; some hosts have others than a
 * blank. */
static bool ends_code(char c) {
    return (unsigned char)c <= ' ';
}

/* One line without its end.  As in Postfix the last line's code counts, should they differ. */
static enum reply_rc reply_line(struct smtp_reply *r, struct str line) {
    int code = 0;
    if (line.n > REPLY_LINE_MAX || ++r->lines > REPLY_MAX_LINES ||
        r->text.n + line.n > REPLY_MAX_BYTES)
        return REPLY_BAD;
    for (size_t i = 0; i < 3; i++) {
        if (i >= line.n || line.p[i] < '0' || line.p[i] > '9')
            return REPLY_BAD;
        code = code * 10 + (line.p[i] - '0');
    }
    if (code < 200 || code > 599 || (line.n > 3 && line.p[3] != '-' && !ends_code(line.p[3])))
        return REPLY_BAD;
    r->code = code;
    reply_show(r, line);
    if (r->lines > 1)
        sbuf_add_ch(&r->text, '\n');
    r->last = r->text.n;
    sbuf_add_str(&r->text, str_from(line, 4));
    return line.n > 3 && line.p[3] == '-' ? REPLY_MORE : REPLY_DONE;
}

enum reply_rc smtp_reply_feed(struct smtp_reply *r, struct str data, size_t *used) {
    size_t i = 0;
    *used = 0;
    while (i < data.n) {
        const char *nl = memchr(data.p + i, '\n', data.n - i);
        if (nl == NULL)
            return data.n - i > REPLY_LINE_MAX ? REPLY_BAD : REPLY_MORE;
        struct str line = str_make(data.p + i, (size_t)(nl - data.p) - i);
        i += line.n + 1;
        *used = i;
        enum reply_rc rc = reply_line(r, smtp_reply_chop(line));
        if (rc != REPLY_MORE)
            return rc;
    }
    return REPLY_MORE;
}

struct str smtp_reply_last(const struct smtp_reply *r) {
    struct str last = str_from(sbuf_str(&r->text), r->last);
    while (last.n > 0 && last.p[0] == ' ')
        last = str_from(last, 1);
    return last;
}

void smtp_reply_withhold(struct smtp_reply *r, const char *text) {
    sbuf_wipe(&r->text);
    sbuf_wipe(&r->shown);
    r->last = 0;
    sbuf_add_c(&r->text, text);
    sbuf_printf(&r->shown, "%d %s", r->code, text);
}

void smtp_reply_line(const struct smtp_reply *r, struct sbuf *out) {
    sbuf_add_str(out, sbuf_str(&r->shown));
}
