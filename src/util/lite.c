/*
 * util/lite.c - opening an SQLite file of our own; see lite.h
 */
#include "util/lite.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/fs.h"

int lite_open(const char *path, sqlite3 **db, int flags) {
    struct sbuf full = {0};
    char real[PATH_MAX];
    char *folder = fs_folder(str_of(path));
    const char *slash = strrchr(path, '/');
    int own = fs_only_name(path);
    int rc = SQLITE_CANTOPEN;
    *db = NULL;
    if ((own == 0 || own == -ENOENT) && realpath(folder, real) != NULL) {
        sbuf_printf(&full, "%s/%s", real, slash == NULL ? path : slash + 1);
        rc = sqlite3_open_v2(full.p, db, flags | SQLITE_OPEN_NOFOLLOW, NULL);
    }
    free(folder);
    sbuf_free(&full);
    return rc;
}

/* SQLite keeps what a transaction has overwritten beside the file until the transaction is over. */
static bool lite_has_journal(const char *path) {
    struct sbuf journal = {0};
    sbuf_printf(&journal, "%s-journal", path);
    bool there = access(journal.p, F_OK) == 0;
    sbuf_free(&journal);
    return there;
}

void lite_take_back(const char *path) {
    struct stat st;
    sqlite3 *db;
    uid_t self = geteuid();
    if (!lite_has_journal(path) || stat(path, &st) < 0 || seteuid(st.st_uid) < 0)
        return;
    if (lite_open(path, &db, SQLITE_OPEN_READWRITE) == SQLITE_OK)
        sqlite3_exec(db, "SELECT count(*) FROM sqlite_master", NULL, NULL, NULL);
    sqlite3_close(db);
    if (seteuid(self) < 0)
        abort();
}
