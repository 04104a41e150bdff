/*
 * transfer/maildrop.h - mail that programs of the machine gave Postfix, and it has not read yet
 *
 * Its addresses may have no domain and its header may lack fields: it becomes what sendmail(1) of
 * Posthouse would have made of it.  No state; any thread.
 */
#ifndef PH_TRANSFER_MAILDROP_H
#define PH_TRANSFER_MAILDROP_H

#include <sys/types.h>

#include "config/config.h"
#include "transfer/queuefile.h"

/* Completes addresses, header and flags of q, which was read from a file of maildrop that uid owns.
 * texts keeps what q then has views into; the caller frees it after q's last use. */
void maildrop_complete(struct queuefile *q, const struct config *cfg, const char *qid, uid_t uid,
                       struct sbuf *texts);

#endif
