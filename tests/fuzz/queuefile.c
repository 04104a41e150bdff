/* Postfix's queue files, and what it notes beside them: read, written, and read again the same. */
#include "transfer/queuefile.h"
#include "fuzz.h"
#include "transfer/reasons.h"
#include "util/mem.h"

static void notes_again(const struct envelope *env, struct str file, const uint64_t *offsets) {
    struct sbuf text = {0};
    struct progress p = {.n = env->n_rcpts, .done = mem_zalloc(env->n_rcpts)};
    struct progress again = {.n = env->n_rcpts, .done = mem_zalloc(env->n_rcpts)};
    memset(p.done, RCPT_DONE, p.n / 2);
    reasons_revive(&p, env, file);
    reasons_note(&p, env, file);
    reasons_note(&p, env, file);
    reasons_write(&text, env, &p, offsets);
    memcpy(again.done, p.done, p.n);
    reasons_note(&again, env, sbuf_str(&text));
    MUST(again.n_errors <= p.n);
    progress_free(&p);
    progress_free(&again);
    sbuf_free(&text);
}

static void envelopes_equal(const struct envelope *a, const struct envelope *b) {
    MUST(a->n_rcpts == b->n_rcpts && a->arrival_us == b->arrival_us && a->size == b->size);
    MUST(a->flags == b->flags && str_eq(a->sender, b->sender) && str_eq(a->envid, b->envid));
    MUST(str_eq(a->client, b->client) && str_eq(a->sasl_user, b->sasl_user));
    for (uint32_t i = 0; i < a->n_rcpts; i++) {
        MUST(str_eq(a->rcpts[i].addr, b->rcpts[i].addr) &&
             a->rcpts[i].notify == b->rcpts[i].notify);
        MUST(str_eq(a->rcpts[i].orcpt, b->rcpts[i].orcpt));
    }
}

/* What follows MARK is what is noted beside the file. */
#define MARK "\nnotes\n"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    struct str file = str_make((const char *)p, n), notes = STR_NONE;
    const char *cut = n == 0 ? NULL : memmem(p, n, MARK, strlen(MARK));
    struct queuefile q, again;
    struct sbuf text = {0}, copy = {0};
    if (cut != NULL) {
        notes = str_from(file, (size_t)(cut - file.p) + strlen(MARK));
        file.n = (size_t)(cut - file.p);
    }
    if (queuefile_read(&q, file) == NULL) {
        struct envelope *env = queuefile_envelope(&q, "4ABC");
        uint64_t *offsets = mem_zalloc((env->n_rcpts + 1) * sizeof *offsets);
        uint8_t *done = mem_zalloc(env->n_rcpts + 1);
        struct queuefile_state st = {done, q.warned};
        done[0] = RCPT_DONE;
        sbuf_add_str(&copy, sbuf_str(&q.content));
        struct body *body = body_from_buf(&copy);
        MUST(queuefile_write(&text, env, &st, body, offsets));
        MUST(queuefile_read(&again, sbuf_str(&text)) == NULL && again.warned == q.warned);
        MUST(str_eq_c(again.ident, "4ABC") && again.rcpts[0].state == RCPT_DONE);
        MUST(str_eq(sbuf_str(&again.content), sbuf_str(&q.content)));
        for (uint32_t i = 0; i < env->n_rcpts; i++)
            MUST(text.p[offsets[i]] == (i == 0 ? 'D' : 'R'));
        struct envelope *same = queuefile_envelope(&again, "4ABC");
        envelopes_equal(env, same);
        notes_again(env, notes, offsets);
        envelope_unref(same);
        envelope_unref(env);
        body_unref(body);
        queuefile_free(&again);
        free(offsets);
        free(done);
    }
    queuefile_free(&q);
    sbuf_free(&text);
    return 0;
}
