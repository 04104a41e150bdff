/*
 * maps/map_pattern.c - regexp, pcre and cidr: tables whose rules are tried in order
 *
 * "/pattern/flags value", "!/pattern/flags value", "if /pattern/ … endif"; $1 … $9, ${1}, $(1) in
 * the value are what a group matched.  cidr: "network value", "if network … endif".  Both regular
 * expression types run on PCRE2; regexp differs in its default flags only in what Postfix's manual
 * documents (case-insensitive by default for both).
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <errno.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "maps/map.h"
#include "util/fs.h"
#include "util/lines.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/net.h"

#define TEXT_MAX (16U << 20)

enum rule_op { RULE_MATCH, RULE_IF, RULE_ENDIF };

struct rule {
    enum rule_op op;
    bool negate;
    pcre2_code *re;
    struct netblock net;
    char *value;
    size_t jump; /* RULE_IF: index after the matching endif */
    int line;
};

struct state {
    struct map *m;
    bool cidr;
    struct rule *v;
    size_t n;
    pcre2_match_data *md;
};

static void rule_warn(struct state *s, int line, const char *text) {
    struct sbuf b = {0};
    log_warn("maps", "%s, line %d: %s: ignoring this line", s->m->name, line, text);
    if (s->m->remark != NULL)
        return;
    sbuf_printf(&b, "%s, line %d: %s: this line counts for nothing", s->m->name, line, text);
    s->m->remark = sbuf_take(&b);
}

static void rule_free(struct rule *r) {
    pcre2_code_free(r->re);
    free(r->value);
}

static void pattern_shut(struct map *m) {
    struct state *s = m->state;
    for (size_t i = 0; i < s->n; i++)
        rule_free(&s->v[i]);
    pcre2_match_data_free(s->md);
    free(s->v);
    free(s);
    free(m->remark);
    m->remark = NULL;
}

static uint32_t flag_bits(struct str flags, bool *ok) {
    uint32_t bits = PCRE2_CASELESS | PCRE2_DOTALL;
    for (size_t i = 0; i < flags.n; i++) {
        switch (flags.p[i]) {
        case 'i':
            bits ^= PCRE2_CASELESS;
            break;
        case 'm':
            bits ^= PCRE2_MULTILINE;
            break;
        case 's':
            bits ^= PCRE2_DOTALL;
            break;
        case 'x': /* in regexp tables: basic syntax; PCRE2 has the extended one only */
            bits ^= PCRE2_EXTENDED;
            break;
        case 'A':
            bits ^= PCRE2_ANCHORED;
            break;
        case 'E':
            bits ^= PCRE2_DOLLAR_ENDONLY;
            break;
        case 'U':
            bits ^= PCRE2_UNGREEDY;
            break;
        default:
            *ok = false;
            break;
        }
    }
    return bits;
}

/* "[!]/pattern/flags" at the start of *text, which then is what follows. */
static const char *parse_regex(struct rule *r, struct str *text) {
    if (text->n > 0 && text->p[0] == '!') {
        r->negate = true;
        *text = str_trim(str_from(*text, 1));
    }
    if (text->n < 2 || strchr("abcdefghijklmnopqrstuvwxyz0123456789 ", text->p[0] | 32) != NULL)
        return "missing pattern delimiter";
    char delim = text->p[0];
    size_t end = 1;
    while (end < text->n && text->p[end] != delim)
        end += text->p[end] == '\\' ? 2 : 1;
    if (end >= text->n)
        return "no closing pattern delimiter";
    struct str pattern = str_make(text->p + 1, end - 1), rest = str_from(*text, end + 1);
    size_t f = 0;
    while (f < rest.n && rest.p[f] != ' ' && rest.p[f] != '\t')
        f++;
    bool ok = true;
    uint32_t bits = flag_bits(str_make(rest.p, f), &ok);
    if (!ok)
        return "unknown pattern flag";
    int code;
    PCRE2_SIZE at;
    r->re = pcre2_compile((PCRE2_SPTR)pattern.p, pattern.n, bits, &code, &at, NULL);
    *text = str_trim(str_from(rest, f));
    return r->re == NULL ? "bad pattern" : NULL;
}

static const char *parse_network(struct rule *r, struct str *text) {
    const char *why = NULL;
    size_t n = 0;
    if (text->n > 0 && text->p[0] == '!') {
        r->negate = true;
        *text = str_trim(str_from(*text, 1));
    }
    while (n < text->n && text->p[n] != ' ' && text->p[n] != '\t')
        n++;
    if (!netblock_parse(&r->net, str_make(text->p, n), &why))
        return why != NULL ? why : "bad network pattern";
    *text = str_trim(str_from(*text, n));
    return NULL;
}

static void rule_add(void *arg, struct str line, int no) {
    struct state *s = arg;
    struct rule r = {.op = RULE_MATCH, .line = no};
    const char *why = NULL;
    line = str_trim(line);
    if (str_ieq_c(line, "endif")) {
        r.op = RULE_ENDIF;
    } else {
        if (str_istarts(line, "if ") || str_istarts(line, "if!") || str_istarts(line, "if/")) {
            r.op = RULE_IF;
            line = str_trim(str_from(line, 2));
        }
        why = s->cidr ? parse_network(&r, &line) : parse_regex(&r, &line);
        if (why == NULL && r.op == RULE_MATCH && line.n == 0)
            why = "no replacement text";
        r.value = str_dup(line);
    }
    if (why != NULL) {
        rule_warn(s, no, why);
        rule_free(&r);
        return;
    }
    s->v = mem_realloc(s->v, (s->n + 1) * sizeof *s->v);
    s->v[s->n++] = r;
}

/* Where each if leads when its pattern does not match. */
static void link_ifs(struct state *s) {
    for (size_t i = 0; i < s->n; i++) {
        if (s->v[i].op != RULE_IF)
            continue;
        int depth = 1;
        size_t k = i + 1;
        for (; k < s->n && depth > 0; k++)
            depth += s->v[k].op == RULE_IF ? 1 : s->v[k].op == RULE_ENDIF ? -1 : 0;
        if (depth > 0)
            rule_warn(s, s->v[i].line, "if without endif");
        s->v[i].jump = k;
    }
}

static void rule_orphan(void *arg, struct str line, int no) {
    (void)line;
    rule_warn(arg, no, "line begins with whitespace but continues nothing");
}

static const struct lines_ops rule_ops = {rule_add, rule_orphan};

static int pattern_open(struct map *m, bool cidr) {
    struct sbuf text = {0};
    char why[FS_WHY_MAX];
    int rc = fs_read(m->path, &text, TEXT_MAX);
    if (rc < 0) {
        map_set_error(m, "open %s: %s", m->path, fs_read_why(rc, TEXT_MAX, why));
        sbuf_free(&text);
        return rc;
    }
    struct state *s = MEM_NEW(struct state);
    s->m = m;
    s->cidr = cidr;
    s->md = pcre2_match_data_create(20, NULL);
    m->state = s;
    lines_logical(sbuf_str(&text), false, &rule_ops, s);
    link_ifs(s);
    sbuf_free(&text);
    return 0;
}

static int regex_open(struct map *m) {
    return pattern_open(m, false);
}

static int cidr_open(struct map *m) {
    return pattern_open(m, true);
}

/* Appends the value with $1 … replaced by what the groups matched in key. */
static void substitute(struct state *s, const char *value, struct str key, struct sbuf *out) {
    PCRE2_SIZE *ov = pcre2_get_ovector_pointer(s->md);
    uint32_t count = pcre2_get_ovector_count(s->md);
    for (const char *p = value; *p != '\0'; p++) {
        if (p[0] != '$' || p[1] == '\0') {
            sbuf_add_ch(out, *p);
            continue;
        }
        bool braced = p[1] == '{' || p[1] == '(';
        const char *d = p + (braced ? 2 : 1);
        if (*d < '0' || *d > '9') {
            if (p[1] == '$')
                p++;
            sbuf_add_ch(out, '$');
            continue;
        }
        uint32_t g = (uint32_t)(*d - '0');
        if (g < count && ov[2 * g] != PCRE2_UNSET)
            sbuf_add(out, key.p + ov[2 * g], ov[2 * g + 1] - ov[2 * g]);
        p = braced && d[1] != '\0' ? d + 1 : d;
    }
}

static bool rule_hits(struct state *s, const struct rule *r, struct str key,
                      const struct netaddr *addr) {
    if (s->cidr) /* "!network" is about addresses of the network's own family */
        return r->net.base.u.sa.sa_family == addr->u.sa.sa_family &&
               netblock_has(&r->net, addr) != r->negate;
    return (pcre2_match(r->re, (PCRE2_SPTR)key.p, key.n, 0, 0, s->md, NULL) >= 0) != r->negate;
}

/* The rule that answers for key, or NULL. */
static const struct rule *rule_find(struct state *s, struct str key) {
    struct netaddr addr;
    if (s->cidr && !netaddr_parse(&addr, key, 0))
        return NULL;
    for (size_t i = 0; i < s->n;) {
        const struct rule *r = &s->v[i];
        bool hit = r->op != RULE_ENDIF && rule_hits(s, r, key, &addr);
        if (hit && r->op == RULE_MATCH)
            return r;
        i = r->op == RULE_IF && !hit ? r->jump : i + 1;
    }
    return NULL;
}

static enum map_rc pattern_get(struct map *m, struct str key, struct sbuf *value) {
    struct state *s = m->state;
    const struct rule *r = rule_find(s, key);
    if (r == NULL)
        return MAP_NOT_FOUND;
    if (s->cidr || r->negate)
        sbuf_add_c(value, r->value);
    else
        substitute(s, r->value, key, value);
    return MAP_FOUND;
}

static void pattern_where(struct map *m, struct str key, struct sbuf *out) {
    const struct rule *r = rule_find(m->state, key);
    sbuf_add_c(out, m->name);
    if (r != NULL)
        sbuf_printf(out, ", line %d", r->line);
}

const struct map_ops map_regexp = {.type = "regexp",
                                   .suffix = "",
                                   .open = regex_open,
                                   .close = pattern_shut,
                                   .get = pattern_get,
                                   .where = pattern_where};

const struct map_ops map_pcre = {.type = "pcre",
                                 .suffix = "",
                                 .open = regex_open,
                                 .close = pattern_shut,
                                 .get = pattern_get,
                                 .where = pattern_where};

const struct map_ops map_cidr = {.type = "cidr",
                                 .suffix = "",
                                 .open = cidr_open,
                                 .close = pattern_shut,
                                 .get = pattern_get,
                                 .where = pattern_where};
