/*
 * mail/words.c - encoded words; see words.h
 */
#include "mail/words.h"

#include <ctype.h>
#include <string.h>

#include "mail/address.h"
#include "util/codec.h"

#define WORD_MAX    75U /* RFC 2047 section 2 */
#define WORD_SIGNS  7U  /* "=?", "?Q?" and "?=" */
#define CHARSET_MAX 40U

/* Can it stand in an encoded word?  It has letters, digits, '-', '_', '.' and '+' alone. */
static bool words_charset_ok(struct str charset) {
    size_t i = 0;
    while (i < charset.n &&
           (isalnum((unsigned char)charset.p[i]) || memchr("-_.+", charset.p[i], 4) != NULL))
        i++;
    return i == charset.n && i > 0 && i <= CHARSET_MAX;
}

/* RFC 2047 section 5 (3): what stands for itself in a phrase. */
static bool words_is_literal(char c) {
    return isalnum((unsigned char)c) || memchr("!*+-/", c, 5) != NULL;
}

/* How many bytes text has as "Q". */
static size_t words_quoted_length(struct str text) {
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++)
        n += words_is_literal(text.p[i]) || text.p[i] == ' ' ? 1 : 3;
    return n;
}

static size_t words_base64_length(struct str text) {
    return (text.n + 2) / 3 * 4;
}

static void words_add_quoted(struct sbuf *out, struct str text) {
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == ' ')
            sbuf_add_ch(out, '_');
        else if (words_is_literal(text.p[i]))
            sbuf_add_ch(out, text.p[i]);
        else
            sbuf_printf(out, "=%02X", (unsigned char)text.p[i]);
    }
}

/* Where the character of UTF-8 at at ends; of what is no UTF-8, behind the bytes that might
 * continue one. */
static size_t words_character_end(struct str text, size_t at) {
    at++;
    while (at < text.n && ((unsigned char)text.p[at] & 0xc0) == 0x80)
        at++;
    return at;
}

/* How much of text fits into a word that has room for that many encoded bytes; at least one
 * character, unless it has more bytes than UTF-8 has. */
static size_t words_fit(struct str text, size_t room, size_t (*length)(struct str text)) {
    size_t n = 0;
    while (n < text.n) {
        size_t end = words_character_end(text, n);
        if (length(str_make(text.p, end)) > room)
            break;
        n = end;
    }
    if (n == 0) /* it is no UTF-8 */
        while (n < text.n && length(str_make(text.p, n + 1)) <= room)
            n++;
    return n;
}

/* Encoded words of a phrase, of at most WORD_MAX bytes each. */
static void words_add(struct sbuf *out, struct str name, struct str charset, const char *fold) {
    size_t room = WORD_MAX - WORD_SIGNS - charset.n;
    bool quoted =
        words_quoted_length(name) <= room || words_quoted_length(name) <= words_base64_length(name);
    for (struct str rest = name; rest.n > 0;) {
        size_t n = words_fit(rest, room, quoted ? words_quoted_length : words_base64_length);
        struct str piece = str_make(rest.p, n);
        if (rest.p != name.p)
            sbuf_add_c(out, fold);
        sbuf_printf(out, "=?%.*s?%c?", STR_FMT(charset), quoted ? 'Q' : 'B');
        if (quoted)
            words_add_quoted(out, piece);
        else
            base64_encode(out, piece);
        sbuf_add_c(out, "?=");
        rest = str_from(rest, n);
    }
}

void words_add_name(struct sbuf *out, struct str name, struct str charset, const char *fold) {
    if (str_is_ascii(name) || !words_charset_ok(charset))
        addr_phrase(out, name);
    else
        words_add(out, str_trim(name), charset, fold);
}
