/*
 * spool/newest.c - which segment is the newest, as a file beside the log has it
 *
 * Spool thread only (and the starting thread during recovery).  Each segment tells of the one
 * before it; of the newest one nothing in the log does.  So the lock file, which is open anyway,
 * has its number and salt.  Where that cannot be written, or is what it was before a crash, a
 * newest segment that is missing may go unnoticed: mail is not refused for that.
 */
#include "spool/newest.h"

#include <string.h>

#include "spool/segment.h"
#include "util/codec.h"
#include "util/log.h"

/* All that is in the file. */
struct newest_mark {
    uint64_t no, salt; /* 0: none */
    uint32_t crc;      /* CRC32C of what stands before it */
    uint32_t unused;
};

static uint32_t newest_crc(const struct newest_mark *m) {
    return crc32c(0, m, offsetof(struct newest_mark, crc));
}

void newest_read(struct spool *s) {
    struct newest_mark m = {0};
    int64_t size = s->io->size(s->io->arg, s->lock_fd);
    if (size == 0) /* no version that knows of it has written to the spool */
        return;
    bool good =
        size > 0 && disk_read(s, s->lock_fd, &m, sizeof m, 0) == 0 && m.crc == newest_crc(&m);
    s->newest_no = good ? m.no : 0;
    s->newest_salt = good ? m.salt : 0;
    s->newest_unsure = !good;
}

void newest_check(struct spool *s) {
    uint64_t no = s->newest_no;
    DL_EACH (it, &s->segments) {
        const struct segment *g = DL_OWNER(it, struct segment, link);
        if (g->no > no || (g->no == no && g->salt == s->newest_salt))
            return;
    }
    if (no == 0)
        return;
    log_error("spool",
              "segment %016llx, the newest one, is missing from log/: what was queued only there "
              "is lost",
              (unsigned long long)no);
    s->st.damaged++;
    if (s->next_no <= no) /* the file may be found again, and is older than what comes now */
        s->next_no = no + 1;
}

static void newest_write(struct spool *s, uint64_t no, uint64_t salt) {
    struct newest_mark m = {.no = no, .salt = salt};
    struct iovec iov = {&m, sizeof m};
    m.crc = newest_crc(&m);
    int rc = disk_write(s, s->lock_fd, &iov, 1, 0, NULL);
    if (rc == 0)
        rc = s->io->datasync(s->io->arg, s->lock_fd);
    if (rc < 0)
        log_warn(
            "spool",
            "%s/lock cannot be written: %s; if the newest segment gets lost, that may go unnoticed",
            s->dir, strerror(-rc));
    s->newest_no = no;
    s->newest_salt = salt;
}

void newest_is(struct spool *s, const struct segment *g) {
    newest_write(s, g->no, g->salt);
}

void newest_goes(struct spool *s, const struct segment *g) {
    if (s->newest_unsure && s->newest_no == 0)
        newest_read(s); /* the file may name g all the same */
    /* Only g shows that an older one which the file names went in its time. */
    bool names_older = s->newest_no != 0 && s->newest_no < g->no;
    if (names_older || (g->no == s->newest_no && g->salt == s->newest_salt))
        newest_write(s, 0, 0);
}
