/*
 * receive/session.h - an SMTP server session, and what all of its parts share
 *
 * The loop's thread only.  Three objects have three lives: the session lives as long as its
 * connection; its transaction (transaction.h) from MAIL to the end of the content, to RSET or to
 * whatever else ends it; its intake (intake.h) from DATA or the first BDAT to the last byte.
 *
 * The files of this folder use those below them and none above: receive (listeners), serve (the
 * connection and the states), commands, auth and message, transaction, session, intake and access,
 * client.  What is below calls what is above by a function that it was given.
 *
 * What may free what.  serve.c alone frees a session.  A command says how it ended (enum cmd) and
 * touches nothing afterwards; one that has asked a question says CMD_WAIT, and the answer, which
 * comes from the loop, ends in smtpd_answered, after which the session may be gone.
 */
#ifndef PH_RECEIVE_SESSION_H
#define PH_RECEIVE_SESSION_H

#include <stdatomic.h>

#include "receive/certificate.h"
#include "receive/client.h"
#include "receive/receive.h"
#include "smtp/command.h"
#include "util/conn.h"

/* How many clients a service of master.cf has, on all loops; kept as long as the process.  A place
 * is taken before a client is served (receive.c), and given back with its session (serve.c). */
struct service_load {
    struct service_load *next;
    char *svc_name;
    atomic_size_t n_sessions;
};

/* How far an orderly stop has come. */
enum receive_stage {
    RECEIVE_SERVES, /* there is none */
    RECEIVE_ENDS,   /* no new client; content that has begun may come in whole */
    RECEIVE_LEAVES  /* the time is over: only what the spool has got is still answered */
};

struct receive {
    struct loop *loop;
    struct lookup *lookup;
    struct spool *spool;
    struct config *cfg; /* of new sessions; a reference */
    struct receive_ops ops;
    struct dl listeners;
    struct dl sessions;
    size_t n_sessions;
    struct certificates tls;   /* of new sessions */
    struct policies *policies; /* connections to policy services */
    struct dl auth_servers;    /* Dovecot's sockets that services ask (auth.c) */
    int fd_max; /* clients above it are refused: the rest is for the spool and deliveries */
    /* When the log was last told, on the loop's clock (smtpd_may_warn): */
    int64_t full_ms;    /* that there are no more descriptors for clients */
    int64_t crowded_ms; /* that the recipients of all clients take too much memory */
    int64_t held_ms;    /* that the envelopes of queued mail do */
    enum receive_stage stop;
};

/* What the session is doing.  smtpd_enter alone changes it. */
enum session_state {
    SESSION_NEW,     /* the client's name is being looked up; nothing was said yet */
    SESSION_TLS,     /* a TLS handshake is going on */
    SESSION_COMMAND, /* it waits for a command line */
    SESSION_AUTH,    /* it waits for the client's answer to a challenge */
    SESSION_CONTENT, /* it waits for bytes of DATA or of a chunk of BDAT */
    SESSION_WAIT,    /* an answer is awaited; the client is not read from */
    SESSION_SLEEP,   /* the client made mistakes and is slowed down; it is not read from */
    SESSION_STATES
};

/* How a command ended. */
enum cmd {
    CMD_DONE = 1, /* it was answered */
    CMD_WAIT,     /* smtpd_answered will be called from the loop */
    CMD_TLS,      /* it was answered, and TLS begins */
    CMD_CLOSE     /* it was answered, and that was all */
};

struct transaction;
struct forwarded;
struct clientcert;
struct intake;
struct auth;
struct auth_wait;
struct auth_server;
struct commit;
struct name_query;

struct session {
    struct dl link; /* receive->sessions */
    struct receive *r;
    struct conn *conn;
    struct config *cfg;        /* a reference */
    const struct service *svc; /* of cfg */
    struct service_load *load; /* of the service; it counts this session */
    const struct params *p;    /* of svc */
    struct client client;
    enum session_state state;
    int64_t due_ms;  /* when the client must have sent what is awaited, on the loop's clock */
    int64_t left_ms; /* for content: what is left of its time; 0: all of it */
    void (*answered)(struct session *s, enum cmd rc); /* set by serve.c; see smtpd_answered */
    struct name_query *naming; /* the question for the client's name, or NULL */
    size_t lists_asked;        /* of the lists of clients, those that have said whether it is in */
    uint32_t asked;            /* the question that its beginning waits for; 0: none is open */
    char *helo;                /* NULL: it has not said any */
    bool esmtp;                /* that was EHLO */
    SSL_CTX *tls; /* a reference: what its configuration has loaded for svc; NULL: no TLS */
    bool tls_on;
    struct clientcert *cert; /* that the client has shown; NULL: none */
    bool wrapped;            /* TLS comes before the greeting */
    bool ends_in_crlf;       /* the client has ended a line in CR LF */
    bool came_bare;          /* the client has ended a line, of content too, in LF alone */
    enum smtp_verb verb;     /* the last command */
    bool came_early;         /* a command came before it may, and the log has said so */
    bool gone;               /* the client has hung up: see serve_lost */
    unsigned errors;         /* since a message was taken, as Postfix counts them */
    unsigned junk;           /* commands that lead nowhere, since a message was taken */
    unsigned ok[VERB_COUNT], total[VERB_COUNT];
    struct auth *auth;               /* the login that the client has begun, or NULL */
    struct auth_server *auth_server; /* Dovecot's socket; NULL: none is asked */
    struct auth_wait *auth_wait;     /* for Dovecot's list of mechanisms, or NULL */
    char *sasl_user, *sasl_method;   /* NULL: not logged in */
    struct forwarded *forwarded;     /* what XFORWARD has said of the next message, or NULL */
    struct transaction *tx;          /* NULL: no MAIL */
    struct intake *intake;           /* NULL: no DATA and no BDAT */
    struct commit *commit;           /* the message on its way into the spool, or NULL */
};

/* Changes the state: pauses and resumes the client, sets the deadline. */
void smtpd_enter(struct session *s, enum session_state to);
/* In SESSION_CONTENT: n bytes of it have come, which may earn the client time (postconf(5),
 * smtpd_per_request_deadline). */
void smtpd_content_came(struct session *s, size_t n);
/* "command", for people. */
const char *smtpd_state_name(enum session_state state);
/* The answer that CMD_WAIT waited for has come.  s may be gone when this returns. */
void smtpd_answered(struct session *s, enum cmd rc);

/* soft_bounce: a reply that refuses for good becomes one that refuses for now.  A local client's
 * does not: sendmail(1) tells its caller what the reply says. */
void smtpd_soften(const struct session *s, char *reply);
/* Writes a reply line and counts it as the answer to the current command; ok false: it counts as
 * an error. */
void smtpd_reply(struct session *s, bool ok, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Writes a line that is not counted: 220, 354, 334, 421, the lines of EHLO.  In both, control
 * characters become '?'. */
void smtpd_say(struct session *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define SMTPD_WARN_MS 60000
/* Is it time to say in the log what it was last told at *said_ms?  If so, *said_ms becomes now: it
 * is said once in SMTPD_WARN_MS. */
bool smtpd_may_warn(const struct receive *r, int64_t *said_ms);
/* Is it a keyword of EHLO that the service takes from its clients (smtpd_discard_ehlo_keywords)?
 * What is not offered is not done either.  sendmail(1) keeps what it asks for. */
bool smtpd_discards(const struct session *s, const char *keyword);

/* "EHLO": the last command, or "CONNECT". */
const char *smtpd_last_verb(const struct session *s);
/* Log lines.  "lost connection after DATA (123 bytes) from host[addr]". */
void smtpd_log_end(const struct session *s, const char *what);
/* "disconnect from host[addr] ehlo=1 mail=1 … commands=7". */
void smtpd_log_counts(const struct session *s);

#endif
