/* What the unit tests of route share: a lookup process with real tables, and a configuration. */
#ifndef PH_TESTS_ROUTE_RIG_H
#define PH_TESTS_ROUTE_RIG_H

#include "unit.h"

#include "config/config.h"
#include "maps/query.h"
#include "util/log.h"
#include "util/mem.h"

/* -- a lookup process -- */

enum answers { ANSWERS_NOW, ANSWERS_LATER };

/* One question is open at a time. */
struct lookup {
    enum answers how;
    unsigned asked, cancelled; /* questions */
    lookup_maps_fn maps_fn;    /* open: one of the two */
    lookup_match_fn match_fn;
    void *arg;
    struct maps_answer answer;
    enum match_rc rc;
    struct later *later;
    char keys[2048]; /* of the last question, a line each */
};

static void ask(struct lookup *k, const char *spec, enum map_values values,
                const struct maps_key *keys, size_t n, struct maps_answer *a, bool traced,
                bool secret) {
    struct maps *m = maps_open_as(spec, dir, values);
    k->asked++;
    k->keys[0] = '\0';
    for (size_t i = 0, at = 0; i < n; i++)
        at += (size_t)snprintf(k->keys + at, sizeof k->keys - at, "%.*s%s\n", STR_FMT(keys[i].key),
                               keys[i].partial ? " (partial)" : "");
    struct maps_trace *t = traced ? MEM_NEW(struct maps_trace) : NULL;
    if (t != NULL)
        t->secret = secret;
    maps_find_traced(m, keys, n, a, t);
    a->trace = t;
    maps_close(m);
}

uint32_t lookup_route(struct lookup *k, const char *service, const char *spec,
                      enum map_values values, const struct maps_key *keys, size_t n,
                      struct maps_answer *now, lookup_maps_fn fn, void *arg) {
    (void)service;
    k->arg = arg;
    if (k->how == ANSWERS_NOW) {
        ask(k, spec, values, keys, n, now, false, false);
        return 0;
    }
    ask(k, spec, values, keys, n, &k->answer, false, false);
    k->maps_fn = fn;
    return k->asked;
}

uint32_t lookup_maps_traced(struct lookup *k, const char *service, const char *spec,
                            enum map_values values, const struct maps_key *keys, size_t n,
                            bool secret, lookup_maps_fn fn, void *arg) {
    (void)service;
    ask(k, spec, values, keys, n, &k->answer, true, secret);
    k->maps_fn = fn;
    k->arg = arg;
    return k->asked;
}

uint32_t lookup_match_now(struct lookup *k, const char *service, const char *spec,
                          enum match_kind kind, unsigned how, struct str key, enum match_rc *now,
                          lookup_match_fn fn, void *arg) {
    char *err = NULL;
    struct matchlist *l = matchlist_open(spec, dir, kind, how);
    (void)service;
    k->asked++;
    k->rc = matchlist_has(l, key, &err);
    matchlist_close(l);
    free(err);
    *now = k->rc;
    k->arg = arg;
    k->match_fn = k->how == ANSWERS_NOW ? NULL : fn;
    return k->how == ANSWERS_NOW ? 0 : k->asked;
}

void lookup_later(struct lookup *k, struct later *later) {
    k->later = later;
}

void lookup_cancel(struct lookup *k, uint32_t tag) {
    if (tag == 0)
        return;
    k->cancelled++;
    k->maps_fn = NULL;
    k->match_fn = NULL;
    maps_answer_free(&k->answer);
}

/* Answers what is open; false if nothing is. */
static bool turn(struct lookup *k) {
    lookup_maps_fn maps_fn = k->maps_fn;
    lookup_match_fn match_fn = k->match_fn;
    struct later *later = k->later;
    k->maps_fn = NULL;
    k->match_fn = NULL;
    k->later = NULL;
    if (later != NULL)
        later->run(later);
    if (match_fn != NULL)
        match_fn(k->arg, k->rc);
    if (maps_fn != NULL) {
        struct maps_answer a = k->answer;
        k->answer = (struct maps_answer){.rc = MAP_NOT_FOUND};
        maps_fn(k->arg, &a);
        maps_answer_free(&a);
    }
    return later != NULL || match_fn != NULL || maps_fn != NULL;
}

/* -- a configuration -- */

static void file_write(const char *name, const char *text) {
    char path[100];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static struct config *configure(const char *main) {
    struct sbuf text = {0};
    sbuf_printf(&text,
                "myhostname = mta.example\nmyorigin = mta.example\nmydestination = mta.example\n"
                "relay_domains = ours.test\nmaillog_file = /dev/null\n%s\n",
                main);
    file_write("main.cf", text.p);
    sbuf_free(&text);
    struct config *c = config_build(cfg_source_new(dir));
    if (c->diags.n > 0 && c->diags.v[0].level == DIAG_ERROR)
        fail_msg("%s: %s", main, c->diags.v[0].text);
    return c;
}

#endif
