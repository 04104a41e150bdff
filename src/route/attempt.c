/*
 * route/attempt.c - the end of an attempt; see attempt.h
 */
#include "route/attempt.h"

#include <stdio.h>
#include <stdlib.h>

#include "util/mem.h"

void attempt_set_relay(struct attempt *a, const char *relay) {
    snprintf(a->relay, sizeof a->relay, "%s", relay);
}

struct attempt_taken *attempt_taken_new(const struct attempt *a) {
    struct attempt_taken *t = MEM_NEW(struct attempt_taken);
    t->owner = a->owner;
    t->remote_dsn = a->remote_dsn;
    t->idx = mem_alloc(a->n * sizeof *t->idx);
    t->res = mem_zalloc(a->n * sizeof *t->res);
    for (uint32_t i = 0; i < a->n; i++) {
        if (!a->tried[i] || a->res[i].status != MAIL_SENT)
            continue;
        t->idx[t->n] = a->idx[i];
        mailerr_copy(&t->res[t->n++], &a->res[i]);
    }
    if (t->n > 0)
        return t;
    attempt_taken_free(t);
    return NULL;
}

void attempt_taken_free(struct attempt_taken *t) {
    for (uint32_t i = 0; i < t->n; i++)
        mailerr_free(&t->res[i]);
    free(t->idx);
    free(t->res);
    free(t);
}

void attempt_free(struct attempt *a) {
    for (uint32_t i = 0; i < a->n; i++)
        mailerr_free(&a->res[i]);
    config_unref(a->cfg);
    envelope_unref(a->env);
    body_unref(a->body);
    free(a->nexthop);
    free(a->record);
    free(a->idx);
    free(a->res);
    free(a->tried);
    free(a);
}
