/*
 * spool/segment.h - records, segments and files as they are on the disk
 */
#ifndef PH_SPOOL_SEGMENT_H
#define PH_SPOOL_SEGMENT_H

#include "spool/inside.h"

uint64_t rec_span(uint32_t meta_len, uint64_t body_len);
/* The first and the second word of the head of a record at off of g. */
uint32_t rec_mark(uint64_t salt);
uint32_t rec_crc(const struct segment *g, uint64_t off, const struct rec_head *h, const void *meta);
/* The whole head of the next record of g, which begins at g->used. */
struct rec_head rec_head_of(const struct segment *g, const struct rec *r);

/* Both go on after short answers, and return 0 or negative errno.  *done: the bytes that were
 * written in any case; NULL: not asked for.  iov is used up. */
int disk_read(const struct spool *s, int fd, void *buf, size_t n, uint64_t off);
int disk_write(const struct spool *s, int fd, struct iovec *iov, int n, uint64_t off,
               uint64_t *done);
/* True if an error says that there is no room. */
bool disk_is_full(int rc);

/* Reads the record at off of g: its head, its meta and body_n bytes of content.  -EBADMSG if it is
 * not the one of message like->id that was there before: what the disk has changed, or put in the
 * wrong place, is neither sent nor given a new checksum. */
int rec_read(const struct spool *s, const struct segment *g, uint64_t off,
             const struct rec_head *like, size_t body_n, struct rec_head *h, struct sbuf *data);

/* fsync of a directory of the spool. */
int spool_sync_dir(const struct spool *s, const char *sub);
/* Moves a file of the spool to damaged/, as KIND-NAME: a name that no other file will have. Durable
 * before it returns. */
int spool_set_aside(const struct spool *s, const char *kind, const char *path);
/* What a file of log/ or body/ is called that could not be moved to damaged/: its name with this
 * behind. */
#define MARK_DAMAGED "-damaged"

/* Moves a file, in the folder KIND, to damaged/, or marks it for the next start where that is not
 * possible: damaged/ may be on another disk, and Landlock of Linux before 5.19 forbids the move. 0
 * or negative errno. */
int spool_set_aside_or_mark(const struct spool *s, const char *kind, const char *path);
/* Moves one that was marked, and was path before, to damaged/; if that fails it stays, marked. */
void spool_set_marked_aside(const struct spool *s, const char *kind, const char *path);
/* Moves it from where either has left it to path, in the folder KIND, its name durable; 0 or
 * negative errno. */
int spool_bring_back(const struct spool *s, const char *kind, const char *path);

/* The caller frees it. */
char *segment_path(const struct spool *s, uint64_t no, uint64_t salt);
/* Makes the file of a new segment of size bytes, durable with its first record, and says of it in
 * *g what is known. */
int segment_create(struct spool *s, struct segment *g, uint64_t size);
/* Puts a copy of *like at the end of the list of segments, which owns it. */
struct segment *segment_add(struct spool *s, const struct segment *like);
/* Unlinks it, or moves it to damaged/; durable before it returns, so that segments never go out of
 * order.  Frees g on success. */
int segment_remove(struct spool *s, struct segment *g);
/* Its descriptor is the caller's to close. */
void segment_free(struct spool *s, struct segment *g);
/* False once a write or a sync has failed. */
bool segment_usable(const struct segment *g);
/* True once a sync has found that the file was removed while it was in use. */
bool segment_is_removed(const struct segment *g);

#endif
