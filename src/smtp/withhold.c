/*
 * smtp/withhold.c - texts of a peer that repeat what was sent at login; see withhold.h
 */
#include "smtp/withhold.h"

#include <openssl/rand.h>
#include <string.h>

#include "util/codec.h"

static char folded(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_blank(char c) {
    return (c >= 0 && c <= ' ') || c == 0x7f;
}

static uint64_t mark_of(const struct withhold *w, const char *p, size_t n) {
    uint64_t h = w->key;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ (uint8_t)p[i]) * 0x9e3779b97f4a7c15U;
        h ^= h >> 29;
    }
    return h;
}

/* The hash is all that there is of a key. */
static bool mark_same(const void *val, const void *key) {
    (void)val;
    (void)key;
    return true;
}

static bool mark_known(const struct withhold *w, const char *p, size_t n) {
    return (w->lengths & 1U << n) != 0 &&
           kset_get(&w->marks, mark_of(w, p, n), mark_same, p) != NULL;
}

static void mark_add(struct withhold *w, const char *p, size_t n) {
    if (!mark_known(w, p, n))
        kset_add(&w->marks, mark_of(w, p, n), w);
    w->lengths |= 1U << n;
}

/* An enhanced status code that begins a line: it may stand in the middle of what is repeated. */
static size_t status_span(struct str text, size_t at) {
    size_t i = at;
    while (i < text.n && ((text.p[i] >= '0' && text.p[i] <= '9') || text.p[i] == '.'))
        i++;
    return i > at + 4 && i < text.n && text.p[i] == ' ' ? i - at : 0;
}

/* Without blanks, control characters and status codes, in lower case. */
static void squeeze(struct str text, struct sbuf *out) {
    bool line_begins = true;
    sbuf_room(out, text.n); /* no copy of a secret is left behind */
    for (size_t i = 0; i < text.n; i++) {
        if (line_begins)
            i += status_span(text, i);
        line_begins = text.p[i] == '\n';
        if (!is_blank(text.p[i]))
            sbuf_add_ch(out, folded(text.p[i]));
    }
}

void withhold_add(struct withhold *w, struct str sent) {
    struct sbuf flat = {0};
    while (w->key == 0)
        if (RAND_bytes((unsigned char *)&w->key, sizeof w->key) != 1)
            w->key = (uint64_t)(uintptr_t)w;
    sbuf_room(&flat, sent.n);
    for (size_t i = 0; i < sent.n; i++)
        if (!is_blank(sent.p[i]))
            sbuf_add_ch(&flat, folded(sent.p[i]));
    if (flat.n > 0 && flat.n < WITHHOLD_PART)
        mark_add(w, flat.p, flat.n);
    for (size_t i = 0; i + WITHHOLD_PART <= flat.n; i++)
        mark_add(w, flat.p + i, WITHHOLD_PART);
    sbuf_wipe(&flat);
}

void withhold_add_password(struct withhold *w, struct str password) {
    withhold_add(w, password);
    for (size_t before = 0; before < 3; before++) {
        struct sbuf plain = {0}, coded = {0};
        sbuf_room(&plain, password.n + before);
        sbuf_add(&plain, "\0\0", before);
        sbuf_add_str(&plain, password);
        sbuf_room(&coded, (plain.n + 2) / 3 * 4 + 1);
        base64_encode(&coded, sbuf_str(&plain));
        /* The characters at both ends depend on what stands there too. */
        size_t from = before == 0 ? 0 : before + 1, to = plain.n * 8 / 6;
        if (to >= from + WITHHOLD_WHOLE)
            withhold_add(w, str_make(coded.p + from, to - from));
        sbuf_wipe(&plain);
        sbuf_wipe(&coded);
    }
}

/* A word, with or without the punctuation around it: what is too short for part_matches. */
static bool word_matches(const struct withhold *w, struct str word) {
    static const char around[] = "\"'`<>()[]{}.,;:!?";
    char flat[WITHHOLD_PART];
    for (int pass = 0; pass < 2; pass++) {
        if (word.n > 0 && word.n < WITHHOLD_PART) {
            for (size_t i = 0; i < word.n; i++)
                flat[i] = folded(word.p[i]);
            if (mark_known(w, flat, word.n))
                return true;
        }
        while (word.n > 0 && strchr(around, word.p[0]) != NULL)
            word = str_from(word, 1);
        while (word.n > 0 && strchr(around, word.p[word.n - 1]) != NULL)
            word.n--;
    }
    return false;
}

/* Does something that was added begin here?  Without blanks and in lower case. */
static bool part_matches(const struct withhold *w, struct str flat) {
    for (size_t n = WITHHOLD_WHOLE; n <= WITHHOLD_PART && n <= flat.n; n++)
        if (mark_known(w, flat.p, n))
            return true;
    return false;
}

bool withhold_matches(const struct withhold *w, struct str text) {
    struct sbuf flat = {0};
    struct str rest = text, word;
    bool found = false;
    if (w->marks.n == 0)
        return false;
    while (!found && str_split(&rest, " \t\r\n", &word))
        found = word_matches(w, word);
    squeeze(text, &flat);
    for (size_t i = 0; !found && i < flat.n; i++)
        found = part_matches(w, str_from(sbuf_str(&flat), i));
    sbuf_wipe(&flat);
    return found;
}

void withhold_clear(struct withhold *w) {
    kset_free(&w->marks);
    *w = (struct withhold){0};
}
