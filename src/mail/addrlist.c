/*
 * mail/addrlist.c - see addrlist.h
 *
 * A list is cut into words and special characters first; then the words between two commas are
 * read.  With "<" in them the address stands behind it; else each run of words that '.' and '@'
 * join is one.
 */
#include "mail/addrlist.h"

#include <stdlib.h>
#include <string.h>

#include "util/mem.h"

enum token_kind { TOKEN_WORD = 1, TOKEN_QUOTED, TOKEN_LITERAL, TOKEN_SPECIAL };

struct token {
    enum token_kind kind;
    size_t at, end; /* with quotes or brackets */
};

struct addrlist {
    struct str text;
    struct token *tokens;
    size_t n, cap;
    void (*fn)(void *arg, const struct addrlist_item *item);
    void *arg;
};

static void list_token_add(struct addrlist *l, enum token_kind kind, size_t at, size_t end) {
    if (l->n == l->cap) {
        l->cap = l->cap == 0 ? 64 : l->cap * 2;
        l->tokens = mem_realloc(l->tokens, l->cap * sizeof *l->tokens);
    }
    l->tokens[l->n++] = (struct token){kind, at, end};
}

/* Behind the byte that closes what begins at i; what is not closed ends with the list. */
static size_t closed_at(struct str s, size_t i, char close) {
    for (i++; i < s.n; i++)
        if (s.p[i] == '\\' && i + 1 < s.n)
            i++;
        else if (s.p[i] == close)
            return i + 1;
    return s.n;
}

/* Comments may be nested. */
static size_t comment_end(struct str s, size_t i) {
    int depth = 0;
    for (; i < s.n; i++) {
        if (s.p[i] == '\\' && i + 1 < s.n)
            i++;
        else if (s.p[i] == '(')
            depth++;
        else if (s.p[i] == ')' && --depth == 0)
            return i + 1;
    }
    return s.n;
}

static bool is_special(char c) {
    return c != '\0' && strchr("<>()@,;:.\"[]", c) != NULL;
}

static bool is_gap(char c) {
    return (unsigned char)c <= ' ' || (unsigned char)c == 0x7f;
}

static size_t word_end(struct str s, size_t i) {
    while (i < s.n && !is_special(s.p[i]) && !is_gap(s.p[i]))
        i += s.p[i] == '\\' && i + 1 < s.n ? 2 : 1;
    return i < s.n ? i : s.n;
}

static void tokens_read(struct addrlist *l) {
    struct str s = l->text;
    for (size_t i = 0, end; i < s.n; i = end) {
        end = i + 1;
        if (is_gap(s.p[i]))
            continue;
        if (s.p[i] == '(') {
            end = comment_end(s, i);
        } else if (s.p[i] == '"') {
            end = closed_at(s, i, '"');
            list_token_add(l, TOKEN_QUOTED, i, end);
        } else if (s.p[i] == '[') {
            end = closed_at(s, i, ']');
            list_token_add(l, TOKEN_LITERAL, i, end);
        } else if (is_special(s.p[i])) {
            list_token_add(l, TOKEN_SPECIAL, i, end);
        } else {
            end = word_end(s, i);
            list_token_add(l, TOKEN_WORD, i, end);
        }
    }
}

static bool token_is(const struct addrlist *l, size_t i, char c) {
    return l->tokens[i].kind == TOKEN_SPECIAL && l->text.p[l->tokens[i].at] == c;
}

/* A word of a local part, without quotes and backslashes. */
static void add_unquoted(const struct addrlist *l, size_t i, struct sbuf *out) {
    const struct token *t = &l->tokens[i];
    bool quoted = t->kind == TOKEN_QUOTED;
    size_t end = quoted && t->end > t->at + 1 && l->text.p[t->end - 1] == '"' ? t->end - 1 : t->end;
    for (size_t k = t->at + quoted; k < end; k++) {
        if (l->text.p[k] == '\\' && k + 1 < end)
            k++;
        sbuf_add_ch(out, l->text.p[k]);
    }
}

static void add_as_is(const struct addrlist *l, size_t i, struct sbuf *out) {
    const struct token *t = &l->tokens[i];
    sbuf_add(out, l->text.p + t->at, t->end - t->at);
}

/* A quoted string with no end but the list's. */
static bool is_open(const struct addrlist *l, size_t i) {
    const struct token *t = &l->tokens[i];
    size_t escapes = 0;
    while (t->end - escapes > t->at + 1 && l->text.p[t->end - 2 - escapes] == '\\')
        escapes++;
    return t->kind == TOKEN_QUOTED &&
           (t->end == t->at + 1 || l->text.p[t->end - 1] != '"' || escapes % 2 == 1);
}

/* The tokens from i to end are one address, those from route to i its route. */
static void address_give(const struct addrlist *l, size_t route, size_t i, size_t end) {
    size_t at_sign = end;
    struct sbuf addr = {0};
    for (size_t k = i; k < end; k++)
        if (token_is(l, k, '@'))
            at_sign = k;
    for (size_t k = i; k < end; k++)
        if (k < at_sign)
            add_unquoted(l, k, &addr);
        else
            add_as_is(l, k, &addr);
    struct addrlist_item item = {.addr = sbuf_str(&addr), .has_domain = at_sign < end};
    if (i < end) {
        item.at = l->tokens[i].at;
        item.end = l->tokens[end - 1].end;
        item.route = l->tokens[route].at;
        item.is_open = is_open(l, end - 1);
    }
    l->fn(l->arg, &item);
    sbuf_free(&addr);
}

/* From behind "<" to ">", which the result is behind: the route, if there is one, is left out. */
static size_t angle_read(const struct addrlist *l, size_t i, size_t end) {
    size_t close = i, route = i;
    while (close < end && !token_is(l, close, '>'))
        close++;
    if (i < close && token_is(l, i, '@'))
        for (size_t k = i; k < close; k++)
            if (token_is(l, k, ':')) {
                i = k + 1;
                break;
            }
    address_give(l, route, i, close);
    return close < end ? close + 1 : end;
}

static bool joins(const struct addrlist *l, size_t i) {
    return token_is(l, i, '.') || token_is(l, i, '@');
}

/* Words without "<": a word that neither '.' nor '@' joins to the one before begins an address. */
static void words_read(const struct addrlist *l, size_t i, size_t end) {
    while (i < end) {
        size_t k = i + 1;
        while (k < end && (joins(l, k) || joins(l, k - 1)))
            k++;
        if (l->tokens[i].kind != TOKEN_SPECIAL || joins(l, i))
            address_give(l, i, i, k);
        i = k;
    }
}

/* What stands between two commas: what is in angles, each behind a name, and then words. */
static void element_read(const struct addrlist *l, size_t i, size_t end) {
    for (size_t k = i; k < end; k++)
        if (token_is(l, k, '<')) {
            i = angle_read(l, k + 1, end);
            k = i - 1;
        }
    for (size_t k = i; k < end; k++) /* the name of a group */
        if (token_is(l, k, ':'))
            i = k + 1;
    words_read(l, i, end);
}

/* Is there a '>' to the '<' at i?  Else a comma behind it is one. */
static bool is_closed(const struct addrlist *l, size_t i) {
    for (i++; i < l->n && !token_is(l, i, '<'); i++)
        if (token_is(l, i, '>'))
            return true;
    return false;
}

void addrlist_each(struct str list, void (*fn)(void *arg, const struct addrlist_item *item),
                   void *arg) {
    struct addrlist l = {.text = list, .fn = fn, .arg = arg};
    size_t begin = 0;
    bool angle = false;
    tokens_read(&l);
    for (size_t i = 0; i <= l.n; i++) {
        bool ends = i == l.n || (!angle && (token_is(&l, i, ',') || token_is(&l, i, ';')));
        if (i < l.n && (token_is(&l, i, '<') || token_is(&l, i, '>')))
            angle = token_is(&l, i, '<') && is_closed(&l, i);
        if (!ends)
            continue;
        element_read(&l, begin, i);
        begin = i + 1;
    }
    free(l.tokens);
}
