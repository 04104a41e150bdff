/*
 * transfer/queuefile.h - a queue file of Postfix's, read and written
 *
 * A queue file is a row of records: a type, a length, bytes.  Three groups follow each other: the
 * envelope, the content, and what was found in the content's header.  A record may point to another
 * place of the file, where reading goes on.  No sockets, no files, no state but the structs; any
 * thread.
 */
#ifndef PH_TRANSFER_QUEUEFILE_H
#define PH_TRANSFER_QUEUEFILE_H

#include "mail/envelope.h"
#include "spool/body.h"

struct queuefile_rcpt {
    struct rcpt r;         /* addr, orcpt and notify, as the file has them */
    struct str orig;       /* the address as it was given first; empty: not said */
    enum rcpt_state state; /* RCPT_WAITS or RCPT_DONE */
};

/* What a queue file says.  All texts are views into the file's bytes. */
struct queuefile {
    bool has_size;      /* the record that Postfix writes when it has a file whole */
    int64_t arrival_us; /* since 1970; -1: not said */
    bool has_sender;
    struct str sender; /* internal form, as are the recipients; in a file of maildrop as typed */
    struct str envid;
    struct str ident;       /* the queue ID under which it is logged; empty: not said */
    struct str full_name;   /* of the sender, in a file of maildrop; empty: not said */
    struct str client_name; /* of the host that sent it; empty: it was made here */
    struct str client_addr;
    struct str client_port, client_proto, client_helo; /* empty: not said */
    struct str context; /* "local" or "remote": are its header addresses completed? */
    struct str sasl_user;
    struct str filter;            /* transport:destination that it goes to first; empty: none */
    struct str redirect;          /* goes to this address instead of its recipients; empty: no */
    uint32_t flags;               /* ENV_* */
    bool warned;                  /* its sender was told that it waits */
    struct queuefile_rcpt *rcpts; /* owned */
    size_t n_rcpts;
    struct sbuf content; /* owned; lines end with CR LF */
};

/* Reads file.  NULL, or why the file is no message that can be taken over.  queuefile_free in any
 * case. */
const char *queuefile_read(struct queuefile *q, struct str file);
void queuefile_free(struct queuefile *q);
/* The envelope of what was read, without id; qid is shorter than QID_MAX.  The caller's reference.
 */
struct envelope *queuefile_envelope(const struct queuefile *q, const char *qid);

/* What of a queued message is not in its envelope. */
struct queuefile_state {
    const uint8_t *done; /* RCPT_WAITS or RCPT_DONE of each recipient; NULL: all wait */
    bool warned;
};

/* Appends the queue file of a message, and where each recipient's record begins to offsets (of as
 * many members as the envelope has recipients).  False: the content cannot be read. */
bool queuefile_write(struct sbuf *out, const struct envelope *env, const struct queuefile_state *st,
                     const struct body *body, uint64_t *offsets);

#endif
