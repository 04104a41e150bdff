/*
 * util/lines.h - logical lines, as every file of Postfix has them
 *
 * A line that begins with white space continues the one before; empty lines and lines that begin
 * with # are skipped, also inside a continued line.
 */
#ifndef PH_UTIL_LINES_H
#define PH_UTIL_LINES_H

#include "util/str.h"

struct lines_ops {
    /* A whole logical line and the number of its first physical line. */
    void (*line)(void *arg, struct str line, int no);
    /* A continuation of nothing. */
    void (*orphan)(void *arg, struct str line, int no);
};

/* squeeze: pieces are trimmed and joined by one blank; else they are joined as they are. */
void lines_logical(struct str text, bool squeeze, const struct lines_ops *ops, void *arg);

#endif
