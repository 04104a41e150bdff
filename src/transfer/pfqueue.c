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
#include "util/htab.h"
#include "util/mem.h"

/* As many folders stay open. */
#define DIRS_MAX 256

/* A folder below the queue directory that stays open: mail comes from few, many times. */
struct pfqueue_dir {
    char *path; /* owned */
    int fd;
    bool changed; /* since it was synced */
};

struct pfqueue_dirs {
    struct htab by_path;
    size_t n;
};

/* How deep hash_queue_depth may make the folders of a queue. */
#define DEPTH_MAX 8

/* How the name of a file begins that is no message yet. */
#define NEW "new"

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

/* Postfix's master holds a lock of flock(2) on Linux and of fcntl(2) elsewhere.  0 or negative
 * errno, -EAGAIN: it is held. */
static int lock_take(int fd) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fcntl(fd, F_OFD_SETLK, &whole) == 0)
        return 0;
    return errno == EACCES ? -EAGAIN : -errno;
}

static int master_lock(struct pfqueue *p, char **why) {
    char *dir = path_of(p->dir, "pid"), *path = path_of(dir, "master.pid");
    int rc = fs_mkdir(dir, 0755);
    if (rc == 0)
        p->lock_fd = fs_open_only(path, O_RDWR | O_CREAT, 0644);
    if (rc == 0 && p->lock_fd < 0)
        rc = p->lock_fd;
    if (rc == 0)
        rc = lock_take(p->lock_fd);
    free(dir);
    if (rc < 0)
        *why = path;
    else
        free(path);
    return rc;
}

bool pfqueue_is_locked(const char *dir) {
    char *path = path_of(dir, "pid/master.pid");
    int fd = fs_open_only(path, O_RDWR, 0);
    bool locked = fd >= 0 && lock_take(fd) == -EAGAIN;
    if (fd >= 0)
        close(fd);
    free(path);
    return locked;
}

int pfqueue_open(struct pfqueue *p, char **why) {
    p->lock_fd = -1;
    p->dirs = NULL;
    *why = NULL;
    int rc = queue_owner(p, why);
    if (rc == 0)
        rc = master_lock(p, why);
    if (rc < 0)
        return rc;
    p->dirs = MEM_NEW(struct pfqueue_dirs);
    return 0;
}

int pfqueue_make_folder(const struct pfqueue *p) {
    char *folder = path_of(p->dir, PFQUEUE_FOLDER);
    int rc = fs_mkdir(folder, 0700);
    if (rc == 0)
        rc = fs_sync_dir(folder);
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

static void dirs_close(struct pfqueue_dirs *d) {
    size_t pos = 0;
    for (struct pfqueue_dir *e; (e = htab_next(&d->by_path, &pos)) != NULL;) {
        close(e->fd);
        free(e->path);
        free(e);
    }
    htab_free(&d->by_path);
    *d = (struct pfqueue_dirs){0};
}

void pfqueue_close(struct pfqueue *p) {
    if (p->dirs != NULL)
        dirs_close(p->dirs);
    free(p->dirs);
    p->dirs = NULL;
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

static int list_folder(const struct pfqueue *p, const char *folder, struct pfqueue_list *out) {
    struct pfqueue_list all = {0};
    int rc = pfqueue_list(p, folder, &all);
    for (size_t i = 0; i < all.n; i++) {
        struct pfqueue_file f = all.v[i];
        f.queue = folder_queue(f.id);
        if (f.queue == NULL) { /* "new" was being written when a run was killed */
            if (strncmp(f.id, NEW, sizeof NEW - 1) == 0)
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

int pfqueue_list_folder(const struct pfqueue *p, struct pfqueue_list *out) {
    return list_folder(p, PFQUEUE_FOLDER, out);
}

int pfqueue_list_gone(const struct pfqueue *p, struct pfqueue_list *out) {
    return list_folder(p, PFQUEUE_GONE, out);
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
    if (rc == 0 && (fchmod(fd, mode) < 0 || (mtime > 0 && futimens(fd, times) < 0)))
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

/* Descends from the queue directory to folder, which begins with it; no symbolic link is followed
 * below it.  A descriptor or negative errno. */
static int folder_descend(const struct pfqueue *p, const char *folder, bool make) {
    size_t skip = strlen(p->dir);
    char *copy = mem_strdup(folder + skip + (folder[skip] == '/')), *at = copy;
    int fd = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    fd = fd < 0 ? -errno : fd;
    while (fd >= 0 && *at != '\0') {
        char *slash = strchr(at, '/'), *next = slash == NULL ? at + strlen(at) : slash + 1;
        if (slash != NULL)
            *slash = '\0';
        fd = folder_enter(p, fd, at, make);
        at = next;
    }
    free(copy);
    return fd;
}

/* Before the first folder_open of a function: after it nothing is closed until that returns. */
static void dirs_trim(const struct pfqueue *p) {
    if (p->dirs->n >= DIRS_MAX && pfqueue_sync_places(p) == 0)
        dirs_close(p->dirs);
}

/* The folder of path, which begins with the queue directory.  *name: the part behind the last '/'.
 * A descriptor, which stays open, or negative errno.  *entry is set if it is not NULL. */
static int folder_open(const struct pfqueue *p, const char *path, bool make, const char **name,
                       struct pfqueue_dir **entry) {
    *name = strrchr(path, '/') + 1;
    struct str dir = str_make(path, (size_t)(*name - path) - 1);
    struct pfqueue_dir *e = htab_get(&p->dirs->by_path, dir);
    if (e == NULL) {
        char *copy = str_dup(dir);
        int fd = folder_descend(p, copy, make);
        if (fd < 0) {
            free(copy);
            return fd;
        }
        e = MEM_NEW(struct pfqueue_dir);
        *e = (struct pfqueue_dir){.path = copy, .fd = fd};
        htab_put(&p->dirs->by_path, str_of(e->path), e);
        p->dirs->n++;
    }
    if (entry != NULL)
        *entry = e;
    return e->fd;
}

int pfqueue_read(const struct pfqueue *p, const char *path, struct sbuf *out, struct stat *st) {
    const char *name;
    dirs_trim(p);
    int dir = folder_open(p, path, false, &name, NULL);
    int fd = dir < 0 ? dir : fs_open_only_at(dir, name, O_RDWR, 0);
    int rc = fd < 0 ? fd : lock_take(fd);
    if (rc == 0 && fstat(fd, st) < 0)
        rc = -errno;
    if (rc == -EAGAIN) /* a process that delivers it has the lock, also when the master is gone */
        rc = -EBUSY;
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
    return rc;
}

int pfqueue_remove(const struct pfqueue *p, const char *path) {
    const char *name;
    dirs_trim(p);
    int dir = folder_open(p, path, false, &name, NULL);
    return dir < 0 ? dir : unlinkat(dir, name, 0) < 0 ? -errno : 0;
}

/* *left, if left is not NULL, is set to the folder of from, once that is open. */
static int file_move(const struct pfqueue *p, const char *from, const char *to,
                     struct pfqueue_dir **left) {
    const char *old, *new;
    dirs_trim(p);
    int a = folder_open(p, from, false, &old, left), b = folder_open(p, to, true, &new, NULL);
    return a < 0 ? a : b < 0 ? b : renameat(a, old, b, new) < 0 ? -errno : 0;
}

int pfqueue_move(const struct pfqueue *p, const char *from, const char *to) {
    return file_move(p, from, to, NULL);
}

int pfqueue_withdraw(const struct pfqueue *p, const char *from, const char *to) {
    struct pfqueue_dir *left = NULL;
    int rc = file_move(p, from, to, &left);
    if (rc == 0)
        left->changed = true;
    return rc;
}

/* -- what is written -- */

static char *slot_path(const struct pfqueue *p, unsigned slot) {
    struct sbuf path = {0};
    sbuf_printf(&path, "%s/" PFQUEUE_FOLDER "/" NEW ".%u", p->dir, slot);
    return sbuf_take(&path);
}

/* A new file at tmp with that text, in the place of one that is there; a descriptor or negative
 * errno. */
static int file_begin(const struct pfqueue *p, const char *tmp, struct str text, mode_t mode,
                      int64_t mtime) {
    unlink(tmp);
    int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int rc = fd < 0 ? -errno : fill_file(p, fd, text, mode, mtime);
    if (rc < 0 && fd >= 0) {
        close(fd);
        unlink(tmp);
    }
    return rc < 0 ? rc : fd;
}

int pfqueue_begin(const struct pfqueue *p, unsigned slot, struct str text, mode_t mode,
                  int64_t mtime) {
    char *tmp = slot_path(p, slot);
    int fd = file_begin(p, tmp, text, mode, mtime);
    free(tmp);
    return fd;
}

int pfqueue_end(const struct pfqueue *p, unsigned slot, int fd, const char *path) {
    char *tmp = slot_path(p, slot);
    int rc = path == NULL ? 0 : fsync(fd) < 0 ? -errno : pfqueue_move(p, tmp, path);
    if (rc < 0 || path == NULL)
        unlink(tmp);
    close(fd);
    free(tmp);
    return rc;
}

int pfqueue_write(const struct pfqueue *p, const char *path, struct str text) {
    char *tmp = path_of(p->dir, PFQUEUE_FOLDER "/" NEW);
    int fd = file_begin(p, tmp, text, 0600, 0), rc = fd;
    if (fd >= 0) {
        close(fd);
        rc = pfqueue_move(p, tmp, path);
    }
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

int pfqueue_place_begin(const struct pfqueue *p, const char *from, const char *queue,
                        const char *id) {
    char *to = pfqueue_path(p, queue, id);
    const char *name;
    struct pfqueue_dir *entry = NULL;
    dirs_trim(p);
    int dir = folder_open(p, to, true, &name, &entry);
    int rc = dir < 0 ? dir : place_link(from, dir, name);
    if (rc == 0)
        entry->changed = true;
    free(to);
    return rc;
}

int pfqueue_sync_places(const struct pfqueue *p) {
    size_t pos = 0;
    int rc = 0;
    for (struct pfqueue_dir *e; (e = htab_next(&p->dirs->by_path, &pos)) != NULL && rc == 0;) {
        if (!e->changed)
            continue;
        rc = fsync(e->fd) < 0 ? -errno : 0;
        e->changed = rc < 0;
    }
    return rc;
}

int pfqueue_place(const struct pfqueue *p, const char *from, const char *queue, const char *id) {
    int rc = pfqueue_place_begin(p, from, queue, id);
    if (rc == 0)
        rc = pfqueue_sync_places(p);
    return rc == 0 && unlink(from) < 0 ? -errno : rc;
}

int pfqueue_sync_folder(const struct pfqueue *p) {
    char *inside = path_of(p->dir, PFQUEUE_FOLDER "/" NEW);
    int rc = fs_sync_dir(inside);
    free(inside);
    return rc == -ENOENT ? 0 : rc; /* nothing has moved yet */
}
