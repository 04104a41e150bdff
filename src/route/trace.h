/*
 * route/trace.h - what `posthouse explain` and `posthouse test` show, step by step
 *
 * Route resolution and delivery sessions take a trace; where there is one they note each step as a
 * JSON object and hand it on at once.  A trace that is NULL notes nothing.  Used on the thread
 * that takes the steps.  What a table of secrets answers never gets here.
 */
#ifndef PH_ROUTE_TRACE_H
#define PH_ROUTE_TRACE_H

#include <jansson.h>

#include "maps/maps.h"

/* The member of a step that says what a name stands for, where that is another name: those who may
 * not see that are not shown the steps behind it either. */
#define TRACE_STANDS "stands_for_others"

struct trace {
    /* Takes over step. */
    void (*emit)(void *arg, json_t *step);
    void *arg;
};

/* Starts a step: {"step": what}.  NULL if t is. */
json_t *trace_step(struct trace *t, const char *what);
/* Adds a text, safe for JSON whatever its bytes. */
void trace_set(json_t *step, const char *name, struct str value);
void trace_setf(json_t *step, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Adds "asked": each table and key with its answer and where that stands. */
void trace_asked(json_t *step, const struct maps_trace *asked);
void trace_end(struct trace *t, json_t *step);
/* A step with nothing but "result". */
void trace_note(struct trace *t, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
