/*
 * web/queue.c - the mail queue on the page; see queue.h
 */
#include "web/queue.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/mem.h"
#include "web/adminlog.h"
#include "web/daemon.h"
#include "web/session.h"

#define PAGE       50U
#define PAGE_MAX   500U
#define LOOK_EVERY 2U   /* seconds between two looks of a stream */
#define LOOKS_MAX  450U /* then the page asks again, with its session */

static const char *const filters[] = {"queue", "relay", "record", "sender", "recipient", "reason"};
#define N_FILTERS (sizeof filters / sizeof filters[0])

static bool queue_known(const char *name) {
    return strcmp(name, "active") == 0 || strcmp(name, "deferred") == 0 ||
           strcmp(name, "hold") == 0;
}

void queue_list(struct req *r) {
    struct ask_end end = {0};
    unsigned limit = PAGE;
    const char *queue = req_query(r, "queue"), *after = req_query(r, "after");
    uint64_t cursor;
    if (!req_number(r, "limit", PAGE_MAX, &limit))
        return;
    if (after[0] != '\0' && !str_u64(str_of(after), &cursor)) {
        reply_fail(r, MHD_HTTP_BAD_REQUEST, "after is the cursor of a message.");
        return;
    }
    if (queue[0] != '\0' && !queue_known(queue)) {
        reply_fail(r, MHD_HTTP_BAD_REQUEST, "queue is active, deferred or hold.");
        return;
    }
    json_t *ask = json_pack("{s:s, s:i}", "cmd", "queue-find", "limit", (int)limit), *msg;
    size_t i;
    for (i = 0; i < N_FILTERS; i++) {
        const char *v = MHD_lookup_connection_value(r->conn, MHD_GET_ARGUMENT_KIND, filters[i]);
        if (v != NULL && (v[0] != '\0' || strcmp(filters[i], "relay") == 0))
            json_object_set_new(ask, filters[i], json_text(v));
    }
    json_object_set_new(ask, "after", json_text(after));
    json_t *list = daemon_lines(r, ask, &end);
    if (list == NULL)
        return;
    json_array_foreach(list, i, msg) {
        daemon_add_advice(msg, json_array_get(json_object_get(msg, "recipients"), 0));
    }
    reply_data(r, json_pack("{s:o, s:b}", "messages", list, "more", end.more));
}

/* {"active", "deferred", "hold", "relays": […], "reasons": […]}; NULL: the daemon does not answer.
 */
static json_t *counts(struct web *w) {
    json_t *list = daemon_ask(w, "counts");
    json_t *o = json_incref(json_array_get(list, 0));
    json_decref(list);
    return o;
}

struct watch {
    struct web *w;
    struct who who; /* its key only */
    char *last;
    unsigned looks;
};

/* The counts when they are others than before; a comment keeps the connection. */
static bool next_counts(void *arg, struct sbuf *out) {
    struct watch *k = arg;
    if (k->looks++ > 0)
        sleep(LOOK_EVERY);
    if (!session_lasts(k->w, &k->who))
        return false;
    json_t *o = counts(k->w);
    char *text = o == NULL ? NULL : json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(o);
    if (text == NULL) {
        sbuf_add_c(out, "event: down\ndata: {}\n\n");
    } else if (k->last == NULL || strcmp(k->last, text) != 0) {
        sbuf_printf(out, "event: counts\ndata: %s\n\n", text);
        free(k->last);
        k->last = text;
        text = NULL;
    } else {
        sbuf_add_c(out, ":\n\n");
    }
    free(text);
    return k->looks < LOOKS_MAX;
}

static void watch_done(void *arg) {
    struct watch *k = arg;
    free(k->last);
    free(k);
}

void queue_counts(struct req *r) {
    if (req_wants_stream(r)) {
        struct watch *k = MEM_NEW(struct watch);
        k->w = r->w;
        k->who = (struct who){.token = r->who.token, .global = r->who.global};
        memcpy(k->who.key, r->who.key, sizeof k->who.key);
        reply_stream(r, next_counts, watch_done, k);
        return;
    }
    json_t *o = counts(r->w);
    if (o == NULL)
        reply_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE, DAEMON_SILENT);
    else
        reply_data(r, o);
}

void queue_show(struct req *r) {
    json_t *list = daemon_lines(
        r, json_pack("{s:s, s:o}", "cmd", "queue-show", "id", json_text(r->arg)), NULL);
    if (list == NULL)
        return;
    json_t *msg = json_array_get(list, 0);
    if (msg == NULL) {
        reply_fail(r, MHD_HTTP_NOT_FOUND, "That message is not in the queue any more.");
    } else {
        daemon_add_advice(msg, json_array_get(json_object_get(msg, "recipients"), 0));
        reply_data(r, json_incref(msg));
    }
    json_decref(list);
}

static bool action_known(const char *action) {
    static const char *const known[] = {"retry", "hold", "release", "delete", "expire"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i], action) == 0)
            return true;
    return false;
}

static bool queue_texts(json_t *list) {
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) {
        if (!json_is_string(v))
            return false;
    }
    return json_is_array(list);
}

/* A member that is not understood must not make it about more messages than was meant. */
static const char *misunderstood(json_t *in) {
    const char *key;
    json_t *v;
    json_object_foreach(in, key, v) {
        size_t i = 0;
        while (i < N_FILTERS && strcmp(filters[i], key) != 0)
            i++;
        bool good = i < N_FILTERS             ? json_is_string(v)
                    : strcmp(key, "all") == 0 ? json_is_boolean(v)
                                              : strcmp(key, "ids") == 0 && queue_texts(v);
        if (good && strcmp(key, "queue") == 0)
            good = json_string_length(v) == 0 || queue_known(json_string_value(v));
        if (!good)
            return key;
    }
    return NULL;
}

/* Which messages: "ids", or "all": true with the filters of the list.  NULL: it does not say. */
static json_t *which(struct req *r) {
    json_t *ids = json_object_get(r->in, "ids"), *ask = json_object();
    bool all = json_is_true(json_object_get(r->in, "all")), some = false;
    if (json_array_size(ids) > 0)
        json_object_set(ask, "ids", ids);
    for (size_t i = 0; all && i < N_FILTERS; i++) {
        json_t *v = json_object_get(r->in, filters[i]);
        if (v == NULL || (json_string_length(v) == 0 && strcmp(filters[i], "relay") != 0))
            continue;
        json_object_set(ask, filters[i], v);
        some = true;
    }
    if (all && !some)
        json_object_set_new(ask, "id", json_string("ALL"));
    if (json_object_size(ask) > 0)
        return ask;
    json_decref(ask);
    return NULL;
}

void queue_act(struct req *r) {
    struct ask_end end = {0};
    struct sbuf cmd = {0};
    const char *odd = misunderstood(r->in);
    if (odd != NULL) {
        reply_fail(r, MHD_HTTP_BAD_REQUEST, "%s is not understood.", odd);
        return;
    }
    json_t *ask = which(r);
    if (!action_known(r->arg) || ask == NULL) {
        reply_fail(r, MHD_HTTP_BAD_REQUEST,
                   ask == NULL ? "Which messages? ids: [queue IDs], or all: true with filters."
                               : "An action is retry, hold, release, delete or expire.");
        json_decref(ask);
        return;
    }
    sbuf_printf(&cmd, "queue-%s", r->arg);
    json_object_set_new(ask, "cmd", json_string(cmd.p));
    json_t *none = daemon_lines(r, ask, &end);
    if (none != NULL) {
        adminlog(r, strcmp(r->arg, "delete") == 0 ? "delete" : "update", "",
                 "Queue: %s %ld message%s.", r->arg, end.count, end.count == 1 ? "" : "s");
        reply_data(r, json_pack("{s:I}", "count", (json_int_t)end.count));
    }
    json_decref(none);
    sbuf_free(&cmd);
}
