/*
 * config/diag.h - what reading the configuration found wrong
 *
 * A list of remarks with file and line, filled by the parsers and by `posthouse check`.  One
 * thread per list.
 */
#ifndef PH_CONFIG_DIAG_H
#define PH_CONFIG_DIAG_H

#include <stdbool.h>
#include <stddef.h>

enum diag_level { DIAG_NOTE, DIAG_WARN, DIAG_ERROR };

struct diag {
    enum diag_level level;
    char *file; /* NULL: no place */
    int line;   /* 0: the file as a whole */
    char *text;
};

struct diags {
    struct diag *v;
    size_t n;
    size_t errors;
    size_t warnings;
};

void diag_add(struct diags *d, enum diag_level level, const char *file, int line, const char *fmt,
              ...) __attribute__((format(printf, 5, 6)));
/* Does list have an error of this file and text, wherever in the file? */
bool diag_has_error(const struct diags *list, const struct diag *error);
void diag_free(struct diags *d);

#endif
