/* The spool's log: any bytes as a segment, and records with right checksums but wild contents. */
#include <fcntl.h>

#include "../crash/sim_disk.h"
#include "fuzz.h"
#include "spool/index.h"
#include "spool/segment.h"
#include "spool/spool.h"
#include "util/codec.h"

#define SEGMENT 65536U

static void found(void *arg, const struct spool_found *f) {
    (void)arg;
    MUST(f->meta.n == 0 || f->meta.p != NULL);
}

/* A segment that is made: its number, and its salt (0: one of before there were salts). */
struct made {
    uint64_t no, salt;
};

static size_t record(struct str *in, char *at, size_t room, struct made seg, bool spoil) {
    struct rec_head h = {
        .mark = rec_mark(seg.salt), .type = fuzz_byte(in) % 8U, .id = fuzz_byte(in) % 8U};
    struct str meta = fuzz_piece(in, fuzz_byte(in) % 64U), body = fuzz_piece(in, fuzz_byte(in));
    h.meta_len = (uint32_t)meta.n;
    h.body_len = body.n;
    h.synced = fuzz_byte(in);
    h.body_crc = crc32c(0, body.p, body.n);
    if (fuzz_byte(in) % 8 == 0) {
        h.body_len = REC_FILE_BIT | body.n;
        body.n = 0;
    }
    size_t span = rec_span(h.meta_len, h.body_len);
    if (span > room)
        return room;
    struct segment g = {.no = seg.no, .salt = seg.salt};
    h.crc = rec_crc(&g, SEGMENT - room, &h, meta.p) ^ spoil;
    memcpy(at, &h, sizeof h);
    memcpy(at + sizeof h, meta.p, meta.n);
    memcpy(at + sizeof h + meta.n, body.p, body.n);
    return span;
}

static void segment(const struct spool_io *io, uint64_t no, struct str in) {
    struct made seg = {no, fuzz_byte(&in) % 2U == 0 ? 0 : 0x7e57ab1e00c0ffeeULL};
    char path[64], *buf = calloc(1, SEGMENT);
    bool raw = fuzz_byte(&in) % 4 == 0;
    if (raw)
        memcpy(buf, in.p, in.n < SEGMENT ? in.n : SEGMENT);
    for (size_t at = 0; !raw && in.n > 0 && at < SEGMENT;)
        at += record(&in, buf + at, SEGMENT - at, seg, fuzz_byte(&in) == 255);
    int n = snprintf(path, sizeof path, "s/log/%016x", (unsigned)no);
    if (seg.salt != 0)
        snprintf(path + n, sizeof path - (size_t)n, "-%016llx", (unsigned long long)seg.salt);
    int fd = io->open(io->arg, path, O_RDWR | O_CREAT, 0600);
    struct iovec iov = {buf, SEGMENT};
    io->pwritev(io->arg, fd, &iov, 1, 0);
    io->close(io->arg, fd);
    free(buf);
}

static uint64_t open_once(struct sim *d) {
    struct spool *s;
    char *why = NULL;
    struct spool_stats st;
    struct spool_conf conf = {"s", SEGMENT};
    MUST(spool_open(&s, &conf, sim_io(d), found, NULL, &why) == 0);
    for (uint64_t id = 0; id < 8; id++)
        spool_note(s, id % 2 == 0 ? SPOOL_PROGRESS : SPOOL_DONE, id, NULL);
    spool_turn(s);
    spool_turn(s);
    spool_stats(s, &st);
    spool_close(s);
    free(why);
    return st.messages;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    struct str in = str_make((const char *)p, n);
    struct sim *d = sim_new(1);
    fuzz_quiet();
    struct str half = fuzz_piece(&in, n / 2);
    segment(sim_io(d), 1, half);
    segment(sim_io(d), 2 + fuzz_byte(&in) % 2U, in);
    uint64_t before = open_once(d);
    MUST(open_once(d) <= before); /* nothing comes back */
    sim_free(d);
    return 0;
}
