/*
 * daemon/lookup.c - the lookup process
 *
 * One configuration for its whole life: a reload starts another one.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "accounts/store.h"
#include "daemon/confine.h"
#include "daemon/daemon.h"
#include "daemon/tell.h"
#include "maps/map.h"
#include "maps/server.h"
#include "maps/tabconf.h"
#include "util/lite.h"
#include "util/log.h"
#include "util/mem.h"

#define WORKERS 8

static bool names_table(const struct params *p, const char *spec) {
    for (size_t i = 0; i < param_count; i++)
        if (param_table[i].type == PARAM_STR &&
            strstr(params_text_at(p, param_table[i].offset), spec) != NULL)
            return true;
    return false;
}

static bool config_names_table(const struct config *cfg, const char *spec) {
    if (names_table(&cfg->p, spec) || strcmp(spec, cfg->relays_spec) == 0)
        return true;
    for (size_t i = 0; i < cfg->n_services; i++)
        if (names_table(&cfg->services[i]->p, spec))
            return true;
    return false;
}

/* The relay may ask only for what the configuration names somewhere, or one that was replaced: what
 * began with that goes on with it. */
static bool lookup_allowed(void *arg, const char *spec) {
    for (const struct config *cfg = arg; cfg != NULL; cfg = cfg->before)
        if (config_names_table(cfg, spec))
            return true;
    return false;
}

/* One message of the supervisor; false when it is gone, or has given channels that there were no
 * descriptors for: another process is made then, with new ones. */
static bool control(struct lookup_server *s, size_t channels, int sup) {
    struct sbuf buf = {0};
    struct ipc_head head;
    struct str fields;
    int fds[LOOPS_MAX + 1];
    size_t n = 0;
    if (ipc_recv(sup, &buf, &head, &fields, fds, LOOPS_MAX + 1, &n) < 0 || head.type == SUP_STOP)
        return false;
    bool whole = head.type != SUP_LOOKUP || n == channels;
    if (head.type == SUP_LOOKUP)
        for (size_t i = 0; i < n; i++)
            lookup_server_add(s, fds[i]);
    if (head.type == SUP_REOPEN && n == 1)
        log_replace(fds[0]);
    sbuf_free(&buf);
    return whole;
}

static struct {
    struct store *store; /* NULL: none */
    char *why;
} accounts;

static enum map_rc lookup_check_password(void *arg, const char *user, const char *password,
                                         bool secure, const char *client, struct sbuf *value,
                                         char **err) {
    (void)arg;
    if (accounts.store == NULL) {
        *err = mem_strdup(accounts.why == NULL ? "no accounts_store is set" : accounts.why);
        return MAP_ERROR;
    }
    return (enum map_rc)store_verify(accounts.store, user, password, secure, client, value, err);
}

static char *lookup_from_main(void *arg, const char *name) {
    return config_value(arg, name, NULL);
}

/* Behind its walls this process can write no database. */
static void lookup_take_back(const struct config *cfg) {
    const char *store = config_store_file(cfg);
    if (store != NULL)
        lite_take_back(store);
    lite_take_back(cfg->p.relays_database);
}

_Noreturn void lookup_main(struct config *cfg, size_t loops, int sup, const int *lookups) {
    tell_fatal_to(sup);
    lookup_take_back(cfg);
    confine_lookup(cfg);
    log_start();
    map_wait_for_texts(); /* a reload may come while a program writes a table */
    struct lookup_server *s = lookup_server_new(WORKERS, cfg->dir);
    if (lookup_server_workers(s) == 0) {
        log_fatal("master", "the lookup process cannot start its threads");
        log_close();
        _exit(1);
    }
    lookup_server_allow(s, lookup_allowed, cfg);
    tabconf_use_main(lookup_from_main, cfg);
    if (cfg->p.accounts_store[0] != '\0')
        accounts.store = store_open(cfg->p.accounts_store, cfg->dir, false, &accounts.why);
    lookup_server_verify(s, lookup_check_password, NULL);
    for (size_t i = 0; i <= loops; i++)
        lookup_server_add(s, lookups[i]);
    tell_ready(sup);
    do {
        lookup_server_run(s, sup);
    } while (control(s, loops + 1, sup));
    lookup_server_bye(s);
    log_close();
    _exit(0);
}
