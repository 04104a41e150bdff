/*
 * accounts/embedded.c - the embedded store: iRedMail's tables in an SQLite file of our own
 *
 * Called when a store is opened or made, on any thread.  The file is readable for its owner only:
 * it has password hashes.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "accounts/inside.h"
#include "util/fs.h"
#include "util/mem.h"

#define TABLE NULL
#define NAME  "VARCHAR(255) NOT NULL"
#define KEY   NAME " PRIMARY KEY"
#define TEXT  NAME " DEFAULT ''"
#define YES   "TINYINT(1) NOT NULL DEFAULT 1"
#define NO    "TINYINT(1) NOT NULL DEFAULT 0"
#define COUNT "INT NOT NULL DEFAULT 0"
#define BYTES "BIGINT NOT NULL DEFAULT 0"
#define ID    "INTEGER PRIMARY KEY AUTOINCREMENT"
#define PAST  "DATETIME NOT NULL DEFAULT '1970-01-01 01:01:01'"
#define NEVER "DATETIME NOT NULL DEFAULT '9999-12-31 00:00:00'"

/* iRedMail's, as far as accounts go: a table, then its columns, names that have a type in common
 * together.  A constraint of the table is written as if it were a column. */
static const struct {
    const char *names;
    const char *type;
} schema[] = {
    {"admin", TABLE},
    {"username", KEY},
    {"password name language", TEXT},
    {"passwordlastchange", PAST},
    {"settings", "TEXT"},
    {"created modified", PAST},
    {"expired", NEVER},
    {"active", YES},
    {"domain_admins", TABLE},
    {"username domain", TEXT},
    {"created modified", PAST},
    {"expired", NEVER},
    {"active", YES},
    {"PRIMARY", "KEY (username, domain)"},
    {"domain", TABLE},
    {"domain", KEY},
    {"description disclaimer settings", "TEXT"},
    {"aliases mailboxes maillists", COUNT},
    {"maxquota quota", BYTES},
    {"transport", NAME " DEFAULT 'dovecot'"},
    {"backupmx", NO},
    {"created modified", PAST},
    {"expired", NEVER},
    {"active", YES},
    {"alias_domain", TABLE},
    {"alias_domain", KEY},
    {"target_domain", NAME},
    {"created modified", PAST},
    {"expired", NEVER},
    {"active", YES},
    {"mailbox", TABLE},
    {"username", KEY},
    {"password name language first_name last_name mobile telephone recovery_email", TEXT},
    {"birthday", "DATE NOT NULL DEFAULT '0001-01-01'"},
    {"mailboxformat", "VARCHAR(50) NOT NULL DEFAULT 'maildir'"},
    {"mailboxfolder", "VARCHAR(50) NOT NULL DEFAULT 'Maildir'"},
    {"storagebasedirectory storagenode maildir", TEXT},
    {"quota", BYTES},
    {"domain transport department employeeid", TEXT},
    {"rank", NAME " DEFAULT 'normal'"},
    {"isadmin isglobaladmin", NO},
    {"enablesmtp enablesmtpsecured enablepop3 enablepop3secured enablepop3tls", YES},
    {"enableimap enableimapsecured enableimaptls enabledeliver enablelda enablelmtp", YES},
    {"enablemanagesieve enablemanagesievesecured", YES},
    {"enablesieve enablesievesecured enablesievetls", YES},
    {"enableinternal enabledoveadm enabledsync enablesogo", YES},
    {"allow_nets disclaimer settings", "TEXT"},
    {"passwordlastchange", PAST},
    {"created modified", PAST},
    {"expired", NEVER},
    {"active", YES},
    {"alias", TABLE},
    {"address", KEY},
    {"name accesspolicy domain", TEXT},
    {"created modified", PAST},
    {"expired", NEVER},
    {"active", YES},
    {"forwardings", TABLE},
    {"id", ID},
    {"address forwarding domain dest_domain", TEXT},
    {"is_maillist is_list is_forwarding is_alias", NO},
    {"active", YES},
    {"UNIQUE", "(address, forwarding)"},
    {"sender_relayhost", TABLE},
    {"id", ID},
    {"account", TEXT " COLLATE NOCASE UNIQUE"},
    {"relayhost", TEXT},
};

#define N_SCHEMA (sizeof schema / sizeof schema[0])

/* The statement for the table at i; the next table's place. */
static size_t create_text(size_t i, struct sbuf *sql) {
    const char *before = " (";
    sbuf_printf(sql, "CREATE TABLE IF NOT EXISTS %s", schema[i].names);
    for (i++; i < N_SCHEMA && schema[i].type != TABLE; i++) {
        struct str rest = str_of(schema[i].names), name;
        while (str_split(&rest, " ", &name)) {
            sbuf_printf(sql, "%s%.*s %s", before, STR_FMT(name), schema[i].type);
            before = ", ";
        }
    }
    sbuf_add_c(sql, ")");
    return i;
}

static enum store_rc make_tables(struct store *st, char **why) {
    enum store_rc rc = STORE_YES;
    for (size_t i = 0; rc == STORE_YES && i < N_SCHEMA;) {
        struct sbuf sql = {0};
        i = create_text(i, &sql);
        rc = store_sql_run(st, sql.p, NULL, NULL, NULL, why);
        sbuf_free(&sql);
    }
    if (rc == STORE_YES)
        rc = store_sql_run(st, "CREATE INDEX IF NOT EXISTS mailbox_domain ON mailbox (domain)",
                           NULL, NULL, NULL, why);
    return rc;
}

/* Readable for its owner only: it has password hashes. */
static int make_file(const char *path) {
    char *dir = fs_folder(str_of(path));
    int rc = fs_mkdir(dir, 0755);
    free(dir);
    if (rc == 0)
        rc = fs_make(path, 0600);
    return rc == 0 ? fs_only_name(path) : rc;
}

static enum store_rc embedded_failed(const char *path, int err, char **why) {
    struct sbuf text = {0};
    sbuf_printf(&text, "%s: %s", path, strerror(-err));
    *why = sbuf_take(&text);
    return STORE_ERROR;
}

/* The tables that are missing, in a file that is made if it is. */
static enum store_rc embedded_fill(const char *path, char **why) {
    struct sbuf spec = {0};
    enum store_rc rc = STORE_ERROR;
    int err = make_file(path);
    if (err < 0)
        return embedded_failed(path, err, why);
    sbuf_printf(&spec, "sqlite:%s", path);
    struct store *st = store_open(spec.p, "/", true, why);
    if (st != NULL)
        rc = make_tables(st, why);
    store_close(st);
    sbuf_free(&spec);
    return rc;
}

/* A descriptor with the lock of a file that is made here, or negative errno. */
static int next_lock(const char *next) {
    int rc = make_file(next);
    int fd = rc < 0 ? rc : fs_open_only(next, O_RDWR, 0);
    if (fd < 0 || flock(fd, LOCK_EX) == 0)
        return fd;
    rc = -errno;
    close(fd);
    return rc;
}

/* A file that is there is asked for all mail: it gets its name when it has its tables.  A run that
 * is killed before leaves NAME.new, which the next one takes up; two at a time wait for each other.
 */
static enum store_rc embedded_create(const char *path, char **why) {
    struct sbuf next = {0};
    if (access(path, F_OK) == 0)
        return embedded_fill(path, why);
    sbuf_printf(&next, "%s.new", path);
    int lock = next_lock(next.p);
    bool there = access(path, F_OK) == 0;
    enum store_rc rc =
        lock < 0 ? embedded_failed(next.p, lock, why) : embedded_fill(there ? path : next.p, why);
    if (rc == STORE_YES && !there && rename(next.p, path) < 0)
        rc = embedded_failed(path, -errno, why);
    if (rc == STORE_YES) {
        fs_sync_dir(path);
        unlink(next.p); /* it is still there if another run has made the file meanwhile */
    }
    if (lock >= 0)
        close(lock);
    sbuf_free(&next);
    return rc;
}

struct store *store_embedded(const char *data_directory, char **why) {
    struct sbuf path = {0}, spec = {0};
    struct store *st = NULL;
    sbuf_printf(&path, "%s/accounts.db", data_directory);
    sbuf_printf(&spec, "sqlite:%s", path.p);
    if (embedded_create(path.p, why) == STORE_YES)
        st = store_open(spec.p, "/", true, why);
    sbuf_free(&path);
    sbuf_free(&spec);
    return st;
}

/* -- what the command adds to it -- */

static enum store_rc missing(char **why, const char *fmt, const char *what) {
    struct sbuf b = {0};
    for (const char *p = fmt; *p != '\0'; p++) {
        if (*p == '@')
            sbuf_add_c(&b, what);
        else
            sbuf_add_ch(&b, *p);
    }
    *why = sbuf_take(&b);
    return STORE_NO;
}

static void take_some(void *arg, struct str value) {
    (void)value;
    *(bool *)arg = true;
}

/* STORE_NO with fmt unless the query has (there) or has not (!there) rows for arg. */
static enum store_rc embedded_expect(struct store *st, const char *query, const char *arg,
                                     bool there, const char *fmt, char **why) {
    bool some = false;
    const char *args[] = {arg};
    enum store_rc rc = store_sql_run(st, query, args, take_some, &some, why);
    return rc == STORE_YES && some != there ? missing(why, fmt, arg) : rc;
}

static enum store_rc expect_domain(struct store *st, const char *domain, bool there, char **why) {
    return embedded_expect(
        st, "SELECT domain FROM domain WHERE domain = ?", domain, there,
        there ? "there is no domain @: add it first" : "domain @ is there already", why);
}

enum store_rc store_add_domain(struct store *st, const char *domain, char **why) {
    const char *args[] = {domain};
    enum store_rc rc = expect_domain(st, domain, false, why);
    if (rc != STORE_YES)
        return rc;
    return store_sql_run(st,
                         "INSERT INTO domain (domain, settings, created) VALUES (?, "
                         "'default_user_quota:1024;', CURRENT_TIMESTAMP)",
                         args, NULL, NULL, why);
}

enum store_rc store_add_user(struct store *st, const char *mail, const char *hash, char **why) {
    const char *domain = strchr(mail, '@') + 1;
    const char *user[] = {mail, hash, domain}, *self[] = {mail, mail, domain, domain};
    enum store_rc rc = expect_domain(st, domain, true, why);
    if (rc == STORE_YES)
        rc = embedded_expect(st, "SELECT username FROM mailbox WHERE username = ?", mail, false,
                             "user @ is there already", why);
    /* The account last, and nothing left of an attempt that was broken off: it can be repeated. */
    if (rc == STORE_YES)
        rc = store_sql_run(st,
                           "INSERT OR IGNORE INTO forwardings (address, forwarding, domain, "
                           "dest_domain, is_forwarding) VALUES (?, ?, ?, ?, 1)",
                           self, NULL, NULL, why);
    if (rc == STORE_YES)
        rc = store_sql_run(st,
                           "INSERT INTO mailbox (username, password, domain, created, "
                           "passwordlastchange) VALUES (?, ?, ?, CURRENT_TIMESTAMP, "
                           "CURRENT_TIMESTAMP)",
                           user, NULL, NULL, why);
    return rc;
}

enum store_rc store_add_admin(struct store *st, const char *mail, const char *hash,
                              const char *domain, char **why) {
    const char *admin[] = {mail, hash}, *role[] = {mail, domain == NULL ? "ALL" : domain};
    enum store_rc rc = domain == NULL ? STORE_YES : expect_domain(st, domain, true, why);
    if (rc == STORE_YES)
        rc = embedded_expect(st, "SELECT username FROM admin WHERE username = ?", mail, false,
                             "admin @ is there already", why);
    if (rc == STORE_YES)
        rc = store_sql_run(st, "DELETE FROM domain_admins WHERE username = ?", admin, NULL, NULL,
                           why);
    if (rc == STORE_YES)
        rc = store_sql_run(st,
                           "INSERT INTO domain_admins (username, domain, created) VALUES (?, ?, "
                           "CURRENT_TIMESTAMP)",
                           role, NULL, NULL, why);
    if (rc == STORE_YES)
        rc = store_sql_run(st,
                           "INSERT INTO admin (username, password, created, passwordlastchange) "
                           "VALUES (?, ?, CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)",
                           admin, NULL, NULL, why);
    return rc;
}
