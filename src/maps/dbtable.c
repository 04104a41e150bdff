/*
 * maps/dbtable.c - see dbtable.h
 */
#include "maps/dbtable.h"

#include <errno.h>
#include <stdlib.h>

#include "maps/template.h"

struct tabconf *dbtable_conf(struct map *m) {
    char *why = NULL;
    struct tabconf *c = m->given;
    m->given = NULL;
    if (c == NULL && m->path == NULL) {
        map_set_error(m, "%s: its parameters cannot be used", m->spec);
        return NULL;
    }
    if (c == NULL)
        c = tabconf_read(m->path, &why);
    if (c == NULL)
        map_set_error(m, "%s", why);
    free(why);
    return c;
}

int dbtable_check(struct map *m, const char *wrong, const char *bad) {
    if (wrong != NULL)
        map_set_error(m, "%s: %s", m->path == NULL ? m->spec : m->path, wrong);
    else if (bad != NULL)
        map_set_error(m, "%s: bad value of \"%s\"", m->path == NULL ? m->spec : m->path, bad);
    return wrong == NULL && bad == NULL ? 0 : -EINVAL;
}

struct matchlist *dbtable_domains(const struct tabconf *c) {
    const char *domains = tabconf_str(c, "domain", "");
    return domains[0] == '\0' ? NULL : matchlist_of_table(domains);
}

bool dbtable_may_ask(struct str key, struct matchlist *domains) {
    char *err = NULL;
    bool may = matchlist_asks_server(domains) || template_key_has(key, domains, &err) != MATCH_NO;
    free(err);
    return may;
}

enum map_rc dbtable_has_key(struct map *m, struct str key, struct matchlist *domains) {
    char *err;
    enum match_rc rc = template_key_has(key, domains, &err);
    if (rc == MATCH_ERROR)
        map_set_error(m, "%s: domain: %s", m->spec, err);
    free(err);
    return map_rc_of(rc);
}

void dbtable_add_not_asked(const char *what, struct sbuf *out) {
    sbuf_printf(out,
                "not asked: the %s needs a part that the key does not have, or \"domain\" does not "
                "have the key's domain",
                what);
}

void dbvalues_reset(struct dbvalues *v) {
    sbuf_reset(&v->out);
    v->n = 0;
}

void dbvalues_add(struct dbvalues *v, struct str value) {
    if (value.p != NULL && template_result(v->format, value, v->key, &v->out))
        v->n++;
}

enum map_rc dbvalues_end(struct dbvalues *v, struct map *m, enum remote_rc rc, char *why,
                         int64_t limit, struct sbuf *value) {
    enum map_rc answer = v->out.n == 0 ? MAP_NOT_FOUND : MAP_FOUND;
    if (rc != REMOTE_OK) {
        map_set_error(m, "%s: %s", m->spec, why);
        answer = MAP_ERROR;
    } else if (limit > 0 && v->n > limit) {
        map_set_error(m, "%s: more than expansion_limit results", m->spec);
        answer = MAP_ERROR;
    } else if (m->values == VALUES_ONE && v->n > 1) {
        map_set_several(m, m->spec, (size_t)v->n);
        answer = MAP_ERROR;
    } else {
        sbuf_add_str(value, sbuf_str(&v->out));
    }
    sbuf_wipe(&v->out);
    free(why);
    return answer;
}
