/*
 * receive/intake.c - the content of one message, as it comes in; see intake.h
 */
#include "receive/intake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/mem.h"

#define CHUNK       65536U
#define SMALL_CHUNK 4096U
#define TINY_CHUNK  1024U

/* Bytes of content held by all intakes of all loops, and on the way from them into the log. */
static _Atomic uint64_t intake_memory;

/* A chunk on its way to the file and back. */
struct intake_op {
    struct spool_op op;
    struct task back; /* to the loop */
    struct loop *loop;
    struct intake *in;
    bool orphan; /* the owner is gone: the intake goes when the chunk is back */
};

/* How much content an intake may gather before it goes to the file. */
static uint32_t chunk_size(const struct intake *in) {
    uint64_t held = atomic_load_explicit(&intake_memory, memory_order_relaxed);
    uint64_t quarter = (uint64_t)in->p->message_memory_limit / 4;
    return held > 2 * quarter ? TINY_CHUNK : held > quarter ? SMALL_CHUNK : CHUNK;
}

/* Counts what the intake holds now; on_the_way: bytes of the chunk that is with the spool. */
static void count_memory(struct intake *in, size_t on_the_way) {
    uint64_t now = in->content.cap + in->raw.cap + on_the_way;
    if (now >= in->counted_mem)
        atomic_fetch_add_explicit(&intake_memory, now - in->counted_mem, memory_order_relaxed);
    else
        atomic_fetch_sub_explicit(&intake_memory, in->counted_mem - now, memory_order_relaxed);
    in->counted_mem = now;
    if (in->p == NULL)
        return;
    uint32_t chunk = chunk_size(in);
    in->loop->read_max = chunk == CHUNK ? LOOP_SCRATCH : chunk;
}

struct intake *intake_new(enum intake_kind kind, struct loop *l, struct spool *sp,
                          const struct params *p, uint64_t id, const struct intake_ops *ops) {
    struct intake *in = MEM_NEW(struct intake);
    in->kind = kind;
    in->loop = l;
    in->spool = sp;
    in->p = p;
    in->id = id;
    in->ops = *ops;
    return in;
}

/* Text of the header section as it goes on, which may have longer lines than the client's and other
 * bytes: the field of our own quotes what the client calls itself. */
static void note_own(struct intake *in, struct content_in *own, struct str text) {
    content_look(own, text);
    in->in.has_long = in->in.has_long || own->has_long;
    in->own_8bit = in->own_8bit || own->has_8bit;
}

void intake_begin(struct intake *in, struct sbuf *received) {
    in->content = *received;
    *received = (struct sbuf){0};
    note_own(in, &in->own, sbuf_str(&in->content));
    header_skip_received(&in->hdr, in->content.n);
    count_memory(in, 0);
}

/* -- the file -- */

static void intake_file_dropped(struct spool_op *op) {
    free(op);
}

static void intake_drop_file(struct intake *in) {
    struct spool_op *op = MEM_NEW(struct spool_op);
    op->kind = SPOOL_BODY_DROP;
    op->id = in->id;
    op->done = intake_file_dropped;
    spool_submit(in->spool, op);
}

static void intake_destroy(struct intake *in) {
    if (in->in_file)
        intake_drop_file(in);
    sbuf_free(&in->content);
    sbuf_free(&in->raw);
    count_memory(in, 0);
    header_scan_free(&in->hdr);
    free(in);
}

void intake_free(struct intake *in) {
    if (in == NULL)
        return;
    if (in->writing == NULL) {
        intake_destroy(in);
        return;
    }
    in->writing->orphan = true;
    in->p = NULL; /* the configuration may go with the owner */
}

/* Of the gathered content, what may go to the file: a header section that is not complete keeps the
 * line that has not been judged, so that fields can still be put before it. */
static size_t intake_writable(const struct intake *in) {
    return in->hdr_done || in->too_big || in->failed < 0 ? in->content.n : in->hdr.at;
}

static bool intake_spill(struct intake *in);

/* The spool has answered: back on the loop. */
static void intake_chunk_back(struct task *t) {
    struct intake_op *o = DL_OWNER(t, struct intake_op, back);
    struct intake *in = o->in;
    bool orphan = o->orphan;
    in->writing = NULL;
    in->file_crc = o->op.crc;
    if (o->op.rc < 0 && in->failed == 0)
        in->failed = o->op.rc;
    sbuf_free(&o->op.chunk);
    free(o);
    count_memory(in, 0);
    if (orphan)
        intake_destroy(in);
    else
        in->ops.ready(in->ops.arg);
}

static void intake_chunk_done(struct spool_op *op) {
    struct intake_op *o = DL_OWNER(op, struct intake_op, op);
    o->back.run = intake_chunk_back;
    loop_post(o->loop, &o->back);
}

static void write_chunk(struct intake *in) {
    size_t n = intake_writable(in);
    struct sbuf rest = {0};
    struct intake_op *o = MEM_NEW(struct intake_op);
    o->in = in;
    o->loop = in->loop;
    o->op.kind = SPOOL_BODY_WRITE;
    o->op.id = in->id;
    o->op.done = intake_chunk_done;
    o->op.off = in->file_at;
    o->op.crc = in->file_crc;
    o->op.chunk = in->content;
    if (n < in->content.n)
        sbuf_add(&rest, in->content.p + n, in->content.n - n);
    if (!in->hdr_done)
        header_drop(&in->hdr, n < in->hdr.at ? n : in->hdr.at);
    o->op.chunk.n = n;
    in->file_at += n;
    in->content = rest;
    count_memory(in, o->op.chunk.cap);
    in->writing = o;
    spool_submit(in->spool, &o->op);
}

/* Moves large content to its file; true if it has to wait for the spool. */
static bool intake_spill(struct intake *in) {
    uint32_t chunk = chunk_size(in);
    uint64_t limit = chunk < CHUNK ? chunk : (uint64_t)in->p->spool_body_file_size;
    if (in->writing != NULL)
        return true;
    if (!in->in_file && in->content.n < limit)
        return false;
    in->in_file = true;
    size_t ready = intake_writable(in);
    if (ready == 0 || (ready < chunk && !in->ended))
        return false;
    write_chunk(in);
    return true;
}

/* -- bytes -- */

/* Where bytes are decoded to: the header section is edited before it is content. */
static struct sbuf *decode_to(struct intake *in) {
    return in->edit.ended ? &in->content : &in->raw;
}

/* What is too big or failed is read to its end, but not kept.  before: the length of to before the
 * bytes that are counted now. */
static void check_size(struct intake *in, struct sbuf *to, size_t before) {
    int64_t limit = in->ops.size_limit;
    in->size += to->n - before;
    if (limit > 0 && in->size > (uint64_t)limit)
        in->too_big = true;
    if (in->too_big || in->failed < 0)
        to->n = before;
}

/* Looks at new header lines; at the end of the section, completes it. */
static void scan_header(struct intake *in, bool last) {
    struct sbuf add = {0};
    struct content_in own = {0};
    if (in->hdr_done || in->too_big)
        return;
    header_scan(&in->hdr, sbuf_str(&in->content), last);
    if (!in->hdr.ended)
        return;
    in->hdr_done = true;
    in->ops.missing(in->ops.arg, &in->hdr, &add);
    if (add.n > 0) {
        note_own(in, &own, sbuf_str(&add));
        size_t at = in->hdr.end, tail = in->content.n - at;
        sbuf_room(&in->content, add.n);
        memmove(in->content.p + at + add.n, in->content.p + at, tail);
        memcpy(in->content.p + at, add.p, add.n);
        sbuf_advance(&in->content, add.n);
    }
    sbuf_free(&add);
}

/* The content is complete.  It goes to a file if there is one, or if it is large: also content that
 * came as a whole, or that its last piece has made large. */
static enum intake_rc intake_end(struct intake *in) {
    in->ended = true;
    bool good = in->failed == 0 && !in->too_big;
    if (good && in->content.n >= (uint64_t)in->p->spool_body_file_size)
        in->in_file = true;
    if (good && in->in_file && intake_spill(in))
        return INTAKE_WAIT;
    return in->writing != NULL ? INTAKE_WAIT : INTAKE_END;
}

/* Bytes were decoded behind the first before bytes of to; last: they are the last ones. */
static void bytes_came(struct intake *in, struct sbuf *to, size_t before, bool last) {
    check_size(in, to, before);
    if (!in->edit.ended) {
        size_t at = in->content.n;
        size_t n = header_edit(&in->edit, &in->ops.rules, &in->raw, last, &in->content);
        note_own(in, &in->own, str_make(sbuf_str(&in->content).p + at, n));
    }
    count_memory(in, 0);
    scan_header(in, last);
}

static size_t take_data(struct intake *in, struct str bytes, enum intake_rc *rc) {
    struct sbuf *to = decode_to(in);
    size_t used = 0, before = to->n;
    bool end = content_data(&in->in, bytes, to, &used);
    bytes_came(in, to, before, end);
    if (end)
        *rc = intake_end(in);
    else
        *rc = intake_spill(in) ? INTAKE_WAIT : INTAKE_MORE;
    return used;
}

/* A chunk of BDAT is over. */
static enum intake_rc end_chunk(struct intake *in) {
    struct sbuf *to = decode_to(in);
    size_t before = to->n;
    if (in->kind == INTAKE_REFUSED)
        return in->chunk_last ? INTAKE_END : INTAKE_CHUNK;
    if (!in->chunk_last) {
        intake_spill(in);
        return INTAKE_CHUNK;
    }
    content_bdat_end(&in->in, to);
    bytes_came(in, to, before, true);
    return intake_end(in);
}

static size_t take_chunk(struct intake *in, struct str bytes, enum intake_rc *rc) {
    struct sbuf *to = decode_to(in);
    size_t before = to->n;
    in->chunk_left -= bytes.n;
    if (in->kind == INTAKE_BDAT) {
        content_bdat(&in->in, bytes, to);
        bytes_came(in, to, before, false);
    }
    if (in->chunk_left == 0)
        *rc = end_chunk(in);
    else
        *rc = in->kind == INTAKE_BDAT && intake_spill(in) ? INTAKE_WAIT : INTAKE_MORE;
    return bytes.n;
}

/* Of bytes that may hold the end of the header section: not what is behind the end.  The section is
 * copied when it is edited, and the rest of a mail need not be. */
static struct str section_part(struct str bytes) {
    const char *end = memmem(bytes.p, bytes.n, "\n\r\n", 3);
    return end == NULL ? bytes : str_make(bytes.p, (size_t)(end - bytes.p) + 3);
}

size_t intake_take(struct intake *in, const char *p, size_t n, enum intake_rc *rc) {
    bool data = in->kind == INTAKE_DATA;
    /* Behind a chunk there may be thousands of others: all of them are not looked at for each. */
    struct str bytes = str_make(p, data || n < in->chunk_left ? n : (size_t)in->chunk_left);
    if (!in->edit.ended)
        bytes = section_part(bytes);
    return data ? take_data(in, bytes, rc) : take_chunk(in, bytes, rc);
}

enum intake_rc intake_chunk(struct intake *in, uint64_t n, bool last) {
    in->chunk_n = in->chunk_left = n;
    in->chunk_last = last;
    return n == 0 ? end_chunk(in) : INTAKE_MORE;
}

enum intake_rc intake_ready(struct intake *in) {
    if (in->ended)
        return intake_end(in);
    return INTAKE_MORE;
}

bool intake_open(const struct intake *in) {
    return in->kind == INTAKE_DATA ? !in->ended : in->chunk_left > 0;
}

void intake_body_settled(const struct body *b) {
    atomic_fetch_sub_explicit(&intake_memory, body_memory_of(b), memory_order_relaxed);
}

struct body *intake_body(struct intake *in, uint64_t *size) {
    struct body *b;
    *size = in->in_file ? in->file_at : in->content.n;
    if (in->in_file)
        b = body_from_file(in->file_at, in->file_crc);
    else
        b = body_from_buf(&in->content);
    atomic_fetch_add_explicit(&intake_memory, body_memory_of(b), memory_order_relaxed);
    in->in_file = false;     /* the file is the message's now */
    sbuf_free(&in->content); /* of a file, room that was made for what then did not come */
    return b;
}
