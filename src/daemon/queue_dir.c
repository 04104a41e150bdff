/*
 * daemon/queue_dir.c - queue_directory, as the supervisor enters it; see queue_dir.h
 */
#include "daemon/queue_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/handover.h"
#include "spool/spool.h"
#include "util/fs.h"
#include "util/log.h"

/* How long a relay process that is being killed may take. */
#define LOG_TURNS   150
#define LOG_TURN_NS 20000000L

/* The sockets of sendmail and mailq are for all users, so all may pass through the folders that
 * they are in, whatever umask those were made with. */
static int queue_open_to_all(void) {
    static const char *const dirs[] = {".", "public"};
    int rc = fs_mkdir("public", 0755);
    for (size_t i = 0; i < 2 && rc == 0; i++) {
        struct stat st;
        if (lstat(dirs[i], &st) < 0)
            rc = -errno;
        else if (S_ISDIR(st.st_mode) && (st.st_mode & 0111) != 0111 &&
                 fchmodat(AT_FDCWD, dirs[i], (st.st_mode & 07777) | 0111, 0) < 0)
            rc = -errno;
    }
    return rc;
}

/* What belongs to its user already needs no right to be given away, and no group. */
static int queue_give(const struct passwd *pw) {
    struct stat st;
    if (pw == NULL || (stat(".", &st) == 0 && st.st_uid == pw->pw_uid && st.st_gid == pw->pw_gid))
        return 0;
    if (chown(".", pw->pw_uid, pw->pw_gid) == 0)
        return 0;
    int rc = -errno;
    return stat(".", &st) == 0 && st.st_uid == pw->pw_uid ? 0 : rc;
}

void queue_enter(const struct config *cfg) {
    const char *dir = cfg->p.queue_directory;
    int rc = fs_mkdir(dir, 0755);
    if (rc == 0 && chdir(dir) < 0)
        rc = -errno;
    int given = rc == 0 ? queue_give(geteuid() == 0 ? getpwnam(cfg->p.mail_owner) : NULL) : 0;
    if (rc == 0 && given == 0)
        rc = queue_open_to_all();
    if (rc == 0 && given == 0)
        return;
    fprintf(stderr, "posthoused: fatal: queue_directory %s: %s", dir,
            strerror(given < 0 ? -given : -rc));
    if (given < 0)
        fprintf(stderr,
                "; it has to belong to mail_owner (chown -R %s: %s), and this service may not "
                "change that",
                cfg->p.mail_owner, dir);
    fputc('\n', stderr);
    exit(1);
}

/* The lock of a supervisor that has become this one by exec is ours, and would be lost if another
 * descriptor of the file were closed. */
static int lock_file(void) {
    struct stat ours, there;
    int fd = handover_lock();
    if (fd >= 0 && fstat(fd, &ours) == 0 && lstat("master.pid", &there) == 0 &&
        ours.st_dev == there.st_dev && ours.st_ino == there.st_ino)
        return fd;
    return fs_open_only("master.pid", O_RDWR | O_CREAT, 0600);
}

/* The number of this process, over what is there: a full disk has room for that. */
static int pid_write(int fd) {
    char text[32];
    int n = snprintf(text, sizeof text, "%d\n", getpid());
    ssize_t done = pwrite(fd, text, (size_t)n, 0);
    if (done != n)
        return done < 0 ? -errno : -EIO;
    return ftruncate(fd, n) < 0 ? -errno : 0;
}

/* Has a process log/?  Only while it is being killed, unless master.pid was removed. */
static bool log_is_locked(void) {
    int fd = open("log", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool locked = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    return locked;
}

static void queue_wait_for_log(const struct config *cfg) {
    for (int left = LOG_TURNS; log_is_locked(); left--) {
        if (left == 0) {
            log_fatal("master", "%s/log: another process has the spool", cfg->p.queue_directory);
            exit(1);
        }
        nanosleep(&(struct timespec){0, LOG_TURN_NS}, NULL);
    }
}

void queue_lock(const struct config *cfg) {
    struct flock lk = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    /* a user who can read the file can hold a lock on it, too */
    int fd = lock_file();
    int rc = fd < 0 ? fd : fchmod(fd, 0600) < 0 ? -errno : fcntl(fd, F_SETLK, &lk) < 0 ? -errno : 0;
    if (rc < 0) {
        log_fatal("master", "%s/master.pid: %s", cfg->p.queue_directory,
                  rc == -EAGAIN || rc == -EACCES ? "another posthoused is running" : strerror(-rc));
        exit(1);
    }
    handover_set_lock(fd);
    queue_wait_for_log(cfg);
    rc = pid_write(fd);
    if (rc < 0)
        log_warn("master", "cannot write master.pid: %s", strerror(-rc));
}

bool queue_may_restart(const struct config *cfg) {
    int rc = pid_write(handover_lock());
    if (rc < 0)
        log_error("master", "restart refused: %s/master.pid: %s", cfg->p.queue_directory,
                  strerror(-rc));
    return rc == 0;
}

void queue_refuse_half_moved(void) {
    struct sbuf other = {0};
    int rc = fs_read(SPOOL_MOVING, &other, SPOOL_MOVING_MAX);
    if (rc == -ENOENT)
        return;
    struct str queue = str_trim(sbuf_str(&other));
    log_fatal("master",
              "mail was on its way to or from Postfix's queue %.*s when that was stopped: end it "
              "with \"posthouse import\" (or \"posthouse export\", to go back), then start",
              STR_FMT(queue));
    exit(1);
}
