/*
 * transfer/pfqueue.c - Postfix's queue directory; see pfqueue.h
 */
#include "transfer/pfqueue.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "mail/envelope.h"
#include "util/fs.h"
#include "util/mem.h"

/* How deep hash_queue_depth may make the folders of a queue. */
#define DEPTH_MAX 8

static const char *const queues[] = {"incoming", "active", "deferred", "hold", "maildrop"};
#define QUEUES (sizeof queues / sizeof queues[0])

static char *path_of(const char *dir, const char *name) {
    struct sbuf path = {0};
    sbuf_printf(&path, "%s/%s", dir, name);
    return sbuf_take(&path);
}

/* -- the lock -- */

/* The owner of its queues is the owner of what is written there. */
static int queue_owner(struct pfqueue *p, char **why) {
    for (size_t i = 0; i < QUEUES; i++) {
        char *path = path_of(p->dir, queues[i]);
        struct stat st;
        int rc = lstat(path, &st) < 0 ? -errno : S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
        if (rc < 0) {
            *why = path;
            return rc;
        }
        free(path);
        p->uid = st.st_uid;
        p->gid = st.st_gid;
    }
    const struct passwd *pw = getpwuid(p->uid);
    if (pw != NULL)
        p->gid = pw->pw_gid;
    return 0;
}

/* Postfix's master holds a lock of flock(2) on Linux and of fcntl(2) elsewhere. */
static int master_lock(struct pfqueue *p, char **why) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char *dir = path_of(p->dir, "pid"), *path = path_of(dir, "master.pid");
    int rc = fs_mkdir(dir, 0755);
    if (rc == 0)
        p->lock_fd = fs_open_only(path, O_RDWR | O_CREAT, 0644);
    if (rc == 0 && p->lock_fd < 0)
        rc = p->lock_fd;
    if (rc == 0 &&
        (flock(p->lock_fd, LOCK_EX | LOCK_NB) < 0 || fcntl(p->lock_fd, F_OFD_SETLK, &whole) < 0))
        rc = errno == EACCES ? -EAGAIN : -errno;
    free(dir);
    if (rc < 0)
        *why = path;
    else
        free(path);
    return rc;
}

int pfqueue_open(struct pfqueue *p, char **why) {
    p->lock_fd = -1;
    *why = NULL;
    int rc = queue_owner(p, why);
    if (rc == 0)
        rc = master_lock(p, why);
    if (rc < 0)
        return rc;
    char *folder = path_of(p->dir, PFQUEUE_FOLDER);
    rc = fs_mkdir(folder, 0700);
    if (rc == 0)
        rc = fs_sync_dir(folder);
    if (rc < 0)
        *why = folder;
    else
        free(folder);
    return rc;
}

bool pfqueue_is_settled(const struct pfqueue *p) {
    struct pfqueue_list left = {0};
    char *folder = path_of(p->dir, PFQUEUE_FOLDER);
    bool settled = pfqueue_list_folder(p, &left) == 0 && left.n == 0;
    if (settled)
        rmdir(folder);
    pfqueue_list_free(&left);
    free(folder);
    return settled;
}

void pfqueue_close(struct pfqueue *p) {
    if (p->lock_fd >= 0)
        close(p->lock_fd);
    p->lock_fd = -1;
}

/* -- listing -- */

static void pfqueue_list_add(struct pfqueue_list *l, struct pfqueue_file f) {
    if (l->n == l->room) {
        l->room = l->room == 0 ? 64 : l->room * 2;
        l->v = mem_realloc(l->v, l->room * sizeof *l->v);
    }
    l->v[l->n++] = f;
}

static bool entry_is_dir(const char *path, const struct dirent *e) {
    struct stat st;
    if (e->d_type != DT_UNKNOWN)
        return e->d_type == DT_DIR;
    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int list_below(const char *dir, const char *queue, int depth, struct pfqueue_list *out) {
    DIR *d = opendir(dir);
    int rc = d == NULL && errno != ENOENT ? -errno : 0;
    for (struct dirent *e; rc == 0 && d != NULL && (errno = 0, e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.')
            continue;
        char *path = path_of(dir, e->d_name);
        if (!entry_is_dir(path, e)) {
            pfqueue_list_add(out, (struct pfqueue_file){
                                      .queue = queue, .path = path, .id = strrchr(path, '/') + 1});
            continue;
        }
        if (depth > 0)
            rc = list_below(path, queue, depth - 1, out);
        free(path);
    }
    if (d != NULL) {
        rc = rc == 0 ? -errno : rc;
        closedir(d);
    }
    return rc;
}

int pfqueue_list(const struct pfqueue *p, const char *queue, struct pfqueue_list *out) {
    char *dir = path_of(p->dir, queue);
    int rc = list_below(dir, queue, DEPTH_MAX, out);
    free(dir);
    return rc;
}

/* A file of the folder is called QUEUE.ID. */
static const char *folder_queue(const char *name) {
    for (size_t i = 0; i < QUEUES; i++) {
        size_t n = strlen(queues[i]);
        if (strncmp(name, queues[i], n) == 0 && name[n] == '.')
            return queues[i];
    }
    return NULL;
}

int pfqueue_list_folder(const struct pfqueue *p, struct pfqueue_list *out) {
    struct pfqueue_list all = {0};
    int rc = pfqueue_list(p, PFQUEUE_FOLDER, &all);
    for (size_t i = 0; i < all.n; i++) {
        struct pfqueue_file f = all.v[i];
        f.queue = folder_queue(f.id);
        if (f.queue == NULL) { /* "new" was being written when a run was killed */
            if (strcmp(f.id, "new") == 0)
                unlink(f.path);
            free(f.path);
            continue;
        }
        f.id += strlen(f.queue) + 1;
        f.waits_in_folder = true;
        pfqueue_list_add(out, f);
    }
    free(all.v);
    return rc;
}

void pfqueue_list_free(struct pfqueue_list *l) {
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i].path);
    free(l->v);
    *l = (struct pfqueue_list){0};
}

/* -- places -- */

/* The microseconds of a long queue ID, in hexadecimal, else the ID itself: what the folders of a
 * queue are named by. */
static void hash_key(const char *id, struct sbuf *key) {
    int us = qid_long_us(id);
    if (us < 0)
        sbuf_add_c(key, id);
    else
        sbuf_printf(key, "%05X", (unsigned)us);
}

char *pfqueue_path(const struct pfqueue *p, const char *queue, const char *id) {
    struct sbuf path = {0}, key = {0};
    sbuf_printf(&path, "%s/%s/", p->dir, queue);
    hash_key(id, &key);
    unsigned depth = list_has_word(str_of(p->hashed), queue) ? p->depth : 0;
    for (unsigned i = 0; i < depth && i < DEPTH_MAX; i++)
        sbuf_printf(&path, "%c/", i < key.n ? key.p[i] : '_');
    sbuf_add_c(&path, id);
    sbuf_free(&key);
    return sbuf_take(&path);
}

char *pfqueue_folder_path(const struct pfqueue *p, const char *queue, const char *id) {
    struct sbuf path = {0};
    sbuf_printf(&path, "%s/" PFQUEUE_FOLDER "/%s.%s", p->dir, queue, id);
    return sbuf_take(&path);
}

bool pfqueue_has(const struct pfqueue *p, const char *id) {
    bool has = false;
    for (size_t i = 0; i < QUEUES && !has; i++) {
        char *path = pfqueue_path(p, queues[i], id);
        char *moving = pfqueue_folder_path(p, queues[i], id);
        struct stat st;
        has = lstat(path, &st) == 0 || lstat(moving, &st) == 0;
        free(path);
        free(moving);
    }
    return has;
}

static int fill_file(const struct pfqueue *p, int fd, struct str text, mode_t mode, int64_t mtime) {
    struct timespec times[2] = {{.tv_sec = mtime}, {.tv_sec = mtime}};
    if (geteuid() == 0 && fchown(fd, p->uid, p->gid) < 0)
        return -errno;
    int rc = fs_write_all(fd, text.p == NULL ? "" : text.p, text.n);
    if (rc == 0 &&
        (fchmod(fd, mode) < 0 || (mtime > 0 && futimens(fd, times) < 0) || fsync(fd) < 0))
        rc = -errno;
    return rc;
}

/* -- below the queues, which are a less privileged user's -- */

/* One folder further; with make it is made, as Postfix makes it.  Closes dir. */
static int folder_enter(const struct pfqueue *p, int dir, const char *name, bool make) {
    bool made = make && mkdirat(dir, name, 0700) == 0;
    int rc = made || !make || errno == EEXIST ? 0 : -errno;
    int fd = rc < 0 ? rc : openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (rc == 0 && fd < 0)
        rc = -errno;
    if (rc == 0 && made && geteuid() == 0 && fchown(fd, p->uid, p->gid) < 0)
        rc = -errno;
    if (rc == 0 && make && fsync(dir) < 0)
        rc = -errno;
    if (rc < 0 && fd >= 0)
        close(fd);
    close(dir);
    return rc < 0 ? rc : fd;
}

/* The folder of path, which begins with the queue directory; below that no symbolic link is
 * followed.  *name: the part behind the last '/'.  A descriptor or negative errno. */
static int folder_open(const struct pfqueue *p, const char *path, bool make, const char **name) {
    char *copy = mem_strdup(path + strlen(p->dir) + 1), *at = copy;
    int fd = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    fd = fd < 0 ? -errno : fd;
    for (char *slash; fd >= 0 && (slash = strchr(at, '/')) != NULL; at = slash + 1) {
        *slash = '\0';
        fd = folder_enter(p, fd, at, make);
    }
    *name = strrchr(path, '/') + 1;
    free(copy);
    return fd;
}

int pfqueue_read(const struct pfqueue *p, const char *path, struct sbuf *out, struct stat *st) {
    const char *name;
    int dir = folder_open(p, path, false, &name);
    int fd = dir < 0 ? dir : fs_open_only_at(dir, name, O_RDONLY, 0);
    int rc = fd < 0 ? fd : fstat(fd, st) < 0 ? -errno : 0;
    for (ssize_t n = 1; rc == 0 && n != 0;) {
        char *at = sbuf_room(out, (size_t)st->st_size + 1);
        n = read(fd, at, (size_t)st->st_size + 1);
        if (n < 0)
            rc = -errno;
        else
            sbuf_advance(out, (size_t)n);
        if (out->n > (size_t)st->st_size)
            rc = -EBUSY; /* it grows: a process writes to it */
    }
    if (fd >= 0)
        close(fd);
    if (dir >= 0)
        close(dir);
    return rc;
}

int pfqueue_remove(const struct pfqueue *p, const char *path) {
    const char *name;
    int dir = folder_open(p, path, false, &name);
    int rc = dir < 0 ? dir : unlinkat(dir, name, 0) < 0 ? -errno : 0;
    if (dir >= 0)
        close(dir);
    return rc;
}

int pfqueue_move(const struct pfqueue *p, const char *from, const char *to) {
    const char *old, *new;
    int a = folder_open(p, from, false, &old), b = folder_open(p, to, false, &new);
    if (b == -ENOENT)
        b = folder_open(p, to, true, &new);
    int rc = a < 0 ? a : b < 0 ? b : renameat(a, old, b, new) < 0 ? -errno : 0;
    if (a >= 0)
        close(a);
    if (b >= 0)
        close(b);
    return rc;
}

int pfqueue_write(const struct pfqueue *p, const char *path, struct str text, mode_t mode,
                  int64_t mtime) {
    char *tmp = path_of(p->dir, PFQUEUE_FOLDER "/new");
    unlink(tmp);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int rc = fd < 0 ? -errno : fill_file(p, fd, text, mode, mtime);
    if (rc == 0)
        rc = pfqueue_move(p, tmp, path);
    if (fd >= 0)
        close(fd);
    if (rc < 0)
        unlink(tmp);
    free(tmp);
    return rc;
}

/* Gives the file from a second name in dir; 0 also if a run that was killed has done so. */
static int place_link(const char *from, int dir, const char *name) {
    struct stat a, b;
    if (linkat(AT_FDCWD, from, dir, name, 0) == 0)
        return 0;
    int rc = -errno;
    bool same = rc == -EEXIST && lstat(from, &a) == 0 &&
                fstatat(dir, name, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_ino == b.st_ino &&
                a.st_dev == b.st_dev;
    return same ? 0 : rc;
}

int pfqueue_place(const struct pfqueue *p, const char *from, const char *queue, const char *id) {
    char *to = pfqueue_path(p, queue, id);
    const char *name;
    int dir = folder_open(p, to, true, &name);
    int rc = dir < 0 ? dir : place_link(from, dir, name);
    if (rc == 0 && (fsync(dir) < 0 || unlink(from) < 0))
        rc = -errno;
    if (dir >= 0)
        close(dir);
    free(to);
    return rc;
}

int pfqueue_sync_folder(const struct pfqueue *p) {
    char *inside = path_of(p->dir, PFQUEUE_FOLDER "/new");
    int rc = fs_sync_dir(inside);
    free(inside);
    return rc;
}
