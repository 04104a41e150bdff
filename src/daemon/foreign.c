/*
 * daemon/foreign.c - see foreign.h; reads names alone, on the thread of the caller
 */
#include "daemon/foreign.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "util/str.h"

/* Postfix's folders of mail that is not delivered, and how deep hash_queue_depth may make them. */
static const char *const foreign_folders[] = {"maildrop", "incoming", "active", "deferred", "hold"};
#define FOREIGN_DEPTH 4

/* Counts the files below path; false: it cannot be read. */
static bool foreign_count(const char *path, int depth, size_t *n) {
    DIR *dir = opendir(path);
    bool read = dir != NULL || errno == ENOENT;
    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        struct sbuf below = {0};
        if (e->d_name[0] == '.')
            continue;
        sbuf_printf(&below, "%s/%s", path, e->d_name);
        struct stat st;
        if (e->d_type == DT_UNKNOWN && lstat(below.p, &st) == 0 && S_ISDIR(st.st_mode))
            e->d_type = DT_DIR;
        if (e->d_type != DT_DIR)
            (*n)++;
        else if (depth > 0)
            read = foreign_count(below.p, depth - 1, n) && read;
        sbuf_free(&below);
    }
    if (dir != NULL)
        closedir(dir);
    return read;
}

void foreign_check(const struct config *cfg, struct diags *d) {
    size_t n = 0;
    bool read = true;
    if (cfg->foreign_queue == NULL)
        return;
    for (size_t i = 0; i < sizeof foreign_folders / sizeof foreign_folders[0]; i++) {
        struct sbuf path = {0};
        sbuf_printf(&path, "%s/%s", cfg->foreign_queue, foreign_folders[i]);
        read = foreign_count(path.p, FOREIGN_DEPTH, &n) && read;
        sbuf_free(&path);
    }
    if (n > 0)
        diag_add(
            d, DIAG_WARN, cfg->foreign_queue, 0,
            "Postfix's queue holds %zu message%s, which Posthouse does not deliver: take them over "
            "(posthouse import, while both are stopped), or let Postfix send them",
            n, n == 1 ? "" : "s");
    else if (!read)
        diag_add(d, DIAG_WARN, cfg->foreign_queue, 0,
                 "Postfix's queue cannot be read: run this as root to see whether it holds mail");
}
