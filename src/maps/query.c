/*
 * maps/query.c - asking the lookup process; see query.h
 */
#include "maps/query.h"

#include <stdlib.h>
#include <string.h>

#include "util/htab.h"
#include "util/ipc_chan.h"
#include "util/mem.h"

/* Questions wait this long for a lookup process that is being started again. */
#define PATIENCE_MS 5000
#define DEATHS_MAX  2

struct pending {
    uint32_t tag;
    lookup_maps_fn maps_fn; /* one of the two */
    lookup_match_fn match_fn;
    void *arg;
    bool secret;          /* the question has a password */
    struct sbuf question; /* the whole message: asked again if the lookup process goes away */
    int deaths;           /* of lookup processes that had it */
};

struct lookup {
    struct loop *loop;
    struct ipc_chan *chan; /* NULL: no lookup process at the moment */
    struct itab pending;
    uint32_t next_tag;
    struct htab lists; /* spec -> struct list: match lists without tables */
    uv_timer_t patience;
};

struct list {
    char *key;
    struct matchlist *l;
};

struct lookup *lookup_new(struct loop *l) {
    struct lookup *k = MEM_NEW(struct lookup);
    k->loop = l;
    uv_timer_init(&l->uv, &k->patience);
    k->patience.data = k;
    return k;
}

static void pending_free(struct pending *p) {
    sbuf_wipe(&p->question); /* may have a password */
    free(p);
}

static void answer(struct pending *p, const struct maps_answer *a) {
    if (p->maps_fn != NULL)
        p->maps_fn(p->arg, a);
    else
        p->match_fn(p->arg, (enum match_rc)a->rc);
    pending_free(p);
}

/* Those that DEATHS_MAX lookup processes took to the grave, or all.  An answer may cancel others:
 * by their tags. */
static void fail_some(struct lookup *k, bool all) {
    struct sbuf tags = {0};
    struct pending *p;
    size_t pos = 0;
    while ((p = itab_next(&k->pending, &pos)) != NULL)
        if (all || p->deaths >= DEATHS_MAX)
            sbuf_add(&tags, &p->tag, sizeof p->tag);
    for (size_t i = 0; i < tags.n; i += sizeof p->tag) {
        uint32_t tag;
        memcpy(&tag, tags.p + i, sizeof tag);
        struct maps_answer a = {.rc = MAP_ERROR, .err = "the lookup process is not running"};
        if ((p = itab_del(&k->pending, tag)) != NULL)
            answer(p, &a);
    }
    sbuf_free(&tags);
}

static void on_patience(uv_timer_t *t) {
    fail_some(t->data, true);
}

/* Whoever was asked goes in order: its place is taken soon. */
static void detach(struct lookup *k) {
    struct ipc_chan *old = k->chan;
    k->chan = NULL;
    ipc_chan_free(old);
    uv_timer_start(&k->patience, on_patience, PATIENCE_MS, 0);
}

/* It died: a question that ends whoever is asked is not asked for ever. */
static void on_closed(void *arg) {
    struct lookup *k = arg;
    struct pending *p;
    size_t pos = 0;
    detach(k);
    while ((p = itab_next(&k->pending, &pos)) != NULL)
        p->deaths++;
    fail_some(k, false);
}

static void ask(struct lookup *k, struct pending *p) {
    sbuf_add_str(ipc_chan_out(k->chan), sbuf_str(&p->question));
    if (p->secret)
        ipc_chan_send_secret(k->chan);
    else
        ipc_chan_send(k->chan);
}

/* What follows an answer with a trace. */
static struct maps_trace *get_trace(struct ipc_reader *r) {
    struct maps_trace *t = MEM_NEW(struct maps_trace);
    for (uint32_t n = ipc_get_u32(r); n > 0 && !r->bad; n--) {
        struct str table = ipc_get_str(r), key = ipc_get_str(r);
        struct maps_step *s = maps_trace_add(t, table, key);
        s->rc = (enum map_rc)((int)ipc_get_u32(r) - 1);
        s->skipped = ipc_get_u32(r) != 0;
        bool shown = ipc_get_u32(r) != 0;
        struct str value = ipc_get_str(r);
        s->value = shown ? str_dup(value) : NULL;
        s->where = str_dup(ipc_get_str(r));
    }
    return t;
}

static void on_message(void *arg, const struct ipc_head *head, struct str fields) {
    struct lookup *k = arg;
    struct ipc_reader r = {.rest = fields};
    struct maps_answer a = {0};
    if (head->type == LOOKUP_BYE) {
        detach(k);
        return;
    }
    a.rc = (enum map_rc)((int)ipc_get_u32(&r) - 1);
    a.key = ipc_get_u32(&r);
    a.table = ipc_get_u32(&r);
    struct str value = ipc_get_str(&r), err = ipc_get_str(&r);
    if (!r.bad && r.rest.n > 0)
        a.trace = get_trace(&r);
    if (head->type != LOOKUP_ANSWER || !ipc_done(&r) || a.rc > MAP_FOUND || a.rc < MAP_ERROR) {
        maps_trace_free(a.trace);
        on_closed(k);
        return;
    }
    struct pending *p = itab_del(&k->pending, head->tag);
    if (p == NULL) { /* cancelled */
        maps_trace_free(a.trace);
        return;
    }
    sbuf_add_str(&a.value, value);
    a.err = str_dup(err);
    answer(p, &a);
    maps_answer_free(&a);
}

static const struct ipc_chan_ops chan_ops = {on_message, on_closed};

void lookup_attach(struct lookup *k, int fd) {
    struct pending *p;
    size_t pos = 0;
    if (k->chan != NULL)
        detach(k);
    uv_timer_stop(&k->patience);
    k->chan = ipc_chan_new(k->loop, fd, &chan_ops, k);
    while ((p = itab_next(&k->pending, &pos)) != NULL)
        ask(k, p);
}

static struct pending *pending_add(struct lookup *k, void *arg) {
    struct pending *p = MEM_NEW(struct pending);
    if (++k->next_tag == 0)
        k->next_tag = 1;
    p->tag = k->next_tag;
    p->arg = arg;
    itab_put(&k->pending, p->tag, p);
    return p;
}

/* The question is complete: asked now, or when there is somebody to ask. */
static uint32_t pending_go(struct lookup *k, struct pending *p) {
    if (k->chan != NULL)
        ask(k, p);
    else if (!uv_is_active((uv_handle_t *)&k->patience))
        uv_timer_start(&k->patience, on_patience, PATIENCE_MS, 0);
    return p->tag;
}

static uint32_t ask_maps(struct lookup *k, const char *service, const char *spec,
                         const struct maps_key *keys, size_t n, const bool *secret,
                         lookup_maps_fn fn, void *arg) {
    struct pending *p = pending_add(k, arg);
    p->maps_fn = fn;
    struct sbuf *out = &p->question;
    size_t at = ipc_begin(out, secret == NULL ? LOOKUP_MAPS : LOOKUP_TRACED, p->tag);
    ipc_put_str(out, str_of(service));
    ipc_put_str(out, str_of(spec));
    ipc_put_u32(out, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        ipc_put_str(out, keys[i].key);
        ipc_put_u32(out, keys[i].partial);
    }
    if (secret != NULL)
        ipc_put_u32(out, *secret);
    ipc_end(out, at);
    return pending_go(k, p);
}

uint32_t lookup_maps(struct lookup *k, const char *service, const char *spec,
                     const struct maps_key *keys, size_t n, lookup_maps_fn fn, void *arg) {
    return ask_maps(k, service, spec, keys, n, NULL, fn, arg);
}

uint32_t lookup_maps_traced(struct lookup *k, const char *service, const char *spec,
                            const struct maps_key *keys, size_t n, bool secret, lookup_maps_fn fn,
                            void *arg) {
    return ask_maps(k, service, spec, keys, n, &secret, fn, arg);
}

uint32_t lookup_verify(struct lookup *k, struct str user, struct str password, bool secure,
                       const char *client, lookup_maps_fn fn, void *arg) {
    struct pending *p = pending_add(k, arg);
    p->maps_fn = fn;
    p->secret = true;
    struct sbuf *out = &p->question;
    size_t at = ipc_begin(out, LOOKUP_VERIFY, p->tag);
    ipc_put_str(out, STR_LIT("smtpd"));
    ipc_put_str(out, user);
    ipc_put_str(out, password);
    ipc_put_u32(out, secure);
    ipc_put_str(out, str_of(client));
    ipc_end(out, at);
    return pending_go(k, p);
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
    struct sbuf *out = &p->question;
    size_t at = ipc_begin(out, LOOKUP_MATCH, p->tag);
    ipc_put_str(out, str_of(service));
    ipc_put_str(out, str_of(spec));
    ipc_put_u32(out, kind);
    ipc_put_u32(out, parents);
    ipc_put_str(out, key);
    ipc_end(out, at);
    return pending_go(k, p);
}

void lookup_cancel(struct lookup *k, uint32_t tag) {
    struct pending *p = tag == 0 ? NULL : itab_del(&k->pending, tag);
    if (p != NULL)
        pending_free(p);
}
