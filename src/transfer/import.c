/*
 * transfer/import.c - mail from Postfix's queue into the spool; see transfer.h
 *
 * A file that can be read is moved into PFQUEUE_FOLDER, with others; then the spool gets their
 * messages in one batch, and the files leave that folder when that is durable.  The disk is waited
 * for a few times for all of a batch, and nothing is removed while a mail system is waited for.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mail/held.h"
#include "transfer/maildrop.h"
#include "transfer/moving.h"
#include "transfer/queuefile.h"
#include "transfer/reasons.h"
#include "transfer/transfer.h"
#include "util/clock.h"
#include "util/fs.h"
#include "util/mem.h"

/* A batch: messages, or bytes of content. */
#define BATCH       2048U
#define BATCH_BYTES (32U << 20)

/* Bytes of all recipients of a message: with more the spool would not take its envelope. */
#define RCPTS_BYTES_MAX (32U << 20)

/* Where Postfix notes something beside a queue file. */
enum { NOTE_DEFER, NOTE_BOUNCE, NOTE_TRACE, NOTE_FOLDERS };
static const char *const note_folders[NOTE_FOLDERS] = {"defer", "bounce", "trace"};

struct import {
    struct transfer *t;
    struct {
        char *path; /* in PFQUEUE_FOLDER; owned */
        char *id;   /* owned */
        bool known; /* the spool had it */
    } batch[BATCH];
    size_t n;
};

static void import_leave(struct import *im, const struct pfqueue_file *f, const char *why) {
    im->t->left++;
    im->t->left_one(im->t->arg, f->path, why);
}

/* -- reading -- */

/* What Postfix has noted beside the queue file; empty if nothing. */
struct notes {
    struct sbuf deferred; /* why recipients wait */
    struct sbuf bounced;  /* who was refused, before the sender is told */
};

static int notes_read_one(const struct import *im, unsigned folder, const char *id,
                          struct sbuf *out) {
    struct stat st;
    char *path = pfqueue_path(im->t->theirs, note_folders[folder], id);
    int rc = pfqueue_read(im->t->theirs, path, out, &st);
    if (rc < 0)
        sbuf_reset(out);
    free(path);
    return rc == -ENOENT ? 0 : rc;
}

/* NULL, or why the sender would not be told something if the message were taken over.  Why it waits
 * is told again. */
static const char *notes_read(struct notes *n, const struct import *im, const char *id) {
    struct sbuf traced = {0};
    const char *why = NULL;
    notes_read_one(im, NOTE_DEFER, id, &n->deferred);
    if (notes_read_one(im, NOTE_BOUNCE, id, &n->bounced) < 0)
        why = "its file in bounce, which says who was refused, cannot be read";
    else if (notes_read_one(im, NOTE_TRACE, id, &traced) < 0 || traced.n > 0)
        why = "its sender is still to be told what was delivered: let Postfix send it";
    sbuf_free(&traced);
    return why;
}

static void notes_free(struct notes *n) {
    sbuf_free(&n->deferred);
    sbuf_free(&n->bounced);
}

/* What the spool keeps beside the envelope: hold, age, recipients that are done, why others wait.
 * Nothing if it is as new. */
static void import_progress(const struct pfqueue_file *f, const struct queuefile *q,
                            const struct stat *st, const struct notes *notes,
                            const struct envelope *env, struct sbuf *out) {
    bool waits = strcmp(f->queue, "deferred") == 0, held = strcmp(f->queue, "hold") == 0;
    struct progress p = {.n = env->n_rcpts, .done = mem_zalloc(env->n_rcpts)};
    bool some = false;
    for (uint32_t i = 0; i < p.n && q->redirect.n == 0; i++) {
        p.done[i] = q->rcpts[i].r.expanded ? RCPT_EXPANDED : (uint8_t)q->rcpts[i].state;
        some = some || p.done[i] != RCPT_WAITS;
    }
    p.flags = (held ? PROGRESS_HOLD : 0U) | (q->warned ? PROGRESS_WARNED : 0U) |
              ((st->st_mode & S_IXGRP) != 0 ? PROGRESS_EXPIRE : 0U);
    if (waits)
        p.next_us = (int64_t)st->st_mtim.tv_sec * 1000000;
    reasons_revive(&p, env, sbuf_str(&notes->bounced));
    reasons_note(&p, env, sbuf_str(&notes->deferred));
    p.attempts = waits ? 1 : 0;
    p.last_us = waits ? clock_wall_us() : 0;
    if (some || p.flags != 0 || waits || p.n_errors > 0)
        progress_encode(&p, out);
    progress_free(&p);
}

static bool import_waits(const struct queuefile *q) {
    size_t i = 0;
    while (i < q->n_rcpts && q->rcpts[i].state != RCPT_WAITS)
        i++;
    return i < q->n_rcpts;
}

static bool import_is_too_large(const struct queuefile *q) {
    size_t n = 0;
    for (size_t i = 0; i < q->n_rcpts; i++)
        n += q->rcpts[i].r.addr.n + q->rcpts[i].r.orcpt.n + q->rcpts[i].orig.n;
    return n > RCPTS_BYTES_MAX;
}

static bool import_knows(const struct import *im, const struct pfqueue_file *f,
                         const struct queuefile *q) {
    return ours_find(im->t->ours, f->id, q->ident, q->arrival_us) != NULL;
}

static bool import_is_drop(const struct pfqueue_file *f) {
    return strcmp(f->queue, "maildrop") == 0;
}

/* Why a file is no message that can be taken over; NULL: it is one. */
static const char *import_judge(const struct pfqueue_file *f, const struct stat *st,
                                struct queuefile *q, struct str text) {
    const char *why = NULL;
    if ((st->st_mode & S_IXUSR) == 0)
        why = import_is_drop(f) ? "it is not complete: a program is sending it, or has ended too "
                                  "early; when it has ended give the command again"
                                : "it is not complete: Postfix had not said yet that it has it";
    else if (!qid_ok(str_of(f->id)) || strlen(f->id) >= QID_MAX)
        why = "its name is no queue ID";
    if (why == NULL)
        why = queuefile_read(q, text);
    if (why == NULL && !q->has_size && !import_is_drop(f))
        why = "it has no record of its size";
    if (why == NULL && !import_waits(q))
        why = "no recipient is left";
    if (why == NULL && import_is_too_large(q))
        why = "its recipients take too many bytes";
    return why;
}

/* -- a batch -- */

/* Into PFQUEUE_FOLDER, where Postfix does not look. */
static int import_withdraw(const struct import *im, const struct pfqueue_file *f, char **path) {
    struct stat st;
    *path = pfqueue_folder_path(im->t->theirs, f->queue, f->id);
    if (f->waits_in_folder)
        return 0;
    return lstat(*path, &st) == 0 ? -EEXIST : pfqueue_withdraw(im->t->theirs, f->path, *path);
}

static void forget_notes(const struct pfqueue *theirs, const char *id) {
    for (unsigned i = 0; i < NOTE_FOLDERS; i++) {
        char *path = pfqueue_path(theirs, note_folders[i], id);
        pfqueue_remove(theirs, path);
        free(path);
    }
}

static char *import_target(const struct import *im, const char *name) {
    struct sbuf path = {0};
    sbuf_printf(&path, "%s/%s%s", im->t->theirs->dir, im->t->keep ? PFQUEUE_KEPT : PFQUEUE_GONE,
                name);
    return sbuf_take(&path);
}

/* Before the first file leaves its queue. */
static int import_begin(const struct import *im) {
    char *target = import_target(im, "");
    int rc = im->t->begun ? 0 : fs_mkdir(target, 0700);
    free(target);
    return rc == 0 ? moving_begin(im->t) : rc;
}

/* The spool has it. */
static int import_settle(const struct import *im, const char *path, const char *id) {
    char *to = import_target(im, strrchr(path, '/'));
    int rc = rename(path, to) < 0 ? -errno : 0;
    if (rc == 0 && im->t->keep)
        forget_notes(im->t->theirs, id);
    free(to);
    return rc;
}

/* The folder that the batch is in knows its files before those that it came from forget them. */
static int import_commit(struct import *im) {
    int rc = im->n == 0 ? 0 : pfqueue_sync_folder(im->t->theirs);
    if (im->n == 0)
        return 0;
    if (rc == 0)
        rc = pfqueue_sync_places(im->t->theirs);
    if (rc == 0)
        rc = ours_commit(im->t->ours);
    for (size_t i = 0; i < im->n; i++) {
        if (rc == 0)
            rc = import_settle(im, im->batch[i].path, im->batch[i].id);
        if (rc == 0 && im->batch[i].known)
            im->t->known++;
        else if (rc == 0)
            im->t->moved++;
        free(im->batch[i].path);
        free(im->batch[i].id);
    }
    im->n = 0;
    return rc;
}

void transfer_sweep(const struct pfqueue *theirs) {
    struct pfqueue_list gone = {0};
    struct sbuf folder = {0};
    sbuf_printf(&folder, "%s/" PFQUEUE_GONE, theirs->dir);
    pfqueue_list_gone(theirs, &gone);
    for (size_t i = 0; i < gone.n; i++) {
        if (!pfqueue_has(theirs, gone.v[i].id)) /* else the notes are of mail that has come since */
            forget_notes(theirs, gone.v[i].id);
        unlink(gone.v[i].path);
    }
    rmdir(folder.p);
    pfqueue_list_free(&gone);
    sbuf_free(&folder);
}

/* -- a file -- */

static void import_add(struct import *im, const struct pfqueue_file *f, struct queuefile *q,
                       const struct stat *st, const struct notes *notes, char *path) {
    struct envelope *env = queuefile_envelope(q, f->id);
    struct sbuf progress = {0};
    import_progress(f, q, st, notes, env, &progress);
    const struct ours_message *m = ours_find(im->t->ours, f->id, q->ident, env->arrival_us);
    im->batch[im->n].path = path;
    im->batch[im->n].id = mem_strdup(f->id);
    im->batch[im->n++].known = m != NULL;
    if (m == NULL) {
        ours_add(im->t->ours, env, &q->content, &progress);
        return;
    }
    /* The run that was killed may have written the message and not its progress. */
    if (progress.n > 0)
        ours_note(im->t->ours, m->id, &progress);
    envelope_unref(env);
}

/* The spool may have what a run that was killed has left in PFQUEUE_FOLDER: then it is not
 * Postfix's, even if it cannot be read any more. */
static void import_put_back(struct import *im, const struct pfqueue_file *f) {
    if (f->waits_in_folder && !ours_has_qid(im->t->ours, f->id))
        pfqueue_place(im->t->theirs, f->path, f->queue, f->id);
}

/* Why it stays where it is, or NULL. */
static const char *import_refuses(const struct import *im, const struct pfqueue_file *f,
                                  const struct stat *st, struct queuefile *q, struct str text,
                                  struct notes *notes) {
    const char *why = import_judge(f, st, q, text);
    if (why != NULL)
        return why;
    why = notes_read(notes, im, f->id);
    if (why == NULL && held_is_full(im->t->cfg->p.queue_memory_limit))
        why = "the envelopes of queued mail take queue_memory_limit or more";
    return import_knows(im, f, q) ? NULL : why;
}

/* -- what Postfix had not read yet -- */

struct cleaned {
    struct queuefile *q;
    struct sbuf *texts;
};

static struct str cleaned_text(const struct sbuf *texts, size_t *at, struct str text) {
    struct str kept = str_make(sbuf_str(texts).p + *at, text.n);
    *at += text.n;
    return kept;
}

/* All texts first: views into what still grows would not stay. */
static void cleaned_take(void *arg, const struct rcpt *rcpts, uint32_t n) {
    struct cleaned *c = arg;
    size_t at = c->texts->n;
    struct queuefile_rcpt *to = mem_zalloc(n * sizeof *to);
    for (uint32_t i = 0; i < n; i++) {
        sbuf_add_str(c->texts, rcpts[i].addr);
        sbuf_add_str(c->texts, rcpts[i].orcpt);
        sbuf_add_str(c->texts, rcpts[i].orig);
    }
    for (uint32_t i = 0; i < n; i++) {
        to[i].r = rcpts[i];
        to[i].r.addr = cleaned_text(c->texts, &at, rcpts[i].addr);
        to[i].r.orcpt = cleaned_text(c->texts, &at, rcpts[i].orcpt);
        to[i].r.orig = cleaned_text(c->texts, &at, rcpts[i].orig);
    }
    free(c->q->rcpts);
    c->q->rcpts = to;
    c->q->n_rcpts = n;
}

/* The message becomes what Postfix would have queued; with a record of its size it comes from
 * another queue (postsuper -r), and is that already.  Either way pickup(8) would give it the filter
 * of what programs send, in place of one that it had.  Why it cannot, or NULL. */
static const char *import_complete(const struct import *im, const struct pfqueue_file *f,
                                   const struct stat *st, struct queuefile *q, struct sbuf *made,
                                   struct sbuf *texts) {
    struct cleaned c = {q, texts};
    if (import_is_drop(f))
        q->filter = str_of(im->t->cfg->sendmail.p.content_filter);
    if (!import_is_drop(f) || q->has_size)
        return NULL;
    maildrop_complete(q, im->t->cfg, f->id, st->st_uid, made);
    if (im->t->clean == NULL || import_knows(im, f, q))
        return NULL;
    struct rcpt *rcpts = mem_zalloc(q->n_rcpts * sizeof *rcpts);
    for (size_t i = 0; i < q->n_rcpts; i++)
        rcpts[i] = q->rcpts[i].r;
    struct transfer_drop drop = {f->id, q->sender, rcpts, (uint32_t)q->n_rcpts};
    const char *why = im->t->clean(im->t->clean_arg, &drop, cleaned_take, &c);
    free(rcpts);
    return why != NULL || !import_is_too_large(q) ? why : "its recipients take too many bytes";
}

static const char *unread_why(int rc) {
    return rc == -EBUSY ? "a process of Postfix's still delivers it or writes it: give the command "
                          "again when that has ended"
                        : strerror(-rc);
}

static int import_one(struct import *im, const struct pfqueue_file *f) {
    struct queuefile q = {0};
    struct sbuf text = {0}, made = {0}, texts = {0};
    struct notes notes = {0};
    struct stat st;
    char *path = NULL;
    int rc = pfqueue_read(im->t->theirs, f->path, &text, &st);
    if (rc == -EMLINK && f->waits_in_folder) /* an export was killed, which had placed it */
        return pfqueue_place(im->t->theirs, f->path, f->queue, f->id);
    const char *why =
        rc < 0 ? unread_why(rc) : import_refuses(im, f, &st, &q, sbuf_str(&text), &notes);
    if (why == NULL)
        why = import_complete(im, f, &st, &q, &made, &texts);
    int begun = why == NULL ? import_begin(im) : 0;
    if (why != NULL) {
        import_leave(im, f, why);
        import_put_back(im, f);
    } else if (begun == 0 && (rc = import_withdraw(im, f, &path)) < 0) {
        import_leave(im, f, strerror(-rc));
        free(path);
    } else if (begun == 0) {
        import_add(im, f, &q, &st, &notes, path);
    }
    queuefile_free(&q);
    notes_free(&notes);
    sbuf_free(&text);
    sbuf_free(&made);
    sbuf_free(&texts);
    if (begun < 0)
        return begun;
    return im->n == BATCH || im->t->ours->bytes >= BATCH_BYTES ? import_commit(im) : 0;
}

static int import_all(struct import *im, const struct pfqueue_list *l) {
    int rc = 0;
    for (size_t i = 0; i < l->n && rc == 0; i++)
        rc = import_one(im, &l->v[i]);
    return rc == 0 ? import_commit(im) : rc;
}

static int import_queue(struct import *im, const char *queue) {
    struct pfqueue_list l = {0};
    int rc = queue == NULL ? pfqueue_list_folder(im->t->theirs, &l)
                           : pfqueue_list(im->t->theirs, queue, &l);
    if (rc == 0 && queue != NULL && strcmp(queue, "corrupt") == 0)
        for (size_t i = 0; i < l.n; i++)
            import_leave(im, &l.v[i], "Postfix has put it aside as damaged");
    else if (rc == 0)
        rc = import_all(im, &l);
    pfqueue_list_free(&l);
    return rc;
}

int transfer_import_room(const struct transfer *t, char **why) {
    static const char *const queues[] = {"hold", "deferred", "incoming", "active", "maildrop"};
    uint64_t bytes = 0, files = 0;
    int rc = ours_marked(t->ours, t->theirs->dir);
    for (size_t i = 0; i < sizeof queues / sizeof queues[0] && rc == 0; i++) {
        struct pfqueue_list l = {0};
        struct stat st;
        rc = pfqueue_list(t->theirs, queues[i], &l);
        for (size_t k = 0; k < l.n; k++, files++)
            bytes += lstat(l.v[k].path, &st) < 0 ? 0 : (uint64_t)st.st_size;
        pfqueue_list_free(&l);
    }
    return rc < 0 ? rc : rc > 0 ? 0 : moving_has_room(t->ours->dir, bytes, files, why);
}

int transfer_import(struct transfer *t, char **why) {
    static const char *const queues[] = {NULL,     "hold",     "deferred", "incoming",
                                         "active", "maildrop", "corrupt"};
    struct import *im = MEM_NEW(struct import);
    im->t = t;
    *why = NULL;
    int rc = transfer_import_room(t, why);
    for (size_t i = 0; i < sizeof queues / sizeof queues[0] && rc == 0; i++)
        rc = import_queue(im, queues[i]);
    if (rc == 0)
        rc = pfqueue_sync_folder(t->theirs);
    if (rc == 0)
        rc = pfqueue_is_settled(t->theirs) ? ours_unmark(t->ours) : -ENOTEMPTY;
    if (rc < 0 && *why == NULL)
        *why = mem_strdup(strerror(-rc));
    free(im);
    return rc;
}
