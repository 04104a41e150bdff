/*
 * schedule/sched.h - inside of the scheduler (its loop's thread only)
 */
#ifndef PH_SCHEDULE_SCHED_H
#define PH_SCHEDULE_SCHED_H

#include "route/route.h"
#include "schedule/schedule.h"
#include "schedule/tally.h"
#include "util/htab.h"
#include "util/kset.h"

struct job;

/* A recipient that has failed or been relayed in this round: what the report needs. */
struct outcome {
    uint32_t rcpt;
    struct mailerr err;
    bool relayed; /* a success report, not a failure */
};

/* Why messages wait: one text for all that wait for the same. */
struct reason {
    size_t users;
    struct str text; /* ends with '\0' */
};

struct msg {
    struct sched *s;
    struct envelope *env;
    struct body *body; /* NULL: in the spool only */
    uint32_t left;     /* recipients not done */
    uint32_t attempts;
    int64_t next_us;
    int64_t active_us;
    int64_t shift_us;      /* by which the clock has jumped since it came: not part of its age */
    uint32_t flags;        /* PROGRESS_* */
    struct reason *reason; /* NULL: none */
    struct hop *hop;       /* where it was last given to; NULL: nowhere yet */
    enum sched_queue queue;
    size_t heap_at; /* place in the timer heap + 1; 0: not in it */
    uint32_t open;  /* recipients routed or being delivered */
    struct outcome *outcomes;
    size_t n_outcomes;
    struct route_query **queries; /* per recipient, while routing */
    struct dl waiting;            /* jobs that wait for the content to be read */
    bool reading;
    bool deleted;     /* by the administrator, while active */
    bool finishing;   /* a report or a read for it is with the spool */
    bool no_body;     /* the content cannot be read */
    uint32_t routing; /* recipients whose route is not known yet */
    bool partial;     /* progress to note: some recipients are done, others are not */
    uint8_t done[];   /* per recipient */
};

struct dest;

/* Some recipients of one message for one destination. */
struct job {
    struct dl link; /* sender's queue, or msg->waiting */
    struct msg *m;
    struct dest *d;
    struct slot *slot; /* reserved for it */
    uint32_t n, cap;
    uint32_t *idx;
};

/* A sender's jobs at one destination. */
struct squeue {
    struct dl link; /* dest->senders */
    char *sender;
    struct dl jobs;
    int64_t deficit;
};

/* A delivery session as the scheduler sees it. */
struct slot {
    struct dl link; /* dest->slots */
    struct dest *d;
    struct sched *s;
    void *session;
    unsigned depth;  /* attempts given and not back */
    char *sender;    /* with sender-dependent authentication: whose session it is */
    int64_t idle_ms; /* since when it has nothing to do */
};

/* What makes a destination another one: all of it. */
struct dest_key {
    const char *transport; /* as master.cf writes it */
    struct str nexthop;    /* ASCII case makes no difference */
    struct str record;     /* empty: none */
    bool configured; /* the administrator's choice, not the recipient's domain: its faults never
                      * bounce mail */
};

struct dest {
    uint64_t hash; /* of its key, which is made of the next four */
    char *transport;
    char *nexthop;
    char *record; /* "": none */
    bool configured;
    struct hop *hop;
    struct dl senders; /* in the order of service */
    struct htab by_sender;
    size_t queued;
    struct dl slots;
    unsigned n_slots;
    unsigned depth;  /* of all slots */
    unsigned window; /* sessions allowed now */
    unsigned max_window;
    unsigned failures;  /* pseudo-cohorts in a row */
    int64_t dead_until; /* monotonic ms; 0: alive */
    struct mailerr dead_err;
    int64_t rate_delay_ms;
    int64_t not_before; /* monotonic ms: rate delay */
    int64_t used_ms;
};

struct sched {
    struct loop *loop;
    struct lookup *lookup;
    struct spool *spool;
    struct config *cfg;
    struct sched_ops ops;
    struct itab msgs;
    struct msg **heap;
    size_t heap_n, heap_cap;
    struct kset dests;
    struct htab reasons;
    struct tally tally;
    uv_timer_t tick;
    uv_timer_t more;  /* the rest of what is due */
    int64_t drift_us; /* wall clock minus monotonic clock */
    size_t n_queue[3];
};

/* sched.c */
void msg_activate(struct msg *m);
/* Activates what is due, for a few milliseconds; what is left comes after whatever else waits. */
void sched_run_due(struct sched *s);
void msg_set_queue(struct msg *m, enum sched_queue q);
void msg_settle(struct msg *m, uint32_t rcpt); /* done for good */
void msg_outcome(struct msg *m, uint32_t rcpt, const struct mailerr *e, bool relayed);
/* n recipients came back from routing or delivery. */
void msg_closed(struct msg *m, uint32_t n);
void msg_reason(struct msg *m, struct str text);
void msg_set_hop(struct msg *m, struct hop *hop);
/* Why it waits, or otherwise when nothing is known. */
const char *msg_why(const struct msg *m, const char *otherwise);
void msg_free(struct msg *m);
/* Its progress, for the spool. */
void msg_encode(struct msg *m, struct sbuf *out);
void msg_note(struct msg *m);

/* timers.c */
void heap_put(struct sched *s, struct msg *m);
void heap_del(struct sched *s, struct msg *m);

/* dest.c */
struct dest *dest_get(struct sched *s, const struct route *r);
void dest_queue(struct dest *d, struct job *j);
void dest_dispatch(struct sched *s, struct dest *d);
void dest_result(struct sched *s, struct slot *slot, struct attempt *a);
void dest_tick(struct sched *s, int64_t now_ms);
void dest_wake_all(struct sched *s);
void job_ready(struct job *j); /* its content is in memory */
void job_free(struct job *j);
/* The content of a message could not be read: its recipients wait. */
void job_unreadable(struct job *j, int rc);

/* finish.c */
/* All recipients are back: report, settle, defer or remove. */
void msg_finish(struct msg *m);

#endif
