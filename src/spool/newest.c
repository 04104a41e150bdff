/*
 * spool/newest.c - which segments are the newest and the oldest, as a file beside the log has it
 *
 * Spool thread only (and the starting thread during recovery).  Each segment tells of the one
 * before it; of the newest one nothing in the log does, nor whether the one before the oldest went
 * in its time.  So the lock file, which is open anyway, has the number and salt of the newest and
 * the number of the oldest.  Where that cannot be written, or is what it was before a crash, a
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
    /* What an older version has not written, or has left as it was when it wrote the rest: */
    uint64_t oldest_no; /* 0: none */
    uint32_t all_crc;   /* CRC32C of what stands before it */
    uint32_t also_unused;
};

#define NEWEST_MARK_OLD offsetof(struct newest_mark, oldest_no)

static uint32_t newest_crc(const struct newest_mark *m) {
    return crc32c(0, m, offsetof(struct newest_mark, crc));
}

static uint32_t newest_all_crc(const struct newest_mark *m) {
    return crc32c(0, m, offsetof(struct newest_mark, all_crc));
}

void newest_read(struct spool *s) {
    struct newest_mark m = {0};
    int64_t size = s->io->size(s->io->arg, s->lock_fd);
    if (size == 0) /* no version that knows of it has written to the spool */
        return;
    size_t n = size < (int64_t)sizeof m ? NEWEST_MARK_OLD : sizeof m;
    bool good = size > 0 && disk_read(s, s->lock_fd, &m, n, 0) == 0 && m.crc == newest_crc(&m);
    s->newest_no = good ? m.no : 0;
    s->newest_salt = good ? m.salt : 0;
    s->newest_unsure = !good;
    s->oldest_no = good && n == sizeof m && m.all_crc == newest_all_crc(&m) ? m.oldest_no : 0;
}

/* Says if the segment before the oldest one of the log has not gone in its time. */
static void newest_check_oldest(struct spool *s) {
    if (s->oldest_no == 0 || s->before_oldest < s->oldest_no)
        return;
    log_error("spool",
              "segment %016llx, the one before the oldest, is missing from log/: what was queued "
              "only there is lost",
              (unsigned long long)s->before_oldest);
    s->st.damaged++;
}

void newest_check(struct spool *s) {
    uint64_t no = s->newest_no;
    newest_check_oldest(s);
    s->oldest_no = 0; /* it may be in memory only: a sync that failed before this start */
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

static int newest_write(struct spool *s, uint64_t no, uint64_t salt, uint64_t oldest) {
    struct newest_mark m = {.no = no, .salt = salt, .oldest_no = oldest};
    struct iovec iov = {&m, sizeof m};
    m.crc = newest_crc(&m);
    m.all_crc = newest_all_crc(&m);
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
    s->oldest_no = rc == 0 ? oldest : 0;
    return rc;
}

/* The number of the oldest segment, but for gone and for segments that are unlinked: a power cut
 * may take these away.  0: there is none. */
static uint64_t oldest_without(const struct spool *s, const struct segment *gone) {
    DL_EACH (it, &s->segments) {
        const struct segment *g = DL_OWNER(it, struct segment, link);
        if (g != gone && !g->unlinked)
            return g->no;
    }
    return 0;
}

void newest_is(struct spool *s, const struct segment *g) {
    newest_write(s, g->no, g->salt, oldest_without(s, NULL));
}

int newest_goes(struct spool *s, const struct segment *g) {
    if (s->newest_unsure && s->newest_no == 0)
        newest_read(s); /* the file may name g all the same */
    uint64_t oldest = oldest_without(s, g);
    /* Only g shows that an older one which the file names went in its time. */
    bool names_older = s->newest_no != 0 && s->newest_no < g->no;
    if (names_older || (g->no == s->newest_no && g->salt == s->newest_salt))
        return newest_write(s, 0, 0, oldest);
    return oldest == s->oldest_no ? 0 : newest_write(s, s->newest_no, s->newest_salt, oldest);
}
