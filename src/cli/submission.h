/*
 * cli/submission.h - a message on its way from a program to the daemon, for sendmail(1)
 *
 * One thread.  The caller owns everything; submission_free frees what a submission holds.
 */
#ifndef PH_CLI_SUBMISSION_H
#define PH_CLI_SUBMISSION_H

#include "config/config.h"

struct submission_rcpt {
    char *addr;    /* internal form (mail/address.h) */
    char *refused; /* the reply that refused it; NULL: none did */
};

struct submission {
    const struct config *cfg;
    char *from; /* internal form; "": the null sender */
    struct submission_rcpt *rcpts;
    size_t n_rcpts;
    struct sbuf content; /* lines end as the program ended them */
    const char *envid;   /* NULL: none */
    const char *notify;  /* of every recipient, as NOTIFY has it; NULL: none */
    const char *ret;     /* "FULL" or "HDRS"; NULL: none */
    bool is_remote;      /* it comes from another host: its header is not completed (-G) */
};

/* Adds a recipient, in internal form. */
void submission_add(struct submission *s, struct str addr);
/* Hands the message over, to all of its recipients or, where the status says that it failed, to
 * none.  EX_TEMPFAIL_ may also mean that some have it: others were refused, and the sender cannot
 * be told so now.  While the daemon is not there, waits a moment.  Recipients that were refused are
 * named on standard error, and to the sender by mail if others were taken.  Returns an exit status.
 */
int submission_send(struct submission *s);
/* Asks for each recipient whether mail would be taken, and prints the answers; an exit status. */
int submission_verify(struct submission *s);
/* Copies standard input to the daemon and its answers to standard output (sendmail -bs). */
int submission_dialogue(const struct config *cfg);
void submission_free(struct submission *s);

#endif
