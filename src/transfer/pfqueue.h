/*
 * transfer/pfqueue.h - Postfix's queue directory, while Postfix is stopped
 *
 * One thread; blocks on the disk.  Between Postfix's queues and Posthouse's spool stands a folder
 * of that directory, PFQUEUE_FOLDER, at which Postfix does not look.  A file there is a message
 * only as long as the spool has not the same one: so whichever way mail goes, no moment leaves a
 * message with both, or with neither.  What the spool has goes from there into PFQUEUE_GONE, which
 * takes less time than to remove it, and is removed when both mail systems can be waited for.
 */
#ifndef PH_TRANSFER_PFQUEUE_H
#define PH_TRANSFER_PFQUEUE_H

#include <sys/stat.h>

#include "util/str.h"

#define PFQUEUE_FOLDER "posthouse"
#define PFQUEUE_GONE   "posthouse-gone"

struct pfqueue_dirs;

struct pfqueue {
    const char *dir;    /* queue_directory of Postfix; the caller's */
    const char *hashed; /* hash_queue_names there; the caller's */
    unsigned depth;     /* hash_queue_depth there */
    uid_t uid;          /* the owner of its files */
    gid_t gid;
    int lock_fd;               /* of master.pid, locked: Postfix cannot start; -1: not open */
    struct pfqueue_dirs *dirs; /* folders that stay open; owned; NULL: none do */
};

/* One file of a queue. */
struct pfqueue_file {
    const char *queue;    /* "deferred" */
    char *path;           /* owned */
    char *id;             /* the part of path behind its last '/', or behind the queue's name */
    bool waits_in_folder; /* it is in PFQUEUE_FOLDER */
};

struct pfqueue_list {
    struct pfqueue_file *v;
    size_t n, room;
};

/* Takes the lock that Postfix's master needs.  0 or negative errno with *why, which the caller
 * frees: -EAGAIN says that Postfix is running.  pfqueue_close in any case. */
int pfqueue_open(struct pfqueue *p, char **why);
/* Makes PFQUEUE_FOLDER: before the first message goes there.  0 or negative errno. */
int pfqueue_make_folder(const struct pfqueue *p);
/* Is there a Postfix, or a move, that holds the lock of the queue directory dir?  Nothing is made.
 */
bool pfqueue_is_locked(const char *dir);
/* Has PFQUEUE_FOLDER no message?  Then it is taken away. */
bool pfqueue_is_settled(const struct pfqueue *p);
void pfqueue_close(struct pfqueue *p);

/* Appends the files of a queue; queue is a constant.  0 or negative errno. */
int pfqueue_list(const struct pfqueue *p, const char *queue, struct pfqueue_list *out);
/* Those in PFQUEUE_FOLDER. */
int pfqueue_list_folder(const struct pfqueue *p, struct pfqueue_list *out);
/* Those in PFQUEUE_GONE, which need not be there. */
int pfqueue_list_gone(const struct pfqueue *p, struct pfqueue_list *out);
void pfqueue_list_free(struct pfqueue_list *l);

/* Where a file of that queue has its place.  The caller frees. */
char *pfqueue_path(const struct pfqueue *p, const char *queue, const char *id);
/* Where it has its place in PFQUEUE_FOLDER. */
char *pfqueue_folder_path(const struct pfqueue *p, const char *queue, const char *id);
/* Has any of Postfix's queues a file of that name, or PFQUEUE_FOLDER one for it? */
bool pfqueue_has(const struct pfqueue *p, const char *id);

/* The functions below take paths that begin with dir, and follow no symbolic link below it: what
 * lies there is a less privileged user's.  0 or negative errno. */

/* Appends a file's content to out; *st is set.  It is a regular file without a second name; -EBUSY:
 * a process writes to it, or delivers it. */
int pfqueue_read(const struct pfqueue *p, const char *path, struct sbuf *out, struct stat *st);
int pfqueue_remove(const struct pfqueue *p, const char *path);
/* Makes the folders that to needs, as Postfix does. */
int pfqueue_move(const struct pfqueue *p, const char *from, const char *to);
/* The same; pfqueue_sync_places makes it durable that from is gone. */
int pfqueue_withdraw(const struct pfqueue *p, const char *from, const char *to);
/* Writes a file that only Postfix may read, in the place of one that is there; it may be gone after
 * a power cut. */
int pfqueue_write(const struct pfqueue *p, const char *path, struct str text);
/* Begins to write the slot-th file of a batch, as Postfix owns it, with any slot but those that
 * were not ended; a descriptor or negative errno.  The file has no name of a message yet.  mode: of
 * the file; mtime: seconds since 1970, 0: now. */
int pfqueue_begin(const struct pfqueue *p, unsigned slot, struct str text, mode_t mode,
                  int64_t mtime);
/* Ends that, and closes fd: the file is on the disk and is called path, in PFQUEUE_FOLDER, of which
 * pfqueue_sync_folder comes next.  Without path it is removed. */
int pfqueue_end(const struct pfqueue *p, unsigned slot, int fd, const char *path);
/* Gives a file of PFQUEUE_FOLDER its place in a queue, durably; -EEXIST: there is one. */
int pfqueue_place(const struct pfqueue *p, const char *from, const char *queue, const char *id);
/* The same for many files: each gets a second name in its place, all places are synced, and then
 * the caller removes the first names. */
int pfqueue_place_begin(const struct pfqueue *p, const char *from, const char *queue,
                        const char *id);
int pfqueue_sync_places(const struct pfqueue *p);
int pfqueue_sync_folder(const struct pfqueue *p);

#endif
