/*
 * daemon/setting.h - how a line of the configuration is shown to people, and where it stands
 */
#ifndef PH_DAEMON_SETTING_H
#define PH_DAEMON_SETTING_H

#include "config/config.h"

/* Appends the value of the setting name without what is secret of it: a listing ends up in forums,
 * and so does what check says of a name that is none. */
void setting_show(const char *name, const char *value, struct sbuf *out);

/* How the parameter that params.def calls name is called in the service, and where it is set for
 * it; svc NULL: in main.cf. */
struct setting_place {
    const char *name; /* of a transport by LMTP: lmtp_… */
    const char *file;
    int line; /* 0: nothing sets it */
};
struct setting_place setting_place(const struct config *cfg, const struct service *svc,
                                   const char *name);

#endif
