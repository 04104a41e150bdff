/*
 * spool/moves.c - messages that were copied to the end of the log
 *
 * Spool thread only.  A copy becomes its message's record when it is durable; until then the old
 * record counts, and its segment stays.
 */
#include "spool/moves.h"

#include <assert.h>
#include <stdlib.h>

#include "spool/index.h"
#include "util/mem.h"

/* The copy is durable: from now on it is the message's record. */
static void move_apply(struct spool *s, const struct move *m, const struct entry *e) {
    entry_set(s, e->id, m->seg, m->off, e->meta_len, e->body_len);
    if (m->prog_len > 0)
        entry_set_progress(s, e->id, m->seg, m->prog_off, m->prog_len);
}

void moves_settle(struct spool *s) {
    bool lost = false;
    for (size_t i = 0; i < s->n_moves; i++) {
        const struct move *m = &s->moves[i];
        struct entry *e = itab_get(&s->index, m->id);
        assert(e != NULL); /* the index changes when a batch was synced: that comes first to here */
        e->moving = false;
        if (m->end > m->seg->synced)
            lost = true;
        else
            move_apply(s, m, e);
    }
    s->n_moves = 0;
    if (!lost)
        return;
    DL_EACH (it, &s->segments) /* the old records are kept, and copied again */
        DL_OWNER(it, struct segment, link)->emptied = 0;
}

void moves_add(struct spool *s, struct entry *e, const struct move *m) {
    if (s->n_moves == s->cap_moves) {
        s->cap_moves = s->cap_moves == 0 ? 64 : s->cap_moves * 2;
        s->moves = mem_realloc(s->moves, s->cap_moves * sizeof *s->moves);
    }
    s->moves[s->n_moves++] = *m;
    e->moving = true;
}
