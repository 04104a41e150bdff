/*
 * spool/io.h - everything the spool does to a disk
 *
 * One small table of functions, so that a test can stand behind it and fail, tear or forget any
 * call.  All return negative errno on failure; short writes are reported as they are.
 */
#ifndef PH_SPOOL_IO_H
#define PH_SPOOL_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct spool_io {
    int (*open)(void *arg, const char *path, int flags, mode_t mode);
    void (*close)(void *arg, int fd);
    /* Closes a file that was unlinked; may take its time. */
    void (*discard)(void *arg, int fd);
    ssize_t (*pwritev)(void *arg, int fd, const struct iovec *iov, int n, uint64_t off);
    ssize_t (*pread)(void *arg, int fd, void *buf, size_t n, uint64_t off);
    int (*allocate)(void *arg, int fd, uint64_t size);
    /* -ENOENT: the file was removed, so that nothing in it outlives the process. */
    int (*datasync)(void *arg, int fd);
    /* Does the file have no name any more?  Nothing in it outlives the process then. */
    bool (*is_removed)(void *arg, int fd);
    int (*sync_dir)(void *arg, const char *dir);
    /* Keeps other processes from locking the file or directory, as long as fd is open; -EAGAIN: one
     * has. */
    int (*lock)(void *arg, int fd);
    int (*unlink)(void *arg, const char *path);
    /* Within one file system; durable after sync_dir of both directories. */
    int (*rename)(void *arg, const char *from, const char *to);
    int (*mkdir)(void *arg, const char *path); /* 0 also if it is there */
    /* n bytes that cannot be guessed; n is at most 256. */
    int (*random)(void *arg, void *buf, size_t n);
    int64_t (*size)(void *arg, int fd);
    /* Calls fn with each file name in dir. */
    int (*list)(void *arg, const char *dir, void (*fn)(void *ctx, const char *name), void *ctx);
    /* Bytes that may still be written below dir; negative errno. */
    int64_t (*space)(void *arg, const char *dir);
    void *arg;
};

/* The real one. */
extern const struct spool_io spool_io_disk;
/* The real one for looking only: nothing is changed, and what is written is dropped.  A spool that
 * another process has cannot be locked. */
extern const struct spool_io spool_io_look;

#endif
