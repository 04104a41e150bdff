/*
 * spool/read.c - content back from disk
 *
 * The writer, which knows where a message lies, hands a job to the reader thread, which may block.
 * Content is checked against the sum that was stored with it: what the disk has changed is never
 * sent, and the writer is told of it, so that nothing of it is deleted when the message ends.
 */
#include "spool/read.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "spool/bodyfile.h"
#include "spool/segment.h"
#include "util/codec.h"
#include "util/log.h"
#include "util/mem.h"

#define PIECE 65536U

struct read_job {
    struct task task;
    struct spool *s;
    struct spool_op *op;
    struct segment *seg;
    uint64_t off; /* of the record */
    uint64_t size;
    uint32_t meta_len;
    bool in_file;
};

static void read_job_run(struct task *t);

void spool_read(struct spool *s, struct spool_op *op) {
    struct entry *e = itab_get(&s->index, op->id);
    if (e == NULL) {
        op->rc = -ENOENT;
        op->done(op);
        return;
    }
    struct read_job *j = MEM_NEW(struct read_job);
    j->task.run = read_job_run;
    j->s = s;
    j->op = op;
    j->seg = e->seg;
    j->in_file = (e->body_len & REC_FILE_BIT) != 0;
    j->off = entry_off(e);
    j->meta_len = e->meta_len;
    j->size = e->body_len & ~REC_FILE_BIT;
    atomic_fetch_add(&e->seg->readers, 1);
    queue_push(&s->reads, &j->task);
}

static int read_job_memory(struct spool *s, struct read_job *j, uint64_t at, uint32_t crc) {
    struct sbuf b = {0};
    int rc = disk_read(s, j->seg->fd, sbuf_room(&b, (size_t)j->size), (size_t)j->size, at);
    if (rc == 0 && crc32c(0, b.p, (size_t)j->size) != crc)
        rc = -EBADMSG;
    if (rc == 0) {
        sbuf_advance(&b, (size_t)j->size);
        j->op->body = body_from_buf(&b);
    }
    sbuf_free(&b);
    return rc;
}

static int read_job_file_crc(const struct spool *s, int fd, uint64_t from, uint64_t size,
                             uint32_t *crc) {
    char *buf = mem_alloc(PIECE);
    int rc = 0;
    *crc = 0;
    for (uint64_t at = 0; at < size && rc == 0;) {
        size_t n = size - at < PIECE ? (size_t)(size - at) : PIECE;
        rc = disk_read(s, fd, buf, n, from + at);
        if (rc == 0)
            *crc = crc32c(*crc, buf, n);
        at += n;
    }
    free(buf);
    return rc;
}

/* The content stays in the file, where it begins at from. */
static int read_job_leave(struct spool *s, struct read_job *j, char *path, uint64_t from,
                          uint32_t wanted) {
    int fd = s->io->open(s->io->arg, path, O_RDONLY, 0);
    uint32_t crc;
    free(path);
    if (fd < 0)
        return fd;
    int rc = read_job_file_crc(s, fd, from, j->size, &crc);
    if (rc == 0 && crc != wanted)
        rc = -EBADMSG;
    if (rc < 0) {
        s->io->close(s->io->arg, fd);
        return rc;
    }
    j->op->body = body_from_file(j->size, crc);
    j->op->body->from = from;
    body_opened(j->op->body, s->io, fd);
    return 0;
}

static int read_job_file(struct spool *s, struct read_job *j, const struct rec_head *h) {
    return read_job_leave(s, j, bodyfile_path(s, j->op->id), 0, h->body_crc);
}

/* A log file that was removed from its folder, or changed there, is read by its descriptor. */
static int read_job_record(struct spool *s, struct read_job *j, const struct rec_head *h) {
    uint64_t at = j->off + sizeof *h + j->meta_len, max = j->op->memory_max;
    bool much = max > 0 && body_memory() + j->size > max;
    if (much &&
        read_job_leave(s, j, segment_path(s, j->seg->no, j->seg->salt), at, h->body_crc) == 0)
        return 0;
    return read_job_memory(s, j, at, h->body_crc);
}

/* The record's head, if the record is the message's own. */
static int read_job_head(const struct spool *s, const struct read_job *j, struct rec_head *h) {
    struct rec_head like = {.type = REC_MESSAGE, .id = j->op->id, .meta_len = j->meta_len};
    struct sbuf meta = {0};
    int rc = rec_read(s, j->seg, j->off, &like, 0, h, &meta);
    sbuf_free(&meta);
    return rc;
}

static void damaged_told(struct spool_op *op) {
    free(op);
}

/* Tells the writer, before the message's owner learns of the damage and may end the message.  The
 * segment stays until the writer has heard of it.  in_file: its record is whole. */
static void read_job_damaged(const struct read_job *j, bool in_file) {
    struct spool_op *op = MEM_NEW(struct spool_op);
    op->kind = SPOOL_DAMAGED;
    op->id = j->op->id;
    op->seg = j->seg;
    op->has_file = in_file;
    op->done = damaged_told;
    queue_push(&j->s->ops, &op->task);
}

static void read_job_run(struct task *t) {
    struct read_job *j = DL_OWNER(t, struct read_job, task);
    struct spool *s = j->s;
    struct spool_op *op = j->op;
    struct rec_head h;
    op->rc = read_job_head(s, j, &h);
    bool whole = op->rc == 0;
    if (whole)
        op->rc = j->in_file ? read_job_file(s, j, &h) : read_job_record(s, j, &h);
    if (op->rc == -EBADMSG)
        log_error("spool", "the content of message %016llx was damaged on disk: it is not sent",
                  (unsigned long long)op->id);
    if (op->rc == -EBADMSG || op->rc == -EIO)
        read_job_damaged(j, whole && j->in_file);
    else
        atomic_fetch_sub(&j->seg->readers, 1);
    op->done(op);
    free(j);
}
