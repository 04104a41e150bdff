/*
 * receive/dovecot.h - Dovecot's auth service as an SMTP server asks it (its auth protocol, 1.1)
 *
 * One connection a loop and path, for all its sessions; made when it is first needed and made again
 * when it is lost.  The loop's thread only.
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
/* Connects if need be; fn is called once, by the loop, when the list is there or cannot be had. */
void dovecot_await(struct dovecot *d, struct dovecot_wait *w);
/* The mechanisms that a SASL_NO… set allows (smtp/sasl.h), separated by blanks. */
void dovecot_mechs(const struct dovecot *d, unsigned flags, struct sbuf *out);
/* What the service is told of a client that logs in. */
struct dovecot_login {
    const char *mech;
    const char *service;     /* smtpd_sasl_service */
    const char *local_addr;  /* the address that the client came to; empty: not known */
    const char *client_addr; /* and the one that it came from */
    bool secured;            /* the session is encrypted */
    struct str resp;         /* the initial response, base64; p NULL: none */
};

/* Starts an authentication.  Returns its id; fn may be called more than once, until it was not
 * DOVECOT_MORE.  Returns 0, and fn is not called, if there is no connection or if one of the texts
 * cannot be said: a TAB or a line end in it would be a field or a line of its own, and the service
 * hangs up on what it does not understand, which is the connection of all clients. */
uint32_t dovecot_begin(struct dovecot *d, const struct dovecot_login *l, dovecot_fn fn, void *arg);
/* The client's answer to a challenge; false as above: the authentication is then over. */
bool dovecot_continue(struct dovecot *d, uint32_t id, struct str resp);
/* fn is not called any more. */
void dovecot_cancel(struct dovecot *d, uint32_t id);

#endif
