/*
 * transfer/moving.c - see moving.h
 */
#include "transfer/moving.h"

#include <errno.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* What a file takes besides its bytes: the rest of its last block, and its place in a folder. */
#define FILE_BYTES 8192U

int moving_begin(struct transfer *t) {
    int rc = t->begun ? 0 : pfqueue_make_folder(t->theirs);
    if (rc == 0 && !t->begun)
        rc = ours_mark(t->ours, t->theirs->dir);
    t->begun = t->begun || rc == 0;
    return rc;
}

/* What a file system does not say, it has. */
int moving_has_room(const char *dir, uint64_t bytes, uint64_t files, char **why) {
    struct statvfs st;
    struct sbuf text = {0};
    if (files == 0 || statvfs(dir, &st) < 0)
        return 0;
    uint64_t need = bytes + files * FILE_BYTES;
    uint64_t room = (geteuid() == 0 ? st.f_bfree : st.f_bavail) * (uint64_t)st.f_frsize;
    if (need <= room && (st.f_files == 0 || files <= st.f_ffree))
        return 0;
    sbuf_printf(
        &text,
        "%s has no room for %llu message%s: some %llu KiB are needed, and %llu KiB and %llu "
        "files are free",
        dir, (unsigned long long)files, files == 1 ? "" : "s", (unsigned long long)need >> 10,
        (unsigned long long)room >> 10, (unsigned long long)st.f_ffree);
    *why = sbuf_take(&text);
    return -ENOSPC;
}
