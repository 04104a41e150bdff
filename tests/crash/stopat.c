/*
 * Loaded into a command (LD_PRELOAD): kills it with SIGKILL before its n-th call that changes the
 * disk, STOP_AT says which, and STOP_IN which command if it starts others.  What was written and
 * not synced before is then on the disk or not, as the kernel has it: a test of a power cut is the
 * simulator's.
 */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static void step(void) {
    static long left = -1;
    if (left < 0) {
        const char *at = getenv("STOP_AT"), *in = getenv("STOP_IN");
        bool here = in == NULL || strcmp(in, program_invocation_short_name) == 0;
        left = at == NULL || !here ? 0 : atol(at);
    }
    if (left > 0 && --left == 0)
        kill(getpid(), SIGKILL);
}

/* The function that the command would have called. */
#define NEXT(name)                                                                                 \
    __typeof__(name) *next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name);                          \
    step()

int rename(const char *from, const char *to) {
    NEXT(rename);
    return next(from, to);
}

int renameat(int a, const char *from, int b, const char *to) {
    NEXT(renameat);
    return next(a, from, b, to);
}

int linkat(int a, const char *from, int b, const char *to, int flags) {
    NEXT(linkat);
    return next(a, from, b, to, flags);
}

int unlinkat(int dir, const char *path, int flags) {
    NEXT(unlinkat);
    return next(dir, path, flags);
}

int mkdirat(int dir, const char *path, mode_t mode) {
    NEXT(mkdirat);
    return next(dir, path, mode);
}

int unlink(const char *path) {
    NEXT(unlink);
    return next(path);
}

int rmdir(const char *path) {
    NEXT(rmdir);
    return next(path);
}

int mkdir(const char *path, mode_t mode) {
    NEXT(mkdir);
    return next(path, mode);
}

int fsync(int fd) {
    NEXT(fsync);
    return next(fd);
}

int fdatasync(int fd) {
    NEXT(fdatasync);
    return next(fd);
}

int fchmod(int fd, mode_t mode) {
    NEXT(fchmod);
    return next(fd, mode);
}

ssize_t write(int fd, const void *p, size_t n) {
    NEXT(write);
    return next(fd, p, n);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int n, off_t off) {
    NEXT(pwritev64);
    return next(fd, iov, n, off);
}
