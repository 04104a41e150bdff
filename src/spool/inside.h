/*
 * spool/inside.h - inside of the spool: segments, records, messages (spool thread only)
 *
 * A record: 40 bytes of head, meta, content, padding to 8 bytes.  The head's checksum covers the
 * segment's number and salt, the record's place in it, the head and the meta; the content has a
 * checksum of its own, which is looked at again whenever the content is read back.
 *
 * The salt is 8 random bytes that are part of the segment's file name and of nothing that leaves
 * the machine.  Half of it is also the mark that each head begins with.  So neither a record of an
 * older file that lies in reused blocks, nor one that a sender has put into content, is taken
 * for a record of this segment.  Segments that were made before there were salts are read as they
 * are.
 *
 * A segment gets its name after its first record is durable: one without that record is damaged.
 *
 * Each record says how much of its segment was durable when it was written, and the first record of
 * a segment says it of the segment before.  What lies below and is no record is damage to something
 * that was promised; what lies above is the rest of a batch that no client was told of.
 */
#ifndef PH_SPOOL_INSIDE_H
#define PH_SPOOL_INSIDE_H

#include "spool/io.h"
#include "spool/types.h"
#include "util/htab.h"
#include "util/list.h"
#include "util/queue.h"

#define REC_MARK_OLD 0x32524850U /* "PHR2", in segments without a salt */

enum rec_type {
    REC_MESSAGE = 1,
    REC_PROGRESS = 2,
    REC_DONE = 3,
    REC_SETTLE = 4,   /* follows the MESSAGE that settles: counts only together with that one */
    REC_BEGIN = 5,    /* first of a segment */
    REC_FORGET = 6,   /* withdraws a MESSAGE (and its SETTLE) that has failed */
    REC_SETTLING = 7, /* a MESSAGE that settles: counts only together with the SETTLE behind it */
    REC_STEP = 8      /* goes on with the message's progress: its meta is put behind that */
};

/* REC_SETTLE's meta begins with the id of the message that settles; then comes progress, or
 * nothing: the settled message is done. */
#define SETTLE_HEAD 8U

struct rec_head {
    uint32_t mark; /* the low half of the segment's salt */
    uint32_t crc;  /* CRC32C of segment number and salt, place, the rest of the head and the meta */
    uint32_t body_crc;
    uint32_t meta_len;
    uint64_t id;       /* of the message; REC_BEGIN: the largest one that any message had before */
    uint64_t body_len; /* of content in the record; with REC_FILE_BIT: in body/ID instead */
    uint32_t type;
    uint32_t synced; /* eighths of the segment's durable bytes at that time */
};

/* REC_BEGIN's meta. */
struct rec_begin {
    uint64_t prev_no;     /* the segment before; 0: none */
    uint64_t prev_synced; /* its durable bytes */
    /* From here on only in segments with a salt: */
    uint64_t prev_salt;
    uint64_t salt; /* this segment's, for a file that lost its name */
};

#define REC_BEGIN_OLD offsetof(struct rec_begin, prev_salt)

/* REC_FORGET's meta in a segment that is written to although a write in it was unfinished when it
 * was found: what lies there is no record, and is no damage either.  The id is that of a message
 * with a record there that does not count, or 0. */
struct rec_unfinished {
    uint64_t off, n; /* bytes of the segment */
};

#define REC_FILE_BIT (1ULL << 63)
#define REC_META_MAX (64U << 20)
/* Offsets are kept in eighths, in 32 bits. */
#define SEGMENT_MAX (16ULL << 30)

/* A stretch of a segment that is no record. */
struct gap {
    uint64_t off, n;
    uint64_t id;     /* it is the record of that message, which does not count; 0: it is none */
    bool unreadable; /* the disk refused to read it */
    bool known;      /* a record behind it says that it is an unfinished write */
};

struct segment {
    struct dl link;
    uint64_t no;
    uint64_t salt; /* 0: made before there were salts */
    int fd;
    uint64_t used;    /* where the next record goes */
    uint64_t written; /* below: given to the kernel; of the head only */
    uint64_t synced;  /* below: durable */
    uint64_t size;    /* allocated */
    uint64_t live;    /* records here that queued messages need */
    uint64_t emptied; /* records below are not needed here, or copied to the head */
    struct gap *gaps; /* found at start */
    size_t n_gaps;
    atomic_uint readers; /* reads in progress: keep the descriptor */
    int write_rc;        /* why a write failed: nothing more is written; 0: none did */
    uint64_t tainted;    /* bytes behind written that the failed write may have left */
    int sync_rc;         /* why a sync failed: neither written nor synced again; 0: none did */
    bool stuck;          /* something in it is damaged: it stays as it is */
    bool refused;        /* the disk has refused to give something in it back, at this time … */
    int64_t refused_ms;
    bool unread;     /* likewise, at this start: it stays until one can read it */
    bool damaged;    /* something in it is: the file goes to damaged/ when it is not needed */
    bool whole;      /* found at start, nothing of what was durable in it is damaged, and no
                      * sync of its name has failed */
    bool soft;       /* something found in it may not be durable */
    bool warned;     /* that it cannot be removed */
    bool unlinked;   /* its name was removed, and that may not be durable */
    unsigned unsaid; /* how often the disk did not take down that it goes */
};

/* Records that go on with a message's progress, in their order. */
struct steps {
    uint32_t n, cap;
    struct step {
        struct segment *seg;
        uint32_t off; /* in eighths */
        uint32_t len;
    } v[];
};

/* One queued message. */
struct entry {
    uint64_t id;
    struct segment *seg;
    uint64_t body_len; /* as in the record */
    struct segment *prog_seg;
    struct steps *steps; /* behind its progress; NULL: none; owned */
    uint32_t off;        /* of its record, in eighths */
    uint32_t meta_len;
    uint32_t prog_off;
    uint32_t prog_len; /* 0: no progress yet */
    bool moving;       /* it was copied on, with its progress: one of spool->moves */
    bool damaged;      /* its content, of which a file is not in damaged/ yet */
};

/* A message that was copied on; its entry follows when the copy is durable. */
struct move {
    struct segment *seg;
    uint64_t id;
    uint64_t off, prog_off; /* of the copies */
    uint32_t prog_len;      /* with the steps, which are part of the copy */
    uint64_t end;           /* where the last one ends */
};

struct spool {
    const struct spool_io *io;
    char *dir;
    uint64_t segment_size;
    int lock_fd;          /* open as long as the spool is; negative: none */
    int log_fd;           /* log/, locked as well; likewise */
    struct dl segments;   /* oldest first; the last one is written to */
    struct segment *head; /* NULL until the first record */
    struct sbuf gathered; /* records of the head that are not written yet */
    uint64_t next_no;
    uint64_t newest_no, newest_salt; /* as the lock file has it (newest.h); 0: it names none */
    bool newest_unsure;              /* what it had at start cannot be read */
    uint64_t oldest_no;              /* likewise; 0: it names none, or that is not durable */
    uint64_t stray_no, stray_salt;   /* a segment that was not made, and may have its name all the
                                      * same; 0: none */
    uint64_t before_oldest; /* the segment before the oldest one found; 0: none, or it is unknown */
    struct itab index;      /* id -> struct entry */
    struct itab bodyfiles;  /* id -> struct bodyfile: content that is being received */
    struct queue ops;
    struct queue reads;
    pthread_t writer;
    pthread_t reader;
    bool threads;       /* they were started */
    struct task *retry; /* PROGRESS and DONE that could not be written: again later */
    struct task **retry_tail;
    bool notes_wait;   /* some of that is no FORGET */
    bool forgets_fail; /* nor could a FORGET be written, after the message itself, in the last batch
                        */
    atomic_bool behind; /* so it was before the last batch, too */
    struct move *moves; /* copied to the head and not synced yet */
    size_t n_moves, cap_moves;
    bool damage_stays; /* content that may belong to it could not be moved: the next start must know
                        */
    uint64_t removed_no; /* the newest segment that was removed while it was in use; 0: none */
    bool rescue;         /* something found at start may not be durable: written again first */
    unsigned soft_tries; /* how often what was found could not be made durable where it is */
    _Atomic int64_t space;
    _Atomic int expected; /* clients in the middle of a message */
    int64_t space_ms;
    struct spool_stats st;    /* the writer's */
    struct spool_stats shown; /* copied after each batch, under stats_lock */
    pthread_mutex_t stats_lock;
};

static inline uint64_t entry_off(const struct entry *e) {
    return (uint64_t)e->off * 8;
}

static inline uint64_t entry_prog_off(const struct entry *e) {
    return (uint64_t)e->prog_off * 8;
}

/* True if the message's content is in a file; e may be NULL. */
static inline bool entry_has_file(const struct entry *e) {
    return e != NULL && (e->body_len & REC_FILE_BIT) != 0;
}

/* IDs are never given twice, so the largest one outlives its message. */
static inline void spool_note_id(struct spool *s, uint64_t id) {
    if (s->st.last_id < id)
        s->st.last_id = id;
}

/* What log_write writes. */
struct rec {
    enum rec_type type;
    uint64_t id;
    struct str meta;
    struct str body;
    uint64_t body_len; /* with REC_FILE_BIT: the content is in a file */
    uint32_t body_crc;
};

#endif
