/*
 * route/attempt.c - the end of an attempt; see attempt.h
 */
#include "route/attempt.h"

#include <stdio.h>
#include <stdlib.h>

void attempt_set_relay(struct attempt *a, const char *relay) {
    snprintf(a->relay, sizeof a->relay, "%s", relay);
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
