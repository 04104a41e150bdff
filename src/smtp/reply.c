/*
 * smtp/reply.c - SMTP replies; see reply.h
 */
#include "smtp/reply.h"

#include <string.h>

#define LINE_MAX_BYTES  4096U
#define REPLY_MAX_BYTES 32768U
#define REPLY_MAX_LINES 256U

void smtp_reply_reset(struct smtp_reply *r) {
    r->code = 0;
    r->lines = 0;
    sbuf_reset(&r->text);
}

void smtp_reply_free(struct smtp_reply *r) {
    sbuf_free(&r->text);
    *r = (struct smtp_reply){0};
}

/* One line without its end. */
static enum reply_rc reply_line(struct smtp_reply *r, struct str line) {
    int code = 0;
    if (line.n > LINE_MAX_BYTES || ++r->lines > REPLY_MAX_LINES ||
        r->text.n + line.n > REPLY_MAX_BYTES)
        return REPLY_BAD;
    for (size_t i = 0; i < 3; i++) {
        if (i >= line.n || line.p[i] < '0' || line.p[i] > '9')
            return REPLY_BAD;
        code = code * 10 + (line.p[i] - '0');
    }
    if (code < 200 || code > 599 || (line.n > 3 && line.p[3] != ' ' && line.p[3] != '-'))
        return REPLY_BAD;
    if (r->code != 0 && r->code != code)
        return REPLY_BAD;
    r->code = code;
    if (r->lines > 1)
        sbuf_add_ch(&r->text, '\n');
    sbuf_add_str(&r->text, str_from(line, 4));
    return line.n > 3 && line.p[3] == '-' ? REPLY_MORE : REPLY_DONE;
}

enum reply_rc smtp_reply_feed(struct smtp_reply *r, struct str data, size_t *used) {
    size_t i = 0;
    *used = 0;
    while (i < data.n) {
        const char *nl = memchr(data.p + i, '\n', data.n - i);
        if (nl == NULL)
            return data.n - i > LINE_MAX_BYTES ? REPLY_BAD : REPLY_MORE;
        struct str line = str_make(data.p + i, (size_t)(nl - data.p) - i);
        i += line.n + 1;
        if (line.n > 0 && line.p[line.n - 1] == '\r')
            line.n--;
        *used = i;
        enum reply_rc rc = reply_line(r, line);
        if (rc != REPLY_MORE)
            return rc;
    }
    return REPLY_MORE;
}

/* A carriage return inside a line becomes a blank. */
static void reply_add_line(struct sbuf *out, int code, char sep, struct str line) {
    sbuf_printf(out, "%d%c", code, sep);
    size_t begun = out->n;
    sbuf_add_str(out, line);
    for (size_t i = begun; i < out->n; i++)
        if (out->p[i] == '\r')
            out->p[i] = ' ';
}

void smtp_reply_line(const struct smtp_reply *r, struct sbuf *out) {
    const char *at = r->text.p, *end = at + r->text.n, *nl;
    while (at != NULL && (nl = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        reply_add_line(out, r->code, '-', str_make(at, (size_t)(nl - at)));
        sbuf_add_ch(out, ' ');
        at = nl + 1;
    }
    reply_add_line(out, r->code, ' ', str_make(at, at == NULL ? 0 : (size_t)(end - at)));
}
