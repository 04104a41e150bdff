/* Header sections, scanned as they arrive; any cut gives the same result as the whole, also if what
 * was scanned is dropped at once. */
#include "mail/header.h"
#include "fuzz.h"
#include "mail/edit.h"

/* Edited in pieces and as a whole: the same. */
static void edits(struct str in, size_t step) {
    static const struct edit_rules rules = {"bcc subject", "origin.example", "domain.example"};
    struct header_edit whole = {0}, pieces = {0};
    struct sbuf raw = {0}, first = {0}, second = {0};
    sbuf_add_str(&raw, in);
    header_edit(&whole, &rules, &raw, true, &first);
    MUST(raw.n == 0);
    for (size_t at = 0; at < in.n; at += step) {
        bool last = at + step >= in.n;
        sbuf_add(&raw, in.p + at, last ? in.n - at : step);
        header_edit(&pieces, &rules, &raw, last, &second);
    }
    MUST(raw.n == 0 && str_eq(sbuf_str(&first), sbuf_str(&second)));
    sbuf_free(&raw);
    sbuf_free(&first);
    sbuf_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    struct str in = str_make((const char *)p, n);
    size_t step = 1U + fuzz_byte(&in);
    struct header_scan whole = {0}, pieces = {0}, dropped = {0};
    size_t off = 0;
    edits(in, step);
    header_scan(&whole, in, true);
    for (size_t have = step; have < in.n && !pieces.ended; have += step)
        header_scan(&pieces, str_make(in.p, have), false);
    if (!pieces.ended)
        header_scan(&pieces, in, true);
    for (size_t have = step; !dropped.ended; have += step) {
        bool last = have >= in.n;
        header_scan(&dropped, str_make(in.p + off, (last ? in.n : have) - off), last);
        if (!dropped.ended) {
            off += dropped.at;
            header_drop(&dropped, dropped.at);
        }
    }
    MUST(dropped.end + off == whole.end && dropped.no_separator == whole.no_separator);
    MUST(dropped.received == whole.received &&
         str_eq(sbuf_str(&whole.message_id), sbuf_str(&dropped.message_id)));
    header_scan_free(&dropped);
    MUST(whole.ended && pieces.ended && whole.end == pieces.end && whole.end <= in.n);
    MUST(whole.received == pieces.received && whole.has_date == pieces.has_date);
    MUST(str_eq(sbuf_str(&whole.message_id), sbuf_str(&pieces.message_id)));
    header_scan_free(&whole);
    header_scan_free(&pieces);
    return 0;
}
