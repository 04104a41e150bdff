/*
 * smtp/content.c - message content on the wire; see content.h
 */
#include "smtp/content.h"

#include <string.h>

static bool any_8bit(const char *p, size_t n) {
    uint64_t acc = 0, w;
    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&w, p, 8);
        acc |= w;
    }
    for (; n > 0; n--, p++)
        acc |= (uint64_t)(uint8_t)*p;
    return (acc & 0x8080808080808080ULL) != 0;
}

/* n without the CRs at the end of what they belong to. */
static size_t without_crs(const char *p, size_t n) {
    while (n > 0 && p[n - 1] == '\r')
        n--;
    return n;
}

static void count_line(struct content_in *in, size_t n) {
    in->line_len += n;
    in->has_long = in->has_long || in->line_len > CONTENT_LONG_LINE;
}

/* All but the last keep of the CRs that came last are not the line's end: they become blanks. */
static void emit_crs(struct content_in *in, size_t keep, struct sbuf *out) {
    size_t n = in->crs - keep;
    memset(sbuf_room(out, n), ' ', n);
    sbuf_advance(out, n);
    count_line(in, n);
    in->crs = keep;
}

/* n more CRs came, which may be the line's end. */
static void keep_crs(struct content_in *in, size_t n, struct sbuf *out) {
    in->crs += n;
    if (in->crs > CONTENT_CRS_MAX)
        emit_crs(in, 1, out);
}

/* Part of a line, without its end, that does not end in a CR. */
static void emit(struct content_in *in, const char *p, size_t n, struct sbuf *out) {
    if (n == 0)
        return;
    if (in->crs > 0)
        emit_crs(in, 0, out);
    count_line(in, n);
    char *at = sbuf_room(out, n);
    memcpy(at, p, n);
    for (char *cr = at; (cr = memchr(cr, '\r', (size_t)(at + n - cr))) != NULL;)
        *cr = ' ';
    sbuf_advance(out, n);
}

static void emit_end(struct content_in *in, struct sbuf *out) {
    sbuf_add(out, "\r\n", 2);
    in->mid_line = false;
    in->line_len = 0;
    in->crs = 0;
}

/* One whole line without its end; true if it is the end of the content. */
static bool data_line(struct content_in *in, const char *p, size_t n, bool crlf, struct sbuf *out) {
    in->has_bare = in->has_bare || !crlf;
    if (!in->mid_line && n > 0 && p[0] == '.') {
        if (n == 1 && (in->bare_ends || (crlf && !in->prev_bare)))
            return true;
        if (n > 1) {
            p++;
            n--;
        }
        in->has_dots = in->has_dots || p[0] == '.';
    }
    emit(in, p, without_crs(p, n), out);
    emit_end(in, out);
    in->prev_bare = !crlf;
    return false;
}

/* A part of a line that is all CRs: the last one may belong to the line's end. */
static size_t crs_take(struct content_in *in, size_t n, struct sbuf *out) {
    in->mid_line = in->mid_line || n > 1;
    keep_crs(in, n - 1, out);
    return n - 1;
}

/* Takes a part of a line before the line's end has come.  Returns how many bytes were used: CRs at
 * the end or a dot at the beginning are left until what follows them decides what they are. */
static size_t data_piece(struct content_in *in, const char *p, size_t n, struct sbuf *out) {
    size_t take = without_crs(p, n), skip = 0;
    if (take == 0)
        return crs_take(in, n, out);
    if (!in->mid_line && p[0] == '.') {
        if (n <= 2 && take == 1)
            return 0;
        skip = 1;
        in->has_dots = in->has_dots || p[1] == '.';
    }
    in->mid_line = true;
    emit(in, p + skip, take - skip, out);
    return take;
}

static bool data_lines(struct content_in *in, struct str data, struct sbuf *out, size_t *used) {
    size_t i = 0;
    while (i < data.n) {
        const char *p = data.p + i, *nl = memchr(p, '\n', data.n - i);
        if (nl == NULL) {
            i += data_piece(in, p, data.n - i, out);
            break;
        }
        size_t n = (size_t)(nl - p);
        bool crlf = n > 0 && p[n - 1] == '\r';
        i += n + 1;
        if (data_line(in, p, crlf ? n - 1 : n, crlf, out)) {
            *used = i;
            return true;
        }
    }
    *used = i;
    return false;
}

/* A CR is part of a line's end, also when the piece ends with it. */
void content_look(struct content_in *in, struct str content) {
    in->has_8bit = in->has_8bit || any_8bit(content.p, content.n);
    for (ptrdiff_t nl; (nl = str_chr(content, '\n')) >= 0;) {
        count_line(in, without_crs(content.p, (size_t)nl));
        in->line_len = 0;
        content = str_from(content, (size_t)nl + 1);
    }
    count_line(in, without_crs(content.p, content.n));
}

bool content_data(struct content_in *in, struct str data, struct sbuf *out, size_t *used) {
    sbuf_room(out, data.n);
    bool end = data_lines(in, data, out, used);
    in->has_8bit = in->has_8bit || any_8bit(data.p, *used);
    return end;
}

static void bdat_part(struct content_in *in, const char *p, size_t n, struct sbuf *out) {
    size_t text = without_crs(p, n);
    if (n == 0)
        return;
    if (!in->mid_line && p[0] == '.')
        in->has_dots = true;
    in->mid_line = true;
    emit(in, p, text, out);
    keep_crs(in, n - text, out);
}

void content_bdat(struct content_in *in, struct str data, struct sbuf *out) {
    sbuf_room(out, data.n);
    in->has_8bit = in->has_8bit || any_8bit(data.p, data.n);
    while (data.n > 0) {
        const char *nl = memchr(data.p, '\n', data.n);
        size_t n = nl == NULL ? data.n : (size_t)(nl - data.p);
        bdat_part(in, data.p, n, out);
        if (nl == NULL)
            return;
        in->has_bare = in->has_bare || in->crs == 0;
        emit_end(in, out);
        data = str_from(data, n + 1);
    }
}

void content_bdat_end(struct content_in *in, struct sbuf *out) {
    if (in->mid_line)
        emit_end(in, out);
}

/* Part of a line out, broken where it gets longer than max. */
static void fold_part(struct content_out *o, const char *p, size_t n, size_t max,
                      struct sbuf *out) {
    while (max > 0 && o->line_len + n > max) {
        size_t room = max - o->line_len;
        if (room == 0 && o->line_len == 1) /* at max = 1 a byte stands beside the blank */
            room = 1;
        while (room > 1 && ((uint8_t)p[room] & 0xc0) == 0x80) /* not inside a UTF-8 sequence */
            room--;
        sbuf_add(out, p, room);
        sbuf_add(out, "\r\n ", 3);
        p += room;
        n -= room;
        o->line_len = 1;
    }
    sbuf_add(out, p, n);
    o->line_len += n;
}

static void content_lines(struct content_out *o, struct str c, size_t max, bool dots,
                          struct sbuf *out) {
    while (c.n > 0) {
        const char *nl = memchr(c.p, '\n', c.n);
        size_t end = nl == NULL ? c.n : (size_t)(nl - c.p) + 1;
        size_t text = nl == NULL ? end : end >= 2 && c.p[end - 2] == '\r' ? end - 2 : end - 1;
        if (nl == NULL && c.p[text - 1] == '\r') /* its LF comes with the next piece */
            text--;
        if (dots && !o->mid_line && text > 0 && c.p[0] == '.')
            sbuf_add_ch(out, '.');
        o->mid_line = true;
        fold_part(o, c.p, text, max, out);
        sbuf_add(out, c.p + text, end - text);
        if (nl != NULL)
            *o = (struct content_out){0};
        c = str_from(c, end);
    }
}

void content_stuff(struct content_out *o, struct str content, size_t max, struct sbuf *out) {
    content_lines(o, content, max, true, out);
}

void content_fold(struct content_out *o, struct str content, size_t max, struct sbuf *out) {
    content_lines(o, content, max, false, out);
}
