/*
 * daemon/confine.h - what a process may still do: user, no_new_privs, Landlock, seccomp
 *
 * Called once in a child of the supervisor or in posthouse-web, before its first thread.  Where the
 * kernel lacks Landlock or seccomp, that is said once in the log and the rest still holds.
 */
#ifndef PH_DAEMON_CONFINE_H
#define PH_DAEMON_CONFINE_H

#include "config/config.h"

/* The relay: becomes mail_owner; of the file system it keeps the current directory (the spool); it
 * can use sockets, but execute nothing. */
void confine_relay(const struct config *cfg);
/* The lookup process: becomes lookup_owner and keeps, if it was root, the right to read what only
 * root may read; of the file system it keeps, for reading, the configuration directory and the
 * folders of the tables that cfg names; no network. */
void confine_lookup(const struct config *cfg);
/* posthouse-web, which has its user already: it keeps the databases in data_directory and of the
 * relay records, for reading the configuration and the store's table file; it can use sockets, but
 * execute nothing.  Before its first thread, after it opened its port. */
void confine_web(const struct config *cfg);
/* posthouse-web's helper, which stays root to open the log file again and to start audits: of the
 * file system it can read, and write in the folder of the log file only; it can fork and change its
 * user, but execute nothing, and signal no process. */
void confine_helper(const struct config *cfg);
/* An audit of cfg: as the lookup process of cfg, and the certificates that cfg, and rows of its
 * tables, name. */
void confine_audit(struct config *cfg);

/* Calls fn with each file of certificates or keys that cfg names, or rows that are noted in it
 * (certrows.h); absolute paths. */
void confine_certificates(const struct config *cfg, void (*fn)(void *arg, const char *file),
                          void *arg);
/* The same of the parameters p of cfg alone: of the SMTP server's (server), or of all others. */
void confine_certificates_of(const struct config *cfg, const struct params *p, bool server,
                             void (*fn)(void *arg, const char *file), void *arg);
/* Calls fn with each folder that a table of cfg lies in (and the configuration directory). */
void confine_folders(const struct config *cfg, void (*fn)(void *arg, const char *dir), void *arg);
/* The same for the tables that one parameter's text names. */
void confine_folders_of(const char *text, void (*fn)(void *arg, const char *dir), void *arg);

#endif
