/*
 * schedule/tally.h - what became of mail: totals, by relay host, by sender
 *
 * Counted on the scheduler's loop as results come in, and read there (the control socket): no
 * locks.  Everything is bounded: relay hosts beyond HOPS_MAX are counted as one, senders beyond
 * SENDERS_MAX not one by one.  Counters begin at zero when the relay process starts.
 */
#ifndef PH_SCHEDULE_TALLY_H
#define PH_SCHEDULE_TALLY_H

#include "mail/mailerr.h"
#include "util/htab.h"
#include "util/kset.h"

#define HOPS_MAX    20000U
#define SENDERS_MAX 20000U

/* A relay host (list) that the configuration names, or all direct delivery together. */
struct hop {
    char *nexthop;                 /* "": direct */
    char *record;                  /* its relay record's name, or "" */
    uint64_t count[MAIL_STATUSES]; /* recipients, by enum mail_status */
    int64_t ok_us;                 /* when one was last sent */
    int64_t err_us;                /* when the relay host itself, or a mail on it, last failed */
    struct mailerr err;            /* with what; zeroed: never */
    int64_t cert_until;            /* seconds; 0: not known */
    int64_t resting_ms;            /* monotonic: until when no mail is tried there; 0: it is */
    size_t waiting;                /* queued messages that were last tried there */
};

struct sender_count {
    char *sender;
    uint64_t count[MAIL_STATUSES];
};

struct tally {
    uint64_t count[MAIL_STATUSES];
    struct kset hops;
    struct htab senders;
    struct hop *rest; /* where there are too many */
    int64_t since_us; /* of the senders' counts */
};

/* The relay host's entry; it stays for the life of the process. */
struct hop *tally_hop(struct tally *t, struct str nexthop, struct str record);
/* One recipient's result; hop may be NULL (no relay host was tried). */
void tally_result(struct tally *t, struct hop *hop, struct str sender, const struct mailerr *e);
/* Forgets senders once a day. */
void tally_tick(struct tally *t, int64_t now_us);
/* The n busiest senders, or fewer, busiest first; the caller frees the array only. */
const struct sender_count **tally_busiest(const struct tally *t, size_t *n);

#endif
