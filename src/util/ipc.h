/*
 * util/ipc.h - typed, length-prefixed messages between the processes
 *
 * A message is a 12-byte header (length, type, tag) and fields; both ends check every length.  A
 * reader that meets a short or long field is marked bad and yields zeros from then on, so that a
 * decoder checks once, at its end, with ipc_done.  Blocking helpers serve the supervisor and the
 * lookup threads; the relay uses ipc_chan (see ipc_chan.h) on its loops.
 */
#ifndef PH_UTIL_IPC_H
#define PH_UTIL_IPC_H

#include "util/str.h"

#define IPC_MAX (16U << 20)

struct ipc_head {
    uint32_t len; /* of the fields, without this header */
    uint32_t type;
    uint32_t tag; /* pairs an answer with its question */
};

/* Writer: begin, put …, end; the buffer then holds the whole message. */
size_t ipc_begin(struct sbuf *b, uint32_t type, uint32_t tag);
void ipc_put_u32(struct sbuf *b, uint32_t v);
void ipc_put_u64(struct sbuf *b, uint64_t v);
void ipc_put_str(struct sbuf *b, struct str s);
void ipc_end(struct sbuf *b, size_t begun);

struct ipc_reader {
    struct str rest;
    bool bad;
};

uint32_t ipc_get_u32(struct ipc_reader *r);
uint64_t ipc_get_u64(struct ipc_reader *r);
/* A view into the message. */
struct str ipc_get_str(struct ipc_reader *r);
/* True if nothing was malformed and nothing is left over. */
bool ipc_done(const struct ipc_reader *r);
/* Looks whether buf starts with a whole message: 1 yes (head and fields set), 0 not yet,
 * -EPROTO if its length is impossible. */
int ipc_peek(struct str buf, struct ipc_head *head, struct str *fields);

/* Blocking: sends a whole message, with n_fds descriptors (SCM_RIGHTS).  Negative errno. */
int ipc_send(int fd, struct str msg, const int *fds, size_t n_fds);
/* The same until then, by clock_mono_ms; -ETIMEDOUT: a part of it may have gone out. */
int ipc_send_until(int fd, struct str msg, const int *fds, size_t n_fds, int64_t until_ms);
/* Blocking: receives one message into buf (reset first); up to max_fds descriptors are stored,
 * *n_fds says how many.  -EPIPE when the peer is gone. */
int ipc_recv(int fd, struct sbuf *buf, struct ipc_head *head, struct str *fields, int *fds,
             size_t max_fds, size_t *n_fds);

#endif
