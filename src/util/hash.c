/*
 * util/hash.c - the hash of hash tables; see str_hash in str.h
 *
 * SipHash-1-3 (Aumasson and Bernstein) with a key that the process draws when it begins: senders,
 * next hops and client addresses are chosen by strangers, who must not be able to choose keys that
 * collide, for a table with linear probing would then be a list.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/os.h"
#include "util/str.h"

static uint64_t hash_key[2];

void str_hash_key(uint64_t first, uint64_t second) {
    hash_key[0] = first;
    hash_key[1] = second;
}

/* Before there are threads, and before the process is confined. */
__attribute__((constructor)) static void hash_key_draw(void) {
    if (!os_random(hash_key, sizeof hash_key, true)) {
        fputs("posthouse: the kernel gives no random bytes\n", stderr);
        abort();
    }
}

static uint64_t rotate(uint64_t v, int bits) {
    return v << bits | v >> (64 - bits);
}

static void sip_round(uint64_t v[4]) {
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t word) {
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
}

uint64_t str_hash(struct str s) {
    uint64_t v[4] = {hash_key[0] ^ 0x736f6d6570736575ULL, hash_key[1] ^ 0x646f72616e646f6dULL,
                     hash_key[0] ^ 0x6c7967656e657261ULL, hash_key[1] ^ 0x7465646279746573ULL};
    uint64_t word, last = (uint64_t)s.n << 56;
    size_t whole = s.n - s.n % sizeof word;
    for (size_t i = 0; i < whole; i += sizeof word) {
        memcpy(&word, s.p + i, sizeof word);
        sip_word(v, word);
    }
    for (size_t i = whole; i < s.n; i++)
        last |= (uint64_t)(uint8_t)s.p[i] << 8 * (i - whole);
    sip_word(v, last);
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
