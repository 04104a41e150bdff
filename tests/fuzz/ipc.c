/* Messages between the processes, at both ends, and the encodings that the spool keeps. */
#include <sys/socket.h>
#include <unistd.h>

#include "config/source.h"
#include "fuzz.h"
#include "mail/envelope.h"
#include "maps/query.h"
#include "maps/server.h"
#include "util/ipc.h"

static bool table_allowed(void *arg, const char *spec) {
    (void)arg;
    return strcmp(spec, "inline:{a=b, c=d}") == 0 || strcmp(spec, "static:x") == 0;
}

static void server_end(struct str in) {
    static struct lookup_server *s;
    struct ipc_head head = {.type = LOOKUP_MAPS + fuzz_byte(&in) % 2U};
    struct sbuf out = {0};
    struct str fields;
    if (s == NULL) {
        s = lookup_server_new(0, "/nonexistent");
        lookup_server_allow(s, table_allowed, NULL);
    }
    lookup_server_answer(s, &head, in, &out);
    MUST(ipc_peek(sbuf_str(&out), &head, &fields) == 1 && head.type == LOOKUP_ANSWER);
    sbuf_free(&out);
}

static void on_answer(void *arg, const struct maps_answer *a) {
    (void)a;
    ++*(int *)arg;
}

/* What the lookup process might say, at the relay's end. */
static void client_end(struct str in) {
    static struct loop *l;
    static struct lookup *k;
    int fds[2], answers = 0;
    struct maps_key key = {STR_LIT("a"), false};
    if (l == NULL) {
        l = loop_new(0);
        k = lookup_new(l);
    }
    MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    lookup_attach(k, fds[0]);
    uint32_t tag = lookup_maps(k, "fuzz", "static:x", VALUES_JOINED, &key, 1, on_answer, &answers);
    uint32_t again =
        lookup_maps(k, "fuzz", "static:x", VALUES_JOINED, &key, 1, on_answer, &answers);
    if (in.n >= 12 && (in.p[0] & 1) != 0) { /* the right tag, so that the fields are looked at */
        struct sbuf b = {0};
        sbuf_add_str(&b, in);
        memcpy(b.p + 8, &tag, sizeof tag);
        MUST(write(fds[1], b.p, b.n) == (ssize_t)b.n);
        sbuf_free(&b);
    } else if (in.n > 0) {
        MUST(write(fds[1], in.p, in.n) == (ssize_t)in.n);
    }
    close(fds[1]);
    for (int i = 0; i < 4; i++)
        uv_run(&l->uv, UV_RUN_NOWAIT);
    MUST(answers <= 1); /* a question that was asked once only is kept for the next process */
    lookup_cancel(k, tag);
    lookup_cancel(k, again);
}

/* What was read, here and below, is written as the smallest version that holds it: older and larger
 * ones come out otherwise. */
static void stored_envelope(struct str in) {
    struct envelope *e = envelope_decode(in), *again;
    struct sbuf out = {0}, out_again = {0};
    if (e == NULL)
        return;
    envelope_encode(e, &out);
    MUST((again = envelope_decode(sbuf_str(&out))) != NULL);
    envelope_encode(again, &out_again);
    MUST(str_eq(sbuf_str(&out), sbuf_str(&out_again)));
    MUST(in.p[0] != out.p[0] || str_eq(sbuf_str(&out), in));
    envelope_unref(e);
    envelope_unref(again);
    sbuf_free(&out);
    sbuf_free(&out_again);
}

static void stored_progress(struct str in) {
    struct progress p;
    struct sbuf out = {0};
    if (!progress_decode(&p, in))
        return;
    progress_encode(&p, &out);
    MUST(in.p[0] != out.p[0] || str_eq(sbuf_str(&out), in));
    progress_free(&p);
    sbuf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    struct str in = str_make((const char *)p, n > 60000 ? 60000 : n);
    fuzz_quiet();
    uint8_t which = fuzz_byte(&in) % 4;
    if (which == 0)
        server_end(in);
    else if (which == 1)
        client_end(in);
    else if (which == 2) {
        stored_envelope(in);
        stored_progress(in);
    } else {
        struct ipc_reader r = {.rest = in};
        cfg_source_free(cfg_source_get(&r));
    }
    return 0;
}
