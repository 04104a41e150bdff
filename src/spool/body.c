/*
 * spool/body.c - message content; see body.h
 */
#include "spool/body.h"

#include <stdlib.h>

#include "util/mem.h"

static _Atomic uint64_t in_memory, files, in_log;

uint64_t body_memory(void) {
    return atomic_load_explicit(&in_memory, memory_order_relaxed);
}

uint64_t body_memory_of(const struct body *b) {
    return b->p == NULL ? 0 : b->size;
}

uint64_t body_files(void) {
    return atomic_load_explicit(&files, memory_order_relaxed);
}

uint64_t body_in_log(void) {
    return atomic_load(&in_log);
}

struct body *body_from_buf(struct sbuf *b) {
    struct body *o = MEM_NEW(struct body);
    atomic_store(&o->refs, 1);
    o->fd = -1;
    o->size = b->n;
    o->p = sbuf_take(b);
    atomic_fetch_add_explicit(&in_memory, o->size, memory_order_relaxed);
    return o;
}

struct body *body_from_file(uint64_t size, uint32_t crc) {
    struct body *o = MEM_NEW(struct body);
    atomic_store(&o->refs, 1);
    o->fd = -1;
    o->size = size;
    o->crc = crc;
    return o;
}

void body_opened(struct body *b, const struct spool_io *io, int fd) {
    b->io = io;
    b->fd = fd;
    atomic_fetch_add_explicit(&files, 1, memory_order_relaxed);
    atomic_fetch_add(&in_log, b->from > 0);
}

struct body *body_ref(struct body *b) {
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void body_unref(struct body *b) {
    if (b == NULL || atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (b->fd >= 0) {
        b->io->close(b->io->arg, b->fd);
        atomic_fetch_sub(&in_log, b->from > 0);
        atomic_fetch_sub_explicit(&files, 1, memory_order_relaxed);
    }
    atomic_fetch_sub_explicit(&in_memory, body_memory_of(b), memory_order_relaxed);
    free(b->p);
    free(b);
}

struct str body_view(const struct body *b, uint64_t off, size_t max, struct sbuf *tmp) {
    uint64_t left = off < b->size ? b->size - off : 0;
    size_t want = left < max ? (size_t)left : max;
    if (b->p != NULL)
        return str_make(b->p + (b->size - left), want);
    sbuf_reset(tmp);
    while (tmp->n < want) {
        char *at = sbuf_room(tmp, want - tmp->n);
        ssize_t n = b->io->pread(b->io->arg, b->fd, at, want - tmp->n, b->from + off + tmp->n);
        if (n <= 0) /* shorter than it was when it was synced: the disk is at fault */
            return STR_NONE;
        sbuf_advance(tmp, (size_t)n);
    }
    return str_make(tmp->p == NULL ? "" : tmp->p, want);
}
