/*
 * config/diag.c - remarks on the configuration; see diag.h
 */
#include "config/diag.h"

#include <stdarg.h>
#include <stdlib.h>

#include "util/mem.h"
#include "util/str.h"

void diag_add(struct diags *d, enum diag_level level, const char *file, int line, const char *fmt,
              ...) {
    struct sbuf text = {0};
    va_list ap;
    if (d == NULL)
        return;
    va_start(ap, fmt);
    sbuf_vprintf(&text, fmt, ap);
    va_end(ap);
    d->v = mem_realloc(d->v, (d->n + 1) * sizeof *d->v);
    d->v[d->n++] =
        (struct diag){level, file == NULL ? NULL : mem_strdup(file), line, sbuf_take(&text)};
    d->errors += level == DIAG_ERROR;
    d->warnings += level == DIAG_WARN;
}

void diag_free(struct diags *d) {
    for (size_t i = 0; i < d->n; i++) {
        free(d->v[i].file);
        free(d->v[i].text);
    }
    free(d->v);
    *d = (struct diags){0};
}
