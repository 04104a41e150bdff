/*
 * util/os_linux.c - Linux; see os.h
 *
 * Landlock is called by number: headers know its first versions only, the kernel may know more, and
 * a newer kernel's extra rights are asked for by version.
 */
#include "util/os.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* -- processes -- */

int os_peer_uid(int fd, uid_t *uid) {
    struct ucred peer;
    socklen_t n = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0)
        return -errno;
    *uid = peer.uid;
    return 0;
}

void os_end_with_parent(void) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

void os_no_dumps(void) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0);
}

void os_no_new_rights(void) {
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

void os_title(const char *name) {
    prctl(PR_SET_NAME, name);
}

static int capabilities_keep(uint32_t caps) {
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct c[2] = {{0}, {0}};
    c[0].permitted = c[0].effective = caps;
    return (int)syscall(SYS_capset, &h, c);
}

int os_become(uid_t uid, gid_t gid, bool keep_read) {
    int rc = keep_read ? prctl(PR_SET_KEEPCAPS, 1) : 0;
    if (rc == 0 && (setgroups(0, NULL) < 0 || setgid(gid) < 0 || setuid(uid) < 0))
        rc = -1;
    if (rc == 0 && keep_read)
        rc = capabilities_keep(1U << CAP_DAC_READ_SEARCH);
    return rc;
}

int os_root_keeps_files(void) {
    return capabilities_keep(1U << CAP_DAC_READ_SEARCH | 1U << CAP_DAC_OVERRIDE | 1U << CAP_SETUID |
                             1U << CAP_SETGID) < 0
               ? -errno
               : 0;
}

bool os_program(char *path, size_t n) {
    ssize_t got = readlink("/proc/self/exe", path, n - 1);
    path[got < 0 ? 0 : got] = '\0';
    return got > 0;
}

unsigned os_thread(void) {
    return (unsigned)syscall(SYS_gettid);
}

/* -- descriptors -- */

int os_signals_open(const sigset_t *mask) {
    int fd = signalfd(-1, mask, SFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int os_signals_next(int fd) {
    struct signalfd_siginfo si;
    return read(fd, &si, sizeof si) == sizeof si ? (int)si.ssi_signo : 0;
}

int os_wake_open(int *to) {
    *to = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return *to < 0 ? -errno : *to;
}

void os_wake_clear(int fd) {
    eventfd_t n;
    (void)eventfd_read(fd, &n); /* fails where another turn has read it */
}

void os_wake_send(int to) {
    (void)eventfd_write(to, 1); /* fails only where the count is at its end: it can be read */
}

int os_memory_file(const char *name) {
    int fd = memfd_create(name, MFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static void unix_address(struct sockaddr_un *a, int at, const char *name) {
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(a->sun_path, sizeof a->sun_path, "/proc/self/fd/%d/%s", at, name);
}

int os_bind_at(int fd, int at, const char *name) {
    struct sockaddr_un a;
    unix_address(&a, at, name);
    return bind(fd, (struct sockaddr *)&a, sizeof a) < 0 ? -errno : 0;
}

int os_connect_at(int fd, int at, const char *name) {
    struct sockaddr_un a;
    unix_address(&a, at, name);
    return connect(fd, (struct sockaddr *)&a, sizeof a) < 0 ? -errno : 0;
}

int os_socket_of(uid_t uid, int family, int type) {
    uid_t before = (uid_t)setfsuid(uid); /* where that is not allowed, it stays as it is */
    int fd = socket(family, type | SOCK_CLOEXEC, 0), rc = fd < 0 ? -errno : fd;
    setfsuid(before);
    return rc;
}

int os_give(int fd, uid_t uid, gid_t gid) {
    return fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

int os_allocate(int fd, uint64_t size) {
    return -posix_fallocate(fd, 0, (off_t)size);
}

bool os_random(void *p, size_t n, bool wait) {
    return getrandom(p, n, wait ? 0 : GRND_NONBLOCK) == (ssize_t)n;
}

/* -- walls -- */

#ifdef PH_LANDLOCK

#define SCOPE_ALL 3U /* abstract unix sockets, signals */

/* struct landlock_ruleset_attr as of version 6; older kernels take its beginning. */
struct landlock_ruleset {
    uint64_t fs, net, scoped;
};

struct __attribute__((packed)) landlock_beneath {
    uint64_t allowed;
    int32_t parent_fd;
};

static int landlock_version(void) {
    return (int)syscall(SYS_landlock_create_ruleset, NULL, 0, 1U);
}

/* All file system rights that this version knows; those of enum os_right are numbered as its own.
 */
static uint64_t landlock_rights(int version) {
    unsigned bits = version >= 5 ? 16 : version >= 3 ? 15 : version >= 2 ? 14 : 13;
    return (1ULL << bits) - 1;
}

void os_wall_begin(struct os_wall *w) {
    int version = landlock_version();
    struct landlock_ruleset a = {.fs = landlock_rights(version),
                                 .scoped = version >= 6 ? SCOPE_ALL : 0};
    size_t size = version >= 6 ? 24 : version >= 4 ? 16 : 8;
    w->set = (int)syscall(SYS_landlock_create_ruleset, &a, size, 0U);
}

int os_wall_allow(struct os_wall *w, const char *path, uint64_t rights) {
    struct landlock_beneath p = {.allowed = rights & landlock_rights(landlock_version())};
    if (w->set < 0)
        return 0;
    p.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (p.parent_fd < 0)
        return 0;
    int rc = syscall(SYS_landlock_add_rule, w->set, 1, &p, 0U) < 0 ? -errno : 0;
    close(p.parent_fd);
    return rc;
}

int os_wall_stand(struct os_wall *w) {
    if (w->set < 0)
        return -EOPNOTSUPP; /* an old kernel, or one that was told to do without */
    int rc = syscall(SYS_landlock_restrict_self, w->set, 0U) < 0 ? -errno : 0;
    close(w->set);
    return rc;
}

#else
#include "util/os_no_wall.h"
#endif

const char *os_left_out(void) {
#if defined PH_SECCOMP && defined PH_LANDLOCK
    return NULL;
#elif defined PH_SECCOMP
    return "Landlock";
#elif defined PH_LANDLOCK
    return "seccomp";
#else
    return "seccomp, Landlock";
#endif
}
