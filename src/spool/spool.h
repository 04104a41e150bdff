/*
 * spool/spool.h - the door to the store of accepted mail
 *
 * An append-only log in segments with one writer thread.  Any thread submits operations; those that
 * are waiting when the writer is free make a batch: their records are written together and synced
 * once.  Then the writer calls done() of each operation.  An operation has succeeded when its own
 * segment is durable beyond its records.  A message is ours when done() has said 0 for it, and only
 * then may 250 be sent.
 *
 * The spool does not know what an envelope or progress is: they are bytes.  A segment is removed
 * only when it is the oldest, so the record that a message is done outlives the message.  What is
 * still queued in the oldest segment is copied to the end, a little after each batch, when dead
 * bytes outweigh it.
 */
#ifndef PH_SPOOL_SPOOL_H
#define PH_SPOOL_SPOOL_H

#include "spool/body.h"
#include "spool/io.h"
#include "util/loop.h"
#include "util/str.h"

struct spool;

struct spool_conf {
    const char *dir;       /* must exist */
    uint64_t segment_size; /* bytes */
};

enum spool_kind {
    SPOOL_NEW,        /* a message; may settle another one together with it (a report) */
    SPOOL_PROGRESS,   /* new state of a message: replaces the old one */
    SPOOL_DONE,       /* nothing is left to do for a message */
    SPOOL_READ,       /* reads a message's content back; done() is called on the reader thread */
    SPOOL_BODY_WRITE, /* a chunk of large content for its file; durable with SPOOL_NEW only */
    SPOOL_BODY_DROP,  /* the message was given up before SPOOL_NEW */
    SPOOL_SYNC,   /* writes nothing; everything that was submitted before it was tried.  Fails if
                   * some progress or end of a message could not be written yet */
    SPOOL_FORGET, /* the spool's own: withdraws a NEW that failed */
    SPOOL_DAMAGED /* the spool's own: READ has found that the disk does not give content back */
};

/* PROGRESS and DONE never fail: what cannot be written is kept, and written again in order.  Until
 * done() is called for a NEW that settles another message, no other operation may settle that one.
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
    struct sbuf meta; /* NEW: encoded envelope; PROGRESS: encoded progress */
    struct body
        *body;        /* NEW: the submitter's reference, and stays it; READ: a new one if rc is 0 */
    uint64_t settles; /* NEW: also settles this message; 0: none */
    struct sbuf settled; /* NEW: the progress of that message; empty: it is done */
    uint64_t off;        /* BODY_WRITE: offset of chunk; 0 makes the file */
    struct sbuf chunk;   /* BODY_WRITE: bytes */
    uint32_t crc;        /* BODY_WRITE: CRC32C of the content before chunk; then including it */
    int rc;              /* 0 or negative errno; READ: -EBADMSG if the disk gave back other bytes */
    void (*done)(struct spool_op *op); /* on the writer thread, but for READ; may free op */
    void *arg;                         /* the submitter's */
};

/* One message found at start. */
struct spool_found {
    uint64_t id;
    struct str meta;
    struct str progress; /* empty: never tried */
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
};

/* Locks the spool (two processes must not write to it), recovers what is there and calls found()
 * for each message; what found() gets is valid during the call.  Then the spool can be started.  On
 * failure negative errno with *why, which the caller frees; *out is for spool_close() in any case.
 */
int spool_open(struct spool **out, const struct spool_conf *conf, const struct spool_io *io,
               void (*found)(void *arg, const struct spool_found *f), void *arg, char **why);
/* Starts the writer and the reader thread; 0 or negative errno. */
int spool_start(struct spool *s);
/* Finishes what is submitted, then stops the threads and frees everything. */
void spool_close(struct spool *s);
/* Waits until everything submitted so far is durable, or was tried and is kept to be written again;
 * any thread but the spool's. */
void spool_flush(struct spool *s);
/* Any thread.  op lives until done() is called; the spool never frees it. */
void spool_submit(struct spool *s, struct spool_op *op);
/* n more (or fewer) clients are in the middle of a message: a hint for how long a batch waits. */
void spool_expect(struct spool *s, int n);
/* Bytes free on the spool's disk, at most a second old. */
int64_t spool_space(const struct spool *s);
void spool_stats(struct spool *s, struct spool_stats *out);
/* Does what an operation has ended with say that there is no room for the message?  (It may fit
 * when there is more.) */
bool spool_is_full(int rc);
/* A simple op for progress or done, freed by itself. */
void spool_note(struct spool *s, enum spool_kind kind, uint64_t id, struct sbuf *meta);

#endif
