/*
 * accounts/browse_sql.c - looking through iRedMail's tables; see browse.h
 *
 * Each list is one page, found by its key (names behind the last one), so that the hundredth page
 * costs what the first one does; numbers of users are asked for that page only.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "accounts/inside.h"
#include "accounts/password.h"
#include "util/clock.h"
#include "util/mem.h"

#define PAGE_MAX 501U /* one more than a page may have: it says that there are more */
#define COLUMNS  8U

/* -- statements with any number of values -- */

struct ask {
    struct sbuf text;
    const char *args[PAGE_MAX + 8];
    size_t n;
    struct sbuf kept[4]; /* values made here */
    size_t n_kept;
};

static void browse_add(struct ask *q, const char *text, const char *value) {
    sbuf_add_c(&q->text, text);
    if (value != NULL)
        q->args[q->n++] = value;
}

/* A pattern for LIKE … ESCAPE '!'. */
static const char *like(struct ask *q, const char *before, const char *text) {
    struct sbuf *b = &q->kept[q->n_kept++];
    sbuf_add_c(b, before);
    for (; *text != '\0'; text++) {
        if (*text == '%' || *text == '_' || *text == '!')
            sbuf_add_ch(b, '!');
        sbuf_add_ch(b, *text);
    }
    sbuf_add_ch(b, '%');
    return b->p;
}

static void ask_free(struct ask *q) {
    sbuf_free(&q->text);
    for (size_t i = 0; i < q->n_kept; i++)
        sbuf_free(&q->kept[i]);
}

/* Values come one by one: a row when it is full.  fn may take a value over: it leaves NULL. */
struct rows {
    size_t columns;
    char *v[COLUMNS];
    size_t n;
    void (*fn)(void *arg, char **row);
    void *arg;
};

static void browse_take(void *arg, struct str value) {
    struct rows *r = arg;
    r->v[r->n++] = str_dup(value.p == NULL ? STR_LIT("") : value);
    if (r->n < r->columns)
        return;
    r->fn(r->arg, r->v);
    for (size_t i = 0; i < r->n; i++)
        free(r->v[i]);
    r->n = 0;
}

static enum store_rc browse_run(struct store *st, struct ask *q, size_t columns,
                                void (*fn)(void *arg, char **row), void *arg, char **why) {
    struct rows r = {.columns = columns, .fn = fn, .arg = arg};
    enum store_rc rc = store_sql_run(st, q->text.p, q->args, browse_take, &r, why);
    for (size_t i = 0; i < r.n; i++)
        free(r.v[i]);
    ask_free(q);
    return rc;
}

/* -- a page of accounts -- */

struct page {
    struct account *v;
    size_t n;
    bool users;
};

static bool is_one(const char *v) {
    return v[0] == '1' || v[0] == 't';
}

static char *move(char **value) {
    char *v = *value;
    *value = NULL;
    return v;
}

/* name, title, transport, active, backupmx or is an admin, settings, relay host */
static void browse_take_account(void *arg, char **row) {
    struct page *p = arg;
    if (p->n == PAGE_MAX)
        return;
    p->v[p->n++] = (struct account){.name = move(&row[0]),
                                    .title = move(&row[1]),
                                    .transport = move(&row[2]),
                                    .active = is_one(row[3]),
                                    .backup_mx = !p->users && is_one(row[4]),
                                    .admin = p->users && is_one(row[4]),
                                    .settings = move(&row[5]),
                                    .relayhost = row[6][0] == '\0' ? NULL : move(&row[6]),
                                    .users = -1};
}

static void page_free(struct page *p) {
    for (size_t i = 0; i < p->n; i++)
        account_free(&p->v[i]);
    free(p->v);
}

static struct account *browse_find(struct page *p, const char *name) {
    for (size_t i = 0; i < p->n; i++)
        if (str_ieq_c(str_of(p->v[i].name), name))
            return &p->v[i];
    return NULL;
}

static void take_count(void *arg, char **row) {
    struct account *a = browse_find(arg, row[0]);
    if (a != NULL)
        a->users = strtol(row[1], NULL, 10);
}

/* How many users a domain has does not change while one looks through the list: counted again after
 * a minute.  A slot is found by the hash of its name, which is what it is compared by. */
#define COUNTS   8192U
#define COUNT_MS 60000

static struct count {
    uint64_t name;
    long users;
    int64_t at_ms; /* 0: empty */
} counts[COUNTS];
static pthread_mutex_t counts_lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t count_key(const struct store *st, const char *domain) {
    return str_hash(str_of(domain)) ^ (uint64_t)(uintptr_t)st;
}

static void keep_counts(const struct store *st, const struct page *p) {
    int64_t now = clock_mono_ms();
    pthread_mutex_lock(&counts_lock);
    for (size_t i = 0; i < p->n; i++) {
        uint64_t key = count_key(st, p->v[i].name);
        if (p->v[i].users >= 0)
            counts[key % COUNTS] = (struct count){key, p->v[i].users, now};
    }
    pthread_mutex_unlock(&counts_lock);
}

static void known_counts(const struct store *st, struct page *p) {
    int64_t now = clock_mono_ms();
    pthread_mutex_lock(&counts_lock);
    for (size_t i = 0; i < p->n; i++) {
        uint64_t key = count_key(st, p->v[i].name);
        const struct count *c = &counts[key % COUNTS];
        if (c->name == key && c->at_ms != 0 && now - c->at_ms < COUNT_MS)
            p->v[i].users = c->users;
    }
    pthread_mutex_unlock(&counts_lock);
}

/* Not a count of them all: a domain may have as many as it likes. */
static enum store_rc browse_add_counts(struct store *st, struct page *p, char **why) {
    struct ask q = {0};
    known_counts(st, p);
    for (size_t i = 0; i < p->n && q.n + 2 <= PAGE_MAX; i++) {
        if (p->v[i].users >= 0)
            continue;
        browse_add(&q, q.n == 0 ? "SELECT ?" : " UNION ALL SELECT ?", p->v[i].name);
        sbuf_add_c(&q.text, ", COUNT(*) FROM (SELECT 1 AS one FROM mailbox WHERE domain = ?");
        q.args[q.n++] = p->v[i].name;
        sbuf_printf(&q.text, " LIMIT %d) AS t", USERS_COUNTED);
    }
    if (q.n == 0)
        return STORE_YES;
    enum store_rc rc = browse_run(st, &q, 2, take_count, p, why);
    if (rc == STORE_YES)
        keep_counts(st, p);
    return rc;
}

/* only (NULL: any): the one name that is meant.  A database may find others for it: to MariaDB's
 * usual collations letters with and without accents are equal, and so is a name with blanks behind
 * it. */
static enum store_rc browse_give(struct store *st, struct ask *q, bool users, bool counted,
                                 const char *only, account_fn fn, void *arg, char **why) {
    size_t given = 0;
    struct page p = {.v = mem_zalloc(PAGE_MAX * sizeof *p.v), .users = users};
    enum store_rc rc = browse_run(st, q, 7, browse_take_account, &p, why);
    if (rc == STORE_YES && counted && !users)
        rc = browse_add_counts(st, &p, why);
    for (size_t i = 0; rc == STORE_YES && i < p.n; i++) {
        if (only != NULL && !str_ieq_c(str_of(p.v[i].name), only))
            continue;
        fn(arg, &p.v[i]);
        given++;
    }
    if (rc == STORE_YES && given == 0)
        rc = STORE_NO;
    page_free(&p);
    return rc;
}

/* Its own relay host comes with each row, found by the index of sender_relayhost. */
#define OF_DOMAIN "SELECT domain, description, transport, active, backupmx, settings, "
#define OF_USER                                                                                    \
    "SELECT username, name, transport, active, CASE WHEN isadmin = 1 OR isglobaladmin = 1 THEN 1 " \
    "ELSE 0 END, '', "
#define RELAY(account)                                                                             \
    "(SELECT relayhost FROM sender_relayhost WHERE account = " account " LIMIT 1)"
#define MANAGED                                                                                    \
    " AND domain IN (SELECT domain FROM domain_admins WHERE active = 1 AND username = ?)"
/* MariaDB takes other names for equal, too: this compares their bytes. */
#define MANAGED_EXACTLY                                                                            \
    " AND CAST(LOWER(domain) AS BINARY) IN (SELECT CAST(LOWER(domain) AS BINARY) FROM "            \
    "domain_admins WHERE active = 1 AND username = ?"

static void end_page(struct ask *q, const char *order, unsigned limit) {
    sbuf_printf(&q->text, " ORDER BY %s LIMIT %u", order, limit > PAGE_MAX ? PAGE_MAX : limit);
}

/* MariaDB keeps the answers of a subquery in a temporary table, which costs more than the rows; old
 * databases in PostgreSQL may have an account twice, which a join would show twice.  SQLite has no
 * CONCAT before 3.44, MySQL's || is another operator. */
static const char *domains(const struct store *st) {
    if (st->sql == &sql_mysql)
        return OF_DOMAIN "relayhost FROM domain LEFT JOIN sender_relayhost ON account = "
                         "CONCAT('@', domain) WHERE ";
    return OF_DOMAIN RELAY("'@' || domain.domain") " FROM domain WHERE ";
}

static const char *users(const struct store *st) {
    if (st->sql == &sql_mysql)
        return OF_USER "relayhost FROM mailbox LEFT JOIN sender_relayhost ON account = username "
                       "WHERE ";
    return OF_USER RELAY("mailbox.username") " FROM mailbox WHERE ";
}

/* Only the domains of that administrator. */
static void ask_managed(const struct store *st, struct ask *q, const char *admin) {
    browse_add(q, MANAGED, admin);
    if (st->sql != &sql_mysql)
        return;
    browse_add(q, MANAGED_EXACTLY, admin);
    browse_add(q, " AND CAST(LOWER(username) AS BINARY) = CAST(? AS BINARY))", admin);
}

static void ask_domains(const struct store *st, struct ask *q, const struct browse *b) {
    browse_add(q, domains(st), NULL);
    browse_add(q, "domain > ?", b->after);
    if (b->admin != NULL)
        ask_managed(st, q, b->admin);
    if (b->text[0] != '\0') {
        const char *pattern = like(q, "%", b->text);
        browse_add(q, " AND (LOWER(domain) LIKE ? ESCAPE '!'", pattern);
        browse_add(q, " OR LOWER(description) LIKE ? ESCAPE '!')", pattern);
    }
    if (b->disabled_only)
        browse_add(q, " AND active = 0", NULL);
    end_page(q, "domain", b->limit);
}

static void ask_users(const struct store *st, struct ask *q, const struct browse *b) {
    browse_add(q, users(st), NULL);
    browse_add(q, "domain = ?", b->domain);
    browse_add(q, " AND username > ?", b->after);
    if (b->text[0] != '\0') {
        browse_add(q, " AND (username LIKE ? ESCAPE '!'", like(q, "", b->text));
        browse_add(q, " OR LOWER(name) LIKE ? ESCAPE '!')", like(q, "%", b->text));
    }
    if (b->disabled_only)
        browse_add(q, " AND active = 0", NULL);
    end_page(q, "username", b->limit);
}

enum store_rc sql_browse(struct store *st, const struct browse *b, account_fn fn, void *arg,
                         char **why) {
    struct ask q = {0};
    if (b->domain == NULL)
        ask_domains(st, &q, b);
    else
        ask_users(st, &q, b);
    enum store_rc rc = browse_give(st, &q, b->domain != NULL, true, NULL, fn, arg, why);
    return rc == STORE_NO ? STORE_YES : rc;
}

enum store_rc sql_search(struct store *st, const char *text, const char *admin, unsigned limit,
                         account_fn fn, void *arg, char **why) {
    struct ask q = {0};
    browse_add(&q, users(st), NULL);
    browse_add(&q, "username LIKE ? ESCAPE '!'", like(&q, "", text));
    if (admin != NULL)
        ask_managed(st, &q, admin);
    end_page(&q, "username", limit);
    enum store_rc rc = browse_give(st, &q, true, false, NULL, fn, arg, why);
    return rc == STORE_NO ? STORE_YES : rc;
}

enum store_rc sql_account(struct store *st, const char *name, account_fn fn, void *arg,
                          char **why) {
    struct ask q = {0};
    bool user = strchr(name, '@') != NULL;
    browse_add(&q, user ? users(st) : domains(st), NULL);
    browse_add(&q, user ? "username = ?" : "domain = ?", name);
    return browse_give(st, &q, user, false, name, fn, arg, why);
}

/* -- changes -- */

enum store_rc store_sql_relay(struct store *st, const char *account, const char *value,
                              struct sql_statement *to, const char *args[2], char **why) {
    enum store_rc had =
        store_sql_has(st, "SELECT account FROM sender_relayhost WHERE account = ?", account, why);
    bool there = had == STORE_YES;
    if (had == STORE_ERROR || (had == STORE_NO && value == NULL))
        return had;
    *to = (struct sql_statement){.args = args};
    args[0] = value == NULL ? account : there ? value : account;
    args[1] = there ? account : value;
    to->text = value == NULL ? "DELETE FROM sender_relayhost WHERE account = ?"
               : there       ? "UPDATE sender_relayhost SET relayhost = ? WHERE account = ?"
                             : "INSERT INTO sender_relayhost (account, relayhost) VALUES (?, ?)";
    return STORE_YES;
}

static void ask_change(struct ask *q, const char *name, const struct account_change *c) {
    bool user = strchr(name, '@') != NULL;
    browse_add(q,
               user ? "UPDATE mailbox SET modified = CURRENT_TIMESTAMP"
                    : "UPDATE domain SET modified = CURRENT_TIMESTAMP",
               NULL);
    if (c->transport != NULL)
        browse_add(q, ", transport = ?", c->transport);
    if (c->backup_mx >= 0 && !user)
        browse_add(q, c->backup_mx > 0 ? ", backupmx = 1" : ", backupmx = 0", NULL);
    if (name[0] == '@')
        browse_add(q, " WHERE domain = ?", name + 1);
    else
        browse_add(q, user ? " WHERE username = ?" : " WHERE domain = ?", name);
}

enum store_rc sql_change(struct store *st, const char *name, const struct account_change *c,
                         char **why) {
    struct ask q = {0};
    struct sbuf account = {0};
    struct sql_statement list[2];
    const char *args[2];
    size_t n = 0;
    enum store_rc rc = STORE_YES;
    if (c->transport != NULL || c->backup_mx >= 0) {
        ask_change(&q, name, c);
        list[n++] = (struct sql_statement){q.text.p, q.args};
    }
    sbuf_printf(&account, "%s%s", strchr(name, '@') == NULL ? "@" : "", name);
    if (c->relayhost != NULL) {
        rc = store_sql_relay(st, account.p, c->relayhost[0] == '\0' ? NULL : c->relayhost, &list[n],
                             args, why);
        n += rc == STORE_YES;
    }
    if (rc != STORE_ERROR)
        rc = n == 0 ? STORE_YES : store_sql_change(st, list, n, why);
    sbuf_free(&account);
    ask_free(&q);
    return rc;
}

/* -- administrators -- */

struct login {
    const char *user;
    char *password; /* NULL: no such account */
    char born[ADMIN_MARK];
};

static void take_login(void *arg, char **row) {
    struct login *l = arg;
    if (l->password != NULL || !str_ieq_c(str_of(row[0]), l->user))
        return;
    l->password = mem_strdup(row[1]);
    password_mark(row[2], l->born, sizeof l->born);
}

/* Rows of domain_admins; see browse_give about names that are not the one that was asked for. */
struct managing {
    const char *user;
    const char *domain; /* NULL: any */
    bool found;
};

static void take_managing(void *arg, char **row) {
    struct managing *m = arg;
    m->found = m->found || (str_ieq_c(str_of(row[0]), m->user) &&
                            (m->domain == NULL || str_ieq_c(str_of(row[1]), m->domain)));
}

static enum store_rc browse_ask_few(struct store *st, const char *text, const char *a,
                                    const char *b, size_t columns,
                                    void (*fn)(void *arg, char **row), void *arg, char **why) {
    struct ask q = {0};
    browse_add(&q, text, a);
    if (b != NULL)
        browse_add(&q, "", b);
    return browse_run(st, &q, columns, fn, arg, why);
}

/* The stored password of an administrator: a standalone one's, else a mail user's that is marked.
 */
static enum store_rc find_login(struct store *st, struct login *l, char **why) {
    enum store_rc rc = browse_ask_few(
        st, "SELECT username, password, created FROM admin WHERE active = 1 AND username = ?",
        l->user, NULL, 3, take_login, l, why);
    if (rc == STORE_YES && l->password == NULL)
        rc = browse_ask_few(st,
                            "SELECT username, password, created FROM mailbox WHERE active = 1 AND "
                            "(isadmin = 1 OR isglobaladmin = 1) AND username = ?",
                            l->user, NULL, 3, take_login, l, why);
    return rc;
}

#define MANAGING "SELECT username, domain FROM domain_admins WHERE active = 1 AND username = ?"

enum store_rc sql_admin(struct store *st, const char *user, const char *password, struct admin *a,
                        char **why) {
    struct login l = {.user = user};
    struct managing all = {.user = user, .domain = "ALL"}, some = {.user = user};
    *a = (struct admin){0};
    enum store_rc rc = find_login(st, &l, why);
    if (rc == STORE_YES && l.password == NULL && password != NULL)
        password_pretend(password);
    if (rc == STORE_YES &&
        (l.password == NULL ||
         (password != NULL && password_check(l.password, password) != PASSWORD_YES)))
        rc = STORE_NO;
    if (rc == STORE_YES)
        password_mark(l.password, a->mark, sizeof a->mark);
    memcpy(a->born, l.born, sizeof a->born);
    if (l.password != NULL)
        mem_wipe(l.password, strlen(l.password));
    free(l.password);
    if (rc == STORE_YES)
        rc = browse_ask_few(st, MANAGING " AND domain = 'ALL'", user, NULL, 2, take_managing, &all,
                            why);
    a->global = all.found;
    if (rc == STORE_YES && !a->global)
        rc = browse_ask_few(st, MANAGING " LIMIT 1", user, NULL, 2, take_managing, &some, why);
    return rc == STORE_YES && !a->global && !some.found ? STORE_NO : rc;
}

enum store_rc sql_manages(struct store *st, const char *user, const char *domain, char **why) {
    struct managing m = {.user = user, .domain = domain};
    enum store_rc rc =
        browse_ask_few(st, MANAGING " AND domain = ?", user, domain, 2, take_managing, &m, why);
    return rc == STORE_YES && !m.found ? STORE_NO : rc;
}
