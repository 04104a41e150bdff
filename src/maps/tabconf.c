/*
 * maps/tabconf.c - table configuration files; see tabconf.h
 */
#include "maps/tabconf.h"

#include <stdlib.h>
#include <string.h>

#include "util/fs.h"
#include "util/lines.h"
#include "util/mem.h"

#define TEXT_MAX (1U << 20)

struct pair {
    char *name;
    char *value;
};

struct tabconf {
    struct pair *v;
    size_t n;
};

static void value_free(char *value) {
    mem_wipe(value, strlen(value));
    free(value);
}

static struct pair *pair_find(const struct tabconf *c, struct str name) {
    for (size_t i = 0; i < c->n; i++)
        if (str_eq_c(name, c->v[i].name))
            return &c->v[i];
    return NULL;
}

/* Lines without '=' are no parameters: passed over, as Postfix does with a warning. */
static void take_line(void *arg, struct str line, int no) {
    struct tabconf *c = arg;
    ptrdiff_t eq = str_chr(line, '=');
    (void)no;
    if (eq < 0)
        return;
    struct str name = str_trim(str_make(line.p, (size_t)eq));
    char *value = str_dup(str_trim(str_from(line, (size_t)eq + 1)));
    struct pair *p = pair_find(c, name);
    if (p != NULL) {
        value_free(p->value);
        p->value = value;
        return;
    }
    c->v = mem_realloc(c->v, (c->n + 1) * sizeof *c->v);
    c->v[c->n++] = (struct pair){str_dup(name), value};
}

static void take_orphan(void *arg, struct str line, int no) {
    (void)arg;
    (void)line;
    (void)no;
}

struct tabconf *tabconf_parse(struct str text) {
    static const struct lines_ops ops = {take_line, take_orphan};
    struct tabconf *c = MEM_NEW(struct tabconf);
    lines_logical(text, true, &ops, c);
    return c;
}

struct tabconf *tabconf_read(const char *path, char **why) {
    struct sbuf text = {0}, b = {0};
    struct tabconf *c = NULL;
    int rc = fs_read(path, &text, TEXT_MAX);
    if (rc == 0) {
        c = tabconf_parse(sbuf_str(&text));
    } else {
        sbuf_printf(&b, "open %s: %s", path, strerror(-rc));
        *why = sbuf_take(&b);
    }
    sbuf_wipe(&text);
    return c;
}

void tabconf_free(struct tabconf *c) {
    if (c == NULL)
        return;
    for (size_t i = 0; i < c->n; i++) {
        free(c->v[i].name);
        value_free(c->v[i].value);
    }
    free(c->v);
    free(c);
}

const char *tabconf_str(const struct tabconf *c, const char *name, const char *otherwise) {
    const struct pair *p = pair_find(c, str_of(name));
    return p == NULL ? otherwise : p->value;
}

int64_t tabconf_int(const struct tabconf *c, const char *name, int64_t otherwise,
                    const char **bad) {
    const char *v = tabconf_str(c, name, NULL);
    uint64_t n;
    if (v == NULL)
        return otherwise;
    if (str_u64(str_of(v), &n) && n <= INT32_MAX)
        return (int64_t)n;
    *bad = name;
    return otherwise;
}

bool tabconf_bool(const struct tabconf *c, const char *name, bool otherwise, const char **bad) {
    const char *v = tabconf_str(c, name, NULL);
    if (v == NULL)
        return otherwise;
    if (str_ieq_c(str_of(v), "yes") || str_ieq_c(str_of(v), "no"))
        return v[0] == 'y' || v[0] == 'Y';
    *bad = name;
    return otherwise;
}
