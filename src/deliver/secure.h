/*
 * deliver/secure.h - can TLS sessions be begun as parameters have it?
 *
 * For posthouse check; delivery asks the same code (secure.c).
 */
#ifndef PH_DELIVER_SECURE_H
#define PH_DELIVER_SECURE_H

#include "config/config.h"
#include "deliver/policy.h"

/* Reads what p and the policy name for sessions.  False: *param is the parameter that is wrong (a
 * literal), and *why says how (the caller frees). */
bool secure_check(const struct config *cfg, const struct params *p, const struct tls_policy *policy,
                  const char **param, char **why);

#endif
