/*
 * spool/recover.c - reading the log at start
 *
 * Segments are read in order through a window.  What is no record is a gap: zeros up to the end are
 * the unused end of a segment; any other gap is kept in damaged/ and reported, as damage if it lies
 * below the bytes that were durable, as an unfinished write if it lies above (no client was told
 * 250). Reading goes on at the next valid record.  What the disk refuses to read is a gap too, but
 * may be whole: its segment stays where it is, for the next start.
 */
#include "spool/recover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spool/bodyfile.h"
#include "spool/index.h"
#include "spool/log.h"
#include "spool/newest.h"
#include "spool/segment.h"
#include "util/codec.h"
#include "util/log.h"
#include "util/mem.h"

#define WINDOW (1U << 20)
/* Offsets in a segment are kept in eighths, in 32 bits. */
#define FILE_MAX ((int64_t)UINT32_MAX * 8)
#define BLOCK    4096U

/* Files of log/ or body/, in order. */
struct names {
    struct name {
        uint64_t no;
        uint64_t salt; /* 0: there is none in the name */
    } * v;
    size_t n;
};

/* 16 hexadecimal digits at the beginning of text, as file names have them; false: something else.
 */
static bool name_part(const char *text, uint64_t *out) {
    *out = 0;
    for (int i = 0; i < 16; i++) {
        int digit = hex_digit(text[i]);
        if (digit < 0 || (text[i] >= 'A' && text[i] <= 'F'))
            return false;
        *out = *out << 4 | (uint64_t)digit;
    }
    return true;
}

/* A number, and perhaps a salt, with end behind. */
static void name_add_before(struct names *l, const char *text, const char *end) {
    struct name name = {0};
    if (!name_part(text, &name.no))
        return;
    text += 16;
    if (text[0] == '-' && name_part(text + 1, &name.salt))
        text += 17;
    else
        name.salt = 0;
    if (strcmp(text, end) != 0)
        return;
    l->v = mem_realloc(l->v, (l->n + 1) * sizeof *l->v);
    l->v[l->n++] = name;
}

static void name_add(void *ctx, const char *text) {
    name_add_before(ctx, text, "");
}

static int name_cmp(const void *a, const void *b) {
    const struct name *x = a, *y = b;
    if (x->no != y->no)
        return x->no < y->no ? -1 : 1;
    return x->salt < y->salt ? -1 : x->salt > y->salt;
}

static int names_list(struct spool *s, const char *sub, void (*add)(void *ctx, const char *text),
                      struct names *l) {
    struct sbuf dir = {0};
    sbuf_printf(&dir, "%s/%s", s->dir, sub);
    int rc = s->io->list(s->io->arg, dir.p, add, l);
    sbuf_free(&dir);
    if (rc == 0 && l->n > 0)
        qsort(l->v, l->n, sizeof *l->v, name_cmp);
    return rc;
}

/* Is there a file of that number, without a salt? */
static bool names_with(const struct names *l, uint64_t no) {
    struct name name = {.no = no};
    return l->n > 0 && bsearch(&name, l->v, l->n, sizeof *l->v, name_cmp) != NULL;
}

/* What a SETTLE has changed, in case a FORGET follows. */
struct settled {
    uint64_t by;
    struct entry was;
    bool done; /* the entry is gone */
};

/* A SETTLING record; its SETTLE has not been met. */
struct unsettled {
    struct segment *g;
    uint64_t id, off, span;
};

/* A segment being read, and what is remembered over all of them. */
struct scan {
    struct spool *s;
    struct segment *g;
    struct sbuf buf; /* bytes [at, at + n) of the segment */
    uint64_t at, n;
    bool refused; /* since the last record: the disk did not give something back */
    struct settled *settled;
    size_t n_settled;
    struct unsettled *unsettled;
    size_t n_unsettled;
    char *newer; /* what a newer version has written; NULL: nothing */
};

/* need bytes from off, or NULL if the disk does not give them. */
static const char *scan_view(struct scan *sc, uint64_t off, uint64_t need) {
    if (off >= sc->at && off + need <= sc->at + sc->n)
        return sc->buf.p + (off - sc->at);
    uint64_t left = sc->g->size - off, want = need < WINDOW ? WINDOW : need;
    if (want > left)
        want = left;
    sbuf_reset(&sc->buf);
    sc->at = off;
    sc->n = 0;
    char *p = sbuf_room(&sc->buf, (size_t)want);
    if (disk_read(sc->s, sc->g->fd, p, (size_t)want, off) == 0) {
        sc->n = want;
        return p;
    }
    /* Somewhere in there: only what was asked for counts. */
    if (want > need && disk_read(sc->s, sc->g->fd, p, (size_t)need, off) == 0) {
        sc->n = need;
        return p;
    }
    sc->refused = true;
    return NULL;
}

/* May h be the head of a record at off of g? */
static bool scan_plausible(const struct segment *g, uint64_t off, const struct rec_head *h) {
    uint64_t body = (h->body_len & REC_FILE_BIT) != 0 ? 0 : h->body_len;
    uint64_t left = g->size - off;
    size_t begin = g->salt == 0 ? REC_BEGIN_OLD : sizeof(struct rec_begin);
    return h->mark == rec_mark(g->salt) && h->meta_len <= REC_META_MAX && h->type >= REC_MESSAGE &&
           (h->type <= REC_STEP || g->salt != 0) && body <= left &&
           rec_span(h->meta_len, h->body_len) <= left &&
           (h->type != REC_BEGIN || (off == 0 && h->meta_len == begin)) &&
           (h->type != REC_SETTLE || h->meta_len >= SETTLE_HEAD);
}

/* A whole valid record at off?  Its span, or 0.  *meta lies in the window. */
static uint64_t scan_record(struct scan *sc, uint64_t off, struct rec_head *h, const char **meta) {
    uint64_t left = sc->g->size - off;
    const char *p = left < sizeof *h ? NULL : scan_view(sc, off, sizeof *h);
    if (p == NULL)
        return 0;
    memcpy(h, p, sizeof *h);
    if (!scan_plausible(sc->g, off, h))
        return 0;
    uint64_t span = rec_span(h->meta_len, h->body_len);
    p = scan_view(sc, off, span);
    if (p == NULL || rec_crc(sc->g, off, h, p + sizeof *h) != h->crc)
        return 0;
    *meta = p + sizeof *h;
    if ((h->body_len & REC_FILE_BIT) == 0 &&
        crc32c(0, p + sizeof *h + h->meta_len, (size_t)h->body_len) != h->body_crc)
        return 0;
    return span;
}

static bool scan_is_zero(const char *p, uint64_t n) {
    return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

/* Notes the gap that begins at off; returns where reading goes on. */
static uint64_t scan_gap(struct scan *sc, uint64_t off) {
    struct segment *g = sc->g;
    struct rec_head h;
    const char *meta;
    struct gap gap = {.off = off};
    uint64_t at = off, end = off; /* end: of what is not zero */
    while (at < g->size && (at == off || scan_record(sc, at, &h, &meta) == 0)) {
        uint64_t block = BLOCK - at % BLOCK;
        if (block > g->size - at)
            block = g->size - at;
        const char *p = scan_view(sc, at, block);
        if (p == NULL || scan_is_zero(p, block)) { /* no record begins in here */
            at += block;
            end = p == NULL ? at : end;
            continue;
        }
        at += at + 8 > g->size ? g->size - at : 8;
        end = at;
    }
    gap.n = (at < g->size ? at : end) - off;
    gap.unreadable = sc->refused;
    if (gap.n == 0) /* zeros: the unused end */
        return at;
    g->gaps = mem_realloc(g->gaps, (g->n_gaps + 1) * sizeof *g->gaps);
    g->gaps[g->n_gaps++] = gap;
    return at;
}

/* The segment before, as this one's first record knows it. */
static void scan_apply_begin(struct scan *sc, const struct rec_head *h, const char *meta) {
    struct spool *s = sc->s;
    struct rec_begin b = {0};
    memcpy(&b, meta, h->meta_len);
    DL_EACH (it, &s->segments) {
        struct segment *p = DL_OWNER(it, struct segment, link);
        if (p->no != b.prev_no || (sc->g->salt != 0 && p->salt != b.prev_salt))
            continue;
        if (p->synced < b.prev_synced)
            p->synced = b.prev_synced;
        return;
    }
    struct segment *first = DL_OWNER(s->segments.next, struct segment, link);
    if (b.prev_synced == 0) /* never used */
        return;
    if (b.prev_no < first->no) { /* the lock file knows whether that was removed in its time */
        s->before_oldest = sc->g == first ? b.prev_no : s->before_oldest;
        return;
    }
    log_error("spool", "segment %016llx is missing from log/: what was queued only there is lost",
              (unsigned long long)b.prev_no);
    s->st.damaged++;
}

static void scan_apply_settling(struct scan *sc, uint64_t off, const struct rec_head *h) {
    entry_set(sc->s, h->id, sc->g, off, h->meta_len, h->body_len);
    sc->unsettled = mem_realloc(sc->unsettled, (sc->n_unsettled + 1) * sizeof *sc->unsettled);
    sc->unsettled[sc->n_unsettled++] =
        (struct unsettled){sc->g, h->id, off, rec_span(h->meta_len, h->body_len)};
}

/* The SETTLE at off lies right behind the SETTLING record that it belongs to. */
static void scan_is_settled(struct scan *sc, uint64_t off, uint64_t by) {
    const struct unsettled *u = sc->n_unsettled == 0 ? NULL : &sc->unsettled[sc->n_unsettled - 1];
    if (u != NULL && u->g == sc->g && u->id == by && u->off + u->span == off)
        sc->n_unsettled--;
}

static struct steps *steps_copy(const struct steps *t) {
    size_t n = t == NULL ? 0 : sizeof *t + t->cap * sizeof t->v[0];
    return t == NULL ? NULL : memcpy(mem_alloc(n), t, n);
}

static void scan_apply_settle(struct scan *sc, uint64_t off, const struct rec_head *h,
                              const char *meta) {
    struct spool *s = sc->s;
    const struct entry *e = itab_get(&s->index, h->id);
    uint64_t by;
    memcpy(&by, meta, sizeof by);
    scan_is_settled(sc, off, by);
    if (e == NULL || itab_get(&s->index, by) == NULL) /* the settling message was not written */
        return;
    sc->settled = mem_realloc(sc->settled, (sc->n_settled + 1) * sizeof *sc->settled);
    sc->settled[sc->n_settled] = (struct settled){by, *e, h->meta_len == SETTLE_HEAD};
    sc->settled[sc->n_settled++].was.steps = steps_copy(e->steps);
    if (h->meta_len == SETTLE_HEAD)
        entry_drop(s, h->id);
    else
        entry_set_progress(s, h->id, sc->g, off + SETTLE_HEAD, h->meta_len - SETTLE_HEAD);
}

/* What a start that wrote behind it has said of an unfinished write. */
static void scan_apply_unfinished(struct scan *sc, const struct rec_head *h, const char *meta) {
    struct segment *g = sc->g;
    struct rec_unfinished u;
    if (h->meta_len != sizeof u)
        return;
    memcpy(&u, meta, sizeof u);
    for (size_t i = 0; i < g->n_gaps; i++)
        if (g->gaps[i].off == u.off && g->gaps[i].n == u.n)
            g->gaps[i].known = true;
}

/* The batch with this message failed: what it settled is open again. */
static void scan_apply_forget(struct scan *sc, uint64_t id) {
    struct spool *s = sc->s;
    for (size_t i = 0; i < sc->n_settled; i++) {
        const struct settled *t = &sc->settled[i];
        if (t->by != id)
            continue;
        if (t->done)
            entry_set(s, t->was.id, t->was.seg, entry_off(&t->was), t->was.meta_len,
                      t->was.body_len);
        entry_set_progress(s, t->was.id, t->was.prog_seg, entry_prog_off(&t->was), t->was.prog_len);
        for (uint32_t k = 0; t->was.steps != NULL && k < t->was.steps->n; k++)
            entry_add_step(s, t->was.id, t->was.steps->v[k].seg,
                           (uint64_t)t->was.steps->v[k].off * 8, t->was.steps->v[k].len);
    }
    entry_drop(s, id);
}

/* A record of a kind that this version does not know may say of mail that it is done, or that it is
 * not. */
static void scan_is_newer(struct scan *sc, uint64_t off, const struct rec_head *h) {
    struct sbuf b = {0};
    if (sc->newer != NULL)
        return;
    sbuf_printf(&b,
                "segment %016llx has a record of kind %u at %llu, which only a newer version can "
                "read: let that one send what is queued",
                (unsigned long long)sc->g->no, h->type, (unsigned long long)off);
    sc->newer = sbuf_take(&b);
}

static void scan_apply(struct scan *sc, uint64_t off, const struct rec_head *h, const char *meta) {
    struct spool *s = sc->s;
    switch (h->type) {
    case REC_MESSAGE:
        entry_set(s, h->id, sc->g, off, h->meta_len, h->body_len);
        break;
    case REC_SETTLING:
        scan_apply_settling(sc, off, h);
        break;
    case REC_PROGRESS:
        entry_set_progress(s, h->id, sc->g, off, h->meta_len);
        break;
    case REC_STEP:
        entry_add_step(s, h->id, sc->g, off, h->meta_len);
        break;
    case REC_DONE:
        entry_drop(s, h->id);
        break;
    case REC_SETTLE:
        scan_apply_settle(sc, off, h, meta);
        break;
    case REC_FORGET:
        scan_apply_forget(sc, h->id);
        scan_apply_unfinished(sc, h, meta);
        break;
    case REC_BEGIN:
        scan_apply_begin(sc, h, meta);
        break;
    default:
        scan_is_newer(sc, off, h);
        break;
    }
}

static void scan_segment(struct scan *sc) {
    struct segment *g = sc->g;
    struct rec_head h;
    const char *meta;
    for (uint64_t off = 0; off < g->size;) {
        sc->refused = false;
        uint64_t span = scan_record(sc, off, &h, &meta);
        if (span == 0) {
            off = scan_gap(sc, off);
            continue;
        }
        scan_apply(sc, off, &h, meta);
        spool_note_id(sc->s, h.id);
        if (g->synced < (uint64_t)h.synced * 8)
            g->synced = (uint64_t)h.synced * 8;
        off += span;
        g->used = off;
    }
}

static int recover_segment(struct scan *sc, const struct name *name, char **why) {
    struct spool *s = sc->s;
    char *path = segment_path(s, name->no, name->salt);
    int fd = s->io->open(s->io->arg, path, O_RDWR, 0);
    int64_t size = fd < 0 ? fd : s->io->size(s->io->arg, fd);
    if (size > FILE_MAX || name->no == UINT64_MAX) /* not one of ours */
        size = -EFBIG;
    s->next_no = name->no + 1;
    if (size < 0) {
        struct sbuf b = {0};
        sbuf_printf(&b,
                    "cannot open %s; make it readable, or move it away if what is queued in it may "
                    "be lost",
                    path);
        *why = sbuf_take(&b);
        if (fd >= 0)
            s->io->close(s->io->arg, fd);
    } else {
        struct segment g = {.no = name->no, .salt = name->salt, .fd = fd, .size = (uint64_t)size};
        if (g.salt != 0) /* it got its name when its first record was durable */
            g.synced = rec_span(sizeof(struct rec_begin), 0);
        sc->g = segment_add(s, &g);
        sc->n = 0; /* the window is on another file */
        scan_segment(sc);
        s->st.log_bytes += sc->g->used;
    }
    free(path);
    return size < 0 ? (int)size : 0;
}

/* Or else it is the rest of a batch that no client was told of. */
static bool gap_is_damage(const struct segment *g, const struct gap *gap) {
    return gap->off < g->synced && !gap->known;
}

/* Copies the bytes of a gap to a file of their own; false if that is not possible.  The copy is
 * made durable when it is the only one: a segment that has no damage is deleted when it is not
 * needed. */
static bool gap_keep(struct spool *s, const struct segment *g, const struct gap *gap,
                     const char *path) {
    struct sbuf buf = {0};
    int fd = s->io->open(s->io->arg, path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    bool ok = fd >= 0;
    for (uint64_t at = 0; ok && at < gap->n;) {
        size_t n = gap->n - at < BLOCK ? (size_t)(gap->n - at) : BLOCK;
        struct iovec iov = {sbuf_room(&buf, n), n};
        if (disk_read(s, g->fd, iov.iov_base, n, gap->off + at) < 0)
            memset(iov.iov_base, 0, n);
        ok = disk_write(s, fd, &iov, 1, at, NULL) == 0;
        at += n;
    }
    if (ok && !gap_is_damage(g, gap))
        ok = s->io->datasync(s->io->arg, fd) == 0 && spool_sync_dir(s, "damaged") == 0;
    if (fd >= 0)
        s->io->close(s->io->arg, fd);
    sbuf_free(&buf);
    return ok;
}

/* Another start may find records there. */
static void gap_report_unread(struct spool *s, struct segment *g, const struct gap *gap) {
    log_error("spool",
              "damage in segment %016llx at %llu: %llu bytes, which the disk does not give back; "
              "the file and all newer ones stay in log/, and the next start reads them again",
              (unsigned long long)g->no, (unsigned long long)gap->off, (unsigned long long)gap->n);
    g->unread = true;
    g->whole = false;
    s->st.damaged++;
}

static void gap_report(struct spool *s, struct segment *g, const struct gap *gap) {
    struct sbuf path = {0};
    char *name = segment_path(s, g->no, g->salt);
    sbuf_printf(&path, "%s/damaged/%s-%llu", s->dir, strrchr(name, '/') + 1,
                (unsigned long long)gap->off);
    free(name);
    bool is_kept = gap_keep(s, g, gap, path.p);
    const char *kept = is_kept ? "kept in" : "could not be kept in";
    if (gap_is_damage(g, gap)) {
        g->whole = false;
        log_error("spool", "damage in segment %016llx at %llu: %llu bytes are no records; %s %s",
                  (unsigned long long)g->no, (unsigned long long)gap->off,
                  (unsigned long long)gap->n, kept, path.p);
        g->damaged = true;
        s->st.damaged++;
    } else {
        log_warn("spool",
                 "unfinished write in segment %016llx at %llu, %llu bytes, not acknowledged to "
                 "anybody; %s %s",
                 (unsigned long long)g->no, (unsigned long long)gap->off,
                 (unsigned long long)gap->n, kept, path.p);
        g->damaged = g->damaged || !is_kept;
        s->st.unfinished++;
    }
    sbuf_free(&path);
}

/* A segment that is shorter than what was durable of it, by its own records and by what the next
 * segment says of it: zeros, or nothing at all, where records were. */
static void recover_check_end(struct spool *s, struct segment *g) {
    const struct gap *last = g->n_gaps == 0 ? NULL : &g->gaps[g->n_gaps - 1];
    uint64_t end = last != NULL && last->off + last->n > g->used ? last->off + last->n : g->used;
    if (end >= g->synced)
        return;
    log_error("spool",
              "damage in segment %016llx: %llu bytes of it were durable, and it ends at %llu; what "
              "was queued behind that is lost",
              (unsigned long long)g->no, (unsigned long long)g->synced, (unsigned long long)end);
    g->whole = false;
    g->damaged = true;
    s->st.damaged++;
}

/* Reports what is missing. */
static void recover_review(struct spool *s) {
    DL_EACH (it, &s->segments) {
        struct segment *g = DL_OWNER(it, struct segment, link);
        g->whole = g->used > 0;
        for (size_t i = 0; i < g->n_gaps; i++)
            (g->gaps[i].unreadable ? gap_report_unread : gap_report)(s, g, &g->gaps[i]);
        recover_check_end(s, g);
        g->soft = !g->unread && g->used > g->synced;
    }
    newest_check(s);
}

/* Lets go of segments that have no record: of those that have other bytes, to damaged/. */
static void recover_drop_empty(struct spool *s) {
    DL_EACH_SAFE (it, &s->segments) {
        struct segment *g = DL_OWNER(it, struct segment, link);
        g->damaged = g->damaged || (g->used == 0 && g->n_gaps > 0);
        if (g->used > 0 || g->unread)
            continue;
        newest_goes(s, g);
        segment_remove(s, g);
    }
}

/* Appends the meta of a record. */
static int recover_add(const struct spool *s, const struct segment *g, uint64_t off, uint32_t len,
                       struct sbuf *out) {
    int rc = disk_read(s, g->fd, sbuf_room(out, len), len, off + sizeof(struct rec_head));
    if (rc == 0)
        sbuf_advance(out, len);
    return rc;
}

static int recover_entry(struct spool *s, const struct entry *e,
                         void (*found)(void *arg, const struct spool_found *f), void *arg) {
    struct sbuf meta = {0}, prog = {0};
    int rc = disk_read(s, e->seg->fd, sbuf_room(&meta, e->meta_len), e->meta_len,
                       entry_off(e) + sizeof(struct rec_head));
    if (rc == 0 && e->prog_len > 0)
        rc = recover_add(s, e->prog_seg, entry_prog_off(e), e->prog_len, &prog);
    for (uint32_t i = 0; e->steps != NULL && i < e->steps->n && rc == 0; i++)
        rc = recover_add(s, e->steps->v[i].seg, (uint64_t)e->steps->v[i].off * 8,
                         e->steps->v[i].len, &prog);
    if (rc == 0) {
        struct spool_found f = {.id = e->id,
                                .meta = str_make(meta.p, e->meta_len),
                                .progress = sbuf_str(&prog),
                                .size = e->body_len & ~REC_FILE_BIT};
        found(arg, &f);
    }
    sbuf_free(&meta);
    sbuf_free(&prog);
    return rc;
}

/* Says which content is missing, and is not in damaged/ either: a start that could not read the
 * record of its message has set it aside. */
static void recover_missing_files(struct spool *s, const struct names *files) {
    size_t pos = 0;
    for (struct entry *e; (e = itab_next(&s->index, &pos)) != NULL;) {
        if (!entry_has_file(e) || names_with(files, e->id) || bodyfile_bring_back(s, e->id) == 0)
            continue;
        log_error("spool", "the content file body/%016llx of a queued message is missing",
                  (unsigned long long)e->id);
        s->st.damaged++;
    }
}

/* Nothing is wrong but that the disk did not give something back: the next start finds the same, or
 * the records that are there. */
static bool recover_is_only_unread(struct spool *s) {
    uint64_t n = 0;
    DL_EACH (it, &s->segments) {
        const struct segment *g = DL_OWNER(it, struct segment, link);
        for (size_t i = 0; i < g->n_gaps; i++)
            n += g->gaps[i].unreadable;
    }
    return n > 0 && n == s->st.damaged && s->st.unfinished == 0 && !s->newest_unsure;
}

/* Drops the content of messages that never became ours.  When anything is damaged, or there is no
 * log, it may be that of a message with a lost record: it is kept.  So it is when a write is
 * unfinished: the damage may be to the last record, of which nothing says that it was durable.
 * Where a power cut may undo the end of a message, its content stays for the next start. */
static void recover_orphans(struct spool *s, const struct names *files) {
    bool nothing_is_lost =
        s->st.damaged + s->st.unfinished == 0 && !s->newest_unsure && !dl_empty(&s->segments);
    if (recover_is_only_unread(s) || (nothing_is_lost && log_is_soft(s)))
        return;
    for (size_t i = 0; i < files->n; i++) {
        uint64_t id = files->v[i].no;
        if (files->v[i].salt != 0 || entry_has_file(itab_get(&s->index, id)))
            continue;
        if (nothing_is_lost)
            bodyfile_unlink(s, id);
        else if (bodyfile_set_aside(s, id) < 0)
            s->damage_stays = true;
    }
}

static void marked_add(void *ctx, const char *text) {
    name_add_before(ctx, text, MARK_DAMAGED);
}

/* Damaged files of log/ or body/ that could not be moved when nothing needed them any more. */
static int recover_marked_files(struct spool *s, const char *kind) {
    struct names files = {0};
    int rc = names_list(s, kind, marked_add, &files);
    bool log = strcmp(kind, "log") == 0;
    for (size_t i = 0; i < files.n; i++) {
        const struct name *name = &files.v[i];
        char *path = log ? segment_path(s, name->no, name->salt) : bodyfile_path(s, name->no);
        spool_set_marked_aside(s, kind, path);
        free(path);
    }
    free(files.v);
    return rc;
}

static int recover_files(struct spool *s) {
    struct names files = {0};
    int rc = recover_marked_files(s, "log");
    if (rc == 0)
        rc = recover_marked_files(s, "body");
    if (rc == 0)
        rc = names_list(s, "body", name_add, &files);
    if (rc == 0) {
        recover_missing_files(s, &files);
        recover_orphans(s, &files);
    }
    free(files.v);
    return rc;
}

/* Drops messages of batches that broke off between the message and what it settles: they would be
 * there twice.  What was durable stays, for then its SETTLE is damaged. */
static void recover_unsettled(struct scan *sc) {
    for (size_t i = 0; i < sc->n_unsettled; i++) {
        const struct unsettled *u = &sc->unsettled[i];
        const struct entry *e = itab_get(&sc->s->index, u->id);
        if (u->off < u->g->synced || e == NULL || e->seg != u->g || entry_off(e) != u->off)
            continue;
        entry_drop(sc->s, u->id);
        u->g->gaps = mem_realloc(u->g->gaps, (u->g->n_gaps + 1) * sizeof *u->g->gaps);
        u->g->gaps[u->g->n_gaps++] = (struct gap){.off = u->off, .n = u->span, .id = u->id};
    }
    free(sc->unsettled);
}

static int recover_segments(struct spool *s, char **why) {
    struct names l = {0};
    struct scan sc = {.s = s};
    int rc = names_list(s, "log", name_add, &l);
    if (rc < 0)
        *why = mem_strdup("cannot list log/");
    for (size_t i = 0; i < l.n && rc == 0; i++)
        rc = recover_segment(&sc, &l.v[i], why);
    if (rc == 0 && sc.newer != NULL) {
        *why = sc.newer;
        sc.newer = NULL;
        rc = -ENOTSUP;
    }
    free(sc.newer);
    recover_unsettled(&sc);
    sbuf_free(&sc.buf);
    for (size_t i = 0; i < sc.n_settled; i++)
        free(sc.settled[i].was.steps);
    free(sc.settled);
    free(l.v);
    return rc;
}

int log_recover(struct spool *s, void (*found)(void *arg, const struct spool_found *f), void *arg,
                char **why) {
    newest_read(s);
    int rc = recover_segments(s, why);
    if (rc == 0)
        recover_review(s);
    size_t pos = 0;
    for (struct entry *e; rc == 0 && (e = itab_next(&s->index, &pos)) != NULL;)
        rc = recover_entry(s, e, found, arg);
    bool hard = rc == 0 && log_harden(s) == 0;
    if (rc == 0)
        rc = recover_files(s);
    if (rc == 0) /* last: until then a start that is interrupted finds the same again */
        recover_drop_empty(s);
    if (rc < 0 && *why == NULL)
        *why = mem_strdup("cannot read the queue");
    s->rescue = !hard || s->st.messages > 0;
    return rc;
}
