/*
 * spool: what the disk has lost or changed, strange files and forged records; on a real directory.
 */
#include "spool_rig.h"

/* A torn end is dropped, and what was not promised is dropped in silence; damage in the middle is
 * set aside and what follows it is kept. */
static void test_damage(void **state) {
    struct seen seen;
    char path[128], cmd[160];
    (void)state;
    struct spool *s = open_spool(&seen);
    for (uint64_t id = 1; id <= 5; id++)
        put(s, id, "m", 1000);
    spool_close(s);
    log_file(path, 1);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "XXXX", 4, 1064 + 200), 4); /* inside the second record */
    close(fd);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 4);
    struct spool_stats st;
    spool_stats(s, &st);
    assert_int_equal(st.damaged, 1);
    spool_close(s);
    snprintf(cmd, sizeof cmd, "test -s %s/damaged/*", dir);
    assert_int_equal(system(cmd), 0);
    fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, "XXXX", 4, 4 * 1048 + 272), 4); /* the last record: a torn end */
    close(fd);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 3);
    spool_close(s);
}

static void nothing(void *ctx, const char *name) {
    (void)ctx;
    (void)name;
}

/* Every call of the real disk says what went wrong as negative errno. */
static void test_disk_errors(void **state) {
    const struct spool_io *d = &spool_io_disk;
    char nowhere[100];
    struct iovec iov = {nowhere, 1};
    (void)state;
    snprintf(nowhere, sizeof nowhere, "%s/none/none", dir);
    assert_int_equal(d->open(NULL, nowhere, O_RDONLY, 0), -ENOENT);
    assert_int_equal(d->pwritev(NULL, -1, &iov, 1, 0), -EBADF);
    assert_int_equal(d->pread(NULL, -1, nowhere, 1, 0), -EBADF);
    assert_int_equal(d->allocate(NULL, -1, 1), -EBADF);
    assert_int_equal(d->datasync(NULL, -1), -EBADF);
    assert_int_equal(d->sync_dir(NULL, nowhere), -ENOENT);
    assert_int_equal(d->sync_dir(NULL, "/proc/self/fd"), -EINVAL);
    assert_int_equal(d->unlink(NULL, nowhere), -ENOENT);
    assert_int_equal(d->mkdir(NULL, nowhere), -ENOENT);
    assert_int_equal(d->rename(NULL, nowhere, nowhere), -ENOENT);
    assert_int_equal(d->lock(NULL, -1), -EBADF);
    char chance[300]; /* more than is given at once */
    assert_int_equal(d->random(NULL, chance, sizeof chance), -EIO);
    assert_int_equal(d->size(NULL, -1), -EBADF);
    assert_int_equal(d->list(NULL, nowhere, nothing, NULL), -ENOENT);
    assert_int_equal(d->space(NULL, nowhere), -ENOENT);
    assert_true(d->space(NULL, dir) > 0);
    assert_true(d->space(NULL, "/proc") == 0); /* a file system that counts nothing */
    d->discard(NULL, -1);
}

/* What the disk changed behind our back is not sent. */
static void test_changed_content(void **state) {
    struct seen seen;
    char path[128];
    (void)state;
    struct spool *s = open_spool(&seen);
    put(s, 1, "m", 1000);
    assert_int_equal(put_file(s, 2, 200000), 0);
    assert_int_equal(read_rc(s, 1), 0);
    assert_int_equal(read_rc(s, 2), 0);
    log_file(path, 1);
    overwrite(path, 500, "XXXX", 4);
    assert_int_equal(read_rc(s, 1), -EBADMSG);
    snprintf(path, sizeof path, "%s/body/%016x", dir, 2);
    overwrite(path, 100000, "XXXX", 4);
    assert_int_equal(read_rc(s, 2), -EBADMSG);
    assert_int_equal(truncate(path, 70000), 0);
    assert_int_equal(read_rc(s, 2), -EIO);
    unlink(path);
    assert_int_equal(read_rc(s, 2), -ENOENT);
    spool_close(s);
    s = open_spool(&seen); /* says that the file is missing, and that a record is damaged */
    struct spool_stats st;
    spool_stats(s, &st);
    assert_int_equal(st.damaged, 2);
    spool_close(s);
}

/* Content that was found damaged when it was read back is kept when its message ends: a file of its
 * own, and the segment of a record; what is whole goes. */
static void test_changed_content_is_set_aside(void **state) {
    struct seen seen;
    char path[128];
    (void)state;
    struct spool *s = open_spool(&seen);
    put(s, 0x11, "m", 3000);
    assert_int_equal(put_file(s, 0x12, 90000), 0);
    assert_int_equal(put_file(s, 0x13, 90000), 0);
    assert_int_equal(put_file(s, 0x14, 90000), 0);
    log_file(path, 1);
    overwrite(path, 700, "?", 1);
    snprintf(path, sizeof path, "%s/body/%016x", dir, 0x12);
    overwrite(path, 89999, "?", 1);
    snprintf(path, sizeof path, "%s/body/%016x", dir, 0x14);
    assert_int_equal(truncate(path, 60000), 0);
    assert_int_equal(read_rc(s, 0x11), -EBADMSG);
    assert_int_equal(read_rc(s, 0x12), -EBADMSG);
    assert_int_equal(read_rc(s, 0x13), 0);
    assert_int_equal(read_rc(s, 0x14), -EIO);
    for (uint64_t id = 0x11; id <= 0x14; id++)
        note(s, SPOOL_DONE, id, "");
    for (unsigned id = 0x12; id <= 0x14; id++)
        assert_false(exists("body/%016x", id));
    assert_true(exists("damaged/body-%016x", 0x12));
    assert_false(exists("damaged/body-%016x", 0x13));
    assert_true(exists("damaged/body-%016x", 0x14));
    for (uint64_t id = 0x20; id < 0x50; id++) {
        put(s, id, "m", 50000);
        note(s, SPOOL_DONE, id, "");
    }
    assert_true(exists("damaged/log-%016x", 1));
    assert_false(exists("damaged/log-%016x", 2));
    spool_close(s);
}

/* Files that are not ours, content without a message, content twice. */
static void test_strange_files(void **state) {
    struct seen seen;
    char cmd[400], path[128];
    (void)state;
    struct spool *s = open_spool(&seen);
    put(s, 1, "m", 1000);
    assert_int_equal(put_file(s, 2, 5000), 0);
    spool_close(s);
    snprintf(cmd, sizeof cmd,
             "cd %s && touch log/README log/0123456789abcdefg log/12 log/0123456789ABCDEF "
             "log/0123456789abcdef_0123456789abcdef log/0123456789abcdef-0123456789abcdeg "
             "log/0123456789abcdef-0123456789abcdef0 body/0000000000000009-0000000000000001 "
             "body/%016x body/%016x",
             dir, 1, 77);
    assert_int_equal(system(cmd), 0);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 2);
    assert_int_equal(read_rc(s, 1), 0);
    assert_int_equal(read_rc(s, 2), 0);
    snprintf(path, sizeof path, "%s/body/%016x", dir, 77);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_true(exists("body/0000000000000009-%016x", 1)); /* not one of ours */
    spool_close(s);
}

/* Heads that look like records and cannot be: each is a gap, and what follows is found. */
static void test_implausible_heads(void **state) {
    static const struct rec_head heads[] = {{.type = REC_MESSAGE, .meta_len = REC_META_MAX + 1},
                                            {.type = 0},
                                            {.type = REC_SETTLING + 1},
                                            {.type = REC_MESSAGE, .body_len = 1ULL << 40},
                                            {.type = REC_MESSAGE, .meta_len = 2U << 20},
                                            {.type = REC_MESSAGE, .body_len = (1U << 20) - 1},
                                            {.type = REC_MESSAGE, .body_len = (1U << 20) - 1124},
                                            {.type = REC_BEGIN, .meta_len = 3},
                                            {.type = REC_SETTLE, .meta_len = 3},
                                            {.type = REC_DONE, .id = 1}};
    char path[128];
    (void)state;
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        struct seen seen;
        struct spool *s = open_spool(&seen);
        put(s, 10 * i + 1, "first", 1000);
        put(s, 10 * i + 2, "second", 1000);
        put(s, 10 * i + 3, "third", 1000);
        spool_close(s);
        log_file(path, 1);
        struct rec_head h = heads[i];
        h.mark = rec_mark(strtoull(strrchr(path, '-') + 1, NULL, 16));
        overwrite(path, BEGIN + 1048, &h, sizeof h); /* behind BEGIN and the first one */
        s = open_spool(&seen);
        index_of(&seen, 10 * i + 1);
        index_of(&seen, 10 * i + 3);
        struct spool_stats st;
        spool_stats(s, &st);
        assert_int_equal(st.damaged, 1);
        spool_close(s);
        empty_spool();
    }
}

/* What a file system may give back instead of durable bytes: zeros, or a shorter file. */
static const struct loss {
    unsigned no; /* of the segment, 1 to 4; each has three messages of 14,000 bytes */
    off_t keep;  /* bytes that stay; in the middle of a record or at its end */
    bool cut;    /* the file is shorter; else there are zeros */
    size_t found, damage;
    bool aside; /* there is nothing in it: it goes to damaged/ at once */
} losses[] = {{2, 0, false, 9, 1, true},
              {2, 0, true, 9, 1, true},
              {2, BEGIN, true, 9, 1, false},
              {2, BEGIN + 14048, false, 10, 1, false},
              {3, BEGIN + 28096, true, 11, 1, false},
              {3, 30000, true, 11, 2, false},
              {3, 30000, false, 11, 2, false},
              {1, 0, false, 9, 1, true},
              {1, 40, true, 9, 2, true}};

/* A segment that has lost durable records is reported and kept, wherever the loss begins. */
static void test_lost_ends(void **state) {
    char path[128];
    (void)state;
    for (size_t i = 0; i < sizeof losses / sizeof losses[0]; i++) {
        const struct loss *l = &losses[i];
        struct seen seen;
        struct turn t = {.n = 0};
        struct spool *s = turn_open(&seen);
        for (uint64_t id = 1; id <= 12; id++) {
            turn_new(s, &t, id, 14000, 0, "");
            turns(s, 1);
        }
        turn_note(s, &t, SPOOL_PROGRESS, 12, "says that the twelfth is durable");
        turns(s, 1);
        spool_close(s);
        log_file(path, l->no);
        struct stat st;
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(truncate(path, l->keep), 0);
        if (!l->cut)
            assert_int_equal(truncate(path, st.st_size), 0);
        s = turn_open(&seen);
        print_message("segment %u, %d bytes: %zu found\n", l->no, (int)l->keep, seen.n);
        assert_int_equal(seen.n, l->found);
        assert_int_equal(damage_count(s), l->damage);
        assert_int_equal(exists("damaged/log-%016x", l->no), l->aside);
        for (size_t k = 0; k < seen.n; k++) /* the rest is delivered: the log is emptied */
            turn_note(s, &t, SPOOL_DONE, seen.ids[k], "");
        turn_new(s, &t, 20, 100, 0, "");
        turns(s, 2);
        assert_true(exists("damaged/log-%016x", l->no));
        assert_int_equal(access(path, F_OK), -1);
        spool_close(s);
        empty_spool();
    }
}

static int bad_rename(void *arg, const char *from, const char *to) {
    return strstr(to, "/damaged/") != NULL ? -EXDEV : spool_io_disk.rename(arg, from, to);
}

/* Content in files of its own is kept when the record that names it may be among what is damaged.
 */
static void test_orphans_of_damage(void **state) {
    static const char *const kept[] = {"damaged/body-%016x", "body/%016x-damaged"};
    (void)state;
    for (int i = 0; i < 3; i++) { /* moves to damaged/ work; at the second start; never */
        struct seen seen;
        char path[128];
        io.rename = i > 0 ? bad_rename : spool_io_disk.rename;
        struct spool *s = open_spool(&seen);
        put(s, 1, "before", 700);
        assert_int_equal(put_file(s, 0x2a, 300000), 0);
        put(s, 3, "behind", 700);
        spool_close(s);
        log_file(path, 1);
        overwrite(path, BEGIN + 744 + 41, "?", 1); /* in the envelope of the second */
        s = open_spool(&seen);
        assert_int_equal(seen.n, 2);
        assert_int_equal(damage_count(s), 1);
        assert_int_equal(file_count("body/%016x", 0x2a), i > 0);
        assert_int_equal(file_count(kept[i > 0], 0x2a), 1);
        spool_close(s);
        log_file(path, 1);
        overwrite(path, BEGIN + 744 + 41, "", 1); /* the record is whole again: so is its message */
        io.rename = i > 1 ? bad_rename : spool_io_disk.rename;
        s = open_spool(&seen);
        assert_int_equal(seen.n, 3);
        assert_int_equal(damage_count(s), 0);
        assert_int_equal(read_rc(s, 0x2a), 0);
        spool_close(s);
        empty_spool();
    }
}

/* A durable message stays where the disk has damaged its SETTLE, and so does what it settled: twice
 * is better than not at all.  It is damage, and is told. */
static void test_damaged_settle_of_a_durable_message(void **state) {
    static const char *const settled[] = {"", "partly"};
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct seen seen;
        struct turn t = {.n = 0};
        char path[128];
        struct spool *s = turn_open(&seen);
        turn_new(s, &t, 1, 10, 0, "");
        turns(s, 1);
        size_t at = turn_new(s, &t, 2, i < 2 ? 10 : 20000, 1, settled[i % 2]);
        turns(s, 1);
        turn_new(s, &t, 3, 10, 0, "");
        turns(s, 1); /* says that all before it is durable */
        log_file(path, 1);
        overwrite(path, t.ops[at].settle_at + 20, "????", 4);
        spool_close(s);
        s = turn_open(&seen);
        assert_int_equal(seen.n, 3);
        assert_string_equal(seen.progress[index_of(&seen, 1)], "");
        index_of(&seen, 2);
        assert_int_equal(damage_count(s), 1);
        spool_close(s);
        empty_spool();
    }
}

/* A disk that writes one record over another one of the same length: the copy is valid in itself,
 * and is no record in that place, neither while the spool is open nor at the next start. */
static void test_record_in_another_place(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    char path[128], copy[2000];
    (void)state;
    struct spool *s = turn_open(&seen);
    size_t one = turn_new(s, &t, 31, 1400, 0, ""), two = turn_new(s, &t, 32, 1400, 0, "");
    turn_new(s, &t, 33, 10, 0, "");
    turns(s, 1);
    turn_note(s, &t, SPOOL_PROGRESS, 33, "says that all is durable");
    turns(s, 1);
    log_file(path, 1);
    size_t n = (size_t)(t.ops[two].at - t.ops[one].at);
    int fd = open(path, O_RDONLY);
    assert_int_equal(pread(fd, copy, n, (off_t)t.ops[one].at), n);
    close(fd);
    overwrite(path, t.ops[two].at, copy, n);
    assert_int_equal(spool_start(s), 0);
    assert_int_equal(read_rc(s, 31), 0);
    assert_int_equal(read_rc(s, 32), -EBADMSG);
    spool_close(s);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 2);
    index_of(&seen, 31);
    index_of(&seen, 33);
    assert_int_equal(damage_count(s), 1);
    spool_close(s);
}

/* The C library's readdir, which fails where bad_readdir says so. */
static int bad_readdir; /* the entry that cannot be read; 0: none */
struct dirent *readdir(DIR *d) {
    struct dirent *(*real)(DIR * d) = (struct dirent * (*)(DIR *)) dlsym(RTLD_NEXT, "readdir64");
    if (bad_readdir > 0 && --bad_readdir == 0) {
        errno = EIO;
        return NULL;
    }
    return real(d);
}

/* A directory that cannot be read to its end is not taken for a short one: nothing is deleted. */
static void test_directory_cannot_be_read(void **state) {
    struct seen seen;
    char *why;
    (void)state;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put_file(s, 0x51, 70000), 0);
    spool_close(s);
    struct spool_conf conf = {dir, 1U << 20};
    for (int at = 1; at <= 3; at++) {
        bad_readdir = at;
        assert_int_equal(spool_open(&s, &conf, &io, on_found, &seen, &why), -EIO);
        bad_readdir = 0;
        assert_string_equal(why, "cannot list log/");
        free(why);
        spool_close(s);
        assert_true(exists("body/%016x", 0x51));
    }
    s = open_spool(&seen);
    assert_int_equal(seen.n, 1);
    assert_int_equal(read_rc(s, 0x51), 0);
    spool_close(s);
}

/* The only record is damaged, and nothing says that it was durable: the content is kept. */
static void test_orphans_of_the_last_record(void **state) {
    struct seen seen;
    char path[128];
    (void)state;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put_file(s, 0x61, 70000), 0);
    spool_close(s);
    log_file(path, 1);
    overwrite(path, BEGIN + 41, "?", 1);
    s = open_spool(&seen);
    assert_int_equal(seen.n, 0);
    assert_true(exists("damaged/body-%016x", 0x61));
    spool_close(s);
}

static int renames_left;
static int last_renames(void *arg, const char *from, const char *to) {
    return renames_left-- > 0 ? spool_io_disk.rename(arg, from, to) : -EIO;
}

/* Recovery ends at any step, and begins again: a segment that says that something is missing is
 * not put away before the content that may belong to it is. */
static void test_setting_aside_is_interrupted(void **state) {
    struct seen seen;
    char path[128];
    (void)state;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put_file(s, 0x71, 70000), 0);
    spool_close(s);
    log_file(path, 1);
    assert_int_equal(truncate(path, 0), 0);
    io.rename = last_renames;
    renames_left = 1;
    s = open_spool(&seen);
    spool_close(s);
    io.rename = spool_io_disk.rename;
    s = open_spool(&seen);
    assert_true(exists("damaged/body-%016x", 0x71));
    assert_true(exists("damaged/log-%016x", 1));
    spool_close(s);
}

/* What was set aside is never replaced by what is set aside later, though segments are numbered
 * from 1 again when somebody has emptied the log, and what knows of its newest segment. */
static void test_set_aside_twice(void **state) {
    char path[128];
    (void)state;
    for (size_t round = 1; round <= 2; round++) {
        struct seen seen;
        struct spool *s = open_spool(&seen);
        put(s, 1, "first", 700);
        put(s, 2, "second", 700);
        put(s, 3, "third", 700);
        spool_close(s);
        log_file(path, 1);
        overwrite(path, BEGIN + 748 + 50, "?", 1);
        s = open_spool(&seen);
        assert_int_equal(damage_count(s), 1);
        assert_int_equal(file_count("damaged/%016x", 1), round);
        note(s, SPOOL_DONE, 1, "");
        note(s, SPOOL_DONE, 3, "");
        spool_close(s);
        assert_int_equal(file_count("damaged/log-%016x", 1), round);
        s = open_spool(&seen);
        spool_flush(s);
        spool_close(s);
        assert_int_equal(file_count("log/%016x", 1), 0);
        log_file(path, 2); /* which says what the largest ID was */
        unlink(path);
        snprintf(path, sizeof path, "%s/lock", dir);
        unlink(path);
    }
}

/* What cannot be moved stays where it is, under a name by which no start takes it for a part of the
 * log, and keeps no newer file of the log; a start that can moves it. */
static void test_set_aside_fails(void **state) {
    struct seen seen;
    struct turn t = {0};
    char path[128];
    (void)state;
    io.rename = bad_rename;
    struct spool *s = open_spool(&seen);
    put(s, 1, "before", 700);
    assert_int_equal(put_file(s, 2, 300000), 0);
    put(s, 3, "behind", 700);
    spool_close(s);
    log_file(path, 1);
    overwrite(path, BEGIN + 744 + 41, "?", 1);
    s = turn_open(&seen);
    assert_int_equal(s->st.damaged, 1);
    turn_note(s, &t, SPOOL_DONE, 1, "");
    turn_note(s, &t, SPOOL_DONE, 3, "");
    for (uint64_t id = 11; id < 20; id++)
        turn_come_and_go(s, &t, id);
    assert_true(s->st.segments <= 2);
    spool_close(s);
    assert_int_equal(file_count("body/%016x-damaged", 2), 1);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(file_count("log/%016x", 1), 1);
    for (int start = 0; start < 2; start++) {
        io.rename = start == 0 ? bad_rename : spool_io_disk.rename;
        s = turn_open(&seen);
        assert_int_equal(seen.n, 0);
        assert_int_equal(s->st.damaged, 0);
        spool_close(s);
        assert_int_equal(file_count("log/%016x", 1), start == 0);
        assert_int_equal(file_count("damaged/log-%016x", 1), start);
        assert_int_equal(file_count("damaged/body-%016x", 2), start);
    }
}

/* ---- content that looks like records ---- */

/* The used bytes of a segment file. */
static void read_segment(const char *path, size_t n, struct sbuf *out) {
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(read(fd, sbuf_room(out, n), n), n);
    sbuf_advance(out, n);
    close(fd);
}

/* One record as it was before there were salts. */
static void old_record(struct sbuf *out, uint64_t no, uint32_t type, uint64_t id, struct str meta,
                       struct str body, uint64_t body_len) {
    uint32_t head[10] = {0x32524850U, 0, crc32c(0, body.p, body.n), (uint32_t)meta.n};
    memcpy(&head[4], &id, sizeof id);
    memcpy(&head[6], &body_len, sizeof body_len);
    head[8] = type;
    head[9] = (uint32_t)out->n / 8; /* all before it is durable */
    head[1] = crc32c(crc32c(crc32c(0, &no, sizeof no), &head[2], 32), meta.p, meta.n);
    sbuf_add(out, head, sizeof head);
    sbuf_add_str(out, meta);
    sbuf_add_str(out, body);
    sbuf_add(out, "\0\0\0\0\0\0\0", (8 - out->n % 8) % 8);
}

/* What an attacker can know: what a spool of his own writes for the end of message 5 and for a
 * message of his choice, and how it was written before there were salts. */
static void forged_records(bool old, struct sbuf *out) {
    char mine[64], theirs[64], path[128];
    struct seen seen;
    if (old) {
        old_record(out, 1, 3, 5, STR_NONE, STR_NONE, 0);
        old_record(out, 1, 1, 4711, STR_LIT("forged"), STR_LIT("content"), 7);
        return;
    }
    strcpy(theirs, dir);
    snprintf(mine, sizeof mine, "%.50s/mine", theirs);
    assert_int_equal(mkdir(mine, 0700), 0);
    strcpy(dir, mine);
    struct spool *s = open_spool(&seen);
    put(s, 5, "mine", 100);
    note(s, SPOOL_DONE, 5, "");
    put(s, 4711, "forged", 100);
    uint64_t used = s->head->used;
    spool_close(s);
    log_file(path, 1);
    read_segment(path, (size_t)used, out);
    snprintf(path, sizeof path, "rm -r %s", mine);
    assert_int_equal(system(path), 0);
    strcpy(dir, theirs);
}

/* Content that holds records, in every alignment, behind a record that is damaged: none is
 * believed. damage: the head is torn off, or a bit of the envelope is wrong. */
static void test_records_in_content(void **state) {
    char path[128];
    (void)state;
    for (int round = 0; round < 4; round++) {
        struct seen seen;
        struct sbuf forged = {0};
        forged_records(round % 2 == 0, &forged);
        struct spool *s = open_spool(&seen);
        put(s, 5, "victim", 900);
        struct waiter w = {.op = {.kind = SPOOL_NEW, .id = 6}};
        struct sbuf body = {0};
        for (int shift = 0; shift < 8; shift++) {
            sbuf_add(&body, "12345678", (size_t)(8 - body.n % 8 + (size_t)shift) % 8);
            sbuf_add_str(&body, sbuf_str(&forged));
        }
        sbuf_add_c(&w.op.meta, "carrier!");
        w.op.body = body_from_buf(&body);
        assert_int_equal(run(s, &w), 0);
        uint64_t at = w.op.at;
        body_unref(w.op.body);
        sbuf_free(&w.op.meta);
        put(s, 7, "behind", 900);
        spool_close(s);
        log_file(path, 1);
        char zeros[sizeof(struct rec_head)] = {0};
        if (round < 2)
            overwrite(path, at, zeros, sizeof zeros);
        else
            overwrite(path, at + sizeof zeros, "C", 1);
        s = open_spool(&seen);
        assert_int_equal(seen.n, 2);
        index_of(&seen, 5);
        index_of(&seen, 7);
        assert_int_equal(damage_count(s), 1);
        spool_close(s);
        sbuf_free(&forged);
        empty_spool();
    }
}

/* Content full of heads that claim to be as long as can be does not make reading slow: only what
 * has the segment's mark is summed.  Counted, not timed: each byte is read a few times at most. */
static uint64_t read_bytes;
static ssize_t counting_read(void *arg, int fd, void *buf, size_t n, uint64_t off) {
    read_bytes += n;
    return spool_io_disk.pread(arg, fd, buf, n, off);
}

static void test_gap_of_heads(void **state) {
    struct seen seen;
    char path[128];
    struct rec_head h = {.mark = REC_MARK_OLD, .type = REC_MESSAGE, .meta_len = 700000};
    (void)state;
    struct spool *s = open_spool(&seen);
    put(s, 1, "first", 600);
    put(s, 2, "second", 200000);
    put(s, 3, "third", 600);
    spool_close(s);
    log_file(path, 1);
    for (uint64_t at = 1000; at < 150000; at += sizeof h)
        overwrite(path, at, &h, sizeof h);
    io.pread = counting_read;
    read_bytes = 0;
    s = open_spool(&seen);
    assert_int_equal(seen.n, 2);
    assert_true(read_bytes < 8U << 20);
    spool_close(s);
}

static void write_file(const char *name, const struct sbuf *content, off_t size) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(write(fd, content->p, content->n), content->n);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

/* A spool as versions before the salt have left it. */
static void make_old_spool(void) {
    static const char *const subs[] = {"log", "body"};
    struct sbuf one = {0}, two = {0}, file = {0};
    uint64_t begin[2] = {0, 0};
    char path[128];
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, subs[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    old_record(&one, 1, 5, 0, str_make((char *)begin, 16), STR_NONE, 0);
    old_record(&one, 1, 1, 11, STR_LIT("eleven"), STR_LIT("kkk"), 3);
    old_record(&one, 1, 1, 12, STR_LIT("twelve"), STR_LIT("lllll"), 5);
    old_record(&one, 1, 2, 11, STR_LIT("tried once"), STR_NONE, 0);
    begin[0] = 1;
    begin[1] = one.n;
    sbuf_add_c(&file, "content in a file");
    old_record(&two, 2, 5, 0, str_make((char *)begin, 16), STR_NONE, 0);
    old_record(&two, 2, 3, 12, STR_NONE, STR_NONE, 0);
    old_record(&two, 2, 1, 13, STR_LIT("thirteen"), STR_LIT("mmmmmmm"), 7);
    old_record(&two, 2, 1, 14, STR_LIT("fourteen"), sbuf_str(&file), file.n | 1ULL << 63);
    two.n -= (file.n + 7) & ~7ULL; /* what the file has is not in the record */
    write_file("log/0000000000000001", &one, 1 << 20);
    write_file("log/0000000000000002", &two, 1 << 20);
    write_file("body/000000000000000e", &file, (off_t)file.n);
    sbuf_free(&one);
    sbuf_free(&two);
    sbuf_free(&file);
}

static void test_spool_without_salt(void **state) {
    struct seen seen;
    char path[128];
    (void)state;
    make_old_spool();
    struct spool *s = open_spool(&seen);
    assert_int_equal(damage_count(s), 0);
    assert_int_equal(seen.n, 3);
    assert_string_equal(seen.meta[index_of(&seen, 13)], "thirteen");
    assert_string_equal(seen.progress[index_of(&seen, 11)], "tried once");
    assert_int_equal(read_rc(s, 11), 0);
    assert_int_equal(read_rc(s, 14), 0);
    put(s, 15, "new", 1000); /* and what is still queued is copied to where it is */
    note(s, SPOOL_DONE, 13, "");
    note(s, SPOOL_PROGRESS, 14, "tried");
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(damage_count(s), 0);
    assert_int_equal(seen.n, 3);
    assert_string_equal(seen.progress[index_of(&seen, 11)], "tried once");
    assert_string_equal(seen.progress[index_of(&seen, 14)], "tried");
    assert_int_equal(read_rc(s, 14), 0);
    for (size_t i = 0; i < 3; i++)
        note(s, SPOOL_DONE, seen.ids[i], "");
    put(s, 16, "last", 1000);
    note(s, SPOOL_DONE, 1, "");
    snprintf(path, sizeof path, "%s/log/0000000000000002", dir);
    assert_int_equal(access(path, F_OK), -1); /* nothing is left in it */
    spool_close(s);
}

/* On a full disk even such a segment is written to, in its own form. */
static void test_full_without_salt(void **state) {
    struct seen seen;
    (void)state;
    make_old_spool();
    io.allocate = no_room;
    allocate_rc = -ENOSPC;
    struct spool *s = open_spool(&seen);
    note(s, SPOOL_DONE, 11, "");
    spool_close(s);
    allocate_rc = 0;
    s = open_spool(&seen);
    assert_int_equal(seen.n, 2);
    assert_int_equal(damage_count(s), 0);
    spool_close(s);
}

static int bad_random(void *arg, void *buf, size_t n) {
    (void)arg;
    (void)buf;
    (void)n;
    return -ENOSYS;
}

/* Without chance there is no segment. */
static void test_no_random(void **state) {
    struct seen seen;
    (void)state;
    io.random = bad_random;
    struct spool *s = open_spool(&seen);
    assert_int_equal(put(s, 1, "refused", 100), -ENOSYS);
    io.random = spool_io_disk.random;
    spool_close(s);
    s = open_spool(&seen);
    assert_int_equal(put(s, 1, "taken", 100), 0);
    spool_close(s);
}

/* A segment in the middle that is not there is damage; one that is older than all others was
 * removed in its time. */
static void test_missing_segment(void **state) {
    struct seen seen;
    struct turn t = {.n = 0};
    char path[128];
    (void)state;
    struct spool *s = turn_open(&seen);
    for (uint64_t id = 1; id <= 12; id++) {
        turn_new(s, &t, id, 14000, 0, "");
        turns(s, 1);
    }
    spool_close(s);
    log_file(path, 1);
    unlink(path);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 9);
    assert_int_equal(damage_count(s), 1);
    spool_close(s);
    log_file(path, 3);
    unlink(path);
    s = turn_open(&seen);
    assert_int_equal(seen.n, 6);
    assert_int_equal(damage_count(s), 2);
    spool_close(s);
}

/* A file that no spool can have made stops the start with its name. */
static void test_impossible_segment(void **state) {
    static const struct {
        const char *name;
        off_t size;
    } files[] = {{"ffffffffffffffff", 1000}, {"0000000000000001-00000000000000aa", 40LL << 30}};
    char cmd[200], *why;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct spool *s;
        struct seen seen;
        s = open_spool(&seen);
        spool_close(s);
        snprintf(cmd, sizeof cmd, "truncate -s %lld %s/log/%s", (long long)files[i].size, dir,
                 files[i].name);
        assert_int_equal(system(cmd), 0);
        struct spool_conf conf = {dir, 1U << 20};
        assert_int_equal(spool_open(&s, &conf, &io, on_found, &seen, &why), -EFBIG);
        assert_non_null(strstr(why, files[i].name));
        free(why);
        spool_close(s);
        snprintf(cmd, sizeof cmd, "rm %s/log/*", dir);
        assert_int_equal(system(cmd), 0);
    }
}

/* Looking at the spool of a daemon that is down changes nothing, whatever a start would mend; one
 * that is in use is not looked at. */
static void test_only_looked_at(void **state) {
    struct spool_conf conf = {dir, 64U << 10};
    struct seen seen;
    struct spool *s, *look;
    struct turn t = {0};
    struct sbuf cmd = {0};
    char *why, path[128];
    (void)state;
    s = open_spool(&seen);
    put(s, 1, "one", 1000);
    put(s, 2, "two", 1000);
    assert_int_equal(put_file(s, 3, 300000), 0);
    assert_int_equal(spool_open(&look, &conf, &spool_io_look, on_found, &seen, &why), -EAGAIN);
    free(why);
    spool_close(look);
    spool_close(s);
    log_file(path, 1);
    overwrite(path, BEGIN + 60, "?", 1);
    snprintf(path, sizeof path, "%s/body/%016x", dir, 0x77); /* of no message */
    close(open(path, O_WRONLY | O_CREAT, 0600));
    sbuf_printf(&cmd, "cd %s && rm -rf ../was-%s && cp -rp . ../was-%s", dir, dir + 5, dir + 5);
    assert_int_equal(system(cmd.p), 0);
    seen = (struct seen){0};
    assert_int_equal(spool_open(&s, &conf, &spool_io_look, on_found, &seen, &why), 0);
    assert_int_equal(seen.n, 2);
    size_t noted = turn_note(s, &t, SPOOL_DONE, 2, "");
    turn_new(s, &t, 9, 100, 0, "");
    spool_turn(s);
    assert_int_equal(t.told[noted], 0);
    spool_close(s);
    sbuf_reset(&cmd);
    sbuf_printf(&cmd, "cd %s && diff -r . ../was-%s && rm -r ../was-%s", dir, dir + 5, dir + 5);
    assert_int_equal(system(cmd.p), 0);
    sbuf_free(&cmd);
    assert_int_equal(spool_io_look.list(NULL, "/nowhere/at/all", nothing, NULL), 0);
}

/* A copy of the spool as it would be found after a power cut at that moment: when what ends a
 * message has just become durable. */
static bool cut_armed;
static int cut_after_sync(void *arg, int fd) {
    int rc = spool_io_disk.datasync(arg, fd);
    struct sbuf cmd = {0};
    if (cut_armed) {
        cut_armed = false;
        sbuf_printf(&cmd, "cd %s && rm -rf cut && mkdir cut && cp -r log body damaged cut", dir);
        assert_int_equal(system(cmd.p), 0);
    }
    sbuf_free(&cmd);
    return rc;
}

static void test_power_cut_behind_the_end_of_what_is_damaged(void **state) {
    static const uint64_t ended[] = {0x21, 0x22};
    struct seen seen;
    char path[128];
    (void)state;
    io.datasync = cut_after_sync;
    for (size_t i = 0; i < 2; i++) {
        struct spool *s = open_spool(&seen);
        assert_int_equal(put_file(s, ended[i], 70000), 0);
        snprintf(path, sizeof path, "%s/body/%016x", dir, (unsigned)ended[i]);
        overwrite(path, 1234, "?", 1);
        assert_int_equal(read_rc(s, ended[i]), -EBADMSG);
        cut_armed = true;
        if (i == 0) {
            note(s, SPOOL_DONE, ended[i], "");
        } else { /* by a report that settles it */
            struct waiter w = {.op = {.kind = SPOOL_NEW, .id = 0x29, .settles = ended[i]}};
            struct sbuf body = {0};
            sbuf_add_c(&body, "report");
            sbuf_add_c(&w.op.meta, "report");
            w.op.body = body_from_buf(&body);
            assert_int_equal(run(s, &w), 0);
            body_unref(w.op.body);
            sbuf_free(&w.op.meta);
        }
        assert_false(cut_armed);
        spool_close(s);
        assert_true(exists("damaged/body-%016x", (unsigned)ended[i]));
        strcat(dir, "/cut");
        s = open_spool(&seen);
        bool there = exists("damaged/body-%016x", (unsigned)ended[i]) ||
                     exists("body/%016x", (unsigned)ended[i]);
        spool_close(s);
        dir[strlen(dir) - 4] = '\0';
        assert_true(there);
    }
}

/* An unfinished write may be damage to the last record: when it cannot be copied to damaged/, or
 * the copy is not durable, its file goes there. */
static void test_unfinished_write_is_kept(void **state) {
    struct seen seen;
    char path[128];
    (void)state;
    io.datasync = flaky_sync;
    io.pwritev = flaky_write;
    for (unsigned no = 1; no <= 5; no += 2) {
        struct spool *s = open_spool(&seen);
        assert_int_equal(put(s, no, "m", 1000), 0);
        spool_close(s);
        log_file(path, no);
        overwrite(path, (uint64_t)BEGIN + 200, "XXXX", 4);
        fail_write = no == 1;
        fail_sync = no == 3;
        s = open_spool(&seen);
        assert_int_equal(seen.n, 0);
        assert_int_equal(put(s, no + 1, "m", 1000), 0);
        note(s, SPOOL_DONE, no + 1, "");
        spool_close(s);
        assert_false(exists("log/%016x", no));
        assert_int_equal(exists("damaged/log-%016x", no), no < 5);
        s = open_spool(&seen);
        spool_close(s);
    }
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, dir_remove)
    const struct CMUnitTest tests[] = {
        T(test_damage),
        T(test_disk_errors),
        T(test_changed_content),
        T(test_changed_content_is_set_aside),
        T(test_strange_files),
        T(test_implausible_heads),
        T(test_missing_segment),
        T(test_impossible_segment),
        T(test_records_in_content),
        T(test_gap_of_heads),
        T(test_spool_without_salt),
        T(test_full_without_salt),
        T(test_no_random),
        T(test_lost_ends),
        T(test_orphans_of_damage),
        T(test_set_aside_fails),
        T(test_damaged_settle_of_a_durable_message),
        T(test_record_in_another_place),
        T(test_directory_cannot_be_read),
        T(test_orphans_of_the_last_record),
        T(test_setting_aside_is_interrupted),
        T(test_set_aside_twice),
        T(test_only_looked_at),
        T(test_power_cut_behind_the_end_of_what_is_damaged),
        T(test_unfinished_write_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
