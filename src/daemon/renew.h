/*
 * daemon/renew.h - certificates that were renewed: their files are looked at now and then
 *
 * The supervisor's one thread.  What has changed and can be used is put into a configuration that
 * is else the one in use; a pair that cannot be used stays what it was.
 */
#ifndef PH_DAEMON_RENEW_H
#define PH_DAEMON_RENEW_H

#include "config/config.h"

/* Milliseconds until renew_look is to be called again; -1: the configuration
 * in use names no file. */
int renew_wait_ms(void);
/* Looks at the files of certificates, keys and trust anchors that cfg, the configuration in use,
 * names.  A new configuration with their new content, the caller's, or NULL: nothing has changed,
 * or it cannot be used, which the log says once. */
struct config *renew_look(const struct config *cfg);
/* The files as they are now are in use: a configuration has been read whole. */
void renew_begin(const struct config *cfg);

#endif
