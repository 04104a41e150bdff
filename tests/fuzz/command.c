/* SMTP commands as the server takes them apart: verb, path, parameters. */
#include "smtp/command.h"
#include "fuzz.h"
#include "mail/address.h"

static void path(struct str args, size_t skip, uint8_t flags) {
    struct addr_opts o = {(flags & 1) != 0, (flags & 2) != 0, (flags & 4) != 0};
    struct sbuf out = {0}, again = {0}, internal = {0};
    struct str text = str_trim(str_from(args, skip)), key, value;
    size_t used = 0;
    if (addr_parse(text, &o, &out, &used) == ADDR_OK) {
        MUST(used <= text.n && out.n <= ADDR_MAX);
        struct str rest = str_from(text, used);
        while (smtp_param_next(&rest, &key, &value)) {
            struct sbuf x = {0};
            xtext_decode(&x, value);
            sbuf_free(&x);
        }
        /* What we send for it means the same to us. */
        sbuf_add_ch(&again, '<');
        addr_external(&again, sbuf_str(&out));
        sbuf_add_ch(&again, '>');
        struct addr_opts all = {false, true, true};
        if (again.n < ADDR_MAX && memchr(out.p == NULL ? "" : out.p, '\0', out.n) == NULL) {
            MUST(addr_parse(sbuf_str(&again), &all, &internal, &used) == ADDR_OK);
            MUST(str_eq(sbuf_str(&internal), sbuf_str(&out)));
        }
    }
    sbuf_free(&out);
    sbuf_free(&again);
    sbuf_free(&internal);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    struct str in = str_make((const char *)p, n), args;
    uint8_t flags = fuzz_byte(&in);
    while (in.n > 0) {
        struct str line = fuzz_line(&in);
        enum smtp_verb v = smtp_verb_parse(line, &args);
        MUST(v < VERB_COUNT && smtp_verb_name(v, true) != NULL);
        if (v == VERB_MAIL && str_istarts(args, "FROM:"))
            path(args, 5, flags);
        if (v == VERB_RCPT && str_istarts(args, "TO:"))
            path(args, 3, flags);
    }
    return 0;
}
