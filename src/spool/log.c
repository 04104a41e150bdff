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
#define RESERVE (256U << 10)

uint64_t rec_span(uint32_t meta_len, uint64_t body_len) {
    uint64_t body = (body_len & REC_FILE_BIT) != 0 ? 0 : body_len;
    return (sizeof(struct rec_head) + meta_len + body + 7) & ~7ULL;
}

uint32_t rec_crc(const struct rec_head *h, uint64_t seg_no, const void *meta, const void *body) {
    uint32_t c = crc32c(0, &seg_no, sizeof seg_no);
    c = crc32c(c, &h->type, sizeof *h - offsetof(struct rec_head, type));
    c = crc32c(c, meta, h->meta_len);
    return (h->body_len & REC_FILE_BIT) != 0 ? c : crc32c(c, body, h->body_len);
}

char *log_segment_path(const struct spool *s, uint64_t no) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s/log/%016llx", s->dir, (unsigned long long)no);
    return sbuf_take(&b);
}

char *log_body_path(const struct spool *s, uint64_t id) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s/body/%016llx", s->dir, (unsigned long long)id);
    return sbuf_take(&b);
}

static int sync_log_dir(const struct spool *s) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s/log", s->dir);
    int rc = s->io->sync_dir(s->io->arg, b.p);
    sbuf_free(&b);
    return rc;
}

int log_roll(struct spool *s) {
    char *path = log_segment_path(s, s->next_no);
    int fd = s->io->open(s->io->arg, path, O_RDWR | O_CREAT | O_EXCL, 0600);
    int rc = fd < 0 ? fd : s->io->allocate(s->io->arg, fd, s->segment_size);
    if (rc >= 0)
        rc = s->io->datasync(s->io->arg, fd); /* the size, once: appends need no more metadata */
    if (rc >= 0)
        rc = sync_log_dir(s);
    if (rc < 0) {
        if (fd >= 0) {
            s->io->close(s->io->arg, fd);
            s->io->unlink(s->io->arg, path);
        }
        free(path);
        s->next_no++; /* a name is never used twice, not even after a failure */
        return rc;
    }
    struct segment *g = MEM_NEW(struct segment);
    g->no = s->next_no++;
    g->fd = fd;
    g->size = s->segment_size;
    dl_push(&s->segments, &g->link);
    s->head = g;
    s->st.segments++;
    free(path);
    return 0;
}

int log_room(struct spool *s, uint64_t span, bool may_use_reserve) {
    uint64_t need = span + (may_use_reserve ? 0 : RESERVE);
    if (s->head != NULL && !s->head->poisoned && s->head->used + need <= s->head->size)
        return 0;
    if (span + RESERVE > s->segment_size)
        return -EFBIG;
    return log_roll(s);
}

static ssize_t write_some(struct spool *s, struct iovec *iov, int n, uint64_t off) {
    return s->io->pwritev(s->io->arg, s->head->fd, iov, n, off);
}

/* Writes all of iov, going on after short writes. */
static int write_all(struct spool *s, struct iovec *iov, int n, uint64_t off) {
    while (n > 0) {
        ssize_t w = write_some(s, iov, n, off);
        if (w <= 0)
            return w < 0 ? (int)w : -EIO;
        off += (uint64_t)w;
        while (n > 0 && (size_t)w >= iov->iov_len) {
            w -= (ssize_t)iov->iov_len;
            iov++;
            n--;
        }
        if (n > 0) {
            iov->iov_base = (char *)iov->iov_base + w;
            iov->iov_len -= (size_t)w;
        }
    }
    return 0;
}

int log_write(struct spool *s, enum rec_type type, uint64_t id, struct str meta, struct str body,
              bool in_file, uint64_t file_size, uint64_t *off) {
    static const char zeros[8];
    struct rec_head h = {.magic = REC_MAGIC,
                         .type = type,
                         .meta_len = (uint32_t)meta.n,
                         .id = id,
                         .body_len = in_file ? file_size | REC_FILE_BIT : body.n};
    uint64_t span = rec_span(h.meta_len, h.body_len);
    h.crc = rec_crc(&h, s->head->no, meta.p, body.p);
    struct iovec iov[4] = {{&h, sizeof h},
                           {(void *)(uintptr_t)meta.p, meta.n},
                           {(void *)(uintptr_t)body.p, body.n},
                           {(void *)(uintptr_t)zeros, (size_t)(span - sizeof h - meta.n - body.n)}};
    int rc = write_all(s, iov, 4, s->head->used);
    if (rc < 0)
        return rc;
    *off = s->head->used;
    s->head->used += span;
    s->st.bytes_written += span;
    s->st.log_bytes += span;
    s->st.records++;
    return 0;
}

int log_sync(struct spool *s) {
    int rc = s->io->datasync(s->io->arg, s->head->fd);
    if (rc < 0) {
        /* The kernel may have dropped the dirty pages: syncing again would succeed and lie. */
        log_error("spool", "fdatasync of segment %016llx failed: %s; using a new one",
                  (unsigned long long)s->head->no, strerror(-rc));
        s->head->poisoned = true;
    }
    return rc;
}

static void entry_unlink(struct entry *e, struct spool *s) {
    uint64_t span = rec_span(e->meta_len, e->body_len);
    e->seg->live--;
    e->seg->live_bytes -= span;
    s->st.live_bytes -= span;
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
    e->off = off;
    e->meta_len = meta_len;
    e->body_len = body_len;
    seg->live++;
    seg->live_bytes += rec_span(meta_len, body_len);
    s->st.live_bytes += rec_span(meta_len, body_len);
}

void log_entry_progress(struct spool *s, uint64_t id, struct segment *seg, uint64_t off,
                        uint32_t meta_len) {
    struct entry *e = itab_get(&s->index, id);
    if (e == NULL)
        return;
    e->prog_seg = seg;
    e->prog_off = off;
    e->prog_len = meta_len;
}

void log_entry_del(struct spool *s, uint64_t id) {
    struct entry *e = itab_del(&s->index, id);
    if (e == NULL)
        return;
    entry_unlink(e, s);
    s->st.messages--;
    if ((e->body_len & REC_FILE_BIT) != 0) {
        char *path = log_body_path(s, id);
        s->io->unlink(s->io->arg, path);
        free(path);
    }
    free(e);
}

void segment_free(struct spool *s, struct segment *g) {
    dl_remove(&g->link);
    s->io->close(s->io->arg, g->fd);
    free(g);
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

static bool segment_remove(struct spool *s, struct segment *g) {
    if (atomic_load(&g->readers) > 0)
        return false;
    char *path = log_segment_path(s, g->no);
    int rc = s->io->unlink(s->io->arg, path);
    if (rc < 0)
        log_warn("spool", "cannot remove %s: %s", path, strerror(-rc));
    free(path);
    s->st.log_bytes -= g->used;
    s->st.segments--;
    segment_free(s, g);
    return true;
}

/* Copies a queued message and its progress from an old segment to the head. */
static int copy_on(struct spool *s, struct entry *e) {
    struct sbuf meta = {0}, body = {0}, prog = {0};
    bool file = (e->body_len & REC_FILE_BIT) != 0;
    size_t body_n = file ? 0 : (size_t)e->body_len;
    uint64_t at = e->off + sizeof(struct rec_head), off;
    int rc = read_full(s, e->seg->fd, sbuf_room(&meta, e->meta_len), e->meta_len, at);
    if (rc == 0)
        rc = read_full(s, e->seg->fd, sbuf_room(&body, body_n), body_n, at + e->meta_len);
    if (rc == 0 && e->prog_len > 0)
        rc = read_full(s, e->prog_seg->fd, sbuf_room(&prog, e->prog_len), e->prog_len,
                       e->prog_off + sizeof(struct rec_head));
    uint64_t span = rec_span(e->meta_len, e->body_len) + rec_span(e->prog_len, 0);
    if (rc == 0)
        rc = log_room(s, span, true);
    if (rc == 0)
        rc = log_write(s, REC_MESSAGE, e->id, str_make(meta.p, e->meta_len),
                       str_make(body.p, body_n), file, e->body_len & ~REC_FILE_BIT, &off);
    if (rc == 0) {
        log_entry_set(s, e->id, s->head, off, e->meta_len, e->body_len);
        if (e->prog_len > 0)
            rc = log_write(s, REC_PROGRESS, e->id, str_make(prog.p, e->prog_len), STR_NONE, false,
                           0, &off);
        if (rc == 0 && e->prog_len > 0)
            log_entry_progress(s, e->id, s->head, off, e->prog_len);
    }
    sbuf_free(&meta);
    sbuf_free(&body);
    sbuf_free(&prog);
    return rc;
}

/* Copies all that is queued in the oldest segment; one read of its record heads finds them. */
static int empty_segment(struct spool *s, struct segment *g) {
    struct rec_head h;
    for (uint64_t off = 0; off < g->used && g->live > 0;) {
        int rc = read_full(s, g->fd, &h, sizeof h, off);
        if (rc < 0)
            return rc;
        if (h.magic != REC_MAGIC) /* damage that recovery stepped over: on to the next record */
        {
            off += 8;
            continue;
        }
        struct entry *e = h.type == REC_MESSAGE ? itab_get(&s->index, h.id) : NULL;
        if (e != NULL && e->seg == g && e->off == off && (rc = copy_on(s, e)) < 0)
            return rc;
        off += rec_span(h.meta_len, h.body_len);
    }
    return g->live == 0 ? 0 : -EIO;
}

/* Worth copying when there is more than one sealed segment and two thirds of all are dead. */
static bool worth_emptying(const struct spool *s) {
    return s->st.segments > 2 && s->st.log_bytes > 3 * s->st.live_bytes;
}

void log_reclaim(struct spool *s) {
    for (;;) {
        struct segment *g = DL_OWNER(s->segments.next, struct segment, link);
        if (dl_empty(&s->segments) || g == s->head)
            return;
        if (g->live > 0) {
            if (!worth_emptying(s) || empty_segment(s, g) < 0 || log_sync(s) < 0)
                return;
        }
        if (!segment_remove(s, g))
            return;
    }
}
