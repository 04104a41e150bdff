/*
 * spool/io.c - the spool's system calls; see io.h
 */
#include "spool/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "util/fs.h"
#include "util/os.h"

#define DISCARD_STEP     (4 << 20)
#define DISCARD_PAUSE_NS 5000000L

static int io_open(void *arg, const char *path, int flags, mode_t mode) {
    (void)arg;
    int fd = open(path, flags | O_CLOEXEC, mode);
    return fd < 0 ? -errno : fd;
}

static void io_close(void *arg, int fd) {
    (void)arg;
    close(fd);
}

/* A large file given back to the file system at once holds up every sync meanwhile: little by
 * little it goes unnoticed. */
static void io_discard(void *arg, int fd) {
    struct stat st;
    if (fstat(fd, &st) == 0 && st.st_nlink == 0)
        for (off_t n = st.st_size - DISCARD_STEP; n > 0; n -= DISCARD_STEP) {
            if (ftruncate(fd, n) < 0)
                break;
            nanosleep(&(struct timespec){0, DISCARD_PAUSE_NS}, NULL);
        }
    io_close(arg, fd);
}

static ssize_t io_pwritev(void *arg, int fd, const struct iovec *iov, int n, uint64_t off) {
    (void)arg;
    ssize_t w;
    do {
        w = pwritev(fd, iov, n, (off_t)off);
    } while (w < 0 && errno == EINTR);
    return w < 0 ? -errno : w;
}

static ssize_t io_pread(void *arg, int fd, void *buf, size_t n, uint64_t off) {
    (void)arg;
    ssize_t r;
    do {
        r = pread(fd, buf, n, (off_t)off);
    } while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : r;
}

static int io_allocate(void *arg, int fd, uint64_t size) {
    (void)arg;
    return os_allocate(fd, size);
}

static bool io_is_removed(void *arg, int fd) {
    struct stat st;
    (void)arg;
    return fstat(fd, &st) == 0 && st.st_nlink == 0;
}

static int io_datasync(void *arg, int fd) {
    if (fdatasync(fd) < 0)
        return -errno;
    return io_is_removed(arg, fd) ? -ENOENT : 0;
}

static int io_sync_dir(void *arg, const char *dir) {
    (void)arg;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

/* A directory cannot be opened for writing, as fcntl's locks ask. */
static int io_lock(void *arg, int fd) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat st;
    (void)arg;
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
        return flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
    return fcntl(fd, F_OFD_SETLK, &whole) < 0 ? -errno : 0;
}

static int io_unlink(void *arg, const char *path) {
    (void)arg;
    return unlink(path) < 0 ? -errno : 0;
}

static int io_rename(void *arg, const char *from, const char *to) {
    (void)arg;
    return rename(from, to) < 0 ? -errno : 0;
}

static int io_mkdir(void *arg, const char *path) {
    (void)arg;
    return fs_mkdir(path, 0700);
}

static int io_random(void *arg, void *buf, size_t n) {
    (void)arg;
    return getentropy(buf, n) < 0 ? -errno : 0;
}

static int64_t io_size(void *arg, int fd) {
    (void)arg;
    struct stat st;
    return fstat(fd, &st) < 0 ? -errno : st.st_size;
}

static int io_list(void *arg, const char *dir, void (*fn)(void *ctx, const char *name), void *ctx) {
    (void)arg;
    DIR *d = opendir(dir);
    if (d == NULL)
        return -errno;
    struct dirent *e;
    while ((errno = 0, e = readdir(d)) != NULL)
        if (e->d_name[0] != '.')
            fn(ctx, e->d_name);
    int rc = -errno;
    closedir(d);
    return rc;
}

static int64_t io_space(void *arg, const char *dir) {
    (void)arg;
    struct statvfs v;
    if (statvfs(dir, &v) < 0)
        return -errno;
    if (v.f_files > 0 && v.f_favail < 16) /* no inodes: no new segment, no body file */
        return 0;
    return (int64_t)(v.f_bavail * v.f_frsize);
}

const struct spool_io spool_io_disk = {
    .open = io_open,
    .close = io_close,
    .discard = io_discard,
    .pwritev = io_pwritev,
    .pread = io_pread,
    .allocate = io_allocate,
    .datasync = io_datasync,
    .is_removed = io_is_removed,
    .sync_dir = io_sync_dir,
    .lock = io_lock,
    .unlink = io_unlink,
    .rename = io_rename,
    .mkdir = io_mkdir,
    .random = io_random,
    .size = io_size,
    .list = io_list,
    .space = io_space,
};
