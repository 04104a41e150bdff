/*
 * spool/look.c - the spool's system calls where nothing may be changed; see io.h
 *
 * Any thread.  What would change the disk succeeds and does nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <unistd.h>

#include "spool/io.h"

/* A file that would be made is nowhere. */
static int look_open(void *arg, const char *path, int flags, mode_t mode) {
    int rc = spool_io_disk.open(arg, path, O_RDONLY, mode);
    if (rc == -ENOENT && (flags & O_CREAT) != 0)
        rc = spool_io_disk.open(arg, "/dev/null", O_RDONLY, mode);
    return rc;
}

static void look_discard(void *arg, int fd) {
    spool_io_disk.close(arg, fd);
}

static ssize_t look_pwritev(void *arg, int fd, const struct iovec *iov, int n, uint64_t off) {
    ssize_t all = 0;
    (void)arg;
    (void)fd;
    (void)off;
    for (int i = 0; i < n; i++)
        all += (ssize_t)iov[i].iov_len;
    return all;
}

static int look_allocate(void *arg, int fd, uint64_t size) {
    (void)arg;
    (void)fd;
    (void)size;
    return 0;
}

static int look_datasync(void *arg, int fd) {
    (void)arg;
    (void)fd;
    return 0;
}

static bool look_is_removed(void *arg, int fd) {
    return spool_io_disk.is_removed(arg, fd);
}

static int look_path(void *arg, const char *path) {
    (void)arg;
    (void)path;
    return 0;
}

static int look_rename(void *arg, const char *from, const char *to) {
    (void)arg;
    (void)from;
    (void)to;
    return 0;
}

static int look_lock(void *arg, int fd) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    (void)arg;
    if (fcntl(fd, F_OFD_GETLK, &whole) < 0)
        return -errno;
    return whole.l_type == F_UNLCK ? 0 : -EAGAIN;
}

/* A directory that would be made is empty. */
static int look_list(void *arg, const char *dir, void (*fn)(void *ctx, const char *name),
                     void *ctx) {
    int rc = spool_io_disk.list(arg, dir, fn, ctx);
    return rc == -ENOENT ? 0 : rc;
}

static int look_random(void *arg, void *buf, size_t n) {
    return spool_io_disk.random(arg, buf, n);
}

static ssize_t look_pread(void *arg, int fd, void *buf, size_t n, uint64_t off) {
    return spool_io_disk.pread(arg, fd, buf, n, off);
}

static int64_t look_size(void *arg, int fd) {
    return spool_io_disk.size(arg, fd);
}

static int64_t look_space(void *arg, const char *dir) {
    return spool_io_disk.space(arg, dir);
}

const struct spool_io spool_io_look = {
    .open = look_open,
    .close = look_discard,
    .discard = look_discard,
    .pwritev = look_pwritev,
    .pread = look_pread,
    .allocate = look_allocate,
    .datasync = look_datasync,
    .is_removed = look_is_removed,
    .sync_dir = look_path,
    .lock = look_lock,
    .unlink = look_path,
    .rename = look_rename,
    .mkdir = look_path,
    .random = look_random,
    .size = look_size,
    .list = look_list,
    .space = look_space,
};
