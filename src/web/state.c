/*
 * web/state.c - what the page keeps of its own; see state.h
 */
#include "web/state.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "util/codec.h"
#include "util/fs.h"
#include "util/lite.h"
#include "util/log.h"
#include "util/mem.h"

#define BUSY_MS    5000
#define STATEMENTS 48U

/* A statement stays prepared; the text is a literal of its caller, so its address is its name. */
struct prepared {
    const char *sql;
    sqlite3_stmt *st;
};

struct state {
    sqlite3 *db;
    struct prepared kept[STATEMENTS]; /* under the mutex of db */
    size_t n;
};

/* log is iRedAdmin's, column for column. */
static const char schema[] =
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
    "CREATE TABLE IF NOT EXISTS session (hash TEXT PRIMARY KEY, admin TEXT NOT NULL, csrf TEXT NOT "
    "NULL, page INTEGER NOT NULL, ip TEXT NOT NULL, created INTEGER NOT NULL, used INTEGER NOT "
    "NULL);"
    "CREATE TABLE IF NOT EXISTS token (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, "
    "hash TEXT NOT NULL UNIQUE, scopes TEXT NOT NULL, domain TEXT NOT NULL, admin TEXT NOT NULL, "
    "created INTEGER NOT NULL, expires INTEGER NOT NULL, used INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE IF NOT EXISTS link (hash TEXT PRIMARY KEY, admin TEXT NOT NULL, expires INTEGER "
    "NOT NULL);"
    "CREATE TABLE IF NOT EXISTS log (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT NOT NULL "
    "DEFAULT CURRENT_TIMESTAMP, admin VARCHAR(255) NOT NULL, ip VARCHAR(40) NOT NULL, domain "
    "VARCHAR(255) NOT NULL DEFAULT '', username VARCHAR(255) NOT NULL DEFAULT '', event "
    "VARCHAR(20) "
    "NOT NULL DEFAULT '', loglevel VARCHAR(10) NOT NULL DEFAULT 'info', msg TEXT);"
    "CREATE INDEX IF NOT EXISTS log_domain ON log (domain);"
    "CREATE INDEX IF NOT EXISTS log_admin ON log (admin);"
    "CREATE TABLE IF NOT EXISTS sample (at INTEGER PRIMARY KEY, sent INTEGER NOT NULL, deferred "
    "INTEGER NOT NULL, bounced INTEGER NOT NULL, waiting INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS run (id TEXT PRIMARY KEY, kind TEXT NOT NULL, sender TEXT NOT "
    "NULL, "
    "recipient TEXT NOT NULL, admin TEXT NOT NULL, started INTEGER NOT NULL, passed INTEGER, steps "
    "TEXT NOT NULL);"
    "CREATE INDEX IF NOT EXISTS run_admin ON run (admin);"
    "CREATE INDEX IF NOT EXISTS session_admin ON session (admin);"
    "CREATE TABLE IF NOT EXISTS known (admin TEXT NOT NULL, network TEXT NOT NULL, at INTEGER NOT "
    "NULL, PRIMARY KEY (admin, network)) WITHOUT ROWID;";

/* look: a query that fails where the column is not there yet. */
static int state_add_column(struct state *s, const char *look, const char *add) {
    if (sqlite3_exec(s->db, look, NULL, NULL, NULL) == SQLITE_OK)
        return SQLITE_OK;
    return sqlite3_exec(s->db, add, NULL, NULL, NULL);
}

struct state *state_open(const char *data_directory, char **why) {
    struct state *s = MEM_NEW(struct state);
    struct sbuf path = {0};
    mode_t old = umask(077);
    sbuf_printf(&path, "%s/web.db", data_directory);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX;
    int rc = lite_open(path.p, &s->db, flags);
    if (rc == SQLITE_OK) {
        sqlite3_busy_timeout(s->db, BUSY_MS);
        rc = sqlite3_exec(s->db, schema, NULL, NULL, NULL);
        /* The sessions of an older version end; its tokens are not bound to one account. */
        if (rc == SQLITE_OK)
            rc = state_add_column(s, "SELECT mark FROM session LIMIT 1",
                                  "ALTER TABLE session ADD COLUMN mark TEXT NOT NULL DEFAULT ''");
        if (rc == SQLITE_OK)
            rc = state_add_column(s, "SELECT born FROM token LIMIT 1",
                                  "ALTER TABLE token ADD COLUMN born TEXT NOT NULL DEFAULT ''");
    }
    umask(old);
    fs_adopt(path.p);
    if (rc != SQLITE_OK) {
        struct sbuf b = {0};
        sbuf_printf(&b, "%s: %s", path.p,
                    s->db == NULL ? sqlite3_errstr(rc) : sqlite3_errmsg(s->db));
        *why = sbuf_take(&b);
        state_close(s);
        s = NULL;
    }
    sbuf_free(&path);
    return s;
}

void state_close(struct state *s) {
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->n; i++)
        sqlite3_finalize(s->kept[i].st);
    sqlite3_close(s->db);
    free(s);
}

static void bind(sqlite3_stmt *st, const char *kinds, va_list ap) {
    for (int i = 0; kinds[i] != '\0'; i++) {
        if (kinds[i] == 'i')
            sqlite3_bind_int64(st, i + 1, va_arg(ap, int64_t));
        else
            sqlite3_bind_text(st, i + 1, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
    }
}

/* One that a caller further up is in the middle of is not taken. */
static sqlite3_stmt *state_prepare(struct state *s, const char *sql, bool *kept) {
    sqlite3_stmt *st = NULL;
    *kept = true;
    for (size_t i = 0; i < s->n; i++)
        if (s->kept[i].sql == sql && !sqlite3_stmt_busy(s->kept[i].st))
            return s->kept[i].st;
    *kept = s->n < STATEMENTS;
    if (sqlite3_prepare_v3(s->db, sql, -1, *kept ? SQLITE_PREPARE_PERSISTENT : 0, &st, NULL) !=
        SQLITE_OK)
        return NULL;
    if (*kept)
        s->kept[s->n++] = (struct prepared){sql, st};
    return st;
}

int state_run(struct state *s, state_row_fn fn, void *arg, const char *sql, const char *kinds,
              ...) {
    va_list ap;
    bool kept;
    int changed = -1, rc = SQLITE_ERROR;
    sqlite3_mutex_enter(sqlite3_db_mutex(s->db)); /* its changes are counted for it alone */
    sqlite3_stmt *st = state_prepare(s, sql, &kept);
    if (st != NULL) {
        va_start(ap, kinds);
        bind(st, kinds, ap);
        va_end(ap);
        while ((rc = sqlite3_step(st)) == SQLITE_ROW)
            if (fn != NULL)
                fn(arg, st);
    }
    if (rc != SQLITE_DONE)
        log_error("web", "web.db: %s", sqlite3_errmsg(s->db));
    else
        changed = sqlite3_changes(s->db);
    if (!kept) {
        sqlite3_finalize(st);
    } else if (st != NULL) {
        sqlite3_reset(st);
        sqlite3_clear_bindings(st);
    }
    sqlite3_mutex_leave(sqlite3_db_mutex(s->db));
    return changed;
}

const char *state_text(sqlite3_stmt *row, int column) {
    const char *p = (const char *)sqlite3_column_text(row, column);
    return p == NULL ? "" : p;
}

/* base64url (RFC 4648 section 5), without padding. */
void secret_new(char out[SECRET_TEXT]) {
    unsigned char raw[32];
    struct sbuf b = {0};
    if (RAND_bytes(raw, sizeof raw) != 1)
        abort(); /* nothing that is guarded by it may be made */
    base64_encode(&b, str_make((const char *)raw, sizeof raw));
    for (size_t i = 0; i < SECRET_TEXT - 1; i++)
        out[i] = (char)(b.p[i] == '+' ? '-' : b.p[i] == '/' ? '_' : b.p[i]);
    out[SECRET_TEXT - 1] = '\0';
    sbuf_wipe(&b);
    mem_wipe(raw, sizeof raw);
}

void secret_hash(const char *secret, char out[HASH_TEXT]) {
    static const char digits[] = "0123456789abcdef";
    unsigned char md[32];
    unsigned n = sizeof md;
    if (EVP_Digest(secret, strlen(secret), md, &n, EVP_sha256(), NULL) != 1)
        abort();
    for (size_t i = 0; i < HASH_TEXT - 1; i++)
        out[i] = digits[i % 2 == 0 ? md[i / 2] >> 4 : md[i / 2] & 15];
    out[HASH_TEXT - 1] = '\0';
}

bool secret_equal(const char *a, const char *b) {
    size_t n = strlen(a);
    return n == strlen(b) && CRYPTO_memcmp(a, b, n) == 0;
}

int64_t now_s(void) {
    return time(NULL);
}
