/*
 * config/config.h - a configuration snapshot
 *
 * Built whole from a bundle of files, checked, and from then on read-only and shared by reference
 * count: sessions keep the one they began with, a reload swaps the current one.
 */
#ifndef PH_CONFIG_CONFIG_H
#define PH_CONFIG_CONFIG_H

#include <stdatomic.h>

#include "config/diag.h"
#include "config/main_cf.h"
#include "config/params.h"
#include "config/refusal.h"
#include "config/source.h"

enum service_kind {
    SERVICE_SMTPD,   /* inet listener */
    SERVICE_SMTP,    /* transport: SMTP client */
    SERVICE_LMTP,    /* transport: LMTP client */
    SERVICE_ERROR,   /* transport: bounce with the next hop as text */
    SERVICE_RETRY,   /* transport: defer with the next hop as text */
    SERVICE_DISCARD, /* transport: drop, counted as sent */
    SERVICE_LOCAL,   /* transport: aliases(5) */
    SERVICE_UNUSED   /* a line that Posthouse does not use */
};

/* A process limit counts so many sessions for each process: a session costs kilobytes.  A transport
 * has as many as master.cf's own number says. */
#define SESSIONS_PER_PROC 100

struct service {
    enum service_kind kind;
    char *name;     /* "smtp", "127.0.0.1:10025", "relay" */
    char *command;  /* "smtpd", "pipe", … */
    char *log_name; /* syslog_name of this service */
    struct params p;
    struct cfg_file overrides; /* -o */
    int line;                  /* 0: built in */
    int64_t maxproc;           /* 0: no limit; -1: default_process_limit */
    bool postscreen;           /* an smtpd by a line of postscreen */
    bool inet;                 /* it would listen on a port */
    bool has_stray_word;       /* an argument that is neither an option nor part of one */
    struct refusals refusals;  /* what it asks for and does not get */
};

/* The system's trust anchors: used unless smtp_tls_CAfile names others. */
#define CONFIG_SYSTEM_ANCHORS "/etc/ssl/certs/ca-certificates.crt"

/* Postfix's queue_directory where nothing says another one. */
#define CONFIG_POSTFIX_QUEUE "/var/spool/postfix"

/* Below queue_directory: made by the daemon when it has seen the embedded accounts store. */
#define CONFIG_ACCOUNTS_MARK "accounts.made"

struct config {
    atomic_uint refs;
    char *dir;
    struct cfg_file main;      /* main.cf as written */
    struct params p;           /* main.cf's values */
    const char *master_path;   /* master.cf's */
    bool no_master;            /* there is no master.cf: its services are the built-in ones */
    const char *foreign_queue; /* Postfix's, which queue_directory names; NULL: it does not */
    const char *socket_folder; /* relative paths of other programs' sockets are below it; NULL:
                                * queue_directory */
    const char *relays_spec;   /* the table of relay records, or "" when none was ever made */
    bool relays_gone;          /* its file was there and is not */
    bool embedded;             /* accounts_store is accounts.db below data_directory */
    bool accounts_gone;        /* it was there and is not */
    struct service **services;
    size_t n_services;
    struct service
        sendmail;      /* what this machine's programs send by; pickup's line has its filter */
    bool sends_origin; /* some transport tells hosts who brought a message (XFORWARD) */
    struct cfg_source *source; /* owned */
    char **texts;              /* every expanded value */
    size_t n_texts;
    struct diags diags;
    struct refusals refusals; /* what main.cf asks for and sendmail's mail does not get */
    struct config *before;    /* the one that it replaced, owned; NULL: none, or not known */
    struct sbuf used_names;   /* names that expansions asked for, '\n' before and after each */
};

/* Builds a snapshot; takes over src.  Never NULL: see diags.errors. */
struct config *config_build(struct cfg_source *src);
/* Reads every file that the values name (certificates, anchors, resolv.conf) into the bundle, for
 * processes that cannot open files. */
void config_preload(struct config *c);
/* The parameter name has that value in c and in what other processes build of its bundle, whatever
 * the files say: what only a start takes up.  Before anything but its builder knows c.  (What the
 * files say is still what config_value answers.) */
void config_freeze(struct config *c, const char *name, const char *value);
/* c replaces before, which is taken over: sessions that began with it go on, and ask for its
 * tables. Of those before it, the last few are kept, too. */
void config_follows(struct config *c, struct config *before);
struct config *config_ref(struct config *c);
void config_unref(struct config *c);
/* Does the transport speak to other servers? */
static inline bool service_is_client(const struct service *s) {
    return s->kind == SERVICE_SMTP || s->kind == SERVICE_LMTP;
}
/* The transport of that name, or NULL. */
const struct service *config_transport(const struct config *c, struct str name);
/* "<transport>_<suffix>" if it is set in main.cf, else "default_<suffix>". */
int64_t config_transport_int(const struct config *c, const char *transport, const char *suffix);
/* A value as main.cf has it or by default, expanded; NULL if the name is unknown.  Caller frees. */
char *config_value(const struct config *c, const char *name, const struct service *svc);
/* A text with its $names replaced as in the service (NULL: as in main.cf); NULL: bad syntax.  The
 * caller frees. */
char *config_expand(const struct config *c, const struct service *svc, const char *text);
/* Is the name one that the code reads (a table row, a transport's, or used by another value)? */
bool config_name_used(const struct config *c, const char *name);
/* Reads a time such as "5d"; unit is that of a bare number.  What stands behind the first unit
 * counts for nothing, as with Postfix ("5days", "1h30m").  False on bad syntax. */
bool config_time(struct str s, char unit, int64_t *seconds);
/* The log as syslog_name, maillog_file and so on say; negative errno. */
int config_open_log(const struct config *c);
/* Is it an address (as text) of this machine's interfaces? */
bool cfg_is_own_address(const struct config *c, const char *addr);
/* The file of an accounts_store that is SQLite's; NULL: it is of another kind, or not set. */
const char *config_store_file(const struct config *c);
/* Lists of patterns, up to NULL, in which "/file/name" stands for what the file holds. */
extern const char *const config_file_lists[];
/* What stands in such a list before the name of a file that could not be read. */
#define CONFIG_UNREAD "non-existent:"
/* Why that file could not be read. */
const char *config_unread_why(const struct config *c, const char *path);
/* The content of a file named in the configuration (relative names are below dir). */
struct str config_file(const struct config *c, const char *path, int *err);
/* The same of a folder with trust anchors (cfg_source_folder). */
struct str config_folder(const struct config *c, const char *path, int *err);
/* Rows of tables with certificates, as they are noted: each a kind (ipc_put_u32) and two texts
 * (ipc_put_str), the key and the value. */
enum config_row {
    CONFIG_ROW_TABLE = 1, /* the rows that follow are of this table; key: its spec */
    CONFIG_ROW_PEM,       /* value: PEM text, in base64 */
    CONFIG_ROW_FILES,     /* value: names of files */
    CONFIG_ROW_END        /* the table cannot be asked further; value: why */
};
/* What daemon/certrows.h has noted of the tables of spec, which param names; empty: nothing. */
struct str config_rows(const struct config *c, const char *param, const char *spec);
/* Notes it; text is taken over, and empty then.  config_rows_take notes what was noted in from. */
void config_rows_keep(struct config *c, const char *param, const char *spec, struct sbuf *text);
void config_rows_take(struct config *c, const struct config *from, const char *param,
                      const char *spec);

#endif
