/*
 * receive/intake.h - the content of one message, as it comes in
 *
 * The loop's thread.  Bytes of DATA or of BDAT chunks are decoded into memory.  When there is much
 * of them they go to a file of the spool, a chunk at a time: the client is not read from while a
 * chunk is being written, so a sender of any size costs one chunk.  When all intakes together hold
 * a quarter of message_memory_limit, chunks and reads become small, and tiny at a half: all clients
 * go on, at the pace of the disk.
 *
 * The owner has an intake from intake_new to intake_free, which may be called at any time; a chunk
 * that is with the spool then stays until it is back, and the file is removed.
 */
#ifndef PH_RECEIVE_INTAKE_H
#define PH_RECEIVE_INTAKE_H

#include "config/config.h"
#include "mail/edit.h"
#include "mail/header.h"
#include "smtp/content.h"
#include "spool/spool.h"
#include "util/loop.h"

/* What the intake is to do next, said by intake_take, intake_chunk and intake_ready. */
enum intake_rc {
    INTAKE_MORE = 1, /* it wants more bytes */
    INTAKE_WAIT,     /* it wants none until ops->ready is called */
    INTAKE_CHUNK,    /* a chunk of BDAT is whole, and it was not the last one */
    INTAKE_END       /* the content is whole, or what is left of a refused one was read */
};

struct intake_ops {
    /* The spool has taken what intake_take was told to wait for; called by the loop. */
    void (*ready)(void *arg);
    /* The end of the header section: appends fields that are missing to add. */
    void (*missing)(void *arg, struct header_scan *h, struct sbuf *add);
    struct edit_rules rules; /* its texts live as long as the configuration */
    int64_t size_limit;      /* bytes of content; 0: none */
    void *arg;
};

enum intake_kind {
    INTAKE_DATA = 1, /* up to CR LF . CR LF */
    INTAKE_BDAT,     /* chunks of announced length */
    INTAKE_REFUSED   /* such chunks, which are read and dropped */
};

struct intake_op;

struct intake {
    enum intake_kind kind;
    struct loop *loop;
    struct spool *spool;
    const struct params *p; /* of the configuration as a whole; NULL: the owner is gone */
    struct intake_ops ops;
    uint64_t id;                  /* the message's */
    struct content_in in;         /* the decoder */
    struct content_in own;        /* what it makes of the header section as it goes on */
    bool own_8bit;                /* what was put into the header section is not ASCII */
    struct sbuf raw;              /* of the header section, what is not decided */
    struct header_edit edit;      /* from raw to content */
    struct sbuf content;          /* all of it, or what is not yet in the file */
    struct header_scan hdr;       /* offsets are into content */
    bool hdr_done;                /* the header section is over and completed */
    uint64_t size;                /* bytes of content, without what intake_begin was given */
    uint64_t counted_mem;         /* bytes, of the budget of all intakes */
    bool too_big;                 /* above ops.size_limit: read on, not kept */
    int failed;                   /* negative errno: the file cannot be written; 0: no failure */
    bool in_file;                 /* it goes to the file */
    uint64_t file_at;             /* bytes in the file and on their way there */
    uint32_t file_crc;            /* of the bytes in the file */
    struct intake_op *writing;    /* the chunk that is with the spool, or NULL */
    bool ended;                   /* nothing more comes */
    uint64_t chunk_left, chunk_n; /* bytes of the current chunk of BDAT: to come, in all */
    bool chunk_last;              /* BDAT … LAST */
};

/* id: the queue file's.  p: of the configuration as a whole; it stays until intake_free. */
struct intake *intake_new(enum intake_kind kind, struct loop *l, struct spool *sp,
                          const struct params *p, uint64_t id, const struct intake_ops *ops);
/* The Received: field; not counted as content of the client's. */
void intake_begin(struct intake *in, struct sbuf *received);
/* A chunk of n bytes follows. */
enum intake_rc intake_chunk(struct intake *in, uint64_t n, bool last);
/* Takes bytes of content; returns how many were used. */
size_t intake_take(struct intake *in, const char *p, size_t n, enum intake_rc *rc);
/* After ops->ready: how to go on. */
enum intake_rc intake_ready(struct intake *in);
/* Are bytes of content to come before the next command? */
bool intake_open(const struct intake *in);
/* The whole content, which is the caller's now; *size: its length.  After INTAKE_END, once.  What
 * of it is in memory counts as the intake's until intake_body_settled, so that a slow disk does not
 * let it grow without bound. */
struct body *intake_body(struct intake *in, uint64_t *size);
/* Any thread: the spool has the content, or does not get it. */
void intake_body_settled(const struct body *b);
/* Safe with NULL. */
void intake_free(struct intake *in);

#endif
