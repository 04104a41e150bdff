/*
 * daemon/unread_say.h - says what a configuration sets that Posthouse does not do
 */
#ifndef PH_DAEMON_UNREAD_SAY_H
#define PH_DAEMON_UNREAD_SAY_H

#include "config/config.h"

/* Everything that is refused, each once, and then what is accepted though it is not done, and what
 * is accepted and is done now: remarks of the level refused, and warnings. */
void unread_say_refused(const struct config *cfg, enum diag_level refused, struct diags *d);
/* Names in accept_unimplemented that mean nothing are errors. */
void unread_check_accepted(const struct config *cfg, struct diags *d);
/* What is harmless, by reasons, and the names that neither Postfix nor Posthouse has: notes. */
void unread_say_rest(const struct config *cfg, struct diags *d);

/* Calls fn with each refusal that is not accepted, once, and with the services that it is about, as
 * "smtp, submission and sendmail". */
void unread_each_refused(const struct config *cfg,
                         void (*fn)(void *arg, const struct refusal *x, const char *services),
                         void *arg);

#endif
