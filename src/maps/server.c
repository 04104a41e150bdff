/*
 * maps/server.c - answering questions about tables; see server.h
 *
 * The main thread reads; workers answer and write the reply under the channel's lock.  Tables
 * stay open for the life of the process.  Questions to databases have workers of their own, which
 * each table has its part of (turns.h), and a memory of less than a second: a slow one holds up
 * neither questions to files nor those to another one.
 */
#include "maps/server.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "maps/maps.h"
#include "maps/query.h"
#include "maps/recent.h"
#include "maps/turns.h"
#include "util/clock.h"
#include "util/htab.h"
#include "util/ipc.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/queue.h"

#define CHANNELS_MAX 256U

struct channel {
    int fd;
    struct sbuf in;
    pthread_mutex_t lock; /* of writing */
    atomic_uint refs;     /* the main thread's and one per open question */
};

struct open_maps {
    char *spec;
    struct maps *maps;
};

struct open_list {
    char *spec;
    struct matchlist *list;
};

/* All tables that were asked for. */
struct table_set {
    pthread_mutex_t lock;
    struct htab maps;
    struct htab lists;
    char *dir;
};

struct lookup_server {
    struct queue work;
    size_t workers; /* threads that take questions out of work */
    struct turns *remote_work;
    struct recent *recent_maps, *recent_matches; /* what was asked lately */
    struct channel *chans[CHANNELS_MAX];
    size_t n_chans;
    struct table_set *tables;
    lookup_allowed_fn allowed;
    void *allowed_arg;
    lookup_verify_fn verify;
    void *verify_arg;
};

struct question {
    struct task task;
    struct lookup_server *server;
    struct channel *chan;
    struct ipc_head head;
    struct sbuf fields;
    struct str what; /* part of fields: the question without its service */
    bool remembered;
};

static struct table_set *tables_new(const char *dir) {
    struct table_set *t = MEM_NEW(struct table_set);
    pthread_mutex_init(&t->lock, NULL);
    t->dir = mem_strdup(dir);
    return t;
}

/* Logs what a daemon logs when it opens a table. */
static void report_stale(const struct maps *m) {
    for (size_t i = 0; i < m->n; i++) {
        char *stale = map_stale(m->v[i]);
        if (stale != NULL)
            log_warn("lookup", "%s", stale);
        if (!m->v[i]->opened)
            log_error("lookup", "%s", m->v[i]->err);
        free(stale);
    }
}

/* A table of which one parameter takes one value, and another parameter a list, is opened twice. */
static struct maps *tables_maps(struct table_set *t, const char *spec, enum map_values values) {
    struct sbuf key = {0};
    sbuf_printf(&key, "%d%s", (int)values, spec);
    pthread_mutex_lock(&t->lock);
    struct open_maps *m = htab_get(&t->maps, sbuf_str(&key));
    if (m == NULL) {
        m = MEM_NEW(struct open_maps);
        m->spec = mem_strdup(key.p);
        m->maps = maps_open_as(spec, t->dir, values);
        report_stale(m->maps);
        htab_put(&t->maps, str_of(m->spec), m);
    }
    pthread_mutex_unlock(&t->lock);
    sbuf_free(&key);
    return m->maps;
}

static struct matchlist *tables_list(struct table_set *t, const char *spec, enum match_kind kind,
                                     unsigned how) {
    struct sbuf key = {0};
    sbuf_printf(&key, "%d%u%s", (int)kind, how, spec);
    pthread_mutex_lock(&t->lock);
    struct open_list *l = htab_get(&t->lists, sbuf_str(&key));
    if (l == NULL) {
        l = MEM_NEW(struct open_list);
        l->spec = mem_strdup(key.p);
        l->list = matchlist_open(spec, t->dir, kind, how);
        htab_put(&t->lists, str_of(l->spec), l);
    }
    pthread_mutex_unlock(&t->lock);
    sbuf_free(&key);
    return l->list;
}

static void channel_unref(struct channel *c) {
    if (atomic_fetch_sub(&c->refs, 1) != 1)
        return;
    close(c->fd);
    sbuf_free(&c->in);
    free(c);
}

static bool server_allowed(struct lookup_server *s, const char *spec, struct maps_answer *a) {
    if (s->allowed == NULL || s->allowed(s->allowed_arg, spec))
        return true;
    struct sbuf name = {0};
    maps_show(spec, &name);
    log_warn("lookup", "refused: no parameter names the table \"%.*s\"", STR_FMT(sbuf_str(&name)));
    sbuf_free(&name);
    a->rc = MAP_ERROR;
    a->err = mem_strdup("no such table in the configuration");
    return false;
}

static void answer_maps(struct lookup_server *s, struct table_set *tables, struct ipc_reader *r,
                        struct maps_answer *a, bool traced) {
    struct maps_key keys[KEYS_MAX];
    char *service = str_dup(ipc_get_str(r)), *spec = str_dup(ipc_get_str(r));
    enum map_values values = ipc_get_values(r);
    uint32_t n = ipc_get_u32(r);
    for (uint32_t i = 0; i < n && i < KEYS_MAX; i++) {
        keys[i].key = ipc_get_str(r);
        keys[i].partial = ipc_get_u32(r) != 0;
    }
    struct maps_trace *trace = traced ? MEM_NEW(struct maps_trace) : NULL;
    if (traced)
        trace->secret = ipc_get_u32(r) != 0;
    if (!ipc_done(r) || n == 0 || n > KEYS_MAX) {
        a->rc = MAP_ERROR;
        a->err = mem_strdup("malformed question");
    } else if (server_allowed(s, spec, a)) {
        struct maps *m = tables_maps(tables, spec, values);
        maps_find_traced(m, keys, n, a, trace);
        if (a->rc == MAP_ERROR) {
            log_warn(service, "%s", a->err);
            struct sbuf name = {0};
            maps_show(m->v[a->table]->spec, &name);
            log_warn(service, "%s lookup error for \"%.*s\"", name.p, STR_FMT(keys[a->key].key));
            sbuf_free(&name);
        }
    }
    a->trace = trace;
    free(service);
    free(spec);
}

static void answer_verify(struct lookup_server *s, struct ipc_reader *r, struct maps_answer *a) {
    char *service = str_dup(ipc_get_str(r)), *user = str_dup(ipc_get_str(r));
    char *password = str_dup(ipc_get_str(r));
    bool secure = ipc_get_u32(r) != 0;
    char *client = str_dup(ipc_get_str(r));
    a->rc = MAP_ERROR;
    if (!ipc_done(r) || s->verify == NULL)
        a->err = mem_strdup("no accounts store is configured");
    else
        a->rc = s->verify(s->verify_arg, user, password, secure, client, &a->value, &a->err);
    if (a->rc == MAP_ERROR)
        log_warn(service, "accounts store: %s", a->err);
    mem_wipe(password, strlen(password));
    free(password);
    free(service);
    free(user);
    free(client);
}

static void put_trace(struct sbuf *out, const struct maps_trace *t) {
    ipc_put_u32(out, (uint32_t)t->n);
    for (size_t i = 0; i < t->n; i++) {
        const struct maps_step *s = &t->v[i];
        ipc_put_str(out, str_of(s->table));
        ipc_put_str(out, str_of(s->key));
        ipc_put_rc(out, s->rc);
        ipc_put_u32(out, s->skipped);
        ipc_put_u32(out, s->value != NULL);
        ipc_put_str(out, str_of(s->value == NULL ? "" : s->value));
        ipc_put_str(out, str_of(s->where));
    }
}

static struct str passwd_field(struct str *rest) {
    ptrdiff_t end = str_chr(*rest, ':');
    struct str field = str_make(rest->p, end < 0 ? rest->n : (size_t)end);
    *rest = str_from(*rest, field.n + 1);
    return field;
}

/* The login name of the user with that number. */
static void user_name(struct str number, struct sbuf *name) {
    uint64_t wanted, uid;
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    FILE *f = str_u64(number, &wanted) ? fopen("/etc/passwd", "re") : NULL;
    while (f != NULL && name->n == 0 && (n = getline(&line, &room, f)) > 0) {
        struct str rest = str_make(line, (size_t)n), login = passwd_field(&rest);
        passwd_field(&rest);
        if (login.n > 0 && str_u64(passwd_field(&rest), &uid) && uid == wanted)
            sbuf_add_str(name, login);
    }
    free(line);
    if (f != NULL)
        fclose(f);
    if (name->n == 0)
        sbuf_add_c(name, "unknown");
}

static void answer_match(struct lookup_server *s, struct table_set *tables, struct ipc_reader *r,
                         struct maps_answer *a) {
    char *service = str_dup(ipc_get_str(r)), *spec = str_dup(ipc_get_str(r));
    uint32_t kind = ipc_get_u32(r);
    unsigned how = ipc_get_u32(r) & MATCH_HOW_ALL;
    struct str key = ipc_get_str(r);
    struct sbuf name = {0};
    if (kind == MATCH_USER) {
        user_name(key, &name);
        key = sbuf_str(&name);
    }
    if (!ipc_done(r) || kind > MATCH_USER) {
        a->rc = MAP_ERROR;
    } else if (server_allowed(s, spec, a)) {
        struct matchlist *l = tables_list(tables, spec, (enum match_kind)kind, how);
        a->rc = map_rc_of(matchlist_has(l, key, &a->err));
        if (a->rc == MAP_ERROR)
            log_warn(service, "lookup error for \"%.*s\": %s", STR_FMT(key), a->err);
    }
    sbuf_free(&name);
    free(service);
    free(spec);
}

static void forget(struct lookup_server *s, struct maps_answer *a) {
    recent_clear(s->recent_maps);
    recent_clear(s->recent_matches);
    a->rc = MAP_NOT_FOUND;
}

static void question_free(struct question *q) {
    channel_unref(q->chan);
    sbuf_wipe(&q->fields);
    free(q);
}

/* Appends the message; where it begins. */
static size_t answer_put(struct sbuf *out, uint32_t tag, int64_t asked_ms,
                         const struct maps_answer *a) {
    size_t at = ipc_begin(out, LOOKUP_ANSWER, tag);
    ipc_put_u64(out, (uint64_t)asked_ms);
    ipc_put_rc(out, a->rc);
    ipc_put_u32(out, (uint32_t)a->key);
    ipc_put_u32(out, (uint32_t)a->table);
    ipc_put_str(out, sbuf_str(&a->value));
    ipc_put_str(out, str_of(a->err == NULL ? "" : a->err));
    ipc_put_u32(out, (uint32_t)a->several);
    if (a->trace != NULL)
        put_trace(out, a->trace);
    ipc_end(out, at);
    return at;
}

/* A message that is longer than IPC_MAX would end the channel: an error takes its place. */
static void answer_too_long(uint32_t tag, int64_t asked_ms, struct sbuf *out, size_t at) {
    char why[] = "the answer is too long";
    struct maps_answer a = {.rc = MAP_ERROR, .err = why};
    log_warn("lookup", "%s: %zu bytes, of at most %u", why, out->n - at, IPC_MAX);
    mem_wipe(out->p + at, out->n - at);
    out->n = at;
    answer_put(out, tag, asked_ms, &a);
}

void lookup_server_answer(struct lookup_server *s, const struct ipc_head *head, struct str fields,
                          struct sbuf *out) {
    struct ipc_reader r = {.rest = fields};
    struct maps_answer a = {0};
    int64_t asked_ms = clock_mono_ms();
    if (head->type == LOOKUP_MAPS || head->type == LOOKUP_TRACED)
        answer_maps(s, s->tables, &r, &a, head->type == LOOKUP_TRACED);
    else if (head->type == LOOKUP_VERIFY)
        answer_verify(s, &r, &a);
    else if (head->type == LOOKUP_FORGET)
        forget(s, &a);
    else
        answer_match(s, s->tables, &r, &a);
    size_t at = answer_put(out, head->tag, asked_ms, &a);
    maps_answer_free(&a);
    if (out->n - at > sizeof *head + IPC_MAX)
        answer_too_long(head->tag, asked_ms, out, at);
}

static void channel_send(struct channel *c, struct str message) {
    pthread_mutex_lock(&c->lock);
    ipc_send(c->fd, message, NULL, 0); /* a relay that is gone needs no answer */
    pthread_mutex_unlock(&c->lock);
}

static struct recent **recent_of(const struct question *q) {
    return q->head.type == LOOKUP_MATCH ? &q->server->recent_matches : &q->server->recent_maps;
}

/* Sends the answer under the tag that the question came with; ends the question. */
static void question_reply(struct question *q, struct str answer) {
    struct sbuf out = {0};
    size_t at = ipc_begin(&out, LOOKUP_ANSWER, q->head.tag);
    sbuf_add_str(&out, answer);
    ipc_end(&out, at);
    channel_send(q->chan, sbuf_str(&out));
    sbuf_wipe(&out);
    question_free(q);
}

static void question_run(struct task *t) {
    struct question *q = DL_OWNER(t, struct question, task);
    struct sbuf out = {0};
    struct task *joined = NULL;
    lookup_server_answer(q->server, &q->head, sbuf_str(&q->fields), &out);
    struct str answer = str_from(sbuf_str(&out), sizeof(struct ipc_head));
    struct ipc_reader r = {.rest = str_from(answer, sizeof(uint64_t))};
    bool good = (int)ipc_get_u32(&r) - 1 != MAP_ERROR;
    if (q->remembered)
        joined = recent_done(*recent_of(q), q->what, answer, good);
    channel_send(q->chan, sbuf_str(&out));
    while (joined != NULL) {
        struct task *next = joined->next;
        question_reply(DL_OWNER(joined, struct question, task), answer);
        joined = next;
    }
    sbuf_wipe(&out);
    question_free(q);
}

static void *worker_main(void *arg) {
    struct queue *work = arg;
    struct task *t;
    while ((t = queue_take_one(work)) != NULL)
        t->run(t);
    return NULL;
}

/* How many there are. */
static size_t start_workers(struct queue *work, size_t n) {
    size_t made = 0;
    queue_init(work);
    for (size_t i = 0; i < n; i++) {
        pthread_t t;
        if (pthread_create(&t, NULL, worker_main, work) == 0) {
            pthread_detach(t);
            made++;
        }
    }
    return made;
}

struct lookup_server *lookup_server_new(size_t workers, const char *dir) {
    struct lookup_server *s = MEM_NEW(struct lookup_server);
    s->tables = tables_new(dir);
    s->recent_maps = recent_new();
    s->recent_matches = recent_new();
    s->remote_work = turns_new();
    s->workers = start_workers(&s->work, workers);
    return s;
}

size_t lookup_server_workers(const struct lookup_server *s) {
    return s->workers;
}

void lookup_server_add(struct lookup_server *s, int fd) {
    if (s->n_chans == CHANNELS_MAX) {
        close(fd);
        return;
    }
    struct channel *c = MEM_NEW(struct channel);
    c->fd = fd;
    pthread_mutex_init(&c->lock, NULL);
    atomic_store(&c->refs, 1);
    s->chans[s->n_chans++] = c;
}

void lookup_server_bye(struct lookup_server *s) {
    struct sbuf out = {0};
    ipc_end(&out, ipc_begin(&out, LOOKUP_BYE, 0));
    for (size_t i = 0; i < s->n_chans; i++)
        channel_send(s->chans[i], sbuf_str(&out));
    sbuf_free(&out);
}

void lookup_server_verify(struct lookup_server *s, lookup_verify_fn fn, void *arg) {
    s->verify = fn;
    s->verify_arg = arg;
}

void lookup_server_allow(struct lookup_server *s, lookup_allowed_fn fn, void *arg) {
    s->allowed = fn;
    s->allowed_arg = arg;
}

static bool spec_is_allowed(const struct lookup_server *s, const char *spec) {
    return s->allowed == NULL || s->allowed(s->allowed_arg, spec);
}

/* spec: the table that it asks; the accounts store is one, and so are all that may not be asked. */
static void remote_push(struct lookup_server *s, struct question *q, const char *spec) {
    bool known = q->head.type != LOOKUP_VERIFY && spec_is_allowed(s, spec);
    if (!turns_push(s->remote_work, str_of(known ? spec : ""), &q->task))
        queue_push(&s->work, &q->task); /* a database may hold up files, but is asked */
}

/* Its tables are in a database: answered from memory, together with another one, or by the workers
 * for such. */
static void question_remote(struct lookup_server *s, struct question *q, const char *spec) {
    struct sbuf answer = {0};
    q->remembered = true;
    enum recent_rc rc = recent_find(*recent_of(q), q->what, &q->task, &answer);
    if (rc == RECENT_ALONE)
        q->remembered = false;
    if (rc == RECENT_ASK || rc == RECENT_ALONE)
        remote_push(s, q, spec);
    else if (rc == RECENT_KNOWN)
        question_reply(q, sbuf_str(&answer));
    sbuf_wipe(&answer);
}

/* True unless the table file alone can answer (its domain=, a part that the key lacks).  r: the
 * rest of the question. */
static bool needs_server(struct lookup_server *s, const char *spec, struct ipc_reader r) {
    struct maps_key keys[KEYS_MAX];
    enum map_values values = ipc_get_values(&r);
    uint32_t n = ipc_get_u32(&r);
    for (uint32_t i = 0; i < n && i < KEYS_MAX; i++) {
        keys[i].key = ipc_get_str(&r);
        keys[i].partial = ipc_get_u32(&r) != 0;
    }
    return !ipc_done(&r) || n > KEYS_MAX || !spec_is_allowed(s, spec) ||
           maps_ask_remote(tables_maps(s->tables, spec, values), keys, n);
}

static void server_question_go(struct lookup_server *s, struct question *q) {
    struct ipc_reader r = {.rest = sbuf_str(&q->fields)};
    ipc_get_str(&r); /* the service */
    q->what = r.rest;
    char *spec = str_dup(ipc_get_str(&r));
    bool ask_now = q->head.type == LOOKUP_VERIFY || q->head.type == LOOKUP_TRACED;
    if (ask_now)
        remote_push(s, q, spec);
    else if (!r.bad && maps_are_remote(spec) &&
             (q->head.type != LOOKUP_MAPS || needs_server(s, spec, r)))
        question_remote(s, q, spec);
    else
        queue_push(&s->work, &q->task);
    free(spec);
}

/* Queues every whole question in c->in; false on a protocol error. */
static bool take_questions(struct lookup_server *s, struct channel *c) {
    struct ipc_head head;
    struct str fields;
    int rc;
    while ((rc = ipc_peek(sbuf_str(&c->in), &head, &fields)) > 0) {
        if (head.type != LOOKUP_MAPS && head.type != LOOKUP_MATCH && head.type != LOOKUP_TRACED &&
            head.type != LOOKUP_VERIFY && head.type != LOOKUP_FORGET)
            return false;
        struct question *q = MEM_NEW(struct question);
        q->task.run = question_run;
        q->server = s;
        q->chan = c;
        q->head = head;
        atomic_fetch_add(&c->refs, 1);
        sbuf_add_str(&q->fields, fields);
        if (head.type == LOOKUP_VERIFY)
            mem_wipe((char *)(uintptr_t)fields.p, fields.n);
        sbuf_drop(&c->in, sizeof head + head.len);
        server_question_go(s, q);
    }
    return rc == 0;
}

static bool channel_read(struct lookup_server *s, struct channel *c) {
    char *at = sbuf_room(&c->in, 16384);
    ssize_t n = read(c->fd, at, 16384);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return true;
    if (n <= 0)
        return false;
    sbuf_advance(&c->in, (size_t)n);
    return take_questions(s, c);
}

void lookup_server_run(struct lookup_server *s, int control_fd) {
    struct pollfd fds[CHANNELS_MAX + 1];
    for (;;) {
        for (size_t i = 0; i < s->n_chans; i++)
            fds[i] = (struct pollfd){.fd = s->chans[i]->fd, .events = POLLIN};
        fds[s->n_chans] = (struct pollfd){.fd = control_fd, .events = POLLIN};
        if (poll(fds, s->n_chans + 1, -1) < 0)
            continue;
        if (fds[s->n_chans].revents != 0)
            return;
        size_t kept = 0, n = s->n_chans;
        for (size_t i = 0; i < n; i++) {
            struct channel *c = s->chans[i];
            if (fds[i].revents == 0 || channel_read(s, c))
                s->chans[kept++] = c;
            else
                channel_unref(c);
        }
        s->n_chans = kept;
    }
}
