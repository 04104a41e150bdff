/*
 * config/main_cf.c - "name = value" files in Postfix's syntax; see main_cf.h
 */
#include "config/main_cf.h"

#include <stdlib.h>
#include <string.h>

#include "config/secret.h"
#include "util/lines.h"
#include "util/mem.h"

const struct cfg_entry *cfg_file_find(const struct cfg_file *f, struct str name) {
    for (size_t i = 0; i < f->n; i++)
        if (str_eq(name, str_make(f->v[i].name, f->v[i].name_n)))
            return &f->v[i];
    return NULL;
}

void cfg_file_set(struct cfg_file *f, struct str name, struct str value, int line) {
    for (size_t i = 0; i < f->n; i++) {
        if (!str_eq_c(name, f->v[i].name))
            continue;
        free(f->v[i].value);
        f->v[i].value = str_dup(value);
        f->v[i].line = line;
        return;
    }
    f->v = mem_realloc(f->v, (f->n + 1) * sizeof *f->v);
    char *own = str_dup(name);
    f->v[f->n++] = (struct cfg_entry){own, str_dup(value), line, strlen(own)};
}

struct parse {
    struct cfg_file *f;
    struct diags *d;
};

/* The line is not what it should be; text is the part of it to quote. */
static void main_cf_wrong(struct parse *p, int no, const char *why, struct str text) {
    struct sbuf shown = {0};
    secret_quote_line(text, &shown);
    diag_add(p->d, DIAG_ERROR, p->f->path, no, "%s: \"%.*s\"", why, STR_FMT(sbuf_str(&shown)));
    sbuf_free(&shown);
}

static void say_overridden(struct parse *p, int no, struct str name, struct str value) {
    char *name_text = str_dup(name), *value_text = str_dup(value);
    diag_add(p->d, DIAG_WARN, p->f->path, no, "overriding earlier entry: %s=%s", name_text,
             secret_quote_value(name_text, value_text));
    mem_wipe(value_text, value.n);
    free(name_text);
    free(value_text);
}

static void main_cf_parse_line(void *arg, struct str line, int no) {
    struct parse *p = arg;
    ptrdiff_t eq = str_chr(line, '=');
    if (eq < 0) {
        main_cf_wrong(p, no, "missing '=' after attribute name", line);
        return;
    }
    struct str name = str_trim(str_make(line.p, (size_t)eq));
    struct str value = str_trim(str_from(line, (size_t)eq + 1));
    if (name.n == 0) {
        diag_add(p->d, DIAG_ERROR, p->f->path, no, "missing attribute name");
        return;
    }
    if (str_chr(name, ' ') >= 0 || str_chr(name, '\t') >= 0) {
        main_cf_wrong(p, no, "whitespace in attribute name", name);
        return;
    }
    if (cfg_file_find(p->f, name) != NULL)
        say_overridden(p, no, name, value);
    cfg_file_set(p->f, name, value, no);
}

static void main_cf_parse_orphan(void *arg, struct str line, int no) {
    main_cf_wrong(arg, no, "logical line must not start with whitespace", line);
}

static const struct lines_ops parse_ops = {main_cf_parse_line, main_cf_parse_orphan};

void cfg_file_parse(struct cfg_file *f, const char *path, struct str text, struct diags *d) {
    struct parse p = {f, d};
    f->path = mem_strdup(path);
    lines_logical(text, true, &parse_ops, &p);
}

void cfg_file_free(struct cfg_file *f) {
    for (size_t i = 0; i < f->n; i++) {
        free(f->v[i].name);
        mem_wipe(f->v[i].value, strlen(f->v[i].value)); /* inline: tables hold passwords */
        free(f->v[i].value);
    }
    free(f->v);
    free(f->path);
    *f = (struct cfg_file){0};
}

/* Expansion: recursive descent over one text; depth bounds loops such as a = $b, b = $a. */
#define EXPAND_DEPTH 50
#define EXPAND_MAX   (1U << 20)

struct expand {
    cfg_lookup_fn fn;
    void *arg;
    const char *why;
    struct sbuf *undefined;
    int depth;
};

static int expand_text(struct expand *x, struct sbuf *out, struct str s);

static bool blank_char(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool name_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
}

static int main_cf_fail(struct expand *x, const char *why) {
    x->why = why;
    return -1;
}

/* Length of the balanced text that begins with open, closing included; 0 if it never closes. */
static size_t balanced(struct str s, char open, char close) {
    int depth = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == open)
            depth++;
        else if (s.p[i] == close && --depth == 0)
            return i + 1;
    }
    return 0;
}

static int expand_name(struct expand *x, struct sbuf *out, struct str name) {
    const char *v = x->fn(x->arg, name);
    if (v == NULL) {
        if (x->undefined != NULL)
            sbuf_printf(x->undefined, "%s%.*s", x->undefined->n > 0 ? " " : "", STR_FMT(name));
        return 0;
    }
    return expand_text(x, out, str_of(v));
}

static struct str skip_blanks(struct str s) {
    while (s.n > 0 && blank_char(s.p[0]))
        s = str_from(s, 1);
    return s;
}

/* Takes the text between braces at the start of *s, behind blanks, off *s; false: no text between
 * braces begins there.  As in Postfix its blanks are part of it. */
static bool braces_take(struct str *s, struct str *text) {
    struct str t = skip_blanks(*s);
    size_t span = t.n > 0 && t.p[0] == '{' ? balanced(t, '{', '}') : 0;
    if (span == 0)
        return false;
    *text = str_make(t.p + 1, span - 2);
    *s = skip_blanks(str_from(t, span));
    return true;
}

/* "?{yes}:{no}", "?text" or ":text" after a condition.  Text without braces goes on to the end. */
static int expand_choice(struct expand *x, struct sbuf *out, struct str rest, bool cond) {
    bool yes = rest.p[0] == '?';
    struct str a, b = STR_NONE;
    rest = str_from(rest, 1);
    if (!braces_take(&rest, &a)) {
        a = rest;
        rest = STR_NONE;
    } else if (yes && rest.n > 0 && rest.p[0] == ':') {
        rest = str_from(rest, 1);
        if (!braces_take(&rest, &b)) {
            b = rest;
            rest = STR_NONE;
        }
    }
    if (rest.n > 0)
        return main_cf_fail(x, "unexpected text after a conditional value");
    if (cond == yes)
        return expand_text(x, out, a);
    return expand_text(x, out, b);
}

/* -1: no such operator. */
static int relation_holds(struct str op, int cmp) {
    if (str_eq_c(op, "=="))
        return cmp == 0;
    if (str_eq_c(op, "!="))
        return cmp != 0;
    if (str_eq_c(op, "<"))
        return cmp < 0;
    if (str_eq_c(op, "<="))
        return cmp <= 0;
    if (str_eq_c(op, ">"))
        return cmp > 0;
    return str_eq_c(op, ">=") ? cmp >= 0 : -1;
}

/* Compatibility levels: major.minor.patch, compared number by number. */
static int level_cmp(const char *a, const char *b) {
    for (int i = 0; i < 3; i++) {
        long va = strtol(a, (char **)(uintptr_t)&a, 10), vb = strtol(b, (char **)(uintptr_t)&b, 10);
        if (va != vb)
            return va < vb ? -1 : 1;
        a += *a == '.';
        b += *b == '.';
    }
    return 0;
}

static int value_cmp(const char *a, const char *b, bool level) {
    uint64_t na, nb;
    if (level)
        return level_cmp(a, b);
    if (str_u64(str_of(a), &na) && str_u64(str_of(b), &nb))
        return na < nb ? -1 : na > nb;
    return strcmp(a, b);
}

/* ${{left} op {right}?…}: s is what follows the outer brace. */
static int expand_relation(struct expand *x, struct sbuf *out, struct str s) {
    struct sbuf l = {0}, r = {0};
    struct str left, right = STR_NONE;
    bool has_left = braces_take(&s, &left);
    size_t no = 0;
    while (no < s.n && s.p[no] != '{' && !blank_char(s.p[no]))
        no++;
    struct str op = str_make(s.p, no), tail = str_from(s, no);
    bool has_right = braces_take(&tail, &right);
    bool level = op.n > 5 && memcmp(op.p + op.n - 5, "level", 5) == 0;
    if (level)
        op.n -= 5;
    if (!has_left || !has_right || relation_holds(op, 0) < 0 ||
        (tail.n > 0 && tail.p[0] != '?' && tail.p[0] != ':'))
        return main_cf_fail(x, "bad relational expression");
    int rc = expand_text(x, &l, left);
    if (rc == 0)
        rc = expand_text(x, &r, right);
    if (rc == 0) {
        bool cond = relation_holds(op, value_cmp(sbuf_str(&l).p, sbuf_str(&r).p, level)) > 0;
        if (tail.n > 0)
            rc = expand_choice(x, out, tail, cond);
        else if (cond)
            sbuf_add_c(out, "true");
    }
    sbuf_free(&l);
    sbuf_free(&r);
    return rc;
}

/* The text between ${ and }. */
static int expand_braced(struct expand *x, struct sbuf *out, struct str s) {
    s = skip_blanks(s);
    if (s.n > 0 && s.p[0] == '{')
        return expand_relation(x, out, s);
    size_t n = 0;
    while (n < s.n && name_char(s.p[n]))
        n++;
    struct str name = str_make(s.p, n), rest = skip_blanks(str_from(s, n));
    if (n == 0)
        return main_cf_fail(x, "empty or invalid name after $");
    if (rest.n == 0)
        return expand_name(x, out, name);
    if (rest.p[0] != '?' && rest.p[0] != ':')
        return main_cf_fail(x, "attribute syntax error after name");
    /* As in Postfix, a parameter that is not set is no mistake here, and a value of "$empty" counts
     * as one that is not empty: the value, which may name this parameter, is not expanded. */
    const char *raw = x->fn(x->arg, name);
    return expand_choice(x, out, rest, raw != NULL && raw[0] != '\0');
}

/* One '$' construct at the start of s; *used is its length. */
static int expand_dollar(struct expand *x, struct sbuf *out, struct str s, size_t *used) {
    char c = s.n > 1 ? s.p[1] : '\0';
    if (c == '$') {
        sbuf_add_ch(out, '$');
        *used = 2;
        return 0;
    }
    if (c == '{' || c == '(') {
        size_t n = balanced(str_from(s, 1), c, c == '{' ? '}' : ')');
        if (n == 0)
            return main_cf_fail(x, "truncated parameter: missing closing brace");
        *used = n + 1;
        return expand_braced(x, out, str_make(s.p + 2, n - 2));
    }
    size_t n = 1;
    while (n < s.n && name_char(s.p[n]) && s.p[n] != '.' && s.p[n] != '-')
        n++;
    if (n == 1)
        return main_cf_fail(x, "empty or invalid name after $");
    *used = n;
    return expand_name(x, out, str_make(s.p + 1, n - 1));
}

static int expand_text(struct expand *x, struct sbuf *out, struct str s) {
    if (++x->depth > EXPAND_DEPTH)
        return main_cf_fail(x, "unreasonable macro call nesting");
    int rc = 0;
    while (s.n > 0 && rc == 0) {
        ptrdiff_t at = str_chr(s, '$');
        size_t plain = at < 0 ? s.n : (size_t)at, used = 0;
        sbuf_add(out, s.p, plain);
        s = str_from(s, plain);
        if (s.n > 0)
            rc = expand_dollar(x, out, s, &used);
        s = str_from(s, used);
        if (out->n > EXPAND_MAX)
            rc = main_cf_fail(x, "expanded value is too long");
    }
    x->depth--;
    return rc;
}

int cfg_expand(struct sbuf *out, struct str value, cfg_lookup_fn fn, void *arg, const char **why,
               struct sbuf *undefined) {
    struct expand x = {.fn = fn, .arg = arg, .undefined = undefined};
    int rc = expand_text(&x, out, value);
    *why = x.why;
    return rc;
}
