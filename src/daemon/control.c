/*
 * daemon/control.c - the control socket; see control.h
 */
#include "daemon/control.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "util/clock.h"
#include "util/conn.h"
#include "util/log.h"
#include "util/mem.h"

#define LINE_MAX_BYTES 65536U
#define LISTING_AHEAD  65536U /* written before the client has taken it */

struct control {
    struct loop *loop;
    uv_poll_t poll;
    int fd;
    struct sched *sched;
    struct spool *spool;
    struct explain_at at;
};

struct client {
    struct control *c;
    struct explain *explain; /* NULL: none is running */
    struct conn *conn;
    uint64_t *listing; /* ids still to be shown, while it lists the queue */
    size_t n_listing, shown;
    char want_qid[QID_MAX]; /* queue-show; "": all */
};

static void add_str(struct sbuf *b, const char *name, struct str v) {
    sbuf_printf(b, ", \"%s\": ", name);
    sbuf_add_json(b, v);
}

static const char *queue_name(enum sched_queue q) {
    return q == QUEUE_ACTIVE ? "active" : q == QUEUE_HOLD ? "hold" : "deferred";
}

static void add_rcpts(struct sbuf *b, const struct sched_view *v) {
    bool first = true;
    sbuf_add_c(b, ", \"recipients\": [");
    for (uint32_t i = 0; i < v->env->n_rcpts; i++) {
        if (v->done[i] != 0)
            continue;
        sbuf_add_c(b, first ? "{\"address\": " : ", {\"address\": ");
        sbuf_add_json(b, v->env->rcpts[i].addr);
        if (v->reason != NULL)
            add_str(b, "delay_reason", str_of(v->reason));
        sbuf_add_ch(b, '}');
        first = false;
    }
    sbuf_add_ch(b, ']');
}

/* postqueue -j's members, then ours. */
static void list_one(struct client *k, const struct sched_view *v) {
    struct sbuf b = {0};
    if (k->want_qid[0] != '\0' && strcmp(k->want_qid, v->env->qid) != 0)
        return;
    sbuf_printf(&b,
                "{\"queue_name\": \"%s\", \"queue_id\": \"%s\", \"arrival_time\": %lld, "
                "\"message_size\": %llu, \"forced_expire\": %s",
                queue_name(v->queue), v->env->qid, (long long)(v->env->arrival_us / 1000000),
                (unsigned long long)v->env->size, v->forced_expire ? "true" : "false");
    add_str(&b, "sender", v->env->sender.n == 0 ? STR_LIT("MAILER-DAEMON") : v->env->sender);
    add_rcpts(&b, v);
    sbuf_printf(&b, ", \"attempts\": %u, \"next_attempt\": %lld", v->attempts,
                (long long)(v->next_us / 1000000));
    add_str(&b, "client", v->env->client);
    sbuf_add_c(&b, "}\n");
    conn_write(k->conn, b.p, b.n);
    sbuf_free(&b);
}

/* As much as the client takes; the rest when it has, for a queue may be longer than memory allows
 * to list at once. */
static void list_more(struct client *k) {
    struct sched_view v;
    while (k->shown < k->n_listing && conn_pending(k->conn) < LISTING_AHEAD)
        if (sched_view(k->c->sched, k->listing[k->shown++], &v))
            list_one(k, &v);
    if (k->shown < k->n_listing)
        return;
    free(k->listing);
    k->listing = NULL;
    conn_write_c(k->conn, "{\"ok\": true}\n");
    conn_resume(k->conn);
}

static void list_begin(struct client *k, const char *qid) {
    snprintf(k->want_qid, sizeof k->want_qid, "%s", qid);
    k->listing = sched_ids(k->c->sched, &k->n_listing);
    k->shown = 0;
    conn_pause(k->conn);
    list_more(k);
}

static void cmd_stats(struct client *k) {
    struct sched_stats st;
    struct spool_stats sp;
    sched_stats(k->c->sched, &st);
    spool_stats(k->c->spool, &sp);
    conn_printf(k->conn,
                "{\"active\": %llu, \"deferred\": %llu, \"hold\": %llu, \"spool_messages\": %llu, "
                "\"spool_segments\": %llu, \"spool_log_bytes\": %llu, \"spool_live_bytes\": %llu, "
                "\"spool_batches\": %llu, \"spool_records\": %llu, \"spool_written\": %llu}\n",
                (unsigned long long)st.active, (unsigned long long)st.deferred,
                (unsigned long long)st.hold, (unsigned long long)sp.messages,
                (unsigned long long)sp.segments, (unsigned long long)sp.log_bytes,
                (unsigned long long)sp.live_bytes, (unsigned long long)sp.batches,
                (unsigned long long)sp.records, (unsigned long long)sp.bytes_written);
}

static const struct {
    const char *cmd;
    enum sched_act act;
} acts[] = {{"queue-retry", ACT_RETRY},
            {"queue-delete", ACT_DELETE},
            {"queue-hold", ACT_HOLD},
            {"queue-release", ACT_RELEASE},
            {"queue-expire", ACT_EXPIRE}};

static bool run_act(struct client *k, const char *cmd, const char *id) {
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++) {
        if (strcmp(cmd, acts[i].cmd) != 0)
            continue;
        size_t n = id == NULL ? 0 : sched_act(k->c->sched, acts[i].act, str_of(id));
        conn_printf(k->conn, "{\"ok\": true, \"count\": %zu}\n", n);
        return true;
    }
    return false;
}

/* A step of an explanation; the last one lets the client go on. */
static void on_step(void *arg, struct str line, bool last) {
    struct client *k = arg;
    conn_write(k->conn, line.p, line.n);
    if (!last)
        return;
    k->explain = NULL;
    conn_resume(k->conn);
}

static bool run_explain(struct client *k, const char *cmd, json_t *req) {
    bool connect = strcmp(cmd, "test") == 0;
    const char *sender = json_string_value(json_object_get(req, "sender"));
    const char *rcpt = json_string_value(json_object_get(req, "recipient"));
    if (!connect && strcmp(cmd, "explain") != 0)
        return false;
    if (sender == NULL) {
        conn_write_c(k->conn, "{\"ok\": false, \"error\": \"sender is missing\"}\n");
        return true;
    }
    conn_pause(k->conn);
    k->explain =
        explain_start(k->c->loop, &k->c->at, sender, rcpt == NULL ? "" : rcpt, connect, on_step, k);
    return true;
}

static void run_request(struct client *k, const char *cmd, const char *id) {
    if (strcmp(cmd, "queue-list") == 0) {
        list_begin(k, "");
    } else if (strcmp(cmd, "queue-show") == 0 && id != NULL && *id != '\0') {
        list_begin(k, id);
    } else if (strcmp(cmd, "queue-flush") == 0) {
        conn_printf(k->conn, "{\"ok\": true, \"count\": %zu}\n", sched_flush(k->c->sched));
    } else if (strcmp(cmd, "stats") == 0) {
        cmd_stats(k);
        conn_write_c(k->conn, "{\"ok\": true}\n");
    } else if (!run_act(k, cmd, id)) {
        conn_write_c(k->conn, "{\"ok\": false, \"error\": \"unknown command\"}\n");
    }
}

static void run_line(struct client *k, struct str line) {
    json_error_t err;
    json_t *req = json_loadb(line.p, line.n, 0, &err);
    const char *cmd = req == NULL ? NULL : json_string_value(json_object_get(req, "cmd"));
    if (cmd == NULL)
        conn_write_c(k->conn, "{\"ok\": false, \"error\": \"not a JSON object with cmd\"}\n");
    else if (!run_explain(k, cmd, req))
        run_request(k, cmd, json_string_value(json_object_get(req, "id")));
    json_decref(req);
}

static void client_free(struct client *k) {
    if (k->explain != NULL)
        explain_forget(k->explain);
    conn_close(k->conn);
    free(k->listing);
    free(k);
}

static size_t on_input(void *arg, const char *p, size_t n) {
    struct client *k = arg;
    const char *nl = memchr(p, '\n', n);
    if (nl == NULL) {
        if (n > LINE_MAX_BYTES)
            client_free(k);
        return 0;
    }
    run_line(k, str_make(p, (size_t)(nl - p)));
    return (size_t)(nl - p) + 1;
}

static void on_event(void *arg, enum conn_event ev) {
    struct client *k = arg;
    if (ev == CONN_CLOSED)
        client_free(k);
    else if (ev == CONN_DRAINED && k->listing != NULL)
        list_more(k);
}

static const struct conn_ops client_ops = {on_input, on_event};

static void on_accept(uv_poll_t *h, int status, int events) {
    struct control *c = h->data;
    (void)status;
    (void)events;
    int fd = accept4(c->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct client *k = MEM_NEW(struct client);
    k->c = c;
    k->conn = conn_new(c->loop, fd, &client_ops, k);
    if (k->conn == NULL)
        free(k);
}

struct control *control_new(struct loop *l, int fd, struct sched *s, struct spool *sp,
                            const struct explain_at *at) {
    struct control *c = MEM_NEW(struct control);
    c->loop = l;
    c->fd = fd;
    c->sched = s;
    c->spool = sp;
    c->at = *at;
    uv_poll_init(&l->uv, &c->poll, fd);
    c->poll.data = c;
    uv_poll_start(&c->poll, UV_READABLE, on_accept);
    return c;
}
