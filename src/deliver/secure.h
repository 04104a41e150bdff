/*
 * deliver/secure.h - can TLS sessions be begun as parameters have it?
 *
 * For posthouse check; delivery asks the same code (secure.c).
 */
#ifndef PH_DELIVER_SECURE_H
#define PH_DELIVER_SECURE_H

#include "config/config.h"
#include "deliver/policy.h"

/* Reads what p names for sessions of that level.  False: *param is the parameter that is wrong (a
 * literal), and *why says how (the caller frees). */
bool secure_check(const struct config *cfg, const struct params *p, enum tls_level level,
                  const char **param, char **why);

#endif
