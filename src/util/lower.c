/*
 * util/lower.c - str_lower: lower case in place; see str.h
 *
 * libunistring has Unicode's simple lower case.
 */
#include <stdlib.h>
#include <string.h>
#include <unicase.h>
#include <unistr.h>

#include "util/str.h"

/* The character of n bytes at p, which are UTF-8; one that would be longer or shorter stays. */
static void lower_sequence(uint8_t *p, size_t n) {
    uint8_t to[4];
    ucs4_t c;
    u8_mbtouc_unsafe(&c, p, n);
    if (u8_uctomb(to, uc_tolower(c), sizeof to) == (int)n)
        memcpy(p, to, n);
}

void str_lower(char *p, size_t n) {
    for (size_t i = 0; i < n;) {
        uint8_t c = (uint8_t)p[i];
        size_t span = c < 0x80 ? 1 : str_utf8_span(str_make(p + i, n - i));
        if (c >= 'A' && c <= 'Z')
            p[i] = (char)(c + 32);
        if (span > 1)
            lower_sequence((uint8_t *)p + i, span);
        i += span == 0 ? 1 : span;
    }
}

bool str_casefold(struct str s, struct sbuf *out) {
    size_t n;
    uint8_t *folded = u8_casefold((const uint8_t *)s.p, s.n, NULL, NULL, NULL, &n);
    if (folded != NULL)
        sbuf_add(out, (const char *)folded, n);
    free(folded);
    return folded != NULL;
}
