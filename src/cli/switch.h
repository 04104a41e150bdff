/*
 * cli/switch.h - sendmail(1) of the machine: Postfix's or Posthouse's
 *
 * One thread.  A program that sends finds one of both at any moment.  Postfix's file is kept beside
 * its place, as PATH.postfix; where dpkg owns it, a diversion has upgrades of Postfix's package
 * change that one.
 */
#ifndef PH_CLI_SWITCH_H
#define PH_CLI_SWITCH_H

#include <stdbool.h>

/* Why the file at path cannot become a link to program; NULL: it can, or is one. */
const char *switch_why_not(const char *path, const char *program);
/* The file at path becomes a link to program, unless it is one.  0 or negative errno: -EEXIST if
 * PATH.postfix is another file. */
int switch_to(const char *path, const char *program);
/* The file that was there comes back, if the link to program is still there.  0 or negative errno.
 * A diversion that cannot be removed is named, and stays. */
int switch_back(const char *path, const char *program);

#endif
