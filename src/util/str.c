/*
 * util/str.c - text with a length, and a buffer that grows; see str.h
 *
 * Called from everywhere, on any thread.  Nothing here keeps state.
 */
#include "util/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "util/mem.h"

#define GROW_WIPED 131072U /* bytes */

bool str_eq(struct str a, struct str b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

size_t str_utf8_span(struct str s) {
    const uint8_t *p = (const uint8_t *)s.p;
    size_t n = s.n;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = p[0] < 0x80   ? 1
                 : p[0] < 0xc0 ? 0
                 : p[0] < 0xe0 ? 2
                 : p[0] < 0xf0 ? 3
                 : p[0] < 0xf8 ? 4
                               : 0;
    if (len < 2 || len > n)
        return len < 2 ? len : 0;
    uint32_t c = p[0] & (0x7fU >> len);
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    return c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : len;
}

bool str_is_ascii(struct str s) {
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x80)
            return false;
    return true;
}

bool str_is_utf8(struct str s) {
    for (size_t i = 0, len; i < s.n; i += len)
        if ((len = str_utf8_span(str_from(s, i))) == 0)
            return false;
    return true;
}

bool str_eq_c(struct str a, const char *b) {
    return str_eq(a, str_of(b));
}

bool str_ieq(struct str a, struct str b) {
    return a.n == b.n && (a.n == 0 || strncasecmp(a.p, b.p, a.n) == 0);
}

/* Most texts differ in their first letter. */
bool str_ieq_c(struct str a, const char *b) {
    return (a.n == 0 || ((a.p[0] ^ b[0]) & ~0x20) == 0) && str_ieq(a, str_of(b));
}

bool str_istarts(struct str s, const char *prefix) {
    size_t n = strlen(prefix);
    return s.n >= n && strncasecmp(s.p, prefix, n) == 0;
}

ptrdiff_t str_end_of(const char *name, const char *const *ends, size_t n) {
    size_t length = strlen(name);
    for (size_t i = 0; i < n; i++) {
        size_t end = strlen(ends[i]);
        if (length > end && strcmp(name + length - end, ends[i]) == 0)
            return (ptrdiff_t)i;
    }
    return -1;
}

bool str_icontains(struct str s, struct str part) {
    for (size_t i = 0; i + part.n <= s.n; i++)
        if (str_ieq(str_make(s.p + i, part.n), part))
            return true;
    return false;
}

ptrdiff_t str_chr(struct str s, char c) {
    const char *at = s.n == 0 ? NULL : memchr(s.p, c, s.n);
    return at == NULL ? -1 : at - s.p;
}

ptrdiff_t str_rchr(struct str s, char c) {
    const char *at = s.n == 0 ? NULL : memrchr(s.p, c, s.n);
    return at == NULL ? -1 : at - s.p;
}

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

struct str str_trim(struct str s) {
    while (s.n > 0 && is_space(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && is_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

size_t str_token_end(struct str s, size_t i, const char *pairs) {
    while (pairs[0] != '\0' && pairs[0] != s.p[i])
        pairs += 2;
    if (s.p[i] == '\\')
        return i + 2 < s.n ? i + 2 : s.n;
    if (pairs[0] == '\0')
        return i + 1;
    for (i++; i < s.n && s.p[i] != pairs[1]; i++)
        if (s.p[i] == '\\')
            i++;
    return i + 1 < s.n ? i + 1 : s.n;
}

size_t str_token_find(struct str s, char c, const char *pairs) {
    size_t i = 0;
    while (i < s.n && s.p[i] != c)
        i = str_token_end(s, i, pairs);
    return i;
}

char *str_dup(struct str s) {
    char *p = mem_alloc(s.n + 1);
    if (s.n > 0)
        memcpy(p, s.p, s.n);
    p[s.n] = '\0';
    return p;
}

/* A bit for each byte that is in it. */
struct byte_set {
    uint64_t bits[4];
};

static struct byte_set set_of(const char *bytes) {
    struct byte_set set = {{0}};
    for (; *bytes != '\0'; bytes++)
        set.bits[(uint8_t)*bytes / 64] |= 1ULL << (uint8_t)*bytes % 64;
    return set;
}

static bool set_has(const struct byte_set *set, char c) {
    return (set->bits[(uint8_t)c / 64] >> (uint8_t)c % 64 & 1) != 0;
}

static bool split_at(struct str *rest, const struct byte_set *seps, struct str *piece) {
    size_t from = 0;
    while (from < rest->n && set_has(seps, rest->p[from]))
        from++;
    size_t to = from;
    while (to < rest->n && !set_has(seps, rest->p[to]))
        to++;
    if (to > from)
        *piece = str_make(rest->p + from, to - from);
    *rest = str_from(*rest, to);
    return to > from;
}

bool str_split(struct str *rest, const char *seps, struct str *piece) {
    const struct byte_set set = set_of(seps);
    return split_at(rest, &set, piece);
}

size_t str_brace_span(struct str s) {
    size_t depth = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '{')
            depth++;
        else if (s.p[i] == '}' && --depth == 0)
            return i + 1;
    }
    return 0;
}

bool str_unbrace(struct str *s) {
    if (s->n == 0 || s->p[0] != '{' || str_brace_span(*s) != s->n)
        return false;
    *s = str_make(s->p + 1, s->n - 2);
    return true;
}

/* Each field of each header section is looked for in a list: the set of ", \t\r\n" stands ready. */
bool list_has_word(struct str list, const char *word) {
    static const struct byte_set seps = {
        {1ULL << ',' | 1ULL << ' ' | 1ULL << '\t' | 1ULL << '\r' | 1ULL << '\n'}};
    struct str w;
    while (split_at(&list, &seps, &w))
        if (str_ieq_c(w, word))
            return true;
    return false;
}

bool str_split_braces(struct str *rest, const char *seps, struct str *piece) {
    const struct byte_set set = set_of(seps);
    while (rest->n > 0 && set_has(&set, rest->p[0]))
        *rest = str_from(*rest, 1);
    if (rest->n == 0)
        return false;
    size_t i = 0;
    while (i < rest->n && !set_has(&set, rest->p[i])) {
        size_t span = rest->p[i] == '{' ? str_brace_span(str_from(*rest, i)) : 0;
        i += span > 0 ? span : 1;
    }
    *piece = str_make(rest->p, i);
    *rest = str_from(*rest, i);
    return true;
}

bool str_u64(struct str s, uint64_t *v) {
    uint64_t out = 0;
    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        if (__builtin_mul_overflow(out, 10U, &out) ||
            __builtin_add_overflow(out, (uint64_t)(s.p[i] - '0'), &out))
            return false;
    }
    *v = out;
    return true;
}

bool str_is_slip(struct str a, struct str b) {
    size_t head = 0, tail = 0, least = a.n < b.n ? a.n : b.n;
    if (a.n > b.n + 1 || b.n > a.n + 1 || str_eq(a, b))
        return false;
    while (head < least && a.p[head] == b.p[head])
        head++;
    while (tail < least - head && a.p[a.n - 1 - tail] == b.p[b.n - 1 - tail])
        tail++;
    size_t left_a = a.n - head - tail, left_b = b.n - head - tail;
    if (left_a <= 1 && left_b <= 1)
        return true;
    return left_a == 2 && left_b == 2 && a.p[head] == b.p[head + 1] && a.p[head + 1] == b.p[head];
}

bool str_has_control(struct str s) {
    for (size_t i = 0; i < s.n; i++)
        if (is_control(s.p[i]))
            return true;
    return false;
}

void sbuf_free(struct sbuf *b) {
    free(b->p);
    *b = (struct sbuf){0};
}

void sbuf_wipe(struct sbuf *b) {
    if (b->p != NULL)
        mem_wipe(b->p, b->cap);
    sbuf_free(b);
}

void sbuf_reset(struct sbuf *b) {
    b->n = 0;
    if (b->p != NULL)
        b->p[0] = '\0';
}

/* The old piece is overwritten: any text may hold a password, and no owner can reach it any more.
 * Above GROW_WIPED a text holds content, and is moved in whatever way is cheapest. */
static void sbuf_grow(struct sbuf *b, size_t cap) {
    if (b->cap == 0 || b->cap > GROW_WIPED) {
        b->p = mem_realloc(b->p, cap);
    } else {
        char *p = mem_alloc(cap);
        memcpy(p, b->p, b->cap);
        mem_wipe(b->p, b->cap);
        free(b->p);
        b->p = p;
    }
    b->cap = cap;
}

void sbuf_make_room(struct sbuf *b, size_t n) {
    size_t cap = b->cap == 0 ? 64 : b->cap;
    while (cap - b->n <= n)
        cap *= 2;
    sbuf_grow(b, cap);
}

void sbuf_add(struct sbuf *b, const void *p, size_t n) {
    char *at = sbuf_room(b, n);
    if (n > 0)
        memcpy(at, p, n);
    sbuf_advance(b, n);
}

void sbuf_add_c(struct sbuf *b, const char *cstr) {
    sbuf_add(b, cstr, strlen(cstr));
}

void sbuf_add_str(struct sbuf *b, struct str s) {
    sbuf_add(b, s.p, s.n);
}

void sbuf_add_u64(struct sbuf *b, uint64_t v) {
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    sbuf_add(b, digits + at, sizeof digits - at);
}

void sbuf_vprintf(struct sbuf *b, const char *fmt, va_list ap) {
    va_list again;
    va_copy(again, ap);
    char *at = sbuf_room(b, 128);
    int n = vsnprintf(at, b->cap - b->n, fmt, ap);
    if (n > 0 && (size_t)n >= b->cap - b->n) {
        at = sbuf_room(b, (size_t)n + 1);
        n = vsnprintf(at, b->cap - b->n, fmt, again);
    }
    va_end(again);
    if (n > 0)
        b->n += (size_t)n;
}

void str_hide_controls(char *p, size_t n) {
    unsigned more = 0; /* bytes that the character has yet, where it is UTF-8 */
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        unsigned char next = i + 1 < n ? (unsigned char)p[i + 1] : 0;
        if (c >= ' ' && c < 0x7f) { /* nearly every byte of nearly every text */
            more = 0;
        } else if (c == 0xc2 && (next & 0xe0) == 0x80) { /* U+0080 to U+009F */
            p[i++] = '?';
            p[i] = '?';
            more = 0;
        } else if (more > 0 && (c & 0xc0) == 0x80) {
            more--;
        } else {
            more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc2 ? 1 : 0;
            p[i] = is_control(p[i]) || (c & 0xe0) == 0x80 ? '?' : p[i];
        }
    }
}

void sbuf_add_safe(struct sbuf *b, struct str s) {
    size_t from = b->n;
    sbuf_add_str(b, s);
    if (s.n > 0)
        str_hide_controls(b->p + from, s.n);
}

void sbuf_printf(struct sbuf *b, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    sbuf_vprintf(b, fmt, ap);
    va_end(ap);
}

void sbuf_drop(struct sbuf *b, size_t n) {
    if (n >= b->n) {
        sbuf_reset(b);
        return;
    }
    memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
    b->p[b->n] = '\0';
}

struct str sbuf_str(const struct sbuf *b) {
    return str_make(b->p == NULL ? "" : b->p, b->n);
}

char *sbuf_take(struct sbuf *b) {
    char *p = b->p == NULL ? str_dup(STR_NONE) : b->p;
    *b = (struct sbuf){0};
    return p;
}

/* Length of the valid UTF-8 sequence at the start of s, 0 if it is not one. */
static size_t utf8_len(struct str s) {
    uint8_t c = (uint8_t)s.p[0];
    size_t n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : 4;
    if ((n == 4 && (c < 0xf0 || c > 0xf4)) || n > s.n)
        return 0;
    for (size_t i = 1; i < n; i++)
        if (((uint8_t)s.p[i] & 0xc0) != 0x80)
            return 0;
    uint8_t d = n > 1 ? (uint8_t)s.p[1] : 0;
    bool bad = (c == 0xe0 && d < 0xa0) || (c == 0xed && d > 0x9f) || (c == 0xf0 && d < 0x90) ||
               (c == 0xf4 && d > 0x8f);
    return bad ? 0 : n;
}

void sbuf_add_json(struct sbuf *b, struct str s) {
    sbuf_add_ch(b, '"');
    while (s.n > 0) {
        uint8_t c = (uint8_t)s.p[0];
        size_t n = utf8_len(s);
        if (n == 0) {
            sbuf_add_c(b, "\xef\xbf\xbd");
            n = 1;
        } else if (c == '"' || c == '\\') {
            sbuf_add_ch(b, '\\');
            sbuf_add_ch(b, (char)c);
        } else if (c < 0x20 || c == 0x7f) {
            sbuf_printf(b, "\\u%04x", c);
        } else {
            sbuf_add(b, s.p, n);
        }
        s = str_from(s, n);
    }
    sbuf_add_ch(b, '"');
}
