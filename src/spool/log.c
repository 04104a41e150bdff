/*
 * spool/log.c - segments and records; see log.h
 *
 * Spool thread only (and the starting thread during recovery).
 */
#include "spool/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "util/codec.h"
#include "util/log.h"
#include "util/mem.h"

/* Kept free in a segment for PROGRESS and DONE, so that a full disk can be emptied. */
#define RESERVE_MAX (256U << 10)
/* At most this much is copied on after one batch: the next one does not wait long. */
#define COPY_MAX (2U << 20)

uint64_t rec_span(uint32_t meta_len, uint64_t body_len) {
    uint64_t body = (body_len & REC_FILE_BIT) != 0 ? 0 : body_len;
    return (sizeof(struct rec_head) + meta_len + body + 7) & ~7ULL;
}

uint32_t rec_mark(uint64_t salt) {
    return salt == 0 ? REC_MARK_OLD : (uint32_t)salt;
}

uint32_t rec_crc(const struct rec_head *h, uint64_t no, uint64_t salt, const void *meta) {
    uint32_t c = crc32c(0, &no, sizeof no);
    if (salt != 0)
        c = crc32c(c, &salt, sizeof salt);
    c = crc32c(c, &h->body_crc, sizeof *h - offsetof(struct rec_head, body_crc));
    return crc32c(c, meta, h->meta_len);
}

char *log_segment_path(const struct spool *s, uint64_t no, uint64_t salt) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s/log/%016llx", s->dir, (unsigned long long)no);
    if (salt != 0)
        sbuf_printf(&b, "-%016llx", (unsigned long long)salt);
    return sbuf_take(&b);
}

char *log_body_path(const struct spool *s, uint64_t id) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s/body/%016llx", s->dir, (unsigned long long)id);
    return sbuf_take(&b);
}

int log_sync_dir(const struct spool *s, const char *sub) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s/%s", s->dir, sub);
    int rc = s->io->sync_dir(s->io->arg, b.p);
    sbuf_free(&b);
    return rc;
}

int log_set_aside(const struct spool *s, const char *kind, uint64_t id, const char *path) {
    struct sbuf to = {0};
    sbuf_printf(&to, "%s/damaged/%s-%016llx", s->dir, kind, (unsigned long long)id);
    int rc = s->io->rename(s->io->arg, path, to.p);
    if (rc == 0)
        rc = log_sync_dir(s, "damaged");
    if (rc == 0)
        log_warn("spool", "%s is kept as %s", path, to.p);
    else
        log_error("spool", "%s cannot be moved to %s: %s", path, to.p, strerror(-rc));
    sbuf_free(&to);
    return rc;
}

struct segment *segment_add(struct spool *s, const struct segment *like) {
    struct segment *g = MEM_NEW(struct segment);
    *g = *like;
    dl_push(&s->segments, &g->link);
    s->st.segments++;
    s->st.log_bytes += g->used;
    return g;
}

void segment_free(struct spool *s, struct segment *g) {
    dl_remove(&g->link);
    s->st.log_bytes -= g->used;
    s->st.segments--;
    free(g->gaps);
    free(g);
}

static struct rec_head rec_head_of(const struct segment *g, const struct rec *r) {
    struct rec_head h = {.mark = rec_mark(g->salt),
                         .type = r->type,
                         .meta_len = (uint32_t)r->meta.n,
                         .id = r->id,
                         .body_len = r->body_len,
                         .body_crc = r->body_crc,
                         .synced = (uint32_t)(g->synced / 8)};
    h.crc = rec_crc(&h, g->no, g->salt, r->meta.p);
    return h;
}

/* The first record of g. */
static int begin_write(struct spool *s, struct segment *g) {
    struct rec_begin b = {.salt = g->salt};
    if (!dl_empty(&s->segments)) {
        const struct segment *prev = DL_OWNER(s->segments.prev, struct segment, link);
        b.prev_no = prev->no;
        b.prev_synced = prev->synced;
        b.prev_salt = prev->salt;
    }
    struct rec r = {.type = REC_BEGIN, .meta = str_make((const char *)&b, sizeof b)};
    struct rec_head h = rec_head_of(g, &r);
    struct iovec iov[2] = {{&h, sizeof h}, {&b, sizeof b}};
    g->used = g->synced = rec_span(sizeof b, 0);
    s->st.bytes_written += g->used;
    return write_full(s, g->fd, iov, 2, 0);
}

/* A new file of full size, so that appends need no more metadata, with its first record: durable
 * before the file has its name. */
static int segment_create(struct spool *s, struct segment *g) {
    struct sbuf made = {0};
    char *path = NULL;
    sbuf_printf(&made, "%s/log/new", s->dir);
    *g = (struct segment){.no = s->next_no++, /* never used twice, not even after a failure */
                          .size = s->segment_size};
    int rc = 0;
    while (rc == 0 && (uint32_t)g->salt == 0)
        rc = s->io->random(s->io->arg, &g->salt, sizeof g->salt);
    if (rc == 0)
        rc = g->fd = s->io->open(s->io->arg, made.p, O_RDWR | O_CREAT | O_TRUNC, 0600);
    bool opened = rc >= 0;
    if (rc >= 0)
        rc = s->io->allocate(s->io->arg, g->fd, s->segment_size);
    if (rc >= 0)
        rc = begin_write(s, g);
    if (rc >= 0)
        rc = s->io->datasync(s->io->arg, g->fd);
    if (rc >= 0) {
        path = log_segment_path(s, g->no, g->salt);
        rc = s->io->rename(s->io->arg, made.p, path);
    }
    if (rc >= 0 && (rc = log_sync_dir(s, "log")) < 0)
        s->io->unlink(s->io->arg, path);
    if (rc < 0 && opened) {
        s->io->close(s->io->arg, g->fd);
        s->io->unlink(s->io->arg, made.p);
    }
    free(path);
    sbuf_free(&made);
    return rc;
}

/* Opens a new segment as the head.  What this batch has written to the old one is made durable
 * first: it will not be synced again. */
static int log_roll(struct spool *s) {
    struct segment g;
    int rc = s->head == NULL || s->head->sync_rc < 0 ? 0 : log_sync(s);
    if (rc == 0)
        rc = segment_create(s, &g);
    if (rc == 0)
        s->head = segment_add(s, &g);
    return rc;
}

/* On a full disk, what is delivered can still be noted at the end of the last segment found. */
static bool adopt_last(struct spool *s, uint64_t span) {
    if (s->head != NULL || dl_empty(&s->segments))
        return false;
    struct segment *g = DL_OWNER(s->segments.prev, struct segment, link);
    if (g->n_gaps > 0 || g->damaged || g->used + span > g->size)
        return false;
    s->head = g;
    return true;
}

int log_room(struct spool *s, uint64_t span, bool may_use_reserve) {
    uint64_t reserve = s->segment_size / 4 < RESERVE_MAX ? s->segment_size / 4 : RESERVE_MAX;
    uint64_t need = span + (may_use_reserve ? 0 : reserve);
    if (s->head != NULL && !s->head->full && s->head->sync_rc == 0 &&
        s->head->used + need <= s->head->size)
        return 0;
    if (rec_span(sizeof(struct rec_begin), 0) + span + reserve > s->segment_size)
        return -EFBIG;
    int rc = log_roll(s);
    return rc == -ENOSPC && may_use_reserve && adopt_last(s, span) ? 0 : rc;
}

/* Goes on after short writes. */
int write_full(const struct spool *s, int fd, struct iovec *iov, int n, uint64_t off) {
    while (n > 0) {
        if (iov->iov_len == 0) {
            iov++;
            n--;
            continue;
        }
        ssize_t w = s->io->pwritev(s->io->arg, fd, iov, n, off);
        if (w <= 0)
            return w < 0 ? (int)w : -EIO;
        off += (uint64_t)w;
        for (; w > 0 && (size_t)w >= iov->iov_len; iov++, n--)
            w -= (ssize_t)iov->iov_len;
        if (w > 0) {
            iov->iov_base = (char *)iov->iov_base + w;
            iov->iov_len -= (size_t)w;
        }
    }
    return 0;
}

int log_write(struct spool *s, const struct rec *r, uint64_t *off) {
    static const char zeros[8];
    struct segment *g = s->head;
    struct rec_head h = rec_head_of(g, r);
    uint64_t span = rec_span(h.meta_len, h.body_len);
    struct iovec iov[4] = {
        {&h, sizeof h},
        {(void *)(uintptr_t)r->meta.p, r->meta.n},
        {(void *)(uintptr_t)r->body.p, r->body.n},
        {(void *)(uintptr_t)zeros, (size_t)(span - sizeof h - r->meta.n - r->body.n)}};
    int rc = write_full(s, g->fd, iov, 4, g->used);
    if (rc < 0) {
        /* A place that cannot be written is left behind; a full disk is waited out. */
        g->full = g->full || (rc != -ENOSPC && rc != -EDQUOT);
        return rc;
    }
    *off = g->used;
    g->used += span;
    s->st.bytes_written += span;
    s->st.log_bytes += span;
    s->st.records++;
    return 0;
}

static void entry_unlink(struct entry *e, struct spool *s) {
    e->seg->live--;
    s->st.live_bytes -= rec_span(e->meta_len, e->body_len);
}

static void progress_unlink(struct entry *e, struct spool *s) {
    if (e->prog_len == 0)
        return;
    e->prog_seg->live--;
    s->st.live_bytes -= rec_span(e->prog_len, 0);
}

void log_entry_set(struct spool *s, uint64_t id, struct segment *seg, uint64_t off,
                   uint32_t meta_len, uint64_t body_len) {
    struct entry *e = itab_get(&s->index, id);
    if (e == NULL) {
        e = MEM_NEW(struct entry);
        e->id = id;
        itab_put(&s->index, id, e);
        s->st.messages++;
    } else {
        entry_unlink(e, s);
    }
    e->seg = seg;
    e->off = (uint32_t)(off / 8);
    e->meta_len = meta_len;
    e->body_len = body_len;
    seg->live++;
    s->st.live_bytes += rec_span(meta_len, body_len);
}

void log_entry_progress(struct spool *s, uint64_t id, struct segment *seg, uint64_t off,
                        uint32_t meta_len) {
    struct entry *e = itab_get(&s->index, id);
    if (e == NULL)
        return;
    progress_unlink(e, s);
    e->prog_seg = seg;
    e->prog_off = (uint32_t)(off / 8);
    e->prog_len = meta_len;
    if (meta_len == 0)
        return;
    seg->live++;
    s->st.live_bytes += rec_span(meta_len, 0);
}

void log_entry_drop(struct spool *s, uint64_t id) {
    struct entry *e = itab_del(&s->index, id);
    if (e == NULL)
        return;
    entry_unlink(e, s);
    progress_unlink(e, s);
    s->st.messages--;
    free(e);
}

void log_entry_del(struct spool *s, uint64_t id) {
    const struct entry *e = itab_get(&s->index, id);
    if (e == NULL)
        return;
    bool file = (e->body_len & REC_FILE_BIT) != 0;
    log_entry_drop(s, id);
    if (file)
        bodyfile_unlink(s, id);
}

/* The copies are durable: from now on they are the messages' records.  Progress that came later
 * than the copy stays. */
static void moves_apply(struct spool *s) {
    for (size_t i = 0; i < s->n_moves; i++) {
        const struct move *m = &s->moves[i];
        struct entry *e = itab_get(&s->index, m->id);
        if (e == NULL) /* settled meanwhile */
            continue;
        bool same = e->prog_seg == m->was_prog_seg && e->prog_off == m->was_prog_off;
        log_entry_set(s, e->id, m->seg, m->off, e->meta_len, e->body_len);
        if (e->prog_len > 0 && same)
            log_entry_progress(s, e->id, m->seg, m->prog_off, e->prog_len);
    }
    s->n_moves = 0;
}

/* The copies may be lost: the old records are kept, and copied again. */
static void moves_drop(struct spool *s) {
    DL_EACH (it, &s->segments)
        DL_OWNER(it, struct segment, link)->emptied = 0;
    s->n_moves = 0;
}

int log_sync(struct spool *s) {
    struct segment *g = s->head;
    if (g->sync_rc < 0)
        return g->sync_rc;
    if (g->synced >= g->used)
        return 0;
    int rc = s->io->datasync(s->io->arg, g->fd);
    if (rc < 0) {
        /* The kernel may have dropped the dirty pages: syncing again would succeed and lie. */
        log_error("spool", "fdatasync of segment %016llx failed: %s; using a new one",
                  (unsigned long long)g->no, strerror(-rc));
        g->sync_rc = rc;
        moves_drop(s);
    } else {
        g->synced = g->used;
        moves_apply(s);
    }
    return rc;
}

int read_full(const struct spool *s, int fd, void *buf, size_t n, uint64_t off) {
    char *at = buf;
    while (n > 0) {
        ssize_t r = s->io->pread(s->io->arg, fd, at, n, off);
        if (r <= 0)
            return r < 0 ? (int)r : -EIO;
        at += r;
        off += (uint64_t)r;
        n -= (size_t)r;
    }
    return 0;
}

int segment_remove(struct spool *s, struct segment *g) {
    if (atomic_load(&g->readers) > 0)
        return -EBUSY;
    char *path = log_segment_path(s, g->no, g->salt);
    int rc = g->damaged ? log_set_aside(s, "log", g->no, path) : s->io->unlink(s->io->arg, path);
    if (rc == -ENOENT) /* already gone: an unlink that was not made durable */
        rc = 0;
    if (rc == 0)
        rc = log_sync_dir(s, "log");
    if (rc < 0 && !g->warned) {
        log_warn("spool", "cannot remove %s: %s; it is tried again", path, strerror(-rc));
        g->warned = true;
    }
    if (rc == 0) {
        spool_discard(s, g->fd);
        segment_free(s, g);
    }
    free(path);
    return rc;
}

static void move_add(struct spool *s, const struct move *m) {
    if (s->n_moves == s->cap_moves) {
        s->cap_moves = s->cap_moves == 0 ? 64 : s->cap_moves * 2;
        s->moves = mem_realloc(s->moves, s->cap_moves * sizeof *s->moves);
    }
    s->moves[s->n_moves++] = *m;
}

/* Copies a queued message and its progress from an old segment to the head. */
static int copy_on(struct spool *s, struct entry *e, const struct rec_head *h) {
    struct sbuf data = {0}, prog = {0};
    size_t body_n = (e->body_len & REC_FILE_BIT) != 0 ? 0 : (size_t)e->body_len;
    int rc = read_full(s, e->seg->fd, sbuf_room(&data, e->meta_len + body_n), e->meta_len + body_n,
                       entry_off(e) + sizeof *h);
    if (rc == 0 && e->prog_len > 0)
        rc = read_full(s, e->prog_seg->fd, sbuf_room(&prog, e->prog_len), e->prog_len,
                       entry_prog_off(e) + sizeof *h);
    if (rc == 0)
        rc = log_room(s, rec_span(e->meta_len, e->body_len) + rec_span(e->prog_len, 0), true);
    struct rec r = {.type = REC_MESSAGE,
                    .id = e->id,
                    .meta = str_make(data.p, e->meta_len),
                    .body = str_make(data.p + e->meta_len, body_n),
                    .body_len = e->body_len,
                    .body_crc = h->body_crc};
    struct rec p = {.type = REC_PROGRESS, .id = e->id, .meta = str_make(prog.p, e->prog_len)};
    struct move m = {NULL, e->id, 0, 0, e->prog_seg, e->prog_off};
    if (rc == 0)
        rc = log_write(s, &r, &m.off);
    if (rc == 0 && e->prog_len > 0)
        rc = log_write(s, &p, &m.prog_off);
    m.seg = s->head;
    if (rc == 0)
        move_add(s, &m);
    sbuf_free(&data);
    sbuf_free(&prog);
    return rc;
}

/* Is the record at off of g one that a queued message needs? */
static struct entry *needed(struct spool *s, struct segment *g, uint64_t off, uint64_t id) {
    struct entry *e = itab_get(&s->index, id);
    if (e == NULL)
        return NULL;
    bool prog = e->prog_len > 0 && e->prog_seg == g && entry_prog_off(e) >= off &&
                entry_prog_off(e) <= off + SETTLE_HEAD;
    return prog || (e->seg == g && entry_off(e) == off) ? e : NULL;
}

/* The head of the message's own record, where its checksum is. */
static int message_head(const struct spool *s, const struct entry *e, struct rec_head *h) {
    return read_full(s, e->seg->fd, h, sizeof *h, entry_off(e));
}

/* Where the gap that begins at off ends; 0: there is none. */
static uint64_t gap_end(const struct segment *g, uint64_t off) {
    for (size_t i = 0; i < g->n_gaps; i++)
        if (g->gaps[i].off == off)
            return off + g->gaps[i].n;
    return 0;
}

/* Copies on what is queued in the oldest segment, a few megabytes at most. */
static int empty_some(struct spool *s, struct segment *g) {
    uint64_t until = s->st.bytes_written + COPY_MAX;
    while (g->emptied < g->used && s->st.bytes_written < until) {
        struct rec_head h, m;
        uint64_t over = gap_end(g, g->emptied);
        if (over > 0) {
            g->emptied = over;
            continue;
        }
        int rc = read_full(s, g->fd, &h, sizeof h, g->emptied);
        struct entry *e = rc < 0 ? NULL : needed(s, g, g->emptied, h.id);
        if (e != NULL && (rc = message_head(s, e, &m)) == 0)
            rc = copy_on(s, e, &m);
        if (rc < 0)
            return rc;
        g->emptied += rec_span(h.meta_len, h.body_len);
    }
    return 0;
}

/* Durable, and found again after the older segments are gone: progress must lie behind the message.
 */
static bool is_safe(const struct entry *e) {
    if (entry_off(e) >= e->seg->synced)
        return false;
    if (e->prog_len == 0)
        return true;
    bool behind = e->prog_seg->no > e->seg->no || (e->prog_seg == e->seg && e->prog_off > e->off);
    return behind && entry_prog_off(e) < e->prog_seg->synced;
}

/* Writes again what was found at start and is not safe where it is. */
static int rescue(struct spool *s) {
    size_t pos = 0;
    int rc = 0;
    for (struct entry *e; rc == 0 && (e = itab_next(&s->index, &pos)) != NULL;) {
        struct rec_head m;
        if (is_safe(e))
            continue;
        rc = message_head(s, e, &m);
        if (rc == 0)
            rc = copy_on(s, e, &m);
    }
    if (rc == 0 && s->head != NULL)
        rc = log_sync(s);
    s->rescue = rc < 0;
    return rc;
}

/* Worth copying when there is more than one sealed segment and two thirds of all are dead. */
static bool worth_emptying(const struct spool *s) {
    return s->st.segments > 2 && s->st.segments * s->segment_size > 3 * s->st.live_bytes;
}

/* True if g may go after the next sync. */
static bool try_emptying(struct spool *s, struct segment *g) {
    if (g->stuck || !worth_emptying(s))
        return false;
    int rc = empty_some(s, g);
    bool ours = s->head != NULL && (s->head->sync_rc < 0 || s->head->full); /* not g's fault */
    if (rc < 0 && rc != -ENOSPC && !ours) {
        log_error("spool", "segment %016llx cannot be emptied: %s; it is kept",
                  (unsigned long long)g->no, strerror(-rc));
        g->stuck = true;
    }
    return rc == 0 && g->emptied >= g->used;
}

void log_reclaim(struct spool *s) {
    if (s->head != NULL && s->head->sync_rc < 0)
        return;
    if (s->rescue && rescue(s) < 0)
        return;
    while (!dl_empty(&s->segments)) {
        struct segment *g = DL_OWNER(s->segments.next, struct segment, link);
        if (g == s->head || (g->live > 0 && !try_emptying(s, g)))
            return;
        /* What was copied on must be durable before its old place goes. */
        if (s->head != NULL && log_sync(s) < 0)
            return;
        if (g->live > 0 || segment_remove(s, g) < 0)
            return;
    }
}
