/*
 * tests/wire/lookups.c - tables, names and accounts as the scenario has them
 *
 * Stands in for maps/query.c (what the lookup process answers) and deliver/resolver.c (DNS).  Every
 * question is a call that a fault can hit; its answer comes in a step of its own, in any order.
 */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deliver/resolver.h"
#include "maps/query.h"
#include "maps/relays.h"
#include "util/chance.h"

#define LATE_US (30 * 1000000LL)
#define KEYS    64
#define DAYS_US (100000 * 1000000LL)

enum question_kind { QUESTION_TABLE, QUESTION_MATCH, QUESTION_NAME, QUESTION_VERIFY, QUESTION_OK };

struct question {
    struct dl link; /* world->questions */
    enum question_kind kind;
    uint32_t tag;
    int64_t due_us;
    bool wrong; /* the answer is an error */
    bool gone;  /* nobody waits for it any more */
    lookup_maps_fn maps_fn;
    lookup_match_fn match_fn;
    resolve_fn resolve_fn;
    void *arg;
    char *spec; /* tables; or the name that is looked up */
    enum resolve_type type;
    bool of_address; /* the name of the address in spec */
    enum match_kind match;
    unsigned how;
    struct maps_key keys[KEYS]; /* texts are the question's own */
    size_t n_keys;
    char *password;
    bool traced;
};

/* ---- rows ---- */

static struct row *row_find(const struct wire_world *w, const char *table, struct str key) {
    for (struct row *r = w->rows; r != NULL; r = r->next)
        if (strcmp(r->table, table) == 0 && str_ieq_c(key, r->key))
            return r;
    return NULL;
}

const char *row_get(const struct wire_world *w, const char *table, struct str key) {
    const struct row *r = row_find(w, table, key);
    return r == NULL ? NULL : r->value;
}

static char *copy(const char *s) {
    return s == NULL ? NULL : strdup(s);
}

static void row_add(struct wire_world *w, const char *table, const char *key, const char *value) {
    struct row *r = calloc(1, sizeof *r);
    *r =
        (struct row){.next = w->rows, .table = copy(table), .key = copy(key), .value = copy(value)};
    w->rows = r;
}

void wire_table(struct wire_world *w, const char *table, const char *key, const char *value) {
    struct row *r = row_find(w, table, str_of(key));
    if (r != NULL)
        r->value = copy(value);
    else
        row_add(w, table, key, value);
}

void wire_table_made(struct wire_world *w, const char *table,
                     char *(*fn)(void *arg, const char *key), void *arg) {
    row_add(w, table, "", NULL);
    w->rows->made = fn;
    w->rows->arg = arg;
}

/* Adds what the table makes of the key to out; false: nothing. */
static bool row_make(const char *table, struct str key, struct sbuf *out) {
    const struct row *r = row_find(W, table, STR_LIT(""));
    if (r == NULL || r->made == NULL)
        return false;
    enum heap_side side = heap_switch(HEAP_WORLD);
    char *asked = str_dup(key), *value = r->made(r->arg, asked);
    free(asked);
    heap_switch(side);
    if (value != NULL)
        sbuf_add_c(out, value);
    heap_switch(HEAP_WORLD);
    free(value);
    heap_switch(side);
    return out->n > 0;
}

void wire_dns_addr(struct wire_world *w, const char *name, const char *addr) {
    row_add(w, " addr", name, addr);
}

void wire_dns_mx(struct wire_world *w, const char *name, unsigned pref, const char *host) {
    char value[300];
    snprintf(value, sizeof value, "%u %s", pref, host);
    row_add(w, " mx", name, value);
}

void wire_dns_ptr(struct wire_world *w, const char *addr, const char *name) {
    struct netaddr a;
    struct sbuf arpa = {0};
    netaddr_parse(&a, str_of(addr), 0);
    netaddr_arpa(&a, &arpa);
    arpa.p[arpa.n - 1] = '\0'; /* as a name is asked for: without its final dot */
    row_add(w, " ptr", arpa.p, name);
    row_add(w, " addr", name, addr);
    sbuf_free(&arpa);
}

void wire_dns_clear(struct wire_world *w, const char *name) {
    for (struct row **link = &w->rows; *link != NULL;) {
        struct row *r = *link;
        bool dns = strcmp(r->table, " addr") == 0 || strcmp(r->table, " mx") == 0;
        if (dns && strcasecmp(r->key, name) == 0)
            *link = r->next;
        else
            link = &r->next;
    }
}

void wire_account(struct wire_world *w, const char *user, const char *password) {
    wire_table(w, " account", user, password);
}

/* The rows that map_relays.c would answer with. */
void wire_record(struct wire_world *w, const struct wire_record *r) {
    char id[200], key[400], value[1000];
    struct sbuf question = {0};
    snprintf(id, sizeof id, "%s%s", r->name, r->account);
    for (struct row *old = w->rows; old != NULL; old = old->next) /* its old secret is gone */
        if (strncmp(old->key, "\n\n", 2) == 0 && strncmp(old->key + 2, id, strlen(id)) == 0 &&
            old->key[2 + strlen(id)] == '\n')
            old->value = NULL;
    snprintf(value, sizeof value,
             "{\"id\": \"%s\", \"name\": \"%s\", \"hosts\": \"%s\", \"tls\": \"may\", "
             "\"mechanisms\": \"\", \"user\": \"%s\", \"account\": \"%s\", \"modified\": \"1\"}",
             id, r->name, r->hosts, r->user, r->account);
    snprintf(key, sizeof key, "%s\n%s", r->account, r->name);
    wire_table(w, " relays", key, value);
    snprintf(value, sizeof value, "%s\n%s", r->user, r->password);
    struct str rest = str_of(r->hosts), host;
    while (str_split(&rest, ", ", &host)) {
        char *name = str_dup(host);
        sbuf_reset(&question);
        relays_ask_secret(&question,
                          &(struct relays_question){id, "may", "", r->user, r->account, name});
        wire_table(w, " relays", question.p, value);
        free(name);
    }
    sbuf_free(&question);
}

/* ---- asking ---- */

/* "hash:NAME, lmdb:NAME": asks every table for the first key, then for the second. */
static enum map_rc find_in_tables(const struct question *q, struct maps_answer *a) {
    for (size_t i = 0; i < q->n_keys; i++) {
        struct str rest = str_of(q->spec), one;
        for (size_t t = 0; str_split(&rest, ", \t", &one); t++) {
            ptrdiff_t colon = str_chr(one, ':');
            char *table = str_dup(str_from(one, (size_t)(colon + 1)));
            bool relays = colon == 6 && str_istarts(one, "relays");
            const char *value = row_get(W, relays ? " relays" : table, q->keys[i].key);
            bool made = value == NULL && row_make(table, q->keys[i].key, &a->value);
            free(table);
            a->key = i;
            a->table = t;
            if (made)
                return MAP_FOUND;
            if (value == NULL && relays && str_istarts(q->keys[i].key, "\n\n"))
                return MAP_ERROR; /* a secret that is not for that host */
            if (value == NULL)
                continue;
            sbuf_add_c(&a->value, value);
            return MAP_FOUND;
        }
    }
    return MAP_NOT_FOUND;
}

/* Is one of the tables out of order now? */
static bool tables_fail(const char *spec) {
    return W->failing_table != NULL && W->now_us < W->fails_until_us &&
           strstr(spec, W->failing_table) != NULL;
}

static struct question *question_new(enum question_kind kind, enum wire_call call, void *arg) {
    struct question *q = calloc(1, sizeof *q);
    enum wire_fault f = call_begin(call);
    q->kind = kind;
    q->arg = arg;
    q->tag = ++W->last_tag;
    q->wrong = f == FAULT_WRONG;
    q->due_us = W->now_us + (f == FAULT_LATE   ? LATE_US
                             : f == FAULT_DAYS ? DAYS_US
                                               : chance_us(W, 3000));
    dl_push(&W->questions, &q->link);
    W->busy++;
    return q;
}

static void question_key(struct question *q, struct str key, bool partial) {
    if (q->n_keys < KEYS)
        q->keys[q->n_keys++] = (struct maps_key){str_make(str_dup(key), key.n), partial};
}

struct lookup {
    struct loop *loop;
};

struct lookup *lookup_new(struct loop *l) {
    enum heap_side side = heap_switch(HEAP_WORLD);
    struct lookup *k = calloc(1, sizeof *k);
    k->loop = l;
    heap_switch(side);
    return k;
}

void lookup_attach(struct lookup *k, int fd) {
    (void)k;
    (void)fd;
}

void lookup_remember(struct lookup *k, struct recent *memory) {
    (void)k;
    (void)memory;
}

/* Of a login joined with another one the second's password would be sent within the first's. */
static void is_asked_for_one(const char *spec, enum map_values values) {
    if (values != VALUES_ONE && strcmp(spec, "hash:passwords") == 0)
        wire_fail(W, "several logins of %s would be joined", spec);
}

static uint32_t ask_tables(const char *spec, enum map_values values, const struct maps_key *keys,
                           size_t n, bool traced, lookup_maps_fn fn, void *arg) {
    is_asked_for_one(spec, values);
    enum heap_side side = heap_switch(HEAP_WORLD);
    struct question *q = question_new(QUESTION_TABLE, CALL_TABLE, arg);
    q->maps_fn = fn;
    q->spec = copy(spec);
    q->traced = traced;
    for (size_t i = 0; i < n; i++)
        question_key(q, keys[i].key, keys[i].partial);
    heap_switch(side);
    return q->tag;
}

uint32_t lookup_maps(struct lookup *k, const char *service, const char *spec,
                     enum map_values values, const struct maps_key *keys, size_t n,
                     lookup_maps_fn fn, void *arg) {
    (void)k;
    (void)service;
    return ask_tables(spec, values, keys, n, false, fn, arg);
}

/* One answer in four is remembered from a question that somebody else has asked. */
static bool is_remembered(void) {
    return wire_rnd(&W->chance, 4) == 0;
}

uint32_t lookup_route(struct lookup *k, const char *service, const char *spec,
                      enum map_values values, const struct maps_key *keys, size_t n,
                      struct maps_answer *now, lookup_maps_fn fn, void *arg) {
    if (!is_remembered() || tables_fail(spec))
        return lookup_maps(k, service, spec, values, keys, n, fn, arg);
    struct question q = {.spec = (char *)spec};
    for (size_t i = 0; i < n && i < KEYS; i++)
        q.keys[q.n_keys++] = keys[i];
    *now = (struct maps_answer){0};
    now->rc = find_in_tables(&q, now);
    return 0;
}

uint32_t lookup_maps_traced(struct lookup *k, const char *service, const char *spec,
                            enum map_values values, const struct maps_key *keys, size_t n,
                            bool secret, lookup_maps_fn fn, void *arg) {
    (void)k;
    (void)service;
    (void)secret;
    return ask_tables(spec, values, keys, n, true, fn, arg);
}

static enum match_rc list_match(const char *spec, enum match_kind kind, unsigned how,
                                struct str key) {
    char *err;
    struct matchlist *l = matchlist_open(spec, NULL, kind, how);
    enum match_rc rc = matchlist_has(l, key, &err);
    matchlist_close(l);
    return rc;
}

static uint32_t match_ask(const char *spec, enum match_kind kind, unsigned how, struct str key,
                          lookup_match_fn fn, void *arg) {
    enum heap_side side = heap_switch(HEAP_WORLD);
    struct question *q = question_new(QUESTION_MATCH, CALL_TABLE, arg);
    q->match_fn = fn;
    q->spec = copy(spec);
    q->match = kind;
    q->how = how;
    question_key(q, key, false);
    heap_switch(side);
    return q->tag;
}

uint32_t lookup_match_now(struct lookup *k, const char *service, const char *spec,
                          enum match_kind kind, unsigned how, struct str key, enum match_rc *now,
                          lookup_match_fn fn, void *arg) {
    (void)k;
    (void)service;
    if (spec[0] != '\0' && matchlist_has_tables(spec))
        return match_ask(spec, kind, how, key, fn, arg);
    *now = spec[0] == '\0' ? MATCH_NO : list_match(spec, kind, how, key);
    return 0;
}

uint32_t lookup_verify(struct lookup *k, struct str user, struct str password, bool secure,
                       const char *client, lookup_maps_fn fn, void *arg) {
    enum heap_side side = heap_switch(HEAP_WORLD);
    struct question *q = question_new(QUESTION_VERIFY, CALL_TABLE, arg);
    (void)k;
    (void)secure;
    (void)client;
    q->maps_fn = fn;
    q->password = str_dup(password);
    question_key(q, user, false);
    heap_switch(side);
    return q->tag;
}

uint32_t lookup_forget(struct lookup *k, lookup_maps_fn fn, void *arg) {
    enum heap_side side = heap_switch(HEAP_WORLD);
    struct question *q = question_new(QUESTION_OK, CALL_TABLE, arg);
    (void)k;
    q->maps_fn = fn;
    heap_switch(side);
    return q->tag;
}

void lookup_later(struct lookup *k, struct later *later) {
    loop_later(k->loop, later);
}

void lookup_cancel(struct lookup *k, uint32_t tag) {
    (void)k;
    DL_EACH (n, &W->questions) {
        struct question *q = DL_OWNER(n, struct question, link);
        if (tag != 0 && q->tag == tag && q->kind != QUESTION_NAME) {
            dl_remove(&q->link);
            return;
        }
    }
}

/* ---- DNS ---- */

struct resolver {
    struct loop *loop;
};

struct resolver *resolver_new(struct loop *l, const struct config *cfg) {
    enum heap_side side = heap_switch(HEAP_WORLD);
    struct resolver *r = calloc(1, sizeof *r);
    (void)cfg;
    r->loop = l;
    heap_switch(side);
    return r;
}

/* Names are the world's, whatever the configuration says. */
void resolver_reload(struct resolver *r, const struct config *cfg) {
    (void)r;
    (void)cfg;
}

static struct question *ask_name(const char *name, resolve_fn fn, void *arg) {
    enum heap_side side = heap_switch(HEAP_WORLD);
    struct question *q = question_new(QUESTION_NAME, CALL_NAME, arg);
    q->spec = copy(name);
    if (name[0] != '\0' && name[strlen(name) - 1] == '.')
        q->spec[strlen(name) - 1] = '\0';
    q->resolve_fn = fn;
    heap_switch(side);
    return q;
}

struct resolver_query *resolver_ask(struct resolver *r, enum resolve_type type, const char *name,
                                    resolve_fn fn, void *arg) {
    struct question *q = ask_name(name, fn, arg);
    (void)r;
    q->type = type;
    return (struct resolver_query *)(void *)q;
}

struct resolver_query *resolver_ask_name(struct resolver *r, const struct netaddr *addr,
                                         resolve_fn fn, void *arg) {
    struct sbuf arpa = {0};
    (void)r;
    netaddr_arpa(addr, &arpa);
    struct question *q = ask_name(arpa.p, fn, arg);
    q->of_address = true;
    sbuf_free(&arpa);
    return (struct resolver_query *)(void *)q;
}

void resolver_cancel(struct resolver_query *query) {
    struct question *q = (struct question *)(void *)query;
    if (q != NULL)
        dl_remove(&q->link);
}

uint32_t chance_below(uint32_t n) {
    return (uint32_t)wire_rnd(&W->chance, n);
}

/* ---- answers ---- */

static enum map_rc verify(const struct question *q, struct maps_answer *a) {
    const char *password = row_get(W, " account", q->keys[0].key);
    bool good = password != NULL && strcmp(password, q->password) == 0;
    if (good)
        sbuf_add_str(&a->value, q->keys[0].key);
    else
        sbuf_add_c(&a->value, "Password mismatch");
    return good ? MAP_FOUND : MAP_NOT_FOUND;
}

static void answer_maps(struct question *q) {
    struct maps_answer a = {.rc = MAP_NOT_FOUND};
    heap_switch(HEAP_PRODUCT);
    if (q->wrong || (q->kind == QUESTION_TABLE && tables_fail(q->spec))) {
        a.rc = MAP_ERROR;
        a.err = strdup("the scenario says so");
    } else if (q->kind == QUESTION_TABLE) {
        a.rc = find_in_tables(q, &a);
    } else if (q->kind == QUESTION_VERIFY) {
        a.rc = verify(q, &a);
    }
    if (q->traced)
        a.trace = calloc(1, sizeof *a.trace);
    q->maps_fn(q->arg, &a);
    maps_answer_free(&a);
}

/* A list with tables is asked by name only: a row of a table, or a pattern that is the key. */
static enum match_rc match_by_row(const struct question *q) {
    struct str rest = str_of(q->spec), one;
    enum match_rc rc = MATCH_NO;
    while (rc == MATCH_NO && str_split(&rest, ", \t", &one)) {
        ptrdiff_t colon = str_chr(one, ':');
        char *table = str_dup(str_from(one, (size_t)(colon + 1)));
        if (row_get(W, table, q->keys[0].key) != NULL ||
            (colon < 0 && str_ieq(one, q->keys[0].key)))
            rc = MATCH_YES;
        free(table);
    }
    return rc;
}

static void answer_match(struct question *q) {
    enum match_rc rc = MATCH_ERROR;
    if (q->spec[0] == '\0')
        rc = MATCH_NO;
    else if (!matchlist_has_tables(q->spec))
        rc = list_match(q->spec, q->match, q->how, q->keys[0].key);
    else if (!q->wrong)
        rc = match_by_row(q);
    heap_switch(HEAP_PRODUCT);
    q->match_fn(q->arg, rc);
}

static void add_mx(struct resolve_answer *a, const char *value) {
    a->mx = realloc(a->mx, (a->n_mx + 1) * sizeof *a->mx);
    struct resolve_mx *m = &a->mx[a->n_mx];
    char *host;
    m->pref = (uint16_t)strtoul(value, &host, 10);
    host += strspn(host, " ");
    a->null_mx = a->null_mx || host[0] == '\0';
    a->bad_mx = a->bad_mx || host[0] == '!'; /* a name that is none */
    if (host[0] == '\0' || host[0] == '!')
        return;
    m->name = strdup(host);
    a->n_mx++;
    for (size_t i = a->n_mx - 1; i > 0 && a->mx[i - 1].pref > a->mx[i].pref; i--) {
        struct resolve_mx t = a->mx[i];
        a->mx[i] = a->mx[i - 1];
        a->mx[i - 1] = t;
    }
}

static void add_addr(struct resolve_answer *a, const char *value) {
    a->addrs = realloc(a->addrs, (a->n_addrs + 1) * sizeof *a->addrs);
    if (netaddr_parse(&a->addrs[a->n_addrs], str_of(value), 0))
        a->n_addrs++;
}

static void answer_name(struct question *q) {
    const char *table = q->of_address ? " ptr" : q->type == RESOLVE_MX ? " mx" : " addr";
    struct resolve_answer a = {
        .from = {{.owner = q->spec, .ttl = 60}, {.owner = q->spec, .ttl = 60}}};
    bool fails = q->wrong;
    for (const struct row *r = W->rows; r != NULL && !fails; r = r->next) {
        if (strcmp(r->table, table) != 0 || strcasecmp(r->key, q->spec) != 0)
            continue;
        fails = r->value[strlen(r->value) - 1] == '?';
        if (fails)
            break;
        if (q->of_address)
            a.name = r->value;
        else if (q->type == RESOLVE_MX)
            add_mx(&a, r->value);
        else
            add_addr(&a, r->value);
    }
    bool any = a.n_addrs > 0 || a.n_mx > 0 || a.name != NULL || a.null_mx;
    a.rc = fails      ? RESOLVE_FAILED
           : any      ? RESOLVE_OK
           : a.bad_mx ? RESOLVE_MALFORMED
                      : RESOLVE_NOTFOUND;
    heap_switch(HEAP_PRODUCT);
    q->resolve_fn(q->arg, &a);
}

static void step_answer(void *arg) {
    struct question *q = arg;
    enum heap_side side = heap_switch(HEAP_WORLD);
    dl_remove(&q->link);
    W->busy++;
    if (q->kind == QUESTION_NAME)
        answer_name(q);
    else if (q->kind == QUESTION_MATCH)
        answer_match(q);
    else
        answer_maps(q);
    heap_switch(side);
    loops_wake(W);
}

void lookups_collect(struct wire_world *w, struct choices *c) {
    DL_EACH (n, &w->questions) {
        struct question *q = DL_OWNER(n, struct question, link);
        if (q->due_us <= w->now_us)
            choice_add(c, step_answer, q);
    }
}

int64_t lookups_next(const struct wire_world *w) {
    int64_t at = INT64_MAX;
    DL_EACH (n, &w->questions) {
        const struct question *q = DL_OWNER(n, struct question, link);
        if (q->due_us < at)
            at = q->due_us;
    }
    return at;
}

void lookups_drop(struct wire_world *w) {
    dl_init(&w->questions);
}
