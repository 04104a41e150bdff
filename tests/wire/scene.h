/*
 * tests/wire/scene.h - one scenario of the wire simulator while it is made and while it runs
 *
 * script.c draws scenes by chance, scripts.c has the named ones; scene.c has what both are made of:
 * the roads that mail may take (configuration, tables and names, and what the ledger expects of
 * them), relay hosts, clients and their messages, orders and restarts.
 */
#ifndef PH_TESTS_WIRE_SCENE_H
#define PH_TESTS_WIRE_SCENE_H

#include "client.h"
#include "content.h"
#include "policies.h"
#include "relay.h"

#define SCENE_HOSTS   5
#define SCENE_CLIENTS 12
#define SCENE_MAILS   500

enum road_kind {
    ROAD_SINGLE,    /* relayhost = host 0 */
    ROAD_LIST,      /* relayhost = hosts 0 and 1 */
    ROAD_SENDERS,   /* @alpha.example by host 1, the others by host 0 */
    ROAD_TRANSPORT, /* near.example by host 1, the others by host 0 */
    ROAD_DIRECT,    /* by MX: far.example hosts 0 and 1, near.example host 2, senders host 3 */
    ROAD_BOTH,      /* @alpha.example by way of the name near.example, the others direct */
    ROAD_NOWHERE,   /* @alpha.example by way of none.example, which is no name; the others direct */
    ROAD_FALLBACK,  /* host 0, and host 1 when it fails */
    ROAD_RECORD,    /* a relay record: host 0; host 1 when it fails */
    ROAD_ACCOUNTS, /* records: @alpha.example by host 1, s1.0@beta.example by host 2, else host 0 */
    ROAD_BOXES,    /* far.example by LMTP at host 0, the others by host 1 */
    ROAD_SCAN,     /* what clients give goes to a content filter, host 0; reports by host 1 */
    ROAD_COUNT,
    ROAD_DRAWN = ROAD_BOXES /* by a roll; the others by other ones, so that these stay */
};

enum login_kind {
    LOGIN_NONE,
    LOGIN_HOST,   /* a password for host 0 */
    LOGIN_SENDER, /* @alpha.example and @beta.example have one each, for host 0 */
    LOGIN_LONG,   /* as LOGIN_HOST, with a password of 600 bytes */
    LOGIN_KINDS
};

struct scene {
    struct wire_world *world;
    struct ledger *ledger;
    struct dice dice;
    struct relay_host hosts[SCENE_HOSTS];
    enum road_kind road;
    enum login_kind login;
    struct client *clients[SCENE_CLIENTS];
    unsigned n_clients;
    unsigned n_mails;
    unsigned n_orders;
    bool lists;   /* names of the product's own stand for others: see lists.h */
    bool policed; /* a policy service is asked: see policies.h */
    enum policy_twist policy_twist;
    unsigned policy_times, policy_requests;
    enum ledger_policy policy_says[SCENE_MAILS]; /* by the number of the message */
    bool virtuals;                               /* recipients stand for others: see virtuals.h */
    unsigned filters;                            /* FILTER_*: see filters.h */
    bool cuts_orders;   /* power fails as soon as an order is called done */
    unsigned must_send; /* so many deliveries at least, if there is no fault */
    unsigned may_send;  /* so many at most; 0: any number */
    int64_t ends_ms;    /* the scenario may end, whatever is queued */
    int64_t login_ms;   /* when the login became another one; 0: it has not */
    int64_t moved_ms;   /* when the road became another one; 0: it has not */
};

/* Makes the ledger; the scene's roads and logins become configuration and tables.  limit is
 * smtp_line_length_limit, lifetime_s maximal_queue_lifetime; refuses: no content is accepted. */
struct scene *scene_new(struct wire_world *w, uint64_t seed, enum road_kind road,
                        enum login_kind login, size_t line_limit, int64_t lifetime_s, bool refuses);
/* After the plans of the hosts are set. */
void scene_open(struct scene *s);
/* A message with the next number.  The domain of sender and recipients is as drawn. */
struct client_mail scene_mail(struct scene *s, const char *domain, unsigned rcpts, const char *to);
/* The names of recipients' domains; i counts round. */
const char *scene_domain(unsigned i);
unsigned scene_domains(void);
/* Every other recipient of the message is at near.example. */
void scene_spread(struct client_mail *m);
struct client *scene_client(struct scene *s);
/* The client begins then. */
void scene_begin(struct scene *s, struct client *c, int64_t ms, const char *from, uint16_t port);

enum scene_event {
    EVENT_KILL,
    EVENT_POWER,
    EVENT_STOP,
    EVENT_RELOAD, /* or, if which is odd, a record is saved that changes no mail's road */
    EVENT_CHANGE, /* another setting, one of some that change no mail's road, and a reload */
    EVENT_MOVE,   /* the road is another one: see scene_moves */
    EVENT_CLOCK,  /* the clock is set by a day: forward if which is even, else back */
    EVENT_FLUSH,
    EVENT_RETRY,
    EVENT_DELETE_ALL,
    EVENT_HOLD_ALL,
    EVENT_RELEASE_ALL,
    EVENT_EXPIRE_ALL,
    EVENT_DELETE, /* of one message: the which-th that was accepted */
    EVENT_HOLD,
    EVENT_RELEASE,
    EVENT_EXPIRE,
    EVENT_KINDS,               /* of those that are drawn by chance */
    EVENT_LOGIN = EVENT_KINDS, /* LOGIN_HOST: the row of host 0 has another user and password */
    EVENT_SAVED                /* a record is saved that changes no mail's road */
};
/* Does EVENT_MOVE change the road?  relayhost is host 1 then; @alpha.example or near.example goes
 * by host 2; the record that is everybody's has another account. */
bool scene_moves(const struct scene *s);
void scene_event(struct scene *s, enum scene_event e, int64_t ms, unsigned which);

/* scripts.c: the named scripts */
unsigned scripts_count(void);
const char *scripts_name(unsigned i);
void scripts_setup(struct wire_world *w, unsigned i);

#endif
