/*
 * cli/orders.c - orders about queued messages; see orders.h
 */
#include "cli/orders.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mail/envelope.h"
#include "util/mem.h"
#include "util/str.h"

#define ID_MAX 100U

bool idlist_valid(const char *id) {
    return qid_ok(str_of(id)) && strlen(id) <= ID_MAX;
}

static bool idlist_add_one(struct idlist *l, const char *who, struct str id) {
    char *copy = str_dup(id);
    if (strlen(copy) != id.n || !idlist_valid(copy)) {
        struct sbuf shown = {0};
        sbuf_add_safe(&shown, id);
        fprintf(stderr, "%s: warning: invalid mail queue id: %s\n", who,
                shown.p == NULL ? "" : shown.p);
        sbuf_free(&shown);
        free(copy);
        return false;
    }
    l->v = mem_realloc(l->v, (l->n + 1) * sizeof(char *));
    l->v[l->n++] = copy;
    return true;
}

bool idlist_add(struct idlist *l, const char *who, const char *id) {
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    bool good = true;
    if (strcmp(id, "-") != 0)
        return idlist_add_one(l, who, str_of(id));
    while ((n = getline(&line, &room, stdin)) >= 0) {
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            n--;
        good = idlist_add_one(l, who, str_make(line, (size_t)n)) && good;
    }
    if (ferror(stdin))
        fprintf(stderr, "%s: warning: cannot read queue IDs from standard input: %s\n", who,
                strerror(errno));
    good = good && !ferror(stdin);
    free(line);
    return good;
}

json_t *idlist_some(const struct idlist *l, size_t from) {
    json_t *some = json_array();
    for (size_t i = from; i < l->n && i < from + IDS_AT_ONCE; i++)
        json_array_append_new(some, json_string(l->v[i]));
    return some;
}

void idlist_free(struct idlist *l) {
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i]);
    free(l->v);
    *l = (struct idlist){0};
}

struct order_lines {
    void (*fn)(void *arg, const char *qid);
    void *arg;
};

static void order_line(void *arg, struct str line) {
    const struct order_lines *to = arg;
    json_t *o = json_loadb(line.p, line.n, 0, NULL);
    const char *qid = json_string_value(json_object_get(o, "changed"));
    if (qid != NULL && to->fn != NULL)
        to->fn(to->arg, qid);
    json_decref(o);
}

/* req is stolen. */
static int order_ask(const char *who, const struct config *cfg, const char *cmd, json_t *req,
                     json_t *filter, struct order_lines *to, struct order_result *res) {
    struct ask_end end = {0};
    json_object_set_new(req, "cmd", json_string(cmd));
    json_object_update(req, filter);
    char *text = json_dumps(req, 0);
    json_decref(req);
    int rc = cli_control_status(who, cfg, text, order_line, to, &end);
    free(text);
    res->changed += end.count;
    res->matched += end.matched;
    return rc;
}

int order_give(const char *who, const struct config *cfg, const char *cmd, const struct idlist *ids,
               json_t *filter, void (*fn)(void *arg, const char *qid), void *arg,
               struct order_result *res) {
    struct order_lines to = {fn, arg};
    int rc = EX_OK_;
    if (ids == NULL)
        return order_ask(who, cfg, cmd, json_pack("{s:s}", "id", "ALL"), filter, &to, res);
    for (size_t i = 0; i < ids->n && rc == EX_OK_; i += IDS_AT_ONCE) {
        json_t *req = json_pack("{s:o}", "ids", idlist_some(ids, i));
        rc = order_ask(who, cfg, cmd, req, filter, &to, res);
    }
    return rc;
}
