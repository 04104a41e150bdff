/*
 * util/log.h - the log sink: syslog, a file, standard error, as lines or as JSON
 *
 * Any thread may log.  A line is put in one buffer under a lock and written by one thread, so a
 * slow disk delays no thread; what is buffered is written before log_close returns.  Lines that
 * cannot be written, or that more than 32 MB are waiting before, are left out, and their number is
 * said. Control characters in a line become '?': text from outside cannot forge a line.
 */
#ifndef PH_UTIL_LOG_H
#define PH_UTIL_LOG_H

#include <stdbool.h>

struct log_conf {
    const char *name;     /* syslog_name, "postfix": what stands before "/smtpd[pid]" */
    const char *file;     /* maillog_file; NULL or "": syslog; "/dev/stdout" works too */
    const char *facility; /* syslog_facility, "mail" */
    const char *hostname; /* for lines in a file: up to its first dot */
    bool json;            /* log_format = json */
};

/* Before any thread is started.  Lines before this go to standard error. */
int log_open(const struct log_conf *conf);
/* A new file after rotation: opened again by its name, in the supervisor.  Its descriptor (still
 * the log's own), for the other processes, or a negative errno: there is no file, or it cannot be
 * opened. */
int log_reopen(void);
/* In the others: from now on into fd, which is taken over. */
void log_replace(int fd);
/* Fatal lines go to fn first, without their prefix; true: fn has taken the line, and the log does
 * not get it.  NULL: none.  For the start: a terminal waits for its errors.  Before log_start. */
void log_on_fatal(bool (*fn)(const char *service, const char *text));
/* Starts the writer thread; until then lines are written at once.  Call again after fork. */
void log_start(void);
/* Writes what is buffered and stops the writer thread. */
void log_close(void);

/* One line of the service ("smtpd", "qmgr", …).  name overrides syslog_name when not NULL. */
void log_as(const char *name, const char *service, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void log_info(const char *service, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prefixes "warning: ", "error: ", "fatal: ". */
void log_warn(const char *service, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* log_warn with a syslog_name of its own. */
void log_warn_as(const char *name, const char *service, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void log_error(const char *service, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void log_fatal(const char *service, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
