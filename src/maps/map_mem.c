/*
 * maps/map_mem.c - texthash, inline, static and fail: tables held in memory
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "maps/map.h"
#include "util/fs.h"
#include "util/htab.h"
#include "util/mem.h"

#define TEXT_MAX (64U << 20)

struct entry {
    char *key;
    char *value;
};

struct state {
    struct htab tab;
    struct map *m;
};

static void entry_warn(void *arg, int line, const char *text) {
    struct state *s = arg;
    struct sbuf b = {0};
    sbuf_printf(&b, "%s, line %d: %s", s->m->name, line, text);
    map_remark(s->m, b.p);
    sbuf_free(&b);
}

static void entry_add(void *arg, struct str key, struct str value, int line) {
    struct state *s = arg;
    if (htab_get(&s->tab, key) != NULL) {
        struct sbuf text = {0};
        sbuf_printf(&text, "duplicate entry: \"%.*s\"", STR_FMT(key));
        entry_warn(s, line, text.p);
        sbuf_free(&text);
        return;
    }
    struct entry *e = MEM_NEW(struct entry);
    e->key = str_dup(key);
    e->value = str_dup(value);
    htab_put(&s->tab, str_of(e->key), e);
}

static int texthash_open(struct map *m) {
    struct sbuf text = {0};
    struct state *s = MEM_NEW(struct state);
    s->m = m;
    m->state = s;
    char why[FS_WHY_MAX];
    int rc = fs_read(m->path, &text, TEXT_MAX);
    if (rc < 0) {
        map_set_error(m, "open database %s: %s", m->path, fs_read_why(rc, TEXT_MAX, why));
        free(s);
    } else {
        map_source_parse(sbuf_str(&text), m->fold, entry_add, entry_warn, s);
    }
    if (text.p != NULL)
        mem_wipe(text.p, text.n);
    sbuf_free(&text);
    return rc;
}

static void mem_shut(struct map *m) {
    struct state *s = m->state;
    size_t pos = 0;
    struct entry *e;
    while ((e = htab_next(&s->tab, &pos)) != NULL) {
        mem_wipe(e->value, strlen(e->value));
        free(e->value);
        free(e->key);
        free(e);
    }
    htab_free(&s->tab);
    free(s);
}

static enum map_rc mem_get(struct map *m, struct str key, struct sbuf *value) {
    struct state *s = m->state;
    struct entry *e = htab_get(&s->tab, key);
    if (e == NULL)
        return MAP_NOT_FOUND;
    sbuf_add_c(value, e->value);
    return MAP_FOUND;
}

static int mem_each(struct map *m, int (*fn)(void *arg, struct str key, struct str value),
                    void *arg) {
    struct state *s = m->state;
    size_t pos = 0;
    struct entry *e;
    while ((e = htab_next(&s->tab, &pos)) != NULL)
        if (fn(arg, str_of(e->key), str_of(e->value)) != 0)
            break;
    return 0;
}

/* As with Postfix, the last value of a key counts, without a word: the table's name has its rows.
 */
static void inline_put(struct state *s, struct str key, struct str value) {
    struct entry *e = htab_get(&s->tab, key);
    if (e == NULL) {
        entry_add(s, key, value, 0);
        return;
    }
    mem_wipe(e->value, strlen(e->value));
    free(e->value);
    e->value = str_dup(value);
}

/* How long is the key at the start of text?  It ends at a blank or "=" outside of quotes and behind
 * no backslash, both of which are part of it, as with Postfix; 0: a quote has no end. */
static size_t inline_key_length(struct str text) {
    bool quoted = false;
    size_t i = 0;
    for (; i < text.n; i++) {
        if (text.p[i] == '\\')
            i++;
        else if (text.p[i] == '"')
            quoted = !quoted;
        else if (!quoted && (text.p[i] == '=' || str_chr(STR_LIT(" \t\r\n"), text.p[i]) >= 0))
            break;
    }
    return quoted ? 0 : i < text.n ? i : text.n;
}

/* "key=value", or "{ key = value with blanks }".  Returns what is wrong with it, or NULL. */
static const char *inline_pair(struct state *s, struct str piece) {
    if (str_unbrace(&piece))
        piece = str_trim(piece);
    else if (piece.p[0] == '{')
        return "syntax error after '}'";
    size_t n = inline_key_length(piece);
    struct str rest = str_trim(str_from(piece, n));
    if (n == 0)
        return piece.n > 0 && piece.p[0] != '=' ? "unbalanced '\"'" : "no key found";
    if (rest.n == 0 || rest.p[0] != '=')
        return "missing '=' after attribute name";
    char *key = str_dup(str_make(piece.p, n));
    str_lower(key, n);
    inline_put(s, str_make(key, n), str_trim(str_from(rest, 1)));
    free(key);
    return NULL;
}

static int inline_bad(struct map *m, const char *why) {
    map_set_error(m, "%s: need \"inline:{name=value...}\"", why);
    return -EINVAL;
}

static int inline_open(struct map *m) {
    struct str rest = str_trim(str_of(m->name)), piece;
    const char *why = NULL;
    if (!str_unbrace(&rest))
        return inline_bad(m, "bad syntax");
    struct state *s = MEM_NEW(struct state);
    s->m = m;
    m->state = s;
    while (why == NULL && str_split_braces(&rest, ", \t", &piece))
        why = inline_pair(s, piece);
    if (why == NULL && s->tab.n == 0)
        why = "empty table";
    if (why == NULL)
        return 0;
    mem_shut(m);
    return inline_bad(m, why);
}

static int static_open(struct map *m) {
    struct str v = str_of(m->name);
    if (v.n > 0 && (v.p[0] != '{' || str_unbrace(&v)))
        return 0;
    map_set_error(m, "bad syntax: need \"static:value\" or \"static:{value with blanks}\"");
    return -EINVAL;
}

static enum map_rc static_get(struct map *m, struct str key, struct sbuf *value) {
    struct str v = str_of(m->name);
    (void)key;
    if (str_unbrace(&v))
        v = str_trim(v);
    sbuf_add_str(value, v);
    return MAP_FOUND;
}

static void static_rules(struct map *m, map_row_fn fn, void *arg) {
    struct sbuf value = {0};
    static_get(m, STR_LIT(""), &value);
    fn(arg, STR_LIT(""), sbuf_str(&value));
    sbuf_wipe(&value);
}

static int fail_open(struct map *m) {
    (void)m;
    return 0;
}

static enum map_rc fail_get(struct map *m, struct str key, struct sbuf *value) {
    (void)key;
    (void)value;
    map_set_error(m, "fail: this table always fails");
    return MAP_ERROR;
}

const struct map_ops map_texthash = {.type = "texthash",
                                     .suffix = "",
                                     .fixed = true,
                                     .open = texthash_open,
                                     .close = mem_shut,
                                     .get = mem_get,
                                     .each = mem_each};

const struct map_ops map_inline = {.type = "inline",
                                   .fixed = true,
                                   .open = inline_open,
                                   .close = mem_shut,
                                   .get = mem_get,
                                   .each = mem_each};

const struct map_ops map_static = {
    .type = "static", .fixed = true, .open = static_open, .get = static_get, .rules = static_rules};

const struct map_ops map_fail = {.type = "fail", .fixed = true, .open = fail_open, .get = fail_get};
