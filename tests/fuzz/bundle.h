/* A configuration from texts: main.cf and master.cf of one bundle, no file is read. */
#ifndef PH_TESTS_FUZZ_BUNDLE_H
#define PH_TESTS_FUZZ_BUNDLE_H

#include "config/config.h"
#include "util/ipc.h"

static inline void bundle_pair(struct sbuf *b, const char *name, const char *value) {
    ipc_put_str(b, str_of(name));
    ipc_put_str(b, str_of(value));
}

static inline struct config *bundle_config(struct str main_cf, struct str master_cf) {
    struct sbuf b = {0};
    ipc_put_str(&b, STR_LIT("/c"));
    ipc_put_u32(&b, 5);
    bundle_pair(&b, "system_hostname", "mta.example");
    bundle_pair(&b, "system_domain", "example");
    bundle_pair(&b, "system_config_directory", "/c");
    bundle_pair(&b, "system_queue_directory", "/c/spool");
    bundle_pair(&b, "system_networks_subnet", "127.0.0.0/8");
    ipc_put_u32(&b, master_cf.p == NULL ? 1 : 2);
    ipc_put_str(&b, STR_LIT("/c/main.cf"));
    ipc_put_u32(&b, 0);
    ipc_put_str(&b, main_cf);
    if (master_cf.p != NULL) { /* else there is none */
        ipc_put_str(&b, STR_LIT("/c/master.cf"));
        ipc_put_u32(&b, 0);
        ipc_put_str(&b, master_cf);
    }
    struct ipc_reader r = {.rest = sbuf_str(&b)};
    struct config *cfg = config_build(cfg_source_get(&r));
    sbuf_free(&b);
    return cfg;
}

#endif
