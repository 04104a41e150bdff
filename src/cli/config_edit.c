/*
 * cli/config_edit.c - postconf -e, -X and -#: lines of main.cf changed in place
 *
 * One thread.  Comments, empty lines and all lines of other parameters stay as they are.  The new
 * file is written beside main.cf, with its owner and mode, and renamed over it: a reader, and a
 * crash, find the old one or the new one whole.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/config_edit.h"
#include "config/secret.h"
#include "util/fs.h"
#include "util/mem.h"

#define MAIN_CF_MAX (8U << 20)

/* One change that was asked for. */
struct edit {
    struct str name;
    struct str value; /* with -e alone */
    bool found;
};

struct edit_run {
    char kind; /* 'e', 'X' or '#' */
    char *path;
    struct edit *edits;
    size_t n;
    struct sbuf out;
};

static int lines_fatal(const char *text, const char *what) {
    struct sbuf shown = {0};
    if (what != NULL) {
        sbuf_add_c(&shown, ": \"");
        secret_quote(str_of(what), &shown);
        sbuf_add_c(&shown, "\"");
    }
    fprintf(stderr, "postconf: fatal: %s%.*s\n", text, STR_FMT(sbuf_str(&shown)));
    sbuf_free(&shown);
    return 1;
}

static bool is_name(struct str name) {
    for (size_t i = 0; i < name.n; i++)
        if (strchr(" \t\r\n=#$", name.p[i]) != NULL)
            return false;
    return name.n > 0;
}

/* "name = value", or of -X and -# a name alone. */
static int lines_parse(struct edit_run *run, const char *text) {
    struct edit *e = &run->edits[run->n];
    const char *equals = strchr(text, '=');
    if (strpbrk(text, "\r\n") != NULL)
        return lines_fatal("-e, -X, or -# accepts no multi-line input", NULL);
    if (run->kind != 'e' && equals != NULL)
        return lines_fatal("-X or -# requires names without value", text);
    if (run->kind == 'e' && equals == NULL)
        return lines_fatal("missing '=' after attribute name", text);
    e->name = str_trim(equals == NULL ? str_of(text) : str_make(text, (size_t)(equals - text)));
    e->value = equals == NULL ? STR_NONE : str_trim(str_of(equals + 1));
    if (e->name.n == 0)
        return lines_fatal("missing attribute name", text);
    if (!is_name(e->name))
        return lines_fatal("missing '=' after attribute name", text);
    for (size_t i = 0; i < run->n; i++)
        if (str_eq(run->edits[i].name, e->name)) { /* the last one counts */
            run->edits[i].value = e->value;
            return 0;
        }
    run->n++;
    return 0;
}

static struct edit *lines_of(const struct edit_run *run, struct str line) {
    size_t n = 0;
    while (n < line.n && line.p[n] != '=' && line.p[n] != ' ' && line.p[n] != '\t')
        n++;
    for (size_t i = 0; i < run->n; i++)
        if (str_eq(run->edits[i].name, str_make(line.p, n)))
            return &run->edits[i];
    return NULL;
}

static void lines_write(struct edit_run *run, const struct edit *e) {
    sbuf_printf(&run->out, "%.*s =%s%.*s\n", (int)e->name.n, e->name.p, e->value.n == 0 ? "" : " ",
                (int)e->value.n, e->value.p);
}

/* A line of a parameter that is changed, or one that continues it. */
static void lines_line(struct edit_run *run, struct edit *e, struct str line, bool first) {
    if (run->kind == '#') {
        sbuf_add_c(&run->out, "#");
        sbuf_add_str(&run->out, line);
        return;
    }
    if (!first || run->kind == 'X')
        return;
    if (e->found)
        fprintf(stderr, "postconf: warning: %s: multiple entries for \"%.*s\"\n", run->path,
                (int)e->name.n, e->name.p);
    e->found = true;
    lines_write(run, e);
}

static void lines_all(struct edit_run *run, struct str text) {
    struct edit *now = NULL; /* the edit of the parameter that the line belongs to, or NULL */
    while (text.n > 0) {
        const char *lf = memchr(text.p, '\n', text.n);
        struct str line = str_make(text.p, lf == NULL ? text.n : (size_t)(lf - text.p) + 1);
        struct str bare = str_trim(line);
        text = str_from(text, line.n);
        bool idle = bare.n == 0 || bare.p[0] == '#';
        bool continues = !idle && (line.p[0] == ' ' || line.p[0] == '\t');
        if (!idle && !continues)
            now = lines_of(run, line);
        if (idle || now == NULL)
            sbuf_add_str(&run->out, line);
        else
            lines_line(run, now, line, !continues);
        if (lf == NULL && run->out.n > 0 && run->out.p[run->out.n - 1] != '\n')
            sbuf_add_c(&run->out, "\n");
    }
    for (size_t i = 0; i < run->n; i++)
        if (run->kind == 'e' && !run->edits[i].found)
            lines_write(run, &run->edits[i]);
}

static int lines_save(const struct edit_run *run) {
    struct stat st;
    return stat(run->path, &st) < 0 ? -errno
                                    : fs_write_whole(run->path, sbuf_str(&run->out), 0, &st);
}

/* A symbolic link stays one: the file that it names is changed. */
static int lines_file(struct edit_run *run) {
    struct sbuf text = {0};
    int lock = cli_lock_folder(run->path);
    if (lock == -EBUSY)
        return lines_fatal("another program holds a lock on the directory", run->path);
    char why[FS_WHY_MAX];
    int rc = fs_read(run->path, &text, MAIN_CF_MAX);
    if (rc == 0 && memchr(text.p == NULL ? "" : text.p, '\0', text.n) != NULL)
        rc = -EINVAL;
    if (rc == 0) {
        lines_all(run, sbuf_str(&text));
        rc = lines_save(run);
    }
    sbuf_free(&text);
    if (lock >= 0)
        close(lock);
    if (rc < 0)
        fprintf(stderr, "postconf: fatal: %s: %s\n", run->path, fs_read_why(rc, MAIN_CF_MAX, why));
    return rc < 0;
}

int config_edit(const char *dir, char kind, int argc, char **argv) {
    struct edit_run run = {.kind = kind};
    struct sbuf path = {0};
    int rc = argc == 0 ? lines_fatal(kind == 'e' ? "-e requires name=value argument"
                                                 : "-X or -# requires a name",
                                     NULL)
                       : 0;
    run.edits = mem_zalloc(((size_t)argc + 1) * sizeof *run.edits);
    for (int i = 0; rc == 0 && i < argc; i++)
        rc = lines_parse(&run, argv[i]);
    sbuf_printf(&path, "%s/main.cf", cli_dir(dir));
    run.path = rc == 0 ? realpath(path.p, NULL) : NULL;
    if (rc == 0 && run.path == NULL)
        fprintf(stderr, "postconf: fatal: open %s for reading: %s\n", path.p, strerror(errno));
    rc = run.path == NULL ? 1 : lines_file(&run);
    free(run.path);
    free(run.edits);
    sbuf_free(&path);
    sbuf_free(&run.out);
    return rc;
}
