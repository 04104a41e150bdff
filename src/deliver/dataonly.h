/*
 * deliver/dataonly.h - relay hosts that are given content by DATA, whatever they offer
 *
 * A host said 250 to the last chunk of BDAT, and what came behind it did not confirm that this was
 * the answer to the content.  The mail may have to wait, and then comes to the host twice.  By DATA
 * there is no such doubt, so it happens once a host and not at each attempt.  Any thread.  The
 * process remembers the last DATA_ONLY_MAX hosts until it ends.
 */
#ifndef PH_DELIVER_DATAONLY_H
#define PH_DELIVER_DATAONLY_H

#include "util/net.h"

#define DATA_ONLY_MAX 256U

/* From now on the host at this address and port is given DATA. */
void data_only_add(const struct netaddr *host);
bool data_only_has(const struct netaddr *host);

#endif
