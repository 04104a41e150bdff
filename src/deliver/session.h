/*
 * deliver/session.h - inside of a delivery session (its loop's thread only)
 *
 * A session takes the stages of session.c's table one after the other with one host, and the hosts
 * of its next hop one after the other.  A stage says what became of it (enum step); the driver in
 * session.c alone acts on that: it changes the stage, the host and the connection.
 *
 * Whatever waits (a DNS answer, a table's answer, a slow SASL step) calls session->resume from the
 * loop, never from inside the call that asked.
 */
#ifndef PH_DELIVER_SESSION_H
#define PH_DELIVER_SESSION_H

#include "deliver/deliver.h"
#include "deliver/policy.h"
#include "deliver/traits.h"
#include "route/nexthop.h"
#include "route/record.h"
#include "route/trace.h"
#include "smtp/reply.h"
#include "smtp/sasl.h"
#include "smtp/withhold.h"
#include "util/conn.h"

#define TLS_CONTEXTS 16

/* A client's TLS context, of a transport of deliver.cfg. */
struct tls_slot {
    const struct service *svc;
    char *key;    /* what else it is for; owned */
    SSL_CTX *ctx; /* owned; NULL: free slot */
};

struct warned {
    char *what;
    int64_t at_ms;
};

struct keys;
struct name_filter;

struct deliver {
    struct loop *loop;
    struct lookup *lookup;
    struct config *cfg;        /* reference: of contexts */
    struct resolver *chosen;   /* of names that an administrator chose */
    struct resolver *resolver; /* of recipients' own exchangers: the owner of a domain may leave
                                * as many questions open as there can be */
    const struct deliver_ops *ops;
    struct tls_slot tls[TLS_CONTEXTS];
    unsigned tls_turn;        /* the slot that is taken next when none is free */
    struct warned warned[64]; /* one warning an hour per relay without credentials */
    bool tells;               /* each change of stage is logged (POSTHOUSE_STAGES is set) */
    struct dl results; /* filter.c: attempts that wait for a table to answer for their results */
    bool stopping;     /* deliver_stop was called */
};

/* One address to try. */
struct target {
    char *host; /* name as resolved, or the address */
    char *dest; /* the next hop it came from, as written */
    struct netaddr addr;
    bool own_mx;   /* the recipient's own exchanger: not an administrator's choice */
    bool fallback; /* of smtp_fallback_relay: the relay record is not about it */
};

/* What became of a stage. */
enum step {
    STEP_UNSET,       /* never returned */
    STEP_WAIT,        /* an event, a reply or an answer will come */
    STEP_DONE,        /* on to the next stage */
    STEP_AGAIN,       /* the same stage begins again, with what has come */
    STEP_SAME_HOST,   /* the same host again, on a new connection */
    STEP_HOST_FAILED, /* s->now says why; on to the next host */
    STEP_NEXT_HOST,   /* on to the next host: nothing is wrong with this one, or it has been said */
    STEP_RECONNECT,   /* this connection is over; what waits begins with the first host */
    STEP_ROUND_OVER   /* no host is left */
};

struct stage {
    const char *name; /* in explain and test */
    enum mail_phase phase;
    bool connects;     /* not taken when a road is only explained */
    const char *doing; /* for "lost connection with … while …"; NULL: ask tells_doing */
    enum step (*begin)(struct dsess *s);
    enum step (*reply)(struct dsess *s); /* s->reply has come; NULL: none is waited for */
    enum step (*lost)(struct dsess *s, bool timeout); /* NULL: the host has failed */
    /* The last stage only. */
    enum step (*more)(struct dsess *s);      /* s->todo has grown; may be NULL */
    enum step (*drained)(struct dsess *s);   /* all output is in the kernel; may be NULL */
    enum step (*malformed)(struct dsess *s); /* a reply was none: s->now says so */
    const char *(*tells_doing)(const struct dsess *s);
    /* No host is left: s->err is the result for s->todo.  What stays there begins a new round. */
    void (*over)(struct dsess *s);
};

enum {
    CAP_PIPELINING = 1,
    CAP_SIZE = 2,
    CAP_8BITMIME = 4,
    CAP_SMTPUTF8 = 8,
    CAP_DSN = 16,
    CAP_CHUNKING = 32,
    CAP_STARTTLS = 64,
    CAP_AUTH = 128,
    CAP_CODES = 256, /* ENHANCEDSTATUSCODES (RFC 2034) */
    CAP_XFORWARD = 512
};

/* What `explain` and `test` see of a session: see probe.h. */
struct watch {
    struct trace *trace;
    bool connects;         /* false: a road is only explained */
    bool reached;          /* such a road has come to its end with some host */
    int64_t stage_us;      /* when the stage began */
    enum mail_status said; /* what would become of mail, as it was said last; unset: not yet */
};

struct dsess {
    /* the driver */
    struct deliver *d;
    void *slot;
    struct task release;
    const struct stage *mail; /* the last stage */
    size_t stage;             /* index into the table of stages; 0: not connected, nothing to do */
    enum mail_phase phase;    /* of the stage; PHASE_UNSET in stage 0 */
    const char *stage_name;
    bool driving;
    void (*resume)(struct dsess *s,
                   enum step step); /* from the loop: the stage's answer has come */
    struct dl todo;                 /* attempts not yet begun */
    struct dl txns;                 /* struct txn: on the connection, oldest first */
    struct mailerr now;             /* why the host in use failed; taken into err by the driver */
    struct mailerr err;             /* why all hosts of the round failed */
    /* the round: what all its hosts have in common */
    struct config *cfg; /* reference: of the connection */
    const struct service *svc;
    const struct params *p;
    char *nexthop;
    char *record;
    struct record rec; /* the relay record behind the next hop; rec.id NULL: none */
    bool configured;   /* the next hop was chosen by an administrator, as all that follow it */
    bool filter;       /* the next hop is a content filter */
    bool tls_optional; /* its mail has ENV_TLS_OPTIONAL, and the next hop is its recipients' own */
    unsigned sessions; /* connections of this round */
    bool moved;        /* a host that works was left in this round, because of some mail of it */
    int64_t begin_us;
    /* targets.c */
    struct target *targets;
    size_t n_targets;     /* of targets: those that may be used */
    size_t n_known;       /* of targets: behind those, what smtp_mx_address_limit may leave out */
    size_t at;            /* index of the target in use */
    size_t hop_at;        /* index of the first target of the destination being resolved */
    size_t group_at;      /* … of the preference, or of the name, being resolved */
    int64_t hop_sessions; /* of that destination: for smtp_mx_session_limit */
    struct str hops_left; /* destinations not yet resolved; inside hops */
    char *hops;
    struct nexthop hop; /* being resolved */
    bool fallback_added;
    struct resolve_mx *mx; /* exchangers not yet resolved to addresses */
    size_t n_mx, mx_at;
    bool mx_self; /* an exchanger of the preference that was resolved last is ourselves */
    struct resolver_query *query; /* open, or NULL */
    char where[400];              /* "host[addr]" */
    char relay[440];              /* "host[addr]:port" */
    /* the connection */
    struct conn *conn; /* NULL: none */
    struct smtp_reply reply;
    struct sbuf line;    /* being made, for session_say */
    bool mute;           /* nothing more may be written to the connection */
    bool reply_begun;    /* bytes of the reply that is being read have come */
    uint64_t reply_gone; /* bytes of out_total that had left when its first byte came: the reply
                          * cannot be about anything behind them */
    uint64_t input_gone; /* the same of the bytes that came last */
    bool input_more;     /* bytes behind those that were taken last are here */
    uint64_t out_total;  /* bytes written to the connection by session_say and as content */
    uint32_t tag;        /* of an open table look-up; 0: none */
    /* again.c: of what the tables said, since when they are not asked again */
    uint64_t policy_mark, login_mark;
    int64_t asked_ms;
    /* filter.c */
    uint32_t filter_tag; /* of an open question to a filter's table; 0: none */
    /* The line is s->filter_line, with its end; not known: its table could not be asked. */
    void (*filtered)(struct dsess *s, bool known);
    struct sbuf filter_line;         /* the line of a reply that is asked for */
    struct name_filter *names_asked; /* the answer of the DNS that is asked for; NULL: none */
    /* hello.c */
    unsigned caps;
    uint64_t size_limit;    /* 0: none */
    unsigned origin_wanted; /* of XFORWARD; see origin.h */
    char *mechs;            /* offered by AUTH; NULL: none */
    bool helo;              /* EHLO was refused */
    /* policy.c and secure.c */
    struct tls_policy policy;
    bool tls_relaxed;   /* the policy is less than what is configured: nothing secret goes there */
    int64_t cert_until; /* the last certificate that was seen, in seconds; 0: none */
    bool tls_agreed;    /* STARTTLS was accepted */
    bool tls_on, tls_verified;
    struct tls_fate err_tls; /* with the host that err is about */
    bool plain_retry;        /* opportunistic TLS failed with this host: in clear now */
    /* auth.c */
    lookup_maps_fn credentials_fn; /* of credentials_ask */
    char *auth_sender;             /* the sender to log in for (sender-dependent authentication) */
    struct sasl_login *sasl;       /* NULL: no login */
    uv_work_t *sasl_work;          /* a slow step is running */
    struct sbuf first_answer;      /* too long for the AUTH command: kept for the first 334 */
    struct withhold sent; /* what was sent at login: replies that repeat it are not shown */
    /* txn.c, txn_send.c, transact.c */
    struct expected *fifo; /* commands that wait for a reply */
    size_t fifo_n, fifo_cap, fifo_at;
    unsigned uses;    /* transactions begun on the connection */
    int64_t ready_ms; /* when it became ready */
    int64_t conn_us;
    bool names;   /* all replies to a transaction of the connection that was taken named their
                   * commands by their enhanced status codes */
    bool leaving; /* no new transaction: what waits goes to the next host */
    bool parting; /* no new transaction: the host said 421, or contradicted itself, and may go on
                   * with what it has */
    /* probe.c */
    struct watch *watch; /* set for explain and test: nothing is delivered */
};

/* -- session.c -- */
/* Any thread.  Every session of this kind ends with the stage mail; transact_stage delivers. */
struct dsess *session_new(struct deliver *d, void *slot, const struct stage *mail);
/* On the loop: the session takes up what is in s->todo. */
void session_begin(struct dsess *s);

/* -- filter.c: tables that change what hosts and name servers say, and results -- */
bool filter_has_replies(const struct dsess *s);
/* Takes the first line of data, pauses the connection and asks for the line; s->filtered follows,
 * from the loop, unless filter_cancel comes first.  Returns the bytes that it took. */
size_t filter_reply(struct dsess *s, struct str data);
/* As resolver_ask; what smtp_dns_reply_filter drops is not in the answer.  fn gets s. */
void filter_ask_names(struct dsess *s, enum resolve_type type, const char *name, resolve_fn fn);
/* No answer for the session comes any more. */
void filter_cancel(struct dsess *s);
/* Logs the results of the attempt, as smtp_delivery_status_filter has them, and gives it back to
 * the scheduler.  uses: transactions of the connection, for the log. */
void filter_results(struct dsess *s, struct attempt *a, unsigned uses);

/* -- talk.c: what went wrong, and what is said -- */
/* Of the host in use ("%s"). */
#define NO_SMTPUTF8 "SMTPUTF8 is required, but was not offered by host %s"
/* Sets s->now, with the phase of the stage. */
void session_note(struct dsess *s, enum mail_status status, enum mail_blame blame,
                  enum mail_cause cause, const char *dsn, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
/* The same for what the relay host's reply says, which is the cause: "host X said: …" after fmt. */
void session_note_reply(struct dsess *s, enum mail_status status, enum mail_blame blame,
                        const char *dsn, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
/* The mail waits, because of this: STEP_HOST_FAILED. */
enum step host_failed(struct dsess *s, enum mail_blame blame, enum mail_cause cause,
                      const char *dsn, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* The same of a look-up for that host or destination: "what name", and what is wrong with the rows
 * of the table if it is those. */
enum step lookup_failed(struct dsess *s, enum mail_blame blame, const struct maps_answer *a,
                        const char *what, const char *name);
/* The reply in s->reply ends the conversation: "host X refused to talk to me: 554 …".  A 5xx at
 * such a place says nothing about the mail. */
enum step host_refused(struct dsess *s, const char *what);
/* Notes that the reply in s->reply cannot be the answer to the command.  What it says is in the log
 * only: it was said of another command, so no mail's error and no report quotes it. */
void session_note_out_of_step(struct dsess *s, const char *command);
/* The reply in s->reply cannot be the answer to what was asked, or nothing was asked. */
enum step host_out_of_step(struct dsess *s);
/* What has become of the level so far; e is what is wrong, or NULL. */
struct tls_fate session_tls_fate(const struct dsess *s, const struct mailerr *e);
/* Takes s->now into s->err, and shows it as the end of the stage. */
void session_take_error(struct dsess *s);
/* Does old say more than an error with this status and phase?  Mail is given up only when each host
 * gave it up; a name that has no address says less than a host that was spoken to. */
bool error_outweighs(const struct mailerr *old, enum mail_status status, enum mail_phase phase);
/* Writes s->line as one line and empties it.  False, and nothing is written, if it has a control
 * character: no text from outside becomes a second command. */
bool session_say(struct dsess *s);
/* Seconds from now; a probe is not that patient. */
void session_deadline(struct dsess *s, int64_t seconds);

/* -- host.c -- */
/* The host in use. */
const struct target *session_target(const struct dsess *s);
/* Does the relay record say how to talk to the host in use?  Not to smtp_fallback_relay. */
bool session_uses_record(const struct dsess *s);
/* Is the host spoken to in LMTP (RFC 2033)? */
bool session_is_lmtp(const struct dsess *s);
/* "smtp" or "lmtp": the program that has its name in the log. */
const char *session_program(const struct dsess *s);
/* Is the host spoken to in TLS from the first byte? */
bool session_wrapped(const struct dsess *s);
/* Did the reply in s->reply come, or begin to, before all that was said had left?  Then it is not
 * about the last command. */
bool session_reply_is_early(const struct dsess *s);
/* Were there as many sessions with hosts of the destination as smtp_mx_session_limit allows?  Only
 * those count that came as far as mail. */
bool session_hop_is_over(const struct dsess *s);
/* Is there a further address or destination to try in this round? */
bool session_more_hosts(const struct dsess *s);
/* Is smtp_fallback_relay to be tried after the hosts that are known? */
bool session_has_fallback(const struct dsess *s);
/* Is the host in use to be spoken to in another way than it offers? */
bool session_has_trait(const struct dsess *s, enum host_trait trait);

/* -- steps.c: what explain and test show; all but watch_ask do nothing unless s->watch is set -- */
/* A step of the stage that ends now, to be filled in; then watch_end_step.  NULL: not watched. */
json_t *watch_step(struct dsess *s, const char *stage, bool ok);
void watch_end_step(struct dsess *s, json_t *o);
void watch_ok(struct dsess *s, const char *stage, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* e says why the stage failed. */
void watch_failed(struct dsess *s, const char *stage, const struct mailerr *e);
/* No host took the mail: says what becomes of it where the last step said something else. */
void watch_verdict(struct dsess *s);
/* Asks tables for the stage; the answer tells what was asked of which table if it is watched. */
void watch_ask(struct dsess *s, const char *spec, const struct keys *keys, lookup_maps_fn fn);
/* May it connect?  True unless a road is only explained. */
bool watch_connects(const struct dsess *s);

/* -- stages: see the table in session.c -- */
/* targets.c */
void targets_begin(struct dsess *s); /* a new round */
void targets_free(struct dsess *s);
enum step dns_begin(struct dsess *s);
/* policy.c */
enum step policy_begin(struct dsess *s);
/* secure.c */
enum step tls_wrapped_begin(struct dsess *s);
enum step tls_begin(struct dsess *s);
enum step tls_up(struct dsess *s); /* the handshake is done */
enum step tls_lost(struct dsess *s, bool timeout);
/* May the mail go in clear to a host that offered TLS and then refused STARTTLS, or broke its
 * handshake?  Not where TLS is required.  With a relay record, if the record has no account.  With
 * main.cf's credentials, smtp_sasl_security_options rule what goes in clear after a refusal, but
 * nothing does after a broken handshake (both as in Postfix). */
bool secure_clear_is_left(const struct dsess *s, bool broken);
void secure_clear(struct deliver *d); /* forgets all contexts */
/* hello.c */
enum step greeting_begin(struct dsess *s);
enum step greeting_reply(struct dsess *s);
enum step ehlo_begin(struct dsess *s);
enum step ehlo_secure_begin(struct dsess *s); /* once more inside TLS, after STARTTLS */
enum step ehlo_reply(struct dsess *s);
enum step starttls_begin(struct dsess *s);
enum step starttls_reply(struct dsess *s);
/* Does smtp_tls_policy_maps have a say about the host in use?  Then asks it. */
bool policy_is_asked(const struct dsess *s);
void policy_ask(struct dsess *s, lookup_maps_fn fn);
/* auth.c */
/* The same of smtp_sasl_password_maps. */
bool credentials_are_asked(const struct dsess *s);
void credentials_ask(struct dsess *s, lookup_maps_fn fn);
enum step credentials_begin(struct dsess *s);
enum step auth_begin(struct dsess *s);
enum step auth_reply(struct dsess *s);
/* Nothing of a login is left, and no answer of its look-up comes any more. */
void auth_cancel(struct dsess *s);
/* mark.c */
/* The same for the same answer, and nothing of it can be learnt from it. */
uint64_t answer_mark(const struct maps_answer *a);
/* again.c */
/* Is it time to ask the tables whether the connection is still as they want it? */
bool again_is_due(const struct dsess *s);
/* Asks them; no transaction is open, and none begins while s->tag is set.  STEP_WAIT. */
enum step again_begin(struct dsess *s);
/* transact.c */
/* Does the next reply answer the content of a message? */
bool transact_content_due(const struct dsess *s);
extern const struct stage transact_stage;

#endif
