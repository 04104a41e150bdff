/*
 * util/fs.h - whole files: read, replace atomically
 *
 * Any thread; blocks on the disk.  Errors are negative errno.
 */
#ifndef PH_UTIL_FS_H
#define PH_UTIL_FS_H

#include <sys/stat.h>

#include "util/str.h"

/* Appends the file's content to out; -EFBIG above max bytes, -EINVAL for a named pipe. */
int fs_read(const char *path, struct sbuf *out, size_t max);
#define FS_WHY_MAX 64
/* Why it failed, in words, some of which are written to text. */
const char *fs_read_why(int err, size_t max, char text[FS_WHY_MAX]);
/* Shows all of a file to check and returns what that says; a text of its own for what cannot be
 * shown, NULL if the file cannot be opened. */
const char *fs_mapped(const char *path, const char *(*check)(const void *p, uint64_t n));
/* Have a file's size and its two times of change stayed between two looks at it?  A program may set
 * the time of the content as it likes (cp -p, rsync -t), but not that of the file. */
bool fs_is_unwritten(const struct stat *a, const struct stat *b);
/* Makes each of the descriptors 0, 1 and 2 that is closed one of /dev/null.  For the beginning of a
 * program: otherwise the next file that is opened would have the number, and what is meant for
 * standard error would be written into it. */
void fs_open_standard(void);
/* How many descriptors the process may have open: RLIMIT_NOFILE of getrlimit(2), INT_MAX at most.
 */
int fs_descriptors_max(void);
/* Is this one of the last descriptors of the process?  They are kept for what mail that was taken
 * needs, such as a new segment and the sync of a directory: content that comes in and sessions to
 * relay hosts do not get them. */
bool fs_is_reserved(int fd);
/* Renames tmp to path after fsync of tmp and then of the directory. */
int fs_commit(int tmp_fd, const char *tmp, const char *path);
/* The same for a file that a library has written and closed; it gets that mode.  On failure tmp is
 * removed. */
int fs_commit_named(const char *tmp, const char *path, mode_t mode);
/* Writes text to path, whole or not at all, by way of path.tmp: in the place of was, with its mode
 * and owner, or, was being NULL, as a new file of that mode; -EEXIST if there is one already. */
int fs_write_whole(const char *path, struct str text, mode_t mode, const struct stat *was);
/* The directory that holds path ("." for a bare name); the caller frees. */
char *fs_folder(struct str path);
/* Where the symbolic link path leads in one step; the caller frees.  NULL with errno: EINVAL if it
 * is none. */
char *fs_link_target(const char *path);
/* The file that path is the name of when it is a symbolic link (else path), there or not; the
 * caller frees.  NULL with errno: ELOOP, or, as root, EPERM for a link that another user has made.
 */
char *fs_followed(const char *path);
/* fsync of the directory that holds path. */
int fs_sync_dir(const char *path);
int fs_write_all(int fd, const void *p, size_t n);
/* 0 if path is a regular file without a second name; -ELOOP for a symbolic link, -EMLINK for a file
 * that has other names, -EINVAL for what is no regular file, -ENOENT.  In a directory that belongs
 * to a less privileged user, root opens nothing else. */
int fs_only_name(const char *path);
/* Opens such a file (flags with O_CREAT: makes it); a descriptor, or an error as fs_only_name's. */
int fs_open_only(const char *path, int flags, mode_t mode);
/* The same for a name in the directory dir, a descriptor or AT_FDCWD. */
int fs_open_only_at(int dir, const char *name, int flags, mode_t mode);
/* As root: gives the regular file or the directory at path to uid and gid; a file that has a second
 * name, and what a symbolic link points to, keeps its owner.  As another user: nothing. */
int fs_give(const char *path, uid_t uid, gid_t gid);
/* When root has made path: it becomes its directory's owner's.  Else nothing. */
void fs_adopt(const char *path);
/* Makes an empty file of that mode, unless there is one; root makes it as the owner of its
 * directory, which needs no right to give files away.  0 or negative errno; any thread of a process
 * that is not root, else the only one. */
int fs_make(const char *path, mode_t mode);
/* mkdir that is content when the directory is there. */
int fs_mkdir(const char *path, mode_t mode);

#endif
