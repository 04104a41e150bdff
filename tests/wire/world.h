/*
 * tests/wire/world.h - inside of the simulated world (its own files only; peers include wire.h)
 *
 * One thing happens at a time: wire_step() collects what could happen now, picks one by chance, and
 * lets it happen.  The clock stands still while anything can happen, and then goes to the next
 * timer. Everything here is allocated in the world's heap (heap.h) and goes with the scenario.
 */
#ifndef PH_TESTS_WIRE_WORLD_H
#define PH_TESTS_WIRE_WORLD_H

#include <uv.h>

#include "crash/sim_disk.h"
#include "heap.h"
#include "util/list.h"
#include "util/str.h"
#include "wire.h"

/* ---- faults ---- */

/* Every call of the product to the outside is counted; this is what it was. */
enum wire_call {
    CALL_CONNECT,
    CALL_ACCEPT,
    CALL_SEND,
    CALL_RECV,
    CALL_ERROR, /* sock_error */
    CALL_DISK,
    CALL_READ_DISK, /* pread */
    CALL_TABLE,
    CALL_NAME, /* DNS */
    CALL_KINDS
};

enum wire_fault {
    FAULT_NOTHING,
    FAULT_SHORT_BY_ONE, /* send, recv: one byte less than could be */
    FAULT_ONE_BYTE,     /* send, recv: one byte only */
    FAULT_BLOCKED,      /* send, recv, accept: -EAGAIN, though something was announced */
    FAULT_END,          /* recv: the peer has closed in order */
    FAULT_RESET,        /* send, recv, error, accept: the stream is broken */
    FAULT_SILENCE,      /* the peer neither reads nor writes any more; a connection never comes */
    FAULT_REFUSED,      /* connect: fails at once */
    FAULT_NO_FILES,     /* connect, accept: -EMFILE */
    FAULT_DISK_EIO,
    FAULT_DISK_SHORT,
    FAULT_DISK_FULL,
    FAULT_DISK_SYNC, /* the next sync fails */
    FAULT_POWER,     /* the power goes before the call */
    FAULT_POWER_AFTER,
    FAULT_KILL,  /* kill -9 before the call */
    FAULT_WRONG, /* a look-up ends in an error */
    FAULT_LATE,  /* a look-up is answered after half a minute */
    FAULT_DAYS,  /* a look-up is answered after more than a day */
    FAULT_KINDS
};

const char *fault_name(enum wire_fault f);
enum wire_fault fault_parse(const char *name);
/* Does that fault make sense at that call? */
bool fault_fits(enum wire_fault f, enum wire_call c);

/* ---- the world ---- */

struct stream;
struct handle;
struct question;
struct product;

struct listening {
    struct dl link;
    int fd;
    uint16_t port;
    struct dl queue; /* struct stream: waiting to be accepted */
};

struct host {
    struct host *next;
    char addr[INET6_ADDRSTRLEN];
    uint16_t port;
    enum wire_host_is is;
    struct wire_peer *(*relay_new)(void *arg, const struct netaddr *to);
    void *arg;
};

struct row {
    struct row *next;
    char *table; /* "hash" tables by name; " addr", " mx", " ptr", " account" are the world's own */
    char *key;
    char *value;                               /* NULL: deleted */
    char *(*made)(void *arg, const char *key); /* key is "": makes all values; NULL: does not */
    void *arg;
};

struct at {
    struct at *next;
    int64_t us;
    void (*fn)(struct wire_world *w, void *arg);
    void *arg;
};

struct wire_world {
    uint64_t seed;
    struct wire_rng chance; /* the world's: order, latency, pieces */
    struct wire_rng script; /* the grammars' */
    struct wire_rng keys;   /* OpenSSL's */
    int64_t now_us;         /* since the scenario began */
    int64_t clock_us;       /* by which the system's clock has been set forward */
    uint64_t steps;
    bool verbose;
    /* faults */
    unsigned calls;
    unsigned fault_at;
    enum wire_fault fault;
    bool fault_done;
    uint8_t *kinds; /* of each call, for the exhaustive runs; NULL: not wanted */
    size_t kinds_max;
    /* what the product has of the system */
    struct dl loops;   /* struct uvloop */
    struct dl handles; /* struct handle */
    struct dl works;   /* struct work */
    struct dl streams; /* all of this scenario */
    struct dl listening;
    struct stream *fds[600]; /* by descriptor - FD_FIRST; a listener's is FD_OTHER */
    unsigned fds_open;
    struct dl questions;
    uint32_t last_tag;
    unsigned last_stream;
    struct sim *disk;
    struct spool_io io;
    int64_t disk_us;                     /* what each batch of the spool takes at least */
    int64_t full_from_us, full_until_us; /* the disk is, in that time */
    const char *failing_table;           /* NULL: none */
    int64_t fails_until_us;
    unsigned files_open;
    /* what happens elsewhere */
    struct host *hosts;
    struct row *rows;
    struct at *ats;
    char *main_cf;
    struct wire_watch watch;
    void *user;
    struct product *product; /* NULL: it is down */
    bool dying;              /* it is killed as soon as the running call returns */
    enum wire_down down_how;
    int64_t up_after_us; /* from when it is down */
    int64_t up_at_us;    /* when it starts again; 0: it is up */
    unsigned lives;
    /* the end */
    uint64_t busy; /* grows with all that happens but timers that find nothing to do */
    int64_t idle_us;
    bool over;
    char *bad; /* the first defect */
    /* bounds */
    size_t peak_bytes;
    uint64_t stream_bytes; /* what peers sent */
};

/* The one scenario that runs. */
extern struct wire_world *W;

#define FD_FIRST 100
#define FD_OTHER ((struct stream *)(void *)1)

/* ---- world.c ---- */

/* Counts a call of the product; the fault that happens at it.  On the product's side of the seam:
 * switch to the world's heap first. */
enum wire_fault call_begin(enum wire_call c);
/* Microseconds of latency, by chance. */
int64_t chance_us(struct wire_world *w, int64_t below);
/* One scenario from its seed; NULL if all was well, else what is wrong (in the process's heap). */
struct run {
    uint64_t seed;
    unsigned fault_at;
    enum wire_fault fault; /* FAULT_NOTHING: none */
    bool verbose;
    uint8_t *kinds; /* out: of each call, up to kinds_max */
    size_t kinds_max;
    unsigned calls; /* out */
    uint64_t steps; /* out */
    size_t peak_bytes;
    char bad[1000]; /* out: "" or what is wrong */
};
void scenario_run(struct run *r);
/* Text from outside, for the transcript. */
void note_bytes(struct wire_world *w, const char *who, const char *p, size_t n);

/* ---- loop.c: libuv ---- */

/* What could happen now. */
struct choice {
    void (*fn)(void *arg);
    void *arg;
};
struct choices {
    struct choice v[256];
    size_t n;
};
void choice_add(struct choices *c, void (*fn)(void *arg), void *arg);
/* The product was called from outside of a loop's turn, in place of a callback of some loop: each
 * goes through its turn once, so that what was written goes out. */
void loops_wake(struct wire_world *w);
void loops_collect(struct wire_world *w, struct choices *c);
/* The next timer that fires once, and the next that repeats; INT64_MAX: none. */
void loops_next(const struct wire_world *w, int64_t *once, int64_t *periodic);
void loops_drop(struct wire_world *w);

/* ---- net.c: sockets and streams ---- */

enum { SEEN_IN = 1, SEEN_OUT = 2, SEEN_BROKEN = 4 };
/* What the descriptor is ready for. */
unsigned net_ready(int fd);
int fd_new(struct wire_world *w, struct stream *s);
void net_listen(struct wire_world *w, int fd, uint16_t port);
void net_collect(struct wire_world *w, struct choices *c);
int64_t net_next(const struct wire_world *w);
/* The product is gone. */
void net_drop(struct wire_world *w);
unsigned net_open(const struct wire_world *w);

/* ---- lookups.c: tables, names, accounts ---- */

void lookups_collect(struct wire_world *w, struct choices *c);
int64_t lookups_next(const struct wire_world *w);
void lookups_drop(struct wire_world *w);
const char *row_get(const struct wire_world *w, const char *table, struct str key);

/* ---- tls.c: the peers' OpenSSL, and what of it the product leaves behind ---- */

struct tls_end;
void tls_process_init(void);
void tls_scenario_end(void);
const char *tls_cert_pem(void);
const char *tls_key_pem(void);
struct tls_end *tls_end_new(bool server);
/* Takes what arrived; appends what it means to plain and what is to be sent to wire.  *up: 1 the
 * handshake ended well just now, -1 badly, 0 neither; *eof: the peer closed in order. */
void tls_end_input(struct tls_end *t, const char *p, size_t n, struct sbuf *plain,
                   struct sbuf *wire, int *up, bool *eof);
void tls_end_send(struct tls_end *t, const void *p, size_t n, struct sbuf *wire);
void tls_end_close(struct tls_end *t, struct sbuf *wire);
/* Frees what the product's life left in OpenSSL's heap. */
void tls_drop(void);
bool tls_end_is_up(const struct tls_end *t);

/* ---- product.c: the glue that daemon/relay.c is in the real thing ---- */

void product_start(struct wire_world *w);
/* Tears the life down: what is in memory is gone. */
void product_end(struct wire_world *w);
void product_collect(struct wire_world *w, struct choices *c);
int64_t product_next(const struct wire_world *w);
/* Nothing is queued and nothing is on its way to the disk. */
bool product_is_empty(const struct wire_world *w);
bool product_is_settled(const struct wire_world *w);
void product_stop(struct wire_world *w);
void product_warm_up(void);

#endif
