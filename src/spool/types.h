/*
 * spool/types.h - what goes into the spool and comes out of it; see spool.h
 */
#ifndef PH_SPOOL_TYPES_H
#define PH_SPOOL_TYPES_H

#include "spool/body.h"
#include "util/loop.h"
#include "util/str.h"

struct spool_conf {
    const char *dir;       /* must exist */
    uint64_t segment_size; /* bytes */
};

enum spool_kind {
    SPOOL_NEW,        /* a message; may settle another one together with it (a report) */
    SPOOL_PROGRESS,   /* new state of a message: replaces the old one */
    SPOOL_STEP,       /* more of its state: is put behind that, perhaps twice */
    SPOOL_DONE,       /* nothing is left to do for a message */
    SPOOL_READ,       /* reads a message's content back; done() is called on the reader thread */
    SPOOL_BODY_WRITE, /* a chunk of large content for its file; durable with SPOOL_NEW only */
    SPOOL_BODY_DROP,  /* the message was given up before SPOOL_NEW */
    SPOOL_SYNC,   /* writes nothing; everything that was submitted before it was tried.  Fails if
                   * some progress or end of a message could not be written yet */
    SPOOL_FORGET, /* the spool's own: withdraws a NEW that failed */
    SPOOL_DAMAGED /* the spool's own: READ has found that the disk does not give content back */
};

/* PROGRESS, STEP and DONE never fail: what cannot be written is kept, and written again in order.
 * Until done() is called for a NEW that settles another message, no other operation may settle that
 * one.
 */
struct spool_op {
    /* Private to the spool. */
    struct task task;
    struct segment *seg; /* of its records; NULL: none was written */
    uint64_t at;         /* offset of its record in seg */
    uint64_t settle_at;  /* offset of the SETTLE record */
    uint64_t end;        /* where its last record ends: durable when the segment is up to there */
    bool has_file;       /* FORGET, DAMAGED: the message's content is in a file */

    enum spool_kind kind;
    uint64_t id;      /* of the message */
    struct sbuf meta; /* NEW: encoded envelope; PROGRESS: encoded progress; STEP: of it */
    struct body
        *body;        /* NEW: the submitter's reference, and stays it; READ: a new one if rc is 0 */
    uint64_t settles; /* NEW: also settles this message; 0: none */
    struct sbuf settled; /* NEW: the progress of that message; empty: it is done */
    uint64_t off;        /* BODY_WRITE: offset of chunk; 0 makes the file */
    struct sbuf chunk;   /* BODY_WRITE: bytes */
    uint32_t crc;        /* BODY_WRITE: CRC32C of the content before chunk; then including it */
    uint64_t memory_max; /* READ: content stays in its file where all in memory would take more */
    int rc;              /* 0 or negative errno; READ: -EBADMSG if the disk gave back other bytes */
    void (*done)(struct spool_op *op); /* on the writer thread, but for READ; may free op */
    void *arg;                         /* the submitter's */
};

/* One message found at start. */
struct spool_found {
    uint64_t id;
    struct str meta;
    struct str progress; /* with its steps behind it; empty: never tried */
    uint64_t size;       /* bytes of content */
};

struct spool_stats {
    uint64_t messages;
    uint64_t segments;
    uint64_t log_bytes;  /* of all segments, used part */
    uint64_t live_bytes; /* of queued messages in them */
    uint64_t batches;
    uint64_t records;
    uint64_t bytes_written;
    uint64_t damaged;    /* found at start: places where something promised is missing */
    uint64_t unfinished; /* found at start: writes that no client was told of */
    uint64_t last_id; /* the largest ID that a message ever had, also before this start; 0: none */
};

#endif
