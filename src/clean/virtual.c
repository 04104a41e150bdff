/*
 * clean/virtual.c - what recipients stand for by virtual(5); see virtual.h
 *
 * One recipient after the other.  What it stands for is a list of names that begins with itself:
 * each is looked up until no table has it, the first address of what is found taking its place, the
 * others going to the end.  The query owns all that is in it, and frees itself after its asker's
 * function has returned, or in virtual_cancel.
 *
 * Who makes aliases is often no administrator of this machine, and answers that are remembered cost
 * no waiting: after so many steps the loop serves others first.
 */
#include "clean/virtual.h"

#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "mail/addrlist.h"
#include "mail/held.h"
#include "route/aliased.h"
#include "route/keys.h"
#include "route/local.h"
#include "util/kset.h"
#include "util/log.h"
#include "util/mem.h"

/* Look-ups of one explanation: names whose aliases lead to aliases may take a million. */
#define LOOKS_SHOWN_MAX 5000U

enum virtual_went { VIRTUAL_ON, VIRTUAL_ASKING, VIRTUAL_OVER };

/* Steps at a time; the loop has a few such times in one turn (loop_later). */
#define STEPS 50U
/* A name that has led to more than the limit is looked up so often all the same: as with Postfix, a
 * table that fails says more than the limit.  Names that lead to each other have no end. */
#define ROUNDS_BEYOND 10

/* Texts that grow, each in memory of its own. */
struct names {
    char **v;
    uint32_t n, cap;
};

struct virtual_query {
    struct config *cfg; /* reference: a reload may drop the asker's */
    struct lookup *lookup;
    const char *qid;
    struct trace *trace;
    virtual_fn fn; /* NULL: cancelled while later was posted */
    void *arg;
    const struct rcpt *given;
    uint32_t n_given, at; /* given[at] is being expanded */
    struct names names;   /* what it stands for so far */
    uint32_t name;        /* the one that is looked up */
    int64_t rounds;       /* times that it was replaced */
    struct kset selves;   /* what stands for itself, of those that given[at] stands for */
    struct names own;     /* the texts of selves */
    struct kset taken;    /* numbers in r.rcpts, from 1 */
    struct names kept;    /* texts of the result */
    uint32_t cap;         /* room of r.rcpts */
    uint32_t looks;       /* of an explanation */
    uint32_t tag;         /* of the question that is open; 0: none */
    struct keys keys;     /* of it */
    bool finds;           /* virtual_find: one answer is all */
    struct later later;   /* the result is given, or the next turn begins */
    bool posted;          /* later is */
    bool bounded;         /* virtual_bound was called */
    size_t held;          /* bytes of the result, counted with the envelopes of queued mail */
    struct virtual_result r;
};

bool virtual_is_idle(const struct config *cfg, const struct params *p) {
    return cfg->p.virtual_alias_maps[0] == '\0' ||
           (p != NULL && keys_has_word(p->receive_override_options, "no_address_mappings"));
}

/* -- texts -- */

static char *names_add(struct names *names, struct str text) {
    if (names->n == names->cap) {
        names->cap = names->cap == 0 ? 8 : names->cap * 2;
        names->v = mem_realloc(names->v, names->cap * sizeof *names->v);
    }
    return names->v[names->n++] = str_dup(text);
}

static void names_clear(struct names *names) {
    for (uint32_t i = 0; i < names->n; i++)
        free(names->v[i]);
    free(names->v);
    *names = (struct names){0};
}

static bool is_that_text(const void *val, const void *key) {
    return str_ieq(str_of(val), *(const struct str *)key);
}

/* -- the query -- */

static void virtual_free(struct virtual_query *q) {
    held_remove(q->held);
    keys_clear(&q->keys);
    names_clear(&q->names);
    names_clear(&q->own);
    names_clear(&q->kept);
    kset_free(&q->selves);
    kset_free(&q->taken);
    free(q->r.rcpts);
    config_unref(q->cfg);
    free(q);
}

static enum virtual_went virtual_ends(struct virtual_query *q, enum virtual_rc rc, const char *fmt,
                                      ...) __attribute__((format(printf, 3, 4)));

static enum virtual_went virtual_ends(struct virtual_query *q, enum virtual_rc rc, const char *fmt,
                                      ...) {
    struct sbuf why = {0};
    va_list ap;
    va_start(ap, fmt);
    sbuf_vprintf(&why, fmt, ap);
    va_end(ap);
    if (q->trace != NULL)
        trace_note(q->trace, "virtual_alias_maps", "%s", why.p);
    else
        log_warn("cleanup", "%s: %s -- message not accepted, try again later", q->qid, why.p);
    sbuf_free(&why);
    q->r.rc = rc;
    return VIRTUAL_OVER;
}

static char *virtual_name(const struct virtual_query *q) {
    return q->names.v[q->name];
}

/* -- the result -- */

/* Such a result is made whatever others hold. */
#define HELD_SMALL 65536U

static void virtual_hold(struct virtual_query *q, size_t n) {
    q->held += n;
    held_add(n);
}

static bool is_crowded_out(const struct virtual_query *q) {
    return q->bounded && q->held > HELD_SMALL && held_is_full(q->cfg->p.queue_memory_limit);
}

/* The address that the client named. */
static struct str rcpt_named(const struct rcpt *r) {
    return r->orig.n > 0 ? r->orig : r->addr;
}

/* What goes on is one recipient if it is the same, and came of the same
 * (enable_original_recipient). */
static bool rcpt_is_taken(const void *number, const void *query) {
    const struct virtual_query *q = query;
    const struct rcpt *had = &q->r.rcpts[(uintptr_t)number - 1], *now = &q->r.rcpts[q->r.n];
    if (had->expanded != now->expanded || !str_ieq(had->addr, now->addr) ||
        !str_eq(had->owner, now->owner))
        return false;
    return !q->cfg->p.enable_original_recipient ||
           (had->notify == now->notify && str_ieq(had->orcpt, now->orcpt) &&
            str_ieq(rcpt_named(had), rcpt_named(now)));
}

/* All that rcpt_is_taken compares: a thousand names may stand for the same thousand. */
static uint64_t rcpt_hash(const struct virtual_query *q, const struct rcpt *r) {
    uint64_t hash = kset_mix_folded(KSET_SEED + r->expanded, r->addr);
    if (!q->cfg->p.enable_original_recipient)
        return hash;
    hash = kset_mix_folded(hash + r->notify, r->orcpt);
    return kset_mix_folded(hash, rcpt_named(r));
}

static void virtual_keep(struct virtual_query *q, struct rcpt rcpt) {
    if (q->r.n == q->cap) {
        q->cap = q->cap == 0 ? 8 : q->cap * 2;
        q->r.rcpts = mem_realloc(q->r.rcpts, q->cap * sizeof *q->r.rcpts);
    }
    q->r.rcpts[q->r.n] = rcpt;
    uint64_t hash = rcpt_hash(q, &rcpt);
    if (kset_get(&q->taken, hash, rcpt_is_taken, q) == NULL)
        kset_add(&q->taken, hash, (void *)(uintptr_t)++q->r.n);
}

/* The sender is told that it was expanded here, and not of each that it stands for (RFC 3461
 * section 5.2.7). */
static uint32_t notify_of_expanded(uint32_t notify) {
    uint32_t rest = notify & ~(uint32_t)NOTIFY_SUCCESS;
    return notify != 0 && rest == 0 ? NOTIFY_NEVER : rest;
}

/* Every name of the recipient was looked up. */
static enum virtual_went rcpt_ends(struct virtual_query *q) {
    const struct rcpt *given = &q->given[q->at];
    bool same = q->names.n == 1 && str_eq_c(given->addr, q->names.v[0]);
    struct rcpt like = *given;
    if (!same && (given->notify & NOTIFY_SUCCESS) != 0) {
        like.expanded = true;
        virtual_keep(q, like);
        like.expanded = false;
    }
    if (!same)
        like.notify = notify_of_expanded(given->notify);
    for (uint32_t i = 0; i < q->names.n; i++) {
        like.addr = str_of(names_add(&q->kept, str_of(q->names.v[i])));
        if (given->orig.n == 0)
            like.orig = str_eq(like.addr, given->addr) ? STR_NONE : given->addr;
        virtual_keep(q, like);
        virtual_hold(q, sizeof like + like.addr.n);
    }
    names_clear(&q->names);
    names_clear(&q->own); /* the next one that leads here gets all of it, with its own wishes */
    kset_free(&q->selves);
    q->at++;
    return VIRTUAL_ON;
}

/* -- what a name stands for -- */

/* More names than virtual_alias_expansion_limit are none that the message will go to. */
static bool is_beyond_limit(const struct virtual_query *q) {
    return (int64_t)q->names.n > q->cfg->p.virtual_alias_expansion_limit;
}

struct virtual_taking {
    struct virtual_query *q;
    struct str extension; /* that the name has, and the key by which it was found has not */
    char *self;           /* the name, which is being replaced; owned */
    uint32_t found;       /* addresses */
    bool ended;           /* the result is known */
};

static void virtual_take(struct virtual_taking *t, struct str addr) {
    struct virtual_query *q = t->q;
    struct str self = str_of(t->self);
    int64_t most = q->cfg->p.virtual_alias_address_length_limit;
    if ((int64_t)addr.n > most) {
        virtual_ends(q, VIRTUAL_ENDLESS, "unreasonable virtual_alias_maps result %.300s...",
                     addr.p);
        t->ended = true;
        return;
    }
    if (t->found++ == 0) {
        free(virtual_name(q));
        q->names.v[q->name] = str_dup(addr);
    } else if (!is_beyond_limit(q)) {
        names_add(&q->names, addr);
    }
    uint64_t hash = kset_mix_folded(KSET_SEED, self);
    if (str_ieq(addr, self) && kset_get(&q->selves, hash, is_that_text, &self) == NULL)
        kset_add(&q->selves, hash, names_add(&q->own, self));
}

static void virtual_on_address(void *arg, const struct addrlist_item *item) {
    struct virtual_taking *t = arg;
    struct sbuf addr = {0};
    if (!t->ended && aliased_address(&t->q->cfg->p, item, t->extension, &addr))
        virtual_take(t, sbuf_str(&addr));
    sbuf_free(&addr);
}

/* "@other.example": the same local part there. */
static void take_same_user(struct virtual_taking *t, struct str value) {
    struct sbuf whole = {0}, addr = {0};
    struct str local = addr_local(str_of(t->self));
    sbuf_add_str(&whole, local);
    sbuf_add_str(&whole, value);
    struct addrlist_item item = {.addr = sbuf_str(&whole), .has_domain = true};
    if (aliased_address(&t->q->cfg->p, &item, STR_NONE, &addr))
        virtual_take(t, sbuf_str(&addr));
    sbuf_free(&whole);
    sbuf_free(&addr);
}

/* The extension of the name, if it was found without. */
static struct str extension_of(const struct virtual_query *q, const struct maps_answer *a) {
    struct str local = addr_local(str_of(virtual_name(q))), bare = keys_bare(&q->cfg->p, local);
    struct str key = a->key < q->keys.n ? q->keys.v[a->key].key : STR_NONE;
    bool without = bare.n > 0 && str_ieq(addr_local(key), bare);
    if (!without || !keys_has_word(q->cfg->p.propagate_unmatched_extensions, "virtual"))
        return STR_NONE;
    return str_from(local, bare.n);
}

static enum virtual_went virtual_found(struct virtual_query *q, const struct maps_answer *a) {
    struct sbuf extension = {0};
    struct str value = str_trim(sbuf_str(&a->value));
    sbuf_add_str(&extension, extension_of(q, a)); /* the name it is of goes */
    struct virtual_taking t = {q, sbuf_str(&extension), str_dup(str_of(virtual_name(q))), 0, false};
    if (value.n > 0 && value.p[0] == '@')
        take_same_user(&t, value);
    else
        addrlist_each(value, virtual_on_address, &t);
    bool none = !t.ended && t.found == 0;
    if (none)
        virtual_ends(q, VIRTUAL_FAILED, "virtual_alias_maps: \"%s\" stands for no address", t.self);
    free(t.self);
    sbuf_free(&extension);
    return none || t.ended ? VIRTUAL_OVER : VIRTUAL_ON;
}

/* -- looking up -- */

static enum virtual_went virtual_run(struct virtual_query *q, enum virtual_went went);
static void virtual_go(struct virtual_query *q, enum virtual_went went);

static void virtual_give(struct virtual_query *q) {
    if (q->fn != NULL)
        q->fn(q->arg, &q->r);
    virtual_free(q);
}

/* Of an explanation: what was asked for the name, and found. */
static void virtual_note(const struct virtual_query *q, const struct maps_answer *a) {
    json_t *step = trace_step(q->trace, "virtual_alias_maps");
    if (step == NULL)
        return;
    trace_asked(step, a->trace);
    if (a->rc == MAP_FOUND) {
        struct str value = str_trim(sbuf_str(&a->value));
        trace_setf(step, "result", "%s stands for %.*s", virtual_name(q), STR_FMT(value));
        if (!str_ieq(value, str_of(virtual_name(q))))
            json_object_set_new(step, TRACE_STANDS, json_true());
    } else {
        trace_setf(step, "result", "%s: no alias", virtual_name(q));
    }
    trace_end(q->trace, step);
}

static enum virtual_went virtual_answer(struct virtual_query *q, const struct maps_answer *a) {
    if (a->rc == MAP_ERROR)
        return virtual_ends(q, VIRTUAL_FAILED, "virtual_alias_maps map lookup problem for %s",
                            virtual_name(q));
    virtual_note(q, a);
    if (q->finds) {
        q->r.found = a->rc == MAP_FOUND;
        q->r.rc = VIRTUAL_OK;
        return VIRTUAL_OVER;
    }
    if (a->rc == MAP_FOUND) {
        q->rounds++;
        q->r.found = true;
        return virtual_found(q, a);
    }
    q->name++;
    q->rounds = 0;
    return VIRTUAL_ON;
}

static void virtual_on_answer(void *arg, const struct maps_answer *a) {
    struct virtual_query *q = arg;
    q->tag = 0;
    virtual_go(q, virtual_answer(q, a));
}

static enum virtual_went ask_table(struct virtual_query *q, enum match_rc local) {
    struct maps_answer now = {0};
    struct str name = str_of(virtual_name(q));
    if (local == MATCH_ERROR)
        return virtual_ends(q, VIRTUAL_FAILED, "lookup problem for the domain of %s",
                            virtual_name(q));
    keys_clear(&q->keys);
    (local == MATCH_YES ? keys_local_sender : keys_sender)(&q->keys, &q->cfg->p, name);
    if (q->trace != NULL)
        q->tag =
            lookup_maps_traced(q->lookup, "cleanup", q->cfg->p.virtual_alias_maps, VALUES_JOINED,
                               q->keys.v, q->keys.n, false, virtual_on_answer, q);
    else
        q->tag = lookup_route(q->lookup, "cleanup", q->cfg->p.virtual_alias_maps, VALUES_JOINED,
                              q->keys.v, q->keys.n, &now, virtual_on_answer, q);
    if (q->tag != 0)
        return VIRTUAL_ASKING;
    enum virtual_went went = virtual_answer(q, &now);
    maps_answer_free(&now);
    return went;
}

static void virtual_on_domain(void *arg, enum match_rc rc) {
    struct virtual_query *q = arg;
    q->tag = 0;
    virtual_go(q, ask_table(q, rc));
}

/* Looks the name up, unless it stands for itself. */
static enum virtual_went virtual_look(struct virtual_query *q) {
    const struct params *p = &q->cfg->p;
    struct str name = str_of(virtual_name(q));
    enum match_rc now;
    bool itself =
        kset_get(&q->selves, kset_mix_folded(KSET_SEED, name), is_that_text, &name) != NULL;
    if (itself || p->virtual_alias_maps[0] == '\0') {
        q->name++;
        q->rounds = 0;
        return VIRTUAL_ON;
    }
    if (q->trace != NULL && q->looks++ == LOOKS_SHOWN_MAX)
        return virtual_ends(q, VIRTUAL_UNSHOWN, "more than %u look-ups are not shown",
                            LOOKS_SHOWN_MAX);
    if (q->rounds >= p->virtual_alias_recursion_limit)
        return virtual_ends(q, VIRTUAL_ENDLESS,
                            "unreasonable virtual_alias_maps map nesting for %.*s",
                            STR_FMT(q->given[q->at].addr));
    q->tag = local_sender_now(q->lookup, "cleanup", q->cfg, p, name, &now, virtual_on_domain, q);
    return q->tag != 0 ? VIRTUAL_ASKING : ask_table(q, now);
}

static enum virtual_went virtual_step(struct virtual_query *q) {
    if (q->r.n > ENVELOPE_RCPTS_MAX) /* the next start would not believe the envelope */
        return virtual_ends(q, VIRTUAL_ENDLESS, "more than %u recipients", ENVELOPE_RCPTS_MAX);
    if (q->at == q->n_given) {
        q->r.rc = VIRTUAL_OK;
        return VIRTUAL_OVER;
    }
    if (q->names.n == 0) {
        if (is_crowded_out(q))
            return virtual_ends(q, VIRTUAL_FULL,
                                "what virtual_alias_maps gives takes too much memory");
        names_add(&q->names, q->given[q->at].addr);
        q->name = 0;
        q->rounds = 0;
    }
    if (q->name == q->names.n)
        return rcpt_ends(q);
    if ((q->rounds == 0 || q->rounds > ROUNDS_BEYOND) && is_beyond_limit(q))
        return virtual_ends(q, VIRTUAL_ENDLESS,
                            "unreasonable virtual_alias_maps map expansion size for %.*s",
                            STR_FMT(q->given[q->at].addr));
    return virtual_look(q);
}

static enum virtual_went virtual_run(struct virtual_query *q, enum virtual_went went) {
    for (unsigned i = 0; went == VIRTUAL_ON && i < STEPS; i++)
        went = virtual_step(q);
    return went;
}

static void virtual_turn(struct later *t) {
    struct virtual_query *q = DL_OWNER(t, struct virtual_query, later);
    q->posted = false;
    if (q->fn == NULL)
        virtual_free(q);
    else
        virtual_go(q, VIRTUAL_ON);
}

static void virtual_post(struct virtual_query *q, void (*run)(struct later *t)) {
    q->posted = true;
    q->later.run = run;
    lookup_later(q->lookup, &q->later);
}

/* From the loop; q may be gone when this returns. */
static void virtual_go(struct virtual_query *q, enum virtual_went went) {
    went = virtual_run(q, went);
    if (went == VIRTUAL_OVER)
        virtual_give(q);
    else if (went == VIRTUAL_ON)
        virtual_post(q, virtual_turn);
}

static void virtual_give_later(struct later *t) {
    virtual_give(DL_OWNER(t, struct virtual_query, later));
}

static struct virtual_query *virtual_new(const struct config *cfg, struct lookup *k,
                                         const char *qid, virtual_fn fn, void *arg) {
    struct virtual_query *q = MEM_NEW(struct virtual_query);
    q->cfg = config_ref((struct config *)(uintptr_t)cfg);
    q->lookup = k;
    q->qid = qid;
    q->fn = fn;
    q->arg = arg;
    return q;
}

static struct virtual_query *virtual_begin(struct virtual_query *q, const struct rcpt *rcpts,
                                           uint32_t n) {
    q->given = rcpts;
    q->n_given = n;
    enum virtual_went went = virtual_run(q, VIRTUAL_ON);
    if (went == VIRTUAL_ON)
        virtual_post(q, virtual_turn);
    else if (went == VIRTUAL_OVER) /* a known result comes later, too */
        virtual_post(q, virtual_give_later);
    return q;
}

struct virtual_query *virtual_expand(const struct config *cfg, struct lookup *k, const char *qid,
                                     const struct rcpt *rcpts, uint32_t n, struct trace *trace,
                                     virtual_fn fn, void *arg) {
    struct virtual_query *q = virtual_new(cfg, k, qid, fn, arg);
    q->trace = trace;
    return virtual_begin(q, rcpts, n);
}

struct virtual_query *virtual_find(const struct config *cfg, struct lookup *k, const char *qid,
                                   const struct rcpt *rcpt, virtual_fn fn, void *arg) {
    struct virtual_query *q = virtual_new(cfg, k, qid, fn, arg);
    q->finds = true;
    return virtual_begin(q, rcpt, 1);
}

void virtual_bound(struct virtual_query *q) {
    q->bounded = true;
}

void virtual_cancel(struct virtual_query *q) {
    if (q == NULL)
        return;
    if (q->posted) {
        q->fn = NULL;
        return;
    }
    lookup_cancel(q->lookup, q->tag);
    virtual_free(q);
}
