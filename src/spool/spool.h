/*
 * spool/spool.h - the door to the store of accepted mail
 *
 * An append-only log in segments with one writer thread.  Any thread submits operations; those that
 * are waiting when the writer is free make a batch: their records are written together and synced
 * once.  Then the writer calls done() of each operation.  An operation has succeeded when its own
 * segment is durable beyond its records.  A message is ours when done() has said 0 for it, and only
 * then may 250 be sent.
 *
 * The spool does not know what an envelope or progress is: they are bytes.  A segment is removed
 * only when it is the oldest, so the record that a message is done outlives the message.  What is
 * still queued in the oldest segment is copied to the end, a little after each batch, when dead
 * bytes outweigh it.
 */
#ifndef PH_SPOOL_SPOOL_H
#define PH_SPOOL_SPOOL_H

#include "spool/types.h"

/* A file beside the spool's folders: mail is on its way to or from another program's queue, which
 * the text names, and the daemon does not start. */
#define SPOOL_MOVING     "moving"
#define SPOOL_MOVING_MAX 8192U

struct spool;

/* Locks the spool (two processes must not write to it), recovers what is there and calls found()
 * for each message; what found() gets is valid during the call.  Then the spool can be started.  On
 * failure negative errno with *why, which the caller frees; *out is for spool_close() in any case.
 */
int spool_open(struct spool **out, const struct spool_conf *conf, const struct spool_io *io,
               void (*found)(void *arg, const struct spool_found *f), void *arg, char **why);
/* Starts the writer and the reader thread; 0 or negative errno. */
int spool_start(struct spool *s);
/* Finishes what is submitted, then stops the threads and frees everything. */
void spool_close(struct spool *s);
/* Waits until everything submitted so far is durable, or was tried and is kept to be written again;
 * any thread but the spool's. */
void spool_flush(struct spool *s);
/* Any thread.  op lives until done() is called; the spool never frees it. */
void spool_submit(struct spool *s, struct spool_op *op);
/* n more (or fewer) clients are in the middle of a message: a hint for how long a batch waits. */
void spool_expect(struct spool *s, int n);
/* Bytes free on the spool's disk, at most a second old; negative errno: the disk does not say. */
int64_t spool_space(const struct spool *s);
/* Could some progress or end of a message not be written twice in a row, or neither a message nor
 * that it does not count?  It is tried again. Any thread. */
bool spool_is_behind(const struct spool *s);
/* Has the spool found something at its start that it could not make durable, and a power cut may
 * take again?  To be asked before spool_start; afterwards the spool goes on trying for a while. */
bool spool_is_soft(const struct spool *s);
void spool_stats(struct spool *s, struct spool_stats *out);
/* Does what an operation has ended with say that there is no room for the message?  (It may fit
 * when there is more.) */
bool spool_is_full(int rc);
/* A simple op for progress or done, freed by itself. */
void spool_note(struct spool *s, enum spool_kind kind, uint64_t id, struct sbuf *meta);

/* One turn of the writer without its thread: takes what is submitted, runs it as one batch, then
 * the reads.  For tests that must be repeatable. */
void spool_turn(struct spool *s);

#endif
