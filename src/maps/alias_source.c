/*
 * maps/alias_source.c - the text of an alias file, as postalias(1) reads it; see map.h
 *
 * Any thread.
 */
#include <ctype.h>

#include "maps/map.h"
#include "util/lines.h"

#define QUOTES "\"\""

struct alias_source {
    bool fold;
    void (*fn)(void *arg, struct str key, struct str value, int line);
    void (*warn)(void *arg, int line, const char *text);
    void *arg;
};

static bool is_blank_at(struct str s, size_t i) {
    return i < s.n && isspace((unsigned char)s.p[i]);
}

/* The name as it is looked up: without quotes, blanks as one. */
static void alias_key(struct str s, bool fold, struct sbuf *out) {
    bool quoted = false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '\\' && i + 1 < s.n) {
            c = s.p[++i];
        } else if (c == '"') {
            quoted = !quoted;
            continue;
        } else if (!quoted && is_blank_at(s, i)) {
            if (out->n == 0 || out->p[out->n - 1] == ' ')
                continue;
            c = ' ';
        }
        sbuf_add_ch(out, c);
    }
    if (fold && out->n > 0)
        str_lower(out->p, out->n);
}

/* The value with one blank between words, and behind commas. */
static void alias_value(struct str s, struct sbuf *out) {
    for (size_t i = 0, end; i < s.n; i = end) {
        end = str_token_end(s, i, QUOTES);
        if (is_blank_at(s, i)) {
            while (is_blank_at(s, end))
                end++;
            if (end < s.n && s.p[end] != ',' && out->n > 0 && out->p[out->n - 1] != ' ')
                sbuf_add_ch(out, ' ');
            continue;
        }
        sbuf_add(out, s.p + i, end - i);
        if (s.p[i] == ',' && end < s.n)
            sbuf_add_ch(out, ' ');
    }
}

static void alias_line(void *arg, struct str line, int no) {
    struct alias_source *s = arg;
    struct sbuf key = {0}, value = {0};
    size_t colon = str_token_find(line, ':', QUOTES);
    struct str name = str_trim(str_make(line.p, colon));
    struct str rest = colon < line.n ? str_trim(str_from(line, colon + 1)) : STR_NONE;
    alias_key(name, s->fold, &key);
    alias_value(rest, &value);
    if (key.n == 0 || value.n == 0)
        s->warn(s->arg, no, "need name:value pair");
    else if (str_token_find(name, '@', QUOTES) < name.n)
        s->warn(s->arg, no, "name must be local");
    else
        s->fn(s->arg, sbuf_str(&key), sbuf_str(&value), no);
    sbuf_free(&key);
    sbuf_free(&value);
}

static void alias_orphan(void *arg, struct str line, int no) {
    struct alias_source *s = arg;
    (void)line;
    s->warn(s->arg, no, "line begins with whitespace but continues nothing");
}

void alias_source_parse(struct str text, bool fold,
                        void (*fn)(void *arg, struct str key, struct str value, int line),
                        void (*warn)(void *arg, int line, const char *text), void *arg) {
    static const struct lines_ops ops = {alias_line, alias_orphan};
    struct alias_source s = {fold, fn, warn, arg};
    lines_logical(text, true, &ops, &s);
}
