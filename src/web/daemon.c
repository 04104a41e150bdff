/*
 * web/daemon.c - asking posthoused; see daemon.h
 */
#include "web/daemon.h"

#include <stdlib.h>

#include "util/log.h"

static void daemon_take(void *arg, struct str line) {
    json_t *o = json_loadb(line.p, line.n, 0, NULL);
    if (o != NULL)
        json_array_append_new(arg, o);
}

/* Of what is asked in a word: also a daemon that hangs is known for one soon. */
#define WORD_MS 5000

/* The lines of the answer; NULL with *why.  Takes the request. */
static json_t *daemon_try(struct web *w, int64_t most_ms, json_t *request, struct ask_end *end,
                          char **why) {
    json_t *list = json_array();
    char *text = request == NULL ? NULL : json_dumps(request, JSON_COMPACT);
    json_decref(request);
    *why = NULL;
    int rc = text == NULL ? -1
                          : ask_daemon_within(most_ms, w->cfg->p.queue_directory, text, daemon_take,
                                              list, end, why);
    free(text);
    if (rc == 0)
        return list;
    json_decref(list);
    return NULL;
}

void daemon_add_advice(json_t *to, json_t *why) {
    const char *advice = ask_advice(json_member(why, "cause"), json_member(why, "reply"));
    if (advice != NULL)
        json_object_set_new(to, "advice", json_string(advice));
}

json_t *daemon_lines(struct req *r, json_t *request, struct ask_end *end) {
    char *why;
    json_t *list = daemon_try(r->w, DAEMON_PATIENCE_MS, request, end, &why);
    if (list == NULL) {
        log_warn("web", "%s", why == NULL ? "a request is no JSON" : why);
        reply_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE, DAEMON_SILENT);
    }
    free(why);
    return list;
}

json_t *daemon_ask(struct web *w, const char *cmd) {
    char *why;
    json_t *list = daemon_try(w, WORD_MS, json_pack("{s:s}", "cmd", cmd), NULL, &why);
    free(why);
    return list;
}

bool daemon_take_up(struct req *r, unsigned uses) {
    char *why;
    const char *store = (uses & ASK_STORE) != 0 ? store_name(r->w->store) : NULL;
    int rc = ask_take_up(r->w->cfg->p.queue_directory, uses, store, &why);
    if (rc < 0) {
        log_warn("web", "saved, but not in use: %s", why);
        reply_fail(r, MHD_HTTP_SERVICE_UNAVAILABLE, "It is saved, but not in use: %s.", why);
    }
    free(why);
    return rc >= 0;
}
