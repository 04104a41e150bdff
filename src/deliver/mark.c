/*
 * deliver/mark.c - marks of tables' answers: what a table said, without keeping it
 *
 * An answer may have a password.  Its mark is made with a key that the process makes at random and
 * keeps.  Any thread.
 */
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <string.h>

#include "deliver/session.h"

static unsigned char mark_key[32];
static pthread_once_t mark_key_once = PTHREAD_ONCE_INIT;

static void mark_key_make(void) {
    if (RAND_bytes(mark_key, sizeof mark_key) != 1)
        memset(mark_key, 0x5a, sizeof mark_key);
}

uint64_t answer_mark(const struct maps_answer *a) {
    unsigned char sum[EVP_MAX_MD_SIZE] = {0};
    uint64_t mark;
    if (a->rc != MAP_FOUND)
        return a->rc == MAP_NOT_FOUND ? 0 : 2;
    pthread_once(&mark_key_once, mark_key_make);
    HMAC(EVP_sha256(), mark_key, sizeof mark_key, (const unsigned char *)a->value.p, a->value.n,
         sum, NULL);
    memcpy(&mark, sum, sizeof mark);
    return mark | 1;
}
