/*
 * report/dsn.h - delivery status notifications (RFC 3464), in Postfix's words
 *
 * Builds the content of a report; who sends it and how it is stored is the scheduler's business.
 * Any thread.
 */
#ifndef PH_REPORT_DSN_H
#define PH_REPORT_DSN_H

#include "config/config.h"
#include "mail/envelope.h"
#include "mail/mailerr.h"

enum dsn_kind {
    DSN_FAILED,
    DSN_DELAYED,
    DSN_RELAYED,  /* to another system */
    DSN_EXPANDED, /* an alias, to what it stands for */
    DSN_LISTED    /* the same of a mailing list, which has taken it (RFC 3461 section 5.2.7.3) */
};

struct dsn_rcpt {
    const struct rcpt *rcpt;
    const struct mailerr *err;
};

struct dsn {
    enum dsn_kind kind;
    const struct config *cfg;
    const struct envelope *env; /* of the message reported on */
    const struct dsn_rcpt *rcpts;
    size_t n;
    struct str original; /* its content, or as much as is there */
    bool original_whole; /* original is all of it */
    int64_t expires_us;  /* DSN_DELAYED: when it will be given up */
};

/* The report's envelope (one reference) and content. */
struct envelope *dsn_build(const struct dsn *d, struct sbuf *content);
/* "sender non-delivery notification", … for the log. */
const char *dsn_log_name(enum dsn_kind k);

#endif
