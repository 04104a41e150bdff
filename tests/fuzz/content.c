/* Message content over DATA and BDAT, in pieces; what is sent on decodes to the same. */
#include "smtp/content.h"
#include "fuzz.h"

static void check_lines(const struct sbuf *b) {
    for (size_t i = 0; i < b->n; i++) {
        MUST(b->p[i] != '\n' || (i > 0 && b->p[i - 1] == '\r'));
        MUST(b->p[i] != '\r' || i + 1 == b->n || b->p[i + 1] == '\n');
    }
}

/* Stuffed for DATA and read back by our own server: unchanged, and ended where it ends. */
static void round_trip(const struct sbuf *content) {
    struct content_out o = {0};
    struct content_in in = {0};
    struct sbuf wire = {0}, back = {0};
    size_t used = 0;
    content_stuff(&o, sbuf_str(content), 0, &wire);
    size_t end = wire.n;
    sbuf_add_c(&wire, ".\r\nQUIT\r\n");
    MUST(content_data(&in, sbuf_str(&wire), &back, &used));
    MUST(used == end + 3 && str_eq(sbuf_str(&back), sbuf_str(content)));
    sbuf_reset(&wire);
    o = (struct content_out){0};
    content_fold(&o, sbuf_str(content), 998, &wire);
    sbuf_free(&wire);
    sbuf_free(&back);
}

/* A look at what was decoded finds what the decoder found, wherever it is cut. */
static void look_again(const struct content_in *decoder, const struct sbuf *content, size_t cut) {
    struct content_in in = {0};
    cut = content->n == 0 ? 0 : cut % content->n;
    content_look(&in, str_make(content->p, cut));
    content_look(&in, str_from(sbuf_str(content), cut));
    MUST(in.has_8bit <= decoder->has_8bit && in.has_long == decoder->has_long);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    struct str in = str_make((const char *)p, n);
    uint8_t how = fuzz_byte(&in);
    size_t step = 1U + fuzz_byte(&in), used;
    struct content_in c = {0};
    struct sbuf out = {0}, have = {0};
    bool over = false;
    while (in.n > 0 && !over) {
        struct str piece = fuzz_piece(&in, step);
        if ((how & 1) != 0) {
            content_bdat(&c, piece, &out);
            continue;
        }
        sbuf_add_str(&have, piece);
        over = content_data(&c, sbuf_str(&have), &out, &used);
        MUST(used <= have.n);
        sbuf_drop(&have, used);
    }
    if ((how & 1) != 0)
        content_bdat_end(&c, &out);
    if (over || (how & 1) != 0) {
        check_lines(&out);
        MUST(out.n == 0 || out.p[out.n - 1] == '\n');
        round_trip(&out);
        look_again(&c, &out, (size_t)how * step);
    }
    sbuf_free(&out);
    sbuf_free(&have);
    return 0;
}
