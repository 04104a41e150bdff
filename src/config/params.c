/*
 * config/params.c - the parameter table; see params.h
 */
#include "config/params.h"

#include <string.h>

const struct param_info param_table[] = {
#define PARAM(type, name, def, doc)                                                                \
    {#name, sizeof #name - 1, PARAM_##type, def, doc, offsetof(struct params, name), false},
#include "config/params.def"
#undef PARAM
#define LMTP_PARAM(type, name, smtp, def)                                                          \
    {#name,                                                                                        \
     sizeof #name - 1,                                                                             \
     PARAM_##type,                                                                                 \
     def,                                                                                          \
     "what " #smtp " is, for transports by LMTP",                                                  \
     offsetof(struct params, smtp),                                                                \
     true},
#include "config/lmtp.def"
#undef LMTP_PARAM
};

enum {
#define PARAM(type, name, def, doc) COUNT_##name,
#include "config/params.def"
#undef PARAM
    COUNT_ALL
};

const size_t param_count = COUNT_ALL;
const size_t param_total = sizeof param_table / sizeof param_table[0];

const struct param_info *param_find(const char *name, size_t n) {
    for (size_t i = 0; i < param_total; i++)
        if (param_table[i].name_n == n && memcmp(param_table[i].name, name, n) == 0)
            return &param_table[i];
    return NULL;
}

/* As in Postfix, where a program that reads a smaller number does not start: 0 is then neither
 * "none" nor "no limit".  0 is the least of the others. */
static const struct {
    const char *name;
    int64_t least;
} leasts[] = {
    {"line_length_limit", 512},
    {"smtpd_sasl_response_limit", 12288},
    {"smtp_connection_cache_time_limit", 1},
    {"smtp_connection_reuse_time_limit", 1},
    {"smtp_helo_timeout", 1},
    {"smtp_starttls_timeout", 1},
    {"smtp_mail_timeout", 1},
    {"smtp_rcpt_timeout", 1},
    {"smtp_data_init_timeout", 1},
    {"smtp_data_xfer_timeout", 1},
    {"smtp_data_done_timeout", 1},
    {"smtp_rset_timeout", 1},
    {"smtpd_timeout", 1},
    {"smtpd_starttls_timeout", 1},
    {"smtpd_min_data_rate", 1},
    {"smtpd_recipient_limit", 1},
    {"smtpd_recipient_overshoot_limit", 1},
    {"smtpd_soft_error_limit", 1},
    {"smtpd_hard_error_limit", 1},
    {"smtpd_junk_command_limit", 1},
    {"anvil_rate_time_unit", 1},
    {"default_process_limit", 1},
    {"hopcount_limit", 1},
    {"queue_run_delay", 1},
    {"minimal_backoff_time", 1},
    {"maximal_backoff_time", 1},
    {"initial_destination_concurrency", 1},
    {"bounce_size_limit", 1},
    {"virtual_alias_recursion_limit", 1},
    {"virtual_alias_expansion_limit", 1},
    {"virtual_alias_address_length_limit", 1},
    {"smtpd_policy_service_try_limit", 1},
    {"smtpd_policy_service_timeout", 1},
    {"smtpd_policy_service_max_idle", 1},
    {"smtpd_policy_service_max_ttl", 1},
    {"smtpd_policy_service_retry_delay", 1},
    {"smtp_xforward_timeout", 1},
    {"lmtp_xforward_timeout", 1},
    {"lmtp_connection_cache_time_limit", 1},
    {"lmtp_connection_reuse_time_limit", 1},
    {"lmtp_lhlo_timeout", 1},
    {"lmtp_starttls_timeout", 1},
    {"lmtp_mail_timeout", 1},
    {"lmtp_rcpt_timeout", 1},
    {"lmtp_data_init_timeout", 1},
    {"lmtp_data_xfer_timeout", 1},
    {"lmtp_data_done_timeout", 1},
    {"lmtp_rset_timeout", 1},
};

int64_t param_least(const struct param_info *info) {
    for (size_t i = 0; i < sizeof leasts / sizeof leasts[0]; i++)
        if (strcmp(leasts[i].name, info->name) == 0)
            return leasts[i].least;
    return 0;
}

int64_t param_most(const struct param_info *info) {
    static const char *const large[] = {"message_size_limit",   "queue_minfree",
                                        "message_memory_limit", "queue_memory_limit",
                                        "spool_segment_size",   "spool_body_file_size"};
    for (size_t i = 0; i < sizeof large / sizeof large[0]; i++)
        if (strcmp(large[i], info->name) == 0)
            return INT64_MAX;
    return INT32_MAX;
}

static const struct transport_param transport_params[] = {
    {"_destination_rate_delay", PARAM_TIME_S, true},
    {"_destination_concurrency_limit", PARAM_INT, true},
    {"_destination_recipient_limit", PARAM_INT, true},
    {"_destination_concurrency_failed_cohort_limit", PARAM_INT, true},
    {"_transport_rate_delay", PARAM_TIME_S, false},
};

const struct transport_param *transport_param_find(const char *name) {
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof transport_params / sizeof transport_params[0]; i++) {
        size_t end = strlen(transport_params[i].suffix);
        if (n > end && strcmp(name + n - end, transport_params[i].suffix) == 0)
            return &transport_params[i];
    }
    return NULL;
}
