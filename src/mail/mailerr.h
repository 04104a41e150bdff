/*
 * mail/mailerr.h - what happened to a mail, or a recipient of it
 *
 * One struct for everything from a refused connection to a 5xx: enhanced status code (RFC 3463),
 * text for log, queue listing and report, the remote's name and its words, where it happened and
 * what is to blame.  Decisions read status, phase, blame and remote, and never a text.  A zeroed
 * struct says that nothing has happened yet.  One thread at a time; the struct owns its texts.
 */
#ifndef PH_MAIL_MAILERR_H
#define PH_MAIL_MAILERR_H

#include <stdbool.h>

#include "util/str.h"

enum mail_status {
    MAIL_UNSET, /* no result yet: never to be taken for one of the others */
    MAIL_SENT,
    MAIL_DEFERRED,
    MAIL_BOUNCED
};
#define MAIL_STATUSES 4

/* Where on the way to the next hop something happened. */
enum mail_phase {
    PHASE_UNSET,
    PHASE_ROUTE, /* before a delivery session had the mail: tables, transports, the queue */
    PHASE_DNS,
    PHASE_POLICY, /* the TLS level is looked up */
    PHASE_CONNECT,
    PHASE_GREETING,
    PHASE_EHLO,
    PHASE_STARTTLS,
    PHASE_TLS,
    PHASE_CREDENTIALS,
    PHASE_AUTH,
    PHASE_MAIL /* MAIL FROM and everything after it */
};

/* What is at fault, and so what has to rest or to be given up. */
enum mail_blame {
    BLAME_UNSET,
    BLAME_SITE,      /* the destination: other mail will fare no better there */
    BLAME_MESSAGE,   /* this message, or its sender */
    BLAME_RECIPIENT, /* this recipient only */
    BLAME_OURSELVES  /* tables, settings or memory of ours: says nothing of the destination */
};

struct mailerr {
    enum mail_status status;
    enum mail_phase phase;
    enum mail_blame blame;
    bool remote;  /* the peer said it: reply has its words */
    char dsn[12]; /* "4.4.1" */
    char *text;   /* "connect to relay.server[127.0.0.2]:25: Connection refused"; owned */
    char *mta;    /* remote host name, or NULL; owned */
    char *reply;  /* the remote's reply, "550 5.1.1 no such user", or NULL; owned */
};

void mailerr_set(struct mailerr *e, enum mail_status status, const char *dsn, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Where it happened and what is at fault; after mailerr_set, which resets both. */
void mailerr_blame(struct mailerr *e, enum mail_phase phase, enum mail_blame blame);
/* The remote's reply and name, for the report; sets remote. */
void mailerr_remote(struct mailerr *e, const char *mta, struct str reply);
/* soft_bounce: what would end the mail defers it. */
void mailerr_soften(struct mailerr *e);
/* Puts another enhanced status code, of class 2, 4 or 5, and another text in place; all that was
 * said of the peer stays. */
void mailerr_restate(struct mailerr *e, struct str dsn, struct str text);
void mailerr_copy(struct mailerr *to, const struct mailerr *from);
void mailerr_free(struct mailerr *e);
/* "sent", "bounced", "deferred"; what is unset is deferred. */
const char *mail_status_name(enum mail_status s);
/* "connect", "greeting", …; "" if unset. */
const char *mail_phase_name(enum mail_phase phase);
/* How long the enhanced status code ("4.7.28") at the start of s is, or 0. */
size_t dsn_length(struct str s);
/* The enhanced status code at the start of text ("5.1.1 no such user") if its class fits the reply
 * code, else code's class and ".0.0".  True if text has one that fits. */
bool dsn_from_reply(char dsn[12], int code, struct str text);

#endif
