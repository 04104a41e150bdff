/*
 * spool/spool.c - the spool's threads: batches, reads; see spool.h
 *
 * Writer: takes all operations that are waiting, writes their records, syncs once, ends them.
 * Reader: reads content back for messages that wait longer than memory keeps them, and gives
 * back what removed segments occupied.
 */
#include "spool/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "spool/bodyfile.h"
#include "spool/index.h"
#include "spool/log.h"
#include "spool/read.h"
#include "spool/reclaim.h"
#include "spool/recover.h"
#include "spool/segment.h"
#include "util/clock.h"
#include "util/codec.h"
#include "util/log.h"
#include "util/mem.h"

#define SPACE_MS    1000
#define SEGMENT_MIN (64ULL << 10)
/* How long progress waits for company. */
#define NOTE_MS 5
/* How long a message waits for others that are on their way: at most TURNS times NS, and no longer
 * than others come. */
#define COMPANY_TURNS 3
#define COMPANY_NS    200000L
#define COMPANY_MAX   64U

static struct spool_op *op_of_task(struct task *t) {
    return DL_OWNER(t, struct spool_op, task);
}

static int spool_lock(struct spool *s, char **why) {
    struct sbuf path = {0};
    sbuf_printf(&path, "%s/lock", s->dir);
    s->lock_fd = s->io->open(s->io->arg, path.p, O_RDWR | O_CREAT, 0600);
    int rc = s->lock_fd < 0 ? s->lock_fd : s->io->lock(s->io->arg, s->lock_fd);
    if (s->lock_fd < 0)
        sbuf_printf(&path, ": cannot be opened");
    else if (rc < 0)
        sbuf_printf(&path, rc == -EAGAIN || rc == -EACCES ? ": another process has the spool"
                                                          : ": cannot be locked");
    if (rc < 0)
        *why = sbuf_take(&path);
    sbuf_free(&path);
    return rc;
}

static int spool_make_dirs(struct spool *s, char **why) {
    static const char *const names[] = {"log", "body", "damaged"};
    int rc = 0;
    for (size_t i = 0; i < 3 && rc == 0; i++) {
        struct sbuf b = {0};
        sbuf_printf(&b, "%s/%s", s->dir, names[i]);
        rc = s->io->mkdir(s->io->arg, b.p);
        if (rc < 0)
            sbuf_printf(&b, ": cannot make the directory");
        if (rc < 0)
            *why = sbuf_take(&b);
        sbuf_free(&b);
    }
    return rc < 0 ? rc : s->io->sync_dir(s->io->arg, s->dir);
}

/* The lock file of a process that has the spool may have been removed; its directory is not so
 * easily removed.  Where directories cannot be locked, the file is all that there is. */
static int spool_lock_log(struct spool *s, char **why) {
    struct sbuf path = {0};
    sbuf_printf(&path, "%s/log", s->dir);
    s->log_fd = s->io->open(s->io->arg, path.p, O_RDONLY | O_DIRECTORY, 0);
    int rc = s->log_fd < 0 ? 0 : s->io->lock(s->io->arg, s->log_fd);
    if (rc == -EAGAIN) {
        sbuf_printf(&path, ": another process has the spool");
        *why = sbuf_take(&path);
    }
    sbuf_free(&path);
    return rc == -EAGAIN ? rc : 0;
}

static uint64_t spool_segment_size(const struct spool_conf *conf) {
    uint64_t n = conf->segment_size & ~7ULL;
    return n < SEGMENT_MIN ? SEGMENT_MIN : n > SEGMENT_MAX ? SEGMENT_MAX : n;
}

int spool_open(struct spool **out, const struct spool_conf *conf, const struct spool_io *io,
               void (*found)(void *arg, const struct spool_found *f), void *arg, char **why) {
    struct spool *s = MEM_NEW(struct spool);
    *why = NULL;
    s->io = io;
    s->dir = mem_strdup(conf->dir);
    s->segment_size = spool_segment_size(conf);
    s->next_no = 1;
    s->log_fd = -1;
    s->retry_tail = &s->retry;
    dl_init(&s->segments);
    queue_init(&s->ops);
    queue_init(&s->reads);
    pthread_mutex_init(&s->stats_lock, NULL);
    atomic_store(&s->space, io->space(io->arg, s->dir));
    int rc = spool_lock(s, why);
    if (rc == 0)
        rc = spool_make_dirs(s, why);
    if (rc == 0)
        rc = spool_lock_log(s, why);
    if (rc == 0)
        rc = log_recover(s, found, arg, why);
    if (rc < 0 && *why == NULL)
        *why = mem_strdup("cannot make the spool's directories durable");
    s->shown = s->st;
    *out = s;
    return rc;
}

static void ops_fail(struct task *list, int rc) {
    while (list != NULL) {
        struct task *next = list->next;
        struct spool_op *op = op_of_task(list);
        op->rc = rc;
        op->done(op);
        list = next;
    }
}

/* What a new message settles is in the same segment and right behind it; at the next start each of
 * the two counts only if the other is there. */
static int op_write_settle(struct spool *s, struct spool_op *op) {
    struct sbuf meta = {0};
    sbuf_add(&meta, &op->id, SETTLE_HEAD);
    sbuf_add_str(&meta, sbuf_str(&op->settled));
    struct rec r = {.type = REC_SETTLE, .id = op->settles, .meta = sbuf_str(&meta)};
    int rc = log_write(s, &r, &op->settle_at);
    sbuf_free(&meta);
    return rc;
}

/* Would recovery take its records for damage? */
static bool is_too_large(const struct spool_op *op) {
    return op->meta.n > REC_META_MAX || op->settled.n > REC_META_MAX - SETTLE_HEAD;
}

static int op_run_new(struct spool *s, struct spool_op *op) {
    bool file = op->body->p == NULL;
    uint64_t size = op->body->size;
    struct rec r = {.type = op->settles != 0 ? REC_SETTLING : REC_MESSAGE,
                    .id = op->id,
                    .meta = sbuf_str(&op->meta),
                    .body = file ? STR_NONE : str_make(op->body->p, (size_t)size),
                    .body_len = file ? size | REC_FILE_BIT : size,
                    .body_crc = file ? op->body->crc : crc32c(0, op->body->p, (size_t)size)};
    uint32_t more = SETTLE_HEAD + (uint32_t)op->settled.n;
    uint64_t span = rec_span((uint32_t)op->meta.n, r.body_len) + rec_span(more, 0);
    op->seg = NULL;
    if (op->settles != 0 && op->settled.n == 0)
        entry_ends(s, op->settles);
    /* Content in a file must be durable before the record that promises it. */
    int rc = file ? bodyfile_take(s, op->id, op->body) : 0;
    if (rc == 0)
        rc = is_too_large(op) ? -EFBIG : log_room(s, span, false);
    if (rc < 0)
        return rc;
    spool_note_id(s, op->id);
    op->seg = s->head; /* from here on something of it may be on the disk, whatever fails */
    rc = log_write(s, &r, &op->at);
    if (rc == 0 && op->settles != 0)
        rc = op_write_settle(s, op);
    op->end = s->head->used;
    return rc;
}

static enum rec_type op_note_type(enum spool_kind kind) {
    return kind == SPOOL_DONE     ? REC_DONE
           : kind == SPOOL_FORGET ? REC_FORGET
           : kind == SPOOL_STEP   ? REC_STEP
                                  : REC_PROGRESS;
}

static int op_run_note(struct spool *s, struct spool_op *op) {
    struct rec r = {.type = op_note_type(op->kind), .id = op->id, .meta = sbuf_str(&op->meta)};
    op->seg = NULL;
    if (op->kind == SPOOL_DONE)
        entry_ends(s, op->id);
    int rc = log_room(s, rec_span((uint32_t)op->meta.n, 0), true);
    if (rc < 0)
        return rc;
    op->seg = s->head;
    rc = log_write(s, &r, &op->at);
    op->end = s->head->used;
    return rc;
}

static void op_run_body(struct spool *s, struct spool_op *op) {
    op->rc = 0;
    if (op->kind == SPOOL_BODY_DROP)
        bodyfile_drop(s, op->id);
    else
        op->rc = bodyfile_write(s, op);
    op->done(op);
}

/* The reader has met damage: what is damaged is set aside when it is not needed any more. */
static void op_run_damaged(struct spool *s, struct spool_op *op) {
    entry_set_damaged(s, op->id);
    if (!op->has_file) {
        op->seg->damaged = true;
        op->seg->whole = false;
    }
    atomic_fetch_sub(&op->seg->readers, 1);
    op->done(op);
}

/* Runs one op; true if it waits for the sync. */
static bool op_run(struct spool *s, struct spool_op *op) {
    switch (op->kind) {
    case SPOOL_NEW:
        op->rc = op_run_new(s, op);
        break;
    case SPOOL_PROGRESS:
    case SPOOL_STEP:
    case SPOOL_DONE:
    case SPOOL_FORGET:
        op->rc = op_run_note(s, op);
        break;
    case SPOOL_SYNC:
        op->rc = 0;
        break;
    case SPOOL_READ:
        spool_read(s, op);
        return false;
    case SPOOL_DAMAGED:
        op_run_damaged(s, op);
        return false;
    default:
        op_run_body(s, op);
        return false;
    }
    return true;
}

static void op_free_note(struct spool_op *op) {
    sbuf_free(&op->meta);
    free(op);
}

static void op_retry_later(struct spool *s, struct spool_op *op) {
    op->task.next = NULL;
    *s->retry_tail = &op->task;
    s->retry_tail = &op->task.next;
}

/* A message of a batch that failed is not ours, though its record may be in the log: it must not
 * come back at the next start.  Its file goes when that is sure. */
static void op_withdraw(struct spool *s, const struct spool_op *op) {
    bool file = op->body->p == NULL;
    if (op->seg != NULL) {
        struct spool_op *f = MEM_NEW(struct spool_op);
        f->kind = SPOOL_FORGET;
        f->id = op->id;
        f->has_file = file;
        f->done = op_free_note;
        f->task.next = s->retry; /* before progress of what it may have settled */
        if (s->retry == NULL)
            s->retry_tail = &f->task.next;
        s->retry = &f->task;
    } else if (file) {
        bodyfile_unlink(s, op->id);
    }
}

static void op_fail(struct spool *s, struct spool_op *op, int rc) {
    op->rc = rc;
    s->forgets_fail = s->forgets_fail || op->kind == SPOOL_FORGET;
    if (op->kind == SPOOL_NEW)
        op_withdraw(s, op);
    if (op->kind == SPOOL_NEW || op->kind == SPOOL_SYNC) {
        op->done(op);
    } else { /* progress is never given up: written again, in order */
        op_retry_later(s, op);
    }
}

static void op_finish_new(struct spool *s, struct spool_op *op) {
    uint64_t file = op->body->p == NULL ? REC_FILE_BIT : 0;
    entry_set(s, op->id, op->seg, op->at, (uint32_t)op->meta.n, op->body->size | file);
    if (op->settles != 0 && op->settled.n > 0)
        entry_set_progress(s, op->settles, op->seg, op->settle_at + SETTLE_HEAD,
                           (uint32_t)op->settled.n);
    else if (op->settles != 0)
        entry_del(s, op->settles);
}

/* The index follows what is durable, never what is only written. */
static void op_finish(struct spool *s, struct spool_op *op, int rc) {
    if (rc < 0) {
        op_fail(s, op, rc);
        return;
    }
    if (op->kind == SPOOL_NEW)
        op_finish_new(s, op);
    else if (op->kind == SPOOL_DONE)
        entry_del(s, op->id);
    else if (op->kind == SPOOL_FORGET && op->has_file)
        bodyfile_unlink(s, op->id);
    else if (op->kind == SPOOL_PROGRESS && op->seg != NULL)
        entry_set_progress(s, op->id, op->seg, op->at, (uint32_t)op->meta.n);
    else if (op->kind == SPOOL_STEP && op->seg != NULL)
        entry_add_step(s, op->id, op->seg, op->at, (uint32_t)op->meta.n);
    op->done(op);
}

static void spool_show_stats(struct spool *s) {
    pthread_mutex_lock(&s->stats_lock);
    s->shown = s->st;
    pthread_mutex_unlock(&s->stats_lock);
}

/* Is all of the log still there?  What is queued in a removed file is written again, and then the
 * files before it go, at a later turn if they are still being read: the removed file said of
 * messages in them that they had ended, and the next start would find those queued. */
static void spool_check_log(struct spool *s) {
    if (!log_find_removed(s))
        return;
    if (!s->rescue || log_rescue(s) == 0)
        log_reclaim(s);
    spool_show_stats(s);
}

/* Once a second: how much is free, and is all of the log still there? */
static void spool_check_disk(struct spool *s) {
    int64_t now = clock_mono_ms();
    if (now - s->space_ms < SPACE_MS)
        return;
    s->space_ms = now;
    atomic_store(&s->space, s->io->space(s->io->arg, s->dir));
    spool_check_log(s);
}

/* How an operation went: durable is what its own segment says, whatever became of the others that
 * the batch wrote to. */
static int op_result(const struct spool_op *op) {
    if (op->rc < 0 || op->seg == NULL || op->end <= op->seg->synced)
        return op->rc;
    const struct segment *g = op->seg;
    return g->write_rc < 0 ? g->write_rc : g->sync_rc < 0 ? g->sync_rc : -EIO;
}

/* Does the operation say something of a message that another one may speak of, too? */
static bool op_has_order(const struct spool_op *op) {
    return op->kind != SPOOL_SYNC && (op->kind != SPOOL_NEW || op->settles != 0);
}

/* Ends each operation of the batch with how it went.  What failed is written again later, so it
 * must not come behind what followed it: once something failed, all that has an order with it fails
 * too. */
static void batch_finish(struct spool *s, struct task *wait) {
    int broken = 0;
    while (wait != NULL) {
        struct task *next = wait->next;
        struct spool_op *op = op_of_task(wait);
        bool ordered = op_has_order(op);
        int rc = op_result(op);
        if (rc == 0 && (ordered || op->kind == SPOOL_SYNC))
            rc = broken;
        if (rc < 0 && ordered && (op->kind != SPOOL_NEW || op->seg != NULL))
            broken = rc;
        op_finish(s, op, rc);
        wait = next;
    }
}

/* Is some progress or end of a message to be written again? */
static bool notes_are_waiting(const struct spool *s) {
    struct task *t = s->retry;
    while (t != NULL && op_of_task(t)->kind == SPOOL_FORGET)
        t = t->next;
    return t != NULL;
}

/* Writes the records of the batch, syncs once, ends each operation. */
static void batch_run(struct spool *s, struct task *list) {
    struct task *wait = NULL, **tail = &wait;
    log_after_batch(s); /* what copying has met since the last one */
    while (list != NULL) {
        struct task *next = list->next;
        struct spool_op *op = op_of_task(list);
        if (op_run(s, op)) {
            op->task.next = NULL;
            *tail = &op->task;
            tail = &op->task.next;
        }
        list = next;
    }
    if (wait == NULL)
        return;
    if (s->head != NULL)
        log_sync(s); /* the segment keeps how that went */
    s->st.batches++;
    s->forgets_fail = false;
    batch_finish(s, wait);
    bool waited = s->notes_wait;
    s->notes_wait = notes_are_waiting(s);
    atomic_store(&s->behind, s->forgets_fail || (waited && s->notes_wait));
    log_after_batch(s);
    log_reclaim(s);
    spool_show_stats(s);
}

/* What failed before goes first: it is older. */
static struct task *batch_with_retries(struct spool *s, struct task *list) {
    struct task *all = s->retry;
    if (all == NULL)
        return list;
    *s->retry_tail = list;
    s->retry = NULL;
    s->retry_tail = &s->retry;
    return all;
}

void spool_turn(struct spool *s) {
    spool_check_log(s);
    struct task *t, *list = batch_with_retries(s, queue_take(&s->ops, 0));
    if (list != NULL)
        batch_run(s, list);
    while (s->reads.head != NULL && (t = queue_take_one(&s->reads)) != NULL)
        t->run(t);
}

/* What the writer holds back for a moment, oldest first. */
struct gathered {
    struct task *head;
    struct task **tail;
    unsigned messages; /* SPOOL_NEW among them */
    bool urgent;       /* a submitter waits: not only progress and done */
    int64_t since_ms;  /* of the first one */
};

static void gathered_add(struct gathered *g, struct task *list) {
    if (g->head == NULL && list != NULL)
        g->since_ms = clock_mono_ms();
    while (list != NULL) {
        struct task *next = list->next;
        enum spool_kind kind = op_of_task(list)->kind;
        g->messages += kind == SPOOL_NEW;
        bool note = kind == SPOOL_PROGRESS || kind == SPOOL_STEP || kind == SPOOL_DONE;
        g->urgent = g->urgent || !note;
        list->next = NULL;
        *g->tail = list;
        g->tail = &list->next;
        list = next;
    }
}

/* While other clients are in the middle of a message, a sync that waits a little serves them too. A
 * turn that brings none of them is the last one. */
static void gathered_wait(struct spool *s, struct gathered *g) {
    unsigned before = 0;
    for (int turn = 0; turn < COMPANY_TURNS && g->messages > before && g->messages < COMPANY_MAX;
         turn++) {
        if (atomic_load_explicit(&s->expected, memory_order_relaxed) <= 0)
            return;
        before = g->messages;
        nanosleep(&(struct timespec){0, COMPANY_NS}, NULL);
        gathered_add(g, queue_take(&s->ops, 0));
    }
}

static void *spool_writer_main(void *arg) {
    struct spool *s = arg;
    struct gathered g = {.tail = &g.head};
    for (;;) {
        gathered_add(&g, queue_take(&s->ops, g.head == NULL ? SPACE_MS : NOTE_MS));
        spool_check_disk(s);
        bool closed = s->ops.closed;
        if (g.head == NULL && s->retry == NULL) {
            if (closed)
                return NULL;
            continue;
        }
        if (g.head == NULL && closed)
            return NULL; /* what could not be noted is done again after the next start */
        /* Progress alone waits for a message to share its sync with, but not for long. */
        if (!g.urgent && !closed && g.head != NULL && clock_mono_ms() - g.since_ms < NOTE_MS)
            continue;
        gathered_wait(s, &g);
        struct task *list = g.head;
        g = (struct gathered){.tail = &g.head};
        batch_run(s, batch_with_retries(s, list));
    }
}

void spool_expect(struct spool *s, int n) {
    atomic_fetch_add_explicit(&s->expected, n, memory_order_relaxed);
}

static void *spool_reader_main(void *arg) {
    struct spool *s = arg;
    struct task *t;
    while ((t = queue_take_one(&s->reads)) != NULL)
        t->run(t);
    return NULL;
}

int spool_start(struct spool *s) {
    int rc = pthread_create(&s->writer, NULL, spool_writer_main, s);
    s->threads = rc == 0;
    if (rc == 0)
        rc = pthread_create(&s->reader, NULL, spool_reader_main, s);
    return -rc;
}

void spool_close(struct spool *s) {
    if (s->threads) {
        queue_close(&s->ops);
        pthread_join(s->writer, NULL);
        queue_close(&s->reads);
        pthread_join(s->reader, NULL);
    }
    ops_fail(batch_with_retries(s, queue_take(&s->ops, 0)), -EIO);
    size_t pos = 0;
    for (struct entry *e; (e = itab_next(&s->index, &pos)) != NULL;) {
        free(e->steps);
        free(e);
    }
    itab_free(&s->index);
    bodyfile_close_all(s);
    while (!dl_empty(&s->segments)) {
        struct segment *g = DL_OWNER(s->segments.next, struct segment, link);
        s->io->close(s->io->arg, g->fd);
        segment_free(s, g);
    }
    if (s->log_fd >= 0)
        s->io->close(s->io->arg, s->log_fd);
    if (s->lock_fd >= 0)
        s->io->close(s->io->arg, s->lock_fd);
    free(s->moves);
    sbuf_free(&s->gathered);
    free(s->dir);
    free(s);
}

void spool_submit(struct spool *s, struct spool_op *op) {
    queue_push(&s->ops, &op->task);
}

bool spool_is_full(int rc) {
    return disk_is_full(rc) || rc == -EFBIG;
}

int64_t spool_space(const struct spool *s) {
    return atomic_load(&s->space);
}

bool spool_is_behind(const struct spool *s) {
    return atomic_load(&s->behind);
}

bool spool_is_soft(const struct spool *s) {
    return log_is_soft(s);
}

void spool_stats(struct spool *s, struct spool_stats *out) {
    pthread_mutex_lock(&s->stats_lock);
    *out = s->shown;
    pthread_mutex_unlock(&s->stats_lock);
}

struct flush {
    struct spool_op op;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool over;
};

static void spool_flush_done(struct spool_op *op) {
    struct flush *f = DL_OWNER(op, struct flush, op);
    pthread_mutex_lock(&f->lock);
    f->over = true;
    pthread_cond_signal(&f->wake);
    pthread_mutex_unlock(&f->lock);
}

void spool_flush(struct spool *s) {
    struct flush f = {.op = {.kind = SPOOL_SYNC, .done = spool_flush_done}};
    pthread_mutex_init(&f.lock, NULL);
    pthread_cond_init(&f.wake, NULL);
    spool_submit(s, &f.op);
    pthread_mutex_lock(&f.lock);
    while (!f.over)
        pthread_cond_wait(&f.wake, &f.lock);
    pthread_mutex_unlock(&f.lock);
}

void spool_note(struct spool *s, enum spool_kind kind, uint64_t id, struct sbuf *meta) {
    struct spool_op *op = MEM_NEW(struct spool_op);
    op->kind = kind;
    op->id = id;
    op->done = op_free_note;
    if (meta != NULL) {
        op->meta = *meta;
        *meta = (struct sbuf){0};
    }
    spool_submit(s, op);
}
