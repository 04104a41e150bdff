/*
 * The spool under simulated faults: accept, deliver, compact, recover, with a fault or a power cut
 * at every call to the disk, perhaps with another one later, and again during the recoveries that
 * follow. Then with files that have changed while the spool was closed: a bit, a sector, the end,
 * all of one.
 *
 *   sim_spool [-s SEED] [-n SCRIPTS] [-r] [-v]
 *
 * A script is made from its seed.  First it runs without a fault, to count the calls; then once for
 * each call and each fault.  After a fault the spool is opened again (with a fault in there too,
 * up to four times) and compared with what the script was told: every acknowledged message is
 * there, whole; none whose end was acknowledged is; progress is the last acknowledged or newer;
 * what was refused is not there, unless the power went before it could be taken back.  Content that
 * was read is kept for a while, as sessions keep it, and is still what it was then.  Prints the
 * number of cases (-r: of changed files only); a failing one prints what repeats it and ends the
 * run.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim_disk.h"
#include "spool/index.h"
#include "spool/segment.h"
#include "spool/spool.h"
#include "util/codec.h"
#include "util/log.h"
#include "util/mem.h"

#define MSGS_MAX     512
#define TURNS        28
#define LETTERS      26
#define MAYBE_MAX    16
#define SENDING      8
#define VERSIONS_MAX 256
#define ROT_CASES    200U
/* So many messages may have records in two sectors. */
#define SECTOR_RECORDS 20U

enum told { TOLD_NOTHING, TOLD_YES, TOLD_NO };

/* What the script knows of one message. */
struct known {
    uint64_t size;
    bool in_file;
    uint32_t chunk_crc;
    enum told new_, done;
    bool done_asked;
    uint32_t prog_asked, prog_told; /* versions; 0: none */
    bool told[VERSIONS_MAX];        /* each of them that was */
    unsigned settled_by;            /* the report that ends this one when it is taken … */
    bool settled_all;               /* … wholly */
    unsigned maybe_by[MAYBE_MAX];   /* refused ones that a power cut may bring back … */
    unsigned n_maybe;               /* … and how many there were */
    bool found;                     /* by the recovery that is being checked */
};

/* One run of a script. */
struct run {
    struct sim *disk;
    struct spool *sp;
    struct known m[MSGS_MAX];
    unsigned n;
    uint64_t rnd;       /* the script's own chance: the same whatever the disk does */
    bool must_read;     /* no fault is set: every content can be read */
    bool must_be_whole; /* no read has failed */
    bool looks_back;    /* what was lost or is back is counted only */
    bool faultless;     /* the script runs without a fault */
    bool rotten;        /* the disk has changed bytes by itself: what is missing is reported */
    struct body *sending[SENDING]; /* content that sessions have … */
    uint64_t sending_id[SENDING];  /* … and of which message */
    const char *bad;
    uint64_t bad_id;
};

struct sim_op {
    struct spool_op op;
    struct run *r;
    uint32_t version;
};

static bool verbose;

static uint64_t rnd(struct run *r) {
    r->rnd ^= r->rnd << 13;
    r->rnd ^= r->rnd >> 7;
    r->rnd ^= r->rnd << 17;
    return r->rnd;
}

static void bad(struct run *r, const char *what, uint64_t id) {
    if (r->bad == NULL) {
        r->bad = what;
        r->bad_id = id;
    }
}

/* The content of message id: from its number alone. */
static void content(uint64_t id, uint64_t from, uint64_t n, struct sbuf *out) {
    char *p = sbuf_room(out, (size_t)n);
    uint64_t i = 0;
    for (; i < n && i < LETTERS; i++)
        p[i] = (char)('a' + ((from + i) * 7 + id * 13) % LETTERS);
    for (uint64_t k; i < n; i += k) { /* it repeats itself */
        k = n - i < i ? n - i : i;
        memcpy(p + i, p, (size_t)k);
    }
    sbuf_advance(out, (size_t)n);
}

static bool content_is(const struct body *b, uint64_t id, uint64_t size) {
    struct sbuf want = {0}, tmp = {0};
    content(id, 0, size, &want);
    struct str got = body_view(b, 0, (size_t)size, &tmp);
    bool same = got.p == NULL || /* the disk refused: somebody tries again */
                (b->size == size && got.n == size && memcmp(got.p, want.p, size) == 0);
    sbuf_free(&want);
    sbuf_free(&tmp);
    return same;
}

/* The relay host has it: what it was sent is what the message has. */
static void let_go(struct run *r, unsigned i) {
    struct sbuf tmp = {0};
    struct body *b = r->sending[i];
    uint64_t id = r->sending_id[i];
    r->sending[i] = NULL;
    if (b == NULL)
        return;
    bool alive = !sim_is_dead(r->disk);
    if (alive && !content_is(b, id, r->m[id].size))
        bad(r, "content that is being sent has changed", id);
    if (alive && r->faultless && body_view(b, 0, b->size, &tmp).p == NULL)
        bad(r, "content that is being sent is cut off", id);
    sbuf_free(&tmp);
    body_unref(b);
}

static void let_all_go(struct run *r) {
    for (unsigned i = 0; i < SENDING; i++)
        let_go(r, i);
}

static void close_spool(struct run *r) {
    let_all_go(r);
    spool_close(r->sp);
}

static void tell_version(struct known *m, uint32_t version) {
    m->prog_told = version;
    if (version < VERSIONS_MAX)
        m->told[version] = true;
}

static void op_done(struct spool_op *op) {
    struct sim_op *o = DL_OWNER(op, struct sim_op, op);
    struct run *r = o->r;
    struct known *m = &r->m[op->id];
    if (verbose)
        printf("op %d of message %llu, settles %llu: %d\n", (int)op->kind,
               (unsigned long long)op->id, (unsigned long long)op->settles, op->rc);
    if (op->kind == SPOOL_NEW) {
        m->new_ = op->rc == 0 ? TOLD_YES : TOLD_NO;
        if (op->settles != 0) {
            struct known *t = &r->m[op->settles];
            t->settled_by = 0;
            if (op->rc == 0)
                t->n_maybe = 0;
            else
                t->maybe_by[t->n_maybe++ % MAYBE_MAX] = (unsigned)op->id;
            if (op->rc == 0 && op->settled.n == 0)
                t->done = TOLD_YES;
            if (op->rc == 0 && op->settled.n > 0)
                tell_version(t, o->version);
        }
    } else if (op->kind == SPOOL_DONE && op->rc == 0) {
        m->done = TOLD_YES;
    } else if ((op->kind == SPOOL_PROGRESS || op->kind == SPOOL_STEP) && op->rc == 0) {
        tell_version(m, o->version);
    } else if (op->kind == SPOOL_BODY_WRITE) {
        m->chunk_crc = op->crc;
        if (op->rc < 0)
            m->new_ = TOLD_NO; /* the session would refuse it */
    } else if (op->kind == SPOOL_READ && op->rc == 0) {
        if (!content_is(op->body, op->id, m->size))
            bad(r, "content read back differs", op->id);
        let_go(r, op->id % SENDING);
        r->sending[op->id % SENDING] = op->body;
        r->sending_id[op->id % SENDING] = op->id;
    } else if (op->kind == SPOOL_READ && (r->must_read || op->rc == -EBADMSG) && !r->rotten) {
        bad(r, "content cannot be read", op->id);
    }
    sbuf_free(&op->meta);
    sbuf_free(&op->settled);
    sbuf_free(&op->chunk);
    if (op->kind == SPOOL_NEW)
        body_unref(op->body);
    free(o);
}

static struct sim_op *op_new(struct run *r, enum spool_kind kind, uint64_t id) {
    struct sim_op *o = MEM_NEW(struct sim_op);
    o->r = r;
    o->op.kind = kind;
    o->op.id = id;
    o->op.done = op_done;
    return o;
}

static void meta_of(uint64_t id, uint64_t size, struct sbuf *b) {
    sbuf_printf(b, "message %llu of %llu bytes", (unsigned long long)id, (unsigned long long)size);
}

/* Progress is its version; that of a message with thousands of recipients is larger than a
 * segment. */
static void progress_text(struct run *r, uint32_t version, struct sbuf *out) {
    size_t n = rnd(r) % 40 == 0 ? (size_t)(rnd(r) % 90000) : 0;
    sbuf_printf(out, "%u", version);
    memset(sbuf_room(out, n), ' ', n);
    sbuf_advance(out, n);
}

static void submit_new(struct run *r, uint64_t id, uint64_t settles, bool all) {
    struct known *m = &r->m[id];
    struct sim_op *o = op_new(r, SPOOL_NEW, id);
    meta_of(id, m->size, &o->op.meta);
    if (m->in_file) {
        o->op.body = body_from_file(m->size, m->chunk_crc);
    } else {
        struct sbuf b = {0};
        content(id, 0, m->size, &b);
        o->op.body = body_from_buf(&b);
    }
    if (settles != 0) {
        struct known *t = &r->m[settles];
        o->op.settles = settles;
        t->settled_by = (unsigned)id;
        t->settled_all = all;
        if (!all) {
            o->version = ++t->prog_asked;
            progress_text(r, o->version, &o->op.settled);
        }
    }
    spool_submit(r->sp, &o->op);
}

static void submit_chunk(struct run *r, uint64_t id, uint64_t from, uint64_t n) {
    struct sim_op *o = op_new(r, SPOOL_BODY_WRITE, id);
    o->op.off = from;
    o->op.crc = r->m[id].chunk_crc;
    content(id, from, n, &o->op.chunk);
    spool_submit(r->sp, &o->op);
}

static void submit_done(struct run *r, uint64_t id) {
    r->m[id].done_asked = true;
    spool_submit(r->sp, &op_new(r, SPOOL_DONE, id)->op);
}

/* All of it, or a step, which is its version, too, with a '+' before it. */
static void submit_progress(struct run *r, uint64_t id) {
    bool whole = rnd(r) % 2 != 0;
    struct sim_op *o = op_new(r, whole ? SPOOL_PROGRESS : SPOOL_STEP, id);
    o->version = ++r->m[id].prog_asked;
    if (whole)
        progress_text(r, o->version, &o->op.meta);
    else
        sbuf_printf(&o->op.meta, "+%u", o->version);
    spool_submit(r->sp, &o->op);
}

/* Also what a report that is on its way is about: an order deletes that, too. */
static bool is_there(const struct known *m) {
    return m->new_ == TOLD_YES && !m->done_asked && m->done != TOLD_YES;
}

static bool is_queued(const struct known *m) {
    return is_there(m) && m->settled_by == 0;
}

/* A message of that kind, or 0. */
static uint64_t some(struct run *r, bool (*kind)(const struct known *m)) {
    for (int i = 0; i < 20 && r->n > 1; i++) {
        uint64_t id = 1 + rnd(r) % (r->n - 1);
        if (kind(&r->m[id]))
            return id;
    }
    return 0;
}

static uint64_t some_queued(struct run *r) {
    return some(r, is_queued);
}

static uint64_t new_message(struct run *r, bool file) {
    uint64_t id = r->n, k = rnd(r);
    if (r->n + 1 == MSGS_MAX)
        return 0;
    r->n++;
    struct known *m = &r->m[id];
    m->in_file = file;
    m->size = file           ? 3000 + k % 4000
              : k % 200 == 0 ? 60000 + k % 30000
              : k % 8 == 0   ? 9000 + k % 12000
                             : k % 1500;
    return id;
}

/* A message with its content in a file, which settles another one (0: none), or is given up. */
static void file_message(struct run *r, uint64_t about, bool all, bool give_up) {
    uint64_t id = new_message(r, true);
    if (id == 0)
        return;
    uint64_t half = r->m[id].size / 2;
    submit_chunk(r, id, 0, half);
    spool_turn(r->sp);
    submit_chunk(r, id, half, r->m[id].size - half);
    spool_turn(r->sp);
    if (r->m[id].new_ == TOLD_NO || give_up || (about != 0 && !is_queued(&r->m[about])))
        spool_submit(r->sp, &op_new(r, SPOOL_BODY_DROP, id)->op);
    else
        submit_new(r, id, about, all);
}

/* One thing that receive or schedule would ask for. */
static void step(struct run *r) {
    unsigned k = (unsigned)(rnd(r) % 100);
    uint64_t id;
    if (k < 40) {
        if ((id = new_message(r, false)) != 0)
            submit_new(r, id, 0, false);
    } else if (k < 46) {
        file_message(r, 0, false, k == 40);
    } else if (k < 78) {
        if ((id = some(r, k < 70 ? is_queued : is_there)) != 0)
            submit_done(r, id);
    } else if (k < 88) {
        if ((id = some_queued(r)) != 0)
            submit_progress(r, id);
    } else if (k < 94) {
        uint64_t about = some_queued(r);
        if (about != 0 && k < 90)
            file_message(r, about, k % 2 == 0, false);
        else if (about != 0 && (id = new_message(r, false)) != 0)
            submit_new(r, id, about, k % 2 == 0);
    } else if ((id = some_queued(r)) != 0) {
        struct sim_op *o = op_new(r, SPOOL_READ, id);
        o->op.memory_max = 1; /* it is sent from the log's file */
        spool_submit(r->sp, &o->op);
    }
}

/* A batch that needs several segments, with progress of one message in each of them, and perhaps
 * its end or a report that settles it. */
static void burst(struct run *r) {
    uint64_t about = some_queued(r), id;
    for (unsigned n = 3 + (unsigned)(rnd(r) % 12); n > 0 && (id = new_message(r, false)) != 0;
         n--) {
        r->m[id].size = 8000 + rnd(r) % (n % 4 == 0 ? 13000 : 6000);
        submit_new(r, id, 0, false);
        if (about != 0 && rnd(r) % 2 != 0)
            submit_progress(r, about);
    }
    unsigned last = (unsigned)(rnd(r) % 4);
    if (about != 0 && last == 0) {
        submit_done(r, about);
    } else if (about != 0 && last < 3 && (id = new_message(r, false)) != 0) {
        submit_new(r, id, about, last == 1);
    }
}

/* The end of nearly everything that is queued: what is left is copied on in the turns that follow.
 */
static void drain(struct run *r) {
    for (unsigned id = 1; id < r->n; id++)
        if (is_queued(&r->m[id]) && rnd(r) % 8 != 0)
            submit_done(r, id);
}

/* The version of the last step, or of the record before all steps.  A step that was written again
 * behind one that failed may be there twice; none that was told of is missing. */
static uint64_t found_version(struct run *r, const struct known *m, const struct spool_found *f) {
    struct str rest = f->progress, word;
    bool seen[VERSIONS_MAX] = {false};
    uint64_t version = 0, base = 0, v;
    if (verbose)
        printf("found %llu progress %.*s\n", (unsigned long long)f->id,
               STR_FMT(str_trim(f->progress)));
    while (str_split(&rest, "+", &word)) {
        if (!str_u64(str_trim(word), &v) || v >= VERSIONS_MAX)
            bad(r, "found with malformed progress", f->id);
        else
            seen[v] = true;
        base = f->progress.p[0] != '+' && version == 0 ? v : base;
        version = v > version ? v : version;
    }
    for (v = base + 1; v < version && !r->rotten; v++)
        if (m->told[v] && !seen[v])
            bad(r, "found without a step", f->id);
    return version;
}

static void on_found(void *arg, const struct spool_found *f) {
    struct run *r = arg;
    struct sbuf want = {0};
    if (f->id == 0 || f->id >= r->n) {
        bad(r, "an unknown message was found", f->id);
        return;
    }
    struct known *m = &r->m[f->id];
    meta_of(f->id, m->size, &want);
    if (m->found)
        bad(r, "found twice", f->id);
    m->found = true;
    if (!str_eq(f->meta, sbuf_str(&want)) || f->size != m->size)
        bad(r, "found with another envelope", f->id);
    uint64_t version = found_version(r, m, f);
    if (r->looks_back && version < m->prog_told)
        m->prog_told = (uint32_t)version;
    if (version < m->prog_told || version > m->prog_asked)
        bad(r, "found with old progress", f->id);
    sbuf_free(&want);
}

static int open_spool(struct run *r) {
    char *why = NULL;
    struct spool_conf conf = {"s", 64 << 10};
    for (unsigned i = 0; i < r->n; i++)
        r->m[i].found = false;
    int rc = spool_open(&r->sp, &conf, sim_io(r->disk), on_found, r, &why);
    free(why);
    return rc;
}

/* Compares what recovery found with what was told; cut: the power went, so what was not
 * answered may be there or not; behind: the spool said at its end that the disk did not take down
 * that a message does not count. */
static void check_found(struct run *r, bool cut, bool behind) {
    for (uint64_t id = 1; id < r->n; id++) {
        struct known *m = &r->m[id];
        bool ended = m->done_asked || m->done == TOLD_YES;
        const struct known *by = m->settled_by == 0 ? NULL : &r->m[m->settled_by];
        for (unsigned i = 0; i < m->n_maybe && i < MAYBE_MAX; i++)
            ended = ended || (by == NULL && cut && r->m[m->maybe_by[i]].found);
        if (m->new_ == TOLD_YES && !ended && by == NULL && !m->found)
            bad(r, "an acknowledged message is missing", id);
        if (by != NULL && m->new_ == TOLD_YES && !m->done_asked && !m->found && !by->found)
            bad(r, "settled by a report that is not there", id);
        if (by != NULL && m->settled_all && m->found && by->found)
            bad(r, "there, and the report that settles it too", id);
        if (m->done == TOLD_YES && m->found)
            bad(r, "a message whose end was noted is back", id);
        if (m->new_ == TOLD_NO && m->found && !cut && !behind)
            bad(r, "a refused message is there", id);
    }
}

/* As check_found, where the disk has changed something by itself: what is missing must be reported,
 * unless it was at the end of the log. */
static void check_rotten(struct run *r, bool newest, enum rot kind) {
    unsigned missing = 0, back = 0;
    struct spool_stats st;
    spool_stats(r->sp, &st);
    for (uint64_t id = 1; id < r->n; id++) {
        struct known *m = &r->m[id];
        missing += is_queued(m) && !m->found;
        back += m->done == TOLD_YES && m->found;
    }
    bool at_the_end = newest && kind != ROT_BIT && kind != ROT_SECTOR && kind != ROT_GONE;
    if (missing > 0 && st.damaged + st.unfinished == 0 && !at_the_end)
        bad(r, "something is missing, and that is not reported", missing);
    if (back > 0 && st.damaged + st.unfinished == 0 && !at_the_end)
        bad(r, "something is back, and that is not reported", back);
    if (missing > SECTOR_RECORDS && kind <= ROT_ZEROS)
        bad(r, "more is missing than what was damaged", missing);
}

/* From now on the script knows what recovery found. */
static void adopt_found(struct run *r) {
    for (uint64_t id = 1; id < r->n; id++) {
        struct known *m = &r->m[id];
        m->new_ = m->found ? TOLD_YES : TOLD_NO;
        m->done = m->found ? TOLD_NOTHING : TOLD_YES;
        m->done_asked = false;
        m->settled_by = m->n_maybe = 0;
    }
}

/* must: every content can be read. */
static void read_all(struct run *r, bool must) {
    for (uint64_t id = 1; id < r->n; id++)
        if (r->m[id].found)
            spool_submit(r->sp, &op_new(r, SPOOL_READ, id)->op);
    r->must_read = must;
    spool_turn(r->sp);
    r->must_read = false;
}

/* Turns of the script on an open spool; stops when the disk is dead. */
static void play(struct run *r, int turns) {
    for (int i = 0; i < turns && !sim_is_dead(r->disk); i++) {
        unsigned ops = 1 + (unsigned)(rnd(r) % 7);
        while (ops-- > 0 && !sim_is_dead(r->disk))
            step(r);
        if (!sim_is_dead(r->disk) && rnd(r) % 8 == 0)
            burst(r);
        if (!sim_is_dead(r->disk) && rnd(r) % 10 == 0)
            drain(r);
        spool_turn(r->sp);
    }
    for (int i = 0; i < 20 && !sim_is_dead(r->disk); i++)
        spool_turn(r->sp); /* what failed is tried again */
}

/* Has the disk refused to read what it has?  The spool has said so, and keeps it. */
static bool is_unread(const struct run *r, enum fault f) {
    struct spool_stats st;
    spool_stats(r->sp, &st);
    return f == FAULT_OUT && st.damaged > 0;
}

/* Opens the spool again after the fault, itself with a fault at its n-th call, and again with
 * others while chance wants that; then without. */
static void reopen(struct run *r, enum fault f, unsigned n) {
    bool cut = sim_is_dead(r->disk), behind = spool_is_behind(r->sp);
    close_spool(r);
    if (cut)
        sim_power_on(r->disk);
    else
        sim_restart(r->disk);
    for (unsigned turn = 0;; turn++) {
        if (verbose)
            printf("%s, fault %d at %u\n", cut ? "power cut" : "restart", (int)f, n);
        sim_fault(r->disk, f, n);
        const char *was_bad = r->bad;
        bool opened = open_spool(r) == 0;
        if (is_unread(r, f))
            r->bad = was_bad;
        if (!opened && f == FAULT_NONE)
            bad(r, "cannot be opened without a fault", 0);
        cut = cut || sim_is_dead(r->disk);
        if (f == FAULT_NONE || (opened && !sim_is_dead(r->disk) && !is_unread(r, f)))
            break;
        close_spool(r);
        if (sim_is_dead(r->disk))
            sim_power_on(r->disk);
        f = turn < 3 ? (enum fault)(rnd(r) % FAULT_COUNT) : FAULT_NONE;
        n = (unsigned)(rnd(r) % 40);
    }
    check_found(r, cut, behind);
    sim_fault(r->disk, FAULT_NONE, 0);
    struct spool_stats st;
    spool_stats(r->sp, &st);
    if (st.damaged > 0 && r->must_be_whole)
        bad(r, "what only a power cut did is called damage", 0);
    /* What could not be moved back to where it is read is back after the next start. */
    read_all(r, f != FAULT_FULL && f != FAULT_RO && f != FAULT_OUT);
    adopt_found(r);
}

struct cases {
    uint64_t n, dead;
};

/* seed: of the script; salt: of the disk. */
static struct run *run_new(uint64_t seed, uint64_t salt) {
    struct run *r = MEM_NEW(struct run);
    r->disk = sim_new(salt);
    r->rnd = seed * 0x2545f4914f6cdd1dULL + 99;
    r->n = 1;
    return r;
}

static void run_free(struct run *r) {
    sim_free(r->disk);
    free(r);
}

/* One case: the script with one fault, recovery with another, then the script goes on, and a power
 * cut with no warning, and a last look. */
static bool one_case(uint64_t seed, enum fault f, unsigned at, struct cases *c) {
    uint64_t salt = seed * 1000003 + at * 31 + f;
    struct run *r = run_new(seed, salt);
    if (open_spool(r) < 0)
        bad(r, "cannot be opened at first", 0);
    sim_fault(r->disk, f, at);
    if (salt % 3 == 0 && f != FAULT_GONE) /* what goes wrong once does so twice */
        sim_fault_then(r->disk, (enum fault)(salt / 3 % FAULT_COUNT), (unsigned)(salt / 7 % 60));
    play(r, TURNS);
    let_all_go(r);
    if (!sim_is_dead(r->disk))
        spool_turn(r->sp); /* what was removed meanwhile is noticed */
    c->dead += sim_is_dead(r->disk);
    c->n++;
    r->rnd = salt | 1;
    sim_tight(r->disk, rnd(r) % 4 == 0);
    reopen(r, (enum fault)(rnd(r) % FAULT_COUNT), (unsigned)(rnd(r) % 40));
    play(r, 6);
    sim_tight(r->disk, rnd(r) % 4 == 0);
    sim_fault(r->disk, FAULT_CUT, (unsigned)(rnd(r) % 30));
    play(r, 6);
    sim_tight(r->disk, false);
    r->must_be_whole = true;
    reopen(r, FAULT_NONE, 0);
    close_spool(r);
    bool ok = r->bad == NULL;
    if (!ok)
        printf("FAILED: %s: message %llu (sim_spool -s %llu -f %d -a %u -v)\n", r->bad,
               (unsigned long long)r->bad_id, (unsigned long long)seed, (int)f, at);
    run_free(r);
    return ok;
}

/* The disk changes a file by itself, or its owner does, while the spool is closed.  Then the script
 * goes on, and there is a power cut. */
static bool rot_case(uint64_t seed, unsigned at, struct cases *c) {
    uint64_t salt = seed * 1000003 + at * 31 + FAULT_COUNT;
    struct run *r = run_new(seed, salt);
    if (open_spool(r) < 0)
        bad(r, "cannot be opened at first", 0);
    play(r, TURNS / 2);
    struct sim *older = sim_copy(r->disk, salt);
    play(r, TURNS / 2);
    c->n++;
    r->rnd = salt | 1;
    close_spool(r);
    sim_restart(r->disk);
    enum rot kind = (enum rot)(rnd(r) % ROT_COUNT);
    r->rotten = r->looks_back = true;
    bool newest = sim_rot(r->disk, older, kind);
    if (open_spool(r) < 0)
        bad(r, "cannot be opened", 0);
    check_rotten(r, newest, kind);
    read_all(r, true);
    adopt_found(r);
    r->looks_back = false;
    play(r, 6);
    sim_fault(r->disk, FAULT_CUT, (unsigned)(rnd(r) % 30));
    play(r, 6);
    reopen(r, (enum fault)(rnd(r) % FAULT_COUNT), (unsigned)(rnd(r) % 40));
    close_spool(r);
    bool ok = r->bad == NULL;
    if (!ok)
        printf("FAILED: %s: message %llu, kind %d (sim_spool -s %llu -r -a %u -v)\n", r->bad,
               (unsigned long long)r->bad_id, (int)kind, (unsigned long long)seed, at);
    sim_free(older);
    run_free(r);
    return ok;
}

/* How many calls the script makes without a fault. */
static unsigned count_calls(uint64_t seed) {
    struct run *r = run_new(seed, seed);
    if (open_spool(r) < 0)
        abort();
    sim_fault(r->disk, FAULT_NONE, 0);
    r->faultless = true;
    play(r, TURNS);
    unsigned n = sim_calls(r->disk);
    close_spool(r);
    if (r->bad != NULL) {
        printf("FAILED: %s: message %llu (sim_spool -s %llu, without a fault)\n", r->bad,
               (unsigned long long)r->bad_id, (unsigned long long)seed);
        exit(1);
    }
    run_free(r);
    return n;
}

int main(int argc, char **argv) {
    uint64_t seed = 1;
    unsigned scripts = 10;
    int opt, only = -1, at = -1;
    bool rots = false;
    struct cases c = {0, 0};
    str_hash_key(1, 2); /* what a seed does is the same in every process */
    while ((opt = getopt(argc, argv, "s:n:f:a:rv")) != -1) {
        if (opt == 's')
            seed = strtoull(optarg, NULL, 10);
        else if (opt == 'n')
            scripts = (unsigned)atoi(optarg);
        else if (opt == 'f')
            only = atoi(optarg);
        else if (opt == 'a')
            at = atoi(optarg);
        else if (opt == 'r')
            rots = true;
        else if (opt == 'v')
            verbose = true;
        else
            return 2;
    }
    if (!verbose) /* what the spool says of each fault */
        log_open(&(struct log_conf){.name = "sim", .file = "/dev/null"});
    if (only >= 0 && at >= 0)
        return one_case(seed, (enum fault)only, (unsigned)at, &c) ? 0 : 1;
    if (rots && at >= 0)
        return rot_case(seed, (unsigned)at, &c) ? 0 : 1;
    for (unsigned s = 0; s < scripts; s++, seed++) {
        for (unsigned i = 0; i < ROT_CASES; i++)
            if (!rot_case(seed, i, &c))
                return 1;
        if (rots)
            continue;
        unsigned calls = count_calls(seed);
        for (unsigned i = 0; i < calls; i++)
            for (int f = FAULT_CUT; f < FAULT_ALL; f++)
                if (!one_case(seed, (enum fault)f, i, &c))
                    return 1;
    }
    printf("%llu cases, %llu of them power cuts, in %u scripts; nothing lost\n",
           (unsigned long long)c.n, (unsigned long long)c.dead, scripts);
    return 0;
}
