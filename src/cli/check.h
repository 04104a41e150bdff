/*
 * cli/check.h - parts of posthouse check
 */
#ifndef PH_CLI_CHECK_H
#define PH_CLI_CHECK_H

#include "config/config.h"

/* What stands in tables: rows that never match, values that make mail wait. */
void check_rows(const struct config *cfg, struct diags *d);

#endif
