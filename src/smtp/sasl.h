/*
 * smtp/sasl.h - SASL mechanisms for the client: choice and exchange
 *
 * PLAIN, LOGIN, CRAM-MD5 and SCRAM-SHA-256 by libgsasl.  A sasl_login belongs to one session;
 * sasl_login_step may take milliseconds for SCRAM and is to be called off the loop then
 * (sasl_login_slow).  Passwords are wiped when the client is freed.
 */
#ifndef PH_SMTP_SASL_H
#define PH_SMTP_SASL_H

#include "util/str.h"

struct sasl_login;

/* What a session allows: keywords of smtp_sasl_security_options. */
enum {
    SASL_NOPLAINTEXT = 1,
    SASL_NOACTIVE = 2,
    SASL_NODICTIONARY = 4,
    SASL_NOANONYMOUS = 8,
    SASL_MUTUAL_AUTH = 16,
    SASL_FORWARD_SECRECY = 32
};

/* False if a keyword is unknown; *bad is that word. */
bool sasl_options_parse(struct str text, unsigned *flags, struct str *bad);
/* Keeps the mechanisms of offered that the filter allows ("login", "!plain", "static:rest");
 * result separated by blanks.  An empty filter keeps all. */
void sasl_filter(struct str offered, struct str filter, struct sbuf *out);
/* The strongest mechanism of the list that satisfies flags, or NULL. */
const char *sasl_choose(struct str mechs, unsigned flags);

/* NULL if the mechanism is not available. */
struct sasl_login *sasl_login_new(const char *mech, struct str user, struct str password,
                                  const char *host);
void sasl_login_free(struct sasl_login *c);
const char *sasl_login_mech(const struct sasl_login *c);
bool sasl_login_slow(const struct sasl_login *c);
/* Does the mechanism begin with a word of ours (an initial response)? */
bool sasl_login_first(const struct sasl_login *c);
/* The server says that the login is good: has it proven what the mechanism wants of it? */
bool sasl_login_proven(const struct sasl_login *c);
/* A login fails when a server asks for more iterations of SCRAM than this (RFC 7677 section 4 has
 * at least 4096). */
#define SASL_SCRAM_ROUNDS 600000U
/* Answers a challenge (base64, empty at the start) in base64; 0 more or done, -1 failed with
 * *why. */
int sasl_login_step(struct sasl_login *c, struct str challenge, struct sbuf *answer,
                    const char **why);

#endif
