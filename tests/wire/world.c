/*
 * tests/wire/world.c - one scenario from its beginning to its end
 *
 * Collects what could happen, lets one thing happen, looks whether the bounds hold; when nothing
 * can happen, the clock goes on.  Also the disk's calls, the fault, restarts and the end.
 */
#include "world.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "util/clock.h"

/* 2026-03-02 08:00:00 UTC. */
#define START_US    (1772438400LL * 1000000)
#define STEPS_MAX   1000000
#define LIFE_MAX_US (20LL * 86400 * 1000000)
/* While nothing but ticks is due the clock goes in growing steps up to this. */
#define IDLE_MIN_US 250000
#define IDLE_MAX_US (1800LL * 1000000)
/* What is left when all is done goes away in this time. */
#define REST_US      (7200LL * 1000000)
#define BYTES_BASE   (12U << 20)
#define BYTES_STREAM (512U << 10)

struct wire_world *W WIRE_KEEP;

/* ---- chance ---- */

void wire_rng_seed(struct wire_rng *r, uint64_t seed) {
    r->state = seed * 0x9e3779b97f4a7c15ULL + 0x2545f4914f6cdd1dULL;
}

/* splitmix64 */
uint64_t wire_rnd(struct wire_rng *r, uint64_t below) {
    uint64_t z = r->state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    z ^= z >> 31;
    return below == 0 ? 0 : z % below;
}

int64_t chance_us(struct wire_world *w, int64_t below) {
    return (int64_t)wire_rnd(&w->chance, (uint64_t)below);
}

struct wire_rng *wire_rng(struct wire_world *w) {
    return &w->script;
}

/* ---- time ---- */

int64_t clock_wall_us(void) {
    return START_US + (W == NULL ? 0 : W->now_us + W->clock_us);
}

int64_t clock_mono_ms(void) {
    return 1000000 + (W == NULL ? 0 : W->now_us / 1000);
}

int64_t wire_now_ms(const struct wire_world *w) {
    return w->now_us / 1000;
}

int64_t wire_wall_us(const struct wire_world *w) {
    return START_US + w->now_us + w->clock_us;
}

void wire_clock(struct wire_world *w, int64_t ms) {
    wire_note(w, "the clock is set by %lld ms", (long long)ms);
    w->clock_us += ms * 1000;
}

/* OpenSSL's clock too. */
time_t time(time_t *t) {
    time_t now = (time_t)(clock_wall_us() / 1000000);
    if (t != NULL)
        *t = now;
    return now;
}

/* ---- what is said ---- */

void wire_note(struct wire_world *w, const char *fmt, ...) {
    va_list ap;
    if (w == NULL || !w->verbose)
        return;
    printf("%12.3f  ", (double)w->now_us / 1e6);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

void note_bytes(struct wire_world *w, const char *who, const char *p, size_t n) {
    struct sbuf b = {0};
    size_t shown = n > 600 ? 600 : n;
    for (size_t i = 0; i < shown; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c == '\r')
            sbuf_add_c(&b, "\\r");
        else if (c == '\n')
            sbuf_add_c(&b, i + 1 < shown ? "\\n\n                " : "\\n");
        else if (c < ' ' || c > '~')
            sbuf_printf(&b, "\\x%02x", c);
        else
            sbuf_add_ch(&b, (char)c);
    }
    wire_note(w, "%s: %s%s", who, b.p == NULL ? "" : b.p, shown < n ? " …" : "");
    sbuf_free(&b);
}

void wire_fail(struct wire_world *w, const char *fmt, ...) {
    char text[900];
    va_list ap;
    if (w->bad != NULL)
        return;
    enum heap_side side = heap_switch(HEAP_WORLD);
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    w->bad = strdup(text);
    wire_note(w, "FAILED: %s", text);
    heap_switch(side);
}

void wire_watch(struct wire_world *w, const struct wire_watch *watch) {
    w->watch = *watch;
}

void wire_set_user(struct wire_world *w, void *user) {
    w->user = user;
}

void *wire_user(const struct wire_world *w) {
    return w->user;
}

bool wire_faulted(const struct wire_world *w) {
    return w->fault_done;
}

void wire_at(struct wire_world *w, int64_t ms, void (*fn)(struct wire_world *w, void *arg),
             void *arg) {
    struct at *a = calloc(1, sizeof *a);
    *a = (struct at){w->ats, ms * 1000, fn, arg};
    w->ats = a;
}

/* ---- faults ---- */

static const char *const fault_names[FAULT_KINDS] = {[FAULT_NOTHING] = "none",
                                                     [FAULT_SHORT_BY_ONE] = "short",
                                                     [FAULT_ONE_BYTE] = "byte",
                                                     [FAULT_BLOCKED] = "block",
                                                     [FAULT_END] = "end",
                                                     [FAULT_RESET] = "reset",
                                                     [FAULT_SILENCE] = "silence",
                                                     [FAULT_REFUSED] = "refuse",
                                                     [FAULT_NO_FILES] = "files",
                                                     [FAULT_DISK_EIO] = "eio",
                                                     [FAULT_DISK_SHORT] = "diskshort",
                                                     [FAULT_DISK_FULL] = "full",
                                                     [FAULT_DISK_SYNC] = "sync",
                                                     [FAULT_POWER] = "power",
                                                     [FAULT_POWER_AFTER] = "after",
                                                     [FAULT_KILL] = "kill",
                                                     [FAULT_WRONG] = "wrong",
                                                     [FAULT_LATE] = "late",
                                                     [FAULT_DAYS] = "days"};

const char *fault_name(enum wire_fault f) {
    return fault_names[f];
}

enum wire_fault fault_parse(const char *name) {
    for (int f = 0; f < FAULT_KINDS; f++)
        if (strcmp(fault_names[f], name) == 0)
            return (enum wire_fault)f;
    return FAULT_KINDS;
}

#define BIT(f) (1U << (f))

bool fault_fits(enum wire_fault f, enum wire_call c) {
    static const unsigned fits[CALL_KINDS] = {
        [CALL_CONNECT] = BIT(FAULT_SILENCE) | BIT(FAULT_REFUSED) | BIT(FAULT_NO_FILES),
        [CALL_ACCEPT] = BIT(FAULT_BLOCKED) | BIT(FAULT_RESET) | BIT(FAULT_NO_FILES),
        [CALL_SEND] = BIT(FAULT_SHORT_BY_ONE) | BIT(FAULT_ONE_BYTE) | BIT(FAULT_BLOCKED) |
                      BIT(FAULT_RESET) | BIT(FAULT_SILENCE) | BIT(FAULT_KILL),
        [CALL_RECV] = BIT(FAULT_SHORT_BY_ONE) | BIT(FAULT_ONE_BYTE) | BIT(FAULT_BLOCKED) |
                      BIT(FAULT_END) | BIT(FAULT_RESET) | BIT(FAULT_SILENCE),
        [CALL_ERROR] = BIT(FAULT_RESET),
        [CALL_DISK] = BIT(FAULT_DISK_EIO) | BIT(FAULT_DISK_SHORT) | BIT(FAULT_DISK_FULL) |
                      BIT(FAULT_DISK_SYNC) | BIT(FAULT_POWER) | BIT(FAULT_POWER_AFTER) |
                      BIT(FAULT_KILL),
        [CALL_READ_DISK] = BIT(FAULT_DISK_EIO) | BIT(FAULT_DISK_SHORT) | BIT(FAULT_KILL),
        [CALL_TABLE] = BIT(FAULT_WRONG) | BIT(FAULT_LATE) | BIT(FAULT_DAYS),
        [CALL_NAME] = BIT(FAULT_WRONG) | BIT(FAULT_LATE) | BIT(FAULT_DAYS)};
    return (fits[c] & BIT(f)) != 0;
}

static void kill_now(enum wire_down how, int64_t ms) {
    W->dying = true;
    W->down_how = how;
    W->up_after_us = ms * 1000;
}

enum wire_fault call_begin(enum wire_call c) {
    unsigned n = W->calls++;
    if (n < W->kinds_max)
        W->kinds[n] = (uint8_t)c;
    if (c != CALL_DISK && c != CALL_READ_DISK)
        W->busy++;
    if (W->fault == FAULT_NOTHING || n != W->fault_at || !fault_fits(W->fault, c))
        return FAULT_NOTHING;
    W->fault_done = true;
    wire_note(W, "FAULT at call %u: %s", n, fault_name(W->fault));
    if (W->fault == FAULT_KILL)
        kill_now(WIRE_KILLED, 1000);
    return W->fault;
}

/* ---- the disk ---- */

/* Counts the call and sets the disk's own fault for it; false: the product is dead already. */
static bool disk_begin(enum wire_call c) {
    static const enum fault disk_faults[FAULT_KINDS] = {
        [FAULT_DISK_EIO] = FAULT_EIO,   [FAULT_DISK_SHORT] = FAULT_SHORT,
        [FAULT_DISK_FULL] = FAULT_FULL, [FAULT_DISK_SYNC] = FAULT_SYNC,
        [FAULT_POWER] = FAULT_CUT,      [FAULT_POWER_AFTER] = FAULT_AFTER};
    if (W->dying)
        return false;
    enum wire_fault f = call_begin(c);
    if (disk_faults[f] != FAULT_NONE)
        sim_fault(W->disk, disk_faults[f], 0);
    return !W->dying;
}

static void disk_end(void) {
    if (sim_is_dead(W->disk) && !W->dying)
        kill_now(WIRE_POWER, 60000);
}

#define DISK(type, dead, kind, call)                                                               \
    do {                                                                                           \
        enum heap_side side = heap_switch(HEAP_WORLD);                                             \
        type rc = dead;                                                                            \
        const struct spool_io *io = sim_io(W->disk);                                               \
        if (disk_begin(kind)) {                                                                    \
            rc = call;                                                                             \
            disk_end();                                                                            \
        }                                                                                          \
        heap_switch(side);                                                                         \
        return rc;                                                                                 \
    } while (0)

static int disk_open_counted(const struct spool_io *io, const char *path, int flags, mode_t mode) {
    int fd = io->open(io->arg, path, flags, mode);
    W->files_open += fd >= 0;
    return fd;
}

static int disk_open(void *arg, const char *path, int flags, mode_t mode) {
    (void)arg;
    DISK(int, -EIO, CALL_DISK, disk_open_counted(io, path, flags, mode));
}

static void disk_close(void *arg, int fd) {
    (void)arg;
    sim_io(W->disk)->close(sim_io(W->disk)->arg, fd);
    W->files_open--;
}

static ssize_t disk_pwritev(void *arg, int fd, const struct iovec *iov, int n, uint64_t off) {
    (void)arg;
    DISK(ssize_t, -EIO, CALL_DISK, io->pwritev(io->arg, fd, iov, n, off));
}

static ssize_t disk_pread(void *arg, int fd, void *buf, size_t n, uint64_t off) {
    (void)arg;
    DISK(ssize_t, -EIO, CALL_READ_DISK, io->pread(io->arg, fd, buf, n, off));
}

static int disk_allocate(void *arg, int fd, uint64_t size) {
    (void)arg;
    if (W->now_us >= W->full_from_us && W->now_us < W->full_until_us)
        return -ENOSPC;
    DISK(int, -EIO, CALL_DISK, io->allocate(io->arg, fd, size));
}

static int disk_datasync(void *arg, int fd) {
    (void)arg;
    DISK(int, -EIO, CALL_DISK, io->datasync(io->arg, fd));
}

static int disk_sync_dir(void *arg, const char *dir) {
    (void)arg;
    DISK(int, -EIO, CALL_DISK, io->sync_dir(io->arg, dir));
}

static int disk_unlink(void *arg, const char *path) {
    (void)arg;
    DISK(int, -EIO, CALL_DISK, io->unlink(io->arg, path));
}

static int disk_mkdir(void *arg, const char *path) {
    (void)arg;
    DISK(int, -EIO, CALL_DISK, io->mkdir(io->arg, path));
}

static int64_t disk_size(void *arg, int fd) {
    (void)arg;
    DISK(int64_t, -EIO, CALL_DISK, io->size(io->arg, fd));
}

static int disk_list(void *arg, const char *dir, void (*fn)(void *ctx, const char *name),
                     void *ctx) {
    (void)arg;
    if (!disk_begin(CALL_DISK))
        return -EIO;
    int rc = sim_io(W->disk)->list(sim_io(W->disk)->arg, dir, fn, ctx);
    disk_end();
    return rc;
}

static int64_t disk_space(void *arg, const char *dir) {
    (void)arg;
    return sim_io(W->disk)->space(sim_io(W->disk)->arg, dir);
}

static int disk_rename(void *arg, const char *from, const char *to) {
    (void)arg;
    DISK(int, -EIO, CALL_DISK, io->rename(io->arg, from, to));
}

/* The simulated disk, with its calls counted; what is not counted here is the disk's own. */
static void disk_make(struct wire_world *w, uint64_t seed) {
    w->disk = sim_new(seed);
    w->io = *sim_io(w->disk);
    w->io.open = disk_open;
    w->io.close = w->io.discard = disk_close;
    w->io.pwritev = disk_pwritev;
    w->io.pread = disk_pread;
    w->io.allocate = disk_allocate;
    w->io.datasync = disk_datasync;
    w->io.sync_dir = disk_sync_dir;
    w->io.unlink = disk_unlink;
    w->io.rename = disk_rename;
    w->io.mkdir = disk_mkdir;
    w->io.size = disk_size;
    w->io.list = disk_list;
    w->io.space = disk_space;
}

void wire_slow_disk(struct wire_world *w, int64_t ms) {
    w->disk_us = ms * 1000;
}

void wire_full_disk(struct wire_world *w, int64_t from_ms, int64_t until_ms) {
    w->full_from_us = w->now_us + from_ms * 1000;
    w->full_until_us = w->now_us + until_ms * 1000;
}

void wire_table_fails(struct wire_world *w, const char *table, int64_t until_ms) {
    w->failing_table = table;
    w->fails_until_us = w->now_us + until_ms * 1000;
}

/* ---- restarts ---- */

bool wire_restart(struct wire_world *w, enum wire_down how, int64_t ms) {
    if (w->product == NULL || w->dying)
        return false;
    wire_note(w, "restart: %s",
              how == WIRE_KILLED  ? "kill -9"
              : how == WIRE_POWER ? "power cut"
                                  : "stop");
    w->down_how = how;
    w->up_after_us = ms * 1000;
    if (how == WIRE_STOPPED)
        product_stop(w);
    else
        w->dying = true;
    return true;
}

static void life_end(struct wire_world *w) {
    wire_note(w, "the product is down");
    product_end(w);
    if (w->down_how == WIRE_POWER)
        sim_power_on(w->disk);
    else
        sim_restart(w->disk);
    w->dying = false;
    w->up_at_us = w->now_us + w->up_after_us + 1;
    if (w->watch.down != NULL)
        w->watch.down(w->watch.arg, w->down_how);
}

static void step_up(void *arg) {
    struct wire_world *w = arg;
    w->busy++;
    wire_note(w, "the product starts");
    product_start(w);
}

/* ---- steps ---- */

void choice_add(struct choices *c, void (*fn)(void *arg), void *arg) {
    if (c->n < 256)
        c->v[c->n++] = (struct choice){fn, arg};
}

static void step_at(void *arg) {
    struct at *a = arg, **link = &W->ats;
    while (*link != a)
        link = &(*link)->next;
    *link = a->next;
    W->busy++;
    a->fn(W, a->arg);
}

static void collect(struct wire_world *w, struct choices *c) {
    c->n = 0;
    for (struct at *a = w->ats; a != NULL; a = a->next)
        if (a->us <= w->now_us)
            choice_add(c, step_at, a);
    if (w->product == NULL && w->up_at_us <= w->now_us)
        choice_add(c, step_up, w);
    loops_collect(w, c);
    net_collect(w, c);
    lookups_collect(w, c);
    product_collect(w, c);
}

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* What is foreseen but ticks; INT64_MAX: nothing. */
static int64_t next_event(const struct wire_world *w, int64_t *periodic) {
    int64_t once = INT64_MAX;
    *periodic = INT64_MAX;
    loops_next(w, &once, periodic);
    for (const struct at *a = w->ats; a != NULL; a = a->next)
        once = least(once, a->us);
    once = least(once, net_next(w));
    once = least(once, lookups_next(w));
    return least(once, product_next(w));
}

/* Nothing can happen now: the clock goes on to what can.  When ticks alone have found nothing to do
 * for a while, they come late, as on a loaded machine. */
static void advance(struct wire_world *w) {
    int64_t periodic, once = next_event(w, &periodic);
    if (w->idle_us > 2 * IDLE_MIN_US && periodic != INT64_MAX)
        periodic = w->now_us + least(w->idle_us, IDLE_MAX_US);
    int64_t to = least(once, periodic);
    if (to == INT64_MAX)
        to = w->now_us + IDLE_MIN_US;
    if (to > w->now_us)
        w->idle_us += (to - w->now_us) / 2 + IDLE_MIN_US / 4;
    w->now_us = to > w->now_us ? to : w->now_us + 1;
}

static void check_bounds(struct wire_world *w) {
    size_t bytes = heap_product_bytes();
    unsigned open = net_open(w);
    size_t bound = BYTES_BASE + BYTES_STREAM * (size_t)open + 3 * (size_t)w->stream_bytes;
    if (bytes > w->peak_bytes)
        w->peak_bytes = bytes;
    if (bytes > bound)
        wire_fail(w, "memory: %zu bytes with %u open streams and %llu bytes from peers", bytes,
                  open, (unsigned long long)w->stream_bytes);
    if (w->product != NULL && w->fds_open > open + 16)
        wire_fail(w, "descriptors: %u with %u open streams", w->fds_open, open);
}

/* True when the scenario is over: nothing is left that could happen, or the script has seen all. */
static bool at_rest(struct wire_world *w) {
    int64_t periodic;
    if (w->product == NULL || w->dying || !product_is_settled(w) || net_open(w) > 0 ||
        next_event(w, &periodic) != INT64_MAX)
        return false;
    if (product_is_empty(w))
        return true;
    return script_over(w);
}

static void one_step(struct wire_world *w, struct choices *c) {
    uint64_t busy = w->busy;
    struct choice *k = &c->v[wire_rnd(&w->chance, c->n)];
    w->steps++;
    k->fn(k->arg);
    if (w->busy != busy)
        w->idle_us = 0;
    if (w->dying && w->product != NULL)
        life_end(w);
    w->now_us += chance_us(w, 200);
    check_bounds(w);
}

static void run_to_end(struct wire_world *w) {
    struct choices c;
    while (w->bad == NULL && !w->over) {
        collect(w, &c);
        if (c.n > 0) {
            one_step(w, &c);
        } else {
            w->over = at_rest(w);
            advance(w);
        }
        if (w->steps > STEPS_MAX || w->now_us > LIFE_MAX_US)
            wire_fail(w, "the scenario does not come to an end");
    }
}

/* Ticks for a while, so that what is kept for a short time goes; then what is left is looked at. */
static void check_end(struct wire_world *w) {
    struct choices c;
    int64_t until = w->now_us + REST_US;
    while (w->bad == NULL && w->now_us < until) {
        collect(w, &c);
        if (c.n > 0)
            one_step(w, &c);
        else
            advance(w);
    }
    if (w->bad != NULL || w->product == NULL)
        return;
    if (net_open(w) > 0 && product_is_empty(w))
        wire_fail(w, "%u streams are still open at the end", net_open(w));
    const char *lost = heap_check();
    if (lost != NULL)
        wire_fail(w, "%s", lost);
}

static struct wire_world *world_new(const struct run *r) {
    struct wire_world *w = calloc(1, sizeof *w);
    w->seed = r->seed;
    wire_rng_seed(&w->chance, r->seed * 3 + 1);
    wire_rng_seed(&w->script, r->seed * 3 + 2);
    wire_rng_seed(&w->keys, r->seed * 3 + 3);
    w->verbose = r->verbose;
    w->fault_at = r->fault_at;
    w->fault = r->fault;
    w->kinds = r->kinds;
    w->kinds_max = r->kinds_max;
    dl_init(&w->loops);
    dl_init(&w->handles);
    dl_init(&w->works);
    dl_init(&w->streams);
    dl_init(&w->listening);
    dl_init(&w->questions);
    disk_make(w, r->seed + 1);
    w->up_at_us = 1;
    return w;
}

void scenario_run(struct run *r) {
    heap_begin_scenario();
    heap_switch(HEAP_WORLD);
    struct wire_world *w = W = world_new(r);
    script_setup(w, r->seed);
    run_to_end(w);
    if (w->bad == NULL)
        script_check(w);
    check_end(w);
    r->calls = w->calls;
    r->steps = w->steps;
    r->peak_bytes = w->peak_bytes;
    snprintf(r->bad, sizeof r->bad, "%s", w->bad == NULL ? "" : w->bad);
    tls_scenario_end();
    W = NULL;
    heap_switch(HEAP_PROCESS);
}
