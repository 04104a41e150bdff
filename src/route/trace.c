/*
 * route/trace.c - steps of an explanation; see trace.h
 */
#include "route/trace.h"

#include <stdlib.h>

#include "util/mem.h"

json_t *trace_step(struct trace *t, const char *what) {
    return t == NULL ? NULL : json_pack("{s:s}", "step", what);
}

void trace_set(json_t *step, const char *name, struct str value) {
    struct sbuf text = {0};
    if (step == NULL)
        return;
    sbuf_add_json(&text, value); /* replaces what is not UTF-8 */
    json_object_set_new(step, name,
                        json_loadb(text.p, text.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL));
    sbuf_free(&text);
}

void trace_setf(json_t *step, const char *name, const char *fmt, ...) {
    struct sbuf text = {0};
    va_list ap;
    va_start(ap, fmt);
    sbuf_vprintf(&text, fmt, ap);
    va_end(ap);
    trace_set(step, name, sbuf_str(&text));
    sbuf_free(&text);
}

static const char *answer_word(const struct maps_step *s) {
    if (s->skipped)
        return "not asked";
    return s->rc == MAP_FOUND ? "found" : s->rc == MAP_ERROR ? "error" : "not found";
}

void trace_asked(json_t *step, const struct maps_trace *asked) {
    if (step == NULL || asked == NULL)
        return;
    json_t *list = json_array();
    for (size_t i = 0; i < asked->n; i++) {
        const struct maps_step *s = &asked->v[i];
        json_t *o = json_object();
        trace_set(o, "table", str_of(s->table));
        trace_set(o, "key", str_of(s->key));
        trace_set(o, "answer", str_of(answer_word(s)));
        if (s->value != NULL)
            trace_set(o, "value", str_of(s->value));
        if (s->skipped)
            trace_set(o, "why", STR_LIT("a table of patterns sees whole addresses only"));
        else if (s->where[0] != '\0')
            trace_set(o, s->rc == MAP_ERROR ? "why" : "source", str_of(s->where));
        json_array_append_new(list, o);
    }
    json_object_set_new(step, "asked", list);
}

void trace_end(struct trace *t, json_t *step) {
    if (t != NULL)
        t->emit(t->arg, step);
}

void trace_note(struct trace *t, const char *what, const char *fmt, ...) {
    struct sbuf text = {0};
    va_list ap;
    if (t == NULL)
        return;
    va_start(ap, fmt);
    sbuf_vprintf(&text, fmt, ap);
    va_end(ap);
    json_t *step = trace_step(t, what);
    trace_set(step, "result", sbuf_str(&text));
    trace_end(t, step);
    sbuf_free(&text);
}
