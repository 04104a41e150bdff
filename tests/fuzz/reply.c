/* Replies of a remote server, arriving in pieces. */
#include "smtp/reply.h"
#include "fuzz.h"
#include "mail/mailerr.h"
#include "smtp/sasl.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    struct str in = str_make((const char *)p, n);
    struct smtp_reply r = {0};
    struct sbuf have = {0}, line = {0}, mechs = {0};
    size_t step = 1U + fuzz_byte(&in), used;
    char dsn[12];
    while (in.n > 0) {
        sbuf_add_str(&have, fuzz_piece(&in, step));
        enum reply_rc rc;
        do {
            used = 0;
            rc = smtp_reply_feed(&r, sbuf_str(&have), &used);
            MUST(used <= have.n && r.text.n < 100000);
            sbuf_drop(&have, used);
            if (rc == REPLY_DONE) {
                MUST(r.code >= 100 && r.code <= 999);
                sbuf_reset(&line);
                smtp_reply_line(&r, &line);
                dsn_from_reply(dsn, r.code, smtp_reply_last(&r));
                MUST(strlen(dsn) >= 5);
                sbuf_reset(&mechs);
                sasl_filter(sbuf_str(&r.text), STR_LIT("!gssapi, static:all"), &mechs);
                if (mechs.n > 0)
                    sasl_choose(sbuf_str(&mechs), 0);
                smtp_reply_reset(&r);
            }
        } while (rc == REPLY_DONE);
        if (rc == REPLY_BAD)
            break;
    }
    smtp_reply_free(&r);
    sbuf_free(&have);
    sbuf_free(&line);
    sbuf_free(&mechs);
    return 0;
}
