/*
 * tests/wire/ledger.h - the oracle of the wire simulator: what was promised, what was kept
 *
 * Clients tell the ledger what they handed over and what the product answered; relay hosts tell it
 * what came and what they said; the log, the administrator's orders and the queue listing are told
 * too.  The ledger compares.  It includes no header of src/ and shares no code with it.
 *
 * Every recipient that a client names carries its message's number and its own ("m12r3@…"), so that
 * whatever arrives anywhere can be traced; every reply of a relay host carries a token ("w17"), so
 * that whatever is quoted can be traced too.
 *
 * Everything lives until the scenario ends.  The first fault that the ledger finds is reported by
 * fail; it goes on after that, but what it then says is of no use.
 */
#ifndef PH_TESTS_WIRE_LEDGER_H
#define PH_TESTS_WIRE_LEDGER_H

#include "bytes.h"

#define LEDGER_MAILS  1024
#define LEDGER_RCPTS  16
#define LEDGER_HOSTS  16
#define LEDGER_NOBODY 0xffffU /* no recipient in particular */

/* Where mail of that sender for that recipient may go. */
struct ledger_road {
    uint64_t hosts;  /* bit n: host n */
    bool configured; /* by the administrator: the hosts' own faults never bounce mail */
    /* What the log says when it returns the mail at once because the domain takes none; NULL: the
     * domain is no reason to return it. */
    const char *fault;
    /* Who has to be logged in for it, on host 0 and on the others; "": nobody; NULL: not looked at
     */
    const char *user, *elsewhere;
    const char *before; /* who may also be, as it was before a change; NULL: nobody else */
};

struct ledger_rules {
    void (*fail)(void *arg, const char *text);
    int64_t (*now_ms)(void *arg);
    bool (*faulted)(void *arg); /* has a fault happened that the ledger must allow for? */
    /* As mail may go that was routed at since_ms or later. */
    struct ledger_road (*road)(void *arg, const char *sender, const char *rcpt, int64_t since_ms);
    void *arg;
    const char *origin;  /* myorigin: completes addresses without a domain */
    size_t line_limit;   /* smtp_line_length_limit; 0: lines are never broken */
    int64_t lifetime_ms; /* maximal_queue_lifetime; 0: not looked at */
    int64_t backoff_ms;  /* maximal_backoff_time */
    bool hurries;        /* orders may begin an attempt at any time */
    uint64_t alone;      /* hosts that get one message a connection inside TLS */
    uint64_t strange;    /* hosts with a certificate that is not trusted: they get nothing */
    bool refuses;        /* smtpd_data_restrictions = reject: nothing may be accepted */
    const char *never;   /* a recipient that no client may be told is taken; NULL: none is */
    bool fills;          /* the disk is full for a while */
    bool gaps;           /* a table is out of order for a while */
    bool policed;        /* a policy service is asked about every recipient */
    bool soft;           /* soft_bounce: nothing is refused or returned for good, but for its age */
    bool login_bounces;  /* smtp_sasl_auth_soft_bounce = no: a refused login returns the mail */
};

struct ledger;
struct ledger_mail; /* a message of a client */
struct ledger_conn; /* a connection to a relay host */
struct ledger_take; /* a transaction at a relay host */

struct ledger *ledger_new(const struct ledger_rules *rules);
/* May be changed while the scenario is made. */
struct ledger_rules *ledger_rules(struct ledger *l);
/* From now on an attempt may begin at any time. */
void ledger_hurries(struct ledger *l);
void ledger_fail(struct ledger *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What has to be kept secret, and who may see it; tls: only inside TLS. */
void ledger_secret(struct ledger *l, const char *user, const char *password, uint64_t hosts,
                   bool tls);

/* The user of the last one does not log in without TLS where that is offered, by no mechanism. */
void ledger_secret_wary(struct ledger *l, const char *user);

/* ---- what clients tell ---- */

enum { LEDGER_NEVER = 1, LEDGER_SUCCESS = 2, LEDGER_FAILURE = 4, LEDGER_DELAY = 8 };

/* MAIL is about to be said.  Sender and recipients as they were written between < and >.  envid is
 * decoded, with its length; ret is 'F', 'H' or 0. */
struct ledger_mail *ledger_mail(struct ledger *l, unsigned number, const char *sender,
                                const struct bytes *envid, char ret);
void ledger_mail_refused(struct ledger_mail *m, int code);
/* RCPT is about to be said.  orcpt: "type;decoded" or empty; notify: LEDGER_*, 0: not given. */
void ledger_mail_rcpt(struct ledger_mail *m, unsigned number, const char *addr, unsigned notify,
                      const struct bytes *orcpt);
void ledger_mail_rcpt_answer(struct ledger_mail *m, unsigned number, int code);
/* The content as it went over the wire (data: dots stuffed, with its end; else the chunks), to its
 * last byte: from now on the message may be taken. */
void ledger_mail_content(struct ledger_mail *m, const char *p, size_t n, bool data);
/* The recipient is a name of the product's own that stands for others (aliases(5)): what is made of
 * it is a message of that number, to its members alone, from sender (NULL: that of the message).
 * Reports to that sender come to reports_to (NULL: to the sender).  A list without members is one
 * of which nothing may be made. */
struct ledger_mail *ledger_list(struct ledger_mail *m, unsigned rcpt, unsigned number,
                                const char *sender, const char *reports_to);
void ledger_list_member(struct ledger_mail *list, unsigned number, const char *addr);
/* Reports about the message come to that address. */
void ledger_reports_to(struct ledger_mail *m, const char *addr);
/* The recipient stands for that one, too (virtual(5)): no mail goes to itself. */
void ledger_stands_for(struct ledger_mail *m, unsigned rcpt, unsigned number, const char *addr);
/* What a policy service says of the message; text: the address, or the field.  Told before each of
 * its recipients is taken; last: it is the last one.  LEDGER_REDIRECTS: it is the only one. */
enum ledger_policy {
    LEDGER_PASSES,
    LEDGER_REFUSES,
    LEDGER_HOLDS,
    LEDGER_DISCARDS,
    LEDGER_REDIRECTS,
    LEDGER_COPIES,
    LEDGER_PREPENDS,
    LEDGER_POLICIES
};
void ledger_policy(struct ledger_mail *m, enum ledger_policy says, const char *text, bool last);
/* It says that the message is taken, and goes to nobody: then recipients are not looked at. */
bool ledger_goes_nowhere(const struct ledger_mail *m);
/* Its answer about that recipient has been sent whole. */
void ledger_answered(struct ledger *l, const char *addr);
/* The number of the message that the address is a recipient of; 0: of none. */
unsigned ledger_mail_of(const char *addr);
/* The client leaves by itself, and hears no answer any more. */
void ledger_mail_gone(struct ledger_mail *m);
/* What was said to the content. */
void ledger_mail_answer(struct ledger_mail *m, int code, const char *text);
/* A line that the product sent to a client, without its end. */
void ledger_client_line(struct ledger *l, const char *p, size_t n);

/* ---- what relay hosts tell ---- */

enum ledger_stage {
    STAGE_GREETING,
    STAGE_EHLO,
    STAGE_STARTTLS,
    STAGE_AUTH,
    STAGE_XFORWARD,
    STAGE_MAIL,
    STAGE_RCPT,
    STAGE_DATA,
    STAGE_BODY,
    STAGE_RSET,
    STAGE_QUIT,
    STAGE_OTHER,
    STAGE_COUNT
};

/* How a relay host departed from the protocol, so that replies cannot be told apart any more.
 * CRIME_RSET: it refused RSET or did not answer it, so that nothing confirms what it said to a
 * chunk before.  CRIME_GO: it asked for content (354) in reply to another command than DATA. */
enum ledger_crime {
    CRIME_EXTRA = 1,
    CRIME_FEWER = 2,
    CRIME_GARBAGE = 4,
    CRIME_LOST = 8,
    CRIME_RSET = 16,
    CRIME_GO = 32
};

struct ledger_conn *ledger_conn(struct ledger *l, unsigned host);
void ledger_conn_tls(struct ledger_conn *c);
/* STARTTLS was offered. */
void ledger_conn_offers_tls(struct ledger_conn *c);
/* The host gives no enhanced status codes. */
void ledger_conn_bare(struct ledger_conn *c);
void ledger_conn_crime(struct ledger_conn *c, unsigned crime);
/* A line that the product sent as a command, without its end; crlf: it ended so. */
void ledger_conn_line(struct ledger_conn *c, const char *p, size_t n, bool crlf);
/* A user name and a password have come. */
void ledger_conn_login(struct ledger_conn *c, const char *user, const char *password);
/* That user is logged in; NULL: the host has said so to somebody whose name it has not heard. */
void ledger_conn_user(struct ledger_conn *c, const char *user);
/* A command that is none came from the product. */
void ledger_conn_nonsense(struct ledger_conn *c, const char *line);

struct ledger_envelope {
    uint64_t size; /* SIZE=; has_size */
    bool has_size, utf8, body8;
    bool can8; /* 8BITMIME was offered */
    char ret;  /* 'F', 'H' or 0 */
    bool has_envid;
    struct bytes envid; /* decoded */
};

/* MAIL FROM:<sender>, which had come at at_ms. */
struct ledger_take *ledger_take(struct ledger_conn *c, int64_t at_ms, const char *sender,
                                const struct ledger_envelope *e, bool dsn);
/* RCPT TO:<addr>; its number within the transaction. */
unsigned ledger_take_rcpt(struct ledger_take *t, const char *addr, unsigned notify,
                          const struct bytes *orcpt);
/* Content that has come whole, dots unstuffed. */
void ledger_take_content(struct ledger_take *t, const char *p, size_t n, bool bdat);
/* All of the content had been sent when the product read the first byte of a reply that the host
 * gave before the content had come. */
void ledger_take_left(struct ledger_take *t);
/* The host has said its last word to the content, and takes no more of that: it goes. */
void ledger_take_given_up(struct ledger_take *t);
/* A reply is about to be sent: its token ("w17" is to stand in its text).  take may be NULL; rcpt
 * is what ledger_take_rcpt returned, or LEDGER_NOBODY.  A 2xx at STAGE_BODY after the content has
 * come is a delivery: to all that were taken, or (LMTP) to rcpt. */
unsigned ledger_say(struct ledger_conn *c, enum ledger_stage stage, int code, struct ledger_take *t,
                    unsigned rcpt);

/* A table of the product's has made a reply of that token one with another code. */
void ledger_restated(struct ledger *l, unsigned token, int code);

/* ---- what else happens ---- */

/* The configuration becomes another one now. */
void ledger_reload(struct ledger *l);
/* The clock is set forward by so much, or back. */
void ledger_clock(struct ledger *l, int64_t ms);
/* An orderly stop begins. */
void ledger_stopping(struct ledger *l);
void ledger_log(struct ledger *l, const char *service, const char *text);
/* The product went down without order (or in order) and came again. */
void ledger_down(struct ledger *l, bool orderly);
enum ledger_order { ORDER_HOLD, ORDER_RELEASE, ORDER_DELETE, ORDER_EXPIRE };
/* An order about that message, of which this is a recipient; its number, from 1. */
void ledger_order(struct ledger *l, enum ledger_order o, unsigned number, const char *qid,
                  const char *rcpt);
/* The order of that number was called done: whatever goes down now, it counts. */
void ledger_durable(struct ledger *l, unsigned number);
/* At the end: a message that is still queued, and one recipient of it. */
void ledger_queued(struct ledger *l, const char *qid, const char *sender, const char *rcpt,
                   bool deferred);
void ledger_end(struct ledger *l);
/* The queue ID of the n-th message of those that were accepted, or NULL. */
const char *ledger_qid(const struct ledger *l, unsigned n);
/* How many messages were accepted, deliveries made: for the statistics. */
void ledger_counts(const struct ledger *l, unsigned *accepted, unsigned *delivered,
                   unsigned *bounced);

#endif
