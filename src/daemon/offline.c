/*
 * daemon/offline.c - the queue of a daemon that is not running; see offline.h
 *
 * The scheduler takes up what the spool has, as at a start, and never runs.
 */
#include "daemon/offline.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/overview.h"
#include "daemon/unreadable.h"
#include "util/codec.h"
#include "util/log.h"
#include "util/mem.h"

#define PIECE_MAX 49152U

struct offline {
    struct config *cfg;
    struct sched *sched;
    struct spool *spool;
    struct unreadable_list kept;
    ask_line_fn fn;
    void *arg;
};

static void offline_found(void *arg, const struct spool_found *f) {
    struct offline *o = arg;
    struct envelope *env = envelope_decode(f->meta);
    if (env != NULL && sched_recover(o->sched, envelope_ref(env), f->progress))
        envelope_unref(env);
    else
        unreadable_add(&o->kept, f->id, env);
}

static int offline_open(struct offline *o, const char *dir, char **why) {
    static const struct sched_ops none;
    o->cfg = config_build(cfg_source_new(dir));
    const char *queue = o->cfg->p.queue_directory;
    struct spool_conf conf = {queue, (uint64_t)o->cfg->p.spool_segment_size};
    struct loop *l = loop_new(0);
    if (access(queue, R_OK | X_OK) < 0 || l == NULL) {
        struct sbuf text = {0};
        int err = errno;
        sbuf_printf(&text, "queue_directory %s: %s", queue, strerror(err));
        *why = sbuf_take(&text);
        return -err;
    }
    /* What the log would say is what a start does about damage. */
    log_open(&(struct log_conf){.file = "/dev/null"});
    o->sched = sched_new(l, lookup_new(l), o->cfg, &none);
    int rc = spool_open(&o->spool, &conf, &spool_io_look, offline_found, o, why);
    if (rc == 0)
        sched_set_spool(o->sched, o->spool);
    return rc;
}

static void offline_line(struct offline *o, struct sbuf *line) {
    line->n--; /* the newline */
    o->fn(o->arg, sbuf_str(line));
    sbuf_reset(line);
}

/* The first message that fits is *id, if there is one; with list all are told. */
static bool offline_each(struct offline *o, json_t *req, bool list, uint64_t *id) {
    struct sched_filter f;
    struct htab wanted = {0};
    struct sbuf line = {0};
    size_t n;
    bool found = false;
    overview_filter(req, &f, &wanted);
    uint64_t *ids = sched_ids(o->sched, &n);
    for (size_t i = 0; i < n && (list || !found); i++) {
        struct sched_view v;
        if (!sched_view(o->sched, ids[i], &v) || !sched_fits(&v, &f))
            continue;
        found = true;
        *id = ids[i];
        overview_message(&line, &v);
        offline_line(o, &line);
    }
    if (list)
        unreadable_show(&line, &o->kept, &f);
    for (struct str rest = sbuf_str(&line), one; str_split(&rest, "\n", &one);)
        o->fn(o->arg, one);
    free(ids);
    sbuf_free(&line);
    htab_free(&wanted);
    return found;
}

static void offline_was_read(struct spool_op *op) {
    *(bool *)op->arg = true;
}

static int offline_content(struct offline *o, const struct body *body) {
    struct sbuf line = {0}, tmp = {0};
    int rc = 0;
    for (uint64_t at = 0; at < body->size && rc == 0;) {
        struct str piece = body_view(body, at, PIECE_MAX, &tmp);
        if (piece.p == NULL || piece.n == 0)
            rc = -EIO;
        at += piece.n;
        sbuf_add_c(&line, "{\"content\": \"");
        base64_encode(&line, piece);
        sbuf_add_c(&line, "\"}\n");
        offline_line(o, &line);
    }
    sbuf_free(&line);
    sbuf_free(&tmp);
    return rc;
}

static int offline_read(struct offline *o, json_t *req) {
    struct sched_view v;
    struct sbuf line = {0};
    uint64_t id = 0;
    bool done = false;
    if (!offline_each(o, req, false, &id) || !sched_view(o->sched, id, &v))
        return -ENOENT;
    struct spool_op op = {.kind = SPOOL_READ, .id = id, .done = offline_was_read, .arg = &done};
    overview_envelope(&line, &v);
    offline_line(o, &line);
    sbuf_free(&line);
    spool_submit(o->spool, &op);
    for (int i = 0; i < 2 && !done; i++)
        spool_turn(o->spool);
    return op.rc < 0 ? op.rc : offline_content(o, op.body);
}

int offline_ask(const char *dir, const char *request, ask_line_fn fn, void *arg, char **why) {
    struct offline o = {.fn = fn, .arg = arg};
    json_t *req = json_loads(request, 0, NULL);
    const char *cmd = json_string_value(json_object_get(req, "cmd"));
    bool list = cmd != NULL && strcmp(cmd, "queue-list") == 0;
    uint64_t id;
    int rc = -EOPNOTSUPP;
    *why = NULL;
    bool relay = json_object_get(req, "relay") != NULL; /* the routes are the daemon's to find */
    if ((list && !relay) || (cmd != NULL && strcmp(cmd, "queue-read") == 0))
        rc = offline_open(&o, dir, why);
    if (rc == 0 && list)
        offline_each(&o, req, true, &id);
    else if (rc == 0)
        rc = offline_read(&o, req);
    if (rc < 0 && *why == NULL)
        *why = mem_strdup(strerror(-rc));
    json_decref(req);
    return rc;
}
