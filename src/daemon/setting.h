/*
 * daemon/setting.h - how a line of the configuration is shown to people
 */
#ifndef PH_DAEMON_SETTING_H
#define PH_DAEMON_SETTING_H

#include "util/str.h"

/* Appends the value of the setting name without what is secret of it: a listing ends up in forums,
 * and so does what check says of a name that is none. */
void setting_show(const char *name, const char *value, struct sbuf *out);

#endif
