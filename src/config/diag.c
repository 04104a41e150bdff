/*
 * config/diag.c - remarks on the configuration; see diag.h
 */
#include "config/diag.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "util/mem.h"
#include "util/str.h"

static bool diag_is(const struct diag *x, enum diag_level level, const char *file,
                    const char *text) {
    return x->level == level && strcmp(x->text, text) == 0 &&
           strcmp(x->file == NULL ? "" : x->file, file == NULL ? "" : file) == 0;
}

/* Services have parameters of their own, and the same mistake in each; one file stands in several
 * parameters. */
static bool diag_was_said(const struct diags *d, enum diag_level level, const char *file, int line,
                          const char *text) {
    for (size_t i = 0; i < d->n; i++)
        if (d->v[i].line == line && diag_is(&d->v[i], level, file, text))
            return true;
    return false;
}

bool diag_has_error(const struct diags *list, const struct diag *error) {
    for (size_t i = 0; i < list->n; i++)
        if (diag_is(&list->v[i], DIAG_ERROR, error->file, error->text))
            return true;
    return false;
}

void diag_add(struct diags *d, enum diag_level level, const char *file, int line, const char *fmt,
              ...) {
    struct sbuf text = {0};
    va_list ap;
    if (d == NULL)
        return;
    va_start(ap, fmt);
    sbuf_vprintf(&text, fmt, ap);
    va_end(ap);
    if (diag_was_said(d, level, file, line, text.p == NULL ? "" : text.p)) {
        sbuf_free(&text);
        return;
    }
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
