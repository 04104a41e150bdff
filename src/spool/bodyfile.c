/*
 * spool/bodyfile.c - large content in a file of its own, while it is being received
 *
 * Spool thread only.  The descriptor that makes the file is kept until SPOOL_NEW has synced it, and
 * goes on with the body then: an error that the kernel meets when it writes the content back is
 * told to a descriptor that was open at that time, and to no other.
 */
#include "spool/bodyfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "spool/segment.h"
#include "util/codec.h"
#include "util/fs.h"
#include "util/log.h"
#include "util/mem.h"

/* A file that is being written. */
struct bodyfile {
    uint64_t id;
    int fd;
    int rc; /* of the first write that failed; 0: none did */
};

char *bodyfile_path(const struct spool *s, uint64_t id) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s/body/%016llx", s->dir, (unsigned long long)id);
    return sbuf_take(&b);
}

static void bodyfile_free(struct spool *s, struct bodyfile *f) {
    itab_del(&s->bodyfiles, f->id);
    free(f);
}

static void bodyfile_close(struct spool *s, struct bodyfile *f) {
    s->io->close(s->io->arg, f->fd);
    bodyfile_free(s, f);
}

static int bodyfile_make(struct spool *s, uint64_t id) {
    char *path = bodyfile_path(s, id);
    struct bodyfile *f = itab_get(&s->bodyfiles, id);
    if (f != NULL)
        bodyfile_close(s, f);
    int fd = s->io->open(s->io->arg, path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    free(path);
    if (fd < 0)
        return fd;
    if (fs_is_reserved(fd)) {
        s->io->close(s->io->arg, fd);
        bodyfile_unlink(s, id);
        return -EMFILE;
    }
    f = MEM_NEW(struct bodyfile);
    f->id = id;
    f->fd = fd;
    itab_put(&s->bodyfiles, id, f);
    return 0;
}

int bodyfile_write(struct spool *s, struct spool_op *op) {
    int rc = op->off == 0 ? bodyfile_make(s, op->id) : 0;
    struct bodyfile *f = itab_get(&s->bodyfiles, op->id);
    op->crc = crc32c(op->crc, op->chunk.p, op->chunk.n);
    if (rc < 0 || f == NULL)
        return rc < 0 ? rc : -EBADF;
    struct iovec iov = {op->chunk.p, op->chunk.n};
    if (f->rc == 0)
        f->rc = disk_write(s, f->fd, &iov, 1, op->off, NULL);
    return f->rc;
}

/* The sync of body/ failed: the names of files that are being written may be lost, and the next
 * sync would succeed and lie. */
static void bodyfiles_lost(struct spool *s, int rc) {
    size_t pos = 0;
    for (struct bodyfile *f; (f = itab_next(&s->bodyfiles, &pos)) != NULL;)
        f->rc = f->rc == 0 ? rc : f->rc;
}

int bodyfile_take(struct spool *s, uint64_t id, struct body *body) {
    struct bodyfile *f = itab_get(&s->bodyfiles, id);
    if (f == NULL)
        return -EBADF;
    int rc = f->rc;
    if (rc == 0)
        rc = s->io->datasync(s->io->arg, f->fd);
    if (rc == 0 && (rc = spool_sync_dir(s, "body")) < 0)
        bodyfiles_lost(s, rc);
    if (rc < 0) {
        bodyfile_close(s, f);
        return rc;
    }
    body_opened(body, s->io, f->fd);
    bodyfile_free(s, f);
    return 0;
}

void bodyfile_unlink(struct spool *s, uint64_t id) {
    char *path = bodyfile_path(s, id);
    s->io->unlink(s->io->arg, path);
    free(path);
}

int bodyfile_set_aside(const struct spool *s, uint64_t id) {
    char *path = bodyfile_path(s, id);
    int rc = spool_set_aside_or_mark(s, "body", path);
    free(path);
    return rc;
}

int bodyfile_bring_back(const struct spool *s, uint64_t id) {
    char *path = bodyfile_path(s, id);
    int rc = spool_bring_back(s, "body", path);
    free(path);
    return rc;
}

void bodyfile_drop(struct spool *s, uint64_t id) {
    struct bodyfile *f = itab_get(&s->bodyfiles, id);
    if (f != NULL)
        bodyfile_close(s, f);
    bodyfile_unlink(s, id);
}

void bodyfile_close_all(struct spool *s) {
    size_t pos = 0;
    for (struct bodyfile *f; (f = itab_next(&s->bodyfiles, &pos)) != NULL;) {
        s->io->close(s->io->arg, f->fd);
        free(f);
    }
    itab_free(&s->bodyfiles);
}
