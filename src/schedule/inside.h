/*
 * schedule/inside.h - inside of the scheduler (its loop's thread only)
 *
 * Who owns what, and who may free it:
 *   - a message (struct msg) is the scheduler's; msg_free ends it, which only msg_finish,
 *     act_delete and the end of a report call, and only when none of its recipients is out
 *     (msg->open == 0) and no operation of the spool is about it (msg->finishing, msg->reading);
 *   - a job is its message's while its recipients are routed, then its destination's queue's, then
 *     its session's; job_free takes it out of wherever it is;
 *   - an attempt is made from a job when a session gets it, and is the session's until it comes
 *     back to dest_result, which frees both;
 *   - a destination lives while a job or a slot needs it (dest->users) and for a while after that;
 *     it is freed by dest_tick only, so that a pointer to it holds within any other call.
 * Whatever calls msg_recipients_back may lose the message: nothing is done with it afterwards.
 */
#ifndef PH_SCHEDULE_INSIDE_H
#define PH_SCHEDULE_INSIDE_H

#include "route/route.h"
#include "schedule/schedule.h"
#include "schedule/tally.h"
#include "util/htab.h"
#include "util/kset.h"

/* What recipients wait for, or ended with: one for all that have the same. */
struct reason {
    size_t users;    /* recipients */
    size_t messages; /* waiting messages, counted between their rounds */
    uint64_t seen;   /* sched->counting when it was last met */
    uint64_t hash;
    struct mailerr err;
};

/* More than enum rcpt_state, for a round that is not over. */
enum {
    RCPT_FAILED = 3, /* to be reported, and then done; in the spool it waits */
    /* An alias: what it stands for is to go on.  Or it is being split off.  In the spool it waits.
     */
    RCPT_FORWARD = 6
};

struct msg_rcpt {
    struct reason *why; /* of its last attempt; NULL: none yet */
    uint8_t state;      /* enum rcpt_state, RCPT_FAILED or RCPT_FORWARD */
};

struct routing {
    struct msg *m;
    uint32_t rcpt;
    struct route_query *query; /* NULL: answered, or not asked */
    struct alias_query *alias; /* likewise */
};

/* Of a message whose record of progress is long: what became of its recipients since the last
 * record, which is shorter than all of it anew. */
struct unsaved {
    size_t whole;  /* bytes of the last record that says all */
    size_t behind; /* bytes of the steps behind it */
    uint32_t n, cap;
    uint32_t *rcpts; /* some perhaps twice */
};

struct msg {
    struct sched *s;
    struct envelope *env;
    struct body *body;  /* NULL: in the spool only */
    uint32_t left;      /* recipients that wait or have failed */
    uint32_t failed;    /* RCPT_FAILED */
    uint32_t reporting; /* a report of success is owed */
    uint32_t attempts;
    int64_t next_us;         /* its next attempt; 0: it has had none */
    int64_t active_us;       /* when its round began */
    int64_t shift_us;        /* by which the clock has jumped since it began: not part of its age */
    uint32_t flags;          /* PROGRESS_* */
    struct unsaved *unsaved; /* NULL: its record is short, or not written yet */
    struct hop *hop;         /* where it was last given to; NULL: nowhere yet */
    enum sched_queue queue;
    size_t heap_at;         /* place in the timer heap + 1; 0: not in it */
    uint32_t open;          /* recipients being routed or in a job */
    uint32_t routing;       /* recipients without a known route yet */
    uint64_t settings;      /* sched->settings when its round began: its routes follow those */
    struct routing *routes; /* per recipient, while routing; else NULL */
    struct dl jobs;         /* struct job: all of this message */
    struct expansion *expansions; /* of recipients that are RCPT_FORWARD, but for the one that is
                                   * with the spool; owned */
    uint32_t forwarding;          /* the recipient of SETTLE_FORWARDED */
    uint8_t forwarded_as;         /* its state then */
    bool reading;                 /* its content is being read for a job */
    bool ended;                   /* the spool knows that nothing is left to do */
    bool deleted;                 /* by the administrator; what is on the wire ends first */
    bool finishing;               /* a report, or a read for one, is with the spool or waits */
    bool fetched;                 /* its size is part of sched->fetched */
    bool no_body;                 /* the content could not be read in this round */
    bool no_split;                /* a list's message could not be queued in this round */
    bool no_report;               /* a report could not be queued in this round */
    bool at_once;                 /* its next round begins at once */
    bool busy;                    /* its recipients are part of sched->busy */
    bool partial;                 /* progress to save: some recipients are done, others are not */
    bool counted;                 /* its reasons know of it */
    bool owed;                    /* an order is noted when the spool is done with the message */
    bool overtaken;               /* a change came while it was routed, or before what its aliases
                                   * stand for went on: it is routed once more */
    bool again;                   /* it is part of sched->n_again */
    struct msg_rcpt rcpts[];
};

/* What makes a destination another one: all of it. */
struct dest_key {
    const char *transport; /* as master.cf writes it */
    struct str nexthop;    /* ASCII case makes no difference */
    struct str record;     /* empty: none */
    bool configured;   /* the administrator's choice, not the recipient's domain: its faults never
                        * bounce mail */
    bool tls_optional; /* of mail with ENV_TLS_OPTIONAL, which may go by sessions of its own */
    bool filter;       /* of mail for its content filter, which has no sender's login */
};

enum job_at {
    JOB_FORMING, /* other recipients of the message are still being routed */
    JOB_QUEUED,  /* at its destination */
    JOB_READING, /* a session is reserved; the content is being read */
    JOB_GIVEN    /* an attempt of it is with the session */
};

/* Some recipients of one message for one destination. */
struct job {
    struct dl link;   /* JOB_FORMING with room: dest->forming; JOB_QUEUED: squeue->jobs; JOB_GIVEN:
                       * sched->given; else in no list */
    struct dl of_msg; /* msg->jobs: those that are JOB_FORMING come first */
    enum job_at at;
    struct msg *m;
    struct dest *d;
    struct squeue *queue;      /* JOB_QUEUED */
    struct slot *slot;         /* JOB_READING, JOB_GIVEN */
    struct attempt *given;     /* JOB_GIVEN: the session's; only its atomic members may be used */
    struct route_check *check; /* JOB_GIVEN: its routes are asked for anew; NULL: they are not */
    uint32_t n, cap;
    uint32_t *idx; /* into msg->rcpts */
};

#define QUANTUM 4096 /* bytes a sender may send in one turn */

/* A sender's jobs at one destination; freed with the last of them. */
struct squeue {
    struct dl link; /* dest->senders */
    struct dest *d;
    char *sender;
    struct dl jobs;
    int64_t deficit; /* bytes that it may still send in this turn */
};

/* Destinations of one kind share what a transport has of sessions. */
enum dest_kind {
    DEST_CHOSEN, /* an administrator's next hop */
    DEST_DIRECT, /* recipients' own exchangers */
    DEST_KINDS
};

/* The sessions of one transport of master.cf, which its process limit counts; kept as long as the
 * process. */
struct transport_load {
    char *name;
    size_t n_slots;                 /* of both kinds */
    size_t n_direct;                /* of n_slots: of DEST_DIRECT */
    struct dl idle[DEST_KINDS];     /* struct slot: those of depth 0, longest idle first */
    struct dl starving[DEST_KINDS]; /* struct dest: has mail, and no session because of a limit */
    enum dest_kind turn;            /* of which kind one has the next session that is free */
};

/* A delivery session as the scheduler sees it. */
struct slot {
    struct dl link;         /* dest->slots */
    struct dl idle;         /* sched->idle_slots while depth is 0 */
    struct dl idle_of_load; /* d->load->idle[d's kind] while depth is 0 */
    struct dest *d;
    struct sched *s;
    void *session;
    unsigned depth;  /* attempts given and not back, and reserved ones */
    char *sender;    /* with sender-dependent authentication: the owner of its login; else NULL */
    int64_t idle_ms; /* since when it has nothing to do */
};

struct dest {
    uint64_t hash; /* of its key, which is made of the next six */
    char *transport;
    char *nexthop;
    char *record; /* "": none */
    bool configured;
    bool tls_optional;
    bool filter;
    struct hop *hop;
    struct dl idle;    /* sched->idle_dests while users is 0 */
    struct dl paced;   /* sched->paced while a rate delay may hold mail back */
    struct dl stirred; /* sched->stirred, or in no list */
    struct transport_load *load;
    struct dl starving; /* load->starving[its kind], or in no list */
    size_t users;       /* jobs and slots */
    struct dl forming;  /* jobs that are being made for it, and have room */
    struct dl senders;  /* struct squeue, in the order of service */
    struct htab by_sender;
    size_t queued;
    struct dl slots;
    unsigned n_slots;
    unsigned n_busy; /* slots that have something to do */
    unsigned depth;  /* of all slots */
    unsigned window; /* sessions allowed now */
    unsigned max_window;
    double failed_cohorts; /* in a row: a failed session is one part of a window's number */
    int64_t dead_until;    /* monotonic ms; 0: alive */
    struct mailerr dead_err;
    int64_t rate_delay_ms;
    int64_t not_before; /* monotonic ms: rate delay */
    int64_t used_ms;    /* when its last user went */
};

struct sched {
    struct loop *loop;
    struct lookup *lookup;
    struct spool *spool;
    struct config *cfg;
    uint64_t settings;  /* how many there have been, with those of tables that were told of */
    int64_t changed_us; /* when they changed last: what they take back is due since then */
    struct sched_ops ops;
    /* How a new message comes in: a report is one, too. */
    void (*add)(struct sched *s, struct envelope *env, struct body *body);
    struct itab msgs;
    struct msg **heap;
    size_t heap_n, heap_cap;
    struct kset dests;
    struct dl idle_dests; /* longest unused first */
    size_t n_idle_dests;
    struct dl idle_slots; /* longest idle first */
    struct dl paced;
    struct dl given;   /* struct job */
    struct dl stirred; /* struct dest: a session that they may use became free */
    struct htab loads; /* transport -> struct transport_load */
    size_t slots_max;  /* sessions that any transport may have at a time */
    struct kset reasons;
    uint64_t counting; /* number of the walk over a message's reasons */
    struct tally tally;
    uv_timer_t tick;
    uv_timer_t more;        /* the rest of what is due */
    int64_t drift_us;       /* wall clock minus monotonic clock */
    int64_t jump_us;        /* by which the clock was set last; 0: never */
    int64_t jump_middle_us; /* a time that it has left out then */
    size_t n_queue[3];
    size_t n_owed;  /* messages that are */
    size_t n_again; /* overtaken messages that are being routed, or all of which is to go on for
                     * aliases then; and jobs with a route check */
    size_t busy;    /* recipients of messages in a round, or whose next one begins at once */
    size_t routing; /* recipients whose routes are asked for */
    int64_t routing_credit; /* … of what may be due all the same, however many there are */
    bool due_waits;         /* something that is due waits until there are fewer */
    struct dl waits;        /* struct sched_wait: until none is */
    uint64_t fetched;       /* bytes of content that were read, or are being read, by msg_fetch */
    struct dl fetches;      /* struct fetch_op: the content has no room in memory yet */
    size_t steps_from;      /* bytes from which on a record of progress is long */
    bool stopping;          /* nothing more is given to sessions */
    bool halted;            /* nor while the disk does not take down what became of mail */
};

/* What of a round that is not over counts as done in the record. */
enum settle {
    SETTLE_NOTHING,
    SETTLE_FAILED,
    SETTLE_REPORTED,
    SETTLE_EXPANDED,
    SETTLE_LISTED,
    SETTLE_FORWARDED, /* msg->forwarding */
    SETTLE_SPLIT,     /* what is RCPT_FORWARD */
    SETTLE_WARNED
};

#endif
