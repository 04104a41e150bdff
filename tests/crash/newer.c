/*
 * tests/crash/newer.c - what a newer version may have left in a spool: newer DIR, while no daemon
 * runs
 *
 * The first message gets a record of progress of a version that is not there yet, and a copy of its
 * content is stored under an envelope of such a version.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "spool/spool.h"
#include "util/ipc.h"

static uint64_t first;

static void newer_found(void *arg, const struct spool_found *f) {
    (void)arg;
    if (first == 0 || f->id < first)
        first = f->id;
}

static void newer_done(struct spool_op *op) {
    (void)op;
}

static void put_version(struct sbuf *b) {
    ipc_put_u32(b, 99);
    sbuf_add_c(b, "what comes then is not known");
}

int main(int argc, char **argv) {
    struct spool_conf conf = {".", 1U << 20};
    struct spool *s;
    struct sbuf progress = {0};
    char *why = NULL;
    if (argc != 2 || chdir(argv[1]) < 0 ||
        spool_open(&s, &conf, &spool_io_disk, newer_found, NULL, &why) < 0 || first == 0)
        return 1;
    struct spool_op get = {.kind = SPOOL_READ, .id = first, .done = newer_done};
    spool_submit(s, &get);
    spool_turn(s);
    spool_turn(s);
    struct spool_op put = {
        .kind = SPOOL_NEW, .id = first + 1, .body = get.body, .done = newer_done};
    put_version(&put.meta);
    put_version(&progress);
    spool_submit(s, &put);
    spool_note(s, SPOOL_PROGRESS, first, &progress);
    spool_turn(s);
    printf("%016llx\n", (unsigned long long)first + 1);
    body_unref(get.body);
    sbuf_free(&put.meta);
    spool_close(s);
    return get.rc != 0 || put.rc != 0;
}
