/*
 * util/codec.c - base64, hex, percent-encoding, CRC32C; see codec.h
 *
 * CRC32C uses the SSE4.2 instruction where the processor has it, and a table elsewhere.
 */
#include "util/codec.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <string.h>
#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

/* Longer than any line that may hold it. */
#define BASE64_MAX (1U << 20)

void base64_encode(struct sbuf *out, struct str in) {
    char *at = sbuf_room(out, (in.n + 2) / 3 * 4 + 1);
    int n = EVP_EncodeBlock((unsigned char *)at, (const unsigned char *)in.p, (int)in.n);
    sbuf_advance(out, (size_t)n);
}

bool base64_decode(struct sbuf *out, struct str in) {
    if (in.n % 4 != 0 || in.n > BASE64_MAX)
        return false;
    if (in.n == 0)
        return true;
    ptrdiff_t eq = str_chr(in, '=');
    size_t pad = eq < 0 ? 0 : in.n - (size_t)eq;
    if (pad > 2 || (pad == 2 && in.p[in.n - 1] != '=') || in.p[0] == ' ')
        return false;
    for (size_t i = 0; i < in.n; i++) /* EVP skips blanks at the ends; here they are errors */
        if ((unsigned char)in.p[i] <= ' ')
            return false;
    char *at = sbuf_room(out, in.n / 4 * 3 + 1);
    int n = EVP_DecodeBlock((unsigned char *)at, (const unsigned char *)in.p, (int)in.n);
    if (n < 0)
        return false;
    sbuf_advance(out, (size_t)n - pad);
    return true;
}

int hex_digit(char c) {
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

static bool hex_pair(struct sbuf *out, struct str in) {
    int hi = in.n >= 2 ? hex_digit(in.p[0]) : -1, lo = in.n >= 2 ? hex_digit(in.p[1]) : -1;
    if (hi >= 0 && lo >= 0)
        sbuf_add_ch(out, (char)(hi << 4 | lo));
    return hi >= 0 && lo >= 0;
}

bool hex_decode(struct sbuf *out, struct str in) {
    for (; in.n >= 2; in = str_from(in, 2))
        if (!hex_pair(out, in))
            return false;
    return in.n == 0;
}

bool percent_decode(struct sbuf *out, struct str in) {
    while (in.n > 0) {
        bool coded = in.p[0] == '%';
        if (!coded)
            sbuf_add_ch(out, in.p[0]);
        else if (!hex_pair(out, str_from(in, 1)))
            return false;
        in = str_from(in, coded ? 3 : 1);
    }
    return true;
}

static uint32_t crc_table[256];
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;

static void crc_table_make(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = (c & 1) != 0 ? (c >> 1) ^ 0x82f63b78U : c >> 1;
        crc_table[i] = c;
    }
}

uint32_t crc32c_soft(uint32_t crc, const void *p, size_t n) {
    const uint8_t *b = p;
    uint32_t c = ~crc;
    pthread_once(&crc_once, crc_table_make);
    for (size_t i = 0; i < n; i++)
        c = crc_table[(c ^ b[i]) & 0xff] ^ (c >> 8);
    return ~c;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_hard(uint32_t c, const uint8_t *p, size_t n) {
    uint64_t w = c;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        w = _mm_crc32_u64(w, v);
    }
    c = (uint32_t)w;
    for (; n > 0; n--, p++)
        c = _mm_crc32_u8(c, *p);
    return c;
}
#endif

uint32_t crc32c(uint32_t crc, const void *p, size_t n) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return ~crc_hard(~crc, p, n);
#endif
    return crc32c_soft(crc, p, n);
}
