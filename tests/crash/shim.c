/*
 * Loaded into the daemon (LD_PRELOAD) by the fault tests: fails calls, moves the clock, and tries
 * from inside what a confined process must not be able to do.
 *
 * Commands and answers go through a file that is mapped before the processes part; they could not
 * open one later.  See struct shim in shim.py, which has the same layout.
 */
#include <asm/sockios.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct shim {
    int32_t sync_errno; /* the next sync_count fdatasync calls fail with this */
    int32_t sync_count;
    int32_t read_errno; /* the next read_count pread calls fail with this */
    int32_t read_count;
    int64_t clock_s; /* added to the wall clock */
    int32_t probe;   /* 1: the relay, 2: the lookup process, 3: the page, 4: its helper, 5: an
                        audit: answers in out */
    int32_t answered;
    int32_t sync_delay_ms; /* the call before the first one that fails takes this long */
    int32_t no_fork;       /* no process can be made */
    int32_t write_errno;   /* the next write_count pwrite and pwritev calls fail with this */
    int32_t write_count;
    int32_t space_errno; /* statvfs fails with this; 0: it works */
    int32_t threads;     /* for which a process has room; 0: for all */
    int32_t threads_of;  /* that process, numbered as for probe */
    int32_t no_fds;      /* the relay has no room for descriptors that it is sent */
    char paths[4][256];  /* configuration file, secret table, segment of the spool, new file */
    char out[4096];
};

static volatile struct shim *ctl;

__attribute__((constructor)) static void map_control(void) {
    const char *path = getenv("SHIM_FILE");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    void *p =
        fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *ctl, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p != MAP_FAILED)
        ctl = p;
    if (fd >= 0)
        close(fd);
}

static int take(volatile int32_t *count) {
    if (ctl == NULL || *count <= 0)
        return 0;
    return __atomic_fetch_sub(count, 1, __ATOMIC_RELAXED) > 0;
}

static size_t note_text(size_t at, const char *what, const char *text);

/* For each descriptor the end of its file's path, and what was written since the last sync; to 0:
 * nothing. */
#define DIRTY_MAX 1024
static struct {
    char path[64];
    off_t from, to;
} dirty[DIRTY_MAX];

/* What is called here is open64: _FILE_OFFSET_BITS is 64. */
int open(const char *path, int flags, ...) {
    va_list ap;
    va_start(ap, flags);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, va_arg(ap, unsigned));
    va_end(ap);
    size_t n = strlen(path), max = sizeof dirty[0].path - 1;
    if (fd >= 0 && fd < DIRTY_MAX)
        strcpy(dirty[fd].path, n <= max ? path : path + n - max);
    return fd;
}

/* What is called here is pwritev64: _FILE_OFFSET_BITS is 64. */
ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t off) {
    if (ctl != NULL && take(&ctl->write_count)) {
        errno = ctl->write_errno;
        return -1;
    }
    ssize_t done = syscall(SYS_pwritev, fd, iov, n, off, 0);
    if (done > 0 && fd >= 0 && fd < DIRTY_MAX) {
        if (dirty[fd].to == 0 || off < dirty[fd].from)
            dirty[fd].from = off;
        if (off + done > dirty[fd].to)
            dirty[fd].to = off + done;
    }
    return done;
}

/* What is called here is pwrite64: _FILE_OFFSET_BITS is 64. */
ssize_t pwrite(int fd, const void *p, size_t n, off_t off) {
    struct iovec iov = {(void *)(uintptr_t)p, n};
    return pwritev(fd, &iov, 1, off);
}

/* A sync that fails leaves its bytes unwritten for ever: out names the file and the bytes, so that
 * a test can take them away when the process is gone, as a power cut would. */
static int sync_fails(int fd) {
    static size_t at;
    char text[48];
    if (fd >= 0 && fd < DIRTY_MAX && dirty[fd].to > 0) {
        snprintf(text, sizeof text, "%lld=%lld", (long long)dirty[fd].from,
                 (long long)dirty[fd].to);
        at = note_text(at, dirty[fd].path, text);
    }
    errno = ctl->sync_errno;
    return -1;
}

int fdatasync(int fd) {
    int fails = ctl != NULL && take(&ctl->sync_count);
    if (fails && ctl->sync_delay_ms > 0) {
        usleep((useconds_t)ctl->sync_delay_ms * 1000);
        ctl->sync_delay_ms = 0;
        __atomic_fetch_add(&ctl->sync_count, 1, __ATOMIC_RELAXED);
        fails = 0;
    }
    if (fails)
        return sync_fails(fd);
    int rc = (int)syscall(SYS_fdatasync, fd);
    if (rc == 0 && fd >= 0 && fd < DIRTY_MAX)
        dirty[fd].to = 0;
    return rc;
}

/* What is called here is statvfs64: _FILE_OFFSET_BITS is 64. */
int statvfs(const char *path, struct statvfs *out) {
    int (*real)(const char *, struct statvfs *);
    *(void **)&real = dlsym(RTLD_NEXT, "statvfs64");
    if (ctl == NULL || ctl->space_errno == 0)
        return real(path, out);
    errno = ctl->space_errno;
    return -1;
}

pid_t fork(void) {
    pid_t (*real)(void);
    *(void **)&real = dlsym(RTLD_NEXT, "fork");
    if (ctl == NULL || ctl->no_fork == 0)
        return real();
    errno = EAGAIN;
    return -1;
}

/* What is called here is pread64 in the library: _FILE_OFFSET_BITS is 64. */
ssize_t pread(int fd, void *buf, size_t n, off_t off) {
    if (ctl != NULL && take(&ctl->read_count)) {
        errno = ctl->read_errno;
        return -1;
    }
    return syscall(SYS_pread64, fd, buf, n, off);
}

int clock_gettime(clockid_t id, struct timespec *ts) {
    int rc = (int)syscall(SYS_clock_gettime, id, ts);
    if (rc == 0 && id == CLOCK_REALTIME && ctl != NULL)
        ts->tv_sec += ctl->clock_s;
    return rc;
}

time_t time(time_t *out) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (out != NULL)
        *out = ts.tv_sec;
    return ts.tv_sec;
}

static size_t note_text(size_t at, const char *what, const char *text) {
    size_t left = sizeof ctl->out - at;
    int n = snprintf((char *)(uintptr_t)ctl->out + at, left, "%s=%s\n", what, text);
    return (size_t)n < left ? at + (size_t)n : at;
}

static size_t note(size_t at, const char *what, long rc) {
    return note_text(at, what, rc >= 0 ? "ok" : strerrorname_np(errno));
}

static size_t try_open(size_t at, const char *what, const char *path, int flags) {
    long fd = syscall(SYS_openat, AT_FDCWD, path, flags, 0600);
    at = note(at, what, fd);
    if (fd >= 0)
        close((int)fd);
    return at;
}

static size_t try_socket(size_t at, const char *what, int family, int type) {
    long fd = syscall(SYS_socket, family, type, 0);
    at = note(at, what, fd);
    if (fd >= 0)
        close((int)fd);
    return at;
}

static void probe(void) {
    char *const argv[] = {"true", NULL};
    struct rlimit limit;
    size_t at = 0;
    at = try_open(at, "passwd", "/etc/passwd", O_RDONLY);
    at = try_open(at, "root", "/", O_RDONLY | O_DIRECTORY);
    at = try_open(at, "proc", "/proc/self/mem", O_RDWR);
    at = try_open(at, "config", (const char *)(uintptr_t)ctl->paths[0], O_RDONLY);
    at = try_open(at, "config_write", (const char *)(uintptr_t)ctl->paths[0], O_WRONLY);
    at = try_open(at, "secret", (const char *)(uintptr_t)ctl->paths[1], O_RDONLY);
    at = try_open(at, "spool", (const char *)(uintptr_t)ctl->paths[2], O_RDONLY);
    at = try_open(at, "spool_write", (const char *)(uintptr_t)ctl->paths[2], O_RDWR);
    at = try_open(at, "create", (const char *)(uintptr_t)ctl->paths[3], O_WRONLY | O_CREAT);
    at = try_socket(at, "inet", AF_INET, SOCK_STREAM);
    at = try_socket(at, "packet", AF_PACKET, SOCK_RAW);
    at = try_socket(at, "netlink", AF_NETLINK, SOCK_RAW);
    at = note(at, "exec", syscall(SYS_execve, "/bin/true", argv, argv));
    long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    at = note(at, "fork", pid);
    at = note(at, "ptrace", syscall(SYS_ptrace, PTRACE_ATTACH, getppid(), 0, 0));
    at = note(at, "kill", syscall(SYS_kill, getppid(), 0));
    int socket_fd = (int)syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
    pid_t parent = getppid();
    at = note(at, "own", syscall(SYS_fcntl, socket_fd, F_SETOWN, parent));
    at = note(at, "own_signal", syscall(SYS_fcntl, socket_fd, F_SETSIG, SIGTERM));
    at = note(at, "own_ioctl", syscall(SYS_ioctl, socket_fd, FIOSETOWN, &parent));
    at = note(at, "type", syscall(SYS_ioctl, socket_fd, TIOCSTI, "x"));
    close(socket_fd);
    at = note(at, "setuid", syscall(SYS_setuid, 0));
    at = note(at, "unshare", syscall(SYS_unshare, CLONE_NEWUSER));
    at = note(at, "mount", syscall(SYS_mount, "none", "/mnt", "tmpfs", 0, NULL));
    pid_t same_user = geteuid() == 0 ? 1 : parent; /* one that the kernel would allow */
    at = note(at, "limit", syscall(SYS_prlimit64, same_user, RLIMIT_CPU, NULL, &limit));
    at = note(at, "own_limit", syscall(SYS_prlimit64, 0, RLIMIT_CPU, NULL, &limit));
    at = note(at, "bpf", syscall(SYS_bpf, 0, NULL, 0));
    at = note(at, "keyctl", syscall(SYS_keyctl, 0, 0, 0, 0, 0));
    ctl->answered = 1;
}

static char role[16];

/* The name that a process gives itself says which one it is. */
int prctl(int op, ...) {
    va_list ap;
    va_start(ap, op);
    unsigned long a = va_arg(ap, unsigned long), b = va_arg(ap, unsigned long),
                  c = va_arg(ap, unsigned long), d = va_arg(ap, unsigned long);
    va_end(ap);
    if (op == PR_SET_NAME && (role[0] == '\0' || strcmp(role, "posthouse-help") == 0))
        snprintf(role, sizeof role, "%s", (const char *)a);
    return (int)syscall(SYS_prctl, op, a, b, c, d);
}

static const char *role_of(int32_t number) {
    static const char *const roles[] = {"",
                                        "posthouse-relay",
                                        "posthouse-looku",
                                        "posthouse-web",
                                        "posthouse-help",
                                        "posthouse-audit"};
    return roles[number % 6];
}

int pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*run)(void *), void *arg) {
    static int32_t made;
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    bool full = ctl != NULL && ctl->threads > 0 && strcmp(role, role_of(ctl->threads_of)) == 0 &&
                __atomic_fetch_add(&made, 1, __ATOMIC_RELAXED) >= ctl->threads;
    return full ? EAGAIN : real(t, attr, run, arg);
}

/* The relay and the lookup process wait in recvmsg for the supervisor, the helper for the page, the
 * page in recv for a request; an audit writes what it found. */
static void wake(void) {
    const char *want = ctl == NULL ? "" : role_of(ctl->probe);
    if (ctl != NULL && ctl->probe != 0 && !ctl->answered && strcmp(role, want) == 0)
        probe();
}

ssize_t recvmsg(int fd, struct msghdr *m, int flags) {
    bool full = ctl != NULL && ctl->no_fds != 0 && strcmp(role, role_of(1)) == 0;
    if (full) /* so it is without room: the message comes, and what it had is closed */
        m->msg_controllen = 0;
    ssize_t n = syscall(SYS_recvmsg, fd, m, flags);
    int err = errno;
    wake();
    errno = err;
    return n;
}

ssize_t write(int fd, const void *buf, size_t n) {
    if (strcmp(role, "posthouse-audit") == 0)
        wake();
    return syscall(SYS_write, fd, buf, n);
}

ssize_t recv(int fd, void *buf, size_t n, int flags) {
    ssize_t got = syscall(SYS_recvfrom, fd, buf, n, flags, NULL, NULL);
    int err = errno;
    wake();
    errno = err;
    return got;
}
