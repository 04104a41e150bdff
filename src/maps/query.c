/*
 * maps/query.c - asking the lookup process; see query.h
 */
#include "maps/query.h"

#include <stdlib.h>

#include "util/htab.h"
#include "util/ipc_chan.h"
#include "util/mem.h"

struct pending {
    uint32_t tag;
    lookup_maps_fn maps_fn; /* one of the two */
    lookup_match_fn match_fn;
    void *arg;
    struct task later; /* an answer that is known at once is still given from the loop */
    struct lookup *owner;
};

struct lookup {
    struct loop *loop;
    struct ipc_chan *chan; /* NULL: no lookup process */
    struct itab pending;
    uint32_t next_tag;
    struct htab lists; /* spec -> struct list: match lists without tables */
};

struct list {
    char *key;
    struct matchlist *l;
};

struct lookup *lookup_new(struct loop *l) {
    struct lookup *k = MEM_NEW(struct lookup);
    k->loop = l;
    return k;
}

static void answer(struct pending *p, const struct maps_answer *a) {
    if (p->maps_fn != NULL)
        p->maps_fn(p->arg, a);
    else
        p->match_fn(p->arg, (enum match_rc)a->rc);
    free(p);
}

static void fail_all(struct lookup *k) {
    struct itab old = k->pending;
    struct pending *p;
    size_t pos = 0;
    k->pending = (struct itab){0};
    while ((p = itab_next(&old, &pos)) != NULL) {
        struct maps_answer a = {.rc = MAP_ERROR, .err = "the lookup process is not running"};
        answer(p, &a);
    }
    itab_free(&old);
}

static void on_closed(void *arg) {
    struct lookup *k = arg;
    struct ipc_chan *old = k->chan;
    k->chan = NULL;
    ipc_chan_free(old);
    fail_all(k);
}

static void on_message(void *arg, const struct ipc_head *head, struct str fields) {
    struct lookup *k = arg;
    struct ipc_reader r = {.rest = fields};
    struct maps_answer a = {0};
    a.rc = (enum map_rc)((int)ipc_get_u32(&r) - 1);
    a.key = ipc_get_u32(&r);
    a.table = ipc_get_u32(&r);
    struct str value = ipc_get_str(&r), err = ipc_get_str(&r);
    if (head->type != LOOKUP_ANSWER || !ipc_done(&r) || a.rc > MAP_FOUND || a.rc < MAP_ERROR) {
        on_closed(k);
        return;
    }
    struct pending *p = itab_del(&k->pending, head->tag);
    if (p == NULL) /* cancelled */
        return;
    sbuf_add_str(&a.value, value);
    a.err = str_dup(err);
    answer(p, &a);
    maps_answer_free(&a);
}

static const struct ipc_chan_ops chan_ops = {on_message, on_closed};

void lookup_attach(struct lookup *k, int fd) {
    if (k->chan != NULL)
        on_closed(k);
    k->chan = ipc_chan_new(k->loop, fd, &chan_ops, k);
}

static void run_failed(struct task *t) {
    struct pending *p = DL_OWNER(t, struct pending, later);
    struct maps_answer a = {.rc = MAP_ERROR, .err = "the lookup process is not running"};
    if (itab_del(&p->owner->pending, p->tag) != NULL)
        answer(p, &a);
    else
        free(p); /* cancelled meanwhile */
}

static struct pending *pending_add(struct lookup *k, void *arg) {
    struct pending *p = MEM_NEW(struct pending);
    if (++k->next_tag == 0)
        k->next_tag = 1;
    p->tag = k->next_tag;
    p->arg = arg;
    p->owner = k;
    itab_put(&k->pending, p->tag, p);
    return p;
}

/* Without a lookup process the answer is known: an error, given from the loop. */
static bool offline(struct lookup *k, struct pending *p) {
    if (k->chan != NULL)
        return false;
    p->later.run = run_failed;
    loop_post(k->loop, &p->later);
    return true;
}

uint32_t lookup_maps(struct lookup *k, const char *service, const char *spec,
                     const struct maps_key *keys, size_t n, lookup_maps_fn fn, void *arg) {
    struct pending *p = pending_add(k, arg);
    p->maps_fn = fn;
    if (offline(k, p))
        return p->tag;
    struct sbuf *out = ipc_chan_out(k->chan);
    size_t at = ipc_begin(out, LOOKUP_MAPS, p->tag);
    ipc_put_str(out, str_of(service));
    ipc_put_str(out, str_of(spec));
    ipc_put_u32(out, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        ipc_put_str(out, keys[i].key);
        ipc_put_u32(out, keys[i].partial);
    }
    ipc_end(out, at);
    ipc_chan_send(k->chan);
    return p->tag;
}

/* Lists without tables never change while their text is the same: kept for ever. */
static struct matchlist *list_get(struct lookup *k, const char *spec, enum match_kind kind,
                                  bool parents) {
    struct sbuf key = {0};
    sbuf_printf(&key, "%d%d%s", (int)kind, parents, spec);
    struct list *l = htab_get(&k->lists, sbuf_str(&key));
    if (l == NULL) {
        l = MEM_NEW(struct list);
        l->key = mem_strdup(key.p);
        l->l = matchlist_open(spec, NULL, kind, parents);
        htab_put(&k->lists, str_of(l->key), l);
    }
    sbuf_free(&key);
    return l->l;
}

uint32_t lookup_match(struct lookup *k, const char *service, const char *spec, enum match_kind kind,
                      bool parents, struct str key, lookup_match_fn fn, void *arg) {
    char *err;
    if (spec[0] == '\0') {
        fn(arg, MATCH_NO);
        return 0;
    }
    if (!matchlist_has_tables(spec)) {
        fn(arg, matchlist_has(list_get(k, spec, kind, parents), key, &err));
        return 0;
    }
    struct pending *p = pending_add(k, arg);
    p->match_fn = fn;
    if (offline(k, p))
        return p->tag;
    struct sbuf *out = ipc_chan_out(k->chan);
    size_t at = ipc_begin(out, LOOKUP_MATCH, p->tag);
    ipc_put_str(out, str_of(service));
    ipc_put_str(out, str_of(spec));
    ipc_put_u32(out, kind);
    ipc_put_u32(out, parents);
    ipc_put_str(out, key);
    ipc_end(out, at);
    ipc_chan_send(k->chan);
    return p->tag;
}

void lookup_cancel(struct lookup *k, uint32_t tag) {
    struct pending *p = tag == 0 ? NULL : itab_del(&k->pending, tag);
    if (p != NULL && p->later.run == NULL)
        free(p);
}
