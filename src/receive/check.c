/*
 * receive/check.c - mistakes in what a configuration says of the clients that are served
 *
 * At a start, a reload and for `posthouse check`; owns nothing.
 */
#include <string.h>

#include "config/config.h"
#include "maps/query.h"
#include "receive/access.h"
#include "receive/certificate.h"
#include "receive/client.h"
#include "receive/clientcert.h"
#include "receive/receive.h"

#define LIST_SEPS ", \t\r\n"

/* The words of receive/rewrite.c. */
static void check_rewrite_clients(const struct service *svc, struct diags *d) {
    static const char *const known_words[] = {
        "permit_inet_interfaces", "permit_mynetworks",          "permit_sasl_authenticated",
        "permit_tls_clientcerts", "permit_tls_all_clientcerts", "check_address_map"};
    struct str rest = str_of(svc->p.local_header_rewrite_clients), word;
    while (str_split_braces(&rest, LIST_SEPS, &word)) {
        bool known = map_looks_like(word);
        for (size_t i = 0; i < sizeof known_words / sizeof known_words[0]; i++)
            known = known || str_ieq_c(word, known_words[i]);
        if (!known)
            diag_add(d, DIAG_WARN, svc->line > 0 ? "master.cf" : NULL, svc->line,
                     "%s: local_header_rewrite_clients: there is no \"%.*s\": it is passed over",
                     svc->name, STR_FMT(word));
    }
}

static void check_bare_newline(const struct service *svc, struct diags *d) {
    const char *file = svc->line > 0 ? "master.cf" : NULL;
    int64_t code = svc->p.smtpd_forbid_bare_newline_reject_code;
    if (bare_newline_of(svc->p.smtpd_forbid_bare_newline) == BARE_UNSET)
        diag_add(
            d, DIAG_ERROR, file, svc->line,
            "%s: smtpd_forbid_bare_newline: \"%s\" is none of no, yes, normalize, note, reject",
            svc->name, svc->p.smtpd_forbid_bare_newline);
    if (code < 500 || code > 599)
        diag_add(d, DIAG_ERROR, file, svc->line,
                 "%s: smtpd_forbid_bare_newline_reject_code: %lld is not between 500 and 599",
                 svc->name, (long long)code);
}

void receive_check(const struct config *cfg, enum diag_level waits, struct diags *d) {
    certificate_check(cfg, d);
    clientcert_check(cfg, d);
    for (size_t i = 0; i < cfg->n_services; i++) {
        const struct service *svc = cfg->services[i];
        if (svc->kind != SERVICE_SMTPD)
            continue;
        check_bare_newline(svc, d);
        check_rewrite_clients(svc, d);
        access_check(cfg, svc, waits, d);
    }
}
