/*
 * transfer/ours.h - Posthouse's spool, while the daemon is stopped
 *
 * One thread; blocks on the disk.  Nothing is durable before ours_commit has said so.
 */
#ifndef PH_TRANSFER_OURS_H
#define PH_TRANSFER_OURS_H

#include "config/config.h"
#include "mail/envelope.h"
#include "spool/spool.h"
#include "util/htab.h"

/* A message of the spool. */
struct ours_message {
    uint64_t id;
    struct envelope *env;
    struct sbuf progress; /* encoded; empty: never tried */
    char *key;
};

struct ours {
    const char *dir; /* queue_directory */
    struct spool *spool;
    struct spool_io io; /* what it makes belongs to the directory's owner */
    int master_fd;      /* of master.pid, locked: the daemon cannot start; -1: not open */
    struct ours_message **v;
    size_t n, room;
    struct htab known; /* by key */
    size_t unreadable; /* messages that this version cannot read */
    size_t pending;    /* operations that were not committed yet */
    size_t bytes;      /* of content in them */
    int rc;            /* the first error of an operation since the last commit */
};

/* Locks and reads the spool; queue_directory is made if it is missing.  0 or negative errno with
 * *why, which the caller frees: -EAGAIN says that the daemon is running.  ours_close in any case.
 */
int ours_open(struct ours *o, const struct config *cfg, char **why);
void ours_close(struct ours *o);

/* The message with that queue ID, or else that other one, and time of arrival; NULL: there is none.
 */
const struct ours_message *ours_find(const struct ours *o, const char *qid, struct str other,
                                     int64_t arrival_us);
/* Has any message that queue ID? */
bool ours_has_qid(const struct ours *o, const char *qid);
/* Adds a message, with an id of its own; takes the reference, content and progress over.  progress
 * may be empty. */
void ours_add(struct ours *o, struct envelope *env, struct sbuf *content, struct sbuf *progress);
/* A message that is there gets another progress, which is taken over. */
void ours_note(struct ours *o, uint64_t id, struct sbuf *progress);
/* A message is no longer Posthouse's. */
void ours_end(struct ours *o, uint64_t id);
/* Everything since the last commit is durable (0), or nothing is known of it (negative errno). */
int ours_commit(struct ours *o);
/* The content of a message, the caller's reference; NULL: the disk does not give it back. */
struct body *ours_read(struct ours *o, uint64_t id);

/* Is it said that mail is on its way to or from that queue?  0, 1, or negative errno: -EBUSY if it
 * is said of another one. */
int ours_marked(const struct ours *o, const char *queue);
/* Says that; 0 or negative errno, as above. */
int ours_mark(const struct ours *o, const char *queue);
int ours_unmark(const struct ours *o);

#endif
