/*
 * receive/access.h - may this client send that mail?  smtpd_*_restrictions (postconf(5))
 *
 * The loop's thread.  A run is the access code's own; the caller has its handle until the answer
 * has come or until it cancels the run.
 */
#ifndef PH_RECEIVE_ACCESS_H
#define PH_RECEIVE_ACCESS_H

#include <openssl/ssl.h>

#include "config/config.h"
#include "mail/mailerr.h"
#include "maps/query.h"
#include "receive/client.h"
#include "receive/clientcert.h"
#include "route/route.h"

enum verdict { VERDICT_UNSET, VERDICT_ALLOW, VERDICT_REJECT };

enum access_stage {
    ACCESS_RCPT, /* smtpd_client_, helo_, sender_, relay_ and recipient_restrictions, in this order
                  */
    ACCESS_DATA, /* smtpd_data_restrictions */
    ACCESS_END   /* smtpd_end_of_data_restrictions */
};

/* A recipient that there is not: its transport says error: or retry:. */
struct unlisted {
    struct mailerr why; /* unset: nothing says so */
    bool coded;         /* with an enhanced status code of its own */
};

/* What rows of access tables and policy services have asked for, beyond yes and no (access(5)).  It
 * holds for the message with all its recipients, as with Postfix, also where the recipient that the
 * row was met by was refused in the end. */
struct access_acts {
    bool hold;    /* it goes on hold */
    bool discard; /* it is taken, and goes nowhere */
    struct sbuf
        redirect;       /* the address that it goes to instead, in its internal form; empty: none */
    struct sbuf filter; /* "transport:destination" that it goes to first; empty: content_filter */
    struct sbuf copies; /* addresses that get a copy, likewise, a line each */
    uint32_t n_copies;  /* lines of copies */
    struct sbuf prepend; /* lines that go before it */
};

/* Is that a restriction that Posthouse has? */
bool access_has_word(struct str name);
/* Calls fn with where each policy service of the service's lists is: "unix:path", "inet:host:port",
 * or "host:port". */
void access_each_policy(const struct service *svc, void (*fn)(void *arg, struct str where),
                        void *arg);

void access_acts_free(struct access_acts *acts);

/* What is known of the client and its mail.  Everything stays as it is until the answer. */
struct access_facts {
    struct loop *loop;
    struct lookup *lookup;
    const struct config *cfg;
    const struct params *p; /* of the service */
    const struct client *client;
    const char *helo;                    /* NULL: it has not said any */
    bool esmtp;                          /* that was EHLO */
    const char *sasl_user, *sasl_method; /* NULL: not logged in */
    struct str sasl_sender;              /* AUTH= of MAIL, as it came; empty: none, or <> */
    const char *qid; /* "": the transaction has none yet; NULL: there is no transaction */
    bool encrypted;
    const struct clientcert *cert; /* that the client has shown; NULL: none */
    struct str sender;
    struct str rcpt; /* the one to decide about; at ACCESS_DATA the only one, or empty */
    /* Both as the client said them, without the domain that they are completed with. */
    struct str sender_said, rcpt_said;
    size_t n_rcpts;                  /* accepted so far */
    enum route_class address_class;  /* of rcpt */
    struct policies *policies;       /* of the loop */
    int fd;                          /* of the connection */
    SSL *ssl;                        /* NULL: no TLS */
    const char *instance;            /* of the transaction; NULL: there is none */
    uint64_t size;                   /* of the message, as far as it is known */
    struct access_acts *acts;        /* of the transaction; NULL: there is none */
    enum match_rc aliased;           /* does virtual(5) have rcpt? */
    const struct unlisted *unlisted; /* rcpt; NULL: nothing says that there is none */
};

struct access_run;

/* Of VERDICT_REJECT: the reply to the client, its code and what follows ("5.7.1 <a@x>: …"), which
 * is valid until fn returns. */
typedef void (*access_fn)(void *arg, enum verdict v, unsigned code, const char *text);

/* Evaluates the lists of a stage.  fn is called once, from the loop, never before this returns; the
 * run is then over. */
struct access_run *access_begin(const struct access_facts *f, enum access_stage stage, access_fn fn,
                                void *arg);
/* fn is not called any more.  Safe with NULL. */
void access_cancel(struct access_run *a);

/* Appends what a log line about a refusal begins with: "NOQUEUE: reject: RCPT from a[b]: ", what
 * being "reject". */
void access_add_head(const struct access_facts *f, const char *what, const char *stage,
                     struct sbuf *b);
/* Appends what it ends with: " from=<a@x> to=<b@y> proto=ESMTP helo=<c>"
 * and, as Postfix 3.10 has it, " sasl_method=PLAIN sasl_username=a" of a client that has logged in,
 * and " sasl_sender=b". */
void access_add_facts(const struct access_facts *f, struct sbuf *b);
/* The first word of a value of access(5) that Posthouse cannot do what it says of; n 0: none. */
struct str access_action_unknown(struct str value);
/* The code of a reply that was configured; where it is none of a refusal, 450, and text (what
 * stands behind it) says so instead. */
unsigned access_checked_code(int64_t code, struct sbuf *text);

/* Mistakes in the lists of a service, among them an open relay. */
void access_check(const struct config *cfg, const struct service *svc, enum diag_level waits,
                  struct diags *d);

#endif
