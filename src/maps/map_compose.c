/*
 * maps/map_compose.c - unionmap and pipemap: tables made of tables
 *
 * "unionmap:{type:name, …}" asks all of them and joins what they answer with commas;
 * "pipemap:{type:name, …}" asks each with the answer of the one before (postconf(5),
 * DATABASE_README). One that fails fails the whole; each table has its own lock, so any thread may
 * ask.
 */
#include <errno.h>
#include <stdlib.h>

#include "maps/maps.h"
#include "util/mem.h"

static int compose_open(struct map *m) {
    struct str list = str_trim(str_of(m->name));
    if (!str_unbrace(&list)) {
        map_set_error(m, "bad syntax: need \"%s:{type:name...}\"", m->ops->type);
        return -EINVAL;
    }
    char *spec = str_dup(list);
    struct maps *parts = maps_open_as(spec, m->dir, m->values);
    free(spec);
    if (parts->n == 0) {
        map_set_error(m, "bad syntax: \"%s:{}\" names no table", m->ops->type);
        maps_close(parts);
        return -EINVAL;
    }
    m->fixed = parts->v[0]->fixed; /* as with Postfix, the first one says for all of them */
    m->fold = false;               /* each does so for itself */
    m->state = parts;
    return 0;
}

static void compose_shut(struct map *m) {
    maps_close(m->state);
}

static enum map_rc compose_part_get(struct map *m, struct map *part, struct str key,
                                    struct sbuf *value) {
    enum map_rc rc = map_get(part, key, value);
    if (rc == MAP_ERROR) {
        struct sbuf name = {0};
        maps_show(part->spec, &name);
        map_take_error(m, part, name.p);
        sbuf_free(&name);
    }
    return rc;
}

/* n tables have answered. */
static enum map_rc union_over(struct map *m, const struct sbuf *all, size_t n, struct sbuf *value) {
    if (m->values == VALUES_ONE && n > 1) {
        struct sbuf shown = {0};
        maps_show(m->spec, &shown);
        map_set_several(m, shown.p, n);
        sbuf_free(&shown);
        return MAP_ERROR;
    }
    sbuf_add_str(value, sbuf_str(all));
    return n > 0 ? MAP_FOUND : MAP_NOT_FOUND;
}

static enum map_rc union_get(struct map *m, struct str key, struct sbuf *value) {
    const struct maps *parts = m->state;
    enum map_rc got = MAP_NOT_FOUND;
    struct sbuf all = {0};
    size_t n = 0;
    for (size_t i = 0; i < parts->n && got != MAP_ERROR; i++) {
        struct sbuf one = {0};
        got = compose_part_get(m, parts->v[i], key, &one);
        if (got == MAP_FOUND) {
            sbuf_add_c(&all, n++ > 0 ? "," : "");
            sbuf_add_str(&all, sbuf_str(&one));
        }
        sbuf_wipe(&one);
    }
    if (got != MAP_ERROR)
        got = union_over(m, &all, n, value);
    sbuf_wipe(&all);
    return got;
}

static enum map_rc pipe_get(struct map *m, struct str key, struct sbuf *value) {
    const struct maps *parts = m->state;
    struct sbuf in = {0}, out = {0};
    enum map_rc rc = MAP_FOUND;
    sbuf_add_str(&in, key);
    for (size_t i = 0; i < parts->n && rc == MAP_FOUND; i++) {
        rc = compose_part_get(m, parts->v[i], sbuf_str(&in), &out);
        sbuf_wipe(&in);
        in = out;
        out = (struct sbuf){0};
    }
    if (rc == MAP_FOUND)
        sbuf_add_str(value, sbuf_str(&in));
    sbuf_wipe(&in);
    return rc;
}

/* Of a union: each table that answers.  Of a pipe: only the first one is asked with key. */
static void compose_where(struct map *m, struct str key, struct sbuf *out) {
    const struct maps *parts = m->state;
    for (size_t i = 0; i < (m->ops == &map_pipe ? 1 : parts->n); i++) {
        sbuf_add_c(out, i > 0 ? "; " : "");
        maps_show(parts->v[i]->spec, out);
        struct sbuf one = {0};
        map_where(parts->v[i], key, &one);
        if (one.n > 0)
            sbuf_printf(out, " (%s)", one.p);
        sbuf_free(&one);
    }
}

const struct map_ops map_union = {.type = "unionmap",
                                  .fixed = true,
                                  .shared = true,
                                  .open = compose_open,
                                  .close = compose_shut,
                                  .get = union_get,
                                  .where = compose_where};

const struct map_ops map_pipe = {.type = "pipemap",
                                 .fixed = true,
                                 .shared = true,
                                 .open = compose_open,
                                 .close = compose_shut,
                                 .get = pipe_get,
                                 .where = compose_where};
