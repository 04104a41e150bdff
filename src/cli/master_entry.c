/*
 * cli/master_entry.c - one service of master.cf, in words; see master_entry.h
 *
 * Any thread; an entry belongs to its caller.
 */
#include "cli/master_entry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/secret.h"
#include "util/mem.h"

#define LINE_LIMIT 80U
#define INDENT     4U

const char *const master_field_names[MASTER_FIELDS] = {
    "service", "type", "private", "unprivileged", "chroot", "wakeup", "process_limit", "command"};

static bool master_is_blank(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Takes the next word; blanks within braces divide none. */
static bool master_word_take(struct str *rest, struct str *word) {
    size_t i = 0, depth = 0, end;
    while (i < rest->n && strchr(" \t\r\n", rest->p[i]) != NULL)
        i++;
    for (end = i; end < rest->n; end++) {
        char c = rest->p[end];
        if (depth == 0 && strchr(" \t\r\n", c) != NULL)
            break;
        if (c == '{')
            depth++;
        else if (c == '}' && depth > 0)
            depth--;
    }
    *word = str_make(rest->p + i, end - i);
    *rest = str_from(*rest, end);
    return word->n > 0;
}

static void word_insert(struct master_entry *e, size_t at, struct str word) {
    e->words = mem_realloc(e->words, (e->n + 1) * sizeof(char *));
    memmove(e->words + at + 1, e->words + at, (e->n - at) * sizeof(char *));
    e->words[at] = str_dup(word);
    e->n++;
}

static void word_replace(struct master_entry *e, size_t at, struct str word) {
    char *text = str_dup(word);
    free(e->words[at]);
    e->words[at] = text;
}

static void word_warn(const char *what, const char *word) {
    struct sbuf shown = {0};
    secret_quote(str_of(word), &shown);
    fprintf(stderr, "postconf: warning: master.cf: %s \"%.*s\"\n", what, STR_FMT(sbuf_str(&shown)));
    sbuf_free(&shown);
}

/* Takes the braces from a word that begins with one. */
static void word_bare(struct master_entry *e, size_t at) {
    struct str word = str_of(e->words[at]);
    size_t n = str_brace_span(word);
    if (n == 0)
        word_warn("missing '}' in", e->words[at]);
    else if (n < word.n)
        word_warn("syntax error after '}' in", e->words[at]);
    word_replace(e, at, str_trim(n == 0 ? str_from(word, 1) : str_make(word.p + 1, n - 2)));
}

/* "name = value"; what is wrong with it (for word_warn), or NULL. */
static const char *pair_split(struct str text, struct str *name, struct str *value) {
    size_t end = 0, equals;
    text = str_trim(text);
    while (end < text.n && text.p[end] != '=' && !master_is_blank(text.p[end]))
        end++;
    for (equals = end; equals < text.n && master_is_blank(text.p[equals]);)
        equals++;
    if (end == 0)
        return "missing attribute name:";
    if (equals == text.n || text.p[equals] != '=')
        return "missing '=' after attribute name:";
    *name = str_make(text.p, end);
    *value = str_trim(str_from(text, equals + 1));
    return NULL;
}

/* The value of an option, which stood in braces: "-o { name = value }" is -o name=value. */
static void value_bare(struct master_entry *e, size_t at) {
    struct str name, value;
    word_bare(e, at);
    const char *why = pair_split(str_of(e->words[at]), &name, &value);
    if (why != NULL) {
        word_warn(why, e->words[at]);
        return;
    }
    struct sbuf pair = {0};
    sbuf_printf(&pair, "%.*s=%.*s", STR_FMT(name), STR_FMT(value));
    free(e->words[at]);
    e->words[at] = sbuf_take(&pair);
}

/* "-voname=value" is -v -o name=value. */
static void option_divide(struct master_entry *e, size_t at) {
    char *word = e->words[at];
    char *o = word[1] == '\0' ? NULL : strchr(word + 1, 'o');
    if (o == NULL || (o == word + 1 && word[2] == '\0'))
        return;
    struct sbuf tail = {0};
    sbuf_printf(&tail, o == word + 1 ? "%s" : "-%s", o == word + 1 ? word + 2 : o);
    word_insert(e, at + 1, sbuf_str(&tail));
    sbuf_free(&tail);
    word_replace(e, at, str_make(word, o == word + 1 ? 2 : (size_t)(o - word)));
}

static bool master_is_option(const char *word) {
    return word[0] == '-' && strcmp(word, "--") != 0;
}

bool master_entry_has_value(const struct master_entry *e, size_t i) {
    return strcmp(e->words[i], "-o") == 0 && i + 1 < e->n;
}

static void args_normalize(struct master_entry *e) {
    size_t i;
    for (i = MASTER_FIELDS; i < e->n && master_is_option(e->words[i]); i++) {
        option_divide(e, i);
        if (master_entry_has_value(e, i) && e->words[++i][0] == '{')
            value_bare(e, i);
    }
    for (; i < e->n; i++)
        if (e->words[i][0] == '{')
            word_bare(e, i);
}

size_t master_entry_rest(const struct master_entry *e) {
    size_t i = MASTER_FIELDS;
    while (i < e->n && master_is_option(e->words[i]))
        i += master_entry_has_value(e, i) ? 2 : 1;
    return i;
}

bool master_entry_override(const struct master_entry *e, size_t i, struct str *name,
                           struct str *value) {
    return master_entry_has_value(e, i) && pair_split(str_of(e->words[i + 1]), name, value) == NULL;
}

static bool field_is_number(const char *word, bool wakeup) {
    size_t n = strlen(word);
    if (wakeup && n > 0 && word[n - 1] == '?')
        n--;
    return (word[0] == '-' && n == 1) || strspn(word, "0123456789") == n;
}

static bool field_is_right(const char *word, enum master_field field) {
    static const char *const types[] = {"unix", "unix-dgram", "fifo", "inet", "pass"};
    switch (field) {
    case MASTER_TYPE:
        for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
            if (strcmp(word, types[i]) == 0)
                return true;
        return false;
    case MASTER_PRIVATE:
    case MASTER_UNPRIVILEGED:
    case MASTER_CHROOT:
        return word[0] != '\0' && word[1] == '\0' && strchr("yn-", word[0]) != NULL;
    case MASTER_WAKEUP:
    case MASTER_LIMIT:
        return field_is_number(word, field == MASTER_WAKEUP);
    case MASTER_SERVICE:
    case MASTER_COMMAND:
    case MASTER_FIELDS:
        break;
    }
    return true;
}

static char *fields_check(const struct master_entry *e, struct str text) {
    for (enum master_field f = MASTER_TYPE; f < MASTER_COMMAND; f++) {
        if (field_is_right(e->words[f], f))
            continue;
        struct sbuf why = {0};
        sbuf_printf(&why, "invalid %s field \"", master_field_names[f]);
        secret_quote(str_of(e->words[f]), &why);
        sbuf_add_c(&why, "\" in \"");
        secret_quote(text, &why);
        sbuf_add_c(&why, "\"");
        return sbuf_take(&why);
    }
    return NULL;
}

char *master_entry_parse(struct master_entry *e, struct str text) {
    struct str rest = text, word;
    while (master_word_take(&rest, &word))
        word_insert(e, e->n, word);
    if (e->n < MASTER_FIELDS)
        return mem_strdup("bad field count");
    char *why = fields_check(e, text);
    if (why == NULL)
        args_normalize(e);
    return why;
}

void master_entry_free(struct master_entry *e) {
    for (size_t i = 0; i < e->n; i++)
        free(e->words[i]);
    free(e->words);
    *e = (struct master_entry){0};
}

/* A word that would not be read as one, or would lose braces, stands in braces. */
static void word_print(struct sbuf *out, const char *word, bool argument) {
    bool braces = word[strcspn(word, " \t\r\n")] != '\0' || (argument && word[0] == '\0');
    sbuf_printf(out, braces ? "{%s}" : "%s", word);
}

static const char *arg_shown(const char *word, const struct master_print *how) {
    return how->hide ? secret_quote_value("", word) : word;
}

/* The value of the option at i; the caller frees. */
static char *value_shown(const struct master_entry *e, size_t i, const struct master_print *how) {
    char *shown = how->value == NULL ? NULL : how->value(how->arg, e, i);
    struct sbuf out = {0};
    if (shown != NULL || !how->hide || e->words[i + 1][0] == '\0')
        return shown != NULL ? shown : mem_strdup(e->words[i + 1]);
    secret_quote(str_of(e->words[i + 1]), &out);
    return sbuf_take(&out);
}

/* One argument, or an option and its value; column: of the line, or LINE_LIMIT to begin one. */
static size_t arg_print(struct sbuf *out, const struct master_entry *e, size_t i, bool options,
                        size_t column, const struct master_print *how) {
    bool value = options && master_entry_has_value(e, i);
    size_t n = strlen(e->words[i]), from = out->n;
    if (!how->fold || (!value && column + 1 + n < LINE_LIMIT)) {
        sbuf_add_ch(out, ' ');
    } else {
        sbuf_add_c(out, "\n    ");
        column = INDENT;
        from = out->n;
    }
    word_print(out, arg_shown(e->words[i], how), !options);
    if (!value)
        return column + out->n - from;
    char *shown = value_shown(e, i, how);
    sbuf_add_ch(out, ' ');
    word_print(out, shown, false);
    free(shown);
    return LINE_LIMIT;
}

static void args_print(struct sbuf *out, const struct master_entry *e, size_t column,
                       const struct master_print *how) {
    size_t rest = master_entry_rest(e);
    for (size_t i = MASTER_FIELDS; i < e->n; i++) {
        column = arg_print(out, e, i, i < rest, column, how);
        if (i < rest && master_entry_has_value(e, i))
            i++;
    }
}

void master_entry_print(struct sbuf *out, const struct master_entry *e,
                        const struct master_print *how) {
    static const size_t columns[MASTER_FIELDS] = {0, 11, 17, 25, 33, 41, 49, 57};
    size_t start = out->n;
    for (size_t f = 0; f < MASTER_FIELDS; f++) {
        for (bool first = f > 0; first || out->n - start < columns[f]; first = false)
            sbuf_add_ch(out, ' ');
        sbuf_add_c(out, e->words[f]);
    }
    args_print(out, e, out->n - start, how);
    sbuf_add_ch(out, '\n');
}

void master_field_print(struct sbuf *out, const struct master_entry *e, enum master_field field,
                        size_t start, const struct master_print *how) {
    if (out->n > start && out->n - start + strlen(e->words[field]) > LINE_LIMIT) {
        sbuf_add_c(out, "\n    ");
        start = out->n - INDENT;
    }
    sbuf_add_c(out, e->words[field]);
    if (field == MASTER_COMMAND)
        args_print(out, e, out->n - start, how);
    sbuf_add_ch(out, '\n');
}
