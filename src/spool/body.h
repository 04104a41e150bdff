/*
 * spool/body.h - message content: immutable, shared by reference count
 *
 * Small content is in memory while it is being received and first sent, and later where there is
 * room, else it is read from the log's file as it is sent; large content is in a file beside the
 * log from its first bytes on.  Any thread may read; the last reference frees.
 */
#ifndef PH_SPOOL_BODY_H
#define PH_SPOOL_BODY_H

#include <stdatomic.h>

#include "spool/io.h"
#include "util/str.h"

struct body {
    atomic_uint refs;
    char *p;                   /* content, or NULL: in the file */
    const struct spool_io *io; /* how to reach the file */
    int fd;                    /* the file, or -1: not opened yet */
    uint64_t from;             /* where in the file it begins; 0: the file is the message's own */
    uint32_t crc;              /* of the content in the file (CRC32C) */
    uint64_t size;             /* bytes of content */
};

/* Takes the buffer over. */
struct body *body_from_buf(struct sbuf *b);
/* Content in a file; the spool opens it when it takes the message (SPOOL_NEW). */
struct body *body_from_file(uint64_t size, uint32_t crc);
struct body *body_ref(struct body *b);
void body_unref(struct body *b);
/* Up to max bytes from off: in place where the content is in memory, else read into tmp (reset
 * first).  An empty view at the end; p == NULL when reading failed. */
struct str body_view(const struct body *b, uint64_t off, size_t max, struct sbuf *tmp);
/* Bytes of it that are in memory: all or none. */
uint64_t body_memory_of(const struct body *b);
/* Bytes that all bodies in memory take; how many hold a file open. */
uint64_t body_memory(void);
uint64_t body_files(void);
/* How many hold a file of the log open: until then none that is removed may be cut short. */
uint64_t body_in_log(void);
/* The file is open from here on; taken over. */
void body_opened(struct body *b, const struct spool_io *io, int fd);

#endif
