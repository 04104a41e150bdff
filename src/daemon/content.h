/*
 * daemon/content.h - a queued message with its content, for the control socket
 *
 * On the scheduler's loop.  A reader is its client's until it has called done, which comes from the
 * loop, or until content_forget.
 */
#ifndef PH_DAEMON_CONTENT_H
#define PH_DAEMON_CONTENT_H

#include "schedule/schedule.h"
#include "spool/spool.h"
#include "util/conn.h"

struct content_reader;

/* Has the message read from the spool, and writes it to conn: a line with the message as a listing
 * has it, one with its envelope, any number of lines {"content": base64}, the last one with "ok".
 * Then it calls done, and is gone. */
struct content_reader *content_reader_new(struct loop *l, struct spool *sp,
                                          const struct sched_view *v, struct conn *conn,
                                          void (*done)(void *arg), void *arg);
/* The connection has taken what was written. */
void content_more(struct content_reader *r);
/* Nothing more is written, and done is not called any more; r may be NULL. */
void content_forget(struct content_reader *r);

#endif
