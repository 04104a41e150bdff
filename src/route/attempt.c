/*
 * route/attempt.c - the end of an attempt; see attempt.h
 */
#include "route/attempt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/mem.h"

void attempt_set_relay(struct attempt *a, const char *relay) {
    snprintf(a->relay, sizeof a->relay, "%s", relay);
}

void attempt_keep_host(struct attempt *a) {
    if (a->hosts == NULL)
        a->hosts = mem_zalloc(a->n * sizeof *a->hosts);
    for (uint32_t i = 0; i < a->n; i++) {
        if (a->res[i].status == MAIL_UNSET || a->hosts[i].relay != NULL)
            continue;
        a->hosts[i].relay = mem_strdup(a->relay);
        memcpy(a->hosts[i].tls, a->tls, sizeof a->tls);
    }
}

void attempt_forget_host(struct attempt *a, uint32_t i) {
    if (a->hosts == NULL)
        return;
    free(a->hosts[i].relay);
    a->hosts[i].relay = NULL;
}

/* NULL: it is the host that was used last. */
static const struct said_by *earlier_host(const struct attempt *a, uint32_t i) {
    return a->hosts == NULL || a->hosts[i].relay == NULL ? NULL : &a->hosts[i];
}

const char *attempt_host(const struct attempt *a, uint32_t i) {
    const struct said_by *by = earlier_host(a, i);
    const char *relay = by != NULL ? by->relay : a->relay;
    return relay[0] == '\0' ? "none" : relay;
}

const char *attempt_tls(const struct attempt *a, uint32_t i) {
    const struct said_by *by = earlier_host(a, i);
    return by != NULL ? by->tls : a->tls;
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
    for (uint32_t i = 0; i < a->n; i++)
        attempt_forget_host(a, i);
    free(a->hosts);
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
