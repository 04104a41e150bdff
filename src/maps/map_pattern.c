/*
 * maps/map_pattern.c - regexp, pcre and cidr: tables of rules that are tried in order
 *
 * "/pattern/flags value", "!/pattern/flags value", "if /pattern/flags … endif"; $1, ${1}, $(1) in
 * the value are what a group matched.  cidr: "network value", "if network … endif".  The rules
 * stand in a file, a line each, or in the configuration itself: "pcre:{ { rule }, { rule } }".
 * pcre is PCRE2; regexp is the system's regcomp(3), as in Postfix.  Both ignore case unless a rule
 * says otherwise.  A rule that is not understood is left out, and the table's remark names it.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <ctype.h>
#include <errno.h>
#include <pcre2.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "maps/map.h"
#include "util/fs.h"
#include "util/lines.h"
#include "util/mem.h"
#include "util/net.h"

#define TEXT_MAX (16U << 20)

enum rule_op { RULE_MATCH, RULE_IF, RULE_ENDIF };
enum pattern_kind { PATTERN_UNSET, PATTERN_REGEXP, PATTERN_PCRE, PATTERN_CIDR };

struct rule {
    enum rule_op op;
    bool negate;
    pcre2_code *pcre; /* NULL: none */
    regex_t *posix;   /* owned; NULL: none */
    struct netblock net;
    char *value;
    size_t jump; /* RULE_IF: index after the matching endif */
    int line;    /* of the file, or the rule's number between braces */
};

struct state {
    struct map *m;
    enum pattern_kind kind;
    struct rule *v;
    size_t n;
    size_t n_groups; /* the highest group that a value names, and one more: for the whole match */
    pcre2_match_data *md;
    regmatch_t *posix; /* n_groups of them */
    char why[160];     /* what a library says of a pattern */
};

/* Rules that stand in the configuration may hold passwords: they are not shown. */
static const char *table_name(const struct map *m) {
    return m->path != NULL ? m->name : "{(hidden)}";
}

static void rule_warn(struct state *s, int line, const char *text, const char *so) {
    struct sbuf b = {0};
    sbuf_printf(&b, "%s, line %d: %s: %s", table_name(s->m), line, text, so);
    map_remark(s->m, b.p);
    sbuf_free(&b);
}

#define NOTHING "this line counts for nothing"

static void rule_free(struct rule *r) {
    pcre2_code_free(r->pcre);
    if (r->posix != NULL)
        regfree(r->posix);
    free(r->posix);
    free(r->value);
}

static void pattern_shut(struct map *m) {
    struct state *s = m->state;
    for (size_t i = 0; i < s->n; i++)
        rule_free(&s->v[i]);
    pcre2_match_data_free(s->md);
    free(s->posix);
    free(s->v);
    free(s);
}

/* -- values -- */

/* Takes the name behind a "$" off *rest: "1", "{1}", "(1)"; false: a brace is missing. */
static bool group_name(struct str *rest, struct str *name) {
    size_t n = 0;
    char open = rest->n > 0 ? rest->p[0] : '\0';
    if (open == '{' || open == '(') {
        ptrdiff_t end = str_chr(*rest, open == '{' ? '}' : ')');
        *name = end < 0 ? STR_NONE : str_make(rest->p + 1, (size_t)end - 1);
        *rest = end < 0 ? STR_NONE : str_from(*rest, (size_t)end + 1);
        return end >= 0;
    }
    while (n < rest->n && (isalnum((unsigned char)rest->p[n]) || rest->p[n] == '_'))
        n++;
    *name = str_make(rest->p, n);
    *rest = str_from(*rest, n);
    return true;
}

/* The next piece of a value: a text (*group 0) or a group's number.  False: there is none, or
 * *why says what is wrong with it. */
static bool value_next(struct str *rest, struct str *text, uint64_t *group, const char **why) {
    struct str name;
    *group = 0;
    if (rest->n == 0)
        return false;
    if (rest->p[0] != '$') {
        ptrdiff_t dollar = str_chr(*rest, '$');
        *text = str_make(rest->p, dollar < 0 ? rest->n : (size_t)dollar);
        *rest = str_from(*rest, text->n);
        return true;
    }
    *rest = str_from(*rest, 1);
    if (rest->n > 0 && rest->p[0] == '$') {
        *text = str_make(rest->p, 1);
        *rest = str_from(*rest, 1);
        return true;
    }
    if (!group_name(rest, &name))
        *why = "a brace of the replacement text is not closed";
    else if (!str_u64(name, group))
        *why = "what stands behind a $ of the replacement text is no number ($$ is a $)";
    else if (*group == 0)
        *why = "replacement text with $0";
    return *why == NULL;
}

/* The highest group that a value names; *why: what is wrong with the value. */
static uint64_t value_groups(struct str value, const char **why) {
    uint64_t highest = 0, group;
    struct str text;
    while (value_next(&value, &text, &group, why))
        highest = group > highest ? group : highest;
    return highest;
}

/* What group matched; empty: nothing. */
static struct str group_text(const struct state *s, const struct rule *r, struct str key,
                             uint64_t group) {
    size_t from, to;
    if (r->posix != NULL) {
        const regmatch_t *at = &s->posix[group];
        return at->rm_so < 0 ? STR_NONE
                             : str_make(key.p + at->rm_so, (size_t)(at->rm_eo - at->rm_so));
    }
    const PCRE2_SIZE *ov = pcre2_get_ovector_pointer(s->md);
    from = ov[2 * group];
    to = ov[2 * group + 1];
    return from == PCRE2_UNSET ? STR_NONE : str_make(key.p + from, to - from);
}

/* Appends the value of a rule that has matched key. */
static void value_add(const struct state *s, const struct rule *r, struct str key,
                      struct sbuf *out) {
    struct str rest = str_of(r->value), text;
    const char *why = NULL;
    uint64_t group;
    while (value_next(&rest, &text, &group, &why))
        sbuf_add_str(out, group > 0 ? group_text(s, r, key, group) : text);
}

/* -- patterns -- */

static bool pcre_flag(char flag, uint32_t *bits) {
    static const struct {
        char flag;
        uint32_t bit;
    } all[] = {{'i', PCRE2_CASELESS}, {'m', PCRE2_MULTILINE},
               {'s', PCRE2_DOTALL},   {'x', PCRE2_EXTENDED},
               {'A', PCRE2_ANCHORED}, {'E', PCRE2_DOLLAR_ENDONLY},
               {'U', PCRE2_UNGREEDY}, {'X', 0} /* an older library knew it */};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i].flag == flag) {
            *bits ^= all[i].bit;
            return true;
        }
    return false;
}

static const char *regex_compile_pcre(struct state *s, struct rule *r, struct str pattern,
                                      struct str flags) {
    uint32_t bits = PCRE2_CASELESS | PCRE2_DOTALL;
    int code;
    PCRE2_SIZE at;
    for (size_t i = 0; i < flags.n; i++)
        if (!pcre_flag(flags.p[i], &bits))
            return "unknown pattern flag";
    r->pcre = pcre2_compile((PCRE2_SPTR)pattern.p, pattern.n, bits, &code, &at, NULL);
    if (r->pcre != NULL)
        return NULL;
    if (pcre2_get_error_message(code, (PCRE2_UCHAR *)s->why, sizeof s->why) < 0)
        snprintf(s->why, sizeof s->why, "bad pattern");
    return s->why;
}

static const char *regex_compile_posix(struct state *s, struct rule *r, struct str pattern,
                                       struct str flags) {
    int bits = REG_EXTENDED | REG_ICASE;
    for (size_t i = 0; i < flags.n; i++) {
        if (flags.p[i] != 'i' && flags.p[i] != 'm' && flags.p[i] != 'x')
            return "unknown pattern flag";
        bits ^= flags.p[i] == 'i' ? REG_ICASE : flags.p[i] == 'm' ? REG_NEWLINE : REG_EXTENDED;
    }
    regex_t *posix = MEM_NEW(regex_t);
    char *text = str_dup(pattern);
    int code = regcomp(posix, text, bits);
    free(text);
    if (code == 0) {
        r->posix = posix;
        return NULL;
    }
    regerror(code, posix, s->why, sizeof s->why);
    free(posix);
    return s->why;
}

/* Takes "!", any number of times and with blanks, off *text. */
static void negation_take(struct rule *r, struct str *text) {
    while (text->n > 0 && (text->p[0] == '!' || isspace((unsigned char)text->p[0]))) {
        r->negate = r->negate != (text->p[0] == '!');
        *text = str_from(*text, 1);
    }
}

static struct str word_take(struct str *text) {
    size_t n = 0;
    while (n < text->n && !isspace((unsigned char)text->p[n]))
        n++;
    struct str word = str_make(text->p, n);
    *text = str_trim(str_from(*text, n));
    return word;
}

/* "[!]/pattern/flags" at the start of *text, which then is what follows. */
static const char *regex_take(struct state *s, struct rule *r, struct str *text) {
    negation_take(r, text);
    if (text->n == 0)
        return "no pattern";
    char delim = text->p[0];
    size_t end = 1;
    while (end < text->n && text->p[end] != delim)
        end += text->p[end] == '\\' ? 2 : 1;
    if (end >= text->n)
        return "no closing pattern delimiter";
    struct str pattern = str_make(text->p + 1, end - 1);
    *text = str_from(*text, end + 1);
    struct str flags = word_take(text);
    return s->kind == PATTERN_PCRE ? regex_compile_pcre(s, r, pattern, flags)
                                   : regex_compile_posix(s, r, pattern, flags);
}

static const char *network_take(struct rule *r, struct str *text) {
    const char *why = NULL;
    negation_take(r, text);
    if (!netblock_parse(&r->net, word_take(text), &why))
        return why != NULL ? why : "bad network pattern";
    return NULL;
}

static const char *pattern_take(struct state *s, struct rule *r, struct str *text) {
    return s->kind == PATTERN_CIDR ? network_take(r, text) : regex_take(s, r, text);
}

static uint64_t rule_captures(const struct rule *r) {
    uint32_t n = 0;
    if (r->posix != NULL)
        return r->posix->re_nsub;
    pcre2_pattern_info(r->pcre, PCRE2_INFO_CAPTURECOUNT, &n);
    return n;
}

/* What the value of a rule asks for and cannot have; NULL: nothing. */
static const char *rule_value_check(struct state *s, const struct rule *r) {
    const char *why = NULL;
    uint64_t highest = s->kind == PATTERN_CIDR ? 0 : value_groups(str_of(r->value), &why);
    if (s->kind == PATTERN_CIDR && r->value[0] == '\0') /* as in Postfix, of cidr alone */
        return "no result";
    if (why != NULL)
        return why;
    if (highest > 0 && r->negate)
        return "a pattern that must not match has no groups";
    if (highest > 0 && highest > rule_captures(r))
        return "the replacement text names a group that the pattern does not have";
    s->n_groups = highest + 1 > s->n_groups ? (size_t)highest + 1 : s->n_groups;
    return NULL;
}

/* -- rules -- */

/* Takes the word off *line, in any case, unless a letter or a digit follows it. */
static bool keyword_take(struct str *line, const char *word) {
    size_t n = strlen(word);
    if (!str_istarts(*line, word) || (line->n > n && isalnum((unsigned char)line->p[n])))
        return false;
    *line = str_trim(str_from(*line, n));
    return true;
}

/* A rule that counts: what follows its pattern. */
static void rule_rest(struct state *s, const struct rule *r, struct str rest) {
    if (r->op != RULE_MATCH && rest.n > 0)
        rule_warn(s, r->line, "text behind if or endif counts for nothing",
                  "no blanks stand before the lines between them");
    else if (r->op == RULE_MATCH && rest.n == 0)
        rule_warn(s, r->line, "no replacement text", "it is empty");
}

static void rule_add(void *arg, struct str line, int no) {
    struct state *s = arg;
    struct rule r = {.op = RULE_MATCH, .line = no};
    const char *why = NULL;
    line = str_trim(line);
    if (keyword_take(&line, "endif"))
        r.op = RULE_ENDIF;
    else if (keyword_take(&line, "if"))
        r.op = RULE_IF;
    else if (s->kind != PATTERN_CIDR && line.n > 0 && isalnum((unsigned char)line.p[0]))
        why = "no pattern, if or endif";
    if (why == NULL && r.op != RULE_ENDIF)
        why = pattern_take(s, &r, &line);
    if (why == NULL && s->kind == PATTERN_CIDR && r.op != RULE_MATCH && line.n > 0)
        why = "text behind if or endif"; /* as in Postfix, of cidr alone */
    r.value = str_dup(line);
    if (why == NULL && r.op == RULE_MATCH)
        why = rule_value_check(s, &r);
    if (why != NULL) {
        rule_warn(s, no, why, NOTHING);
        rule_free(&r);
        return;
    }
    rule_rest(s, &r, line);
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
            rule_warn(s, s->v[i].line, "if without endif", "it goes on to the end");
        s->v[i].jump = k;
    }
}

static void rule_orphan(void *arg, struct str line, int no) {
    (void)line;
    rule_warn(arg, no, "line begins with whitespace but continues nothing", NOTHING);
}

static const struct lines_ops rule_ops = {rule_add, rule_orphan};

/* "{ { rule }, { rule } }".  False: it is not. */
static bool rules_of_list(struct state *s, struct str list) {
    struct str one;
    int no = 0;
    if (!str_unbrace(&list))
        return false;
    while (str_split_braces(&list, ", \t\r\n", &one)) {
        if (!str_unbrace(&one))
            return false;
        rule_add(s, one, ++no);
    }
    return true;
}

static int rules_of_file(struct state *s) {
    struct map *m = s->m;
    struct sbuf text = {0};
    char why[FS_WHY_MAX];
    int rc = fs_read(m->path, &text, TEXT_MAX);
    if (rc < 0)
        map_set_error(m, "open %s: %s", m->path, fs_read_why(rc, TEXT_MAX, why));
    else
        lines_logical(sbuf_str(&text), false, &rule_ops, s);
    sbuf_free(&text);
    return rc < 0 ? rc : 0;
}

static int pattern_open(struct map *m, enum pattern_kind kind) {
    struct state *s = MEM_NEW(struct state);
    int rc = 0;
    s->m = m;
    s->kind = kind;
    s->n_groups = 1;
    m->state = s;
    if (m->path != NULL) {
        rc = rules_of_file(s);
    } else if (!rules_of_list(s, str_of(m->name))) {
        map_set_error(m, "bad syntax: need \"%s:{{rule}, …}\"", m->ops->type);
        rc = -EINVAL;
    }
    if (rc < 0) {
        pattern_shut(m);
        m->state = NULL;
        return rc;
    }
    s->md = pcre2_match_data_create((uint32_t)s->n_groups, NULL);
    s->posix = mem_realloc(NULL, s->n_groups * sizeof *s->posix);
    link_ifs(s);
    return 0;
}

static int regexp_open(struct map *m) {
    return pattern_open(m, PATTERN_REGEXP);
}

static int pcre_open(struct map *m) {
    return pattern_open(m, PATTERN_PCRE);
}

static int cidr_open(struct map *m) {
    return pattern_open(m, PATTERN_CIDR);
}

/* -- look-ups -- */

/* MAP_ERROR: the library has given up (a pattern that takes too many steps), and s->why says why.
 */
static enum map_rc regex_match(struct state *s, const struct rule *r, struct str key) {
    int rc;
    if (r->posix != NULL) {
        rc = regexec(r->posix, key.p, s->n_groups, s->posix, 0);
        if (rc == 0 || rc == REG_NOMATCH)
            return rc == 0 ? MAP_FOUND : MAP_NOT_FOUND;
        regerror(rc, r->posix, s->why, sizeof s->why);
        return MAP_ERROR;
    }
    rc = pcre2_match(r->pcre, (PCRE2_SPTR)key.p, key.n, 0, 0, s->md, NULL);
    if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH)
        return rc >= 0 ? MAP_FOUND : MAP_NOT_FOUND;
    if (pcre2_get_error_message(rc, (PCRE2_UCHAR *)s->why, sizeof s->why) < 0)
        snprintf(s->why, sizeof s->why, "error %d", rc);
    return MAP_ERROR;
}

static enum map_rc rule_match(struct state *s, const struct rule *r, struct str key,
                              const struct netaddr *addr) {
    bool hit;
    if (s->kind == PATTERN_CIDR) { /* "!network" is about addresses of the network's own family */
        hit = r->net.base.u.sa.sa_family == addr->u.sa.sa_family &&
              netblock_has(&r->net, addr) != r->negate;
    } else {
        enum map_rc rc = regex_match(s, r, key);
        if (rc == MAP_ERROR)
            return rc;
        hit = (rc == MAP_FOUND) != r->negate;
    }
    return hit ? MAP_FOUND : MAP_NOT_FOUND;
}

/* The rule that answers for key (MAP_FOUND), or that cannot be asked (MAP_ERROR, with s->why). */
static enum map_rc rule_find(struct state *s, struct str key, const struct rule **found) {
    struct netaddr addr;
    if (s->kind == PATTERN_CIDR && !netaddr_parse(&addr, key, 0))
        return MAP_NOT_FOUND;
    for (size_t i = 0; i < s->n;) {
        const struct rule *r = *found = &s->v[i];
        enum map_rc rc = r->op == RULE_ENDIF ? MAP_NOT_FOUND : rule_match(s, r, key, &addr);
        if (rc == MAP_ERROR || (rc == MAP_FOUND && r->op == RULE_MATCH))
            return rc;
        i = r->op == RULE_IF && rc == MAP_NOT_FOUND ? r->jump : i + 1;
    }
    return MAP_NOT_FOUND;
}

static enum map_rc pattern_get(struct map *m, struct str key, struct sbuf *value) {
    struct state *s = m->state;
    const struct rule *r;
    enum map_rc rc = rule_find(s, key, &r);
    if (rc == MAP_ERROR)
        map_set_error(m, "%s, line %d: %s", table_name(m), r->line, s->why);
    else if (rc == MAP_FOUND && s->kind == PATTERN_CIDR)
        sbuf_add_c(value, r->value);
    else if (rc == MAP_FOUND)
        value_add(s, r, key, value);
    return rc;
}

static void pattern_where(struct map *m, struct str key, struct sbuf *out) {
    const struct rule *r;
    enum map_rc rc = rule_find(m->state, key, &r);
    sbuf_add_c(out, table_name(m));
    if (rc != MAP_NOT_FOUND)
        sbuf_printf(out, ", line %d", r->line);
}

static void pattern_rules(struct map *m, map_row_fn fn, void *arg) {
    const struct state *s = m->state;
    bool more = true;
    for (size_t i = 0; i < s->n && more; i++) {
        struct sbuf line = {0};
        sbuf_printf(&line, "line %d", s->v[i].line);
        more = s->v[i].op != RULE_MATCH || fn(arg, sbuf_str(&line), str_of(s->v[i].value)) == 0;
        sbuf_free(&line);
    }
}

const struct map_ops map_regexp = {.type = "regexp",
                                   .suffix = "",
                                   .open = regexp_open,
                                   .close = pattern_shut,
                                   .get = pattern_get,
                                   .rules = pattern_rules,
                                   .where = pattern_where};

const struct map_ops map_pcre = {.type = "pcre",
                                 .suffix = "",
                                 .open = pcre_open,
                                 .close = pattern_shut,
                                 .get = pattern_get,
                                 .rules = pattern_rules,
                                 .where = pattern_where};

const struct map_ops map_cidr = {.type = "cidr",
                                 .suffix = "",
                                 .open = cidr_open,
                                 .close = pattern_shut,
                                 .get = pattern_get,
                                 .rules = pattern_rules,
                                 .where = pattern_where};
