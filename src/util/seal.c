/*
 * util/seal.c - sealed secrets; see seal.h
 *
 * A sealed secret is: ephemeral public key (32), tag (16), ciphertext.  The nonce is zero: each key
 * is used once.
 */
#include "util/seal.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <stdlib.h>
#include <string.h>

#include "util/mem.h"

#define TAG 16U

bool seal_public(const unsigned char priv[SEAL_KEY], unsigned char pub[SEAL_KEY]) {
    size_t n = SEAL_KEY;
    EVP_PKEY *k = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, priv, SEAL_KEY);
    bool ok = k != NULL && EVP_PKEY_get_raw_public_key(k, pub, &n) == 1;
    EVP_PKEY_free(k);
    return ok;
}

bool seal_keys(unsigned char priv[SEAL_KEY], unsigned char pub[SEAL_KEY]) {
    size_t n = SEAL_KEY;
    EVP_PKEY *k = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
    bool ok = k != NULL && EVP_PKEY_get_raw_private_key(k, priv, &n) == 1;
    EVP_PKEY_free(k);
    return ok && seal_public(priv, pub);
}

/* What both sides agree on. */
static bool agree(const unsigned char *priv, const unsigned char *pub,
                  unsigned char shared[SEAL_KEY]) {
    size_t n = SEAL_KEY;
    EVP_PKEY *mine = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, priv, SEAL_KEY);
    EVP_PKEY *theirs = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, pub, SEAL_KEY);
    EVP_PKEY_CTX *c = mine == NULL ? NULL : EVP_PKEY_CTX_new(mine, NULL);
    bool ok = c != NULL && theirs != NULL && EVP_PKEY_derive_init(c) == 1 &&
              EVP_PKEY_derive_set_peer(c, theirs) == 1 && EVP_PKEY_derive(c, shared, &n) == 1;
    EVP_PKEY_CTX_free(c);
    EVP_PKEY_free(mine);
    EVP_PKEY_free(theirs);
    return ok;
}

/* The key of one secret: both public keys are part of it (RFC 9180's reason). */
static bool derive(const unsigned char shared[SEAL_KEY], const unsigned char *ephemeral,
                   const unsigned char *pub, unsigned char key[32]) {
    unsigned char info[2 * SEAL_KEY];
    char digest[] = "SHA256", salt[] = "posthouse sealed secret 1";
    memcpy(info, ephemeral, SEAL_KEY);
    memcpy(info + SEAL_KEY, pub, SEAL_KEY);
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *c = kdf == NULL ? NULL : EVP_KDF_CTX_new(kdf);
    OSSL_PARAM p[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)shared, SEAL_KEY),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt, sizeof salt - 1),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, sizeof info),
        OSSL_PARAM_construct_end()};
    bool ok = c != NULL && EVP_KDF_derive(c, key, 32, p) == 1;
    EVP_KDF_CTX_free(c);
    EVP_KDF_free(kdf);
    return ok;
}

static bool crypt_gcm(bool encrypt, const unsigned char key[32], struct str bound, struct str in,
                      unsigned char *out, unsigned char tag[TAG]) {
    static const unsigned char nonce[12];
    int n = 0;
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    bool ok = c != NULL &&
              EVP_CipherInit_ex(c, EVP_aes_256_gcm(), NULL, key, nonce, encrypt ? 1 : 0) == 1 &&
              EVP_CipherUpdate(c, NULL, &n, (const unsigned char *)bound.p, (int)bound.n) == 1 &&
              EVP_CipherUpdate(c, out, &n, (const unsigned char *)in.p, (int)in.n) == 1;
    if (ok && !encrypt)
        ok = EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, TAG, tag) == 1;
    ok = ok && EVP_CipherFinal_ex(c, out + n, &n) == 1;
    if (ok && encrypt)
        ok = EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, TAG, tag) == 1;
    EVP_CIPHER_CTX_free(c);
    return ok;
}

bool seal_close(const unsigned char pub[SEAL_KEY], struct str secret, struct str bound,
                struct sbuf *out) {
    unsigned char eph[SEAL_KEY], eph_pub[SEAL_KEY], shared[SEAL_KEY], key[32], tag[TAG];
    unsigned char *text = mem_alloc(secret.n + TAG);
    bool ok = seal_keys(eph, eph_pub) && agree(eph, pub, shared) &&
              derive(shared, eph_pub, pub, key) && crypt_gcm(true, key, bound, secret, text, tag);
    if (ok) {
        sbuf_add(out, eph_pub, SEAL_KEY);
        sbuf_add(out, tag, TAG);
        sbuf_add(out, text, secret.n);
    }
    mem_wipe((char *)eph, sizeof eph);
    mem_wipe((char *)shared, sizeof shared);
    mem_wipe((char *)key, sizeof key);
    free(text);
    return ok;
}

bool seal_open(const unsigned char priv[SEAL_KEY], struct str sealed, struct str bound,
               struct sbuf *out) {
    unsigned char pub[SEAL_KEY], shared[SEAL_KEY], key[32], tag[TAG];
    const unsigned char *p = (const unsigned char *)sealed.p;
    if (sealed.n < SEAL_KEY + TAG || !seal_public(priv, pub))
        return false;
    struct str in = str_from(sealed, SEAL_KEY + TAG);
    memcpy(tag, p + SEAL_KEY, TAG);
    unsigned char *text = mem_alloc(in.n + TAG);
    bool ok = agree(priv, p, shared) && derive(shared, p, pub, key) &&
              crypt_gcm(false, key, bound, in, text, tag);
    if (ok)
        sbuf_add(out, text, in.n);
    mem_wipe((char *)text, in.n);
    mem_wipe((char *)shared, sizeof shared);
    mem_wipe((char *)key, sizeof key);
    free(text);
    return ok;
}
