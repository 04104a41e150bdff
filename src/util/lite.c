/*
 * util/lite.c - opening an SQLite file of our own; see lite.h
 */
#include "util/lite.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/fs.h"

#define LITE_VFS "posthouse" /* SQLite's usual way to files, with our own way to open one */

static sqlite3_vfs lite_vfs;
static int (*lite_usual_open)(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                              int *out);

/* The journal of a change of several files names another file: SQLite removes that one, wherever it
 * is, when it takes such a change back.  Ours are changed one by one, and a user that may write a
 * journal here must not make root remove files with it. */
static int lite_vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                         int *out) {
    file->pMethods = NULL;
    if ((flags & SQLITE_OPEN_SUPER_JOURNAL) != 0)
        return SQLITE_CANTOPEN;
    return lite_usual_open(vfs, name, file, flags, out);
}

static void lite_vfs_make(void) {
    const sqlite3_vfs *usual = sqlite3_vfs_find(NULL);
    if (usual == NULL)
        return;
    lite_vfs = *usual;
    lite_usual_open = usual->xOpen;
    lite_vfs.zName = LITE_VFS;
    lite_vfs.xOpen = lite_vfs_open;
    sqlite3_vfs_register(&lite_vfs, 0);
}

/* The file, and those that SQLite has beside it: none, or a regular file of one name. */
static bool lite_names_are_own(const char *path) {
    static const char *const ends[] = {"", "-journal", "-wal", "-shm"};
    bool own = true;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0] && own; i++) {
        struct sbuf name = {0};
        sbuf_printf(&name, "%s%s", path, ends[i]);
        int rc = fs_only_name(name.p);
        own = rc == 0 || rc == -ENOENT;
        sbuf_free(&name);
    }
    return own;
}

void lite_sort_in_memory(sqlite3 *db) {
    sqlite3_exec(db, "PRAGMA temp_store = MEMORY", NULL, NULL, NULL);
}

int lite_open(const char *path, sqlite3 **db, int flags) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct sbuf full = {0};
    char real[PATH_MAX];
    char *folder = fs_folder(str_of(path));
    const char *slash = strrchr(path, '/');
    int rc = SQLITE_CANTOPEN;
    *db = NULL;
    pthread_once(&once, lite_vfs_make);
    if (lite_names_are_own(path) && realpath(folder, real) != NULL) {
        sbuf_printf(&full, "%s/%s", real, slash == NULL ? path : slash + 1);
        rc = sqlite3_open_v2(full.p, db, flags | SQLITE_OPEN_NOFOLLOW, LITE_VFS);
    }
    if (rc == SQLITE_OK)
        lite_sort_in_memory(*db);
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
