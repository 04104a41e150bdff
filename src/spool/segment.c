/*
 * spool/segment.c - what a segment is on disk: its file, its name, the form of its records
 *
 * Spool thread only (and the starting thread during recovery).
 */
#include "spool/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "util/codec.h"
#include "util/log.h"
#include "util/mem.h"

uint64_t rec_span(uint32_t meta_len, uint64_t body_len) {
    uint64_t body = (body_len & REC_FILE_BIT) != 0 ? 0 : body_len;
    return (sizeof(struct rec_head) + meta_len + body + 7) & ~7ULL;
}

uint32_t rec_mark(uint64_t salt) {
    return salt == 0 ? REC_MARK_OLD : (uint32_t)salt;
}

uint32_t rec_crc(const struct segment *g, uint64_t off, const struct rec_head *h,
                 const void *meta) {
    uint32_t c = crc32c(0, &g->no, sizeof g->no);
    if (g->salt != 0) {
        c = crc32c(c, &g->salt, sizeof g->salt);
        c = crc32c(c, &off, sizeof off);
    }
    c = crc32c(c, &h->body_crc, sizeof *h - offsetof(struct rec_head, body_crc));
    return crc32c(c, meta, h->meta_len);
}

struct rec_head rec_head_of(const struct segment *g, const struct rec *r) {
    struct rec_head h = {.mark = rec_mark(g->salt),
                         .type = r->type,
                         .meta_len = (uint32_t)r->meta.n,
                         .id = r->id,
                         .body_len = r->body_len,
                         .body_crc = r->body_crc,
                         .synced = (uint32_t)(g->synced / 8)};
    h.crc = rec_crc(g, g->used, &h, r->meta.p);
    return h;
}

int disk_write(const struct spool *s, int fd, struct iovec *iov, int n, uint64_t off,
               uint64_t *done) {
    uint64_t at = off;
    int rc = 0;
    while (n > 0 && rc == 0) {
        if (iov->iov_len == 0) {
            iov++;
            n--;
            continue;
        }
        ssize_t w = s->io->pwritev(s->io->arg, fd, iov, n, at);
        if (w <= 0) {
            rc = w < 0 ? (int)w : -EIO;
            continue;
        }
        at += (uint64_t)w;
        for (; n > 0 && (size_t)w >= iov->iov_len; iov++, n--)
            w -= (ssize_t)iov->iov_len;
        if (n > 0) {
            iov->iov_base = (char *)iov->iov_base + w;
            iov->iov_len -= (size_t)w;
        }
    }
    if (done != NULL)
        *done = at - off;
    return rc;
}

bool disk_is_full(int rc) {
    return rc == -ENOSPC || rc == -EDQUOT;
}

int disk_read(const struct spool *s, int fd, void *buf, size_t n, uint64_t off) {
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

/* A message's record is the same, whatever it settles. */
static bool rec_is_like(const struct rec_head *h, const struct rec_head *like) {
    bool type = h->type == like->type || (h->type == REC_SETTLING && like->type == REC_MESSAGE);
    return type && h->id == like->id && h->meta_len == like->meta_len;
}

int rec_read(const struct spool *s, const struct segment *g, uint64_t off,
             const struct rec_head *like, size_t body_n, struct rec_head *h, struct sbuf *data) {
    int rc = disk_read(s, g->fd, h, sizeof *h, off);
    if (rc == 0 && (h->mark != rec_mark(g->salt) || !rec_is_like(h, like)))
        rc = -EBADMSG;
    sbuf_reset(data);
    size_t n = like->meta_len + body_n;
    if (rc == 0)
        rc = disk_read(s, g->fd, sbuf_room(data, n), n, off + sizeof *h);
    if (rc == 0 && rec_crc(g, off, h, data->p) != h->crc)
        rc = -EBADMSG;
    if (rc == 0)
        sbuf_advance(data, n);
    return rc;
}

char *segment_path(const struct spool *s, uint64_t no, uint64_t salt) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s/log/%016llx", s->dir, (unsigned long long)no);
    if (salt != 0)
        sbuf_printf(&b, "-%016llx", (unsigned long long)salt);
    return sbuf_take(&b);
}

int spool_sync_dir(const struct spool *s, const char *sub) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s/%s", s->dir, sub);
    int rc = s->io->sync_dir(s->io->arg, b.p);
    sbuf_free(&b);
    return rc;
}

/* Where the file of path has its place in damaged/; the caller frees. */
static char *path_aside(const struct spool *s, const char *kind, const char *path) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s/damaged/%s-%s", s->dir, kind, strrchr(path, '/') + 1);
    return sbuf_take(&b);
}

int spool_set_aside(const struct spool *s, const char *kind, const char *path) {
    char *to = path_aside(s, kind, path);
    int rc = s->io->rename(s->io->arg, path, to);
    if (rc == 0)
        rc = spool_sync_dir(s, "damaged");
    if (rc == 0)
        log_warn("spool", "%s is kept as %s", path, to);
    else
        log_error("spool", "%s cannot be moved to %s: %s", path, to, strerror(-rc));
    free(to);
    return rc;
}

/* Gives the file, in the folder KIND, a name by which no start takes it for what it was. */
static int spool_mark(const struct spool *s, const char *kind, const char *path) {
    struct sbuf to = {0};
    sbuf_printf(&to, "%s" MARK_DAMAGED, path);
    int rc = s->io->rename(s->io->arg, path, to.p);
    if (rc == 0)
        rc = spool_sync_dir(s, kind);
    if (rc == 0)
        log_warn("spool", "%s is kept as %s until the next start", path, to.p);
    sbuf_free(&to);
    return rc;
}

int spool_set_aside_or_mark(const struct spool *s, const char *kind, const char *path) {
    int rc = spool_set_aside(s, kind, path);
    int marked = rc == 0 ? 0 : spool_mark(s, kind, path);
    return marked == -ENOENT ? rc : marked; /* it was moved, and that may not be durable */
}

void spool_set_marked_aside(const struct spool *s, const char *kind, const char *path) {
    struct sbuf marked = {0};
    sbuf_printf(&marked, "%s" MARK_DAMAGED, path);
    spool_set_aside(s, kind, marked.p);
    sbuf_free(&marked);
}

/* Gives the file from, if it is there, the name path in the folder KIND. */
static int spool_rename_back(const struct spool *s, const char *kind, const char *from,
                             const char *path) {
    int fd = s->io->open(s->io->arg, from, O_RDONLY, 0);
    int rc = fd < 0 ? fd : s->io->rename(s->io->arg, from, path);
    if (fd >= 0)
        s->io->close(s->io->arg, fd);
    if (rc == 0)
        rc = spool_sync_dir(s, kind);
    if (rc == 0)
        log_warn("spool", "%s was kept as %s, and is back", path, from);
    return rc;
}

int spool_bring_back(const struct spool *s, const char *kind, const char *path) {
    struct sbuf marked = {0};
    sbuf_printf(&marked, "%s" MARK_DAMAGED, path);
    char *moved = path_aside(s, kind, path), *moved_later = path_aside(s, kind, marked.p);
    const char *const from[] = {moved, moved_later, marked.p};
    int rc = -ENOENT;
    for (size_t i = 0; i < 3 && rc < 0; i++)
        rc = spool_rename_back(s, kind, from[i], path);
    free(moved);
    free(moved_later);
    sbuf_free(&marked);
    return rc;
}

bool segment_is_removed(const struct segment *g) {
    return g->sync_rc == -ENOENT;
}

bool segment_usable(const struct segment *g) {
    return g->write_rc == 0 && g->sync_rc == 0;
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

/* The first record of g. */
static int segment_begin(struct spool *s, struct segment *g) {
    struct rec_begin b = {.salt = g->salt};
    if (!dl_empty(&s->segments)) {
        const struct segment *prev = DL_OWNER(s->segments.prev, struct segment, link);
        b.prev_no = prev->no;
        b.prev_synced = prev->synced;
        b.prev_salt = prev->salt;
    }
    struct rec r = {
        .type = REC_BEGIN, .id = s->st.last_id, .meta = str_make((const char *)&b, sizeof b)};
    struct rec_head h = rec_head_of(g, &r);
    struct iovec iov[2] = {{&h, sizeof h}, {&b, sizeof b}};
    g->used = g->written = g->synced = rec_span(sizeof b, 0);
    s->st.bytes_written += g->used;
    return disk_write(s, g->fd, iov, 2, 0, NULL);
}

/* Takes its name from a segment that could not be made durable.  Nothing is made before that is
 * sure: a newer segment would go before it, and be missed at the next start. */
static int segment_drop_stray(struct spool *s) {
    if (s->stray_no == 0)
        return 0;
    char *path = segment_path(s, s->stray_no, s->stray_salt);
    int rc = s->io->unlink(s->io->arg, path);
    if (rc == 0 || rc == -ENOENT)
        rc = spool_sync_dir(s, "log");
    if (rc == 0)
        s->stray_no = 0;
    free(path);
    return rc;
}

/* Gives g, which is in the file made, its name. */
static int segment_name(struct spool *s, const struct segment *g, const char *made) {
    char *path = segment_path(s, g->no, g->salt);
    int rc = s->io->rename(s->io->arg, made, path);
    if (rc >= 0)
        rc = spool_sync_dir(s, "log");
    if (rc < 0) {
        s->stray_no = g->no;
        s->stray_salt = g->salt;
        segment_drop_stray(s);
    }
    free(path);
    return rc;
}

/* A new file of full size, so that appends need no more metadata, with its first record: durable
 * before the file has its name. */
int segment_create(struct spool *s, struct segment *g, uint64_t size) {
    struct sbuf made = {0};
    int rc = segment_drop_stray(s);
    sbuf_printf(&made, "%s/log/new", s->dir);
    *g = (struct segment){.no = s->next_no++, /* never used twice, not even after a failure */
                          .size = size};
    while (rc == 0 && (uint32_t)g->salt == 0)
        rc = s->io->random(s->io->arg, &g->salt, sizeof g->salt);
    if (rc == 0)
        rc = g->fd = s->io->open(s->io->arg, made.p, O_RDWR | O_CREAT | O_TRUNC, 0600);
    bool opened = rc >= 0;
    if (rc >= 0)
        rc = s->io->allocate(s->io->arg, g->fd, size);
    if (rc >= 0)
        rc = segment_begin(s, g);
    if (rc >= 0)
        rc = s->io->datasync(s->io->arg, g->fd);
    if (rc >= 0)
        rc = segment_name(s, g, made.p);
    if (rc < 0 && opened) {
        s->io->close(s->io->arg, g->fd);
        s->io->unlink(s->io->arg, made.p);
    }
    sbuf_free(&made);
    return rc;
}

struct discard_job {
    struct task task;
    const struct spool_io *io;
    int fd;
};

static void discard_job_run(struct task *t) {
    struct discard_job *j = DL_OWNER(t, struct discard_job, task);
    if (body_in_log() > 0) /* of this file, perhaps: what is being sent from it stays whole */
        j->io->close(j->io->arg, j->fd);
    else
        j->io->discard(j->io->arg, j->fd);
    free(j);
}

/* Gives back what a removed segment occupies, on the reader thread; takes its descriptor over. */
static void segment_discard(struct spool *s, int fd) {
    struct discard_job *j = MEM_NEW(struct discard_job);
    j->task.run = discard_job_run;
    j->io = s->io;
    j->fd = fd;
    if (s->threads)
        queue_push(&s->reads, &j->task);
    else
        discard_job_run(&j->task);
}

int segment_remove(struct spool *s, struct segment *g) {
    if (atomic_load(&g->readers) > 0 || (g->damaged && s->damage_stays))
        return -EBUSY;
    char *path = segment_path(s, g->no, g->salt);
    int rc = g->damaged ? spool_set_aside_or_mark(s, "log", path) : s->io->unlink(s->io->arg, path);
    if (rc == -ENOENT) /* already gone: an unlink that was not made durable */
        rc = 0;
    g->unlinked = g->unlinked || rc == 0;
    if (rc == 0)
        rc = spool_sync_dir(s, "log");
    if (rc < 0 && !g->warned) {
        log_warn("spool", "cannot remove %s: %s; it is tried again", path, strerror(-rc));
        g->warned = true;
    }
    if (rc == 0) {
        segment_discard(s, g->fd);
        segment_free(s, g);
    }
    free(path);
    return rc;
}
