/*
 * tests/wire/scripts.h - a row of the tables of named scripts
 *
 * scripts.c makes scenes of the rows; each scripts_*.c has those about one thing.
 */
#ifndef PH_TESTS_WIRE_SCRIPTS_H
#define PH_TESTS_WIRE_SCRIPTS_H

#include "filters.h"
#include "scene.h"

/* Messages of so many recipients each, with little content. */
#define SMALL(n_mails, n_rcpts) .mails = (n_mails), .rcpts = (n_rcpts), .size = 300

/* Mail for one connection, of which the first keeps the host busy: the others wait. */
#define WAITING_MAIL                                                                               \
    .can = PIPE_CAN, .conf = "default_destination_concurrency_limit = 1\n", .mails = 4,            \
    .rcpts = 1, .must_send = 4, .size = 300, .twist = {STAGE_BODY, ACT_SLOW, 50, 0, 1}

#define PLAIN_CAN (CAN_SIZE | CAN_8BITMIME | CAN_DSN | CAN_SMTPUTF8)
#define PIPE_CAN  (PLAIN_CAN | CAN_PIPELINING)
#define CHUNK_CAN (PIPE_CAN | CAN_CHUNKING)
#define LOGIN_CAN (PIPE_CAN | CAN_STARTTLS | CAN_AUTH)

/* How the client goes about it. */
enum {
    SHAPE_BDAT = 1,
    SHAPE_TOGETHER = 2,
    SHAPE_NEXT = 4,
    SHAPE_TLS = 8,
    SHAPE_LOGIN = 16,       /* inside TLS */
    SHAPE_CUTS = 32,        /* many chunks, the last one empty */
    SHAPE_MORE = 64,        /* a second client with another message, a second later */
    SHAPE_MIXED = 128,      /* messages of alpha, beta and gamma in turn */
    SHAPE_REFUSED = 256,    /* smtpd_data_restrictions = reject */
    SHAPE_NOTIFY = 512,     /* NOTIFY=SUCCESS,FAILURE, with ORCPT and ENVID that hold controls */
    SHAPE_FLOOD = 1024,     /* commands without end before it, and no reading */
    SHAPE_ERRORS = 2048,    /* more errors than are borne with, before it */
    SHAPE_STRANGER = 8192,  /* from an address that may not relay */
    SHAPE_CUT = 65536,      /* the last content breaks off */
    SHAPE_SPREAD = 262144,  /* every other recipient is at near.example */
    SHAPE_DOMAINS = 524288, /* each message to another domain of the scene's */
    SHAPE_ACCESS = 131072,  /* a table refuses the second recipient of the first message */
    SHAPE_BEHIND = 32768,   /* commands in clear behind STARTTLS */
    SHAPE_WRONG = 16384,    /* the password of SHAPE_LOGIN is wrong */
    SHAPE_LATE = 4096       /* the handshake comes after the time-out */
};

struct named {
    const char *name;
    enum road_kind road;
    enum login_kind login;
    const char *conf;
    unsigned can;
    unsigned sheds; /* of can, inside TLS */
    struct relay_twist twist, second, third;
    unsigned mails, rcpts;
    unsigned must_send; /* deliveries, without a fault */
    int64_t by_ms;      /* and when; 0: at the end */
    size_t size;
    enum content_text text;
    enum content_head head;
    unsigned shape;
    const char *hello; /* the client's name for itself; NULL: the usual one */
    const char *ptr;   /* its name in the DNS; NULL: none */
    const char *mechs; /* of the hosts; NULL: PLAIN LOGIN */
    int64_t more_ms;   /* when the client of SHAPE_MORE begins; 0: after a second */
    unsigned heals;    /* connections after which host 0 is well; 0: as the twist says */
    bool bare;         /* no enhanced status codes */
    bool split;        /* replies come byte by byte */
    enum scene_event event;
    int64_t event_ms; /* 0: none */
    enum scene_event event2;
    int64_t event2_ms;       /* 0: none */
    enum wire_host_is host1; /* what host 1 is */
    bool cut;                /* power fails when the event, an order, is called done */
    enum client_end end;
    unsigned after;
    int64_t lifetime_s;   /* maximal_queue_lifetime; 0: an hour */
    bool all;             /* the other hosts are as host 0 */
    const char *to;       /* the recipients' domain; NULL: as the road has it */
    unsigned may_send;    /* deliveries at most, without a fault; 0: any number */
    const char *policy;   /* the row of smtp_tls_policy_maps for host 0; NULL: there is no table */
    bool strange;         /* which that host does not fit */
    int64_t late_ms;      /* the end comes so long after the last step, whatever is not answered */
    int64_t disk_ms;      /* what the disk takes for a batch */
    int64_t full_ms;      /* the disk is full from then on, for 100 s; 0: never */
    const char *owners;   /* who may send as s1.0@alpha.example; NULL: nothing says so */
    const char *never;    /* the recipient that no client may be told is taken; NULL: none is */
    const char *fails;    /* the table that is out of order for the first 30 s; NULL: none */
    enum list_shape list; /* the first recipient of each message is one … */
    unsigned members;     /* … of so many; 0: it is none */
    unsigned virtuals;    /* the first recipient stands for so many, as list says; 0: for none */
    bool chief;           /* the sender stands for somebody else, who gets the reports */
    unsigned filters;     /* FILTER_* */
    bool owner;           /* that has an owner */
    bool policed;         /* a policy service is asked, which says … */
    enum ledger_policy says;
    enum policy_twist twisted;
    unsigned twisted_times; /* requests that are answered so; 0: all */
};

struct named_group {
    const struct named *rows;
    unsigned n;
};
extern const struct named_group scripts_receive, scripts_replies, scripts_login, scripts_roads,
    scripts_queue, scripts_lists, scripts_filters, scripts_early, scripts_rights, scripts_kills,
    scripts_boxes, scripts_virtual, scripts_policies, scripts_steps, scripts_scan;

#endif
