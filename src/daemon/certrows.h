/*
 * daemon/certrows.h - certificates that rows of tables name, or hold
 *
 * The relay opens no files and its tables are asked by another process, so what rows name is read
 * into the configuration with everything else: by the supervisor, and by posthouse check.  Blocks:
 * tables are read whole.  One thread.
 */
#ifndef PH_DAEMON_CERTROWS_H
#define PH_DAEMON_CERTROWS_H

#include "config/config.h"

/* Reads the tables in files of smtp_tls_policy_maps and tls_server_sni_maps, and the files that
 * their rows name (tafile=, or keys and chains); both stand in cfg then.  The source of cfg may
 * read. What was noted before is replaced. */
void certrows_read(struct config *cfg);
/* Calls fn with each file (an absolute path) that rows which were read name, for the parameters p
 * of cfg and that side: the SMTP server's (server), or the client's. */
void certrows_files(const struct config *cfg, const struct params *p, bool server,
                    void (*fn)(void *arg, const char *file), void *arg);
/* Calls fn with the file of each table that certrows_read reads. */
void certrows_tables(const struct config *cfg, void (*fn)(void *arg, const char *file), void *arg);
/* The rows of one side are in next what they were in now. */
void certrows_take(struct config *next, const struct config *now, const struct params *p,
                   bool server);

#endif
