/*
 * spool/index.c - which messages are queued, and where their records are
 *
 * Spool thread only (and the starting thread during recovery).  The index follows what is durable,
 * never what is only written.
 */
#include "spool/index.h"

#include <stdlib.h>

#include "spool/bodyfile.h"
#include "spool/segment.h"
#include "util/mem.h"

/* The message's record is not needed any more where it is. */
static void entry_unlink(struct spool *s, const struct entry *e) {
    e->seg->live--;
    s->st.live_bytes -= rec_span(e->meta_len, e->body_len);
}

static void entry_unlink_steps(struct spool *s, struct entry *e) {
    for (uint32_t i = 0; e->steps != NULL && i < e->steps->n; i++) {
        e->steps->v[i].seg->live--;
        s->st.live_bytes -= rec_span(e->steps->v[i].len, 0);
    }
    free(e->steps);
    e->steps = NULL;
}

static void entry_unlink_progress(struct spool *s, struct entry *e) {
    entry_unlink_steps(s, e);
    if (e->prog_len == 0)
        return;
    e->prog_seg->live--;
    s->st.live_bytes -= rec_span(e->prog_len, 0);
}

void entry_set(struct spool *s, uint64_t id, struct segment *seg, uint64_t off, uint32_t meta_len,
               uint64_t body_len) {
    struct entry *e = itab_get(&s->index, id);
    if (e == NULL) {
        e = MEM_NEW(struct entry);
        e->id = id;
        itab_put(&s->index, id, e);
        s->st.messages++;
    } else {
        entry_unlink(s, e);
    }
    e->seg = seg;
    e->off = (uint32_t)(off / 8);
    e->meta_len = meta_len;
    e->body_len = body_len;
    seg->live++;
    s->st.live_bytes += rec_span(meta_len, body_len);
}

void entry_set_progress(struct spool *s, uint64_t id, struct segment *seg, uint64_t off,
                        uint32_t meta_len) {
    struct entry *e = itab_get(&s->index, id);
    if (e == NULL)
        return;
    entry_unlink_progress(s, e);
    e->prog_seg = seg;
    e->prog_off = (uint32_t)(off / 8);
    e->prog_len = meta_len;
    if (meta_len == 0)
        return;
    seg->live++;
    s->st.live_bytes += rec_span(meta_len, 0);
}

void entry_add_step(struct spool *s, uint64_t id, struct segment *seg, uint64_t off,
                    uint32_t meta_len) {
    struct entry *e = itab_get(&s->index, id);
    struct steps *t = e == NULL ? NULL : e->steps;
    if (e == NULL)
        return;
    if (t == NULL || t->n == t->cap) {
        uint32_t n = t == NULL ? 0 : t->n, cap = n == 0 ? 4 : n * 2;
        t = e->steps = mem_realloc(t, sizeof *t + cap * sizeof t->v[0]);
        t->n = n;
        t->cap = cap;
    }
    t->v[t->n++] = (struct step){seg, (uint32_t)(off / 8), meta_len};
    seg->live++;
    s->st.live_bytes += rec_span(meta_len, 0);
}

void entry_set_damaged(struct spool *s, uint64_t id) {
    struct entry *e = itab_get(&s->index, id);
    if (e != NULL)
        e->damaged = true;
}

void entry_ends(struct spool *s, uint64_t id) {
    struct entry *e = itab_get(&s->index, id);
    if (entry_has_file(e) && e->damaged && bodyfile_set_aside(s, id) == 0)
        e->damaged = false;
}

void entry_drop(struct spool *s, uint64_t id) {
    struct entry *e = itab_del(&s->index, id);
    if (e == NULL)
        return;
    entry_unlink(s, e);
    entry_unlink_progress(s, e);
    s->st.messages--;
    free(e);
}

void entry_del(struct spool *s, uint64_t id) {
    const struct entry *e = itab_get(&s->index, id);
    if (e == NULL)
        return;
    bool file = entry_has_file(e), damaged = e->damaged;
    entry_drop(s, id);
    if (file && damaged)
        bodyfile_set_aside(s, id);
    else if (file)
        bodyfile_unlink(s, id);
}
