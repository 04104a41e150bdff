/*
 * cli/switch.c - sendmail(1) of the machine; see switch.h
 */
#include "cli/switch.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/front.h"
#include "util/fs.h"
#include "util/str.h"

#define DPKG_MS 60000

static bool switch_is_done(const char *path, const char *program) {
    char to[4096];
    ssize_t n = readlink(path, to, sizeof to);
    return n > 0 && str_eq_c(str_make(to, (size_t)n), program);
}

/* Is the file one of a package? */
static bool switch_is_packaged(const char *path) {
    char *const owner[] = {(char *)(uintptr_t) "dpkg-query", (char *)(uintptr_t) "-S",
                           (char *)(uintptr_t)path, NULL};
    return access("/usr/bin/dpkg-divert", X_OK) == 0 && front_run(owner, DPKG_MS, true) == 0;
}

/* If path is a file of a package, dpkg-divert is given word for it; try: it changes nothing, and
 * its status tells whether it could. */
static int switch_divert(const char *path, const char *kept, const char *word, bool try) {
    char *const divert[] = {(char *)(uintptr_t) "dpkg-divert",
                            (char *)(uintptr_t)(try ? "--test" : "--quiet"),
                            (char *)(uintptr_t) "--local",
                            (char *)(uintptr_t) "--no-rename",
                            (char *)(uintptr_t) "--divert",
                            (char *)(uintptr_t)kept,
                            (char *)(uintptr_t)word,
                            (char *)(uintptr_t)path,
                            NULL};
    return !switch_is_packaged(path) || front_run(divert, DPKG_MS, true) == 0 ? 0 : -EIO;
}

static bool switch_same_file(const char *path, const char *kept) {
    struct stat a, b;
    return lstat(path, &a) == 0 && lstat(kept, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* The file gets a second name, unless a run that was killed has given it. */
static int switch_keep(const char *path, const char *kept) {
    if (link(path, kept) == 0)
        return fs_sync_dir(kept);
    int rc = -errno;
    return rc == -EEXIST && switch_same_file(path, kept) ? 0 : rc;
}

static int switch_link(const char *path, const char *program) {
    struct sbuf next = {0};
    sbuf_printf(&next, "%s.posthouse", path);
    unlink(next.p);
    int rc = symlink(program, next.p) < 0 || rename(next.p, path) < 0 ? -errno : fs_sync_dir(path);
    sbuf_free(&next);
    return rc;
}

const char *switch_why_not(const char *path, const char *program) {
    struct sbuf kept = {0};
    struct stat st;
    const char *why = NULL;
    if (switch_is_done(path, program))
        return NULL;
    sbuf_printf(&kept, "%s.postfix", path);
    if (lstat(kept.p, &st) == 0 && !switch_same_file(path, kept.p))
        why = "beside it, what would be its other name (….postfix) is another file already";
    else if (switch_divert(path, kept.p, "--add", true) < 0)
        why = "dpkg has another diversion of it (dpkg-divert --list)";
    sbuf_free(&kept);
    return why;
}

int switch_to(const char *path, const char *program) {
    struct sbuf kept = {0};
    sbuf_printf(&kept, "%s.postfix", path);
    int rc = switch_is_done(path, program) ? 1 : switch_divert(path, kept.p, "--add", false);
    if (rc == 0)
        rc = switch_keep(path, kept.p);
    if (rc == 0)
        rc = switch_link(path, program);
    sbuf_free(&kept);
    return rc < 0 ? rc : 0;
}

int switch_back(const char *path, const char *program) {
    struct sbuf kept = {0};
    sbuf_printf(&kept, "%s.postfix", path);
    int rc = 0;
    if (switch_is_done(path, program))
        rc = rename(kept.p, path) < 0 ? -errno : fs_sync_dir(path);
    else if (switch_same_file(path, kept.p)) /* a run was killed before it made the link */
        rc = unlink(kept.p) < 0 ? -errno : 0;
    /* An administrator may have made another diversion meanwhile. */
    if (rc == 0 && switch_divert(path, kept.p, "--remove", false) < 0)
        fprintf(stderr, "posthouse: warning: %s: its diversion stays (dpkg-divert --list)\n", path);
    sbuf_free(&kept);
    return rc;
}
