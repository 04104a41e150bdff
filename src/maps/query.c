/*
 * maps/query.c - asking the lookup process; see query.h
 */
#include "maps/query.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "util/htab.h"
#include "util/ipc_chan.h"
#include "util/log.h"
#include "util/mem.h"

/* Questions wait this long for a lookup process that is being started again. */
#define PATIENCE_MS 5000
#define DEATHS_MAX  2
/* Parsed match lists that are kept. */
#define LISTS_MAX 32U

struct pending {
    uint32_t tag;
    lookup_maps_fn maps_fn; /* one of the two */
    lookup_match_fn match_fn;
    void *arg;
    bool secret;          /* the question has a password */
    bool forget;          /* when it is answered, the memory is empty */
    bool keep;            /* its answer may be given again for a moment */
    struct sbuf question; /* the whole message: asked again if the lookup process goes away */
    int deaths;           /* of lookup processes that had it */
};

/* A match list without tables: its answers depend on its text alone. */
struct list {
    char *spec;
    enum match_kind kind;
    unsigned how;
    struct matchlist *l;
};

struct lookup {
    struct loop *loop;
    struct ipc_chan *chan; /* NULL: no lookup process at the moment */
    struct itab pending;
    uint32_t next_tag;
    struct recent *memory; /* shared; NULL: none */
    struct list lists[LISTS_MAX];
    size_t lists_n, lists_at; /* lists_at: the one that gives way to the next new one */
    uv_timer_t patience;
};

struct lookup *lookup_new(struct loop *l) {
    struct lookup *k = MEM_NEW(struct lookup);
    k->loop = l;
    uv_timer_init(&l->uv, &k->patience);
    k->patience.data = k;
    return k;
}

void lookup_remember(struct lookup *k, struct recent *memory) {
    k->memory = memory;
}

static void pending_free(struct pending *p) {
    sbuf_wipe(&p->question); /* may have a password */
    free(p);
}

/* The question is no longer in k->pending. */
static void pending_answer(struct pending *p, const struct maps_answer *a) {
    if (p->maps_fn != NULL)
        p->maps_fn(p->arg, a);
    else
        p->match_fn(p->arg, match_rc_of(a->rc));
    pending_free(p);
}

/* Answers with an error all questions that were lost with DEATHS_MAX lookup processes, or all.
 * Collects their tags first: an answer may cancel other questions. */
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
            pending_answer(p, &a);
    }
    sbuf_free(&tags);
}

static void on_patience(uv_timer_t *t) {
    fail_some(t->data, true);
}

/* The lookup process said goodbye, or died: a successor will attach. */
static void detach(struct lookup *k) {
    struct ipc_chan *old = k->chan;
    k->chan = NULL;
    ipc_chan_free(old);
    uv_timer_start(&k->patience, on_patience, PATIENCE_MS, 0);
}

/* The lookup process died.  Counts it against every open question, so that one that kills the
 * process is not repeated for ever. */
static void lookup_on_closed(void *arg) {
    struct lookup *k = arg;
    struct pending *p;
    size_t pos = 0;
    detach(k);
    while ((p = itab_next(&k->pending, &pos)) != NULL)
        p->deaths++;
    fail_some(k, false);
}

static void pending_ask(struct lookup *k, struct pending *p) {
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
        s->rc = ipc_get_rc(r);
        s->skipped = ipc_get_u32(r) != 0;
        bool shown = ipc_get_u32(r) != 0;
        struct str value = ipc_get_str(r);
        s->value = shown ? str_dup(value) : NULL;
        s->where = str_dup(ipc_get_str(r));
    }
    return t;
}

/* The fields of an answer; *asked_ms: when it was asked for.  False: malformed. */
static bool decode(struct str fields, struct maps_answer *a, int64_t *asked_ms) {
    struct ipc_reader r = {.rest = fields};
    *asked_ms = (int64_t)ipc_get_u64(&r);
    a->rc = ipc_get_rc(&r);
    a->key = ipc_get_u32(&r);
    a->table = ipc_get_u32(&r);
    struct str value = ipc_get_str(&r), err = ipc_get_str(&r);
    a->several = ipc_get_u32(&r);
    if (!r.bad && r.rest.n > 0)
        a->trace = get_trace(&r);
    sbuf_add_str(&a->value, value);
    a->err = str_dup(err);
    return ipc_done(&r) && a->rc <= MAP_FOUND && a->rc >= MAP_ERROR;
}

/* The question without its head. */
static struct str question_of(const struct sbuf *message) {
    return str_from(sbuf_str(message), sizeof(struct ipc_head));
}

static void on_message(void *arg, const struct ipc_head *head, struct str fields) {
    struct lookup *k = arg;
    struct maps_answer a = {0};
    int64_t asked_ms;
    if (head->type == LOOKUP_BYE) {
        detach(k);
        return;
    }
    if (head->type != LOOKUP_ANSWER || !decode(fields, &a, &asked_ms)) {
        maps_answer_free(&a);
        lookup_on_closed(k);
        return;
    }
    struct pending *p = itab_del(&k->pending, head->tag);
    if (p != NULL && p->forget && k->memory != NULL)
        recent_clear(k->memory);
    if (p != NULL && p->keep && a.rc != MAP_ERROR)
        recent_put(k->memory, question_of(&p->question), fields, asked_ms);
    if (p != NULL) /* else: cancelled */
        pending_answer(p, &a);
    maps_answer_free(&a);
}

static const struct ipc_chan_ops chan_ops = {on_message, lookup_on_closed};

void lookup_attach(struct lookup *k, int fd) {
    struct pending *p;
    size_t pos = 0;
    if (k->chan != NULL)
        detach(k);
    if (k->memory != NULL)
        recent_clear(k->memory);
    uv_timer_stop(&k->patience);
    k->chan = ipc_chan_new(k->loop, fd, &chan_ops, k);
    while ((p = itab_next(&k->pending, &pos)) != NULL)
        pending_ask(k, p);
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

/* The question is complete: it goes to the lookup process, or waits for the next one. */
static uint32_t pending_go(struct lookup *k, struct pending *p) {
    if (k->chan != NULL)
        pending_ask(k, p);
    else if (!uv_is_active((uv_handle_t *)&k->patience))
        uv_timer_start(&k->patience, on_patience, PATIENCE_MS, 0);
    return p->tag;
}

/* Is a fresh answer to the question remembered?  Then it is put in *a. */
static bool question_known(struct lookup *k, const struct sbuf *message, struct maps_answer *a) {
    struct sbuf known = {0};
    int64_t asked_ms;
    bool yes = k->memory != NULL && recent_get(k->memory, question_of(message), &known) &&
               decode(sbuf_str(&known), a, &asked_ms);
    sbuf_free(&known);
    if (!yes)
        maps_answer_free(a);
    return yes;
}

/* The question goes under its tag; message is taken over. */
static uint32_t question_go(struct lookup *k, struct sbuf *message, bool keep,
                            lookup_maps_fn maps_fn, lookup_match_fn match_fn, void *arg) {
    struct pending *p = pending_add(k, arg);
    p->maps_fn = maps_fn;
    p->match_fn = match_fn;
    p->keep = keep && k->memory != NULL;
    p->question = *message;
    memcpy(p->question.p + offsetof(struct ipc_head, tag), &p->tag, sizeof p->tag);
    return pending_go(k, p);
}

enum shown { SHOW_NOTHING, SHOW_ALL, SHOW_NO_VALUES }; /* of a trace */

static void put_question(struct sbuf *out, const char *service, const char *spec,
                         enum map_values values, const struct maps_key *keys, size_t n,
                         enum shown trace) {
    size_t at = ipc_begin(out, trace != SHOW_NOTHING ? LOOKUP_TRACED : LOOKUP_MAPS, 0);
    ipc_put_str(out, str_of(service));
    ipc_put_str(out, str_of(spec));
    ipc_put_values(out, values);
    ipc_put_u32(out, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        ipc_put_str(out, keys[i].key);
        ipc_put_u32(out, keys[i].partial);
    }
    if (trace != SHOW_NOTHING)
        ipc_put_u32(out, trace == SHOW_NO_VALUES);
    ipc_end(out, at);
}

uint32_t lookup_maps(struct lookup *k, const char *service, const char *spec,
                     enum map_values values, const struct maps_key *keys, size_t n,
                     lookup_maps_fn fn, void *arg) {
    struct sbuf out = {0};
    put_question(&out, service, spec, values, keys, n, SHOW_NOTHING);
    return question_go(k, &out, false, fn, NULL, arg);
}

uint32_t lookup_route(struct lookup *k, const char *service, const char *spec,
                      enum map_values values, const struct maps_key *keys, size_t n,
                      struct maps_answer *now, lookup_maps_fn fn, void *arg) {
    struct sbuf out = {0};
    put_question(&out, service, spec, values, keys, n, SHOW_NOTHING);
    if (question_known(k, &out, now)) {
        sbuf_free(&out);
        return 0;
    }
    return question_go(k, &out, true, fn, NULL, arg);
}

uint32_t lookup_maps_traced(struct lookup *k, const char *service, const char *spec,
                            enum map_values values, const struct maps_key *keys, size_t n,
                            bool secret, lookup_maps_fn fn, void *arg) {
    struct sbuf out = {0};
    put_question(&out, service, spec, values, keys, n, secret ? SHOW_NO_VALUES : SHOW_ALL);
    return question_go(k, &out, false, fn, NULL, arg);
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

uint32_t lookup_forget(struct lookup *k, lookup_maps_fn fn, void *arg) {
    struct pending *p = pending_add(k, arg);
    p->maps_fn = fn;
    p->forget = true;
    ipc_end(&p->question, ipc_begin(&p->question, LOOKUP_FORGET, p->tag));
    return pending_go(k, p);
}

/* The parsed list, which stays for a while: the oldest of LISTS_MAX gives way to a new one. */
static struct matchlist *list_get(struct lookup *k, const char *spec, enum match_kind kind,
                                  unsigned how) {
    for (size_t i = 0; i < k->lists_n; i++) {
        const struct list *l = &k->lists[i];
        if (l->kind == kind && l->how == how && strcmp(l->spec, spec) == 0)
            return l->l;
    }
    size_t at = k->lists_n < LISTS_MAX ? k->lists_n++ : k->lists_at++ % LISTS_MAX;
    matchlist_close(k->lists[at].l);
    free(k->lists[at].spec);
    k->lists[at] =
        (struct list){mem_strdup(spec), kind, how, matchlist_open(spec, NULL, kind, how)};
    return k->lists[at].l;
}

static void put_match(struct sbuf *out, const char *service, const char *spec, enum match_kind kind,
                      unsigned how, struct str key) {
    size_t at = ipc_begin(out, LOOKUP_MATCH, 0);
    ipc_put_str(out, str_of(service));
    ipc_put_str(out, str_of(spec));
    ipc_put_u32(out, kind);
    ipc_put_u32(out, how);
    ipc_put_str(out, key);
    ipc_end(out, at);
}

uint32_t lookup_match_now(struct lookup *k, const char *service, const char *spec,
                          enum match_kind kind, unsigned how, struct str key, enum match_rc *now,
                          lookup_match_fn fn, void *arg) {
    struct maps_answer a = {0};
    char *err = NULL;
    *now = MATCH_NO;
    if (spec[0] == '\0')
        return 0;
    if (kind != MATCH_USER && !matchlist_has_tables(spec)) {
        *now = matchlist_has(list_get(k, spec, kind, how), key, &err);
        if (err != NULL)
            log_warn(service, "%s", err);
        free(err);
        return 0;
    }
    struct sbuf out = {0};
    put_match(&out, service, spec, kind, how, key);
    if (question_known(k, &out, &a)) {
        *now = match_rc_of(a.rc);
        maps_answer_free(&a);
        sbuf_free(&out);
        return 0;
    }
    return question_go(k, &out, true, NULL, fn, arg);
}

void lookup_later(struct lookup *k, struct later *later) {
    loop_later(k->loop, later);
}

void lookup_cancel(struct lookup *k, uint32_t tag) {
    struct pending *p = tag == 0 ? NULL : itab_del(&k->pending, tag);
    if (p != NULL)
        pending_free(p);
}
