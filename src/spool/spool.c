/*
 * spool/spool.c - the spool's threads: batches, reads; see spool.h
 *
 * Writer: takes all operations that are waiting, writes their records, syncs once, tells everyone.
 * Reader: reads content back for messages that wait longer than memory keeps them.
 */
#include "spool/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "spool/log.h"
#include "util/clock.h"
#include "util/fs.h"
#include "util/log.h"
#include "util/mem.h"

#define SPACE_MS 1000
/* How long progress waits for company. */
#define NOTE_MS 5
/* How long a message waits for others that are on their way: at most TURNS times NS. */
#define GATHER_TURNS 3
#define GATHER_NS    200000L
#define GATHER_MAX   64U

/* A read handed from the writer, which knows where, to the reader, which may block. */
struct read_job {
    struct task task;
    struct spool_op *op;
    struct segment *seg;
    uint64_t off;
    uint64_t size;
    bool in_file;
};

static struct spool_op *op_of(struct task *t) {
    return DL_OWNER(t, struct spool_op, task);
}

static int make_dir(const struct spool_conf *conf, const char *sub) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s/%s", conf->dir, sub);
    int rc = fs_mkdir(b.p, 0700);
    sbuf_free(&b);
    return rc;
}

int spool_open(struct spool **out, const struct spool_conf *conf, const struct spool_io *io,
               void (*found)(void *arg, const struct spool_found *f), void *arg, const char **why) {
    struct spool *s = MEM_NEW(struct spool);
    *why = NULL;
    s->io = io;
    s->dir = mem_strdup(conf->dir);
    s->segment_size = conf->segment_size < (1U << 20) ? (1U << 20) : conf->segment_size;
    s->next_no = 1;
    dl_init(&s->segments);
    queue_init(&s->ops);
    queue_init(&s->reads);
    pthread_mutex_init(&s->stats_lock, NULL);
    atomic_store(&s->space, io->space(io->arg, s->dir));
    int rc = make_dir(conf, "log");
    if (rc == 0)
        rc = make_dir(conf, "body");
    if (rc == 0)
        rc = make_dir(conf, "damaged");
    if (rc < 0)
        *why = "cannot make the spool's directories";
    if (rc == 0)
        rc = log_recover(s, found, arg, why);
    s->shown = s->st;
    *out = s;
    return rc;
}

static void fail_ops(struct task *list, int rc) {
    while (list != NULL) {
        struct task *next = list->next;
        struct spool_op *op = op_of(list);
        op->rc = rc;
        op->done(op);
        list = next;
    }
}

static int body_sync(struct spool *s, const struct spool_op *op) {
    int rc = s->io->datasync(s->io->arg, op->body->fd);
    if (rc < 0)
        return rc;
    struct sbuf dir = {0};
    sbuf_printf(&dir, "%s/body", s->dir);
    rc = s->io->sync_dir(s->io->arg, dir.p);
    sbuf_free(&dir);
    return rc;
}

/* What a new report settles is in the same batch and before it in the log: both or, if the batch
 * is torn between them, only the settling is lost with the report after it. */
static int do_new(struct spool *s, struct spool_op *op) {
    bool file = op->body->p == NULL;
    struct str body = file ? STR_NONE : str_make(op->body->p, (size_t)op->body->size);
    uint64_t blen = file ? op->body->size | REC_FILE_BIT : op->body->size, off = 0;
    uint64_t span = rec_span((uint32_t)op->meta.n, blen);
    uint64_t settle = op->settles == 0 ? 0 : rec_span((uint32_t)op->settled.n, 0);
    int rc = file ? body_sync(s, op) : 0;
    if (rc == 0)
        rc = log_room(s, span + settle, false);
    if (rc == 0)
        rc = log_write(s, REC_MESSAGE, op->id, sbuf_str(&op->meta), body, file, op->body->size,
                       &off);
    if (rc < 0)
        return rc;
    log_entry_set(s, op->id, s->head, off, (uint32_t)op->meta.n, blen);
    if (op->settles == 0)
        return 0;
    rc = log_write(s, REC_SETTLE, op->settles, sbuf_str(&op->settled), STR_NONE, false, 0, &off);
    if (rc == 0 && op->settled.n > 0)
        log_entry_progress(s, op->settles, s->head, off, (uint32_t)op->settled.n);
    return rc;
}

static int do_note(struct spool *s, struct spool_op *op) {
    uint64_t off;
    if (itab_get(&s->index, op->id) == NULL)
        return 0; /* settled before: nothing to note */
    int rc = log_room(s, rec_span((uint32_t)op->meta.n, 0), true);
    if (rc == 0)
        rc = log_write(s, op->kind == SPOOL_DONE ? REC_DONE : REC_PROGRESS, op->id,
                       sbuf_str(&op->meta), STR_NONE, false, 0, &off);
    if (rc == 0 && op->kind == SPOOL_PROGRESS)
        log_entry_progress(s, op->id, s->head, off, (uint32_t)op->meta.n);
    return rc;
}

static void do_read(struct spool *s, struct spool_op *op) {
    struct entry *e = itab_get(&s->index, op->id);
    if (e == NULL) {
        op->rc = -ENOENT;
        op->done(op);
        return;
    }
    struct read_job *j = MEM_NEW(struct read_job);
    j->op = op;
    j->seg = e->seg;
    j->in_file = (e->body_len & REC_FILE_BIT) != 0;
    j->off = e->off + sizeof(struct rec_head) + e->meta_len;
    j->size = e->body_len & ~REC_FILE_BIT;
    atomic_fetch_add(&e->seg->readers, 1);
    queue_push(&s->reads, &j->task);
}

static void do_body(struct spool *s, struct spool_op *op) {
    char *path = log_body_path(s, op->id);
    op->rc = 0;
    if (op->kind == SPOOL_BODY_OPEN) {
        op->fd = s->io->open(s->io->arg, path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        op->rc = op->fd < 0 ? op->fd : 0;
    } else if (op->kind == SPOOL_BODY_DROP) {
        s->io->unlink(s->io->arg, path);
    } else {
        struct iovec iov = {op->chunk.p, op->chunk.n};
        uint64_t off = op->off;
        while (iov.iov_len > 0 && op->rc == 0) {
            ssize_t w = s->io->pwritev(s->io->arg, op->fd, &iov, 1, off);
            if (w <= 0) {
                op->rc = w < 0 ? (int)w : -EIO;
                break;
            }
            off += (uint64_t)w;
            iov.iov_base = (char *)iov.iov_base + w;
            iov.iov_len -= (size_t)w;
        }
    }
    free(path);
    op->done(op);
}

/* Runs one op; true if it waits for the sync. */
static bool run_op(struct spool *s, struct spool_op *op) {
    switch (op->kind) {
    case SPOOL_NEW:
        op->rc = do_new(s, op);
        break;
    case SPOOL_PROGRESS:
    case SPOOL_DONE:
        op->rc = do_note(s, op);
        break;
    case SPOOL_READ:
        do_read(s, op);
        return false;
    default:
        do_body(s, op);
        return false;
    }
    return true;
}

/* A message whose batch failed is not ours: it must not come back at the next start. */
static void take_back(struct spool *s, struct spool_op *op) {
    uint64_t off;
    if (itab_get(&s->index, op->id) == NULL)
        return;
    log_entry_del(s, op->id);
    if (log_room(s, rec_span(0, 0), true) == 0)
        log_write(s, REC_DONE, op->id, STR_NONE, STR_NONE, false, 0, &off);
}

static void finish_failed(struct spool *s, struct spool_op *op, int rc) {
    op->rc = rc;
    if (op->kind == SPOOL_NEW) {
        take_back(s, op);
        op->done(op);
        return;
    }
    op->task.next = s->retry; /* progress is never given up: written again with a later batch */
    s->retry = &op->task;
}

static void finish(struct spool *s, struct spool_op *op, int sync_rc) {
    if (op->rc == 0 && sync_rc == 0) {
        if (op->kind == SPOOL_DONE)
            log_entry_del(s, op->id);
        if (op->kind == SPOOL_NEW && op->settles != 0 && op->settled.n == 0)
            log_entry_del(s, op->settles);
        op->done(op);
        return;
    }
    finish_failed(s, op, op->rc < 0 ? op->rc : sync_rc);
}

static void check_space(struct spool *s) {
    int64_t now = clock_mono_ms();
    if (now - s->space_ms < SPACE_MS)
        return;
    s->space_ms = now;
    atomic_store(&s->space, s->io->space(s->io->arg, s->dir));
}

static void show_stats(struct spool *s) {
    pthread_mutex_lock(&s->stats_lock);
    s->shown = s->st;
    pthread_mutex_unlock(&s->stats_lock);
}

/* Writes the records of the batch, up to the end of the segment they began in. */
static void run_batch(struct spool *s, struct task *list) {
    struct task *wait = NULL, **tail = &wait;
    int rc = 0;
    while (list != NULL) {
        struct task *next = list->next;
        struct segment *before = s->head;
        struct spool_op *op = op_of(list);
        if (run_op(s, op)) {
            if (before != NULL && s->head != before && !before->poisoned && wait != NULL &&
                s->io->datasync(s->io->arg, before->fd) < 0)
                rc = -EIO; /* part of this batch is in the segment just sealed */
            op->task.next = NULL;
            *tail = &op->task;
            tail = &op->task.next;
        }
        list = next;
    }
    if (wait == NULL)
        return;
    if (s->head != NULL && rc == 0)
        rc = log_sync(s);
    s->st.batches++;
    while (wait != NULL) {
        struct task *next = wait->next;
        finish(s, op_of(wait), rc);
        wait = next;
    }
    log_reclaim(s);
    show_stats(s);
}

static struct task *with_retries(struct spool *s, struct task *list) {
    while (s->retry != NULL) {
        struct task *t = s->retry;
        s->retry = t->next;
        t->next = list;
        list = t;
    }
    return list;
}

/* What the writer holds back for a moment, oldest first. */
struct gathered {
    struct task *head;
    struct task **tail;
    unsigned messages; /* SPOOL_NEW among them */
    bool urgent;       /* somebody waits: not only progress and done */
    int64_t since_ms;  /* of the first one */
};

static void gather_add(struct gathered *g, struct task *list) {
    if (g->head == NULL && list != NULL)
        g->since_ms = clock_mono_ms();
    while (list != NULL) {
        struct task *next = list->next;
        enum spool_kind kind = op_of(list)->kind;
        g->messages += kind == SPOOL_NEW;
        g->urgent =
            g->urgent || (kind != SPOOL_PROGRESS && kind != SPOOL_DONE) || op_of(list)->id == 0;
        list->next = NULL;
        *g->tail = list;
        g->tail = &list->next;
        list = next;
    }
}

/* While other clients are in the middle of a message, a sync that waits a little serves them too;
 * nobody else is there: no waiting. */
static void gather_messages(struct spool *s, struct gathered *g) {
    for (int turn = 0; turn < GATHER_TURNS && g->messages > 0 && g->messages < GATHER_MAX; turn++) {
        if (atomic_load_explicit(&s->expected, memory_order_relaxed) <= 0)
            return;
        nanosleep(&(struct timespec){0, GATHER_NS}, NULL);
        gather_add(g, queue_take(&s->ops, 0));
    }
}

static void *writer_main(void *arg) {
    struct spool *s = arg;
    struct gathered g = {.tail = &g.head};
    for (;;) {
        gather_add(&g, queue_take(&s->ops, g.head == NULL ? SPACE_MS : NOTE_MS));
        check_space(s);
        bool closed = s->ops.closed;
        if (g.head == NULL && s->retry == NULL) {
            if (closed)
                return NULL;
            continue;
        }
        if (g.head == NULL && closed) {
            fail_ops(s->retry, -EIO);
            return NULL;
        }
        /* Progress alone waits for a message to share its sync with, but not for long. */
        if (!g.urgent && !closed && g.head != NULL && clock_mono_ms() - g.since_ms < NOTE_MS)
            continue;
        gather_messages(s, &g);
        struct task *list = g.head;
        g = (struct gathered){.tail = &g.head};
        run_batch(s, with_retries(s, list));
    }
}

void spool_expect(struct spool *s, int n) {
    atomic_fetch_add_explicit(&s->expected, n, memory_order_relaxed);
}

static void read_run(struct spool *s, struct read_job *j) {
    struct spool_op *op = j->op;
    op->rc = 0;
    if (j->in_file) {
        char *path = log_body_path(s, op->id);
        int fd = s->io->open(s->io->arg, path, O_RDONLY, 0);
        op->rc = fd < 0 ? fd : 0;
        if (fd >= 0)
            op->body = body_from_fd(fd, j->size);
        free(path);
    } else {
        struct sbuf b = {0};
        op->rc = read_full(s, j->seg->fd, sbuf_room(&b, (size_t)j->size), (size_t)j->size, j->off);
        sbuf_advance(&b, (size_t)j->size);
        if (op->rc == 0)
            op->body = body_from_buf(&b);
        sbuf_free(&b);
    }
    atomic_fetch_sub(&j->seg->readers, 1);
    op->done(op);
}

static void *reader_main(void *arg) {
    struct spool *s = arg;
    struct task *t;
    while ((t = queue_take_one(&s->reads)) != NULL) {
        struct read_job *j = DL_OWNER(t, struct read_job, task);
        read_run(s, j);
        free(j);
    }
    return NULL;
}

int spool_start(struct spool *s) {
    int rc = pthread_create(&s->writer, NULL, writer_main, s);
    if (rc == 0)
        rc = pthread_create(&s->reader, NULL, reader_main, s);
    return -rc;
}

void spool_close(struct spool *s) {
    queue_close(&s->ops);
    pthread_join(s->writer, NULL);
    queue_close(&s->reads);
    pthread_join(s->reader, NULL);
    size_t pos = 0;
    for (struct entry *e; (e = itab_next(&s->index, &pos)) != NULL;)
        free(e);
    itab_free(&s->index);
    while (!dl_empty(&s->segments))
        segment_free(s, DL_OWNER(s->segments.next, struct segment, link));
    free(s->dir);
    free(s);
}

void spool_submit(struct spool *s, struct spool_op *op) {
    queue_push(&s->ops, &op->task);
}

int64_t spool_space(const struct spool *s) {
    return atomic_load(&s->space);
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

static void flush_done(struct spool_op *op) {
    struct flush *f = DL_OWNER(op, struct flush, op);
    pthread_mutex_lock(&f->lock);
    f->over = true;
    pthread_cond_signal(&f->wake);
    pthread_mutex_unlock(&f->lock);
}

void spool_flush(struct spool *s) {
    struct flush f = {
        .op = {.kind = SPOOL_DONE, .done = flush_done}}; /* of no message: only a sync */
    pthread_mutex_init(&f.lock, NULL);
    pthread_cond_init(&f.wake, NULL);
    spool_submit(s, &f.op);
    pthread_mutex_lock(&f.lock);
    while (!f.over)
        pthread_cond_wait(&f.wake, &f.lock);
    pthread_mutex_unlock(&f.lock);
}

static void note_done(struct spool_op *op) {
    sbuf_free(&op->meta);
    free(op);
}

void spool_note(struct spool *s, enum spool_kind kind, uint64_t id, struct sbuf *meta) {
    struct spool_op *op = MEM_NEW(struct spool_op);
    op->kind = kind;
    op->id = id;
    op->done = note_done;
    if (meta != NULL) {
        op->meta = *meta;
        *meta = (struct sbuf){0};
    }
    spool_submit(s, op);
}
