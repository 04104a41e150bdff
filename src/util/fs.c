/*
 * util/fs.c - whole files; see fs.h
 */
#include "util/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "util/mem.h"
#include "util/os.h"

int fs_descriptors_max(void) {
    struct rlimit rl = {.rlim_cur = 1024};
    getrlimit(RLIMIT_NOFILE, &rl);
    return rl.rlim_cur > INT_MAX ? INT_MAX : (int)rl.rlim_cur;
}

bool fs_is_reserved(int fd) {
    int max = fs_descriptors_max();
    return fd >= max - max / 20 - 16;
}

/* Opening a pipe would wait for a writer, perhaps for ever, and an empty one is no empty file. */
static int open_file(const char *path) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fstat(fd, &st) < 0 ? -errno : S_ISFIFO(st.st_mode) ? -EINVAL : 0;
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

int fs_read(const char *path, struct sbuf *out, size_t max) {
    int fd = open_file(path), rc = 0;
    if (fd < 0)
        return fd;
    for (;;) {
        char *at = sbuf_room(out, 16384);
        ssize_t n = read(fd, at, 16384);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            rc = n < 0 ? -errno : 0;
            break;
        }
        sbuf_advance(out, (size_t)n);
        if (out->n > max) {
            rc = -EFBIG;
            break;
        }
    }
    close(fd);
    return rc;
}

const char *fs_read_why(int err, size_t max, char text[FS_WHY_MAX]) {
    if (err != -EFBIG)
        return strerror(-err);
    snprintf(text, FS_WHY_MAX, "it is larger than %zu MiB, the most that it may have", max >> 20);
    return text;
}

/* The new file's content, mode and owner. */
static int whole_fill(int fd, struct str text, const struct stat *was) {
    if (was != NULL && geteuid() == 0 && fchown(fd, was->st_uid, was->st_gid) < 0)
        return -errno;
    if (was != NULL && fchmod(fd, was->st_mode & 07777) < 0)
        return -errno;
    return fs_write_all(fd, text.p == NULL ? "" : text.p, text.n);
}

int fs_write_whole(const char *path, struct str text, mode_t mode, const struct stat *was) {
    struct sbuf tmp = {0};
    sbuf_printf(&tmp, "%s.tmp", path);
    unlink(tmp.p);
    int fd = open(tmp.p, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                  was == NULL ? mode : 0600);
    int rc = fd < 0 ? -errno : whole_fill(fd, text, was);
    if (rc == 0 && was == NULL && access(path, F_OK) == 0)
        rc = -EEXIST;
    if (rc == 0)
        rc = fs_commit(fd, tmp.p, path);
    if (fd >= 0)
        close(fd);
    if (rc < 0 && fd >= 0)
        unlink(tmp.p);
    sbuf_free(&tmp);
    return rc;
}

char *fs_folder(struct str path) {
    ptrdiff_t slash = str_rchr(path, '/');
    return slash <= 0 ? mem_strdup(slash == 0 ? "/" : ".")
                      : str_dup(str_make(path.p, (size_t)slash));
}

char *fs_link_target(const char *path) {
    char text[PATH_MAX];
    struct sbuf to = {0};
    ssize_t n = readlink(path, text, sizeof text);
    if (n == 0 || n == (ssize_t)sizeof text)
        errno = ENAMETOOLONG;
    if (n <= 0 || n == (ssize_t)sizeof text)
        return NULL;
    if (text[0] != '/') {
        char *folder = fs_folder(str_of(path));
        sbuf_printf(&to, "%s/", folder);
        free(folder);
    }
    sbuf_add(&to, text, (size_t)n);
    return sbuf_take(&to);
}

#define FS_LINKS_MAX 40

/* Where the symbolic link path leads in one step: 1 with *to, 0 if it is none, or negative errno.
 */
static int link_step(const char *path, char **to) {
    struct stat st;
    if (lstat(path, &st) < 0 || !S_ISLNK(st.st_mode))
        return 0;
    if (geteuid() == 0 && st.st_uid != 0)
        return -EPERM;
    *to = fs_link_target(path);
    return *to == NULL ? -errno : 1;
}

char *fs_followed(const char *path) {
    char *now = mem_strdup(path), *to = NULL;
    int rc = 1;
    for (int steps = 0; rc > 0 && steps < FS_LINKS_MAX; steps++) {
        rc = link_step(now, &to);
        if (rc == 0)
            return now;
        if (rc > 0) {
            free(now);
            now = to;
        }
    }
    free(now);
    errno = rc < 0 ? -rc : ELOOP;
    return NULL;
}

int fs_sync_dir(const char *path) {
    char *dir = fs_folder(str_of(path));
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(dir);
    if (fd < 0)
        return -errno;
    int rc = fsync(fd) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

const char *fs_mapped(const char *path, const char *(*check)(const void *p, uint64_t n)) {
    struct stat st;
    int fd = open_file(path);
    if (fd == -EINVAL)
        return "it is a pipe";
    if (fd < 0)
        return NULL;
    const char *why = "it is empty";
    if (fstat(fd, &st) == 0 && st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        why = p == MAP_FAILED ? "it cannot be mapped" : check(p, (uint64_t)st.st_size);
        if (p != MAP_FAILED)
            munmap(p, (size_t)st.st_size);
    }
    close(fd);
    return why;
}

static bool fs_same_time(const struct timespec *a, const struct timespec *b) {
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

bool fs_is_unwritten(const struct stat *a, const struct stat *b) {
    return a->st_size == b->st_size && fs_same_time(&a->st_mtim, &b->st_mtim) &&
           fs_same_time(&a->st_ctim, &b->st_ctim);
}

void fs_open_standard(void) {
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= 2);
    if (fd >= 0)
        close(fd);
}

int fs_commit(int tmp_fd, const char *tmp, const char *path) {
    if (fsync(tmp_fd) < 0 || rename(tmp, path) < 0)
        return -errno;
    return fs_sync_dir(path);
}

int fs_commit_named(const char *tmp, const char *path, mode_t mode) {
    int fd = open(tmp, O_RDWR | O_CLOEXEC);
    int rc = fd < 0 ? -errno : 0;
    if (rc == 0 && fchmod(fd, mode) < 0)
        rc = -errno;
    if (rc == 0)
        rc = fs_commit(fd, tmp, path);
    if (fd >= 0)
        close(fd);
    if (rc < 0)
        unlink(tmp);
    return rc;
}

int fs_write_all(int fd, const void *p, size_t n) {
    const char *at = p;
    while (n > 0) {
        ssize_t w = write(fd, at, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return -errno;
        at += w;
        n -= (size_t)w;
    }
    return 0;
}

int fs_mkdir(const char *path, mode_t mode) {
    if (mkdir(path, mode) < 0 && errno != EEXIST)
        return -errno;
    return 0;
}

static int only_name(const struct stat *st) {
    if (S_ISLNK(st->st_mode))
        return -ELOOP;
    if (!S_ISREG(st->st_mode))
        return -EINVAL;
    return st->st_nlink == 1 ? 0 : -EMLINK;
}

int fs_only_name(const char *path) {
    struct stat st;
    return lstat(path, &st) < 0 ? -errno : only_name(&st);
}

int fs_open_only_at(int dir, const char *name, int flags, mode_t mode) {
    struct stat st;
    int fd = openat(dir, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, mode);
    if (fd < 0)
        return -errno;
    int rc = fstat(fd, &st) < 0 ? -errno : only_name(&st);
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

int fs_open_only(const char *path, int flags, mode_t mode) {
    return fs_open_only_at(AT_FDCWD, path, flags, mode);
}

int fs_give(const char *path, uid_t uid, gid_t gid) {
    struct stat st;
    if (geteuid() != 0)
        return 0;
    int fd = open(path, OS_O_PLACE | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fstat(fd, &st) < 0 ? -errno : S_ISDIR(st.st_mode) ? 0 : only_name(&st);
    bool theirs = rc == 0 && st.st_uid == uid && st.st_gid == gid;
    if (rc == 0 && !theirs)
        rc = os_give(fd, uid, gid);
    close(fd);
    return rc;
}

/* In the directory at; st names its owner. */
static int make_as_owner(int at, const char *name, mode_t mode, const struct stat *st) {
    uid_t uid = geteuid();
    gid_t gid = getegid();
    bool becomes = uid == 0 && st->st_uid != 0;
    if (becomes && (setegid(st->st_gid) < 0 || seteuid(st->st_uid) < 0))
        return -errno;
    int fd = openat(at, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    int rc = fd < 0 && errno != EEXIST ? -errno : 0;
    if (fd >= 0)
        close(fd);
    if (becomes && (seteuid(uid) < 0 || setegid(gid) < 0))
        rc = -errno;
    return rc;
}

int fs_make(const char *path, mode_t mode) {
    const char *slash = strrchr(path, '/');
    char *dir = fs_folder(str_of(path));
    struct stat st;
    int at = open(dir, OS_O_PLACE | O_DIRECTORY | O_CLOEXEC);
    int rc = at < 0 || fstat(at, &st) < 0 ? -errno : 0;
    if (rc == 0)
        rc = make_as_owner(at, slash == NULL ? path : slash + 1, mode, &st);
    if (at >= 0)
        close(at);
    free(dir);
    return rc;
}

void fs_adopt(const char *path) {
    struct stat st;
    char *dir = fs_folder(str_of(path));
    if (stat(dir, &st) == 0)
        fs_give(path, st.st_uid, st.st_gid); /* else it stays root's: its reader says so */
    free(dir);
}
