/*
 * util/seal.h - secrets that anybody can put in and only one can take out
 *
 * A key pair (X25519); seal needs its public half only: ephemeral key agreement, HKDF-SHA-256,
 * AES-256-GCM.  What is bound is authenticated with the secret: a sealed secret opens only together
 * with the same text (the hosts that it may be sent to, the user).  Any thread.
 */
#ifndef PH_UTIL_SEAL_H
#define PH_UTIL_SEAL_H

#include "util/str.h"

#define SEAL_KEY 32U

/* A new pair. */
bool seal_keys(unsigned char priv[SEAL_KEY], unsigned char pub[SEAL_KEY]);
/* The public half of priv. */
bool seal_public(const unsigned char priv[SEAL_KEY], unsigned char pub[SEAL_KEY]);
/* Appends secret, sealed. */
bool seal_close(const unsigned char pub[SEAL_KEY], struct str secret, struct str bound,
                struct sbuf *out);
/* Appends the secret; false if it was sealed for another key, bound to another text, or changed. */
bool seal_open(const unsigned char priv[SEAL_KEY], struct str sealed, struct str bound,
               struct sbuf *out);

#endif
