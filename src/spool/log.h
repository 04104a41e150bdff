/*
 * spool/log.h - inside of the spool: segments, records, index (spool thread only)
 *
 * A record: 32 bytes of header, meta, content, padding to 8 bytes.  The checksum covers all but
 * itself and includes the segment's number, so that a record of an older file that lies in reused
 * blocks is not taken for one of this segment.
 */
#ifndef PH_SPOOL_LOG_H
#define PH_SPOOL_LOG_H

#include "spool/spool.h"
#include "util/htab.h"
#include "util/list.h"
#include "util/queue.h"

#define REC_MAGIC 0x31524850U /* "PHR1" */

enum rec_type { REC_MESSAGE = 1, REC_PROGRESS = 2, REC_DONE = 3, REC_SETTLE = 4 };

struct rec_head {
    uint32_t magic;
    uint32_t crc; /* CRC32C of segment number, the rest of the head, meta and content */
    uint32_t type;
    uint32_t meta_len;
    uint64_t id;
    uint64_t body_len; /* of content in the record; with REC_FILE_BIT: in bodies/ID instead */
};

#define REC_FILE_BIT (1ULL << 63)
#define REC_META_MAX (64U << 20)

struct segment {
    struct dl link;
    uint64_t no;
    int fd;
    uint64_t used; /* where the next record goes */
    uint64_t size; /* allocated */
    uint64_t live; /* queued messages whose record is here */
    uint64_t live_bytes;
    atomic_uint readers; /* reads in progress: keep the descriptor */
    bool poisoned;       /* a sync failed: nothing more is written here */
};

/* One queued message. */
struct entry {
    uint64_t id;
    struct segment *seg;
    uint64_t off; /* of its record */
    uint32_t meta_len;
    uint64_t body_len; /* as in the record */
    struct segment *prog_seg;
    uint64_t prog_off;
    uint32_t prog_len; /* 0: no progress yet */
};

struct spool {
    const struct spool_io *io;
    char *dir;
    uint64_t segment_size;
    struct dl segments;   /* oldest first; the last one is written to */
    struct segment *head; /* NULL until the first record */
    uint64_t next_no;
    struct itab index; /* id -> struct entry */
    struct queue ops;
    struct queue reads;
    pthread_t writer;
    pthread_t reader;
    struct task *retry; /* PROGRESS and DONE that could not be written: again later */
    _Atomic int64_t space;
    _Atomic int expected; /* clients in the middle of a message */
    int64_t space_ms;
    struct spool_stats st;    /* the writer's */
    struct spool_stats shown; /* copied after each batch, under stats_lock */
    pthread_mutex_t stats_lock;
};

uint64_t rec_span(uint32_t meta_len, uint64_t body_len);
uint32_t rec_crc(const struct rec_head *h, uint64_t seg_no, const void *meta, const void *body);

/* Path of a segment or body file; caller frees. */
char *log_segment_path(const struct spool *s, uint64_t no);
char *log_body_path(const struct spool *s, uint64_t id);
/* Opens a new segment as the head.  Negative errno. */
int log_roll(struct spool *s);
/* Makes sure that span bytes fit into the head; keep is left free for PROGRESS and DONE. */
int log_room(struct spool *s, uint64_t span, bool may_use_reserve);
/* Writes one record at the head's end (no sync).  *off is where it begins. */
int log_write(struct spool *s, enum rec_type type, uint64_t id, struct str meta, struct str body,
              bool in_file, uint64_t file_size, uint64_t *off);
/* fdatasync of the head; on failure it is poisoned and never written to again. */
int log_sync(struct spool *s);
void log_entry_set(struct spool *s, uint64_t id, struct segment *seg, uint64_t off,
                   uint32_t meta_len, uint64_t body_len);
void log_entry_progress(struct spool *s, uint64_t id, struct segment *seg, uint64_t off,
                        uint32_t meta_len);
/* Forgets a message; its body file, if any, is removed. */
void log_entry_del(struct spool *s, uint64_t id);
/* Removes the oldest segments that hold nothing, and copies on what is left in the oldest one when
 * most of the log is dead.  Called after a sync. */
void log_reclaim(struct spool *s);
void segment_free(struct spool *s, struct segment *g);
int read_full(const struct spool *s, int fd, void *buf, size_t n, uint64_t off);

/* recover.c */
int log_recover(struct spool *s, void (*found)(void *arg, const struct spool_found *f), void *arg,
                const char **why);

#endif
