/*
 * deliver/policy.h - what a TLS policy asks for (a row of smtp_tls_policy_maps, see postconf(5))
 *
 * A struct tls_policy that is all zero is valid and empty.  One thread at a time.
 */
#ifndef PH_DELIVER_POLICY_H
#define PH_DELIVER_POLICY_H

#include "util/str.h"

enum tls_level {
    LEVEL_NONE,
    LEVEL_MAY,
    LEVEL_ENCRYPT,
    LEVEL_FINGERPRINT,
    LEVEL_VERIFY,
    LEVEL_SECURE
};

struct tls_policy {
    enum tls_level level;
    char *match;      /* names that the certificate may have, ':' between, or its fingerprints,
                       * '|' between; NULL: main.cf's */
    char *protocols;  /* NULL: main.cf's, of the level */
    char *grade;      /* of ciphers; NULL: main.cf's, of the level */
    char *exclude;    /* ciphers; instead of what main.cf excludes, if not NULL */
    char *anchors;    /* files of tafile=, ',' between; NULL: smtp_tls_trust_anchor_file */
    bool alone;       /* one message a connection */
    char *servername; /* hostname, nexthop or a name; NULL: smtp_tls_servername */
};

/* What became of a level with a host. */
struct tls_fate {
    enum tls_level level;
    enum {
        TLS_FATE_UNSET,    /* no host was asked */
        TLS_FATE_MET,      /* TLS, as the level asks for it */
        TLS_FATE_CLEAR,    /* in clear, because the level wants none, or the handshake broke */
        TLS_FATE_DISABLED, /* in clear, because the host has no TLS */
        TLS_FATE_REFUSED,  /* the host did not do what the level asks for */
        TLS_FATE_UNDECIDED /* something else was wrong before that */
    } what;
};

/* False if s is no level. */
bool tls_level_parse(struct str s, enum tls_level *level);
const char *tls_level_name(enum tls_level level);
/* As "tls=" of the log has it from Postfix 3.11 on; "" if it is unset. */
void tls_fate_name(struct tls_fate fate, char out[24]);
/* Reads "level attribute=value ..." into *p, which is emptied before.  False if the row cannot be
 * used as it is: why (appended) says what is wrong then, and *p is not to be used.  Attributes are
 * as in Postfix: match and tafile are added up, of connection_reuse the last counts, the others
 * stand once; level none has none of them.  An attribute that is not known is an error: a condition
 * that is not understood is not met. */
bool tls_policy_parse(struct tls_policy *p, struct str row, struct sbuf *why);
/* Empties it. */
void tls_policy_clear(struct tls_policy *p);
/* Is it a host name that may be sent for SNI, in ASCII or not? */
bool server_name_ok(struct str name);

#endif
