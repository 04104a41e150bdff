/*
 * mail/mailerr.h - what happened to a mail, or a recipient of it
 *
 * One struct for everything from a refused connection to a 5xx: enhanced status code (RFC 3463),
 * text for log, queue listing and report, the remote's name and its words.
 */
#ifndef PH_MAIL_MAILERR_H
#define PH_MAIL_MAILERR_H

#include "util/str.h"

enum mail_status { MAIL_SENT, MAIL_DEFERRED, MAIL_BOUNCED };

struct mailerr {
    enum mail_status status;
    char dsn[12]; /* "4.4.1" */
    char *text;   /* "connect to relay.server[127.0.0.2]:25: Connection refused"; owned */
    char *mta;    /* remote host name, or NULL; owned */
    char *reply;  /* the remote's reply, "550 5.1.1 no such user", or NULL; owned */
};

void mailerr_set(struct mailerr *e, enum mail_status status, const char *dsn, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The remote's reply and name, for the report. */
void mailerr_remote(struct mailerr *e, const char *mta, struct str reply);
void mailerr_copy(struct mailerr *to, const struct mailerr *from);
void mailerr_free(struct mailerr *e);
const char *mail_status_name(enum mail_status s);
/* The enhanced status code at the start of text ("5.1.1 no such user") if its class fits the reply
 * code, else code's class and ".0.0". */
void dsn_from_reply(char dsn[12], int code, struct str text);

#endif
