/* Status reports about any message, error and address. */
#include "report/dsn.h"
#include "bundle.h"
#include "fuzz.h"

static void check(struct str text) {
    size_t line = 0;
    for (size_t i = 0; i < text.n; i++) {
        MUST(text.p[i] != '\n' || (i > 0 && text.p[i - 1] == '\r'));
        line = text.p[i] == '\n' ? 0 : line + 1;
    }
    MUST(text.n >= 2 && text.p[text.n - 1] == '\n' && line == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    static struct config *cfg;
    struct str in = str_make((const char *)p, n);
    struct rcpt rcpts[3];
    memset(rcpts, 0, sizeof rcpts);
    struct mailerr errs[3] = {{0}};
    struct dsn_rcpt list[3];
    struct sbuf content = {0}, original = {0};
    fuzz_quiet();
    if (cfg == NULL)
        cfg = bundle_config(STR_LIT("myhostname = mta.example\n"), STR_LIT(""));
    struct envelope t = {.id = 1, .qid = "ABC", .n_rcpts = 3, .rcpts = rcpts};
    uint8_t how = fuzz_byte(&in);
    t.flags = how & 63U;
    t.sender = fuzz_line(&in);
    t.envid = fuzz_line(&in);
    t.client = fuzz_line(&in);
    for (int i = 0; i < 3; i++) {
        rcpts[i].addr = fuzz_line(&in);
        rcpts[i].orcpt = fuzz_line(&in);
        rcpts[i].notify = fuzz_byte(&in) % 16U;
        struct str text = fuzz_line(&in);
        mailerr_set(&errs[i], MAIL_BOUNCED, "5.1.1", "%.*s", STR_FMT(text));
        if (i != 1)
            mailerr_remote(&errs[i], "relay.example", fuzz_line(&in));
    }
    struct envelope *e = envelope_make(&t);
    for (int i = 0; i < 3; i++)
        list[i] = (struct dsn_rcpt){&e->rcpts[i], &errs[i]};
    for (size_t i = 0; i < in.n; i++) { /* content has whole lines: receive sees to that */
        if (in.p[i] == '\n')
            sbuf_add_ch(&original, '\r');
        if (in.p[i] != '\r')
            sbuf_add_ch(&original, in.p[i]);
    }
    struct dsn d = {.kind = (enum dsn_kind)(how % 3),
                    .cfg = cfg,
                    .env = e,
                    .rcpts = list,
                    .n = 1U + how % 3U,
                    .original = sbuf_str(&original),
                    .original_whole = (how & 64) != 0};
    struct envelope *report = dsn_build(&d, &content);
    MUST(report->sender.n == 0);
    check(sbuf_str(&content));
    envelope_unref(report);
    envelope_unref(e);
    for (int i = 0; i < 3; i++)
        mailerr_free(&errs[i]);
    sbuf_free(&content);
    sbuf_free(&original);
    return 0;
}
