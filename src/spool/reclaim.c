/*
 * spool/reclaim.c - giving back what the log does not need any more
 *
 * Spool thread only; after each batch.  Segments go in order, the oldest first.  What is still
 * queued in it is copied to the end of the log; the index follows when the copy is durable, and
 * only then the old segment may go.
 */
#include "spool/reclaim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "spool/log.h"
#include "spool/moves.h"
#include "spool/newest.h"
#include "spool/segment.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/mem.h"

/* At most this much is copied on after one batch: the next one does not wait long. */
#define COPY_MAX (2U << 20)
/* After so many batches a segment goes although the disk does not take down that it does, or does
 * not take again what is in it: what is queued is to fit. */
#define UNSAID_MAX 100U
/* What the disk refused to read is asked for again after this time. */
#define REFUSED_MS 60000

/* The progress of e, from a record of its own or from one that came with a report. */
static int reclaim_read_progress(const struct spool *s, const struct entry *e, struct sbuf *data,
                                 struct str *out) {
    struct rec_head h, own = {.type = REC_PROGRESS, .id = e->id, .meta_len = e->prog_len};
    struct rec_head settle = {
        .type = REC_SETTLE, .id = e->id, .meta_len = e->prog_len + SETTLE_HEAD};
    uint64_t off = entry_prog_off(e);
    *out = STR_NONE;
    if (e->prog_len == 0)
        return 0;
    int rc = rec_read(s, e->prog_seg, off, &own, 0, &h, data);
    *out = sbuf_str(data);
    if (rc != -EBADMSG)
        return rc;
    rc = rec_read(s, e->prog_seg, off - SETTLE_HEAD, &settle, 0, &h, data);
    *out = rc == 0 ? str_from(sbuf_str(data), SETTLE_HEAD) : STR_NONE;
    return rc;
}

/* Puts the steps of e behind its progress. */
static int reclaim_read_steps(const struct spool *s, const struct entry *e, struct sbuf *data,
                              struct str *progress) {
    struct sbuf all = {0}, one = {0};
    int rc = 0;
    if (e->steps == NULL)
        return 0;
    sbuf_add_str(&all, *progress);
    for (uint32_t i = 0; i < e->steps->n && rc == 0; i++) {
        const struct step *t = &e->steps->v[i];
        struct rec_head h, like = {.type = REC_STEP, .id = e->id, .meta_len = t->len};
        rc = rec_read(s, t->seg, (uint64_t)t->off * 8, &like, 0, &h, &one);
        sbuf_add_str(&all, sbuf_str(&one));
    }
    sbuf_free(&one);
    sbuf_free(data);
    *data = all;
    *progress = sbuf_str(data);
    return rc;
}

/* A queued message's record and progress, as they are on the disk. */
struct reclaimed {
    struct sbuf data; /* envelope, then the content that is in the record */
    struct sbuf prog; /* owns what progress shows */
    struct str progress;
    uint32_t body_crc;
};

static size_t reclaim_body_n(const struct entry *e) {
    return entry_has_file(e) ? 0 : (size_t)e->body_len;
}

static int reclaim_read(const struct spool *s, const struct entry *e, struct reclaimed *r) {
    struct rec_head h = {0}, like = {.type = REC_MESSAGE, .id = e->id, .meta_len = e->meta_len};
    int rc = rec_read(s, e->seg, entry_off(e), &like, reclaim_body_n(e), &h, &r->data);
    r->body_crc = h.body_crc;
    if (rc == 0)
        rc = reclaim_read_progress(s, e, &r->prog, &r->progress);
    return rc < 0 ? rc : reclaim_read_steps(s, e, &r->prog, &r->progress);
}

/* Writes a queued message and its progress again, at the end of the log. */
static int reclaim_write(struct spool *s, struct entry *e, const struct rec *message,
                         struct str progress) {
    struct rec p = {.type = REC_PROGRESS, .id = e->id, .meta = progress};
    struct move m = {.id = e->id, .prog_len = (uint32_t)progress.n};
    int rc = log_room_for_copy(s, rec_span(e->meta_len, e->body_len) + rec_span(m.prog_len, 0));
    if (rc == 0)
        rc = log_write(s, message, &m.off);
    if (rc == 0 && progress.n > 0)
        rc = log_write(s, &p, &m.prog_off);
    if (rc < 0)
        return rc;
    m.seg = s->head;
    m.end = s->head->used;
    moves_add(s, e, &m);
    return 0;
}

/* *bad is set if the disk does not give the message back: nothing of the new place is at fault. */
static int reclaim_copy(struct spool *s, struct entry *e, bool *bad) {
    struct reclaimed r = {0};
    int rc = reclaim_read(s, e, &r);
    *bad = rc < 0;
    if (rc == 0) {
        struct rec message = {.type = REC_MESSAGE,
                              .id = e->id,
                              .meta = str_make(r.data.p, e->meta_len),
                              .body = str_make(r.data.p + e->meta_len, reclaim_body_n(e)),
                              .body_len = e->body_len,
                              .body_crc = r.body_crc};
        rc = reclaim_write(s, e, &message, r.progress);
    }
    sbuf_free(&r.data);
    sbuf_free(&r.prog);
    return rc;
}

/* Is one of the steps of e the record at off of g?  They are in the order of the log: a segment may
 * have very many records of a message that are not needed any more. */
static bool reclaim_has_step(const struct entry *e, const struct segment *g, uint64_t off) {
    uint32_t from = 0, to = e->steps == NULL ? 0 : e->steps->n;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        const struct step *t = &e->steps->v[middle];
        if (t->seg == g && t->off == off / 8)
            return true;
        if (t->seg->no < g->no || (t->seg == g && t->off < off / 8))
            from = middle + 1;
        else
            to = middle;
    }
    return false;
}

/* The queued message that needs the record at off of g, which is one of message id; or NULL, also
 * when it was copied on with another of its records. */
static struct entry *reclaim_needed(struct spool *s, const struct segment *g, uint64_t off,
                                    uint64_t id) {
    struct entry *e = itab_get(&s->index, id);
    if (e == NULL || e->moving)
        return NULL;
    bool prog = e->prog_len > 0 && e->prog_seg == g && entry_prog_off(e) >= off &&
                entry_prog_off(e) <= off + SETTLE_HEAD;
    prog = prog || reclaim_has_step(e, g, off);
    return prog || (e->seg == g && entry_off(e) == off) ? e : NULL;
}

/* Where the gap that begins at off ends; 0: there is none. */
static uint64_t reclaim_gap_end(const struct segment *g, uint64_t off) {
    for (size_t i = 0; i < g->n_gaps; i++)
        if (g->gaps[i].off == off)
            return off + g->gaps[i].n;
    return 0;
}

/* The head of the record at off of g. */
static int reclaim_head(const struct spool *s, const struct segment *g, uint64_t off,
                        struct rec_head *h) {
    int rc = disk_read(s, g->fd, h, sizeof *h, off);
    return rc == 0 && h->mark != rec_mark(g->salt) ? -EBADMSG : rc;
}

/* Copies on what is queued in the oldest segment, a few megabytes at most.  *bad is set if g cannot
 * be read. */
static int reclaim_some(struct spool *s, struct segment *g, bool *bad) {
    uint64_t until = s->st.bytes_written + COPY_MAX;
    while (g->emptied < g->used && s->st.bytes_written < until) {
        struct rec_head h;
        uint64_t at = g->emptied, next = reclaim_gap_end(g, at);
        if (next == 0) {
            int rc = reclaim_head(s, g, at, &h);
            *bad = rc < 0;
            struct entry *e = rc < 0 ? NULL : reclaim_needed(s, g, at, h.id);
            if (e != NULL)
                rc = reclaim_copy(s, e, bad);
            if (rc < 0 || g->emptied != at) /* copies were lost: from the beginning, next time */
                return rc;
            next = at + rec_span(h.meta_len, h.body_len);
        }
        g->emptied = next;
    }
    return 0;
}

/* Durable, and found again after the older segments are gone: progress must lie behind the message.
 * Where a segment was removed, those before it go as well: it said of their messages that they had
 * ended. */
static bool entry_is_safe(const struct spool *s, const struct entry *e) {
    if (entry_off(e) >= e->seg->synced || e->seg->no <= s->removed_no)
        return false;
    for (uint32_t i = 0; e->steps != NULL && i < e->steps->n; i++)
        if ((uint64_t)e->steps->v[i].off * 8 >= e->steps->v[i].seg->synced)
            return false;
    if (e->prog_len == 0)
        return true;
    bool behind = e->prog_seg->no > e->seg->no || (e->prog_seg == e->seg && e->prog_off > e->off);
    return behind && entry_prog_off(e) < e->prog_seg->synced;
}

/* Something in g cannot be read: it stays, and so do all newer ones.  A disk that refuses once may
 * give it back the next time; bytes that are others stay so. */
static void reclaim_is_refused(struct segment *g, int rc) {
    g->stuck = g->stuck || rc == -EBADMSG;
    g->damaged = g->damaged || rc == -EBADMSG;
    g->refused = true;
    g->refused_ms = clock_mono_ms();
}

/* Is it too early to try again? */
static bool reclaim_rests(const struct segment *g) {
    return g->stuck || (g->refused && clock_mono_ms() - g->refused_ms < REFUSED_MS);
}

/* The disk does not give back a message that was found at start: it stays where it is, and the
 * segment with it. */
static void reclaim_pass_over(const struct entry *e, int rc) {
    log_error("spool", "message %016llx cannot be written again: %s; it is kept where it is",
              (unsigned long long)e->id, strerror(-rc));
    reclaim_is_refused(e->seg, rc);
}

/* A place that takes nothing does not hold up the rest for ever. */
static int rescue_in_place(struct spool *s) {
    int rc = log_harden(s);
    return rc < 0 && s->soft_tries++ < UNSAID_MAX ? rc : 0;
}

/* One message that cannot be read keeps none of the others from it. */
int log_rescue(struct spool *s) {
    size_t pos = 0;
    int rc = 0, soft_rc = rescue_in_place(s);
    for (struct entry *e; rc == 0 && (e = itab_next(&s->index, &pos)) != NULL;) {
        bool bad = false;
        if (!entry_is_safe(s, e)) /* what is to be written again goes first, as in reclaim_try */
            rc = s->retry != NULL ? -EAGAIN : reclaim_copy(s, e, &bad);
        if (bad) {
            reclaim_pass_over(e, rc);
            rc = 0;
        }
    }
    if (s->head != NULL) {
        int sync_rc = log_sync(s);
        rc = rc == 0 ? sync_rc : rc;
    }
    rc = rc == 0 ? soft_rc : rc;
    s->rescue = rc < 0;
    return rc;
}

/* Worth copying when there is more than one sealed segment and two thirds of all are dead. */
static bool reclaim_is_worth(const struct spool *s) {
    return s->st.segments > 2 && s->st.segments * s->segment_size > 3 * s->st.live_bytes;
}

/* True if g may go after the next sync.  What is to be written again waits first: it may be in the
 * log as well, and the end of a message counts for no copy behind it. */
static bool reclaim_try(struct spool *s, struct segment *g) {
    if (reclaim_rests(g) || s->retry != NULL || !reclaim_is_worth(s))
        return false;
    bool bad = false;
    int rc = reclaim_some(s, g, &bad);
    bool news = !g->refused || (rc == -EBADMSG && !g->stuck);
    if (bad && news)
        log_error("spool", "segment %016llx cannot be emptied: %s; it is kept%s",
                  (unsigned long long)g->no, strerror(-rc),
                  rc == -EBADMSG ? "" : ", and tried again");
    if (bad)
        reclaim_is_refused(g, rc);
    return rc == 0 && g->emptied >= g->used;
}

/* What the disk did not give back at start may be queued mail; of the rest, newer segments say what
 * has ended. */
static bool reclaim_must_wait(const struct segment *g) {
    return g->unread && !segment_is_removed(g);
}

void log_reclaim(struct spool *s) {
    if (s->head != NULL && s->head->sync_rc < 0)
        return;
    if (s->rescue && log_rescue(s) < 0)
        return;
    while (!dl_empty(&s->segments)) {
        struct segment *g = DL_OWNER(s->segments.next, struct segment, link);
        if (g == s->head || reclaim_must_wait(g) || (g->live > 0 && !reclaim_try(s, g)))
            return;
        if (s->head == NULL && g->link.next == &s->segments && !g->damaged)
            return; /* the last one says which IDs were used, until a new one says it */
        /* What was copied on must be durable before its old place goes. */
        if (s->head != NULL && log_sync(s) < 0)
            return;
        if (g->live > 0 && g->emptied >= g->used) {
            log_error("spool", "segment %016llx has records that cannot be found; it is kept",
                      (unsigned long long)g->no);
            g->stuck = g->damaged = true;
        }
        if (g->live > 0)
            return;
        /* A segment that goes without a word would be missed at the next start. */
        if (newest_goes(s, g) < 0 && g->unsaid++ < UNSAID_MAX)
            return;
        if (segment_remove(s, g) < 0)
            return;
    }
}
