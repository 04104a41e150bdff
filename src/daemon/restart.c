/*
 * daemon/restart.c - what a reload would change and only a restart does; see restart.h
 */
#include "daemon/restart.h"

#include <stdlib.h>
#include <string.h>

#include "util/log.h"

/* Read once: by the supervisor, or to open the spool, the log and the sockets. */
static const char *const once[] = {"queue_directory", "mail_owner",        "maillog_file",
                                   "inet_interfaces", "inet_protocols",    "relay_threads",
                                   "syslog_facility", "spool_segment_size"};

void restart_say(const struct config *begun, const struct config *now) {
    for (size_t i = 0; i < sizeof once / sizeof once[0]; i++) {
        char *old = config_value(begun, once[i], NULL), *new = config_value(now, once[i], NULL);
        if (old != NULL && new != NULL && strcmp(old, new) != 0)
            log_warn("master",
                     "ignoring %s parameter value change: old value \"%s\", new value \"%s\"; "
                     "to change %s, stop and start Posthouse",
                     once[i], old, new, once[i]);
        free(old);
        free(new);
    }
}

void restart_freeze(const struct config *begun, struct config *now) {
    for (size_t i = 0; i < sizeof once / sizeof once[0]; i++) {
        char *value = config_value(begun, once[i], NULL);
        if (value != NULL)
            config_freeze(now, once[i], value);
        free(value);
    }
}

static bool main_is_written(const struct config *c) {
    for (size_t i = 0; i < c->main.n; i++)
        if (c->main.v[i].line > 0)
            return true;
    return false;
}

void restart_check(const struct config *now, const struct config *next, struct diags *d) {
    if (next->no_master && !now->no_master)
        diag_add(d, DIAG_ERROR, "master.cf", 0, "it is gone");
    if (!main_is_written(next) && main_is_written(now))
        diag_add(d, DIAG_ERROR, next->main.path, 0, "it is empty now");
    if (now->relays_spec[0] != '\0' && next->relays_spec[0] == '\0')
        diag_add(
            d, DIAG_ERROR, next->main.path, 0,
            "relays_database %s is gone, and its key too: restart Posthouse if there are to be "
            "no relay records",
            next->p.relays_database);
    if (now->embedded && next->p.accounts_store[0] == '\0')
        diag_add(d, DIAG_ERROR, next->main.path, 0,
                 "the accounts store %s/accounts.db is gone: restart Posthouse if there is to be "
                 "none",
                 next->p.data_directory);
}
