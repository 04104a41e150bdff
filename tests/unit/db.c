/*
 * Berkeley DB files against its library: random tables that either wrote, read by the other, and
 * damaged files, where the library is asked in a process of its own because they may end it.
 * POSTHOUSE_DB_ROUNDS: so many tables of each kind instead of a few.
 */
#include "unit.h"

#include <db.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "maps/map.h"
#include "util/fs.h"
#include "util/mem.h"

static const struct {
    const char *name;
    const struct map_ops *ops;
    DBTYPE type;
} kinds[] = {{"hash", &map_hash, DB_HASH}, {"btree", &map_btree, DB_BTREE}};

struct rows {
    struct map_pair *v;
    size_t n;
};

static uint64_t seed = 20250101;
static char path[100], spec[120];

static unsigned rnd(unsigned below) {
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)((seed >> 33) % below);
}

static unsigned rounds(unsigned few) {
    const char *set = getenv("POSTHOUSE_DB_ROUNDS");
    return set == NULL ? few : (unsigned)atoi(set);
}

/* Lengths round the places where an item leaves its page, and where it needs one page more. */
static size_t some_length(bool large) {
    static const unsigned corners[] = {0,    1,    480,  500,  512,  990,  1000,
                                       1003, 1007, 1022, 1023, 1024, 1025, 4068,
                                       4069, 4070, 4071, 8139, 8140, 8141, 20000};
    return !large || rnd(3) != 0 ? rnd(40) : corners[rnd(sizeof corners / sizeof corners[0])];
}

static struct str some_bytes(size_t n, const char *begin) {
    struct sbuf b = {0};
    sbuf_add_c(&b, begin);
    for (size_t i = 0; i < n; i++)
        sbuf_add_ch(&b, (char)("abcz0129.@-\xc3\xa9~"[rnd(14)]));
    return str_make(b.p == NULL ? sbuf_take(&b) : b.p, b.n);
}

static struct rows some_rows(size_t n, bool large) {
    struct rows r = {mem_zalloc((n + 1) * sizeof(struct map_pair)), n};
    char *common = mem_zalloc(1601);
    memset(common, 'p', 1600);
    for (size_t i = 0; i < n; i++) {
        char mark[1700];
        snprintf(mark, sizeof mark, "%s%zx", large && rnd(8) == 0 ? common : "", i * 7919 % n);
        r.v[i].key = some_bytes(0, mark); /* no two are the same */
        struct sbuf key = {0};
        sbuf_add_str(&key, r.v[i].key);
        sbuf_add_ch(&key, '=');
        struct str rest = some_bytes(some_length(large), "");
        sbuf_add_str(&key, rest);
        free((void *)(uintptr_t)rest.p);
        free((void *)(uintptr_t)r.v[i].key.p);
        r.v[i].key = str_make(key.p, key.n);
        r.v[i].value = some_bytes(some_length(large), "");
    }
    free(common);
    return r;
}

static void rows_free(struct rows *r) {
    for (size_t i = 0; i < r->n; i++) {
        free((void *)(uintptr_t)r->v[i].key.p);
        free((void *)(uintptr_t)r->v[i].value.p);
    }
    free(r->v);
}

static void name_file(unsigned kind) {
    snprintf(path, sizeof path, "%s/t.db", dir);
    snprintf(spec, sizeof spec, "%s:%s/t", kinds[kind].name, dir);
}

/* The library's put of rows from to n into a file that is new, or is there. */
static void library_write(unsigned kind, const struct rows *r, bool nul, uint32_t page, int order) {
    DB *db;
    assert_int_equal(db_create(&db, NULL, 0), 0);
    if (page != 0)
        db->set_pagesize(db, page);
    if (order != 0)
        db->set_lorder(db, order);
    if (rnd(2) == 0 && kinds[kind].type == DB_HASH)
        db->set_h_nelem(db, 4096); /* as Postfix does */
    assert_int_equal(
        db->open(db, NULL, path, NULL, kinds[kind].type, DB_CREATE | DB_TRUNCATE, 0600), 0);
    for (size_t i = 0; i < r->n; i++) {
        DBT k = {.data = (void *)(uintptr_t)r->v[i].key.p, .size = (uint32_t)(r->v[i].key.n + nul)};
        DBT v = {.data = (void *)(uintptr_t)r->v[i].value.p,
                 .size = (uint32_t)(r->v[i].value.n + nul)};
        DBT other = {.data = "x", .size = rnd(2)};
        if (rnd(16) == 0) { /* leaves room that is used again */
            assert_int_equal(db->put(db, NULL, &k, &other, 0), 0);
            if (rnd(2) == 0)
                assert_int_equal(db->del(db, NULL, &k, 0), 0);
        }
        assert_int_equal(db->put(db, NULL, &k, &v, 0), 0);
    }
    assert_int_equal(db->close(db, 0), 0);
}

/* Which rows the library finds as they are; stops where it fails. */
static void library_ask(unsigned kind, const struct rows *r, bool nul,
                        void (*fn)(void *, size_t, bool), void *arg) {
    DB *db;
    assert_int_equal(db_create(&db, NULL, 0), 0);
    db->set_errfile(db, NULL);
    if (db->open(db, NULL, path, NULL, kinds[kind].type, DB_RDONLY, 0) == 0)
        for (size_t i = 0; i < r->n; i++) {
            DBT k = {.data = (void *)(uintptr_t)r->v[i].key.p,
                     .size = (uint32_t)(r->v[i].key.n + nul)};
            DBT v = {0};
            bool right = db->get(db, NULL, &k, &v, 0) == 0 && v.size == r->v[i].value.n + nul &&
                         (v.size == 0 || memcmp(v.data, r->v[i].value.p, v.size) == 0);
            fn(arg, i, right);
        }
    db->close(db, 0);
}

static void all_right(void *arg, size_t i, bool right) {
    (void)arg;
    if (!right)
        fail_msg("the library does not find row %zu", i);
}

static void library_verify(void) {
    DB *db;
    assert_int_equal(db_create(&db, NULL, 0), 0);
    int rc = db->verify(db, path, NULL, NULL, 0); /* closes it, too */
    if (rc != 0)
        fail_msg("the library refuses the file: %s", db_strerror(rc));
}

static int row_count(void *arg, struct str key, struct str value) {
    size_t *n = arg;
    (void)key;
    (void)value;
    ++*n;
    return 0;
}

static void we_find_all(const struct rows *r) {
    struct map *m = map_open(spec, "/");
    struct sbuf v = {0};
    size_t n = 0;
    m->fold = false;
    if (!m->opened)
        fail_msg("%s", m->err);
    for (size_t i = 0; i < r->n; i++) {
        v.n = 0;
        assert_int_equal(map_get(m, r->v[i].key, &v), MAP_FOUND);
        assert_true(str_eq(sbuf_str(&v), r->v[i].value));
    }
    assert_int_equal(map_get(m, STR_LIT("="), &v), MAP_NOT_FOUND);
    assert_int_equal(map_get(m, STR_LIT("~~~~"), &v), MAP_NOT_FOUND);
    assert_int_equal(map_each(m, row_count, &n), 0);
    assert_int_equal(n, r->n);
    sbuf_free(&v);
    map_close(m);
}

static struct rows rows_of_round(unsigned round, bool *large) {
    static const unsigned sizes[] = {0, 1, 2, 40, 300, 5000};
    *large = round % 2 == 1;
    unsigned most = sizes[round % 6];
    return some_rows(most <= 2 ? most : most / 2 + rnd(most / 2), *large && most < 5000);
}

static void test_what_we_write(void **state) {
    (void)state;
    for (unsigned kind = 0; kind < 2; kind++)
        for (unsigned round = 0; round < rounds(24); round++) {
            bool large, nul = rnd(4) != 0;
            const char *why;
            struct rows r = rows_of_round(round, &large);
            name_file(kind);
            assert_int_equal(kinds[kind].ops->build(path, r.v, r.n, 0640,
                                                    nul ? MAP_NUL_AS_EVER : MAP_NUL_NO, &why),
                             0);
            struct stat st;
            assert_int_equal(stat(path, &st), 0);
            assert_int_equal(st.st_mode & 0777, 0640);
            library_verify();
            library_ask(kind, &r, nul, all_right, NULL);
            we_find_all(&r);
            rows_free(&r);
        }
}

/* The library goes on with a file of ours: what it adds is found, and so is what was there. */
static void test_what_the_library_adds_to_ours(void **state) {
    (void)state;
    for (unsigned kind = 0; kind < 2; kind++) {
        struct rows r = some_rows(900, true), half = {r.v, 450};
        const char *why;
        DB *db;
        name_file(kind);
        assert_int_equal(kinds[kind].ops->build(path, half.v, half.n, 0600, MAP_NUL_YES, &why), 0);
        assert_int_equal(db_create(&db, NULL, 0), 0);
        assert_int_equal(db->open(db, NULL, path, NULL, kinds[kind].type, 0, 0), 0);
        for (size_t i = half.n; i < r.n; i++) {
            DBT k = {.data = (void *)(uintptr_t)r.v[i].key.p, .size = (uint32_t)r.v[i].key.n + 1};
            DBT v = {.data = (void *)(uintptr_t)r.v[i].value.p,
                     .size = (uint32_t)r.v[i].value.n + 1};
            assert_int_equal(db->put(db, NULL, &k, &v, 0), 0);
        }
        assert_int_equal(db->close(db, 0), 0);
        library_verify();
        we_find_all(&r);
        rows_free(&r);
    }
}

static void test_what_the_library_writes(void **state) {
    (void)state;
    for (unsigned kind = 0; kind < 2; kind++)
        for (unsigned round = 0; round < rounds(24); round++) {
            static const int orders[] = {0, 1234, 4321};
            bool large;
            struct rows r = rows_of_round(round, &large);
            name_file(kind);
            uint32_t page = round % 12 == 0 ? 65536 : rnd(3) == 0 ? 512U << rnd(8) : 0;
            library_write(kind, &r, rnd(4) != 0, page, orders[round % 3]);
            we_find_all(&r);
            rows_free(&r);
        }
}

static void tell_right(void *arg, size_t i, bool right) {
    const int *fd = arg;
    char c = right ? 1 : 0;
    (void)i;
    (void)!write(*fd, &c, 1);
}

/* Which rows the library finds in a damaged file, before that ends it or keeps it for long. */
static void library_ask_apart(unsigned kind, const struct rows *r, bool nul, char *right) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGABRT, SIG_DFL);
        alarm(2);
        (void)!freopen("/dev/null", "w", stderr);
        library_ask(kind, r, nul, tell_right, &ends[1]);
        _exit(0);
    }
    close(ends[1]);
    size_t got = 0;
    ssize_t n;
    while (got < r->n && (n = read(ends[0], right + got, r->n - got)) > 0)
        got += (size_t)n;
    close(ends[0]);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void damage(struct sbuf *file) {
    switch (rnd(6)) {
    case 0:
        file->n = rnd((unsigned)file->n + 1);
        break;
    case 1: /* a sector is another's */
        memcpy(file->p + rnd((unsigned)file->n / 512) * 512,
               file->p + rnd((unsigned)file->n / 512) * 512, 512);
        break;
    case 2:
        memset(file->p + rnd((unsigned)file->n / 512) * 512, rnd(2) == 0 ? 0 : 0xff, 512);
        break;
    case 3: /* of a page's head, or the first page */
        file->p[rnd((unsigned)file->n / 4096) * 4096 + rnd(64)] ^= (char)(1 << rnd(8));
        break;
    default:
        for (unsigned i = 1 + rnd(4); i > 0; i--)
            file->p[rnd((unsigned)file->n)] ^= (char)(1 << rnd(8));
    }
}

static void test_damaged_files(void **state) {
    unsigned refused = 0, answered = 0;
    (void)state;
    for (unsigned kind = 0; kind < 2; kind++) {
        struct rows r = some_rows(150, true);
        struct sbuf whole = {0};
        char *right = mem_zalloc(r.n);
        const char *why;
        name_file(kind);
        assert_int_equal(kinds[kind].ops->build(path, r.v, r.n, 0600, MAP_NUL_YES, &why), 0);
        assert_int_equal(fs_read(path, &whole, 100U << 20), 0);
        for (unsigned round = 0; round < rounds(150); round++) {
            struct sbuf file = {0}, v = {0};
            sbuf_add_str(&file, sbuf_str(&whole));
            damage(&file);
            int fd = open(path, O_WRONLY | O_TRUNC | O_CREAT, 0600);
            assert_int_equal(fs_write_all(fd, file.p, file.n), 0);
            close(fd);
            struct map *m = map_open(spec, "/");
            m->fold = false;
            refused += !m->opened;
            bool asked = false;
            for (size_t i = 0; m->opened && i < r.n; i++) {
                v.n = 0;
                enum map_rc rc = map_get(m, r.v[i].key, &v);
                if (rc == MAP_ERROR || (rc == MAP_FOUND && str_eq(sbuf_str(&v), r.v[i].value)))
                    continue;
                if (!asked) {
                    memset(right, 0, r.n);
                    library_ask_apart(kind, &r, true, right);
                    asked = true;
                }
                if (right[i])
                    fail_msg("%s, round %u: row %zu is %s here and right for the library",
                             kinds[kind].name, round, i, rc == MAP_FOUND ? "another" : "missing");
            }
            answered += m->opened;
            map_close(m);
            sbuf_free(&file);
            sbuf_free(&v);
        }
        free(right);
        sbuf_free(&whole);
        rows_free(&r);
    }
    assert_true(refused > 0 && answered > 0);
}

/* A key that is another stands where it is not looked for, or out of order: then the file is
 * refused, or the row that had it would be missing. */
static void test_keys_that_are_others(void **state) {
    (void)state;
    for (unsigned kind = 0; kind < 2; kind++) {
        struct rows r = some_rows(60, false);
        struct sbuf file = {0};
        const char *why;
        unsigned refused = 0;
        name_file(kind);
        assert_int_equal(kinds[kind].ops->build(path, r.v, r.n, 0600, MAP_NUL_YES, &why), 0);
        assert_int_equal(fs_read(path, &file, 100U << 20), 0);
        for (size_t i = 0; i < r.n; i++) {
            char *key = memmem(file.p, file.n, r.v[i].key.p, r.v[i].key.n + 1), was;
            assert_non_null(key);
            was = *key;
            *key = '~';
            int fd = open(path, O_WRONLY | O_TRUNC);
            assert_int_equal(fs_write_all(fd, file.p, file.n), 0);
            close(fd);
            *key = was;
            struct map *m = map_open(spec, "/");
            refused += !m->opened;
            map_close(m);
        }
        assert_true(refused >= (kinds[kind].type == DB_BTREE ? r.n - 1 : r.n / 4));
        sbuf_free(&file);
        rows_free(&r);
    }
}

static void ask_one(struct map *m, const char *key, const char *want) {
    struct sbuf v = {0};
    assert_int_equal(map_get(m, str_of(key), &v), want == NULL ? MAP_NOT_FOUND : MAP_FOUND);
    if (want != NULL)
        assert_str(sbuf_str(&v), want);
    sbuf_free(&v);
}

/* Postfix's postmap writes into the file that is there, and holds it locked meanwhile. */
static void test_a_file_that_is_written_while_it_is_open(void **state) {
    (void)state;
    for (unsigned kind = 0; kind < 2; kind++) {
        struct map_pair first[] = {{STR_LIT("k"), STR_LIT("old")}},
                        then[] = {{STR_LIT("k"), STR_LIT("new")}};
        struct rows a = {first, 1}, b = {then, 1};
        struct sbuf v = {0};
        name_file(kind);
        unlink(path);
        library_write(kind, &a, true, 0, 0);
        struct timespec past[2] = {{.tv_sec = 1000000}, {.tv_sec = 1000000}};
        assert_int_equal(utimensat(AT_FDCWD, path, past, 0), 0);
        struct map *m = map_open(spec, "/");
        ask_one(m, "k", "old");
        library_write(kind, &b, true, 0, 0);
        ask_one(m, "k", "new"); /* at once */
        struct stat st;
        assert_int_equal(stat(path, &st), 0); /* and it is not opened once more for that */
        assert_memory_equal(&m->st.st_mtim, &st.st_mtim, sizeof st.st_mtim);
        int fd = open(path, O_RDWR);
        assert_true(flock(fd, LOCK_EX | LOCK_NB) == 0 && ftruncate(fd, 100) == 0);
        assert_int_equal(map_get(m, STR_LIT("k"), &v), MAP_ERROR);
        assert_int_equal(map_get(m, STR_LIT("other"), &v), MAP_ERROR);
        char *why = map_error(m);
        assert_non_null(strstr(why, "another program is writing it"));
        free(why);
        close(fd);
        library_write(kind, &a, true, 0, 0);
        ask_one(m, "k", "old");
        ask_one(m, "other", NULL);
        map_close(m);
        sbuf_free(&v);
    }
}

/* Postfix's postmap holds the file locked until it is whole: it has no rows for a time.  A lock on
 * a file that was not written for long keeps no question back. */
static void test_a_file_that_has_no_rows_yet(void **state) {
    (void)state;
    for (unsigned kind = 0; kind < 2; kind++) {
        struct map_pair all[] = {{STR_LIT("road"), STR_LIT("here")}};
        struct rows some = {all, 1}, none = {NULL, 0};
        struct sbuf v = {0};
        size_t n = 0;
        name_file(kind);
        unlink(path);
        library_write(kind, &some, true, 0, 0);
        struct map *m = map_open(spec, "/");
        ask_one(m, "road", "here");
        int fd = open(path, O_RDWR);
        assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
        ask_one(m, "road", "here"); /* nothing was written yet */
        library_write(kind, &none, true, 0, 0);
        assert_int_equal(map_get(m, STR_LIT("road"), &v), MAP_ERROR);
        assert_int_equal(map_each(m, row_count, &n), -EIO);
        struct map *fresh = map_open(spec, "/");
        assert_false(fresh->opened);
        assert_non_null(strstr(fresh->err, "another program is writing it"));
        map_close(fresh);
        library_write(kind, &some, true, 0, 0);
        struct timespec past[2] = {{.tv_sec = 1000000}, {.tv_sec = 1000000}};
        assert_int_equal(utimensat(AT_FDCWD, path, past, 0), 0);
        ask_one(m, "road", "here");
        close(fd);
        map_close(m);
        sbuf_free(&v);
    }
}

/* Pages of zeros, as a crash leaves them, are rows that are missing, unless the library has not
 * filled them yet. */
static void test_pages_of_zeros(void **state) {
    static const unsigned sizes[] = {1, 3, 250, 1200};
    (void)state;
    for (unsigned round = 0; round < 16; round++) {
        unsigned kind = round % 2, size = sizes[round / 2 % 4];
        struct rows r = some_rows(size, false);
        struct sbuf file = {0};
        const char *why;
        name_file(kind);
        unlink(path);
        if (round < 8)
            library_write(kind, &r, true, 4096, 0);
        else
            assert_int_equal(kinds[kind].ops->build(path, r.v, r.n, 0600, MAP_NUL_YES, &why), 0);
        assert_int_equal(fs_read(path, &file, 100U << 20), 0);
        for (size_t at = 4096; at < file.n; at += 4096) {
            char was[4096];
            size_t n = 0;
            memcpy(was, file.p + at, sizeof was);
            memset(file.p + at, 0, sizeof was);
            int fd = open(path, O_WRONLY | O_TRUNC);
            assert_int_equal(fs_write_all(fd, file.p, file.n), 0);
            close(fd);
            memcpy(file.p + at, was, sizeof was);
            struct map *m = map_open(spec, "/");
            if (m->opened) {
                assert_int_equal(map_each(m, row_count, &n), 0);
                assert_int_equal(n, r.n);
            }
            map_close(m);
        }
        sbuf_free(&file);
        rows_free(&r);
    }
}

/* The library hashes these to the same: one bucket has all, on a chain of pages. */
static void test_a_bucket_of_many_pages(void **state) {
    struct rows r = {mem_zalloc(3000 * sizeof(struct map_pair)), 0};
    (void)state;
    const char *why;
    for (unsigned i = 0; r.n < 1200; i++) {
        char text[40];
        int n = snprintf(text, sizeof text, "%u", i * 2654435761U);
        uint32_t h = 0;
        for (int at = 0; at <= n; at++)
            h = h * 16777619U ^ (uint8_t)text[at];
        if ((h & 63) == 17) {
            r.v[r.n].key = some_bytes(0, text);
            r.v[r.n++].value = some_bytes(20, "v");
        }
    }
    name_file(0);
    assert_int_equal(map_hash.build(path, r.v, r.n, 0600, MAP_NUL_YES, &why), 0);
    library_verify();
    library_ask(0, &r, true, all_right, NULL);
    we_find_all(&r);
    rows_free(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_we_write),
        cmocka_unit_test(test_what_the_library_adds_to_ours),
        cmocka_unit_test(test_what_the_library_writes),
        cmocka_unit_test(test_damaged_files),
        cmocka_unit_test(test_keys_that_are_others),
        cmocka_unit_test(test_a_file_that_is_written_while_it_is_open),
        cmocka_unit_test(test_a_file_that_has_no_rows_yet),
        cmocka_unit_test(test_pages_of_zeros),
        cmocka_unit_test(test_a_bucket_of_many_pages),
    };
    return cmocka_run_group_tests(tests, dir_make, dir_remove);
}
