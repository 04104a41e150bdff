/*
 * receive/dovecot.h - Dovecot's auth service as an SMTP server asks it (its auth protocol, 1.1)
 *
 * One connection a loop, for all its sessions; made when it is first needed and made again when it
 * is lost.  The loop's thread only.
 */
#ifndef PH_RECEIVE_DOVECOT_H
#define PH_RECEIVE_DOVECOT_H

#include "util/list.h"
#include "util/loop.h"
#include "util/str.h"

struct dovecot;

enum dovecot_rc {
    DOVECOT_OK,   /* text: the user */
    DOVECOT_FAIL, /* text: the reason, may be empty */
    DOVECOT_TEMP, /* text: what is wrong with the service */
    DOVECOT_MORE  /* text: the challenge, base64 */
};

/* user: of a failure, where the service says it. */
typedef void (*dovecot_fn)(void *arg, enum dovecot_rc rc, struct str text, struct str user);

/* Waits for the list of mechanisms. */
struct dovecot_wait {
    struct dl link;
    void (*fn)(void *arg);
    void *arg;
};

/* path: smtpd_sasl_path. */
struct dovecot *dovecot_new(struct loop *l, const char *path);
/* Open questions are answered with DOVECOT_TEMP. */
void dovecot_free(struct dovecot *d);
/* Is the list of mechanisms there? */
bool dovecot_ready(const struct dovecot *d);
/* Connects if need be; fn is called once the list is there, or cannot be had. */
void dovecot_await(struct dovecot *d, struct dovecot_wait *w);
/* The mechanisms whose properties satisfy a SASL_NO… set (smtp/sasl.h), separated by blanks. */
void dovecot_mechs(const struct dovecot *d, unsigned flags, struct sbuf *out);
/* Starts an authentication; params: "\tservice=smtp…" as the protocol has them; resp: base64, p
 * NULL: none.  Returns its id; fn may be called more than once, until it was not DOVECOT_MORE. */
uint32_t dovecot_begin(struct dovecot *d, const char *mech, const char *params, struct str resp,
                       dovecot_fn fn, void *arg);
/* The client's answer to a challenge. */
void dovecot_continue(struct dovecot *d, uint32_t id, struct str resp);
/* fn is not called any more. */
void dovecot_cancel(struct dovecot *d, uint32_t id);

#endif
