/*
 * util/lite.c - opening an SQLite file of our own; see lite.h
 */
#include "util/lite.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

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
