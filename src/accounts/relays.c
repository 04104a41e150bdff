/*
 * accounts/relays.c - writing relay records; see relays.h
 */
#include "accounts/relays.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "maps/relays.h"
#include "route/nexthop.h"
#include "util/codec.h"
#include "util/fs.h"
#include "util/lite.h"
#include "util/mem.h"

#define BUSY_MS 5000
#define COLUMNS "name, nexthop, account, hosts, tls, mechanisms, username, secret IS NOT NULL"

struct relays {
    sqlite3 *db;
    unsigned char pub[SEAL_KEY];
};

static void record_say(char **why, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void record_say(char **why, const char *fmt, ...) {
    struct sbuf b = {0};
    va_list ap;
    va_start(ap, fmt);
    sbuf_vprintf(&b, fmt, ap);
    va_end(ap);
    *why = sbuf_take(&b);
}

/* -- the key -- */

static bool write_key(const char *path, const unsigned char key[SEAL_KEY], char **why) {
    struct sbuf text = {0};
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    base64_encode(&text, str_make((const char *)key, SEAL_KEY));
    sbuf_add_ch(&text, '\n');
    bool ok = fd >= 0 && fs_write_all(fd, text.p, text.n) == 0 && fsync(fd) == 0;
    if (!ok)
        record_say(why, "relays_key_file %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    sbuf_wipe(&text);
    return ok && fs_sync_dir(path) == 0;
}

/* The key file's public half goes into the database, where writers find it. */
static bool make_key(struct relays *r, const char *key_file, char **why) {
    unsigned char priv[SEAL_KEY];
    struct sbuf text = {0};
    int rc = relays_key_read(key_file, priv);
    bool ok = rc == 0;
    if (rc == -ENOENT)
        ok = seal_keys(priv, r->pub) && write_key(key_file, priv, why);
    else if (rc < 0)
        record_say(why, "relays_key_file %s: %s", key_file, strerror(-rc));
    ok = ok && seal_public(priv, r->pub);
    mem_wipe((char *)priv, sizeof priv);
    if (!ok)
        return false;
    base64_encode(&text, str_make((const char *)r->pub, SEAL_KEY));
    char *sql = sqlite3_mprintf("INSERT OR REPLACE INTO setting VALUES ('public_key', %Q)", text.p);
    ok = sqlite3_exec(r->db, sql, NULL, NULL, NULL) == SQLITE_OK;
    if (!ok)
        record_say(why, "%s", sqlite3_errmsg(r->db));
    sqlite3_free(sql);
    sbuf_free(&text);
    return ok;
}

static bool read_public(struct relays *r) {
    sqlite3_stmt *st = NULL;
    struct sbuf raw = {0};
    bool ok = sqlite3_prepare_v2(r->db, "SELECT value FROM setting WHERE name = 'public_key'", -1,
                                 &st, NULL) == SQLITE_OK &&
              sqlite3_step(st) == SQLITE_ROW &&
              base64_decode(&raw, str_of((const char *)sqlite3_column_text(st, 0))) &&
              raw.n == SEAL_KEY;
    if (ok)
        memcpy(r->pub, raw.p, SEAL_KEY);
    sqlite3_finalize(st);
    sbuf_free(&raw);
    return ok;
}

/* -- the file -- */

static bool make_folder(const char *path, char **why) {
    char *dir = fs_folder(str_of(path));
    int rc = fs_mkdir(dir, 0755);
    if (rc < 0)
        record_say(why, "%s: %s", dir, strerror(-rc));
    free(dir);
    return rc == 0;
}

struct relays *relays_open(const char *database, const char *key_file, bool create, bool *made,
                           char **why) {
    struct relays *r = MEM_NEW(struct relays);
    *made = access(database, F_OK) < 0;
    if (create && *made && access(key_file, F_OK) == 0) {
        record_say(why,
                   "%s is gone, and %s says that there were relay records: put it back, or remove "
                   "that key too to begin anew",
                   database, key_file);
        free(r);
        return NULL;
    }
    mode_t old = umask(077); /* sealed or not: for its owner and the lookup process */
    if (create && !make_folder(database, why)) {
        umask(old);
        free(r);
        return NULL;
    }
    int flags = SQLITE_OPEN_READWRITE | (create ? SQLITE_OPEN_CREATE : 0);
    int rc = lite_open(database, &r->db, flags);
    if (rc == SQLITE_OK) {
        sqlite3_busy_timeout(r->db, BUSY_MS);
        rc = sqlite3_exec(r->db, RELAYS_SCHEMA, NULL, NULL, NULL);
    }
    umask(old);
    if (*made && rc == SQLITE_OK)
        fs_adopt(database);
    if (rc != SQLITE_OK)
        record_say(why, "%s: %s", database,
                   r->db == NULL ? sqlite3_errstr(rc) : sqlite3_errmsg(r->db));
    else if (read_public(r) || make_key(r, key_file, why))
        return r;
    relays_close(r);
    return NULL;
}

void relays_close(struct relays *r) {
    if (r == NULL)
        return;
    sqlite3_close(r->db);
    free(r);
}

static const char *record_text_of(sqlite3_stmt *st, int i) {
    const char *p = (const char *)sqlite3_column_text(st, i);
    return p == NULL ? "" : p;
}

static struct relay_fields record_fields_of(sqlite3_stmt *st) {
    return (struct relay_fields){.name = record_text_of(st, 0),
                                 .nexthop = record_text_of(st, 1),
                                 .account = record_text_of(st, 2),
                                 .hosts = record_text_of(st, 3),
                                 .tls = record_text_of(st, 4),
                                 .mechanisms = record_text_of(st, 5),
                                 .user = record_text_of(st, 6),
                                 .has_secret = sqlite3_column_int(st, 7) != 0};
}

bool relays_each(struct relays *r, void (*fn)(void *arg, const struct relay_fields *f), void *arg,
                 char **why) {
    sqlite3_stmt *st = NULL;
    int rc =
        sqlite3_prepare_v2(r->db, "SELECT " COLUMNS " FROM relay ORDER BY name", -1, &st, NULL);
    while (rc == SQLITE_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        struct relay_fields f = record_fields_of(st);
        fn(arg, &f);
        rc = SQLITE_OK;
    }
    if (rc != SQLITE_DONE)
        record_say(why, "%s", sqlite3_errmsg(r->db));
    sqlite3_finalize(st);
    return rc == SQLITE_DONE;
}

bool relay_covers(const struct relay_fields *wide, const struct relay_fields *narrow) {
    const char *at = strrchr(narrow->account, '@');
    if (strcasecmp(wide->nexthop, narrow->nexthop) != 0 || strcmp(wide->name, narrow->name) == 0 ||
        narrow->account[0] == '\0')
        return false;
    return wide->account[0] == '\0' ||
           (at != NULL && at != narrow->account && strcasecmp(wide->account, at) == 0);
}

/* -- checks -- */

static bool is_one_of(const char *v, const char *const *list) {
    for (; *list != NULL; list++)
        if (strcmp(v, *list) == 0)
            return true;
    return false;
}

/* NULL, or what is wrong. */
static const char *record_check(const struct relay_fields *f, struct str *bad) {
    static const char *const modes[] = {"none", "may", "encrypt", "verify", "secure", NULL};
    const char *all[] = {f->name, f->nexthop, f->account, f->hosts, f->mechanisms, f->user};
    for (size_t i = 0; i < 6; i++) {
        *bad = str_of(all[i]);
        if (str_has_control(*bad) || bad->n > 255)
            return "control characters, or more than 255 bytes";
    }
    *bad = str_of(f->name);
    if (bad->n == 0)
        return "a record needs a name";
    *bad = str_of(f->hosts);
    if (bad->n == 0)
        return "a record needs hosts";
    const char *why = nexthop_check(str_of(f->hosts), bad);
    if (why != NULL)
        return why;
    *bad = str_of(f->tls);
    if (!is_one_of(f->tls, modes))
        return "TLS mode is none, may, encrypt, verify or secure";
    *bad = str_of(f->account);
    if (bad->n > 0 && str_rchr(*bad, '@') < 0)
        return "a record is for user@domain, for @domain or for all";
    *bad = str_of(f->user);
    if (f->password != NULL && bad->n == 0)
        return "a password needs a user name";
    return NULL;
}

static const char *record_lowered(const char *s, char **keep) {
    *keep = mem_strdup(s);
    str_lower(*keep, strlen(*keep));
    return *keep;
}

/* -- writing -- */

/* What f leaves out, from the record of that name or by default. */
struct merged {
    struct relay_fields f;
    sqlite3_stmt *st; /* owns the old record's texts */
    bool exists;
};

static bool merge(struct relays *r, const struct relay_fields *f, struct merged *m, char **why) {
    struct relay_fields old = {.nexthop = f->hosts == NULL ? "" : f->hosts,
                               .account = "",
                               .hosts = "",
                               .tls = "encrypt",
                               .mechanisms = "",
                               .user = ""};
    int rc = sqlite3_prepare_v2(r->db, "SELECT " COLUMNS " FROM relay WHERE name = ?1", -1, &m->st,
                                NULL);
    if (rc == SQLITE_OK) {
        sqlite3_bind_text(m->st, 1, f->name, -1, SQLITE_STATIC);
        rc = sqlite3_step(m->st);
    }
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        record_say(why, "%s", sqlite3_errmsg(r->db));
        return false;
    }
    m->exists = rc == SQLITE_ROW;
    if (m->exists)
        old = record_fields_of(m->st);
    m->f = *f;
    m->f.nexthop = f->nexthop == NULL ? old.nexthop : f->nexthop;
    m->f.account = f->account == NULL ? old.account : f->account;
    m->f.hosts = f->hosts == NULL ? old.hosts : f->hosts;
    m->f.tls = f->tls == NULL ? old.tls : f->tls;
    m->f.mechanisms = f->mechanisms == NULL ? old.mechanisms : f->mechanisms;
    m->f.user = f->user == NULL ? old.user : f->user;
    m->f.has_secret = old.has_secret;
    bool moved = strcmp(m->f.hosts, old.hosts) != 0 || strcmp(m->f.user, old.user) != 0;
    if (f->password == NULL && m->f.user[0] != '\0' && (!old.has_secret || moved)) {
        record_say(why, "the password is needed%s",
                   old.has_secret
                       ? " again: it may go to the hosts and as the user that it was set for only"
                       : "");
        return false;
    }
    return true;
}

static bool write_record(struct relays *r, const struct merged *m, struct str sealed, char **why) {
    sqlite3_stmt *st = NULL;
    char *hop, *account;
    const char *sql =
        m->exists
            ? "UPDATE relay SET nexthop = ?2, account = ?3, hosts = ?4, tls = ?5, mechanisms ="
              " ?6, username = ?7, modified = ?8, secret = CASE WHEN ?10 THEN ?9 ELSE secret"
              " END WHERE name = ?1"
            : "INSERT INTO relay (name, nexthop, account, hosts, tls, mechanisms, username,"
              " modified, secret) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    int rc = sqlite3_prepare_v2(r->db, sql, -1, &st, NULL);
    const char *texts[] = {m->f.name,
                           record_lowered(m->f.nexthop, &hop),
                           record_lowered(m->f.account, &account),
                           m->f.hosts,
                           m->f.tls,
                           m->f.mechanisms,
                           m->f.user};
    for (int i = 0; i < 7; i++)
        sqlite3_bind_text(st, i + 1, texts[i], -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, 8, time(NULL));
    if (sealed.p != NULL)
        sqlite3_bind_blob(st, 9, sealed.p, (int)sealed.n, SQLITE_STATIC);
    if (m->exists) /* without a user there is no secret either */
        sqlite3_bind_int(st, 10, sealed.p != NULL || m->f.user[0] == '\0');
    if (rc == SQLITE_OK)
        rc = sqlite3_step(st);
    if (rc == SQLITE_CONSTRAINT)
        record_say(why, "another record is already for the next hop \"%s\" and %s", hop,
                   account[0] == '\0' ? "everybody" : account);
    else if (rc != SQLITE_DONE)
        record_say(why, "%s", sqlite3_errmsg(r->db));
    sqlite3_finalize(st);
    free(hop);
    free(account);
    return rc == SQLITE_DONE;
}

bool relays_set(struct relays *r, const struct relay_fields *f, char **why) {
    struct merged m = {.st = NULL};
    struct sbuf sealed = {0}, bound = {0};
    struct str bad = STR_NONE;
    bool ok = merge(r, f, &m, why);
    const char *wrong = ok ? record_check(&m.f, &bad) : NULL;
    if (wrong != NULL) {
        record_say(why, "\"%.*s\": %s", STR_FMT(bad), wrong);
        ok = false;
    }
    if (ok && f->password != NULL) {
        relays_bound(&bound, m.f.hosts, m.f.user);
        ok = seal_close(r->pub, str_of(f->password), sbuf_str(&bound), &sealed);
        if (!ok)
            record_say(why, "the password cannot be sealed");
    }
    ok = ok && write_record(r, &m, sealed.n > 0 ? sbuf_str(&sealed) : STR_NONE, why);
    sqlite3_finalize(m.st);
    sbuf_free(&sealed);
    sbuf_free(&bound);
    return ok;
}

bool relays_delete(struct relays *r, const char *name, char **why) {
    sqlite3_stmt *st = NULL;
    *why = NULL;
    int rc = sqlite3_prepare_v2(r->db, "DELETE FROM relay WHERE name = ?1", -1, &st, NULL);
    if (rc == SQLITE_OK) {
        sqlite3_bind_text(st, 1, name, -1, SQLITE_STATIC);
        rc = sqlite3_step(st);
    }
    if (rc != SQLITE_DONE)
        record_say(why, "%s", sqlite3_errmsg(r->db));
    sqlite3_finalize(st);
    return rc == SQLITE_DONE && sqlite3_changes(r->db) > 0;
}
