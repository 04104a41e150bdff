/*
 * util/lines.c - logical lines; see lines.h
 */
#include "util/lines.h"

void lines_logical(struct str text, bool squeeze, const struct lines_ops *ops, void *arg) {
    struct sbuf cur = {0};
    int no = 0, first = 0;
    while (text.n > 0) {
        ptrdiff_t nl = str_chr(text, '\n');
        struct str line = str_make(text.p, nl < 0 ? text.n : (size_t)nl);
        text = str_from(text, line.n + 1);
        no++;
        struct str bare = str_trim(line);
        if (bare.n == 0 || bare.p[0] == '#')
            continue;
        bool more = bare.p != line.p;
        if (more && first == 0) {
            ops->orphan(arg, bare, no);
            continue;
        }
        if (!more) {
            if (first > 0)
                ops->line(arg, sbuf_str(&cur), first);
            sbuf_reset(&cur);
            first = no;
        } else if (squeeze) {
            sbuf_add_ch(&cur, ' ');
        }
        sbuf_add_str(&cur, squeeze ? bare : line);
    }
    if (first > 0)
        ops->line(arg, sbuf_str(&cur), first);
    sbuf_free(&cur);
}
