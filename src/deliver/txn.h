/*
 * deliver/txn.h - mail transactions, between txn.c, txn_send.c and transact.c
 *
 * txn.c has the transactions, what they expect and how they end; txn_send.c what is sent;
 * transact.c judges the replies and is the session's last stage.  The session's loop only.
 */
#ifndef PH_DELIVER_TXN_H
#define PH_DELIVER_TXN_H

#include "deliver/session.h"
#include "deliver/verdict.h"
#include "smtp/content.h"

/* What has been sent of a transaction last; SENT_CLIENT and SENT_ORIGIN: the halves of XFORWARD, or
 * they were left out. */
enum txn_sent {
    SENT_NOTHING,
    SENT_CLIENT,
    SENT_ORIGIN,
    SENT_MAIL,
    SENT_DATA,
    SENT_PART,
    SENT_CONTENT,
    SENT_RSET
};

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
    bool refused;   /* MAIL or DATA was: only RSET is left */
    bool begun;     /* content is being sent, or was */
    bool whole;     /* all of the content was written */
    bool empty;     /* a lone dot after 354, because every recipient was refused */
    bool taken;     /* the relay host said 2xx to the whole content; by LMTP: for some recipient */
    uint32_t owed;  /* by LMTP: replies to the content that have not come; else 0 */
    bool answered;  /* any reply to this transaction has come */
    bool data_only; /* content goes by DATA, whatever the host offers: see traits.h */
    bool disputed;  /* the host took what comes behind a refusal: see txn_dispute */
    bool misnamed;  /* some 2xx did not name its own command by its enhanced status code */
    uint64_t off;   /* bytes of content that were read and written */
    uint64_t content_end; /* dsess.out_total behind the content */
    struct content_out out;
};

struct expected {
    enum txn_command command;
    struct txn *t;
    uint32_t rcpt;    /* TXN_RCPT: index into a->res */
    uint64_t out_end; /* dsess.out_total behind the command: no reply comes before that left */
    bool piped;       /* a reply to a command before it was not there yet when it was sent */
};

/* -- txn.c -- */
/* Begins a transaction with the attempt's recipients that have no result.  The attempt is the
 * transaction's until that ends. */
struct txn *txn_new(struct dsess *s, struct attempt *a);
/* A command has been written; t is the transaction that its reply is about, rcpt the recipient as
 * an index into t->a->res, with TXN_RCPT. */
void txn_expect(struct dsess *s, enum txn_command command, struct txn *t, uint32_t rcpt);
/* Transactions on the connection. */
unsigned txn_count(const struct dsess *s);
/* The host is given DATA from now on, unless the trouble was ours. */
void txn_use_data_only(const struct dsess *s);

/* The current reply as the result of the recipient with index i into t->a->res, or of all that the
 * host has taken (up to TXN_MAIL: of all). */
void txn_rcpt_result(struct dsess *s, struct txn *t, uint32_t i, enum txn_command command,
                     enum verdict v);
void txn_all_results(struct dsess *s, struct txn *t, enum txn_command command, enum verdict v);
/* The transaction's recipients have no results any more. */
void txn_forget_results(struct txn *t);
/* Gives e as the result of every recipient that has none, or keeps its own if that says more. */
void txn_fill_untried(struct attempt *a, const struct mailerr *e);
/* The end of an attempt in this session: every recipient has a result, and a->relay and a->tls are
 * set.  uses: as for filter_results. */
void txn_give_back(struct dsess *s, struct attempt *a, unsigned uses);
/* Gives back the waiting attempts that the scheduler has recalled. */
void txn_return_recalled(struct dsess *s);

/* Ends a transaction of which nothing was sent, with e for those without a result. */
void txn_refuse(struct dsess *s, struct txn *t, const struct mailerr *e);
/* All that is to come of replies to t has come: ends it.  What a host that contradicted itself has
 * not taken goes to it once more. */
void txn_answered(struct dsess *s, struct txn *t);
/* Ends one transaction of a connection that is of no more use; s->now says why.  suspect: the host
 * is out of step; to_blame: the loss has to do with this transaction.  An attempt that may be sent
 * again goes into the list again. */
void txn_dropped(struct dsess *s, struct txn *t, bool suspect, bool to_blame, struct dl *again);
/* Ends all transactions of a connection that is of no more use; s->now says why.  A failing host is
 * left for the next one, else the same host is tried again.  A message is never sent again in this
 * attempt once its end was sent. */
enum step txn_drop_all(struct dsess *s, bool suspect, bool failing);
/* The same.  A host that is out of step is failing, and one that has not answered what began on a
 * new connection. */
enum step txn_drop(struct dsess *s, bool suspect);

/* -- txn_send.c -- */
/* Sends what may be sent now, of the transactions that have begun and of new ones. */
enum step txn_pump(struct dsess *s);
/* The same when the host has said nothing: attempts have come, or those that were held may begin.
 */
enum step txn_more(struct dsess *s);
/* All output is in the kernel: more of the content may follow. */
enum step txn_drained(struct dsess *s);
/* 354 has come, or BDAT is due. */
enum step txn_begin_content(struct dsess *s, struct txn *t);
/* 354, but every recipient was refused: an empty message ends it (RFC 2920 section 3.1). */
void txn_send_empty(struct dsess *s, struct txn *t);
/* Does the content go by BDAT?  BDAT is used where it saves a round trip, and where a reply too
 * many would show: the host says that its replies have enhanced status codes.  Anywhere else DATA
 * costs no more, and 354 shows whether the replies of several recipients have shifted, which BDAT
 * cannot. */
bool txn_uses_bdat(const struct dsess *s, const struct txn *t);
/* May this connection carry that attempt?  Never with another sender's login or old settings, nor
 * where other mail has left the host before this one, which would have taken it. */
bool txn_fits(const struct dsess *s, const struct attempt *a);

#endif
