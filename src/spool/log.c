/*
 * spool/log.c - writing to the end of the log
 *
 * Spool thread only.  Records are gathered and written together: when there are many, before a
 * sync, and when the segment is left.  So what log_write() has taken may still fail to be written;
 * that, and whether it is durable, is what the segment says: nothing counts beyond segment.synced.
 */
#include "spool/log.h"

#include <errno.h>
#include <string.h>

#include "spool/moves.h"
#include "spool/newest.h"
#include "spool/segment.h"
#include "util/log.h"

/* Kept free in a segment for PROGRESS and DONE, so that a full disk can be emptied. */
#define RESERVE_MAX (256U << 10)
/* So many bytes of records are gathered at most; content of GATHER_BODY bytes and more is written
 * from where it is. */
#define GATHER_MAX  (256U << 10)
#define GATHER_BODY (16U << 10)
#define WIPE_STEP   4096U
/* So much of a segment that is written to again after a start is rewritten at once. */
#define REWRITE_STEP (256U << 10)

/* Writes what was gathered, then body and pad zeros: whole records.  Once a write has failed the
 * segment takes nothing more. */
static int log_flush(struct spool *s, struct str body, size_t pad) {
    static const char zeros[8];
    struct segment *g = s->head;
    struct iovec iov[3] = {{s->gathered.p, s->gathered.n},
                           {(void *)(uintptr_t)body.p, body.n},
                           {(void *)(uintptr_t)zeros, pad}};
    uint64_t done = 0;
    if (g->write_rc == 0) {
        g->write_rc = disk_write(s, g->fd, iov, 3, g->written, &done);
        g->tainted = g->write_rc == 0 ? 0 : done;
        g->written += g->write_rc == 0 ? done : 0;
    }
    sbuf_reset(&s->gathered);
    return g->write_rc;
}

int log_write(struct spool *s, const struct rec *r, uint64_t *off) {
    static const char zeros[8];
    struct segment *g = s->head;
    struct rec_head h = rec_head_of(g, r);
    uint64_t span = rec_span(h.meta_len, h.body_len);
    size_t pad = (size_t)(span - sizeof h - r->meta.n - r->body.n);
    *off = g->used;
    g->used += span;
    s->st.bytes_written += span;
    s->st.log_bytes += span;
    s->st.records++;
    sbuf_add(&s->gathered, &h, sizeof h);
    sbuf_add_str(&s->gathered, r->meta);
    if (r->body.n >= GATHER_BODY)
        return log_flush(s, r->body, pad);
    sbuf_add_str(&s->gathered, r->body);
    sbuf_add(&s->gathered, zeros, pad);
    return s->gathered.n < GATHER_MAX ? 0 : log_flush(s, STR_NONE, 0);
}

/* The file of g is gone: what is queued in it is to be written again. */
static void log_note_removed(struct spool *s, struct segment *g) {
    g->sync_rc = -ENOENT;
    s->rescue = true;
    if (g->no > s->removed_no)
        s->removed_no = g->no;
    log_error("spool",
              "segment %016llx was removed from log/ while it was in use; until what is queued in "
              "it is written again it outlives no stop",
              (unsigned long long)g->no);
}

bool log_find_removed(struct spool *s) {
    bool found = false;
    DL_EACH (it, &s->segments) {
        struct segment *g = DL_OWNER(it, struct segment, link);
        if (!segment_is_removed(g) && !g->unlinked && s->io->is_removed(s->io->arg, g->fd))
            log_note_removed(s, g);
        found = found || segment_is_removed(g);
    }
    return found;
}

int log_sync(struct spool *s) {
    struct segment *g = s->head;
    if (g->sync_rc < 0)
        return g->sync_rc;
    int rc = log_flush(s, STR_NONE, 0);
    if (g->synced < g->written) {
        g->sync_rc = s->io->datasync(s->io->arg, g->fd);
        if (g->sync_rc == 0) {
            g->synced = g->written;
        } else if (segment_is_removed(g)) {
            log_note_removed(s, g);
            log_find_removed(s); /* perhaps others too */
        } else {
            /* The kernel may have dropped the dirty pages: a second sync would succeed and lie. */
            log_error("spool", "fdatasync of segment %016llx failed: %s; using a new one",
                      (unsigned long long)g->no, strerror(-g->sync_rc));
        }
    }
    moves_settle(s);
    return g->sync_rc < 0 ? g->sync_rc : rc;
}

/* What was never written is not part of the segment. */
static void segment_trim(struct spool *s, struct segment *g) {
    s->st.log_bytes -= g->used - g->written;
    g->used = g->written;
}

/* Puts zeros over what a failed write may have left behind the end of g. */
static int log_wipe(struct spool *s, struct segment *g) {
    static const char zeros[WIPE_STEP];
    int rc = 0;
    for (uint64_t at = 0; at < g->tainted && rc == 0; at += WIPE_STEP) {
        size_t n = g->tainted - at < WIPE_STEP ? (size_t)(g->tainted - at) : WIPE_STEP;
        struct iovec iov = {(void *)(uintptr_t)zeros, n};
        rc = disk_write(s, g->fd, &iov, 1, g->written + at, NULL);
    }
    return rc;
}

/* What could not be written to g is given up.  After a full disk the place is used again when there
 * is room; where that gives another error, g is left. */
static void log_give_up(struct spool *s, struct segment *g) {
    segment_trim(s, g);
    int rc = disk_is_full(g->write_rc) ? log_wipe(s, g) : g->write_rc;
    if (!disk_is_full(rc))
        g->write_rc = rc;
}

void log_after_batch(struct spool *s) {
    struct segment *g = s->head;
    if (g == NULL || g->write_rc == 0)
        return;
    log_sync(s); /* copies that were not written must not be looked for where others will lie */
    log_give_up(s, g);
}

/* Opens a new segment of size bytes as the head.  What this batch has written to the old one is
 * made durable first: it will not be synced again.  An error that is found by that is returned, and
 * the next record finds a new segment. */
static int log_roll(struct spool *s, uint64_t size) {
    struct segment g;
    bool known = s->head != NULL && !segment_usable(s->head);
    int rc = s->head == NULL ? 0 : log_sync(s);
    if (rc == 0 || known)
        rc = segment_create(s, &g, size);
    if (rc < 0)
        return rc;
    if (s->head != NULL)
        segment_trim(s, s->head);
    s->head = segment_add(s, &g);
    newest_is(s, s->head);
    return 0;
}

/* Where records can be written behind all that was found in g.  What its gaps need to say so is
 * added to *span. */
static uint64_t adopted_end(const struct segment *g, uint64_t *span) {
    uint64_t end = g->used;
    for (size_t i = 0; i < g->n_gaps; i++) {
        const struct gap *gap = &g->gaps[i];
        if (gap->off + gap->n > end)
            end = (gap->off + gap->n + 7) & ~7ULL;
        *span += gap->known ? 0 : rec_span(sizeof(struct rec_unfinished), 0);
    }
    return end;
}

/* Writes again, in its place, what may be in memory only: a sync that failed before this start may
 * have dropped it, and the next one would succeed and lie. */
static int found_rewrite(const struct spool *s, const struct segment *g) {
    struct sbuf buf = {0};
    int rc = 0;
    for (uint64_t at = g->synced; at < g->used && rc == 0; at += REWRITE_STEP) {
        size_t n = g->used - at < REWRITE_STEP ? (size_t)(g->used - at) : REWRITE_STEP;
        struct iovec iov = {sbuf_room(&buf, n), n};
        rc = disk_read(s, g->fd, iov.iov_base, n, at);
        if (rc == 0)
            rc = disk_write(s, g->fd, &iov, 1, at, NULL);
    }
    sbuf_free(&buf);
    return rc;
}

/* Where a write was unfinished the mark stays: below it that would be damage. */
static void found_is_durable(struct segment *g) {
    bool broken = false;
    for (size_t i = 0; i < g->n_gaps; i++)
        broken = broken || g->gaps[i].off >= g->synced;
    g->soft = false;
    g->synced = broken ? g->synced : g->used;
}

int log_harden(struct spool *s) {
    int rc = 0;
    for (struct dl *it = s->segments.prev; it != &s->segments; it = it->prev) {
        struct segment *g = DL_OWNER(it, struct segment, link);
        if (!g->soft || g == s->head || !segment_usable(g))
            continue;
        int one = found_rewrite(s, g);
        if (one == 0)
            one = s->io->datasync(s->io->arg, g->fd);
        if (one == 0)
            found_is_durable(g);
        rc = rc == 0 ? one : rc;
    }
    return rc;
}

bool log_is_soft(const struct spool *s) {
    bool soft = false;
    DL_EACH (it, &s->segments)
        soft = soft || DL_OWNER(it, struct segment, link)->soft;
    return soft;
}

/* What is written behind an unfinished write would make damage of it, and of a message that does
 * not count one that does. */
static void adopted_explain(struct spool *s, struct segment *g) {
    uint64_t end = g->used, at;
    for (size_t i = 0; i < g->n_gaps; i++) {
        struct gap *gap = &g->gaps[i];
        if (gap->off + gap->n > end - 8) /* the last bytes; records begin at eighths */
            gap->n = end - gap->off;
        struct rec_unfinished u = {gap->off, gap->n};
        struct rec r = {
            .type = REC_FORGET, .id = gap->id, .meta = str_make((const char *)&u, sizeof u)};
        if (!gap->known)
            log_write(s, &r, &at); /* the sync says whether it worked */
    }
}

/* On a full disk, what is delivered can still be noted at the end of the last segment found. */
static bool log_adopt_last(struct spool *s, uint64_t span) {
    if (s->head != NULL || dl_empty(&s->segments))
        return false;
    struct segment *g = DL_OWNER(s->segments.prev, struct segment, link);
    uint64_t end = adopted_end(g, &span);
    if (!g->whole || !segment_usable(g) || end + span > g->size)
        return false;
    /* A process that was killed may not have made its name durable; nor does a sync that fails. */
    g->whole = spool_sync_dir(s, "log") == 0;
    if (!g->whole)
        return false;
    s->st.log_bytes += end - g->used;
    g->used = g->written = end;
    if (found_rewrite(s, g) < 0)
        return false;
    s->head = g;
    adopted_explain(s, g);
    if (log_sync(s) == 0)
        return true;
    log_give_up(s, g);
    s->head = NULL;
    return false;
}

static uint64_t log_reserve(const struct spool *s) {
    return s->segment_size / 4 < RESERVE_MAX ? s->segment_size / 4 : RESERVE_MAX;
}

/* Room for span bytes with keep bytes behind them. */
static int log_room_before(struct spool *s, uint64_t span, uint64_t keep) {
    const struct segment *g = s->head;
    if (g != NULL && segment_usable(g) && g->used + span + keep <= g->size)
        return 0;
    if (g != NULL && g->sync_rc == 0 && disk_is_full(g->write_rc))
        return g->write_rc; /* the same place is tried again after this batch */
    uint64_t size = rec_span(sizeof(struct rec_begin), 0) + span + log_reserve(s);
    if (size > SEGMENT_MAX)
        return -EFBIG;
    return log_roll(s, size > s->segment_size ? size : s->segment_size);
}

int log_room(struct spool *s, uint64_t span, bool may_use_reserve) {
    int rc = log_room_before(s, span, may_use_reserve ? 0 : log_reserve(s));
    return disk_is_full(rc) && may_use_reserve && log_adopt_last(s, span) ? 0 : rc;
}

int log_room_for_copy(struct spool *s, uint64_t span) {
    return log_room_before(s, span, log_reserve(s) / 2);
}
