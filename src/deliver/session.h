/*
 * deliver/session.h - inside of a delivery session (its loop's thread only)
 */
#ifndef PH_DELIVER_SESSION_H
#define PH_DELIVER_SESSION_H

#include "deliver/deliver.h"
#include "deliver/verdict.h"
#include "route/nexthop.h"
#include "route/record.h"
#include "route/trace.h"
#include "smtp/content.h"
#include "smtp/reply.h"
#include "smtp/sasl.h"
#include "smtp/withhold.h"
#include "util/conn.h"

#define TLS_CONTEXTS 8

enum tls_level { LEVEL_NONE, LEVEL_MAY, LEVEL_ENCRYPT, LEVEL_VERIFY, LEVEL_SECURE };

struct tls_slot {
    const struct service *svc;
    bool mandatory;
    SSL_CTX *ctx;
};

struct warned {
    char *what;
    int64_t at_ms;
};

struct deliver {
    struct loop *loop;
    struct lookup *lookup;
    struct config *cfg; /* reference: of resolver and contexts */
    struct resolver *resolver;
    const struct deliver_ops *ops;
    struct tls_slot tls[TLS_CONTEXTS];
    struct warned warned[64]; /* one warning an hour per relay without credentials */
};

/* One address to try. */
struct target {
    char *host; /* name as resolved, or the address */
    char *dest; /* the next hop it came from, as written */
    struct netaddr addr;
    bool own_mx;   /* the recipient's own exchanger: not an administrator's choice */
    bool fallback; /* of smtp_fallback_relay: the relay record is not about it */
};

enum phase {
    DSESS_COLD,
    DSESS_RESOLVE,
    DSESS_POLICY,
    DSESS_CONNECT,
    DSESS_GREETING,
    DSESS_EHLO,
    DSESS_HELO,
    DSESS_STARTTLS,
    DSESS_TLS,
    DSESS_CREDENTIALS,
    DSESS_AUTH,
    DSESS_READY,
    DSESS_CLOSED
};

/* What became of a stage.  Only the driver acts on it. */
enum step {
    STEP_UNSET,     /* never returned */
    STEP_WAIT,      /* for an event, a reply or an answer */
    STEP_DONE,      /* on */
    STEP_NEXT_HOST, /* this connection is over; on to the next host */
    STEP_RECONNECT  /* this connection is over; what waits gets another one, from the first host on
                     */
};

enum {
    CAP_PIPELINING = 1,
    CAP_SIZE = 2,
    CAP_8BITMIME = 4,
    CAP_SMTPUTF8 = 8,
    CAP_DSN = 16,
    CAP_CHUNKING = 32,
    CAP_STARTTLS = 64,
    CAP_AUTH = 128
};

/* What has been sent of a transaction last. */
enum txn_sent { SENT_NOTHING, SENT_MAIL, SENT_DATA, SENT_PART, SENT_CONTENT, SENT_RSET };

/* A transaction: an attempt on its way over the connection. */
struct txn {
    struct dl link; /* in dsess.txns */
    struct attempt *a;
    uint32_t *rcpts;     /* indices into a->res: the recipients to be tried here */
    uint32_t n_rcpts;    /* of rcpts */
    uint32_t sent_rcpts; /* RCPT commands sent, or not sendable */
    uint32_t accepted;
    bool *ok; /* RCPT was accepted, by index into a->res */
    enum txn_sent sent;
    bool refused;         /* MAIL or DATA was: only RSET is left */
    bool begun;           /* content is being sent, or was */
    bool whole;           /* all of the content was written */
    bool empty;           /* a lone dot after 354, because every recipient was refused */
    bool taken;           /* the relay host said 2xx to the whole content */
    bool answered;        /* any reply to this transaction has come */
    uint64_t off;         /* bytes of content that were read and written */
    uint64_t content_end; /* dsess.out_total behind the content */
    struct content_out out;
};

struct expected {
    enum txn_command command;
    struct txn *t;
    uint32_t rcpt;    /* TXN_RCPT: index into a->res */
    uint64_t out_end; /* dsess.out_total behind the command: no reply comes before that left */
};

struct dsess {
    struct deliver *d;
    void *slot;
    struct task release;
    enum phase phase;
    struct dl todo;     /* attempts not yet begun */
    struct dl txns;     /* on the connection, oldest first */
    struct config *cfg; /* reference: of the connection */
    const struct service *svc;
    const struct params *p;
    char *nexthop;
    char *record;
    bool configured;
    /* where to */
    struct target *targets;
    size_t n_targets;
    int64_t hop_targets;  /* of the destination being resolved: smtp_mx_address_limit */
    size_t at;            /* index of the target in use */
    struct str hops_left; /* destinations not yet resolved; inside hops */
    char *hops;
    struct nexthop hop; /* being resolved */
    bool fallback_added;
    struct resolve_mx *mx; /* exchangers not yet resolved to addresses */
    size_t n_mx, mx_at;
    unsigned sessions;  /* connections of this round */
    struct mailerr err; /* why the last host failed */
    bool site_err;      /* err is about the destination, not about one sender */
    struct resolver_query *query;
    uint32_t tag; /* of a table look-up */
    /* the connection */
    struct conn *conn;
    int64_t ready_ms; /* when it became ready */
    int64_t begin_us, conn_us;
    unsigned uses; /* transactions begun on it */
    unsigned caps;
    uint64_t size_limit;
    char *mechs; /* offered by AUTH */
    enum tls_level level;
    char *match;        /* names from a policy, or NULL */
    int64_t cert_until; /* the last certificate that was seen; 0: none */
    bool tls_on, tls_verified, plain_retry;
    char *auth_sender; /* whose credentials, with sender-dependent authentication */
    struct sasl_login *sasl;
    struct sbuf first_answer; /* too long for the AUTH command: kept for the first 334 */
    struct withhold sent;     /* what was sent at login: replies that repeat it are not shown */
    uv_work_t *sasl_work;     /* a slow step is running */
    struct smtp_reply reply;
    struct expected *fifo;
    size_t fifo_n, fifo_cap, fifo_at;
    uint64_t out_total;  /* bytes written to the connection by session_say and as content */
    struct sbuf line;    /* being made, for session_say */
    bool leaving;        /* no new transaction: what waits goes to the next host */
    bool mute;           /* nothing more may be written to the connection */
    struct record rec;   /* the relay record behind the next hop; rec.id NULL: none */
    struct probe *probe; /* it looks only; NULL: it delivers */
    char where[400];     /* "host[addr]" */
    char relay[440];     /* "host[addr]:port" */
};

/* session.c: the connection's beginning and end */
void session_start(struct dsess *s);
/* Gives back the waiting attempts that the scheduler has recalled. */
void session_return_recalled(struct dsess *s);
/* The host failed before or between transactions: s->err says why; on to the next host. */
void session_host_failed(struct dsess *s);
void session_disconnect(struct dsess *s, bool quit);
/* Is there a further address or destination to try in this round? */
bool session_more_hosts(const struct dsess *s);
void session_fail(struct dsess *s, enum mail_status status, const char *dsn, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Sets s->err. */
void session_note(struct dsess *s, enum mail_status status, enum mail_blame blame, const char *dsn,
                  const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* Writes s->line as one line and empties it.  False, and nothing is written, if it has a control
 * character: no text from outside becomes a second command. */
bool session_say(struct dsess *s);
const char *session_stage(const struct dsess *s);

/* Does the relay record say how to talk to the host in use?  Not to smtp_fallback_relay. */
bool session_uses_record(const struct dsess *s);
/* Seconds from now; a probe is not that patient. */
void session_deadline(struct dsess *s, int64_t seconds);

/* probe.c: does nothing (and gives NULL) unless s is a probe */
struct trace *probe_trace(const struct dsess *s);
/* May it connect?  True unless it is a probe that only explains. */
bool probe_connects(const struct dsess *s);
/* A step of the stage that ends now, to be filled in; then probe_end_step. */
json_t *probe_step(struct dsess *s, const char *stage, bool ok);
void probe_end_step(struct dsess *s, json_t *o);
void probe_ok(struct dsess *s, const char *stage, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* s->err says why the stage of s->phase failed. */
void probe_failed(struct dsess *s);
void probe_tls(struct dsess *s, SSL *ssl, bool trusted, bool matched);
/* Explaining: on to the next host. */
void probe_next(struct dsess *s);
/* The session is ready for mail; a reply in that phase; the connection is lost. */
void probe_ready(struct dsess *s);
void probe_reply(struct dsess *s);
void probe_lost(struct dsess *s, const char *what);
/* Nothing is left to try. */
void probe_over(struct dsess *s);

/* targets.c: what to connect to */
void targets_begin(struct dsess *s);
/* The next address in s->targets[s->at], after perhaps asking DNS; calls targets_ready. */
void targets_next(struct dsess *s);
void targets_free(struct dsess *s);
/* session.c: an address is ready, or none is left (s->err set). */
void targets_ready(struct dsess *s, bool any);
/* Is the address one of ours and the port one that we listen on? */
bool target_is_self(const struct dsess *s, const struct netaddr *a);

/* auth.c: credentials and SASL */
void auth_begin(struct dsess *s);
void auth_reply(struct dsess *s);
void auth_cancel(struct dsess *s);
/* The session may go on to READY. */
void session_ready(struct dsess *s);

/* secure.c: TLS */
SSL *secure_new(struct dsess *s);
/* After the handshake: verifies and logs; false if the certificate is not good enough. */
bool secure_check(struct dsess *s);
void secure_policy(struct dsess *s); /* looks up the level, then session_connect */
void session_connect(struct dsess *s);

/* transact.c: transactions */
/* Sends what can be sent now. */
enum step transact_pump(struct dsess *s);
/* s->reply has come. */
enum step transact_reply(struct dsess *s);
enum step transact_drained(struct dsess *s);
/* The connection is gone: every transaction on it fails, moves to another host or starts again. */
enum step transact_lost(struct dsess *s, const char *what);
/* A malformed reply has come, and s->err says so. */
enum step transact_malformed(struct dsess *s);
/* What the session is doing, for "lost connection with … while …". */
const char *transact_doing(const struct dsess *s);
/* Gives back all waiting attempts with s->err. */
void transact_fail_all(struct dsess *s);

#endif
