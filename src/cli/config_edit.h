/*
 * cli/config_edit.h - postconf -e, -X and -#: lines of main.cf changed in place
 */
#ifndef PH_CLI_CONFIG_EDIT_H
#define PH_CLI_CONFIG_EDIT_H

/* Changes main.cf in dir (NULL: as cli_dir has it): kind 'e' sets each argument NAME=VALUE, 'X'
 * takes NAME out, '#' makes comments of its lines.  The exit status; what went wrong has been said.
 */
int config_edit(const char *dir, char kind, int argc, char **argv);

#endif
