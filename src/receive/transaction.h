/*
 * receive/transaction.h - one mail transaction of a session: MAIL, RCPT, what is known of them
 *
 * The loop's thread.  The session has it from MAIL to transaction_end, which forgets everything,
 * cancels what was asked and ends the intake too: nothing of one transaction reaches the next.
 */
#ifndef PH_RECEIVE_TRANSACTION_H
#define PH_RECEIVE_TRANSACTION_H

#include "clean/clean.h"
#include "mail/envelope.h"
#include "receive/access.h"
#include "receive/session.h"
#include "route/alias.h"
#include "util/kset.h"

struct rcpt_in {
    size_t addr_at, addr_n;   /* into transaction->texts */
    size_t said_n;            /* of its bytes, those that the client said: the rest completes it */
    size_t orcpt_at, orcpt_n; /* likewise; orcpt_n 0: none was given */
    uint32_t notify;          /* NOTIFY_*; 0: not given */
    enum route_class address_class; /* where it goes; of one that is taken, unknown */
    enum match_rc aliased;          /* does virtual(5) have it? */
    bool taken;                     /* whatever the restrictions say */
    uint64_t key;                   /* a hash of address, notify and orcpt, without case */
};

struct transaction {
    struct sbuf texts; /* the sender, then recipients with their ORCPTs */
    size_t sender_n;   /* bytes of texts that are the sender */
    size_t said_n;     /* of them, those that the client said: the rest completes it */
    struct sbuf envid; /* empty: none was given */
    struct sbuf auth;  /* AUTH= of MAIL, as it came; empty: none was given, or <> */
    uint32_t flags;    /* ENV_* that MAIL asks for */
    struct rcpt_in *rcpts;
    size_t n_rcpts, cap_rcpts;
    struct kset named;      /* recipients by key: the number in rcpts, from 1 */
    size_t counted_mem;     /* bytes, of the budget of all transactions */
    bool loses_original;    /* two recipients of one address are one (enable_original_recipient) */
    size_t n_repeated;      /* recipients that were named again */
    int64_t n_beyond;       /* refused because there were too many */
    struct rcpt_in pending; /* the recipient that is being decided about */
    struct route_query *route;     /* the question where it goes, or NULL */
    struct alias_query *alias;     /* the question what it stands for, or NULL */
    struct virtual_query *aliases; /* likewise, by virtual(5): of the pending one */
    struct clean_query *clean;     /* the question who gets the message, or NULL */
    struct rcpt asked;             /* the pending recipient, while aliases is about it */
    struct rcpt *out;              /* what transaction_rcpts has made */
    bool is_local;                 /* a local transport delivers it */
    bool served;                   /* its transport is one that Posthouse has */
    bool is_alias;                 /* not served: it is an alias that cannot be carried out */
    struct unlisted unlisted;      /* the pending recipient */
    struct unlisted first;         /* the first one of rcpts */
    struct access_run *access;     /* the question whether it may, or NULL */
    char instance[64];             /* its name for policy services */
    uint64_t said_size;            /* SIZE= of MAIL; 0: none was said */
    struct access_acts acts;       /* what rows and policy services have asked for */
    uint64_t id;                   /* of the queue file; 0: no recipient yet */
    char qid[QID_MAX];             /* "": likewise */
    int64_t arrival_us;            /* of MAIL, since 1970 */
    uint64_t chunk_n;              /* bytes of the first BDAT, while access decides about it */
    bool chunk_last;               /* that was BDAT … LAST */
    bool expected;                 /* the spool was told that a message is on its way */
    bool local_headers;            /* header addresses are completed: see rewrite.h */
    bool local_unknown;            /* whether they are could not be found out */
    struct str rewrite_rest;       /* words of local_header_rewrite_clients that are left */
    uint32_t rewrite_asked;        /* the question about one; 0: none is open */
    enum cmd (*rewrite_then)(struct session *s);
    bool is_remote; /* sendmail says that another host wrote the message (-G) */
};

/* Recipients as an envelope has them. */
struct rcpts {
    struct rcpt *v;
    uint32_t n;
};

/* The recipients, and who gets a copy because a row or a policy service says so; they last as long
 * as the transaction. */
struct rcpts transaction_rcpts(struct transaction *tx);
enum cmd transaction_mail(struct session *s, struct str args);
enum cmd transaction_rcpt(struct session *s, struct str args);
/* Ends it, and the intake; safe if there is none. */
void transaction_end(struct session *s);
/* The same, and what XFORWARD has said of the next message is forgotten. */
void transaction_reset(struct session *s);
struct str transaction_sender(const struct transaction *tx);
struct str transaction_rcpt_addr(const struct transaction *tx, const struct rcpt_in *r);
/* What access asks about a recipient (NULL: about none), and what a log line says of it.  There may
 * be no transaction. */
struct access_facts transaction_facts(const struct session *s, const struct rcpt_in *r);
/* Refuses with text, and logs "NOQUEUE: reject: RCPT from …: text; from=<> to=<> proto=ESMTP"
 * with the rest of access_add_facts. */
void transaction_reject(struct session *s, const char *stage, const char *text);
/* Is no mail taken because of what the envelopes of queued mail take (queue_memory_limit)?  The log
 * says so, once a minute. */
bool transaction_is_crowded_out(struct session *s);
/* Logs that a command or content had a bare LF, with or without a transaction, and appends the
 * reply.  Returns whether that is the session's end. */
bool transaction_bare_newline(struct session *s, const char *stage, struct sbuf *reply);
/* The same with a reply in two parts, as access gives it: 421 and 521 end the session. */
enum cmd transaction_refuse(struct session *s, const char *stage, unsigned code, const char *text);

#endif
