/*
 * accounts/store_sql.c - iRedMail's tables in SQLite, MariaDB, MySQL and PostgreSQL; see store.h
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "accounts/inside.h"
#include "accounts/password.h"
#include "maps/tabconf.h"
#include "util/fs.h"
#include "util/mem.h"

/* -- statements -- */

struct statement {
    struct store *st;
    const char *text;
    const char *const *args;
    sql_value_fn fn;
    void *arg;
};

static enum remote_rc run_conn(void *arg, void *conn, char **why) {
    const struct statement *s = arg;
    struct sbuf sql = {0};
    const char *const *a = s->args;
    int sets = SQL_ALL_COLUMNS;
    for (const char *p = s->text; *p != '\0'; p++) {
        if (*p != '?') {
            sbuf_add_ch(&sql, *p);
            continue;
        }
        sbuf_add_ch(&sql, '\'');
        s->st->sql->quote(conn, str_of(*a++), &sql);
        sbuf_add_ch(&sql, '\'');
    }
    enum remote_rc rc = s->st->sql->ask(conn, sql.p, s->fn, s->arg, &sets, why);
    sbuf_wipe(&sql);
    return rc;
}

static void ignore(void *arg, struct str value) {
    (void)arg;
    (void)value;
}

enum store_rc store_sql_run(struct store *st, const char *text, const char *const *args,
                            sql_value_fn fn, void *arg, char **why) {
    struct statement s = {st, text, args, fn == NULL ? ignore : fn, arg};
    char *e = NULL;
    if (pool_use(st->pool, run_conn, &s, &e) == REMOTE_OK)
        return STORE_YES;
    struct sbuf b = {0};
    sbuf_printf(&b, "%s: %s", st->spec, e);
    free(e);
    *why = sbuf_take(&b);
    return STORE_ERROR;
}

/* The values of one row, or of the last one. */
struct row {
    char *v[8];
    size_t n;
};

static void take(void *arg, struct str value) {
    struct row *r = arg;
    if (r->n < 8)
        r->v[r->n++] = str_dup(value.p == NULL ? STR_LIT("") : value);
}

static void row_free(struct row *r) {
    for (size_t i = 0; i < r->n; i++) {
        mem_wipe(r->v[i], strlen(r->v[i]));
        free(r->v[i]);
    }
    r->n = 0;
}

/* -- relay hosts -- */

struct pairs {
    store_pair_fn fn;
    void *arg;
    char *account;
};

static void take_pair(void *arg, struct str value) {
    struct pairs *p = arg;
    if (value.p == NULL)
        value = STR_LIT("");
    if (p->account == NULL) {
        p->account = str_dup(value);
        return;
    }
    p->fn(p->arg, str_of(p->account), value);
    free(p->account);
    p->account = NULL;
}

static enum store_rc sql_relay_each(struct store *st, const char *account, store_pair_fn fn,
                                    void *arg, char **why) {
    struct pairs p = {fn, arg, NULL};
    const char *args[] = {account};
    enum store_rc rc = store_sql_run(
        st,
        account[0] == '\0' ? "SELECT account, relayhost FROM sender_relayhost ORDER BY account"
                           : "SELECT account, relayhost FROM sender_relayhost WHERE account = ?",
        args, take_pair, &p, why);
    free(p.account);
    return rc;
}

static enum store_rc sql_relay_set(struct store *st, const char *account, const char *value,
                                   char **why) {
    struct row had = {.n = 0};
    const char *args[] = {account, value == NULL ? "" : value};
    const char *update[] = {value, account};
    enum store_rc rc = store_sql_run(st, "SELECT account FROM sender_relayhost WHERE account = ?",
                                     args, take, &had, why);
    bool there = had.n > 0;
    row_free(&had);
    if (rc != STORE_YES)
        return rc;
    if (value == NULL && !there)
        return STORE_NO;
    if (value == NULL)
        return store_sql_run(st, "DELETE FROM sender_relayhost WHERE account = ?", args, NULL, NULL,
                             why);
    if (there)
        return store_sql_run(st, "UPDATE sender_relayhost SET relayhost = ? WHERE account = ?",
                             update, NULL, NULL, why);
    return store_sql_run(st, "INSERT INTO sender_relayhost (account, relayhost) VALUES (?, ?)",
                         args, NULL, NULL, why);
}

static enum store_rc sql_has(struct store *st, const char *account, char **why) {
    struct row r = {.n = 0};
    const char *args[] = {account + (account[0] == '@')};
    enum store_rc rc =
        store_sql_run(st,
                      account[0] == '\0'  ? "SELECT domain FROM domain LIMIT 1"
                      : account[0] == '@' ? "SELECT domain FROM domain WHERE domain = ?"
                                          : "SELECT username FROM mailbox WHERE username = ?",
                      args, take, &r, why);
    bool there = r.n > 0;
    row_free(&r);
    return rc == STORE_YES && !there ? STORE_NO : rc;
}

/* -- passwords -- */

#define LOGIN_QUERY(column)                                                                        \
    "SELECT mailbox.password, mailbox.username, mailbox.allow_nets FROM mailbox, domain"           \
    " WHERE mailbox.username = ? AND mailbox." column " = 1 AND mailbox.active = 1"                \
    " AND mailbox.domain = domain.domain AND domain.backupmx = 0 AND domain.active = 1"

static enum store_rc sql_verify(struct store *st, const char *user, const char *password,
                                bool secure, const char *client, struct sbuf *name, char **why) {
    struct row r = {.n = 0};
    char *lower = mem_strdup(user);
    str_lower(lower, strlen(lower));
    const char *args[] = {lower};
    enum store_rc rc =
        store_sql_run(st, secure ? LOGIN_QUERY("enablesmtpsecured") : LOGIN_QUERY("enablesmtp"),
                      args, take, &r, why);
    if (rc == STORE_YES && r.n < 3) {
        sbuf_add_c(name, "no such user, or not active, or not allowed to send");
        rc = STORE_NO;
    } else if (rc == STORE_YES && !store_net_ok(r.v[2], client)) {
        sbuf_add_c(name, "client address is not in the user's allow_nets");
        rc = STORE_NO;
    } else if (rc == STORE_YES) {
        enum password_rc good = password_check(r.v[0], password);
        rc = good == PASSWORD_YES ? STORE_YES : STORE_NO;
        sbuf_add_c(name, good == PASSWORD_YES ? r.v[1]
                         : good == PASSWORD_NO
                             ? "wrong password"
                             : "the stored password has a scheme that is not known");
    }
    row_free(&r);
    free(lower);
    return rc;
}

const struct store_ops store_sql = {sql_relay_each, sql_relay_set, sql_verify,  sql_has,
                                    sql_browse,     sql_search,    sql_account, sql_change,
                                    sql_admin,      sql_manages};

/* -- the embedded store -- */

#define DATES                                                                                      \
    " created DATETIME NOT NULL DEFAULT '1970-01-01 01:01:01',"                                    \
    " modified DATETIME NOT NULL DEFAULT '1970-01-01 01:01:01',"                                   \
    " expired DATETIME NOT NULL DEFAULT '9999-12-31 00:00:00',"                                    \
    " active TINYINT(1) NOT NULL DEFAULT 1"
#define TEXT(name) " " name " VARCHAR(255) NOT NULL DEFAULT '',"
#define FLAG(name) " " name " TINYINT(1) NOT NULL DEFAULT 1,"

/* iRedMail's, as far as accounts go. */
static const char *const schema[] = {
    "CREATE TABLE IF NOT EXISTS admin (username VARCHAR(255) NOT NULL PRIMARY KEY," TEXT("password")
        TEXT("name") TEXT("language") " passwordlastchange DATETIME NOT NULL DEFAULT '1970-01-01 "
                                      "01:01:01', settings TEXT," DATES ")",
    "CREATE TABLE IF NOT EXISTS domain_admins (username VARCHAR(255) NOT NULL DEFAULT '', domain "
    "VARCHAR(255) NOT NULL DEFAULT ''," DATES ", PRIMARY KEY (username, domain))",
    "CREATE TABLE IF NOT EXISTS domain (domain VARCHAR(255) NOT NULL PRIMARY KEY, description TEXT,"
    " disclaimer TEXT, aliases INT NOT NULL DEFAULT 0, mailboxes INT NOT NULL DEFAULT 0,"
    " maillists INT NOT NULL DEFAULT 0, maxquota BIGINT NOT NULL DEFAULT 0,"
    " quota BIGINT NOT NULL DEFAULT 0, transport VARCHAR(255) NOT NULL DEFAULT 'dovecot',"
    " backupmx TINYINT(1) NOT NULL DEFAULT 0, settings TEXT," DATES ")",
    "CREATE TABLE IF NOT EXISTS alias_domain (alias_domain VARCHAR(255) NOT NULL PRIMARY KEY,"
    " target_domain VARCHAR(255) NOT NULL," DATES ")",
    "CREATE TABLE IF NOT EXISTS mailbox (username VARCHAR(255) NOT NULL PRIMARY KEY," TEXT(
        "password") TEXT("name") TEXT("language") TEXT("first_name") TEXT("last_name")
        TEXT("mobile") TEXT("telephone") TEXT(
            "recovery_email") " birthday DATE NOT NULL DEFAULT '0001-01-01',"
                              " mailboxformat VARCHAR(50) NOT NULL DEFAULT 'maildir',"
                              " mailboxfolder VARCHAR(50) NOT NULL DEFAULT 'Maildir'," TEXT(
                                  "storagebasedirectory") TEXT("storagenode")
                                  TEXT("maildir") " quota BIGINT NOT NULL DEFAULT 0," TEXT("domain") TEXT("transport") TEXT("department") " rank VARCHAR(255) NOT NULL DEFAULT 'normal'," TEXT(
                                      "employeeid") " isadmin TINYINT(1) NOT NULL DEFAULT 0,"
                                                    " isglobaladmin TINYINT(1) NOT NULL DEFAULT "
                                                    "0," FLAG("enablesmtp") FLAG(
                                                        "enablesmtpsecured")
                                                        FLAG("enablepop3") FLAG(
                                                            "enablepop3secured") FLAG("enablepop3tl"
                                                                                      "s")
                                                            FLAG("enableimap") FLAG(
                                                                "enableimapsecured") FLAG("enableim"
                                                                                          "aptls")
                                                                FLAG("enabledeliver") FLAG(
                                                                    "enablel"
                                                                    "da") FLAG("enablemanagesieve")
                                                                    FLAG("enab"
                                                                         "lema"
                                                                         "nage"
                                                                         "siev"
                                                                         "esec"
                                                                         "ure"
                                                                         "d") FLAG("enablesieve")
                                                                        FLAG(
                                                                            "enable"
                                                                            "sieves"
                                                                            "ecure"
                                                                            "d") FLAG("enablesievet"
                                                                                      "ls")
                                                                            FLAG("e"
                                                                                 "n"
                                                                                 "a"
                                                                                 "b"
                                                                                 "l"
                                                                                 "e"
                                                                                 "i"
                                                                                 "n"
                                                                                 "t"
                                                                                 "e"
                                                                                 "r"
                                                                                 "n"
                                                                                 "a"
                                                                                 "l") FLAG("enabled"
                                                                                           "ovead"
                                                                                           "m")
                                                                                FLAG(
                                                                                    "enablel"
                                                                                    "mtp") FLAG("en"
                                                                                                "ab"
                                                                                                "le"
                                                                                                "ds"
                                                                                                "y"
                                                                                                "n"
                                                                                                "c")
                                                                                    FLAG(
                                                                                        "enablesog"
                                                                                        "o") " allo"
                                                                                             "w_"
                                                                                             "nets "
                                                                                             "TEXT "
                                                                                             "DEFAU"
                                                                                             "LT "
                                                                                             "NULL,"
                                                                                             " disc"
                                                                                             "laime"
                                                                                             "r "
                                                                                             "TEXT,"
                                                                                             " sett"
                                                                                             "ings "
                                                                                             "TEXT,"
                                                                                             " pass"
                                                                                             "wordl"
                                                                                             "astch"
                                                                                             "ange "
                                                                                             "DATET"
                                                                                             "IME "
                                                                                             "NOT "
                                                                                             "NULL "
                                                                                             "DEFAU"
                                                                                             "LT "
                                                                                             "'1970"
                                                                                             "-01-"
                                                                                             "01 "
                                                                                             "01:"
                                                                                             "01:"
                                                                                             "01'"
                                                                                             "," DATES
                                                                                             ")",
    "CREATE INDEX IF NOT EXISTS mailbox_domain ON mailbox (domain)",
    "CREATE TABLE IF NOT EXISTS alias (address VARCHAR(255) NOT NULL PRIMARY KEY," TEXT("name")
        TEXT("accesspolicy") TEXT("domain") DATES ")",
    "CREATE TABLE IF NOT EXISTS forwardings (id INTEGER PRIMARY KEY AUTOINCREMENT," TEXT("address")
        TEXT("forwarding") TEXT("domain") TEXT(
            "dest_domain") " is_maillist TINYINT(1) NOT NULL DEFAULT 0, is_list TINYINT(1) NOT "
                           "NULL DEFAULT 0,"
                           " is_forwarding TINYINT(1) NOT NULL DEFAULT 0, is_alias TINYINT(1) NOT "
                           "NULL DEFAULT 0,"
                           " active TINYINT(1) NOT NULL DEFAULT 1, UNIQUE (address, forwarding))",
    "CREATE TABLE IF NOT EXISTS sender_relayhost (id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " account VARCHAR(255) NOT NULL DEFAULT '' COLLATE NOCASE UNIQUE,"
    " relayhost VARCHAR(255) NOT NULL DEFAULT '')",
};

/* Readable for its owner only: it has password hashes. */
static int make_file(const char *path) {
    struct str p = str_of(path);
    ptrdiff_t slash = str_rchr(p, '/');
    char *dir = str_dup(str_make(p.p, slash < 0 ? 0 : (size_t)slash));
    int rc = dir[0] == '\0' ? 0 : fs_mkdir(dir, 0755);
    free(dir);
    int fd = rc < 0 ? -1 : open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return rc < 0 ? rc : -errno;
    close(fd);
    fs_adopt(path);
    return 0;
}

enum store_rc store_create(const char *path, char **why) {
    struct sbuf spec = {0};
    enum store_rc rc = STORE_YES;
    int err = make_file(path);
    if (err < 0) {
        sbuf_printf(&spec, "%s: %s", path, strerror(-err));
        *why = sbuf_take(&spec);
        return STORE_ERROR;
    }
    sbuf_printf(&spec, "sqlite:%s", path);
    struct store *st = store_open(spec.p, "/", true, why);
    for (size_t i = 0; st != NULL && rc == STORE_YES && i < sizeof schema / sizeof schema[0]; i++)
        rc = store_sql_run(st, schema[i], NULL, NULL, NULL, why);
    store_close(st);
    sbuf_free(&spec);
    return rc;
}

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

/* STORE_NO with fmt unless the query has (there) or has not (!there) rows for arg. */
static enum store_rc expect(struct store *st, const char *query, const char *arg, bool there,
                            const char *fmt, char **why) {
    struct row r = {.n = 0};
    const char *args[] = {arg};
    enum store_rc rc = store_sql_run(st, query, args, take, &r, why);
    bool some = r.n > 0;
    row_free(&r);
    return rc == STORE_YES && some != there ? missing(why, fmt, arg) : rc;
}

static enum store_rc expect_domain(struct store *st, const char *domain, bool there, char **why) {
    return expect(st, "SELECT domain FROM domain WHERE domain = ?", domain, there,
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
        rc = expect(st, "SELECT username FROM mailbox WHERE username = ?", mail, false,
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
        rc = expect(st, "SELECT username FROM admin WHERE username = ?", mail, false,
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
