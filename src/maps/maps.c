/*
 * maps/maps.c - lists of tables, and match lists; see maps.h
 */
#include "maps/maps.h"

#include <stdlib.h>
#include <string.h>

#include "util/fs.h"
#include "util/idn.h"
#include "util/mem.h"

struct maps *maps_open_as(const char *spec, const char *dir, enum map_values values) {
    struct maps *m = MEM_NEW(struct maps);
    struct str rest = str_of(spec), piece;
    while (str_split_braces(&rest, ", \t\r\n", &piece)) {
        if (piece.n > 2 && piece.p[0] == '{' && piece.p[piece.n - 1] == '}')
            piece = str_trim(str_make(piece.p + 1, piece.n - 2));
        char *one = str_dup(piece);
        m->v = mem_realloc(m->v, (m->n + 1) * sizeof(struct map *));
        m->v[m->n++] = map_open_as(one, dir, values);
        free(one);
    }
    return m;
}

struct maps *maps_open(const char *spec, const char *dir) {
    return maps_open_as(spec, dir, VALUES_JOINED);
}

/* What may be a file's name or another table's: all else was written into the list, by a slip of
 * the pen too, and may be a password. */
static bool names_a_place(struct str type, struct str rest) {
    bool composed = str_ieq_c(type, "pipemap") || str_ieq_c(type, "unionmap");
    if (rest.n == 0 || rest.p[0] == '/')
        return true;
    if (str_ieq_c(type, "static") || str_ieq_c(type, "inline") || map_type(type) == NULL)
        return false;
    return composed || rest.p[0] != '{';
}

static void show_list(struct str list, struct sbuf *out) {
    struct str one;
    for (bool first = true; str_split_braces(&list, ", \t\r\n", &one); first = false) {
        struct str type = str_istarts(one, "proxy:") ? str_from(one, 6) : one;
        ptrdiff_t colon = str_chr(type, ':'), brace = str_chr(type, '{');
        size_t head = one.n - type.n + (size_t)(colon + 1);
        struct str word = str_make(type.p, colon < 0 ? 0 : (size_t)colon);
        sbuf_add_c(out, first ? "" : ", ");
        if (!names_a_place(word, str_from(type, (size_t)(colon + 1)))) {
            sbuf_printf(out, "%.*s(hidden)", (int)head, one.p);
        } else if (brace >= 0 && one.p[one.n - 1] == '}') {
            struct str inner = str_from(type, (size_t)brace + 1);
            inner.n--;
            sbuf_printf(out, "%.*s{", (int)(one.n - type.n + (size_t)brace), one.p);
            show_list(inner, out);
            sbuf_add_ch(out, '}');
        } else {
            sbuf_add_str(out, one);
        }
    }
}

void maps_show(const char *spec, struct sbuf *out) {
    show_list(str_of(spec), out);
}

bool maps_are_remote(const char *spec) {
    struct str rest = str_of(spec), w;
    while (str_split(&rest, ", \t\r\n{}!", &w)) {
        if (str_istarts(w, "proxy:"))
            w = str_from(w, 6);
        ptrdiff_t colon = str_chr(w, ':');
        const struct map_ops *ops = colon <= 0 ? NULL : map_type(str_make(w.p, (size_t)colon));
        if (ops != NULL && ops->remote)
            return true;
    }
    return false;
}

bool maps_table_is_ours(const char *spec, size_t index) {
    struct str rest = str_of(spec), one;
    bool there = true;
    for (size_t i = 0; there && i <= index; i++)
        there = str_split_braces(&rest, ", \t\r\n", &one);
    if (!there)
        return false;
    char *text = str_dup(one);
    bool ours = !maps_are_remote(text);
    free(text);
    return ours;
}

bool maps_ask_remote(const struct maps *m, const struct maps_key *keys, size_t n_keys) {
    for (size_t t = 0; t < m->n; t++) {
        bool composed = m->v[t]->ops == &map_union || m->v[t]->ops == &map_pipe;
        if (composed && maps_are_remote(m->v[t]->spec))
            return true;
        for (size_t k = 0; k < n_keys; k++)
            if (map_asks(m->v[t], keys[k].key))
                return true;
    }
    return false;
}

void maps_close(struct maps *m) {
    if (m == NULL)
        return;
    for (size_t i = 0; i < m->n; i++)
        map_close(m->v[i]);
    free(m->v);
    free(m);
}

void maps_trace_free(struct maps_trace *t) {
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->n; i++) {
        free(t->v[i].table);
        free(t->v[i].key);
        free(t->v[i].value);
        free(t->v[i].where);
    }
    free(t->v);
    free(t);
}

void maps_answer_free(struct maps_answer *a) {
    if (a->value.p != NULL)
        mem_wipe(a->value.p, a->value.n);
    sbuf_free(&a->value);
    free(a->err);
    a->err = NULL;
    maps_trace_free(a->trace);
    a->trace = NULL;
}

struct maps_step *maps_trace_add(struct maps_trace *t, struct str table, struct str key) {
    t->v = mem_realloc(t->v, (t->n + 1) * sizeof *t->v);
    struct maps_step *s = &t->v[t->n++];
    *s = (struct maps_step){.table = str_dup(table), .key = str_dup(key)};
    return s;
}

static void maps_note(struct maps_trace *t, struct map *m, const struct maps_key *k, bool skipped,
                      const struct maps_answer *a) {
    struct sbuf where = {0}, table = {0};
    if (t->secret)
        maps_show(m->spec, &table);
    else
        sbuf_add_c(&table, m->spec);
    struct maps_step *s = maps_trace_add(t, sbuf_str(&table), k->key);
    sbuf_free(&table);
    s->skipped = skipped;
    s->rc = a->rc;
    if (!skipped && a->rc == MAP_ERROR)
        sbuf_add_c(&where, a->err);
    else if (!skipped && (a->rc == MAP_FOUND || m->ops->remote))
        map_where(m, k->key, &where);
    s->where = sbuf_take(&where);
    if (!skipped && a->rc == MAP_FOUND && !t->secret)
        s->value = str_dup(sbuf_str(&a->value));
}

/* As in Postfix, an answer of nothing is an error: what it would stand for is a route, a login or a
 * permission, and "not found" has a form of its own. */
static void maps_get(struct map *m, struct str key, struct maps_answer *a) {
    a->rc = map_get(m, key, &a->value);
    if (a->rc == MAP_FOUND && str_trim(sbuf_str(&a->value)).n == 0) {
        struct sbuf name = {0};
        maps_show(m->spec, &name);
        map_set_error(m, "table %s answers with nothing: an empty result is not allowed", name.p);
        sbuf_free(&name);
        a->rc = MAP_ERROR;
    }
    if (a->rc == MAP_ERROR)
        a->err = map_fault(m, &a->several);
}

/* As in Postfix, no table has an empty key: not even one of patterns, which any text would fit. */
static bool maps_ask_one(struct map *m, const struct maps_key *k, struct maps_answer *a,
                         struct maps_trace *t) {
    bool skipped = k->key.n == 0 || (k->partial && !m->fixed);
    if (!skipped)
        maps_get(m, k->key, a);
    if (t != NULL)
        maps_note(t, m, k, skipped, a);
    return !skipped && a->rc != MAP_NOT_FOUND;
}

void maps_find_traced(struct maps *m, const struct maps_key *keys, size_t n_keys,
                      struct maps_answer *a, struct maps_trace *trace) {
    *a = (struct maps_answer){.rc = MAP_NOT_FOUND};
    for (size_t k = 0; k < n_keys; k++)
        for (size_t t = 0; t < m->n; t++) {
            a->key = k;
            a->table = t;
            if (maps_ask_one(m->v[t], &keys[k], a, trace))
                return;
        }
}

void maps_find(struct maps *m, const struct maps_key *keys, size_t n_keys, struct maps_answer *a) {
    maps_find_traced(m, keys, n_keys, a, NULL);
}

struct pattern {
    bool negate;
    char *text;      /* literal; a domain in its one form (idn_plain) */
    struct map *map; /* or a table */
    bool is_net;
    struct netblock net;
    char *wrong; /* why it, or the file that it names, cannot be asked; NULL: it can; owned */
};

struct matchlist {
    enum match_kind kind;
    unsigned how;
    struct pattern *v;
    size_t n;
};

bool matchlist_names_table(struct str pattern) {
    return pattern.n > 0 && pattern.p[0] != '[' && str_chr(pattern, ':') >= 0;
}

/* "example.com" or ".example.com" */
static char *pattern_text(enum match_kind kind, unsigned how, struct str piece) {
    struct sbuf text = {0};
    bool dot = piece.n > 0 && piece.p[0] == '.';
    if ((kind != MATCH_DOMAIN && kind != MATCH_NETWORK) || matchlist_names_table(piece))
        return str_dup(piece);
    sbuf_add(&text, piece.p, dot);
    idn_plain(str_from(piece, dot), (how & MATCH_IDNA2003) != 0, &text);
    return sbuf_take(&text);
}

static void matchlist_push(struct matchlist *l, struct pattern p) {
    l->v = mem_realloc(l->v, (l->n + 1) * sizeof *l->v);
    l->v[l->n++] = p;
}

/* Takes the "!" before a pattern, each of which turns negated over. */
static bool take_negation(struct str *piece, bool negated) {
    for (; piece->n > 0 && piece->p[0] == '!'; *piece = str_from(*piece, 1))
        negated = !negated;
    return negated;
}

/* negated: by what stands before the list. */
static void pattern_add(struct matchlist *l, struct str piece, const char *dir, bool negated) {
    struct pattern p = {.negate = take_negation(&piece, negated)};
    struct sbuf wrong = {0};
    const char *why = NULL;
    p.text = pattern_text(l->kind, l->how, piece);
    if (l->kind == MATCH_NETWORK && netblock_parse(&p.net, piece, &why))
        p.is_net = true;
    else if (l->kind == MATCH_NETWORK && why != NULL) /* of IPv6, it looks like a table, too */
        sbuf_printf(&wrong, "%s in \"%s\"", why, p.text);
    else if (matchlist_names_table(piece))
        p.map = map_open(p.text, dir);
    p.wrong = wrong.p;
    matchlist_push(l, p);
}

struct matchlist *matchlist_open(const char *spec, const char *dir, enum match_kind kind,
                                 unsigned how) {
    struct matchlist *l = MEM_NEW(struct matchlist);
    struct str rest = str_of(spec), piece;
    l->kind = kind;
    l->how = how;
    while (str_split_braces(&rest, ", \t\r\n", &piece))
        pattern_add(l, piece, dir, false);
    return l;
}

#define LIST_FILE_MAX   (16U << 20)
#define LIST_FILES_DEEP 10 /* a file that names itself is no list */

static void pattern_unread(struct matchlist *l, const char *path, const char *why) {
    struct sbuf b = {0};
    sbuf_printf(&b, "open file %s: %s", path, why);
    matchlist_push(l, (struct pattern){.text = mem_strdup(path), .wrong = sbuf_take(&b)});
}

static void list_add_with_files(struct matchlist *l, struct str list, bool negated, int deep);

static void list_add_file(struct matchlist *l, struct str name, bool negated, int deep) {
    struct sbuf text = {0};
    char *path = str_dup(name), why[FS_WHY_MAX];
    int rc = deep == LIST_FILES_DEEP ? 0 : fs_read(path, &text, LIST_FILE_MAX);
    struct str rest = sbuf_str(&text), line;
    if (deep == LIST_FILES_DEEP)
        pattern_unread(l, path, "it is named by itself, or by too many files");
    else if (rc < 0)
        pattern_unread(l, path, fs_read_why(rc, LIST_FILE_MAX, why));
    while (rc == 0 && str_split(&rest, "\n", &line))
        if (line.p[0] != '#')
            list_add_with_files(l, line, negated, deep + 1);
    sbuf_free(&text);
    free(path);
}

static void list_add_with_files(struct matchlist *l, struct str list, bool negated, int deep) {
    struct str one;
    while (str_split_braces(&list, ", \t\r\n", &one)) {
        struct str name = one;
        bool name_negated = take_negation(&name, negated);
        if (name.n > 0 && name.p[0] == '/')
            list_add_file(l, name, name_negated, deep);
        else
            pattern_add(l, one, NULL, negated);
    }
}

struct matchlist *matchlist_of_table(const char *spec) {
    struct matchlist *l = MEM_NEW(struct matchlist);
    l->kind = MATCH_STRING;
    list_add_with_files(l, str_of(spec), false, 0);
    return l;
}

const char *matchlist_unopened(const struct matchlist *l) {
    for (size_t i = 0; l != NULL && i < l->n; i++) {
        const struct pattern *p = &l->v[i];
        if (p->wrong != NULL || (p->map != NULL && !p->map->opened))
            return p->wrong != NULL ? p->wrong : p->map->err;
    }
    return NULL;
}

bool matchlist_asks_server(const struct matchlist *l) {
    bool asks = false;
    for (size_t i = 0; l != NULL && i < l->n && !asks; i++)
        asks = l->v[i].map != NULL && maps_are_remote(l->v[i].text);
    return asks;
}

void matchlist_close(struct matchlist *l) {
    if (l == NULL)
        return;
    for (size_t i = 0; i < l->n; i++) {
        map_close(l->v[i].map);
        free(l->v[i].text);
        free(l->v[i].wrong);
    }
    free(l->v);
    free(l);
}

/* Do the parents of a name count, too? */
static bool has_parents(const struct matchlist *l) {
    return (l->kind == MATCH_DOMAIN || l->kind == MATCH_NETWORK) && (l->how & MATCH_WHOLE) == 0;
}

/* The table asked for the domain itself, then for its parents: bare or with a leading dot. */
static enum match_rc table_has(const struct matchlist *l, struct map *m, struct str key,
                               char **err) {
    struct sbuf value = {0};
    enum map_rc rc = map_get(m, key, &value);
    while (rc == MAP_NOT_FOUND && has_parents(l) && m->fixed) {
        ptrdiff_t dot = str_chr(str_from(key, key.n > 0 && key.p[0] == '.'), '.');
        if (dot < 0)
            break;
        key = str_from(key, (size_t)dot + (key.p[0] == '.'));
        rc = map_get(m, (l->how & MATCH_PARENTS) != 0 ? str_from(key, 1) : key, &value);
    }
    sbuf_free(&value);
    if (rc == MAP_ERROR)
        *err = map_error(m);
    return rc == MAP_ERROR ? MATCH_ERROR : rc == MAP_FOUND ? MATCH_YES : MATCH_NO;
}

/* As in Postfix, where the list has parents by name only, a leading dot asks for them. */
static bool literal_has(const struct matchlist *l, const char *pattern, struct str key) {
    struct str p = str_of(pattern);
    if (str_ieq(p, key))
        return true;
    if (!has_parents(l) || key.n <= p.n || p.n == 0)
        return false;
    struct str tail = str_from(key, key.n - p.n);
    return ((l->how & MATCH_PARENTS) != 0 ? tail.p[-1] : p.p[0]) == '.' && str_ieq(p, tail);
}

/* What a list is asked: of a domain or the name of a host, its spellings. */
struct asked_key {
    struct str written, other, plain; /* n 0: none */
    struct str one;                   /* that literals are compared with */
    struct sbuf texts[3];
    struct str address; /* of the client, or n 0 */
    struct netaddr addr;
    bool is_addr;
};

/* "address name" of a client, or "address". */
static struct str asked_key_address(struct asked_key *q, struct str key) {
    ptrdiff_t blank = str_chr(key, ' ');
    q->address = str_make(key.p, blank < 0 ? key.n : (size_t)blank);
    q->is_addr = netaddr_parse(&q->addr, q->address, 0);
    return blank < 0 ? STR_LIT("") : str_from(key, (size_t)blank + 1);
}

static void asked_key_init(struct asked_key *q, const struct matchlist *l, struct str key) {
    enum match_kind kind = l->kind;
    bool idna2003 = (l->how & MATCH_IDNA2003) != 0;
    *q = (struct asked_key){.written = key, .one = key};
    if (kind == MATCH_NETWORK)
        q->written = q->one = asked_key_address(q, key);
    if ((kind != MATCH_DOMAIN && kind != MATCH_NETWORK) || q->written.n == 0)
        return;
    idn_spellings(q->written, idna2003, &q->texts[0], &q->texts[1]);
    idn_plain(q->written, idna2003, &q->texts[2]);
    q->other = sbuf_str(&q->texts[0]);
    q->plain = sbuf_str(&q->texts[1]);
    q->one = sbuf_str(&q->texts[2]);
}

static void asked_key_free(struct asked_key *q) {
    for (size_t i = 0; i < 3; i++)
        sbuf_free(&q->texts[i]);
}

/* The name before the address, as in Postfix. */
static enum match_rc table_has_any(const struct matchlist *l, struct map *m,
                                   const struct asked_key *q, char **err) {
    const struct str all[] = {q->written, q->other, q->plain};
    struct sbuf value = {0};
    enum match_rc rc = l->kind == MATCH_NETWORK ? MATCH_NO : table_has(l, m, q->written, err);
    for (size_t i = l->kind == MATCH_NETWORK ? 0 : 1; i < 3 && rc == MATCH_NO; i++)
        if (all[i].n > 0)
            rc = table_has(l, m, all[i], err);
    if (rc != MATCH_NO || q->address.n == 0)
        return rc;
    rc = match_rc_of(map_get(m, q->address, &value));
    if (rc == MATCH_ERROR)
        *err = map_error(m);
    sbuf_free(&value);
    return rc;
}

static enum match_rc pattern_has(const struct matchlist *l, const struct pattern *p,
                                 const struct asked_key *q, char **err) {
    if (p->map != NULL)
        return table_has_any(l, p->map, q, err);
    if (p->wrong != NULL) {
        *err = mem_strdup(p->wrong);
        return MATCH_ERROR;
    }
    if (p->is_net)
        return q->is_addr && netblock_has(&p->net, &q->addr) ? MATCH_YES : MATCH_NO;
    return literal_has(l, p->text, q->one) ? MATCH_YES : MATCH_NO;
}

enum match_rc matchlist_has(struct matchlist *l, struct str key, char **err) {
    struct asked_key q;
    enum match_rc rc = MATCH_NO;
    *err = NULL;
    asked_key_init(&q, l, key);
    for (size_t i = 0; i < l->n && rc == MATCH_NO; i++) {
        rc = pattern_has(l, &l->v[i], &q, err);
        if (rc == MATCH_YES && l->v[i].negate) {
            rc = MATCH_NO;
            break;
        }
    }
    asked_key_free(&q);
    return rc;
}

/* Has it a pattern that is no network, or, with tables, one that is a table? */
static bool list_has_more(const char *spec, bool tables) {
    struct str rest = str_of(spec), piece;
    while (str_split_braces(&rest, ", \t\r\n", &piece)) {
        struct netblock net;
        const char *why;
        take_negation(&piece, false);
        if ((!tables || matchlist_names_table(piece)) && !netblock_parse(&net, piece, &why) &&
            why == NULL)
            return true;
    }
    return false;
}

bool matchlist_has_names(const char *spec) {
    return list_has_more(spec, false);
}

bool matchlist_has_tables(const char *spec) {
    return list_has_more(spec, true);
}

/* Is it larger than what one organisation has, and not set apart for networks of one's own
 * (fc00::/7, fe80::/10)? */
static bool netblock_is_wide(const struct netblock *net) {
    struct str own[] = {STR_LIT("fc00::/7"), STR_LIT("fe80::/10")};
    struct netblock other;
    const char *why;
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        if (netblock_parse(&other, own[i], &why) && net->bits >= other.bits &&
            netblock_has(&other, &net->base))
            return false;
    return net->bits < (net->base.u.sa.sa_family == AF_INET ? 8 : 16);
}

bool matchlist_wide_network(const char *spec, struct str *what) {
    struct str rest = str_of(spec);
    while (str_split_braces(&rest, ", \t\r\n", what)) {
        struct netblock net;
        const char *why;
        if (netblock_parse(&net, *what, &why) && netblock_is_wide(&net))
            return true;
    }
    return false;
}

const char *matchlist_check_networks(const char *spec, struct str *what) {
    struct str rest = str_of(spec), piece;
    while (str_split_braces(&rest, ", \t\r\n", &piece)) {
        struct netblock net;
        const char *why;
        *what = piece;
        take_negation(&piece, false);
        if (!netblock_parse(&net, piece, &why) && why != NULL)
            return why;
    }
    return NULL;
}
