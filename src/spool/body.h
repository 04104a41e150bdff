/*
 * spool/body.h - message content: immutable, shared by reference count
 *
 * Small content is in memory while it is being received and first sent; large content is in a file
 * beside the log from its first bytes on.  Any thread may read; the last reference frees.
 */
#ifndef PH_SPOOL_BODY_H
#define PH_SPOOL_BODY_H

#include <stdatomic.h>

#include "util/str.h"

struct body {
    atomic_uint refs;
    char *p;       /* content, or NULL: in the file */
    int fd;        /* the file, or -1 */
    uint64_t size; /* bytes of content */
};

/* Takes the buffer over. */
struct body *body_from_buf(struct sbuf *b);
/* Takes the descriptor over. */
struct body *body_from_fd(int fd, uint64_t size);
struct body *body_ref(struct body *b);
void body_unref(struct body *b);
/* Up to max bytes from off: in place where the content is in memory, else read into tmp (reset
 * first).  An empty view at the end; p == NULL when reading failed. */
struct str body_view(const struct body *b, uint64_t off, size_t max, struct sbuf *tmp);
/* Bytes that all bodies in memory take. */
uint64_t body_memory(void);

#endif
