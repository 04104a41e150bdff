/*
 * mail/mailerr.h - what happened to a mail, or a recipient of it
 *
 * One struct for everything from a refused connection to a 5xx: enhanced status code (RFC 3463),
 * text for log, queue listing and report, the remote's name and its words, where it happened and
 * what is to blame.  Decisions read status, phase, blame, cause and remote, and never a text.  A
 * zeroed struct says that nothing has happened yet.  One thread at a time; the struct owns its
 * texts.
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

/* What Posthouse itself found wrong, whatever the text says of it: deliver/advice.c has a sentence
 * for each.  The queue keeps the numbers, so a new cause stands at the end and none changes. */
enum mail_cause {
    CAUSE_UNSET,           /* the remote's reply says what is wrong, or only the text does */
    CAUSE_REFUSED,         /* no connection: refused */
    CAUSE_UNREACHABLE,     /* no connection: no road to the host or its network */
    CAUSE_UNCONNECTED,     /* no connection: any other error */
    CAUSE_TIMEOUT,         /* the peer did not answer in time */
    CAUSE_NO_GREETING,     /* the peer took the connection, and did not greet in time */
    CAUSE_LOST,            /* the peer ended the connection */
    CAUSE_PROTOCOL,        /* a reply that is malformed or does not fit the command */
    CAUSE_NAME_LATER,      /* the name servers gave no answer for a name */
    CAUSE_NAME_UNKNOWN,    /* a name does not exist, or has no address */
    CAUSE_NAME_MALFORMED,  /* the answer of the name servers was malformed */
    CAUSE_NAME_FILTERED,   /* smtp_dns_reply_filter drops every answer for a name */
    CAUSE_NULL_MX,         /* the domain takes no mail (RFC 7505) */
    CAUSE_NO_HOST,         /* no host was found to try */
    CAUSE_LOOP,            /* the next hop is this system */
    CAUSE_TLS_MISSING,     /* TLS is required, and not offered */
    CAUSE_TLS_HANDSHAKE,   /* the TLS handshake failed */
    CAUSE_CERT_UNTRUSTED,  /* the certificate has no trusted authority, or is out of date */
    CAUSE_CERT_NAME,       /* the certificate is for another name */
    CAUSE_CERT_PRINT,      /* the certificate has none of the fingerprints that are set */
    CAUSE_LOGIN_MISSING,   /* a login is set, and the peer offers none */
    CAUSE_LOGIN_UNUSABLE,  /* the peer offers no login that may be used */
    CAUSE_LOGIN_FILTERED,  /* the peer offers only logins that are filtered out */
    CAUSE_LOGIN_UNPROVEN,  /* the peer did not prove that it knows the password */
    CAUSE_LOGIN_DIALOGUE,  /* the peer's part of a login makes no sense */
    CAUSE_LOOKUP,          /* a table, or the key of the relay records, could not be read */
    CAUSE_SETTING,         /* a setting or row is wrong, or missing: the text names it */
    CAUSE_TOO_LARGE,       /* the message is larger than the peer takes */
    CAUSE_NO_SMTPUTF8,     /* the message needs SMTPUTF8, and the peer does not offer it */
    CAUSE_ADDRESS,         /* an address, or its domain, cannot stand in an SMTP command */
    CAUSE_CONTENT,         /* the content could not be read from the queue */
    CAUSE_QUEUE,           /* a new message could not be written to the queue */
    CAUSE_OTHER_MAIL,      /* the host put off other mail of the session */
    CAUSE_FORWARD_LOOP,    /* the message has been at this recipient before, or at many hosts */
    CAUSE_TRANSPORT_SAYS,  /* the text is that of an error, retry or discard transport */
    CAUSE_TRANSPORT_WAITS, /* defer_transports names the transport */
    CAUSE_EXPIRED,         /* the message is too old */
    CAUSE_INTERNAL         /* a part of Posthouse did not do what it is made for */
};
#define MAIL_CAUSES 38

struct mailerr {
    enum mail_status status;
    enum mail_phase phase;
    enum mail_blame blame;
    enum mail_cause cause;
    bool remote;  /* the peer said it: reply has its words */
    char dsn[12]; /* "4.4.1" */
    char *text;   /* "connect to relay.server[127.0.0.2]:25: Connection refused"; owned */
    char *mta;    /* the remote host that gave the reply to this mail, or NULL; owned */
    /* The remote's reply, "550 5.1.1 no such user", or NULL; owned.  Where mta is NULL another mail
     * got it: the destination rests for it. */
    char *reply;
};

void mailerr_set(struct mailerr *e, enum mail_status status, const char *dsn, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Where it happened and what is at fault; after mailerr_set, which resets both. */
void mailerr_blame(struct mailerr *e, enum mail_phase phase, enum mail_blame blame);
/* The mail is not tried because the site rests, for what other mail met there.  e and of differ. */
void mailerr_suspend(struct mailerr *e, const struct mailerr *of);
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
/* "connection refused", "timeout", …: what JSON has of a cause; "" if unset or not known. */
const char *mail_cause_name(enum mail_cause cause);
/* The cause of that name; CAUSE_UNSET if there is none. */
enum mail_cause mail_cause_named(struct str name);
/* The cause that the queue keeps as that number; CAUSE_UNSET for one of a newer version. */
enum mail_cause mail_cause_numbered(uint32_t number);
/* How long the enhanced status code ("4.7.28") at the start of s is, or 0. */
size_t dsn_length(struct str s);
/* The enhanced status code at the start of text ("5.1.1 no such user") if its class fits the reply
 * code, else code's class and ".0.0".  True if text has one that fits. */
bool dsn_from_reply(char dsn[12], int code, struct str text);

#endif
