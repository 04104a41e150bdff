/*
 * transfer/ours.c - Posthouse's spool, while the daemon is stopped; see ours.h
 */
#include "transfer/ours.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/codec.h"
#include "util/fs.h"
#include "util/mem.h"

/* Content of so many bytes goes into a file of its own, as it does when it is received. */
#define LARGE (256U << 10)

/* -- files -- */

static char *ours_path(const struct ours *o, const char *name) {
    struct sbuf path = {0};
    sbuf_printf(&path, "%s/%s", o->dir, name);
    return sbuf_take(&path);
}

/* The daemon is not root when it opens what root makes here. */
static int ours_io_open(void *arg, const char *path, int flags, mode_t mode) {
    int fd = spool_io_disk.open(arg, path, flags, mode);
    if (fd >= 0 && (flags & O_CREAT) != 0)
        fs_adopt(path);
    return fd;
}

static int ours_io_mkdir(void *arg, const char *path) {
    int rc = spool_io_disk.mkdir(arg, path);
    if (rc == 0)
        fs_adopt(path);
    return rc;
}

/* As the daemon makes it, or takes it over, at its first start. */
static int ours_make_dir(const struct config *cfg) {
    const char *dir = cfg->p.queue_directory;
    const struct passwd *pw = geteuid() == 0 ? getpwnam(cfg->p.mail_owner) : NULL;
    struct stat st;
    int rc = fs_mkdir(dir, 0755);
    if (rc < 0 || pw == NULL ||
        (stat(dir, &st) == 0 && st.st_uid == pw->pw_uid && st.st_gid == pw->pw_gid))
        return rc;
    return chown(dir, pw->pw_uid, pw->pw_gid) < 0 ? -errno : 0;
}

/* The lock that the supervisor holds as long as it lives. */
static int ours_lock(struct ours *o, char **why) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char *path = ours_path(o, "master.pid");
    o->master_fd = fs_open_only(path, O_RDWR | O_CREAT, 0600);
    int rc = o->master_fd < 0                               ? o->master_fd
             : fcntl(o->master_fd, F_OFD_SETLK, &whole) < 0 ? -errno
                                                            : 0;
    if (rc < 0)
        *why = path;
    else
        free(path);
    return rc == -EACCES ? -EAGAIN : rc;
}

/* -- what is there -- */

static char *key_of(struct str qid, int64_t arrival_us) {
    struct sbuf key = {0};
    sbuf_printf(&key, "%.*s %lld", STR_FMT(qid), (long long)arrival_us);
    return sbuf_take(&key);
}

static void ours_remember(struct ours *o, uint64_t id, struct envelope *env, struct str progress) {
    struct ours_message *m = MEM_NEW(struct ours_message);
    m->id = id;
    m->env = env;
    sbuf_add_str(&m->progress, progress);
    m->key = key_of(str_of(env->qid), env->arrival_us);
    if (o->n == o->room) {
        o->room = o->room == 0 ? 64 : o->room * 2;
        o->v = mem_realloc(o->v, o->room * sizeof *o->v);
    }
    o->v[o->n++] = m;
    htab_put(&o->known, str_of(m->key), m);
}

static void ours_found(void *arg, const struct spool_found *f) {
    struct ours *o = arg;
    struct envelope *env = envelope_decode(f->meta);
    if (env == NULL)
        o->unreadable++;
    else
        ours_remember(o, f->id, env, f->progress);
}

/* What is taken over gets IDs that no message here ever had. */
static void ours_note_ids(const struct ours *o) {
    struct spool_stats st;
    spool_stats(o->spool, &st);
    qid_after(st.last_id);
}

/* Postfix's files go, or come back, by what the spool has: a run that was killed may have left that
 * in memory alone. */
static int ours_is_durable(const struct ours *o, char **why) {
    struct sbuf text = {0};
    if (!spool_is_soft(o->spool))
        return 0;
    sbuf_printf(&text, "%s: what a run before has written cannot be made durable", o->dir);
    *why = sbuf_take(&text);
    return -EIO;
}

int ours_open(struct ours *o, const struct config *cfg, char **why) {
    struct spool_conf conf = {cfg->p.queue_directory, (uint64_t)cfg->p.spool_segment_size};
    *why = NULL;
    *o = (struct ours){.dir = cfg->p.queue_directory, .io = spool_io_disk, .master_fd = -1};
    o->io.open = ours_io_open;
    o->io.mkdir = ours_io_mkdir;
    int rc = ours_make_dir(cfg);
    if (rc < 0)
        *why = mem_strdup(o->dir);
    if (rc == 0)
        rc = ours_lock(o, why);
    if (rc == 0)
        rc = spool_open(&o->spool, &conf, &o->io, ours_found, o, why);
    if (rc == 0)
        rc = ours_is_durable(o, why);
    if (rc == 0)
        ours_note_ids(o);
    return rc;
}

void ours_close(struct ours *o) {
    if (o->spool != NULL)
        spool_close(o->spool);
    if (o->master_fd >= 0)
        close(o->master_fd);
    for (size_t i = 0; i < o->n; i++) {
        envelope_unref(o->v[i]->env);
        sbuf_free(&o->v[i]->progress);
        free(o->v[i]->key);
        free(o->v[i]);
    }
    free(o->v);
    htab_free(&o->known);
    *o = (struct ours){.master_fd = -1};
}

const struct ours_message *ours_find(const struct ours *o, const char *qid, struct str other,
                                     int64_t arrival_us) {
    char *key = key_of(str_of(qid), arrival_us), *second = key_of(other, arrival_us);
    const struct ours_message *m = htab_get(&o->known, str_of(key));
    if (m == NULL)
        m = htab_get(&o->known, str_of(second));
    free(key);
    free(second);
    return m;
}

bool ours_has_qid(const struct ours *o, const char *qid) {
    size_t i = 0;
    while (i < o->n && strcmp(o->v[i]->env->qid, qid) != 0)
        i++;
    return i < o->n;
}

/* -- operations -- */

static void ours_done(struct spool_op *op) {
    struct ours *o = op->arg;
    if (op->rc < 0 && o->rc == 0)
        o->rc = op->rc;
    sbuf_free(&op->meta);
    sbuf_free(&op->chunk);
    body_unref(op->body);
    free(op);
}

static struct spool_op *ours_op(struct ours *o, enum spool_kind kind, uint64_t id) {
    struct spool_op *op = MEM_NEW(struct spool_op);
    op->kind = kind;
    op->id = id;
    op->done = ours_done;
    op->arg = o;
    o->pending++;
    return op;
}

/* The content as the message's operation needs it; large content is on its way into its file. */
static struct body *ours_body(struct ours *o, uint64_t id, struct sbuf *content) {
    o->bytes += content->n;
    if (content->n < LARGE)
        return body_from_buf(content);
    struct body *b = body_from_file(content->n, crc32c(0, content->p, content->n));
    struct spool_op *op = ours_op(o, SPOOL_BODY_WRITE, id);
    op->chunk = *content;
    *content = (struct sbuf){0};
    spool_submit(o->spool, op);
    return b;
}

void ours_add(struct ours *o, struct envelope *env, struct sbuf *content, struct sbuf *progress) {
    char unused[QID_MAX];
    qid_next(false, &env->id, unused);
    struct body *body = ours_body(o, env->id, content);
    struct spool_op *op = ours_op(o, SPOOL_NEW, env->id);
    op->body = body;
    envelope_encode(env, &op->meta);
    ours_remember(o, env->id, env, sbuf_str(progress));
    spool_submit(o->spool, op);
    if (progress->n > 0)
        ours_note(o, env->id, progress);
}

void ours_note(struct ours *o, uint64_t id, struct sbuf *progress) {
    struct spool_op *op = ours_op(o, SPOOL_PROGRESS, id);
    op->meta = *progress;
    *progress = (struct sbuf){0};
    spool_submit(o->spool, op);
}

void ours_end(struct ours *o, uint64_t id) {
    spool_submit(o->spool, ours_op(o, SPOOL_DONE, id));
}

/* The sync says whether what cannot fail, progress and ends, was written. */
int ours_commit(struct ours *o) {
    spool_submit(o->spool, ours_op(o, SPOOL_SYNC, 0));
    spool_turn(o->spool);
    int rc = o->rc;
    o->rc = 0;
    o->pending = o->bytes = 0;
    return rc;
}

struct reading {
    bool over;
    int rc;
    struct body *body;
};

static void ours_was_read(struct spool_op *op) {
    struct reading *r = op->arg;
    *r = (struct reading){true, op->rc, op->rc < 0 ? NULL : op->body};
}

struct body *ours_read(struct ours *o, uint64_t id) {
    struct reading r = {0};
    struct spool_op op = {.kind = SPOOL_READ, .id = id, .done = ours_was_read, .arg = &r};
    spool_submit(o->spool, &op);
    for (int i = 0; i < 2 && !r.over; i++)
        spool_turn(o->spool);
    return r.body;
}

/* -- the mark -- */

int ours_marked(const struct ours *o, const char *queue) {
    char *path = ours_path(o, SPOOL_MOVING);
    struct sbuf text = {0}, there = {0};
    sbuf_printf(&text, "%s\n", queue);
    int rc = fs_read(path, &there, SPOOL_MOVING_MAX);
    if (rc == 0)
        rc = str_eq(sbuf_str(&there), sbuf_str(&text)) ? 1 : -EBUSY;
    sbuf_free(&text);
    sbuf_free(&there);
    free(path);
    return rc == -ENOENT ? 0 : rc;
}

int ours_mark(const struct ours *o, const char *queue) {
    char *path = ours_path(o, SPOOL_MOVING);
    struct sbuf text = {0};
    sbuf_printf(&text, "%s\n", queue);
    int rc = ours_marked(o, queue);
    if (rc == 0)
        rc = fs_write_whole(path, sbuf_str(&text), 0644, NULL);
    if (rc >= 0)
        fs_adopt(path);
    sbuf_free(&text);
    free(path);
    return rc < 0 ? rc : 0;
}

int ours_unmark(const struct ours *o) {
    char *path = ours_path(o, SPOOL_MOVING);
    int rc = unlink(path) < 0 && errno != ENOENT ? -errno : fs_sync_dir(path);
    free(path);
    return rc;
}
