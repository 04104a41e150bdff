/*
 * config/master_cf.h - master.cf: listeners and named transports (master(5))
 */
#ifndef PH_CONFIG_MASTER_CF_H
#define PH_CONFIG_MASTER_CF_H

#include "config/config.h"

/* Appends the services of text to c (kind, name, command, overrides); remarks go to c->diags. */
void master_cf_parse(struct config *c, const char *path, struct str text);
/* The transport of that name that was read so far; NULL: there is none. */
const struct service *master_cf_transport(const struct config *c, struct str name);
/* The services that exist without a master.cf. */
void master_cf_defaults(struct config *c);
/* Adds transports that always exist (error, retry, discard) unless they are there. */
void master_cf_builtin(struct config *c);

#endif
