/*
 * route/alias.c - what a name stands for by aliases(5); see alias.h
 *
 * A query is a graph of addresses (alias_walk.h) that grows while its nodes are looked at one after
 * the other: an address that a local transport delivers is looked up, and what it stands for is put
 * at the end unless it is there already.  So each address is looked up once, and aliases that name
 * each other end.  Runs on the thread of the loop of its struct lookup.  The query owns all that is
 * in it; it frees itself after the asker's callback has returned, or in alias_cancel.
 */
#include "route/alias.h"

#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "mail/addrlist.h"
#include "route/aliased.h"
#include "route/keys.h"
#include "route/route.h"
#include "util/log.h"
#include "util/mem.h"

/* Addresses of one alias with all that it names; and how often they may be named. */
#define ADDRS_MAX 10000U
#define EDGES_MAX (10 * ADDRS_MAX)
#define OWNER     "owner-"
/* Quotes, comments and angles: what is in them ends no item. */
#define BRACKETS "\"\"()<>"

enum alias_step { ALIAS_STEP_CLASS, ALIAS_STEP_NAME, ALIAS_STEP_OWNER, ALIAS_STEP_TAKE };

enum alias_went { ALIAS_ON, ALIAS_ASKING, ALIAS_OVER };

struct alias_query {
    struct config *cfg; /* reference: a reload may drop the asker's */
    struct lookup *lookup;
    struct trace *trace;
    alias_fn fn; /* NULL: cancelled while give was posted */
    void *arg;
    uint32_t at; /* the node of r.graph that is being looked at */
    enum alias_step step;
    uint32_t tag;              /* of the question that is open; 0: none */
    struct route_query *route; /* likewise, where the node goes */
    enum alias_went (*take)(struct alias_query *q, const struct maps_answer *a);
    struct keys keys;
    struct sbuf value; /* what the node stands for */
    struct later give;
    bool posted;
    struct alias_result r;
};

/* -- the parts of a value -- */

bool alias_item_next(struct str *rest, struct str *item) {
    do {
        if (rest->n == 0)
            return false;
        size_t n = str_token_find(*rest, ',', BRACKETS);
        *item = str_trim(str_make(rest->p, n));
        *rest = str_from(*rest, n < rest->n ? n + 1 : n);
    } while (item->n == 0);
    return true;
}

/* Is there a colon that belongs to no address in digits? */
static bool has_colon(struct str item) {
    size_t open = str_token_find(item, '[', BRACKETS), colon = str_token_find(item, ':', BRACKETS);
    return colon < item.n && colon < open;
}

enum alias_kind alias_item_kind(struct str item) {
    struct str text = item.n > 1 && item.p[0] == '"' ? str_from(item, 1) : item;
    switch (text.n == 0 ? '\0' : text.p[0]) {
    case '/':
        return ALIAS_FILE;
    case '|':
        return ALIAS_COMMAND;
    case '~':
        return ALIAS_HOME;
    case '\\':
        return ALIAS_MAILBOX;
    default:
        return str_istarts(text, ":include:") ? ALIAS_INCLUDE
               : has_colon(item)              ? ALIAS_NOTHING
                                              : ALIAS_ADDRESSES;
    }
}

const char *alias_kind_text(enum alias_kind kind) {
    static const char *const texts[] = {
        [ALIAS_FILE] = "delivery to a file is not implemented",
        [ALIAS_COMMAND] = "delivery to a command is not implemented",
        [ALIAS_INCLUDE] = ":include: is not implemented",
        [ALIAS_MAILBOX] = "it asks for a mailbox, and Posthouse has none",
        [ALIAS_HOME] = "delivery to a file is not implemented",
        [ALIAS_NOTHING] = "it is no address"};
    return texts[kind];
}

/* -- the query -- */

void alias_result_free(struct alias_result *r) {
    alias_graph_free(r->graph);
    sbuf_free(&r->why);
    *r = (struct alias_result){0};
}

static void alias_query_free(struct alias_query *q) {
    keys_clear(&q->keys);
    sbuf_free(&q->value);
    alias_result_free(&q->r);
    config_unref(q->cfg);
    free(q);
}

static struct alias_node *node_at(const struct alias_query *q) {
    return q->r.graph->v[q->at];
}

/* The alias that named the node first; of the first node the empty text. */
static const char *named_by(const struct alias_query *q) {
    return q->at == 0 ? "" : q->r.graph->v[node_at(q)->by]->name;
}

static enum alias_went alias_waits(struct alias_query *q, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static enum alias_went alias_waits(struct alias_query *q, const char *fmt, ...) {
    va_list ap;
    q->r.rc = ALIAS_WAITS;
    va_start(ap, fmt);
    sbuf_vprintf(&q->r.why, fmt, ap);
    va_end(ap);
    trace_note(q->trace, "alias", "mail waits (4.3.5): %s", q->r.why.p);
    return ALIAS_OVER;
}

static enum alias_went alias_failed(struct alias_query *q, const char *what) {
    trace_note(q->trace, "alias", "the look-up failed: mail waits (4.3.0)");
    log_warn("local", "%s lookup failure", what);
    q->r.rc = ALIAS_FAILED;
    return ALIAS_OVER;
}

/* -- what an alias stands for -- */

struct alias_taking {
    struct alias_query *q;
    struct str item;
    size_t found; /* addresses in it */
    bool ended;   /* the result is known */
};

static enum alias_went alias_bad_item(struct alias_query *q, struct str item, const char *what) {
    struct sbuf shown = {0};
    sbuf_add_safe(&shown, item);
    enum alias_went went = alias_waits(q, "alias \"%s\": \"%s\": %s", node_at(q)->name,
                                       shown.p == NULL ? "" : shown.p, what);
    sbuf_free(&shown);
    return went;
}

/* The extension that the node has and its alias has not, if it is to be kept; with its delimiter.
 */
static struct str unmatched_extension(const struct alias_query *q) {
    const struct alias_node *node = node_at(q);
    struct str local = addr_local(str_of(node->addr));
    size_t n = strlen(node->name);
    if (!keys_has_word(q->cfg->p.propagate_unmatched_extensions, "alias") || n >= local.n)
        return STR_NONE;
    return str_from(local, n);
}

/* An address in its one form. */
static void take_address(struct alias_taking *t, struct str addr) {
    struct alias_graph *g = t->q->r.graph;
    alias_graph_add(g, t->q->at, addr);
    t->ended = g->n > ADDRS_MAX + 1 || g->edges > EDGES_MAX;
    if (t->ended)
        alias_waits(t->q, "alias \"%s\": more than %u addresses", node_at(t->q)->name, ADDRS_MAX);
}

static void alias_on_address(void *arg, const struct addrlist_item *item) {
    struct alias_taking *t = arg;
    struct sbuf addr = {0};
    if (t->ended)
        return;
    t->found++;
    if (!aliased_address(&t->q->cfg->p, item, unmatched_extension(t->q), &addr) ||
        strchr("/|~\\:", addr.p[0]) != NULL) {
        alias_bad_item(t->q, t->item, alias_kind_text(ALIAS_NOTHING));
        t->ended = true;
    } else {
        take_address(t, sbuf_str(&addr));
    }
    sbuf_free(&addr);
}

static enum alias_went alias_step_take(struct alias_query *q) {
    struct str rest = sbuf_str(&q->value);
    struct alias_taking t = {.q = q};
    size_t items = 0;
    while (!t.ended && alias_item_next(&rest, &t.item)) {
        const char *wrong = alias_kind_text(alias_item_kind(t.item));
        size_t before = t.found;
        if (wrong == NULL) {
            addrlist_each(t.item, alias_on_address, &t);
            wrong = t.found == before ? alias_kind_text(ALIAS_NOTHING) : NULL;
        }
        if (wrong != NULL && !t.ended)
            return alias_bad_item(q, t.item, wrong);
        items++;
    }
    if (t.ended)
        return ALIAS_OVER;
    if (items == 0)
        return alias_waits(q, "alias \"%s\": it stands for nothing", node_at(q)->name);
    q->at++;
    q->step = ALIAS_STEP_CLASS;
    return ALIAS_ON;
}

/* -- looking up -- */

static enum alias_went alias_run(struct alias_query *q, enum alias_went went);

static void alias_give(struct alias_query *q) {
    if (q->fn != NULL)
        q->fn(q->arg, &q->r);
    alias_query_free(q);
}

static void alias_on_answer(void *arg, const struct maps_answer *a) {
    struct alias_query *q = arg;
    q->tag = 0;
    if (alias_run(q, q->take(q, a)) == ALIAS_OVER)
        alias_give(q);
}

/* Asks for q->keys. */
static enum alias_went alias_ask(struct alias_query *q,
                                 enum alias_went (*take)(struct alias_query *q,
                                                         const struct maps_answer *a)) {
    const char *spec = q->cfg->p.alias_maps;
    struct maps_answer now = {0};
    q->take = take;
    if (q->trace != NULL)
        q->tag = lookup_maps_traced(q->lookup, "local", spec, VALUES_JOINED, q->keys.v, q->keys.n,
                                    false, alias_on_answer, q);
    else
        q->tag = lookup_route(q->lookup, "local", spec, VALUES_JOINED, q->keys.v, q->keys.n, &now,
                              alias_on_answer, q);
    if (q->tag != 0)
        return ALIAS_ASKING;
    enum alias_went went = take(q, &now);
    maps_answer_free(&now);
    return went;
}

static void alias_note(struct alias_query *q, const struct maps_answer *a, const char *result) {
    json_t *step = trace_step(q->trace, ALIAS_STEP);
    if (step == NULL)
        return;
    trace_asked(step, a->trace);
    trace_set(step, "result", str_of(result));
    trace_end(q->trace, step);
}

/* owner-NAME: mail to NAME is a list's. */
static enum alias_went take_owner(struct alias_query *q, const struct maps_answer *a) {
    struct sbuf owner = {0};
    if (a->rc == MAP_ERROR)
        return alias_failed(q, "alias_maps");
    q->step = ALIAS_STEP_TAKE;
    if (a->rc == MAP_NOT_FOUND)
        return ALIAS_ON;
    sbuf_printf(&owner, OWNER "%s@%s", node_at(q)->name, q->cfg->p.myorigin);
    node_at(q)->owner = sbuf_take(&owner);
    alias_note(q, a, "a mailing list: reports about what goes on are for its owner");
    return ALIAS_ON;
}

static enum alias_went alias_step_owner(struct alias_query *q) {
    if (!q->cfg->p.owner_request_special) {
        q->step = ALIAS_STEP_TAKE;
        return ALIAS_ON;
    }
    keys_clear(&q->keys);
    keys_add(&q->keys, false, OWNER, str_of(node_at(q)->name), STR_NONE);
    return alias_ask(q, take_owner);
}

static enum alias_went take_name(struct alias_query *q, const struct maps_answer *a) {
    if (a->rc == MAP_ERROR)
        return alias_failed(q, "alias_maps");
    if (a->rc == MAP_NOT_FOUND) {
        alias_note(q, a, ALIAS_NONE);
        return alias_waits(q, "%s%s%sthere is no alias \"%.*s\", and Posthouse has no mailboxes",
                           q->at > 0 ? "alias \"" : "", named_by(q), q->at > 0 ? "\": " : "",
                           STR_FMT(q->keys.v[0].key));
    }
    q->r.is_named = true;
    node_at(q)->name = str_dup(q->keys.v[a->key < q->keys.n ? a->key : 0].key);
    sbuf_reset(&q->value);
    sbuf_add_str(&q->value, sbuf_str(&a->value));
    if (q->trace != NULL) {
        struct sbuf text = {0};
        sbuf_printf(&text, "\"%s\" stands for %.*s", node_at(q)->name,
                    STR_FMT(sbuf_str(&a->value)));
        alias_note(q, a, text.p);
        sbuf_free(&text);
    }
    q->step = ALIAS_STEP_OWNER;
    return ALIAS_ON;
}

/* The names by which a table may have the node, in lower case. */
static void node_keys(struct alias_query *q) {
    char *local = str_dup(addr_local(str_of(node_at(q)->addr)));
    str_lower(local, strlen(local));
    struct str bare = keys_bare(&q->cfg->p, str_of(local));
    keys_clear(&q->keys);
    keys_add(&q->keys, false, "", str_of(local), STR_NONE);
    if (bare.n > 0)
        keys_add(&q->keys, false, "", bare, STR_NONE);
    free(local);
}

static enum alias_went alias_step_name(struct alias_query *q) {
    if (node_at(q)->depth >= ALIAS_DEPTH_MAX)
        return alias_waits(q, "alias \"%s\": more than %u aliases in each other", named_by(q),
                           ALIAS_DEPTH_MAX);
    node_keys(q);
    if (q->cfg->p.alias_maps[0] == '\0')
        return alias_waits(q,
                           "alias_maps is empty, and Posthouse has no mailboxes: there is no "
                           "place for \"%.*s\"",
                           STR_FMT(q->keys.v[0].key));
    return alias_ask(q, take_name);
}

static void alias_on_route(void *arg, const struct route *r) {
    struct alias_query *q = arg;
    enum alias_went went = ALIAS_ON;
    q->route = NULL;
    if (r->rc == ROUTE_FAILED) {
        went = alias_failed(q, "address");
    } else if (r->rc == ROUTE_OK && r->transport->kind == SERVICE_LOCAL) {
        q->step = ALIAS_STEP_NAME;
    } else {
        q->at++; /* it goes on as it is */
    }
    if (alias_run(q, went) == ALIAS_OVER)
        alias_give(q);
}

/* Where does the node go?  (Of the first one that is known.) */
static enum alias_went alias_step_class(struct alias_query *q) {
    if (q->at == 0) {
        q->step = ALIAS_STEP_NAME;
        return ALIAS_ON;
    }
    q->route = route_resolve(q->cfg, q->lookup, STR_NONE, str_of(node_at(q)->addr), NULL,
                             alias_on_route, q);
    return ALIAS_ASKING;
}

/* Every node was looked at.  A name that stands for itself means the mailbox of that name. */
static enum alias_went alias_end(struct alias_query *q) {
    const struct alias_graph *g = q->r.graph;
    uint32_t alias, kid;
    if (alias_graph_names_itself(g, &alias, &kid))
        return alias_waits(q, "alias \"%s\": \"%s\": %s", g->v[alias]->name, g->v[kid]->addr,
                           alias_kind_text(ALIAS_MAILBOX));
    if (!alias_graph_goes_on(g))
        return alias_waits(q,
                           "alias \"%s\": the aliases that it stands for name each other, and "
                           "no address",
                           g->v[0]->name);
    q->r.rc = ALIAS_OK;
    return ALIAS_OVER;
}

static enum alias_went alias_run(struct alias_query *q, enum alias_went went) {
    static enum alias_went (*const steps[])(struct alias_query *) = {
        [ALIAS_STEP_CLASS] = alias_step_class,
        [ALIAS_STEP_NAME] = alias_step_name,
        [ALIAS_STEP_OWNER] = alias_step_owner,
        [ALIAS_STEP_TAKE] = alias_step_take};
    while (went == ALIAS_ON)
        went = q->at == q->r.graph->n ? alias_end(q) : steps[q->step](q);
    return went;
}

static void alias_give_later(struct later *t) {
    alias_give(DL_OWNER(t, struct alias_query, give));
}

struct alias_query *alias_expand(const struct config *cfg, struct lookup *k, struct str rcpt,
                                 struct trace *trace, alias_fn fn, void *arg) {
    struct alias_query *q = MEM_NEW(struct alias_query);
    q->cfg = config_ref((struct config *)(uintptr_t)cfg);
    q->lookup = k;
    q->trace = trace;
    q->fn = fn;
    q->arg = arg;
    q->r.graph = MEM_NEW(struct alias_graph);
    alias_graph_add(q->r.graph, 0, rcpt);
    if (alias_run(q, ALIAS_ON) == ALIAS_OVER) { /* a result that needs no answer comes later, too */
        q->posted = true;
        q->give.run = alias_give_later;
        lookup_later(k, &q->give);
    }
    return q;
}

void alias_cancel(struct alias_query *q) {
    if (q == NULL)
        return;
    if (q->posted) {
        q->fn = NULL;
        return;
    }
    lookup_cancel(q->lookup, q->tag);
    route_cancel(q->route);
    alias_query_free(q);
}
