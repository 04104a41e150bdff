/*
 * maps/newfile.c - see newfile.h
 *
 * "PATH.tmp.PROCESS".
 */
#include "maps/newfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "util/fs.h"

#define MARK ".tmp."

/* Is name the new file, for the table of that base name, of this process or of one that is gone? */
static bool newfile_is_idle(struct str name, struct str base) {
    uint64_t pid;
    if (name.n < base.n || !str_eq(str_make(name.p, base.n), base))
        return false;
    struct str rest = str_from(name, base.n);
    if (!str_istarts(rest, MARK) || !str_u64(str_from(rest, sizeof MARK - 1), &pid) || pid == 0 ||
        pid > INT32_MAX)
        return false;
    return (pid_t)pid == getpid() || (kill((pid_t)pid, 0) < 0 && errno == ESRCH);
}

void newfile_name(const char *path, struct sbuf *out) {
    struct str whole = str_of(path);
    char *folder = fs_folder(whole);
    struct str base = str_from(whole, (size_t)(str_rchr(whole, '/') + 1));
    DIR *dir = opendir(folder);
    const struct dirent *e;
    while (dir != NULL && (e = readdir(dir)) != NULL)
        if (newfile_is_idle(str_of(e->d_name), base))
            unlinkat(dirfd(dir), e->d_name, 0);
    if (dir != NULL)
        closedir(dir);
    free(folder);
    sbuf_printf(out, "%s" MARK "%d", path, getpid());
}
