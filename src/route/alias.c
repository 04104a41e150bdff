/*
 * route/alias.c - what a name stands for by aliases(5); see alias.h
 *
 * A query is a list of addresses that grows while it is walked: an address that a local transport
 * delivers is looked up, and what it stands for is put at the end of the list unless it is there
 * already.  So each address is met once, and aliases that name each other end.  Runs on the thread
 * of the loop of its struct lookup.  The query owns all that is in it; it frees itself after the
 * asker's callback has returned, or in alias_cancel.
 */
#include "route/alias.h"

#include <stdlib.h>
#include <string.h>

#include "mail/address.h"
#include "mail/addrlist.h"
#include "route/keys.h"
#include "route/route.h"
#include "util/kset.h"
#include "util/log.h"
#include "util/mem.h"

/* As local(8) has it: aliases in aliases, which only a table of patterns can make endless. */
#define DEPTH_MAX 100U
/* Addresses of one alias with all that it names. */
#define ADDRS_MAX 10000U
#define OWNER     "owner-"

struct alias_entry {
    char *addr;
    char *name; /* of the alias that named it; NULL: the first address */
    uint32_t depth;
    bool goes_on; /* no alias of ours: it is a part of the result */
};

enum alias_step { ALIAS_STEP_CLASS, ALIAS_STEP_NAME, ALIAS_STEP_OWNER, ALIAS_STEP_TAKE };

enum alias_went { ALIAS_ON, ALIAS_ASKING, ALIAS_OVER };

struct alias_query {
    struct config *cfg; /* reference: a reload may drop the asker's */
    struct lookup *lookup;
    struct trace *trace;
    alias_fn fn; /* NULL: cancelled while give was posted */
    void *arg;
    struct alias_entry **v;
    size_t n, cap;
    struct kset seen; /* struct alias_entry, by address */
    size_t at;        /* the entry that is being looked at */
    enum alias_step step;
    uint32_t tag;              /* of the question that is open; 0: none */
    struct route_query *route; /* likewise, where the entry goes */
    enum alias_went (*take)(struct alias_query *q, const struct maps_answer *a);
    struct keys keys;
    struct sbuf value; /* what the entry at stands for */
    struct sbuf name;  /* the key that had it */
    struct later give;
    bool posted;
    struct alias_result r;
};

/* -- the parts of a value -- */

/* The end of what begins at i: a quoted string, a comment, an escaped character, or one byte. */
static size_t alias_token_end(struct str s, size_t i) {
    char close = s.p[i] == '"' ? '"' : s.p[i] == '(' ? ')' : s.p[i] == '<' ? '>' : '\0';
    if (s.p[i] == '\\')
        return i + 2 < s.n ? i + 2 : s.n;
    if (close == '\0')
        return i + 1;
    for (i++; i < s.n && s.p[i] != close; i++)
        if (s.p[i] == '\\')
            i++;
    return i + 1 < s.n ? i + 1 : s.n;
}

/* The first c outside of quotes, comments and angles, or s.n. */
static size_t alias_token_find(struct str s, char c) {
    size_t i = 0;
    while (i < s.n && s.p[i] != c)
        i = alias_token_end(s, i);
    return i;
}

bool alias_item_next(struct str *rest, struct str *item) {
    do {
        if (rest->n == 0)
            return false;
        size_t n = alias_token_find(*rest, ',');
        *item = str_trim(str_make(rest->p, n));
        *rest = str_from(*rest, n < rest->n ? n + 1 : n);
    } while (item->n == 0);
    return true;
}

/* Is there a colon that belongs to no address in digits? */
static bool has_colon(struct str item) {
    size_t open = alias_token_find(item, '['), colon = alias_token_find(item, ':');
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

struct str alias_bare(const struct params *p, struct str local) {
    static const char *const whole[] = {"mailer-daemon", "postmaster", "double-bounce"};
    const char *delimiters = p->recipient_delimiter;
    struct str end = local.n > 8 ? str_from(local, local.n - 8) : STR_NONE;
    for (size_t i = 0; i < 3; i++)
        if (str_ieq_c(local, whole[i]))
            return STR_NONE;
    if (delimiters[0] == '\0' || (p->owner_request_special && strchr(delimiters, '-') != NULL &&
                                  (str_istarts(local, OWNER) || str_ieq_c(end, "-request"))))
        return STR_NONE;
    return addr_strip_ext(local, delimiters);
}

/* -- the query -- */

void alias_result_free(struct alias_result *r) {
    for (size_t i = 0; r->addrs != NULL && i < r->n; i++)
        free(r->addrs[i]);
    free(r->addrs);
    free(r->owner);
    sbuf_free(&r->why);
    *r = (struct alias_result){0};
}

static void alias_query_free(struct alias_query *q) {
    for (size_t i = 0; i < q->n; i++) {
        free(q->v[i]->addr);
        free(q->v[i]->name);
        free(q->v[i]);
    }
    free(q->v);
    kset_free(&q->seen);
    keys_clear(&q->keys);
    sbuf_free(&q->value);
    sbuf_free(&q->name);
    alias_result_free(&q->r);
    config_unref(q->cfg);
    free(q);
}

static struct alias_entry *entry_at(const struct alias_query *q) {
    return q->v[q->at];
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

static bool is_same_address(const void *val, const void *key) {
    return str_ieq(str_of(((const struct alias_entry *)val)->addr), *(const struct str *)key);
}

static void alias_entry_add(struct alias_query *q, struct str addr, uint64_t hash) {
    struct alias_entry *e = MEM_NEW(struct alias_entry);
    e->addr = str_dup(addr);
    if (q->n > 0) {
        e->name = str_dup(sbuf_str(&q->name));
        e->depth = entry_at(q)->depth + 1;
    }
    if (q->n == q->cap) {
        q->cap = q->cap == 0 ? 8 : q->cap * 2;
        q->v = mem_realloc(q->v, q->cap * sizeof(struct alias_entry *));
    }
    q->v[q->n++] = e;
    kset_add(&q->seen, hash, e);
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
    enum alias_went went =
        alias_waits(q, "alias \"%s\": \"%s\": %s", q->name.p, shown.p == NULL ? "" : shown.p, what);
    sbuf_free(&shown);
    return went;
}

/* As local(8) completes it; the external form. */
static void complete_address(const struct params *p, const struct addrlist_item *item,
                             struct sbuf *out) {
    struct sbuf whole = {0};
    sbuf_add_str(&whole, item->addr);
    if (item->addr.n == 0) /* "<>" */
        sbuf_add_c(&whole, p->empty_address_recipient);
    if (!item->has_domain)
        sbuf_printf(&whole, "@%s", p->myorigin);
    struct str domain = addr_domain(sbuf_str(&whole));
    if (p->append_dot_mydomain && domain.n > 0 && domain.p[0] != '[' && str_chr(domain, '.') < 0)
        sbuf_printf(&whole, ".%s", p->mydomain);
    sbuf_add_ch(out, '<');
    addr_external(out, sbuf_str(&whole));
    sbuf_add_ch(out, '>');
    sbuf_free(&whole);
}

/* The extension that the entry has and its alias has not, if it is to be kept; with its delimiter.
 */
static struct str unmatched_extension(const struct alias_query *q) {
    struct str local = addr_local(str_of(entry_at(q)->addr));
    if (!keys_has_word(q->cfg->p.propagate_unmatched_extensions, "alias") || q->name.n >= local.n)
        return STR_NONE;
    return str_from(local, q->name.n);
}

static void add_extension(struct sbuf *addr, struct str extension) {
    struct str local = addr_local(sbuf_str(addr));
    struct sbuf with = {0};
    sbuf_add_str(&with, local);
    sbuf_add_str(&with, extension);
    sbuf_add_str(&with, str_from(sbuf_str(addr), local.n));
    sbuf_free(addr);
    *addr = with;
}

/* An address in its one form goes to the end of the list.  A name that stands for itself means the
 * mailbox of that name; what others have named already is left out. */
static void take_address(struct alias_taking *t, struct str addr) {
    struct alias_query *q = t->q;
    uint64_t hash = kset_mix_folded(KSET_SEED, addr);
    const struct alias_entry *same = kset_get(&q->seen, hash, is_same_address, &addr);
    if (same == entry_at(q)) {
        alias_bad_item(q, t->item, alias_kind_text(ALIAS_MAILBOX));
        t->ended = true;
    } else if (same == NULL && q->n > ADDRS_MAX) {
        alias_waits(q, "alias \"%s\": more than %u addresses", q->name.p, ADDRS_MAX);
        t->ended = true;
    } else if (same == NULL) {
        alias_entry_add(q, addr, hash);
    }
}

static void alias_on_address(void *arg, const struct addrlist_item *item) {
    struct alias_taking *t = arg;
    const struct addr_opts any = {.utf8 = true};
    struct sbuf external = {0}, addr = {0};
    size_t len = 0;
    if (t->ended)
        return;
    t->found++;
    complete_address(&t->q->cfg->p, item, &external);
    enum addr_rc rc = addr_parse(sbuf_str(&external), &any, &addr, &len);
    if (rc != ADDR_OK || len != external.n || strchr("/|~\\:", addr.p[0]) != NULL) {
        alias_bad_item(t->q, t->item, alias_kind_text(ALIAS_NOTHING));
        t->ended = true;
    } else {
        struct str extension = unmatched_extension(t->q);
        if (extension.n > 0)
            add_extension(&addr, extension);
        take_address(t, sbuf_str(&addr));
    }
    sbuf_free(&external);
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
        return alias_waits(q, "alias \"%s\": it stands for nothing", q->name.p);
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
        q->tag = lookup_maps_traced(q->lookup, "local", spec, q->keys.v, q->keys.n, false,
                                    alias_on_answer, q);
    else
        q->tag =
            lookup_route(q->lookup, "local", spec, q->keys.v, q->keys.n, &now, alias_on_answer, q);
    if (q->tag != 0)
        return ALIAS_ASKING;
    enum alias_went went = take(q, &now);
    maps_answer_free(&now);
    return went;
}

static void alias_note(struct alias_query *q, const struct maps_answer *a, const char *result) {
    json_t *step = trace_step(q->trace, "alias_maps");
    if (step == NULL)
        return;
    trace_asked(step, a->trace);
    trace_set(step, "result", str_of(result));
    trace_end(q->trace, step);
}

/* owner-NAME: mail to NAME is a list's.  A list in a list goes on under its own name, so that its
 * own message has its owner for a sender. */
static enum alias_went take_owner(struct alias_query *q, const struct maps_answer *a) {
    if (a->rc == MAP_ERROR)
        return alias_failed(q, "alias_maps");
    q->step = ALIAS_STEP_TAKE;
    if (a->rc == MAP_NOT_FOUND)
        return ALIAS_ON;
    if (q->at > 0) {
        entry_at(q)->goes_on = true;
        q->at++;
        q->step = ALIAS_STEP_CLASS;
        return ALIAS_ON;
    }
    struct sbuf owner = {0};
    sbuf_printf(&owner, OWNER "%s@%s", q->name.p, q->cfg->p.myorigin);
    q->r.owner = sbuf_take(&owner);
    alias_note(q, a, "a mailing list: reports about what goes on are for its owner");
    return ALIAS_ON;
}

static enum alias_went alias_step_owner(struct alias_query *q) {
    keys_clear(&q->keys);
    keys_add(&q->keys, false, OWNER, sbuf_str(&q->name), STR_NONE);
    return alias_ask(q, take_owner);
}

static enum alias_went take_name(struct alias_query *q, const struct maps_answer *a) {
    if (a->rc == MAP_ERROR)
        return alias_failed(q, "alias_maps");
    if (a->rc == MAP_NOT_FOUND) {
        alias_note(q, a, "no alias");
        return alias_waits(q, "%s%s%sthere is no alias \"%.*s\", and Posthouse has no mailboxes",
                           q->at > 0 ? "alias \"" : "", q->at > 0 ? entry_at(q)->name : "",
                           q->at > 0 ? "\": " : "", STR_FMT(q->keys.v[0].key));
    }
    q->r.is_named = true;
    sbuf_reset(&q->name);
    sbuf_add_str(&q->name, q->keys.v[a->key < q->keys.n ? a->key : 0].key);
    sbuf_reset(&q->value);
    sbuf_add_str(&q->value, sbuf_str(&a->value));
    if (q->trace != NULL) {
        struct sbuf text = {0};
        sbuf_printf(&text, "\"%s\" stands for %.*s", q->name.p, STR_FMT(sbuf_str(&a->value)));
        alias_note(q, a, text.p);
        sbuf_free(&text);
    }
    q->step = ALIAS_STEP_OWNER;
    return ALIAS_ON;
}

/* The names of entry at, in lower case; false: one of them is the alias that named it. */
static bool entry_keys(struct alias_query *q) {
    const struct alias_entry *e = entry_at(q);
    char *local = str_dup(addr_local(str_of(e->addr)));
    str_lower(local, strlen(local));
    struct str bare = alias_bare(&q->cfg->p, str_of(local));
    bool own = e->name != NULL && (str_ieq_c(bare, e->name) || str_ieq_c(str_of(local), e->name));
    keys_clear(&q->keys);
    keys_add(&q->keys, false, "", str_of(local), STR_NONE);
    if (bare.n > 0)
        keys_add(&q->keys, false, "", bare, STR_NONE);
    free(local);
    return !own;
}

static enum alias_went alias_step_name(struct alias_query *q) {
    const struct alias_entry *e = entry_at(q);
    if (e->depth > DEPTH_MAX)
        return alias_waits(q, "alias \"%s\": more than %u aliases in each other", e->name,
                           DEPTH_MAX);
    if (!entry_keys(q))
        return alias_waits(q, "alias \"%s\": \"%s\": %s", e->name, e->addr,
                           alias_kind_text(ALIAS_MAILBOX));
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
        entry_at(q)->goes_on = true;
        q->at++;
    }
    if (alias_run(q, went) == ALIAS_OVER)
        alias_give(q);
}

/* Where does the entry go?  (Of the first one that is known.) */
static enum alias_went alias_step_class(struct alias_query *q) {
    if (q->at == 0) {
        q->step = ALIAS_STEP_NAME;
        return ALIAS_ON;
    }
    q->route = route_resolve(q->cfg, q->lookup, STR_NONE, str_of(entry_at(q)->addr), NULL,
                             alias_on_route, q);
    return ALIAS_ASKING;
}

/* Every entry was looked at. */
static enum alias_went alias_end(struct alias_query *q) {
    q->r.addrs = mem_alloc(q->n * sizeof(char *));
    for (size_t i = 0; i < q->n; i++)
        if (q->v[i]->goes_on) {
            q->r.addrs[q->r.n++] = q->v[i]->addr;
            q->v[i]->addr = NULL;
        }
    if (q->r.n == 0)
        return alias_waits(q,
                           "alias \"%s\": the aliases that it stands for name each other, and "
                           "no address",
                           q->name.p);
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
        went = q->at == q->n ? alias_end(q) : steps[q->step](q);
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
    alias_entry_add(q, rcpt, kset_mix_folded(KSET_SEED, rcpt));
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
