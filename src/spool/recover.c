/*
 * spool/recover.c - reading the log at start
 *
 * Segments are read in order.  Zeros after the last record are the unused end.  Anything else that
 * is no record is either the torn end of the last batch (nothing valid follows: dropped, nobody
 * was told 250) or damage (a valid record follows, or the segment is not the last): its bytes are
 * kept in damaged/, and reading goes on at the next valid record.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spool/log.h"
#include "util/fs.h"
#include "util/log.h"
#include "util/mem.h"

struct names {
    uint64_t *v;
    size_t n;
};

static void name_add(void *ctx, const char *name) {
    struct names *l = ctx;
    char *end;
    unsigned long long no = strtoull(name, &end, 16);
    if (*end != '\0' || strlen(name) != 16)
        return;
    l->v = mem_realloc(l->v, (l->n + 1) * sizeof *l->v);
    l->v[l->n++] = no;
}

static int cmp_u64(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int list_numbers(struct spool *s, const char *sub, struct names *l) {
    struct sbuf dir = {0};
    sbuf_printf(&dir, "%s/%s", s->dir, sub);
    int rc = s->io->list(s->io->arg, dir.p, name_add, l);
    sbuf_free(&dir);
    if (rc == 0 && l->n > 0)
        qsort(l->v, l->n, sizeof *l->v, cmp_u64);
    return rc;
}

/* A whole valid record at p?  Its span, or 0. */
static uint64_t rec_valid(const char *p, uint64_t left, uint64_t seg_no, struct rec_head *h) {
    if (left < sizeof *h)
        return 0;
    memcpy(h, p, sizeof *h);
    if (h->magic != REC_MAGIC || h->meta_len > REC_META_MAX || h->type < REC_MESSAGE ||
        h->type > REC_SETTLE)
        return 0;
    uint64_t body = (h->body_len & REC_FILE_BIT) != 0 ? 0 : h->body_len;
    if (body > left || rec_span(h->meta_len, h->body_len) > left)
        return 0;
    const char *meta = p + sizeof *h;
    if (rec_crc(h, seg_no, meta, meta + h->meta_len) != h->crc)
        return 0;
    return rec_span(h->meta_len, h->body_len);
}

static bool all_zero(const char *p, uint64_t n) {
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* Offset of the next valid record after off, or n. */
static uint64_t next_valid(const char *p, uint64_t n, uint64_t off, uint64_t seg_no) {
    struct rec_head h;
    for (off += 8; off < n; off += 8)
        if (rec_valid(p + off, n - off, seg_no, &h) > 0)
            return off;
    return n;
}

/* Keeps damaged bytes for whoever wants to look; never fails recovery. */
static void set_aside(struct spool *s, uint64_t seg_no, uint64_t off, const char *p, uint64_t n) {
    struct sbuf path = {0};
    sbuf_printf(&path, "%s/damaged/%016llx-%llu", s->dir, (unsigned long long)seg_no,
                (unsigned long long)off);
    int fd = s->io->open(s->io->arg, path.p, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    struct iovec iov = {(void *)(uintptr_t)p, (size_t)n};
    ssize_t w = fd < 0 ? fd : s->io->pwritev(s->io->arg, fd, &iov, 1, 0);
    if (fd >= 0)
        s->io->close(s->io->arg, fd);
    log_error("spool", "damage in segment %016llx at %llu: %llu bytes are no records; %s %s",
              (unsigned long long)seg_no, (unsigned long long)off, (unsigned long long)n,
              w < 0 ? "could not keep them in" : "kept in", path.p);
    s->st.damaged++;
    sbuf_free(&path);
}

/* REC_SETTLE's meta: what the message's own record settles of another one: id, then progress. */
static void apply_settle(struct spool *s, struct segment *g, uint64_t off,
                         const struct rec_head *h) {
    if (h->meta_len == 0)
        log_entry_del(s, h->id);
    else
        log_entry_progress(s, h->id, g, off, h->meta_len);
}

static void apply(struct spool *s, struct segment *g, uint64_t off, const struct rec_head *h) {
    switch (h->type) {
    case REC_MESSAGE:
        log_entry_set(s, h->id, g, off, h->meta_len, h->body_len);
        break;
    case REC_PROGRESS:
        log_entry_progress(s, h->id, g, off, h->meta_len);
        break;
    case REC_DONE:
        log_entry_del(s, h->id);
        break;
    default:
        apply_settle(s, g, off, h);
        break;
    }
}

static void scan(struct spool *s, struct segment *g, const char *p, uint64_t n, bool last) {
    uint64_t off = 0;
    struct rec_head h;
    while (off < n) {
        uint64_t span = rec_valid(p + off, n - off, g->no, &h);
        if (span > 0) {
            apply(s, g, off, &h);
            off += span;
            g->used = off;
            continue;
        }
        if (all_zero(p + off, n - off))
            return;
        uint64_t next = next_valid(p, n, off, g->no);
        if (next < n || !last) {
            set_aside(s, g->no, off, p + off, next - off);
        } else {
            log_warn("spool", "segment %016llx ends with a torn write at %llu: not acknowledged",
                     (unsigned long long)g->no, (unsigned long long)off);
        }
        off = next;
    }
}

static int recover_segment(struct spool *s, uint64_t no, bool last, const char **why) {
    char *path = log_segment_path(s, no);
    int fd = s->io->open(s->io->arg, path, O_RDWR, 0);
    free(path);
    if (fd < 0) {
        *why = "cannot open a segment of the spool";
        return fd;
    }
    struct segment *g = MEM_NEW(struct segment);
    g->no = no;
    g->fd = fd;
    dl_push(&s->segments, &g->link);
    s->st.segments++;
    int64_t size = s->io->size(s->io->arg, fd);
    struct sbuf data = {0};
    int rc = size < 0 ? (int)size : 0;
    if (rc == 0) {
        char *p = sbuf_room(&data, (size_t)size);
        rc = read_full(s, fd, p, (size_t)size, 0);
        if (rc == 0)
            scan(s, g, p, (uint64_t)size, last);
    }
    g->size = (uint64_t)(size < 0 ? 0 : size);
    s->st.log_bytes += g->used;
    s->next_no = no + 1;
    sbuf_free(&data);
    if (rc < 0)
        *why = "cannot read a segment of the spool";
    return rc;
}

static int report_entry(struct spool *s, const struct entry *e,
                        void (*found)(void *arg, const struct spool_found *f), void *arg) {
    struct sbuf meta = {0}, prog = {0};
    int rc = read_full(s, e->seg->fd, sbuf_room(&meta, e->meta_len), e->meta_len,
                       e->off + sizeof(struct rec_head));
    if (rc == 0 && e->prog_len > 0)
        rc = read_full(s, e->prog_seg->fd, sbuf_room(&prog, e->prog_len), e->prog_len,
                       e->prog_off + sizeof(struct rec_head));
    if (rc == 0) {
        struct spool_found f = {.id = e->id,
                                .meta = str_make(meta.p, e->meta_len),
                                .progress = str_make(prog.p, e->prog_len),
                                .size = e->body_len & ~REC_FILE_BIT};
        found(arg, &f);
    }
    sbuf_free(&meta);
    sbuf_free(&prog);
    return rc;
}

/* Body files of messages that never became ours. */
static void drop_orphans(struct spool *s) {
    struct names l = {0};
    if (list_numbers(s, "body", &l) == 0) {
        for (size_t i = 0; i < l.n; i++) {
            struct entry *e = itab_get(&s->index, l.v[i]);
            if (e != NULL && (e->body_len & REC_FILE_BIT) != 0)
                continue;
            char *path = log_body_path(s, l.v[i]);
            s->io->unlink(s->io->arg, path);
            free(path);
        }
    }
    free(l.v);
}

int log_recover(struct spool *s, void (*found)(void *arg, const struct spool_found *f), void *arg,
                const char **why) {
    struct names l = {0};
    int rc = list_numbers(s, "log", &l);
    if (rc < 0)
        *why = "cannot list the spool";
    for (size_t i = 0; i < l.n && rc == 0; i++)
        rc = recover_segment(s, l.v[i], i + 1 == l.n, why);
    free(l.v);
    size_t pos = 0;
    for (struct entry *e; rc == 0 && (e = itab_next(&s->index, &pos)) != NULL;)
        rc = report_entry(s, e, found, arg);
    if (rc < 0 && *why == NULL)
        *why = "cannot read a message of the spool";
    if (rc == 0)
        drop_orphans(s);
    return rc;
}
