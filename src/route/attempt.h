/*
 * route/attempt.h - one attempt: some recipients of a message, on one road
 *
 * Made by the scheduler, carried out by a delivery session on a loop, given back with a result per
 * recipient.  Exactly one thread has it at a time; it travels as a task.
 */
#ifndef PH_ROUTE_ATTEMPT_H
#define PH_ROUTE_ATTEMPT_H

#include "config/config.h"
#include "mail/envelope.h"
#include "mail/mailerr.h"
#include "spool/body.h"
#include "util/loop.h"

enum attempt_outcome {
    ATTEMPT_UNSET,   /* the session has it */
    ATTEMPT_TRIED,   /* every recipient has a result; its blame says what is at fault */
    ATTEMPT_RETURNED /* not tried: the session closed first; to be given to another one */
};

/* The host that gave a recipient its result, where another one was used after it. */
struct said_by {
    char *relay; /* as in struct attempt; owned; NULL: no other one was */
    char tls[24];
};

struct attempt {
    struct task task;
    struct dl link;
    void *owner;        /* the scheduler's job */
    void *task_session; /* the session it was given to */
    struct config *cfg; /* reference */
    const struct service *transport;
    char *nexthop;     /* owned */
    char *record;      /* the relay record behind it, or ""; owned */
    bool configured;   /* the next hop was set by the administrator: its faults never bounce */
    bool tls_optional; /* its author wants it to arrive whatever TLS is configured; never true where
                        * configured is */
    bool filter; /* it goes to its content filter: no login of its sender's is meant for that */
    struct envelope *env;
    struct body *body;
    uint32_t n;
    uint32_t *idx;       /* into env->rcpts */
    struct mailerr *res; /* one per recipient; status is valid where tried[i] */
    bool *tried;
    enum attempt_outcome outcome;
    int64_t active_us;  /* when the message became active */
    int64_t begin_us;   /* when a session took it */
    int64_t conn_us;    /* when its session was ready (greeting, TLS, AUTH) */
    int64_t cert_until; /* when the relay host's certificate expires, in seconds; 0: no TLS */
    /* Set by the scheduler while a session has it. */
    atomic_bool held;     /* its route is asked for anew: it does not begin before that is known */
    atomic_bool recalled; /* it comes back (ATTEMPT_RETURNED) unless it has begun */
    atomic_bool whole; /* set by the session: the whole content went out, its answer is awaited */
    bool remote_dsn;   /* the remote takes over NOTIFY=SUCCESS */
    char relay[400];   /* "host[addr]:port" of the log: of the host that was used last, or "" */
    char tls[24];      /* "tls=" of the log; "": no host was asked */
    struct said_by
        *hosts; /* one per recipient, or NULL: no host was left for the next one; owned */
};

/* What a relay host has taken of an attempt that a session still has: told at once, so that nothing
 * of it is sent again.  It owns idx and res. */
struct attempt_taken {
    struct task task;
    void *owner; /* of the attempt, which comes back later: the scheduler's job */
    uint32_t n;
    uint32_t *idx;       /* into the envelope's recipients */
    struct mailerr *res; /* one per recipient: MAIL_SENT */
    bool remote_dsn;     /* as the attempt's */
};

/* NULL if nothing of it has been taken. */
struct attempt_taken *attempt_taken_new(const struct attempt *a);
void attempt_taken_free(struct attempt_taken *t);

/* Sets the relay host of the log line: "host[addr]:port", or "". */
void attempt_set_relay(struct attempt *a, const char *relay);
/* The host that relay and tls are about is left for the next one: what recipients have of it stays
 * its word. */
void attempt_keep_host(struct attempt *a);
/* The recipient's result is that of the host in use. */
void attempt_forget_host(struct attempt *a, uint32_t i);
/* The relay host that gave the recipient's result, for the log; "none": none was reached. */
const char *attempt_host(const struct attempt *a, uint32_t i);
/* What "tls=" of the log says of that host. */
const char *attempt_tls(const struct attempt *a, uint32_t i);
/* Gives back all that it has. */
void attempt_free(struct attempt *a);

#endif
