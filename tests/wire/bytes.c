/*
 * tests/wire/bytes.c - text and chance; see bytes.h
 */
#include "bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void room(struct bytes *b, size_t n) {
    if (b->cap - b->n > n)
        return;
    size_t cap = b->cap == 0 ? 64 : b->cap;
    while (cap - b->n <= n)
        cap *= 2;
    b->p = realloc(b->p, cap);
    b->cap = cap;
    if (b->p == NULL)
        abort();
}

void bytes_add(struct bytes *b, const void *p, size_t n) {
    room(b, n);
    if (n > 0)
        memcpy(b->p + b->n, p, n);
    b->n += n;
    b->p[b->n] = '\0';
}

void bytes_text(struct bytes *b, const char *text) {
    bytes_add(b, text, strlen(text));
}

void bytes_char(struct bytes *b, char c) {
    bytes_add(b, &c, 1);
}

void bytes_fill(struct bytes *b, char c, size_t n) {
    room(b, n);
    memset(b->p + b->n, c, n);
    b->n += n;
    b->p[b->n] = '\0';
}

void bytes_printf(struct bytes *b, const char *fmt, ...) {
    va_list ap, again;
    if (fmt == NULL) /* never; a sanitizer's gcc wants to be told */
        return;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        abort();
    room(b, (size_t)n + 1);
    vsnprintf(b->p + b->n, (size_t)n + 1, fmt, again);
    va_end(again);
    b->n += (size_t)n;
}

void bytes_drop(struct bytes *b, size_t n) {
    if (n == 0)
        return;
    memmove(b->p, b->p + n, b->n - n + 1);
    b->n -= n;
}

void bytes_clear(struct bytes *b) {
    b->n = 0;
    if (b->p != NULL)
        b->p[0] = '\0';
}

void bytes_free(struct bytes *b) {
    free(b->p);
    *b = (struct bytes){0};
}

const char *bytes_str(const struct bytes *b) {
    return b->p == NULL ? "" : b->p;
}

char *bytes_copy(const char *p, size_t n) {
    char *copy = malloc(n + 1);
    if (copy == NULL)
        abort();
    if (n > 0)
        memcpy(copy, p, n);
    copy[n] = '\0';
    return copy;
}

bool bytes_equal(const struct bytes *a, const struct bytes *b) {
    return a->n == b->n && (a->n == 0 || memcmp(a->p, b->p, a->n) == 0);
}

const char *bytes_find(const char *p, size_t n, const char *needle) {
    return n == 0 ? NULL : memmem(p, n, needle, strlen(needle));
}

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_put(struct bytes *out, const void *p, size_t n) {
    const unsigned char *in = p;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)in[i] << 16;
        v |= i + 1 < n ? (uint32_t)in[i + 1] << 8 : 0;
        v |= i + 2 < n ? (uint32_t)in[i + 2] : 0;
        bytes_char(out, digits[v >> 18]);
        bytes_char(out, digits[v >> 12 & 63]);
        bytes_char(out, i + 1 < n ? digits[v >> 6 & 63] : '=');
        bytes_char(out, i + 2 < n ? digits[v & 63] : '=');
    }
}

bool base64_get(struct bytes *out, const char *p, size_t n) {
    uint32_t v = 0;
    unsigned bits = 0;
    while (n > 0 && (*p == ' ' || *p == '\t')) {
        p++;
        n--;
    }
    while (n > 0 && (p[n - 1] == ' ' || p[n - 1] == '\r'))
        n--;
    while (n > 0 && p[n - 1] == '=')
        n--;
    for (size_t i = 0; i < n; i++) {
        const char *at = p[i] == '\0' ? NULL : strchr(digits, p[i]);
        if (at == NULL)
            return false;
        v = v << 6 | (uint32_t)(at - digits);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            bytes_char(out, (char)(v >> bits & 0xff));
        }
    }
    return true;
}

void xtext_put(struct bytes *out, const void *p, size_t n) {
    const unsigned char *in = p;
    for (size_t i = 0; i < n; i++) {
        if (in[i] < '!' || in[i] > '~' || in[i] == '+' || in[i] == '=')
            bytes_printf(out, "+%02X", in[i]);
        else
            bytes_char(out, (char)in[i]);
    }
}

static int hex(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool xtext_get(struct bytes *out, const char *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (p[i] != '+') {
            if (p[i] < '!' || p[i] > '~' || p[i] == '=')
                return false;
            bytes_char(out, p[i]);
            continue;
        }
        if (n - i < 3 || hex(p[i + 1]) < 0 || hex(p[i + 2]) < 0)
            return false;
        bytes_char(out, (char)(hex(p[i + 1]) * 16 + hex(p[i + 2])));
        i += 2;
    }
    return true;
}

struct dice dice_new(uint64_t seed, uint64_t which) {
    struct dice d = {seed * 0x9e3779b97f4a7c15ULL + which * 0xd1342543de82ef95ULL + 1};
    dice_next(&d);
    return d;
}

uint64_t dice_next(struct dice *d) {
    uint64_t z = d->state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

unsigned dice_roll(struct dice *d, unsigned below) {
    uint64_t v = dice_next(d);
    return below == 0 ? 0 : (unsigned)(v % below);
}

bool dice_says(struct dice *d, unsigned percent) {
    return dice_roll(d, 100) < percent;
}
