/*
 * Tables that answer with several values: joined with commas where a list is meant, an error that
 * names the table and shows none of them where one value is.
 */
#include "unit.h"

#include <sqlite3.h>

#include "maps/maps.h"
#include "maps/query.h"
#include "maps/relays.h"
#include "maps/server.h"

#define ONE_ONLY "values for one key, and only one is allowed"

static void database(const char *name, const char *sql) {
    char path[120], *why = NULL;
    sqlite3 *db;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_exec(db, sql, NULL, NULL, &why);
    assert_null(why);
    sqlite3_close(db);
}

static void table_write(const char *name, const char *query) {
    char path[120];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "dbpath = %s/db\nquery = %s\n", dir, query);
    fclose(f);
}

static int rows_make(void **state) {
    if (dir_make(state) != 0)
        return 1;
    database("db", "CREATE TABLE t (k TEXT, v TEXT);"
                   "INSERT INTO t VALUES ('two', 'user1:secret1'), ('two', 'user2:secret2'),"
                   " ('same', 'u:s'), ('same', 'u:s'), ('one', 'user:a,b:c'),"
                   " ('null', 'user:word'), ('null', NULL), ('null', ''),"
                   " ('long', 'x'), ('long', 'y'), ('long', 'z');");
    table_write("t.cf", "SELECT v FROM t WHERE k = '%s'");
    return 0;
}

/* want: the value where a list is meant; several: how many there are, 0: it is one. */
static void check_both(const char *spec, const char *key, const char *want, size_t several,
                       const char *named) {
    for (int one = 0; one < 2; one++) {
        struct maps *m = maps_open_as(spec, dir, one ? VALUES_ONE : VALUES_JOINED);
        struct maps_key k = {str_of(key), false};
        struct maps_answer a;
        maps_find(m, &k, 1, &a);
        if (one && several > 0) {
            char text[100];
            snprintf(text, sizeof text, ": %zu " ONE_ONLY, several);
            assert_int_equal(a.rc, MAP_ERROR);
            assert_int_equal(a.several, several);
            assert_non_null(strstr(a.err, text));
            assert_non_null(strstr(a.err, named));
            assert_null(strstr(a.err, "secret"));
            assert_int_equal(a.value.n, 0);
        } else {
            assert_int_equal(a.rc, MAP_FOUND);
            assert_str(sbuf_str(&a.value), want);
        }
        maps_answer_free(&a);
        maps_close(m);
    }
}

static void test_rows(void **state) {
    (void)state;
    check_both("sqlite:t.cf", "two", "user1:secret1,user2:secret2", 2, "sqlite:t.cf: ");
    check_both("proxy:sqlite:t.cf", "same", "u:s,u:s", 2, "proxy:sqlite:t.cf: ");
    check_both("sqlite:t.cf", "long", "x,y,z", 3, "sqlite:t.cf: ");
    check_both("sqlite:t.cf", "one", "user:a,b:c", 0, "");
    check_both("sqlite:t.cf", "null", "user:word", 0, ""); /* as ever, what is empty is no value */
}

/* What is written into the parameter may be a login, and is not named. */
static void test_parts(void **state) {
    (void)state;
    check_both("unionmap:{inline:{k=a:secret1}, inline:{k=b:secret2}}", "k", "a:secret1,b:secret2",
               2, "unionmap:{inline:(hidden), inline:(hidden)}: ");
    check_both("unionmap:{inline:{k=a:secret1}, inline:{j=b:secret2}}", "k", "a:secret1", 0, "");
    check_both("unionmap:{sqlite:t.cf, inline:{two=c:secret3}}", "two",
               "user1:secret1,user2:secret2,c:secret3", 2, "sqlite:t.cf: ");
    check_both("unionmap:{inline:{j=x}, sqlite:t.cf}", "one", "user:a,b:c", 0, "");
    check_both("pipemap:{inline:{k=two}, sqlite:t.cf}", "k", "user1:secret1,user2:secret2", 2,
               "sqlite:t.cf: ");
    /* Joined in between they would be a key that no table has: mail would go without a login. */
    check_both("pipemap:{sqlite:t.cf, inline:{{user1:secret1,user2:secret2 = found}}}", "two",
               "found", 2, "sqlite:t.cf: ");
    check_both("pipemap:{unionmap:{inline:{k=two},inline:{k=one}}, static:{a:b}}", "k", "a:b", 2,
               "unionmap:{");
}

static void question(struct lookup_server *s, const char *spec, enum map_values values,
                     enum map_rc rc, const char *want) {
    struct sbuf q = {0}, out = {0};
    struct ipc_head head = {.type = LOOKUP_MAPS};
    ipc_put_str(&q, STR_LIT("smtp"));
    ipc_put_str(&q, str_of(spec));
    ipc_put_values(&q, values);
    ipc_put_u32(&q, 1);
    ipc_put_str(&q, STR_LIT("two"));
    ipc_put_u32(&q, 0);
    lookup_server_answer(s, &head, sbuf_str(&q), &out);
    struct ipc_reader r = {.rest = str_from(sbuf_str(&out), sizeof head)};
    ipc_get_u64(&r);
    assert_int_equal(ipc_get_rc(&r), rc);
    ipc_get_u32(&r);
    ipc_get_u32(&r);
    assert_str(ipc_get_str(&r), want);
    ipc_get_str(&r);
    assert_int_equal(ipc_get_u32(&r), rc == MAP_ERROR ? 2 : 0);
    assert_true(ipc_done(&r));
    sbuf_free(&q);
    sbuf_free(&out);
}

/* The same name in two parameters: a list for one, one value for the other, whichever asks first.
 */
static void test_a_table_in_two_roles(void **state) {
    (void)state;
    static struct lookup_server *s; /* stays: it has no end of its own */
    s = lookup_server_new(0, dir);
    for (int i = 0; i < 2; i++) {
        question(s, "sqlite:t.cf", VALUES_ONE, MAP_ERROR, "");
        question(s, "sqlite:t.cf", VALUES_JOINED, MAP_FOUND, "user1:secret1,user2:secret2");
    }
    question(s, "sqlite:./t.cf", VALUES_JOINED, MAP_FOUND, "user1:secret1,user2:secret2");
    question(s, "sqlite:./t.cf", VALUES_ONE, MAP_ERROR, "");
}

/* The embedded accounts store asks for one row, whatever its file has. */
static void test_the_embedded_store_gives_one(void **state) {
    char spec[140];
    (void)state;
    database("store", "CREATE TABLE sender_relayhost (account TEXT, relayhost TEXT);"
                      "INSERT INTO sender_relayhost VALUES ('a@b.example', '[one.example]'),"
                      " ('a@b.example', '[two.example]')");
    snprintf(spec, sizeof spec, "accounts:sqlite:%s/store", dir);
    check_both(spec, "a@b.example", "[one.example]", 0, "");
}

/* So do the relay records: of those that fit the one that fits best, and the secret of one id. */
static void test_relay_records_give_one(void **state) {
    char spec[140];
    (void)state;
    database("relays", RELAYS_SCHEMA
             "INSERT INTO relay (id, name, nexthop, account, hosts, username) VALUES"
             " (1, 'x', '[h.example]', '@b.example,a@b.example', '[1.example]', 'user1'),"
             " (2, '[h.example]', 'y', 'a@b.example', '[2.example]', 'user2')");
    snprintf(spec, sizeof spec, "relays:%s/relays", dir);
    check_both(spec, "a@b.example\n[h.example]",
               "{\"id\": \"1\", \"name\": \"x\", \"hosts\": \"[1.example]\", \"tls\": \"encrypt\", "
               "\"mechanisms\": \"\", \"user\": \"user1\", \"account\": "
               "\"@b.example,a@b.example\", \"modified\": \"0\"}",
               0, "");
}

/* What main.cf names is found before another's record that has the next hop as its name. */
static void test_the_record_that_main_cf_names(void **state) {
    char spec[140];
    (void)state;
    database("relays", RELAYS_SCHEMA
             "INSERT INTO relay (id, name, nexthop, account, hosts, username) VALUES"
             " (1, '[h.example]', '[h.example]', 'boss@b.example', '[1.example]', 'user1'),"
             " (2, 'office', '[h.example]', 'main.cf,a@b.example', '[2.example]', 'user2')");
    snprintf(spec, sizeof spec, "relays:%s/relays", dir);
    check_both(
        spec, RELAYS_NAMED "\n[h.example]",
        "{\"id\": \"2\", \"name\": \"office\", \"hosts\": \"[2.example]\", \"tls\": \"encrypt\", "
        "\"mechanisms\": \"\", \"user\": \"user2\", \"account\": "
        "\"main.cf,a@b.example\", \"modified\": \"0\"}",
        0, "");
}

/* plain(text), and how often a text of a domain's own record is brought into its form. */
static void count_plain(sqlite3_context *context, int n, sqlite3_value **args) {
    unsigned *counted = sqlite3_user_data(context);
    const char *text = (const char *)sqlite3_value_text(args[0]);
    assert_int_equal(n, 1);
    *counted += strncmp(text, "own", 3) == 0;
    sqlite3_result_text(context, text, -1, SQLITE_TRANSIENT);
}

/* How often the look-up for account brings a name, a next hop or a list of a domain's own records
 * into its form. */
static unsigned counted_for(sqlite3 *db, const char *account) {
    unsigned counted = 0;
    sqlite3_stmt *st;
    sqlite3_create_function(db, RELAYS_PLAIN, 1, SQLITE_UTF8, &counted, count_plain, NULL, NULL);
    sqlite3_create_function(db, RELAYS_LISTED, 2, SQLITE_UTF8, &counted, count_plain, NULL, NULL);
    assert_int_equal(sqlite3_prepare_v2(db, RELAYS_FIND, -1, &st, NULL), SQLITE_OK);
    sqlite3_bind_text(st, 1, account, -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 2, "[h.example]", -1, SQLITE_STATIC);
    sqlite3_bind_int(st, 3, 0);
    assert_int_equal(sqlite3_step(st), SQLITE_DONE);
    sqlite3_finalize(st);
    return counted;
}

/* A domain's own records cost the mail of others next to nothing, however long their texts are. */
static void test_records_of_others_are_not_looked_at(void **state) {
    char path[120];
    sqlite3 *db;
    (void)state;
    database("relays",
             RELAYS_SCHEMA "INSERT INTO relay (id, name, nexthop, account, hosts, owner) VALUES"
                           " (1, 'own 1', 'own hop', '@b.example', '[1.example]', 'b.example'),"
                           " (2, 'own 2', 'own hop', 'a@b.example', '[2.example]', 'b.example')");
    snprintf(path, sizeof path, "%s/relays", dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(counted_for(db, "a@c.example"), 0);
    assert_int_equal(counted_for(db, "@c.example"), 0);
    assert_int_equal(counted_for(db, RELAYS_ALL), 0);
    assert_int_equal(counted_for(db, RELAYS_NAMED), 0);
    assert_int_equal(counted_for(db, "a@b.example"), 4);
    sqlite3_close(db);
}

/* Pages that the look-up for account reads. */
static int pages_for(const char *path, const char *account) {
    sqlite3 *db;
    int pages, most;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    counted_for(db, account);
    assert_int_equal(sqlite3_db_status(db, SQLITE_DBSTATUS_CACHE_MISS, &pages, &most, 0),
                     SQLITE_OK);
    sqlite3_close(db);
    return pages;
}

/* Nor is anything of them read: fifty domains' lists may have hundreds of megabytes. */
static void test_records_of_others_are_not_read(void **state) {
    char path[120];
    (void)state;
    database("relays", RELAYS_SCHEMA RELAYS_INDEX
             "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)"
             " INSERT INTO relay (name, nexthop, account, hosts, owner)"
             " SELECT i, i, i || hex(zeroblob(30000)), i, 'b.example' FROM n");
    snprintf(path, sizeof path, "%s/relays", dir);
    assert_in_range(pages_for(path, "a@c.example"), 1, 30);
    assert_in_range(pages_for(path, "@c.example"), 1, 30);
    assert_in_range(pages_for(path, RELAYS_ALL), 1, 30);
    assert_in_range(pages_for(path, RELAYS_NAMED), 1, 30);
    assert_true(pages_for(path, "a@b.example") > 50);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, rows_make, dir_remove)
    const struct CMUnitTest tests[] = {T(test_rows),
                                       T(test_parts),
                                       T(test_a_table_in_two_roles),
                                       T(test_the_embedded_store_gives_one),
                                       T(test_relay_records_give_one),
                                       T(test_the_record_that_main_cf_names),
                                       T(test_records_of_others_are_not_looked_at),
                                       T(test_records_of_others_are_not_read)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
