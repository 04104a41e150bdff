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

#include "mail/address.h"
#include "maps/relays.h"
#include "route/nexthop.h"
#include "util/codec.h"
#include "util/fs.h"
#include "util/htab.h"
#include "util/idn.h"
#include "util/lite.h"
#include "util/mem.h"

#define BUSY_MS   5000
#define COLUMNS   "name, nexthop, account, hosts, tls, mechanisms, username, secret, owner, modified"
#define N_COLUMNS 9 /* that make the version: all but the last one */
#define USERS_MAX 65536U
#define OWN_MAX   100U    /* records of one domain: each look-up passes all there are */
#define OWN_LISTS 262144U /* bytes of their lists: many domains may have as many */

/* Each reply of a relay host is searched for the login that was sent to it. */
#define SECRET_BYTES 4096U

#define RELAY_TAKEN   "another record has that name"
#define RELAY_CHANGED "somebody else has changed the record since it was read"

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

/* The file is there whole, or not at all. */
static bool write_key(const char *path, const unsigned char key[SEAL_KEY], char **why) {
    struct sbuf text = {0};
    base64_encode(&text, str_make((const char *)key, SEAL_KEY));
    sbuf_add_ch(&text, '\n');
    int rc = fs_write_whole(path, sbuf_str(&text), 0600, NULL);
    if (rc < 0)
        record_say(why, "relays_key_file %s: %s", path, strerror(-rc));
    sbuf_wipe(&text);
    return rc == 0;
}

/* The key file's private half, which is made if there is no such file, has the public half pub. */
static bool read_or_make_key(struct relays *r, const char *key_file, char **why) {
    unsigned char priv[SEAL_KEY];
    int rc = relays_key_read(key_file, priv);
    bool ok = rc == 0;
    if (rc == -ENOENT)
        ok = seal_keys(priv, r->pub) && write_key(key_file, priv, why);
    else if (rc < 0)
        record_say(why, "relays_key_file %s: %s", key_file, strerror(-rc));
    ok = ok && seal_public(priv, r->pub);
    mem_wipe((char *)priv, sizeof priv);
    return ok;
}

int relays_key_fits(const struct relays *r, const char *key_file) {
    unsigned char priv[SEAL_KEY], pub[SEAL_KEY];
    int rc = relays_key_read(key_file, priv);
    if (rc == 0 && (!seal_public(priv, pub) || memcmp(pub, r->pub, SEAL_KEY) != 0))
        rc = -EBADMSG;
    mem_wipe((char *)priv, sizeof priv);
    return rc;
}

static bool relays_exec(struct relays *r, const char *sql, char **why) {
    bool ok = sqlite3_exec(r->db, sql, NULL, NULL, NULL) == SQLITE_OK;
    if (!ok)
        record_say(why, "%s", sqlite3_errmsg(r->db));
    return ok;
}

static bool write_public(struct relays *r, char **why) {
    struct sbuf text = {0};
    base64_encode(&text, str_make((const char *)r->pub, SEAL_KEY));
    char *sql = sqlite3_mprintf("INSERT OR REPLACE INTO setting VALUES ('public_key', %Q)", text.p);
    bool ok = relays_exec(r, sql, why);
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

/* The key file's public half goes into the database, where writers find it.  Another process that
 * does the same waits for the database. */
static bool make_key(struct relays *r, const char *key_file, char **why) {
    char *unused = NULL;
    if (!relays_exec(r, "BEGIN IMMEDIATE", why))
        return false;
    bool ok = read_public(r) || (read_or_make_key(r, key_file, why) && write_public(r, why));
    ok = ok && relays_exec(r, "COMMIT", why);
    if (!ok)
        relays_exec(r, "ROLLBACK", &unused);
    free(unused);
    return ok;
}

/* -- the file -- */

/* Removes a database that was made just now: without a key it would pass for one that lost its key.
 */
static void relays_unmake(const char *database) {
    static const char *const ends[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        struct sbuf path = {0};
        sbuf_printf(&path, "%s%s", database, ends[i]);
        unlink(path.p);
        sbuf_free(&path);
    }
}

static bool make_folder(const char *path, char **why) {
    char *dir = fs_folder(str_of(path));
    int rc = fs_mkdir(dir, 0755);
    if (rc < 0)
        record_say(why, "%s: %s", dir, strerror(-rc));
    free(dir);
    return rc == 0;
}

/* A file of an older version: its records are the server's.  Another process may do the same. */
static int add_owner(sqlite3 *db) {
    for (int i = 0; i < 2; i++) {
        if (sqlite3_table_column_metadata(db, NULL, "relay", "owner", NULL, NULL, NULL, NULL,
                                          NULL) == SQLITE_OK)
            return SQLITE_OK;
        sqlite3_exec(db, RELAYS_ADD_OWNER, NULL, NULL, NULL);
    }
    return sqlite3_errcode(db) == SQLITE_OK ? SQLITE_ERROR : sqlite3_errcode(db);
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
    if (create && *made)
        fs_make(database, 0600); /* what goes wrong is said where it is opened */
    int flags = SQLITE_OPEN_READWRITE | (create ? SQLITE_OPEN_CREATE : 0);
    int rc = lite_open(database, &r->db, flags);
    if (rc == SQLITE_OK) {
        sqlite3_busy_timeout(r->db, BUSY_MS);
        rc = sqlite3_exec(r->db, RELAYS_SCHEMA, NULL, NULL, NULL);
    }
    if (rc == SQLITE_OK)
        rc = add_owner(r->db);
    if (rc == SQLITE_OK) /* who may only read can do without it */
        sqlite3_exec(r->db, RELAYS_INDEX, NULL, NULL, NULL);
    umask(old);
    if (rc != SQLITE_OK)
        record_say(why, "%s: %s", database,
                   r->db == NULL ? sqlite3_errstr(rc) : sqlite3_errmsg(r->db));
    else if (read_public(r) || make_key(r, key_file, why))
        return r;
    relays_close(r);
    if (create && *made && access(key_file, F_OK) < 0)
        relays_unmake(database);
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

static const char *users_shown(const char *stored) {
    if (strcmp(stored, RELAYS_ALL) == 0)
        return RELAY_EVERYBODY;
    return strcmp(stored, RELAYS_NAMED) == 0 ? "" : stored;
}

/* Columns are those of COLUMNS. */
static void set_version(struct relay_fields *f, sqlite3_stmt *st) {
    struct sbuf all = {0};
    for (int i = 0; i < N_COLUMNS; i++) {
        const void *p = sqlite3_column_blob(st, i);
        int n = sqlite3_column_bytes(st, i);
        sbuf_printf(&all, "%d:", n);
        sbuf_add(&all, p, (size_t)n);
    }
    value_version(sbuf_str(&all), f->version);
    sbuf_free(&all);
}

static struct relay_fields record_fields_of(sqlite3_stmt *st) {
    struct relay_fields f = {.name = record_text_of(st, 0),
                             .nexthop = record_text_of(st, 1),
                             .users = users_shown(record_text_of(st, 2)),
                             .hosts = record_text_of(st, 3),
                             .tls = record_text_of(st, 4),
                             .mechanisms = record_text_of(st, 5),
                             .user = record_text_of(st, 6),
                             .has_secret = sqlite3_column_type(st, 7) != SQLITE_NULL,
                             .owner = record_text_of(st, 8),
                             .modified = sqlite3_column_int64(st, 9)};
    set_version(&f, st);
    return f;
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

/* -- who may use a record -- */

/* A list as a set: two long lists are compared while others wait to write. */
struct users {
    struct sbuf text; /* the list in its one form, which the set's keys are parts of */
    struct htab set;
};

static void users_take(struct users *u, const char *list) {
    struct str rest, one;
    idn_plain(str_of(list), false, &u->text);
    rest = sbuf_str(&u->text);
    while (str_split(&rest, ", \t", &one))
        htab_put(&u->set, one, u);
}

static bool users_have(const struct users *u, struct str account) {
    struct sbuf plain = {0};
    idn_plain(account, false, &plain);
    bool have = htab_get(&u->set, sbuf_str(&plain)) != NULL;
    sbuf_free(&plain);
    return have;
}

static void users_free(struct users *u) {
    htab_free(&u->set);
    sbuf_free(&u->text);
}

static bool texts_same(const char *a, const char *b) {
    return idn_same(str_of(a), str_of(b), false);
}

/* The same list where it has a word for what main.cf names. */
static const char *users_listed(const char *users) {
    return users[0] == '\0' ? RELAYS_NAMED_TOO : users;
}

bool relay_belongs(const char *owner, const char *by) {
    return by == NULL || texts_same(owner, by);
}

/* u: those of f, as a set. */
static bool users_let(const struct relay_fields *f, const struct users *u, struct str account) {
    ptrdiff_t at = str_rchr(account, '@');
    struct str domain = at < 0 ? STR_NONE : str_from(account, (size_t)at + 1);
    if (f->owner[0] != '\0' && (at < 0 || !idn_same(domain, str_of(f->owner), false)))
        return false;
    return strcmp(f->users, RELAY_EVERYBODY) == 0 || users_have(u, account) ||
           (at >= 0 && users_have(u, str_from(account, (size_t)at)));
}

bool relay_is_for(const struct relay_fields *f, const char *account) {
    struct users u = {0};
    users_take(&u, f->users);
    bool is = users_let(f, &u, str_of(account));
    users_free(&u);
    return is;
}

bool relay_covers(const struct relay_fields *wide, const struct relay_fields *narrow) {
    struct str rest = str_of(narrow->users), one;
    struct users u = {0};
    bool all = narrow->users[0] != '\0';
    if (!texts_same(wide->nexthop, narrow->nexthop) || strcmp(wide->name, narrow->name) == 0 ||
        strcmp(narrow->users, RELAY_EVERYBODY) == 0)
        return false;
    users_take(&u, wide->users);
    while (all && str_split(&rest, ", \t", &one))
        all = users_let(wide, &u, one);
    users_free(&u);
    return all;
}

/* As the database has it: words in lower case with a comma between two, each once.  False: *bad is
 * none of user@domain, @domain, <> or RELAYS_NAMED_TOO. */
static bool users_stored(const char *users, struct sbuf *out, struct str *bad) {
    struct str rest = str_of(users), plain, word;
    struct users seen = {0};
    bool ok = true;
    *bad = STR_NONE;
    if (strcasecmp(users, RELAY_EVERYBODY) == 0)
        return true;
    idn_plain(rest, false, &seen.text);
    plain = sbuf_str(&seen.text); /* word for word the same list */
    while (ok && str_split(&rest, ", \t", bad) && str_split(&plain, ", \t", &word)) {
        ok = value_account_ok(*bad) || str_ieq_c(*bad, RELAYS_NAMED_TOO);
        if (ok && htab_get(&seen.set, word) == NULL)
            sbuf_printf(out, "%s%.*s", out->n == 0 ? "" : ",", STR_FMT(*bad));
        htab_put(&seen.set, word, &seen);
    }
    users_free(&seen);
    if (!ok)
        return false;
    if (out->n == 0 || str_ieq_c(sbuf_str(out), RELAYS_NAMED_TOO)) {
        sbuf_reset(out);
        sbuf_add_c(out, RELAYS_NAMED);
    }
    str_lower(out->p, out->n);
    return true;
}

/* Is everybody on the list of the owner's domain?  An empty list is not. */
static bool users_are_owners(const struct relay_fields *f, struct str *bad) {
    struct str rest = str_of(f->users);
    *bad = rest;
    if (f->owner[0] == '\0')
        return true;
    if (strcasecmp(f->users, RELAY_EVERYBODY) == 0 || !str_split(&rest, ", \t", bad))
        return false;
    do {
        ptrdiff_t at = str_rchr(*bad, '@');
        if (at < 0 || !idn_same(str_from(*bad, (size_t)at + 1), str_of(f->owner), false))
            return false;
    } while (str_split(&rest, ", \t", bad));
    return true;
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
    const char *all[] = {f->name, f->nexthop, f->hosts, f->mechanisms, f->user};
    for (size_t i = 0; i < 5; i++) {
        *bad = str_of(all[i]);
        if (str_has_control(*bad) || bad->n > 255)
            return "control characters, or more than 255 bytes";
    }
    *bad = str_of(f->users);
    if (str_has_control(*bad) || bad->n > USERS_MAX)
        return "control characters, or too many who may use it";
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
    *bad = str_of(f->owner);
    if (bad->n > 0 && !addr_valid_host(*bad))
        return "the owner is a domain";
    if (!users_are_owners(f, bad))
        return "a domain's own record is for that domain or its users";
    *bad = str_of(f->user);
    if (f->password != NULL && bad->n == 0)
        return "a password needs a user name";
    if (f->password != NULL && strlen(f->password) > SECRET_BYTES)
        return "a password has at most 4,096 bytes";
    return NULL;
}

static char *record_lowered(const char *s) {
    char *copy = mem_strdup(s);
    str_lower(copy, strlen(copy));
    return copy;
}

/* -- writing -- */

/* What f leaves out, from the record of that name or by default. */
struct merged {
    struct relay_fields f;
    sqlite3_stmt *st;     /* owns the old record's texts */
    struct sbuf users;    /* as the database has it */
    struct sbuf of_owner; /* "@owner" */
    bool exists;
    bool lists; /* the change says who may use it */
};

static const char *merge_text(const char *given, const char *old) {
    return given == NULL ? old : given;
}

/* The next hop follows the hosts, unless it was set on its own. */
static const char *merge_nexthop(const struct relay_fields *f, const struct relay_fields *old) {
    const char *hosts = merge_text(f->hosts, old->hosts);
    if (f->nexthop != NULL)
        return f->nexthop[0] == '\0' ? hosts : f->nexthop;
    return texts_same(old->nexthop, old->hosts) ? hosts : old->nexthop;
}

/* Who may use it: an account is for no one else until a change says so, and a domain's own is for
 * that domain. */
static const char *merge_users(const struct relay_fields *f, const struct relay_fields *old,
                               bool exists, const char *of_owner) {
    bool had = old->user[0] != '\0', has = merge_text(f->user, old->user)[0] != '\0';
    if (f->users != NULL)
        return f->users;
    bool none = old->users[0] == '\0' || strcmp(old->users, RELAY_EVERYBODY) == 0;
    if (of_owner[1] != '\0' && (!exists || none))
        return of_owner;
    if (!exists)
        return has ? "" : RELAY_EVERYBODY;
    return has && !had && strcmp(old->users, RELAY_EVERYBODY) == 0 ? "" : old->users;
}

/* Finds the record of that name; false: *why. */
static bool record_find_old(struct relays *r, const char *name, struct merged *m,
                            struct relay_fields *old, char **why) {
    *old = (struct relay_fields){.name = name,
                                 .nexthop = "",
                                 .users = "",
                                 .hosts = "",
                                 .tls = "encrypt",
                                 .mechanisms = "",
                                 .user = "",
                                 .owner = ""};
    int rc = sqlite3_prepare_v2(r->db, "SELECT " COLUMNS " FROM relay WHERE name = ?1", -1, &m->st,
                                NULL);
    if (rc == SQLITE_OK) {
        sqlite3_bind_text(m->st, 1, name, -1, SQLITE_STATIC);
        rc = sqlite3_step(m->st);
    }
    m->exists = rc == SQLITE_ROW;
    if (m->exists)
        *old = record_fields_of(m->st);
    else if (rc != SQLITE_DONE)
        record_say(why, "%s", sqlite3_errmsg(r->db));
    return rc == SQLITE_ROW || rc == SQLITE_DONE;
}

/* Is it perhaps another record that the server's administrator means?  A domain's administrators
 * choose the names of its records, and would have the login that is set. */
static bool is_taken_unseen(const struct relay_fields *f, const struct relay_fields *old,
                            const char *by) {
    return by == NULL && old->owner[0] != '\0' && f->owner == NULL && f->version[0] == '\0' &&
           !f->fresh;
}

static enum relays_rc merge(struct relays *r, const struct relay_fields *f, const char *by,
                            struct merged *m, char **why) {
    struct relay_fields old;
    if (!record_find_old(r, f->name, m, &old, why))
        return RELAYS_BAD;
    if (!relay_belongs(m->exists ? old.owner : merge_text(f->owner, ""), by) ||
        !relay_belongs(merge_text(f->owner, old.owner), by)) {
        record_say(why, m->exists ? RELAY_TAKEN : "a record of one's own has one's own domain");
        return RELAYS_BAD;
    }
    if (is_taken_unseen(f, &old, by)) {
        record_say(why,
                   "that name has a record of the domain %s: give yours another name, or change "
                   "that one with owner=%s",
                   old.owner, old.owner);
        return RELAYS_BAD;
    }
    bool newer = f->version[0] != '\0' && strcmp(f->version, old.version) != 0;
    if (newer || (f->fresh && m->exists)) {
        record_say(why, newer ? RELAY_CHANGED : RELAY_TAKEN);
        return RELAYS_STALE;
    }
    m->f = *f;
    m->lists = f->users != NULL;
    m->f.nexthop = merge_nexthop(f, &old);
    m->f.owner = merge_text(f->owner, old.owner);
    sbuf_printf(&m->of_owner, "@%s", m->f.owner);
    m->f.users = merge_users(f, &old, m->exists, m->of_owner.p);
    m->f.hosts = merge_text(f->hosts, old.hosts);
    m->f.tls = merge_text(f->tls, old.tls);
    m->f.mechanisms = merge_text(f->mechanisms, old.mechanisms);
    m->f.user = merge_text(f->user, old.user);
    m->f.has_secret = old.has_secret;
    bool moved = strcmp(m->f.hosts, old.hosts) != 0 || strcmp(m->f.user, old.user) != 0;
    if (f->password == NULL && m->f.user[0] != '\0' && (!old.has_secret || moved)) {
        record_say(why, "the password is needed%s",
                   old.has_secret
                       ? " again: it may go to the hosts and as the user that it was set for only"
                       : "");
        return RELAYS_BAD;
    }
    return RELAYS_DONE;
}

static void merged_free(struct merged *m) {
    sqlite3_finalize(m->st);
    sbuf_free(&m->users);
    sbuf_free(&m->of_owner);
}

char *relays_next_hop(struct relays *r, const struct relay_fields *f, char **old) {
    struct merged m = {.st = NULL};
    struct relay_fields had;
    char *why = NULL, *hop = NULL;
    *old = NULL;
    if (record_find_old(r, f->name, &m, &had, &why)) {
        hop = record_lowered(merge_nexthop(f, &had));
        *old = m.exists ? mem_strdup(had.nexthop) : NULL;
    }
    merged_free(&m);
    free(why);
    return hop;
}

/* -- two records that one mail could use -- */

struct rival {
    const struct relay_fields *f; /* that is to be written; users as they are given */
    struct users users;           /* those of f */
    unsigned own;                 /* others of its owner, so far */
    size_t own_lists;             /* bytes of their lists */
    const char *by;  /* a domain: why names its own records alone; NULL: why names any */
    const char *hop; /* of it, in lower case */
    char *why;
};

/* Has the record one of the other's users, or are both for everybody, or for what main.cf names? */
static bool rival_shares(const struct rival *v, const struct relay_fields *other) {
    struct sbuf plain = {0};
    bool same = texts_same(other->users, v->f->users);
    idn_plain(str_of(users_listed(other->users)), false, &plain);
    struct str rest = sbuf_str(&plain), one;
    while (!same && str_split(&rest, ", \t", &one))
        same = htab_get(&v->users.set, one) != NULL;
    sbuf_free(&plain);
    return same;
}

static void rival_take(void *arg, const struct relay_fields *other) {
    struct rival *v = arg;
    if (v->why != NULL || strcmp(other->name, v->f->name) == 0)
        return;
    if (texts_same(other->owner, v->f->owner)) {
        v->own++;
        v->own_lists += strlen(other->users);
    }
    bool shown = relay_belongs(other->owner, v->by);
    if (texts_same(other->name, v->f->name)) {
        if (shown)
            record_say(&v->why, RELAY_TAKEN ", written otherwise: \"%s\"", other->name);
        else
            record_say(&v->why, RELAY_TAKEN);
        return;
    }
    if (!texts_same(other->nexthop, v->hop))
        return;
    bool same = rival_shares(v, other);
    if (same && !shown)
        record_say(&v->why,
                   "the administrator of this server has set another account for the next "
                   "hop \"%s\" and one of those who may use this one",
                   v->hop);
    else if (same)
        record_say(&v->why, "another record, \"%s\", is already for the next hop \"%s\" and %s",
                   other->name, v->hop,
                   v->f->users[0] == '\0' ? "what main.cf names" : other->users);
}

static bool write_record(struct relays *r, const struct merged *m, const char *hop,
                         struct str sealed, char **why) {
    sqlite3_stmt *st = NULL;
    const char *sql =
        m->exists
            ? "UPDATE relay SET nexthop = ?2, account = ?3, hosts = ?4, tls = ?5, mechanisms ="
              " ?6, username = ?7, modified = ?8, owner = lower(?11), secret = CASE WHEN ?10 THEN "
              "?9 ELSE secret"
              " END WHERE name = ?1"
            : "INSERT INTO relay (name, nexthop, account, hosts, tls, mechanisms, username,"
              " modified, secret, owner) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, lower(?11))";
    int rc = sqlite3_prepare_v2(r->db, sql, -1, &st, NULL);
    const char *texts[] = {m->f.name,  hop,      m->users.n == 0 ? RELAYS_ALL : m->users.p,
                           m->f.hosts, m->f.tls, m->f.mechanisms,
                           m->f.user};
    for (int i = 0; i < 7; i++)
        sqlite3_bind_text(st, i + 1, texts[i], -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, 8, time(NULL));
    sqlite3_bind_text(st, 11, m->f.owner, -1, SQLITE_STATIC);
    if (sealed.p != NULL)
        sqlite3_bind_blob(st, 9, sealed.p, (int)sealed.n, SQLITE_STATIC);
    if (m->exists) /* without a user there is no secret either */
        sqlite3_bind_int(st, 10, sealed.p != NULL || m->f.user[0] == '\0');
    if (rc == SQLITE_OK)
        rc = sqlite3_step(st);
    if (rc != SQLITE_DONE)
        record_say(why, "%s", sqlite3_errmsg(r->db));
    sqlite3_finalize(st);
    return rc == SQLITE_DONE;
}

/* Seals the password and writes, unless another record has the same mail. */
static bool merged_write(struct relays *r, const struct merged *m, const char *by, char **why) {
    struct sbuf sealed = {0}, bound = {0};
    char *hop = record_lowered(m->f.nexthop);
    struct rival v = {.f = &m->f, .by = by, .hop = hop};
    users_take(&v.users, users_listed(m->f.users));
    bool ok = relays_each(r, rival_take, &v, why);
    users_free(&v.users);
    if (ok && v.why == NULL && by != NULL && !m->exists && v.own >= OWN_MAX)
        record_say(&v.why, "a domain has at most %u records of its own", OWN_MAX);
    if (ok && v.why == NULL && by != NULL && m->lists &&
        v.own_lists + strlen(m->f.users) > OWN_LISTS)
        record_say(&v.why,
                   "the lists of a domain's own records have at most %u KiB in all: @%s is all of "
                   "its users",
                   OWN_LISTS / 1024, by);
    if (ok && v.why != NULL) {
        *why = v.why;
        ok = false;
    }
    if (ok && m->f.password != NULL) {
        relays_bound(&bound, m->f.hosts, m->f.user);
        ok = seal_close(r->pub, str_of(m->f.password), sbuf_str(&bound), &sealed);
        if (!ok)
            record_say(why, "the password cannot be sealed");
    }
    ok = ok && write_record(r, m, hop, sealed.n > 0 ? sbuf_str(&sealed) : STR_NONE, why);
    sbuf_free(&sealed);
    sbuf_free(&bound);
    free(hop);
    return ok;
}

static enum relays_rc relays_set_inside(struct relays *r, const struct relay_fields *f,
                                        const char *by, char **why) {
    struct merged m = {.st = NULL};
    struct str bad = STR_NONE;
    enum relays_rc rc = merge(r, f, by, &m, why);
    const char *wrong = rc == RELAYS_DONE ? record_check(&m.f, &bad) : NULL;
    if (rc == RELAYS_DONE && wrong == NULL && !users_stored(m.f.users, &m.users, &bad))
        wrong = "a record is for " RELAY_EVERYBODY
                ", or for user@domain and @domain, and " RELAYS_NAMED_TOO " for what that names";
    if (wrong != NULL)
        record_say(why, "\"%.*s\": %s", STR_FMT(bad), wrong);
    if (wrong != NULL || (rc == RELAYS_DONE && !merged_write(r, &m, by, why)))
        rc = RELAYS_BAD;
    merged_free(&m);
    return rc;
}

/* What was read is what is changed: there is no other write between. */
enum relays_rc relays_set(struct relays *r, const struct relay_fields *f, const char *by,
                          char **why) {
    enum relays_rc rc = RELAYS_BAD;
    if (sqlite3_exec(r->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK) {
        record_say(why, "%s", sqlite3_errmsg(r->db));
        return rc;
    }
    rc = relays_set_inside(r, f, by, why);
    bool end = rc == RELAYS_DONE && sqlite3_exec(r->db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK;
    if (rc == RELAYS_DONE && !end) {
        record_say(why, "%s", sqlite3_errmsg(r->db));
        rc = RELAYS_BAD;
    }
    if (!end)
        sqlite3_exec(r->db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

/* -- using -- */

struct asked {
    struct str hop;
    const char *account;
    enum relay_use use;
    char *name;
    bool named; /* that record is for what main.cf names */
};

/* Of several records the one that main.cf means is named before those of certain accounts. */
static void asked_take(void *arg, const struct relay_fields *f) {
    struct asked *q = arg;
    bool named = list_has_word(str_of(users_listed(f->users)), RELAYS_NAMED_TOO);
    if (!idn_same(q->hop, str_of(f->nexthop), false) && !idn_same(q->hop, str_of(f->name), false))
        return;
    if (relay_is_for(f, q->account))
        q->use = RELAY_MAY;
    else if (f->owner[0] != '\0')
        ; /* for the mail of others it is no record */
    else if (f->user[0] != '\0' && q->use != RELAY_MAY &&
             (q->name == NULL || (named && !q->named))) {
        free(q->name);
        q->use = RELAY_MAY_NOT;
        q->name = mem_strdup(f->name);
        q->named = named;
    }
}

enum relay_use relays_use(struct relays *r, struct str value, const char *account, char **name,
                          char **why) {
    struct sbuf plain = {0};
    nexthop_without_transport(str_trim(value), &plain);
    struct asked q = {.hop = sbuf_str(&plain), .account = account, .use = RELAY_NO_RECORD};
    if (!relays_each(r, asked_take, &q, why))
        q.use = RELAY_UNKNOWN;
    *name = q.name;
    sbuf_free(&plain);
    return q.use;
}

/* Gives the record another list of users, if it is still as old has it. */
static bool relays_set_users(struct relays *r, const struct relay_fields *old,
                             const struct sbuf *users, char **why) {
    struct relay_fields f = {.name = old->name, .users = users->n == 0 ? "" : users->p};
    memcpy(f.version, old->version, sizeof f.version);
    return relays_set(r, &f, NULL, why) == RELAYS_DONE;
}

bool relays_let(struct relays *r, const char *name, const char *account, char **why) {
    struct merged m = {.st = NULL};
    struct relay_fields old;
    struct sbuf users = {0};
    bool ok = record_find_old(r, name, &m, &old, why);
    if (ok && !relay_is_for(&old, account)) {
        sbuf_printf(&users, "%s, %s", users_listed(old.users), account);
        ok = relays_set_users(r, &old, &users, why);
    }
    sbuf_free(&users);
    merged_free(&m);
    return ok;
}

bool relays_unlet(struct relays *r, const char *name, const char *account, char **why) {
    struct merged m = {.st = NULL};
    struct relay_fields old;
    struct sbuf users = {0};
    bool ok = record_find_old(r, name, &m, &old, why);
    struct str rest = str_of(ok ? old.users : ""), one;
    while (str_split(&rest, ", \t", &one))
        if (!idn_same(one, str_of(account), false))
            sbuf_printf(&users, "%s%.*s", users.n == 0 ? "" : ", ", STR_FMT(one));
    ok = ok && relays_set_users(r, &old, &users, why);
    sbuf_free(&users);
    merged_free(&m);
    return ok;
}

bool relays_delete(struct relays *r, const char *name, const char *by, char **why) {
    sqlite3_stmt *st = NULL;
    *why = NULL;
    int rc = sqlite3_prepare_v2(
        r->db, "DELETE FROM relay WHERE name = ?1 AND (?2 IS NULL OR owner = lower(?2))", -1, &st,
        NULL);
    if (rc == SQLITE_OK) {
        sqlite3_bind_text(st, 1, name, -1, SQLITE_STATIC);
        sqlite3_bind_text(st, 2, by, -1, SQLITE_STATIC);
        rc = sqlite3_step(st);
    }
    if (rc != SQLITE_DONE)
        record_say(why, "%s", sqlite3_errmsg(r->db));
    sqlite3_finalize(st);
    return rc == SQLITE_DONE && sqlite3_changes(r->db) > 0;
}
