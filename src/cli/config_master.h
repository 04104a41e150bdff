/*
 * cli/config_master.h - postconf -M, -F and -P: services of master.cf, their fields and parameters
 */
#ifndef PH_CLI_CONFIG_MASTER_H
#define PH_CLI_CONFIG_MASTER_H

#include <stdbool.h>

struct master_show {
    char kind;     /* 'M' services, 'F' fields, 'P' parameters */
    bool fold;     /* -f */
    bool no_name;  /* -h, of F and P */
    bool no_value; /* -H, of F and P */
    bool expand;   /* -x */
};

/* Shows what the arguments ask for ("service/type/…", with * for each; none: all) of master.cf in
 * dir (NULL: as cli_dir has it).  Of all, what is secret is hidden.  The exit status; what went
 * wrong has been said. */
int config_master(const char *dir, const struct master_show *show, int argc, char **argv);

#endif
