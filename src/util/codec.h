/*
 * util/codec.h - base64, hex, percent-encoding, CRC32C
 *
 * Any thread.  Decoders return false on anything that is not exactly well formed.
 */
#ifndef PH_UTIL_CODEC_H
#define PH_UTIL_CODEC_H

#include "util/str.h"

void base64_encode(struct sbuf *out, struct str in);
bool base64_decode(struct sbuf *out, struct str in);
/* The value of a digit, in either case, or -1. */
int hex_digit(char c);
bool hex_decode(struct sbuf *out, struct str in);
/* "%2F" in an address (RFC 3986 section 2.1). */
bool percent_decode(struct sbuf *out, struct str in);
/* CRC32C (Castagnoli) of n bytes, continuing from crc (0 at the start). */
uint32_t crc32c(uint32_t crc, const void *p, size_t n);
/* The same by table, which crc32c takes where the processor has no instruction for it. */
uint32_t crc32c_soft(uint32_t crc, const void *p, size_t n);

#endif
