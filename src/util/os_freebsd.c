/*
 * util/os_freebsd.c - FreeBSD 13 and later; see os.h
 *
 * There is no wall round the file system: Capsicum takes all names from a process, and tables are
 * opened by name.  Users, no_new_privs and the end with the parent are as on Linux.
 */
#include <pthread_np.h>
#include <sys/mman.h>
#include <sys/procctl.h>
#include <sys/socket.h>
#include <sys/sysctl.h>
#include <sys/types.h>

#include "util/os_bsd.h"
#include "util/os_no_wall.h"

void os_end_with_parent(void) {
    int number = SIGKILL;
    procctl(P_PID, 0, PROC_PDEATHSIG_CTL, &number);
}

void os_no_dumps(void) {
    struct rlimit none = {0, 0};
    int off = PROC_TRACE_CTL_DISABLE;
    setrlimit(RLIMIT_CORE, &none);
    procctl(P_PID, 0, PROC_TRACE_CTL, &off);
}

void os_no_new_rights(void) {
    int on = PROC_NO_NEW_PRIVS_ENABLE;
    procctl(P_PID, 0, PROC_NO_NEW_PRIVS_CTL, &on);
}

bool os_program(char *path, size_t n) {
    int name[] = {CTL_KERN, KERN_PROC, KERN_PROC_PATHNAME, -1};
    return sysctl(name, 4, path, &n, NULL, 0) == 0;
}

unsigned os_thread(void) {
    return (unsigned)pthread_getthreadid_np();
}

int os_memory_file(const char *name) {
    int fd = memfd_create(name, MFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static void unix_address(struct sockaddr_un *a, const char *name) {
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    strlcpy(a->sun_path, name, sizeof a->sun_path);
}

int os_bind_at(int fd, int at, const char *name) {
    struct sockaddr_un a;
    unix_address(&a, name);
    return bindat(at, fd, (struct sockaddr *)&a, sizeof a) < 0 ? -errno : 0;
}

int os_connect_at(int fd, int at, const char *name) {
    struct sockaddr_un a;
    unix_address(&a, name);
    return connectat(at, fd, (struct sockaddr *)&a, sizeof a) < 0 ? -errno : 0;
}

int os_socket_of(uid_t uid, int family, int type) {
    (void)uid;
    int fd = socket(family, type | SOCK_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

int os_give(int fd, uid_t uid, gid_t gid) {
    return fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

int os_allocate(int fd, uint64_t size) {
    int rc = posix_fallocate(fd, 0, (off_t)size);
    return rc == EINVAL || rc == EOPNOTSUPP ? allocate_by_writing(fd, size) : -rc;
}

int os_calls_limit(unsigned kinds) {
    (void)kinds;
    return -ENOSYS;
}

const char *os_left_out(void) {
    return "seccomp, Landlock";
}
