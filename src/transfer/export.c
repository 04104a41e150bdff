/*
 * transfer/export.c - mail from the spool into Postfix's queue; see transfer.h
 *
 * Messages are written into PFQUEUE_FOLDER, with others, and get their names there when they are on
 * the disk; when all of the batch are they end in the spool, and when that is durable their files
 * get their places in Postfix's queues.  Each step is taken by the whole batch: the disk is waited
 * for a few times for all of it, and not for each message.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "transfer/moving.h"
#include "transfer/queuefile.h"
#include "transfer/reasons.h"
#include "transfer/transfer.h"
#include "util/fs.h"
#include "util/mem.h"

#define BATCH      256U
#define MODE_READY 0700U
/* What a recipient takes in a queue file, with the reason why the recipient waits. */
#define RCPT_BYTES 256U
/* Postfix's mark of a message that was expired by an order. */
#define MODE_EXPIRED 0010U

struct export {
    struct transfer *t;
    struct {
        const char *queue;
        char *path; /* in PFQUEUE_FOLDER; owned */
        int fd;     /* open until it is on the disk */
        char id[QID_MAX];
        uint64_t message; /* in the spool */
    } batch[BATCH];
    size_t n;
};

static void export_leave(struct export *ex, const char *name, const char *why) {
    ex->t->left++;
    ex->t->left_one(ex->t->arg, name, why);
}

/* The progress of m; nothing that it says of recipients who are all done is of use.  False: Postfix
 * has no words for it. */
static bool export_progress(const struct ours_message *m, struct progress *p, const char **why) {
    *p = (struct progress){0};
    if (m->progress.n == 0) {
        p->n = m->env->n_rcpts;
        p->done = mem_zalloc(p->n);
        p->flags = (m->env->flags & ENV_HOLD) != 0 ? PROGRESS_HOLD : 0U;
        for (uint32_t i = 0; i < p->n; i++)
            p->done[i] = m->env->rcpts[i].expanded ? RCPT_EXPANDED : RCPT_WAITS;
    } else if (!progress_decode(p, sbuf_str(&m->progress)) || p->n != m->env->n_rcpts) {
        *why = "its record of progress cannot be read";
        return false;
    }
    for (uint32_t i = 0; i < p->n; i++)
        if (p->done[i] > RCPT_DONE || m->env->rcpts[i].owner.n > 0) {
            *why = "a report or a copy of it is still to be made, which Postfix knows no record "
                   "of: start Posthouse for a moment, release the message if it is on hold, or "
                   "delete it";
            return false;
        }
    return true;
}

static const char *export_queue(const struct progress *p) {
    return (p->flags & PROGRESS_HOLD) != 0 ? "hold" : p->attempts > 0 ? "deferred" : "incoming";
}

static bool export_has(const struct export *ex, const char *id) {
    for (size_t i = 0; i < ex->n; i++)
        if (strcmp(ex->batch[i].id, id) == 0)
            return true;
    return pfqueue_has(ex->t->theirs, id);
}

/* A name that no file of Postfix's has, and none of the batch: mostly the message's own. */
static void export_name(const struct export *ex, const struct ours_message *m, char id[QID_MAX]) {
    uint64_t unused;
    memcpy(id, m->env->qid, QID_MAX);
    while (export_has(ex, id) || !qid_ok(str_of(id)))
        qid_next(ex->t->cfg->p.enable_long_queue_ids, &unused, id);
}

/* Why recipients wait.  Without it the message is as good as with it, so no error is one. */
static void export_reasons(const struct export *ex, const char *id, const struct envelope *env,
                           const struct progress *p, const uint64_t *offsets) {
    struct sbuf text = {0};
    char *path = pfqueue_path(ex->t->theirs, "defer", id);
    reasons_write(&text, env, p, offsets);
    if (text.n > 0)
        pfqueue_write(ex->t->theirs, path, sbuf_str(&text));
    free(path);
    sbuf_free(&text);
}

/* The message is in PFQUEUE_FOLDER.  0 or negative errno. */
static int export_write(struct export *ex, const struct ours_message *m, const struct progress *p,
                        struct body *body) {
    struct sbuf text = {0};
    struct queuefile_state st = {p->done, (p->flags & PROGRESS_WARNED) != 0};
    uint64_t *offsets = mem_zalloc(m->env->n_rcpts * sizeof *offsets);
    const char *queue = export_queue(p);
    mode_t mode = MODE_READY | ((p->flags & PROGRESS_EXPIRE) != 0 ? MODE_EXPIRED : 0U);
    char *id = ex->batch[ex->n].id;
    export_name(ex, m, id);
    ex->batch[ex->n].queue = queue;
    int rc = queuefile_write(&text, m->env, &st, body, offsets) ? 0 : -EIO;
    if (rc == 0)
        rc = pfqueue_begin(ex->t->theirs, (unsigned)ex->n, sbuf_str(&text), mode,
                           strcmp(queue, "deferred") == 0 ? p->next_us / 1000000 : 0);
    if (rc >= 0) {
        export_reasons(ex, id, m->env, p, offsets);
        ex->batch[ex->n].fd = rc;
        ex->batch[ex->n].path = pfqueue_folder_path(ex->t->theirs, queue, id);
        ex->batch[ex->n].message = m->id;
        ex->n++;
        rc = 0;
    }
    free(offsets);
    sbuf_free(&text);
    return rc;
}

/* All of them are being written before the first is waited for: then that waits for what the disk
 * has to do for all. */
static int export_end_files(struct export *ex) {
    int rc = 0;
    for (size_t i = 0; i < ex->n; i++)
        posix_fadvise(ex->batch[i].fd, 0, 0, POSIX_FADV_DONTNEED);
    for (size_t i = 0; i < ex->n; i++) {
        int ended = pfqueue_end(ex->t->theirs, (unsigned)i, ex->batch[i].fd,
                                rc == 0 ? ex->batch[i].path : NULL);
        rc = rc == 0 ? ended : rc;
    }
    return rc == 0 ? pfqueue_sync_folder(ex->t->theirs) : rc;
}

/* They are no longer Posthouse's.  Not before: a read, too, has the spool write what it was given.
 */
static int export_end_messages(struct export *ex) {
    for (size_t i = 0; i < ex->n; i++)
        ours_end(ex->t->ours, ex->batch[i].message);
    return ours_commit(ex->t->ours);
}

static int export_place_files(struct export *ex) {
    int rc = 0;
    for (size_t i = 0; i < ex->n && rc == 0; i++)
        rc = pfqueue_place_begin(ex->t->theirs, ex->batch[i].path, ex->batch[i].queue,
                                 ex->batch[i].id);
    if (rc == 0)
        rc = pfqueue_sync_places(ex->t->theirs);
    for (size_t i = 0; i < ex->n && rc == 0; i++) {
        rc = unlink(ex->batch[i].path) < 0 ? -errno : 0;
        ex->t->moved += rc == 0;
    }
    return rc;
}

static int export_commit(struct export *ex) {
    int rc = ex->n == 0 ? 0 : export_end_files(ex);
    if (ex->n == 0)
        return 0;
    if (rc == 0)
        rc = export_end_messages(ex);
    if (rc == 0)
        rc = export_place_files(ex);
    for (size_t i = 0; i < ex->n; i++)
        free(ex->batch[i].path);
    ex->n = 0;
    return rc;
}

/* A batch that is not to be ended. */
static void export_drop(struct export *ex) {
    for (size_t i = 0; i < ex->n; i++) {
        pfqueue_end(ex->t->theirs, (unsigned)i, ex->batch[i].fd, NULL);
        free(ex->batch[i].path);
    }
    ex->n = 0;
}

static int export_one(struct export *ex, const struct ours_message *m) {
    struct progress p;
    const char *why = NULL;
    struct body *body = NULL;
    int rc = moving_begin(ex->t);
    if (export_progress(m, &p, &why) && rc == 0) {
        body = ours_read(ex->t->ours, m->id);
        why = body == NULL ? "the disk does not give its content back" : NULL;
        if (why == NULL)
            rc = export_write(ex, m, &p, body);
    }
    if (why != NULL)
        export_leave(ex, m->env->qid, why);
    body_unref(body);
    progress_free(&p);
    return rc == 0 && ex->n == BATCH ? export_commit(ex) : rc;
}

/* What a run that was killed has left in PFQUEUE_FOLDER: it is written again if it is still the
 * spool's, and else Postfix's. */
static int export_settle_one(struct export *ex, const struct pfqueue_file *f) {
    struct queuefile q = {0};
    struct sbuf text = {0};
    int rc = fs_only_name(f->path);
    bool linked = rc == -EMLINK; /* it has its place already, but for its second name */
    if (rc == 0)
        rc = fs_read(f->path, &text, SIZE_MAX);
    const char *why = rc < 0 || linked ? NULL : queuefile_read(&q, sbuf_str(&text));
    bool ours =
        rc == 0 && (why == NULL ? ours_find(ex->t->ours, f->id, q.ident, q.arrival_us) != NULL
                                : ours_has_qid(ex->t->ours, f->id));
    if (rc == 0 || linked)
        rc = ours ? unlink(f->path) < 0 ? -errno : 0
                  : pfqueue_place(ex->t->theirs, f->path, f->queue, f->id);
    ex->t->known += rc == 0 && !ours;
    queuefile_free(&q);
    sbuf_free(&text);
    return rc;
}

static int export_settle(struct export *ex) {
    struct pfqueue_list l = {0};
    int rc = pfqueue_list_folder(ex->t->theirs, &l);
    for (size_t i = 0; i < l.n && rc == 0; i++)
        rc = export_settle_one(ex, &l.v[i]);
    pfqueue_list_free(&l);
    return rc;
}

/* Half of the mail there and half of it here would go neither way on a full disk.  A run that was
 * killed goes on with what it has. */
static int export_room(const struct transfer *t, char **why) {
    uint64_t bytes = 0;
    int rc = ours_marked(t->ours, t->theirs->dir);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    for (size_t i = 0; i < t->ours->n; i++) {
        const struct envelope *env = t->ours->v[i]->env;
        bytes += env->size + env->n_rcpts * RCPT_BYTES;
    }
    return moving_has_room(t->theirs->dir, bytes, t->ours->n, why);
}

int transfer_export(struct transfer *t, char **why) {
    struct export *ex = MEM_NEW(struct export);
    ex->t = t;
    *why = NULL;
    int rc = export_room(t, why);
    if (rc == 0)
        rc = export_settle(ex);
    for (size_t i = 0; i < t->ours->n && rc == 0; i++)
        rc = export_one(ex, t->ours->v[i]);
    if (rc == 0)
        rc = export_commit(ex);
    else
        export_drop(ex);
    if (rc == 0)
        rc = pfqueue_sync_folder(t->theirs);
    if (t->ours->unreadable > 0) {
        t->left += t->ours->unreadable;
        t->left_one(t->arg, "mail in the spool", "another version of Posthouse has written it");
    }
    if (rc == 0)
        rc = pfqueue_is_settled(t->theirs) ? ours_unmark(t->ours) : -ENOTEMPTY;
    if (rc < 0 && *why == NULL)
        *why = mem_strdup(strerror(-rc));
    free(ex);
    return rc;
}
