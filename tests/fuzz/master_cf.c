/* master.cf: services and their -o overrides. */
#include "bundle.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) {
    fuzz_quiet();
    struct config *cfg = bundle_config(STR_LIT("relayhost = [a.example]\nx = $relayhost\n"),
                                       str_make((const char *)p, n));
    for (size_t i = 0; i < cfg->n_services; i++) {
        MUST(cfg->services[i]->name != NULL && cfg->services[i]->p.myhostname != NULL);
        config_transport(cfg, str_of(cfg->services[i]->name));
    }
    config_unref(cfg);
    return 0;
}
