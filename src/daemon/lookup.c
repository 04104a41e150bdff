/*
 * daemon/lookup.c - the lookup process
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "maps/server.h"
#include "util/log.h"

#define WORKERS 8

static bool names_table(const struct params *p, const char *spec) {
    for (size_t i = 0; i < param_count; i++) {
        const char *const *at = (const void *)((const char *)p + param_table[i].offset);
        if (param_table[i].type == PARAM_STR && strstr(*at, spec) != NULL)
            return true;
    }
    return false;
}

/* The relay may ask only for what the configuration names somewhere. */
static bool allowed(void *arg, const char *spec) {
    struct config *const *cfg = arg;
    if (names_table(&(*cfg)->p, spec))
        return true;
    for (size_t i = 0; i < (*cfg)->n_services; i++)
        if (names_table(&(*cfg)->services[i]->p, spec))
            return true;
    return false;
}

/* One message of the supervisor; false when it is gone. */
static bool control(struct lookup_server *s, int sup, struct config **cfg) {
    struct sbuf buf = {0};
    struct ipc_head head;
    struct str fields;
    int fds[LOOPS_MAX + 1];
    size_t n = 0;
    if (ipc_recv(sup, &buf, &head, &fields, fds, LOOPS_MAX + 1, &n) < 0 || head.type == SUP_STOP)
        return false;
    if (head.type == SUP_LOOKUP)
        for (size_t i = 0; i < n; i++)
            lookup_server_add(s, fds[i]);
    if (head.type == SUP_REOPEN)
        log_reopen();
    if (head.type == SUP_RELOAD) {
        struct ipc_reader r = {.rest = fields};
        /* The old snapshot stays: a worker may be reading it.  Reloads are rare. */
        *cfg = config_build(cfg_source_get(&r));
        lookup_server_reload(s, (*cfg)->dir);
    }
    sbuf_free(&buf);
    return true;
}

_Noreturn void lookup_main(struct config *cfg, size_t loops, int sup, const int *lookups) {
    log_start();
    struct lookup_server *s = lookup_server_new(WORKERS, cfg->dir);
    lookup_server_allow(s, allowed, &cfg);
    for (size_t i = 0; i <= loops; i++)
        lookup_server_add(s, lookups[i]);
    do {
        lookup_server_run(s, sup);
    } while (control(s, sup, &cfg));
    log_close();
    _exit(0);
}
