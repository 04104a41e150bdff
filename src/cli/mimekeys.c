/*
 * cli/mimekeys.c - the lines of a message as keys; see mimekeys.h
 */
#include "cli/mimekeys.h"

#include <stdlib.h>
#include <string.h>

#include "util/mem.h"

struct mimekeys {
    void (*fn)(void *arg, struct str key, bool in_header);
    void *arg;
    bool mime;
    bool in_header;
    char **bounds; /* of the multiparts that are open, outermost first */
    size_t n_bounds;
    char *own; /* boundary of the entity with the header that is read; NULL: it is no multipart */
    bool message; /* it is a message */
};

/* Is the line the beginning of a header field? */
static bool is_field(struct str line) {
    size_t n = 0;
    while (n < line.n && line.p[n] > ' ' && line.p[n] < 0x7f && line.p[n] != ':')
        n++;
    size_t colon = n;
    while (colon < line.n && (line.p[colon] == ' ' || line.p[colon] == '\t'))
        colon++;
    return n > 0 && colon < line.n && line.p[colon] == ':';
}

/* The value of the parameter boundary of a Content-Type field. */
static struct str boundary_of(struct str value) {
    struct str rest = value, piece;
    while (str_split(&rest, ";\r\n\t ", &piece)) {
        if (!str_istarts(piece, "boundary="))
            continue;
        piece = str_from(piece, 9);
        size_t at = (size_t)(piece.p - value.p);
        if (piece.n == 0 || piece.p[0] != '"')
            return piece;
        struct str quoted = str_from(value, at + 1);
        ptrdiff_t end = str_chr(quoted, '"');
        return end < 0 ? quoted : str_make(quoted.p, (size_t)end);
    }
    return STR_NONE;
}

static void field_type(struct mimekeys *m, struct str field) {
    ptrdiff_t colon = str_chr(field, ':');
    if (colon < 0 || !str_ieq_c(str_trim(str_make(field.p, (size_t)colon)), "content-type"))
        return;
    struct str value = str_trim(str_from(field, (size_t)colon + 1));
    free(m->own);
    m->own = str_istarts(value, "multipart/") ? str_dup(boundary_of(value)) : NULL;
    m->message = str_istarts(value, "message/rfc822") || str_istarts(value, "message/global");
}

static void header_begin(struct mimekeys *m) {
    m->in_header = true;
    m->message = false;
    free(m->own);
    m->own = NULL;
}

/* The header section has ended: what follows is the body, or a message's header. */
static void header_end(struct mimekeys *m) {
    bool message = m->message;
    m->in_header = false;
    if (m->own != NULL && m->own[0] != '\0') {
        m->bounds = mem_realloc(m->bounds, (m->n_bounds + 1) * sizeof(char *));
        m->bounds[m->n_bounds++] = m->own;
        m->own = NULL;
    }
    if (message)
        header_begin(m);
}

/* Ends the parts that the line ends; true if it is the border of one. */
static bool is_border(struct mimekeys *m, struct str line) {
    if (line.n < 3 || line.p[0] != '-' || line.p[1] != '-')
        return false;
    for (size_t i = m->n_bounds; i > 0; i--) {
        size_t n = strlen(m->bounds[i - 1]);
        if (line.n < n + 2 || memcmp(line.p + 2, m->bounds[i - 1], n) != 0)
            continue;
        bool last = line.n >= n + 4 && line.p[n + 2] == '-' && line.p[n + 3] == '-';
        for (size_t keep = last ? i - 1 : i; m->n_bounds > keep;)
            free(m->bounds[--m->n_bounds]);
        if (!last)
            header_begin(m);
        return true;
    }
    return false;
}

static struct str line_trim(struct str line) {
    while (line.n > 0 && (line.p[line.n - 1] == '\n' || line.p[line.n - 1] == '\r'))
        line.n--;
    return line;
}

static size_t line_end(struct str s, size_t from) {
    const char *nl = memchr(s.p + from, '\n', s.n - from);
    return nl == NULL ? s.n : (size_t)(nl - s.p) + 1;
}

void mimekeys_each(struct str message, bool mime,
                   void (*fn)(void *arg, struct str key, bool in_header), void *arg) {
    struct mimekeys m = {.fn = fn, .arg = arg, .mime = mime, .in_header = true};
    while (message.n > 0) {
        size_t end = line_end(message, 0);
        struct str line = line_trim(str_make(message.p, end));
        bool field = m.in_header && is_field(line);
        while (field && end < message.n && (message.p[end] == ' ' || message.p[end] == '\t'))
            end = line_end(message, end);
        line = line_trim(str_make(message.p, end));
        if (field && mime)
            field_type(&m, line);
        fn(arg, line, field);
        if (m.in_header && !field)
            header_end(&m);
        if (mime && !field)
            is_border(&m, line);
        message = str_from(message, end);
    }
    while (m.n_bounds > 0)
        free(m.bounds[--m.n_bounds]);
    free(m.bounds);
    free(m.own);
}
