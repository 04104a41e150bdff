/*
 * util/str.h - text with a length, and a buffer that grows
 *
 * Every text that may come from outside is a struct str or lives in a struct sbuf: neither
 * depends on a NUL, so a NUL in the input cannot hide what follows it.  Thread-safe as far as
 * each object is used by one thread at a time.  Running out of memory ends the process (see
 * util/mem.h): large, input-driven allocations are bounded by budgets before they get here.
 */
#ifndef PH_UTIL_STR_H
#define PH_UTIL_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A view: bytes that belong to another object. */
struct str {
    const char *p;
    size_t n;
};

/* A growing buffer.  Zero-initialised is valid and empty.  Always NUL-terminated when p is set. */
struct sbuf {
    char *p;
    size_t n;
    size_t cap;
};

#define STR_LIT(s) ((struct str){(s), sizeof(s) - 1})
#define STR_NONE   ((struct str){NULL, 0})
/* For "%.*s". */
#define STR_FMT(s) (int)(s).n, (s).p
/* UTF-8 for U+FEFF, with which some editors begin a file. */
#define BYTE_ORDER_MARK "\xef\xbb\xbf"

static inline struct str str_make(const char *p, size_t n) {
    return (struct str){p, n};
}

/* NULL is a text of no bytes. */
static inline struct str str_of(const char *cstr) {
    return str_make(cstr, cstr == NULL ? 0 : strlen(cstr));
}

/* Without the first off bytes; empty if there are not that many. */
static inline struct str str_from(struct str s, size_t off) {
    return off >= s.n ? str_make(s.p, 0) : str_make(s.p + off, s.n - off);
}

bool str_eq(struct str a, struct str b);
/* Bytes of the character that s, which is not empty, begins with; 0: it is no UTF-8. */
size_t str_utf8_span(struct str s);
/* Well formed UTF-8, without surrogates and overlong forms? */
bool str_is_utf8(struct str s);
bool str_is_ascii(struct str s);
bool str_eq_c(struct str a, const char *b);
/* ASCII case-insensitive. */
bool str_ieq(struct str a, struct str b);
bool str_ieq_c(struct str a, const char *b);
bool str_istarts(struct str s, const char *prefix);
/* Has name one of the n ends, and something before it?  Which: its index; -1: none. */
ptrdiff_t str_end_of(const char *name, const char *const *ends, size_t n);
/* Does part stand in s, in any (ASCII) case? */
bool str_icontains(struct str s, struct str part);
/* Index of the first/last byte c, or -1. */
ptrdiff_t str_chr(struct str s, char c);
ptrdiff_t str_rchr(struct str s, char c);
struct str str_trim(struct str s);
/* Copies with a NUL; the caller frees. */
char *str_dup(struct str s);
/* Lower case in place, of UTF-8 too: character by character, where the length stays.  Bytes that
 * are no UTF-8 stay. */
void str_lower(char *p, size_t n);
/* Appends s as Postfix (ICU) folds it: "ß" becomes "ss", and both small sigmas become one.  False:
 * s cannot be folded, and nothing is appended. */
bool str_casefold(struct str s, struct sbuf *out);
/* Takes the next piece separated by any byte of seps; pieces of length 0 are skipped. */
bool str_split(struct str *rest, const char *seps, struct str *piece);
/* Like str_split, but a piece that begins with '{' runs to its closing brace (braces kept). */
bool str_split_braces(struct str *rest, const char *seps, struct str *piece);
/* Bytes of the group in braces that s begins with, braces in it counted; 0: it never closes. */
size_t str_brace_span(struct str s);
/* Takes the braces off s, if s is one group in them; false: it is not, and stays. */
bool str_unbrace(struct str *s);
/* Where the token ends that begins at i: a text in quotes or brackets, an escaped character, or one
 * byte.  pairs has the first and the last character of each kind that counts: "\"\"()". */
size_t str_token_end(struct str s, size_t i, const char *pairs);
/* The first token that is c, or s.n. */
size_t str_token_find(struct str s, char c, const char *pairs);
/* Is word one of the words of list, which commas and white space divide?  In any (ASCII) case. */
bool list_has_word(struct str list, const char *word);
/* Whole string as a decimal number; false if it is not one or overflows. */
bool str_u64(struct str s, uint64_t *v);
/* A keyed hash: without the process's key no texts that collide can be found.  Other in each
 * process, so it is never stored. */
uint64_t str_hash(struct str s);
/* For simulators and tests, which repeat themselves: a key instead of the one that was drawn. */
void str_hash_key(uint64_t first, uint64_t second);
/* Does one byte that is wrong, too many, missing or in its neighbour's place make a into b? */
bool str_is_slip(struct str a, struct str b);
/* Is it below the blank, or DEL? */
static inline bool is_control(char c) {
    return (unsigned char)c < ' ' || c == 0x7f;
}

bool str_has_control(struct str s);
/* Makes '?' of each byte of a control character (U+0080 to U+009F too, and of these bytes alone,
 * which a terminal may obey): for people, from outside. */
void str_hide_controls(char *p, size_t n);

void sbuf_free(struct sbuf *b);
/* The same for what held a secret: overwritten first.  A buffer that grew has left no copy. */
void sbuf_wipe(struct sbuf *b);
void sbuf_reset(struct sbuf *b);
/* For sbuf_room, where there is not enough. */
void sbuf_make_room(struct sbuf *b, size_t n);
/* Makes room for n more bytes and returns where they go; advance with sbuf_advance. */
static inline char *sbuf_room(struct sbuf *b, size_t n) {
    if (b->cap - b->n <= n)
        sbuf_make_room(b, n);
    return b->p + b->n;
}

static inline void sbuf_advance(struct sbuf *b, size_t n) {
    b->n += n;
    b->p[b->n] = '\0';
}

void sbuf_add(struct sbuf *b, const void *p, size_t n);
void sbuf_add_c(struct sbuf *b, const char *cstr);
void sbuf_add_str(struct sbuf *b, struct str s);
static inline void sbuf_add_ch(struct sbuf *b, char c) {
    *sbuf_room(b, 1) = c;
    sbuf_advance(b, 1);
}

/* In decimal. */
void sbuf_add_u64(struct sbuf *b, uint64_t v);
void sbuf_printf(struct sbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sbuf_vprintf(struct sbuf *b, const char *fmt, va_list ap)
    __attribute__((format(printf, 2, 0)));
/* Appends s without control characters (str_hide_controls). */
void sbuf_add_safe(struct sbuf *b, struct str s);
/* Removes the first n bytes. */
void sbuf_drop(struct sbuf *b, size_t n);
struct str sbuf_str(const struct sbuf *b);
/* Gives up the storage: the caller frees the returned NUL-terminated text (never NULL). */
char *sbuf_take(struct sbuf *b);
/* Appends s as a JSON string with quotes; invalid UTF-8 becomes U+FFFD. */
void sbuf_add_json(struct sbuf *b, struct str s);

#endif
