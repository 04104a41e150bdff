/*
 * schedule/content.c - the content of queued messages; see content.h
 *
 * A message has its content from when it came, or was read again, until its round is over.  What
 * waits for its turn meanwhile must not fill memory, however many messages there are: neither
 * recipients in the queue of a slow destination, nor messages that all are to be reported at the
 * same time.
 */
#include "schedule/content.h"

#include "util/mem.h"

#define BODY_FILES_MAX 512U /* descriptors that waiting messages may hold */

struct fetch_op {
    struct spool_op op;
    struct task back;
    struct dl link; /* sched->fetches, until it is submitted */
    struct sched *s;
    void (*then)(struct msg *m);
};

static void msg_fetch_back(struct task *t) {
    struct fetch_op *f = DL_OWNER(t, struct fetch_op, back);
    struct msg *m = itab_get(&f->s->msgs, f->op.id);
    if (m == NULL) {
        body_unref(f->op.rc == 0 ? f->op.body : NULL);
    } else {
        m->finishing = false;
        if (f->op.rc == 0)
            m->body = f->op.body;
        m->no_body = f->op.rc < 0; /* a report without the original is better than none */
        f->then(m);
    }
    free(f);
}

static void msg_fetch_done(struct spool_op *op) {
    struct fetch_op *f = DL_OWNER(op, struct fetch_op, op);
    f->back.run = msg_fetch_back;
    loop_post(f->s->loop, &f->back);
}

/* Those that have waited longest, as far as there is room; one has it in any case. */
static void fetch_next(struct sched *s) {
    while (!dl_empty(&s->fetches)) {
        struct fetch_op *f = DL_OWNER(s->fetches.next, struct fetch_op, link);
        struct msg *m = itab_get(&s->msgs, f->op.id);
        uint64_t with = s->fetched + m->env->size;
        if (s->fetched > 0 && with > (uint64_t)s->cfg->p.message_memory_limit / 4)
            return;
        dl_remove(&f->link);
        m->fetched = true;
        s->fetched = with;
        spool_submit(s->spool, &f->op);
    }
}

bool msg_fetch(struct msg *m, void (*then)(struct msg *m)) {
    if (m->body != NULL || m->no_body)
        return false;
    struct fetch_op *f = MEM_NEW(struct fetch_op);
    f->s = m->s;
    f->then = then;
    f->op.kind = SPOOL_READ;
    f->op.id = m->env->id;
    f->op.done = msg_fetch_done;
    m->finishing = true;
    dl_push(&m->s->fetches, &f->link);
    fetch_next(m->s);
    return true;
}

/* What was fetched has served its purpose. */
static void fetch_ends(struct msg *m) {
    if (!m->fetched)
        return;
    m->fetched = false;
    m->s->fetched -= m->env->size;
    fetch_next(m->s);
}

void msg_drop_body(struct msg *m) {
    body_unref(m->body);
    m->body = NULL;
    fetch_ends(m);
}

uint64_t content_memory_max(const struct sched *s) {
    return (uint64_t)s->cfg->p.message_memory_limit / 2;
}

void msg_spare_body(struct msg *m) {
    if (body_memory() > content_memory_max(m->s) || body_files() > BODY_FILES_MAX)
        msg_drop_body(m);
    else
        fetch_ends(m);
}
