/*
 * spool/index.h - which messages are queued, and where their records are
 */
#ifndef PH_SPOOL_INDEX_H
#define PH_SPOOL_INDEX_H

#include "spool/inside.h"

/* What is said of a message that is not there is ignored. */

/* A message's record; makes its entry if there is none. */
void entry_set(struct spool *s, uint64_t id, struct segment *seg, uint64_t off, uint32_t meta_len,
               uint64_t body_len);
/* Its progress, which has no steps yet; meta_len 0: none. */
void entry_set_progress(struct spool *s, uint64_t id, struct segment *seg, uint64_t off,
                        uint32_t meta_len);
/* A step behind its progress. */
void entry_add_step(struct spool *s, uint64_t id, struct segment *seg, uint64_t off,
                    uint32_t meta_len);
/* The message's content is damaged; nothing of it is deleted from now on. */
void entry_set_damaged(struct spool *s, uint64_t id);
/* The end of the message is about to be written.  A content file that is damaged goes to damaged/
 * before that: behind the end it would be one that no record names, which a start deletes. */
void entry_ends(struct spool *s, uint64_t id);
/* Forgets a message; entry_del also removes its content file, if any: to damaged/ if it is damaged.
 */
void entry_drop(struct spool *s, uint64_t id);
void entry_del(struct spool *s, uint64_t id);

#endif
