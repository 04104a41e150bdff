/*
 * transfer/transfer.h - mail from Postfix's queue into the spool, and from the spool into it
 *
 * Both programs are stopped; one thread; blocks on the disk.  A run that is killed, at any moment,
 * is carried on by the next one, in either direction: no message is lost, and none is there twice.
 * Until then the mark SPOOL_MOVING keeps the daemon from starting, and Postfix does not see the
 * mail that is on its way (pfqueue.h).
 */
#ifndef PH_TRANSFER_TRANSFER_H
#define PH_TRANSFER_TRANSFER_H

#include "transfer/ours.h"
#include "transfer/pfqueue.h"

/* A message of maildrop, complete, whose recipients are as its sender has given them. */
struct transfer_drop {
    const char *qid;
    struct str sender;
    const struct rcpt *rcpts;
    uint32_t n;
};

/* Whom it is for; valid until that returns. */
typedef void (*transfer_rcpts_fn)(void *arg, const struct rcpt *rcpts, uint32_t n);

struct transfer {
    const struct config *cfg; /* Posthouse's */
    struct pfqueue *theirs;   /* open */
    struct ours *ours;        /* open */
    bool keep;                /* import: Postfix's files are kept in its folder PFQUEUE_KEPT */
    /* A message that stays where it is, and why. */
    void (*left_one)(void *arg, const char *name, const char *why);
    void *arg;
    /* Import: what Postfix's cleanup(8) had not done yet to a message of maildrop, copies and
     * aliases.  Calls fn with whom the message is for, or not where they are those that it came
     * with.  Why it cannot be said, or NULL. */
    const char *(*clean)(void *arg, const struct transfer_drop *drop, transfer_rcpts_fn fn,
                         void *fn_arg);
    void *clean_arg;
    bool begun; /* the mark was made */
    /* What came of it. */
    size_t moved; /* messages */
    size_t known; /* of an earlier run: they were there already */
    size_t left;  /* left_one was called for them */
};

/* Where import leaves files that are kept. */
#define PFQUEUE_KEPT "posthouse-taken"

/* Import leaves what the spool has in PFQUEUE_GONE: the caller has transfer_sweep remove it, there
 * or in a later run, with what Postfix has noted about it. */

/* 0, or negative errno with *why, which the caller frees: the run ended half-way; -ENOTEMPTY: mail
 * is left in PFQUEUE_FOLDER. */
int transfer_import(struct transfer *t, char **why);
/* Is there room for all that transfer_import would take?  theirs need not be open.  0, or negative
 * errno; where it is not known to be a matter of room *why is NULL. */
int transfer_import_room(const struct transfer *t, char **why);
int transfer_export(struct transfer *t, char **why);

/* Removes PFQUEUE_GONE; theirs is open.  What does not go is of no use. */
void transfer_sweep(const struct pfqueue *theirs);

#endif
