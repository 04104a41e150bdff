/*
 * maps/map_relays.c - relays: Posthouse's own relay records and their secrets
 *
 * A SQLite file (accounts/relays.c writes it).  Two kinds of keys: "account\nnext hop" is answered
 * with the record that this account may use, as JSON (route/record.h), "account\n\tnext hop" with
 * one that is the server's, "\n\nid\nTLS mode\nmechanisms\nnext hop" with "user\nsecret", if that
 * next hop is one of the record's hosts and the rest is as the record has it now.  Secrets are
 * sealed for the key in relays_key_file, which only this process reads; each is bound to the hosts
 * and the user that it was given for, so that writing the file is not enough to have it sent
 * elsewhere.
 */
#include <errno.h>
#include <jansson.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "maps/map.h"
#include "maps/relays.h"
#include "maps/tabconf.h"
#include "util/codec.h"
#include "util/fs.h"
#include "util/idn.h"
#include "util/mem.h"
#include "util/seal.h"

#define BUSY_MS 5000

void relays_bound(struct sbuf *out, const char *hosts, const char *user) {
    sbuf_printf(out, "%s\n%s", hosts, user);
}

void relays_ask_secret(struct sbuf *out, const struct relays_question *q) {
    sbuf_printf(out, "\n\n%s\n%s\n%s\n%s\n%s\n%s", q->id, q->tls, q->mechanisms, q->user,
                q->account, q->nexthop);
}

int relays_key_read(const char *path, unsigned char key[SEAL_KEY]) {
    struct sbuf text = {0}, raw = {0};
    int rc = fs_read(path, &text, 4096);
    if (rc == 0 && (!base64_decode(&raw, str_trim(sbuf_str(&text))) || raw.n != SEAL_KEY))
        rc = -EINVAL;
    if (rc == 0)
        memcpy(key, raw.p, SEAL_KEY);
    sbuf_wipe(&text);
    sbuf_wipe(&raw);
    return rc;
}

/* A login has capital letters; what else is asked for is brought into one form here. */
static int relays_map_open(struct map *m) {
    m->fold = false;
    return 0;
}

/* plain(text): util/idn.h, idn_plain. */
static void sql_plain(sqlite3_context *context, int n, sqlite3_value **args) {
    struct sbuf plain = {0};
    const char *text = n == 1 ? (const char *)sqlite3_value_text(args[0]) : NULL;
    idn_plain(str_of(text == NULL ? "" : text), false, &plain);
    sqlite3_result_text(context, plain.n == 0 ? "" : plain.p, (int)plain.n, SQLITE_TRANSIENT);
    sbuf_free(&plain);
}

/* Has a list, with a comma between two, that account, which is in its one form?  The domain of
 * those alone that have its local part is looked at. */
static bool is_listed(struct str list, struct str account) {
    struct str local = str_make(account.p, (size_t)(str_rchr(account, '@') + 1));
    struct str domain = str_from(account, local.n);
    bool listed = false;
    while (!listed && list.n > 0) {
        ptrdiff_t comma = str_chr(list, ',');
        struct str one = str_make(list.p, comma < 0 ? list.n : (size_t)comma);
        listed = one.n > local.n && str_ieq(str_make(one.p, local.n), local) &&
                 idn_same(str_from(one, local.n), domain, false);
        list = str_from(list, comma < 0 ? list.n : one.n + 1);
    }
    return listed;
}

/* listed(list, account) */
static void sql_listed(sqlite3_context *context, int n, sqlite3_value **args) {
    const char *list = n == 2 ? (const char *)sqlite3_value_text(args[0]) : NULL;
    const char *account = n == 2 ? (const char *)sqlite3_value_text(args[1]) : NULL;
    bool listed = list != NULL && account != NULL && is_listed(str_of(list), str_of(account));
    sqlite3_result_int(context, listed);
}

static sqlite3 *db_open(struct map *m) {
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(m->path, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_create_function_v2(db, RELAYS_PLAIN, 1, SQLITE_UTF8 | SQLITE_DETERMINISTIC,
                                        NULL, sql_plain, NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_create_function_v2(db, RELAYS_LISTED, 2, SQLITE_UTF8 | SQLITE_DETERMINISTIC,
                                        NULL, sql_listed, NULL, NULL, NULL);
    if (rc == SQLITE_OK) {
        sqlite3_busy_timeout(db, BUSY_MS);
        return db;
    }
    map_set_error(m, "%s: %s", m->path, db == NULL ? sqlite3_errstr(rc) : sqlite3_errmsg(db));
    sqlite3_close(db);
    return NULL;
}

static const char *column(sqlite3_stmt *st, int i) {
    const char *p = (const char *)sqlite3_column_text(st, i);
    return p == NULL ? "" : p;
}

/* Columns: id, name, hosts, tls, mechanisms, username, account, modified. */
static void put_record(sqlite3_stmt *st, struct sbuf *value) {
    static const char *const names[] = {"id",         "name", "hosts",   "tls",
                                        "mechanisms", "user", "account", "modified"};
    for (int i = 0; i < 8; i++) {
        sbuf_printf(value, "%s\"%s\": ", i == 0 ? "{" : ", ", names[i]);
        sbuf_add_json(value, str_of(column(st, i)));
    }
    sbuf_add_ch(value, '}');
}

static void bind_plain(sqlite3_stmt *st, int at, struct str text) {
    struct sbuf plain = {0};
    idn_plain(text, false, &plain);
    sqlite3_bind_text(st, at, plain.n == 0 ? "" : plain.p, (int)plain.n, SQLITE_TRANSIENT);
    sbuf_free(&plain);
}

static enum map_rc get_record(struct map *m, sqlite3_stmt *st, struct str key, struct sbuf *value) {
    ptrdiff_t nl = str_chr(key, '\n');
    struct str hop = str_from(key, (size_t)(nl + 1)),
               account = str_make(key.p, nl < 0 ? 0 : (size_t)nl);
    bool servers = str_istarts(hop, RELAYS_SERVERS);
    if (str_chr(account, ',') >= 0) /* of a list there is one */
        return MAP_NOT_FOUND;
    bind_plain(st, 1, account);
    bind_plain(st, 2, str_from(hop, servers ? 1 : 0));
    sqlite3_bind_int(st, 3, servers); /* a file without owners has no such parameter */
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        put_record(st, value);
        return MAP_FOUND;
    }
    if (rc != SQLITE_DONE)
        map_set_error(m, "%s: %s", m->path, sqlite3_errstr(rc));
    return rc == SQLITE_DONE ? MAP_NOT_FOUND : MAP_ERROR;
}

/* The next hop has its host in A-labels, by one of the two ways of making them. */
static bool is_same_hop(struct str host, struct str nexthop) {
    bool same = str_ieq(host, nexthop);
    for (int idna2003 = 0; !same && idna2003 < 2; idna2003++) {
        struct sbuf ascii = {0};
        same = idn_hop_to_ascii(host, idna2003 == 1, &ascii, NULL) &&
               str_ieq(sbuf_str(&ascii), nexthop);
        sbuf_free(&ascii);
    }
    return same;
}

static bool is_own_host(const char *hosts, struct str nexthop) {
    struct str rest = str_of(hosts), one;
    while (str_split(&rest, ", \t\r\n", &one))
        if (is_same_hop(one, nexthop))
            return true;
    return false;
}

/* Columns: hosts, username, secret. */
static bool unseal(struct map *m, sqlite3_stmt *st, struct sbuf *value) {
    unsigned char key[SEAL_KEY];
    struct sbuf bound = {0};
    char *path = tabconf_main("relays_key_file");
    int rc = path == NULL ? -ENOENT : relays_key_read(path, key);
    struct str sealed = str_make(sqlite3_column_blob(st, 2), (size_t)sqlite3_column_bytes(st, 2));
    bool ok = false;
    relays_bound(&bound, column(st, 0), column(st, 1));
    sbuf_printf(value, "%s\n", column(st, 1));
    if (rc < 0)
        map_set_error(m, "relays_key_file %s: %s", path == NULL ? "" : path, strerror(-rc));
    else if (!(ok = seal_open(key, sealed, sbuf_str(&bound), value)))
        map_set_error(m,
                      "the record's password cannot be opened: it was set for other hosts, another "
                      "user or another key; set it again");
    mem_wipe((char *)key, sizeof key);
    sbuf_free(&bound);
    free(path);
    return ok;
}

/* The first line of rest, which goes on behind it. */
static struct str line_off(struct str *rest) {
    ptrdiff_t nl = str_chr(*rest, '\n');
    struct str line = str_make(rest->p, nl < 0 ? rest->n : (size_t)nl);
    *rest = str_from(*rest, nl < 0 ? rest->n : (size_t)nl + 1);
    return line;
}

static enum map_rc get_secret(struct map *m, sqlite3_stmt *st, struct str key, struct sbuf *value) {
    struct str nexthop = str_from(key, 2);
    struct str id = line_off(&nexthop), tls = line_off(&nexthop), mechs = line_off(&nexthop);
    struct str user = line_off(&nexthop), account = line_off(&nexthop);
    sqlite3_bind_text(st, 1, id.p, (int)id.n, SQLITE_STATIC);
    if (sqlite3_step(st) != SQLITE_ROW)
        map_set_error(m, "relay record %.*s is gone", STR_FMT(id));
    else if (!is_own_host(column(st, 0), nexthop))
        map_set_error(m, "the record's password is not for %.*s", STR_FMT(nexthop));
    else if (!str_ieq_c(tls, column(st, 3)) || !str_ieq_c(mechs, column(st, 4)) ||
             !str_eq_c(user, column(st, 1)) || !str_eq_c(account, column(st, 5)))
        map_set_error(m, "relay record %.*s was changed after the mail was routed", STR_FMT(id));
    else
        return unseal(m, st, value) ? MAP_FOUND : MAP_ERROR;
    return MAP_ERROR;
}

/* The page or the command gives a file of an older version its new column; until then it has none.
 */
static bool relays_prepare(sqlite3 *db, bool secret, sqlite3_stmt **st) {
    bool owned = sqlite3_table_column_metadata(db, NULL, "relay", "owner", NULL, NULL, NULL, NULL,
                                               NULL) == SQLITE_OK;
    const char *find = owned ? RELAYS_FIND : RELAYS_FIND_UNOWNED;
    return sqlite3_prepare_v2(db, secret ? RELAYS_SECRET : find, -1, st, NULL) == SQLITE_OK;
}

static enum map_rc relays_get(struct map *m, struct str key, struct sbuf *value) {
    bool secret = str_istarts(key, "\n\n");
    sqlite3_stmt *st = NULL;
    sqlite3 *db = db_open(m);
    if (db == NULL)
        return MAP_ERROR;
    enum map_rc rc = MAP_ERROR;
    if (!relays_prepare(db, secret, &st))
        map_set_error(m, "%s: %s", m->path, sqlite3_errmsg(db));
    else
        rc = secret ? get_secret(m, st, key, value) : get_record(m, st, key, value);
    sqlite3_finalize(st);
    sqlite3_close(db);
    return rc;
}

const struct map_ops map_relays = {.type = "relays",
                                   .suffix = "",
                                   .fixed = true,
                                   .shared = true,
                                   .remote = true,
                                   .open = relays_map_open,
                                   .get = relays_get};
