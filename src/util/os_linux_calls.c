/*
 * util/os_linux_calls.c - the seccomp filter; see os_calls_limit in os.h
 *
 * A list of what is allowed.  clone is allowed for threads only, and clone3, which has flags that a
 * filter cannot see, is answered ENOSYS so that the C library falls back to it.  Of fcntl and ioctl
 * some commands are allowed: others make the kernel signal a process of the caller's choice
 * (F_SETOWN, F_SETSIG, FIOSETOWN), or type at the terminal that the daemon was started from
 * (TIOCSTI).  Limits of other processes may not be set: the kernel kills one that has no processor
 * time left.
 */
#include "util/os.h"

#ifdef PH_SECCOMP

#include <errno.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <sched.h>
#include <seccomp.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLONE_NEW_ANY                                                                              \
    ((scmp_datum_t)(unsigned)(CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET |          \
                              CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP))

static const int common[] = {
    /* memory and threads */
    SCMP_SYS(brk), SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(mprotect),
    SCMP_SYS(madvise), SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(exit),
    SCMP_SYS(exit_group), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity), SCMP_SYS(gettid),
    SCMP_SYS(getpid), SCMP_SYS(getppid), SCMP_SYS(restart_syscall), SCMP_SYS(membarrier),
    /* time and chance */
    SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep),
    SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(getrandom),
    /* descriptors and files: which ones is Landlock's part */
    SCMP_SYS(read), SCMP_SYS(readv), SCMP_SYS(pread64), SCMP_SYS(write), SCMP_SYS(writev),
    SCMP_SYS(close), SCMP_SYS(openat), SCMP_SYS(open), SCMP_SYS(fstat), SCMP_SYS(stat),
    SCMP_SYS(lstat), SCMP_SYS(newfstatat), SCMP_SYS(statx), SCMP_SYS(lseek), SCMP_SYS(getdents64),
    SCMP_SYS(dup), SCMP_SYS(dup2), SCMP_SYS(dup3), SCMP_SYS(access), SCMP_SYS(faccessat),
    SCMP_SYS(faccessat2), SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(getcwd),
    SCMP_SYS(statfs), SCMP_SYS(fstatfs), SCMP_SYS(flock), SCMP_SYS(pipe2), SCMP_SYS(eventfd2),
    SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(select), SCMP_SYS(pselect6),
    /* who we are, for libraries that ask */
    SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getegid), SCMP_SYS(uname),
    SCMP_SYS(sysinfo), SCMP_SYS(getrlimit), SCMP_SYS(getrusage),
    /* sockets that are open already, and the log's */
    SCMP_SYS(sendmsg), SCMP_SYS(recvmsg), SCMP_SYS(sendto), SCMP_SYS(recvfrom), SCMP_SYS(sendmmsg),
    SCMP_SYS(recvmmsg), SCMP_SYS(connect), SCMP_SYS(shutdown), SCMP_SYS(getsockopt),
    SCMP_SYS(setsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername)};

static const int files[] = {SCMP_SYS(pwrite64),  SCMP_SYS(pwritev),   SCMP_SYS(pwritev2),
                            SCMP_SYS(fallocate), SCMP_SYS(fsync),     SCMP_SYS(fdatasync),
                            SCMP_SYS(unlink),    SCMP_SYS(unlinkat),  SCMP_SYS(mkdir),
                            SCMP_SYS(mkdirat),   SCMP_SYS(ftruncate), SCMP_SYS(umask),
                            SCMP_SYS(rename),    SCMP_SYS(renameat)};

static const int loops[] = {
    SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl),    SCMP_SYS(epoll_wait),
    SCMP_SYS(epoll_pwait),   SCMP_SYS(epoll_pwait2), SCMP_SYS(accept4),
    SCMP_SYS(bind),          SCMP_SYS(socketpair),   SCMP_SYS(rt_sigtimedwait)};

static const unsigned fcntls[] = {F_DUPFD,  F_DUPFD_CLOEXEC, F_GETFD,     F_SETFD,
                                  F_GETFL,  F_SETFL,         F_GETLK,     F_SETLK,
                                  F_SETLKW, F_OFD_GETLK,     F_OFD_SETLK, F_OFD_SETLKW};

static const unsigned ioctls[] = {FIONBIO, FIONREAD, FIOCLEX, FIONCLEX, TCGETS, TIOCGWINSZ};

/* A process that starts others, each of which confines itself further. */
static const int children[] = {SCMP_SYS(wait4),
                               SCMP_SYS(setuid),
                               SCMP_SYS(setgid),
                               SCMP_SYS(setgroups),
                               SCMP_SYS(setresuid),
                               SCMP_SYS(setresgid),
                               SCMP_SYS(capset),
                               SCMP_SYS(alarm),
                               SCMP_SYS(setitimer),
                               SCMP_SYS(chdir),
                               SCMP_SYS(seccomp),
                               SCMP_SYS(prctl),
                               SCMP_SYS(landlock_create_ruleset),
                               SCMP_SYS(setrlimit),
                               SCMP_SYS(landlock_add_rule),
                               SCMP_SYS(landlock_restrict_self)};

static int allow(scmp_filter_ctx f, const int *calls, size_t n) {
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, calls[i], 0);
    return rc;
}

/* The commands of a call that has one as its second argument, of which the kernel takes 32 bits. */
static int allow_commands(scmp_filter_ctx f, int call, const unsigned *commands, size_t n) {
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, call, 1,
                              SCMP_A1(SCMP_CMP_MASKED_EQ, UINT32_MAX, commands[i]));
    return rc;
}

static int allow_family(scmp_filter_ctx f, int family) {
    return seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
                            SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)family));
}

/* Calls that depend on an argument. */
static int allow_some(scmp_filter_ctx f, bool network, bool fork) {
    /* threads, or also processes; neither in namespaces of their own */
    scmp_datum_t mask = fork ? CLONE_NEW_ANY : CLONE_THREAD;
    int rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                              SCMP_A0(SCMP_CMP_MASKED_EQ, mask, fork ? 0U : CLONE_THREAD));
    if (rc == 0)
        rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    if (rc == 0) /* abort() */
        rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                              SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
    if (rc == 0) /* one's own limits */
        rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1, SCMP_A0(SCMP_CMP_EQ, 0U));
    if (rc == 0 && !fork)
        rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
                              SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
    if (rc == 0)
        rc = allow_family(f, AF_UNIX);
    if (rc == 0 && network)
        rc = allow_family(f, AF_INET);
    if (rc == 0 && network)
        rc = allow_family(f, AF_INET6);
    return rc;
}

int os_calls_limit(unsigned kinds) {
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int rc = f == NULL ? -ENOMEM : allow(f, common, sizeof common / sizeof common[0]);
    if (rc == 0)
        rc = allow_commands(f, SCMP_SYS(fcntl), fcntls, sizeof fcntls / sizeof fcntls[0]);
    if (rc == 0)
        rc = allow_commands(f, SCMP_SYS(ioctl), ioctls, sizeof ioctls / sizeof ioctls[0]);
    if (rc == 0 && (kinds & OS_CALLS_FILES) != 0)
        rc = allow(f, files, sizeof files / sizeof files[0]);
    if (rc == 0 && (kinds & OS_CALLS_CHILDREN) != 0)
        rc = allow(f, children, sizeof children / sizeof children[0]);
    if (rc == 0 && (kinds & OS_CALLS_LOOPS) != 0)
        rc = allow(f, loops, sizeof loops / sizeof loops[0]);
    if (rc == 0)
        rc = allow_some(f, (kinds & OS_CALLS_NETWORK) != 0, (kinds & OS_CALLS_CHILDREN) != 0);
    if (rc == 0)
        rc = seccomp_load(f);
    seccomp_release(f);
    return rc;
}

#else

#include <errno.h>

int os_calls_limit(unsigned kinds) {
    (void)kinds;
    return -ENOSYS;
}

#endif
