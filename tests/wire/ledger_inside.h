/*
 * tests/wire/ledger_inside.h - what ledger.c, ledger_log.c and ledger_text.c share
 */
#ifndef PH_TESTS_WIRE_LEDGER_INSIDE_H
#define PH_TESTS_WIRE_LEDGER_INSIDE_H

#include "ledger.h"

enum mail_state {
    MAIL_OPEN,     /* its content has not ended */
    MAIL_ENDED,    /* all of it was sent, no answer yet */
    MAIL_ACCEPTED, /* 250 */
    MAIL_REFUSED
};

struct rcpt_entry {
    unsigned number;
    int code;   /* what RCPT was answered with; 0: not yet */
    char *addr; /* dequoted */
    unsigned notify;
    struct bytes orcpt;
    unsigned delivered;
    struct ledger_conn *last_conn; /* of the last delivery */
    int64_t last_ms;               /* when that was */
    bool last_bdat;                /* by BDAT, which may have gone before RCPT was answered */
    bool sent;                     /* the log says so, of the last delivery */
    int64_t sent_ms;
    const struct ledger_take *early; /* sent by a reply before the content had come whole */
    bool trusted;             /* on the word of a host that leaves out replies: it may be nowhere */
    bool bounced;             /* the log says so */
    bool told;                /* the log says that a report of it is queued */
    int64_t bounced_ms;       /* for the first time */
    bool reported;            /* a report that was delivered says that it failed */
    int64_t reported_ms;      /* since when */
    int64_t tried_ms;         /* when the log last said something of it; 0: never */
    unsigned tries;           /* how often it did */
    bool put_off;             /* a host has put off the recipient itself since then */
    bool queued;              /* at the end */
    struct ledger_mail *list; /* what is made of a name that stands for others; NULL: it is none */
    bool stands;              /* for others, or for nobody: no mail goes to it */
    bool answered;            /* by the policy service */
    bool redirected;          /* by the policy service: it is not expanded */
    bool expanded;            /* a report that was delivered says so */
    int64_t expanded_ms;      /* since when */
    const struct rcpt_entry *stood_for_by; /* whose name was said; NULL: its own */
};

struct ledger_mail {
    struct ledger *l;
    unsigned number;
    char *sender; /* dequoted; "" */
    struct bytes envid;
    char ret;
    enum mail_state state;
    int code;          /* of the answer */
    int64_t begun_ms;  /* when MAIL was about to be sent: the message is at most so old */
    int64_t answer_ms; /* when its content was answered */
    char qid[32];
    struct bytes content;
    bool long_lines;
    struct rcpt_entry rcpts[LEDGER_RCPTS];
    unsigned n_rcpts;
    bool expired, deleted, held, forced;
    int64_t ordered_ms;    /* when one of the last three became true */
    unsigned order;        /* the number of the last order; 0: there was none */
    int64_t durable_ms;    /* when that one was called done; 0: not yet */
    int64_t released_ms;   /* when it was put off hold last */
    int64_t unreadable_ms; /* when an attempt first found its content unreadable; 0: never */
    bool gone;             /* its client has gone by itself, and heard no answer */
    bool untold;           /* the product was stopped in order, and had not answered its content */
    bool warned;           /* a report that was delivered says that it is delayed */
    int64_t warned_ms;
    const struct ledger_take *warned_by;
    struct ledger_mail *parent; /* of which this one is made, of the recipient of; NULL: none */
    struct rcpt_entry *of;
    const char *reports_to; /* where reports to the sender come to; NULL: to the sender */
    bool discarded;         /* by its policy service: it is taken, and goes nowhere */
    bool refused, kept;     /* by its policy service: kept on hold, until it is released */
    char before[40];        /* the field that its policy service puts before it, or "" */
    bool notified;          /* a non-delivery notification is logged */
    int64_t notified_ms;
};

struct ledger_conn {
    struct ledger *l;
    unsigned host;
    bool tls, tls_offered;
    unsigned crime;
    bool bare;       /* its replies have no enhanced status codes */
    bool each;       /* each recipient has a reply of its own to the content (LMTP) */
    unsigned extras; /* replies too many */
    unsigned takes;  /* transactions that have begun */
    int64_t at_ms;   /* when it was made */
    char *user; /* who is logged in; ""; NULL: the host says that somebody is, and has heard no name
                 */
};

struct ledger_take {
    struct ledger_conn *c;
    char *sender;
    struct ledger_envelope e;
    bool dsn;
    int64_t at_ms;
    struct ledger_mail *mail; /* NULL: a report, or unknown */
    struct rcpt_entry *rcpts[LEDGER_RCPTS];
    char *addrs[LEDGER_RCPTS];
    int codes[LEDGER_RCPTS]; /* what was said; 0: nothing yet */
    unsigned n;
    bool whole;
    bool left;     /* all of the content, before the early reply to it was read */
    bool given_up; /* by the host, after its early reply */
    struct bytes content;
    bool bdat;
};

/* A reply of a relay host. */
struct said {
    struct ledger_conn *c;
    enum ledger_stage stage;
    int code;
    struct ledger_take *t;
    unsigned rcpt;
    bool whole;
    int64_t at_ms;
    bool of_all; /* 421, which a filter has restated: it ended the attempt of all recipients */
};

struct report_entry {
    char qid[32];
    struct ledger_mail *about;
    unsigned delivered;
    struct ledger_conn *last_conn;
    int64_t last_ms; /* when it was last delivered */
    bool over;       /* sent, bounced or removed, says the log */
    bool forwarded;  /* another one was made of it */
    bool queued;
};

struct secret_entry {
    char *password;
    char *forms[3]; /* as it is, in base64, in a PLAIN answer */
    uint64_t hosts;
    bool tls;
    const char
        *wary; /* the user, who does not log in without TLS where it is offered; NULL: does */
};

struct ledger {
    struct ledger_rules rules;
    bool failed;
    struct ledger_mail *mails[LEDGER_MAILS];
    unsigned n_mails;
    struct said *said; /* by token */
    unsigned n_said, cap_said;
    struct report_entry *reports;
    unsigned n_reports, cap_reports;
    struct secret_entry secrets[64];
    unsigned n_secrets;
    int64_t stopping_ms;   /* since when an orderly stop goes on; 0: none does */
    int64_t reload_ms[64]; /* when the configuration became another one */
    unsigned n_reloads;
    int64_t forward_ms; /* by which the clock was set forward in all */
    unsigned downs;     /* times that the product went down */
    int64_t down_ms[256];
    unsigned accepted, delivered, bounced;
};

/* ledger_text.c: text, nothing else */

/* The address without quotes, route and final dot, completed; the caller's. */
char *address_plain(const char *text, const char *origin);
/* The numbers in "m12r3@…"; false if there are none. */
bool address_numbers(const char *addr, unsigned *mail, unsigned *rcpt);
/* What receiving makes of the bytes of a client. */
void content_normal(const char *p, size_t n, bool data, struct bytes *out);
/* The letters and digits at p, up to 31. */
void word_at(const char *p, char word[32]);
/* The Received field at the start of what came: its length and its id; 0 if there is none. */
size_t received_field(const char *p, size_t n, char qid[32]);
/* The line of the Received field (of that length) that is not as it ought to be; NULL: none. */
char *received_forged(const char *p, size_t n);
/* Is came (without its Received field) sent, but for header fields that may be added and lines
 * that may be broken?  NULL, or what is wrong. */
const char *content_differs(const struct bytes *sent, const char *came, size_t n, size_t limit,
                            char *where, size_t where_n);
/* A control character that must not stand in a line; -1: none. */
int control_in(const char *p, size_t n);
/* The last token in text, or 0. */
unsigned token_in(const char *p, size_t n);
struct ledger_mail *mail_by_number(struct ledger *l, unsigned number);
struct ledger_mail *mail_by_qid(struct ledger *l, const char *qid);
struct rcpt_entry *mail_rcpt(struct ledger_mail *m, unsigned number);
struct report_entry *report_by_qid(struct ledger *l, const char *qid);
struct report_entry *report_new(struct ledger *l, const char *qid, struct ledger_mail *about);
/* Has the host said so little or so much that its replies cannot be told apart? */
bool cannot_be_told(const struct ledger_conn *c);
/* Did the product go down so soon after ms that what was then done may not have been noted? */
bool forgotten_after(const struct ledger *l, int64_t ms);
/* The road of a recipient, who was routed for the last time when the log said something of it, or
 * the product came up. */
struct ledger_road road_of_rcpt(const struct ledger_mail *m, const struct rcpt_entry *r);
/* Was that connection made with settings that were replaced before the client began the message? */
bool settings_are_old(const struct ledger_conn *c, const struct ledger_mail *m);
/* Did the product go down at ms or later?  What had left by then came some seconds later. */
bool ledger_down_since(const struct ledger *l, int64_t ms);
void secrets_look(struct ledger *l, const char *where, const char *p, size_t n);
/* ledger_log.c: a report to that sender, of which nothing was heard before the product went down.
 */
void report_of_old(struct ledger *l, const char *to);
/* ledger_log.c: was that said of this recipient, in a way that ends it? */
bool said_permits_bounce(const struct said *s, const struct ledger_mail *m,
                         const struct rcpt_entry *r);
/* Is it about this message?  A refused MAIL names its sender only. */
bool said_is_about(const struct said *s, const struct ledger_mail *m);
/* ledger_list.c: what is made of a list is there. */
/* -- ledger_changes.c -- */

/* Others are answered with the recipient. */
void changes_answer(struct ledger_mail *m, const struct rcpt_entry *r);
/* The recipient may have been taken: by right? */
void changes_taken(const struct ledger_mail *m, const struct rcpt_entry *r);
/* Bytes of the fields that a policy service has put before the message. */
size_t changes_head(const struct ledger_mail *m, const char *p, size_t n);
/* Something has happened to the recipient that no mail goes to. */
void changes_expanded(struct ledger_mail *m, struct rcpt_entry *r);
void changes_end(const struct ledger_mail *m, const struct rcpt_entry *r);
void changes_check(const struct ledger_mail *m, const struct rcpt_entry *r, const char *what);

/* -- ledger_list.c -- */

unsigned notify_of_members(unsigned notify);
void list_seen(struct ledger_mail *m);
/* May the report have gone on under another queue ID, and the log not say so, for the product went
 * down? */
bool list_has_report(const struct ledger *l, const struct report_entry *r);
/* "forwarded as QID" in what the log says of a recipient; false: it does not say so. */
bool list_forwarded(const char *said, char qid[32]);
/* The log says that the list has been sent: made is the queue ID of what was made of it. */
void list_sent(const struct ledger_mail *m, struct rcpt_entry *r, const char *said);
/* The log says that the list waits. */
void list_waits(const struct ledger_mail *m, const struct rcpt_entry *r, const char *said);
/* May the list be returned for that? */
bool list_may_bounce(const struct ledger_mail *m, const char *said);
/* How many bytes the product put before the content of m: its Received fields, and of each list
 * that the message came through a Delivered-To field.  0: what is there is not that. */
size_t list_head(struct ledger_mail *m, const char *p, size_t n);
/* ledger_report.c: a report that a relay host took. */
void report_taken(struct ledger_take *t, const char *qid);
bool report_is_due(const struct ledger_mail *m, const struct rcpt_entry *r);

#endif
