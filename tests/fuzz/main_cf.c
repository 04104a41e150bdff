/* main.cf: syntax, expansion, values, and the checks of a whole configuration. */
#include "bundle.h"
#include "daemon/daemon.h"
#include "fuzz.h"
#include "route/nexthop.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    struct str in = str_make((const char *)p, n), hop, rest;
    fuzz_quiet();
    struct config *cfg = bundle_config(in, STR_LIT(""));
    struct diags d = {0};
    daemon_check(cfg, DIAG_ERROR, &d);
    diag_free(&d);
    for (size_t i = 0; i < cfg->main.n; i++) {
        char *v = config_value(cfg, cfg->main.v[i].name, NULL);
        struct nexthop h;
        rest = str_of(v == NULL ? "" : v);
        while (nexthop_split(&rest, &hop))
            nexthop_parse(&h, hop, 25);
        config_name_used(cfg, cfg->main.v[i].name);
        free(v);
    }
    config_unref(cfg);
    return 0;
}
