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
    struct maps *parts = maps_open(spec, m->dir);
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
        char *why = map_error(part);
        struct sbuf name = {0};
        maps_show(part->spec, &name);
        map_set_error(m, "%s: %s", name.p, why);
        sbuf_free(&name);
        free(why);
    }
    return rc;
}

static enum map_rc union_get(struct map *m, struct str key, struct sbuf *value) {
    const struct maps *parts = m->state;
    enum map_rc rc = MAP_NOT_FOUND;
    for (size_t i = 0; i < parts->n; i++) {
        struct sbuf one = {0};
        enum map_rc got = compose_part_get(m, parts->v[i], key, &one);
        if (got == MAP_FOUND) {
            if (rc == MAP_FOUND)
                sbuf_add_ch(value, ',');
            sbuf_add_str(value, sbuf_str(&one));
            rc = MAP_FOUND;
        }
        sbuf_wipe(&one);
        if (got == MAP_ERROR)
            return MAP_ERROR;
    }
    return rc;
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
