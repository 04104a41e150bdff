/*
 * daemon/check_words.h - words of the configuration that are none, and services without an address
 */
#ifndef PH_DAEMON_CHECK_WORDS_H
#define PH_DAEMON_CHECK_WORDS_H

#include "config/config.h"

/* Of parameters that take a word, or a list of words. */
void check_words(const struct config *cfg, struct diags *d);
/* Of services whose addresses inet_protocols leaves out. */
void check_listeners(const struct config *cfg, struct diags *d);

#endif
