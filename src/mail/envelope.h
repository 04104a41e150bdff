/*
 * mail/envelope.h - everything known of a message but its content
 *
 * Made once by the receiving side, then immutable and shared by reference count; the spool stores
 * its encoded form.  What changes (recipients done, next attempt) is struct progress.
 */
#ifndef PH_MAIL_ENVELOPE_H
#define PH_MAIL_ENVELOPE_H

#include <stdatomic.h>

#include "util/str.h"

#define QID_MAX 24
/* Recipients of an envelope that is believed when it is read back. */
#define ENVELOPE_RCPTS_MAX 1000000U

enum { NOTIFY_NEVER = 1, NOTIFY_SUCCESS = 2, NOTIFY_FAILURE = 4, NOTIFY_DELAY = 8 };

enum {
    ENV_8BIT = 1,           /* content or BODY= says so */
    ENV_SMTPUTF8 = 2,       /* the sender asked for it, or was found to need it */
    ENV_RET_FULL = 4,       /* RET=FULL */
    ENV_RET_HDRS = 8,       /* RET=HDRS */
    ENV_DOTS = 16,          /* some line begins with '.' */
    ENV_LONG_LINES = 32,    /* some line is longer than 998 */
    ENV_LOCAL = 64,         /* made here: sendmail or a report */
    ENV_UTF8_HEADER = 128,  /* a header field is not in ASCII */
    ENV_TLS_OPTIONAL = 256, /* "TLS-Required: no" (RFC 8689): arriving is more than being hidden */
    ENV_HOLD = 512          /* on hold from the beginning, until its progress says something else */
};

struct rcpt {
    struct str addr;  /* internal form */
    struct str orcpt; /* ORCPT as given, decoded: "rfc822;user@host"; may be empty */
    uint32_t notify;  /* NOTIFY_*; 0: not given */
    struct str orig;  /* the address that the client named, where that one stands for this one;
                       * empty: addr itself */
    /* It stands for others of the message: no mail goes to it, and its sender has asked for a
     * report of success. */
    bool expanded;
    /* The sender that its mail is to have, in a message of its own that is still to be made
     * (schedule/forward.c); empty: the envelope's. */
    struct str owner;
};

/* Who brought the message, for a content filter (XFORWARD).  Empty: not known.  All are empty where
 * no filter is to be told. */
struct origin {
    struct str name; /* of the client */
    struct str addr; /* "192.0.2.1", "IPV6:2001:db8::1" */
    struct str port;
    struct str proto; /* "ESMTP" */
    struct str helo;
    struct str ident;  /* the queue ID that the message had there; empty: it has its own */
    struct str source; /* "LOCAL" or "REMOTE"; empty: nothing is known at all */
};

struct envelope {
    atomic_uint refs;
    uint64_t id;        /* unique for ever: microseconds since 1970 */
    char qid[QID_MAX];  /* queue ID */
    int64_t arrival_us; /* when MAIL was accepted */
    uint64_t size;      /* bytes of content */
    uint32_t flags;     /* ENV_* */
    struct str sender;  /* internal form; empty: null sender */
    struct str envid;   /* ENVID, decoded */
    struct str client;  /* "host[addr]" for the reports and the page */
    struct str sasl_user;
    struct str filter;    /* "transport:destination" that it goes to instead of where its recipients
                           * are (content_filter); empty: none */
    struct origin origin; /* where filter is not empty, or the client has said it (XFORWARD) */
    struct rcpt *rcpts;   /* with all texts in the same piece of memory */
    uint32_t n_rcpts;
    size_t held; /* bytes of that piece of memory, which held.h counts */
};

/* Sequence of unique ids and queue IDs; any thread. */
void qid_next(bool long_ids, uint64_t *id, char qid[QID_MAX]);
/* Appends the Message-ID of a message that came without one, or that is made here: as Postfix has
 * it, with date and time before the queue ID, which may come again after some days. */
void qid_message_id(struct sbuf *out, const char *qid, int64_t arrival_us, const char *host);
/* id is in use: those to come are greater, whatever the clock says. */
void qid_after(uint64_t id);
/* Can it be a queue ID, of Posthouse or of Postfix?  It has letters, digits and '_' alone. */
bool qid_ok(struct str id);
/* The microseconds in a long queue ID; -1: the ID is a short one. */
int qid_long_us(const char *qid);

/* Copies everything that tmpl points to; refs = 1. */
struct envelope *envelope_make(const struct envelope *tmpl);
struct envelope *envelope_ref(struct envelope *e);
void envelope_unref(struct envelope *e);
void envelope_encode(const struct envelope *e, struct sbuf *out);
/* NULL if the bytes are not an envelope. */
struct envelope *envelope_decode(struct str in);

/* What is left to do for a recipient, as the spool keeps it. */
enum rcpt_state {
    RCPT_WAITS = 0,
    RCPT_DONE = 1,
    RCPT_REPORT = 2,   /* delivered; the report of success that its sender asked for is owed */
    RCPT_EXPANDED = 4, /* likewise, of an alias that stands for others */
    RCPT_LISTED = 5    /* likewise, of an alias that has an owner: a mailing list */
};

/* Why recipients wait: what their last attempt ended with.  Views into the record. */
struct rcpt_error {
    struct str dsn;   /* "4.4.1" */
    struct str text;  /* for log and listing */
    struct str mta;   /* the host that said it; empty: none did */
    struct str reply; /* its words, or those that another mail got; empty: none */
    uint32_t cause;   /* enum mail_cause, perhaps of a newer version; 0: unset */
};

/* Mutable state of a queued message, as the spool keeps it. */
struct progress {
    uint8_t *done; /* enum rcpt_state of each recipient; owned */
    uint32_t n;    /* recipients */
    uint32_t attempts;
    int64_t next_us;           /* next attempt, wall clock */
    int64_t last_us;           /* last attempt */
    uint32_t flags;            /* PROGRESS_* */
    struct rcpt_error *errors; /* mostly different ones; owned */
    uint32_t n_errors;
    uint32_t cap_errors; /* of decoded progress with steps; else 0 */
    uint32_t *error_of;  /* per recipient: index into errors + 1, 0: none; NULL: all none; owned */
};

enum { PROGRESS_HOLD = 1, PROGRESS_EXPIRE = 2, PROGRESS_WARNED = 4 };

/* What has become of a recipient since the progress was encoded. */
struct progress_step {
    uint32_t rcpt;
    uint8_t state;           /* enum rcpt_state */
    struct rcpt_error error; /* dsn.n 0: none */
};

void progress_encode(const struct progress *p, struct sbuf *out);
/* A step of a message of n recipients.  Encoded progress may have any number of them behind it: for
 * many recipients that is shorter than all of it anew.  The same one twice is as good as once. */
void progress_encode_step(uint32_t n, const struct progress_step *v, size_t n_v, struct sbuf *out);
/* False if malformed or of a newer version: nothing is owned then.  Else the caller ends with
 * progress_free. */
bool progress_decode(struct progress *p, struct str in);
void progress_free(struct progress *p);

#endif
