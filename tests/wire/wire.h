/*
 * tests/wire/wire.h - a simulated world for the relay: what clients, relay hosts and the ledger see
 *
 * One scenario is one struct wire_world: the product (receive, spool, schedule, route, deliver,
 * report) on simulated sockets, clock, look-ups and disk, in one thread, deterministic from a seed.
 * The world is made by world.c and freed as a whole when the scenario ends: what peers allocate
 * with malloc during a scenario goes with it and need not be freed.  Peers keep no static variables
 * that change.  All times are simulated: a scenario of five days takes no time.
 *
 * A scenario: script_setup() fills the world, the world starts the product, then events happen one
 * after the other until nothing is left to happen; then script_check() says whether all is well.
 */
#ifndef PH_TESTS_WIRE_H
#define PH_TESTS_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/net.h"

struct wire_world;
struct wire_end; /* a peer's end of one simulated TCP stream; valid until the scenario ends */

/* ---- chance: the same numbers for the same seed ---- */

struct wire_rng {
    uint64_t state;
};
/* 0 … below - 1; 0 if below is 0. */
uint64_t wire_rnd(struct wire_rng *r, uint64_t below);
void wire_rng_seed(struct wire_rng *r, uint64_t seed);

/* ---- peers: clients and relay hosts ---- */

struct wire_peer {
    const struct wire_peer_ops *ops;
};

/* Each may be NULL.  A peer that has closed or reset its end is not called any more. */
struct wire_peer_ops {
    /* The stream is there: a relay host speaks first, a client listens.  Always the first call. */
    void (*opened)(struct wire_peer *p, struct wire_end *e);
    /* Bytes of the product, decrypted if TLS is on; all that have arrived, at least one. */
    void (*input)(struct wire_peer *p, const char *bytes, size_t n);
    /* The product has closed its end; the peer may still close. */
    void (*eof)(struct wire_peer *p);
    /* The stream is broken (reset by the product, by a fault, or the product was killed), or,
     * before opened, the product did not take the connection. */
    void (*reset)(struct wire_peer *p);
    /* The time asked for with wire_after has passed. */
    void (*timer)(struct wire_peer *p);
    /* The handshake of wire_tls is over. */
    void (*tls_up)(struct wire_peer *p, bool ok);
};

/* Queues bytes for the product (encrypted if TLS is on); they arrive in pieces as chance has it,
 * the cuts of two calls not respected.  No effect on an end that is over. */
void wire_send(struct wire_end *e, const void *p, size_t n);
/* Closes in order, after what was sent; nothing is read any more. */
void wire_close(struct wire_end *e);
/* Sends no more, in order, but goes on reading. */
void wire_shut(struct wire_end *e);
/* Breaks the stream: what is on its way is lost. */
void wire_reset(struct wire_end *e);
/* Calls timer() once, ms from now; a new call replaces the last; 0 takes it back. */
void wire_after(struct wire_end *e, int64_t ms);
/* Begins a TLS handshake on the stream, as server or as client; what is sent before tls_up waits.
 */
void wire_tls(struct wire_end *e, bool server);
/* What the peer sends from now on arrives one byte at a time. */
void wire_split(struct wire_end *e);
/* The peer stops (or resumes) reading: the product's output is stuck once the window is full. */
void wire_stall(struct wire_end *e, bool on);
/* Calls fn(arg, p, n) once, when the product reads the first byte behind the next skip bytes that
 * the peer sends: p are the bytes that the product has sent by then and the peer has not had now,
 * as they are on the wire. */
typedef void wire_read_fn(void *arg, const char *p, size_t n);
void wire_when_read(struct wire_end *e, size_t skip, wire_read_fn *fn, void *arg);
bool wire_is_open(const struct wire_end *e);
struct wire_world *wire_world_of(const struct wire_end *e);

/* A client connects from its address (any IP address as text) to the product's service on that
 * port. opened() or reset() comes later. */
struct wire_end *wire_client_connect(struct wire_world *w, struct wire_peer *client,
                                     const char *from, uint16_t port);

enum wire_host_is {
    WIRE_LISTENS, /* relay_new makes a peer for each connection */
    WIRE_REFUSES, /* connection refused */
    WIRE_SILENT,  /* no answer: the product's time-out */
    WIRE_UNREACHABLE
};
/* The disk takes at least so long for each batch of the spool. */
void wire_slow_disk(struct wire_world *w, int64_t ms);
/* No new segment has room on the disk in that time; what was preallocated has. */
void wire_full_disk(struct wire_world *w, int64_t from_ms, int64_t until_ms);
/* Every question to the table of that name, which lives as long as the scenario, ends in an error
 * until then. */
void wire_table_fails(struct wire_world *w, const char *table, int64_t until_ms);

/* What is at that address and port; may be changed later.  Addresses that were never named refuse.
 * relay_new may return NULL: refused. */
void wire_host(struct wire_world *w, const char *addr, uint16_t port, enum wire_host_is is,
               struct wire_peer *(*relay_new)(void *arg, const struct netaddr *to), void *arg);

/* ---- what the product is told: configuration, tables, names ---- */

/* Lines for main.cf ("name = value\n"), appended; a later line replaces an earlier one of the same
 * name.  The world's own lines come first: see world_config in world.c.  Before the start, or
 * before wire_reload. */
void wire_main_cf(struct wire_world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A row of a table.  "hash:NAME" (any type) in main.cf asks the table NAME.  value NULL: no such
 * row. Counts at once. */
void wire_table(struct wire_world *w, const char *table, const char *key, const char *value);
/* A table without rows: fn makes the value for a key when the answer is given (by malloc; NULL:
 * there is none). */
void wire_table_made(struct wire_world *w, const char *table,
                     char *(*fn)(void *arg, const char *key), void *arg);
/* DNS.  An exchanger "" is a null MX, "!" a name that is none; an address or exchanger "?": the
 * question fails. */
void wire_dns_addr(struct wire_world *w, const char *name, const char *addr);
void wire_dns_mx(struct wire_world *w, const char *name, unsigned pref, const char *host);
/* An account that clients may log in with (smtpd_sasl_type = accounts). */
void wire_account(struct wire_world *w, const char *user, const char *password);
/* A client's name, which leads back to the address. */
void wire_dns_ptr(struct wire_world *w, const char *addr, const char *name);
/* Forgets what that name has in the DNS. */
void wire_dns_clear(struct wire_world *w, const char *name);
/* A relay record, as posthouse relay would have written it, in place of one of the same name and
 * account.  account: user@domain or @domain, "": everybody's; password "": none. */
struct wire_record {
    const char *name, *account, *hosts, *user, *password;
};
void wire_record(struct wire_world *w, const struct wire_record *r);

/* ---- what happens to the product; only from a wire_at function ---- */

/* Calls fn(arg) at that time, ms after the start of the scenario. */
void wire_at(struct wire_world *w, int64_t ms, void (*fn)(struct wire_world *w, void *arg),
             void *arg);

enum wire_order { WIRE_HOLD, WIRE_RELEASE, WIRE_DELETE, WIRE_EXPIRE, WIRE_RETRY, WIRE_FLUSH };
/* An order of the administrator about one message (queue ID) or all (NULL); how many it hit.
 * number: for watch.durable, which is told when no power cut can undo the order; 0: it is not. */
size_t wire_order(struct wire_world *w, enum wire_order o, const char *qid, unsigned number);
/* The system's clock is set forward by so much (or back). */
void wire_clock(struct wire_world *w, int64_t ms);
/* The configuration as it is now is taken up. */
void wire_reload(struct wire_world *w);
/* Somebody has saved a relay record, or an account: the routes of what waits are asked for anew. */
void wire_saved(struct wire_world *w);

enum wire_down {
    WIRE_KILLED, /* kill -9: what was written is there */
    WIRE_POWER,  /* what was not synced may be lost or torn */
    WIRE_STOPPED /* in order */
};
/* The product ends; every open stream is reset; it starts again after ms.  False: it is down. */
bool wire_restart(struct wire_world *w, enum wire_down how, int64_t ms);

/* What is queued, as the product's own listing has it. */
struct wire_queued {
    const char *qid;
    const char *sender; /* "" : null sender */
    const char *queue;  /* "active", "deferred", "hold" */
    const char **rcpts; /* those that are not done */
    size_t n_rcpts;
    const char *reason; /* or "" */
};
void wire_queue(struct wire_world *w, void (*fn)(void *arg, const struct wire_queued *q),
                void *arg);

/* ---- the ledger ---- */

struct wire_watch {
    /* A line of the product's log: "smtpd", "connect from …". */
    void (*log)(void *arg, const char *service, const char *text);
    /* The product is down (a fault may do that too), the product is up again. */
    void (*down)(void *arg, enum wire_down how);
    void (*up)(void *arg);
    /* The order of that number is durable. */
    void (*durable)(void *arg, unsigned number);
    void *arg;
};
void wire_watch(struct wire_world *w, const struct wire_watch *watch);
/* The scenario has shown a defect; the first text counts, the run ends soon. */
void wire_fail(struct wire_world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A line of the transcript (shown with -v). */
void wire_note(struct wire_world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Milliseconds since the start of the scenario; microseconds since 1970. */
int64_t wire_now_ms(const struct wire_world *w);
int64_t wire_wall_us(const struct wire_world *w);
/* The scenario's chance for grammars; the world has another one of its own. */
struct wire_rng *wire_rng(struct wire_world *w);
/* Has a fault been set that the ledger must allow for (an error of disk, net or look-up)? */
bool wire_faulted(const struct wire_world *w);
/* For the peers' own state; NULL until it is set. */
void wire_set_user(struct wire_world *w, void *user);
void *wire_user(const struct wire_world *w);

/* ---- made by script.c ---- */

/* Scripts 0 … script_count() - 1 are run with every fault at every call; larger seeds are random.
 */
uint64_t script_count(void);
const char *script_name(uint64_t seed); /* for people; "random" */
/* Configuration, hosts, clients (by wire_at) of the scenario of that seed. */
void script_setup(struct wire_world *w, uint64_t seed);
/* Has all happened that the script has to see?  Asked when nothing but waiting mail is left; the
 * world then goes on until the queue is empty, or ends the scenario if this says true. */
bool script_over(struct wire_world *w);
/* At the end: calls wire_fail if something is wrong. */
void script_check(struct wire_world *w);

#endif
