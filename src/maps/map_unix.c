/*
 * maps/map_unix.c - the tables unix:passwd.byname and unix:group.byname: this system's users and
 * groups
 *
 * The files in /etc are read for each question: they may change at any time, and few ask.  Other
 * sources of names (nsswitch.conf(5)) would need libraries and sockets that the lookup process is
 * kept from.  A file that cannot be read is an error of the question.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "maps/map.h"

static const char *unix_file(const struct map *m) {
    return strcmp(m->name, "passwd.byname") == 0  ? "/etc/passwd"
           : strcmp(m->name, "group.byname") == 0 ? "/etc/group"
                                                  : NULL;
}

static int unix_open(struct map *m) {
    if (unix_file(m) != NULL)
        return 0;
    map_set_error(m, "unknown table: there are unix:passwd.byname and unix:group.byname");
    return -EINVAL;
}

/* Calls fn for each line with a name, until it returns non-zero, which is returned; negative errno:
 * the file cannot be read. */
static int unix_each(struct map *m, map_row_fn fn, void *arg) {
    FILE *f = fopen(unix_file(m), "re");
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    int rc = 0;
    if (f == NULL)
        return -errno;
    while (rc == 0 && (n = getline(&line, &room, f)) > 0) {
        struct str row = str_trim(str_make(line, (size_t)n));
        ptrdiff_t end = str_chr(row, ':');
        if (end > 0)
            rc = fn(arg, str_make(row.p, (size_t)end), row);
    }
    if (rc == 0 && ferror(f))
        rc = -EIO;
    free(line);
    fclose(f);
    return rc;
}

struct unix_wanted {
    struct str key;
    struct sbuf *value;
};

static int unix_row(void *arg, struct str key, struct str value) {
    struct unix_wanted *w = arg;
    if (!str_eq(key, w->key))
        return 0;
    sbuf_add_str(w->value, value);
    return 1;
}

static enum map_rc unix_get(struct map *m, struct str key, struct sbuf *value) {
    struct unix_wanted w = {key, value};
    int rc = unix_each(m, unix_row, &w);
    if (rc < 0)
        map_set_error(m, "%s: %s", unix_file(m), strerror(-rc));
    return rc < 0 ? MAP_ERROR : rc > 0 ? MAP_FOUND : MAP_NOT_FOUND;
}

const struct map_ops map_unix = {
    .type = "unix", .fixed = true, .open = unix_open, .get = unix_get, .each = unix_each};
