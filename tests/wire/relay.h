/*
 * tests/wire/relay.h - relay hosts of the wire simulator
 *
 * A relay host is a correct server of SMTP, or of LMTP (RFC 2033), with a parser of its own, but
 * for up to RELAY_TWISTS places where it departs from that: another reply, one too many, none,
 * garbage, silence, a close.  What comes and what is said goes to the ledger.
 */
#ifndef PH_TESTS_WIRE_RELAY_H
#define PH_TESTS_WIRE_RELAY_H

#include "ledger.h"
#include "wire.h"

#define RELAY_TWISTS 4
#define RELAY_LATE_S 100

enum relay_can {
    CAN_PIPELINING = 1,
    CAN_CHUNKING = 2,
    CAN_DSN = 4,
    CAN_SIZE = 8,
    CAN_8BITMIME = 16,
    CAN_SMTPUTF8 = 32,
    CAN_STARTTLS = 64,
    CAN_AUTH = 128,
    CAN_ALL = 255,
    CAN_XFORWARD = 256 /* a content filter */
};

enum relay_act {
    ACT_NORMAL,
    ACT_CODE,       /* this code instead */
    ACT_CODE_CLOSE, /* this code, then close */
    ACT_CODE_ON,    /* MAIL, RCPT: this code, and on as if it had been the right one */
    ACT_EXTRA,      /* the right reply, then one more with this code (0: garbage) */
    ACT_NONE,       /* no reply, and on with the next command */
    ACT_SILENT,     /* nothing any more */
    ACT_CLOSE,
    ACT_RESET,
    ACT_CLOSE_AFTER, /* the right reply, then close */
    ACT_RESET_AFTER,
    ACT_GARBAGE, /* a line that is no reply */
    ACT_MULTI,   /* the right reply in many lines */
    ACT_MIXED,   /* in lines of different codes */
    ACT_ENDLESS, /* a reply without an end */
    ACT_ECHO,    /* this code, with what was sent */
    ACT_EARLY,   /* DATA: 354 and the final reply with this code together; BDAT: before the chunk */
    ACT_MIDDLE,  /* within the content: this code (0: none), then close */
    ACT_STALL,   /* within the content: not read any more */
    ACT_SLOW,    /* after `code` seconds */
    ACT_LATER,   /* this code, after RELAY_LATE_S */
    ACT_COUNT
};

struct relay_twist {
    enum ledger_stage stage;
    enum relay_act act;
    int code;
    unsigned nth;   /* at the n-th time of a connection that this stage comes (0: the first) */
    unsigned times; /* so often in a row; 0: always */
    unsigned conn;  /* at the host's connection of that number only, from 1; 0: at each */
};

struct relay_plan {
    enum wire_host_is is; /* WIRE_LISTENS, or there is none */
    unsigned can;         /* enum relay_can */
    uint64_t size;        /* SIZE=; 0: without a limit */
    const char *mechs;    /* "PLAIN LOGIN" */
    unsigned sheds;       /* of these, what is not offered inside TLS any more */
    bool tls_auth;        /* AUTH is offered inside TLS only */
    bool wrapped;         /* TLS from the first byte */
    bool split;           /* replies come byte by byte */
    bool lines;           /* replies have several lines */
    bool bare;            /* replies have no enhanced status codes */
    unsigned heals;       /* after so many connections it is a correct server; 0: never */
    struct relay_twist twists[RELAY_TWISTS];
    unsigned n_twists;
};

/* Answers at an address; all connections share it. */
struct relay_host {
    struct wire_world *world;
    struct ledger *ledger;
    unsigned number; /* of the ledger's hosts */
    struct relay_plan plan;
    bool lmtp; /* a mailbox server */
    unsigned conns;
};

/* For wire_host: a peer for a connection to the struct relay_host that arg is. */
struct wire_peer *relay_peer_new(void *arg, const struct netaddr *to);

#endif
